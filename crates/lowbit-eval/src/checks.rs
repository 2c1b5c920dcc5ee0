//! The checks of reports: one list, numbered as in the catalogue of faults they come from. Those of records run at rendering and by
//! `lowbit report --verify`, those of text by `lowbit audit`; what both compute lies in `laws`.

use crate::audit::checks as text;
use crate::audit::{Findings, Reading};
use crate::report::checks::{self as records, Case, Outcome};

/// How wrong a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth a look.
    Notice,
    /// Nothing supports it.
    Warning,
    /// Arithmetic that fails.
    Error,
}

impl Severity {
    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            Severity::Notice => "notice",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// One check.
pub struct Check {
    /// Number in the catalogue.
    pub id: u32,
    /// What it demands, in a few words.
    pub name: &'static str,
    /// What it reads.
    pub reads: &'static str,
    severity: Severity,
    /// On records.
    pub(crate) records: Option<fn(&Case) -> Outcome>,
    /// On the text of any report.
    pub(crate) text: Option<fn(&Reading, &mut Findings)>,
}

impl Check {
    /// The most severe of what it finds.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// Whether `report --verify` runs it.
    pub fn is_of_records(&self) -> bool {
        self.records.is_some()
    }

    /// Whether `audit` runs it.
    pub fn is_of_text(&self) -> bool {
        self.text.is_some()
    }
}

macro_rules! checks {
    (@ (_)) => { None };
    (@ ($path:path)) => { Some($path) };
    ($($id:tt $name:literal $severity:ident $reads:literal $records:tt $text:tt;)+) => {
        &[$(Check {
            id: $id, name: $name, reads: $reads, severity: Severity::$severity,
            records: checks!(@ $records), text: checks!(@ $text),
        }),+]
    };
}

/// Number of the check that compares files with their records.
pub(crate) const EMBEDDED: u32 = 40;

/// Every check.
pub static CHECKS: &[Check] = checks! {
    1 "every number has a record" Error "all measures, sentences and remarks"
        (records::words::single_source) (text::claims::groundless);
    2 "derived values recomputed from raw ones" Error "answers, raw runs; speed-ups, ratios, reductions, differences"
        (records::quality::derived) (text::derived::recomputed);
    3 "every claim is a true query" Error "sentences" (records::words::claims) (text::claims::claims);
    4 "units are known" Error "units; percent and points, MB and MiB" (records::scope::units) (text::units::units);
    5 "bits per byte, perplexity and ratio agree" Error "bits per byte, perplexity, compression ratio"
        (records::quality::identities) (text::language::identities);
    6 "compressed files have the size that their probabilities say" Error "compressed bytes, bits per byte"
        (records::quality::coded) (text::language::coded);
    7 "no accuracy above the ceiling" Error "accuracies; ceilings and published values"
        (records::quality::plausible) (text::accuracy::plausible);
    8 "a baseline that is no network" Error "variants of a task; compression ratios"
        (records::scope::baselines) (text::language::baselines);
    9 "next-byte accuracy fits the entropy" Error "next-byte accuracy, perplexity"
        (records::quality::calibration) (text::language::calibration);
    10 "accuracies are possible counts" Error "accuracies, test rows" (records::quality::granularity) (text::accuracy::counts);
    11 "values lie in their ranges" Error "ranges, fractions, percentiles, means" (records::quality::feasible) (text::accuracy::feasible);
    12 "intervals on accuracies, words only beyond them" Error "accuracies and their n; words of ranking"
        (records::quality::intervals) (text::accuracy::intervals);
    13 "the whole test split is scored" Error "test rows" (records::scope::coverage) (text::scope::coverage);
    14 "train and test are apart" Error "hashes of rows; names of data sets" (records::scope::hygiene) (text::language::hygiene);
    15 "the memory ledger adds up" Error "tensors; shares and sizes of memory" (records::memory::ledger) (text::memory::ledger);
    16 "bits per weight fit the format" Error "tensors; sizes, parameters and labels" (records::memory::bits) (text::memory::bits);
    17 "training needs more memory than answering" Error "peaks of training and inference"
        (records::memory::training) (text::memory::training);
    18 "sizes are real bytes" Error "sizes" (records::memory::real_bytes) (text::memory::formula);
    19 "latencies have raw runs" Error "raw runs; numbers of runs" (records::speed::raw_runs) (text::speed::runs);
    20 "no time is another divided by a constant" Error "raw runs; pairs of times and their ratios"
        (records::speed::forensics) (text::derived::constant);
    21 "no speed above the machine's limits" Error "rates, sizes, limits; named devices"
        (records::memory::roofline) (text::speed::roofline);
    22 "energy is of one kind and fits the power" Error "energies, powers and times" (records::speed::energy) (text::speed::energy);
    23 "variants answered the same rows" Error "rows answered; devices and factors of one table"
        (records::scope::same_rows) (text::scope::compared);
    24 "ranges stay ranges" Error "ranges of measures; ratios of ranges" (records::quality::ranges) (text::claims::ranges);
    25 "throughput is not one over latency" Error "throughputs and latencies" (records::speed::throughput) (text::derived::throughput);
    26 "nothing dominated is recommended" Error "recommendations" (records::words::recommendations) (text::claims::recommendations);
    27 "absolute, relative and error-rate change together" Error "changes of accuracy; losses held against a bound"
        (records::words::three_changes) (text::accuracy::losses);
    28 "thresholds separate something" Error "thresholds" (records::words::thresholds) (text::claims::thresholds);
    29 "one name is one model" Error "names, parameters, hashes" (records::memory::identity) (text::scope::identity);
    30 "ternary weights have three values" Error "stored values; bits of labels" (records::memory::levels) (text::scope::method);
    31 "larger is not worse" Warning "parameters and scores of one family" (records::scope::scaling) (text::language::scaling);
    32 "macro F1 is the mean of the classes" Error "F1 scores" (records::quality::aggregation) (text::accuracy::aggregation);
    33 "costs count energy" Error "costs, powers and rates" (records::speed::costs) (text::speed::costs);
    34 "what was not measured is marked" Error "estimates; tables of the future" (records::words::marks) (text::scope::projections);
    35 "nothing left to be filled in, no negative zero" Error "all text" (records::words::placeholders) (text::units::placeholders);
    36 "bars start at zero and are proportional" Error "bars" (records::words::bars) (text::units::bars);
    37 "no digits repeated in unrelated cells" Notice "values of four digits" (records::scope::repeated_digits) (text::units::digits);
    38 "published values name their source" Error "published values" (records::scope::citations) (text::scope::citations);
    39 "unknown is not measured, never zero or a dash" Error "cells; quantities without a value"
        (records::words::unknowns) (text::claims::unknowns);
    EMBEDDED "the records survive being embedded" Error "results.json, report.html, report.md, results.csv, weights"
        (records::words::embedded) (_);
    41 "a model is faithful to itself" Error "divergences from a reference" (records::faithfulness::recomputed) (_);
    42 "prefill is not decode" Warning "prompt and decode rates" (records::speed::prefill) (text::speed::prefill);
    43 "threads change times" Warning "times by number of threads" (_) (text::speed::threads);
    44 "a competitor is as fast as it is known to be" Warning "rates and published rates" (_) (text::speed::competitors);
};
