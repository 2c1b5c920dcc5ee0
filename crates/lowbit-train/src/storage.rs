//! Files that are either complete or absent, and a directory that one process trains in.

use crate::Error;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The end of the names of files that are being written.
const TEMPORARY: &str = ".partial";

/// The few operations of a file system that saving needs; tests let them fail.
pub(crate) trait Storage {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Sink>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes renames in a directory durable.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
}

/// A file open for writing.
pub(crate) trait Sink: Write {
    /// Makes what was written durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// The real file system.
pub(crate) struct Disk;

impl Storage for Disk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Sink>> {
        Ok(Box::new(File::create(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
    }
}

impl Sink for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

/// Writes a file under a temporary name and renames it when it is complete and durable: at no moment is there a part of it
/// under `path`, and a file that was there before stays until then.
pub(crate) fn replace(
    storage: &dyn Storage,
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Error> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(TEMPORARY);
    let temporary = PathBuf::from(temporary);
    let result = (|| {
        let mut file = storage.create(&temporary)?;
        write(&mut file)?;
        file.sync()?;
        drop(file);
        storage.rename(&temporary, path)?;
        storage.sync_directory(path.parent().unwrap_or(Path::new(".")))
    })();
    result.map_err(|e| {
        let _ = storage.remove(&temporary);
        Error::io(path, &e)
    })
}

/// Removes what an earlier process left half written.
pub(crate) fn remove_orphans(directory: &Path) -> Result<(), Error> {
    let entries = fs::read_dir(directory).map_err(|e| Error::io(directory, &e))?;
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.to_string_lossy().ends_with(TEMPORARY) {
            fs::remove_file(&path).map_err(|e| Error::io(&path, &e))?;
        }
    }
    Ok(())
}

/// Keeps other processes out of a directory; the operating system lets go of it when the process ends, however it ends.
pub(crate) struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock and writes the process id into it.
    pub(crate) fn acquire(directory: &Path) -> Result<Self, Error> {
        let path = directory.join("lock");
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(|e| Error::io(&path, &e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(e)) => return Err(Error::io(&path, &e)),
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                let message = format!("locked by pid {}; wait for it, or use another directory", pid.trim());
                return Err(Error::new(crate::Kind::Io, message).in_file(directory));
            }
        }
        let write = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        write.map_err(|e| Error::io(&path, &e))?;
        Ok(Lock { file })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.file.set_len(0);
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    /// A file system whose operations fail from the n-th on.
    pub(crate) struct Failing {
        left: Rc<Cell<usize>>,
    }

    impl Failing {
        pub(crate) fn after(operations: usize) -> Self {
            Failing { left: Rc::new(Cell::new(operations)) }
        }
    }

    fn spend(left: &Cell<usize>) -> io::Result<()> {
        match left.get().checked_sub(1) {
            Some(rest) => {
                left.set(rest);
                Ok(())
            }
            None => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    struct FailingSink {
        inner: Box<dyn Sink>,
        left: Rc<Cell<usize>>,
    }

    impl Write for FailingSink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            spend(&self.left)?;
            self.inner.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.inner.flush()
        }
    }

    impl Sink for FailingSink {
        fn sync(&mut self) -> io::Result<()> {
            spend(&self.left)?;
            self.inner.sync()
        }
    }

    impl Storage for Failing {
        fn create(&self, path: &Path) -> io::Result<Box<dyn Sink>> {
            spend(&self.left)?;
            Ok(Box::new(FailingSink { inner: Disk.create(path)?, left: self.left.clone() }))
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            spend(&self.left)?;
            Disk.rename(from, to)
        }

        fn remove(&self, path: &Path) -> io::Result<()> {
            spend(&self.left)?;
            Disk.remove(path)
        }

        fn sync_directory(&self, path: &Path) -> io::Result<()> {
            spend(&self.left)?;
            Disk.sync_directory(path)
        }
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        replace(&Disk, &path, |w| w.write_all(b"old")).unwrap();
        let mut failures = 0;
        for n in 0.. {
            let result = replace(&Failing::after(n), &path, |w| w.write_all(b"new"));
            let content = fs::read(&path).unwrap();
            let Err(error) = result else {
                assert_eq!(content, b"new");
                break;
            };
            assert_eq!(error.kind, crate::Kind::Io);
            assert!(content == b"old" || content == b"new", "{content:?}");
            failures += 1;
        }
        assert_eq!(failures, 5, "create, write, sync, rename, sync of the directory");
    }

    #[test]
    fn a_second_lock_names_the_first_process() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::acquire(dir.path()).unwrap();
        let error = Lock::acquire(dir.path()).err().unwrap();
        assert_eq!(error.kind, crate::Kind::Io);
        assert!(error.message.contains(&format!("locked by pid {}", std::process::id())), "{error}");
        drop(lock);
        drop(Lock::acquire(dir.path()).unwrap());
        fs::write(dir.path().join("lock"), "999999999").unwrap();
        Lock::acquire(dir.path()).expect("the lock of a dead process is taken over");
    }

    #[test]
    fn orphans_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.safetensors.partial"), "x").unwrap();
        fs::write(dir.path().join("b.safetensors"), "x").unwrap();
        remove_orphans(dir.path()).unwrap();
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["b.safetensors"]);
    }
}
