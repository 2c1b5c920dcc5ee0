//! Whole runs: they learn, they resume to the same bits, and they stop for the right reasons.

mod common;

use common::*;
use lowbit_kernels::Cpu;
use lowbit_model::{Config, ModelConfig, arch::Head};
use lowbit_train::{
    Control, Data, Error, Job, Kind, Network, Observer, Optimizer, Outcome, Qat, Schedule, Status, StepMetrics,
    TrainConfig, train,
};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

const LM: Head = Head::Lm { tied: true };

fn config(steps: u64) -> TrainConfig {
    TrainConfig {
        steps: Some(steps),
        batch_size: 6,
        learning_rate: 1e-2,
        warmup_steps: 2,
        weight_decay: 0.01,
        ..TrainConfig::default()
    }
}

/// Stops after a step, spoils the weights after a step, and remembers what it saw.
#[derive(Default)]
struct Watch {
    stop_after: Option<u64>,
    spoil_after: Option<u64>,
    losses: Vec<f64>,
    evaluated: Vec<u64>,
    warnings: Vec<String>,
}

impl Observer for Watch {
    fn step(&mut self, metrics: &StepMetrics, _steps: u64) -> Control {
        self.losses.push(metrics.loss);
        if self.stop_after == Some(metrics.step) { Control::Stop } else { Control::Continue }
    }

    fn evaluate(&mut self, step: u64, network: &mut Network) -> Result<(), Error> {
        self.evaluated.push(step);
        if self.spoil_after == Some(step) {
            let name = "layers.1.weight";
            let mut value = network.params().iter().find(|p| p.spec.name == name).unwrap().values().to_vec();
            value[7] = f32::NAN;
            network.tape.params.set(name, &value)?;
        }
        Ok(())
    }

    fn warn(&mut self, message: &str) {
        self.warnings.push(message.into());
    }
}

fn run(
    model_config: &ModelConfig,
    data: &dyn Data,
    config: &TrainConfig,
    dir: &Path,
    cpu: &Cpu,
    watch: &mut Watch,
) -> Result<Outcome, Error> {
    train(
        &Job { model_config, tokenizer: None, from: None, teacher: None, data, validation: None, config },
        dir,
        cpu,
        watch,
    )
}

fn weights(dir: &Path) -> Vec<u8> {
    fs::read(dir.join("model.safetensors")).unwrap()
}

/// Loss of each line of the metrics.
fn curve(dir: &Path) -> Vec<(u64, f64)> {
    let text = fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
    let line = |l| serde_json::from_str::<StepMetrics>(l).map(|m| (m.step, m.loss)).unwrap();
    text.lines().map(line).collect()
}

fn states(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir.join("checkpoints")).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<_> = files.filter(|p| p.extension().is_some_and(|e| e == "safetensors")).collect();
    files.sort();
    files
}

