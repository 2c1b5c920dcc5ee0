//! Runs that begin from a model: new heads, low-rank updates, frozen parameters, and the choice of the best weights.

mod common;

use common::*;
use lowbit_model::exec::Batch;
use lowbit_model::source::Role;
use lowbit_model::{Checkpoint, Config, ModelConfig, checkpoint::save_masters};
use lowbit_train::{
    BatchTargets, Control, Data, Job, Lora, Network, Observer, Pass, Qat, StepMetrics, TrainConfig, Validation, train,
};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

/// A directory with a drawn network.
fn drawn(config: &Config) -> (tempfile::TempDir, Checkpoint) {
    let home = tempfile::tempdir().unwrap();
    let network = Network::new(&cpu(1), config, 5, None).unwrap();
    let params = network.params().iter().map(|p| (&p.spec, p.master().unwrap()));
    save_masters(home.path(), &model_config(config.clone()), None, params).unwrap();
    let checkpoint = Checkpoint::open(home.path()).unwrap();
    (home, checkpoint)
}

fn values(checkpoint: &Checkpoint) -> BTreeMap<String, (Role, Vec<f32>)> {
    let params = checkpoint.parameters().params().iter();
    params.map(|spec| (spec.name.clone(), (spec.role, checkpoint.master(spec).unwrap()))).collect()
}

fn settings() -> TrainConfig {
    TrainConfig { steps: Some(30), batch_size: 8, learning_rate: 0.02, ..TrainConfig::default() }
}

/// Trains into a directory; the masters that come out.
fn run(from: &Checkpoint, to: &Config, config: &TrainConfig, home: &Path) -> BTreeMap<String, (Role, Vec<f32>)> {
    let (model_config, data) = (model_config(to.clone()), Majority::new(40));
    let job = Job {
        model_config: &model_config,
        tokenizer: None,
        from: Some(from),
        teacher: None,
        data: &data,
        validation: None,
        config,
    };
    train(&job, home, &cpu(2), &mut ()).unwrap_or_else(|e| panic!("{e}"));
    values(&Checkpoint::open(home).unwrap())
}

#[test]
fn a_classifier_begins_from_a_language_model() {
    let lm = gpt(json!({}));
    let classifier = gpt(json!({"head": {"classify": {"classes": 3, "pooling": "last"}}}));
    let (_home, from) = drawn(&lm);
    let start = values(&from);
    let home = tempfile::tempdir().unwrap();
    let config = TrainConfig { freeze: vec![Role::Embedding, Role::Norm, Role::Body, Role::Bias], ..settings() };
    let out = run(&from, &classifier, &config, home.path());
    for (name, (role, values)) in &out {
        match start.get(name) {
            Some((_, before)) => assert_eq!(values, before, "{name} of role {role:?} stays"),
            None => assert!(name.starts_with("classifier."), "{name} is new"),
        }
    }
    assert!(out["classifier.weight"].1.iter().any(|v| *v != 0.0));
    // Without freezing, all changes.
    let home = tempfile::tempdir().unwrap();
    let out = run(&from, &classifier, &settings(), home.path());
    assert!(start.iter().all(|(name, (_, before))| out[name].1 != *before));
}

/// A network that was trained in full precision gets the norms that make it ternary, and keeps all else.
#[test]
fn sub_norms_are_new_where_a_model_has_none() {
    let head = json!({"head": {"classify": {"classes": 3, "pooling": "first"}}});
    let with = |mut changes: serde_json::Value| {
        changes["sub_norm"] = true.into();
        changes
    };
    for (plain, normed) in [
        (encoder(head.clone()), encoder(with(head.clone()))),
        (gpt(head.clone()), gpt(with(head))),
        (bitnet(CLASSIFY, json!({"sub_norm": false})), bitnet(CLASSIFY, json!({"sub_norm": true}))),
    ] {
        let (_home, from) = drawn(&plain);
        let (start, home) = (values(&from), tempfile::tempdir().unwrap());
        let freeze = vec![Role::Embedding, Role::Body, Role::Head, Role::Bias, Role::Norm];
        let out = run(&from, &normed, &TrainConfig { freeze, qat: Some(Qat::default()), ..settings() }, home.path());
        let new: Vec<&String> = out.keys().filter(|name| !start.contains_key(*name)).collect();
        assert!(new.len() == 4 && new.iter().all(|name| name.contains("_sub_norm.")), "{new:?}");
        assert!(new.iter().all(|name| out[*name].1.iter().any(|v| *v != 1.0)), "new norms are trained");
        assert!(start.iter().all(|(name, before)| out[name] == *before), "what a model has is taken");
    }
}

