//! The checks a report runs on itself: one list, numbered as in the catalogue of faults they come from.

mod memory;
mod quality;
mod scope;
mod speed;
mod words;

use super::compare::Comparison;
use super::document::{Block, Document};
use super::number::count;
use super::sentence::Tone;
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
    /// Wrong: one line each, naming contender, quantity and values.
    Fail(Vec<String>),
    /// The records hold nothing the check is about.
    NotApplicable(String),
}

/// One check.
pub struct Check {
    /// Number in the catalogue.
    pub id: u32,
    /// What it demands, in a few words.
    pub name: &'static str,
    pub(crate) run: fn(&Case) -> Outcome,
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

/// Every check.
pub static CHECKS: &[Check] = &[
    Check { id: 1, name: "every number has a record", run: words::single_source },
    Check { id: 2, name: "derived values recomputed from raw ones", run: quality::derived },
    Check { id: 3, name: "every claim is a true query", run: words::claims },
    Check { id: 4, name: "units are known", run: scope::units },
    Check { id: 5, name: "bits per byte, perplexity and ratio agree", run: quality::identities },
    Check { id: 7, name: "no accuracy above the ceiling", run: quality::plausible },
    Check { id: 8, name: "a baseline that is no network", run: scope::baselines },
    Check { id: 9, name: "next-byte accuracy fits the entropy", run: quality::calibration },
    Check { id: 10, name: "accuracies are possible counts", run: quality::granularity },
    Check { id: 11, name: "values lie in their ranges", run: quality::feasible },
    Check { id: 12, name: "intervals on accuracies, words only beyond them", run: quality::intervals },
    Check { id: 13, name: "the whole test split is scored", run: scope::coverage },
    Check { id: 14, name: "train and test are apart", run: scope::hygiene },
    Check { id: 15, name: "the memory ledger adds up", run: memory::ledger },
    Check { id: 16, name: "bits per weight fit the format", run: memory::bits },
    Check { id: 18, name: "sizes are real bytes", run: memory::real_bytes },
    Check { id: 19, name: "latencies have raw runs", run: speed::raw_runs },
    Check { id: 20, name: "no time is another divided by a constant", run: speed::forensics },
    Check { id: 21, name: "no speed above the machine's limits", run: memory::roofline },
    Check { id: 22, name: "energy is of one kind and fits the power", run: speed::energy },
    Check { id: 23, name: "contenders answered the same rows", run: scope::same_rows },
    Check { id: 25, name: "throughput is not one over latency", run: speed::throughput },
    Check { id: 26, name: "nothing dominated is recommended", run: words::recommendations },
    Check { id: 27, name: "absolute, relative and error-rate change together", run: words::three_changes },
    Check { id: 28, name: "thresholds separate something", run: words::thresholds },
    Check { id: 29, name: "one name is one model", run: memory::identity },
    Check { id: 30, name: "ternary weights have three values", run: memory::levels },
    Check { id: 32, name: "macro F1 is the mean of the classes", run: quality::aggregation },
    Check { id: 34, name: "what was not measured is marked", run: words::marks },
    Check { id: 35, name: "no placeholder, no negative zero", run: words::placeholders },
    Check { id: 36, name: "bars start at zero and are proportional", run: words::bars },
    Check { id: 37, name: "no digits repeated in unrelated cells", run: scope::repeated_digits },
    Check { id: 38, name: "published values name their source", run: scope::citations },
    Check { id: 39, name: "unknown is not measured, never zero or a dash", run: words::unknowns },
    Check { id: EMBEDDED, name: "the records survive being embedded", run: words::embedded },
];

/// Number of the check that compares files with their records.
pub(crate) const EMBEDDED: u32 = 40;

/// Runs every check.
pub(crate) fn run_all(case: &Case) -> Vec<CheckResult> {
    CHECKS.iter().map(|c| CheckResult { id: c.id, name: c.name, outcome: (c.run)(case) }).collect()
}

/// "35 checks: 30 passed, ...".
pub(crate) fn summary(results: &[CheckResult]) -> String {
    let of = |f: fn(&Outcome) -> bool| count(results.iter().filter(|r| f(&r.outcome)).count() as f64);
    format!(
        "{} checks: {} passed, {} failed, {} with a notice, {} not applicable.",
        count(results.len() as f64),
        of(|o| *o == Outcome::Pass),
        of(|o| matches!(o, Outcome::Fail(_))),
        of(|o| matches!(o, Outcome::Notice(_))),
        of(|o| matches!(o, Outcome::NotApplicable(_))),
    )
}

/// A warning for the top of the report when a check failed.
pub(crate) fn banner(results: &[CheckResult]) -> Option<Block> {
    let failed: Vec<String> = results.iter().filter(|r| r.failed()).map(|r| format!("{} ({})", r.id, r.name)).collect();
    (!failed.is_empty()).then(|| {
        Block::Callout(Tone::Bad, format!("Do not rely on this report. Failed checks: {}.", failed.join(", ")))
    })
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

/// Equal within `tolerance`, relative to the larger.
fn close(a: f64, b: f64, tolerance: f64) -> bool {
    a == b || (a - b).abs() <= tolerance * a.abs().max(b.abs())
}
