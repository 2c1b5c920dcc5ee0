//! Published encoders against transformers: tokens, pairs of texts, and vectors of sentences. `tools/golden/encoders.py` makes
//! the vectors; vocabularies and weights are read from the data directory.

mod common;

use common::tokenizers::{published, words};
use lowbit_kernels::Cpu;
use lowbit_model::container::Tensors;
use lowbit_model::{Inputs, Predictor, recipe};
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

#[test]
fn tokens_and_pairs_are_those_of_transformers() {
    let cases = cases();
    for (name, expected) in cases["vocabularies"].as_object().expect("vocabularies") {
        let tokenizer = match name.starts_with("bert-base") {
            true => words(name),
            false => published(name).map(|checkpoint| checkpoint.tokenizer().unwrap_or_else(|e| panic!("{e}"))),
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
        if published(name).is_none() {
            continue;
        }
        // The least cosine to full precision, measured and rounded down.
        for (recipe, least) in [
            ("f32", 0.999_999),
            ("bf16", 0.999_9),
            ("llm_int8", 0.99),
            ("int8_channel", 0.97),
            ("int8_block", 0.99),
            ("int8_block+act=int8_block64+head_act=int8_block64", 0.99),
            ("int8_block+act=int8_block128+head_act=int8_block128", 0.98),
            ("nf4", 0.9),
        ] {
            let checkpoint = published(name).expect("opened before").under(Some(recipe::find(recipe).expect("known")));
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
