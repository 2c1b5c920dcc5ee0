//! The checks a report runs on itself: those of [`CHECKS`] that read records.

pub(crate) mod faithfulness;
pub(crate) mod memory;
pub(crate) mod quality;
pub(crate) mod scope;
pub(crate) mod speed;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod words;

use super::compare::Comparison;
use super::document::Document;
use super::number::count;
pub(crate) use crate::checks::EMBEDDED;
use crate::checks::{CHECKS, Check, Severity};
use crate::laws::close;
use crate::record::{Measure, Record, Results};
use std::fmt;

/// What a check looks at: the records, what follows from them, and the report built of both.
pub(crate) struct Case<'a> {
    /// The records.
    pub(crate) results: &'a Results,
    /// One comparison per task.
    pub(crate) tasks: &'a [Comparison<'a>],
    /// The report, without the outcomes of checks.
    pub(crate) document: &'a Document,
}

impl Case<'_> {
    /// Every measure with its record and name.
    fn measures(&self) -> impl Iterator<Item = (&Record, &str, &Measure)> {
        self.results.records.iter().flat_map(|r| r.measures.iter().map(move |(name, m)| (r, name.as_str(), m)))
    }
}

/// The answer of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Looked at something and found nothing wrong.
    Pass,
    /// Nothing wrong, but worth a look: one line each.
    Notice(Vec<String>),
    /// Wrong: one line each, naming variant, quantity and values.
    Fail(Vec<String>),
    /// The records hold nothing the check is about.
    NotApplicable(String),
}

impl Outcome {
    /// In a word, and the lines about it.
    pub fn state(&self) -> (&'static str, &[String]) {
        match self {
            Outcome::Pass => ("pass", &[]),
            Outcome::Notice(lines) => ("notice", lines),
            Outcome::Fail(lines) => ("FAIL", lines),
            Outcome::NotApplicable(_) => ("not applicable", &[]),
        }
    }
}

/// A check with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckResult {
    /// Number in the catalogue.
    pub id: u32,
    /// What the check demands, in a few words.
    pub name: &'static str,
    /// Its answer.
    pub outcome: Outcome,
}

impl CheckResult {
    /// Whether the check failed.
    pub fn failed(&self) -> bool {
        matches!(self.outcome, Outcome::Fail(_))
    }
}

impl fmt::Display for CheckResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "check {} ({}): {}", self.id, self.name, self.outcome)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Pass => f.write_str("pass"),
            Outcome::Notice(lines) => write!(f, "notice: {}", lines.join("; ")),
            Outcome::Fail(lines) => write!(f, "FAIL: {}", lines.join("; ")),
            Outcome::NotApplicable(why) => write!(f, "not applicable: {why}"),
        }
    }
}

/// Runs every check; what one that is no error finds is a notice.
pub(crate) fn run_all(case: &Case) -> Vec<CheckResult> {
    let run = |c: &Check| {
        let outcome = match c.records?(case) {
            Outcome::Fail(lines) if c.severity() < Severity::Error => Outcome::Notice(lines),
            outcome => outcome,
        };
        Some(CheckResult { id: c.id, name: c.name, outcome })
    };
    CHECKS.iter().filter_map(run).collect()
}

/// "35 checks: 30 passed, ...".
pub(crate) fn summary(results: &[CheckResult]) -> String {
    let of = |f: fn(&Outcome) -> bool| count(results.iter().filter(|r| f(&r.outcome)).count() as f64);
    format!(
        "{} checks: {} passed, {} failed, {} with a notice, {} not applicable. The \
         numbers up to forty are those of a catalogue of faults in published reports.",
        count(results.len() as f64),
        of(|o| *o == Outcome::Pass),
        of(|o| matches!(o, Outcome::Fail(_))),
        of(|o| matches!(o, Outcome::Notice(_))),
        of(|o| matches!(o, Outcome::NotApplicable(_))),
    )
}

/// Collects what a check saw and what was wrong with it.
#[derive(Default)]
struct Tally {
    seen: usize,
    wrong: Vec<String>,
}

impl Tally {
    /// Counts one thing looked at; the line is kept when it is wrong.
    fn expect(&mut self, right: bool, line: impl FnOnce() -> String) {
        self.seen += 1;
        if !right {
            self.wrong.push(line());
        }
    }

    /// Failure, pass, or not applicable with `why` when nothing was seen.
    fn outcome(self, why: &str) -> Outcome {
        match (self.seen, self.wrong.is_empty()) {
            (_, false) => Outcome::Fail(self.wrong),
            (0, true) => Outcome::NotApplicable(why.into()),
            _ => Outcome::Pass,
        }
    }

    /// Like [`Tally::outcome`], but what is wrong is only worth a look.
    fn notice(self, why: &str) -> Outcome {
        match self.outcome(why) {
            Outcome::Fail(lines) => Outcome::Notice(lines),
            other => other,
        }
    }
}
