//! The formats: those of llama.cpp, whose every dequantized weight has the same bits here, and those of lowbit, with 8-bit scales and
//! offsets of groups in super-blocks.

use super::super::factors::{self, FACTORS};
use super::super::quantizer;
use super::super::spec::{Scales, Spec};
use super::super::tiles::{self, Groups};
use super::super::ways::{self, Capability, Entry, Job, Way};
use super::super::{
    Format, Packed, QuantizeOptions, SEARCHED, StoredPart, check_factors, check_finite, check_scalable, floats, size,
};
use super::folds::{FloatFolds, Int8Folds};
use super::gemv::{self, Tokens};
use super::layout::{Layout, Stored};
use super::planes;
use super::search::{self, Fit, Rounding};
use super::super_block::SuperBlock;
use super::view::{CHAIN, Floats, Ints, View};
use super::{Grouped, SpanScales};
use crate::activations::{BLOCK, Blocked};
use crate::simd::LANES;
use crate::{Activations, Bytes, Cpu, Error, Int8Activations};
use half::f16;
use std::borrow::Cow;

/// Codes of `B` bits, of which `F` columns of a block share a scale: all of them, or a smaller group.
#[derive(Debug)]
pub(in super::super) struct Planar<const B: usize, const F: usize> {
    spec: Spec,
    layout: Layout,
    /// The code that means 0, where there are no offsets.
    zero: Option<u8>,
}

/// A format without super-blocks, of groups of 32 columns.
const fn halves<const B: usize>(name: &'static str, zero: Option<u8>) -> Planar<B, BLOCK> {
    planar(name, Layout { stored: Stored::Halves, log: 5, offsets: zero.is_none() }, zero)
}

/// A format of groups of `2^log` columns in super-blocks whose scales are bytes up to `most`.
const fn bytes<const B: usize, const F: usize>(name: &'static str, log: u32, most: u8) -> Planar<B, F> {
    let stored = Stored::Bytes { most, least: 0, most_offset: most };
    planar(name, Layout { stored, log, offsets: true }, None)
}

/// A format of groups of 16 columns in super-blocks whose scales are signed, and whose codes have a zero.
const fn signed<const B: usize>(name: &'static str, least: i8, most: u8, zero: u8) -> Planar<B, 16> {
    let stored = Stored::Bytes { most, least, most_offset: 0 };
    planar(name, Layout { stored, log: 4, offsets: false }, Some(zero))
}

const fn planar<const B: usize, const F: usize>(name: &'static str, layout: Layout, zero: Option<u8>) -> Planar<B, F> {
    assert!(
        F == if layout.columns() < BLOCK { layout.columns() } else { BLOCK },
        "columns of a block that share a scale"
    );
    let spec = Spec::integers(name, B as f64, 1 << B, Scales::Group(layout.columns()));
    Planar { spec: Spec { in_blocks: true, ..spec }, layout, zero }
}

pub(in super::super) static Q4_0: Planar<4, 32> = halves("q4_0", Some(8));
pub(in super::super) static Q4_1: Planar<4, 32> = halves("q4_1", None);
pub(in super::super) static Q5_0: Planar<5, 32> = halves("q5_0", Some(16));
pub(in super::super) static Q5_1: Planar<5, 32> = halves("q5_1", None);
pub(in super::super) static Q8_0: Planar<8, 32> = halves("q8_0", Some(128));
pub(in super::super) static Q2_K: Planar<2, 16> = bytes("q2_k", 4, 15);
pub(in super::super) static Q3_K: Planar<3, 16> = signed("q3_k", -32, 31, 4);
pub(in super::super) static Q4_K: Planar<4, 32> = bytes("q4_k", 5, 63);
pub(in super::super) static Q5_K: Planar<5, 32> = bytes("q5_k", 5, 63);
pub(in super::super) static Q6_K: Planar<6, 16> = signed("q6_k", -128, 127, 32);
pub(in super::super) static INT2_G64: Planar<2, 32> = bytes("int2_g64", 6, 255);
pub(in super::super) static INT2_G128: Planar<2, 32> = bytes("int2_g128", 7, 255);
pub(in super::super) static INT3_G32: Planar<3, 32> = bytes("int3_g32", 5, 255);
pub(in super::super) static INT3_G64: Planar<3, 32> = bytes("int3_g64", 6, 255);
pub(in super::super) static INT3_G128: Planar<3, 32> = bytes("int3_g128", 7, 255);
pub(in super::super) static INT4_G32: Planar<4, 32> = bytes("int4_g32", 5, 255);
pub(in super::super) static INT4_G64: Planar<4, 32> = bytes("int4_g64", 6, 255);
pub(in super::super) static INT4_G128: Planar<4, 32> = bytes("int4_g128", 7, 255);

