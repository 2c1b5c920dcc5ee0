//! Measured limits of the machine, bandwidth and arithmetic: the denominators of every speed.

use crate::bytes::large_pages;
use crate::simd::{LANES, Simd};
use crate::{Cpu, Op};
use std::time::Instant;

/// Measured limits, all threads of the pool.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Reading memory, GB/s (10^9 bytes).
    pub memory_gbps: f64,
    /// f32 fused multiply-adds, GFLOP/s (two per multiply-add).
    pub f32_gflops: f64,
    /// Dot products of bf16 pairs, GFLOP/s (two per multiply-add); `None` where the instruction set has no such instruction.
    pub bf16_gflops: Option<f64>,
    /// 8-bit integer dot products, GOP/s (two per multiply-add).
    pub int8_gops: f64,
}

/// Bytes read for the bandwidth: larger than any last-level cache in reach.
pub const BYTES: usize = 256 << 20;
/// Independent chains at most, enough to fill the pipelines.
const CHAINS: usize = 16;
/// Steps of each chain.
const STEPS: usize = 1 << 18;
/// Runs of each measurement; the best counts.
const RUNS: usize = 3;

/// Measures the limits: about half a second, and [`BYTES`] of memory.
///
/// # Panics
/// When there is less memory.
pub fn measure(cpu: &Cpu) -> Limits {
    let threads = cpu.pool.threads();
    let mut data = large_pages(BYTES).expect("memory for measuring its bandwidth");
    let pages = BYTES / 4096;
    cpu.pool.for_rows(pages, pages.div_ceil(threads), [(&mut data[..], 4096)], |_, [part]| {
        part.iter_mut().enumerate().for_each(|(i, v)| *v = i as u8);
    });
    let parts = threads * 8;
    let best = |work: f64, run: &dyn Fn()| {
        let rate = |_| {
            let start = Instant::now();
            run();
            work / start.elapsed().as_secs_f64() / 1e9
        };
        (0..RUNS).map(rate).fold(0.0, f64::max)
    };
    let memory_gbps = best(BYTES as f64, &|| {
        cpu.pool.run(parts, &|i| {
            let part = &data[i * data.len() / parts..(i + 1) * data.len() / parts];
            std::hint::black_box(cpu.isa.run(Read(part)));
        });
    });
    let ops = (threads * cpu.isa.run(Chains) * STEPS * LANES) as f64;
    let f32_gflops = best(ops * 2.0, &|| {
        cpu.pool.run(threads, &|_| {
            std::hint::black_box(cpu.isa.run(MultiplyAdd(std::hint::black_box(0.5))));
        });
    });
    let bf16_gflops = cpu.isa.run(DotBf16 { ones: ONES_BF16, steps: 0 }).map(|_| {
        best(ops * 4.0, &|| {
            cpu.pool.run(threads, &|_| {
                let ones = std::hint::black_box(ONES_BF16);
                std::hint::black_box(cpu.isa.run(DotBf16 { ones, steps: STEPS }));
            });
        })
    });
    let int8_gops = best(ops * 8.0, &|| {
        cpu.pool.run(threads, &|_| {
            std::hint::black_box(cpu.isa.run(Dot(std::hint::black_box(1))));
        });
    });
    Limits { memory_gbps, f32_gflops, bf16_gflops, int8_gops }
}

struct Read<'a>(&'a [u8]);

impl Op for Read<'_> {
    type Out = i32;
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) -> i32 {
        let mut sums = [s.splat_i(0); 4];
        for block in self.0.chunks_exact(256) {
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: 256 bytes, as just cut.
                *sum = s.xor(*sum, unsafe { s.load_i(block.as_ptr().add(i * 64)) });
            }
        }
        let all = s.xor(s.xor(sums[0], sums[1]), s.xor(sums[2], sums[3]));
        s.sum(s.to_f(all)) as i32
    }
}

/// Chains whose sums fit the registers.
const fn chains<S: Simd>() -> usize {
    if S::ACCUMULATORS < CHAINS { S::ACCUMULATORS } else { CHAINS }
}

struct Chains;

impl Op for Chains {
    type Out = usize;
    #[inline(always)]
    fn eval<S: Simd>(self, _: S) -> usize {
        chains::<S>()
    }
}

struct MultiplyAdd(f32);

impl Op for MultiplyAdd {
    type Out = f32;
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) -> f32 {
        let (a, b) = (s.splat(self.0), s.splat(1.0 - self.0));
        let mut sums = [s.splat(1.0); CHAINS];
        for _ in 0..STEPS {
            for sum in &mut sums[..chains::<S>()] {
                *sum = s.fma(*sum, a, b);
            }
        }
        sums.into_iter().map(|v| s.sum(v)).sum()
    }
}

/// A lane of two bf16 ones.
const ONES_BF16: i32 = 0x3f80_3f80;

/// `None` where pairs of bf16 are not multiplied by one instruction.
struct DotBf16 {
    ones: i32,
    steps: usize,
}

impl Op for DotBf16 {
    type Out = Option<f32>;
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) -> Option<f32> {
        if !S::FAST_BF16 {
            return None;
        }
        let ones = s.splat_i(self.ones);
        let mut sums = [s.splat(0.0); CHAINS];
        for _ in 0..self.steps {
            for sum in &mut sums[..chains::<S>()] {
                *sum = s.dot_bf16(*sum, ones, ones);
            }
        }
        Some(sums.into_iter().map(|v| s.sum(v)).sum())
    }
}

struct Dot(i32);

impl Op for Dot {
    type Out = i32;
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) -> i32 {
        let a = s.splat_i(self.0);
        let mut sums = [a; CHAINS];
        for _ in 0..STEPS {
            for sum in &mut sums[..chains::<S>()] {
                // The sum as an operand: where a dot product is several instructions, none leaves the loop.
                *sum = s.dot_small(*sum, a, *sum);
            }
        }
        sums.into_iter().map(|v| s.sum(s.to_f(v)) as i32).fold(0, i32::wrapping_add)
    }
}
