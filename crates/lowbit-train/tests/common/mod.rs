//! Small networks and data for the tests.
#![allow(dead_code)] // each test binary uses a part

pub mod ranks;

use lowbit_kernels::Cpu;
use lowbit_model::exec::{Batch, Pooling};
use lowbit_model::{Config, ModelConfig, arch::Head};
use lowbit_train::{BatchTargets, Data};
use serde_json::json;

pub fn cpu(threads: usize) -> Cpu {
    Cpu::new(None, Some(threads)).unwrap()
}

pub const CLASSIFY: Head = Head::Classify { classes: 3, pooling: Pooling::Mean, bias: true };

/// A decoder of two layers; `changes` replaces fields.
pub fn bitnet(head: Head, changes: serde_json::Value) -> Config {
    let mut config = json!({
        "architecture": "decoder", "vocab_size": 19, "hidden_size": 12, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6, "intermediate_size": 20,
        "hidden_act": "silu", "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "sub_norm": true, "causal": true,
        "head": head,
    });
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    serde_json::from_value(config).unwrap()
}

/// A bag of tokens under two hidden layers; `changes` replaces fields.
pub fn mlp(changes: serde_json::Value) -> Config {
    let mut config = json!({
        "architecture": "mlp", "vocab_size": 19, "hidden_size": 12, "layers": [17, 9], "hidden_act": "gelu",
        "classes": 3,
    });
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    serde_json::from_value(config).unwrap()
}

/// An encoder of two layers that classifies; `changes` replaces fields.
pub fn encoder(changes: serde_json::Value) -> Config {
    let mut config = json!({
        "architecture": "encoder", "vocab_size": 19, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3,
        "intermediate_size": 14, "hidden_act": "gelu", "max_position_embeddings": 15, "position_offset": 2,
        "layer_norm_eps": 1e-5, "head": {"classify": {"classes": 3, "pooling": "first"}},
    });
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    serde_json::from_value(config).unwrap()
}

/// GPT-2 of two layers; `changes` replaces fields.
pub fn gpt(changes: serde_json::Value) -> Config {
    let mut config = json!({
        "architecture": "gpt", "vocab_size": 19, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3,
        "intermediate_size": 14, "hidden_act": "gelu", "max_position_embeddings": 12, "qkv_bias": true,
        "layer_norm_eps": 1e-5, "head": {"lm": {"tied": true}},
    });
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    serde_json::from_value(config).unwrap()
}

pub fn model_config(config: Config) -> ModelConfig {
    ModelConfig::new(config, 64)
}

/// A generator of test numbers.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// In -1..1.
    pub fn float(&mut self) -> f32 {
        self.next() as f32 / (1u64 << 30) as f32 - 1.0
    }
}

/// Sequences of ragged lengths.
pub fn ragged(lengths: &[usize], vocabulary: u32, seed: u64) -> Batch {
    let mut numbers = Numbers(seed);
    let sequences: Vec<Vec<u32>> =
        lengths.iter().map(|&n| (0..n).map(|_| (numbers.next() % vocabulary as u64) as u32).collect()).collect();
    Batch::new(sequences.iter().map(|s| &s[..]))
}

/// Sequences whose class is the class of most of their tokens (token modulo 3).
pub struct Majority {
    pub rows: Vec<(Vec<u32>, u32)>,
    pub fingerprint: String,
}

impl Majority {
    pub fn new(rows: usize) -> Self {
        let mut numbers = Numbers(11);
        let row = |_| {
            let class = (numbers.next() % 3) as u32;
            let len = 3 + numbers.next() % 9;
            let token = |i| if i % 3 == 2 { numbers.next() % 18 } else { numbers.next() % 6 * 3 + class as u64 };
            ((0..len).map(token).map(|t| t as u32).collect(), class)
        };
        Majority { rows: (0..rows).map(row).collect(), fingerprint: format!("majority {rows}") }
    }
}

impl Data for Majority {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn fill(&self, rows: &[usize], batch: &mut Batch, targets: &mut BatchTargets) {
        *batch = Batch::new(rows.iter().map(|&r| &self.rows[r].0[..]));
        let targets = targets.classes();
        targets.extend(rows.iter().map(|&r| self.rows[r].1));
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}

/// Sequences that count in steps of one to three; each token's target is the next one.
pub struct Counting {
    pub rows: usize,
}

impl Data for Counting {
    fn len(&self) -> usize {
        self.rows
    }

    fn fill(&self, rows: &[usize], batch: &mut Batch, targets: &mut BatchTargets) {
        let sequence = |row: usize| (0..10).map(move |i| ((row + i * (1 + row % 3)) % 19) as u32);
        let inputs: Vec<Vec<u32>> = rows.iter().map(|&r| sequence(r).take(9).collect()).collect();
        *batch = Batch::new(inputs.iter().map(|s| &s[..]));
        let targets = targets.classes();
        targets.extend(rows.iter().flat_map(|&r| sequence(r).skip(1)));
    }

    fn fingerprint(&self) -> String {
        "counting".into()
    }
}
