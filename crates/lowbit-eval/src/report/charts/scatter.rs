//! Weight bytes (logarithmic) against accuracy, with the front of variants that nothing beats in both.

use super::super::compare::{Comparison, VariantRow};
use super::super::number::{self, Scale};
use super::{Axis, Chart, Name, Svg, dots, networks, text_width};

const HEIGHT: f64 = 340.0;

struct Point {
    name: Name,
    bytes: f64,
    accuracy: f64,
    /// Interval of the accuracy: that of the difference to the reference, around the reference's accuracy.
    ends: Option<(f64, f64)>,
    class: &'static str,
    front: bool,
}

/// The plot, where at least two variants have both values.
pub(crate) fn pareto(c: &Comparison) -> Option<Chart> {
    let pair = |r: &VariantRow| Some((r.value("weight_bytes").filter(|b| *b > 0.0)?, r.quality()?));
    let all: Vec<(f64, f64)> = networks(c).filter_map(pair).collect();
    let base = c.reference().and_then(|r| r.quality());
    let beaten = |(bytes, accuracy): (f64, f64)| {
        all.iter().any(|&(b, a)| b <= bytes && a >= accuracy && (b < bytes || a > accuracy))
    };
    let mut points: Vec<Point> = networks(c)
        .filter_map(|r| {
            let (bytes, accuracy) = pair(r)?;
            Some(Point {
                name: Name::of(r),
                bytes,
                accuracy,
                ends: r.change.as_ref().zip(base).map(|(change, base)| (base + change.lo, base + change.hi)),
                class: dots::class(r),
                front: !beaten((bytes, accuracy)),
            })
        })
        .collect();
    points.sort_by(|a, b| a.bytes.total_cmp(&b.bytes).then(b.accuracy.total_cmp(&a.accuracy)));
    let ceiling = c.facts.and_then(|f| f.ceiling.as_ref()).map(|m| m.value);
    let noun = c.noun();
    let caption = format!(
        "Weight bytes on a logarithmic axis, smaller is further left; {noun} in percent, with the 95 % interval of the paired \
         difference to the reference. The line joins the variants that no other beats in both. An arrow points to a value \
         below the plot."
    );
    let lo = c.focus().unwrap_or_else(|| points.iter().map(|p| p.accuracy).fold(1.0, f64::min));
    let hi = points.iter().map(|p| p.accuracy).fold(lo, f64::max);
    let shown = || points.iter().filter(|p| p.accuracy >= lo - 1e-9).filter_map(|p| p.ends);
    let (lo, hi) = shown().fold((lo, hi), |(lo, hi), ends| (lo.min(ends.0), hi.max(ends.1)));
    let margin = ((hi - lo) * 0.12).max(0.002);
    let ceiling = ceiling.filter(|c| *c < hi + 2.0 * (hi - lo).max(margin));
    let below = points.iter().filter(|p| p.accuracy < lo - 1e-9).count();
    let room = margin * (2.0 + below.min(3) as f64);
    let range = ((lo - room).max(0.0), (ceiling.unwrap_or(hi).max(hi) + margin).min(1.0));
    let title = format!("Size and {noun}");
    (points.len() > 1).then(|| Chart::draw(&title, &caption, |width| plot(&points, ceiling, range, width)))
}

