//! Where parameters come from: a checkpoint, random initialisation, or a mere list of parameters.

use crate::Error;
use serde::{Deserialize, Serialize};

/// What a parameter is for; recipes give each role a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Table of token or n-gram vectors.
    Embedding,
    /// Weight matrix of the network's body.
    Body,
    /// Weight matrix that yields the logits.
    Head,
    /// Weight or bias vector of a normalization.
    Norm,
    /// Bias vector of a linear layer.
    Bias,
}

/// How a parameter begins before training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Normal distribution with this standard deviation.
    Normal(f32),
    /// All the same.
    Constant(f32),
}

/// One parameter: a matrix `[rows, cols]`, or a vector `[1, cols]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamSpec {
    /// Name in checkpoints.
    pub name: String,
    /// Output features, table entries, or 1.
    pub rows: usize,
    /// Input features, or the length of a vector.
    pub cols: usize,
    /// What it is for.
    pub role: Role,
    /// How it begins.
    pub init: Init,
}

impl ParamSpec {
    /// The layer of a parameter and the name of its matrix there, `(3, "down_proj")` of `model.layers.3.mlp.down_proj.weight`;
    /// none outside of layers. The name is empty where a layer is one matrix.
    pub fn place(&self) -> Option<(usize, &str)> {
        let inner = self.name.strip_prefix("model.").unwrap_or(&self.name).strip_prefix("layers.")?;
        let (layer, part) = inner.split_once('.')?;
        let stem = part.rsplit_once('.').map_or("", |(stem, _)| stem);
        Some((layer.parse().ok()?, stem.rsplit_once('.').map_or(stem, |(_, matrix)| matrix)))
    }
}

/// Gives an architecture its parameters, one by one, in the order it asks.
pub trait Source<P> {
    /// The parameter of this specification.
    ///
    /// # Errors
    /// When it is missing or has another shape; names file and tensor.
    fn param(&mut self, spec: &ParamSpec) -> Result<P, Error>;
}
