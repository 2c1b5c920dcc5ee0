//! The training loop.

use crate::config::{FREE_FIELDS, TrainConfig};
use crate::data::{BatchTargets, Data};
use crate::divergence::Divergence;
use crate::feed::{Feed, Limits, Part};
use crate::metrics::{Metrics, StepMetrics};
use crate::network::Network;
use crate::optim::{self, OptimizerState};
use crate::random::hash;
use crate::ranks::{Alone, Ranks};
use crate::state::{Identity, Plan, Progress, States};
use crate::tape::Pass;
use crate::teacher::{Counts, Teacher};
use crate::validation::Validation;
use crate::{Error, Params, begin, need, prune, together};
use lowbit_kernels::{Cpu, ops};
use lowbit_model::parameter_list::ParameterList;
use lowbit_model::source::Role;
use lowbit_model::{Checkpoint, ModelConfig, Tokenizer, checkpoint};
use std::ops::Range;
use std::path::Path;
use std::time::Instant;

/// Sets the seeds of dropout apart from other seeds of the run.
const DROPOUT: u64 = 3;

/// What to train.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// The architecture, and what is stored with the weights.
    pub model_config: &'a ModelConfig,
    /// Stored with the weights.
    pub tokenizer: Option<&'a Tokenizer>,
    /// Where the weights begin; drawn from the seed when absent.
    pub from: Option<&'a Checkpoint>,
    /// The network that is learnt from, in full precision, as [`TrainConfig::distill`] says.
    pub teacher: Option<&'a Checkpoint>,
    /// The examples.
    pub data: &'a dyn Data,
    /// Examples that are not trained on: the weights that do best on them are the result.
    pub validation: Option<&'a dyn Data>,
    /// How.
    pub config: &'a TrainConfig,
}

/// What an observer wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Go on.
    Continue,
    /// Save and return [`Status::Interrupted`].
    Stop,
}

/// Watches a run.
pub trait Observer {
    /// After each update; `steps` is the number of updates of the whole run.
    fn step(&mut self, _metrics: &StepMetrics, _steps: u64) -> Control {
        Control::Continue
    }

    /// Every [`TrainConfig::evaluate_every`] updates, with the current weights.
    ///
    /// # Errors
    /// An error ends the run.
    fn evaluate(&mut self, _step: u64, _network: &mut Network) -> Result<(), Error> {
        Ok(())
    }

    /// After each look at the validation examples.
    fn validated(&mut self, _step: u64, _validation: &Validation) {}

    /// Something that the user should know.
    fn warn(&mut self, _message: &str) {}
}

/// Watches nothing.
impl Observer for () {}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// All updates are done and `model.safetensors` is written.
    Finished,
    /// The observer stopped the run; the same call resumes the run.
    Interrupted,
}

/// What a run did.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// How the run ended.
    pub status: Status,
    /// Updates done, those of earlier parts included.
    pub step: u64,
    /// Updates of the whole run.
    pub steps: u64,
    /// The update after which the run was resumed; `None` for a run from the start.
    pub resumed_from: Option<u64>,
    /// The update whose weights are the result, and how they did on the validation examples; none without such examples.
    pub best: Option<(u64, Validation)>,
    /// Loss of the last update of this part, nats per target; none when there was nothing left to do.
    pub loss: Option<f64>,
    /// Seconds spent in updates, earlier parts included.
    pub seconds: f64,
    /// Number of weights.
    pub parameters: usize,
}

/// Trains into a directory, or resumes what an earlier call began there. The weights depend on the job alone: not on
/// interruptions, on the number of threads or, with products in f32, on the instruction set.
///
/// The directory receives `checkpoints/`, `metrics.jsonl` and, at the end, `config.json`, `model.safetensors` (f32) and
/// `tokenizer.json`.
///
/// # Errors
/// Usage: a setting out of range. Input: the data do not fit the network, every checkpoint is damaged, or the directory
/// holds another run. Io: reading or writing failed, or another process trains there. Numeric: loss or gradient became
/// NaN or infinite; the last checkpoint is kept.
pub fn train(job: &Job, directory: &Path, cpu: &Cpu, observer: &mut dyn Observer) -> Result<Outcome, Error> {
    train_together(job, directory, cpu, observer, &Alone)
}

