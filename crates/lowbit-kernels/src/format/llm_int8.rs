//! LLM.int8() (arXiv 2208.07339): int8 per output channel and per token, except activations above 6.0 in magnitude and the
//! input features known to hold them, which are multiplied in floating point.
//!
//! Features named when the matrix was quantized keep f16 weights, in panels `[features][16]`; where a row of a matrix leaves
//! the range in which f16 is precise, each panel ends with 16 f32 factors of its rows. Other activations above the threshold
//! meet the dequantized weight. Each token is treated by itself, so that results do not depend on the batch.

use super::codec::Byte;
use super::factors::{self, FACTORS};
use super::int8::INT8_CHANNEL;
use super::integer::Integer;
use super::spec::{ActivationType, Scales, Spec};
use super::ways::Way;
use super::{Format, Packed, QuantizeOptions, StoredPart, check_factors, check_finite, floats, quantizer, size};
use crate::pool::SharedMut;
use crate::simd::{LANES, Simd};
use crate::{Activations, Bytes, Cpu, Error, Int8Activations, Mat, Op, Products, gemm, scratch};
use half::f16;
use std::cell::RefCell;
use std::ops::Range;

/// Activations beyond this magnitude are outliers.
const THRESHOLD: f32 = 6.0;

/// int8 with outlier columns in 16 bit. The first two parts are a matrix of `int8_channel`.
#[derive(Debug)]
pub(super) struct LlmInt8;

const SPEC: Spec = Spec {
    levels: None,
    activations: ActivationType::Mixed,
    outliers: true,
    ..Spec::integers("llm_int8", 8.0, 256, Scales::Row)
};

/// The integer part as a matrix of its own; copies no bytes.
fn inner(p: &Packed) -> Packed {
    Packed { format: INNER, rows: p.rows, cols: p.cols, parts: p.parts[..2].to_vec() }
}

/// The format of the integer part.
const INNER: &Integer<Byte, 1> = &INT8_CHANNEL;

fn columns(p: &Packed) -> impl Iterator<Item = usize> + '_ {
    p.parts[2].chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().expect("four bytes")) as usize)
}

/// The f16 weights of a panel for the features known beforehand, and what those of each row are multiplied with.
fn kept(p: &Packed, panel: usize) -> (&[u8], [f32; LANES]) {
    let stride = p.parts[3].len() / p.rows.div_ceil(LANES).max(1);
    let (panel, bytes) = (&p.parts[3][panel * stride..][..stride], p.parts[2].len() / 4 * 2 * LANES);
    (&panel[..bytes], factors::of(panel, bytes).unwrap_or([1.0; LANES]))
}

/// The weights of one panel for some input features as f32, `[features][16]`; those known beforehand come first.
struct Weights<'a> {
    p: &'a Packed,
    features: &'a [usize],
    panel: usize,
    out: &'a mut [f32],
}

impl Op for Weights<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Weights { p, features, panel, out } = self;
        let known = p.parts[2].len() / 4;
        let (halves, factors) = kept(p, panel);
        let (first, found) = out[..features.len() * LANES].split_at_mut(known * LANES);
        let factors = s.load_part(&factors, 0.0);
        for (out, halves) in first.as_chunks_mut::<LANES>().0.iter_mut().zip(halves.chunks_exact(2 * LANES)) {
            // SAFETY: 16 halves, as just cut.
            let weights = unsafe { s.load_f16(halves.as_ptr().cast()) };
            s.store_part(out, s.mul(weights, factors));
        }
        let (units, codes): (usize, &[u8]) = (p.cols.div_ceil(4), &p.parts[0]);
        for (out, &col) in found.as_chunks_mut::<LANES>().0.iter_mut().zip(&features[known..]) {
            let unit = &codes[(panel * units + col / 4) * 64..][..64];
            let scales = floats(&p.parts[1]).skip(panel * LANES).chain(std::iter::repeat(0.0));
            for ((out, codes), scale) in out.iter_mut().zip(unit.as_chunks::<4>().0).zip(scales) {
                *out = (codes[col % 4] as i32 - 128) as f32 * scale;
            }
        }
    }
}

