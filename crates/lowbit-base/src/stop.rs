//! A request to stop, which whoever owns the process makes and loops below obey.

use crate::{Error, Kind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that long work looks at now and then; clones share it. Nothing here sets it: a signal handler does, or a caller.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Asks for an end.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Takes the request back.
    pub fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether an end is asked for.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Ends a function that can fail, when an end is asked for.
    ///
    /// # Errors
    /// Of kind interrupted.
    pub fn check(&self) -> Result<(), Error> {
        match self.is_set() {
            true => Err(Error::new(Kind::Interrupted, "interrupted")),
            false => Ok(()),
        }
    }

    /// The flag itself, for a signal handler.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_the_request() {
        let (stop, other) = (Stop::default(), Stop::default());
        let clone = stop.clone();
        assert!(clone.check().is_ok());
        stop.set();
        assert_eq!(clone.check().unwrap_err().kind, Kind::Interrupted);
        assert!(!other.is_set());
        clone.clear();
        assert!(!stop.is_set());
    }
}
