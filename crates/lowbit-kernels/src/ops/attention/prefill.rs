//! Attention of many new queries to a cache of keys and values, with the bits that few queries get: keys come in the same
//! chunks, and every sum runs in the same order (the 16 lanes of a vector of a query's elements, or of its keys, are here
//! 16 partial sums of each query).

use super::cached::{CHUNK, Join, Sequence};
use super::tile::{HeadRows, Mask, PackTransposed, Product, View, hide};
use super::{AttentionShape, KEYS, PANEL, Parts, panels, run};
use crate::ops::math::{Extent, Whole, exp2, tree};
use crate::pool::SharedMut;
use crate::simd::{LANES, Simd};
use crate::{Cpu, Op, Products, scratch};
use std::ops::Range;

/// Queries of one task.
const BLOCK: usize = 4 * PANEL;

/// New queries of one sequence.
pub(super) struct Prefill<'a> {
    pub cpu: &'a Cpu,
    pub shape: AttentionShape,
    /// `[new, heads * head_dim]`, like `out`.
    pub q: &'a [f32],
    pub of: Sequence<'a>,
    pub out: SharedMut<'a, f32>,
}

/// One head of up to [`BLOCK`] queries from `first` on.
#[derive(Clone, Copy)]
struct Item {
    head: usize,
    first: usize,
    queries: usize,
}

/// A panel of an item: the first of its queries, its lanes, and those that are queries.
#[derive(Clone, Copy)]
struct Panel {
    first: usize,
    lanes: usize,
    queries: usize,
}

/// Buffers of a task, `rows` being its queries rounded up to whole panels.
struct State<'a> {
    rows: usize,
    /// Per panel `[head_dim, lanes]`.
    transposed: &'a mut [f32],
    /// Scores of the keys of a chunk, per panel `[CHUNK, lanes]`.
    scores: &'a mut [f32],
    /// Keys or values, `[KEYS, stride]`.
    tile: &'a mut [f32],
    /// Per chunk and query: largest score, sum of exponentials, and weighted sum of values `[padded]`.
    tops: &'a mut [f32],
    sums: &'a mut [f32],
    values: &'a mut [f32],
}

