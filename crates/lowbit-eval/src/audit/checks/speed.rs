//! Rates, devices, energy, cost, and figures of competitors.

use super::{Span, ends, quotient, short, span, values};
use crate::audit::Findings;
use crate::audit::figure::{Dimension, Figure, figures};
use crate::audit::quantity::Quantity;
use crate::audit::reading::{Reading, Row, Table, contains_word};
use crate::laws;

/// What a device has by its maker's data sheet: memory, bandwidth and power.
struct Device {
    name: &'static str,
    gigabytes: f64,
    gigabytes_per_second: f64,
    watts: f64,
}

const DEVICES: &[Device] = &[
    Device { name: "a100 80gb", gigabytes: 80.0, gigabytes_per_second: 2039.0, watts: 400.0 },
    Device { name: "a100", gigabytes: 80.0, gigabytes_per_second: 2039.0, watts: 400.0 },
    Device { name: "h100", gigabytes: 80.0, gigabytes_per_second: 3350.0, watts: 700.0 },
    Device { name: "rtx 4090", gigabytes: 24.0, gigabytes_per_second: 1008.0, watts: 450.0 },
    Device { name: "rtx 3090", gigabytes: 24.0, gigabytes_per_second: 936.0, watts: 350.0 },
];

/// So many devices that a text names, one entry for each alternative.
fn devices(text: &str) -> Vec<(f64, &'static Device)> {
    let lower = text.to_lowercase();
    if lower.contains("cluster") || lower.contains("thousands") {
        return Vec::new();
    }
    lower
        .split(" or ")
        .filter_map(|part| {
            let device = DEVICES.iter().find(|d| part.contains(d.name))?;
            let before = &part[..part.find(device.name)?];
            let count = figures(before)
                .last()
                .filter(|f| matches!(f.dimension, Dimension::Plain | Dimension::Times))
                .map_or(1.0, |f| f.lo);
            Some((count, device))
        })
        .collect()
}

/// Bytes per second below which reading a file is no measurement of a storage.
const SLOWEST: f64 = 1e7;
/// How many times faster a model of the same family may read its weights on like hardware.
const JUMP: f64 = 2.0;

/// 21: weights fit the devices named, and no rate is above their bandwidth.
pub(crate) fn roofline(reading: &Reading, out: &mut Findings) {
    for table in &reading.tables {
        for row in &table.rows {
            fits(table, row, out);
        }
        loading(table, out);
    }
    families(reading, out);
}

fn fits(table: &Table, row: &Row, out: &mut Findings) {
    let device = table.of(Quantity::Device).into_iter().find_map(|c| row.cell(c));
    let Some(device) = device else { return };
    let cell = |q: Quantity| table.of(q).into_iter().find_map(|c| Some((row.figure(c)?, row.line_of(c))));
    let alternatives = devices(&device.text);
    let (Some((memory, at)), false) = (cell(Quantity::Memory), alternatives.is_empty()) else { return };
    let room = |(n, d): &(f64, &Device)| format!("{n} x {} GB = {} GB", d.gigabytes, n * d.gigabytes);
    if alternatives.iter().all(|(n, d)| memory.lo > n * d.gigabytes * 1e9) {
        let rooms: Vec<String> = alternatives.iter().map(room).collect();
        out.error([device.line, at], format!("{}: {} fit none of {}", row.name, memory.text, rooms.join(", ")));
    }
    if let Some((rate, line)) = cell(Quantity::Throughput) {
        let limit = |(n, d): &(f64, &Device)| n * d.gigabytes_per_second * 1e9 / memory.lo;
        let most = alternatives.iter().map(limit).fold(0.0, f64::max);
        if laws::bytes_per_second(rate.hi, memory.lo) > most * memory.lo {
            let limits: Vec<String> = alternatives
                .iter()
                .map(|a| format!("{} x {} GB/s / {} = {}", a.0, a.1.gigabytes_per_second, memory.text, short(limit(a))))
                .collect();
            out.error(
                [device.line, at, line],
                format!(
                    "{}: {} is above what the memory delivers: {} tokens/s",
                    row.name,
                    rate.text,
                    limits.join(", ")
                ),
            );
        }
    }
    if let Some((power, line)) = cell(Quantity::Power)
        && let Some((n, d)) = alternatives.iter().find(|(n, d)| n * d.watts > power.hi)
    {
        out.warn(
            [device.line, line],
            format!("{}: {n} x {} W = {} W, {} is stated", row.name, d.watts, n * d.watts, power.text),
        );
    }
}

