//! Codes of a few bits in 64-byte units: each of the 16 lanes holds 4 bytes of one row, and byte `j` of a lane holds the
//! codes of columns `j, 4 + j, 8 + j, ...` of the unit, so that masking yields quads of 4 consecutive columns.

use crate::simd::{LANES, Simd};

/// Units whose products a sum of [`Codec::multiply`] holds at most.
pub(super) const UNITS: usize = 1024;

/// How `Q` quads of 8-bit codes share the bytes of a unit.
pub(super) trait Codec<const Q: usize>: Copy + Send + Sync + 'static {
    /// Whether all fields are at most 128.
    const SMALL: bool;
    /// The code that means 0; where it is 0, groups have an offset.
    const ZERO: u8;
    /// The largest code.
    const MOST: u8;
    /// The codes of a byte, one per quad: the definition.
    fn unpack(byte: u8) -> [u8; Q];
    /// The byte of `Q` codes.
    fn pack(codes: [u8; Q]) -> u8;
    /// [`Codec::pack`] of each of four bytes.
    #[inline(always)]
    fn pack_quads(quads: [u32; Q]) -> u32 {
        let quads = quads.map(u32::to_le_bytes);
        u32::from_le_bytes(std::array::from_fn(|j| Self::pack(quads.map(|quad| quad[j]))))
    }
    /// Whether no codes give a byte.
    fn is_invalid(_: u8) -> bool {
        false
    }
    /// Each quad's codes, possibly multiplied by a power of two, as [`Codec::combine`] expects them multiplied.
    fn fields<S: Simd>(s: S, unit: S::I) -> [S::I; Q];
    /// Adds the products of one unit and one token; `x(q)` is the token's quad `q` in all lanes.
    #[inline(always)]
    fn multiply<S: Simd>(s: S, unit: S::I, mut sums: [S::I; Q], x: impl Fn(usize) -> S::I) -> [S::I; Q] {
        let fields = Self::fields(s, unit);
        for q in 0..Q {
            sums[q] = match Self::SMALL {
                true => s.dot_small(sums[q], fields[q], x(q)),
                false => s.dot(sums[q], fields[q], x(q)),
            };
        }
        sums
    }
    /// The sum over all quads, from the sums of [`Codec::multiply`] over at most [`UNITS`] units.
    fn combine<S: Simd>(s: S, sums: [S::I; Q]) -> S::I;
    /// Each quad's codes.
    fn codes<S: Simd>(s: S, unit: S::I) -> [S::I; Q];
}

/// Each of the four bytes of the lanes.
#[inline(always)]
pub(super) fn bytes<S: Simd>(s: S, codes: S::I) -> [S::I; 4] {
    let mask = s.splat_i(0xff);
    [s.and(codes, mask), s.and(s.shr::<8>(codes), mask), s.and(s.shr::<16>(codes), mask), s.shr::<24>(codes)]
}

/// One signed byte, stored as `code = value + 128`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Byte;

impl Codec<1> for Byte {
    const SMALL: bool = false;
    const ZERO: u8 = 128;
    const MOST: u8 = 255;
    fn unpack(byte: u8) -> [u8; 1] {
        [byte]
    }
    fn pack(codes: [u8; 1]) -> u8 {
        codes[0]
    }
    #[inline(always)]
    fn fields<S: Simd>(_: S, unit: S::I) -> [S::I; 1] {
        [unit]
    }
    #[inline(always)]
    fn combine<S: Simd>(_: S, sums: [S::I; 1]) -> S::I {
        sums[0]
    }
    #[inline(always)]
    fn codes<S: Simd>(_: S, unit: S::I) -> [S::I; 1] {
        [unit]
    }
}

/// Two codes of four bits, the first in the low half.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nibbles;

impl Codec<2> for Nibbles {
    const SMALL: bool = true;
    const ZERO: u8 = 0;
    const MOST: u8 = 15;
    fn unpack(byte: u8) -> [u8; 2] {
        [byte & 15, byte >> 4]
    }
    fn pack(codes: [u8; 2]) -> u8 {
        codes[0] | (codes[1] << 4)
    }
    #[inline(always)]
    fn fields<S: Simd>(s: S, unit: S::I) -> [S::I; 2] {
        Self::codes(s, unit)
    }
    #[inline(always)]
    fn combine<S: Simd>(s: S, sums: [S::I; 2]) -> S::I {
        s.add_i(sums[0], sums[1])
    }
    #[inline(always)]
    fn codes<S: Simd>(s: S, unit: S::I) -> [S::I; 2] {
        let mask = s.splat_i(0x0f0f_0f0f);
        [s.and(unit, mask), s.and(s.shr::<4>(unit), mask)]
    }
}

/// Four codes of two bits, the first lowest; -1, 0 and 1 as 0, 1 and 2 if `TERNARY`. The fields are masked, not shifted.
#[derive(Clone, Copy, Debug)]
pub(super) struct TwoBits<const TERNARY: bool>;

