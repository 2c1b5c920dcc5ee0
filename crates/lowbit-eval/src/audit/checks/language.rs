//! Identities of language models, baselines of compression, data sets that hold each other, and sizes against scores.

use super::meet;
use crate::audit::Findings;
use crate::audit::figure::Figure;
use crate::audit::quantity::Quantity;
use crate::audit::reading::{Reading, Row, Table, contains_word};
use crate::laws;

/// Bits per byte of gzip -9, by the name of the text, and its bytes (prize.hutter1.net, mattmahoney.net/dc/text.html).
const GZIP: &[(&str, f64, f64)] = &[("enwik8", 2.916, 1e8), ("enwik9", 2.581, 1e9)];
/// Words that say that symbols are bytes or characters.
const BYTES: &[&str] = &["character", "byte-level", "per byte", "enwik8", "enwik9", "text8"];

/// The text that a row is about.
fn corpus(table: &Table, row: &Row, title: &str) -> Option<&'static (&'static str, f64, f64)> {
    let places = [row.part.as_str(), row.name.as_str(), title, table.title.as_str()];
    places.iter().find_map(|place| {
        let found: Vec<_> = GZIP.iter().filter(|(name, ..)| contains_word(&place.to_lowercase(), name)).collect();
        if found.len() == 1 { found.first().copied() } else { None }
    })
}

fn of_symbols(reading: &Reading) -> bool {
    match reading.facts.symbol.as_deref() {
        Some(symbol) => ["byte", "character"].contains(&symbol),
        None => reading.says(BYTES),
    }
}

/// The first column of a quantity that a row has a number in.
fn first<'a>(table: &Table, row: &'a Row, quantity: Quantity) -> Option<(&'a Figure, usize)> {
    table.of(quantity).into_iter().find_map(|c| Some((row.figure(c)?, row.line_of(c))))
}

/// A ratio that is called one of compression.
fn ratio_of<'a>(table: &Table, row: &'a Row) -> Option<(&'a Figure, usize)> {
    let named = |c: &usize| table.columns[*c].title.to_lowercase().contains("compress");
    table.of(Quantity::Compression).into_iter().filter(named).find_map(|c| Some((row.figure(c)?, row.line_of(c))))
}

/// 5: bits per byte are the binary logarithm of a perplexity per byte, and 8 over them is the ratio.
pub(crate) fn identities(reading: &Reading, out: &mut Findings) {
    if !of_symbols(reading) {
        return;
    }
    for table in &reading.tables {
        for row in &table.rows {
            let (ppl, bits) = (first(table, row, Quantity::Perplexity), first(table, row, Quantity::Entropy));
            let ratio = ratio_of(table, row);
            let place = format!("{} {}", row.name, row.part);
            let place = place.trim();
            let logarithm = |p: &Figure| (p.interval().0.max(1.0).log2(), p.interval().1.max(1.0).log2());
            if let (Some((p, at)), Some((b, line))) = (ppl, bits)
                && !meet(logarithm(p), b.interval())
            {
                let right = p.value().log2();
                let eighth =
                    if laws::close(right / 8.0, b.value(), 0.02) { ", which is that divided by 8" } else { "" };
                out.error(
                    [at, line],
                    format!(
                        "{place}: perplexity {} is log2 = {right:.3} bits per character, {} is printed{eighth}",
                        p.text, b.text
                    ),
                );
            }
            // Times that weights are smaller are of no text.
            let ratio = ratio.filter(|_| table.of(Quantity::Memory).iter().all(|c| is_coded(table, *c)));
            let true_bits = ppl.map(|(p, _)| p.value().log2()).or(bits.map(|(b, _)| b.value()));
            if let (Some((r, line)), Some(true_bits)) = (ratio, true_bits.filter(|b| *b > 0.0)) {
                let right = 8.0 / true_bits;
                if !laws::close(r.value(), right, laws::IDENTITY + r.half / right) {
                    out.error(
                        [line],
                        format!(
                            "{place}: compression ratio {} is printed, 8 / {true_bits:.3} bits is {right:.3}",
                            r.text
                        ),
                    );
                }
            }
        }
    }
}

/// Whether a column holds sizes of compressed texts, not of models.
fn is_coded(table: &Table, column: usize) -> bool {
    let title = table.columns[column].title.to_lowercase();
    title.contains("compressed") || GZIP.iter().any(|(name, ..)| contains_word(&title, name))
}

