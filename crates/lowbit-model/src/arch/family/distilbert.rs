//! DistilBERT (arXiv 1910.01108): half of BERT's layers, no segments, a linear layer with ReLU before the classifier.

use super::names::Names;
use super::{Family, Network, Published};
use crate::Error;
use crate::arch::encoder::Config;
use crate::exec::{Activation, Pooling};

pub(super) static FAMILY: Family = Family {
    model_type: "distilbert",
    ternary: false,
    ids: [None, None],
    hub,
    names: Some(&Names {
        body: "distilbert.",
        layers: "transformer.layer.",
        of_layer: &[
            ("self_attn.q_proj", "attention.q_lin"),
            ("self_attn.k_proj", "attention.k_lin"),
            ("self_attn.v_proj", "attention.v_lin"),
            ("self_attn.o_proj", "attention.out_lin"),
            ("post_attention_layernorm", "sa_layer_norm"),
            ("mlp.up_proj", "ffn.lin1"),
            ("mlp.down_proj", "ffn.lin2"),
            ("post_mlp_layernorm", "output_layer_norm"),
        ],
        others: &[
            ("model.embed_tokens", "embeddings.word_embeddings"),
            ("model.embed_positions", "embeddings.position_embeddings"),
            ("model.embed_norm", "embeddings.LayerNorm"),
            ("pooler", "pre_classifier"),
            ("classifier", "classifier"),
        ],
        transposed: false,
        constants: &[
            "embeddings.position_ids",
            "vocab_layer_norm.bias",
            "vocab_layer_norm.weight",
            "vocab_projector.bias",
            "vocab_projector.weight",
            "vocab_transform.bias",
            "vocab_transform.weight",
        ],
    }),
    gguf: &[],
};

fn hub(network: &Published) -> Result<Network, Error> {
    let keys = &network.keys;
    // Sinusoids are stored like positions that were learned.
    for key in ["sinusoidal_pos_embds", "qa_dropout", "seq_classif_dropout", "tie_weights_", "tie_word_embeddings"] {
        keys.value(key);
    }
    let context = keys.need("max_position_embeddings")?;
    let (head, labels) = network.encoder_head(Pooling::First)?;
    let config = Config {
        vocab_size: keys.need("vocab_size")?,
        hidden_size: keys.need("dim")?,
        num_hidden_layers: keys.need("n_layers")?,
        num_attention_heads: keys.need("n_heads")?,
        intermediate_size: keys.need("hidden_dim")?,
        hidden_act: keys.function("activation")?.unwrap_or(Activation::GeluErf),
        max_position_embeddings: context,
        position_offset: 0,
        type_vocab_size: 0,
        layer_norm_eps: 1e-12,
        sub_norm: false,
        dropout: 0.0,
        pooler: Some(Activation::Relu),
        head,
    };
    Ok(Network { config: crate::Config::Encoder(config), context, labels })
}
