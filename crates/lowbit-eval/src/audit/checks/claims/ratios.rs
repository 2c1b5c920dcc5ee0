//! Factors and shares between two names: "3.6x faster than X", "50 % of X's memory", "70 % less memory than X".

use super::WIDE;
use crate::audit::checks::{Span, context, ends, meet, of_training, quotient, rounded, span, values};
use crate::audit::figure::{Dimension, Figure};
use crate::audit::quantity::{self, Quantity};
use crate::audit::reading::{Reading, Sentence};

/// A number that a sentence derives from two others.
pub(super) struct Claimed {
    figure: Figure,
    /// What the tables give, by the values as printed, and by all that rounds to them; several where several columns fit.
    found: Vec<(Span, Span, String)>,
    lines: Vec<usize>,
}

impl Claimed {
    pub(super) fn lines(&self) -> Vec<usize> {
        self.lines.clone()
    }
}

/// What becomes of a claim.
pub(super) enum Verdict {
    /// Some column gives it.
    Right,
    /// No column does.
    Wrong(String),
    /// It is one end of a range, or hides a range.
    Narrow(String),
}

/// Judges a claim by everything that it may be about.
pub(super) fn judge(claimed: &Claimed) -> Verdict {
    let f = &claimed.figure;
    let fits = claimed.found.iter().find(|(_, wide, _)| meet(rounded(f), *wide));
    let Some((exact, _, words)) = fits else {
        let each = claimed.found.iter().map(|(exact, _, words)| format!("{words} = {}", span(*exact)));
        let mut each: Vec<String> = each.collect();
        each.sort();
        each.dedup();
        return Verdict::Wrong(format!("{} is said; {}", f.text, each.join(", or ")));
    };
    if exact.1 <= WIDE * exact.0 {
        return Verdict::Right;
    }
    let near = |a: f64, b: f64| (a - b).abs() <= f.half.max(0.02 * b.abs());
    if f.is_range() && near(f.lo, exact.0) && near(f.hi, exact.1) {
        return Verdict::Right;
    }
    Verdict::Narrow(format!("{} is said; {words} = {}", f.text, span(*exact)))
}

/// What a factor is about, and whether a large one means that the subject has more of it.
struct Meant {
    quantities: Vec<Quantity>,
    more: bool,
}

/// What follows a factor.
fn meant(after: &str) -> Option<Meant> {
    let words: Vec<&str> =
        after.split(|c: char| !c.is_alphanumeric() && c != '-').filter(|w| !w.is_empty()).take(3).collect();
    let of = |quantities: &[Quantity], more: bool| Some(Meant { quantities: quantities.to_vec(), more });
    use Quantity::{Energy, Memory, Parameters, Power, Throughput, Time};
    match words.as_slice() {
        ["faster", ..] => of(&[Throughput, Time], true),
        ["slower", ..] => of(&[Throughput, Time], false),
        ["smaller", ..] => of(&[Parameters, Memory], false),
        ["larger" | "bigger", ..] => of(&[Parameters, Memory], true),
        ["less" | "lower", "power", ..] => of(&[Power], false),
        ["less" | "lower", "memory", ..] => of(&[Memory], false),
        ["less" | "lower", "energy", ..] => of(&[Energy], false),
        ["more" | "higher", "power", ..] => of(&[Power], true),
        ["more" | "higher", "memory", ..] => of(&[Memory], true),
        _ => None,
    }
}

/// Every factor and share of a sentence that the tables can judge.
pub(super) fn of(reading: &Reading, s: &Sentence) -> Vec<Claimed> {
    let mentions = reading.names.mentions(&s.text);
    let own = mentions.iter().find(|m| m.ids.len() == 1).map(|m| m.ids[0]);
    let around = context(reading, s.section);
    let mut out = Vec::new();
    for (i, f) in s.figures.iter().enumerate() {
        let end = s.figures.get(i + 1).map_or(s.text.len(), |next| next.start);
        let lower = s.text[f.end..end].to_lowercase();
        let object = mentions.iter().find(|m| m.start >= f.end && m.end <= end && m.ids.len() == 1).map(|m| m.ids[0]);
        let subject = mentions.iter().find(|m| m.end <= f.start && m.ids.len() == 1).map(|m| m.ids[0]).or(own);
        let found = match f.dimension {
            Dimension::Times => factor(reading, s, subject, object.or(around), &lower),
            Dimension::Percent => share(reading, s, subject, object, around, f, &lower),
            _ => Vec::new(),
        };
        if !found.is_empty() {
            let lines = found.iter().flat_map(|(_, lines)| lines.iter().copied()).chain([s.line]).collect();
            out.push(Claimed { figure: f.clone(), found: found.into_iter().map(|(found, _)| found).collect(), lines });
        }
    }
    out
}

/// A result of a query, with its lines.
type Found = ((Span, Span, String), Vec<usize>);

