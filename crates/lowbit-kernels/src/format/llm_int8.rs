//! LLM.int8() (arXiv 2208.07339): int8 per output channel and per token, except activations above 6.0 in magnitude and the
//! input features known to hold them, which are multiplied in floating point.
//!
//! Features named when the matrix was quantized keep f16 weights. Other activations above the threshold meet the
//! dequantized weight. Each token is treated by itself, so that results do not depend on the batch.

use super::{Format, Packed, Part, QuantizeOptions, check_finite, check_scales, floats};
use crate::simd::{LANES, Simd};
use crate::{Bytes, Cpu, Error, Int8Rows, Op, Rows};
use half::f16;

/// Activations beyond this magnitude are outliers.
const THRESHOLD: f32 = 6.0;

/// int8 with outlier columns in 16 bit. The first two parts are a matrix of `int8_channel`.
#[derive(Debug)]
pub(super) struct LlmInt8;

/// The integer part as a matrix of its own; copies no bytes.
fn inner(p: &Packed) -> Packed {
    let format = super::find("int8_channel").expect("in the list");
    Packed { format, rows: p.rows, cols: p.cols, parts: p.parts[..2].to_vec() }
}

fn columns(p: &Packed) -> impl Iterator<Item = usize> + '_ {
    p.parts[2].chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().expect("four bytes")) as usize)
}

/// The weights of one input feature, `[rows]`.
fn column(p: &Packed, col: usize, out: &mut Vec<f32>) {
    out.clear();
    if let Some(i) = columns(p).position(|c| c == col) {
        let halves = p.parts[3][i * p.rows * 2..(i + 1) * p.rows * 2].chunks_exact(2);
        out.extend(halves.map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()));
    } else {
        let units = p.cols.div_ceil(4);
        out.extend(floats(&p.parts[1]).enumerate().map(|(row, scale)| {
            let at = (row / LANES * units + col / 4) * 64 + row % LANES * 4 + col % 4;
            (p.parts[0][at] as i32 - 128) as f32 * scale
        }));
    }
}

impl Format for LlmInt8 {
    fn name(&self) -> &'static str {
        "llm_int8"
    }

    fn parts(&self, rows: usize, cols: usize, found: &[Bytes]) -> Vec<Part> {
        let mut parts = super::find("int8_channel").expect("in the list").parts(rows, cols, &[]);
        let outliers = found.get(2).map_or(0, |b| b.len() / 4);
        parts.push(Part { name: "outliers", bytes: outliers * 4 });
        parts.push(Part { name: "outlier_weights", bytes: outliers * rows * 2 });
        parts
    }

    fn quantize(&self, w: &[f32], rows: usize, cols: usize, options: &QuantizeOptions) -> Result<Packed, Error> {
        check_finite(w, cols)?;
        let mut outliers = options.outlier_columns.clone();
        outliers.sort_unstable();
        outliers.dedup();
        if let Some(bad) = outliers.iter().find(|&&c| c as usize >= cols) {
            return Err(Error::Corrupt(format!("llm_int8: outlier column {bad} of a matrix with {cols} columns")));
        }
        let mut rest = w.to_vec();
        let mut kept = Vec::with_capacity(outliers.len() * rows * 2);
        for &col in &outliers {
            for row in rest.chunks_exact_mut(cols) {
                kept.extend(f16::from_f32(row[col as usize]).to_le_bytes());
                row[col as usize] = 0.0;
            }
        }
        let mut parts = super::find("int8_channel")?.quantize(&rest, rows, cols, options)?.parts;
        parts.push(Bytes::new(outliers.iter().flat_map(|c| c.to_le_bytes()).collect::<Vec<u8>>()));
        parts.push(Bytes::new(kept));
        Packed::from_parts(&LlmInt8, rows, cols, parts)
    }

    fn dequantize_row(&self, p: &Packed, row: usize, out: &mut [f32]) {
        let inner = inner(p);
        inner.format.dequantize_row(&inner, row, out);
        for (i, col) in columns(p).enumerate() {
            let at = (i * p.rows + row) * 2;
            out[col] = f16::from_le_bytes([p.parts[3][at], p.parts[3][at + 1]]).to_f32();
        }
    }

    fn matmul(&self, cpu: &Cpu, p: &Packed, x: Rows, y: &mut [f32]) {
        let owned;
        let x = match x {
            Rows::F32(x) => x,
            Rows::Int8(q) => {
                owned = q.dequantize();
                &owned
            }
        };
        let known: Vec<usize> = columns(p).collect();
        let outliers = !known.is_empty() || cpu.isa.run(Largest(x)) > THRESHOLD;
        let mut q = Int8Rows::default();
        if !outliers {
            q.quantize(cpu, x, p.cols);
            let inner = inner(p);
            return inner.format.matmul(cpu, &inner, Rows::Int8(&q), y);
        }
        let mut kept = x.to_vec();
        let mut moved: Vec<(usize, usize, f32)> = Vec::new(); // (column, token, value)
        for (token, row) in kept.chunks_exact_mut(p.cols).enumerate() {
            let mut out = |col: usize, v: &mut f32| moved.push((col, token, std::mem::take(v)));
            known.iter().for_each(|&col| out(col, &mut row[col]));
            for (col, v) in row.iter_mut().enumerate() {
                if v.abs() > THRESHOLD {
                    out(col, v);
                }
            }
        }
        q.quantize(cpu, &kept, p.cols);
        let inner = inner(p);
        inner.format.matmul(cpu, &inner, Rows::Int8(&q), y);
        moved.sort_by_key(|&(col, token, _)| (col, token));
        let mut weights = Vec::new();
        for group in moved.chunk_by(|a, b| a.0 == b.0) {
            column(p, group[0].0, &mut weights);
            for &(_, token, value) in group {
                for (y, w) in y[token * p.rows..][..p.rows].iter_mut().zip(&weights) {
                    *y += value * w;
                }
            }
        }
    }

    fn validate(&self, p: &Packed) -> Result<(), Error> {
        if let Some(bad) = columns(p).find(|&c| c >= p.cols) {
            return Err(Error::Corrupt(format!("llm_int8: outlier column {bad} of a matrix with {} columns", p.cols)));
        }
        let inner = inner(p);
        inner.format.validate(&inner)?;
        check_scales("llm_int8", p.parts[3].chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()))
    }
}

/// Largest magnitude.
struct Largest<'a>(&'a [f32]);

impl Op for Largest<'_> {
    type Out = f32;
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) -> f32 {
        let mut top = s.splat(0.0);
        for part in self.0.chunks(LANES) {
            top = s.max(s.abs(s.load_part(part, 0.0)), top);
        }
        s.max_lane(top)
    }
}
