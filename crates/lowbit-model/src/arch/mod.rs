//! Architectures. Each is one file, generic over [`Exec`]; [`Config`] and [`Model`] list them.

use crate::Error;
use crate::exec::{Batch, Exec, Pooling};
use crate::source::Source;
use serde::{Deserialize, Serialize};

pub mod bitnet;
pub mod mlp;

/// What a network ends in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Head {
    /// One logit per vocabulary entry and token.
    Lm {
        /// Whether the embedding serves as output matrix.
        tied: bool,
    },
    /// One logit per class and sequence.
    Classify {
        /// Number of classes.
        classes: usize,
        /// How a sequence becomes one row.
        pooling: Pooling,
    },
}

impl Head {
    fn check(&self) -> Result<(), Error> {
        match self {
            Head::Classify { classes: 0 | 1, .. } => Err(Error::config("head.classes", "must be at least 2")),
            _ => Ok(()),
        }
    }
}

macro_rules! architectures {
    ($($variant:ident = $tag:literal, $config:path, $model:ident :: $ty:ident;)*) => {
        /// Dimensions of a network, tagged by `architecture`.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "architecture")]
        pub enum Config {
            $(#[doc = concat!("`", $tag, "`")] #[serde(rename = $tag)] $variant($config),)*
        }

        impl Config {
            /// Number of classes of a classifier; `None` for language models.
            pub fn classes(&self) -> Option<usize> {
                match self { $(Config::$variant(c) => c.classes(),)* }
            }
        }

        /// A network: an architecture with the parameters of one interpreter.
        pub enum Model<P> {
            $(#[doc = concat!("`", $tag, "`")] $variant($model::$ty<P>),)*
        }

        /// Names of all architectures.
        pub const ARCHITECTURES: &[&str] = &[$($tag),*];

        impl<P> Model<P> {
            /// Takes every parameter from a source.
            ///
            /// # Errors
            /// When the configuration contradicts itself or the source lacks a parameter.
            pub fn build(config: &Config, source: &mut dyn Source<P>) -> Result<Self, Error> {
                match config { $(Config::$variant(c) => Ok(Model::$variant($model::$ty::build(c, source)?)),)* }
            }

            /// Logits: `[tokens, vocabulary]`, or `[sequences, classes]` for a classifier.
            pub fn forward<E: Exec<Param = P>>(&self, e: &mut E, batch: &Batch) -> E::Tensor {
                match self { $(Model::$variant(m) => m.forward(e, batch),)* }
            }
        }
    };
}

architectures! {
    BitNet = "bitnet", bitnet::Config, bitnet::BitNet;
    Mlp = "mlp", mlp::Config, mlp::Mlp;
}
