//! Products of one token and of a few: memory is the limit, so codes and scales are read as two streams, decoded in registers and never
//! stored; a few tokens share what was decoded.

use super::super::AHEAD;
use super::super::tiles::{Folds, add_offsets, fold, fold_both};
use super::planes::{self, Levels};
use super::view::{CHAIN, View};
use crate::activations::{BLOCK, Blocked, ROW};
use crate::pool::SharedMut;
use crate::simd::{LANES, Simd};
use crate::{Cpu, Op, Products};
use std::ops::Range;

/// Activations of some tokens, in chunks of whole blocks.
#[derive(Clone, Copy)]
pub(super) enum Tokens<'a> {
    /// Signed bytes, and the step of each token.
    Int8(&'a Blocked, &'a [f32]),
    /// Floats.
    F32(&'a Blocked),
}

/// `y = x W^T`, `F` columns of a block of whose codes share a scale.
pub(super) fn product<const B: usize, const F: usize>(
    cpu: &Cpu,
    view: View<B>,
    x: Tokens,
    folds: Folds,
    y: &mut [f32],
) {
    let panels = view.p.rows.div_ceil(LANES);
    let grain = super::super::stream_grain(view.blocks * B * 64, panels);
    let out = SharedMut::new(y);
    cpu.pool.run(panels.div_ceil(grain), &|task| {
        let panels = task * grain..((task + 1) * grain).min(panels);
        match x {
            Tokens::Int8(x, steps) => cpu.isa.run(Int8Gemv::<B, F> { view, x, steps, folds, panels, out: &out }),
            Tokens::F32(x) => cpu.isa.run(FloatGemv { view, x, folds, panels, out: &out }),
        }
    });
}

/// Tokens that share decoded codes at most.
const SHARED: usize = 4;

/// A range of panels times some tokens of 8-bit activations.
struct Int8Gemv<'a, const B: usize, const F: usize> {
    view: View<'a, B>,
    x: &'a Blocked,
    steps: &'a [f32],
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
            let (tokens, mut token) = (self.x.tokens(), 0);
            while S::MANY_REGISTERS && tokens - token >= SHARED {
                self.tokens::<S, SHARED>(s, panel, token);
                token += SHARED;
            }
            while S::MANY_REGISTERS && tokens - token >= 2 {
                self.tokens::<S, 2>(s, panel, token);
                token += 2;
            }
            for token in token..tokens {
                self.tokens::<S, 1>(s, panel, token);
            }
        }
    }
}

/// Stores the outputs of a panel for a token.
#[inline(always)]
fn store<S: Simd>(s: S, out: &SharedMut<f32>, rows: usize, (panel, token): (usize, usize), value: S::F) {
    let first = token * rows + panel * LANES;
    // SAFETY: the task owns the outputs of its panels.
    s.store_part(unsafe { out.slice(first..(first + LANES).min((token + 1) * rows)) }, value);
}

/// Asks for the lines of a block further on.
#[inline(always)]
fn prefetch<S: Simd, const B: usize>(s: S, block: *const u8) {
    for unit in 0..B {
        s.prefetch(block.wrapping_add(AHEAD + unit * 64));
    }
}

/// The rows of a chunk of activations, [`ROW`] bytes apart, and the blocks, of so many bytes each, that begin in it.
#[inline(always)]
fn chunk(x: &Blocked, chunk: usize, bytes: usize, blocks: usize) -> (&[u8], Range<usize>) {
    let rows = if x.tokens() == 1 { x.single() } else { x.rows(chunk) };
    let each = x.chunk() / bytes;
    (rows, chunk * each..((chunk + 1) * each).min(blocks))
}

/// Sums of a panel for some tokens.
struct Sums<S: Simd, const T: usize> {
    /// Of a fold.
    exact: [S::I; T],
    /// Of a group that has several folds.
    inner: [S::F; T],
    total: [S::F; T],
}

