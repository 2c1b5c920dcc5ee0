//! GFLOP/s of the f32 product for a few shapes.
use lowbit_kernels::{Cpu, Mat, gemm};
use std::time::Instant;

fn main() {
    for threads in [1, 2] {
        let cpu = Cpu::new(None, Some(threads)).expect("an instruction set");
        for (m, n, k) in [(1024, 1024, 1024), (2048, 1024, 384), (2048, 384, 1024), (50, 1024, 256), (1, 4096, 4096)] {
            let a: Vec<f32> = (0..m * k).map(|i| (i % 13) as f32 - 6.0).collect();
            let b: Vec<f32> = (0..k * n).map(|i| (i % 7) as f32 - 3.0).collect();
            let mut c = vec![0.0; m * n];
            for (label, am, bm) in [
                ("A*B", Mat::new(&a, k), Mat::new(&b, n)),
                ("A*Bt", Mat::new(&a, k), Mat::new(&b, k).t()),
                ("At*B", Mat::new(&a, m).t(), Mat::new(&b, n)),
            ] {
                let mut times = Vec::new();
                for _ in 0..9 {
                    let reps = (400_000_000 / (m * n * k)).max(1);
                    let start = Instant::now();
                    for _ in 0..reps {
                        gemm(&cpu, m, n, k, am, bm, false, &mut c);
                    }
                    times.push(start.elapsed().as_secs_f64() / reps as f64);
                }
                times.sort_by(f64::total_cmp);
                let flops = 2.0 * (m * n * k) as f64 / 1e9;
                println!(
                    "{threads} thr {m}x{n}x{k} {label:5} {:7.1} GFLOP/s median, {:7.1} best ({})",
                    flops / times[4],
                    flops / times[0],
                    cpu.isa.name()
                );
            }
        }
    }
}
