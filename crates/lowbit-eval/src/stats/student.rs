//! Intervals by Student's t distribution.

use super::{mean, standard_deviation};

/// Mean with its 95 % interval by Student's t distribution, `(mean, lo, hi)`; `None` with fewer than two samples.
pub fn t_interval(samples: &[f64]) -> Option<(f64, f64, f64)> {
    let center = mean(samples)?;
    let half = t975(samples.len() as u64 - 1) * standard_deviation(samples)? / (samples.len() as f64).sqrt();
    Some((center, center - half, center + half))
}

/// 97.5 % quantile of Student's t distribution with a whole number of degrees of freedom, at least 1.
fn t975(freedom: u64) -> f64 {
    let (mut lo, mut hi) = (0.0f64, std::f64::consts::FRAC_PI_2);
    for _ in 0..60 {
        let middle = (lo + hi) / 2.0;
        if t_inside(middle, freedom) < 0.95 { lo = middle } else { hi = middle }
    }
    lo.tan() * (freedom as f64).sqrt()
}

/// Probability that Student's t lies between -x and x, for the angle whose tangent is x over the root of the degrees of freedom: a
/// finite series in powers of the cosine (Abramowitz and Stegun 26.7.3 and 26.7.4).
fn t_inside(angle: f64, freedom: u64) -> f64 {
    let (sin, cos2) = (angle.sin(), angle.cos() * angle.cos());
    let odd = freedom % 2 == 1;
    let (mut term, mut sum) = (if odd { angle.cos() } else { 1.0 }, 0.0);
    let mut k = if odd { 1 } else { 0 };
    while k + 2 <= freedom {
        sum += term;
        term *= cos2 * (k + 1) as f64 / (k + 2) as f64;
        k += 2;
    }
    match odd {
        true => std::f64::consts::FRAC_2_PI * (angle + sin * sum),
        false => sin * sum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::tests::{golden, numbers};

    #[test]
    fn quantiles_and_intervals_as_scipy() {
        for case in golden("t975") {
            let (freedom, expected) = (case["freedom"].as_u64().unwrap(), case["quantile"].as_f64().unwrap());
            assert!((t975(freedom) / expected - 1.0).abs() < 1e-9, "{freedom}: {} {expected}", t975(freedom));
        }
        for case in golden("t_interval") {
            let (found, expected) = (t_interval(&numbers(&case["samples"])).unwrap(), numbers(&case["interval"]));
            for (a, b) in [found.0, found.1, found.2].iter().zip(expected) {
                assert!((a - b).abs() < 1e-9, "{found:?}");
            }
        }
        assert_eq!((t_interval(&[]), t_interval(&[1.0])), (None, None));
    }
}