impl Prefill<'_> {
    /// Runs all heads.
    pub fn run(&self) {
        let blocks = |head| (0..self.of.new).step_by(BLOCK).map(move |first| (head, first));
        let item = |(head, first)| Item { head, first, queries: BLOCK.min(self.of.new - first) };
        let items = (0..self.shape.heads).flat_map(blocks).map(item).collect();
        let cost = |item: &Item| 2 * item.queries * self.seen(item.first, item.queries).len() * self.shape.head_dim;
        run(&self.cpu.pool, items, cost, |item| self.block(item));
    }

    /// Keys that any of some queries sees.
    fn seen(&self, first: usize, queries: usize) -> Range<usize> {
        let position = self.of.past + first;
        self.shape.reach(position..position + queries, self.of.total())
    }

    fn panels(&self, item: Item) -> impl Iterator<Item = Panel> {
        let panel = move |(first, lanes)| Panel { first, lanes, queries: lanes.min(item.queries - first) };
        panels(item.queries).map(panel)
    }

    /// Keys that any query of a panel sees.
    fn panel_seen(&self, item: Item, panel: Panel) -> Range<usize> {
        self.seen(item.first + panel.first, panel.queries)
    }

    fn block(&self, item: Item) {
        let (shape, isa) = (self.shape, self.cpu.isa);
        let (dim, padded) = (shape.head_dim, shape.padded());
        let rows = item.queries.next_multiple_of(PANEL);
        let chunks = chunks(self.seen(item.first, item.queries));
        let kept = chunks.len() * rows;
        let len = rows * (dim + CHUNK) + KEYS * shape.stride() + kept * (padded + 2);
        let mut scratch = scratch::take(len * size_of::<f32>());
        let mut parts = Parts(scratch.floats());
        let mut state = State {
            rows,
            transposed: parts.take(rows * dim),
            scores: parts.take(rows * CHUNK),
            tile: parts.take(KEYS * shape.stride()),
            tops: parts.take(kept),
            sums: parts.take(kept),
            values: parts.take(kept * padded),
        };
        // Scores are in units of log 2.
        let scale = shape.scale * std::f32::consts::LOG2_E;
        for panel in self.panels(item) {
            let row = item.first + panel.first;
            let from = HeadRows::new(self.q, shape.width(), row, panel.queries, item.head * dim, dim);
            let to = &mut state.transposed[panel.first * dim..][..panel.lanes * dim];
            isa.run(PackTransposed { from, scale, to, lanes: panel.lanes });
        }
        for (i, chunk) in chunks.clone().enumerate() {
            self.chunk(item, &mut state, chunk * CHUNK, i * rows);
        }
        self.finish(item, &state, chunks.start);
    }

    /// A chunk of keys from `start`, whose results are kept from row `at` on.
    fn chunk(&self, item: Item, state: &mut State, start: usize, at: usize) {
        let isa = self.cpu.isa;
        let keys = start..(start + CHUNK).min(self.seen(item.first, item.queries).end);
        for tile in keys.clone().step_by(KEYS).map(|first| first..(first + KEYS).min(keys.end)) {
            self.of.keys.widen(isa, self.shape, tile.clone(), self.kv_head(item), state.tile);
            for panel in self.panels(item) {
                self.scores(item, state, panel, start, tile.clone());
            }
        }
        for panel in self.panels(item) {
            self.softmax(item, state, panel, keys.clone(), at);
        }
        for tile in keys.clone().step_by(KEYS).map(|first| first..(first + KEYS).min(keys.end)) {
            self.of.values.widen(isa, self.shape, tile.clone(), self.kv_head(item), state.tile);
            for panel in self.panels(item) {
                self.values(item, state, panel, (start, at), tile.clone());
            }
        }
    }

    fn kv_head(&self, item: Item) -> usize {
        item.head / self.shape.group()
    }

    /// Scores of the keys of a tile that a panel sees, in a chunk from `start`.
    fn scores(&self, item: Item, state: &mut State, panel: Panel, start: usize, tile: Range<usize>) {
        let (dim, stride, lanes) = (self.shape.head_dim, self.shape.stride(), panel.lanes);
        let keys = common(self.panel_seen(item, panel), tile.clone());
        if keys.is_empty() {
            return;
        }
        let scores = &mut state.scores[panel.first * CHUNK + (keys.start - start) * lanes..][..keys.len() * lanes];
        self.cpu.isa.run(Product::<true> {
            a: View { data: &state.tile[(keys.start - tile.start) * stride..], row: stride, col: 1 },
            b: &state.transposed[panel.first * dim..][..lanes * dim],
            b_row: lanes,
            c: scores,
            c_row: lanes,
            m: keys.len(),
            n: lanes,
            k: dim,
            add: false,
            mask: None,
        });
        let scales = self.of.keys.scales(keys, self.kv_head(item));
        scale_rows(scores, lanes, scales);
    }

    /// Turns the scores of a panel for a chunk into weights.
    fn softmax(&self, item: Item, state: &mut State, panel: Panel, chunk: Range<usize>, at: usize) {
        let lanes = panel.lanes;
        let keys = common(self.panel_seen(item, panel), chunk.clone());
        if keys.is_empty() {
            return;
        }
        let first = keys.start - chunk.start;
        let scores = &mut state.scores[panel.first * CHUNK + first * lanes..][..keys.len() * lanes];
        let position = self.of.past + item.first + panel.first;
        let at = at + panel.first..at + panel.first + lanes;
        self.cpu.isa.run(Softmax {
            scores,
            lanes,
            first,
            mask: self.shape.mask(position, lanes, keys.start, keys.len()),
            top: &mut state.tops[at.clone()],
            sum: &mut state.sums[at],
        });
        scale_rows(scores, lanes, self.of.values.scales(keys, self.kv_head(item)));
    }

    /// Adds the weighted values of a tile of a chunk from `start`.
    fn values(&self, item: Item, state: &mut State, panel: Panel, (start, at): (usize, usize), tile: Range<usize>) {
        let (padded, stride, lanes) = (self.shape.padded(), self.shape.stride(), panel.lanes);
        let seen = self.panel_seen(item, panel);
        let keys = common(seen.clone(), tile.clone());
        if keys.is_empty() {
            return;
        }
        let position = self.of.past + item.first + panel.first;
        self.cpu.isa.run(Product::<false> {
            a: View {
                data: &state.scores[panel.first * CHUNK + (keys.start - start) * lanes..][..keys.len() * lanes],
                row: 1,
                col: lanes,
            },
            b: &state.tile[(keys.start - tile.start) * stride..],
            b_row: stride,
            c: &mut state.values[(at + panel.first) * padded..][..panel.queries * padded],
            c_row: padded,
            m: panel.queries,
            n: padded,
            k: keys.len(),
            add: keys.start > seen.start.max(start),
            mask: self.shape.mask(position, lanes, keys.start, keys.len()),
        });
    }

    /// Joins the chunks of each query, the first of which is `first`.
    fn finish(&self, item: Item, state: &State, first: usize) {
        let (shape, stride, padded) = (self.shape, state.rows, self.shape.padded());
        for panel in self.panels(item) {
            let chunks = chunks(self.panel_seen(item, panel));
            for row in panel.first..panel.first + panel.queries {
                let (from, len) = ((chunks.start - first) * stride + row, (chunks.len() - 1) * stride + 1);
                let at = (item.first + row) * shape.width() + item.head * shape.head_dim;
                self.cpu.isa.run(Join {
                    tops: &state.tops[from..from + len],
                    sums: &state.sums[from..from + len],
                    values: &state.values[from * padded..],
                    stride,
                    padded,
                    // SAFETY: each head of each query belongs to one item.
                    out: unsafe { self.out.slice(at..at + shape.head_dim) },
                });
            }
        }
    }
}

