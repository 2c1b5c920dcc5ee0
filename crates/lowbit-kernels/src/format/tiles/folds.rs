//! Folds: exact sums of a few columns that become parts of totals, since the scales of weights, of activations, or both belong to a few
//! columns each.

use super::elements::{Element, Floats, Ints};
use super::{OperandKind, Tiles};
use crate::Int8Activations;
use crate::activations::{GROUP, ROW};
use crate::simd::{LANES, Simd};
use std::ops::Range;

/// What the activations have for each fold. Without ratios a fold is a group of weights; without groups, a block of activations;
/// else the smaller of the two.
#[derive(Clone, Copy)]
pub(in super::super) struct Folds<'a> {
    /// Quads of a fold; the last of a row may have fewer.
    pub quads: usize,
    /// The logarithm to base 2 of the folds of a group of weights. With several, their ratios apply first, and the scale of the
    /// group to their total.
    pub group_shift: u32,
    /// Parts of the token's step, `[tokens, ratio_stride]`, each of `2^ratio_shift` folds; empty where tokens have one step.
    pub ratios: &'a [f32],
    pub ratio_stride: usize,
    pub ratio_shift: u32,
    /// Sums of the codes of folds, `[tokens, stride]`, where codes of weights have a zero; else empty.
    pub codes: &'a [i32],
    /// The code of weights that means 0, where they have one.
    pub zero: i32,
    /// Sums of the activations of groups, `[tokens, stride]`, where weights have offsets; else empty.
    pub sums: &'a [f32],
    pub stride: usize,
    /// Whether all codes of weights are at most 128.
    pub small: bool,
    /// The last token: one beyond it has the same.
    pub last: usize,
}

impl<'a> Folds<'a> {
    /// Of weights and activations without scales of a few columns.
    pub const NONE: Folds<'static> = Folds {
        quads: 1,
        group_shift: 0,
        ratios: &[],
        ratio_stride: 0,
        ratio_shift: 0,
        codes: &[],
        zero: 0,
        sums: &[],
        stride: 0,
        small: false,
        last: 0,
    };

    /// Of 8-bit activations, for weights in groups of so many columns, or in rows; without sums. `None` where neither has scales
    /// of a few columns.
    pub fn of(q: &'a Int8Activations, group: Option<usize>) -> Option<Self> {
        let columns = q.block.into_iter().chain(group).min()?;
        Some(Folds {
            quads: columns / 4,
            group_shift: group.map_or(0, |group| (group / columns).ilog2()),
            ratios: &q.ratios,
            ratio_stride: q.blocks(),
            ratio_shift: q.block.map_or(0, |block| (block / columns).ilog2()),
            last: q.tokens.saturating_sub(1),
            ..Folds::NONE
        })
    }

    /// Of 8-bit activations, for weights of rows whose codes have a zero. `None` where tokens have one scale.
    pub fn of_rows(q: &'a Int8Activations, zero: i32) -> Option<Self> {
        Some(Folds { codes: &q.block_sums, zero, stride: q.blocks(), ..Folds::of(q, None)? })
    }

    /// Of 8-bit activations, for weights in groups of [`GROUP`] columns that have offsets.
    pub fn of_groups(q: &'a Int8Activations) -> Option<Self> {
        Some(Folds { sums: &q.group_sums, stride: q.cols.div_ceil(GROUP), ..Folds::of(q, Some(GROUP))? })
    }

    /// Columns of a fold.
    #[inline(always)]
    pub fn columns(&self) -> usize {
        self.quads * 4
    }

    /// What the exact sum of a fold begins with.
    #[inline(always)]
    pub fn start(&self, token: usize, fold: usize) -> i32 {
        let sum = self.codes.get(token.min(self.last) * self.stride + fold);
        sum.map_or(0, |sum| self.zero.wrapping_neg().wrapping_mul(*sum))
    }

    /// The part of the token's step that the step of a fold is.
    #[inline(always)]
    pub fn ratio(&self, token: usize, fold: usize) -> f32 {
        let at = token.min(self.last) * self.ratio_stride + (fold >> self.ratio_shift);
        self.ratios.get(at).copied().unwrap_or(1.0)
    }

    /// The sum of the activations of a group.
    #[inline(always)]
    pub fn sum(&self, token: usize, group: usize) -> f32 {
        self.sums[token.min(self.last) * self.stride + group]
    }
}

