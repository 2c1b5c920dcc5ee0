//! What the packed operands of a matrix product hold in each 32 bits: an f32, or a pair of bf16.

use crate::Products;
use crate::simd::{LANES, Simd};

/// Numbers that multiply-adds of 32-bit elements take.
pub(crate) trait Element: Copy + Send + Sync + 'static {
    /// Consecutive values of k in one element.
    const VALUES: usize;
    /// Whether an element is a value, unchanged.
    const AS_THEY_ARE: bool = false;
    /// The products of narrow numbers that [`Element::fma`] uses.
    const PRODUCTS: Products = Products::None;
    /// An element of [`Element::VALUES`] values; those beyond the end are 0.
    fn pack(values: [f32; 2]) -> f32;
    /// `acc` and the products of the values of two elements.
    fn fma<S: Simd>(s: S, a: S::F, b: S::F, acc: S::F) -> S::F;

    /// Elements for so many values.
    #[inline(always)]
    fn count(values: usize) -> usize {
        values.div_ceil(Self::VALUES)
    }

    /// Packs consecutive values, the last element padded with 0.
    #[inline(always)]
    fn pack_row(values: &[f32], out: &mut [f32]) {
        if Self::VALUES == 1 {
            return out.iter_mut().zip(values).for_each(|(out, x)| *out = Self::pack([*x, 0.0]));
        }
        let (pairs, rest) = values.as_chunks::<2>();
        out.iter_mut().zip(pairs).for_each(|(out, pair)| *out = Self::pack(*pair));
        if let ([x], Some(out)) = (rest, out.get_mut(pairs.len())) {
            *out = Self::pack([*x, 0.0]);
        }
    }

    /// Packs values of the same k beside those of the next, where there are any.
    #[inline(always)]
    fn pack_across(first: &[f32], second: &[f32], out: &mut [f32]) {
        if Self::VALUES == 1 || second.is_empty() {
            return out.iter_mut().zip(first).for_each(|(out, x)| *out = Self::pack([*x, 0.0]));
        }
        out.iter_mut().zip(first.iter().zip(second)).for_each(|(out, (x, y))| *out = Self::pack([*x, *y]));
    }
}

/// f32, as they are.
#[derive(Clone, Copy)]
pub(crate) struct Single;

impl Element for Single {
    const VALUES: usize = 1;
    const AS_THEY_ARE: bool = true;
    #[inline(always)]
    fn pack([x, _]: [f32; 2]) -> f32 {
        x
    }
    #[inline(always)]
    fn fma<S: Simd>(s: S, a: S::F, b: S::F, acc: S::F) -> S::F {
        s.fma(a, b, acc)
    }
}

/// bf16 held as f32: their products are exact.
#[derive(Clone, Copy)]
pub(crate) struct Rounded;

impl Element for Rounded {
    const VALUES: usize = 1;
    #[inline(always)]
    fn pack([x, _]: [f32; 2]) -> f32 {
        f32::from_bits(bf16(x) & 0xffff_0000)
    }
    #[inline(always)]
    fn fma<S: Simd>(s: S, a: S::F, b: S::F, acc: S::F) -> S::F {
        s.fma(a, b, acc)
    }
}

/// Pairs of bf16, the first value in the low half.
#[derive(Clone, Copy)]
pub(crate) struct Pairs;

impl Element for Pairs {
    const VALUES: usize = 2;
    const PRODUCTS: Products = Products::Bf16;
    #[inline(always)]
    fn pack([x, y]: [f32; 2]) -> f32 {
        f32::from_bits(bf16(x) >> 16 | bf16(y) & 0xffff_0000)
    }
    #[inline(always)]
    fn fma<S: Simd>(s: S, a: S::F, b: S::F, acc: S::F) -> S::F {
        s.dot_bf16(acc, s.as_i(a), s.as_i(b))
    }
}

/// The nearest bf16, ties to even, in the upper half; the lower half is arbitrary. A NaN stays one.
#[inline(always)]
fn bf16(x: f32) -> u32 {
    let bits = x.to_bits();
    if x.is_nan() { bits | 0x0040_0000 } else { bits.wrapping_add(0x7fff + (bits >> 16 & 1)) }
}

/// Packs 16 columns of which each is contiguous in k, of `k` values, as `[count(k)][16]`.
#[inline(always)]
pub(super) fn transpose<E: Element>(columns: [&[f32]; LANES], out: &mut [f32]) {
    let mut block = [[0.0f32; LANES]; LANES];
    for (i, out) in out.chunks_mut(LANES * LANES).enumerate() {
        let start = i * LANES * E::VALUES;
        for (column, block) in columns.iter().zip(&mut block) {
            let values = &column[start..column.len().min(start + LANES * E::VALUES)];
            E::pack_row(values, block);
        }
        for (l, out) in out.chunks_exact_mut(LANES).enumerate() {
            for j in 0..LANES {
                out[j] = block[j][l];
            }
        }
    }
}
