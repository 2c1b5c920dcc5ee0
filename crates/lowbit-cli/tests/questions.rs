//! Tasks that a language model answers as it is, by files of one's own, as a user meets them.

mod common;

use common::{good, refused, run};
use lowbit_base::testing::data;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// A byte-level model that was hardly trained, in `model`.
fn trained(at: &Path) {
    fs::write(at.join("book.txt"), "The naïve cat sat on the mats. So it goes.\n".repeat(400)).unwrap();
    good(at, &["train", "--text", "book.txt", "--out", "model", "--steps", "2"]);
}

/// The only record of `eval`.
fn record(at: &Path, args: &[&str]) -> Value {
    let results: Value = serde_json::from_str(&good(at, &[&["eval", "model", "--json"], args].concat())).unwrap();
    results["records"][0].clone()
}

fn describe(at: &Path, name: &str, text: &str) {
    let text = format!("name = \"{name}\"\nversion = 4\nabout = \"A test.\"\nquestion = \"{name}\"\n{text}");
    fs::write(at.join(format!("{name}.toml")), text).unwrap();
}

#[test]
fn a_language_model_answers_each_question() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    trained(at);
    describe(
        at,
        "likelihood",
        "[likelihood]\ncontext = 32\nstride = 16\n[[valid]]\npaths = [\"book.txt\"]\nshare = [0.9, 0.95]\n\
         [[test]]\npaths = [\"book.txt\"]\nshare = [0.95, 1.0]\nnote = \"the book is short\"\n",
    );
    let book = fs::read(at.join("book.txt")).unwrap();
    fs::write(at.join("end.txt"), &book[book.len() * 95 / 100..]).unwrap();
    let of_text = record(at, &["--text", "end.txt", "--context", "32", "--stride", "16"]);
    let of_task = record(at, &["--task", "likelihood.toml"]);
    assert_eq!(of_task["measures"], of_text["measures"], "one scorer");
    assert!(of_task["measures"]["next_byte_accuracy"]["lo"].is_f64(), "{of_task}");
    assert!(of_task["measures"]["bits_per_byte"]["hi"].is_f64(), "{of_task}");
    assert_eq!(
        (of_task["task"].as_str(), &of_task["detail"]["notices"][0]),
        (Some("likelihood@4"), &"the book is short".into())
    );
    let perplexity = &of_task["measures"]["perplexity"];
    let [low, value, high] = ["lo", "value", "hi"].map(|name| perplexity[name].as_f64().unwrap());
    let bits = ["lo", "value", "hi"].map(|name| of_task["measures"]["bits_per_byte"][name].as_f64().unwrap().exp2());
    assert!([low, value, high].iter().zip(bits).all(|(p, bits)| (p / bits - 1.0).abs() < 1e-9), "{perplexity}");
    let valid = record(at, &["--task", "likelihood.toml", "--split", "valid", "--limit", "100"]);
    assert_eq!(valid["measures"]["bits_per_byte"]["n"], 100);
    let measures = of_task["measures"].as_object().unwrap();
    for name in ["calibration_error", "continuation_nats/16", "continuation_accuracy/16"] {
        assert!(measures.contains_key(name), "{name}: {of_task}");
    }
    assert!(!measures.contains_key("continuation_accuracy/64"), "half a window is 16 bytes");
    let beside = good(at, &["eval", "model", "--task", "likelihood.toml", "--baselines", "--speed", "--json"]);
    let beside: Value = serde_json::from_str(&beside).unwrap();
    let records = beside["records"].as_array().unwrap();
    let names: Vec<&str> = records.iter().map(|record| record["model"].as_str().unwrap()).collect();
    assert_eq!(names, ["model", "order-0", "order-2", "gzip -9", "zstd -19", "brotli -11", "xz -9", "ppmd -o8"]);
    for record in records {
        assert!(record["measures"]["throughput"]["value"].as_f64().unwrap() > 0.0, "{record}");
        assert_eq!(
            (&record["task"], &record["measures"]["bits_per_byte"]["n"]),
            (&"likelihood@4".into(), &(book.len() - book.len() * 95 / 100).into())
        );
    }
    for name in ["scoring_throughput", "file_ratio", "file_ratio_with_model", "decompression_throughput"] {
        assert!(records[0]["measures"][name]["value"].as_f64().unwrap() > 0.0, "{name}: {records:?}");
    }
    assert!(records[0]["measures"]["latency_p50"]["value"].as_f64().unwrap() > 0.0, "{records:?}");
    describe(
        at,
        "likelihood",
        "[[train]]\npaths = [\"book.txt\"]\nshare = [0.0, 0.951]\n[[test]]\npaths = [\"book.txt\"]\nshare = [0.95, 1.0]\n",
    );
    refused(at, &["eval", "model", "--task", "likelihood.toml"], 3, &["[[train]] and [[test]]", "book.txt in common"]);

    fs::write(at.join("rows.csv"), "The cat sat on,0\nSo it,1\nThe cat,0\n").unwrap();
    let rows = "[[test]]\npaths = [\"rows.csv\"]\nlabel = 1\n";
    let classes = "classes = [\"the mats\", \"goes\"]\n";
    describe(at, "choose", &format!("{classes}[choose]\nprompt = \"{{0}}\"\n{rows}"));
    let chosen = record(at, &["--task", "choose.toml", "--limit", "2"]);
    assert_eq!(chosen["detail"]["truths"], serde_json::json!([0, 1]));
    assert!(chosen["measures"]["accuracy"]["n"] == 2 && chosen["measures"]["accuracy_normalized"]["hi"].is_f64());
    describe(at, "generate", &format!("{classes}[generate]\nprompt = \"{{0}}\"\nmax_tokens = 4\n{rows}"));
    let written = record(at, &["--task", "generate.toml"]);
    assert_eq!(written["measures"]["exact_match"]["n"], 3);
    let shown = good(at, &["eval", "model", "--task", "generate.toml"]);
    assert!(shown.contains("model on generate@4 (3 rows, recipe bitnet)"), "{shown}");
    let shown = good(at, &["eval", "model", "--task", "choose.toml"]);
    assert!(shown.contains("model on choose@4 (3 rows, recipe bitnet)"), "{shown}");
}

