//! Weight bytes (logarithmic) against accuracy, with the front of contenders that nothing beats in both.

use super::super::compare::{Comparison, Row};
use super::super::number::{self, Scale};
use super::{Axis, Chart, Svg, dots, text_width};

const HEIGHT: f64 = 340.0;

struct Point<'a> {
    name: &'a str,
    bytes: f64,
    accuracy: f64,
    class: &'static str,
    front: bool,
}

/// The plot, where at least two contenders have both values.
pub(crate) fn pareto(c: &Comparison) -> Option<Chart> {
    let pair = |r: &Row| Some((r.value("weight_bytes").filter(|b| *b > 0.0)?, r.value("accuracy")?));
    let all: Vec<(f64, f64)> = c.networks().filter_map(pair).collect();
    let beaten = |(bytes, accuracy): (f64, f64)| {
        all.iter().any(|&(b, a)| b <= bytes && a >= accuracy && (b < bytes || a > accuracy))
    };
    let mut points: Vec<Point> = c
        .networks()
        .filter_map(|r| {
            let (bytes, accuracy) = pair(r)?;
            Some(Point { name: r.name(), bytes, accuracy, class: dots::class(r), front: !beaten((bytes, accuracy)) })
        })
        .collect();
    points.sort_by(|a, b| a.bytes.total_cmp(&b.bytes).then(b.accuracy.total_cmp(&a.accuracy)));
    let ceiling = c.facts.and_then(|f| f.ceiling.as_ref()).map(|m| m.value);
    let caption = "Weight bytes on a logarithmic axis, smaller is further left; accuracy in percent. The line joins the \
                   contenders that no other beats in both. An arrow points to a value below the plot.";
    (points.len() > 1).then(|| Chart::draw("Size and accuracy", caption, |width| plot(&points, ceiling, width)))
}

/// Accuracy range of the contenders that work.
fn focus(points: &[Point], ceiling: Option<f64>) -> (f64, f64) {
    let near = || points.iter().filter(|p| p.class != "bad").map(|p| p.accuracy);
    let (lo, hi) = (near().fold(1.0, f64::min), near().chain(ceiling).fold(0.0, f64::max));
    let margin = ((hi - lo) * 0.1).max(0.002);
    ((lo - margin).max(0.0), (hi + margin).min(1.0))
}

fn plot(points: &[Point], ceiling: Option<f64>, width: f64) -> String {
    let (left, right, top, bottom) = (44.0, width - 14.0, 14.0, HEIGHT - 40.0);
    let bytes = || points.iter().map(|p| p.bytes);
    let (lo, hi) = (bytes().fold(f64::INFINITY, f64::min), bytes().fold(0.0, f64::max));
    let x_axis = Axis::log((lo / 1.25, hi * 1.25), (left, right));
    let y_axis = Axis::linear(focus(points, ceiling), (bottom, top));
    let mut svg = Svg::new(width, HEIGHT, "Weight bytes against accuracy");
    let ticks = y_axis.ticks(6);
    for tick in &ticks {
        let y = y_axis.at(*tick);
        svg.line("grid", (left, y), (right, y));
        let text = number::fixed(tick * 100.0, Axis::decimals(&ticks, 100.0));
        svg.text("tick", "end", (left - 8.0, y + 4.0), &text);
    }
    for tick in x_axis.ticks(4) {
        let x = x_axis.at(tick);
        svg.line("grid", (x, top), (x, bottom));
        svg.text("tick", "middle", (x, bottom + 18.0), &Scale::bytes([tick]).text(tick));
    }
    if let Some(ceiling) = ceiling {
        let y = y_axis.at(ceiling);
        svg.line("mark", (left, y), (right, y));
        svg.text("note", "end", (right, y - 5.0), "ceiling");
    }
    let at = |p: &Point| (x_axis.at(p.bytes), y_axis.at(p.accuracy).min(bottom - 10.0));
    let below = |p: &Point| y_axis.at(p.accuracy) > bottom + 0.5;
    let front: Vec<(f64, f64)> = points.iter().filter(|p| p.front && !below(p)).map(at).collect();
    svg.path("front", &front);
    for point in points {
        let (x, y) = at(point);
        if below(point) {
            svg.path(&format!("arrow {}", point.class), &[(x - 5.0, y - 2.0), (x, y + 6.0), (x + 5.0, y - 2.0)]);
        } else {
            let hollow = if point.front { "dot" } else { "dot beaten" };
            svg.dot(&format!("{hollow} {}", point.class), (x, y), 5.0);
        }
    }
    for (label, anchor, place) in labels(points, at, below, (left, right, top, bottom)) {
        svg.text("name small", anchor, place, &label);
    }
    svg.text("tick", "middle", ((left + right) / 2.0, HEIGHT - 4.0), "weight bytes");
    svg.finish()
}

type Box4 = (f64, f64, f64, f64);

/// A place for every name that hides neither a dot nor another name, where there is one.
fn labels<'a>(
    points: &'a [Point],
    at: impl Fn(&Point) -> (f64, f64),
    below: impl Fn(&Point) -> bool,
    (left, right, top, bottom): Box4,
) -> Vec<(String, &'static str, (f64, f64))> {
    let mut taken: Vec<Box4> = points.iter().map(|p| around(at(p), 7.0, 7.0)).collect();
    let mut out = Vec::new();
    for point in points {
        let text = if below(point) {
            format!("{} {}", point.name, number::fixed(point.accuracy * 100.0, 1))
        } else {
            point.name.to_string()
        };
        let (x, y) = at(point);
        let (w, h) = (text_width(&text, 12.0), 13.0);
        let mut best: Option<(f64, &'static str, (f64, f64), Box4)> = None;
        for (i, dy) in [0.0, -13.0, 13.0, -24.0, 24.0, -36.0, 36.0].into_iter().enumerate() {
            for (j, anchor) in ["start", "end", "middle"].into_iter().enumerate() {
                if anchor == "middle" && dy == 0.0 {
                    continue;
                }
                let x0 = match anchor {
                    "start" => x + 9.0,
                    "end" => x - 9.0 - w,
                    _ => x - w / 2.0,
                };
                let b = (x0, y + dy - h / 2.0, x0 + w, y + dy + h / 2.0);
                let outside = b.0 < left || b.2 > right + 10.0 || b.1 < top - 8.0 || b.3 > bottom;
                let hidden: f64 = taken.iter().map(|t| overlap(*t, b)).sum();
                let cost = hidden * 10.0 + if outside { 1e6 } else { 0.0 } + i as f64 * 3.0 + j as f64;
                if best.as_ref().is_none_or(|b| cost < b.0) {
                    let anchored = if anchor == "start" { x0 } else if anchor == "end" { x0 + w } else { x };
                    best = Some((cost, anchor, (anchored, y + dy + 4.0), b));
                }
            }
        }
        if let Some((_, anchor, place, area)) = best {
            taken.push(area);
            out.push((text, anchor, place));
        }
    }
    out
}

fn around((x, y): (f64, f64), w: f64, h: f64) -> Box4 {
    (x - w, y - h, x + w, y + h)
}

fn overlap(a: Box4, b: Box4) -> f64 {
    (a.2.min(b.2) - a.0.max(b.0)).max(0.0) * (a.3.min(b.3) - a.1.max(b.1)).max(0.0)
}
