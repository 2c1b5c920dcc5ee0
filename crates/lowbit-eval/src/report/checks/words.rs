//! Checks of the report itself: sentences, cells, bars, placeholders.

use super::super::compare::{Comparison, WITHIN};
use super::super::document::{Block, Cell, Document, MISSING, Table};
use super::super::measures::title;
use super::super::number::numerals;
use super::super::query::mark;
use super::super::sentence::{ClaimKind, Sentence, SentencePart};
use super::super::{charts::Chart, json, markdown};
use super::{Case, Outcome, Tally};
use crate::laws::{self, PLACEHOLDERS, negative_zero};
use crate::record::{How, Record, Results};
use std::collections::HashMap;

/// Words of comparison that only a claim may print.
const COMPARISONS: &[&str] = &[
    "best",
    "better",
    "worse",
    "worst",
    "fastest",
    "faster",
    "slower",
    "slowest",
    "smallest",
    "smaller",
    "largest",
    "lowest",
    "highest",
    "outperforms",
    "superior",
    "saves",
    "savings",
    "dominated",
    "impressive",
    "excellent",
];

/// What follows a number in a claim.
const CLAIM_UNITS: &[&str] = &["%", "\u{d7}", "x", "times", "points", "percent", "MB", "kB", "GB", "ms", "MiB"];

/// Every sentence with the task it is about.
fn sentences<'a>(case: &'a Case) -> Vec<(&'a Comparison<'a>, &'a Sentence)> {
    let mut out = Vec::new();
    let tasks: HashMap<&str, &Comparison> = case.tasks.iter().map(|c| (c.task, c)).collect();
    for block in case.document.blocks() {
        match block {
            Block::Findings(list) | Block::Headline(list) => {
                out.extend(list.iter().filter_map(|f| Some((*tasks.get(f.task.as_str())?, &f.sentence))));
            }
            Block::Choices(choices) => {
                let of = |(task, sentence): &'a (String, Sentence)| Some((*tasks.get(task.as_str())?, sentence));
                out.extend(choices.sentences.iter().filter_map(of));
            }
            _ => {}
        }
    }
    out
}

/// Remarks of the makers of records.
fn remarks(results: &Results) -> impl Iterator<Item = (String, String)> {
    let of = |r: &'_ Record| [r.detail.note.clone(), r.detail.about.clone()];
    results
        .records
        .iter()
        .flat_map(move |r| of(r).into_iter().flatten().map(|text| (format!("remark of {}", r.model), text)))
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).map(str::to_lowercase)
}

