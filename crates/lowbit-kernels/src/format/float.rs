//! 32-bit floats, and bfloat16.
//!
//! bf16 products of several tokens take bf16 activations where the CPU multiplies bf16 pairs; elsewhere, and for one
//! token, activations stay f32.

use super::tiles::{self, Epilogue, Kind, Layout, Quads};
use super::{AHEAD, Format, Packed, Part, QuantizeOptions, check_finite, check_scales, first, floats};
use crate::gemm::{self, Mat};
use crate::pool::SharedMut;
use crate::simd::{LANES, Simd};
use crate::{Bf16Rows, Bytes, Cpu, Error, Isa, Op, Rows};
use half::bf16;
use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::Range;

/// 32-bit floats, panels `[cols][16]`.
#[derive(Debug)]
pub(super) struct F32;

/// The upper half of f32, rounded to nearest even; panels `[cols / 2][16][2]`.
#[derive(Debug)]
pub(super) struct BF16;

fn as_floats(bytes: &Bytes) -> Cow<'_, [f32]> {
    // SAFETY: any bits are a valid f32; the aligned middle is used only when it is the whole.
    match unsafe { bytes.align_to::<f32>() } {
        ([], whole, []) if cfg!(target_endian = "little") => Cow::Borrowed(whole),
        _ => Cow::Owned(floats(bytes).collect()),
    }
}

impl Format for F32 {
    fn name(&self) -> &'static str {
        "f32"
    }

    fn parts(&self, rows: usize, cols: usize, _: &[Bytes]) -> Vec<Part> {
        vec![Part { name: "codes", bytes: rows.div_ceil(LANES) * LANES * cols * 4 }]
    }

    fn quantize(&self, w: &[f32], rows: usize, cols: usize, _: &QuantizeOptions) -> Result<Packed, Error> {
        check_finite(w, cols)?;
        let mut out = vec![0.0; rows.div_ceil(LANES) * LANES * cols];
        for (row, w) in w.chunks_exact(cols).enumerate() {
            for (col, &w) in w.iter().enumerate() {
                out[(row / LANES * cols + col) * LANES + row % LANES] = w;
            }
        }
        Packed::from_parts(&F32, rows, cols, vec![Bytes::from_f32(&out)])
    }

    fn dequantize_row(&self, p: &Packed, row: usize, out: &mut [f32]) {
        let values = as_floats(&p.parts[0]);
        for (col, out) in out.iter_mut().enumerate() {
            *out = values[(row / LANES * p.cols + col) * LANES + row % LANES];
        }
    }

    fn matmul(&self, cpu: &Cpu, p: &Packed, x: Rows, y: &mut [f32]) {
        let x = x.floats();
        gemm::multiply(cpu, x.len() / p.cols, p.rows, p.cols, Mat::new(&x, p.cols), &as_floats(&p.parts[0]), false, y);
    }

    fn validate(&self, p: &Packed) -> Result<(), Error> {
        check_scales("f32", floats(&p.parts[0]))
    }
}

/// The bits of a finite number as bf16, rounded to nearest even.
#[inline(always)]
fn rounded(w: f32) -> u32 {
    let bits = w.to_bits();
    (bits + 0x7fff + (bits >> 16 & 1)) >> 16
}

fn pairs(cols: usize) -> usize {
    cols.div_ceil(2)
}