/// 6: compressed bytes of a known text are its bits per byte.
pub(crate) fn coded(reading: &Reading, out: &mut Findings) {
    for table in &reading.tables {
        let ([size], [bits]) = (&table.of(Quantity::Memory)[..], &table.of(Quantity::Entropy)[..]) else { continue };
        if !is_coded(table, *size) {
            continue;
        }
        for row in &table.rows {
            let Some((name, _, bytes)) = corpus(table, row, &table.columns[*size].title) else { continue };
            let (Some(s), Some(b)) = (row.figure(*size), row.figure(*bits)) else { continue };
            let found = (8.0 * s.interval().0 / bytes, 8.0 * s.interval().1 / bytes);
            if !meet(found, b.interval()) {
                out.error(
                    [row.line_of(*bits)],
                    format!(
                        "{}: {} of {name} are 8 x {} / {bytes} = {:.4} bits per byte, {} is printed",
                        row.name,
                        s.text,
                        s.lo,
                        8.0 * s.value() / bytes,
                        b.text
                    ),
                );
            }
        }
    }
}

/// Words of praise for a ratio.
const PRAISE: &[&str] = &["strong", "good", "excellent", "impressive", "high", "state-of-the-art", "efficient"];

/// 8: compression is held against a program that is no network, and is not praised below it.
pub(crate) fn baselines(reading: &Reading, out: &mut Findings) {
    let mut worse = Vec::new();
    let mut by_text: Vec<(String, &str, f64, usize)> = Vec::new();
    for table in &reading.tables {
        for row in &table.rows {
            let Some((name, gzip, _)) = corpus(table, row, "") else { continue };
            let Some((p, line)) = first(table, row, Quantity::Perplexity).filter(|_| of_symbols(reading)) else {
                continue;
            };
            let bits = p.value().log2();
            by_text.push((row.name.clone(), name, bits, line));
            if bits > *gzip {
                worse.push((line, format!("{} {name}: {bits:.2} bits per byte, gzip -9 {gzip}", row.name)));
            }
        }
    }
    let mentions = reading.says(&["gzip", "zstd", "xz ", "bzip2", "brotli", "lzma", "majority"]);
    if !worse.is_empty() {
        let praised = reading.sentences.iter().filter(|s| s.lower.contains("compression") && s.has(PRAISE));
        let lines = worse.iter().map(|(line, _)| *line).chain(praised.map(|s| s.line));
        let texts: Vec<&str> = worse.iter().map(|(_, text)| text.as_str()).collect();
        let absent = if mentions { "" } else { "; no baseline is named" };
        out.error(lines, format!("worse than a program of 1992 that is no network: {}{absent}", texts.join("; ")));
    }
    for (name, text, bits, line) in &by_text {
        let larger = by_text
            .iter()
            .find(|(other, t, more, _)| other == name && *text == "enwik8" && *t == "enwik9" && more > bits);
        if let Some((.., more, at)) = larger {
            let text = format!(
                "{name}: {bits:.2} bits per byte on enwik8 and {more:.2} on enwik9, but every compressor does better on enwik9 \
                 (gzip 2.92 and 2.58, cmix 1.17 and 0.86): more data explains nothing"
            );
            out.warn([*line, *at], text);
        }
    }
}

/// 9: a calibrated model is right at least as often as 1 over its perplexity, and more often where that is lower.
pub(crate) fn calibration(reading: &Reading, out: &mut Findings) {
    for table in &reading.tables {
        let mut points = Vec::new();
        for row in &table.rows {
            let (Some((p, _)), Some((a, line))) =
                (first(table, row, Quantity::Perplexity), first(table, row, Quantity::Accuracy))
            else {
                continue;
            };
            let share =
                if a.dimension == crate::audit::figure::Dimension::Percent { a.value() / 100.0 } else { a.value() };
            points.push((laws::least_hits(p.value().log2()), share, p.value(), line));
        }
        let below: Vec<_> = points.iter().filter(|(bound, share, ..)| share < bound).collect();
        if points.len() >= 2 && below.len() * 2 > points.len() {
            let lines: Vec<usize> = points.iter().map(|p| p.3).collect();
            let texts: Vec<String> = below.iter().map(|(b, s, p, _)| format!("{s} < 1/{p:.2} = {b:.3}")).collect();
            out.error(lines, format!(
                "the most probable symbol is right less often than its probability says: {}{}: evaluation misaligned, or miscalibrated",
                texts.join(", "), pooled(reading, &points)
            ));
        }
        // Kendall's tau.
        let n = points.len();
        let mut score = 0.0;
        for i in 0..n {
            for j in i + 1..n {
                score += ((points[i].1 - points[j].1) * (points[i].2 - points[j].2)).signum();
            }
        }
        let tau = 2.0 * score / (n * n.saturating_sub(1)).max(1) as f64;
        if n >= 4 && tau > 0.5 {
            let lines: Vec<usize> = points.iter().map(|p| p.3).collect();
            out.warn(
                lines,
                format!(
                    "accuracy rises with perplexity (Kendall tau = {tau:+.2} over {n} points): one of them is wrong"
                ),
            );
        }
    }
}

