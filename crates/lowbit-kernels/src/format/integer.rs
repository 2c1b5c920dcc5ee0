//! Formats of small integer codes: `w = (code - zero) * scale` with one scale per tensor, row or group, or
//! `w = code * scale + offset` per group.
//!
//! Scales and offsets of groups are f16. A row whose weights leave the range in which these are precise is divided by a power
//! of two first; where a row of a matrix needs that, the scales of each panel end with 16 f32 factors of its rows.

use super::codec::{self, Codec};
use super::factors::{self, FACTORS};
use super::grouped::{self, Fit, Grouped, Rounding, SpanScales};
use super::quantizer::{self, ScaleRule};
use super::spec::{Scales, Spec};
use super::tiles::{self, After, Folds, Groups};
use super::view::{self, View};
use super::ways::{self, Capability, Entry, Job, Way};
use super::{
    Format, Packed, QuantizeOptions, ROUNDED, SEARCHED, StoredPart, check_factors, check_finite, check_scalable,
    check_scales, floats, gemv, registers, registers_f32, size,
};
use crate::activations::GROUP;
use crate::pool::SharedMut;
use crate::simd::LANES;
use crate::{Activations, Bytes, Cpu, Error, Int8Activations};
use half::f16;
use std::ops::Range;

/// An integer format over a codec of `Q` quads per unit.
#[derive(Debug)]
pub(super) struct Integer<C, const Q: usize> {
    pub spec: Spec,
    pub codec: C,
    pub rule: ScaleRule,
}

/// A way to multiply 8-bit activations.
type RunInt8<'a, C, const Q: usize> = fn(&Cpu, &View<'a, C, Q>, Groups, &mut [f32], After);
/// A way to multiply f32 activations.
type RunF32<'a, C, const Q: usize> = fn(&Cpu, &View<'a, C, Q>, &[f32], &mut [f32]);

fn int8_ways<'a, C: Codec<Q>, const Q: usize>() -> [Entry<RunInt8<'a, C, Q>>; 3] {
    let registers = Way::many("int8_registers", "int8", 2, Capability::ManyRegisters, "codes decoded in registers");
    [
        Entry::new(ways::INT8_STRIPS, |cpu, view, x, y, after| tiles::product(cpu, view, view.p.rows, x, y, after)),
        Entry::new(Way::one("int8_gemv", "int8", "one stream of codes"), gemv::product),
        Entry { way: registers, pays: registers::pays, run: registers::product },
    ]
}

/// Ways to multiply 8-bit activations whose blocks have scales.
fn block_ways<'a, C: Codec<Q>, const Q: usize>() -> [Entry<RunInt8<'a, C, Q>>; 2] {
    [
        Entry::new(ways::BLOCK_STRIPS, |cpu, view, x, y, after| tiles::product(cpu, view, view.p.rows, x, y, after)),
        Entry::new(ways::BLOCK_GEMV, gemv::product),
    ]
}

fn f32_ways<'a, C: Codec<Q>, const Q: usize>() -> [Entry<RunF32<'a, C, Q>>; 2] {
    let registers = Way::many("f32_registers", "f32", 1, Capability::Any, "codes widened in registers");
    [
        Entry::new(ways::F32_PANELS, |cpu, view, x, y| tiles::product_f32(cpu, view, view.p.rows, view.p.cols, x, y)),
        Entry { way: registers, pays: registers_f32::pays, run: registers_f32::product },
    ]
}

impl<C: Codec<Q>, const Q: usize> View<'_, C, Q> {
    fn job(&self, cpu: &Cpu, tokens: usize) -> Job {
        Job { isa: cpu.isa, tokens, weights: self.p.rows * self.p.cols, grouped: self.group.is_some() }
    }

    /// The product with 8-bit activations; each task ends with `after` on its panels.
    fn multiply(&self, cpu: &Cpu, q: &Int8Activations, y: &mut [f32], after: After) {
        assert_eq!(q.cols, self.p.cols, "activations are [tokens, cols]");
        let folds = match self.group {
            Some(_) => Folds::of_groups(q),
            None => Folds::of_rows(q, C::ZERO.into()),
        };
        let x = Groups::int8(q, folds.map(|folds| Folds { small: C::MOST <= 128, ..folds }));
        let job = self.job(cpu, q.tokens);
        if q.block.is_some() {
            return (ways::choose(&block_ways(), cpu, job).run)(cpu, self, x, y, after);
        }
        if self.sums_fit() {
            return (ways::choose(&int8_ways(), cpu, job).run)(cpu, self, x, y, after);
        }
        self.multiply_f32(cpu, &q.dequantize(), y);
        after(0..self.p.rows.div_ceil(LANES), &SharedMut::new(y));
    }

    /// The product with f32 activations.
    fn multiply_f32(&self, cpu: &Cpu, x: &[f32], y: &mut [f32]) {
        let ways = f32_ways();
        (ways::choose(&ways, cpu, self.job(cpu, x.len() / self.p.cols)).run)(cpu, self, x, y);
    }
}

