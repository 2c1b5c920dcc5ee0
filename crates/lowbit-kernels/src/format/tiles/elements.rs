//! Operands of register tiles.

use crate::simd::Simd;

/// How 4-byte groups are multiplied and summed.
pub(super) trait Element<S: Simd> {
    /// 16 sums.
    type Sum: Copy;
    fn zero(s: S) -> Self::Sum;
    fn dot(s: S, sum: Self::Sum, w: S::I, x: S::I) -> Self::Sum;
    fn from_bits(s: S, bits: S::I) -> Self::Sum;
    fn bits(s: S, sum: Self::Sum) -> S::I;
}

/// Codes times 8-bit activations.
pub(super) struct Ints;

impl<S: Simd> Element<S> for Ints {
    type Sum = S::I;
    #[inline(always)]
    fn zero(s: S) -> S::I {
        s.splat_i(0)
    }
    #[inline(always)]
    fn dot(s: S, sum: S::I, w: S::I, x: S::I) -> S::I {
        s.dot(sum, w, x)
    }
    #[inline(always)]
    fn from_bits(_: S, bits: S::I) -> S::I {
        bits
    }
    #[inline(always)]
    fn bits(_: S, sum: S::I) -> S::I {
        sum
    }
}

/// Pairs of bf16.
pub(super) struct Halves;

impl<S: Simd> Element<S> for Halves {
    type Sum = S::F;
    #[inline(always)]
    fn zero(s: S) -> S::F {
        s.splat(0.0)
    }
    #[inline(always)]
    fn dot(s: S, sum: S::F, w: S::I, x: S::I) -> S::F {
        s.dot_bf16(sum, w, x)
    }
    #[inline(always)]
    fn from_bits(s: S, bits: S::I) -> S::F {
        s.as_f(bits)
    }
    #[inline(always)]
    fn bits(s: S, sum: S::F) -> S::I {
        s.as_i(sum)
    }
}
