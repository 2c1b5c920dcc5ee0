//! `lowbit bench kernels` from outside.

mod common;

use common::{good, refused, run};
use lowbit::kernels::{FORMATS, Isa};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
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
            assert_eq!((&record["shape"], record["samples"].as_array().unwrap().len()), (&json!("64x96"), 2));
            assert!(number("seconds_min") <= number("seconds_p50"), "{record}");
            assert!(number("seconds_p50") <= number("seconds_max"), "{record}");
            assert_eq!(record["isa"], result["host"]["isa"]);
            assert_eq!(record["limit"] == "memory", tokens == 1, "{record}");
        }
    }
}

#[test]
fn every_machine_asked_for_is_measured() {
    let best = Isa::choose(None).unwrap().name();
    let isas = format!("scalar,{best}");
    let args = ["bench", "kernels", "--format", "int8,ternary", "--shape", "32x64", "--tokens", "1,2", "--rounds", "2"];
    let args = [&args[..], &["--threads", "1,2", "--isa", &isas, "--json"]].concat();
    let result: Value = serde_json::from_str(&good(Path::new("."), &args)).expect("one JSON object");
    let key = |r: &Value| (r["isa"].as_str().unwrap().to_owned(), r["threads"].as_u64().unwrap());
    let wanted: BTreeSet<_> = ["scalar", best].iter().flat_map(|isa| [1, 2].map(|n| (isa.to_string(), n))).collect();
    let machines = result["machines"].as_array().unwrap();
    assert_eq!(machines.iter().map(key).collect::<BTreeSet<_>>(), wanted);
    for machine in machines {
        let limit = |name: &str| machine["limits"][name].as_f64();
        assert!(limit("memory_gbps").unwrap() > 0.0 && limit("int8_gops").unwrap() > 0.0, "{machine}");
        assert_eq!(limit("bf16_gflops").is_some(), machine["isa"] == "avx512-bf16", "{machine}");
    }
    let records = result["records"].as_array().unwrap();
    assert_eq!(records.len(), 4 * wanted.len());
    assert_eq!(records.iter().map(key).collect::<BTreeSet<_>>(), wanted);
    refused(Path::new("."), &["bench", "--synthetic", "bitnet-2b", "--isa", &isas], 2, &["--isa", "one name"]);
    refused(Path::new("."), &["doctor", "--threads", "1,2"], 2, &["--threads", "one number"]);
}

#[test]
fn a_layer_is_one_case() {
    let args = ["bench", "kernels", "--format", "ternary", "--shape", "bitnet-2b-layer", "--tokens", "2"];
    let args = [&args[..], &["--rounds", "1", "--json"]].concat();
    let result: Value = serde_json::from_str(&good(Path::new("."), &args)).expect("one JSON object");
    let record = &result["records"][0];
    assert_eq!((&record["shape"], &record["rows"]), (&json!("bitnet-2b-layer"), &Value::Null));
    let number = |key: &str| record[key].as_f64().unwrap();
    let (ops, bytes) = (number("gops") * number("seconds_p50"), number("weight_gbps") * number("seconds_p50"));
    let weights = 69_468_160.0;
    assert!((ops * 1e9 / (4.0 * weights) - 1.0).abs() < 1e-9, "two tokens: {record}");
    assert!((bytes * 1e9 / (weights / 4.0) - 1.0).abs() < 1e-3, "2 bits each: {record}");
}

#[test]
fn attention_is_measured() {
    let args = ["bench", "kernels", "--attention", "3x20,2x16", "--tokens", "5,70", "--rounds", "1", "--json"];
    let result: Value = serde_json::from_str(&good(Path::new("."), &args)).expect("one JSON object");
    let records = result["records"].as_array().unwrap();
    let case = |r: &Value| (r["shape"].as_str().unwrap().to_owned(), r["tokens"].as_u64().unwrap());
    let all: Vec<_> = records.iter().map(case).collect();
    assert_eq!(all, [("3x20".into(), 5), ("3x20".into(), 70), ("2x16".into(), 5), ("2x16".into(), 70)]);
    for r in records {
        assert_eq!((&r["format"], &r["limit"]), (&json!("attention"), &json!("f32")));
        assert!(r["fraction_of_limit"].as_f64().unwrap() > 0.0, "{r}");
    }
    refused(Path::new("."), &["bench", "kernels", "--attention", "20"], 2, &["`20`", "HEADSxWIDTH"]);
}

