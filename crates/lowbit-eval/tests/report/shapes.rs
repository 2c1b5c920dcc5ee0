//! Reports of unusual records: nothing panics, nothing is invented, everything verifies.

use super::fixture;
use super::record::{Constraints, Measure, Record, Results, SCHEMA_VERSION};
use lowbit_eval::report;
use std::fs;

/// The report as Markdown and HTML.
fn text(results: &Results) -> (String, String) {
    let dir = tempfile::tempdir().unwrap();
    report::write(dir.path(), results).unwrap();
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    let all = report::verify(dir.path()).unwrap();
    assert!(all.iter().filter(|r| r.id == 40).all(|r| !r.failed()), "{all:?}");
    (read("report.md"), read("report.html"))
}

/// Elements that have no end.
const VOID: [&str; 4] = ["meta", "br", "hr", "link"];

/// The elements of a page in order: a name, its attributes, and whether it is an end. What stands in `style` and `script` is skipped.
fn elements(page: &str) -> Vec<(&str, &str, bool)> {
    let (mut out, mut rest) = (Vec::new(), page);
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let (tag, after) = rest.split_once('>').expect("a tag ends");
        rest = after;
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        if !name.starts_with('!') {
            let is_end = name.starts_with('/');
            out.push((name.trim_start_matches('/'), attributes.trim_end_matches('/'), is_end || tag.ends_with('/')));
        }
        if ["style", "script"].contains(&name) {
            rest = &rest[rest.find(&format!("</{name}")).expect("an end")..];
        }
    }
    out
}

