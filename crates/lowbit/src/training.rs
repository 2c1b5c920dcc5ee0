//! Training: tokens, progress bar, signals, a look at held-out text.

use crate::failure::Failure;
use crate::output;
use indicatif::{ProgressBar, ProgressStyle};
use lowbit_base::{Stop, file};
use lowbit_eval::read::{Rows, Targets};
use lowbit_eval::record::{CurvePoint, Measure};
use lowbit_kernels::Cpu;
use lowbit_model::exec::Batch;
use lowbit_model::{Encoder, ModelConfig, Tokenizer};
use lowbit_train::{
    BatchTargets, Control, Data, Job, Labelled, Network, Observer, Outcome, Status, StepMetrics, TrainConfig, Windows,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// Labelled rows as a network reads them; values are scaled as its model configuration says.
///
/// # Errors
/// When a row cannot be encoded.
pub fn labelled(rows: &Rows, encoder: &Encoder, model_config: &ModelConfig) -> Result<Labelled, Failure> {
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
    }
    Ok(Labelled::new(batch, targets))
}

/// Points of a training curve.
const CURVE_POINTS: usize = 200;

/// Bytes of the metrics of a run at most.
const METRICS: u64 = 1 << 30;

/// The training curve of a run: mean loss over windows of steps.
///
/// # Errors
/// When the metrics cannot be read.
pub fn curve(run: &Path) -> Result<Vec<CurvePoint>, Failure> {
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

/// Measures of a finished training.
pub fn measures(seconds: f64) -> BTreeMap<String, Measure> {
    BTreeMap::from([("train_seconds".to_string(), Measure::measured(seconds, "seconds", 1))])
}

/// Shows a progress bar on a terminal, a line now and then elsewhere, and passes on a stop signal.
struct Watch<'a> {
    name: &'a str,
    stop: &'a Stop,
    bar: Option<ProgressBar>,
    left: Left,
    loss: f64,
    held_out: Option<&'a Windows>,
}

/// How long a run still takes, by the updates of this process alone.
struct Left {
    clock: Instant,
    /// The first update seen here, and the second it ended in.
    first: Option<(u64, f64)>,
}

impl Left {
    fn new() -> Self {
        Left { clock: Instant::now(), first: None }
    }

    /// In words, from the second update on.
    fn in_words(&mut self, step: u64, steps: u64) -> String {
        let now = self.clock.elapsed().as_secs_f64();
        self.seconds(step, steps, now).map_or(String::new(), |left| format!(", {} left", output::duration(left)))
    }

    fn seconds(&mut self, step: u64, steps: u64, now: f64) -> Option<f64> {
        let (first, begin) = *self.first.get_or_insert((step, now));
        (step > first).then(|| (now - begin) / (step - first) as f64 * (steps - step) as f64)
    }
}

impl Observer for Watch<'_> {
    fn step(&mut self, metrics: &StepMetrics, steps: u64) -> Control {
        self.loss = if self.loss == 0.0 { metrics.loss } else { 0.95 * self.loss + 0.05 * metrics.loss };
        let left = self.left.in_words(metrics.step, steps);
        let line = format!("loss {:.4}, {:.0} tokens/s{left}", self.loss, metrics.tokens_per_second);
        match &self.bar {
            Some(bar) => {
                bar.set_length(steps);
                bar.set_position(metrics.step);
                bar.set_message(line);
            }
            None if metrics.step == steps || metrics.step.is_multiple_of(steps.div_ceil(5)) => {
                output::note(format!("  {}: step {} of {steps}, {line}", self.name, metrics.step));
            }
            None => {}
        }
        if self.stop.is_set() { Control::Stop } else { Control::Continue }
    }

    fn evaluate(&mut self, step: u64, network: &mut Network) -> Result<(), lowbit_train::Error> {
        if let Some(windows) = self.held_out {
            let line = format!("step {step}: {:.4} bits per held-out token", windows.bits(network));
            match &self.bar {
                Some(bar) => bar.println(format!("  {}: {line}", self.name)),
                None => output::note(format!("  {}: {line}", self.name)),
            }
        }
        Ok(())
    }

    fn warn(&mut self, message: &str) {
        output::note(format!("warning: {message}"));
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
    /// Text that is looked at now and then, as often as the settings say.
    pub held_out: Option<&'a Windows>,
    /// How.
    pub config: &'a TrainConfig,
}

/// Trains into a directory, or resumes.
///
/// # Errors
/// As [`lowbit_train::train`]; an end that is asked for is [`Code::Interrupted`](crate::failure::Code), after the checkpoint is saved.
pub fn run(work: &Work, directory: &Path, cpu: &Cpu) -> Result<Outcome, Failure> {
    let style = "{prefix} [{bar:30}] {pos}/{len}, {msg}";
    let bar = output::has_terminal().then(|| {
        let style = ProgressStyle::with_template(style).expect("a valid template").progress_chars("=> ");
        ProgressBar::new(0).with_style(style).with_prefix(format!("  {}", work.name))
    });
    let mut watch =
        Watch { name: work.name, stop: &cpu.stop, bar, left: Left::new(), loss: 0.0, held_out: work.held_out };
    let config = work.config.fitted(work.data.len());
    if config.warmup_steps != work.config.warmup_steps {
        let (now, then, steps) = (config.warmup_steps, work.config.warmup_steps, config.total_steps(work.data.len()));
        output::note(format!(
            "  {}: `warmup_steps` is {now} instead of {then}, as there are {steps} updates",
            work.name
        ));
    }
    let job = Job {
        model_config: work.model_config,
        tokenizer: work.tokenizer,
        from: None,
        data: work.data,
        config: &config,
    };
    let outcome = lowbit_train::train(&job, directory, cpu, &mut watch);
    if let Some(bar) = &watch.bar {
        bar.finish_and_clear();
    }
    let outcome = outcome?;
    match outcome.status {
        Status::Finished => Ok(outcome),
        Status::Interrupted => Err(Failure::interrupted(directory)),
    }
}

#[cfg(test)]
mod tests {
    use super::Left;

    #[test]
    fn time_left_counts_the_updates_of_this_process() {
        // Resumed after update 900 of 1,000; each update takes two seconds.
        let mut left = Left::new();
        assert_eq!(left.seconds(901, 1000, 5.0), None);
        assert_eq!(left.seconds(902, 1000, 7.0), Some(2.0 * 98.0));
        assert_eq!(left.seconds(1000, 1000, 203.0), Some(0.0));
    }
}
