//! The check of measures that compare answers with those of a reference.

use super::super::number::range;
use super::{Case, Outcome, Tally, close};
use crate::faithfulness::{Faithfulness, METRICS, SAME_TOP};
use crate::record::Record;

/// Relative error that separate orders of summation may leave.
const ROUNDING: f64 = 1e-9;

/// 41: recomputed from what each row contributes and from the answers of both; against itself a model has no divergence.
pub(crate) fn recomputed(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    for record in &case.results.records {
        let Some(name) = &record.detail.reference else {
            let stray = METRICS.iter().find(|name| record.measures.contains_key(**name));
            stray
                .iter()
                .for_each(|stray| tally.expect(false, || format!("{}: {stray} names no reference", record.model)));
            continue;
        };
        if *name == record.model {
            itself(record, &mut tally);
        }
        let reference = case.results.records.iter().find(|r| r.model == *name && r.task == record.task);
        rows(record, reference, &mut tally);
    }
    tally.outcome("no faithfulness to a reference")
}

fn itself(record: &Record, tally: &mut Tally) {
    for (name, m) in METRICS.iter().filter_map(|name| Some((*name, record.measures.get(*name)?))) {
        let expected = if name == SAME_TOP { 1.0 } else { 0.0 };
        tally.expect(m.value == expected, || {
            format!("{}: {name} against itself is {}, not {expected}", record.model, m.value)
        });
    }
}

/// The answers are compared where the reference has a record too.
fn rows(record: &Record, reference: Option<&Record>, tally: &mut Tally) {
    let (model, mine) = (&record.model, &record.detail.answers);
    let stated = record.measures.get(SAME_TOP).map_or(0.0, |m| m.value * m.n as f64).round() as u64;
    let count = |theirs: &Record| mine.iter().zip(&theirs.detail.answers).filter(|(a, b)| a == b).count() as u64;
    let counted = reference.filter(|theirs| theirs.detail.answers.len() == mine.len()).map(count);
    let same = counted.unwrap_or(stated);
    tally.expect(same == stated, || format!("{model}: {SAME_TOP} is of {stated} answers, {same} are the same"));
    let Some(found) = Faithfulness::of_samples(&record.detail.samples, same) else { return };
    for (name, found) in found.measures(1) {
        let Some(m) = record.measures.get(&name) else { continue };
        tally.expect(close(m.value, found.value, ROUNDING) && m.n == found.n, || {
            format!("{model}: {name} is {} on {} rows, recomputed {} on {}", m.value, m.n, found.value, found.n)
        });
        let near = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => close(a, b, 1e-6),
            (a, b) => a == b,
        };
        tally.expect(near(m.lo, found.lo) && near(m.hi, found.hi), || {
            format!("{model}: {name} has the interval {}, recomputed {}", range(m), range(&found))
        });
    }
}
