//! The vocabulary architectures are written in: a few deep operations that every interpreter implements.
//!
//! Training, CPU inference and tracing are interpreters of the same architecture file. An activation is a matrix
//! `[rows, width]`, one row per token of the batch (or per sequence after [`Exec::pool`]). An image is a sequence of one token, whose
//! numbers are `[height, width, channels]`, and a feature map one row per pixel. No operation names a backend,
//! a format, a batch, a cache or a position: the interpreter knows the tokens of the pass and what came before them.

use crate::rope::Rope;
pub use crate::window::{BatchNorm, WindowPooling};
pub use lowbit_kernels::Window;
use lowbit_kernels::ops::{AttentionShape, Function};
use serde::{Deserialize, Serialize};

/// Sequences of tokens, laid end to end without padding.
#[derive(Debug, Default, PartialEq)]
pub struct Batch {
    /// Token ids of all sequences, `[tokens]`.
    pub tokens: Vec<u32>,
    /// Cumulative lengths of the sequences: where each begins in `tokens`, and the end; `[sequences + 1]`, first 0.
    pub cu_seqlens: Vec<usize>,
    /// Segment of each token, `[tokens]`; empty when all are 0.
    pub types: Vec<u32>,
    /// Numbers that stand in place of tokens, `[tokens, width]`; empty where tokens are what is read.
    pub features: Vec<f32>,
}

/// What a sequence held before the tokens of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// Number of tokens.
    pub tokens: usize,
    /// The last of them.
    pub last: Option<u32>,
}

/// Which row of a table a token takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Index {
    /// The id of the token.
    Tokens,
    /// Its position in its sequence, counted from `offset`.
    Positions {
        /// The row of the first token.
        offset: u32,
    },
    /// Its segment.
    TokenTypes,
    /// The hash of the previous token of its sequence and of itself, FNV-1a, modulo so many buckets, at least 1. The first
    /// token of a sequence is paired with `u32::MAX`.
    Bigrams(u32),
}

impl Clone for Batch {
    fn clone(&self) -> Self {
        let Batch { tokens, cu_seqlens, types, features } = self;
        Batch {
            tokens: tokens.clone(),
            cu_seqlens: cu_seqlens.clone(),
            types: types.clone(),
            features: features.clone(),
        }
    }

    /// Keeps the memory.
    fn clone_from(&mut self, other: &Self) {
        self.tokens.clone_from(&other.tokens);
        self.cu_seqlens.clone_from(&other.cu_seqlens);
        self.types.clone_from(&other.types);
        self.features.clone_from(&other.features);
    }
}

