//! Mean loss per token of a language model on a text, in windows of 700 characters of at most 256 tokens, each run of white
//! space one space; the text's end that fills no window is left out. `cargo run --release -p lowbit-model --example perplexity -- MODEL TEXT`

use lowbit_kernels::Cpu;
use lowbit_model::exec::Batch;
use lowbit_model::{Checkpoint, CpuExec};
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, text] = &args[..] else { return Err("usage: perplexity MODEL TEXT".into()) };
    let checkpoint = Checkpoint::open(Path::new(model))?;
    let (tokenizer, network) = (checkpoint.tokenizer()?, checkpoint.model()?);
    let mut exec = CpuExec::new(Cpu::new(None, None)?);
    let characters: Vec<char> = std::fs::read_to_string(text)?.chars().collect();
    let (mut sum, mut count) = (0.0f64, 0usize);
    for window in characters.chunks_exact(700) {
        let window: String = window.iter().collect();
        let window = window.split_whitespace().collect::<Vec<_>>().join(" ");
        let tokens = tokenizer.encode(&window, 256)?;
        let logits = exec.forward(&network, &Batch::new([&tokens[..]]))?.to_vec();
        let width = logits.len() / tokens.len();
        for (row, next) in logits.chunks_exact(width).zip(&tokens[1..]) {
            let top = row.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
            let total: f64 = row.iter().map(|v| f64::from(v - top).exp()).sum();
            sum += total.ln() - f64::from(row[*next as usize] - top);
            count += 1;
        }
    }
    let mean = sum / count as f64;
    println!("{model}: {mean:.5} nats per token, perplexity {:.4}, {count} tokens", mean.exp());
    Ok(())
}
