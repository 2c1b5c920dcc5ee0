//! Sentences: what they say about numbers, against the tables of the same report.

mod advice;
mod ratios;

use super::{lines_with, short, span, values};
use crate::audit::Findings;
use crate::audit::figure::{Dimension, Figure};
use crate::audit::quantity::{self, Quantity};
use crate::audit::reading::{Reading, Row, Sentence, Table, names};
pub(crate) use advice::{recommendations, thresholds};
use ratios::Verdict;

/// Whether a report has a number of a quantity anywhere.
fn has(reading: &Reading, quantity: Quantity) -> bool {
    reading.tables.iter().any(|t| t.of(quantity).into_iter().any(|c| t.rows.iter().any(|r| r.figure(c).is_some())))
}

/// The first name that a sentence mentions alone.
fn subject(reading: &Reading, s: &Sentence) -> Option<usize> {
    let row = s.row.as_ref().and_then(|name| reading.names.id(name));
    row.or_else(|| reading.names.mentions(&s.text).into_iter().find(|m| m.ids.len() == 1).map(|m| m.ids[0]))
}

/// A word that a number of the report refutes: the word, the quantity, and how.
type Absolute = (&'static str, Quantity, fn(f64) -> String);

const ABSOLUTES: &[Absolute] = &[
    ("zero latency", Quantity::Throughput, |rate| {
        format!("at {} tokens/s one token takes {} ms", short(rate), short(1e3 / rate))
    }),
    ("instant", Quantity::Throughput, |rate| {
        format!(
            "at {} tokens/s a token takes {} ms, so 100 ms are {} prompt tokens at that rate",
            short(rate),
            short(1e3 / rate),
            (0.1 * rate).floor() + 1.0
        )
    }),
    ("unlimited", Quantity::Throughput, |rate| {
        format!("{} tokens/s are {} tokens a day", short(rate), short(rate * 86_400.0))
    }),
    ("no rate limits", Quantity::Throughput, |rate| {
        format!("{} tokens/s are {} tokens a day", short(rate), short(rate * 86_400.0))
    }),
    ("no cooling", Quantity::Power, |watts| format!("{} W become heat", short(watts))),
];

/// 1: every claimed number has a quantity behind it, and no absolute word stands against one.
pub(crate) fn groundless(reading: &Reading, out: &mut Findings) {
    for s in &reading.sentences {
        for (word, quantity, why) in ABSOLUTES.iter().filter(|a| s.lower.contains(a.0)) {
            let own = subject(reading, s).map(|id| values(reading, id, *quantity)).filter(|v| !v.is_empty());
            let most = own
                .unwrap_or_else(|| values(reading, 0, *quantity))
                .into_iter()
                .max_by(|a, b| a.figure.hi.total_cmp(&b.figure.hi));
            if let Some(v) = most {
                out.error([s.line, v.line], format!("\"{word}\": {}", why(v.figure.hi)));
            }
        }
        let saved = s.has(&["reduction", "savings", "less", "saves"]);
        let Some(f) = s.figures.iter().find(|f| f.dimension == Dimension::Percent).filter(|_| saved) else { continue };
        for quantity in quantity::in_sentence(&s.lower)
            .into_iter()
            .filter(|q| [Quantity::Energy, Quantity::Power, Quantity::Cost].contains(q))
        {
            if !has(reading, quantity) {
                out.error(
                    [s.line],
                    format!("{} of {}: the report has no value of it anywhere", f.text, quantity.words()),
                );
            }
        }
    }
}

/// 39: what a sentence compares has a value.
pub(crate) fn unknowns(reading: &Reading, out: &mut Findings) {
    for table in &reading.tables {
        for (c, column) in
            table.columns.iter().enumerate().filter(|(_, c)| c.dimension.is_some() && c.quantity.is_some())
        {
            let dash = |row: &&Row| {
                row.cell(c).is_some_and(|cell| ["-", "\u{2013}", "\u{2014}", "?"].contains(&cell.text.as_str()))
            };
            let lines: Vec<usize> = table.rows.iter().filter(dash).map(|r| r.line_of(c)).collect();
            if !lines.is_empty()
                && column.quantity.is_some_and(|q| !q.more_is_better())
                && table.rows.len() > 2
                && reading.sentences.iter().any(|s| s.has(&["lowest", "best", "fastest"]))
            {
                out.notice(lines, format!("{}: a dash where the value is unknown", column.title));
            }
        }
    }
    const MORE: &[&str] = &["more", "higher", "lower", "less", "better", "not proportional"];
    for s in reading.sentences.iter().filter(|s| s.has(MORE)) {
        let named = [("memory", Quantity::Memory), ("latency", Quantity::Time), ("energy", Quantity::Energy)];
        let missing: Vec<&str> = named
            .iter()
            .filter(|(w, q)| s.lower.contains(w) && s.figures.is_empty() && !has(reading, *q))
            .map(|n| n.0)
            .collect();
        let subjects = s.lower.contains("model");
        if !missing.is_empty()
            && subjects
            && reading.tables.iter().any(|t| t.columns.iter().any(|c| c.quantity.is_some()))
        {
            out.warn([s.line], format!("{} compared, and the report has no value of it", missing.join(" and ")));
        }
    }
    let quality = [Quantity::Accuracy, Quantity::F1, Quantity::Perplexity, Quantity::Loss, Quantity::Entropy];
    if !quality.iter().any(|q| has(reading, *q)) {
        for s in reading
            .sentences
            .iter()
            .filter(|s| s.lower.contains("better quality") || s.lower.contains("higher quality"))
        {
            out.warn([s.line], "quality is compared, and the report has no score of it".into());
        }
    }
}

/// 3: superlatives, comparisons, factors and shares are true of the tables.
pub(crate) fn claims(reading: &Reading, out: &mut Findings) {
    for s in &reading.sentences {
        superlative(reading, s, out);
        matches(reading, s, out);
        inference_and_training(reading, s, out);
        for claimed in ratios::of(reading, s) {
            if let Verdict::Wrong(text) = ratios::judge(&claimed) {
                out.error(claimed.lines(), text);
            }
        }
    }
    listed(reading, out);
    none_is_faster(reading, out);
}

/// 24: a ratio of ranges is a range.
pub(crate) fn ranges(reading: &Reading, out: &mut Findings) {
    for s in &reading.sentences {
        for claimed in ratios::of(reading, s) {
            if let Verdict::Narrow(text) = ratios::judge(&claimed) {
                out.warn(claimed.lines(), text);
            }
        }
    }
    for table in &reading.tables {
        let ([rate], [power], [e]) =
            (&table.of(Quantity::Throughput)[..], &table.of(Quantity::Power)[..], &table.of(Quantity::Efficiency)[..])
        else {
            continue;
        };
        let mut each = Vec::new();
        for row in &table.rows {
            let (Some(r), Some(p), Some(f)) = (row.figure(*rate), row.figure(*power), row.figure(*e)) else { continue };
            let Some(found) = super::quotient(super::ends(r), super::ends(p)).filter(|s| s.1 > WIDE * s.0) else {
                continue;
            };
            if !f.is_range() {
                each.push((row.line_of(*e), format!("{} {} of {}", row.name, f.text, span(found))));
            }
        }
        if !each.is_empty() {
            let texts: Vec<&str> = each.iter().map(|e| e.1.as_str()).collect();
            out.warn(
                each.iter().map(|e| e.0),
                format!("one number where the ranges give a range: {}", texts.join("; ")),
            );
        }
    }
}

/// A range that is wider than this is not one number.
const WIDE: f64 = 1.4;

/// Words that say the most or the least, and whether it is the most.
const MOST: &[(&str, Option<bool>)] = &[
    ("highest", Some(true)),
    ("lowest", Some(false)),
    ("best", None),
    ("fastest", None),
    ("smallest", Some(false)),
    ("largest", Some(true)),
    ("better", None),
];

/// Whether a value is the best of its column, and the one that is better.
fn beaten<'a>(table: &'a Table, column: usize, reading: &Reading, id: usize, most: bool) -> Option<(&'a Row, &'a Row)> {
    let own = table.rows.iter().find(|r| reading.names.id(&r.name) == Some(id))?;
    let value = own.figure(column)?;
    let better = |f: &Figure| if most { f.lo > value.lo } else { f.lo < value.lo };
    let one =
        |r: &&Row| r.part == own.part && r.figure(column).is_some_and(|f| f.dimension == value.dimension && better(f));
    table.rows.iter().find(one).map(|other| (own, other))
}

