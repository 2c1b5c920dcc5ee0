//! Keys or values of earlier tokens, kept in 32, 16 or 8 bits.

use super::AttentionShape;
use crate::format::power_of_two;
use crate::simd::{LANES, Simd};
use crate::{Isa, Op};
use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use std::ops::Range;

/// How the numbers of a cache are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheKind {
    /// 32-bit floats: what the layers computed.
    F32,
    /// 16-bit floats, rounded to nearest even; what a head has of a token is divided by a power of two first where it leaves
    /// their range.
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

/// Tokens of a block: what one head has of them lies together, so that reading it is one stream.
pub(super) const BLOCK: usize = 256;

/// Keys or values of the tokens so far, `[tokens, heads * head_dim]`, kept as `[blocks][heads][BLOCK][head_dim]`.
#[derive(Clone, Debug)]
pub struct CacheRows {
    heads: usize,
    head_dim: usize,
    rows: usize,
    data: Data,
}

/// Numbers of whole blocks.
#[derive(Clone, Debug)]
enum Data {
    F32(Vec<f32>),
    F16 {
        halves: Vec<u16>,
        /// What each head of a token is multiplied with, `[blocks][heads][BLOCK]`; empty while that is 1 for all.
        factors: Vec<f32>,
    },
    Int8 {
        codes: Vec<i8>,
        /// `[blocks][heads][BLOCK]`
        scales: Vec<f32>,
    },
}

/// Where a head of a row lies, counted in heads.
#[inline(always)]
fn slot(heads: usize, row: usize, head: usize) -> usize {
    (row / BLOCK * heads + head) * BLOCK + row % BLOCK
}

/// The slots of all heads of some rows, row after row.
fn slots(heads: usize, rows: Range<usize>) -> impl Iterator<Item = usize> {
    rows.flat_map(move |row| (0..heads).map(move |head| slot(heads, row, head)))
}

/// Makes a vector at least as long, with zeros; of an empty one, memory is taken when it is written.
fn lengthen<T: Clone + Default>(x: &mut Vec<T>, len: usize) {
    match x.len() {
        0 => *x = vec![T::default(); len],
        now => x.resize(len.max(now), T::default()),
    }
}

/// Rounds numbers to halves; says whether they keep their range: none becomes infinite, nor all of them subnormal.
fn to_halves(from: &[f32], to: &mut [u16]) -> bool {
    to.reinterpret_cast_mut::<f16>().convert_from_f32_slice(from);
    let (mut most, mut any) = (0, false);
    for (half, number) in to.iter().zip(from) {
        most = most.max(half & 0x7fff);
        any |= *number != 0.0;
    }
    (0x0400..0x7c00).contains(&most) || !any
}

