//! Magnitude pruning: how many weights are 0 in the result, and which.

mod common;

use common::*;
use lowbit_model::source::Role;
use lowbit_model::{Checkpoint, Config};
use lowbit_train::{
    Control, Job, Kind, Observer, Optimizer, Pattern, Prune, Qat, StepMetrics, TrainConfig, Validation, train,
};
use serde_json::json;
use std::path::Path;

#[derive(Default)]
struct Watch {
    stop: Option<u64>,
    looks: Vec<u64>,
}

impl Observer for Watch {
    fn step(&mut self, metrics: &StepMetrics, _: u64) -> Control {
        if self.stop == Some(metrics.step) { Control::Stop } else { Control::Continue }
    }

    fn validated(&mut self, step: u64, _: &Validation) {
        self.looks.push(step);
    }
}

fn settings(prune: Prune) -> TrainConfig {
    TrainConfig { steps: Some(24), batch_size: 8, learning_rate: 0.01, prune: Some(prune), ..TrainConfig::default() }
}

fn run(config: &Config, settings: &TrainConfig, home: &Path, watch: &mut Watch) -> Result<(), lowbit_train::Error> {
    let (model_config, data, held) = (model_config(config.clone()), Majority::new(40), Majority::new(9));
    let job = Job {
        model_config: &model_config,
        tokenizer: None,
        from: None,
        teacher: None,
        data: &data,
        validation: Some(&held),
        config: settings,
    };
    train(&job, home, &cpu(2), watch).map(|_| ())
}

/// Name, columns and values of the body matrices, and of the others.
fn matrices(home: &Path, body: bool) -> Vec<(String, usize, Vec<f32>)> {
    let checkpoint = Checkpoint::open(home).unwrap();
    let specs = checkpoint.parameters().params().iter().filter(|spec| (spec.role == Role::Body) == body);
    specs.map(|spec| (spec.name.clone(), spec.cols, checkpoint.master(spec).unwrap())).collect()
}

fn weights(home: &Path) -> Vec<u8> {
    std::fs::read(home.join("model.safetensors")).unwrap()
}

fn zeros(values: &[f32]) -> usize {
    values.iter().filter(|v| **v == 0.0).count()
}

#[test]
fn the_share_of_zeros_is_exact_and_survives_a_resume() {
    let at_once = Prune { sparsity: Some(0.6), ..Prune::default() };
    let gradual = Prune { begin_step: 3, end_step: Some(13), frequency: Some(3), ..at_once.clone() };
    for prune in [at_once, gradual] {
        for (config, changes) in [
            (encoder(json!({"dropout": 0.1})), TrainConfig::default()),
            (mlp(json!({})), TrainConfig { optimizer: Optimizer::Sgd, weight_decay: 0.1, ..TrainConfig::default() }),
            (bitnet(CLASSIFY, json!({})), TrainConfig { qat: Some(Qat::default()), ..TrainConfig::default() }),
        ] {
            let TrainConfig { optimizer, weight_decay, qat, .. } = changes;
            let settings = TrainConfig { optimizer, weight_decay, qat, evaluate_every: 1, ..settings(prune.clone()) };
            let (home, again) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let mut watch = Watch::default();
            run(&config, &settings, home.path(), &mut watch).unwrap();
            for (name, _, values) in matrices(home.path(), true) {
                let expected = (f64::from(0.6f32) * values.len() as f64).round() as usize;
                assert_eq!(zeros(&values), expected, "{name}");
            }
            let others = matrices(home.path(), false);
            let full = |name: &str| ["embed", "classifier.weight"].iter().any(|part| name.contains(part));
            assert!(others.iter().filter(|(name, ..)| full(name)).all(|(.., values)| zeros(values) < values.len() / 4));
            // Weights that are not yet sparse are no candidates for the best ones.
            assert_eq!(watch.looks[0], prune.end_step.unwrap_or(0) + 1, "{:?}", watch.looks);
            for stop in [2, 7, 15] {
                run(&config, &settings, again.path(), &mut Watch { stop: Some(stop), looks: Vec::new() }).unwrap();
            }
            run(&config, &settings, again.path(), &mut Watch::default()).unwrap();
            assert!(weights(home.path()) == weights(again.path()));
        }
    }
}

#[test]
fn two_of_four_inputs_stay() {
    let two = Prune { pattern: Some(Pattern::TwoOfFour), begin_step: 5, ..Prune::default() };
    assert_eq!(serde_json::to_value(&two).unwrap(), json!({"pattern": "2:4", "begin_step": 5}));
    let home = tempfile::tempdir().unwrap();
    let config = encoder(json!({"intermediate_size": 16}));
    run(&config, &settings(two.clone()), home.path(), &mut Watch::default()).unwrap();
    for (name, cols, values) in matrices(home.path(), true) {
        let groups = values.chunks(cols).flat_map(|row| row.chunks(4));
        assert!(groups.into_iter().all(|group| zeros(group) == 2), "{name}");
    }
    let home = tempfile::tempdir().unwrap();
    let error = run(&encoder(json!({})), &settings(two), home.path(), &mut Watch::default()).unwrap_err();
    assert!(error.kind == Kind::Usage && error.message.contains("has 14 inputs, which is no multiple of 4"), "{error}");
}

#[test]
fn settings_that_contradict_themselves_are_refused() {
    let half = Prune { sparsity: Some(0.5), ..Prune::default() };
    for (prune, field) in [
        (Prune::default(), "`prune.sparsity` is missing"),
        (Prune { sparsity: Some(1.0), ..half.clone() }, "`prune.sparsity` is 1"),
        (Prune { pattern: Some(Pattern::TwoOfFour), ..half.clone() }, "`prune.pattern` is given beside"),
        (Prune { begin_step: 24, ..half.clone() }, "`prune.begin_step` is 24"),
        (Prune { end_step: Some(30), ..half.clone() }, "`prune.end_step` is 30"),
        (Prune { begin_step: 9, end_step: Some(8), ..half.clone() }, "`prune.end_step` is 8"),
        (Prune { frequency: Some(0), ..half.clone() }, "`prune.frequency` is 0"),
    ] {
        let error = settings(prune).validate(40).unwrap_err();
        assert!(error.kind == Kind::Usage && error.message.contains(field), "{error}");
    }
    let frozen = TrainConfig { freeze: vec![Role::Body], ..settings(half) };
    assert!(frozen.validate(40).unwrap_err().message.contains("`prune` changes body matrices"));
}
