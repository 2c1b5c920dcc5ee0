//! The product for many tokens, shared by all formats that multiply 4-byte groups: four int8 or two bf16.
//!
//! A strip of a few panels is decoded chunk by chunk into quads (64 bytes: the same 4-byte group of 16 rows), once for all
//! tokens; a register tile of `T` tokens times `P` panels runs over the chunk. Formats with one scale per row keep raw
//! sums until the end; formats with group scales fold each group into f32 totals.

use crate::gemm::{self, Mat};
use crate::pool::SharedMut;
use crate::simd::{LANES, Simd, TileOp, tile_panels};
use crate::{Cpu, Isa, Op, Rows, scratch};
use std::ops::Range;

/// Quads of a chunk at most.
const CHUNK: usize = 128;
/// Distance of tokens in packed activations, in 4-byte groups; not a power of two.
const STRIDE: usize = CHUNK + 16;
/// What the 4-byte groups hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Unsigned codes times signed activations, exact in i32.
    Int,
    /// Pairs of bf16, summed in f32.
    Bf16,
}

/// How the units of a format become quads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// What the quads hold.
    pub kind: Kind,
    /// 64-byte units of a panel.
    pub units: usize,
    /// Quads of a unit.
    pub quads: usize,
    /// Quads that share a scale, where scales are per group.
    pub group: Option<usize>,
}

/// The last step of an output.
#[derive(Clone, Copy, Debug)]
pub(super) enum Epilogue {
    /// `(sum - zero * sum of the activations) * (activation scale * row scale)`
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
    /// Writes the quads of some units of one panel: quad `i` to `out[i * step * 64..]`, `step` being `out`'s panel count.
    fn decode(&self, isa: Isa, panel: usize, units: Range<usize>, step: usize, out: &mut [u8]);
    /// Writes scale and offset of each group of one panel: `out[g * step * 32..]` gets 16 scales, then 16 offsets.
    fn group_scales(&self, _panel: usize, _groups: Range<usize>, _step: usize, _out: &mut [f32]) {}
    /// What turns the sums of one panel into outputs.
    fn epilogue(&self, panel: usize) -> Epilogue;
    /// All weights of one panel as f32, `[cols][16]`.
    fn columns(&self, isa: Isa, panel: usize, out: &mut [f32]);
}

/// Activations as 4-byte groups: the bytes of each token, `stride` bytes apart, and the sums of its groups.
#[derive(Clone, Copy)]
pub(super) struct Groups<'a> {
    pub bytes: &'a [u8],
    pub stride: usize,
    pub tokens: usize,
    /// Sums per token and group of 64 columns, `sums_stride` apart; empty for bf16.
    pub sums: &'a [i32],
    pub sums_stride: usize,
    /// Scale per token; empty for bf16, where it is 1.
    pub scale: &'a [f32],
    /// Sum of all codes of each token; empty for bf16.
    pub totals: &'a [i32],
}

/// `y = x * W^T` for any number of tokens; `y` is `[tokens, rows]`.
pub(super) fn product(cpu: &Cpu, w: &dyn Quads, rows: usize, x: Groups, y: &mut [f32]) {
    let layout = w.layout();
    let tile = gemm::tile_rows(cpu, x.tokens);
    let tiles = x.tokens.div_ceil(tile);
    let chunk_units = CHUNK / layout.quads;
    let chunks = layout.units.div_ceil(chunk_units);
    let chunk_quads = chunk_units * layout.quads;
    let mut packed = scratch::take(tiles * chunks * tile * STRIDE * 4);
    let packed = packed.bytes();
    let size = tile * STRIDE * 4;
    cpu.pool.for_rows(tiles * chunks, 16, [(&mut packed[..tiles * chunks * size], size)], |range, [part]| {
        for (i, out) in range.zip(part.chunks_exact_mut(size)) {
            let (chunk, first) = (i / tiles, i % tiles * tile);
            let start = chunk * chunk_quads * 4;
            let length = (chunk_quads * 4).min(layout.units * layout.quads * 4 - start);
            for (t, out) in out.chunks_exact_mut(STRIDE * 4).enumerate() {
                match first + t < x.tokens {
                    true => out[..length].copy_from_slice(&x.bytes[(first + t) * x.stride + start..][..length]),
                    false => out[..length].fill(0),
                }
            }
        }
    });
    let panels = rows.div_ceil(LANES);
    let wide = cpu.isa.run(Wide(tile));
    // Strips of `wide` panels, then of one.
    let full = panels / wide;
    let strips = full + panels % wide;
    let work = x.tokens * layout.units * layout.quads * wide;
    let grain = strips.div_ceil(8).min(8).max((1 << 14) / (work + 1)).max(1);
    let out = SharedMut::new(y);
    let packed = &*packed;
    cpu.pool.run(strips.div_ceil(grain), &|task| {
        let mut buffers = Buffers::new(tiles * tile, wide);
        for strip in task * grain..((task + 1) * grain).min(strips) {
            let panels = match strip < full {
                true => strip * wide..(strip + 1) * wide,
                false => full * wide + strip - full..full * wide + strip - full + 1,
            };
            let job = Strip { w, layout, x, packed, tile, tiles, chunk_units, panels: panels.clone() };
            let sums = job.run(cpu.isa, &mut buffers);
            for (i, panel) in panels.clone().enumerate() {
                let sums = &sums[i..];
                cpu.isa.run(Finish {
                    epilogue: w.epilogue(panel),
                    step: panels.len(),
                    sums,
                    x,
                    rows,
                    panel,
                    out: &out,
                });
            }
        }
    });
}

