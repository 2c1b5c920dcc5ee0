//! States of training: what a run makes of one in its folder. The checksum at the end is made to fit, as anybody can.
#![no_main]

#[path = "../seed.rs"]
mod seed;

use lowbit_kernels::Cpu;
use lowbit_model::ModelConfig;
use lowbit_train::{Job, Labelled, TrainConfig, train};
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::sync::LazyLock;

const NETWORK: &str = r#"{"architecture": "mlp", "vocab_size": 258, "hidden_size": 4, "layers": [], "hidden_act": "relu2",
    "classes": 2, "bigram_buckets": 0}"#;
const STATE: &str = "checkpoints/step-0000000001.safetensors";
const SUM: usize = 32;

/// A run that is finished after one update.
struct Run {
    folder: PathBuf,
    model_config: ModelConfig,
    data: Labelled,
    config: TrainConfig,
    cpu: Cpu,
}

impl Run {
    fn go(&self) -> bool {
        let job = Job { model_config: &self.model_config, tokenizer: None, from: None, teacher: None, data: &self.data, validation: None, config: &self.config };
        train(&job, &self.folder, &self.cpu, &mut ()).is_ok()
    }
}

static RUN: LazyLock<Run> = LazyLock::new(|| {
    let mut model_config = ModelConfig::new(serde_json::from_str(NETWORK).expect("a network"), 8);
    model_config.labels = vec!["a".into(), "b".into()];
    let data = Labelled::of_tokens(vec![vec![1, 2], vec![3, 4, 5]], vec![0, 1]);
    let config = TrainConfig { steps: Some(1), batch_size: 2, ..TrainConfig::default() };
    let folder = std::env::temp_dir().join(format!("lowbit-fuzz-state-{}", std::process::id()));
    let run = Run { folder, model_config, data, config, cpu: Cpu::new(None, Some(1)).expect("a CPU") };
    assert!(run.go(), "the run of the seed");
    seed::keep(&run.folder.join(STATE));
    run
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let run = &*RUN;
    let mut state = data[..data.len().saturating_sub(SUM)].to_vec();
    let sum = Sha256::digest(&state);
    state.extend_from_slice(&sum);
    std::fs::write(run.folder.join(STATE), state).expect("written");
    let _ = run.go();
});
