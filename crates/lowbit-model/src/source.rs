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
    /// Weight matrix that yields the logits, and others that stay as wide: the first convolution of an image.
    Head,
    /// Weight or bias vector of a normalization.
    Norm,
    /// Bias vector of a linear layer.
    Bias,
    /// Running mean or variance of a batch normalization: forward passes of training move it, gradients do not.
    Statistics,
}

impl Role {
    /// Whether its parameters are vectors, which stay f32 under every recipe.
    pub fn is_vector(self) -> bool {
        match self {
            Role::Embedding | Role::Body | Role::Head => false,
            Role::Norm | Role::Bias | Role::Statistics => true,
        }
    }
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
    /// Places of an image that a row of a matrix has inputs of: columns are `[positions, channels]`, and files of torch store them
    /// `[channels, positions]`; 1 for everything else.
    pub positions: usize,
}

impl ParamSpec {
    /// The values of a matrix as torch stores it, `[rows, channels, positions]`, in the order of products, `[rows, positions, channels]`.
    pub fn channels_last(&self, values: Vec<f32>) -> Vec<f32> {
        let (positions, channels) = (self.positions, self.cols / self.positions);
        if positions == 1 || channels == 1 {
            return values;
        }
        let mut out = vec![0.0; values.len()];
        for (out, row) in out.chunks_exact_mut(self.cols).zip(values.chunks_exact(self.cols)) {
            for (i, out) in out.iter_mut().enumerate() {
                *out = row[i % channels * positions + i / channels];
            }
        }
        out
    }

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
