//! Attention within whole sequences.

use super::tile::{
    Factors, HeadRows, LogSumExp, Pack, PackTransposed, Product, ScaleRows, SharedRows, SoftmaxTile, Unpack, View,
};
use super::{AttentionShape, KEYS, PANEL, Parts, panels, run, tiles};
use crate::ops::check_cu_seqlens;
use crate::pool::SharedMut;
use crate::simd::LANES;
use crate::{Cpu, scratch};
use std::ops::Range;

/// Queries of one task.
const BLOCK: usize = 4 * PANEL;

/// The arguments of an attention.
struct Forward<'a> {
    cpu: &'a Cpu,
    shape: AttentionShape,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    out: SharedMut<'a, f32>,
    logsumexp: SharedMut<'a, f32>,
}

/// One head of up to [`BLOCK`] queries.
#[derive(Clone, Copy)]
struct Item {
    head: usize,
    /// First row of the sequence.
    start: usize,
    /// Position of the first query, and the number of queries.
    position: usize,
    queries: usize,
    /// Keys that any of the queries sees.
    first: usize,
    end: usize,
}

/// Online-softmax state of the queries of a task: transposed queries, sums of values, and per query the largest score, the sum of
/// exponentials, and the factor of the last tile.
struct State<'a> {
    transposed: &'a mut [f32],
    sums: &'a mut [f32],
    top: &'a mut [f32],
    sum: &'a mut [f32],
    shrink: &'a mut [f32],
    scores: &'a mut [f32],
}

