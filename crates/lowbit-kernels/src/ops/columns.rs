//! Batch normalization: statistics of columns, and operations with numbers of each column.

use super::math::{Extent, Partial, Whole, vectors};
use super::reduce::{sum_chunks, sum_rows};
use super::row_grain;
use crate::simd::{LANES, Simd};
use crate::{Cpu, Op, Products};

/// Mean and variance of each column of `x`, `[rows, width]`, the variance that of these rows; of no rows, zeros.
pub fn column_moments(cpu: &Cpu, x: &[f32], width: usize) -> [Vec<f32>; 2] {
    let (rows, isa) = (rows_of(x, width), cpu.isa);
    let part = 1.0 / rows.max(1) as f32;
    let (mut mean, mut variance) = (vec![0.0; width], vec![0.0; width]);
    sum_rows(cpu, x, &mut mean);
    mean.iter_mut().for_each(|mean| *mean *= part);
    sum_chunks(cpu, rows, width, &mut variance, |rows, sum| {
        isa.run(Squares { x: &x[rows.start * width..rows.end * width], mean: &mean, sum });
    });
    variance.iter_mut().for_each(|variance| *variance *= part);
    [mean, variance]
}

/// Sums of `dy`, and of `dy (x - mean)`, over the rows of each column.
///
/// # Panics
/// When `x` and `dy` are not of whole rows and the same size.
pub fn column_gradients(cpu: &Cpu, x: &[f32], mean: &[f32], dy: &[f32]) -> [Vec<f32>; 2] {
    let (width, isa) = (mean.len(), cpu.isa);
    let rows = rows_of(x, width);
    assert_eq!(x.len(), dy.len(), "a gradient of each number");
    let mut sums = vec![0.0; 2 * width];
    sum_chunks(cpu, rows, width, &mut sums, |rows, sums| {
        let values = rows.start * width..rows.end * width;
        isa.run(Gradients { x: &x[values.clone()], mean, dy: &dy[values], sums });
    });
    let along = sums.split_off(width);
    [sums, along]
}

/// `y = a x + b`, `a` and `b` being those of a column.
///
/// # Panics
/// When `x` and `y` are not of whole rows and the same size.
pub fn scale_columns(cpu: &Cpu, x: &[f32], [a, b]: [&[f32]; 2], y: &mut [f32]) {
    let (width, isa) = (a.len(), cpu.isa);
    assert_eq!((x.len(), b.len()), (y.len(), width), "an output of each number, a summand of each factor");
    cpu.pool.for_rows(rows_of(x, width), row_grain(width), [(y, width)], |rows, [y]| {
        isa.run(Scale { x: &x[rows.start * width..rows.end * width], a, b, y });
    });
}

/// `dx += a (dy - c) + b (x - d)`, `[a, b, c, d]` being those of a column.
///
/// # Panics
/// When `x`, `dy` and `dx` are not of whole rows and the same size.
pub fn mix_columns(cpu: &Cpu, x: &[f32], dy: &[f32], factors: [&[f32]; 4], dx: &mut [f32]) {
    let (width, isa) = (factors[0].len(), cpu.isa);
    assert_eq!((x.len(), dy.len()), (dx.len(), dx.len()), "a gradient of each number");
    cpu.pool.for_rows(rows_of(x, width), row_grain(width), [(dx, width)], |rows, [dx]| {
        let values = rows.start * width..rows.end * width;
        isa.run(Mix { x: &x[values.clone()], dy: &dy[values], factors, dx });
    });
}

fn rows_of(x: &[f32], width: usize) -> usize {
    assert!(x.len().is_multiple_of(width.max(1)), "{} numbers in rows of {width}", x.len());
    x.len() / width.max(1)
}

/// `sum += (x - mean)^2`, row by row.
struct Squares<'a> {
    x: &'a [f32],
    mean: &'a [f32],
    sum: &'a mut [f32],
}

impl Op for Squares<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Squares { x, mean, sum } = self;
        for x in x.chunks_exact(mean.len()) {
            vectors!(x.len(), |i, w| {
                let apart = s.sub(w.get(s, x, i, 0.0), w.get(s, mean, i, 0.0));
                w.put(s, sum, i, s.fma(apart, apart, w.get(s, sum, i, 0.0)));
            });
        }
    }
}

/// `sums += [dy, dy (x - mean)]`, row by row.
struct Gradients<'a> {
    x: &'a [f32],
    mean: &'a [f32],
    dy: &'a [f32],
    sums: &'a mut [f32],
}

impl Op for Gradients<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Gradients { x, mean, dy, sums } = self;
        let (plain, along) = sums.split_at_mut(mean.len());
        for (x, dy) in x.chunks_exact(mean.len()).zip(dy.chunks_exact(mean.len())) {
            vectors!(x.len(), |i, w| {
                let dy = w.get(s, dy, i, 0.0);
                let apart = s.sub(w.get(s, x, i, 0.0), w.get(s, mean, i, 0.0));
                w.put(s, plain, i, s.add(dy, w.get(s, plain, i, 0.0)));
                w.put(s, along, i, s.fma(apart, dy, w.get(s, along, i, 0.0)));
            });
        }
    }
}

/// See [`scale_columns`].
struct Scale<'a> {
    x: &'a [f32],
    a: &'a [f32],
    b: &'a [f32],
    y: &'a mut [f32],
}

impl Op for Scale<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Scale { x, a, b, y } = self;
        for (x, y) in x.chunks_exact(a.len()).zip(y.chunks_exact_mut(a.len())) {
            vectors!(x.len(), |i, w| {
                w.put(s, y, i, s.fma(w.get(s, x, i, 0.0), w.get(s, a, i, 0.0), w.get(s, b, i, 0.0)));
            });
        }
    }
}

/// See [`mix_columns`].
struct Mix<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    factors: [&'a [f32]; 4],
    dx: &'a mut [f32],
}

impl Op for Mix<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Mix { x, dy, factors: [a, b, c, d], dx } = self;
        let width = a.len();
        let all = x.chunks_exact(width).zip(dy.chunks_exact(width));
        for ((x, dy), dx) in all.zip(dx.chunks_exact_mut(width)) {
            vectors!(x.len(), |i, w| {
                let along = s.mul(s.sub(w.get(s, x, i, 0.0), w.get(s, d, i, 0.0)), w.get(s, b, i, 0.0));
                let apart = s.sub(w.get(s, dy, i, 0.0), w.get(s, c, i, 0.0));
                let sum = s.fma(apart, w.get(s, a, i, 0.0), along);
                w.put(s, dx, i, s.add(w.get(s, dx, i, 0.0), sum));
            });
        }
    }
}
