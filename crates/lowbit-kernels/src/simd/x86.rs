//! x86-64: AVX2, AVX-VNNI, AVX-512 with VNNI, AVX-512 with BF16.
//!
//! Two families share their text by macro: pairs of 256-bit registers, and single 512-bit registers.

use super::{Simd, tiles};
use std::arch::asm;
use std::arch::x86_64::*;

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

witness!(Avx2, "AVX2, FMA and F16C.");
witness!(AvxVnni, "AVX2, FMA, F16C and the 256-bit VNNI.");
witness!(Avx512Vnni, "AVX-512 F, BW, VL, DQ and VNNI.");
witness!(Avx512Bf16, "AVX-512 F, BW, VL, DQ, VNNI and BF16.");

/// `acc + dot4(u, s)` with 16-bit products of widened bytes: exact for all inputs.
#[inline(always)]
unsafe fn dot_wide_256(acc: __m256i, u: __m256i, s: __m256i) -> __m256i {
    // SAFETY: called with AVX2 available.
    unsafe {
        let low = _mm256_set1_epi16(0x00ff);
        // Even and odd bytes of u as u16, of s as i16; |u * s| * 2 fits i32.
        let (u0, u1) = (_mm256_and_si256(u, low), _mm256_srli_epi16::<8>(u));
        let (s0, s1) = (_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(s)), _mm256_srai_epi16::<8>(s));
        let sum = _mm256_add_epi32(_mm256_madd_epi16(u0, s0), _mm256_madd_epi16(u1, s1));
        _mm256_add_epi32(acc, sum)
    }
}

/// `acc + dot4(u, s)` with 8-bit multiply-add, exact while `u <= 128` and `s >= -127`: two products stay within i16.
#[inline(always)]
unsafe fn dot_small_256(acc: __m256i, u: __m256i, s: __m256i) -> __m256i {
    // SAFETY: called with AVX2 available.
    unsafe { _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(u, s), _mm256_set1_epi16(1))) }
}

#[inline(always)]
unsafe fn dot_vnni_256(acc: __m256i, u: __m256i, s: __m256i) -> __m256i {
    // SAFETY: called with AVX-VNNI available.
    unsafe { _mm256_dpbusd_avx_epi32(acc, u, s) }
}

/// Identity that the optimizer cannot look through (256 bits).
#[inline]
#[target_feature(enable = "avx2")]
fn unknown_256(mut v: __m256i) -> __m256i {
    // SAFETY: no instruction.
    unsafe { asm!("/* {0} */", inout(ymm_reg) v, options(pure, nomem, nostack, preserves_flags)) }
    v
}

/// Identity that the optimizer cannot look through (512 bits).
#[inline]
#[target_feature(enable = "avx512f")]
fn unknown_512(mut v: __m512i) -> __m512i {
    // SAFETY: no instruction.
    unsafe { asm!("/* {0} */", inout(zmm_reg) v, options(pure, nomem, nostack, preserves_flags)) }
    v
}

/// Evaluates operations on registers alone.
macro_rules! registers {
    ($operations:expr) => {
        // SAFETY: no memory is accessed, and the value of the type, of which these are methods, proves the instructions.
        unsafe { $operations }
    };
}

