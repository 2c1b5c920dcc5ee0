//! Scores: possible counts, possible means, noise, published values, averages.

use super::{Span, meet, short, span};
use crate::audit::Findings;
use crate::audit::figure::{Dimension, Figure, figures};
use crate::audit::quantity::Quantity;
use crate::audit::reading::{Reading, Row, Sentence, Table, contains_word};
use crate::laws;
use crate::stats::wilson;

/// Words that show that a report gives spreads or intervals.
const SPREAD: &[&str] =
    &["interval", "\u{b1}", "+/-", "confidence", "stderr", "standard error", "std", "bootstrap", "mcnemar", " ci)"];

/// Rows of the test set behind a cell, where facts or the report say so.
fn rows_of(reading: &Reading, table: &Table, row: &Row, column: usize) -> Option<f64> {
    let title = &table.columns[column].title;
    let fits = |place: &str| {
        let place = place.to_lowercase();
        [&table.title, &row.name, &row.part, title].iter().any(|text| text.to_lowercase().contains(&place))
    };
    let meant = |columns: &[String]| match columns {
        [] => table.columns[column].quantity == Some(Quantity::Accuracy),
        columns => columns.iter().any(|c| c.eq_ignore_ascii_case(title)),
    };
    let known = reading.facts.tests.iter().find(|t| fits(&t.place) && meant(&t.columns));
    let exact = title.split('(').next().is_some_and(|t| t.trim().eq_ignore_ascii_case("accuracy"));
    let scored = table.columns[column].quantity == Some(Quantity::Accuracy);
    let beside = || counted(table, row, column).filter(|_| scored);
    known.map(|t| t.n).or_else(beside).or_else(|| stated_rows(reading).filter(|_| exact))
}

/// Titles of columns that count the rows of a test set.
const COUNTS: &[&str] =
    &["n", "rows", "samples", "examples", "items", "total", "test samples", "test rows", "test examples"];

/// Rows that the cell tells (`n = 872`, `801/872`), the headings above, or a column beside it.
fn counted(table: &Table, row: &Row, column: usize) -> Option<f64> {
    let cell = row.cell(column)?;
    let inside = fraction(&cell.text).map(|(_, n)| n).or_else(|| after_n(&cell.text)).or_else(|| after_n(&table.title));
    let title = |c: &usize| COUNTS.contains(&table.columns[*c].title.trim().to_lowercase().as_str());
    let beside = (0..table.columns.len()).find(title).and_then(|c| row.figure(c));
    let whole = beside.filter(|f| f.dimension == Dimension::Plain && f.decimals == 0 && !f.is_range());
    inside.or(whole.map(|f| f.lo)).filter(|n| *n >= 1.0)
}

/// The number behind `n =`.
fn after_n(text: &str) -> Option<f64> {
    figures(text).into_iter().find_map(|f| {
        let before = text[..f.start].trim_end().strip_suffix(['=', ':'])?.trim_end().strip_suffix(['n', 'N'])?;
        let whole = f.dimension == Dimension::Plain && f.decimals == 0;
        (whole && !before.ends_with(char::is_alphanumeric)).then_some(f.lo)
    })
}

/// `801/872`: right answers, and all.
fn fraction(text: &str) -> Option<(f64, f64)> {
    let score = figures(text).into_iter().find(|f| f.dimension == Dimension::Score)?;
    let (right, n) = score.text.split_once('/')?;
    let number = |text: &str| text.replace(',', "").parse::<f64>().ok();
    number(right)
        .zip(number(n))
        .filter(|(right, n)| right.fract() == 0.0 && n.fract() == 0.0 && right <= n && *n >= 2.0)
}

/// The one number of test rows that a report states.
fn stated_rows(reading: &Reading) -> Option<f64> {
    const ROWS: &[&str] = &["samples", "items", "rows", "sentences", "examples", "images", "pairs"];
    let mut all: Vec<f64> = Vec::new();
    for line in &reading.plain {
        let lower = line.to_lowercase();
        for f in figures(line).iter().filter(|f| f.dimension == Dimension::Plain && f.decimals == 0 && f.lo >= 20.0) {
            let (before, after) = (lower.get(..f.start).unwrap_or_default(), lower.get(f.end..).unwrap_or_default());
            let named = after_n(&line[..f.end]) == Some(f.lo)
                || ROWS.iter().any(|word| {
                    before.trim_end_matches([':', ' ', '=']).ends_with(&format!("test {word}"))
                        || after.trim_start().starts_with(&format!("test {word}"))
                });
            if named && !all.contains(&f.lo) {
                all.push(f.lo);
            }
        }
    }
    match all[..] {
        [n] => Some(n),
        _ => None,
    }
}

