//! From answers and truths to measures.

use crate::error::Error;
use crate::question::Question;
use crate::record::{Measure, PartRows, TokenLengths};
use crate::stats::{self, wilson};
use std::collections::BTreeMap;

/// Counts of (truth, answer) pairs over a fixed list of classes; memory grows with the pairs that occur, not with the
/// square of the classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    cells: BTreeMap<(u16, u16), u64>,
    support: Vec<u64>,
    answered: Vec<u64>,
    total: u64,
}

impl Confusion {
    /// Counts over rows. Refuses unequal lengths, no rows, and a label that is not below `classes`.
    pub fn new(classes: usize, truths: &[u16], answers: &[u16]) -> Result<Self, Error> {
        if truths.len() != answers.len() {
            return Err(Error::usage(format!(
                "{} answers for {} labelled rows: every row needs exactly one answer",
                answers.len(),
                truths.len()
            )));
        }
        if truths.is_empty() {
            return Err(Error::usage("no rows to score: choose a split or a limit of at least one row"));
        }
        let mut confusion = Confusion::empty(classes);
        for (row, (&truth, &answer)) in truths.iter().zip(answers).enumerate() {
            for (what, class) in [("label", truth), ("answer", answer)] {
                if usize::from(class) >= classes {
                    return Err(Error::usage(format!(
                        "row {row}: {what} {class} is not below the number of classes, {classes}"
                    )));
                }
            }
            confusion.add(truth, answer, 1);
        }
        Ok(confusion)
    }

    /// The counts of a matrix `[truth][answer]`; `None` unless it is square and of at most 65,536 classes.
    pub fn of_matrix(counts: &[Vec<u64>]) -> Option<Self> {
        let classes = counts.len();
        let square = classes <= 1 << 16 && counts.iter().all(|line| line.len() == classes);
        let mut confusion = Confusion::empty(classes);
        for (truth, line) in counts.iter().enumerate().filter(|_| square) {
            for (answer, &n) in line.iter().enumerate().filter(|(_, n)| **n > 0) {
                confusion.add(truth as u16, answer as u16, n);
            }
        }
        square.then_some(confusion)
    }

    fn empty(classes: usize) -> Self {
        Confusion { cells: BTreeMap::new(), support: vec![0; classes], answered: vec![0; classes], total: 0 }
    }

    fn add(&mut self, truth: u16, answer: u16, n: u64) {
        *self.cells.entry((truth, answer)).or_default() += n;
        self.support[usize::from(truth)] += n;
        self.answered[usize::from(answer)] += n;
        self.total += n;
    }

    /// Takes other counts for the pairs that occur, in order.
    fn recount(&mut self, counts: &[u64]) {
        self.support.fill(0);
        self.answered.fill(0);
        for ((pair, cell), n) in self.cells.iter_mut().zip(counts) {
            *cell = *n;
            self.support[usize::from(pair.0)] += n;
            self.answered[usize::from(pair.1)] += n;
        }
        self.total = counts.iter().sum();
    }

    /// The square matrix `[truth][answer]`.
    pub fn matrix(&self) -> Vec<Vec<u64>> {
        let mut counts = vec![vec![0; self.classes()]; self.classes()]; // [truth, answer]
        self.cells.iter().for_each(|(&(truth, answer), &n)| counts[usize::from(truth)][usize::from(answer)] = n);
        counts
    }

    /// The pairs that occur, `((truth, answer), rows)`, in order.
    pub fn cells(&self) -> impl Iterator<Item = ((u16, u16), u64)> {
        self.cells.iter().map(|(&pair, &n)| (pair, n))
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.support.len()
    }

    /// Rows counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Rows of `class` answered correctly.
    fn right(&self, class: usize) -> u64 {
        self.cells.get(&(class as u16, class as u16)).copied().unwrap_or(0)
    }

    /// Rows answered correctly.
    pub fn correct(&self) -> u64 {
        self.cells().filter(|((truth, answer), _)| truth == answer).map(|(_, n)| n).sum()
    }

    /// Rows whose truth is `class`.
    pub fn support(&self, class: usize) -> u64 {
        self.support[class]
    }

