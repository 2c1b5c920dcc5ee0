//! The product for many tokens, shared by all formats that multiply 4-byte groups: four int8 or two bf16.
//!
//! A strip of a few panels meets the activations chunk by chunk: quads (64 bytes: the same 4-byte group of 16 rows) are
//! read as they are stored, or decoded once for all tokens, and a register tile of `T` tokens times `P` panels runs over the
//! chunk. Formats with one scale per row keep raw sums until the end; formats with group scales fold each group into f32
//! totals.

use crate::activations::{BLOCKS, Blocked, ROW};
use crate::gemm::{self, Mat};
use crate::pool::SharedMut;
use crate::simd::{LANES, Simd, TileOp, Tiling, tile_panels};
use crate::{Bf16Activations, Cpu, GROUP, Int8Activations, Isa, Op, scratch};
use std::ops::Range;

mod blocks;
mod elements;
mod folds;

use elements::{Element, Halves, Ints};
pub(super) use folds::{Folds, add_offsets, fold_floats, fold_ints};

/// Quads of a chunk at most.
const CHUNK: usize = ROW / 4;
/// Panels of a strip at most.
const WIDEST: usize = 8;

/// Operands of a quad, the 4-byte group of one row: int8 codes, a pair of bf16 or one f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OperandKind {
    /// Unsigned codes times signed activations, exact in i32.
    Int,
    /// Pairs of bf16, summed in f32.
    Bf16,
    /// Single f32.
    Float,
}

/// How the units of a format become quads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Operands of a quad.
    pub kind: OperandKind,
    /// Quads of a panel that meet activations.
    pub length: usize,
    /// Quads of a 64-byte unit.
    pub quads: usize,
    /// Quads that share a scale, where scales are per group.
    pub group: Option<usize>,
}

/// The last step of an output.
#[derive(Clone, Copy, Debug)]
pub(super) enum Epilogue {
    /// `(sum - zero * sum of the activations) * (activation scale * row scale)`, of blocks `total * (activation scale * row scale)`
    Rows {
        /// The code that means 0.
        zero: i32,
        /// One scale per row of the panel.
        scales: [f32; LANES],
    },
    /// `total * activation scale`
    Totals,
}

/// A matrix that decodes into quads.
pub(super) trait Quads: Sync {
    /// Shape of the decoded form.
    fn layout(&self) -> Layout;
    /// All quads of some panels, one panel after the other, where they are stored as such.
    fn stored(&self, _panels: Range<usize>) -> Option<&[u8]> {
        None
    }
    /// Writes the quads of some units of one panel.
    fn decode(&self, isa: Isa, panel: usize, units: Range<usize>, out: &mut [u8]);
    /// Writes scale and offset of each group of one panel: `out[g * step * 32..]` gets 16 scales, then 16 offsets.
    fn group_scales(&self, _isa: Isa, _panel: usize, _groups: Range<usize>, _step: usize, _out: &mut [f32]) {}
    /// Epilogue of one panel: the scaling of its sums into outputs.
    fn epilogue(&self, panel: usize) -> Epilogue;
}

/// A matrix whose panels decode into f32.
pub(super) trait FloatPanels: Quads {
    /// All weights of one panel as f32, `[cols][16]`; those that [`Epilogue::Rows`] scales are not scaled yet.
    fn columns(&self, isa: Isa, panel: usize, out: &mut [f32]);
}

/// Activations as 4-byte groups, with their sums per group, which correct for the zero point of integer codes.
#[derive(Clone, Copy)]
pub(super) struct Groups<'a> {
    pub x: &'a Blocked,
    /// Sums per token and group of 64 columns, `sums_stride` apart; empty for bf16.
    pub sums: &'a [f32],
    pub sums_stride: usize,
    /// Scale per token; empty for bf16, where it is 1.
    pub scale: &'a [f32],
    /// Sum of all codes of each token; empty for bf16.
    pub totals: &'a [i32],
    /// Ratios and sums of codes of blocks, [`BLOCKS`] of each group, where blocks have scales; else empty.
    pub blocks: Option<(&'a [f32], &'a [i32])>,
    /// What weights whose scales belong to a few columns need.
    pub folds: Option<Folds<'a>>,
}

