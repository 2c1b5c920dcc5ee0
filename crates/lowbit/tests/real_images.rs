//! Networks for images that others have trained, in full precision and in 8 bits. Residual networks see some of the images: all 4,000 take
//! minutes, by `lowbit eval ../shared/data/weights/cifar10-resnet20 --task cifar10_lossless --recipe int8_channel`.

use lowbit_base::testing::data;
use lowbit_eval::task::{self, Split};
use lowbit_kernels::Cpu;
use lowbit_model::checkpoint::{Options, save_masters};
use lowbit_model::container::Tensors;
use lowbit_model::input::Scaling;
use lowbit_model::parameter_list::ParameterList;
use lowbit_model::predict::best;
use lowbit_model::{Checkpoint, ModelConfig, Predictor, recipe};
use std::path::Path;
use std::sync::Arc;

/// Shares of images that each recipe gets right, and on which it answers as full precision does.
fn shares(model: &Path, task: &str, images: usize, recipes: &[&str]) -> Vec<[f64; 2]> {
    let dir = data("mnist").and_then(|folder| Some(folder.parent()?.to_path_buf())).expect("just seen");
    let rows = task::find(task).unwrap().rows(Split::Test, Some(&dir)).unwrap().0;
    let images = images.min(rows.len());
    let checkpoint = Checkpoint::open(model).unwrap();
    let answers = |recipe: &str| -> Vec<usize> {
        let network = checkpoint.model_as(recipe::find(recipe).unwrap(), &Options::default()).unwrap();
        let mut predictor = Predictor::new(&checkpoint, Arc::new(network), Cpu::new(None, Some(2)).unwrap()).unwrap();
        let logits = predictor.outputs(&rows.inputs, 0..images).unwrap();
        logits.chunks_exact(10).map(best).collect()
    };
    let full = answers("f32");
    let share = |of: &dyn Fn(usize) -> bool| (0..images).filter(|i| of(*i)).count() as f64 / images as f64;
    let mut shares = vec![[share(&|i| full[i] == usize::from(rows.labels()[i])), 1.0]];
    for recipe in recipes {
        let found = answers(recipe);
        shares.push([share(&|i| found[i] == usize::from(rows.labels()[i])), share(&|i| found[i] == full[i])]);
    }
    println!("{}, {images} images, f32 {recipes:?}: right and as f32 {shares:?}", model.display());
    shares
}

/// A residual network of the publication for CIFAR-10, on images it was trained on.
fn residual(name: &str, images: usize) {
    let Some(model) = data(&format!("weights/{name}")) else { return };
    let shares = shares(&model, "cifar10_lossless", images, &["int8", "int8_channel", "int4"]);
    assert!(shares[0][0] >= 0.98, "{shares:?}");
    assert!(shares[1][1] >= 0.995 && shares[2][1] >= 0.995, "{shares:?}");
}

/// The layers of a small network for digits, and their names in its file.
const DIGITS: &str = r#"{"architecture": "sequential", "image": [28, 28, 1], "features": 784, "classes": 10, "max_length": 1,
    "input_scaling": {"mean": [0.1307], "deviation": [0.3081]}, "layers": [
    {"layer": "conv2d", "outputs": 8, "kernel": 3}, {"layer": "activation", "function": "relu"},
    {"layer": "bit_conv2d", "outputs": 16, "kernel": 3}, {"layer": "activation", "function": "relu"},
    {"layer": "bit_conv2d", "outputs": 24, "kernel": 3}, {"layer": "activation", "function": "relu"},
    {"layer": "batch_norm"}, {"layer": "bit_linear", "outputs": 32}, {"layer": "activation", "function": "relu"},
    {"layer": "linear", "outputs": 10}, {"layer": "batch_norm"}]}"#;
const NAMES: [&str; 11] = ["conv1", "", "conv2", "", "conv3", "", "norm1", "fc1", "", "fc2", "norm2"];

#[test]
fn a_network_for_digits_is_as_right_as_in_torch() {
    let Some(weights) = data("weights/mnist-cnn") else { return };
    let (model_config, _) = ModelConfig::parse(Path::new("config.json"), DIGITS.as_bytes()).unwrap();
    let tensors = Tensors::open(&weights.join("mnist.safetensors")).unwrap();
    let read = |spec: &lowbit_model::source::ParamSpec| {
        let (place, part) = spec.name.strip_prefix("layers.").unwrap().split_once('.').unwrap();
        let stored = format!("{}.{part}", NAMES[place.parse::<usize>().unwrap()]);
        spec.channels_last(tensors.floats(&stored).unwrap())
    };
    let specs = ParameterList::new(&model_config.config).unwrap().params().to_vec();
    let values: Vec<Vec<f32>> = specs.iter().map(read).collect();
    let home = tempfile::tempdir().unwrap();
    save_masters(home.path(), &model_config, None, specs.iter().zip(values.iter().map(Vec::as_slice))).unwrap();
    let written = std::fs::read_to_string(home.path().join("config.json")).unwrap();
    let written: serde_json::Value = serde_json::from_str(&written).unwrap();
    assert_eq!(written["input_scaling"]["mean"].as_array().unwrap().len(), 1, "the same for every pixel");
    let scaling = Checkpoint::open(home.path()).unwrap().model_config().input_scaling.clone().unwrap();
    assert_eq!(scaling, Scaling { mean: vec![0.1307; 784], deviation: vec![0.3081; 784] });
    let shares = shares(home.path(), "mnist", usize::MAX, &["int8", "int8_channel", "int4"]);
    // 99.16 % in PyTorch.
    assert!((shares[0][0] - 0.9916).abs() < 2e-4, "{shares:?}");
    assert!(shares[1][0] >= 0.99, "{shares:?}");
}

#[test]
fn residual_networks_answer_in_8_bits_as_in_full_precision() {
    residual("cifar10-resnet20", 600);
    residual("cifar10-resnet56", 100);
}