/// A score as a share, with half a last digit.
fn share(f: &Figure) -> Option<(f64, f64)> {
    match f.dimension {
        Dimension::Percent => Some((f.lo / 100.0, f.half / 100.0)),
        Dimension::Plain if (0.0..=1.0).contains(&f.lo) && f.decimals > 0 => Some((f.lo, f.half)),
        _ => None,
    }
    .filter(|_| !f.is_range())
}

/// 10: every accuracy is a whole number of right answers.
pub(crate) fn counts(reading: &Reading, out: &mut Findings) {
    for table in &reading.tables {
        for column in 1..table.columns.len() {
            for row in &table.rows {
                let Some(n) = rows_of(reading, table, row, column) else { continue };
                let Some((value, half)) = row.figure(column).and_then(share) else { continue };
                let told = row.cell(column).and_then(|c| fraction(&c.text));
                if let Some((right, all)) = told.filter(|(right, all)| (right / all - value).abs() > half + 1e-12) {
                    let printed = row.figure(column).map(|f| f.text.clone()).unwrap_or_default();
                    let text =
                        format!("{}: {printed} is printed, {right}/{all} is {:.4} %", row.name, 100.0 * right / all);
                    out.error([row.line_of(column)], text);
                    continue;
                }
                let Some(right) = laws::broken_count(value, half, n) else { continue };
                let printed = &row.figure(column).map(|f| f.text.clone()).unwrap_or_default();
                let (low, high) = (right.floor(), right.ceil());
                out.error([row.line_of(column)], format!(
                    "{}: {} {printed} of {n} would be {right:.2} right answers; {low}/{n} is {:.2} % and {high}/{n} is {:.2} %",
                    row.name, table.columns[column].title, 100.0 * low / n, 100.0 * high / n
                ));
            }
        }
    }
}

/// 11: shares are at most all, means lie between the least and the most, percentiles ascend.
pub(crate) fn feasible(reading: &Reading, out: &mut Findings) {
    for table in &reading.tables {
        for column in (0..table.columns.len()).filter(|c| table.columns[*c].quantity.is_some_and(Quantity::is_quality))
        {
            for row in &table.rows {
                let Some(f) = row.figure(column).filter(|f| f.dimension == Dimension::Percent) else { continue };
                if f.lo < 0.0 || f.hi > 100.0 {
                    let text = format!("{}: {} {} is no share", row.name, table.columns[column].title, f.text);
                    out.error([row.line_of(column)], text);
                }
            }
        }
        in_order(table, out);
        means(table, out);
        average_drop(reading, table, out);
    }
}

/// Columns that must ascend where they stand in one table.
const ORDERS: &[&[&str]] =
    &[&["min", "mean", "max"], &["min", "median", "max"], &["min", "avg", "max"], &["p50", "p90", "p95", "p99"]];

fn in_order(table: &Table, out: &mut Findings) {
    for order in ORDERS {
        let with = |word: &&&str| {
            (0..table.columns.len()).filter(|c| contains_word(&table.columns[*c].title.to_lowercase(), word)).collect()
        };
        let found: Vec<Vec<usize>> = order.iter().map(|w| with(&w)).collect();
        if found.iter().any(|columns| columns.len() > 1) {
            continue;
        }
        let columns: Vec<usize> = found.into_iter().flatten().collect();
        for row in &table.rows {
            let all: Vec<&Figure> = columns.iter().filter_map(|c| row.figure(*c)).collect();
            let one_unit = all.windows(2).all(|p| p[0].dimension == p[1].dimension);
            if let Some(pair) = all.windows(2).find(|p| p[0].lo - p[0].half > p[1].hi + p[1].half).filter(|_| one_unit)
            {
                let text = format!(
                    "{}: {} stands before {}, in the order {}",
                    row.name,
                    pair[0].text,
                    pair[1].text,
                    order.join(" <= ")
                );
                out.error([row.line], text);
            }
        }
    }
}

