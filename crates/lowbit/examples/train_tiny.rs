//! Trains a small language model on the bytes of a text with ternary weights, stores it in two bits per weight, and lets it
//! speak.
//!
//! `cargo run --release -p lowbit --example train_tiny -- [STEPS]`

use lowbit::model::{Checkpoint, ModelConfig, Tokenizer, checkpoint, recipe};
use lowbit::train::{Control, Job, Observer, Qat, StepMetrics, TrainConfig, Windows};

const TEXT: &str = "the cat sat on the mat. the dog sat on the log. the cat saw the dog, and the dog saw the cat. ";
const NETWORK: &str = r#"{"architecture": "decoder", "vocab_size": 258, "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 128, "hidden_act": "relu2",
    "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "sub_norm": true, "causal": true, "head": {"lm": {"tied": false}}}"#;

/// Prints the loss now and then.
struct Progress;

impl Observer for Progress {
    fn step(&mut self, metrics: &StepMetrics, steps: u64) -> Control {
        if metrics.step.is_multiple_of(steps.div_ceil(5)) {
            println!("step {} of {steps}: loss {:.3}", metrics.step, metrics.loss);
        }
        Control::Continue
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let steps = std::env::args().nth(1).map_or(Ok(200), |steps| steps.parse())?;
    let directory = tempfile::tempdir()?;
    let (masters, packed) = (directory.path().join("masters"), directory.path().join("packed"));
    let tokenizer = Tokenizer::bytes();
    let tokens = tokenizer.encode(&TEXT.repeat(40), usize::MAX)?;
    let model_config =
        ModelConfig { trained_for: Some("bitnet".into()), ..ModelConfig::new(serde_json::from_str(NETWORK)?, 64) };
    let config = TrainConfig {
        steps: Some(steps),
        batch_size: 8,
        learning_rate: 3e-3,
        qat: Some(Qat::default()),
        ..TrainConfig::default()
    };
    let data = Windows::new(tokens, 64)?;
    let job = Job {
        model_config: &model_config,
        tokenizer: Some(&tokenizer),
        from: None,
        teacher: None,
        data: &data,
        validation: None,
        config: &config,
    };
    let cpu = lowbit::kernels::Cpu::new(None, None)?;
    lowbit::train::train(&job, &masters, &cpu, &mut Progress)?;
    checkpoint::quantize(&Checkpoint::open(&masters)?, recipe::find("bitnet")?, &Default::default(), &packed)?;
    let model = lowbit::Model::open(&packed)?;
    println!("the cat{}", model.generate("the cat").max_tokens(48).temperature(0.0).text()?);
    Ok(())
}
