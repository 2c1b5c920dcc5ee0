//! Records of several machines: one table per task or study, a line per machine and variant.

use super::document::{Block, Cell, Section, Table};
use super::measures::{Scales, title};
use super::noise::{Evidence, Pace};
use super::number;
use super::sentence::Tone;
use super::studies::faster;
use crate::Error;
use crate::record::{Detail, MachineRecords, Measure, Place, Record, Results, SCHEMA_VERSION, Tool};
use crate::stats;
use crate::study::STUDIES;
use lowbit_base::file;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Largest file of records, bytes.
const MOST: u64 = 1 << 30;
/// Task of what `bench kernels` measured.
const KERNELS: &str = "bench/kernels";
/// What times are held against, where a record names nothing else.
const REFERENCE: &str = "f32";

/// Puts the records of several machines together: directories of comparisons, their `results.json`, or what `bench kernels --json` wrote.
///
/// # Errors
/// When a file cannot be read, holds no latencies, or is of another version; names it.
pub fn merge(paths: &[PathBuf], tool: Tool, command: Vec<String>) -> Result<Results, Error> {
    let machines = paths.iter().map(|path| machine(path)).collect::<Result<Vec<_>, _>>()?;
    let host = machines.first().map(|machine| machine.host.clone()).unwrap_or_default();
    Ok(Results { schema_version: SCHEMA_VERSION, tool, command, host, machines, ..Results::default() })
}

fn machine(path: &Path) -> Result<MachineRecords, Error> {
    let whole = if path.is_dir() { path.join(super::RESULTS) } else { path.to_path_buf() };
    let bytes = file::read(&whole, MOST)?;
    let wrong = |e: &dyn std::fmt::Display| Error::input(&whole, format!("not the records of a machine: {e}"));
    let value: Value = serde_json::from_slice(&bytes).map_err(|e| wrong(&e))?;
    if value["schema_version"] != SCHEMA_VERSION {
        let version = &value["schema_version"];
        return Err(wrong(&format!("schema_version is {version}, this program reads {SCHEMA_VERSION}")));
    }
    let is_kernels =
        value["records"].as_array().is_some_and(|all| all.iter().any(|record| record["format"].is_string()));
    let (results, records) = match is_kernels {
        true => (about(&value).map_err(|e| wrong(&e))?, kernels(&value).map_err(|e| wrong(&e))?),
        false => {
            let mut results: Results = serde_json::from_value(value).map_err(|e| wrong(&e))?;
            let records = std::mem::take(&mut results.records);
            (results, records)
        }
    };
    let baselines: BTreeMap<&str, &str> =
        results.tasks.iter().map(|facts| (facts.task.as_str(), facts.baseline.as_str())).collect();
    let records: Vec<Record> = records.into_iter().filter_map(|record| timed(record, &baselines)).collect();
    if records.is_empty() {
        return Err(Error::input(&whole, "holds no latencies: there is nothing to compare machines by"));
    }
    let name = path.with_extension("");
    let parts: Vec<String> =
        name.components().rev().take(2).map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    let name = parts.into_iter().rev().collect::<Vec<_>>().join("/");
    Ok(MachineRecords { name, host: results.host, tool: results.tool, command: results.command, records })
}

/// What is told of the machine beside the records of `bench kernels`, whose `machines` are instruction sets and numbers of threads.
fn about(value: &Value) -> Result<Results, serde_json::Error> {
    let mut value = value.clone();
    value["records"] = Value::Array(Vec::new());
    if let Some(fields) = value.as_object_mut() {
        fields.remove("machines");
    }
    serde_json::from_value(value)
}

/// A record with its times alone, and its place in a table; none without.
fn timed(record: Record, baselines: &BTreeMap<&str, &str>) -> Option<Record> {
    let latency = record.measures.get("latency_p50")?.clone();
    let place = record.detail.place.unwrap_or_else(|| Place { row: String::new(), side: record.model.clone() });
    let samples = record.detail.samples.get("latency").cloned().map(|samples| ("latency".to_string(), samples));
    let baseline = baselines.get(record.task.as_str()).map(|name| name.to_string());
    Some(Record {
        measures: BTreeMap::from([("latency_p50".to_string(), latency)]),
        detail: Detail {
            made: record.detail.made,
            place: Some(place),
            reference: baseline,
            samples: samples.into_iter().collect(),
            ..Detail::default()
        },
        ..record
    })
}

