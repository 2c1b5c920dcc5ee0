//! A panic that is caught is not told to the hook of the program; all others are. One test, for a hook is the process's own.

use lowbit_base::panics::caught;
use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};

static TOLD: AtomicUsize = AtomicUsize::new(0);

#[test]
fn panics_that_are_caught_say_nothing() {
    panic::set_hook(Box::new(|_| {
        TOLD.fetch_add(1, Ordering::SeqCst);
    }));
    assert_eq!(caught(|| 7), Some(7));
    assert_eq!(caught(|| -> u8 { panic!("of another crate") }), None);
    let nested = caught(|| {
        assert_eq!(caught(|| -> u8 { panic!("inside") }), None);
        panic!("still inside");
    });
    assert_eq!((nested, TOLD.load(Ordering::SeqCst)), (None::<()>, 0));
    assert!(panic::catch_unwind(|| panic!("of this program")).is_err());
    assert!(std::thread::spawn(|| panic!("of a thread")).join().is_err());
    assert_eq!(TOLD.load(Ordering::SeqCst), 2);
}
