//! The steps of attention on one tile of keys and one panel of queries.

use crate::ops::math::{Extent, Partial, Whole, exp2, ln, not, ramp, select, sums, transpose, vectors};
use crate::pool::SharedMut;
use crate::simd::{LANES, Simd};
use crate::{Isa, Op, Products};
use std::ops::Range;

/// A matrix view: element `(i, j)` is `data[i * row + j * col]`.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub data: &'a [f32],
    pub row: usize,
    pub col: usize,
}

/// `C = A B`, or `C += A B`: `A` `[m, k]` in any order, `B` `[k, n]` and `C` `[m, n]` with contiguous rows of `n` a multiple
/// of 16. Sums run over `k` in order, or when `SPLIT` are 16 sums over every 16th term, added by the tree of [`Simd::sum`]:
/// what a dot product of vectors along `k` comes to. With a mask, `A` is 0 where its row (query) does not see the key: some of it is left out.
pub(super) struct Product<'a, const SPLIT: bool> {
    pub a: View<'a>,
    pub b: &'a [f32],
    pub b_row: usize,
    pub c: &'a mut [f32],
    pub c_row: usize,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub add: bool,
    pub mask: Option<Mask>,
}

impl<const SPLIT: bool> Op for Product<'_, SPLIT> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Product { a, m, n, k, .. } = self;
        if m == 0 {
            return;
        }
        assert!(k > 0 && n.is_multiple_of(LANES));
        assert!((m - 1) * a.row + (k - 1) * a.col < a.data.len());
        assert!((k - 1) * self.b_row + n <= self.b.len() && (m - 1) * self.c_row + n <= self.c.len());
        let mut block = Block { s, p: self };
        // SAFETY: the views hold the rows and columns named, as just checked.
        unsafe {
            if S::MANY_REGISTERS {
                block.columns::<8, 2>();
            } else {
                block.columns::<6, 1>();
            }
        }
    }
}

struct Block<'a, S, const SPLIT: bool> {
    s: S,
    p: Product<'a, SPLIT>,
}

/// The order in which the sums of a tree come when its branches are added as soon as both are there.
const LEAVES: [usize; LANES] = [0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15];

impl<S: Simd, const SPLIT: bool> Block<'_, S, SPLIT> {
    /// All columns, `V` vectors at a time, `R` rows at a time.
    #[inline(always)]
    unsafe fn columns<const R: usize, const V: usize>(&mut self) {
        let mut j = 0;
        // SAFETY: as for the caller; blocks tile rows `0..m` and columns `0..n`.
        unsafe {
            while j + V * LANES <= self.p.n {
                self.rows::<R, V>(j);
                j += V * LANES;
            }
            while j < self.p.n {
                self.rows::<R, 1>(j);
                j += LANES;
            }
        }
    }

    #[inline(always)]
    unsafe fn rows<const R: usize, const V: usize>(&mut self, j: usize) {
        let (mut i, m) = (0, self.p.m);
        // SAFETY: as for the caller.
        unsafe {
            while i + R <= m {
                self.block::<R, V>(i, j);
                i += R;
            }
            while i + 4 <= m {
                self.block::<4, V>(i, j);
                i += 4;
            }
            while i < m {
                self.block::<1, V>(i, j);
                i += 1;
            }
        }
    }

    /// Rows `i..i + R`, columns `j..j + 16 V`.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // counters of constant range, which become registers
    unsafe fn block<const R: usize, const V: usize>(&mut self, i: usize, j: usize) {
        let (s, p) = (self.s, &mut self.p);
        let mut sums = [[s.splat(0.0); V]; R];
        // SAFETY: the caller promises that the block lies inside the matrices.
        unsafe {
            let (a, b, c) =
                (p.a.data.as_ptr().add(i * p.a.row), p.b.as_ptr().add(j), p.c.as_mut_ptr().add(i * p.c_row + j));
            if p.add {
                for r in 0..R {
                    for v in 0..V {
                        sums[r][v] = s.load(c.add(r * p.c_row + v * LANES));
                    }
                }
            }
            let (first, end) = p.mask.map_or((0, p.k), |mask| (mask.first(i), mask.end(i + R - 1).min(p.k)));
            if SPLIT {
                let mut branches = [[[s.splat(0.0); V]; R]; LANES.ilog2() as usize + 1];
                for leaf in 0..LANES {
                    let zero = [[s.splat(0.0); V]; R];
                    let mut sum = terms::<S, R, V, LANES, SPLIT>(s, p, (a, b), LEAVES[leaf]..end, zero);
                    let mut level = 0;
                    while leaf >> level & 1 == 1 {
                        for r in 0..R {
                            for v in 0..V {
                                sum[r][v] = s.add(branches[level][r][v], sum[r][v]);
                            }
                        }
                        level += 1;
                    }
                    branches[level] = sum;
                }
                for r in 0..R {
                    for v in 0..V {
                        sums[r][v] = s.add(sums[r][v], branches[LANES.ilog2() as usize][r][v]);
                    }
                }
            } else {
                sums = terms::<S, R, V, 1, SPLIT>(s, p, (a, b), first..end, sums);
            }
            for r in 0..R {
                for v in 0..V {
                    s.store(c.add(r * p.c_row + v * LANES), sums[r][v]);
                }
            }
        }
    }
}

