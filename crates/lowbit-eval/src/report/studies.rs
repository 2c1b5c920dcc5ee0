//! Tables of studies: layers, networks and kernels with random weights, side by side.

use super::compare::{is_low_bit, scales};
use super::document::{Block, Cell, MISSING, Section, Source, Table};
use super::measures::{Scales, style_of, title as measure_title};
use super::noise::{Evidence, Pace};
use super::number;
use super::query::{Figure, What, mark};
use super::sentence::Tone;
use crate::record::{Record, Results, TensorBytes};
use crate::stats;
use crate::study::language::{ALL, ENERGY, READING, WORDS_PER_TOKEN};
use crate::study::{Column, STUDIES, Study};

/// What those with several sides have in common.
const MEANING: &str = "Random weights: the figures are of memory and speed, and nothing about quality. The sides of a row took turns; \
                       ranges are 95 % intervals of the median, of a ratio those of both its medians.";

/// The records of a row, in the order of its sides; the first is what the others are compared with.
#[derive(Clone)]
pub(crate) struct Row<'a> {
    name: &'a str,
    /// Its records.
    pub(crate) sides: Vec<&'a Record>,
}

impl Row<'_> {
    fn is_measured(&self) -> bool {
        self.sides.iter().any(|record| !record.detail.needs.contains_key(ALL))
    }
}

/// The rows of every study that has records.
pub(crate) fn rows(results: &Results) -> Vec<(&'static Study, Vec<Row<'_>>)> {
    let of = |study: &'static Study| (study, rows_of(results, &study.task()));
    STUDIES.iter().copied().map(of).filter(|(_, rows)| !rows.is_empty()).collect()
}

fn rows_of<'a>(results: &'a Results, task: &str) -> Vec<Row<'a>> {
    let mut rows: Vec<Row> = Vec::new();
    for record in results.records.iter().filter(|record| record.task == task) {
        let Some(place) = &record.detail.place else { continue };
        match rows.iter_mut().find(|row| row.name == place.row) {
            Some(row) => row.sides.push(record),
            None => rows.push(Row { name: &place.row, sides: vec![record] }),
        }
    }
    rows
}

/// How many tables there are, in words.
pub(crate) fn summary(results: &Results) -> Option<String> {
    let tables: Vec<&str> = rows(results).iter().map(|(study, _)| study.title).collect();
    (!tables.is_empty()).then(|| format!("Tables of layers and networks, in the report: {}.", tables.join(", ")))
}

/// The section of all studies.
pub(crate) fn section(results: &Results) -> Option<Section> {
    let all = rows(results);
    let compared = all.iter().any(|(_, rows)| rows.iter().any(|row| row.sides.len() > 1));
    let tables = all.iter().flat_map(|(study, rows)| tables(study, rows).into_iter().map(Block::Table));
    let blocks: Vec<Block> = compared.then(|| Block::Paragraph(MEANING.into())).into_iter().chain(tables).collect();
    let title = if compared { "Layers and networks" } else { "Networks" };
    (!all.is_empty()).then(|| Section { id: "bench".into(), title: title.into(), blocks })
}

/// The tables of a study.
fn tables(study: &Study, rows: &[Row]) -> Vec<Table> {
    let first = (study.title, study.about, study.columns);
    let further = study.further.iter().map(|further| (further.title, further.about, further.columns));
    // What was not measured at all stands in the first table alone.
    let measured: Vec<Row> = rows.iter().filter(|row| row.is_measured()).cloned().collect();
    let further = further.filter(|_| !measured.is_empty()).map(|part| table(study.head, part, &measured));
    std::iter::once(table(study.head, first, rows)).chain(further).collect()
}

