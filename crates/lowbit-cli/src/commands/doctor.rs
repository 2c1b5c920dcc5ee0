//! `lowbit doctor`

use super::Machine;
use crate::failure::Failure;
use lowbit_base::memory;
use lowbit_base::memory::bytes;
use lowbit_eval::bench::host;
use lowbit_eval::bench::kernels::ternary::{self, Way};
use lowbit_eval::meter::{self, Rapl};
use lowbit_eval::task;
use lowbit_kernels::{Isa, Threads};
use serde_json::json;

/// Beside the flags.
const EXAMPLES: &str = "\
Examples:
  lowbit doctor
  lowbit doctor --json";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Doctor {}

impl Doctor {
    /// Runs the command.
    pub fn run(self, machine: &Machine) -> Result<(), Failure> {
        let cpu = machine.cpu()?;
        let threads = Threads::choose(machine.threads())?;
        let host = host::describe(&cpu)?;
        let ternary = ternary::ways(&cpu)?;
        let energy = Rapl::open(&Rapl::root()).is_some();
        let data = task::data_dir(None);
        let room = memory::available();
        let isas: Vec<(&str, bool)> = Isa::ALL.iter().map(|i| (i.name(), i.is_available())).collect();
        if machine.json {
            let isas: serde_json::Map<String, serde_json::Value> =
                isas.iter().map(|(name, there)| (name.to_string(), json!(there))).collect();
            return machine.terminal.json_object(json!({"host": host,
                "memory": room.as_ref().map(|room| json!({"available_bytes": room.bytes, "limit": room.limit.to_string()})),
                "threads": {"count": threads.count, "why": threads.why}, "isas": isas, "ternary": ternary, "energy_meter": energy, "data": data.ok().map(|d| d.display().to_string()),
            }));
        }
        machine.terminal.line(format!("cpu        {}, {} cores", host.cpu, host.cores));
        machine.terminal.line(format!("threads    {} ({})", threads.count, threads.why));
        let own = meter::rss_bytes().map_or(String::new(), |b| format!(", this process {}", bytes(b)));
        machine.terminal.line(format!("memory     {}{own}", bytes(host.ram_bytes)));
        if let Some(room) = &room {
            machine.terminal.line(format!("           {} available ({})", bytes(room.bytes), room.limit));
        }
        let why = if machine.has_isa() { "asked for" } else { "the last in the list that this CPU has" };
        machine.terminal.line(format!("isa        {} ({why})", host.isa));
        for (name, there) in isas {
            machine.terminal.line(format!("           {} {name}", if there { "+" } else { "-" }));
        }
        if !host.ways.is_empty() {
            machine.terminal.line(format!("ways       {} ({})", host.ways, cpu.ways().why()));
        }
        machine.terminal.line(format!("limits     {}", host::limits_text(&host.limits)));
        let speed = |way: &Way| format!("{:.1} bits at {:.0} G weights/s", way.bits, way.gweights_per_second);
        let all: Vec<String> = ternary.iter().map(speed).collect();
        let best = ternary.first().map_or("", |way| way.recipe);
        machine.terminal.line(format!("ternary    one token reads {}: choose `--recipe {best}`", all.join(", ")));
        match energy {
            true => machine.terminal.line(format!("energy     {}", Rapl::root().display())),
            false => machine.terminal.line(format!(
                "energy     no meter under {}: reports say \"not measured\" (virtual machines have none; on Linux the files \
                 may need root; LOWBIT_POWERCAP names another place)",
                Rapl::root().display()
            )),
        }
        match data {
            Ok(dir) => machine.terminal.line(format!("data       {}", dir.display())),
            Err(e) => machine.terminal.line(format!("data       {e}")),
        }
        Ok(())
    }
}
