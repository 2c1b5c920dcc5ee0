//! What is compared with what: devices, names, samples, projections, sources.

use super::{lines_with, short};
use crate::audit::Findings;
use crate::audit::figure::{Dimension, figures};
use crate::audit::quantity::Quantity;
use crate::audit::reading::{Reading, Row, Table};
use std::collections::BTreeSet;

/// 23: rows of one table share what they run on, and a gain is credited to what differs.
pub(crate) fn compared(reading: &Reading, out: &mut Findings) {
    for table in &reading.tables {
        devices(table, out);
        credited(table, out);
    }
    twins(reading, out);
    per_parameter(reading, out);
}

fn devices(table: &Table, out: &mut Findings) {
    let Some(device) = table.of(Quantity::Device).first().copied() else { return };
    let texts: BTreeSet<&str> = table.rows.iter().filter_map(|r| Some(r.cell(device)?.text.as_str())).collect();
    let measured = [Quantity::Throughput, Quantity::Time, Quantity::Power];
    let columns: Vec<usize> = measured.iter().flat_map(|q| table.of(*q)).collect();
    let loads = |c: &usize| table.columns[*c].title.to_lowercase().contains("load");
    let sizes: BTreeSet<u64> = table.rows.iter().filter_map(|r| Some(r.parameters()?.0 as u64)).collect();
    // A table by device is what it says, as long as one model runs on all.
    let mixes = if device == 0 { sizes.len() > 1 } else { table.rows.len() > 2 };
    let columns: Vec<usize> = columns.into_iter().filter(|c| !loads(c)).collect();
    if texts.len() < 2 || columns.is_empty() || !mixes {
        return;
    }
    let lines = table.rows.iter().flat_map(|r| columns.iter().map(move |c| r.line_of(*c)));
    let titles: Vec<&str> = columns.iter().map(|c| table.columns[*c].title.as_str()).collect();
    let devices: Vec<&str> = texts.into_iter().collect();
    out.warn(
        lines,
        format!("{} compare {}: rows of unlike hardware have no ratio", titles.join(", "), devices.join(", ")),
    );
}

/// A row with small weights and the speed of large ones.
fn credited(table: &Table, out: &mut Findings) {
    let ([speed], [saved]) = (&table.of(Quantity::Speedup)[..], &table.of(Quantity::Reduction)[..]) else { return };
    for row in &table.rows {
        let (Some(s), Some(m)) = (row.figure(*speed), row.figure(*saved)) else { continue };
        if s.lo == 1.0 && m.lo > 50.0 && table.rows.len() > 1 {
            let other = table.rows.iter().filter_map(|r| r.figure(*speed)).map(|f| f.lo).fold(1.0, f64::max);
            out.warn(
                [row.line_of(*speed)],
                format!(
                    "{}: {} faster with {} less memory, so small weights gain no time; all of {other}x comes from {}",
                    row.name,
                    s.text,
                    m.text,
                    table.columns[0].title.to_lowercase()
                ),
            );
        }
    }
}

/// Equal rows of figures in two tables that vary different things.
fn twins(reading: &Reading, out: &mut Findings) {
    let figures = |row: &Row| {
        row.cells.iter().skip(1).flatten().flat_map(|c| &c.figures).map(|f| f.text.clone()).collect::<Vec<_>>()
    };
    for (i, a) in reading.tables.iter().enumerate() {
        for b in &reading.tables[i + 1..] {
            let differ = a.columns.first().zip(b.columns.first()).is_some_and(|(x, y)| x.title != y.title);
            if !differ || a.rows.len() > 4 || b.rows.len() > 4 {
                continue;
            }
            let score =
                |row: &Row| a.of(Quantity::Accuracy).first().and_then(|c| row.figure(*c)).map(|f| f.text.clone());
            let scored =
                |row: &Row| b.of(Quantity::Accuracy).first().and_then(|c| row.figure(*c)).map(|f| f.text.clone());
            let pairs: Vec<(&Row, &Row)> = a
                .rows
                .iter()
                .flat_map(|x| b.rows.iter().map(move |y| (x, y)))
                .filter(|(x, y)| score(x).is_some() && score(x) == scored(y) && x.name != y.name)
                .collect();
            if pairs.len() >= 2 && pairs.len() == a.rows.len() {
                let each: Vec<String> = pairs
                    .iter()
                    .map(|(x, y)| {
                        format!("{} ({}) and {} ({})", x.name, figures(x).join(", "), y.name, figures(y).join(", "))
                    })
                    .collect();
                out.error(
                    pairs.iter().flat_map(|(x, y)| [x.line, y.line]),
                    format!(
                        "one pair of accuracies is credited to {} and to {}: {}",
                        a.columns[0].title,
                        b.columns[0].title,
                        each.join("; ")
                    ),
                );
            }
        }
    }
}