#[test]
fn the_loss_comes_down() {
    let classify = |changes| bitnet(CLASSIFY, changes);
    let (majority, counting) = (Majority::new(60), Counting { rows: 57 });
    let sgd = TrainConfig { optimizer: Optimizer::Sgd, learning_rate: 0.1, ..config(150) };
    let qat = |c: TrainConfig| TrainConfig { qat: Some(Qat::default()), ..c };
    let cases: [(&str, Config, &dyn Data, TrainConfig); 6] = [
        ("mlp", mlp(json!({})), &majority, config(150)),
        ("mlp, sgd, linear", mlp(json!({})), &majority, TrainConfig { schedule: Schedule::Linear, ..sgd }),
        ("classifier", classify(json!({"causal": false})), &majority, config(100)),
        ("classifier, ternary", classify(json!({"causal": false})), &majority, qat(config(100))),
        ("lm", bitnet(LM, json!({"hidden_size": 24})), &counting, config(150)),
        ("lm, ternary", bitnet(LM, json!({"hidden_size": 24})), &counting, qat(config(200))),
    ];
    for (label, model, data, config) in cases {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = Watch::default();
        let outcome = run(&model_config(model), data, &config, dir.path(), &cpu(2), &mut watch).unwrap();
        assert_eq!(outcome.status, Status::Finished);
        let (first, last) = (watch.losses[0], watch.losses[watch.losses.len() - 10..].iter().sum::<f64>() / 10.0);
        assert!(last < 0.5 * first, "{label}: {first} -> {last}");
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let model = model_config(bitnet(CLASSIFY, json!({"dropout": 0.1, "bigram_buckets": 5})));
    for qat in [None, Some(Qat::default())] {
        let config = TrainConfig { qat, token_dropout: 0.2, ..config(12) };
        let weights = [1, 2, 3].map(|threads| {
            let dir = tempfile::tempdir().unwrap();
            run(&model, &Majority::new(31), &config, dir.path(), &cpu(threads), &mut Watch::default()).unwrap();
            weights(dir.path())
        });
        assert!(weights[0] == weights[1] && weights[1] == weights[2]);
    }
}

#[test]
fn a_resumed_run_ends_with_the_same_bits() {
    let model = model_config(bitnet(LM, json!({"dropout": 0.1})));
    let data = Counting { rows: 23 };
    let settings = TrainConfig { qat: Some(Qat::default()), accumulation: 2, save_every: 3, ..config(11) };
    let whole = tempfile::tempdir().unwrap();
    run(&model, &data, &settings, whole.path(), &cpu(2), &mut Watch::default()).unwrap();
    for stops in [vec![1], vec![3], vec![7], vec![10], vec![1, 2, 6, 9]] {
        let dir = tempfile::tempdir().unwrap();
        for (i, &stop) in stops.iter().enumerate() {
            let mut watch = Watch { stop_after: Some(stop), ..Watch::default() };
            let outcome = run(&model, &data, &settings, dir.path(), &cpu(1 + i), &mut watch).unwrap();
            assert_eq!((outcome.status, outcome.step), (Status::Interrupted, stop));
            assert!(!dir.path().join("model.safetensors").exists());
        }
        let outcome = run(&model, &data, &settings, dir.path(), &cpu(3), &mut Watch::default()).unwrap();
        assert_eq!((outcome.status, outcome.resumed_from), (Status::Finished, stops.last().copied()));
        assert!(weights(dir.path()) == weights(whole.path()), "stopped after {stops:?}");
        assert_eq!(curve(dir.path()), curve(whole.path()));
        assert_eq!(states(dir.path()).len(), 2, "only the newest states are kept");
    }
    let again = run(&model, &data, &settings, whole.path(), &cpu(2), &mut Watch::default()).unwrap();
    assert_eq!((again.status, again.loss, again.resumed_from), (Status::Finished, None, Some(11)));
}

#[test]
fn resuming_with_other_settings_names_the_field() {
    let (model, data, settings) = (model_config(mlp(json!({}))), Majority::new(20), config(6));
    let dir = tempfile::tempdir().unwrap();
    // Beyond the warm-up, the same for every number of updates.
    let mut watch = Watch { stop_after: Some(4), ..Watch::default() };
    run(&model, &data, &settings, dir.path(), &cpu(1), &mut watch).unwrap();
    let check = |model: &ModelConfig, data: &dyn Data, settings: &TrainConfig, field: &str| {
        let error = run(model, data, settings, dir.path(), &cpu(1), &mut Watch::default()).unwrap_err();
        assert_eq!(error.kind, Kind::Input);
        assert!(error.message.contains(&format!("`{field}`")), "{error}");
        assert!(error.path.as_ref().unwrap().starts_with(dir.path()));
    };
    check(&model, &data, &TrainConfig { seed: 1, ..settings.clone() }, "train.seed");
    check(&model, &data, &TrainConfig { learning_rate: 0.02, ..settings.clone() }, "train.learning_rate");
    check(&model, &data, &TrainConfig { steps: Some(7), ..settings.clone() }, "train.steps");
    check(&model_config(mlp(json!({"layers": [17]}))), &data, &settings, "model.layers");
    check(&model, &Majority::new(21), &settings, "data");
    let free = TrainConfig { save_every: 1, evaluate_every: 2, ..settings };
    let mut watch = Watch::default();
    run(&model, &data, &free, dir.path(), &cpu(1), &mut watch).unwrap();
    assert_eq!(watch.evaluated, [6]);
}

#[test]
fn damaged_states_fall_back_to_the_one_before() {
    let (model, data, settings) = (model_config(mlp(json!({}))), Majority::new(20), config(8));
    let whole = tempfile::tempdir().unwrap();
    run(&model, &data, &settings, whole.path(), &cpu(1), &mut Watch::default()).unwrap();
    let truncate = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2);
    let flip = |bytes: &mut Vec<u8>| bytes[5000] ^= 1;
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(9);
    type Damage = fn(&mut Vec<u8>);
    let damages: [Damage; 4] = [truncate, flip, cut, |bytes| bytes.clear()];
    for damage in damages {
        let dir = tempfile::tempdir().unwrap();
        for stop in [3, 5] {
            let mut watch = Watch { stop_after: Some(stop), ..Watch::default() };
            run(&model, &data, &settings, dir.path(), &cpu(1), &mut watch).unwrap();
        }
        let spoil = |path: &Path| {
            let mut bytes = fs::read(path).unwrap();
            damage(&mut bytes);
            fs::write(path, bytes).unwrap();
        };
        let orphan = dir.path().join("checkpoints/.lowbit-0123456789abcdef.tmp");
        fs::write(&orphan, "half").unwrap();
        spoil(&states(dir.path())[1]);
        let mut watch = Watch::default();
        let outcome = run(&model, &data, &settings, dir.path(), &cpu(1), &mut watch).unwrap();
        assert_eq!(outcome.resumed_from, Some(3));
        assert!(watch.warnings.len() == 1 && watch.warnings[0].contains("step-0000000005"), "{:?}", watch.warnings);
        assert!(!orphan.exists());
        assert!(weights(dir.path()) == weights(whole.path()));
        states(dir.path()).iter().for_each(|path| spoil(path));
        let error = run(&model, &data, &settings, dir.path(), &cpu(1), &mut Watch::default()).unwrap_err();
        assert_eq!(error.kind, Kind::Input);
        assert!(error.message.contains("no saved state is intact"), "{error}");
    }
}

