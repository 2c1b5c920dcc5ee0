//! The decoder of Llama and its descendants, with the switches in which they differ (BitNet b1.58: arXiv 2402.17764,
//! 2504.12285): RMSNorm, sub-norms, rotary positions, grouped heads, gated feed-forward; language-model or classification
//! head; causal, or looking both ways for classifiers.

pub(crate) mod gguf;
pub(crate) mod gguf_rope;
pub(crate) mod hub;

use super::parts::Output;
use super::parts::{Linear, MAX_LAYERS, Parts, check_dimensions};
use super::{Dimensions, Head, OutputKind, family};
use crate::Error;
use crate::exec::{Activation, Attention, Exec, Index, NormKind};
use crate::rope::{Rope, RopeScaling};
use crate::source::{Init, ParamSpec, Role, Source};
use serde::{Deserialize, Serialize};

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
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Width of the feed-forward.
    pub intermediate_size: usize,
    /// Function of the gate.
    pub hidden_act: Activation,
    /// Base of the rotary positions.
    pub rope_theta: f32,
    /// How rotary positions reach beyond the length of training.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "RopeScaling::read")]
    pub rope_scaling: Option<RopeScaling>,
    /// Added to the mean square in norms.
    pub rms_norm_eps: f32,
    /// Norms before the output and down projections.
    pub sub_norm: bool,
    /// Norms of queries and keys per head, before they are rotated.
    #[serde(default, skip_serializing_if = "is_false")]
    pub qk_norm: bool,
    /// Biases of queries, keys and values.
    #[serde(default, skip_serializing_if = "is_false")]
    pub qkv_bias: bool,
    /// Bias of the output projection of attention.
    #[serde(default, skip_serializing_if = "is_false")]
    pub output_bias: bool,
    /// Biases of the feed-forward.
    #[serde(default, skip_serializing_if = "is_false")]
    pub mlp_bias: bool,
    /// Tokens that attention sees, the own one included; all before it if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sliding_window: Option<usize>,
    /// Layers that see all tokens nonetheless.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub full_attention_layers: Vec<usize>,
    /// Whether tokens see only what is before them.
    pub causal: bool,
    /// Buckets of a hashed table of token pairs that is added to the token vectors; 0 for none.
    #[serde(default)]
    pub bigram_buckets: u32,
    /// Probability of dropout on the embeddings, before each residual sum, and before a classifier.
    #[serde(default)]
    pub dropout: f32,
    /// What the network ends in.
    pub head: Head,
}

struct Layer<P> {
    attn_norm: P,
    q: Linear<P>,
    k: Linear<P>,
    v: Linear<P>,
    /// Of queries and keys.
    qk_norm: Option<[P; 2]>,
    attn_sub_norm: Option<P>,
    o: Linear<P>,
    ffn_norm: P,
    gate: Linear<P>,
    up: Linear<P>,
    ffn_sub_norm: Option<P>,
    down: Linear<P>,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// The parameters of one network.
pub struct Decoder<P> {
    config: Config,
    rope: Rope,
    embed: P,
    bigrams: Option<P>,
    layers: Vec<Layer<P>>,
    norm: P,
    output: Output<P>,
}

impl<P> Decoder<P> {
    /// Takes every parameter from a source.
    ///
    /// # Errors
    /// When the configuration contradicts itself or the source lacks a parameter.
    pub fn build(config: &Config, source: &mut dyn Source<P>) -> Result<Self, Error> {
        config.check()?;
        let c = config;
        let d = c.hidden_size;
        let mut get = |name: String, rows, cols, role, init| {
            source.param(&ParamSpec { name, rows, cols, role, init, positions: 1 })
        };
        let embed =
            get("model.embed_tokens.weight".into(), c.vocab_size, d, Role::Embedding, Init::Normal(c.embed_std()))?;
        let bigrams = (c.bigram_buckets > 0).then(|| {
            let (name, rows) = ("model.embed_bigrams.weight".into(), c.bigram_buckets as usize);
            get(name, rows, d, Role::Embedding, Init::Normal(c.embed_std()))
        });
        let bigrams = bigrams.transpose()?;
        let layers = (0..c.num_hidden_layers).map(|i| Layer::build(c, i, source)).collect::<Result<_, _>>()?;
        let mut get = |name: String, rows, cols, role, init| {
            source.param(&ParamSpec { name, rows, cols, role, init, positions: 1 })
        };
        let norm = get("model.norm.weight".into(), 1, d, Role::Norm, Init::Constant(1.0))?;
        let output = Output::build(c.head, None, c.dropout, [c.vocab_size, d], &mut Parts::new(source, ""))?;
        let rope = Rope::new(c.rope_theta, c.head_dim, c.rope_scaling.as_ref());
        Ok(Decoder { config: c.clone(), rope, embed, bigrams, layers, norm, output })
    }