/// The same on several processes, each of which calls this for the same job: the `accumulation` batches of an update are divided among
/// them, their gradients are summed, and each makes the same update. The weights are those of one process up to the rounding of sums, and
/// have the same bits each time for as many ranks. A run goes on with as many ranks, or with others.
///
/// Rank 0 alone reads and writes the directory. Evaluations and looks at validation examples are made by all. A stop of any observer
/// is one of all.
///
/// # Errors
/// As [`train`]. Usage: the ranks were given other jobs, or `accumulation` cannot be divided. Of [`Ranks`], when one is lost. Where one rank
/// fails, the others wait until they are ended.
pub fn train_together(
    job: &Job,
    directory: &Path,
    cpu: &Cpu,
    observer: &mut dyn Observer,
    ranks: &dyn Ranks,
) -> Result<Outcome, Error> {
    Session::open(job, directory, cpu, observer, ranks)?.run(observer)
}

/// What the passes of an update showed.
struct Seen {
    /// Mean over all targets, nats.
    loss: f64,
    /// What the teacher adds.
    taught: f64,
    /// The loss of guessing.
    guessing: f64,
    /// Of all batches.
    tokens: usize,
}

/// A run in progress.
struct Session<'a> {
    job: Job<'a>,
    directory: &'a Path,
    cpu: Cpu,
    ranks: &'a dyn Ranks,
    /// The batches of an update that are passed here.
    share: Range<usize>,
    /// Of the first rank.
    states: Option<States>,
    identity: Identity,
    /// Of the first rank.
    metrics: Option<Metrics>,
    feed: Feed<'a>,
    network: Network,
    teacher: Option<Teacher>,
    optimizer: OptimizerState,
    progress: Progress,
    divergence: Divergence,
    best: Option<(u64, Validation)>,
    saved: u64,
    steps: u64,
    resumed_from: Option<u64>,
}

impl<'a> Session<'a> {
    fn open(
        job: &Job<'a>,
        directory: &'a Path,
        cpu: &Cpu,
        observer: &mut dyn Observer,
        ranks: &'a dyn Ranks,
    ) -> Result<Self, Error> {
        let config = job.config;
        config.validate(job.data.len())?;
        let share = together::share(config, ranks)?;
        need::need(job)?.check()?;
        let mut network = network(job, cpu)?;
        let teacher = Teacher::of(job, &mut network, cpu)?;
        let limits = limits(job, network.params(), teacher.as_ref())?;
        let feed = Feed::new(job.data, config, limits, share.clone())?;
        let from = begin::begin(job, &mut network.tape.params, cpu)?;
        let taught = teacher.as_ref().map_or(String::new(), |teacher| teacher.hash.clone());
        let identity = identity(job, from, taught);
        together::same_job(ranks, &identity, config, cpu)?;
        let states = (ranks.rank() == 0).then(|| States::open(directory)).transpose()?;
        let steps = config.total_steps(job.data.len());
        let plan = Plan { steps, sequences: config.sequences_per_step() as u64, data: job.data.len() };
        let mut optimizer = OptimizerState::new(network.params());
        let found = states.as_ref().map_or(Ok(None), |states| {
            let learnt = (&mut network.tape.params, &mut optimizer);
            states.load(learnt, &identity, plan, &mut |text| observer.warn(text))
        })?;
        let restored = together::spread(ranks, (&mut network.tape.params, &mut optimizer), found)?;
        let resumed_from = restored.as_ref().map(|progress| progress.step);
        let progress = restored.unwrap_or(Progress { step: 0, position: 0, seconds: 0.0, first_loss: None });
        if let Some(states) = states.as_ref().filter(|_| resumed_from.is_none()) {
            // Finds out now, not after hours, whether the directory can hold a state.
            states.save((network.params(), &optimizer), &progress, &identity)?;
        }
        let metrics = states.as_ref().map(|_| Metrics::open(directory, progress.step)).transpose()?;
        let best = states.as_ref().map_or(Ok(None), |states| states.best(network.params(), (&identity, plan)))?;
        // A look of a later step than the state's is made again.
        let best = best.filter(|(step, _)| *step <= progress.step);
        let divergence = Divergence::new(steps, progress.first_loss);
        let (saved, cpu) = (progress.step, cpu.clone());
        Ok(Session {
            job: *job,
            directory,
            cpu,
            ranks,
            share,
            states,
            identity,
            metrics,
            feed,
            network,
            teacher,
            optimizer,
            progress,
            divergence,
            best,
            saved,
            steps,
            resumed_from,
        })
    }

