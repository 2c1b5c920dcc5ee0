//! BERT (arXiv 1810.04805), and what sentence encoders make of it (arXiv 1908.10084).

use super::keys::Keys;
use super::names::Names;
use super::{Family, Network, Published};
use crate::Error;
use crate::arch::encoder::Config;
use crate::container::show;
use crate::exec::{Activation, Pooling};

pub(super) static FAMILY: Family = Family {
    model_type: "bert",
    ternary: false,
    ids: [None, None],
    hub: |network| config(network, 0),
    names: Some(&Names {
        body: "bert.",
        layers: "encoder.layer.",
        of_layer: LAYER,
        others: &[
            ("model.embed_tokens", "embeddings.word_embeddings"),
            ("model.embed_positions", "embeddings.position_embeddings"),
            ("model.embed_types", "embeddings.token_type_embeddings"),
            ("model.embed_norm", "embeddings.LayerNorm"),
            ("pooler", "pooler.dense"),
            ("classifier", "classifier"),
        ],
        transposed: false,
        constants: CONSTANTS,
    }),
    gguf: &[],
};

/// Parts of a layer.
pub(super) const LAYER: &[(&str, &str)] = &[
    ("self_attn.q_proj", "attention.self.query"),
    ("self_attn.k_proj", "attention.self.key"),
    ("self_attn.v_proj", "attention.self.value"),
    ("self_attn.o_proj", "attention.output.dense"),
    ("post_attention_layernorm", "attention.output.LayerNorm"),
    ("mlp.up_proj", "intermediate.dense"),
    ("mlp.down_proj", "output.dense"),
    ("post_mlp_layernorm", "output.LayerNorm"),
];

/// Numbers of positions, and the heads that guess masked words and next sentences.
pub(super) const CONSTANTS: &[&str] = &[
    "embeddings.position_ids",
    "embeddings.token_type_ids",
    "cls.predictions.bias",
    "cls.predictions.decoder.bias",
    "cls.predictions.decoder.weight",
    "cls.predictions.transform.LayerNorm.bias",
    "cls.predictions.transform.LayerNorm.weight",
    "cls.predictions.transform.dense.bias",
    "cls.predictions.transform.dense.weight",
    "cls.seq_relationship.bias",
    "cls.seq_relationship.weight",
];

/// Reads the keys that BERT and RoBERTa share; the first token has the position `offset`.
pub(super) fn config(network: &Published, offset: usize) -> Result<Network, Error> {
    let keys = &network.keys;
    absolute(keys)?;
    keys.value("tie_word_embeddings");
    if keys.get("is_decoder")? == Some(true) {
        return Err(Error::config("is_decoder", "is true; networks of this model_type are read as encoders alone"));
    }
    let positions = keys.need("max_position_embeddings")?;
    let (head, labels) = network.encoder_head(Pooling::First)?;
    let config = Config {
        vocab_size: keys.need("vocab_size")?,
        hidden_size: keys.need("hidden_size")?,
        num_hidden_layers: keys.need("num_hidden_layers")?,
        num_attention_heads: keys.need("num_attention_heads")?,
        intermediate_size: keys.need("intermediate_size")?,
        hidden_act: keys.function("hidden_act")?.unwrap_or(Activation::GeluErf),
        max_position_embeddings: positions,
        position_offset: offset as u32,
        type_vocab_size: keys.size("type_vocab_size")?.unwrap_or(2),
        layer_norm_eps: keys.get("layer_norm_eps")?.unwrap_or(1e-12),
        sub_norm: false,
        dropout: 0.0,
        pooler: Some(Activation::Tanh),
        head,
    };
    let context = positions.saturating_sub(offset);
    Ok(Network { config: crate::Config::Encoder(config), context, labels })
}

/// Refuses positions that are not learned per place.
fn absolute(keys: &Keys) -> Result<(), Error> {
    let key = "position_embedding_type";
    match keys.get::<String>(key)?.as_deref() {
        None | Some("absolute") => Ok(()),
        Some(other) => Err(Error::config(key, format!("is `{}`; supported: absolute", show(other)))),
    }
}
