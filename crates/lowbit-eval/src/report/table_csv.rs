//! The records as CSV: one line per record and measure; of several machines the task is named after the machine too.

use crate::record::{How, MachineRecords, Record, Results};

/// Column names.
const HEAD: [&str; 11] = ["task", "model", "recipe", "params", "measure", "value", "unit", "n", "lo", "hi", "how"];

/// The whole file.
pub(crate) fn render(results: &Results) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let number = |v: Option<f64>| v.map(|v| v.to_string()).unwrap_or_default();
    let mut lines: Vec<[String; 11]> = vec![HEAD.map(String::from)];
    let of_machine = |machine: &MachineRecords| {
        let named = |r: &Record| Record { task: format!("{}: {}", machine.name, r.task), ..r.clone() };
        machine.records.iter().map(named).collect::<Vec<_>>()
    };
    let others: Vec<Record> = results.machines.iter().flat_map(of_machine).collect();
    for r in results.records.iter().chain(&others) {
        lines.extend(r.measures.iter().map(|(name, m)| {
            let how = match m.how {
                How::Measured => "measured",
                How::Estimated => "estimated",
                How::Published => "published",
            };
            [
                r.task.clone(),
                r.model.clone(),
                r.recipe.clone(),
                r.params.to_string(),
                name.clone(),
                m.value.to_string(),
                m.unit.clone(),
                m.n.to_string(),
                number(m.lo),
                number(m.hi),
                how.to_string(),
            ]
        }));
    }
    for line in lines {
        // Writing to memory cannot fail.
        let _ = writer.write_record(&line);
    }
    String::from_utf8(writer.into_inner().unwrap_or_default()).unwrap_or_default()
}
