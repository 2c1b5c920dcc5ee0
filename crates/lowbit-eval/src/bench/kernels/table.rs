//! Speeds of kernels for people, and as JSON.

use super::against::{Change, FLOOR, NOISES};
use super::{Machine, Speed, Speeds};
use crate::bench::host;
use crate::record::{Host, Limits};
use lowbit_kernels::Cpu;
use serde_json::{Value, json};

/// The lines of a table: the limits of every machine, and a row for each case, with its change where there are `changes`.
pub fn lines(speeds: &Speeds, changes: Option<&[Option<Change>]>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = |text: String| lines.push(text);
    line(crate::meter::cpu_name());
    for Machine { isa, threads, limits } in &speeds.machines {
        line(format!("limits of {isa} with {threads} threads: {}", host::limits_text(&host::limits_of(limits))));
    }
    let several = speeds.machines.iter().any(|m| m.isa != speeds.machines[0].isa);
    let isa = |name: &str| if several { format!(" {name:12}") } else { String::new() };
    let change = |text: String| if changes.is_some() { format!("  {text}") } else { String::new() };
    line(format!(
        "{:18} {:>15} {:>6}{} {:>7} {:>10} {:>23} {:>8} {:>8}  {:6} {:>6}{}",
        "format",
        "shape",
        "tokens",
        isa("isa"),
        "threads",
        "us p50",
        "(min .. max)",
        "GB/s",
        "GOP/s",
        "limit",
        "%",
        change(format!("{:>7} {:>7} {:>7}", "time", "of %", "counts"))
    ));
    for (i, s) in speeds.speeds.iter().enumerate() {
        let changed =
            changes.map_or(String::new(), |all| change(all[i].as_ref().map_or("not in the record".into(), in_words)));
        line(format!("{}{changed}", row(s, &isa(s.isa))));
    }
    if speeds.speeds.iter().any(|s| host::is_cached(s.limit, s.fraction_of_limit)) {
        line(host::CACHED_MEANS.into());
    }
    if changes.is_some() {
        line(format!(
            "time and of %: seconds and part of the limit against the record; both count beyond {:.0} %, or {NOISES} times \
             the noise of both runs",
            FLOOR * 100.0
        ));
    }
    lines
}

fn row(s: &Speed, isa: &str) -> String {
    let us = |seconds: f64| format!("{:.1}", seconds * 1e6);
    format!(
        "{:18} {:>15} {:>6}{isa} {:>7} {:>10} {:>23} {:>8.2} {:>8.1}  {:6} {:>6}",
        s.format,
        s.shape,
        s.tokens,
        s.threads,
        us(s.seconds_p50),
        format!("({} .. {})", us(s.seconds_min), us(s.seconds_max)),
        s.weight_gbps,
        s.gops,
        s.limit,
        host::of_limit(s.limit, s.fraction_of_limit)
    )
}

fn in_words(change: &Change) -> String {
    let percent = |ratio: f64| format!("{:+.1} %", (ratio - 1.0) * 100.0);
    format!(
        "{:>7} {:>7} {:>7}  {}",
        percent(change.seconds_ratio),
        percent(change.fraction_ratio),
        format!("{:.1} %", change.threshold * 100.0),
        change.verdict.name()
    )
}

impl Speeds {
    /// The object of `--json`, but what every object has: `host` is the last machine, `machines` has them all; a record tells
    /// its change, if any.
    pub fn json(&self, cpus: &[Cpu], changes: Option<&[Option<Change>]>) -> Value {
        let machine = |m: &Machine| json!({"isa": m.isa, "threads": m.threads, "limits": host::limits_of(&m.limits)});
        let machines: Vec<Value> = self.machines.iter().map(machine).collect();
        let limits = self.machines.last().map_or_else(Limits::default, |m| host::limits_of(&m.limits));
        let host = cpus.last().map_or_else(Host::default, |cpu| Host { limits, ..host::facts(cpu) });
        let mut records: Vec<Value> = self.speeds.iter().map(|speed| json!(speed)).collect();
        for (record, change) in records.iter_mut().zip(changes.unwrap_or_default()) {
            if let (Some(record), Some(change)) = (record.as_object_mut(), change) {
                record.insert("change".into(), json!(change));
            }
        }
        json!({"host": host, "machines": machines, "records": records})
    }
}