impl Batch {
    /// A batch of whole sequences.
    pub fn new<'a>(sequences: impl IntoIterator<Item = &'a [u32]>) -> Self {
        let mut batch = Batch::default();
        batch.refill(sequences);
        batch
    }

    /// Replaces the sequences and keeps the memory.
    pub fn refill<'a>(&mut self, sequences: impl IntoIterator<Item = &'a [u32]>) {
        self.tokens.clear();
        self.types.clear();
        self.features.clear();
        self.cu_seqlens.clear();
        self.cu_seqlens.push(0);
        for sequence in sequences {
            self.push(sequence);
        }
    }

    /// Adds a sequence whose segments are all 0.
    pub fn push(&mut self, sequence: &[u32]) {
        if self.cu_seqlens.is_empty() {
            self.cu_seqlens.push(0);
        }
        self.tokens.extend_from_slice(sequence);
        self.cu_seqlens.push(self.tokens.len());
        if !self.types.is_empty() {
            self.types.resize(self.tokens.len(), 0);
        }
    }

    /// Adds a sequence with the segment of each token.
    pub fn push_types(&mut self, sequence: &[u32], types: &[u32]) {
        let before = self.tokens.len();
        self.push(sequence);
        if types.iter().any(|kind| *kind != 0) || !self.types.is_empty() {
            self.types.resize(before, 0);
            self.types.extend_from_slice(types);
        }
    }

    /// Adds a row of numbers: a sequence of one token, whose id is 0.
    pub fn push_features(&mut self, row: impl IntoIterator<Item = f32>) {
        self.push(&[0]);
        self.features.extend(row);
    }

    /// Adds a sequence of another batch.
    fn push_of(&mut self, other: &Batch, sequence: usize) {
        let span = other.cu_seqlens[sequence]..other.cu_seqlens[sequence + 1];
        match other.types.get(span.clone()) {
            Some(types) => self.push_types(&other.tokens[span.clone()], types),
            None => self.push(&other.tokens[span.clone()]),
        }
        let width = other.features.len() / other.tokens.len().max(1);
        self.features.extend(&other.features[span.start * width..span.end * width]);
    }

    /// The sequences of all batches in one.
    pub fn joined(batches: &[Batch]) -> Batch {
        let mut all = Batch::default();
        for batch in batches {
            (0..batch.sequences()).for_each(|sequence| all.push_of(batch, sequence));
        }
        all
    }

    /// The sequences in batches of about so many tokens.
    pub fn pieces(&self, tokens: usize) -> Vec<Batch> {
        let mut pieces: Vec<Batch> = Vec::new();
        for sequence in 0..self.sequences() {
            if pieces.last().is_none_or(|piece| piece.tokens.len() >= tokens) {
                pieces.push(Batch::default());
            }
            pieces.last_mut().expect("just pushed").push_of(self, sequence);
        }
        pieces
    }

    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.cu_seqlens.len().saturating_sub(1)
    }

    /// Whether `cu_seqlens` and `types` fit the tokens and no sequence is empty.
    pub fn is_whole(&self) -> bool {
        let ends = self.cu_seqlens.first() == Some(&0) && self.cu_seqlens.last() == Some(&self.tokens.len());
        let types = self.types.is_empty() || self.types.len() == self.tokens.len();
        let features = self.features.is_empty() || self.features.len().is_multiple_of(self.tokens.len().max(1));
        ends && types && features && self.sequences() > 0 && self.cu_seqlens.windows(2).all(|w| w[0] < w[1])
    }

    /// Writes the row of a table that each token takes, `[tokens]`; `past` tells what each sequence held before.
    pub fn rows(&self, index: Index, past: impl Fn(usize) -> Past, rows: &mut Vec<u32>) {
        rows.clear();
        match index {
            Index::Tokens => rows.extend_from_slice(&self.tokens),
            Index::TokenTypes if self.types.is_empty() => rows.resize(self.tokens.len(), 0),
            Index::TokenTypes => rows.extend_from_slice(&self.types),
            Index::Positions { offset } => {
                for (i, span) in self.cu_seqlens.windows(2).enumerate() {
                    let first = offset + past(i).tokens as u32;
                    rows.extend(first..first + (span[1] - span[0]) as u32);
                }
            }
            Index::Bigrams(buckets) => {
                for (i, span) in self.cu_seqlens.windows(2).enumerate() {
                    let mut previous = past(i).last.unwrap_or(u32::MAX);
                    for &token in &self.tokens[span[0]..span[1]] {
                        rows.push(bigram(previous, token) % buckets);
                        previous = token;
                    }
                }
            }
        }
    }
}

/// FNV-1a over the little-endian bytes of both tokens.
fn bigram(previous: u32, token: u32) -> u32 {
    let bytes = previous.to_le_bytes().into_iter().chain(token.to_le_bytes());
    bytes.fold(0x811c_9dc5, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193))
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
    /// GELU by the error function (arXiv 1606.08415).
    GeluErf,
    /// The tanh approximation of GELU; `gelu` on disk.
    #[serde(rename = "gelu", alias = "gelu_tanh")]
    GeluTanh,
    /// `tanh(x)`
    Tanh,
}

impl Activation {
    /// The kernel.
    pub fn function(self) -> Function {
        match self {
            Activation::Relu => Function::Relu,
            Activation::Relu2 => Function::Relu2,
            Activation::Silu => Function::Silu,
            Activation::GeluErf => Function::GeluErf,
            Activation::GeluTanh => Function::GeluTanh,
            Activation::Tanh => Function::Tanh,
        }
    }
}

