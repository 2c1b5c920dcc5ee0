//! AArch64: NEON, which every such CPU has, and the dot products of ARMv8.2.
//!
//! A vector is four 128-bit registers. Both instruction sets share their text by macro.

use super::{Simd, tiles};
use std::arch::aarch64::*;
use std::arch::asm;
use std::array::from_fn;

macro_rules! witness {
    ($name:ident, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, Debug)]
        pub struct $name(());

        impl $name {
            /// # Safety
            /// The CPU must have the instruction set.
            #[inline(always)]
            pub unsafe fn new_unchecked() -> Self {
                $name(())
            }
        }
    };
}

witness!(Neon, "NEON, the baseline of AArch64.");
witness!(Dotprod, "NEON and the signed dot product SDOT.");

/// `acc + dot4(u, s)` with 16-bit operands and 32-bit products: exact for all inputs.
#[inline(always)]
fn dot_wide(acc: int32x4_t, u: int32x4_t, s: int32x4_t) -> int32x4_t {
    // SAFETY: NEON is the baseline.
    unsafe {
        let (u, s) = (vreinterpretq_u8_s32(u), vreinterpretq_s8_s32(s));
        let u = [vmovl_u8(vget_low_u8(u)), vmovl_high_u8(u)].map(|v| vreinterpretq_s16_u16(v));
        let s = [vmovl_s8(vget_low_s8(s)), vmovl_high_s8(s)];
        // The four products of each lane: lanes 0 and 1, then 2 and 3.
        let [low, high] = from_fn(|i| {
            let first = vmull_s16(vget_low_s16(u[i]), vget_low_s16(s[i]));
            vpaddq_s32(first, vmull_high_s16(u[i], s[i]))
        });
        vaddq_s32(acc, vpaddq_s32(low, high))
    }
}

/// `acc + dot4(u, s)` with 8-bit operands, exact while `u <= 128` and `s >= -127`: `-u` fits i8, two products stay within i16.
#[inline(always)]
fn dot_wide_small(acc: int32x4_t, u: int32x4_t, s: int32x4_t) -> int32x4_t {
    // SAFETY: NEON is the baseline.
    unsafe {
        let (minus_u, s) = (vnegq_s8(vreinterpretq_s8_s32(u)), vreinterpretq_s8_s32(s));
        let low = vmull_s8(vget_low_s8(minus_u), vget_low_s8(s));
        let minus = vpaddq_s16(low, vmull_high_s8(minus_u, s));
        vsubq_s32(acc, vpaddlq_s16(minus))
    }
}