fn plot(points: &[Point], ceiling: Option<f64>, range: (f64, f64), width: f64) -> String {
    let area = (44.0, 14.0, width - 14.0, HEIGHT - 40.0);
    let bytes = || points.iter().map(|p| p.bytes);
    let (lo, hi) = (bytes().fold(f64::INFINITY, f64::min), bytes().fold(0.0, f64::max));
    let x_axis = Axis::log((lo / 1.25, hi * 1.25), (area.0, area.2));
    let y_axis = Axis::linear(range, (area.3, area.1));
    let mut svg = Svg::new(width, HEIGHT, "Weight bytes against accuracy");
    grid(&mut svg, &x_axis, &y_axis, area);
    if let Some(ceiling) = ceiling {
        let y = y_axis.at(ceiling);
        svg.line("mark", (area.0, y), (area.2, y));
        svg.text("note", "end", (area.2, y - 5.0), "ceiling");
    }
    let at = |p: &Point| (x_axis.at(p.bytes), y_axis.at(p.accuracy).min(area.3 - 10.0));
    let below = |p: &Point| y_axis.at(p.accuracy) > area.3 + 0.5;
    let front: Vec<(f64, f64)> = points.iter().filter(|p| p.front && !below(p)).map(at).collect();
    svg.path("front", &front);
    let mut taken: Vec<Box4> = points.iter().map(|p| around(at(p), 7.0, 7.0)).collect();
    let interval = |p: &Point| p.ends.map(|ends| (y_axis.at(ends.1).max(area.1), y_axis.at(ends.0).min(area.3)));
    let seen = || points.iter().filter(|p| !below(p));
    taken.extend(seen().filter_map(|p| interval(p).map(|(top, end)| (at(p).0 - 2.0, top, at(p).0 + 2.0, end))));
    for point in points {
        let (x, y) = at(point);
        let mut label = point.name.short.clone();
        let (size, quality) = (Scale::bytes([point.bytes]).text(point.bytes), number::percent(point.accuracy));
        svg.begin(&format!("{}: {size}, {quality}", point.name.whole));
        if below(point) {
            let tip = [(x - 5.0, y - 2.0), (x, y + 6.0), (x + 5.0, y - 2.0)];
            svg.path(&format!("arrow {}", point.class), &tip);
            label.push_str(&format!(" {}", number::fixed(point.accuracy * 100.0, 1)));
        } else {
            if let Some((top, end)) = interval(point) {
                svg.line(&format!("thin {}", point.class), (x, top), (x, end));
            }
            let hollow = if point.front { "dot" } else { "dot beaten" };
            svg.dot(&format!("{hollow} {}", point.class), (x, y), 5.0);
        }
        svg.end();
        let (anchor, place, covered) = label_place((x, y), text_width(&label, 12.0), &taken, area);
        taken.push(covered);
        svg.name("name small", anchor, place, &point.name, &label);
    }
    svg.text("tick", "middle", ((area.0 + area.2) / 2.0, HEIGHT - 4.0), "weight bytes");
    svg.finish()
}

fn grid(svg: &mut Svg, x_axis: &Axis, y_axis: &Axis, (left, top, right, bottom): Box4) {
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
}

/// Left, top, right, bottom.
pub(super) type Box4 = (f64, f64, f64, f64);

/// Anchor, position and area of a label `w` wide beside the point: the place that hides least of what is `taken`, nearest
/// first, inside `area`.
pub(super) fn label_place((x, y): (f64, f64), w: f64, taken: &[Box4], area: Box4) -> (&'static str, (f64, f64), Box4) {
    let mut best = (f64::INFINITY, "start", (x, y), area);
    for (i, dy) in [0.0, -13.0, 13.0, -24.0, 24.0, -36.0, 36.0].into_iter().enumerate() {
        let sides = [("start", x + 9.0, 0.0), ("end", x - 9.0 - w, w), ("middle", x - w / 2.0, w / 2.0)];
        for (j, (anchor, from, shift)) in sides.into_iter().enumerate() {
            let covered = (from, y + dy - 6.5, from + w, y + dy + 6.5);
            let outside =
                covered.0 < area.0 || covered.2 > area.2 + 10.0 || covered.1 < area.1 - 8.0 || covered.3 > area.3;
            let hidden: f64 = taken.iter().map(|t| overlap(*t, covered)).sum();
            let far = i as f64 * 3.0 + j as f64;
            let cost = hidden * 10.0 + far + if outside { 1e6 } else { 0.0 };
            if cost < best.0 {
                best = (cost, anchor, (from + shift, y + dy + 4.0), covered);
            }
        }
    }
    (best.1, best.2, best.3)
}

pub(super) fn around((x, y): (f64, f64), w: f64, h: f64) -> Box4 {
    (x - w, y - h, x + w, y + h)
}

fn overlap(a: Box4, b: Box4) -> f64 {
    (a.2.min(b.2) - a.0.max(b.0)).max(0.0) * (a.3.min(b.3) - a.1.max(b.1)).max(0.0)
}