/// The records of `bench kernels`: a row per shape, number of tokens and of threads, a side per format.
fn kernels(value: &Value) -> Result<Vec<Record>, String> {
    let all = value["records"].as_array().ok_or("no records")?;
    let record = |record: &Value| {
        let text = |name: &str| record[name].as_str().map(String::from).ok_or(format!("a record has no `{name}`"));
        let number = |name: &str| record[name].as_f64().ok_or(format!("a record has no `{name}`"));
        let sides = || Some(format!("{}x{}", record["rows"].as_u64()?, record["cols"].as_u64()?));
        let shape = record["shape"].as_str().map(String::from).or_else(sides).ok_or("a record has no `shape`")?;
        let samples: Vec<f64> = record["samples"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
        let (tokens, threads) = (number("tokens")?, number("threads")?);
        let (side, n) = (text("format")?, record["n"].as_u64().unwrap_or(samples.len() as u64).max(1));
        let row = format!("{shape}, {tokens} tokens, {threads} threads, {}", text("isa")?);
        let measure = Measure::measured(number("seconds_p50")?, "seconds", n);
        Ok(Record {
            task: KERNELS.into(),
            model: format!("{row}, {side}"),
            recipe: side.clone(),
            params: 0,
            measures: BTreeMap::from([("latency_p50".to_string(), measure)]),
            detail: Detail {
                place: Some(Place { row, side }),
                samples: BTreeMap::from([("latency".to_string(), samples)]),
                ..Detail::default()
            },
        })
    };
    all.iter().map(record).collect()
}

/// Records of one machine that took turns, and the one that ratios are taken against.
pub(crate) fn groups(machine: &MachineRecords) -> Vec<(Option<&Record>, Vec<&Record>)> {
    let mut groups: Vec<(&str, &str, Vec<&Record>)> = Vec::new();
    for record in &machine.records {
        let row = record.detail.place.as_ref().map_or("", |place| place.row.as_str());
        match groups.iter_mut().rev().find(|(task, name, _)| (*task, *name) == (record.task.as_str(), row)) {
            Some((.., records)) => records.push(record),
            None => groups.push((&record.task, row, vec![record])),
        }
    }
    groups.into_iter().map(|(.., records)| (reference(&records), records)).collect()
}

/// The baseline of the task, the side of full precision, or else the first of a study.
fn reference<'a>(records: &[&'a Record]) -> Option<&'a Record> {
    let baseline = records.first()?.detail.reference.as_deref().unwrap_or(REFERENCE);
    let side = |record: &&&Record| record.detail.place.as_ref().is_some_and(|place| place.side == baseline);
    let is_study = STUDIES.iter().any(|study| study.task() == records[0].task);
    records.iter().find(side).or_else(|| records.first().filter(|_| is_study)).copied()
}

/// The sections of the machines.
pub(crate) fn sections(results: &Results) -> Vec<Section> {
    if results.machines.is_empty() {
        return Vec::new();
    }
    let mut tasks: Vec<&str> = Vec::new();
    for record in results.machines.iter().flat_map(|machine| &machine.records) {
        if !tasks.contains(&record.task.as_str()) {
            tasks.push(&record.task);
        }
    }
    let tables = tasks.into_iter().map(|task| Block::Table(table(results, task))).collect();
    vec![
        Section { id: "machines".into(), title: "Machines".into(), blocks: vec![Block::Table(hosts(results))] },
        Section { id: "hardware".into(), title: "By machine".into(), blocks: tables },
    ]
}

