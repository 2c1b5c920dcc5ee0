//! Tables of quoted figures, beside what was measured here of the same quantities.

use super::compare::scales;
use super::document::{Block, Cell, Section, Table};
use super::measures::{style_of, title};
use super::{number, studies};
use crate::published::{PREFIX, REPORTED};
use crate::record::{Counterpart, Form, Measure, Record, Results};

/// What the tables have in common.
const MEANING: &str = "Quoted figures are those of their sources, and were not measured here. No ratio is taken between them and what was \
                       measured here: machine, data and setting differ.";

/// The section of all quoted figures.
pub(crate) fn section(results: &Results) -> Option<Section> {
    let mut tables: Vec<(&str, Vec<&Record>)> = Vec::new();
    for record in &results.records {
        let Some(name) = record.task.strip_prefix(PREFIX) else { continue };
        match tables.iter_mut().find(|(known, _)| *known == name) {
            Some((_, records)) => records.push(record),
            None => tables.push((name, vec![record])),
        }
    }
    let blocks = tables.iter().map(|(name, records)| Block::Table(table(results, name, records)));
    let blocks: Vec<Block> = std::iter::once(Block::Paragraph(MEANING.into())).chain(blocks).collect();
    (!tables.is_empty()).then(|| Section { id: "published".into(), title: "Published figures".into(), blocks })
}

fn table(results: &Results, name: &str, records: &[&Record]) -> Table {
    let is_held = records.iter().any(|record| record.detail.counterpart.is_some());
    let mut sources: Vec<&str> = records.iter().filter_map(|record| record.detail.note.as_deref()).collect();
    sources.dedup();
    let one = sources.len() == 1;
    let mut head = vec!["Figure", "Quantity", if is_held { "Reported" } else { "Published" }, "Setting of the source"];
    head.extend(is_held.then_some("Measured here"));
    head.extend((!one).then_some("Source"));
    let line = |record: &&Record| {
        let quoted = record.measures.iter().next();
        let place = record.detail.place.as_ref();
        let quantity = quoted.map_or(String::new(), |(name, _)| quantity(record, name));
        let mut cells = vec![
            Cell::words(record.model.as_str()),
            Cell::words(quantity),
            Cell::number(quoted.map(|(_, measure)| as_quoted(measure, form(record)))),
            Cell::words(place.map_or("", |place| place.side.as_str())),
        ];
        cells.extend(is_held.then(|| here(results, record)));
        cells.extend((!one).then(|| Cell::words(record.detail.note.clone().unwrap_or_default())));
        cells
    };
    let about = records.first().and_then(|record| record.detail.about.clone()).unwrap_or_default();
    let host = &results.host;
    let place = format!("Here: {}, {} of {} cores.", host.cpu, host.threads, host.cores);
    let source = if one { format!("Source: {}.", sources[0]) } else { String::new() };
    let foot = [source, about, if is_held { place } else { String::new() }];
    Table {
        caption: name.into(),
        head: head.into_iter().map(String::from).collect(),
        rows: records.iter().map(line).collect(),
        foot: foot.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" "),
    }
}

fn form(record: &Record) -> Form {
    record.detail.counterpart.as_ref().map_or(Form::Value, |here| here.form)
}

/// What a figure is of.
fn quantity(record: &Record, name: &str) -> String {
    let measure = title(name.strip_prefix(REPORTED).unwrap_or(name));
    match form(record) {
        Form::Value => measure,
        Form::Saved => format!("{measure}, saved"),
        Form::Times => format!("{measure}, times as fast"),
        Form::Points => format!("{measure}, difference"),
    }
}

/// A value in the digits of its source.
fn as_quoted(measure: &Measure, form: Form) -> String {
    let largest = measure.hi.unwrap_or(measure.value);
    let (factor, unit) = match (measure.unit.as_str(), form) {
        ("fraction", Form::Points) => (100.0, " points"),
        ("fraction", _) => (100.0, " %"),
        ("seconds", _) if largest < 1e-3 => (1e6, " \u{b5}s"),
        ("seconds", _) if largest < 1.0 => (1e3, " ms"),
        ("seconds", _) => (1.0, " s"),
        ("bytes", _) if largest < 1e9 => (1e-6, " MB"),
        ("bytes", _) => (1e-9, " GB"),
        ("joules", _) => (1.0, " J"),
        (_, Form::Times) => (1.0, "\u{d7}"),
        _ => (1.0, ""),
    };
    // Six significant digits are more than any source has.
    let digits = |value: f64| format!("{}", format!("{:.5e}", value * factor).parse::<f64>().unwrap_or(f64::NAN));
    match (measure.lo, measure.hi) {
        (Some(lo), Some(hi)) => format!("{} to {}{unit}", digits(lo), digits(hi)),
        _ => format!("{}{unit}", digits(measure.value)),
    }
}

