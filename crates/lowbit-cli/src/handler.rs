//! The signal handlers of the program.

use lowbit_base::file;
use lowbit_cli::failure::{Code, Failure};
use lowbit_cli::signals::{Signal, Signals};
use lowbit_cli::terminal::Terminal;
use lowbit_kernels::fatal;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals as Incoming;

/// Listens from now on, on a thread of its own; where none can be started, signals end the process as they do by default, and
/// a notice says so. On Linux pages of a mapped file that are gone end the process with code io.
///
/// # Errors
/// When the operating system refuses the handlers.
pub fn listen(terminal: &Terminal) -> Result<Signals, Failure> {
    let failed = |e| Failure { code: Code::Internal, message: format!("signal handler: {e}") };
    // Elsewhere SIGBUS is the signal of a full stack.
    #[cfg(target_os = "linux")]
    fatal::on_lost_pages(Code::Io as i32).map_err(failed)?;
    let signals = Signals::default();
    signals.end_with(end);
    let own = signals.clone();
    let (send, receive) = std::sync::mpsc::channel::<Incoming>();
    let answer = move || {
        for signal in receive.recv().iter_mut().flat_map(Incoming::forever) {
            let signal = if signal == SIGINT { Signal::Interrupt } else { Signal::Terminate };
            if own.ends(signal) {
                end(Code::Interrupted);
            }
        }
    };
    // Once there is a handler the default is gone, so that the thread comes first.
    let thread = std::thread::Builder::new().name("signals".into()).spawn(answer);
    // Without it such an end leaves temporary files, which the next run removes.
    #[cfg(unix)]
    let _ = fatal::tidy_with(file::abandon);
    match thread {
        Ok(_) => drop(send.send(Incoming::new([SIGINT, SIGTERM]).map_err(failed)?)),
        Err(e) => {
            terminal.note(format!("no thread to listen for signals ({e}): an interruption ends the work at once"))
        }
    }
    Ok(signals)
}

/// Ends the process without what is being written.
fn end(code: Code) {
    file::abandon();
    std::process::exit(code as i32);
}
