//! General matrix product, of f32 or of operands rounded to bf16.
//!
//! `B` is packed into panels of 16 columns, `[k][16]`; a tile of `T` rows of `A` times `P` panels stays in registers while k
//! runs over a chunk of 256. Tasks own blocks of the output. Every output is one chain of fused multiply-adds in the
//! order of k, whatever the tile, the threads or the instruction set; where one instruction multiplies pairs of bf16, an element
//! of both operands is such a pair, and the chain one of pairs.

use crate::format::ways::{self, Capability};
use crate::pool::SharedMut;
use crate::simd::{LANES, Simd, TileOp, Tiling, tile_panels};
use crate::{Cpu, Op, Products, Windows, scratch};
use std::marker::PhantomData;
use std::ops::Range;

mod element;
mod operand;
mod pack;

use element::{Element, Pairs, Rounded, Single};
pub use operand::{Mat, Operand};
use pack::{pack_columns, pack_panels};

/// Elements of a chunk of k: two panels of it and a tile of `A` fit the first-level cache.
const CHUNK: usize = 256;
/// Distance of the rows of a packed tile; not a power of two, so that they fall into different cache sets.
const TILE_STRIDE: usize = CHUNK + 16;
/// Tiles of `A` per task at most.
const TILES: usize = 12;
/// Panels of windows of which a task packs a chunk at a time: they fit the second-level cache beside the tiles.
const PACKED: usize = 32;

/// What the operands of a product are rounded to; sums are f32 always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// f32: not rounded.
    #[default]
    F32,
    /// bf16, nearest even.
    Bf16,
}

/// `C = A * B` (or `C += A * B` when `accumulate`), `A` being `[m, k]`, `B` `[k, n]`, `C` row-major `[m, n]`. Sums run over
/// k in order with fused multiply-adds: the result does not depend on threads or instruction set.
///
/// # Panics
/// When a view is shorter than its shape, or `c.len() != m * n`.
#[allow(clippy::too_many_arguments)] // the arguments of BLAS
pub fn gemm<'a, 'b>(
    cpu: &Cpu,
    m: usize,
    n: usize,
    k: usize,
    a: impl Into<Operand<'a>>,
    b: impl Into<Operand<'b>>,
    accumulate: bool,
    c: &mut [f32],
) {
    gemm_in(cpu, Precision::F32, m, n, k, a, b, accumulate, c);
}

/// [`gemm`] of operands rounded to a precision as they are packed. Products of bf16 are exact in f32, and sums run over k in
/// order: the result has the same bits on all threads, and on all instruction sets but those with a product of bf16 pairs
/// (`avx512-bf16`), which is used where it is fast: it adds two products at a time, rounds each sum to nearest, and takes
/// subnormal numbers as 0. Either way an output is off by at most `k` roundings of f32 of the sum of all `|a b|`.
///
/// # Panics
/// As [`gemm`].
#[allow(clippy::too_many_arguments)] // the arguments of BLAS
pub fn gemm_in<'a, 'b>(
    cpu: &Cpu,
    precision: Precision,
    m: usize,
    n: usize,
    k: usize,
    a: impl Into<Operand<'a>>,
    b: impl Into<Operand<'b>>,
    accumulate: bool,
    c: &mut [f32],
) {
    let (a, b) = (a.into(), b.into());
    assert_eq!(Some(c.len()), m.checked_mul(n), "C is [m, n]");
    a.check(m, k, "A");
    b.check(k, n, "B");
    let run = match precision {
        Precision::F32 => product::<Single>,
        Precision::Bf16 if multiplies_pairs(cpu, m) => product::<Pairs>,
        Precision::Bf16 => product::<Rounded>,
    };
    run(cpu, m, n, k, a, b, accumulate, c);
}

