//! One file that is replaced as a whole.

use super::disk::{self, Sink};
use super::folder::{self, replaceable, same_owner};
use super::live::{Live, committing};
use super::lock::{is_at, try_lock};
use crate::Error;
use std::fs::Metadata;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Ending of the names of files that are being written.
const ENDING: &str = ".tmp";
/// Bytes that are written at once.
const BUFFER: usize = 1 << 20;
/// Most attempts while other processes sweep.
const ATTEMPTS: usize = 100;

/// A file that appears under its name when it is complete and durable: at no moment is there a part of it, and what was there
/// before stays until then. It is written beside its place under a name that nobody can foresee; dropped before
/// [`Replacement::commit`], it leaves nothing.
#[derive(Debug)]
pub struct Replacement {
    target: PathBuf,
    temporary: PathBuf,
    sink: BufWriter<Sink>,
    done: bool,
    _live: Live,
}

impl Replacement {
    /// Opens the temporary file, and removes those that killed processes left beside it.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io) when the target is no regular file, the folder belongs to another user and everybody may
    /// write into it, or nothing can be written there.
    pub fn create(target: &Path) -> Result<Self, Error> {
        let before = replaceable(target)?;
        let folder = folder::of(target);
        for _ in 0..ATTEMPTS {
            let (sink, temporary, live) = folder::create(target, &format!("{}{ENDING}", folder::digits()))?;
            let sink = BufWriter::with_capacity(BUFFER, sink);
            let replacement = Replacement { target: target.into(), temporary, sink, done: false, _live: live };
            let file = &replacement.sink.get_ref().0;
            // The lock tells a process that sweeps that this process lives. Such a process may have been faster.
            let kept = try_lock(file).map(|locked| locked && is_at(file, &replacement.temporary));
            if !kept.map_err(|e| Error::io(target, &e))? {
                continue;
            }
            if let Some(before) = &before {
                file.set_permissions(before.permissions()).map_err(|e| Error::io(target, &e))?;
            }
            sweep(folder, &file.metadata().map_err(|e| Error::io(target, &e))?);
            return Ok(replacement);
        }
        Err(Error::new(crate::Kind::Io, "other processes remove what is written here").in_file(folder))
    }

    /// Makes the file durable and gives it its name.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io) when that fails; the target is then as it was, or new and complete.
    pub fn commit(mut self) -> Result<(), Error> {
        let mut seal = || {
            self.sink.flush()?;
            self.sink.get_ref().sync()?;
            let _waits = committing();
            disk::rename(&self.temporary, &self.target)?;
            self.done = true;
            disk::sync_folder(folder::of(&self.target))
        };
        seal().map_err(|e: io::Error| Error::io(&self.target, &e))
    }
}

impl Write for Replacement {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sink.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

impl Seek for Replacement {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.sink.seek(to)
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        // Once more where the first attempt fails.
        if !self.done && disk::remove(&self.temporary).is_err() {
            let _ = disk::remove(&self.temporary);
        }
    }
}

/// Writes a small file so that it is either there in full or as it was.
///
/// # Errors
/// As [`Replacement`].
pub fn replace(target: &Path, content: &[u8]) -> Result<(), Error> {
    let mut file = Replacement::create(target)?;
    file.write_all(content).map_err(|e| Error::io(target, &e))?;
    file.commit()
}

