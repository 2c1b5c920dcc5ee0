//! NF4 (arXiv 2305.14314): 16 quantiles of the normal distribution, one absolute maximum per 64 columns of a row, stored
//! as f32 (4.5 bits per weight) or again quantized to 8 bits (4.13 bits per weight).
//!
//! A unit holds 8 columns of 16 rows: nibble `j` of lane `r` is the code of row `r`, column `8 unit + j`.

use super::float;
use super::quantizer;
use super::spec::{Holds, Scales, Spec};
use super::tiles::{Epilogue, FloatPanels, Layout, OperandKind, Quads};
use super::ways::Way;
use super::{
    AHEAD, Format, Magnitude, Packed, QuantizeOptions, StoredPart, check_finite, check_scales, floats, size, vain_scale,
};
use crate::activations::GROUP;
use crate::pool::SharedMut;
use crate::simd::{LANES, Simd};
use crate::{Activations, Bytes, Cpu, Error, Isa, Op, Products};
use std::ops::Range;

/// Columns of a unit.
const COLS: usize = 8;
/// Blocks that share one range in double quantization, for all 16 rows of a panel: 256 absolute maxima.
const DOUBLE: usize = 16;

/// The levels of bitsandbytes.
const LEVELS: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// NF4 with f32 or doubly quantized maxima.
#[derive(Debug)]
pub(super) struct Nf4 {
    spec: Spec,
    double: bool,
}

const SPEC: Spec = Spec { levels: Some(16), scales: Scales::Group(GROUP), ..Spec::floats("nf4", 4.0) };

pub(super) static NF4: Nf4 = Nf4 { spec: SPEC, double: false };
pub(super) static NF4_DQ: Nf4 = Nf4 { spec: Spec { name: "nf4_dq", ..SPEC }, double: true };

/// Between the levels: a weight has the nearest, the lower one in the middle, as in bitsandbytes.
fn bounds() -> [f32; 16] {
    std::array::from_fn(|i| LEVELS.get(i + 1).map_or(f32::MAX, |next| (LEVELS[i] + next) / 2.0))
}

/// Eight codes, one per byte, as nibbles.
fn nibbles(codes: [u8; COLS]) -> [u8; 4] {
    let v = u64::from_le_bytes(codes);
    let v = (v | v >> 4) & 0x00ff_00ff_00ff_00ff;
    let v = (v | v >> 8) & 0x0000_ffff_0000_ffff;
    ((v | v >> 16) as u32).to_le_bytes()
}

fn blocks(cols: usize) -> usize {
    cols.div_ceil(GROUP)
}

fn units(cols: usize) -> usize {
    size(&[blocks(cols), GROUP / COLS])
}

/// Byte and nibble shift of a code.
fn place(row: usize, col: usize, cols: usize) -> (usize, u32) {
    let at = (row / LANES * units(cols) + col / COLS) * 64 + row % LANES * 4 + col % COLS / 2;
    (at, (col % 2 * 4) as u32)
}

impl Format for Nf4 {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn parts(&self, rows: usize, cols: usize, _: &[Bytes]) -> Vec<StoredPart> {
        let panels = rows.div_ceil(LANES);
        let codes = StoredPart::codes(size(&[panels, units(cols), 64]));
        let absmax = |bytes| StoredPart { name: "absmax", bytes, holds: Holds::Scales };
        match self.double {
            false => vec![codes, absmax(size(&[panels, blocks(cols), LANES, 4]))],
            true => vec![
                codes,
                absmax(size(&[panels, blocks(cols), LANES])),
                StoredPart {
                    name: "ranges",
                    bytes: size(&[panels, blocks(cols).div_ceil(DOUBLE), 8]),
                    holds: Holds::Scales,
                },
            ],
        }
    }

