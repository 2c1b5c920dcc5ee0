//! GPT-Neo (Black et al., 2021): GPT-2 with layers that see a window alone, scores that are not scaled, and no biases of queries,
//! keys and values.

use super::gpt2::OTHERS;
use super::names::Names;
use super::{Family, Network, Published, keys::Keys};
use crate::Error;
use crate::arch::gpt::Config;
use crate::container::show;
use crate::exec::Activation;
use serde_json::Value;

pub(super) static FAMILY: Family = Family {
    model_type: "gpt_neo",
    ternary: false,
    ids: [Some(50_256), Some(50_256)],
    hub,
    names: Some(&Names {
        body: "transformer.",
        layers: "h.",
        of_layer: &[
            ("input_layernorm", "ln_1"),
            ("self_attn.q_proj", "attn.attention.q_proj"),
            ("self_attn.k_proj", "attn.attention.k_proj"),
            ("self_attn.v_proj", "attn.attention.v_proj"),
            ("self_attn.o_proj", "attn.attention.out_proj"),
            ("post_attention_layernorm", "ln_2"),
            ("mlp.up_proj", "mlp.c_fc"),
            ("mlp.down_proj", "mlp.c_proj"),
        ],
        others: OTHERS,
        transposed: false,
        constants: &[".attn.attention.bias", ".attn.attention.masked_bias"],
    }),
    gguf: &[],
};

fn hub(network: &Published) -> Result<Network, Error> {
    let keys = &network.keys;
    let (hidden_size, layers) = (keys.need("hidden_size")?, keys.need("num_layers")?);
    let context = keys.need("max_position_embeddings")?;
    let window = keys.size("window_size")?.unwrap_or(256);
    let full = full_layers(keys, layers)?;
    let (head, labels) = network.decoder_head(true)?;
    let config = Config {
        vocab_size: keys.need("vocab_size")?,
        hidden_size,
        num_hidden_layers: layers,
        num_attention_heads: keys.need("num_heads")?,
        intermediate_size: keys.size("intermediate_size")?.unwrap_or(4 * hidden_size),
        hidden_act: keys.function("activation_function")?.unwrap_or(Activation::GeluTanh),
        max_position_embeddings: context,
        qkv_bias: false,
        attention_scale: Some(1.0),
        sliding_window: Some(window).filter(|_| full.len() < layers),
        full_attention_layers: if full.len() < layers { full } else { Vec::new() },
        layer_norm_eps: keys.get("layer_norm_epsilon")?.unwrap_or(1e-5),
        sub_norm: false,
        dropout: 0.0,
        head,
    };
    Ok(Network { config: crate::Config::Gpt(config), context, labels })
}

/// The layers that `attention_types` calls global: a list of pairs of a pattern and how often it is repeated.
fn full_layers(keys: &Keys, layers: usize) -> Result<Vec<usize>, Error> {
    // Follows from the types.
    keys.value("attention_layers");
    let key = "attention_types";
    let types: Vec<(Vec<Value>, usize)> = match keys.get(key)? {
        Some(types) => types,
        None => vec![(vec!["global".into(), "local".into()], layers.div_ceil(2))],
    };
    let kinds = types.iter().flat_map(|(pattern, count)| std::iter::repeat_n(pattern, *count).flatten());
    let (mut full, mut found) = (Vec::new(), 0);
    for kind in kinds.take(layers + 1) {
        match kind.as_str() {
            Some("global") => full.push(found),
            Some("local") => {}
            _ => {
                let text = format!("has {}; supported: global, local", show(&kind.to_string()));
                return Err(Error::config(key, text));
            }
        }
        found += 1;
    }
    match found == layers || !keys.has(key) {
        true => Ok(full.into_iter().filter(|layer| *layer < layers).collect()),
        false => Err(Error::config(key, format!("does not name {layers} layers, as many as `num_layers` says"))),
    }
}
