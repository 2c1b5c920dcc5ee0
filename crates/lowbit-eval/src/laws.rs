//! Arithmetic that must hold between the numbers of a report, for records and for printed text alike.

/// Relative error by which identities of language models may fail to hold.
pub(crate) const IDENTITY: f64 = 0.005;
/// Bytes of a parameter while full training with Adam: value, gradient and two moments in 32 bits.
pub(crate) const TRAINING_BYTES: f64 = 16.0;
/// A threshold says something where some effect is at least so large a share of it.
pub(crate) const VACUOUS: f64 = 0.2;
/// Power that a machine under load can draw, watts.
pub(crate) const WATTS: std::ops::RangeInclusive<f64> = 1.0..=2000.0;
/// Bits of a weight that leave no room for scales.
pub(crate) const NOMINAL_BITS: [f64; 5] = [8.0, 4.0, 2.0, 1.6, 1.58];

/// Equal within `tolerance`, relative to the larger.
pub(crate) fn close(a: f64, b: f64, tolerance: f64) -> bool {
    a == b || (a - b).abs() <= tolerance * a.abs().max(b.abs())
}

/// The right answers that a share of `n` rows would be, where no whole number of them rounds to it.
pub(crate) fn broken_count(share: f64, half: f64, n: f64) -> Option<f64> {
    let right = share * n;
    ((right - right.round()).abs() > half * n * (1.0 + 1e-9)).then_some(right)
}

/// Standard error of a share of `n` rows.
pub(crate) fn standard_error(share: f64, n: f64) -> f64 {
    (share * (1.0 - share).max(0.0) / n.max(1.0)).sqrt()
}

/// How often at least the most probable symbol is right, by the bits per symbol.
pub(crate) fn least_hits(bits: f64) -> f64 {
    (-bits).exp2()
}

/// Bits that each weight takes.
pub(crate) fn bits_per_weight(bytes: f64, weights: f64) -> f64 {
    bytes * 8.0 / weights
}

/// Whether a rate is nothing but a number of examples divided by a time.
pub(crate) fn is_inverse(rate: f64, seconds: f64, examples: f64, tolerance: f64) -> bool {
    close(rate * seconds, examples, tolerance)
}

/// Whether every value is the same multiple of its partner.
pub(crate) fn constant_ratio(pairs: &[(f64, f64)], tolerance: f64) -> Option<f64> {
    let first = pairs.first().map(|(a, b)| a / b)?;
    pairs.iter().all(|(a, b)| close(*a, b * first, tolerance)).then_some(first)
}

/// Whether no effect comes near the threshold that it is held against.
pub(crate) fn is_vacuous(threshold: f64, effect: f64) -> bool {
    effect < threshold * VACUOUS
}

/// Least and most that the mean of `n` values is, of which the least and the most are known.
pub(crate) fn mean_bounds(least: f64, most: f64, n: f64) -> (f64, f64) {
    (((n - 1.0) * least + most) / n, (least + (n - 1.0) * most) / n)
}

/// Bytes read per second where every weight is read for every token.
pub(crate) fn bytes_per_second(tokens_per_second: f64, bytes: f64) -> f64 {
    tokens_per_second * bytes
}

/// Price of a million tokens, by joules per token and price of a kilowatt hour.
pub(crate) fn price_of_million(joules: f64, tariff: f64) -> f64 {
    joules * 1e6 / 3.6e6 * tariff
}

/// Whether one row is at least as good as another in everything and better in something; each pair is (its value, the other's),
/// and whether more is better.
pub(crate) fn dominates(pairs: &[(f64, f64, bool)]) -> bool {
    let gain = |(own, other, more): &(f64, f64, bool)| if *more { own - other } else { other - own };
    !pairs.is_empty() && pairs.iter().all(|p| gain(p) >= 0.0) && pairs.iter().any(|p| gain(p) > 0.0)
}

/// Text that stands for something else.
pub(crate) const PLACEHOLDERS: &[&str] =
    &["NaN", "TODO", "FIXME", "TBD", "[Current Date]", "illustrative", "Lorem ipsum", "placeholder", "{}"];

/// A printed zero with a minus before it.
pub(crate) fn negative_zero(line: &str) -> Option<String> {
    let mut rest = line;
    while let Some(i) = rest.find(['-', '\u{2212}']) {
        let before = rest[..i].chars().next_back();
        let sign = rest[i..].chars().next()?;
        rest = &rest[i + sign.len_utf8()..];
        let number: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        let digits = number.trim_end_matches('.');
        let zero = digits.starts_with('0') && digits.chars().all(|c| c == '0' || c == '.');
        let joined = before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-');
        let word = rest[number.len()..].starts_with(|c: char| c.is_alphanumeric());
        if zero && !joined && !word {
            return Some(format!("{sign}{digits}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_that_cannot_be() {
        assert!(broken_count(0.9187, 0.00005, 872.0).is_some_and(|right| (right - 801.1).abs() < 0.1));
        assert!(broken_count(0.9186, 0.00005, 872.0).is_none());
        assert!(broken_count(0.9462, 0.00005, 7600.0).is_none());
    }

    #[test]
    fn means_lie_between() {
        let (low, high) = mean_bounds(2.55, 5.33, 4.0);
        assert!((low - 3.245).abs() < 1e-9 && (high - 4.635).abs() < 1e-9);
    }

    #[test]
    fn domination_needs_one_gain_and_no_loss() {
        assert!(dominates(&[(94.7, 94.58, true), (127.0, 168.0, false)]));
        assert!(!dominates(&[(94.7, 94.7, true)]));
        assert!(!dominates(&[(94.7, 94.6, true), (9.0, 8.0, false)]));
        assert!((price_of_million(1.75, 0.15) - 0.0729).abs() < 1e-3);
    }
}
