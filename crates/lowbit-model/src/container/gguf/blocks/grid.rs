//! Nibbles that choose one of sixteen numbers.

use super::{half, nibbles};

/// The numbers of IQ4_NL and IQ4_XS.
const NON_LINEAR: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
/// Twice the values of E2M1 (OCP Microscaling Formats 1.0).
const E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

fn pick(grid: &[i8; 16], code: u8) -> f32 {
    f32::from(grid[usize::from(code)])
}

/// Scale in f16, 16 bytes of nibbles.
pub fn iq4_nl(block: &[u8], out: &mut [f32]) {
    let scale = half(block);
    nibbles(&block[2..], out, |_, code| scale * pick(&NON_LINEAR, code));
}

/// Scale in f16, 2 bytes of upper and 4 of lower bits of eight 6-bit scales plus 32, 16 bytes of nibbles for each of the eight.
pub fn iq4_xs(block: &[u8], out: &mut [f32]) {
    let (scale, upper) = (half(block), u16::from_le_bytes([block[2], block[3]]));
    for (j, (bytes, out)) in block[8..].chunks_exact(16).zip(out.chunks_exact_mut(32)).enumerate() {
        let low = block[4 + j / 2] >> (j % 2 * 4) & 15;
        let s = scale * f32::from((low | ((upper >> (2 * j) & 3) as u8 * 16)) as i8 - 32);
        nibbles(bytes, out, |_, code| s * pick(&NON_LINEAR, code));
    }
}

/// Half of a power of two as its exponent (E8M0), 16 bytes of nibbles.
pub fn mxfp4(block: &[u8], out: &mut [f32]) {
    let scale = match block[0] {
        e @ 0..2 => f32::from_bits(0x0020_0000 << e),
        e => f32::from_bits(u32::from(e - 1) << 23),
    };
    nibbles(&block[1..], out, |_, code| scale * pick(&E2M1, code));
}

/// Four scales in unsigned E4M3, 8 bytes of nibbles for each.
pub fn nvfp4(block: &[u8], out: &mut [f32]) {
    for ((scale, bytes), out) in block[..4].iter().zip(block[4..].chunks_exact(8)).zip(out.chunks_exact_mut(16)) {
        let scale = e4m3(*scale) * 0.5;
        nibbles(bytes, out, |_, code| scale * pick(&E2M1, code));
    }
}

/// An unsigned E4M3 number; 0 for NaN.
fn e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    match (byte, exponent) {
        (0x7f, _) => 0.0,
        (_, 0) => mantissa / 512.0,
        _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7),
    }
}