impl<C: Codec<Q> + std::fmt::Debug, const Q: usize> Integer<C, Q> {
    /// The product with 8-bit activations; each task ends with `after` on its panels.
    pub(super) fn product(&self, cpu: &Cpu, p: &Packed, q: &Int8Activations, y: &mut [f32], after: After) {
        self.view(p).multiply(cpu, q, y, after);
    }

    fn view<'a>(&self, p: &'a Packed) -> View<'a, C, Q> {
        View::new(p, self.spec.scales, self.codec)
    }

    /// Codes, `[rows, cols]`, to what is stored of them.
    fn packed(&self, codes: &[u8], rows: usize, cols: usize) -> Bytes {
        let units = view::units::<Q>(self.spec.scales, cols);
        Bytes::new(codec::pack_matrix::<C, Q>(rows, cols, units, C::ZERO, codes))
    }

    /// Scales, with factors, of rows whose groups of `columns` columns have scales: `make` puts scale and offset of each group of a row,
    /// and tells its factor.
    fn group_scales<E>(
        [rows, cols]: [usize; 2],
        columns: usize,
        mut make: impl FnMut(usize, &mut dyn FnMut(usize, f16, f16)) -> Result<f32, E>,
    ) -> Result<Bytes, E> {
        let bytes = View::<C, Q>::panel_bytes(cols, columns);
        let (per_group, vectors) = (bytes / cols.div_ceil(columns).max(1), if C::ZERO == 0 { 2 } else { 1 });
        let mut out = vec![0u8; rows.div_ceil(LANES) * (bytes + FACTORS)];
        for (panel, out) in out.chunks_exact_mut(bytes + FACTORS).enumerate() {
            let (scales, factors) = out.split_at_mut(bytes);
            factors.as_chunks_mut::<4>().0.fill(1f32.to_le_bytes());
            for row in panel * LANES..rows.min((panel + 1) * LANES) {
                let lane = row % LANES;
                let factor = make(row, &mut |g, scale, offset| {
                    let places = scales[g * per_group + lane * 2..].chunks_mut(2 * LANES).take(vectors);
                    places
                        .zip([scale, offset])
                        .for_each(|(place, half)| place[..2].copy_from_slice(&half.to_le_bytes()));
                })?;
                factors[lane * 4..][..4].copy_from_slice(&factor.to_le_bytes());
            }
        }
        Ok(Bytes::new(out))
    }

    /// Codes and scales of rows whose groups of `columns` columns have scales.
    fn quantize_groups(
        &self,
        w: &[f32],
        shape: [usize; 2],
        columns: usize,
        importance: Option<&[f32]>,
        codes: &mut [u8],
    ) -> Bytes {
        let made: Result<Bytes, std::convert::Infallible> = Self::group_scales(shape, columns, |row, put| {
            let range = row * shape[1]..(row + 1) * shape[1];
            let (factor, w) = quantizer::normalized(&w[range.clone()]);
            quantizer::groups(self.rule, columns, &w, importance, &mut codes[range], C::ZERO, put);
            Ok(factor)
        });
        let Ok(scales) = made;
        scales
    }

    /// Whether codes of some columns of a row do not all mean 0, or what the offset says.
    fn has_codes(&self, view: &View<C, Q>, row: usize, columns: Range<usize>) -> bool {
        let mut any = false;
        codec::unpack_row::<C, Q>(view.codes, view.units, row, view.p.cols, |col, code| {
            any |= columns.contains(&col) && code != C::ZERO;
        });
        any
    }

    /// Refuses f32 scales that are none, and those of 0 whose codes do not all mean 0.
    fn check_row_scales(&self, p: &Packed) -> Result<(), Error> {
        let (name, view) = (self.spec.name, self.view(p));
        check_scales(name, "scale", floats(&p.parts[1]))?;
        let mut empty = (0..p.rows).filter(|row| view.scales.row(*row) == 0.0);
        match empty.find(|row| self.has_codes(&view, *row, 0..p.cols)) {
            Some(row) => Err(super::vain_scale(name, if view.scales.shared { 0 } else { row })),
            None => Ok(()),
        }
    }

    /// The same of f16 scales, and offsets, of groups of `columns` columns, and of factors.
    fn check_group_scales(&self, p: &Packed, columns: usize) -> Result<(), Error> {
        let (name, view, groups) = (self.spec.name, self.view(p), p.cols.div_ceil(columns));
        let bytes = View::<C, Q>::panel_bytes(p.cols, columns);
        let (panels, vectors) = (p.rows.div_ceil(LANES), bytes / groups.max(1) / (2 * LANES));
        for (panel, stored) in p.parts[1].chunks_exact((p.parts[1].len() / panels.max(1)).max(1)).enumerate() {
            let (halves, factors) = stored.split_at(bytes);
            let (halves, _) = halves.as_chunks::<2>();
            // Counted over all panels, without factors.
            let index = |at: usize| panel * halves.len() + at;
            let value = |at: usize| f16::from_le_bytes(halves[at]);
            let is_scale = |at: usize| (at / LANES).is_multiple_of(vectors);
            if let Some(at) = super::first(halves, |half| u16::from_le_bytes(half) & 0x7c00 == 0x7c00) {
                let (what, at, value) = (if is_scale(at) { "scale" } else { "offset" }, index(at), value(at));
                return Err(Error::Corrupt(format!("{name}: {what} {at} is {value}, not a finite number")));
            }
            for at in (0..halves.len()).filter(|at| is_scale(*at)) {
                let bits = u16::from_le_bytes(halves[at]);
                if bits & 0x8000 != 0 {
                    let (at, value) = (index(at), value(at));
                    return Err(Error::Corrupt(format!("{name}: scale {at} is {value}; scales are positive")));
                }
                let (row, first) = (panel * LANES + at % LANES, at / (vectors * LANES) * columns);
                let range = first..p.cols.min(first + columns);
                if bits == 0 && row < p.rows && self.has_codes(&view, row, range) {
                    return Err(super::vain_scale(name, index(at)));
                }
            }
            check_factors(name, &format!("of panel {panel}, row factor"), floats(factors))?;
        }
        Ok(())
    }
}