/// `acc + dot4(a, b)`, both signed.
#[inline]
#[target_feature(enable = "dotprod")]
fn sdot(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: one instruction on registers, available as the attribute says.
    unsafe {
        asm!("sdot {acc:v}.4s, {a:v}.16b, {b:v}.16b", acc = inout(vreg) acc, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    acc
}

/// `acc + dot4(u, s)` as `dot4(u - 128, s) + 2 dot4(64, s)`: exact for all inputs.
///
/// # Safety
/// The CPU must have SDOT.
#[inline(always)]
unsafe fn dot_signed(acc: int32x4_t, u: int32x4_t, s: int32x4_t) -> int32x4_t {
    // SAFETY: by the contract.
    unsafe {
        let (s, half) = (vreinterpretq_s8_s32(s), vdupq_n_s8(64));
        let shifted = veorq_s8(vreinterpretq_s8_s32(u), vdupq_n_s8(i8::MIN));
        sdot(sdot(sdot(acc, shifted, s), half, s), half, s)
    }
}

/// `acc + dot4(u, s)`, exact while `u <= 128`: `-u` fits i8.
///
/// # Safety
/// The CPU has the dot product instructions.
#[inline(always)]
unsafe fn dot_signed_small(acc: int32x4_t, u: int32x4_t, s: int32x4_t) -> int32x4_t {
    // SAFETY: by the contract.
    unsafe {
        let minus_u = vnegq_s8(vreinterpretq_s8_s32(u));
        vsubq_s32(acc, sdot(vdupq_n_s32(0), minus_u, vreinterpretq_s8_s32(s)))
    }
}

/// Four half-precision floats in the low half of `v`, widened.
#[inline(always)]
fn widen_low(v: uint16x8_t) -> float32x4_t {
    let out: float32x4_t;
    // SAFETY: one baseline instruction on registers.
    unsafe {
        asm!("fcvtl {out:v}.4s, {v:v}.4h", out = lateout(vreg) out, v = in(vreg) v,
            options(pure, nomem, nostack, preserves_flags));
    }
    out
}

/// Four half-precision floats in the high half of `v`, widened.
#[inline(always)]
fn widen_high(v: uint16x8_t) -> float32x4_t {
    let out: float32x4_t;
    // SAFETY: one baseline instruction on registers.
    unsafe {
        asm!("fcvtl2 {out:v}.4s, {v:v}.8h", out = lateout(vreg) out, v = in(vreg) v,
            options(pure, nomem, nostack, preserves_flags));
    }
    out
}

/// Functions of two vectors.
macro_rules! functions {
    ($($name:ident($a:ident, $b:ident: $ty:ty) $body:expr;)*) => {$(
        #[inline(always)]
        fn $name($a: $ty, $b: $ty) -> $ty {
            // SAFETY: NEON is the baseline.
            unsafe { $body }
        }
    )*};
}

functions! {
    add_bytes(a, b: int32x4_t) vreinterpretq_s32_u8(vaddq_u8(vreinterpretq_u8_s32(a), vreinterpretq_u8_s32(b)));
    subtract_bytes(a, b: int32x4_t) vreinterpretq_s32_u8(vqsubq_u8(vreinterpretq_u8_s32(a), vreinterpretq_u8_s32(b)));
    average_bytes(a, b: int32x4_t) vreinterpretq_s32_u8(vrhaddq_u8(vreinterpretq_u8_s32(a), vreinterpretq_u8_s32(b)));
    // `fmax` and `fmin` yield NaN when `a` is NaN; these yield `b`.
    larger(a, b: float32x4_t) vbslq_f32(vcgtq_f32(a, b), a, b);
    smaller(a, b: float32x4_t) vbslq_f32(vcltq_f32(a, b), a, b);
}

/// Evaluates operations on registers alone.
macro_rules! registers {
    ($operations:expr) => {
        // SAFETY: no memory is accessed, and the value of the type, of which these are methods, proves the instructions.
        unsafe { $operations }
    };
}

macro_rules! quad {
    ($name:ident, $dot:path, $dot_small:path) => {
        #[allow(unused_unsafe)] // some of the functions named are safe
        impl Simd for $name {
            type F = [float32x4_t; 4];
            type I = [int32x4_t; 4];
            const ACCUMULATORS: usize = 6;
            const TILE_ROWS: usize = 6;
            const GROUP_ROWS: usize = 2;
            const TILE_PANELS: usize = 1;
            tiles!(1 x 1, 4; 2 x 1, 2; 4 x 1, 2; 6 x 1);

            #[inline(always)]
            unsafe fn load(self, p: *const f32) -> Self::F {
                // SAFETY: 16 f32 are readable at `p` by the contract, at any alignment, and the type proves the instructions.
                unsafe { p.cast::<Self::F>().read_unaligned() }
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut f32, v: Self::F) {
                // SAFETY: 16 f32 are writable at `p` by the contract, at any alignment, and the type proves the instructions.
                unsafe { p.cast::<Self::F>().write_unaligned(v) }
            }
            #[inline(always)]
            unsafe fn load_i(self, p: *const u8) -> Self::I {
                // SAFETY: 64 bytes are readable at `p` by the contract, at any alignment, and the type proves the instructions.
                unsafe { p.cast::<Self::I>().read_unaligned() }
            }
            #[inline(always)]
            unsafe fn store_i(self, p: *mut u8, v: Self::I) {
                // SAFETY: 64 bytes are writable at `p` by the contract, at any alignment, and the type proves the instructions.
                unsafe { p.cast::<Self::I>().write_unaligned(v) }
            }
            #[inline(always)]
            unsafe fn load_f16(self, p: *const u16) -> Self::F {
                // SAFETY: 16 halves are readable at `p` by the contract, at any alignment, and the type proves the instructions.
                let [a, b] = unsafe { p.cast::<[uint16x8_t; 2]>().read_unaligned() };
                [widen_low(a), widen_high(a), widen_low(b), widen_high(b)]
            }
            #[inline(always)]
            unsafe fn load_i8(self, p: *const i8) -> Self::I {
                // SAFETY: 16 bytes are readable at `p` by the contract, at any alignment, and the type proves the instructions.
                unsafe {
                    let bytes = p.cast::<int8x16_t>().read_unaligned();
                    let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
                    [vget_low_s16(low), vget_high_s16(low), vget_low_s16(high), vget_high_s16(high)].map(|v| vmovl_s16(v))
                }
            }
            #[inline(always)]
            unsafe fn store_i8(self, p: *mut i8, v: Self::I) {
                // SAFETY: 16 bytes are writable at `p` by the contract, at any alignment, and the type proves the instructions.
                unsafe {
                    let [low, high] =
                        from_fn(|i| vmovn_s16(vcombine_s16(vmovn_s32(v[2 * i]), vmovn_s32(v[2 * i + 1]))));
                    p.cast::<int8x16_t>().write_unaligned(vcombine_s8(low, high))
                }
            }
            #[inline(always)]
            fn prefetch(self, p: *const u8) {
                // SAFETY: a hint, for which any address will do; the type proves the instruction.
                unsafe { asm!("prfm pldl1keep, [{p}]", p = in(reg) p, options(readonly, nostack, preserves_flags)) }
            }

            #[inline(always)]
            fn splat(self, v: f32) -> Self::F {
                registers!([vdupq_n_f32(v); 4])
            }
            #[inline(always)]
            fn splat_i(self, v: i32) -> Self::I {
                registers!([vdupq_n_s32(v); 4])
            }
            #[inline(always)]
            fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
                from_fn(|i| registers!(vfmaq_f32(c[i], a[i], b[i])))
            }
            quad!(binary F: add vaddq_f32, sub vsubq_f32, mul vmulq_f32, div vdivq_f32, max larger, min smaller);
            quad!(binary I: add_i vaddq_s32, sub_i vsubq_s32, and vandq_s32, or vorrq_s32, xor veorq_s32,
                add_b add_bytes, subs_b subtract_bytes, avg_b average_bytes);
            quad!(unary F F: abs vabsq_f32, sqrt vsqrtq_f32);
            quad!(unary F I: round_i vcvtnq_s32_f32, as_i vreinterpretq_s32_f32);
            quad!(unary I F: to_f vcvtq_f32_s32, as_f vreinterpretq_f32_s32);

            #[inline(always)]
            fn lookup(self, table: Self::F, idx: Self::I) -> Self::F {
                registers!({
                    let [a, b, c, d] = table.map(|v| vreinterpretq_u8_f32(v));
                    idx.map(|i| {
                        // Byte j of a lane asks for byte 4 i + j of the table.
                        let i = vandq_s32(i, vdupq_n_s32(15));
                        let at = vmlaq_s32(vdupq_n_s32(0x0302_0100), i, vdupq_n_s32(0x0404_0404));
                        vreinterpretq_f32_u8(vqtbl4q_u8(uint8x16x4_t(a, b, c, d), vreinterpretq_u8_s32(at)))
                    })
                })
            }

            #[inline(always)]
            fn shr<const N: u32>(self, a: Self::I) -> Self::I {
                registers!({
                    let right = vdupq_n_s32(-(N as i32));
                    a.map(|v| vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(v), right)))
                })
            }
            #[inline(always)]
            fn sar<const N: u32>(self, a: Self::I) -> Self::I {
                registers!(a.map(|v| vshlq_s32(v, vdupq_n_s32(-(N as i32)))))
            }
            #[inline(always)]
            fn shl<const N: u32>(self, a: Self::I) -> Self::I {
                registers!(a.map(|v| vshlq_s32(v, vdupq_n_s32(N as i32))))
            }

            #[inline(always)]
            fn dot(self, acc: Self::I, u: Self::I, s: Self::I) -> Self::I {
                from_fn(|i| registers!($dot(acc[i], u[i], s[i])))
            }
            #[inline(always)]
            fn dot_small(self, acc: Self::I, u: Self::I, s: Self::I) -> Self::I {
                from_fn(|i| registers!($dot_small(acc[i], u[i], s[i])))
            }
        }
    };
    (binary $ty:ident: $($method:ident $function:ident),*) => {
        $(#[inline(always)]
        fn $method(self, a: Self::$ty, b: Self::$ty) -> Self::$ty {
            from_fn(|i| registers!($function(a[i], b[i])))
        })*
    };
    (unary $from:ident $to:ident: $($method:ident $function:ident),*) => {
        $(#[inline(always)]
        fn $method(self, a: Self::$from) -> Self::$to {
            a.map(|v| registers!($function(v)))
        })*
    };
}

quad!(Neon, dot_wide, dot_wide_small);
quad!(Dotprod, dot_signed, dot_signed_small);
