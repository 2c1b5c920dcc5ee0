//! Codes of 2, 3, 4, 5, 6 or 8 bits in blocks of 32 columns of 16 rows: units of 64 bytes, as many as a code has bits.
//!
//! A low plane of 2, 4 or 8 bits comes first; 3, 5 and 6 bits have a high plane of 1 or 2 more. Each of the 16 lanes of a unit holds
//! 4 bytes of one row, and byte `j` of a lane holds the bits of columns `j, 4 + j, 8 + j, ...`, lowest first: masks yield quads of 4
//! consecutive columns.

use crate::activations::BLOCK;
use crate::simd::{LANES, Simd};

/// Quads of a block.
pub(super) const QUADS: usize = BLOCK / 4;

/// Bits of the low plane.
const fn low(bits: usize) -> usize {
    match bits {
        2 | 3 => 2,
        4..8 => 4,
        _ => 8,
    }
}

/// Unit and shift of the bits of a quad in a plane of so many bits.
fn place(plane: usize, quad: usize) -> (usize, usize) {
    (quad * plane / 8, quad * plane % 8)
}

/// The codes of one row of a block: the definition.
pub(super) fn get<const B: usize>(block: &[u8], lane: usize) -> [u8; BLOCK] {
    std::array::from_fn(|col| {
        let bits = |first: usize, plane: usize| {
            let (unit, shift) = place(plane, col / 4);
            u16::from(block[(first + unit) * 64 + lane * 4 + col % 4] >> shift) & ((1 << plane) - 1)
        };
        let low = low(B);
        (bits(0, low) | if B > low { bits(low, B - low) << low } else { 0 }) as u8
    })
}

/// Stores the codes of one row of a block, whose bytes are 0; codes that are missing are 0.
pub(super) fn put<const B: usize>(block: &mut [u8], lane: usize, codes: &[u8]) {
    let low = low(B);
    for (col, code) in codes.iter().enumerate() {
        let mut bits = |first: usize, plane: usize, code: u8| {
            let (unit, shift) = place(plane, col / 4);
            block[(first + unit) * 64 + lane * 4 + col % 4] |= code << shift;
        };
        bits(0, low, code & (((1u16 << low) - 1) as u8));
        if B > low {
            bits(low, B - low, code >> low);
        }
    }
}

/// The quads of a block.
///
/// # Safety
/// `block` points to `64 B` bytes.
#[inline(always)]
pub(super) unsafe fn quads<S: Simd, const B: usize>(s: S, block: *const u8) -> [S::I; QUADS] {
    // SAFETY: by the contract.
    unsafe {
        let unit = |i: usize| s.load_i(block.add(i * 64));
        match B {
            2 => crumbs(s, [unit(0), unit(1)]),
            3 => join(s, crumbs(s, [unit(0), unit(1)]), third_bits(s, unit(2))),
            4 => nibbles(s, [unit(0), unit(1), unit(2), unit(3)]),
            5 => join(s, nibbles(s, [unit(0), unit(1), unit(2), unit(3)]), fifth_bits(s, unit(4))),
            6 => join(s, nibbles(s, [unit(0), unit(1), unit(2), unit(3)]), upper_crumbs(s, [unit(4), unit(5)])),
            _ => [unit(0), unit(1), unit(2), unit(3), unit(4), unit(5), unit(6), unit(7)],
        }
    }
}

/// A byte in all places.
#[inline(always)]
fn mask<S: Simd>(s: S, byte: u8) -> S::I {
    s.splat_i(i32::from_le_bytes([byte; 4]))
}

#[inline(always)]
fn nibbles<S: Simd>(s: S, [a, b, c, d]: [S::I; 4]) -> [S::I; QUADS] {
    let mask = mask(s, 0x0f);
    [
        s.and(a, mask),
        s.and(s.shr::<4>(a), mask),
        s.and(b, mask),
        s.and(s.shr::<4>(b), mask),
        s.and(c, mask),
        s.and(s.shr::<4>(c), mask),
        s.and(d, mask),
        s.and(s.shr::<4>(d), mask),
    ]
}

#[inline(always)]
fn crumbs<S: Simd>(s: S, [a, b]: [S::I; 2]) -> [S::I; QUADS] {
    let mask = mask(s, 3);
    [
        s.and(a, mask),
        s.and(s.shr::<2>(a), mask),
        s.and(s.shr::<4>(a), mask),
        s.and(s.shr::<6>(a), mask),
        s.and(b, mask),
        s.and(s.shr::<2>(b), mask),
        s.and(s.shr::<4>(b), mask),
        s.and(s.shr::<6>(b), mask),
    ]
}

/// Bits 4 and 5 of the codes.
#[inline(always)]
fn upper_crumbs<S: Simd>(s: S, [a, b]: [S::I; 2]) -> [S::I; QUADS] {
    let mask = mask(s, 0x30);
    [
        s.and(s.shl::<4>(a), mask),
        s.and(s.shl::<2>(a), mask),
        s.and(a, mask),
        s.and(s.shr::<2>(a), mask),
        s.and(s.shl::<4>(b), mask),
        s.and(s.shl::<2>(b), mask),
        s.and(b, mask),
        s.and(s.shr::<2>(b), mask),
    ]
}

