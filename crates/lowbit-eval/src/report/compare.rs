//! What follows from the records of one task: paired changes, ledgers, speed ratios, verdicts, dominance.

use super::measures::Scales;
use super::number::Scale;
use crate::record::{How, Measure, Record, Results, TaskFacts};
use crate::stats::Paired;

/// Latencies whose medians differ by less than this factor are called the same.
pub(crate) const SAME_SPEED: f64 = 1.02;
/// Raw samples a latency ratio needs on both sides.
pub(crate) const MIN_SAMPLES: usize = 5;
/// How far below the baseline (fraction of all rows) a recommended contender may be.
pub(crate) const WITHIN: f64 = 0.01;

/// Accuracy change against the baseline on the same rows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    /// Difference of accuracies, a fraction.
    pub(crate) points: f64,
    /// Lower end of its 95 % interval.
    pub(crate) lo: f64,
    /// Upper end.
    pub(crate) hi: f64,
    /// Exact McNemar p-value.
    pub(crate) p: f64,
    /// Rows that became right.
    pub(crate) gained: u64,
    /// Rows that became wrong.
    pub(crate) lost: u64,
    /// Change relative to the baseline's accuracy.
    pub(crate) relative: Option<f64>,
    /// Change relative to the baseline's error rate.
    pub(crate) error_rate: Option<f64>,
}

impl Change {
    /// The interval excludes zero and the test agrees.
    pub(crate) fn distinguishable(&self) -> bool {
        (self.lo > 0.0 || self.hi < 0.0) && self.p < 0.05
    }
}

/// What the stored tensors add up to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ledger {
    /// Sum of all parts, bytes.
    pub(crate) bytes: u64,
    /// Stored weights over all tensors.
    pub(crate) weights: u64,
    /// Share of weights in tensors stored below 16 bits.
    pub(crate) share: f64,
    /// Bits per weight over those tensors, where there are any.
    pub(crate) bits_quantized: Option<f64>,
    /// Share of zeros over those tensors, where it was recorded.
    pub(crate) zeros: Option<f64>,
}

/// How a median latency compares with the baseline's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// The intervals of the medians are apart, and this one is lower.
    Faster,
    /// They are apart, and this one is higher.
    Slower,
    /// They overlap, or the medians are closer than [`SAME_SPEED`].
    Same,
}

/// What the accuracy says about a contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The contender all others are compared with.
    Reference,
    /// Not a network.
    Baseline,
    /// No difference shown.
    Same,
    /// Shown to be more accurate.
    Higher,
    /// Shown to be less accurate.
    Lower,
    /// Lost more than half of what the reference has above chance.
    Fails,
    /// No paired answers.
    Unknown,
}

/// One contender with what follows from its record.
#[derive(Clone, Debug)]
pub(crate) struct Row<'a> {
    /// The record.
    pub(crate) record: &'a Record,
    /// Accuracy change against the baseline.
    pub(crate) change: Option<Change>,
    /// Sums over its tensors.
    pub(crate) ledger: Option<Ledger>,
    /// Baseline's median latency divided by this one's.
    pub(crate) speed: Option<(f64, Pace)>,
    /// See [`Verdict`].
    pub(crate) verdict: Verdict,
    /// A contender at least as accurate, small and fast, and better in one of the three.
    pub(crate) dominated_by: Option<&'a str>,
}

impl<'a> Row<'a> {
    /// Name of the contender.
    pub(crate) fn name(&self) -> &'a str {
        &self.record.model
    }

    /// Whether it is a neural network with weights.
    pub(crate) fn network(&self) -> bool {
        is_network(self.record)
    }

    /// A measure's value.
    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        self.record.measures.get(name).map(|m| m.value)
    }
}

