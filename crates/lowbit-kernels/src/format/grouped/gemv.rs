//! Products of one token: memory is the limit, so codes and scales are read as two streams, decoded in registers and never stored.

use super::super::AHEAD;
use super::super::tiles::{Folds, add_offsets, fold_floats, fold_ints};
use super::planes::{self, Levels, QUADS};
use super::view::{CHAIN, View};
use crate::activations::BLOCK;
use crate::pool::SharedMut;
use crate::simd::{LANES, Simd};
use crate::{Cpu, Op, Products};
use std::ops::Range;

/// Activations of one token.
#[derive(Clone, Copy)]
pub(super) enum Token<'a> {
    /// Signed bytes, padded to whole blocks, and the step of the token.
    Int8(&'a [u8], f32),
    /// Floats, padded to whole blocks.
    F32(&'a [f32]),
}

/// `y = x W^T` of one token, `F` columns of whose 8-bit activations share a fold.
pub(super) fn product<const B: usize, const F: usize>(cpu: &Cpu, view: View<B>, x: Token, folds: Folds, y: &mut [f32]) {
    let panels = view.p.rows.div_ceil(LANES);
    let grain = super::super::stream_grain(view.blocks * B * 64, panels);
    let out = SharedMut::new(y);
    cpu.pool.run(panels.div_ceil(grain), &|task| {
        let panels = task * grain..((task + 1) * grain).min(panels);
        match x {
            Token::Int8(x, step) => {
                assert!(x.len() >= view.blocks * BLOCK, "activations of all columns");
                cpu.isa.run(Int8Gemv::<B, F> { view, x, step, folds, panels, out: &out });
            }
            Token::F32(x) => {
                assert!(x.len() >= view.blocks * BLOCK, "activations of all columns");
                cpu.isa.run(FloatGemv { view, x, folds, panels, out: &out });
            }
        }
    });
}

/// A range of panels times one token of 8-bit activations.
struct Int8Gemv<'a, const B: usize, const F: usize> {
    view: View<'a, B>,
    x: &'a [u8],
    step: f32,
    folds: Folds<'a>,
    panels: Range<usize>,
    out: &'a SharedMut<'a, f32>,
}

impl<const B: usize, const F: usize> Op for Int8Gemv<'_, B, F> {
    type Out = ();
    const PRODUCTS: Products = Products::Int8;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for panel in self.panels.clone() {
            let value = s.mul(self.panel(s, panel), s.splat(self.step));
            store(s, self.out, self.view.p.rows, panel, value);
        }
    }
}

/// Stores the outputs of a panel.
#[inline(always)]
fn store<S: Simd>(s: S, out: &SharedMut<f32>, rows: usize, panel: usize, value: S::F) {
    let first = panel * LANES;
    // SAFETY: the task owns the outputs of its panels.
    s.store_part(unsafe { out.slice(first..(first + LANES).min(rows)) }, value);
}

/// Asks for the lines of a block further on.
#[inline(always)]
fn prefetch<S: Simd, const B: usize>(s: S, block: *const u8) {
    for unit in 0..B {
        s.prefetch(block.wrapping_add(AHEAD + unit * 64));
    }
}

impl<const B: usize, const F: usize> Int8Gemv<'_, B, F> {
    #[inline(always)]
    fn panel<S: Simd>(&self, s: S, panel: usize) -> S::F {
        let (view, folds) = (&self.view, &self.folds);
        let (codes, scales) = (view.codes(panel), view.scales(panel));
        let mut total = s.splat(0.0);
        for (block, (codes, x)) in codes.chunks_exact(B * 64).zip(self.x.chunks_exact(BLOCK)).enumerate() {
            prefetch::<S, B>(s, codes.as_ptr());
            // SAFETY: a block, as just cut.
            let quads = unsafe { planes::quads::<S, B>(s, codes.as_ptr()) };
            for h in 0..BLOCK / F {
                let fold = block * (BLOCK / F) + h;
                let mut sum = s.splat_i(folds.start(fold));
                for q in h * (F / 4)..(h + 1) * (F / 4) {
                    let x = s.splat_i(i32::from_le_bytes([x[q * 4], x[q * 4 + 1], x[q * 4 + 2], x[q * 4 + 3]]));
                    sum = if B < 8 { s.dot_small(sum, quads[q], x) } else { s.dot(sum, quads[q], x) };
                }
                let (scale, offset) = view.vectors(s, scales, fold * F);
                total = fold_ints(s, total, sum, folds.ratio(fold), scale);
                if view.layout.offsets {
                    total = add_offsets(s, total, folds.sum(fold), offset);
                }
            }
        }
        total
    }
}

/// A range of panels times one token of f32 activations.
struct FloatGemv<'a, const B: usize> {
    view: View<'a, B>,
    x: &'a [f32],
    folds: Folds<'a>,
    panels: Range<usize>,
    out: &'a SharedMut<'a, f32>,
}

impl<const B: usize> Op for FloatGemv<'_, B> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let levels = Levels::new(s, self.view.zero);
        for panel in self.panels.clone() {
            let value = self.panel(s, panel, &levels);
            store(s, self.out, self.view.p.rows, panel, value);
        }
    }
}

impl<const B: usize> FloatGemv<'_, B> {
    #[inline(always)]
    fn panel<S: Simd>(&self, s: S, panel: usize, levels: &Levels<S>) -> S::F {
        let view = &self.view;
        let (codes, scales) = (view.codes(panel), view.scales(panel));
        let mut total = s.splat(0.0);
        for (block, (codes, x)) in codes.chunks_exact(B * 64).zip(self.x.as_chunks::<BLOCK>().0).enumerate() {
            prefetch::<S, B>(s, codes.as_ptr());
            // SAFETY: a block, as just cut.
            let quads = unsafe { planes::quads::<S, B>(s, codes.as_ptr()) };
            let (mut scale, mut offset) = view.vectors(s, scales, block * BLOCK);
            for h in 0..BLOCK / CHAIN {
                if h > 0 && view.layout.columns() < BLOCK {
                    (scale, offset) = view.vectors(s, scales, block * BLOCK + h * CHAIN);
                }
                let mut sum = s.splat(0.0);
                for q in h * (CHAIN / 4)..(h + 1) * (CHAIN / 4) {
                    let columns = levels.of::<B>(s, quads[q]);
                    for j in 0..4 {
                        sum = s.fma(columns[j], s.splat(x[q * 4 + j]), sum);
                    }
                }
                total = fold_floats(s, total, sum, scale);
                if view.layout.offsets {
                    total = add_offsets(s, total, self.folds.sum(block * (BLOCK / CHAIN) + h), offset);
                }
            }
        }
        total
    }
}

const _: () = assert!(QUADS * 4 == BLOCK);
