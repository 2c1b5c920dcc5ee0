//! Checks of accuracies, F1 scores, entropies and percentiles against the raw material behind them.

use super::super::number::range;
use super::super::sentence::{ClaimKind, SentencePart};
use super::{Case, Outcome, Tally, close};
use crate::laws;
use crate::metrics::{self, Confusion};
use crate::record::{How, Measure, Record};
use crate::stats::{Paired, mean, percentile, wilson};

/// Relative error that separate orders of summation may leave.
const ROUNDING: f64 = 1e-9;

/// Relative error that blocks of unequal lengths may leave.
const BLOCKS: f64 = 1e-3;

/// 2: accuracy and F1 from the answers, percentiles from the raw runs.
pub(crate) fn derived(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    for record in &case.results.records {
        counts(record, &mut tally);
        values(record, &mut tally);
        blocks(record, &mut tally);
        for (share, q) in [("p50", 50.0), ("p90", 90.0), ("p99", 99.0)] {
            for (name, samples) in &record.detail.samples {
                let Some(m) = record.measures.get(&format!("{name}_{share}")) else {
                    continue;
                };
                let found = percentile(samples, q).unwrap_or(f64::NAN);
                equal(&mut tally, record, &format!("{name}_{share}"), m.value, found);
                tally.expect(m.n == samples.len() as u64, || {
                    format!(
                        "{}: {name}_{share} states n = {}, {} raw runs are recorded",
                        record.model,
                        m.n,
                        samples.len()
                    )
                });
            }
        }
    }
    tally.outcome("no answers, confusions or raw runs")
}

fn equal(tally: &mut Tally, record: &Record, name: &str, stored: f64, found: f64) {
    tally
        .expect(close(stored, found, ROUNDING), || format!("{}: {name} is {stored}, recomputed {found}", record.model));
}

fn counts(record: &Record, tally: &mut Tally) {
    let Some(confusion) = recounted(record, tally) else {
        return;
    };
    let whole: [(&str, f64); 4] = [
        ("accuracy", confusion.accuracy()),
        ("f1_macro", confusion.macro_mean(Confusion::f1)),
        ("precision_macro", confusion.macro_mean(Confusion::precision)),
        ("recall_macro", confusion.macro_mean(Confusion::recall)),
    ];
    for (name, found) in whole {
        let Some(m) = record.measures.get(name) else {
            continue;
        };
        equal(tally, record, name, m.value, found);
        let (model, n) = (&record.model, confusion.total());
        tally.expect(m.n == n, || format!("{model}: {name} states n = {}, {n} answers are recorded", m.n));
    }
    let detail = &record.detail;
    let of_parts = metrics::of_parts(&detail.parts, &detail.truths, &detail.answers);
    let of_lengths = detail.lengths.iter().flat_map(|l| metrics::of_lengths(l, &detail.truths, &detail.answers));
    for (name, found) in of_parts.into_iter().chain(of_lengths) {
        if let Some(m) = record.measures.get(&name) {
            equal(tally, record, &name, m.value, found.value);
            tally.expect(m.n == found.n, || format!("{}: {name} states n = {}, not {}", record.model, m.n, found.n));
        }
    }
    for (i, class) in record.detail.classes.iter().enumerate().take(confusion.classes()) {
        let name = format!("f1/{class}");
        if let Some(m) = record.measures.get(&name) {
            equal(tally, record, &name, m.value, confusion.f1(i));
        }
    }
}

