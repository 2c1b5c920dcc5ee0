//! `lowbit bench MODEL` from outside.

mod common;

use common::{good, lowbit, refused, run};
use lowbit::model::parameter_list::ParameterList;
use lowbit::model::source::Init;
use lowbit::model::{Config, ModelConfig, checkpoint};
use serde_json::Value;
use std::path::Path;

fn small_model(directory: &Path, head: &str) {
    let text = format!(
        r#"{{"architecture": "decoder", "vocab_size": 300, "hidden_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12, "intermediate_size": 80, "hidden_act": "relu2",
        "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "sub_norm": true, "causal": true, "head": {head}}}"#
    );
    let config: Config = serde_json::from_str(&text).expect("valid");
    let parameters = ParameterList::new(&config).expect("valid");
    let params: Vec<_> = parameters.params().iter().collect();
    let values = |i: usize| ((i * 2_654_435_761) % 1000) as f32 / 5000.0 - 0.1;
    let fill = |spec: &lowbit::model::source::ParamSpec| match spec.init {
        Init::Constant(value) => vec![value; spec.rows * spec.cols],
        Init::Normal(_) => (0..spec.rows * spec.cols).map(values).collect::<Vec<f32>>(),
    };
    let filled: Vec<Vec<f32>> = params.iter().map(|spec| fill(spec)).collect();
    let params = params.into_iter().zip(filled.iter().map(|v| &v[..]));
    checkpoint::save_masters(directory, &ModelConfig::new(config, 64), None, params).expect("written");
}

const LM: &str = r#"{"lm": {"tied": true}}"#;
const FEW: [&str; 8] = ["-p", "8,16", "-n", "4", "-r", "2", "--parallel", "3"];

#[test]
fn bytes_of_a_head_read_in_part_are_counted() {
    let home = tempfile::tempdir().expect("a directory");
    small_model(&home.path().join("tiny"), LM);
    let rows = |recipe: &str, k: &str| {
        let args = ["bench", "tiny", "-p", "8", "-n", "4", "-r", "2", "--parallel", "2", "-t", "1", "-o", "jsonl"];
        let text = good(home.path(), &[&args[..], &["--recipe", recipe, "--top-k", k]].concat());
        let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        rows.map(|row| {
            (row["test"].as_str().expect("a name").to_string(), row["bytes_per_token"].as_f64().expect("bytes"))
        })
        .collect::<Vec<_>>()
    };
    let names = |rows: &[(String, f64)]| rows.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let (all, some) = (rows("bitnet_scan", "0"), rows("bitnet_scan", "1"));
    assert_eq!(names(&all), ["pp8", "tg4", "tg4x2", "ttft32"]);
    assert_eq!(names(&some), ["pp8 top1", "tg4 top1", "tg4x2", "ttft32 top1"]);
    assert!(some[1].1 != all[1].1 && some[2].1 == all[2].1, "{some:?} {all:?}");
    // A head that is read as a whole counts as a whole.
    for recipe in ["bitnet_head4", "bitnet_bf16"] {
        assert_eq!(rows(recipe, "1")[1].1, rows(recipe, "0")[1].1, "{recipe}");
    }
}

#[test]
fn every_test_is_measured_with_every_number_of_threads() {
    let home = tempfile::tempdir().expect("a directory");
    small_model(&home.path().join("tiny"), LM);
    let args = [&["bench", "tiny", "-t", "1,2", "--recipe", "bitnet_head4", "--json"][..], &FEW].concat();
    let result: Value = serde_json::from_str(&good(home.path(), &args)).expect("one JSON object");
    let records = result["records"].as_array().expect("records");
    let tests = ["pp8", "pp16", "tg4", "tg4x3", "ttft32"];
    assert_eq!(records.len(), 2 * tests.len());
    for (i, record) in records.iter().enumerate() {
        assert_eq!((record["task"].as_str(), record["threads"].as_u64()), (Some(tests[i % 5]), Some(1 + i as u64 / 5)));
        assert_eq!((record["model"].as_str(), record["recipe"].as_str()), (Some("tiny"), Some("bitnet_head4")));
        let measure =
            |name: &str| record["measures"][name]["value"].as_f64().unwrap_or_else(|| panic!("{name}: {record}"));
        let speed = ["prefill_tokens_per_second", "prefill_tokens_per_second", "decode_tokens_per_second"];
        let speed = [&speed[..], &["decode_tokens_per_second", "ttft_seconds"]].concat()[i % 5];
        for name in [speed, "bytes_per_token", "fraction_of_limit", "weight_bytes", "load_seconds", "peak_rss_bytes"] {
            assert!(measure(name) > 0.0, "{name}: {record}");
        }
        assert_eq!(record["detail"]["samples"]["tokens_per_second"].as_array().map(Vec::len), Some(2));
        assert!(record["limits"]["memory_gbps"].as_f64().expect("measured") > 0.0);
        assert!(record["limit"] == "memory" || record["limit"] == "arithmetic");
    }
    let bytes = |i: usize| records[i]["measures"]["bytes_per_token"]["value"].as_f64().expect("a number");
    assert!(bytes(2) > 2.5 * bytes(3), "three sequences share the weights: {} and {}", bytes(2), bytes(3));
}

