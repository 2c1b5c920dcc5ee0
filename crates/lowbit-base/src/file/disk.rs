//! The operations of a file system that writers need; tests let some of them fail.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

/// Creates a file that is not there, following no link.
pub(super) fn create(path: &Path) -> io::Result<Sink> {
    step()?;
    Ok(Sink(OpenOptions::new().write(true).create_new(true).open(path)?))
}

pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    step()?;
    fs::rename(from, to)
}

/// Removes a file; one that is not there is no fault.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    step()?;
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// A hard link to a file, or a copy where the file system has no hard links.
pub(super) fn link(from: &Path, to: &Path) -> io::Result<()> {
    step()?;
    fs::hard_link(from, to).or_else(|_| {
        let copied = io::copy(&mut File::open(from)?, &mut OpenOptions::new().write(true).create_new(true).open(to)?);
        copied.map(|_| ())
    })
}

/// Makes renames in a folder durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    step()?;
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

/// A file open for writing.
#[derive(Debug)]
pub(super) struct Sink(pub(super) File);

impl Sink {
    /// Makes what was written durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        step()?;
        self.0.sync_all()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        step()?;
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Seek for Sink {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

/// Counts an operation, and fails where a test asks for it.
#[inline(always)]
fn step() -> io::Result<()> {
    #[cfg(any(test, feature = "faults"))]
    faults::spend()?;
    Ok(())
}

/// Operations on files that fail, on the thread of a test.
#[cfg(any(test, feature = "faults"))]
pub mod faults {
    use std::cell::Cell;
    use std::io;

    /// Which operations fail, counted from 0.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Fault {
        /// One.
        Only(usize),
        /// This operation and all after it.
        From(usize),
    }

    thread_local! {
        static FAULT: Cell<Option<Fault>> = const { Cell::new(None) };
        static DONE: Cell<usize> = const { Cell::new(0) };
    }

    /// Operations that `work` asks for when some of them fail, and what it returns.
    pub fn with<T>(fault: Option<Fault>, work: impl FnOnce() -> T) -> (usize, T) {
        struct Restore;
        impl Drop for Restore {
            fn drop(&mut self) {
                FAULT.set(None);
            }
        }
        FAULT.set(fault);
        DONE.set(0);
        let _restore = Restore;
        let result = work();
        (DONE.get(), result)
    }

    pub(super) fn spend() -> io::Result<()> {
        let n = DONE.replace(DONE.get() + 1);
        match FAULT.get() {
            Some(Fault::Only(at)) if n == at => Err(io::ErrorKind::StorageFull.into()),
            Some(Fault::From(at)) if n >= at => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}
