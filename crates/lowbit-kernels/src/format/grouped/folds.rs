//! What the activations of a product have for each fold: columns whose exact sum meets one scale of weights.

use super::super::tiles::Folds;
use crate::activations::{BLOCK, BLOCKS, Blocked, GROUP};
use crate::pool::SharedMut;
use crate::simd::{LANES, Simd};
use crate::{Cpu, Int8Activations, Op, Products, scratch};
use std::ops::Range;

/// Tokens of a task.
const GRAIN: usize = 8;

/// Buffers of [`Folds`] for some tokens.
pub(super) struct FoldSums {
    /// Folds of a token.
    stride: usize,
    tokens: usize,
    ratios: Option<scratch::Scratch>,
    starts: Option<scratch::Scratch>,
    sums: Option<scratch::Scratch>,
    small: bool,
}

impl FoldSums {
    /// Of 8-bit activations, in folds of `columns` columns, for codes of which `zero` means 0, or which have offsets where there is none;
    /// `small` where all codes are at most 128.
    pub fn int8(cpu: &Cpu, q: &Int8Activations, columns: usize, zero: Option<u8>, small: bool) -> Self {
        let stride = q.cols.div_ceil(GROUP) * GROUP / columns;
        let bytes = q.tokens * stride * 4;
        let mut ratios = scratch::take(bytes);
        let mut second = scratch::take(bytes);
        let (to, out) = (SharedMut::new(ratios.floats()), SharedMut::new(second.floats()));
        cpu.pool.run(q.tokens.div_ceil(GRAIN), &|task| {
            let tokens = task * GRAIN..((task + 1) * GRAIN).min(q.tokens);
            cpu.isa.run(Int8Folds { q, columns, zero, stride, tokens, ratios: &to, out: &out });
        });
        let (starts, sums) = if zero.is_some() { (Some(second), None) } else { (None, Some(second)) };
        FoldSums { stride, tokens: q.tokens, ratios: Some(ratios), starts, sums, small }
    }

    /// Of f32 activations of so many columns, in folds of `columns`; sums only where weights have offsets.
    pub fn f32(cpu: &Cpu, x: &Blocked, cols: usize, columns: usize, offsets: bool) -> Self {
        let (tokens, stride) = (x.tokens(), cols.next_multiple_of(BLOCK) / columns);
        let sums = offsets.then(|| {
            let mut sums = scratch::take(tokens * stride * 4);
            let out = SharedMut::new(sums.floats());
            cpu.pool.run(tokens.div_ceil(GRAIN), &|task| {
                for token in task * GRAIN..((task + 1) * GRAIN).min(tokens) {
                    // SAFETY: the task owns the sums of its tokens.
                    let out = unsafe { out.slice(token * stride..(token + 1) * stride) };
                    cpu.isa.run(FloatFolds { x, token, columns, out });
                }
            });
            sums
        });
        FoldSums { stride, tokens, ratios: None, starts: None, sums, small: false }
    }

    /// What kernels read.
    pub fn get(&mut self) -> Folds<'_> {
        let count = self.tokens * self.stride;
        Folds {
            stride: self.stride,
            ratios: self.ratios.as_mut().map_or(&[], |buffer| &buffer.floats()[..count]),
            starts: self.starts.as_mut().map_or(&[], |buffer| &buffer.floats()[..count]),
            sums: self.sums.as_mut().map_or(&[], |buffer| &buffer.floats()[..count]),
            small: self.small,
        }
    }
}

/// Folds of some tokens of 8-bit activations.
struct Int8Folds<'a> {
    q: &'a Int8Activations,
    columns: usize,
    zero: Option<u8>,
    stride: usize,
    tokens: Range<usize>,
    ratios: &'a SharedMut<'a, f32>,
    out: &'a SharedMut<'a, f32>,
}

impl Op for Int8Folds<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let (q, columns) = (self.q, self.columns);
        let blocks = q.cols.div_ceil(GROUP) * BLOCKS;
        for token in self.tokens {
            let place = token * self.stride..(token + 1) * self.stride;
            // SAFETY: the task owns the folds of its tokens.
            let (ratios, out) = unsafe { (self.ratios.slice(place.clone()), self.out.slice(place)) };
            for (fold, (ratio, out)) in ratios.iter_mut().zip(out).enumerate() {
                let block = token * blocks + fold * columns / BLOCK;
                *ratio = if q.blocked { q.ratios[block] } else { 1.0 };
                let sum = match q.blocked && columns == BLOCK {
                    true => q.block_sums[block],
                    false => sum_codes(s, q.q.part(token, fold * columns, columns)),
                };
                *out = match self.zero {
                    Some(zero) => f32::from_bits((-i32::from(zero) * sum) as u32),
                    None => *ratio * sum as f32,
                };
            }
        }
    }
}

/// The sum of signed bytes, whose number is a multiple of 16.
#[inline(always)]
fn sum_codes<S: Simd>(s: S, codes: &[u8]) -> i32 {
    let mut sum = s.splat_i(0);
    for codes in codes.as_chunks::<LANES>().0 {
        // SAFETY: 16 bytes.
        sum = s.add_i(sum, unsafe { s.load_i8(codes.as_ptr().cast()) });
    }
    s.sum_i(sum)
}

/// Sums of folds of a token of f32 activations.
struct FloatFolds<'a> {
    x: &'a Blocked,
    token: usize,
    columns: usize,
    out: &'a mut [f32],
}

impl Op for FloatFolds<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let bytes = self.columns * 4;
        for (fold, out) in self.out.iter_mut().enumerate() {
            let mut sum = s.splat(0.0);
            for x in self.x.part(self.token, fold * bytes, bytes).as_chunks::<64>().0 {
                // SAFETY: 16 f32.
                sum = s.add(sum, unsafe { s.load(x.as_ptr().cast()) });
            }
            *out = s.sum(sum);
        }
    }
}
