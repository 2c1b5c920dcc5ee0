//! Intervals, paired tests and order statistics.

mod resample;
mod student;

pub use resample::{bootstrap, bootstrap_counts, paired_bootstrap};
pub use student::t_interval;

/// 97.5 % quantile of the standard normal distribution: the half width of a 95 % interval in standard errors.
pub const Z95: f64 = 1.959963984540054;

/// Fewer discordant pairs than this and [`mcnemar`] is exact; the chi-square approximation serves from here on.
pub const MCNEMAR_EXACT_BELOW: u64 = 25;

/// Wilson score interval, 95 %, of `successes` in `n` trials (Wilson 1927, without continuity correction).
/// Without a trial nothing is known: `(0, 1)`.
pub fn wilson(successes: u64, n: u64) -> (f64, f64) {
    if n == 0 {
        return (0.0, 1.0);
    }
    let (p, n, z2) = (successes as f64 / n as f64, n as f64, Z95 * Z95);
    let center = p + z2 / (2.0 * n);
    let half = Z95 * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z2 / n;
    (((center - half) / scale).clamp(0.0, p), ((center + half) / scale).clamp(p, 1.0))
}

/// Two classifiers on the same rows, counted by who was right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paired {
    /// Rows both answered.
    pub n: u64,
    /// Rows only the first got right.
    pub only_first: u64,
    /// Rows only the second got right.
    pub only_second: u64,
}

impl Paired {
    /// Counts over rows; the three slices are equally long (extra rows of a longer one are ignored).
    pub fn count(truths: &[u16], first: &[u16], second: &[u16]) -> Self {
        let mut paired = Paired::default();
        for ((truth, a), b) in truths.iter().zip(first).zip(second) {
            paired.n += 1;
            paired.only_first += u64::from(a == truth && b != truth);
            paired.only_second += u64::from(a != truth && b == truth);
        }
        paired
    }

    /// Accuracy of the first minus accuracy of the second, in -1..1; 0 without rows.
    pub fn difference(&self) -> f64 {
        if self.n == 0 {
            return 0.0;
        }
        (self.only_first as f64 - self.only_second as f64) / self.n as f64
    }

    /// 95 % interval of [`Paired::difference`] (Agresti and Min 2005: half a row added to each of the four cells), so that
    /// it has a width even when the two agree on every row. Without rows: `(-1, 1)`.
    pub fn interval(&self) -> (f64, f64) {
        if self.n == 0 {
            return (-1.0, 1.0);
        }
        let n = self.n as f64 + 2.0;
        let (b, c) = (self.only_first as f64 + 0.5, self.only_second as f64 + 0.5);
        let center = (b - c) / n;
        let half = Z95 * (b + c - (b - c) * (b - c) / n).sqrt() / n;
        ((center - half).max(-1.0), (center + half).min(1.0))
    }

    /// Two-sided p-value of McNemar's test that both are equally accurate.
    pub fn p_value(&self) -> f64 {
        mcnemar(self.only_first, self.only_second)
    }
}

/// McNemar's test on the discordant counts: exact binomial, two-sided, below [`MCNEMAR_EXACT_BELOW`] pairs, otherwise
/// chi-square with one degree of freedom and continuity correction (`max(|b - c| - 1, 0)^2 / (b + c)`). Returns p.
pub fn mcnemar(b: u64, c: u64) -> f64 {
    let n = b + c;
    if n == 0 {
        return 1.0;
    }
    if n < MCNEMAR_EXACT_BELOW {
        let mut term = 0.5f64.powi(n as i32);
        let mut tail = term;
        for i in 0..b.min(c) {
            term *= (n - i) as f64 / (i + 1) as f64;
            tail += term;
        }
        return (2.0 * tail).min(1.0);
    }
    let excess = b.abs_diff(c).saturating_sub(1) as f64;
    erfc((excess * excess / n as f64 / 2.0).sqrt())
}

