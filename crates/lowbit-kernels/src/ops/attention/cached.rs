//! Attention of new tokens to a cache of keys and values.

use super::cache::{BLOCK, CacheRows, RowsView};
use super::prefill::Prefill;
use super::tile::{HeadRows, Pack};
use super::{AttentionShape, Parts, SMALL, stored};
use crate::ops::math::{Extent, Partial, Whole, exp2, vectors};
use crate::pool::SharedMut;
use crate::simd::{LANES, Simd};
use crate::{Cpu, Op, Products, scratch};
use std::ops::Range;

/// Most new tokens for which a vector holds elements of a key instead of queries.
const DECODE_QUERIES: usize = 8;
/// Keys of one task.
pub(super) const CHUNK: usize = BLOCK;
/// Multiply-adds below which one thread does all.
const WORTH: usize = SMALL / 4;

/// `x = 2^(x - top)`; returns `top = max(x)` and the sum.
struct Softmax<'a>(&'a mut [f32]);

impl Op for Softmax<'_> {
    type Out = (f32, f32);
    const PRODUCTS: Products = Products::None;

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
pub(super) struct Join<'a> {
    /// `[chunks]`, this query's elements `stride` apart.
    pub tops: &'a [f32],
    pub sums: &'a [f32],
    /// `[chunks, padded]`, likewise.
    pub values: &'a [f32],
    pub stride: usize,
    pub padded: usize,
    pub out: &'a mut [f32],
}

impl Op for Join<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

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

/// The keys and values of one sequence.
#[derive(Clone, Copy)]
pub(super) struct Sequence<'a> {
    pub keys: RowsView<'a>,
    pub values: RowsView<'a>,
    pub past: usize,
    pub new: usize,
}

impl Sequence<'_> {
    pub fn total(&self) -> usize {
        self.past + self.new
    }

    /// Keys that any new query sees.
    fn seen(&self, shape: AttentionShape) -> Range<usize> {
        match self.new {
            0 => 0..0,
            _ => shape.reach(self.past..self.total(), self.total()),
        }
    }

    /// Chunks of keys that any new query sees.
    fn chunks(&self, shape: AttentionShape) -> Range<usize> {
        let seen = self.seen(shape);
        seen.start / CHUNK..seen.end.div_ceil(CHUNK)
    }
}

/// The sequence of an index.
type Sequences<'f, 'a> = &'f (dyn Fn(usize) -> Sequence<'a> + Sync + 'f);

/// Decode attention: at most [`DECODE_QUERIES`] new queries of each sequence; the queries of a key head are rows
/// `(query, head of the group)`.
struct Decode<'a> {
    cpu: &'a Cpu,
    shape: AttentionShape,
    q: &'a [f32],
    /// New queries of all sequences.
    rows: usize,
    /// Per chunk, new query and head: largest score, sum of exponentials, and weighted sum of values `[padded]`.
    tops: SharedMut<'a, f32>,
    sums: SharedMut<'a, f32>,
    partials: SharedMut<'a, f32>,
}

impl Decode<'_> {
    /// A chunk of keys of one key head, counted from the first that is seen; `first` is the row of the first query of the
    /// sequence.
    fn chunk(&self, of: Sequence, first: usize, index: usize, kv_head: usize) {
        let (shape, isa) = (self.shape, self.cpu.isa);
        let padded = shape.padded();
        let start = (of.chunks(shape).start + index) * CHUNK;
        // Whole vectors of hidden keys are left out: the others are summed in the same lanes.
        let hidden = of.seen(shape).start.saturating_sub(start) / LANES * LANES;
        let chunk = start + hidden..(start + CHUNK).min(of.total());
        let (dim, rows, len) = (shape.head_dim, of.new * shape.group(), chunk.len());
        let mut scratch = scratch::take(rows * (2 * padded + CHUNK) * size_of::<f32>());
        let mut parts = Parts(scratch.floats());
        let (q, sums) = (parts.take(rows * padded), parts.take(rows * padded));
        let scores = parts.take(rows * CHUNK);
        for (t, q) in q.chunks_exact_mut(shape.group() * padded).enumerate() {
            let at = (first + t) * shape.width() + kv_head * shape.group() * dim;
            let from = HeadRows { data: &self.q[at..], stride: dim, rows: shape.group(), cols: dim };
            isa.run(Pack { from, scale: shape.scale * std::f32::consts::LOG2_E, to: q, stride: padded });
        }
        stored::scores(isa, shape, (of.keys, chunk.clone(), kv_head), q, scores, CHUNK);
        for (row, scores) in scores.chunks_exact_mut(CHUNK).enumerate() {
            let t = row / shape.group();
            let seen = shape.seen(of.past + t, of.total());
            let [from, to] = [seen.start, seen.end].map(|key| key.saturating_sub(chunk.start).min(len));
            scores[..from].fill(f32::NEG_INFINITY);
            let (top, sum) = match from < to {
                true => isa.run(Softmax(&mut scores[..to])),
                false => (f32::NEG_INFINITY, 0.0),
            };
            scores[if from < to { to } else { 0 }..len].fill(0.0);
            let at = self.at(index, first + t, kv_head * shape.group() + row % shape.group());
            // SAFETY: each chunk of each head of each sequence belongs to one task.
            unsafe { (self.tops.slice(at..at + 1)[0], self.sums.slice(at..at + 1)[0]) = (top, sum) };
        }
        stored::values(isa, shape, (of.values, chunk, kv_head), scores, CHUNK, sums);
        for (row, sums) in sums.chunks_exact(padded).enumerate() {
            let head = kv_head * shape.group() + row % shape.group();
            let at = self.at(index, first + row / shape.group(), head) * padded;
            // SAFETY: as above.
            unsafe { self.partials.slice(at..at + padded) }.copy_from_slice(sums);
        }
    }

    /// Where a chunk of a head of a new query keeps its results.
    fn at(&self, chunk: usize, row: usize, head: usize) -> usize {
        (chunk * self.rows + row) * self.shape.heads + head
    }
}