/// Demands that tags are closed in the order they were opened, and attributes quoted.
fn demand_xml(text: &str) {
    let mut open = Vec::new();
    for piece in text.split('<').skip(1) {
        let (tag, _) = piece.split_once('>').unwrap_or_else(|| panic!("no end: {piece}"));
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        match (tag.strip_prefix('/'), tag.ends_with('/')) {
            (Some(name), _) => assert_eq!(open.pop(), Some(name), "{tag}"),
            (None, true) => {}
            (None, false) => open.push(tag.split(' ').next().unwrap()),
        }
    }
    assert!(open.is_empty(), "{open:?}");
    assert!(text.split('&').skip(1).all(|t| t.split_once(';').is_some_and(|(name, _)| name.len() < 6)), "bare &");
}

#[test]
fn a_plot_has_every_case() {
    let home = tempfile::tempdir().unwrap();
    let args = ["bench", "kernels", "--shape", "32x64", "--tokens", "1,3", "--rounds", "1", "--threads", "1,2"];
    good(home.path(), &[&args[..], &["--plot", "roof.svg"]].concat());
    let svg = fs::read_to_string(home.path().join("roof.svg")).unwrap();
    demand_xml(&svg);
    assert!(svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>"));
    for format in FORMATS {
        for tokens in [1, 3] {
            let title = format!("<title>{} 32x64 x {tokens} tokens: ", format.name());
            assert_eq!(svg.matches(&title).count(), 2, "{title}, one for each number of threads");
        }
    }
    for word in [" 1 thread<", " 2 threads<", "memory ", "int8 ", "GB/s", "operations per byte"] {
        assert!(svg.contains(word), "{word}");
    }
    refused(home.path(), &[&args[..], &["--plot", "none/roof.svg"]].concat(), 5, &["none/roof.svg"]);
}

fn against<'a>(case: &[&'a str], record: &'a str) -> Vec<&'a str> {
    [case, &["--against", record]].concat()
}

