//! Networks for images against torchvision, read from files as torch writes them; the logits are made by `tools/golden/vision.py`,
//! whose weights are a formula.

mod common;

use common::{cpu, distance};
use lowbit_model::calibrate::{self, Method};
use lowbit_model::checkpoint::{self, Options};
use lowbit_model::container::{Dtype, Planned, Writer};
use lowbit_model::exec::Batch;
use lowbit_model::input::Scaling;
use lowbit_model::parameter_list::ParameterList;
use lowbit_model::source::Role;
use lowbit_model::{Checkpoint, Config, CpuExec, Model, ModelConfig, Param, recipe};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Largest difference of a logit, relative to the largest magnitude.
const TOLERANCE: f32 = 1e-4;

/// SplitMix64 of a counter that begins at the FNV-1a of the name: numbers in -1..1.
fn noise(name: &str, count: usize) -> Vec<f32> {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let number = |i: u64| {
        let mut z = seed.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (1..=count as u64).map(number).collect()
}

/// The configuration of a golden case.
fn config(name: &str, image: &Value) -> Config {
    let mut config = match name {
        "lenet" => json!({"architecture": "lenet", "hidden_act": "relu", "classes": 10}),
        "resnet18" => resnet("imagenet", "basic", [2, 2, 2, 2].as_slice(), 64, 10),
        "resnet18, stem of CIFAR" => resnet("cifar", "basic", &[2, 2, 2, 2], 64, 10),
        "resnet50" => resnet("imagenet", "bottleneck", &[3, 4, 6, 3], 64, 7),
        "resnet20, padding" => {
            let mut config = resnet("cifar", "basic", &[3, 3, 3], 16, 10);
            config["shortcut"] = "padding".into();
            config
        }
        "vgg16" => json!({"architecture": "vgg", "width": 16, "hidden": [24, 20], "classes": 5}),
        "vgg16, batch norm" => {
            json!({"architecture": "vgg", "width": 16, "hidden": [24, 20], "batch_norm": true, "classes": 5})
        }
        other => panic!("`{other}` has no configuration here"),
    };
    config["image"] = image.clone();
    serde_json::from_value(config).unwrap()
}

fn resnet(stem: &str, block: &str, stages: &[usize], width: usize, classes: usize) -> Value {
    json!({"architecture": "resnet", "stem": stem, "block": block, "stages": stages, "width": width, "classes": classes})
}

/// Name and shape of each tensor as torch has them.
fn as_torch(config: &Config) -> Vec<(String, Vec<usize>)> {
    let of = |spec: &lowbit_model::source::ParamSpec| {
        let name = match config {
            // The publication's own code calls it so.
            Config::Resnet(c) if format!("{:?}", c.shortcut) == "Padding" => spec.name.replace("fc.", "linear."),
            _ => spec.name.clone(),
        };
        let side = spec.positions.isqrt();
        let is_conv = !name.starts_with("fc") && !name.starts_with("classifier") && !name.starts_with("linear");
        let shape = match spec.role.is_vector() {
            true => vec![spec.cols],
            false if is_conv => vec![spec.rows, spec.cols / spec.positions, side, side],
            false => vec![spec.rows, spec.cols],
        };
        (name, shape)
    };
    ParameterList::new(config).unwrap().params().iter().map(of).collect()
}

/// Writes weights as torch does, with the counters beside statistics.
fn write(path: &Path, config: &Config) {
    let tensors = as_torch(config);
    let mut plan: Vec<Planned> = Vec::new();
    for (name, shape) in &tensors {
        plan.push(Planned { name: name.clone(), dtype: Dtype::F32, shape: shape.clone() });
    }
    let mut writer = Writer::create(&path.join("model.safetensors"), BTreeMap::new(), &plan).unwrap();
    for (name, shape) in &tensors {
        let factor = (6.0 / shape[1..].iter().product::<usize>() as f64).sqrt() as f32;
        let mean = f32::from(name.ends_with("var") || name.ends_with("weight"));
        let number = |x: f32| if shape.len() > 1 { x * factor } else { 0.2 * x + mean };
        let values: Vec<f32> = noise(name, shape.iter().product()).into_iter().map(number).collect();
        writer.floats(name, shape, &values).unwrap();
    }
    writer.finish().unwrap();
}

fn unscaled(config: &Config) -> ModelConfig {
    let width = config.features();
    let input_scaling = Some(Scaling { mean: vec![0.0; width], deviation: vec![1.0; width] });
    ModelConfig { input_scaling, ..ModelConfig::new(config.clone(), 1) }
}

fn logits(checkpoint: &Checkpoint, batch: &Batch) -> Vec<f32> {
    CpuExec::new(cpu()).forward(&checkpoint.model().unwrap(), batch).unwrap().to_vec()
}

#[test]
fn networks_have_the_logits_of_torchvision() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("golden/vision.json")).unwrap();
    assert_eq!(cases.len(), 7);
    for case in cases {
        let (name, home) = (case["name"].as_str().unwrap(), tempfile::tempdir().unwrap());
        let config = config(name, &case["image"]);
        write(home.path(), &config);
        // Without a configuration the tensors tell the network, but for the size of images.
        if !matches!(config, Config::Lenet(_)) {
            let told = Checkpoint::open(home.path()).unwrap();
            let mut told_config = serde_json::to_value(&told.model_config().config).unwrap();
            let mut expected = serde_json::to_value(&config).unwrap();
            for config in [&mut told_config, &mut expected] {
                config.as_object_mut().unwrap().remove("image");
                config.as_object_mut().unwrap().remove("dropout");
            }
            assert_eq!(told_config, expected, "{name}");
            assert!(told.notices()[0].contains("no config.json"), "{name}");
        }
        unscaled(&config).save(&home.path().join("config.json")).unwrap();
        let checkpoint = Checkpoint::open(home.path()).unwrap();
        let expected: Vec<f32> =
            case["logits"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
        let images = expected.len() / config.classes().unwrap();
        let mut batch = Batch::default();
        let x = noise("x", images * config.features());
        x.chunks_exact(config.features()).for_each(|image| batch.push_features(image.iter().copied()));
        let found = logits(&checkpoint, &batch);
        let error = distance(&found, &expected);
        println!("{name}: {error:.1e}");
        assert!(error <= TOLERANCE, "{name}: off by {error}");

        // Written in 8 bits and read again: near, and a quarter of the bytes.
        if name.contains("18,") || name.contains("20,") || name == "lenet" {
            let out = tempfile::tempdir().unwrap();
            for (recipe, bound) in [("f32", 1e-6), ("int8_channel", 0.05), ("int4", 0.6)] {
                let recipe = recipe::find(recipe).unwrap();
                checkpoint::quantize(&checkpoint, recipe, &Options::default(), out.path()).unwrap();
                let again = Checkpoint::open(out.path()).unwrap();
                assert_eq!(again.model_config(), checkpoint.model_config(), "{name}");
                let error = distance(&logits(&again, &batch), &found);
                println!("{name}, {}: {error:.1e}", recipe.name);
                assert!(error <= bound, "{name}, {}: off by {error}", recipe.name);
            }
        }
    }
}

