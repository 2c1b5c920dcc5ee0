//! Register tiles of weights whose scales belong to a few columns each.

use super::{Sums, Tiles};
use crate::activations::ROW;
use crate::simd::{LANES, Simd};

/// What the activations have for each fold, the columns whose sum meets one scale of weights: `[tokens, stride]` each.
#[derive(Clone, Copy)]
pub(in super::super) struct Folds<'a> {
    /// Folds of a token.
    pub stride: usize,
    /// Parts of the token's step, of 8-bit activations.
    pub ratios: &'a [f32],
    /// Bits of what exact sums begin with, where codes have a zero.
    pub starts: &'a [f32],
    /// Sums of the activations, where weights have offsets.
    pub sums: &'a [f32],
    /// Whether all codes are at most 128.
    pub small: bool,
}

impl Folds<'_> {
    #[inline(always)]
    pub fn start(&self, at: usize) -> i32 {
        self.starts.get(at).map_or(0, |start| start.to_bits() as i32)
    }

    #[inline(always)]
    pub fn ratio(&self, at: usize) -> f32 {
        self.ratios[at]
    }

    #[inline(always)]
    pub fn sum(&self, at: usize) -> f32 {
        self.sums[at]
    }
}

/// Adds the exact sum of a fold to a total: one text for one token and for many.
#[inline(always)]
pub(in super::super) fn fold_ints<S: Simd>(s: S, total: S::F, sum: S::I, ratio: f32, scale: S::F) -> S::F {
    s.fma(s.mul(s.to_f(sum), s.splat(ratio)), scale, total)
}

/// The same of products with f32.
#[inline(always)]
pub(in super::super) fn fold_floats<S: Simd>(s: S, total: S::F, sum: S::F, scale: S::F) -> S::F {
    s.fma(sum, scale, total)
}

/// Adds the offsets of the weights of a fold, whose activations have a sum, to a total.
#[inline(always)]
pub(in super::super) fn add_offsets<S: Simd>(s: S, total: S::F, sum: f32, offset: S::F) -> S::F {
    s.fma(s.splat(sum), offset, total)
}

/// How a fold is summed, and its sum added to a total.
pub(super) trait Summed<S: Simd> {
    type Sum: Copy;
    fn start(s: S, folds: &Folds, at: usize) -> Self::Sum;
    fn dot(s: S, sum: Self::Sum, w: S::I, x: S::I) -> Self::Sum;
    fn fold(s: S, folds: &Folds, at: usize, total: S::F, sum: Self::Sum, scale: S::F) -> S::F;
}

/// Codes times 8-bit activations; codes of at most 128 where `SMALL`.
pub(super) struct Codes<const SMALL: bool>;

impl<S: Simd, const SMALL: bool> Summed<S> for Codes<SMALL> {
    type Sum = S::I;
    #[inline(always)]
    fn start(s: S, folds: &Folds, at: usize) -> S::I {
        s.splat_i(folds.start(at))
    }
    #[inline(always)]
    fn dot(s: S, sum: S::I, w: S::I, x: S::I) -> S::I {
        if SMALL { s.dot_small(sum, w, x) } else { s.dot(sum, w, x) }
    }
    #[inline(always)]
    fn fold(s: S, folds: &Folds, at: usize, total: S::F, sum: S::I, scale: S::F) -> S::F {
        fold_ints(s, total, sum, folds.ratio(at), scale)
    }
}

/// Floats.
pub(super) struct Floats;

impl<S: Simd> Summed<S> for Floats {
    type Sum = S::F;
    #[inline(always)]
    fn start(s: S, _: &Folds, _: usize) -> S::F {
        s.splat(0.0)
    }
    #[inline(always)]
    fn dot(s: S, sum: S::F, w: S::I, x: S::I) -> S::F {
        s.fma(s.as_f(w), s.as_f(x), sum)
    }
    #[inline(always)]
    fn fold(s: S, _: &Folds, _: usize, total: S::F, sum: S::F, scale: S::F) -> S::F {
        fold_floats(s, total, sum, scale)
    }
}

impl Tiles<'_> {
    /// A register tile over the folds of the chunk, each of `group` quads: `total += sum * scale + offset * (sum of the activations)`.
    ///
    /// # Safety
    /// The quads, the activations, the scales and the totals of the tile are within their buffers.
    #[inline(always)]
    pub(super) unsafe fn run_folds<S: Simd, E: Summed<S>, const T: usize, const P: usize>(
        &mut self,
        s: S,
        token: usize,
        group: usize,
        folds: &Folds,
    ) {
        // SAFETY: by the contract.
        unsafe {
            let totals: *mut [u32; LANES] = self.sums.as_mut_ptr().add(token * P);
            let mut total = [[s.splat(0.0); P]; T];
            if !self.first {
                for t in 0..T {
                    for p in 0..P {
                        total[t][p] = s.load(totals.add(t * P + p).cast());
                    }
                }
            }
            // A token beyond the last has the folds of the last.
            let last = self.strip.x.x.tokens() - 1;
            let at = |t: usize, g: usize| (token + t).min(last) * folds.stride + self.first_group + g;
            let (base, x) = (self.w.as_ptr(), self.rows.as_ptr().add(token * ROW));
            for g in 0..self.length / group {
                let mut acc = [[E::start(s, folds, at(0, g)); P]; T];
                for t in 1..T {
                    acc[t] = [E::start(s, folds, at(t, g)); P];
                }
                for quad in g * group..(g + 1) * group {
                    let mut w = [s.splat_i(0); P];
                    for p in 0..P {
                        w[p] = s.load_i(base.add(p * self.across + quad * 64));
                    }
                    for t in 0..T {
                        let x = s.splat_i(x.add(t * ROW + quad * 4).cast::<i32>().read_unaligned());
                        for p in 0..P {
                            acc[t][p] = E::dot(s, acc[t][p], w[p], x);
                        }
                    }
                }
                let scales = self.scales.as_ptr().add(g * P * 2 * LANES);
                for p in 0..P {
                    let scale = s.load(scales.add(p * 2 * LANES));
                    for t in 0..T {
                        total[t][p] = E::fold(s, folds, at(t, g), total[t][p], acc[t][p], scale);
                    }
                }
                if folds.sums.is_empty() {
                    continue;
                }
                for p in 0..P {
                    let offset = s.load(scales.add((p * 2 + 1) * LANES));
                    for t in 0..T {
                        total[t][p] = add_offsets(s, total[t][p], folds.sum(at(t, g)), offset);
                    }
                }
            }
            let mut tile: Sums<T, P> = [[[0; LANES]; P]; T];
            let to = if self.finish.is_none() { totals } else { tile.as_mut_ptr().cast() };
            for t in 0..T {
                for p in 0..P {
                    s.store(to.add(t * P + p).cast(), total[t][p]);
                }
            }
            self.outputs(s, token, &tile);
        }
    }
}
