//! Columns that follow from others: speed-ups, reductions, ratios, differences; and columns that follow too well.

use super::{Span, baseline, ends, meet, quotient, short, span};
use crate::audit::Findings;
use crate::audit::figure::{Dimension, Figure};
use crate::audit::quantity::Quantity;
use crate::audit::reading::{Reading, Row, Table};
use crate::laws;

/// 2: speed-ups, reductions, ratios, differences and efficiencies are those of the columns beside them.
pub(crate) fn recomputed(reading: &Reading, out: &mut Findings) {
    for table in &reading.tables {
        pairs(table, out);
        against_baseline(table, out);
        changes(table, out);
    }
    paired_speeds(reading, out);
}

/// How a column follows from two others.
struct Relation {
    derived: Quantity,
    raw: Quantity,
    words: &'static str,
    of: fn(Span, Span) -> Option<Span>,
}

/// Share that is saved, in percent.
fn saved(a: Span, b: Span) -> Option<Span> {
    quotient(b, a).map(|(lo, hi)| (100.0 * (1.0 - hi), 100.0 * (1.0 - lo)))
}

fn share(a: Span, b: Span) -> Option<Span> {
    quotient(a, b).map(|(lo, hi)| (100.0 * lo, 100.0 * hi))
}

fn less(a: Span, b: Span) -> Option<Span> {
    Some((b.0 - a.1, b.1 - a.0))
}

/// Relations between two columns of one quantity and a third.
const RELATIONS: &[Relation] = &[
    Relation { derived: Quantity::Speedup, raw: Quantity::Time, words: "a / b", of: quotient },
    Relation { derived: Quantity::Reduction, raw: Quantity::Memory, words: "1 - b / a", of: saved },
    Relation { derived: Quantity::Compression, raw: Quantity::Memory, words: "a / b", of: quotient },
    Relation { derived: Quantity::Overhead, raw: Quantity::Time, words: "a / b", of: share },
    Relation { derived: Quantity::Difference, raw: Quantity::Accuracy, words: "b - a", of: less },
    Relation { derived: Quantity::Difference, raw: Quantity::F1, words: "b - a", of: less },
    Relation { derived: Quantity::Difference, raw: Quantity::Loss, words: "b - a", of: less },
];

/// Rows with both raw columns and the derived one.
fn triples<'a>(table: &'a Table, relation: &Relation) -> Vec<(&'a Row, [&'a Figure; 3], usize)> {
    let derived = table.of(relation.derived);
    let ([a, b], [d]) = (&table.of(relation.raw)[..], &derived[..]) else { return Vec::new() };
    let apart = |i: usize| {
        let title = table.columns[i].title.to_lowercase();
        title.contains("train") || title.contains("load")
    };
    if relation.derived == Quantity::Speedup && apart(*a) != apart(*b) {
        return Vec::new();
    }
    let of = |row: &'a Row| Some((row, [row.figure(*a)?, row.figure(*b)?, row.figure(*d)?], row.line_of(*d)));
    table.rows.iter().filter_map(of).collect()
}

fn pairs(table: &Table, out: &mut Findings) {
    for relation in RELATIONS {
        let rows = triples(table, relation);
        let spans = |[a, b, d]: &[&Figure; 3], turned: bool| {
            let (a, b) = if turned { (b, a) } else { (a, b) };
            let found = (relation.of)(a.interval(), b.interval())?;
            let exact = (relation.of)(ends(a), ends(b))?;
            Some((meet(found, d.interval()), exact))
        };
        let right = |turned: bool| rows.iter().filter(|(_, f, _)| spans(f, turned).is_some_and(|s| s.0)).count();
        // The better column may stand first.
        let turned = right(true) > right(false);
        for (row, f, line) in &rows {
            let Some((false, exact)) = spans(f, turned) else { continue };
            let [a, b, d] = f;
            let (a, b) = if turned { (b, a) } else { (a, b) };
            out.error(
                [*line],
                format!(
                    "{}: {} is printed, {} of a = {} and b = {} is {}",
                    row.name,
                    d.text,
                    relation.words,
                    a.text,
                    b.text,
                    span(exact)
                ),
            );
        }
    }
}