/// Chunks that hold some keys.
fn chunks(keys: Range<usize>) -> Range<usize> {
    keys.start / CHUNK..keys.end.div_ceil(CHUNK)
}

fn common(a: Range<usize>, b: Range<usize>) -> Range<usize> {
    a.start.max(b.start)..a.end.min(b.end)
}

/// Multiplies each row of `[rows, lanes]` by its scale, where there are any.
fn scale_rows(x: &mut [f32], lanes: usize, scales: &[f32]) {
    for (row, scale) in x.chunks_exact_mut(lanes).zip(scales) {
        row.iter_mut().for_each(|x| *x *= scale);
    }
}

/// The softmax of a chunk of scores, `[keys, lanes]`, the first being key `first` of its chunk: replaces them by
/// `2^(score - top)`; yields `top` and the sum of each lane.
struct Softmax<'a> {
    scores: &'a mut [f32],
    lanes: usize,
    first: usize,
    mask: Option<Mask>,
    top: &'a mut [f32],
    sum: &'a mut [f32],
}

impl Op for Softmax<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let lanes = self.lanes;
        for first in (0..lanes).step_by(LANES) {
            let top = hide(s, self.scores, lanes, first, self.mask, s.splat(f32::NEG_INFINITY));
            let mut sums = [s.splat(0.0); LANES];
            for (j, row) in self.scores.chunks_exact_mut(lanes).enumerate() {
                let p = exp2(s, s.sub(Whole.get(s, row, first, 0.0), top));
                let sum = &mut sums[(self.first + j) % LANES];
                *sum = s.add(*sum, p);
                Whole.put(s, row, first, p);
            }
            Whole.put(s, self.top, first, top);
            Whole.put(s, self.sum, first, tree(s, sums));
        }
    }
}
