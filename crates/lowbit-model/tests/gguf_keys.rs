//! Metadata and tensors of GGUF files that change a network, against llama.cpp (`tools/golden/gguf_keys.py`).

mod common;

use lowbit_model::Checkpoint;
use lowbit_model::checkpoint::{GgufTypes, save_gguf};
use lowbit_model::container::gguf::{Field, Gguf, GgufWriter, Planned, Value, find};
use lowbit_model::language::Scorer;
use serde_json::Value as Json;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn cases() -> Json {
    serde_json::from_slice(&std::fs::read(golden("gguf_keys.json")).expect("golden")).expect("JSON")
}

fn numbers<T: serde::de::DeserializeOwned>(value: &Json) -> T {
    serde_json::from_value(value.clone()).expect("golden")
}

/// A value of a case, by the name of its type.
fn field(kind: &Json, value: &Json) -> Field {
    match kind.as_str().expect("a type") {
        "u32" => Field::U32(numbers(value)),
        "f32" => Field::F32(numbers(value)),
        "bool" => Field::Bool(numbers(value)),
        "str" => Field::Text(numbers(value)),
        "i32s" => Field::Ints(numbers(value)),
        other => panic!("{other}"),
    }
}

/// The golden network with other fields, and with more tensors (name, shape, values).
fn altered(path: &Path, set: &[(String, Field)], tensors: &[(String, Vec<usize>, Vec<f32>)]) {
    let base = Gguf::open(&golden("keys.gguf")).expect("golden");
    let kept = |(key, value): (&String, &Value)| {
        let field = match value {
            Value::Int(n) => Field::U32(*n as u32),
            Value::Float(x) => Field::F32(*x as f32),
            Value::Bool(b) => Field::Bool(*b),
            Value::Text(text) => Field::Text(text.clone()),
            Value::Array(_) => match base.texts(key, 1000) {
                Ok(texts) => Field::Texts(texts.expect("there")),
                Err(_) => Field::Ints(
                    base.numbers(key, 1000).expect("numbers").expect("there").iter().map(|n| *n as i32).collect(),
                ),
            },
        };
        (key.clone(), field)
    };
    let mut fields: Vec<_> =
        base.metadata().iter().map(kept).filter(|(k, _)| !set.iter().any(|(s, _)| s == k)).collect();
    fields.extend(set.iter().cloned());
    let own = base.tensors().iter().map(|t| (t.name.clone(), t.shape.clone(), base.floats(t).expect("floats")));
    let all: Vec<_> = own.chain(tensors.iter().cloned()).collect();
    let kind = find("f32").expect("known");
    let plan = all.iter().map(|(name, shape, _)| Planned { name: name.clone(), kind, shape: shape.clone() }).collect();
    let mut writer = GgufWriter::create(path, &fields, plan).expect("created");
    all.iter().for_each(|(.., values)| assert!(writer.tensor(values).expect("written")));
    writer.finish().expect("written");
}

fn nats(model: &Checkpoint, tokens: &[u32]) -> f64 {
    let mut scorer = Scorer::new(Arc::new(model.model().expect("valid")), common::cpu(), 128, 128).expect("a decoder");
    scorer.score(tokens).expect("scores").iter().map(|p| p.nats).sum()
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-5 * b
}