/// Times of loading against the bytes that are loaded.
fn loading(table: &Table, out: &mut Findings) {
    let loads = |c: &usize| table.columns[*c].title.to_lowercase().contains("load");
    let (Some(time), Some(size)) =
        (table.of(Quantity::Time).into_iter().find(loads), table.of(Quantity::Memory).last().copied())
    else {
        return;
    };
    let of = |row: &Row| Some((row.figure(size)?.lo / row.figure(time)?.hi, row.line_of(time)));
    let rates: Vec<(f64, usize)> = table.rows.iter().filter_map(of).collect();
    let slow: Vec<&(f64, usize)> = rates.iter().filter(|r| r.0 < SLOWEST).collect();
    if slow.len() >= 2 {
        let (lo, hi) = slow.iter().fold((f64::MAX, 0.0f64), |(a, b), r| (a.min(r.0), b.max(r.0)));
        out.warn(
            slow.iter().map(|r| r.1),
            format!(
                "loading reads {} bytes per second: no storage is so slow, so something else is timed",
                span((lo, hi))
            ),
        );
    }
}

/// Parameters read per second by models of one family.
fn families(reading: &Reading, out: &mut Findings) {
    // Lines such as "X 7B on a laptop: 40-60 tokens/sec" that are no names of rows.
    for table in &reading.tables {
        for (c, column) in table.columns.iter().enumerate().filter(|(_, c)| c.quantity == Some(Quantity::Throughput)) {
            let Some(size) = figures(&column.title).into_iter().find(|f| f.dimension == Dimension::Count) else {
                continue;
            };
            let family = column.title.split([' ', '-']).next().unwrap_or_default().to_lowercase();
            let Some((f, line)) = table.rows.iter().find_map(|r| Some((r.figure(c)?, r.line_of(c)))) else { continue };
            let relative = reading.names.all.iter().enumerate().find_map(|(id, n)| {
                let alike = n.text.to_lowercase().split([' ', '-']).next() == Some(family.as_str());
                let rate = values(reading, id, Quantity::Throughput).into_iter().next().filter(|_| alike)?;
                Some((n.text.clone(), n.parameters.as_ref()?.value, rate.figure.hi, rate.line))
            });
            let Some((name, parameters, rate, at)) = relative else { continue };
            let (own, theirs) = ((f.lo * size.value(), f.hi * size.value()), parameters * rate);
            let like = column.title.to_lowercase().contains("laptop");
            if like && own.0 > JUMP * theirs {
                out.warn([line, at], format!(
                    "{}: {} read {} parameters per second, {name} at its best {}: {} times as many on like hardware, unexplained",
                    column.title, f.text, span(own), short(theirs), span((own.0 / theirs, own.1 / theirs))
                ));
            }
        }
    }
}

/// 22: power times time is the energy, and a bound of a data sheet is no measurement.
pub(crate) fn energy(reading: &Reading, out: &mut Findings) {
    for table in &reading.tables {
        let (power, time, energy) = (table.of(Quantity::Power), table.of(Quantity::Time), table.of(Quantity::Energy));
        if let ([p], [t], [e]) = (&power[..], &time[..], &energy[..]) {
            for row in &table.rows {
                let (Some(p), Some(t), Some(found)) = (row.figure(*p), row.figure(*t), row.figure(*e)) else {
                    continue;
                };
                let product = (p.interval().0 * t.interval().0 * 0.95, p.interval().1 * t.interval().1 * 1.05);
                if !super::meet(product, found.interval()) {
                    out.error(
                        [row.line_of(*e)],
                        format!(
                            "{}: {} x {} = {} J, {} is printed",
                            row.name,
                            p.text,
                            t.text,
                            short(p.value() * t.value()),
                            found.text
                        ),
                    );
                }
            }
        }
        for column in power {
            for cell in table.rows.iter().filter_map(|r| r.cell(column)) {
                if contains_word(&cell.text.to_lowercase(), "tdp") {
                    out.warn(
                        [cell.line],
                        format!("{}: a thermal limit of the data sheet, not a measured power", cell.text),
                    );
                }
            }
        }
    }
    let claims: Vec<usize> = reading
        .sentences
        .iter()
        .filter(|s| s.lower.contains("energy-efficient") || s.lower.contains("energy efficient"))
        .map(|s| s.line)
        .collect();
    let stated = reading.tables.iter().any(|t| !t.of(Quantity::Energy).is_empty());
    if claims.is_empty() || stated {
        return;
    }
    for table in reading.tables.iter().filter(|t| !t.of(Quantity::Power).is_empty() && !t.of(Quantity::Time).is_empty())
    {
        let (p, t) = (table.of(Quantity::Power)[0], table.of(Quantity::Time)[0]);
        let of = |row: &Row| {
            Some(format!("{} {} Wh", row.name, short(row.figure(p)?.value() * row.figure(t)?.value() / 3600.0)))
        };
        let each: Vec<String> = table.rows.iter().filter_map(of).collect();
        let lines = claims.iter().copied().chain(table.rows.iter().map(|r| r.line));
        out.warn(lines, format!("energy is claimed and never computed; power x time gives {}", each.join(", ")));
    }
}