/// `y = x * W^T` with f32 activations on weights decoded to f32.
pub(super) fn product_f32(cpu: &Cpu, w: &dyn Quads, rows: usize, cols: usize, x: Rows, y: &mut [f32]) {
    let owned;
    let x = match x {
        Rows::F32(x) => x,
        Rows::Int8(q) => {
            owned = q.dequantize();
            &owned
        }
    };
    let tokens = x.len() / cols;
    let panels = rows.div_ceil(LANES);
    let (tile, wide) = (gemm::tile_rows(cpu, tokens), 8);
    let out = SharedMut::new(y);
    cpu.pool.run(panels.div_ceil(wide), &|task| {
        let range = task * wide..((task + 1) * wide).min(panels);
        let mut buffer = scratch::take(range.len() * cols * LANES * 4);
        let b = buffer.floats();
        for (panel, out) in range.clone().zip(b.chunks_exact_mut(cols * LANES)) {
            w.columns(cpu.isa, panel, out);
        }
        let mut first = 0;
        while first < tokens {
            let rows_here = first..(first + 16 * tile).min(tokens);
            cpu.isa.run(gemm::Block {
                n: rows,
                k: cols,
                a: Mat::new(x, cols),
                b,
                first_panel: range.start,
                accumulate: false,
                tile,
                rows: rows_here.clone(),
                panels: range.clone(),
                c: &out,
            });
            first = rows_here.end;
        }
    });
}

struct Buffers {
    quads: scratch::Scratch,
    scales: scratch::Scratch,
    sums: scratch::Scratch,
}

impl Buffers {
    fn new(tokens: usize, wide: usize) -> Self {
        Buffers {
            quads: scratch::take(CHUNK * wide * 64),
            scales: scratch::take(CHUNK / 16 * wide * 2 * LANES * 4),
            sums: scratch::take(tokens * wide * LANES * 4),
        }
    }
}

/// One strip of panels times all tokens.
struct Strip<'a> {
    w: &'a dyn Quads,
    layout: Layout,
    x: Groups<'a>,
    packed: &'a [u8],
    tile: usize,
    tiles: usize,
    chunk_units: usize,
    panels: Range<usize>,
}

impl Strip<'_> {
    fn run<'b>(&self, isa: Isa, buffers: &'b mut Buffers) -> &'b [[u32; LANES]] {
        let Layout { units, quads, group, .. } = self.layout;
        let width = self.panels.len();
        let sums = &mut buffers.sums.lanes()[..self.tiles * self.tile * width];
        if group.is_some() {
            sums.fill([0; LANES]);
        }
        for (chunk, start) in (0..units).step_by(self.chunk_units).enumerate() {
            let span = start..(start + self.chunk_units).min(units);
            let length = span.len() * quads;
            let first_group = group.map_or(0, |g| start * quads / g);
            let groups = group.map_or(0, |g| length / g);
            for (i, panel) in self.panels.clone().enumerate() {
                self.w.decode(isa, panel, span.clone(), width, &mut buffers.quads.bytes()[i * 64..]);
                let scales = &mut buffers.scales.floats()[i * 2 * LANES..];
                self.w.group_scales(panel, first_group..first_group + groups, width, scales);
            }
            isa.run(Tiles {
                kind: self.layout.kind,
                length,
                group,
                first: chunk == 0,
                first_group,
                quads: buffers.quads.bytes(),
                scales: buffers.scales.floats(),
                packed: &self.packed[chunk * self.tiles * self.tile * STRIDE * 4..],
                x: self.x,
                tile: self.tile,
                tiles: self.tiles,
                width,
                sums,
            });
        }
        sums
    }
}

