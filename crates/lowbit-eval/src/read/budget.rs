//! What the content of one file may take, counted where bytes and rows are accepted.

use crate::error::{Error, Kind};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that any file may grow to, however small it is.
const FLOOR: u64 = 64 << 20;
/// Bytes of content for each byte on disk, beyond which a file is taken for a decompression bomb. Tables of text compress to
/// a third or a tenth.
const INFLATION: u64 = 100;

/// Bytes that may still be accepted. What a file declares of its sizes plays no part: only bytes that are there count.
#[derive(Debug)]
pub struct Budget {
    most: u64,
    left: AtomicU64,
    /// Whether the size of the source sets the limit.
    inflated: bool,
}

impl Budget {
    /// A budget of `most` bytes for content that takes `stored` bytes where it comes from, less when it grows out of
    /// proportion.
    pub fn new(stored: u64, most: u64) -> Self {
        let inflated = FLOOR.saturating_add(stored.saturating_mul(INFLATION));
        Budget { most: most.min(inflated), left: AtomicU64::new(most.min(inflated)), inflated: inflated < most }
    }

    /// A budget for the content of a file.
    pub fn of_file(path: &Path, most: u64) -> Self {
        // A file that cannot be opened has no content.
        Budget::new(std::fs::metadata(path).map_or(0, |metadata| metadata.len()), most)
    }

    /// A budget for what comes through a pipe, whose size nobody knows.
    pub fn of_stream(most: u64) -> Self {
        Budget::new(u64::MAX, most)
    }

    /// Counts bytes that are about to be kept.
    ///
    /// # Errors
    /// [`Exceeded`] when there are fewer left.
    pub fn take(&self, bytes: u64) -> Result<(), Exceeded> {
        let left = self.left.load(Ordering::Relaxed);
        match left.checked_sub(bytes) {
            Some(left) => self.left.store(left, Ordering::Relaxed),
            None => return Err(Exceeded { most: self.most, inflated: self.inflated }),
        }
        Ok(())
    }

    /// Bytes that may still be accepted.
    pub fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }
}

/// There is more content than a budget allows.
#[derive(Clone, Copy, Debug)]
pub struct Exceeded {
    most: u64,
    inflated: bool,
}

impl Exceeded {
    /// Whether this is the cause of a failed read.
    pub(super) fn of(cause: &io::Error) -> Option<Self> {
        cause.get_ref()?.downcast_ref::<Exceeded>().copied()
    }
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Exceeded { most, inflated } = self;
        match inflated {
            true => {
                write!(f, "holds more than {most} bytes of content, over {INFLATION} times its size, and is refused")
            }
            false => write!(f, "more than {most} bytes of content, the limit for one file: split it"),
        }
    }
}

impl std::error::Error for Exceeded {}

impl From<Exceeded> for Error {
    fn from(exceeded: Exceeded) -> Self {
        Error::new(Kind::Memory, exceeded.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_limit_counts() {
        let plain = Budget::new(1 << 30, 100);
        assert!(plain.take(60).is_ok() && plain.take(40).is_ok());
        assert_eq!(plain.left(), 0);
        let error: Error = plain.take(1).unwrap_err().into();
        assert_eq!(error.kind, Kind::Memory);
        assert_eq!(error.message, "more than 100 bytes of content, the limit for one file: split it");
        let bomb = Budget::new(1 << 20, 2 << 30);
        assert_eq!(bomb.left(), (64 << 20) + (100 << 20));
        let error = bomb.take(1 << 28).unwrap_err().to_string();
        assert_eq!(error, "holds more than 171966464 bytes of content, over 100 times its size, and is refused");
    }
}
