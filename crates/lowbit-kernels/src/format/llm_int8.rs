//! LLM.int8() (arXiv 2208.07339): int8 per output channel and per token, except activations above 6.0 in magnitude and the
//! input features known to hold them, which are multiplied in floating point.
//!
//! Features named when the matrix was quantized keep f16 weights. Other activations above the threshold meet the
//! dequantized weight. Each token is treated by itself, so that results do not depend on the batch.

use super::{Format, Packed, Part, QuantizeOptions, check_finite, check_scales, floats};
use crate::simd::{LANES, Simd};
use crate::{Bytes, Cpu, Error, Int8Rows, Mat, Op, Rows, gemm};
use half::f16;
use std::cell::RefCell;

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

/// The weights of one input feature as f32, `[rows]`; `known` is its place among the features kept in 16 bit.
fn column(cpu: &Cpu, p: &Packed, col: usize, known: Option<usize>, out: &mut [f32]) {
    match known {
        Some(i) => cpu.isa.run(Widen { halves: &p.parts[3][i * p.rows * 2..(i + 1) * p.rows * 2], out }),
        None => {
            let (units, codes): (usize, &[u8]) = (p.cols.div_ceil(4), &p.parts[0]);
            for (row, (scale, out)) in floats(&p.parts[1]).zip(out).enumerate() {
                let at = (row / LANES * units + col / 4) * 64 + row % LANES * 4 + col % 4;
                *out = (codes[at] as i32 - 128) as f32 * scale;
            }
        }
    }
}

/// f16 to f32.
struct Widen<'a> {
    halves: &'a [u8],
    out: &'a mut [f32],
}

impl Op for Widen<'_> {
    type Out = ();
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let mut halves = self.halves.chunks_exact(2 * LANES);
        let mut out = self.out.chunks_exact_mut(LANES);
        for (halves, out) in (&mut halves).zip(&mut out) {
            // SAFETY: 16 halves, as just cut.
            s.store_part(out, unsafe { s.load_f16(halves.as_ptr().cast()) });
        }
        for (half, out) in halves.remainder().chunks_exact(2).zip(out.into_remainder()) {
            *out = f16::from_le_bytes([half[0], half[1]]).to_f32();
        }
    }
}

/// Buffers that each thread keeps between calls.
#[derive(Default)]
struct Buffers {
    q: Int8Rows,
    rest: Vec<f32>,
    /// Outlier features, those kept in 16 bit first.
    features: Vec<usize>,
    /// `[tokens, features]`
    outliers: Vec<f32>,
    /// `[features, rows]`
    weights: Vec<f32>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

impl Buffers {
    /// Splits activations into what is quantized and the outliers.
    fn split(&mut self, cpu: &Cpu, p: &Packed, x: &[f32]) {
        let Buffers { rest, features, outliers, .. } = self;
        features.clear();
        features.extend(columns(p));
        let known = features.len();
        let beyond = |v: &f32| v.abs() > THRESHOLD;
        for row in x.chunks_exact(p.cols).filter(|row| cpu.isa.run(Largest(row)) > THRESHOLD) {
            let new = row.iter().enumerate().filter(|(_, v)| beyond(v)).map(|(col, _)| col);
            features.extend(new);
        }
        let (kept, found) = features.split_at_mut(known);
        found.sort_unstable();
        let mut last = None;
        let mut count = known;
        for i in 0..found.len() {
            if last != Some(found[i]) && kept.binary_search(&found[i]).is_err() {
                last = Some(found[i]);
                found[count - known] = found[i];
                count += 1;
            }
        }
        features.truncate(count);
        let (tokens, n, cols) = (x.len() / p.cols, features.len(), p.cols);
        rest.resize(x.len(), 0.0);
        outliers.resize(tokens * n, 0.0);
        let features = &features[..];
        let grain = (8_192 / cols).max(1);
        cpu.pool.for_rows(tokens, grain, [(&mut rest[..], cols), (&mut outliers[..], n)], |range, [rest, outliers]| {
            rest.copy_from_slice(&x[range.start * cols..range.end * cols]);
            let rows = rest.chunks_exact_mut(cols).enumerate();
            for (row, rest) in rows {
                let (first, more) = outliers[row * n..(row + 1) * n].split_at_mut(known);
                for (out, &col) in first.iter_mut().zip(&features[..known]) {
                    *out = std::mem::take(&mut rest[col]);
                }
                for (out, &col) in more.iter_mut().zip(&features[known..]) {
                    *out = if beyond(&rest[col]) { std::mem::take(&mut rest[col]) } else { 0.0 };
                }
            }
        });
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
        let mut buffers = BUFFERS.take();
        if p.parts[2].is_empty() && cpu.isa.run(Largest(x)) <= THRESHOLD {
            buffers.q.quantize(cpu, x, p.cols);
            let inner = inner(p);
            inner.format.matmul(cpu, &inner, Rows::Int8(&buffers.q), y);
            return BUFFERS.set(buffers);
        }
        buffers.split(cpu, p, x);
        let Buffers { q, rest, features, outliers, weights } = &mut buffers;
        q.quantize(cpu, rest, p.cols);
        let inner = inner(p);
        inner.format.matmul(cpu, &inner, Rows::Int8(q), y);
        if !features.is_empty() {
            let known = p.parts[2].len() / 4;
            weights.resize(features.len() * p.rows, 0.0);
            for (i, (&col, out)) in features.iter().zip(weights.chunks_exact_mut(p.rows)).enumerate() {
                column(cpu, p, col, (i < known).then_some(i), out);
            }
            let (tokens, n) = (x.len() / p.cols, features.len());
            gemm(cpu, tokens, p.rows, n, Mat::new(outliers, n), Mat::new(weights, p.rows), true, y);
        }
        BUFFERS.set(buffers);
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
