//! Learning from a teacher: losses and gradients against PyTorch in f64 (`tools/golden/distill.py`), and runs.

mod common;

use common::*;
use lowbit_model::exec::{Batch, Exec, Index};
use lowbit_model::source::{Init, ParamSpec, Role};
use lowbit_model::{Checkpoint, Config, checkpoint::save_masters};
use lowbit_train::{
    Control, Distill, Job, Kind, Network, Observer, Params, Pass, Qat, Relations, StepMetrics, Tape, Tensor,
    TrainConfig, need, train,
};
use serde_json::{Value, json};
use std::path::Path;

/// Difference relative to the largest value.
const NEAR: f64 = 2e-6;

fn golden(part: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden_distill.json");
    let all: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    all[part].as_array().unwrap().clone()
}

fn floats(value: &Value) -> Vec<f32> {
    serde_json::from_value(value.clone()).unwrap()
}

fn near(what: &str, got: &[f32], want: &Value) {
    let want = floats(want);
    let top = want.iter().fold(0f32, |m, v| m.max(v.abs()));
    let worst = got.iter().zip(&want).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(got.len() == want.len() && f64::from(worst) <= NEAR * f64::from(top), "{what}: off by {worst} of {top}");
}

fn near_loss(what: &str, got: f64, want: &Value) {
    let want = want.as_f64().unwrap();
    assert!((got - want).abs() <= NEAR * want, "{what}: {got}, not {want}");
}

/// A tape with tensors of these values, each that of a table of as many rows.
fn tensors(lengths: &[usize], width: usize, values: &[Vec<f32>]) -> (Tape, Vec<Tensor>) {
    let (tokens, mut params) = (lengths.iter().sum(), Params::default());
    let mut ids = Vec::new();
    for (i, values) in values.iter().enumerate() {
        let (name, role, init) = (format!("table {i}"), Role::Embedding, Init::Constant(0.0));
        ids.push(params.push(ParamSpec { name, rows: tokens, cols: width, role, init, positions: 1 }, values.clone()));
    }
    let mut tape = Tape::new(&cpu(2), params, None);
    let (all, mut batch): (Vec<u32>, Batch) = ((0..tokens as u32).collect(), Batch::default());
    let mut at = 0;
    for length in lengths {
        batch.push(&all[at..at + length]);
        at += length;
    }
    tape.begin(&batch, Pass::Train(0));
    let tensors = ids.iter().map(|id| tape.embed(id, Index::Tokens)).collect();
    (tape, tensors)
}

fn gradients(tape: &Tape) -> Vec<Vec<f32>> {
    tape.params.ids().map(|id| tape.gradient(id).expect("a gradient").to_vec()).collect()
}

#[test]
fn answers_are_learnt_as_in_pytorch() {
    for case in golden("logits") {
        let (student, width) = (floats(&case["student"]), case["width"].as_u64().unwrap() as usize);
        let targets: Vec<u32> = serde_json::from_value(case["targets"].clone()).unwrap();
        let temperature = case["temperature"].as_f64().unwrap() as f32;
        let (mut tape, x) = tensors(&[targets.len()], width, &[student]);
        let loss = tape.distill_logits(&x[0], &floats(&case["teacher"]), &targets, temperature, 1.0);
        let what = format!("width {width}, temperature {temperature}");
        near_loss(&what, loss, &case["loss"]);
        tape.backward();
        near(&what, &gradients(&tape)[0], &case["gradient"]);
    }
}

#[test]
fn outputs_of_blocks_are_learnt_as_in_pytorch() {
    for case in golden("outputs") {
        let (student, width) = (floats(&case["student"]), case["width"].as_u64().unwrap() as usize);
        let (tokens, factor) = (case["tokens"].as_u64().unwrap() as usize, case["factor"].as_f64().unwrap() as f32);
        let (mut tape, x) = tensors(&[student.len() / width], width, &[student]);
        let loss = tape.distill_outputs(&x[0], &floats(&case["teacher"]), tokens, factor);
        let what = format!("width {width}, factor {factor}");
        near_loss(&what, loss, &case["loss"]);
        tape.backward();
        near(&what, &gradients(&tape)[0], &case["gradient"]);
    }
}