/// Bit 2 of the codes.
#[inline(always)]
fn third_bits<S: Simd>(s: S, v: S::I) -> [S::I; QUADS] {
    let mask = mask(s, 4);
    [
        s.and(s.shl::<2>(v), mask),
        s.and(s.shl::<1>(v), mask),
        s.and(v, mask),
        s.and(s.shr::<1>(v), mask),
        s.and(s.shr::<2>(v), mask),
        s.and(s.shr::<3>(v), mask),
        s.and(s.shr::<4>(v), mask),
        s.and(s.shr::<5>(v), mask),
    ]
}

/// Bit 4 of the codes.
#[inline(always)]
fn fifth_bits<S: Simd>(s: S, v: S::I) -> [S::I; QUADS] {
    let mask = mask(s, 0x10);
    [
        s.and(s.shl::<4>(v), mask),
        s.and(s.shl::<3>(v), mask),
        s.and(s.shl::<2>(v), mask),
        s.and(s.shl::<1>(v), mask),
        s.and(v, mask),
        s.and(s.shr::<1>(v), mask),
        s.and(s.shr::<2>(v), mask),
        s.and(s.shr::<3>(v), mask),
    ]
}

#[inline(always)]
fn join<S: Simd>(s: S, mut low: [S::I; QUADS], high: [S::I; QUADS]) -> [S::I; QUADS] {
    for q in 0..QUADS {
        low[q] = s.or(low[q], high[q]);
    }
    low
}

/// Codes as floats, minus the code that means 0.
#[derive(Clone, Copy)]
pub(super) struct Levels<S: Simd> {
    /// Of each code of up to 4 bits.
    table: S::F,
    /// What is added to each byte of more bits.
    shift: S::I,
    centred: bool,
}

impl<S: Simd> Levels<S> {
    #[inline(always)]
    pub fn new(s: S, zero: Option<u8>) -> Self {
        let zero = zero.unwrap_or(0);
        let mut table = [0.0; LANES];
        for (code, level) in table.iter_mut().enumerate() {
            *level = code as f32 - f32::from(zero);
        }
        Levels { table: s.load_part(&table, 0.0), shift: mask(s, zero.wrapping_neg()), centred: zero != 0 }
    }

    /// The four columns of a quad of codes of `B` bits.
    #[inline(always)]
    pub fn of<const B: usize>(&self, s: S, quad: S::I) -> [S::F; 4] {
        let [a, b, c, d] = [quad, s.shr::<8>(quad), s.shr::<16>(quad), s.shr::<24>(quad)];
        let table = self.table;
        if B <= 4 && S::MANY_REGISTERS {
            return [s.lookup(table, a), s.lookup(table, b), s.lookup(table, c), s.lookup(table, d)];
        }
        if B <= 3 && S::FAST_EIGHT {
            return [
                s.lookup_eight(table, a),
                s.lookup_eight(table, b),
                s.lookup_eight(table, c),
                s.lookup_eight(table, d),
            ];
        }
        let v = if self.centred { s.add_b(quad, self.shift) } else { quad };
        [
            s.to_f(s.sar::<24>(s.shl::<24>(v))),
            s.to_f(s.sar::<24>(s.shl::<16>(v))),
            s.to_f(s.sar::<24>(s.shl::<8>(v))),
            s.to_f(s.sar::<24>(v)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Isa, Op};

    struct Read<'a, const B: usize>(&'a [u8], Option<u8>);

    impl<const B: usize> Op for Read<'_, B> {
        type Out = ([[u32; LANES]; QUADS], [[f32; LANES]; BLOCK]);
        #[inline(always)]
        fn eval<S: Simd>(self, s: S) -> Self::Out {
            assert_eq!(self.0.len(), B * 64);
            let mut out = ([[0; LANES]; QUADS], [[0.0; LANES]; BLOCK]);
            // SAFETY: a block, as just checked; each array holds 64 bytes.
            unsafe {
                for (q, quad) in quads::<S, B>(s, self.0.as_ptr()).into_iter().enumerate() {
                    s.store_i(out.0[q].as_mut_ptr().cast(), quad);
                    for (j, column) in Levels::new(s, self.1).of::<B>(s, quad).into_iter().enumerate() {
                        s.store(out.1[q * 4 + j].as_mut_ptr(), column);
                    }
                }
            }
            out
        }
    }

    fn check<const B: usize>() {
        let code = |lane: usize, col: usize| ((lane * 89 + col * 37 + lane * col * 7) % (1 << B)) as u8;
        let mut block = vec![0; B * 64];
        for lane in 0..LANES {
            let codes: [u8; BLOCK] = std::array::from_fn(|col| code(lane, col));
            put::<B>(&mut block, lane, &codes);
        }
        for isa in Isa::available() {
            for zero in [None, Some(1u8 << (B - 1))] {
                let (quads, columns) = isa.run(Read::<B>(&block, zero));
                for lane in 0..LANES {
                    let codes = get::<B>(&block, lane);
                    for col in 0..BLOCK {
                        let want = code(lane, col);
                        assert_eq!(codes[col], want, "{B} bits, row {lane}, column {col}");
                        assert_eq!(quads[col / 4][lane].to_le_bytes()[col % 4], want, "{isa:?} {B} {lane} {col}");
                        let level = f32::from(want) - zero.map_or(0.0, f32::from);
                        // Codes of 8 bits have a zero in their middle.
                        assert!(columns[col][lane] == level || B == 8 && zero.is_none(), "{isa:?} {B} {lane} {col}");
                    }
                }
            }
        }
    }

    #[test]
    fn blocks_hold_codes_of_every_width_on_every_instruction_set() {
        check::<2>();
        check::<3>();
        check::<4>();
        check::<5>();
        check::<6>();
        check::<8>();
    }
}