    fn run(mut self, observer: &mut dyn Observer) -> Result<Outcome, Error> {
        let (status, loss) = self.updates(observer)?;
        if status == Status::Finished && self.states.is_some() {
            self.write()?;
        }
        // All is written before any rank leaves.
        self.ranks.any(false)?;
        self.ranks.close();
        Ok(self.outcome(status, loss))
    }

    /// All updates that are left, or those until the observer stops the run; the loss of the last one.
    fn updates(&mut self, observer: &mut dyn Observer) -> Result<(Status, Option<f64>), Error> {
        let config = self.job.config;
        let due = |every: u64, step: u64| every > 0 && step.is_multiple_of(every);
        let mut loss = None;
        while self.progress.step < self.steps {
            let metrics = self.step()?;
            loss = Some(metrics.loss);
            self.metrics.as_mut().map_or(Ok(()), |file| file.append(&metrics))?;
            if due(config.evaluate_every, metrics.step) {
                observer.evaluate(metrics.step, &mut self.network)?;
            }
            let looks =
                due(self.looks(), metrics.step) && config.prune.as_ref().is_none_or(|p| p.is_done(metrics.step));
            if let Some(data) = self.job.validation.filter(|_| looks || metrics.step == self.steps) {
                self.validate(data, observer)?;
            }
            let stop = observer.step(&metrics, self.steps) == Control::Stop && metrics.step < self.steps;
            let stop = self.ranks.any(stop)?;
            let periodic = due(config.save_every, metrics.step) && !self.divergence.is_suspected();
            if stop || periodic || metrics.step == self.steps {
                self.save()?;
            }
            if stop {
                return Ok((Status::Interrupted, loss));
            }
        }
        Ok((Status::Finished, loss))
    }

    /// Writes the model, without what only updates need.
    fn write(&mut self) -> Result<(), Error> {
        self.optimizer = OptimizerState::new(self.network.params());
        if let Some(states) = self.states.as_ref().filter(|_| self.job.validation.is_some()) {
            let (data, sequences) = (self.job.data.len(), self.job.config.sequences_per_step() as u64);
            let plan = Plan { steps: self.steps, sequences, data };
            states.load_best(&mut self.network.tape.params, &self.identity, plan)?;
        }
        let all = self.network.params();
        let params: Vec<_> = all.network().map(|p| (&p.spec, all.merged(&self.cpu, p))).collect();
        let params = params.iter().map(|(spec, values)| (*spec, &values[..]));
        checkpoint::save_masters(self.directory, self.job.model_config, self.job.tokenizer, params)
    }

    /// Updates between looks at the validation examples: those of an evaluation, else of a pass over the data.
    fn looks(&self) -> u64 {
        let pass = (self.job.data.len() as u64).div_ceil(self.job.config.sequences_per_step() as u64);
        if self.job.config.evaluate_every > 0 { self.job.config.evaluate_every } else { pass }
    }

