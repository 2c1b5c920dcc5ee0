//! What can be trained on this machine in some hours: the rate of each of a few networks is measured, and the bits per byte that the
//! bytes they then see are expected to give are compared.

use crate::Progress;
use crate::language::Language;
use lowbit_base::memory::bytes;
use lowbit_base::{Error, SplitMix64};
use lowbit_kernels::Cpu;
use lowbit_model::parameter_list::ParameterList;
use lowbit_model::{ModelConfig, Tokenizer, recipe};
use lowbit_train::{Control, Job, Observer, StepMetrics, TrainConfig, Windows};
use serde::Serialize;
use std::path::PathBuf;

/// Networks that are weighed: width, layers, heads, feed-forward width; heads have 64 dimensions.
const NETWORKS: &[[i64; 4]] = &[
    [128, 3, 2, 384],
    [192, 4, 3, 512],
    [256, 4, 4, 768],
    [256, 6, 4, 704],
    [384, 6, 6, 1024],
    [512, 7, 8, 1376],
    [768, 10, 12, 2048],
];
/// Updates whose rate is measured, after one that is not.
const UPDATES: u64 = 2;
/// Tokens of such an update, about.
const TOKENS: usize = 2048;
/// Hours at most.
const MOST_HOURS: f64 = 10_000.0;

/// Expected bits per byte of a ternary network of `n` million parameters that saw `d` million different bytes of an encyclopedia:
/// `E + A / n^a + B / d^b`, in the form of arXiv 2203.15556. The constants pass within 0.15 bits of one network that was trained here, 2.56
/// bits for 2.0 and 3.3, and of what others' runs let one expect of 22: 2.10 after 10, 1.43 after 240.
const LAW: [f64; 5] = [0.85, 0.55, 0.35, 1.80, 0.29];

/// One network that was weighed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Candidate {
    /// Width of the network.
    pub hidden_size: i64,
    /// Layers.
    pub num_hidden_layers: i64,
    /// Heads.
    pub num_attention_heads: i64,
    /// Width of the feed-forward part.
    pub intermediate_size: i64,
    /// Parameters.
    pub parameters: u64,
    /// Bytes under the recipe.
    pub bytes: u64,
    /// Tokens trained on per second, measured.
    pub tokens_per_second: f64,
    /// Updates that fit the hours.
    pub steps: u64,
    /// Tokens that they see.
    pub tokens: f64,
    /// Bits per byte that these are expected to give; an estimate.
    pub expected_bits_per_byte: f64,
}

/// Networks for some hours of training, by size.
#[derive(Clone, Debug, Serialize)]
pub struct TrainingPlan {
    /// The hours.
    pub hours: f64,
    /// Threads they are meant for.
    pub threads: usize,
    /// What was weighed.
    pub candidates: Vec<Candidate>,
    /// Index of the one with the fewest expected bits.
    pub best: usize,
}

/// Keeps the rates of updates.
#[derive(Default)]
struct Rates(Vec<f64>);

impl Observer for Rates {
    fn step(&mut self, metrics: &StepMetrics, _: u64) -> Control {
        self.0.push(metrics.tokens_per_second);
        Control::Continue
    }
}

/// A directory that is removed again.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Bits per byte that are expected of so many parameters and bytes.
fn expected(parameters: f64, bytes: f64) -> f64 {
    let [e, a, alpha, b, beta] = LAW;
    (e + a / (parameters / 1e6).powf(alpha) + b / (bytes / 1e6).max(1e-6).powf(beta)).min(8.0)
}

impl TrainingPlan {
    /// Weighs networks for a language model's window and recipe, and settings of training.
    ///
    /// # Errors
    /// Hours out of range, wrong settings, a temporary directory that cannot be written, or a stop that was asked for.
    pub fn of(
        language: (&Language, &TrainConfig),
        hours: f64,
        cpu: &Cpu,
        progress: &mut dyn Progress,
    ) -> Result<Self, Error> {
        if !(hours > 0.0 && hours <= MOST_HOURS) {
            return Err(Error::usage(format!("--plan is {hours}: give hours above 0, at most {MOST_HOURS}")));
        }
        let mut candidates: Vec<Candidate> = Vec::new();
        for network in NETWORKS {
            cpu.stop.check()?;
            let candidate = weigh(language, *network, hours, cpu)?;
            let (size, rate) = (bytes(candidate.bytes), candidate.tokens_per_second);
            progress.note(&format!("{} parameters, {size}: {rate:.0} tokens/s", candidate.parameters));
            let worse = candidates.last().is_some_and(|c| c.expected_bits_per_byte < candidate.expected_bits_per_byte);
            candidates.push(candidate);
            // What is larger still sees less still.
            if worse {
                break;
            }
        }
        let bits = |candidate: &Candidate| candidate.expected_bits_per_byte;
        let best = (0..candidates.len()).min_by(|a, b| bits(&candidates[*a]).total_cmp(&bits(&candidates[*b])));
        Ok(TrainingPlan { hours, threads: cpu.pool.threads(), candidates, best: best.unwrap_or(0) })
    }