#[test]
fn nan_stops_the_run_and_names_step_and_tensor() {
    let (model, data) = (model_config(mlp(json!({}))), Majority::new(20));
    let settings = TrainConfig { save_every: 2, evaluate_every: 1, ..config(8) };
    let dir = tempfile::tempdir().unwrap();
    let mut watch = Watch { spoil_after: Some(5), ..Watch::default() };
    let error = run(&model, &data, &settings, dir.path(), &cpu(1), &mut watch).unwrap_err();
    assert_eq!(error.kind, Kind::Numeric);
    assert!(error.message.starts_with("step 6: loss NaN, and `layers.1.weight`"), "{error}");
    assert!(error.message.contains("the state of step 4 is kept"), "{error}");
    assert_eq!(curve(dir.path()).len(), 5);
    let outcome = run(&model, &data, &settings, dir.path(), &cpu(1), &mut Watch::default()).unwrap();
    assert_eq!(outcome.resumed_from, Some(4));
    let whole = tempfile::tempdir().unwrap();
    run(&model, &data, &settings, whole.path(), &cpu(1), &mut Watch::default()).unwrap();
    assert!(weights(dir.path()) == weights(whole.path()));
}

#[test]
fn a_diverging_run_stops_with_a_numeric_error() {
    let model = model_config(mlp(json!({"hidden_act": "relu2"})));
    let settings = TrainConfig {
        optimizer: Optimizer::Sgd,
        learning_rate: 900.0,
        clip_norm: 0.0,
        schedule: Schedule::Constant,
        ..config(100)
    };
    let dir = tempfile::tempdir().unwrap();
    let error = run(&model, &Majority::new(20), &settings, dir.path(), &cpu(1), &mut Watch::default()).unwrap_err();
    assert_eq!(error.kind, Kind::Numeric, "{error}");
    assert!(!dir.path().join("model.safetensors").exists());
}

