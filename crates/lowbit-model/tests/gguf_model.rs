//! Models through GGUF and back: the same logits, and files that do not fit.

mod common;

use common::*;
use lowbit_base::testing::data;
use lowbit_kernels::Cpu;
use lowbit_model::arch::{Head, decoder};
use lowbit_model::checkpoint::{GgufTypes, Options, quantize, save_gguf};
use lowbit_model::container::gguf::{Field, Gguf, GgufWriter, Planned, TYPES, find};
use lowbit_model::exec::{Activation, Batch};
use lowbit_model::rope::{Llama3, RopeScaling};
use lowbit_model::{Checkpoint, Config, CpuExec, Kind, recipe};
use std::path::{Path, PathBuf};

fn types(body: &str, table: &str) -> GgufTypes {
    GgufTypes { body: Some(find(body).expect("known")), table: Some(find(table).expect("known")) }
}

fn logits(path: &Path, batch: &Batch) -> Vec<f32> {
    let model = Checkpoint::open(path).unwrap_or_else(|e| panic!("{e}")).model().unwrap_or_else(|e| panic!("{e}"));
    CpuExec::new(Cpu::new(None, Some(2)).expect("a CPU")).forward(&model, batch).expect("runs").to_vec()
}

/// A decoder of sizes that fill blocks.
fn network(act: Activation, sub_norm: bool, head: Head) -> decoder::Config {
    decoder::Config {
        hidden_size: 256,
        num_attention_heads: 8,
        num_key_value_heads: 2,
        head_dim: 32,
        intermediate_size: 512,
        hidden_act: act,
        sub_norm,
        dropout: 0.0,
        ..decoder(head)
    }
}

fn llama() -> decoder::Config {
    let scaling = RopeScaling::Llama3(Llama3 {
        factor: 32.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192.0,
    });
    decoder::Config { rope_theta: 500_000.0, rope_scaling: Some(scaling), ..network(Activation::Silu, false, LM) }
}

#[test]
fn every_architecture_comes_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let cases = [
        ("llama", llama()),
        ("llama", network(Activation::Silu, false, TIED)),
        (
            "llama",
            decoder::Config {
                qkv_bias: true,
                output_bias: true,
                mlp_bias: true,
                ..network(Activation::Silu, false, TIED)
            },
        ),
        ("qwen3", decoder::Config { qk_norm: true, ..network(Activation::Silu, false, LM) }),
        ("bitnet", network(Activation::Silu, true, TIED)),
        ("bitnet-b1.58", network(Activation::Relu2, true, LM)),
    ];
    for (i, (arch, config)) in cases.into_iter().enumerate() {
        let masters = directory.path().join(format!("{i}"));
        write(&masters, &Config::Decoder(config.clone()));
        let file = directory.path().join(format!("{i}.gguf"));
        save_gguf(&Checkpoint::open(&masters).expect("valid"), &file, types("f32", "f32")).expect("written");
        let gguf = Gguf::open(&file).expect("valid");
        assert_eq!(gguf.text("general.architecture").expect("a text"), Some(arch));
        let back = Checkpoint::open(&file).unwrap_or_else(|e| panic!("{arch}: {e}"));
        let (ours, theirs) = (Checkpoint::open(&masters).expect("valid"), &back);
        assert_eq!(theirs.model_config().config, ours.model_config().config, "{arch}");
        assert_eq!(theirs.model_config().max_length, ours.model_config().max_length);
        for spec in ours.parameters().params() {
            assert_eq!(theirs.master(spec).expect("valid"), ours.master(spec).expect("valid"), "{arch}: {}", spec.name);
        }
        let tokenizer = back.tokenizer().expect("the bytes");
        assert_eq!(
            tokenizer.encode("na\u{ef}ve <|end|>\n", 99).expect("encodes"),
            "na\u{ef}ve <|end|>\n".bytes().map(u32::from).collect::<Vec<_>>()
        );
        assert_eq!(tokenizer.id("<|end|>"), Some(257));
    }
}

