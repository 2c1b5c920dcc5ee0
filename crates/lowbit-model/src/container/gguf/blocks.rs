//! The blocks of each type, as llama.cpp (`ggml-quants.c`) and bitnet.cpp (`ggml-bitnet-mad.cpp`) define them.

use half::f16 as Half;
use half::slice::HalfFloatSliceExt;

/// What a block of codes says beside its signs.
pub(super) struct Codes {
    /// Scale of the block, where it has one.
    pub scale: f32,
    /// The first element whose code is none of -1, 0, 1.
    pub invalid: Option<usize>,
}

fn half(bytes: &[u8]) -> f32 {
    Half::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

pub(super) fn f32(blocks: &[u8], out: &mut [f32]) {
    let values = blocks.as_chunks().0.iter().map(|block| f32::from_le_bytes(*block));
    out.iter_mut().zip(values).for_each(|(out, value)| *out = value);
}

pub(super) fn f16(blocks: &[u8], out: &mut [f32]) {
    let mut halves = [Half::ZERO; 64];
    for (blocks, out) in blocks.as_chunks().0.chunks(64).zip(out.chunks_mut(64)) {
        halves.iter_mut().zip(blocks).for_each(|(half, block)| *half = Half::from_le_bytes(*block));
        halves[..out.len()].convert_to_f32_slice(out);
    }
}

pub(super) fn bf16(blocks: &[u8], out: &mut [f32]) {
    let values = blocks.as_chunks().0.iter().map(|block| f32::from_bits(u32::from(u16::from_le_bytes(*block)) << 16));
    out.iter_mut().zip(values).for_each(|(out, value)| *out = value);
}

/// Scale in f16, 16 bytes: the low nibbles, then the high ones, are elements plus 8.
pub(super) fn q4_0(block: &[u8], out: &mut [f32]) {
    let scale = half(block);
    for (j, byte) in block[2..].iter().enumerate() {
        out[j] = (f32::from(byte & 15) - 8.0) * scale;
        out[16 + j] = (f32::from(byte >> 4) - 8.0) * scale;
    }
}

/// Scale in f16, 32 signed bytes.
pub(super) fn q8_0(block: &[u8], out: &mut [f32]) {
    let scale = half(block);
    for (out, byte) in out.iter_mut().zip(&block[2..]) {
        *out = f32::from(*byte as i8) * scale;
    }
}

/// Two scales in f16, eight 6-bit pairs of scale and minimum, then nibbles: 32 low ones, 32 high ones, four times.
pub(super) fn q4_k(block: &[u8], out: &mut [f32]) {
    let (scale, minimum) = (half(block), half(&block[2..]));
    let packed = &block[4..16];
    let pair = |j: usize| match j {
        0..4 => (packed[j] & 63, packed[j + 4] & 63),
        _ => (packed[j + 4] & 15 | (packed[j - 4] >> 6) << 4, packed[j + 4] >> 4 | (packed[j] >> 6) << 4),
    };
    for (j, out) in out.chunks_exact_mut(32).enumerate() {
        let (s, m) = pair(j);
        let (s, m) = (scale * f32::from(s), minimum * f32::from(m));
        let bytes = &block[16 + j / 2 * 32..][..32];
        for (out, byte) in out.iter_mut().zip(bytes) {
            let code = if j % 2 == 0 { byte & 15 } else { byte >> 4 };
            *out = s * f32::from(code) - m;
        }
    }
}

/// 128 bytes of low nibbles, 64 of upper bit pairs, 16 signed scales, a scale in f16.
pub(super) fn q6_k(block: &[u8], out: &mut [f32]) {
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

/// Where the trits of a TQ1_0 byte go: the byte's first element, the distance between them, and their number.
fn tq1_0_byte(byte: usize) -> (usize, usize, usize) {
    match byte {
        0..32 => (byte, 32, 5),
        32..48 => (160 + byte - 32, 16, 5),
        _ => (240 + byte - 48, 4, 4),
    }
}

/// 52 bytes of base-3 digits, scale in f16. A byte is `ceil(v * 256 / 243)`, the first digit most significant.
pub(super) fn tq1_0(block: &[u8], signs: &mut [i8]) -> Codes {
    let mut invalid = None;
    for (i, byte) in block[..52].iter().enumerate() {
        let (first, step, count) = tq1_0_byte(i);
        let (mut rest, mut value) = (*byte, 0u16);
        for n in 0..5 {
            let digit = (u16::from(rest) * 3) >> 8;
            rest = rest.wrapping_mul(3);
            value = value * 3 + digit;
            if n < count {
                signs[first + step * n] = digit as i8 - 1;
            }
        }
        if pack3(value) != *byte {
            invalid = invalid.or(Some(first));
        }
    }
    Codes { scale: half(&block[52..]), invalid }
}

fn pack3(value: u16) -> u8 {
    (value * 256).div_ceil(243) as u8
}

/// 64 bytes of 2-bit codes, lowest bits first, 32 elements apart; scale in f16.
pub(super) fn tq2_0(block: &[u8], signs: &mut [i8]) -> Codes {
    let invalid = crumbs(&block[..64], signs, [0, 2, 4, 6]);
    Codes { scale: half(&block[64..]), invalid }
}

/// 32 bytes of 2-bit codes, highest bits first, 32 elements apart.
pub(super) fn i2_s(block: &[u8], signs: &mut [i8]) -> Codes {
    Codes { scale: 1.0, invalid: crumbs(block, signs, [6, 4, 2, 0]) }
}

/// Codes 0, 1, 2 of -1, 0, 1, by shifts; 128 elements to 32 bytes. Yields the first element with code 3.
fn crumbs(bytes: &[u8], signs: &mut [i8], shifts: [u8; 4]) -> Option<usize> {
    for (bytes, signs) in bytes.chunks_exact(32).zip(signs.chunks_exact_mut(128)) {
        for (signs, shift) in signs.chunks_exact_mut(32).zip(shifts) {
            signs.iter_mut().zip(bytes).for_each(|(sign, byte)| *sign = (byte >> shift & 3) as i8 - 1);
        }
    }
    let three = bytes.iter().fold(0, |any, byte| any | byte & byte >> 1 & 0x55) != 0;
    three.then(|| signs.iter().position(|sign| *sign == 2)).flatten()
}

pub(super) fn put_f32(values: &[f32], out: &mut Vec<u8>) -> Result<(), String> {
    out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    Ok(())
}

pub(super) fn put_f16(values: &[f32], out: &mut Vec<u8>) -> Result<(), String> {
    for (i, value) in values.iter().enumerate() {
        let half = Half::from_f32(*value);
        if half.is_infinite() {
            return Err(format!("holds {value} at index {i}, which is too large for F16"));
        }
        out.extend(half.to_le_bytes());
    }
    Ok(())
}

pub(super) fn put_bf16(values: &[f32], out: &mut Vec<u8>) -> Result<(), String> {
    for (i, value) in values.iter().enumerate() {
        let half = half::bf16::from_f32(*value);
        if half.is_infinite() {
            return Err(format!("holds {value} at index {i}, which is too large for BF16"));
        }
        out.extend(half.to_le_bytes());
    }
    Ok(())
}

/// Scale `max|x| / 127` in f16, codes rounded with the scale before it is, halves away from 0.
pub(super) fn put_q8_0(values: &[f32], out: &mut Vec<u8>) -> Result<(), String> {
    for (i, block) in values.chunks_exact(32).enumerate() {
        let scale = block.iter().fold(0f32, |m, v| m.max(v.abs())) / 127.0;
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        let stored = Half::from_f32(scale);
        if stored.is_infinite() || !inverse.is_finite() {
            return Err(format!("holds values around index {} whose scale {scale} does not fit F16", 32 * i));
        }
        out.extend(stored.to_le_bytes());
        out.extend(block.iter().map(|v| (v * inverse).round() as i8 as u8));
    }
    Ok(())
}

/// The scale of values that are all -s, 0 or s; 1 where all are 0.
fn scale(values: &[f32]) -> Result<f32, String> {
    let scale = values.iter().find(|v| **v != 0.0).map_or(1.0, |v| v.abs());
    match values.iter().position(|v| *v != 0.0 && v.abs() != scale) {
        None => Ok(scale),
        Some(i) => Err(format!("is not ternary: index {i} holds {}, another magnitude than {scale}", values[i])),
    }
}

/// The scale as f16, if that is exact.
fn half_scale(values: &[f32]) -> Result<Half, String> {
    let scale = scale(values)?;
    let half = Half::from_f32(scale);
    match half.to_f32() == scale {
        true => Ok(half),
        false => Err(format!("has the scale {scale}, which F16 does not hold exactly")),
    }
}

/// 0, 1, 2 for negative, zero, positive.
fn code(value: f32) -> u8 {
    match value {
        v if v < 0.0 => 0,
        v if v > 0.0 => 2,
        _ => 1,
    }
}

pub(super) fn put_tq1_0(values: &[f32], out: &mut Vec<u8>) -> Result<(), String> {
    let scale = half_scale(values)?;
    for block in values.chunks_exact(256) {
        for byte in 0..52 {
            let (first, step, count) = tq1_0_byte(byte);
            let digit = |n: usize| if n < count { u16::from(code(block[first + step * n])) } else { 0 };
            out.push(pack3((0..5).fold(0, |value, n| value * 3 + digit(n))));
        }
        out.extend(scale.to_le_bytes());
    }
    Ok(())
}

pub(super) fn put_tq2_0(values: &[f32], out: &mut Vec<u8>) -> Result<(), String> {
    let scale = half_scale(values)?;
    for block in values.chunks_exact(256) {
        put_crumbs(block, out, [0, 2, 4, 6]);
        out.extend(scale.to_le_bytes());
    }
    Ok(())
}

pub(super) fn put_i2_s(values: &[f32], out: &mut Vec<u8>) -> Result<(), String> {
    let scale = scale(values)?;
    put_crumbs(values, out, [6, 4, 2, 0]);
    out.extend(scale.to_le_bytes());
    out.extend([0; 28]);
    Ok(())
}

fn put_crumbs(values: &[f32], out: &mut Vec<u8>, shifts: [u8; 4]) {
    for block in values.chunks_exact(128) {
        let byte = |j: usize| (0..4).fold(0, |byte, quarter| byte | code(block[32 * quarter + j]) << shifts[quarter]);
        out.extend((0..32).map(byte));
    }
}
