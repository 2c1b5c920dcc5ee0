//! Writing, reading and verifying the files of a report.

use super::fixture;
use super::record::{Measure, Results};
use lowbit_eval::error::Kind;
use lowbit_eval::report::{self, CheckResult, Outcome};
use std::fs;
use std::path::Path;

const FILES: [&str; 4] = ["report.html", "report.md", "results.csv", "results.json"];

fn written(results: &Results) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    report::write(dir.path(), results).unwrap();
    dir
}

fn edit(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{from} is not in {}", file.display());
    fs::write(file, text.replacen(from, to, 1)).unwrap();
}

fn failures(results: &[CheckResult]) -> Vec<String> {
    results.iter().filter(|r| r.failed()).map(|r| r.to_string()).collect()
}

#[test]
fn four_files_that_verify() {
    let results = fixture::clean();
    let dir = written(&results);
    let mut names: Vec<String> =
        fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, FILES);
    assert_eq!(report::read(dir.path()).unwrap(), results);
    assert_eq!(report::read(&dir.path().join("results.json")).unwrap(), results);
    let checks = report::verify(dir.path()).unwrap();
    assert!(failures(&checks).is_empty(), "{:?}", failures(&checks));
    let of_records = report::CHECKS.iter().filter(|check| check.is_of_records()).count();
    assert_eq!(checks.len(), of_records + 5);
    assert_eq!(report::verify(&dir.path().join("results.json")).unwrap(), checks);
}

/// A comparison with the files that its hashes cover.
fn comparison() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut results = fixture::clean();
    let mut paths = vec!["suite.toml".to_string()];
    fs::write(dir.path().join("suite.toml"), "name = \"topics\"").unwrap();
    for record in results.records.iter_mut().filter(|r| r.detail.made != "baseline") {
        let home = format!("variants/{}", record.model);
        fs::create_dir_all(dir.path().join(&home).join("model/deeper")).unwrap();
        fs::write(dir.path().join(&home).join("record.json"), &record.model).unwrap();
        fs::write(dir.path().join(&home).join("model/model.safetensors"), format!("weights of {}", record.model))
            .unwrap();
        paths.extend([format!("{home}/record.json"), format!("{home}/model")]);
        let weights = report::hashes(dir.path(), &[format!("{home}/model")]).unwrap();
        assert_eq!(weights.len(), 1);
        record.detail.model_sha256 = Some(weights[0].sha256.clone());
    }
    results.files = report::hashes(dir.path(), &paths).unwrap();
    assert_eq!(results.files.len(), 1 + 2 * 11);
    report::write(dir.path(), &results).unwrap();
    dir
}

#[test]
fn weights_records_and_suite_are_covered() {
    let hash = report::hashes(comparison().path(), &["suite.toml".into()]).unwrap();
    // printf 'name = "topics"' | sha256sum
    assert_eq!(hash[0].sha256, "0825e33d57fbf153c05a25f359436b3875a867902064d4e4fa5c6410183060ba");
    assert!(failures(&report::verify(comparison().path()).unwrap()).is_empty());
    let weights = "variants/int8/model/model.safetensors";
    type Fault = fn(&Path);
    let faults: [(Fault, &str); 7] = [
        (|d| edit(&d.join("variants/int8/model/model.safetensors"), "int8", "int9"), "model.safetensors differs"),
        (
            |d| fs::write(d.join("variants/nf4/record.json"), "x").unwrap(),
            "nf4/record.json has 1 bytes, the comparison left 3",
        ),
        (|d| edit(&d.join("suite.toml"), "topics", "topicz"), "suite.toml differs"),
        (|d| fs::remove_dir_all(d.join("variants/int4")).unwrap(), "variants/int4/record.json is missing"),
        (|d| fs::remove_dir_all(d.join("variants")).unwrap(), "variants/f32/model/model.safetensors is missing"),
        (
            |d| {
                fs::remove_file(d.join("suite.toml")).unwrap();
                fs::create_dir(d.join("suite.toml")).unwrap();
            },
            "suite.toml is no regular file",
        ),
        (
            |d| edit(&d.join("results.json"), "\"path\":\"suite.toml\"", "\"path\":\"../suite.toml\""),
            "is no path inside",
        ),
    ];
    for (fault, said) in faults {
        let dir = comparison();
        fault(dir.path());
        let found = failures(&report::verify(dir.path()).unwrap());
        assert!(found.iter().any(|f| f.contains(said)), "{said}: {found:?}");
    }
    let dir = comparison();
    let results = report::read(dir.path()).unwrap();
    let sha = &results.files.iter().find(|f| f.path == weights).unwrap().sha256;
    let text = fs::read_to_string(dir.path().join("results.json")).unwrap();
    fs::write(dir.path().join("results.json"), text.replacen(sha.as_str(), &"0".repeat(64), 1)).unwrap();
    let found = failures(&report::verify(dir.path()).unwrap());
    assert!(found.iter().any(|f| f.contains("int8")), "{found:?}");
}

