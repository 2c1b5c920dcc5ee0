//! Training with matrix products in bf16: near training in f32, with the same bits however it runs.

mod common;

use common::*;
use lowbit_model::Config;
use lowbit_model::arch::Head;
use lowbit_train::{
    Control, Data, Job, Network, Observer, Pass, Precision, Qat, StepMetrics, TrainConfig, Validation, train,
};
use serde_json::json;

/// Largest difference of a gradient, relative to the largest magnitude of its tensor: a few roundings to 8 bits.
const GRADIENT: f32 = 4e-2;
/// Difference of the losses of ten updates, relative to the first.
const UPDATES: f64 = 2e-2;

fn networks() -> Vec<(&'static str, Config)> {
    vec![
        ("decoder", bitnet(Head::Lm { tied: true }, json!({"hidden_size": 32, "intermediate_size": 48}))),
        ("encoder", encoder(json!({"hidden_size": 48, "pooler": "tanh"}))),
        ("gpt", gpt(json!({"hidden_size": 48, "head": {"classify": {"classes": 3, "pooling": "last"}}}))),
        ("mlp", mlp(json!({"layers": [40, 30]}))),
    ]
}

/// Logits and gradients of a batch.
fn gradients(config: &Config, precision: Precision) -> (Vec<f32>, Vec<(String, Vec<f32>)>) {
    let mut network = Network::new(&cpu(2), config, 3, None).unwrap();
    network.set_precision(precision);
    let logits = network.forward(&ragged(&[5, 1, 8], 19, 2), Pass::Train(1));
    let targets: Vec<u32> = (0..logits.rows() as u32).map(|row| row % 3).collect();
    network.tape.cross_entropy(&logits, &targets, 0.0, 0.3);
    let answers = network.tape.read(&logits);
    drop(logits);
    network.backward();
    let ids: Vec<_> = network.params().ids().collect();
    let of = |id| (network.params().get(id).spec.name.clone(), network.tape.gradient(id).unwrap().to_vec());
    (answers, ids.into_iter().map(of).collect())
}

#[test]
fn gradients_are_near_those_of_f32() {
    for (name, config) in networks() {
        let [full, rounded] = [Precision::F32, Precision::Bf16].map(|precision| gradients(&config, precision));
        assert!(full.0 != rounded.0, "{name}: products are rounded");
        let mut worst = 0f32;
        for ((param, want), (_, got)) in full.1.iter().zip(&rounded.1) {
            // The gradients of key biases are 0 but for rounding.
            let top = want.iter().fold(2e-3f32, |m, v| m.max(v.abs()));
            let off = got.iter().zip(want).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / top;
            assert!(off <= GRADIENT, "{name}: {param} is off by {off} of {top}");
            worst = worst.max(off);
        }
        assert!(worst > 1e-4, "{name}: {worst}");
        println!("{name}: gradients within {worst:.1e}");
    }
}

#[derive(Default)]
struct Losses {
    losses: Vec<f64>,
    stop: Option<u64>,
    validation: Vec<Validation>,
}

impl Observer for Losses {
    fn step(&mut self, metrics: &StepMetrics, _: u64) -> Control {
        self.losses.push(metrics.loss);
        if self.stop == Some(metrics.step) { Control::Stop } else { Control::Continue }
    }

    fn validated(&mut self, _: u64, validation: &Validation) {
        self.validation.push(validation.clone());
    }
}

/// Ten updates of AdamW.
fn run(config: &Config, settings: TrainConfig, home: &std::path::Path, threads: usize, watch: &mut Losses) {
    let settings = TrainConfig { steps: Some(10), batch_size: 8, learning_rate: 3e-3, ..settings };
    let (model_config, rows, words) = (model_config(config.clone()), Majority::new(40), Counting { rows: 40 });
    let data: &dyn Data = if config.classes().is_some() { &rows } else { &words };
    let job = Job {
        model_config: &model_config,
        tokenizer: None,
        from: None,
        teacher: None,
        data,
        validation: Some(data),
        config: &settings,
    };
    train(&job, home, &cpu(threads), watch).unwrap();
}

#[test]
fn ten_updates_follow_f32_with_the_same_bits_however_they_run() {
    let weights = |home: &std::path::Path| std::fs::read(home.join("model.safetensors")).unwrap();
    for (name, config) in networks() {
        for qat in [None, Some(Qat::default())] {
            let homes = [0; 3].map(|_| tempfile::tempdir().unwrap());
            let [mut full, mut rounded] = [Losses::default(), Losses::default()];
            run(&config, TrainConfig { qat, ..TrainConfig::default() }, homes[0].path(), 2, &mut full);
            let settings = TrainConfig { qat, precision: Precision::Bf16, ..TrainConfig::default() };
            run(&config, settings.clone(), homes[1].path(), 2, &mut rounded);
            let pairs = full.losses.iter().zip(&rounded.losses);
            let worst = pairs.fold(0f64, |m, (want, got)| m.max((got - want).abs() / full.losses[0]));
            assert!(worst <= UPDATES && full.losses.len() == 10, "{name}: {:?} {:?}", full.losses, rounded.losses);
            assert!(weights(homes[0].path()) != weights(homes[1].path()), "{name}");
            println!("{name}, {qat:?}: losses within {worst:.1e}");
            // Interrupted, on other threads, with checkpoints of activations.
            run(&config, settings.clone(), homes[2].path(), 1, &mut Losses { stop: Some(4), ..Losses::default() });
            let settings = TrainConfig { gradient_checkpointing: true, ..settings };
            run(&config, settings, homes[2].path(), 3, &mut Losses::default());
            assert!(weights(homes[1].path()) == weights(homes[2].path()), "{name}");
        }
    }
}
