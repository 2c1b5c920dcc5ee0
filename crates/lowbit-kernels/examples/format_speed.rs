//! Microseconds and GOP/s of each format for a few shapes and token counts; the best and the median of many runs.
use lowbit_kernels::format::ActivationType;
use lowbit_kernels::{Activations, Cpu, FORMATS, Int8Activations, QuantizeOptions};
use std::time::Instant;

fn main() {
    let args: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let [rows, cols, tokens, threads] = args[..] else {
        return println!("usage: format_speed ROWS COLS TOKENS THREADS");
    };
    let cpu = Cpu::new(None, Some(threads)).expect("an instruction set");
    let value = |i: usize| ((i * 2654435761) % 1000) as f32 / 500.0 - 1.0;
    let w: Vec<f32> = (0..rows * cols).map(value).collect();
    let x: Vec<f32> = (0..tokens * cols).map(value).collect();
    let mut y = vec![0.0; tokens * rows];
    for format in FORMATS {
        let p = format.quantize(&w, rows, cols, &QuantizeOptions::default()).expect("finite weights");
        let mut q = Int8Activations::default();
        let integer = format.spec().activations == ActivationType::Int8;
        let mut times = Vec::new();
        let mut quantizing = f64::INFINITY;
        for _ in 0..300 {
            let start = Instant::now();
            if integer {
                q.quantize(&cpu, &x, cols);
            }
            quantizing = quantizing.min(start.elapsed().as_secs_f64());
            let start = Instant::now();
            p.matmul(&cpu, if integer { Activations::Int8(&q) } else { Activations::F32(&x) }, &mut y);
            times.push(start.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        let ops = 2.0 * (rows * cols * tokens) as f64;
        println!(
            "{:20} best {:8.2} us, median {:8.2} us, {:7.1} GOP/s, {:6.2} GB/s; activations to int8 {:6.2} us",
            format.name(),
            times[0] * 1e6,
            times[150] * 1e6,
            ops / times[0] / 1e9,
            p.bytes() as f64 / times[0] / 1e9,
            quantizing * 1e6
        );
    }
}
