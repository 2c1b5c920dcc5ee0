//! A packed matrix of codes in groups as its kernels see it.

use super::super::tiles::{Epilogue, Layout as Shape, OperandKind, Quads};
use super::super::{Packed, factors};
use super::layout::{Layout, Stored};
use super::planes::{self, Levels, QUADS};
use crate::activations::BLOCK;
use crate::simd::{LANES, Simd};
use crate::{Isa, Op, Products};
use half::f16;
use std::ops::Range;

/// A matrix of codes of `B` bits.
#[derive(Clone, Copy)]
pub(super) struct View<'a, const B: usize> {
    pub p: &'a Packed,
    pub layout: Layout,
    /// The code that means 0, where there are no offsets.
    pub zero: Option<u8>,
    /// Blocks of 32 columns of a row.
    pub blocks: usize,
    /// Bytes of the scales of a panel; factors of its rows may end them.
    stride: usize,
}

impl<'a, const B: usize> View<'a, B> {
    pub fn new(p: &'a Packed, layout: Layout, zero: Option<u8>) -> Self {
        let stride = p.parts[1].len() / p.rows.div_ceil(LANES).max(1);
        View { p, layout, zero, blocks: p.cols.div_ceil(BLOCK), stride }
    }

    /// The codes of a panel.
    pub fn codes(&self, panel: usize) -> &'a [u8] {
        &self.p.parts[0][panel * self.blocks * B * 64..][..self.blocks * B * 64]
    }

    /// The scales of a panel, with factors.
    pub fn scales(&self, panel: usize) -> &'a [u8] {
        &self.p.parts[1][panel * self.stride..][..self.stride]
    }

    /// Power of two that each row of a panel is multiplied with last; `None` where rows have none.
    pub fn factors(&self, panel: usize) -> Option<[f32; LANES]> {
        factors::of(self.scales(panel), self.layout.bytes(self.p.cols))
    }

    /// Scale and offset of a group of a row: the definition.
    pub fn group(&self, row: usize, group: usize) -> (f32, f32) {
        let (stored, lane) = (self.scales(row / LANES), row % LANES);
        let (head, bytes) = self.layout.place(group * self.layout.columns());
        let half = |at: usize| f16::from_le_bytes([stored[at], stored[at + 1]]).to_f32();
        let (mut scale, mut offset) = (half(head + lane * 2), 0.0);
        if self.layout.offsets {
            offset = half(head + (LANES + lane) * 2);
        }
        if let Stored::Bytes { least, .. } = self.layout.stored {
            let byte = stored[bytes + lane];
            scale *= if least < 0 { f32::from(byte as i8) } else { f32::from(byte) };
            if self.layout.offsets {
                offset *= -f32::from(stored[bytes + LANES + lane]);
            }
        }
        (scale, self.zero.map_or(offset, |zero| -f32::from(zero) * scale))
    }

    /// Scales, and offsets where there are such (else 0), of the group of a panel that a column is in.
    #[inline(always)]
    pub fn vectors<S: Simd>(&self, s: S, panel: &[u8], col: usize) -> (S::F, S::F) {
        let offsets = self.layout.offsets;
        let (head, bytes) = self.layout.place(col);
        let heads = &panel[head..][..self.layout.head()];
        assert!(heads.len() >= if offsets { 4 * LANES } else { 2 * LANES });
        // SAFETY: 16 f16 scales, then 16 f16 offsets where there are such, as just checked.
        let (scale, offset) = unsafe {
            let offset = if offsets { s.load_f16(heads.as_ptr().add(2 * LANES).cast()) } else { s.splat(0.0) };
            (s.load_f16(heads.as_ptr().cast()), offset)
        };
        let Stored::Bytes { least, .. } = self.layout.stored else { return (scale, offset) };
        let bytes = &panel[bytes..][..self.layout.group()];
        assert!(bytes.len() >= if offsets { 2 * LANES } else { LANES });
        // SAFETY: 16 bytes of scales, then 16 of offsets where there are such, as just checked.
        let (integers, seconds) = unsafe {
            let second = if offsets { s.load_i8(bytes.as_ptr().add(LANES).cast()) } else { s.splat_i(0) };
            (s.load_i8(bytes.as_ptr().cast()), second)
        };
        let unsigned = s.splat_i(0xff);
        let integers = if least < 0 { integers } else { s.and(integers, unsigned) };
        let scale = s.mul(scale, s.to_f(integers));
        match offsets {
            true => (scale, s.mul(s.sub(s.splat(0.0), offset), s.to_f(s.and(seconds, unsigned)))),
            false => (scale, offset),
        }
    }
}

