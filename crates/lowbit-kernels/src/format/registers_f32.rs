//! Products of integer formats with a few tokens of f32: codes are widened in registers, where the panels of a strip share
//! the activations. Sums run over the columns one by one, as in the product of many tokens, and are the same bits.

use super::AHEAD;
use super::codec::{Codec, bytes};
use super::view::View;
use super::ways::Job;
use crate::activations::GROUP;
use crate::pool::SharedMut;
use crate::simd::{LANES, Simd};
use crate::{Cpu, Op, Products, scratch};
use std::ops::Range;

/// Whether this is faster for so many tokens than to store the weights of a few panels as f32: with few registers each token
/// widens them again.
pub(super) fn pays(job: Job) -> bool {
    job.tokens <= job.isa.run(MostTokens)
}

struct MostTokens;

impl Op for MostTokens {
    type Out = usize;
    const PRODUCTS: Products = Products::None;
    #[inline(always)]
    fn eval<S: Simd>(self, _: S) -> usize {
        if S::MANY_REGISTERS { 16 } else { 2 }
    }
}

/// The bits of 2^23: with an integer below in their place, those of a sum of both.
const MAGIC: i32 = 0x4b00_0000;

/// `y = x W^T` of tokens `x`, `[tokens, cols]`.
pub(super) fn product<C: Codec<Q>, const Q: usize>(cpu: &Cpu, view: &View<C, Q>, x: &[f32], y: &mut [f32]) {
    let (rows, cols) = (view.p.rows, view.p.cols);
    let stride = view.units * 4 * Q;
    let mut padded = scratch::take(x.len() / cols * stride * 4);
    let padded = &mut padded.floats()[..x.len() / cols * stride];
    for (from, to) in x.chunks_exact(cols).zip(padded.chunks_exact_mut(stride)) {
        to[..cols].copy_from_slice(from);
        to[cols..].fill(0.0);
    }
    let panels = rows.div_ceil(LANES);
    let grain = super::stream_grain(view.units * 64, panels).next_multiple_of(STRIP);
    let (out, x) = (SharedMut::new(y), &*padded);
    cpu.pool.run(panels.div_ceil(grain), &|task| {
        let panels = task * grain..((task + 1) * grain).min(panels);
        cpu.isa.run(Panels { view, x, panels, out: &out });
    });
}

/// Panels of a strip, where there are many registers: as many sums keep the multipliers busy.
const STRIP: usize = 4;

/// A range of panels times all tokens.
struct Panels<'a, C, const Q: usize> {
    view: &'a View<'a, C, Q>,
    /// Tokens, each padded to whole units.
    x: &'a [f32],
    panels: Range<usize>,
    out: &'a SharedMut<'a, f32>,
}

impl<C: Codec<Q>, const Q: usize> Op for Panels<'_, C, Q> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(mut self, s: S) {
        let most = if S::MANY_REGISTERS { STRIP } else { 2 };
        while !self.panels.is_empty() {
            let wide = if self.panels.len() >= most { most } else { 1 };
            match self.view.group.is_some() {
                true => self.some::<S, true>(s, wide > 1),
                false => self.some::<S, false>(s, wide > 1),
            }
            self.panels.start += wide;
        }
    }
}

