//! Faults, each with the check that must find it and what that check must say.

use super::super::super::charts::Chart;
use super::super::super::document::{Block, Cell, Document};
use super::super::super::sentence::{ClaimKind, Finding, SentencePart};
use super::fixture::{measure, record as of};
use crate::record::{How, Measure, PartRows, Results, SeedRun, TaskFacts, TokenLengths};

/// A fault in the records: the check that must find it, what its line must say, and the fault.
pub(super) type RecordFault = (u32, &'static str, fn(&mut Results));

/// The same for faults of the report itself.
pub(super) type ReportFault = (u32, &'static str, fn(&mut Document));

pub(super) fn estimated(value: f64, unit: &str) -> Measure {
    Measure { how: How::Estimated, ..Measure::measured(value, unit, 1) }
}

fn again(seed: u64, rows: u64) -> SeedRun {
    let measures = [("accuracy".to_string(), Measure::measured(0.9, "fraction", rows))].into();
    SeedRun { seed, measures, model_sha256: Some("ab".repeat(32)) }
}

pub(super) fn put(results: &mut Results, model: &str, name: &str, m: Measure) {
    of(results, model).measures.insert(name.into(), m);
}

pub(super) const RECORD_FAULTS: &[RecordFault] = &[
    (1, "commit", |r| r.tool.commit.clear()),
    (1, "command", |r| r.command.clear()),
    (1, "no observations", |r| measure(r, "int8", "weight_bytes").n = 0),
    (1, "number 3.9", |r| of(r, "int8").detail.note = Some("It is 3.9 times as small.".into())),
    (1, "number 70", |r| r.tasks[0].about = "Saves 70 % of memory.".into()),
    (2, "accuracy is", |r| measure(r, "int8", "accuracy").value += 0.001),
    (2, "f1_macro is", |r| measure(r, "int8", "f1_macro").value += 0.001),
    (2, "f1/World is", |r| measure(r, "int8", "f1/World").value += 0.001),
    (2, "latency_p90 is", |r| measure(r, "int8", "latency_p90").value *= 1.001),
    (2, "int8: accuracy/en is", |r| {
        let part = |name: &str| PartRows { name: name.into(), rows: 1000 };
        of(r, "int8").detail.parts = vec![part("en"), part("de")];
        put(r, "int8", "accuracy/en", Measure::measured(0.5, "fraction", 1000));
    }),
    (2, "int8: accuracy_tokens/9+ is", |r| {
        let tokens = (0..2000).map(|row| 1 + row % 10).collect();
        of(r, "int8").detail.lengths = Some(TokenLengths { bounds: vec![8], tokens });
        put(r, "int8", "accuracy_tokens/9+", Measure::measured(0.5, "fraction", 400));
    }),
    (2, "states n = 7", |r| measure(r, "int8", "accuracy").n = 7),
    (2, "confusion differs", |r| of(r, "int8").detail.confusion[0][1] += 1),
    (2, "answer 9", |r| of(r, "int8").detail.answers[5] = 9),
    (3, "\"best\" without a query", |r| of(r, "int8").detail.note = Some("The best variant.".into())),
    (4, "latency_p50 is in \"fraction\"", |r| measure(r, "int8", "latency_p50").unit = "fraction".into()),
    (4, "speed is in \"MB\"", |r| put(r, "int8", "speed", Measure::measured(1.0, "MB", 1))),
    (7, "above the ceiling", |r| r.tasks[0].ceiling = Some(estimated(0.93, "fraction"))),
    (8, "no baseline", |r| r.records.retain(|r| r.detail.made != "baseline")),
    (10, "right answers", |r| measure(r, "int8", "accuracy").value = 0.95421),
    (11, "outside its range", |r| measure(r, "int8", "accuracy").lo = Some(0.99)),
    (11, "no fraction", |r| measure(r, "int8", "f1/World").value = 95.0),
    (11, "out of order", |r| measure(r, "int8", "latency_p90").value = 1e-6),
    (11, "not between its classes", |r| measure(r, "int8", "f1_macro").value = 0.5),
    (12, "Wilson", |r| measure(r, "int8", "accuracy").lo = None),
    (12, "Wilson", |r| measure(r, "int8", "accuracy").hi = Some(0.9999)),
    (13, "2000 rows scored, the test split has 1000", |r| r.tasks[0].test_rows = 1000),
    (14, "are the same", |r| r.tasks[0].train_sha256 = r.tasks[0].test_sha256.clone()),
    (14, "have the same test rows", |r| {
        let copy = TaskFacts { task: "other@1".into(), ..r.tasks[0].clone() };
        r.tasks.push(copy);
    }),
    (15, "the ledger sums to", |r| measure(r, "nf4", "weight_bytes").value -= 20_480.0),
    (15, "no ledger", |r| of(r, "nf4").detail.tensors.clear()),
    (15, "listed twice", |r| of(r, "nf4").detail.tensors[1].name = "embed.weight".into()),
    (15, "unknown role", |r| of(r, "nf4").detail.tensors[1].role = "middle".into()),
    (15, "more padding than bytes", |r| of(r, "nf4").detail.tensors[1].padding = u64::MAX),
    (16, "at most", |r| {
        let tensor = &mut of(r, "int8").detail.tensors[1];
        // A matrix of 3 rows that fills a panel of 16, without its padding being said.
        (tensor.rows, tensor.cols) = (3, 64);
        tensor.parts = [("codes".to_string(), 16 * 64), ("scales".into(), 4)].into();
        let tiny = tensor.clone();
        of(r, "int8").detail.tensors = vec![tiny];
    }),
    (16, "needs 4.000", |r| *of(r, "nf4").detail.tensors[1].parts.get_mut("codes").unwrap() /= 2),
    (16, "at most", |r| {
        of(r, "int8").detail.tensors.iter_mut().for_each(|t| t.parts.values_mut().for_each(|b| *b *= 2));
    }),
    (17, "values and gradients alone", |r| {
        put(r, "f32", "train_peak_rss_bytes", Measure::measured(1e5, "bytes", 1));
    }),
    (17, "it must need more", |r| {
        let peak = measure(r, "f32", "peak_rss_bytes").value;
        put(r, "f32", "train_peak_rss_bytes", Measure::measured(peak - 1.0, "bytes", 1));
    }),
    (18, "is estimated", |r| measure(r, "int8", "weight_bytes").how = How::Estimated),
    (18, "no bytes for scales", |r| {
        of(r, "ternary_qat").detail.tensors[1].parts = [("codes".to_string(), 192 * 64 / 5)].into();
        of(r, "int4").detail.tensors[1].parts.remove("scales");
    }),
    (19, "has 3 raw runs", |r| of(r, "int8").detail.samples.get_mut("latency").unwrap().truncate(3)),
    (19, "not taken in turns", |r| of(r, "int8").detail.samples.get_mut("latency").unwrap().truncate(30)),
    (20, "1.5000 times", |r| {
        let base = of(r, "f32").detail.samples["latency"].clone();
        let copy = base.iter().map(|s| s / 1.5).collect();
        of(r, "int8").detail.samples.insert("latency".into(), copy);
    }),
    (20, "took exactly", |r| of(r, "int8").detail.samples.get_mut("latency").unwrap().fill(0.0002)),
    (21, "do not fit", |r| r.host.ram_bytes = 1000),
    (22, "another kind", |r| {
        put(r, "f32", "energy_joules", Measure::measured(0.006, "joules", 9));
        put(r, "int8", "energy_joules", estimated(0.003, "joules"));
    }),
    (22, "0.966 W", |r| {
        put(r, "f32", "latency_p50", Measure::measured(0.029, "seconds", 9));
        put(r, "f32", "energy_joules", Measure::measured(0.028, "joules", 9));
    }),
    (23, "different rows", |r| of(r, "int8").detail.truths[3] ^= 1),
    (23, "on 1999 rows", |r| measure(r, "int8", "accuracy").n = 1999),
    (24, "half a range", |r| measure(r, "int8", "latency_p50").lo = None),
    (24, "its raw runs", |r| measure(r, "int8", "latency_p50").lo = Some(1e-9)),
    (25, "is computed from", |r| {
        let latency = measure(r, "int8", "latency_p50").value;
        measure(r, "int8", "throughput/8").value = 8.0 / latency;
    }),
    (29, "two records", |r| r.records.push(r.records[2].clone())),
    (29, "parameters stated", |r| of(r, "int8").params = 66_000_000),
    (29, "one file hash", |r| of(r, "int8").detail.model_sha256 = of(r, "int4").detail.model_sha256.clone()),
    (29, "two trainings from seed 11", |r| of(r, "f32").detail.seeds = vec![again(11, 2000)]),
    (29, "seed 13 gave the weights", |r| of(r, "f32").detail.seeds = vec![again(12, 2000), again(13, 2000)]),
    (29, "of seed 12 is 0.9 on 7 rows", |r| of(r, "f32").detail.seeds = vec![again(12, 7)]),
    (30, "holds 5 values", |r| of(r, "ternary_qat").detail.tensors[1].levels = Some(5)),
    (30, "not recorded", |r| of(r, "ternary_qat").detail.tensors[1].zero_fraction = None),
    (32, "f1_macro is", |r| measure(r, "int8", "f1_macro").value *= 1.01),
    (33, "without an energy", |r| {
        let names: Vec<String> = r.records.iter().map(|r| r.model.clone()).collect();
        names.iter().for_each(|name| put(r, name, "cost_per_million_tokens", Measure::measured(0.0, "ratio", 1)));
    }),
    (33, "others of its task have one", |r| {
        put(r, "int8", "cost_per_million_tokens", Measure::measured(0.01, "ratio", 1));
        put(r, "int8", "energy_joules", Measure::measured(0.01, "joules", 1));
    }),
    (35, "TODO", |r| of(r, "int8").detail.note = Some("TODO: explain".into())),
    (35, "NaN", |r| measure(r, "int8", "latency_p90").value = f64::NAN),
    (35, "is inf", |r| measure(r, "int8", "throughput/8").value = f64::INFINITY),
    (35, "-0.00", |r| of(r, "int8").detail.note = Some("drop of -0.00".into())),
    (38, "no remark names", |r| measure(r, "int8", "peak_rss_bytes").how = How::Published),
    (39, "must be absent", |r| measure(r, "int8", "peak_rss_bytes").value = 0.0),
    (41, "int8: kl_divergence is", |r| measure(r, "int8", "kl_divergence").value *= 1.001),
    (41, "int8: kl_divergence_max is", |r| measure(r, "int8", "kl_divergence_max").value *= 2.0),
    (41, "int8: kl_divergence has the interval", |r| measure(r, "int8", "kl_divergence").hi = None),
    (41, "int8: same_top is of", |r| measure(r, "int8", "same_top").value -= 0.01),
    (41, "int8: rms_probability_difference is", |r| measure(r, "int8", "rms_probability_difference").n = 7),
    (41, "f32: kl_divergence against itself is", |r| measure(r, "f32", "kl_divergence").value = 1e-9),
    (41, "f32: same_top against itself is", |r| measure(r, "f32", "same_top").value = 0.9995),
    (41, "names no reference", |r| of(r, "int8").detail.reference = None),
    (40, "do not read back", |r| measure(r, "int8", "load_seconds").value = f64::NAN),
];

pub(super) const LANGUAGE_FAULTS: &[RecordFault] = &[
    (2, "its blocks give", |r| of(r, "int8").detail.samples.get_mut("bits_per_byte").unwrap()[7] += 2.0),
    (5, "not 8", |r| measure(r, "int8", "compression_ratio").value *= 8.0),
    (5, "per byte, but", |r| measure(r, "int8", "perplexity").value = 13.36),
    (6, "the probabilities say 1000.0", |r| {
        put(r, "int8", "compressed_bytes", Measure::measured(1066.0, "bytes", 4000));
        put(r, "int8", "coded_bytes", Measure::measured(1000.0, "bytes", 4000));
    }),
    (6, "998 bytes were written", |r| {
        put(r, "int8", "compressed_bytes", Measure::measured(998.0, "bytes", 4000));
        put(r, "int8", "coded_bytes", Measure::measured(1000.0, "bytes", 4000));
    }),
    (9, "misaligned", |r| measure(r, "int8", "next_byte_accuracy").value = 0.04),
    (21, "GB/s", |r| {
        put(r, "int8", "bytes_per_token", Measure::measured(2e9, "bytes", 1));
        put(r, "int8", "decode_tokens_per_second", Measure::measured(28.0, "per_second", 100));
    }),
];

pub(super) const NUMBER_FAULTS: &[RecordFault] = &[
    (2, "int8: r2 is", |r| measure(r, "int8", "r2").value += 0.01),
    (2, "int8: mse has the interval", |r| measure(r, "int8", "mse").hi = None),
    (2, "int8: mae states n = 7", |r| measure(r, "int8", "mae").n = 7),
    (2, "int8: 1999 predictions for 2000 rows", |r| drop_one(&mut of(r, "int8").detail.predicted)),
    (8, "no baseline", |r| r.records.retain(|r| r.detail.made != "baseline")),
    (23, "different rows", |r| of(r, "int8").detail.expected[3] += 1.0),
];

fn drop_one(values: &mut Vec<f64>) {
    values.pop();
}

fn finding<'a>(document: &'a mut Document, start: &str) -> &'a mut Finding {
    let lists = document.sections.iter_mut().flat_map(|s| &mut s.blocks).flat_map(|b| match b {
        Block::Details(_, inner) => inner.iter_mut().collect::<Vec<_>>(),
        other => vec![other],
    });
    let findings = lists.filter_map(|b| if let Block::Findings(list) = b { Some(list) } else { None }).flatten();
    findings.into_iter().find(|f| f.to_string().starts_with(start)).unwrap()
}

