//! Metadata of a GGUF file that is not read elsewhere: keys with an effect in llama.cpp are refused by name unless their value
//! means nothing, keys that llama.cpp does not heed in these networks are named in a notice, and the rest says nothing here.

use crate::Error;
use crate::container::gguf::{Gguf, Value};
use crate::container::show;

/// Keys behind the name of the architecture that are read, or that tensors tell too.
const READ: &[&str] = &[
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_rms_epsilon",
    "attention.value_length",
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.attn_factor",
    "rope.scaling.factor",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "rope.scaling.type",
    "vocab_size",
];
/// Keys behind the name of the architecture that change a network, and the value that does not.
const EFFECTIVE: &[(&str, f64)] = &[
    ("attention.causal", 1.0),
    ("expert_count", 0.0),
    ("expert_group_count", 0.0),
    ("expert_used_count", 0.0),
    ("nextn_predict_layers", 0.0),
];
/// Values of keys behind the name of the architecture that mean nothing, beside 0, false and empty ones.
const IDLE: &[(&str, f64)] = &[
    ("attention.output_scale", 1.0),
    ("attention.value_scale", 1.0),
    ("embedding_scale", 1.0),
    ("expert_weights_scale", 1.0),
    ("logit_scale", 1.0),
    ("residual_scale", 1.0),
    ("rope.scaling.yarn_attn_factor", 1.0),
    ("rope.scaling.yarn_beta_fast", 32.0),
    ("rope.scaling.yarn_beta_slow", 1.0),
    ("rope.scaling.yarn_ext_factor", 1.0),
];
/// Keys behind `tokenizer.` that are read, or have no effect on vocabularies of sentencepiece and byte-level BPE.
const TOKENIZER: &[&str] = &[
    "chat_template",
    "chat_templates",
    "ggml.add_bos_token",
    "ggml.add_eos_token",
    "ggml.add_space_prefix",
    "ggml.bos_token_id",
    "ggml.cls_token_id",
    "ggml.eom_token_id",
    "ggml.eos_token_id",
    "ggml.eot_token_id",
    "ggml.fim_mid_token_id",
    "ggml.fim_pad_token_id",
    "ggml.fim_pre_token_id",
    "ggml.fim_rep_token_id",
    "ggml.fim_sep_token_id",
    "ggml.fim_suf_token_id",
    "ggml.mask_token_id",
    "ggml.merges",
    "ggml.middle_token_id",
    "ggml.model",
    "ggml.normalizer.lowercase",
    "ggml.normalizer.strip_accents",
    "ggml.padding_token_id",
    "ggml.pre",
    "ggml.precompiled_charsmap",
    "ggml.prefix_token_id",
    "ggml.remove_extra_whitespaces",
    "ggml.scores",
    "ggml.seperator_token_id",
    "ggml.suffix_token_id",
    "ggml.token_type",
    "ggml.token_type_count",
    "ggml.tokens",
    "ggml.unknown_token_id",
    "huggingface.json",
    "rwkv.world",
];

/// Looks through all keys; yields what is to be said about them.
///
/// # Errors
/// Names the file, the first key with an effect that is not supported, and its value.
pub(super) fn survey(file: &Gguf) -> Result<Vec<String>, Error> {
    let arch = file.text("general.architecture")?.unwrap_or_default();
    let mut unheeded = Vec::new();
    for (key, value) in file.metadata() {
        let (head, end) = key.split_once('.').unwrap_or((key, ""));
        let refused = match head {
            "general" => file_type(end, value),
            "split" => part(end, value),
            "prism" => Some("which rotates weights; such files are not supported".into()),
            "tokenizer" if end == "ggml.suppress_tokens" && !is_nothing(value) => {
                Some("tokens that must never be drawn, which is not supported".into())
            }
            _ => match EFFECTIVE.iter().find(|(name, _)| head == arch && *name == end) {
                Some((_, idle)) if number(value) != Some(*idle) => Some(format!("only {idle} is supported here")),
                _ => None,
            },
        };
        if let Some(why) = refused {
            let text = format!("metadata `{}` is {}; {why}", show(key), print(value));
            return Err(Error::input(file.path(), text));
        }
        let known = match head {
            "tokenizer" => TOKENIZER.contains(&end) || end.starts_with("chat_template."),
            "general" => !end.starts_with("sampling."),
            _ if head == arch => READ.contains(&end) || EFFECTIVE.iter().any(|(name, _)| *name == end),
            _ => true,
        };
        let idle = || IDLE.iter().any(|(name, idle)| *name == end && number(value) == Some(*idle));
        if !known && !is_nothing(value) && !idle() {
            unheeded.push(format!("`{}` ({})", show(key), print(value)));
        }
    }
    let at = |text: String| format!("{}: {text}", file.path().display());
    let said = format!(
        "metadata without effect on a network of {}, here and in llama.cpp: {}",
        show(arch),
        unheeded.join(", ")
    );
    Ok(if unheeded.is_empty() { Vec::new() } else { vec![at(said)] })
}

/// What is wrong with a key `general.*`.
fn file_type(end: &str, value: &Value) -> Option<String> {
    let other = end == "type" && !matches!(value, Value::Text(text) if text == "model");
    other.then(|| "only a file of a model can be opened".into())
}

/// What is wrong with a key `split.*`.
fn part(end: &str, value: &Value) -> Option<String> {
    let several = end == "count" && number(value).is_none_or(|count| count > 1.0);
    several.then(|| "this is one of so many parts: merge them with llama-gguf-split".into())
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(n) => Some(*n as f64),
        Value::Float(x) => Some(*x),
        Value::Bool(b) => Some(f64::from(u8::from(*b))),
        Value::Text(_) | Value::Array(_) => None,
    }
}

/// Whether a value is 0, false or empty.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Text(text) => text.is_empty(),
        Value::Array(list) => list.len == 0,
        _ => number(value) == Some(0.0),
    }
}

/// A value as it may be printed.
fn print(value: &Value) -> String {
    match value {
        Value::Int(n) => n.to_string(),
        Value::Float(x) => x.to_string(),
        Value::Bool(b) => b.to_string(),
        Value::Text(text) => format!("`{}`", show(text)),
        Value::Array(list) => format!("a list of {}", list.len),
    }
}