impl<'a> From<&'a Int8Activations> for Groups<'a> {
    fn from(q: &'a Int8Activations) -> Self {
        let sums_stride = q.cols.div_ceil(crate::GROUP);
        Groups {
            x: &q.q,
            sums: &q.group_sums,
            sums_stride,
            scale: &q.scale,
            totals: &q.sums,
            blocks: q.blocked.then_some((&q.ratios[..], &q.block_sums[..])),
            folds: None,
        }
    }
}

impl<'a> From<&'a Bf16Activations> for Groups<'a> {
    fn from(rows: &'a Bf16Activations) -> Self {
        Groups::floats(&rows.x)
    }
}

impl<'a> Groups<'a> {
    /// Activations that are floats.
    pub(super) fn floats(x: &'a Blocked) -> Self {
        Groups { x, sums: &[], sums_stride: 0, scale: &[], totals: &[], blocks: None, folds: None }
    }

    /// The sum of a group of a token's codes; a token beyond the last gives that of the last.
    #[inline(always)]
    pub(super) fn sum(&self, token: usize, group: usize) -> f32 {
        self.sums[token.min(self.x.tokens() - 1) * self.sums_stride + group]
    }

    /// Ratio and sum of the codes of a block of a token; a token beyond the last gives those of the last.
    #[inline(always)]
    pub(super) fn block(&self, token: usize, block: usize) -> (f32, i32) {
        let at = token.min(self.x.tokens() - 1) * self.sums_stride * BLOCKS + block;
        self.blocks.map_or((1.0, 0), |(ratios, sums)| (ratios[at], sums[at]))
    }
}

/// Adds a group to a total: one text for one token and for many.
#[inline(always)]
pub(super) fn fold<S: Simd>(s: S, total: S::F, products: S::I, sum: f32, scale: S::F, offset: S::F) -> S::F {
    s.fma(s.splat(sum), offset, s.fma(s.to_f(products), scale, total))
}

/// Adds a block, whose codes mean `zero` less, to a total: one text for one token and for many.
#[inline(always)]
pub(super) fn fold_block<S: Simd>(s: S, total: S::F, products: S::I, (ratio, sum): (f32, i32), zero: i32) -> S::F {
    let exact = s.sub_i(products, s.splat_i(zero.wrapping_mul(sum)));
    s.fma(s.to_f(exact), s.splat(ratio), total)
}

/// Adds the total of the blocks of a group to a total: one text for one token and for many.
#[inline(always)]
pub(super) fn fold_group<S: Simd>(s: S, total: S::F, inner: S::F, sum: f32, scale: S::F, offset: S::F) -> S::F {
    s.fma(s.splat(sum), offset, s.fma(inner, scale, total))
}

/// Callback of a task after the product, over its rows of the output: `(panels, out)`.
pub(super) type After<'a> = &'a (dyn Fn(Range<usize>, &SharedMut<f32>) + Sync);

/// `y = x * W^T` for several tokens; `y` is `[tokens, rows]`.
pub(super) fn product(cpu: &Cpu, w: &dyn Quads, rows: usize, x: Groups, y: &mut [f32], after: After) {
    let layout = w.layout();
    let tokens = x.x.tokens();
    let totals = layout.group.is_some() || x.blocks.is_some();
    let (tiling, wide) = cpu.isa.run(ChooseTiling { tokens, totals });
    let panels = rows.div_ceil(LANES);
    // Strips of `wide` panels, then of one.
    let full = panels / wide;
    let strips = full + panels % wide;
    let work = tokens * layout.length * wide;
    let grain = strips.div_ceil(8).min(8).max((1 << 15) / (work + 1)).max(1);
    let out = SharedMut::new(y);
    cpu.pool.run(strips.div_ceil(grain), &|task| {
        let mut buffers = Buffers::new(tiling.covered(), wide, layout.group);
        let span = task * grain..((task + 1) * grain).min(strips);
        let first = |strip: usize| if strip < full { strip * wide } else { full * wide + strip - full };
        for strip in span.clone() {
            let panels = first(strip)..first(strip + 1);
            Strip { w, layout, x, tiling, panels, rows, out: &out }.run(cpu.isa, &mut buffers);
        }
        after(first(span.start)..first(span.end), &out);
    });
}