/// Outputs of one panel for all tokens.
struct Finish<'a> {
    epilogue: Epilogue,
    step: usize,
    sums: &'a [[u32; LANES]],
    x: Groups<'a>,
    rows: usize,
    panel: usize,
    out: &'a SharedMut<'a, f32>,
}

impl Op for Finish<'_> {
    type Out = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let width = LANES.min(self.rows - self.panel * LANES);
        for token in 0..self.x.tokens {
            let sums = self.sums[token * self.step].as_ptr();
            let scale = if self.x.scale.is_empty() { 1.0 } else { self.x.scale[token] };
            // SAFETY: a sum is 16 values.
            let v = unsafe {
                match &self.epilogue {
                    Epilogue::Rows { zero, scales } => finish_rows(
                        s,
                        s.load_i(sums.cast()),
                        *zero,
                        self.x.totals[token],
                        scale,
                        s.load(scales.as_ptr()),
                    ),
                    Epilogue::Totals if self.x.scale.is_empty() => s.load(sums.cast()),
                    Epilogue::Totals => s.mul(s.load(sums.cast()), s.splat(scale)),
                }
            };
            let at = token * self.rows + self.panel * LANES;
            // SAFETY: the task owns these columns of the output.
            s.store_part(unsafe { self.out.slice(at..at + width) }, v);
        }
    }
}

/// `(sum - zero * total) * (scale * scales)`: one text for one token and for many.
#[inline(always)]
pub(super) fn finish_rows<S: Simd>(s: S, sum: S::I, zero: i32, total: i32, scale: f32, scales: S::F) -> S::F {
    let exact = s.sub_i(sum, s.splat_i(zero.wrapping_mul(total)));
    s.mul(s.to_f(exact), s.mul(s.splat(scale), scales))
}

/// Panels of a strip for a tile of so many tokens.
struct Wide(usize);

impl Op for Wide {
    type Out = usize;
    #[inline(always)]
    fn eval<S: Simd>(self, _: S) -> usize {
        tile_panels::<S>(self.0)
    }
}

/// One chunk of a strip times all tiles of tokens.
struct Tiles<'a> {
    kind: Kind,
    length: usize,
    group: Option<usize>,
    /// Whether sums begin here; what `sums` holds is then not read.
    first: bool,
    first_group: usize,
    quads: &'a [u8],
    scales: &'a [f32],
    packed: &'a [u8],
    x: Groups<'a>,
    tile: usize,
    tiles: usize,
    width: usize,
    /// `[tokens][width]`: raw sums or totals, as bits.
    sums: &'a mut [[u32; LANES]],
}

impl Op for Tiles<'_> {
    type Out = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let (tile, width) = (self.tile, self.width);
        s.tile(tile, width, self);
    }
}

impl TileOp for Tiles<'_> {
    #[inline(always)]
    fn eval<S: Simd, const T: usize, const P: usize>(self, s: S) {
        let step = self.group.unwrap_or(self.length);
        assert!(self.quads.len() >= self.length * P * 64 && self.packed.len() >= self.tiles * T * STRIDE * 4);
        assert!(self.sums.len() >= self.tiles * T * P && self.length.is_multiple_of(step) && self.length <= CHUNK);
        assert!(self.group.is_none() || self.scales.len() >= self.length / step * P * 2 * LANES);
        for tile in 0..self.tiles {
            let x = self.packed[tile * T * STRIDE * 4..].as_ptr();
            let sums: *mut [u32; LANES] = self.sums[tile * T * P..].as_mut_ptr();
            for (g, start) in (0..self.length).step_by(step).enumerate() {
                // SAFETY: within the lengths asserted above.
                unsafe {
                    let acc = match self.kind {
                        Kind::Int => self.ints::<S, T, P>(s, x, start..start + step, sums),
                        Kind::Bf16 => self.halves::<S, T, P>(s, x, start..start + step, sums),
                    };
                    if self.group.is_some() {
                        for t in 0..T {
                            for p in 0..P {
                                self.fold::<S, P>(s, g, p, tile * T + t, acc[t][p], sums.add(t * P + p));
                            }
                        }
                    }
                }
            }
        }
    }
}