#[test]
fn llama_rows_are_stored_in_pairs() {
    let directory = tempfile::tempdir().expect("a directory");
    let masters = directory.path().join("m");
    let params = write(&masters, &Config::Decoder(llama()));
    let file = directory.path().join("m.gguf");
    save_gguf(&Checkpoint::open(&masters).expect("valid"), &file, types("f32", "f32")).expect("written");
    let gguf = Gguf::open(&file).expect("valid");
    let stored = gguf.floats(gguf.tensor("blk.1.attn_k.weight").expect("there")).expect("valid");
    let (spec, values) =
        params.iter().find(|(s, _)| s.name == "model.layers.1.self_attn.k_proj.weight").expect("there");
    // Head 1: its row 1 is the partner of row 0, half a head below.
    let row = |values: &[f32], row: usize| values[row * spec.cols..][..spec.cols].to_vec();
    assert_eq!(row(&stored, 32), row(values, 32));
    assert_eq!(row(&stored, 33), row(values, 32 + 16));
    assert_eq!(row(&stored, 34), row(values, 33));
}

/// A model whose body is ternary, stored under `bitnet_bf16`.
fn ternary(directory: &Path, config: &decoder::Config) -> PathBuf {
    let (masters, out) = (directory.join("masters"), directory.join("ternary"));
    write(&masters, &Config::Decoder(config.clone()));
    let masters = Checkpoint::open(&masters).expect("valid");
    quantize(&masters, recipe::find("bitnet_bf16").expect("known"), &Options::default(), &out).expect("written");
    out
}

#[test]
fn ternary_types_keep_the_logits_bit_for_bit() {
    for config in [network(Activation::Relu2, true, LM), network(Activation::Silu, true, TIED), llama()] {
        let directory = tempfile::tempdir().expect("a directory");
        let model = ternary(directory.path(), &config);
        let expected = logits(&model, &batch());
        for kind in TYPES.iter().filter(|t| t.is_ternary()) {
            let file = directory.path().join(format!("{}.gguf", kind.name));
            let report =
                save_gguf(&Checkpoint::open(&model).expect("valid"), &file, types(kind.name, "bf16")).expect("written");
            let body = report.iter().find(|w| w.name == kind.name).expect("the body");
            assert_eq!((body.tensors.len(), body.rounded), (14, Some(0)), "{}", kind.name);
            let back = Checkpoint::open(&file).unwrap_or_else(|e| panic!("{}: {e}", kind.name));
            assert_eq!(back.recipe().name, "bitnet_bf16", "{}", kind.name);
            assert_eq!(back.notices(), [""; 0], "{}", kind.name);
            let spec = back.parameters().params().iter().find(|p| p.name.ends_with("q_proj.weight")).expect("there");
            assert_eq!(back.packed(spec).expect("valid").format().name(), "ternary");
            assert_eq!(logits(&file, &batch()), expected, "{} {:?}", kind.name, config.hidden_act);
            // And from there into the project's own layout.
            let own = directory.path().join(kind.name);
            quantize(&back, recipe::find("bitnet_bf16").expect("known"), &Options::default(), &own).expect("written");
            assert_eq!(logits(&own, &batch()), expected, "{}", kind.name);
        }
    }
}

#[test]
fn a_real_model_scores_the_same() {
    let Some(model) = data("weights/bitnet-tinystories-3m") else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let checkpoint = Checkpoint::open(&model).unwrap_or_else(|e| panic!("{e}"));
    let text = "Once upon a time, there was a little girl named Lily. She loved to play outside.";
    let tokens = checkpoint.tokenizer().expect("valid").encode(text, 256).expect("encodes");
    let batch = Batch::new([&tokens[..]]);
    let expected = logits(&model, &batch);
    for kind in ["tq1_0", "tq2_0", "i2_s", "f32"] {
        let file = directory.path().join(format!("{kind}.gguf"));
        save_gguf(&checkpoint, &file, types(kind, "f32")).unwrap_or_else(|e| panic!("{kind}: {e}"));
        let back = Checkpoint::open(&file).unwrap_or_else(|e| panic!("{kind}: {e}"));
        assert_eq!(back.tokenizer().expect("valid").encode(text, 256).expect("encodes"), tokens);
        assert_eq!((back.model_config().bos_token_id, &back.model_config().eos_token_ids[..]), (Some(1), &[2][..]));
        assert_eq!(back.model_config().config, checkpoint.model_config().config);
        for spec in checkpoint.parameters().params() {
            assert_eq!(
                back.master(spec).expect("valid"),
                checkpoint.master(spec).expect("valid"),
                "{kind}: {}",
                spec.name
            );
        }
        assert_eq!(logits(&file, &batch), expected, "{kind}");
    }
    let error = save_gguf(&checkpoint, &directory.path().join("x.gguf"), GgufTypes { body: find("i2_s"), table: None });
    assert!(error.expect_err("F32 values").to_string().contains("neither F16 nor BF16 holds its values exactly"));
}

