//! Bytes: what a label of bits allows, what training needs, what parts sum to, and formulas in the place of sizes.

use super::{lines_with, meet, of_training, short, values};
use crate::audit::Findings;
use crate::audit::figure::{Dimension, Figure};
use crate::audit::quantity::Quantity;
use crate::audit::reading::{Reading, Row, Table};
use crate::laws;

/// Bits beyond a label that scales, tables and a margin may take: a share, and a part of a bit.
const BEYOND: (f64, f64) = (1.25, 0.7);
/// Bits of the widest parameter that is stored.
const WIDEST: f64 = 32.0;

/// 16: size over parameters is what the label of bits says.
pub(crate) fn bits(reading: &Reading, out: &mut Findings) {
    for (id, name) in reading.names.all.iter().enumerate() {
        let Some(parameters) = reading.names.parameters_of(id) else { continue };
        for v in values(reading, id, Quantity::Memory).iter().filter(|v| !of_training(v)) {
            let found = laws::bits_per_weight(v.figure.value(), parameters.value);
            let lines = [v.line, parameters.line];
            let formula = format!("{} x 8 / {} = {} bits per parameter", v.figure.text, parameters.text, short(found));
            match &name.bits {
                Some(label) if found > label.value * BEYOND.0 + BEYOND.1 => out.error(
                    lines.into_iter().chain([label.line]),
                    format!("{}: labelled {}, but {formula}", name.text, label.text),
                ),
                Some(label) if found < label.value * 0.98 => out.error(
                    lines.into_iter().chain([label.line]),
                    format!("{}: labelled {}, but {formula}: less than its weights need", name.text, label.text),
                ),
                _ if found > 1.1 * WIDEST => out.warn(
                    lines,
                    format!("{}: {formula}, more than 32-bit floats: this is not the memory of weights", name.text),
                ),
                None if unlike(found) => out.notice(
                    lines,
                    format!("{}: {formula}; 16-bit floats would be {} bytes", name.text, short(2.0 * parameters.value)),
                ),
                _ => {}
            }
        }
    }
    for table in &reading.tables {
        no_scales(table, out);
    }
}

/// Near sixteen bits and not sixteen.
fn unlike(bits: f64) -> bool {
    (14.0..15.7).contains(&bits)
}

/// Layers and models stored in exactly the bits of their codes.
fn no_scales(table: &Table, out: &mut Findings) {
    let ([full, small], [reduction]) = (&table.of(Quantity::Memory)[..], &table.of(Quantity::Reduction)[..]) else {
        return;
    };
    let mut rows = Vec::new();
    for row in &table.rows {
        let (Some(a), Some(d), Some((weights, text))) = (row.figure(*full), row.figure(*reduction), row.parameters())
        else {
            return;
        };
        let bits = laws::bits_per_weight(a.value(), weights) * (1.0 - d.value() / 100.0);
        let least = row.figure(*small).map(|f| laws::bits_per_weight(f.interval().0, weights));
        rows.push((
            bits,
            least.unwrap_or(bits),
            weights,
            text,
            row.line_of(*reduction),
            row.name.contains(['\u{d7}', 'x']),
        ));
    }
    let nominal = laws::NOMINAL_BITS.iter().find(|n| rows.iter().all(|r| (r.0 - **n).abs() < 0.02 * **n));
    let Some(nominal) = nominal.filter(|_| rows.len() >= 3) else { return };
    // A matrix of n by n needs a scale in each of its rows.
    let honest = rows.iter().filter(|r| r.5).map(|r| {
        let with = nominal + 32.0 / r.2.sqrt();
        format!("{} with a scale per row {:.1} %", r.3, 100.0 * (1.0 - with / WIDEST))
    });
    let honest: Vec<String> = honest.collect();
    let honest = if honest.is_empty() { String::new() } else { format!("; {}", honest.join(", ")) };
    out.error(rows.iter().map(|r| r.4), format!(
        "exactly {nominal} bits per weight in all {} rows ({WIDEST} x (1 - {} %)): no byte for scales and biases{honest}",
        rows.len(), short(100.0 * (1.0 - nominal / WIDEST))
    ));
}

