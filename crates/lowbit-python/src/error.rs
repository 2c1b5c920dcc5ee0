//! Errors of the library as Python exceptions, with the same sentence.

use lowbit::Error;
use pyo3::prelude::*;
use pyo3::types::PyType;

/// Where the classes are.
const CLASSES: &str = "lowbit._errors";

/// The class of an error.
fn class(error: &Error) -> &'static str {
    match error {
        Error::Request(_) => "RequestError",
        Error::UnknownName { .. } => "UnknownNameError",
        Error::Unsupported(_) => "UnsupportedError",
        Error::ContextFull { .. } => "ContextFullError",
        Error::Input(_) => "InputError",
        Error::Memory(_) => "OutOfMemoryError",
        Error::Io(_) => "FileError",
        Error::NotFinite(_) => "NotFiniteError",
        Error::Check(_) => "CheckError",
        Error::Stopped => "StoppedError",
        _ => "InternalError",
    }
}

/// The exception of an error; its attributes tell apart what the sentence says in one.
pub fn exception(py: Python<'_>, error: &Error) -> PyErr {
    made(py, error).unwrap_or_else(|failure| failure)
}

fn made(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    let class = py.import(CLASSES)?.getattr(class(error))?.cast_into::<PyType>()?;
    let value = class.call1((error.to_string(),))?;
    match error {
        Error::UnknownName { name, nearest, .. } => {
            value.setattr("name", name)?;
            value.setattr("nearest", nearest)?;
        }
        Error::ContextFull { prompt, context, .. } => {
            value.setattr("prompt", prompt)?;
            value.setattr("context", context)?;
        }
        Error::Input(fault) | Error::Io(fault) => {
            value.setattr("path", fault.path.as_ref().map(|path| path.display().to_string()))?;
            value.setattr("line", fault.line)?;
        }
        _ => {}
    }
    Ok(PyErr::from_value(value))
}

/// The exception of a wrong request.
pub fn request(py: Python<'_>, text: impl Into<String>) -> PyErr {
    exception(py, &Error::Request(text.into()))
}
