//! What follows from the records of one task: paired changes, ledgers, speed ratios, verdicts, dominance.

use super::measures::Scales;
use super::noise::{self, BitsChange, Change, Evidence, Pace};
use super::number::Scale;
use crate::record::{How, Measure, Record, Results, TaskFacts};
use std::collections::HashMap;

/// How far below the reference (fraction of all rows) a recommended variant may be, its interval included.
pub(crate) const WITHIN: f64 = 0.01;
/// "No loss shown" is said only where the interval rules out a loss of more than this.
pub(crate) const HIDDEN: f64 = 0.02;

/// What the stored tensors add up to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ledger {
    /// Sum of all parts, bytes.
    pub(crate) bytes: u64,
    /// Bytes of padding, which hold no weight.
    pub(crate) padding: u64,
    /// Stored weights over all tensors.
    pub(crate) weights: u64,
    /// Share of weights in tensors stored below 16 bits.
    pub(crate) share: f64,
    /// Bits per weight over the tensors stored below 16 bits, padding left out; `None` without such tensors.
    pub(crate) bits_quantized: Option<f64>,
    /// Share of zero weights over the tensors stored below 16 bits, where recorded.
    pub(crate) zeros: Option<f64>,
}

/// What the accuracy, or the bits per byte, say about a variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The variant all others are compared with.
    Reference,
    /// Not a network.
    Baseline,
    /// The interval of the difference holds zero, and no loss of more than [`HIDDEN`].
    Same,
    /// Interval and corrected test disagree, or the interval holds a loss of more than [`HIDDEN`].
    Undecided,
    /// Shown to be more accurate.
    Higher,
    /// Shown to be less accurate.
    Lower,
    /// Lost more than half of what the reference has above chance.
    Fails,
    /// The reference learnt nothing: an accuracy equal to the reference means nothing.
    Void,
    /// No paired answers.
    Unknown,
}

/// What the reference is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Above chance, and not shown to be below a baseline.
    Sound,
    /// Above chance, but shown to be below a baseline that is no network.
    Beaten,
    /// Not shown to be above chance, or with less than half of what a baseline has above chance.
    NothingLearnt,
}

/// One variant with what follows from its record.
#[derive(Clone, Debug)]
pub(crate) struct VariantRow<'a> {
    /// The record.
    pub(crate) record: &'a Record,
    /// Accuracy change against the reference.
    pub(crate) change: Option<Change>,
    /// Change of bits per byte against the reference.
    pub(crate) bits: Option<BitsChange>,
    /// Sums over its tensors.
    pub(crate) ledger: Option<Ledger>,
    /// Reference's median latency divided by this one's.
    pub(crate) speed: Option<(f64, Pace)>,
    /// See [`Verdict`].
    pub(crate) verdict: Verdict,
    /// A variant at least as accurate, small and fast, and better beyond noise in one of the three.
    pub(crate) dominated_by: Option<&'a str>,
}

impl<'a> VariantRow<'a> {
    /// Name of the variant.
    pub(crate) fn name(&self) -> &'a str {
        &self.record.model
    }

    /// Whether it is a neural network with weights.
    pub(crate) fn network(&self) -> bool {
        is_network(self.record)
    }

    /// What variants are compared by, a fraction.
    pub(crate) fn quality(&self) -> Option<f64> {
        quality(self.record).map(|m| m.value)
    }

    /// A measure's value.
    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        self.record.measures.get(name).map(|m| m.value)
    }
}

/// All variants of one task.
#[derive(Clone, Debug)]
pub(crate) struct Comparison<'a> {
    /// `name@version`.
    pub(crate) task: &'a str,
    /// What is known of the task.
    pub(crate) facts: Option<&'a TaskFacts>,
    /// Variants in the order of the records.
    pub(crate) rows: Vec<VariantRow<'a>>,
    /// Index of the reference.
    pub(crate) base: Option<usize>,
    /// Accuracy of answering without looking: the majority class where recorded, at least one over the classes.
    pub(crate) chance: Option<f64>,
    /// What the reference is worth, where accuracies tell.
    pub(crate) standing: Option<Standing>,
    /// Units of the columns.
    pub(crate) scales: Scales,
    evidence: Vec<Evidence>,
    index: HashMap<&'a str, usize>,
    plain: Option<usize>,
}

/// One comparison per task, in order of first appearance; records of studies are of no task.
pub(crate) fn comparisons(results: &Results) -> Vec<Comparison<'_>> {
    let mut tasks: Vec<&str> = Vec::new();
    let mut records: HashMap<&str, Vec<&Record>> = HashMap::new();
    for record in results.records.iter().filter(|record| record.detail.place.is_none()) {
        let of = records.entry(&record.task).or_default();
        if of.is_empty() {
            tasks.push(&record.task);
        }
        of.push(record);
    }
    tasks.into_iter().map(|task| Comparison::new(results, task, records.remove(task).unwrap_or_default())).collect()
}

