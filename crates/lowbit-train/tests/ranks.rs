//! Training on several ranks, which are threads here: the sums, the loss of one process, stops, lost ranks.

mod common;

use common::ranks::Thread;
use common::*;
use lowbit_model::exec::Batch;
use lowbit_model::{ModelConfig, arch::Head};
use lowbit_train::{
    Alone, BatchTargets, Control, Data, Error, Job, Kind, Observer, Optimizer, Outcome, Qat, Ranks, Status,
    StepMetrics, TrainConfig, train_together,
};
use serde_json::json;
use std::fs;
use std::path::Path;

const LM: Head = Head::Lm { tied: false };

fn config(accumulation: usize) -> TrainConfig {
    TrainConfig {
        steps: Some(50),
        batch_size: 3,
        accumulation,
        optimizer: Optimizer::Muon,
        learning_rate: 3e-3,
        warmup_steps: 5,
        weight_decay: 0.01,
        ..TrainConfig::default()
    }
}

/// Remembers the losses, and stops after a step.
#[derive(Default)]
struct Watch {
    stop_after: Option<u64>,
    losses: Vec<f64>,
}

impl Observer for Watch {
    fn step(&mut self, metrics: &StepMetrics, _steps: u64) -> Control {
        self.losses.push(metrics.loss);
        if self.stop_after == Some(metrics.step) { Control::Stop } else { Control::Continue }
    }
}

fn run(
    (model_config, data, config): (&ModelConfig, &dyn Data, &TrainConfig),
    directory: &Path,
    watch: &mut Watch,
    ranks: &dyn Ranks,
) -> Result<Outcome, Error> {
    let job = Job { model_config, tokenizer: None, from: None, teacher: None, data, validation: None, config };
    train_together(&job, directory, &cpu(1), watch, ranks)
}

/// Losses of a run on so many ranks, which all see the same.
fn losses(job: (&ModelConfig, &(dyn Data + Sync), &TrainConfig), directory: &Path, ranks: usize) -> Vec<f64> {
    let (model, data, config) = job;
    let mut all = Thread::all(ranks, |rank| {
        let mut watch = Watch::default();
        // Only the first rank has the directory.
        let place = if rank.rank() == 0 { directory } else { Path::new("/nowhere") };
        let outcome = run((model, data, config), place, &mut watch, &rank).unwrap();
        assert_eq!(outcome.status, Status::Finished);
        watch.losses
    });
    assert!(all.iter().all(|losses| *losses == all[0]), "{all:?}");
    all.swap_remove(0)
}

fn weights(directory: &Path) -> Vec<u8> {
    fs::read(directory.join("model.safetensors")).unwrap()
}