    /// Logits: `[tokens, vocabulary]`, or `[sequences, classes]` for a classifier.
    pub fn forward<E: Exec<Param = P>>(&self, e: &mut E) -> E::Tensor {
        let c = &self.config;
        let mut x = e.embed(&self.embed, Index::Tokens);
        if let Some(table) = &self.bigrams {
            let pairs = e.embed(table, Index::Bigrams(c.bigram_buckets));
            x = e.add(&x, &pairs);
        }
        x = e.dropout(&x, c.dropout);
        for (i, layer) in self.layers.iter().enumerate() {
            x = e.block(i, &x, |e, x| layer.forward(e, (c, &self.rope), i, x));
        }
        x = e.norm(&x, NormKind::Rms, &self.norm, None, c.rms_norm_eps);
        self.output.of(e, x, &self.embed)
    }
}

impl<P> Layer<P> {
    fn build(c: &Config, layer: usize, source: &mut dyn Source<P>) -> Result<Self, Error> {
        let (d, f, kv) = (c.hidden_size, c.intermediate_size, c.num_key_value_heads * c.head_dim);
        let attn = c.num_attention_heads * c.head_dim;
        let mut get = |part: &str, rows, cols, role, init| {
            let name = format!("model.layers.{layer}.{part}");
            source.param(&ParamSpec { name, rows, cols, role, init, positions: 1 })
        };
        // Projections into the residual stream begin smaller, by their number (GPT-2).
        let shrink = (1.0 / (2 * c.num_hidden_layers) as f32).sqrt();
        let mut linear = |part: &str, rows, cols, bias: bool| {
            let std = (1.0 / cols as f32).sqrt();
            let std = if ["self_attn.o_proj", "mlp.down_proj"].contains(&part) { shrink * std } else { std };
            let weight = get(&format!("{part}.weight"), rows, cols, Role::Body, Init::Normal(std))?;
            let bias = bias.then(|| get(&format!("{part}.bias"), 1, rows, Role::Bias, Init::Constant(0.0)));
            Ok::<_, Error>(Linear { weight, bias: bias.transpose()? })
        };
        let (q, k, v) = (
            linear("self_attn.q_proj", attn, d, c.qkv_bias)?,
            linear("self_attn.k_proj", kv, d, c.qkv_bias)?,
            linear("self_attn.v_proj", kv, d, c.qkv_bias)?,
        );
        let o = linear("self_attn.o_proj", d, attn, c.output_bias)?;
        let (gate, up, down) = (
            linear("mlp.gate_proj", f, d, c.mlp_bias)?,
            linear("mlp.up_proj", f, d, c.mlp_bias)?,
            linear("mlp.down_proj", d, f, c.mlp_bias)?,
        );
        let mut norm = |part: &str, width| get(&format!("{part}.weight"), 1, width, Role::Norm, Init::Constant(1.0));
        let attn_sub_norm = c.sub_norm.then(|| norm("self_attn.attn_sub_norm", attn)).transpose()?;
        let ffn_sub_norm = c.sub_norm.then(|| norm("mlp.ffn_sub_norm", f)).transpose()?;
        let (attn_norm, ffn_norm) = (norm("input_layernorm", d)?, norm("post_attention_layernorm", d)?);
        let qk_norm = match c.qk_norm {
            true => Some([norm("self_attn.q_norm", c.head_dim)?, norm("self_attn.k_norm", c.head_dim)?]),
            false => None,
        };
        Ok(Layer { attn_norm, q, k, v, qk_norm, attn_sub_norm, o, ffn_norm, gate, up, ffn_sub_norm, down })
    }

