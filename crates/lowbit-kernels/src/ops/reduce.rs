//! Reductions over rows and over everything, in chunks that depend on shapes alone.

use super::math::{Extent, Partial, Whole, in_fours, vectors};
use super::row_grain;
use crate::pool::SharedMut;
use crate::scratch;
use crate::simd::{LANES, Simd};
use crate::{Cpu, Op, Products};
use std::ops::Range;

/// Most chunks whose partial sums one reduction keeps.
const CHUNKS: usize = 64;
/// Elements of a chunk, at least.
const TERMS: usize = 32_768;

/// Lets `f(rows, partial)` add the rows of a chunk to a zeroed partial sum `[width]`, for all chunks of `rows` rows of
/// `width` elements, then adds the partial sums to `sum` in order of their chunks.
pub(super) fn sum_chunks(
    cpu: &Cpu,
    rows: usize,
    width: usize,
    sum: &mut [f32],
    f: impl Fn(Range<usize>, &mut [f32]) + Sync,
) {
    let grain = (TERMS / width.max(1)).max(1).max(rows.div_ceil(CHUNKS));
    let (chunks, len) = (rows.div_ceil(grain), sum.len());
    if chunks <= 1 {
        return f(0..rows, sum);
    }
    let mut scratch = scratch::take(chunks * len * size_of::<f32>());
    let partials = &mut scratch.floats()[..chunks * len];
    cpu.pool.for_rows(chunks, 1, [(&mut *partials, len)], |chunk, [partial]| {
        partial.fill(0.0);
        f(chunk.start * grain..(chunk.end * grain).min(rows), partial);
    });
    let (partials, isa) = (&*partials, cpu.isa);
    cpu.pool.for_rows(len, row_grain(chunks), [(sum, 1)], |columns, [sum]| {
        isa.run(AddRows { x: partials, width: len, first: columns.start, y: sum });
    });
}

/// `y += ` the sum of the rows of `x`, `[rows, width]`, columns `first..first + y.len()`.
struct AddRows<'a> {
    x: &'a [f32],
    width: usize,
    first: usize,
    y: &'a mut [f32],
}

impl Op for AddRows<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let len = self.y.len();
        for row in self.x.chunks_exact(self.width) {
            let row = &row[self.first..][..len];
            vectors!(len, |i, w| {
                w.put(s, self.y, i, s.add(w.get(s, self.y, i, 0.0), w.get(s, row, i, 0.0)));
            });
        }
    }
}

/// `dbias += ` the sum of the rows of `dy`, `[rows, dbias.len()]`.
pub fn sum_rows(cpu: &Cpu, dy: &[f32], dbias: &mut [f32]) {
    let (width, isa) = (dbias.len(), cpu.isa);
    let rows = dy.len() / width.max(1);
    assert_eq!(dy.len(), rows * width, "dy is whole rows");
    sum_chunks(cpu, rows, width, dbias, |rows, partial| {
        isa.run(AddRows { x: &dy[rows.start * width..rows.end * width], width, first: 0, y: partial });
    });
}

/// One partial sum of squares per [`BLOCK`] elements.
const BLOCK: usize = 1024;

struct SumSquares<'a>(&'a [f32]);

impl Op for SumSquares<'_> {
    type Out = f64;
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) -> f64 {
        let mut total = 0.0;
        for block in self.0.chunks(BLOCK) {
            let mut sums = [s.splat(0.0); 4];
            in_fours!(block.len(), |i, j, w| {
                let x = w.get(s, block, i, 0.0);
                sums[j] = s.fma(x, x, sums[j]);
            });
            total += s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3]))) as f64;
        }
        total
    }
}

struct AllFinite<'a>(&'a [f32]);

impl Op for AllFinite<'_> {
    type Out = bool;
    const PRODUCTS: Products = Products::None;

    /// `0 * x` is 0 for a finite `x`, else NaN.
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) -> bool {
        let zero = s.splat(0.0);
        let mut sums = [zero; 4];
        let x = self.0;
        in_fours!(x.len(), |i, j, w| {
            sums[j] = s.fma(w.get(s, x, i, 0.0), zero, sums[j]);
        });
        s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3]))) == 0.0
    }
}

/// One result per chunk of `x`, in order.
fn per_chunk<T: Copy + Default + Send + Sync>(cpu: &Cpu, x: &[f32], f: impl Fn(&[f32]) -> T + Sync) -> Vec<T> {
    let grain = (4 * TERMS).max(x.len().div_ceil(CHUNKS)).next_multiple_of(BLOCK);
    let mut results = vec![T::default(); x.len().div_ceil(grain)];
    let cells = SharedMut::new(&mut results);
    cpu.pool.run(x.len().div_ceil(grain), &|i| {
        // SAFETY: each task has its own element.
        unsafe { cells.slice(i..i + 1)[0] = f(&x[i * grain..((i + 1) * grain).min(x.len())]) };
    });
    results
}

/// `sum(x^2)`: f32 within 1024 elements, f64 beyond.
pub fn sum_squares(cpu: &Cpu, x: &[f32]) -> f64 {
    per_chunk(cpu, x, |part| cpu.isa.run(SumSquares(part))).iter().sum()
}

/// Whether no element is infinite or NaN.
pub fn all_finite(cpu: &Cpu, x: &[f32]) -> bool {
    per_chunk(cpu, x, |part| cpu.isa.run(AllFinite(part))).into_iter().all(|finite| finite)
}
