//! A decoder in the terms of transformers' `config.json`.

use super::Config;
use crate::Error;
use crate::arch::Head;
use crate::arch::family::{Published, keys::Keys};
use crate::container::show;
use crate::exec::Activation;
use crate::rope::{Llama3, RopeScaling};
use serde_json::{Map, Value};

/// What a family takes for granted where `config.json` is silent.
pub(crate) struct Defaults {
    /// Base of the rotary positions.
    pub rope_theta: f32,
    /// Added to the mean square in norms.
    pub rms_norm_eps: f32,
    /// Function of the gate.
    pub act: Activation,
}

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

/// Reads the configuration of a network.
///
/// # Errors
/// Names key and value; what would change results and is not supported is refused by its name.
pub(crate) fn config(network: &Published, defaults: &Defaults) -> Result<crate::Config, Error> {
    let keys = network.keys;
    for key in ["attention_bias", "mlp_bias"] {
        if keys.get(key)?.unwrap_or(false) {
            return Err(Error::config(key, "is true; linear layers with a bias are not supported"));
        }
    }
    let (hidden_size, heads) = (keys.need("hidden_size")?, keys.need("num_attention_heads")?);
    let head_dim = match keys.size("head_dim")? {
        Some(given) => given,
        None if heads > 0 && hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => {
            let text = format!("is {heads}, which does not divide hidden_size {hidden_size}");
            return Err(Error::config("num_attention_heads", text));
        }
    };
    let (rope_theta, rope_scaling) = rope(&keys)?;
    Ok(crate::Config::Decoder(Config {
        vocab_size: keys.need("vocab_size")?,
        hidden_size,
        num_hidden_layers: keys.need("num_hidden_layers")?,
        num_attention_heads: heads,
        num_key_value_heads: keys.size("num_key_value_heads")?.unwrap_or(heads),
        head_dim,
        intermediate_size: keys.need("intermediate_size")?,
        hidden_act: function(&keys)?.unwrap_or(defaults.act),
        rope_theta: rope_theta.unwrap_or(defaults.rope_theta),
        rope_scaling,
        rms_norm_eps: keys.get("rms_norm_eps")?.unwrap_or(defaults.rms_norm_eps),
        sub_norm: (network.stores)(".attn_sub_norm.weight") || (network.stores)(".ffn_sub_norm.weight"),
        causal: true,
        bigram_buckets: 0,
        dropout: 0.0,
        head: Head::Lm { tied: keys.get("tie_word_embeddings")?.unwrap_or(false) },
    }))
}

fn function(keys: &Keys) -> Result<Option<Activation>, Error> {
    let Some(name) = keys.get::<String>("hidden_act")? else {
        return Ok(None);
    };
    FUNCTIONS.iter().find(|(known, _)| *known == name).map(|(_, f)| Some(*f)).ok_or_else(|| {
        let known: Vec<_> = FUNCTIONS.iter().map(|(name, _)| *name).collect();
        Error::config("hidden_act", format!("is `{}`; supported: {}", show(&name), known.join(", ")))
    })
}

/// Base and scaling of the rotary positions; newer files hold both in `rope_parameters`.
fn rope(keys: &Keys) -> Result<(Option<f32>, Option<RopeScaling>), Error> {
    let newer = keys.0.get("rope_parameters").is_some_and(Value::is_object);
    let field = if newer { "rope_parameters" } else { "rope_scaling" };
    let inner: Map<String, Value> = keys.get(field)?.unwrap_or_default();
    let inner = Keys(&inner);
    let theta = match inner.get("rope_theta")? {
        None => keys.get("rope_theta")?,
        given => given,
    };
    for place in [keys, &inner] {
        if let Some(factor) = place.get::<f32>("partial_rotary_factor")?.filter(|factor| *factor != 1.0) {
            return Err(Error::config("partial_rotary_factor", format!("is {factor}; only whole heads are rotated")));
        }
    }
    let kind = match inner.get::<String>("rope_type")? {
        None => inner.get("type")?,
        given => given,
    };
    let number = |key: &str| {
        let missing = || Error::config(field, format!("is of type llama3, but has no `{key}`"));
        inner.get::<f64>(key)?.ok_or_else(missing)
    };
    let scaling = match kind.as_deref() {
        None | Some("default") => None,
        Some("llama3") => Some(RopeScaling::Llama3(Llama3 {
            factor: number("factor")?,
            low_freq_factor: number("low_freq_factor")?,
            high_freq_factor: number("high_freq_factor")?,
            original_max_position_embeddings: number("original_max_position_embeddings")?,
        })),
        Some(other) => {
            let text = format!("is of type `{}`; supported: default, llama3", show(other));
            return Err(Error::config(field, text));
        }
    };
    Ok((theta, scaling))
}
