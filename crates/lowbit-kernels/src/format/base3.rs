//! Ternary weights, five to a byte: `byte = ceil(v * 256 / 243)`, `v` being the five codes in base 3, the first most
//! significant, so that the leading digit of `byte * 3^q mod 256` is code `q` (the idea of TQ1_0).
//!
//! The codes of a byte belong to the same column of five panels, so that all of them meet the same activation. With
//! `r = byte * 3^q mod 256`, and `r'` the next of these, code `q` is `(3 r - r') / 256`; hence the outputs of five panels are
//! differences of six sums `r x`, and no code is ever unpacked where a product with any byte is one instruction.

use super::quantizer::{self, ScaleRule};
use super::spec::{Scales, Spec};
use super::tiles::{self, Epilogue, FloatPanels, Groups, Layout, OperandKind, Quads, finish_rows};
use super::view::{Columns, RowScales};
use super::ways::{self, Capability, Entry, Job, Way};
use super::{
    AHEAD, Format, Packed, QuantizeOptions, StoredPart, check_finite, check_scales, codec, first, floats, one_scale,
    size, vain_scale,
};
use crate::activations::ROW;
use crate::pool::SharedMut;
use crate::simd::{LANES, Simd};
use crate::{Activations, Bytes, Cpu, Error, Int8Activations, Isa, Op, Products, scratch};
use std::ops::Range;

/// Codes of a byte.
const FIVE: usize = 5;
/// Rows of a block: five panels.
const BLOCK: usize = FIVE * LANES;
/// The code of 0.
const ZERO: u8 = 1;
/// Units whose sums fit: `256 * 4 UNITS * 2 * 127 < 2^31`.
const UNITS: usize = 4096;
/// Tokens up to which sums are taken of what is stored; beyond, codes are unpacked once for all.
const FEW: usize = 64;

/// See the top of the file. A unit holds four columns of a block: byte `4 lane + j` has the codes of column `4 unit + j`,
/// rows `lane, 16 + lane, ...` of the block.
#[derive(Debug)]
pub(super) struct Base3 {
    spec: Spec,
}

const fn spec(name: &'static str, scales: Scales) -> Spec {
    Spec { block: BLOCK, ..Spec::integers(name, 1.6, 3, scales) }
}

pub(super) static TERNARY_B3: Base3 = Base3 { spec: spec("ternary_b3", Scales::Tensor) };
pub(super) static TERNARY_B3_CHANNEL: Base3 = Base3 { spec: spec("ternary_b3_channel", Scales::Row) };

/// The codes of a byte: the definition.
fn unpack(byte: u8) -> [u8; FIVE] {
    let mut rest = byte;
    std::array::from_fn(|_| {
        let code = ((rest as u16 * 3) >> 8) as u8;
        rest = rest.wrapping_mul(3);
        code
    })
}

/// The byte of a tuple in base 3.
fn pack(v: u8) -> u8 {
    (v as u16 * 256).div_ceil(243) as u8
}

/// Whether no tuple gives a byte: `byte = ceil(v * 256 / 243)` says `0 <= byte * 243 - v * 256 < 243`.
fn is_invalid(byte: u8) -> bool {
    byte.wrapping_mul(243) >= 243
}

/// Units of a block for so many columns.
fn units(cols: usize) -> usize {
    codec::units::<1>(cols)
}

fn pack_matrix(rows: usize, cols: usize, codes: &[u8]) -> Vec<u8> {
    let mut out = vec![0u8; rows.div_ceil(BLOCK) * units(cols) * 64];
    for (block, out) in out.chunks_exact_mut(units(cols).max(1) * 64).enumerate() {
        for q in 0..FIVE {
            out.iter_mut().for_each(|v| *v = *v * 3 + ZERO);
            for lane in 0..LANES {
                let row = block * BLOCK + q * LANES + lane;
                let codes = if row < rows { &codes[row * cols..][..cols] } else { &[] };
                for (codes, unit) in codes.chunks(4).zip(out.chunks_exact_mut(64)) {
                    for (code, v) in codes.iter().zip(&mut unit[lane * 4..]) {
                        *v = *v - ZERO + code;
                    }
                }
            }
        }
        out.iter_mut().for_each(|v| *v = pack(*v));
    }
    out
}