/// Measures of numbers from what was predicted and expected.
fn values(record: &Record, tally: &mut Tally) {
    let (model, detail) = (&record.model, &record.detail);
    if detail.expected.is_empty() && detail.predicted.is_empty() {
        return;
    }
    match metrics::of_values(&detail.expected, &detail.predicted, &[]) {
        Err(error) => tally.expect(false, || format!("{model}: {error}")),
        Ok(found) => {
            for (name, found) in found {
                let Some(m) = record.measures.get(&name) else { continue };
                equal(tally, record, &name, m.value, found.value);
                tally
                    .expect(m.n == found.n, || format!("{model}: {name} states n = {}, {} are recorded", m.n, found.n));
                let near = |a: Option<f64>, b: Option<f64>| a.zip(b).is_some_and(|(a, b)| close(a, b, 1e-6));
                tally.expect(near(m.lo, found.lo) && near(m.hi, found.hi), || {
                    format!("{model}: {name} has the interval {}, recomputed {}", range(m), range(&found))
                });
            }
        }
    }
}

/// Bits per byte from those of the blocks, which are of nearly one length.
fn blocks(record: &Record, tally: &mut Tally) {
    let Some(found) = record.detail.samples.get("bits_per_byte").and_then(|blocks| mean(blocks)) else { return };
    let stored = record.measures.get("bits_per_byte").map_or(f64::NAN, |m| m.value);
    tally.expect(close(stored, found, BLOCKS), || {
        format!("{}: bits_per_byte is {stored}, its blocks give {found}", record.model)
    });
}

/// Counts from the answers, or the stored ones where no answers are recorded.
fn recounted(record: &Record, tally: &mut Tally) -> Option<Confusion> {
    let (detail, model) = (&record.detail, &record.model);
    let stored = Confusion::of_matrix(&detail.confusion);
    tally.expect(stored.is_some(), || format!("{model}: confusion is not square"));
    let stored = stored.filter(|stored| stored.classes() > 0);
    if detail.answers.is_empty() {
        return stored;
    }
    let classes = stored.as_ref().map_or(0, Confusion::classes).max(detail.classes.len());
    match Confusion::new(classes, &detail.truths, &detail.answers) {
        Ok(found) => {
            let same = stored.is_none_or(|stored| stored == found);
            tally.expect(same, || format!("{model}: confusion differs from the recorded answers"));
            Some(found)
        }
        Err(error) => {
            tally.expect(false, || format!("{model}: {error}"));
            None
        }
    }
}

/// 5: `compression_ratio` times bits per byte is 8; a byte model's perplexity is 2 to the bits per byte.
pub(crate) fn identities(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    for record in &case.results.records {
        let value = |name: &str| record.measures.get(name).map(|m| m.value);
        let Some(bits) = value("bits_per_byte") else {
            continue;
        };
        if let Some(ratio) = value("compression_ratio") {
            tally.expect(close(ratio * bits, 8.0, laws::IDENTITY), || {
                format!(
                    "{}: compression_ratio {ratio} times bits_per_byte {bits} is {}, not 8",
                    record.model,
                    ratio * bits
                )
            });
        }
        if let (Some(perplexity), Some(_)) = (value("perplexity"), value("next_byte_accuracy")) {
            tally.expect(close(perplexity, bits.exp2(), laws::IDENTITY), || {
                format!("{}: perplexity {perplexity} per byte, but 2^{bits} is {}", record.model, bits.exp2())
            });
        }
    }
    tally.outcome("no language-model measures")
}

/// Share of a file, and bytes beside it, that it may be larger than its probabilities say: the coder's rounding, and its header.
const CODED: (f64, f64) = (0.001, 64.0);

/// 6: a file is no smaller than the probabilities behind it say, and hardly larger.
pub(crate) fn coded(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    for record in &case.results.records {
        let value = |name: &str| record.measures.get(name).map(|m| m.value);
        let (Some(written), Some(coded)) = (value("compressed_bytes"), value("coded_bytes")) else { continue };
        let beside = written - coded;
        tally.expect(beside >= -1.0 && beside <= CODED.0 * coded + CODED.1, || {
            format!("{}: {written} bytes were written, and the probabilities say {coded:.1}", record.model)
        });
    }
    tally.outcome("no compressed files")
}

