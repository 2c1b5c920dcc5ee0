//! Checks of what is compared with what: units, rows, splits, baselines, sources.

use super::super::compare::{VariantRow, is_network, quality};
use super::super::measures::{UNITS, known};
use super::{Case, Outcome, Tally};
use crate::record::How;
use std::collections::BTreeMap;

/// 4: a known measure has its unit, any other a known unit.
pub(crate) fn units(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    for (record, name, m) in case.measures() {
        let allowed = known(name).map_or(UNITS, |k| k.units);
        tally.expect(allowed.contains(&m.unit.as_str()), || {
            format!("{}: {name} is in \"{}\", not in {}", record.model, m.unit, allowed.join(" or "))
        });
    }
    tally.outcome("no measures")
}

/// 8: where networks are compared, something that is no network is measured too.
pub(crate) fn baselines(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    for c in case.tasks.iter().filter(|c| c.networks().filter(|r| r.quality().is_some()).count() > 1) {
        tally.expect(c.rows.iter().any(|r| !r.network()), || format!("{}: no baseline, such as majority", c.task));
    }
    tally.outcome("fewer than two networks with accuracies")
}

/// 13: as many rows are scored as the split has; fewer are a sample, more are impossible.
pub(crate) fn coverage(case: &Case) -> Outcome {
    let (mut tally, mut sample) = (Tally::default(), Tally::default());
    for c in case.tasks {
        let Some(facts) = c.facts else { continue };
        for (row, m) in c.rows.iter().filter_map(|r| Some((r, quality(r.record)?))) {
            tally.expect(m.n <= facts.test_rows, || {
                format!("{}: {} rows scored, the test split has {}", row.name(), m.n, facts.test_rows)
            });
            sample.expect(m.n >= facts.test_rows, || {
                format!("{}: a sample, {} of {} test rows", row.name(), m.n, facts.test_rows)
            });
        }
    }
    let why = "no accuracies of a known split";
    match tally.outcome(why) {
        Outcome::Pass => sample.notice(why),
        other => other,
    }
}

/// 14: training and test rows differ, tasks have different test rows; overlapping rows are said.
pub(crate) fn hygiene(case: &Case) -> Outcome {
    let (mut tally, mut overlap) = (Tally::default(), Tally::default());
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for facts in &case.results.tasks {
        let (train, test) = (facts.train_sha256.as_str(), facts.test_sha256.as_str());
        tally.expect(!test.is_empty(), || format!("{}: no hash of the test rows", facts.task));
        tally.expect(train != test, || format!("{}: training and test rows are the same", facts.task));
        let first = *seen.entry(test).or_insert(&facts.task);
        // Several suites may be of one task: `mnist@1 (second)`.
        let name = |task: &str| task.split(" (").next().map(String::from);
        tally
            .expect(name(first) == name(&facts.task), || format!("{} and {first} have the same test rows", facts.task));
        overlap.expect(facts.overlap_rows == 0, || {
            format!("{}: {} of {} test rows are also training rows", facts.task, facts.overlap_rows, facts.test_rows)
        });
    }
    match tally.outcome("no facts of a task") {
        Outcome::Pass => overlap.notice(""),
        other => other,
    }
}

/// 23: variants of one task answered the same rows in the same order.
pub(crate) fn same_rows(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    for c in case.tasks {
        let answered = |r: &&VariantRow| !r.record.detail.truths.is_empty() || !r.record.detail.expected.is_empty();
        let with: Vec<_> = c.rows.iter().filter(answered).collect();
        for pair in with.windows(2) {
            let (a, b) = (pair[0].record, pair[1].record);
            let same = a.detail.truths == b.detail.truths && a.detail.expected == b.detail.expected;
            tally.expect(same, || {
                format!("{} and {} answered different rows: they cannot be compared", a.model, b.model)
            });
        }
        let scored = || c.rows.iter().filter_map(|r| Some((r.name(), quality(r.record)?.n)));
        let first = scored().next();
        for (name, n) in scored() {
            tally.expect(first.is_none_or(|f| f.1 == n), || {
                format!("{name}: accuracy on {n} rows, others on another number")
            });
        }
    }
    tally.outcome("no answers")
}

/// What kind of quantity a measure is: values of one kind may well be equal.
fn kind(name: &str) -> &str {
    match name {
        n if n.starts_with("f1") || n.starts_with("precision") || n.starts_with("recall") => "quality",
        n if n.starts_with("accuracy/") => "quality",
        "accuracy" | "accuracy_normalized" | "exact_match" | "r2" | "next_byte_accuracy" | "target_probability" => {
            "quality"
        }
        "bits_per_byte" | "nats_per_token" | "perplexity" | "compression_ratio" => "entropy",
        n if n.starts_with("kl_divergence") => "divergence",
        n if n.ends_with("probability_difference") => "difference",
        "weight_bytes" | "bytes_per_token" => "bytes",
        n if n.ends_with("_rss_bytes") || n.contains("ledger/") => "bytes",
        n if n.starts_with("latency") || n.ends_with("_seconds") => "time",
        n => n.split('/').next().unwrap_or(n),
    }
}

/// 37: the same value with all its digits in measures of different kinds.
pub(crate) fn repeated_digits(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    let mut seen: BTreeMap<u64, (&str, &str)> = BTreeMap::new();
    for (record, name, m) in case.measures() {
        let digits = format!("{}", m.value).chars().filter(char::is_ascii_digit).count();
        if digits < 4 {
            continue;
        }
        let (model, other) = *seen.entry(m.value.to_bits()).or_insert((&record.model, name));
        tally.expect(kind(other) == kind(name), || {
            format!("{model} {other} and {} {name} have the same digits: {}", record.model, m.value)
        });
    }
    tally.outcome("no values of four digits")
}

/// 38: a value quoted from a publication stands beside a remark that names it; so does a quoted ceiling's task.
pub(crate) fn citations(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    for (record, name, m) in case.measures().filter(|(_, _, m)| m.how == How::Published) {
        let cited = record.detail.note.as_deref().is_some_and(|n| !n.trim().is_empty());
        tally.expect(cited, || {
            let what = if is_network(record) { "variant" } else { "baseline" };
            format!("{what} {}: {name} {} is published, but no remark names the source", record.model, m.value)
        });
    }
    tally.outcome("nothing quoted from a publication")
}

/// How many times more parameters must not make a network worse.
const LARGER: u64 = 2;

/// 31: of networks made alike, the larger is not worse beyond the intervals.
pub(crate) fn scaling(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    for c in case.tasks {
        let trained: Vec<&VariantRow> = c.networks().filter(|r| r.record.detail.made == "trained").collect();
        for large in &trained {
            for small in trained.iter().filter(|s| s.record.recipe == large.record.recipe) {
                let sizes = (small.record.params, large.record.params);
                let (Some(a), Some(b)) = (quality(large.record), quality(small.record)) else { continue };
                if sizes.0 == 0 || sizes.1 < LARGER * sizes.0 {
                    continue;
                }
                let worse = a.hi.zip(b.lo).is_some_and(|(high, low)| high < low);
                tally.expect(!worse, || {
                    let times = sizes.1 as f64 / sizes.0 as f64;
                    format!(
                        "{}: {} with {times:.2} times the parameters of {}, which has {}: under-trained or faulty",
                        large.name(),
                        a.value,
                        small.name(),
                        b.value
                    )
                });
            }
        }
    }
    tally.outcome("no networks of several sizes made alike")
}
