//! Activations on their way into a matrix product: f32, int8 with a scale per token or per block of its columns, or bf16.

use crate::format::SMALLEST;
use crate::pool::SharedMut;
use crate::scratch::Line;
use crate::simd::{LANES, Simd};
use crate::{Cpu, Op, Products, Windows, scratch};
use std::borrow::Cow;
use std::ops::Range;

/// Columns that share a scale in the group-wise formats, and over which int8 activations keep sums.
pub const GROUP: usize = 64;

/// Columns of a token that share a scale in int8 activations that are quantized in the smallest blocks; those of a block of codes.
pub const BLOCK: usize = 32;
/// Columns that may share a scale in int8 activations that are quantized in blocks. With 64 the vectors of MiniLM lie half as far
/// again from those of f32 activations as with 32, and sums become totals half as often; 128 is twice as far.
pub const BLOCK_SIZES: [usize; 3] = [BLOCK, 64, 128];
/// Columns that rows of codes are padded to: no group and no block of activations is cut.
const WHOLE: usize = 128;
/// The smallest blocks of a group of columns.
const HALVES: usize = GROUP / BLOCK;

/// Activations `[tokens, cols]`, row-major.
#[derive(Clone, Copy, Debug)]
pub enum Activations<'a> {
    /// f32, unchanged.
    F32(&'a [f32]),
    /// int8 with one scale per token or block.
    Int8(&'a Int8Activations),
    /// Rounded to bf16.
    Bf16(&'a Bf16Activations),
    /// f32, the windows of images.
    Windows(Windows<'a>),
    /// f32, and beside it int8 per token.
    Both(&'a [f32], &'a Int8Activations),
}

impl<'a> Activations<'a> {
    /// Number of tokens of `cols` columns; `None` where they are not.
    pub(crate) fn tokens(self, cols: usize) -> Option<usize> {
        let (values, width, tokens) = match self {
            Activations::F32(x) => (x.len(), cols, x.len() / cols.max(1)),
            Activations::Int8(q) | Activations::Both(_, q) if q.cols != cols => return None,
            Activations::Both(x, q) => (x.len(), cols, q.tokens),
            Activations::Int8(q) => return Some(q.tokens),
            Activations::Bf16(x) => return (x.cols == cols).then_some(x.x.tokens()),
            Activations::Windows(windows) => return (windows.columns() == cols).then_some(windows.len()),
        };
        (tokens.checked_mul(width) == Some(values)).then_some(tokens)
    }

    /// The values as f32, `[tokens, cols]`.
    pub fn floats(self) -> Cow<'a, [f32]> {
        match self {
            Activations::F32(x) | Activations::Both(x, _) => Cow::Borrowed(x),
            Activations::Int8(q) => Cow::Owned(q.dequantize()),
            Activations::Bf16(x) => Cow::Owned(x.widen()),
            Activations::Windows(windows) => Cow::Owned(windows.gather()),
        }
    }
}

/// Lines of 64 bytes between the rows of a chunk; odd, so that neighbouring rows fall into different cache sets.
const ROW_LINES: usize = 13;
/// Bytes between the rows of a chunk, where there are several.
pub(crate) const ROW: usize = ROW_LINES * 64;

/// Rows of bytes, cut into chunks that fit the first-level cache beside a strip of weights: `[chunks][tokens][ROW]`. One row
/// is a single chunk. Bytes beyond a row are 0 up to a whole line, of a single row one line further.
#[derive(Clone, Debug, Default)]
pub(crate) struct Blocked {
    lines: Vec<Line>,
    tokens: usize,
    /// Bytes of a row in a chunk.
    chunk: usize,
    /// Bytes between chunks.
    distance: usize,
    chunks: usize,
}

impl Blocked {
    /// Makes room for `tokens` rows of `bytes` bytes; chunks end at multiples of `align` lines.
    fn resize(&mut self, tokens: usize, bytes: usize, align: usize) {
        let units = bytes.div_ceil(64 * align);
        let chunks = if tokens == 1 { 1 } else { units.div_ceil(ROW_LINES / align) };
        self.chunks = chunks;
        self.tokens = tokens;
        self.chunk = units.div_ceil(chunks.max(1)) * align * 64;
        self.distance = tokens.next_multiple_of(2) * ROW;
        let lines = if tokens == 1 { self.chunk / 64 + 1 } else { chunks * self.distance / 64 };
        if self.lines.len() < lines {
            self.lines.resize(lines, Line::ZERO);
        }
        if tokens == 1 {
            self.lines[lines - 1] = Line::ZERO;
        }
    }

    /// Number of rows.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Number of chunks.
    pub fn chunks(&self) -> usize {
        self.chunks
    }

    /// Bytes of a row in a chunk; the last chunk may hold less.
    pub fn chunk(&self) -> usize {
        self.chunk
    }

    /// All rows of a chunk, [`ROW`] bytes apart; with an odd number of rows, an arbitrary one follows.
    pub fn rows(&self, chunk: usize) -> &[u8] {
        &self.bytes()[chunk * self.distance..][..self.distance]
    }

    /// Four bytes of a row.
    pub fn quad(&self, token: usize, quad: usize) -> i32 {
        let at = quad * 4 / self.chunk * self.distance + token * ROW + quad * 4 % self.chunk;
        i32::from_le_bytes(self.bytes()[at..at + 4].try_into().expect("four bytes"))
    }

    /// The row of a single token.
    pub fn single(&self) -> &[u8] {
        debug_assert_eq!(self.tokens, 1);
        self.bytes()
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: a line is 64 bytes.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.lines.len() * 64) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: a line is 64 bytes.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.lines.len() * 64) }
    }

    /// The bytes of one token, in order, without padding of the chunks.
    fn row(&self, token: usize) -> impl Iterator<Item = u8> + '_ {
        let parts = (0..self.chunks).map(move |c| &self.bytes()[c * self.distance + token * ROW..][..self.chunk]);
        parts.flatten().copied()
    }

    /// Some bytes of a row that lie in one chunk.
    pub fn part(&self, token: usize, at: usize, bytes: usize) -> &[u8] {
        debug_assert!(at % self.chunk + bytes <= self.chunk);
        &self.bytes()[Self::at(at / self.chunk, self.distance, token) + at % self.chunk..][..bytes]
    }

    /// Rows of f32, `[tokens, cols]`, padded with 0; chunks end at multiples of 32 columns.
    pub fn floats(cpu: &Cpu, x: &[f32], cols: usize) -> Self {
        let mut rows = Blocked::default();
        rows.resize(x.len() / cols, cols * 4, 2);
        let (tokens, chunk, distance) = (rows.tokens, rows.chunk, rows.distance);
        let out = SharedMut::new(rows.bytes_mut());
        let grain = SMALL.div_ceil(cols);
        cpu.pool.run(tokens.div_ceil(grain), &|task| {
            for token in task * grain..((task + 1) * grain).min(tokens) {
                for (i, x) in x[token * cols..][..cols].chunks(chunk / 4).enumerate() {
                    let at = Self::at(i, distance, token);
                    // SAFETY: the task owns the bytes of its tokens.
                    let out = unsafe { out.slice(at..at + chunk) };
                    let (used, rest) = out.split_at_mut(x.len() * 4);
                    used.as_chunks_mut::<4>().0.iter_mut().zip(x).for_each(|(out, x)| *out = x.to_ne_bytes());
                    rest.fill(0);
                }
            }
        });
        rows
    }

    /// Where the bytes of a token's chunk begin.
    fn at(chunk: usize, distance: usize, token: usize) -> usize {
        chunk * distance + token * ROW
    }
}

