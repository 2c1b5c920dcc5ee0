//! General f32 matrix product.
//!
//! `B` is packed into panels of 16 columns, `[k][16]`; a tile of `T` rows of `A` times `P` panels stays in registers while k
//! runs over a chunk of 256. Tasks own blocks of the output. Every output is one chain of fused multiply-adds in the
//! order of k, whatever the tile, the threads or the instruction set.

use crate::pool::SharedMut;
use crate::simd::{LANES, Simd};
use crate::{Cpu, Op, scratch};
use std::ops::Range;

/// Length of a chunk of k: two panels of it and a tile of `A` fit the first-level cache.
const CHUNK: usize = 256;
/// Distance of the rows of a packed tile; not a power of two, so that they fall into different cache sets.
const TILE_STRIDE: usize = CHUNK + 16;
/// Tiles of `A` per task at most.
const TILES: usize = 9;

/// A matrix view: element `(i, j)` is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Distance of consecutive rows.
    pub row_stride: usize,
    /// Distance of consecutive columns.
    pub col_stride: usize,
}

impl<'a> Mat<'a> {
    /// Row-major `[rows, cols]`.
    pub fn new(data: &'a [f32], cols: usize) -> Self {
        Mat { data, row_stride: cols, col_stride: 1 }
    }

    /// The transposed view.
    pub fn t(self) -> Self {
        Mat { row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }

    fn check(&self, rows: usize, cols: usize, name: &str) {
        let last = (rows.max(1) - 1) * self.row_stride + (cols.max(1) - 1) * self.col_stride;
        assert!(rows * cols == 0 || last < self.data.len(), "{name} is shorter than [{rows}, {cols}]");
    }
}

/// `C = A * B` (or `C += A * B` when `accumulate`), `A` being `[m, k]`, `B` `[k, n]`, `C` row-major `[m, n]`. Sums run over
/// k in order with fused multiply-adds: the result does not depend on threads or instruction set.
///
/// # Panics
/// When a view is shorter than its shape, or `c.len() != m * n`.
#[allow(clippy::too_many_arguments)] // the arguments of BLAS
pub fn gemm(cpu: &Cpu, m: usize, n: usize, k: usize, a: Mat, b: Mat, accumulate: bool, c: &mut [f32]) {
    assert_eq!(c.len(), m * n, "C is [m, n]");
    a.check(m, k, "A");
    b.check(k, n, "B");
    if m * n == 0 {
        return;
    }
    if k == 0 {
        if !accumulate {
            c.fill(0.0);
        }
        return;
    }
    let panels = n.div_ceil(LANES);
    let mut packed = scratch::take(panels * k * LANES * 4);
    pack_panels(cpu, k, n, b, packed.floats());
    multiply(cpu, m, n, k, a, packed.floats(), accumulate, c);
}

/// Packs `B`, `[k, n]`, into panels `[n / 16][k][16]`, missing columns 0.
fn pack_panels(cpu: &Cpu, k: usize, n: usize, b: Mat, packed: &mut [f32]) {
    let panels = n.div_ceil(LANES);
    let grain = (1 << 15) / (k * LANES) + 1;
    cpu.pool.for_rows(panels, grain, [(&mut packed[..panels * k * LANES], k * LANES)], |range, [part]| {
        for (panel, out) in range.zip(part.chunks_exact_mut(k * LANES)) {
            let first = panel * LANES;
            let width = LANES.min(n - first);
            if b.col_stride == 1 && width == LANES {
                for (l, out) in out.chunks_exact_mut(LANES).enumerate() {
                    out.copy_from_slice(&b.data[l * b.row_stride + first..][..LANES]);
                }
            } else if b.row_stride == 1 && width == LANES {
                let columns: [&[f32]; LANES] = std::array::from_fn(|j| &b.data[(first + j) * b.col_stride..][..k]);
                for (l, out) in out.chunks_exact_mut(LANES).enumerate() {
                    for j in 0..LANES {
                        out[j] = columns[j][l];
                    }
                }
            } else {
                for (l, out) in out.chunks_exact_mut(LANES).enumerate() {
                    out.fill(0.0);
                    for (j, out) in out[..width].iter_mut().enumerate() {
                        *out = b.data[l * b.row_stride + (first + j) * b.col_stride];
                    }
                }
            }
        }
    });
}

/// `C = A * B` with `B` in panels `[ceil(n / 16)][k][16]`.
#[allow(clippy::too_many_arguments)]
pub(crate) fn multiply(cpu: &Cpu, m: usize, n: usize, k: usize, a: Mat, b: &[f32], accumulate: bool, c: &mut [f32]) {
    let panels = n.div_ceil(LANES);
    assert!(b.len() >= panels * k * LANES, "B holds all panels");
    let most = cpu.isa.run(MostRows);
    let tile = m.div_ceil(m.div_ceil(most)); // rows of a tile: as even as can be
    let tiles = m.div_ceil(tile);
    let blocks = tiles.div_ceil(TILES);
    // At least 0.5 M multiply-adds a task; few tokens are split over the columns instead.
    let wanted = (8usize.div_ceil(blocks)).min((m * n * k) >> 19).max(1);
    let group = panels.div_ceil(wanted).next_multiple_of(8).min(panels);
    let groups = panels.div_ceil(group);
    let out = SharedMut::new(c);
    let per_block = tiles.div_ceil(blocks);
    cpu.pool.run(blocks * groups, &|task| {
        let (block, group_index) = (task / groups, task % groups);
        let rows = block * per_block * tile..((block + 1) * per_block * tile).min(m);
        let columns = group_index * group..((group_index + 1) * group).min(panels);
        if !rows.is_empty() {
            cpu.isa.run(Block { n, k, a, b, accumulate, tile, rows, panels: columns, c: &out });
        }
    });
}

struct MostRows;

impl Op for MostRows {
    type Out = usize;
    #[inline(always)]
    fn eval<S: Simd>(self, _: S) -> usize {
        most_rows::<S>()
    }
}

/// Rows of the largest register tile: two panels wide with 28 accumulators, else one.
const fn most_rows<S: Simd>() -> usize {
    if S::ACCUMULATORS >= 28 { 14 } else { S::ACCUMULATORS }
}

/// Panels side by side for a tile of `rows` rows: few rows need more panels to keep the multipliers busy.
const fn panels_for<S: Simd>(rows: usize) -> usize {
    let wide = if S::ACCUMULATORS >= 28 { 2 } else { 1 };
    match rows {
        1 => 4 * wide,
        2 | 3 => 2 * wide,
        _ => wide,
    }
}

/// One task: a block of rows times a range of panels.
struct Block<'a> {
    n: usize,
    k: usize,
    a: Mat<'a>,
    b: &'a [f32],
    accumulate: bool,
    tile: usize,
    rows: Range<usize>,
    panels: Range<usize>,
    c: &'a SharedMut<'a, f32>,
}

