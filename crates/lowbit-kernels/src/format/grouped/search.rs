//! Scale and offset of a group of weights of least squared error.
//!
//! For given codes `c` the best scale and offset follow in closed form (weighted linear regression of `w` on `c`), for given
//! scale and offset the best codes do. Both in turns from several starts find what minimum and maximum alone do not.

use super::super::quantizer::{best, nearest, store_bytes};
use crate::simd::{LANES, Simd};
use crate::{Op, Products};
use half::f16;

/// Weights of a group at most.
const WIDEST: usize = 128;
/// How much narrower than all weights the first codes of a search lie.
const STARTS: [f32; 8] = [1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5];
/// Starts that pay for so many codes: of many codes none lies far outside.
const fn starts(most: u8) -> usize {
    match most {
        0..16 => STARTS.len(),
        16..64 => 4,
        _ => 2,
    }
}

/// How often codes and scales follow from each other.
const TURNS: usize = 3;

/// What becomes of a scale and an offset when they are stored.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Rounding {
    /// f16.
    Half,
    /// Nothing yet: a super-block rounds them later. Offsets are at most 0.
    Later,
}

impl Rounding {
    #[inline(always)]
    fn of(self, v: f32) -> f32 {
        match self {
            Rounding::Half => f16::from_f32(v).to_f32(),
            Rounding::Later => v,
        }
    }
}

/// A search for the scale and the offset of one group; `Fit::run` tells them.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Fit<'a> {
    /// At most 128 weights.
    pub w: &'a [f32],
    /// How much the squared error of each counts; `None` is 1.
    pub importance: Option<&'a [f32]>,
    /// The largest code.
    pub most: u8,
    /// The code that means 0, where no offset is stored.
    pub zero: Option<u8>,
    pub rounding: Rounding,
}

impl Fit<'_> {
    /// Scale and offset.
    pub fn run(self) -> (f32, f32) {
        assert!((1..=WIDEST).contains(&self.w.len()), "a group");
        assert!(self.importance.is_none_or(|all| all.len() == self.w.len()), "an importance for each weight");
        best().run(self)
    }
}

impl Op for Fit<'_> {
    type Out = (f32, f32);
    const PRODUCTS: Products = Products::None;
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) -> (f32, f32) {
        let group = Group::new(s, &self);
        let (mut low, high) =
            self.w.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), w| (l.min(*w), h.max(*w)));
        if matches!(self.rounding, Rounding::Later) {
            low = low.min(0.0);
        }
        let mut best = (f32::INFINITY, 0.0, 0.0);
        for start in &STARTS[..starts(self.most)] {
            for (scale, offset) in self.starts(low, high, *start).into_iter().flatten() {
                self.descend(s, &group, scale, offset, &mut best);
            }
        }
        (best.1, best.2)
    }
}

impl Fit<'_> {
    /// First scales and offsets whose codes reach the part `start` of all weights.
    #[inline(always)]
    fn starts(&self, low: f32, high: f32, start: f32) -> [Option<(f32, f32)>; 2] {
        let most = f32::from(self.most);
        match self.zero {
            None => {
                let (middle, reach) = ((low + high) / 2.0, (high - low) / 2.0 * start);
                [Some((2.0 * reach / most, middle - reach)), None]
            }
            // The side that has one code more goes to either end.
            Some(zero) => {
                let zero = f32::from(zero);
                let scale = |low: f32, high: f32| (-low / zero).max(high / (most - zero)) * start;
                let both = [scale(low, high), -scale(-high, -low)];
                both.map(|scale| Some((scale, -zero * scale)))
            }
        }
    }

    /// Scale and offset as stored.
    #[inline(always)]
    fn stored(&self, scale: f32, offset: f32) -> (f32, f32) {
        let scale = self.rounding.of(scale);
        (scale, self.zero.map_or_else(|| self.rounding.of(offset), |zero| -f32::from(zero) * scale))
    }

    /// Scale and offset of least error for the codes of some sums.
    #[inline(always)]
    fn solve(&self, sums: &Sums) -> Option<(f32, f32)> {
        match (self.zero, sums.line()) {
            (Some(zero), _) => sums.through(f32::from(zero)),
            (None, Some((_, offset))) if offset > 0.0 && matches!(self.rounding, Rounding::Later) => sums.through(0.0),
            (None, line) => line,
        }
    }

    /// Takes codes and scales from each other in turns, and keeps the best stored ones.
    #[inline(always)]
    fn descend<S: Simd>(&self, s: S, group: &Group<S>, scale: f32, offset: f32, best: &mut (f32, f32, f32)) {
        let (mut scale, mut offset) = self.stored(scale, offset);
        for _ in 0..=TURNS {
            let sums = group.sums(s, scale, offset, f32::from(self.most));
            if sums.error < best.0 {
                *best = (sums.error, scale, offset);
            }
            let Some(next) = self.solve(&sums).map(|(scale, offset)| self.stored(scale, offset)) else { return };
            if next == (scale, offset) {
                return;
            }
            (scale, offset) = next;
        }
    }
}

