//! `compare`: every variant of a suite is made, scored and timed, and the report is written.
//!
//! Each variant has a directory; what is finished in it is kept, so that an interrupted comparison goes on where it was.

use crate::calibrated::{Stage, Texts};
use crate::suite::{self, Suite, Variant};
use crate::{Progress, published, start, training};
use lowbit_base::file::{self, Lock};
use lowbit_base::memory::{Footprint, bytes};
use lowbit_base::{Error, Kind};
use lowbit_eval::baseline::BASELINES;
use lowbit_eval::bench::host;
use lowbit_eval::faithfulness::Faithfulness;
use lowbit_eval::read::Rows;
use lowbit_eval::record::{Constraints, Record, Results, SCHEMA_VERSION, TaskFacts, Tool};
use lowbit_eval::sensitivity::{self, Calibration};
use lowbit_eval::task::{Splits, Task};
use lowbit_eval::{classify, facts, report, speed};
use lowbit_kernels::Cpu;
use lowbit_model::calibrate::{self, Method, Quantized};
use lowbit_model::checkpoint::{self, Options};
use lowbit_model::exec::Batch;
use lowbit_model::{Checkpoint, Encoder, Inputs, ModelConfig, Recipe, recipe};
use lowbit_train::{Alone, Data, Job, Labelled, TrainConfig, Tuning};
use network::Network;
use seeds::home;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

mod all;
mod asked;
mod group;
mod network;
mod seeds;
mod share;
pub mod texts;

pub use all::{ALL, Chapter, Missing, run_all};
pub use asked::Asked;
pub use group::run_group;
pub use share::{Parts, Share, merge};

/// Time between two lines about matrices that are rounded.
const SILENCE: Duration = Duration::from_secs(10);
/// Largest record of a variant that is kept, bytes.
const MAX_KEPT: u64 = 256 << 20;
/// The description of what is compared.
const SUITE: &str = "suite.toml";
/// The record of a variant.
const KEPT: &str = "record.json";
/// The logits of a variant on the test rows, `[rows, classes]`, f32 little-endian.
const LOGITS: &str = "logits.f32";
/// Training rows that show which activations are outliers.
const CALIBRATION_ROWS: usize = 128;

/// What makes a kept result valid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Stamp {
    suite: String,
    train_sha256: String,
    test_sha256: String,
    /// Of the weights that training begins from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pretrained_sha256: Vec<String>,
    isa: String,
    version: String,
}

/// What is finished, as kept on disk, and what makes it valid.
#[derive(Serialize, Deserialize)]
struct Kept<S, T> {
    stamp: S,
    record: T,
}

/// Keeps what is finished in a file.
fn keep(path: &Path, stamp: &impl Serialize, record: &impl Serialize) -> Result<(), Error> {
    let bytes = serde_json::to_vec(&Kept { stamp, record }).map_err(|e| Error::input(path, e.to_string()))?;
    file::replace(path, &bytes)
}

/// What a file keeps, if that is still valid.
fn kept<S: DeserializeOwned + PartialEq, T: DeserializeOwned>(path: &Path, valid: &S) -> Option<T> {
    let Kept::<S, T> { stamp, record } = serde_json::from_slice(&file::read(path, MAX_KEPT).ok()?).ok()?;
    (stamp == *valid).then_some(record)
}

/// Whether the weights of the model behind a record are still what they were.
fn is_whole(model: &Path, record: &Record) -> bool {
    let found = facts::sha256(&model.join("model.safetensors")).ok();
    found.is_some() && found == record.detail.model_sha256
}

/// Who compares.
pub struct Program<'a> {
    /// Kept in the results: name and version of the program.
    pub tool: Tool,
    /// Kept in the results: the command line.
    pub command: Vec<String>,
    /// What a variant must keep to be chosen, if somebody said so.
    pub constraints: Option<Constraints>,
    /// What a kilowatt-hour costs, for the cost of electricity where energy is measured.
    pub tariff: f64,
    /// Which units of work are this run's.
    pub share: Share,
    /// Trainings of every network that is trained, each from another seed; at least 1.
    pub seeds: u64,
    /// Starts a process that prints what [`speed::probe`] says of a model, whose load time and memory are then measured.
    pub probe: &'a dyn Fn(&Checkpoint, &Cpu) -> io::Result<Command>,
    /// Starts a process that prints what `lowbit bench --json` does with these arguments.
    pub bench: &'a dyn Fn(&[&str], &Cpu) -> io::Result<Command>,
}

