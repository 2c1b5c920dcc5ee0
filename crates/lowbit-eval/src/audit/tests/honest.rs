//! Reports that contradict nothing: our own, and tables of papers.

use super::*;
use crate::record::Results;
use crate::report;

type Make = fn() -> Results;

/// Ten reports as this program writes them.
const OWN: &[(&str, Make)] = &[
    ("classes", fixture::clean),
    ("language", fixture::language),
    ("numbers", fixture::numbers),
    ("few rows", || {
        let mut results = fixture::clean();
        fixture::cut(&mut results, 300);
        results
    }),
    ("nothing learnt", || {
        let mut results = fixture::clean();
        fixture::answer(&mut results, "f32", 510);
        results
    }),
    ("two variants", || kept(&["f32", "int8", "naive_bayes", "majority"])),
    ("ternary", || kept(&["f32", "ternary_ptq", "ternary_qat", "majority"])),
    ("four bits", || kept(&["f32", "nf4", "nf4_dq", "int4", "naive_bayes"])),
    ("a failure", || {
        let mut results = fixture::clean();
        fixture::answer(&mut results, "int2", 480);
        results
    }),
    ("languages of one size", || {
        let mut results = fixture::language();
        results.records.retain(|r| r.model != "int4");
        results
    }),
];

fn kept(names: &[&str]) -> Results {
    let mut results = fixture::clean();
    results.records.retain(|r| names.contains(&r.model.as_str()));
    results
}

#[test]
fn our_own_reports_raise_nothing() {
    let mut wrong = Vec::new();
    for (name, make) in OWN {
        let dir = tempfile::tempdir().unwrap();
        report::write(dir.path(), &make()).unwrap();
        for file in ["report.md", "report.html", "results.csv"] {
            let made = audit(&dir.path().join(file), None, &[]).unwrap();
            if !made.findings.is_empty() {
                wrong.push(format!("{name}, {file}:\n{}", told(&made.findings)));
            }
            assert!(made.figures > 20, "{name}, {file}: {} figures", made.figures);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Tables as published, which are consistent: name, text, facts.
const PUBLISHED: &[(&str, &str)] = &[
    ("bitnet b1.58, arXiv 2402.17764, table 1", include_str!("published/bitnet-b158.md")),
    ("compressors, mattmahoney.net/dc/text.html", include_str!("published/compressors.md")),
    ("bitdistill, arXiv 2510.13998", include_str!("published/bitdistill.md")),
];

#[test]
fn published_tables_raise_nothing() {
    for (name, text) in PUBLISHED {
        let findings = found(text, "");
        assert!(findings.is_empty(), "{name}:\n{}", told(&findings));
    }
}

#[test]
fn a_wrong_digit_in_a_published_table_is_found() {
    let changed = |i: usize, from: &str, to: &str| {
        let text = PUBLISHED[i].1;
        assert!(text.contains(from), "{from}");
        found(&text.replacen(from, to, 1), "")
    };
    assert!(changed(0, "3.55x", "4.55x").iter().any(|f| f.check == 2));
    assert!(changed(1, "2.916", "2.716").iter().any(|f| f.check == 6));
}