impl Format for BF16 {
    fn name(&self) -> &'static str {
        "bf16"
    }

    fn parts(&self, rows: usize, cols: usize, _: &[Bytes]) -> Vec<Part> {
        vec![Part { name: "codes", bytes: rows.div_ceil(LANES) * pairs(cols) * 64 }]
    }

    fn quantize(&self, w: &[f32], rows: usize, cols: usize, _: &QuantizeOptions) -> Result<Packed, Error> {
        check_finite(w, cols)?;
        let mut out = vec![0u8; rows.div_ceil(LANES) * pairs(cols) * 64];
        let panels = out.chunks_exact_mut((pairs(cols) * 64).max(1));
        for (panel, w) in panels.zip(w.chunks((LANES * cols).max(1))) {
            for (lane, w) in w.chunks_exact(cols).enumerate() {
                let places = panel.chunks_exact_mut(64).map(|unit| &mut unit[lane * 4..][..4]);
                let (whole, last) = w.as_chunks::<2>();
                let last = last.first().map(|w| [*w, 0.0]);
                for (place, [low, high]) in places.zip(whole.iter().copied().chain(last)) {
                    place.copy_from_slice(&(rounded(low) | rounded(high) << 16).to_le_bytes());
                }
            }
        }
        Packed::from_parts(&BF16, rows, cols, vec![Bytes::new(out)])
    }

    fn dequantize_row(&self, p: &Packed, row: usize, out: &mut [f32]) {
        let bytes: &[u8] = &p.parts[0];
        for (col, out) in out.iter_mut().enumerate() {
            let at = (row / LANES * pairs(p.cols) + col / 2) * 64 + row % LANES * 4 + col % 2 * 2;
            *out = bf16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32();
        }
    }

    fn matmul(&self, cpu: &Cpu, p: &Packed, x: Rows, y: &mut [f32]) {
        product(cpu, &Bf16View(p), &|panels, x, out| one_token(cpu, p, panels, x, out), p, x, y);
    }

    fn takes_bf16(&self, cpu: &Cpu, tokens: usize) -> bool {
        takes_bf16(cpu, tokens)
    }

    fn validate(&self, p: &Packed) -> Result<(), Error> {
        let (values, _) = p.parts[0].as_chunks::<2>();
        let at = first(values, |b| u16::from_le_bytes(b) & 0x7f80 == 0x7f80);
        at.map_or(Ok(()), |at| Err(Error::Corrupt(format!("bf16: scale {at} is not a finite number"))))
    }
}

/// One token times a range of bf16 panels, whose outputs nobody else touches.
pub(super) fn one_token(cpu: &Cpu, p: &Packed, panels: Range<usize>, x: &[f32], out: &SharedMut<f32>) {
    cpu.isa.run(OneToken { p, panels, x, out });
}

/// The kernel for one token: a range of panels, the activations, the outputs.
pub(super) type ForOneToken<'a> = &'a (dyn Fn(Range<usize>, &[f32], &SharedMut<f32>) + Sync);

thread_local! {
    static ROUNDED: RefCell<Bf16Rows> = RefCell::default();
}

/// Whether a product of so many tokens takes bf16 activations.
pub(super) fn takes_bf16(cpu: &Cpu, tokens: usize) -> bool {
    tokens > 1 && cpu.isa.run(FastBf16)
}

/// The product of a format whose weights are floats: one token exactly, several by bf16 pairs where that is fast.
pub(super) fn product(cpu: &Cpu, w: &dyn Quads, one: ForOneToken, p: &Packed, x: Rows, y: &mut [f32]) {
    let tokens = y.len() / p.rows;
    match x {
        Rows::Bf16(x) if takes_bf16(cpu, tokens) => tiles::product(cpu, w, p.rows, x.into(), y, &|_, _| {}),
        _ if takes_bf16(cpu, tokens) => {
            let mut rounded = ROUNDED.take();
            rounded.round(cpu, &x.floats(), p.cols);
            tiles::product(cpu, w, p.rows, (&rounded).into(), y, &|_, _| {});
            ROUNDED.set(rounded);
        }
        _ if tokens == 1 => {
            let panels = p.rows.div_ceil(LANES);
            let bytes = p.product_bytes() / panels + 1;
            let grain = super::stream_grain(bytes, panels);
            let (x, out) = (&x.floats(), SharedMut::new(y));
            cpu.pool.run(panels.div_ceil(grain), &|task| one(task * grain..((task + 1) * grain).min(panels), x, &out));
        }
        _ => tiles::product_f32(cpu, w, p.rows, p.cols, x, y),
    }
}

/// Units whose products have sums of their own, so that additions do not wait for each other.
const STREAMS: usize = 4;

struct FastBf16;
impl Op for FastBf16 {
    type Out = bool;
    #[inline(always)]
    fn eval<S: Simd>(self, _: S) -> bool {
        S::FAST_BF16
    }
}

struct Bf16View<'a>(&'a Packed);