/// Adds every `STEP`th of some terms to the sums of a block at `a` and `b`.
///
/// # Safety
/// The terms are there for `R` rows from `a` and `V` vectors from `b`.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // counters of constant range, which become registers
unsafe fn terms<S: Simd, const R: usize, const V: usize, const STEP: usize, const SPLIT: bool>(
    s: S,
    p: &Product<'_, SPLIT>,
    (a, b): (*const f32, *const f32),
    mut terms: Range<usize>,
    mut sums: [[S::F; V]; R],
) -> [[S::F; V]; R] {
    while terms.start < terms.end {
        // SAFETY: terms that are there, by the contract.
        unsafe {
            let (a, b) = (a.add(terms.start * p.a.col), b.add(terms.start * p.b_row));
            let mut row = [s.splat(0.0); V];
            for v in 0..V {
                row[v] = s.load(b.add(v * LANES));
            }
            for r in 0..R {
                let x = s.splat(*a.add(r * p.a.row));
                for v in 0..V {
                    sums[r][v] = s.fma(x, row[v], sums[r][v]);
                }
            }
        }
        terms.start += STEP;
    }
    sums
}

/// Rows of one head inside a matrix: row `i` is `data[i * stride..][..cols]`.
#[derive(Clone, Copy)]
pub(super) struct HeadRows<'a> {
    pub data: &'a [f32],
    pub stride: usize,
    pub rows: usize,
    pub cols: usize,
}

impl<'a> HeadRows<'a> {
    /// Rows `first..first + rows` of a matrix with rows of `stride`, `cols` columns from `col`.
    pub fn new(data: &'a [f32], stride: usize, first: usize, rows: usize, col: usize, cols: usize) -> Self {
        HeadRows { data: &data[first * stride + col..], stride, rows, cols }
    }

    #[inline(always)]
    pub fn row(&self, i: usize) -> &'a [f32] {
        &self.data[i * self.stride..][..self.cols]
    }
}

/// Copies rows times `scale` to rows of whole vectors, zeros behind, `stride` apart.
pub(super) struct Pack<'a> {
    pub from: HeadRows<'a>,
    pub scale: f32,
    pub to: &'a mut [f32],
    pub stride: usize,
}

impl Op for Pack<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for (i, to) in self.to.chunks_exact_mut(self.stride).take(self.from.rows).enumerate() {
            vectors!(self.from.cols, |at, w| {
                Whole.put(s, to, at, s.mul(w.get(s, self.from.row(i), at, 0.0), s.splat(self.scale)));
            });
        }
    }
}

/// Transposes rows times `scale` to `[cols, lanes]`; lanes beyond the rows are 0.
pub(super) struct PackTransposed<'a> {
    pub from: HeadRows<'a>,
    pub scale: f32,
    pub to: &'a mut [f32],
    pub lanes: usize,
}

impl Op for PackTransposed<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let HeadRows { rows, cols, .. } = self.from;
        let scale = s.splat(self.scale);
        for lane in (0..self.lanes).step_by(LANES) {
            vectors!(cols, |at, w| {
                let mut block = [s.splat(0.0); LANES];
                for (i, v) in block.iter_mut().enumerate() {
                    // Rows lie far apart: those of the next lanes are asked for now.
                    let next = (lane + LANES + i) * self.from.stride + at;
                    s.prefetch(self.from.data.as_ptr().wrapping_add(next).cast());
                    if lane + i < rows {
                        *v = s.mul(w.get(s, self.from.row(lane + i), at, 0.0), scale);
                    }
                }
                let block = transpose(s, block);
                for (i, v) in block.iter().enumerate() {
                    if at + i < cols {
                        Whole.put(s, self.to, (at + i) * self.lanes + lane, *v);
                    }
                }
            });
        }
    }
}

