//! Training: rows as tokens, a stop of the caller, a look at held-out text.

use crate::Progress;
use crate::suite::{self, PRETRAINED, Suite, Variant};
use lowbit_base::{Error, Kind, Stop, file};
use lowbit_eval::facts;
use lowbit_eval::meter::{self, EnergyMeter, Rapl};
use lowbit_eval::read::{Rows, Targets};
use lowbit_eval::record::{CurvePoint, Detail, How, Measure, Record};
use lowbit_kernels::Cpu;
use lowbit_model::checkpoint::{Checkpoint, WEIGHTS_FILE};
use lowbit_model::exec::Batch;
use lowbit_model::source::Role;
use lowbit_model::{Encoder, ModelConfig, Tokenizer};
use lowbit_train::{
    BatchTargets, Control, Data, Job, Labelled, Network, Observer, Outcome, Ranks, Status, StepMetrics, TrainConfig,
    Validation, Windows,
};
use std::collections::BTreeMap;
use std::path::Path;

/// Labelled rows as a network reads them; values are scaled as its model configuration says.
///
/// # Errors
/// When a row cannot be encoded.
pub fn labelled(rows: &Rows, encoder: &Encoder, model_config: &ModelConfig) -> Result<Labelled, Error> {
    let mut batch = Batch::default();
    for row in 0..rows.len() {
        encoder.push(&rows.inputs, row, &mut batch)?;
    }
    let mut targets = BatchTargets::default();
    match (&rows.targets, &model_config.target_scaling) {
        (Targets::Classes(classes), _) => targets.classes().extend(classes.iter().map(|class| u32::from(*class))),
        (Targets::Values(values), scaling) => {
            let scaled = |value: &f64| scaling.as_ref().map_or(*value as f32, |s| s.scaled(&[*value as f32]).sum());
            targets.values().extend(values.iter().map(scaled));
        }
        _ => {
            return Err(Error::usage("the rows ask for no class and no value, which is what networks are trained for"));
        }
    }
    Ok(Labelled::new(batch, targets))
}

/// Seed of the choice of rows that are not trained on.
const VALIDATION_SEED: u64 = 2;

/// The rows of a suite that are trained on, and those by which the best weights are chosen, where it asks for them.
///
/// # Errors
/// When a row cannot be encoded, or the share of the suite leaves a part empty.
pub fn parts(
    suite: &Suite,
    rows: &Rows,
    encoder: &Encoder,
    model_config: &ModelConfig,
) -> Result<(Labelled, Option<Labelled>), Error> {
    let Some(share) = suite.validation else { return Ok((labelled(rows, encoder, model_config)?, None)) };
    let (train, held) = rows.hold_out(share, VALIDATION_SEED)?;
    if train.is_empty() || held.is_empty() {
        let text =
            format!("`validation` {share} leaves {} rows to train on and {} to choose by", train.len(), held.len());
        return Err(Error::usage(format!("suite {}: {text}", suite.name)));
    }
    Ok((labelled(&train, encoder, model_config)?, Some(labelled(&held, encoder, model_config)?)))
}

/// Points of a training curve.
const CURVE_POINTS: usize = 200;

/// Bytes of the metrics of a run at most.
const METRICS: u64 = 1 << 30;

/// The training curve of a run: mean loss over windows of steps.
///
/// # Errors
/// When the metrics cannot be read.
pub fn curve(run: &Path) -> Result<Vec<CurvePoint>, Error> {
    let path = run.join("metrics.jsonl");
    let text = file::read_text(&path, METRICS)?;
    let steps: Vec<StepMetrics> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let window = steps.len().div_ceil(CURVE_POINTS).max(1);
    let point = |w: &[StepMetrics]| CurvePoint {
        step: w[w.len() - 1].step,
        loss: w.iter().map(|m| m.loss).sum::<f64>() / w.len() as f64,
        held_out_accuracy: None,
    };
    Ok(steps.chunks(window).map(point).collect())
}

/// Share of the body weights of a pruned network that are 0.
///
/// # Errors
/// When its masters cannot be read.
pub fn sparsity(masters: &Checkpoint) -> Result<Measure, Error> {
    let (mut zeros, mut all) = (0, 0);
    for spec in masters.parameters().params().iter().filter(|spec| spec.role == Role::Body) {
        let values = masters.master(spec)?;
        zeros += values.iter().filter(|value| **value == 0.0).count();
        all += values.len();
    }
    Ok(Measure::measured(zeros as f64 / all.max(1) as f64, "fraction", all as u64))
}

/// A finished training, and what it took beside time; nothing of a part of a run that was resumed.
pub struct Trained {
    /// What the run did.
    pub outcome: Outcome,
    /// Largest resident memory while it trained, bytes.
    pub peak_rss_bytes: Option<u64>,
    /// Energy of the CPU packages while it trained, where a counter can be read.
    pub joules: Option<f64>,
}

