//! Products of integer formats with several tokens of 8-bit activations, where there are many registers: units are decoded in
//! registers and meet a tile of tokens there, so that packed weights are read once and decoded ones are never stored.

use super::codec::Codec;
use super::tiles::{After, Folds, Groups, Quads, add_offsets, finish, fold};
use super::view::View;
use super::ways::Job;
use crate::activations::{GROUP, ROW};
use crate::pool::SharedMut;
use crate::simd::{LANES, Simd, TileOp, Tiling};
use crate::{Cpu, Op, Products};
use std::ops::Range;

/// Tokens up to which decoding units again for each tile costs less than storing them, where groups have scales.
const FEW: usize = 32;
/// Weights below which the same holds of all formats: where two threads share no cache, small products were slower.
const SMALL: usize = 1 << 19;
/// Rows of a tile at most: decoded units need registers too.
const MOST: usize = 8;

/// Whether this way is the fastest. Units without group scales need nothing else, so that decoding many of them for each tile
/// costs nothing.
pub(super) fn pays(job: Job) -> bool {
    job.tokens <= FEW || !job.grouped && job.weights >= SMALL
}

/// Tiles for so many tokens of units of so many quads, and the panels of a strip.
struct ChooseRegisters {
    tokens: usize,
    quads: usize,
}

impl Op for ChooseRegisters {
    type Out = (Tiling, usize);
    const PRODUCTS: Products = Products::Int8;
    #[inline(always)]
    fn eval<S: Simd>(self, _: S) -> Self::Out {
        let tiling = Tiling::new(self.tokens, MOST);
        let fits = |panels: &usize| panels * (tiling.rows + self.quads) <= S::ACCUMULATORS;
        let wide = [4, 2, 1].into_iter().find(fits).expect("a tile that fits, where there are many registers");
        (tiling, if tiling.rows > 4 { wide.min(2) } else { wide })
    }
}

/// `y = x W^T` of several tokens.
pub(super) fn product<C: Codec<Q>, const Q: usize>(
    cpu: &Cpu,
    view: &View<C, Q>,
    x: Groups,
    y: &mut [f32],
    after: After,
) {
    let tokens = x.x.tokens();
    let (tiling, wide) = cpu.isa.run(ChooseRegisters { tokens, quads: Q });
    let panels = view.p.rows.div_ceil(LANES);
    let grain = ((1 << 13) / (tokens * view.units * Q) + 1).max(panels.div_ceil(64)).next_multiple_of(wide);
    let out = SharedMut::new(y);
    cpu.pool.run(panels.div_ceil(grain), &|task| {
        let range = task * grain..((task + 1) * grain).min(panels);
        let mut panel = range.start;
        while panel < range.end {
            let width = if range.end - panel >= wide { wide } else { 1 };
            cpu.isa.run(Strip { view, x, tiling, panels: panel..panel + width, out: &out });
            panel += width;
        }
        after(range, &out);
    });
}

/// A few panels times all tokens.
struct Strip<'a, C, const Q: usize> {
    view: &'a View<'a, C, Q>,
    x: Groups<'a>,
    tiling: Tiling,
    panels: Range<usize>,
    out: &'a SharedMut<'a, f32>,
}

impl<C: Codec<Q>, const Q: usize> Op for Strip<'_, C, Q> {
    type Out = ();
    const PRODUCTS: Products = Products::Int8;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Tiling { rows, large, small } = self.tiling;
        let width = self.panels.len();
        s.tile(rows, width, RegisterTile { strip: &self, first: 0, count: large });
        if small > 0 {
            s.tile(rows - 2, width, RegisterTile { strip: &self, first: large * rows, count: small });
        }
    }
}

/// Tiles of one size.
struct RegisterTile<'t, 'a, C, const Q: usize> {
    strip: &'t Strip<'a, C, Q>,
    /// First token.
    first: usize,
    count: usize,
}

impl<C: Codec<Q>, const Q: usize> TileOp for RegisterTile<'_, '_, C, Q> {
    #[inline(always)]
    fn eval<S: Simd, const T: usize, const P: usize>(self, s: S) {
        let RegisterTile { strip, first, count } = self;
        let view = strip.view;
        assert!(strip.panels.end * view.units * 64 <= view.codes.len() && strip.panels.len() == P);
        let mut epilogues = [view.epilogue(strip.panels.start); P];
        for p in 1..P {
            epilogues[p] = view.epilogue(strip.panels.start + p);
        }
        for token in (0..count).map(|i| first + i * T) {
            let bits = match &strip.x.folds {
                Some(folds) => strip.grouped::<S, T, P>(s, token, folds),
                None => strip.whole::<S, T, P>(s, token),
            };
            for (token, bits) in (token..strip.x.x.tokens()).zip(&bits) {
                for p in 0..P {
                    let panel = strip.panels.start + p;
                    let end = ((panel + 1) * LANES).min(view.p.rows);
                    let at = token * view.p.rows + panel * LANES;
                    // SAFETY: the task owns these columns of the output.
                    let out = unsafe { strip.out.slice(at..at + end - panel * LANES) };
                    s.store_part(out, finish(s, strip.x, &epilogues[p], token, bits[p]));
                }
            }
        }
    }
}

