//! The small files of a Hub directory: `config.json` in transformers' terms, token ids, and the chat template.

use crate::arch::Head;
use crate::arch::bitnet::{self, RopeScaling};
use crate::card::{MAX_BYTES, read_map};
use crate::checkpoint::CONFIG_FILE;
use crate::container::show;
use crate::exec::Activation;
use crate::{Card, Config, Error};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::Path;

/// Largest size of a configuration: products of two stay far from overflow.
const MAX_NUMBER: usize = 1 << 31;
/// Largest `tokenizer_config.json`, which lists added tokens, bytes.
const MAX_TOKENIZER_CONFIG: u64 = 16 << 20;

/// What a `model_type` takes for granted where `config.json` is silent.
struct Family {
    model_type: &'static str,
    rope_theta: f32,
    rms_norm_eps: f32,
    hidden_act: Activation,
}

/// Every `model_type`: decoders of one layout that differ in switches.
const FAMILIES: &[Family] = &[
    Family { model_type: "bitnet", rope_theta: 5e5, rms_norm_eps: 1e-5, hidden_act: Activation::Relu2 },
    Family { model_type: "llama", rope_theta: 1e4, rms_norm_eps: 1e-6, hidden_act: Activation::Silu },
    Family { model_type: "mistral", rope_theta: 1e4, rms_norm_eps: 1e-6, hidden_act: Activation::Silu },
];

/// transformers' names of the functions.
const FUNCTIONS: &[(&str, Activation)] = &[
    ("relu", Activation::Relu),
    ("relu2", Activation::Relu2),
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("gelu_pytorch_tanh", Activation::Gelu),
    ("gelu_new", Activation::Gelu),
    ("gelu_fast", Activation::Gelu),
];

/// How products of the body are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quantization {
    /// As the weights are stored.
    None,
    /// As in BitNet b1.58; with the meaning of the scales of packed matrices, where they have one.
    Bitnet(Option<ScaleUse>),
}

/// What `weight_scale` is to the codes of its matrix; see `linear_class` in transformers' `integrations/bitnet.py`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScaleUse {
    /// `bitlinear`: outputs are divided by it.
    Divides,
    /// `autobitlinear`: outputs are multiplied with it.
    Multiplies,
}

/// What the small files say.
pub(super) struct Read {
    pub card: Card,
    pub quantization: Quantization,
    pub notices: Vec<String>,
}

/// Whether a `config.json` is one of transformers.
pub(super) fn is_foreign(path: &Path) -> bool {
    read_map(path).is_ok_and(|(map, _)| map.contains_key("model_type") && !map.contains_key("architecture"))
}

/// Reads the small files of a directory; `sub_norm` tells whether its weights have sub-norms.
///
/// # Errors
/// Names file and field; what would change results and is not supported is refused by its name.
pub(super) fn read(directory: &Path, sub_norm: bool) -> Result<Read, Error> {
    let path = directory.join(CONFIG_FILE);
    let at = |e: Error| Error { path: Some(path.clone()), ..e };
    let (map, mut notices) = read_map(&path)?;
    let family = family(&map).map_err(at)?;
    let config = network(&map, family, sub_norm).map_err(at)?;
    let quantization = quantization(&map, family).map_err(at)?;
    let context = size(&map, "max_position_embeddings").map_err(at)?.unwrap_or(2048);
    let window = size(&map, "sliding_window").map_err(at)?.filter(|window| *window < context);
    if let Some(window) = window {
        notices.push(format!("{}: `sliding_window` shortens the context to {window}", path.display()));
    }
    let context = window.unwrap_or(context);
    if context == 0 {
        return Err(at(Error::config("max_position_embeddings", "is 0; it must be at least 1")));
    }
    let mut card = Card::new(Config::BitNet(config), context);
    card.bos_token_id = ids(&map, "bos_token_id").map_err(at)?.first().copied();
    card.eos_token_ids = ids(&map, "eos_token_id").map_err(at)?;
    card.chat_template = chat_template(directory)?;
    let generation = directory.join("generation_config.json");
    if generation.exists() {
        let (map, _) = read_map(&generation)?;
        let more = ids(&map, "eos_token_id").map_err(|e| Error { path: Some(generation), ..e })?;
        card.eos_token_ids.extend(more);
        card.eos_token_ids.sort_unstable();
        card.eos_token_ids.dedup();
    }
    Ok(Read { card, quantization, notices })
}