/// How far times of as many parameters may lie apart.
const APART: f64 = 2.0;

/// Times of as many parameters in several tables.
fn per_parameter(reading: &Reading, out: &mut Findings) {
    let mut seen: Vec<(f64, f64, String, usize)> = Vec::new();
    for table in &reading.tables {
        let times = table.of(Quantity::Time);
        let (Some(time), false) =
            (times.first().copied().filter(|_| times.len() == 2), table.of(Quantity::Speedup).is_empty())
        else {
            continue;
        };
        for row in &table.rows {
            let (Some((weights, _)), Some(f)) = (row.parameters(), row.figure(time)) else { continue };
            seen.push((weights, f.value(), row.name.clone(), row.line_of(time)));
        }
    }
    for (i, a) in seen.iter().enumerate() {
        let Some(b) = seen[i + 1..].iter().find(|b| b.0 == a.0 && (b.1 / a.1).max(a.1 / b.1) > APART) else { continue };
        out.notice(
            [a.3, b.3],
            format!(
                "{} takes {} ns per parameter, {} {} with as many parameters: batch and depth are not stated",
                a.2,
                short(1e9 * a.1 / a.0),
                b.2,
                short(1e9 * b.1 / b.0)
            ),
        );
        return;
    }
}

/// 13: all of a test set is scored, or the sample is said.
pub(crate) fn coverage(reading: &Reading, out: &mut Findings) {
    for s in &reading.facts.samples {
        let lines = lines_with(reading, &s.at);
        if !lines.is_empty() && s.scored < s.of {
            out.error(
                lines,
                format!(
                    "{} of {} {} were scored, {:.4} %, and nothing says that it is a sample: {}",
                    s.scored,
                    s.of,
                    s.unit,
                    100.0 * s.scored / s.of,
                    s.source
                ),
            );
        }
    }
}

/// 29: a name has one size, and a quantity of it one value.
pub(crate) fn identity(reading: &Reading, out: &mut Findings) {
    let known: Vec<_> = reading.names.all.iter().filter_map(|n| n.parameters.as_ref().map(|p| (n, p))).collect();
    for (i, line) in reading.plain.iter().enumerate() {
        for f in figures(line).iter().filter(|f| f.dimension == Dimension::Count) {
            let (before, after) = (line.get(..f.start).unwrap_or_default(), line.get(f.end..).unwrap_or_default());
            let definite = before.trim_end().ends_with("the")
                && (after.trim_start().starts_with("one") || after.trim_start().starts_with("model"));
            let near = |value: f64| (f.value() / value - 1.0).abs() < 0.1;
            if definite && !known.is_empty() && !known.iter().any(|(_, p)| near(p.value)) {
                let sizes: Vec<String> = known.iter().map(|(n, p)| format!("{} {}", n.text, p.text)).collect();
                let lines = known.iter().map(|(_, p)| p.line).chain([i + 1]);
                out.error(lines, format!("\"the {}\" is none of the models: {}", f.text, sizes.join(", ")));
            }
        }
    }
    twice(reading, out);
}

/// One quantity of one name with two values.
fn twice(reading: &Reading, out: &mut Findings) {
    for id in 0..reading.names.all.len() {
        for quantity in [Quantity::Cost, Quantity::Power, Quantity::Throughput, Quantity::Memory] {
            let all = super::values(reading, id, quantity);
            let plain: Vec<_> = all
                .iter()
                .filter(|v| {
                    let first = v.table.of(quantity).first() == Some(&v.column);
                    let text = v.row.cell(v.column).map(|c| c.text.to_lowercase()).unwrap_or_default();
                    first
                        && !["per gpu", "per core", "each", "\u{d7} thousands"].iter().any(|w| text.contains(w))
                        && !super::of_training(v)
                })
                .collect();
            for (i, a) in plain.iter().enumerate() {
                let differs = |b: &&&super::Value| {
                    let unlike_table = !std::ptr::eq(a.table, b.table);
                    let unlike = a.figure.lo != b.figure.lo || a.figure.hi != b.figure.hi;
                    let one = a.figure.dimension == b.figure.dimension && (a.figure.is_range() || b.figure.is_range());
                    unlike_table && unlike && one && !a.figure.open_above && !b.figure.open_above
                };
                let Some(b) = plain[i + 1..].iter().find(differs) else { continue };
                out.error(
                    [a.line, b.line],
                    format!(
                        "{}: {} is {} here and {} there",
                        reading.names.all[id].text,
                        quantity.words(),
                        a.figure.text,
                        b.figure.text
                    ),
                );
            }
        }
    }
}

