//! The error of all crates: what, where, and the remedy, in one line.

use crate::text::escaped;
use std::fmt;
use std::path::{Path, PathBuf};

/// The kind of fault an error is; the binary derives its exit code from the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A failure without a better kind.
    Internal,
    /// The request itself is wrong: an unknown name, a value out of range.
    Usage,
    /// The content of a file is wrong.
    Input,
    /// More memory is needed than there is, said before the work starts.
    Memory,
    /// Reading or writing failed.
    Io,
    /// A number became NaN or infinite.
    Numeric,
    /// A check failed.
    Check,
    /// The caller asked for an end.
    Interrupted,
}

/// One line naming the place, the value, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The kind of fault.
    pub kind: Kind,
    /// File, when one is to blame.
    pub path: Option<PathBuf>,
    /// Line of the file, from 1, when one is to blame.
    pub line: Option<u64>,
    /// The sentence: field or tensor, value, remedy.
    pub message: String,
}

impl Error {
    /// An error without a place.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error { kind, path: None, line: None, message: message.into() }
    }

    /// The request is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Error::new(Kind::Usage, message)
    }

    /// The content of a file is wrong.
    pub fn input(path: &Path, message: impl Into<String>) -> Self {
        Error::new(Kind::Input, message).in_file(path)
    }

    /// Data are wrong that came from no file, or from many.
    pub fn data(message: impl Into<String>) -> Self {
        Error::new(Kind::Input, message)
    }

    /// The operating system refused: of kind memory where it has none, as for a map beyond `ulimit -v`.
    pub fn io(path: &Path, cause: &std::io::Error) -> Self {
        let kind = if cause.kind() == std::io::ErrorKind::OutOfMemory { Kind::Memory } else { Kind::Io };
        Error::new(kind, cause.to_string()).in_file(path)
    }

    /// More memory is needed than there is.
    pub fn memory(message: impl Into<String>) -> Self {
        Error::new(Kind::Memory, message)
    }

    /// A number became NaN or infinite.
    pub fn numeric(message: impl Into<String>) -> Self {
        Error::new(Kind::Numeric, message)
    }

    /// A check failed.
    pub fn check(message: impl Into<String>) -> Self {
        Error::new(Kind::Check, message)
    }

    /// A field of a model configuration is wrong.
    pub fn config(field: &str, text: impl fmt::Display) -> Self {
        Error::new(Kind::Input, format!("config: `{field}` {text}"))
    }

    /// The same in this file.
    pub fn in_file(self, path: &Path) -> Self {
        Error { path: Some(path.into()), ..self }
    }

    /// The same error with a line of the file, counted from 1, where known.
    pub fn on_line(self, line: impl Into<Option<u64>>) -> Self {
        Error { line: line.into(), ..self }
    }
}

impl fmt::Display for Error {
    /// `FILE:LINE: MESSAGE`; control characters, which paths and messages may take from files, are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            f.write_str(&escaped(&path.to_string_lossy()))?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&escaped(&self.message))
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_of_plain_text() {
        let path = Path::new("a\u{1b}[2Jb/c.csv");
        let error = Error::input(path, "value `\u{7}\n` is wrong").on_line(7);
        assert_eq!(error.to_string(), "a\\u{1b}[2Jb/c.csv:7: value `\\u{7}\\n` is wrong");
        assert_eq!(Error::usage("unknown").on_line(None).to_string(), "unknown");
        assert_eq!(Error::config("layers", "is 0").to_string(), "config: `layers` is 0");
    }
}
