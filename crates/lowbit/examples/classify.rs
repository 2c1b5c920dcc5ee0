//! Trains a classifier that tells animals from tools on a few sentences, and asks it; with a path and a text, asks that model
//! instead.
//!
//! `cargo run --release -p lowbit --example classify -- [MODEL TEXT]`

use lowbit::model::{ModelConfig, Tokenizer, text};
use lowbit::train::{Job, Labelled, TrainConfig};

const NETWORK: &str = r#"{"architecture": "mlp", "vocab_size": 258, "hidden_size": 32, "layers": [], "hidden_act": "relu2",
    "classes": 2, "bigram_buckets": 4096}"#;
const ANIMALS: [&str; 6] = ["cat", "dog", "horse", "crow", "fox", "owl"];
const TOOLS: [&str; 6] = ["hammer", "saw", "drill", "wrench", "plane", "chisel"];
const SENTENCES: [&str; 4] = ["a _ by the door", "the old _", "my neighbour has a _", "where is the _?"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    if let (Some(path), Some(text)) = (arguments.next(), arguments.next()) {
        let answer = lowbit::Model::open(path)?.classify(text)?;
        println!("{} ({:.1} %)", answer.label, 100.0 * answer.probability);
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let tokenizer = Tokenizer::bytes();
    let mut sequences = Vec::new();
    let mut labels = Vec::new();
    for (label, words) in [ANIMALS, TOOLS].iter().enumerate() {
        for (word, sentence) in words.iter().flat_map(|word| SENTENCES.map(|sentence| (word, sentence))) {
            sequences.push(text::tokens(&tokenizer, &sentence.replace('_', word), 64)?);
            labels.push(label as u16);
        }
    }
    let model_config = ModelConfig {
        labels: vec!["animal".into(), "tool".into()],
        ..ModelConfig::new(serde_json::from_str(NETWORK)?, 64)
    };
    let config = TrainConfig { steps: Some(150), batch_size: 16, learning_rate: 1e-2, ..TrainConfig::default() };
    let data = Labelled::of_tokens(sequences, labels);
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
    lowbit::train::train(&job, directory.path(), &cpu, &mut ())?;
    let model = lowbit::Model::open(directory.path())?.recipe("int8")?;
    for text in ["my horse is old", "the drill by the window"] {
        let answer = model.classify(text)?;
        println!("{text}: {} ({:.1} %)", answer.label, 100.0 * answer.probability);
    }
    Ok(())
}
