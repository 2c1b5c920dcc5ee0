//! `lowbit predict` with a language model: what it writes for each row.

mod common;
#[path = "common/language.rs"]
mod language;

use common::{good, lowbit, refused, run};
use language::{CHAT, LM, model};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Stdio;

fn home(template: Option<&str>) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    model(directory.path(), template, LM);
    directory
}

fn table(rows: usize) -> String {
    let row = |i: usize| format!("{i},\"q {}, \"\"{i}\"\"\"\n", ["one", "two", "and three"][i % 3]);
    format!("id,question\n{}", (0..rows).map(row).collect::<String>())
}

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn answers_are_those_of_run_whoever_shares_the_passes() {
    let home = home(Some(CHAT));
    let at = home.path();
    fs::write(at.join("q.csv"), table(20)).expect("written");
    let base = [
        "predict", "m", "q.csv", "--text", "question", "--keep", "--format", "jsonl", "-n", "6", "--system", "be brief",
    ];
    let answers = objects(&good(at, &base));
    assert_eq!(answers.len(), 20);
    for (i, answer) in answers.iter().enumerate() {
        assert_eq!(answer["id"], Value::from(i.to_string()));
        let keys: Vec<&str> = answer.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(keys, ["id", "question", "generation", "finish"], "{answer}");
    }
    // The same as one answer at a time, in this program and in `run`.
    assert_eq!(objects(&good(at, &[&base[..], &["--parallel", "1"]].concat())), answers);
    for answer in &answers[..3] {
        let question = answer["question"].as_str().expect("a text");
        let alone = good(at, &["--json", "run", "m", "-p", question, "-n", "6", "--temp", "0", "--system", "be brief"]);
        let alone: Value = serde_json::from_str(&alone).expect("JSON");
        assert_eq!(alone["text"], answer["generation"], "{alone}");
    }
    assert!(answers.iter().any(|answer| answer["generation"] != answers[0]["generation"]));
    // Drawn answers have their row's seed, wherever the batch begins.
    let drawn = [&base[..], &["--temperature", "1.5", "--top-k", "0", "--seed", "5"]].concat();
    let first = objects(&good(at, &drawn));
    assert_eq!(objects(&good(at, &[&drawn[..], &["--parallel", "3"]].concat())), first);
    assert_ne!(first, answers);
}

#[test]
fn rows_that_cannot_be_answered_say_why() {
    let home = home(Some(CHAT));
    let at = home.path();
    let lines = format!("hello\n\n{}\nhello\n", "long ".repeat(60));
    fs::write(at.join("q.txt"), lines).expect("written");
    let output = run(at, &["predict", "m", "q.txt", "-n", "3", "--format", "jsonl", "-o", "a.jsonl"]);
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && printed.contains("1 of 4 prompts leave no room"), "{printed}");
    let answers = objects(&fs::read_to_string(at.join("a.jsonl")).expect("written"));
    let remarks: Vec<&str> = answers.iter().map(|answer| answer["remark"].as_str().unwrap_or_default()).collect();
    assert_eq!(remarks, ["", "empty", "too long", ""]);
    assert_eq!((&answers[1]["generation"], &answers[2]["finish"]), (&Value::from(""), &Value::from("")));
    assert_eq!((&answers[0], &answers[0]["finish"]), (&answers[3], &Value::from("length")));
    let csv = good(at, &["predict", "m", "q.txt", "-n", "3", "--text", "0", "--no-chat"]);
    assert!(csv.starts_with("generation,finish,remark\n"), "{csv}");
    let record: Value =
        serde_json::from_str(&good(at, &["--json", "predict", "m", "q.txt", "-n", "3", "-o", "b.csv"])).expect("JSON");
    assert!(record["records"][0]["measures"]["decode_tokens_per_second"]["n"].as_u64() <= Some(6), "{record}");
    for (args, code, words) in [
        (&["--top", "2"][..], 2, &["--top names classes"][..]),
        (&["--temperature=-1"], 2, &["--temperature is -1"]),
        (&["--top-p", "0"], 2, &["--top-p is 0"]),
        (&["-c", "100000"], 2, &["context is 100000"]),
    ] {
        refused(at, &[&["predict", "m", "q.txt"], args].concat(), code, words);
    }
    model(at, None, LM);
    refused(at, &["predict", "m", "q.txt", "--system", "x"], 3, &["no chat template"]);
}

#[test]
fn a_run_that_was_killed_goes_on_and_shards_are_one_run() {
    let home = home(Some(CHAT));
    let at = home.path();
    let base = ["predict", "m", "q.csv", "--text", "question", "--keep", "-n", "24", "--temperature", "1", "-t", "1"];
    // So many rows that they take longer than it takes until what is done is noted, a second.
    fs::write(at.join("q.csv"), table(2_000)).expect("written");
    let start = std::time::Instant::now();
    good(at, &[&base[..], &["-o", "first.csv"]].concat());
    let rows = ((4_000.0 / start.elapsed().as_secs_f64()) as usize).clamp(2_000, 100_000);
    fs::write(at.join("q.csv"), table(rows)).expect("written");
    let mut command = lowbit();
    command.current_dir(at).args(base).args(["-o", "kept.csv", "--resume"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
    let noted = || fs::read(at.join("kept.csv.partial.json")).is_ok();
    while !noted() {
        let ended = child.try_wait().expect("waits").is_some();
        assert!(!ended, "it ended before it could be killed");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert!(!at.join("kept.csv").exists());
    let again = run(at, &[&base[..], &["-o", "kept.csv", "--resume"]].concat());
    assert!(again.status.success() && String::from_utf8_lossy(&again.stderr).contains("goes on after"), "{again:?}");
    for shard in ["2/3", "1/3", "3/3"] {
        good(at, &[&base[..], &["-o", "parts.csv", "--shard", shard]].concat());
    }
    assert!(lines(at, "parts.csv.1-of-3") < rows / 2 && lines(at, "parts.csv.3-of-3") > rows / 4);
    assert!(good(at, &["merge", "parts.csv"]).contains(&format!("{rows} rows of 3 shards")));
    assert!(fs::read(at.join("parts.csv")).expect("merged") == fs::read(at.join("kept.csv")).expect("written"));
}

fn lines(at: &Path, file: &str) -> usize {
    fs::read_to_string(at.join(file)).expect("written").lines().count()
}
