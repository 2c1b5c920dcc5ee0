//! Softmax and cross-entropy.

use super::math::{exp, get, put};
use super::row_grain;
use crate::pool::SharedMut;
use crate::simd::{LANES, Simd};
use crate::{Cpu, Op};

/// Largest element of a row, in each lane.
#[inline(always)]
fn largest<S: Simd>(s: S, x: &[f32]) -> S::F {
    let mut tops = [s.splat(f32::NEG_INFINITY); 4];
    in_fours!(x.len(), |i, j| {
        tops[j] = s.max(get(s, x, i, f32::NEG_INFINITY), tops[j]);
    });
    max4(s, tops)
}

struct Softmax<'a> {
    x: &'a mut [f32],
    width: usize,
}

impl Op for Softmax<'_> {
    type Out = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for x in self.x.chunks_exact_mut(self.width) {
            let top = largest(s, x);
            let mut sums = [s.splat(0.0); 4];
            in_fours!(x.len(), |i, j| {
                let e = exp(s, s.sub(get(s, x, i, f32::NEG_INFINITY), top));
                sums[j] = s.add(sums[j], e);
                put(s, x, i, e);
            });
            let factor = s.div(s.splat(1.0), sum4(s, sums));
            for i in (0..x.len()).step_by(LANES) {
                put(s, x, i, s.mul(get(s, x, i, 0.0), factor));
            }
        }
    }
}

/// `x = exp(x) / sum(exp(x))` for each row of `x`, `[rows, width]`.
pub fn softmax(cpu: &Cpu, x: &mut [f32], width: usize) {
    let (rows, isa) = (x.len() / width.max(1), cpu.isa);
    cpu.pool.for_rows(rows, row_grain(width), [(x, width)], |_, [x]| isa.run(Softmax { x, width }));
}

/// Loss of one row, and its gradient.
struct CrossEntropy<'a> {
    x: &'a [f32],
    target: usize,
    smoothing: f32,
    gradient: Option<(&'a mut [f32], f32)>,
}

impl Op for CrossEntropy<'_> {
    type Out = f64;

    #[inline(always)]
    fn eval<S: Simd>(mut self, s: S) -> f64 {
        let (x, classes) = (self.x, self.x.len());
        let shift = largest(s, x);
        let (mut sums, mut totals) = ([s.splat(0.0); 4], [s.splat(0.0); 4]);
        in_fours!(classes, |i, j| {
            let d = s.sub(get(s, x, i, f32::NEG_INFINITY), shift);
            let e = exp(s, d);
            sums[j] = s.add(sums[j], e);
            if self.smoothing > 0.0 {
                // Missing lanes of the last vector count as 0.
                totals[j] = s.add(totals[j], s.max(s.splat(f32::MIN), d));
            }
            if let Some((gradient, _)) = &mut self.gradient {
                put(s, gradient, i, e);
            }
        });
        let (top, sum) = (s.first(shift), s.first(sum4(s, sums)));
        let even = self.smoothing / classes as f32;
        if let Some((gradient, scale)) = self.gradient {
            let (factor, offset) = (s.splat(scale / sum), s.splat(-scale * even));
            for i in (0..classes).step_by(LANES) {
                put(s, gradient, i, s.fma(get(s, gradient, i, 0.0), factor, offset));
            }
            gradient[self.target] -= scale * (1.0 - self.smoothing);
        }
        let mut expected = (1.0 - self.smoothing as f64) * (x[self.target] - top) as f64;
        if self.smoothing > 0.0 {
            expected += even as f64 * s.sum(total) as f64;
        }
        (sum as f64).ln() - expected
    }
}

/// Sum over rows of the cross-entropy in nats between `softmax(logits)`, `logits` `[rows, classes]`, and the targets
/// smoothed as `(1 - smoothing) * onehot + smoothing / classes` (arXiv 1512.00567, section 7). A row whose target is
/// `u32::MAX` counts for nothing. With `dlogits` and its scale, writes `scale * (softmax - target)`, which is `scale` times
/// the gradient.
pub fn cross_entropy(
    cpu: &Cpu,
    logits: &[f32],
    classes: usize,
    targets: &[u32],
    smoothing: f32,
    dlogits: Option<(&mut [f32], f32)>,
) -> f64 {
    assert_eq!(logits.len(), targets.len() * classes, "logits has one row per target");
    let (grain, isa) = (row_grain(classes), cpu.isa);
    let mut losses = vec![0.0; targets.len().div_ceil(grain)];
    let sums = SharedMut::new(&mut losses);
    let gradients = dlogits.map(|(d, scale)| {
        assert_eq!(d.len(), logits.len(), "dlogits is as long as logits");
        (SharedMut::new(d), scale)
    });
    cpu.pool.run(targets.len().div_ceil(grain), &|task| {
        let mut loss = 0.0;
        for row in task * grain..((task + 1) * grain).min(targets.len()) {
            let span = row * classes..(row + 1) * classes;
            // SAFETY: each row belongs to one task and is taken once.
            let gradient = gradients.as_ref().map(|(d, scale)| (unsafe { d.slice(span.clone()) }, *scale));
            if targets[row] == u32::MAX {
                gradient.into_iter().for_each(|(d, _)| d.fill(0.0));
                continue;
            }
            let target = targets[row] as usize;
            assert!(target < classes, "target {target} of row {row} is below the number of classes, {classes}");
            loss += isa.run(CrossEntropy { x: &logits[span], target, smoothing, gradient });
        }
        // SAFETY: each task has its own element.
        unsafe { sums.slice(task..task + 1)[0] = loss };
    });
    losses.iter().sum()
}
