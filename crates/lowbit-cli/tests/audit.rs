//! `lowbit audit` on files as they are: findings, exit codes, pages, facts.

mod common;

use common::{good, lowbit, refused, run};
use serde_json::Value;
use std::fs;

const WRONG: &str = "# Speed\n\n| Batch | Old (ms) | New (ms) | Speedup |\n|---|---|---|---|\n| 1 | 10.0 | 5.0 | 2.0x |\n| 8 | 12.0 | 5.0 | 3.0x |\n";

#[test]
fn an_error_is_told_with_its_arithmetic_and_exits_with_7() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    fs::write(at.join("wrong.md"), WRONG).unwrap();
    fs::write(at.join("right.md"), WRONG.replace("3.0x", "2.4x")).unwrap();
    assert!(good(at, &["audit", "right.md"]).contains("0 errors"));
    let output = run(at, &["audit", "right.md", "wrong.md"]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(7), "{printed}");
    assert!(printed.contains("wrong.md:6: error [2 ") && printed.contains("is 2.40"), "{printed}");
    refused(at, &["audit", "wrong.md"], 7, &["wrong.md: 1 errors found"]);
    let output = run(at, &["audit", "wrong.md", "--json"]);
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    let finding = &object["reports"][0]["findings"][0];
    assert_eq!(
        (&finding["check"], &finding["lines"][0], &finding["severity"]),
        (&2.into(), &6.into(), &"error".into())
    );
}

#[test]
fn pages_are_written_for_one_report_and_for_several() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    fs::write(at.join("a.md"), WRONG).unwrap();
    fs::write(at.join("b.csv"), "batch,old (ms),new (ms),speedup\n1,10.0,5.0,2.0x\n").unwrap();
    run(at, &["audit", "a.md", "--html", "page.html"]);
    let page = fs::read_to_string(at.join("page.html")).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.contains("id=\"L6\" class=\"bad\""), "{page}");
    assert!(!page.contains("<script") && !page.contains("src="));
    run(at, &["audit", "a.md", "b.csv", "--html", "pages"]);
    assert!(at.join("pages/a.md.html").is_file() && at.join("pages/b.csv.html").is_file());
}

#[test]
fn facts_are_read_beside_the_report_or_in_its_place() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    let seeds = at.join("reports");
    fs::create_dir(&seeds).unwrap();
    let text = "# T\n\n| Model | Accuracy |\n|---|---|\n| a | 91.87% |\n";
    fs::write(seeds.join("scores.md"), text).unwrap();
    assert!(good(at, &["audit", "reports/scores.md"]).contains("0 errors"));
    let facts = "report = \"scores.md\"\n[[test]]\nin = \"T\"\nn = 872\n";
    fs::write(at.join("scores.toml"), facts).unwrap();
    let args = ["audit", "scores.toml", "--seeds", "reports"];
    let printed = String::from_utf8(run(at, &args).stdout).unwrap();
    assert!(printed.contains("scores.md:5: error [10 ") && printed.contains("801/872 is 91.86 %"), "{printed}");
    let output =
        lowbit().current_dir(at).args(["audit", "scores.toml"]).env("LOWBIT_SEEDS", "reports").output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    fs::write(seeds.join("scores.md.audit.toml"), facts).unwrap();
    refused(at, &["audit", "reports/scores.md"], 7, &["1 errors"]);
    refused(at, &["audit", "scores.toml", "--seeds", "nowhere"], 3, &["scores.md", "LOWBIT_SEEDS"]);
    fs::write(at.join("odd.toml"), "report = \"scores.md\"\nrows = 3\n").unwrap();
    refused(at, &["audit", "odd.toml"], 3, &["odd.toml:2", "rows"]);
    refused(at, &["audit", "none.md"], 5, &["none.md"]);
    refused(at, &["audit", "reports/scores.md", "scores.toml", "--facts", "scores.toml"], 2, &["one FILE"]);
}

#[test]
fn the_list_has_every_check() {
    let home = tempfile::tempdir().unwrap();
    let printed = good(home.path(), &["audit", "--list"]);
    let object: Value = serde_json::from_str(&good(home.path(), &["audit", "--list", "--json"])).unwrap();
    let checks = object["checks"].as_array().unwrap();
    assert!(checks.len() >= 40 && printed.lines().count() == checks.len(), "{printed}");
    assert!(checks.iter().all(|c| c["verify"] == true || c["audit"] == true));
    let ids: Vec<u64> = checks.iter().filter_map(|c| c["id"].as_u64()).collect();
    assert!((1..=40).all(|id| ids.contains(&id)), "{ids:?}");
}