/// A way to multiply 8-bit activations.
type RunInt8<'a, const B: usize> = fn(&Cpu, View<'a, B>, &Int8Activations, &mut [f32]);
/// A way to multiply f32 activations.
type RunF32<'a, const B: usize> = fn(&Cpu, View<'a, B>, &[f32], &mut [f32]);

/// Tokens up to which decoding codes again for every four of them costs less than storing them.
const FEW: usize = 8;

fn int8_ways<'a, const B: usize, const F: usize>() -> [Entry<RunInt8<'a, B>>; 3] {
    let registers = Way::many(
        "block_registers",
        "int8_block",
        2,
        Capability::ManyRegisters,
        "one stream of codes for a few tokens",
    );
    let stream: RunInt8<'a, B> = |cpu, view, q, y| {
        let folds = Int8Folds::new(cpu, q, &view.layout, view.zero, B < 8);
        gemv::product::<B, F>(cpu, view, Tokens::Int8(&q.q, q.scale()), folds.get(), y);
    };
    [
        Entry::new(ways::BLOCK_STRIPS, |cpu, view, q, y| {
            let folds = Int8Folds::new(cpu, q, &view.layout, view.zero, B < 8);
            tiles::product(cpu, &Ints(view), view.p.rows, Groups::int8(q, Some(folds.get())), y, &|_, _| {});
        }),
        Entry { way: registers, pays: |job| job.tokens <= FEW, run: stream },
        Entry::new(ways::BLOCK_GEMV, stream),
    ]
}

fn f32_ways<'a, const B: usize, const F: usize>() -> [Entry<RunF32<'a, B>>; 3] {
    let strips =
        Way::many("f32_strips", "f32", 2, Capability::Any, "codes widened to memory, sums folded group by group");
    let registers =
        Way::many("f32_registers", "f32", 2, Capability::ManyRegisters, "one stream of codes for a few tokens");
    let one = Way::one("f32_gemv", "f32", "one stream of codes, widened in registers");
    let stream: RunF32<'a, B> = |cpu, view, x, y| {
        let rows = Blocked::floats(cpu, x, view.p.cols);
        let folds = FloatFolds::new(cpu, &rows, view.p.cols, CHAIN, view.layout.offsets);
        gemv::product::<B, F>(cpu, view, Tokens::F32(&rows), folds.get(), y);
    };
    [
        Entry::new(strips, |cpu, view, x, y| {
            let rows = Blocked::floats(cpu, x, view.p.cols);
            let folds = FloatFolds::new(cpu, &rows, view.p.cols, CHAIN, view.layout.offsets);
            let x = Groups::floats(&rows, Some(folds.get()));
            tiles::product(cpu, &Floats(view), view.p.rows, x, y, &|_, _| {});
        }),
        Entry { way: registers, pays: |job| job.tokens <= FEW, run: stream },
        Entry::new(one, stream),
    ]
}