/// The loss of a run that diverges may stay finite for ever.
#[test]
fn a_run_whose_loss_stays_high_has_diverged() {
    let model = model_config(mlp(json!({})));
    let diverging = TrainConfig { learning_rate: 50.0, schedule: Schedule::Constant, save_every: 1, ..config(100) };
    for (clip_norm, remedy) in [(0.0, "set `clip_norm`, e.g. to 1"), (0.5, "or `clip_norm`, now 0.5")] {
        let settings = TrainConfig { clip_norm, ..diverging.clone() };
        let dir = tempfile::tempdir().unwrap();
        let mut watch = Watch::default();
        let error = run(&model, &Majority::new(20), &settings, dir.path(), &cpu(1), &mut watch).unwrap_err();
        assert_eq!(error.kind, Kind::Numeric, "{error}");
        for words in ["diverged", "10 updates in a row", "lower `learning_rate`, now 50", remedy] {
            assert!(error.message.contains(words), "{words}: {error}");
        }
        assert!(watch.losses.iter().all(|loss| loss.is_finite()), "{:?}", watch.losses);
        let step = watch.losses.len() + 1;
        assert!(error.message.starts_with(&format!("step {step}: ")), "{error}");
        // The state from before the losses rose is the newest, and the same command ends the same way.
        let saved = states(dir.path()).pop().unwrap();
        assert!(saved.ends_with(format!("step-{:010}.safetensors", step - 10)), "{saved:?} {step}");
        let again = run(&model, &Majority::new(20), &settings, dir.path(), &cpu(1), &mut Watch::default());
        assert_eq!(again.unwrap_err().message, error.message);
        assert!(!dir.path().join("model.safetensors").exists());
    }
}

/// Changes header and tensor data of a state and makes its hash fit again.
fn forge(path: &Path, change: impl Fn(&mut serde_json::Value, &mut [u8])) {
    let bytes = fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let mut data = bytes[8 + length..bytes.len() - 32].to_vec();
    change(&mut header, &mut data);
    let mut text = header.to_string();
    text += &" ".repeat(text.len().next_multiple_of(8) - text.len());
    let mut forged = [&(text.len() as u64).to_le_bytes(), text.as_bytes(), &data].concat();
    forged.extend(Sha256::digest(&forged));
    fs::write(path, forged).unwrap();
}

#[test]
fn states_that_no_run_reaches_fall_back_to_the_one_before() {
    let (model, data, settings) = (model_config(mlp(json!({}))), Majority::new(20), config(8));
    let whole = tempfile::tempdir().unwrap();
    run(&model, &data, &settings, whole.path(), &cpu(1), &mut Watch::default()).unwrap();
    type Change = fn(&mut serde_json::Value, &mut [u8]);
    let changes: &[(&str, Change)] = &[
        ("holds NaN", |_, data| data[..4].copy_from_slice(&f32::NAN.to_le_bytes())),
        ("holds inf", |_, data| data[4..8].copy_from_slice(&f32::INFINITY.to_le_bytes())),
        ("tensor `v/", |header, data| {
            let (_, entry) = header.as_object().unwrap().iter().find(|(name, _)| name.starts_with("v/")).unwrap();
            let at = entry["data_offsets"][0].as_u64().unwrap() as usize;
            data[at..at + 4].copy_from_slice(&(-1f32).to_le_bytes());
        }),
        ("`step` is `6`", |header, _| header["__metadata__"]["step"] = json!("6")),
        ("`step` is `-1`", |header, _| header["__metadata__"]["step"] = json!("-1")),
        ("`step` is `NaN`", |header, _| header["__metadata__"]["step"] = json!("NaN")),
        ("`position` is `7`", |header, _| header["__metadata__"]["position"] = json!("7")),
        ("`seconds` is `inf`", |header, _| header["__metadata__"]["seconds"] = json!("inf")),
        ("`first_loss` is `NaN`", |header, _| header["__metadata__"]["first_loss"] = json!("NaN")),
    ];
    for (words, change) in changes {
        let dir = tempfile::tempdir().unwrap();
        for stop in [3, 5] {
            let mut watch = Watch { stop_after: Some(stop), ..Watch::default() };
            run(&model, &data, &settings, dir.path(), &cpu(1), &mut watch).unwrap();
        }
        forge(&states(dir.path())[1], change);
        let mut watch = Watch::default();
        let outcome = run(&model, &data, &settings, dir.path(), &cpu(1), &mut watch).unwrap();
        assert_eq!(outcome.resumed_from, Some(3), "{words}");
        assert!(watch.warnings.len() == 1 && watch.warnings[0].contains(words), "{words}: {:?}", watch.warnings);
        assert!(weights(dir.path()) == weights(whole.path()), "{words}");
    }
    // A step beyond the run, in a file named after it.
    let dir = tempfile::tempdir().unwrap();
    let mut watch = Watch { stop_after: Some(3), ..Watch::default() };
    run(&model, &data, &settings, dir.path(), &cpu(1), &mut watch).unwrap();
    let beyond = dir.path().join("checkpoints/step-0000000099.safetensors");
    fs::copy(&states(dir.path())[0], &beyond).unwrap();
    forge(&beyond, |header, _| header["__metadata__"]["step"] = json!("99"));
    let mut watch = Watch::default();
    let outcome = run(&model, &data, &settings, dir.path(), &cpu(1), &mut watch).unwrap();
    assert_eq!(outcome.resumed_from, Some(3));
    assert!(watch.warnings[0].contains("at most 8"), "{:?}", watch.warnings);
}

