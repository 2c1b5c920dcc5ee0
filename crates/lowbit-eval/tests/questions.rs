//! Questions to language models, against the log-likelihoods and answers of transformers (`tools/golden/questions.py`).

use lowbit_eval::error::Kind;
use lowbit_eval::language::{self, Cut, Text};
use lowbit_eval::question::{self, Subject};
use lowbit_eval::record::Record;
use lowbit_eval::task::{Split, Task};
use lowbit_kernels::Cpu;
use lowbit_model::{Checkpoint, recipe};
use serde::Deserialize;
use std::f64::consts::LN_2;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

#[derive(Deserialize)]
struct Golden {
    windows: Vec<[usize; 2]>,
    texts: Vec<GoldenText>,
}

#[derive(Deserialize)]
struct GoldenText {
    text: String,
    bytes: u64,
    tokens: u64,
    /// One for each of the windows.
    nats: Vec<f64>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/questions/cases.json")).expect("as the script writes it")
}

fn cpu() -> Cpu {
    Cpu::new(None, Some(2)).expect("a CPU")
}

/// The model of the golden values, in f32.
fn model() -> Checkpoint {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/questions/model");
    Checkpoint::open(&path).expect("readable").on(&cpu()).under(Some(recipe::find("f32").expect("a recipe")))
}

fn close(value: f64, expected: f64) -> bool {
    (value - expected).abs() < 1e-4 * expected.abs()
}

/// The nats of all predicted tokens of a record.
fn nats(record: &Record) -> f64 {
    let measure = &record.measures["nats_per_token"];
    measure.value * measure.n as f64
}

#[test]
fn texts_have_the_likelihood_that_transformers_gives() {
    let (golden, model) = (golden(), model());
    for (at, [context, stride]) in golden.windows.iter().enumerate() {
        let cut = Cut { context: Some(*context), stride: Some(*stride) };
        let score = |texts: &[&GoldenText]| {
            let text = Text::of("t".into(), texts.iter().map(|t| t.text.as_bytes()), None, &model).unwrap();
            language::score(&text, "m", &model, cut, &cpu()).unwrap()
        };
        for text in &golden.texts {
            let record = score(&[text]);
            assert!(close(nats(&record), text.nats[at]), "{context} {stride}: {} {}", nats(&record), text.nats[at]);
            let bits = &record.measures["bits_per_byte"];
            assert!(close(bits.value * text.bytes as f64 * LN_2, text.nats[at]) && bits.n == text.bytes);
            let bytes = record.measures["text_bytes_per_token"].value;
            assert!(close(bytes * text.tokens as f64, text.bytes as f64), "{bytes}");
            let perplexity = record.measures["perplexity"].value;
            assert!(close(perplexity.ln() * text.tokens as f64, text.nats[at]), "{perplexity}");
            assert!(!record.measures.contains_key("next_byte_accuracy"), "tokens are no bytes");
        }
        // Texts scored together know nothing of one another.
        let all = nats(&score(&golden.texts.iter().collect::<Vec<_>>()));
        assert!(close(all, golden.texts.iter().map(|text| text.nats[at]).sum()), "{all}");
    }
}

/// A task beside its files.
fn task(dir: &TempDir, text: &str) -> Task {
    Task::parse(&format!("name = \"own\"\nversion = 2\nabout = \"A test.\"\n{text}"), &dir.path().join("own.toml"))
        .unwrap()
}

fn ask(task: &Task, dir: &TempDir, model: &Checkpoint, limit: Option<usize>) -> Result<Record, lowbit_eval::Error> {
    let (rows, _) = task.rows(Split::Test, Some(dir.path()))?;
    let (cpu, cut) = (cpu(), Cut::default());
    question::score(task, &rows, &Subject { name: "m", checkpoint: model, cpu: &cpu, cut, limit })
}

#[test]
fn a_task_of_likelihood_is_scored_in_its_windows() {
    let (golden, model, dir) = (golden(), model(), TempDir::new().unwrap());
    let text = &golden.texts[0];
    fs::write(dir.path().join("a.txt"), &text.text).unwrap();
    let description =
        |settings: &str| format!("question = \"likelihood\"\n{settings}\n[[test]]\npaths = [\"a.txt\"]\n");
    for (at, [context, stride]) in golden.windows.iter().enumerate() {
        let own = task(&dir, &description(&format!("[likelihood]\ncontext = {context}\nstride = {stride}")));
        let record = ask(&own, &dir, &model, None).unwrap();
        assert_eq!((&record.task[..], &record.recipe[..]), ("own@2", "f32"));
        assert!(close(nats(&record), text.nats[at]), "{context} {stride}");
        let windows = format!("windows of {context} that move on by {stride};");
        assert!(record.detail.note.as_ref().unwrap().contains(&windows), "{:?}", record.detail.note);
    }
    // A model trained for less has windows of its own length, and a stride in proportion.
    let long = task(&dir, &description("[likelihood]\ncontext = 640\nstride = 320"));
    assert!(close(nats(&ask(&long, &dir, &model, None).unwrap()), text.nats[0]));
    let few = task(&dir, &description("metrics = [\"bits_per_byte\"]"));
    let record = ask(&few, &dir, &model, Some(20)).unwrap();
    assert_eq!(record.measures.keys().collect::<Vec<_>>(), ["bits_per_byte", "weight_bytes"]);
    assert_eq!(record.measures["bits_per_byte"].n, 20);
}

#[test]
fn rows_of_text_are_texts_of_their_own() {
    let (golden, model, dir) = (golden(), model(), TempDir::new().unwrap());
    let lines: Vec<String> =
        golden.texts.iter().map(|text| serde_json::json!({"id": 1, "body": text.text}).to_string()).collect();
    fs::write(dir.path().join("rows.jsonl"), format!("{}\n{{\"id\": 2, \"body\": \"\"}}\n", lines.join("\n"))).unwrap();
    let own = task(&dir, "question = \"likelihood\"\n[[test]]\npaths = [\"rows.jsonl\"]\ntext = [\"body\"]\n");
    let record = ask(&own, &dir, &model, None).unwrap();
    let [context, stride] = golden.windows[0];
    assert!(record.detail.note.as_ref().unwrap().contains("in 3 texts as"), "{:?}", record.detail.note);
    assert!(record.detail.note.as_ref().unwrap().contains(&format!("{context} that move on by {stride}")));
    assert!(close(nats(&record), golden.texts.iter().map(|text| text.nats[0]).sum()));
    assert_eq!(record.detail.notices, ["1 of 4 texts are empty, and were left out"]);
}

#[test]
fn a_language_model_is_asked_no_class() {
    let (model, dir) = (model(), TempDir::new().unwrap());
    let layout = "paths = [\"x.csv\"]\ntext = [0]\nlabel = 1\n";
    let own = task(
        &dir,
        &format!("question = \"classify\"\nclasses = [\"a\", \"b\"]\n[[train]]\n{layout}[[test]]\n{layout}"),
    );
    let refused = question::check(&own, &model).unwrap_err();
    assert_eq!(refused.kind, Kind::Usage);
    assert!(
        refused.message.contains("is a language model, and the task own asks for a class: ask it one of"),
        "{refused}"
    );
}