/// The first table with its first columns, without what was not measured, for a terminal.
pub(crate) fn brief(results: &Results, columns: usize) -> Option<Table> {
    let all = rows(results);
    let (study, rows) = all.first().filter(|(_, rows)| rows.iter().all(|row| row.sides.len() == 1))?;
    let columns = &study.columns[..columns.min(study.columns.len())];
    let measured: Vec<Row> = rows.iter().filter(|row| row.is_measured()).cloned().collect();
    (!measured.is_empty()).then(|| table(study.head, (study.title, study.about, columns), &measured))
}

fn table(head: &str, (title, about, columns): (&str, &str, &[Column]), rows: &[Row]) -> Table {
    let sides: Vec<&str> = rows[0].sides.iter().map(|record| side(record)).collect();
    let columns: Vec<(Column, usize)> =
        columns.iter().flat_map(|column| of_sides(*column, sides.len()).map(|side| (*column, side))).collect();
    let named = |(column, at): &(Column, usize)| match column {
        Column::Parameters => "Parameters".to_string(),
        Column::Once(name) => measure_title(name),
        Column::Each(name) => format!("{}: {}", measure_title(name), sides[*at]),
        Column::Reduction => format!("Saved: {}", sides[*at]),
        Column::MatrixReduction => format!("Saved without bias: {}", sides[*at]),
        Column::Bits => format!("Bits per weight: {}", sides[*at]),
        Column::Faster => format!("Times faster: {}", sides[*at]),
        Column::Share => format!("{} as a share of {}", capital(sides[0]), sides.get(1).unwrap_or(&"")),
        Column::Words => "Words per minute".into(),
        Column::Reading => "Times the rate of a reader".into(),
        Column::TokensPerJoule => "Tokens per joule".into(),
        Column::Electricity => match rows.iter().find_map(|row| row.sides[0].detail.tariff) {
            Some(tariff) => format!("Electricity of a million tokens, at {} a kWh", number::plain(tariff)),
            None => "Electricity of a million tokens".into(),
        },
    };
    let line = |row: &Row| {
        let scales = scales(&row.sides);
        let cells = columns.iter().map(|(column, at)| cell(*column, &row.sides, *at, &scales));
        std::iter::once(Cell::words(row.name)).chain(cells).collect()
    };
    Table {
        caption: title.into(),
        head: std::iter::once(head.to_string()).chain(columns.iter().map(named)).collect(),
        rows: rows.iter().map(line).collect(),
        foot: about.into(),
    }
}

fn side(record: &Record) -> &str {
    record.detail.place.as_ref().map_or("", |place| &place.side)
}

/// Text that begins with a capital letter.
pub(super) fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

/// Which sides a column is of.
fn of_sides(column: Column, sides: usize) -> std::ops::Range<usize> {
    match column {
        Column::Parameters | Column::Once(_) | Column::Share => 0..1,
        Column::Words | Column::Reading | Column::TokensPerJoule | Column::Electricity => 0..1,
        Column::Each(_) => 0..sides,
        Column::Reduction | Column::MatrixReduction | Column::Bits | Column::Faster => 1..sides,
    }
}

fn cell(column: Column, sides: &[&Record], at: usize, scales: &Scales) -> Cell {
    let Some(record) = sides.get(at) else { return Cell::number(None) };
    let saved =
        |tensors: &dyn Fn(&TensorBytes) -> bool| Cell::number(saved(sides[0], record, tensors).map(number::percent));
    match column {
        Column::Parameters => Cell::number(Some(number::count(record.params as f64)).filter(|_| record.params > 0)),
        Column::Each(name) | Column::Once(name) => measure(record, name, scales),
        Column::Reduction => saved(&|_| true),
        Column::MatrixReduction => saved(&|tensor| tensor.rows > 1),
        Column::Bits => Cell::number(matrices(record).map(|(bytes, weights)| number::fixed(8.0 * bytes / weights, 2))),
        Column::Faster => faster(sides[0], record),
        Column::Share => share(sides),
        Column::Words => derived(record, DECODE, |rate| number::count((words(rate) / 10.0).round() * 10.0)),
        Column::Reading => derived(record, DECODE, |rate| number::fixed(words(rate) / READING, 1)),
        Column::TokensPerJoule => derived(record, ENERGY, |joules| number::plain(1.0 / joules)),
        Column::Electricity => derived(record, ENERGY, |joules| {
            let price = |tariff: f64| number::fixed(1e6 * joules / JOULES_OF_KWH * tariff, 2);
            record.detail.tariff.map_or_else(|| MISSING.into(), price)
        }),
    }
}

