//! Shared, immutable bytes: a part of an allocation or of a mapped file.

use std::fs::File;
use std::ops::{Deref, Range};
use std::sync::Arc;

type Owner = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A range of bytes that keeps its owner (an allocation or a memory map) alive. Cloning copies no data.
#[derive(Clone)]
pub struct Bytes {
    owner: Owner,
    range: Range<usize>,
}

impl Bytes {
    /// All bytes of an owner.
    pub fn new(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        let range = 0..owner.as_ref().len();
        Bytes { owner: Arc::new(owner), range }
    }

    /// Maps a file for reading; its pages are shared between processes.
    pub fn map(file: &File) -> std::io::Result<Self> {
        // SAFETY: the map is read-only and private; a file truncated by another process while mapped is outside what
        // any mapping reader can defend against, and model files are replaced by rename, never truncated in place.
        let map = unsafe { memmap2::Mmap::map(file)? };
        Ok(Bytes::new(map))
    }

    /// A part of these bytes; `None` when the range is not inside.
    pub fn slice(&self, range: Range<usize>) -> Option<Self> {
        let (start, end) = (self.range.start.checked_add(range.start)?, self.range.start.checked_add(range.end)?);
        (start <= end && end <= self.range.end).then(|| Bytes { owner: self.owner.clone(), range: start..end })
    }

    /// Bytes of little-endian f32 values.
    pub fn from_f32(values: &[f32]) -> Self {
        Bytes::new(values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
    }
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &(*self.owner).as_ref()[self.range.clone()]
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bytes({})", self.len())
    }
}
