//! Faithfulness: how far a model's answers are from those of a reference, whatever is right.
//!
//! The quantities are those of `llama-perplexity --kl-divergence` of llama.cpp (tools/perplexity/perplexity.cpp): the
//! Kullback-Leibler divergence of the model's distribution from the reference's, how often both have the same top answer, and
//! the root mean square difference of a probability.

use crate::Error;
use crate::record::{Measure, Record};
use crate::stats::{self, wilson};
use lowbit_model::predict::best;
use std::collections::BTreeMap;

/// Names of the measures.
pub static METRICS: &[&str] = &[KL, KL_P999, KL_MAX, SAME_TOP, RMS, RMS_TOP];
/// Mean divergence, nats; also the name of the divergences of single rows in a record.
pub const KL: &str = "kl_divergence";
/// Divergence that 99.9 % of the answers stay below.
pub const KL_P999: &str = "kl_divergence_p999";
/// Widest divergence.
pub const KL_MAX: &str = "kl_divergence_max";
/// Share of answers with the same top one.
pub const SAME_TOP: &str = "same_top";
/// Root mean square difference of the probability of the right answer; also the name of the differences in a record.
pub const RMS: &str = "rms_probability_difference";
/// The same of the answer that the reference has at the top.
pub const RMS_TOP: &str = "rms_top_probability_difference";

/// Rows up to which a record keeps what each contributes.
const KEPT_ROWS: usize = 1 << 11;

/// What answers, one after the other, differ by.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faithfulness {
    /// Divergences, nats.
    divergences: Vec<f64>,
    /// Differences of the probability of the right answer.
    right: Vec<f64>,
    /// Differences of the probability of the reference's top answer.
    top: Vec<f64>,
    /// Answers with the same top one.
    same: u64,
}

impl Faithfulness {
    /// Bytes that each answer takes.
    pub(crate) const BYTES: usize = 3 * size_of::<f64>();

    /// Adds an answer: logits of the reference and of the model, `[classes]`, and the class that is right.
    pub fn add(&mut self, reference: &[f32], own: &[f32], right: usize) {
        let (theirs, mine) = (Distribution::of(reference), Distribution::of(own));
        let top = best(reference);
        self.same += u64::from(best(own) == top);
        self.divergences.push(theirs.divergence(&mine));
        self.right.push(mine.probability(right) - theirs.probability(right));
        self.top.push(mine.probability(top) - theirs.probability(top));
    }

    /// Of rows: logits of the reference and of the model, `[rows, classes]`, with the classes that are right.
    ///
    /// # Errors
    /// When the two answered different rows or classes, or a divergence is not finite.
    pub fn of_rows(reference: &[f32], own: &[f32], truths: &[u16], classes: usize) -> Result<Self, Error> {
        if reference.len() != own.len() || own.len() != truths.len() * classes {
            let (n, m) = (reference.len(), own.len());
            let message = format!("{m} logits and {n} of the reference for {} rows of {classes} classes", truths.len());
            return Err(Error::usage(message));
        }
        let mut all = Faithfulness::default();
        let rows = reference.chunks_exact(classes.max(1)).zip(own.chunks_exact(classes.max(1)));
        rows.zip(truths).for_each(|((reference, own), truth)| all.add(reference, own, usize::from(*truth)));
        // What a record keeps of a row is what its measures are computed from.
        let vectors = [&mut all.divergences, &mut all.right, &mut all.top];
        vectors.into_iter().flatten().for_each(|value| *value = rounded(*value));
        all.check()?;
        Ok(all)
    }

    /// From what a record keeps of rows, with how many of them have the same top answer; none where it keeps nothing.
    pub fn of_samples(samples: &BTreeMap<String, Vec<f64>>, same: u64) -> Option<Self> {
        let of = |name: &str| samples.get(name).cloned();
        let all = Faithfulness { divergences: of(KL)?, right: of(RMS)?, top: of(RMS_TOP)?, same };
        let n = all.divergences.len();
        (n > 0 && all.right.len() == n && all.top.len() == n).then_some(all)
    }

