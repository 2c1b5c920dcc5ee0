//! The product for many tokens, shared by all formats that multiply 4-byte groups: four int8 or two bf16.
//!
//! A strip of a few panels meets the activations chunk by chunk: quads (64 bytes: the same 4-byte group of 16 rows) are
//! read as they are stored, or decoded once for all tokens, and a register tile of `T` tokens times `P` panels runs over the
//! chunk. Formats with one scale per row keep raw sums until the end; formats with group scales fold each group into f32
//! totals.

use crate::activations::{Blocked, ROW};
use crate::gemm::{self, Mat};
use crate::pool::SharedMut;
use crate::simd::{LANES, Simd, TileOp, Tiling, tile_panels};
use crate::{Bf16Activations, Cpu, Int8Activations, Isa, Op, scratch};
use std::ops::Range;

mod elements;
mod folds;

use elements::{Element, Halves, Ints};
pub(super) use folds::{Folds, add_offsets, fold, fold_both};

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
    /// `(sum - zero * sum of the activations) * (activation scale * row scale)`, of folds `total * (activation scale * row scale)`
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

/// Activations as 4-byte groups.
#[derive(Clone, Copy)]
pub(super) struct Groups<'a> {
    pub x: &'a Blocked,
    /// Scale per token; empty for floats, where it is 1.
    pub scale: &'a [f32],
    /// Sum of all codes of each token, which corrects for the zero point of integer codes; empty for floats.
    pub totals: &'a [i32],
    /// What is needed where scales belong to a few columns.
    pub folds: Option<Folds<'a>>,
}

impl<'a> Groups<'a> {
    /// 8-bit activations.
    pub(super) fn int8(q: &'a Int8Activations, folds: Option<Folds<'a>>) -> Self {
        Groups { x: &q.q, scale: &q.scale, totals: &q.sums, folds }
    }

    /// Activations that are floats.
    pub(super) fn floats(x: &'a Blocked, folds: Option<Folds<'a>>) -> Self {
        Groups { x, scale: &[], totals: &[], folds }
    }
}

impl<'a> From<&'a Bf16Activations> for Groups<'a> {
    fn from(rows: &'a Bf16Activations) -> Self {
        Groups::floats(&rows.x, None)
    }
}

/// Callback of a task after the product, over its rows of the output: `(panels, out)`.
pub(super) type After<'a> = &'a (dyn Fn(Range<usize>, &SharedMut<f32>) + Sync);

/// `y = x * W^T` for several tokens; `y` is `[tokens, rows]`.
pub(super) fn product(cpu: &Cpu, w: &dyn Quads, rows: usize, x: Groups, y: &mut [f32], after: After) {
    let layout = w.layout();
    let tokens = x.x.tokens();
    let totals = x.folds.is_some();
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
            if let Some(g) = group {
                for (i, panel) in self.panels.clone().enumerate() {
                    let groups = start / g..(start + length).div_ceil(g);
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
                first: chunk == 0,
                finish: (fused && chunk + 1 == chunks).then_some(&epilogues[..width]),
                start,
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
            if x.folds.is_some() {
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

/// Register tiles for so many tokens, and the panels of a strip. With folds, totals stand beside the sums in registers.
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
    /// Whether sums begin here; what `sums` holds is then not read.
    first: bool,
    /// Whether outputs are made here, by panel; `sums` is then not written.
    finish: Option<&'a [Epilogue]>,
    /// First quad of the chunk.
    start: usize,
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
        let folds = tiles.strip.x.folds;
        assert!(tiles.w.len() >= (P - 1) * tiles.across + tiles.length * 64);
        assert!(tiles.rows.len() >= (first + count * T) * ROW && tiles.length * 4 <= ROW);
        assert!(tiles.sums.len() >= (first + count * T) * P && tiles.finish.is_none_or(|f| f.len() == P));
        if let Some(group) = tiles.group {
            assert!(
                folds.is_some_and(|folds| folds.quads << folds.group_shift == group)
                    && tiles.start.is_multiple_of(group)
            );
            assert!(tiles.scales.len() >= tiles.length.div_ceil(group) * P * 2 * LANES);
        }
        for token in (0..count).map(|i| first + i * T) {
            // SAFETY: within the lengths asserted above.
            unsafe {
                match (&folds, tiles.kind) {
                    (None, OperandKind::Int) => tiles.run::<S, Ints<false>, T, P>(s, token),
                    (None, OperandKind::Bf16) if S::FAST_BF16 => tiles.run::<S, Halves, T, P>(s, token),
                    // Tiles that have no room for totals are not compiled.
                    (Some(folds), _) if const { T <= S::GROUP_ROWS && P <= S::TILE_PANELS } => {
                        tiles.run_totals::<S, T, P>(s, token, folds);
                    }
                    (None, kind) => unreachable!("no tile whose outputs are sums of {kind:?}"),
                    _ => unreachable!("a tile of {T} rows and {P} panels has no room for totals"),
                }
            }
        }
    }
}

/// Sums of a register tile in memory, as bits.
type Sums<const T: usize, const P: usize> = [[[u32; LANES]; P]; T];

impl Tiles<'_> {
    /// A register tile over the chunk, all of which shares a scale.
    ///
    /// # Safety
    /// The quads, the activations and the sums of the tile are within their buffers.
    #[inline(always)]
    unsafe fn run<S: Simd, E: Element<S>, const T: usize, const P: usize>(&mut self, s: S, token: usize) {
        // SAFETY: by the contract.
        unsafe {
            let acc = self.sums::<S, E, T, P>(s, token);
            let acc = self.dots::<S, E, T, P>(s, token, 0..self.length, acc);
            self.keep::<S, E, T, P>(s, token, &acc);
        }
    }

    /// The sums, or totals, of a tile so far.
    ///
    /// # Safety
    /// They are within their buffer.
    #[inline(always)]
    unsafe fn sums<S: Simd, E: Element<S>, const T: usize, const P: usize>(
        &self,
        s: S,
        token: usize,
    ) -> [[E::Sum; P]; T] {
        let mut acc = [[E::start(s, 0); P]; T];
        if !self.first {
            for t in 0..T {
                for p in 0..P {
                    // SAFETY: by the contract.
                    let bits = unsafe { s.load_i(self.sums.as_ptr().add((token + t) * P + p).cast()) };
                    acc[t][p] = E::from_bits(s, bits);
                }
            }
        }
        acc
    }

    /// Keeps the sums, or totals, of a tile, or makes outputs of them.
    ///
    /// # Safety
    /// They are within their buffer.
    #[inline(always)]
    unsafe fn keep<S: Simd, E: Element<S>, const T: usize, const P: usize>(
        &mut self,
        s: S,
        token: usize,
        acc: &[[E::Sum; P]; T],
    ) {
        // One plain loop of stores takes the sums out of their registers; outputs are made from memory.
        let mut tile: Sums<T, P> = [[[0; LANES]; P]; T];
        // SAFETY: by the contract; a tile holds all of its sums.
        unsafe {
            let kept: *mut [u32; LANES] = self.sums.as_mut_ptr().add(token * P);
            let to = if self.finish.is_none() { kept } else { tile.as_mut_ptr().cast() };
            for t in 0..T {
                for p in 0..P {
                    s.store_i(to.add(t * P + p).cast(), E::bits(s, acc[t][p]));
                }
            }
        }
        self.outputs(s, token, &tile);
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
