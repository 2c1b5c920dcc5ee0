//! Rows of tables, and means of sequences.

use super::elementwise::AddScaled;
use super::math::{Extent, Partial, Whole, vectors};
use super::{check_cu_seqlens, row_grain};
use crate::pool::SharedMut;
use crate::simd::{LANES, Simd};
use crate::{Cpu, Op, Products};

/// Columns of one task of [`scatter_add`].
const COLUMNS: usize = 64;

/// `y[i] = table[ids[i]]`: `table` `[entries, width]`, `y` `[ids.len(), width]`.
pub fn gather(cpu: &Cpu, table: &[f32], width: usize, ids: &[u32], y: &mut [f32]) {
    cpu.pool.for_rows(ids.len(), row_grain(width), [(y, width)], |rows, [y]| {
        for (&id, y) in ids[rows].iter().zip(y.chunks_exact_mut(width)) {
            y.copy_from_slice(&table[id as usize * width..][..width]);
        }
    });
}

/// `dtable[ids[i]] += dy[i]` in order of `i`: `dy` `[ids.len(), width]`, `dtable` `[entries, width]`.
pub fn scatter_add(cpu: &Cpu, dy: &[f32], width: usize, ids: &[u32], dtable: &mut [f32]) {
    assert_eq!(dy.len(), ids.len() * width, "dy has one row per id");
    struct Columns<'a> {
        dy: &'a [f32],
        width: usize,
        ids: &'a [u32],
        dtable: &'a SharedMut<'a, f32>,
        first: usize,
        count: usize,
    }
    impl Op for Columns<'_> {
        type Out = ();
        const PRODUCTS: Products = Products::None;

        #[inline(always)]
        fn eval<S: Simd>(self, s: S) {
            for (&id, dy) in self.ids.iter().zip(self.dy.chunks_exact(self.width)) {
                let start = id as usize * self.width + self.first;
                // SAFETY: tasks own disjoint columns, and this is the only live part of this task.
                let sum = unsafe { self.dtable.slice(start..start + self.count) };
                let dy = &dy[self.first..][..self.count];
                vectors!(self.count, |i, w| {
                    w.put(s, sum, i, s.add(w.get(s, sum, i, 0.0), w.get(s, dy, i, 0.0)));
                });
            }
        }
    }
    let columns = if ids.len() * width <= super::GRAIN { width } else { COLUMNS };
    let dtable = SharedMut::new(dtable);
    cpu.pool.run(width.div_ceil(columns.max(1)), &|task| {
        let first = task * columns;
        let count = columns.min(width - first);
        cpu.isa.run(Columns { dy, width, ids, dtable: &dtable, first, count });
    });
}

/// `y[i]` = mean of the rows `cu_seqlens[i]..cu_seqlens[i + 1]` of `x`, `[rows, width]`.
pub fn pool_mean(cpu: &Cpu, x: &[f32], width: usize, cu_seqlens: &[usize], y: &mut [f32]) {
    check_cu_seqlens(cu_seqlens, x.len() / width.max(1));
    let (sequences, isa) = (cu_seqlens.len() - 1, cpu.isa);
    let grain = (row_grain(width) * sequences / (x.len() / width.max(1)).max(1)).max(1);
    cpu.pool.for_rows(sequences, grain, [(y, width)], |range, [y]| {
        for (i, y) in range.zip(y.chunks_exact_mut(width)) {
            let span = cu_seqlens[i]..cu_seqlens[i + 1];
            y.fill(0.0);
            for x in x[span.start * width..span.end * width].chunks_exact(width) {
                isa.run(AddScaled { x, scale: 1.0, y });
            }
            y.iter_mut().for_each(|y| *y /= span.len() as f32);
        }
    });
}

/// The gradient of [`pool_mean`]: `dx +=`.
pub fn pool_mean_backward(cpu: &Cpu, dy: &[f32], width: usize, cu_seqlens: &[usize], dx: &mut [f32]) {
    let rows = dx.len() / width.max(1);
    check_cu_seqlens(cu_seqlens, rows);
    let isa = cpu.isa;
    cpu.pool.for_rows(rows, row_grain(width), [(dx, width)], |range, [dx]| {
        let mut i = cu_seqlens.partition_point(|&start| start <= range.start) - 1;
        for (row, dx) in range.zip(dx.chunks_exact_mut(width)) {
            if row == cu_seqlens[i + 1] {
                i += 1;
            }
            let scale = 1.0 / (cu_seqlens[i + 1] - cu_seqlens[i]) as f32;
            isa.run(AddScaled { x: &dy[i * width..][..width], scale, y: dx });
        }
    });
}
