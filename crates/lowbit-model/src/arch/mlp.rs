//! A bag of tokens under a multi-layer perceptron: the mean of the token vectors (and of hashed token pairs), then linear
//! layers. With no hidden layer it is the classifier of fastText (arXiv 1607.01759).

use crate::Error;
use crate::exec::{Activation, Exec, Index, Pooling};
use crate::source::{Init, ParamSpec, Role, Source};
use serde::{Deserialize, Serialize};

/// Dimensions and switches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Entries of the token table.
    pub vocab_size: usize,
    /// Width of the token vectors.
    pub hidden_size: usize,
    /// Widths of the hidden layers.
    #[serde(default)]
    pub layers: Vec<usize>,
    /// Function after each hidden layer.
    pub hidden_act: Activation,
    /// Classes.
    pub classes: usize,
    /// Buckets of a hashed table of token pairs that is added to the token vectors; 0 for none.
    #[serde(default)]
    pub bigram_buckets: u32,
    /// Probability of dropout before each linear layer.
    #[serde(default)]
    pub dropout: f32,
}

impl super::Dimensions for Config {
    fn classes(&self) -> Option<usize> {
        Some(self.classes)
    }
}

/// The parameters of one network.
pub struct Mlp<P> {
    config: Config,
    embed: P,
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
        for (field, value) in [("vocab_size", c.vocab_size), ("hidden_size", c.hidden_size)] {
            if value == 0 {
                return Err(Error::config(field, "is 0; it must be at least 1"));
            }
        }
        if c.classes < 2 {
            return Err(Error::config("classes", format!("is {}; it must be at least 2", c.classes)));
        }
        if !(0.0..1.0).contains(&c.dropout) {
            return Err(Error::config("dropout", format!("is {}; it must lie in 0..1", c.dropout)));
        }
        if c.layers.contains(&0) {
            return Err(Error::config("layers", "holds a width of 0; each must be at least 1"));
        }
        let mut get = |name: String, rows, cols, role, init| source.param(&ParamSpec { name, rows, cols, role, init });
        let embed = get("embed_tokens.weight".into(), c.vocab_size, c.hidden_size, Role::Embedding, Init::Normal(0.1))?;
        let bigrams = (c.bigram_buckets > 0).then(|| {
            let rows = c.bigram_buckets as usize;
            get("embed_bigrams.weight".into(), rows, c.hidden_size, Role::Embedding, Init::Normal(0.1))
        });
        let bigrams = bigrams.transpose()?;
        let mut width = c.hidden_size;
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

    /// Logits, `[sequences, classes]`.
    pub fn forward<E: Exec<Param = P>>(&self, e: &mut E) -> E::Tensor {
        let c = &self.config;
        let mut x = e.embed(&self.embed, Index::Tokens);
        if let Some(table) = &self.bigrams {
            let pairs = e.embed(table, Index::Bigrams(c.bigram_buckets));
            x = e.add(&x, &pairs);
        }
        x = e.pool(&x, Pooling::Mean);
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
