//! `lowbit convert` as a user runs it.

mod common;

use common::{good, refused};
use lowbit_model::arch::{Head, decoder};
use lowbit_model::checkpoint::save_masters;
use lowbit_model::exec::Activation;
use lowbit_model::parameter_list::ParameterList;
use lowbit_model::{Checkpoint, Config, ModelConfig, Tokenizer};
use std::path::Path;

/// A decoder whose values are all exact in F16 and whose body is ternary, as `model` in a directory.
fn model(directory: &Path) {
    let config = Config::Decoder(decoder::Config {
        vocab_size: 258,
        hidden_size: 256,
        num_hidden_layers: 1,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 64,
        intermediate_size: 256,
        hidden_act: Activation::Relu2,
        rope_theta: 10_000.0,
        rope_scaling: None,
        rms_norm_eps: 1e-5,
        sub_norm: true,
        qk_norm: false,
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        sliding_window: None,
        full_attention_layers: Vec::new(),
        causal: true,
        bigram_buckets: 0,
        dropout: 0.0,
        head: Head::Lm { tied: true },
    });
    let parameters = ParameterList::new(&config).unwrap();
    let values: Vec<Vec<f32>> = parameters
        .params()
        .iter()
        .map(|p| (0..p.rows * p.cols).map(|i| [0.5, 0.0, -0.5][i * i % 7 % 3]).collect())
        .collect();
    let params = parameters.params().iter().zip(values.iter().map(Vec::as_slice));
    save_masters(&directory.join("model"), &ModelConfig::new(config, 64), Some(&Tokenizer::bytes()), params).unwrap();
}

#[test]
fn there_and_back() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    model(at);
    let table = good(at, &["convert", "model", "f16.gguf", "--type", "f16"]);
    assert!(table.contains("F16") && table.contains("exact") && !table.contains("rounded"), "{table}");
    let printed = good(at, &["convert", "f16.gguf", "ternary", "--type", "bitnet_bf16"]);
    assert!(printed.contains("ternary"), "{printed}");
    let printed = good(at, &["convert", "ternary", "out.gguf", "--json"]);
    let object: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let types: Vec<_> = object["types"].as_array().unwrap().iter().map(|t| t["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["F16", "F32", "I2_S"], "what bitnet.cpp computes is its own type by default");
    let body = &object["types"][2];
    let names = body["names"].as_array().unwrap();
    assert!(body["tensors"] == names.len() && names.contains(&"blk.0.ffn_down.weight".into()), "{body}");
    let bytes = std::fs::metadata(at.join("out.gguf")).unwrap().len();
    assert_eq!(object["records"][0]["measures"]["weight_bytes"]["value"].as_f64(), Some(bytes as f64));
    good(at, &["convert", "out.gguf", "f32", "--type", "f32"]);
    let (first, last) = (Checkpoint::open(&at.join("model")).unwrap(), Checkpoint::open(&at.join("f32")).unwrap());
    for spec in first.parameters().params() {
        let back = if spec.rows == 1 { last.master(spec).unwrap() } else { last.packed(spec).unwrap().dequantize() };
        assert!(first.master(spec).unwrap() == back, "{}", spec.name);
    }
}

/// M15.
#[test]
fn a_file_that_ends_early_leaves_no_output() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    model(at);
    good(at, &["convert", "model", "whole.gguf", "--type", "f32"]);
    let gguf = std::fs::read(at.join("whole.gguf")).unwrap();
    std::fs::write(at.join("cut.gguf"), &gguf[..gguf.len() - 70]).unwrap();
    let weights = at.join("model/model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() - 1]).unwrap();
    refused(at, &["convert", "cut.gguf", "out", "--type", "f32"], 3, &["cut.gguf", "truncated"]);
    refused(at, &["convert", "cut.gguf", "out.gguf", "--type", "f32"], 3, &["cut.gguf", "truncated"]);
    refused(at, &["convert", "model", "out.gguf", "--type", "f32"], 3, &["model.safetensors", "truncated"]);
    refused(at, &["quantize", "model", "--recipe", "int8", "--out", "out"], 3, &["model.safetensors", "truncated"]);
    // A value that is found only when it is read: in a file with checksums, and in one without.
    let mut bytes = bytes;
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&weights, bytes).unwrap();
    refused(at, &["quantize", "model", "--recipe", "int8", "--out", "out"], 3, &["model.safetensors", "checksum"]);
    refused(at, &["convert", "model", "out.gguf", "--type", "f32"], 3, &["model.safetensors", "checksum"]);
    let mut gguf = gguf;
    let inside = gguf.len() - 36;
    gguf[inside..inside + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(at.join("nan.gguf"), gguf).unwrap();
    refused(at, &["quantize", "nan.gguf", "--recipe", "int8", "--out", "out"], 3, &["nan.gguf", "NaN"]);
    refused(at, &["convert", "nan.gguf", "out.gguf", "--type", "f32"], 3, &["nan.gguf", "NaN"]);
    let found: Vec<_> = std::fs::read_dir(at.join("out")).map_or(Vec::new(), |found| found.collect());
    assert!(found.is_empty() && !at.join("out.gguf").exists(), "{found:?}");
}

#[test]
fn what_cannot_be_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    model(at);
    refused(at, &["convert", "model", "x.gguf", "--type", "iq4_xs"], 2, &["`iq4_xs`", "tq2_0", "i2_s"]);
    refused(at, &["convert", "model", "x.gguf"], 2, &["--type", "f32", "q8_0"]);
    refused(at, &["convert", "model", "x", "--type", "tq2_0"], 2, &["unknown recipe `tq2_0`"]);
    refused(at, &["convert", "model", "x", "--type", "f32", "--table", "f16"], 2, &["--table"]);
    refused(at, &["convert", "nothing", "x.gguf", "--type", "f16"], 5, &["nothing"]);
    std::fs::write(at.join("bad.gguf"), b"GGUF").unwrap();
    refused(at, &["convert", "bad.gguf", "x.gguf", "--type", "f16"], 3, &["bad.gguf", "4 of 24 bytes"]);
    good(at, &["convert", "model", "same.gguf", "--type", "f32"]);
    refused(at, &["convert", "same.gguf", "same.gguf", "--type", "f32"], 2, &["would replace the input"]);
    let left: Vec<_> = std::fs::read_dir(at).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(left.iter().all(|name| ["model", "bad.gguf", "same.gguf"].contains(&name.as_str())), "{left:?}");
}

#[test]
fn one_file_is_a_whole_model() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    model(at);
    let printed = good(at, &["convert", "model", "alone/model.safetensors", "--type", "bitnet_bf16"]);
    assert!(printed.contains("ternary") && printed.contains("alone/model.safetensors"), "{printed}");
    assert_eq!(std::fs::read_dir(at.join("alone")).unwrap().count(), 1);
    let shown = good(at, &["inspect", "alone/model.safetensors"]);
    assert!(shown.contains("bitnet_bf16"), "{shown}");
    good(at, &["convert", "alone/model.safetensors", "again"]);
    let [a, b] = ["alone/model.safetensors", "again"].map(|path| Checkpoint::open(&at.join(path)).unwrap());
    for spec in a.parameters().params().iter().filter(|spec| !spec.role.is_vector()) {
        let [one, other] = [&a, &b].map(|model| model.packed(spec).unwrap().dequantize());
        assert_eq!(one, other, "{}", spec.name);
    }
    good(at, &["quantize", "model", "--recipe", "int8", "--out", "int8.safetensors"]);
    assert_eq!(Checkpoint::open(&at.join("int8.safetensors")).unwrap().recipe().name, "int8");
}