#[test]
fn questions_that_do_not_fit_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    trained(at);
    let ask = |args: &[&str], words: &[&str]| refused(at, &[&["eval", "model"], args].concat(), 2, words);
    ask(&["--task", "quickstart"], &["language model", "asks for a class", "sst2_zero_shot"]);
    ask(&["--task", "california_housing"], &["language model", "asks for a value", "enwik8"]);
    ask(&["--task", "sst2_zero_shot", "--context", "9"], &["--context", "likeliest"]);
    ask(&["--task", "reviews", "--split", "valid"], &["--split", "reviews"]);
    ask(&["--task", "sst2_zero_shot", "--speed"], &["lowbit bench MODEL"]);
    ask(&["--task", "sst2_zero_shot", "--baselines"], &["--baselines compresses a text", "sst2_zero_shot"]);
    let split = run(at, &["eval", "model", "--task", "enwik8", "--split", "tset"]);
    let reason = String::from_utf8(split.stderr).unwrap();
    assert!(split.status.code() == Some(2) && reason.contains("unknown split `tset`; did you mean `test`"), "{reason}");
    for command in ["compare", "train"] {
        let args = [command, "text8", "--out", "out"];
        let args = if command == "train" { &[&args[..], &["--variant", "f32"]].concat()[..] } else { &args[..] };
        refused(at, args, 2, &["the likelihood of a text", "`lowbit eval MODEL --task text8`"]);
        assert!(!at.join("out").exists());
    }
    let listed = String::from_utf8(run(at, &["eval", "--list"]).stdout).unwrap();
    let line = listed.lines().find(|line| line.contains(" enwik8 ")).unwrap_or_else(|| panic!("{listed}"));
    assert!(line.contains(" likelihood "), "{line}");
}

#[test]
fn a_network_without_names_of_classes_has_those_of_the_task() {
    let (Some(model), Some(images)) = (data("weights/cifar10-resnet20"), data("cifar10_subset")) else { return };
    let folder = images.parent().unwrap().to_str().unwrap();
    let args = ["eval", model.to_str().unwrap(), "--task", "cifar10_lossless", "--data", folder, "--limit", "50"];
    let told = good(Path::new("."), &args);
    assert!(told.contains("Note: the model names no classes: they are taken in the order of the task."), "{told}");
    assert!(told.contains("accuracy                 100.00 %"), "{told}");
}