impl<C: Codec<Q>, const Q: usize> Panels<'_, C, Q> {
    /// The first panels, a strip or one, times all tokens. What an instruction set does not use is not compiled for it.
    #[inline(always)]
    fn some<S: Simd, const G: bool>(&self, s: S, strip: bool) {
        if !strip {
            return self.tokens::<S, G, 1>(s);
        }
        if S::MANY_REGISTERS {
            self.tokens::<S, G, STRIP>(s);
        } else {
            self.tokens::<S, G, 2>(s);
        }
    }

    /// The first `P` panels times all tokens.
    #[inline(always)]
    fn tokens<S: Simd, const G: bool, const P: usize>(&self, s: S) {
        let tokens = self.x.len() / (self.view.units * 4 * Q);
        let mut token = 0;
        while token < tokens {
            token += if S::MANY_REGISTERS {
                match tokens - token {
                    4.. => self.strip::<S, G, P, 4>(s, token),
                    2.. => self.strip::<S, G, P, 2>(s, token),
                    _ => self.strip::<S, G, P, 1>(s, token),
                }
            } else {
                self.strip::<S, G, P, 1>(s, token)
            };
        }
    }

    /// `T` tokens from one on; returns how many.
    #[inline(always)]
    fn strip<S: Simd, const G: bool, const P: usize, const T: usize>(&self, s: S, token: usize) -> usize {
        let (view, first) = (self.view, self.panels.start);
        let (units, stride) = (view.units, view.units * 4 * Q);
        let x = &self.x[token * stride..(token + T) * stride];
        let codes = &view.codes[first * units * 64..(first + P) * units * 64];
        let per = if G { GROUP / 4 / Q } else { units };
        let mut acc = [[s.splat(0.0); T]; P];
        for (g, start) in (0..units).step_by(per.max(1)).enumerate() {
            let mut factors = [(s.splat(1.0), s.splat(0.0)); P];
            if G {
                for p in 0..P {
                    factors[p] = view.group_vectors(s, first + p, g);
                }
            }
            for unit in start..start + per {
                // What this panel or the same one of the next strip has there.
                let ahead = AHEAD + if unit + AHEAD / 64 < units { 0 } else { (P - 1) * units * 64 };
                // SAFETY: the unit is inside each panel and its columns inside each padded token, as just cut.
                acc = unsafe {
                    let (codes, x) = (codes.as_ptr().add(unit * 64), x.as_ptr().add(unit * 4 * Q));
                    self.unit::<S, G, P, T>(s, codes, ahead, x, &factors, acc)
                };
            }
        }
        let rows = view.p.rows;
        for (p, acc) in acc.iter().enumerate() {
            let at = (first + p) * LANES;
            let scales = if G { [1.0; LANES] } else { view.scales.panel(first + p) };
            for (token, sum) in (token..).zip(acc) {
                // SAFETY: the task owns these columns of the output.
                let out = unsafe { self.out.slice(token * rows + at..token * rows + rows.min(at + LANES)) };
                s.store_part(out, s.mul(*sum, s.load_part(&scales, 0.0)));
            }
        }
        T
    }

    /// Adds the products of one unit of `P` panels with `T` tokens.
    ///
    /// # Safety
    /// `codes` points to the unit of the first panel, `x` to its columns of the first token; the others follow.
    #[inline(always)]
    unsafe fn unit<S: Simd, const G: bool, const P: usize, const T: usize>(
        &self,
        s: S,
        codes: *const u8,
        ahead: usize,
        x: *const f32,
        factors: &[(S::F, S::F); P],
        mut acc: [[S::F; T]; P],
    ) -> [[S::F; T]; P] {
        let units = self.view.units;
        let zero = s.splat((1 << 23) as f32 + if G { 0.0 } else { f32::from(C::ZERO) });
        let mut quads = [[s.splat_i(0); Q]; P];
        for p in 0..P {
            // SAFETY: by the contract; a prefetch may name any address.
            unsafe {
                let at = codes.add(p * units * 64);
                s.prefetch(at.wrapping_add(ahead));
                quads[p] = C::codes(s, s.load_i(at));
            }
        }
        for q in 0..Q {
            let mut lanes = [[s.splat_i(0); 4]; P];
            for p in 0..P {
                lanes[p] = bytes(s, quads[p][q]);
            }
            for j in 0..4 {
                let mut row = [s.splat(0.0); T];
                for t in 0..T {
                    // SAFETY: by the contract.
                    row[t] = s.splat(unsafe { *x.add(t * units * 4 * Q + 4 * q + j) });
                }
                for p in 0..P {
                    let code = s.sub(s.as_f(s.or(lanes[p][j], s.splat_i(MAGIC))), zero);
                    let (scale, offset) = factors[p];
                    let weight = if G { s.fma(code, scale, offset) } else { code };
                    for t in 0..T {
                        acc[p][t] = s.fma(row[t], weight, acc[p][t]);
                    }
                }
            }
        }
        acc
    }
}