/// "X achieves the highest accuracy".
fn superlative(reading: &Reading, s: &Sentence, out: &mut Findings) {
    let Some((word, most)) = MOST.iter().find(|(word, _)| s.has(&[word])) else { return };
    // Advice and comparisons of two are read elsewhere.
    if s.has(&["than", "use", "if", "consider", "vs"]) || s.row.is_some() {
        return;
    }
    let Some(at) = s.lower.find(word) else { return };
    let after = &s.lower[at..];
    let mentions = reading.names.mentions(&s.text);
    // "Highest accuracy: X", or "X has the highest accuracy".
    let title = after.find(':').filter(|colon| at == 0 && after[..*colon].split_whitespace().count() <= 3);
    let named = |m: &&names::Mention| m.ids.len() == 1 && if title.is_some() { m.start > at } else { m.start < at };
    let Some(id) = mentions.iter().find(named).map(|m| m.ids[0]) else { return };
    let about = title.map_or(after, |colon| &after[..colon]);
    let Some(quantity) = quantity::in_sentence(about).into_iter().next() else { return };
    let timed = *word == "fastest" || title.is_some() || *word == "lowest";
    if quantity == Quantity::Time && !timed {
        return;
    }
    if *word == "fastest" {
        return fastest(reading, s, id, out);
    }
    let most = most.unwrap_or(quantity.more_is_better());
    for table in reading.near(s.section, |t| !t.of(quantity).is_empty()) {
        for column in table.of(quantity) {
            if let Some((own, other)) = beaten(table, column, reading, id, most) {
                let f = |row: &Row| row.figure(column).map(|f| f.text.clone()).unwrap_or_default();
                out.error(
                    [s.line, own.line_of(column), other.line_of(column)],
                    format!(
                        "\"{word} {}\": {} has {}, {} {}",
                        quantity.words(),
                        own.name,
                        f(own),
                        other.name,
                        f(other)
                    ),
                );
            }
        }
        if quantity == Quantity::Drop {
            largest_drop(reading, table, s, id, out);
        }
    }
}

