//! The few vector operations low-bit kernels need, the same on every instruction set.
//!
//! A vector is always 16 lanes of 32 bits: one AVX-512 register, two of AVX2, four of NEON, an array in the scalar
//! fallback. `I` is 16 x i32 or, seen as bytes, 64 x 8 bits (lane `i` holds bytes `4i..4i+4`, lowest first). A value of a
//! type that implements [`Simd`] proves that the CPU has the instructions.
//!
//! All operations give the same bits on every instruction set: multiply-adds are fused everywhere, reductions follow one
//! fixed tree, rounding is half to even. The one exception is [`Simd::dot_bf16`], where the instruction exists.

#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
pub use neon::{Dotprod, Neon};
pub use scalar::Scalar;
#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512Bf16, Avx512Vnni, AvxVnni};

use std::ops::Range;

/// Lanes of a vector, rows of a weight panel.
pub const LANES: usize = 16;

/// A kernel over a register tile of `T` rows of activations times `P` panels of weights.
pub trait TileOp {
    /// Runs it.
    fn eval<S: Simd, const T: usize, const P: usize>(self, s: S);
}

/// Register tiles that cover some rows of activations: first `large` tiles of `rows` rows, then `small` tiles of two fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    /// Rows of a large tile: 1, or even.
    pub rows: usize,
    /// Number of large tiles.
    pub large: usize,
    /// Number of small tiles.
    pub small: usize,
}

impl Tiling {
    /// The fewest tiles of at most `most` rows for `m` rows, padded by at most one row.
    pub fn new(m: usize, most: usize) -> Self {
        let tiles = m.div_ceil(most).max(1);
        let even = m.div_ceil(tiles);
        let rows = if even <= 2 { even.max(1) } else { even.next_multiple_of(2) };
        let small = if tiles > 1 { (tiles * rows - m) / 2 } else { 0 };
        Tiling { rows, large: tiles - small, small }
    }

    /// Rows of all tiles.
    pub fn covered(&self) -> usize {
        self.large * self.rows + self.small * self.rows.saturating_sub(2)
    }

    /// The rows of one tile.
    #[inline(always)]
    pub fn tile(&self, i: usize) -> Range<usize> {
        let (large, small) = (i.min(self.large), i.saturating_sub(self.large));
        let start = large * self.rows + small * self.rows.saturating_sub(2);
        start..start + if i < self.large { self.rows } else { self.rows - 2 }
    }
}

/// Panels of a register tile: few rows need more panels to keep the multipliers busy.
pub const fn tile_panels<S: Simd>(rows: usize) -> usize {
    match rows {
        1 => 4 * S::TILE_PANELS,
        2 | 4 => 2 * S::TILE_PANELS,
        _ => S::TILE_PANELS,
    }
}

/// Implements [`Simd::tile`] by a match over the sizes that exist.
macro_rules! tiles {
    ($($t:literal x $($p:literal),+);+) => {
        #[inline(always)]
        fn tile<K: $crate::simd::TileOp>(self, rows: usize, panels: usize, kernel: K) {
            match (rows, panels) {
                $($(($t, $p) => kernel.eval::<Self, $t, $p>(self),)+)+
                _ => unreachable!("no register tile of {rows} rows and {panels} panels"),
            }
        }
    };
}
use tiles;