    /// Refuses divergences that are no numbers.
    ///
    /// # Errors
    /// Names the first.
    pub fn check(&self) -> Result<(), Error> {
        match self.divergences.iter().position(|nats| !nats.is_finite()) {
            Some(at) => {
                Err(Error::numeric(format!("the KL divergence of answer {at} from the reference is not finite")))
            }
            None => Ok(()),
        }
    }

    /// The measures of [`METRICS`]; none without answers. Means of `block` answers in a row are one observation of an interval:
    /// 1 for rows that know nothing of one another.
    pub fn measures(&self, block: usize) -> BTreeMap<String, Measure> {
        let n = self.divergences.len() as u64;
        if n == 0 {
            return BTreeMap::new();
        }
        let percentile = stats::percentile(&self.divergences, 99.9).unwrap_or(0.0);
        let most = self.divergences.iter().copied().fold(0.0, f64::max);
        let (lo, hi) = wilson(self.same, n);
        let nats = |value: f64| Measure::measured(value, "nats", n);
        let interval = stats::percentile_interval(&self.divergences, 99.9).filter(|_| block == 1);
        let p999 = match interval {
            Some((lo, hi)) => nats(percentile).between(lo, hi),
            None => nats(percentile),
        };
        let all = [
            (KL, mean(&self.divergences, block, "nats")),
            (KL_P999, p999),
            (KL_MAX, nats(most)),
            (SAME_TOP, Measure::measured(self.same as f64 / n as f64, "fraction", n).between(lo, hi)),
            (RMS, root_mean_square(&self.right, block)),
            (RMS_TOP, root_mean_square(&self.top, block)),
        ];
        all.into_iter().map(|(name, measure)| (name.to_string(), measure)).collect()
    }

    /// Puts the measures of rows into the record of the model, with what each row contributes and the reference's name.
    pub fn describe(self, record: &mut Record, reference: &str) {
        record.measures.extend(self.measures(1));
        record.detail.reference = Some(reference.into());
        if self.divergences.len() <= KEPT_ROWS {
            let kept = [(KL, self.divergences), (RMS, self.right), (RMS_TOP, self.top)];
            record.detail.samples.extend(kept.map(|(name, values)| (name.to_string(), values)));
        }
    }
}

/// A row of logits as a distribution: `ln p(i) = logits(i) - top - ln(sum)`.
struct Distribution<'a> {
    logits: &'a [f32],
    top: f64,
    sum: f64,
}

impl<'a> Distribution<'a> {
    fn of(logits: &'a [f32]) -> Self {
        let top = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let sum = logits.iter().map(|v| (f64::from(*v) - top).exp()).sum();
        Distribution { logits, top, sum }
    }

    /// 0 outside the row.
    fn probability(&self, at: usize) -> f64 {
        self.logits.get(at).map_or(0.0, |v| (f64::from(*v) - self.top).exp() / self.sum)
    }

    /// `sum p (ln p - ln q)` where `self` is p, nats; 0 of equal logits exactly, and never below 0 by rounding.
    fn divergence(&self, other: &Distribution) -> f64 {
        let term = |(a, b): (&f32, &f32)| {
            let (a, b) = (f64::from(*a) - self.top, f64::from(*b) - other.top);
            let p = a.exp();
            if p > 0.0 { p * (a - b) } else { 0.0 }
        };
        let sum: f64 = self.logits.iter().zip(other.logits).map(term).sum();
        let nats = sum / self.sum + (other.sum.ln() - self.sum.ln());
        if nats < 0.0 { 0.0 } else { nats }
    }
}

/// A value with seven significant digits.
fn rounded(value: f64) -> f64 {
    format!("{value:.6e}").parse().unwrap_or(value)
}

/// Half the width of the 95 % interval of a mean whose observations are means of blocks.
fn half_width(values: &[f64], block: usize) -> Option<f64> {
    let means: Vec<f64> = values.chunks_exact(block).filter_map(stats::mean).collect();
    stats::mean_interval(&means).map(|(center, _, hi)| hi - center)
}

fn mean(values: &[f64], block: usize, unit: &str) -> Measure {
    let value = stats::mean(values).unwrap_or(0.0);
    let measure = Measure::measured(value, unit, values.len() as u64);
    match half_width(values, block) {
        Some(half) => measure.between((value - half).max(0.0), value + half),
        None => measure,
    }
}

