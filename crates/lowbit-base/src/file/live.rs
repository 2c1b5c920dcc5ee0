//! Temporary files and locks of this process: removed when a signal ends the process.

use crate::{Error, Kind};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

static UNFINISHED: Mutex<Unfinished> =
    Mutex::new(Unfinished { files: BTreeSet::new(), folders: Vec::new(), over: false });

struct Unfinished {
    files: BTreeSet<PathBuf>,
    /// Folders that were not there, the innermost of each first.
    folders: Vec<PathBuf>,
    /// Nothing may begin any more.
    over: bool,
}

fn unfinished() -> MutexGuard<'static, Unfinished> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A temporary file or a lock, until it is dropped.
#[derive(Debug)]
pub(super) struct Live(PathBuf);

impl Live {
    /// Notes a file that is about to be created.
    pub(super) fn new(path: &Path) -> Result<Self, Error> {
        let mut all = unfinished();
        if all.over {
            return Err(Error::new(Kind::Interrupted, "the program is ending"));
        }
        all.files.insert(path.into());
        Ok(Live(path.into()))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        unfinished().files.remove(&self.0);
    }
}

/// Notes folders that were made for files to come.
pub(super) fn made(folders: &[PathBuf]) {
    unfinished().folders.extend_from_slice(folders);
}

/// Unregisters folders that will stay.
pub(super) fn kept(folders: &[PathBuf]) {
    unfinished().folders.retain(|folder| !folders.contains(folder));
}

/// Held while files get their names.
static COMMITTING: Mutex<()> = Mutex::new(());

/// While this is held, [`abandon`] waits.
pub(super) fn committing() -> MutexGuard<'static, ()> {
    COMMITTING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes the temporary files and locks of this process, and lets it begin no more; for a program that ends now, whatever
/// its threads are doing. Files that are being renamed get their names first.
pub fn abandon() {
    let (_waited, mut all) = (committing(), unfinished());
    all.over = true;
    let Unfinished { files, folders, .. } = &mut *all;
    files.iter().for_each(|path| drop(std::fs::remove_file(path)));
    folders.iter().for_each(|path| drop(std::fs::remove_dir(path)));
}

#[cfg(test)]
mod tests {
    use super::super::{Lock, Replacement, Set, replace};
    use super::*;

    #[test]
    fn an_end_by_a_signal_leaves_nothing() {
        // In a process of its own: nothing may begin afterwards.
        const VARIABLE: &str = "LOWBIT_TEST_ABANDON";
        let Some(folder) = std::env::var_os(VARIABLE).map(PathBuf::from) else {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("old"), "1").unwrap();
            let mut again = std::process::Command::new(std::env::current_exe().unwrap());
            again.args(["--exact", "file::live::tests::an_end_by_a_signal_leaves_nothing", "--nocapture"]);
            let output = again.env(VARIABLE, folder.path()).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(left, ["old"]);
            return;
        };
        let file = Replacement::create(&folder.join("old")).unwrap();
        let mut set = Set::open(&folder.join("new/inner")).unwrap();
        set.write("a", b"1").unwrap();
        let part = set.part("b").unwrap();
        let lock = Lock::acquire(&folder).unwrap();
        abandon();
        assert_eq!(replace(&folder.join("late"), b"1").unwrap_err().kind, Kind::Interrupted);
        std::mem::forget((file, set, part, lock));
    }
}