/// Vector operations of one instruction set.
///
/// Pointers may be unaligned. Pointer methods are unsafe: the caller guarantees that the bytes named are inside one
/// allocation (readable, or writable for stores).
#[allow(clippy::missing_safety_doc)] // said once, above, for all of them
pub trait Simd: Copy + Send + Sync + 'static {
    /// 16 x f32.
    type F: Copy;
    /// 16 x i32, or 64 bytes.
    type I: Copy;
    /// Number of 16-lane accumulators that fit the registers.
    const ACCUMULATORS: usize;
    /// Whether decoded weights of a tile fit the registers beside its sums.
    const MANY_REGISTERS: bool = false;
    /// Most activation rows of a register tile.
    const TILE_ROWS: usize;
    /// Most activation rows of a register tile whose sums of a group are added to totals in registers.
    const GROUP_ROWS: usize;
    /// Panels beside each other in a register tile of [`Simd::TILE_ROWS`] rows.
    const TILE_PANELS: usize;
    /// Whether [`Simd::dot`] is one instruction.
    const FAST_DOT: bool = false;
    /// Whether [`Simd::lookup_eight`] is faster than to make floats of integers.
    const FAST_EIGHT: bool = false;
    /// Whether [`Simd::dot_bf16`] is one instruction, so that bf16 products pay.
    const FAST_BF16: bool = false;

    /// Runs a kernel with the register tile of this size; the sizes that exist are those of [`Tiling`] x [`tile_panels`].
    fn tile<K: TileOp>(self, rows: usize, panels: usize, kernel: K);

    /// 16 f32.
    unsafe fn load(self, p: *const f32) -> Self::F;
    /// Stores 16 f32.
    unsafe fn store(self, p: *mut f32, v: Self::F);
    /// 64 bytes.
    unsafe fn load_i(self, p: *const u8) -> Self::I;
    /// Stores 64 bytes.
    unsafe fn store_i(self, p: *mut u8, v: Self::I);
    /// 16 half-precision floats, widened.
    unsafe fn load_f16(self, p: *const u16) -> Self::F;
    /// 16 signed bytes, widened.
    unsafe fn load_i8(self, p: *const i8) -> Self::I;
    /// Stores each lane as a signed byte: 16 bytes. What a lane outside -128..=127 becomes differs between instruction sets.
    unsafe fn store_i8(self, p: *mut i8, v: Self::I);
    /// Asks the cache for the line at `p`; any address is allowed.
    fn prefetch(self, p: *const u8);

    /// The value in all lanes.
    fn splat(self, v: f32) -> Self::F;
    /// The value in all lanes.
    fn splat_i(self, v: i32) -> Self::I;
    /// `a * b + c`, fused.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `a + b`
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a - b`
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b`
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a / b`
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// The larger; `b` when either is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// The smaller; `b` when either is NaN.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// `|a|`
    fn abs(self, a: Self::F) -> Self::F;
    /// Square root.
    fn sqrt(self, a: Self::F) -> Self::F;
    /// Nearest integer, halves to even. What NaN or a lane that does not fit i32 becomes differs between instruction sets.
    fn round_i(self, a: Self::F) -> Self::I;
    /// i32 to f32, rounded to nearest even.
    fn to_f(self, a: Self::I) -> Self::F;
    /// The bits as f32.
    fn as_f(self, a: Self::I) -> Self::F;
    /// The bits as i32.
    fn as_i(self, a: Self::F) -> Self::I;
    /// Lane `i` of the result is lane `idx[i] & 15` of `table`.
    fn lookup(self, table: Self::F, idx: Self::I) -> Self::F;
    /// Lane `i` of the result is lane `idx[i] & 7` of `table`.
    #[inline(always)]
    fn lookup_eight(self, table: Self::F, idx: Self::I) -> Self::F {
        self.lookup(table, self.and(idx, self.splat_i(7)))
    }

    /// `a + b`, wrapping, 32 bits.
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I;
    /// `a - b`, wrapping, 32 bits.
    fn sub_i(self, a: Self::I, b: Self::I) -> Self::I;
    /// `a & b`
    fn and(self, a: Self::I, b: Self::I) -> Self::I;
    /// `a | b`
    fn or(self, a: Self::I, b: Self::I) -> Self::I;
    /// `a ^ b`
    fn xor(self, a: Self::I, b: Self::I) -> Self::I;
    /// Logical shift right of each 32-bit lane.
    fn shr<const N: u32>(self, a: Self::I) -> Self::I;
    /// Arithmetic shift right of each 32-bit lane.
    fn sar<const N: u32>(self, a: Self::I) -> Self::I;
    /// Shift left of each 32-bit lane.
    fn shl<const N: u32>(self, a: Self::I) -> Self::I;
    /// `a + b` of each byte, wrapping.
    fn add_b(self, a: Self::I, b: Self::I) -> Self::I;
    /// `3 a` of each byte, wrapping. Compilers merge a chain of additions into products by 9, 27, .., which cost more: where
    /// they do, they are not let.
    #[inline(always)]
    fn triple_b(self, a: Self::I) -> Self::I {
        self.add_b(a, self.add_b(a, a))
    }
    /// `max(a - b, 0)` of each unsigned byte.
    fn subs_b(self, a: Self::I, b: Self::I) -> Self::I;
    /// `(a + b + 1) >> 1` of each unsigned byte.
    fn avg_b(self, a: Self::I, b: Self::I) -> Self::I;

    /// Lane `i` of the result holds bytes `2i` and `2i + 1` at the places of the two bits that are set in bits `4i..4i + 4` of
    /// `mask`, lowest first, and the bytes of `fill` elsewhere. What other numbers of bits give differs between instruction sets.
    #[inline(always)]
    fn expand_pairs(self, pairs: &[u8; 2 * LANES], mask: u64, fill: Self::I) -> Self::I {
        let mut lanes = [0u32; LANES];
        // SAFETY: the array holds 64 bytes.
        unsafe { self.store_i(lanes.as_mut_ptr().cast(), fill) };
        let halves = [mask as u32, (mask >> 32) as u32];
        for i in 0..LANES {
            // Each bit at the bottom of its byte, so that a product puts a byte there.
            let all = (halves[i / 8] >> (i % 8 * 4) & 15).wrapping_mul(0x0020_4081) & 0x0101_0101;
            let low = all & all.wrapping_neg();
            let (a, b) = (u32::from(pairs[2 * i]), u32::from(pairs[2 * i + 1]));
            let kept = a.wrapping_mul(low) | b.wrapping_mul(all ^ low);
            lanes[i] = lanes[i] & !all.wrapping_mul(0xff) | kept;
        }
        // SAFETY: as above.
        unsafe { self.load_i(lanes.as_ptr().cast()) }
    }

    /// Adds to each lane the sum of four products `u[4i + j] * s[4i + j]`, `u` unsigned and `s` signed bytes. Exact.
    fn dot(self, acc: Self::I, u: Self::I, s: Self::I) -> Self::I;
    /// Like [`Simd::dot`] for `u <= 128` and `s >= -127`, where some instruction sets are faster.
    #[inline(always)]
    fn dot_small(self, acc: Self::I, u: Self::I, s: Self::I) -> Self::I {
        self.dot(acc, u, s)
    }
    /// Adds to each lane the two products of its bf16 pairs (low halves first).
    #[inline(always)]
    fn dot_bf16(self, acc: Self::F, a: Self::I, b: Self::I) -> Self::F {
        let high = self.splat_i(0xffff_0000_u32 as i32);
        let low = self.fma(self.as_f(self.shl::<16>(a)), self.as_f(self.shl::<16>(b)), acc);
        self.fma(self.as_f(self.and(a, high)), self.as_f(self.and(b, high)), low)
    }

    /// Sum of the lanes by a fixed tree: halves 8 + 8, then 4 + 4, 2 + 2, 1 + 1.
    #[inline(always)]
    fn sum(self, v: Self::F) -> f32 {
        let mut lanes = [0.0f32; LANES];
        // SAFETY: the array holds 16 f32.
        unsafe { self.store(lanes.as_mut_ptr(), v) };
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                lanes[i] += lanes[i + width];
            }
            width /= 2;
        }
        lanes[0]
    }

    /// Sum of the lanes, wrapping.
    #[inline(always)]
    fn sum_i(self, v: Self::I) -> i32 {
        let mut lanes = [0i32; LANES];
        // SAFETY: the array holds 64 bytes.
        unsafe { self.store_i(lanes.as_mut_ptr().cast(), v) };
        lanes.iter().fold(0, |sum, lane| sum.wrapping_add(*lane))
    }

    /// Largest lane of magnitudes: none is NaN or has a sign.
    #[inline(always)]
    fn max_magnitude(self, v: Self::F) -> f32 {
        self.max_lane(v)
    }

    /// Largest lane.
    #[inline(always)]
    fn max_lane(self, v: Self::F) -> f32 {
        let mut lanes = [0.0f32; LANES];
        // SAFETY: the array holds 16 f32.
        unsafe { self.store(lanes.as_mut_ptr(), v) };
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                lanes[i] = lanes[i].max(lanes[i + width]);
            }
            width /= 2;
        }
        lanes[0]
    }

    /// Up to 16 f32; missing lanes hold `fill`.
    #[inline(always)]
    fn load_part(self, part: &[f32], fill: f32) -> Self::F {
        if part.len() >= LANES {
            // SAFETY: the slice holds 16 f32.
            return unsafe { self.load(part.as_ptr()) };
        }
        let mut lanes = [fill; LANES];
        lanes[..part.len()].copy_from_slice(part);
        // SAFETY: the array holds 16 f32.
        unsafe { self.load(lanes.as_ptr()) }
    }

    /// Stores the first lanes into up to 16 f32.
    #[inline(always)]
    fn store_part(self, part: &mut [f32], v: Self::F) {
        if part.len() >= LANES {
            // SAFETY: the slice holds 16 f32.
            return unsafe { self.store(part.as_mut_ptr(), v) };
        }
        let mut lanes = [0.0f32; LANES];
        // SAFETY: the array holds 16 f32.
        unsafe { self.store(lanes.as_mut_ptr(), v) };
        part.copy_from_slice(&lanes[..part.len()]);
    }
}
