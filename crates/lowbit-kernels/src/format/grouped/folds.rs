//! What the activations of a product have for each group of columns whose weights share a scale.

use super::super::tiles::Folds;
use super::layout::Layout;
use crate::activations::{BLOCK, Blocked, GROUP};
use crate::pool::SharedMut;
use crate::simd::{LANES, Simd};
use crate::{Cpu, Int8Activations, Op, Products, scratch};
use std::ops::Range;

/// Tokens of a task.
const GRAIN: usize = 8;

/// Folds of 8-bit activations, with the buffers that they need beside the activations.
pub(super) struct Int8Folds<'a> {
    folds: Folds<'a>,
    codes: Option<scratch::Scratch>,
    sums: Option<scratch::Scratch>,
    /// Sums of all tokens.
    count: usize,
}

impl<'a> Int8Folds<'a> {
    /// For codes of which `zero` means 0, or which have offsets where there is none; `small` where all codes are at most 128.
    pub fn new(cpu: &Cpu, q: &'a Int8Activations, layout: &Layout, zero: Option<u8>, small: bool) -> Self {
        let columns = layout.columns();
        let mut folds = Folds { small, ..Folds::of(q, Some(columns)).expect("groups have scales") };
        let (mut codes, mut sums) = (None, None);
        match zero {
            Some(zero) if q.block == Some(columns) => {
                folds = Folds { codes: &q.block_sums, zero: zero.into(), stride: q.blocks(), ..folds };
            }
            None if columns == GROUP => folds = Folds { sums: &q.group_sums, stride: q.cols.div_ceil(GROUP), ..folds },
            zero => {
                folds = Folds { zero: zero.unwrap_or(0).into(), stride: layout.groups(q.cols), ..folds };
                let place = if zero.is_some() { &mut codes } else { &mut sums };
                let sums = place.insert(scratch::take(q.tokens * folds.stride * 4));
                let out = SharedMut::new(sums.floats());
                cpu.pool.run(q.tokens.div_ceil(GRAIN), &|task| {
                    let tokens = task * GRAIN..((task + 1) * GRAIN).min(q.tokens);
                    cpu.isa.run(GroupSums { q, layout, as_codes: zero.is_some(), tokens, out: &out });
                });
            }
        }
        Int8Folds { folds, codes, sums, count: q.tokens * folds.stride }
    }

    /// What kernels read.
    pub fn get(&self) -> Folds<'_> {
        let codes = self.codes.as_ref().map_or(self.folds.codes, |buffer| &buffer.integers()[..self.count]);
        let sums = self.sums.as_ref().map_or(self.folds.sums, |buffer| &buffer.values()[..self.count]);
        Folds { codes, sums, ..self.folds }
    }
}

/// Sums of the groups of some tokens of 8-bit activations: of codes, or of codes times the ratios of their blocks.
struct GroupSums<'a> {
    q: &'a Int8Activations,
    layout: &'a Layout,
    /// Whether sums are those of codes, as bits.
    as_codes: bool,
    tokens: Range<usize>,
    out: &'a SharedMut<'a, f32>,
}

impl Op for GroupSums<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let (q, columns, stride) = (self.q, self.layout.columns(), self.layout.groups(self.q.cols));
        for token in self.tokens {
            // SAFETY: the task owns the sums of its tokens.
            let out = unsafe { self.out.slice(token * stride..(token + 1) * stride) };
            for (g, out) in out.iter_mut().enumerate() {
                let codes = || sum_codes(s, q.q.part(token, g * columns, columns));
                *out = match q.block {
                    _ if self.as_codes => f32::from_bits(codes() as u32),
                    None => codes() as f32,
                    Some(block) if block > columns => {
                        q.ratios[token * q.blocks() + g * columns / block] * codes() as f32
                    }
                    Some(block) => {
                        let blocks = g * columns / block..q.blocks().min((g + 1) * columns / block);
                        let places = token * q.blocks() + blocks.start..token * q.blocks() + blocks.end;
                        places.fold(0.0, |sum, block| sum + q.ratios[block] * q.block_sums[block] as f32)
                    }
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

/// Folds of f32 activations, with the buffer of their sums.
pub(super) struct FloatFolds {
    quads: usize,
    stride: usize,
    tokens: usize,
    sums: Option<scratch::Scratch>,
}

impl FloatFolds {
    /// Of `cols` columns, in folds of `columns`; sums only where weights have offsets.
    pub fn new(cpu: &Cpu, x: &Blocked, cols: usize, columns: usize, offsets: bool) -> Self {
        let (tokens, stride) = (x.tokens(), cols.next_multiple_of(BLOCK) / columns);
        let sums = offsets.then(|| {
            let mut sums = scratch::take(tokens * stride * 4);
            let out = SharedMut::new(sums.floats());
            cpu.pool.run(tokens.div_ceil(GRAIN), &|task| {
                for token in task * GRAIN..((task + 1) * GRAIN).min(tokens) {
                    // SAFETY: the task owns the sums of its tokens.
                    let out = unsafe { out.slice(token * stride..(token + 1) * stride) };
                    cpu.isa.run(FloatSums { x, token, columns, out });
                }
            });
            sums
        });
        FloatFolds { quads: columns, stride, tokens, sums }
    }

    /// What kernels read.
    pub fn get(&self) -> Folds<'_> {
        let sums = self.sums.as_ref().map_or(&[][..], |buffer| &buffer.values()[..self.tokens * self.stride]);
        Folds { quads: self.quads, stride: self.stride, sums, last: self.tokens.saturating_sub(1), ..Folds::NONE }
    }
}

/// Sums of folds of a token of f32 activations.
struct FloatSums<'a> {
    x: &'a Blocked,
    token: usize,
    columns: usize,
    out: &'a mut [f32],
}

impl Op for FloatSums<'_> {
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
