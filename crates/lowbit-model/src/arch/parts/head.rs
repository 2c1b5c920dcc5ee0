//! What networks end in: the product that yields logits, and what goes before it.

use super::{Linear, Parts};
use crate::Error;
use crate::arch::OutputKind;
use crate::exec::{Activation, Exec, Pooling};
use crate::source::{Init, Role};
use serde::{Deserialize, Serialize};

/// What a network ends in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Head {
    /// One logit per vocabulary entry and token.
    Lm {
        /// Whether the embedding serves as output matrix.
        tied: bool,
    },
    /// One logit per class and sequence; a value per sequence where there is one class.
    Classify {
        /// Number of classes.
        classes: usize,
        /// How a sequence becomes one row.
        pooling: Pooling,
        /// Whether logits have a bias; classifiers of transformers' decoders have none.
        #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
        bias: bool,
    },
    /// One vector per sequence.
    Embed {
        /// How a sequence becomes one row.
        pooling: Pooling,
        /// Whether vectors have length 1.
        normalize: bool,
    },
}

fn yes() -> bool {
    true
}

impl Head {
    pub(in crate::arch) fn check(self) -> Result<(), Error> {
        match self {
            Head::Classify { classes: 0, .. } => {
                Err(Error::config("head.classes", "is 0; it must be at least 2, or 1 for a value"))
            }
            _ => Ok(()),
        }
    }

    /// What a network of this width answers with.
    pub(in crate::arch) fn output(self, width: usize) -> OutputKind {
        match self {
            Head::Lm { .. } => OutputKind::Tokens,
            Head::Classify { classes: 1, .. } => OutputKind::Value,
            Head::Classify { classes, .. } => OutputKind::Classes(classes),
            Head::Embed { normalize, .. } => OutputKind::Embedding { width, normalize },
        }
    }
}

/// The parameters of a head.
pub(in crate::arch) struct Output<P> {
    head: Head,
    dropout: f32,
    /// A linear layer and its function between the pooled row and the classifier.
    pooler: Option<(Linear<P>, Activation)>,
    /// Absent where the table of tokens serves, and where vectors are asked for.
    product: Option<Linear<P>>,
}

impl<P> Output<P> {
    /// Takes the parameters of a head from a source: of a table of `vocabulary` entries, each `width` wide.
    ///
    /// # Errors
    /// When the source lacks one.
    pub fn build(
        head: Head,
        pooler: Option<Activation>,
        dropout: f32,
        [vocabulary, width]: [usize; 2],
        parts: &mut Parts<P>,
    ) -> Result<Self, Error> {
        let std = (1.0 / width as f32).sqrt();
        let pooler = match pooler.filter(|_| matches!(head, Head::Classify { .. })) {
            Some(function) => Some((parts.linear("pooler", [width, width], true, std)?, function)),
            None => None,
        };
        let product = match head {
            Head::Lm { tied: true } | Head::Embed { .. } => None,
            Head::Lm { tied: false } => {
                let weight = parts.param("lm_head.weight", [vocabulary, width], Role::Head, Init::Normal(std))?;
                Some(Linear { weight, bias: None })
            }
            Head::Classify { classes, bias, .. } => {
                let weight = parts.param("classifier.weight", [classes, width], Role::Head, Init::Normal(std))?;
                let zeros = Init::Constant(0.0);
                let bias = bias.then(|| parts.param("classifier.bias", [1, classes], Role::Bias, zeros)).transpose()?;
                Some(Linear { weight, bias })
            }
        };
        Ok(Output { head, dropout, pooler, product })
    }

    /// Logits, values or vectors of the last activations, `[tokens, width]`; `table` is that of the tokens.
    pub fn of<E: Exec<Param = P>>(&self, e: &mut E, x: E::Tensor, table: &P) -> E::Tensor {
        let x = match self.head {
            Head::Lm { .. } => x,
            Head::Embed { pooling, .. } => return e.pool(&x, pooling),
            Head::Classify { pooling, .. } => {
                let mut x = e.pool(&x, pooling);
                if let Some((dense, function)) = &self.pooler {
                    x = dense.of(e, &x);
                    x = e.activate(&x, *function);
                }
                e.dropout(&x, self.dropout)
            }
        };
        match &self.product {
            Some(Linear { weight, bias }) => e.logits(&x, weight, bias.as_ref()),
            None => e.logits(&x, table, None),
        }
    }
}
