//! Blocks of -1, 0 and 1.

use super::half;
use half::f16 as Half;

/// What a block of codes says beside its signs.
pub struct Codes {
    /// Scale of the block, where it has one.
    pub scale: f32,
    /// The first element whose code is none of -1, 0, 1.
    pub invalid: Option<usize>,
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
pub fn tq1_0(block: &[u8], signs: &mut [i8]) -> Codes {
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
pub fn tq2_0(block: &[u8], signs: &mut [i8]) -> Codes {
    let invalid = crumbs(&block[..64], signs, [0, 2, 4, 6]);
    Codes { scale: half(&block[64..]), invalid }
}

/// 32 bytes of 2-bit codes, highest bits first, 32 elements apart.
pub fn i2_s(block: &[u8], signs: &mut [i8]) -> Codes {
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

pub fn put_tq1_0(values: &[f32], out: &mut Vec<u8>) -> Result<(), String> {
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

pub fn put_tq2_0(values: &[f32], out: &mut Vec<u8>) -> Result<(), String> {
    let scale = half_scale(values)?;
    for block in values.chunks_exact(256) {
        put_crumbs(block, out, [0, 2, 4, 6]);
        out.extend(scale.to_le_bytes());
    }
    Ok(())
}

pub fn put_i2_s(values: &[f32], out: &mut Vec<u8>) -> Result<(), String> {
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
