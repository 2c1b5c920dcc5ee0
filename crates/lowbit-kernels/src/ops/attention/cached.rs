//! Attention of new tokens to a cache of keys and values.

use super::forward::Forward;
use super::tile::{HeadRows, Pack, Product, View};
use super::{AttentionShape, Parts, SMALL};
use crate::ops::math::{Extent, Part, Whole, exp2, sums, vectors};
use crate::pool::SharedMut;
use crate::simd::{LANES, Simd};
use crate::{Cpu, Op, scratch};
use std::ops::Range;

/// Most new tokens for which a vector holds elements of a key instead of queries.
const FEW: usize = 8;
/// Keys whose scores are summed side by side.
const BATCH: usize = 4;
/// Keys of one task.
const CHUNK: usize = 256;

/// Scores of all keys for all queries: `scores[i * stride + j] = q[i] . k[j]`, `q` `[queries, padded]`.
struct Scores<'a> {
    q: &'a [f32],
    k: HeadRows<'a>,
    scores: &'a mut [f32],
    stride: usize,
}

impl Op for Scores<'_> {
    type Out = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let HeadRows { rows, cols, .. } = self.k;
        for first in (0..rows).step_by(LANES) {
            let queries = self.q.chunks_exact(cols.next_multiple_of(LANES));
            for (q, scores) in queries.zip(self.scores.chunks_exact_mut(self.stride)) {
                let mut partial = [s.splat(0.0); LANES];
                for (i, sums) in partial.chunks_exact_mut(BATCH).enumerate() {
                    let k: [&[f32]; BATCH] = std::array::from_fn(|r| self.k.row((first + i * BATCH + r).min(rows - 1)));
                    let mut batch = [s.splat(0.0); BATCH];
                    vectors!(cols, |at, w| {
                        let q = w.get(s, q, at, 0.0);
                        for r in 0..BATCH {
                            batch[r] = s.fma(q, w.get(s, k[r], at, 0.0), batch[r]);
                        }
                    });
                    sums.copy_from_slice(&batch);
                }
                Whole.put(s, scores, first, sums(s, partial));
            }
        }
    }
}

/// `x = 2^(x - top)`; returns `top = max(x)` and the sum.
struct Softmax<'a>(&'a mut [f32]);

impl Op for Softmax<'_> {
    type Out = (f32, f32);

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) -> (f32, f32) {
        let x = self.0;
        let mut top = s.splat(f32::NEG_INFINITY);
        vectors!(x.len(), |i, w| {
            top = s.max(w.get(s, x, i, f32::NEG_INFINITY), top);
        });
        let top = s.max_lane(top);
        let (shift, mut sum) = (s.splat(top), s.splat(0.0));
        vectors!(x.len(), |i, w| {
            let p = exp2(s, s.sub(w.get(s, x, i, f32::NEG_INFINITY), shift));
            sum = s.add(sum, p);
            w.put(s, x, i, p);
        });
        (top, s.sum(sum))
    }
}

/// Joins the chunks of one query: `out = sum(2^(top - max) * values) / sum(2^(top - max) * sum)`.
struct Join<'a> {
    /// `[chunks]`, this query's elements `stride` apart.
    tops: &'a [f32],
    sums: &'a [f32],
    /// `[chunks, padded]`, likewise.
    values: &'a [f32],
    stride: usize,
    padded: usize,
    out: &'a mut [f32],
}

impl Op for Join<'_> {
    type Out = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let top = self.tops.iter().step_by(self.stride).copied().fold(f32::NEG_INFINITY, f32::max);
        let mut sum = s.splat(0.0);
        self.out.fill(0.0);
        for i in (0..self.tops.len()).step_by(self.stride) {
            let weight = exp2(s, s.splat(self.tops[i] - top));
            sum = s.fma(weight, s.splat(self.sums[i]), sum);
            let values = &self.values[i * self.padded..][..self.padded];
            vectors!(self.out.len(), |at, w| {
                w.put(s, self.out, at, s.fma(weight, w.get(s, values, at, 0.0), w.get(s, self.out, at, 0.0)));
            });
        }
        vectors!(self.out.len(), |at, w| {
            w.put(s, self.out, at, s.div(w.get(s, self.out, at, 0.0), sum));
        });
    }
}

/// A few new queries; the queries of a key head are rows `(query, head of the group)`.
struct Few<'a> {
    cpu: &'a Cpu,
    shape: AttentionShape,
    q: &'a [f32],
    keys: &'a [f32],
    values: &'a [f32],
    past: usize,
    new: usize,
    /// Per chunk, new token and head: largest score, sum of exponentials, and weighted sum of values `[padded]`.
    tops: SharedMut<'a, f32>,
    sums: SharedMut<'a, f32>,
    partials: SharedMut<'a, f32>,
}

