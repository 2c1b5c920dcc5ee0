//! Published encoders against transformers: tokens, pairs of texts, and vectors of sentences. `tools/golden/encoders.py` makes
//! the vectors; vocabularies and weights are read from the data directory.

mod common;

use lowbit_base::testing::data;
use lowbit_kernels::Cpu;
use lowbit_model::container::Tensors;
use lowbit_model::{Checkpoint, Inputs, Predictor, Tokenizer, recipe};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/encoders").join(file)
}

fn cases() -> Value {
    serde_json::from_slice(&std::fs::read(golden("tokens.json")).expect("part of the repository")).expect("JSON")
}

fn strings(value: &Value) -> Vec<String> {
    serde_json::from_value(value.clone()).expect("texts")
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("ids")
}

/// The directory of a file among the data.
fn directory(file: &str) -> Option<PathBuf> {
    data(file).map(|path| path.parent().expect("a directory").to_path_buf())
}

fn weights(name: &str) -> Option<Checkpoint> {
    let directory = directory(&format!("weights/{name}/config.json"))?;
    Some(Checkpoint::open(&directory).unwrap_or_else(|e| panic!("{e}")))
}

/// The tokenizer of a vocabulary in a directory with nothing but `vocab.txt` and what a cased one needs.
fn of_words(name: &str) -> Option<Tokenizer> {
    let words = data(&format!("tokenizers/{name}/vocab.txt.zst"))?;
    let home = tempfile::tempdir().expect("a directory");
    std::fs::copy(words, home.path().join("vocab.txt.zst")).expect("copied");
    let lower = name.ends_with("uncased");
    std::fs::write(home.path().join("tokenizer_config.json"), format!(r#"{{"do_lower_case": {lower}}}"#))
        .expect("written");
    let config = r#"{"model_type": "bert", "vocab_size": 1, "hidden_size": 2, "num_hidden_layers": 1, "num_attention_heads": 1,
        "intermediate_size": 2, "max_position_embeddings": 1}"#;
    let mut home = common::Home::in_directory(home, serde_json::from_str(config).expect("JSON"));
    home.zeros(&[
        ("embeddings.word_embeddings.weight", &[1, 2]),
        ("embeddings.position_embeddings.weight", &[1, 2]),
        ("embeddings.token_type_embeddings.weight", &[2, 2]),
        ("embeddings.LayerNorm.weight", &[2]),
        ("embeddings.LayerNorm.bias", &[2]),
    ]);
    for part in [
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    ] {
        let name = format!("encoder.layer.0.{part}");
        home.zeros(&[(&format!("{name}.weight"), &[2, 2]), (&format!("{name}.bias"), &[2])]);
    }
    for part in ["attention.output.LayerNorm", "output.LayerNorm"] {
        let name = format!("encoder.layer.0.{part}");
        home.zeros(&[(&format!("{name}.weight"), &[2]), (&format!("{name}.bias"), &[2])]);
    }
    home.write();
    Some(Checkpoint::open(home.path()).and_then(|c| c.tokenizer()).unwrap_or_else(|e| panic!("{name}: {e}")))
}

#[test]
fn tokens_and_pairs_are_those_of_transformers() {
    let cases = cases();
    for (name, expected) in cases["vocabularies"].as_object().expect("vocabularies") {
        let tokenizer = match name.starts_with("bert-base") {
            true => of_words(name),
            false => weights(name).map(|checkpoint| checkpoint.tokenizer().unwrap_or_else(|e| panic!("{e}"))),
        };
        let Some(tokenizer) = tokenizer else { continue };
        for (text, found) in strings(&cases["texts"]).iter().zip(expected["texts"].as_array().expect("ids")) {
            for (most, expected) in [512, 9].into_iter().zip(found.as_array().expect("two")) {
                assert_eq!(tokenizer.encode(text, most).expect("encodes"), ids(expected), "{name}: {text:?}, {most}");
            }
        }
        for (pair, found) in
            cases["pairs"].as_array().expect("pairs").iter().zip(expected["pairs"].as_array().expect("ids"))
        {
            let texts = strings(pair);
            for (most, expected) in [512, 16, 9].into_iter().zip(found.as_array().expect("three")) {
                let found = tokenizer.encode_pair([&texts[0], &texts[1]], most).expect("encodes").expect("a pair");
                assert_eq!(
                    (found.ids, found.types),
                    (ids(&expected[0]), ids(&expected[1])),
                    "{name}: {texts:?}, {most}"
                );
            }
        }
    }
}

#[test]
fn vectors_are_those_of_transformers() {
    let (cases, expected) = (cases(), Tensors::open(&golden("vectors.safetensors")).expect("part of the repository"));
    let texts = Inputs::Texts(strings(&cases["texts"]));
    for name in expected.names() {
        if weights(name).is_none() {
            continue;
        }
        // The least cosine to full precision, measured and rounded down.
        for (recipe, least) in [
            ("f32", 0.999_999),
            ("bf16", 0.999_9),
            ("llm_int8", 0.99),
            ("int8_channel", 0.97),
            ("int8_block", 0.99),
            ("nf4", 0.9),
        ] {
            let checkpoint = weights(name).expect("opened before").under(Some(recipe::find(recipe).expect("known")));
            let cpu = Cpu::new(None, Some(2)).expect("a CPU");
            let mut predictor = Predictor::of(&checkpoint, cpu).unwrap_or_else(|e| panic!("{name}: {e}"));
            let found = predictor.embeddings(&texts).expect("vectors");
            let expected = expected.floats(name).expect("there");
            assert_eq!(found.len(), expected.len());
            let width = found.len() / texts.len();
            for (i, (a, b)) in found.chunks(width).zip(expected.chunks(width)).enumerate() {
                let cosine: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                assert!(cosine >= least, "{name}, {recipe}, text {i}: {cosine}");
            }
        }
    }
}
