//! The same logits from training and from inference, in one pass and in pieces: of every architecture with every feature
//! untrained, and of some networks trained a little.

use lowbit_kernels::Cpu;
use lowbit_model::arch::{ARCHITECTURES, OutputKind};
use lowbit_model::checkpoint::save_masters;
use lowbit_model::exec::Batch;
use lowbit_model::input::Scaling;
use lowbit_model::recipe::{ActivationPrecision, Rotation};
use lowbit_model::{Checkpoint, Config, CpuExec, Model, ModelConfig, Param, Recipe, Session};
use lowbit_train::{
    BatchTargets, Data, Error, Granularity, Job, Network, Observer, Qat, QatWeights, TrainConfig, train,
};
use serde_json::{Value, json};
use std::sync::Arc;

static FLOAT: Recipe = Recipe {
    name: "parity_f32",
    summary: "",
    body: "f32",
    embedding: "f32",
    head: "f32",
    activations: ActivationPrecision::F32,
    head_activations: ActivationPrecision::F32,
    rotation: Rotation::None,
    layers: &[],
};
/// What training computes with: a ternary body, everything else in f32.
static TERNARY: Recipe =
    Recipe { name: "parity_ternary", body: "ternary", activations: ActivationPrecision::Int8, ..FLOAT };
/// The same with a body in 8 bits.
static INT8: Recipe = Recipe { name: "parity_int8", body: "int8", ..TERNARY };
static INT8_CHANNEL: Recipe = Recipe { name: "parity_int8_channel", body: "int8_channel", ..TERNARY };

/// Ways of training with the recipe that computes the same.
fn ways() -> [(Option<Qat>, &'static Recipe); 4] {
    let int8 = Qat { weights: QatWeights::Int8, ..Qat::default() };
    let channel = Qat { granularity: Granularity::Channel, ..int8 };
    let ways = [(None, &FLOAT), (Some(Qat::default()), &TERNARY), (Some(int8), &INT8), (Some(channel), &INT8_CHANNEL)];
    ways.iter().filter_map(|(qat, recipe)| Some((qat.as_ref()?, recipe))).for_each(|(qat, recipe)| {
        qat.check_recipe(recipe).unwrap();
    });
    ways
}

/// Words of a counting language: each token follows from the one before.
struct Counting {
    classes: bool,
}

impl Data for Counting {
    fn len(&self) -> usize {
        64
    }
    fn fill(&self, rows: &[usize], batch: &mut Batch, targets: &mut BatchTargets) {
        batch.refill([]);
        let targets = targets.classes();
        for &row in rows {
            let token = |i: usize| ((row * 5 + i * 3) % 29) as u32;
            let length = 3 + row % 9;
            batch.push(&(0..length).map(token).collect::<Vec<_>>());
            match self.classes {
                true => targets.push((row % 3) as u32),
                false => targets.extend((1..=length).map(token)),
            }
        }
    }
    fn fingerprint(&self) -> String {
        "counting".into()
    }
}

/// Keeps the logits of the trained weights.
struct Keep<'a> {
    batch: &'a Batch,
    logits: Vec<f32>,
}

impl Observer for Keep<'_> {
    fn evaluate(&mut self, _: u64, network: &mut Network) -> Result<(), Error> {
        self.logits = network.logits(self.batch).0;
        Ok(())
    }
}

fn config(head: &str, causal: bool) -> Config {
    let text = format!(
        r#"{{"architecture": "decoder", "vocab_size": 32, "hidden_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12, "intermediate_size": 80,
        "hidden_act": "relu2", "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "sub_norm": true, "causal": {causal},
        "dropout": 0.1, "head": {head}}}"#
    );
    serde_json::from_str(&text).unwrap()
}

fn trained(config: &Config, qat: Option<Qat>, batch: &Batch, classes: bool) -> (tempfile::TempDir, Vec<f32>) {
    let home = tempfile::tempdir().unwrap();
    let labels = if classes { vec!["a".into(), "b".into(), "c".into()] } else { vec![] };
    let model_config = ModelConfig { labels, ..ModelConfig::new(config.clone(), 32) };
    let settings = TrainConfig { steps: Some(60), batch_size: 8, qat, evaluate_every: 60, ..TrainConfig::default() };
    let mut keep = Keep { batch, logits: Vec::new() };
    let data = Counting { classes };
    let job = Job {
        model_config: &model_config,
        tokenizer: None,
        from: None,
        teacher: None,
        data: &data,
        validation: None,
        config: &settings,
    };
    train(&job, home.path(), &Cpu::new(None, Some(2)).unwrap(), &mut keep).unwrap();
    (home, keep.logits)
}

