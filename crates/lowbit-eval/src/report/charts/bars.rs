//! Bars that start at zero: median latency with its range, and the bytes of every variant by role.

use super::super::compare::{Comparison, Verdict};
use super::super::number::{self, Scale};
use super::super::query::What;
use super::{Axis, Chart, Name, Svg, networks, sides, text_width};
use crate::record::TensorBytes;

const ROW: f64 = 26.0;
const BAR: f64 = 14.0;

/// One variant's median latency.
struct Bar {
    name: Name,
    value: f64,
    ends: (f64, f64),
    class: &'static str,
    label: String,
}

/// Median latency per example with lowest and highest run.
pub(crate) fn latency(c: &Comparison) -> Option<Chart> {
    let bar = |r: &super::super::compare::VariantRow| {
        let m = r.record.measures.get("latency_p50")?;
        let samples = r.record.detail.samples.get("latency");
        let all = || samples.into_iter().flatten().copied().chain([m.value]);
        let ends = (all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max));
        let label = c.ask(r.name(), What::Measure("latency_p50".into()))?.text;
        let class = if r.verdict == Verdict::Reference { "ref" } else { "time" };
        Some(Bar { name: Name::of(r), value: m.value, ends, class, label })
    };
    let bars: Vec<Bar> = networks(c).filter_map(bar).collect();
    let p90 = networks(c).filter_map(|r| r.value("latency_p90")).fold(0.0, f64::max);
    let longest = bars.iter().map(|b| b.value * 1.25).fold(p90 * 1.1, f64::max);
    let caption = "Median time of one example (batch 1); the thin line runs from the lowest to the highest run. An arrow \
                   points to a run outside the plot.";
    let draw = |width| draw_latency(&bars, longest, width);
    (!bars.is_empty()).then(|| Chart::draw("Latency", caption, draw))
}

fn draw_latency(bars: &[Bar], longest: f64, width: f64) -> String {
    let (left, right) = sides(bars.iter().map(|b| (b.name.short.as_str(), b.label.as_str())), width);
    let axis = Axis::linear((0.0, longest), (left, right));
    let height = bars.len() as f64 * ROW;
    let mut svg = Svg::new(width, height + 6.0, "Median latency per example");
    svg.line("zero", (left, 2.0), (left, height + 4.0));
    for (i, bar) in bars.iter().enumerate() {
        let y = 3.0 + (i as f64 + 0.5) * ROW;
        svg.name("name", "end", (left - 10.0, y + 4.5), &bar.name, &bar.name.short);
        let scale = Scale::seconds([bar.ends.0, bar.value]);
        let ends = format!("runs of {} to {}", scale.number(bar.ends.0), scale.text(bar.ends.1));
        svg.begin(&format!("{}: {}, {ends}", bar.name.whole, bar.label));
        let size = (axis.at(bar.value) - left, BAR);
        svg.bar(bar.class, (left, y - BAR / 2.0), size, bar.value);
        let (from, to) = (axis.at(bar.ends.0), axis.at(bar.ends.1));
        svg.line("whisker", (from, y), (to.min(right), y));
        svg.line("whisker", (from, y - 3.0), (from, y + 3.0));
        if to <= right {
            svg.line("whisker", (to, y - 3.0), (to, y + 3.0));
        } else {
            let tip = [(right - 5.0, y - 4.0), (right, y), (right - 5.0, y + 4.0)];
            svg.path("whisker", &tip);
        }
        svg.end();
        svg.text("value", "end", (width - 1.0, y + 4.5), &bar.label);
    }
    svg.finish()
}

/// Kinds of stored bytes, in drawing order: class and legend.
const KINDS: [(&str, &str); 5] =
    [("k1", "embedding"), ("k2", "body"), ("k3", "head"), ("k4", "scales"), ("k5", "norm, bias")];
/// Place of the scales in [`KINDS`].
const SCALES: usize = 3;
/// Place of norms and biases.
const REST: usize = 4;

/// Bytes of one variant by kind, in the order of [`KINDS`].
fn kinds(tensors: &[TensorBytes]) -> [u64; 5] {
    let mut out = [0u64; 5];
    for tensor in tensors {
        let place = KINDS.iter().position(|k| k.1 == tensor.role).unwrap_or(REST);
        for (part, bytes) in &tensor.parts {
            let scale = place != REST && part.contains("scale");
            out[if scale { SCALES } else { place }] += bytes;
        }
    }
    out
}

/// One variant's bytes.
struct Stack {
    name: Name,
    bytes: [u64; 5],
    label: String,
}

/// Where the bytes of every variant are.
pub(crate) fn ledger(c: &Comparison) -> Option<Chart> {
    let with = networks(c).filter(|r| !r.record.detail.tensors.is_empty());
    let stacks: Vec<Stack> = with
        .map(|r| {
            let bytes = kinds(&r.record.detail.tensors);
            let label = c.scales.weights.text(bytes.iter().sum::<u64>() as f64);
            Stack { name: Name::of(r), bytes, label }
        })
        .collect();
    let most = stacks.iter().map(|s| s.bytes.iter().sum::<u64>()).max().filter(|m| *m > 0)?;
    let caption = "Bytes as stored, by role; scales of all quantized tensors together.";
    let draw = |width| draw_ledger(&stacks, most as f64, width);
    Some(Chart::draw("Where the bytes are", caption, draw))
}

fn draw_ledger(stacks: &[Stack], most: f64, width: f64) -> String {
    let used: Vec<usize> = (0..KINDS.len()).filter(|k| stacks.iter().any(|s| s.bytes[*k] > 0)).collect();
    let (left, right) = sides(stacks.iter().map(|s| (s.name.short.as_str(), s.label.as_str())), width);
    let axis = Axis::linear((0.0, most), (left, right));
    let height = stacks.len() as f64 * ROW;
    let mut svg = Svg::new(width, height + 34.0, "Weight bytes by role");
    let mut x = 0.0;
    for &k in &used {
        svg.dot(&format!("key {}", KINDS[k].0), (x + 5.0, 9.0), 5.0);
        svg.text("note", "start", (x + 14.0, 13.0), KINDS[k].1);
        x += text_width(KINDS[k].1, 11.0) + 26.0;
    }
    svg.line("zero", (left, 26.0), (left, height + 32.0));
    for (i, stack) in stacks.iter().enumerate() {
        let y = 31.0 + (i as f64 + 0.5) * ROW;
        svg.name("name", "end", (left - 10.0, y + 4.5), &stack.name, &stack.name.short);
        let mut from = left;
        for &k in used.iter().filter(|k| stack.bytes[**k] > 0) {
            let value = stack.bytes[k] as f64;
            let length = axis.at(value) - left;
            svg.begin(&format!("{}, {}: {} bytes", stack.name.whole, KINDS[k].1, number::count(value)));
            svg.bar(KINDS[k].0, (from, y - BAR / 2.0), (length, BAR), value);
            svg.end();
            from += length;
        }
        svg.text("value", "end", (width - 1.0, y + 4.5), &stack.label);
    }
    svg.finish()
}
