//! Training of published networks against transformers in f64; `tools/golden/finetune.py` makes the vectors.

mod common;

use common::cpu;
use lowbit_model::container::{Dtype, Tensors};
use lowbit_model::exec::Batch;
use lowbit_model::source::Role;
use lowbit_model::{Checkpoint, ModelConfig};
use lowbit_train::{
    BatchTargets, Control, Data, Job, Network, Observer, Pass, Schedule, StepMetrics, TrainConfig, train,
};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Largest difference of a gradient, relative to the largest magnitude of its tensor.
const TENSOR: f32 = 1e-4;
/// Relative difference of a loss.
const LOSS: f64 = 1e-5;
/// The same in the course of ten updates, where AdamW turns tiny gradients into whole steps.
const UPDATES: f64 = 5e-4;

fn networks(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../lowbit-model/tests/golden/families").join(file)
}

fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden_families").join(file)
}

fn cases(path: &Path) -> Vec<Value> {
    serde_json::from_slice(&std::fs::read(path).expect("part of the repository")).expect("JSON")
}

/// A directory of the Hub with these tensors.
fn open(name: &str, weights: &Path) -> (tempfile::TempDir, Checkpoint) {
    let case = cases(&networks("cases.json")).into_iter().find(|case| case["name"] == name).expect("a network");
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("config.json"), case["config"].to_string()).unwrap();
    std::fs::copy(weights, home.path().join("model.safetensors")).unwrap();
    let checkpoint = Checkpoint::open(home.path()).unwrap_or_else(|e| panic!("{name}: {e}"));
    (home, checkpoint)
}

/// The sequences of all cases with their classes, or with the token that follows.
struct Sequences {
    batch: Batch,
    targets: Vec<u32>,
    classes: bool,
}

impl Sequences {
    fn of(case: &Value, classes: bool) -> Self {
        let file = Tensors::open(&networks("expected.safetensors")).unwrap();
        let ids = |name: &str| -> Vec<u32> {
            assert_eq!(file.entry(name).unwrap().dtype, Dtype::I32);
            file.bytes(name).unwrap().chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect()
        };
        let (tokens, mut batch, mut at) = (ids("sequences"), Batch::default(), 0);
        for length in ids("lengths") {
            batch.push(&tokens[at..at + length as usize]);
            at += length as usize;
        }
        let mut targets: Vec<u32> = serde_json::from_value(case["targets"].clone()).unwrap();
        if !classes {
            targets = batch.tokens[1..].iter().copied().chain([u32::MAX]).collect();
            batch.cu_seqlens[1..].iter().for_each(|end| targets[end - 1] = u32::MAX);
        }
        Sequences { batch, targets, classes }
    }
}

impl Data for Sequences {
    fn len(&self) -> usize {
        self.batch.sequences()
    }

    fn fill(&self, rows: &[usize], batch: &mut Batch, targets: &mut BatchTargets) {
        let span = |row: usize| self.batch.cu_seqlens[row]..self.batch.cu_seqlens[row + 1];
        *batch = Batch::new(rows.iter().map(|&row| &self.batch.tokens[span(row)]));
        let targets = targets.classes();
        for &row in rows {
            match self.classes {
                true => targets.push(self.targets[row]),
                false => targets.extend(&self.targets[span(row)]),
            }
        }
    }

    fn fingerprint(&self) -> String {
        "golden".into()
    }
}

fn near(got: f64, want: f64, relative: f64, what: &str) {
    assert!((got - want).abs() <= relative * want.abs(), "{what}: {got}, not {want}");
}

#[test]
fn losses_and_gradients_are_those_of_transformers() {
    for case in cases(&golden("cases.json")) {
        let name = case["name"].as_str().unwrap();
        let (_home, checkpoint) = open(name, &networks(&format!("{name}.safetensors")));
        let (_other, gradients) = open(name, &golden(&format!("{name}.safetensors")));
        let config = &checkpoint.model_config().config;
        let data = Sequences::of(&case, config.classes().is_some());
        let mut network = Network::new(&cpu(2), config, 0, None).unwrap();
        for spec in checkpoint.parameters().params() {
            network.tape.params.set(&spec.name, &checkpoint.master(spec).unwrap()).unwrap();
        }
        let logits = network.forward(&data.batch, Pass::Train(0));
        let count = data.targets.iter().filter(|&&t| t != u32::MAX).count() as f64;
        let sum = network.tape.cross_entropy(&logits, &data.targets, 0.0, (1.0 / count) as f32);
        near(sum / count, case["loss"].as_f64().unwrap(), LOSS, &format!("{name}: loss"));
        drop(logits);
        network.tape.backward();
        for id in network.params().ids() {
            let param = network.params().get(id);
            let what = format!("{name}: gradient of {}", param.spec.name);
            let (got, want) = (network.tape.gradient(id).expect("a gradient"), gradients.master(&param.spec).unwrap());
            // Gradients of key biases are 0 but for rounding: a score that all keys share changes nothing.
            let top = want.iter().fold(1e-3f32, |m, v| m.max(v.abs()));
            let worst = got.iter().zip(&want).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / top;
            assert!(worst <= TENSOR, "{what}: off by {worst} of {top}");
        }
    }
}

#[derive(Default)]
struct Record(Vec<f64>);

impl Observer for Record {
    fn step(&mut self, metrics: &StepMetrics, _: u64) -> Control {
        self.0.push(metrics.loss);
        Control::Continue
    }
}

#[test]
fn ten_updates_follow_transformers() {
    for case in cases(&golden("cases.json")) {
        let name = case["name"].as_str().unwrap();
        let (home, checkpoint) = open(name, &networks(&format!("{name}.safetensors")));
        let config = checkpoint.model_config().config.clone();
        let (adamw, data) = (&case["adamw"], Sequences::of(&case, config.classes().is_some()));
        let losses: Vec<f64> = serde_json::from_value(case["losses"].clone()).unwrap();
        let number = |key: &str| adamw[key].as_f64().unwrap() as f32;
        let settings = TrainConfig {
            steps: Some(losses.len() as u64),
            batch_size: data.len(),
            learning_rate: number("lr"),
            schedule: Schedule::Constant,
            beta1: adamw["betas"][0].as_f64().unwrap() as f32,
            beta2: adamw["betas"][1].as_f64().unwrap() as f32,
            epsilon: number("eps"),
            weight_decay: number("weight_decay"),
            decay: vec![Role::Embedding, Role::Body, Role::Head],
            clip_norm: 0.0,
            ..TrainConfig::default()
        };
        let model_config = ModelConfig::new(config, 512);
        let job = Job {
            model_config: &model_config,
            tokenizer: None,
            from: Some(&checkpoint),
            teacher: None,
            data: &data,
            validation: None,
            config: &settings,
        };
        let mut record = Record::default();
        train(&job, &home.path().join("run"), &cpu(2), &mut record).unwrap_or_else(|e| panic!("{name}: {e}"));
        for (i, (got, want)) in record.0.iter().zip(&losses).enumerate() {
            near(*got, *want, if i == 0 { LOSS } else { UPDATES }, &format!("{name}: loss of step {i}"));
        }
        assert_eq!(record.0.len(), losses.len());
    }
}