/// Trains into the directory that is being trained in.
struct Intruder<'a> {
    dir: &'a Path,
    error: Option<Error>,
}

impl Observer for Intruder<'_> {
    fn step(&mut self, _: &StepMetrics, _: u64) -> Control {
        let model = model_config(mlp(json!({})));
        let result = run(&model, &Majority::new(20), &config(2), self.dir, &cpu(1), &mut Watch::default());
        self.error = result.err();
        Control::Continue
    }
}

#[test]
fn a_second_run_in_the_directory_is_told_who_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let (model, data, config) = (model_config(mlp(json!({}))), Majority::new(20), config(2));
    let mut intruder = Intruder { dir: dir.path(), error: None };
    let job = Job {
        model_config: &model,
        tokenizer: None,
        from: None,
        teacher: None,
        data: &data,
        validation: None,
        config: &config,
    };
    train(&job, dir.path(), &cpu(1), &mut intruder).unwrap();
    let error = intruder.error.unwrap();
    assert_eq!(error.kind, Kind::Io);
    assert!(error.message.contains(&format!("locked by pid {}", std::process::id())), "{error}");
}

#[test]
fn a_directory_that_cannot_be_written_is_found_before_training() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    let model = model_config(mlp(json!({})));
    let mut watch = Watch::default();
    let error = run(&model, &Majority::new(20), &config(2), &file.join("run"), &cpu(1), &mut watch).unwrap_err();
    assert_eq!(error.kind, Kind::Io);
    assert!(error.path.is_some() && watch.losses.is_empty());
}

#[test]
fn accumulated_gradients_are_those_of_one_large_batch() {
    let (model, data) = (model_config(mlp(json!({}))), Majority::new(20));
    let weights = |batch_size, accumulation| {
        let dir = tempfile::tempdir().unwrap();
        let config = TrainConfig { batch_size, accumulation, ..config(3) };
        run(&model, &data, &config, dir.path(), &cpu(1), &mut Watch::default()).unwrap();
        let checkpoint = lowbit_model::Checkpoint::open(dir.path()).unwrap();
        let specs = checkpoint.parameters().params().to_vec();
        specs.iter().flat_map(|spec| checkpoint.master(spec).unwrap()).collect::<Vec<f32>>()
    };
    let (one, four) = (weights(8, 1), weights(2, 4));
    let worst = one.iter().zip(&four).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 2e-4, "{worst}");
}

#[test]
fn a_run_can_begin_from_a_checkpoint() {
    let (model, data) = (model_config(mlp(json!({}))), Majority::new(20));
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut watch = Watch::default();
    run(&model, &data, &config(60), first.path(), &cpu(1), &mut watch).unwrap();
    let checkpoint = lowbit_model::Checkpoint::open(first.path()).unwrap();
    let config = config(5);
    let job = Job {
        model_config: &model,
        tokenizer: None,
        from: Some(&checkpoint),
        teacher: None,
        data: &data,
        validation: None,
        config: &config,
    };
    let mut fine = Watch { stop_after: Some(3), ..Watch::default() };
    train(&job, second.path(), &cpu(1), &mut fine).unwrap();
    assert!(fine.losses[0] < 0.7 * watch.losses[0], "{} {}", fine.losses[0], watch.losses[0]);
    let drawn = Job { from: None, teacher: None, ..job };
    let error = train(&drawn, second.path(), &cpu(1), &mut Watch::default()).unwrap_err();
    assert!(error.kind == Kind::Input && error.message.contains("`from`"), "{error}");
}