    /// Looks at the validation examples, and keeps the weights if none did better.
    fn validate(&mut self, data: &dyn Data, observer: &mut dyn Observer) -> Result<(), Error> {
        let found = Validation::of(&mut self.network, data, self.job.config.batch_size)?;
        observer.validated(self.progress.step, &found);
        if self.best.as_ref().is_none_or(|(_, best)| found.beats(best)) {
            if let Some(states) = &self.states {
                states.save_best(self.network.params(), &self.progress, &found, &self.identity)?;
            }
            self.best = Some((self.progress.step, found));
        }
        Ok(())
    }

    /// One update.
    fn step(&mut self) -> Result<StepMetrics, Error> {
        let start = Instant::now();
        let (config, step) = (self.job.config, self.progress.step);
        let rate = config.rate(step, self.steps);
        let Seen { loss, taught, guessing, tokens } = self.passes(step)?;
        if config.prune.is_some() {
            prune::hold(&mut self.network.tape, &mut self.optimizer);
        }
        let norm = optim::gradient_norm(&self.network.tape);
        if !(loss.is_finite() && norm.is_finite()) {
            return Err(self.not_finite(loss));
        }
        if let Some(rule) = self.divergence.see(loss, guessing, step + 1 == self.steps) {
            return Err(self.diverged(loss, &rule));
        }
        self.progress.first_loss = self.divergence.first_loss;
        let factor = optim::clip_factor(config.clip_norm, norm);
        self.optimizer.update(&mut self.network.tape, config, step, rate, factor);
        // What is looked at between updates is the network that is stored.
        self.network.tape.qat = config.qat;
        let seconds = start.elapsed().as_secs_f64();
        self.progress.step += 1;
        self.progress.position += config.sequences_per_step() as u64;
        self.progress.seconds += seconds;
        Ok(StepMetrics {
            step: self.progress.step,
            loss,
            distillation: self.teacher.is_some().then_some(taught),
            lr: rate,
            grad_norm: norm,
            tokens_per_second: tokens as f64 / seconds,
            seconds: self.progress.seconds,
        })
    }

    /// The passes of an update, from which all ranks have the same gradients.
    fn passes(&mut self, step: u64) -> Result<Seen, Error> {
        let (config, ranks) = (self.job.config, self.ranks);
        let network = &mut self.network;
        network.tape.qat = config.qat_of(step, self.steps);
        config.prune.as_ref().map_or(Ok(()), |prune| prune.before(&mut network.tape, step))?;
        let parts = self.feed.step(self.progress.position)?;
        let count = |of: fn(&Part) -> usize| parts.iter().map(of).sum::<usize>() as f64;
        let mut counts = [count(|part| part.targets.counted()), count(|part| part.batch.tokens.len())];
        ranks.sums(&mut counts)?;
        let [targets, tokens] = counts.map(|count| count as usize);
        if targets == 0 {
            return Err(Error::data(format!("step {}: no example of the batch has a target", step + 1)));
        }
        let own = self.teacher.as_ref().map_or(1.0, |teacher| 1.0 - teacher.weight());
        let (mut loss, mut taught, mut guessing) = (0.0, 0.0, 0.0);
        for (i, part) in self.share.clone().zip(parts) {
            let seed = hash(&[config.seed, DROPOUT, step, i as u64]);
            let logits = network.forward(&part.batch, Pass::Train(seed));
            guessing = check_targets(&part.targets, logits.rows(), logits.width())?;
            let scale = own / targets as f32;
            loss += network.tape.loss(&logits, &part.targets, config.label_smoothing, scale);
            if let Some(teacher) = &mut self.teacher {
                let counts = Counts { targets, tokens };
                taught += teacher.teach(network, &logits, part, counts)?;
            }
            drop(logits);
            network.backward();
        }
        let mut losses = [loss, taught];
        ranks.sums(&mut losses)?;
        together::join(ranks, &mut self.network.tape)?;
        let [loss, taught] = losses;
        Ok(Seen { loss: loss / targets as f64, taught, guessing, tokens })
    }

