//! Numbers as text: one function per kind, so that a value looks the same in every table, sentence and plot.

use crate::record::Measure;

/// Minus sign of printed numbers.
const MINUS: char = '\u{2212}';

/// `value` with `decimals` digits after the point; never a negative zero.
pub(crate) fn fixed(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let zero = text.bytes().all(|b| b == b'0' || b == b'.');
    if value < 0.0 && !zero { format!("{MINUS}{text}") } else { text }
}

/// Like [`fixed`] with an explicit plus for positive values.
pub(crate) fn signed(value: f64, decimals: usize) -> String {
    let text = fixed(value, decimals);
    let zero = text.bytes().all(|b| b == b'0' || b == b'.');
    if value > 0.0 && !zero { format!("+{text}") } else { text }
}

/// A whole number with a comma every three digits.
pub(crate) fn count(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return digits;
    }
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    if value < 0.0 && digits != "0" { format!("{MINUS}{out}") } else { out }
}

/// A fraction as a percentage with two decimals.
pub(crate) fn percent(fraction: f64) -> String {
    format!("{} %", fixed(fraction * 100.0, 2))
}

/// A signed change as a percentage: two decimals below ten percent, one below a hundred, none above.
pub(crate) fn signed_percent(fraction: f64) -> String {
    let decimals = match fraction.abs() {
        a if a < 0.09995 => 2,
        a if a < 0.9995 => 1,
        _ => 0,
    };
    format!("{} %", signed(fraction * 100.0, decimals))
}

/// A difference of fractions in percentage points, signed, without the unit.
pub(crate) fn points(fraction: f64) -> String {
    signed(fraction * 100.0, 2)
}

/// A ratio: two decimals below ten, one above.
pub(crate) fn times(ratio: f64) -> String {
    format!("{}\u{d7}", fixed(ratio, if ratio.abs() < 9.995 { 2 } else { 1 }))
}

/// A p-value: three decimals, or the bound below which it lies.
pub(crate) fn p_value(p: f64) -> String {
    if p < 0.001 { "p < 0.001".into() } else { format!("p = {}", fixed(p, 3)) }
}

/// The range of a measure as a message quotes it.
pub(crate) fn range(m: &Measure) -> String {
    match (m.lo, m.hi) {
        (Some(lo), Some(hi)) => format!("{lo} to {hi}"),
        (Some(lo), None) => format!("{lo} and up"),
        (None, Some(hi)) => format!("up to {hi}"),
        (None, None) => "none".into(),
    }
}

/// About three significant digits, for values of unknown size.
pub(crate) fn plain(value: f64) -> String {
    if value == value.trunc() && value.abs() < 1e15 {
        return count(value);
    }
    let decimals = match value.abs() {
        a if a >= 1e6 => return count(value),
        a if a >= 100.0 => 0,
        a if a >= 10.0 => 1,
        a if a >= 1.0 => 2,
        a if a >= 0.1 => 3,
        a if a >= 1e-3 => 5,
        a if a.is_finite() => return format!("{value:.2e}").replace('-', "\u{2212}"),
        _ => 2,
    };
    fixed(value, decimals)
}

/// A unit shared by a whole column, so that its values can be compared by eye.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scale {
    /// Symbol printed after the number.
    pub(crate) unit: &'static str,
    factor: f64,
    decimals: usize,
}

/// Decimal byte units: 1 MB is a million bytes.
const BYTES: &[(&str, f64)] = &[("B", 1.0), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12)];
/// Time units below one second, then seconds.
const SECONDS: &[(&str, f64)] = &[("ns", 1e-9), ("\u{b5}s", 1e-6), ("ms", 1e-3), ("s", 1.0)];
/// Energy units.
const JOULES: &[(&str, f64)] = &[("nJ", 1e-9), ("\u{b5}J", 1e-6), ("mJ", 1e-3), ("J", 1.0), ("kJ", 1e3)];

impl Scale {
    /// Unit for a column of byte counts.
    pub(crate) fn bytes(values: impl IntoIterator<Item = f64>) -> Self {
        Self::pick(BYTES, values)
    }

