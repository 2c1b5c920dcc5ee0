//! Architectures. Each is one file, generic over [`Exec`]; [`Config`] and [`Model`] list them. What others call a network,
//! its keys and its tensors is told by [families](FAMILIES) of published networks.

use crate::Error;
use crate::exec::{Exec, Pooling};
use crate::source::Source;
use serde::{Deserialize, Serialize};

pub mod decoder;
pub mod encoder;
pub(crate) mod family;
pub mod gpt;
pub mod lenet;
pub mod mlp;
mod parts;
pub mod resnet;
pub mod sequential;
pub mod vgg;

pub(crate) use parts::MAX_LAYERS;

pub use family::{FAMILIES, Family};
pub use parts::Head;

/// What can be asked of the configuration of any architecture.
trait Dimensions {
    /// What it answers with.
    fn output(&self) -> OutputKind;
    /// Numbers of a row that it reads, those of an image it reads; 0 for a network of tokens.
    fn features(&self) -> usize {
        self.image().map_or(0, |image| image.iter().product())
    }
    /// Height, width and channels of an image that it reads.
    fn image(&self) -> Option<[usize; 3]> {
        None
    }
    /// Whether the token table serves as output matrix.
    fn is_tied(&self) -> bool {
        false
    }
    /// What the network ends in, to be changed; none of a network whose head is its own.
    fn head_mut(&mut self) -> Option<&mut Head> {
        None
    }
    /// How a classifier makes one row of a sequence, and whether its logits have a bias, as in transformers.
    fn classifier(&self) -> (Pooling, bool) {
        (Pooling::Last, false)
    }
    /// The header of a GGUF file with this network.
    fn gguf(&self, _context: usize) -> Result<family::GgufHeader, Error> {
        Err(Error::usage("GGUF: llama.cpp has no such network; only decoders can be written"))
    }
    /// Heads of a parameter whose rows rotary positions turn.
    fn rotated_heads(&self, _param: &str) -> Option<usize> {
        None
    }
}

/// What a network answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputKind {
    /// One logit per vocabulary entry and token.
    Tokens,
    /// One logit per class and sequence, so many classes.
    Classes(usize),
    /// One number per sequence.
    Value,
    /// One vector per sequence.
    Embedding {
        /// Its numbers.
        width: usize,
        /// Whether it is to have length 1; the network does not see to that.
        normalize: bool,
    },
}

impl OutputKind {
    /// Of a network with so many classes, 1 for a value.
    fn of_classes(classes: usize) -> Self {
        if classes == 1 { OutputKind::Value } else { OutputKind::Classes(classes) }
    }

    /// What a model with this output is called, with its article.
    pub fn noun(self) -> &'static str {
        match self {
            OutputKind::Tokens => "a language model",
            OutputKind::Classes(_) => "a classifier",
            OutputKind::Value => "a regression model",
            OutputKind::Embedding { .. } => "an embedding model",
        }
    }
}

macro_rules! architectures {
    ($($variant:ident = $tag:literal $(or $alias:literal)?, $config:path, $model:ident :: $ty:ident;)*) => {
        /// Dimensions of a network, tagged by `architecture`.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "architecture")]
        pub enum Config {
            $(#[doc = concat!("`", $tag, "`")] #[serde(rename = $tag $(, alias = $alias)?)] $variant($config),)*
        }

        impl Config {
            fn dimensions(&self) -> &dyn Dimensions {
                match self { $(Config::$variant(c) => c,)* }
            }

            fn dimensions_mut(&mut self) -> &mut dyn Dimensions {
                match self { $(Config::$variant(c) => c,)* }
            }
        }

        /// A network: an architecture with the parameters of one interpreter.
        pub enum Model<P> {
            $(#[doc = concat!("`", $tag, "`")] $variant($model::$ty<P>),)*
        }

        /// Names of all architectures.
        pub const ARCHITECTURES: &[&str] = &[$($tag),*];
        /// Names that architectures had, by which they are still read.
        pub(crate) const FORMER_NAMES: &[&str] = &[$($($alias,)?)*];

        impl<P> Model<P> {
            /// Takes every parameter from a source.
            ///
            /// # Errors
            /// When the configuration contradicts itself or the source lacks a parameter.
            pub fn build(config: &Config, source: &mut dyn Source<P>) -> Result<Self, Error> {
                match config { $(Config::$variant(c) => Ok(Model::$variant($model::$ty::build(c, source)?)),)* }
            }

            /// Logits: `[tokens, vocabulary]`, or `[sequences, classes]` for a classifier; values `[sequences, 1]`; vectors
            /// `[sequences, width]`.
            pub fn forward<E: Exec<Param = P>>(&self, e: &mut E) -> E::Tensor {
                match self { $(Model::$variant(m) => m.forward(e),)* }
            }
        }
    };
}

architectures! {
    Decoder = "decoder" or "bitnet", decoder::Config, decoder::Decoder;
    Encoder = "encoder", encoder::Config, encoder::Encoder;
    Gpt = "gpt", gpt::Config, gpt::Gpt;
    Mlp = "mlp", mlp::Config, mlp::Mlp;
    Sequential = "sequential", sequential::Config, sequential::Sequential;
    Lenet = "lenet", lenet::Config, lenet::Lenet;
    Resnet = "resnet", resnet::Config, resnet::Resnet;
    Vgg = "vgg", vgg::Config, vgg::Vgg;
}

impl Config {
    /// What the network answers with.
    pub fn output(&self) -> OutputKind {
        self.dimensions().output()
    }

    /// The same network with a head that classifies, or answers with a value where `classes` is 1: of the first token for networks
    /// that look both ways, of the last for others, as transformers has it; `None` for a network whose head is its own.
    pub fn classifier(&self, classes: usize) -> Option<Config> {
        let (pooling, bias) = self.dimensions().classifier();
        let mut config = self.clone();
        *config.head_mut()? = Head::Classify { classes, pooling, bias };
        Some(config)
    }

    /// What the network ends in, to be changed; `None` for a network whose head is its own.
    pub(crate) fn head_mut(&mut self) -> Option<&mut Head> {
        self.dimensions_mut().head_mut()
    }

    /// Number of classes of a classifier; `None` for other networks.
    pub fn classes(&self) -> Option<usize> {
        match self.output() {
            OutputKind::Classes(classes) => Some(classes),
            OutputKind::Tokens | OutputKind::Value | OutputKind::Embedding { .. } => None,
        }
    }

    /// Numbers of a row that the network reads; 0 for a network of tokens.
    pub fn features(&self) -> usize {
        self.dimensions().features()
    }

    /// Height, width and channels of the image that the network reads; `None` for a network of tokens or plain numbers.
    pub fn image(&self) -> Option<[usize; 3]> {
        self.dimensions().image()
    }

    /// Whether the token table serves as output matrix.
    pub fn is_tied(&self) -> bool {
        self.dimensions().is_tied()
    }

    /// The header of a GGUF file with this network; `context` is its longest sequence.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::Kind) naming what no architecture of llama.cpp covers.
    pub(crate) fn gguf(&self, context: usize) -> Result<family::GgufHeader, Error> {
        self.dimensions().gguf(context)
    }

    /// The type of GGUF tensors that keeps ternary matrices in the program that computes this network.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::Kind) naming what no architecture of llama.cpp covers.
    pub fn gguf_ternary_type(&self) -> Result<&'static str, Error> {
        Ok(self.gguf(1)?.arch.ternary_type)
    }

    /// Heads of a parameter whose rows rotary positions turn.
    pub(crate) fn rotated_heads(&self, param: &str) -> Option<usize> {
        self.dimensions().rotated_heads(param)
    }
}