/// Removes what killed processes of this user left half written in a folder. What cannot be removed stays.
pub(super) fn sweep(folder: &Path, own: &Metadata) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if folder::ending(&name.to_string_lossy()).is_none_or(|(_, ending)| ending != ENDING) {
            continue;
        }
        let path = entry.path();
        let ours = std::fs::symlink_metadata(&path).is_ok_and(|m| m.is_file() && same_owner(&m, own));
        let Some(file) = ours.then(|| super::open(&path).ok()).flatten() else { continue };
        // The writer of a file that lives has its lock.
        if file.try_lock().is_ok() && is_at(&file, &path) {
            let _ = std::fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::faults::{self, Fault};
    use super::*;
    use crate::Kind;
    use std::fs;

    fn names(folder: &Path) -> Vec<String> {
        let mut all: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        all.sort();
        all
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        replace(&path, b"old").unwrap();
        let (operations, result) = faults::with(None, || replace(&path, b"old"));
        result.unwrap();
        assert_eq!(operations, 5, "create, write, sync, rename, sync of the folder");
        for n in 0..operations {
            let (_, result) = faults::with(Some(Fault::Only(n)), || replace(&path, b"new"));
            assert_eq!(result.unwrap_err().kind, Kind::Io);
            assert_eq!(fs::read(&path).unwrap(), if n < operations - 1 { b"old" } else { b"new" }, "{n}");
            assert_eq!(names(folder.path()), ["file"], "{n}");
        }
    }

    #[test]
    fn a_dropped_file_leaves_nothing_and_a_killed_one_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut dropped = Replacement::create(&path).unwrap();
        dropped.write_all(b"x").unwrap();
        drop(dropped);
        assert!(names(folder.path()).is_empty());
        fs::write(folder.path().join(".lowbit-0123456789abcdef.tmp"), "x").unwrap();
        fs::write(folder.path().join(".lowbit-notes.tmp"), "x").unwrap();
        let alive = Replacement::create(&folder.path().join("other")).unwrap();
        replace(&path, b"x").unwrap();
        assert_eq!(names(folder.path()).len(), 3, "{:?}", names(folder.path()));
        alive.commit().unwrap();
        assert_eq!(names(folder.path()), [".lowbit-notes.tmp", "file", "other"]);
    }

    #[test]
    fn many_writers_of_one_file_leave_one_whole_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::thread::scope(|scope| {
            for i in 0..8u8 {
                let path = &path;
                scope.spawn(move || (0..20).for_each(|_| replace(path, &vec![i; 10_000]).unwrap()));
            }
        });
        let content = fs::read(&path).unwrap();
        assert!(content.len() == 10_000 && content.iter().all(|b| *b == content[0]));
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    #[cfg(unix)]
    fn what_is_no_regular_file_stays() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let (precious, link) = (folder.path().join("precious"), folder.path().join("link"));
        fs::write(&precious, "mine").unwrap();
        symlink(&precious, &link).unwrap();
        let error = replace(&link, b"x").unwrap_err();
        assert!(error.kind == Kind::Io && error.message.contains("is a symbolic link"), "{error}");
        assert!(replace(folder.path(), b"x").unwrap_err().message.contains("is a directory"));
        assert!(replace(Path::new("/dev/null"), b"x").unwrap_err().message.contains("is a device"));
        assert_eq!(fs::read_to_string(&link).unwrap(), "mine");
        fs::set_permissions(&precious, fs::Permissions::from_mode(0o600)).unwrap();
        replace(&precious, b"x").unwrap();
        assert_eq!(fs::metadata(&precious).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    #[cfg(unix)]
    fn a_folder_where_others_can_exchange_files_is_refused() {
        use std::os::unix::fs::{PermissionsExt, chown};
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("open");
        fs::create_dir(&inside).unwrap();
        let mode = |mode| fs::set_permissions(&inside, fs::Permissions::from_mode(mode)).unwrap();
        let write = || replace(&inside.join("file"), b"x");
        mode(0o777);
        write().expect("a folder of this user");
        // Only the system's user can give a folder away.
        if chown(&inside, Some(65_534), None).is_err() {
            return;
        }
        for (bits, word) in [(0o777, "belongs to another user"), (0o1777, "belongs to another user")] {
            mode(bits);
            let error = write().unwrap_err();
            assert!(error.kind == Kind::Io && error.message.contains(word), "{error}");
            assert_eq!(names(&inside), ["file"]);
        }
        mode(0o755);
        write().expect("others may not write");
        chown(&inside, Some(0), None).unwrap();
        mode(0o1777);
        write().expect("a folder for all, as the system has them");
    }
}
