//! Training of codes and scales after quantization.

mod common;

use common::*;
use lowbit_model::arch::Head;
use lowbit_model::calibrate::{Method, Quantized, quantize};
use lowbit_model::checkpoint::{save_masters, save_quantized};
use lowbit_model::exec::Batch;
use lowbit_model::source::Source;
use lowbit_model::{Checkpoint, Config, CpuExec, Param as Stored, Recipe, recipe};
use lowbit_train::{Kind, Network, Param, Precision, Tuning, tune};
use serde_json::json;
use std::path::Path;

const VOCABULARY: u32 = 61;

fn network(head: Head) -> Config {
    bitnet(
        head,
        json!({ "hidden_size": 48, "head_dim": 12, "intermediate_size": 80, "sub_norm": false, "vocab_size": VOCABULARY }),
    )
}

fn language() -> Config {
    network(serde_json::from_value(json!({ "lm": { "tied": true } })).unwrap())
}

/// Masters of drawn weights, large enough for answers that differ.
fn masters(at: &Path, config: &Config) -> Checkpoint {
    let network = Network::new(&cpu(1), config, 5, None).unwrap();
    let large =
        |p: &Param| p.values().iter().map(|v| if p.spec.name.contains("classifier") { 8.0 * v } else { *v }).collect();
    let values: Vec<Vec<f32>> = network.params().iter().map(large).collect();
    let params = network.params().iter().zip(&values).map(|(p, values)| (&p.spec, &values[..]));
    save_masters(at, &model_config(config.clone()), None, params).unwrap();
    Checkpoint::open(at).unwrap()
}

fn text(seed: u64) -> Batch {
    ragged(&[9, 12, 7, 12, 10, 12, 11, 8, 12, 6, 12, 9, 12, 12, 5, 12], VOCABULARY, seed)
}

fn rounded(masters: &Checkpoint, recipe: &'static Recipe, batch: &Batch) -> Quantized {
    let method = Method::find("trained").unwrap();
    quantize(masters, recipe, method, batch, &cpu(2), &mut |_, _| ()).unwrap().0
}

fn tuning(steps: u64) -> Tuning {
    Tuning { steps, tokens: 80, learning_rate: 0.03, precision: Precision::F32, seed: 1 }
}

/// Mean divergence of the answers of a directory from those of the masters, nats.
fn divergence(directory: &Path, masters: &Checkpoint, batch: &Batch, width: usize) -> f64 {
    let answers = |checkpoint: &Checkpoint| {
        let mut exec = CpuExec::new(cpu(2));
        exec.forward(&checkpoint.model().unwrap(), batch).unwrap().to_vec()
    };
    let (want, found) = (answers(masters), answers(&Checkpoint::open(directory).unwrap()));
    let logs = |row: &[f32]| {
        let total = row.iter().map(|v| f64::from(*v).exp()).sum::<f64>().ln();
        row.iter().map(|v| f64::from(*v) - total).collect::<Vec<f64>>()
    };
    let rows = want.chunks_exact(width).zip(found.chunks_exact(width));
    let of = |(want, found): (&[f32], &[f32])| {
        logs(want).iter().zip(logs(found)).map(|(want, found)| want.exp() * (want - found)).sum::<f64>()
    };
    let rows: Vec<f64> = rows.map(of).collect();
    rows.iter().sum::<f64>() / rows.len() as f64
}