    /// Rows answered `class`.
    pub fn answered(&self, class: usize) -> u64 {
        self.answered[class]
    }

    /// Whether any row is of `class` or answered so.
    pub fn occurs(&self, class: usize) -> bool {
        self.support[class] + self.answered[class] > 0
    }

    /// Fraction of rows answered correctly.
    pub fn accuracy(&self) -> f64 {
        ratio(self.correct(), self.total())
    }

    /// Correct among the rows answered `class`; 0 when there is none (scikit-learn's `zero_division=0`).
    pub fn precision(&self, class: usize) -> f64 {
        ratio(self.right(class), self.answered(class))
    }

    /// Correct among the rows of `class`; 0 when there is none.
    pub fn recall(&self, class: usize) -> f64 {
        ratio(self.right(class), self.support(class))
    }

    /// `2 TP / (2 TP + FP + FN)` of `class`; 0 when the class does not occur.
    pub fn f1(&self, class: usize) -> f64 {
        ratio(2 * self.right(class), self.support(class) + self.answered(class))
    }

    /// Interval, 95 %, of a quantity of these counts by the bootstrap; `None` without rows.
    pub fn interval(&self, of: impl Fn(&Self) -> f64) -> Option<(f64, f64)> {
        let counts: Vec<u64> = self.cells.values().copied().collect();
        let mut counted = self.clone();
        let drawn = |draw: &[u64]| {
            counted.recount(draw);
            of(&counted)
        };
        stats::bootstrap_counts(&counts, drawn, RESAMPLES.0, RESAMPLES.1)
    }

    /// Plain mean of a per-class quantity over the classes that occur, which is scikit-learn's default.
    pub fn macro_mean(&self, of: impl Fn(&Self, usize) -> f64) -> f64 {
        let classes: Vec<usize> = (0..self.classes()).filter(|class| self.occurs(*class)).collect();
        classes.iter().map(|class| of(self, *class)).sum::<f64>() / classes.len().max(1) as f64
    }
}

/// Resamples of the interval of a macro mean, and their seed.
const RESAMPLES: (usize, u64) = (1000, 1);

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Computes the measures of one metric from a confusion matrix and the class names.
pub type OfClasses = fn(&Confusion, &[String]) -> Vec<(String, Measure)>;

/// Every classification metric: the name a task asks for, and its computation. `f1` yields one `f1/<class>` per class that
/// occurs.
pub static CLASS_METRICS: &[(&str, OfClasses)] = &[
    ("accuracy", |confusion, _| {
        let (lo, hi) = wilson(confusion.correct(), confusion.total());
        vec![("accuracy".into(), fraction(confusion, confusion.accuracy()).between(lo, hi))]
    }),
    ("f1_macro", |confusion, _| vec![("f1_macro".into(), macro_measure(confusion, Confusion::f1))]),
    ("precision_macro", |confusion, _| {
        vec![("precision_macro".into(), fraction(confusion, confusion.macro_mean(Confusion::precision)))]
    }),
    ("recall_macro", |confusion, _| {
        vec![("recall_macro".into(), fraction(confusion, confusion.macro_mean(Confusion::recall)))]
    }),
    ("f1", |confusion, classes| {
        let each = classes.iter().enumerate().filter(|(class, _)| confusion.occurs(*class));
        each.map(|(class, name)| (format!("f1/{name}"), fraction(confusion, confusion.f1(class)))).collect()
    }),
];

/// A macro mean with its interval.
fn macro_measure(confusion: &Confusion, of: fn(&Confusion, usize) -> f64) -> Measure {
    let measure = fraction(confusion, confusion.macro_mean(of));
    let value = measure.value;
    match confusion.interval(|drawn| drawn.macro_mean(of)) {
        // A draw may miss a class, which lifts the mean of the others: the range holds the value in any case.
        Some((lo, hi)) => measure.between(lo.min(value), hi.max(value)),
        None => measure,
    }
}

fn fraction(confusion: &Confusion, value: f64) -> Measure {
    Measure::measured(value, "fraction", confusion.total())
}