impl Trained {
    /// Its measures.
    pub fn measures(&self) -> BTreeMap<String, Measure> {
        let measures = [
            ("train_seconds", Some(self.outcome.seconds), "seconds"),
            ("train_peak_rss_bytes", self.peak_rss_bytes.map(|bytes| bytes as f64), "bytes"),
            ("train_energy_joules", self.joules, "joules"),
        ];
        let known = |(name, value, unit): (&str, Option<f64>, &str)| {
            Some((name.to_string(), Measure::measured(value?, unit, 1)))
        };
        measures.into_iter().filter_map(known).collect()
    }
}

/// Passes on what happens, a look at held-out text, and a stop.
struct Watch<'a> {
    name: &'a str,
    stop: &'a Stop,
    held_out: Option<&'a Windows>,
    energy: Option<EnergyMeter>,
    progress: &'a mut dyn Progress,
}

impl Observer for Watch<'_> {
    fn step(&mut self, metrics: &StepMetrics, steps: u64) -> Control {
        self.progress.step(self.name, metrics, steps);
        // A counter goes through its range within minutes.
        let _ = self.energy.as_mut().map(EnergyMeter::joules);
        if self.stop.is_set() { Control::Stop } else { Control::Continue }
    }

    fn evaluate(&mut self, step: u64, network: &mut Network) -> Result<(), Error> {
        if let Some(windows) = self.held_out {
            let bits = windows.bits(network);
            self.progress.note(&format!("  {}: step {step}: {bits:.4} bits per held-out token", self.name));
        }
        Ok(())
    }

    fn validated(&mut self, step: u64, validation: &Validation) {
        let right = validation.accuracy.map_or(String::new(), |share| format!(", accuracy {:.2} %", 100.0 * share));
        let text = format!("step {step}: validation loss {:.4}{right} of {}", validation.loss, validation.count);
        self.progress.note(&format!("  {}: {text}", self.name));
    }

    fn warn(&mut self, message: &str) {
        self.progress.note(&format!("warning: {message}"));
    }
}

/// A network to train.
pub struct Work<'a> {
    /// Name for messages.
    pub name: &'a str,
    /// The network.
    pub model_config: &'a ModelConfig,
    /// Stored with the weights.
    pub tokenizer: Option<&'a Tokenizer>,
    /// The examples.
    pub data: &'a dyn Data,
    /// The model that training begins from; weights are drawn if there is none.
    pub from: Option<&'a Checkpoint>,
    /// The network that is learnt from.
    pub teacher: Option<&'a Checkpoint>,
    /// Examples by which the best weights are chosen.
    pub validation: Option<&'a dyn Data>,
    /// Text that is looked at now and then, as often as the settings say.
    pub held_out: Option<&'a Windows>,
    /// How.
    pub config: &'a TrainConfig,
    /// The processes that train it together, this one among them.
    pub ranks: &'a dyn Ranks,
}

/// Trains into a directory, or resumes.
///
/// # Errors
/// As [`lowbit_train::train`]; a stop that was asked for is of kind interrupted, after the checkpoint is saved.
pub fn run(work: &Work, directory: &Path, cpu: &Cpu, progress: &mut dyn Progress) -> Result<Trained, Error> {
    let config = work.config.fitted(work.data.len());
    if config.warmup_steps != work.config.warmup_steps {
        let (now, then, steps) = (config.warmup_steps, work.config.warmup_steps, config.total_steps(work.data.len()));
        let name = work.name;
        progress.note(&format!("  {name}: `warmup_steps` is {now} instead of {then}, as there are {steps} updates"));
    }
    let job = Job {
        model_config: work.model_config,
        tokenizer: work.tokenizer,
        from: work.from,
        teacher: work.teacher,
        data: work.data,
        validation: work.validation,
        config: &config,
    };
    let energy = Rapl::open(&Rapl::root()).as_ref().and_then(EnergyMeter::start);
    let mut watch = Watch { name: work.name, stop: &cpu.stop, held_out: work.held_out, energy, progress };
    let is_peak_new = meter::reset_peak_rss();
    let outcome = lowbit_train::train_together(&job, directory, cpu, &mut watch, work.ranks);
    watch.progress.trained();
    let outcome = outcome?;
    if outcome.status == Status::Interrupted {
        return Err(interrupted(directory));
    }
    let is_whole = outcome.resumed_from.is_none();
    Ok(Trained {
        outcome,
        peak_rss_bytes: meter::peak_rss_bytes().filter(|_| is_peak_new && is_whole),
        joules: watch.energy.as_mut().and_then(EnergyMeter::joules).filter(|_| is_whole),
    })
}

/// What a training takes in memory, part by part, as measures.
///
/// # Errors
/// When the configuration contradicts itself.
pub fn ledger(job: &Job) -> Result<Vec<(String, Measure)>, Error> {
    let part = |(name, bytes): (&str, u64)| (bytes > 0).then(|| (format!("train_ledger/{name}"), counted(bytes)));
    Ok(lowbit_train::ledger(job)?.into_iter().filter_map(part).collect())
}