#[test]
fn messages_hold_no_debug_text() {
    let dir = written(&fixture::clean());
    edit(&dir.path().join("report.html"), "\"n\":2000,\"lo\":0.", "\"n\":2000,\"lo\":0.0");
    edit(&dir.path().join("results.json"), "\"n\":2000,\"lo\":0.", "\"n\":2000,\"lo\":0.00");
    let found = failures(&report::verify(dir.path()).unwrap());
    assert!(found.len() > 3, "{found:?}");
    for line in found {
        assert!(!line.contains("Some(") && !line.contains("None"), "{line}");
    }
}

#[test]
fn the_same_records_give_the_same_bytes() {
    let results = fixture::clean();
    let (a, b) = (written(&results), written(&results));
    report::write(b.path(), &results).unwrap();
    for name in FILES {
        assert_eq!(fs::read(a.path().join(name)).unwrap(), fs::read(b.path().join(name)).unwrap(), "{name}");
    }
}

#[test]
fn findings_answer_the_question() {
    let dir = tempfile::tempdir().unwrap();
    let findings = report::write(dir.path(), &fixture::clean()).unwrap();
    let text: Vec<String> = findings.iter().map(ToString::to_string).collect();
    let recommended: Vec<_> = findings.iter().filter_map(|f| f.recommends()).collect();
    assert_eq!(recommended, ["int8", "int8_channel", "int4"]);
    assert!(text.iter().any(|t| t.starts_with("ternary_ptq fails: accuracy 34.15 %, chance 25.55 %")));
    let int8 = "int8: accuracy 95.40 %, \u{2212}0.20 points (relative \u{2212}0.21 %, error rate +4.55 %); 95 % interval \
                \u{2212}0.58 to +0.18, McNemar p = 0.424, after Holm p = 1.000: not distinguishable from f32. 3.98\u{d7} smaller, 1.91\u{d7} faster.";
    assert!(text.iter().any(|t| t == int8), "{text:#?}");
    assert!(text.iter().any(|t| t.starts_with("bf16: ") && t.ends_with("It is dominated by llm_int8.")));
    assert!(text.iter().any(|t| t.starts_with("int2: ") && t.ends_with("Its accuracy is below that of naive_bayes.")));
}

#[test]
fn an_edited_number_is_found_and_named() {
    let edits = [
        ("report.html", ">95.40 %<", ">96.40 %<", "96.40"),
        ("report.html", "\"model\":\"int8\",", "\"model\":\"int9\",", "int9"),
        ("report.html", "\"value\":0.954,", "\"value\":0.964,", "0.964"),
        ("report.md", "| 3.98\u{d7} |", "| 4.98\u{d7} |", "4.98"),
        ("results.csv", "0.954,fraction", "0.964,fraction", "0.964"),
    ];
    for (file, from, to, named) in edits {
        let dir = written(&fixture::clean());
        edit(&dir.path().join(file), from, to);
        let found = failures(&report::verify(dir.path()).unwrap());
        assert!(found.iter().any(|f| f.contains(file) && f.contains(named)), "{file} {to}: {found:?}");
    }
}

#[test]
fn edited_records_contradict_themselves_and_the_files() {
    let dir = written(&fixture::clean());
    edit(&dir.path().join("results.json"), "\"accuracy\": {\"value\":0.954,", "\"accuracy\": {\"value\":0.9641,");
    let checks = report::verify(dir.path()).unwrap();
    let failed: Vec<u32> = checks.iter().filter(|r| r.failed()).map(|r| r.id).collect();
    assert!([2, 10, 12].iter().all(|id| failed.contains(id)), "{failed:?}");
    assert_eq!(failed.iter().filter(|id| **id == 40).count(), 4);
}

#[test]
fn a_missing_file_is_a_failure() {
    let dir = written(&fixture::clean());
    fs::remove_file(dir.path().join("report.md")).unwrap();
    let found = failures(&report::verify(dir.path()).unwrap());
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("report.md"), "{found:?}");
}

#[test]
fn a_failed_check_refuses_to_render_and_names_its_arithmetic() {
    let dir = written(&fixture::clean());
    let before: Vec<Vec<u8>> = FILES[..3].iter().map(|name| fs::read(dir.path().join(name)).unwrap()).collect();
    let mut results = fixture::clean();
    let bytes = fixture::measure(&mut results, "int8", "weight_bytes");
    let (wrong, right) = (bytes.value + 1.0, bytes.value);
    bytes.value = wrong;
    let error = report::write(dir.path(), &results).unwrap_err();
    assert_eq!(error.kind, Kind::Check);
    let text = error.to_string();
    for said in ["no report is written", "check 15", "int8", &wrong.to_string(), &right.to_string()] {
        assert!(text.contains(said), "{said}: {text}");
    }
    // The records are there, and what was rendered from others before is as it was.
    assert_eq!(report::read(dir.path()).unwrap(), results);
    let after: Vec<Vec<u8>> = FILES[..3].iter().map(|name| fs::read(dir.path().join(name)).unwrap()).collect();
    assert_eq!(before, after);
    let found = failures(&report::verify(dir.path()).unwrap());
    assert!(
        found.iter().any(|f| f.contains("check 15")) && found.iter().any(|f| f.contains("report.html")),
        "{found:?}"
    );
}

