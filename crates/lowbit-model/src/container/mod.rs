//! Containers of tensors: mapped readers that trust nothing, and streaming writers that replace files atomically.
//! Safetensors here, GGUF in [`gguf`].

pub(crate) mod foreign;
pub mod gguf;
mod header;
mod read;
mod write;

use crate::reader::absent::dangling;
use crate::{Error, Kind};
use lowbit_base::file;
use lowbit_base::memory::bytes as bytes_text;
use lowbit_kernels::Bytes;
use std::path::Path;

pub use header::Dtype;
pub use read::{Entry, Tensors};
pub use write::{Planned, Writer};

/// The content of a regular file that has at most so many bytes.
///
/// # Errors
/// When it is none, only stands for another file, or cannot be read.
pub(crate) fn read_small(path: &Path, most: u64) -> Result<Vec<u8>, Error> {
    let content = file::read(path, most).map_err(|e| dangling(path).unwrap_or(e))?;
    match foreign::pointer(&content) {
        None => Ok(content),
        Some(text) => Err(Error::input(path, text)),
    }
}

/// Maps a regular file for reading; an empty one is no bytes.
fn map(path: &Path) -> Result<Bytes, Error> {
    let file = file::open(path).map_err(|e| dangling(path).unwrap_or(e))?;
    let map = || match file.metadata()?.len() {
        // An empty file cannot be mapped.
        0 => Ok(Bytes::new([])),
        _ => Bytes::map(&file),
    };
    map().map_err(|e| match Error::io(path, &e) {
        Error { kind: Kind::Memory, .. } => {
            let bytes = file.metadata().map_or(0, |metadata| metadata.len());
            let text = format!(
                "{} cannot be mapped: the limit of address space, ulimit -v, leaves too little",
                bytes_text(bytes)
            );
            Error::memory(format!("{text}; raise it")).in_file(path)
        }
        e => e,
    })
}

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