impl<const B: usize, const F: usize> Planar<B, F> {
    fn view<'a>(&self, p: &'a Packed) -> View<'a, B> {
        View::new(p, self.layout, self.zero)
    }

    /// Codes and scales, with factors, of rows whose spans have scales, `[rows, spans]`.
    fn encode(&self, [rows, cols]: [usize; 2], codes: &[u8], scales: &[SpanScales]) -> Vec<Bytes> {
        let (panels, blocks, spans) = (rows.div_ceil(LANES), cols.div_ceil(BLOCK), self.layout.spans(cols));
        let bytes = self.layout.bytes(cols);
        let mut units = vec![0u8; panels * blocks * B * 64];
        let mut stored = vec![0u8; panels * (bytes + FACTORS)];
        for (panel, (units, stored)) in
            units.chunks_exact_mut(blocks * B * 64).zip(stored.chunks_exact_mut(bytes + FACTORS)).enumerate()
        {
            let (stored, factors) = stored.split_at_mut(bytes);
            factors.as_chunks_mut::<4>().0.fill(1f32.to_le_bytes());
            for row in panel * LANES..rows.min((panel + 1) * LANES) {
                let lane = row % LANES;
                for (codes, block) in codes[row * cols..][..cols].chunks(BLOCK).zip(units.chunks_exact_mut(B * 64)) {
                    planes::put::<B>(block, lane, codes);
                }
                let scales = &scales[row * spans..][..spans];
                scales.iter().enumerate().for_each(|(span, scales)| self.put_span(stored, lane, span, scales));
                factors[lane * 4..][..4].copy_from_slice(&scales[0].factor.to_le_bytes());
            }
        }
        vec![Bytes::new(units), Bytes::new(stored)]
    }

    /// Stores the scales of a span of one row of a panel.
    fn put_span(&self, panel: &mut [u8], lane: usize, span: usize, scales: &SpanScales) {
        let col = span * self.layout.span();
        let (head, _) = self.layout.place(col);
        panel[head + lane * 2..][..2].copy_from_slice(&scales.scale.to_le_bytes());
        if self.layout.offsets {
            panel[head + (LANES + lane) * 2..][..2].copy_from_slice(&scales.offset.to_le_bytes());
        }
        for (g, [scale, offset]) in scales.stored.iter().enumerate() {
            let (_, at) = self.layout.place(col + g * self.layout.columns());
            panel[at + lane] = *scale;
            if self.layout.offsets {
                panel[at + LANES + lane] = *offset;
            }
        }
    }

    /// Refuses scales of a span of so many columns that the format does not have.
    fn check_span(&self, index: usize, cols: usize, scales: &SpanScales) -> Result<(), Error> {
        let name = self.spec.name;
        let fault =
            |what: &str, value: f16| Error::Corrupt(format!("{name}: {what} {index} is {value}, not a finite number"));
        if !scales.scale.is_finite() {
            return Err(fault("scale", scales.scale));
        }
        if self.layout.offsets && !scales.offset.is_finite() {
            return Err(fault("offset", scales.offset));
        }
        let Stored::Bytes { most, least, most_offset } = self.layout.stored else { return Ok(()) };
        let groups = cols.div_ceil(self.layout.columns());
        if scales.stored.len() != groups {
            let found = scales.stored.len();
            return Err(Error::Corrupt(format!(
                "{name}: super-block {index} has scales of {found} groups, not {groups}"
            )));
        }
        for (g, [scale, offset]) in scales.stored.iter().enumerate() {
            check_byte(name, "scale", index, g, integer(*scale, least), least, most)?;
            if self.layout.offsets {
                check_byte(name, "offset", index, g, i16::from(*offset), 0, most_offset)?;
            }
        }
        Ok(())
    }

    /// The scales of a span of a row as they are stored.
    fn stored_span(&self, view: &View<B>, row: usize, span: usize) -> SpanScales {
        let (panel, lane) = (view.scales(row / LANES), row % LANES);
        let first = span * self.layout.span();
        let half = |at: usize| f16::from_le_bytes([panel[at], panel[at + 1]]);
        let head = self.layout.place(first).0 + lane * 2;
        let offset = if self.layout.offsets { half(head + 2 * LANES) } else { f16::ZERO };
        let last = view.p.cols.min(first + self.layout.span());
        let pair = |col: usize| {
            let at = self.layout.place(col).1 + lane;
            [panel[at], if self.layout.offsets { panel[at + LANES] } else { 0 }]
        };
        let stored = match self.layout.stored {
            Stored::Halves => Vec::new(),
            Stored::Bytes { .. } => (first..last).step_by(self.layout.columns()).map(pair).collect(),
        };
        SpanScales { factor: 1.0, scale: half(head), offset, stored, groups: Vec::new() }
    }

    /// Whether all scales of a panel are those of the format, rows of padding included.
    fn has_valid_scales(&self, panel: &[u8], cols: usize) -> bool {
        let bad = |half: [u8; 2]| u16::from_le_bytes(half) & 0x7c00 == 0x7c00;
        (0..self.layout.spans(cols)).all(|span| {
            let col = span * self.layout.span();
            let (head, bytes) = self.layout.place(col);
            let halves = panel[head..][..self.layout.head()].as_chunks::<2>().0;
            let last = cols.next_multiple_of(BLOCK).min(col + self.layout.span());
            let bytes = &panel[bytes..][..(last - col).div_ceil(self.columns()) * self.layout.group()];
            !halves.iter().fold(false, |any, half| any | bad(*half)) && self.has_valid_bytes(bytes)
        })
    }

    /// Whether all bytes of scales and offsets of some groups are those of the format.
    fn has_valid_bytes(&self, groups: &[u8]) -> bool {
        let Stored::Bytes { most, least, most_offset } = self.layout.stored else { return true };
        let (low, span) = (least as u8, most.wrapping_sub(least as u8));
        if span == u8::MAX && (most_offset == u8::MAX || !self.layout.offsets) {
            return true;
        }
        groups.chunks_exact(self.layout.group()).all(|group| {
            let (scales, offsets) = group.split_at(LANES);
            let bad = scales.iter().fold(false, |any, byte| any | (byte.wrapping_sub(low) > span));
            !bad && offsets.iter().all(|byte| *byte <= most_offset)
        })
    }
}