/// p-values of several tests, each corrected for there being so many (Holm 1979, step-down): the k-th smallest of m times m - k + 1,
/// at least as large as those before it, at most 1. In the order given.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let (mut out, mut least) = (vec![1.0; p.len()], 0.0f64);
    for (k, &i) in order.iter().enumerate() {
        least = least.max((p.len() - k) as f64 * p[i]).min(1.0);
        out[i] = least;
    }
    out
}

/// Two-sided p-value of a standard normal score.
pub fn two_sided(score: f64) -> f64 {
    erfc(score.abs() / std::f64::consts::SQRT_2)
}

/// Complementary error function for x >= 0, relative error below 1e-12: power series below 2, continued fraction above.
fn erfc(x: f64) -> f64 {
    let density = (-x * x).exp() / std::f64::consts::PI.sqrt();
    if x < 2.0 {
        let (mut term, mut sum, mut k) = (x, x, 0.0);
        while term > sum * 1e-17 {
            k += 1.0;
            term *= 2.0 * x * x / (2.0 * k + 1.0);
            sum += term;
        }
        return 1.0 - 2.0 * density * sum;
    }
    // erfc(x) = exp(-x^2) / sqrt(pi) / (x + (1/2)/(x + (2/2)/(x + (3/2)/(x + ...)))), evaluated from the inside.
    density / (1..=120).rev().fold(x, |tail, k| x + f64::from(k) / 2.0 / tail)
}

/// Arithmetic mean; `None` without samples.
pub fn mean(samples: &[f64]) -> Option<f64> {
    (!samples.is_empty()).then(|| samples.iter().sum::<f64>() / samples.len() as f64)
}

/// Sample standard deviation (n - 1 in the denominator); `None` with fewer than two samples.
pub fn standard_deviation(samples: &[f64]) -> Option<f64> {
    let center = mean(samples)?;
    let squares: f64 = samples.iter().map(|x| (x - center) * (x - center)).sum();
    (samples.len() > 1).then(|| (squares / (samples.len() - 1) as f64).sqrt())
}

/// Coefficient of variation: [`standard_deviation`] / |[`mean`]|; `None` with fewer than two samples or a mean of 0.
pub fn coefficient_of_variation(samples: &[f64]) -> Option<f64> {
    let center = mean(samples)?.abs();
    (center > 0.0).then_some(standard_deviation(samples)? / center)
}

/// Mean with its normal 95 % interval, `(mean, lo, hi)`; `None` with fewer than two samples.
pub fn mean_interval(samples: &[f64]) -> Option<(f64, f64, f64)> {
    let center = mean(samples)?;
    let half = Z95 * standard_deviation(samples)? / (samples.len() as f64).sqrt();
    Some((center, center - half, center + half))
}

/// Percentile `q` in 0..=100 by linear interpolation between the two nearest order statistics (position
/// `q / 100 * (n - 1)`, the default of numpy); `None` without samples or when `q` is outside the range.
pub fn percentile(samples: &[f64], q: f64) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    of_sorted(&sorted, q)
}

/// Interval, 95 %, of percentile `q` from order statistics, by the normal approximation of their binomial ranks; `None` where
/// the samples do not reach beyond it.
pub fn percentile_interval(samples: &[f64], q: f64) -> Option<(f64, f64)> {
    let (n, share) = (samples.len() as f64, q / 100.0);
    let (center, half) = (n * share, Z95 * (n * share * (1.0 - share)).sqrt());
    let (low, high) = ((center - half).floor(), (center + half).ceil() + 1.0); // ranks, from 1
    if low < 1.0 || high > n {
        return None;
    }
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    Some((sorted[low as usize - 1], sorted[high as usize - 1]))
}

/// Median: the 50th [`percentile`].
pub fn median(samples: &[f64]) -> Option<f64> {
    percentile(samples, 50.0)
}

