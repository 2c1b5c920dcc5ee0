//! Formats of small integer codes: `w = (code - zero) * scale` with one scale per tensor or row, or
//! `w = code * scale + offset` per group of 64 columns.

use super::codec::{self, Codec, UNITS};
use super::few;
use super::round::{self, Rule};
use super::tiles::{self, After, Epilogue, Groups, Kind, Layout, Quads, finish_rows, fold};
use super::widened;
use super::{AHEAD, Format, Packed, Part, QuantizeOptions, check_finite, check_scales};
use crate::pool::SharedMut;
use crate::rows::GROUP;
use crate::simd::{LANES, Simd};
use crate::{Bytes, Cpu, Error, Int8Rows, Isa, Op, Rows};
use half::f16;
use std::ops::Range;

/// Over what a scale is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// The whole matrix.
    Tensor,
    /// A row (output channel).
    Row,
    /// 64 columns of a row; with an offset.
    Group,
}

/// An integer format over a codec of `Q` quads per unit.
#[derive(Debug)]
pub(super) struct Integer<C, const Q: usize> {
    pub name: &'static str,
    pub codec: C,
    pub zero: u8,
    pub share: Share,
    pub rule: Rule,
}

impl<C: Codec<Q> + std::fmt::Debug, const Q: usize> Integer<C, Q> {
    fn units(&self, cols: usize) -> usize {
        match self.share {
            Share::Group => codec::units::<Q>(cols.next_multiple_of(GROUP)),
            _ => codec::units::<Q>(cols),
        }
    }

    /// The product with 8-bit activations; each task ends with `after` on its panels.
    pub(super) fn product(&self, cpu: &Cpu, p: &Packed, q: &Int8Rows, y: &mut [f32], after: After) {
        self.view(p).product(cpu, q, y, after);
    }

    fn view<'a>(&self, p: &'a Packed) -> View<'a, C, Q> {
        View {
            p,
            codes: &p.parts[0],
            scales: RowScales { scales: &p.parts[1], shared: self.share == Share::Tensor },
            units: self.units(p.cols),
            zero: self.zero,
            share: self.share,
            codec: self.codec,
        }
    }
}