impl<C: Codec<Q>, const Q: usize> Strip<'_, C, Q> {
    /// The sums of a tile over all columns.
    #[inline(always)]
    fn whole<S: Simd, const T: usize, const P: usize>(&self, s: S, token: usize) -> [[S::I; P]; T] {
        let x = self.x.x;
        let (length, chunk) = (self.view.p.cols.div_ceil(4), x.chunk() / 4);
        let mut acc = [[s.splat_i(0); P]; T];
        let mut unit = 0;
        for c in 0..x.chunks() {
            let end = ((c + 1) * chunk).min(length);
            acc = self.run(s, token, unit..end / Q, c, acc);
            unit = end / Q;
            if unit * Q < end {
                // A unit that ends in the next chunk, or beyond the last column.
                let x = |t, q| match unit * Q + q {
                    quad if quad < length => s.splat_i(x.quad(token + t, quad)),
                    _ => s.splat_i(0),
                };
                // SAFETY: it holds columns that exist; the codes were checked.
                acc = unsafe { self.unit(s, unit, acc, x) };
                unit += 1;
            }
        }
        acc
    }

    /// The totals of a tile over all groups, as bits.
    #[inline(always)]
    fn grouped<S: Simd, const T: usize, const P: usize>(&self, s: S, token: usize, folds: &Folds) -> [[S::I; P]; T] {
        let per = GROUP / 4 / Q;
        let groups = self.view.groups();
        let mut total = [[s.splat(0.0); P]; T];
        let chunk = self.x.x.chunk() / GROUP;
        for g in 0..groups {
            let acc = self.run(s, token, g * per..(g + 1) * per, g / chunk, [[s.splat_i(0); P]; T]);
            for p in 0..P {
                let (scale, offset) = self.view.group_vectors(s, self.panels.start + p, g);
                for t in 0..T {
                    total[t][p] = fold(s, total[t][p], s.to_f(acc[t][p]), scale);
                    total[t][p] = add_offsets(s, total[t][p], folds.sum(token + t, g), offset);
                }
            }
        }
        // Loops: a closure for each size of a tile costs time to compile.
        let mut bits = [[s.splat_i(0); P]; T];
        for t in 0..T {
            for p in 0..P {
                bits[t][p] = s.as_i(total[t][p]);
            }
        }
        bits
    }

    /// Adds units that lie in one chunk of the activations.
    #[inline(always)]
    fn run<S: Simd, const T: usize, const P: usize>(
        &self,
        s: S,
        token: usize,
        units: Range<usize>,
        chunk: usize,
        mut acc: [[S::I; P]; T],
    ) -> [[S::I; P]; T] {
        let x = self.x.x;
        let start = chunk * x.chunk() / 4;
        let rows = x.rows(chunk);
        assert!(units.is_empty() || units.start * Q >= start && (units.end * Q - start) * 4 <= ROW);
        assert!(rows.len() >= (token + T) * ROW && units.end <= self.view.units);
        for unit in units {
            // SAFETY: a row of the chunk holds the quads of these units, as just checked; the codes were checked.
            acc = unsafe {
                self.unit(s, unit, acc, |t, q| {
                    let at = rows.as_ptr().add((token + t) * ROW + (unit * Q + q - start) * 4);
                    s.splat_i(at.cast::<i32>().read_unaligned())
                })
            };
        }
        acc
    }

    /// Adds one unit of each panel; `x` gives a quad of a token of the tile in all lanes.
    ///
    /// # Safety
    /// The panels of the strip have this unit.
    #[inline(always)]
    unsafe fn unit<S: Simd, const T: usize, const P: usize>(
        &self,
        s: S,
        unit: usize,
        mut acc: [[S::I; P]; T],
        x: impl Fn(usize, usize) -> S::I,
    ) -> [[S::I; P]; T] {
        let mut codes = [[s.splat_i(0); Q]; P];
        for p in 0..P {
            let at = ((self.panels.start + p) * self.view.units + unit) * 64;
            // SAFETY: by the contract; a prefetch may name any address.
            unsafe {
                let at = self.view.codes.as_ptr().add(at);
                // The same place in the next strip.
                s.prefetch(at.wrapping_add(P * self.view.units * 64));
                codes[p] = C::codes(s, s.load_i(at));
            }
        }
        for q in 0..Q {
            for t in 0..T {
                let x = x(t, q);
                for p in 0..P {
                    acc[t][p] = s.dot(acc[t][p], codes[p][q], x);
                }
            }
        }
        acc
    }
}
