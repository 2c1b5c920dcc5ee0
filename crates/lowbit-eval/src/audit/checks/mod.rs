//! Checks of printed text. Each reads what was recognised and says, with the arithmetic, what does not fit.

pub(crate) mod accuracy;
pub(crate) mod claims;
pub(crate) mod derived;
pub(crate) mod language;
pub(crate) mod memory;
pub(crate) mod scope;
pub(crate) mod speed;
pub(crate) mod units;

use super::Findings;
use super::figure::{Dimension, Figure, figures};
use super::quantity::Quantity;
use super::reading::{Reading, Row, Table};

/// Everything that a value may be, by its rounding and range.
pub(crate) type Span = (f64, f64);

/// The quotient of two positive spans.
fn quotient(a: Span, b: Span) -> Option<Span> {
    (a.0 >= 0.0 && b.0 > 0.0).then(|| (a.0 / b.1, a.1 / b.0))
}

/// Whether two spans have a value in common.
fn meet(a: Span, b: Span) -> bool {
    let slack = 1e-9 * a.1.abs().max(b.1.abs());
    a.0 <= b.1 + slack && b.0 <= a.1 + slack
}

/// Both ends as printed, without what rounding may add.
fn ends(f: &Figure) -> Span {
    (f.lo, f.hi)
}

/// A round number such as 700 or 3000 stands for its first digits.
fn rounded(f: &Figure) -> Span {
    let zeros = f.text.chars().filter(char::is_ascii_digit).collect::<String>();
    let zeros = zeros.len() - zeros.trim_end_matches('0').len();
    let half = if f.decimals == 0 && zeros >= 2 { f.half * 10f64.powi(zeros as i32) } else { f.half };
    (f.lo - half, f.hi + half)
}

/// Three significant digits.
fn short(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    if !(1e-4..1e7).contains(&size) {
        return format!("{value:.2e}");
    }
    let decimals = (2.0 - size.log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{value:.decimals$}")
}

/// `14.3 to 46.7`, or one number.
fn span(s: Span) -> String {
    if short(s.0) == short(s.1) { short(s.0) } else { format!("{} to {}", short(s.0), short(s.1)) }
}

/// The row that the others are measured against: that with `unit` in a column, else by its name.
fn baseline(table: &Table, column: usize, unit: f64) -> Option<usize> {
    let is = |row: &Row| row.figure(column).is_some_and(|f| (f.lo - unit).abs() < 1e-12 && !f.is_range());
    let by_value: Vec<usize> = (0..table.rows.len()).filter(|i| is(&table.rows[*i])).collect();
    if by_value.len() == 1 {
        return by_value.first().copied();
    }
    let says = |row: &Row| {
        let cell = row.cell(column).map(|c| c.text.to_lowercase()).unwrap_or_default();
        cell.contains("reference") || row.name.to_lowercase().contains("baseline")
    };
    let by_name: Vec<usize> = (0..table.rows.len()).filter(|i| says(&table.rows[*i])).collect();
    if by_name.len() == 1 { by_name.first().copied() } else { None }
}

/// A name's figures of a quantity, each with its table, row and line.
struct Value<'a> {
    table: &'a Table,
    row: &'a Row,
    column: usize,
    figure: &'a Figure,
    line: usize,
}

fn values<'a>(reading: &'a Reading, id: usize, quantity: Quantity) -> Vec<Value<'a>> {
    let mut out = Vec::new();
    for table in &reading.tables {
        for column in table.of(quantity) {
            for row in table.rows.iter().filter(|row| reading.names.id(&row.name) == Some(id)) {
                let figure =
                    row.figure(column).filter(|f| f.dimension != Dimension::Plain || quantity != Quantity::Memory);
                if let Some(figure) = figure {
                    out.push(Value { table, row, column, figure, line: row.line_of(column) });
                }
            }
        }
    }
    out
}

/// Whether a value is of training: its column says so, or the heading of a table with one such column.
fn of_training(value: &Value) -> bool {
    let quantity = value.table.columns[value.column].quantity;
    let alone = value.table.columns.iter().filter(|c| c.quantity == quantity).count() == 1;
    let near = value.table.title.rsplit(" / ").next().unwrap_or_default().to_lowercase();
    value.title().contains("train") || (alone && near.contains("train"))
}

impl Value<'_> {
    /// Title of its column, in lower case.
    fn title(&self) -> String {
        self.table.columns[self.column].title.to_lowercase()
    }

    /// Whether it is the memory of a whole process, not of a part of it.
    fn of_whole(&self) -> bool {
        let title = self.title();
        (title.contains("memory") || title.contains("peak")) && !title.contains(',')
    }
}

/// Lines that hold a text.
fn lines_with(reading: &Reading, words: &str) -> Vec<usize> {
    let holds = |text: &String| text.contains(words);
    let found = reading.lines.iter().zip(&reading.plain).enumerate();
    found.filter(|(_, (line, plain))| holds(line) || holds(plain)).map(|(i, _)| i + 1).collect()
}

/// What sources say against the report, under the check that they name.
pub(crate) fn sources(reading: &Reading, check: u32, out: &mut Findings) {
    for fact in reading.facts.facts.iter().filter(|f| f.check == check) {
        let lines = lines_with(reading, &fact.at);
        let pair = figures(&fact.printed).into_iter().next().zip(figures(&fact.found).into_iter().next());
        let same = match &pair {
            Some((a, b)) => a.dimension == b.dimension && meet(a.interval(), b.interval()),
            None => fact.printed == fact.found,
        };
        if lines.is_empty() || same {
            continue;
        }
        let times = pair
            .filter(|(a, b)| a.dimension == b.dimension && a.value() != 0.0)
            .map(|(a, b)| format!(" ({} times)", short(b.value() / a.value())));
        let text = format!(
            "{}: \"{}\" is printed, the source has {}{}: {}",
            fact.about,
            fact.printed,
            fact.found,
            times.unwrap_or_default(),
            fact.source
        );
        out.error(lines, text);
    }
}

/// The name that the headings around a place are about.
fn context(reading: &Reading, section: Option<usize>) -> Option<usize> {
    reading.path(section).into_iter().find_map(|s| {
        let title = &reading.sections[s].title;
        let found = reading.names.mentions(title);
        match found.as_slice() {
            [one] if one.ids.len() == 1 && reading.sections[s].level > 1 => Some(one.ids[0]),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_divide_and_meet() {
        assert_eq!(quotient((400.0, 700.0), (15.0, 28.0)).map(span), Some("14.3 to 46.7".into()));
        assert!(meet((1.0, 2.0), (2.0, 3.0)) && !meet((1.0, 2.0), (2.1, 3.0)));
        assert_eq!(short(0.000_028_6), "2.86e-5");
        let f = figures("700x").remove(0);
        assert_eq!(rounded(&f), (650.0, 750.0));
    }
}
