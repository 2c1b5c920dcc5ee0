//! The tables of one task. Every number is asked of [`super::query`].

use super::compare::{Comparison, Standing, VariantRow, Verdict, is_low_bit};
use super::document::{Block, Cell, MISSING, Source, Table};
use super::measures::title;
use super::noise::{Pace, UNSTEADY};
use super::number;
use super::query::What;
use super::seeds::{self, OverSeeds};
use super::sentence::Tone;
use crate::faithfulness::METRICS;
use crate::metrics::{Confusion, DROP};
use std::collections::BTreeMap;

mod cost;
mod overview;

pub(crate) use cost::{cost, ledger, others};
pub(crate) use overview::{brief, in_short, of_choice, overview};

/// Classes up to which a confusion matrix is printed whole.
const MATRIX_CLASSES: usize = 20;
/// Variants whose confusions are printed; the records hold the others.
const MATRICES: usize = 60;
/// Confusions listed where there are more classes.
const TOP_CONFUSIONS: usize = 20;

fn measure(name: &str) -> What {
    What::Measure(name.into())
}

/// One column: its title and how a variant fills it.
struct ReportColumn<'c> {
    title: String,
    cell: Box<dyn Fn(&VariantRow) -> Cell + 'c>,
}

impl<'c> ReportColumn<'c> {
    /// A column filled by one query.
    fn asks(c: &'c Comparison, title: impl Into<String>, what: What) -> Self {
        ReportColumn { title: title.into(), cell: Box::new(move |r| ask(c, r, what.clone())) }
    }

    /// A column of measure `name` with its range as a second line.
    fn ranged(c: &'c Comparison, title: &str, name: &'static str) -> Self {
        ReportColumn { title: title.into(), cell: Box::new(move |r| ask(c, r, measure(name)).with_range(c, r, name)) }
    }
}

fn ask(c: &Comparison, row: &VariantRow, what: What) -> Cell {
    let figure = c.ask(row.name(), what);
    let mark = figure.as_ref().and_then(|f| f.mark).unwrap_or_default();
    let cell = Cell::number(figure.as_ref().map(|f| f.text.clone())).with_note(mark);
    Cell { source: figure.map(|figure| Source { task: c.task.into(), figure }), ..cell }
}

impl Cell {
    /// "95.1 to 96.4" under the value, where the measure has ends.
    fn with_range(mut self, c: &Comparison, row: &VariantRow, name: &'static str) -> Self {
        if let (Some(lo), Some(hi)) = (c.ask(row.name(), What::Low(name)), c.ask(row.name(), What::High(name))) {
            let range = format!("{} to {}", lo.text, hi.text);
            self.note = if self.note.is_empty() { range } else { format!("{range}, {}", self.note) };
        }
        self
    }
}

fn table<'r, 'a: 'r>(
    caption: &str,
    rows: impl Iterator<Item = &'r VariantRow<'a>>,
    columns: Vec<ReportColumn>,
    foot: &str,
) -> Option<Table> {
    let mut out = Table { caption: caption.into(), head: vec!["Variant".into()], rows: Vec::new(), foot: foot.into() };
    out.head.extend(columns.iter().map(|col| col.title.clone()));
    out.rows = rows
        .map(|row| std::iter::once(Cell::words(row.name())).chain(columns.iter().map(|col| (col.cell)(row))).collect())
        .collect();
    (!out.rows.is_empty()).then_some(out)
}

/// How a variant came to be.
pub(crate) fn made(row: &VariantRow) -> String {
    let detail = &row.record.detail;
    let by = detail.method.as_ref().map_or_else(String::new, |method| format!(" by {method}"));
    match (detail.made.as_str(), &detail.parent) {
        ("baseline", _) => "baseline, no network".to_string(),
        (made, Some(parent)) => format!("{made}{by} from {parent}"),
        (made, None) => format!("{made}{by}"),
    }
}