impl<'a> Comparison<'a> {
    fn new(results: &'a Results, task: &'a str, records: Vec<&'a Record>) -> Self {
        let facts = results.tasks.iter().find(|f| f.task == task);
        let reference = facts.map_or("f32", |f| f.baseline.as_str());
        let mut index = HashMap::new();
        records.iter().enumerate().for_each(|(i, r)| _ = index.entry(r.model.as_str()).or_insert(i));
        let base = index.get(reference).copied();
        let (chance, evidence) = (chance(&records), Evidence::of(&records));
        let accuracy = |i: &usize| quality(records[*i]).map(|m| m.value);
        let plain = (0..records.len()).filter(|i| !is_network(records[*i]) && accuracy(i).is_some());
        let plain = plain.max_by(|a, b| accuracy(a).partial_cmp(&accuracy(b)).unwrap_or(std::cmp::Ordering::Equal));
        let standing = base.and_then(|base| standing(&records, &evidence, base, plain, chance));
        let reference = base.map(|base| Reference {
            name: &records[base].model,
            accuracy: quality(records[base]).map(|m| m.value),
            evidence: &evidence[base],
            standing,
        });
        let mut rows: Vec<VariantRow> =
            records.iter().zip(&evidence).map(|(record, mine)| row(record, mine, reference.as_ref())).collect();
        correct(&mut rows);
        rows.iter_mut().for_each(|row| row.verdict = verdict(row, reference.as_ref(), chance));
        for (row, by) in rows.iter_mut().zip(noise::dominators(&evidence)) {
            row.dominated_by = by.map(|j| records[j].model.as_str());
        }
        let scales = scales(&records);
        Comparison { task, facts, rows, base, chance, standing, scales, evidence, index, plain }
    }