/// `y = x * W^T` with f32 activations on weights decoded to f32.
pub(super) fn product_f32(cpu: &Cpu, w: &dyn FloatPanels, rows: usize, cols: usize, x: &[f32], y: &mut [f32]) {
    let panels = rows.div_ceil(LANES);
    let wide = 8;
    let out = SharedMut::new(y);
    cpu.pool.run(panels.div_ceil(wide), &|task| {
        let range = task * wide..((task + 1) * wide).min(panels);
        let mut buffer = scratch::take(range.len() * cols * LANES * 4);
        let b = buffer.floats();
        for (panel, out) in range.clone().zip(b.chunks_exact_mut(cols * LANES)) {
            w.columns(cpu.isa, panel, out);
        }
        gemm::panels(cpu, rows, cols, Mat::new(x, cols), b, false, range.clone(), &out);
        for panel in range {
            if let Epilogue::Rows { scales, .. } = w.epilogue(panel) {
                for token in 0..x.len() / cols {
                    let at = token * rows + panel * LANES..token * rows + rows.min((panel + 1) * LANES);
                    // SAFETY: the task owns these columns of the output.
                    unsafe { out.slice(at) }.iter_mut().zip(scales).for_each(|(y, scale)| *y *= scale);
                }
            }
        }
    });
}

struct Buffers {
    quads: scratch::Scratch,
    scales: scratch::Scratch,
    sums: scratch::Scratch,
}

/// Bytes between the decoded panels of a strip: a chunk, and room for the units at its ends.
const PANEL: usize = (CHUNK + 16) * 64;

impl Buffers {
    fn new(tokens: usize, wide: usize, group: Option<usize>) -> Self {
        Buffers {
            quads: scratch::take(PANEL * wide),
            scales: scratch::take(group.map_or(0, |quads| (CHUNK / quads + 1) * wide * 2 * LANES * 4)),
            sums: scratch::take(tokens * wide * LANES * 4),
        }
    }
}

/// One strip of panels times all tokens.
struct Strip<'a> {
    w: &'a dyn Quads,
    layout: Layout,
    x: Groups<'a>,
    tiling: Tiling,
    panels: Range<usize>,
    rows: usize,
    out: &'a SharedMut<'a, f32>,
}

impl Strip<'_> {
    fn run(&self, isa: Isa, buffers: &mut Buffers) {
        let Layout { quads, group, kind, .. } = self.layout;
        let width = self.panels.len();
        let Buffers { quads: decoded, scales, sums } = buffers;
        let sums = &mut sums.lanes()[..self.tiling.covered() * width];
        let mut epilogues = [Epilogue::Totals; WIDEST];
        for (epilogue, panel) in epilogues.iter_mut().zip(self.panels.clone()) {
            *epilogue = self.w.epilogue(panel);
        }
        // Whole panels are finished tile by tile.
        let fused = self.panels.end * LANES <= self.rows;
        let chunks = self.x.x.chunks();
        for chunk in 0..chunks {
            let start = chunk * self.x.x.chunk() / 4;
            let length = (self.x.x.chunk() / 4).min(self.layout.length - start);
            let first_group = start / group.unwrap_or(GROUP / 4);
            if let Some(g) = group {
                for (i, panel) in self.panels.clone().enumerate() {
                    let groups = first_group..first_group + length / g;
                    self.w.group_scales(isa, panel, groups, width, &mut scales.floats()[i * 2 * LANES..]);
                }
            }
            let (w, across) = match self.stored(start) {
                Some(stored) => stored,
                None => {
                    let units = start / quads..(start + length).div_ceil(quads);
                    for (panel, out) in self.panels.clone().zip(decoded.bytes().chunks_exact_mut(PANEL)) {
                        self.w.decode(isa, panel, units.clone(), out);
                    }
                    (&decoded.bytes()[start % quads * 64..], PANEL)
                }
            };
            isa.run(Tiles {
                kind,
                length,
                group,
                zero: if let Epilogue::Rows { zero, .. } = epilogues[0] { zero } else { 0 },
                first: chunk == 0,
                finish: (fused && chunk + 1 == chunks).then_some(&epilogues[..width]),
                first_group,
                w,
                across,
                scales: scales.floats(),
                rows: self.x.x.rows(chunk),
                strip: self,
                sums,
            });
        }
        if !fused {
            for (i, panel) in self.panels.clone().enumerate() {
                isa.run(Finish { strip: self, epilogue: epilogues[i], step: width, sums: &sums[i..], panel });
            }
        }
    }

    /// The quads of the strip from `start` on, and the bytes between panels, where they are stored as such.
    fn stored(&self, start: usize) -> Option<(&[u8], usize)> {
        let all = self.w.stored(self.panels.clone())?;
        Some((&all[start * 64..], all.len() / self.panels.len()))
    }
}

