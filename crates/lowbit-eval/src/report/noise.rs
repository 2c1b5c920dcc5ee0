//! Differences between two records, and whether they are beyond noise.

use super::bits::BITS;
use super::compare::{is_network, measured, quality};
use crate::record::{How, Record};
use crate::stats::{self, Paired, median_interval};

/// Latencies whose medians differ by less than this factor are called the same.
pub(crate) const SAME_SPEED: f64 = 1.02;
/// Sizes that differ by less than this factor do not make one variant dominate another.
pub(crate) const SAME_SIZE: f64 = 1.01;
/// Raw samples a latency ratio needs on both sides.
pub(crate) const MIN_SAMPLES: usize = 5;
/// Coefficient of variation above which raw latencies are marked as unsteady.
pub(crate) const UNSTEADY: f64 = 0.25;

/// Change of quality against another record on the same rows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    /// Difference of accuracies, or of shares of the variance explained; a fraction.
    pub(crate) points: f64,
    /// Lower end of its 95 % interval.
    pub(crate) lo: f64,
    /// Upper end.
    pub(crate) hi: f64,
    /// p-value of McNemar's test, or of the normal test of paired squared errors.
    pub(crate) p: f64,
    /// The same after Holm's correction over the networks of a task; of two records alone it is `p`.
    pub(crate) corrected: f64,
    /// Rows that became right, and rows that became wrong, where rows are right or wrong.
    pub(crate) rows: Option<(u64, u64)>,
    /// Change relative to what the other answers right or explains.
    pub(crate) relative: Option<f64>,
    /// Change relative to what the other answers wrong or leaves unexplained.
    pub(crate) error_rate: Option<f64>,
}

impl Change {
    /// The interval excludes zero and the corrected test agrees.
    pub(crate) fn distinguishable(&self) -> bool {
        (self.lo > 0.0 || self.hi < 0.0) && self.corrected < LEVEL
    }
}

/// A difference is shown where p is below this.
const LEVEL: f64 = 0.05;
/// Resamples behind an interval of bits, and their seed.
const RESAMPLES: (usize, u64) = (2000, 1);

/// Change of bits per byte against another record on the same text, by the bootstrap over its blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct BitsChange {
    /// Bits per byte of this record minus those of the other.
    pub(crate) bits: f64,
    /// Lower end of its 95 % interval.
    pub(crate) lo: f64,
    /// Upper end.
    pub(crate) hi: f64,
    /// p-value of the paired bootstrap.
    pub(crate) p: f64,
    /// The same after Holm's correction over the networks of a task.
    pub(crate) corrected: f64,
    /// Upper end as a share of the bits of the other.
    pub(crate) most: f64,
}

impl BitsChange {
    /// The interval excludes zero and the corrected test agrees.
    pub(crate) fn distinguishable(&self) -> bool {
        (self.lo > 0.0 || self.hi < 0.0) && self.corrected < LEVEL
    }
}

/// Corrects the tests of a family for there being several (Holm).
pub(crate) fn correct(tests: Vec<(f64, &mut f64)>) {
    let corrected = stats::holm(&tests.iter().map(|(p, _)| *p).collect::<Vec<_>>());
    tests.into_iter().zip(corrected).for_each(|((_, slot), p)| *slot = p);
}

/// How a median latency compares with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// The intervals of the medians are apart, and this one is lower.
    Faster,
    /// The two intervals do not overlap, and the one of this record is the higher one.
    Slower,
    /// The two intervals overlap, or the medians are closer than [`SAME_SPEED`].
    Same,
}

/// The part of one record that comparisons need, prepared once, so that each of many pairs is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Evidence {
    network: bool,
    accuracy: Option<f64>,
    bytes: Option<f64>,
    latency: Option<f64>,
    /// Interval of the median of at least [`MIN_SAMPLES`] raw latencies, seconds.
    median: Option<(f64, f64)>,
    answers: Option<Answers>,
    /// Bits per byte of the blocks of a text.
    blocks: Vec<f64>,
}

/// Answers to the test rows, in a form that two of them are compared by.
#[derive(Clone, Debug)]
struct Answers {
    /// Records with the same truths in the same order share this number.
    rows: usize,
    n: u64,
    given: Given,
}

#[derive(Clone, Debug)]
enum Given {
    /// Which rows were answered right, one bit a row.
    Right(Vec<u64>),
    /// Squared errors over the mean squared distance of the truths to their mean, and those distances likewise.
    Errors(Vec<f64>, Vec<f64>),
}

