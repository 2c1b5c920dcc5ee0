//! `lowbit quantize`

use super::{Machine, suite};
use super::list::{self, List};
use super::model::{self, ModelPath};
use crate::failure::Failure;
use lowbit_eval::bench::host;
use crate::output;
use lowbit::comparison;
use lowbit_eval::facts;
use lowbit_eval::record::{Detail, Measure, Record};
use lowbit_model::checkpoint::{self, Options};
use lowbit_model::{Checkpoint, Recipe, recipe};
use std::collections::BTreeMap;
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
        let masters = model::open_verified(path, None, &cpu)?;
        let recipe = recipe.map_or_else(|| trained_for(&masters), Ok)?;
        output::notes(masters.departure(recipe)?);
        let options = match &self.calibrate {
            None => Options::default(),
            Some(name) => {
                let (_, splits) = suite::load(&suite::find(name, self.data.as_deref())?, self.data.as_deref())?;
                comparison::calibrated(&masters, &splits.train.inputs, &cpu)?
            }
        };
        machine.signals.defer();
        checkpoint::quantize(&masters, recipe, &options, self.out())?;
        let stored = self.out().join("model.safetensors");
        let size = |p: &Path| std::fs::metadata(p).map_or(0, |m| m.len());
        let (before, after) = (masters.files().into_iter().map(size).sum(), size(&stored));
        if machine.json {
            let record = Record {
                task: String::new(),
                model: self.out().display().to_string(),
                recipe: recipe.name.into(),
                params: masters.parameters().count(),
                measures: BTreeMap::from([("weight_bytes".into(), Measure::measured(after as f64, "bytes", 1))]),
                detail: Detail {
                    made: "quantized".into(),
                    parent: Some(path.display().to_string()),
                    model_sha256: Some(facts::sha256(&stored)?),
                    ..Detail::default()
                },
            };
            return output::json(&output::results(host::facts(&cpu), vec![record]));
        }
        let (name, from, to) = (recipe.name, output::bytes(before), output::bytes(after));
        output::line(format!("{name}: {from} -> {to} on disk: {}", self.out().display()));
        Ok(())
    }
}

impl Quantize {
    /// Where the model goes; the command line demands it.
    fn out(&self) -> &Path {
        self.out.as_deref().unwrap_or(Path::new(""))
    }
}

/// The recipe that masters were trained for.
fn trained_for(masters: &Checkpoint) -> Result<&'static Recipe, Failure> {
    match &masters.model_config().trained_for {
        Some(name) => Ok(recipe::find(name)?),
        None => {
            let text = "trained in full precision, so there is no recipe to take: name one with --recipe, e.g. int8, nf4";
            Err(Failure::usage(format!("{}: {text}", masters.directory().display())))
        }
    }
}
