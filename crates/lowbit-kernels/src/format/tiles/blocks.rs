//! Register tiles of activations whose blocks have scales.

use super::{Sums, Tiles, fold_block, fold_group};
use crate::activations::{BLOCK, BLOCKS, ROW};
use crate::simd::{LANES, Simd};

impl Tiles<'_> {
    /// A register tile over the blocks of the chunk: `total += sum * ratio`, where groups have scales those of a group
    /// apart, as in [`Tiles::run_groups`].
    ///
    /// # Safety
    /// The quads, the activations, the scales and the totals of the tile are within their buffers.
    #[inline(always)]
    pub(super) unsafe fn run_blocks<S: Simd, const T: usize, const P: usize>(&mut self, s: S, token: usize) {
        const QUADS: usize = BLOCK / 4;
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
            let mut before = total;
            for block in 0..self.length.div_ceil(QUADS) {
                if self.group.is_some() && block % BLOCKS == 0 {
                    (before, total) = (total, [[s.splat(0.0); P]; T]);
                }
                let mut acc = [[s.splat_i(0); P]; T];
                for quad in block * QUADS..self.length.min((block + 1) * QUADS) {
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
                for t in 0..T {
                    let of = self.strip.x.block(token + t, self.first_group * BLOCKS + block);
                    for p in 0..P {
                        total[t][p] = fold_block(s, total[t][p], acc[t][p], of, self.zero);
                    }
                }
                if self.group.is_some() && block % BLOCKS == BLOCKS - 1 {
                    let g = block / BLOCKS;
                    let scales = self.scales.as_ptr().add(g * P * 2 * LANES);
                    for t in 0..T {
                        let sum = self.strip.x.sum(token + t, self.first_group + g);
                        for p in 0..P {
                            let (scale, offset) = (scales.add(p * 2 * LANES), scales.add((p * 2 + 1) * LANES));
                            let (scale, offset) = (s.load(scale), s.load(offset));
                            total[t][p] = fold_group(s, before[t][p], total[t][p], sum, scale, offset);
                        }
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
}