    /// Unit for a column of times in seconds.
    pub(crate) fn seconds(values: impl IntoIterator<Item = f64>) -> Self {
        Self::pick(SECONDS, values)
    }

    /// Unit for a column of energies in joules.
    pub(crate) fn joules(values: impl IntoIterator<Item = f64>) -> Self {
        Self::pick(JOULES, values)
    }

    /// The largest unit that keeps the largest value at one or more, with three digits for the smallest value.
    fn pick(units: &[(&'static str, f64)], values: impl IntoIterator<Item = f64>) -> Self {
        let (mut min, mut max) = (f64::INFINITY, 0.0f64);
        for v in values.into_iter().filter(|v| v.is_finite() && *v > 0.0) {
            min = min.min(v);
            max = max.max(v);
        }
        let (unit, factor) = units.iter().rev().find(|u| max >= u.1).copied().unwrap_or(units[0]);
        let whole = factor == 1.0 && unit == "B";
        let decimals =
            if whole || !min.is_finite() { 0 } else { (2.0 - (min / factor).log10().floor()).clamp(0.0, 3.0) as usize };
        Scale { unit, factor, decimals }
    }

    /// The value in this unit, with the symbol.
    pub(crate) fn text(&self, value: f64) -> String {
        format!("{} {}", self.number(value), self.unit)
    }

    /// A round value in this unit, with the symbol.
    pub(crate) fn whole(&self, value: f64) -> String {
        format!("{} {}", plain(value / self.factor), self.unit)
    }

    /// The value in this unit, without the symbol.
    pub(crate) fn number(&self, value: f64) -> String {
        let scaled = value / self.factor;
        if self.decimals == 0 { count(scaled) } else { fixed(scaled, self.decimals) }
    }
}

/// Every numeral in `text`, as printed: digits with inner commas and points.
pub(crate) fn numerals(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let (mut out, mut i) = (Vec::new(), 0);
    while i < chars.len() {
        if !chars[i].is_ascii_digit() {
            i += 1;
            continue;
        }
        let start = i;
        let inner = |i: usize| matches!(chars[i], '.' | ',') && chars.get(i + 1).is_some_and(char::is_ascii_digit);
        while i < chars.len() && (chars[i].is_ascii_digit() || inner(i)) {
            i += 1;
        }
        out.push(chars[start..i].iter().collect());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rounded_zero_has_no_sign() {
        for text in [fixed(-0.0004, 2), signed(-0.0004, 2), signed(0.0004, 2), points(-0.00002)] {
            assert_eq!(text, "0.00");
        }
        assert_eq!(count(-0.3), "0");
    }

    #[test]
    fn signs_groups_and_units() {
        assert_eq!(points(-0.0013), "\u{2212}0.13");
        assert_eq!(points(0.0008), "+0.08");
        assert_eq!(count(1_234_567.0), "1,234,567");
        assert_eq!(count(123.0), "123");
        assert_eq!(percent(0.94625), "94.62 %");
        assert_eq!(times(3.94), "3.94\u{d7}");
        assert_eq!(times(9.996), "10.0\u{d7}");
        assert_eq!(p_value(0.0004), "p < 0.001");
        assert_eq!(plain(0.25), "0.250");
    }

    #[test]
    fn a_scale_fits_its_column() {
        let bytes = Scale::bytes([5_200_000.0, 340_000.0]);
        assert_eq!((bytes.text(5_200_000.0), bytes.number(340_000.0)), ("5.200 MB".into(), "0.340".into()));
        let time = Scale::seconds([0.00123, 0.000456]);
        assert_eq!(time.text(0.000456), "0.456 ms");
        assert_eq!(Scale::bytes([]).text(0.0), "0 B");
        assert_eq!(Scale::bytes([700.0]).text(700.0), "700 B");
    }

    #[test]
    fn numerals_keep_their_separators() {
        assert_eq!(numerals("1,024 rows, 3.9\u{d7}, p = 0.04."), ["1,024", "3.9", "0.04"]);
        assert!(numerals("no number").is_empty());
    }
}