/// A byte of scales whose smallest value is `least`.
fn integer(byte: u8, least: i8) -> i16 {
    if least < 0 { i16::from(byte as i8) } else { i16::from(byte) }
}

fn check_byte(name: &str, what: &str, index: usize, g: usize, value: i16, least: i8, most: u8) -> Result<(), Error> {
    match (i16::from(least)..=i16::from(most)).contains(&value) {
        true => Ok(()),
        false => Err(Error::Corrupt(format!(
            "{name}: {what} of group {g} of super-block {index} is {value}, not {least} to {most}"
        ))),
    }
}

impl<const B: usize, const F: usize> Grouped for Planar<B, F> {
    fn columns(&self) -> usize {
        self.layout.columns()
    }

    fn span(&self) -> usize {
        self.layout.span()
    }

    fn most(&self) -> u8 {
        ((1u16 << B) - 1) as u8
    }

    fn zero(&self) -> Option<u8> {
        self.zero
    }

    fn any_scale(&self) -> bool {
        true
    }

    fn scales(&self, scale: f16, offset: f16, stored: &[[u8; 2]]) -> SpanScales {
        let group = |scale: f32, offset: f32| (scale, self.zero.map_or(offset, |zero| -f32::from(zero) * scale));
        let (first, second) = (scale.to_f32(), offset.to_f32());
        let groups = match self.layout.stored {
            Stored::Halves => vec![group(first, second)],
            Stored::Bytes { least, .. } => {
                let one =
                    |pair: &[u8; 2]| group(first * f32::from(integer(pair[0], least)), -(second * f32::from(pair[1])));
                stored.iter().map(one).collect()
            }
        };
        SpanScales { factor: 1.0, scale, offset, stored: stored.to_vec(), groups }
    }

    fn choose(&self, w: &[f32], importance: Option<&[f32]>) -> SpanScales {
        assert!(w.len() <= self.span(), "the weights of a span");
        match self.layout.stored {
            Stored::Halves => {
                let fit = Fit { w, importance, most: self.most(), zero: self.zero, rounding: Rounding::Half };
                let (scale, offset) = fit.run();
                self.scales(f16::from_f32(scale), self.zero.map_or(f16::from_f32(offset), |_| f16::ZERO), &[])
            }
            Stored::Bytes { most, least, most_offset } => {
                let (columns, zero) = (self.columns(), self.zero);
                let scales = i16::from(least)..=i16::from(most);
                let search = SuperBlock { w, importance, columns, most: self.most(), zero, scales, most_offset };
                let (scale, offset, stored) = search.choose();
                self.scales(scale, offset, &stored)
            }
        }
    }

    fn pack(&'static self, rows: usize, cols: usize, codes: &[u8], scales: &[SpanScales]) -> Result<Packed, Error> {
        let spans = self.layout.spans(cols);
        assert_eq!((rows.checked_mul(cols), rows.checked_mul(spans)), (Some(codes.len()), Some(scales.len())));
        super::check_codes(self.spec.name, codes, cols, self.most())?;
        for (row, scales) in scales.chunks(spans.max(1)).enumerate() {
            let factor = super::shared_factor(row, scales)?;
            check_factors(self.spec.name, &format!("of row {row}, row factor"), std::iter::once(factor))?;
            for (span, scales) in scales.iter().enumerate() {
                self.check_span(row * spans + span, self.span().min(cols - span * self.span()), scales)?;
            }
        }
        Packed::from_parts(self, rows, cols, self.encode([rows, cols], codes, scales)).map(|p| self.settle(p))
    }

    fn unpack(&self, packed: &Packed, row: usize) -> Option<(Vec<u8>, Vec<SpanScales>)> {
        assert!(packed.format.name() == self.spec.name && row < packed.rows, "a row of a matrix of this format");
        let view = self.view(packed);
        let blocks = view.codes(row / LANES).chunks_exact(B * 64);
        let mut codes: Vec<u8> = blocks.flat_map(|block| planes::get::<B>(block, row % LANES)).collect();
        codes.truncate(packed.cols);
        let factor = view.factors(row / LANES).map_or(1.0, |factors| factors[row % LANES]);
        let scales = (0..self.layout.spans(packed.cols)).map(|span| {
            let stored = self.stored_span(&view, row, span);
            self.scales(stored.scale, stored.offset, &stored.stored).times(factor)
        });
        Some((codes, scales.collect()))
    }
}

