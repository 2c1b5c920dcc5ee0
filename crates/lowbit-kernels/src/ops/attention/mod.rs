//! Attention over sequences of different lengths, its gradient, and attention with a cache.
//!
//! Queries come in panels of up to 32, stored transposed, so that a lane of a vector is a query: scores, their maxima and
//! sums need no operation across lanes. Keys come in tiles; no matrix of all scores exists (arXiv 2205.14135).

mod backward;
mod cache;
mod cached;
mod forward;
mod prefill;
mod rope;
mod stored;
mod tile;

pub use backward::attention_backward;
pub use cache::{CacheKind, CacheRows};
pub use cached::{Cached, attention_cached, attention_caches};
pub use forward::attention;
pub use rope::{Frequencies, base_frequencies, rope};

use crate::Pool;
use crate::simd::LANES;
use std::ops::Range;
use tile::Mask;

/// Heads, mask and scale of an attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Whether a query sees only the keys at and before its position.
    pub causal: bool,
    /// Sliding window (arXiv 2004.05150): a query sees only the keys less than so many positions away; at least 1.
    pub window: Option<usize>,
    /// Factor of the scores.
    pub scale: f32,
}

/// Queries of a panel.
const PANEL: usize = 32;
/// Keys of a tile.
const KEYS: usize = 64;
/// Rows of a cache that are asked for ahead of their use.
const TILE: usize = 32;
/// Multiply-adds below which a task is not worth another thread.
const SMALL: usize = 1 << 20;

impl AttentionShape {
    /// Heads without a window, scores scaled by `1 / sqrt(head_dim)`.
    pub fn new(heads: usize, kv_heads: usize, head_dim: usize, causal: bool) -> Self {
        AttentionShape { heads, kv_heads, head_dim, causal, window: None, scale: 1.0 / (head_dim as f32).sqrt() }
    }

    /// Floats of a row of queries.
    fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Floats of a row of keys or values.
    fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Query heads per key head.
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// `head_dim` rounded up to whole vectors.
    fn padded(&self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    /// Floats from row to row of a head that is copied: whole vectors, an odd number, so that the rows of a tile do not
    /// fall on the same few sets of the first cache.
    fn stride(&self) -> usize {
        ((self.padded() / LANES) | 1) * LANES
    }

    fn check(&self, queries: usize, q: usize, keys: usize, k: usize, v: usize) {
        assert!(self.head_dim > 0 && self.kv_heads > 0, "an attention has heads");
        assert!(self.heads.is_multiple_of(self.kv_heads), "key heads divide query heads");
        assert!(self.window != Some(0), "a query sees itself");
        let len =
            |rows: usize, heads: usize| heads.checked_mul(self.head_dim).and_then(|width| width.checked_mul(rows));
        assert_eq!(Some(q), len(queries, self.heads), "q is [tokens, heads * head_dim]");
        let keys = len(keys, self.kv_heads);
        assert_eq!((Some(k), Some(v)), (keys, keys), "k and v are [tokens, kv_heads * head_dim]");
    }

    /// Keys, of `keys`, that the query at a position sees.
    pub fn seen(&self, position: usize, keys: usize) -> Range<usize> {
        let window = self.window.unwrap_or(usize::MAX);
        let end = if self.causal { position + 1 } else { position.saturating_add(window) };
        (position + 1).saturating_sub(window)..end.min(keys)
    }

    /// Keys, of `keys`, that any of the queries at some positions sees; there is at least one.
    pub fn reach(&self, positions: Range<usize>, keys: usize) -> Range<usize> {
        self.seen(positions.start, keys).start..self.seen(positions.end - 1, keys).end
    }

    /// The mask of a tile of `keys` keys from `start` for `lanes` queries from `position` on, if it hides any.
    fn mask(&self, position: usize, lanes: usize, start: usize, keys: usize) -> Option<Mask> {
        const FAR: isize = 1 << 30;
        let (own, window) = (position as isize - start as isize, self.window.map_or(FAR, |w| w.min(1 << 29) as isize));
        let high = if self.causal { own } else { own + window - 1 };
        let mask = Mask { low: own + 1 - window, high };
        (mask.end(0) < keys || mask.first(lanes - 1) > 0).then_some(mask)
    }
}

/// Panels of `queries` queries: the first query of each and its number of lanes, 32 or, for at most 16 queries, 16.
fn panels(queries: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..queries).step_by(PANEL).map(move |first| (first, if queries - first <= PANEL / 2 { PANEL / 2 } else { PANEL }))
}

/// Tiles of `keys` keys.
fn tiles(keys: usize) -> impl Iterator<Item = Range<usize>> {
    (0..keys).step_by(KEYS).map(move |first| first..(first + KEYS).min(keys))
}

/// Runs `f` on each item, large ones first, several small ones per task. `cost` counts multiply-adds.
fn run<T: Copy + Sync>(pool: &Pool, mut items: Vec<T>, cost: impl Fn(&T) -> usize, f: impl Fn(T) + Sync) {
    items.sort_by_key(|item| std::cmp::Reverse(cost(item)));
    let (mut tasks, mut open) = (vec![0], 0);
    for (i, item) in items.iter().enumerate() {
        open += cost(item);
        if open >= SMALL {
            tasks.push(i + 1);
            open = 0;
        }
    }
    if open > 0 {
        tasks.push(items.len());
    }
    pool.run(tasks.len() - 1, &|task| items[tasks[task]..tasks[task + 1]].iter().for_each(|&item| f(item)));
}

/// Takes parts of a buffer one after the other.
struct Parts<'a>(&'a mut [f32]);

impl<'a> Parts<'a> {
    fn take(&mut self, len: usize) -> &'a mut [f32] {
        let (part, rest) = std::mem::take(&mut self.0).split_at_mut(len);
        self.0 = rest;
        part
    }
}
