//! `lowbit doctor`

use super::Machine;
use crate::failure::Failure;
use lowbit_eval::bench::doctor::Diagnosis;

/// Beside the flags.
const EXAMPLES: &str = "\
Examples:
  lowbit doctor
  lowbit doctor --json";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Doctor {}

impl Doctor {
    /// Runs the command.
    pub fn run(self, machine: &Machine) -> Result<(), Failure> {
        let found = Diagnosis::of(&machine.cpu()?, machine.threads())?;
        if machine.json {
            return machine.terminal.json_object(found.json());
        }
        let why = if machine.has_isa() { "asked for" } else { "the last in the list that this CPU has" };
        machine.terminal.lines(found.lines(why));
        Ok(())
    }
}