#[test]
fn a_record_tells_what_became_slower() {
    let home = tempfile::tempdir().unwrap();
    let case = ["bench", "kernels", "--format", "int8", "--shape", "64x96", "--tokens", "1", "--rounds", "3"];
    let record: Value = serde_json::from_str(&good(home.path(), &[&case[..], &["--json"]].concat())).unwrap();
    let write = |name: &str, record: &Value| fs::write(home.path().join(name), record.to_string()).unwrap();
    // The same case, a hundred times as fast and as slow, in the words of an older record.
    for (name, factor) in [("fast.json", 0.01), ("slow.json", 100.0)] {
        let case = record["records"][0].as_object().unwrap();
        let (seconds, fraction) = (case["seconds_p50"].as_f64().unwrap(), case["fraction_of_limit"].as_f64().unwrap());
        let mut old = case.clone();
        old.retain(|key, _| !["samples", "shape"].contains(&key.as_str()));
        for key in ["seconds_p50", "seconds_min", "seconds_max"] {
            old[key] = json!(seconds * factor);
        }
        old["fraction_of_limit"] = json!(fraction / factor);
        let mut file = record.clone();
        file["records"] = json!([old]);
        write(name, &file);
    }
    refused(
        home.path(),
        &against(&case, "fast.json"),
        7,
        &["1 of 1 cases are slower", "fast.json", "int8 64x96 x 1 tokens"],
    );
    let output = run(home.path(), &[&against(&case, "fast.json")[..], &["--json"]].concat());
    let printed: Value = serde_json::from_slice(&output.stdout).expect("the results come before the verdict");
    assert_eq!((output.status.code(), &printed["records"][0]["change"]["verdict"]), (Some(7), &json!("slower")));
    assert!(good(home.path(), &against(&case, "slow.json")).contains("faster"));

    let refuse = |name: &str, record: &Value, code, words: &[&str]| {
        write(name, record);
        refused(home.path(), &against(&case, name), code, &[&[name], words].concat());
    };
    let changed = |key: &str, value: Value| {
        let mut record = record.clone();
        *record.pointer_mut(key).unwrap() = value;
        record
    };
    refuse("cpu.json", &changed("/host/cpu", json!("Another 3000")), 2, &["Another 3000", "another CPU"]);
    refuse("none.json", &changed("/records/0/tokens", json!(2)), 2, &["none of the cases"]);
    refuse("old.json", &changed("/schema_version", json!(0)), 3, &["schema_version is 0"]);
    refuse("zero.json", &changed("/records/0/seconds_p50", json!(0.0)), 3, &["records[0]", "seconds_p50", "positive"]);
    refuse(
        "model.json",
        &json!({"schema_version": 1, "host": {"cpu": "x"}, "records": [{"task": "pp512"}]}),
        3,
        &["bench kernels", "missing field `format`"],
    );
    refuse("list.json", &json!([]), 3, &["bench kernels"]);
    refused(home.path(), &against(&case, "missing.json"), 5, &["missing.json"]);
    fs::write(home.path().join("cut.json"), &record.to_string()[..200]).unwrap();
    refused(home.path(), &against(&case, "cut.json"), 3, &["cut.json", "EOF"]);
}

#[test]
fn bad_numbers_of_threads_are_refused() {
    for bad in ["two", "100000", "-2"] {
        refused_threads(common::lowbit().args(["doctor", &format!("--threads={bad}")]), bad);
        refused_threads(common::lowbit().arg("doctor").env("LOWBIT_THREADS", bad), bad);
    }
    for unset in ["", "-1", "0"] {
        let output = common::lowbit().args(["doctor", "--json"]).env("LOWBIT_THREADS", unset).output().unwrap();
        let printed: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        assert_ne!(printed["threads"]["why"], "asked for", "{unset:?}: {printed}");
    }
    let printed = common::lowbit().args(["doctor", "--json"]).env("LOWBIT_THREADS", "2").output().unwrap();
    let printed: Value = serde_json::from_slice(&printed.stdout).expect("one JSON object");
    assert_eq!(printed["threads"], json!({"count": 2, "why": "asked for"}));
    let formats: Vec<_> =
        printed["ternary"].as_array().unwrap().iter().map(|way| way["format"].as_str().unwrap()).collect();
    assert_eq!(BTreeSet::from_iter(formats), BTreeSet::from(["ternary", "ternary_b3"]));
    let printed = good(Path::new("."), &["doctor"]);
    for word in ["threads ", "this process may use", "ternary ", "G weights/s", "--recipe bitnet"] {
        assert!(
            printed.contains(word) || word.contains("process") && printed.contains("CPU quota"),
            "`{word}`: {printed}"
        );
    }
}

fn refused_threads(command: &mut std::process::Command, bad: &str) {
    let output = command.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{printed}");
    let first = printed.lines().next().unwrap_or_default();
    let words = ["error: ", &format!("'{bad}'"), "1 to 1024", "LOWBIT_THREADS"];
    assert!(words.iter().all(|word| first.contains(word)), "{printed}");
}

#[test]
fn a_person_gets_the_limits_and_a_table() {
    let args = ["bench", "kernels", "--format", "int4,f32", "--shape", "32x64", "--tokens", "2", "--rounds", "1"];
    let table = good(Path::new("."), &args);
    for word in ["limits of ", ": memory ", "us p50", "int4", "f32", "32x64"] {
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
