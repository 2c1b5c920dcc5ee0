//! Samples on demand, for a driver that sets another program against this one.

use crate::case::{Shape, int8_weights, ternary_weights};
use crate::ours::{self, Ours};
use lowbit_kernels::Cpu;
use std::io::Write;
use std::time::Instant;

/// Seconds a sample lasts at least.
const SAMPLE_SECONDS: f64 = 10e-3;

fn say(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|e| e.to_string())
}

fn sample(ours: &mut Ours) -> f64 {
    let (start, mut products) = (Instant::now(), 0);
    while start.elapsed().as_secs_f64() < SAMPLE_SECONDS {
        products += ours.quantize_and_multiply();
    }
    start.elapsed().as_secs_f64() / products as f64
}

/// Says the bytes of the matrix, then answers each line by the seconds of a product.
pub fn run(format: &str, shape: Shape, threads: usize, copies: usize) -> Result<(), String> {
    let cpu = Cpu::new(None, Some(threads)).map_err(|e| e.to_string())?;
    let weights = if format.starts_with("ternary") { ternary_weights(shape) } else { int8_weights(shape) };
    let packed = ours::pack(format, &weights, shape)?;
    let mut ours = Ours::new(&cpu, &packed, copies, shape);
    sample(&mut ours);
    say(&format!("{}", packed.bytes()))?;
    for line in std::io::stdin().lines() {
        line.map_err(|e| e.to_string())?;
        say(&format!("{:e}", sample(&mut ours)))?;
    }
    Ok(())
}

/// Says memory bandwidth in GB/s and int8 peak in GOP/s.
pub fn limits(threads: usize) -> Result<(), String> {
    let cpu = Cpu::new(None, Some(threads)).map_err(|e| e.to_string())?;
    let found = lowbit_kernels::limits::measure(&cpu);
    say(&format!("{:.1} {:.0}", found.memory_gbps, found.int8_gops))
}
