//! A folder that one process works in.

use super::folder::same_file;
use super::live::Live;
use super::open::what;
use crate::{Error, Kind};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Name of the file that is locked.
const NAME: &str = ".lowbit.lock";
/// Most attempts while other processes come and go.
const ATTEMPTS: usize = 100;

/// Keeps other processes out of a folder. The operating system lets go of it when the process ends, however it ends; the
/// file disappears when the lock is dropped, and one that a killed process left is taken over. Where the file system has no
/// locks, nobody is kept out.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    file: File,
    _live: Live,
}

impl Lock {
    /// Takes the lock of a folder that is there.
    ///
    /// # Errors
    /// [`Kind::Io`] when another process has it (`locked by pid ..`), or the folder cannot be written.
    pub fn acquire(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(NAME);
        for _ in 0..ATTEMPTS {
            match create(&path).map_err(|e| Error::io(&path, &e))? {
                Some(lock) => return Ok(lock),
                None => dispose(&path, folder)?,
            }
        }
        Err(Error::new(Kind::Io, "other processes take and leave it all the time").in_file(&path))
    }
}

impl Lock {
    /// Removes what killed processes left half written in the folder.
    pub fn sweep(&self) {
        if let Ok(own) = self.metadata() {
            super::replace::sweep(super::folder::of(&self.path), &own);
        }
    }

    /// What the system knows of the file, whose owner is this process's user.
    pub(super) fn metadata(&self) -> Result<std::fs::Metadata, Error> {
        self.file.metadata().map_err(|e| Error::io(&self.path, &e))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Once more where the first attempt fails.
        if is_at(&self.file, &self.path) && std::fs::remove_file(&self.path).is_err() {
            let _ = std::fs::remove_file(&self.path);
        }
        let _ = self.file.unlock();
    }
}

/// Creates and locks the file; `None` when one is there, or it was removed before it was locked.
fn create(path: &Path) -> io::Result<Option<Lock>> {
    let mut file = match OpenOptions::new().read(true).write(true).create_new(true).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
        Err(e) => return Err(e),
    };
    match try_lock(&file) {
        Ok(true) if is_at(&file, path) => {}
        Ok(_) => return Ok(None),
        Err(e) => {
            let _ = std::fs::remove_file(path);
            return Err(e);
        }
    }
    let live = Live::new(path).map_err(io::Error::other)?;
    let lock = Lock { path: path.into(), file: file.try_clone()?, _live: live };
    writeln!(file, "{}", std::process::id())?;
    Ok(Some(lock))
}

/// Removes the file of a process that is gone.
fn dispose(path: &Path, folder: &Path) -> Result<(), Error> {
    let failed = |e: io::Error| Error::io(path, &e);
    let absent = |e: &io::Error| e.kind() == io::ErrorKind::NotFound;
    match std::fs::symlink_metadata(path) {
        Err(e) if absent(&e) => return Ok(()),
        Err(e) => return Err(failed(e)),
        Ok(metadata) => {
            if let Some(what) = what(metadata.file_type()) {
                return Err(Error::new(Kind::Io, format!("is {what}, not a lock; remove it")).in_file(path));
            }
        }
    }
    let file = match super::open(path) {
        Ok(file) => file,
        Err(_) if !path.exists() => return Ok(()),
        Err(e) => return Err(e),
    };
    if !try_lock(&file).map_err(failed)? {
        let mut pid = String::new();
        let _ = (&file).take(32).read_to_string(&mut pid);
        let who = if pid.trim().is_empty() { "another process".into() } else { format!("pid {}", pid.trim()) };
        let text = format!("locked by {who}; wait for it, or name another directory");
        return Err(Error::new(Kind::Io, text).in_file(folder));
    }
    if is_at(&file, path) {
        std::fs::remove_file(path).map_err(failed)?;
    }
    Ok(())
}

/// Whether the lock is ours now; also where there are no locks.
pub(super) fn try_lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => Ok(true),
        Err(TryLockError::Error(e)) => Err(e),
    }
}

/// Whether an open file still has this name.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    let (open, named) = (file.metadata(), std::fs::symlink_metadata(path));
    matches!((open, named), (Ok(open), Ok(named)) if same_file(&open, &named))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_names_the_first_process() {
        let folder = tempfile::tempdir().unwrap();
        let lock = Lock::acquire(folder.path()).unwrap();
        let error = Lock::acquire(folder.path()).unwrap_err();
        assert_eq!(error.kind, Kind::Io);
        assert!(error.message.contains(&format!("locked by pid {}", std::process::id())), "{error}");
        drop(lock);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing stays");
        drop(Lock::acquire(folder.path()).unwrap());
        std::fs::write(folder.path().join(NAME), "999999999").unwrap();
        let lock = Lock::acquire(folder.path()).expect("the lock of a dead process is taken over");
        let pid = std::fs::read_to_string(folder.path().join(NAME)).unwrap();
        assert_eq!(pid.trim(), std::process::id().to_string());
        drop(lock);
    }

    #[test]
    fn one_of_many_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let (inside, most) = (std::sync::atomic::AtomicUsize::new(0), std::sync::atomic::AtomicUsize::new(0));
        let order = std::sync::atomic::Ordering::SeqCst;
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let Ok(lock) = Lock::acquire(folder.path()) else { continue };
                        most.fetch_max(1 + inside.fetch_add(1, order), order);
                        inside.fetch_sub(1, order);
                        drop(lock);
                    }
                });
            }
        });
        assert_eq!(most.into_inner(), 1);
    }

    #[test]
    #[cfg(unix)]
    fn a_planted_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let precious = folder.path().join("precious");
        std::fs::write(&precious, "mine").unwrap();
        std::os::unix::fs::symlink(&precious, folder.path().join(NAME)).unwrap();
        let error = Lock::acquire(folder.path()).unwrap_err();
        assert!(error.message.contains("is a symbolic link"), "{error}");
        std::fs::remove_file(folder.path().join(NAME)).unwrap();
        std::fs::hard_link(&precious, folder.path().join(NAME)).unwrap();
        drop(Lock::acquire(folder.path()).unwrap());
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "mine");
    }
}