/// Bytes that are counted, and not read from the system.
pub fn counted(bytes: u64) -> Measure {
    Measure { how: How::Estimated, ..Measure::measured(bytes as f64, "bytes", 1) }
}

/// The record of a training of a task into a directory.
///
/// # Errors
/// When the model or its metrics cannot be read.
pub fn record(task: &str, work: &Work, trained: &Trained, directory: &Path) -> Result<Record, Error> {
    let detail = Detail {
        made: "trained".into(),
        seed: Some(work.config.seed),
        curve: curve(directory)?,
        model_sha256: Some(facts::sha256(&directory.join(WEIGHTS_FILE))?),
        ..Detail::default()
    };
    Ok(Record {
        task: task.into(),
        model: work.name.into(),
        recipe: Checkpoint::open(directory)?.recipe().name.into(),
        params: trained.outcome.parameters as u64,
        measures: trained.measures(),
        detail,
    })
}

/// What one trained variant of a suite is trained with, beside the suite.
pub struct OfSuite<'a> {
    /// The suite, its references to the data resolved.
    pub suite: &'a Suite,
    /// The variant, one that is trained.
    pub variant: &'a Variant,
    /// How, the caller's changes included.
    pub config: &'a TrainConfig,
    /// Directory of the data sets.
    pub data: Option<&'a Path>,
    /// The trained network that the variant learns from, where the suite names another variant.
    pub teacher: Option<&'a Path>,
    /// The trained network whose weights the training begins from, where the suite names another variant.
    pub init: Option<&'a Path>,
    /// Whether a task some of whose test rows are among its training rows is refused.
    pub strict: bool,
    /// The processes that train it together, this one among them.
    pub ranks: &'a dyn Ranks,
}

impl OfSuite<'_> {
    /// Trains the variant into a directory, or resumes; its record, which the first rank alone makes, and what the run did.
    ///
    /// # Errors
    /// Wrong data, a teacher that is missing or has no use; as [`run`].
    pub fn train(
        &self,
        out: &Path,
        cpu: &Cpu,
        progress: &mut dyn Progress,
    ) -> Result<(Option<Record>, Outcome), Error> {
        let (variant, suite) = (self.variant, self.suite.of(self.variant));
        let (task, splits) = suite::load(&suite, self.data)?;
        splits.notes.iter().for_each(|note| progress.note(note));
        let (overlap, tested) = (splits.facts.overlap_rows, splits.test.len());
        if self.strict && overlap > 0 {
            let text = format!("task {}: {overlap} of {tested} test rows are among the training rows", task.name);
            return Err(Error::data(format!(
                "{text}; leave them out with `exclude_test_from_train = true` in its file"
            )));
        }
        let begin = suite.begin(self.data, cpu)?;
        let asked = self.other(("teacher", &variant.teacher), self.teacher, cpu)?;
        let teacher = asked.as_ref().or(begin.as_ref().filter(|_| variant.teacher.is_some()));
        let init = self.other(("init", &variant.init), self.init, cpu)?;
        let encoder = suite.encoder(&task, &splits.train, begin.as_ref())?;
        let model_config = suite.model_config(&task, &encoder, &splits.train, variant, begin.as_ref())?;
        let model_config = ModelConfig { input: splits.columns.clone(), ..model_config };
        let (rows, held) = parts(&suite, &splits.train, &encoder, &model_config)?;
        let work = Work {
            name: &variant.name,
            model_config: &model_config,
            tokenizer: encoder.tokenizer(),
            data: &rows,
            from: init.as_ref().or(begin.as_ref()),
            teacher,
            validation: held.as_ref().map(|held| held as &dyn Data),
            held_out: None,
            config: self.config,
            ranks: self.ranks,
        };
        let trained = run(&work, out, cpu, progress)?;
        let record = (self.ranks.rank() == 0).then(|| record(&task.id(), &work, &trained, out)).transpose()?;
        Ok((record, trained.outcome))
    }

    /// The trained network that a field of the variant names; none where it names none, or the model that training begins from.
    fn other(
        &self,
        (field, named): (&str, &Option<String>),
        given: Option<&Path>,
        cpu: &Cpu,
    ) -> Result<Option<Checkpoint>, Error> {
        let name = &self.variant.name;
        match (named.as_deref(), given) {
            (Some(PRETRAINED) | None, None) => Ok(None),
            (Some(_), Some(path)) => Ok(Some(Checkpoint::open(path)?.on(cpu))),
            (Some(other), None) => Err(Error::usage(format!(
                "variant `{name}` has `{field} = \"{other}\"`: train that one, and name its directory with --{field} DIR"
            ))),
            (None, Some(_)) => Err(Error::usage(format!("variant `{name}` has no `{field}`: leave --{field} out"))),
        }
    }
}

/// A stop ended the work; what is done is kept.
pub(crate) fn interrupted(kept: &Path) -> Error {
    let message = format!("interrupted; the same command resumes what is in {}", kept.display());
    Error::new(Kind::Interrupted, message)
}
