//! `lowbit quantize`

use super::list::{self, List};
use super::model::{self, ModelPath};
use super::{Machine, suite};
use crate::failure::Failure;
use lowbit::comparison;
use lowbit_base::memory::bytes;
use lowbit_eval::bench::host;
use lowbit_eval::facts::Stored;
use lowbit_model::checkpoint::{self, Options, WEIGHTS_FILE};
use lowbit_model::recipe;
use std::path::{Path, PathBuf};

/// Beside the flags.
const EXAMPLES: &str = "\
Examples:
  lowbit quantize models/ternary --out models/ternary-2bit     # the recipe it was trained for
  lowbit quantize models/f32 --recipe nf4 --out models/nf4
  lowbit quantize -m org/name --recipe llm_int8 --calibrate ag_news --out models/int8";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Quantize {
    #[command(flatten)]
    model: ModelPath,
    /// Recipe: f32, bf16, int8, int8_channel, llm_int8, nf4, nf4_dq, int4, int2, ternary, bitnet, ... [default: the one the
    /// model was trained for].
    #[arg(short, long)]
    recipe: Option<String>,
    /// Where the quantized model goes.
    #[arg(short, long, required_unless_present = "list")]
    out: Option<PathBuf>,
    /// List recipes, and end.
    #[arg(long)]
    list: bool,
    /// Find outlier features for `llm_int8` with training texts of this suite.
    #[arg(long, value_name = "SUITE")]
    calibrate: Option<String>,
    /// Directory of the data sets, for --calibrate [default: ../shared/data].
    #[arg(long, env = "LOWBIT_DATA")]
    data: Option<PathBuf>,
}

impl Quantize {
    /// Runs the command.
    pub fn run(self, machine: &Machine) -> Result<(), Failure> {
        if self.list {
            return list::print(machine, &[List::Recipes]);
        }
        let recipe = self.recipe.as_deref().map(recipe::find).transpose()?;
        let (path, cpu) = (self.model.path()?, machine.cpu()?);
        let masters = model::open_verified(machine, path, None, &cpu)?;
        let recipe = recipe.map_or_else(|| masters.trained_for(), Ok)?;
        machine.terminal.notes(masters.departure(recipe)?);
        let options = match &self.calibrate {
            None => Options::default(),
            Some(name) => {
                let (_, splits) =
                    suite::load(machine, &suite::find(machine, name, self.data.as_deref())?, self.data.as_deref())?;
                comparison::calibrated(&masters, &splits.train.inputs, &cpu)?
            }
        };
        machine.signals.defer();
        checkpoint::quantize(&masters, recipe, &options, self.out())?;
        let stored = self.out().join(WEIGHTS_FILE);
        let size = |p: &Path| std::fs::metadata(p).map_or(0, |m| m.len());
        let (before, after) = (masters.files().into_iter().map(size).sum(), size(&stored));
        if machine.json {
            let about = Stored { weights: &stored, kind: recipe.name, made: "quantized", parent: path };
            let record = about.record(self.out(), &masters)?;
            return machine.terminal.records(host::facts(&cpu), vec![record]);
        }
        let (name, from, to) = (recipe.name, bytes(before), bytes(after));
        machine.terminal.line(format!("{name}: {from} -> {to} on disk: {}", self.out().display()));
        Ok(())
    }
}

impl Quantize {
    /// Where the model goes; the command line demands it.
    fn out(&self) -> &Path {
        self.out.as_deref().unwrap_or(Path::new(""))
    }
}
