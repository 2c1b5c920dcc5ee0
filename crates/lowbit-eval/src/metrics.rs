//! From answers and truths to measures.

use crate::error::Error;
use crate::record::Measure;
use crate::stats::wilson;
use std::collections::BTreeMap;

/// Counts of (truth, answer) pairs over a fixed list of classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    /// `counts[truth][answer]`, square.
    pub counts: Vec<Vec<u64>>,
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
        let mut counts = vec![vec![0; classes]; classes]; // [truth, answer]
        for (row, (&truth, &answer)) in truths.iter().zip(answers).enumerate() {
            for (what, class) in [("label", truth), ("answer", answer)] {
                if usize::from(class) >= classes {
                    return Err(Error::usage(format!(
                        "row {row}: {what} {class} is not below the number of classes, {classes}"
                    )));
                }
            }
            counts[usize::from(truth)][usize::from(answer)] += 1;
        }
        Ok(Confusion { counts })
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.counts.len()
    }

    /// Rows counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().flatten().sum()
    }

    /// Rows answered correctly.
    pub fn correct(&self) -> u64 {
        (0..self.classes()).map(|class| self.counts[class][class]).sum()
    }

    /// Rows whose truth is `class`.
    pub fn support(&self, class: usize) -> u64 {
        self.counts[class].iter().sum()
    }

    /// Rows answered `class`.
    pub fn answered(&self, class: usize) -> u64 {
        self.counts.iter().map(|row| row[class]).sum()
    }

    /// Fraction of rows answered correctly.
    pub fn accuracy(&self) -> f64 {
        ratio(self.correct(), self.total())
    }

    /// Correct among the rows answered `class`; 0 when there is none (scikit-learn's `zero_division=0`).
    pub fn precision(&self, class: usize) -> f64 {
        ratio(self.counts[class][class], self.answered(class))
    }

    /// Correct among the rows of `class`; 0 when there is none.
    pub fn recall(&self, class: usize) -> f64 {
        ratio(self.counts[class][class], self.support(class))
    }

    /// `2 TP / (2 TP + FP + FN)` of `class`; 0 when the class is neither present nor answered.
    pub fn f1(&self, class: usize) -> f64 {
        ratio(2 * self.counts[class][class], self.support(class) + self.answered(class))
    }

    /// Plain mean of a per-class quantity over all classes of the task, absent ones included.
    pub fn macro_mean(&self, of: impl Fn(&Self, usize) -> f64) -> f64 {
        (0..self.classes()).map(|class| of(self, class)).sum::<f64>() / self.classes() as f64
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Computes the measures of one metric from a confusion matrix and the class names.
pub type Compute = fn(&Confusion, &[String]) -> Vec<(String, Measure)>;

/// Every classification metric: the name a task asks for, and its computation. `f1` yields one `f1/<class>` per class.
pub static METRICS: &[(&str, Compute)] = &[
    ("accuracy", |confusion, _| {
        let (lo, hi) = wilson(confusion.correct(), confusion.total());
        vec![("accuracy".into(), fraction(confusion, confusion.accuracy()).between(lo, hi))]
    }),
    ("f1_macro", |confusion, _| vec![("f1_macro".into(), fraction(confusion, confusion.macro_mean(Confusion::f1)))]),
    ("precision_macro", |confusion, _| {
        vec![("precision_macro".into(), fraction(confusion, confusion.macro_mean(Confusion::precision)))]
    }),
    ("recall_macro", |confusion, _| {
        vec![("recall_macro".into(), fraction(confusion, confusion.macro_mean(Confusion::recall)))]
    }),
    ("f1", |confusion, classes| {
        let each = classes.iter().enumerate();
        each.map(|(class, name)| (format!("f1/{name}"), fraction(confusion, confusion.f1(class)))).collect()
    }),
];

fn fraction(confusion: &Confusion, value: f64) -> Measure {
    Measure::measured(value, "fraction", confusion.total())
}

/// The measures of the named metrics (all of [`METRICS`] when `names` is empty), by the measure's name. `classes` holds one
/// name per class of the matrix; a name that is not in [`METRICS`] is refused.
pub fn measures(
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
    check_names(names)?;
    let wanted = |name: &str| names.is_empty() || names.iter().any(|n| n == name);
    let chosen = METRICS.iter().filter(|(name, _)| wanted(name));
    Ok(chosen.flat_map(|(_, compute)| compute(confusion, classes)).collect())
}

/// Refuses a name that is not in [`METRICS`].
pub fn check_names(names: &[String]) -> Result<(), Error> {
    for name in names {
        if !METRICS.iter().any(|(known, _)| known == name) {
            let known: Vec<_> = METRICS.iter().map(|(known, _)| *known).collect();
            return Err(Error::usage(format!("unknown metric `{name}`: the metrics are {}", known.join(", "))));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| n.to_string()).collect()
    }

    #[test]
    fn as_scikit_learn() {
        // t = [0,0,0,0,1,1,1,2,2,2,2,2]; a = [0,0,1,2,1,1,0,2,2,2,1,0]
        // sklearn.metrics.precision_recall_fscore_support(t, a, labels=[0,1,2,3], zero_division=0), also average="macro"
        let truths = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2];
        let answers = [0, 0, 1, 2, 1, 1, 0, 2, 2, 2, 1, 0];
        let confusion = Confusion::new(4, &truths, &answers).unwrap();
        assert_eq!(confusion.counts[2], [1, 1, 3, 0]);
        let all = measures(&confusion, &names(&["a", "b", "c", "absent"]), &[]).unwrap();
        for (name, value) in [
            ("accuracy", 0.5833333333333334),
            ("precision_macro", 0.4375),
            ("recall_macro", 0.44166666666666665),
            ("f1_macro", 0.43452380952380953),
            ("f1/a", 0.5),
            ("f1/b", 0.5714285714285714),
            ("f1/c", 0.6666666666666666),
            ("f1/absent", 0.0),
        ] {
            assert!((all[name].value - value).abs() < 1e-15, "{name} {}", all[name].value);
            assert_eq!((all[name].n, all[name].unit.as_str()), (12, "fraction"));
        }
        assert_eq!(all.len(), 8);
        let accuracy = &all["accuracy"];
        // statsmodels.stats.proportion.proportion_confint(7, 12, method="wilson")
        assert!((accuracy.lo.unwrap() - 0.31951131254954973).abs() < 1e-12);
        assert!((accuracy.hi.unwrap() - 0.8067396863412435).abs() < 1e-12);
    }

    #[test]
    fn only_what_is_asked_for() {
        let confusion = Confusion::new(2, &[0, 1], &[0, 1]).unwrap();
        let some = measures(&confusion, &names(&["n", "y"]), &names(&["f1", "accuracy"])).unwrap();
        assert_eq!(some.keys().collect::<Vec<_>>(), ["accuracy", "f1/n", "f1/y"]);
        let error = measures(&confusion, &names(&["n", "y"]), &names(&["f2"])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown metric `f2`: the metrics are accuracy, f1_macro, precision_macro, recall_macro, f1"
        );
        assert!(measures(&confusion, &names(&["n"]), &[]).is_err());
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
