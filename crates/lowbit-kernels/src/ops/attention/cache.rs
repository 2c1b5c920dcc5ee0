//! Keys or values of earlier tokens, kept in 32, 16 or 8 bits.

use super::AttentionShape;
use crate::format::power_of_two;
use crate::simd::{LANES, Simd};
use crate::{Isa, Op, Products};
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

/// Keys or values of the tokens so far, `[tokens, heads * head_dim]`, kept in blocks `[heads][BLOCK][head_dim]` that are
/// made when the first of their tokens comes.
#[derive(Clone, Debug)]
pub struct CacheRows {
    heads: usize,
    head_dim: usize,
    rows: usize,
    data: Data,
}

/// Numbers in blocks; memory of a block is taken when it is written.
type Blocks<T> = Vec<Box<[T]>>;

#[derive(Clone, Debug)]
enum Data {
    F32(Blocks<f32>),
    F16 {
        halves: Blocks<u16>,
        /// Power of two that each head of a token is multiplied with, `[heads][BLOCK]`; no blocks while all are 1.
        factors: Blocks<f32>,
    },
    Int8 {
        codes: Blocks<i8>,
        /// `[heads][BLOCK]`
        scales: Blocks<f32>,
    },
}

/// The block of a head of a row, and where the head lies in it, counted in heads.
#[inline(always)]
pub(super) fn place(row: usize, head: usize) -> (usize, usize) {
    (row / BLOCK, head * BLOCK + row % BLOCK)
}

/// The places of all heads of some rows, row after row.
fn places(heads: usize, rows: Range<usize>) -> impl Iterator<Item = (usize, usize)> {
    rows.flat_map(move |row| (0..heads).map(move |head| place(row, head)))
}

