//! `lowbit probe`: what `compare` runs in a fresh process.

use super::Machine;
use super::model::{ModelPath, ModelRecipe};
use crate::failure::{Code, Failure};
use lowbit_eval::speed;
use lowbit_kernels::Cpu;
use lowbit_model::{Checkpoint, Inputs};
use std::io;
use std::process::Command;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Probe {
    #[command(flatten)]
    model: ModelPath,
    #[command(flatten)]
    recipe: ModelRecipe,
}

impl Probe {
    /// Runs the command.
    pub fn run(self, machine: &Machine) -> Result<(), Failure> {
        let wrong = |e: serde_json::Error| Failure { code: Code::Input, message: format!("standard input: {e}") };
        let inputs: Inputs = serde_json::from_slice(&machine.terminal.read_all()?).map_err(wrong)?;
        let (path, recipe) = (self.model.path()?, self.recipe.get()?);
        let open = || Ok(Checkpoint::open(path)?.under(recipe));
        machine.terminal.json(&speed::probe(open, &inputs, &machine.cpu()?)?)
    }
}

/// A fresh process of this program that measures a model.
///
/// # Errors
/// When the path of this program is not known.
pub fn start(checkpoint: &Checkpoint, cpu: &Cpu) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("probe").arg(checkpoint.directory()).args(["--recipe", checkpoint.recipe().name]);
    command.args(["--isa", cpu.isa.name(), "--threads", &cpu.pool.threads().to_string()]);
    Ok(command)
}