    /// The reference variant.
    pub(crate) fn reference(&self) -> Option<&VariantRow<'a>> {
        self.base.map(|i| &self.rows[i])
    }

    /// The variant of that name.
    pub(crate) fn row(&self, name: &str) -> Option<&VariantRow<'a>> {
        self.index.get(name).map(|i| &self.rows[*i])
    }

    /// Variants that are networks.
    pub(crate) fn networks(&self) -> impl Iterator<Item = &VariantRow<'a>> {
        self.rows.iter().filter(|r| r.network())
    }

    /// The most accurate baseline that is no network.
    pub(crate) fn plain(&self) -> Option<&VariantRow<'a>> {
        self.plain.map(|i| &self.rows[i])
    }

    /// Name of the measure that variants are compared by, if they have one.
    pub(crate) fn quality(&self) -> Option<&'static str> {
        QUALITIES.into_iter().find(|name| self.has(name))
    }

    /// The quality measure in words.
    pub(crate) fn noun(&self) -> &'static str {
        if self.quality() == Some("r2") { "explained variance" } else { "accuracy" }
    }

    /// Whether any variant has this measure.
    pub(crate) fn has(&self, measure: &str) -> bool {
        self.rows.iter().any(|r| r.record.measures.contains_key(measure))
    }

    /// Whether the first of two variants dominates the second.
    pub(crate) fn dominates(&self, other: &str, name: &str) -> bool {
        let place = |name: &str| self.index.get(name).map(|i| &self.evidence[*i]);
        let timed = noise::all_timed(&self.evidence);
        place(other).zip(place(name)).is_some_and(|(other, mine)| other.dominates(mine, timed))
    }

    /// Networks shown to be at most [`WITHIN`] below the reference, or to need at most such a share more bits: the whole interval
    /// does. The reference is left out.
    pub(crate) fn close(&self) -> Vec<&VariantRow<'a>> {
        let measured = |r: &VariantRow| quality(r.record).is_none_or(|m| m.how == How::Measured);
        let shown = |r: &&VariantRow| match (&r.change, &r.bits) {
            (Some(change), _) => change.lo >= -WITHIN && measured(r),
            (None, bits) => bits.is_some_and(|bits| bits.most <= WITHIN),
        };
        self.compared().filter(shown).collect()
    }

    /// Whether one variant is shown to answer faster than another; nothing where one has no raw runs.
    pub(crate) fn is_faster(&self, name: &str, other: &str) -> Option<bool> {
        let place = |name: &str| self.index.get(name).map(|i| &self.evidence[*i]);
        Some(place(name)?.pace(place(other)?)?.1 == Pace::Faster)
    }

    /// The change of bits per byte from one variant to another.
    pub(crate) fn bits_between(&self, base: &str, name: &str) -> Option<BitsChange> {
        let place = |name: &str| self.index.get(name).map(|i| &self.evidence[*i]);
        place(name)?.bits(place(base)?)
    }

    /// Networks whose accuracy was not shown to be below the reference's, and cannot be so by more than [`HIDDEN`].
    pub(crate) fn equals(&self) -> Vec<&VariantRow<'a>> {
        self.networks().filter(|r| matches!(r.verdict, Verdict::Same | Verdict::Higher)).collect()
    }

    /// Networks that keep every limit that was asked for, the reference included; none where nothing was asked for. A measure that
    /// is missing keeps no limit.
    pub(crate) fn within(&self) -> Vec<&VariantRow<'a>> {
        let Some(limits) = self.facts.and_then(|facts| facts.constraints) else { return Vec::new() };
        let at_most =
            |limit: Option<f64>, value: Option<f64>| limit.is_none_or(|limit| value.is_some_and(|v| v <= limit));
        let keeps = |r: &&VariantRow| {
            let loss = match r.verdict {
                Verdict::Reference => Some(0.0),
                _ => match &r.change {
                    Some(change) => Some(-change.points),
                    // Of bits per byte, as a share of those of the reference.
                    None => self.more_bits(r),
                },
            };
            at_most(limits.weight_bytes, measured(r.record, "weight_bytes"))
                && at_most(limits.latency_p50, measured(r.record, "latency_p50"))
                && at_most(limits.loss, loss)
        };
        self.networks().filter(|r| !matches!(r.verdict, Verdict::Fails | Verdict::Void)).filter(keeps).collect()
    }

    /// Bits per byte beyond those of the reference, as a share of them.
    fn more_bits(&self, row: &VariantRow) -> Option<f64> {
        let base = self.reference()?.value(super::bits::BITS)?;
        Some(row.bits?.bits / base)
    }

    /// Networks that can be compared with the reference: neither the reference itself, nor failed, nor void.
    fn compared(&self) -> impl Iterator<Item = &VariantRow<'a>> {
        self.networks().filter(|r| !matches!(r.verdict, Verdict::Reference | Verdict::Fails | Verdict::Void))
    }

    /// Where some network is undecided and none is shown to keep the accuracy: the least loss that an interval leaves open.
    pub(crate) fn too_few_rows(&self) -> Option<f64> {
        let kept = !self.close().is_empty() || !self.equals().is_empty();
        let undecided = self.networks().filter(|r| r.verdict == Verdict::Undecided && !kept);
        undecided.filter_map(|r| r.change.as_ref()).map(|change| -change.lo).reduce(f64::min)
    }

    /// The lowest accuracy worth a plot's room: variants far below the usual gap to the reference are left to its edge.
    pub(crate) fn focus(&self) -> Option<f64> {
        let base = self.reference()?.quality()?;
        let accuracies = self.networks().filter(|r| r.verdict != Verdict::Fails).filter_map(|r| r.quality());
        let gaps: Vec<f64> = accuracies.map(|a| (base - a).abs()).collect();
        let usual = crate::stats::median(&gaps)?;
        let far = (6.0 * usual).max(WITHIN);
        gaps.into_iter().filter(|g| *g <= far).reduce(f64::max).map(|gap| base - gap)
    }

    /// Largest accuracy gap of any other network to the reference, a fraction; of bits per byte as a share of those of the reference.
    pub(crate) fn widest_gap(&self) -> Option<f64> {
        let reference = self.reference()?;
        let Some(base) = reference.quality() else {
            let base = reference.value(super::bits::BITS)?;
            let gaps = self.networks().filter_map(|r| r.bits.as_ref()).map(|bits| bits.bits.abs() / base);
            return gaps.reduce(f64::max);
        };
        self.networks()
            .filter(|r| r.verdict != Verdict::Reference)
            .filter_map(|r| Some((r.quality()? - base).abs()))
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

/// The reference: the record all other records are compared with.
struct Reference<'a> {
    name: &'a str,
    accuracy: Option<f64>,
    evidence: &'a Evidence,
    standing: Option<Standing>,
}

fn row<'a>(record: &'a Record, mine: &Evidence, base: Option<&Reference>) -> VariantRow<'a> {
    let other = base.filter(|b| b.name != record.model);
    let change = other.and_then(|b| mine.change(b.evidence));
    let bits = other.filter(|_| change.is_none()).and_then(|b| mine.bits(b.evidence));
    let speed = other.and_then(|b| mine.pace(b.evidence));
    let (ledger, verdict) = (ledger(record), Verdict::Unknown);
    VariantRow { record, change, bits, ledger, speed, verdict, dominated_by: None }
}

/// Corrects the tests of all networks against the reference for there being several.
fn correct(rows: &mut [VariantRow]) {
    let tests = rows.iter_mut().filter(|row| row.network()).filter_map(|row| match (&mut row.change, &mut row.bits) {
        (Some(change), _) => Some((change.p, &mut change.corrected)),
        (None, Some(bits)) => Some((bits.p, &mut bits.corrected)),
        (None, None) => None,
    });
    noise::correct(tests.collect());
}