fn hosts(results: &Results) -> Table {
    let number = |value: Option<f64>| Cell::number(value.map(number::plain));
    let row = |machine: &MachineRecords| {
        let (host, limits) = (&machine.host, &machine.host.limits);
        vec![
            label(machine),
            Cell::words(host.isa.clone()),
            Cell::number(Some(format!("{} of {}", host.threads, host.cores))),
            Cell::number(
                (host.ram_bytes > 0).then(|| number::Scale::bytes([host.ram_bytes as f64]).text(host.ram_bytes as f64)),
            ),
            number(limits.memory_gbps),
            number(limits.f32_gflops),
            number(limits.int8_gops),
            Cell::words(format!("lowbit {}, {}", machine.tool.version, machine.tool.commit)),
        ]
    };
    let head =
        ["Machine", "Instruction set", "Threads", "Memory", "Memory, GB/s", "f32, GFLOP/s", "int8, GOP/s", "Program"];
    Table {
        caption: String::new(),
        head: head.map(String::from).into(),
        rows: results.machines.iter().map(row).collect(),
        foot: "Limits as each machine measured them in its own run.".into(),
    }
}

fn label(machine: &MachineRecords) -> Cell {
    Cell::words(machine.host.cpu.clone()).with_note(machine.name.clone())
}

/// A line of the table of a task.
struct Line<'a> {
    machine: &'a MachineRecords,
    record: &'a Record,
    reference: Option<&'a Record>,
}

fn table(results: &Results, task: &str) -> Table {
    let mut lines: Vec<Line> = Vec::new();
    for machine in &results.machines {
        for (reference, records) in groups(machine).into_iter().filter(|(_, records)| records[0].task == task) {
            lines.extend(records.into_iter().map(|record| Line { machine, record, reference }));
        }
    }
    let place =
        |line: &Line| line.record.detail.place.clone().unwrap_or(Place { row: String::new(), side: String::new() });
    // What is compared stands together, machine below machine, in the order of first appearance.
    let mut order: Vec<Place> = Vec::new();
    for line in &lines {
        let place = place(line);
        if !order.contains(&place) {
            order.push(place);
        }
    }
    let at: BTreeMap<(String, String), usize> =
        order.into_iter().enumerate().map(|(i, place)| ((place.row, place.side), i)).collect();
    lines.sort_by_key(|line| {
        let place = place(line);
        at.get(&(place.row, place.side)).copied()
    });
    let study = STUDIES.iter().find(|study| study.task() == task);
    let with_rows = lines.iter().any(|line| !place(line).row.is_empty());
    let mut head = vec!["Machine".to_string(), "Instruction set".into()];
    head.extend(with_rows.then(|| study.map_or("Case", |study| study.head).to_string()));
    head.extend(["Variant".into(), title("latency_p50"), "Times faster".into()]);
    let row = |line: &Line| {
        let place = place(line);
        let scales: Scales = super::compare::scales(&[line.record]);
        let mut cells = vec![label(line.machine), Cell::words(line.machine.host.isa.clone())];
        cells.extend(with_rows.then(|| Cell::words(place.row)));
        let latency = line.record.measures.get("latency_p50").map(|m| scales.latency.text(m.value));
        cells.extend([
            Cell::words(place.side),
            Cell::number(latency).with_note(range(line.record, &scales)),
            ratio(line),
        ]);
        cells
    };
    Table {
        caption: study.map_or(task.to_string(), |study| study.title.into()),
        head,
        rows: lines.iter().map(row).collect(),
        foot: "Times faster: than the reference on the same machine. Ranges: 95 % intervals of the medians.".into(),
    }
}

fn range(record: &Record, scales: &Scales) -> String {
    let interval = record.detail.samples.get("latency").and_then(|samples| stats::median_interval(samples));
    interval.map_or(String::new(), |(lo, hi)| format!("{} to {}", scales.latency.number(lo), scales.latency.number(hi)))
}

