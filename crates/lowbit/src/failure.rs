//! One line and an exit code: what a failed command leaves behind.

use lowbit_base::{Error, Kind, escaped};
use std::fmt;
use std::path::Path;

/// Exit codes; the contract of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// A failure without a better code.
    Internal = 1,
    /// Unknown flag, name or value.
    Usage = 2,
    /// Malformed model, tokenizer or data set.
    Input = 3,
    /// More memory is needed than there is; said before the work starts.
    Memory = 4,
    /// Reading or writing failed.
    Io = 5,
    /// NaN or infinity that did not go away.
    Numeric = 6,
    /// A check failed.
    Check = 7,
    /// Stopped by a signal after a clean end.
    Interrupted = 130,
}

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    /// Exit code.
    pub code: Code,
    /// One line: place, value, remedy.
    pub message: String,
}

impl Failure {
    /// The request is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Failure { code: Code::Usage, message: message.into() }
    }

    /// A file's content is wrong.
    pub fn input(path: &Path, message: impl fmt::Display) -> Self {
        Failure { code: Code::Input, message: format!("{}: {message}", path.display()) }
    }

    /// The operating system refused.
    pub fn io(path: &Path, cause: &std::io::Error) -> Self {
        Failure { code: Code::Io, message: format!("{}: {cause}", path.display()) }
    }

    /// A signal ended the work; what is done is kept.
    pub fn interrupted(kept: &Path) -> Self {
        let message = format!("interrupted; the same command resumes what is in {}", kept.display());
        Failure { code: Code::Interrupted, message }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escaped(&self.message.replace('\n', " ")))
    }
}

impl From<lowbit_kernels::Error> for Failure {
    fn from(e: lowbit_kernels::Error) -> Self {
        Error::from(e).into()
    }
}

impl From<crate::Error> for Failure {
    fn from(e: crate::Error) -> Self {
        use crate::Error as E;
        let code = match &e {
            E::Request(_) | E::UnknownName { .. } | E::Unsupported(_) | E::ContextFull { .. } => Code::Usage,
            E::Input(_) => Code::Input,
            E::Memory(_) => Code::Memory,
            E::Io(_) => Code::Io,
            E::NotFinite(_) => Code::Numeric,
            E::Check(_) => Code::Check,
            E::Stopped => Code::Interrupted,
            E::Internal(_) => Code::Internal,
        };
        Failure { code, message: e.to_string() }
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        let code = match e.kind {
            Kind::Internal => Code::Internal,
            Kind::Usage => Code::Usage,
            Kind::Input => Code::Input,
            Kind::Memory => Code::Memory,
            Kind::Io => Code::Io,
            Kind::Numeric => Code::Numeric,
            Kind::Check => Code::Check,
            Kind::Interrupted => Code::Interrupted,
        };
        Failure { code, message: e.to_string() }
    }
}