fn change_cell(c: &Comparison, row: &VariantRow) -> Cell {
    if row.verdict == Verdict::Reference {
        return Cell::instead("reference");
    }
    let [what, lo, hi] = match row.bits {
        Some(_) => [What::Bits, What::BitsLow, What::BitsHigh],
        None => [What::Points, What::PointsLow, What::PointsHigh],
    };
    let mut cell = ask(c, row, what);
    if let (Some(lo), Some(hi)) = (c.ask(row.name(), lo), c.ask(row.name(), hi)) {
        cell.note = format!("{} to {}", lo.text, hi.text);
    }
    cell
}

/// A ratio against the reference; the reference itself has none.
fn ratio_cell(c: &Comparison, row: &VariantRow, what: What) -> Cell {
    if row.verdict == Verdict::Reference { Cell::instead("reference") } else { ask(c, row, what) }
}

fn verdict_cell(c: &Comparison, row: &VariantRow) -> Cell {
    let (text, tone) = match row.verdict {
        Verdict::Reference => ("reference", Tone::Neutral),
        Verdict::Baseline => ("baseline", Tone::Neutral),
        Verdict::Same => ("no loss shown", Tone::Good),
        Verdict::Undecided => ("undecided", Tone::Neutral),
        Verdict::Void => ("says nothing", Tone::Neutral),
        Verdict::Higher if row.bits.is_some() => ("fewer bits", Tone::Good),
        Verdict::Lower if row.bits.is_some() => ("more bits", Tone::Warn),
        Verdict::Higher => ("higher", Tone::Good),
        Verdict::Lower => ("lower", Tone::Warn),
        Verdict::Fails => ("fails", Tone::Bad),
        Verdict::Unknown => (MISSING, Tone::Neutral),
    };
    let meaningful = c.reference().is_some() && c.standing != Some(Standing::NothingLearnt);
    let dominated = row.dominated_by.filter(|_| row.network() && meaningful);
    let note = dominated.map(|by| format!("dominated by {by}")).unwrap_or_default();
    Cell { tone: Some(tone), missing: text == MISSING, ..Cell::words(text).with_note(note) }
}

/// Everything about accuracy, with the three ways to state a change side by side.
pub(crate) fn quality(c: &Comparison) -> Option<Table> {
    let name = c.quality()?;
    let change = |what: What| move |r: &VariantRow| ratio_cell(c, r, what.clone());
    let defined = |r: &VariantRow, cell: Cell| {
        if cell.missing && r.change.is_some() { Cell::instead("not defined") } else { cell }
    };
    let column = |title: &str, what: What| {
        let fill = change(what);
        ReportColumn { title: title.into(), cell: Box::new(move |r| defined(r, fill(r))) }
    };
    let mut columns = vec![
        ReportColumn::ranged(c, &title(name), name),
        ReportColumn { title: "Change, points".into(), cell: Box::new(|r| change_cell(c, r)) },
        column("Relative change", What::Relative),
        column("Error-rate change", What::ErrorRate),
        column(if name == "r2" { "Paired test" } else { "McNemar" }, What::P),
        column("After Holm", What::Corrected),
    ];
    if name == "accuracy" {
        columns.push(ReportColumn { title: "Rows won / lost".into(), cell: Box::new(|r| won_lost(c, r)) });
    }
    for name in ["mse", "mae"].into_iter().filter(|name| c.has(name)) {
        columns.push(ReportColumn::ranged(c, &title(name), name));
    }
    for name in ["f1_macro", "precision_macro", "recall_macro"].into_iter().filter(|name| c.has(name)) {
        columns.push(ReportColumn::ranged(c, &title(name), name));
    }
    let foot = "Changes are against the reference on the same rows. Points are differences of percentages; the relative \
                change divides them by what the reference gets right, the error-rate change by what it gets wrong.";
    table("Quality and change", c.rows.iter(), columns, foot)
}

