//! Files of a folder that belong together and are replaced together.
//!
//! All are written under temporary names and made durable before the first is renamed. The files that are replaced keep a
//! second name until the last is renamed, so that a failure is undone, and what a kill left between two renames is undone by
//! the next process that opens the folder:
//!
//! * `.lowbit-ID.NAME.tmp`: the new file; gone once it has its name.
//! * `.lowbit-ID.NAME.old`: the file that it replaces, or one that disappears; `.none` when there was none.
//!
//! While one new file has not got its name, the old ones count; from then on, the new ones do.

use super::disk::{self, Sink};
use super::folder::{self, PREFIX, make, replaceable, same_owner};
use super::live::{self, Live, committing};
use super::lock::Lock;
use crate::Error;
use crate::name::check_part;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const NEW: &str = "tmp";
const OLD: &str = "old";
const NONE: &str = "none";
/// Bytes that are written at once.
const BUFFER: usize = 1 << 20;
/// How long a reader waits for the renames of a live process.
const PATIENCE: Duration = Duration::from_secs(1);

/// The files of a folder that will appear together. The folder is locked until then; dropped before [`Set::commit`], all is
/// as it was.
#[derive(Debug)]
pub struct Set {
    folder: PathBuf,
    /// Folders that were not there, the innermost first.
    made: Vec<PathBuf>,
    lock: Option<Lock>,
    id: String,
    /// Files that are complete, in the order they get their names.
    names: Vec<String>,
    /// Files that will disappear.
    removed: Vec<String>,
    live: Vec<Live>,
    done: bool,
}

/// One file of a [`Set`] on its way; dropped before [`Set::add`], it leaves nothing.
#[derive(Debug)]
pub struct NewFile {
    name: String,
    target: PathBuf,
    temporary: PathBuf,
    sink: BufWriter<Sink>,
    live: Option<Live>,
    added: bool,
}

impl Set {
    /// Makes the folder if need be, locks it, and tidies what killed processes left in it.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io) when another process works in it (`locked by pid ..`), or it cannot be written.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let made = make(folder)?;
        live::made(&made);
        let (folder, id) = (folder.to_path_buf(), folder::digits());
        let (names, removed, live) = (Vec::new(), Vec::new(), Vec::new());
        let mut set = Set { folder, made, lock: None, id, names, removed, live, done: false };
        let lock = Lock::acquire(&set.folder)?;
        tidy(&set.folder, &lock)?;
        set.lock = Some(lock);
        Ok(set)
    }

    /// Begins a file of the folder.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io) when something that is no regular file has the name, or nothing can be written.
    ///
    /// # Panics
    /// When the name is none that [`check_part`] allows.
    pub fn part(&self, name: &str) -> Result<NewFile, Error> {
        check_part(name).expect("a plain name");
        let target = self.folder.join(name);
        let before = replaceable(&target)?;
        let (sink, temporary, live) = folder::create(&target, &format!("{}.{name}.{NEW}", self.id))?;
        let sink = BufWriter::with_capacity(BUFFER, sink);
        let part = NewFile { name: name.into(), target, temporary, sink, live: Some(live), added: false };
        if let Some(before) = before {
            let same = part.sink.get_ref().0.set_permissions(before.permissions());
            same.map_err(|e| Error::io(&part.target, &e))?;
        }
        Ok(part)
    }

    /// Makes a complete file durable; it will get its name after those that were added before.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io) when that fails.
    pub fn add(&mut self, mut part: NewFile) -> Result<(), Error> {
        let sealed = part.sink.flush().and_then(|()| part.sink.get_ref().sync());
        sealed.map_err(|e| Error::io(&part.target, &e))?;
        part.added = true;
        self.live.extend(part.live.take());
        self.names.push(std::mem::take(&mut part.name));
        Ok(())
    }

    /// Adds a small file.
    ///
    /// # Errors
    /// As [`Set::part`] and [`Set::add`].
    pub fn write(&mut self, name: &str, content: &[u8]) -> Result<(), Error> {
        let mut part = self.part(name)?;
        part.write_all(content).map_err(|e| Error::io(&part.target, &e))?;
        self.add(part)
    }

    /// Has a file disappear with the others, if it is there.
    ///
    /// # Panics
    /// When the name is none that [`check_part`] allows.
    pub fn remove(&mut self, name: &str) {
        check_part(name).expect("a plain name");
        self.removed.push(name.into());
    }

    /// Gives all files their names.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io) when that fails; the folder is then as it was, or all new files have their names.
    pub fn commit(mut self) -> Result<(), Error> {
        let _waits = committing();
        let result = self.exchange();
        // While the names are exchanged, and undone, no end by a signal comes between.
        self.close();
        result
    }

    fn exchange(&mut self) -> Result<(), Error> {
        self.names.iter().try_for_each(|name| self.keep(name))?;
        self.removed.retain(|name| self.folder.join(name).symlink_metadata().is_ok());
        self.removed.iter().try_for_each(|name| self.keep(name))?;
        let synced = |folder: &Path| disk::sync_folder(folder).map_err(|e| Error::io(folder, &e));
        synced(&self.folder)?;
        for name in &self.removed {
            let target = self.folder.join(name);
            disk::remove(&target).map_err(|e| Error::io(&target, &e))?;
        }
        for name in &self.names {
            let target = self.folder.join(name);
            disk::rename(&self.path(name, NEW), &target).map_err(|e| Error::io(&target, &e))?;
        }
        self.done = true;
        synced(&self.folder)
    }

    /// Tidies the folder, gives it free, and removes it if it was made for nothing.
    fn close(&mut self) {
        let Some(lock) = self.lock.take() else { return };
        // Once more where the first attempt fails.
        if tidy(&self.folder, &lock).is_err() {
            let _ = tidy(&self.folder, &lock);
        }
        drop(lock);
        if !self.done {
            // Folders that are not empty stay.
            self.made.iter().for_each(|folder| drop(std::fs::remove_dir(folder)));
        }
    }

    /// Gives what a file will replace a second name.
    fn keep(&self, name: &str) -> Result<(), Error> {
        let target = self.folder.join(name);
        let kept = match replaceable(&target)? {
            Some(_) => disk::link(&target, &self.path(name, OLD)),
            None => disk::create(&self.path(name, NONE)).map(|_| ()),
        };
        kept.map_err(|e| Error::io(&target, &e))
    }

    fn path(&self, name: &str, ending: &str) -> PathBuf {
        path(&self.folder, &self.id, name, ending)
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        self.close();
        live::kept(&self.made);
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sink.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

impl Seek for NewFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.sink.seek(to)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.added && disk::remove(&self.temporary).is_err() {
            let _ = disk::remove(&self.temporary);
        }
    }
}