impl<C: Codec<Q> + std::fmt::Debug, const Q: usize> Format for Integer<C, Q> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn parts(&self, rows: usize, cols: usize, _: &[Bytes]) -> Vec<Part> {
        let panels = rows.div_ceil(LANES);
        let scales = match self.share {
            Share::Tensor => 4,
            Share::Row => rows * 4,
            Share::Group => panels * cols.div_ceil(GROUP) * 2 * LANES * 2,
        };
        vec![Part { name: "codes", bytes: panels * self.units(cols) * 64 }, Part { name: "scales", bytes: scales }]
    }

    fn quantize(&self, w: &[f32], rows: usize, cols: usize, options: &QuantizeOptions) -> Result<Packed, Error> {
        check_finite(w, cols)?;
        let mut codes = vec![self.zero; rows * cols];
        let scales = match (self.share, self.rule) {
            (Share::Group, Rule::MinMax { max }) => {
                let groups = cols.div_ceil(GROUP);
                let mut out = vec![f16::ZERO; rows.div_ceil(LANES) * groups * 2 * LANES];
                for (row, (w, codes)) in w.chunks_exact(cols).zip(codes.chunks_exact_mut(cols)).enumerate() {
                    round::min_max(w, max, codes, |g, scale, offset| {
                        let at = (row / LANES * groups + g) * 2 * LANES + row % LANES;
                        (out[at], out[at + LANES]) = (scale, offset);
                    });
                }
                Bytes::new(out.iter().flat_map(|h| h.to_le_bytes()).collect::<Vec<u8>>())
            }
            (share, rule) => {
                let whole = (share == Share::Tensor).then(|| options.magnitude(w));
                Bytes::from_f32(&round::scales(rule, whole, w, cols, self.zero, &mut codes))
            }
        };
        let packed = codec::pack_matrix::<C, Q>(rows, cols, self.units(cols), self.zero, &codes);
        Packed::from_parts(super::find(self.name)?, rows, cols, vec![Bytes::new(packed), scales])
    }

    fn pack_ternary(&self, codes: &[u8], scale: f32, rows: usize, cols: usize) -> Option<Result<Packed, Error>> {
        assert_eq!(codes.len(), rows * cols, "codes are [rows, cols]");
        (self.rule == Rule::Absmean).then(|| {
            let packed = codec::pack_matrix::<C, Q>(rows, cols, self.units(cols), self.zero, codes);
            let scales = Bytes::from_f32(&vec![scale; if self.share == Share::Tensor { 1 } else { rows }]);
            Packed::from_parts(super::find(self.name)?, rows, cols, vec![Bytes::new(packed), scales])
        })
    }

    fn shares_scale(&self) -> bool {
        self.share == Share::Tensor
    }

    fn dequantize_row(&self, p: &Packed, row: usize, out: &mut [f32]) {
        let view = self.view(p);
        codec::unpack_row::<C, Q>(&p.parts[0], view.units, row, p.cols, |col, code| {
            out[col] = match self.share {
                Share::Group => {
                    let (scale, offset) = view.group(row, col / GROUP);
                    (code as f32).mul_add(scale, offset)
                }
                _ => (code as i32 - self.zero as i32) as f32 * view.scales.row(row),
            };
        });
    }

    fn matmul(&self, cpu: &Cpu, p: &Packed, x: Rows, y: &mut [f32]) {
        let view = self.view(p);
        match x {
            Rows::Int8(q) => view.product(cpu, q, y, &|_, _| {}),
            _ if y.len() / p.rows <= widened::most_tokens(cpu.isa) => widened::product(cpu, &view, &x.floats(), y),
            _ => tiles::product_f32(cpu, &view, p.rows, p.cols, x, y),
        }
    }

    fn validate(&self, p: &Packed) -> Result<(), Error> {
        let name = self.name;
        if self.rule == Rule::Absmean
            && let Some(at) = super::first(&p.parts[0], C::is_odd)
        {
            return Err(Error::Corrupt(format!(
                "{name}: byte {at} of `codes` is {}, which no ternary codes give",
                p.parts[0][at]
            )));
        }
        match self.share {
            Share::Group => {
                check_scales(name, p.parts[1].chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()))
            }
            _ => check_scales(name, super::floats(&p.parts[1])),
        }
    }
}

/// A packed matrix with what its format knows.
pub(super) struct View<'a, C, const Q: usize> {
    pub p: &'a Packed,
    pub codes: &'a [u8],
    pub scales: RowScales<'a>,
    pub units: usize,
    pub zero: u8,
    pub share: Share,
    codec: C,
}

impl<C: Codec<Q>, const Q: usize> View<'_, C, Q> {
    pub fn groups(&self) -> usize {
        self.p.cols.div_ceil(GROUP)
    }

    fn group(&self, row: usize, g: usize) -> (f32, f32) {
        let at = ((row / LANES * self.groups() + g) * 2 * LANES + row % LANES) * 2;
        let half = |at: usize| f16::from_le_bytes([self.scales.scales[at], self.scales.scales[at + 1]]).to_f32();
        (half(at), half(at + 2 * LANES))
    }

    /// Scales and offsets of one group of a panel.
    #[inline(always)]
    pub fn group_vectors<S: Simd>(&self, s: S, panel: usize, g: usize) -> (S::F, S::F) {
        let halves = &self.scales.scales[(panel * self.groups() + g) * 4 * LANES..][..4 * LANES];
        // SAFETY: 16 f16 scales, then 16 f16 offsets, as just cut.
        unsafe { (s.load_f16(halves.as_ptr().cast()), s.load_f16(halves.as_ptr().add(2 * LANES).cast())) }
    }

    fn panel(&self, panel: usize) -> &[u8] {
        &self.codes[panel * self.units * 64..][..self.units * 64]
    }

    fn product(&self, cpu: &Cpu, q: &Int8Rows, y: &mut [f32], after: After) {
        assert_eq!(q.cols, self.p.cols, "activations are [tokens, cols]");
        let groups = Groups::from(q);
        if q.tokens > 1 {
            if few::product(cpu, self, groups, y, after) {
                return;
            }
            return tiles::product(cpu, self, self.p.rows, groups, y, after);
        }
        let panels = self.p.rows.div_ceil(LANES);
        let grain = super::stream_grain(self.units * 64, panels);
        let out = SharedMut::new(y);
        cpu.pool.run(panels.div_ceil(grain), &|task| {
            let range = task * grain..((task + 1) * grain).min(panels);
            cpu.isa.run(OneToken { view: self, x: groups, panels: range.clone(), out: &out });
            after(range, &out);
        });
    }
}

