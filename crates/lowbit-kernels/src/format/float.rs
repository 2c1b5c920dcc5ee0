//! 32-bit floats, and bfloat16.
//!
//! bf16 products of several tokens take bf16 activations where the CPU multiplies bf16 pairs; elsewhere, and for one
//! token, activations stay f32.

use super::spec::Spec;
use super::tiles::{self, Epilogue, FloatPanels, Layout, OperandKind, Quads};
use super::ways::{self, Capability, Entry, Job, Way};
use super::{AHEAD, Format, Packed, QuantizeOptions, StoredPart, check_finite, first, floats, size};
use crate::gemm::{self, Mat, Operand};
use crate::pool::SharedMut;
use crate::simd::{LANES, Simd};
use crate::{Activations, Bf16Activations, Bytes, Cpu, Error, Isa, Op, Products};
use half::bf16;
use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::Range;

/// 32-bit floats, panels `[cols][16]`.
#[derive(Debug)]
pub(super) struct F32;

const F32_SPEC: Spec = Spec { lossless: true, ..Spec::floats("f32", 32.0) };

/// The upper half of f32, rounded to nearest even; panels `[cols / 2][16][2]`.
#[derive(Debug)]
pub(super) struct BF16;

const BF16_SPEC: Spec = Spec::floats("bf16", 16.0);

fn as_floats(bytes: &Bytes) -> Cow<'_, [f32]> {
    // SAFETY: any bits are a valid f32; the aligned middle is used only when it is the whole.
    match unsafe { bytes.align_to::<f32>() } {
        ([], whole, []) if cfg!(target_endian = "little") => Cow::Borrowed(whole),
        _ => Cow::Owned(floats(bytes).collect()),
    }
}

impl Format for F32 {
    fn spec(&self) -> &Spec {
        &F32_SPEC
    }

    fn parts(&self, rows: usize, cols: usize, _: &[Bytes]) -> Vec<StoredPart> {
        vec![StoredPart::codes(size(&[rows.div_ceil(LANES), LANES, cols, 4]))]
    }

    fn quantize_rows(&'static self, w: &[f32], rows: usize, cols: usize, _: &QuantizeOptions) -> Result<Packed, Error> {
        check_finite(w, rows, cols)?;
        let mut out = vec![0.0; rows.div_ceil(LANES) * LANES * cols];
        for (row, w) in w.chunks_exact(cols).enumerate() {
            for (col, &w) in w.iter().enumerate() {
                out[(row / LANES * cols + col) * LANES + row % LANES] = w;
            }
        }
        Packed::from_parts(self, rows, cols, vec![Bytes::from_f32(&out)])
    }

    fn dequantize_row(&self, p: &Packed, row: usize, out: &mut [f32]) {
        let values = as_floats(&p.parts[0]);
        for (col, out) in out.iter_mut().enumerate() {
            *out = values[(row / LANES * p.cols + col) * LANES + row % LANES];
        }
    }

    fn ways(&self) -> Vec<Way> {
        vec![Way::many("f32_gemm", "f32", 1, Capability::Any, "weights as they are stored")]
    }

    fn takes_windows(&self) -> bool {
        true
    }

    fn matmul(&self, cpu: &Cpu, p: &Packed, x: Activations, y: &mut [f32]) {
        let weights = as_floats(&p.parts[0]);
        let mut product = |x: Operand| gemm::multiply(cpu, y.len() / p.rows, p.rows, p.cols, x, &weights, false, y);
        match x {
            Activations::Windows(windows) => product(windows.into()),
            _ => product(Mat::new(&x.floats(), p.cols).into()),
        }
    }

    fn validate(&self, p: &Packed) -> Result<(), Error> {
        let (values, _) = p.parts[0].as_chunks::<4>();
        match first(values, |b| !f32::from_le_bytes(b).is_finite()) {
            Some(at) => Err(Error::Corrupt(format!("f32: value {at} is not a finite number"))),
            None => Ok(()),
        }
    }
}