/// Whether products of bf16 pairs are one instruction here, and fast for so many rows.
fn multiplies_pairs(cpu: &Cpu, m: usize) -> bool {
    let slow = cpu.ways().preferred(m).find(|name| [ways::BF16_PAIRS, ways::FLOAT_PANELS].contains(name));
    Capability::Bf16Pairs.is_of(cpu.isa) && slow != Some(ways::FLOAT_PANELS)
}

#[allow(clippy::too_many_arguments)] // the arguments of BLAS
fn product<E: Element>(
    cpu: &Cpu,
    m: usize,
    n: usize,
    k: usize,
    a: Operand,
    b: Operand,
    accumulate: bool,
    c: &mut [f32],
) {
    if c.is_empty() {
        return;
    }
    if k == 0 {
        if !accumulate {
            c.fill(0.0);
        }
        return;
    }
    let b = match b {
        Operand::Matrix(b) => b,
        Operand::Windows(windows) => return multiply_windows::<E>(cpu, m, n, k, a, windows, accumulate, c),
    };
    // B may be shorter than its shape says: strides can be 0.
    let bytes = E::count(k).checked_mul(n.next_multiple_of(LANES)).and_then(|values| values.checked_mul(4));
    let mut packed = scratch::take(bytes.expect("B fits into memory"));
    pack_panels::<E>(cpu, k, n, b, packed.floats());
    multiply_packed::<E>(cpu, m, n, k, a, packed.floats(), accumulate, c);
}

/// `C = A * B` with windows as the rows of `B`: each task packs a chunk of its panels and multiplies with it while it is in the cache.
#[allow(clippy::too_many_arguments)] // as those of gemm
fn multiply_windows<E: Element>(
    cpu: &Cpu,
    m: usize,
    n: usize,
    k: usize,
    a: Operand,
    windows: Windows,
    accumulate: bool,
    c: &mut [f32],
) {
    let (panels, tiling) = (n.div_ceil(LANES), tiling(cpu, m));
    let tiles = tiling.large + tiling.small;
    let blocks = tiles.div_ceil(4 * TILES);
    let per_block = tiles.div_ceil(blocks);
    let groups = panels.div_ceil(PACKED).next_multiple_of(cpu.pool.threads().div_ceil(blocks));
    let group = panels.div_ceil(groups);
    let out = SharedMut::new(c);
    cpu.pool.run(blocks * groups, &|task| {
        let (block, group_index) = (task / groups, task % groups);
        let panels = (group_index * group).min(panels)..((group_index + 1) * group).min(panels);
        let tiles = block * per_block..((block + 1) * per_block).min(tiles);
        let (b, first_panel, element) = (Source::Windows(windows), panels.start, PhantomData::<E>);
        cpu.isa.run(Block { m, n, k, a, b, first_panel, accumulate, tiling, tiles, panels, c: &out, element });
    });
}

/// `C = A * B` with `B` in panels `[ceil(n / 16)][k][16]`.
#[allow(clippy::too_many_arguments)] // as those of gemm
pub(crate) fn multiply(
    cpu: &Cpu,
    m: usize,
    n: usize,
    k: usize,
    a: Operand,
    b: &[f32],
    accumulate: bool,
    c: &mut [f32],
) {
    multiply_packed::<Single>(cpu, m, n, k, a, b, accumulate, c);
}