/// What was measured here of a quoted figure.
fn here(results: &Results, quoted: &Record) -> Cell {
    let name = quoted.measures.keys().next().map_or("", |name| name.strip_prefix(REPORTED).unwrap_or(name));
    let Some(counterpart) = &quoted.detail.counterpart else { return studies::missing(quoted, name) };
    let Some(record) = found(results, counterpart, &counterpart.model) else { return studies::missing(quoted, name) };
    let Some(own) = record.measures.get(name) else { return studies::missing(record, name) };
    let scales = scales(&[record]);
    let text = match (counterpart.form, &counterpart.against) {
        (Form::Value, _) | (_, None) => Some(scales.text(name, style_of(name, &own.unit), own.value)),
        (form, Some(against)) => {
            let variant = found(results, counterpart, against);
            let weights = || studies::saved(variant?, record, &|_| true).filter(|_| name == "weight_bytes");
            let other = variant.and_then(|record| record.measures.get(name));
            other.map(|other| match form {
                Form::Saved => number::percent(weights().unwrap_or(1.0 - own.value / other.value)),
                Form::Times => number::times(other.value / own.value),
                Form::Points | Form::Value => number::points(own.value - other.value),
            })
        }
    };
    Cell::number(text)
}

/// The record of a variant of a task, whose version need not be told.
fn found<'a>(results: &'a Results, counterpart: &Counterpart, model: &str) -> Option<&'a Record> {
    let is_of = |task: &str| task == counterpart.task || task.split('@').next() == Some(&counterpart.task);
    results.records.iter().find(|record| is_of(&record.task) && record.model == model)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::published;
    use std::path::Path;

    #[test]
    fn what_was_reported_stands_beside_what_was_measured() {
        let text = r#"
            [[table]]
            title = "Reported and measured"
            source = "A page"
            about = "Read, not run."
            [[table.figure]]
            what = "A network, decode"
            measure = "decode_tokens_per_second"
            unit = "per_second"
            value = [16, 28]
            setting = "a laptop"
            here = { task = "bench/language_speed", model = "one" }
            [[table.figure]]
            what = "Twice"
            measure = "latency_p50"
            unit = "ratio"
            value = 1.5
            setting = "unstated"
            here = { task = "mnist", model = "ternary", against = "f32", form = "times" }
            [[table.figure]]
            what = "Saved"
            measure = "weight_bytes"
            unit = "fraction"
            value = 0.95
            setting = "unstated"
            here = { task = "mnist", model = "ternary", against = "f32", form = "saved" }
            [[table.figure]]
            what = "A cluster"
            measure = "decode_tokens_per_second"
            unit = "per_second"
            value = 30
            setting = "a cluster"
            needs = "a cluster"
        "#;
        let mut records = published::records(text, Path::new("x.toml")).unwrap();
        let measured = |task: &str, model: &str, measures: &[(&str, f64, &str)]| Record {
            task: task.into(),
            model: model.into(),
            measures: measures.iter().map(|(n, v, u)| (n.to_string(), Measure::measured(*v, u, 1))).collect(),
            ..records[0].clone()
        };
        let own = [
            measured("bench/language_speed", "one", &[("decode_tokens_per_second", 51.3, "per_second")]),
            measured("mnist@1", "f32", &[("latency_p50", 4e-3, "seconds"), ("weight_bytes", 1e6, "bytes")]),
            measured("mnist@1", "ternary", &[("latency_p50", 1e-3, "seconds"), ("weight_bytes", 6e4, "bytes")]),
        ];
        records.extend(own);
        let results = Results { records, ..Results::default() };
        let section = section(&results).unwrap();
        let Block::Table(table) = &section.blocks[1] else { panic!("a table") };
        let column = |i: usize| table.rows.iter().map(|row| row[i].text.as_str()).collect::<Vec<_>>();
        assert_eq!(column(2), ["16 to 28", "1.5\u{d7}", "95 %", "30"]);
        assert_eq!(column(4), ["51.3", "4.00\u{d7}", "94.00 %", "not measured: needs a cluster"]);
        assert!(table.foot.contains("A page"));
    }
}
