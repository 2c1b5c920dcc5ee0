//! The only way from a record to a printed number: ask a [`What`] of a variant, get a [`Figure`].

use super::compare::{Comparison, VariantRow};
use super::measures::{Style, known, style_of};
use super::number;
use super::seeds::{self, OverSeeds};
use crate::record::How;
use crate::stats::coefficient_of_variation;

/// A quantity a report can print.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum What {
    /// A measure of the record, by name.
    Measure(String),
    /// Lower end of a measure's interval or range.
    Low(&'static str),
    /// Upper end.
    High(&'static str),
    /// Accuracy change in points.
    Points,
    /// Lower end of its interval, in points.
    PointsLow,
    /// Upper end of its interval, in points.
    PointsHigh,
    /// p-value of the paired test.
    P,
    /// The same after Holm's correction.
    Corrected,
    /// A quantity over trainings from several seeds.
    Seeds(OverSeeds),
    /// Change of bits per byte.
    Bits,
    /// Lower end of its interval.
    BitsLow,
    /// Upper end of its interval.
    BitsHigh,
    /// Rows that became right.
    Gained,
    /// Rows that became wrong.
    Lost,
    /// Accuracy change relative to the reference's accuracy.
    Relative,
    /// Change relative to the reference's error rate.
    ErrorRate,
    /// How many times smaller than the reference.
    Smaller,
    /// How many times larger than the reference.
    Larger,
    /// Bits per weight over tensors stored below 16 bits.
    BitsQuantized,
    /// Bits per parameter over everything.
    BitsAll,
    /// Share of parameters stored below 16 bits.
    ShareQuantized,
    /// Share of zeros among them.
    Zeros,
    /// Share of the weight bytes that hold no weight.
    Padding,
    /// Number of parameters.
    Parameters,
    /// How many times faster than the reference.
    Faster,
    /// How many times slower than the reference.
    Slower,
    /// Standard deviation of the raw latencies over their mean.
    Variation,
    /// Number of raw latencies.
    Samples,
    /// Accuracy of answering without looking.
    Chance,
    /// Accuracy of the best possible classifier.
    Ceiling,
    /// The distance a recommended variant may be below the reference, in points.
    Threshold,
    /// Largest accuracy gap to the reference, in points.
    WidestGap,
    /// Confidence level of intervals.
    Level,
    /// Rows that were scored.
    TestRows,
    /// The least loss that the interval of an undecided network leaves open, in points.
    OpenLoss,
    /// A round number of bytes.
    Size(u64),
    /// Weight bytes that a chosen variant has at most.
    LimitBytes,
    /// Median latency that it has at most.
    LimitLatency,
    /// Measured loss that it has at most, in points.
    LimitLoss,
}

/// A number with the query it came from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figure {
    /// What was asked.
    pub(crate) what: What,
    /// Of which variant; empty for facts of the task.
    pub(crate) subject: String,
    /// The answer.
    pub(crate) value: f64,
    /// The answer as printed.
    pub(crate) text: String,
    /// Whether it was estimated or quoted instead of measured.
    pub(crate) mark: Option<&'static str>,
}