/// What other trainings give, where there were several.
pub(crate) fn over_seeds(c: &Comparison) -> Option<Table> {
    let reference = c.reference().filter(|_| seeds::any(c))?.name();
    let between = |r: &VariantRow, what: OverSeeds, [low, high]: [OverSeeds; 2]| {
        let end = |what| c.ask(r.name(), What::Seeds(what)).map(|figure| figure.text);
        let range = end(low).zip(end(high)).map(|(low, high)| format!("{low} to {high}"));
        ask(c, r, What::Seeds(what)).with_note(range.unwrap_or_default())
    };
    let unit = if c.quality().is_some() { ", percent" } else { "" };
    let mean = move |r: &VariantRow| between(r, OverSeeds::Mean, [OverSeeds::MeanLow, OverSeeds::MeanHigh]);
    let change = move |r: &VariantRow| match r.verdict {
        Verdict::Reference => Cell::instead("reference"),
        _ => between(r, OverSeeds::Change, [OverSeeds::ChangeLow, OverSeeds::ChangeHigh]),
    };
    let against = match c.quality() {
        Some(_) => format!("Points against {reference}, mean"),
        None => "Change of bits per byte, mean".into(),
    };
    let columns = vec![
        ReportColumn::asks(c, "Trainings", What::Seeds(OverSeeds::Count)),
        ReportColumn { title: format!("{}, mean{unit}", title(seeds::measure(c))), cell: Box::new(mean) },
        ReportColumn::asks(c, format!("Least{unit}"), What::Seeds(OverSeeds::Least)),
        ReportColumn::asks(c, format!("Most{unit}"), What::Seeds(OverSeeds::Most)),
        ReportColumn { title: against, cell: Box::new(change) },
    ];
    let foot = "Each network was trained from several seeds, and every variant made of each; differences are between networks of one \
                seed. Ranges: 95 % intervals by Student's t over seeds, for what another training would give on these test rows. \
                The intervals of all other tables are about the networks of the first seed, and for other test rows.";
    table("Over seeds", c.networks(), columns, foot)
}

/// Accuracy of every part of the test rows, and what is lost beyond the part that is trained on.
pub(crate) fn parts(c: &Comparison) -> Option<Table> {
    let parts = &c.rows.iter().find(|r| !r.record.detail.parts.is_empty())?.record.detail.parts;
    let names = parts.iter().map(|part| format!("accuracy/{}", part.name)).filter(|name| c.has(name));
    let mut columns: Vec<ReportColumn> =
        names.map(|name| ReportColumn::asks(c, title(&name), measure(&name))).collect();
    if c.has(DROP) {
        columns.push(ReportColumn::ranged(c, &title(DROP), DROP));
    }
    let foot = "Networks are trained on rows of the kind of the first part. The drop is its accuracy minus the mean of the others.";
    table("Accuracy by part", c.rows.iter(), columns, foot)
}

/// Accuracy and latency of the test rows by the length of their texts.
pub(crate) fn lengths(c: &Comparison) -> Option<Table> {
    let lengths = c.rows.iter().find_map(|r| r.record.detail.lengths.as_ref())?;
    let ranges = lengths.ranges();
    let names = ["accuracy_tokens/", "latency_tokens/"]
        .into_iter()
        .flat_map(|family| ranges.iter().map(move |(range, _)| format!("{family}{range}")));
    let columns = names.filter(|name| c.has(name)).map(|name| ReportColumn::asks(c, title(&name), measure(&name)));
    let rows = |(range, rows): &(String, Vec<usize>)| format!("{} of {range} tokens", number::count(rows.len() as f64));
    let foot = format!("Rows of the first network: {}.", ranges.iter().map(rows).collect::<Vec<_>>().join(", "));
    table("By length of the text", c.rows.iter(), columns.collect(), &foot)
}

/// How far the answers of every network are from those of its reference, whatever is right: a table for each reference.
pub(crate) fn faithfulness(c: &Comparison) -> Vec<Option<Table>> {
    let mut references: Vec<&str> = Vec::new();
    for name in c.rows.iter().filter_map(|r| r.record.detail.reference.as_deref()) {
        if !references.contains(&name) {
            references.push(name);
        }
    }
    references.into_iter().map(|reference| faithfulness_to(c, reference)).collect()
}

