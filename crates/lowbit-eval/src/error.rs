//! The error of this floor: what, where, and the remedy, in one line.

use std::fmt;
use std::path::{Path, PathBuf};

/// Which exit code an error deserves (the codes of the command line's contract).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 2: the request itself is wrong (unknown task, value out of range).
    Usage,
    /// 3: a file's content is wrong.
    Input,
    /// 5: reading or writing failed.
    Io,
    /// 7: a check of a report failed.
    Check,
}

/// One line naming the place, the value, and what to do.
#[derive(Debug)]
pub struct Error {
    /// Which exit code it deserves.
    pub kind: Kind,
    /// File, when one is to blame.
    pub path: Option<PathBuf>,
    /// Line (1-based), when one is to blame.
    pub line: Option<u64>,
    /// The sentence: field, value, remedy.
    pub message: String,
}

impl Error {
    /// The request is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Error { kind: Kind::Usage, path: None, line: None, message: message.into() }
    }

    /// A file's content is wrong.
    pub fn input(path: &Path, line: Option<u64>, message: impl Into<String>) -> Self {
        Error { kind: Kind::Input, path: Some(path.into()), line, message: message.into() }
    }

    /// The operating system refused.
    pub fn io(path: &Path, cause: &std::io::Error) -> Self {
        Error { kind: Kind::Io, path: Some(path.into()), line: None, message: cause.to_string() }
    }

    /// A check failed.
    pub fn check(message: impl Into<String>) -> Self {
        Error { kind: Kind::Check, path: None, line: None, message: message.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{}", path.display())?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
            }
            write!(f, ": ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