impl Comparison<'_> {
    /// The figure for `what` of the variant `name`, or nothing when it is unknown.
    pub(crate) fn ask(&self, name: &str, what: What) -> Option<Figure> {
        let row = self.row(name)?;
        let value = self.value_of(row, &what)?;
        let mark = match &what {
            What::Measure(measure) => row.record.measures.get(measure).and_then(|m| mark(m.how)),
            _ => None,
        };
        Some(Figure { text: self.print(&what, value), what, subject: name.into(), value, mark })
    }

    /// The figure for a fact of the task.
    pub(crate) fn fact(&self, what: What) -> Option<Figure> {
        let value = self.fact_value(&what)?;
        let mark = match (&what, self.facts.and_then(|f| f.ceiling.as_ref())) {
            (What::Ceiling, Some(ceiling)) => mark(ceiling.how),
            _ => None,
        };
        Some(Figure { text: self.print(&what, value), what, subject: String::new(), value, mark })
    }

    /// The figure asked again, from the records.
    pub(crate) fn again(&self, figure: &Figure) -> Option<Figure> {
        if figure.subject.is_empty() {
            self.fact(figure.what.clone())
        } else {
            self.ask(&figure.subject, figure.what.clone())
        }
    }

    fn value_of(&self, row: &VariantRow, what: &What) -> Option<f64> {
        let (change, bits, ledger) = (row.change.as_ref(), row.bits.as_ref(), row.ledger.as_ref());
        let end = |name: &str, high: bool| row.record.measures.get(name).and_then(|m| if high { m.hi } else { m.lo });
        match what {
            What::Measure(name) => row.value(name),
            What::Low(name) => end(name, false),
            What::High(name) => end(name, true),
            What::Points => Some(change?.points),
            What::PointsLow => Some(change?.lo),
            What::PointsHigh => Some(change?.hi),
            What::P => change.map(|change| change.p).or(bits.map(|bits| bits.p)),
            What::Corrected => change.map(|change| change.corrected).or(bits.map(|bits| bits.corrected)),
            What::Seeds(what) => seeds::value(self, row, *what),
            What::Bits => Some(bits?.bits),
            What::BitsLow => Some(bits?.lo),
            What::BitsHigh => Some(bits?.hi),
            What::Gained => Some(change?.rows?.0 as f64),
            What::Lost => Some(change?.rows?.1 as f64),
            What::Relative => change?.relative,
            What::ErrorRate => change?.error_rate,
            What::Smaller => Some(self.reference()?.value("weight_bytes")? / row.value("weight_bytes")?),
            What::Larger => Some(row.value("weight_bytes")? / self.reference()?.value("weight_bytes")?),
            What::BitsQuantized => ledger?.bits_quantized,
            What::BitsAll => {
                Some(row.value("weight_bytes").filter(|_| row.record.params > 0)? * 8.0 / row.record.params as f64)
            }
            What::ShareQuantized => Some(ledger?.share),
            What::Zeros => ledger?.zeros,
            What::Padding => Some(ledger?.padding as f64 / ledger?.bytes as f64),
            What::Parameters => Some(row.record.params as f64).filter(|_| row.network()),
            What::Faster => Some(row.speed?.0),
            What::Slower => Some(1.0 / row.speed?.0),
            What::Variation => coefficient_of_variation(row.record.detail.samples.get("latency")?),
            What::Samples => Some(row.record.detail.samples.get("latency")?.len() as f64),
            _ => None,
        }
    }

    fn fact_value(&self, what: &What) -> Option<f64> {
        match what {
            What::Chance => self.chance,
            What::Ceiling => Some(self.facts?.ceiling.as_ref()?.value),
            What::Threshold => Some(super::compare::WITHIN),
            What::WidestGap => self.widest_gap(),
            What::Level => Some(0.95),
            What::TestRows => Some(super::compare::quality(self.reference()?.record)?.n as f64),
            What::OpenLoss => self.too_few_rows(),
            What::Size(bytes) => Some(*bytes as f64),
            What::LimitBytes => self.facts?.constraints?.weight_bytes,
            What::LimitLatency => self.facts?.constraints?.latency_p50,
            What::LimitLoss => self.facts?.constraints?.loss,
            _ => None,
        }
    }

    fn print(&self, what: &What, value: f64) -> String {
        let measure = |name: &str| {
            let unit = self.rows.iter().find_map(|r| r.record.measures.get(name)).map_or("", |m| m.unit.as_str());
            self.scales.text(name, style_of(name, unit), value)
        };
        match what {
            What::Measure(name) => measure(name),
            What::Low(name) | What::High(name) => match known(name).map(|k| k.style) {
                Some(Style::Percent) => number::fixed(value * 100.0, 2),
                _ => measure(name).split(' ').next().unwrap_or_default().to_string(),
            },
            What::Points | What::PointsLow | What::PointsHigh => number::points(value),
            What::Seeds(OverSeeds::Count) => number::count(value),
            What::Seeds(OverSeeds::Change | OverSeeds::ChangeLow | OverSeeds::ChangeHigh) => match self.quality() {
                Some(_) => number::points(value),
                None => number::signed(value, 4),
            },
            What::Seeds(_) => match self.quality() {
                Some(_) => number::fixed(value * 100.0, 2),
                None => number::fixed(value, 4),
            },
            What::P | What::Corrected => number::p_value(value),
            What::Bits | What::BitsLow | What::BitsHigh => number::signed(value, 4),
            What::Relative | What::ErrorRate => number::signed_percent(value),
            What::Smaller | What::Larger | What::Faster | What::Slower => number::times(value),
            What::BitsQuantized | What::BitsAll => number::fixed(value, 2),
            What::ShareQuantized | What::Zeros | What::Padding | What::Variation => {
                format!("{} %", number::fixed(value * 100.0, 1))
            }
            What::Chance | What::Ceiling => number::percent(value),
            What::Threshold | What::Level => number::plain(value * 100.0),
            What::WidestGap | What::OpenLoss => number::fixed(value * 100.0, 2),
            What::Size(_) => number::Scale::bytes([value]).whole(value),
            What::LimitBytes => measure("weight_bytes"),
            What::LimitLatency => measure("latency_p50"),
            What::LimitLoss => number::fixed(value * 100.0, 2),
            What::TestRows if value == 1.0 => "1 row".into(),
            What::TestRows => format!("{} rows", number::count(value)),
            What::Gained | What::Lost | What::Parameters | What::Samples => number::count(value),
        }
    }
}

impl Figure {
    /// Where the number comes from, in words.
    pub(crate) fn origin(&self) -> String {
        let what = match &self.what {
            What::Measure(name) => name.clone(),
            What::Low(name) => format!("{name}, lower end"),
            What::High(name) => format!("{name}, upper end"),
            What::Seeds(what) => format!("over seeds, {}", spaced(&format!("{what:?}"))),
            What::Size(_) => "a round size".into(),
            other => spaced(&format!("{other:?}")),
        };
        if self.subject.is_empty() { what } else { format!("{}: {what}", self.subject) }
    }
}

/// `BitsQuantized` as `bits quantized`.
fn spaced(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !out.is_empty() {
            out.push(' ');
        }
        out.extend(c.to_lowercase());
    }
    out
}

/// How a value that was not measured is marked.
pub(crate) fn mark(how: How) -> Option<&'static str> {
    match how {
        How::Measured => None,
        How::Estimated => Some("estimated"),
        How::Published => Some("published"),
    }
}
