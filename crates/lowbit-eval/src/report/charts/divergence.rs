//! Bits per weight of the body against the divergence from the reference, both of which are better when smaller.

use super::super::compare::{Comparison, VariantRow};
use super::super::number;
use super::scatter::{Box4, around, label_place};
use super::{Axis, Chart, Name, Svg, dots, networks, text_width};
use std::collections::BTreeSet;

const HEIGHT: f64 = 320.0;

struct Point {
    name: Name,
    bits: f64,
    nats: f64,
    class: &'static str,
    /// Whether the layers have several formats.
    mixed: bool,
}

/// Bits of a weight of the body, scales included and padding left out, and whether its matrices have several formats.
fn body(row: &VariantRow) -> Option<(f64, bool)> {
    let body = || row.record.detail.tensors.iter().filter(|tensor| tensor.role == "body");
    let weights: u64 = body().map(|tensor| tensor.rows * tensor.cols).sum();
    let used: u64 = body().map(|tensor| tensor.used()).sum();
    let formats: BTreeSet<&str> = body().map(|tensor| tensor.format.as_str()).collect();
    (weights > 0).then(|| (8.0 * used as f64 / weights as f64, formats.len() > 1))
}

/// The plot, where at least two variants differ from the reference by a divergence that was measured.
pub(crate) fn curve(c: &Comparison) -> Option<Chart> {
    let mut points: Vec<Point> = networks(c)
        .filter_map(|row| {
            let nats = row.value("kl_divergence").filter(|nats| nats.is_finite() && *nats > 0.0)?;
            let (bits, mixed) = body(row)?;
            Some(Point { name: Name::of(row), bits, nats, class: dots::class(row), mixed })
        })
        .collect();
    points.sort_by(|a, b| a.bits.total_cmp(&b.bits).then(a.nats.total_cmp(&b.nats)));
    let rings = match points.iter().any(|p| p.mixed) {
        true => " Rings: layers in several formats.",
        false => "",
    };
    let caption = format!(
        "Stored bits of a weight of the body, scales included, and the mean KL divergence from the answers of the reference in \
         nats, on a logarithmic axis; less is better in both. The line joins the variants that no other beats in both.{rings}"
    );
    (points.len() > 1).then(|| Chart::draw("Bits and divergence", &caption, |width| plot(&points, width)))
}

fn plot(points: &[Point], width: f64) -> String {
    let area: Box4 = (60.0, 14.0, width - 14.0, HEIGHT - 40.0);
    let ends = |of: fn(&Point) -> f64| {
        let values = || points.iter().map(of);
        (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max))
    };
    let (bits, nats) = (ends(|p| p.bits), ends(|p| p.nats));
    let x_axis = Axis::linear(((bits.0 - 0.7).max(0.0), bits.1 + 0.7), (area.0, area.2));
    let y_axis = Axis::log((nats.0 / 2.0, nats.1 * 2.0), (area.3, area.1));
    let mut svg = Svg::new(width, HEIGHT, "Bits per weight against KL divergence");
    for tick in y_axis.ticks(6) {
        let y = y_axis.at(tick);
        svg.line("grid", (area.0, y), (area.2, y));
        svg.text("tick", "end", (area.0 - 8.0, y + 4.0), &exponent(tick));
    }
    for tick in x_axis.ticks(6) {
        let x = x_axis.at(tick);
        svg.line("grid", (x, area.1), (x, area.3));
        svg.text("tick", "middle", (x, area.3 + 18.0), &format!("{tick}"));
    }
    let at = |p: &Point| (x_axis.at(p.bits), y_axis.at(p.nats));
    let mut least = f64::INFINITY;
    let front = points.iter().filter(|p| {
        let better = p.nats < least;
        least = least.min(p.nats);
        better
    });
    svg.path("front", &front.map(at).collect::<Vec<_>>());
    let mut taken: Vec<Box4> = points.iter().map(|p| around(at(p), 7.0, 7.0)).collect();
    for point in points {
        let ring = if point.mixed { "dot beaten" } else { "dot" };
        let (bits, nats) = (number::fixed(point.bits, 2), number::plain(point.nats));
        svg.begin(&format!("{}: {bits} bits, {nats} nats", point.name.whole));
        svg.dot(&format!("{ring} {}", point.class), at(point), 5.0);
        svg.end();
        let label = &point.name.short;
        let (anchor, place, covered) = label_place(at(point), text_width(label, 12.0), &taken, area);
        taken.push(covered);
        svg.name("name small", anchor, place, &point.name, label);
    }
    svg.text("tick", "middle", ((area.0 + area.2) / 2.0, HEIGHT - 4.0), "bits per weight");
    svg.finish()
}

/// A round value as `0.05`, or `5e-5` where that has many zeros.
fn exponent(value: f64) -> String {
    if value < 9e-4 { format!("{value:.0e}") } else { format!("{}", (value * 1e4).round() / 1e4) }
}
