//! Products of a few queries with keys and values as a cache stores them: numbers are widened in registers, and a row that was
//! read meets several queries.

use super::cache::{Numbers, RowsView, place};
use super::{AttentionShape, TILE};
use crate::ops::math::{Extent, Partial, Whole, sums};
use crate::simd::{LANES, Simd};
use crate::{Isa, Op, Products};
use half::f16;
use std::ops::Range;

/// Keys whose scores are summed side by side.
const BATCH: usize = 4;

/// A number of a cache.
pub(super) trait Number: Copy {
    /// Loads 16 numbers as f32.
    ///
    /// # Safety
    /// The 16 numbers from `p` on are inside one allocation.
    unsafe fn widen<S: Simd>(s: S, p: *const Self) -> S::F;
    fn float(self) -> f32;
}

impl Number for f32 {
    #[inline(always)]
    unsafe fn widen<S: Simd>(s: S, p: *const f32) -> S::F {
        // SAFETY: by the contract.
        unsafe { s.load(p) }
    }
    #[inline(always)]
    fn float(self) -> f32 {
        self
    }
}

/// The bits of a half.
impl Number for u16 {
    #[inline(always)]
    unsafe fn widen<S: Simd>(s: S, p: *const u16) -> S::F {
        // SAFETY: by the contract.
        unsafe { s.load_f16(p) }
    }
    #[inline(always)]
    fn float(self) -> f32 {
        f16::from_bits(self).to_f32()
    }
}

impl Number for i8 {
    #[inline(always)]
    unsafe fn widen<S: Simd>(s: S, p: *const i8) -> S::F {
        // SAFETY: by the contract.
        unsafe { s.to_f(s.load_i8(p)) }
    }
    #[inline(always)]
    fn float(self) -> f32 {
        f32::from(self)
    }
}

/// One head of some rows: row `i` is `data[i * next..][..cols]`, times `scales[i]` where there are scales.
#[derive(Clone, Copy)]
struct Head<'a, T> {
    data: &'a [T],
    next: usize,
    rows: usize,
    cols: usize,
    scales: &'a [f32],
}

impl<'a, T: Number> Head<'a, T> {
    /// Checks once what loads rely on.
    fn new(data: &'a [T], next: usize, rows: usize, cols: usize, scales: &'a [f32]) -> Self {
        assert!(rows > 0 && data.len() >= (rows - 1) * next + cols && (scales.is_empty() || scales.len() >= rows));
        Head { data, next, rows, cols, scales }
    }

    /// Where a row begins; the last row where there are fewer.
    #[inline(always)]
    fn row(&self, row: usize) -> *const T {
        // SAFETY: a row that is there: rows are inside the data, as was checked.
        unsafe { self.data.as_ptr().add(row.min(self.rows - 1) * self.next) }
    }

    /// The 16 numbers of a row from column `at` on; zeros behind the last column, if not `whole`.
    ///
    /// # Safety
    /// `row` is of [`Head::row`], and `at + 16 <= cols` if `whole`, `at < cols` otherwise.
    #[inline(always)]
    unsafe fn get<S: Simd>(&self, s: S, row: *const T, at: usize, whole: bool) -> S::F {
        if whole {
            // SAFETY: inside the row, by the contract.
            return unsafe { T::widen(s, row.add(at)) };
        }
        let mut lanes = [0.0; LANES];
        // SAFETY: as above.
        let row = unsafe { std::slice::from_raw_parts(row.add(at), self.cols - at) };
        lanes.iter_mut().zip(row).for_each(|(to, from)| *to = from.float());
        Whole.get(s, &lanes, 0, 0.0)
    }

    /// Asks the cache for a row, which may be behind the last.
    #[inline(always)]
    fn prefetch<S: Simd>(&self, s: S, row: usize) {
        let start = self.data.as_ptr().wrapping_add(row * self.next).cast::<u8>();
        for line in 0..(self.cols * size_of::<T>()).div_ceil(64) {
            s.prefetch(start.wrapping_add(line * 64));
        }
    }
}

