//! Weights that leave the range of 16-bit numbers: a network whose matrices are large and small in turns, so that it computes the
//! same, gives the same logits under every recipe and with every cache; what is not finite shows.

mod common;

use common::*;
use lowbit_kernels::ops::CacheKind;
use lowbit_model::arch::decoder;
use lowbit_model::checkpoint::{Options, save_masters};
use lowbit_model::exec::Activation;
use lowbit_model::recipe::{RECIPES, Recipe};
use lowbit_model::{Checkpoint, Config, Session, Tokenizer};
use std::sync::Arc;

fn config() -> Config {
    Config::Decoder(decoder::Config { sub_norm: false, hidden_act: Activation::Silu, ..decoder(LM) })
}

/// Masters whose values and gated inputs are `factor` times as large, and whose matrices behind them as small.
fn opened(factor: f32) -> (tempfile::TempDir, Checkpoint) {
    let (directory, config) = (tempfile::tempdir().expect("a directory"), config());
    let mut masters = masters(&config);
    for (spec, values) in &mut masters {
        let of = |names: [&str; 2]| names.iter().any(|name| spec.name.contains(name));
        let by = match () {
            () if of(["v_proj", "up_proj"]) => factor,
            () if of(["o_proj", "down_proj"]) => 1.0 / factor,
            () => 1.0,
        };
        values.iter_mut().for_each(|v| *v *= by);
    }
    let params = masters.iter().map(|(spec, values)| (spec, &values[..]));
    save_masters(directory.path(), &model_config(config), Some(&Tokenizer::bytes()), params).expect("written");
    let checkpoint = Checkpoint::open(directory.path()).expect("valid");
    (directory, checkpoint)
}

fn logits(checkpoint: &Checkpoint, recipe: &'static Recipe, kind: CacheKind) -> Vec<f32> {
    let options: Options = checkpoint.parameters().params().iter().map(|p| (p.name.clone(), outliers())).collect();
    let model = Arc::new(checkpoint.model_as(recipe, &options).expect("quantizes"));
    let mut session = Session::with_cache(model, cpu(), 64, kind);
    let tokens: Vec<u32> = "The quick brown fox".bytes().map(u32::from).collect();
    session.feed(&tokens).expect("fits");
    session.feed(&[33]).expect("fits").to_vec()
}

fn outliers() -> lowbit_kernels::QuantizeOptions {
    lowbit_kernels::QuantizeOptions { outlier_columns: vec![3], ..Default::default() }
}

#[test]
fn the_size_of_weights_changes_nothing() {
    let (_plain, base) = opened(1.0);
    for factor in [1e6, 1e-7, 2f32.powi(21), 2f32.powi(-40)] {
        let (_scaled, changed) = opened(factor);
        for recipe in RECIPES {
            for (name, kind) in CacheKind::ALL {
                let [wanted, found] = [&base, &changed].map(|checkpoint| logits(checkpoint, recipe, kind));
                // What is no power of two rounds otherwise, and LLM.int8() has other outliers: that moves a few codes, where lost
                // range leaves nothing.
                let exact = factor.to_bits() << 9 == 0 && !recipe.keeps_outliers().expect("known");
                let most = if exact { 1e-5 } else { 0.25 };
                let off = distance(&wanted, &found);
                assert!(off <= most, "{} with {name} keys and values, x {factor:e}: {off}", recipe.name);
            }
        }
    }
}
