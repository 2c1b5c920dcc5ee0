//! Quantization: weights to codes and scales, on the best instruction set there is, with the same bits on each.

use super::grouped::{self, Fit, Rounding};
use crate::simd::{LANES, Simd};
use crate::{Isa, Op, Products};
use half::f16;
use std::borrow::Cow;
use std::sync::OnceLock;

/// Rule that gives a slice of weights its scale and codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScaleRule {
    /// `scale = mean|w|`, codes -1, 0, 1 (arXiv 2402.17764).
    Absmean,
    /// `scale = max|w| / 127`.
    Absmax,
    /// Scale and offset of least squared error, found by search; codes `0..=max`.
    Search {
        /// Largest code.
        max: u8,
    },
}

/// Statistics of weights that a scale is computed from: sum and largest of the absolute values, and their count.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Magnitude {
    sum: f64,
    largest: f32,
    count: usize,
}

impl Magnitude {
    /// Statistics of a slice of weights.
    pub fn of(weights: &[f32]) -> Self {
        best().run(Measure { weights })
    }

    /// The largest absolute value.
    pub fn largest(self) -> f32 {
        self.largest
    }

    /// Statistics of both sets of weights together.
    pub fn and(self, other: Magnitude) -> Self {
        Magnitude {
            sum: self.sum + other.sum,
            largest: self.largest.max(other.largest),
            count: self.count + other.count,
        }
    }
}

/// The instruction set to round on.
pub(super) fn best() -> Isa {
    static BEST: OnceLock<Isa> = OnceLock::new();
    *BEST.get_or_init(|| Isa::choose(None).expect("scalar is always available"))
}

struct Measure<'a> {
    weights: &'a [f32],
}

impl Op for Measure<'_> {
    type Out = Magnitude;
    const PRODUCTS: Products = Products::None;
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) -> Magnitude {
        let mut sums = [0.0f64; LANES];
        let mut largest = s.splat(0.0);
        let (whole, rest) = self.weights.as_chunks::<LANES>();
        for w in whole {
            for (sum, w) in sums.iter_mut().zip(w) {
                *sum += w.abs() as f64;
            }
            largest = s.max(largest, s.abs(s.load_part(w, 0.0)));
        }
        for (sum, w) in sums.iter_mut().zip(rest) {
            *sum += w.abs() as f64;
        }
        largest = s.max(largest, s.abs(s.load_part(rest, 0.0)));
        Magnitude { sum: sums.iter().sum(), largest: s.max_lane(largest), count: self.weights.len() }
    }
}

/// The scale of a matrix of this magnitude, or without it of each row, and the codes.
pub(super) fn scales(
    rule: ScaleRule,
    whole: Option<Magnitude>,
    w: &[f32],
    cols: usize,
    zero: u8,
    codes: &mut [u8],
) -> Vec<f32> {
    if let Some(magnitude) = whole {
        return vec![symmetric(rule, magnitude, w, zero, codes)];
    }
    let rows = w.chunks_exact(cols).zip(codes.chunks_exact_mut(cols));
    rows.map(|(w, codes)| symmetric(rule, Magnitude::of(w), w, zero, codes)).collect()
}

/// Symmetric quantization: the scale that follows from `magnitude` (of `weights`, or of a whole matrix that holds them), and
/// codes `zero + round(w / scale)`.
fn symmetric(rule: ScaleRule, magnitude: Magnitude, weights: &[f32], zero: u8, codes: &mut [u8]) -> f32 {
    let (scale, divisor, limit) = match rule {
        ScaleRule::Absmean => (absmean(magnitude), absmean(magnitude), 1.0),
        // NaN and infinity are refused elsewhere, with row and column.
        _ if !magnitude.largest.is_finite() => (1.0, 1.0, 127.0),
        _ => (magnitude.largest / 127.0, magnitude.largest, 127.0),
    };
    // Weights whose divisor has no inverse are multiplied by a power of two first.
    let boost = if divisor > 0.0 && divisor < SMALLEST { (1u128 << 100) as f32 } else { 1.0 };
    let factor = if divisor == 0.0 { 0.0 } else { limit / (divisor * boost) };
    let boosted: Vec<f32> = if boost == 1.0 { Vec::new() } else { weights.iter().map(|w| w * boost).collect() };
    let weights = if boost == 1.0 { weights } else { &boosted };
    assert_eq!(weights.len(), codes.len(), "a code for each weight");
    best().run(Symmetric { weights, factor, limit, zero, codes });
    scale
}