impl Op for Block<'_> {
    type Out = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let tiles = self.rows.len().div_ceil(self.tile);
        let wide = panels_for::<S>(self.tile);
        // The transposed layout stores 16 at a time: room for the last store.
        let mut packed = scratch::take((tiles * self.tile * TILE_STRIDE + LANES) * 4);
        let packed = packed.floats();
        let transposed = self.a.row_stride == 1 && self.a.col_stride != 1;
        let mut start = 0;
        while start < self.k {
            let chunk = start..(start + CHUNK).min(self.k);
            for i in 0..tiles {
                self.pack_tile(i, chunk.clone(), transposed, &mut packed[i * self.tile * TILE_STRIDE..]);
            }
            let mut panel = self.panels.start;
            while panel < self.panels.end {
                let width = if self.panels.end - panel >= wide { wide } else { 1 };
                for i in 0..tiles {
                    let a = &packed[i * self.tile * TILE_STRIDE..];
                    self.tile_of::<S>(s, i, a, transposed, chunk.clone(), panel, width);
                }
                panel += width;
            }
            start = chunk.end;
        }
    }
}

impl Block<'_> {
    /// Rows of tile `i` that exist.
    #[inline(always)]
    fn tile_rows(&self, i: usize) -> Range<usize> {
        let first = self.rows.start + i * self.tile;
        first..(first + self.tile).min(self.rows.end)
    }

    /// Copies a chunk of a tile: `[tile][TILE_STRIDE]`, or `[chunk][tile]` when `A` is stored transposed.
    #[inline(always)]
    fn pack_tile(&self, i: usize, chunk: Range<usize>, transposed: bool, out: &mut [f32]) {
        let rows = self.tile_rows(i);
        let a = &self.a;
        if transposed {
            for (l, out) in chunk.zip(out.chunks_exact_mut(self.tile)) {
                let from = &a.data[l * a.col_stride + rows.start..][..rows.len()];
                for (o, v) in out.iter_mut().zip(from) {
                    *o = *v;
                }
                out[rows.len()..].fill(0.0);
            }
            return;
        }
        for (r, out) in out.chunks_exact_mut(TILE_STRIDE).enumerate().take(self.tile) {
            let out = &mut out[..chunk.len()];
            if r >= rows.len() {
                out.fill(0.0);
            } else if a.col_stride == 1 {
                out.copy_from_slice(&a.data[(rows.start + r) * a.row_stride + chunk.start..][..chunk.len()]);
            } else {
                for (o, l) in out.iter_mut().zip(chunk.clone()) {
                    *o = a.data[(rows.start + r) * a.row_stride + l * a.col_stride];
                }
            }
        }
    }

    /// Dispatches to the register tile of the right size.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn tile_of<S: Simd>(&self, s: S, i: usize, a: &[f32], transposed: bool, chunk: Range<usize>, panel: usize, width: usize) {
        macro_rules! sizes {
            ($($t:literal $p:literal),*) => {
                match (self.tile, width) {
                    $(($t, $p) if $p <= panels_for::<S>($t) && $t <= most_rows::<S>() => if transposed {
                        self.run::<S, $t, $p, true>(s, i, a, chunk, panel)
                    } else {
                        self.run::<S, $t, $p, false>(s, i, a, chunk, panel)
                    },)*
                    _ => unreachable!("every tile size is listed"),
                }
            };
        }
        sizes!(1 1, 1 4, 1 8, 2 1, 2 2, 2 4, 3 1, 3 2, 3 4, 4 1, 4 2, 5 1, 5 2, 6 1, 6 2, 7 1, 7 2, 8 1, 8 2, 9 1, 9 2,
            10 1, 10 2, 11 1, 11 2, 12 1, 12 2, 13 1, 13 2, 14 1, 14 2)
    }

    #[inline(always)]
    fn run<S: Simd, const T: usize, const P: usize, const TRANSPOSED: bool>(
        &self,
        s: S,
        i: usize,
        a: &[f32],
        chunk: Range<usize>,
        panel: usize,
    ) {
        let rows = self.tile_rows(i);
        let last = LANES.min(self.n - (panel + P - 1) * LANES); // columns of the last panel
        let b: [*const f32; P] =
            std::array::from_fn(|p| self.b[((panel + p) * self.k + chunk.start) * LANES..][..chunk.len() * LANES].as_ptr());
        // SAFETY: the task owns these rows and columns of C.
        let mut c: [&mut [f32]; T] = std::array::from_fn(|r| unsafe {
            let row = rows.start + r;
            let start = row * self.n + panel * LANES;
            self.c.slice(if r < rows.len() { start..start + (P - 1) * LANES + last } else { 0..0 })
        });
        let mut acc = [[s.splat(0.0); P]; T];
        if self.accumulate || chunk.start > 0 {
            for r in 0..rows.len() {
                for p in 0..P {
                    acc[r][p] = s.load_part(&c[r][p * LANES..], 0.0);
                }
            }
        }
        let length = chunk.len();
        assert!(a.len() >= if TRANSPOSED { length * T } else { (T - 1) * TILE_STRIDE + length });
        let a = a.as_ptr();
        for l in 0..length {
            // SAFETY: l < length: inside the tile and inside every panel, as just checked.
            unsafe {
                let b: [S::F; P] = std::array::from_fn(|p| s.load(b[p].add(l * LANES)));
                for r in 0..T {
                    let x = s.splat(*a.add(if TRANSPOSED { l * T + r } else { r * TILE_STRIDE + l }));
                    for p in 0..P {
                        acc[r][p] = s.fma(x, b[p], acc[r][p]);
                    }
                }
            }
        }
        for r in 0..rows.len() {
            for p in 0..P {
                let end = c[r].len().min((p + 1) * LANES);
                s.store_part(&mut c[r][p * LANES..end], acc[r][p]);
            }
        }
    }
}