/// With its interval by the delta method.
fn root_mean_square(values: &[f64], block: usize) -> Measure {
    let squares: Vec<f64> = values.iter().map(|value| value * value).collect();
    let root = stats::mean(&squares).unwrap_or(0.0).sqrt();
    let measure = Measure::measured(root, "fraction", values.len() as u64);
    match half_width(&squares, block) {
        Some(_) if root == 0.0 => measure.between(0.0, 0.0),
        Some(half) => measure.between((root - half / (2.0 * root)).max(0.0), root + half / (2.0 * root)),
        None => measure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Golden {
        classes: usize,
        reference: Vec<f32>,
        own: Vec<f32>,
        truths: Vec<u16>,
        measures: BTreeMap<String, f64>,
        standard_error: f64,
    }

    /// Values of `tools/golden/faithfulness.py`.
    #[test]
    fn as_numpy_and_torch() {
        let cases: Vec<Golden> = serde_json::from_str(include_str!("../tests/golden/faithfulness.json")).unwrap();
        assert!(cases.len() >= 4);
        for case in cases {
            let found = Faithfulness::of_rows(&case.reference, &case.own, &case.truths, case.classes).unwrap();
            let measures = found.measures(1);
            assert_eq!(measures.keys().collect::<Vec<_>>(), case.measures.keys().collect::<Vec<_>>());
            for (name, value) in &case.measures {
                let found = &measures[name];
                assert!((found.value - value).abs() <= 1e-5 * value, "{name} {} {value}", found.value);
                assert_eq!(found.n, case.truths.len() as u64);
                assert!(found.lo.is_none_or(|lo| lo <= found.value) && found.hi.is_none_or(|hi| hi >= found.value));
            }
            let kl = &measures[KL];
            let half = stats::Z95 * case.standard_error;
            assert!((kl.hi.unwrap() - kl.value - half).abs() <= 1e-5 * half, "{kl:?} {half}");
        }
    }

    #[test]
    fn a_model_is_faithful_to_itself_exactly() {
        let logits: Vec<f32> = (0..4000).map(|i| (i as f32 * 0.7).sin() * 9.0).collect();
        let truths: Vec<u16> = (0..800).map(|i| i % 5).collect();
        let same = Faithfulness::of_rows(&logits, &logits, &truths, 5).unwrap().measures(1);
        for (name, measure) in &same {
            let expected = if name == SAME_TOP { 1.0 } else { 0.0 };
            assert_eq!(measure.value, expected, "{name}");
            assert!(name == SAME_TOP || measure.lo.is_none_or(|lo| lo == 0.0) && measure.hi.is_none_or(|hi| hi == 0.0));
        }
    }

    #[test]
    fn impossible_answers_and_wrong_shapes() {
        let never = f32::NEG_INFINITY;
        let both = Faithfulness::of_rows(&[0.0, never, 1.0], &[0.0, never, 1.0], &[0], 3).unwrap();
        assert_eq!(both.measures(1)[KL].value, 0.0);
        let excluded = Faithfulness::of_rows(&[0.0, 0.0, 1.0], &[0.0, never, 1.0], &[0], 3).unwrap_err();
        assert!(excluded.to_string().contains("answer 0"), "{excluded}");
        assert!(Faithfulness::of_rows(&[0.0; 6], &[0.0; 3], &[0], 3).is_err());
        assert!(Faithfulness::default().measures(1).is_empty());
    }

    #[test]
    fn blocks_widen_the_interval_of_answers_that_depend_on_one_another() {
        let mut all = Faithfulness::default();
        (0..2048).for_each(|i| all.add(&[0.0, 1.0], &[0.0, if i / 256 % 2 == 0 { 1.0 } else { 2.0 }], 1));
        let width = |block: usize| all.measures(block)[KL].hi.unwrap() - all.measures(block)[KL].value;
        assert!(width(256) > 10.0 * width(1));
        assert_eq!(all.measures(2048)[KL].lo, None);
    }
}
