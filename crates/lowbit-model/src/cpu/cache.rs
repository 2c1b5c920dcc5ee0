//! Keys and values of the tokens of a sequence.

use crate::exec::Past;
use lowbit_kernels::ops::{CacheKind, CacheRows, Cached};
use std::sync::Arc;

/// Tokens whose ids are made room for at once.
const BLOCK: usize = 256;

/// What is the same in the caches of all sequences of a model.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// How numbers are stored.
    pub kind: CacheKind,
    /// Key heads of each attention of a pass and their width.
    pub heads: Arc<[(usize, usize)]>,
    /// Most tokens of a sequence.
    pub context: usize,
}

/// Keys (with their rotary positions) and values of every layer of one sequence; memory grows with its tokens.
#[derive(Debug)]
pub(super) struct Cache {
    layers: Vec<[CacheRows; 2]>,
    /// Tokens whose keys and values are in all layers.
    tokens: Vec<u32>,
    context: usize,
}

impl Cache {
    pub fn new(layout: &Layout) -> Self {
        let rows = |&(heads, head_dim): &(usize, usize)| {
            [CacheRows::new(layout.kind, heads, head_dim), CacheRows::new(layout.kind, heads, head_dim)]
        };
        Cache { layers: layout.heads.iter().map(rows).collect(), tokens: Vec::new(), context: layout.context }
    }

    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Most tokens it can hold.
    pub fn context(&self) -> usize {
        self.context
    }

    pub fn past(&self) -> Past {
        Past { tokens: self.tokens.len(), last: self.tokens.last().copied() }
    }

    /// Adds the rows of new tokens to a layer.
    pub fn append(&mut self, layer: usize, keys: &[f32], values: &[f32]) {
        for (rows, new) in self.layers[layer].iter_mut().zip([keys, values]) {
            // A pass that failed may have left rows behind.
            rows.truncate(self.tokens.len());
            rows.push(new);
        }
    }

    /// The rows of a layer, the last `new` of which were just added.
    pub fn layer(&self, layer: usize, new: usize) -> Cached<'_> {
        let [keys, values] = &self.layers[layer];
        Cached { keys, values, new }
    }

    /// Counts tokens whose rows are in all layers.
    pub fn extend(&mut self, tokens: &[u32]) {
        let len = self.tokens.len() + tokens.len();
        if len > self.tokens.capacity() {
            self.tokens.reserve_exact(len.next_multiple_of(BLOCK) - self.tokens.len());
        }
        self.tokens.extend_from_slice(tokens);
    }

    /// Keeps the first tokens.
    pub fn truncate(&mut self, tokens: usize) {
        self.tokens.truncate(tokens);
        self.layers.iter_mut().flatten().for_each(|rows| rows.truncate(tokens));
    }

    /// The first tokens in a cache of their own; none where they cannot be copied.
    pub fn copy(&self, layout: &Layout, tokens: usize) -> Option<Cache> {
        let mut copy = Cache::new(layout);
        let (mut bytes, mut factors) = (Vec::new(), Vec::new());
        for (to, from) in copy.layers.iter_mut().flatten().zip(self.layers.iter().flatten()) {
            bytes.clear();
            factors.clear();
            from.write(tokens, &mut bytes);
            from.write_factors(tokens, &mut factors);
            if !to.read(tokens, &bytes) || !(factors.is_empty() || to.read_factors(&factors)) {
                return None;
            }
        }
        copy.extend(&self.tokens[..tokens]);
        Some(copy)
    }

    /// Bytes of the keys and values of all tokens.
    pub fn bytes(&self) -> usize {
        self.layers.iter().flatten().map(CacheRows::bytes).sum()
    }

    /// Bytes of memory taken for them.
    pub fn allocated(&self) -> usize {
        self.layers.iter().flatten().map(CacheRows::allocated).sum()
    }

    /// Appends the keys and values of all tokens, as they are stored, layer after layer; then, for those whose numbers have
    /// factors, which they are (u32, counted over layers) and the factors.
    pub fn write(&self, out: &mut Vec<u8>) {
        self.layers.iter().flatten().for_each(|rows| rows.write(self.tokens.len(), out));
        for (i, rows) in self.layers.iter().flatten().enumerate() {
            let mut factors = Vec::new();
            rows.write_factors(self.tokens.len(), &mut factors);
            if !factors.is_empty() {
                out.extend((i as u32).to_le_bytes());
                out.append(&mut factors);
            }
        }
    }

    /// A cache of tokens whose keys and values [`Cache::write`] wrote; none, when they are not of this layout.
    pub fn read(layout: &Layout, tokens: &[u32], mut bytes: &[u8]) -> Option<Cache> {
        let mut cache = Cache::new(layout);
        let heads = layout.heads.iter().flat_map(|heads| [heads, heads]);
        for (rows, (heads, head_dim)) in cache.layers.iter_mut().flatten().zip(heads) {
            let len = layout.kind.row_bytes(*heads, *head_dim).checked_mul(tokens.len())?;
            let (mine, rest) = bytes.split_at_checked(len)?;
            if !rows.read(tokens.len(), mine) {
                return None;
            }
            bytes = rest;
        }
        let mut all: Vec<_> = cache.layers.iter_mut().flatten().collect();
        let mut next = 0;
        while let Some((at, rest)) = bytes.split_first_chunk::<4>() {
            let at = u32::from_le_bytes(*at) as usize;
            let rows = all.get_mut(at).filter(|_| at >= next)?;
            let (factors, rest) = rest.split_at_checked(rows.factor_bytes(tokens.len()))?;
            if !rows.read_factors(factors) {
                return None;
            }
            (bytes, next) = (rest, at + 1);
        }
        cache.extend(tokens);
        (bytes.is_empty() && tokens.len() <= layout.context).then_some(cache)
    }
}
