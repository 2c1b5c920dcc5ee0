//! What is asked of models whose tokens are bytes alone: how far their confidence can be trusted, and how they continue a text.

use crate::record::Measure;
use crate::{Error, stats};
use lowbit_base::memory::Footprint;
use lowbit_kernels::Cpu;
use lowbit_kernels::ops::CacheKind;
use lowbit_model::engine::{LanguageModel, Logits, Piece};
use lowbit_model::language::Prediction;
use lowbit_model::{Checkpoint, Model, Param, Sequences};
use std::sync::Arc;

/// Values of a byte.
const BYTES: usize = 256;
/// Classes of confidence, of one width.
const BINS: usize = 15;
/// Bytes of the continuations that are scored.
pub(super) const LENGTHS: [usize; 3] = [16, 64, 256];
/// Places that are continued.
const PLACES: usize = 64;
/// Places that are continued together.
const TOGETHER: usize = 32;

/// How often the most probable byte is right, by the probability that it had.
#[derive(Clone, Debug, Default)]
pub(super) struct Calibration {
    /// Of each class: predictions, right ones, and the sum of their probabilities.
    bins: [(u64, u64, f64); BINS],
}

impl Calibration {
    /// Counts a prediction that was made of a row of logits.
    pub(super) fn add(&mut self, logits: &[f32], token: usize, prediction: &Prediction) {
        let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        // The most probable token is so much more probable than the one that came.
        let confidence = (f64::from(top - logits[token]) - prediction.nats).exp();
        let bin = &mut self.bins[((confidence * BINS as f64) as usize).min(BINS - 1)];
        *bin = (bin.0 + 1, bin.1 + u64::from(prediction.top), bin.2 + confidence);
    }

    /// Expected calibration error (arXiv 1706.04599): the mean distance of confidence and accuracy over the classes, each with the
    /// weight of its predictions.
    pub(super) fn measure(&self) -> Option<Measure> {
        let all: u64 = self.bins.iter().map(|bin| bin.0).sum();
        let distance: f64 = self.bins.iter().map(|(_, right, sum)| (*right as f64 - sum).abs()).sum();
        (all > 0).then(|| Measure::measured(distance / all as f64, "fraction", all))
    }
}

/// Likelihood of what follows: minus the log-likelihood of runs of bytes that lie end to end, of each of [`LENGTHS`]. `texts` holds
/// how many predictions each text has.
pub(super) fn runs(predictions: &[Prediction], texts: impl Iterator<Item = usize> + Clone) -> Vec<(String, Measure)> {
    let of_length = |length: usize| {
        let (mut rest, mut nats) = (predictions, Vec::new());
        for count in texts.clone() {
            let (own, others) = rest.split_at(count);
            rest = others;
            nats.extend(own.chunks_exact(length).map(|run| run.iter().map(|p| p.nats).sum::<f64>()));
        }
        let (mean, n) = (stats::mean(&nats)?, nats.len() as u64);
        let measure = Measure::measured(mean, "nats", n);
        let measure = match stats::mean_interval(&nats) {
            Some((_, low, high)) => measure.between(low, high),
            None => measure,
        };
        Some((format!("continuation_nats/{length}"), measure))
    };
    LENGTHS.into_iter().filter_map(of_length).collect()
}

/// How often the bytes that a model writes by itself are those of the text: after half a window of the text it writes the most probable
/// byte, and again after that one. Lengths are those that fit the other half; there are at most [`PLACES`] places, spread evenly, none
/// of which is in the continuation of another.
///
/// # Errors
/// When memory is short, or the model cannot continue a text.
pub(super) fn continued(
    texts: &[Vec<u32>],
    (checkpoint, model): (&Checkpoint, &Arc<Model<Param>>),
    cpu: &Cpu,
    window: usize,
) -> Result<Vec<(String, Measure)>, Error> {
    let half = window / 2;
    let Some(length) = LENGTHS.into_iter().rfind(|length| *length <= half) else { return Ok(Vec::new()) };
    let places = places(texts, half, length);
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let cache = checkpoint.parameters().cache_bytes(CacheKind::F32) * (half + length) as u64;
    let together = places.len().min(TOGETHER);
    Footprint::new("take a smaller --context").and("keys and values", cache * together as u64).check()?;
    let mut sequences = Sequences::new(model.clone(), cpu.clone(), half + length, CacheKind::F32);
    let mut right: Vec<Vec<bool>> = Vec::new();
    for places in places.chunks(TOGETHER) {
        cpu.stop.check()?;
        right.extend(follow(&mut sequences, places, half, length)?);
    }
    Ok(LENGTHS.into_iter().filter(|n| *n <= length).map(|n| accuracy(&right, n)).collect())
}

