//! Errors a program can match.

use lowbit_base::{Error as Fault, Kind, escaped, nearest};
use lowbit_kernels::{Error as KernelError, FORMATS};
use lowbit_model::chat::ChatError;
use lowbit_model::recipe::RECIPES;
use std::fmt;

/// Why something failed. Each prints as one line: place, value, remedy; a [`Fault`] also tells file and line apart.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The request is wrong: a value out of range, or shapes that do not go together.
    Request(String),
    /// There is none of this name.
    UnknownName {
        /// What it should name: `recipe` or `format`.
        what: &'static str,
        /// The name.
        name: String,
        /// The known name closest to it, if one is close.
        nearest: Option<&'static str>,
        /// The whole line, with the known names.
        message: String,
    },
    /// The model is of another kind: a classifier does not chat, a language model has no classes.
    Unsupported(String),
    /// The prompt leaves no room for an answer.
    ContextFull {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens of prompt and answer together.
        context: usize,
        /// Tokens that the model was trained for.
        trained: usize,
    },
    /// The content of a file, or of a packed matrix, is wrong.
    Input(Fault),
    /// More memory is needed than there is; said before the work starts.
    Memory(Fault),
    /// Reading or writing failed.
    Io(Fault),
    /// A value is NaN or infinite.
    NotFinite(Fault),
    /// A check failed.
    Check(Fault),
    /// The caller's [`Stop`](crate::Stop) was set.
    Stopped,
    /// A fault of this library.
    Internal(Fault),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Request(text) | Error::Unsupported(text) | Error::UnknownName { message: text, .. } => {
                f.write_str(&escaped(text))
            }
            Error::ContextFull { prompt, context, trained } => {
                let (prompt, context, trained) = (*prompt, *context, *trained);
                ChatError::ContextFull { prompt, context, trained }.fmt(f)
            }
            Error::Input(fault)
            | Error::Memory(fault)
            | Error::Io(fault)
            | Error::NotFinite(fault)
            | Error::Check(fault)
            | Error::Internal(fault) => fault.fmt(f),
            Error::Stopped => f.write_str("stopped by the caller"),
        }
    }
}

impl std::error::Error for Error {}

impl Error {
    /// What an unknown recipe or format is refused with.
    fn unknown(what: &'static str, name: &str, message: impl fmt::Display) -> Self {
        let known = RECIPES.iter().map(|recipe| recipe.name).chain(FORMATS.iter().map(|format| format.name()));
        let known: Vec<&'static str> = known.collect();
        let near = nearest(name, known.iter().copied());
        let nearest = near.and_then(|near| known.iter().copied().find(|name| *name == near));
        Error::UnknownName { what, name: name.into(), nearest, message: message.to_string() }
    }

    /// The kind of fault, as the floors below have it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Request(_) | Error::UnknownName { .. } | Error::Unsupported(_) | Error::ContextFull { .. } => {
                Kind::Usage
            }
            Error::Input(_) => Kind::Input,
            Error::Memory(_) => Kind::Memory,
            Error::Io(_) => Kind::Io,
            Error::NotFinite(_) => Kind::Numeric,
            Error::Check(_) => Kind::Check,
            Error::Stopped => Kind::Interrupted,
            Error::Internal(_) => Kind::Internal,
        }
    }

    /// What a spelling is refused with that names no recipe.
    pub(super) fn recipe(spelling: &str, fault: Fault) -> Self {
        Error::unknown("recipe", spelling.split('+').next().unwrap_or_default(), fault)
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault.kind {
            Kind::Usage => Error::Request(fault.to_string()),
            Kind::Input => Error::Input(fault),
            Kind::Memory => Error::Memory(fault),
            Kind::Io => Error::Io(fault),
            Kind::Numeric => Error::NotFinite(fault),
            Kind::Check => Error::Check(fault),
            Kind::Interrupted => Error::Stopped,
            Kind::Internal => Error::Internal(fault),
        }
    }
}

impl From<KernelError> for Error {
    fn from(error: KernelError) -> Self {
        let fault = |kind| Fault::new(kind, error.to_string());
        match &error {
            KernelError::UnknownFormat(name) => Error::unknown("format", name, &error),
            KernelError::Isa(_) | KernelError::Threads(_) | KernelError::Ways(_) => Error::Request(error.to_string()),
            KernelError::NonFinite { .. } => Error::NotFinite(fault(Kind::Numeric)),
            KernelError::Corrupt(_) | KernelError::Range { .. } => Error::Input(fault(Kind::Input)),
        }
    }
}

impl From<ChatError> for Error {
    fn from(error: ChatError) -> Self {
        match error {
            ChatError::ContextFull { prompt, context, trained } => Error::ContextFull { prompt, context, trained },
            ChatError::Other(fault) => fault.into(),
        }
    }
}
