//! Prompt caches of a small decoder. The checksum at the end is made to fit, as anybody can.
#![no_main]

#[path = "../seed.rs"]
mod seed;

use lowbit_kernels::Cpu;
use lowbit_model::generate::{Generator, Request};
use lowbit_model::{Tokenizer, recipe, synthetic};
use sha2::{Digest, Sha256};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex};

const NETWORK: &str = r#"{"architecture": "decoder", "vocab_size": 258, "hidden_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "intermediate_size": 16, "hidden_act": "relu2",
    "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "sub_norm": true, "causal": true, "head": {"lm": {"tied": false}}}"#;
const CONTEXT: usize = 16;
const SUM: usize = 32;

static GENERATOR: LazyLock<(PathBuf, Mutex<Generator>)> = LazyLock::new(|| {
    let config = serde_json::from_str(NETWORK).expect("a network");
    let model = synthetic::model(&config, recipe::find("f32").expect("listed"), 1).expect("a model");
    let cpu = Cpu::new(None, Some(1)).expect("a CPU");
    let mut generator = Generator::new(Arc::new(model), Arc::new(Tokenizer::bytes()), cpu, CONTEXT);
    let request = Request { prompt: vec![1, 2, 3], max_tokens: 2, ..Request::default() };
    generator.generate(&request, &mut |_| ControlFlow::Continue(())).expect("an answer");
    let path = std::env::temp_dir().join(format!("lowbit-fuzz-prompt-{}", std::process::id()));
    generator.save_prompt(&path).expect("a prompt cache");
    seed::keep(&path);
    (path, Mutex::new(generator))
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let (path, generator) = &*GENERATOR;
    let mut cache = data[..data.len().saturating_sub(SUM)].to_vec();
    let sum = Sha256::digest(&cache);
    cache.extend_from_slice(&sum);
    std::fs::write(path, cache).expect("written");
    let _ = generator.lock().expect("one thread").load_prompt(path);
});
