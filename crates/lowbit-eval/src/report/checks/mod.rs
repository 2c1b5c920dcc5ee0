//! The checks a report runs on itself: one list, numbered as in the catalogue of faults they come from.

mod faithfulness;
mod memory;
mod quality;
mod scope;
mod speed;
#[cfg(test)]
mod tests;
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

macro_rules! checks {
    ($($id:tt $name:literal $run:path;)+) => { &[$(Check { id: $id, name: $name, run: $run }),+] };
}

/// Every check.
pub static CHECKS: &[Check] = checks! {
    1 "every number has a record" words::single_source;
    2 "derived values recomputed from raw ones" quality::derived;
    3 "every claim is a true query" words::claims;
    4 "units are known" scope::units;
    5 "bits per byte, perplexity and ratio agree" quality::identities;
    6 "compressed files have the size that their probabilities say" quality::coded;
    7 "no accuracy above the ceiling" quality::plausible;
    8 "a baseline that is no network" scope::baselines;
    9 "next-byte accuracy fits the entropy" quality::calibration;
    10 "accuracies are possible counts" quality::granularity;
    11 "values lie in their ranges" quality::feasible;
    12 "intervals on accuracies, words only beyond them" quality::intervals;
    13 "the whole test split is scored" scope::coverage;
    14 "train and test are apart" scope::hygiene;
    15 "the memory ledger adds up" memory::ledger;
    16 "bits per weight fit the format" memory::bits;
    18 "sizes are real bytes" memory::real_bytes;
    19 "latencies have raw runs" speed::raw_runs;
    20 "no time is another divided by a constant" speed::forensics;
    21 "no speed above the machine's limits" memory::roofline;
    22 "energy is of one kind and fits the power" speed::energy;
    23 "variants answered the same rows" scope::same_rows;
    25 "throughput is not one over latency" speed::throughput;
    26 "nothing dominated is recommended" words::recommendations;
    27 "absolute, relative and error-rate change together" words::three_changes;
    28 "thresholds separate something" words::thresholds;
    29 "one name is one model" memory::identity;
    30 "ternary weights have three values" memory::levels;
    32 "macro F1 is the mean of the classes" quality::aggregation;
    34 "what was not measured is marked" words::marks;
    35 "no placeholder, no negative zero" words::placeholders;
    36 "bars start at zero and are proportional" words::bars;
    37 "no digits repeated in unrelated cells" scope::repeated_digits;
    38 "published values name their source" scope::citations;
    39 "unknown is not measured, never zero or a dash" words::unknowns;
    EMBEDDED "the records survive being embedded" words::embedded;
    41 "a model is faithful to itself" faithfulness::recomputed;
};

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
        "{} checks: {} passed, {} failed, {} with a notice, {} not applicable. The \
         numbers up to forty are those of a catalogue; the missing ones are about quantities that this report never prints.",
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
