//! The safetensors container: a mapped reader that trusts nothing, and a streaming writer that replaces files atomically.

mod header;
mod read;
mod write;

pub use header::Dtype;
pub use read::{Entry, Tensors};
pub use write::{Planned, Writer, write_atomic};

/// A name as it may be printed: control characters escaped, at most 80 characters.
pub(crate) fn show(name: &str) -> String {
    let mut out: String = name.chars().take(80).flat_map(char::escape_debug).collect();
    if name.chars().nth(80).is_some() {
        out.push_str("...");
    }
    out
}