fn faithfulness_to(c: &Comparison, reference: &str) -> Option<Table> {
    let shown = METRICS.iter().filter(|name| c.has(name));
    let column = |name: &'static str| {
        let reference = reference.to_string();
        ReportColumn {
            title: title(name),
            cell: Box::new(move |r: &VariantRow| match r.name() == reference {
                true => Cell::instead("reference"),
                false => ask(c, r, measure(name)).with_range(c, r, name),
            }),
        }
    };
    let rows = c.networks().filter(|r| r.record.detail.reference.as_deref() == Some(reference));
    let foot = "On the test rows, without asking which answer is right. Divergences in nats. RMS: root mean square difference of \
                the probability given to the right answer, and to the one that the reference has at the top.";
    table(&format!("Faithfulness to {reference}"), rows, shown.map(|name| column(name)).collect(), foot)
}

fn won_lost(c: &Comparison, row: &VariantRow) -> Cell {
    if row.verdict == Verdict::Reference {
        return Cell::instead("reference");
    }
    let pair = c.ask(row.name(), What::Gained).zip(c.ask(row.name(), What::Lost));
    Cell::number(pair.map(|(won, lost)| format!("{} / {}", won.text, lost.text)))
}

/// F1 of every class, or of the [`MATRIX_CLASSES`] that the reference finds hardest.
pub(crate) fn classes(c: &Comparison) -> Option<Table> {
    let classes = &c.rows.iter().find(|r| !r.record.detail.classes.is_empty())?.record.detail.classes;
    let name = |class: &String| format!("f1/{class}");
    let occurring = |class: &&String| c.rows.iter().any(|r| r.record.measures.contains_key(&name(class)));
    let mut shown: Vec<&String> = classes.iter().filter(occurring).collect();
    let foot = if shown.len() > MATRIX_CLASSES {
        let of = |class: &String| c.reference().and_then(|r| r.value(&name(class))).unwrap_or(0.0);
        shown.sort_by(|a, b| of(a).total_cmp(&of(b)));
        shown.truncate(MATRIX_CLASSES);
        "The classes with the least F1 of the reference; all are in results.csv."
    } else {
        "Not measured: the class occurs neither among the truths nor among the answers of the variant."
    };
    let columns = shown.iter().map(|class| ReportColumn::asks(c, class.as_str(), measure(&name(class)))).collect();
    let rows = c.rows.iter().filter(|r| r.record.measures.keys().any(|k| k.starts_with("f1/")));
    let mut out = table("F1 per class", rows, columns, foot)?;
    if classes.len() <= MATRIX_CLASSES && out.rows.iter().flatten().all(|cell| !cell.missing) {
        out.foot.clear();
    }
    Some(out)
}

/// One folded confusion matrix per variant, or one list of confusions.
pub(crate) fn confusions(c: &Comparison) -> Vec<Block> {
    let table = |row: &VariantRow| {
        let detail = &row.record.detail;
        let counted = match detail.confusion.is_empty() {
            true => Confusion::new(detail.classes.len(), &detail.truths, &detail.answers).ok(),
            false => Confusion::of_matrix(&detail.confusion),
        }?;
        let small = counted.classes() <= MATRIX_CLASSES;
        Some(if small { matrix(&detail.classes, &counted.matrix()) } else { top(&detail.classes, &counted) })
    };
    let with = c.rows.iter().take(MATRICES).filter_map(|row| Some((row.name(), table(row)?)));
    with.map(|(name, table)| Block::Details(name.into(), vec![Block::Table(table)])).collect()
}

fn class_name(classes: &[String], i: usize) -> String {
    classes.get(i).cloned().unwrap_or_else(|| i.to_string())
}

