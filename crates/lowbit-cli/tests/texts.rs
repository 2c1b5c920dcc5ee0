//! Comparisons of language models, plans, teachers and runs that become longer, as a user meets them.

mod common;

use common::{NETWORK, good, refused, run};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// A text whose last part is another than the first, a language model of it, a task, and a comparison.
fn described(at: &Path) {
    let line = |i: usize| format!("Entry {i}: the {} of the {} is {}.\n", ["name", "age", "home"][i % 3], i * 7, i * i);
    fs::write(at.join("book.txt"), (0..600).map(line).collect::<String>()).unwrap();
    let network = format!("{NETWORK}causal = true\nhead = {{ lm = {{ tied = false }} }}\n");
    let train = "[train]\nsteps = 6\nbatch_size = 2\nlearning_rate = 1e-2\nschedule = \"wsd\"\nwarmup_steps = 1\nsave_every = 2\n";
    let language = |train: &str| {
        format!(
            "kind = \"language\"\nname = \"book\"\ntexts = [\"book.txt\"]\ndocuments = \"files\"\nheld_out = 0.1\ncontext = 32\n\
             recipe = \"bitnet\"\n[model]\n{network}{train}qat = {{}}\nfloat_fraction = 0.5\n"
        )
    };
    fs::write(at.join("book.toml"), language(train)).unwrap();
    fs::write(
        at.join("task.toml"),
        "name = \"book\"\nversion = 1\nabout = \"The end of a book.\"\nquestion = \"likelihood\"\n[likelihood]\ncontext = 32\n\
         stride = 16\n[[test]]\npaths = [\"book.txt\"]\nshare = [0.95, 1.0]\n",
    )
    .unwrap();
    let suite = format!(
        "kind = \"texts\"\nname = \"books\"\nlanguage = \"book.toml\"\ntask = \"task.toml\"\nbaseline = \"f32\"\ncontext = 32\n\
         [model]\n{network}{train}[quick]\ncontext = 32\nlimit = 300\ntrain = {{ steps = 2 }}\n\
         [[variant]]\nname = \"f32\"\nrecipe = \"f32\"\n[[variant]]\nname = \"int8\"\nrecipe = \"int8\"\nfrom = \"f32\"\n\
         [[variant]]\nname = \"nf4\"\nrecipe = \"nf4\"\nfrom = \"f32\"\n\
         [[variant]]\nname = \"ternary\"\nrecipe = \"bitnet_b3\"\ntrain = {{ qat = {{}} }}\n\
         [[variant]]\nname = \"ternary_again\"\nrecipe = \"bitnet_b3\"\ntrain = {{ qat = {{}}, seed = 2 }}\n"
    );
    fs::write(at.join("books.toml"), suite).unwrap();
}

fn records(printed: &str) -> Vec<Value> {
    let results: Value = serde_json::from_str(printed).unwrap();
    results["records"].as_array().unwrap().clone()
}

#[test]
fn language_models_are_compared_beside_compressors() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    described(at);
    let compare = ["compare", "books.toml", "--quick", "--data", ".", "--out", "out"];
    let output = run(at, &compare);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{told} {}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains("without a network, needs"), "{told}");
    assert!(!told.contains("fewest bits"), "two blocks of text show no difference: {told}");
    let report = fs::read_to_string(at.join("out/report.md")).unwrap();
    assert!(report.contains("Bytes"), "{report}");
    good(at, &["report", "out", "--verify"]);

    // What is finished is kept.
    let again = run(at, &[&compare[..], &["--json"]].concat());
    assert_eq!(String::from_utf8_lossy(&again.stderr).matches("kept from before").count(), 5);
    let records = records(&String::from_utf8(again.stdout).unwrap());
    let names: Vec<&str> = records.iter().map(|record| record["model"].as_str().unwrap()).collect();
    let compressors = ["order-0", "order-2", "gzip -9", "zstd -19", "brotli -11", "xz -9", "ppmd -o8"];
    assert_eq!(names, [&["f32", "int8", "nf4", "ternary", "ternary_again"][..], &compressors].concat());
    for record in &records {
        let measures = record["measures"].as_object().unwrap();
        let value = |name: &str| measures[name]["value"].as_f64().unwrap();
        assert_eq!(measures["bits_per_byte"]["n"], 300, "{record}");
        // Passes of several tokens round nf4 otherwise than those of one: such a model writes no file.
        let name = record["model"].as_str().unwrap();
        assert_eq!(measures.contains_key("file_ratio"), name != "nf4", "{name}");
        if record["params"] != 0 {
            assert!(value("peak_rss_bytes") > value("weight_bytes") && value("load_seconds") > 0.0, "{name}");
            assert!(value("latency_p50") > 0.0 && measures.contains_key("continuation_accuracy/16"), "{name}");
        }
        assert_eq!(measures.contains_key("int8_limit_share"), record["params"] != 0 && name != "nf4", "{name}");
        if name != "nf4" {
            assert!(value("file_ratio_with_model") <= value("file_ratio"), "{name}");
            assert_eq!(measures.contains_key("decompression_throughput"), !name.starts_with("order"), "{name}");
        }
    }
}