    /// For a person: a line per network, and the settings of the best.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{:>24} {:>12} {:>10} {:>10} {:>9} {:>12} {:>14}",
            "width x layers, inner", "parameters", "packed", "tokens/s", "updates", "tokens", "bits per byte"
        )];
        for (i, c) in self.candidates.iter().enumerate() {
            let shape = format!("{} x {}, {}", c.hidden_size, c.num_hidden_layers, c.intermediate_size);
            lines.push(format!(
                "{shape:>24} {:>12} {:>10} {:>10.0} {:>9} {:>12.0} {:>13.2}{}",
                c.parameters,
                bytes(c.bytes),
                c.tokens_per_second,
                c.steps,
                c.tokens,
                c.expected_bits_per_byte,
                if i == self.best { "*" } else { "" }
            ));
        }
        let c = &self.candidates[self.best];
        lines.push(format!(
            "* the fewest expected in {} hours on {} threads: hidden_size = {}, num_hidden_layers = {}, num_attention_heads = {}, \
             num_key_value_heads = {}, head_dim = 64, intermediate_size = {}, steps = {}",
            self.hours,
            self.threads,
            c.hidden_size,
            c.num_hidden_layers,
            c.num_attention_heads,
            c.num_attention_heads,
            c.intermediate_size,
            c.steps
        ));
        lines.push(
            "Rates are measured, on quantized updates; bits per byte are an estimate for an encyclopedia whose bytes are seen once."
                .into(),
        );
        lines
    }
}

/// The dimensions of a network.
fn model_config(language: &Language, [width, layers, heads, inner]: [i64; 4]) -> Result<ModelConfig, Error> {
    let fields = [
        ("hidden_size", width),
        ("num_hidden_layers", layers),
        ("num_attention_heads", heads),
        ("num_key_value_heads", heads),
        ("head_dim", 64),
        ("intermediate_size", inner),
    ];
    let mut sized = language.clone();
    sized.model.extend(fields.map(|(name, value)| (name.to_string(), toml::Value::Integer(value))));
    sized.model_config(&Tokenizer::bytes())
}

fn weigh(
    (language, settings): (&Language, &TrainConfig),
    network: [i64; 4],
    hours: f64,
    cpu: &Cpu,
) -> Result<Candidate, Error> {
    let config = model_config(language, network)?;
    let rate = rate(&config, settings, language.context, cpu)?;
    let parameters = ParameterList::new(&config.config)?;
    let each = (settings.sequences_per_step() * language.context) as f64;
    let steps = (rate * hours * 3600.0 / each).floor().max(1.0) as u64;
    let tokens = steps as f64 * each;
    let [hidden_size, num_hidden_layers, num_attention_heads, intermediate_size] = network;
    Ok(Candidate {
        hidden_size,
        num_hidden_layers,
        num_attention_heads,
        intermediate_size,
        parameters: parameters.count(),
        bytes: parameters.bytes(recipe::find(&language.recipe)?)?,
        tokens_per_second: rate,
        steps,
        tokens,
        expected_bits_per_byte: expected(parameters.count() as f64, tokens),
    })
}

/// Tokens per second of updates of a network, as they are once weights are quantized; the best of a few.
fn rate(model_config: &ModelConfig, settings: &TrainConfig, context: usize, cpu: &Cpu) -> Result<f64, Error> {
    let batch_size = (TOKENS / context).clamp(1, settings.batch_size);
    let mut random = SplitMix64::new(1);
    let sequences = batch_size * (UPDATES as usize + 1);
    let tokens = (0..=sequences * context).map(|_| (random.bits() % 256) as u32).collect();
    let windows = Windows::new(tokens, context)?;
    let config = TrainConfig {
        steps: Some(UPDATES + 1),
        epochs: None,
        batch_size,
        accumulation: 1,
        warmup_steps: 0,
        float_fraction: 0.0,
        distill: None,
        save_every: 0,
        evaluate_every: 0,
        ..settings.clone()
    };
    let scratch = Scratch(std::env::temp_dir().join(format!("lowbit-plan-{}", std::process::id())));
    let _ = std::fs::remove_dir_all(&scratch.0);
    let job = Job {
        model_config,
        tokenizer: None,
        from: None,
        teacher: None,
        data: &windows,
        validation: None,
        config: &config,
    };
    let mut rates = Rates::default();
    lowbit_train::train(&job, &scratch.0, cpu, &mut rates)?;
    Ok(rates.0.into_iter().skip(1).fold(1e-9, f64::max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_law_passes_the_points_it_was_drawn_through() {
        for (parameters, bytes, bits) in [(2.0, 3.3, 2.56), (22.0, 10.0, 2.10), (22.0, 240.0, 1.43)] {
            let found = expected(parameters * 1e6, bytes * 1e6);
            assert!((found - bits).abs() < 0.15, "{parameters} {bytes}: {found}");
        }
        assert_eq!(expected(1e6, 0.0), 8.0);
    }

    #[test]
    fn more_hours_never_ask_for_a_smaller_network() {
        // A machine that does 60 G parameters times tokens per second.
        let best = |hours: f64| {
            let sizes = [0.7e6, 1.9e6, 3.5e6, 5.0e6, 10.8e6, 22.4e6, 68e6];
            let bits = |n: f64| expected(n, 6e10 / n * hours * 3600.0);
            sizes.into_iter().min_by(|a, b| bits(*a).total_cmp(&bits(*b))).unwrap()
        };
        let found = [0.1, 1.0, 10.0, 100.0].map(best);
        assert!(found.is_sorted() && found[0] < found[3], "{found:?}");
    }
}