#[test]
fn tables_have_a_row_per_test() {
    let home = tempfile::tempdir().expect("a directory");
    small_model(&home.path().join("tiny"), LM);
    let table = |form: &str| good(home.path(), &[&["bench", "tiny", "-t", "1", "-o", form][..], &FEW].concat());
    let markdown = table("md");
    for words in
        ["| model | size | params | recipe | isa | threads | test | t/s |", "| tg4x3 |", "limits with 1 threads"]
    {
        assert!(markdown.contains(words), "`{words}` is not in: {markdown}");
    }
    assert_eq!(markdown.lines().filter(|line| line.starts_with("| tiny |")).count(), 5);
    let csv = table("csv");
    let columns: Vec<_> = csv.lines().map(|line| line.split(',').count()).collect();
    assert_eq!(columns, [16; 6], "{csv}");
    let lines: Vec<Value> = table("jsonl").lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    assert_eq!(lines.len(), 5);
    assert_eq!(lines[2]["test"], "tg4");
    assert!(lines[2]["tokens_per_second_sd"].is_number() && lines[2]["limits"]["int8_gops"].is_number());
}

#[test]
fn depths_pairs_and_names_of_the_hub() {
    let home = tempfile::tempdir().expect("a directory");
    let snapshot = home.path().join("hub/models--org--tiny/snapshots/0a1b");
    small_model(&snapshot, LM);
    let refs = home.path().join("hub/models--org--tiny/refs");
    std::fs::create_dir_all(&refs).expect("a directory");
    std::fs::write(refs.join("main"), "0a1b").expect("written");
    let args = ["bench", "org/tiny", "-p", "8", "-n", "4", "--pg", "8,4", "-d", "0,24", "-r", "1", "-o", "jsonl"];
    let cache = home.path().join("hub");
    let out = lowbit().current_dir(home.path()).args(args).env("HF_HUB_CACHE", cache).output().expect("runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).expect("UTF-8");
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    let tests: Vec<_> = rows.iter().map(|row| row["test"].as_str().expect("a name")).collect();
    let want = ["pp8", "tg4", "pp8+tg4", "pp8 @ d24", "tg4 @ d24", "pp8+tg4 @ d24", "ttft32"];
    assert_eq!(tests, want);
    assert!(rows.iter().all(|row| row["model"] == "tiny"));
    let bytes = |i: usize| rows[i]["bytes_per_token"].as_f64().expect("a number");
    assert!(bytes(4) > bytes(1) && bytes(2) > bytes(0) && bytes(2) < bytes(1), "{text}");
}

#[test]
fn a_classifier_takes_whole_sequences_one_or_several_in_a_pass() {
    let home = tempfile::tempdir().expect("a directory");
    small_model(&home.path().join("judge"), r#"{"classify": {"classes": 2, "pooling": "last"}}"#);
    let text = good(home.path(), &[&["bench", "judge", "-t", "1", "-o", "jsonl"], &FEW[..]].concat());
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    let names: Vec<&str> = rows.iter().map(|row| row["test"].as_str().expect("a name")).collect();
    assert_eq!(names, ["pp8", "pp8x3", "pp16", "pp16x3"]);
    for row in &rows {
        assert!(row["tokens_per_second"].as_f64().is_some_and(|rate| rate > 0.0) && row["n"] == 2, "{row}");
    }
    let read = |name: &str| rows.iter().find(|row| row["test"] == name).expect("measured")["bytes_per_token"].as_f64();
    assert!(read("pp8x3") < read("pp8"), "weights are read once for all sequences of a pass");
    let long = ["bench", "--synthetic", "minilm", "-p", "513"];
    refused(home.path(), &long, 2, &["minilm", "512 positions", "513 tokens"]);
}

#[test]
fn shapes_with_random_weights_are_those_a_suite_names() {
    let home = tempfile::tempdir().expect("a directory");
    refused(home.path(), &["compare", "quickstart", "--random-weights"], 2, &["quickstart", "names no shapes"]);
}

#[test]
fn synthetic_models_are_written() {
    let home = tempfile::tempdir().expect("a directory");
    refused(home.path(), &["bench", "--synthetic", "bitnet-2B", "--save", "x"], 2, &["did you mean `bitnet-2b`"]);
    assert!(!home.path().join("x").exists());
}

#[test]
fn bad_requests_are_refused() {
    let home = tempfile::tempdir().expect("a directory");
    let refuse = |args: &[&str], code, words: &[&str]| refused(home.path(), &[&["bench"], args].concat(), code, words);
    small_model(&home.path().join("tiny"), LM);
    small_model(&home.path().join("judge"), r#"{"classify": {"classes": 2, "pooling": "last"}}"#);
    refuse(&[], 2, &["MODEL", "--synthetic", "kernels"]);
    refuse(&["--synthetic", "bitnet-2B"], 2, &["did you mean `bitnet-2b`"]);
    refuse(&["tiny", "--recipe", "bitnett"], 2, &["did you mean `bitnet`"]);
    refuse(&["judge", "-p", "0"], 2, &["judge", "classifier", "writes no answers", "-p"]);
    refuse(&["absent"], 5, &["absent"]);
    let many = ["--synthetic", "bitnet-2b", "-n", "131072", "-d", "131072", "--parallel", "256"];
    refuse(&many, 4, &["needs", "weights 8", "keys and values", "available"]);
    for args in [["tiny", "--pg", "512"], ["tiny", "--save", "x"]] {
        let out = run(home.path(), &[&["bench"], &args[..]].concat());
        let printed = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code() == Some(2) && printed.contains(args[1]), "{printed}");
    }
}