/// 7: an accuracy more than three standard errors above the best possible one.
pub(crate) fn plausible(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    for c in case.tasks {
        let Some(ceiling) = c.facts.and_then(|f| f.ceiling.as_ref()) else {
            continue;
        };
        for (row, m) in c.rows.iter().filter_map(|r| Some((r, r.record.measures.get("accuracy")?))) {
            let error = laws::standard_error(ceiling.value, m.n as f64);
            tally.expect(m.value <= ceiling.value + 3.0 * error, || {
                format!(
                    "{}: accuracy {} is above the ceiling {} by more than chance",
                    row.name(),
                    m.value,
                    ceiling.value
                )
            });
        }
    }
    tally.outcome("no task with a known ceiling")
}

/// 9: the most probable byte is right at least as often as 2 to the minus bits per byte.
pub(crate) fn calibration(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    for record in &case.results.records {
        let measures = &record.measures;
        let (Some(hit), Some(bits)) = (measures.get("next_byte_accuracy"), measures.get("bits_per_byte")) else {
            continue;
        };
        let bound = laws::least_hits(bits.value);
        let error = laws::standard_error(bound, hit.n as f64);
        tally.expect(hit.value >= bound - 3.0 * error, || {
            format!("{}: next_byte_accuracy {} is below {bound}: evaluation misaligned", record.model, hit.value)
        });
    }
    tally.outcome("no language-model measures")
}

/// Accuracies of this run.
fn accuracies<'a>(case: &'a Case) -> impl Iterator<Item = (&'a Record, &'a Measure)> {
    let is_one = |name: &str| name == "accuracy" || name.starts_with("accuracy/");
    case.measures().filter(move |(_, name, m)| is_one(name) && m.how == How::Measured).map(|(r, _, m)| (r, m))
}

/// 10: accuracy times n is a whole number; of a published accuracy, within half its last digit.
pub(crate) fn granularity(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    for (record, _, m) in case.measures().filter(|(_, name, _)| *name == "accuracy") {
        let n = m.n as f64;
        let half = match m.how {
            How::Published => 0.5 * 10f64.powi(-decimals(m.value)),
            _ => 1e-6 * m.value.max(1.0 / n),
        };
        let broken = laws::broken_count(m.value, half, n);
        tally.expect(broken.is_none(), || {
            let right = broken.unwrap_or_default();
            format!("{}: accuracy {} on {} rows would be {right:.3} right answers", record.model, m.value, m.n)
        });
    }
    tally.outcome("no accuracies")
}

/// Digits after the point of the shortest text of a value.
fn decimals(value: f64) -> i32 {
    value.to_string().split_once('.').map_or(0, |(_, digits)| digits.len() as i32)
}

/// 11: low end, value, high end in order; fractions in 0..1; percentiles in order; macro F1 between the classes.
pub(crate) fn feasible(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    for (record, name, m) in case.measures() {
        let slack = ROUNDING * m.value.abs();
        let inside = m.lo.is_none_or(|lo| lo <= m.value + slack) && m.hi.is_none_or(|hi| hi >= m.value - slack);
        tally.expect(inside, || format!("{}: {name} {} lies outside its range {}", record.model, m.value, range(m)));
        let fraction = m.unit != "fraction" || (-ROUNDING..=1.0 + ROUNDING).contains(&m.value);
        tally.expect(fraction, || format!("{}: {name} {} is no fraction", record.model, m.value));
    }
    for record in &case.results.records {
        let value = |name: &str| record.measures.get(name).map(|m| m.value);
        let order: Vec<f64> = ["latency_p50", "latency_p90", "latency_p99"].into_iter().filter_map(value).collect();
        tally.expect(order.is_sorted(), || {
            let order: Vec<String> = order.iter().map(f64::to_string).collect();
            format!("{}: latency percentiles out of order: {}", record.model, order.join(", "))
        });
        let classes = || record.measures.iter().filter(|(k, _)| k.starts_with("f1/")).map(|(_, m)| m.value);
        if let (Some(mean), Some(low)) = (value("f1_macro"), classes().reduce(f64::min)) {
            let high = classes().fold(low, f64::max);
            tally.expect((low - ROUNDING..=high + ROUNDING).contains(&mean), || {
                format!("{}: f1_macro {mean} is not between its classes, {low} to {high}", record.model)
            });
        }
    }
    tally.outcome("no measures")
}

