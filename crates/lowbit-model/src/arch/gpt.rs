//! The decoder of GPT-2 and its descendants: learned positions, causal attention, layer normalization before each
//! sub-layer, a feed-forward of two products (GPT-Neo adds layers that see a window alone).

use super::parts::Output;
use super::parts::{LayerNorm, Linear, Parts, RmsNorm, check_dimensions, check_layers};
use super::{Dimensions, Head, OutputKind};
use crate::Error;
use crate::exec::{Activation, Attention, Exec, Index};
use crate::source::Source;
use serde::{Deserialize, Serialize};

/// Standard deviation of weights before training, as in GPT-2; projections into the residual stream begin smaller.
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
    /// Entries of the table of positions: the longest sequence.
    pub max_position_embeddings: usize,
    /// Biases of queries, keys and values.
    pub qkv_bias: bool,
    /// Factor of the scores; `1 / sqrt(head_dim)` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention_scale: Option<f32>,
    /// Tokens that attention sees, the own one included; all before it if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sliding_window: Option<usize>,
    /// Layers that see all tokens nonetheless.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub full_attention_layers: Vec<usize>,
    /// Added to the variance in norms.
    pub layer_norm_eps: f32,
    /// Norms before the output and down projections, by the root of the mean square, as networks trained ternary have them (arXiv
    /// 2504.12285).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sub_norm: bool,
    /// Probability of dropout on the embeddings, before each residual sum, and before a classifier.
    #[serde(default)]
    pub dropout: f32,
    /// What the network ends in.
    pub head: Head,
}

/// The parameters of one network.
pub struct Gpt<P> {
    config: Config,
    tokens: P,
    positions: P,
    layers: Vec<Layer<P>>,
    norm: LayerNorm<P>,
    output: Output<P>,
}

struct Layer<P> {
    attn_norm: LayerNorm<P>,
    q: Linear<P>,
    k: Linear<P>,
    v: Linear<P>,
    attn_sub_norm: Option<RmsNorm<P>>,
    o: Linear<P>,
    ffn_norm: LayerNorm<P>,
    up: Linear<P>,
    ffn_sub_norm: Option<RmsNorm<P>>,
    down: Linear<P>,
}

impl<P> Gpt<P> {
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
        let layers = (0..c.num_hidden_layers).map(|i| Layer::build(c, i, source)).collect::<Result<_, _>>()?;
        let norm = Parts::new(source, "model.").layer_norm("norm", d, c.layer_norm_eps)?;
        let mut parts = Parts::new(source, "");
        let output = Output::build(c.head, None, c.dropout, [c.vocab_size, d], &mut parts)?;
        Ok(Gpt { config: c.clone(), tokens, positions, layers, norm, output })
    }

    /// Logits: `[tokens, vocabulary]`, or `[sequences, classes]` for a classifier; vectors `[sequences, width]`.
    pub fn forward<E: Exec<Param = P>>(&self, e: &mut E) -> E::Tensor {
        let c = &self.config;
        let tokens = e.embed(&self.tokens, Index::Tokens);
        let positions = e.embed(&self.positions, Index::Positions { offset: 0 });
        let mut x = e.add(&tokens, &positions);
        drop((tokens, positions));
        x = e.dropout(&x, c.dropout);
        for (i, layer) in self.layers.iter().enumerate() {
            x = e.block(i, &x, |e, x| layer.forward(e, c, i, x));
        }
        x = self.norm.of(e, &x);
        self.output.of(e, x, &self.tokens)
    }
}

impl<P> Layer<P> {
    fn build(c: &Config, layer: usize, source: &mut dyn Source<P>) -> Result<Self, Error> {
        let (d, f, eps) = (c.hidden_size, c.intermediate_size, c.layer_norm_eps);
        let sub_norm =
            |parts: &mut Parts<P>, name, width| c.sub_norm.then(|| parts.rms_norm(name, width, eps)).transpose();
        let residual = STD / (2.0 * c.num_hidden_layers as f32).sqrt();
        let mut parts = Parts::new(source, format!("model.layers.{layer}."));
        Ok(Layer {
            attn_norm: parts.layer_norm("input_layernorm", d, eps)?,
            q: parts.linear("self_attn.q_proj", [d, d], c.qkv_bias, STD)?,
            k: parts.linear("self_attn.k_proj", [d, d], c.qkv_bias, STD)?,
            v: parts.linear("self_attn.v_proj", [d, d], c.qkv_bias, STD)?,
            attn_sub_norm: sub_norm(&mut parts, "self_attn.attn_sub_norm", d)?,
            o: parts.linear("self_attn.o_proj", [d, d], true, residual)?,
            ffn_norm: parts.layer_norm("post_attention_layernorm", d, eps)?,
            up: parts.linear("mlp.up_proj", [f, d], true, STD)?,
            ffn_sub_norm: sub_norm(&mut parts, "mlp.ffn_sub_norm", f)?,
            down: parts.linear("mlp.down_proj", [d, f], true, residual)?,
        })
    }

    fn forward<E: Exec<Param = P>>(&self, e: &mut E, c: &Config, layer: usize, x: &E::Tensor) -> E::Tensor {
        let heads = c.num_attention_heads;
        let plain = Attention::new(heads, heads, c.hidden_size / heads);
        let spec = Attention {
            window: c.sliding_window.filter(|_| !c.full_attention_layers.contains(&layer)),
            scale: c.attention_scale.unwrap_or(plain.scale),
            ..plain
        };
        let h = self.attn_norm.of(e, x);
        let (q, k, v) = (self.q.of(e, &h), self.k.of(e, &h), self.v.of(e, &h));
        drop(h);
        let mut a = e.attend(&q, &k, &v, &spec);
        drop((q, k, v));
        if let Some(norm) = &self.attn_sub_norm {
            a = norm.of(e, &a);
        }
        let a = self.o.of(e, &a);
        let a = e.dropout(&a, c.dropout);
        let x = e.add(x, &a);
        drop(a);
        let h = self.ffn_norm.of(e, &x);
        let f = self.up.of(e, &h);
        drop(h);
        let mut f = e.activate(&f, c.hidden_act);
        if let Some(norm) = &self.ffn_sub_norm {
            f = norm.of(e, &f);
        }
        let f = self.down.of(e, &f);
        let f = e.dropout(&f, c.dropout);
        e.add(&x, &f)
    }
}

impl Dimensions for Config {
    fn output(&self) -> OutputKind {
        self.head.output(self.hidden_size)
    }

    fn head_mut(&mut self) -> Option<&mut Head> {
        Some(&mut self.head)
    }

    fn is_tied(&self) -> bool {
        self.head == Head::Lm { tied: true }
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
            ("sliding_window", self.sliding_window.unwrap_or(1)),
        ];
        check_dimensions(&positive, self.dropout, ("layer_norm_eps", self.layer_norm_eps))?;
        check_layers(self.num_hidden_layers, self.num_attention_heads, self.hidden_size)?;
        match self.attention_scale {
            Some(scale) if !(scale.is_finite() && scale > 0.0) => {
                Err(Error::config("attention_scale", format!("is {scale}; it must be positive")))
            }
            _ => self.head.check(),
        }
    }
}