impl<const B: usize, const F: usize> Int8Gemv<'_, B, F> {
    /// The logarithm to base 2 of the parts, `F` columns each, of a fold.
    #[inline(always)]
    fn parts(&self) -> u32 {
        if F < BLOCK { 0 } else { (self.folds.quads / (F / 4)).trailing_zeros() }
    }

    /// Begins the fold that begins with a part, if one does.
    #[inline(always)]
    fn begin<S: Simd, const T: usize>(&self, s: S, token: usize, part: usize, sums: &mut Sums<S, T>) {
        let parts = self.parts();
        if part & ((1 << parts) - 1) == 0 {
            for t in 0..T {
                sums.exact[t] = s.splat_i(self.folds.start(token + t, part >> parts));
            }
        }
    }

    /// Adds the fold that ends with a part, if one does, and the group that ends with the fold.
    #[inline(always)]
    fn end<S: Simd, const T: usize>(&self, s: S, scales: &[u8], token: usize, part: usize, sums: &mut Sums<S, T>) {
        let (view, folds, parts) = (&self.view, &self.folds, self.parts());
        let last = part + 1 == view.blocks * (BLOCK / F);
        if (part + 1) & ((1 << parts) - 1) != 0 && !last {
            return;
        }
        let at = part >> parts;
        let nested = F == BLOCK && folds.group_shift > 0;
        if nested {
            for t in 0..T {
                let ratio = s.splat(folds.ratio(token + t, at));
                sums.inner[t] = fold(s, sums.inner[t], s.to_f(sums.exact[t]), ratio);
            }
            if (at + 1) & ((1 << folds.group_shift) - 1) != 0 && !last {
                return;
            }
        }
        let (scale, offset) = view.vectors(s, scales, part * F);
        for t in 0..T {
            let total = sums.total[t];
            sums.total[t] = match nested {
                true => fold(s, total, sums.inner[t], scale),
                false => fold_both(s, total, s.to_f(sums.exact[t]), folds.ratio(token + t, at), scale),
            };
            sums.inner[t] = s.splat(0.0);
            if view.layout.offsets {
                let sum = folds.sum(token + t, at >> folds.group_shift);
                sums.total[t] = add_offsets(s, sums.total[t], sum, offset);
            }
        }
    }

    /// Outputs of a panel for `T` tokens.
    #[inline(always)]
    fn tokens<S: Simd, const T: usize>(&self, s: S, panel: usize, token: usize) {
        let (codes, scales) = (self.view.codes(panel), self.view.scales(panel));
        let mut sums = Sums { exact: [s.splat_i(0); T], inner: [s.splat(0.0); T], total: [s.splat(0.0); T] };
        for c in 0..self.x.chunks() {
            let (rows, blocks) = chunk(self.x, c, BLOCK, self.view.blocks);
            assert!(rows.len() >= (token + T - 1) * ROW + blocks.len() * BLOCK);
            for (i, (block, codes)) in
                blocks.clone().zip(codes[blocks.start * B * 64..].chunks_exact(B * 64)).enumerate()
            {
                prefetch::<S, B>(s, codes.as_ptr());
                // SAFETY: a block, as just cut.
                let quads = unsafe { planes::quads::<S, B>(s, codes.as_ptr()) };
                for h in 0..BLOCK / F {
                    let part = block * (BLOCK / F) + h;
                    self.begin(s, token, part, &mut sums);
                    for t in 0..T {
                        for q in h * (F / 4)..(h + 1) * (F / 4) {
                            // SAFETY: the rows of the chunk hold the block, as asserted.
                            let x = unsafe { rows.as_ptr().add((token + t) * ROW + i * BLOCK + q * 4) };
                            // SAFETY: as above.
                            let x = s.splat_i(unsafe { x.cast::<i32>().read_unaligned() });
                            let sum = &mut sums.exact[t];
                            *sum = if B < 8 { s.dot_small(*sum, quads[q], x) } else { s.dot(*sum, quads[q], x) };
                        }
                    }
                    self.end(s, scales, token, part, &mut sums);
                }
            }
        }
        let total = sums.total;
        for t in 0..T {
            let value = s.mul(total[t], s.splat(self.steps[token + t]));
            store(s, self.out, self.view.p.rows, (panel, token + t), value);
        }
    }
}

/// A range of panels times some tokens of f32 activations.
struct FloatGemv<'a, const B: usize> {
    view: View<'a, B>,
    x: &'a Blocked,
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
            let (tokens, mut token) = (self.x.tokens(), 0);
            while S::MANY_REGISTERS && tokens - token >= SHARED {
                self.tokens::<S, SHARED>(s, panel, token, &levels);
                token += SHARED;
            }
            while S::MANY_REGISTERS && tokens - token >= 2 {
                self.tokens::<S, 2>(s, panel, token, &levels);
                token += 2;
            }
            for token in token..tokens {
                self.tokens::<S, 1>(s, panel, token, &levels);
            }
        }
    }
}

impl<const B: usize> FloatGemv<'_, B> {
    /// Outputs of a panel for `T` tokens.
    #[inline(always)]
    fn tokens<S: Simd, const T: usize>(&self, s: S, panel: usize, token: usize, levels: &Levels<S>) {
        let view = &self.view;
        let (codes, scales) = (view.codes(panel), view.scales(panel));
        let (mut scale, mut offset) = (s.splat(0.0), s.splat(0.0));
        let begins = |col: usize| col & (view.layout.columns() - 1) == 0;
        let mut total = [s.splat(0.0); T];
        for c in 0..self.x.chunks() {
            let (rows, blocks) = chunk(self.x, c, BLOCK * 4, view.blocks);
            assert!(rows.len() >= (token + T - 1) * ROW + blocks.len() * BLOCK * 4);
            for (i, (block, codes)) in
                blocks.clone().zip(codes[blocks.start * B * 64..].chunks_exact(B * 64)).enumerate()
            {
                prefetch::<S, B>(s, codes.as_ptr());
                // SAFETY: a block, as just cut.
                let quads = unsafe { planes::quads::<S, B>(s, codes.as_ptr()) };
                if begins(block * BLOCK) {
                    (scale, offset) = view.vectors(s, scales, block * BLOCK);
                }
                for h in 0..BLOCK / CHAIN {
                    if h > 0 && begins(h * CHAIN) {
                        (scale, offset) = view.vectors(s, scales, block * BLOCK + h * CHAIN);
                    }
                    let mut sums = [s.splat(0.0); T];
                    for q in h * (CHAIN / 4)..(h + 1) * (CHAIN / 4) {
                        let columns = levels.of::<B>(s, quads[q]);
                        for j in 0..4 {
                            for t in 0..T {
                                // SAFETY: the rows of the chunk hold the block, as asserted.
                                let x = unsafe { rows.as_ptr().add((token + t) * ROW + (i * BLOCK + q * 4 + j) * 4) };
                                // SAFETY: as above.
                                let x = s.splat(unsafe { x.cast::<f32>().read_unaligned() });
                                sums[t] = s.fma(columns[j], x, sums[t]);
                            }
                        }
                    }
                    for t in 0..T {
                        total[t] = fold(s, total[t], sums[t], scale);
                        if view.layout.offsets {
                            let sum = self.folds.sum(token + t, block * (BLOCK / CHAIN) + h);
                            total[t] = add_offsets(s, total[t], sum, offset);
                        }
                    }
                }
            }
        }
        for t in 0..T {
            store(s, self.out, view.p.rows, (panel, token + t), total[t]);
        }
    }
}