impl<C: Codec<Q> + std::fmt::Debug, const Q: usize> Grouped for Integer<C, Q> {
    fn columns(&self) -> usize {
        match self.spec.scales {
            Scales::Group(columns) => columns,
            _ => unreachable!("groups have scales where offsets are"),
        }
    }

    fn most(&self) -> u8 {
        C::MOST
    }

    fn choose(&self, w: &[f32], importance: Option<&[f32]>) -> SpanScales {
        let fit = Fit { w, importance, most: C::MOST, zero: None, rounding: Rounding::Half };
        let (scale, offset) = fit.run();
        self.scales(f16::from_f32(scale), f16::from_f32(offset), &[])
    }

    fn pack(&'static self, rows: usize, cols: usize, codes: &[u8], scales: &[SpanScales]) -> Result<Packed, Error> {
        let spans = cols.div_ceil(self.columns());
        assert_eq!((rows.checked_mul(cols), rows.checked_mul(spans)), (Some(codes.len()), Some(scales.len())));
        grouped::check_codes(self.spec.name, codes, cols, C::MOST)?;
        let scales = Self::group_scales([rows, cols], self.columns(), |row, put| {
            let spans = &scales[row * spans..][..spans];
            spans.iter().enumerate().for_each(|(g, span)| put(g, span.scale, span.offset));
            grouped::shared_factor(row, spans)
        })?;
        Packed::from_parts(self, rows, cols, vec![self.packed(codes, rows, cols), scales]).map(|p| self.settle(p))
    }
}

impl<C: Codec<Q> + std::fmt::Debug, const Q: usize> Format for Integer<C, Q> {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn parts(&self, rows: usize, cols: usize, found: &[Bytes]) -> Vec<StoredPart> {
        let units = view::units::<Q>(self.spec.scales, cols);
        let codes = StoredPart::codes(size(&[rows.div_ceil(LANES), units, 64]));
        match self.spec.scales {
            Scales::Group(columns) => {
                factors::parts(rows, size(&[units, 64]), View::<C, Q>::panel_bytes(cols, columns), found)
            }
            Scales::Row => vec![codes, StoredPart::scales(size(&[rows, 4]))],
            _ => vec![codes, StoredPart::scales(4)],
        }
    }

    fn quantize_rows(
        &'static self,
        w: &[f32],
        rows: usize,
        cols: usize,
        options: &QuantizeOptions,
    ) -> Result<Packed, Error> {
        check_finite(w, rows, cols)?;
        check_scalable(w, cols, self.spec.name, if C::ZERO == 0 { SEARCHED } else { ROUNDED })?;
        let importance = options.importance(cols)?;
        let mut codes = vec![C::ZERO; rows * cols];
        let scales = match self.spec.scales {
            Scales::Group(columns) => self.quantize_groups(w, [rows, cols], columns, importance, &mut codes),
            scales => {
                let whole = (scales == Scales::Tensor).then(|| options.magnitude(w));
                Bytes::from_f32(&quantizer::scales(self.rule, whole, w, cols, C::ZERO, &mut codes))
            }
        };
        Packed::from_parts(self, rows, cols, vec![self.packed(&codes, rows, cols), scales])
    }