    fn quantize_rows(&'static self, w: &[f32], rows: usize, cols: usize, _: &QuantizeOptions) -> Result<Packed, Error> {
        check_finite(w, rows, cols)?;
        float::check_bf16(self.spec.name, w, cols)?;
        let panels = rows.div_ceil(LANES);
        // [panels, blocks, 16]
        let mut absmax = vec![0.0f32; panels * blocks(cols) * LANES];
        let mut packed = vec![0u8; panels * units(cols) * 64];
        let (bounds, mut codes) = (bounds(), vec![0; units(cols) * COLS]);
        for (row, w) in w.chunks_exact(cols).enumerate() {
            let (panel, lane) = (row / LANES, row % LANES);
            for (block, (w, codes)) in w.chunks(GROUP).zip(codes.chunks_mut(GROUP)).enumerate() {
                let top = Magnitude::of(w).largest();
                absmax[(panel * blocks(cols) + block) * LANES + lane] = top;
                quantizer::rank(&bounds, w, top, &mut codes[..w.len()]);
            }
            let places = packed[panel * units(cols) * 64..].chunks_exact_mut(64);
            for (codes, unit) in codes.as_chunks::<COLS>().0.iter().zip(places) {
                unit[lane * 4..][..4].copy_from_slice(&nibbles(*codes));
            }
        }
        let mut parts = vec![Bytes::new(packed)];
        if self.double {
            let (mut small, mut ranges) = (Vec::new(), Vec::new());
            for panel in absmax.chunks(blocks(cols) * LANES) {
                for group in panel.chunks(DOUBLE * LANES) {
                    let (low, high) = group.iter().fold((f32::INFINITY, 0.0f32), |(l, h), &v| (l.min(v), h.max(v)));
                    let step = (high - low) / 255.0;
                    ranges.extend([low, step]);
                    small.extend(
                        group.iter().map(|v| if step == 0.0 { 0 } else { ((v - low) / step).round_ties_even() as u8 }),
                    );
                }
            }
            parts.extend([Bytes::new(small), Bytes::from_f32(&ranges)]);
        } else {
            parts.push(Bytes::from_f32(&absmax));
        }
        Packed::from_parts(self, rows, cols, parts)
    }

    fn dequantize_row(&self, p: &Packed, row: usize, out: &mut [f32]) {
        let codes: &[u8] = &p.parts[0];
        let view = View { p, double: self.double };
        for (block, out) in out.chunks_mut(GROUP).enumerate() {
            let top = view.absmax(row / LANES, block)[row % LANES];
            for (i, out) in out.iter_mut().enumerate() {
                let (at, shift) = place(row, block * GROUP + i, p.cols);
                *out = LEVELS[(codes[at] >> shift & 15) as usize] * top;
            }
        }
    }

    fn ways(&self) -> Vec<Way> {
        float::ways()
    }

    fn matmul(&self, cpu: &Cpu, p: &Packed, x: Activations, y: &mut [f32]) {
        let view = View { p, double: self.double };
        float::product(cpu, &view, &|panels, x, out| cpu.isa.run(Nf4Gemv { view, panels, x, out }), p, x, y);
    }

    fn takes_bf16(&self, cpu: &Cpu, tokens: usize) -> bool {
        float::takes_bf16(cpu, tokens)
    }

