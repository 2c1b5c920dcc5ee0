//! The machine, what it is used for, and what is missing.

use super::host;
use super::kernels::ternary::{self, Way};
use crate::meter::{self, Rapl};
use crate::record::Host;
use crate::{Error, task};
use lowbit_base::memory::{self, Room, bytes};
use lowbit_kernels::{Cpu, Isa, Threads};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// What was found on a machine.
pub struct Diagnosis {
    host: Host,
    /// Why its matrix products take the way they take.
    ways: String,
    threads: Threads,
    /// Formats of ternary weights, the fastest first.
    ternary: Vec<Way>,
    has_meter: bool,
    data: Result<PathBuf, Error>,
    room: Option<Room>,
    /// Every instruction set, and whether this CPU has it.
    isas: Vec<(&'static str, bool)>,
}

impl Diagnosis {
    /// Looks at the machine and measures its limits (seconds); `threads` as they were asked for.
    ///
    /// # Errors
    /// When there is too little memory to measure, or the number of threads is out of range.
    pub fn of(cpu: &Cpu, threads: Option<usize>) -> Result<Self, Error> {
        Ok(Diagnosis {
            threads: Threads::choose(threads)?,
            host: host::describe(cpu)?,
            ways: cpu.ways().why().to_string(),
            ternary: ternary::ways(cpu)?,
            has_meter: Rapl::open(&Rapl::root()).is_some(),
            data: task::data_dir(None),
            room: memory::available(),
            isas: Isa::ALL.iter().map(|isa| (isa.name(), isa.is_available())).collect(),
        })
    }

    /// The object of `--json`, but what every object has.
    pub fn json(&self) -> Value {
        let isas: Map<String, Value> = self.isas.iter().map(|(name, there)| (name.to_string(), json!(there))).collect();
        let memory = |room: &Room| json!({"available_bytes": room.bytes, "limit": room.limit.to_string()});
        json!({
            "host": self.host, "memory": self.room.as_ref().map(memory),
            "threads": {"count": self.threads.count, "why": self.threads.why}, "isas": isas, "ternary": self.ternary,
            "energy_meter": self.has_meter, "data": self.data.as_ref().ok().map(|dir| dir.display().to_string()),
        })
    }

    /// For a person; `why` tells why the instruction set was chosen.
    pub fn lines(&self, why: &str) -> Vec<String> {
        let Diagnosis { host, threads, .. } = self;
        let own = meter::rss_bytes().map_or(String::new(), |b| format!(", this process {}", bytes(b)));
        let mut lines = vec![
            format!("cpu        {}, {} cores", host.cpu, host.cores),
            format!("threads    {} ({})", threads.count, threads.why),
            format!("memory     {}{own}", bytes(host.ram_bytes)),
        ];
        let available = |room: &Room| format!("           {} available ({})", bytes(room.bytes), room.limit);
        lines.extend(self.room.as_ref().map(available));
        lines.push(format!("isa        {} ({why})", host.isa));
        let listed = |(name, there): &(&str, bool)| format!("           {} {name}", if *there { "+" } else { "-" });
        lines.extend(self.isas.iter().map(listed));
        lines.extend((!host.ways.is_empty()).then(|| format!("ways       {} ({})", host.ways, self.ways)));
        lines.push(format!("limits     {}", host::limits_text(&host.limits)));
        let speed = |way: &Way| format!("{:.1} bits at {:.0} G weights/s", way.bits, way.gweights_per_second);
        let all: Vec<String> = self.ternary.iter().map(speed).collect();
        let best = self.ternary.first().map_or("", |way| way.recipe);
        lines.push(format!("ternary    one token reads {}: choose `--recipe {best}`", all.join(", ")));
        let root = Rapl::root();
        lines.push(match self.has_meter {
            true => format!("energy     {}", root.display()),
            false => format!(
                "energy     no meter under {}: reports say \"not measured\" (virtual machines have none; on Linux the files \
                 may need root; LOWBIT_POWERCAP names another place)",
                root.display()
            ),
        });
        lines.push(match &self.data {
            Ok(dir) => format!("data       {}", dir.display()),
            Err(e) => format!("data       {e}"),
        });
        lines
    }
}
