//! Reading regular files.

use super::folder::replaceable;
use crate::{Error, Kind};
use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

/// Opens a regular file for reading. What could block, never end, or have effects when opened (a pipe, a device, a folder) is
/// refused; links are followed.
///
/// # Errors
/// [`Kind::Input`] when it is no regular file, [`Kind::Io`] when it cannot be opened; names the file.
pub fn open(path: &Path) -> Result<File, Error> {
    Ok(open_with_size(path)?.0)
}

/// All bytes of a regular file that has at most so many.
///
/// # Errors
/// As [`open`], and [`Kind::Input`] when it is larger.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>, Error> {
    let large = |size: u64| {
        let text = format!("has {size} bytes, more than the {most} that are read of such a file; is it the right one?");
        Error::input(path, text)
    };
    let (file, size) = open_with_size(path)?;
    if size > most {
        return Err(large(size));
    }
    // A file of the system says 0 and has content, and one may grow.
    let mut content = Vec::with_capacity(size as usize);
    file.take(most + 1).read_to_end(&mut content).map_err(|e| Error::io(path, &e))?;
    match content.len() as u64 > most {
        true => Err(large(content.len() as u64)),
        false => Ok(content),
    }
}

/// The text of a regular file that has at most so many bytes, without a byte order mark.
///
/// # Errors
/// As [`read`], and [`Kind::Input`] with line and byte when it is not UTF-8.
pub fn read_text(path: &Path, most: u64) -> Result<String, Error> {
    let bytes = read(path, most)?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let (at, bytes) = (e.utf8_error().valid_up_to(), e.as_bytes());
        let line = 1 + bytes[..at].iter().filter(|b| **b == b'\n').count() as u64;
        let text = format!("byte {at}, 0x{:02x}, is not UTF-8: convert the file to UTF-8", bytes[at]);
        Error::input(path, text).on_line(line)
    })?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.into(),
        None => text,
    })
}

/// Opens a regular file for writing at its end, and makes it if need be. A link is not followed, and a file with a second
/// name, which may be one that was planted, is refused.
///
/// # Errors
/// [`Kind::Io`] when it is no such file, or cannot be opened; names the file.
pub fn append(path: &Path) -> Result<File, Error> {
    let failed = |e: io::Error| Error::io(path, &e);
    replaceable(path)?;
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    regular(path, &metadata)?;
    #[cfg(unix)]
    if std::os::unix::fs::MetadataExt::nlink(&metadata) > 1 {
        return Err(Error::new(Kind::Io, "has a second name, whose content would change too; remove it").in_file(path));
    }
    Ok(file)
}

fn open_with_size(path: &Path) -> Result<(File, u64), Error> {
    let failed = |e: io::Error| Error::io(path, &e);
    // A look before opening, since opening a device may do something; and one after, since the file may have been replaced.
    regular(path, &std::fs::metadata(path).map_err(failed)?)?;
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    regular(path, &metadata)?;
    Ok((file, metadata.len()))
}

/// Refuses what is no regular file.
pub(super) fn regular(path: &Path, metadata: &Metadata) -> Result<(), Error> {
    match what(metadata.file_type()) {
        None => Ok(()),
        Some(what) => Err(Error::new(Kind::Input, format!("is {what}, not a regular file")).in_file(path)),
    }
}

/// What a file is, if not a regular one.
pub(super) fn what(kind: FileType) -> Option<&'static str> {
    if kind.is_file() {
        return None;
    }
    if kind.is_dir() {
        return Some("a directory");
    }
    if kind.is_symlink() {
        return Some("a symbolic link");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return Some("a pipe");
        }
        if kind.is_socket() {
            return Some("a socket");
        }
    }
    Some("a device")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_up_to_a_size_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, b"12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        let large = read(&path, 4).unwrap_err();
        assert!(large.kind == Kind::Input && large.message.contains("5 bytes, more than the 4"), "{large}");
        let absent = read(&folder.path().join("b"), 4).unwrap_err();
        assert_eq!(absent.kind, Kind::Io);
        let directory = read(folder.path(), 4).unwrap_err();
        assert!(directory.kind == Kind::Input && directory.message.starts_with("is a directory"), "{directory}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_blocks_or_never_ends_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        for (path, word) in [(&*pipe, "a pipe"), (Path::new("/dev/zero"), "a device"), (&*link, "a device")] {
            let error = read(path, 1 << 20).unwrap_err();
            assert!(error.kind == Kind::Input && error.message.contains(word), "{error}");
        }
        // Files of the system tell no size.
        assert!(read(Path::new("/proc/self/status"), 1 << 20).unwrap().starts_with(b"Name:"));
        assert!(read(Path::new("/proc/self/status"), 10).unwrap_err().message.contains("more than the 10"));
    }

    #[test]
    #[cfg(unix)]
    fn appending_follows_no_link() {
        use std::io::Write;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for text in ["a", "b"] {
            append(&at("log")).unwrap().write_all(text.as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read(at("log")).unwrap(), b"ab");
        std::os::unix::fs::symlink(at("log"), at("soft")).unwrap();
        assert!(append(&at("soft")).unwrap_err().message.contains("is a symbolic link"));
        std::fs::hard_link(at("log"), at("hard")).unwrap();
        assert!(append(&at("hard")).unwrap_err().message.contains("second name"));
    }

    #[test]
    fn text_is_utf8_without_a_mark() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "\u{feff}grün\n").unwrap();
        assert_eq!(read_text(&path, 99).unwrap(), "grün\n");
        std::fs::write(&path, b"a\nb\xff\n").unwrap();
        let error = read_text(&path, 99).unwrap_err();
        assert!(error.line == Some(2) && error.message.contains("byte 3, 0xff"), "{error}");
    }
}
