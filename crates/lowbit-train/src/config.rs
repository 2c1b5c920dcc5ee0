//! What a training run is asked to do.

use crate::Error;
use crate::augment::Augment;
use crate::distill::Distill;
use crate::lora::Lora;
use crate::prune::Prune;
use crate::qat::Qat;
use lowbit_model::source::Role;
use serde::{Deserialize, Serialize};

/// How weights follow gradients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Optimizer {
    /// Adam with decoupled weight decay (arXiv 1711.05101).
    #[default]
    Adamw,
    /// Stochastic gradient descent with momentum.
    Sgd,
    /// Momentum whose update of a body matrix is made orthogonal, with the root mean square that AdamW's has (Muon: Jordan et al. 2024;
    /// arXiv 2502.16982); AdamW for all other parameters.
    Muon,
}

impl Optimizer {
    /// Numbers kept of each parameter, at most.
    pub(crate) fn moments(self) -> u64 {
        match self {
            Optimizer::Adamw | Optimizer::Muon => 2,
            Optimizer::Sgd => 1,
        }
    }
}

/// How the learning rate goes after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Stays.
    Constant,
    /// Half a cosine down to 0 (arXiv 1608.03983).
    #[default]
    Cosine,
    /// A straight line down to 0.
    Linear,
    /// Stays, and goes down to 0 in a straight line over the last `decay_fraction` of the updates (warmup-stable-decay: arXiv 2404.06395).
    Wsd,
}

/// What the matrix products of forward and backward passes round their operands to. Sums, masters, moments and everything that
/// is no product of matrices are f32 always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// f32: not rounded.
    #[default]
    F32,
    /// bf16. The forward pass of quantized layers, and passes that evaluate, stay f32. The weights depend on whether the CPU
    /// multiplies pairs of bf16 fast (`lowbit doctor` says it).
    Bf16,
}

impl Precision {
    fn is_default(&self) -> bool {
        *self == Precision::default()
    }

    pub(crate) fn kernel(self) -> lowbit_kernels::Precision {
        match self {
            Precision::F32 => lowbit_kernels::Precision::F32,
            Precision::Bf16 => lowbit_kernels::Precision::Bf16,
        }
    }
}

/// A training run. `steps` or `epochs` must be given; everything else has a default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Updates of the weights.
    pub steps: Option<u64>,
    /// Passes over the data, instead of `steps`.
    pub epochs: Option<f64>,
    /// Sequences per forward pass.
    pub batch_size: usize,
    /// Forward passes per update; the gradient is that of one batch of all their sequences.
    pub accumulation: usize,
    /// Optimizer.
    pub optimizer: Optimizer,
    /// Highest learning rate.
    pub learning_rate: f32,
    /// What follows the warm-up.
    pub schedule: Schedule,
    /// Updates over which the learning rate rises in a straight line.
    pub warmup_steps: u64,
    /// Share of the updates over which it goes down at the end (schedule `wsd`).
    pub decay_fraction: f32,
    /// Decay of the first moment (AdamW).
    pub beta1: f32,
    /// Decay of the second moment (AdamW).
    pub beta2: f32,
    /// Added to the root of the second moment (AdamW).
    pub epsilon: f32,
    /// Share of the last update that is kept (SGD, Muon).
    pub momentum: f32,
    /// Decoupled weight decay per unit of learning rate (AdamW), or L2 penalty (SGD).
    pub weight_decay: f32,
    /// Roles that decay.
    pub decay: Vec<Role>,
    /// Largest global norm of the gradient; 0 for no limit.
    pub clip_norm: f32,
    /// Share of the target probability spread over all classes.
    pub label_smoothing: f32,
    /// Probability with which a token is left out of its sequence; only for one target per sequence.
    pub token_dropout: f32,
    /// How images are changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub augment: Option<Augment>,
    /// Roles whose parameters stay as they are; for a run that begins from a model.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub freeze: Vec<Role>,
    /// Low-rank updates in place of changes to body matrices; for a run that begins from a model. Tables, norms and biases
    /// stay as they are, what the model lacks (a new head) is trained in full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<Lora>,
    /// Straight-through quantization; none trains in full precision.
    pub qat: Option<Qat>,
    /// Share of the updates at the beginning that train in full precision; `qat` begins after them, with the moments there are.
    #[serde(skip_serializing_if = "is_zero")]
    pub float_fraction: f32,
    /// Precision of matrix products.
    #[serde(skip_serializing_if = "Precision::is_default")]
    pub precision: Precision,
    /// Pruning of body matrices by magnitude.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prune: Option<Prune>,
    /// What is learnt from a teacher; for a run that has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distill: Option<Distill>,
    /// Whether blocks of the network keep their input alone and run again in the backward pass (activation checkpointing): less
    /// memory, about a third more time, the same weights.
    pub gradient_checkpointing: bool,
    /// Seed of initialisation, order and dropout.
    pub seed: u64,
    /// Updates between checkpoints; 0 for one at the end only.
    pub save_every: u64,
    /// Updates between evaluations; 0 for none.
    pub evaluate_every: u64,
}