/// Activations quantized to int8 by absmax: `x ~ q * scale`, `scale = max|x| / 127` over a token (arXiv 2402.17764) or over each
/// block of its columns; NaN for a token with a value that is not finite.
#[derive(Clone, Debug, Default)]
pub struct Int8Activations {
    pub(crate) tokens: usize,
    pub(crate) cols: usize,
    /// Step of each token, that of its largest block, `[tokens]`.
    pub(crate) scale: Vec<f32>,
    /// Columns of a block, where blocks have scales: one of [`BLOCK_SIZES`].
    pub(crate) block: Option<usize>,
    /// Where blocks have scales, the part of the token's step that is the step of each, `[tokens, blocks]`.
    pub(crate) ratios: Vec<f32>,
    /// Where blocks have scales, the sum of the codes of each, `[tokens, blocks]`.
    pub(crate) block_sums: Vec<i32>,
    pub(crate) q: Blocked,
    /// Sum of the codes of each group of [`GROUP`] columns, times the ratios of its blocks, `[tokens, ceil(cols / GROUP)]`.
    pub(crate) group_sums: Vec<f32>,
    /// Sum of all codes of each token, `[tokens]`.
    pub(crate) sums: Vec<i32>,
}

/// Values of a task below which rows are made by one thread, handing out work costing more.
const SMALL: usize = 1 << 13;

