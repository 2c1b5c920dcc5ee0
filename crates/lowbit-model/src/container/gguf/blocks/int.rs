//! Blocks of 32 to 128 integers with a scale, perhaps a minimum.

use super::half;
use half::f16 as Half;

/// Scale in f16, 16 bytes of bits, lowest first: 1 for the scale, 0 for its negative.
pub fn q1_0(block: &[u8], out: &mut [f32]) {
    let scale = half(block);
    for (byte, out) in block[2..].iter().zip(out.chunks_exact_mut(8)) {
        out.iter_mut().enumerate().for_each(|(i, out)| *out = if byte >> i & 1 == 1 { scale } else { -scale });
    }
}

/// Scale in f16, then 2-bit elements plus 1, lowest bits first.
pub fn q2_0(block: &[u8], out: &mut [f32]) {
    let scale = half(block);
    for (byte, out) in block[2..].iter().zip(out.chunks_exact_mut(4)) {
        out.iter_mut().enumerate().for_each(|(i, out)| *out = (f32::from(byte >> (2 * i) & 3) - 1.0) * scale);
    }
}

/// Scale `max|x| / 127` in f16, codes rounded with the scale before it is, halves away from 0.
pub fn put_q8_0(values: &[f32], out: &mut Vec<u8>) -> Result<(), String> {
    let largest = |values: &[f32]| values.iter().fold(0f32, |m, v| m.max(v.abs()));
    // Blocks that are small beside others may vanish.
    let small = largest(values) / 127.0 / 4096.0;
    for (i, block) in values.chunks_exact(32).enumerate() {
        let scale = largest(block) / 127.0;
        let inverse = if scale < f32::MIN_POSITIVE { 0.0 } else { 1.0 / scale };
        let stored = Half::from_f32(scale);
        let lost = (stored.to_f32() - scale).abs() > scale / 64.0 && scale > small;
        if stored.is_infinite() || !inverse.is_finite() || lost {
            return Err(format!("holds values around index {} whose scale {scale} does not fit F16", 32 * i));
        }
        out.extend(stored.to_le_bytes());
        out.extend(block.iter().map(|v| (v * inverse).round() as i8 as u8));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::put_q8_0;
    use crate::container::gguf::blocks::float::put_f16;

    #[test]
    fn what_leaves_the_range_of_halves_is_refused() {
        let mut out = Vec::new();
        for put in [put_q8_0, put_f16] {
            for bad in [1e7, 1e-8, 1e-40] {
                let refused = put(&[bad; 64], &mut out).unwrap_err();
                assert!(refused.contains("F16"), "{refused}");
            }
            // What is small beside the others may vanish.
            let mixed = [[0.5f32; 32], [1e-9; 32]].concat();
            for good in [&[0.0; 64][..], &[60_000.0; 64], &[1e-2; 64], &mixed] {
                put(good, &mut out).expect("in range");
            }
        }
    }
}