/// Attention of `rows` new queries of `count` sequences, at most [`DECODE_QUERIES`] of each.
fn decode(cpu: &Cpu, shape: AttentionShape, q: &[f32], count: usize, sequences: Sequences<'_, '_>, out: &mut [f32]) {
    let (rows, padded) = (q.len() / shape.width(), shape.padded());
    let all = || (0..count).map(sequences);
    let chunks = all().map(|of| of.chunks(shape).len()).max().unwrap_or(0);
    let (stride, work) = (rows * shape.heads, all().map(|of| 2 * of.seen(shape).len() * of.new).sum::<usize>());
    let mut scratch = scratch::take(chunks * stride * (padded + 2) * size_of::<f32>());
    let mut parts = Parts(scratch.floats());
    let (tops, sums) = (parts.take(chunks * stride), parts.take(chunks * stride));
    let partials = parts.take(chunks * stride * padded);
    let decode = Decode {
        cpu,
        shape,
        q,
        rows,
        tops: SharedMut::new(tops),
        sums: SharedMut::new(sums),
        partials: SharedMut::new(partials),
    };
    let task = |i: usize| {
        let (kv_head, chunk, index) = (i % shape.kv_heads, i / shape.kv_heads % chunks, i / shape.kv_heads / chunks);
        let of = sequences(index);
        if chunk < of.chunks(shape).len() {
            decode.chunk(of, (0..index).map(|i| sequences(i).new).sum(), chunk, kv_head);
        }
    };
    let tasks = count * chunks * shape.kv_heads;
    match work * shape.width() < WORTH {
        true => (0..tasks).for_each(task),
        false => cpu.pool.run(tasks, &task),
    }
    let mut out = out.chunks_exact_mut(shape.head_dim);
    let mut row = 0;
    for of in all() {
        for out in out.by_ref().take(of.new * shape.heads) {
            let reach = (of.chunks(shape).len() - 1) * stride + 1;
            let (tops, sums, values) = (&tops[row..][..reach], &sums[row..][..reach], &partials[row * padded..]);
            cpu.isa.run(Join { tops, sums, values, stride, padded, out });
            row += 1;
        }
    }
}

fn attend(cpu: &Cpu, shape: AttentionShape, q: &[f32], count: usize, sequences: Sequences<'_, '_>, out: &mut [f32]) {
    assert_eq!(out.len(), q.len(), "out is as long as q");
    let (mut rows, mut most) = (0, 0);
    for of in (0..count).map(sequences) {
        let len = of.new * shape.width();
        shape.check(of.new, len, of.total(), of.keys.len, of.values.len);
        (rows, most) = (rows + of.new, most.max(of.new));
    }
    assert_eq!(q.len(), rows * shape.width(), "q is [tokens, heads * head_dim]");
    if most <= DECODE_QUERIES && rows > 0 {
        return decode(cpu, shape, q, count, sequences, out);
    }
    let mut row = 0;
    for of in (0..count).map(sequences) {
        let range = row * shape.width()..(row + of.new) * shape.width();
        row += of.new;
        match of.new {
            0 => {}
            1..=DECODE_QUERIES => decode(cpu, shape, &q[range.clone()], 1, &|_| of, &mut out[range]),
            _ => Prefill { cpu, shape, q: &q[range.clone()], of, out: SharedMut::new(&mut out[range]) }.run(),
        }
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
    let (keys, values) = (RowsView::plain(keys), RowsView::plain(values));
    attend(cpu, shape, q, 1, &|_| Sequence { keys, values, past, new }, out);
}

/// The cache of one sequence, and how many of its rows are new.
#[derive(Clone, Copy)]
pub struct Cached<'a> {
    /// Keys of all tokens, the new ones included.
    pub keys: &'a CacheRows,
    /// Values of all tokens.
    pub values: &'a CacheRows,
    /// New tokens, the last rows.
    pub new: usize,
}

/// Attention of the new tokens of `count` sequences, laid end to end in `q` and `out` `[new, heads * head_dim]`, each to its
/// own cache; see [`attention_cached`].
pub fn attention_caches<'a>(
    cpu: &Cpu,
    shape: AttentionShape,
    q: &[f32],
    count: usize,
    cached: &(dyn Fn(usize) -> Cached<'a> + Sync),
    out: &mut [f32],
) {
    attend(cpu, shape, q, count, &|i| cached(i).sequence(), out);
}

impl<'a> Cached<'a> {
    fn sequence(self) -> Sequence<'a> {
        let past = self.keys.rows().checked_sub(self.new).expect("new tokens are in the cache");
        Sequence { keys: self.keys.view(), values: self.values.view(), past, new: self.new }
    }
}