/// Which lanes (queries) of a row (key) of scores count: key `j` of the tile counts for lane `i` when
/// `i + low <= j <= i + high`.
#[derive(Clone, Copy)]
pub(super) struct Mask {
    pub low: isize,
    pub high: isize,
}

impl Mask {
    /// The first key of the tile that lane `i` sees, if the tile has as many.
    #[inline(always)]
    pub fn first(self, i: usize) -> usize {
        self.low.saturating_add_unsigned(i).max(0) as usize
    }

    /// The key of the tile behind the last that lane `i` sees, if the tile has as many.
    #[inline(always)]
    pub fn end(self, i: usize) -> usize {
        (self.high + 1).saturating_add_unsigned(i).max(0) as usize
    }

    /// The keys of the tile that each of the first `lanes` lanes sees.
    #[inline(always)]
    fn seen_by_all(self, lanes: usize) -> Range<usize> {
        self.first(lanes - 1)..self.end(0)
    }

    /// All ones in lanes `first..first + 16` for which key `j` counts.
    #[inline(always)]
    fn keep<S: Simd>(self, s: S, j: usize, first: usize) -> S::I {
        let lane = s.add_i(ramp(s), s.splat_i(first as i32));
        let (low, high) = (j as isize - self.low, j as isize - self.high - 1);
        let not_above = s.sar::<31>(s.sub_i(s.splat_i(high as i32), lane));
        s.and(not_above, not(s, s.sar::<31>(s.sub_i(s.splat_i(low as i32), lane))))
    }
}

/// Score of a key that does not count.
const HIDDEN: f32 = -1e30;

/// Hides the scores, `[keys, lanes]`, that do not count for lanes `first..first + 16`; the largest of the others and of `top`.
#[inline(always)]
pub(super) fn hide<S: Simd>(
    s: S,
    scores: &mut [f32],
    lanes: usize,
    first: usize,
    mask: Option<Mask>,
    mut top: S::F,
) -> S::F {
    let whole = mask.map_or(0..usize::MAX, |mask| mask.seen_by_all(lanes));
    for (j, row) in scores.chunks_exact_mut(lanes).enumerate() {
        let mut score = Whole.get(s, row, first, 0.0);
        if let (Some(mask), false) = (mask, whole.contains(&j)) {
            score = select(s, mask.keep(s, j, first), score, s.splat(HIDDEN));
            Whole.put(s, row, first, score);
        }
        top = s.max(top, score);
    }
    top
}

/// The online softmax of a tile of scores in units of log 2, `[keys, lanes]`: replaces them by `2^(score - top)`, updates
/// `top` and `sum`, and yields the factor by which what was accumulated so far shrinks.
pub(super) struct SoftmaxTile<'a> {
    pub scores: &'a mut [f32],
    pub lanes: usize,
    pub mask: Option<Mask>,
    pub top: &'a mut [f32],
    pub sum: &'a mut [f32],
    pub shrink: &'a mut [f32],
}

impl Op for SoftmaxTile<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let lanes = self.lanes;
        for first in (0..lanes).step_by(LANES) {
            let old = Whole.get(s, self.top, first, 0.0);
            let top = hide(s, self.scores, lanes, first, self.mask, old);
            let shrink = exp2(s, s.sub(old, top));
            let mut sum = s.mul(Whole.get(s, self.sum, first, 0.0), shrink);
            for row in self.scores.chunks_exact_mut(lanes) {
                let p = exp2(s, s.sub(Whole.get(s, row, first, 0.0), top));
                sum = s.add(sum, p);
                Whole.put(s, row, first, p);
            }
            Whole.put(s, self.top, first, top);
            Whole.put(s, self.sum, first, sum);
            Whole.put(s, self.shrink, first, shrink);
        }
    }
}

/// Multiplies each row of `[rows, padded]` by its factor.
pub(super) struct ScaleRows<'a> {
    pub x: &'a mut [f32],
    pub padded: usize,
    pub factors: &'a [f32],
}

impl Op for ScaleRows<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for (row, &factor) in self.x.chunks_exact_mut(self.padded).zip(self.factors) {
            vectors!(row.len(), |at, w| {
                w.put(s, row, at, s.mul(w.get(s, row, at, 0.0), s.splat(factor)));
            });
        }
    }
}

/// Turns `top` into `ln(sum(exp(scores)))` and `sum` into its inverse.
pub(super) struct LogSumExp<'a> {
    pub top: &'a mut [f32],
    pub sum: &'a mut [f32],
}