impl Int8Activations {
    /// Quantizes `x`, `[tokens, cols]`, with a scale per token, reusing the buffers of `self`.
    pub fn quantize(&mut self, cpu: &Cpu, x: &[f32], cols: usize) {
        self.quantize_as(cpu, x, cols, None);
    }

    /// Quantizes `x`, `[tokens, cols]`, with a scale per `block` columns of a token, reusing the buffers of `self`.
    ///
    /// # Panics
    /// When blocks are none of [`BLOCK_SIZES`].
    pub fn quantize_blocks(&mut self, cpu: &Cpu, x: &[f32], cols: usize, block: usize) {
        assert!(BLOCK_SIZES.contains(&block), "blocks of {BLOCK_SIZES:?} columns, not of {block}");
        self.quantize_as(cpu, x, cols, Some(block));
    }

    fn quantize_as(&mut self, cpu: &Cpu, x: &[f32], cols: usize, block: Option<usize>) {
        self.resize(x.len() / cols.max(1), cols, block);
        let to = &self.writer();
        cpu.pool.run(to.tasks(cols), &|task| {
            for token in to.tokens(task, cols) {
                cpu.isa.run(QuantizeRow { x: &x[token * cols..][..cols], token, to });
            }
        });
    }

    /// Quantizes windows of images, a token each, with a scale per token or per `block` columns, reusing the buffers of `self`.
    ///
    /// # Panics
    /// When blocks are none of [`BLOCK_SIZES`].
    pub fn quantize_windows(&mut self, cpu: &Cpu, windows: &Windows, block: Option<usize>) {
        assert!(
            block.is_none_or(|block| BLOCK_SIZES.contains(&block)),
            "blocks of {BLOCK_SIZES:?} columns, not of {block:?}"
        );
        let columns = windows.columns();
        self.quantize_filled(cpu, windows.len(), columns, block, &|row, out| windows.copy(row, 0..columns, out));
    }

    /// Quantizes rows that `fill` writes, given token and row, reusing the buffers of `self`.
    pub(crate) fn quantize_filled(
        &mut self,
        cpu: &Cpu,
        tokens: usize,
        cols: usize,
        block: Option<usize>,
        fill: &(dyn Fn(usize, &mut [f32]) + Sync),
    ) {
        self.resize(tokens, cols, block);
        let to = &self.writer();
        cpu.pool.run(to.tasks(cols), &|task| {
            let mut row = scratch::take(cols * 4);
            let row = &mut row.floats()[..cols];
            for token in to.tokens(task, cols) {
                fill(token, row);
                cpu.isa.run(QuantizeRow { x: row, token, to });
            }
        });
    }

    /// Makes room for `[tokens, cols]`.
    fn resize(&mut self, tokens: usize, cols: usize, block: Option<usize>) {
        (self.tokens, self.cols, self.block) = (tokens, cols, block);
        let blocks = tokens * self.blocks();
        self.ratios.resize(blocks, 0.0);
        self.block_sums.resize(blocks, 0);
        self.q.resize(tokens, cols, WHOLE / 64);
        self.scale.resize(tokens, 0.0);
        self.sums.resize(tokens, 0);
        self.group_sums.resize(tokens * cols.div_ceil(GROUP), 0.0);
    }