/// The share of the bytes of another record's tensors that a record saves; padding is counted against it, and not for the other.
pub(crate) fn saved(other: &Record, record: &Record, tensors: &dyn Fn(&TensorBytes) -> bool) -> Option<f64> {
    let of = |record: &Record, bytes: &dyn Fn(&TensorBytes) -> u64| {
        let sum: u64 = record.detail.tensors.iter().filter(|tensor| tensors(tensor)).map(bytes).sum();
        (sum > 0).then_some(sum as f64)
    };
    Some(1.0 - of(record, &TensorBytes::bytes)? / of(other, &TensorBytes::used)?)
}

/// The rate that is compared with a reader's.
const DECODE: &str = "decode_tokens_per_second";
const JOULES_OF_KWH: f64 = 3.6e6;

/// Words of a minute at so many tokens a second.
fn words(rate: f64) -> f64 {
    60.0 * rate * WORDS_PER_TOKEN
}

/// What follows from a measure.
fn derived(record: &Record, name: &str, text: impl Fn(f64) -> String) -> Cell {
    record.measures.get(name).map_or_else(|| missing(record, name), |m| Cell::number(Some(text(m.value))))
}

/// What is needed to have a measure, where that is known.
pub(crate) fn missing(record: &Record, name: &str) -> Cell {
    let needs = record.detail.needs.get(name).or_else(|| record.detail.needs.get(ALL));
    needs.map_or_else(|| Cell::number(None), |needs| Cell::needs(needs))
}

fn measure(record: &Record, name: &str, scales: &Scales) -> Cell {
    let Some(m) = record.measures.get(name) else { return missing(record, name) };
    let text = scales.text(name, style_of(name, &m.unit), m.value);
    let (what, mark) = (What::Measure(name.into()), mark(m.how));
    let figure = Figure { what, subject: record.model.clone(), value: m.value, text: text.clone(), mark };
    let source = Some(Source { task: record.task.clone(), figure });
    Cell { source, ..Cell::number(Some(text)).with_note(mark.unwrap_or_default()) }
}

/// Bytes and weights of the matrices.
fn matrices(record: &Record) -> Option<(f64, f64)> {
    let of = || record.detail.tensors.iter().filter(|tensor| tensor.rows > 1);
    let (bytes, weights): (u64, u64) = (of().map(TensorBytes::bytes).sum(), of().map(|t| t.rows * t.cols).sum());
    (weights > 0).then_some((bytes as f64, weights as f64))
}

/// How many times faster a record is than the first of its row.
pub(crate) fn faster(first: &Record, record: &Record) -> Cell {
    let evidence = Evidence::of(&[first, record]);
    let Some((ratio, pace)) = evidence[1].pace(&evidence[0]) else { return Cell::number(None) };
    let of = |record: &Record| stats::median_interval(record.detail.samples.get("latency")?);
    let range = of(first).zip(of(record)).map(|((lo, hi), (own_lo, own_hi))| {
        format!("{} to {}", number::fixed(lo / own_hi, 2), number::fixed(hi / own_lo, 2))
    });
    let cell = Cell::number(Some(number::times(ratio))).with_note(range.unwrap_or_default());
    match pace {
        Pace::Slower => Cell { tone: Some(Tone::Warn), ..cell },
        Pace::Faster if record.detail.tensors.iter().any(|t| is_low_bit(&t.format)) => {
            Cell { tone: Some(Tone::Good), ..cell }
        }
        Pace::Faster | Pace::Same => cell,
    }
}