#[test]
fn bad_data_are_refused() {
    let model = model_config(mlp(json!({})));
    let dir = tempfile::tempdir().unwrap();
    let error = |model: &ModelConfig, data: &Majority, name: &str| {
        run(model, data, &config(2), &dir.path().join(name), &cpu(1), &mut Watch::default()).unwrap_err()
    };
    let empty = error(&model, &Majority::new(0), "a");
    assert!(empty.kind == Kind::Input && empty.message.contains("empty"), "{empty}");
    let classes = error(&model_config(mlp(json!({"classes": 2}))), &Majority::new(20), "b");
    assert!(classes.kind == Kind::Input && classes.message.contains("target 2"), "{classes}");
    let mut data = Majority::new(20);
    data.rows.iter_mut().for_each(|row| row.0[0] = 19);
    let token = error(&model, &data, "c");
    assert!(token.kind == Kind::Input && token.message.contains("holds token 19"), "{token}");
    let lm = model_config(bitnet(LM, json!({})));
    let settings = TrainConfig { token_dropout: 0.1, ..config(2) };
    let error = run(&lm, &Counting { rows: 5 }, &settings, &dir.path().join("d"), &cpu(1), &mut Watch::default());
    let error = error.unwrap_err();
    assert!(error.kind == Kind::Usage && error.message.contains("`token_dropout`"), "{error}");
}

#[test]
fn quantization_begins_after_the_float_fraction() {
    let (model_config, data, cpu) = (model_config(encoder(json!({}))), Majority::new(60), cpu(2));
    let losses = |config: &TrainConfig| {
        let (home, mut watch) = (tempfile::tempdir().unwrap(), Watch::default());
        run(&model_config, &data, config, home.path(), &cpu, &mut watch).unwrap();
        watch.losses
    };
    let float = TrainConfig { optimizer: Optimizer::Muon, ..config(10) };
    let begins = TrainConfig { qat: Some(Qat::default()), float_fraction: 0.6, ..float.clone() };
    let (float, begun) = (losses(&float), losses(&begins));
    assert_eq!(float[..6], begun[..6]);
    assert!(float[6..].iter().zip(&begun[6..]).all(|(a, b)| a != b), "{float:?} {begun:?}");
    // A run that was interrupted on either side of the change ends with the same bits.
    let whole = tempfile::tempdir().unwrap();
    run(&model_config, &data, &begins, whole.path(), &cpu, &mut Watch::default()).unwrap();
    for stop in [3, 8] {
        let home = tempfile::tempdir().unwrap();
        let mut watch = Watch { stop_after: Some(stop), ..Watch::default() };
        run(&model_config, &data, &begins, home.path(), &cpu, &mut watch).unwrap();
        run(&model_config, &data, &begins, home.path(), &cpu, &mut Watch::default()).unwrap();
        assert!(weights(whole.path()) == weights(home.path()), "stopped after {stop}");
    }
    let wrong = TrainConfig { float_fraction: 0.5, ..config(10) };
    let refused = run(&model_config, &data, &wrong, whole.path(), &cpu, &mut Watch::default()).unwrap_err();
    assert!(refused.kind == Kind::Usage && refused.message.contains("`float_fraction` is for runs with `qat`"));
}

#[test]
fn rates_stay_and_go_down_in_a_line() {
    let config = TrainConfig { schedule: Schedule::Wsd, decay_fraction: 0.25, learning_rate: 1.0, ..config(100) };
    let rates: Vec<f32> = [0, 1, 2, 74, 75, 76, 99].map(|step| config.rate(step, 100)).into();
    assert_eq!(rates, [0.5, 1.0, 1.0, 1.0, 1.0, 0.96, 0.04]);
}
