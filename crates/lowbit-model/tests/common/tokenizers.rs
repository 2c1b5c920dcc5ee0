//! Tokenizers of published networks, from the data directory.

use super::Home;
use lowbit_base::testing::data;
use lowbit_model::{Checkpoint, Tokenizer};
use serde_json::{Value, json};
use std::path::PathBuf;

/// The directory of a file among the data.
fn directory(file: &str) -> Option<PathBuf> {
    data(file).map(|path| path.parent().expect("a directory").to_path_buf())
}

/// A published network with its weights.
pub fn published(name: &str) -> Option<Checkpoint> {
    let directory = directory(&format!("weights/{name}/config.json"))?;
    Some(Checkpoint::open(&directory).unwrap_or_else(|e| panic!("{e}")))
}

/// The tokenizer of the smallest network of a family beside some files of a vocabulary.
fn beside(
    name: &str,
    files: &[&str],
    config: Value,
    settings: Value,
    tensors: &[(&str, &[usize])],
) -> Option<Tokenizer> {
    let home = tempfile::tempdir().expect("a directory");
    for file in files {
        let packed = data(&format!("tokenizers/{name}/{file}.zst"))?;
        std::fs::copy(packed, home.path().join(format!("{file}.zst"))).expect("copied");
    }
    std::fs::write(home.path().join("tokenizer_config.json"), settings.to_string()).expect("written");
    let mut home = Home::in_directory(home, config);
    home.zeros(tensors);
    home.write();
    Some(Checkpoint::open(home.path()).and_then(|c| c.tokenizer()).unwrap_or_else(|e| panic!("{name}: {e}")))
}

/// WordPiece of nothing but `vocab.txt`, and what a cased one needs.
pub fn words(name: &str) -> Option<Tokenizer> {
    let config = json!({"model_type": "bert", "vocab_size": 1, "hidden_size": 2, "num_hidden_layers": 1, "num_attention_heads": 1,
        "intermediate_size": 2, "max_position_embeddings": 1});
    let mut tensors: Vec<(String, Vec<usize>)> = vec![
        ("embeddings.word_embeddings.weight".into(), vec![1, 2]),
        ("embeddings.position_embeddings.weight".into(), vec![1, 2]),
        ("embeddings.token_type_embeddings.weight".into(), vec![2, 2]),
    ];
    let layer = "encoder.layer.0";
    for part in ["self.query", "self.key", "self.value", "output.dense"].map(|part| format!("attention.{part}")) {
        tensors.push((format!("{layer}.{part}.weight"), vec![2, 2]));
        tensors.push((format!("{layer}.{part}.bias"), vec![2]));
    }
    for part in ["intermediate.dense", "output.dense"] {
        tensors.push((format!("{layer}.{part}.weight"), vec![2, 2]));
        tensors.push((format!("{layer}.{part}.bias"), vec![2]));
    }
    for norm in ["embeddings", "encoder.layer.0.attention.output", "encoder.layer.0.output"] {
        tensors.extend(["weight", "bias"].map(|part| (format!("{norm}.LayerNorm.{part}"), vec![2])));
    }
    let tensors: Vec<(&str, &[usize])> = tensors.iter().map(|(name, shape)| (name.as_str(), &shape[..])).collect();
    beside(name, &["vocab.txt"], config, json!({"do_lower_case": name.ends_with("uncased")}), &tensors)
}

/// Byte-level BPE of `vocab.json` and `merges.txt`.
pub fn gpt2() -> Option<Tokenizer> {
    let config =
        json!({"model_type": "gpt2", "vocab_size": 50257, "n_embd": 2, "n_layer": 1, "n_head": 1, "n_positions": 4});
    let tensors: &[(&str, &[usize])] = &[
        ("wte.weight", &[50257, 2]),
        ("wpe.weight", &[4, 2]),
        ("h.0.ln_1.weight", &[2]),
        ("h.0.ln_1.bias", &[2]),
        ("h.0.attn.c_attn.weight", &[2, 6]),
        ("h.0.attn.c_attn.bias", &[6]),
        ("h.0.attn.c_proj.weight", &[2, 2]),
        ("h.0.attn.c_proj.bias", &[2]),
        ("h.0.ln_2.weight", &[2]),
        ("h.0.ln_2.bias", &[2]),
        ("h.0.mlp.c_fc.weight", &[2, 8]),
        ("h.0.mlp.c_fc.bias", &[8]),
        ("h.0.mlp.c_proj.weight", &[8, 2]),
        ("h.0.mlp.c_proj.bias", &[2]),
        ("ln_f.weight", &[2]),
        ("ln_f.bias", &[2]),
    ];
    beside("gpt2", &["vocab.json", "merges.txt"], config, json!({}), tensors)
}