impl<const B: usize, const F: usize> Format for Planar<B, F> {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn parts(&self, rows: usize, cols: usize, found: &[Bytes]) -> Vec<StoredPart> {
        factors::parts(rows, size(&[cols.div_ceil(BLOCK), B, 64]), self.layout.bytes(cols), found)
    }

    fn quantize_rows(
        &'static self,
        w: &[f32],
        rows: usize,
        cols: usize,
        options: &QuantizeOptions,
    ) -> Result<Packed, Error> {
        check_finite(w, rows, cols)?;
        check_scalable(w, cols, self.spec.name, SEARCHED)?;
        let importance = options.importance(cols)?;
        let (mut codes, mut scales) = (vec![0; rows * cols], Vec::with_capacity(rows * self.layout.spans(cols)));
        for (w, codes) in w.chunks_exact(cols).zip(codes.chunks_exact_mut(cols)) {
            let (factor, w) = quantizer::normalized(w);
            for (span, (w, codes)) in w.chunks(self.span()).zip(codes.chunks_mut(self.span())).enumerate() {
                let importance = importance.map(|all| &all[span * self.span()..][..w.len()]);
                let chosen = self.choose(w, importance);
                let groups = w.chunks(self.columns()).zip(codes.chunks_mut(self.columns()));
                for ((w, codes), (scale, offset)) in groups.zip(&chosen.groups) {
                    search::round(w, *scale, *offset, self.most(), codes);
                }
                scales.push(chosen.times(factor));
            }
        }
        Packed::from_parts(self, rows, cols, self.encode([rows, cols], &codes, &scales))
    }

    fn settle(&self, packed: Packed) -> Packed {
        let bytes = self.layout.bytes(packed.cols);
        factors::settle(packed, 1, bytes)
    }

    fn grouped(&'static self) -> Option<&'static dyn Grouped> {
        Some(self)
    }

    fn dequantize_row(&self, p: &Packed, row: usize, out: &mut [f32]) {
        let view = self.view(p);
        let factor = view.factors(row / LANES).map_or(1.0, |factors| factors[row % LANES]);
        let blocks = view.codes(row / LANES).chunks_exact(B * 64);
        for (block, (codes, out)) in blocks.zip(out.chunks_mut(BLOCK)).enumerate() {
            let codes = planes::get::<B>(codes, row % LANES);
            for (h, (codes, out)) in codes.chunks(F).zip(out.chunks_mut(F)).enumerate() {
                let (scale, offset) = view.group(row, (block * BLOCK + h * F) / self.columns());
                let weight = |code: u8| match self.zero {
                    Some(zero) => (f32::from(code) - f32::from(zero)) * scale,
                    None => f32::from(code).mul_add(scale, offset),
                };
                codes.iter().zip(out).for_each(|(code, out)| *out = weight(*code) * factor);
            }
        }
    }

    fn ways(&self) -> Vec<Way> {
        let int8 = int8_ways::<B, F>().map(|entry| entry.way);
        int8.into_iter().chain(f32_ways::<B, F>().map(|entry| entry.way)).collect()
    }

    fn matmul(&self, cpu: &Cpu, p: &Packed, x: Activations, y: &mut [f32]) {
        let view = self.view(p);
        let job = |tokens| Job { isa: cpu.isa, tokens, weights: p.rows * p.cols, grouped: true };
        match x {
            Activations::Int8(q) => (ways::choose(&int8_ways::<B, F>(), cpu, job(q.tokens)).run)(cpu, view, q, y),
            _ => {
                let x: Cow<[f32]> = x.floats();
                (ways::choose(&f32_ways::<B, F>(), cpu, job(x.len() / p.cols)).run)(cpu, view, &x, y);
            }
        }
        factors::multiply(p.rows, y, |panel| view.factors(panel));
    }

    fn validate(&self, p: &Packed) -> Result<(), Error> {
        let (name, view, spans) = (self.spec.name, self.view(p), self.layout.spans(p.cols));
        for panel in 0..p.rows.div_ceil(LANES) {
            if !self.has_valid_scales(view.scales(panel), p.cols) {
                for row in panel * LANES..p.rows.min((panel + 1) * LANES) {
                    for span in 0..spans {
                        let cols = self.span().min(p.cols - span * self.span());
                        self.check_span(row * spans + span, cols, &self.stored_span(&view, row, span))?;
                    }
                }
            }
            let factors = floats(&view.scales(panel)[self.layout.bytes(p.cols)..]);
            check_factors(name, &format!("of panel {panel}, row factor"), factors)?;
        }
        Ok(())
    }
}