#[test]
fn what_would_lose_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let masters = directory.path().join("m");
    write(&masters, &Config::Decoder(llama()));
    let checkpoint = Checkpoint::open(&masters).expect("valid");
    let out = directory.path().join("out.gguf");
    for kind in TYPES.iter().filter(|t| t.is_ternary() || !t.is_written()) {
        let error = save_gguf(&checkpoint, &out, types(kind.name, "f16")).expect_err(kind.name).to_string();
        let word = if kind.is_ternary() { "not ternary" } else { "is read, but not written" };
        assert!(error.contains(word) && !error.contains('\n'), "{}: {error}", kind.name);
        assert_eq!(std::fs::read_dir(directory.path()).expect("readable").count(), 1, "nothing is left over");
    }
    let report = save_gguf(&checkpoint, &out, types("q8_0", "f16")).expect("named");
    assert!(report.iter().any(|w| w.name == "Q8_0" && w.rounded == Some(14)), "{report:?}");
    assert!(report.iter().any(|w| w.name == "F32" && w.rounded == Some(0)), "{report:?}");
    let both_ways = decoder::Config { causal: false, ..decoder(CLASSIFY) };
    let relu = decoder::Config { hidden_act: Activation::Relu, ..decoder(LM) };
    for (config, word) in [(both_ways, "classifier"), (relu, "gate is Relu")] {
        let other = directory.path().join(word);
        write(&other, &Config::Decoder(config));
        let error = save_gguf(&Checkpoint::open(&other).expect("valid"), &out, types("f16", "f16")).expect_err(word);
        assert!(error.kind == Kind::Usage && error.to_string().contains(word), "{error}");
    }
}

#[test]
fn quantized_files_lose_nothing_more() {
    let directory = tempfile::tempdir().expect("a directory");
    let masters = directory.path().join("m");
    write(&masters, &Config::Decoder(llama()));
    let file = directory.path().join("m.gguf");
    save_gguf(&Checkpoint::open(&masters).expect("valid"), &file, types("q8_0", "bf16")).expect("written");
    let back = Checkpoint::open(&file).expect("valid");
    assert_eq!(back.recipe().name, "q8_0+embed=bf16+head=bf16");
    assert_eq!(back.notices(), [""; 0]);
    let gguf = Gguf::open(&file).expect("valid");
    let spec = back.parameters().params().iter().find(|p| p.name.ends_with("0.mlp.down_proj.weight")).expect("there");
    let stored = gguf.floats(gguf.tensor("blk.0.ffn_down.weight").expect("there")).expect("valid");
    assert_eq!(back.packed(spec).expect("valid").dequantize(), stored);
    save_gguf(&Checkpoint::open(&masters).expect("valid"), &file, types("bf16", "bf16")).expect("written");
    assert_eq!(Checkpoint::open(&file).expect("valid").recipe().name, "bf16");
}

