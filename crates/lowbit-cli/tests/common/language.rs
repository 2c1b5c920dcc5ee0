//! A language model over bytes that is small enough for a test.

use lowbit::model::checkpoint::save_masters;
use lowbit::model::parameter_list::ParameterList;
use lowbit::model::{Config, ModelConfig, Tokenizer};
use std::path::Path;

/// Tokens that it was trained for.
const CONTEXT: usize = 160;
/// A template that names who speaks.
pub const CHAT: &str = "{% for m in messages %}{{ '<' + m.role + '>' + m.content }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}";

/// Writes a language model over bytes into `m`; its answers are noise, the same on every machine.
pub fn model(directory: &Path, template: Option<&str>, head: &str) {
    let config = format!(
        r#"{{"architecture": "decoder", "vocab_size": 258, "hidden_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 48,
        "hidden_act": "relu2", "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "sub_norm": true, "causal": true,
        "head": {head}}}"#
    );
    let config: Config = serde_json::from_str(&config).expect("a configuration");
    let parameters = ParameterList::new(&config).expect("parameters");
    let mut state = 7u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let weights: Vec<Vec<f32>> =
        parameters.params().iter().map(|p| (0..p.rows * p.cols).map(|_| noise()).collect()).collect();
    let params = parameters.params().iter().zip(&weights).map(|(spec, values)| (spec, &values[..]));
    let labels = (0..config.classes().unwrap_or(0)).map(|i| i.to_string()).collect();
    let model_config =
        ModelConfig { chat_template: template.map(String::from), labels, ..ModelConfig::new(config, CONTEXT) };
    save_masters(&directory.join("m"), &model_config, Some(&Tokenizer::bytes()), params).expect("written");
}

/// The head of a language model.
pub const LM: &str = r#"{"lm": {"tied": false}}"#;