/// [`to_halves`] of numbers divided by a power of two, which is returned, where they need it. What is not finite stays so.
fn to_scaled_halves(from: &[f32], to: &mut [u16]) -> f32 {
    if to_halves(from, to) || !from.iter().all(|v| v.is_finite()) {
        return 1.0;
    }
    let factor = power_of_two(from.iter().fold(0.0, |top, v| top.max(v.abs())));
    let scaled: Vec<f32> = from.iter().map(|v| v / factor).collect();
    to_halves(&scaled, to);
    factor
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
            CacheKind::F16 => Data::F16 { halves: Vec::new(), factors: Vec::new() },
            CacheKind::Int8 => Data::Int8 { codes: Vec::new(), scales: Vec::new() },
        };
        CacheRows { heads, head_dim, rows: 0, data }
    }

    /// How it is stored.
    pub fn kind(&self) -> CacheKind {
        match self.data {
            Data::F32(_) => CacheKind::F32,
            Data::F16 { .. } => CacheKind::F16,
            Data::Int8 { .. } => CacheKind::Int8,
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
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
        let slots = rows.div_ceil(BLOCK) * BLOCK * self.heads;
        let numbers = slots * self.head_dim;
        match &mut self.data {
            Data::F32(x) => lengthen(x, numbers),
            Data::F16 { halves, factors } => {
                lengthen(halves, numbers);
                if !factors.is_empty() {
                    factors.resize(slots.max(factors.len()), 1.0);
                }
            }
            Data::Int8 { codes, scales } => {
                lengthen(codes, numbers);
                lengthen(scales, slots);
            }
        }
    }

    /// Keeps the first `rows` rows (all, when there are fewer).
    pub fn truncate(&mut self, rows: usize) {
        self.rows = self.rows.min(rows);
    }

    /// Appends rows, `[tokens, heads * head_dim]`.
    ///
    /// # Panics
    /// When they are not whole rows.
    pub fn push(&mut self, rows: &[f32]) {
        assert!(rows.len().is_multiple_of(self.width()), "rows are [tokens, heads * head_dim]");
        let (first, dim) = (self.rows, self.head_dim);
        let end = first + rows.len() / self.width();
        self.reserve(end);
        for (slot, head) in slots(self.heads, first..end).zip(rows.chunks_exact(dim)) {
            let numbers = slot * dim..(slot + 1) * dim;
            match &mut self.data {
                Data::F32(x) => x[numbers].copy_from_slice(head),
                Data::F16 { halves, factors } => {
                    let factor = to_scaled_halves(head, &mut halves[numbers]);
                    if factor != 1.0 && factors.is_empty() {
                        *factors = vec![1.0; halves.len() / dim];
                    }
                    if let Some(place) = factors.get_mut(slot) {
                        *place = factor;
                    }
                }
                Data::Int8 { codes, scales } => {
                    let top = head.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                    let finite = head.iter().all(|v| v.is_finite());
                    let factor = if top > 0.0 && finite { 127.0 / top } else { 0.0 };
                    scales[slot] = if finite { top / 127.0 } else { f32::NAN };
                    let codes = codes[numbers].iter_mut().zip(head);
                    codes.for_each(|(code, v)| *code = (v * factor).round_ties_even() as i8);
                }
            }
        }
        self.rows = end;
    }

    /// Appends the first `rows` rows, `[tokens, heads * head_dim]` as they are stored, little-endian; of 8-bit integers the
    /// scales, `[tokens, heads]`, follow.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn write(&self, rows: usize, out: &mut Vec<u8>) {
        assert!(rows <= self.rows, "{rows} rows of {}", self.rows);
        let dim = self.head_dim;
        for slot in slots(self.heads, 0..rows) {
            let numbers = slot * dim..(slot + 1) * dim;
            match &self.data {
                Data::F32(x) => out.extend(x[numbers].iter().flat_map(|v| v.to_le_bytes())),
                Data::F16 { halves, .. } => out.extend(halves[numbers].iter().flat_map(|v| v.to_le_bytes())),
                Data::Int8 { codes, .. } => out.extend(codes[numbers].iter().map(|v| *v as u8)),
            }
        }
        if let Data::Int8 { scales, .. } = &self.data {
            out.extend(slots(self.heads, 0..rows).flat_map(|slot| scales[slot].to_le_bytes()));
        }
    }

    /// Appends what the halves of each head of the first `rows` rows are multiplied with, `[tokens, heads]` in f32; nothing where
    /// no number left their range.
    ///
    /// # Panics
    /// When there are fewer rows.
    pub fn write_factors(&self, rows: usize, out: &mut Vec<u8>) {
        assert!(rows <= self.rows, "{rows} rows of {}", self.rows);
        if let Data::F16 { factors, .. } = &self.data
            && slots(self.heads, 0..rows).any(|slot| factors.get(slot).is_some_and(|factor| *factor != 1.0))
        {
            out.extend(slots(self.heads, 0..rows).flat_map(|slot| factors[slot].to_le_bytes()));
        }
    }

    /// Bytes of the factors of `rows` rows, where there are any.
    pub fn factor_bytes(&self, rows: usize) -> usize {
        rows * self.heads * 4
    }

    /// Takes the factors of all rows, which [`CacheRows::write_factors`] wrote, after [`CacheRows::read`]; `false`, and nothing
    /// changed, when `bytes` has another length, one is no positive number, or this cache has none.
    pub fn read_factors(&mut self, bytes: &[u8]) -> bool {
        let found: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let good = bytes.len() == self.factor_bytes(self.rows) && found.iter().all(|v| v.is_finite() && *v > 0.0);
        let (slots, dim): (Vec<usize>, usize) = (slots(self.heads, 0..self.rows).collect(), self.head_dim);
        match &mut self.data {
            Data::F16 { halves, factors } if good => {
                *factors = vec![1.0; halves.len() / dim];
                slots.iter().zip(found).for_each(|(slot, factor)| factors[*slot] = factor);
                true
            }
            _ => false,
        }
    }

    /// Replaces all rows by `rows` rows that [`CacheRows::write`] wrote; `false`, and nothing changed, when `bytes` has
    /// another length or a number that is not finite.
    pub fn read(&mut self, rows: usize, bytes: &[u8]) -> bool {
        let row_bytes = self.kind().row_bytes(self.heads, self.head_dim);
        if rows.checked_mul(row_bytes) != Some(bytes.len()) {
            return false;
        }
        let f32s = |b: &[u8]| -> Vec<f32> { b.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect() };
        let u16s = |b: &[u8]| -> Vec<u16> { b.as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b)).collect() };
        let found = match &self.data {
            Data::F32(_) => Data::F32(f32s(bytes)),
            Data::F16 { .. } => Data::F16 { halves: u16s(bytes), factors: Vec::new() },
            Data::Int8 { .. } => {
                let (codes, scales) = bytes.split_at(rows * self.width());
                Data::Int8 { codes: codes.iter().map(|v| *v as i8).collect(), scales: f32s(scales) }
            }
        };
        let finite = match &found {
            Data::F32(x) | Data::Int8 { scales: x, .. } => x.iter().all(|v| v.is_finite()),
            Data::F16 { halves, .. } => halves.iter().all(|v| f16::from_bits(*v).is_finite()),
        };
        if finite {
            self.reserve(rows);
            self.rows = rows;
            self.spread(&found);
        }
        finite
    }

    /// Puts all rows, given one after the other, where they belong.
    fn spread(&mut self, rows: &Data) {
        fn spread<T: Copy>(slots: &[usize], width: usize, from: &[T], to: &mut [T]) {
            for (slot, from) in slots.iter().zip(from.chunks_exact(width)) {
                to[slot * width..(slot + 1) * width].copy_from_slice(from);
            }
        }
        let (slots, dim): (Vec<usize>, usize) = (slots(self.heads, 0..self.rows).collect(), self.head_dim);
        match (rows, &mut self.data) {
            (Data::F32(from), Data::F32(to)) => spread(&slots, dim, from, to),
            (Data::F16 { halves, .. }, Data::F16 { halves: to, factors }) => {
                spread(&slots, dim, halves, to);
                factors.clear();
            }
            (Data::Int8 { codes, scales }, Data::Int8 { codes: to, scales: to_scales }) => {
                spread(&slots, dim, codes, to);
                spread(&slots, 1, scales, to_scales);
            }
            _ => unreachable!("rows of the same kind"),
        }
    }

    pub(super) fn view(&self) -> RowsView<'_> {
        let numbers = match &self.data {
            Data::F32(x) => Numbers::F32(x),
            Data::F16 { halves, factors } => Numbers::F16 { halves, factors },
            Data::Int8 { codes, scales } => Numbers::Int8 { codes, scales },
        };
        RowsView { numbers, len: self.rows * self.width(), in_blocks: true }
    }
}