/// Adds the sum of a fold, all of whose weights or activations have one scale, to a total: one text for one token and for many, as are
/// the next.
#[inline(always)]
pub(in super::super) fn fold<S: Simd>(s: S, total: S::F, sum: S::F, scale: S::F) -> S::F {
    s.fma(sum, scale, total)
}

/// The same where both have scales.
#[inline(always)]
pub(in super::super) fn fold_both<S: Simd>(s: S, total: S::F, sum: S::F, ratio: f32, scale: S::F) -> S::F {
    s.fma(s.mul(sum, s.splat(ratio)), scale, total)
}

/// Adds the offsets of the weights of a group, whose activations have a sum, to a total.
#[inline(always)]
pub(in super::super) fn add_offsets<S: Simd>(s: S, total: S::F, sum: f32, offset: S::F) -> S::F {
    s.fma(s.splat(sum), offset, total)
}

/// Adds the sums of a fold, of the tokens from the first on, to the totals of a tile.
///
/// # Safety
/// Where `SCALE`, there are 16 scales of each panel, the next panel's two vectors further on.
#[inline(always)]
unsafe fn add_fold<S: Simd, E: Element<S>, const RATIO: bool, const SCALE: bool, const T: usize, const P: usize>(
    s: S,
    mut total: [[S::F; P]; T],
    acc: &[[E::Sum; P]; T],
    (folds, (token, at)): (&Folds, (usize, usize)),
    scales: *const f32,
) -> [[S::F; P]; T] {
    let mut scale = [s.splat(1.0); P];
    for p in 0..P {
        if SCALE {
            // SAFETY: by the contract.
            scale[p] = unsafe { s.load(scales.add(p * 2 * LANES)) };
        }
    }
    for t in 0..T {
        let ratio = if RATIO { folds.ratio(token + t, at) } else { 1.0 };
        for p in 0..P {
            let sum = E::floats(s, acc[t][p]);
            total[t][p] = match (RATIO, SCALE) {
                (true, true) => fold_both(s, total[t][p], sum, ratio, scale[p]),
                (true, false) => fold(s, total[t][p], sum, s.splat(ratio)),
                _ => fold(s, total[t][p], sum, scale[p]),
            };
        }
    }
    total
}

/// Adds the offsets of a group, for the tokens from the first on, to the totals of a tile.
///
/// # Safety
/// There are 16 scales and 16 offsets of each panel.
#[inline(always)]
unsafe fn add_group_offsets<S: Simd, const T: usize, const P: usize>(
    s: S,
    mut total: [[S::F; P]; T],
    (folds, (token, group)): (&Folds, (usize, usize)),
    scales: *const f32,
) -> [[S::F; P]; T] {
    let mut offset = [s.splat(0.0); P];
    for p in 0..P {
        // SAFETY: by the contract.
        offset[p] = unsafe { s.load(scales.add((p * 2 + 1) * LANES)) };
    }
    for t in 0..T {
        let sum = folds.sum(token + t, group);
        for p in 0..P {
            total[t][p] = add_offsets(s, total[t][p], sum, offset[p]);
        }
    }
    total
}