/// Words that title a mean.
const MEANS: &[&str] = &["avg", "avg.", "average", "mean", "macro avg", "macro average"];

/// A mean of the rows above it, or of the columns beside it, lies between them.
fn means(table: &Table, out: &mut Findings) {
    let is_mean = |text: &str| MEANS.contains(&text.trim().to_lowercase().as_str());
    let beyond = |mean: &Figure, all: &[&Figure]| {
        let low = all.iter().map(|f| f.interval().0).fold(f64::MAX, f64::min);
        let high = all.iter().map(|f| f.interval().1).fold(f64::MIN, f64::max);
        let outside = mean.interval().1 < low || mean.interval().0 > high;
        (all.len() >= 2 && outside && !mean.is_range()).then_some((low, high))
    };
    // A row called "mean" may be a baseline that always answers it.
    let is_row = |r: &Row| is_mean(&r.name) && !r.name.trim().eq_ignore_ascii_case("mean");
    for (i, row) in table.rows.iter().enumerate().filter(|(_, r)| is_row(r)) {
        for column in 1..table.columns.len() {
            let Some(mean) = row.figure(column) else { continue };
            let above: Vec<&Figure> = table.rows[..i]
                .iter()
                .filter_map(|r| r.figure(column))
                .filter(|f| f.dimension == mean.dimension)
                .collect();
            if let Some(bounds) = beyond(mean, &above) {
                let text = format!(
                    "{} {} is not between the rows above, {}",
                    table.columns[column].title,
                    mean.text,
                    span(bounds)
                );
                out.error([row.line_of(column)], text);
            }
        }
    }
    let Some(mean) = table.columns.iter().position(|c| is_mean(&c.title)) else { return };
    for row in &table.rows {
        let Some(f) = row.figure(mean) else { continue };
        // All columns of scores, or none: a count or a size beside them is of another kind.
        let others = (1..table.columns.len()).filter(|c| *c != mean).map(|c| (c, row.figure(c)));
        let others: Vec<(usize, Option<&Figure>)> = others.collect();
        let alike = |c: usize, f: &Figure, g: &Figure| {
            let quantity = table.columns[c].quantity;
            g.dimension == f.dimension && g.decimals == f.decimals && quantity.is_none_or(Quantity::is_quality)
        };
        let scores: Vec<&Figure> = others.iter().filter_map(|(c, g)| g.filter(|g| alike(*c, f, g))).collect();
        if scores.len() < others.len() {
            continue;
        }
        if let Some(bounds) = beyond(f, &scores) {
            out.error(
                [row.line_of(mean)],
                format!("{}: mean {} is not between its parts, {}", row.name, f.text, span(bounds)),
            );
        }
    }
}

/// How many values a chain such as `EN > ES > FR` orders.
fn chain(reading: &Reading) -> Option<(f64, usize)> {
    reading.plain.iter().enumerate().find_map(|(i, line)| {
        let at = line.rfind(':').map_or(0, |at| at + 1);
        let parts: Vec<&str> = line[at..].split('>').map(str::trim).collect();
        let short = parts.iter().all(|p| !p.is_empty() && p.split_whitespace().count() <= 2);
        (parts.len() >= 4 && short).then_some((parts.len() as f64, i + 1))
    })
}

/// An average drop lies between those of the best and the worst, both of which are there.
fn average_drop(reading: &Reading, table: &Table, out: &mut Findings) {
    let titled = |words: &[&str]| {
        table.columns.iter().position(|c| words.iter().any(|w| contains_word(&c.title.to_lowercase(), w)))
    };
    let (Some(mean), Some(best), Some(worst)) =
        (titled(&["avg", "average", "mean"]), titled(&["best"]), titled(&["worst"]))
    else {
        return;
    };
    if table.columns[mean].quantity != Some(Quantity::Drop) {
        return;
    }
    // The language of the base stands first in the chain, the drops are those of the others.
    let order = chain(reading);
    let Some(parts) = reading.facts.parts.or(order.map(|(n, _)| n - 1.0)) else { return };
    for row in &table.rows {
        let Some((base, at)) = base_of(reading, table, row) else { continue };
        let (Some(m), Some(b), Some(w)) = (row.figure(mean), row.figure(best), row.figure(worst)) else { continue };
        let (least, most) = (base.value() - b.value(), base.value() - w.value());
        let half = base.half + b.half.max(w.half);
        let bounds = laws::mean_bounds(least, most, parts);
        let wide: Span = (bounds.0 - half, bounds.1 + half);
        if !meet(wide, m.interval()) {
            let lines = [row.line, at].into_iter().chain(order.map(|o| o.1));
            out.error(lines, format!(
                "{}: average {} is printed, but with drops from {least:.2} ({} - {}) to {most:.2} ({} - {}) the mean of {parts} is {}",
                row.name, m.text, base.text, b.text, base.text, w.text, span(bounds)
            ));
        }
    }
}