/// Sums over a group, each weight times its importance: codes `c` are those of some scale and offset.
pub(super) struct Sums {
    /// Of the squared errors.
    pub error: f32,
    pub a: f32,
    pub w: f32,
    pub c: f32,
    cc: f32,
    cw: f32,
}

impl Sums {
    /// Scale and offset of least error for the codes.
    #[inline(always)]
    fn line(&self) -> Option<(f32, f32)> {
        let det = self.a * self.cc - self.c * self.c;
        let scale = (self.a * self.cw - self.c * self.w) / det;
        (det > 0.0 && scale > 0.0).then(|| (scale, (self.w - scale * self.c) / self.a))
    }

    /// Scale of least error for the codes minus `zero`.
    #[inline(always)]
    fn through(&self, zero: f32) -> Option<(f32, f32)> {
        let below = self.cc - 2.0 * zero * self.c + zero * zero * self.a;
        let scale = (self.cw - zero * self.w) / below;
        (below > 0.0 && scale.is_finite() && scale != 0.0).then(|| (scale, -zero * scale))
    }
}

/// A group in registers; missing weights have importance 0.
pub(super) struct Group<S: Simd> {
    w: [S::F; WIDEST / LANES],
    /// Importances, the largest of which is 1.
    a: [S::F; WIDEST / LANES],
    /// Vectors in use.
    count: usize,
    /// Sums of `a`, and of `a * w`.
    sums: [f32; 2],
}

impl<S: Simd> Group<S> {
    #[inline(always)]
    pub fn new(s: S, fit: &Fit) -> Self {
        let top = fit.importance.map_or(1.0, |all| all.iter().fold(0.0f32, |top, a| top.max(*a)));
        let importance = fit.importance.filter(|_| top > 0.0 && top.is_finite());
        let (mut w, mut a) = ([s.splat(0.0); WIDEST / LANES], [s.splat(0.0); WIDEST / LANES]);
        let (mut sum_a, mut sum_w) = (s.splat(0.0), s.splat(0.0));
        for (i, part) in fit.w.chunks(LANES).enumerate() {
            w[i] = s.load_part(part, fit.w[0]);
            a[i] = match importance {
                Some(all) => s.div(s.load_part(&all[i * LANES..][..part.len()], 0.0), s.splat(top)),
                None => s.load_part(&[1.0; LANES][..part.len()], 0.0),
            };
            sum_a = s.add(sum_a, a[i]);
            sum_w = s.fma(a[i], w[i], sum_w);
        }
        Group { w, a, count: fit.w.len().div_ceil(LANES), sums: [s.sum(sum_a), s.sum(sum_w)] }
    }

    #[inline(always)]
    pub fn sums(&self, s: S, scale: f32, offset: f32, most: f32) -> Sums {
        let (mut error, mut c, mut cc, mut cw) = (s.splat(0.0), s.splat(0.0), s.splat(0.0), s.splat(0.0));
        for i in 0..self.count {
            let (w, a) = (self.w[i], self.a[i]);
            let code = nearest(s, w, scale, offset, most);
            let e = s.sub(s.fma(code, s.splat(scale), s.splat(offset)), w);
            error = s.fma(s.mul(e, e), a, error);
            let ac = s.mul(a, code);
            c = s.add(c, ac);
            cc = s.fma(ac, code, cc);
            cw = s.fma(ac, w, cw);
        }
        let [a, w] = self.sums;
        Sums { error: s.sum(error), a, w, c: s.sum(c), cc: s.sum(cc), cw: s.sum(cw) }
    }
}

/// The codes, at most `most`, that are nearest to weights.
pub(in super::super) fn round(w: &[f32], scale: f32, offset: f32, most: u8, codes: &mut [u8]) {
    assert_eq!(w.len(), codes.len(), "a code for each weight");
    best().run(Round { w, scale, offset, most, codes });
}

struct Round<'a> {
    w: &'a [f32],
    scale: f32,
    offset: f32,
    most: u8,
    codes: &'a mut [u8],
}