/// What a kilowatt-hour costs where nobody says so.
pub const TARIFF: f64 = 0.30;

impl Program<'_> {
    /// Results that hold some records, and nothing of the machine.
    fn part(&self, records: Vec<Record>) -> Results {
        let (tool, command) = (self.tool.clone(), self.command.clone());
        Results { schema_version: SCHEMA_VERSION, tool, command, records, ..Results::default() }
    }
}

/// A comparison on its way.
struct Comparison<'a> {
    suite: &'a Suite,
    task: Task,
    splits: Splits,
    /// By name; that of the suite itself has none.
    networks: BTreeMap<Option<String>, Rc<Network>>,
    stamp: Stamp,
    out: PathBuf,
    /// Which of several trainings is made, from 0; its seeds are so much higher.
    round: u64,
    cpu: &'a Cpu,
    program: &'a Program<'a>,
    progress: &'a mut dyn Progress,
    /// Keeps other comparisons out of the directory.
    _lock: Lock,
}

/// Makes, scores and times every variant and writes the report; returns its directory and the records.
///
/// # Errors
/// Wrong data, failed training, failed writing; a signal ends it with everything finished kept.
pub fn run(
    suite: &Suite,
    data: Option<&Path>,
    out: Option<&Path>,
    cpu: &Cpu,
    program: &Program,
    progress: &mut dyn Progress,
) -> Result<(PathBuf, Results), Error> {
    host::need().check()?;
    let suite = &suite.clone().resolved(data)?;
    let (task, splits) = suite::load(suite, data)?;
    splits.notes.iter().for_each(|note| progress.note(note));
    cpu.stop.check()?;
    let (out, _lock) = directory((&suite.name, &suite.text), suite.task_text.as_deref(), out, &program.share)?;
    progress.note(&format!("{}: {}", suite.name, task.about));
    suite.networks().iter().for_each(|network| progress.note(network));
    let mut networks: BTreeMap<Option<String>, Rc<Network>> = BTreeMap::new();
    for variant in &suite.variant {
        if let Entry::Vacant(entry) = networks.entry(suite.network_of(variant).map(String::from)) {
            let network = Network::of(suite, variant, &task, &splits.train, (data, cpu))?;
            network.begin.iter().flat_map(|model| model.notices()).for_each(|notice| progress.note(notice));
            entry.insert(Rc::new(network));
        }
    }
    let models = networks.values().filter_map(|network| network.begin.as_ref()).flat_map(|model| model.files());
    let stamp = Stamp {
        suite: suite.text.clone(),
        train_sha256: splits.facts.train_sha256.clone(),
        test_sha256: splits.facts.test_sha256.clone(),
        pretrained_sha256: models.map(facts::sha256).collect::<Result<_, _>>()?,
        isa: cpu.isa.name().into(),
        version: env!("CARGO_PKG_VERSION").into(),
    };
    let mut comparison =
        Comparison { suite, task, splits, networks, stamp, out, round: 0, cpu, program, progress, _lock };
    let done = comparison.all();
    let out = comparison.out;
    match done {
        Ok(results) => Ok((out, results)),
        Err(error) if error.kind == Kind::Interrupted => Err(training::interrupted(&out)),
        Err(error) => Err(error),
    }
}

/// The latest directory under `runs` of a name that has no results yet.
fn unfinished(name: &str, same: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let prefix = format!("{name}-");
    let entries = std::fs::read_dir("runs").ok()?.filter_map(Result::ok).map(|e| e.path());
    let ours = entries.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&prefix)));
    ours.filter(|p| same(p) && !p.join(report::RESULTS).exists()).max()
}

/// Where the comparison lives, locked: the directory asked for, an unfinished one of the same suite, or a new one.
fn directory(
    (name, text): (&str, &str),
    task: Option<&str>,
    asked: Option<&Path>,
    share: &Share,
) -> Result<(PathBuf, Lock), Error> {
    let written = |dir: &Path| file::read_text(&dir.join(SUITE), file::DESCRIPTION);
    let same = |dir: &Path| written(dir).is_ok_and(|found| found == text);
    let out = match asked {
        Some(dir) => dir.to_path_buf(),
        None => unfinished(name, same).unwrap_or_else(|| Path::new("runs").join(format!("{name}-{}", utc()))),
    };
    if out.join(SUITE).exists() && !same(&out) {
        return Err(Error::input(&out, "holds the comparison of another suite; name another directory with --out"));
    }
    let lock = share.lock(&out, "variants")?;
    file::replace(&out.join(SUITE), text.as_bytes())?;
    if let Some(task) = task {
        file::replace(&out.join(start::TASK), task.as_bytes())?;
    }
    Ok((out, lock))
}