/// Makes blocks of `len` times `value` until there are `count`.
fn lengthen<T: Clone>(blocks: &mut Blocks<T>, count: usize, len: usize, value: T) {
    while blocks.len() < count {
        blocks.push(vec![value.clone(); len].into_boxed_slice());
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

    /// Bytes of all blocks.
    pub fn allocated(&self) -> usize {
        let blocks = match &self.data {
            Data::F32(x) => x.len(),
            Data::F16 { halves, .. } => halves.len(),
            Data::Int8 { codes, .. } => codes.len(),
        };
        blocks * BLOCK * self.kind().row_bytes(self.heads, self.head_dim)
    }

    /// Makes room for `rows` rows in all, so that appending up to there allocates nothing.
    pub fn reserve(&mut self, rows: usize) {
        let (count, slots) = (rows.div_ceil(BLOCK), BLOCK * self.heads);
        let numbers = slots * self.head_dim;
        match &mut self.data {
            Data::F32(x) => lengthen(x, count, numbers, 0.0),
            Data::F16 { halves, factors } => {
                lengthen(halves, count, numbers, 0);
                if !factors.is_empty() {
                    lengthen(factors, count, slots, 1.0);
                }
            }
            Data::Int8 { codes, scales } => {
                lengthen(codes, count, numbers, 0);
                lengthen(scales, count, slots, 0.0);
            }
        }
    }

    /// Keeps the first `rows` rows (all, when there are fewer), and one block to spare.
    pub fn truncate(&mut self, rows: usize) {
        self.rows = self.rows.min(rows);
        let count = self.rows.div_ceil(BLOCK) + 1;
        match &mut self.data {
            Data::F32(x) => x.truncate(count),
            Data::F16 { halves, factors } => {
                halves.truncate(count);
                factors.truncate(count);
            }
            Data::Int8 { codes, scales } => {
                codes.truncate(count);
                scales.truncate(count);
            }
        }
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
        for ((block, slot), head) in places(self.heads, first..end).zip(rows.chunks_exact(dim)) {
            let numbers = slot * dim..(slot + 1) * dim;
            match &mut self.data {
                Data::F32(x) => x[block][numbers].copy_from_slice(head),
                Data::F16 { halves, factors } => {
                    let factor = to_scaled_halves(head, &mut halves[block][numbers]);
                    if factor != 1.0 && factors.is_empty() {
                        lengthen(factors, halves.len(), BLOCK * self.heads, 1.0);
                    }
                    if let Some(factors) = factors.get_mut(block) {
                        factors[slot] = factor;
                    }
                }
                Data::Int8 { codes, scales } => {
                    let top = head.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                    let finite = head.iter().all(|v| v.is_finite());
                    let factor = if top > 0.0 && finite { 127.0 / top } else { 0.0 };
                    scales[block][slot] = if finite { top / 127.0 } else { f32::NAN };
                    let codes = codes[block][numbers].iter_mut().zip(head);
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
        for (block, slot) in places(self.heads, 0..rows) {
            let numbers = slot * dim..(slot + 1) * dim;
            match &self.data {
                Data::F32(x) => out.extend(x[block][numbers].iter().flat_map(|v| v.to_le_bytes())),
                Data::F16 { halves, .. } => out.extend(halves[block][numbers].iter().flat_map(|v| v.to_le_bytes())),
                Data::Int8 { codes, .. } => out.extend(codes[block][numbers].iter().map(|v| *v as u8)),
            }
        }
        if let Data::Int8 { scales, .. } = &self.data {
            out.extend(places(self.heads, 0..rows).flat_map(|(block, slot)| scales[block][slot].to_le_bytes()));
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
            && !factors.is_empty()
            && places(self.heads, 0..rows).any(|(block, slot)| factors[block][slot] != 1.0)
        {
            out.extend(places(self.heads, 0..rows).flat_map(|(block, slot)| factors[block][slot].to_le_bytes()));
        }
    }

    /// Bytes of the factors of `rows` rows, where there are any.
    pub fn factor_bytes(&self, rows: usize) -> usize {
        rows * self.heads * 4
    }

    /// Takes the factors of all rows, which [`CacheRows::write_factors`] wrote, after [`CacheRows::read`]; `false`, and nothing
    /// changed, when `bytes` has another length, one is no positive number, or this cache has none.
    pub fn read_factors(&mut self, bytes: &[u8]) -> bool {
        let (heads, places) = (self.heads, places(self.heads, 0..self.rows));
        let fits = bytes.len() == self.factor_bytes(self.rows);
        match &mut self.data {
            Data::F16 { halves, factors } if fits => {
                let mut found = Blocks::new();
                lengthen(&mut found, halves.len(), BLOCK * heads, 1.0);
                let good = spread(&mut found, places, 1, bytes, f32::from_le_bytes, |v| v.is_finite() && v > 0.0);
                if good {
                    *factors = found;
                }
                good
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
        let mut new = CacheRows::new(self.kind(), self.heads, self.head_dim);
        new.reserve(rows);
        new.rows = rows;
        let (places, dim) = (|| places(self.heads, 0..rows), self.head_dim);
        let finite = match &mut new.data {
            Data::F32(x) => spread(x, places(), dim, bytes, f32::from_le_bytes, f32::is_finite),
            Data::F16 { halves, .. } => {
                spread(halves, places(), dim, bytes, u16::from_le_bytes, |v| f16::from_bits(v).is_finite())
            }
            Data::Int8 { codes, scales } => {
                let (of_codes, of_scales) = bytes.split_at(rows * self.width());
                spread(codes, places(), dim, of_codes, i8::from_le_bytes, |_| true)
                    & spread(scales, places(), 1, of_scales, f32::from_le_bytes, f32::is_finite)
            }
        };
        if finite {
            *self = new;
        }
        finite
    }

    pub(super) fn view(&self) -> RowsView<'_> {
        let numbers = match &self.data {
            Data::F32(x) => Numbers::F32(x),
            Data::F16 { halves, factors } => Numbers::F16 { halves, factors },
            Data::Int8 { codes, scales } => Numbers::Int8 { codes, scales },
        };
        RowsView { numbers, len: self.rows * self.width() }
    }
}

/// Reads numbers, one after the other, into their places of `width` numbers each; whether all are finite.
fn spread<T: Copy, const N: usize>(
    to: &mut Blocks<T>,
    places: impl Iterator<Item = (usize, usize)>,
    width: usize,
    bytes: &[u8],
    read: impl Fn([u8; N]) -> T,
    finite: impl Fn(T) -> bool,
) -> bool {
    let mut all = true;
    for ((block, slot), from) in places.zip(bytes.as_chunks::<N>().0.chunks_exact(width)) {
        for (to, from) in to[block][slot * width..].iter_mut().zip(from) {
            *to = read(*from);
            all &= finite(*to);
        }
    }
    all
}

/// Borrowed rows, `[tokens, heads * head_dim]`.
#[derive(Clone, Copy)]
pub(super) struct RowsView<'a> {
    pub numbers: Numbers<'a>,
    /// Numbers in all rows.
    pub len: usize,
}

/// Numbers of rows: one after the other, or in the blocks of [`CacheRows`].
#[derive(Clone, Copy)]
pub(super) enum Numbers<'a> {
    Plain(&'a [f32]),
    F32(&'a [Box<[f32]>]),
    /// With a factor for each head of a row, or none.
    F16 {
        halves: &'a [Box<[u16]>],
        factors: &'a [Box<[f32]>],
    },
    Int8 {
        codes: &'a [Box<[i8]>],
        scales: &'a [Box<[f32]>],
    },
}

impl<'a> RowsView<'a> {
    /// Rows one after the other.
    pub fn plain(rows: &'a [f32]) -> Self {
        RowsView { numbers: Numbers::Plain(rows), len: rows.len() }
    }

    /// The scales of one head of some rows of one block; none where numbers have none.
    pub fn scales(self, rows: Range<usize>, head: usize) -> &'a [f32] {
        match self.numbers {
            Numbers::Int8 { scales, .. } | Numbers::F16 { factors: scales, .. } if !scales.is_empty() => {
                let (block, slot) = place(rows.start, head);
                &scales[block][slot..slot + rows.len()]
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
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let (shape, dim) = (self.shape, self.shape.head_dim);
        for (i, row) in self.rows.enumerate() {
            let (block, slot) = place(row, self.head);
            let head = slot * dim..(slot + 1) * dim;
            let to = &mut self.to[i * shape.stride()..][..shape.padded()];
            to[dim..].fill(0.0);
            match self.from.numbers {
                Numbers::Plain(x) => {
                    to[..dim].copy_from_slice(&x[(row * shape.kv_heads + self.head) * dim..][..dim]);
                }
                Numbers::F32(x) => to[..dim].copy_from_slice(&x[block][head]),
                Numbers::F16 { halves, .. } => widen_halves(s, &halves[block][head], &mut to[..dim]),
                Numbers::Int8 { codes, .. } => {
                    for (to, code) in to.iter_mut().zip(&codes[block][head]) {
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