fn family(map: &Map<String, Value>) -> Result<&'static Family, Error> {
    let name: String = get(map, "model_type")?.unwrap_or_default();
    FAMILIES.iter().find(|family| family.model_type == name).ok_or_else(|| {
        let known: Vec<_> = FAMILIES.iter().map(|family| family.model_type).collect();
        let hint = crate::nearest(&name, &known).map_or(String::new(), |n| format!("; did you mean `{n}`?"));
        let text = format!("is `{}`, which is unknown{hint} supported: {}", show(&name), known.join(", "));
        Error::config("model_type", text)
    })
}

fn network(map: &Map<String, Value>, family: &Family, sub_norm: bool) -> Result<bitnet::Config, Error> {
    for field in ["attention_bias", "mlp_bias"] {
        if get(map, field)?.unwrap_or(false) {
            return Err(Error::config(field, "is true; linear layers with a bias are not supported"));
        }
    }
    let need = |field: &str| size(map, field)?.ok_or_else(|| Error::config(field, "is missing"));
    let (hidden_size, heads) = (need("hidden_size")?, need("num_attention_heads")?);
    let head_dim = match size(map, "head_dim")? {
        Some(given) => given,
        None if heads > 0 && hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => {
            let text = format!("is {heads}, which does not divide hidden_size {hidden_size}");
            return Err(Error::config("num_attention_heads", text));
        }
    };
    let (rope_theta, rope_scaling) = rope(map, family)?;
    Ok(bitnet::Config {
        vocab_size: need("vocab_size")?,
        hidden_size,
        num_hidden_layers: need("num_hidden_layers")?,
        num_attention_heads: heads,
        num_key_value_heads: size(map, "num_key_value_heads")?.unwrap_or(heads),
        head_dim,
        intermediate_size: need("intermediate_size")?,
        hidden_act: function(map, family)?,
        rope_theta,
        rope_scaling,
        rms_norm_eps: get(map, "rms_norm_eps")?.unwrap_or(family.rms_norm_eps),
        sub_norm,
        causal: true,
        bigram_buckets: 0,
        dropout: 0.0,
        head: Head::Lm { tied: get(map, "tie_word_embeddings")?.unwrap_or(false) },
    })
}

fn function(map: &Map<String, Value>, family: &Family) -> Result<Activation, Error> {
    let Some(name) = get::<String>(map, "hidden_act")? else {
        return Ok(family.hidden_act);
    };
    FUNCTIONS.iter().find(|(known, _)| *known == name).map(|(_, f)| *f).ok_or_else(|| {
        let known: Vec<_> = FUNCTIONS.iter().map(|(name, _)| *name).collect();
        Error::config("hidden_act", format!("is `{}`; supported: {}", show(&name), known.join(", ")))
    })
}

/// Base and scaling of the rotary positions; newer files hold both in `rope_parameters`.
fn rope(map: &Map<String, Value>, family: &Family) -> Result<(f32, Option<RopeScaling>), Error> {
    let field =
        if map.get("rope_parameters").is_some_and(Value::is_object) { "rope_parameters" } else { "rope_scaling" };
    let inner: Map<String, Value> = get(map, field)?.unwrap_or_default();
    let theta = match get(&inner, "rope_theta")? {
        None => get(map, "rope_theta")?,
        given => given,
    };
    for place in [map, &inner] {
        if let Some(factor) = get::<f32>(place, "partial_rotary_factor")?.filter(|factor| *factor != 1.0) {
            return Err(Error::config("partial_rotary_factor", format!("is {factor}; only whole heads are rotated")));
        }
    }
    let kind = match get::<String>(&inner, "rope_type")? {
        None => get(&inner, "type")?,
        given => given,
    };
    let number = |key: &str| {
        let missing = || Error::config(field, format!("is of type llama3, but has no `{key}`"));
        get::<f32>(&inner, key)?.ok_or_else(missing)
    };
    let scaling = match kind.as_deref() {
        None | Some("default") => None,
        Some("llama3") => Some(RopeScaling {
            factor: number("factor")?,
            low_freq_factor: number("low_freq_factor")?,
            high_freq_factor: number("high_freq_factor")?,
            original_max_position_embeddings: number("original_max_position_embeddings")?,
        }),
        Some(other) => {
            let text = format!("is of type `{}`; supported: default, llama3", show(other));
            return Err(Error::config(field, text));
        }
    };
    Ok((theta.unwrap_or(family.rope_theta), scaling))
}