/// The measures of the named metrics (all of [`CLASS_METRICS`] when `names` is empty), by the measure's name. `classes` holds
/// one name per class of the matrix; a name that is in no list is refused.
pub fn of_classes(
    confusion: &Confusion,
    classes: &[String],
    names: &[String],
) -> Result<BTreeMap<String, Measure>, Error> {
    if classes.len() != confusion.classes() {
        return Err(Error::usage(format!(
            "{} class names for a confusion matrix of {} classes",
            classes.len(),
            confusion.classes()
        )));
    }
    check_names(names, Question::Classify)?;
    let chosen = CLASS_METRICS.iter().filter(|(name, _)| asked(names, name));
    Ok(chosen.flat_map(|(_, compute)| compute(confusion, classes)).collect())
}

/// How much more often the first part is answered right than the others are in the mean.
pub const DROP: &str = "cross_lingual_drop";

/// Accuracy of each part of the rows, `accuracy/<part>`, and [`DROP`] where there are several. `parts` are in the order of the
/// rows; without parts there is nothing.
pub fn of_parts(parts: &[PartRows], truths: &[u16], answers: &[u16]) -> BTreeMap<String, Measure> {
    let hits: Vec<f64> = truths.iter().zip(answers).map(|(a, b)| f64::from(u8::from(a == b))).collect();
    let (mut all, mut right, mut rest) = (BTreeMap::new(), Vec::new(), &hits[..]);
    for part in parts {
        let (own, others) = rest.split_at(part.rows.min(rest.len()));
        if !own.is_empty() {
            all.insert(format!("accuracy/{}", part.name), share(own.iter().copied()));
        }
        right.push(own);
        rest = others;
    }
    all.extend(drop_after_first(&right).map(|measure| (DROP.into(), measure)));
    all
}

/// Accuracy of the rows of each range of length.
pub fn of_lengths(lengths: &TokenLengths, truths: &[u16], answers: &[u16]) -> BTreeMap<String, Measure> {
    let hit = |row: &usize| f64::from(u8::from(truths.get(*row).is_some_and(|truth| answers.get(*row) == Some(truth))));
    let ranges = lengths.ranges().into_iter();
    ranges.map(|(name, rows)| (format!("accuracy_tokens/{name}"), share(rows.iter().map(hit)))).collect()
}

/// The share of hits, with its Wilson 95 % interval.
fn share(hits: impl ExactSizeIterator<Item = f64>) -> Measure {
    let n = hits.len() as u64;
    let correct = hits.sum::<f64>() as u64;
    let (lo, hi) = wilson(correct, n);
    Measure::measured(ratio(correct, n), "fraction", n).between(lo, hi)
}

/// With the normal 95 % interval of paired differences where all parts have as many rows, which are taken to be translations of
/// one another; were they not, the interval would be right as well.
fn drop_after_first(right: &[&[f64]]) -> Option<Measure> {
    let (first, others) = right.split_first()?;
    if others.is_empty() || right.iter().any(|part| part.is_empty()) {
        return None;
    }
    let n = right.iter().map(|part| part.len() as u64).sum();
    let of_others = |at: &dyn Fn(&[f64]) -> f64| others.iter().map(|part| at(part)).sum::<f64>() / others.len() as f64;
    let center = |part: &[f64]| stats::mean(part).unwrap_or(0.0);
    let measure = Measure::measured(center(first) - of_others(&center), "ratio", n);
    if others.iter().any(|part| part.len() != first.len()) {
        return Some(measure);
    }
    let differences: Vec<f64> = (0..first.len()).map(|row| first[row] - of_others(&|part| part[row])).collect();
    let half = stats::mean_interval(&differences).map(|(center, _, hi)| hi - center);
    let value = measure.value;
    Some(half.map_or(measure.clone(), |half| measure.between(value - half, value + half)))
}

/// Computes a metric from expected and predicted values of equal length.
pub type OfValues = fn(&[f64], &[f64]) -> Measure;

/// Every metric of numbers.
pub static VALUE_METRICS: &[(&str, OfValues)] = &[
    ("mse", |expected, predicted| {
        mean(expected.iter().zip(predicted).map(|(y, p)| (y - p) * (y - p)).collect(), "squared_target")
    }),
    ("mae", |expected, predicted| mean(expected.iter().zip(predicted).map(|(y, p)| (y - p).abs()).collect(), "target")),
    ("r2", |expected, predicted| {
        let (value, lo, hi) = r2(expected, predicted);
        Measure::measured(value, "ratio", expected.len() as u64).between(lo, hi)
    }),
];

