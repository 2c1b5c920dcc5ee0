//! The encoder of BERT and its descendants (arXiv 1810.04805): learned positions, attention to the whole sequence, layer
//! normalization after each residual sum; ends in vectors of whole texts, or in classes.

use super::parts::Output;
use super::parts::{LayerNorm, Linear, Parts, RmsNorm, check_dimensions, check_layers};
use super::{Dimensions, Head, OutputKind};
use crate::Error;
use crate::exec::{Activation, Attention, Exec, Index, Pooling};
use crate::source::Source;
use serde::{Deserialize, Serialize};

/// Standard deviation of all weights before training, as in BERT.
const STD: f32 = 0.02;

/// Dimensions and switches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Entries of the token table.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads of attention; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Width of the feed-forward.
    pub intermediate_size: usize,
    /// Function of the feed-forward.
    pub hidden_act: Activation,
    /// Entries of the table of positions.
    pub max_position_embeddings: usize,
    /// Entry of the first token: 2 in RoBERTa, where the first two stand for padding.
    #[serde(default)]
    pub position_offset: u32,
    /// Entries of the table of segments; 0 for none.
    #[serde(default)]
    pub type_vocab_size: usize,
    /// Added to the variance in norms.
    pub layer_norm_eps: f32,
    /// Norms before the output and down projections, by the root of the mean square, as networks trained ternary have them (arXiv
    /// 2504.12285).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sub_norm: bool,
    /// Probability of dropout on the embeddings, before each residual sum, and before a classifier.
    #[serde(default)]
    pub dropout: f32,
    /// Function of a linear layer between the pooled row and the classifier; no such layer if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooler: Option<Activation>,
    /// What the network ends in.
    pub head: Head,
}

/// The parameters of one network.
pub struct Encoder<P> {
    config: Config,
    tokens: P,
    positions: P,
    types: Option<P>,
    norm: LayerNorm<P>,
    layers: Vec<Layer<P>>,
    output: Output<P>,
}

struct Layer<P> {
    q: Linear<P>,
    k: Linear<P>,
    v: Linear<P>,
    attn_sub_norm: Option<RmsNorm<P>>,
    o: Linear<P>,
    attn_norm: LayerNorm<P>,
    up: Linear<P>,
    ffn_sub_norm: Option<RmsNorm<P>>,
    down: Linear<P>,
    ffn_norm: LayerNorm<P>,
}

impl<P> Encoder<P> {
    /// Takes every parameter from a source.
    ///
    /// # Errors
    /// When the configuration contradicts itself or the source lacks a parameter.
    pub fn build(config: &Config, source: &mut dyn Source<P>) -> Result<Self, Error> {
        config.check()?;
        let (c, d) = (config, config.hidden_size);
        let mut parts = Parts::new(source, "model.");
        let tokens = parts.table("embed_tokens", [c.vocab_size, d], STD)?;
        let positions = parts.table("embed_positions", [c.max_position_embeddings, d], STD)?;
        let types = match c.type_vocab_size {
            0 => None,
            entries => Some(parts.table("embed_types", [entries, d], STD)?),
        };
        let norm = parts.layer_norm("embed_norm", d, c.layer_norm_eps)?;
        let layers = (0..c.num_hidden_layers).map(|i| Layer::build(c, i, source)).collect::<Result<_, _>>()?;
        let mut parts = Parts::new(source, "");
        let output = Output::build(c.head, c.pooler, c.dropout, [c.vocab_size, d], &mut parts)?;
        Ok(Encoder { config: c.clone(), tokens, positions, types, norm, layers, output })
    }

    /// Logits `[sequences, classes]`, values `[sequences, 1]`, or vectors `[sequences, width]`.
    pub fn forward<E: Exec<Param = P>>(&self, e: &mut E) -> E::Tensor {
        let c = &self.config;
        let mut x = e.embed(&self.tokens, Index::Tokens);
        if let Some(table) = &self.types {
            let types = e.embed(table, Index::TokenTypes);
            x = e.add(&x, &types);
        }
        let positions = e.embed(&self.positions, Index::Positions { offset: c.position_offset });
        x = e.add(&x, &positions);
        x = self.norm.of(e, &x);
        x = e.dropout(&x, c.dropout);
        for (i, layer) in self.layers.iter().enumerate() {
            x = e.block(i, &x, |e, x| layer.forward(e, c, x));
        }
        self.output.of(e, x, &self.tokens)
    }
}