/// Largest number of sequences in a batch, and of batches in an update.
const MAX_COUNT: usize = 1 << 20;

/// Fields that a resumed run may change.
pub(crate) const FREE_FIELDS: &[&str] = &["save_every", "evaluate_every", "gradient_checkpointing"];

impl Default for TrainConfig {
    fn default() -> Self {
        TrainConfig {
            steps: None,
            epochs: None,
            batch_size: 32,
            accumulation: 1,
            optimizer: Optimizer::default(),
            learning_rate: 1e-3,
            schedule: Schedule::default(),
            warmup_steps: 0,
            decay_fraction: 0.2,
            beta1: 0.9,
            beta2: 0.98,
            epsilon: 1e-8,
            momentum: 0.9,
            weight_decay: 0.0,
            decay: vec![Role::Body, Role::Head],
            clip_norm: 1.0,
            label_smoothing: 0.0,
            token_dropout: 0.0,
            augment: None,
            freeze: Vec::new(),
            lora: None,
            qat: None,
            float_fraction: 0.0,
            precision: Precision::default(),
            prune: None,
            distill: None,
            gradient_checkpointing: false,
            seed: 0,
            save_every: 0,
            evaluate_every: 0,
        }
    }
}

/// Whether a field is left out where it is written.
pub(crate) fn is_zero(value: &f32) -> bool {
    *value == 0.0
}

/// A field of the configuration is out of range.
pub(crate) fn out_of_range(field: &str, value: impl std::fmt::Display, allowed: &str) -> Error {
    Error::usage(format!("train: `{field}` is {value}; it must be {allowed}"))
}

impl TrainConfig {
    /// Sequences per update.
    pub fn sequences_per_step(&self) -> usize {
        self.batch_size * self.accumulation
    }

    /// Updates for a data set of `len` sequences.
    pub fn total_steps(&self, len: usize) -> u64 {
        let by_epochs = |epochs: f64| (epochs * len as f64 / self.sequences_per_step() as f64).ceil().max(1.0) as u64;
        self.steps.or(self.epochs.map(by_epochs)).unwrap_or(0)
    }

    /// The same for a data set of `len` sequences with a warm-up that fits: one that is longer than the run becomes a tenth
    /// of it.
    pub fn fitted(&self, len: usize) -> Self {
        let steps = self.total_steps(len);
        let warmup_steps = if self.warmup_steps > steps { steps / 10 } else { self.warmup_steps };
        TrainConfig { warmup_steps, ..self.clone() }
    }

    /// The learning rate of an update, counted from 0.
    pub fn rate(&self, step: u64, steps: u64) -> f32 {
        if step < self.warmup_steps {
            return self.learning_rate * ((step + 1) as f64 / self.warmup_steps as f64) as f32;
        }
        let progress = (step - self.warmup_steps) as f64 / (steps.saturating_sub(self.warmup_steps)).max(1) as f64;
        let factor = match self.schedule {
            Schedule::Constant => 1.0,
            Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
            Schedule::Linear => 1.0 - progress,
            Schedule::Wsd => {
                let left = steps.saturating_sub(step) as f64 / (f64::from(self.decay_fraction) * steps as f64).max(1.0);
                left.min(1.0)
            }
        };
        (self.learning_rate as f64 * factor) as f32
    }

    /// Whether a run with these settings may go on from `done` updates made with others, on `len` sequences: they differ in the length
    /// and the shape of the schedule alone, and each of those updates would have been the same.
    pub(crate) fn continues(&self, before: &TrainConfig, done: u64, len: usize) -> bool {
        let same = TrainConfig {
            steps: self.steps,
            epochs: self.epochs,
            schedule: self.schedule,
            decay_fraction: self.decay_fraction,
            float_fraction: self.float_fraction,
            save_every: self.save_every,
            evaluate_every: self.evaluate_every,
            gradient_checkpointing: self.gradient_checkpointing,
            ..before.clone()
        };
        let [own, theirs] = [self, before].map(|config| config.total_steps(len));
        let alike = |step| {
            self.rate(step, own) == before.rate(step, theirs) && self.qat_of(step, own) == before.qat_of(step, theirs)
        };
        *self == same && (0..done).all(alike)
    }

