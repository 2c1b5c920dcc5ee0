//! GGUF, the file format of llama.cpp: a mapped reader that trusts nothing, and a streaming writer.
//!
//! Tensors are `[rows, cols]` here; the file has dimensions in the other order, the innermost first.

mod blocks;
mod header;
mod read;
mod types;
mod write;

pub use header::{Array, Value};
pub use read::{Gguf, Tensor};
pub use types::{TYPES, Type, find};
pub use write::{Field, GgufWriter, Planned};

/// The first bytes of a file.
pub const MAGIC: [u8; 4] = *b"GGUF";
/// Alignment of tensors when the file does not say, bytes.
const ALIGN: usize = 32;
/// The metadata key of the alignment.
const ALIGN_KEY: &str = "general.alignment";
