//! Speed and memory of training: updates of a byte-level transformer on random bytes.
//!
//! `cargo run --release -p lowbit-train --example throughput -- [--qat] [--bf16] [--steps 20] [--threads 2] [--layers 6]
//! [--width 384] [--heads 6] [--ffn 1024] [--context 256] [--tokens 2048] [--vocab 256] [--act silu] [--sub-norm]`
//!
//! The default is a decoder of 10,818,432 weights (6 layers, width 384, 6 heads, gated feed-forward of 1,024, untied
//! head, no sub-norms) and 8 sequences of 256 bytes a step.

use lowbit_kernels::Cpu;
use lowbit_model::exec::Batch;
use lowbit_model::{Config, ModelConfig};
use lowbit_train::{BatchTargets, Control, Data, Job, Observer, Precision, Qat, StepMetrics, TrainConfig, train};
use serde_json::json;

/// Random bytes.
struct Noise {
    context: usize,
}

impl Data for Noise {
    fn len(&self) -> usize {
        1 << 16
    }

    fn fill(&self, rows: &[usize], batch: &mut Batch, targets: &mut BatchTargets) {
        batch.tokens.clear();
        batch.cu_seqlens.clear();
        batch.cu_seqlens.push(0);
        let targets = targets.classes();
        for &row in rows {
            let mut state = row as u64;
            let mut byte = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u32
            };
            batch.tokens.extend((0..self.context).map(|_| byte()));
            targets.extend_from_slice(&batch.tokens[*batch.cu_seqlens.last().expect("pushed")..][1..]);
            targets.push(byte());
            batch.cu_seqlens.push(batch.tokens.len());
        }
    }

    fn fingerprint(&self) -> String {
        "noise".into()
    }
}

/// Prints each step and keeps its speed and processor seconds.
struct Print {
    speeds: Vec<f64>,
    processor: Vec<f64>,
    before: f64,
}

impl Observer for Print {
    fn step(&mut self, m: &StepMetrics, steps: u64) -> Control {
        println!(
            "step {}/{steps} loss {:.4} norm {:.3} {:.0} tokens/s",
            m.step, m.loss, m.grad_norm, m.tokens_per_second
        );
        self.speeds.push(m.tokens_per_second);
        let now = processor_seconds();
        self.processor.push(now - self.before);
        self.before = now;
        Control::Continue
    }
}

fn flag(name: &str, default: usize) -> usize {
    let mut args = std::env::args().skip_while(|a| a != name);
    args.nth(1)
        .map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} needs a number, not `{value}`")))
}

fn word(name: &str, default: &str) -> String {
    std::env::args().skip_while(|a| a != name).nth(1).unwrap_or_else(|| default.into())
}

fn has(name: &str) -> bool {
    std::env::args().any(|a| a == name)
}

/// Processor seconds of all threads in this process so far, in steps of 10 ms; 0 where the system does not tell.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

/// Peak resident memory in MiB, where the system tells.
fn peak_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}

fn main() {
    let (width, heads, context) = (flag("--width", 384), flag("--heads", 6), flag("--context", 256));
    let config: Config = serde_json::from_value(json!({
        "architecture": "decoder", "vocab_size": flag("--vocab", 256), "hidden_size": width, "num_hidden_layers": flag("--layers", 6),
        "num_attention_heads": heads, "num_key_value_heads": heads, "head_dim": width / heads,
        "intermediate_size": flag("--ffn", 1024), "hidden_act": word("--act", "silu"), "rope_theta": 10000.0, "rms_norm_eps": 1e-5,
        "sub_norm": has("--sub-norm"), "causal": true, "head": {"lm": {"tied": false}},
    }))
    .expect("a valid configuration");
    let train_config = TrainConfig {
        steps: Some(flag("--steps", 20) as u64),
        batch_size: flag("--tokens", 2048) / context,
        qat: has("--qat").then(Qat::default),
        precision: if has("--bf16") { Precision::Bf16 } else { Precision::F32 },
        ..TrainConfig::default()
    };
    let cpu = Cpu::new(None, Some(flag("--threads", 2))).expect("an instruction set");
    let model_config = ModelConfig::new(config, context);
    let job = Job {
        model_config: &model_config,
        tokenizer: None,
        from: None,
        teacher: None,
        data: &Noise { context },
        validation: None,
        config: &train_config,
    };
    let dir = std::env::temp_dir().join(format!("lowbit-throughput-{}", std::process::id()));
    let mut print = Print { speeds: Vec::new(), processor: Vec::new(), before: 0.0 };
    let outcome = train(&job, &dir, &cpu, &mut print).unwrap_or_else(|e| panic!("{e}"));
    std::fs::remove_dir_all(&dir).expect("the directory was made here");
    let mode = format!("{}{:?}", if train_config.qat.is_some() { "qat, " } else { "" }, train_config.precision);
    println!("{mode}, {} weights, {}, {} threads", outcome.parameters, cpu.isa.name(), cpu.pool.threads());
    let steady = |mut values: Vec<f64>| {
        let mut values = values.split_off(values.len().min(2));
        values.sort_by(f64::total_cmp);
        values
    };
    let (speeds, processor) = (steady(print.speeds), steady(print.processor));
    if let (Some(min), Some(max)) = (speeds.first(), speeds.last()) {
        println!("tokens/s after 2 steps: median {:.0}, min {min:.0}, max {max:.0}", speeds[speeds.len() / 2]);
        println!("processor seconds a step: median {:.3}, min {:.3}", processor[processor.len() / 2], processor[0]);
    }
    if let Some(peak) = peak_mib() {
        println!("peak resident memory: {peak:.0} MiB");
    }
}
