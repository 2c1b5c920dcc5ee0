//! Work without the interpreter, which Ctrl-C ends.

use crate::error::exception;
use lowbit::{Error, Stop};
use pyo3::prelude::*;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// Between two looks for signals.
const LOOK: Duration = Duration::from_millis(50);
/// Stack of the thread that works, as large as that of a main thread.
const STACK: usize = 8 << 20;

/// The result of work while other Python threads run. On the main thread, which alone hears of signals, another thread does the work: a
/// signal whose handler raises (as Ctrl-C does) sets the stop, and once the work has ended what was raised is the error.
///
/// # Errors
/// What was raised, or the exception of what the work failed with.
pub fn run<T: Send>(py: Python<'_>, stop: &Stop, work: impl FnOnce() -> Result<T, Error> + Send) -> PyResult<T> {
    let done = match is_main(py)? {
        false => Ok(py.detach(work)),
        true => py.detach(|| watched(stop, work)),
    };
    done?.map_err(|error| exception(py, &error))
}

/// What Python reads as dictionaries.
///
/// # Errors
/// When a value has no JSON.
pub fn json(value: &impl serde::Serialize) -> Result<String, Error> {
    let wrong = |e: serde_json::Error| lowbit::Fault::new(lowbit::base::Kind::Internal, format!("JSON: {e}"));
    Ok(serde_json::to_string(value).map_err(wrong)?)
}

/// Whether this is the thread that Python handles signals on.
fn is_main(py: Python<'_>) -> PyResult<bool> {
    let threading = py.import(pyo3::intern!(py, "threading"))?;
    let current = threading.call_method0(pyo3::intern!(py, "current_thread"))?;
    Ok(current.is(&threading.call_method0(pyo3::intern!(py, "main_thread"))?))
}

fn watched<T: Send>(stop: &Stop, work: impl FnOnce() -> Result<T, Error> + Send) -> PyResult<Result<T, Error>> {
    let (send, receive) = channel();
    thread::scope(|scope| {
        let work = move || drop(send.send(work()));
        let worker = match thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work) {
            Ok(worker) => worker,
            Err(e) => return Ok(Err(lowbit::Fault::new(lowbit::base::Kind::Memory, format!("no thread: {e}")).into())),
        };
        loop {
            match receive.recv_timeout(LOOK) {
                Ok(done) => return Ok(done),
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(raised) = Python::attach(|py| py.check_signals()) {
                        stop.set();
                        let _ = worker.join();
                        stop.clear();
                        return Err(raised);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => match worker.join() {
                    Ok(()) => unreachable!("the work sends its result"),
                    Err(panic) => std::panic::resume_unwind(panic),
                },
            }
        }
    })
}
