//! The answer in a few lines for a terminal: headline, one line per variant.

use super::compare::{Comparison, VariantRow, comparisons};
use super::document::{Cell, Table};
use super::{findings, notes, studies, tables};
use crate::record::Results;

/// Lines of the widest summary, if no more are asked for.
const SHORTEST: usize = 8;
/// Columns of a table of networks.
const COLUMNS: usize = 6;

/// Headline, warnings and table of every task, in at most `lines` lines where a task has no more variants than fit; others
/// are counted in the last line.
pub fn summary(results: &Results, lines: usize) -> Vec<String> {
    let tasks = comparisons(results);
    let each = (lines / tasks.len().max(1)).max(SHORTEST);
    let of_tasks = tasks.iter().flat_map(|c| of_task(c, tasks.len() > 1, each));
    let networks = studies::brief(results, COLUMNS).filter(|_| tasks.is_empty());
    let networks = networks.iter().flat_map(|table| std::iter::once(table.caption.clone()).chain(aligned(table)));
    let scope = results.scope.iter().map(|scope| format!("A quick run: {scope}."));
    scope.chain(of_tasks).chain(networks).chain(studies::summary(results)).collect()
}

/// The variant that the first line recommends, of the first task whose first line does.
pub fn recommended(results: &Results) -> Option<String> {
    let first = |c: &Comparison| findings::headline(c).iter().find_map(|f| f.recommends().map(String::from));
    comparisons(results).iter().find_map(first)
}

fn of_task(c: &Comparison, several: bool, most: usize) -> Vec<String> {
    let mut out = Vec::new();
    if several {
        out.push(format!("{}:", c.task));
    }
    out.extend(notes::networks(c));
    out.extend(findings::headline(c).iter().map(ToString::to_string));
    let warnings = notes::warnings(c);
    let shown = if warnings.len() > 3 { 2 } else { warnings.len() };
    out.extend(warnings[..shown].iter().map(|w| format!("Note: {w}")));
    if shown < warnings.len() {
        out.push(format!("Note: {} more in the report.", warnings.len() - shown));
    }
    out.push(String::new());
    let room = most.saturating_sub(out.len() + 2);
    let rows: Vec<&VariantRow> = c.rows.iter().take(if c.rows.len() > room { room.max(2) - 1 } else { room }).collect();
    out.extend(aligned(&tables::brief(c, &rows)));
    if rows.len() < c.rows.len() {
        out.push(format!("and {} more variants in the report", c.rows.len() - rows.len()));
    }
    out
}

/// A table in columns of equal width, numbers flush right.
fn aligned(table: &Table) -> Vec<String> {
    let text = |cell: &Cell| match cell.note.is_empty() {
        true => cell.text.clone(),
        false => format!("{} ({})", cell.text, cell.note),
    };
    let head: Vec<String> = table.head.clone();
    let body: Vec<Vec<String>> = table.rows.iter().map(|row| row.iter().map(text).collect()).collect();
    let number = |i: usize| table.rows.iter().any(|row| row[i].number);
    let width = |i: usize| body.iter().chain([&head]).map(|row| row[i].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(i, text)| match number(i) {
            true => format!("{text:>width$}", width = widths[i]),
            false => format!("{text:width$}", width = widths[i]),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_string()
    };
    [&head].into_iter().chain(&body).map(line).collect()
}