/// Borrowed rows, `[tokens, heads * head_dim]`.
#[derive(Clone, Copy)]
pub(super) struct RowsView<'a> {
    pub numbers: Numbers<'a>,
    /// Numbers in all rows.
    pub len: usize,
    /// Whether they lie in the blocks of [`CacheRows`].
    in_blocks: bool,
}

/// Numbers of rows.
#[derive(Clone, Copy)]
pub(super) enum Numbers<'a> {
    F32(&'a [f32]),
    /// With a factor for each head of a row, or none.
    F16 {
        halves: &'a [u16],
        factors: &'a [f32],
    },
    Int8 {
        codes: &'a [i8],
        scales: &'a [f32],
    },
}

impl<'a> RowsView<'a> {
    /// Rows one after the other.
    pub fn plain(rows: &'a [f32]) -> Self {
        RowsView { numbers: Numbers::F32(rows), len: rows.len(), in_blocks: false }
    }

    /// Which of the heads of all rows, counted as they lie, belongs to a row.
    #[inline(always)]
    fn slot(self, shape: AttentionShape, row: usize, head: usize) -> usize {
        match self.in_blocks {
            true => slot(shape.kv_heads, row, head),
            false => row * shape.kv_heads + head,
        }
    }

    /// Where a head of a row begins, and how far it is to the next row of the same block.
    #[inline(always)]
    pub fn place(self, shape: AttentionShape, row: usize, head: usize) -> (usize, usize) {
        let distance = if self.in_blocks { 1 } else { shape.kv_heads };
        (self.slot(shape, row, head) * shape.head_dim, distance * shape.head_dim)
    }

    /// The scales of one head of some rows of one block; none where numbers have none.
    pub fn scales(self, shape: AttentionShape, rows: Range<usize>, head: usize) -> &'a [f32] {
        match self.numbers {
            Numbers::Int8 { scales, .. } | Numbers::F16 { factors: scales, .. } if !scales.is_empty() => {
                &scales[self.slot(shape, rows.start, head)..][..rows.len()]
            }
            _ => &[],
        }
    }

    /// One head of some rows, without their scales, as f32 in whole vectors, zeros behind the head,
    /// [`AttentionShape::stride`] apart.
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
        let (shape, dim) = (self.shape, self.shape.head_dim);
        for (i, row) in self.rows.enumerate() {
            let at = self.from.slot(shape, row, self.head) * dim;
            let to = &mut self.to[i * shape.stride()..][..shape.padded()];
            to[dim..].fill(0.0);
            match self.from.numbers {
                Numbers::F32(x) => to[..dim].copy_from_slice(&x[at..at + dim]),
                Numbers::F16 { halves, .. } => widen_halves(s, &halves[at..at + dim], &mut to[..dim]),
                Numbers::Int8 { codes, .. } => {
                    for (to, code) in to.iter_mut().zip(&codes[at..at + dim]) {
                        *to = *code as f32;
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn widen_halves<S: Simd>(s: S, from: &[u16], to: &mut [f32]) {
    let (mut whole, mut out) = (from.chunks_exact(LANES), to.chunks_exact_mut(LANES));
    for (from, to) in (&mut whole).zip(&mut out) {
        // SAFETY: 16 halves and room for 16 floats, as just cut.
        unsafe { s.store(to.as_mut_ptr(), s.load_f16(from.as_ptr())) };
    }
    for (from, to) in whole.remainder().iter().zip(out.into_remainder()) {
        *to = f16::from_bits(*from).to_f32();
    }
}