impl Base3 {
    fn view<'a>(&self, p: &'a Packed) -> View<'a> {
        let scales = RowScales { scales: &p.parts[1], shared: self.spec.shares_scale() };
        View { p, codes: &p.parts[0], scales, units: units(p.cols) }
    }

    fn packed(&'static self, codes: &[u8], scales: Bytes, rows: usize, cols: usize) -> Result<Packed, Error> {
        let packed = Bytes::new(pack_matrix(rows, cols, codes));
        Packed::from_parts(self, rows, cols, vec![packed, scales])
    }
}

impl Format for Base3 {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn parts(&self, rows: usize, cols: usize, _: &[Bytes]) -> Vec<StoredPart> {
        let scales = if self.spec.shares_scale() { 1 } else { rows };
        let codes = size(&[rows.div_ceil(BLOCK), units(cols), 64]);
        // Not `codes`: files of earlier versions, whose bytes hold five columns of a row, must not be taken for these.
        vec![StoredPart { name: "fives", ..StoredPart::codes(codes) }, StoredPart::scales(size(&[scales, 4]))]
    }

    fn quantize_rows(
        &'static self,
        w: &[f32],
        rows: usize,
        cols: usize,
        options: &QuantizeOptions,
    ) -> Result<Packed, Error> {
        check_finite(w, rows, cols)?;
        let mut codes = vec![ZERO; rows * cols];
        let whole = self.spec.shares_scale().then(|| options.magnitude(w));
        let scales = quantizer::scales(ScaleRule::Absmean, whole, w, cols, ZERO, &mut codes);
        self.packed(&codes, Bytes::from_f32(&scales), rows, cols)
    }

    fn pack_ternary(
        &'static self,
        codes: &[u8],
        scale: f32,
        rows: usize,
        cols: usize,
    ) -> Option<Result<Packed, Error>> {
        assert_eq!(Some(codes.len()), rows.checked_mul(cols), "codes are [rows, cols]");
        if let Some(at) = first(codes, |code| code > 2) {
            let (row, col) = (at / cols, at % cols);
            return Some(Err(Error::Corrupt(format!("{}: code {} at [{row}, {col}]", self.spec.name, codes[at]))));
        }
        let scales = vec![scale; if self.spec.shares_scale() { 1 } else { rows }];
        Some(self.packed(codes, Bytes::from_f32(&scales), rows, cols))
    }

    fn ternary_scale(&self, p: &Packed) -> Option<f32> {
        one_scale(&p.parts[1])
    }

    fn dequantize_row(&self, p: &Packed, row: usize, out: &mut [f32]) {
        let view = self.view(p);
        let (scale, q) = (view.scales.row(row), row % BLOCK / LANES);
        for (out, unit) in out.chunks_mut(4).zip(view.block(row / BLOCK).chunks_exact(64)) {
            for (out, byte) in out.iter_mut().zip(&unit[row % LANES * 4..]) {
                *out = (unpack(*byte)[q] as f32 - ZERO as f32) * scale;
            }
        }
    }

    fn ways(&self) -> Vec<Way> {
        table().iter().map(|entry| entry.way).chain([ways::F32_PANELS]).collect()
    }

    fn matmul(&self, cpu: &Cpu, p: &Packed, x: Activations, y: &mut [f32]) {
        let view = self.view(p);
        match x {
            Activations::Int8(q) if p.cols <= MOST_COLUMNS && q.block.is_none() => view.product(cpu, q, y),
            _ => tiles::product_f32(cpu, &view, p.rows, p.cols, &x.floats(), y),
        }
    }

    fn validate(&self, p: &Packed) -> Result<(), Error> {
        let (name, view) = (self.spec.name, self.view(p));
        if let Some(at) = first(&p.parts[0], is_invalid) {
            let byte = p.parts[0][at];
            return Err(Error::Corrupt(format!("{name}: byte {at} of `fives` is {byte}, which no ternary codes give")));
        }
        check_scales(name, "scale", floats(&p.parts[1]))?;
        let has_codes = |row: usize| {
            let quads = view.block(row / BLOCK).chunks_exact(64).flat_map(|unit| &unit[row % LANES * 4..][..4]);
            quads.take(p.cols).any(|byte| unpack(*byte)[row % BLOCK / LANES] != ZERO)
        };
        match (0..p.rows).find(|row| view.scales.row(*row) == 0.0 && has_codes(*row)) {
            Some(row) => Err(vain_scale(name, if view.scales.shared { 0 } else { row })),
            None => Ok(()),
        }
    }
}