fn factor(reading: &Reading, s: &Sentence, subject: Option<usize>, object: Option<usize>, after: &str) -> Vec<Found> {
    let Some(Meant { quantities, more }) = meant(after) else { return Vec::new() };
    let Some(subject) = subject else { return Vec::new() };
    let mut out = Vec::new();
    for quantity in quantities {
        // Who is faster has less time.
        let first = more != (quantity == Quantity::Time);
        if quantity == Quantity::Parameters {
            let sizes = object.filter(|o| *o != subject).and_then(|o| {
                Some((&reading.names.all[subject], &reading.names.all[o]))
                    .filter(|(a, b)| a.parameters.is_some() && b.parameters.is_some())
            });
            if let Some((a, b)) = sizes {
                let (Some(a), Some(b)) = (&a.parameters, &b.parameters) else { continue };
                let wide = |v: &crate::audit::reading::names::Stated| (v.value - v.half, v.value + v.half);
                let (x, y) = if first { (a, b) } else { (b, a) };
                let Some(pair) = quotient((x.value, x.value), (y.value, y.value)).zip(quotient(wide(x), wide(y)))
                else {
                    continue;
                };
                out.push(((pair.0, pair.1, format!("{} / {} parameters", x.text, y.text)), vec![a.line, b.line]));
            }
            continue;
        }
        let against = match object.filter(|o| *o != subject) {
            Some(object) => values(reading, object, quantity)
                .into_iter()
                .map(|v| (v.figure.clone(), v.line, Some(v.table), of_training(&v)))
                .collect(),
            None => phrase(reading, after, quantity),
        };
        for a in values(reading, subject, quantity) {
            for (b, line, table, training) in &against {
                let one = table.is_none_or(|t| std::ptr::eq(t, a.table));
                let timed = matches!(quantity, Quantity::Time | Quantity::Throughput);
                let fits = s.lower.contains("train") == of_training(&a) || !timed;
                if !one && against.iter().any(|(_, _, t, _)| t.is_some_and(|t| std::ptr::eq(t, a.table)))
                    || !fits
                    || !alike(a.figure, b)
                    || (table.is_some() && *training != of_training(&a))
                {
                    continue;
                }
                let (x, y) = if first { (a.figure, b) } else { (b, a.figure) };
                let Some(pair) = quotient(ends(x), ends(y)).zip(quotient(x.interval(), y.interval())) else { continue };
                out.push(((pair.0, pair.1, format!("{} / {}", x.text, y.text)), vec![a.line, *line]));
            }
        }
        if !out.is_empty() {
            break;
        }
    }
    out
}

/// Whether one figure may be so many times another: bits are no multiple of seconds.
fn alike(a: &Figure, b: &Figure) -> bool {
    a.dimension == b.dimension || [a, b].iter().any(|f| f.dimension == Dimension::Plain)
}

/// A thing that is no name: "than reading speed" against the key "Human reading speed".
fn phrase<'a>(
    reading: &'a Reading,
    after: &str,
    quantity: Quantity,
) -> Vec<(Figure, usize, Option<&'a crate::audit::reading::Table>, bool)> {
    let Some((_, object)) = after.split_once("than ") else { return Vec::new() };
    let words: Vec<&str> = object.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).take(3).collect();
    if words.len() < 2 {
        return Vec::new();
    }
    let mut out = Vec::new();
    for table in &reading.tables {
        for (c, column) in table.columns.iter().enumerate().filter(|(_, c)| c.quantity == Some(quantity)) {
            let title = column.title.to_lowercase();
            if words.iter().filter(|w| title.contains(*w)).count() >= 2 {
                out.extend(table.rows.iter().filter_map(|r| Some((r.figure(c)?.clone(), r.line_of(c), None, false))));
            }
        }
    }
    out
}

fn share(
    reading: &Reading,
    s: &Sentence,
    subject: Option<usize>,
    object: Option<usize>,
    around: Option<usize>,
    f: &Figure,
    after: &str,
) -> Vec<Found> {
    let of_what = after.trim_start().starts_with("of ");
    let less = ["reduction", "less", "lower", "saving", "decrease"].iter().any(|w| after.contains(w));
    let Some(quantity) = quantity::in_sentence(&s.lower)
        .into_iter()
        .find(|q| [Quantity::Memory, Quantity::Power, Quantity::Energy].contains(q))
    else {
        return Vec::new();
    };
    if !(of_what || less) || f.open_below || f.open_above {
        return Vec::new();
    }
    let Some(subject) = subject else { return Vec::new() };
    let others: Vec<usize> = match object.or(around).filter(|o| *o != subject) {
        Some(object) => vec![object],
        // "of the power" without an owner: anything that it may be a share of.
        None if of_what => (0..reading.names.all.len()).filter(|id| *id != subject).collect(),
        None => return Vec::new(),
    };
    let mut out = Vec::new();
    for other in others {
        for a in values(reading, subject, quantity) {
            for b in values(reading, other, quantity) {
                if !std::ptr::eq(a.table, b.table) {
                    continue;
                }
                let exact =
                    quotient(ends(a.figure), ends(b.figure)).zip(quotient(a.figure.interval(), b.figure.interval()));
                let Some((exact, wide)) = exact else { continue };
                let percent = |(lo, hi): Span| {
                    if of_what { (100.0 * lo, 100.0 * hi) } else { (100.0 * (1.0 - hi), 100.0 * (1.0 - lo)) }
                };
                let words = if of_what {
                    format!("{} / {}", a.figure.text, b.figure.text)
                } else {
                    format!("1 - {} / {}", a.figure.text, b.figure.text)
                };
                out.push(((percent(exact), percent(wide), format!("{words} in percent")), vec![a.line, b.line]));
            }
        }
    }
    out
}
