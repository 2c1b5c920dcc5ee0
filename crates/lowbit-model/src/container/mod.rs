//! Containers of tensors: mapped readers that trust nothing, and streaming writers that replace files atomically.
//! Safetensors here, GGUF in [`gguf`].

pub(crate) mod foreign;
pub mod gguf;
mod header;
mod read;
mod write;

pub use header::Dtype;
pub use read::{Entry, Tensors};
pub use write::{Planned, Writer, write_atomic};

/// The first value that is NaN or infinite. Others are passed many at a time.
fn not_finite(values: &[f32]) -> Option<usize> {
    const MANY: usize = 1024;
    let chunk = values.chunks(MANY).position(|chunk| chunk.iter().fold(false, |any, v| any | !v.is_finite()))?;
    values[chunk * MANY..].iter().position(|v| !v.is_finite()).map(|at| chunk * MANY + at)
}

/// A name as it may be printed: control characters escaped, at most 80 characters.
pub(crate) fn show(name: &str) -> String {
    let mut out: String = name.chars().take(80).flat_map(char::escape_debug).collect();
    if name.chars().nth(80).is_some() {
        out.push_str("...");
    }
    out
}