impl Quads for Bf16View<'_> {
    fn layout(&self) -> Layout {
        Layout { kind: Kind::Bf16, length: pairs(self.0.cols), quads: 1, group: None }
    }

    fn stored(&self, panels: Range<usize>) -> Option<&[u8]> {
        let bytes = pairs(self.0.cols) * 64;
        Some(&self.0.parts[0][panels.start * bytes..panels.end * bytes])
    }

    fn decode(&self, _: Isa, _: usize, _: Range<usize>, _: &mut [u8]) {
        unreachable!("bf16 is stored as quads");
    }

    fn epilogue(&self, _: usize) -> Epilogue {
        Epilogue::Totals
    }

    fn columns(&self, _: Isa, panel: usize, out: &mut [f32]) {
        let cols = self.0.cols;
        let bytes = &self.0.parts[0][panel * pairs(cols) * 64..][..pairs(cols) * 64];
        for (col, out) in out.chunks_exact_mut(LANES).enumerate().take(cols) {
            let unit = &bytes[col / 2 * 64..][..64];
            for (out, b) in out.iter_mut().zip(unit.chunks_exact(4)) {
                *out = bf16::from_le_bytes([b[col % 2 * 2], b[col % 2 * 2 + 1]]).to_f32();
            }
        }
    }
}

/// A range of bf16 panels times one token in f32.
struct OneToken<'a> {
    p: &'a Packed,
    panels: Range<usize>,
    x: &'a [f32],
    out: &'a SharedMut<'a, f32>,
}

impl Op for OneToken<'_> {
    type Out = ();
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for panel in self.panels.clone() {
            let first = panel * LANES;
            // SAFETY: the task owns the outputs of its panels.
            let out = unsafe { self.out.slice(first..(first + LANES).min(self.p.rows)) };
            s.store_part(out, self.panel(s, panel));
        }
    }
}

impl OneToken<'_> {
    #[inline(always)]
    fn panel<S: Simd>(&self, s: S, panel: usize) -> S::F {
        let units = pairs(self.p.cols);
        let codes = self.p.parts[0][panel * units * 64..(panel + 1) * units * 64].as_chunks::<64>().0;
        let high = s.splat_i(0xffff_0000_u32 as i32);
        let mut acc = [[s.splat(0.0); 2]; STREAMS];
        let (x, last) = self.x.as_chunks::<2>();
        let add = |acc: [S::F; 2], unit: &[u8; 64], x: [f32; 2]| {
            // SAFETY: 64 bytes; a prefetch may name any address.
            let v = unsafe {
                s.prefetch(unit.as_ptr().wrapping_add(AHEAD));
                s.load_i(unit.as_ptr())
            };
            let (even, odd) = (s.as_f(s.shl::<16>(v)), s.as_f(s.and(v, high)));
            [s.fma(even, s.splat(x[0]), acc[0]), s.fma(odd, s.splat(x[1]), acc[1])]
        };
        let (codes, rest) = codes.split_at(x.len() / STREAMS * STREAMS);
        let (x, more) = x.split_at(codes.len());
        for (codes, x) in codes.as_chunks::<STREAMS>().0.iter().zip(x.as_chunks::<STREAMS>().0) {
            for i in 0..STREAMS {
                acc[i] = add(acc[i], &codes[i], x[i]);
            }
        }
        let odd = last.first().map(|x| [*x, 0.0]);
        for (unit, x) in rest.iter().zip(more.iter().copied().chain(odd)) {
            acc[0] = add(acc[0], unit, x);
        }
        let sums = acc.map(|[even, odd]| s.add(even, odd));
        sums[1..].iter().fold(sums[0], |total, sum| s.add(total, *sum))
    }
}

#[cfg(test)]
mod tests {
    use super::rounded;
    use half::bf16;

    #[test]
    fn rounding_is_to_nearest_even() {
        for high in 0..=0xffffu32 {
            for low in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let w = f32::from_bits(high << 16 | low);
                if w.is_finite() {
                    assert_eq!(rounded(w), u32::from(bf16::from_f32(w).to_bits()), "{w}");
                }
            }
        }
    }
}
