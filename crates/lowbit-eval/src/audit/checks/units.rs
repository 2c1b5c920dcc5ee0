//! Units, placeholders, bars and repeated digits.

use super::memory::{bytes_of, in_units};
use super::{lines_with, short};
use crate::audit::Findings;
use crate::audit::figure::{Dimension, Figure};
use crate::audit::quantity::{self, Quantity};
use crate::audit::reading::{Reading, Row, Table};
use crate::laws;

/// 4: percent are no points, MB no MiB, watts no joules, and a column has one unit.
pub(crate) fn units(reading: &Reading, out: &mut Findings) {
    points(reading, out);
    binary(reading, out);
    for table in &reading.tables {
        per_watt(table, out);
        mixed(table, out);
    }
}

/// "only 1.75 % accuracy drop" where that is the difference of two percentages.
fn points(reading: &Reading, out: &mut Findings) {
    const CHANGE: &[&str] = &["drop", "loss", "decrease", "lower", "gain", "improvement", "degradation"];
    for sentence in reading.sentences.iter().filter(|s| s.has(CHANGE) && s.lower.contains("accura")) {
        let Some(f) = sentence.figures.iter().find(|f| f.dimension == Dimension::Percent && f.decimals > 0) else {
            continue;
        };
        let subject = reading.names.mentions(&sentence.text).into_iter().find(|m| m.ids.len() == 1);
        let Some(subject) = subject.map(|m| m.ids[0]) else { continue };
        for table in reading.near(sentence.section, |t| !t.of(Quantity::Accuracy).is_empty()) {
            let column = table.of(Quantity::Accuracy)[0];
            let rows = || table.rows.iter().filter_map(|r| Some((r, r.figure(column)?)));
            let Some((own, a)) = rows().find(|(r, _)| reading.names.id(&r.name) == Some(subject)) else { continue };
            let gap = |b: &Figure| (b.lo - a.lo).abs();
            let Some((other, b)) = rows().find(|(r, b)| r.name != own.name && (gap(b) - f.lo.abs()).abs() <= f.half)
            else {
                continue;
            };
            let relative = 100.0 * gap(b) / b.lo;
            if (relative - f.lo.abs()).abs() <= f.half {
                continue;
            }
            let errors = 100.0 * ((100.0 - a.lo) / (100.0 - b.lo) - 1.0);
            let all: Vec<f64> = rows().map(|(_, f)| f.lo).collect();
            let most = all.iter().fold(f64::MIN, |m, v| m.max(*v)) - all.iter().fold(f64::MAX, |m, v| m.min(*v));
            let largest = if (most - gap(b)).abs() < 1e-9 { "; it is the largest gap of the table" } else { "" };
            out.error([sentence.line, own.line, other.line], format!(
                "{} are percentage points ({} - {}); the relative change is {relative:.2} %, that of the errors {errors:+.1} %{largest}",
                f.text, b.text, a.text
            ));
        }
    }
}

/// A size in MB that is one in MiB.
fn binary(reading: &Reading, out: &mut Findings) {
    for ledger in &reading.facts.ledgers {
        let bytes: f64 = ledger.parts.values().sum();
        for line in lines_with(reading, &ledger.at) {
            let Some(f) = bytes_of(reading, line) else { continue };
            let Some((factor, unit)) = in_units(f, bytes).filter(|(_, unit)| *unit != f.unit) else { continue };
            out.error(
                [line],
                format!(
                    "{} are {unit}: {bytes} bytes / {factor} = {:.4} {unit}, or {:.2} {}",
                    f.text,
                    bytes / factor,
                    bytes / decimal(f),
                    f.unit
                ),
            );
        }
    }
}

/// Bytes of the unit as printed.
fn decimal(f: &Figure) -> f64 {
    crate::audit::figure::unit(f.unit).map_or(1.0, |u| u.factor)
}

/// Tokens per watt are tokens per second and watt.
fn per_watt(table: &Table, out: &mut Findings) {
    for column in table.of(Quantity::Efficiency) {
        if table.columns[column].title.to_lowercase().contains("watt") {
            let lines = table.rows.iter().map(|row| row.line_of(column));
            let text = "tokens per watt is no unit: tokens/s / W are tokens per joule";
            out.warn(lines, text.into());
        }
    }
}

/// Columns whose numbers have unlike units.
fn mixed(table: &Table, out: &mut Findings) {
    for (i, column) in table.columns.iter().enumerate().skip(1) {
        let typed = |row: &Row| {
            let f = row.figure(i)?;
            let measured =
                !matches!(f.dimension, Dimension::Plain | Dimension::Count | Dimension::Shape | Dimension::Score);
            measured.then(|| (f.dimension, f.text.clone(), row.line_of(i)))
        };
        let all: Vec<_> = table.rows.iter().filter_map(typed).collect();
        let Some(first) = all.first() else { continue };
        // A title that names no quantity promises no unit.
        if quantity::of_column(&column.title, None, "").is_some_and(|q| q != Quantity::Device)
            && let Some(other) = all.iter().find(|a| a.0 != first.0)
        {
            out.warn([first.2, other.2], format!("{}: {} and {} stand in one column", column.title, first.1, other.1));
        }
    }
}