/// Outputs of one panel for all tokens, from sums in memory.
struct Finish<'a> {
    strip: &'a Strip<'a>,
    epilogue: Epilogue,
    step: usize,
    sums: &'a [[u32; LANES]],
    panel: usize,
}

impl Op for Finish<'_> {
    type Out = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Strip { x, rows, out, .. } = *self.strip;
        let width = LANES.min(rows - self.panel * LANES);
        for token in 0..x.x.tokens() {
            let sums = self.sums[token * self.step].as_ptr();
            // SAFETY: a sum is 16 values.
            let v = unsafe { finish(s, x, &self.epilogue, token, s.load_i(sums.cast())) };
            let at = token * rows + self.panel * LANES;
            // SAFETY: the task owns these columns of the output.
            s.store_part(unsafe { out.slice(at..at + width) }, v);
        }
    }
}

/// The outputs of a token from the bits of its sums.
#[inline(always)]
pub(super) fn finish<S: Simd>(s: S, x: Groups, epilogue: &Epilogue, token: usize, sums: S::I) -> S::F {
    match epilogue {
        Epilogue::Rows { zero, scales } => {
            // SAFETY: 16 scales.
            let scales = unsafe { s.load(scales.as_ptr()) };
            if x.blocks.is_some() {
                return s.mul(s.as_f(sums), s.mul(s.splat(x.scale[token]), scales));
            }
            finish_rows(s, sums, *zero, x.totals[token], x.scale[token], scales)
        }
        Epilogue::Totals if x.scale.is_empty() => s.as_f(sums),
        Epilogue::Totals => s.mul(s.as_f(sums), s.splat(x.scale[token])),
    }
}

/// `(sum - zero * total) * (scale * scales)`: one text for one token and for many.
#[inline(always)]
pub(super) fn finish_rows<S: Simd>(s: S, sum: S::I, zero: i32, total: i32, scale: f32, scales: S::F) -> S::F {
    let exact = s.sub_i(sum, s.splat_i(zero.wrapping_mul(total)));
    s.mul(s.to_f(exact), s.mul(s.splat(scale), scales))
}

/// Register tiles for so many tokens, and the panels of a strip. With groups or blocks, totals stand beside the sums in registers.
struct ChooseTiling {
    tokens: usize,
    totals: bool,
}

impl Op for ChooseTiling {
    type Out = (Tiling, usize);
    #[inline(always)]
    fn eval<S: Simd>(self, _: S) -> (Tiling, usize) {
        let most = if self.totals { S::GROUP_ROWS } else { S::TILE_ROWS };
        let tiling = Tiling::new(self.tokens, most);
        let wide = tile_panels::<S>(tiling.rows);
        (tiling, if self.totals { wide.min(S::TILE_PANELS) } else { wide })
    }
}

/// One chunk of a strip times all tiles of tokens.
struct Tiles<'a> {
    kind: OperandKind,
    /// Quads of the chunk.
    length: usize,
    group: Option<usize>,
    /// The code that means 0, where rows have scales.
    zero: i32,
    /// Whether sums begin here; what `sums` holds is then not read.
    first: bool,
    /// Whether outputs are made here, by panel; `sums` is then not written.
    finish: Option<&'a [Epilogue]>,
    first_group: usize,
    /// Quads of the first panel; those of the next begin `across` bytes later.
    w: &'a [u8],
    across: usize,
    scales: &'a [f32],
    /// Activations of all tokens, [`ROW`] bytes apart.
    rows: &'a [u8],
    strip: &'a Strip<'a>,
    /// `[tokens][panels]`: raw sums or totals, as bits.
    sums: &'a mut [[u32; LANES]],
}