/// 12: the Wilson interval stands on every accuracy, and "more" or "less accurate" only where the paired interval excludes 0.
pub(crate) fn intervals(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    for (record, m) in accuracies(case) {
        let (lo, hi) = wilson(((m.value * m.n as f64).round() as u64).min(m.n), m.n);
        let equal = m.lo.is_some_and(|x| (x - lo).abs() < 1e-6) && m.hi.is_some_and(|x| (x - hi).abs() < 1e-6);
        tally.expect(m.n > 0 && equal, || {
            format!("{}: accuracy has the interval {}, Wilson 95 % is {lo:.6} to {hi:.6}", record.model, range(m))
        });
    }
    for finding in case.document.findings() {
        let Some(c) = case.tasks.iter().find(|c| c.task == finding.task) else {
            continue;
        };
        for part in &finding.sentence.parts {
            let SentencePart::Claim(claim) = part else { continue };
            let sign = match claim.kind {
                ClaimKind::Higher => 1.0,
                ClaimKind::Lower | ClaimKind::Fails => -1.0,
                _ => continue,
            };
            let pair = c.reference().zip(c.row(&claim.subject));
            let clear = pair.is_some_and(|(a, b)| {
                let change = b.change.as_ref().map(|change| (change.lo, change.hi));
                let (a, b) = (&a.record.detail, &b.record.detail);
                let counted = || Paired::count(&a.truths, &b.answers, &a.answers).interval();
                let ends = if a.answers.is_empty() { change } else { Some(counted()) };
                ends.is_some_and(|(lo, hi)| (lo * sign).min(hi * sign) > 0.0)
            });
            tally.expect(clear, || format!("{}: the paired interval includes 0: {finding}", claim.subject));
        }
    }
    tally.outcome("no accuracies")
}

/// 32: the macro F1 equals the mean over the classes that occur.
pub(crate) fn aggregation(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    for record in &case.results.records {
        let f1 = |class: &String| record.measures.get(&format!("f1/{class}")).map(|m| m.value);
        let counted = recounted(record, &mut Tally::default());
        let classes = record.detail.classes.iter().enumerate();
        let occurs = |i: usize| counted.as_ref().is_none_or(|k| i < k.classes() && k.occurs(i));
        let found: Option<Vec<f64>> = classes.filter(|(i, _)| occurs(*i)).map(|(_, class)| f1(class)).collect();
        let found = found.filter(|found| !found.is_empty());
        if let (Some(m), Some(found)) = (record.measures.get("f1_macro"), found) {
            let mean = found.iter().sum::<f64>() / found.len() as f64;
            equal(&mut tally, record, "f1_macro", m.value, mean);
        }
    }
    tally.outcome("no F1 per class")
}

/// 24: a range has two ends, and that of a time lies within the raw runs.
pub(crate) fn ranges(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    for (record, name, m) in case.measures().filter(|(_, _, m)| m.lo.is_some() || m.hi.is_some()) {
        let model = &record.model;
        tally.expect(m.lo.is_some() && m.hi.is_some(), || format!("{model}: {name} has half a range: {}", range(m)));
        let raw = name.strip_suffix("_p50").and_then(|name| record.detail.samples.get(name));
        let Some(raw) = raw.filter(|raw| !raw.is_empty()) else { continue };
        let (least, most) = raw.iter().fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
        let inside = |end: Option<f64>| {
            end.is_none_or(|end| {
                (least..=most).contains(&end) || close(end, least, ROUNDING) || close(end, most, ROUNDING)
            })
        };
        tally.expect(inside(m.lo) && inside(m.hi), || {
            format!("{model}: {name} has the range {}, its raw runs {least} to {most}", range(m))
        });
    }
    tally.outcome("no ranges")
}