/// 17: the peak of training is above that of inference.
pub(crate) fn training(reading: &Reading, out: &mut Findings) {
    for (id, name) in reading.names.all.iter().enumerate() {
        let all: Vec<_> = values(reading, id, Quantity::Memory).into_iter().filter(|v| v.of_whole()).collect();
        let (train, infer): (Vec<_>, Vec<_>) = all.iter().partition(|v| of_training(v));
        for t in &train {
            let Some(i) = infer.iter().find(|i| i.figure.lo >= t.figure.hi) else { continue };
            let least = reading.names.parameters_of(id).map(|p| {
                format!(
                    "; full training with Adam needs {} bytes for each of {} parameters, {} bytes",
                    laws::TRAINING_BYTES,
                    p.text,
                    short(laws::TRAINING_BYTES * p.value)
                )
            });
            out.error(
                [t.line, i.line],
                format!(
                    "{}: {} in training, {} in inference: gradients and the state of the optimizer take no memory{}",
                    name.text,
                    t.figure.text,
                    i.figure.text,
                    least.unwrap_or_default()
                ),
            );
        }
    }
}

/// 15: shares of memory are of parts, sizes of one thing agree, and printed sizes are the sum of their parts.
pub(crate) fn ledger(reading: &Reading, out: &mut Findings) {
    let twice = sizes_of_one(reading, out);
    for table in &reading.tables {
        shares(table, &twice, out);
    }
    for ledger in &reading.facts.ledgers {
        let sum: f64 = ledger.parts.values().sum();
        let missing: f64 = ledger.missing.values().sum();
        for line in lines_with(reading, &ledger.at) {
            let Some(f) = bytes_of(reading, line) else { continue };
            let matches = |bytes: f64| in_units(f, bytes).is_some();
            if missing > 0.0 && matches(sum) {
                let names: Vec<&str> = ledger.missing.keys().map(String::as_str).collect();
                let unit = in_units(f, sum).unwrap_or((1.0, "bytes"));
                out.error(
                    [line],
                    format!(
                        "{} is {} without {} ({:.2} {}): with them it is {:.2} {}",
                        f.text,
                        parts(&ledger.parts, unit),
                        names.join(", "),
                        missing / unit.0,
                        unit.1,
                        (sum + missing) / unit.0,
                        unit.1
                    ),
                );
            } else if !matches(sum) {
                out.error([line], format!("{} is printed, its parts sum to {} bytes", f.text, short(sum)));
            }
        }
    }
}

fn parts(all: &std::collections::BTreeMap<String, f64>, unit: (f64, &str)) -> String {
    let each: Vec<String> = all.iter().map(|(name, bytes)| format!("{name} {:.2}", bytes / unit.0)).collect();
    format!("{} = {:.3} {}", each.join(" + "), all.values().sum::<f64>() / unit.0, unit.1)
}

/// The size that a line prints.
pub(super) fn bytes_of(reading: &Reading, line: usize) -> Option<&Figure> {
    let cells = reading.tables.iter().flat_map(|t| &t.rows).flat_map(|r| r.cells.iter().flatten());
    cells.filter(|c| c.line == line).flat_map(|c| &c.figures).find(|f| f.dimension == Dimension::Bytes)
}

/// The unit in which bytes round to what is printed: the decimal one, or the binary one that is often meant.
pub(super) fn in_units(f: &Figure, bytes: f64) -> Option<(f64, &'static str)> {
    const UNITS: &[(&str, f64, &str)] =
        &[("kB", 1e3, "KiB"), ("KB", 1e3, "KiB"), ("MB", 1e6, "MiB"), ("GB", 1e9, "GiB")];
    let (_, factor, binary) = UNITS.iter().find(|(name, ..)| *name == f.unit)?;
    let (printed, half) = (f.lo / factor, f.half / factor * 1.000_001);
    let kib = 1024f64.powf(factor.log10() / 3.0);
    if (bytes / factor - printed).abs() <= half {
        return Some((*factor, f.unit));
    }
    ((bytes / kib - printed).abs() <= half).then_some((kib, *binary))
}

