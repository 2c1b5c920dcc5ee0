//! Networks whose products take rotated inputs.

mod common;

use common::*;
use lowbit_model::arch::{Head, decoder};
use lowbit_model::checkpoint::{GgufTypes, Options, quantize, save_gguf};
use lowbit_model::container::gguf::find;
use lowbit_model::exec::Activation;
use lowbit_model::{Checkpoint, Config, CpuExec, Recipe, recipe};
use std::path::Path;

fn logits(model: &Checkpoint) -> Vec<f32> {
    let model = model.model().unwrap_or_else(|e| panic!("{e}"));
    CpuExec::new(cpu()).forward(&model, &batch()).expect("runs").to_vec()
}

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path).unwrap_or_else(|e| panic!("{e}"))
}

fn found(text: &str) -> &'static Recipe {
    recipe::find(text).unwrap_or_else(|e| panic!("{e}"))
}

/// The largest distance as a share of the largest value.
fn relative(a: &[f32], b: &[f32]) -> f32 {
    distance(a, b) / b.iter().fold(0.0f32, |top, v| top.max(v.abs()))
}

#[test]
fn rotations_cancel_in_every_architecture() {
    for config in configs().into_iter().filter(|config| !matches!(config, Config::Mlp(_))) {
        let home = tempfile::tempdir().expect("a directory");
        let masters = home.path().join("masters");
        write(&masters, &config);
        let plain = logits(&open(&masters).under(Some(found("f32"))));
        let turned = found("f32+rotate=hadamard");
        let there = logits(&open(&masters).under(Some(turned)));
        assert!(relative(&there, &plain) < 2e-5, "{}", relative(&there, &plain));
        assert_ne!(there, plain, "nothing was rotated");
        // On disk and back.
        let out = home.path().join("rotated");
        quantize(&open(&masters), turned, &Options::new(), &out).expect("written");
        assert_eq!(open(&out).recipe().name, turned.name);
        assert_eq!(logits(&open(&out)), there);
        let refused = open(&out).under(Some(found("f32"))).model().err().expect("other columns").to_string();
        assert!(refused.contains("start from a checkpoint with f32 masters"), "{refused}");
    }
}

#[test]
fn a_large_input_costs_less_where_it_is_spread() {
    let config = decoder::Config { sub_norm: false, hidden_act: Activation::Silu, hidden_size: 64, ..decoder(LM) };
    let home = tempfile::tempdir().expect("a directory");
    // A hundred times as large an input of each layer, and weights of it a hundredth.
    let params: Vec<_> = masters(&Config::Decoder(config.clone()))
        .into_iter()
        .map(|(spec, mut values)| {
            let reads =
                ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"].iter().any(|name| spec.name.contains(name));
            let factor = if reads { 0.01 } else { 100.0 };
            if reads || spec.name.contains("layernorm") {
                values.iter_mut().skip(5).step_by(64).for_each(|v| *v *= factor);
            }
            (spec, values)
        })
        .collect();
    let values = params.iter().map(|(spec, values)| (spec, &values[..]));
    lowbit_model::checkpoint::save_masters(home.path(), &model_config(Config::Decoder(config)), None, values)
        .expect("written");
    let exact = logits(&open(home.path()).under(Some(found("f32"))));
    let loss = |recipe: &str| relative(&logits(&open(home.path()).under(Some(found(recipe)))), &exact);
    let (plain, turned) = (loss("int8_channel"), loss("int8_channel+rotate=hadamard"));
    assert!(turned < 0.7 * plain, "{turned}, not rotated {plain}");
}

#[test]
fn a_gguf_file_holds_the_columns_as_they_were() {
    let config = decoder::Config {
        sub_norm: false,
        hidden_act: Activation::Silu,
        hidden_size: 64,
        ..decoder(Head::Lm { tied: true })
    };
    let home = tempfile::tempdir().expect("a directory");
    let at = |name: &str| home.path().join(name);
    write(&at("masters"), &Config::Decoder(config));
    quantize(&open(&at("masters")), found("f32+rotate=hadamard"), &Options::new(), &at("rotated")).expect("written");
    let types = GgufTypes { body: find("f32"), table: find("f32") };
    save_gguf(&open(&at("rotated")), &at("back.gguf"), types).unwrap_or_else(|e| panic!("{e}"));
    let (there, plain) = (logits(&open(&at("back.gguf")).under(Some(found("f32")))), logits(&open(&at("masters"))));
    assert!(relative(&there, &plain) < 2e-5, "{}", relative(&there, &plain));
}
