//! `lowbit completions`

use super::{Cli, Machine};
use crate::failure::Failure;
use clap::CommandFactory;
use clap_complete::Shell;

/// Beside the flags.
const EXAMPLES: &str = "\
Examples:
  lowbit completions bash > ~/.local/share/bash-completion/completions/lowbit
  lowbit completions zsh";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Completions {
    /// bash, zsh, fish, elvish or powershell.
    shell: Shell,
}

impl Completions {
    /// Runs the command.
    pub fn run(self, machine: &Machine) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "lowbit", &mut script);
        machine.terminal.line(String::from_utf8_lossy(&script).trim_end());
        Ok(())
    }
}