#[test]
fn relations_are_learnt_as_in_pytorch() {
    for case in golden("relations") {
        let lengths: Vec<usize> = serde_json::from_value(case["lengths"].clone()).unwrap();
        let (width, heads) = (case["widths"][0].as_u64().unwrap(), case["heads"].as_u64().unwrap());
        let all = |name: &str| -> Vec<Vec<f32>> { case[name].as_array().unwrap().iter().map(floats).collect() };
        let (mut tape, x) = tensors(&lengths, width as usize, &all("student"));
        let (teacher, x) = (all("teacher"), [x[0].clone(), x[1].clone(), x[2].clone()]);
        let loss = tape.distill_relations(&x, [&teacher[0], &teacher[1], &teacher[2]], heads as usize, 1.0);
        let what = format!("lengths {lengths:?}");
        near_loss(&what, loss, &case["loss"]);
        tape.backward();
        for (i, gradient) in gradients(&tape).iter().enumerate() {
            near(&format!("{what}, {i}"), gradient, &case["gradients"][i]);
        }
    }
}

/// A directory with a drawn network.
fn drawn(config: &Config, seed: u64) -> (tempfile::TempDir, Checkpoint) {
    let home = tempfile::tempdir().unwrap();
    let network = Network::new(&cpu(1), config, seed, None).unwrap();
    let params = network.params().iter().map(|p| (&p.spec, p.master().unwrap()));
    save_masters(home.path(), &model_config(config.clone()), None, params).unwrap();
    let checkpoint = Checkpoint::open(home.path()).unwrap();
    (home, checkpoint)
}

#[derive(Default)]
struct Losses(Vec<(f64, f64)>, Option<u64>);

impl Observer for Losses {
    fn step(&mut self, metrics: &StepMetrics, _: u64) -> Control {
        self.0.push((metrics.loss, metrics.distillation.unwrap_or(f64::NAN)));
        if self.1 == Some(metrics.step) { Control::Stop } else { Control::Continue }
    }
}

fn settings(distill: Distill) -> TrainConfig {
    TrainConfig {
        steps: Some(40),
        batch_size: 8,
        accumulation: 2,
        learning_rate: 0.01,
        distill: Some(distill),
        ..TrainConfig::default()
    }
}

/// Networks of each kind with attention, that learn from another one of another width.
fn pairs() -> Vec<(Config, Config)> {
    let head = json!({"classify": {"classes": 3, "pooling": "last"}});
    vec![
        (
            encoder(json!({"dropout": 0.1, "sub_norm": true})),
            encoder(json!({"hidden_size": 18, "num_hidden_layers": 3})),
        ),
        (gpt(json!({"dropout": 0.1, "head": head.clone()})), gpt(json!({"hidden_size": 24, "head": head}))),
        (bitnet(CLASSIFY, json!({"causal": false})), bitnet(CLASSIFY, json!({"hidden_size": 16}))),
    ]
}

#[test]
fn a_network_comes_near_its_teacher_with_the_same_bits_however_it_runs() {
    let relations = Relations { weight: 3.0, ..Relations::default() };
    let relations = Distill { weight: 1.0, temperature: 2.0, attention: Some(relations), ..Distill::default() };
    let other = pairs().into_iter().map(|pair| (pair, relations.clone()));
    let hidden = Distill { hidden: 20.0, ..Distill::default() };
    let alike = pairs().into_iter().map(|(student, _)| ((student.clone(), student), hidden.clone()));
    for ((student, teacher), distill) in other.chain(alike) {
        let (_home, teacher) = drawn(&teacher, 9);
        let (model_config, data) = (model_config(student.clone()), Majority::new(40));
        let config = TrainConfig { qat: Some(Qat::default()), ..settings(distill) };
        let job = Job {
            model_config: &model_config,
            tokenizer: None,
            from: None,
            teacher: Some(&teacher),
            data: &data,
            validation: None,
            config: &config,
        };
        let mut losses = Losses::default();
        let home = tempfile::tempdir().unwrap();
        train(&job, home.path(), &cpu(2), &mut losses).unwrap();
        let mean = |part: &[(f64, f64)]| part.iter().map(|(_, taught)| taught).sum::<f64>() / part.len() as f64;
        let [first, last] = [mean(&losses.0[..5]), mean(&losses.0[35..])];
        assert!(last < 0.8 * first, "{first} to begin with, {last} in the end: {student:?}");
        let weights = |home: &Path| std::fs::read(home.join("model.safetensors")).unwrap();
        // With checkpoints of activations, on one thread, and interrupted.
        let again = tempfile::tempdir().unwrap();
        let config = TrainConfig { gradient_checkpointing: true, ..config.clone() };
        let job = Job { config: &config, ..job };
        train(&job, again.path(), &cpu(1), &mut Losses(Vec::new(), Some(17))).unwrap();
        train(&job, again.path(), &cpu(2), &mut ()).unwrap();
        assert!(weights(home.path()) == weights(again.path()), "{student:?}");
        // The estimate knows the teacher.
        let alone = TrainConfig { distill: None, ..config.clone() };
        assert!(need(&job).unwrap().bytes() > need(&Job { config: &alone, teacher: None, ..job }).unwrap().bytes());
    }
}

