//! The error of this crate: what, where, and the remedy, in one line.

use std::fmt;
use std::path::{Path, PathBuf};

/// Which exit code an error deserves (the codes of the command line's contract).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 2: the request itself is wrong.
    Usage,
    /// 3: data or a file's content is wrong.
    Input,
    /// 5: reading or writing failed.
    Io,
    /// 6: a number became NaN or infinite.
    Numeric,
}

/// One line naming the place, the value, and what to do.
#[derive(Clone, Debug)]
pub struct Error {
    /// Which exit code it deserves.
    pub kind: Kind,
    /// File, when one is to blame.
    pub path: Option<PathBuf>,
    /// The sentence: field or tensor, value, remedy.
    pub message: String,
}

impl Error {
    /// A field of the training configuration is out of range.
    pub(crate) fn field(field: &str, value: impl fmt::Display, allowed: &str) -> Self {
        Error { kind: Kind::Usage, path: None, message: format!("train: `{field}` is {value}; it must be {allowed}") }
    }

    /// The data are wrong.
    pub(crate) fn data(message: impl Into<String>) -> Self {
        Error { kind: Kind::Input, path: None, message: message.into() }
    }

    /// A file's content is wrong.
    pub(crate) fn input(path: &Path, message: impl Into<String>) -> Self {
        Error { kind: Kind::Input, path: Some(path.into()), message: message.into() }
    }

    /// The operating system refused.
    pub(crate) fn io(path: &Path, cause: &std::io::Error) -> Self {
        Error { kind: Kind::Io, path: Some(path.into()), message: cause.to_string() }
    }

    /// A number became NaN or infinite.
    pub(crate) fn numeric(message: String) -> Self {
        Error { kind: Kind::Numeric, path: None, message }
    }
}

impl From<lowbit_model::Error> for Error {
    fn from(e: lowbit_model::Error) -> Self {
        let kind = match e.kind {
            lowbit_model::Kind::Usage => Kind::Usage,
            lowbit_model::Kind::Input => Kind::Input,
            lowbit_model::Kind::Io => Kind::Io,
        };
        Error { kind, path: e.path, message: e.message }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{}: ", path.display())?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
