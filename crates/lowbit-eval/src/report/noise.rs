//! Differences between two records, and whether they are beyond noise.

use super::compare::{is_network, measured};
use crate::record::Record;
use crate::stats::{Paired, median_interval};

/// Latencies whose medians differ by less than this factor are called the same.
pub(crate) const SAME_SPEED: f64 = 1.02;
/// Sizes that differ by less than this factor do not make one variant dominate another.
pub(crate) const SAME_SIZE: f64 = 1.01;
/// Raw samples a latency ratio needs on both sides.
pub(crate) const MIN_SAMPLES: usize = 5;
/// Coefficient of variation above which raw latencies are marked as unsteady.
pub(crate) const UNSTEADY: f64 = 0.25;

/// Accuracy change against another record on the same rows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    /// Difference of accuracies, a fraction.
    pub(crate) points: f64,
    /// Lower end of its 95 % interval.
    pub(crate) lo: f64,
    /// Upper end.
    pub(crate) hi: f64,
    /// p-value of McNemar's test.
    pub(crate) p: f64,
    /// Rows that became right.
    pub(crate) gained: u64,
    /// Rows that became wrong.
    pub(crate) lost: u64,
    /// Change relative to the other's accuracy.
    pub(crate) relative: Option<f64>,
    /// Change relative to the other's error rate.
    pub(crate) error_rate: Option<f64>,
}

impl Change {
    /// The interval excludes zero and the test agrees.
    pub(crate) fn distinguishable(&self) -> bool {
        (self.lo > 0.0 || self.hi < 0.0) && self.p < 0.05
    }
}

/// How a median latency compares with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// The intervals of the medians are apart, and this one is lower.
    Faster,
    /// They are apart, and this one is higher.
    Slower,
    /// They overlap, or the medians are closer than [`SAME_SPEED`].
    Same,
}

/// What comparisons need of one record, prepared once, so that each of many pairs is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Evidence {
    network: bool,
    accuracy: Option<f64>,
    bytes: Option<f64>,
    latency: Option<f64>,
    /// Interval of the median of at least [`MIN_SAMPLES`] raw latencies, seconds.
    median: Option<(f64, f64)>,
    answers: Option<Answers>,
}

/// Which rows were answered right, one bit a row.
#[derive(Clone, Debug)]
struct Answers {
    /// Records with the same truths in the same order share this number.
    rows: usize,
    right: Vec<u64>,
    n: u64,
}

impl Answers {
    fn correct(&self) -> u64 {
        self.right.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

impl Evidence {
    /// The evidence of all records of a task.
    pub(crate) fn of(records: &[&Record]) -> Vec<Evidence> {
        let mut truths: Vec<&[u16]> = Vec::new();
        records.iter().map(|record| Evidence::new(record, &mut truths)).collect()
    }

    fn new<'a>(record: &'a Record, truths: &mut Vec<&'a [u16]>) -> Self {
        let samples = record.detail.samples.get("latency").filter(|s| s.len() >= MIN_SAMPLES);
        Evidence {
            network: is_network(record),
            accuracy: measured(record, "accuracy"),
            bytes: measured(record, "weight_bytes"),
            latency: measured(record, "latency_p50"),
            median: samples.and_then(|samples| median_interval(samples)),
            answers: answers(record, truths),
        }
    }

    /// The change of accuracy from `base` to this record; both must have answered the same rows.
    pub(crate) fn change(&self, base: &Evidence) -> Option<Change> {
        let paired = self.paired(base)?;
        let (points, (lo, hi)) = (paired.difference(), paired.interval());
        let right = base.answers.as_ref()?.correct();
        let share = |whole: u64| (whole > 0).then(|| points * paired.n as f64 / whole as f64);
        Some(Change {
            points,
            lo,
            hi,
            p: paired.p_value(),
            gained: paired.only_first,
            lost: paired.only_second,
            relative: share(right),
            error_rate: share(paired.n - right).map(|x| -x),
        })
    }

    fn paired(&self, base: &Evidence) -> Option<Paired> {
        let (mine, theirs) = (self.answers.as_ref()?, base.answers.as_ref()?);
        let count = |a: &[u64], b: &[u64]| a.iter().zip(b).map(|(a, b)| u64::from((a & !b).count_ones())).sum();
        (mine.rows == theirs.rows).then(|| Paired {
            n: mine.n,
            only_first: count(&mine.right, &theirs.right),
            only_second: count(&theirs.right, &mine.right),
        })
    }

    /// Median latency of `base` over that of this record, with what the raw samples say of it.
    pub(crate) fn pace(&self, base: &Evidence) -> Option<(f64, Pace)> {
        let ((mine_lo, mine_hi), (base_lo, base_hi)) = (self.median?, base.median?);
        let ratio = base.latency? / self.latency?;
        let near = ratio < SAME_SPEED && ratio > 1.0 / SAME_SPEED;
        let pace = match () {
            () if near => Pace::Same,
            () if mine_hi < base_lo => Pace::Faster,
            () if mine_lo > base_hi => Pace::Slower,
            () => Pace::Same,
        };
        Some((ratio, pace))
    }

    /// Whether this network dominates `other`: at least as accurate, small and (where `timed`) fast by the measured values,
    /// and better beyond noise in one of the three.
    pub(crate) fn dominates(&self, other: &Evidence, timed: bool) -> bool {
        self.beats(other, timed).unwrap_or(false)
    }

    fn beats(&self, other: &Evidence, timed: bool) -> Option<bool> {
        let (accuracy, bytes) = (self.accuracy? - other.accuracy?, other.bytes? / self.bytes?);
        let slower = timed && self.latency? > other.latency?;
        if !(self.network && other.network) || accuracy < 0.0 || bytes < 1.0 || slower {
            return Some(false);
        }
        let faster = || timed && self.pace(other).is_some_and(|(_, pace)| pace == Pace::Faster);
        let better = || self.change(other).is_some_and(|change| change.points > 0.0 && change.distinguishable());
        Some(bytes >= SAME_SIZE || faster() || (accuracy > 0.0 && better()))
    }
}

fn answers<'a>(record: &'a Record, known: &mut Vec<&'a [u16]>) -> Option<Answers> {
    let (truths, given) = (record.detail.truths.as_slice(), &record.detail.answers);
    if given.is_empty() || truths.len() != given.len() {
        return None;
    }
    let rows = known.iter().position(|other| *other == truths).unwrap_or_else(|| {
        known.push(truths);
        known.len() - 1
    });
    let mut right = vec![0u64; truths.len().div_ceil(64)];
    for (i, _) in truths.iter().zip(given).enumerate().filter(|(_, (truth, answer))| truth == answer) {
        right[i / 64] |= 1 << (i % 64);
    }
    Some(Answers { rows, right, n: truths.len() as u64 })
}