/// The mean with its normal 95 % interval.
fn mean(losses: Vec<f64>, unit: &str) -> Measure {
    let measure = Measure::measured(stats::mean(&losses).unwrap_or(0.0), unit, losses.len() as u64);
    match stats::mean_interval(&losses) {
        Some((_, lo, hi)) => measure.between(lo.max(0.0), hi),
        None => measure,
    }
}

/// Share of the variance that is explained, `1 - sum((y - p)^2) / sum((y - mean(y))^2)`, with its 95 % interval by the delta
/// method for a ratio of two means. 0 where the numbers do not vary.
pub fn r2(expected: &[f64], predicted: &[f64]) -> (f64, f64, f64) {
    let center = stats::mean(expected).unwrap_or(0.0);
    let spread: Vec<f64> = expected.iter().map(|y| (y - center) * (y - center)).collect();
    let whole = stats::mean(&spread).unwrap_or(0.0);
    if whole <= 0.0 {
        return (0.0, 0.0, 0.0);
    }
    let losses: Vec<f64> = expected.iter().zip(predicted).map(|(y, p)| (y - p) * (y - p)).collect();
    let ratio = stats::mean(&losses).unwrap_or(0.0) / whole;
    let influence: Vec<f64> = losses.iter().zip(&spread).map(|(loss, d)| (loss - ratio * d) / whole).collect();
    let half = stats::mean_interval(&influence).map_or(f64::INFINITY, |(center, _, hi)| hi - center);
    (1.0 - ratio, 1.0 - ratio - half, (1.0 - ratio + half).min(1.0))
}

/// The measures of the named metrics (all of [`VALUE_METRICS`] when `names` is empty), by the measure's name.
pub fn of_values(expected: &[f64], predicted: &[f64], names: &[String]) -> Result<BTreeMap<String, Measure>, Error> {
    if expected.len() != predicted.len() || expected.is_empty() {
        let (n, rows) = (predicted.len(), expected.len());
        return Err(Error::usage(format!(
            "{n} predictions for {rows} rows: every row needs exactly one, and there must be rows"
        )));
    }
    check_names(names, Question::Regress)?;
    let chosen = VALUE_METRICS.iter().filter(|(name, _)| asked(names, name));
    Ok(chosen.map(|(name, compute)| (name.to_string(), compute(expected, predicted))).collect())
}

/// Whether a task that names these metrics asks for one.
pub(crate) fn asked(names: &[String], name: &str) -> bool {
    names.is_empty() || names.iter().any(|n| n == name)
}