fn ratio(line: &Line) -> Cell {
    match line.reference {
        None => Cell::number(None),
        Some(reference) if std::ptr::eq(reference, line.record) => Cell::instead("reference"),
        Some(reference) => {
            let slower = Evidence::of(&[reference, line.record]);
            let cell = faster(reference, line.record);
            match slower[1].pace(&slower[0]) {
                Some((_, Pace::Faster)) => Cell { tone: Some(Tone::Good), ..cell },
                _ => cell,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Host;
    use crate::report;
    use serde_json::json;

    fn kernels_of(cpu: &str, seconds: f64) -> Value {
        let record = |format: &str, seconds: f64| {
            let samples: Vec<f64> = [0.98, 1.0, 1.01, 0.99, 1.02, 1.0, 1.03].iter().map(|f| f * seconds).collect();
            json!({"format": format, "isa": "avx2", "rows": 1000, "cols": 1000, "tokens": 1, "threads": 2, "n": 7,
                "seconds_p50": seconds, "samples": samples})
        };
        // Samples of one are no multiple of those of the other.
        let mut ternary = record("ternary", seconds / 4.0);
        ternary["samples"][0] = json!(seconds / 4.1);
        json!({"schema_version": 1, "tool": {"version": "0.1.0", "commit": "abc"}, "command": ["lowbit", "bench", "kernels"],
            "host": {"cpu": cpu, "cores": 2, "threads": 2, "isa": "avx2", "ram_bytes": 1000},
            "machines": [{"isa": "avx2", "threads": 2}], "records": [record("f32", seconds), ternary]})
    }

    #[test]
    fn machines_stand_below_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = [("first", "CPU one", 0.004), ("second", "CPU two", 0.002)]
            .iter()
            .map(|(name, cpu, seconds)| {
                let path = dir.path().join(format!("{name}.json"));
                std::fs::write(&path, kernels_of(cpu, *seconds).to_string()).unwrap();
                path
            })
            .collect();
        let tool = Tool { version: "0.1.0".into(), commit: "abc".into() };
        let merged = merge(&paths, tool, vec!["lowbit".into(), "report".into()]).unwrap();
        let table = table(&merged, KERNELS);
        let row = |i: usize| table.rows[i].iter().map(|cell| cell.text.as_str()).collect::<Vec<_>>();
        let case = "1000x1000, 1 tokens, 2 threads, avx2";
        assert_eq!(row(0), ["CPU one", "avx2", case, "f32", "4.00 ms", "reference"]);
        assert_eq!(row(1), ["CPU two", "avx2", case, "f32", "2.00 ms", "reference"]);
        assert_eq!(row(2), ["CPU one", "avx2", case, "ternary", "1.00 ms", "4.00\u{d7}"]);
        assert_eq!(row(3)[5], "4.00\u{d7}");
        let out = dir.path().join("merged");
        report::write(&out, &merged).unwrap();
        assert!(report::verify(&out).unwrap().iter().all(|check| !check.failed()));
        assert_eq!(report::read(&out).unwrap(), merged);
    }

    #[test]
    fn times_that_were_computed_are_found() {
        let mut value = kernels_of("CPU", 0.004);
        let halved: Vec<f64> =
            value["records"][0]["samples"].as_array().unwrap().iter().map(|s| s.as_f64().unwrap() / 1.5).collect();
        value["records"][1]["samples"] = json!(halved);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        std::fs::write(&path, value.to_string()).unwrap();
        let tool = Tool { version: "0.1.0".into(), commit: "abc".into() };
        let merged = merge(&[path], tool, vec!["lowbit".into()]).unwrap();
        let failed: Vec<String> =
            report::check(&merged).iter().filter(|check| check.failed()).map(ToString::to_string).collect();
        assert!(failed.iter().any(|line| line.contains("computed, not measured")), "{failed:?}");
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |content: &str| {
            let path = dir.path().join("bad.json");
            std::fs::write(&path, content).unwrap();
            merge(&[path], Tool::default(), Vec::new()).unwrap_err().to_string()
        };
        assert!(refused("{").contains("bad.json"));
        assert!(refused("{\"schema_version\": 7}").contains("schema_version is 7"));
        let empty = serde_json::to_string(&Results { schema_version: 1, host: Host::default(), ..Results::default() });
        assert!(refused(&empty.unwrap()).contains("no latencies"));
    }
}