    fn forward<E: Exec<Param = P>>(
        &self,
        e: &mut E,
        (c, rope): (&Config, &Rope),
        layer: usize,
        x: &E::Tensor,
    ) -> E::Tensor {
        let a = self.attention(e, (c, rope), layer, x);
        let x = e.add(x, &a);
        drop(a);
        let f = self.feed_forward(e, c, &x);
        e.add(&x, &f)
    }

    /// What attention adds to `x`. Values are dropped when they are done with, which bounds the memory of a long prompt.
    fn attention<E: Exec<Param = P>>(
        &self,
        e: &mut E,
        (c, rope): (&Config, &Rope),
        layer: usize,
        x: &E::Tensor,
    ) -> E::Tensor {
        let spec = Attention {
            rope: Some(rope),
            causal: c.causal,
            window: c.sliding_window.filter(|_| !c.full_attention_layers.contains(&layer)),
            ..Attention::new(c.num_attention_heads, c.num_key_value_heads, c.head_dim)
        };
        let h = c.norm(e, x, &self.attn_norm);
        let (mut q, mut k, v) = (self.q.of(e, &h), self.k.of(e, &h), self.v.of(e, &h));
        drop(h);
        if let Some([of_q, of_k]) = &self.qk_norm {
            (q, k) = (c.norm(e, &q, of_q), c.norm(e, &k, of_k));
        }
        let mut a = e.attend(&q, &k, &v, &spec);
        drop((q, k, v));
        if let Some(w) = &self.attn_sub_norm {
            a = c.norm(e, &a, w);
        }
        let a = self.o.of(e, &a);
        e.dropout(&a, c.dropout)
    }

    /// What the feed-forward adds to `x`.
    fn feed_forward<E: Exec<Param = P>>(&self, e: &mut E, c: &Config, x: &E::Tensor) -> E::Tensor {
        let h = c.norm(e, x, &self.ffn_norm);
        let (gate, up) = (self.gate.of(e, &h), self.up.of(e, &h));
        drop(h);
        let gated = e.activate(&gate, c.hidden_act);
        let mut f = e.mul(&gated, &up);
        drop((gate, gated, up));
        if let Some(w) = &self.ffn_sub_norm {
            f = c.norm(e, &f, w);
        }
        let f = self.down.of(e, &f);
        e.dropout(&f, c.dropout)
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

    fn gguf(&self, context: usize) -> Result<family::GgufHeader, Error> {
        gguf::header(self, context)
    }

    fn rotated_heads(&self, param: &str) -> Option<usize> {
        gguf::rotated_heads(param, self)
    }
}

impl Config {
    fn norm<E: Exec>(&self, e: &mut E, x: &E::Tensor, weight: &E::Param) -> E::Tensor {
        e.norm(x, NormKind::Rms, weight, None, self.rms_norm_eps)
    }

    fn embed_std(&self) -> f32 {
        match self.head {
            Head::Lm { tied: true } => (1.0 / self.hidden_size as f32).sqrt(),
            _ => 0.02,
        }
    }

    fn check(&self) -> Result<(), Error> {
        let positive = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("intermediate_size", self.intermediate_size),
        ];
        check_dimensions(&positive, self.dropout, ("rms_norm_eps", self.rms_norm_eps))?;
        if self.num_hidden_layers > MAX_LAYERS {
            let text = format!("is {}, more than {MAX_LAYERS}", self.num_hidden_layers);
            return Err(Error::config("num_hidden_layers", text));
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 0.0) {
            return Err(Error::config("rope_theta", format!("is {}; it must be positive", self.rope_theta)));
        }
        if let Some(fault) = self.rope_scaling.as_ref().and_then(|scaling| scaling.fault(self.head_dim)) {
            return Err(Error::config("rope_scaling", fault));
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            let text = format!(
                "is {}, which does not divide num_attention_heads {}",
                self.num_key_value_heads, self.num_attention_heads
            );
            return Err(Error::config("num_key_value_heads", text));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(Error::config(
                "head_dim",
                format!("is {}; rotary positions need an even width", self.head_dim),
            ));
        }
        if self.sliding_window == Some(0) {
            return Err(Error::config("sliding_window", "is 0; it must be at least 1, or absent"));
        }
        self.head.check()
    }
}