/// A range of panels times one token: one stream of codes, in the order of memory.
struct OneToken<'a, C, const Q: usize> {
    view: &'a View<'a, C, Q>,
    x: Groups<'a>,
    panels: Range<usize>,
    out: &'a SharedMut<'a, f32>,
}

impl<C: Codec<Q>, const Q: usize> Op for OneToken<'_, C, Q> {
    type Out = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for panel in self.panels.clone() {
            let value = match (self.view.share == Share::Group, S::ACCUMULATORS >= 28) {
                (true, true) => self.grouped::<S, 4>(s, panel),
                (true, false) => self.grouped::<S, 1>(s, panel),
                (false, true) => self.whole::<S, 4>(s, panel),
                (false, false) => self.whole::<S, 1>(s, panel),
            };
            let first = panel * LANES;
            // SAFETY: the task owns the outputs of its panels.
            s.store_part(unsafe { self.out.slice(first..(first + LANES).min(self.view.p.rows)) }, value);
        }
    }
}

impl<C: Codec<Q>, const Q: usize> OneToken<'_, C, Q> {
    /// The sum of the products of some units of a panel.
    #[inline(always)]
    fn sums<S: Simd, const U: usize>(&self, s: S, codes: &[u8], x: &[u8]) -> S::I {
        let mut total = s.splat_i(0);
        for (codes, x) in codes.chunks(UNITS * 64).zip(x.chunks(UNITS * Q * 4)) {
            total = s.add_i(total, self.part::<S, U>(s, codes, x));
        }
        total
    }

    /// The same for at most [`UNITS`] units. `U` units have sums of their own, so that products do not wait for each other.
    #[inline(always)]
    fn part<S: Simd, const U: usize>(&self, s: S, codes: &[u8], x: &[u8]) -> S::I {
        let units = codes.len() / 64;
        assert!(x.len() >= units * Q * 4);
        let mut acc = [[s.splat_i(0); Q]; U];
        // SAFETY: unit < units: inside the activations and the codes, as just checked.
        unsafe {
            for first in (0..units / U * U).step_by(U) {
                for u in 0..U {
                    acc[u] = Self::unit(
                        s,
                        codes.as_ptr().add((first + u) * 64),
                        x.as_ptr().add((first + u) * Q * 4),
                        acc[u],
                    );
                }
            }
            for unit in units / U * U..units {
                acc[0] = Self::unit(s, codes.as_ptr().add(unit * 64), x.as_ptr().add(unit * Q * 4), acc[0]);
            }
        }
        let mut sums = acc[0];
        for more in &acc[1..] {
            for q in 0..Q {
                sums[q] = s.add_i(sums[q], more[q]);
            }
        }
        C::combine(s, sums)
    }

    /// Adds the products of one unit.
    ///
    /// # Safety
    /// `codes` points to 64 bytes, `x` to `4 Q`.
    #[inline(always)]
    unsafe fn unit<S: Simd>(s: S, codes: *const u8, x: *const u8, sums: [S::I; Q]) -> [S::I; Q] {
        // SAFETY: by the contract; a prefetch may name any address.
        unsafe {
            s.prefetch(codes.wrapping_add(AHEAD));
            C::multiply(s, s.load_i(codes), sums, |q| s.splat_i(x.add(q * 4).cast::<i32>().read_unaligned()))
        }
    }

    /// Outputs of a panel whose rows have one scale each.
    #[inline(always)]
    fn whole<S: Simd, const U: usize>(&self, s: S, panel: usize) -> S::F {
        let (v, x) = (self.view, &self.x);
        let sums = self.sums::<S, U>(s, v.panel(panel), x.x.single());
        finish_rows(s, sums, v.zero as i32, x.totals[0], x.scale[0], s.load_part(&v.scales.panel(panel), 0.0))
    }

    /// Outputs of a panel with scale and offset per group.
    #[inline(always)]
    fn grouped<S: Simd, const U: usize>(&self, s: S, panel: usize) -> S::F {
        let (v, x) = (self.view, &self.x);
        let mut total = s.splat(0.0);
        let groups = v.panel(panel).chunks_exact(GROUP * 16 / Q).zip(x.x.single().chunks_exact(GROUP));
        for (g, ((codes, row), sum)) in groups.zip(x.sums).enumerate() {
            let (scale, offset) = v.group_vectors(s, panel, g);
            total = fold(s, total, self.part::<S, U>(s, codes, row), *sum, scale, offset);
        }
        s.mul(total, s.splat(x.scale[0]))
    }
}