/// `C = A * B` with `B` in panels `[ceil(n / 16)][count(k)][16]`.
#[allow(clippy::too_many_arguments)] // as those of gemm
fn multiply_packed<E: Element>(
    cpu: &Cpu,
    m: usize,
    n: usize,
    k: usize,
    a: Operand,
    b: &[f32],
    accumulate: bool,
    c: &mut [f32],
) {
    let panels = n.div_ceil(LANES);
    assert!(b.len() >= panels * E::count(k) * LANES, "B holds all panels");
    let tiling = tiling(cpu, m);
    let tiles = tiling.large + tiling.small;
    let blocks = tiles.div_ceil(TILES);
    // At least 0.5 M multiply-adds a task; few tokens are split over the columns instead.
    let wanted = (8usize.div_ceil(blocks)).min((m * n * k) >> 19).max(1);
    let group = panels.div_ceil(wanted).next_multiple_of(if tiling.rows == 1 { 8 } else { 4 }).min(panels);
    let groups = panels.div_ceil(group);
    let out = SharedMut::new(c);
    let per_block = tiles.div_ceil(blocks);
    cpu.pool.run(blocks * groups, &|task| {
        // A thread keeps to its columns of B.
        let (group_index, block) = (task / blocks, task % blocks);
        let columns = group_index * group..((group_index + 1) * group).min(panels);
        let tiles = block * per_block..((block + 1) * per_block).min(tiles);
        let (panels, b, element) = (columns, Source::Packed(b), PhantomData::<E>);
        cpu.isa.run(Block { m, n, k, a, b, first_panel: 0, accumulate, tiling, tiles, panels, c: &out, element });
    });
}

/// The columns of some panels of `C = A * B` (or `C += A * B`) on the calling thread; `b` begins with the first of them.
#[allow(clippy::too_many_arguments)] // as those of gemm
pub(crate) fn panels(
    cpu: &Cpu,
    n: usize,
    k: usize,
    a: Mat,
    b: &[f32],
    accumulate: bool,
    panels: Range<usize>,
    c: &SharedMut<f32>,
) {
    let (m, a) = (c.len() / n, Operand::from(a));
    let tiling = tiling(cpu, m);
    let all = tiling.large + tiling.small;
    for first in (0..all).step_by(2 * TILES) {
        let tiles = first..(first + 2 * TILES).min(all);
        let (first_panel, panels, element) = (panels.start, panels.clone(), PhantomData::<Single>);
        let b = Source::Packed(b);
        cpu.isa.run(Block { m, n, k, a, b, first_panel, accumulate, tiling, tiles, panels, c, element });
    }
}

/// Asks for the register tiles that cover so many rows.
struct Tiles(usize);

impl Op for Tiles {
    type Out = Tiling;
    const PRODUCTS: Products = Products::None;
    #[inline(always)]
    fn eval<S: Simd>(self, _: S) -> Tiling {
        Tiling::new(self.0, S::TILE_ROWS)
    }
}

/// The register tiles that cover `m` rows on this CPU.
pub(crate) fn tiling(cpu: &Cpu, m: usize) -> Tiling {
    cpu.isa.run(Tiles(m.max(1)))
}

/// Where the panels of `B` from the first of a block on are.
#[derive(Clone, Copy)]
enum Source<'a> {
    /// `[count(k)][16]` each.
    Packed(&'a [f32]),
    /// Chunks of them are packed by the task.
    Windows(Windows<'a>),
}

/// A chunk of k of panels.
#[derive(Clone, Copy)]
struct Panels<'a> {
    values: &'a [f32],
    /// Elements between panels, and where the chunk begins in one.
    depth: usize,
    start: usize,
}

/// One task: some tiles of rows times a range of panels.
struct Block<'a, E> {
    m: usize,
    n: usize,
    k: usize,
    a: Operand<'a>,
    b: Source<'a>,
    first_panel: usize,
    accumulate: bool,
    tiling: Tiling,
    tiles: Range<usize>,
    panels: Range<usize>,
    c: &'a SharedMut<'a, f32>,
    element: PhantomData<E>,
}