impl Forward<'_> {
    /// The items of the sequence at some rows.
    fn items(&self, rows: Range<usize>) -> impl Iterator<Item = Item> {
        let (shape, start, len) = (self.shape, rows.start, rows.len());
        (0..shape.heads).flat_map(move |head| {
            (0..len).step_by(BLOCK).map(move |position| {
                let queries = BLOCK.min(len - position);
                let seen = shape.reach(position..position + queries, len);
                Item { head, start, position, queries, first: seen.start, end: seen.end }
            })
        })
    }

    /// Runs all sequences.
    fn run(&self, cu_seqlens: &[usize]) {
        let items = cu_seqlens.windows(2).flat_map(|w| self.items(w[0]..w[1])).collect();
        let cost = |item: &Item| 2 * item.queries * (item.end - item.first) * self.shape.head_dim;
        run(&self.cpu.pool, items, cost, |item| self.block(item));
    }

    fn block(&self, item: Item) {
        let (shape, isa) = (self.shape, self.cpu.isa);
        let (dim, padded, stride) = (shape.head_dim, shape.padded(), shape.stride());
        let rows = item.queries.next_multiple_of(PANEL);
        let len = rows * (dim + padded + 2) + PANEL + KEYS * (PANEL + 2 * stride);
        let mut scratch = scratch::take(len * size_of::<f32>());
        let mut parts = Parts(scratch.floats());
        let mut state = State {
            transposed: parts.take(rows * dim),
            sums: parts.take(rows * padded),
            top: parts.take(rows),
            sum: parts.take(rows),
            shrink: parts.take(PANEL),
            scores: parts.take(KEYS * PANEL),
        };
        let (k, v) = (parts.take(KEYS * stride), parts.take(KEYS * stride));
        state.top.fill(f32::NEG_INFINITY);
        state.sum.fill(0.0);
        // Scores are in units of log 2.
        let scale = shape.scale * std::f32::consts::LOG2_E;
        for (first, lanes) in panels(item.queries) {
            let rows = lanes.min(item.queries - first);
            let from =
                HeadRows::new(self.q, shape.width(), item.start + item.position + first, rows, item.head * dim, dim);
            let to = &mut state.transposed[first * dim..][..lanes * dim];
            isa.run(PackTransposed { from, scale, to, lanes });
        }
        for tile in tiles(item.end).skip(item.first / KEYS) {
            for (data, to) in [(self.k, &mut *k), (self.v, &mut *v)] {
                let (row, col) = (item.start + tile.start, item.head / shape.group() * dim);
                let from = HeadRows::new(data, shape.kv_width(), row, tile.len(), col, dim);
                isa.run(Pack { from, scale: 1.0, to, stride });
            }
            for (first, lanes) in panels(item.queries) {
                let queries = lanes.min(item.queries - first);
                let position = item.position + first;
                let seen = shape.reach(position..position + queries, item.end);
                if seen.start < tile.end && tile.start < seen.end {
                    let (keys, begins) = (tile.start..tile.end.min(seen.end), seen.start >= tile.start);
                    self.tile(item, &mut state, (k, v), (keys, begins), (first, lanes));
                }
            }
        }
        self.finish(item, state);
    }

    /// Adds some keys to the state of a panel, which begins with them or not.
    fn tile(
        &self,
        item: Item,
        state: &mut State,
        (k, v): (&[f32], &[f32]),
        (keys, begins): (Range<usize>, bool),
        (first, lanes): (usize, usize),
    ) {
        let (isa, dim, padded, stride) = (self.cpu.isa, self.shape.head_dim, self.shape.padded(), self.shape.stride());
        let queries = lanes.min(item.queries - first);
        let (start, keys) = (keys.start, keys.len());
        let scores = &mut state.scores[..keys * lanes];
        let mask = self.shape.mask(item.position + first, lanes, start, keys);
        // The last keys are seen by the second half of the lanes alone.
        let all = mask.map_or(keys, |mask| mask.end(LANES - 1).min(keys));
        for (rows, lane) in [(0..all, 0), (all..keys, LANES)].into_iter().filter(|(rows, _)| !rows.is_empty()) {
            isa.run(Product::<false> {
                a: View { data: &k[rows.start * stride..], row: stride, col: 1 },
                b: &state.transposed[first * dim + lane..],
                b_row: lanes,
                c: &mut scores[rows.start * lanes + lane..],
                c_row: lanes,
                m: rows.len(),
                n: lanes - lane,
                k: dim,
                add: false,
                mask: None,
            });
        }
        isa.run(SoftmaxTile {
            scores,
            lanes,
            mask,
            top: &mut state.top[first..first + lanes],
            sum: &mut state.sum[first..first + lanes],
            shrink: &mut state.shrink[..lanes],
        });
        let sums = &mut state.sums[first * padded..][..queries * padded];
        if !begins {
            isa.run(ScaleRows { x: sums, padded, factors: state.shrink });
        }
        isa.run(Product::<false> {
            a: View { data: scores, row: 1, col: lanes },
            b: v,
            b_row: stride,
            c: sums,
            c_row: padded,
            m: queries,
            n: padded,
            k: keys,
            add: !begins,
            mask,
        });
    }

    fn finish(&self, item: Item, state: State) {
        let (shape, isa) = (self.shape, self.cpu.isa);
        isa.run(LogSumExp { top: state.top, sum: state.sum });
        let row = item.start + item.position;
        let first = row * shape.width() + item.head * shape.head_dim;
        let to = SharedRows { data: &self.out, first, stride: shape.width(), cols: shape.head_dim };
        let factors = Factors::Each(state.sum);
        // SAFETY: each head of each query belongs to one item.
        unsafe { Unpack { from: state.sums, factors, rows: item.queries, add: false, to }.run(isa) };
        for (i, &value) in state.top[..item.queries].iter().enumerate() {
            let at = (row + i) * shape.heads + item.head;
            // SAFETY: as above.
            unsafe { self.logsumexp.slice(at..at + 1)[0] = value };
        }
    }
}

/// Softmax attention within each sequence: `q` and `out` `[tokens, heads * head_dim]`, `k` and `v`
/// `[tokens, kv_heads * head_dim]`, `cu_seqlens` `[sequences + 1]`. Also yields the logarithm of the sum of the exponentials of
/// the scores, `logsumexp` `[tokens, heads]`, for [`attention_backward`](super::attention_backward). (arXiv 2205.14135;
/// grouped heads: arXiv 2305.13245.)
#[allow(clippy::too_many_arguments)]
pub fn attention(
    cpu: &Cpu,
    shape: AttentionShape,
    cu_seqlens: &[usize],
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &mut [f32],
    logsumexp: &mut [f32],
) {
    let tokens = logsumexp.len() / shape.heads.max(1);
    check_cu_seqlens(cu_seqlens, tokens);
    shape.check(tokens, q.len(), tokens, k.len(), v.len());
    assert_eq!(out.len(), q.len(), "out is as long as q");
    let forward = Forward { cpu, shape, q, k, v, out: SharedMut::new(out), logsumexp: SharedMut::new(logsumexp) };
    forward.run(cu_seqlens);
}