    /// Blocks of a token, those of whole groups; none where tokens have scales alone.
    pub(crate) fn blocks(&self) -> usize {
        self.block.map_or(0, |block| self.cols.next_multiple_of(block.max(GROUP)) / block)
    }

    fn writer(&mut self) -> Int8Writer<'_> {
        let (chunk, distance, blocks) = (self.q.chunk, self.q.distance, self.blocks());
        Int8Writer {
            tokens: self.tokens,
            chunk,
            distance,
            q: SharedMut::new(self.q.bytes_mut()),
            scale: SharedMut::new(&mut self.scale),
            sums: SharedMut::new(&mut self.sums),
            groups: SharedMut::new(&mut self.group_sums),
            block: self.block,
            blocks,
            ratios: SharedMut::new(&mut self.ratios),
            block_sums: SharedMut::new(&mut self.block_sums),
        }
    }

    /// Tokens.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Step of each token, `[tokens]`; where blocks have scales, that of its largest.
    pub fn scale(&self) -> &[f32] {
        &self.scale[..self.tokens]
    }

    /// The codes of one token, `[cols]`.
    pub fn codes(&self, token: usize) -> impl Iterator<Item = i8> + '_ {
        self.q.row(token).map(|b| b as i8).take(self.cols)
    }

    /// Step of a column of a token.
    fn step(&self, token: usize, col: usize) -> f32 {
        self.scale[token] * self.block.map_or(1.0, |block| self.ratios[token * self.blocks() + col / block])
    }

    /// `q * scale` of all tokens, `[tokens, cols]`.
    pub fn dequantize(&self) -> Vec<f32> {
        let row = |t: usize| self.codes(t).enumerate().map(move |(col, c)| c as f32 * self.step(t, col));
        (0..self.tokens).flat_map(row).collect()
    }
}

/// Where the rows of [`Int8Activations`] go; each token is written by one task.
struct Int8Writer<'a> {
    tokens: usize,
    chunk: usize,
    distance: usize,
    q: SharedMut<'a, u8>,
    scale: SharedMut<'a, f32>,
    sums: SharedMut<'a, i32>,
    groups: SharedMut<'a, f32>,
    block: Option<usize>,
    blocks: usize,
    ratios: SharedMut<'a, f32>,
    block_sums: SharedMut<'a, i32>,
}

impl Int8Writer<'_> {
    fn tasks(&self, cols: usize) -> usize {
        self.tokens.div_ceil(SMALL.div_ceil(cols.max(1)))
    }

    fn tokens(&self, task: usize, cols: usize) -> Range<usize> {
        let grain = SMALL.div_ceil(cols.max(1));
        task * grain..((task + 1) * grain).min(self.tokens)
    }
}

/// `q = round(x * 127 / max|x|)`, `scale = max|x| / 127`; where an `x` is NaN or infinite, `q = 0` and the scale is NaN, so that
/// all that the row yields is NaN.
struct QuantizeRow<'a> {
    x: &'a [f32],
    token: usize,
    to: &'a Int8Writer<'a>,
}

/// The largest magnitude that a row of 8-bit activations is scaled by, from that of its values: NaN stays NaN.
#[inline(always)]
pub(crate) fn absmax(top: f32) -> f32 {
    // Zeros have the scale that arXiv 2402.17764 gives them; what is divided by a smaller number overflows.
    if top == 0.0 {
        1e-5
    } else if top < SMALLEST {
        SMALLEST
    } else {
        top
    }
}

/// Factors of the two halves of a group, and the parts of the token's step that theirs are.
#[derive(Clone, Copy)]
struct Steps<S: Simd> {
    factors: [S::F; HALVES],
    ratios: [f32; HALVES],
}