/// One f32 scale per row, or one for all rows.
#[derive(Clone, Copy)]
pub(super) struct RowScales<'a> {
    pub scales: &'a [u8],
    pub shared: bool,
}

impl RowScales<'_> {
    pub fn row(&self, row: usize) -> f32 {
        let at = if self.shared { 0 } else { row * 4 };
        f32::from_le_bytes(self.scales[at..at + 4].try_into().expect("four bytes"))
    }

    /// The scale of each row of a panel; beyond the last row codes are 0, so that any scale will do.
    pub fn panel(&self, panel: usize) -> [f32; LANES] {
        if self.shared {
            return [self.row(0); LANES];
        }
        let stored = self.scales[panel * LANES * 4..].as_chunks::<4>().0;
        match stored.first_chunk::<LANES>() {
            Some(all) => all.map(f32::from_le_bytes),
            None => std::array::from_fn(|i| stored.get(i).map_or(0.0, |bytes| f32::from_le_bytes(*bytes))),
        }
    }
}

impl<C: Codec<Q>, const Q: usize> Quads for View<'_, C, Q> {
    fn layout(&self) -> Layout {
        match self.share {
            Share::Group => Layout { kind: Kind::Int, length: self.units * Q, quads: Q, group: Some(GROUP / 4) },
            _ => Layout { kind: Kind::Int, length: self.p.cols.div_ceil(4), quads: Q, group: None },
        }
    }

    fn stored(&self, panels: Range<usize>) -> Option<&[u8]> {
        (Q == 1).then(|| &self.codes[panels.start * self.units * 64..panels.end * self.units * 64])
    }

    fn decode(&self, isa: Isa, panel: usize, units: Range<usize>, out: &mut [u8]) {
        let bytes = &self.panel(panel)[units.start * 64..units.end * 64];
        isa.run(Decode::<C, Q> { _codec: self.codec, bytes, out });
    }

    fn group_scales(&self, isa: Isa, panel: usize, groups: Range<usize>, step: usize, out: &mut [f32]) {
        let at = |g: usize| (panel * self.groups() + g) * 4 * LANES;
        isa.run(Widen { halves: &self.scales.scales[at(groups.start)..at(groups.end)], step, out });
    }

    fn epilogue(&self, panel: usize) -> Epilogue {
        match self.share {
            Share::Group => Epilogue::Totals,
            _ => Epilogue::Rows { zero: self.zero as i32, scales: self.scales.panel(panel) },
        }
    }

    fn columns(&self, isa: Isa, panel: usize, out: &mut [f32]) {
        let grouped = self.share == Share::Group;
        let mut groups = vec![0.0; if grouped { self.groups() * 2 * LANES } else { 0 }];
        if grouped {
            self.group_scales(isa, panel, 0..self.groups(), 1, &mut groups);
        }
        isa.run(Columns::new(self.codec, self.panel(panel), self.zero, &groups, self.p.cols, out));
    }
}

