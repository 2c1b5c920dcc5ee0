//! Vector operations against references in f64: results, gradients against central differences, the same bits on every
//! instruction set and for any number of threads.

mod attention;
mod cache;
mod columns;
mod elementwise;
mod embed;
mod loss;
mod norm;
mod optim;

use lowbit_kernels::{Cpu, Isa, Pool};
use std::sync::Arc;

/// Widths around the number of lanes and its multiples.
const WIDTHS: [usize; 9] = [1, 3, 15, 16, 17, 63, 64, 65, 257];
const ROWS: [usize; 4] = [0, 1, 2, 7];

fn cpu() -> Cpu {
    Cpu::with(Isa::choose(None).unwrap(), Arc::new(Pool::new(2)))
}

/// Numbers in -1..1 that depend on `seed`.
fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..8).for_each(|_| _ = next());
    (0..len).map(|_| next()).collect()
}

fn f64s(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| x as f64).collect()
}

/// Asserts `|got - want| <= tolerance * (1 + |want|)`.
fn assert_close(got: &[f32], want: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        assert!(
            (got as f64 - want).abs() <= tolerance * (1.0 + want.abs()),
            "{what}: element {i} is {got}, not {want}"
        );
    }
}

/// The gradient of `loss` at `x` by central differences.
fn gradient(x: &[f64], loss: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    const STEP: f64 = 1e-5;
    let mut x = x.to_vec();
    let mut slopes = vec![0.0; x.len()];
    for i in 0..x.len() {
        let old = x[i];
        x[i] = old + STEP;
        let above = loss(&x);
        x[i] = old - STEP;
        slopes[i] = (above - loss(&x)) / (2.0 * STEP);
        x[i] = old;
    }
    slopes
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Runs `f` on every instruction set with 1, 2 and 3 threads and asserts that all its buffers have the same bits.
fn assert_same_everywhere(what: &str, f: impl Fn(&Cpu) -> Vec<Vec<f32>>) {
    let bits = |cpu: &Cpu| -> Vec<Vec<u32>> {
        f(cpu).iter().map(|buffer| buffer.iter().map(|x| x.to_bits()).collect()).collect()
    };
    let first = bits(&Cpu::with(Isa::Scalar, Arc::new(Pool::new(1))));
    for threads in [1, 2, 3] {
        let pool = Arc::new(Pool::new(threads));
        for isa in Isa::available() {
            let now = bits(&Cpu::with(isa, pool.clone()));
            assert!(first == now, "{what}: {} with {threads} threads differs", isa.name());
        }
    }
}
