//! Training curves: loss and held-out accuracy by optimizer step.

use super::super::compare::Comparison;
use super::super::number;
use super::{Axis, Chart, Name, Svg, drawn, text_width};
use crate::record::CurvePoint;

const HEIGHT: f64 = 280.0;
/// Points drawn per curve: longer curves are averaged over equal stretches.
const POINTS: usize = 160;
/// Points of a curve that tell their value under a pointer.
const HITS: usize = 24;
/// Curves with a colour of their own.
const COLOURS: usize = 6;

struct Curve {
    name: Name,
    points: Vec<(f64, f64)>,
}

/// Loss by step of every variant that was trained.
pub(crate) fn loss(c: &Comparison) -> Option<Chart> {
    let caption = "Training loss in nats by optimizer step; long runs are averaged over equal stretches of steps.";
    chart(c, "Training loss", caption, 1.0, |p| Some(p.loss))
}

/// Held-out accuracy by step, where it was measured.
pub(crate) fn held_out(c: &Comparison) -> Option<Chart> {
    let caption = "Percent of held-out rows answered right, by optimizer step.";
    chart(c, "Held-out accuracy", caption, 100.0, |p| p.held_out_accuracy)
}

fn chart(
    c: &Comparison,
    title: &str,
    caption: &str,
    scale: f64,
    value: impl Fn(&CurvePoint) -> Option<f64>,
) -> Option<Chart> {
    let curves: Vec<Curve> = drawn(c)
        .map(|r| {
            let all = r.record.detail.curve.iter();
            let points: Vec<(f64, f64)> =
                all.filter_map(|p| Some((p.step as f64, value(p).filter(|v| v.is_finite())?))).collect();
            Curve { name: Name::of(r), points: thin(&points) }
        })
        .filter(|curve| curve.points.len() > 1)
        .take(COLOURS)
        .collect();
    (!curves.is_empty()).then(|| Chart::draw(title, caption, |width| plot(&curves, scale, width, title)))
}

/// Means over equal stretches.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let size = points.len().div_ceil(POINTS).max(1);
    let mean = |chunk: &[(f64, f64)]| {
        let n = chunk.len() as f64;
        (chunk.iter().map(|p| p.0).sum::<f64>() / n, chunk.iter().map(|p| p.1).sum::<f64>() / n)
    };
    points.chunks(size).map(mean).collect()
}

fn plot(curves: &[Curve], scale: f64, width: f64, label: &str) -> String {
    let (left, right, top, bottom) = (44.0, width - 14.0, 30.0, HEIGHT - 40.0);
    let all = || curves.iter().flat_map(|c| &c.points);
    let (lo, hi) = all().fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), p| (lo.min(p.1), hi.max(p.1)));
    let last = all().map(|p| p.0).fold(0.0, f64::max);
    let margin = ((hi - lo) * 0.05).max(1e-6);
    let floor = if lo >= 0.0 { (lo - margin).max(0.0) } else { lo - margin };
    let x_axis = Axis::linear((0.0, last), (left, right));
    let y_axis = Axis::linear((floor, hi + margin), (bottom, top));
    let mut svg = Svg::new(width, HEIGHT, label);
    let ticks = y_axis.ticks(5);
    for tick in &ticks {
        let y = y_axis.at(*tick);
        svg.line("grid", (left, y), (right, y));
        svg.text("tick", "end", (left - 8.0, y + 4.0), &number::fixed(tick * scale, Axis::decimals(&ticks, scale)));
    }
    for tick in x_axis.ticks(if width > 400.0 { 6 } else { 4 }) {
        svg.text("tick", "middle", (x_axis.at(tick), bottom + 18.0), &number::count(tick));
    }
    let mut x = left;
    for (i, curve) in curves.iter().enumerate() {
        let class = format!("c{}", i + 1);
        let points: Vec<(f64, f64)> = curve.points.iter().map(|p| (x_axis.at(p.0), y_axis.at(p.1))).collect();
        svg.path(&format!("curve {class}"), &points);
        let every = points.len().div_ceil(HITS).max(1);
        for (point, (step, value)) in points.iter().zip(&curve.points).step_by(every) {
            let value = number::plain(value * scale);
            svg.begin(&format!("{}, step {}: {value}", curve.name.whole, number::count(*step)));
            svg.dot("hit", *point, 6.0);
            svg.end();
        }
        svg.line(&format!("curve {class}"), (x, 10.0), (x + 16.0, 10.0));
        svg.name("note", "start", (x + 21.0, 14.0), &curve.name, &curve.name.short);
        x += text_width(&curve.name.short, 11.0) + 38.0;
    }
    svg.text("tick", "middle", ((left + right) / 2.0, HEIGHT - 4.0), "step");
    svg.finish()
}
