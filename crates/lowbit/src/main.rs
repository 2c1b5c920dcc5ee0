//! The `lowbit` command.
#![forbid(unsafe_code)]

use lowbit::arguments;
use lowbit::commands::Cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    match arguments::parse(std::env::args_os()).and_then(Cli::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.code as u8)
        }
    }
}
