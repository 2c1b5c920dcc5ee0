//! GFLOP/s of the product of matrices in each precision for a few shapes, the precisions taking turns.
use lowbit_kernels::{Cpu, Mat, Precision, gemm_in};
use std::time::Instant;

/// `m`, `n`, `k`: squares, the layers of two networks with their gradients, few tokens.
const SHAPES: [[usize; 3]; 8] = [
    [1024, 1024, 1024],
    [2048, 1024, 384],
    [2048, 384, 1024],
    [1024, 768, 768],
    [1024, 3072, 768],
    [768, 3072, 1024],
    [50, 1024, 256],
    [1, 4096, 4096],
];
const RUNS: usize = 9;

fn main() {
    for threads in [1, 2] {
        let cpu = Cpu::new(None, Some(threads)).expect("an instruction set");
        for [m, n, k] in SHAPES {
            let a: Vec<f32> = (0..m * k).map(|i| (i % 13) as f32 - 6.0).collect();
            let b: Vec<f32> = (0..k * n).map(|i| (i % 7) as f32 - 3.0).collect();
            let mut c = vec![0.0; m * n];
            for (label, am, bm) in [
                ("A*B", Mat::new(&a, k), Mat::new(&b, n)),
                ("A*Bt", Mat::new(&a, k), Mat::new(&b, k).t()),
                ("At*B", Mat::new(&a, m).t(), Mat::new(&b, n)),
            ] {
                let precisions = [Precision::F32, Precision::Bf16];
                let mut times = [[0.0; RUNS]; 2];
                for run in 0..RUNS {
                    for (precision, times) in precisions.into_iter().zip(&mut times) {
                        let reps = (400_000_000 / (m * n * k)).max(1);
                        let start = Instant::now();
                        for _ in 0..reps {
                            gemm_in(&cpu, precision, m, n, k, am, bm, false, &mut c);
                        }
                        times[run] = start.elapsed().as_secs_f64() / reps as f64;
                    }
                }
                let flops = 2.0 * (m * n * k) as f64 / 1e9;
                for (precision, mut times) in precisions.into_iter().zip(times) {
                    times.sort_by(f64::total_cmp);
                    println!(
                        "{threads} thr {m}x{n}x{k} {label:5} {precision:?} {:7.1} GFLOP/s median, {:7.1} best ({})",
                        flops / times[RUNS / 2],
                        flops / times[0],
                        cpu.isa.name()
                    );
                }
            }
        }
    }
}