/// Equal up to the order of float sums; a rounding boundary of an int8 activation may flip, then bounded.
fn near(found: &[f32], expected: &[f32], ternary: bool, what: &str) {
    let size = expected.iter().fold(1.0f32, |m, v| m.max(v.abs()));
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs() / size).fold(0.0, f32::max);
    assert_eq!(found.len(), expected.len(), "{what}");
    assert!(worst <= if ternary { 5e-2 } else { 1e-4 }, "{what}: off by {worst}");
    println!("{what}: {worst:.1e}");
}

/// [`near`], and the same answer.
fn same(found: &[f32], expected: &[f32], ternary: bool, what: &str) {
    let best = |v: &[f32]| (0..v.len()).max_by(|&a, &b| v[a].total_cmp(&v[b]));
    near(found, expected, ternary, what);
    assert_eq!(best(found), best(expected), "{what}");
}

/// Features of an architecture: what differs from its plain configuration.
fn features(architecture: &str) -> Vec<(&'static str, Value)> {
    match architecture {
        "decoder" => vec![
            ("plain", json!({})),
            ("bigrams", json!({"bigram_buckets": 64})),
            ("no sub-norms", json!({"sub_norm": false})),
            ("tied", json!({"head": {"lm": {"tied": true}}, "bigram_buckets": 64})),
            ("narrow window", json!({"sliding_window": 5})),
            ("window of more than a block", json!({"sliding_window": 300, "bigram_buckets": 64})),
            ("windows in some layers", json!({"sliding_window": 5, "full_attention_layers": [1]})),
            (
                "norms of queries and keys, biases",
                json!({"qk_norm": true, "qkv_bias": true, "output_bias": true, "mlp_bias": true}),
            ),
            ("one key head", json!({"num_key_value_heads": 1})),
            ("a key head each", json!({"num_key_value_heads": 4, "hidden_act": "gelu_erf"})),
            (
                "scaled positions",
                json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 256.0}}),
            ),
            ("classifier by the mean", json!({"head": classify("mean"), "causal": false, "bigram_buckets": 64})),
            ("classifier by the first token", json!({"head": classify("first"), "causal": false, "sliding_window": 7})),
            ("classifier by the last token", json!({"head": classify("last"), "hidden_act": "gelu"})),
        ],
        "encoder" => vec![
            ("plain", json!({})),
            ("segments, places after padding", json!({"type_vocab_size": 2, "position_offset": 2})),
            ("pooler", json!({"pooler": "tanh", "hidden_act": "gelu_erf"})),
            ("sub-norms", json!({"sub_norm": true})),
            ("a value", json!({"head": {"classify": {"classes": 1, "pooling": "mean"}}, "pooler": "relu"})),
            ("vectors", json!({"head": {"embed": {"pooling": "mean", "normalize": true}}})),
        ],
        "gpt" => vec![
            ("plain", json!({})),
            ("tied", json!({"head": {"lm": {"tied": true}}})),
            ("sub-norms", json!({"sub_norm": true})),
            (
                "unscaled, windows in some layers",
                json!({"attention_scale": 1.0, "sliding_window": 5, "full_attention_layers": [0], "qkv_bias": false}),
            ),
            ("classifier by the last token", json!({"head": classify("last"), "hidden_act": "gelu_erf"})),
            ("vectors", json!({"head": {"embed": {"pooling": "last", "normalize": false}}})),
        ],
        "mlp" => {
            let numbers = json!({"vocab_size": 0, "hidden_size": 0, "features": 7});
            let value = json!({"vocab_size": 0, "hidden_size": 0, "features": 70, "layers": [40, 30], "classes": 1});
            vec![
                ("plain", json!({})),
                ("bigrams", json!({"bigram_buckets": 64})),
                ("no layer", json!({"layers": []})),
                ("classes of numbers", numbers),
                ("a value of numbers", value),
            ]
        }
        other => image_features(other),
    }
}