/// Buffers that each thread keeps between calls.
#[derive(Default)]
struct Buffers {
    q: Int8Activations,
    /// Largest magnitude of each feature, `[cols]`, padded.
    absmax: Vec<f32>,
    /// Outlier features, those kept in 16 bit first.
    features: Vec<usize>,
    /// `[tokens, features]`
    outliers: Vec<f32>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

impl Buffers {
    /// Splits activations into what is quantized, `q`, and the outliers.
    fn split(&mut self, cpu: &Cpu, p: &Packed, x: &[f32]) {
        let Buffers { q, absmax, features, outliers } = self;
        absmax.clear();
        absmax.resize(p.cols.next_multiple_of(LANES), 0.0);
        cpu.isa.run(ColumnAbsmax { x, cols: p.cols, absmax });
        features.clear();
        features.extend(columns(p));
        let known = features.len();
        for &col in features.iter() {
            absmax[col] = 0.0;
        }
        features.extend((0..p.cols).filter(|&col| absmax[col] > THRESHOLD));
        let beyond = |v: &f32| v.abs() > THRESHOLD;
        let (tokens, n, cols) = (x.len() / p.cols, features.len(), p.cols);
        outliers.resize(tokens * n, 0.0);
        let (features, out) = (&features[..], SharedMut::new(outliers));
        q.quantize_filled(cpu, tokens, cols, None, &|token, rest| {
            rest.copy_from_slice(&x[token * cols..][..cols]);
            // SAFETY: each token is filled by one task.
            let (first, more) = unsafe { out.slice(token * n..(token + 1) * n) }.split_at_mut(known);
            for (out, &col) in first.iter_mut().zip(&features[..known]) {
                *out = std::mem::take(&mut rest[col]);
            }
            for (out, &col) in more.iter_mut().zip(&features[known..]) {
                *out = if beyond(&rest[col]) { std::mem::take(&mut rest[col]) } else { 0.0 };
            }
        });
    }
}

impl Format for LlmInt8 {
    fn spec(&self) -> &Spec {
        &SPEC
    }

    fn parts(&self, rows: usize, cols: usize, found: &[Bytes]) -> Vec<StoredPart> {
        let mut parts = INNER.parts(rows, cols, &[]);
        let outliers = found.get(2).map_or(0, |b| b.len() / 4);
        let panel = size(&[outliers, LANES, 2]);
        let panel = match found {
            [codes, _, _, weights] if outliers > 0 => {
                factors::panel_bytes(panel, codes.len() / size(&[cols.div_ceil(4), 64]).max(1), weights.len())
            }
            _ => panel,
        };
        parts.push(StoredPart::other("outliers", outliers * 4));
        parts.push(StoredPart::other("outlier_weights", size(&[rows.div_ceil(LANES), panel])));
        parts
    }

    fn quantize_rows(
        &'static self,
        w: &[f32],
        rows: usize,
        cols: usize,
        options: &QuantizeOptions,
    ) -> Result<Packed, Error> {
        check_finite(w, rows, cols)?;
        let mut outliers = options.outlier_columns.clone();
        outliers.sort_unstable();
        outliers.dedup();
        if let Some(bad) = outliers.iter().find(|&&c| c as usize >= cols) {
            return Err(Error::Corrupt(format!("llm_int8: outlier column {bad} of a matrix with {cols} columns")));
        }
        let mut rest = w.to_vec();
        let (n, panels) = (outliers.len(), rows.div_ceil(LANES));
        let bytes = n * 2 * LANES;
        let mut kept = vec![0u8; if n > 0 { panels * (bytes + FACTORS) } else { 0 }];
        for (kept, w) in kept.chunks_exact_mut(bytes + FACTORS).zip(rest.chunks_mut(LANES * cols)) {
            let (halves, factors) = kept.split_at_mut(bytes);
            factors.as_chunks_mut::<4>().0.fill(1f32.to_le_bytes());
            for (lane, w) in w.chunks_exact_mut(cols).enumerate() {
                let taken: Vec<f32> = outliers.iter().map(|&col| std::mem::take(&mut w[col as usize])).collect();
                let (factor, taken) = quantizer::normalized(&taken);
                factors[lane * 4..][..4].copy_from_slice(&factor.to_le_bytes());
                for (place, weight) in halves[lane * 2..].chunks_mut(2 * LANES).zip(taken.iter()) {
                    place[..2].copy_from_slice(&f16::from_f32(*weight).to_le_bytes());
                }
            }
        }
        let mut parts = INNER.quantize_rows(&rest, rows, cols, options)?.parts;
        parts.push(Bytes::new(outliers.iter().flat_map(|c| c.to_le_bytes()).collect::<Vec<u8>>()));
        parts.push(Bytes::new(kept));
        Packed::from_parts(self, rows, cols, parts)
    }