fn quantization(map: &Map<String, Value>, family: &Family) -> Result<Quantization, Error> {
    let field = "quantization_config";
    let Some(inner) = get::<Map<String, Value>>(map, field)? else {
        return Ok(if family.model_type == "bitnet" { Quantization::Bitnet(None) } else { Quantization::None });
    };
    let method: String = get(&inner, "quant_method")?.unwrap_or_default();
    if method != "bitnet" {
        let text = format!("has `quant_method` `{}`; supported: bitnet", show(&method));
        return Err(Error::config(field, format!("{text}. Fetch the unquantized model and quantize it here")));
    }
    if get(&inner, "use_rms_norm")?.unwrap_or(false) {
        return Err(Error::config(field, "has `use_rms_norm`; norms inside linear layers are not supported"));
    }
    let kept: Vec<String> = get(&inner, "modules_to_not_convert")?.unwrap_or_default();
    let outside = |name: &str| ["lm_head", "embed", "norm"].iter().any(|part| name.contains(part));
    if let Some(name) = kept.iter().find(|name| !outside(name)) {
        let text = format!("has `{}` in `modules_to_not_convert`; all of the body must be ternary", show(name));
        return Err(Error::config(field, text));
    }
    let class: Option<String> = get(&inner, "linear_class")?;
    match class.as_deref() {
        None | Some("bitlinear") => Ok(Quantization::Bitnet(Some(ScaleUse::Divides))),
        Some("autobitlinear") => Ok(Quantization::Bitnet(Some(ScaleUse::Multiplies))),
        Some(other) => {
            let text = format!("has `linear_class` `{}`; supported: bitlinear, autobitlinear", show(other));
            Err(Error::config(field, text))
        }
    }
}

/// `chat_template.jinja`, else the template in `tokenizer_config.json`.
fn chat_template(directory: &Path) -> Result<Option<String>, Error> {
    let path = directory.join("chat_template.jinja");
    if path.exists() {
        let text = String::from_utf8(read_small(&path, MAX_BYTES)?);
        let invalid = |e: std::string::FromUtf8Error| {
            Error::input(&path, format!("is not UTF-8 at byte {}", e.utf8_error().valid_up_to()))
        };
        return text.map(Some).map_err(invalid);
    }
    let path = directory.join("tokenizer_config.json");
    if !path.exists() {
        return Ok(None);
    }
    let map: Map<String, Value> = serde_json::from_slice(&read_small(&path, MAX_TOKENIZER_CONFIG)?)
        .map_err(|e| Error::input(&path, format!("not a JSON object: {e}")))?;
    let template = match map.get("chat_template") {
        Some(Value::String(text)) => Some(text),
        // Several by name; the one for a plain chat is called `default`.
        Some(Value::Array(list)) => {
            let default = list.iter().find(|entry| entry["name"] == "default").or(list.first());
            match default.map(|entry| &entry["template"]) {
                Some(Value::String(text)) => Some(text),
                _ => None,
            }
        }
        _ => None,
    };
    Ok(template.cloned())
}

/// The content of a regular file of at most `most` bytes.
///
/// # Errors
/// When it is none, or cannot be read.
pub(super) fn read_small(path: &Path, most: u64) -> Result<Vec<u8>, Error> {
    let meta = std::fs::metadata(path).map_err(|e| Error::io(path, &e))?;
    if !meta.is_file() || meta.len() > most {
        return Err(Error::input(path, format!("is not a regular file of at most {most} bytes")));
    }
    std::fs::read(path).map_err(|e| Error::io(path, &e))
}

/// A field, if it is there and not null.
fn get<T: for<'de> Deserialize<'de>>(map: &Map<String, Value>, field: &str) -> Result<Option<T>, Error> {
    let value = map.get(field).filter(|value| !value.is_null());
    value.map(|value| T::deserialize(value).map_err(|e| Error::config(field, e))).transpose()
}

fn size(map: &Map<String, Value>, field: &str) -> Result<Option<usize>, Error> {
    match get::<u64>(map, field)? {
        Some(n) if n > MAX_NUMBER as u64 => Err(Error::config(field, format!("is {n}, more than {MAX_NUMBER}"))),
        given => Ok(given.map(|n| n as usize)),
    }
}

/// A token id, or a list of them.
fn ids(map: &Map<String, Value>, field: &str) -> Result<Vec<u32>, Error> {
    match map.get(field) {
        Some(Value::Array(_)) => Ok(get(map, field)?.unwrap_or_default()),
        _ => Ok(get(map, field)?.into_iter().collect()),
    }
}
