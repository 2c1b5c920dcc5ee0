//! Rotary positions.

use crate::ops::math::{Extent, Part, Whole, sin_cos, vectors};
use crate::ops::row_grain;
use crate::simd::{LANES, Simd};
use crate::{Cpu, Op, scratch};

struct Rotate<'a> {
    x: &'a mut [f32],
    heads: usize,
    /// Angle per position of each pair, in two parts whose sum is exact to 48 bits, `[head_dim / 2]` each.
    step: (&'a [f32], &'a [f32]),
    positions: &'a [u32],
    sign: f32,
}

impl Op for Rotate<'_> {
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

/// Which angle a position turns each pair of a head by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Base: pair `i` turns by `theta^(-2i / head_dim)` per position (arXiv 2104.09864).
    pub theta: f32,
    /// How slow turns are slowed further, if they are.
    pub stretch: Option<Stretch>,
}

/// Slowing of the pairs with long periods, as in Llama 3.1: with a period of `p` positions and `t` turns in the length of
/// training, `t = original / p`, a pair keeps its speed where `t > high`, has it divided by `factor` where `t < low`, and in
/// between lies linearly between the two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stretch {
    /// Divisor of the slowest speeds.
    pub factor: f32,
    /// Turns below which the divisor applies in full.
    pub low: f32,
    /// Turns above which it does not apply.
    pub high: f32,
    /// Length of training, tokens.
    pub original: f32,
}

impl From<f32> for Rope {
    fn from(theta: f32) -> Self {
        Rope { theta, stretch: None }
    }
}

impl Stretch {
    /// The speed of a pair, radians per position, from its speed without stretching.
    fn speed(&self, speed: f64) -> f64 {
        let turns = self.original as f64 * speed / std::f64::consts::TAU;
        let (low, high) = (self.low as f64, self.high as f64);
        let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
        speed * (kept + (1.0 - kept) / self.factor as f64)
    }
}

/// Rotates the pairs `(i, i + head_dim / 2)` of each head of `x`, `[positions.len(), heads * head_dim]`, in place by position
/// times speed, or back when `inverse`. Positions are below 65536, else angles lose accuracy.
pub fn rope(
    cpu: &Cpu,
    x: &mut [f32],
    heads: usize,
    head_dim: usize,
    positions: &[u32],
    rope: impl Into<Rope>,
    inverse: bool,
) {
    assert!(head_dim.is_multiple_of(2), "the width of a head, {head_dim}, is even");
    let Rope { theta, stretch } = rope.into();
    let ratio = (theta as f64).powf(-2.0 / head_dim as f64);
    let mut steps = scratch::take(head_dim * size_of::<f32>());
    let (high, low) = steps.floats()[..head_dim].split_at_mut(head_dim / 2);
    let mut step = 1.0;
    for (high, low) in high.iter_mut().zip(low.iter_mut()) {
        let speed = stretch.map_or(step, |stretch| stretch.speed(step));
        (*high, *low) = (speed as f32, (speed - speed as f32 as f64) as f32);
        step *= ratio;
    }
    let (high, low) = (&*high, &*low);
    let (width, isa, sign) = (heads * head_dim, cpu.isa, if inverse { -1.0 } else { 1.0 });
    cpu.pool.for_rows(positions.len(), row_grain(width), [(x, width)], |rows, [x]| {
        isa.run(Rotate { x, heads, step: (high, low), positions: &positions[rows], sign });
    });
}
