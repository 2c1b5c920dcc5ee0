//! Optimizer steps, one pass over memory each.

use super::elementwise::{Elementwise, apply};
use crate::Cpu;
use crate::simd::Simd;

/// Hyperparameters of one step of [`adamw`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub lr: f32,
    /// Decay of the mean of gradients.
    pub beta1: f32,
    /// Decay of the mean of squared gradients.
    pub beta2: f32,
    /// Added to the root of the mean square.
    pub eps: f32,
    /// Decoupled weight decay: `w` shrinks by `lr * weight_decay`.
    pub weight_decay: f32,
    /// Number of this step, from 1.
    pub step: u64,
    /// Factor on gradients (clipping, averaging, loss scaling).
    pub grad_scale: f32,
}

#[derive(Clone, Copy)]
struct AdamWStep {
    keep: f32,
    rate: f32,
    root: f32,
    p: AdamW,
}

impl Elementwise<1, 3> for AdamWStep {
    #[inline(always)]
    fn at<S: Simd>(self, s: S, x: [S::F; 1], y: [S::F; 3]) -> [S::F; 3] {
        let ([w, m, v], g) = (y, s.mul(x[0], s.splat(self.p.grad_scale)));
        let m = s.fma(s.sub(g, m), s.splat(1.0 - self.p.beta1), m);
        let v = s.fma(s.mul(g, g), s.splat(1.0 - self.p.beta2), s.mul(v, s.splat(self.p.beta2)));
        let divisor = s.fma(s.sqrt(v), s.splat(self.root), s.splat(self.p.eps));
        [s.fma(s.div(m, divisor), s.splat(-self.rate), s.mul(w, s.splat(self.keep))), m, v]
    }
}

/// One step of AdamW (arXiv 1711.05101, Algorithm 2, with the learning rate as in `torch.optim.AdamW`) on the weights `w`
/// with gradients `g`, mean of gradients `m` and mean of squared gradients `v`, both 0 before step 1.
pub fn adamw(cpu: &Cpu, w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], p: AdamW) {
    let correction = |beta: f32| 1.0 - (beta as f64).powf(p.step as f64);
    let step = AdamWStep {
        keep: (1.0 - p.lr as f64 * p.weight_decay as f64) as f32,
        rate: (p.lr as f64 / correction(p.beta1)) as f32,
        root: (1.0 / correction(p.beta2).sqrt()) as f32,
        p,
    };
    apply(cpu, step, [g], [w, m, v])
}

#[derive(Clone, Copy)]
struct SgdStep {
    lr: f32,
    momentum: f32,
    weight_decay: f32,
    grad_scale: f32,
}

impl Elementwise<1, 2> for SgdStep {
    #[inline(always)]
    fn at<S: Simd>(self, s: S, x: [S::F; 1], y: [S::F; 2]) -> [S::F; 2] {
        let [w, buffer] = y;
        let g = s.fma(w, s.splat(self.weight_decay), s.mul(x[0], s.splat(self.grad_scale)));
        let buffer = s.fma(buffer, s.splat(self.momentum), g);
        [s.fma(buffer, s.splat(-self.lr), w), buffer]
    }
}

/// One step of gradient descent with momentum as in `torch.optim.SGD`: `b = momentum * b + grad_scale * g +
/// weight_decay * w`, `w -= lr * b`; `momentum_buffer` is 0 before the first step.
#[allow(clippy::too_many_arguments)]
pub fn sgd(
    cpu: &Cpu,
    w: &mut [f32],
    g: &[f32],
    momentum_buffer: &mut [f32],
    lr: f32,
    momentum: f32,
    weight_decay: f32,
    grad_scale: f32,
) {
    apply(cpu, SgdStep { lr, momentum, weight_decay, grad_scale }, [g], [w, momentum_buffer])
}
