//! The product of integer formats with one token of 8-bit activations: memory is the limit, so codes are read as one stream.

use super::AHEAD;
use super::codec::{Codec, UNITS};
use super::tiles::{After, Folds, Groups, add_offsets, finish_rows, fold};
use super::view::View;
use crate::activations::GROUP;
use crate::pool::SharedMut;
use crate::simd::{LANES, Simd};
use crate::{Cpu, Op, Products};
use std::ops::Range;

/// `y = x W^T` of one token.
pub(super) fn product<C: Codec<Q>, const Q: usize>(
    cpu: &Cpu,
    view: &View<C, Q>,
    x: Groups,
    y: &mut [f32],
    after: After,
) {
    let panels = view.p.rows.div_ceil(LANES);
    let grain = super::stream_grain(view.units * 64, panels);
    let out = SharedMut::new(y);
    cpu.pool.run(panels.div_ceil(grain), &|task| {
        let range = task * grain..((task + 1) * grain).min(panels);
        cpu.isa.run(IntegerGemv { view, x, panels: range.clone(), out: &out });
        after(range, &out);
    });
}

/// Integer GEMV of a range of panels: reads their codes once, in the order of memory.
struct IntegerGemv<'a, C, const Q: usize> {
    view: &'a View<'a, C, Q>,
    x: Groups<'a>,
    panels: Range<usize>,
    out: &'a SharedMut<'a, f32>,
}

impl<C: Codec<Q>, const Q: usize> Op for IntegerGemv<'_, C, Q> {
    type Out = ();
    const PRODUCTS: Products = Products::Int8;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for panel in self.panels.clone() {
            let value = match (&self.x.folds, S::MANY_REGISTERS) {
                (Some(folds), true) if folds.ratios.is_empty() => self.groups::<S, 4>(s, panel, folds),
                (Some(folds), _) => match self.view.group.is_some() {
                    true => self.groups::<S, 1>(s, panel, folds),
                    false => self.blocks(s, panel, folds),
                },
                (None, true) => self.whole::<S, 4>(s, panel),
                (None, false) => self.whole::<S, 1>(s, panel),
            };
            let first = panel * LANES;
            // SAFETY: the task owns the outputs of its panels.
            s.store_part(unsafe { self.out.slice(first..(first + LANES).min(self.view.p.rows)) }, value);
        }
    }
}

impl<C: Codec<Q>, const Q: usize> IntegerGemv<'_, C, Q> {
    /// The sum of the products of some units of a panel.
    #[inline(always)]
    fn sums<S: Simd, const U: usize>(&self, s: S, codes: &[u8], x: &[u8]) -> S::I {
        let mut total = s.splat_i(0);
        for (codes, x) in codes.chunks(UNITS * 64).zip(x.chunks(UNITS * Q * 4)) {
            total = s.add_i(total, self.part::<S, U>(s, codes, x));
        }
        total
    }

    /// Sum of the products of at most [`UNITS`] units, in `U` independent accumulators that hide the latency of additions.
    #[inline(always)]
    fn part<S: Simd, const U: usize>(&self, s: S, codes: &[u8], x: &[u8]) -> S::I {
        let units = codes.len() / 64;
        assert!(x.len() >= units * Q * 4);
        let mut acc = [[s.splat_i(0); Q]; U];
        // SAFETY: unit < units: inside the activations and the codes, as just checked.
        unsafe {
            for first in (0..units / U * U).step_by(U) {
                for u in 0..U {
                    acc[u] = Self::unit(
                        s,
                        codes.as_ptr().add((first + u) * 64),
                        x.as_ptr().add((first + u) * Q * 4),
                        acc[u],
                    );
                }
            }
            for unit in units / U * U..units {
                acc[0] = Self::unit(s, codes.as_ptr().add(unit * 64), x.as_ptr().add(unit * Q * 4), acc[0]);
            }
        }
        let mut sums = acc[0];
        for more in &acc[1..] {
            for q in 0..Q {
                sums[q] = s.add_i(sums[q], more[q]);
            }
        }
        C::combine(s, sums)
    }

    /// Adds the products of one unit.
    ///
    /// # Safety
    /// `codes` points to 64 bytes, `x` to `4 Q`.
    #[inline(always)]
    unsafe fn unit<S: Simd>(s: S, codes: *const u8, x: *const u8, sums: [S::I; Q]) -> [S::I; Q] {
        // SAFETY: by the contract; a prefetch may name any address.
        unsafe {
            s.prefetch(codes.wrapping_add(AHEAD));
            C::multiply(s, s.load_i(codes), sums, |q| s.splat_i(x.add(q * 4).cast::<i32>().read_unaligned()))
        }
    }

    /// Outputs of a panel whose rows have one scale each.
    #[inline(always)]
    fn whole<S: Simd, const U: usize>(&self, s: S, panel: usize) -> S::F {
        let (v, x) = (self.view, &self.x);
        let sums = self.sums::<S, U>(s, v.panel(panel), x.x.single());
        finish_rows(s, sums, i32::from(C::ZERO), x.totals[0], x.scale[0], s.load_part(&v.scales.panel(panel), 0.0))
    }

    /// Outputs of a panel with scale and offset per group, whose folds may have ratios.
    #[inline(always)]
    fn groups<S: Simd, const U: usize>(&self, s: S, panel: usize, folds: &Folds) -> S::F {
        let (v, x) = (self.view, self.x.x.single());
        let mut total = s.splat(0.0);
        for (g, codes) in v.panel(panel).chunks_exact(GROUP * 16 / Q).enumerate() {
            let mut inner = s.splat(0.0);
            for (f, codes) in codes.chunks_exact(folds.columns() * 16 / Q).enumerate() {
                let f = (g << folds.group_shift) + f;
                let sum = s.to_f(self.part::<S, U>(s, codes, &x[f * folds.columns()..]));
                inner = if folds.ratios.is_empty() { sum } else { fold(s, inner, sum, s.splat(folds.ratio(0, f))) };
            }
            let (scale, offset) = v.group_vectors(s, panel, g);
            total = add_offsets(s, fold(s, total, inner, scale), folds.sum(0, g), offset);
        }
        s.mul(total, s.splat(self.x.scale[0]))
    }

    /// Outputs of a panel whose rows have one scale each, from activations whose blocks have scales.
    #[inline(always)]
    fn blocks<S: Simd>(&self, s: S, panel: usize, folds: &Folds) -> S::F {
        let (v, x) = (self.view, self.x.x.single());
        let mut total = s.splat(0.0);
        for (f, codes) in v.panel(panel).chunks(folds.columns() * 16 / Q).enumerate() {
            let products = self.part::<S, 1>(s, codes, &x[f * folds.columns()..]);
            let exact = s.add_i(products, s.splat_i(folds.start(0, f)));
            total = fold(s, total, s.to_f(exact), s.splat(folds.ratio(0, f)));
        }
        s.mul(total, s.mul(s.splat(self.x.scale[0]), s.load_part(&v.scales.panel(panel), 0.0)))
    }
}
