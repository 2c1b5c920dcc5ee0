//! Keys or values of earlier tokens, kept in 32, 16 or 8 bits.

use super::AttentionShape;
use crate::simd::{LANES, Simd};
use crate::{Isa, Op};
use half::f16;
use std::ops::Range;

/// How the numbers of a cache are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheKind {
    /// 32-bit floats: what the layers computed.
    F32,
    /// 16-bit floats, rounded to nearest even, at most 65504 in magnitude.
    #[default]
    F16,
    /// 8-bit integers -127..=127 with one f32 scale per token and head, `max|x| / 127`.
    Int8,
}

impl CacheKind {
    /// Every kind with its name.
    pub const ALL: [(&'static str, CacheKind); 3] =
        [("f32", CacheKind::F32), ("f16", CacheKind::F16), ("int8", CacheKind::Int8)];

    /// The name on the command line and on disk.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).expect("the list has every kind").0
    }

    /// Bytes of a row of `heads` heads of `head_dim` numbers.
    pub fn row_bytes(self, heads: usize, head_dim: usize) -> usize {
        match self {
            CacheKind::F32 => 4 * heads * head_dim,
            CacheKind::F16 => 2 * heads * head_dim,
            CacheKind::Int8 => heads * (head_dim + 4),
        }
    }
}

/// Keys or values of the tokens so far, `[tokens, heads * head_dim]`.
#[derive(Clone, Debug)]
pub struct CacheRows {
    heads: usize,
    head_dim: usize,
    data: Data,
}

#[derive(Clone, Debug)]
enum Data {
    F32(Vec<f32>),
    F16(Vec<u16>),
    Int8 {
        /// `[tokens, heads * head_dim]`
        codes: Vec<i8>,
        /// `[tokens, heads]`
        scales: Vec<f32>,
    },
}

impl CacheRows {
    /// No rows yet.
    ///
    /// # Panics
    /// When heads or width are 0.
    pub fn new(kind: CacheKind, heads: usize, head_dim: usize) -> Self {
        assert!(heads > 0 && head_dim > 0, "a cache has heads");
        let data = match kind {
            CacheKind::F32 => Data::F32(Vec::new()),
            CacheKind::F16 => Data::F16(Vec::new()),
            CacheKind::Int8 => Data::Int8 { codes: Vec::new(), scales: Vec::new() },
        };
        CacheRows { heads, head_dim, data }
    }

    /// How it is stored.
    pub fn kind(&self) -> CacheKind {
        match self.data {
            Data::F32(_) => CacheKind::F32,
            Data::F16(_) => CacheKind::F16,
            Data::Int8 { .. } => CacheKind::Int8,
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        let numbers = match &self.data {
            Data::F32(x) => x.len(),
            Data::F16(x) => x.len(),
            Data::Int8 { codes, .. } => codes.len(),
        };
        numbers / self.width()
    }

    /// Bytes of all rows.
    pub fn bytes(&self) -> usize {
        self.rows() * self.kind().row_bytes(self.heads, self.head_dim)
    }

    fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Makes room for `rows` rows in all, so that appending up to there allocates nothing.
    pub fn reserve(&mut self, rows: usize) {
        fn room<T>(x: &mut Vec<T>, len: usize) {
            x.reserve_exact(len.saturating_sub(x.len()));
        }
        let width = self.width();
        match &mut self.data {
            Data::F32(x) => room(x, rows * width),
            Data::F16(x) => room(x, rows * width),
            Data::Int8 { codes, scales } => {
                room(codes, rows * width);
                room(scales, rows * self.heads);
            }
        }
    }

    /// Keeps the first `rows` rows (all, when there are fewer).
    pub fn truncate(&mut self, rows: usize) {
        let width = self.width();
        match &mut self.data {
            Data::F32(x) => x.truncate(rows * width),
            Data::F16(x) => x.truncate(rows * width),
            Data::Int8 { codes, scales } => {
                codes.truncate(rows * width);
                scales.truncate(rows * self.heads);
            }
        }
    }

    /// Appends rows, `[tokens, heads * head_dim]`.
    ///
    /// # Panics
    /// When they are not whole rows.
    pub fn push(&mut self, rows: &[f32]) {
        assert!(rows.len().is_multiple_of(self.width()), "rows are [tokens, heads * head_dim]");
        let narrow = |v: &f32| f16::from_f32(v.clamp(-65_504.0, 65_504.0)).to_bits();
        match &mut self.data {
            Data::F32(x) => x.extend_from_slice(rows),
            Data::F16(x) => x.extend(rows.iter().map(narrow)),
            Data::Int8 { codes, scales } => {
                for head in rows.chunks_exact(self.head_dim) {
                    let top = head.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                    let factor = if top > 0.0 { 127.0 / top } else { 0.0 };
                    scales.push(top / 127.0);
                    codes.extend(head.iter().map(|v| (v * factor).round_ties_even() as i8));
                }
            }
        }
    }

    /// Appends the first `rows` rows, as they are stored, little-endian.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn write(&self, rows: usize, out: &mut Vec<u8>) {
        let numbers = rows * self.width();
        match &self.data {
            Data::F32(x) => out.extend(x[..numbers].iter().flat_map(|v| v.to_le_bytes())),
            Data::F16(x) => out.extend(x[..numbers].iter().flat_map(|v| v.to_le_bytes())),
            Data::Int8 { codes, scales } => {
                out.extend(codes[..numbers].iter().map(|v| *v as u8));
                out.extend(scales[..rows * self.heads].iter().flat_map(|v| v.to_le_bytes()));
            }
        }
    }

