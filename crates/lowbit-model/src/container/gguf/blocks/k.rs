//! K-quants: blocks of 256 integers in parts with scales and minima of their own, which have a scale in turn.

use super::half;

/// 16 bytes of 4-bit pairs of scale and minimum, 64 of 2-bit elements, scales of both in f16.
pub fn q2_k(block: &[u8], out: &mut [f32]) {
    let (pairs, codes, scale, minimum) = (&block[..16], &block[16..80], half(&block[80..]), half(&block[82..]));
    for (i, out) in out.chunks_exact_mut(16).enumerate() {
        let (s, m) = (scale * f32::from(pairs[i] & 15), minimum * f32::from(pairs[i] >> 4));
        let (codes, shift) = crumbs(codes, i);
        out.iter_mut().zip(codes).for_each(|(out, byte)| *out = s * f32::from(byte >> shift & 3) - m);
    }
}

/// Where the 16 2-bit elements of part `i` are: their bytes and how far to shift them.
fn crumbs(codes: &[u8], i: usize) -> (&[u8], usize) {
    (&codes[i / 8 * 32 + i % 2 * 16..][..16], i % 8 / 2 * 2)
}

/// 32 bytes of third bits, 64 of 2-bit elements, 12 of 6-bit scales plus 32, their scale in f16; elements plus 4.
pub fn q3_k(block: &[u8], out: &mut [f32]) {
    let (high, codes, scales, scale) = (&block[..32], &block[32..96], &block[96..108], half(&block[108..]));
    for (i, out) in out.chunks_exact_mut(16).enumerate() {
        let low = if i < 8 { scales[i] & 15 } else { scales[i - 8] >> 4 };
        let upper = scales[8 + i % 4] >> (i / 4 * 2) & 3;
        let s = scale * f32::from((low | upper << 4) as i8 - 32);
        let (codes, shift) = crumbs(codes, i);
        let high = &high[i % 2 * 16..][..16];
        for ((out, byte), high) in out.iter_mut().zip(codes).zip(high) {
            let code = (byte >> shift & 3 | (high >> (i / 2) & 1) << 2) as i8 - 4;
            *out = s * f32::from(code);
        }
    }
}

/// The 6-bit pair of scale and minimum of part `j`, of eight in 12 bytes.
fn pair(packed: &[u8], j: usize) -> (f32, f32) {
    let (scale, minimum) = match j {
        0..4 => (packed[j] & 63, packed[j + 4] & 63),
        _ => (packed[j + 4] & 15 | (packed[j - 4] >> 6) << 4, packed[j + 4] >> 4 | (packed[j] >> 6) << 4),
    };
    (f32::from(scale), f32::from(minimum))
}

/// Two scales in f16, eight 6-bit pairs of scale and minimum, then nibbles: 32 low ones, 32 high ones, four times.
pub fn q4_k(block: &[u8], out: &mut [f32]) {
    pairs_of_nibbles(block, &block[16..], |_, _| 0, out);
}

/// As Q4_K, with 32 bytes of fifth bits before the nibbles.
pub fn q5_k(block: &[u8], out: &mut [f32]) {
    let high = &block[16..48];
    pairs_of_nibbles(block, &block[48..], |j, i| (high[i] >> j & 1) << 4, out);
}

/// Q4_K and Q5_K, `high` being what element `i` of part `j` has beside its nibble.
fn pairs_of_nibbles(block: &[u8], codes: &[u8], high: impl Fn(usize, usize) -> u8, out: &mut [f32]) {
    let (scale, minimum) = (half(block), half(&block[2..]));
    for (j, out) in out.chunks_exact_mut(32).enumerate() {
        let (s, m) = pair(&block[4..16], j);
        let (s, m) = (scale * s, minimum * m);
        let bytes = &codes[j / 2 * 32..][..32];
        for (i, (out, byte)) in out.iter_mut().zip(bytes).enumerate() {
            let code = if j % 2 == 0 { byte & 15 } else { byte >> 4 };
            *out = s * f32::from(code | high(j, i)) - m;
        }
    }
}

/// 128 bytes of low nibbles, 64 of upper bit pairs, 16 signed scales, a scale in f16.
pub fn q6_k(block: &[u8], out: &mut [f32]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let scale = half(&block[208..]);
    for (i, out) in out.chunks_exact_mut(16).enumerate() {
        let (part, quarter, first) = (i / 8, i % 8 / 2, i % 2 * 16);
        let low = &low[part * 64 + quarter % 2 * 32 + first..][..16];
        let high = &high[part * 32 + first..][..16];
        let (scale, nibble, upper) = (scale * f32::from(scales[i] as i8), quarter / 2 * 4, 2 * quarter);
        for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
            let code = (low >> nibble & 15 | (high >> upper & 3) << 4) as i8 - 32;
            *out = scale * f32::from(code);
        }
    }
}
