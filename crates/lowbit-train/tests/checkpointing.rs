//! Activation checkpointing: the bits of training without it, in less memory.

mod common;

use common::*;
use lowbit_model::Config;
use lowbit_model::arch::{ARCHITECTURES, Head};
use lowbit_model::exec::Batch;
use lowbit_model::parameter_list::ParameterList;
use lowbit_train::{Job, Lora, Network, Pass, Qat, TrainConfig, need, train};
use serde_json::json;

/// A network of each architecture, with dropout.
fn networks() -> Vec<Config> {
    let images = [
        json!({"architecture": "sequential", "features": 6, "classes": 3, "layers": [
            {"layer": "bit_linear", "outputs": 9}, {"layer": "activation", "function": "silu"}, {"layer": "dropout", "p": 0.2},
            {"layer": "linear"}]}),
        json!({"architecture": "lenet", "image": [16, 14, 1], "hidden_act": "relu", "widths": [4, 6, 20, 12], "classes": 3,
            "batch_norm": true, "dropout": 0.2}),
        json!({"architecture": "resnet", "image": [12, 10, 3], "stem": "cifar", "block": "basic", "stages": [1, 1], "width": 8,
            "classes": 3}),
        json!({"architecture": "vgg", "image": [16, 16, 3], "stages": [1, 2, 1], "width": 6, "hidden": [20], "classes": 3}),
    ];
    let mut networks = vec![
        bitnet(CLASSIFY, json!({"dropout": 0.3, "causal": false, "bigram_buckets": 7})),
        bitnet(Head::Lm { tied: true }, json!({"dropout": 0.2, "qk_norm": true, "sub_norm": false})),
        encoder(json!({"dropout": 0.2, "pooler": "tanh", "type_vocab_size": 2})),
        gpt(json!({"dropout": 0.3, "sliding_window": 3})),
        mlp(json!({"dropout": 0.2, "hidden_act": "silu"})),
        mlp(json!({})),
    ];
    networks.extend(images.map(|config| serde_json::from_value::<Config>(config).unwrap()));
    let name = |config: &Config| serde_json::to_value(config).unwrap()["architecture"].as_str().unwrap().to_string();
    for architecture in ARCHITECTURES {
        assert!(networks.iter().any(|config| name(config) == *architecture), "no network of {architecture}");
    }
    networks
}

/// Loss and gradients of two batches.
fn gradients(config: &Config, qat: Option<Qat>, lora: Option<&Lora>, checkpointing: bool) -> (f64, Vec<Vec<f32>>) {
    let mut network = Network::new(&cpu(2), config, 3, qat).unwrap();
    if let Some(lora) = lora {
        let body: Vec<String> = network.params().iter().map(|p| p.spec.name.clone()).collect();
        body.iter().filter(|name| name.contains("mlp.")).for_each(|name| network.tape.params.adapt(name, lora, 4));
    }
    network.set_checkpointing(checkpointing);
    let mut loss = 0.0;
    for seed in 0..2 {
        let mut batch = ragged(&[5, 1, 8], 19, seed);
        if config.features() > 0 {
            batch.refill([]);
            let mut numbers = Numbers(seed);
            (0..5).for_each(|_| batch.push_features((0..config.features()).map(|_| numbers.float())));
        }
        let logits = network.forward(&batch, Pass::Train(seed));
        let targets: Vec<u32> = (0..logits.rows() as u32).map(|row| row % 3).collect();
        loss += network.tape.cross_entropy(&logits, &targets, 0.1, 0.3);
        drop(logits);
        network.backward();
    }
    let ids = network.params().ids();
    (loss, ids.filter_map(|id| network.tape.gradient(id)).map(<[f32]>::to_vec).collect())
}

#[test]
fn gradients_have_the_same_bits() {
    let lora = Lora { rank: 2, ..Lora::default() };
    for config in networks() {
        for (qat, lora) in [(None, None), (Some(Qat::default()), None), (None, Some(&lora))] {
            let (loss, plain) = gradients(&config, qat, lora, false);
            let (other, again) = gradients(&config, qat, lora, true);
            assert_eq!(loss, other, "{config:?}");
            assert!(plain == again && !plain.is_empty(), "{config:?}");
        }
    }
}

/// Bytes of the activations of a step of a deep network.
fn bytes(config: &Config, batch: &Batch, checkpointing: bool) -> u64 {
    let mut network = Network::new(&cpu(2), config, 3, None).unwrap();
    network.set_checkpointing(checkpointing);
    let logits = network.forward(batch, Pass::Train(1));
    let targets = vec![1; logits.rows()];
    network.tape.cross_entropy(&logits, &targets, 0.0, 1.0);
    drop(logits);
    network.backward();
    network.tape.activation_bytes() as u64
}

#[test]
fn activations_take_less_memory_and_the_estimate_knows() {
    let deep = json!({"num_hidden_layers": 12, "hidden_size": 48, "intermediate_size": 192, "dropout": 0.1,
        "max_position_embeddings": 64, "head": {"classify": {"classes": 3, "pooling": "first"}}});
    for config in [encoder(deep.clone()), gpt(deep)] {
        let batch = ragged(&[60; 8], 19, 2);
        let [plain, again] = [false, true].map(|on| bytes(&config, &batch, on));
        assert!(again * 4 < plain, "{again} bytes, {plain} without checkpointing");
        let list = ParameterList::new(&config).unwrap();
        let estimate = [false, true].map(|on| list.recorded_bytes(batch.tokens.len(), batch.sequences(), on));
        for (found, estimate) in [plain, again].into_iter().zip(estimate) {
            // The estimate counts outputs of operations; gradients of a block come and go.
            let share = found as f64 / estimate as f64;
            assert!((0.5..1.6).contains(&share), "{found} bytes, estimated {estimate}");
        }
    }
}

#[test]
fn runs_write_the_same_model_and_resume_with_either() {
    let config = encoder(json!({"dropout": 0.2, "head": {"classify": {"classes": 3, "pooling": "first"}}}));
    let (model_config, data) = (model_config(config), Majority::new(40));
    let settings = |on: bool| TrainConfig {
        steps: Some(6),
        batch_size: 4,
        accumulation: 2,
        save_every: 2,
        gradient_checkpointing: on,
        ..TrainConfig::default()
    };
    let homes = [false, true].map(|on| {
        let home = tempfile::tempdir().unwrap();
        let config = settings(on);
        let job = Job {
            model_config: &model_config,
            tokenizer: None,
            from: None,
            teacher: None,
            data: &data,
            validation: None,
            config: &config,
        };
        let activations = need(&job).unwrap();
        train(&job, home.path(), &cpu(2), &mut ()).unwrap();
        // The state of the other run is this one's.
        let config = settings(!on);
        train(&Job { config: &config, ..job }, home.path(), &cpu(2), &mut ()).unwrap();
        (std::fs::read(home.path().join("model.safetensors")).unwrap(), activations.bytes())
    });
    assert!(homes[0].0 == homes[1].0);
    assert!(homes[0].1 > homes[1].1, "{} and {} bytes", homes[0].1, homes[1].1);
}