/// Largest difference of two curves.
fn apart(one: &[f64], other: &[f64]) -> f64 {
    assert_eq!(one.len(), other.len());
    one.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn sums_are_added_in_the_order_of_the_ranks() {
    // Sizes that no number of ranks divides; the last ones fill more than one exchange.
    for sizes in [&[5, 0, 1, 1000][..], &[3], &[], &[1 << 22, 7, (1 << 21) + 3]] {
        for size in [1, 2, 3, 4] {
            let value = |rank: usize, i: usize| (1.0 + rank as f32) / (1.0 + (i * 7919 % 10_007) as f32);
            let found = Thread::all(size, |rank| {
                let mut at = 0;
                let part = |len: &usize| {
                    at += len;
                    (at - len..at).map(|i| value(rank.rank(), i)).collect::<Vec<f32>>()
                };
                let mut parts: Vec<Vec<f32>> = sizes.iter().map(part).collect();
                let mut slices: Vec<&mut [f32]> = parts.iter_mut().map(Vec::as_mut_slice).collect();
                rank.sum(&mut slices).unwrap();
                parts.concat()
            });
            for found in found {
                let expected = |i| (1..size).fold(value(0, i), |sum, rank| sum + value(rank, i));
                assert!(found.iter().enumerate().all(|(i, found)| *found == expected(i)), "{sizes:?} on {size}");
            }
        }
    }
}

#[test]
fn numbers_and_values_of_all_ranks_meet() {
    Thread::all(3, |rank| {
        let own = rank.rank();
        let mut numbers = [own as f64, 10.0];
        rank.sums(&mut numbers).unwrap();
        assert_eq!(numbers, [3.0, 30.0]);
        assert!(rank.any(own == 2).unwrap() && !rank.any(false).unwrap());
        assert_eq!(rank.differs(u64::MAX - 1).unwrap(), None);
        assert_eq!(rank.differs(if own == 1 { 1 << 40 } else { 2 << 40 }).unwrap(), Some(1));
        let (mut one, mut other) = ([own as f32; 3], [f32::NAN; 2]);
        other[1] = -(own as f32);
        rank.spread(&mut [&mut one, &mut other]).unwrap();
        assert!(one == [0.0; 3] && other[0].is_nan() && other[1] == 0.0);
    });
    let mut numbers = [1.5, 2.0];
    Alone.sums(&mut numbers).unwrap();
    assert_eq!((numbers, Alone.any(true).unwrap(), Alone.differs(3).unwrap()), ([1.5, 2.0], true, None));
}

#[test]
fn several_ranks_have_the_losses_of_one_process() {
    let data = Counting { rows: 41 };
    let language = |changes| model_config(bitnet(LM, changes));
    let (plain, dropout) = (language(json!({})), language(json!({"dropout": 0.1})));
    let qat = Some(Qat::default());
    // Of so small a network one weight that goes to the other side of a border of ternary values shows in the loss, after some updates.
    for (model, qat, ranks, alike) in [
        (&plain, None, 2, 50),
        (&plain, None, 4, 50),
        (&dropout, None, 4, 50),
        (&plain, qat, 2, 50),
        (&plain, qat, 4, 40),
    ] {
        let own = TrainConfig { qat, ..config(ranks) };
        let home = || tempfile::tempdir().unwrap();
        let (alone, together, again) = (home(), home(), home());
        let expected = losses((model, &data, &own), alone.path(), 1);
        let found = losses((model, &data, &own), together.path(), ranks);
        assert!(expected[49] < 0.8 * expected[0], "{expected:?}");
        assert!(apart(&found[..alike], &expected[..alike]) < 1e-5, "{ranks} ranks: {found:?} {expected:?}");
        assert!(apart(&found, &expected) < 2e-2, "{ranks} ranks: {found:?} {expected:?}");
        // One process with a larger batch has other masks of dropout.
        if model.config == plain.config && alike == 50 {
            let large = TrainConfig { batch_size: 3 * ranks, accumulation: 1, ..own.clone() };
            let expected = losses((model, &data, &large), home().path(), 1);
            assert!(apart(&found, &expected) < 1e-5, "{ranks} ranks: {found:?} {expected:?}");
        }
        losses((model, &data, &own), again.path(), ranks);
        assert!(weights(together.path()) == weights(again.path()), "{ranks} ranks give the same bits again");
    }
}

#[test]
fn token_dropout_and_more_batches_are_divided() {
    let (model, data) = (model_config(mlp(json!({}))), Majority::new(31));
    let own =
        TrainConfig { token_dropout: 0.2, steps: None, epochs: Some(9.0), optimizer: Optimizer::Adamw, ..config(4) };
    let home = || tempfile::tempdir().unwrap();
    let expected = losses((&model, &data, &own), home().path(), 1);
    assert_eq!(expected.len(), 24, "9 passes over 31 rows, 12 per update");
    assert!(apart(&losses((&model, &data, &own), home().path(), 2), &expected) < 1e-5);
}

/// Images of noise, brighter in one half.
struct Halves;

impl Data for Halves {
    fn len(&self) -> usize {
        24
    }

    fn fill(&self, rows: &[usize], batch: &mut Batch, targets: &mut BatchTargets) {
        batch.refill([]);
        let targets = targets.classes();
        for &row in rows {
            let mut numbers = Numbers(row as u64);
            batch.push_features((0..144).map(|i| numbers.float() + f32::from(u8::from(i / 72 == row % 2))));
            targets.push(row as u32 % 2);
        }
    }

    fn fingerprint(&self) -> String {
        "halves".into()
    }
}

#[test]
fn running_statistics_are_the_same_on_all_ranks() {
    let network = json!({
        "architecture": "lenet", "image": [12, 12, 1], "features": 144, "widths": [4, 4, 8, 8], "hidden_act": "relu",
        "batch_norm": true, "classes": 2,
    });
    let model = model_config(serde_json::from_value(network).unwrap());
    let own = TrainConfig { optimizer: Optimizer::Adamw, steps: Some(12), save_every: 4, ..config(2) };
    let home = || tempfile::tempdir().unwrap();
    let expected = losses((&model, &Halves, &own), home().path(), 1);
    // Each save compares the weights of all ranks.
    assert!(apart(&losses((&model, &Halves, &own), home().path(), 2), &expected) < 1e-5);
}

#[test]
fn a_stop_of_one_rank_is_one_of_all_and_the_run_goes_on() {
    let (model, data, own) = (model_config(bitnet(LM, json!({}))), Counting { rows: 41 }, config(4));
    let home = || tempfile::tempdir().unwrap();
    let (whole, parts, mixed) = (home(), home(), home());
    let expected = losses((&model, &data, &own), whole.path(), 2);
    for place in [parts.path(), mixed.path()] {
        let stopped = Thread::all(2, |rank| {
            let mut watch = Watch { stop_after: (rank.rank() == 1).then_some(20), ..Watch::default() };
            let outcome = run((&model, &data, &own), place, &mut watch, &rank).unwrap();
            (outcome.status, outcome.step)
        });
        assert_eq!(stopped, [(Status::Interrupted, 20); 2]);
    }
    let rest = losses((&model, &data, &own), parts.path(), 2);
    assert_eq!(rest, expected[20..]);
    assert!(weights(parts.path()) == weights(whole.path()));
    // A run goes on with another number of ranks, up to rounding.
    assert!(apart(&losses((&model, &data, &own), mixed.path(), 4), &expected[20..]) < 1e-5);
}

#[test]
fn a_lost_rank_leaves_a_state_to_go_on_from() {
    let (model, data) = (model_config(bitnet(LM, json!({}))), Counting { rows: 41 });
    let own = TrainConfig { save_every: 10, ..config(2) };
    let (whole, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = losses((&model, &data, &own), whole.path(), 2);
    let errors = Thread::all(2, |rank| {
        let rank = if rank.rank() == 1 { rank.lost_after(150) } else { rank };
        run((&model, &data, &own), home.path(), &mut Watch::default(), &rank).unwrap_err()
    });
    assert!(errors.iter().all(|error| error.kind == Kind::Internal && error.message == "a rank is lost"), "{errors:?}");
    let rest = losses((&model, &data, &own), home.path(), 2);
    assert!(rest.len() < 50 && rest.len().is_multiple_of(10), "{} updates were left", rest.len());
    assert_eq!(rest, expected[50 - rest.len()..]);
    assert!(weights(home.path()) == weights(whole.path()));
}

#[test]
fn ranks_of_different_runs_are_refused() {
    let (model, data) = (model_config(bitnet(LM, json!({}))), Counting { rows: 41 });
    let home = tempfile::tempdir().unwrap();
    let errors = Thread::all(2, |rank| {
        let own = TrainConfig { seed: rank.rank() as u64, ..config(2) };
        run((&model, &data, &own), home.path(), &mut Watch::default(), &rank).unwrap_err()
    });
    for error in errors {
        assert!(
            error.kind == Kind::Usage && error.message.starts_with("rank 1 was started for another run"),
            "{error}"
        );
    }
    let errors =
        Thread::all(2, |rank| run((&model, &data, &config(3)), home.path(), &mut Watch::default(), &rank).unwrap_err());
    for error in errors {
        assert!(error.kind == Kind::Usage && error.message.contains("`accumulation` is 3"), "{error}");
    }
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "nothing was begun");
}