impl Tiles<'_> {
    /// Integer sums of one group, or of one chunk on top of what `sums` holds.
    ///
    /// # Safety
    /// The quads, the activations and the sums of a tile are within their buffers.
    #[inline(always)]
    unsafe fn ints<S: Simd, const T: usize, const P: usize>(
        &self,
        s: S,
        x: *const u8,
        span: Range<usize>,
        sums: *mut [u32; LANES],
    ) -> [[S::F; P]; T] {
        let mut acc = [[s.splat_i(0); P]; T];
        let mut out = [[s.splat(0.0); P]; T];
        // SAFETY: by the contract.
        unsafe {
            if self.group.is_none() && !self.first {
                for t in 0..T {
                    for p in 0..P {
                        acc[t][p] = s.load_i(sums.add(t * P + p).cast());
                    }
                }
            }
            for quad in span {
                let mut w = [s.splat_i(0); P];
                for p in 0..P {
                    w[p] = s.load_i(self.quads.as_ptr().add((quad * P + p) * 64));
                }
                for t in 0..T {
                    let x = s.splat_i(x.add((t * STRIDE + quad) * 4).cast::<i32>().read_unaligned());
                    for p in 0..P {
                        acc[t][p] = s.dot(acc[t][p], w[p], x);
                    }
                }
            }
            for t in 0..T {
                for p in 0..P {
                    match self.group {
                        None => s.store_i(sums.add(t * P + p).cast(), acc[t][p]),
                        Some(_) => out[t][p] = s.to_f(acc[t][p]),
                    }
                }
            }
        }
        out
    }

    /// As [`Tiles::ints`], for bf16 pairs.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn halves<S: Simd, const T: usize, const P: usize>(
        &self,
        s: S,
        x: *const u8,
        span: Range<usize>,
        sums: *mut [u32; LANES],
    ) -> [[S::F; P]; T] {
        let mut acc = [[s.splat(0.0); P]; T];
        if !S::FAST_BF16 {
            unreachable!("bf16 tiles run where bf16 pairs are multiplied by one instruction");
        }
        // SAFETY: by the contract.
        unsafe {
            if self.group.is_none() && !self.first {
                for t in 0..T {
                    for p in 0..P {
                        acc[t][p] = s.load(sums.add(t * P + p).cast());
                    }
                }
            }
            for quad in span {
                let mut w = [s.splat_i(0); P];
                for p in 0..P {
                    w[p] = s.load_i(self.quads.as_ptr().add((quad * P + p) * 64));
                }
                for t in 0..T {
                    let x = s.splat_i(x.add((t * STRIDE + quad) * 4).cast::<i32>().read_unaligned());
                    for p in 0..P {
                        acc[t][p] = s.dot_bf16(acc[t][p], w[p], x);
                    }
                }
            }
            if self.group.is_none() {
                for t in 0..T {
                    for p in 0..P {
                        s.store(sums.add(t * P + p).cast(), acc[t][p]);
                    }
                }
            }
        }
        acc
    }

    /// `total += acc * scale + offset * (sum of the group's activations)`
    ///
    /// # Safety
    /// `total` holds 16 values; the group and panel are inside `scales`.
    #[inline(always)]
    unsafe fn fold<S: Simd, const P: usize>(
        &self,
        s: S,
        g: usize,
        p: usize,
        token: usize,
        acc: S::F,
        total: *mut [u32; LANES],
    ) {
        // SAFETY: by the contract.
        unsafe {
            let scales = self.scales.as_ptr().add((g * P + p) * 2 * LANES);
            let mut sum = s.fma(acc, s.load(scales), s.load(total.cast()));
            if !self.x.sums.is_empty() {
                let at = token.min(self.x.tokens - 1) * self.x.sums_stride + self.first_group + g;
                sum = s.fma(s.splat(self.x.sums[at] as f32), s.load(scales.add(LANES)), sum);
            }
            s.store(total.cast(), sum);
        }
    }
}
