//! Shared, immutable bytes: a part of an allocation or of a mapped file.

use std::cell::Cell;
use std::fs::File;
use std::ops::{Deref, Range};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Bytes from which on reading from pages of 2 MiB pays.
const LARGE: usize = 64 << 10;
/// Memory that smaller bytes share: a page of 2 MiB holds many of them.
const SHARED: usize = 64 << 20;
/// Bytes of a page at most, but for large ones.
const PAGE: usize = 64 << 10;

/// Zeroed memory in pages of 2 MiB, where the system has such.
pub(crate) fn large_pages(bytes: usize) -> std::io::Result<memmap2::MmapMut> {
    let map = memmap2::MmapMut::map_anon(bytes)?;
    // A mere wish: without such pages everything works, a little slower.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    Ok(map)
}

/// Memory that is still written.
enum Memory {
    Pages(Taken),
    Heap(Vec<u8>),
}

impl Memory {
    fn bytes(&mut self) -> &mut [u8] {
        match self {
            Memory::Pages(taken) => taken.bytes(),
            Memory::Heap(bytes) => bytes,
        }
    }
}

/// The memory that bytes are now put into, one behind the other, and how much of it is taken. It is given back when the last
/// bytes in it are gone.
static CURRENT: Mutex<(Weak<Arena>, usize)> = Mutex::new((Weak::new(), 0));

/// Memory whose parts have one owner each: no reference to all of it is made.
type Arena = memmap2::MmapRaw;

/// A range of an arena; nothing else refers to these bytes.
struct Taken {
    _arena: Arc<Arena>,
    start: *mut u8,
    len: usize,
}

// SAFETY: the bytes belong to this value alone.
unsafe impl Send for Taken {}
// SAFETY: as above; they are written through an exclusive reference only.
unsafe impl Sync for Taken {}

impl AsRef<[u8]> for Taken {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: inside the arena, which is alive, and initialized; written through an exclusive reference only.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl Taken {
    /// Zeroed memory with pages of 2 MiB for many bytes; `None` for few, for [`temporary`] ones, and when there is no memory.
    fn new(len: usize) -> Option<Self> {
        if len < LARGE || TEMPORARY.get() {
            return None;
        }
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        let room = len.checked_next_multiple_of(64)?;
        let arena = match current.0.upgrade() {
            Some(arena) if room <= SHARED - current.1.min(SHARED) => arena,
            _ => {
                let arena = Arc::new(Arena::from(large_pages(room.max(SHARED)).ok()?));
                *current = (Arc::downgrade(&arena), 0);
                arena
            }
        };
        let at = current.1;
        current.1 += room;
        assert!(current.1 <= arena.len(), "inside the arena");
        // SAFETY: `at..at + room` is inside the map, as just checked, and is handed out just now, to nobody else.
        let start = unsafe { arena.as_mut_ptr().add(at) };
        Some(Taken { _arena: arena, start, len })
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_ref`, through an exclusive reference.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

thread_local! {
    static TEMPORARY: Cell<bool> = const { Cell::new(false) };
}

/// Calls `make` and returns its result; bytes made by it on this thread are not copied into pages of 2 MiB, which are given
/// back only when all bytes in them are gone.
pub(crate) fn temporary<T>(make: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            TEMPORARY.set(self.0);
        }
    }
    let _restore = Restore(TEMPORARY.replace(true));
    make()
}

type Owner = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A range of bytes that keeps its owner (an allocation or a memory map) alive. Cloning copies no data.
#[derive(Clone)]
pub struct Bytes {
    owner: Owner,
    /// The owner, where it is a map of a file.
    map: Option<Arc<memmap2::Mmap>>,
    range: Range<usize>,
}

impl Bytes {
    /// All bytes of an owner. Many of them are copied into pages of 2 MiB, where the system has such: reading weights from
    /// memory is limited by address translation otherwise.
    pub fn new(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        let bytes = owner.as_ref();
        if let Some(mut taken) = Taken::new(bytes.len()) {
            taken.bytes().copy_from_slice(bytes);
            return Bytes::of(taken);
        }
        Bytes::of(owner)
    }

    fn of(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        let range = 0..owner.as_ref().len();
        Bytes { owner: Arc::new(owner), map: None, range }
    }

    /// Bytes of the given lengths, zero at first, that `fill` writes; many of them lie in pages of 2 MiB as in
    /// [`Bytes::new`].
    pub fn build(lengths: &[usize], fill: impl FnOnce(Vec<&mut [u8]>)) -> Vec<Self> {
        let make = |len: &usize| Taken::new(*len).map_or_else(|| Memory::Heap(vec![0; *len]), Memory::Pages);
        let mut all: Vec<Memory> = lengths.iter().map(make).collect();
        fill(all.iter_mut().map(Memory::bytes).collect());
        let shared = |memory| match memory {
            Memory::Pages(taken) => Bytes::of(taken),
            Memory::Heap(bytes) => Bytes::of(bytes),
        };
        all.into_iter().map(shared).collect()
    }

    /// Maps a file for reading; its pages are shared between processes.
    pub fn map(file: &File) -> std::io::Result<Self> {
        // SAFETY: the map is read-only and private, and files of models are replaced by rename, never written in place. Where
        // another process cuts one short all the same, reading it ends the process: see [`crate::fatal::on_lost_pages`].
        let map = unsafe { memmap2::Mmap::map(file)? };
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        let (range, map) = (0..map.len(), Arc::new(map));
        Ok(Bytes { owner: map.clone(), map: Some(map), range })
    }

    /// Gives up the memory of a part of a mapped file, which is not needed soon; it is read again when it is.
    pub fn release(&self) {
        // Only whole pages are inside.
        let inside = self.range.start.next_multiple_of(PAGE)..self.range.end / PAGE * PAGE;
        #[cfg(target_os = "linux")]
        if let Some(map) = self.map.as_ref().filter(|_| inside.start < inside.end) {
            // SAFETY: the pages of a read-only map of a file come back from the file, with the same content. That the
            // system refuses changes nothing.
            let _ = unsafe {
                map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, inside.start, inside.end - inside.start)
            };
        }
    }

    /// A part of these bytes; `None` when the range is not inside.
    pub fn slice(&self, range: Range<usize>) -> Option<Self> {
        let (start, end) = (self.range.start.checked_add(range.start)?, self.range.start.checked_add(range.end)?);
        let part = || Bytes { owner: self.owner.clone(), map: self.map.clone(), range: start..end };
        (start <= end && end <= self.range.end).then(part)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_bytes_are_not_copied() {
        let make = || {
            let bytes = vec![7u8; 2 * LARGE];
            (bytes.as_ptr(), Bytes::new(bytes))
        };
        let (at, bytes) = temporary(|| temporary(make));
        assert_eq!(bytes.as_ptr(), at);
        let (at, kept) = make();
        assert_ne!(kept.as_ptr(), at, "pages of 2 MiB");
        assert_eq!(kept[..], bytes[..]);
    }
}
