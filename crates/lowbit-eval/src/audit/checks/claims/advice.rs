//! Recommendations and thresholds.

use super::Sentence;
use crate::audit::Findings;
use crate::audit::figure::{Dimension, Figure};
use crate::audit::quantity::Quantity;
use crate::audit::reading::{Reading, Row, Table};
use crate::laws;

/// What advice is for: words, the quantity, and whether more of it is better.
const GOALS: &[(&[&str], Quantity)] = &[
    (
        &["accuracy is critical", "accuracy-critical", "accuracy critical", "highest accuracy", "best accuracy"],
        Quantity::Accuracy,
    ),
    (
        &[
            "speed is priority",
            "speed is critical",
            "latency-critical",
            "fastest inference",
            "lowest latency",
            "speed is a priority",
        ],
        Quantity::Time,
    ),
    (&["memory is constrained", "memory-constrained", "smallest memory", "lowest memory"], Quantity::Memory),
];

/// Columns by which one row can be better than another.
const JUDGED: &[Quantity] = &[Quantity::Memory, Quantity::Accuracy, Quantity::Time];

/// 26: what is recommended for something is the best at it, and is not beaten in everything.
pub(crate) fn recommendations(reading: &Reading, out: &mut Findings) {
    for s in &reading.sentences {
        let advises = s.row.is_some() || s.has(&["use", "choose", "prefer", "only for"]);
        let Some((_, quantity)) =
            GOALS.iter().find(|(words, _)| words.iter().any(|w| s.lower.contains(w))).filter(|_| advises)
        else {
            continue;
        };
        let meant = match s.row.as_ref().and_then(|name| reading.names.id(name)) {
            Some(id) => vec![id],
            None => {
                let from = s.lower.find("use ").unwrap_or(0);
                let mention = reading.names.mentions(&s.text).into_iter().find(|m| m.start >= from);
                mention.map(|m| m.ids).unwrap_or_default()
            }
        };
        let with = |t: &Table| !t.of(*quantity).is_empty() && t.rows.len() > 1;
        for table in reading.near(s.section, with) {
            judge(reading, table, s, *quantity, &meant, out);
        }
    }
}

fn judge(reading: &Reading, table: &Table, s: &Sentence, quantity: Quantity, meant: &[usize], out: &mut Findings) {
    let columns = table.of(quantity);
    let training = |c: &usize| table.columns[*c].title.to_lowercase().contains("train");
    let Some(column) = columns.into_iter().find(|c| !training(c)) else { return };
    let value = |row: &Row| row.figure(column).filter(|f| f.dimension != Dimension::Plain).map(Figure::value);
    let own: Vec<&Row> = table
        .rows
        .iter()
        .filter(|r| value(r).is_some() && reading.names.id(&r.name).is_some_and(|id| meant.contains(&id)))
        .collect();
    let more = quantity.more_is_better();
    let all: Vec<&Row> = table.rows.iter().filter(|r| value(r).is_some()).collect();
    let (Some(own), Some(first)) = (best(&own, &value, more), best(&all, &value, more)) else { return };
    let (Some(a), Some(b)) = (value(own), value(first)) else { return };
    if a == b {
        return;
    }
    let text = |row: &Row| row.figure(column).map(|f| f.text.clone()).unwrap_or_default();
    let worst = all.iter().all(|r| value(r).is_some_and(|v| if more { v >= a } else { v <= a }));
    let place = if worst { ", the last of all" } else { "" };
    let times = if quantity == Quantity::Time { format!(" ({:.2} times)", a / b) } else { String::new() };
    let mut line = format!(
        "{} is recommended for {}, with {}{place}; {} has {}{times}",
        own.name,
        quantity.words(),
        text(own),
        first.name,
        text(first)
    );
    for other in all.iter().filter(|r| r.name != own.name) {
        let pairs: Vec<(f64, f64, bool)> = JUDGED
            .iter()
            .filter_map(|q| {
                let c = table.of(*q).first().copied()?;
                Some((other.figure(c)?.value(), own.figure(c)?.value(), q.more_is_better()))
            })
            .collect();
        if pairs.len() >= 2 && laws::dominates(&pairs) {
            line.push_str(&format!("; {} is at least as good in {} columns", other.name, pairs.len()));
        }
    }
    out.error([s.line, own.line_of(column), first.line_of(column)], line);
}

/// The row with the most, or the least.
fn best<'a>(rows: &[&'a Row], value: &dyn Fn(&Row) -> Option<f64>, more: bool) -> Option<&'a Row> {
    let sign = if more { 1.0 } else { -1.0 };
    let rank = |row: &Row| sign * value(row).unwrap_or(f64::NAN);
    rows.iter().copied().max_by(|a, b| rank(a).total_cmp(&rank(b)))
}

/// 28: a threshold is near some effect.
pub(crate) fn thresholds(reading: &Reading, out: &mut Findings) {
    for s in &reading.sentences {
        let Some(f) = s.figures.iter().find(|f| f.dimension == Dimension::Percent && f.open_above) else { continue };
        if !(s.lower.contains("baseline") && s.lower.contains("accuracy")) {
            continue;
        }
        for table in &reading.tables {
            let Some(column) = table.of(Quantity::Accuracy).first().copied() else { continue };
            let base = table.rows.iter().find(|r| r.name.to_lowercase().contains("baseline"));
            let Some(base) = base.and_then(|r| r.figure(column)) else { continue };
            let shares = table
                .rows
                .iter()
                .filter_map(|r| Some((100.0 * r.figure(column)?.value() / base.value(), r.line_of(column))));
            let least = shares.min_by(|a, b| a.0.total_cmp(&b.0));
            let Some((least, line)) = least else { continue };
            if laws::is_vacuous(100.0 - f.lo, 100.0 - least) {
                out.error(
                    [s.line, line],
                    format!(
                        "{} of the baseline is said, the least is {least:.2} %: the threshold separates nothing",
                        f.text
                    ),
                );
            }
        }
    }
}