/// Refuses a name that is no metric of the question.
pub fn check_names(names: &[String], question: Question) -> Result<(), Error> {
    let known = (question.spec().metrics)();
    match names.iter().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(Error::usage(format!("unknown metric `{name}`: the metrics are {}", known.join(", ")))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| n.to_string()).collect()
    }

    /// Truths and answers with what scikit-learn makes of them, by `tools/golden/classification.py`.
    const GOLDEN: &str = include_str!("../tests/golden/classification.json");

    #[derive(serde::Deserialize)]
    struct Case {
        classes: usize,
        truths: Vec<u16>,
        answers: Vec<u16>,
        measures: BTreeMap<String, f64>,
    }

    #[test]
    fn as_scikit_learn() {
        let cases: Vec<Case> = serde_json::from_str(GOLDEN).unwrap();
        assert!(cases.len() >= 5);
        for case in cases {
            let confusion = Confusion::new(case.classes, &case.truths, &case.answers).unwrap();
            let classes: Vec<String> = (0..case.classes).map(|class| class.to_string()).collect();
            let found = of_classes(&confusion, &classes, &[]).unwrap();
            assert_eq!(found.keys().collect::<Vec<_>>(), case.measures.keys().collect::<Vec<_>>());
            for (name, value) in case.measures {
                let found = &found[&name];
                assert!((found.value - value).abs() < 1e-15, "{name} {} {value}", found.value);
                assert_eq!((found.n, found.unit.as_str()), (case.truths.len() as u64, "fraction"));
            }
            assert_eq!(Confusion::of_matrix(&confusion.matrix()).unwrap(), confusion);
        }
        let accuracy = &of_classes(
            &Confusion::new(2, &[0; 12], &[0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1]).unwrap(),
            &names(&["a", "b"]),
            &[],
        )
        .unwrap()["accuracy"];
        // statsmodels.stats.proportion.proportion_confint(7, 12, method="wilson")
        assert!((accuracy.lo.unwrap() - 0.31951131254954973).abs() < 1e-12);
        assert!((accuracy.hi.unwrap() - 0.8067396863412435).abs() < 1e-12);
    }

    #[derive(serde::Deserialize)]
    struct Regression {
        expected: Vec<f64>,
        linear: Vec<f64>,
        mse: f64,
        mae: f64,
        r2: f64,
        many: Vec<f64>,
        guess: Vec<f64>,
        r2_many: f64,
        interval: [f64; 2],
    }

    /// Values of `tools/golden/regression.py`; the interval is by 4,000 resamples there and by the delta method here.
    #[test]
    fn numbers_as_scikit_learn() {
        let golden: Regression = serde_json::from_str(include_str!("../tests/golden/regression.json")).unwrap();
        let found = of_values(&golden.expected, &golden.linear, &[]).unwrap();
        for (name, value) in [("mse", golden.mse), ("mae", golden.mae), ("r2", golden.r2)] {
            let measure = &found[name];
            assert!((measure.value - value).abs() < 1e-12 * value, "{name} {} {value}", measure.value);
            assert!(measure.lo.unwrap() < value && value < measure.hi.unwrap() && measure.n == 12);
        }
        let (value, lo, hi) = r2(&golden.many, &golden.guess);
        assert!((value - golden.r2_many).abs() < 1e-12);
        let [low, high] = golden.interval;
        assert!((lo - low).abs() < 0.05 * (high - low) && (hi - high).abs() < 0.05 * (high - low), "{lo} {hi}");
        assert_eq!(r2(&[2.0, 2.0], &[1.0, 3.0]), (0.0, 0.0, 0.0));
        assert_eq!(of_values(&[1.0], &[1.0, 2.0], &[]).unwrap_err().kind, crate::error::Kind::Usage);
        assert!(of_values(&[1.0], &[1.0], &names(&["accuracy"])).is_err());
    }

    #[test]
    fn many_classes_take_no_square_of_memory() {
        let classes = 32_768;
        let labels: Vec<u16> = (0..classes as u16).collect();
        let confusion = Confusion::new(classes, &labels, &labels).unwrap();
        assert_eq!((confusion.macro_mean(Confusion::f1), confusion.cells().count()), (1.0, classes));
    }

    #[test]
    fn only_what_is_asked_for() {
        let confusion = Confusion::new(2, &[0, 1], &[0, 1]).unwrap();
        let some = of_classes(&confusion, &names(&["n", "y"]), &names(&["f1", "accuracy"])).unwrap();
        assert_eq!(some.keys().collect::<Vec<_>>(), ["accuracy", "f1/n", "f1/y"]);
        let error = of_classes(&confusion, &names(&["n", "y"]), &names(&["f2"])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown metric `f2`: the metrics are accuracy, f1_macro, precision_macro, recall_macro, f1"
        );
        assert!(of_classes(&confusion, &names(&["n"]), &[]).is_err());
    }

    #[test]
    fn refuses_bad_rows() {
        let message = |truths: &[u16], answers: &[u16]| Confusion::new(2, truths, answers).unwrap_err().to_string();
        assert_eq!(message(&[0, 1], &[0]), "1 answers for 2 labelled rows: every row needs exactly one answer");
        assert_eq!(message(&[0, 1], &[0, 2]), "row 1: answer 2 is not below the number of classes, 2");
        assert_eq!(message(&[5, 1], &[0, 0]), "row 0: label 5 is not below the number of classes, 2");
        assert!(message(&[], &[]).starts_with("no rows to score"));
    }
}
