//! Rotary positions.

use crate::ops::math::{Extent, Part, Whole, sin_cos, vectors};
use crate::ops::row_grain;
use crate::simd::{LANES, Simd};
use crate::{Cpu, Op, scratch};

struct Rope<'a> {
    x: &'a mut [f32],
    heads: usize,
    /// Angle per position of each pair, in two parts whose sum is exact to 48 bits, `[head_dim / 2]` each.
    step: (&'a [f32], &'a [f32]),
    positions: &'a [u32],
    sign: f32,
}

impl Op for Rope<'_> {
    type Out = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let half = self.step.0.len();
        for (x, &position) in self.x.chunks_exact_mut(self.heads * 2 * half).zip(self.positions) {
            let position = s.splat(position as f32);
            vectors!(half, |i, w| {
                let (step, rest) = (w.get(s, self.step.0, i, 0.0), w.get(s, self.step.1, i, 0.0));
                let angle = s.mul(position, step);
                let error = s.fma(position, step, s.sub(s.splat(0.0), angle));
                let (sin, cos) = sin_cos(s, angle, s.fma(position, rest, error));
                let sin = s.mul(sin, s.splat(self.sign));
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

/// Rotates the pairs `(i, i + head_dim / 2)` of each head of `x`, `[positions.len(), heads * head_dim]`, in place by the
/// angle `position * theta^(-2i / head_dim)`, or back when `inverse` (arXiv 2104.09864). Positions are below 65536, else
/// angles lose accuracy.
pub fn rope(cpu: &Cpu, x: &mut [f32], heads: usize, head_dim: usize, positions: &[u32], theta: f32, inverse: bool) {
    assert!(head_dim.is_multiple_of(2), "the width of a head, {head_dim}, is even");
    let ratio = (theta as f64).powf(-2.0 / head_dim as f64);
    let mut steps = scratch::take(head_dim * size_of::<f32>());
    let (high, low) = steps.floats()[..head_dim].split_at_mut(head_dim / 2);
    let mut step = 1.0;
    for (high, low) in high.iter_mut().zip(low.iter_mut()) {
        (*high, *low) = (step as f32, (step - step as f32 as f64) as f32);
        step *= ratio;
    }
    let (high, low) = (&*high, &*low);
    let (width, isa, sign) = (heads * head_dim, cpu.isa, if inverse { -1.0 } else { 1.0 });
    cpu.pool.for_rows(positions.len(), row_grain(width), [(x, width)], |rows, [x]| {
        isa.run(Rope { x, heads, step: (high, low), positions: &positions[rows], sign });
    });
}