/// `mean|w|`, or 1e-5 where all weights are 0, or some are not finite, which is refused elsewhere.
fn absmean(magnitude: Magnitude) -> f32 {
    let mean = (magnitude.sum / magnitude.count.max(1) as f64) as f32;
    if mean == 0.0 || !mean.is_finite() { 1e-5 } else { mean }
}

/// Smallest divisor whose reciprocal does not overflow f32.
pub(crate) const SMALLEST: f32 = 1.0 / (1u128 << 120) as f32;

/// Largest magnitudes of a row whose scales of groups f16 holds precisely.
const PRECISE: std::ops::RangeInclusive<f32> = 1.0 / 1024.0..=32_768.0;

/// A row divided by a power of two, where its largest magnitude is not [`PRECISE`], and that power, else 1.
pub(super) fn normalized(w: &[f32]) -> (f32, Cow<'_, [f32]>) {
    let top = Magnitude::of(w).largest();
    let factor = row_factor(top);
    (factor, if factor == 1.0 { Cow::Borrowed(w) } else { Cow::Owned(w.iter().map(|w| w / factor).collect()) })
}

/// 1, or the largest power of two that is not above `top`.
pub(super) fn row_factor(top: f32) -> f32 {
    match top {
        0.0 => 1.0,
        _ if PRECISE.contains(&top) => 1.0,
        _ => power_of_two(top),
    }
}

/// The largest power of two that is not above a positive finite number.
pub(crate) fn power_of_two(top: f32) -> f32 {
    match top.is_normal() {
        true => f32::from_bits(top.to_bits() & 0x7f80_0000),
        false => f32::from_bits(1 << top.to_bits().ilog2()),
    }
}

/// Scale, offset and codes of each group of `columns` columns of a row, whose largest magnitude is [`PRECISE`].
pub(super) fn groups(
    rule: ScaleRule,
    columns: usize,
    weights: &[f32],
    importance: Option<&[f32]>,
    codes: &mut [u8],
    zero: u8,
    mut put: impl FnMut(usize, f16, f16),
) {
    for (g, (w, codes)) in weights.chunks(columns).zip(codes.chunks_mut(columns)).enumerate() {
        let (scale, offset) = match rule {
            ScaleRule::Search { max } => {
                let importance = importance.map(|all| &all[g * columns..][..w.len()]);
                let fit = Fit { w, importance, most: max, zero: None, rounding: Rounding::Half };
                let (scale, offset) = fit.run();
                grouped::round(w, scale, offset, max, codes);
                (f16::from_f32(scale), f16::from_f32(offset))
            }
            _ => {
                let scale = f16::from_f32(absmean(Magnitude::of(w)));
                let factor = if scale == f16::ZERO { 0.0 } else { 1.0 / scale.to_f32() };
                best().run(Symmetric { weights: w, factor, limit: 1.0, zero, codes });
                (scale, f16::ZERO)
            }
        };
        put(g, scale, offset);
    }
}

struct Symmetric<'a> {
    weights: &'a [f32],
    factor: f32,
    limit: f32,
    zero: u8,
    codes: &'a mut [u8],
}

impl Op for Symmetric<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let (factor, low, high) = (s.splat(self.factor), s.splat(-self.limit), s.splat(self.limit));
        for (w, codes) in self.weights.chunks(LANES).zip(self.codes.chunks_mut(LANES)) {
            let w = s.mul(s.load_part(w, 0.0), factor);
            store_bytes(s, codes, s.round_i(s.min(s.max(w, low), high)));
        }
        self.codes.iter_mut().for_each(|code| *code = code.wrapping_add(self.zero));
    }
}