impl Op for Tiles<'_> {
    type Out = ();

    #[inline(always)]
    fn eval<S: Simd>(mut self, s: S) {
        let (tiling, width) = (self.strip.tiling, self.strip.panels.len());
        s.tile(tiling.rows, width, TileRun { tiles: &mut self, first: 0, count: tiling.large });
        if tiling.small > 0 {
            let first = tiling.large * tiling.rows;
            s.tile(tiling.rows - 2, width, TileRun { tiles: &mut self, first, count: tiling.small });
        }
    }
}

/// Tiles of one size.
struct TileRun<'t, 'a> {
    tiles: &'t mut Tiles<'a>,
    /// First token.
    first: usize,
    count: usize,
}

impl TileOp for TileRun<'_, '_> {
    #[inline(always)]
    fn eval<S: Simd, const T: usize, const P: usize>(self, s: S) {
        let TileRun { tiles, first, count } = self;
        let step = tiles.group.unwrap_or(1);
        assert!(tiles.w.len() >= (P - 1) * tiles.across + tiles.length * 64 && tiles.length.is_multiple_of(step));
        assert!(tiles.rows.len() >= (first + count * T) * ROW && tiles.length * 4 <= ROW);
        assert!(tiles.sums.len() >= (first + count * T) * P && tiles.finish.is_none_or(|f| f.len() == P));
        assert!(tiles.group.is_none() || tiles.scales.len() >= tiles.length / step * P * 2 * LANES);
        for token in (0..count).map(|i| first + i * T) {
            // SAFETY: within the lengths asserted above.
            unsafe {
                match (tiles.kind, tiles.group) {
                    (OperandKind::Int, None) if tiles.strip.x.blocks.is_none() => {
                        tiles.run::<S, Ints, T, P>(s, token);
                    }
                    (OperandKind::Bf16, None) if S::FAST_BF16 => tiles.run::<S, Halves, T, P>(s, token),
                    (OperandKind::Bf16, _) => {
                        unreachable!("bf16 tiles run where one instruction multiplies bf16 pairs")
                    }
                    // Tiles that have no room for totals are not compiled.
                    _ if const { T <= S::GROUP_ROWS && P <= S::TILE_PANELS } => {
                        tiles.run_totals::<S, T, P>(s, token);
                    }
                    _ => unreachable!("a tile of {T} rows and {P} panels has no room for totals"),
                }
            }
        }
    }
}

/// Sums of a register tile in memory, as bits.
type Sums<const T: usize, const P: usize> = [[[u32; LANES]; P]; T];