/// Sizes under one title of models of one size, far apart: parameters, both sizes.
fn sizes_of_one(reading: &Reading, out: &mut Findings) -> Vec<(f64, f64, usize)> {
    let mut seen: Vec<(String, f64, &Figure, usize, &Table)> = Vec::new();
    let mut twice = Vec::new();
    let mut pairs: Vec<(usize, usize, String)> = Vec::new();
    for table in &reading.tables {
        let columns = table.of(Quantity::Memory);
        let Some(column) = columns.first().copied().filter(|_| columns.len() == 2) else { continue };
        for row in &table.rows {
            let (Some((weights, text)), Some(f)) = (row.parameters(), row.figure(column)) else { continue };
            let title = table.columns[column].title.to_lowercase();
            let other =
                seen.iter().find(|(t, w, _, _, from)| *t == title && *w == weights && !std::ptr::eq(*from, table));
            if let Some((_, _, theirs, line, _)) = other
                && f.value() > 1.5 * theirs.value()
            {
                let bits = laws::bits_per_weight(f.value(), weights);
                twice.push((theirs.value(), f.value(), row.line_of(column)));
                pairs.push((
                    *line,
                    row.line_of(column),
                    format!(
                        "{text} parameters: {} here, {} there ({} times), {} bits per parameter",
                        f.text,
                        theirs.text,
                        short(f.value() / theirs.value()),
                        short(bits)
                    ),
                ));
            }
            seen.push((title, weights, f, row.line_of(column), table));
        }
    }
    if !pairs.is_empty() {
        let texts: Vec<&str> = pairs.iter().map(|p| p.2.as_str()).collect();
        out.error(
            pairs.iter().flat_map(|p| [p.0, p.1]),
            format!("one column, two meanings of memory: {}", texts.join("; ")),
        );
    }
    twice
}

/// Lists of what memory is made of.
fn shares(table: &Table, twice: &[(f64, f64, usize)], out: &mut Findings) {
    let of_memory = |row: &Row| {
        let cells: Vec<_> = row.cells.iter().enumerate().filter_map(|(i, c)| Some((i, c.as_ref()?))).collect();
        let parts: Vec<_> = cells.into_iter().filter(|(_, c)| c.text.to_lowercase().contains("of memory")).collect();
        parts
            .iter()
            .filter_map(|(i, c)| {
                Some((*i, c.figure().filter(|f| f.dimension == Dimension::Percent)?.clone(), c.line, c.text.clone()))
            })
            .collect::<Vec<_>>()
    };
    for row in &table.rows {
        let parts = of_memory(row);
        if parts.len() < 2 {
            continue;
        }
        let sum: f64 = parts.iter().map(|p| p.1.lo).sum();
        let half: f64 = parts.iter().map(|p| p.1.half).sum();
        let saved = parts.iter().find(|p| p.3.to_lowercase().contains("saved"));
        if let Some((_, f, ..)) = saved {
            out.error(parts.iter().map(|p| p.2), format!(
                "{}: {} is listed among the parts of memory, but a saving is no allocation; without it they sum to {} %",
                row.name, f.text, short(sum - f.lo)
            ));
        } else if !meet((sum - half, sum + half), (100.0, 100.0)) {
            out.error(parts.iter().map(|p| p.2), format!("{}: the parts of memory sum to {} %", row.name, short(sum)));
        }
        let weights = parts.iter().find(|p| table.columns[p.0].title.to_lowercase().contains("weight"));
        if let (Some((_, f, line, _)), Some((file, peak, at))) = (weights, twice.first())
            && (100.0 * file / peak - f.lo).abs() > 10.0
            && saved.is_none()
        {
            out.error(
                [*line, *at],
                format!(
                    "{}: weights are said to be {} of memory, the tables give {} / {} = {:.1} %",
                    row.name,
                    f.text,
                    short(*file),
                    short(*peak),
                    100.0 * file / peak
                ),
            );
        }
    }
}

/// 18: sizes are not parameters times a constant, to the last digit of every row.
pub(crate) fn formula(reading: &Reading, out: &mut Findings) {
    for table in &reading.tables {
        let columns = table.of(Quantity::Memory);
        let mut exact = Vec::new();
        for column in &columns {
            let of = |row: &Row| Some((row.figure(*column)?.clone(), row.parameters()?.0, row.line_of(*column)));
            let rows: Vec<_> = table.rows.iter().filter_map(of).collect();
            let pairs: Vec<(f64, f64)> = rows.iter().map(|(f, p, _)| (f.value(), *p)).collect();
            let sizes = pairs.iter().fold((f64::MAX, 0.0f64), |(a, b), p| (a.min(p.1), b.max(p.1)));
            if rows.len() >= 3 && sizes.1 >= 100.0 * sizes.0 {
                exact.push((laws::constant_ratio(&pairs, 1e-9), rows));
            }
        }
        let [(Some(a), _), (Some(b), rows)] = &exact[..] else { continue };
        out.warn(rows.iter().map(|r| r.2), format!(
            "both sizes are parameters times a constant in all {} rows ({} and {} bytes each): formulas, not sizes of files",
            rows.len(), short(*a), short(*b)
        ));
    }
}
