//! Floats.

use half::f16 as Half;
use half::slice::HalfFloatSliceExt;

pub fn f32(blocks: &[u8], out: &mut [f32]) {
    let values = blocks.as_chunks().0.iter().map(|block| f32::from_le_bytes(*block));
    out.iter_mut().zip(values).for_each(|(out, value)| *out = value);
}

pub fn f64(blocks: &[u8], out: &mut [f32]) {
    let values = blocks.as_chunks().0.iter().map(|block| f64::from_le_bytes(*block) as f32);
    out.iter_mut().zip(values).for_each(|(out, value)| *out = value);
}

pub fn f16(blocks: &[u8], out: &mut [f32]) {
    let mut halves = [Half::ZERO; 64];
    for (blocks, out) in blocks.as_chunks().0.chunks(64).zip(out.chunks_mut(64)) {
        halves.iter_mut().zip(blocks).for_each(|(half, block)| *half = Half::from_le_bytes(*block));
        halves[..out.len()].convert_to_f32_slice(out);
    }
}

pub fn bf16(blocks: &[u8], out: &mut [f32]) {
    let values = blocks.as_chunks().0.iter().map(|block| f32::from_bits(u32::from(u16::from_le_bytes(*block)) << 16));
    out.iter_mut().zip(values).for_each(|(out, value)| *out = value);
}

pub fn put_f32(values: &[f32], out: &mut Vec<u8>) -> Result<(), String> {
    out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    Ok(())
}

pub fn put_f16(values: &[f32], out: &mut Vec<u8>) -> Result<(), String> {
    let top = values.iter().fold(0f32, |top, v| top.max(v.abs()));
    if top > 0.0 && top < Half::MIN_POSITIVE.to_f32() {
        return Err(format!("holds values of at most {top:e}, which are too small for F16"));
    }
    for (i, value) in values.iter().enumerate() {
        let half = Half::from_f32(*value);
        if half.is_infinite() {
            return Err(format!("holds {value} at index {i}, which is too large for F16"));
        }
        out.extend(half.to_le_bytes());
    }
    Ok(())
}

pub fn put_bf16(values: &[f32], out: &mut Vec<u8>) -> Result<(), String> {
    for (i, value) in values.iter().enumerate() {
        let half = half::bf16::from_f32(*value);
        if half.is_infinite() {
            return Err(format!("holds {value} at index {i}, which is too large for BF16"));
        }
        out.extend(half.to_le_bytes());
    }
    Ok(())
}