impl<E: Element> Op for Block<'_, E> {
    type Out = ();
    const PRODUCTS: Products = E::PRODUCTS;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let tile = self.tiling.rows;
        let wide = tile_panels::<S>(tile);
        // The transposed layout stores 16 at a time: room for the last store.
        let mut packed = scratch::take((self.tiles.len() * tile * TILE_STRIDE + LANES) * 4);
        let packed = packed.floats();
        let own = if matches!(self.b, Source::Windows(_)) { self.panels.len() * CHUNK * LANES * 4 } else { 0 };
        let mut panels = scratch::take(own);
        let transposed = matches!(self.a, Operand::Matrix(Mat { row_stride: 1, col_stride, .. }) if col_stride != 1);
        let step = self.chunk();
        let mut start = 0;
        while start < E::count(self.k) {
            let chunk = start..(start + step).min(E::count(self.k));
            for (i, packed) in self.tiles.clone().zip(packed.chunks_mut(tile * TILE_STRIDE)) {
                self.pack_tile(i, chunk.clone(), transposed, packed);
            }
            let b = match self.b {
                Source::Windows(windows) => self.pack_chunk(windows, chunk.clone(), panels.floats()),
                Source::Packed(values) => Panels { values, depth: E::count(self.k), start },
            };
            let mut panel = self.panels.start;
            while panel < self.panels.end {
                let width = if self.panels.end - panel >= wide { wide } else { 1 };
                for (i, a) in self.tiles.clone().zip(packed.chunks(tile * TILE_STRIDE)) {
                    let rows = self.tiling.tile(i).len();
                    s.tile(rows, width, Tile { block: &self, i, a, b, transposed, chunk: chunk.clone(), panel });
                }
                panel += width;
            }
            start = chunk.end;
        }
    }
}

impl<E: Element> Block<'_, E> {
    /// Rows of tile `i` that exist.
    #[inline(always)]
    fn tile_rows(&self, i: usize) -> Range<usize> {
        let rows = self.tiling.tile(i);
        rows.start..rows.end.min(self.m)
    }

    /// Packs a chunk of elements of a tile: `[tile][TILE_STRIDE]`, or `[chunk][tile]` when `A` is stored transposed.
    #[inline(always)]
    fn pack_tile(&self, i: usize, chunk: Range<usize>, transposed: bool, out: &mut [f32]) {
        let (rows, tile) = (self.tile_rows(i), self.tiling.tile(i).len());
        let a = match &self.a {
            Operand::Matrix(a) => a,
            Operand::Windows(windows) => return self.pack_windows(windows, rows, chunk, out),
        };
        if transposed && E::AS_THEY_ARE {
            // 16 at a time: the next overwrites those that are not of the tile.
            for l in chunk.clone() {
                let (from, at) = (&a.data[l * a.col_stride + rows.start..], (l - chunk.start) * tile);
                match (from.first_chunk::<LANES>(), out[at..].first_chunk_mut::<LANES>()) {
                    (Some(from), Some(out)) => *out = *from,
                    _ => out[at..at + rows.len()].copy_from_slice(&from[..rows.len()]),
                }
            }
            return;
        }
        if transposed {
            let column = |l: usize| match l < self.k {
                true => &a.data[l * a.col_stride + rows.start..][..rows.len()],
                false => &[],
            };
            for (l, out) in chunk.map(|l| l * E::VALUES).zip(out.chunks_exact_mut(tile)) {
                E::pack_across(column(l), if E::VALUES == 1 { &[] } else { column(l + 1) }, out);
                out[rows.len()..].fill(0.0);
            }
            return;
        }
        let values = chunk.start * E::VALUES..(chunk.end * E::VALUES).min(self.k);
        for (r, out) in out.chunks_exact_mut(TILE_STRIDE).enumerate().take(tile) {
            let out = &mut out[..chunk.len()];
            if r >= rows.len() {
                out.fill(0.0);
            } else if a.col_stride == 1 {
                E::pack_row(&a.data[(rows.start + r) * a.row_stride + values.start..][..values.len()], out);
            } else {
                let at = |l: usize| match l < self.k {
                    true => a.data[(rows.start + r) * a.row_stride + l * a.col_stride],
                    false => 0.0,
                };
                for (o, l) in out.iter_mut().zip(values.clone().step_by(E::VALUES)) {
                    *o = E::pack([at(l), if E::VALUES == 1 { 0.0 } else { at(l + 1) }]);
                }
            }
        }
    }

    /// Elements of a chunk: of windows, a part of a row of one, so that a copy is of one stretch.
    #[inline(always)]
    fn chunk(&self) -> usize {
        match self.a {
            Operand::Windows(windows) => {
                let line = E::count(windows.line());
                line.div_ceil(line.div_ceil(CHUNK)).max(CHUNK / 4)
            }
            // Beside the panels that are packed, those of the next tiles and a tile fit the first-level cache.
            Operand::Matrix(_) if matches!(self.b, Source::Windows(_)) => CHUNK / 2,
            Operand::Matrix(_) => CHUNK,
        }
    }

    /// Packs a chunk of k of all panels.
    #[inline(always)]
    fn pack_chunk<'p>(&self, windows: Windows, chunk: Range<usize>, packed: &'p mut [f32]) -> Panels<'p> {
        let rows = windows.range(chunk.start * E::VALUES..(chunk.end * E::VALUES).min(self.k));
        for (panel, out) in self.panels.clone().zip(packed.chunks_exact_mut(CHUNK * LANES)) {
            let columns = panel * LANES..((panel + 1) * LANES).min(self.n);
            pack_columns::<E>(rows, columns, &mut out[..chunk.len() * LANES]);
        }
        Panels { values: packed, depth: CHUNK, start: 0 }
    }

    /// Packs a chunk of elements of some windows: `[tile][TILE_STRIDE]`.
    #[inline(always)]
    fn pack_windows(&self, windows: &Windows, rows: Range<usize>, chunk: Range<usize>, out: &mut [f32]) {
        let columns = chunk.start * E::VALUES..(chunk.end * E::VALUES).min(self.k);
        let missing = out.chunks_exact_mut(TILE_STRIDE).skip(rows.len());
        missing.for_each(|out| out[..chunk.len()].fill(0.0));
        if E::AS_THEY_ARE {
            return windows.copy_rows(rows, columns, TILE_STRIDE, out);
        }
        let mut values = [0.0; CHUNK * 2];
        for (row, out) in rows.zip(out.chunks_exact_mut(TILE_STRIDE)) {
            let values = &mut values[..columns.len()];
            windows.copy(row, columns.clone(), values);
            E::pack_row(values, &mut out[..chunk.len()]);
        }
    }
}

