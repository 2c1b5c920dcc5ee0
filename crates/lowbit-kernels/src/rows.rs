//! Activations on their way into a matrix product: f32, or int8 with one scale per token.

use crate::simd::{LANES, Simd};
use crate::{Cpu, Op};

/// Columns that share a scale in the group-wise formats, and over which int8 activations keep sums.
pub const GROUP: usize = 64;

/// Activations `[tokens, cols]`, row-major.
#[derive(Clone, Copy, Debug)]
pub enum Rows<'a> {
    /// As they are.
    F32(&'a [f32]),
    /// Quantized per token.
    Int8(&'a Int8Rows),
}

/// Activations quantized to int8 per token by absmax: `x ~ q * scale`, `scale = max|x| / 127` (arXiv 2402.17764).
#[derive(Clone, Debug, Default)]
pub struct Int8Rows {
    /// Tokens.
    pub tokens: usize,
    /// Columns before padding.
    pub cols: usize,
    /// Codes, `[tokens, stride]`; columns beyond `cols` are 0.
    pub q: Vec<i8>,
    /// Columns after padding: whole groups plus one, so that kernels may read past the last one.
    pub stride: usize,
    /// Step of each token, `[tokens]`.
    pub scale: Vec<f32>,
    /// Sum of the codes of each group of [`GROUP`] columns, `[tokens, stride / GROUP]`.
    pub group_sums: Vec<i32>,
    /// Sum of all codes of each token, `[tokens]`.
    pub sums: Vec<i32>,
}

impl Int8Rows {
    /// Quantizes `x`, `[tokens, cols]`, reusing the buffers of `self`.
    pub fn quantize(&mut self, cpu: &Cpu, x: &[f32], cols: usize) {
        self.tokens = x.len() / cols.max(1);
        self.cols = cols;
        self.stride = (cols.div_ceil(GROUP) + 1) * GROUP;
        let groups = self.stride / GROUP;
        self.q.resize(self.tokens * self.stride, 0);
        self.scale.resize(self.tokens, 0.0);
        self.group_sums.resize(self.tokens * groups, 0);
        let (tokens, stride, isa) = (self.tokens, self.stride, cpu.isa);
        let grain = (8_192 / cols.max(1)).clamp(1, 64);
        let (q, scale) = (&mut self.q[..tokens * stride], &mut self.scale[..tokens]);
        self.sums.clear();
        self.sums.resize(tokens, 0);
        let scale_cell = crate::pool::SharedMut::new(scale);
        let sums_cell = crate::pool::SharedMut::new(&mut self.group_sums[..tokens * groups]);
        cpu.pool.for_rows(tokens, grain, [(q, stride)], |range, [q]| {
            let first = range.start;
            // SAFETY: row ranges of different tasks are disjoint.
            let (scale, sums) =
                unsafe { (scale_cell.slice(range.clone()), sums_cell.slice(first * groups..range.end * groups)) };
            for (i, row) in q.chunks_exact_mut(stride).enumerate() {
                let x = &x[(first + i) * cols..][..cols];
                scale[i] = isa.run(QuantizeRow { x, q: row, sums: &mut sums[i * groups..][..groups] });
            }
        });
        for (sum, groups) in self.sums.iter_mut().zip(self.group_sums.chunks_exact(groups)) {
            *sum = groups.iter().sum();
        }
    }

    /// `q * scale` of all tokens, `[tokens, cols]`.
    pub fn dequantize(&self) -> Vec<f32> {
        let rows = self.q.chunks_exact(self.stride).zip(&self.scale).take(self.tokens);
        rows.flat_map(|(q, &s)| q[..self.cols].iter().map(move |&c| c as f32 * s)).collect()
    }
}

/// `q = round(x * 127 / max(max|x|, 1e-5))`; returns the step `max(max|x|, 1e-5) / 127`.
struct QuantizeRow<'a> {
    x: &'a [f32],
    /// Whole groups.
    q: &'a mut [i8],
    /// One per group.
    sums: &'a mut [i32],
}

impl Op for QuantizeRow<'_> {
    type Out = f32;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) -> f32 {
        let mut top = s.splat(1e-5);
        for part in self.x.chunks(LANES) {
            top = s.max(s.abs(s.load_part(part, 0.0)), top);
        }
        let top = s.max_lane(top);
        let factor = s.splat(127.0 / top);
        let (codes, rest) = self.q.split_at_mut(self.x.len() / LANES * LANES);
        for (part, q) in self.x.chunks_exact(LANES).zip(codes.chunks_exact_mut(LANES)) {
            let v = s.round_i(s.mul(s.load_part(part, 0.0), factor));
            // SAFETY: the chunk holds 16 bytes; |x| * 127 / max|x| rounds to at most 127.
            unsafe { s.store_i8(q.as_mut_ptr(), v) };
        }
        let tail = &self.x[codes.len()..];
        rest.fill(0);
        for (q, x) in rest.iter_mut().zip(tail) {
            *q = (x * (127.0 / top)).round_ties_even() as i8;
        }
        let ones = s.splat_i(0x0101_0101);
        for (sum, codes) in self.sums.iter_mut().zip(self.q.chunks_exact(GROUP)) {
            // SAFETY: a group is 64 bytes. Its sum is far below 2^24, so f32 holds it exactly.
            let lanes = unsafe { s.dot_small(s.splat_i(0), ones, s.load_i(codes.as_ptr().cast())) };
            *sum = s.sum(s.to_f(lanes)) as i32;
        }
        top / 127.0
    }
}
