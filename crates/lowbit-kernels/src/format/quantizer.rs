//! Quantization: weights to codes and scales, on the best instruction set there is, with the same bits on each.

use crate::activations::GROUP;
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
    /// Scale and offset from minimum and maximum, shrunk where that lowers the squared error; codes `0..=max`.
    MinMax {
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
fn best() -> Isa {
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
fn row_factor(top: f32) -> f32 {
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
    codes: &mut [u8],
    zero: u8,
    mut put: impl FnMut(usize, f16, f16),
) {
    if let ScaleRule::MinMax { max } = rule {
        assert_eq!(columns, GROUP, "groups with offsets have {GROUP} columns");
        return min_max(weights, max, codes, put);
    }
    for (g, (w, codes)) in weights.chunks(columns).zip(codes.chunks_mut(columns)).enumerate() {
        let scale = f16::from_f32(absmean(Magnitude::of(w)));
        let factor = if scale == f16::ZERO { 0.0 } else { 1.0 / scale.to_f32() };
        best().run(Symmetric { weights: w, factor, limit: 1.0, zero, codes });
        put(g, scale, f16::ZERO);
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
fn store_bytes<S: Simd>(s: S, out: &mut [u8], v: S::I) {
    if let Some(out) = out.first_chunk_mut::<LANES>() {
        // SAFETY: 16 bytes.
        return unsafe { s.store_i8(out.as_mut_ptr().cast(), v) };
    }
    let mut lanes = [0u8; LANES];
    // SAFETY: 16 bytes.
    unsafe { s.store_i8(lanes.as_mut_ptr().cast(), v) };
    out.copy_from_slice(&lanes[..out.len()]);
}

/// How much narrower than from minimum to maximum the codes of a group may lie.
const SHRINKS: [f32; 8] = [1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5];

/// Scale and offset in f16 and the codes `0..=max` of each group of 64 weights of a row.
fn min_max(weights: &[f32], max: u8, codes: &mut [u8], put: impl FnMut(usize, f16, f16)) {
    assert_eq!(weights.len(), codes.len(), "a code for each weight");
    best().run(MinMax { weights, max, codes, put });
}

struct MinMax<'a, F> {
    weights: &'a [f32],
    max: u8,
    codes: &'a mut [u8],
    put: F,
}

impl<F: FnMut(usize, f16, f16)> Op for MinMax<'_, F> {
    type Out = ();
    const PRODUCTS: Products = Products::None;
    #[inline(always)]
    fn eval<S: Simd>(mut self, s: S) {
        for (g, (w, codes)) in self.weights.chunks(GROUP).zip(self.codes.chunks_mut(GROUP)).enumerate() {
            let group = Group::new(s, w);
            let low = -s.max_lane(s.mul(group.fold(|a, b| s.min(a, b)), s.splat(-1.0)));
            let high = s.max_lane(group.fold(|a, b| s.max(a, b)));
            let mut best = (f32::INFINITY, f16::ZERO, f16::ZERO);
            for shrink in SHRINKS {
                let (middle, reach) = ((low + high) / 2.0, (high - low) / 2.0 * shrink);
                let (scale, offset) = (f16::from_f32(2.0 * reach / self.max as f32), f16::from_f32(middle - reach));
                let error = group.error(s, scale.to_f32(), offset.to_f32(), self.max as f32);
                if error < best.0 {
                    best = (error, scale, offset);
                }
            }
            let (_, scale, offset) = best;
            for (w, codes) in group.weights.into_iter().zip(codes.chunks_mut(LANES)) {
                let code = nearest(s, w, scale.to_f32(), offset.to_f32(), self.max as f32);
                store_bytes(s, codes, s.round_i(code));
            }
            (self.put)(g, scale, offset);
        }
    }
}

/// The code that `w` is nearest to, as f32.
#[inline(always)]
fn nearest<S: Simd>(s: S, w: S::F, scale: f32, offset: f32, max: f32) -> S::F {
    if scale == 0.0 {
        return s.splat(0.0);
    }
    let code = s.div(s.sub(w, s.splat(offset)), s.splat(scale));
    s.to_f(s.round_i(s.min(s.max(code, s.splat(0.0)), s.splat(max))))
}

/// Up to 64 weights; missing ones repeat the first.
struct Group<S: Simd> {
    weights: [S::F; GROUP / LANES],
    /// 1, or 0 where a weight is missing.
    there: [S::F; GROUP / LANES],
}

impl<S: Simd> Group<S> {
    #[inline(always)]
    fn new(s: S, w: &[f32]) -> Self {
        let part = |i: usize| w.get(i * LANES..).unwrap_or(&[]);
        let weights = std::array::from_fn(|i| s.load_part(part(i), w[0]));
        let there = std::array::from_fn(|i| s.load_part(&[1.0; LANES][..part(i).len().min(LANES)], 0.0));
        Group { weights, there }
    }

    #[inline(always)]
    fn fold(&self, f: impl Fn(S::F, S::F) -> S::F) -> S::F {
        let [a, b, c, d] = self.weights;
        f(f(a, b), f(c, d))
    }

    /// The squared error of the weights under a scale and an offset.
    #[inline(always)]
    fn error(&self, s: S, scale: f32, offset: f32, max: f32) -> f32 {
        let mut sum = s.splat(0.0);
        for (w, there) in self.weights.into_iter().zip(self.there) {
            let code = nearest(s, w, scale, offset, max);
            let error = s.mul(s.sub(s.fma(code, s.splat(scale), s.splat(offset)), w), there);
            sum = s.fma(error, error, sum);
        }
        s.sum(sum)
    }
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

    #[test]
    fn groups_get_the_scale_of_least_error_on_every_instruction_set() {
        for isa in Isa::available() {
            for (n, max) in [(1, 15), (63, 15), (64, 3), (70, 15), (333, 3)] {
                let (mut w, mut codes, mut count) = (weights(n), vec![99; n], 0);
                w[0] = 4.0; // far from the others: a narrower range pays
                let (all, codes_of) = (w.clone(), &mut codes);
                let mut scales = Vec::new();
                isa.run(MinMax { weights: &w, max, codes: codes_of, put: |g, s, o| scales.push((g, s, o)) });
                for ((g, scale, offset), (w, codes)) in scales.iter().zip(all.chunks(GROUP).zip(codes.chunks(GROUP))) {
                    assert_eq!((*g, w.len()), (count, codes.len()));
                    count += 1;
                    let error = |scale: f32, offset: f32| -> f64 {
                        let code = |w: f32| match scale {
                            0.0 => 0.0,
                            _ => ((w - offset) / scale).clamp(0.0, max as f32).round_ties_even(),
                        };
                        w.iter().map(|&w| (code(w).mul_add(scale, offset) - w).powi(2) as f64).sum()
                    };
                    let (low, high) =
                        w.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), w| (l.min(*w), h.max(*w)));
                    let least = SHRINKS.iter().map(|shrink| {
                        let (middle, reach) = ((low + high) / 2.0, (high - low) / 2.0 * shrink);
                        let (scale, offset) = (f16::from_f32(2.0 * reach / max as f32), f16::from_f32(middle - reach));
                        error(scale.to_f32(), offset.to_f32())
                    });
                    let (scale, offset) = (scale.to_f32(), offset.to_f32());
                    let least = least.fold(f64::INFINITY, f64::min);
                    assert!(error(scale, offset) <= least * (1.0 + 1e-6), "{isa:?} {n}");
                    let back =
                        w.iter().zip(codes).map(|(w, c)| ((*c as f32).mul_add(scale, offset) - w).powi(2) as f64);
                    assert!((back.sum::<f64>() - error(scale, offset)).abs() <= 1e-9, "{isa:?} {n}");
                }
                assert_eq!(count, n.div_ceil(GROUP));
            }
        }
    }
}
