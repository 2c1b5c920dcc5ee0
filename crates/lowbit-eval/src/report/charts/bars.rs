//! Bars that start at zero: median latency with its range, and the bytes of every contender by role.

use super::super::compare::Comparison;
use super::super::query::What;
use super::{Axis, Chart, Svg, dots, text_width};
use crate::record::TensorBytes;

const ROW: f64 = 26.0;
const BAR: f64 = 14.0;

/// Kinds of stored bytes, in drawing order: class and legend.
const KINDS: [(&str, &str); 5] =
    [("k1", "embedding"), ("k2", "body"), ("k3", "head"), ("k4", "scales"), ("k5", "norm, bias")];

/// Median latency per example with lowest and highest run.
pub(crate) fn latency(c: &Comparison) -> Option<Chart> {
    struct Bar<'a> {
        name: &'a str,
        value: f64,
        ends: (f64, f64),
        class: &'static str,
        label: String,
    }
    let bars: Vec<Bar> = c
        .networks()
        .filter_map(|r| {
            let m = r.record.measures.get("latency_p50")?;
            let samples = r.record.detail.samples.get("latency");
            let all = || samples.into_iter().flatten().copied().chain([m.value]);
            let ends = (all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max));
            let label = c.ask(r.name(), What::Measure("latency_p50".into()))?.text;
            Some(Bar { name: r.name(), value: m.value, ends, class: dots::class(r), label })
        })
        .collect();
    let p90 = c.networks().filter_map(|r| r.value("latency_p90")).fold(0.0, f64::max);
    let top_value = bars.iter().map(|b| b.value * 1.25).fold(p90 * 1.1, f64::max);
    if bars.is_empty() {
        return None;
    }
    let draw = |width: f64| {
        let left = bars.iter().map(|b| text_width(b.name, 13.0)).fold(0.0, f64::max) + 10.0;
        let right = width - bars.iter().map(|b| text_width(&b.label, 13.0)).fold(0.0, f64::max) - 12.0;
        let axis = Axis::linear((0.0, top_value), (left, right));
        let mut svg = Svg::new(width, bars.len() as f64 * ROW + 6.0, "Median latency per example");
        svg.line("zero", (left, 2.0), (left, bars.len() as f64 * ROW + 4.0));
        for (i, bar) in bars.iter().enumerate() {
            let y = 3.0 + (i as f64 + 0.5) * ROW;
            svg.text("name", "end", (left - 10.0, y + 4.5), bar.name);
            svg.bar(bar.class, (left, y - BAR / 2.0), (axis.at(bar.value) - left, BAR), bar.value);
            let (from, to) = (axis.at(bar.ends.0), axis.at(bar.ends.1));
            svg.line("whisker", (from, y), (to.min(right), y));
            svg.line("whisker", (from, y - 3.0), (from, y + 3.0));
            if to <= right {
                svg.line("whisker", (to, y - 3.0), (to, y + 3.0));
            } else {
                svg.path("whisker", &[(right - 5.0, y - 4.0), (right, y), (right - 5.0, y + 4.0)]);
            }
            svg.text("value", "end", (width - 1.0, y + 4.5), &bar.label);
        }
        svg.finish()
    };
    let caption = "Median time of one example (batch 1); the thin line runs from the lowest to the highest run. An arrow \
                   points to a run outside the plot.";
    Some(Chart::draw("Latency", caption, draw))
}

/// Bytes of one contender by kind, in the order of [`KINDS`].
pub(super) fn kinds(tensors: &[TensorBytes]) -> [u64; 5] {
    let mut out = [0u64; 5];
    for tensor in tensors {
        let place = match tensor.role.as_str() {
            "embedding" => 0,
            "body" => 1,
            "head" => 2,
            _ => 4,
        };
        for (part, bytes) in &tensor.parts {
            out[if place < 4 && part.contains("scale") { 3 } else { place }] += bytes;
        }
    }
    out
}

/// Where the bytes of every contender are.
pub(crate) fn ledger(c: &Comparison) -> Option<Chart> {
    let rows: Vec<(&str, [u64; 5], String)> = c
        .networks()
        .filter(|r| !r.record.detail.tensors.is_empty())
        .map(|r| {
            let sum = kinds(&r.record.detail.tensors);
            (r.name(), sum, c.scales.weights.text(sum.iter().sum::<u64>() as f64))
        })
        .collect();
    let top_value = rows.iter().map(|r| r.1.iter().sum::<u64>()).max().filter(|m| *m > 0)? as f64;
    let used: Vec<usize> = (0..KINDS.len()).filter(|k| rows.iter().any(|r| r.1[*k] > 0)).collect();
    let draw = |width: f64| {
        let left = rows.iter().map(|r| text_width(r.0, 13.0)).fold(0.0, f64::max) + 10.0;
        let right = width - rows.iter().map(|r| text_width(&r.2, 13.0)).fold(0.0, f64::max) - 12.0;
        let axis = Axis::linear((0.0, top_value), (left, right));
        let mut svg = Svg::new(width, rows.len() as f64 * ROW + 34.0, "Weight bytes by role");
        let mut x = 0.0;
        for &k in &used {
            svg.dot(&format!("key {}", KINDS[k].0), (x + 5.0, 9.0), 5.0);
            svg.text("note", "start", (x + 14.0, 13.0), KINDS[k].1);
            x += text_width(KINDS[k].1, 11.0) + 26.0;
        }
        svg.line("zero", (left, 26.0), (left, rows.len() as f64 * ROW + 32.0));
        for (i, (name, sum, label)) in rows.iter().enumerate() {
            let y = 31.0 + (i as f64 + 0.5) * ROW;
            svg.text("name", "end", (left - 10.0, y + 4.5), name);
            let mut from = left;
            for &k in used.iter().filter(|k| sum[**k] > 0) {
                let value = sum[k] as f64;
                let width = axis.at(value) - left;
                svg.bar(KINDS[k].0, (from, y - BAR / 2.0), (width, BAR), value);
                from += width;
            }
            svg.text("value", "end", (width - 1.0, y + 4.5), label);
        }
        svg.finish()
    };
    Some(Chart::draw("Where the bytes are", "Bytes as stored, by role; scales of all quantized tensors together.", draw))
}
