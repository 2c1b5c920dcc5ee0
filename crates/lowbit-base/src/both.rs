//! Two pieces of work at the same time, where the system has a thread for that.

use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread::Builder;

/// Runs `first` on a thread of its own beside `second`, or after it where no thread can be started.
///
/// # Panics
/// When one of them panics, with what it panicked with.
pub fn both<A: Send, B>(first: impl FnOnce() -> A + Send, second: impl FnOnce() -> B) -> (A, B) {
    both_with(Builder::new(), first, second)
}

fn both_with<A: Send, B>(thread: Builder, first: impl FnOnce() -> A + Send, second: impl FnOnce() -> B) -> (A, B) {
    let first = Mutex::new(Some(first));
    let take = || first.lock().unwrap_or_else(PoisonError::into_inner).take().expect("it runs once")();
    std::thread::scope(|scope| match thread.spawn_scoped(scope, take) {
        Ok(running) => {
            let second = second();
            (running.join().unwrap_or_else(|panic| resume_unwind(panic)), second)
        }
        Err(_) => {
            let second = second();
            (take(), second)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_run_with_and_without_a_thread() {
        // No system has a stack of this size.
        for thread in [Builder::new(), Builder::new().stack_size(usize::MAX >> 2)] {
            let (a, b) = both_with(thread, || vec![1, 2], || 3);
            assert_eq!((a, b), (vec![1, 2], 3));
        }
    }
}