/// Evaluates `$body` with `$head` bound to one head of some rows of a block.
macro_rules! with_head {
    ($view:expr, $shape:expr, $rows:expr, $kv_head:expr, $head:ident => $body:expr) => {{
        let (view, shape, rows): (RowsView, AttentionShape, Range<usize>) = ($view, $shape, $rows);
        let ((block, slot), kv_head, cols) = (place(rows.start, $kv_head), $kv_head, shape.head_dim);
        match view.numbers {
            Numbers::Plain(x) => {
                let from = &x[(rows.start * shape.kv_heads + kv_head) * cols..];
                let $head = Head::new(from, shape.kv_heads * cols, rows.len(), cols, &[]);
                $body
            }
            Numbers::F32(x) => {
                let $head = Head::new(&x[block][slot * cols..], cols, rows.len(), cols, &[]);
                $body
            }
            Numbers::F16 { halves, .. } => {
                let factors = view.scales(rows.clone(), kv_head);
                let $head = Head::new(&halves[block][slot * cols..], cols, rows.len(), cols, factors);
                $body
            }
            Numbers::Int8 { codes, .. } => {
                let scales = view.scales(rows.clone(), kv_head);
                let $head = Head::new(&codes[block][slot * cols..], cols, rows.len(), cols, scales);
                $body
            }
        }
    }};
}

/// Scores of keys `rows` of a block for all queries: `scores[i * stride + j] = q[i] . k[j]`, `q` `[queries, padded]`. Up to 15
/// more scores are written, which mean nothing.
pub(super) fn scores(
    isa: Isa,
    shape: AttentionShape,
    (keys, rows, kv_head): (RowsView, Range<usize>, usize),
    q: &[f32],
    scores: &mut [f32],
    stride: usize,
) {
    with_head!(keys, shape, rows, kv_head, k => isa.run(Scores { q, k, scores, stride }));
}

struct Scores<'a, T> {
    q: &'a [f32],
    k: Head<'a, T>,
    scores: &'a mut [f32],
    stride: usize,
}

impl<T: Number> Op for Scores<'_, T> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(mut self, s: S) {
        let queries = self.q.len() / self.k.cols.next_multiple_of(LANES);
        for first in (0..self.k.rows).step_by(LANES) {
            let mut query = 0;
            while S::MANY_REGISTERS && query + 4 <= queries {
                self.tile::<S, 4>(s, first, query);
                query += 4;
            }
            while query < queries {
                self.tile::<S, 1>(s, first, query);
                query += 1;
            }
        }
    }
}

impl<T: Number> Scores<'_, T> {
    /// Adds the products of 16 columns, or of as many as there are.
    ///
    /// # Safety
    /// `q` points to `Q` padded queries, `rows` are of [`Head::row`], and the columns are there, all 16 if `whole`.
    #[inline(always)]
    unsafe fn step<S: Simd, const Q: usize>(
        &self,
        s: S,
        mut acc: [[S::F; BATCH]; Q],
        (q, rows, at): (*const f32, [*const T; BATCH], usize),
        whole: bool,
    ) -> [[S::F; BATCH]; Q] {
        let (k, padded) = (self.k, self.k.cols.next_multiple_of(LANES));
        let mut keys = [s.splat(0.0); BATCH];
        for r in 0..BATCH {
            // SAFETY: rows that are there, and columns as [`Head::get`] wants them, by the contract.
            keys[r] = unsafe { k.get(s, rows[r], at, whole) };
        }
        for i in 0..Q {
            // SAFETY: inside the row of a query, by the contract.
            let q = unsafe { s.load(q.add(i * padded + at)) };
            for r in 0..BATCH {
                acc[i][r] = s.fma(q, keys[r], acc[i][r]);
            }
        }
        acc
    }

    /// `Q` queries and 16 keys.
    #[inline(always)]
    fn tile<S: Simd, const Q: usize>(&mut self, s: S, first: usize, query: usize) {
        let k = self.k;
        let (whole, padded) = (k.cols / LANES * LANES, k.cols.next_multiple_of(LANES));
        assert!(self.q.len() >= (query + Q) * padded);
        let mut partial = [[s.splat(0.0); LANES]; Q];
        let q = self.q[query * padded..].as_ptr();
        for batch in 0..LANES / BATCH {
            let (mut acc, row) = ([[s.splat(0.0); BATCH]; Q], first + batch * BATCH);
            let rows = [k.row(row), k.row(row + 1), k.row(row + 2), k.row(row + 3)];
            // SAFETY: queries, as was checked, rows, and columns that are there.
            unsafe {
                for at in (0..whole).step_by(LANES) {
                    acc = self.step(s, acc, (q, rows, at), true);
                }
                if whole < k.cols {
                    acc = self.step(s, acc, (q, rows, whole), false);
                }
            }
            for i in 0..Q {
                for r in 0..BATCH {
                    partial[i][batch * BATCH + r] = acc[i][r];
                }
            }
            if query == 0 {
                for r in 0..BATCH {
                    k.prefetch(s, row + r + TILE);
                }
            }
        }
        for (i, partial) in partial.into_iter().enumerate() {
            let mut sums = sums(s, partial);
            if !k.scales.is_empty() {
                sums = s.mul(sums, Partial.get(s, k.scales, first, 0.0));
            }
            Whole.put(s, self.scores, (query + i) * self.stride + first, sums);
        }
    }
}