/// Texts from half a window before a place on.
fn places(texts: &[Vec<u32>], half: usize, length: usize) -> Vec<&[u32]> {
    let runs = |tokens: &Vec<u32>| tokens.len().saturating_sub(half) / length;
    let all: usize = texts.iter().map(runs).sum();
    let count = all.min(PLACES);
    let mut chosen = (0..count).map(|i| (2 * i + 1) * all / (2 * count)).peekable();
    let (mut found, mut first) = (Vec::with_capacity(count), 0);
    for tokens in texts {
        let end = first + runs(tokens);
        while let Some(run) = chosen.next_if(|run| *run < end) {
            found.push(&tokens[(run - first) * length..][..half + length]);
        }
        first = end;
    }
    found
}

/// Of each place, which of the bytes that are written after it are right.
fn follow(model: &mut Sequences, places: &[&[u32]], half: usize, length: usize) -> Result<Vec<Vec<bool>>, Error> {
    let slots: Vec<usize> = places.iter().map(|_| model.open()).collect();
    let mut next: Vec<Vec<u32>> = places.iter().map(|place| place[..half].to_vec()).collect();
    let mut right = vec![Vec::with_capacity(length); places.len()];
    for step in 0..length {
        let pieces = slots.iter().zip(&next).map(|(slot, tokens)| Piece { slot: *slot, tokens, logits: Logits::Last });
        let logits = model.pass(&pieces.collect::<Vec<_>>(), None)?;
        let width = logits.len() / places.len();
        for (place, row) in logits.chunks_exact(width).enumerate() {
            let byte = most_probable(&row[..BYTES]);
            right[place].push(byte == places[place][half + step]);
            next[place] = vec![byte];
        }
    }
    slots.into_iter().for_each(|slot| model.close(slot));
    Ok(right)
}

/// The byte with the largest logit, the first among equals.
pub(super) fn most_probable(logits: &[f32]) -> u32 {
    let better = |best: usize, (byte, logit): (usize, &f32)| if *logit > logits[best] { byte } else { best };
    logits.iter().enumerate().fold(0, better) as u32
}

fn accuracy(right: &[Vec<bool>], length: usize) -> (String, Measure) {
    let share = |right: &Vec<bool>| right[..length].iter().filter(|right| **right).count() as f64 / length as f64;
    let shares: Vec<f64> = right.iter().map(share).collect();
    let mean = stats::mean(&shares).unwrap_or(0.0);
    let measure = Measure::measured(mean, "fraction", (right.len() * length) as u64);
    let measure = match stats::mean_interval(&shares) {
        Some((_, low, high)) => measure.between(low.max(0.0), high.min(1.0)),
        None => measure,
    };
    (format!("continuation_accuracy/{length}"), measure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowbit_model::language::predict;

    #[test]
    fn a_calibration_error_is_the_distance_from_the_accuracy_by_class() {
        let mut calibration = Calibration::default();
        assert!(calibration.measure().is_none());
        // Confidence 3/4 in four predictions of which two are right, and 1/2 in two of which one is.
        let (sure, open) = ([0.0, 3f32.ln()], [0.0f32, 0.0]);
        for (logits, token) in [(sure, 1), (sure, 1), (sure, 0), (sure, 0), (open, 0), (open, 1)] {
            calibration.add(&logits, token, &predict(&logits, token));
        }
        let found = calibration.measure().unwrap();
        assert!((found.value - 4.0 / 6.0 * 0.25).abs() < 1e-7 && found.n == 6, "{found:?}");
    }

    #[test]
    fn runs_do_not_cross_texts() {
        let nats: Vec<Prediction> = (0..40).map(|i| Prediction { nats: f64::from(i), top: false }).collect();
        let found = runs(&nats, [20, 20].into_iter());
        let expected = [(0..16).sum::<i32>(), (20..36).sum::<i32>()].map(f64::from);
        assert_eq!(found.len(), 1, "nothing of 64 bytes");
        assert_eq!(
            (&found[0].0[..], found[0].1.value, found[0].1.n),
            ("continuation_nats/16", (expected[0] + expected[1]) / 2.0, 2)
        );
    }

    #[test]
    fn places_are_spread_and_do_not_meet() {
        let text = |from: u32, len: u32| (from..from + len).collect::<Vec<u32>>();
        let texts = [text(0, 10), text(100, 3), text(200, 26)];
        let found: Vec<u32> = places(&texts, 4, 2).iter().map(|place| place[0]).collect();
        assert_eq!(found, [0, 2, 4, 200, 202, 204, 206, 208, 210, 212, 214, 216, 218, 220]);
        assert!(places(&texts, 4, 2).iter().all(|place| place.len() == 6));
        let long = [text(0, 100_000)];
        let found = places(&long, 256, 256);
        assert_eq!(found.len(), PLACES);
        assert!(found.windows(2).all(|pair| pair[1][0] - pair[0][0] >= 256));
        assert!(places(&[text(0, 5)], 4, 2).is_empty());
    }

    #[test]
    fn the_first_of_equal_bytes_is_taken() {
        assert_eq!(most_probable(&[0.0, 2.0, 2.0, 1.0]), 1);
    }
}
