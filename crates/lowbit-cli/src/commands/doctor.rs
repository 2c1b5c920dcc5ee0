//! `lowbit doctor`

use super::Machine;
use crate::failure::Failure;
use crate::output;
use lowbit_base::memory;
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
            return output::json_object(json!({"host": host,
                "memory": room.as_ref().map(|room| json!({"available_bytes": room.bytes, "limit": room.limit.to_string()})),
                "threads": {"count": threads.count, "why": threads.why}, "isas": isas, "ternary": ternary, "energy_meter": energy, "data": data.ok().map(|d| d.display().to_string()),
            }));
        }
        output::line(format!("cpu        {}, {} cores", host.cpu, host.cores));
        output::line(format!("threads    {} ({})", threads.count, threads.why));
        let own = meter::rss_bytes().map_or(String::new(), |b| format!(", this process {}", output::bytes(b)));
        output::line(format!("memory     {}{own}", output::bytes(host.ram_bytes)));
        if let Some(room) = &room {
            output::line(format!("           {} available ({})", output::bytes(room.bytes), room.limit));
        }
        let why = if machine.has_isa() { "asked for" } else { "the last in the list that this CPU has" };
        output::line(format!("isa        {} ({why})", host.isa));
        for (name, there) in isas {
            output::line(format!("           {} {name}", if there { "+" } else { "-" }));
        }
        if !host.ways.is_empty() {
            output::line(format!("ways       {} ({})", host.ways, cpu.ways().why()));
        }
        output::line(format!("limits     {}", host::limits_text(&host.limits)));
        let speed = |way: &Way| format!("{:.1} bits at {:.0} G weights/s", way.bits, way.gweights_per_second);
        let all: Vec<String> = ternary.iter().map(speed).collect();
        let best = ternary.first().map_or("", |way| way.recipe);
        output::line(format!("ternary    one token reads {}: choose `--recipe {best}`", all.join(", ")));
        match energy {
            true => output::line(format!("energy     {}", Rapl::root().display())),
            false => output::line(format!(
                "energy     no meter under {}: reports say \"not measured\" (virtual machines have none; on Linux the files \
                 may need root; LOWBIT_POWERCAP names another place)",
                Rapl::root().display()
            )),
        }
        match data {
            Ok(dir) => output::line(format!("data       {}", dir.display())),
            Err(e) => output::line(format!("data       {e}")),
        }
        Ok(())
    }
}
