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

/// First bytes that tell encoding and separators.
pub(super) const SAMPLE: u64 = 1 << 16;

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

/// A text file, decompressed, whose first bytes are known.
pub(super) struct Head {
    sample: Vec<u8>,
    /// Bytes of the sample that were given out.
    at: usize,
    /// Why there is no more of the sample.
    failed: Option<io::Error>,
    rest: Capped<Box<dyn Read>>,
}

impl Head {
    /// Opens a source and reads its first bytes. A text that is not in UTF-8 by its first bytes is refused.
    pub(super) fn open(source: &Source, limits: &Limits, sample: u64) -> Result<Self, Error> {
        let mut rest = match &source.path {
            Some(path) => open(path, limits)?,
            None => decompressed(source.name(), Box::new(io::stdin().lock()), Budget::of_stream(limits.bytes))?,
        };
        let mut bytes = Vec::new();
        let failed = (&mut rest).take(sample).read_to_end(&mut bytes).err();
        if let Some(encoding) = foreign_encoding(&bytes) {
            let message =
                format!("is text in {encoding}, not UTF-8: convert the file to UTF-8 (iconv -f {encoding} -t UTF-8)");
            return Err(Error::input(source.name(), message).on_line(1));
        }
        Ok(Head { sample: bytes, at: 0, failed, rest })
    }

    /// The first bytes.
    pub(super) fn sample(&self) -> &[u8] {
        &self.sample
    }

    /// The same after a byte order mark.
    pub(super) fn without_mark(mut self) -> Self {
        if self.sample.starts_with(MARK) {
            self.at = MARK.len();
        }
        self
    }
}

impl Read for Head {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = (&self.sample[self.at..]).read(buffer)?;
        self.at += n;
        match (n, self.failed.take()) {
            (0, Some(failed)) => Err(failed),
            (0, None) => self.rest.read(buffer),
            (n, failed) => {
                self.failed = failed;
                Ok(n)
            }
        }
    }
}

const MARK: &[u8] = "\u{feff}".as_bytes();

/// The encoding that a byte order mark, or zeros between the letters, give away.
fn foreign_encoding(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xff, 0xfe, 0, 0, ..] | [1..=255, 0, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] | [0, 0, 0, 1..=255, ..] => {
            Some("UTF-32")
        }
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [1..=255, 0, 1..=255, 0, ..] | [0, 1..=255, 0, 1..=255, ..] => {
            Some("UTF-16")
        }
        _ => None,
    }
}

/// The lines of a file, decompressed.
pub(super) struct Lines<'a> {
    path: &'a Path,
    reader: BufReader<Head>,
    limit: u64,
    /// Number of the last line given out, from 1.
    pub(super) line: u64,
}

impl<'a> Lines<'a> {
    pub(super) fn open(source: &'a Source, limits: &Limits) -> Result<Self, Error> {
        Ok(Lines::new(source, Head::open(source, limits, SAMPLE)?, limits))
    }

    pub(super) fn new(source: &'a Source, head: Head, limits: &Limits) -> Self {
        Lines { path: source.name(), reader: BufReader::new(head.without_mark()), limit: limits.line, line: 0 }
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
