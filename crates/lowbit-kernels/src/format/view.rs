//! A packed matrix of small integer codes as its kernels see it: codes, and scales over the matrix, a row or a group.

use super::codec::{self, Codec};
use super::factors;
use super::spec::Scales;
use super::tiles::{Epilogue, FloatPanels, Layout, OperandKind, Quads};
use super::{Packed, size};
use crate::activations::GROUP;
use crate::simd::{LANES, Simd};
use crate::{Isa, Op, Products};
use half::f16;
use std::ops::Range;

/// Units of a panel for so many columns: whole groups of [`GROUP`] columns where groups have scales.
pub(super) fn units<const Q: usize>(scales: Scales, cols: usize) -> usize {
    match scales {
        Scales::Group(_) => codec::units::<Q>(size(&[cols.div_ceil(GROUP), GROUP])),
        _ => codec::units::<Q>(cols),
    }
}

/// A packed matrix with what its format knows: `w = (code - C::ZERO) * scale`, or, in groups of a codec whose codes begin at
/// 0, `w = code * scale + offset`.
pub(super) struct View<'a, C, const Q: usize> {
    pub p: &'a Packed,
    pub codes: &'a [u8],
    pub scales: RowScales<'a>,
    pub units: usize,
    /// Columns that share a scale, where groups have scales: a multiple of [`GROUP`].
    pub group: Option<usize>,
    /// Bytes of the scales of a panel, where groups have scales; 16 f32 factors of its rows may end them.
    stride: usize,
    codec: C,
}

impl<'a, C: Codec<Q>, const Q: usize> View<'a, C, Q> {
    /// The view of a matrix whose first two parts are codes and scales.
    pub fn new(p: &'a Packed, scales: Scales, codec: C) -> Self {
        let group = match scales {
            Scales::Group(columns) => Some(columns),
            _ => None,
        };
        let units = units::<Q>(scales, p.cols);
        let stride = p.parts[1].len() / p.rows.div_ceil(LANES).max(1);
        let scales = RowScales { scales: &p.parts[1], shared: scales == Scales::Tensor };
        View { p, codes: &p.parts[0], scales, units, group, stride, codec }
    }

    /// Bytes of the stored scales, and offsets, of one group of a panel.
    const HALVES: usize = if C::ZERO == 0 { 4 * LANES } else { 2 * LANES };

    /// Bytes of the scales of all groups of `columns` columns of a panel, without factors.
    pub fn panel_bytes(cols: usize, columns: usize) -> usize {
        size(&[cols.div_ceil(columns), Self::HALVES])
    }

    /// Power of two that each row of a panel is multiplied with last; `None` where rows have none.
    pub fn factors(&self, panel: usize) -> Option<[f32; LANES]> {
        let bytes = Self::panel_bytes(self.p.cols, self.group?);
        factors::of(&self.scales.scales[panel * self.stride..][..self.stride], bytes)
    }

    /// Groups of [`GROUP`] columns, over which kernels keep sums.
    pub fn groups(&self) -> usize {
        self.units * 4 * Q / GROUP
    }

    /// Where the stored scales of a group of [`GROUP`] columns of a panel begin.
    #[inline(always)]
    fn place(&self, panel: usize, g: usize) -> usize {
        let columns = self.group.unwrap_or(GROUP);
        panel * self.stride + g * GROUP / columns * Self::HALVES
    }

    /// Scale and offset of a row in a group of [`GROUP`] columns.
    pub fn group_of(&self, row: usize, g: usize) -> (f32, f32) {
        let at = self.place(row / LANES, g) + row % LANES * 2;
        let half = |at: usize| f16::from_le_bytes([self.scales.scales[at], self.scales.scales[at + 1]]).to_f32();
        let scale = half(at);
        (scale, if C::ZERO == 0 { half(at + 2 * LANES) } else { -scale * f32::from(C::ZERO) })
    }

    /// Scales and offsets of one group of [`GROUP`] columns of a panel.
    #[inline(always)]
    pub fn group_vectors<S: Simd>(&self, s: S, panel: usize, g: usize) -> (S::F, S::F) {
        group_vectors::<S, C, Q>(s, &self.scales.scales[self.place(panel, g)..][..Self::HALVES])
    }

