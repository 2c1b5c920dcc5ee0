//! A multi-layer perceptron over numbers, or over a bag of tokens: the mean of the token vectors (and of hashed token pairs),
//! then linear layers. A bag with no hidden layer is the classifier of fastText (arXiv 1607.01759).

use super::OutputKind;
use super::parts::is_zero;
use crate::Error;
use crate::exec::{Activation, Exec, Index, Pooling};
use crate::source::{Init, ParamSpec, Role, Source};
use serde::{Deserialize, Serialize};

/// Dimensions and switches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Entries of the token table; 0 where numbers are read.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub vocab_size: usize,
    /// Width of the token vectors.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub hidden_size: usize,
    /// Numbers of a row; 0 where tokens are read.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub features: usize,
    /// Widths of the hidden layers.
    #[serde(default)]
    pub layers: Vec<usize>,
    /// Function after each hidden layer.
    pub hidden_act: Activation,
    /// Classes; 1 for a network that answers with a value.
    pub classes: usize,
    /// Buckets of a hashed table of token pairs that is added to the token vectors; 0 for none.
    #[serde(default)]
    pub bigram_buckets: u32,
    /// Probability of dropout before each linear layer.
    #[serde(default)]
    pub dropout: f32,
}

impl super::Dimensions for Config {
    fn output(&self) -> OutputKind {
        OutputKind::of_classes(self.classes)
    }

    fn features(&self) -> usize {
        self.features
    }
}

/// The parameters of one network.
pub struct Mlp<P> {
    config: Config,
    embed: Option<P>,
    bigrams: Option<P>,
    layers: Vec<(P, P)>,
    head: P,
    head_bias: P,
}

impl<P> Mlp<P> {
    /// Takes every parameter from a source.
    ///
    /// # Errors
    /// When the configuration contradicts itself or the source lacks a parameter.
    pub fn build(config: &Config, source: &mut dyn Source<P>) -> Result<Self, Error> {
        let c = config;
        let reads_tokens = c.features == 0;
        for (field, value) in [("vocab_size", c.vocab_size), ("hidden_size", c.hidden_size)] {
            match (reads_tokens, value) {
                (true, 0) => return Err(Error::config(field, "is 0; it must be at least 1, or `features` be given")),
                (false, 1..) => return Err(Error::config(field, "has no use in a network that reads `features`")),
                _ => {}
            }
        }
        if !reads_tokens && c.bigram_buckets > 0 {
            return Err(Error::config("bigram_buckets", "has no use in a network that reads `features`"));
        }
        if c.classes == 0 {
            return Err(Error::config("classes", "is 0; it must be at least 2, or 1 for a value"));
        }
        if !(0.0..1.0).contains(&c.dropout) {
            return Err(Error::config("dropout", format!("is {}; it must lie in 0..1", c.dropout)));
        }
        if c.layers.contains(&0) {
            return Err(Error::config("layers", "holds a width of 0; each must be at least 1"));
        }
        let mut get = |name: String, rows, cols, role, init| {
            source.param(&ParamSpec { name, rows, cols, role, init, positions: 1 })
        };
        let embed = reads_tokens.then(|| {
            get("embed_tokens.weight".into(), c.vocab_size, c.hidden_size, Role::Embedding, Init::Normal(0.1))
        });
        let embed = embed.transpose()?;
        let bigrams = (c.bigram_buckets > 0).then(|| {
            let rows = c.bigram_buckets as usize;
            get("embed_bigrams.weight".into(), rows, c.hidden_size, Role::Embedding, Init::Normal(0.1))
        });
        let bigrams = bigrams.transpose()?;
        let mut width = if reads_tokens { c.hidden_size } else { c.features };
        let mut layers = Vec::with_capacity(c.layers.len());
        for (i, &next) in c.layers.iter().enumerate() {
            let init = Init::Normal((2.0 / width as f32).sqrt());
            let weight = get(format!("layers.{i}.weight"), next, width, Role::Body, init)?;
            let bias = get(format!("layers.{i}.bias"), 1, next, Role::Bias, Init::Constant(0.0))?;
            layers.push((weight, bias));
            width = next;
        }
        let init = Init::Normal((1.0 / width as f32).sqrt());
        let head = get("classifier.weight".into(), c.classes, width, Role::Head, init)?;
        let head_bias = get("classifier.bias".into(), 1, c.classes, Role::Bias, Init::Constant(0.0))?;
        Ok(Mlp { config: c.clone(), embed, bigrams, layers, head, head_bias })
    }

    /// Logits, `[sequences, classes]`, or values, `[sequences, 1]`.
    pub fn forward<E: Exec<Param = P>>(&self, e: &mut E) -> E::Tensor {
        let c = &self.config;
        let mut x = match &self.embed {
            Some(table) => e.embed(table, Index::Tokens),
            None => e.features(c.features),
        };
        if let Some(table) = &self.bigrams {
            let pairs = e.embed(table, Index::Bigrams(c.bigram_buckets));
            x = e.add(&x, &pairs);
        }
        if self.embed.is_some() {
            x = e.pool(&x, Pooling::Mean);
        }
        for (i, (weight, bias)) in self.layers.iter().enumerate() {
            x = e.block(i, &x, |e, x| {
                let x = e.dropout(x, c.dropout);
                let x = e.linear(&x, weight, Some(bias));
                e.activate(&x, c.hidden_act)
            });
        }
        x = e.dropout(&x, c.dropout);
        e.logits(&x, &self.head, Some(&self.head_bias))
    }
}