/// The metadata and tensors of a small valid file; `change` makes it invalid.
fn altered(
    path: &Path,
    change: impl FnOnce(&mut Vec<(String, Field)>, &mut Vec<Planned>),
) -> Result<(), lowbit_model::Error> {
    let fields = [
        ("general.architecture", Field::Text("llama".into())),
        ("llama.embedding_length", Field::U32(8)),
        ("llama.block_count", Field::U32(1)),
        ("llama.feed_forward_length", Field::U32(16)),
        ("llama.attention.head_count", Field::U32(2)),
        ("llama.attention.layer_norm_rms_epsilon", Field::F32(1e-5)),
    ];
    let mut fields: Vec<_> = fields.into_iter().map(|(key, field)| (key.to_string(), field)).collect();
    let shapes: [(&str, &[usize]); 11] = [
        ("token_embd.weight", &[5, 8]),
        ("output_norm.weight", &[8]),
        ("blk.0.attn_norm.weight", &[8]),
        ("blk.0.ffn_norm.weight", &[8]),
        ("blk.0.attn_q.weight", &[8, 8]),
        ("blk.0.attn_k.weight", &[8, 8]),
        ("blk.0.attn_v.weight", &[8, 8]),
        ("blk.0.attn_output.weight", &[8, 8]),
        ("blk.0.ffn_gate.weight", &[16, 8]),
        ("blk.0.ffn_up.weight", &[16, 8]),
        ("blk.0.ffn_down.weight", &[8, 16]),
    ];
    let planned = |(name, shape): (&str, &[usize])| Planned {
        name: name.into(),
        kind: find("f32").expect("known"),
        shape: shape.into(),
    };
    let mut plan: Vec<_> = shapes.into_iter().map(planned).collect();
    change(&mut fields, &mut plan);
    let mut writer = GgufWriter::create(path, &fields, plan.clone())?;
    for tensor in plan {
        writer.tensor(&vec![0.5; tensor.shape.iter().product()])?;
    }
    writer.finish()?;
    let checkpoint = Checkpoint::open(path)?;
    checkpoint.model()?;
    checkpoint.tokenizer().map(|_| ())
}