#[test]
fn one_image_has_the_logits_it_has_among_others() {
    let config = config("resnet20, padding", &json!([32, 32, 3]));
    let home = tempfile::tempdir().unwrap();
    write(home.path(), &config);
    for recipe in ["f32", "int8", "ternary"] {
        let checkpoint = Checkpoint::open(home.path()).unwrap();
        let model = checkpoint.model_as(recipe::find(recipe).unwrap(), &Options::default()).unwrap();
        let x = noise("x", 5 * config.features());
        let mut exec = CpuExec::new(cpu());
        let mut of = |images: &[f32]| {
            let mut batch = Batch::default();
            images.chunks_exact(config.features()).for_each(|image| batch.push_features(image.iter().copied()));
            exec.forward(&model, &batch).unwrap().to_vec()
        };
        let all = of(&x);
        let single: Vec<f32> = x.chunks_exact(config.features()).flat_map(&mut of).collect();
        assert!(distance(&all, &single) <= 1e-5, "{recipe}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let refused = |config: Value, word: &str| {
        let config: Result<Config, _> = serde_json::from_value(config);
        let error = match config {
            Ok(config) => ParameterList::new(&config).map(|_| ()).unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(word), "{error}");
    };
    let small = |image: Value| json!({"architecture": "vgg", "image": image, "hidden": [], "classes": 3});
    refused(small(json!([300, 300, 3])), "ends in a map of 9 x 9");
    refused(small(json!([16, 16, 3])), "larger than the image");
    let mut odd = small(json!([32, 32, 3]));
    odd["features"] = 100.into();
    refused(odd, "which are 3072 numbers; rows have 100");
    let mut bottleneck = resnet("cifar", "bottleneck", &[1, 1], 8, 3);
    bottleneck["image"] = json!([16, 16, 3]);
    bottleneck["shortcut"] = "padding".into();
    refused(bottleneck, "take projection");
    // Statistics are vectors that recipes leave alone.
    let config = config("resnet20, padding", &json!([32, 32, 3]));
    let list = ParameterList::new(&config).unwrap();
    let statistics = list.count_of(|role| role == Role::Statistics);
    assert_eq!((list.count(), statistics), (271_098, 2 * (7 * 16 + 6 * 32 + 6 * 64)));
}

#[test]
fn windows_of_images_calibrate_convolutions() {
    let config = config("lenet", &json!([28, 28, 1]));
    let home = tempfile::tempdir().unwrap();
    write(home.path(), &config);
    unscaled(&config).save(&home.path().join("config.json")).unwrap();
    let checkpoint = Checkpoint::open(home.path()).unwrap();
    let images = |name: &str, count: usize| {
        let mut batch = Batch::default();
        let x = noise(name, count * config.features());
        x.chunks_exact(config.features()).for_each(|image| batch.push_features(image.iter().copied()));
        batch
    };
    let recipe = recipe::find("int2+act=f32+head_act=f32").unwrap();
    let (seen, unseen) = (images("seen", 24), images("unseen", 24));
    let answers = |model: &Model<Param>| CpuExec::new(cpu()).forward(model, &unseen).unwrap().to_vec();
    let full = logits(&checkpoint, &unseen);
    let squares = |found: &[f32]| found.iter().zip(&full).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
    let plain = squares(&answers(&checkpoint.model_as(recipe, &Options::default()).unwrap()));
    let method = Method::find("gptq").unwrap();
    let (mut quantized, rounded) =
        calibrate::quantize(&checkpoint, recipe, method, &seen, &cpu(), &mut |_, _| ()).unwrap();
    // Both convolutions and all linear layers, of which head and stem stay wide.
    assert_eq!(rounded.len(), 5, "{rounded:?}");
    let gptq = squares(&answers(&Model::build(&config, &mut quantized).unwrap()));
    println!("int2 to nearest {plain:.3}, by GPTQ {gptq:.3}");
    assert!(gptq < 0.8 * plain, "{gptq} against {plain}");
}