impl Tiles<'_> {
    /// A register tile whose sums are added to totals.
    ///
    /// # Safety
    /// The quads, the activations, the scales and the totals of the tile are within their buffers.
    #[inline(always)]
    unsafe fn run_totals<S: Simd, const T: usize, const P: usize>(&mut self, s: S, token: usize) {
        // SAFETY: by the contract.
        unsafe {
            match (self.kind, self.group, self.strip.x.folds) {
                (OperandKind::Int, Some(group), Some(folds)) => match folds.small {
                    true => self.run_folds::<S, folds::Codes<true>, T, P>(s, token, group, &folds),
                    false => self.run_folds::<S, folds::Codes<false>, T, P>(s, token, group, &folds),
                },
                (OperandKind::Float, Some(group), Some(folds)) => {
                    self.run_folds::<S, folds::Floats, T, P>(s, token, group, &folds);
                }
                (OperandKind::Int, ..) if self.strip.x.blocks.is_some() => self.run_blocks::<S, T, P>(s, token),
                (OperandKind::Int, Some(group), _) => self.run_groups::<S, T, P>(s, token, group),
                _ => unreachable!("sums that are outputs"),
            }
        }
    }

    /// A register tile over the chunk, all of which shares a scale.
    ///
    /// # Safety
    /// The quads, the activations and the sums of the tile are within their buffers.
    #[inline(always)]
    unsafe fn run<S: Simd, E: Element<S>, const T: usize, const P: usize>(&mut self, s: S, token: usize) {
        // SAFETY: by the contract.
        unsafe {
            let sums: *mut [u32; LANES] = self.sums.as_mut_ptr().add(token * P);
            let mut acc = [[E::zero(s); P]; T];
            if !self.first {
                for t in 0..T {
                    for p in 0..P {
                        acc[t][p] = E::from_bits(s, s.load_i(sums.add(t * P + p).cast()));
                    }
                }
            }
            let (base, x) = (self.w.as_ptr(), self.rows.as_ptr().add(token * ROW));
            for quad in 0..self.length {
                let mut w = [s.splat_i(0); P];
                for p in 0..P {
                    w[p] = s.load_i(base.add(p * self.across + quad * 64));
                }
                for t in 0..T {
                    let x = s.splat_i(x.add(t * ROW + quad * 4).cast::<i32>().read_unaligned());
                    for p in 0..P {
                        acc[t][p] = E::dot(s, acc[t][p], w[p], x);
                    }
                }
            }
            // One plain loop of stores takes the sums out of their registers; outputs are made from memory.
            let mut tile: Sums<T, P> = [[[0; LANES]; P]; T];
            let to = if self.finish.is_none() { sums } else { tile.as_mut_ptr().cast() };
            for t in 0..T {
                for p in 0..P {
                    s.store_i(to.add(t * P + p).cast(), E::bits(s, acc[t][p]));
                }
            }
            self.outputs(s, token, &tile);
        }
    }

    /// A register tile over the groups of the chunk: `total += sum * scale + offset * (sum of the group's activations)`.
    ///
    /// # Safety
    /// The quads, the activations, the scales and the totals of the tile are within their buffers.
    #[inline(always)]
    unsafe fn run_groups<S: Simd, const T: usize, const P: usize>(&mut self, s: S, token: usize, group: usize) {
        // SAFETY: by the contract.
        unsafe {
            let totals: *mut [u32; LANES] = self.sums.as_mut_ptr().add(token * P);
            let mut total = [[s.splat(0.0); P]; T];
            if !self.first {
                for t in 0..T {
                    for p in 0..P {
                        total[t][p] = s.load(totals.add(t * P + p).cast());
                    }
                }
            }
            let (base, x) = (self.w.as_ptr(), self.rows.as_ptr().add(token * ROW));
            for g in 0..self.length / group {
                let mut acc = [[s.splat_i(0); P]; T];
                for quad in g * group..(g + 1) * group {
                    let mut w = [s.splat_i(0); P];
                    for p in 0..P {
                        w[p] = s.load_i(base.add(p * self.across + quad * 64));
                    }
                    for t in 0..T {
                        let x = s.splat_i(x.add(t * ROW + quad * 4).cast::<i32>().read_unaligned());
                        for p in 0..P {
                            acc[t][p] = s.dot(acc[t][p], w[p], x);
                        }
                    }
                }
                let scales = self.scales.as_ptr().add(g * P * 2 * LANES);
                for t in 0..T {
                    let sum = self.strip.x.sum(token + t, self.first_group + g);
                    for p in 0..P {
                        let (scale, offset) = (scales.add(p * 2 * LANES), scales.add((p * 2 + 1) * LANES));
                        total[t][p] = fold(s, total[t][p], acc[t][p], sum, s.load(scale), s.load(offset));
                    }
                }
            }
            let mut tile: Sums<T, P> = [[[0; LANES]; P]; T];
            let to = if self.finish.is_none() { totals } else { tile.as_mut_ptr().cast() };
            for t in 0..T {
                for p in 0..P {
                    s.store(to.add(t * P + p).cast(), total[t][p]);
                }
            }
            self.outputs(s, token, &tile);
        }
    }

    /// Stores the outputs of a tile for all panels of the strip, which are whole, after the last chunk.
    #[inline(always)]
    fn outputs<S: Simd, const T: usize, const P: usize>(&self, s: S, token: usize, sums: &Sums<T, P>) {
        let Some(epilogues) = self.finish else { return };
        let Strip { x, rows, out, ref panels, .. } = *self.strip;
        for (token, sums) in (token..x.x.tokens()).zip(sums) {
            let at = token * rows + panels.start * LANES;
            // SAFETY: the task owns these columns of the output; a sum is 16 values.
            unsafe {
                let out = out.slice(at..at + P * LANES).as_mut_ptr();
                for p in 0..P {
                    let v = finish(s, x, &epilogues[p], token, s.load_i(sums[p].as_ptr().cast()));
                    s.store(out.add(p * LANES), v);
                }
            }
        }
    }
}