    /// The codes of a panel.
    pub fn panel(&self, panel: usize) -> &[u8] {
        &self.codes[panel * self.units * 64..][..self.units * 64]
    }

    /// Largest `|code - C::ZERO|` times the largest activation.
    const LARGEST: usize = {
        let (low, high) = (C::ZERO as usize, C::MOST as usize - C::ZERO as usize);
        127 * if low > high { low } else { high }
    };

    /// Whether sums over all columns stay inside 32 bits.
    pub fn sums_fit(&self) -> bool {
        self.group.is_some() || self.p.cols <= i32::MAX as usize / Self::LARGEST
    }
}

/// 16 scales, and 16 offsets, as they are stored.
#[inline(always)]
fn group_vectors<S: Simd, C: Codec<Q>, const Q: usize>(s: S, halves: &[u8]) -> (S::F, S::F) {
    assert!(halves.len() >= if C::ZERO == 0 { 4 * LANES } else { 2 * LANES });
    // SAFETY: 16 f16 scales, then 16 f16 offsets where there are such, as just checked.
    unsafe {
        let scale = s.load_f16(halves.as_ptr().cast());
        match C::ZERO {
            0 => (scale, s.load_f16(halves.as_ptr().add(2 * LANES).cast())),
            zero => (scale, s.mul(scale, s.splat(-f32::from(zero)))),
        }
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
        match self.group {
            Some(_) => Layout { kind: OperandKind::Int, length: self.units * Q, quads: Q, group: Some(GROUP / 4) },
            None => Layout { kind: OperandKind::Int, length: self.p.cols.div_ceil(4), quads: Q, group: None },
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
        isa.run(Widen { view: self, panel, groups, step, out });
    }

    fn epilogue(&self, panel: usize) -> Epilogue {
        match self.group {
            Some(_) => Epilogue::Totals,
            None => Epilogue::Rows { zero: i32::from(C::ZERO), scales: self.scales.panel(panel) },
        }
    }
}

impl<C: Codec<Q>, const Q: usize> FloatPanels for View<'_, C, Q> {
    fn columns(&self, isa: Isa, panel: usize, out: &mut [f32]) {
        let mut groups = vec![0.0; if self.group.is_some() { self.groups() * 2 * LANES } else { 0 }];
        if self.group.is_some() {
            self.group_scales(isa, panel, 0..self.groups(), 1, &mut groups);
        }
        isa.run(Columns::new(self.codec, self.panel(panel), &groups, self.p.cols, out));
    }
}

/// Scales and offsets of groups to f32: those of a group to `out[g * step * 32..]`.
struct Widen<'a, 'v, C, const Q: usize> {
    view: &'a View<'v, C, Q>,
    panel: usize,
    groups: Range<usize>,
    step: usize,
    out: &'a mut [f32],
}

impl<C: Codec<Q>, const Q: usize> Op for Widen<'_, '_, C, Q> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for (g, out) in self.groups.zip(self.out.chunks_mut(self.step * 2 * LANES)) {
            let (scale, offset) = self.view.group_vectors(s, self.panel, g);
            let (scales, offsets) = out[..2 * LANES].split_at_mut(LANES);
            s.store_part(scales, scale);
            s.store_part(offsets, offset);
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
    const PRODUCTS: Products = Products::None;

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

impl<'a, C: Codec<Q>, const Q: usize> Columns<'a, C, Q> {
    /// From the units of the panel, and scale and offset of each group, if there are groups.
    pub fn new(codec: C, bytes: &'a [u8], groups: &'a [f32], cols: usize, out: &'a mut [f32]) -> Self {
        Columns { _codec: codec, bytes, zero: C::ZERO, groups, cols, out }
    }

    /// The decoder with another zero point: the code that means 0.
    pub fn from(self, zero: u8) -> Self {
        Columns { zero, ..self }
    }
}

impl<C: Codec<Q>, const Q: usize> Op for Columns<'_, C, Q> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

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