/// What is changed of a valid file, and what the message must hold.
type Change = Box<dyn FnOnce(&mut Vec<(String, Field)>, &mut Vec<Planned>)>;
type Case = (&'static str, Change, &'static [&'static str]);

fn set(key: &'static str, field: Field) -> Change {
    Box::new(move |fields, _| {
        fields.retain(|(k, _)| k != key);
        fields.push((key.into(), field));
    })
}

fn without(key: &'static str) -> Change {
    Box::new(move |fields, _| fields.retain(|(k, _)| k != key))
}

fn shape(name: &'static str, shape: &'static [usize]) -> Change {
    Box::new(move |_, plan| plan.iter_mut().filter(|p| p.name == name).for_each(|p| p.shape = shape.into()))
}

fn more(name: &'static str, shape: &'static [usize]) -> Change {
    let planned = Planned { name: name.into(), kind: find("f32").expect("known"), shape: shape.into() };
    Box::new(move |_, plan| plan.push(planned))
}

/// Adds a vocabulary of three pieces with one field of it replaced.
fn vocabulary(key: &'static str, field: Field) -> Change {
    Box::new(move |fields, _| {
        let base = [
            ("tokenizer.ggml.model", Field::Text("llama".into())),
            ("tokenizer.ggml.tokens", Field::Texts(["<unk>", "a", "b"].map(String::from).into())),
            ("tokenizer.ggml.scores", Field::Floats(vec![0.0; 3])),
            ("tokenizer.ggml.token_type", Field::Ints(vec![2, 1, 1])),
        ];
        fields.extend(base.into_iter().filter(|(k, _)| *k != key).map(|(k, field)| (k.to_string(), field)));
        fields.push((key.into(), field));
    })
}

fn bad_networks() -> Vec<Case> {
    vec![
        (
            "M23",
            set("general.architecture", Field::Text("mamba".into())),
            &["`mamba`", "bitnet, bitnet-b1.58, bitnet-25"],
        ),
        ("no architecture", without("general.architecture"), &["`general.architecture` is missing"]),
        ("M16 layers", set("llama.block_count", Field::U32(0)), &["num_hidden_layers", "is 0"]),
        ("M16 heads", set("llama.attention.head_count", Field::U32(0)), &["`llama.attention.head_count` is 0"]),
        (
            "M16 heads do not divide",
            set("llama.attention.head_count", Field::U32(3)),
            &["is 3", "`llama.embedding_length` 8"],
        ),
        ("M16 kv heads", set("llama.attention.head_count_kv", Field::U32(0)), &["num_key_value_heads", "is 0"]),
        ("no layers", without("llama.block_count"), &["`llama.block_count` is missing"]),
        ("epsilon", without("llama.attention.layer_norm_rms_epsilon"), &["rms_epsilon` is missing"]),
        (
            "layers of text",
            set("llama.block_count", Field::Text("1".into())),
            &["`llama.block_count` is not a whole number"],
        ),
        ("experts", set("llama.expert_count", Field::U32(8)), &["`llama.expert_count` is 8"]),
        ("half rotated", set("llama.rope.dimension_count", Field::U32(2)), &["`llama.rope.dimension_count` is 2"]),
        (
            "su",
            set("llama.rope.scaling.type", Field::Text("su".into())),
            &["`llama.rope.scaling.type` is `su`", "longrope"],
        ),
        ("factor", set("llama.rope.scaling.factor", Field::F32(-2.0)), &["`llama.rope.scaling.factor` is -2"]),
        ("factor", set("llama.rope.scaling.factor", Field::F32(f32::NAN)), &["`llama.rope.scaling.factor` is NaN"]),
        ("both ways", set("llama.attention.causal", Field::Bool(false)), &["`llama.attention.causal` is false"]),
        ("adapter", set("general.type", Field::Text("adapter".into())), &["`general.type` is `adapter`"]),
        (
            "Hadamard",
            set("prism.hadamard.block_size", Field::U32(1024)),
            &["`prism.hadamard.block_size` is 1024", "rotates"],
        ),
        (
            "suppressed",
            set("tokenizer.ggml.suppress_tokens", Field::Ints(vec![1])),
            &["`tokenizer.ggml.suppress_tokens`"],
        ),
        ("layers differ", set("llama.attention.head_count_kv", Field::Ints(vec![1, 2])), &["differs between layers"]),
        ("parts", set("split.count", Field::U32(3)), &["`split.count` is 3", "one of so many parts"]),
        (
            "more layers",
            set("llama.block_count", Field::U32(2)),
            &["model.layers.1.self_attn.q_proj.weight", "is missing"],
        ),
        (
            "M16 shape",
            shape("blk.0.ffn_up.weight", &[15, 8]),
            &["mlp.up_proj", "[15, 8]", "[16, 8]", "`intermediate_size` = 16"],
        ),
        ("surplus", more("blk.0.attn_sinks.bias", &[8]), &["`blk.0.attn_sinks.bias`", "does not ask for it"]),
        ("rope divisors", more("rope_freqs.weight", &[3]), &["`rope_freqs.weight` has 3 elements", "2 pairs"]),
        ("no vocabulary", set("x", Field::Bool(true)), &["holds no vocabulary"]),
    ]
}

fn bad_vocabularies() -> Vec<Case> {
    let texts = |texts: &[&str]| Field::Texts(texts.iter().map(|t| t.to_string()).collect());
    vec![
        (
            "vocabulary of wordpiece",
            vocabulary("tokenizer.ggml.model", Field::Text("bert".into())),
            &["`bert`", "gpt2 and llama"],
        ),
        ("scores", vocabulary("tokenizer.ggml.scores", Field::Floats(vec![0.0; 2])), &["3 pieces, 2 scores"]),
        (
            "score NaN",
            vocabulary("tokenizer.ggml.scores", Field::Floats(vec![0.0, f32::NAN, 0.0])),
            &["piece 1 has score NaN"],
        ),
        ("types", vocabulary("tokenizer.ggml.token_type", Field::Ints(vec![2, 1])), &["2 types for 3 tokens"]),
        ("twice", vocabulary("tokenizer.ggml.tokens", texts(&["<unk>", "a", "a"])), &["pieces 1 and 2 are both `a`"]),
        (
            "bos",
            vocabulary("tokenizer.ggml.bos_token_id", Field::Text("a".into())),
            &["`tokenizer.ggml.bos_token_id` is not a whole number"],
        ),
        (
            "too many",
            vocabulary("tokenizer.ggml.tokens", texts(&["<unk>", "a", "b", "c", "d", "e"])),
            &["3 types for 6 tokens"],
        ),
    ]
}

#[test]
fn files_that_do_not_fit_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("x.gguf");
    for (name, change, words) in bad_networks().into_iter().chain(bad_vocabularies()) {
        let error = altered(&path, change).expect_err(name);
        refused_file(name, &path, &error, words);
    }
    altered(&path, vocabulary("x", Field::Bool(true))).expect("the file itself is valid");
}