/// The time now as `YYYYMMDDTHHMMSSZ`.
fn utc() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (days, rest) = (now / 86_400, now % 86_400);
    // Civil date from days (Howard Hinnant, "chrono-compatible low-level date algorithms").
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (day, month) =
        (day_of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

impl Comparison<'_> {
    /// Every variant, then the report.
    fn all(&mut self) -> Result<Results, Error> {
        let (suite, mut records) = (self.suite, Vec::new());
        let units = share::units(suite.variant.iter().map(|v| (v.name.as_str(), share::needs(suite, v))));
        let ours = self.program.share.of(&units);
        for (i, variant) in suite.variant.iter().enumerate().filter(|(i, _)| ours[*i]) {
            self.progress.note(&format!("[{}/{}] {}", i + 1, suite.variant.len(), variant.name));
            records.push(self.variant(variant)?);
        }
        if self.program.share.shard().is_some() {
            return Ok(self.program.part(records));
        }
        for round in 1..self.program.seeds {
            self.round = round;
            self.again(&mut records)?;
        }
        self.round = 0;
        self.finish(records)
    }

    fn home(&self, name: &str) -> PathBuf {
        self.out.join(home(self.round, name))
    }

    fn network(&self, variant: &Variant) -> Rc<Network> {
        self.networks[&self.suite.network_of(variant).map(String::from)].clone()
    }

    fn model(&self, name: &str) -> PathBuf {
        self.home(name).join("model")
    }

    /// The record of one variant without speeds: kept from before, or made now.
    fn variant(&mut self, variant: &Variant) -> Result<Record, Error> {
        self.cpu.stop.check()?;
        if let Some(record) = self.kept(variant) {
            self.progress.note("  kept from before");
            return Ok(record);
        }
        let _lock = share::lock(&self.home(&variant.name), &variant.name)?;
        let mut record = match &variant.from {
            None if self.network(variant).suite.is_trained() => self.trained(variant)?,
            from => self.quantized(variant, from.as_deref())?,
        };
        record.detail.expected_to_fail = variant.expected_to_fail;
        record.detail.note = variant.note.clone();
        record.detail.about = Some(variant.recipe()?.summary.into());
        keep(&self.home(&variant.name).join(KEPT), &self.stamp, &record)?;
        Ok(record)
    }

    /// The record of a variant that was finished before.
    fn kept(&self, variant: &Variant) -> Option<Record> {
        let record: Record = kept(&self.home(&variant.name).join(KEPT), &self.stamp)?;
        (is_whole(&self.model(&record.model), &record) && self.logits(&record.model).is_ok()).then_some(record)
    }

    /// What a variant answered to the test rows, `[rows, classes]`; nothing where no class is asked for.
    fn logits(&self, name: &str) -> Result<Vec<f32>, Error> {
        let (path, whole) = (self.home(name).join(LOGITS), self.splits.test.len() * self.task.classes.len());
        if whole == 0 {
            return Ok(Vec::new());
        }
        let content = file::read(&path, 4 * whole as u64)?;
        let logits: Vec<f32> = content.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let found = logits.len();
        match found == whole {
            true => Ok(logits),
            false => Err(Error::input(&path, format!("holds {found} logits, not {whole}: remove it"))),
        }
    }

    /// How far each variant's answers are from those of the baseline; of another network, from those of its first variant.
    fn faithfulness(&self, records: &mut [Record]) -> Result<(), Error> {
        let (classes, baseline) = (self.task.classes.len(), self.suite.variant(&self.suite.baseline)?);
        for (variant, record) in self.suite.variant.iter().zip(records).filter(|_| classes > 0) {
            let network = self.suite.network_of(variant);
            let first = || self.suite.variant.iter().find(|other| self.suite.network_of(other) == network);
            let reference = if self.suite.network_of(baseline) == network { Some(baseline) } else { first() };
            let reference = &reference.unwrap_or(variant).name;
            let (theirs, own) = (self.logits(reference)?, self.logits(&record.model)?);
            let found = Faithfulness::of_rows(&theirs, &own, self.splits.test.labels(), classes)?;
            found.describe(record, reference);
        }
        Ok(())
    }

    fn trained(&mut self, variant: &Variant) -> Result<Record, Error> {
        let run = self.home(&variant.name).join("training");
        let network = self.network(variant);
        let (model_config, mut config) = network.settings(&self.task, &self.splits, variant)?;
        config.seed += self.round;
        let (rows, held) = network.rows(&self.splits.train, &model_config)?;
        self.check_memory(&network, rows)?;
        let [init, teacher] = [self.masters_of(&variant.init)?, self.teacher(variant)?];
        let job = training::Work {
            name: &variant.name,
            model_config: &model_config,
            tokenizer: network.encoder.tokenizer(),
            data: rows,
            from: init.as_deref().or(network.begin.as_deref()),
            teacher: teacher.as_deref(),
            validation: held.as_ref().map(|held| held as &dyn Data),
            held_out: None,
            config: &config,
            ranks: &Alone,
        };
        let trained = training::run(&job, &run, self.cpu, self.progress)?;
        let masters = Checkpoint::open(&run)?.on(self.cpu);
        let mut record = self.stored(variant, &masters)?;
        record.measures.extend(trained.measures());
        let job = self.job(&model_config, &config, rows);
        record.measures.extend(training::ledger(&job)?);
        record.detail.made = "trained".into();
        if config.prune.is_some() {
            record.measures.insert("sparsity".into(), training::sparsity(&masters)?);
        }
        record.detail.seed = Some(config.seed);
        record.detail.curve = training::curve(&run)?;
        Ok(record)
    }

    /// The network that a variant learns from.
    fn teacher(&self, variant: &Variant) -> Result<Option<Rc<Checkpoint>>, Error> {
        let Some(name) = &variant.teacher else { return Ok(None) };
        match self.suite.variant.iter().any(|variant| variant.name == *name) {
            true => self.masters_of(&variant.teacher),
            false => Ok(self.network(variant).begin.clone()),
        }
    }

    /// The weights of a trained variant.
    fn masters_of(&self, name: &Option<String>) -> Result<Option<Rc<Checkpoint>>, Error> {
        let Some(name) = name else { return Ok(None) };
        Ok(Some(Rc::new(Checkpoint::open(&self.home(name).join("training"))?.on(self.cpu))))
    }

    /// Compares what every training of a network that is still to be done takes with the memory there is, before the first begins.
    fn check_memory(&self, network: &Rc<Network>, rows: &Labelled) -> Result<(), Error> {
        let ours = |variant: &&Variant| variant.from.is_none() && Rc::ptr_eq(network, &self.network(variant));
        for variant in self.suite.variant.iter().filter(|variant| ours(variant) && self.kept(variant).is_none()) {
            let (model_config, config) = network.settings(&self.task, &self.splits, variant)?;
            let job = self.job(&model_config, &config, rows);
            let named = |e: Error| Error { message: format!("variant {}: {}", variant.name, e.message), ..e };
            lowbit_train::need(&job)?.check().map_err(named)?;
        }
        Ok(())
    }

    /// A training as far as its memory is concerned.
    fn job<'a>(&self, model_config: &'a ModelConfig, config: &'a TrainConfig, rows: &'a Labelled) -> Job<'a> {
        Job { model_config, tokenizer: None, from: None, teacher: None, data: rows, validation: None, config }
    }

    /// Masters of a trained variant, or the published model itself, under the recipe of a variant.
    fn quantized(&mut self, variant: &Variant, parent: Option<&str>) -> Result<Record, Error> {
        let network = self.network(variant);
        let trained = parent.filter(|_| network.suite.is_trained());
        let trained = trained.map(|parent| Checkpoint::open(&self.home(parent).join("training"))).transpose()?;
        let trained = trained.map(|masters| masters.on(self.cpu));
        let masters = trained.as_ref().or(network.begin.as_deref()).expect("a suite without training has a model");
        let mut record = self.stored(variant, masters)?;
        record.detail.made = "quantized".into();
        record.detail.parent = parent.map(String::from);
        Ok(record)
    }

    /// Stores masters under the variant's recipe and scores the result.
    fn stored(&mut self, variant: &Variant, masters: &Checkpoint) -> Result<Record, Error> {
        let recipe = variant.recipe()?;
        let (model, inputs) = (self.model(&variant.name), &self.splits.train.inputs);
        match variant.method()? {
            Some(method) => {
                let tokens = variant.calibration_tokens.unwrap_or(sensitivity::QUANTIZE_TOKENS);
                let mut quantized = self.calibrated(masters, recipe, method, tokens)?;
                checkpoint::save_quantized(masters, recipe, &mut quantized, &model)?;
            }
            None => {
                let options = match recipe.keeps_outliers()? {
                    true => calibrated(masters, inputs, self.cpu)?,
                    false => Options::default(),
                };
                checkpoint::quantize(masters, recipe, &options, &model)?;
            }
        }
        let made = Checkpoint::open(&model)?;
        let (mut record, outputs) = classify::quality(&self.task, &self.splits.test, &variant.name, &made, self.cpu)?;
        let length = made.model_config().max_length;
        let activations = made.parameters().pass_bytes(length, length);
        record.measures.insert("ledger/activations".into(), training::counted(activations));
        record.detail.method.clone_from(&variant.method);
        if !self.task.classes.is_empty() {
            let bytes: Vec<u8> = outputs.iter().flat_map(|logit| logit.to_le_bytes()).collect();
            file::replace(&self.home(&variant.name).join(LOGITS), &bytes)?;
        }
        let quality = [("accuracy", "accuracy"), ("r2", "explained variance")];
        let measured = quality.iter().find_map(|(name, word)| Some((word, record.measures.get(*name)?.value)));
        let (word, measured) = measured.unwrap_or((&"accuracy", 0.0));
        let weights = record.measures.get("weight_bytes").map_or(0.0, |m| m.value);
        self.progress.note(&format!("  {word} {:.2} %, {}", measured * 100.0, bytes(weights as u64)));
        Ok(record)
    }

    /// Rounds masters by a method that reads so many tokens of the training rows, and trains where the method does.
    fn calibrated(
        &mut self,
        masters: &Checkpoint,
        recipe: &'static Recipe,
        method: &Method,
        tokens: usize,
    ) -> Result<Quantized, Error> {
        let (inputs, tuning) = (&self.splits.train.inputs, Tuning::default());
        let rounding = Calibration::of_inputs(inputs, masters, tokens)?;
        let training = method.trains().then(|| Calibration::of_inputs(inputs, masters, tuning.reads()));
        let training = training.transpose()?;
        let texts = Texts { rounding: &rounding, training: training.as_ref().map(|text| (text, tuning)) };
        let mut last = Instant::now();
        let mut tell = |stage: Stage| {
            if last.elapsed() >= SILENCE {
                last = Instant::now();
                self.progress.note(&match stage {
                    Stage::Rounded(done, all) => format!("  {done} of {all} matrices rounded"),
                    Stage::Trained(done, all, loss) => format!("  {done} of {all} updates, divergence {loss:.4}"),
                });
            }
        };
        Ok(crate::calibrated::quantize(masters, recipe, method, texts, self.cpu, &mut tell)?.quantized)
    }

    /// Baselines, speeds, report.
    fn finish(&mut self, mut records: Vec<Record>) -> Result<Results, Error> {
        self.faithfulness(&mut records)?;
        self.progress.note("timing all variants in alternating order");
        let open = |r: &Record| Checkpoint::open(&self.model(&r.model));
        let checkpoints: Vec<Checkpoint> = records.iter().map(open).collect::<Result<_, _>>()?;
        speeds(&self.splits.test, checkpoints.iter().zip(&mut records), self.cpu, self.program.probe)?;
        for (name, about, answer) in BASELINES {
            let Some(given) = answer(&self.splits.train, &self.splits.test, self.task.classes.len()) else { continue };
            let mut record = classify::scored(&self.task, &self.splits.test, name, "none", given)?;
            record.detail.made = "baseline".into();
            record.detail.note = Some((*about).into());
            records.push(record);
        }
        records.extend(published::records(&self.suite.name)?);
        let results = Results {
            host: host::describe(self.cpu)?,
            scope: self.suite.scope(),
            tasks: vec![self.facts()?],
            files: report::hashes(&self.out, &self.files())?,
            ..self.program.part(records)
        };
        report::write(&self.out, &results)?;
        Ok(results)
    }

    /// What the report must know of the task, cut texts included.
    fn facts(&self) -> Result<TaskFacts, Error> {
        let mut facts = TaskFacts { constraints: self.program.constraints, ..self.splits.facts.clone() };
        facts.networks = self.suite.networks();
        let network = self.network(self.suite.variant(&self.suite.baseline)?);
        let Encoder::Text { tokenizer, max_length: most } = &network.encoder else { return Ok(facts) };
        let most = *most;
        for (split, rows) in [(&mut facts.train, &self.splits.train), (&mut facts.test, &self.splits.test)] {
            split.truncated = Some(classify::longer(rows, tokenizer, most)?);
        }
        facts.max_length = Some(most as u64);
        Ok(facts)
    }

    /// What the hashes of a report cover: all that is kept of every variant but states of training.
    fn files(&self) -> Vec<String> {
        let mut files = vec![SUITE.to_string()];
        for (round, variant) in (0..self.program.seeds).flat_map(|r| self.suite.variant.iter().map(move |v| (r, v))) {
            let (home, is_trained) = (home(round, &variant.name), self.network(variant).suite.is_trained());
            if round > 0 && !is_trained {
                continue;
            }
            files.extend([format!("{home}/{KEPT}"), format!("{home}/model")]);
            let is_trained = is_trained && variant.from.is_none();
            files.extend(is_trained.then(|| format!("{home}/training")));
            files.extend((!self.task.classes.is_empty()).then(|| format!("{home}/{LOGITS}")));
        }
        files
    }
}