/// One register tile over one chunk of k.
struct Tile<'a, E> {
    block: &'a Block<'a, E>,
    i: usize,
    a: &'a [f32],
    b: Panels<'a>,
    transposed: bool,
    chunk: Range<usize>,
    panel: usize,
}

impl<E: Element> TileOp for Tile<'_, E> {
    #[inline(always)]
    fn eval<S: Simd, const T: usize, const P: usize>(self, s: S) {
        let block = self.block;
        let rows = block.tile_rows(self.i);
        let width = (block.n - self.panel * LANES).min(P * LANES);
        let load = block.accumulate || self.chunk.start > 0;
        let start = rows.start * block.n + self.panel * LANES;
        if rows.len() == T && width == P * LANES {
            let c = block.c.block(start, T, width, block.n);
            // SAFETY: T rows of P panels of C, `n` apart and inside, as just checked; the task owns them.
            return unsafe { self.run::<S, T, P>(s, c, block.n, load) };
        }
        // SAFETY: the task owns these rows and columns of C.
        let c = |r: usize| unsafe { block.c.slice(start + r * block.n..start + r * block.n + width) };
        let mut edge = [[[0.0f32; LANES]; P]; T];
        if load {
            for (r, edge) in edge.iter_mut().enumerate().take(rows.len()) {
                edge.as_flattened_mut()[..width].copy_from_slice(c(r));
            }
        }
        // SAFETY: T rows of P panels.
        unsafe { self.run::<S, T, P>(s, edge.as_mut_ptr().cast(), P * LANES, true) };
        for (r, edge) in edge.iter().enumerate().take(rows.len()) {
            c(r).copy_from_slice(&edge.as_flattened()[..width]);
        }
    }
}