fn charts(document: &mut Document) -> &mut Vec<Chart> {
    let blocks = document.sections.iter_mut().flat_map(|s| &mut s.blocks);
    blocks.filter_map(|b| if let Block::Charts(list) = b { Some(list) } else { None }).next().unwrap()
}

pub(super) fn cell<'a>(document: &'a mut Document, column: &str, row: &str) -> &'a mut Cell {
    let blocks = document.sections.iter_mut().flat_map(|s| &mut s.blocks);
    let mut tables = blocks.filter_map(|b| if let Block::Table(t) = b { Some(t) } else { None });
    let table = tables.find(|t| t.head.iter().any(|h| h == column)).unwrap();
    let place = table.head.iter().position(|h| h == column).unwrap();
    &mut table.rows.iter_mut().find(|r| r[0].text == row).unwrap()[place]
}

pub(super) const REPORT_FAULTS: &[ReportFault] = &[
    (1, "is printed as 70 %", |d| {
        let parts = &mut finding(d, "int8:").sentence.parts;
        let Some(SentencePart::Figure(figure)) = parts.iter_mut().find(|p| matches!(p, SentencePart::Figure(_))) else {
            return;
        };
        figure.text = "70 %".into();
    }),
    (1, "1.5 has no query", |d| {
        finding(d, "int8:").sentence.parts.push(SentencePart::Text(" It runs 1.5 times as fast."))
    }),
    (1, "no record", |d| finding(d, "int8:").sentence.parts.push(SentencePart::Name("int9".into()))),
    (3, "\"slower\" is not true of int8", |d| {
        for part in &mut finding(d, "int8:").sentence.parts {
            if let SentencePart::Claim(claim) = part
                && claim.kind == ClaimKind::Faster
            {
                claim.kind = ClaimKind::Slower;
            }
        }
    }),
    (3, "\"savings\" without a query", |d| {
        finding(d, "int8:").sentence.parts.push(SentencePart::Text(" More savings."))
    }),
    (12, "the paired interval includes 0", |d| {
        for part in &mut finding(d, "int8:").sentence.parts {
            if let SentencePart::Claim(claim) = part
                && claim.kind == ClaimKind::NotDistinguishable
            {
                claim.kind = ClaimKind::Lower;
            }
        }
    }),
    (26, "nf4 is recommended, but int8_channel", |d| finding(d, "nf4:").recommends = Some("nf4".into())),
    (27, "not side by side", |d| {
        let cell = cell(d, "Error-rate change", "int8");
        *cell = Cell::number(None);
    }),
    (36, "pixels long", |d| {
        for chart in charts(d) {
            chart.wide = chart.wide.replacen("width=\"", "width=\"1", 1);
        }
    }),
    (36, "starts at", |d| {
        for chart in charts(d) {
            chart.narrow = chart.narrow.replacen("<rect class=\"bar time\" x=\"", "<rect class=\"bar time\" x=\"1", 1);
        }
    }),
    (39, "instead of \"not measured\"", |d| cell(d, "Energy per example", "int8").text = "\u{2013}".into()),
];