impl QuantizeRow<'_> {
    /// The steps of a group of a row whose largest magnitude is `top`, from the steps of the group before it.
    #[inline(always)]
    fn steps<S: Simd>(&self, s: S, group: usize, top: f32, before: Steps<S>) -> Steps<S> {
        let Some(columns) = self.to.block.filter(|columns| (group * GROUP).is_multiple_of(*columns)) else {
            return before;
        };
        let mut steps = Steps { factors: [s.splat(0.0); HALVES], ratios: [0.0; HALVES] };
        let first = group * GROUP;
        let x = if top.is_nan() { &[] } else { &self.x[first..self.x.len().min(first + columns.max(GROUP))] };
        for (i, block) in x.chunks(columns).enumerate() {
            let mut largest = s.splat(0.0);
            for part in block.chunks(LANES) {
                largest = s.max(s.abs(s.load_part(part, 0.0)), largest);
            }
            let largest = s.max_magnitude(largest);
            if largest > 0.0 {
                let step = (s.splat(127.0 / absmax(largest)), absmax(largest) / top);
                for half in (i * columns / BLOCK..HALVES).take(columns / BLOCK) {
                    (steps.factors[half], steps.ratios[half]) = step;
                }
            }
        }
        steps
    }

    /// The sum of a group of a token: that of its codes, and that of the ratios of its blocks times the sums of theirs.
    #[inline(always)]
    fn group_sum<S: Simd>(&self, s: S, group: usize, ratios: [f32; HALVES], sums: [S::I; HALVES]) -> (i32, f32) {
        let codes = sums.map(|sum| s.sum_i(sum));
        let sum = codes.iter().sum();
        let Some(columns) = self.to.block else { return (sum, sum as f32) };
        let halves = (columns / BLOCK).min(HALVES);
        let first = self.token * self.to.blocks + group * GROUP / columns;
        let blocks = first..first + HALVES / halves;
        // SAFETY: the task owns the blocks of its tokens.
        let (to, stored) = unsafe { (self.to.ratios.slice(blocks.clone()), self.to.block_sums.slice(blocks)) };
        let begins = (group * GROUP).is_multiple_of(columns);
        let mut weighted = 0.0;
        for (i, codes) in codes.chunks(halves).enumerate() {
            let (sum, ratio) = (codes.iter().sum::<i32>(), ratios[i * halves]);
            (to[i], stored[i]) = (ratio, if begins { sum } else { stored[i] + sum });
            weighted += ratio * sum as f32;
        }
        (sum, weighted)
    }

    /// Where the codes of a group go.
    ///
    /// # Safety
    /// No two slices of a group live at the same time.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    unsafe fn codes(&self, group: usize) -> &mut [u8] {
        let (chunk, at) = (group * GROUP / self.to.chunk, group * GROUP % self.to.chunk);
        let at = Blocked::at(chunk, self.to.distance, self.token) + at;
        // SAFETY: the task owns the bytes of its tokens; by the contract no slice of it overlaps.
        unsafe { self.to.q.slice(at..at + GROUP) }
    }

    /// The largest magnitude, or NaN where a value is not finite.
    #[inline(always)]
    fn top<S: Simd>(&self, s: S) -> f32 {
        let (zero, x) = (s.splat(0.0), self.x);
        let (mut top, mut check) = (zero, zero);
        let (whole, rest) = x.as_chunks::<LANES>();
        for part in whole {
            let part = s.load_part(part, 0.0);
            top = s.max(s.abs(part), top);
            // 0 times a finite number is 0, else NaN.
            check = s.fma(part, zero, check);
        }
        let rest = s.load_part(rest, 0.0);
        top = s.max(s.abs(rest), top);
        check = s.fma(rest, zero, check);
        if s.sum(check).is_nan() { f32::NAN } else { s.max_lane(top) }
    }
}

