//! Softmax and cross-entropy.

use super::math::{Extent, Partial, Whole, exp, first, in_fours, max4, sum4, vectors};
use super::row_grain;
use crate::pool::SharedMut;
use crate::simd::{LANES, Simd};
use crate::{Cpu, Op, Products};

/// Largest element of a row, in each lane.
#[inline(always)]
fn largest<S: Simd>(s: S, x: &[f32]) -> S::F {
    let mut tops = [s.splat(f32::NEG_INFINITY); 4];
    in_fours!(x.len(), |i, j, w| {
        tops[j] = s.max(w.get(s, x, i, f32::NEG_INFINITY), tops[j]);
    });
    max4(s, tops)
}

struct Softmax<'a> {
    x: &'a mut [f32],
    width: usize,
}

impl Op for Softmax<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for x in self.x.chunks_exact_mut(self.width) {
            let top = largest(s, x);
            let mut sums = [s.splat(0.0); 4];
            in_fours!(x.len(), |i, j, w| {
                let e = exp(s, s.sub(w.get(s, x, i, f32::NEG_INFINITY), top));
                sums[j] = s.add(sums[j], e);
                w.put(s, x, i, e);
            });
            let factor = s.div(s.splat(1.0), sum4(s, sums));
            vectors!(x.len(), |i, w| {
                w.put(s, x, i, s.mul(w.get(s, x, i, 0.0), factor));
            });
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
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(mut self, s: S) -> f64 {
        let (x, classes) = (self.x, self.x.len());
        let shift = largest(s, x);
        let top = first(s, shift);
        let mut sums = [s.splat(0.0); 4];
        in_fours!(classes, |i, j, w| {
            let e = exp(s, s.sub(w.get(s, x, i, f32::NEG_INFINITY), shift));
            sums[j] = s.add(sums[j], e);
            if let Some((gradient, _)) = &mut self.gradient {
                w.put(s, gradient, i, e);
            }
        });
        let sum = first(s, sum4(s, sums));
        let even = self.smoothing / classes as f32;
        if let Some((gradient, scale)) = self.gradient {
            let (factor, offset) = (s.splat(scale / sum), s.splat(-scale * even));
            vectors!(classes, |i, w| {
                w.put(s, gradient, i, s.fma(w.get(s, gradient, i, 0.0), factor, offset));
            });
            gradient[self.target] -= scale * (1.0 - self.smoothing);
        }
        let mut expected = (1.0 - self.smoothing as f64) * (x[self.target] - top) as f64;
        if self.smoothing > 0.0 {
            let mut totals = [s.splat(0.0); 4];
            in_fours!(classes, |i, j, w| {
                totals[j] = s.add(totals[j], s.sub(w.get(s, x, i, top), shift));
            });
            expected += even as f64 * first(s, sum4(s, totals)) as f64;
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
        for (row, &target) in targets.iter().enumerate().skip(task * grain).take(grain) {
            let span = row * classes..(row + 1) * classes;
            // SAFETY: each row belongs to one task and is taken once.
            let gradient = gradients.as_ref().map(|(d, scale)| (unsafe { d.slice(span.clone()) }, *scale));
            if target == u32::MAX {
                gradient.into_iter().for_each(|(d, _)| d.fill(0.0));
                continue;
            }
            let target = target as usize;
            assert!(target < classes, "target {target} of row {row} is below the number of classes, {classes}");
            loss += isa.run(CrossEntropy { x: &logits[span], target, smoothing, gradient });
        }
        // SAFETY: each task has its own element.
        unsafe { sums.slice(task..task + 1)[0] = loss };
    });
    losses.iter().sum()
}