    /// Replaces all rows by `rows` rows that [`CacheRows::write`] wrote; `false`, and nothing changed, when `bytes` has
    /// another length or a number that is not finite.
    pub fn read(&mut self, rows: usize, bytes: &[u8]) -> bool {
        let row_bytes = self.kind().row_bytes(self.heads, self.head_dim);
        if rows.checked_mul(row_bytes) != Some(bytes.len()) {
            return false;
        }
        let f32s = |b: &[u8]| -> Vec<f32> {
            b.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        };
        let (data, finite) = match &self.data {
            Data::F32(_) => {
                let x = f32s(bytes);
                let finite = x.iter().all(|v| v.is_finite());
                (Data::F32(x), finite)
            }
            Data::F16(_) => {
                let x: Vec<u16> = bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect();
                let finite = x.iter().all(|v| f16::from_bits(*v).is_finite());
                (Data::F16(x), finite)
            }
            Data::Int8 { .. } => {
                let (codes, scales) = bytes.split_at(rows * self.width());
                let scales = f32s(scales);
                let finite = scales.iter().all(|v| v.is_finite());
                (Data::Int8 { codes: codes.iter().map(|v| *v as i8).collect(), scales }, finite)
            }
        };
        if finite {
            self.data = data;
        }
        finite
    }

    pub(super) fn view(&self) -> RowsView<'_> {
        match &self.data {
            Data::F32(x) => RowsView::F32(x),
            Data::F16(x) => RowsView::F16(x),
            Data::Int8 { codes, scales } => RowsView::Int8 { codes, scales },
        }
    }
}

/// Borrowed rows, `[tokens, heads * head_dim]`.
#[derive(Clone, Copy)]
pub(super) enum RowsView<'a> {
    F32(&'a [f32]),
    F16(&'a [u16]),
    Int8 { codes: &'a [i8], scales: &'a [f32] },
}

impl<'a> RowsView<'a> {
    /// Numbers in all rows.
    pub fn len(self) -> usize {
        match self {
            RowsView::F32(x) => x.len(),
            RowsView::F16(x) => x.len(),
            RowsView::Int8 { codes, .. } => codes.len(),
        }
    }

    /// One head of some rows as f32 in whole vectors, zeros behind the head, [`AttentionShape::stride`] apart.
    pub fn widen(self, isa: Isa, shape: AttentionShape, rows: Range<usize>, head: usize, to: &mut [f32]) {
        isa.run(Widen { from: self, shape, rows, head, to });
    }
}

/// See [`RowsView::widen`].
struct Widen<'a> {
    from: RowsView<'a>,
    shape: AttentionShape,
    rows: Range<usize>,
    head: usize,
    to: &'a mut [f32],
}

impl Op for Widen<'_> {
    type Out = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let (dim, width) = (self.shape.head_dim, self.shape.kv_width());
        for (i, row) in self.rows.enumerate() {
            let at = row * width + self.head * dim;
            let to = &mut self.to[i * self.shape.stride()..][..self.shape.padded()];
            to[dim..].fill(0.0);
            match self.from {
                RowsView::F32(x) => to[..dim].copy_from_slice(&x[at..at + dim]),
                RowsView::F16(x) => {
                    for line in (0..dim).step_by(32) {
                        s.prefetch(x.as_ptr().wrapping_add(at + AHEAD * width + line).cast());
                    }
                    halves(s, &x[at..at + dim], &mut to[..dim]);
                }
                RowsView::Int8 { codes, scales } => {
                    let scale = scales[row * self.shape.kv_heads + self.head];
                    for (to, code) in to.iter_mut().zip(&codes[at..at + dim]) {
                        *to = *code as f32 * scale;
                    }
                }
            }
        }
    }
}

/// Rows ahead that are asked for: they lie far apart.
const AHEAD: usize = 8;

#[inline(always)]
fn halves<S: Simd>(s: S, from: &[u16], to: &mut [f32]) {
    let (mut whole, mut out) = (from.chunks_exact(LANES), to.chunks_exact_mut(LANES));
    for (from, to) in (&mut whole).zip(&mut out) {
        // SAFETY: 16 halves and room for 16 floats, as just cut.
        unsafe { s.store(to.as_mut_ptr(), s.load_f16(from.as_ptr())) };
    }
    for (from, to) in whole.remainder().iter().zip(out.into_remainder()) {
        *to = f16::from_bits(*from).to_f32();
    }
}