/// Most columns whose sums stay inside 32 bits.
const MOST_COLUMNS: usize = i32::MAX as usize / (2 * 127);

/// A way to multiply 8-bit activations.
type Run<'a> = fn(&Cpu, &View<'a>, Groups, &mut [f32]);

fn table<'a>() -> [Entry<Run<'a>>; 3] {
    let sums = Way::many(
        "base3_sums",
        "int8",
        2,
        Capability::DotAndRegisters,
        "sums of what is stored, four tokens at a time",
    );
    [
        Entry::new(ways::INT8_STRIPS, |cpu, view, x, y| tiles::product(cpu, view, view.p.rows, x, y, &|_, _| {})),
        Entry::new(Way::one("base3_gemv", "int8", "sums of what is stored"), |cpu, view, x, y| view.sums(cpu, x, 1, y)),
        Entry { way: sums, pays: |job| job.tokens <= FEW, run: |cpu, view, x, y| view.sums(cpu, x, 4, y) },
    ]
}

/// A packed matrix.
struct View<'a> {
    p: &'a Packed,
    codes: &'a [u8],
    scales: RowScales<'a>,
    /// Units of a block.
    units: usize,
}

impl View<'_> {
    fn block(&self, block: usize) -> &[u8] {
        &self.codes[block * self.units * 64..][..self.units * 64]
    }

    fn product(&self, cpu: &Cpu, q: &Int8Activations, y: &mut [f32]) {
        assert_eq!(q.cols, self.p.cols, "activations are [tokens, cols]");
        let job = Job { isa: cpu.isa, tokens: q.tokens, weights: self.p.rows * self.p.cols, grouped: false };
        (ways::choose(&table(), cpu, job).run)(cpu, self, Groups::int8(q, None), y);
    }

    /// Outputs from sums of what is stored, for `rows` tokens at a time.
    fn sums(&self, cpu: &Cpu, x: Groups, rows: usize, y: &mut [f32]) {
        let blocks = self.p.rows.div_ceil(BLOCK);
        let grain = super::stream_grain(self.units * 64 * x.x.tokens(), blocks);
        let out = SharedMut::new(y);
        cpu.pool.run(blocks.div_ceil(grain), &|task| {
            for block in task * grain..((task + 1) * grain).min(blocks) {
                cpu.isa.run(Block { view: self, x, block, rows, out: &out });
            }
        });
    }
}

/// A block times all tokens, `rows` at a time.
struct Block<'a> {
    view: &'a View<'a>,
    x: Groups<'a>,
    block: usize,
    rows: usize,
    out: &'a SharedMut<'a, f32>,
}

impl Op for Block<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::Int8;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let tokens = self.x.x.tokens();
        match (self.rows, S::MANY_REGISTERS) {
            (1, true) => self.tile::<S, 1, 2>(s, 0),
            (1, false) => self.tile::<S, 1, 1>(s, 0),
            _ => {
                let whole = tokens / 4 * 4;
                (0..whole).step_by(4).for_each(|token| self.tile::<S, 4, 1>(s, token));
                match tokens - whole {
                    0 => {}
                    // A row that follows an odd number of rows is there, and left out of the outputs.
                    1 | 2 => self.tile::<S, 2, 1>(s, whole),
                    _ => self.tile::<S, 4, 1>(s, whole),
                }
            }
        }
    }
}

