//! What long work tells a Python function.

use lowbit::train::StepMetrics;
use lowbit::{Progress, Stop};
use pyo3::prelude::*;
use std::time::{Duration, Instant};

/// Between two lines about steps.
const PAUSE: Duration = Duration::from_millis(500);

/// Calls a function with each line of news. What it raises ends the work, and is the error of the call.
pub struct Told {
    listener: Option<Py<PyAny>>,
    stop: Stop,
    raised: Option<PyErr>,
    last: Option<Instant>,
}

impl Told {
    /// News for a function, or for nobody.
    pub fn new(listener: Option<Py<PyAny>>, stop: Stop) -> Self {
        Told { listener, stop, raised: None, last: None }
    }

    /// The result of work that told this; what the function raised comes first.
    pub fn result<T>(self, result: PyResult<T>) -> PyResult<T> {
        self.raised.map_or(result, Err)
    }

    fn tell(&mut self, text: &str) {
        let Some(listener) = self.listener.as_ref().filter(|_| self.raised.is_none()) else { return };
        if let Err(raised) = Python::attach(|py| listener.call1(py, (text,))) {
            self.raised = Some(raised);
            self.stop.set();
        }
    }
}

impl Progress for Told {
    fn note(&mut self, text: &str) {
        self.tell(text);
    }

    fn step(&mut self, name: &str, metrics: &StepMetrics, steps: u64) {
        if self.listener.is_some() && self.last.is_none_or(|last| last.elapsed() >= PAUSE) {
            self.last = Some(Instant::now());
            self.tell(&format!("  {name}: step {} of {steps}, loss {:.4}", metrics.step, metrics.loss));
        }
    }
}