/// The accuracy that drops are counted from: of the same name, in the nearest table before.
fn base_of<'a>(reading: &'a Reading, table: &Table, row: &Row) -> Option<(&'a Figure, usize)> {
    let before = reading.tables.iter().filter(|t| t.line < table.line && !t.of(Quantity::Accuracy).is_empty());
    let nearest = before.max_by_key(|t| t.line)?;
    let column = nearest.of(Quantity::Accuracy)[0];
    let base = nearest.rows.iter().find(|r| r.name == row.name)?;
    Some((base.figure(column)?, base.line_of(column)))
}

/// Words that rank.
const RANKING: &[&str] = &[
    "highest",
    "best",
    "better",
    "outperforms",
    "superior",
    "worse",
    "degradation",
    "lowest",
    "significant",
    "accuracy drop",
];

/// 12: accuracies that are ranked have an n and an interval, and differ by more than noise.
pub(crate) fn intervals(reading: &Reading, out: &mut Findings) {
    if reading.says(SPREAD) {
        return;
    }
    small_samples(reading, out);
    let ranks = |s: &&Sentence| s.has(RANKING) && s.lower.contains("accura");
    let ranked: Vec<&Sentence> = reading.sentences.iter().filter(ranks).collect();
    let mut unknown = Vec::new();
    for table in &reading.tables {
        for column in table.of(Quantity::Accuracy) {
            let of = |row: &Row| {
                let (value, _) = share(row.figure(column)?)?;
                Some((row.name.clone(), value, rows_of(reading, table, row, column), row.line_of(column)))
            };
            let mut rows: Vec<_> = table.rows.iter().filter_map(of).collect();
            if rows.len() < 2 {
                continue;
            }
            rows.sort_by(|a, b| b.1.total_cmp(&a.1));
            match rows[0].2.zip(rows[1].2) {
                Some((n, _)) => noise(&rows, n, &ranked, out),
                None => unknown.extend(rows.iter().map(|r| r.3)),
            }
        }
    }
    if !unknown.is_empty() && !ranked.is_empty() {
        let lines = unknown.into_iter().chain(ranked.iter().map(|s| s.line));
        out.warn(lines, "accuracies are ranked without a number of test rows, a seed or an interval".into());
    }
    claimed_trends(reading, out);
}

/// Accuracies by rank: name, share, n and line.
type Ranked = (String, f64, Option<f64>, usize);

fn noise(rows: &[Ranked], n: f64, ranked: &[&Sentence], out: &mut Findings) {
    let (first, last) = (&rows[0], &rows[rows.len() - 1]);
    let error = |a: f64, b: f64| (laws::standard_error(a, n).powi(2) + laws::standard_error(b, n).powi(2)).sqrt();
    let second = &rows[1];
    let difference = first.1 - second.1;
    let limit = 1.96 * error(first.1, second.1);
    if difference > limit {
        return;
    }
    let all = first.1 - last.1 <= 1.96 * error(first.1, last.1);
    let lines = if all { rows.iter().map(|r| r.3).collect() } else { vec![first.3, second.3] };
    let whom = if all {
        "no order of the rows is supported".to_string()
    } else {
        format!("{} is not shown to be above {}", first.0, second.0)
    };
    let items = (difference * n).round();
    out.warn(lines.into_iter().chain(ranked.iter().map(|s| s.line)), format!(
        "{:.2} % and {:.2} % differ by {:.2} points, {items} of {n} answers; the 95 % interval of a difference is \u{b1}{:.2} points: {whom}",
        100.0 * first.1, 100.0 * second.1, 100.0 * difference, 100.0 * limit
    ));
}