/// Weighted sums of values `rows` of a block: `out[i] = sum_j p[i * stride + j] v[j]`, `out` `[queries, padded]`. Weights are
/// multiplied by the scales of the values, where there are any.
pub(super) fn values(
    isa: Isa,
    shape: AttentionShape,
    (values, rows, kv_head): (RowsView, Range<usize>, usize),
    p: &mut [f32],
    stride: usize,
    out: &mut [f32],
) {
    with_head!(values, shape, rows, kv_head, v => isa.run(Values { p, stride, v, out }));
}

struct Values<'a, T> {
    p: &'a mut [f32],
    stride: usize,
    v: Head<'a, T>,
    out: &'a mut [f32],
}

impl<T: Number> Op for Values<'_, T> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(mut self, s: S) {
        let (queries, rows) = (self.p.len() / self.stride, self.v.rows);
        assert!(rows <= self.stride && self.out.len() >= queries * self.v.cols.next_multiple_of(LANES));
        if !self.v.scales.is_empty() {
            for p in self.p.chunks_exact_mut(self.stride) {
                p.iter_mut().zip(&self.v.scales[..rows]).for_each(|(p, scale)| *p *= scale);
            }
        }
        let mut query = 0;
        while query + 4 <= queries {
            self.columns::<S, 4>(s, query);
            query += 4;
        }
        while query < queries {
            self.columns::<S, 1>(s, query);
            query += 1;
        }
    }
}

impl<T: Number> Values<'_, T> {
    #[inline(always)]
    fn columns<S: Simd, const Q: usize>(&mut self, s: S, query: usize) {
        let (mut at, cols) = (0, self.v.cols);
        while S::MANY_REGISTERS && at + 4 * LANES <= cols {
            self.tile::<S, Q, 4>(s, query, at, true);
            at += 4 * LANES;
        }
        while at + LANES <= cols {
            self.tile::<S, Q, 1>(s, query, at, true);
            at += LANES;
        }
        if at < cols {
            self.tile::<S, Q, 1>(s, query, at, false);
        }
    }

    /// `Q` queries and `V` vectors of columns.
    #[inline(always)]
    fn tile<S: Simd, const Q: usize, const V: usize>(&mut self, s: S, query: usize, at: usize, whole: bool) {
        let (v, stride) = (self.v, self.stride);
        assert!(self.p.len() >= (query + Q) * stride && v.rows <= stride);
        let mut acc = [[s.splat(0.0); V]; Q];
        let p = self.p[query * stride..].as_ptr();
        for row in 0..v.rows {
            let (mut values, from) = ([s.splat(0.0); V], v.row(row));
            for j in 0..V {
                // SAFETY: a row that is there, and columns as [`Head::get`] wants them.
                values[j] = unsafe { v.get(s, from, at + j * LANES, whole) };
            }
            for i in 0..Q {
                // SAFETY: inside the weights of a query, as was checked.
                let p = s.splat(unsafe { *p.add(i * stride + row) });
                for j in 0..V {
                    acc[i][j] = s.fma(p, values[j], acc[i][j]);
                }
            }
            if query == 0 && at == 0 {
                v.prefetch(s, row + TILE);
            }
        }
        let padded = v.cols.next_multiple_of(LANES);
        for (i, acc) in acc.into_iter().enumerate() {
            for (j, sum) in acc.into_iter().enumerate() {
                Whole.put(s, self.out, (query + i) * padded + at + j * LANES, sum);
            }
        }
    }
}