impl Few<'_> {
    fn chunk(&self, chunk: Range<usize>, kv_head: usize) {
        let (shape, isa, padded) = (self.shape, self.cpu.isa, self.shape.padded());
        let (dim, rows, len) = (shape.head_dim, self.new * shape.group(), chunk.len());
        let index = chunk.start / CHUNK;
        let floats = rows * (2 * padded + CHUNK) + CHUNK * padded;
        let mut scratch = scratch::take(floats * size_of::<f32>());
        let mut parts = Parts(scratch.floats());
        let (q, sums) = (parts.take(rows * padded), parts.take(rows * padded));
        let (scores, packed) = (parts.take(rows * CHUNK), parts.take(CHUNK * padded));
        let col = kv_head * dim;
        for (t, q) in q.chunks_exact_mut(shape.group() * padded).enumerate() {
            let at = t * shape.width() + kv_head * shape.group() * dim;
            let from = HeadRows { data: &self.q[at..], stride: dim, rows: shape.group(), cols: dim };
            isa.run(Pack { from, scale: shape.scale() * std::f32::consts::LOG2_E, to: q });
        }
        let k = HeadRows::new(self.keys, shape.kv_width(), chunk.start, len, col, dim);
        isa.run(Scores { q, k, scores, stride: CHUNK });
        for (row, scores) in scores.chunks_exact_mut(CHUNK).enumerate() {
            let t = row / shape.group();
            let seen = shape.reach(self.past, t + 1, self.past + self.new).saturating_sub(chunk.start).min(len);
            let (top, sum) = isa.run(Softmax(&mut scores[..seen]));
            scores[seen..len].fill(0.0);
            let at = self.at(index, t, kv_head * shape.group() + row % shape.group());
            // SAFETY: each chunk of each head belongs to one task.
            unsafe { (self.tops.slice(at..at + 1)[0], self.sums.slice(at..at + 1)[0]) = (top, sum) };
        }
        let v = HeadRows::new(self.values, shape.kv_width(), chunk.start, len, col, dim);
        let (b, b_row) = if dim == padded {
            (v.data, v.stride)
        } else {
            isa.run(Pack { from: v, scale: 1.0, to: packed });
            (&*packed, padded)
        };
        let a = View { data: scores, row: CHUNK, col: 1 };
        isa.run(Product { a, b, b_row, c: sums, c_row: padded, m: rows, n: padded, k: len, add: false });
        for (row, sums) in sums.chunks_exact(padded).enumerate() {
            let head = kv_head * shape.group() + row % shape.group();
            let at = self.at(index, row / shape.group(), head) * padded;
            // SAFETY: as above.
            unsafe { self.partials.slice(at..at + padded) }.copy_from_slice(sums);
        }
    }

    /// Where a chunk of a head of a new token keeps its results.
    fn at(&self, chunk: usize, t: usize, head: usize) -> usize {
        (chunk * self.new + t) * self.shape.heads + head
    }
}

fn few(cpu: &Cpu, shape: AttentionShape, q: &[f32], keys: &[f32], values: &[f32], past: usize, out: &mut [f32]) {
    let (new, padded) = (q.len() / shape.width(), shape.padded());
    let total = past + new;
    let (rows, chunks) = (new * shape.heads, total.div_ceil(CHUNK));
    let mut scratch = scratch::take(chunks * rows * (padded + 2) * size_of::<f32>());
    let mut parts = Parts(scratch.floats());
    let (tops, sums) = (parts.take(chunks * rows), parts.take(chunks * rows));
    let partials = parts.take(chunks * rows * padded);
    let few = Few {
        cpu,
        shape,
        q,
        keys,
        values,
        past,
        new,
        tops: SharedMut::new(tops),
        sums: SharedMut::new(sums),
        partials: SharedMut::new(partials),
    };
    let chunk = |i: usize| i * CHUNK..((i + 1) * CHUNK).min(total);
    let task = |i: usize| few.chunk(chunk(i / shape.kv_heads), i % shape.kv_heads);
    let tasks = chunks * shape.kv_heads;
    match 2 * total * new * shape.heads * shape.head_dim < SMALL {
        true => (0..tasks).for_each(task),
        false => cpu.pool.run(tasks, &task),
    }
    for (row, out) in out.chunks_exact_mut(shape.head_dim).enumerate() {
        let (tops, sums, values) = (&tops[row..], &sums[row..], &partials[row * padded..]);
        cpu.isa.run(Join { tops, sums, values, stride: rows, padded, out });
    }
}

/// Attention of the new tokens of one sequence, `q` and `out` `[new, heads * head_dim]`, to `keys` and `values`
/// `[past + new, kv_heads * head_dim]`: query `i` is at position `past + i`. Not causal, each sees all keys.
pub fn attention_cached(
    cpu: &Cpu,
    shape: AttentionShape,
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    past: usize,
    out: &mut [f32],
) {
    let new = q.len() / shape.width().max(1);
    shape.check(new, q.len(), past + new, keys.len(), values.len());
    assert_eq!(out.len(), q.len(), "out is as long as q");
    if new == 0 {
        return;
    }
    if new <= FEW {
        return few(cpu, shape, q, keys, values, past, out);
    }
    let out = SharedMut::new(out);
    let forward = Forward { cpu, shape, q, k: keys, v: values, out, logsumexp: None };
    forward.run([[0, new, 0, past + new]].into_iter());
}