/// Scales and offsets of groups, 32 f16 each, to f32: those of a group to `out[g * step * 32..]`.
struct Widen<'a> {
    halves: &'a [u8],
    step: usize,
    out: &'a mut [f32],
}

impl Op for Widen<'_> {
    type Out = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for (halves, out) in self.halves.chunks_exact(4 * LANES).zip(self.out.chunks_mut(self.step * 2 * LANES)) {
            for (halves, out) in halves.chunks_exact(2 * LANES).zip(out.as_chunks_mut::<LANES>().0) {
                // SAFETY: 16 halves to 16 floats, as just cut.
                unsafe { s.store(out.as_mut_ptr(), s.load_f16(halves.as_ptr().cast())) };
            }
        }
    }
}

struct Decode<'a, C, const Q: usize> {
    _codec: C,
    bytes: &'a [u8],
    out: &'a mut [u8],
}

impl<C: Codec<Q>, const Q: usize> Op for Decode<'_, C, Q> {
    type Out = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let units = self.bytes.len() / 64;
        assert!(self.out.len() >= units * Q * 64);
        for unit in 0..units {
            // SAFETY: within the lengths just checked; a prefetch may name any address.
            unsafe {
                let at = self.bytes.as_ptr().add(unit * 64);
                // The next chunk of the panel, while this one is multiplied.
                s.prefetch(at.wrapping_add(self.bytes.len()));
                let codes = C::codes(s, s.load_i(at));
                for q in 0..Q {
                    s.store_i(self.out.as_mut_ptr().add((unit * Q + q) * 64), codes[q]);
                }
            }
        }
    }
}

/// Weights of one panel as f32, `[cols][16]`, or integers where rows have scales.
pub(super) struct Columns<'a, C, const Q: usize> {
    _codec: C,
    bytes: &'a [u8],
    zero: u8,
    groups: &'a [f32],
    cols: usize,
    out: &'a mut [f32],
}

impl<'a, C, const Q: usize> Columns<'a, C, Q> {
    /// From the units of the panel, and scale and offset of each group, if there are groups.
    pub fn new(codec: C, bytes: &'a [u8], zero: u8, groups: &'a [f32], cols: usize, out: &'a mut [f32]) -> Self {
        Columns { _codec: codec, bytes, zero, groups, cols, out }
    }
}

impl<C: Codec<Q>, const Q: usize> Op for Columns<'_, C, Q> {
    type Out = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let zero = s.splat_i(self.zero as i32);
        for unit in 0..self.bytes.len() / 64 {
            let bytes = &self.bytes[unit * 64..][..64];
            // SAFETY: 64 bytes, as just sliced.
            let codes = C::codes(s, unsafe { s.load_i(bytes.as_ptr()) });
            for q in 0..Q {
                for (j, lane) in codec::bytes(s, codes[q]).into_iter().enumerate() {
                    let col = (unit * Q + q) * 4 + j;
                    if col >= self.cols {
                        return;
                    }
                    let value = if self.groups.is_empty() {
                        s.to_f(s.sub_i(lane, zero))
                    } else {
                        let group = &self.groups[col / GROUP * 2 * LANES..][..2 * LANES];
                        s.fma(s.to_f(lane), s.load_part(group, 0.0), s.load_part(&group[LANES..], 0.0))
                    };
                    s.store_part(&mut self.out[col * LANES..][..LANES], value);
                }
            }
        }
    }
}