fn matrix(classes: &[String], counts: &[Vec<u64>]) -> Table {
    let mut head = vec!["true \u{2193} answer \u{2192}".to_string()];
    head.extend((0..counts.len()).map(|i| class_name(classes, i)));
    let row = |(i, line): (usize, &Vec<u64>)| {
        let sum = line.iter().sum::<u64>().max(1) as f64;
        let cell = |n: &u64| Cell { heat: Some(*n as f64 / sum), ..Cell::number(Some(number::count(*n as f64))) };
        std::iter::once(Cell::words(class_name(classes, i))).chain(line.iter().map(cell)).collect()
    };
    let rows = counts.iter().enumerate().map(row).collect();
    Table { caption: String::new(), head, rows, foot: "Rows of the test split. Shade: share of the true class.".into() }
}

fn top(classes: &[String], counted: &Confusion) -> Table {
    let wrong = counted.cells().filter(|((truth, answer), _)| truth != answer);
    let mut all: Vec<(u64, usize, usize)> =
        wrong.map(|((truth, answer), n)| (n, usize::from(truth), usize::from(answer))).collect();
    all.sort_by(|a, b| b.0.cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let rows = all
        .into_iter()
        .take(TOP_CONFUSIONS)
        .map(|(n, i, j)| {
            let count = Cell::number(Some(number::count(n as f64)));
            vec![Cell::words(class_name(classes, i)), Cell::words(class_name(classes, j)), count]
        })
        .collect();
    let head = vec!["True class".into(), "Answer".into(), "Rows".into()];
    Table { caption: "Most frequent confusions".into(), head, rows, foot: String::new() }
}

/// Where the bytes are.
pub(crate) fn size(c: &Comparison) -> Option<Table> {
    let mut columns = vec![
        ReportColumn::asks(c, "Weights", measure("weight_bytes")),
        ReportColumn { title: "Times smaller".into(), cell: Box::new(|r| ratio_cell(c, r, What::Smaller)) },
        ReportColumn::asks(c, "Parameters", What::Parameters),
        ReportColumn::asks(c, "Share quantized", What::ShareQuantized),
        ReportColumn { title: "Bits per weight, quantized tensors".into(), cell: Box::new(|r| quantized_bits(c, r)) },
        ReportColumn::asks(c, "Bits per parameter, all", What::BitsAll),
    ];
    if c.rows.iter().any(|r| c.ask(r.name(), What::Zeros).is_some()) {
        columns.push(ReportColumn { title: "Zeros, quantized tensors".into(), cell: Box::new(|r| zeros(c, r)) });
    }
    if c.rows.iter().any(|r| c.ask(r.name(), What::Padding).is_some_and(|f| f.value > 0.0)) {
        columns.push(ReportColumn::asks(c, "Padding", What::Padding));
    }
    let foot = "Bits count codes and scales. Quantized means stored in fewer than 16 bits. Weights are read from the file \
                as stored, not computed from a nominal width; padding is the share of them that fills up rows and columns to \
                the units of the kernels, which counts in a tiny network and not in a large one.";
    table("Weights", c.networks(), columns, foot)
}

fn quantized_bits(c: &Comparison, row: &VariantRow) -> Cell {
    match &row.ledger {
        Some(ledger) if ledger.bits_quantized.is_none() => Cell::instead("none quantized"),
        _ => ask(c, row, What::BitsQuantized),
    }
}

fn zeros(c: &Comparison, row: &VariantRow) -> Cell {
    match &row.ledger {
        Some(ledger) if ledger.bits_quantized.is_none() => Cell::instead("none quantized"),
        _ => ask(c, row, What::Zeros),
    }
}

/// Which format each role is stored in.
pub(crate) fn formats(c: &Comparison) -> Option<Table> {
    let roles = ["embedding", "body", "head", "norm", "bias", "statistics"];
    let with = || c.networks().filter(|r| !r.record.detail.tensors.is_empty());
    let used = roles.into_iter().filter(|role| with().any(|r| r.record.detail.tensors.iter().any(|t| t.role == *role)));
    let mut columns: Vec<ReportColumn> =
        used.map(|role| ReportColumn { title: role.into(), cell: Box::new(move |r| role_formats(r, role)) }).collect();
    let activations = |r: &VariantRow| match &r.record.detail.activations {
        Some(kind) => Cell::words(kind.clone()),
        None => Cell { missing: true, ..Cell::words(MISSING) },
    };
    columns.push(ReportColumn { title: "activations".into(), cell: Box::new(activations) });
    columns.push(ReportColumn { title: "recipe".into(), cell: Box::new(|r| Cell::words(r.record.recipe.clone())) });
    table("Formats by role", with(), columns, "")
}

/// "body int8, head f32; activations int8": how the tensors of a network are stored.
pub(crate) fn stored(row: &VariantRow) -> String {
    let of = |role: &str| {
        let cell = role_formats(row, role);
        row.record.detail.tensors.iter().any(|t| t.role == role).then(|| format!("{role} {}", cell.text))
    };
    let roles: Vec<String> = ["body", "embedding", "head"].into_iter().filter_map(of).collect();
    let activations = row.record.detail.activations.as_ref().map(|kind| format!("; activations {kind}"));
    format!("{}{}", roles.join(", "), activations.unwrap_or_default())
}

fn role_formats(row: &VariantRow, role: &str) -> Cell {
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for tensor in row.record.detail.tensors.iter().filter(|t| t.role == role) {
        *seen.entry(&tensor.format).or_default() += tensor.rows * tensor.cols;
    }
    let low = seen.keys().any(|f| is_low_bit(f));
    let text = seen.keys().copied().collect::<Vec<_>>().join(", ");
    Cell { tone: low.then_some(Tone::Good), ..Cell::words(if seen.is_empty() { "absent".into() } else { text }) }
}

/// Latency and throughput.
pub(crate) fn speed(c: &Comparison) -> Option<Table> {
    let mut columns = vec![
        ReportColumn::ranged(c, "p50", "latency_p50"),
        ReportColumn::asks(c, "p90", measure("latency_p90")),
        ReportColumn::asks(c, "p99", measure("latency_p99")),
        ReportColumn { title: "Times faster, p50".into(), cell: Box::new(|r| pace_cell(c, r)) },
        ReportColumn { title: "Variation".into(), cell: Box::new(|r| variation(c, r)) },
        ReportColumn::asks(c, "Runs", What::Samples),
    ];
    for name in batches(c) {
        columns.push(ReportColumn::asks(c, title(&name), measure(&name)));
    }
    let foot = "Latency: one example at a time (batch 1). Range: lowest and highest run. Variation: standard deviation over \
                mean. Throughput: examples per second. Ratios need raw runs on both sides.";
    table("Latency and throughput", c.networks(), columns, foot)
}

/// Whether the raw latencies of a variant vary more than a steady machine's.
fn is_unsteady(c: &Comparison, row: &VariantRow) -> bool {
    c.ask(row.name(), What::Variation).is_some_and(|f| f.value > UNSTEADY)
}

fn variation(c: &Comparison, row: &VariantRow) -> Cell {
    let cell = ask(c, row, What::Variation);
    if is_unsteady(c, row) { Cell { tone: Some(Tone::Warn), ..cell.with_note("unsteady") } } else { cell }
}

/// Throughput measures by batch size; 8 and 32 are always named.
fn batches(c: &Comparison) -> Vec<String> {
    let mut sizes: Vec<u64> = vec![8, 32];
    for row in &c.rows {
        sizes.extend(row.record.measures.keys().filter_map(|k| k.strip_prefix("throughput/")?.parse::<u64>().ok()));
    }
    sizes.sort_unstable();
    sizes.dedup();
    sizes.into_iter().map(|n| format!("throughput/{n}")).collect()
}

fn pace_cell(c: &Comparison, row: &VariantRow) -> Cell {
    let cell = ratio_cell(c, row, What::Faster);
    match row.speed.map(|s| s.1) {
        Some(Pace::Same) => cell.with_note("within noise"),
        Some(Pace::Slower) => Cell { tone: Some(Tone::Warn), ..cell.with_note("slower") },
        _ => cell,
    }
}