    /// Names the first tensor that is to blame for a step that was not applied.
    fn not_finite(&self, loss: f64) -> Error {
        let bad = |x: &[f32]| !ops::all_finite(&self.cpu, x);
        let params = || self.network.params().iter();
        let weights = params().find(|p| p.master().is_some_and(bad)).map(|p| format!("`{}`", p.spec.name));
        let tape = &self.network.tape;
        let gradient = || tape.params.ids().find(|id| tape.gradient(*id).is_some_and(bad));
        let name =
            weights.or_else(|| gradient().map(|id| format!("the gradient of `{}`", tape.params.get(id).spec.name)));
        let tensor = name.unwrap_or_else(|| "the logits".into());
        Error::numeric(format!(
            "step {}: loss {loss}, and {tensor} holds NaN or infinity; the step was not applied and the state of step {} \
             is kept; {}",
            self.progress.step + 1,
            self.saved,
            self.remedy(),
        ))
    }

    /// Names the rule by which the run has diverged.
    fn diverged(&self, loss: f64, rule: &str) -> Error {
        let (step, saved) = (self.progress.step + 1, self.saved);
        let text =
            format!("step {step}: loss {loss:.4}: training has diverged: {rule}; the state of step {saved} is kept");
        Error::numeric(format!("{text}; {}", self.remedy()))
    }

    /// Settings that would make training stable, with their present values; changed settings need a new run.
    fn remedy(&self) -> String {
        let TrainConfig { learning_rate, clip_norm, .. } = self.job.config;
        let clip = match *clip_norm > 0.0 {
            true => format!("or `clip_norm`, now {clip_norm}"),
            false => "or set `clip_norm`, e.g. to 1".into(),
        };
        format!("lower `learning_rate`, now {learning_rate}, {clip}, and train into another directory")
    }

    fn save(&mut self) -> Result<(), Error> {
        together::same_weights(self.ranks, self.network.params(), self.progress.step)?;
        if let Some(states) = &self.states {
            states.save((self.network.params(), &self.optimizer), &self.progress, &self.identity)?;
        }
        self.saved = self.progress.step;
        Ok(())
    }

    fn outcome(&self, status: Status, loss: Option<f64>) -> Outcome {
        Outcome {
            status,
            step: self.progress.step,
            steps: self.steps,
            resumed_from: self.resumed_from,
            best: self.best.clone(),
            loss,
            seconds: self.progress.seconds,
            parameters: self.network.params().count(),
        }
    }
}

/// The network of a job with drawn parameters.
fn network(job: &Job, cpu: &Cpu) -> Result<Network, Error> {
    let config = job.config;
    let mut network = Network::new(cpu, &job.model_config.config, config.seed, config.qat)?;
    network.set_checkpointing(config.gradient_checkpointing);
    network.set_precision(config.precision);
    Ok(network)
}

/// What the network of a job, and its teacher, can read.
fn limits(job: &Job, params: &Params, teacher: Option<&Teacher>) -> Result<Limits, Error> {
    let positions = ParameterList::new(&job.model_config.config)?.positions();
    Ok(Limits {
        vocabulary: vocabulary(params),
        features: job.model_config.config.features(),
        positions: positions.into_iter().chain(teacher.and_then(|teacher| teacher.positions)).min(),
        image: job.model_config.config.image(),
    })
}

/// Entries of the token table: the first table the architecture asks for.
pub(crate) fn vocabulary(params: &Params) -> usize {
    params.iter().find(|p| p.spec.role == Role::Embedding).map_or(usize::MAX, |p| p.spec.rows)
}

