//! The error of this floor.

use lowbit_base::{Kind, alternatives, escaped};
use std::fmt;

/// What is wrong, where, and the remedy, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// No format of this name; holds the name. The message lists the known ones, with the nearest.
    UnknownFormat(String),
    /// No instruction set of this name, or the CPU lacks it; holds the sentence.
    Isa(String),
    /// A number of threads that cannot be; holds the sentence.
    Threads(String),
    /// No way of a product has this name; holds the sentence.
    Ways(String),
    /// A packed matrix whose bytes do not fit its shape or hold codes outside the format; names part and index.
    Corrupt(String),
    /// A value that cannot be quantized (NaN or infinity); names row and column.
    NonFinite {
        /// Row of the first such value.
        row: usize,
        /// Column of the first such value.
        col: usize,
    },
    /// A value beyond the range of a format; names row and column.
    Range {
        /// Row of the first such value.
        row: usize,
        /// Column of the first such value.
        col: usize,
        /// The format.
        format: &'static str,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::UnknownFormat(name) => {
                let known = alternatives(name, crate::FORMATS.iter().map(|f| f.name()));
                write!(f, "unknown format `{}`{known}", escaped(name))
            }
            Error::Isa(text) | Error::Threads(text) | Error::Ways(text) | Error::Corrupt(text) => f.write_str(text),
            Error::NonFinite { row, col } => {
                write!(f, "row {row}, column {col} is NaN or infinite and cannot be quantized; repair the checkpoint")
            }
            Error::Range { row, col, format } => {
                write!(f, "row {row}, column {col} is beyond the range of `{format}`; take a format with wider range")
            }
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for lowbit_base::Error {
    fn from(e: Error) -> Self {
        let kind = match e {
            Error::UnknownFormat(..) | Error::Isa(_) | Error::Threads(_) | Error::Ways(_) => Kind::Usage,
            Error::Corrupt(_) | Error::NonFinite { .. } | Error::Range { .. } => Kind::Input,
        };
        lowbit_base::Error::new(kind, e.to_string())
    }
}