/// Accuracy of the majority class, but at least one over the classes: the test rows may lack the majority of training. Of
/// numbers the variance that their mean explains, which is none.
fn chance(records: &[&Record]) -> Option<f64> {
    let blind = |r: &&&Record| !is_network(r) && ["majority", "mean"].contains(&r.model.as_str());
    let blind = records.iter().find(blind).and_then(|r| quality(r));
    let classes = records.iter().map(|r| r.detail.classes.len()).max().unwrap_or(0);
    let numbers = records.iter().any(|r| !r.detail.expected.is_empty());
    let even = (classes > 1).then(|| 1.0 / classes as f64).or(numbers.then_some(0.0));
    [blind.map(|m| m.value), even].into_iter().flatten().reduce(f64::max)
}

/// By what the variants of a task are compared: the share of rows answered right, or of the variance explained.
pub(crate) fn quality(record: &Record) -> Option<&Measure> {
    QUALITIES.iter().find_map(|name| record.measures.get(*name))
}

/// Measures of which one point more is one hundredth of all there is to gain.
const QUALITIES: [&str; 2] = ["accuracy", "r2"];

fn standing(
    records: &[&Record],
    evidence: &[Evidence],
    base: usize,
    plain: Option<usize>,
    chance: Option<f64>,
) -> Option<Standing> {
    let (accuracy, chance) = (quality(records[base])?, chance?);
    let beaten = plain.and_then(|plain| evidence[base].change(&evidence[plain]));
    let beaten = beaten.is_some_and(|change| change.points < 0.0 && change.distinguishable());
    let margin = |i: usize| Some(quality(records[i])?.value - chance);
    let little = beaten && margin(base)? < 0.5 * margin(plain?)?;
    Some(match () {
        () if accuracy.lo.unwrap_or(accuracy.value) <= chance || little => Standing::NothingLearnt,
        () if beaten => Standing::Beaten,
        () => Standing::Sound,
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
    let low_bytes: u64 = low.iter().map(|t| t.used()).sum();
    let known: Vec<(f64, f64)> = low
        .iter()
        .filter_map(|t| Some((t.zero_fraction? * (t.rows * t.cols) as f64, (t.rows * t.cols) as f64)))
        .collect();
    let zeros = known.iter().map(|k| k.0).sum::<f64>() / known.iter().map(|k| k.1).sum::<f64>();
    Some(Ledger {
        bytes: tensors.iter().map(|t| t.bytes()).sum(),
        padding: tensors.iter().map(|t| t.padding).sum(),
        weights,
        share: low_weights as f64 / weights.max(1) as f64,
        bits_quantized: (low_weights > 0).then(|| low_bytes as f64 * 8.0 / low_weights as f64),
        zeros: (!known.is_empty()).then_some(zeros),
    })
}

/// Whether a format stores fewer than 16 bits per weight; one that is not known is taken to.
pub(crate) fn is_low_bit(format: &str) -> bool {
    lowbit_kernels::format::find(format).map_or(true, |format| format.spec().is_low_bit())
}

fn verdict(row: &VariantRow, base: Option<&Reference>, chance: Option<f64>) -> Verdict {
    if !row.network() {
        return Verdict::Baseline;
    }
    if base.is_some_and(|b| b.name == row.record.model) {
        return Verdict::Reference;
    }
    let (Some(change), Some(base)) = (&row.change, base) else {
        return row.bits.map_or(Verdict::Unknown, |bits| of_bits(&bits));
    };
    let fails = || {
        let (mine, theirs, chance) = (row.quality()?, base.accuracy?, chance?);
        Some(theirs > chance && mine - chance < 0.5 * (theirs - chance))
    };
    match change.distinguishable() {
        _ if base.standing == Some(Standing::NothingLearnt) => Verdict::Void,
        true if change.points < 0.0 && fails().unwrap_or(false) => Verdict::Fails,
        true if change.points < 0.0 => Verdict::Lower,
        true => Verdict::Higher,
        false if change.lo < -HIDDEN || change.lo > 0.0 || change.hi < 0.0 => Verdict::Undecided,
        false => Verdict::Same,
    }
}

/// More bits per byte are a loss.
fn of_bits(change: &BitsChange) -> Verdict {
    match change.distinguishable() {
        true if change.bits > 0.0 => Verdict::Lower,
        true => Verdict::Higher,
        false if change.most > HIDDEN || change.lo > 0.0 || change.hi < 0.0 => Verdict::Undecided,
        false => Verdict::Same,
    }
}

/// Units of the columns of some records.
pub(crate) fn scales(records: &[&Record]) -> Scales {
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
