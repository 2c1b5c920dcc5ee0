//! Opening a file: compression by extension and magic bytes, a budget of decompressed bytes, and bounded lines.

use super::{Budget, Exceeded, Limits, Source};
use crate::error::{Error, Kind};
use flate2::bufread::MultiGzDecoder;
use liblzma::stream::{CONCATENATED, Stream};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// Memory that an xz decoder may use: twice what `xz -9` asks for, rounded up.
const XZ_MEMORY: u64 = 256 << 20;

/// A compression: extension, first bytes, and decoder.
pub(super) struct Compression {
    name: &'static str,
    pub(super) extension: &'static str,
    magic: &'static [u8],
    decode: Decode,
}

type Decode = fn(Box<dyn BufRead>) -> io::Result<Box<dyn Read>>;

/// Every compression that is read.
pub(super) static COMPRESSIONS: &[Compression] = &[
    Compression {
        name: "gzip",
        extension: ".gz",
        magic: &[0x1f, 0x8b],
        decode: |file| Ok(Box::new(MultiGzDecoder::new(file))),
    },
    Compression {
        name: "zstd",
        extension: ".zst",
        magic: &[0x28, 0xb5, 0x2f, 0xfd],
        decode: |file| Ok(Box::new(zstd::stream::read::Decoder::with_buffer(file)?)),
    },
    Compression {
        name: "xz",
        extension: ".xz",
        magic: &[0xfd, b'7', b'z', b'X', b'Z', 0],
        decode: |file| {
            let stream = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED)?;
            Ok(Box::new(liblzma::bufread::XzDecoder::new_stream(file, stream)))
        },
    },
];

/// Opens a regular file; refuses what could block or never end, and says what to do when there is none.
pub(super) fn regular_file(path: &Path) -> Result<File, Error> {
    lowbit_base::file::open(path).map_err(|error| match path.symlink_metadata() {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            let message = "no such file: check the name, or the data directory (--data DIR, LOWBIT_DATA)";
            Error::new(Kind::Io, message).in_file(path)
        }
        _ => error,
    })
}

/// The compression that the first bytes of a file show. A name that promises another one is refused.
pub(super) fn compression(path: &Path, start: &[u8]) -> Result<Option<&'static Compression>, Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let promised = COMPRESSIONS.iter().find(|c| name.ends_with(c.extension));
    let found = COMPRESSIONS.iter().find(|c| start.starts_with(c.magic));
    match promised {
        Some(promised) if !start.is_empty() && found.is_none_or(|found| found.name != promised.name) => {
            let is = found.map_or("does not begin like one".into(), |found| format!("is {}", found.name));
            Err(Error::input(path, format!("is named {} but {is}: rename it", promised.extension)))
        }
        _ => Ok(found),
    }
}

/// The content of a file, decompressed, within a budget.
pub(super) fn open(path: &Path, limits: &Limits) -> Result<Capped<Box<dyn Read>>, Error> {
    let budget = Budget::of_file(path, limits.bytes);
    decompressed(path, Box::new(BufReader::new(regular_file(path)?)), budget)
}

/// The content behind a name, decompressed, within a budget.
fn decompressed(name: &Path, mut file: Box<dyn BufRead>, budget: Budget) -> Result<Capped<Box<dyn Read>>, Error> {
    let start = file.fill_buf().map_err(|cause| Error::io(name, &cause))?;
    let inner: Box<dyn Read> = match compression(name, start)? {
        None => Box::new(file),
        Some(found) => (found.decode)(file).map_err(|cause| Error::io(name, &cause))?,
    };
    Ok(Capped { inner, budget })
}

/// The lines of a file, decompressed.
pub(super) struct Lines<'a> {
    path: &'a Path,
    reader: BufReader<Capped<Box<dyn Read>>>,
    limit: u64,
    /// Number of the last line given out, from 1.
    pub(super) line: u64,
}

impl<'a> Lines<'a> {
    pub(super) fn open(source: &'a Source, limits: &Limits) -> Result<Self, Error> {
        let content = match &source.path {
            Some(path) => open(path, limits)?,
            None => decompressed(source.name(), Box::new(io::stdin().lock()), Budget::of_stream(limits.bytes))?,
        };
        Ok(Lines { path: source.name(), reader: BufReader::new(content), limit: limits.line, line: 0 })
    }

    /// The next line without its end (`\n` or `\r\n`); `None` at the end of the file. `used` bytes of the limit on a line
    /// are already taken by the record that this line continues.
    pub(super) fn next(&mut self, used: u64) -> Result<Option<String>, Error> {
        let mut bytes = Vec::new();
        self.line += 1;
        let allowed = self.limit.saturating_sub(used);
        let mut bounded = (&mut self.reader).take(allowed + 1);
        bounded.read_until(b'\n', &mut bytes).map_err(|cause| decode_error(self.path, Some(self.line), &cause))?;
        if bytes.is_empty() {
            return Ok(None);
        }
        if bytes.len() as u64 > allowed {
            let message =
                format!("record is longer than {} bytes: is it a text table, with matching quotes?", self.limit);
            return Err(Error::input(self.path, message).on_line(self.line));
        }
        if bytes.ends_with(b"\n") {
            bytes.pop();
            if bytes.ends_with(b"\r") {
                bytes.pop();
            }
        }
        if self.line == 1 && bytes.starts_with("\u{feff}".as_bytes()) {
            bytes.drain(..3);
        }
        let text = String::from_utf8(bytes).map_err(|cause| {
            let at = cause.utf8_error().valid_up_to();
            let byte = cause.as_bytes()[at];
            let message = format!("byte {at} of the line, 0x{byte:02x}, is not UTF-8: convert the file to UTF-8");
            Error::input(self.path, message).on_line(self.line)
        })?;
        Ok(Some(text))
    }
}

/// A failed read: of the disk, of the compressed stream, or of the cap.
pub(super) fn decode_error(path: &Path, line: Option<u64>, cause: &io::Error) -> Error {
    if cause.raw_os_error().is_some() {
        return Error::io(path, cause);
    }
    if let Some(exceeded) = Exceeded::of(cause) {
        return Error::from(exceeded).in_file(path).on_line(line);
    }
    let message = if cause.kind() == io::ErrorKind::UnexpectedEof {
        "compressed stream ends too early: the file is truncated, fetch it again".into()
    } else {
        format!("compressed stream is damaged ({cause}): fetch the file again")
    };
    Error::input(path, message).on_line(line)
}

/// Lets bytes through while a budget lasts, then fails.
pub(super) struct Capped<R> {
    inner: R,
    budget: Budget,
}

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.budget.take(n as u64).map_err(io::Error::other)?;
        Ok(n)
    }
}