    fn validate(&self, p: &Packed) -> Result<(), Error> {
        let (name, view) = (self.spec.name, View { p, double: self.double });
        check_scales(name, if self.double { "range" } else { "scale" }, floats(&p.parts[p.parts.len() - 1]))?;
        let (groups, codes) = (blocks(p.cols), &p.parts[0]);
        for block in 0..p.rows.div_ceil(LANES) * groups {
            let (panel, g) = (block / groups, block % groups);
            // Doubly quantized, a small maximum may become 0.
            let exact = !self.double || view.range(panel, g) == [0.0; 2];
            let tops = view.absmax(panel, g);
            let rows = (panel * LANES..p.rows.min((panel + 1) * LANES)).filter(|row| exact && tops[row % LANES] == 0.0);
            for row in rows {
                let is_zero = |col: usize| {
                    let (at, shift) = place(row, col, p.cols);
                    LEVELS[(codes[at] >> shift & 15) as usize] == 0.0
                };
                if !(g * GROUP..p.cols.min((g + 1) * GROUP)).all(is_zero) {
                    return Err(vain_scale(name, block * LANES + row % LANES));
                }
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct View<'a> {
    p: &'a Packed,
    double: bool,
}

impl View<'_> {
    /// The maxima of one block for the 16 rows of a panel.
    #[inline(always)]
    fn absmax(&self, panel: usize, block: usize) -> [f32; LANES] {
        let at = (panel * blocks(self.p.cols) + block) * LANES;
        if !self.double {
            let bytes: &[u8; 4 * LANES] = self.p.parts[1][at * 4..][..4 * LANES].try_into().expect("16 maxima");
            return std::array::from_fn(|i| {
                f32::from_le_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]])
            });
        }
        let codes: &[u8; LANES] = self.p.parts[1][at..at + LANES].try_into().expect("16 codes");
        let [low, step] = self.range(panel, block);
        codes.map(|c| (c as f32).mul_add(step, low))
    }

    /// The smallest of the doubly quantized maxima that a block is among, and their step.
    #[inline(always)]
    fn range(&self, panel: usize, block: usize) -> [f32; 2] {
        let group = panel * blocks(self.p.cols).div_ceil(DOUBLE) + block / DOUBLE;
        let mut range = floats(&self.p.parts[2][group * 8..group * 8 + 8]);
        std::array::from_fn(|_| range.next().expect("a minimum and a step"))
    }
}

impl Quads for View<'_> {
    fn layout(&self) -> Layout {
        Layout { kind: OperandKind::Bf16, length: units(self.p.cols) * COLS / 2, quads: COLS / 2, group: None }
    }

    fn decode(&self, isa: Isa, panel: usize, span: Range<usize>, out: &mut [u8]) {
        isa.run(Decode { view: *self, panel, span, out });
    }

    fn epilogue(&self, _: usize) -> Epilogue {
        Epilogue::Totals
    }
}

impl FloatPanels for View<'_> {
    fn columns(&self, isa: Isa, panel: usize, out: &mut [f32]) {
        isa.run(Columns { view: *self, panel, out });
    }
}

/// Units to pairs of weights, rounded to bf16 (halves up).
struct Decode<'a> {
    view: View<'a>,
    panel: usize,
    span: Range<usize>,
    out: &'a mut [u8],
}

impl Op for Decode<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Decode { view, panel, span, out } = self;
        let (half, high) = (s.splat_i(0x8000), s.splat_i(0xffff_0000_u32 as i32));
        let table = s.load_part(&LEVELS, 0.0);
        let first = panel * units(view.p.cols);
        let codes = &view.p.parts[0][(first + span.start) * 64..(first + span.end) * 64];
        assert!(out.len() >= span.len() * 4 * 64);
        let mut unit = span.start;
        while unit < span.end {
            let block = unit * COLS / GROUP;
            let end = ((block + 1) * GROUP / COLS).min(span.end);
            let top = s.load_part(&view.absmax(panel, block), 0.0);
            for i in unit - span.start..end - span.start {
                // SAFETY: within the lengths just checked; a prefetch may name any address.
                unsafe {
                    let at = codes.as_ptr().add(i * 64);
                    s.prefetch(at.wrapping_add(codes.len()));
                    let columns = levels(s, table, s.load_i(at));
                    for q in 0..COLS / 2 {
                        let even = s.add_i(s.as_i(s.mul(columns[2 * q], top)), half);
                        let odd = s.add_i(s.as_i(s.mul(columns[2 * q + 1], top)), half);
                        let pair = s.or(s.shr::<16>(even), s.and(odd, high));
                        s.store_i(out.as_mut_ptr().add((i * 4 + q) * 64), pair);
                    }
                }
            }
            unit = end;
        }
    }
}