/// Checks that targets fit an output `[rows, width]`; returns the loss of guessing: `ln(classes)`, or the variance of scaled
/// values, which is 1.
pub(crate) fn check_targets(targets: &BatchTargets, rows: usize, width: usize) -> Result<f64, Error> {
    if targets.len() != rows {
        return Err(Error::data(format!("{} targets for {rows} rows of logits", targets.len())));
    }
    match targets {
        BatchTargets::Classes(classes) => match classes.iter().find(|&&t| t != u32::MAX && t as usize >= width) {
            Some(t) => Err(Error::data(format!("target {t} is not below the number of classes, {width}"))),
            None => Ok((width as f64).ln()),
        },
        BatchTargets::Values(_) if width != 1 => {
            Err(Error::data(format!("values for a network that answers with {width} numbers; `classes` must be 1")))
        }
        BatchTargets::Values(_) => Ok(1.0),
    }
}

fn identity(job: &Job, from: String, teacher: String) -> Identity {
    let mut train = serde_json::to_value(job.config).expect("a configuration can be written");
    for field in FREE_FIELDS {
        train.as_object_mut().expect("a configuration is an object").remove(*field);
    }
    let model = serde_json::to_string(&job.model_config.config).expect("a configuration can be written");
    Identity { model, train: train.to_string(), data: job.data.fingerprint(), from, teacher }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use lowbit_base::file::faults::{self, Fault};
    use lowbit_model::exec::Batch;

    struct Tokens;

    impl Data for Tokens {
        fn len(&self) -> usize {
            9
        }

        fn fill(&self, rows: &[usize], batch: &mut Batch, targets: &mut BatchTargets) {
            *batch = Batch::new(rows.iter().map(|&r| &[[0, 1], [1, 2], [2, 0]][r % 3][..]));
            targets.classes().extend(rows.iter().map(|&r| r as u32 % 3 % 2));
        }

        fn fingerprint(&self) -> String {
            "tokens".into()
        }
    }

    /// A disk that fails at its n-th operation, for every n: each time the run can be finished from what is there.
    #[test]
    fn every_failing_write_leaves_a_state_to_resume_from() {
        let text = r#"{"architecture": "mlp", "vocab_size": 3, "hidden_size": 4, "hidden_act": "relu", "classes": 2}"#;
        let config = serde_json::from_str(text).unwrap();
        let model_config = ModelConfig::new(config, 2);
        let config = TrainConfig { steps: Some(2), batch_size: 2, save_every: 1, ..TrainConfig::default() };
        let job = Job {
            model_config: &model_config,
            tokenizer: None,
            from: None,
            teacher: None,
            data: &Tokens,
            validation: None,
            config: &config,
        };
        let cpu = Cpu::new(None, Some(1)).unwrap();
        let weights = |dir: &Path| std::fs::read(dir.join("model.safetensors")).unwrap();
        let whole = tempfile::tempdir().unwrap();
        train(&job, whole.path(), &cpu, &mut ()).unwrap();
        let (mut failures, mut finished) = (0, false);
        while !finished {
            let dir = tempfile::tempdir().unwrap();
            let fault = Some(Fault::From(failures));
            match faults::with(fault, || train(&job, dir.path(), &cpu, &mut ())).1 {
                Ok(_) => finished = true,
                Err(error) => {
                    assert_eq!(error.kind, Kind::Io, "{error}");
                    assert!(error.path.is_some());
                    failures += 1;
                }
            }
            train(&job, dir.path(), &cpu, &mut ()).unwrap();
            assert!(weights(dir.path()) == weights(whole.path()), "after {failures} operations");
            let orphans = |dir: &Path| {
                let names = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name());
                names.filter(|name| name.to_string_lossy().starts_with(".lowbit")).count()
            };
            assert_eq!(
                orphans(dir.path()) + orphans(&dir.path().join("checkpoints")),
                0,
                "after {failures} operations"
            );
        }
        assert!(failures > 20, "only {failures} operations could fail");
    }
}