impl Op for LogSumExp<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for first in (0..self.top.len()).step_by(LANES) {
            let (top, sum) = (Whole.get(s, self.top, first, 0.0), Whole.get(s, self.sum, first, 1.0));
            Whole.put(s, self.top, first, s.fma(top, s.splat(std::f32::consts::LN_2), ln(s, sum)));
            Whole.put(s, self.sum, first, s.div(s.splat(1.0), sum));
        }
    }
}

/// From scores and gradients of probabilities to probabilities and gradients of scores, `[keys, lanes]`: `p = 2^(score -
/// logsumexp)`, `d = p * (d - delta)`.
pub(super) struct Probabilities<'a> {
    pub p: &'a mut [f32],
    pub d: &'a mut [f32],
    pub lanes: usize,
    pub mask: Option<Mask>,
    /// In units of log 2, `[lanes]`.
    pub logsumexp: &'a [f32],
    pub delta: &'a [f32],
}

impl Op for Probabilities<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let lanes = self.lanes;
        let whole = self.mask.map_or(0..usize::MAX, |mask| mask.seen_by_all(lanes));
        for first in (0..lanes).step_by(LANES) {
            let (logsumexp, delta) = (Whole.get(s, self.logsumexp, first, 0.0), Whole.get(s, self.delta, first, 0.0));
            let rows = self.p.chunks_exact_mut(lanes).zip(self.d.chunks_exact_mut(lanes));
            for (j, (p_row, d_row)) in rows.enumerate() {
                let mut p = exp2(s, s.sub(Whole.get(s, p_row, first, 0.0), logsumexp));
                if let (Some(mask), false) = (self.mask, whole.contains(&j)) {
                    p = select(s, mask.keep(s, j, first), p, s.splat(0.0));
                }
                Whole.put(s, p_row, first, p);
                Whole.put(s, d_row, first, s.mul(p, s.sub(Whole.get(s, d_row, first, 0.0), delta)));
            }
        }
    }
}

/// `dots[i] = a[i] . b[i]` for each row; `dots` is whole vectors.
pub(super) struct RowDots<'a> {
    pub a: HeadRows<'a>,
    pub b: HeadRows<'a>,
    pub dots: &'a mut [f32],
}

impl Op for RowDots<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let HeadRows { rows, cols, .. } = self.a;
        for first in (0..rows).step_by(LANES) {
            let mut partial = [s.splat(0.0); LANES];
            for (i, sum) in partial.iter_mut().enumerate() {
                let row = (first + i).min(rows - 1);
                let (a, b) = (self.a.row(row), self.b.row(row));
                vectors!(cols, |at, w| {
                    *sum = s.fma(w.get(s, a, at, 0.0), w.get(s, b, at, 0.0), *sum);
                });
            }
            Whole.put(s, self.dots, first, sums(s, partial));
        }
    }
}

/// Rows of one head inside a matrix that tasks share: row `i` is `data[first + i * stride..][..cols]`.
pub(super) struct SharedRows<'a> {
    pub data: &'a SharedMut<'a, f32>,
    pub first: usize,
    pub stride: usize,
    pub cols: usize,
}

/// Writes `to = factor * from`, or `to += factor * from`, for each row: `from` `[factors.len(), padded]`.
pub(super) struct Unpack<'a> {
    pub from: &'a [f32],
    pub factors: Factors<'a>,
    pub rows: usize,
    pub add: bool,
    pub to: SharedRows<'a>,
}

/// One factor per row, or one for all.
#[derive(Clone, Copy)]
pub(super) enum Factors<'a> {
    Each(&'a [f32]),
    Same(f32),
}

impl Unpack<'_> {
    /// # Safety
    /// No other task touches the rows.
    #[inline(always)]
    pub unsafe fn run(self, isa: Isa) {
        isa.run(UnpackRows(self))
    }
}

/// An [`Unpack`] whose caller has promised what [`Unpack::run`] asks for.
struct UnpackRows<'a>(Unpack<'a>);

impl Op for UnpackRows<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Unpack { from, factors, rows, add, to } = self.0;
        let padded = to.cols.next_multiple_of(LANES);
        for (i, from) in from.chunks_exact(padded).take(rows).enumerate() {
            let at = to.first + i * to.stride;
            // SAFETY: no other task touches the rows, and this is the only live part of this task.
            let row = unsafe { to.data.slice(at..at + to.cols) };
            let factor = s.splat(match factors {
                Factors::Each(factors) => factors[i],
                Factors::Same(factor) => factor,
            });
            vectors!(to.cols, |at, w| {
                let x = w.get(s, from, at, 0.0);
                let x = if add { s.fma(x, factor, w.get(s, row, at, 0.0)) } else { s.mul(x, factor) };
                w.put(s, row, at, x);
            });
        }
    }
}
