//! The `lowbit` command.
#![forbid(unsafe_code)]

mod handler;

use lowbit_cli::arguments;
use lowbit_cli::failure::{Code, Failure};
use lowbit_cli::terminal::{Input, Sink, Terminal};
use lowbit_kernels::fatal::Allocator;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io;
use std::panic::{self, PanicHookInfo};
use std::process::ExitCode;
use std::sync::Mutex;

/// Where no estimate foresaw that there is no memory, the program ends with a sentence in place of an abort.
#[global_allocator]
static ALLOCATOR: Allocator<{ Code::Memory as i32 }> = Allocator;

/// What the last panic of any thread said.
static PANIC: Mutex<String> = Mutex::new(String::new());

fn main() -> ExitCode {
    let (results, remarks) = (Sink::new(io::stdout()), Sink::new(io::stderr()));
    let terminal = Terminal::new(std::env::args_os().collect(), Input::new(io::stdin()), results, remarks);
    // Panics of other crates that are caught are answers, and say nothing by themselves.
    panic::set_hook(Box::new(remember));
    let work = || match arguments::parse(&terminal)? {
        Some(cli) => cli.run(handler::listen(&terminal)?, &terminal),
        None => Ok(()),
    };
    let outcome = panic::catch_unwind(work).unwrap_or_else(|_| Err(internal(&terminal)));
    match outcome.and_then(|()| terminal.finish()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                terminal.note(format!("error: {failure}"));
            }
            ExitCode::from(failure.code as u8)
        }
    }
}

fn remember(info: &PanicHookInfo) {
    let place = info.location().map_or(String::new(), |at| format!("{}:{}: ", at.file(), at.line()));
    let said = info.payload_as_str().unwrap_or("no message");
    let trace = Backtrace::capture();
    let trace = if trace.status() == BacktraceStatus::Captured { format!("\n{trace}") } else { String::new() };
    if let Ok(mut last) = PANIC.lock() {
        *last = format!("{place}{said}{trace}");
    }
}

/// A panic that nothing below caught.
fn internal(terminal: &Terminal) -> Failure {
    let said = PANIC.lock().map(|said| said.clone()).unwrap_or_default();
    let (said, trace) = said.split_once('\n').unwrap_or((&said, ""));
    if !trace.is_empty() {
        terminal.note(trace);
    }
    Failure { code: Code::Internal, message: format!("a fault of this program, please report it: {said}") }
}