/// A number with a unit of claims behind it.
fn free_number(text: &str) -> Option<String> {
    numerals(text).into_iter().find(|n| {
        text.match_indices(n.as_str()).any(|(i, _)| {
            let rest = text[i + n.len()..].trim_start_matches([' ', '\u{a0}']);
            CLAIM_UNITS.iter().any(|u| {
                rest.strip_prefix(u).is_some_and(|after| !after.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
            })
        })
    })
}

/// 1: every printed number comes from a query that gives it again, and every record says how it was made.
pub(crate) fn single_source(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    let (tool, host) = (&case.results.tool, &case.results.host);
    let provenance = [
        ("program version", &tool.version),
        ("commit", &tool.commit),
        ("processor", &host.cpu),
        ("instruction set", &host.isa),
    ];
    for (what, value) in provenance {
        tally.expect(!value.trim().is_empty(), || format!("the {what} is not recorded"));
    }
    tally.expect(!case.results.command.is_empty(), || "the command is not recorded".into());
    for (record, name, m) in case.measures() {
        tally.expect(m.n > 0 && !m.unit.is_empty(), || {
            format!("{}: {name} {} has no observations or no unit", record.model, m.value)
        });
    }
    let abouts = case.results.tasks.iter().map(|t| (format!("sentence about {}", t.task), t.about.clone()));
    for (what, text) in remarks(case.results).chain(abouts) {
        let free = free_number(&text);
        tally.expect(free.is_none(), || format!("{what}: the number {} has no record", free.unwrap_or_default()));
    }
    for (c, sentence) in sentences(case) {
        sourced(c, sentence, &mut tally);
    }
    tally.outcome("no records")
}

fn sourced(c: &Comparison, sentence: &Sentence, tally: &mut Tally) {
    let mut allowed: Vec<String> = Vec::new();
    for part in &sentence.parts {
        match part {
            SentencePart::Figure(figure) => {
                let again = c.again(figure);
                let same = again.as_ref().is_some_and(|a| a.value == figure.value && a.text == figure.text);
                tally.expect(same, || {
                    let found = again.map_or(MISSING.to_string(), |a| a.text);
                    format!("{} is printed as {}, the records give {found}", figure.origin(), figure.text)
                });
                allowed.extend(numerals(&figure.text));
            }
            SentencePart::Name(name) => {
                let exists = c.row(name).is_some() || c.task == name;
                tally.expect(exists, || format!("{name} is named, but has no record"));
                allowed.extend(numerals(name));
            }
            SentencePart::Text(_) | SentencePart::Claim(_) => {}
        }
    }
    for numeral in numerals(&sentence.to_string()) {
        tally.expect(allowed.contains(&numeral), || format!("the number {numeral} has no query: {sentence}"));
    }
}

/// 3: the predicate of every claim is true, and no comparison is made outside a claim.
pub(crate) fn claims(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    for (c, sentence) in sentences(case) {
        for part in &sentence.parts {
            match part {
                SentencePart::Claim(claim) => tally.expect(claim.holds(c), || {
                    format!("\"{}\" is not true of {}: {sentence}", claim.kind.words(), claim.subject)
                }),
                SentencePart::Text(text) => {
                    let free = words(text).find(|w| COMPARISONS.contains(&w.as_str()));
                    tally.expect(free.is_none(), || format!("\"{}\" without a query", free.unwrap_or_default()));
                }
                _ => {}
            }
        }
    }
    for (what, text) in remarks(case.results) {
        let free = words(&text).find(|w| COMPARISONS.contains(&w.as_str()));
        tally.expect(free.is_none(), || format!("{what}: \"{}\" without a query", free.unwrap_or_default()));
    }
    tally.outcome("no sentences")
}

/// 26: no recommended variant is dominated by another of its task.
pub(crate) fn recommendations(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    for finding in case.document.findings() {
        let Some(name) = finding.recommends() else {
            continue;
        };
        let Some(c) = case.tasks.iter().find(|c| c.task == finding.task) else {
            continue;
        };
        let row = c.row(name);
        let by = row.and_then(|r| r.dominated_by);
        tally.expect(row.is_some() && by.is_none(), || {
            format!(
                "{name} is recommended, but {} is at least as good in everything",
                by.unwrap_or("nobody of that name")
            )
        });
    }
    tally.outcome("nothing is recommended")
}

/// The lines of a table by the text of their first cell.
fn lines(table: &Table) -> HashMap<&str, &Vec<Cell>> {
    table.rows.iter().rev().filter_map(|line| Some((line.first()?.text.as_str(), line))).collect()
}

/// 27: wherever a change in points is printed for a variant, its relative and its error-rate change are too.
pub(crate) fn three_changes(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    let columns = ["Change, points", "Relative change", "Error-rate change"];
    let places = |t: &Table| columns.iter().map(|c| t.head.iter().position(|h| h == c)).collect::<Option<Vec<_>>>();
    let tables: Vec<_> = case.document.tables().filter_map(|t| Some((places(t)?, lines(t)))).collect();
    for row in case.tasks.iter().flat_map(|c| &c.rows) {
        let Some(change) = &row.change else { continue };
        let expected = [true, change.relative.is_some(), change.error_rate.is_some()];
        let together = tables.iter().any(|(places, lines)| {
            let line = lines.get(row.name());
            line.is_some_and(|l| places.iter().zip(expected).all(|(p, expected)| !expected || !l[*p].missing))
        });
        tally.expect(together, || {
            format!("{}: points, relative and error-rate change are not side by side", row.name())
        });
    }
    tally.outcome("no changes against a reference")
}

/// 28: "within a point" is said only where some variant's gap is at least a fifth of it.
pub(crate) fn thresholds(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    for (c, sentence) in sentences(case) {
        let within = sentence.parts.iter().find_map(|p| match p {
            SentencePart::Claim(c)
                if matches!(c.kind, ClaimKind::SmallestWithin | ClaimKind::FastestWithin | ClaimKind::LeastWithin) =>
            {
                Some(c)
            }
            _ => None,
        });
        if within.is_some() {
            let gap = c.widest_gap().unwrap_or(0.0);
            tally.expect(!laws::is_vacuous(WITHIN, gap), || format!("every variant is within {gap}: {sentence}"));
        }
    }
    tally.outcome("no threshold is named")
}

/// 34: estimated and published values are marked in their cells.
pub(crate) fn marks(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    let tables: Vec<_> = case.document.tables().map(|t| (&t.head, lines(t))).collect();
    for (record, name, m) in case.measures().filter(|(_, _, m)| m.how != How::Measured) {
        let (column, word) = (title(name), mark(m.how).unwrap_or_default());
        for (head, lines) in &tables {
            let cell = head.iter().position(|h| *h == column).zip(lines.get(record.model.as_str()));
            let Some(cell) = cell.map(|(place, line)| &line[place]) else {
                continue;
            };
            tally.expect(cell.note.contains(word), || {
                format!("{}: {name} {} is {word}, but not marked", record.model, cell.text)
            });
        }
    }
    tally.outcome("every measure was measured")
}

/// 35: no placeholder, no value that is no number, no negative zero, anywhere in the text.
pub(crate) fn placeholders(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    for line in readable(case.document).lines() {
        let found = PLACEHOLDERS.iter().find(|p| line.contains(**p)).map(|p| p.to_string());
        let found = found.or_else(|| {
            line.split([' ', '|', ',']).find(|w| ["inf", "-inf", "\u{2212}inf"].contains(w)).map(Into::into)
        });
        let found = found.or_else(|| negative_zero(line));
        tally.expect(found.is_none(), || format!("\"{}\" in: {}", found.unwrap_or_default(), line.trim()));
    }
    for (record, name, m) in case.measures() {
        tally.expect(m.value.is_finite(), || format!("{}: {name} is {}", record.model, m.value));
    }
    tally.outcome("no text")
}

/// All text a reader sees: the Markdown and the words inside the plots.
fn readable(document: &Document) -> String {
    let mut out = markdown::render(document);
    for block in document.blocks() {
        let Block::Charts(charts) = block else {
            continue;
        };
        for svg in charts.iter().flat_map(|c| [&c.wide, &c.narrow]) {
            for text in svg.split("</text>").filter_map(|s| Some(s.rsplit_once('>')?.1)) {
                out.push_str(text);
                out.push('\n');
            }
        }
    }
    out
}

/// 36: in every plot with bars, length over value is one constant and all rows start at the same place.
pub(crate) fn bars(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    for block in case.document.blocks() {
        let Block::Charts(charts) = block else {
            continue;
        };
        for chart in charts {
            [&chart.wide, &chart.narrow].into_iter().for_each(|svg| proportional(chart, svg, &mut tally));
        }
    }
    tally.outcome("no bars")
}

fn proportional(chart: &Chart, svg: &str, tally: &mut Tally) {
    let attribute = |tag: &str, name: &str| -> Option<f64> {
        let start = tag.find(&format!(" {name}=\""))? + name.len() + 3;
        tag[start..].split('"').next()?.parse().ok()
    };
    let all: Vec<[f64; 4]> = svg
        .split("<rect class=\"bar ")
        .skip(1)
        .filter_map(|tag| {
            let tag = tag.split('>').next()?;
            Some([attribute(tag, "x")?, attribute(tag, "y")?, attribute(tag, "width")?, attribute(tag, "data-value")?])
        })
        .collect();
    let start = all.iter().map(|b| b[0]).fold(f64::INFINITY, f64::min);
    let scale = all.iter().map(|b| b[2]).sum::<f64>() / all.iter().map(|b| b[3]).sum::<f64>();
    for bar in &all {
        tally.expect((bar[2] - bar[3] * scale).abs() <= 0.01, || {
            format!(
                "{}: the bar of {} is {} pixels long, {:.3} would be right",
                chart.title,
                bar[3],
                bar[2],
                bar[3] * scale
            )
        });
        let first = all.iter().filter(|b| b[1] == bar[1]).map(|b| b[0]).fold(f64::INFINITY, f64::min);
        tally.expect((first - start).abs() <= 0.05, || {
            format!("{}: a bar starts at {first}, not at {start}", chart.title)
        });
    }
}

/// Quantities that cannot be zero when they were measured.
const POSITIVE: &[&str] = &["bytes", "seconds", "per_second", "joules"];

/// 39: no empty cell, no dash, no zero in place of what is unknown.
pub(crate) fn unknowns(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    for table in case.document.tables() {
        for line in &table.rows {
            for (cell, head) in line.iter().zip(&table.head) {
                let blank = cell.text.chars().all(|c| c.is_whitespace() || "-\u{2013}\u{2014}?".contains(c));
                let unknown = ["n/a", "N/A", "NA", "none", "null"].contains(&cell.text.as_str());
                tally.expect(!cell.number || !(blank || unknown), || {
                    let name = line.first().map_or("", |c| c.text.as_str());
                    format!("{name}: {head} is printed as \"{}\" instead of \"{MISSING}\"", cell.text)
                });
            }
        }
    }
    for (record, name, m) in case.measures() {
        tally.expect(m.value != 0.0 || !POSITIVE.contains(&m.unit.as_str()), || {
            format!("{}: {name} is 0 {}; what was not measured must be absent", record.model, m.unit)
        });
    }
    tally.outcome("no cells")
}

/// 40: the records as embedded in the page are the records.
pub(crate) fn embedded(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    for (what, text) in
        [("embedded records", json::embedded(case.results)), ("results.json", json::pretty(case.results))]
    {
        let again = serde_json::from_str::<Results>(&text);
        tally.expect(again.is_ok_and(|r| r == *case.results), || format!("the {what} do not read back as the records"));
    }
    tally.outcome("no records")
}
