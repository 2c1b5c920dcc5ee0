//! Operands of register tiles.

use crate::simd::Simd;

/// How 4-byte groups are multiplied and summed.
pub(super) trait Element<S: Simd> {
    /// 16 sums.
    type Sum: Copy;
    /// What sums of integers begin with; those of floats begin with 0.
    fn start(s: S, start: i32) -> Self::Sum;
    fn dot(s: S, sum: Self::Sum, w: S::I, x: S::I) -> Self::Sum;
    /// The sums as floats.
    fn floats(s: S, sum: Self::Sum) -> S::F;
    fn from_bits(s: S, bits: S::I) -> Self::Sum;
    fn bits(s: S, sum: Self::Sum) -> S::I;
}

/// Codes times 8-bit activations; codes of at most 128 where `SMALL`.
pub(super) struct Ints<const SMALL: bool>;

impl<S: Simd, const SMALL: bool> Element<S> for Ints<SMALL> {
    type Sum = S::I;
    #[inline(always)]
    fn start(s: S, start: i32) -> S::I {
        s.splat_i(start)
    }
    #[inline(always)]
    fn dot(s: S, sum: S::I, w: S::I, x: S::I) -> S::I {
        if SMALL { s.dot_small(sum, w, x) } else { s.dot(sum, w, x) }
    }
    #[inline(always)]
    fn floats(s: S, sum: S::I) -> S::F {
        s.to_f(sum)
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

/// Implements [`Element`] of operands whose sums are floats.
macro_rules! float_sums {
    ($($(#[$doc:meta])* $name:ident: |$s:ident, $sum:ident, $w:ident, $x:ident| $dot:expr;)+) => {$(
        $(#[$doc])*
        pub(super) struct $name;

        impl<S: Simd> Element<S> for $name {
            type Sum = S::F;
            #[inline(always)]
            fn start(s: S, _: i32) -> S::F {
                s.splat(0.0)
            }
            #[inline(always)]
            fn dot($s: S, $sum: S::F, $w: S::I, $x: S::I) -> S::F {
                $dot
            }
            #[inline(always)]
            fn floats(_: S, sum: S::F) -> S::F {
                sum
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
    )+};
}

float_sums! {
    /// Pairs of bf16.
    Halves: |s, sum, w, x| s.dot_bf16(sum, w, x);
    /// Single f32.
    Floats: |s, sum, w, x| s.fma(s.as_f(w), s.as_f(x), sum);
}
