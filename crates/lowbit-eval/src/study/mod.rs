//! Studies: benches of layers, networks and kernels with random weights whose results are records, so that one report holds them
//! beside tasks. A study is one file and one line of [`STUDIES`]; what is compared in it takes turns.

mod kernels;
pub mod language;
mod layers;
mod networks;
mod turns;

use crate::record::{Detail, Place, Record};
use crate::{Error, facts};
use lowbit_base::alternatives;
use lowbit_kernels::Cpu;
use lowbit_model::input::Scaling;
use lowbit_model::synthetic::Synthetic;
use lowbit_model::{Checkpoint, Config, ModelConfig, Recipe, checkpoint};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::Command;

/// Before the name of a study, the task of its records.
const PREFIX: &str = "bench/";
/// Seed of random weights and numbers.
const SEED: u64 = 1;

/// A table of a report, and how its records are measured.
pub struct Study {
    /// Name in suites.
    pub name: &'static str,
    /// Title of the table.
    pub title: &'static str,
    /// What is measured, below the table.
    pub about: &'static str,
    /// Title of the first column.
    pub head: &'static str,
    /// The columns beside it.
    pub columns: &'static [Column],
    /// More tables of the same records.
    pub further: &'static [Further],
    /// Measures it.
    run: fn(&Study, &mut Bench) -> Result<Vec<Record>, Error>,
}

/// Another table of the records of a study.
pub struct Further {
    /// Title of the table.
    pub title: &'static str,
    /// What its columns are, below the table.
    pub about: &'static str,
    /// The columns beside the first.
    pub columns: &'static [Column],
}

/// A column of a study, or one per side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Number of parameters.
    Parameters,
    /// A measure of every side.
    Each(&'static str),
    /// A measure that all sides share.
    Once(&'static str),
    /// Weight bytes that every other side saves with its padding, as a share of those of the first without.
    Reduction,
    /// The same of the matrices with their scales, without biases and norms.
    MatrixReduction,
    /// Bits of a weight of the matrices, scales and padding included.
    Bits,
    /// Median latency of the first side over that of every other.
    Faster,
    /// Median latency of the first side as a share of that of the second.
    Share,
    /// Words that the decoded tokens of a minute make, about.
    Words,
    /// How many times as fast as a person reads.
    Reading,
    /// Decoded tokens per joule.
    TokensPerJoule,
    /// What the electricity of a million decoded tokens costs, at the tariff of the record.
    Electricity,
}

/// Every study.
pub static STUDIES: &[&Study] = &[
    &layers::MEMORY,
    &layers::BATCHES,
    &layers::SIZES,
    &layers::GRANULARITY,
    &layers::ACTIVATIONS,
    &networks::PERCEPTRONS,
    &networks::IMAGES,
    &kernels::PORTABLE,
    &kernels::DISPATCH,
    &networks::EDGE,
    &language::SPEED,
    &language::QUALITY,
];

/// The study of a name.
///
/// # Errors
/// When there is none; lists them.
pub fn find(name: &str) -> Result<&'static Study, Error> {
    STUDIES.iter().copied().find(|study| study.name == name).ok_or_else(|| {
        let known = alternatives(name, STUDIES.iter().map(|study| study.name));
        Error::usage(format!("unknown bench `{name}`{known}"))
    })
}

/// Where and how studies are measured.
pub struct Bench<'a> {
    /// Instruction set and threads.
    pub cpu: &'a Cpu,
    /// Directory that networks are written into while they are measured.
    pub home: &'a Path,
    /// Fewer samples, and no passes that take long.
    pub quick: bool,
    /// Where the data sets are, if somebody said so.
    pub data: Option<&'a Path>,
    /// Starts a process that prints what [`probe`](crate::speed::probe) says of a model.
    pub probe: &'a dyn Fn(&Checkpoint, &Cpu) -> io::Result<Command>,
    /// Starts a process that prints what `lowbit bench --json` does with these arguments.
    pub bench: &'a dyn Fn(&[&str], &Cpu) -> io::Result<Command>,
    /// Is told what is measured next.
    pub note: &'a mut dyn FnMut(&str),
}

impl Study {
    /// The task of its records.
    pub fn task(&self) -> String {
        format!("{PREFIX}{}", self.name)
    }

    /// Measures it.
    ///
    /// # Errors
    /// When memory or disk do not suffice, a fresh process fails, or a stop is asked for.
    pub fn run(&self, bench: &mut Bench) -> Result<Vec<Record>, Error> {
        (bench.note)(self.title);
        let records = (self.run)(self, bench);
        let removed = std::fs::remove_dir_all(bench.home);
        match removed {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io(bench.home, &e)),
            _ => records,
        }
    }

    /// An empty record of one side of a row.
    fn record(&self, row: &str, side: &str, recipe: &str) -> Record {
        Record {
            task: self.task(),
            model: format!("{row}, {side}"),
            recipe: recipe.into(),
            params: 0,
            measures: BTreeMap::new(),
            detail: Detail {
                made: "random".into(),
                place: Some(Place { row: row.into(), side: side.into() }),
                seed: Some(SEED),
                ..Detail::default()
            },
        }
    }
}

/// What a row compares: a name, and the recipe of the weights.
#[derive(Clone, Copy, Debug)]
struct Side {
    name: &'static str,
    recipe: &'static str,
}

/// Full precision, and ternary weights in both layouts.
const TERNARY: &[Side] = &[
    Side { name: "f32", recipe: "f32" },
    Side { name: "ternary, 2 bits", recipe: "bitnet" },
    Side { name: "ternary, 1.6 bits", recipe: "bitnet_b3" },
];

impl Bench<'_> {
    /// A network with random weights under a recipe, written and opened.
    fn written(&self, name: &str, config: &Config, recipe: &'static Recipe) -> Result<Checkpoint, Error> {
        let directory = self.home.join(name.replace([' ', ','], "_"));
        let whole = (0..config.features()).map(|_| (0.0, 1.0)).collect::<Scaling>();
        let model_config = ModelConfig { input_scaling: Some(whole), ..ModelConfig::new(config.clone(), 1) };
        checkpoint::save(&directory, &model_config, None, recipe, &mut Synthetic::new(recipe, SEED))?;
        Ok(Checkpoint::open(&directory)?.on(self.cpu))
    }
}

/// Adds what a network is made of to its record. Its file is not kept, so that its hash is of no use.
fn describe(record: &mut Record, checkpoint: &Checkpoint) -> Result<(), Error> {
    facts::describe(record, checkpoint)?;
    record.detail.model_sha256 = None;
    Ok(())
}

/// Reproducible numbers in -1..1.
pub(crate) fn numbers(n: usize) -> Vec<f32> {
    let mut random = lowbit_base::SplitMix64::new(SEED);
    (0..n).map(|_| (random.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
}

#[cfg(test)]
mod tests;