/// 19: repeated runs come with their spread.
pub(crate) fn runs(reading: &Reading, out: &mut Findings) {
    const SPREAD: &[&str] = &[
        "\u{b1}",
        "+/-",
        "standard deviation",
        "std",
        "stddev",
        "percentile",
        "p90",
        "p95",
        "p99",
        "interval",
        "median",
        "variance",
    ];
    if reading.says(SPREAD) {
        return;
    }
    for s in &reading.sentences {
        let found = s.figures.iter().find(|f| {
            f.dimension == Dimension::Plain
                && f.lo >= 2.0
                && ["runs", "repetitions", "iterations", "trials"]
                    .iter()
                    .any(|w| s.lower.get(f.end..).is_some_and(|rest| rest.trim_start().starts_with(w)))
        });
        if let Some(f) = found {
            out.warn(
                [s.line],
                format!("{} runs, and no spread of them: no minimum, maximum or deviation anywhere", f.text),
            );
        }
    }
}

/// Dollars of a kilowatt hour where the facts say nothing.
const TARIFF: f64 = 0.15;

/// 33: a cost of nothing counts no energy.
pub(crate) fn costs(reading: &Reading, out: &mut Findings) {
    let tariff = reading.facts.tariff.unwrap_or(TARIFF);
    for table in &reading.tables {
        let ([cost], [rate], [power]) =
            (&table.of(Quantity::Cost)[..], &table.of(Quantity::Throughput)[..], &table.of(Quantity::Power)[..])
        else {
            continue;
        };
        let free = |row: &Row| {
            let zero = row.figure(*cost).is_some_and(|f| f.dimension == Dimension::Dollars && f.hi == 0.0);
            let joules = quotient(ends(row.figure(*power)?), ends(row.figure(*rate)?))?;
            zero.then(|| (row.name.clone(), joules, row.line_of(*cost)))
        };
        let all: Vec<(String, Span, usize)> = table.rows.iter().filter_map(free).collect();
        if all.is_empty() {
            continue;
        }
        let each: Vec<String> = all
            .iter()
            .map(|(name, joules, _)| {
                let kwh = (joules.0 / 3.6, joules.1 / 3.6);
                let price = (laws::price_of_million(joules.0, tariff), laws::price_of_million(joules.1, tariff));
                format!("{name} {} kWh = ${}", span(kwh), span(price))
            })
            .collect();
        let zero = |f: &Figure| f.dimension == Dimension::Dollars && f.hi == 0.0;
        let said =
            reading.sentences.iter().filter(|s| s.figures.iter().any(zero) || s.lower.contains("zero ongoing cost"));
        let lines: Vec<usize> = all.iter().map(|a| a.2).chain(said.map(|s| s.line)).collect();
        out.error(
            lines,
            format!(
                "$0 counts neither energy nor hardware; at ${tariff} per kWh a million tokens take {}",
                each.join(", ")
            ),
        );
    }
}