/// Derived columns whose second value stands in the row of the baseline.
fn against_baseline(table: &Table, out: &mut Findings) {
    const ONE: &[(Quantity, Quantity, f64)] = &[
        (Quantity::Compression, Quantity::Memory, 1.0),
        (Quantity::Reduction, Quantity::Memory, 0.0),
        (Quantity::Speedup, Quantity::Time, 1.0),
    ];
    for (derived, raw, unit) in ONE {
        let ([d], [raw]) = (&table.of(*derived)[..], &table.of(*raw)[..]) else { continue };
        let Some(base) = baseline(table, *d, *unit) else { continue };
        let Some(from) = table.rows[base].figure(*raw) else { continue };
        for (i, row) in table.rows.iter().enumerate().filter(|(i, _)| *i != base) {
            let (Some(printed), Some(own)) = (row.figure(*d), row.figure(*raw)) else { continue };
            let of = if *derived == Quantity::Reduction { saved } else { quotient };
            let (Some(found), Some(exact)) = (of(from.interval(), own.interval()), of(ends(from), ends(own))) else {
                continue;
            };
            if !meet(found, printed.interval()) {
                let name = &table.rows[i].name;
                out.error(
                    [row.line_of(*d)],
                    format!(
                        "{name}: {} is printed, {} against {} of {} gives {}",
                        printed.text,
                        own.text,
                        from.text,
                        table.rows[base].name,
                        span(exact)
                    ),
                );
            }
        }
    }
    let ([rate], [power], [efficiency]) =
        (&table.of(Quantity::Throughput)[..], &table.of(Quantity::Power)[..], &table.of(Quantity::Efficiency)[..])
    else {
        return;
    };
    for row in &table.rows {
        let (Some(r), Some(p), Some(e)) = (row.figure(*rate), row.figure(*power), row.figure(*efficiency)) else {
            continue;
        };
        let Some(found) = quotient(r.interval(), p.interval()).zip(quotient(ends(r), ends(p))) else { continue };
        let zeros = if p.open_above { (0.0, found.0.1) } else { found.0 };
        if !meet(zeros, e.interval()) {
            let text = format!("{}: {} is printed, {} / {} is {}", row.name, e.text, r.text, p.text, span(found.1));
            out.error([row.line_of(*efficiency)], text);
        }
    }
}

/// `94.54% (\u{394} -0.08%)`: the change is against the row whose change is 0.
fn changes(table: &Table, out: &mut Findings) {
    for column in 0..table.columns.len() {
        let pair = |row: &Row| {
            let cell = row.cell(column).filter(|c| c.text.contains('\u{394}'))?;
            match cell.figures.as_slice() {
                [value, change] => Some((value.clone(), change.clone(), cell.line)),
                _ => None,
            }
        };
        let all: Vec<_> = table.rows.iter().filter_map(|row| Some((row, pair(row)?))).collect();
        let Some((_, (base, ..))) = all.iter().find(|(_, (_, change, _))| change.lo == 0.0) else { continue };
        for (row, (value, change, line)) in &all {
            let found = value.lo - base.lo;
            if (found - change.lo).abs() > value.half + base.half + change.half + 1e-9 {
                let text = format!(
                    "{}: change {} is printed, {} - {} is {}",
                    row.name,
                    change.text,
                    value.text,
                    base.text,
                    short(found)
                );
                out.error([*line], text);
            }
        }
    }
}