fn share(sides: &[&Record]) -> Cell {
    let latency = |at: usize| Some(sides.get(at)?.measures.get("latency_p50")?.value);
    Cell::number(latency(0).zip(latency(1)).map(|(first, second)| number::percent(first / second)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Detail, Measure, Place};
    use crate::study;
    use std::collections::BTreeMap;

    fn record(study: &str, row: &str, side: &str, samples: &[f64], bytes: u64) -> Record {
        let part = |name: &str, rows, bytes| TensorBytes {
            name: name.into(),
            role: "body".into(),
            format: if side == "f32" { "f32" } else { "ternary_b3" }.into(),
            rows,
            cols: 100,
            parts: BTreeMap::from([("codes".to_string(), bytes)]),
            padding: 0,
            zero_fraction: None,
            levels: None,
        };
        let mut record = Record {
            task: study::find(study).unwrap().task(),
            model: format!("{row}, {side}"),
            recipe: side.into(),
            params: 10_100,
            measures: BTreeMap::new(),
            detail: Detail {
                place: Some(Place { row: row.into(), side: side.into() }),
                samples: BTreeMap::from([("latency".to_string(), samples.to_vec())]),
                tensors: vec![part("weight", 100, bytes), part("bias", 1, 400)],
                ..Detail::default()
            },
        };
        let median = stats::median(samples).unwrap();
        record.measures.insert("latency_p50".into(), Measure::measured(median, "seconds", samples.len() as u64));
        record.measures.insert("weight_bytes".into(), Measure::measured((bytes + 400) as f64, "bytes", 1));
        record
    }

    fn first((study, rows): &(&'static Study, Vec<Row>)) -> Table {
        tables(study, rows).remove(0)
    }

    fn texts(table: &Table, row: usize) -> Vec<&str> {
        table.rows[row].iter().map(|cell| cell.text.as_str()).collect()
    }

    #[test]
    fn sides_stand_side_by_side() {
        let slow = [0.0041, 0.004, 0.0042, 0.004, 0.0041, 0.0043, 0.0039];
        let fast = [0.001, 0.0011, 0.001, 0.0012, 0.0009, 0.001, 0.001];
        let records = vec![
            record("layer_memory", "100 x 100", "f32", &slow, 40_000),
            record("layer_memory", "100 x 100", "ternary", &fast, 2_400),
            record("batch_size", "1", "f32", &slow, 40_000),
            record("batch_size", "1", "ternary", &fast, 2_400),
        ];
        let results = Results { records, ..Results::default() };
        let tables = rows(&results);
        assert_eq!(tables.iter().map(|(study, _)| study.name).collect::<Vec<_>>(), ["layer_memory", "batch_size"]);
        let memory = first(&tables[0]);
        // 1 - 2800/40400, 1 - 2400/40000, 8 * 2400/10000.
        assert_eq!(texts(&memory, 0), ["100 x 100", "10,100", "40.40 kB", "2.80 kB", "93.07 %", "94.00 %", "1.92"]);
        assert_eq!(memory.head[4..], ["Saved: ternary", "Saved without bias: ternary", "Bits per weight: ternary"]);
        let batches = first(&tables[1]);
        assert_eq!(texts(&batches, 0), ["1", "4.10 ms", "1.00 ms", "4.10\u{d7}"]);
        assert!(batches.rows[0][3].note.contains(" to "), "{:?}", batches.rows[0][3]);
        assert!(section(&results).is_some() && section(&Results::default()).is_none());
    }

    #[test]
    fn what_no_side_measured_is_said_to_be_missing() {
        let lone = record("mlp", "mlp-1m", "f32", &[0.1; 7], 40_000);
        let results = Results { records: vec![lone], ..Results::default() };
        let tables = rows(&results);
        let table = first(&tables[0]);
        assert!(table.rows[0].iter().any(|cell| cell.missing), "{:?}", table.rows[0]);
    }
}
