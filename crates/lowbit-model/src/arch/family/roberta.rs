//! RoBERTa (arXiv 1907.11692) and XLM-R (arXiv 1911.02116): BERT whose first positions stand for padding.

use super::bert::{LAYER, config};
use super::names::Names;
use super::{Family, Network, Published};
use crate::Error;

pub(super) static FAMILY: Family =
    Family { model_type: "roberta", ternary: false, ids: [Some(0), Some(2)], hub, names: Some(NAMES), gguf: &[] };

pub(super) static XLM: Family =
    Family { model_type: "xlm-roberta", ternary: false, ids: [Some(0), Some(2)], hub, names: Some(NAMES), gguf: &[] };

const NAMES: &Names = &Names {
    body: "roberta.",
    layers: "encoder.layer.",
    of_layer: LAYER,
    others: &[
        ("model.embed_tokens", "embeddings.word_embeddings"),
        ("model.embed_positions", "embeddings.position_embeddings"),
        ("model.embed_types", "embeddings.token_type_embeddings"),
        ("model.embed_norm", "embeddings.LayerNorm"),
        ("pooler", "classifier.dense"),
        ("classifier", "classifier.out_proj"),
    ],
    transposed: false,
    constants: &[
        "embeddings.position_ids",
        "embeddings.token_type_ids",
        "pooler.dense.bias",
        "pooler.dense.weight",
        "lm_head.bias",
        "lm_head.decoder.bias",
        "lm_head.decoder.weight",
        "lm_head.dense.bias",
        "lm_head.dense.weight",
        "lm_head.layer_norm.bias",
        "lm_head.layer_norm.weight",
    ],
};

/// The first token has the position after that of padding.
fn hub(network: &Published) -> Result<Network, Error> {
    let padding = if network.keys.has("pad_token_id") { network.keys.size("pad_token_id")? } else { Some(1) };
    match padding {
        Some(padding) => config(network, padding + 1),
        None => Err(Error::config("pad_token_id", "is null; positions are counted from it")),
    }
}