/// The eight columns of a unit as levels.
#[inline(always)]
fn levels<S: Simd>(s: S, table: S::F, v: S::I) -> [S::F; COLS] {
    [
        s.lookup(table, v),
        s.lookup(table, s.shr::<4>(v)),
        s.lookup(table, s.shr::<8>(v)),
        s.lookup(table, s.shr::<12>(v)),
        s.lookup(table, s.shr::<16>(v)),
        s.lookup(table, s.shr::<20>(v)),
        s.lookup(table, s.shr::<24>(v)),
        s.lookup(table, s.shr::<28>(v)),
    ]
}

/// Weights of one panel as f32, `[cols][16]`.
struct Columns<'a> {
    view: View<'a>,
    panel: usize,
    out: &'a mut [f32],
}

impl Op for Columns<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let table = s.load_part(&LEVELS, 0.0);
        let p = self.view.p;
        for unit in 0..p.cols.div_ceil(COLS) {
            let top = s.load_part(&self.view.absmax(self.panel, unit * COLS / GROUP), 0.0);
            let codes = &p.parts[0][(self.panel * units(p.cols) + unit) * 64..][..64];
            // SAFETY: 64 bytes, as just sliced.
            let columns = levels(s, table, unsafe { s.load_i(codes.as_ptr()) });
            for (j, column) in columns.into_iter().enumerate().take(p.cols - unit * COLS) {
                s.store_part(&mut self.out[(unit * COLS + j) * LANES..][..LANES], s.mul(column, top));
            }
        }
    }
}

/// A range of panels times one token: exact levels from a register table, one fold per block.
struct Nf4Gemv<'a> {
    view: View<'a>,
    panels: Range<usize>,
    x: &'a [f32],
    out: &'a SharedMut<'a, f32>,
}

impl Op for Nf4Gemv<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for panel in self.panels.clone() {
            let first = panel * LANES;
            // SAFETY: the task owns the outputs of its panels.
            let out = unsafe { self.out.slice(first..(first + LANES).min(self.view.p.rows)) };
            s.store_part(out, self.panel(s, panel));
        }
    }
}

impl Nf4Gemv<'_> {
    #[inline(always)]
    fn panel<S: Simd>(&self, s: S, panel: usize) -> S::F {
        let p = self.view.p;
        let units = units(p.cols);
        let codes = p.parts[0][panel * units * 64..(panel + 1) * units * 64].as_chunks::<64>().0;
        let table = s.load_part(&LEVELS, 0.0);
        let mut total = s.splat(0.0);
        let (whole, last) = self.x.as_chunks::<GROUP>();
        let mut padded = [0.0f32; GROUP];
        padded[..last.len()].copy_from_slice(last);
        let blocks = whole.iter().chain((!last.is_empty()).then_some(&padded));
        for (block, (codes, x)) in codes.chunks(GROUP / COLS).zip(blocks).enumerate() {
            // One sum per column of a unit, so that additions do not wait for each other.
            let mut acc = [s.splat(0.0); COLS];
            for (unit, x) in codes.iter().zip(x.as_chunks::<COLS>().0) {
                // SAFETY: 64 bytes; a prefetch may name any address.
                let v = unsafe {
                    s.prefetch(unit.as_ptr().wrapping_add(AHEAD));
                    s.load_i(unit.as_ptr())
                };
                let columns = levels(s, table, v);
                for j in 0..COLS {
                    acc[j] = s.fma(columns[j], s.splat(x[j]), acc[j]);
                }
            }
            let fours: [S::F; 4] = std::array::from_fn(|j| s.add(acc[j], acc[j + 4]));
            let sum = s.add(s.add(fours[0], fours[2]), s.add(fours[1], fours[3]));
            let top = s.load_part(&self.view.absmax(panel, block), 0.0);
            total = s.fma(sum, top, total);
        }
        total
    }
}