    fn settle(&self, packed: Packed) -> Packed {
        let bytes = packed.parts[2].len() / 4 * 2 * LANES;
        factors::settle(packed, 3, bytes)
    }

    fn dequantize_row(&self, p: &Packed, row: usize, out: &mut [f32]) {
        let inner = inner(p);
        inner.format.dequantize_row(&inner, row, out);
        let (halves, factors) = kept(p, row / LANES);
        for (i, col) in columns(p).enumerate() {
            let at = (i * LANES + row % LANES) * 2;
            out[col] = f16::from_le_bytes([halves[at], halves[at + 1]]).to_f32() * factors[row % LANES];
        }
    }

    fn ways(&self) -> Vec<Way> {
        INNER.ways().into_iter().filter(|way| way.activations == "int8").collect()
    }

    fn matmul(&self, cpu: &Cpu, p: &Packed, x: Activations, y: &mut [f32]) {
        let inner = inner(p);
        let mut buffers = BUFFERS.take();
        if self.takes_int8(p) {
            let q = match x {
                Activations::Both(_, q) => q,
                _ => {
                    buffers.q.quantize(cpu, &x.floats(), p.cols);
                    &buffers.q
                }
            };
            if q.scale[..q.tokens].iter().all(|step| step * 127.0 <= THRESHOLD) {
                inner.matmul(cpu, Activations::Int8(q), y);
                return BUFFERS.set(buffers);
            }
        }
        let x = x.floats();
        buffers.split(cpu, p, &x);
        let Buffers { q, features, outliers, .. } = &buffers;
        let n = features.len();
        let add_outliers = |panels: Range<usize>, out: &SharedMut<f32>| {
            let mut weights = scratch::take(panels.len() * n * LANES * 4);
            let weights = &mut weights.floats()[..panels.len() * n * LANES];
            for (panel, out) in panels.clone().zip(weights.chunks_exact_mut(n.max(1) * LANES)) {
                cpu.isa.run(Weights { p, features, panel, out });
            }
            if n > 0 {
                gemm::panels(cpu, p.rows, n, Mat::new(outliers, n), weights, true, panels, out);
            }
        };
        INNER.product(cpu, &inner, q, y, &add_outliers);
        BUFFERS.set(buffers);
    }

    fn takes_int8(&self, p: &Packed) -> bool {
        p.parts[2].is_empty()
    }

    fn validate(&self, p: &Packed) -> Result<(), Error> {
        if let Some(bad) = columns(p).find(|&c| c >= p.cols) {
            return Err(Error::Corrupt(format!("llm_int8: outlier column {bad} of a matrix with {} columns", p.cols)));
        }
        let inner = inner(p);
        inner.format.validate(&inner)?;
        for panel in 0..if p.parts[2].is_empty() { 0 } else { p.rows.div_ceil(LANES) } {
            let (halves, factors) = kept(p, panel);
            let (halves, _) = halves.as_chunks::<2>();
            if let Some(at) = super::first(halves, |half| u16::from_le_bytes(half) & 0x7c00 == 0x7c00) {
                let at = panel * halves.len() + at;
                return Err(Error::Corrupt(format!("{}: outlier weight {at} is not a finite number", SPEC.name)));
            }
            check_factors(SPEC.name, &format!("of panel {panel}, outlier factor"), factors.into_iter())?;
        }
        Ok(())
    }
}

/// Largest magnitude of each feature over all tokens, on top of `absmax`.
struct ColumnAbsmax<'a> {
    x: &'a [f32],
    cols: usize,
    absmax: &'a mut [f32],
}

impl Op for ColumnAbsmax<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for row in self.x.chunks_exact(self.cols) {
            for (part, absmax) in row.chunks(LANES).zip(self.absmax.as_chunks_mut::<LANES>().0) {
                // SAFETY: 16 columns.
                unsafe {
                    let peak = s.max(s.abs(s.load_part(part, 0.0)), s.load(absmax.as_ptr()));
                    s.store(absmax.as_mut_ptr(), peak);
                }
            }
        }
    }
}
