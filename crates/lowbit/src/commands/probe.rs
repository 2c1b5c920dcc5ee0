//! `lowbit probe`: what `compare` runs in a fresh process.

use super::Machine;
use super::model::{ModelPath, ModelRecipe};
use crate::failure::{Code, Failure};
use crate::output;
use lowbit_eval::speed;
use lowbit_model::{Checkpoint, Inputs};

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
        let inputs: Inputs = serde_json::from_reader(std::io::stdin().lock()).map_err(wrong)?;
        let (path, recipe) = (self.model.path()?, self.recipe.get()?);
        let open = || Ok(Checkpoint::open(path)?.under(recipe));
        output::json(&speed::probe(open, &inputs, &machine.cpu()?)?)
    }
}
