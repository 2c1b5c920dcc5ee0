//! An answer as it comes.

use crate::error::exception;
use crate::work;
use lowbit::{Error, Stop};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::sync::{Mutex, PoisonError};

/// Pieces of text in whole characters, as the model writes them. Dropping it ends the answer.
#[pyclass(frozen, module = "lowbit")]
pub struct Answer {
    answer: Mutex<lowbit::Answer>,
    stop: Stop,
}

impl Answer {
    /// An answer of a model that ends with this stop.
    pub fn new(answer: lowbit::Answer, stop: Stop) -> Self {
        Answer { answer: Mutex::new(answer), stop }
    }
}

#[pymethods]
impl Answer {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<String>> {
        py.check_signals()?;
        let next = || self.answer.lock().unwrap_or_else(PoisonError::into_inner).next();
        // A piece is a token or two: the next call looks for signals.
        py.detach(next).transpose().map_err(|error| exception(py, &error))
    }

    /// What is left of the answer, in one text.
    fn text(&self, py: Python<'_>) -> PyResult<String> {
        let all = || -> Result<String, Error> {
            self.answer.lock().unwrap_or_else(PoisonError::into_inner).by_ref().collect()
        };
        work::run(py, &self.stop, all)
    }

    /// Why the answer ended, tokens and seconds; none before it has.
    #[getter]
    fn outcome<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(outcome) = answer.outcome() else { return Ok(None) };
        let dict = PyDict::new(py);
        dict.set_item("text", &outcome.text)?;
        dict.set_item("tokens", outcome.tokens.clone())?;
        dict.set_item("finish", outcome.finish.name())?;
        dict.set_item("prompt_tokens", outcome.stats.prompt_tokens)?;
        dict.set_item("prompt_seconds", outcome.stats.prompt_seconds)?;
        dict.set_item("ttft_seconds", outcome.stats.ttft_seconds)?;
        dict.set_item("decode_seconds", outcome.stats.decode_seconds)?;
        Ok(Some(dict))
    }
}