macro_rules! pair {
    ($name:ident, $fast:literal, $dot:path, $dot_small:path) => {
        impl Simd for $name {
            type F = [__m256; 2];
            type I = [__m256i; 2];
            const ACCUMULATORS: usize = 6;
            const TILE_ROWS: usize = 6;
            const GROUP_ROWS: usize = 2;
            const TILE_PANELS: usize = 1;
            const FAST_DOT: bool = $fast;
            const FAST_EIGHT: bool = true;
            tiles!(1 x 1, 4; 2 x 1, 2; 4 x 1, 2; 6 x 1);

            #[inline(always)]
            unsafe fn load(self, p: *const f32) -> Self::F {
                // SAFETY: 16 f32 are readable at `p` by the contract, at any alignment, and the type proves the instructions.
                unsafe { [_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))] }
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut f32, v: Self::F) {
                // SAFETY: 16 f32 are writable at `p` by the contract, at any alignment, and the type proves the instructions.
                unsafe {
                    _mm256_storeu_ps(p, v[0]);
                    _mm256_storeu_ps(p.add(8), v[1]);
                }
            }
            #[inline(always)]
            unsafe fn load_i(self, p: *const u8) -> Self::I {
                // SAFETY: 64 bytes are readable at `p` by the contract, at any alignment, and the type proves the instructions.
                unsafe { [_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(32).cast())] }
            }
            #[inline(always)]
            unsafe fn store_i(self, p: *mut u8, v: Self::I) {
                // SAFETY: 64 bytes are writable at `p` by the contract, at any alignment, and the type proves the instructions.
                unsafe {
                    _mm256_storeu_si256(p.cast(), v[0]);
                    _mm256_storeu_si256(p.add(32).cast(), v[1]);
                }
            }
            #[inline(always)]
            unsafe fn load_f16(self, p: *const u16) -> Self::F {
                // SAFETY: 16 halves are readable at `p` by the contract, at any alignment, and the type proves the instructions.
                unsafe {
                    [_mm256_cvtph_ps(_mm_loadu_si128(p.cast())), _mm256_cvtph_ps(_mm_loadu_si128(p.add(8).cast()))]
                }
            }
            #[inline(always)]
            unsafe fn load_i8(self, p: *const i8) -> Self::I {
                // SAFETY: 16 bytes are readable at `p` by the contract, at any alignment, and the type proves the instructions.
                unsafe {
                    let bytes = _mm_loadu_si128(p.cast());
                    [_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128::<8>(bytes))]
                }
            }
            #[inline(always)]
            unsafe fn store_i8(self, p: *mut i8, v: Self::I) {
                // SAFETY: 16 bytes are writable at `p` by the contract, at any alignment, and the type proves the instructions.
                unsafe {
                    let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(v[0], v[1]));
                    let (low, high) = (_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
                    _mm_storeu_si128(p.cast(), _mm_packs_epi16(low, high));
                }
            }
            #[inline(always)]
            fn prefetch(self, p: *const u8) {
                // SAFETY: a hint, for which any address will do; the type proves the instruction.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
            }

            #[inline(always)]
            fn splat(self, v: f32) -> Self::F {
                registers!([_mm256_set1_ps(v); 2])
            }
            #[inline(always)]
            fn splat_i(self, v: i32) -> Self::I {
                registers!([_mm256_set1_epi32(v); 2])
            }
            #[inline(always)]
            fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
                registers!([_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])])
            }
            pair!(binary F: add _mm256_add_ps, sub _mm256_sub_ps, mul _mm256_mul_ps, div _mm256_div_ps,
                max _mm256_max_ps, min _mm256_min_ps);
            pair!(binary I: add_i _mm256_add_epi32, sub_i _mm256_sub_epi32, and _mm256_and_si256, or _mm256_or_si256,
                xor _mm256_xor_si256, add_b _mm256_add_epi8, subs_b _mm256_subs_epu8, avg_b _mm256_avg_epu8);
            #[inline(always)]
            fn triple_b(self, a: Self::I) -> Self::I {
                let a = registers!(a.map(|v| unknown_256(v)));
                self.add_b(a, self.add_b(a, a))
            }
            #[inline(always)]
            fn abs(self, a: Self::F) -> Self::F {
                registers!(a.map(|v| _mm256_andnot_ps(_mm256_set1_ps(-0.0), v)))
            }
            #[inline(always)]
            fn sqrt(self, a: Self::F) -> Self::F {
                registers!([_mm256_sqrt_ps(a[0]), _mm256_sqrt_ps(a[1])])
            }
            #[inline(always)]
            fn round_i(self, a: Self::F) -> Self::I {
                registers!([_mm256_cvtps_epi32(a[0]), _mm256_cvtps_epi32(a[1])])
            }
            #[inline(always)]
            fn to_f(self, a: Self::I) -> Self::F {
                registers!([_mm256_cvtepi32_ps(a[0]), _mm256_cvtepi32_ps(a[1])])
            }
            #[inline(always)]
            fn as_f(self, a: Self::I) -> Self::F {
                registers!([_mm256_castsi256_ps(a[0]), _mm256_castsi256_ps(a[1])])
            }
            #[inline(always)]
            fn as_i(self, a: Self::F) -> Self::I {
                registers!([_mm256_castps_si256(a[0]), _mm256_castps_si256(a[1])])
            }
            #[inline(always)]
            fn lookup(self, table: Self::F, idx: Self::I) -> Self::F {
                registers!({
                    idx.map(|i| {
                        let low = _mm256_permutevar8x32_ps(table[0], i);
                        let high = _mm256_permutevar8x32_ps(table[1], i);
                        // Bit 3 of the index becomes the sign bit that selects the half.
                        _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(i)))
                    })
                })
            }

            #[inline(always)]
            fn lookup_eight(self, table: Self::F, idx: Self::I) -> Self::F {
                let eight = table[0];
                registers!([_mm256_permutevar8x32_ps(eight, idx[0]), _mm256_permutevar8x32_ps(eight, idx[1])])
            }
            #[inline(always)]
            fn shr<const N: u32>(self, a: Self::I) -> Self::I {
                registers!(a.map(|v| _mm256_srl_epi32(v, _mm_cvtsi32_si128(N as i32))))
            }
            #[inline(always)]
            fn sar<const N: u32>(self, a: Self::I) -> Self::I {
                registers!(a.map(|v| _mm256_sra_epi32(v, _mm_cvtsi32_si128(N as i32))))
            }
            #[inline(always)]
            fn shl<const N: u32>(self, a: Self::I) -> Self::I {
                registers!(a.map(|v| _mm256_sll_epi32(v, _mm_cvtsi32_si128(N as i32))))
            }

            #[inline(always)]
            fn dot(self, acc: Self::I, u: Self::I, s: Self::I) -> Self::I {
                registers!([$dot(acc[0], u[0], s[0]), $dot(acc[1], u[1], s[1])])
            }
            #[inline(always)]
            fn dot_small(self, acc: Self::I, u: Self::I, s: Self::I) -> Self::I {
                registers!([$dot_small(acc[0], u[0], s[0]), $dot_small(acc[1], u[1], s[1])])
            }
        }
    };
    (binary $ty:ident: $($method:ident $intrinsic:ident),*) => {
        $(#[inline(always)]
        fn $method(self, a: Self::$ty, b: Self::$ty) -> Self::$ty {
            registers!([$intrinsic(a[0], b[0]), $intrinsic(a[1], b[1])])
        })*
    };
}