fn fastest(reading: &Reading, s: &Sentence, id: usize, out: &mut Findings) {
    for table in reading.near(s.section, |t| !t.of(Quantity::Time).is_empty()) {
        for column in table.of(Quantity::Time) {
            if let Some((own, other)) = beaten(table, column, reading, id, false) {
                let f = |row: &Row| row.figure(column).map(|f| f.text.clone()).unwrap_or_default();
                out.error(
                    [s.line, own.line, other.line],
                    format!("\"fastest\": {} takes {}, {} {}", own.name, f(own), other.name, f(other)),
                );
            }
        }
    }
}

/// The drop to the worst part, which an average hides.
fn largest_drop(reading: &Reading, table: &Table, s: &Sentence, id: usize, out: &mut Findings) {
    let Some(worst) = table.columns.iter().position(|c| c.title.to_lowercase().contains("worst")) else { return };
    let before = reading
        .tables
        .iter()
        .filter(|t| t.line < table.line && !t.of(Quantity::Accuracy).is_empty())
        .max_by_key(|t| t.line);
    let Some(base) = before else { return };
    let accuracy = base.of(Quantity::Accuracy)[0];
    let drop = |row: &Row| {
        let from = base.rows.iter().find(|b| b.name == row.name)?.figure(accuracy)?.lo;
        Some((row.name.clone(), from - row.figure(worst)?.lo, row.line))
    };
    let drops: Vec<_> = table.rows.iter().filter_map(drop).collect();
    let Some(own) = drops.iter().find(|d| reading.names.id(&d.0) == Some(id)) else { return };
    if drops.len() > 1 && drops.iter().all(|d| d.1 <= own.1 + 1e-9) {
        let each: Vec<String> = drops.iter().map(|d| format!("{} {:.2}", d.0, d.1)).collect();
        out.error(
            [s.line, own.2],
            format!(
                "the smallest drop is said of {}, whose drop to the worst part is the largest: {}",
                own.0,
                each.join(", ")
            ),
        );
    }
}