impl Tiles<'_> {
    /// A register tile whose sums become parts of totals.
    ///
    /// # Safety
    /// The quads, the activations, the scales and the totals of the tile are within their buffers.
    #[inline(always)]
    pub(super) unsafe fn run_totals<S: Simd, const T: usize, const P: usize>(
        &mut self,
        s: S,
        token: usize,
        folds: &Folds,
    ) {
        // SAFETY: by the contract.
        unsafe {
            match self.kind {
                OperandKind::Int if const { !S::FAST_DOT } && folds.small => {
                    self.run_codes::<S, Ints<true>, T, P>(s, token, folds);
                }
                OperandKind::Int => self.run_codes::<S, Ints<false>, T, P>(s, token, folds),
                OperandKind::Float => self.run_folds::<S, Floats, false, true, T, P>(s, token, folds),
                OperandKind::Bf16 => unreachable!("sums that are outputs"),
            }
        }
    }

    /// The same of codes, by what has scales.
    ///
    /// # Safety
    /// As [`Tiles::run_totals`].
    #[inline(always)]
    unsafe fn run_codes<S: Simd, E: Element<S>, const T: usize, const P: usize>(
        &mut self,
        s: S,
        token: usize,
        folds: &Folds,
    ) {
        // SAFETY: by the contract.
        unsafe {
            match (folds.ratios.is_empty(), self.group.is_some() && folds.group_shift == 0) {
                (true, _) => self.run_folds::<S, E, false, true, T, P>(s, token, folds),
                (false, true) => self.run_folds::<S, E, true, true, T, P>(s, token, folds),
                (false, false) => self.run_folds::<S, E, true, false, T, P>(s, token, folds),
            }
        }
    }

    /// A register tile over the folds of the chunk, whose sums meet ratios, scales of weights, or both; where groups have several
    /// folds, the scale of a group applies to their total.
    ///
    /// # Safety
    /// As [`Tiles::run_totals`].
    #[inline(always)]
    unsafe fn run_folds<
        S: Simd,
        E: Element<S>,
        const RATIO: bool,
        const SCALE: bool,
        const T: usize,
        const P: usize,
    >(
        &mut self,
        s: S,
        token: usize,
        folds: &Folds,
    ) {
        let nested = !SCALE && self.group.is_some();
        let within = (1 << folds.group_shift) - 1;
        let (quads, count) = (folds.quads, self.length.div_ceil(folds.quads));
        let (first, first_group) = (self.start / quads, (self.start / quads) >> folds.group_shift);
        // SAFETY: by the contract.
        unsafe {
            let mut total = self.sums::<S, Floats, T, P>(s, token);
            let mut before = total;
            for f in 0..count {
                if nested && f & within == 0 {
                    (before, total) = (total, [[s.splat(0.0); P]; T]);
                }
                let mut acc = [[E::start(s, 0); P]; T];
                if !folds.codes.is_empty() {
                    for t in 0..T {
                        acc[t] = [E::start(s, folds.start(token + t, first + f)); P];
                    }
                }
                let acc = self.dots::<S, E, T, P>(s, token, f * quads..self.length.min((f + 1) * quads), acc);
                let scales = self.scales.as_ptr().add((f >> folds.group_shift) * P * 2 * LANES);
                let at = (token, first + f);
                total = add_fold::<S, E, RATIO, SCALE, T, P>(s, total, &acc, (folds, at), scales);
                if nested {
                    if (f + 1) & within != 0 && f + 1 < count {
                        continue;
                    }
                    for p in 0..P {
                        let scale = s.load(scales.add(p * 2 * LANES));
                        for t in 0..T {
                            total[t][p] = fold(s, before[t][p], total[t][p], scale);
                        }
                    }
                }
                if folds.sums.is_empty() {
                    continue;
                }
                let at = (token, first_group + (f >> folds.group_shift));
                total = add_group_offsets(s, total, (folds, at), scales);
            }
            self.keep::<S, Floats, T, P>(s, token, &total);
        }
    }

    /// Adds the products of some quads of the chunk to the sums of a tile.
    ///
    /// # Safety
    /// The quads and the activations of the tile are within their buffers.
    #[inline(always)]
    pub(super) unsafe fn dots<S: Simd, E: Element<S>, const T: usize, const P: usize>(
        &self,
        s: S,
        token: usize,
        quads: Range<usize>,
        mut acc: [[E::Sum; P]; T],
    ) -> [[E::Sum; P]; T] {
        // SAFETY: by the contract.
        unsafe {
            let (base, x) = (self.w.as_ptr(), self.rows.as_ptr().add(token * ROW));
            for quad in quads {
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
            acc
        }
    }
}
