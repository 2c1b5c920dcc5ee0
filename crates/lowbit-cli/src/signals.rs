//! What SIGINT and SIGTERM are to do; the program alone handles them.

use crate::failure::Code;
use lowbit_base::Stop;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// One of the signals that ask for an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT, Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

/// At first a signal ends the process, with exit code 130 and without what is being written. Once it is deferred, the first
/// one asks for a clean end by way of a [`Stop`], and the second ends the process.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    interrupt: Arc<AtomicBool>,
    terminate: Arc<AtomicBool>,
    stop: Stop,
    end: End,
}

/// What ends the process, once the program has said so.
#[derive(Clone, Default)]
struct End(Arc<OnceLock<fn(Code)>>);

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("End").field(&self.0.get().is_some()).finish()
    }
}

impl Signals {
    /// Takes a signal; whether it ends the process.
    pub fn ends(&self, signal: Signal) -> bool {
        let deferred = match signal {
            Signal::Interrupt => &self.interrupt,
            Signal::Terminate => &self.terminate,
        };
        let ends = !deferred.load(Ordering::Relaxed) || self.stop.is_set();
        if !ends {
            self.stop.set();
        }
        ends
    }

    /// Says what ends the process; the first one counts.
    pub fn end_with(&self, end: fn(Code)) {
        _ = self.end.0.set(end);
    }

    /// Ends the process from a thread beside one that cannot be woken.
    pub fn end(&self, code: Code) {
        self.end.0.get().inspect(|end| end(code));
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

#[cfg(test)]
mod tests {
    use super::{Signal, Signals};

    #[test]
    fn the_first_deferred_signal_asks_and_the_second_ends() {
        let signals = Signals::default();
        assert!(signals.ends(Signal::Interrupt) && signals.ends(Signal::Terminate) && !signals.stop().is_set());
        signals.defer_interrupt();
        assert!(signals.ends(Signal::Terminate));
        assert!(!signals.ends(Signal::Interrupt) && signals.stop().is_set());
        assert!(signals.ends(Signal::Interrupt));
        signals.stop().clear();
        signals.defer();
        assert!(!signals.ends(Signal::Terminate) && signals.ends(Signal::Interrupt));
    }
}
