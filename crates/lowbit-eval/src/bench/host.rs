//! The machine: what it is, and its limits measured here and now.

use crate::error::Error;
use crate::record::{Host, Limits};
use crate::{meter, stats};
use lowbit_base::memory::Footprint;
use lowbit_kernels::limits::{self, Limits as Measured};
use lowbit_kernels::{Cpu, Ways};

/// Memory that measuring the limits takes.
pub fn need() -> Footprint {
    Footprint::new("free some").and("measuring the bandwidth", limits::BYTES as u64)
}

/// The machine with its measured limits (about half a second).
///
/// # Errors
/// When there is too little memory for that.
pub fn describe(cpu: &Cpu) -> Result<Host, Error> {
    need().check()?;
    Ok(Host { limits: limits_of(&limits::measure(cpu)), ..facts(cpu) })
}

/// The machine without its limits.
pub fn facts(cpu: &Cpu) -> Host {
    Host {
        cpu: meter::cpu_name(),
        cores: meter::cores(),
        threads: cpu.pool.threads() as u64,
        isa: cpu.isa.name().into(),
        ram_bytes: meter::ram_bytes().unwrap_or(0),
        ways: if *cpu.ways() == Ways::default() { String::new() } else { cpu.ways().to_string() },
        limits: Limits::default(),
    }
}

/// Measured limits as a record holds them.
pub fn limits_of(l: &Measured) -> Limits {
    Limits {
        memory_gbps: Some(l.memory_gbps),
        f32_gflops: Some(l.f32_gflops),
        bf16_gflops: l.bf16_gflops,
        int8_gops: Some(l.int8_gops),
    }
}

/// The median of each limit over several measurements; NaN without one.
pub fn middle(all: &[Measured]) -> Measured {
    let median = |of: &dyn Fn(&Measured) -> Option<f64>| stats::median(&all.iter().filter_map(of).collect::<Vec<_>>());
    let always = |of: fn(&Measured) -> f64| median(&|l| Some(of(l))).unwrap_or(f64::NAN);
    Measured {
        memory_gbps: always(|l| l.memory_gbps),
        f32_gflops: always(|l| l.f32_gflops),
        bf16_gflops: median(&|l| l.bf16_gflops),
        int8_gops: always(|l| l.int8_gops),
    }
}

/// The limits in words, for one line.
pub fn limits_text(limits: &Limits) -> String {
    let known = [
        ("memory", limits.memory_gbps, "GB/s read"),
        ("f32", limits.f32_gflops, "GFLOP/s"),
        ("bf16", limits.bf16_gflops, "GFLOP/s"),
        ("int8", limits.int8_gops, "GOP/s"),
    ];
    let text = |(name, value, unit): (&str, Option<f64>, &str)| value.map(|v| format!("{name} {v:.0} {unit}"));
    known.into_iter().filter_map(text).collect::<Vec<_>>().join(", ")
}

/// Speeds above the memory's are called cached beyond this factor: what limits are measured with varies.
const CACHED: f64 = 1.05;
/// What [`of_limit`] means where it says `cached`.
pub const CACHED_MEANS: &str =
    "cached: what is read stays in the caches of the CPU, which deliver more than memory does";

/// Percent of a limit that was reached; `cached` where more was read than memory delivers, so that it is no limit.
pub fn of_limit(limit: &str, fraction: f64) -> String {
    if is_cached(limit, fraction) { "cached".into() } else { format!("{:.1}", fraction * 100.0) }
}

/// Whether more was read than memory delivers.
pub fn is_cached(limit: &str, fraction: f64) -> bool {
    limit == "memory" && fraction > CACHED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_memory_delivers_is_no_percentage_of_it() {
        assert_eq!(of_limit("memory", 15.42), "cached");
        assert_eq!((of_limit("memory", 1.02), of_limit("int8", 1.2)), ("102.0".into(), "120.0".into()));
    }
}