#[test]
fn low_rank_updates_change_matrices_by_their_rank() {
    let classifier = encoder(json!({"pooler": "tanh", "head": {"classify": {"classes": 3, "pooling": "first"}}}));
    let embed = encoder(json!({"pooler": "tanh", "head": {"embed": {"pooling": "mean", "normalize": true}}}));
    let (_home, from) = drawn(&embed);
    let start = values(&from);
    for (base, qat) in [(None, None), (None, Some(Qat::default())), (Some("nf4".to_string()), None)] {
        let lora = Lora { rank: 1, alpha: 2.0, base: base.clone() };
        let config = TrainConfig { lora: Some(lora), qat, ..settings() };
        let home = tempfile::tempdir().unwrap();
        let out = run(&from, &classifier, &config, home.path());
        for (name, (role, before)) in &start {
            let (spec, after) = (from.parameters().params().iter().find(|s| s.name == *name).unwrap(), &out[name].1);
            if *role != Role::Body {
                assert_eq!(after, before, "{name} stays");
                continue;
            }
            let change: Vec<f32> = after.iter().zip(before).map(|(a, b)| a - b).collect();
            assert!(change.iter().any(|v| v.abs() > 1e-4), "{name} changes");
            // A matrix of rank 1 has no minor of two rows and columns; a rounded base adds its own difference.
            let minor = |[i, j]: [usize; 2]| {
                let at = |r: usize, c: usize| f64::from(change[r * spec.cols + c]);
                (at(0, 0) * at(i, j) - at(0, j) * at(i, 0)).abs()
            };
            let most = change.iter().fold(0f64, |m, v| m.max(f64::from(*v).powi(2)));
            let worst = (1..spec.rows).flat_map(|i| (1..spec.cols).map(move |j| [i, j])).map(minor).fold(0.0, f64::max);
            assert_eq!(worst <= 1e-3 * most, base.is_none(), "{name}: {worst} of {most}, base {base:?}");
        }
        // The head and the pooler are new, and trained in full.
        assert!(
            ["classifier.weight", "classifier.bias", "pooler.weight", "pooler.bias"]
                .iter()
                .all(|n| out.contains_key(*n))
        );
    }
}

/// Gradients of the factors against central differences of the loss.
#[test]
fn gradients_of_factors_follow_finite_differences() {
    let config = gpt(json!({"head": {"classify": {"classes": 3, "pooling": "last"}}}));
    let mut network = Network::new(&cpu(2), &config, 3, None).unwrap();
    let name = "model.layers.0.mlp.up_proj.weight";
    network.tape.params.adapt(name, &Lora { rank: 2, alpha: 3.0, base: None }, 9);
    let mut numbers = Numbers(4);
    let b = format!("{name}.lora_b");
    let drawn: Vec<f32> = (0..network.params().by_name(&b).unwrap().len()).map(|_| numbers.float()).collect();
    network.tape.params.set(&b, &drawn).unwrap();
    let (batch, targets) = (ragged(&[4, 1, 6], 19, 2), [0u32, 2, 1]);
    let loss = |network: &mut Network, seed: bool| {
        let logits = network.forward(&batch, Pass::Train(1));
        let loss = network.tape.cross_entropy(&logits, &targets, 0.0, if seed { 1.0 } else { 0.0 });
        drop(logits);
        if seed {
            network.tape.backward();
        }
        loss
    };
    loss(&mut network, true);
    for end in ["lora_a", "lora_b"] {
        let factor = format!("{name}.{end}");
        let id = network.params().ids().find(|id| network.params().get(*id).spec.name == factor).unwrap();
        let gradient = network.tape.gradient(id).expect("a gradient").to_vec();
        let start = network.params().get(id).values().into_owned();
        for at in [0, 3, start.len() - 1] {
            let mut side = |step: f32| {
                let mut moved = start.clone();
                moved[at] += step;
                network.tape.params.set(&factor, &moved).unwrap();
                loss(&mut network, false)
            };
            let slope = (side(0.01) - side(-0.01)) / 0.02;
            assert!(
                (slope - f64::from(gradient[at])).abs() < 2e-3,
                "{factor} {at}: {} instead of {slope}",
                gradient[at]
            );
        }
        network.tape.params.set(&factor, &start).unwrap();
    }
    // The matrix below has none.
    let id = network.params().ids().find(|id| network.params().get(*id).spec.name == name).unwrap();
    assert!(network.tape.gradient(id).is_none());
}