/// 42: reading a prompt is not as fast as writing, to the last digit.
pub(crate) fn prefill(reading: &Reading, out: &mut Findings) {
    for table in &reading.tables {
        let with = |words: &[&str]| {
            let fits = |c: &usize| words.iter().any(|w| contains_word(&table.columns[*c].title.to_lowercase(), w));
            table.of(Quantity::Throughput).into_iter().find(fits)
        };
        let (Some(p), Some(d)) = (with(&["prefill", "prompt", "pp"]), with(&["decode", "generation", "tg"])) else {
            continue;
        };
        let equal = |row: &&Row| {
            let pair = row.figure(p).zip(row.figure(d));
            pair.is_some_and(|(a, b)| a.digits >= 2 && a.lo == b.lo && a.hi == b.hi)
        };
        let rows: Vec<&Row> = table.rows.iter().filter(equal).collect();
        if let Some(first) = rows.first() {
            let names: Vec<&str> = rows.iter().map(|r| r.name.as_str()).collect();
            let value = first.figure(p).map(|f| f.text.clone()).unwrap_or_default();
            out.warn(rows.iter().map(|r| r.line_of(p)), format!(
                "{}: prefill and decode are both {value}; a batch of tokens shares each read of the weights, so one of them was not measured",
                names.join(", ")
            ));
        }
    }
}

/// 43: one thread is not as fast as many, to the last digit.
pub(crate) fn threads(reading: &Reading, out: &mut Findings) {
    for table in &reading.tables {
        let count = |c: usize| {
            let title = table.columns[c].title.to_lowercase();
            let f = figures(&title).into_iter().find(|f| f.dimension == Dimension::Plain)?;
            title[f.end..].trim_start().trim_start_matches('-').starts_with("thread").then_some(f.lo)
        };
        let columns: Vec<(usize, f64)> = (0..table.columns.len()).filter_map(|c| Some((c, count(c)?))).collect();
        let ends =
            columns.iter().min_by(|a, b| a.1.total_cmp(&b.1)).zip(columns.iter().max_by(|a, b| a.1.total_cmp(&b.1)));
        if let Some((few, many)) = ends.filter(|(few, many)| many.1 >= 4.0 * few.1) {
            for row in &table.rows {
                let Some((a, b)) = row.figure(few.0).zip(row.figure(many.0)) else { continue };
                same(&row.name, row.line, (few.1, a), (many.1, b), out);
            }
        }
        let Some(column) = table.columns.iter().position(|c| c.title.to_lowercase().trim() == "threads") else {
            continue;
        };
        let measured = (0..table.columns.len())
            .filter(|c| matches!(table.columns[*c].quantity, Some(Quantity::Throughput | Quantity::Time)));
        for value in measured {
            let of = |row: &'_ Row| Some((row.figure(column)?.lo, row.figure(value)?.clone(), row.line));
            let rows: Vec<_> = table.rows.iter().filter_map(|r| Some((&r.name, of(r)?))).collect();
            for (i, (name, few)) in rows.iter().enumerate() {
                let by_threads = column == 0;
                let other = rows[i + 1..].iter().find(|(n, many)| (by_threads || n == name) && many.0 >= 4.0 * few.0);
                if let Some((_, many)) = other {
                    same(name, many.2, (few.0, &few.1), (many.0, &many.1), out);
                }
            }
        }
    }
}

fn same(name: &str, line: usize, few: (f64, &Figure), many: (f64, &Figure), out: &mut Findings) {
    if few.1.digits >= 2 && few.1.lo == many.1.lo && few.1.hi == many.1.hi {
        out.warn(
            [line],
            format!(
                "{name}: {} with {} threads and with {}: the number of threads was not used",
                few.1.text, few.0, many.0
            ),
        );
    }
}

/// 44: a competitor is not slower here than it published for a weaker machine.
pub(crate) fn competitors(reading: &Reading, out: &mut Findings) {
    for anchor in reading.facts.anchors.iter().filter(|a| a.weaker_machine) {
        for table in &reading.tables {
            let Some(column) = table.columns.iter().position(|c| c.title.eq_ignore_ascii_case(&anchor.column)) else {
                continue;
            };
            let more = table.columns[column].quantity.is_some_and(Quantity::more_is_better);
            let factor = table.columns[column].unit.map_or(1.0, |u| u.factor);
            for row in table.rows.iter().filter(|r| r.name.eq_ignore_ascii_case(&anchor.row)) {
                let Some(f) = row.figure(column) else { continue };
                let published = anchor.value * factor;
                let worse = if more { f.hi < published } else { f.lo > published };
                if worse {
                    out.warn(
                        [row.line_of(column)],
                        format!(
                            "{}: {} here, {} published for a weaker machine: {}",
                            row.name, f.text, anchor.value, anchor.source
                        ),
                    );
                }
            }
        }
    }
}
