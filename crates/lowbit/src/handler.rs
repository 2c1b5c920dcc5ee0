//! The signal handler of the program.

use lowbit::base::file;
use lowbit::failure::{Code, Failure};
use lowbit::signals::{Signal, Signals};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals as Incoming;

/// Listens from now on, on a thread of its own.
///
/// # Errors
/// When the operating system refuses the handlers or the thread.
pub fn listen() -> Result<Signals, Failure> {
    let failed = |e| Failure { code: Code::Internal, message: format!("signal handler: {e}") };
    let mut incoming = Incoming::new([SIGINT, SIGTERM]).map_err(failed)?;
    let signals = Signals::default();
    let own = signals.clone();
    let answer = move || {
        for signal in incoming.forever() {
            let signal = if signal == SIGINT { Signal::Interrupt } else { Signal::Terminate };
            if own.ends(signal) {
                file::abandon();
                std::process::exit(Code::Interrupted as i32);
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(answer).map_err(failed)?;
    Ok(signals)
}