/// Intervals of accuracies of few rows.
fn small_samples(reading: &Reading, out: &mut Findings) {
    for table in &reading.tables {
        for column in table.of(Quantity::Accuracy) {
            for row in &table.rows {
                let Some(n) = rows_of(reading, table, row, column).filter(|n| *n <= 200.0) else { continue };
                let Some((value, _)) = row.figure(column).and_then(share) else { continue };
                let (lo, hi) = wilson((value * n).round() as u64, n as u64);
                out.warn(
                    [row.line_of(column)],
                    format!(
                        "{} {}: {value} of {n} rows has the 95 % interval {lo:.3} to {hi:.3}, which is not shown",
                        row.name, row.part
                    ),
                );
            }
        }
    }
}

/// "Correlates" needs more than a handful of points.
fn claimed_trends(reading: &Reading, out: &mut Findings) {
    const POINTS: usize = 5;
    let trends = reading.sentences.iter().filter(|s| s.lower.contains("correlat"));
    for sentence in trends {
        let names = reading.names.all.iter().enumerate().filter(|(_, n)| n.parameters.is_some());
        let points: Vec<(String, f64, f64, usize)> = names
            .filter_map(|(id, n)| {
                let v = super::values(reading, id, Quantity::Power).into_iter().next()?;
                Some((n.text.clone(), v.figure.value(), n.parameters.as_ref()?.value, v.line))
            })
            .collect();
        if points.is_empty() || points.len() >= POINTS {
            continue;
        }
        let each: Vec<String> =
            points.iter().map(|(n, watts, p, _)| format!("{n} {}", short(watts / (p / 1e6)))).collect();
        let lines = points.iter().map(|p| p.3).chain([sentence.line]);
        out.warn(
            lines,
            format!(
                "a correlation of {} points; watts per million parameters are {}, so they are not proportional",
                points.len(),
                each.join(", ")
            ),
        );
    }
}

/// Values beyond which something else must be behind them: words of the row, quantity in percent, and why.
const LIMITS: &[(&[&str], f64, &str)] = &[(
    &["cifar-10", "mlp"],
    60.0,
    "plain perceptrons reach 48 to 54 % on CIFAR-10 (G\u{e9}ron, Hands-On Machine Learning, ch. 11)",
)];

/// 7: no score beyond what is known to be possible.
pub(crate) fn plausible(reading: &Reading, out: &mut Findings) {
    for table in &reading.tables {
        for column in table.of(Quantity::Accuracy) {
            for row in &table.rows {
                let words: String = row.cells.iter().flatten().map(|c| c.text.to_lowercase() + " ").collect();
                let Some(f) = row.figure(column) else { continue };
                for (_, limit, why) in LIMITS.iter().filter(|(all, ..)| all.iter().all(|w| contains_word(&words, w))) {
                    if f.dimension == Dimension::Percent && f.lo > *limit {
                        let text = format!("{}: {} is implausible, {why}: it needs a second witness", row.name, f.text);
                        out.error([row.line_of(column)], text);
                    }
                }
            }
        }
    }
    for anchor in reading.facts.anchors.iter().filter(|a| a.n.is_some()) {
        for table in &reading.tables {
            let Some(column) = table.columns.iter().position(|c| c.title.eq_ignore_ascii_case(&anchor.column)) else {
                continue;
            };
            for row in table.rows.iter().filter(|r| r.name.eq_ignore_ascii_case(&anchor.row)) {
                let Some((value, _)) = row.figure(column).and_then(share) else { continue };
                let published = anchor.value / 100.0;
                let error = 3.0 * laws::standard_error(published, anchor.n.unwrap_or(1.0));
                if value > published + error {
                    out.error(
                        [row.line_of(column)],
                        format!(
                            "{}: {:.2} % is {:.1} points above the published {} % (+ 3 standard errors = {:.1}): {}",
                            row.name,
                            100.0 * value,
                            100.0 * (value - published),
                            anchor.value,
                            100.0 * (published + error),
                            anchor.source
                        ),
                    );
                }
            }
        }
    }
}