/// Every element ends in the one it began in, ids stand once, plots and regions have names; nothing comes from elsewhere.
#[test]
fn the_page_stands_alone_and_is_well_formed() {
    let (_, page) = text(&fixture::clean());
    // What the check in a browser looks at.
    let home = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("report");
    report::write(&home, &fixture::clean()).unwrap();
    assert!(page.len() < 1_500_000, "{} bytes", page.len());
    for foreign in ["http:", "https:", "src=", "<link", "@import", "url(", "<iframe", "onclick"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    assert!(page.contains("name=\"viewport\"") && page.contains("prefers-color-scheme: dark"));
    let (mut open, mut ids): (Vec<&str>, std::collections::HashSet<&str>) = Default::default();
    for (name, attributes, is_end) in elements(&page) {
        let attribute = |name: &str| attributes.split(&format!("{name}=\"")).nth(1)?.split('"').next();
        if let Some(id) = attribute(" id").or_else(|| attributes.strip_prefix("id=\"")?.split('"').next()) {
            assert!(ids.insert(id), "two elements are called {id}");
        }
        assert!(name != "svg" || is_end || attribute("aria-label").is_some(), "a plot without a name");
        match is_end {
            _ if VOID.contains(&name) => {}
            false => open.push(name),
            true if ["line", "circle", "rect", "polyline", "path"].contains(&name) => {}
            true => assert_eq!(open.pop(), Some(name)),
        }
    }
    assert!(open.is_empty(), "{open:?}");
    for anchor in page.split("href=\"#").skip(1).filter_map(|s| s.split('"').next()) {
        assert!(ids.contains(anchor), "{anchor}");
    }
}

#[test]
fn no_records() {
    let nobody = Results { schema_version: SCHEMA_VERSION, ..Results::default() };
    assert!(report::check(&nobody).iter().any(|r| r.id == 1 && r.failed()));
    let results = Results { records: Vec::new(), tasks: Vec::new(), ..fixture::clean() };
    let (markdown, _) = text(&results);
    assert!(markdown.contains("2 of 2 cores"), "{markdown}");
    assert!(report::summary(&results, 22, 80).is_empty());
}

#[test]
fn one_record_is_compared_with_nothing() {
    let mut results = fixture::clean();
    results.records.truncate(1);
    let dir = tempfile::tempdir().unwrap();
    let findings = report::write(dir.path(), &results).unwrap();
    assert!(findings.iter().all(|f| f.recommends().is_none()));
}

#[test]
fn without_reference_nothing_is_claimed() {
    let mut results = fixture::clean();
    results.records.remove(0);
    let (markdown, _) = text(&results);
    assert!(markdown.contains("nothing is compared"));
    let dir = tempfile::tempdir().unwrap();
    let findings = report::write(dir.path(), &results).unwrap();
    assert!(findings.iter().all(|f| f.recommends().is_none() && !f.to_string().contains("faster")), "{findings:?}");
}

#[test]
fn missing_measures_are_said() {
    let mut results = fixture::clean();
    for record in &mut results.records {
        record.measures.retain(|name, _| name == "accuracy");
        record.detail.reference = None;
        record.detail.samples.clear();
        record.detail.tensors.clear();
        record.detail.curve.clear();
    }
    let (markdown, page) = text(&results);
    assert!(markdown.matches("not measured").count() > 100);
    assert!(page.contains("Change against f32") && !page.contains(">Latency</h3>"));
}

#[test]
fn without_runs_there_is_no_ratio() {
    let mut results = fixture::clean();
    for record in results.records.iter_mut().filter(|r| r.model == "int8") {
        record.detail.samples.clear();
    }
    assert!(report::check(&results).iter().any(|r| r.id == 19 && r.failed()), "a latency has its raw runs");
    fixture::record(&mut results, "int8").measures.retain(|name, _| !name.starts_with("latency"));
    let (markdown, _) = text(&results);
    let line = markdown.lines().find(|l| l.starts_with("| int8 (")).unwrap();
    assert!(line.ends_with("| not measured |"), "{line}");
}

#[test]
fn overlap_and_samples_are_warned_of() {
    let mut results = fixture::clean();
    results.tasks[0].overlap_rows = 37;
    results.tasks[0].test_rows = 4000;
    let (markdown, _) = text(&results);
    assert!(markdown.contains("37 of 4,000 test rows also occur in the training split"));
    assert!(markdown.contains("Scored on a sample: 2,000 of 4,000 test rows."));
}

#[test]
fn a_language_model_task() {
    let (markdown, _) = text(&fixture::language());
    assert!(markdown.contains("| Variant | Bits per byte |"), "{markdown}");
    assert!(markdown.contains("2.1140 against 2.1130 of `f32`"), "{markdown}");
    assert!(!markdown.contains("accurate than"));
    let dir = tempfile::tempdir().unwrap();
    report::write(dir.path(), &fixture::language()).unwrap();
}

#[test]
fn a_task_of_numbers() {
    let results = fixture::numbers();
    let (markdown, page) = text(&results);
    assert!(markdown.contains("| Variant | Verdict | Explained variance |"), "{markdown}");
    assert!(
        markdown.contains("`f32` explains 84.44 % of the variance")
            && markdown.contains("without a network, `linear` reaches"),
        "{markdown}"
    );
    assert!(markdown.contains("Mean squared error") && markdown.contains("Mean absolute error"));
    let words = markdown.split("## Method").next().unwrap();
    assert!(!words.contains("accuracy") && words.contains("Size and explained variance"), "{words}");
    assert!(page.contains(">Explained variance</h3>"));
    let dir = tempfile::tempdir().unwrap();
    let findings = report::write(dir.path(), &results).unwrap();
    assert_eq!(findings[0].recommends(), Some("int8"), "{}", findings[0]);
    assert!(findings.iter().any(|f| f.to_string().starts_with("ternary_ptq fails: explained variance")), "{markdown}");
}

#[test]
fn two_tasks_have_sections_of_their_own() {
    let mut results = fixture::clean();
    let mut other = fixture::language();
    other.tasks[0].test_sha256 = "0123".repeat(16);
    results.tasks.append(&mut other.tasks);
    results.records.append(&mut other.records);
    let (markdown, page) = text(&results);
    assert!(markdown.contains("## Size: topics@1") && markdown.contains("## Size: enwik8@1"));
    assert!(page.contains("id=\"size-1\"") && page.contains("id=\"size-2\""));
    let dir = tempfile::tempdir().unwrap();
    report::write(dir.path(), &results).unwrap();
}

#[test]
fn many_classes_list_their_confusions() {
    let mut results = fixture::clean();
    for record in &mut results.records {
        record.detail.classes = (0..30).map(|i| format!("class{i}")).collect();
        record.detail.confusion.clear();
        record.measures.retain(|name, _| !name.contains("f1") && !name.contains("macro"));
        record.detail.confusion = vec![vec![0; 30]; 30];
        for (truth, answer) in record.detail.truths.iter().zip(&record.detail.answers) {
            record.detail.confusion[usize::from(*truth)][usize::from(*answer)] += 1;
        }
    }
    let (markdown, _) = text(&results);
    assert!(markdown.contains("### Most frequent confusions"));
    let dir = tempfile::tempdir().unwrap();
    report::write(dir.path(), &results).unwrap();
}

#[test]
fn close_variants_get_no_vacuous_threshold() {
    let mut results = fixture::clean();
    results
        .records
        .retain(|r| ["f32", "bf16", "int8_channel", "llm_int8", "naive_bayes", "majority"].contains(&r.model.as_str()));
    let dir = tempfile::tempdir().unwrap();
    let findings = report::write(dir.path(), &results).unwrap();
    let text: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(text.iter().any(|t| t == "Every variant lies within 0.05 points of f32."), "{text:#?}");
    assert!(text.iter().all(|t| !t.contains("within 1 point")));
}

#[test]
fn a_variant_that_only_loses_is_not_recommended() {
    let mut results = fixture::clean();
    results.records.retain(|r| ["f32", "int2", "ternary_ptq", "naive_bayes", "majority"].contains(&r.model.as_str()));
    let dir = tempfile::tempdir().unwrap();
    let findings = report::write(dir.path(), &results).unwrap();
    assert!(findings.iter().all(|f| f.recommends().is_none()));
    assert!(
        findings.iter().any(|f| f.to_string() == "No smaller variant is shown to stay within 1 point of f32."),
        "{findings:?}"
    );
}

#[test]
fn a_perfect_reference_has_no_error_rate_to_change() {
    let mut results = fixture::clean();
    results.tasks[0].ceiling = None;
    for record in &mut results.records {
        if record.model == "f32" {
            record.detail.answers = record.detail.truths.clone();
            record.measures.retain(|name, _| !name.contains("f1") && !name.contains("macro"));
            record.detail.confusion.clear();
            let (lo, hi) = super::stats::wilson(2000, 2000);
            record.measures.insert("accuracy".into(), Measure::measured(1.0, "fraction", 2000).between(lo, hi));
        }
    }
    fixture::compare_with_reference(&mut results);
    let dir = tempfile::tempdir().unwrap();
    report::write(dir.path(), &results).unwrap();
    let markdown = fs::read_to_string(dir.path().join("report.md")).unwrap();
    assert!(!markdown.contains("NaN") && !markdown.contains(" inf"));
    let mut lines = markdown.lines().filter(|l| l.starts_with("| int8 |"));
    assert!(lines.any(|l| l.contains("| not defined |")), "{markdown}");
}

/// Three rows of 8-bit weights fill a panel of 16: what is stored counts, padding is told beside it.
#[test]
fn padding_of_a_tiny_network_is_no_bits_per_weight() {
    let mut results = fixture::clean();
    for record in results.records.iter_mut().filter(|r| r.model == "int8") {
        record.detail.tensors.truncate(2);
        let tensor = &mut record.detail.tensors[1];
        (tensor.rows, tensor.cols, tensor.padding) = (3, 64, 13 * 64);
        tensor.parts = [("codes".to_string(), 16 * 64), ("scales".into(), 4)].into();
        record.params = record.detail.tensors.iter().map(|t| t.rows * t.cols).sum();
        let bytes: u64 = record.detail.tensors.iter().map(|t| t.bytes()).sum();
        record.measures.insert("weight_bytes".into(), Measure::measured(bytes as f64, "bytes", 1));
    }
    let dir = tempfile::tempdir().unwrap();
    report::write(dir.path(), &results).unwrap();
    let markdown = fs::read_to_string(dir.path().join("report.md")).unwrap();
    let line = markdown.lines().find(|l| l.starts_with("| int8 |") && l.contains("131,264")).unwrap();
    assert!(line.ends_with("| 8.00 | 8.05 | not measured | 0.6 % |"), "{line}");
}

#[test]
fn a_variant_is_chosen_under_the_constraints_asked_for() {
    let value = |results: &Results, name: &str, measure: &str| {
        results.records.iter().find(|r| r.model == name).unwrap().measures[measure].value
    };
    let clean = fixture::clean();
    let bytes = value(&clean, "nf4", "weight_bytes");
    for (asked, words) in [
        (
            Constraints { weight_bytes: Some(bytes), latency_p50: None, loss: Some(0.005) },
            Some(" and 0.50 points of measured loss against f32: "),
        ),
        (
            Constraints { latency_p50: Some(200e-6), loss: Some(0.02), ..Constraints::default() },
            Some("Smallest within 200"),
        ),
        (Constraints { weight_bytes: Some(10.0), ..Constraints::default() }, None),
        (Constraints { latency_p50: Some(1e-9), weight_bytes: Some(1e12), loss: Some(1.0) }, None),
    ] {
        let mut results = fixture::clean();
        results.tasks[0].constraints = Some(asked);
        let keeps = |r: &&Record| {
            let measured = |name: &str| r.measures[name].value;
            let loss = value(&clean, "f32", "accuracy") - measured("accuracy");
            r.detail.made != "baseline"
                && r.model != "ternary_ptq"
                && asked.weight_bytes.is_none_or(|most| measured("weight_bytes") <= most)
                && asked.latency_p50.is_none_or(|most| measured("latency_p50") <= most)
                && asked.loss.is_none_or(|most| loss <= most)
        };
        let size = |r: &&Record| r.measures["weight_bytes"].value as u64;
        let expected = results.records.iter().filter(keeps).min_by_key(size).map(|r| r.model.clone());
        let dir = tempfile::tempdir().unwrap();
        let findings = report::write(dir.path(), &results).unwrap();
        assert_eq!(findings[0].recommends().map(String::from), expected, "{}", findings[0]);
        match words {
            Some(words) => assert!(findings[0].to_string().contains(words), "{}", findings[0]),
            None => assert!(findings[0].to_string().starts_with("No variant keeps within "), "{}", findings[0]),
        }
        assert_eq!(report::summary(&results, 20, 1000)[0], findings[0].to_string());
        assert_eq!(report::recommended(&results).as_deref(), findings[0].recommends());
        report::verify(dir.path()).unwrap();
    }
}

#[test]
fn bits_are_drawn_against_divergence_where_it_was_measured() {
    let mut results = fixture::clean();
    let title = "Bits and divergence";
    let (_, page) = text(&results);
    assert!(page.contains(title) && page.contains("Bits per weight against KL divergence"));
    assert!(!page.contains("Rings: layers in several formats"), "uniform recipes alone");
    let dots =
        |page: &str| page.split(title).nth(1).unwrap().split("</svg>").next().unwrap().matches("<circle").count();
    let expected = |results: &Results| {
        let kl = |r: &&Record| r.measures.get("kl_divergence").is_some_and(|m| m.value > 0.0);
        results.records.iter().filter(kl).count()
    };
    assert_eq!(dots(&page), expected(&results), "every variant but the reference");
    let int8 = fixture::record(&mut results, "int8");
    let first = int8.detail.tensors.iter_mut().find(|t| t.role == "body").unwrap();
    first.format = "f32".into();
    first.parts = [("codes".to_string(), 4 * first.rows * first.cols)].into();
    let bytes: u64 = int8.detail.tensors.iter().map(|t| t.bytes()).sum();
    int8.measures.insert("weight_bytes".into(), Measure::measured(bytes as f64, "bytes", 1));
    let (_, page) = text(&results);
    assert!(page.contains("Rings: layers in several formats"), "a mix is marked");
    for record in &mut results.records {
        record.measures.remove("kl_divergence");
    }
    assert!(!text(&results).1.contains(title));
}

/// What a terminal shows of a comparison of any size has so many lines, and no line is wider than it.
#[test]
fn a_summary_fits_its_lines() {
    let many = |tasks: usize, variants: usize| {
        let mut all = Results { tasks: Vec::new(), records: Vec::new(), ..fixture::clean() };
        for task in 0..tasks {
            let mut results = fixture::clean();
            let name = format!("a_task_of_a_long_name_{task}@1");
            results.tasks[0].task = name.clone();
            results.tasks[0].overlap_rows = 5;
            let int4 = fixture::record(&mut results, "int4").clone();
            for i in 0..variants {
                results.records.push(Record { model: format!("a_variant_of_a_long_name_{i}"), ..int4.clone() });
            }
            results.records.iter_mut().for_each(|record| record.task = name.clone());
            all.tasks.extend(results.tasks);
            all.records.extend(results.records);
        }
        all
    };
    for (tasks, variants) in [(1, 0), (1, 60), (5, 0), (12, 3), (40, 0)] {
        let results = many(tasks, variants);
        for (lines, width) in [(22, 80), (22, 110), (12, 60)] {
            let summary = report::summary(&results, lines, width);
            assert!(summary.len() <= lines, "{tasks} tasks, {variants} variants: {} lines", summary.len());
            let widest = summary.iter().map(|line| line.chars().count()).max().unwrap();
            assert!(tasks > 1 && width < 110 || widest <= width, "{widest} of {width}: {summary:#?}");
            assert!(summary.iter().any(|line| line.contains("int4")), "what to choose is there: {summary:#?}");
        }
    }
}
