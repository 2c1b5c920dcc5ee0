//! One line and an exit code: what a failed command leaves behind.

use lowbit_base::{Error, Kind, escaped};
use std::fmt;

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

impl From<lowbit::Error> for Failure {
    fn from(e: lowbit::Error) -> Self {
        Failure { code: e.kind().into(), message: e.to_string() }
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Failure { code: e.kind.into(), message: e.to_string() }
    }
}

impl From<Kind> for Code {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Internal => Code::Internal,
            Kind::Usage => Code::Usage,
            Kind::Input => Code::Input,
            Kind::Memory => Code::Memory,
            Kind::Io => Code::Io,
            Kind::Numeric => Code::Numeric,
            Kind::Check => Code::Check,
            Kind::Interrupted => Code::Interrupted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Code, Error, Failure, Kind};

    #[test]
    fn errors_have_the_exit_codes_of_the_binary() {
        let code = |error: lowbit::Error| Failure::from(error).code;
        let fault = |kind| Error::new(kind, "x");
        assert_eq!(code(lowbit::Error::Request("x".into())), Code::Usage);
        assert_eq!(code(lowbit::Error::Stopped), Code::Interrupted);
        for kind in [
            Kind::Internal,
            Kind::Usage,
            Kind::Input,
            Kind::Memory,
            Kind::Io,
            Kind::Numeric,
            Kind::Check,
            Kind::Interrupted,
        ] {
            assert_eq!(code(fault(kind).into()), Failure::from(fault(kind)).code, "{kind:?}");
        }
    }
}