/// Stores the low bytes of the first lanes, which lie in -128..=127, into up to 16.
#[inline(always)]
pub(super) fn store_bytes<S: Simd>(s: S, out: &mut [u8], v: S::I) {
    if let Some(out) = out.first_chunk_mut::<LANES>() {
        // SAFETY: 16 bytes.
        return unsafe { s.store_i8(out.as_mut_ptr().cast(), v) };
    }
    let mut lanes = [0u8; LANES];
    // SAFETY: 16 bytes.
    unsafe { s.store_i8(lanes.as_mut_ptr().cast(), v) };
    out.copy_from_slice(&lanes[..out.len()]);
}

/// The code that `w` is nearest to, as f32.
#[inline(always)]
pub(super) fn nearest<S: Simd>(s: S, w: S::F, scale: f32, offset: f32, max: f32) -> S::F {
    if scale == 0.0 {
        return s.splat(0.0);
    }
    let code = s.div(s.sub(w, s.splat(offset)), s.splat(scale));
    s.to_f(s.round_i(s.min(s.max(code, s.splat(0.0)), s.splat(max))))
}

/// How many of the first 15 of `bounds`, which ascend, each weight lies above; weights are first divided by `top`, or taken
/// for 0 where that is 0.
pub(super) fn rank(bounds: &[f32; LANES], weights: &[f32], top: f32, codes: &mut [u8]) {
    assert_eq!(weights.len(), codes.len(), "a code for each weight");
    best().run(Rank { bounds, weights, top, codes });
}

struct Rank<'a> {
    bounds: &'a [f32; LANES],
    weights: &'a [f32],
    top: f32,
    codes: &'a mut [u8],
}

impl Op for Rank<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let bounds = s.load_part(self.bounds, 0.0);
        let top = s.splat(if self.top == 0.0 { f32::INFINITY } else { self.top });
        for (w, codes) in self.weights.chunks(LANES).zip(self.codes.chunks_mut(LANES)) {
            let w = s.div(s.load_part(w, 0.0), top);
            // 1 where the weight is above the bound in question: the sign of their difference.
            let above = |code, step| s.shr::<31>(s.as_i(s.sub(s.lookup(bounds, s.add_i(code, s.splat_i(step))), w)));
            let mut code = s.shl::<3>(above(s.splat_i(0), 7));
            code = s.or(code, s.shl::<2>(above(code, 3)));
            code = s.or(code, s.shl::<1>(above(code, 1)));
            code = s.or(code, above(code, 0));
            store_bytes(s, codes, code);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(n: usize) -> Vec<f32> {
        (0..n as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 16) as f32 / 16384.0 - 1.7).collect()
    }

    #[test]
    fn codes_are_the_definition_on_every_instruction_set() {
        for isa in Isa::available() {
            for n in [1, 15, 16, 64, 70, 333] {
                let w = weights(n);
                let found = isa.run(Measure { weights: &w });
                let sum: f64 = w.iter().map(|w| w.abs() as f64).sum();
                assert!((found.sum - sum).abs() <= 1e-12 * sum && found.count == n, "{isa:?} {n}");
                assert_eq!(found.largest, w.iter().fold(0.0f32, |top, w| top.max(w.abs())));

                let mut codes = vec![9; n];
                isa.run(Symmetric { weights: &w, factor: 0.9, limit: 1.0, zero: 1, codes: &mut codes });
                let want = |w: f32| (1.0 + (w * 0.9).round_ties_even().clamp(-1.0, 1.0)) as u8;
                assert!(codes.iter().zip(&w).all(|(code, w)| *code == want(*w)), "{isa:?} {n}");

                let mut bounds: [f32; LANES] = std::array::from_fn(|i| i as f32 * 0.1 - 0.7);
                bounds[4] = w[n / 2] / 1.5; // a weight on a bound is not above it
                bounds.sort_by(f32::total_cmp);
                isa.run(Rank { bounds: &bounds, weights: &w, top: 1.5, codes: &mut codes });
                let want = |w: f32| bounds[..15].iter().filter(|bound| w / 1.5 > **bound).count() as u8;
                assert!(codes.iter().zip(&w).all(|(code, w)| *code == want(*w)), "{isa:?} {n}");
            }
        }
    }
}