impl<E: Element> Tile<'_, E> {
    /// # Safety
    /// `c` points to `T` rows of `P` panels, `stride` apart, which nobody else accesses meanwhile.
    #[inline(always)]
    unsafe fn run<S: Simd, const T: usize, const P: usize>(&self, s: S, c: *mut f32, stride: usize, load: bool) {
        let (block, length, Panels { values, depth, start }) = (self.block, self.chunk.len(), self.b);
        let step = if self.transposed { T } else { 1 };
        let across = if self.transposed { 1 } else { TILE_STRIDE };
        assert!(self.a.len() > (T - 1) * across + (length - 1) * step);
        let first = (self.panel - block.first_panel) * depth + start;
        let b = values[first * LANES..][..((P - 1) * depth + length) * LANES].as_ptr();
        let a = self.a.as_ptr();
        let mut acc = [[s.splat(0.0); P]; T];
        // SAFETY: l < length: inside the tile and every panel, as just checked; C by the contract.
        unsafe {
            if load {
                for r in 0..T {
                    for p in 0..P {
                        acc[r][p] = s.load(c.add(r * stride + p * LANES));
                    }
                }
            }
            acc = match self.transposed {
                true => self.chunk::<S, T, P, true>(s, a, b, acc),
                false => self.chunk::<S, T, P, false>(s, a, b, acc),
            };
            for r in 0..T {
                for p in 0..P {
                    s.store(c.add(r * stride + p * LANES), acc[r][p]);
                }
            }
        }
    }

    /// What the next panels have in this chunk of k, in lines: each tile asks for its share, so that it is there when they are multiplied.
    #[inline(always)]
    fn ahead<const P: usize>(&self) -> (*const f32, usize) {
        let (block, count, Panels { values, depth, start }) = (self.block, self.block.tiles.len(), self.b);
        let (tiles, at) = (count.div_ceil(P), self.i - block.tiles.start);
        let (panel, lines) = (self.panel + P + at / tiles, self.chunk.len().div_ceil(tiles));
        if panel >= block.panels.end {
            return (values.as_ptr(), 0);
        }
        let first = (panel - block.first_panel) * depth + start + at % tiles * lines;
        (values.as_ptr().wrapping_add(first * LANES), lines)
    }

    /// The chunk of k.
    ///
    /// # Safety
    /// `a` points to the packed tile, `b` to the chunk of the first panel; both hold it.
    #[inline(always)]
    unsafe fn chunk<S: Simd, const T: usize, const P: usize, const TRANSPOSED: bool>(
        &self,
        s: S,
        a: *const f32,
        b: *const f32,
        mut acc: [[S::F; P]; T],
    ) -> [[S::F; P]; T] {
        let (depth, length) = (self.b.depth, self.chunk.len());
        let (ahead, lines) = self.ahead::<P>();
        let each = (length / lines.max(1)).max(1);
        let (mut l, mut line) = (0, 0);
        while l < length {
            if line < lines {
                s.prefetch(ahead.wrapping_add(line * LANES).cast());
                line += 1;
            }
            let end = (l + each).min(length);
            while l < end {
                let mut w = [s.splat(0.0); P];
                for p in 0..P {
                    // SAFETY: by the contract.
                    w[p] = unsafe { s.load(b.add((p * depth + l) * LANES)) };
                }
                for r in 0..T {
                    let at = if TRANSPOSED { l * T + r } else { r * TILE_STRIDE + l };
                    // SAFETY: by the contract.
                    let x = s.splat(unsafe { *a.add(at) });
                    for p in 0..P {
                        acc[r][p] = E::fma(s, x, w[p], acc[r][p]);
                    }
                }
                l += 1;
            }
        }
        acc
    }
}