#[test]
fn comparisons_that_make_no_sense_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    described(at);
    refused(at, &["compare", "quickstart", "--quick"], 2, &["suite quickstart has no [quick]", "--quick"]);
    let suite = fs::read_to_string(at.join("books.toml")).unwrap();
    fs::write(at.join("bad.toml"), suite.replace("baseline = \"f32\"", "baseline = \"int8\"")).unwrap();
    refused(at, &["compare", "bad.toml", "--data", "."], 3, &["bad.toml", "`baseline` is `int8`"]);
    fs::write(at.join("bad.toml"), suite.replace("task.toml", "quickstart")).unwrap();
    refused(at, &["compare", "bad.toml", "--data", "."], 2, &["asks for a class, not for a text"]);
    // The text that is scored is trained on, too.
    let language = fs::read_to_string(at.join("book.toml")).unwrap();
    fs::write(at.join("book.toml"), language.replace("held_out = 0.1", "held_out = 0.001")).unwrap();
    refused(at, &["compare", "books.toml", "--data", ".", "--out", "x"], 2, &["is trained on", "held_out"]);
}

#[test]
fn a_plan_measures_networks_and_trains_none() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    let printed = good(at, &["train", "text", "--plan", "0.0001", "--json"]);
    let plan: Value = serde_json::from_str(&printed).unwrap();
    let candidates = plan["plan"]["candidates"].as_array().unwrap();
    assert!(
        candidates.len() >= 2 && candidates.iter().all(|c| c["tokens_per_second"].as_f64().unwrap() > 0.0),
        "{plan}"
    );
    assert_eq!((&plan["plan"]["best"], fs::read_dir(at).unwrap().count()), (&0.into(), 0));
    refused(at, &["train", "text", "--plan", "0"], 2, &["--plan is 0", "above 0"]);
    refused(at, &["train", "quickstart", "--plan", "1"], 2, &["quickstart", "no language model"]);
}

#[test]
fn a_run_becomes_longer_and_learns_from_a_teacher() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    described(at);
    let train = |args: &[&str]| good(at, &[&["train", "book.toml", "--data", "."], args].concat());
    // The rate goes down at the end: a run that is whole cannot become longer.
    train(&["--out", "six"]);
    refused(at, &["train", "book.toml", "--data", ".", "--out", "six", "--steps", "9"], 3, &["cannot resume"]);
    let whole = fs::read_to_string(at.join("book.toml")).unwrap();
    let twin = whole.replace("qat = {}\nfloat_fraction = 0.5\n", "").replace("recipe = \"bitnet\"", "recipe = \"f32\"");
    fs::write(at.join("twin.toml"), twin).unwrap();
    good(at, &["train", "twin.toml", "--data", ".", "--out", "teacher"]);
    refused(at, &["train", "book.toml", "--data", ".", "--out", "x", "--distill", "six"], 2, &["full precision"]);
    let told = train(&["--out", "student", "--distill", "teacher", "--steps", "2"]);
    assert!(told.contains("2 updates"), "{told}");
    let metrics = |name: &str| fs::read_to_string(at.join(name).join("metrics.jsonl")).unwrap();
    train(&["--out", "alone", "--steps", "2"]);
    assert!(metrics("student") != metrics("alone"), "the teacher changes what is learnt");
}
