//! Train a little, pack, and demand the same logits from inference, in prefill and token by token.

use lowbit_kernels::Cpu;
use lowbit_model::exec::Batch;
use lowbit_model::recipe::Activations;
use lowbit_model::{Card, Checkpoint, Config, CpuExec, Recipe, Session};
use lowbit_train::{Data, Error, Job, Network, Observer, Qat, TrainConfig, train};
use std::sync::Arc;

static FLOAT: Recipe = Recipe {
    name: "parity_f32",
    summary: "",
    body: "f32",
    embedding: "f32",
    head: "f32",
    activations: Activations::F32,
    head_activations: Activations::F32,
};
/// What training computes with: a ternary body, everything else in f32.
static TERNARY: Recipe = Recipe { name: "parity_ternary", body: "ternary", activations: Activations::Int8, ..FLOAT };

/// Words of a counting language: each token follows from the one before.
struct Counting {
    classes: bool,
}

impl Data for Counting {
    fn len(&self) -> usize {
        64
    }
    fn fill(&self, rows: &[usize], batch: &mut Batch, targets: &mut Vec<u32>) {
        *batch = Batch { tokens: Vec::new(), starts: vec![0] };
        targets.clear();
        for &row in rows {
            let token = |i: usize| ((row * 5 + i * 3) % 29) as u32;
            let length = 3 + row % 9;
            batch.tokens.extend((0..length).map(token));
            batch.starts.push(batch.tokens.len());
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
    let card = Card { labels, ..Card::new(config.clone(), 32) };
    let settings = TrainConfig { steps: Some(60), batch_size: 8, qat, evaluate_every: 60, ..TrainConfig::default() };
    let mut keep = Keep { batch, logits: Vec::new() };
    let data = Counting { classes };
    let job = Job { card: &card, tokenizer: None, from: None, data: &data, config: &settings };
    train(&job, home.path(), &Cpu::new(None, Some(2)).unwrap(), &mut keep).unwrap();
    (home, keep.logits)
}

/// Equal up to the order of float sums; a rounding boundary of an int8 activation may flip, then bounded, answer equal.
fn same(found: &[f32], expected: &[f32], ternary: bool, what: &str) {
    let size = expected.iter().fold(1.0f32, |m, v| m.max(v.abs()));
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs() / size).fold(0.0, f32::max);
    let best = |v: &[f32]| (0..v.len()).max_by(|&a, &b| v[a].total_cmp(&v[b]));
    assert_eq!(found.len(), expected.len(), "{what}");
    assert!(worst <= if ternary { 5e-2 } else { 1e-4 }, "{what}: off by {worst}");
    assert_eq!(best(found), best(expected), "{what}");
    println!("{what}: {worst:.1e}");
}

#[test]
fn a_trained_language_model_answers_alike_in_training_prefill_and_decode() {
    let tokens: Vec<u32> = (0..14).map(|i| (2 + i * 3) % 29).collect();
    let batch = Batch::new([tokens.as_slice()]);
    for (qat, recipe) in [(None, &FLOAT), (Some(Qat::default()), &TERNARY)] {
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
    for (qat, recipe) in [(None, &FLOAT), (Some(Qat::default()), &TERNARY)] {
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
