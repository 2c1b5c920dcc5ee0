//! Tables of memory, load, training and energy, and of measures that no other table has.

use super::{ReportColumn, ask, measure, table};
use crate::faithfulness::METRICS;
use crate::metrics::DROP;
use crate::report::compare::{Comparison, VariantRow};
use crate::report::document::{Cell, Table};
use crate::report::measures::{MEASURES, title};

/// Memory, load, training, energy.
pub(crate) fn cost(c: &Comparison) -> Option<Table> {
    let always = ["peak_rss_bytes", "load_seconds", "train_seconds", "energy_joules"];
    let measured = TRAINING.iter().copied().filter(|name| c.has(name) && !always.contains(name));
    let column =
        |name| ReportColumn { title: title(name), cell: Box::new(move |r: &VariantRow| cost_cell(c, r, name)) };
    let columns = always.into_iter().chain(measured).map(column).collect();
    table("Memory, load, training, energy", c.networks(), columns, "")
}

/// Where memory goes: the weights as stored and what answering adds, then the parts of a training.
pub(crate) fn ledger(c: &Comparison) -> Option<Table> {
    let mut names: Vec<String> = Vec::new();
    for name in
        c.rows.iter().flat_map(|r| r.record.measures.keys()).filter(|name| LEDGERS.iter().any(|l| name.starts_with(l)))
    {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    if names.is_empty() {
        return None;
    }
    let (training, inference): (Vec<String>, Vec<String>) =
        names.into_iter().partition(|name| name.starts_with(LEDGERS[1]));
    let of = |name: &str| name.to_string();
    let order =
        [vec![of("weight_bytes")], inference, vec![of("peak_rss_bytes")], training, vec![of("train_peak_rss_bytes")]];
    let column = |name: String| ReportColumn {
        title: title(&name),
        cell: Box::new(move |r: &VariantRow| cost_cell(c, r, &name)),
    };
    let columns = order.concat().into_iter().filter(|name| c.has(name)).map(column).collect();
    let foot = "Peaks are those of whole processes: the program, its threads, its buffers and, in training, all rows are in them.";
    table("Where memory goes", c.networks(), columns, foot)
}

/// What a training took.
const TRAINING: &[&str] = &["train_seconds", "train_peak_rss_bytes", "train_energy_joules"];

/// Parts of the memory of answering, and of training.
const LEDGERS: [&str; 2] = ["ledger/", "train_ledger/"];

/// A quantized variant has no training of its own.
fn cost_cell(c: &Comparison, row: &VariantRow, name: &str) -> Cell {
    let cell = ask(c, row, measure(name));
    match (&row.record.detail.parent, name) {
        (Some(parent), name)
            if (TRAINING.contains(&name) || name.starts_with(LEDGERS[1]))
                && cell.missing
                && row.record.detail.made == "quantized" =>
        {
            Cell::instead(format!("that of {parent}"))
        }
        _ => cell,
    }
}

/// Measures that no other table shows.
pub(crate) fn others(c: &Comparison) -> Option<Table> {
    const SHOWN: &[&str] = &[
        "accuracy",
        "r2",
        "mse",
        "mae",
        "f1_macro",
        "precision_macro",
        "recall_macro",
        "weight_bytes",
        "latency_p50",
        "latency_p90",
        "latency_p99",
        "peak_rss_bytes",
        "load_seconds",
        "energy_joules",
    ];
    let mut names: Vec<&str> = Vec::new();
    for name in c.rows.iter().flat_map(|r| r.record.measures.keys()) {
        let of_part = name == DROP || name.starts_with("accuracy/");
        let shown = of_part
            || SHOWN.iter().chain(METRICS).chain(TRAINING).any(|shown| shown == name)
            || ["f1/", "accuracy_tokens/", "latency_tokens/"]
                .iter()
                .chain(&LEDGERS)
                .any(|family| name.starts_with(family))
            || name.starts_with("throughput/");
        if !shown && !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let place = |n: &&str| MEASURES.iter().position(|k| k.name == *n).unwrap_or(usize::MAX);
    names.sort_by_key(|n| (place(n), n.to_string()));
    let columns: Vec<ReportColumn> = names.iter().map(|n| ReportColumn::asks(c, title(n), measure(n))).collect();
    if columns.is_empty() {
        return None;
    }
    table("Other measures", c.rows.iter().filter(|r| names.iter().any(|n| r.value(n).is_some())), columns, "")
}