    /// Straight-through quantization of an update, counted from 0.
    pub(crate) fn qat_of(&self, step: u64, steps: u64) -> Option<Qat> {
        self.qat.filter(|_| step as f64 >= (f64::from(self.float_fraction) * steps as f64).round())
    }

    /// Checks every field, for a data set of `len` sequences.
    ///
    /// # Errors
    /// Of kind usage, naming field, value and what is allowed.
    pub fn validate(&self, len: usize) -> Result<(), Error> {
        for (field, value) in [("batch_size", self.batch_size), ("accumulation", self.accumulation)] {
            if !(1..=MAX_COUNT).contains(&value) {
                return Err(out_of_range(field, value, &format!("at least 1, at most {MAX_COUNT}")));
            }
        }
        match (self.steps, self.epochs) {
            (None, None) => return Err(out_of_range("steps", "missing", "given (or `epochs`)")),
            (Some(_), Some(_)) => return Err(out_of_range("epochs", "given beside `steps`", "one of the two")),
            (Some(0), None) => return Err(out_of_range("steps", 0, "at least 1")),
            (None, Some(e)) if !(e > 0.0 && e <= 1e6) => return Err(out_of_range("epochs", e, "above 0, at most 1e6")),
            _ => {}
        }
        let steps = self.total_steps(len);
        if self.warmup_steps > steps {
            let allowed = format!("at most the number of steps, {steps}");
            return Err(out_of_range("warmup_steps", self.warmup_steps, &allowed));
        }
        if !(self.learning_rate > 0.0 && self.learning_rate < 1e3) {
            return Err(out_of_range("learning_rate", self.learning_rate, "above 0 and below 1000"));
        }
        let fractions = [
            ("beta1", self.beta1),
            ("beta2", self.beta2),
            ("momentum", self.momentum),
            ("label_smoothing", self.label_smoothing),
            ("token_dropout", self.token_dropout),
            ("float_fraction", self.float_fraction),
        ];
        for (field, value) in fractions {
            if !(0.0..1.0).contains(&value) {
                return Err(out_of_range(field, value, "at least 0 and below 1"));
            }
        }
        if !(self.decay_fraction > 0.0 && self.decay_fraction <= 1.0) {
            return Err(out_of_range("decay_fraction", self.decay_fraction, "above 0, at most 1"));
        }
        if self.float_fraction > 0.0 && self.qat.is_none() {
            return Err(Error::usage("train: `float_fraction` is for runs with `qat`: leave it out"));
        }
        if !(self.epsilon > 0.0 && self.epsilon <= 1.0) {
            return Err(out_of_range("epsilon", self.epsilon, "above 0, at most 1"));
        }
        for (field, value) in [("weight_decay", self.weight_decay), ("clip_norm", self.clip_norm)] {
            if !(0.0..1e6).contains(&value) {
                return Err(out_of_range(field, value, "at least 0 and below 1e6"));
            }
        }
        if let Some(prune) = &self.prune {
            prune.validate(steps)?;
            if self.lora.is_some() || self.freeze.contains(&Role::Body) {
                let text =
                    "train: `prune` changes body matrices, which `lora` and `freeze` keep: leave one of them out";
                return Err(Error::usage(text));
            }
        }
        self.distill.as_ref().map_or(Ok(()), Distill::validate)?;
        self.qat.as_ref().map_or(Ok(()), Qat::validate)?;
        self.lora.as_ref().map_or(Ok(()), |lora| lora.validate(self.qat.is_some()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn good() -> TrainConfig {
        TrainConfig { steps: Some(100), ..TrainConfig::default() }
    }

    #[test]
    fn every_bad_value_names_its_field() {
        type Change = fn(&mut TrainConfig);
        let cases: &[(&str, Change)] = &[
            ("learning_rate", |c| c.learning_rate = 0.0),
            ("learning_rate", |c| c.learning_rate = -1.0),
            ("learning_rate", |c| c.learning_rate = f32::NAN),
            ("learning_rate", |c| c.learning_rate = 1e10),
            ("batch_size", |c| c.batch_size = 0),
            ("accumulation", |c| c.accumulation = 0),
            ("steps", |c| c.steps = Some(0)),
            ("steps", |c| c.steps = None),
            ("epochs", |c| c.epochs = Some(1.0)),
            ("epochs", |c| (c.steps, c.epochs) = (None, Some(f64::NAN))),
            ("warmup_steps", |c| c.warmup_steps = 101),
            ("beta1", |c| c.beta1 = 1.0),
            ("beta2", |c| c.beta2 = -0.1),
            ("momentum", |c| c.momentum = f32::INFINITY),
            ("label_smoothing", |c| c.label_smoothing = 1.0),
            ("token_dropout", |c| c.token_dropout = 1.5),
            ("epsilon", |c| c.epsilon = 0.0),
            ("weight_decay", |c| c.weight_decay = -1.0),
            ("clip_norm", |c| c.clip_norm = f32::NAN),
        ];
        assert!(good().validate(10).is_ok());
        for (field, change) in cases {
            let mut config = good();
            change(&mut config);
            let error = config.validate(10).unwrap_err();
            assert_eq!(error.kind, Kind::Usage);
            assert!(error.message.contains(&format!("`{field}`")), "{error}");
        }
    }

    #[test]
    fn unknown_fields_are_refused() {
        let error = serde_json::from_str::<TrainConfig>(r#"{"steps": 1, "lr": 0.1}"#).unwrap_err();
        assert!(error.to_string().contains("`lr`"), "{error}");
    }

    #[test]
    fn schedules_warm_up_and_come_down() {
        let mut config = TrainConfig { warmup_steps: 10, learning_rate: 2.0, ..good() };
        for (schedule, middle, last) in [
            (Schedule::Constant, 2.0, 2.0),
            (Schedule::Cosine, 1.0, 1.0 + (std::f64::consts::PI * 89.0 / 90.0).cos()),
            (Schedule::Linear, 1.0, 2.0 / 90.0),
        ] {
            config.schedule = schedule;
            let rate = |step| config.rate(step, 100) as f64;
            let close = |a: f64, b: f64| (a - b).abs() < 1e-6;
            assert!(close(rate(0), 0.2) && close(rate(9), 2.0) && close(rate(10), 2.0), "{schedule:?}");
            assert!(close(rate(55), middle) && close(rate(99), last), "{schedule:?} {} {}", rate(55), rate(99));
        }
    }

    #[test]
    fn a_run_may_become_longer_or_shorter_while_its_rate_stays() {
        let before = TrainConfig {
            warmup_steps: 10,
            schedule: Schedule::Wsd,
            decay_fraction: 0.2,
            qat: Some(Qat::default()),
            float_fraction: 0.3,
            ..good()
        };
        let longer = TrainConfig { steps: Some(150), float_fraction: 0.2, save_every: 7, ..before.clone() };
        // 30 float updates in both; the rate of the shorter run goes down from update 80 on.
        assert!(longer.continues(&before, 80, 9) && !longer.continues(&before, 82, 9));
        let late = TrainConfig { float_fraction: 0.3, ..longer.clone() };
        assert!(late.continues(&before, 30, 9) && !late.continues(&before, 31, 9), "45 float updates");
        let shorter = TrainConfig { steps: Some(50), float_fraction: 0.6, ..before.clone() };
        assert!(shorter.continues(&before, 40, 9) && !shorter.continues(&before, 42, 9));
        assert!(!TrainConfig { seed: 1, ..longer.clone() }.continues(&before, 0, 9));
        let cosine = TrainConfig { schedule: Schedule::Cosine, ..before.clone() };
        assert!(!TrainConfig { steps: Some(150), ..cosine.clone() }.continues(&cosine, 20, 9));
    }

    #[test]
    fn a_warm_up_longer_than_the_run_becomes_a_tenth_of_it() {
        for (steps, warmup, fitted) in [(3, 60, 0), (30, 60, 3), (60, 60, 60), (61, 60, 60)] {
            let config = TrainConfig { steps: Some(steps), warmup_steps: warmup, ..TrainConfig::default() };
            assert_eq!(config.fitted(10).warmup_steps, fitted);
            assert!(config.fitted(10).validate(10).is_ok());
        }
    }

    #[test]
    fn epochs_become_steps() {
        let config = TrainConfig { epochs: Some(2.0), batch_size: 3, accumulation: 2, ..TrainConfig::default() };
        assert_eq!(config.total_steps(10), 4);
    }
}
