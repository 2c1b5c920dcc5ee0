//! Panics of other crates, caught and made answers.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// A panic on this thread is caught by [`caught`].
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// Runs code of another crate that panics on some inputs; `None` when it does, and nothing is printed. What it held is lost: state
/// that outlives the call must not be left half changed.
pub fn caught<T>(f: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !EXPECTED.get() {
                previous(info);
            }
        }));
    });
    let outer = EXPECTED.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(f));
    EXPECTED.set(outer);
    result.ok()
}
