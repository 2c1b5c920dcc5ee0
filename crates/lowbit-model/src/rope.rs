//! Rotary positions: the frequencies of the pairs of a head under each kind of scaling, as transformers computes them
//! (`modeling_rope_utils.py`).

use lowbit_kernels::Cpu;
use lowbit_kernels::ops::{self, Frequencies, base_frequencies};
use serde::{Deserialize, Serialize};
use std::f64::consts::TAU;

/// How rotary positions reach beyond the length of training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rope_type", rename_all = "lowercase")]
pub enum RopeScaling {
    /// All frequencies divided (arXiv 2306.15595).
    Linear(Linear),
    /// A base that grows with the length of the sequence (NTK-aware).
    Dynamic(Dynamic),
    /// Low frequencies divided, high ones kept, a ramp over the pairs between (arXiv 2309.00071).
    Yarn(Yarn),
    /// A divisor for each pair, others for sequences longer than those of training (arXiv 2402.13753).
    LongRope(LongRope),
    /// Low frequencies divided, high ones kept, linear in the turns between (Llama 3.1).
    Llama3(Llama3),
}

/// Division of all frequencies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linear {
    /// Divisor.
    pub factor: f64,
}

/// A base that grows with the length of the sequence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dynamic {
    /// How many times the length of training is reached.
    pub factor: f64,
    /// Length of training, tokens; shorter sequences keep the base.
    pub original_max_position_embeddings: f64,
}

/// A ramp over the pairs, from frequencies that are kept to frequencies that are divided.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Yarn {
    /// Divisor of the lowest frequencies.
    pub factor: f64,
    /// Length of training, tokens.
    pub original_max_position_embeddings: f64,
    /// Factor of rotated queries and keys.
    pub attention_factor: f64,
    /// Turns within the length of training above which a frequency is kept.
    pub beta_fast: f64,
    /// Turns below which it is divided in full.
    pub beta_slow: f64,
    /// Whether the ramp begins and ends at whole pairs.
    pub truncate: bool,
}

/// A divisor for each pair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LongRope {
    /// Divisors in sequences up to the length of training, `[head_dim / 2]`.
    pub short_factor: Vec<f64>,
    /// Divisors in longer ones, `[head_dim / 2]`.
    pub long_factor: Vec<f64>,
    /// Length of training, tokens.
    pub original_max_position_embeddings: f64,
    /// Factor of rotated queries and keys.
    pub attention_factor: f64,
}

/// Division by how often a pair turns within the length of training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Llama3 {
    /// Divisor of the lowest frequencies.
    pub factor: f64,
    /// Turns below which the divisor applies in full.
    pub low_freq_factor: f64,
    /// Turns above which it does not apply.
    pub high_freq_factor: f64,
    /// Length of training, tokens.
    pub original_max_position_embeddings: f64,
}

impl Yarn {
    fn scaled(&self, base: &[f64], theta: f64) -> Vec<f64> {
        let head_dim = 2.0 * base.len() as f64;
        // The pair that makes so many turns.
        let pair =
            |turns: f64| head_dim * (self.original_max_position_embeddings / (turns * TAU)).ln() / theta.ln() / 2.0;
        let (low, high) = (pair(self.beta_fast), pair(self.beta_slow));
        let (low, high) = if self.truncate { (low.floor(), high.ceil()) } else { (low, high) };
        let (low, high) = (low.max(0.0), high.min(head_dim - 1.0));
        let width = if low == high { 0.001 } else { high - low };
        let ramp = |(i, f): (usize, &f64)| {
            let divided = ((i as f64 - low) / width).clamp(0.0, 1.0);
            f / self.factor * divided + f * (1.0 - divided)
        };
        base.iter().enumerate().map(ramp).collect()
    }
}

impl Llama3 {
    fn scaled(&self, base: &[f64]) -> Vec<f64> {
        let (low, high) = (self.low_freq_factor, self.high_freq_factor);
        let scaled = |f: &f64| {
            let turns = self.original_max_position_embeddings * f / TAU;
            let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            f * (kept + (1.0 - kept) / self.factor)
        };
        base.iter().map(scaled).collect()
    }
}

impl RopeScaling {
    /// Reads a scaling; one without `rope_type` is Llama 3's, as older directories have it.
    pub(crate) fn read<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Self>, D::Error> {
        let Some(mut value) = Option::<serde_json::Value>::deserialize(from)? else {
            return Ok(None);
        };
        if let Some(map) = value.as_object_mut() {
            map.entry("rope_type").or_insert("llama3".into());
        }
        Self::deserialize(value).map(Some).map_err(serde::de::Error::custom)
    }

    /// What is wrong with the numbers for heads of this width, if anything.
    pub(crate) fn fault(&self, head_dim: usize) -> Option<String> {
        let (mut numbers, pairs) = (Vec::new(), head_dim / 2);
        match self {
            RopeScaling::Linear(s) => numbers.push(s.factor),
            RopeScaling::Dynamic(s) => {
                numbers.extend([s.factor, s.original_max_position_embeddings]);
                if head_dim <= 2 {
                    return Some(format!("is dynamic, which heads of {head_dim} cannot have"));
                }
            }
            RopeScaling::Yarn(s) => numbers.extend([
                s.factor,
                s.original_max_position_embeddings,
                s.attention_factor,
                s.beta_fast,
                s.beta_slow,
            ]),
            RopeScaling::LongRope(s) => {
                for (name, list) in [("short_factor", &s.short_factor), ("long_factor", &s.long_factor)] {
                    if list.len() != pairs {
                        let count = list.len();
                        return Some(format!(
                            "has {count} numbers in `{name}`; heads of {head_dim} have {pairs} pairs"
                        ));
                    }
                    numbers.extend(list);
                }
                numbers.extend([s.original_max_position_embeddings, s.attention_factor]);
            }
            RopeScaling::Llama3(s) => {
                let (low, high) = (s.low_freq_factor, s.high_freq_factor);
                if low >= high {
                    return Some(format!("has a low_freq_factor {low} that is not below the high_freq_factor {high}"));
                }
                numbers.extend([s.factor, low, high, s.original_max_position_embeddings]);
            }
        }
        let wrong = numbers.iter().find(|v| !(v.is_finite() && **v > 0.0));
        wrong.map(|v| format!("holds {v}; it needs positive numbers"))
    }