impl Block<'_> {
    /// Outputs of the block for `T` tokens; `U` units have sums of their own, so that products do not wait for each other.
    #[inline(always)]
    fn tile<S: Simd, const T: usize, const U: usize>(&self, s: S, token: usize) {
        let mut sums = [[s.splat_i(0); FIVE]; T];
        let x = self.x.x;
        let (codes, single) = (self.view.block(self.block), x.tokens() == 1);
        // Columns that lie in one chunk of the activations, and whose sums fit.
        let step = if single { UNITS } else { x.chunk() / 4 };
        for (i, codes) in codes.chunks(step * 64).enumerate() {
            let (x, between) = if single { (&x.single()[i * step * 4..], 0) } else { (&x.rows(i)[token * ROW..], ROW) };
            let part = part::<S, T, U>(s, codes, x, between);
            for t in 0..T {
                for q in 0..FIVE {
                    sums[t][q] = s.add_i(sums[t][q], part[t][q]);
                }
            }
        }
        let rows = self.view.p.rows;
        for q in 0..FIVE {
            let first = self.block * BLOCK + q * LANES;
            if first >= rows {
                break;
            }
            let scales = s.load_part(&self.view.scales.panel(first / LANES), 0.0);
            for (token, sums) in (token..self.x.x.tokens()).zip(&sums) {
                let value = finish_rows(s, sums[q], ZERO as i32, self.x.totals[token], self.x.scale[token], scales);
                // SAFETY: the task owns these columns of the output.
                let out = unsafe { self.out.slice(token * rows + first..token * rows + rows.min(first + LANES)) };
                s.store_part(out, value);
            }
        }
    }
}

/// The sums of the products of some units with the codes of each panel, for `T` tokens `between` bytes apart.
#[inline(always)]
fn part<S: Simd, const T: usize, const U: usize>(s: S, codes: &[u8], x: &[u8], between: usize) -> [[S::I; FIVE]; T] {
    let units = codes.len() / 64;
    assert!(x.len() >= (T - 1) * between + units * 4);
    let mut acc = [[[s.splat_i(0); FIVE + 1]; T]; U];
    // SAFETY: unit < units: inside the activations and the codes, as just checked; a prefetch may name any address.
    unsafe {
        let (codes, x) = (codes.as_ptr(), x.as_ptr());
        for first in (0..units / U * U).step_by(U) {
            for u in 0..U {
                s.prefetch(codes.wrapping_add((first + u) * 64 + AHEAD));
                acc[u] = add(s, codes.add((first + u) * 64), x.add((first + u) * 4), between, acc[u]);
            }
        }
        for unit in units / U * U..units {
            acc[0] = add(s, codes.add(unit * 64), x.add(unit * 4), between, acc[0]);
        }
    }
    let mut sums = [[s.splat_i(0); FIVE]; T];
    for t in 0..T {
        let mut r = acc[0][t];
        for more in &acc[1..] {
            for q in 0..=FIVE {
                r[q] = s.add_i(r[q], more[t][q]);
            }
        }
        for q in 0..FIVE {
            sums[t][q] = match S::FAST_DOT {
                // Wraps on the way.
                true => s.sar::<8>(s.sub_i(s.add_i(r[q], s.add_i(r[q], r[q])), r[q + 1])),
                false => s.sar::<6>(r[q]),
            };
        }
    }
    sums
}

/// Adds the products of one unit: with `byte * 3^q mod 256`, or with 64 times each code.
///
/// # Safety
/// `codes` points to 64 bytes, `x` to 4, and so do the places of further tokens.
#[inline(always)]
unsafe fn add<S: Simd, const T: usize>(
    s: S,
    codes: *const u8,
    x: *const u8,
    between: usize,
    mut acc: [[S::I; FIVE + 1]; T],
) -> [[S::I; FIVE + 1]; T] {
    // SAFETY: by the contract.
    unsafe {
        let x: [S::I; T] = std::array::from_fn(|t| s.splat_i(x.add(t * between).cast::<i32>().read_unaligned()));
        let mut r = s.load_i(codes);
        for q in 0..=FIVE {
            for t in 0..T {
                if S::FAST_DOT {
                    acc[t][q] = s.dot(acc[t][q], r, x[t]);
                } else if q < FIVE {
                    acc[t][q] = s.dot_small(acc[t][q], leading(s, r), x[t]);
                }
            }
            if q < FIVE {
                r = s.triple_b(r);
            }
        }
        acc
    }
}

/// The leading code times 64: `(3 r >> 8) << 6`, by averages that round up of `r - 1`; exact for every byte.
#[inline(always)]
fn leading<S: Simd>(s: S, r: S::I) -> S::I {
    let r = s.subs_b(r, s.splat_i(0x0101_0101));
    s.and(s.avg_b(r, s.avg_b(r, s.splat_i(0))), s.splat_i(0xc0c0_c0c0_u32 as i32))
}