/// Measures the speed of classifiers in turn, their load time and memory in fresh processes.
///
/// # Errors
/// When a model cannot be opened, or a fresh process fails.
pub fn speeds<'a>(
    test: &Rows,
    models: impl IntoIterator<Item = (&'a Checkpoint, &'a mut Record)>,
    cpu: &Cpu,
    probe: Probing,
) -> Result<(), Error> {
    timed(models, cpu, probe, |variants| speed::speeds(test, variants, cpu))
}

/// Starts a process that prints what [`speed::probe`] says of a model.
type Probing<'a> = &'a dyn Fn(&Checkpoint, &Cpu) -> io::Result<Command>;

/// Models with their records and fresh processes of them, for a measurement.
fn timed<'a>(
    models: impl IntoIterator<Item = (&'a Checkpoint, &'a mut Record)>,
    cpu: &Cpu,
    probe: Probing,
    measure: impl FnOnce(&mut [speed::TimedVariant]) -> Result<(), Error>,
) -> Result<(), Error> {
    let (models, records): (Vec<_>, Vec<_>) = models.into_iter().unzip();
    let mut probes: Vec<_> = models.iter().map(|checkpoint| || probe(checkpoint, cpu)).collect();
    let parts = models.iter().zip(records).zip(&mut probes);
    let mut variants: Vec<_> =
        parts.map(|((checkpoint, record), probe)| speed::TimedVariant { checkpoint, record, probe }).collect();
    measure(&mut variants)
}

/// Which input features hold outliers, from the first training rows.
///
/// # Errors
/// When the masters cannot be run.
pub fn calibrated(masters: &Checkpoint, inputs: &Inputs, cpu: &Cpu) -> Result<Options, Error> {
    let encoder = Encoder::of(masters)?;
    let mut batches: Vec<Batch> = Vec::new();
    for row in 0..inputs.len().min(CALIBRATION_ROWS) {
        if inputs.texts().get(row).is_none_or(|text| !text.is_empty()) {
            let mut batch = Batch::default();
            encoder.push(inputs, row, &mut batch)?;
            batches.push(batch);
        }
    }
    let (full, parameters) = (recipe::find("f32")?, masters.parameters());
    let longest = batches.iter().map(|batch| batch.tokens.len()).max().unwrap_or(0).max(1);
    let need = Footprint::new("quantize without calibration, or take a machine with more");
    let need = need.and("weights in f32", parameters.bytes(full)?);
    need.and("activations", parameters.pass_bytes(longest, longest)).check()?;
    let model = masters.model_as(full, &Options::default())?;
    Ok(calibrate::observe(&model, cpu.clone(), &batches)?.outliers())
}
