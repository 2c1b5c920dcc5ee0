//! The tables that answer the question: what every variant gains and loses, and what those to choose do.

use super::{ReportColumn, ask, change_cell, is_unsteady, made, measure, ratio_cell, table, verdict_cell};
use crate::report::compare::{Comparison, VariantRow};
use crate::report::document::{Cell, Table};
use crate::report::findings::primary;
use crate::report::measures::title;
use crate::report::query::What;

/// The table that answers the question: quality, size and speed of every variant.
pub(crate) fn overview(c: &Comparison) -> Table {
    let reference = c.reference().map_or("the reference", |r| r.name());
    let mut columns = Vec::new();
    let has_bits = has_bits(c);
    if c.quality().is_some() || has_bits {
        columns.push(ReportColumn { title: "Verdict".into(), cell: Box::new(|r| verdict_cell(c, r)) });
    }
    if let Some(name) = primary(c) {
        columns.push(ReportColumn::ranged(c, &title(name), name));
    }
    if c.quality().is_some() || has_bits {
        let unit = if has_bits { "Bits per byte" } else { "Points" };
        let cell = |r: &VariantRow| change_cell(c, r);
        columns.push(ReportColumn { title: against(unit, reference), cell: Box::new(cell) });
    }
    columns.push(ReportColumn::asks(c, "Weights", measure("weight_bytes")));
    columns.push(ReportColumn { title: "Times smaller".into(), cell: Box::new(|r| ratio_cell(c, r, What::Smaller)) });
    let cell = |r: &VariantRow| {
        let unsteady = if is_unsteady(c, r) { "unsteady" } else { "" };
        ask(c, r, measure("latency_p50")).with_note(unsteady)
    };
    columns.push(ReportColumn { title: "Median latency, batch 1".into(), cell: Box::new(cell) });
    columns.push(ReportColumn { title: "Times faster".into(), cell: Box::new(|r| ratio_cell(c, r, What::Faster)) });
    let foot = match c.quality() {
        Some("r2") => {
            "Range under a share and under points: 95 % interval, that of the points of the paired difference."
        }
        Some(_) => {
            "Range under an accuracy: Wilson 95 % interval. Range under points: 95 % interval of the paired difference."
        }
        None if has_bits => {
            "Range under a difference of bits per byte: 95 % interval by a bootstrap over blocks of the text."
        }
        None => "",
    };
    let mut out = table("", c.rows.iter(), columns, foot).unwrap_or_default();
    for (line, row) in out.rows.iter_mut().zip(&c.rows) {
        line[0].note = made(row);
    }
    out
}

/// Whether variants differ by bits per byte that were tested.
fn has_bits(c: &Comparison) -> bool {
    c.rows.iter().any(|r| r.bits.is_some())
}

/// The overview for a terminal: one line per variant, in few words; `chosen` are the variants to choose, and for what.
pub(crate) fn brief(c: &Comparison, rows: &[&VariantRow], chosen: &[(String, String)]) -> Table {
    let mut columns = Vec::new();
    let quality = primary(c);
    columns.extend(quality.map(|name| ReportColumn::asks(c, title(name), measure(name))));
    let is_compared = c.quality().is_some() || has_bits(c);
    if is_compared {
        let title = if has_bits(c) { "Change (95 %)" } else { "Points (95 %)" };
        columns.push(ReportColumn { title: title.into(), cell: Box::new(|r| change_cell(c, r)) });
    }
    columns.push(ReportColumn::asks(c, "Weights", measure("weight_bytes")));
    columns.push(ReportColumn { title: "Smaller".into(), cell: Box::new(|r| ratio_cell(c, r, What::Smaller)) });
    columns.push(ReportColumn::asks(c, "Latency", measure("latency_p50")));
    columns.push(ReportColumn { title: "Faster".into(), cell: Box::new(|r| ratio_cell(c, r, What::Faster)) });
    if is_compared {
        columns.push(ReportColumn { title: "Verdict".into(), cell: Box::new(|r| verdict_cell(c, r).with_note("")) });
    }
    if !chosen.is_empty() {
        let words = |r: &VariantRow| chosen.iter().find(|(name, _)| name == r.name()).map(|(_, words)| words.clone());
        let cell = move |r: &VariantRow| Cell::words(words(r).unwrap_or_default());
        columns.push(ReportColumn { title: "Choose for".into(), cell: Box::new(cell) });
    }
    let mut out = table("", rows.iter().copied(), columns, "").unwrap_or_default();
    let blank = |cell: &mut Cell| {
        if cell.missing || cell.text == "reference" && cell.number {
            cell.text = "-".into();
        }
    };
    out.rows.iter_mut().flatten().for_each(blank);
    out
}

/// The title of the column of differences.
fn against(unit: &str, reference: &str) -> String {
    if unit == "Points" { format!("Points against {reference}") } else { "Change of bits per byte".into() }
}

/// Fills a cell of a variant.
type Fill<'c> = Box<dyn Fn(&VariantRow) -> Cell + 'c>;

/// What the table of choices tells of a variant: title, and how it is filled.
pub(crate) fn of_choice<'c>(c: &'c Comparison) -> Vec<(String, Fill<'c>)> {
    let mut columns: Vec<(String, Fill)> = Vec::new();
    if let Some(name) = primary(c) {
        columns.push((title(name), Box::new(move |r| ask(c, r, measure(name)))));
    }
    columns.push(("Weights".into(), Box::new(|r| ask(c, r, measure("weight_bytes")))));
    columns.push(("Median latency".into(), Box::new(|r| ask(c, r, measure("latency_p50")))));
    if c.quality().is_some() || has_bits(c) {
        let reference = c.reference().map_or("the reference", |r| r.name());
        let unit = if has_bits(c) { "Bits per byte" } else { "Points" };
        columns.insert(1, (against(unit, reference), Box::new(|r| change_cell(c, r))));
    }
    columns
}

/// "-0.20 points, 0.340 MB".
pub(crate) fn in_short(c: &Comparison, row: &VariantRow) -> String {
    let text = |what: What, unit: &str| Some(format!("{}{unit}", c.ask(row.name(), what)?.text));
    let change = text(What::Points, " points").or_else(|| text(What::Bits, " bits per byte"));
    [change, text(measure("weight_bytes"), "")].into_iter().flatten().collect::<Vec<_>>().join(", ")
}