/// All contenders of one task.
#[derive(Clone, Debug)]
pub(crate) struct Comparison<'a> {
    /// `name@version`.
    pub(crate) task: &'a str,
    /// What is known of the task.
    pub(crate) facts: Option<&'a TaskFacts>,
    /// Contenders in the order of the records.
    pub(crate) rows: Vec<Row<'a>>,
    /// Index of the reference.
    pub(crate) base: Option<usize>,
    /// Accuracy of answering without looking: the majority class where recorded, else one over the classes.
    pub(crate) chance: Option<f64>,
    /// Units of the columns.
    pub(crate) scales: Scales,
}

/// One comparison per task, in order of first appearance.
pub(crate) fn comparisons(results: &Results) -> Vec<Comparison<'_>> {
    let mut tasks: Vec<&str> = Vec::new();
    for record in &results.records {
        if !tasks.contains(&record.task.as_str()) {
            tasks.push(&record.task);
        }
    }
    tasks.into_iter().map(|task| Comparison::new(results, task)).collect()
}

impl<'a> Comparison<'a> {
    fn new(results: &'a Results, task: &'a str) -> Self {
        let facts = results.tasks.iter().find(|f| f.task == task);
        let records: Vec<&Record> = results.records.iter().filter(|r| r.task == task).collect();
        let reference = facts.map_or("f32", |f| f.baseline.as_str());
        let base = records.iter().position(|r| r.model == reference);
        let chance = chance(&records);
        let mut rows: Vec<Row> = records.iter().map(|record| row(record, base.map(|b| records[b]), chance)).collect();
        for (i, row) in rows.iter_mut().enumerate() {
            row.dominated_by = dominator(&records, i).map(|j| records[j].model.as_str());
        }
        let scales = scales(&records);
        Comparison { task, facts, rows, base, chance, scales }
    }

    /// The reference contender.
    pub(crate) fn reference(&self) -> Option<&Row<'a>> {
        self.base.map(|i| &self.rows[i])
    }

    /// The contender of that name.
    pub(crate) fn row(&self, name: &str) -> Option<&Row<'a>> {
        self.rows.iter().find(|r| r.name() == name)
    }

    /// Contenders that are networks.
    pub(crate) fn networks(&self) -> impl Iterator<Item = &Row<'a>> {
        self.rows.iter().filter(|r| r.network())
    }

    /// Whether any contender has this measure.
    pub(crate) fn has(&self, measure: &str) -> bool {
        self.rows.iter().any(|r| r.record.measures.contains_key(measure))
    }

    /// Networks whose measured accuracy is at most [`WITHIN`] below the reference's, the reference left out.
    pub(crate) fn close(&self) -> Vec<&Row<'a>> {
        let Some(base) = self.reference().and_then(|r| measured(r.record, "accuracy")) else {
            return Vec::new();
        };
        self.networks()
            .filter(|r| r.verdict != Verdict::Reference && r.verdict != Verdict::Fails)
            .filter(|r| measured(r.record, "accuracy").is_some_and(|a| a >= base - WITHIN))
            .collect()
    }

    /// Networks whose accuracy was not shown to be below the reference's.
    pub(crate) fn equals(&self) -> Vec<&Row<'a>> {
        self.networks().filter(|r| matches!(r.verdict, Verdict::Same | Verdict::Higher)).collect()
    }

    /// The lowest accuracy worth a plot's room: contenders far below the usual gap to the reference are left to its edge.
    pub(crate) fn focus(&self) -> Option<f64> {
        let base = self.reference()?.value("accuracy")?;
        let accuracies = self.networks().filter(|r| r.verdict != Verdict::Fails).filter_map(|r| r.value("accuracy"));
        let gaps: Vec<f64> = accuracies.map(|a| (base - a).abs()).collect();
        let usual = crate::stats::median(&gaps)?;
        let far = (6.0 * usual).max(WITHIN);
        gaps.into_iter().filter(|g| *g <= far).reduce(f64::max).map(|gap| base - gap)
    }

    /// Largest accuracy gap of any other network to the reference, a fraction.
    pub(crate) fn widest_gap(&self) -> Option<f64> {
        let base = self.reference()?.value("accuracy")?;
        self.networks()
            .filter(|r| r.verdict != Verdict::Reference)
            .filter_map(|r| Some((r.value("accuracy")? - base).abs()))
            .reduce(f64::max)
    }
}

