//! Memory of a fine-tuning: a classifier of the size of GPT-2 small, 124 million weights, begins from a language model on disk, is
//! interrupted and resumed: 8 sequences of 128 tokens, with validation. Linux.
//!
//! `cargo run --release -p lowbit-train --example peak_memory -- [--plain] [--lm]`; `--plain` is without activation checkpointing, `--lm`
//! trains the language model itself.

use lowbit_kernels::Cpu;
use lowbit_model::exec::Batch;
use lowbit_model::{Checkpoint, Config, ModelConfig, checkpoint};
use lowbit_train::{BatchTargets, Control, Data, Job, Network, Observer, StepMetrics, TrainConfig, need, train};
use serde_json::json;

/// Rows of a fixed length with a class, or the next token of each token.
struct Fixed {
    rows: usize,
    length: usize,
    classes: bool,
}

impl Data for Fixed {
    fn len(&self) -> usize {
        self.rows
    }

    fn tokens(&self) -> Option<u64> {
        Some((self.rows * self.length) as u64)
    }

    fn fill(&self, rows: &[usize], batch: &mut Batch, targets: &mut BatchTargets) {
        let sequence = |row: usize| (0..self.length).map(move |i| ((row * 7919 + i * 31) % 50_257) as u32);
        let sequences: Vec<Vec<u32>> = rows.iter().map(|&row| sequence(row).collect()).collect();
        *batch = Batch::new(sequences.iter().map(|s| &s[..]));
        match self.classes {
            true => targets.classes().extend(rows.iter().map(|row| (row % 4) as u32)),
            false => targets.classes().extend(rows.iter().flat_map(|&row| sequence(row + 1))),
        }
    }

    fn fingerprint(&self) -> String {
        "fixed".into()
    }
}

/// Ends a run after an update.
struct Stop(u64);

impl Observer for Stop {
    fn step(&mut self, metrics: &StepMetrics, _: u64) -> Control {
        if metrics.step == self.0 { Control::Stop } else { Control::Continue }
    }
}

fn network(head: serde_json::Value) -> ModelConfig {
    let config = json!({
        "architecture": "gpt", "vocab_size": 50257, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
        "intermediate_size": 3072, "hidden_act": "gelu", "max_position_embeddings": 1024, "qkv_bias": true,
        "layer_norm_eps": 1e-5, "dropout": 0.1, "head": head,
    });
    ModelConfig::new(serde_json::from_value::<Config>(config).expect("a valid configuration"), 1024)
}

/// Largest resident set of this process, bytes.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(1024 * line.trim().trim_end_matches(" kB").parse::<u64>().ok()?)
}

/// Writes drawn weights of a language model, which do not stay in memory.
fn drawn(home: &std::path::Path, model_config: &ModelConfig, cpu: &Cpu) {
    let network = Network::new(cpu, &model_config.config, 3, None).expect("a valid configuration");
    let params = network.params().iter().map(|param| (&param.spec, param.master().expect("nothing is frozen")));
    checkpoint::save_masters(home, model_config, None, params).expect("a writable directory");
}

fn main() {
    let has = |flag: &str| std::env::args().any(|arg| arg == flag);
    let cpu = Cpu::new(None, Some(2)).expect("an instruction set");
    let lm = network(json!({"lm": {"tied": true}}));
    let model_config =
        if has("--lm") { lm.clone() } else { network(json!({"classify": {"classes": 4, "pooling": "last"}})) };
    let home = std::env::temp_dir().join(format!("lowbit-peak-memory-{}", std::process::id()));
    drawn(&home.join("from"), &lm, &cpu);
    let from = Checkpoint::open(&home.join("from")).expect("just written");
    let config = TrainConfig {
        steps: Some(4),
        batch_size: 8,
        learning_rate: 1e-6,
        gradient_checkpointing: !has("--plain"),
        ..TrainConfig::default()
    };
    let [data, held] = [64, 8].map(|rows| Fixed { rows, length: 128, classes: !has("--lm") });
    let job = Job {
        model_config: &model_config,
        tokenizer: None,
        from: Some(&from),
        teacher: None,
        data: &data,
        validation: Some(&held),
        config: &config,
    };
    println!("estimated, without the model on disk: {} bytes", need(&job).expect("a valid configuration").bytes());
    for (stop, what) in [(2, "two updates"), (u64::MAX, "resumed, and two more")] {
        train(&job, &home.join("run"), &cpu, &mut Stop(stop)).unwrap_or_else(|e| panic!("{e}"));
        println!("{what}: peak of {} bytes", peak().map_or("unknown".into(), |bytes| bytes.to_string()));
    }
    std::fs::remove_dir_all(&home).expect("the directory was made here");
}
