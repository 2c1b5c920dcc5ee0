//! Every check passes clean records and finds at least one fault made for it.

use super::super::compare::comparisons;
use super::super::document::Document;
use super::*;
use crate::record::How;
use crate::{faithfulness, metrics, record, stats};

mod faults;
#[allow(dead_code)] // the tests of whole reports use more of it
#[path = "../../../../tests/report/fixture.rs"]
pub(crate) mod fixture;

use faults::{LANGUAGE_FAULTS, NUMBER_FAULTS, RECORD_FAULTS, REPORT_FAULTS, cell, estimated, put};
use fixture::{clean, language, measure, numbers, record as of};

fn outcomes(results: &Results) -> Vec<CheckResult> {
    let tasks = comparisons(results);
    let document = Document::body(results, &tasks);
    run_all(&Case { results, tasks: &tasks, document: &document })
}

fn outcome(results: &Results, id: u32) -> Outcome {
    outcomes(results).into_iter().find(|r| r.id == id).unwrap().outcome
}

type Make = fn() -> Results;

const CLEAN: [(Make, &str); 3] = [(clean, "classes"), (language, "language"), (numbers, "numbers")];

fn lines(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Fail(lines) => lines.join("\n"),
        other => format!("no failure: {other}"),
    }
}

#[test]
fn clean_records_raise_nothing() {
    for (make, name) in CLEAN {
        for result in outcomes(&make()) {
            assert!(!result.failed(), "{name}: {result}");
            assert!(!matches!(result.outcome, Outcome::Notice(_)), "{name}: {result}");
        }
    }
}

#[test]
fn every_check_sees_something_somewhere() {
    let mut published = clean();
    measure(&mut published, "int8", "peak_rss_bytes").how = How::Published;
    of(&mut published, "int8").detail.note = Some("Peak memory as in the paper by A. Author.".into());
    put(&mut published, "f32", "train_peak_rss_bytes", Measure::measured(90e6, "bytes", 1));
    let mut priced = language();
    for (i, record) in priced.records.iter_mut().enumerate() {
        let put = |name: &str, value: f64, unit: &str| (name.to_string(), Measure::measured(value, unit, 1));
        record.measures.extend([
            put("cost_per_million_tokens", 0.01, "ratio"),
            put("prefill_tokens_per_second", 5000.0, "per_second"),
        ]);
        record.detail.made = "trained".into();
        record.recipe = "f32".into();
        record.params += 4_000_000 * i as u64;
    }
    let all: Vec<Vec<CheckResult>> = [clean(), language(), published, sized(), priced].iter().map(outcomes).collect();
    for check in CHECKS.iter().filter(|c| c.is_of_records()) {
        let passed = all.iter().flatten().any(|r| r.id == check.id && r.outcome == Outcome::Pass);
        assert!(passed, "check {} never passes", check.id);
    }
}

/// Two networks made alike, of which the larger is better.
fn sized() -> Results {
    let mut results = clean();
    let mut small = of(&mut results, "f32").clone();
    small.model = "small".into();
    small.params /= 4;
    results.records.push(small);
    results
}

#[test]
fn faults_in_records_are_found() {
    for (make, faults) in [(clean as Make, RECORD_FAULTS), (language, LANGUAGE_FAULTS), (numbers, NUMBER_FAULTS)] {
        for (id, said, fault) in faults {
            let mut results = make();
            fault(&mut results);
            let found = lines(&outcome(&results, *id));
            assert!(found.contains(said), "check {id} should say {said:?}, says {found}");
        }
    }
}

#[test]
fn faults_in_the_report_are_found() {
    let results = clean();
    let tasks = comparisons(&results);
    for (id, said, fault) in REPORT_FAULTS {
        let mut document = Document::body(&results, &tasks);
        fault(&mut document);
        let case = Case { results: &results, tasks: &tasks, document: &document };
        let found = run_all(&case).into_iter().find(|r| r.id == *id).unwrap().outcome;
        assert!(lines(&found).contains(said), "check {id} should say {said:?}, says {}", lines(&found));
    }
}