/// A matrix as quads of codes.
pub(super) struct Ints<'a, const B: usize>(pub View<'a, B>);
/// A matrix as columns of floats.
pub(super) struct Floats<'a, const B: usize>(pub View<'a, B>);

/// Columns whose products with f32 are summed before they meet a scale: chains of additions that are short enough for several to run at
/// once.
pub(super) const CHAIN: usize = 16;

impl<const B: usize> Quads for Ints<'_, B> {
    fn layout(&self) -> Shape {
        let group = Some(self.0.layout.columns() / 4);
        Shape { kind: OperandKind::Int, length: self.0.blocks * QUADS, quads: QUADS, group }
    }

    fn stored(&self, panels: Range<usize>) -> Option<&[u8]> {
        let panel = self.0.blocks * B * 64;
        (B == 8).then(|| &self.0.p.parts()[0][panels.start * panel..panels.end * panel])
    }

    fn decode(&self, isa: Isa, panel: usize, blocks: Range<usize>, out: &mut [u8]) {
        let codes = &self.0.codes(panel)[blocks.start * B * 64..blocks.end * B * 64];
        isa.run(Decode::<B> { codes, floats: None, out });
    }

    fn group_scales(&self, isa: Isa, panel: usize, groups: Range<usize>, step: usize, out: &mut [f32]) {
        isa.run(Widen { view: self.0, panel, columns: self.0.layout.columns(), groups, step, out });
    }

    fn epilogue(&self, _: usize) -> Epilogue {
        Epilogue::Totals
    }
}

impl<const B: usize> Quads for Floats<'_, B> {
    fn layout(&self) -> Shape {
        Shape { kind: OperandKind::Float, length: self.0.blocks * BLOCK, quads: BLOCK, group: Some(CHAIN) }
    }

    fn decode(&self, isa: Isa, panel: usize, blocks: Range<usize>, out: &mut [u8]) {
        let codes = &self.0.codes(panel)[blocks.start * B * 64..blocks.end * B * 64];
        isa.run(Decode::<B> { codes, floats: Some(self.0.zero), out });
    }

    fn group_scales(&self, isa: Isa, panel: usize, groups: Range<usize>, step: usize, out: &mut [f32]) {
        isa.run(Widen { view: self.0, panel, columns: CHAIN, groups, step, out });
    }

    fn epilogue(&self, _: usize) -> Epilogue {
        Epilogue::Totals
    }
}

/// Scales and offsets of groups of so many columns to f32: those of a group to `out[i * step * 32..]`.
struct Widen<'a, 'v, const B: usize> {
    view: View<'v, B>,
    panel: usize,
    columns: usize,
    groups: Range<usize>,
    step: usize,
    out: &'a mut [f32],
}

impl<const B: usize> Op for Widen<'_, '_, B> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let panel = self.view.scales(self.panel);
        for (group, out) in self.groups.zip(self.out.chunks_mut(self.step * 2 * LANES)) {
            let (scale, offset) = self.view.vectors(s, panel, group * self.columns);
            let (scales, offsets) = out[..2 * LANES].split_at_mut(LANES);
            s.store_part(scales, scale);
            s.store_part(offsets, offset);
        }
    }
}

/// Blocks to quads of codes, or to columns of floats.
struct Decode<'a, const B: usize> {
    codes: &'a [u8],
    /// Whether to floats, and the code that means 0.
    floats: Option<Option<u8>>,
    out: &'a mut [u8],
}

impl<const B: usize> Op for Decode<'_, B> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let blocks = self.codes.len() / (B * 64);
        let each = if self.floats.is_some() { BLOCK } else { QUADS };
        assert!(self.out.len() >= blocks * each * 64);
        let levels = Levels::new(s, self.floats.flatten());
        for block in 0..blocks {
            // SAFETY: within the lengths just checked; a prefetch may name any address.
            unsafe {
                let at = self.codes.as_ptr().add(block * B * 64);
                for unit in 0..B {
                    // The next chunk of the panel, while this one is multiplied.
                    s.prefetch(at.wrapping_add(self.codes.len() + unit * 64));
                }
                let to = self.out.as_mut_ptr().add(block * each * 64);
                let quads = planes::quads::<S, B>(s, at);
                for q in 0..QUADS {
                    if self.floats.is_none() {
                        s.store_i(to.add(q * 64), quads[q]);
                        continue;
                    }
                    let columns = levels.of::<B>(s, quads[q]);
                    for j in 0..4 {
                        s.store(to.add((q * 4 + j) * 64).cast(), columns[j]);
                    }
                }
            }
        }
    }
}