/// Whether the record is of a neural network.
pub(crate) fn is_network(record: &Record) -> bool {
    record.detail.made != "baseline"
}

/// Value of a measure that was measured and not estimated or quoted.
pub(crate) fn measured(record: &Record, name: &str) -> Option<f64> {
    record.measures.get(name).filter(|m| m.how == How::Measured).map(|m| m.value)
}

fn row<'a>(record: &'a Record, base: Option<&'a Record>, chance: Option<f64>) -> Row<'a> {
    let change = base.filter(|b| b.model != record.model).and_then(|b| change(b, record));
    let speed = base.filter(|b| b.model != record.model).and_then(|b| pace(b, record));
    let verdict = verdict(record, base, change.as_ref(), chance);
    Row { record, change, ledger: ledger(record), speed, verdict, dominated_by: None }
}

fn chance(records: &[&Record]) -> Option<f64> {
    let majority = records.iter().find(|r| r.model == "majority").and_then(|r| r.measures.get("accuracy"));
    majority.map(|m| m.value).or_else(|| {
        let classes = records.iter().map(|r| r.detail.classes.len()).max().unwrap_or(0);
        (classes > 1).then(|| 1.0 / classes as f64)
    })
}

/// Paired change on the rows both answered; needs the same truths in the same order.
pub(crate) fn change(base: &Record, other: &Record) -> Option<Change> {
    let (a, b) = (&base.detail, &other.detail);
    let n = a.answers.len();
    if n == 0 || b.answers.len() != n || a.truths != b.truths || a.truths.len() != n {
        return None;
    }
    let paired = Paired::count(&a.truths, &b.answers, &a.answers);
    let right = a.answers.iter().zip(&a.truths).filter(|(x, y)| x == y).count();
    let (points, (lo, hi)) = (paired.difference(), paired.interval());
    let share = |whole: usize| (whole > 0).then(|| points * n as f64 / whole as f64);
    Some(Change {
        points,
        lo,
        hi,
        p: paired.p_value(),
        gained: paired.only_first,
        lost: paired.only_second,
        relative: share(right),
        error_rate: share(n - right).map(|x| -x),
    })
}

fn ledger(record: &Record) -> Option<Ledger> {
    let tensors = &record.detail.tensors;
    if tensors.is_empty() {
        return None;
    }
    let weights: u64 = tensors.iter().map(|t| t.rows * t.cols).sum();
    let low: Vec<_> = tensors.iter().filter(|t| is_low_bit(&t.format)).collect();
    let low_weights: u64 = low.iter().map(|t| t.rows * t.cols).sum();
    let low_bytes: u64 = low.iter().map(|t| t.bytes()).sum();
    let known: Vec<(f64, f64)> = low
        .iter()
        .filter_map(|t| Some((t.zero_fraction? * (t.rows * t.cols) as f64, (t.rows * t.cols) as f64)))
        .collect();
    let zeros = known.iter().map(|k| k.0).sum::<f64>() / known.iter().map(|k| k.1).sum::<f64>();
    Some(Ledger {
        bytes: tensors.iter().map(|t| t.bytes()).sum(),
        weights,
        share: low_weights as f64 / weights.max(1) as f64,
        bits_quantized: (low_weights > 0).then(|| low_bytes as f64 * 8.0 / low_weights as f64),
        zeros: (!known.is_empty()).then_some(zeros),
    })
}

/// Whether a format stores fewer than 16 bits per weight.
pub(crate) fn is_low_bit(format: &str) -> bool {
    !matches!(format, "f32" | "f16" | "bf16" | "bf16_scan")
}

