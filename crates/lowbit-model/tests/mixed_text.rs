//! A megabyte of mixed text against transformers, tiktoken and sentencepiece; `tools/golden/mixed_text.py` made the digests.
//! Text and vocabularies are read from the data directory.

mod common;

use common::tokenizers::{gpt2, published, words};
use lowbit_base::testing::data;
use lowbit_model::Tokenizer;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

#[derive(Deserialize)]
struct Golden {
    /// File, and how many of its first bytes count.
    sources: Vec<(String, usize)>,
    /// By vocabulary, of each source.
    digests: BTreeMap<String, Vec<String>>,
}

/// The lines of the first `bytes` bytes of a file.
fn lines(file: &str, bytes: usize) -> Option<Vec<String>> {
    let packed = std::fs::File::open(data(file)?).expect("readable");
    let mut text = zstd::decode_all(packed).expect("zstd");
    text.truncate(bytes);
    let end = text.iter().rposition(|byte| *byte == b'\n').expect("a whole line");
    Some(std::str::from_utf8(&text[..end]).expect("UTF-8").split('\n').map(String::from).collect())
}

fn tokenizer(name: &str) -> Option<Tokenizer> {
    match name {
        "gpt2" => gpt2(),
        "llama2" | "llama3" => {
            let path = data(&format!("tokenizers/{name}/tokenizer.model.zst"))?;
            Some(Tokenizer::load(&path).unwrap_or_else(|e| panic!("{e}")))
        }
        _ if name.starts_with("bert-base") => words(name),
        _ => published(name).map(|checkpoint| checkpoint.tokenizer().unwrap_or_else(|e| panic!("{e}"))),
    }
}

/// SHA-256 of the ids of all lines, each followed by the largest number.
fn digest(lines: &[String], encode: impl Fn(&str) -> Vec<u32>) -> String {
    let mut sha = Sha256::new();
    for line in lines {
        encode(line).into_iter().chain([u32::MAX]).for_each(|id| sha.update(id.to_le_bytes()));
    }
    sha.finalize().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("into memory");
        text
    })
}

#[test]
fn a_megabyte_of_mixed_text_has_the_tokens_of_the_references() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/mixed_text.json");
    let golden = std::fs::read(path).expect("part of the repository");
    let Golden { sources, digests } = serde_json::from_slice(&golden).expect("JSON");
    let texts: Vec<Option<Vec<String>>> = sources.iter().map(|(file, bytes)| lines(file, *bytes)).collect();
    for (name, expected) in digests {
        let Some(tokenizer) = tokenizer(&name) else { continue };
        let plain = name.starts_with("llama");
        let encode = |line: &str| match plain {
            true => tokenizer.encode_parts(&[(line, false)]).expect("encodes"),
            false => tokenizer.encode(line, usize::MAX).expect("encodes"),
        };
        for (((file, _), lines), expected) in sources.iter().zip(&texts).zip(expected) {
            let Some(lines) = lines else { continue };
            assert_eq!(digest(lines, encode), expected, "{name}: {file}");
        }
    }
}
