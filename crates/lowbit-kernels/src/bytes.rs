//! Shared, immutable bytes: a part of an allocation or of a mapped file.

use std::fs::File;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Bytes from which on pages of 2 MiB pay.
const LARGE: usize = 4 << 20;

/// Zeroed memory in pages of 2 MiB, where the system has such.
pub(crate) fn large_pages(bytes: usize) -> std::io::Result<memmap2::MmapMut> {
    let map = memmap2::MmapMut::map_anon(bytes)?;
    // A mere wish: without such pages everything works, a little slower.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    Ok(map)
}

type Owner = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A range of bytes that keeps its owner (an allocation or a memory map) alive. Cloning copies no data.
#[derive(Clone)]
pub struct Bytes {
    owner: Owner,
    range: Range<usize>,
}

impl Bytes {
    /// All bytes of an owner. Many of them are copied into pages of 2 MiB, where the system has such: reading weights from
    /// memory is limited by address translation otherwise.
    pub fn new(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        let bytes = owner.as_ref();
        if bytes.len() >= LARGE
            && let Ok(mut pages) = large_pages(bytes.len())
        {
            pages.copy_from_slice(bytes);
            return Bytes::of(pages);
        }
        Bytes::of(owner)
    }

    fn of(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        let range = 0..owner.as_ref().len();
        Bytes { owner: Arc::new(owner), range }
    }

    /// Maps a file for reading; its pages are shared between processes.
    pub fn map(file: &File) -> std::io::Result<Self> {
        // SAFETY: the map is read-only and private; a file truncated by another process while mapped is outside what
        // any mapping reader can defend against, and model files are replaced by rename, never truncated in place.
        let map = unsafe { memmap2::Mmap::map(file)? };
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Bytes::of(map))
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