impl<P> Layer<P> {
    fn build(c: &Config, layer: usize, source: &mut dyn Source<P>) -> Result<Self, Error> {
        let (d, f, eps) = (c.hidden_size, c.intermediate_size, c.layer_norm_eps);
        let sub_norm =
            |parts: &mut Parts<P>, name, width| c.sub_norm.then(|| parts.rms_norm(name, width, eps)).transpose();
        let mut parts = Parts::new(source, format!("model.layers.{layer}."));
        Ok(Layer {
            q: parts.linear("self_attn.q_proj", [d, d], true, STD)?,
            k: parts.linear("self_attn.k_proj", [d, d], true, STD)?,
            v: parts.linear("self_attn.v_proj", [d, d], true, STD)?,
            attn_sub_norm: sub_norm(&mut parts, "self_attn.attn_sub_norm", d)?,
            o: parts.linear("self_attn.o_proj", [d, d], true, STD)?,
            attn_norm: parts.layer_norm("post_attention_layernorm", d, eps)?,
            up: parts.linear("mlp.up_proj", [f, d], true, STD)?,
            ffn_sub_norm: sub_norm(&mut parts, "mlp.ffn_sub_norm", f)?,
            down: parts.linear("mlp.down_proj", [d, f], true, STD)?,
            ffn_norm: parts.layer_norm("post_mlp_layernorm", d, eps)?,
        })
    }

    fn forward<E: Exec<Param = P>>(&self, e: &mut E, c: &Config, x: &E::Tensor) -> E::Tensor {
        let heads = c.num_attention_heads;
        let spec = Attention { causal: false, ..Attention::new(heads, heads, c.hidden_size / heads) };
        let (q, k, v) = (self.q.of(e, x), self.k.of(e, x), self.v.of(e, x));
        let mut a = e.attend(&q, &k, &v, &spec);
        drop((q, k, v));
        if let Some(norm) = &self.attn_sub_norm {
            a = norm.of(e, &a);
        }
        let a = self.o.of(e, &a);
        let a = e.dropout(&a, c.dropout);
        let sum = e.add(x, &a);
        drop(a);
        let x = self.attn_norm.of(e, &sum);
        drop(sum);
        let f = self.up.of(e, &x);
        let mut f = e.activate(&f, c.hidden_act);
        if let Some(norm) = &self.ffn_sub_norm {
            f = norm.of(e, &f);
        }
        let f = self.down.of(e, &f);
        let f = e.dropout(&f, c.dropout);
        let sum = e.add(&x, &f);
        self.ffn_norm.of(e, &sum)
    }
}

impl Dimensions for Config {
    fn output(&self) -> OutputKind {
        self.head.output(self.hidden_size)
    }

    fn head_mut(&mut self) -> Option<&mut Head> {
        Some(&mut self.head)
    }

    fn classifier(&self) -> (Pooling, bool) {
        (Pooling::First, true)
    }
}

impl Config {
    fn check(&self) -> Result<(), Error> {
        let positive = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        check_dimensions(&positive, self.dropout, ("layer_norm_eps", self.layer_norm_eps))?;
        check_layers(self.num_hidden_layers, self.num_attention_heads, self.hidden_size)?;
        if self.position_offset as usize >= self.max_position_embeddings {
            let text =
                format!("is {}, beyond max_position_embeddings {}", self.position_offset, self.max_position_embeddings);
            return Err(Error::config("position_offset", text));
        }
        if let Head::Lm { .. } = self.head {
            return Err(Error::config("head", "is `lm`; an encoder ends in `classify` or `embed`"));
        }
        self.head.check()
    }
}