pair!(Avx2, false, dot_wide_256, dot_small_256);
pair!(AvxVnni, true, dot_vnni_256, dot_vnni_256);

macro_rules! single {
    ($name:ident { $($extra:item)* }) => {
        impl Simd for $name {
            type F = __m512;
            type I = __m512i;
            const ACCUMULATORS: usize = 28;
            const MANY_REGISTERS: bool = true;
            const TILE_ROWS: usize = 14;
            const GROUP_ROWS: usize = 6;
            const TILE_PANELS: usize = 2;
            const FAST_DOT: bool = true;
            tiles!(1 x 1, 8; 2 x 1, 2, 4; 4 x 1, 2, 4; 6 x 1, 2; 8 x 1, 2; 10 x 1, 2; 12 x 1, 2; 14 x 1, 2);

            #[inline(always)]
            fn sum_i(self, v: Self::I) -> i32 {
                registers!(_mm512_reduce_add_epi32(v))
            }
            #[inline(always)]
            fn expand_pairs(self, pairs: &[u8; 32], mask: u64, fill: __m512i) -> __m512i {
                let low = mask & !mask.wrapping_sub(0x1111_1111_1111_1111);
                // SAFETY: 32 bytes are read; the type proves the instructions.
                unsafe {
                    let pairs = _mm512_cvtepu16_epi32(_mm256_loadu_si256(pairs.as_ptr().cast()));
                    // The lowest byte of each lane, and the one above it.
                    let first = _mm512_set4_epi32(0x0c0c_0c0c, 0x0808_0808, 0x0404_0404, 0);
                    let second = _mm512_set4_epi32(0x0d0d_0d0d, 0x0909_0909, 0x0505_0505, 0x0101_0101);
                    let kept = _mm512_mask_shuffle_epi8(fill, low, pairs, first);
                    _mm512_mask_shuffle_epi8(kept, mask ^ low, pairs, second)
                }
            }
            #[inline(always)]
            fn max_magnitude(self, v: Self::F) -> f32 {
                registers!(_mm512_reduce_max_ps(v))
            }
            $($extra)*

            #[inline(always)]
            unsafe fn load(self, p: *const f32) -> __m512 {
                // SAFETY: 16 f32 are readable at `p` by the contract, at any alignment, and the type proves the instructions.
                unsafe { _mm512_loadu_ps(p) }
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut f32, v: __m512) {
                // SAFETY: 16 f32 are writable at `p` by the contract, at any alignment, and the type proves the instructions.
                unsafe { _mm512_storeu_ps(p, v) }
            }
            #[inline(always)]
            unsafe fn load_i(self, p: *const u8) -> __m512i {
                // SAFETY: 64 bytes are readable at `p` by the contract, at any alignment, and the type proves the instructions.
                unsafe { _mm512_loadu_si512(p.cast()) }
            }
            #[inline(always)]
            unsafe fn store_i(self, p: *mut u8, v: __m512i) {
                // SAFETY: 64 bytes are writable at `p` by the contract, at any alignment, and the type proves the instructions.
                unsafe { _mm512_storeu_si512(p.cast(), v) }
            }
            #[inline(always)]
            unsafe fn load_f16(self, p: *const u16) -> __m512 {
                // SAFETY: 16 halves are readable at `p` by the contract, at any alignment, and the type proves the instructions.
                unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
            }
            #[inline(always)]
            unsafe fn load_i8(self, p: *const i8) -> __m512i {
                // SAFETY: 16 bytes are readable at `p` by the contract, at any alignment, and the type proves the instructions.
                unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast())) }
            }
            #[inline(always)]
            unsafe fn store_i8(self, p: *mut i8, v: __m512i) {
                // SAFETY: 16 bytes are writable at `p` by the contract, at any alignment, and the type proves the instructions.
                unsafe { _mm_storeu_si128(p.cast(), _mm512_cvtepi32_epi8(v)) }
            }
            #[inline(always)]
            fn prefetch(self, p: *const u8) {
                // SAFETY: a hint, for which any address will do; the type proves the instruction.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
            }

            #[inline(always)]
            fn splat(self, v: f32) -> __m512 {
                registers!(_mm512_set1_ps(v))
            }
            #[inline(always)]
            fn splat_i(self, v: i32) -> __m512i {
                registers!(_mm512_set1_epi32(v))
            }
            #[inline(always)]
            fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
                registers!(_mm512_fmadd_ps(a, b, c))
            }
            single!(binary __m512: add _mm512_add_ps, sub _mm512_sub_ps, mul _mm512_mul_ps, div _mm512_div_ps,
                max _mm512_max_ps, min _mm512_min_ps);
            single!(binary __m512i: add_i _mm512_add_epi32, sub_i _mm512_sub_epi32, and _mm512_and_si512,
                or _mm512_or_si512, xor _mm512_xor_si512, add_b _mm512_add_epi8, subs_b _mm512_subs_epu8, avg_b _mm512_avg_epu8);
            #[inline(always)]
            fn triple_b(self, a: __m512i) -> __m512i {
                let a = registers!(unknown_512(a));
                self.add_b(a, self.add_b(a, a))
            }
            #[inline(always)]
            fn abs(self, a: __m512) -> __m512 {
                registers!(_mm512_abs_ps(a))
            }
            #[inline(always)]
            fn sqrt(self, a: __m512) -> __m512 {
                registers!(_mm512_sqrt_ps(a))
            }
            #[inline(always)]
            fn round_i(self, a: __m512) -> __m512i {
                registers!(_mm512_cvtps_epi32(a))
            }
            #[inline(always)]
            fn to_f(self, a: __m512i) -> __m512 {
                registers!(_mm512_cvtepi32_ps(a))
            }
            #[inline(always)]
            fn as_f(self, a: __m512i) -> __m512 {
                registers!(_mm512_castsi512_ps(a))
            }
            #[inline(always)]
            fn as_i(self, a: __m512) -> __m512i {
                registers!(_mm512_castps_si512(a))
            }
            #[inline(always)]
            fn lookup(self, table: __m512, idx: __m512i) -> __m512 {
                registers!(_mm512_permutexvar_ps(idx, table))
            }

            #[inline(always)]
            fn shr<const N: u32>(self, a: __m512i) -> __m512i {
                registers!(_mm512_srli_epi32::<N>(a))
            }
            #[inline(always)]
            fn sar<const N: u32>(self, a: __m512i) -> __m512i {
                registers!(_mm512_srai_epi32::<N>(a))
            }
            #[inline(always)]
            fn shl<const N: u32>(self, a: __m512i) -> __m512i {
                registers!(_mm512_slli_epi32::<N>(a))
            }
            #[inline(always)]
            fn dot(self, acc: __m512i, u: __m512i, s: __m512i) -> __m512i {
                registers!(_mm512_dpbusd_epi32(acc, u, s))
            }
        }
    };
    (binary $ty:ty: $($method:ident $intrinsic:ident),*) => {
        $(#[inline(always)]
        fn $method(self, a: $ty, b: $ty) -> $ty {
            registers!($intrinsic(a, b))
        })*
    };
}

single!(Avx512Vnni {});
single!(Avx512Bf16 {
    const FAST_BF16: bool = true;
    #[inline(always)]
    fn dot_bf16(self, acc: __m512, a: __m512i, b: __m512i) -> __m512 {
        registers!(_mm512_dpbf16_ps(acc, std::mem::transmute::<__m512i, __m512bh>(a), std::mem::transmute::<__m512i, __m512bh>(b)))
    }
});