    fn settle(&self, packed: Packed) -> Packed {
        match self.spec.scales {
            Scales::Group(columns) => {
                let bytes = View::<C, Q>::panel_bytes(packed.cols, columns);
                factors::settle(packed, 1, bytes)
            }
            _ => packed,
        }
    }

    fn pack_ternary(
        &'static self,
        codes: &[u8],
        scale: f32,
        rows: usize,
        cols: usize,
    ) -> Option<Result<Packed, Error>> {
        assert_eq!(Some(codes.len()), rows.checked_mul(cols), "codes are [rows, cols]");
        self.spec.is_ternary().then(|| {
            let scales = match self.spec.scales {
                Scales::Group(columns) => {
                    // The scale is the factor of each row, so that it keeps its 32 bits.
                    let (half, factor) = if scale == 0.0 { (f16::ZERO, 1.0) } else { (f16::ONE, scale) };
                    let mut panel = half.to_le_bytes().repeat(View::<C, Q>::panel_bytes(cols, columns) / 2);
                    panel.extend(factor.to_le_bytes().repeat(LANES));
                    Bytes::new(panel.repeat(rows.div_ceil(LANES)))
                }
                Scales::Row => Bytes::from_f32(&vec![scale; rows]),
                _ => Bytes::from_f32(&[scale]),
            };
            Packed::from_parts(self, rows, cols, vec![self.packed(codes, rows, cols), scales])
        })
    }

    fn grouped(&'static self) -> Option<&'static dyn Grouped> {
        (C::ZERO == 0).then_some(self)
    }

    fn ternary_scale(&self, p: &Packed) -> Option<f32> {
        if !self.spec.is_ternary() || p.rows == 0 {
            return None;
        }
        let view = self.view(p);
        let of_group = |row: usize, g: usize| {
            view.group_of(row, g).0 * view.factors(row / LANES).map_or(1.0, |factors| factors[row % LANES])
        };
        match self.spec.scales {
            Scales::Group(_) => {
                let first = of_group(0, 0);
                let mut all = (0..p.rows).flat_map(|row| (0..view.groups()).map(move |g| (row, g)));
                all.all(|(row, g)| of_group(row, g).to_bits() == first.to_bits()).then_some(first)
            }
            _ => super::one_scale(&p.parts[1]),
        }
    }

    fn dequantize_row(&self, p: &Packed, row: usize, out: &mut [f32]) {
        let view = self.view(p);
        codec::unpack_row::<C, Q>(view.codes, view.units, row, p.cols, |col, code| {
            out[col] = match view.group {
                Some(_) => {
                    let (scale, offset) = view.group_of(row, col / GROUP);
                    f32::from(code).mul_add(scale, offset)
                }
                None => (i32::from(code) - i32::from(C::ZERO)) as f32 * view.scales.row(row),
            };
        });
        if let Some(factors) = view.factors(row / LANES) {
            out.iter_mut().for_each(|w| *w *= factors[row % LANES]);
        }
    }

    fn ways(&self) -> Vec<Way> {
        int8_ways::<C, Q>()
            .iter()
            .map(|entry| entry.way)
            .chain(block_ways::<C, Q>().iter().map(|entry| entry.way))
            .chain(f32_ways::<C, Q>().iter().map(|entry| entry.way))
            .collect()
    }

    fn matmul(&self, cpu: &Cpu, p: &Packed, x: Activations, y: &mut [f32]) {
        let view = self.view(p);
        match x {
            Activations::Int8(q) => view.multiply(cpu, q, y, &|_, _| {}),
            _ => view.multiply_f32(cpu, &x.floats(), y),
        }
        factors::multiply(p.rows, y, |panel| view.factors(panel));
    }

    fn validate(&self, p: &Packed) -> Result<(), Error> {
        let name = self.spec.name;
        if let Some(at) = super::first(&p.parts[0], C::is_invalid) {
            let byte = p.parts[0][at];
            return Err(Error::Corrupt(format!("{name}: byte {at} of `codes` is {byte}, which no codes give")));
        }
        match self.spec.scales {
            Scales::Group(columns) => self.check_group_scales(p, columns),
            _ => self.check_row_scales(p),
        }
    }
}
