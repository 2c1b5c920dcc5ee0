//! A state of a run as it lies on disk: read a tensor at a time, as it may be larger than what memory has left.

use crate::Error;
use lowbit_base::file;
use safetensors::tensor::Metadata;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Bytes of the hash at the end of a file.
pub(crate) const HASH_BYTES: usize = 32;
/// Begins the names of second moments, which are never negative.
pub(crate) const SQUARES: &str = "v";
/// Bytes of the length that a file begins with.
const LENGTH: u64 = 8;
/// Bytes that are read at a time.
const CHUNK: usize = 1 << 20;

/// A state whose hash fits.
pub(crate) struct State {
    path: PathBuf,
    file: File,
    tensors: Metadata,
    /// Where the values of tensors begin.
    data: u64,
}

impl State {
    /// Opens a file of at most so many bytes.
    ///
    /// # Errors
    /// Input: it is larger, damaged, or no state. Io: it cannot be read.
    pub(crate) fn open(path: &Path, most: u64) -> Result<Self, Error> {
        let failed = |e: io::Error| Error::io(path, &e);
        let broken = |text: String| Error::input(path, format!("not a state of a training run: {text}"));
        let file = file::open(path)?;
        let size = file.metadata().map_err(failed)?.len();
        if size > most {
            return Err(Error::input(path, format!("has {size} bytes, more than the {most} of a state of this run")));
        }
        let Some(cut) = size.checked_sub(HASH_BYTES as u64) else {
            return Err(Error::input(path, format!("truncated: {size} bytes")));
        };
        if !hash_fits(&file, cut).map_err(failed)? {
            return Err(Error::input(path, "damaged: the SHA-256 at its end does not fit its content"));
        }
        let mut length = [0; LENGTH as usize];
        let whole = cut >= LENGTH;
        if whole {
            read_at(&file, 0, &mut length).map_err(failed)?;
        }
        let header = u64::from_le_bytes(length);
        if !whole || header > cut - LENGTH {
            return Err(broken(format!("a header of {header} bytes in a file of {size}")));
        }
        let mut text = vec![0; header as usize];
        read_at(&file, LENGTH, &mut text).map_err(failed)?;
        let tensors: Metadata = serde_json::from_slice(&text).map_err(|e| broken(e.to_string()))?;
        let data = LENGTH + header;
        match data + tensors.data_len() as u64 == size {
            true => Ok(State { path: path.into(), file, tensors, data }),
            false => Err(broken(format!("tensors of {} bytes in a file of {size}", tensors.data_len()))),
        }
    }

    /// The text fields.
    pub(crate) fn fields(&self) -> Option<&HashMap<String, String>> {
        self.tensors.metadata().as_ref()
    }

    /// A text field.
    pub(crate) fn field(&self, name: &str) -> Result<&str, Error> {
        let value = self.fields().and_then(|fields| fields.get(name)).map(String::as_str);
        value.ok_or_else(|| Error::input(&self.path, format!("not a state of a training run: `{name}` is missing")))
    }

    /// A field as a number that passes a test.
    pub(crate) fn number<T: FromStr>(&self, name: &str, good: impl Fn(&T) -> bool, expected: &str) -> Result<T, Error> {
        let text = self.field(name)?;
        let number = text.parse().ok().filter(|number| good(number));
        number.ok_or_else(|| Error::input(&self.path, format!("`{name}` is `{text}`; it must be {expected}")))
    }

    /// Whether there is a tensor of a name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.tensors.info(name).is_some()
    }

    /// Reads a tensor.
    ///
    /// # Errors
    /// When it is missing, has another size, or holds what no run leaves.
    pub(crate) fn tensor(&self, name: &str, into: &mut [f32]) -> Result<(), Error> {
        let fault = |text: String| Error::input(&self.path, format!("tensor `{name}` {text}"));
        let info = self.tensors.info(name).ok_or_else(|| fault("is missing".into()))?;
        let (from, to) = info.data_offsets;
        if to - from != into.len() * 4 {
            return Err(fault(format!("has {} bytes, not {}", to - from, into.len() * 4)));
        }
        let (mut at, mut bytes) = (self.data + from as u64, vec![0; CHUNK.min(to - from)]);
        for values in into.chunks_mut(CHUNK / 4) {
            let bytes = &mut bytes[..4 * values.len()];
            read_at(&self.file, at, bytes).map_err(|e| Error::io(&self.path, &e))?;
            values.iter_mut().zip(bytes.as_chunks().0).for_each(|(value, bytes)| *value = f32::from_le_bytes(*bytes));
            at += bytes.len() as u64;
        }
        let squares = name.starts_with(SQUARES);
        match into.iter().position(|v| !v.is_finite() || squares && *v < 0.0) {
            None => Ok(()),
            Some(at) => Err(fault(format!("holds {} at index {at}", into[at]))),
        }
    }
}

/// Whether the hash after so many bytes is theirs.
fn hash_fits(file: &File, cut: u64) -> io::Result<bool> {
    let (mut hash, mut left, mut bytes) = (Sha256::new(), cut, vec![0; CHUNK]);
    let mut file = file;
    file.seek(SeekFrom::Start(0))?;
    while left > 0 {
        let part = &mut bytes[..left.min(CHUNK as u64) as usize];
        file.read_exact(part)?;
        hash.update(&*part);
        left -= part.len() as u64;
    }
    let mut stored = [0; HASH_BYTES];
    file.read_exact(&mut stored)?;
    Ok(hash.finalize()[..] == stored)
}

fn read_at(mut file: &File, at: u64, into: &mut [u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(into)
}