/// Interval of the median from order statistics: 95 %, or the widest that the samples allow; `None` without samples.
pub fn median_interval(samples: &[f64]) -> Option<(f64, f64)> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    let (mut below, mut k) = (0.0f64, 0usize);
    let mut term = 0.5f64.powi(n.min(1000) as i32);
    if n > 1000 {
        k = ((n as f64 - Z95 * (n as f64).sqrt()) / 2.0).floor() as usize;
    } else {
        while k < n / 2 && below + term <= 0.025 {
            below += term;
            term *= (n - k) as f64 / (k + 1) as f64;
            k += 1;
        }
    }
    let low = k.saturating_sub(1);
    (n > 0).then(|| (sorted[low], sorted[n - 1 - low]))
}

fn of_sorted(sorted: &[f64], q: f64) -> Option<f64> {
    if sorted.is_empty() || !(0.0..=100.0).contains(&q) {
        return None;
    }
    let position = q / 100.0 * (sorted.len() - 1) as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    Some(sorted[below] + (position - below as f64) * (sorted[above] - sorted[below]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowbit_base::SplitMix64;

    /// Cases of `tools/golden/noise.py`.
    pub(super) fn golden(name: &str) -> Vec<serde_json::Value> {
        let all: serde_json::Value = serde_json::from_str(include_str!("../tests/golden/noise.json")).unwrap();
        all[name].as_array().unwrap().clone()
    }

    pub(super) fn numbers(list: &serde_json::Value) -> Vec<f64> {
        list.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() <= 1e-12 * a.abs().max(b.abs()), "{a} and {b}");
    }

    #[test]
    fn wilson_as_statsmodels() {
        // statsmodels.stats.proportion.proportion_confint(k, n, method="wilson")
        for (k, n, lo, hi) in [
            (0, 10, 0.0, 0.27753279986288926),
            (10, 10, 0.7224672001371106, 1.0),
            (7, 10, 0.39677814746114537, 0.8922087325936989),
            (6800, 7600, 0.8876366307020496, 0.9014382115988524),
            (1, 1, 0.2065493143772374, 1.0),
            (50, 1000, 0.03813026239274881, 0.06531382024425081),
        ] {
            let (low, high) = wilson(k, n);
            close(low, lo);
            close(high, hi);
        }
        assert_eq!(wilson(0, 0), (0.0, 1.0));
    }

    #[test]
    fn mcnemar_as_statsmodels() {
        // statsmodels.stats.contingency_tables.mcnemar([[0, b], [c, 0]], exact=True).pvalue
        for (b, c, p) in [
            (1, 9, 0.021484375),
            (5, 15, 0.04138946533203125),
            (0, 1, 1.0),
            (3, 3, 1.0),
            (12, 10, 0.8318119049072266),
            (0, 24, 1.1920928955078125e-07),
        ] {
            close(mcnemar(b, c), p);
        }
        // mcnemar([[0, b], [c, 0]], exact=False, correction=True).pvalue
        for (b, c, p) in [
            (10, 20, 0.10034824646229054),
            (121, 59, 5.450094825427117e-06),
            (59, 121, 5.450094825427117e-06),
            (30, 31, 1.0),
            (300, 200, 9.53693139989851e-06),
            (1000, 500, 5.529940251078248e-38),
            (25, 0, 1.5866563039511885e-06),
        ] {
            close(mcnemar(b, c), p);
        }
        assert_eq!(mcnemar(0, 0), 1.0);
        assert_eq!(mcnemar(50, 50), 1.0);
    }

    #[test]
    fn holm_as_statsmodels() {
        for case in golden("holm") {
            let found = holm(&numbers(&case["p"]));
            let expected = numbers(&case["corrected"]);
            assert!(found.len() == expected.len() && !found.is_empty());
            found.iter().zip(expected).for_each(|(a, b)| close(*a, b));
        }
        assert!(holm(&[]).is_empty());
    }

    #[test]
    fn erfc_as_scipy() {
        // scipy.special.erfc(x)
        for (x, y) in [
            (0.0, 1.0),
            (1e-3, 0.9988716212090307),
            (0.5, 0.4795001221869535),
            (1.5, 0.03389485352468927),
            (2.0, 0.004677734981047266),
            (3.0, 2.2090496998585445e-05),
            (7.0, 4.183825607779414e-23),
            (26.0, 5.663192408856145e-296),
        ] {
            close(erfc(x), y);
        }
    }

    #[test]
    fn paired_counts_and_interval() {
        let truths = [0, 1, 1, 0, 2];
        let paired = Paired::count(&truths, &[0, 1, 0, 0, 1], &[0, 0, 1, 1, 0]);
        assert_eq!(paired, Paired { n: 5, only_first: 2, only_second: 1 });
        close(paired.difference(), 0.2);

        let wide = Paired { n: 100, only_first: 20, only_second: 8 };
        let (lo, hi) = wide.interval();
        // d = 12 / 102; 1.959963984540054 * sqrt(29 - 144 / 102) / 102
        close(lo, 12.0 / 102.0 - 0.10092758462069559);
        close(hi, 12.0 / 102.0 + 0.10092758462069559);

        let agree = Paired { n: 7600, only_first: 0, only_second: 0 }.interval();
        assert!(agree.0 < 0.0 && agree.1 > 0.0 && agree.1 < 0.001);
        assert_eq!(Paired::default().interval(), (-1.0, 1.0));
    }

    #[test]
    fn paired_interval_covers() {
        // Discordance of 12 % and 8 %, 300 rows: the interval holds the true 0.04 in about 95 % of 2,000 experiments.
        let mut rng = SplitMix64::new(11);
        let hits = (0..2000)
            .filter(|_| {
                let mut paired = Paired { n: 300, ..Default::default() };
                for _ in 0..300 {
                    match rng.below(100) {
                        0..12 => paired.only_first += 1,
                        12..20 => paired.only_second += 1,
                        _ => {}
                    }
                }
                let (lo, hi) = paired.interval();
                lo <= 0.04 && 0.04 <= hi
            })
            .count();
        assert!((1870..=1930).contains(&hits), "{hits}");
    }

    #[test]
    fn order_statistics_as_numpy() {
        // numpy.percentile([3.1, 1.2, 5.5, 2.2, 9.9, 4.4, 7.3], q)
        let samples = [3.1, 1.2, 5.5, 2.2, 9.9, 4.4, 7.3];
        for (q, value) in [(0.0, 1.2), (25.0, 2.65), (50.0, 4.4), (90.0, 8.34), (99.0, 9.744), (100.0, 9.9)] {
            close(percentile(&samples, q).unwrap(), value);
        }
        assert_eq!(median(&[2.0, 1.0]), Some(1.5));
        // numpy.std(x, ddof=1) / numpy.mean(x)
        close(coefficient_of_variation(&samples).unwrap(), 0.6337352525861021);
        close(standard_deviation(&samples).unwrap(), 3.0419292124132893);
        assert_eq!(percentile(&[], 50.0), None);
        assert_eq!(percentile(&samples, 101.0), None);
        assert_eq!(percentile(&samples, f64::NAN), None);
        assert_eq!(coefficient_of_variation(&[1.0]), None);
        assert_eq!(coefficient_of_variation(&[0.0, 0.0]), None);
        assert_eq!(mean(&[]), None);
    }

    #[test]
    fn median_interval_from_order_statistics() {
        // scipy.stats.binom(n, 0.5).ppf(0.025): order statistics 1 and 6 of 6, 2 and 9 of 10, 40 and 61 of 100
        let up_to = |n: usize| (1..=n).rev().map(|i| i as f64).collect::<Vec<_>>();
        assert_eq!(median_interval(&up_to(6)), Some((1.0, 6.0)));
        assert_eq!(median_interval(&up_to(10)), Some((2.0, 9.0)));
        assert_eq!(median_interval(&up_to(100)), Some((40.0, 61.0)));
        assert_eq!((median_interval(&[3.0]), median_interval(&[])), (Some((3.0, 3.0)), None));
    }
}