impl Quads for View<'_> {
    fn layout(&self) -> Layout {
        Layout { kind: OperandKind::Int, length: self.units, quads: 1, group: None }
    }

    fn decode(&self, isa: Isa, panel: usize, units: Range<usize>, out: &mut [u8]) {
        let bytes = &self.block(panel / FIVE)[units.start * 64..units.end * 64];
        isa.run(Decode { bytes, panel: panel % FIVE, out });
    }

    fn epilogue(&self, panel: usize) -> Epilogue {
        Epilogue::Rows { zero: ZERO as i32, scales: self.scales.panel(panel) }
    }
}

impl FloatPanels for View<'_> {
    fn columns(&self, isa: Isa, panel: usize, out: &mut [f32]) {
        let mut quads = scratch::take(self.units * 64);
        let quads = &mut quads.bytes()[..self.units * 64];
        self.decode(isa, panel, 0..self.units, quads);
        isa.run(Columns::new(codec::Byte, quads, &[], self.p.cols, out).from(ZERO));
    }
}

/// The codes of one panel of a block.
struct Decode<'a> {
    bytes: &'a [u8],
    /// 0 to 4.
    panel: usize,
    out: &'a mut [u8],
}

impl Op for Decode<'_> {
    type Out = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        match self.panel {
            0 => self.codes::<S, 0>(s),
            1 => self.codes::<S, 1>(s),
            2 => self.codes::<S, 2>(s),
            3 => self.codes::<S, 3>(s),
            _ => self.codes::<S, 4>(s),
        }
    }
}

impl Decode<'_> {
    #[inline(always)]
    fn codes<S: Simd, const Q: usize>(self, s: S) {
        let mask = s.splat_i(0x0303_0303);
        for (unit, out) in self.bytes.chunks_exact(64).zip(self.out.chunks_exact_mut(64)) {
            // SAFETY: 64 bytes each.
            unsafe {
                let mut r = s.load_i(unit.as_ptr());
                for _ in 0..Q {
                    r = s.triple_b(r);
                }
                s.store_i(out.as_mut_ptr(), s.and(s.shr::<6>(leading(s, r)), mask));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_243_tuples_survive_on_every_isa() {
        for v in 0..243u8 {
            let codes: [u8; FIVE] = std::array::from_fn(|i| v / 3u8.pow(4 - i as u32) % 3);
            let byte = pack(v);
            assert_eq!(unpack(byte), codes);
            for isa in Isa::available() {
                for (panel, code) in codes.into_iter().enumerate() {
                    let mut out = [9; 64];
                    isa.run(Decode { bytes: &[byte; 64], panel, out: &mut out });
                    assert_eq!(out, [code; 64], "{byte} on {}", isa.name());
                }
            }
        }
    }

    #[test]
    fn sums_of_every_tuple_are_exact_on_every_isa() {
        struct Sums<'a>(&'a [u8], &'a [u8]);
        impl Op for Sums<'_> {
            type Out = [i32; FIVE];
            #[inline(always)]
            fn eval<S: Simd>(self, s: S) -> Self::Out {
                let lane = |v| {
                    let mut lanes = [0i32; LANES];
                    // SAFETY: the array holds 64 bytes.
                    unsafe { s.store_i(lanes.as_mut_ptr().cast(), v) };
                    assert!(lanes.iter().all(|lane| *lane == lanes[0]));
                    lanes[0]
                };
                part::<S, 1, 2>(s, self.0, self.1, 0)[0].map(lane)
            }
        }
        for x in [127u8, -127i8 as u8, 1] {
            for v in [0, 242, 121, 80, 200, 2, 162] {
                let (codes, x4) = (vec![pack(v); 64 * UNITS], vec![x; 4 * UNITS]);
                let want = unpack(pack(v)).map(|code| code as i32 * x as i8 as i32 * 4 * UNITS as i32);
                for isa in Isa::available() {
                    assert_eq!(isa.run(Sums(&codes, &x4)), want, "{v} {x} on {}", isa.name());
                }
            }
        }
    }

    #[test]
    fn bytes_that_no_tuple_gives_are_invalid() {
        for byte in 0..=255u8 {
            let codes = unpack(byte);
            let v = codes.iter().fold(0u16, |v, code| v * 3 + *code as u16);
            let invalid = v > 242 || pack(v as u8) != byte || codes.iter().any(|code| *code > 2);
            assert_eq!(is_invalid(byte), invalid, "{byte}");
        }
    }
}
