//! Random masks from a counter: an element depends on the seed and its index alone.

use super::GRAIN;
use super::math::{Extent, Partial, Whole, not, ramp};
use crate::simd::{LANES, Simd};
use crate::{Cpu, Op, Products};
use lowbit_base::SplitMix64;

/// Rounds of the generator.
const ROUNDS: usize = 8;

/// Elements that share a block of the generator; divides [`GRAIN`].
const BLOCK: usize = 2 * LANES;

/// A generator that is a function of (seed, index): the block cipher Speck64 (eprint 2013/404) with 8 of its 27 rounds and
/// independent round keys. A block gives 64 bits, 32 for each of two elements 16 apart.
#[derive(Clone, Copy)]
struct Counter {
    keys: [i32; ROUNDS],
}

impl Counter {
    /// Round keys by the SplitMix64 sequence of `seed`.
    fn new(seed: u64) -> Self {
        let mut random = SplitMix64::new(seed);
        Counter { keys: [(); ROUNDS].map(|()| (random.bits() >> 32) as i32) }
    }

    /// 32 random bits for each of the elements `32 * block..32 * block + 16` and the 16 behind them.
    #[inline(always)]
    fn at<S: Simd>(&self, s: S, block: usize) -> [S::I; 2] {
        let first = block as u64 * LANES as u64;
        let mut x = s.splat_i((first >> 32) as i32);
        let mut y = s.add_i(s.splat_i(first as i32), ramp(s));
        for &key in &self.keys {
            x = s.xor(s.add_i(s.or(s.shr::<8>(x), s.shl::<24>(x)), y), s.splat_i(key));
            y = s.xor(s.or(s.shl::<3>(y), s.shr::<29>(y)), x);
        }
        [x, y]
    }
}

struct Dropout<'a> {
    counter: Counter,
    /// An element is dropped when the upper 24 of its bits are below.
    threshold: i32,
    scale: f32,
    block: usize,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Op for Dropout<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let (scale, threshold) = (s.splat(self.scale), s.splat_i(self.threshold));
        for (i, (x, y)) in self.x.chunks(BLOCK).zip(self.y.chunks_mut(BLOCK)).enumerate() {
            let random = self.counter.at(s, self.block + i);
            let mut keep = random;
            for bits in &mut keep {
                *bits = not(s, s.sar::<31>(s.sub_i(s.shr::<8>(*bits), threshold)));
            }
            if x.len() == BLOCK {
                apply(s, Whole, keep[0], scale, x, y, 0);
                apply(s, Whole, keep[1], scale, x, y, LANES);
                continue;
            }
            for (half, at) in (0..x.len()).step_by(LANES).enumerate() {
                apply(s, Partial, keep[half], scale, x, y, at);
            }
        }
    }
}

/// `y = keep & (scale * x)` for 16 elements.
#[inline(always)]
fn apply<S: Simd>(s: S, w: impl Extent, keep: S::I, scale: S::F, x: &[f32], y: &mut [f32], at: usize) {
    w.put(s, y, at, s.as_f(s.and(keep, s.as_i(s.mul(w.get(s, x, at, 0.0), scale)))));
}

/// `y = x / (1 - p)`, or 0 with probability `p` (to within 2^-25) for each element. Element `i` depends on `seed`, `i` and
/// `x[i]` alone, so the same call on gradients is the gradient.
pub fn dropout(cpu: &Cpu, x: &[f32], p: f32, seed: u64, y: &mut [f32]) {
    assert!((0.0..=1.0).contains(&p), "the probability {p} lies in 0..=1");
    let threshold = (p as f64 * (1 << 24) as f64).round() as i32;
    let scale = if p < 1.0 { 1.0 / (1.0 - p) } else { 0.0 };
    let (counter, isa) = (Counter::new(seed), cpu.isa);
    assert_eq!(x.len(), y.len(), "y is as long as x");
    cpu.pool.for_rows(x.len(), GRAIN, [(y, 1)], |range, [y]| {
        isa.run(Dropout { counter, threshold, scale, block: range.start / BLOCK, x: &x[range], y });
    });
}
