//! The error of this floor: what, where, and the remedy, in one line.

use std::fmt::{self, Write};
use std::path::{Path, PathBuf};

/// Which exit code an error deserves (the codes of the command line's contract).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 2: the request itself is wrong (unknown recipe, value out of range).
    Usage,
    /// 3: a file's content is wrong.
    Input,
    /// 5: reading or writing failed.
    Io,
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
    /// The request is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Error { kind: Kind::Usage, path: None, message: message.into() }
    }

    /// A field of a model configuration is wrong.
    pub fn config(field: &str, text: impl fmt::Display) -> Self {
        Error { kind: Kind::Input, path: None, message: format!("config: `{field}` {text}") }
    }

    /// A file's content is wrong.
    pub fn input(path: &Path, message: impl Into<String>) -> Self {
        Error { kind: Kind::Input, path: Some(path.into()), message: message.into() }
    }

    /// The operating system refused.
    pub fn io(path: &Path, cause: &std::io::Error) -> Self {
        Error { kind: Kind::Io, path: Some(path.into()), message: cause.to_string() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{}: ", path.display())?;
        }
        // What a file holds may stand in the sentence, by way of the parsers' own.
        self.message.chars().try_for_each(|c| match c.is_control() {
            true => write!(f, "{}", c.escape_debug()),
            false => f.write_char(c),
        })
    }
}

impl std::error::Error for Error {}
