//! What SIGINT and SIGTERM do to this process.

use crate::failure::{Code, Failure};
use lowbit_base::Stop;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The handlers. At first a signal ends the process at once, with exit code 130. Once it is deferred, the first one asks for
/// a clean end by way of a [`Stop`], and the second ends the process at once.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    at_once: [Arc<AtomicBool>; 2],
    stop: Stop,
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the operating system refuses the handlers.
    pub fn listen() -> Result<Self, Failure> {
        let signals = Signals { at_once: [true, true].map(|now| Arc::new(AtomicBool::new(now))), ..Self::default() };
        let code = Code::Interrupted as i32;
        for (signal, at_once) in [SIGINT, SIGTERM].into_iter().zip(&signals.at_once) {
            signal_hook::flag::register_conditional_shutdown(signal, code, at_once.clone())
                .and_then(|_| signal_hook::flag::register_conditional_shutdown(signal, code, signals.stop.flag()))
                .and_then(|_| signal_hook::flag::register(signal, signals.stop.flag()))
                .map_err(|e| Failure { code: Code::Internal, message: format!("signal handler: {e}") })?;
        }
        Ok(signals)
    }

    /// Set by the first deferred signal.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Defers both from now on: something would be left half made.
    pub fn defer(&self) {
        self.at_once.iter().for_each(|now| now.store(false, Ordering::Relaxed));
    }

    /// Defers SIGINT alone: it ends an answer, and not the program.
    pub fn defer_interrupt(&self) {
        self.at_once[0].store(false, Ordering::Relaxed);
    }
}