impl<const TERNARY: bool> Codec<4> for TwoBits<TERNARY> {
    const SMALL: bool = TERNARY; // 2 << 6 = 128, 3 << 6 = 192
    const ZERO: u8 = TERNARY as u8;
    const MOST: u8 = 3 - TERNARY as u8;
    fn unpack(byte: u8) -> [u8; 4] {
        [byte & 3, byte >> 2 & 3, byte >> 4 & 3, byte >> 6]
    }
    fn pack(codes: [u8; 4]) -> u8 {
        codes[0] | (codes[1] << 2) | (codes[2] << 4) | (codes[3] << 6)
    }
    #[inline(always)]
    fn pack_quads(q: [u32; 4]) -> u32 {
        q[0] | (q[1] << 2) | (q[2] << 4) | (q[3] << 6)
    }
    #[inline(always)]
    fn is_invalid(byte: u8) -> bool {
        TERNARY && byte & (byte >> 1) & 0x55 != 0
    }
    #[inline(always)]
    fn fields<S: Simd>(s: S, unit: S::I) -> [S::I; 4] {
        let mask = |m: u8| s.splat_i(i32::from_le_bytes([m; 4]));
        [s.and(unit, mask(0x03)), s.and(unit, mask(0x0c)), s.and(unit, mask(0x30)), s.and(unit, mask(0xc0))]
    }
    #[inline(always)]
    fn combine<S: Simd>(s: S, sums: [S::I; 4]) -> S::I {
        let high = s.add_i(s.sar::<4>(sums[2]), s.sar::<6>(sums[3]));
        s.add_i(s.add_i(sums[0], s.sar::<2>(sums[1])), high)
    }
    #[inline(always)]
    fn codes<S: Simd>(s: S, unit: S::I) -> [S::I; 4] {
        let mask = s.splat_i(0x0303_0303);
        [s.and(unit, mask), s.and(s.shr::<2>(unit), mask), s.and(s.shr::<4>(unit), mask), s.and(s.shr::<6>(unit), mask)]
    }
}

/// Units of a panel for so many columns.
pub(super) fn units<const Q: usize>(cols: usize) -> usize {
    cols.div_ceil(4 * Q)
}

/// Packs codes, `[rows, cols]`, row by row; `fill` stands where there are none.
pub(super) fn pack_matrix<C: Codec<Q>, const Q: usize>(
    rows: usize,
    cols: usize,
    units: usize,
    fill: u8,
    codes: &[u8],
) -> Vec<u8> {
    let panels = rows.div_ceil(LANES);
    let mut out = vec![0u8; panels * units * 64];
    let whole = cols / (4 * Q);
    for (panel, out) in out.chunks_exact_mut(units.max(1) * 64).enumerate() {
        for lane in 0..LANES {
            let row = panel * LANES + lane;
            let codes = if row < rows { &codes[row * cols..][..cols] } else { &[] };
            let (inside, rest) = codes.split_at(if row < rows { whole * 4 * Q } else { 0 });
            let mut units = out.chunks_exact_mut(64).map(|unit| &mut unit[lane * 4..][..4]);
            for (codes, bytes) in inside.chunks_exact(4 * Q).zip(&mut units) {
                let quad = |q: usize| u32::from_le_bytes(codes[4 * q..][..4].try_into().expect("four codes"));
                bytes.copy_from_slice(&C::pack_quads(std::array::from_fn(quad)).to_le_bytes());
            }
            for (i, bytes) in units.enumerate() {
                for (j, byte) in bytes.iter_mut().enumerate() {
                    *byte = C::pack(std::array::from_fn(|q| *rest.get(4 * (i * Q + q) + j).unwrap_or(&fill)));
                }
            }
        }
    }
    out
}

/// The codes of one row, `[cols]`, called one by one.
pub(super) fn unpack_row<C: Codec<Q>, const Q: usize>(
    bytes: &[u8],
    units: usize,
    row: usize,
    cols: usize,
    mut f: impl FnMut(usize, u8),
) {
    let (panel, lane) = (row / LANES, row % LANES);
    for unit in 0..units {
        let at = (panel * units + unit) * 64 + lane * 4;
        for j in 0..4 {
            for (q, code) in C::unpack(bytes[at + j]).into_iter().enumerate() {
                let col = unit * 4 * Q + 4 * q + j;
                if col < cols {
                    f(col, code);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_no_ternary_codes_give_are_invalid() {
        fn invalid<C: Codec<Q>, const Q: usize>(byte: u8) -> bool {
            C::pack(C::unpack(byte)) != byte || C::unpack(byte).iter().any(|code| *code > 2)
        }
        for byte in 0..=255 {
            assert_eq!(TwoBits::<true>::is_invalid(byte), invalid::<TwoBits<true>, 4>(byte), "{byte}");
            assert!(!TwoBits::<false>::is_invalid(byte) && !Nibbles::is_invalid(byte) && !Byte::is_invalid(byte));
        }
    }

    #[test]
    fn all_bytes_of_the_bit_codecs_survive() {
        for byte in 0..=255u8 {
            assert_eq!(TwoBits::<true>::pack(TwoBits::<true>::unpack(byte)), byte);
            assert_eq!(Nibbles::pack(Nibbles::unpack(byte)), byte);
            assert_eq!(Byte::pack(Byte::unpack(byte)), byte);
        }
    }
}
