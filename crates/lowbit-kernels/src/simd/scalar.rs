//! The fallback: arrays of 16, no instruction beyond the baseline.

use super::{LANES, Simd, tiles};

/// No instructions beyond the architecture's baseline.
#[derive(Clone, Copy, Debug)]
pub struct Scalar(());

impl Scalar {
    /// Always sound; unsafe only to have the same shape as the other instruction sets.
    ///
    /// # Safety
    /// None needed.
    #[inline(always)]
    pub unsafe fn new_unchecked() -> Self {
        Scalar(())
    }
}

#[inline(always)]
fn map<A: Copy, B: Copy + Default>(a: [A; LANES], f: impl Fn(A) -> B) -> [B; LANES] {
    a.map(f)
}

#[inline(always)]
fn zip<A: Copy, B>(a: [A; LANES], b: [A; LANES], f: impl Fn(A, A) -> B) -> [B; LANES] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

#[inline(always)]
fn bytes(a: [i32; LANES], b: [i32; LANES], f: impl Fn(u8, u8) -> u8) -> [i32; LANES] {
    zip(a, b, |x, y| {
        let (x, y) = (x.to_le_bytes(), y.to_le_bytes());
        i32::from_le_bytes(std::array::from_fn(|j| f(x[j], y[j])))
    })
}

impl Simd for Scalar {
    type F = [f32; LANES];
    type I = [i32; LANES];
    const ACCUMULATORS: usize = 4;
    const TILE_ROWS: usize = 4;
    const GROUP_ROWS: usize = 2;
    const TILE_PANELS: usize = 1;
    tiles!(1 x 1, 4; 2 x 1, 2; 4 x 1, 2);

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::F {
        // SAFETY: 16 f32 are readable at `p` by the contract, at any alignment.
        unsafe { p.cast::<Self::F>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: Self::F) {
        // SAFETY: 16 f32 are writable at `p` by the contract, at any alignment.
        unsafe { p.cast::<Self::F>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn load_i(self, p: *const u8) -> Self::I {
        // SAFETY: 64 bytes are readable at `p` by the contract, at any alignment.
        map(unsafe { p.cast::<[[u8; 4]; LANES]>().read_unaligned() }, i32::from_le_bytes)
    }
    #[inline(always)]
    unsafe fn store_i(self, p: *mut u8, v: Self::I) {
        // SAFETY: 64 bytes are writable at `p` by the contract, at any alignment.
        unsafe { p.cast::<[[u8; 4]; LANES]>().write_unaligned(map(v, i32::to_le_bytes)) }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> Self::F {
        // SAFETY: 16 halves are readable at `p` by the contract, at any alignment.
        map(unsafe { p.cast::<[u16; LANES]>().read_unaligned() }, |h| half::f16::from_bits(h).to_f32())
    }
    #[inline(always)]
    unsafe fn load_i8(self, p: *const i8) -> Self::I {
        // SAFETY: 16 bytes are readable at `p` by the contract, at any alignment.
        map(unsafe { p.cast::<[i8; LANES]>().read_unaligned() }, i32::from)
    }
    #[inline(always)]
    unsafe fn store_i8(self, p: *mut i8, v: Self::I) {
        // SAFETY: 16 bytes are writable at `p` by the contract, at any alignment.
        unsafe { p.cast::<[i8; LANES]>().write_unaligned(map(v, |x| x as i8)) }
    }
    #[inline(always)]
    fn prefetch(self, _: *const u8) {}

    #[inline(always)]
    fn splat(self, v: f32) -> Self::F {
        [v; LANES]
    }
    #[inline(always)]
    fn splat_i(self, v: i32) -> Self::I {
        [v; LANES]
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |x, y| x + y)
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |x, y| x - y)
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |x, y| x * y)
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |x, y| x / y)
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |x, y| if x > y { x } else { y })
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |x, y| if x < y { x } else { y })
    }
    #[inline(always)]
    fn abs(self, a: Self::F) -> Self::F {
        map(a, f32::abs)
    }
    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        map(a, f32::sqrt)
    }
    #[inline(always)]
    fn round_i(self, a: Self::F) -> Self::I {
        map(a, |x| x.round_ties_even() as i32)
    }
    #[inline(always)]
    fn to_f(self, a: Self::I) -> Self::F {
        map(a, |x| x as f32)
    }
    #[inline(always)]
    fn as_f(self, a: Self::I) -> Self::F {
        map(a, |x| f32::from_bits(x as u32))
    }
    #[inline(always)]
    fn as_i(self, a: Self::F) -> Self::I {
        map(a, |x| x.to_bits() as i32)
    }
    #[inline(always)]
    fn lookup(self, table: Self::F, idx: Self::I) -> Self::F {
        map(idx, |i| table[(i & 15) as usize])
    }

    #[inline(always)]
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I {
        zip(a, b, i32::wrapping_add)
    }
    #[inline(always)]
    fn sub_i(self, a: Self::I, b: Self::I) -> Self::I {
        zip(a, b, i32::wrapping_sub)
    }
    #[inline(always)]
    fn and(self, a: Self::I, b: Self::I) -> Self::I {
        zip(a, b, |x, y| x & y)
    }
    #[inline(always)]
    fn or(self, a: Self::I, b: Self::I) -> Self::I {
        zip(a, b, |x, y| x | y)
    }
    #[inline(always)]
    fn xor(self, a: Self::I, b: Self::I) -> Self::I {
        zip(a, b, |x, y| x ^ y)
    }
    #[inline(always)]
    fn shr<const N: u32>(self, a: Self::I) -> Self::I {
        map(a, |x| ((x as u32) >> N) as i32)
    }
    #[inline(always)]
    fn sar<const N: u32>(self, a: Self::I) -> Self::I {
        map(a, |x| x >> N)
    }
    #[inline(always)]
    fn shl<const N: u32>(self, a: Self::I) -> Self::I {
        map(a, |x| x << N)
    }
    #[inline(always)]
    fn add_b(self, a: Self::I, b: Self::I) -> Self::I {
        bytes(a, b, u8::wrapping_add)
    }
    #[inline(always)]
    fn subs_b(self, a: Self::I, b: Self::I) -> Self::I {
        bytes(a, b, u8::saturating_sub)
    }
    #[inline(always)]
    fn avg_b(self, a: Self::I, b: Self::I) -> Self::I {
        bytes(a, b, |x, y| (x as u16 + y as u16).div_ceil(2) as u8)
    }

    #[inline(always)]
    fn dot(self, acc: Self::I, u: Self::I, s: Self::I) -> Self::I {
        std::array::from_fn(|i| {
            let (u, s) = (u[i].to_le_bytes(), s[i].to_le_bytes());
            (0..4).fold(acc[i], |acc, j| acc.wrapping_add(u[j] as i32 * s[j] as i8 as i32))
        })
    }
}