/// Features of an architecture of layers or for images.
fn image_features(architecture: &str) -> Vec<(&'static str, Value)> {
    match architecture {
        "sequential" => vec![
            ("plain", json!({})),
            (
                "norms, a value",
                json!({"classes": 1, "layers": [{"layer": "bit_linear", "outputs": 40}, {"layer": "layer_norm"},
                {"layer": "activation", "function": "silu"}, {"layer": "bit_linear", "outputs": 30, "bias": false},
                {"layer": "rms_norm"}, {"layer": "dropout", "p": 0.1}, {"layer": "linear"}]}),
            ),
            (
                "image",
                json!({"features": 300, "image": [10, 10, 3], "layers": [
                {"layer": "conv2d", "outputs": 8, "kernel": 3, "padding": 1}, {"layer": "batch_norm"},
                {"layer": "activation", "function": "relu"}, {"layer": "max_pool2d", "kernel": 2},
                {"layer": "bit_conv2d", "outputs": 20, "kernel": 3, "stride": 2}, {"layer": "batch_norm"},
                {"layer": "avg_pool2d", "kernel": 2, "stride": 1}, {"layer": "bit_linear", "outputs": 16},
                {"layer": "linear"}]}),
            ),
            (
                "means of channels",
                json!({"features": 48, "image": [4, 4, 3], "layers": [{"layer": "bit_conv2d", "outputs": 24, "kernel": 3},
                {"layer": "global_avg_pool2d"}, {"layer": "linear"}]}),
            ),
        ],
        "lenet" => vec![
            ("plain", json!({})),
            ("batch norm, a value", json!({"batch_norm": true, "classes": 1, "hidden_act": "gelu"})),
        ],
        "resnet" => vec![
            ("plain", json!({})),
            ("bottlenecks, large images", json!({"image": [33, 40, 3], "stem": "imagenet", "block": "bottleneck"})),
            ("padding", json!({"shortcut": "padding", "stages": [2, 1, 1]})),
        ],
        "vgg" => vec![("plain", json!({})), ("batch norm, no hidden layer", json!({"batch_norm": true, "hidden": []}))],
        other => panic!("`{other}` has no features here; list them"),
    }
}

fn classify(pooling: &str) -> Value {
    json!({"classify": {"classes": 3, "pooling": pooling}})
}

fn plain(architecture: &str) -> Value {
    match architecture {
        "decoder" => json!({
            "vocab_size": 64, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "head_dim": 12, "intermediate_size": 80, "hidden_act": "relu2", "rope_theta": 10000.0, "rms_norm_eps": 1e-5,
            "sub_norm": true, "causal": true, "head": {"lm": {"tied": false}},
        }),
        "encoder" => json!({
            "vocab_size": 64, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 80,
            "hidden_act": "gelu", "max_position_embeddings": 700, "layer_norm_eps": 1e-12, "head": classify("first"),
        }),
        "gpt" => json!({
            "vocab_size": 64, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 80,
            "hidden_act": "gelu", "max_position_embeddings": 700, "qkv_bias": true, "layer_norm_eps": 1e-5,
            "head": {"lm": {"tied": false}},
        }),
        "mlp" => json!({"vocab_size": 64, "hidden_size": 48, "layers": [40], "hidden_act": "silu", "classes": 3}),
        "sequential" => json!({
            "features": 70, "classes": 3, "layers": [{"layer": "bit_linear", "inputs": 70, "outputs": 40},
            {"layer": "activation", "function": "relu"}, {"layer": "linear", "inputs": 40}],
        }),
        "lenet" => json!({"image": [16, 14, 1], "hidden_act": "relu", "widths": [4, 6, 20, 12], "classes": 3}),
        "resnet" => json!({
            "image": [12, 10, 3], "stem": "cifar", "block": "basic", "stages": [1, 1], "width": 8, "classes": 3,
        }),
        "vgg" => json!({"image": [16, 16, 3], "stages": [1, 2, 1], "width": 6, "hidden": [20], "classes": 3}),
        other => panic!("`{other}` has no plain configuration here; write one"),
    }
}

/// Every architecture with every feature.
fn networks() -> Vec<(String, Config)> {
    let mut networks = Vec::new();
    for architecture in ARCHITECTURES {
        for (feature, changes) in features(architecture) {
            let mut config = plain(architecture);
            config["architecture"] = (*architecture).into();
            config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            networks.push((format!("{architecture}, {feature}"), serde_json::from_value(config).unwrap()));
        }
    }
    networks
}

/// The logits of an untrained network in training, and its checkpoint.
fn untrained(config: &Config, qat: Option<Qat>, batch: &Batch) -> (tempfile::TempDir, Vec<f32>) {
    let home = tempfile::tempdir().unwrap();
    let mut network = Network::new(&Cpu::new(None, Some(2)).unwrap(), config, 3, qat).unwrap();
    let logits = network.logits(batch).0;
    let params = network.params().iter().map(|p| (&p.spec, p.master().expect("nothing is frozen")));
    let unscaled = |width: usize| (width > 0).then(|| Scaling { mean: vec![0.0; width], deviation: vec![1.0; width] });
    let model_config = ModelConfig {
        input_scaling: unscaled(config.features()),
        target_scaling: unscaled(usize::from(config.output() == OutputKind::Value)),
        ..ModelConfig::new(config.clone(), 1024)
    };
    save_masters(home.path(), &model_config, None, params).unwrap();
    (home, logits)
}