impl Op for Round<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for (w, codes) in self.w.chunks(LANES).zip(self.codes.chunks_mut(LANES)) {
            let code = nearest(s, s.load_part(w, 0.0), self.scale, self.offset, f32::from(self.most));
            store_bytes(s, codes, s.sub_i(s.round_i(code), s.splat_i(128)));
        }
        self.codes.iter_mut().for_each(|code| *code ^= 128);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    fn weights(n: usize) -> Vec<f32> {
        (0..n as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 16) as f32 / 16384.0 - 1.7).collect()
    }

    /// The weighted squared error of the nearest codes.
    fn error(fit: &Fit, (scale, offset): (f32, f32)) -> f64 {
        let code = |w: f32| match scale {
            0.0 => 0.0,
            _ => ((w - offset) / scale).clamp(0.0, f32::from(fit.most)).round_ties_even(),
        };
        let one = |(i, w): (usize, &f32)| {
            let error = f64::from(code(*w).mul_add(scale, offset) - w);
            error * error * fit.importance.map_or(1.0, |all| f64::from(all[i]))
        };
        fit.w.iter().enumerate().map(one).sum()
    }

    #[test]
    fn a_search_is_never_worse_than_minimum_and_maximum_and_the_same_on_every_instruction_set() {
        for (n, most) in [(1, 15), (7, 3), (32, 3), (63, 15), (64, 3), (100, 31), (128, 7)] {
            let mut w = weights(n);
            w[0] = 4.0; // far from the others: a narrower range pays
            let importance: Vec<f32> = (0..n).map(|i| ((i * 7 % 5) as f32).powi(4) + 1e-3).collect();
            for importance in [None, Some(&importance[..])] {
                let fit = Fit { w: &w, importance, most, zero: None, rounding: Rounding::Half };
                let found = Isa::available().into_iter().map(|isa| isa.run(fit)).collect::<Vec<_>>();
                assert!(found.iter().all(|other| *other == found[0]), "{found:?}");
                let (low, high) = w.iter().fold((f32::MAX, f32::MIN), |(l, h), w| (l.min(*w), h.max(*w)));
                let half = |v: f32| f16::from_f32(v).to_f32();
                let plain = error(&fit, (half((high - low) / f32::from(most)), half(low)));
                let least = error(&fit, found[0]);
                assert!(least <= plain * (1.0 + 1e-5), "{n} {most}: {least} {plain}");
                // Few weights, or codes that are many, lose next to nothing either way.
                assert!(n < 32 || most > 15 || least < plain * 0.97, "{n} {most}: {least} {plain}");
            }
        }
    }

    #[test]
    fn importance_moves_the_error_to_where_it_counts_less() {
        let w = weights(64);
        let importance: Vec<f32> = (0..64).map(|i| if i % 8 == 3 { 100.0 } else { 1.0 }).collect();
        let fit = Fit { w: &w, importance: Some(&importance), most: 3, zero: None, rounding: Rounding::Half };
        let even = Fit { importance: None, ..fit };
        assert!(error(&fit, fit.run()) < 0.9 * error(&fit, even.run()));
        assert!(error(&even, even.run()) <= error(&even, fit.run()));
        // Only the ratio of importances matters; where all are 0, or too many to add up, they count the same.
        let scaled: Vec<f32> = importance.iter().map(|a| a * 2f32.powi(-100)).collect();
        assert_eq!(Fit { importance: Some(&scaled), ..fit }.run(), fit.run());
        assert_eq!(Fit { importance: Some(&[0.0; 64]), ..fit }.run(), even.run());
    }

    #[test]
    fn codes_around_a_zero_use_the_longer_side_for_the_larger_weights() {
        for isa in Isa::available() {
            for sign in [1.0, -1.0] {
                let w: Vec<f32> = (-8..8).map(|v| v as f32 * sign * 0.25).collect();
                let fit = Fit { w: &w, importance: None, most: 15, zero: Some(8), rounding: Rounding::Half };
                assert_eq!(isa.run(fit), (0.25 * sign, -2.0 * sign), "{isa:?}");
            }
        }
    }

    #[test]
    fn all_codes_of_a_byte_are_rounded_to() {
        let (w, mut codes): (Vec<f32>, _) = ((0..300).map(|v| v as f32 - 20.0).collect(), vec![0; 300]);
        round(&w, 1.0, 0.0, 255, &mut codes);
        let want: Vec<u8> = w.iter().map(|w| w.clamp(0.0, 255.0) as u8).collect();
        assert_eq!(codes, want);
    }
}