#[test]
fn keys_and_tensors_do_what_they_do_in_llama_cpp() {
    let golden = cases();
    let tokens: Vec<u32> = numbers(&golden["tokens"]);
    let plain: f64 = numbers(&golden["nats"]);
    let directory = tempfile::tempdir().expect("a directory");
    let (path, again) = (directory.path().join("x.gguf"), directory.path().join("y.gguf"));
    for case in golden["cases"].as_array().expect("cases") {
        let name = &case["name"];
        let set: Vec<_> =
            case["set"].as_array().expect("pairs").iter().map(|s| (numbers(&s[0]), field(&s[1], &s[2]))).collect();
        let tensors: Vec<(String, Vec<usize>, Vec<f32>)> = numbers(&case["tensors"]);
        altered(&path, &set, &tensors);
        let opened = Checkpoint::open(&path);
        let expected = case["nats"].as_f64();
        let (model, expected) = match (opened, expected) {
            (Ok(model), Some(expected)) => (model, expected),
            // What is refused is refused by its name.
            (Err(error), _) if expected != Some(plain) => {
                assert!(set.iter().any(|(key, _)| error.to_string().contains(&format!("`{key}`"))), "{name}: {error}");
                continue;
            }
            (Err(error), _) => panic!("{name}: {error}"),
            (Ok(_), None) => panic!("{name} is opened"),
        };
        let found = nats(&model, &tokens);
        assert!(near(found, expected), "{name}: {found}, and {expected} in llama.cpp");
        if name == "yarn" {
            assert!(!near(expected, plain), "the golden values differ");
        }
        let types = GgufTypes { body: find("f32"), table: find("f32") };
        save_gguf(&model, &again, types).unwrap_or_else(|e| panic!("{name}: {e}"));
        let back = nats(&Checkpoint::open(&again).unwrap_or_else(|e| panic!("{name}: {e}")), &tokens);
        assert!(near(back, expected), "{name}: {back} after convert, and {expected} before");
    }
}

#[test]
fn tokens_of_template_variables_go_through_convert() {
    let directory = tempfile::tempdir().expect("a directory");
    let (path, again) = (directory.path().join("x.gguf"), directory.path().join("y.gguf"));
    let ids = [("unknown", 5), ("seperator", 6), ("padding", 7), ("cls", 8), ("mask", 9)];
    let set: Vec<_> = ids.map(|(name, id)| (format!("tokenizer.ggml.{name}_token_id"), Field::U32(id))).into();
    altered(&path, &set, &[]);
    let model = Checkpoint::open(&path).unwrap_or_else(|e| panic!("{e}"));
    assert!(model.model_config().chat.tokens.len() >= ids.len(), "{:?}", model.model_config().chat);
    let types = GgufTypes { body: find("f32"), table: find("f32") };
    save_gguf(&model, &again, types).unwrap_or_else(|e| panic!("{e}"));
    let back = Checkpoint::open(&again).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(back.model_config(), model.model_config());
}

/// Keys that tensors or other keys tell too, or that are about something else.
const IDLE: &[&str] =
    &["vocab_size", "context_length", "rope.scaling.finetuned", "rope.scaling.original_context_length"];

/// Keys that contradict the tensors when they are wrong.
const SIZES: &[&str] = &[
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "block_count",
    "embedding_length",
    "feed_forward_length",
];

/// No key that llama.cpp has for some architecture is passed over in silence.
#[test]
fn every_key_is_obeyed_refused_or_named() {
    let golden = cases();
    let tokens: Vec<u32> = numbers(&golden["tokens"]);
    let plain: f64 = numbers(&golden["nats"]);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("x.gguf");
    let ends: Vec<String> = numbers(&golden["keys"]);
    assert!(ends.len() > 150);
    let more = ["of.another.program".to_string()];
    let cases = ends.iter().chain(&more).map(|end| (format!("llama.{end}"), end.as_str()));
    let tokenizer = ["tokenizer.ggml.of_another_program", "general.sampling.temp"].map(|key| (key.to_string(), ""));
    for (key, end) in cases.chain(tokenizer) {
        altered(&path, &[(key.clone(), Field::U32(3))], &[]);
        match Checkpoint::open(&path) {
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains(&format!("`{key}`")) || SIZES.contains(&end), "{key}: {text}");
            }
            Ok(model) => {
                let named = model.notices().iter().any(|notice| notice.contains(&format!("`{key}` (3)")));
                let obeyed = || !near(nats(&model, &tokens), plain);
                assert!(named || IDLE.contains(&end) || obeyed(), "{key} is passed over");
            }
        }
        // What means nothing needs no word.
        if !golden["cases"].as_array().expect("cases").iter().any(|case| case["set"][0][0] == key.as_str()) {
            altered(&path, &[(key.clone(), Field::F32(0.0))], &[]);
            if let Ok(model) = Checkpoint::open(&path) {
                assert!(model.notices().iter().all(|notice| !notice.contains(&key)), "{:?}", model.notices());
            }
        }
    }
}
