//! Folders that results are written into.

use super::disk;
use super::live::Live;
use super::open::what;
use crate::{Error, Kind};
use std::fs::Metadata;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};

/// What the names of temporary files begin with.
pub(super) const PREFIX: &str = ".lowbit-";
/// Hexadecimal digits that follow.
pub(super) const DIGITS: usize = 16;

/// Makes a folder with those above it; returns the ones that were not there, the innermost first.
///
/// # Errors
/// [`Kind::Io`] when one cannot be made, or something else has its name.
pub fn make(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let absent = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let made = folder.ancestors().take_while(absent).map(PathBuf::from).collect();
    std::fs::create_dir_all(folder).map_err(|e| match folder.exists() {
        true => Error::new(Kind::Io, "is not a directory; name another place").in_file(folder),
        false => Error::io(folder, &e),
    })?;
    Ok(made)
}

/// The folder that a file lies in.
pub(super) fn of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Digits that nobody can foresee.
pub(super) fn digits() -> String {
    // The keys of a `RandomState` come from the operating system.
    format!("{:0DIGITS$x}", RandomState::new().build_hasher().finish())
}

/// What follows the digits in the name of a temporary file; `None` for other files.
pub(super) fn ending(name: &str) -> Option<(&str, &str)> {
    let (digits, ending) = name.strip_prefix(PREFIX)?.split_at_checked(DIGITS)?;
    digits.bytes().all(|b| b.is_ascii_hexdigit()).then_some((digits, ending))
}

/// Refuses a target that is there and no regular file: a link leads elsewhere, and a device is no place for a result.
pub(super) fn replaceable(target: &Path) -> Result<Option<Metadata>, Error> {
    match std::fs::symlink_metadata(target) {
        Ok(metadata) => match what(metadata.file_type()) {
            None => Ok(Some(metadata)),
            Some(what) => {
                let text = format!("is {what}, which is not replaced; remove it, or name another place");
                Err(Error::new(Kind::Io, text).in_file(target))
            }
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(target, &e)),
    }
}

/// Creates the temporary file of a target, `ending` being the end of its name, and sees that nobody else can exchange it:
/// others may write into the folder only where it belongs to this user, or to the system and lets nobody remove what belongs
/// to another.
pub(super) fn create(target: &Path, ending: &str) -> Result<(disk::Sink, PathBuf, Live), Error> {
    let folder = of(target);
    let path = folder.join(format!("{PREFIX}{ending}"));
    let live = Live::new(&path)?;
    let sink = disk::create(&path).map_err(|e| Error::io(target, &e))?;
    match safe(folder, &sink) {
        Ok(()) => Ok((sink, path, live)),
        Err(e) => {
            // The error that matters is the first one.
            let _ = disk::remove(&path);
            Err(e)
        }
    }
}

#[cfg(unix)]
fn safe(folder: &Path, ours: &disk::Sink) -> Result<(), Error> {
    use std::os::unix::fs::MetadataExt;
    const OTHERS_WRITE: u32 = 0o002;
    const STICKY: u32 = 0o1000;
    let at = std::fs::metadata(folder).map_err(|e| Error::io(folder, &e))?;
    let me = ours.0.metadata().map_err(|e| Error::io(folder, &e))?.uid();
    let of_system = at.uid() == 0 && at.mode() & STICKY != 0;
    if at.mode() & OTHERS_WRITE == 0 || at.uid() == me || of_system {
        return Ok(());
    }
    let text = "everybody may write into this folder, and it belongs to another user, who could exchange files in it";
    Err(Error::new(Kind::Io, format!("{text}; name another place, or take the permission away: chmod o-w"))
        .in_file(folder))
}

#[cfg(not(unix))]
fn safe(_: &Path, _: &disk::Sink) -> Result<(), Error> {
    Ok(())
}

/// Whether a temporary file may be removed: a regular one of this user.
#[cfg(unix)]
pub(super) fn same_owner(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    a.uid() == b.uid()
}

#[cfg(not(unix))]
pub(super) fn same_owner(_: &Metadata, _: &Metadata) -> bool {
    true
}

/// Whether two views are of one file.
#[cfg(unix)]
pub(super) fn same_file(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(not(unix))]
pub(super) fn same_file(a: &Metadata, b: &Metadata) -> bool {
    a.created().ok() == b.created().ok() && a.len() == b.len()
}