#[test]
fn a_run_goes_on_with_its_own_teacher_alone() {
    let config = encoder(json!({}));
    let ((_one, first), (_two, other)) = (drawn(&config, 1), drawn(&config, 2));
    let (model_config, data, config) = (model_config(config), Majority::new(40), settings(Distill::default()));
    let job = Job {
        model_config: &model_config,
        tokenizer: None,
        from: None,
        teacher: Some(&first),
        data: &data,
        validation: None,
        config: &config,
    };
    let home = tempfile::tempdir().unwrap();
    train(&job, home.path(), &cpu(2), &mut Losses(Vec::new(), Some(3))).unwrap();
    let error = train(&Job { teacher: Some(&other), ..job }, home.path(), &cpu(2), &mut ()).unwrap_err();
    assert!(error.kind == Kind::Input && error.message.contains("cannot resume: `teacher` is"), "{error}");
    train(&job, home.path(), &cpu(2), &mut ()).unwrap();
}

#[test]
fn teachers_that_do_not_fit_are_refused() {
    let student = encoder(json!({}));
    let good = (encoder(json!({})), Distill::default());
    let relations = |relations| Distill { attention: Some(relations), ..Distill::default() };
    for ((teacher, distill), words) in [
        (
            (encoder(json!({"head": {"classify": {"classes": 4, "pooling": "first"}}})), good.1.clone()),
            "another kind or number",
        ),
        ((encoder(json!({"vocab_size": 23})), good.1.clone()), "a vocabulary of 23, and the network one of 19"),
        ((mlp(json!({})), relations(Relations::default())), "`distill.attention` is for networks with attention"),
        (
            (good.0.clone(), relations(Relations { layer: Some(2), ..Relations::default() })),
            "`distill.attention.layer` is 2",
        ),
        (
            (good.0.clone(), relations(Relations { heads: Some(5), ..Relations::default() })),
            "`distill.attention.heads` is 5",
        ),
        (
            (encoder(json!({"num_hidden_layers": 3})), Distill { hidden: 1.0, ..good.1.clone() }),
            "has 2 blocks, 12 wide, and the teacher 3, 12 wide: leave it out",
        ),
        ((mlp(json!({})), Distill { hidden: 1.0, ..good.1.clone() }), "12 wide, and the teacher 2, 17 wide"),
        ((good.0.clone(), Distill { hidden: -1.0, ..good.1.clone() }), "`distill.hidden` is -1"),
        ((good.0.clone(), Distill { weight: 1.5, ..good.1.clone() }), "`distill.weight` is 1.5"),
        ((good.0.clone(), Distill { temperature: 0.0, ..good.1.clone() }), "`distill.temperature` is 0"),
    ] {
        let (_home, teacher) = drawn(&teacher, 1);
        let (model_config, data, config) = (model_config(student.clone()), Majority::new(40), settings(distill));
        let job = Job {
            model_config: &model_config,
            tokenizer: None,
            from: None,
            teacher: Some(&teacher),
            data: &data,
            validation: None,
            config: &config,
        };
        let home = tempfile::tempdir().unwrap();
        let error = train(&job, home.path(), &cpu(1), &mut ()).unwrap_err();
        assert!(error.kind == Kind::Usage && error.message.contains(words), "{error}");
        let error = train(&Job { teacher: None, ..job }, home.path(), &cpu(1), &mut ()).unwrap_err();
        assert!(error.kind == Kind::Usage, "{error}");
    }
}