#[test]
fn printed_accuracies_must_be_possible_counts() {
    // Values of a report on the 872 sentences of SST-2's development split, and of one on the 7,600 items of AG News.
    let sst2 = (872u64, vec![0.9187, 0.9012, 0.9134], false);
    let ag_news = (7600, vec![0.9462, 0.9454, 0.9458, 0.947], true);
    for (n, values, possible) in [sst2, ag_news] {
        for value in values {
            let mut results = clean();
            let accuracy = Measure { how: How::Published, ..Measure::measured(value, "fraction", n) };
            put(&mut results, "int8", "accuracy", accuracy);
            let found = outcome(&results, 10);
            assert_eq!(found == Outcome::Pass, possible, "{value} on {n}: {found}");
        }
    }
}

#[test]
fn a_vacuous_threshold_is_found() {
    let results = clean();
    let tasks = comparisons(&results);
    let document = Document::body(&results, &tasks);
    let mut close = clean();
    close.records.retain(|r| ["f32", "bf16", "llm_int8", "nf4_dq", "ternary_qat"].contains(&r.model.as_str()));
    for name in ["nf4_dq", "ternary_qat"] {
        measure(&mut close, name, "accuracy").value = 0.956;
    }
    let tasks = comparisons(&close);
    let case = Case { results: &close, tasks: &tasks, document: &document };
    let found = run_all(&case).into_iter().find(|r| r.id == 28).unwrap().outcome;
    assert!(lines(&found).contains("every variant is within 0"), "{}", lines(&found));
}

#[test]
fn an_unmarked_estimate_is_found() {
    let mut results = clean();
    put(&mut results, "int8", "energy_joules", estimated(0.004, "joules"));
    let tasks = comparisons(&results);
    let mut document = Document::body(&results, &tasks);
    cell(&mut document, "Energy per example", "int8").note.clear();
    let case = Case { results: &results, tasks: &tasks, document: &document };
    let found = run_all(&case).into_iter().find(|r| r.id == 34).unwrap().outcome;
    assert!(lines(&found).contains("is estimated, but not marked"), "{}", lines(&found));
}

#[test]
fn things_worth_a_look_are_noticed() {
    let notices: [faults::RecordFault; 5] = [
        (31, "times the parameters of small", |r| {
            *r = sized();
            let worse = Measure::measured(0.5, "fraction", 2000).between(0.47, 0.53);
            put(r, "f32", "accuracy", worse);
        }),
        (42, "prefill and decode are both 700", |r| {
            put(r, "f32", "prefill_tokens_per_second", Measure::measured(700.0, "per_second", 5));
            put(r, "f32", "decode_tokens_per_second", Measure::measured(700.0, "per_second", 5));
        }),
        (13, "a sample, 2000 of 4000", |r| r.tasks[0].test_rows = 4000),
        (14, "12 of 2000 test rows", |r| r.tasks[0].overlap_rows = 12),
        (37, "have the same digits", |r| {
            let copied = measure(r, "f32", "train_seconds").value;
            put(r, "f32", "energy_joules", Measure::measured(copied * 1.0 + 0.0017, "joules", 1));
            measure(r, "f32", "throughput/8").value = copied + 0.0017;
        }),
    ];
    for (id, said, change) in notices {
        let mut results = clean();
        change(&mut results);
        match outcome(&results, id) {
            Outcome::Notice(lines) => assert!(lines.iter().any(|l| l.contains(said)), "{lines:?}"),
            other => panic!("check {id}: {other}"),
        }
    }
}

#[test]
fn every_check_has_a_fault_or_a_notice_here() {
    let elsewhere = [28, 31, 34, 37, 42];
    for check in CHECKS.iter().filter(|c| c.is_of_records()) {
        let mut ids = RECORD_FAULTS.iter().chain(LANGUAGE_FAULTS).map(|f| f.0).chain(REPORT_FAULTS.iter().map(|f| f.0));
        assert!(ids.any(|id| id == check.id) || elsewhere.contains(&check.id), "check {} has no test", check.id);
    }
    let mut ids: Vec<u32> = CHECKS.iter().map(|c| c.id).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all);
}

#[test]
fn a_minus_before_a_word_or_a_real_number_is_no_negative_zero() {
    let mut results = clean();
    for note in ["range 3-0.5 of a type-0 name", "\u{2212}0.05 is a number", "see sub-00-one"] {
        of(&mut results, "int8").detail.note = Some(note.into());
        assert_eq!(outcome(&results, 35), Outcome::Pass, "{note}");
    }
}