/// 30: nobody proposes more bits as a saving for what has fewer.
pub(crate) fn method(reading: &Reading, out: &mut Findings) {
    for s in &reading.sentences {
        let Some(f) = s.figures.iter().find(|f| f.dimension == Dimension::Bits && f.text.contains("-bit")) else {
            continue;
        };
        if !s.has(&["investigate", "explore", "try", "test", "consider", "future"]) {
            continue;
        }
        for mention in reading.names.mentions(&s.text).iter().filter(|m| m.start >= f.end && m.ids.len() == 1) {
            let name = &reading.names.all[mention.ids[0]];
            let Some(bits) = name.bits.as_ref().filter(|b| b.value <= f.lo) else { continue };
            out.warn(
                [s.line, bits.line],
                format!("{} is proposed for {}, which is labelled {}", f.text, name.text, bits.text),
            );
        }
    }
}

/// 34: what was not measured yet holds no numbers.
pub(crate) fn projections(reading: &Reading, out: &mut Findings) {
    for table in &reading.tables {
        let near = table.title.to_lowercase();
        let near = near.rsplit(" / ").next().unwrap_or_default();
        let figures: usize =
            table.rows.iter().flat_map(|r| r.cells.iter().skip(1).flatten()).map(|c| c.figures.len()).sum();
        let future =
            ["(future)", "(planned)", "(projected)", "coming soon", "to be measured"].iter().any(|w| near.contains(w));
        if future && figures > 0 {
            let line = table.section.map_or(table.line, |s| reading.sections[s].line);
            let rows = table.rows.iter().map(|r| r.line);
            out.error(
                rows.chain([line]),
                format!("a table of the future holds {figures} numbers as if they were measured"),
            );
        }
    }
}

/// Published reductions of energy that are often copied: bitnet.cpp, arXiv 2410.16144, against llama.cpp FP16 of the same model.
const COPIED: &[(f64, &str)] = &[(71.9, "lower"), (82.2, "upper"), (55.4, "lower"), (70.0, "upper")];

/// 38: what is quoted has a source.
pub(crate) fn citations(reading: &Reading, out: &mut Findings) {
    for s in reading.sentences.iter().filter(|s| s.lower.contains("energy")) {
        for f in s.figures.iter().filter(|f| f.dimension == Dimension::Percent && f.decimals == 1) {
            let Some((value, end)) = COPIED.iter().find(|(value, _)| *value == f.lo) else { continue };
            if !["arxiv", "bitnet.cpp", "source", "http"].iter().any(|w| s.lower.contains(w)) {
                out.warn([s.line], format!(
                    "{value} % is the {end} bound of bitnet.cpp's published range (arXiv 2410.16144), against FP16 of the same model: it is quoted without \
                     its source"
                ));
            }
        }
    }
    let cited = reading.says(&["arxiv", "http://", "https://", "doi.org", "et al"]);
    for s in &reading.sentences {
        let refers =
            ["original paper", "the paper", "as published", "reported in the"].iter().any(|w| s.lower.contains(w));
        if refers && s.figures.is_empty() && !cited && s.has(&["compare", "results", "those reported"]) {
            out.notice([s.line], "a comparison with a publication without a value, a setting or a source".into());
        }
    }
    others(reading, cited, out);
}

/// Services whose figures nobody outside can measure.
const SERVICES: &[&str] = &["gpt-4", "claude", "gemini"];

fn others(reading: &Reading, cited: bool, out: &mut Findings) {
    let of_service = |row: &&Row| SERVICES.iter().any(|s| row.name.to_lowercase().contains(s));
    let rows = reading.tables.iter().flat_map(|t| &t.rows).filter(of_service);
    let lines: Vec<usize> =
        rows.flat_map(|r| r.cells.iter().skip(1).flatten().filter(|c| !c.figures.is_empty()).map(|c| c.line)).collect();
    if !cited && !lines.is_empty() {
        out.warn(lines, "figures of a service, which only its maker can measure, without a source".into());
    }
}