/// The points together, where the facts say on how many rows they stand.
fn pooled(reading: &Reading, points: &[(f64, f64, f64, usize)]) -> String {
    let Some(test) = reading.facts.tests.first() else { return String::new() };
    let n = test.n * points.len() as f64;
    let mean = |f: fn(&(f64, f64, f64, usize)) -> f64| points.iter().map(f).sum::<f64>() / points.len() as f64;
    let (bound, share) = (mean(|p| p.0), mean(|p| p.1));
    let z = (share - bound) / laws::standard_error(bound, n);
    format!("; together {share:.3} on {n} against {bound:.3}, z = {z:.1}")
}

/// 14: data sets of one test set are one; what a model was trained on does not explain that it wins elsewhere too.
pub(crate) fn hygiene(reading: &Reading, out: &mut Findings) {
    for same in &reading.facts.same {
        let all = |line: &str| same.names.iter().all(|name| contains_word(&line.to_lowercase(), &name.to_lowercase()));
        let lines: Vec<usize> = reading.plain.iter().enumerate().filter(|(_, l)| all(l)).map(|(i, _)| i + 1).collect();
        if !lines.is_empty() {
            let text = format!(
                "{} share their test rows, so they are one data set: {}",
                same.names.join(" and "),
                same.source
            );
            out.error(lines, text);
        }
    }
    let trained = |s: &crate::audit::reading::Sentence| {
        let at = s.lower.find("trained")?;
        let text = GZIP.iter().filter_map(|(name, ..)| Some((s.lower[at..].find(name)?, *name))).min()?.1;
        let said = reading.names.mentions(s.text.get(..at)?);
        Some((said.last()?.ids.first().copied()?, text, s.line))
    };
    let trained: Vec<_> = reading.sentences.iter().filter_map(trained).collect();
    let score = |id: usize, text: &str| {
        let rows = reading.tables.iter().flat_map(|t| t.rows.iter().map(move |r| (t, r)));
        let mut of = rows.filter(|(_, r)| reading.names.id(&r.name) == Some(id) && r.part == text);
        of.find_map(|(t, r)| first(t, r, Quantity::Perplexity))
    };
    for (a, text, line) in &trained {
        for (b, other, at) in trained.iter().filter(|(b, other, _)| b != a && other != text) {
            let (Some(own), Some(theirs)) = (score(*a, other), score(*b, other)) else { continue };
            if own.0.value() < theirs.0.value() {
                let name = |id: usize| reading.names.all[id].text.clone();
                out.error([*line, *at, own.1, theirs.1], format!(
                    "training on {text} cannot be why {} wins: it wins on {other} too, which {} was trained on ({} < {})",
                    name(*a), name(*b), own.0.text, theirs.0.text
                ));
            }
        }
    }
}

/// How many times more parameters must not make a model worse.
const LARGER: f64 = 2.0;

/// 31: of one family, the larger model is not worse on the same data.
pub(crate) fn scaling(reading: &Reading, out: &mut Findings) {
    let family = |row: &Row| row.name.split([' ', '-', '_']).next().unwrap_or_default().to_lowercase();
    for table in &reading.tables {
        for column in 0..table.columns.len() {
            let Some(quantity) = table.columns[column].quantity else { continue };
            if ![Quantity::Perplexity, Quantity::Entropy, Quantity::Loss].contains(&quantity) {
                continue;
            }
            let mut worse = Vec::new();
            for large in &table.rows {
                for small in table.rows.iter().filter(|s| s.part == large.part && family(s) == family(large)) {
                    let size = |row: &Row| {
                        let id = reading.names.id(&row.name)?;
                        reading.names.all[id].parameters.clone()
                    };
                    let (Some(l), Some(s)) = (size(large), size(small)) else { continue };
                    let (Some(a), Some(b)) = (large.figure(column), small.figure(column)) else { continue };
                    if l.value >= LARGER * s.value && a.lo - a.half > b.hi + b.half {
                        let times = l.value / s.value;
                        let text = format!(
                            "{} {} against {} ({times:.2} times the parameters, {})",
                            a.text, large.part, b.text, large.name
                        );
                        worse.push((large.line_of(column), small.line_of(column), text));
                    }
                }
            }
            if worse.is_empty() {
                continue;
            }
            let praised: Vec<usize> = reading
                .sentences
                .iter()
                .filter(|s| s.lower.contains("scales") || s.lower.contains("scalab"))
                .map(|s| s.line)
                .collect();
            let lines = worse.iter().flat_map(|w| [w.0, w.1]).chain(praised.iter().copied());
            let texts: Vec<&str> = worse.iter().map(|w| w.2.as_str()).collect();
            let said = if praised.is_empty() { "" } else { ", and it is said to scale" };
            let text = format!(
                "larger and worse in {}: {}{said}: under-trained or faulty",
                quantity.words(),
                texts.join("; ")
            );
            if praised.is_empty() {
                out.warn(lines, text)
            } else {
                out.error(lines, text)
            }
            return;
        }
    }
}
