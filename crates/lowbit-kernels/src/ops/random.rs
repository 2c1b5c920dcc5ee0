//! Random masks from a counter: an element depends on the seed and its index alone.

use super::elementwise::{Elementwise, apply};
use super::math::{not, ramp};
use crate::Cpu;
use crate::simd::Simd;

/// Rounds of the generator.
const ROUNDS: usize = 10;

/// A generator that is a function of (seed, index): the block cipher Speck64 (eprint 2013/404) with 10 of its 27 rounds and
/// independent round keys, the index being the block.
#[derive(Clone, Copy)]
struct Counter {
    keys: [i32; ROUNDS],
}

impl Counter {
    /// Round keys by the SplitMix64 sequence (doi 10.1145/2714064.2660195) of `seed`.
    fn new(seed: u64) -> Self {
        let mut state = seed;
        let keys = [(); ROUNDS].map(|()| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 32) as i32
        });
        Counter { keys }
    }

    /// 32 random bits for each of the elements `index..index + 16`; `index` is a multiple of 16.
    #[inline(always)]
    fn at<S: Simd>(&self, s: S, index: usize) -> S::I {
        let mut x = s.splat_i((index as u64 >> 32) as i32);
        let mut y = s.add_i(s.splat_i(index as i32), ramp(s));
        for &key in &self.keys {
            x = s.xor(s.add_i(s.or(s.shr::<8>(x), s.shl::<24>(x)), y), s.splat_i(key));
            y = s.xor(s.or(s.shl::<3>(y), s.shr::<29>(y)), x);
        }
        y
    }
}

#[derive(Clone, Copy)]
struct Dropout {
    counter: Counter,
    /// An element is dropped when the upper 24 of its bits are below.
    threshold: i32,
    scale: f32,
}

impl Elementwise<1, 1> for Dropout {
    #[inline(always)]
    fn at<S: Simd>(self, s: S, index: usize, x: [S::F; 1], _: [S::F; 1]) -> [S::F; 1] {
        let bits = s.shr::<8>(self.counter.at(s, index));
        let dropped = s.sar::<31>(s.sub_i(bits, s.splat_i(self.threshold)));
        let kept = s.and(not(s, dropped), s.as_i(s.mul(x[0], s.splat(self.scale))));
        [s.as_f(kept)]
    }
}

/// `y = x / (1 - p)`, or 0 with probability `p` (to within 2^-25) for each element. Element `i` depends on `seed`, `i` and
/// `x[i]` alone, so the same call on gradients is the gradient.
pub fn dropout(cpu: &Cpu, x: &[f32], p: f32, seed: u64, y: &mut [f32]) {
    assert!((0.0..=1.0).contains(&p), "the probability {p} lies in 0..=1");
    let threshold = (p as f64 * (1 << 24) as f64).round() as i32;
    let scale = if p < 1.0 { 1.0 / (1.0 - p) } else { 0.0 };
    apply(cpu, Dropout { counter: Counter::new(seed), threshold, scale }, [x], [y])
}