/// What [`Exec::attend`] computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention<'a> {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Rotary positions (half-split pairs `(i, i + head_dim / 2)`, as in Llama's Hub layout), or none.
    pub rope: Option<&'a Rope>,
    /// Whether a token sees only itself and what is before it, instead of its whole sequence.
    pub causal: bool,
    /// Sliding window: a token sees only tokens less than so many positions away; all, if none.
    pub window: Option<usize>,
    /// Factor of the scores.
    pub scale: f32,
}

impl Attention<'_> {
    /// Causal attention to all tokens before, without rotary positions, scores scaled by `1 / sqrt(head_dim)`.
    pub fn new(heads: usize, kv_heads: usize, head_dim: usize) -> Self {
        let AttentionShape { causal, window, scale, .. } = AttentionShape::new(heads, kv_heads, head_dim, true);
        Attention { heads, kv_heads, head_dim, rope: None, causal, window, scale }
    }

    /// What the kernel is told.
    pub fn shape(&self) -> AttentionShape {
        let Attention { heads, kv_heads, head_dim, causal, window, scale, .. } = *self;
        AttentionShape { heads, kv_heads, head_dim, causal, window, scale }
    }

    /// Pairs of tokens in which one sees the other, when `new` tokens follow `past` ones.
    pub fn pairs(&self, past: usize, new: usize) -> u64 {
        let shape = self.shape();
        (past..past + new).map(|position| shape.seen(position, past + new).len() as u64).sum()
    }
}

/// How a sequence becomes one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// Mean over its tokens.
    Mean,
    /// Its first token.
    First,
    /// Its last token.
    Last,
}

impl Pooling {
    /// The row of each sequence, `[sequences]`, where it is that of one token.
    pub fn picked(self, cu_seqlens: &[usize]) -> Option<impl ExactSizeIterator<Item = usize> + '_> {
        let back = match self {
            Pooling::Mean => return None,
            Pooling::First => 0,
            Pooling::Last => 1,
        };
        Some(cu_seqlens[back..].iter().take(cu_seqlens.len() - 1).map(move |row| row - back))
    }
}

/// An interpreter of architectures.
pub trait Exec {
    /// An activation `[rows, width]`. Cloning is cheap.
    type Tensor: Clone;
    /// A parameter, as this interpreter's source gave it.
    type Param;