#[test]
fn a_placeholder_is_not_rendered() {
    for note in ["TODO", "sizes are illustrative"] {
        let mut results = fixture::clean();
        fixture::record(&mut results, "int8").detail.note = Some(note.into());
        let dir = tempfile::tempdir().unwrap();
        let error = report::write(dir.path(), &results).unwrap_err();
        assert!(error.kind == Kind::Check && error.to_string().contains("no report is written"), "{error}");
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["results.json"]);
    }
}

#[test]
fn a_warning_is_rendered_and_shown() {
    let mut results = fixture::clean();
    let rate = |value: f64| Measure::measured(value, "per_second", 5);
    let int8 = fixture::record(&mut results, "int8");
    int8.measures.insert("prefill_tokens_per_second".into(), rate(700.0));
    int8.measures.insert("decode_tokens_per_second".into(), rate(700.0));
    let dir = written(&results);
    let text = fs::read_to_string(dir.path().join("report.md")).unwrap();
    assert!(text.contains("notice: int8: prefill and decode are both 700"), "{text}");
}

#[test]
fn a_value_that_is_no_number_is_refused_and_named() {
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        for name in ["accuracy", "weight_bytes", "latency_p50", "throughput/8"] {
            let mut results = fixture::clean();
            fixture::measure(&mut results, "int8", name).value = value;
            let dir = tempfile::tempdir().unwrap();
            let error = report::write(dir.path(), &results).unwrap_err();
            assert_eq!(error.kind, Kind::Check);
            assert!(!dir.path().join("report.html").exists(), "{name} {value}");
            assert!(report::read(dir.path()).unwrap_err().to_string().contains("expected f64"));
        }
    }
}

#[test]
fn unreadable_records_name_file_line_and_remedy() {
    let dir = written(&fixture::clean());
    let path = dir.path().join("results.json");
    let cases: [(&str, &str, &str); 3] = [
        ("\"schema_version\": 1", "\"schema_version\": 9", "schema_version is 9"),
        ("\"tool\": {", "\"tool\": [", ":3: not the records of a report"),
        ("\"value\":0.954,", "\"value\":null,", "not the records of a report"),
    ];
    for (from, to, said) in cases {
        let whole = fs::read_to_string(&path).unwrap();
        edit(&path, from, to);
        let error = report::read(dir.path()).unwrap_err();
        assert!(error.kind == Kind::Input && error.to_string().contains(said), "{error}");
        assert!(error.to_string().contains("results.json"), "{error}");
        fs::write(&path, whole).unwrap();
    }
    let error = report::read(&dir.path().join("absent.json")).unwrap_err();
    assert_eq!(error.kind, Kind::Io);
}

#[test]
fn csv_has_a_line_per_record_and_measure() {
    let results = fixture::clean();
    let dir = written(&results);
    let text = fs::read_to_string(dir.path().join("results.csv")).unwrap();
    let measures: usize = results.records.iter().map(|r| r.measures.len()).sum();
    assert_eq!(text.lines().count(), measures + 1);
    assert_eq!(text.lines().next().unwrap(), "task,model,recipe,params,measure,value,unit,n,lo,hi,how");
    assert!(text.contains("topics@1,int8,int8,328516,accuracy,0.954,fraction,2000,"), "{text}");
}

#[test]
fn hostile_names_stay_text() {
    let name = "</script><script>alert(1)</script>|`<b>&\"'";
    let mut results = fixture::clean();
    for record in &mut results.records {
        if record.model == "int8" {
            record.model = name.into();
            record.detail.note = Some("a|b <img> [link](x)".into());
        }
    }
    results.tasks[0].about = "<script>x</script> & more".into();
    let dir = written(&results);
    let page = fs::read_to_string(dir.path().join("report.html")).unwrap();
    assert_eq!(page.matches("<script").count(), 2, "the records, and what the page does");
    assert_eq!(page.matches("</script").count(), 2);
    assert!(!page.contains("<img") && !page.contains("<b>&"));
    assert!(failures(&report::verify(dir.path()).unwrap()).is_empty());
    let text = fs::read_to_string(dir.path().join("report.md")).unwrap();
    let columns = |line: &str| line.replace("\\|", "").matches('|').count();
    let table: Vec<&str> = text.lines().filter(|l| l.starts_with("| ") && l.contains("script")).collect();
    assert!(!table.is_empty() && table.iter().all(|l| columns(l) > 2 && !l.contains("<b>")));
}

#[test]
fn values_that_were_not_measured_are_marked() {
    let mut results = fixture::clean();
    let estimate = Measure { how: super::record::How::Estimated, ..Measure::measured(0.004, "joules", 1) };
    fixture::record(&mut results, "int8").measures.insert("energy_joules".into(), estimate);
    let dir = written(&results);
    let text = fs::read_to_string(dir.path().join("report.md")).unwrap();
    assert!(text.contains("4.00 mJ (estimated)"));
    assert!(report::check(&results).iter().any(|r| r.id == 34 && r.outcome == Outcome::Pass));
}
