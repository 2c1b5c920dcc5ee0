//! The vocabulary architectures are written in: a few deep operations that every interpreter implements.
//!
//! Training, CPU inference and listing are interpreters of the same architecture file. An activation is a matrix
//! `[rows, width]`, one row per token of the batch (or per sequence after [`Exec::pool`]). No operation names a backend
//! or a format; what an interpreter fuses stays inside it.

use crate::rope::Rope;
use serde::{Deserialize, Serialize};

/// Sequences of tokens, laid end to end without padding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Token ids of all sequences, `[tokens]`.
    pub tokens: Vec<u32>,
    /// Where each sequence begins in `tokens`, plus the end: `[sequences + 1]`, first 0, last `tokens.len()`.
    pub starts: Vec<usize>,
}

impl Batch {
    /// A batch of whole sequences.
    pub fn new<'a>(sequences: impl IntoIterator<Item = &'a [u32]>) -> Self {
        let mut batch = Batch { tokens: Vec::new(), starts: vec![0] };
        for sequence in sequences {
            batch.tokens.extend_from_slice(sequence);
            batch.starts.push(batch.tokens.len());
        }
        batch
    }

    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// One bucket per token for the pair (previous token of the sequence, token): FNV-1a modulo `buckets`. The first
    /// token of a sequence is paired with `u32::MAX`.
    pub fn bigrams(&self, buckets: u32) -> Vec<u32> {
        let mut out = Vec::with_capacity(self.tokens.len());
        for span in self.starts.windows(2) {
            let mut previous = u32::MAX;
            for &token in &self.tokens[span[0]..span[1]] {
                let bytes = previous.to_le_bytes().into_iter().chain(token.to_le_bytes());
                let hash = bytes.fold(0x811c_9dc5_u32, |h, b| (h ^ b as u32).wrapping_mul(0x0100_0193));
                out.push(hash % buckets);
                previous = token;
            }
        }
        out
    }
}

/// Which normalization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    /// `x / sqrt(mean(x^2) + eps) * weight` (arXiv 1910.07467).
    Rms,
    /// `(x - mean) / sqrt(var + eps) * weight + bias` (arXiv 1607.06450).
    Layer,
}

/// Which elementwise function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `max(x, 0)`
    Relu,
    /// `max(x, 0)^2`, as in BitNet b1.58 2B4T.
    Relu2,
    /// `x / (1 + exp(-x))`
    Silu,
    /// The tanh approximation of GELU.
    Gelu,
}

/// What [`Exec::attend`] computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention<'a> {
    /// Index of the layer: names the cache.
    pub layer: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Rotary positions (half-split pairs `(i, i + head_dim / 2)`, as in Llama's Hub layout), or none.
    pub rope: Option<&'a Rope>,
    /// Whether a token sees only itself and what is before it.
    pub causal: bool,
}

/// How a sequence becomes one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// Mean over its tokens.
    Mean,
    /// Its last token.
    Last,
}

/// An interpreter of architectures.
pub trait Exec {
    /// An activation `[rows, width]`. Cloning is cheap.
    type Tensor: Clone;
    /// A parameter, as this interpreter's source gave it.
    type Param;

    /// Rows of a table: `[ids.len(), width]`.
    fn embed(&mut self, table: &Self::Param, ids: &[u32]) -> Self::Tensor;
    /// `x * W^T + bias`, `W` being `[out, in]`: `[rows, out]`. Activation quantization happens in here.
    fn linear(&mut self, x: &Self::Tensor, weight: &Self::Param, bias: Option<&Self::Param>) -> Self::Tensor;
    /// Normalizes each row, or, where the weight is narrower, each stretch of a row that is as wide as the weight (a head).
    fn norm(
        &mut self,
        x: &Self::Tensor,
        kind: NormKind,
        weight: &Self::Param,
        bias: Option<&Self::Param>,
        eps: f32,
    ) -> Self::Tensor;
    /// Rotary positions, scores, mask, softmax, weighted sum, per sequence: `q` `[tokens, heads * head_dim]`, `k` and `v`
    /// `[tokens, kv_heads * head_dim]`, result like `q`. Scores are scaled by `1 / sqrt(head_dim)`.
    fn attend(&mut self, q: &Self::Tensor, k: &Self::Tensor, v: &Self::Tensor, spec: &Attention) -> Self::Tensor;
    /// Elementwise function.
    fn activate(&mut self, x: &Self::Tensor, f: Activation) -> Self::Tensor;
    /// Elementwise product.
    fn mul(&mut self, a: &Self::Tensor, b: &Self::Tensor) -> Self::Tensor;
    /// Elementwise sum.
    fn add(&mut self, a: &Self::Tensor, b: &Self::Tensor) -> Self::Tensor;
    /// One row per sequence: `[sequences, width]`.
    fn pool(&mut self, x: &Self::Tensor, how: Pooling) -> Self::Tensor;
    /// Zeroes elements with probability `p` and scales the others by `1 / (1 - p)` in training; nothing elsewhere.
    fn dropout(&mut self, x: &Self::Tensor, p: f32) -> Self::Tensor;
}