    /// Rows of a table, one per token of the pass: `[tokens, width]`.
    fn embed(&mut self, table: &Self::Param, index: Index) -> Self::Tensor;
    /// The numbers that stand in place of tokens, `[tokens, width]`.
    fn features(&mut self, width: usize) -> Self::Tensor;
    /// `x * W^T + bias`, `W` being `[out, in]`: `[rows, out]`. Activation quantization happens in here.
    fn linear(&mut self, x: &Self::Tensor, weight: &Self::Param, bias: Option<&Self::Param>) -> Self::Tensor;
    /// The last product of a network, [`Exec::linear`] otherwise. An interpreter that was asked for fewer logits computes
    /// fewer rows.
    fn logits(&mut self, x: &Self::Tensor, weight: &Self::Param, bias: Option<&Self::Param>) -> Self::Tensor {
        self.linear(x, weight, bias)
    }
    /// Normalizes each row, or, where the weight is narrower, each stretch of a row that is as wide as the weight (a head).
    fn norm(
        &mut self,
        x: &Self::Tensor,
        kind: NormKind,
        weight: &Self::Param,
        bias: Option<&Self::Param>,
        eps: f32,
    ) -> Self::Tensor;
    /// The product of each window of images `x`, `[images, height, width, channels]` however the rows are cut, with `W`,
    /// `[out, kernel height * kernel width * channels]`: `[images * pixels, out]`. [`Exec::linear`] of windows in all else.
    fn conv(
        &mut self,
        x: &Self::Tensor,
        weight: &Self::Param,
        bias: Option<&Self::Param>,
        window: &Window,
    ) -> Self::Tensor;
    /// Normalizes each column over all rows: by their mean and variance in training, which moves the running ones, and by the
    /// running ones elsewhere.
    fn batch_norm(&mut self, x: &Self::Tensor, norm: &BatchNorm<Self::Param>) -> Self::Tensor;
    /// Pools each window of images `x`, channel by channel: `[images * pixels, channels]`.
    fn pool_windows(&mut self, x: &Self::Tensor, how: WindowPooling, window: &Window) -> Self::Tensor;
    /// Rotary positions, scores, mask, softmax, weighted sum, per sequence: `q` `[tokens, heads * head_dim]`, `k` and `v`
    /// `[tokens, kv_heads * head_dim]`, result like `q`.
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
    /// One of the layers that a network repeats, counted from 0: `body` of `x`, and of no other activation, as an interpreter may
    /// run it again.
    fn block(
        &mut self,
        _index: usize,
        x: &Self::Tensor,
        body: impl FnOnce(&mut Self, &Self::Tensor) -> Self::Tensor,
    ) -> Self::Tensor
    where
        Self: Sized,
    {
        body(self, x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(batch: &Batch, index: Index, past: &[Past]) -> Vec<u32> {
        let mut rows = vec![7];
        batch.rows(index, |i| past[i], &mut rows);
        rows
    }

    #[test]
    fn a_sequence_in_pieces_takes_the_rows_of_the_whole() {
        let tokens: Vec<u32> = (0..40).map(|i| i * i % 17).collect();
        let whole = Batch::new([&tokens[..]]);
        for index in [Index::Tokens, Index::Positions { offset: 2 }, Index::TokenTypes, Index::Bigrams(1000)] {
            let expected = rows(&whole, index, &[Past::default()]);
            for size in [1, 3, 40] {
                let (mut found, mut past) = (Vec::<u32>::new(), Past::default());
                for piece in tokens.chunks(size) {
                    // A second sequence beside it is another matter.
                    let batch = Batch::new([piece, &[5, 6]]);
                    found.extend(&rows(&batch, index, &[past, Past::default()])[..piece.len()]);
                    past = Past { tokens: past.tokens + piece.len(), last: piece.last().copied() };
                }
                assert_eq!(found, expected, "{index:?} in pieces of {size}");
            }
        }
        assert_eq!(rows(&whole, Index::Positions { offset: 2 }, &[Past { tokens: 8, last: None }])[0], 10);
    }

    #[test]
    fn segments_are_those_of_the_batch() {
        let batch = Batch { types: vec![0, 1, 1], ..Batch::new([&[4u32, 5, 6][..]]) };
        assert!(batch.is_whole());
        assert_eq!(rows(&batch, Index::TokenTypes, &[Past::default()]), [0, 1, 1]);
        assert!(!Batch { types: vec![0], ..batch }.is_whole());
    }

    #[test]
    fn names_on_disk() {
        for (name, f) in [("gelu", Activation::GeluTanh), ("gelu_erf", Activation::GeluErf)] {
            assert_eq!(serde_json::to_value(f).expect("a name"), name);
            assert_eq!(serde_json::from_value::<Activation>(name.into()).expect("known"), f);
        }
        assert_eq!(serde_json::from_str::<Activation>("\"gelu_tanh\"").expect("known"), Activation::GeluTanh);
    }

    #[test]
    fn pairs_are_those_that_are_seen() {
        let causal = Attention::new(1, 1, 2);
        assert_eq!((causal.pairs(0, 9), causal.pairs(4, 2)), (45, 11));
        assert_eq!(Attention { causal: false, ..causal }.pairs(0, 9), 81);
        assert_eq!(Attention { window: Some(3), ..causal }.pairs(0, 9), 1 + 2 + 7 * 3);
        assert_eq!(Attention { window: Some(2), causal: false, ..causal }.pairs(0, 4), 2 + 3 + 3 + 2);
    }
}
