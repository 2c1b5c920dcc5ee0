//! Bootstraps: intervals from samples drawn again.

use super::{mean, of_sorted};
use lowbit_base::SplitMix64;

/// Percentile bootstrap, 95 %: `statistic` over `resamples` draws with replacement, from the sequence of `seed`.
/// `None` without samples or resamples.
pub fn bootstrap(
    samples: &[f64],
    statistic: impl Fn(&[f64]) -> f64,
    resamples: usize,
    seed: u64,
) -> Option<(f64, f64)> {
    if samples.is_empty() {
        return None;
    }
    let mut rng = SplitMix64::new(seed);
    let mut draw = vec![0.0; samples.len()];
    let values = (0..resamples).map(|_| {
        draw.fill_with(|| samples[rng.below(samples.len() as u64) as usize]);
        statistic(&draw)
    });
    middle(values.collect())
}

/// The range of the middle 95 % of values.
fn middle(mut values: Vec<f64>) -> Option<(f64, f64)> {
    values.sort_by(f64::total_cmp);
    Some((of_sorted(&values, 2.5)?, of_sorted(&values, 97.5)?))
}

/// The same for rows that are counted by kind, by the Poisson bootstrap (Hanley and MacGibbon 2006): every resample draws each count
/// from a Poisson distribution whose mean is the count. `None` without rows or resamples.
pub fn bootstrap_counts(
    counts: &[u64],
    mut statistic: impl FnMut(&[u64]) -> f64,
    resamples: usize,
    seed: u64,
) -> Option<(f64, f64)> {
    if counts.iter().all(|n| *n == 0) {
        return None;
    }
    let mut rng = SplitMix64::new(seed);
    let mut draw = counts.to_vec();
    let values = (0..resamples).map(|_| {
        draw.iter_mut().zip(counts).for_each(|(drawn, n)| *drawn = poisson(*n, &mut rng));
        statistic(&draw)
    });
    middle(values.collect())
}

/// Means from here on are drawn from the normal distribution that a Poisson distribution nears.
const NORMAL_FROM: u64 = 100;

/// A draw from the Poisson distribution.
fn poisson(mean: u64, rng: &mut SplitMix64) -> u64 {
    let mut unit = || 1.0 - rng.unit();
    if mean >= NORMAL_FROM {
        // Box and Muller 1958.
        let score = (-2.0 * unit().ln()).sqrt() * (std::f64::consts::TAU * unit()).cos();
        return (mean as f64 + (mean as f64).sqrt() * score).round().max(0.0) as u64;
    }
    // Knuth: how many uniform numbers are multiplied before the product is below exp(-mean).
    let (limit, mut product, mut n) = ((-(mean as f64)).exp(), unit(), 0);
    while product > limit {
        product *= unit();
        n += 1;
    }
    n
}

/// How a mean difference of paired samples, such as blocks of one text, differs from 0 by the bootstrap: `(mean, lo, hi, p)` with the
/// percentile interval, 95 %, and the two-sided p-value, which is at least 2 / (resamples + 1). `None` without samples.
pub fn paired_bootstrap(differences: &[f64], resamples: usize, seed: u64) -> Option<(f64, f64, f64, f64)> {
    let center = mean(differences)?;
    let mut rng = SplitMix64::new(seed);
    let n = differences.len();
    let draw = |_| (0..n).map(|_| differences[rng.below(n as u64) as usize]).sum::<f64>() / n as f64;
    let values: Vec<f64> = (0..resamples).map(draw).collect();
    let beyond = |side: &dyn Fn(&&f64) -> bool| values.iter().filter(side).count() + 1;
    let least = beyond(&|v| **v <= 0.0).min(beyond(&|v| **v >= 0.0));
    let p = (2.0 * least as f64 / (resamples + 1) as f64).min(1.0);
    let (lo, hi) = middle(values)?;
    Some((center, lo, hi, p))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Confusion;
    use crate::stats::mean_interval;
    use crate::stats::tests::{golden, numbers};

    #[test]
    fn bootstrap_agrees_with_the_normal_interval() {
        let mut rng = SplitMix64::new(3);
        let samples: Vec<f64> = (0..400).map(|_| rng.below(1000) as f64).collect();
        let (lo, hi) = bootstrap(&samples, |x| mean(x).unwrap(), 2000, 5).unwrap();
        let (_, low, high) = mean_interval(&samples).unwrap();
        let width = high - low;
        assert!((lo - low).abs() < 0.1 * width && (hi - high).abs() < 0.1 * width, "{lo}..{hi} {low}..{high}");
        assert_eq!(
            bootstrap(&samples, |x| mean(x).unwrap(), 100, 5),
            bootstrap(&samples, |x| mean(x).unwrap(), 100, 5)
        );
        assert_eq!(bootstrap(&[], |_| 0.0, 10, 1), None);
        assert_eq!(bootstrap(&samples, |_| 0.0, 0, 1), None);
    }

    /// Against rows drawn again, 20,000 times (numpy): both ends within a twentieth of the width.
    #[test]
    fn counts_as_rows_drawn_again() {
        for case in golden("f1_macro") {
            let counts: Vec<Vec<u64>> = serde_json::from_value(case["confusion"].clone()).unwrap();
            let (lo, hi) = Confusion::of_matrix(&counts).unwrap().interval(|c| c.macro_mean(Confusion::f1)).unwrap();
            let expected = numbers(&case["interval"]);
            let width = expected[1] - expected[0];
            let near = (lo - expected[0]).abs() < 0.05 * width && (hi - expected[1]).abs() < 0.05 * width;
            assert!(near, "{lo} to {hi}, {expected:?}");
        }
        assert_eq!(bootstrap_counts(&[0, 0], |_| 0.0, 10, 1), None);
    }

    #[test]
    fn draws_have_the_mean_and_the_variance_of_poisson() {
        let mut rng = SplitMix64::new(2);
        for mean in [0u64, 1, 7, 99, 100, 4000] {
            let draws: Vec<f64> = (0..20_000).map(|_| poisson(mean, &mut rng) as f64).collect();
            let found = super::mean(&draws).unwrap();
            let variance = crate::stats::standard_deviation(&draws).unwrap().powi(2);
            let error = 5.0 * (mean as f64 / 20_000.0).sqrt();
            assert!((found - mean as f64).abs() <= error, "{mean}: {found}");
            assert!((variance - mean as f64).abs() <= 0.06 * mean as f64, "{mean}: {variance}");
        }
    }

    #[test]
    fn paired_differences_as_scipy() {
        for case in golden("paired_bootstrap") {
            let differences = numbers(&case["differences"]);
            let (center, lo, hi, p) = paired_bootstrap(&differences, 2000, 1).unwrap();
            let (expected, width) = (numbers(&case["interval"]), case["width"].as_f64().unwrap());
            assert!((center - case["mean"].as_f64().unwrap()).abs() < 1e-12);
            let near = (lo - expected[0]).abs() < 0.08 * width && (hi - expected[1]).abs() < 0.08 * width;
            assert!(near, "{lo} to {hi}, {expected:?}");
            assert_eq!(p < 0.05, case["excludes_zero"].as_bool().unwrap(), "{p}");
        }
        assert_eq!(paired_bootstrap(&[], 100, 1), None);
        assert_eq!(paired_bootstrap(&[0.0; 9], 100, 1).unwrap().3, 1.0);
    }
}