/// "X matches the 4-bit performance" where the ranges have nothing in common.
fn matches(reading: &Reading, s: &Sentence, out: &mut Findings) {
    if !s.has(&["matches", "match", "equals"]) {
        return;
    }
    let Some(id) = subject(reading, s) else { return };
    let Some(other) = super::context(reading, s.section).filter(|other| *other != id) else { return };
    let own = values(reading, id, Quantity::Throughput);
    let Some(own) = own.first() else { return };
    for v in values(reading, other, Quantity::Throughput) {
        let title = v.table.columns[v.column].title.to_lowercase();
        // The words that tell the variant of the other apart: "4-bit".
        let variant = title.split(['(', ')', ' ']).find(|w| w.contains("-bit"));
        let meant = variant.is_some_and(|w| s.lower.contains(w));
        if meant && !super::meet(super::ends(own.figure), super::ends(v.figure)) {
            let times = super::quotient(super::ends(v.figure), super::ends(own.figure)).map(span).unwrap_or_default();
            out.error(
                [s.line, own.line, v.line],
                format!("\"matches\": {} against {}, {times} times as fast", own.figure.text, v.figure.text),
            );
        }
    }
}

/// "Savings are larger during inference than training" where both are equal.
fn inference_and_training(reading: &Reading, s: &Sentence, out: &mut Findings) {
    if !(s.lower.contains("inference than") && s.lower.contains("train") && s.has(&["more", "larger", "greater"])) {
        return;
    }
    let Some(quantity) = quantity::in_sentence(&s.lower).into_iter().find(|q| *q == Quantity::Memory) else { return };
    let mut equal = Vec::new();
    for id in 0..reading.names.all.len() {
        let all: Vec<_> = values(reading, id, quantity).into_iter().filter(|v| v.of_whole()).collect();
        let (train, infer): (Vec<_>, Vec<_>) = all.iter().partition(|v| super::of_training(v));
        if let (Some(t), Some(i)) = (train.first(), infer.first()) {
            equal.push((
                t.figure.lo == i.figure.lo,
                t.line,
                i.line,
                format!("{} {} and {}", reading.names.all[id].text, i.figure.text, t.figure.text),
            ));
        }
    }
    if equal.len() > 1 && equal.iter().all(|e| e.0) {
        let each: Vec<&str> = equal.iter().map(|e| e.3.as_str()).collect();
        let lines = equal.iter().flat_map(|e| [e.1, e.2]).chain([s.line]);
        out.error(
            lines,
            format!("inference and training are equal in every row, so neither saves more: {}", each.join(", ")),
        );
    }
}

