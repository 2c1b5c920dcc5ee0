//! The machine: what it is, and its limits measured here and now.

use lowbit_eval::meter;
use lowbit_eval::record::{Host, Limits};
use lowbit_kernels::{Cpu, limits};

/// The machine with its measured limits (about half a second).
pub fn describe(cpu: &Cpu) -> Host {
    let found = limits::measure(cpu);
    let limits = Limits {
        memory_gbps: Some(found.memory_gbps),
        f32_gflops: Some(found.f32_gflops),
        int8_gops: Some(found.int8_gops),
    };
    Host { limits, ..facts(cpu) }
}

/// The machine without its limits.
pub fn facts(cpu: &Cpu) -> Host {
    Host {
        cpu: meter::cpu_name(),
        cores: meter::cores(),
        threads: cpu.pool.threads() as u64,
        isa: cpu.isa.name().into(),
        ram_bytes: meter::ram_bytes().unwrap_or(0),
        limits: Limits::default(),
    }
}