impl Op for QuantizeRow<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let top = absmax(self.top(s));
        let QuantizeRow { x, token, to } = self;
        let finite = !top.is_nan();
        let factor = s.splat(if finite { 127.0 / top } else { 0.0 });
        let mut steps = Steps { factors: [factor; HALVES], ratios: [1.0; HALVES] };
        let groups = x.len().div_ceil(GROUP);
        let mut total = 0i32;
        for g in 0..groups {
            let x = if finite { &x[g * GROUP..x.len().min((g + 1) * GROUP)] } else { &[] };
            steps = self.steps(s, g, top, steps);
            let mut sums = [s.splat_i(0); HALVES];
            // SAFETY: the only slice of this group.
            let q = unsafe { self.codes(g) };
            for (i, q) in q.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                let part = match x.len() {
                    // SAFETY: 16 values of a whole group.
                    GROUP => unsafe { s.load(x.as_ptr().add(i * LANES)) },
                    _ => s.load_part(x.get(i * LANES..).unwrap_or(&[]), 0.0),
                };
                let half = i * LANES / BLOCK;
                let codes = s.round_i(s.mul(part, steps.factors[half]));
                sums[half] = s.add_i(sums[half], codes);
                // SAFETY: 16 bytes; the codes lie in -127..=127, for x is finite and |x| * 127 / max|x| rounds to at most 127.
                unsafe { s.store_i8(q.as_mut_ptr().cast(), codes) };
            }
            let (sum, weighted) = self.group_sum(s, g, steps.ratios, sums);
            // Where it overflows, sums of products do too, and no product takes it.
            total = total.wrapping_add(sum);
            // SAFETY: the task owns the sums of its tokens.
            unsafe { to.groups.slice(token * groups + g..token * groups + g + 1)[0] = weighted };
        }
        for g in groups..groups.next_multiple_of(WHOLE / GROUP) {
            // SAFETY: as above.
            unsafe { self.codes(g) }.fill(0);
        }
        // SAFETY: as above.
        unsafe {
            to.scale.slice(token..token + 1)[0] = top / 127.0;
            to.sums.slice(token..token + 1)[0] = total;
        }
    }
}

/// Activations rounded to bf16 (nearest even), `[tokens, cols]`.
#[derive(Clone, Debug, Default)]
pub struct Bf16Activations {
    cols: usize,
    pub(crate) x: Blocked,
}

impl Bf16Activations {
    /// Rounds `x`, `[tokens, cols]`, reusing the buffers of `self`.
    pub fn round(&mut self, cpu: &Cpu, x: &[f32], cols: usize) {
        let tokens = x.len() / cols.max(1);
        self.cols = cols;
        // Two lines hold the 64 columns of a group.
        self.x.resize(tokens, cols * 2, 2);
        let (chunk, distance) = (self.x.chunk, self.x.distance);
        let out = SharedMut::new(self.x.bytes_mut());
        let grain = SMALL.div_ceil(cols.max(1));
        cpu.pool.run(tokens.div_ceil(grain), &|task| {
            let tokens = task * grain..((task + 1) * grain).min(tokens);
            for token in tokens {
                cpu.isa.run(RoundRow { x: &x[token * cols..][..cols], token, chunk, distance, out: &out });
            }
        });
    }

    /// The values as f32, `[tokens, cols]`.
    pub fn widen(&self) -> Vec<f32> {
        let mut out = Vec::with_capacity(self.x.tokens * self.cols);
        for token in 0..self.x.tokens {
            let bytes: Vec<u8> = self.x.row(token).take(self.cols * 2).collect();
            out.extend(bytes.chunks_exact(2).map(|b| f32::from_bits((b[0] as u32) << 16 | (b[1] as u32) << 24)));
        }
        out
    }
}

/// Rounds the row of a token to bf16, padded with 0 to whole groups.
struct RoundRow<'a> {
    x: &'a [f32],
    token: usize,
    chunk: usize,
    distance: usize,
    out: &'a SharedMut<'a, u8>,
}

impl Op for RoundRow<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(self, _: S) {
        for (i, x) in self.x.chunks(self.chunk / 2).enumerate() {
            let at = Blocked::at(i, self.distance, self.token);
            let padded = x.len().next_multiple_of(GROUP) * 2;
            // SAFETY: the task owns the bytes of its tokens.
            let out = unsafe { self.out.slice(at..at + padded) };
            let (used, rest) = out.as_chunks_mut::<2>().0.split_at_mut(x.len());
            for (x, out) in x.iter().zip(used) {
                let bits = x.to_bits();
                let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
                // A NaN stays one.
                *out = ((if x.is_nan() { bits | 0x0040_0000 } else { rounded } >> 16) as u16).to_le_bytes();
            }
            rest.fill([0; 2]);
        }
    }
}
