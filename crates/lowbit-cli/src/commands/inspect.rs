//! `lowbit inspect`

use super::Machine;
use super::model::{self, ModelPath, ModelRecipe};
use crate::failure::Failure;
use lowbit_eval::inspect::Inspection;

/// Beside the flags.
const EXAMPLES: &str = "\
Examples:
  lowbit inspect models/ternary
  lowbit inspect -m model.gguf --recipes";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Inspect {
    #[command(flatten)]
    model: ModelPath,
    #[command(flatten)]
    recipe: ModelRecipe,
    /// Tell the size under every recipe.
    #[arg(long)]
    recipes: bool,
    /// List every tensor instead of a line per role and format.
    #[arg(long)]
    full: bool,
}

impl Inspect {
    /// Runs the command.
    pub fn run(self, machine: &Machine) -> Result<(), Failure> {
        let checkpoint = model::open(machine, self.model.path()?, self.recipe.get()?, &machine.cpu()?)?;
        let made = Inspection::of(&checkpoint, self.recipes)?;
        if machine.json {
            return machine.terminal.json_object(made.json(&checkpoint));
        }
        machine.terminal.lines(made.lines(&checkpoint, self.full));
        Ok(())
    }
}