/// Refuses numbers that become infinite as bf16, naming the first.
pub(super) fn check_bf16(format: &'static str, w: &[f32], cols: usize) -> Result<(), Error> {
    match first(w, |w| w.to_bits() & 0x7fff_ffff >= 0x7f7f_8000) {
        Some(at) => Err(Error::Range { row: at / cols, col: at % cols, format }),
        None => Ok(()),
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
    fn spec(&self) -> &Spec {
        &BF16_SPEC
    }

    fn parts(&self, rows: usize, cols: usize, _: &[Bytes]) -> Vec<StoredPart> {
        vec![StoredPart::codes(size(&[rows.div_ceil(LANES), pairs(cols), 64]))]
    }

    fn quantize_rows(&'static self, w: &[f32], rows: usize, cols: usize, _: &QuantizeOptions) -> Result<Packed, Error> {
        check_finite(w, rows, cols)?;
        check_bf16(BF16_SPEC.name, w, cols)?;
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
        Packed::from_parts(self, rows, cols, vec![Bytes::new(out)])
    }

    fn dequantize_row(&self, p: &Packed, row: usize, out: &mut [f32]) {
        let bytes: &[u8] = &p.parts[0];
        for (col, out) in out.iter_mut().enumerate() {
            let at = (row / LANES * pairs(p.cols) + col / 2) * 64 + row % LANES * 4 + col % 2 * 2;
            *out = bf16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32();
        }
    }

    fn ways(&self) -> Vec<Way> {
        ways()
    }

    fn matmul(&self, cpu: &Cpu, p: &Packed, x: Activations, y: &mut [f32]) {
        product(cpu, &Bf16View(p), &|panels, x, out| one_token(cpu, p, panels, x, out), p, x, y);
    }

    fn takes_bf16(&self, cpu: &Cpu, tokens: usize) -> bool {
        takes_bf16(cpu, tokens)
    }

    fn validate(&self, p: &Packed) -> Result<(), Error> {
        let (values, _) = p.parts[0].as_chunks::<2>();
        let at = first(values, |b| u16::from_le_bytes(b) & 0x7f80 == 0x7f80);
        at.map_or(Ok(()), |at| Err(Error::Corrupt(format!("bf16: value {at} is not a finite number"))))
    }
}

/// One token times a range of bf16 panels, whose outputs nobody else touches.
pub(super) fn one_token(cpu: &Cpu, p: &Packed, panels: Range<usize>, x: &[f32], out: &SharedMut<f32>) {
    cpu.isa.run(FloatGemv { p, panels, x, out });
}

/// The kernel for one token: a range of panels, the activations, the outputs.
pub(super) type GemvFn<'a> = &'a (dyn Fn(Range<usize>, &[f32], &SharedMut<f32>) + Sync);

thread_local! {
    static ROUNDED: RefCell<Bf16Activations> = RefCell::default();
}

/// A product of a format whose weights are floats.
struct Floats<'a> {
    weights: &'a dyn FloatPanels,
    one: GemvFn<'a>,
    p: &'a Packed,
}

/// A way to multiply with floats.
type Run<'a> = fn(&Cpu, &Floats<'a>, Activations, &mut [f32]);

fn table<'a>() -> [Entry<Run<'a>>; 3] {
    let panels = Way::many(ways::FLOAT_PANELS, "f32", 2, Capability::Any, "panels widened to f32 in memory");
    let pairs = Way::many(ways::BF16_PAIRS, "f32", 2, Capability::Bf16Pairs, "activations rounded to bf16");
    [
        Entry::new(panels, |cpu, w, x, y| tiles::product_f32(cpu, w.weights, w.p.rows, w.p.cols, &x.floats(), y)),
        Entry::new(Way::one("float_gemv", "f32", "one stream of codes"), |cpu, w, x, y| w.stream(cpu, &x.floats(), y)),
        // Where it is slower, the ways of the machine prefer another.
        Entry::new(pairs, |cpu, w, x, y| w.pairs(cpu, x, y)),
    ]
}

/// The ways of formats whose weights are floats.
pub(super) fn ways() -> Vec<Way> {
    table().iter().map(|entry| entry.way).collect()
}

impl Floats<'_> {
    /// One token, without rounding.
    fn stream(&self, cpu: &Cpu, x: &[f32], y: &mut [f32]) {
        let panels = self.p.rows.div_ceil(LANES);
        let grain = super::stream_grain(self.p.product_bytes() / panels + 1, panels);
        let out = SharedMut::new(y);
        cpu.pool.run(panels.div_ceil(grain), &|task| {
            (self.one)(task * grain..((task + 1) * grain).min(panels), x, &out);
        });
    }

    /// Several tokens, rounded to bf16.
    fn pairs(&self, cpu: &Cpu, x: Activations, y: &mut [f32]) {
        if let Activations::Bf16(x) = x {
            return tiles::product(cpu, self.weights, self.p.rows, x.into(), y, &|_, _| {});
        }
        let mut rounded = ROUNDED.take();
        rounded.round(cpu, &x.floats(), self.p.cols);
        tiles::product(cpu, self.weights, self.p.rows, (&rounded).into(), y, &|_, _| {});
        ROUNDED.set(rounded);
    }
}

/// Whether a product of so many tokens rounds activations to bf16.
pub(super) fn takes_bf16(cpu: &Cpu, tokens: usize) -> bool {
    let job = Job { isa: cpu.isa, tokens, weights: 0, grouped: false };
    tokens > 0 && ways::choose(&table(), cpu, job).way.name == ways::BF16_PAIRS
}

/// The product of a format whose weights are floats.
pub(super) fn product(cpu: &Cpu, weights: &dyn FloatPanels, one: GemvFn, p: &Packed, x: Activations, y: &mut [f32]) {
    let job = Job { isa: cpu.isa, tokens: y.len() / p.rows, weights: p.rows * p.cols, grouped: false };
    (ways::choose(&table(), cpu, job).run)(cpu, &Floats { weights, one, p }, x, y);
}

/// Units whose products have sums of their own, so that additions do not wait for each other.
const STREAMS: usize = 4;

struct Bf16View<'a>(&'a Packed);

impl Quads for Bf16View<'_> {
    fn layout(&self) -> Layout {
        Layout { kind: OperandKind::Bf16, length: pairs(self.0.cols), quads: 1, group: None }
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
}

impl FloatPanels for Bf16View<'_> {
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
struct FloatGemv<'a> {
    p: &'a Packed,
    panels: Range<usize>,
    x: &'a [f32],
    out: &'a SharedMut<'a, f32>,
}

impl Op for FloatGemv<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;
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

impl FloatGemv<'_> {
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
