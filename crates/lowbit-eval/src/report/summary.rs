//! The answer in a few lines for a terminal: what to choose, and a line per variant, or per task where there are several.

use super::compare::{Comparison, VariantRow, comparisons};
use super::{choices, findings, notes, studies, tables, terminal};
use crate::record::Results;

/// Columns of the table of variants that a narrow terminal does without, the first one first.
const SPARED: &[&str] = &["Smaller", "Faster", "Verdict", "Latency", "Points (95 %)", "Change (95 %)"];
/// The same of the table of tasks.
const SPARED_NEEDS: &[&str] = &["Within 1 point", "Within 1 %", "At most 1 MB"];
/// Warnings that are told.
const WARNINGS: usize = 2;
/// Columns of a table of networks.
const COLUMNS: usize = 6;

/// What to choose, warnings and the table of variants, in at most `lines` lines of `width` characters; what does not fit is counted
/// in the last line.
pub fn summary(results: &Results, lines: usize, width: usize) -> Vec<String> {
    let tasks = comparisons(results);
    let studies: Vec<String> =
        studies::summary(results).iter().flat_map(|text| terminal::wrapped(text, width)).collect();
    let mut out: Vec<String> = scope(results).iter().flat_map(|text| terminal::wrapped(text, width)).collect();
    let most = lines.saturating_sub(studies.len());
    let room = most.saturating_sub(out.len());
    out.extend(match tasks.as_slice() {
        [] => networks(results, width),
        [c] => of_task(c, room, width),
        several => of_tasks(several, room, width),
    });
    out.truncate(most);
    out.extend(studies);
    out.truncate(lines);
    out
}

/// What a quick run leaves out.
fn scope(results: &Results) -> Option<String> {
    results.scope.as_ref().map(|scope| format!("A quick run: {scope}."))
}

/// The first sentences of every task, then what studies there are.
pub(super) fn headlines(results: &Results) -> Vec<String> {
    let tasks = comparisons(results);
    let named = |c: &Comparison, text: String| if tasks.len() > 1 { format!("{}: {text}", c.task) } else { text };
    let of = |c: &Comparison| findings::headline(c).iter().map(|f| named(c, f.to_string())).collect::<Vec<_>>();
    scope(results).into_iter().chain(tasks.iter().flat_map(of)).chain(studies::summary(results)).collect()
}

/// The table of networks of a study, where no task is compared.
fn networks(results: &Results, width: usize) -> Vec<String> {
    let Some(table) = studies::brief(results, COLUMNS) else { return Vec::new() };
    std::iter::once(table.caption.clone()).chain(terminal::aligned(&table, width, &[])).collect()
}

/// The variant that the first line recommends, of the first task whose first line does.
pub fn recommended(results: &Results) -> Option<String> {
    let first = |c: &Comparison| findings::headline(c).iter().find_map(|f| f.recommends().map(String::from));
    comparisons(results).iter().find_map(first)
}

/// Headline and warnings of a task.
fn told(c: &Comparison, width: usize) -> Vec<String> {
    let mut texts: Vec<String> = notes::networks(c).into_iter().collect();
    texts.extend(findings::headline(c).iter().map(ToString::to_string));
    let warnings = notes::warnings(c);
    let shown = if warnings.len() > WARNINGS + 1 { WARNINGS } else { warnings.len() };
    texts.extend(warnings[..shown].iter().map(|w| format!("Note: {w}")));
    if shown < warnings.len() {
        texts.push(format!("Note: {} more in the report.", warnings.len() - shown));
    }
    texts.iter().flat_map(|text| terminal::wrapped(text, width)).collect()
}

fn of_task(c: &Comparison, most: usize, width: usize) -> Vec<String> {
    let chosen = choices::of(c);
    let mut out = told(c, width);
    // Half of the lines are for the table.
    if out.len() + 2 > most / 2 && out.len() + c.rows.len() + 2 > most {
        out.truncate((most / 2).saturating_sub(2));
    }
    out.push(String::new());
    let room = most.saturating_sub(out.len() + 1);
    let mut rows: Vec<&VariantRow> = c.rows.iter().collect();
    if rows.len() > room {
        // Those to choose, and the one they are compared with, before others.
        let comes_first = |row: &VariantRow| {
            chosen.iter().any(|(name, _)| *name == row.name()) || c.reference().is_some_and(|r| r.name() == row.name())
        };
        let (first, others): (Vec<&VariantRow>, Vec<&VariantRow>) = rows.into_iter().partition(|row| comes_first(row));
        rows = first.into_iter().chain(others).take(room.saturating_sub(1)).collect();
    }
    let table = tables::brief(c, &rows, &chosen);
    out.extend(terminal::aligned(&table, width, SPARED));
    if rows.len() < c.rows.len() {
        out.push(format!("and {} more variants in the report", c.rows.len() - rows.len()));
    }
    out
}

fn of_tasks(tasks: &[Comparison], most: usize, width: usize) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let Some(choices) = choices::table(tasks) else { return out };
    let bad = tasks.iter().flat_map(findings::faults).map(|finding| format!("{}: {finding}", finding.task));
    out.extend(bad.flat_map(|text| terminal::wrapped(&text, width)).take(most / 3));
    let mut table = choices.table;
    let room = most.saturating_sub(out.len() + 2);
    let left = table.rows.len().saturating_sub(room);
    table.rows.truncate(room);
    let mut lines = terminal::stacked(&table);
    if lines.len() > room + 1 || lines.iter().any(|line| line.chars().count() > width) {
        table.rows.iter_mut().flatten().for_each(|cell| cell.note.clear());
        lines = terminal::aligned(&table, width, SPARED_NEEDS);
    }
    out.extend(lines);
    if left > 0 {
        out.push(format!("and {left} more tasks in the report"));
    }
    out
}