/// What the facts say that a sentence claims.
fn listed(reading: &Reading, out: &mut Findings) {
    for claim in &reading.facts.claims {
        let Some(id) = reading.names.id(&claim.subject) else { continue };
        let lines = lines_with(reading, &claim.at);
        for table in &reading.tables {
            let Some(column) = table.columns.iter().position(|c| c.title.eq_ignore_ascii_case(&claim.column)) else {
                continue;
            };
            if let Some((own, other)) =
                beaten(table, column, reading, id, claim.is == "highest").filter(|_| !lines.is_empty())
            {
                let f = |row: &Row| row.cell(column).map(|c| c.text.clone()).unwrap_or_default();
                let all = lines.iter().copied().chain([own.line, other.line]);
                out.error(
                    all,
                    format!(
                        "{} {} is said of {}: it has {}, {} {}",
                        claim.is,
                        claim.column,
                        own.name,
                        f(own),
                        other.name,
                        f(other)
                    ),
                );
            }
        }
    }
}

/// "Speed improvements" where every variant is slower than the baseline.
fn none_is_faster(reading: &Reading, out: &mut Findings) {
    let said = |s: &&Sentence| {
        s.lower.contains("speed improvement") || s.lower.contains("speedup") || s.lower.contains("speed-up")
    };
    let said: Vec<usize> = reading.sentences.iter().filter(said).map(|s| s.line).collect();
    if said.is_empty() {
        return;
    }
    for table in &reading.tables {
        let (Some(time), Some(marks)) =
            (table.of(Quantity::Time).first().copied(), table.of(Quantity::Compression).first().copied())
        else {
            continue;
        };
        let Some(base) = super::baseline(table, marks, 1.0).and_then(|i| table.rows.get(i)) else { continue };
        let Some(from) = base.figure(time) else { continue };
        let others: Vec<(&Row, &Figure)> =
            table.rows.iter().filter(|r| r.name != base.name).filter_map(|r| Some((r, r.figure(time)?))).collect();
        if others.len() > 1 && others.iter().all(|(_, f)| f.lo > from.hi) {
            let each: Vec<String> =
                others.iter().map(|(r, f)| format!("{} {:.2}", r.name, f.value() / from.value())).collect();
            let lines = said.iter().copied().chain(others.iter().map(|(r, _)| r.line_of(time)));
            out.error(
                lines,
                format!(
                    "improvements of speed are said, but every variant is slower than {} ({}): times {}",
                    base.name,
                    from.text,
                    each.join(", ")
                ),
            );
        }
    }
}

/// Claims of a sentence, for tests.
#[cfg(test)]
fn of_text(text: &str) -> Vec<String> {
    use crate::audit::facts::Facts;
    use crate::audit::reading::Syntax;
    let reading = Reading::new(text, Syntax::Markdown, Facts::default()).unwrap();
    let judged = |claimed: &ratios::Claimed| match ratios::judge(claimed) {
        Verdict::Right => "right".to_string(),
        Verdict::Wrong(text) => format!("wrong: {text}"),
        Verdict::Narrow(text) => format!("narrow: {text}"),
    };
    reading.sentences.iter().flat_map(|s| ratios::of(&reading, s)).map(|c| judged(&c)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\n\n| Model | Memory (GB) | Training time (min) | Tokens/sec |\n|---|---|---|---|\n| Alpha | 2.8 | 45.23 | 16-28 |\n| Beta | 5.6 | 12.45 | 80-120 |\n";

    #[test]
    fn ratios_of_sentences_are_judged() {
        let judged = |sentence: &str| of_text(&format!("# T\n\n{sentence}{TABLE}"));
        assert!(judged("Alpha achieves 70% memory reduction compared to Beta")[0].starts_with("wrong"));
        assert_eq!(judged("Alpha achieves 50% memory reduction compared to Beta"), ["right"]);
        assert_eq!(judged("Alpha's memory usage is 50% of Beta's"), ["right"]);
        assert_eq!(judged("Beta trains 3.6x faster than Alpha"), ["right"]);
        assert!(judged("Beta trains 5.6x faster than Alpha")[0].starts_with("wrong"));
        assert!(judged("Alpha is 4x slower than Beta")[0].starts_with("narrow"));
        assert!(judged("Alpha is nice").is_empty());
    }
}
