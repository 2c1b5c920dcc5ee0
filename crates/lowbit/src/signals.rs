//! What SIGINT and SIGTERM do to this process.

use crate::failure::{Code, Failure};
use lowbit_base::{Stop, file};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals as Incoming;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// At first a signal ends the process, with exit code 130 and without what is being written. Once it is deferred, the first
/// one asks for a clean end by way of a [`Stop`], and the second ends the process.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    interrupt: Arc<AtomicBool>,
    terminate: Arc<AtomicBool>,
    stop: Stop,
}

impl Signals {
    /// Listens from now on, on a thread of its own.
    ///
    /// # Errors
    /// When the operating system refuses the handlers or the thread.
    pub fn listen() -> Result<Self, Failure> {
        let failed = |e| Failure { code: Code::Internal, message: format!("signal handler: {e}") };
        let mut incoming = Incoming::new([SIGINT, SIGTERM]).map_err(failed)?;
        let signals = Signals::default();
        let own = signals.clone();
        let answer = move || {
            for signal in incoming.forever() {
                own.answer(signal);
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(answer).map_err(failed)?;
        Ok(signals)
    }

    fn answer(&self, signal: i32) {
        let deferred = if signal == SIGINT { &self.interrupt } else { &self.terminate };
        if !deferred.load(Ordering::Relaxed) || self.stop.is_set() {
            file::abandon();
            std::process::exit(Code::Interrupted as i32);
        }
        self.stop.set();
    }

    /// Set by the first deferred signal.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Defers both from now on: loops look at [`Signals::stop`].
    pub fn defer(&self) {
        self.interrupt.store(true, Ordering::Relaxed);
        self.terminate.store(true, Ordering::Relaxed);
    }

    /// Defers SIGINT alone: it ends an answer, and not the program.
    pub fn defer_interrupt(&self) {
        self.interrupt.store(true, Ordering::Relaxed);
    }
}