/// Tokens of the long sequence: two pieces of 256, and some.
const LENGTH: usize = 600;

/// Logits of every token, fed in pieces of so many.
fn in_pieces(model: &Arc<Model<Param>>, tokens: &[u32], size: usize) -> Vec<f32> {
    let mut session = Session::new(model.clone(), Cpu::new(None, Some(2)).unwrap(), LENGTH);
    tokens.chunks(size).flat_map(|piece| session.feed_all(piece).unwrap().to_vec()).collect()
}

#[test]
fn every_feature_gives_the_same_logits_in_training_and_inference_whole_and_in_pieces() {
    let tokens: Vec<u32> = (0..LENGTH as u32).map(|i| (i * i + i / 7) % 61).collect();
    for (name, config) in networks() {
        let mut batch = Batch::new([&tokens[..], &tokens[5..9], &tokens[..1]]);
        if config.features() > 0 {
            batch.refill([]);
            let row = |row: usize| (0..config.features()).map(move |i| ((row * 31 + i * i) % 17) as f32 / 8.0 - 1.0);
            (0..9).for_each(|i| batch.push_features(row(i)));
        }
        for (qat, recipe) in ways() {
            let (home, expected) = untrained(&config, qat, &batch);
            let model = Arc::new(Checkpoint::open(home.path()).unwrap().model_as(recipe, &Default::default()).unwrap());
            let mut exec = CpuExec::new(Cpu::new(None, Some(2)).unwrap());
            let whole = exec.forward(&model, &batch).unwrap().to_vec();
            let what = format!("{name}, {}", recipe.name);
            near(&whole, &expected, qat.is_some(), &what);
            if config.output() != OutputKind::Tokens {
                continue;
            }
            let single = in_pieces(&model, &tokens, 1);
            near(&single, &expected[..single.len()], qat.is_some(), &format!("{what}, one by one"));
            for size in [7, 256, LENGTH] {
                let pieces = in_pieces(&model, &tokens, size);
                let differ = pieces.iter().zip(&single).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
                assert_eq!(differ, 0, "{what}: logits that differ in pieces of {size}");
            }
        }
    }
}

#[test]
fn a_trained_language_model_answers_alike_in_training_prefill_and_decode() {
    let tokens: Vec<u32> = (0..14).map(|i| (2 + i * 3) % 29).collect();
    let batch = Batch::new([tokens.as_slice()]);
    for (qat, recipe) in ways() {
        let (home, expected) = trained(&config(r#"{"lm": {"tied": false}}"#, true), qat, &batch, false);
        let masters = Checkpoint::open(home.path()).unwrap();
        let model = Arc::new(masters.model_as(recipe, &Default::default()).unwrap());
        let cpu = Cpu::new(None, Some(2)).unwrap();
        let (width, ternary) = (32, qat.is_some());
        let mut exec = CpuExec::new(cpu.clone());
        let whole = exec.forward(&model, &batch).unwrap().to_vec();
        for (i, (found, expected)) in whole.chunks(width).zip(expected.chunks(width)).enumerate() {
            same(found, expected, ternary, &format!("{} forward {i}", recipe.name));
        }
        let mut decode = Session::new(model.clone(), cpu.clone(), 32);
        for (i, token) in tokens.iter().enumerate() {
            let found = decode.feed(&[*token]).unwrap();
            same(found, &expected[i * width..][..width], ternary, &format!("{} decode {i}", recipe.name));
        }
        let mut prefill = Session::new(model, cpu, 32);
        let found = prefill.feed(&tokens).unwrap();
        same(found, &expected[(tokens.len() - 1) * width..], ternary, &format!("{} prefill", recipe.name));
    }
}

#[test]
fn a_trained_classifier_answers_alike_in_training_and_inference() {
    let rows: [&[u32]; 3] = [&[1, 2, 3, 4, 5], &[7], &[3, 9, 27, 4]];
    let batch = Batch::new(rows);
    for (qat, recipe) in ways() {
        let head = r#"{"classify": {"classes": 3, "pooling": "mean"}}"#;
        let (home, expected) = trained(&config(head, false), qat, &batch, true);
        let masters = Checkpoint::open(home.path()).unwrap();
        let model = masters.model_as(recipe, &Default::default()).unwrap();
        let mut exec = CpuExec::new(Cpu::new(None, Some(1)).unwrap());
        let found = exec.forward(&model, &batch).unwrap().to_vec();
        for (i, (found, expected)) in found.chunks(3).zip(expected.chunks(3)).enumerate() {
            same(found, expected, qat.is_some(), &format!("{} row {i}", recipe.name));
        }
    }
}