impl Evidence {
    /// The evidence of all records of a task.
    pub(crate) fn of(records: &[&Record]) -> Vec<Evidence> {
        let mut truths: Vec<Truths> = Vec::new();
        records.iter().map(|record| Evidence::new(record, &mut truths)).collect()
    }

    fn new<'a>(record: &'a Record, truths: &mut Vec<Truths<'a>>) -> Self {
        let samples = record.detail.samples.get("latency").filter(|s| s.len() >= MIN_SAMPLES);
        Evidence {
            network: is_network(record),
            accuracy: quality(record).filter(|m| m.how == How::Measured).map(|m| m.value),
            bytes: measured(record, "weight_bytes"),
            latency: measured(record, "latency_p50"),
            median: samples.and_then(|samples| median_interval(samples)),
            answers: answers(record, truths),
            blocks: record.detail.samples.get(BITS).cloned().unwrap_or_default(),
        }
    }

    /// The change of bits per byte from `base` to this record; both must have the same blocks.
    pub(crate) fn bits(&self, base: &Evidence) -> Option<BitsChange> {
        if self.blocks.len() < MIN_SAMPLES || self.blocks.len() != base.blocks.len() {
            return None;
        }
        let differences: Vec<f64> = self.blocks.iter().zip(&base.blocks).map(|(mine, base)| mine - base).collect();
        let (bits, lo, hi, p) = stats::paired_bootstrap(&differences, RESAMPLES.0, RESAMPLES.1)?;
        let whole = stats::mean(&base.blocks).filter(|whole| *whole > 0.0)?;
        Some(BitsChange { bits, lo, hi, p, corrected: p, most: hi / whole })
    }

    /// The change of quality from `base` to this record; both must have answered the same rows.
    pub(crate) fn change(&self, base: &Evidence) -> Option<Change> {
        let (mine, theirs) = (self.answers.as_ref()?, base.answers.as_ref()?);
        match (&mine.given, &theirs.given) {
            _ if mine.rows != theirs.rows => None,
            (Given::Right(mine_right), Given::Right(theirs)) => Some(of_answers(mine_right, theirs, mine.n)),
            (Given::Errors(mine, distances), Given::Errors(theirs, _)) => of_errors(mine, theirs, distances),
            _ => None,
        }
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

/// The change between two sets of rows answered right.
fn of_answers(mine: &[u64], base: &[u64], n: u64) -> Change {
    let count = |a: &[u64], b: &[u64]| a.iter().zip(b).map(|(a, b)| u64::from((a & !b).count_ones())).sum();
    let paired = Paired { n, only_first: count(mine, base), only_second: count(base, mine) };
    let (points, (lo, hi)) = (paired.difference(), paired.interval());
    let right: u64 = base.iter().map(|word| u64::from(word.count_ones())).sum();
    let share = |whole: u64| (whole > 0).then(|| points * n as f64 / whole as f64);
    Change {
        points,
        lo,
        hi,
        p: paired.p_value(),
        corrected: paired.p_value(),
        rows: Some((paired.only_first, paired.only_second)),
        relative: share(right),
        error_rate: share(n - right).map(|x| -x),
    }
}

/// The change of explained variance between two sets of scaled squared errors, its interval by the delta method for the
/// ratio of two means; p is of the normal test that it is 0.
fn of_errors(mine: &[f64], base: &[f64], distances: &[f64]) -> Option<Change> {
    let gains: Vec<f64> = mine.iter().zip(base).map(|(mine, base)| base - mine).collect();
    let points = stats::mean(&gains)?;
    let influence: Vec<f64> = gains.iter().zip(distances).map(|(gain, d)| gain - points * d).collect();
    let (center, _, high) = stats::mean_interval(&influence)?;
    let half = high - center;
    let p = if half > 0.0 { stats::two_sided(stats::Z95 * points / half) } else { f64::from(points == 0.0) };
    let unexplained = stats::mean(base)?;
    let share = |whole: f64| (whole > 0.0).then(|| points / whole);
    Some(Change {
        points,
        lo: points - half,
        hi: points + half,
        p,
        corrected: p,
        rows: None,
        relative: share(1.0 - unexplained),
        error_rate: share(unexplained).map(|x| -x),
    })
}

/// What is right, in the order of the rows.
#[derive(Clone, Copy, PartialEq)]
enum Truths<'a> {
    Classes(&'a [u16]),
    Values(&'a [f64]),
}

fn answers<'a>(record: &'a Record, known: &mut Vec<Truths<'a>>) -> Option<Answers> {
    let detail = &record.detail;
    let whole = |given: usize, truths: usize| given > 0 && given == truths;
    let (truths, n, given) = if whole(detail.answers.len(), detail.truths.len()) {
        let mut right = vec![0u64; detail.truths.len().div_ceil(64)];
        for (i, _) in
            detail.truths.iter().zip(&detail.answers).enumerate().filter(|(_, (truth, answer))| truth == answer)
        {
            right[i / 64] |= 1 << (i % 64);
        }
        (Truths::Classes(&detail.truths), detail.truths.len(), Given::Right(right))
    } else if whole(detail.predicted.len(), detail.expected.len()) {
        let center = stats::mean(&detail.expected)?;
        let distances: Vec<f64> = detail.expected.iter().map(|y| (y - center) * (y - center)).collect();
        let scale = stats::mean(&distances).filter(|scale| *scale > 0.0)?;
        let errors = detail.expected.iter().zip(&detail.predicted).map(|(y, p)| (y - p) * (y - p) / scale).collect();
        let distances = distances.into_iter().map(|d| d / scale).collect();
        (Truths::Values(&detail.expected), detail.expected.len(), Given::Errors(errors, distances))
    } else {
        return None;
    };
    let rows = known.iter().position(|other| *other == truths).unwrap_or_else(|| {
        known.push(truths);
        known.len() - 1
    });
    Some(Answers { rows, n: n as u64, given })
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
        let words = right as usize / 64;
        let given = Given::Right([vec![u64::MAX; words], vec![0; 64 - words]].concat());
        let median = Some((latency * 0.99, latency * 1.01));
        let accuracy = Some(right as f64 / 4096.0);
        let answers = Some(Answers { rows: 0, n: 4096, given });
        Evidence {
            network: true,
            accuracy,
            bytes: Some(bytes),
            latency: Some(latency),
            median,
            answers,
            blocks: Vec::new(),
        }
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

    /// Against 2,000 resamples of the rows: the interval and the p-value of a change of explained variance.
    #[test]
    fn changes_of_numbers_by_the_delta_method() {
        let mut random = lowbit_base::SplitMix64::new(3);
        let mut normal = || (0..12).map(|_| random.below(1 << 20) as f64 / (1 << 20) as f64).sum::<f64>() - 6.0;
        let rows: Vec<[f64; 3]> = (0..800).map(|_| [normal(), 0.3 * normal(), 0.35 * normal()]).collect();
        let record = |error: fn(&[f64; 3]) -> f64| {
            let mut record: Record =
                serde_json::from_str(r#"{"task": "t", "model": "m", "recipe": "r", "params": 0, "measures": {}}"#)
                    .unwrap();
            record.detail.expected = rows.iter().map(|r| r[0]).collect();
            record.detail.predicted = rows.iter().map(|r| r[0] + error(r)).collect();
            record
        };
        let (base, other) = (record(|r| r[1]), record(|r| 0.8 * r[1] + 0.6 * r[2]));
        let evidence = Evidence::of(&[&base, &other]);
        let change = evidence[1].change(&evidence[0]).unwrap();
        let indices: Vec<f64> = (0..800).map(f64::from).collect();
        let difference = |draw: &[f64]| {
            let r2 = |record: &Record| {
                let of = |values: &[f64]| draw.iter().map(|i| values[*i as usize]).collect::<Vec<f64>>();
                crate::metrics::r2(&of(&record.detail.expected), &of(&record.detail.predicted)).0
            };
            r2(&other) - r2(&base)
        };
        let (lo, hi) = stats::bootstrap(&indices, difference, 2000, 1).unwrap();
        assert!((change.points - difference(&indices)).abs() < 1e-12);
        let width = change.hi - change.lo;
        assert!((change.lo - lo).abs() < 0.1 * width && (change.hi - hi).abs() < 0.1 * width, "{change:?} {lo} {hi}");
        assert_eq!((change.p < 0.05, change.rows), (change.hi < 0.0 || change.lo > 0.0, None));
        assert_eq!(evidence[0].change(&evidence[0]).unwrap().p, 1.0);
    }

    #[test]
    fn many_records_are_compared_in_no_time() {
        let all: Vec<Evidence> = (0..3000u64).map(|i| network(2048 + i % 30 * 64, 1e6 - i as f64, 1.0)).collect();
        let start = std::time::Instant::now();
        // Records of the highest of 30 accuracies differ in size by less than noise; every other record has one of these above.
        assert_eq!(dominators(&all).iter().filter(|d| d.is_some()).count(), 2900);
        assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    }
}
