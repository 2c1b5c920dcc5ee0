//! Rotary positions (RoPE, arXiv 2104.09864).

use crate::ops::math::{Extent, Partial, Whole, sin_cos, vectors};
use crate::ops::row_grain;
use crate::simd::{LANES, Simd};
use crate::{Cpu, Op, Products};
use std::sync::Arc;

struct Rotate<'a> {
    x: &'a mut [f32],
    heads: usize,
    /// Angle per position of each pair, in two parts whose sum is exact to 48 bits, `[head_dim / 2]` each.
    step: (&'a [f32], &'a [f32]),
    positions: &'a [u32],
    /// Factors of sine and cosine.
    scale: (f32, f32),
}

impl Op for Rotate<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let half = self.step.0.len();
        let (by_sin, by_cos) = (s.splat(self.scale.0), s.splat(self.scale.1));
        for (x, &position) in self.x.chunks_exact_mut(self.heads * 2 * half).zip(self.positions) {
            let position = s.splat(position as f32);
            vectors!(half, |i, w| {
                let (step, rest) = (w.get(s, self.step.0, i, 0.0), w.get(s, self.step.1, i, 0.0));
                let angle = s.mul(position, step);
                let error = s.fma(position, step, s.sub(s.splat(0.0), angle));
                let (sin, cos) = sin_cos(s, angle, s.fma(position, rest, error));
                let (sin, cos) = (s.mul(sin, by_sin), s.mul(cos, by_cos));
                for head in x.chunks_exact_mut(2 * half) {
                    let (a, b) = head.split_at_mut(half);
                    let (u, v) = (w.get(s, a, i, 0.0), w.get(s, b, i, 0.0));
                    w.put(s, a, i, s.sub(s.mul(u, cos), s.mul(v, sin)));
                    w.put(s, b, i, s.fma(u, sin, s.mul(v, cos)));
                }
            });
        }
    }
}

/// Rotary frequencies: the angle per position of each pair of a head. Cloning is cheap.
#[derive(Clone, Debug, PartialEq)]
pub struct Frequencies {
    /// High parts, then low parts, `[2, head_dim / 2]`.
    steps: Arc<[f32]>,
    scale: f32,
}

impl Frequencies {
    /// Frequencies in radians per position, `[head_dim / 2]`; rotated values are multiplied with `scale`.
    pub fn new(frequencies: &[f64], scale: f32) -> Self {
        let high = frequencies.iter().map(|f| *f as f32);
        let low = frequencies.iter().map(|f| (f - *f as f32 as f64) as f32);
        Frequencies { steps: high.chain(low).collect(), scale }
    }

    /// Pair `i` turns by `theta^(-2i / head_dim)` per position.
    pub fn of_base(theta: f32, head_dim: usize) -> Self {
        Frequencies::new(&base_frequencies(theta as f64, head_dim), 1.0)
    }

    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.steps.len()
    }
}

/// `theta^(-2i / head_dim)` of each pair `i`, `[head_dim / 2]`.
pub fn base_frequencies(theta: f64, head_dim: usize) -> Vec<f64> {
    let ratio = theta.powf(-2.0 / head_dim as f64);
    std::iter::successors(Some(1.0), |f| Some(f * ratio)).take(head_dim / 2).collect()
}

/// Rotates the pairs `(i, i + head_dim / 2)` of each head of `x`, `[positions.len(), heads * head_dim]`, in place by position
/// times frequency, or back when `inverse`. Positions are below 65536, else angles lose accuracy.
pub fn rope(cpu: &Cpu, x: &mut [f32], heads: usize, frequencies: &Frequencies, positions: &[u32], inverse: bool) {
    let head_dim = frequencies.head_dim();
    let (width, isa, scale) = (heads * head_dim, cpu.isa, frequencies.scale);
    assert_eq!(x.len(), positions.len() * width, "x is [positions, heads * head_dim]");
    let step = frequencies.steps.split_at(head_dim / 2);
    let scale = (if inverse { -scale } else { scale }, scale);
    cpu.pool.for_rows(positions.len(), row_grain(width), [(x, width)], |rows, [x]| {
        isa.run(Rotate { x, heads, step, positions: &positions[rows], scale });
    });
}