    /// Whether it leaves positions as they are.
    pub(crate) fn is_idle(&self) -> bool {
        let one = |v: &f64| *v == 1.0;
        match self {
            RopeScaling::Linear(s) => one(&s.factor),
            RopeScaling::Dynamic(_) => false,
            RopeScaling::Yarn(s) => one(&s.factor) && one(&s.attention_factor),
            RopeScaling::LongRope(s) => {
                one(&s.attention_factor) && s.short_factor.iter().chain(&s.long_factor).all(one)
            }
            RopeScaling::Llama3(s) => one(&s.factor),
        }
    }

    /// Tokens that positions reach when training reached `context`.
    pub(crate) fn reach(&self, context: usize) -> usize {
        let reach = match self {
            RopeScaling::Dynamic(s) => s.factor * s.original_max_position_embeddings,
            RopeScaling::Yarn(s) => s.factor * s.original_max_position_embeddings,
            _ => 0.0,
        };
        context.max(reach as usize)
    }

    /// Frequencies of sequences up to the length of training, `[head_dim / 2]`, and the factor of rotated values.
    pub(crate) fn frequencies(&self, theta: f64, head_dim: usize) -> (Vec<f64>, f64) {
        let base = base_frequencies(theta, head_dim);
        match self {
            RopeScaling::Linear(s) => (base.iter().map(|f| f / s.factor).collect(), 1.0),
            RopeScaling::Dynamic(_) => (base, 1.0),
            RopeScaling::Yarn(s) => (s.scaled(&base, theta), s.attention_factor),
            RopeScaling::LongRope(s) => (divided(&base, &s.short_factor), s.attention_factor),
            RopeScaling::Llama3(s) => (s.scaled(&base), 1.0),
        }
    }
}

fn divided(frequencies: &[f64], by: &[f64]) -> Vec<f64> {
    frequencies.iter().zip(by).map(|(f, by)| f / by).collect()
}

/// Rotary positions of heads of one width. Cloning is cheap.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    short: Frequencies,
    /// Those of sequences longer than a number of tokens.
    long: Option<(f64, Long)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Long {
    Fixed(Frequencies),
    Dynamic { theta: f64, head_dim: usize, factor: f64 },
}

impl Rope {
    /// Rotary positions of base `theta` under a scaling, if there is one.
    pub fn new(theta: f32, head_dim: usize, scaling: Option<&RopeScaling>) -> Self {
        let theta = theta as f64;
        let base = || (base_frequencies(theta, head_dim), 1.0);
        let (short, scale) = scaling.map_or_else(base, |scaling| scaling.frequencies(theta, head_dim));
        let long = match scaling {
            Some(RopeScaling::Dynamic(s)) => {
                Some((s.original_max_position_embeddings, Long::Dynamic { theta, head_dim, factor: s.factor }))
            }
            Some(RopeScaling::LongRope(s)) => {
                let frequencies = divided(&base().0, &s.long_factor);
                let frequencies = Frequencies::new(&frequencies, scale as f32);
                Some((s.original_max_position_embeddings, Long::Fixed(frequencies)))
            }
            _ => None,
        };
        Rope { short: Frequencies::new(&short, scale as f32), long }
    }

    /// The frequencies of a sequence of `length` tokens.
    pub fn frequencies(&self, length: usize) -> Frequencies {
        match &self.long {
            Some((beyond, long)) if length as f64 > *beyond => match long {
                Long::Fixed(frequencies) => frequencies.clone(),
                Long::Dynamic { theta, head_dim, factor } => {
                    let (grown, width) = (factor * length as f64 / beyond - (factor - 1.0), *head_dim as f64);
                    let theta = theta * grown.powf(width / (width - 2.0));
                    Frequencies::new(&base_frequencies(theta, *head_dim), 1.0)
                }
            },
            _ => self.short.clone(),
        }
    }

    /// Rotates queries or keys, `[tokens, heads * head_dim]`, of sequences that lie end to end (position of each token, begin
    /// of each sequence and end), or back when `inverse`. `length` tells how long a sequence is or may become.
    pub fn rotate(
        &self,
        cpu: &Cpu,
        x: &mut [f32],
        heads: usize,
        (positions, cu_seqlens): (&[u32], &[usize]),
        length: impl Fn(usize) -> usize,
        inverse: bool,
    ) {
        if self.long.is_none() {
            return ops::rope(cpu, x, heads, &self.short, positions, inverse);
        }
        let width = heads * self.short.head_dim();
        for (i, span) in cu_seqlens.windows(2).enumerate() {
            let (x, positions) = (&mut x[span[0] * width..span[1] * width], &positions[span[0]..span[1]]);
            ops::rope(cpu, x, heads, &self.frequencies(length(i)), positions, inverse);
        }
    }
}
