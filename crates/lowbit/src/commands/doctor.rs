//! `lowbit doctor`

use super::Machine;
use crate::failure::Failure;
use crate::{host, output};
use lowbit_eval::meter::{self, Rapl};
use lowbit_eval::task;
use lowbit_kernels::Isa;
use serde_json::json;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Doctor {}

impl Doctor {
    /// Runs the command.
    pub fn run(self, machine: &Machine) -> Result<(), Failure> {
        let cpu = machine.cpu()?;
        let forced = machine.isa.is_some();
        let host = host::describe(&cpu);
        let energy = Rapl::open(&Rapl::root()).is_some();
        let data = task::data_dir(None);
        let isas: Vec<(&str, bool)> = Isa::ALL.iter().map(|i| (i.name(), i.is_available())).collect();
        if machine.json {
            let isas: serde_json::Map<String, serde_json::Value> =
                isas.iter().map(|(name, there)| (name.to_string(), json!(there))).collect();
            return output::json(&json!({
                "schema_version": 1, "tool": output::tool(), "command": output::command(), "host": host,
                "isas": isas, "energy_meter": energy, "data": data.ok().map(|d| d.display().to_string()),
            }));
        }
        output::line(format!("cpu        {}, {} cores, {} threads used", host.cpu, host.cores, host.threads));
        let free = meter::rss_bytes().map_or(String::new(), |b| format!(", this process {}", output::bytes(b)));
        output::line(format!("memory     {}{free}", output::bytes(host.ram_bytes)));
        let why = if forced { "asked for" } else { "the last in the list that this CPU has" };
        output::line(format!("isa        {} ({why})", host.isa));
        for (name, there) in isas {
            output::line(format!("           {} {name}", if there { "+" } else { "-" }));
        }
        let number = |v: Option<f64>| v.map_or("not measured".into(), |v| format!("{v:.0}"));
        output::line(format!("limits     memory {} GB/s read", number(host.limits.memory_gbps)));
        output::line(format!("           f32 {} GFLOP/s", number(host.limits.f32_gflops)));
        output::line(format!("           int8 {} GOP/s", number(host.limits.int8_gops)));
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