/// Times faster in one table, times in another, of the same two rows.
fn paired_speeds(reading: &Reading, out: &mut Findings) {
    let with = |q: Quantity, d: Dimension| {
        reading.tables.iter().filter_map(move |t| {
            let column = t.of(q).into_iter().rfind(|i| t.columns[*i].dimension == Some(d))?;
            (t.rows.len() == 2).then_some((t, column))
        })
    };
    for (a, speed) in with(Quantity::Speedup, Dimension::Times).filter(|(t, _)| t.of(Quantity::Time).is_empty()) {
        for (b, time) in with(Quantity::Time, Dimension::Seconds) {
            if a.rows.iter().zip(&b.rows).any(|(x, y)| x.name != y.name) {
                continue;
            }
            let of = |t: &Table, c: usize, i: usize| t.rows[i].figure(c).map(|f| (f.interval(), f.text.clone()));
            let (Some(s0), Some(s1)) = (of(a, speed, 0), of(a, speed, 1)) else { continue };
            let (Some(t0), Some(t1)) = (of(b, time, 0), of(b, time, 1)) else { continue };
            let (Some(by_speed), Some(by_time)) = (quotient(s0.0, s1.0), quotient(t1.0, t0.0)) else { continue };
            if !meet(by_speed, by_time) {
                out.warn(
                    [a.rows[0].line, a.rows[1].line, b.rows[0].line, b.rows[1].line],
                    format!(
                        "{} against {}: {} / {} is {}, but the times {} / {} give {}",
                        a.rows[0].name,
                        a.rows[1].name,
                        s0.1,
                        s1.1,
                        span(by_speed),
                        t1.1,
                        t0.1,
                        span(by_time)
                    ),
                );
            }
        }
    }
}

/// Rows of one ratio before it is suspicious.
const ROWS: usize = 4;
/// Share of rows in which one value is the other divided by a constant.
const SHARE: f64 = 0.6;

/// 20: no column is another divided by a constant.
pub(crate) fn constant(reading: &Reading, out: &mut Findings) {
    let relation = &RELATIONS[0];
    let rows: Vec<_> = reading.tables.iter().flat_map(|t| triples(t, relation)).collect();
    let ratio = |f: &[&Figure; 3]| f[2].text.clone();
    let same = |text: &String| rows.iter().filter(|(_, f, _)| ratio(f) == *text).count();
    let most = rows.iter().map(|(_, f, _)| (ratio(f), f[2].value())).max_by_key(|(text, _)| same(text));
    if let Some((text, by)) = most.filter(|(text, by)| same(text) >= ROWS && *by != 1.0) {
        let exact = |f: &[&Figure; 3]| (f[0].lo / by - f[1].lo).abs() <= f[1].half * 1.000_001;
        let divided: Vec<_> = rows.iter().filter(|(_, f, _)| exact(f)).collect();
        let sizes = rows.iter().map(|(_, f, _)| f[0].lo).fold((f64::MAX, 0.0f64), |(a, b), v| (a.min(v), b.max(v)));
        if divided.len() as f64 > SHARE * rows.len() as f64 && sizes.1 >= 2.0 * sizes.0 {
            out.error(divided.iter().map(|(.., line)| *line), format!(
                "{text} in {} of {} rows, over times from {} to {} s; in {} of them the second time is the first divided by {by} and rounded: \
                 computed, not measured",
                same(&text), rows.len(), short(sizes.0), short(sizes.1), divided.len()
            ));
        }
    }
    for table in &reading.tables {
        constant_reduction(table, out);
        proportional(table, out);
    }
}

/// One reduction over layers and models of very different sizes.
fn constant_reduction(table: &Table, out: &mut Findings) {
    let ([d], Some(raw)) = (&table.of(Quantity::Reduction)[..], table.of(Quantity::Memory).first().copied()) else {
        return;
    };
    let rows: Vec<_> =
        table.rows.iter().filter_map(|r| Some((r.figure(raw)?.lo, r.figure(*d)?, r.line_of(*d)))).collect();
    let first = rows.first().map(|(_, f, _)| f.text.clone());
    let equal = rows.iter().all(|(_, f, _)| Some(&f.text) == first.as_ref() && f.digits >= 3);
    let sizes = rows.iter().fold((f64::MAX, 0.0f64), |(a, b), (v, ..)| (a.min(*v), b.max(*v)));
    if rows.len() >= ROWS && equal && sizes.1 >= 100.0 * sizes.0 {
        out.warn(
            rows.iter().map(|r| r.2),
            format!(
                "a reduction of {} in all {} rows, from {} to {} bytes: scales and biases do not shrink in one ratio",
                first.unwrap_or_default(),
                rows.len(),
                short(sizes.0),
                short(sizes.1)
            ),
        );
    }
}

