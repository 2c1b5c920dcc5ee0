//! Containers of tensors: mapped readers that trust nothing, and streaming writers that replace files atomically.
//! Safetensors here, GGUF in [`gguf`].

pub mod gguf;
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
