//! GPT-2 (Radford et al., Language Models are Unsupervised Multitask Learners, 2019).

use super::names::Names;
use super::{Family, Network, Published};
use crate::Error;
use crate::arch::gpt::Config;
use crate::exec::Activation;

pub(super) static FAMILY: Family = Family {
    model_type: "gpt2",
    ternary: false,
    ids: [Some(50_256), Some(50_256)],
    hub,
    names: Some(&Names {
        body: "transformer.",
        layers: "h.",
        of_layer: &[
            ("input_layernorm", "ln_1"),
            ("self_attn.q_proj", "attn.c_attn"),
            ("self_attn.k_proj", "attn.c_attn"),
            ("self_attn.v_proj", "attn.c_attn"),
            ("self_attn.o_proj", "attn.c_proj"),
            ("post_attention_layernorm", "ln_2"),
            ("mlp.up_proj", "mlp.c_fc"),
            ("mlp.down_proj", "mlp.c_proj"),
        ],
        others: OTHERS,
        transposed: true,
        constants: &[".attn.bias", ".attn.masked_bias"],
    }),
    gguf: &[],
};

/// Parts outside of layers.
pub(super) const OTHERS: &[(&str, &str)] = &[
    ("model.embed_tokens", "wte"),
    ("model.embed_positions", "wpe"),
    ("model.norm", "ln_f"),
    ("lm_head", "lm_head"),
    ("classifier", "score"),
];

fn hub(network: &Published) -> Result<Network, Error> {
    let keys = &network.keys;
    // The order of operations in half precision, and heads that are not read.
    for key in ["n_ctx", "reorder_and_upcast_attn"] {
        keys.value(key);
    }
    for key in ["activation", "first_dropout", "proj_to_labels", "type", "use_proj"] {
        keys.value(&format!("summary_{key}"));
    }
    let (hidden_size, context) = (keys.need("n_embd")?, keys.need("n_positions")?);
    let (head, labels) = network.decoder_head(true)?;
    let config = Config {
        vocab_size: keys.need("vocab_size")?,
        hidden_size,
        num_hidden_layers: keys.need("n_layer")?,
        num_attention_heads: keys.need("n_head")?,
        intermediate_size: keys.size("n_inner")?.unwrap_or(4 * hidden_size),
        hidden_act: keys.function("activation_function")?.unwrap_or(Activation::GeluTanh),
        max_position_embeddings: context,
        qkv_bias: true,
        attention_scale: keys.get("scale_attn_weights")?.filter(|scaled| !scaled).map(|_: bool| 1.0),
        sliding_window: None,
        full_attention_layers: Vec::new(),
        layer_norm_eps: keys.get("layer_norm_epsilon")?.unwrap_or(1e-5),
        sub_norm: false,
        dropout: 0.0,
        head,
    };
    Ok(Network { config: crate::Config::Gpt(config), context, labels })
}