/// For each record the index of the network that dominates it: the most accurate one where there are several.
pub(crate) fn dominators(evidence: &[Evidence]) -> Vec<Option<usize>> {
    let timed = all_timed(evidence);
    let mut order: Vec<usize> = (0..evidence.len()).filter(|i| evidence[*i].accuracy.is_some()).collect();
    let key = |i: usize| {
        let merit = |value: Option<f64>| -value.unwrap_or(f64::INFINITY);
        (evidence[i].accuracy.unwrap_or(f64::NEG_INFINITY), merit(evidence[i].bytes), merit(evidence[i].latency))
    };
    order.sort_by(|a, b| key(*b).partial_cmp(&key(*a)).unwrap_or(std::cmp::Ordering::Equal));
    let dominator = |i: usize| order.iter().copied().find(|j| *j != i && evidence[*j].dominates(&evidence[i], timed));
    (0..evidence.len()).map(dominator).collect()
}

/// Whether every network has a measured latency: only then does it count.
pub(crate) fn all_timed(evidence: &[Evidence]) -> bool {
    evidence.iter().filter(|e| e.network).all(|e| e.latency.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(right: u64, bytes: f64, latency: f64) -> Evidence {
        let answers = Answers { rows: 0, right: vec![u64::MAX; right as usize / 64], n: 4096 };
        let median = Some((latency * 0.99, latency * 1.01));
        let accuracy = Some(right as f64 / 4096.0);
        let answers = Some(Answers { right: [answers.right, vec![0; 64 - right as usize / 64]].concat(), ..answers });
        Evidence { network: true, accuracy, bytes: Some(bytes), latency: Some(latency), median, answers }
    }

    #[test]
    fn domination_needs_a_difference_beyond_noise() {
        let base = network(3840, 1000.0, 1.0);
        for (other, dominates) in [
            (network(3840, 1000.0, 1.0), false),  // equal
            (network(3840, 995.0, 0.995), false), // smaller and faster by less than noise
            (network(3840, 900.0, 1.0), true),    // a tenth smaller
            (network(3840, 1000.0, 0.9), true),   // a tenth faster, the intervals apart
            (network(3904, 1000.0, 1.0), true),   // 64 more rows right and none lost
            (network(3904, 1001.0, 1.0), false),  // larger
            (network(3840, 900.0, 1.001), false), // not as fast by the measured values
        ] {
            assert_eq!(other.dominates(&base, true), dominates, "{other:?}");
        }
        assert!(network(3840, 900.0, 1.001).dominates(&base, false), "times do not count");
    }

    #[test]
    fn many_records_are_compared_in_no_time() {
        let all: Vec<Evidence> = (0..3000u64).map(|i| network(2048 + i % 30 * 64, 1e6 - i as f64, 1.0)).collect();
        let start = std::time::Instant::now();
        // Those of the highest of 30 accuracies differ in size by less than noise; all others have one of them above.
        assert_eq!(dominators(&all).iter().filter(|d| d.is_some()).count(), 2900);
        assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    }
}
