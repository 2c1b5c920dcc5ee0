//! Training: tokens, progress bar, signals, a look at held-out text.

use crate::failure::{Code, Failure};
use crate::output;
use indicatif::{ProgressBar, ProgressStyle};
use lowbit_eval::read::Rows;
use lowbit_kernels::Cpu;
use lowbit_model::exec::Batch;
use lowbit_model::{Card, Tokenizer};
use lowbit_train::{Control, Data, Job, Network, Observer, Outcome, Status, StepMetrics, TrainConfig, Windows};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set by SIGINT and SIGTERM; a second signal ends the process at once with exit code 130.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens for signals from now on.
    ///
    /// # Errors
    /// When the operating system refuses the handlers.
    pub fn listen() -> Result<Self, Failure> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            let code = Code::Interrupted as i32;
            signal_hook::flag::register_conditional_shutdown(signal, code, flag.clone())
                .and_then(|_| signal_hook::flag::register(signal, flag.clone()))
                .map_err(|e| Failure { code: Code::Internal, message: format!("signal handler: {e}") })?;
        }
        Ok(Interrupt(flag))
    }

    /// Whether a signal came.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Labelled rows as tokens.
pub struct TokenRows {
    sequences: Vec<Vec<u32>>,
    labels: Vec<u16>,
    fingerprint: String,
}

impl TokenRows {
    /// Encodes every text; an empty one becomes one filler token.
    ///
    /// # Errors
    /// When the tokenizer cannot encode a text.
    pub fn new(rows: &Rows, tokenizer: &Tokenizer, max_length: usize) -> Result<Self, Failure> {
        let encode = |text: &String| {
            let mut ids = tokenizer.encode(text, max_length)?;
            if ids.is_empty() {
                ids.push(tokenizer.filler());
            }
            Ok(ids)
        };
        let sequences = rows.texts.iter().map(encode).collect::<Result<Vec<_>, lowbit_model::Error>>()?;
        use sha2::Digest;
        let mut hash = sha2::Sha256::new();
        for (sequence, label) in sequences.iter().zip(&rows.labels) {
            hash.update((sequence.len() as u64).to_le_bytes());
            sequence.iter().for_each(|id| hash.update(id.to_le_bytes()));
            hash.update(label.to_le_bytes());
        }
        let fingerprint = lowbit_base::hex(hash.finalize());
        Ok(TokenRows { sequences, labels: rows.labels.clone(), fingerprint })
    }
}

impl Data for TokenRows {
    fn len(&self) -> usize {
        self.sequences.len()
    }

    fn fill(&self, rows: &[usize], batch: &mut Batch, targets: &mut Vec<u32>) {
        batch.tokens.clear();
        batch.starts.clear();
        batch.starts.push(0);
        targets.clear();
        for &row in rows {
            batch.tokens.extend_from_slice(&self.sequences[row]);
            batch.starts.push(batch.tokens.len());
            targets.push(self.labels[row] as u32);
        }
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}

/// Shows a progress bar on a terminal, a line now and then elsewhere, and passes on a stop signal.
struct Watch<'a> {
    name: &'a str,
    interrupt: &'a Interrupt,
    bar: Option<ProgressBar>,
    loss: f64,
    held_out: Option<&'a Windows>,
}

impl Observer for Watch<'_> {
    fn step(&mut self, metrics: &StepMetrics, steps: u64) -> Control {
        self.loss = if self.loss == 0.0 { metrics.loss } else { 0.95 * self.loss + 0.05 * metrics.loss };
        let told = format!("loss {:.4}, {:.0} tokens/s", self.loss, metrics.tokens_per_second);
        match &self.bar {
            Some(bar) => {
                bar.set_length(steps);
                bar.set_position(metrics.step);
                bar.set_message(told);
            }
            None if metrics.step == steps || metrics.step.is_multiple_of(steps.div_ceil(5)) => {
                output::note(format!("  {}: step {} of {steps}, {told}", self.name, metrics.step));
            }
            None => {}
        }
        if self.interrupt.is_set() { Control::Stop } else { Control::Continue }
    }

    fn evaluate(&mut self, step: u64, network: &mut Network) -> Result<(), lowbit_train::Error> {
        if let Some(windows) = self.held_out {
            let told = format!("step {step}: {:.4} bits per held-out token", held_out_bits(windows, network));
            match &self.bar {
                Some(bar) => bar.println(format!("  {}: {told}", self.name)),
                None => output::note(format!("  {}: {told}", self.name)),
            }
        }
        Ok(())
    }

    fn warn(&mut self, message: &str) {
        output::note(format!("warning: {message}"));
    }
}

/// Windows of held-out text behind a look at it.
const WATCHED: usize = 32;
/// Windows of one forward pass of that look.
const WATCHED_AT_ONCE: usize = 8;

/// Mean bits per token of windows spread evenly over held-out text.
fn held_out_bits(windows: &Windows, network: &mut Network) -> f64 {
    let count = windows.len().min(WATCHED);
    let rows: Vec<usize> = (0..count).map(|i| i * windows.len() / count).collect();
    let (mut batch, mut targets) = (Batch::default(), Vec::new());
    let (mut nats, mut tokens) = (0.0, 0);
    for rows in rows.chunks(WATCHED_AT_ONCE) {
        windows.fill(rows, &mut batch, &mut targets);
        let (logits, width) = network.logits(&batch);
        nats += logits.chunks_exact(width).zip(&targets).map(|(row, t)| surprise(row, *t as usize)).sum::<f64>();
        tokens += targets.len();
    }
    nats / std::f64::consts::LN_2 / tokens as f64
}

/// `-ln p` of a class under the softmax of logits.
fn surprise(logits: &[f32], class: usize) -> f64 {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|l| f64::from(l - top).exp()).sum();
    sum.ln() - f64::from(logits[class] - top)
}

/// A network to train.
pub struct Work<'a> {
    /// Name for messages.
    pub name: &'a str,
    /// The network.
    pub card: &'a Card,
    /// Stored with the weights.
    pub tokenizer: &'a Tokenizer,
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
/// As [`lowbit_train::train`]; a signal ends with [`Code::Interrupted`], after the checkpoint is saved.
pub fn run(work: &Work, directory: &Path, cpu: &Cpu, interrupt: &Interrupt) -> Result<Outcome, Failure> {
    let style = "{prefix} [{bar:30}] {pos}/{len}, {msg}, {eta} left";
    let bar = output::has_terminal().then(|| {
        let style = ProgressStyle::with_template(style).expect("a valid template").progress_chars("=> ");
        ProgressBar::new(0).with_style(style).with_prefix(format!("  {}", work.name))
    });
    let mut watch = Watch { name: work.name, interrupt, bar, loss: 0.0, held_out: work.held_out };
    let job =
        Job { card: work.card, tokenizer: Some(work.tokenizer), from: None, data: work.data, config: work.config };
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