/// Undoes or finishes what a killed process left between two renames, before the files of a folder are read. Waits a moment
/// for a process that is at it; where the folder cannot be written, nothing happens.
pub fn settle(folder: &Path) {
    let begun = Instant::now();
    while left(folder, None).is_ok_and(|left| left.values().any(Left::is_in_between)) {
        if let Ok(lock) = Lock::acquire(folder) {
            let _ = tidy(folder, &lock);
            return;
        }
        if begun.elapsed() > PATIENCE {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn path(folder: &Path, id: &str, name: &str, ending: &str) -> PathBuf {
    folder.join(format!("{PREFIX}{id}.{name}.{ending}"))
}

/// What is left of a set: the files by their ending.
#[derive(Default)]
struct Left {
    new: BTreeSet<String>,
    old: BTreeSet<String>,
    none: BTreeSet<String>,
}

impl Left {
    fn is_in_between(&self) -> bool {
        !self.old.is_empty() || !self.none.is_empty()
    }
}

/// What is left in a folder, by the digits of the set; of the owner of `own` only.
fn left(folder: &Path, own: Option<&Metadata>) -> io::Result<BTreeMap<String, Left>> {
    let mut all: BTreeMap<String, Left> = BTreeMap::new();
    for entry in std::fs::read_dir(folder)?.flatten() {
        let file = entry.file_name();
        let file = file.to_string_lossy();
        let Some((id, rest)) = folder::ending(&file) else { continue };
        let Some((name, ending)) = rest.strip_prefix('.').and_then(|rest| rest.rsplit_once('.')) else { continue };
        let ours = || {
            let metadata = std::fs::symlink_metadata(entry.path());
            metadata.is_ok_and(|m| m.is_file() && own.is_none_or(|own| same_owner(&m, own)))
        };
        if check_part(name).is_err() || ![NEW, OLD, NONE].contains(&ending) || !ours() {
            continue;
        }
        let left = all.entry(id.into()).or_default();
        let names = match ending {
            NEW => &mut left.new,
            OLD => &mut left.old,
            _ => &mut left.none,
        };
        names.insert(name.into());
    }
    Ok(all)
}

/// Brings a locked folder into the state before or after the sets whose processes are gone, and removes what is left of them.
fn tidy(folder: &Path, lock: &Lock) -> Result<(), Error> {
    let own = lock.metadata()?;
    let left = left(folder, Some(&own)).map_err(|e| Error::io(folder, &e))?;
    for (id, left) in &left {
        undo(folder, id, left).map_err(|e| Error::io(folder, &e))?;
    }
    Ok(())
}

fn undo(folder: &Path, id: &str, left: &Left) -> io::Result<()> {
    let at = |name: &str, ending| path(folder, id, name, ending);
    // While one new file has not got its name, those that have it give way to the old ones.
    let back = !left.new.is_empty();
    for name in &left.old {
        if back && !left.new.contains(name) {
            disk::rename(&at(name, OLD), &folder.join(name))?;
        }
        disk::remove(&at(name, OLD))?;
    }
    for name in &left.none {
        if back && !left.new.contains(name) {
            disk::remove(&folder.join(name))?;
        }
        disk::remove(&at(name, NONE))?;
    }
    left.new.iter().try_for_each(|name| disk::remove(&at(name, NEW)))
}

#[cfg(test)]
mod tests {
    use super::super::faults::{self, Fault};
    use super::*;
    use crate::Kind;
    use std::fs;

    fn content(folder: &Path) -> BTreeMap<String, String> {
        let Ok(entries) = fs::read_dir(folder) else { return BTreeMap::new() };
        let paths = entries.map(|e| e.unwrap().path());
        paths.map(|p| (p.file_name().unwrap().to_string_lossy().into(), fs::read_to_string(p).unwrap())).collect()
    }

    fn expected(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    fn save(folder: &Path, files: &[(&str, &str)]) -> Result<(), Error> {
        let mut set = Set::open(folder)?;
        for (name, text) in files {
            set.write(name, text.as_bytes())?;
        }
        set.commit()
    }

    const BEFORE: &[(&str, &str)] = &[("a", "1"), ("notes", "mine"), ("w", "2")];
    const FILES: &[(&str, &str)] = &[("a", "3"), ("b", "4"), ("w", "5")];
    const AFTER: &[(&str, &str)] = &[("a", "3"), ("b", "4"), ("notes", "mine"), ("w", "5")];

    fn begin() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        BEFORE.iter().for_each(|(name, text)| fs::write(folder.path().join(name), text).unwrap());
        folder
    }

    #[test]
    fn every_failure_leaves_all_old_or_all_new_files() {
        let (operations, result) = faults::with(None, || save(begin().path(), FILES));
        result.unwrap();
        let mut old = 0;
        for n in 0..operations {
            for fault in [Fault::Only(n), Fault::From(n)] {
                let folder = begin();
                let (_, result) = faults::with(Some(fault), || save(folder.path(), FILES));
                settle(folder.path());
                drop(Set::open(folder.path()).unwrap());
                let after = content(folder.path());
                match after == expected(BEFORE) {
                    true => assert_eq!(result.unwrap_err().kind, Kind::Io, "{fault:?}"),
                    false => assert_eq!(after, expected(AFTER), "{fault:?}"),
                }
                old += usize::from(after == expected(BEFORE));
            }
        }
        assert!(old > operations, "{old} of {operations}");
    }

    #[test]
    fn one_failure_leaves_no_temporary_file() {
        let (operations, _) = faults::with(None, || save(begin().path(), FILES));
        for n in 0..operations {
            let folder = begin();
            let _ = faults::with(Some(Fault::Only(n)), || save(folder.path(), FILES));
            let after = content(folder.path());
            assert!(after == expected(BEFORE) || after == expected(AFTER), "{n}: {after:?}");
        }
    }

    /// What a process leaves that is killed after `renames` of the files have their names.
    fn killed(renames: usize) -> tempfile::TempDir {
        let folder = begin();
        let mut set = Set::open(folder.path()).unwrap();
        for (name, text) in FILES {
            set.write(name, text.as_bytes()).unwrap();
        }
        for name in &set.names {
            set.keep(name).unwrap();
        }
        for name in set.names.iter().take(renames) {
            fs::rename(set.path(name, NEW), folder.path().join(name)).unwrap();
        }
        drop(set.lock.take());
        std::mem::forget(set);
        folder
    }

    #[test]
    fn a_kill_between_renames_is_undone_by_the_next_reader() {
        for renames in 0..=FILES.len() {
            let folder = killed(renames);
            settle(folder.path());
            let wanted = if renames < FILES.len() { BEFORE } else { AFTER };
            assert_eq!(content(folder.path()), expected(wanted), "{renames}");
        }
    }

    #[test]
    fn a_dropped_set_leaves_no_folder() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/b");
        let mut set = Set::open(&folder).unwrap();
        set.write("x", b"1").unwrap();
        let part = set.part("y").unwrap();
        drop(part);
        drop(set);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        save(&folder, FILES).unwrap();
        assert_eq!(content(&folder), expected(FILES));
    }

    #[test]
    fn a_second_set_is_kept_out() {
        let folder = begin();
        let set = Set::open(folder.path()).unwrap();
        let error = Set::open(folder.path()).unwrap_err();
        assert!(error.message.contains("locked by pid"), "{error}");
        drop(set);
        assert_eq!(content(folder.path()), expected(BEFORE));
    }

    #[test]
    #[cfg(unix)]
    fn links_are_neither_followed_nor_replaced() {
        let folder = begin();
        let precious = folder.path().join("notes");
        std::os::unix::fs::symlink(&precious, folder.path().join("b")).unwrap();
        let error = save(folder.path(), FILES).unwrap_err();
        assert!(error.message.contains("is a symbolic link"), "{error}");
        assert_eq!(fs::read_to_string(&precious).unwrap(), "mine");
        assert_eq!(fs::read_to_string(folder.path().join("a")).unwrap(), "1");
    }
}