/// 32: an F1 says over what it is averaged, and a macro F1 is the mean of the classes.
pub(crate) fn aggregation(reading: &Reading, out: &mut Findings) {
    for table in &reading.tables {
        let all = table.of(Quantity::F1);
        let class = |c: &usize| {
            let column = &table.columns[*c];
            let title = column.title.to_lowercase();
            column.group.to_lowercase().contains("class") && !title.contains("macro") && !title.contains("f1")
        };
        let classes: Vec<usize> = all.iter().copied().filter(class).collect();
        let whole = all.iter().copied().find(|c| table.columns[*c].title.to_lowercase().contains("macro"));
        if let Some(whole) = whole.filter(|_| classes.len() >= 2) {
            for row in &table.rows {
                let parts: Option<Vec<&Figure>> = classes.iter().map(|c| row.figure(*c)).collect();
                let (Some(parts), Some(f)) = (parts, row.figure(whole)) else { continue };
                let n = parts.len() as f64;
                let mean = parts.iter().map(|f| f.value()).sum::<f64>() / n;
                let half = parts.iter().map(|f| f.half).sum::<f64>() / n;
                if !meet((mean - half, mean + half), f.interval()) {
                    let text =
                        format!("{}: macro F1 {} is printed, the mean of {n} classes is {mean:.4}", row.name, f.text);
                    out.error([row.line_of(whole)], text);
                }
            }
        }
    }
    const MODES: &[&str] = &["macro", "micro", "weighted", "binary", "per-class", "per class"];
    let unnamed = |t: &Table| t.of(Quantity::F1).into_iter().any(|c| t.columns[c].title.to_lowercase().contains("f1"));
    let tables: Vec<usize> = reading.tables.iter().filter(|t| unnamed(t)).map(|t| t.line).collect();
    let claims = reading.sentences.iter().any(|s| s.has(RANKING));
    if !tables.is_empty() && claims && !reading.says(MODES) {
        out.warn(tables, "an F1 score without its average: macro, micro, weighted or of one class".into());
    }
}

/// Words that introduce a loss under a bound.
const LOSS: &[&str] = &["loss", "degradation", "drop"];

/// 27: a bound on the loss holds for every table, as a relative change too.
pub(crate) fn losses(reading: &Reading, out: &mut Findings) {
    for sentence in reading.sentences.iter().filter(|s| s.has(LOSS) && s.lower.contains("accura")) {
        let bound = sentence.figures.iter().find(|f| {
            f.dimension == Dimension::Percent && (f.open_below || sentence.text[..f.start].ends_with(['<', '\u{2264}']))
        });
        let Some(bound) = bound.filter(|b| b.hi < 10.0) else { continue };
        let mut beyond = Vec::new();
        for table in &reading.tables {
            if let ([a, b], false) = (&table.of(Quantity::Loss)[..], table.of(Quantity::Difference).is_empty()) {
                for row in &table.rows {
                    let (Some(x), Some(y)) = (row.figure(*a), row.figure(*b)) else { continue };
                    let change = 100.0 * (y.value() / x.value() - 1.0);
                    if change > bound.hi {
                        beyond.push((row.line, format!("{} {} to {} is +{change:.1} %", row.name, x.text, y.text)));
                    }
                }
            }
            if let ([column], true) = (&table.of(Quantity::Accuracy)[..], table.of(Quantity::Speedup).len() == 1) {
                let all: Vec<_> =
                    table.rows.iter().filter_map(|r| Some((r.figure(*column)?, r.line_of(*column)))).collect();
                let most = all.iter().max_by(|a, b| a.0.lo.total_cmp(&b.0.lo));
                let least = all.iter().min_by(|a, b| a.0.lo.total_cmp(&b.0.lo));
                if let Some((most, least)) = most.zip(least).filter(|(a, b)| a.0.lo - b.0.lo > bound.hi) {
                    let text =
                        format!("{} against {} is {:.1} points", least.0.text, most.0.text, most.0.lo - least.0.lo);
                    beyond.extend([(least.1, text.clone()), (most.1, text)]);
                }
            }
        }
        if !beyond.is_empty() {
            let mut texts: Vec<&str> = beyond.iter().map(|b| b.1.as_str()).collect();
            texts.dedup();
            let lines = beyond.iter().map(|b| b.0).chain([sentence.line]);
            out.error(lines, format!("a loss of {} is said, but {}", bound.text, texts.join("; ")));
        }
    }
}
