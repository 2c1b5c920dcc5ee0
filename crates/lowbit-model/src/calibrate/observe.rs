//! What each matrix reads: magnitude and mean square of its input features over calibration tokens.

use crate::checkpoint::Options;
use crate::exec::Batch;
use crate::{CpuExec, Error, Model, Param};
use lowbit_kernels::{Cpu, QuantizeOptions};
use std::collections::BTreeMap;
use std::sync::Arc;

/// An input feature with a larger magnitude is an outlier (arXiv 2208.07339, section 3.2).
const OUTLIER: f32 = 6.0;

/// Inputs of one matrix, feature by feature.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InputStats {
    /// Largest magnitudes, `[cols]`; empty where only mean squares are known.
    absmax: Vec<f32>,
    /// Sums of squares, `[cols]`.
    sum_squares: Vec<f64>,
    /// Tokens that were seen.
    tokens: u64,
}

impl InputStats {
    /// Nothing seen yet of so many features.
    pub fn new(cols: usize) -> Self {
        InputStats { absmax: vec![0.0; cols], sum_squares: vec![0.0; cols], tokens: 0 }
    }

    /// Those of so many tokens whose squares add up to `sum_squares`, `[cols]`.
    pub fn of_squares(sum_squares: Vec<f64>, tokens: u64) -> Self {
        InputStats { absmax: Vec::new(), sum_squares, tokens }
    }

    /// Adds tokens, `[tokens, cols]`.
    pub fn record(&mut self, x: &[f32]) {
        for row in x.chunks_exact(self.absmax.len()) {
            for ((peak, sum), x) in self.absmax.iter_mut().zip(&mut self.sum_squares).zip(row) {
                *peak = peak.max(x.abs());
                *sum += f64::from(*x) * f64::from(*x);
            }
            self.tokens += 1;
        }
    }

    /// Tokens that were seen.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Sum of the squares of each feature, `[cols]`.
    pub fn sum_squares(&self) -> &[f64] {
        &self.sum_squares
    }

    /// Mean square of each feature, `[cols]`: how much an error of its weights matters.
    pub fn mean_squares(&self) -> Vec<f32> {
        let tokens = self.tokens.max(1) as f64;
        self.sum_squares.iter().map(|sum| (sum / tokens) as f32).collect()
    }

    /// Features whose magnitude exceeded 6 (arXiv 2208.07339).
    pub fn outliers(&self) -> Vec<u32> {
        let columns = self.absmax.iter().enumerate().filter(|(_, peak)| **peak > OUTLIER);
        columns.map(|(i, _)| i as u32).collect()
    }
}

/// Inputs of the matrices of a network, by their names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    stats: BTreeMap<Arc<str>, InputStats>,
    /// Some inputs of the only matrices that are looked at, `[tokens, cols]`; empty where all are, and no inputs are kept.
    samples: BTreeMap<String, Vec<f32>>,
    /// Inputs that are kept of a pass.
    per_pass: usize,
}

impl Observed {
    /// Looks at these matrices only, and keeps so many of their inputs of each pass.
    pub(super) fn sampling<'a>(names: impl IntoIterator<Item = &'a str>, per_pass: usize) -> Self {
        let samples = names.into_iter().map(|name| (name.to_string(), Vec::new())).collect();
        Observed { stats: BTreeMap::new(), samples, per_pass }
    }

    /// Adds inputs of a matrix, `[tokens, cols]`.
    pub(crate) fn record(&mut self, name: &Arc<str>, cols: usize, x: &[f32]) {
        let some = !self.samples.is_empty();
        match self.samples.get_mut(&**name) {
            Some(sample) => {
                let step = (x.len() / cols).div_ceil(self.per_pass.max(1)).max(1);
                sample.extend(x.chunks_exact(cols).step_by(step).flatten());
            }
            None if some => return,
            None => {}
        }
        if !self.stats.contains_key(name) {
            self.stats.insert(name.clone(), InputStats::new(cols));
        }
        self.stats.get_mut(name).expect("just inserted").record(x);
    }

    /// Enters what is known of a matrix.
    pub(super) fn insert(&mut self, name: &str, stats: InputStats) {
        self.stats.insert(name.into(), stats);
    }

    /// The inputs of a matrix.
    pub fn get(&self, name: &str) -> Option<&InputStats> {
        self.stats.get(name)
    }

    /// The inputs of a matrix that were kept, `[tokens, cols]`.
    pub(super) fn sample(&self, name: &str) -> Option<&[f32]> {
        self.samples.get(name).map(Vec::as_slice)
    }

    /// Every matrix and its inputs.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &InputStats)> {
        self.stats.iter().map(|(name, stats)| (&**name, stats))
    }

    /// How much errors of the weights of each input matter, and which inputs are outliers.
    pub fn options(&self) -> Options {
        let mut options = self.importance();
        for (name, of) in self.outliers() {
            options.entry(name).or_default().outlier_columns = of.outlier_columns;
        }
        options
    }

    /// How much errors of the weights of each input matter.
    pub fn importance(&self) -> Options {
        let of = |stats: &InputStats| QuantizeOptions { importance: Some(stats.mean_squares()), ..Default::default() };
        self.stats.iter().map(|(name, stats)| (name.to_string(), of(stats))).collect()
    }

    /// Outlier features of each matrix: what LLM.int8() must know before it stores the weights.
    pub fn outliers(&self) -> Options {
        let of = |stats: &InputStats| QuantizeOptions { outlier_columns: stats.outliers(), ..Default::default() };
        self.stats.iter().map(|(name, stats)| (name.to_string(), of(stats))).collect()
    }
}

/// Runs batches through a full-precision network and tells what each matrix read.
///
/// # Errors
/// When a batch does not fit the model.
pub fn observe<'a>(
    model: &Model<Param>,
    cpu: Cpu,
    batches: impl IntoIterator<Item = &'a Batch>,
) -> Result<Observed, Error> {
    let mut exec = CpuExec::observing(cpu, Observed::default());
    for batch in batches {
        exec.forward(model, batch)?;
    }
    Ok(exec.observed())
}
