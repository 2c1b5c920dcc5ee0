//! rten-gemm's side from floats to floats, with the operations that rten itself has around it.

use crate::case::{Shape, activations};
use rayon::ThreadPool;
use rayon::prelude::*;
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions, PackedBMatrix};
use rten_simd::ops::{BitOps, NumOps, ToFloat};
use rten_simd::{Isa, SimdOp};
use rten_tensor::NdTensorView;
use rten_vecmath::{ExtendInit, MinMax, Quantize};
use std::hint::black_box;

/// Activations are quantized per token, 0 becoming 0, multiplied, and the sums scaled per token and row.
pub struct Floats<'a> {
    pool: &'a ThreadPool,
    gemm: &'a GemmExecutor<u8, i8, i32>,
    copies: Vec<PackedBMatrix<i8>>,
    shape: Shape,
    x: Vec<f32>,
    q: Vec<u8>,
    /// Of each token.
    steps: Vec<f32>,
    /// Of each row of weights.
    scales: Vec<f32>,
    sums: Vec<i32>,
    pub y: Vec<f32>,
}

impl<'a> Floats<'a> {
    pub fn new(
        pool: &'a ThreadPool,
        gemm: &'a GemmExecutor<u8, i8, i32>,
        weights: &[i8],
        copies: usize,
        shape: Shape,
    ) -> Self {
        let Shape { rows, cols, tokens } = shape;
        let one = gemm.prepack_b(NdTensorView::from_data([rows, cols], weights).transposed());
        Floats {
            pool,
            gemm,
            copies: (0..copies).map(|_| one.clone()).collect(),
            shape,
            x: activations(shape).into_iter().map(f32::from).collect(),
            q: vec![0; tokens * cols],
            steps: vec![0.0; tokens],
            scales: vec![1.0; rows],
            sums: vec![0; tokens * rows],
            y: vec![f32::NAN; tokens * rows],
        }
    }

    /// A product with each copy.
    pub fn multiply(&mut self) -> usize {
        let Floats { pool, gemm, copies, shape: Shape { rows, cols, tokens }, x, q, steps, scales, sums, y } = self;
        pool.install(|| {
            for b in &*copies {
                let tokens_of = x.par_chunks(*cols).zip(q.par_chunks_mut(*cols)).zip(steps.par_iter_mut());
                tokens_of.for_each_init(Vec::new, |buffer, ((x, q), step)| *step = quantize(x, q, buffer));
                let a = GemmInputA::Unpacked(NdTensorView::from_data([*tokens, *cols], &q[..]));
                gemm.gemm(sums, a, GemmInputB::Packed(b), GemmOptions::default()).expect("shapes fit");
                let tokens_of = sums.par_chunks(*rows).zip(y.par_chunks_mut(*rows)).zip(steps.par_iter());
                tokens_of.for_each(|((sums, y), step)| Scale { sums, scales, step: *step, y }.dispatch());
                black_box(&*y);
            }
        });
        self.copies.len()
    }
}

/// Quantizes a token and returns its step.
fn quantize(x: &[f32], q: &mut [u8], buffer: &mut Vec<u8>) -> f32 {
    let (low, high) = MinMax::new(x).dispatch();
    let step = high.max(-low).max(1e-5) / 127.0;
    buffer.clear();
    buffer.reserve(x.len());
    buffer.extend_init(|room| Quantize::new(x, &mut room[..x.len()], 1.0 / step, 0).dispatch());
    q.copy_from_slice(buffer);
    step
}

/// `y = sums * scales * step` of one token.
struct Scale<'a> {
    sums: &'a [i32],
    scales: &'a [f32],
    step: f32,
    y: &'a mut [f32],
}

impl SimdOp for Scale<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let (ints, floats) = (isa.i32(), isa.f32());
        let lanes = floats.len();
        let whole = self.y.len() / lanes * lanes;
        let step = floats.splat(self.step);
        let (sums, scales) = (self.sums.chunks_exact(lanes), self.scales.chunks_exact(lanes));
        for ((y, sums), scales) in self.y.chunks_exact_mut(lanes).zip(sums).zip(scales) {
            let scale = floats.mul(floats.load(scales), step);
            floats.store(floats.mul(ints.to_float(ints.load(sums)), scale), y);
        }
        for i in whole..self.y.len() {
            self.y[i] = self.sums[i] as f32 * (self.scales[i] * self.step);
        }
    }
}
