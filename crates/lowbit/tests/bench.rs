//! `lowbit bench kernels` from outside.

mod common;

use common::{good, refused};
use lowbit::kernels::FORMATS;
use serde_json::Value;
use std::path::Path;

#[test]
fn every_format_is_measured_against_a_limit() {
    let args = ["bench", "kernels", "--shape", "64x96", "--tokens", "1,3", "--rounds", "2", "--json"];
    let result: Value = serde_json::from_str(&good(Path::new("."), &args)).expect("one JSON object");
    assert_eq!(result["schema_version"], 1);
    assert!(result["host"]["limits"]["memory_gbps"].as_f64().unwrap() > 0.0);
    let records = result["records"].as_array().unwrap();
    assert_eq!(records.len(), 2 * FORMATS.len());
    for format in FORMATS {
        for tokens in [1, 3] {
            let is_this = |r: &&Value| r["format"] == format.name() && r["tokens"] == tokens;
            let record = records.iter().find(is_this).unwrap_or_else(|| panic!("{} x {tokens}", format.name()));
            let number = |key: &str| record[key].as_f64().unwrap_or_else(|| panic!("no {key}: {record}"));
            assert_eq!((number("rows"), number("cols"), number("n")), (64.0, 96.0, 2.0), "{record}");
            for key in ["threads", "seconds_min", "weight_gbps", "gops", "fraction_of_limit"] {
                assert!(number(key) > 0.0, "{key}: {record}");
            }
            assert!(number("seconds_min") <= number("seconds_p50"), "{record}");
            assert!(number("seconds_p50") <= number("seconds_max"), "{record}");
            assert_eq!(record["isa"], result["host"]["isa"]);
            assert_eq!(record["limit"] == "memory", tokens == 1, "{record}");
        }
    }
}

#[test]
fn a_person_gets_the_limits_and_a_table() {
    let args = ["bench", "kernels", "--format", "int4,f32", "--shape", "32x64", "--tokens", "2", "--rounds", "1"];
    let table = good(Path::new("."), &args);
    for word in ["limits: memory", "us p50", "int4", "f32", "32x64"] {
        assert!(table.contains(word), "`{word}` is not in: {table}");
    }
    assert!(!table.contains("nf4") && !table.contains("memory  "), "only what was asked for: {table}");
}

#[test]
fn unknown_formats_and_bad_shapes_are_refused() {
    let refuse = |flag, value, words: &[&str]| refused(Path::new("."), &["bench", "kernels", flag, value], 2, words);
    refuse("--format", "int5", &["int5", "did you mean `int", "ternary"]);
    refuse("--format", "int8,ternry", &["ternry", "did you mean `ternary`"]);
    for shape in ["12", "12x", "0x12", "12x12x12", "65536x65536", "99999999999999999999x1"] {
        refuse("--shape", shape, &[shape, "ROWSxCOLS"]);
    }
}