#[test]
fn what_cannot_be_done_is_said() {
    let config = gpt(json!({"head": {"classify": {"classes": 3, "pooling": "last"}}}));
    let (_home, from) = drawn(&config);
    let (model_config, data) = (model_config(config.clone()), Majority::new(40));
    let refused = |config: &TrainConfig, from: Option<&Checkpoint>| {
        let home = tempfile::tempdir().unwrap();
        let job = Job {
            model_config: &model_config,
            tokenizer: None,
            from,
            teacher: None,
            data: &data,
            validation: None,
            config,
        };
        train(&job, home.path(), &cpu(1), &mut ()).map(|_| ()).expect_err("refused").to_string()
    };
    let lora = |lora: Lora, qat| TrainConfig { lora: Some(lora), qat, ..settings() };
    for (config, from, words) in [
        (lora(Lora::default(), None), None, "`lora` is for a run that begins from a model"),
        (TrainConfig { freeze: vec![Role::Body], ..settings() }, None, "`freeze` is for a run"),
        (lora(Lora { rank: 0, ..Lora::default() }, None), Some(&from), "`lora.rank` is 0"),
        (lora(Lora { alpha: -1.0, ..Lora::default() }, None), Some(&from), "`lora.alpha` is -1"),
        (lora(Lora { base: Some("nf5".into()), ..Lora::default() }, None), Some(&from), "nf4"),
        (
            lora(Lora { base: Some("nf4".into()), ..Lora::default() }, Some(Qat::default())),
            Some(&from),
            "`lora.base` is nf4",
        ),
    ] {
        let found = refused(&config, from);
        assert!(found.contains(words), "{found}");
    }
    let short = gpt(json!({"max_position_embeddings": 10, "head": {"classify": {"classes": 3, "pooling": "last"}}}));
    let model_config = common::model_config(short);
    let job = Job {
        model_config: &model_config,
        tokenizer: None,
        from: None,
        teacher: None,
        data: &data,
        validation: None,
        config: &settings(),
    };
    let home = tempfile::tempdir().unwrap();
    let found = train(&job, home.path(), &cpu(1), &mut ()).map(|_| ()).expect_err("too long").to_string();
    assert!(found.contains("has 10 positions; lower `max_length`"), "{found}");
}

/// Validation rows of which no network knows the class: the accuracy goes up and down.
struct Noise(Majority);

impl Data for Noise {
    fn len(&self) -> usize {
        self.0.rows.len()
    }

    fn fill(&self, rows: &[usize], batch: &mut Batch, targets: &mut BatchTargets) {
        self.0.fill(rows, batch, targets);
        targets.classes().extend(rows.iter().map(|row| (*row as u32 * 7 + 1) % 3));
    }

    fn fingerprint(&self) -> String {
        "noise".into()
    }
}

#[derive(Default)]
struct Looks {
    seen: Vec<(u64, Validation)>,
    stop_at: Option<u64>,
}

impl Observer for Looks {
    fn step(&mut self, metrics: &StepMetrics, _: u64) -> Control {
        if self.stop_at == Some(metrics.step) { Control::Stop } else { Control::Continue }
    }

    fn validated(&mut self, step: u64, validation: &Validation) {
        self.seen.push((step, validation.clone()));
    }
}

#[test]
fn the_best_weights_are_the_result_also_after_a_stop() {
    let model_config: ModelConfig = model_config(mlp(json!({})));
    let (data, validation) = (Majority::new(40), Noise(Majority::new(25)));
    let config = TrainConfig { evaluate_every: 3, save_every: 4, learning_rate: 0.1, ..settings() };
    let job = Job {
        model_config: &model_config,
        tokenizer: None,
        from: None,
        teacher: None,
        data: &data,
        validation: Some(&validation),
        config: &config,
    };
    let (whole, mut looks) = (tempfile::tempdir().unwrap(), Looks::default());
    let outcome = train(&job, whole.path(), &cpu(2), &mut looks).unwrap();
    assert_eq!(
        looks.seen.iter().map(|(step, _)| *step).collect::<Vec<_>>(),
        (1..=10).map(|i| 3 * i).collect::<Vec<_>>()
    );
    let (step, best) = outcome.best.clone().expect("looked at");
    assert!(step < 30, "a test in which the last weights are not the best: {:?}", looks.seen);
    assert!(looks.seen.iter().all(|(_, v)| v.accuracy <= best.accuracy) && best.count == 25);
    // The same accuracy when the weights that were written are asked again.
    let written = Checkpoint::open(whole.path()).unwrap();
    let mut network = Network::new(&cpu(1), &model_config.config, 0, None).unwrap();
    for spec in written.parameters().params() {
        network.tape.params.set(&spec.name, &written.master(spec).unwrap()).unwrap();
    }
    let (mut batch, mut targets) = (Batch::default(), BatchTargets::default());
    validation.fill(&(0..25).collect::<Vec<_>>(), &mut batch, &mut targets);
    let (logits, width) = network.logits(&batch);
    let BatchTargets::Classes(targets) = targets else { unreachable!() };
    let best_class = |row: &[f32]| (0..width).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap() as u32;
    let right = logits.chunks(width).zip(&targets).filter(|(row, target)| best_class(row) == **target).count();
    assert_eq!(best.accuracy, Some(right as f64 / 25.0));
    for stop in [1, step, step + 1, 29] {
        let (parts, mut looks) = (tempfile::tempdir().unwrap(), Looks { stop_at: Some(stop), ..Looks::default() });
        train(&job, parts.path(), &cpu(1), &mut looks).unwrap();
        let resumed = train(&job, parts.path(), &cpu(2), &mut Looks::default()).unwrap();
        assert_eq!((resumed.best.as_ref(), resumed.resumed_from), (outcome.best.as_ref(), Some(stop)));
        let bytes = |home: &Path| std::fs::read(home.join("model.safetensors")).unwrap();
        assert!(bytes(parts.path()) == bytes(whole.path()), "stopped after {stop}");
    }
}
