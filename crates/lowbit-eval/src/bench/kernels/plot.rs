//! Speeds of kernels as a roofline plot.

use super::{Machine, Speed, Speeds};
use crate::report::{Mark, Panel, Roofline};

/// The plot: a panel for each machine, a mark for each case.
pub fn roofline(speeds: &Speeds, cpu: &str) -> Roofline {
    let panel = |machine: &Machine| {
        let limits = &machine.limits;
        let float = [("f32", Some(limits.f32_gflops)), ("bf16", limits.bf16_gflops), ("int8", Some(limits.int8_gops))];
        let of = |s: &&Speed| (s.isa, s.threads) == (machine.isa, machine.threads);
        Panel {
            title: format!("{}, {}", machine.isa, threads(machine.threads)),
            memory_gbps: limits.memory_gbps,
            peaks: float.into_iter().filter_map(|(name, peak)| Some((name.into(), peak?))).collect(),
            marks: speeds.speeds.iter().filter(of).map(mark).collect(),
        }
    };
    let note = "One token reads its weights from memory. More tokens may find them in caches, and lie above the slope.";
    Roofline {
        title: format!("Kernels on {cpu}"),
        note: note.into(),
        panels: speeds.machines.iter().map(panel).collect(),
    }
}

fn threads(n: usize) -> String {
    format!("{n} thread{}", if n == 1 { "" } else { "s" })
}

fn mark(s: &Speed) -> Mark {
    let percent = s.fraction_of_limit * 100.0;
    Mark {
        series: s.format.clone(),
        title: format!("{} {} x {} tokens: {percent:.0} % of {}", s.format, s.shape, s.tokens, s.limit),
        intensity: s.gops / s.weight_gbps,
        rate: s.gops,
    }
}