/// Interval of the median from order statistics (95 % or the widest the samples allow), seconds.
pub(crate) fn median_interval(samples: &[f64]) -> Option<(f64, f64)> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    let (mut below, mut k) = (0.0f64, 0usize);
    let mut term = 0.5f64.powi(n.min(1000) as i32);
    if n > 1000 {
        k = ((n as f64 - 1.96 * (n as f64).sqrt()) / 2.0).floor() as usize;
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

/// Speed of `other` against `base`, from raw samples of both.
pub(crate) fn pace(base: &Record, other: &Record) -> Option<(f64, Pace)> {
    let samples = |r: &'_ Record| r.detail.samples.get("latency").filter(|s| s.len() >= MIN_SAMPLES).cloned();
    let (a, b) = (samples(base)?, samples(other)?);
    let ratio = measured(base, "latency_p50")? / measured(other, "latency_p50")?;
    let ((a_lo, a_hi), (b_lo, b_hi)) = (median_interval(&a)?, median_interval(&b)?);
    let near = ratio < SAME_SPEED && ratio > 1.0 / SAME_SPEED;
    let pace = match () {
        () if near => Pace::Same,
        () if b_hi < a_lo => Pace::Faster,
        () if b_lo > a_hi => Pace::Slower,
        () => Pace::Same,
    };
    Some((ratio, pace))
}

fn verdict(record: &Record, base: Option<&Record>, change: Option<&Change>, chance: Option<f64>) -> Verdict {
    if !is_network(record) {
        return Verdict::Baseline;
    }
    if base.is_some_and(|b| b.model == record.model) {
        return Verdict::Reference;
    }
    let accuracy = |r: &Record| r.measures.get("accuracy").map(|m| m.value);
    let Some(change) = change else {
        return Verdict::Unknown;
    };
    let fails = || {
        let (mine, theirs, chance) = (accuracy(record)?, accuracy(base?)?, chance?);
        Some(theirs > chance && mine - chance < 0.5 * (theirs - chance))
    };
    match change.distinguishable() {
        true if change.points < 0.0 && fails().unwrap_or(false) => Verdict::Fails,
        true if change.points < 0.0 => Verdict::Lower,
        true => Verdict::Higher,
        false => Verdict::Same,
    }
}

/// Accuracy, minus weight bytes, minus median latency: larger is better in each. Latency counts only where every network
/// has one.
fn merits(records: &[&Record], i: usize) -> Option<Vec<f64>> {
    let networks = || records.iter().filter(|r| is_network(r));
    let mut out = vec![measured(records[i], "accuracy")?, -measured(records[i], "weight_bytes")?];
    if networks().all(|r| measured(r, "latency_p50").is_some()) {
        out.push(-measured(records[i], "latency_p50")?);
    }
    is_network(records[i]).then_some(out)
}

/// Index of the contender that dominates contender `i`: the most accurate one where there are several.
pub(crate) fn dominator(records: &[&Record], i: usize) -> Option<usize> {
    let mine = merits(records, i)?;
    let better =
        |theirs: &[f64]| theirs.iter().zip(&mine).all(|(t, m)| t >= m) && theirs.iter().zip(&mine).any(|(t, m)| t > m);
    (0..records.len())
        .filter_map(|j| Some((j, merits(records, j)?)))
        .filter(|(_, theirs)| better(theirs))
        .max_by(|a, b| a.1.partial_cmp(&b.1).unwrap_or(std::cmp::Ordering::Equal).then(b.0.cmp(&a.0)))
        .map(|(j, _)| j)
}

fn scales(records: &[&Record]) -> Scales {
    let values =
        |name: &'static str| records.iter().filter_map(move |r| r.measures.get(name)).map(|m: &Measure| m.value);
    Scales {
        weights: Scale::bytes(values("weight_bytes")),
        memory: Scale::bytes(values("peak_rss_bytes")),
        latency: Scale::seconds(values("latency_p50")),
        load: Scale::seconds(values("load_seconds")),
        energy: Scale::joules(values("energy_joules")),
    }
}