/// 35: no placeholder and no negative zero.
pub(crate) fn placeholders(reading: &Reading, out: &mut Findings) {
    for (i, line) in reading.lines.iter().enumerate() {
        let word = |p: &&&str| {
            line.match_indices(**p).any(|(at, found)| {
                let joined = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
                // "no placeholder" promises that there is none.
                let denied = line[..at].to_lowercase().ends_with("no ");
                !denied && !joined(line[..at].chars().next_back()) && !joined(line[at + found.len()..].chars().next())
            })
        };
        let found = laws::PLACEHOLDERS.iter().filter(|p| **p != "{}").find(word).map(|p| (*p).to_string());
        if let Some(found) = found {
            out.error([i + 1], format!("\"{found}\" stands for something that was never filled in"));
        }
        if let Some(zero) = laws::negative_zero(line).filter(|z| z.contains('.')) {
            out.error([i + 1], format!("\"{zero}\": a zero has no sign; what rounds to it is no change"));
        }
    }
}

/// Characters that bars are drawn with.
const BLOCK: char = '\u{2588}';

/// 36: bars are as long as their values.
pub(crate) fn bars(reading: &Reading, out: &mut Findings) {
    let bar = |(i, line): (usize, &String)| {
        let length = line.chars().filter(|c| *c == BLOCK).count();
        let end = line.rfind(BLOCK)? + BLOCK.len_utf8();
        let value = crate::audit::figure::figures(&line[end..]).into_iter().next();
        let value = value.filter(|f| {
            matches!(f.dimension, Dimension::Score | Dimension::Plain | Dimension::Percent) && f.start < 12
        });
        Some((i + 1, length, value))
    };
    let all: Vec<_> = reading.lines.iter().enumerate().filter_map(bar).collect();
    // Bars that follow each other are one plot.
    let mut plots: Vec<Vec<(usize, usize, Option<Figure>)>> = Vec::new();
    for bar in all {
        match plots.last_mut().filter(|p| p.last().is_some_and(|b| bar.0 <= b.0 + 1)) {
            Some(plot) => plot.push(bar),
            None => plots.push(vec![bar]),
        }
    }
    for plot in plots.iter().filter(|p| p.len() >= 2) {
        let lines = plot.iter().map(|b| b.0);
        let valued: Vec<(usize, f64)> = plot.iter().filter_map(|b| Some((b.1, b.2.as_ref()?.value()))).collect();
        if valued.len() < plot.len() {
            out.warn(lines, format!("{} bars without a value behind them", plot.len() - valued.len()));
            continue;
        }
        let scale = valued.iter().map(|v| v.0 as f64).sum::<f64>() / valued.iter().map(|v| v.1).sum::<f64>();
        // A bar of whole blocks is off by one half at most.
        let Some((length, value)) = valued.iter().find(|(n, v)| (*n as f64 - v * scale).abs() > 0.75) else { continue };
        out.error(
            lines,
            format!(
                "bars are not proportional: {length} blocks for {}, {:.1} would be right",
                short(*value),
                value * scale
            ),
        );
    }
}

/// Digits from which on a repetition is no chance, in a report of few numbers.
const DIGITS: usize = 4;
/// Repetitions that chance may bring in a report.
const CHANCE: f64 = 0.1;

/// A number of several digits in a cell: its text, digits that tell something, unit, line and place.
struct Printed {
    number: String,
    digits: usize,
    dimension: Dimension,
    line: usize,
    place: String,
}

impl Printed {
    fn of(table: &Table, row: &Row, column: usize) -> Option<Self> {
        let f = row.figure(column).filter(|f| f.decimals > 0 && !f.is_range() && f.dimension != Dimension::Plain)?;
        let number: String = f.text.chars().take_while(|c| c.is_ascii_digit() || ".,".contains(*c)).collect();
        // 400.0 says no more than 4.
        let digits =
            number.trim_end_matches('0').chars().filter(char::is_ascii_digit).skip_while(|c| *c == '0').count();
        let place = format!("{} {} of {}", f.text, table.columns[column].title, row.name);
        Some(Printed { number, digits, dimension: f.dimension, line: row.line_of(column), place })
    }
}

/// 37: no value of four digits in two unrelated cells; of more digits where there are many values.
pub(crate) fn digits(reading: &Reading, out: &mut Findings) {
    let cells = reading.tables.iter().flat_map(|t| t.rows.iter().map(move |r| (t, r)));
    let cells = cells.flat_map(|(t, r)| (1..t.columns.len()).filter_map(move |c| Printed::of(t, r, c)));
    let all: Vec<Printed> = cells.filter(|p| p.digits >= DIGITS).collect();
    let unlike = |p: &Printed| all.iter().filter(|other| other.dimension != p.dimension).count();
    let pairs = 0.5 * all.iter().map(unlike).sum::<usize>() as f64;
    let chance = |digits: usize| pairs / (9.0 * 10f64.powi(digits as i32 - 1));
    let least = (DIGITS..).find(|digits| chance(*digits) < CHANCE).unwrap_or(DIGITS);
    for (i, p) in all.iter().enumerate().filter(|(_, p)| p.digits >= least) {
        let twin = all[..i].iter().find(|other| other.number == p.number && other.dimension != p.dimension);
        if let Some(other) = twin {
            out.notice(
                [other.line, p.line],
                format!("{} and {}: the same digits in unrelated cells", other.place, p.place),
            );
        }
    }
}