/// Peaks of memory in one ratio to the parameters.
fn proportional(table: &Table, out: &mut Findings) {
    if !table.title.to_lowercase().contains("peak") {
        return;
    }
    let Some(column) = table.of(Quantity::Memory).first().copied() else { return };
    let rows: Vec<_> =
        table.rows.iter().filter_map(|r| Some((r.figure(column)?, r.parameters()?, r.line_of(column)))).collect();
    let pairs: Vec<(f64, f64)> = rows.iter().map(|(f, (p, _), _)| (f.value(), *p)).collect();
    let spread = pairs.last().zip(pairs.first()).is_some_and(|(a, b)| a.1 >= 10.0 * b.1);
    if let Some(ratio) = laws::constant_ratio(&pairs, 1e-6).filter(|_| rows.len() >= 3 && spread) {
        out.error(rows.iter().map(|r| r.2), format!(
            "the peak is {} bytes for every parameter in all {} rows: activations do not grow with parameters, so it is computed",
            short(ratio), rows.len()
        ));
    }
}

/// Throughputs in a table by batch size: whether there is such a column.
fn by_batch(table: &Table, rate: usize, time: usize, out: &mut Findings) -> bool {
    let is_batch = |title: &str| ["batch", "batch size"].contains(&title.trim().to_lowercase().as_str());
    let Some(batch) = table.columns.iter().position(|c| is_batch(&c.title)) else { return false };
    let of = |row: &'_ Row| {
        let (r, t, b) = (row.figure(rate)?.clone(), row.figure(time)?.clone(), row.figure(batch)?.lo);
        let rounding = r.half / r.value() + t.half / t.value();
        let equal = laws::is_inverse(r.value(), t.value(), b, INVERSE + rounding);
        (r.value() > 0.0 && t.value() > 0.0).then(|| (equal, b, r, t, row.line_of(rate)))
    };
    let rows: Vec<_> = table.rows.iter().filter_map(of).collect();
    let equal = rows.iter().filter(|r| r.0).count();
    if rows.len() >= 2 && equal == rows.len() {
        let text = format!("throughput is the batch over the latency in all {equal} rows: not a second measurement");
        out.error(rows.iter().map(|r| r.4), text);
    } else if equal >= 2 && 2 * equal > rows.len() {
        for (_, b, r, t, line) in rows.iter().filter(|r| !r.0) {
            let right = short(b / t.value());
            out.error(
                [*line],
                format!("{} is printed, a batch of {b} in {} gives {right}; {equal} other rows follow", r.text, t.text),
            );
        }
    }
    true
}

/// Relative distance at which a product of throughput and latency counts as the number of examples.
const INVERSE: f64 = 0.002;

/// 25: throughput is not one over the latency in every row.
pub(crate) fn throughput(reading: &Reading, out: &mut Findings) {
    for table in &reading.tables {
        let ([rate], [time]) = (&table.of(Quantity::Throughput)[..], &table.of(Quantity::Time)[..]) else { continue };
        if by_batch(table, *rate, *time, out) {
            continue;
        }
        let of = |row: &Row| Some((row.figure(*rate)?.value(), row.figure(*time)?.value(), row.line_of(*rate)));
        let rows: Vec<_> = table.rows.iter().filter_map(of).filter(|(r, t, _)| *r > 0.0 && *t > 0.0).collect();
        let product = rows.first().map(|(r, t, _)| (r * t).round()).filter(|n| *n >= 1.0).unwrap_or(1.0);
        let all = rows.len() >= 2 && rows.iter().all(|(r, t, _)| laws::is_inverse(*r, *t, product, INVERSE));
        if all {
            let products: Vec<String> = rows.iter().map(|(r, t, _)| format!("{:.4}", r * t)).collect();
            out.error(rows.iter().map(|r| r.2), format!(
                "throughput times latency is {} in all {} rows: {product} over the latency, not a second measurement",
                products.join(", "), rows.len()
            ));
        }
    }
}