#[test]
fn training_brings_answers_nearer_on_other_rows_and_is_stored_as_it_was() {
    for (config, name) in [
        (language(), "int2_g64+embed=int3_g64+head=int3_g64+act=f32+head_act=f32"),
        (language(), "q3_k+embed=q4_k+head=q4_k+act=f32+head_act=f32"),
        (network(CLASSIFY), "int2_g64+act=f32+head_act=f32"),
        (network(CLASSIFY), "q4_1+layers.0=ternary+act=f32+head_act=f32"),
    ] {
        let home = tempfile::tempdir().unwrap();
        let masters = masters(&home.path().join("m"), &config);
        let recipe = recipe::find(name).unwrap();
        let (batch, other) = (text(1), text(2));
        let width = config.classes().unwrap_or(VOCABULARY as usize);
        let before = home.path().join("before");
        save_quantized(&masters, recipe, &mut rounded(&masters, recipe, &batch), &before).unwrap();
        let many: Vec<Batch> = (1..13).map(|seed| text(seed * 10)).collect();
        let mut seen = 0;
        let mut progress = |done, all, loss: f64| {
            seen += 1;
            assert!(done == seen && all == 60 && loss.is_finite());
        };
        let start = rounded(&masters, recipe, &batch);
        let (mut tuned, told) = tune(&masters, start, &many, &tuning(60), &cpu(2), &mut progress).unwrap();
        assert!(told.is_better() && (config.classes().is_some() || told.after < 0.9 * told.before), "{name}: {told:?}");
        let after = home.path().join("after");
        save_quantized(&masters, recipe, &mut tuned, &after).unwrap();
        // What is stored is the network whose loss was told.
        let stored = divergence(&after, &masters, many.last().unwrap(), width);
        assert!((stored - told.after).abs() < 0.3 * told.after, "{name}: {stored} stored, {told:?}");
        let [before, after] = [before, after].map(|at| divergence(&at, &masters, &other, width));
        // A hundred answers of a random network tell nothing of others.
        assert!(after < 0.9 * before || config.classes().is_some(), "{name}: {after} after {before}");
    }
}

#[test]
fn threads_do_not_change_what_is_trained() {
    let home = tempfile::tempdir().unwrap();
    let config = language();
    let masters = masters(home.path(), &config);
    let recipe = recipe::find("int3_g32+embed=int2_g64+head=int2_g64").unwrap();
    let batch = text(1);
    let parts = [1, 3].map(|threads| {
        let start = rounded(&masters, recipe, &batch);
        let batches = [text(3), text(4)];
        let (mut tuned, told) = tune(&masters, start, &batches, &tuning(4), &cpu(threads), &mut |_, _, _| ()).unwrap();
        let mut all = Vec::new();
        for spec in masters.parameters().params() {
            match tuned.param(spec).unwrap() {
                Stored::Vector(values) => all.push(values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()),
                Stored::Matrix { packed, .. } => all.extend(packed.parts().iter().map(|part| part.to_vec())),
            }
        }
        (all, told)
    });
    assert!(parts[0] == parts[1]);
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let config = language();
    let masters = masters(home.path(), &config);
    let batch = text(1);
    let refusal = |name: &str, tuning: &Tuning| {
        let start = rounded(&masters, recipe::find(name).unwrap(), &batch);
        let error =
            tune(&masters, start, std::slice::from_ref(&batch), tuning, &cpu(1), &mut |_, _, _| ()).err().unwrap();
        assert_eq!(error.kind, Kind::Usage, "{error}");
        error.to_string()
    };
    assert!(
        refusal("ternary+head=nf4+embed=nf4", &tuning(2)).contains("no matrix is in a format of integers in groups")
    );
    assert!(refusal("int3_g64+rotate=hadamard", &tuning(2)).contains("rotate"));
    // What grows worse is given up.
    let start = rounded(&masters, recipe::find("int3_g64").unwrap(), &batch);
    let wild = Tuning { learning_rate: 1.0, ..tuning(3) };
    let (mut kept, told) =
        tune(&masters, start.clone(), std::slice::from_ref(&batch), &wild, &cpu(1), &mut |_, _, _| ()).unwrap();
    assert!(!told.is_better(), "{told:?}");
    let (mut start, spec) = (start, &masters.parameters().params()[2]);
    let bytes = |param: Stored| match param {
        Stored::Vector(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Stored::Matrix { packed, .. } => packed.parts().iter().flat_map(|part| part.to_vec()).collect(),
    };
    let (kept, start): (Vec<u8>, Vec<u8>) = (bytes(kept.param(spec).unwrap()), bytes(start.param(spec).unwrap()));
    assert!(kept == start);
    assert!(refusal("int3_g64", &tuning(0)).contains("`steps` is 0"));
    assert!(refusal("int3_g64", &Tuning { learning_rate: 0.0, ..tuning(2) }).contains("`learning_rate` is 0"));
}
