//! Dot plots: accuracy with its interval, and the paired difference to the reference with its interval.

use super::super::compare::{Comparison, VariantRow, Verdict, quality};
use super::super::number;
use super::{Axis, Chart, Name, Svg, drawn, networks, short, sides, text_width};

const ROW: f64 = 26.0;

/// What a dot plot shows of one variant.
struct Dot {
    name: Name,
    value: f64,
    ends: (f64, f64),
    class: &'static str,
    label: String,
}

/// Vertical reference lines.
struct Mark {
    value: f64,
    label: String,
    class: &'static str,
}

/// Colour class of a variant.
pub(super) fn class(row: &VariantRow) -> &'static str {
    match row.verdict {
        Verdict::Reference => "ref",
        Verdict::Baseline => "plain",
        Verdict::Same | Verdict::Higher => "good",
        Verdict::Lower => "warn",
        Verdict::Fails => "bad",
        Verdict::Undecided | Verdict::Void => "neutral",
        Verdict::Unknown => "ref",
    }
}

/// Accuracy of every variant with the Wilson interval; lines for ceiling, reference and chance.
pub(crate) fn accuracy(c: &Comparison) -> Option<Chart> {
    let mut dots: Vec<Dot> = drawn(c)
        .filter_map(|r| {
            let m = quality(r.record)?;
            let ends = (m.lo.unwrap_or(m.value), m.hi.unwrap_or(m.value));
            let label = number::fixed(m.value * 100.0, 2);
            Some(Dot { name: Name::of(r), value: m.value, ends, class: class(r), label })
        })
        .collect();
    dots.sort_by(|a, b| b.value.total_cmp(&a.value));
    if dots.is_empty() {
        return None;
    }
    let mut marks = Vec::new();
    let mut mark = |value: Option<f64>, label: &str, class| {
        marks.extend(value.map(|value| Mark { value, label: label.into(), class }));
    };
    mark(c.chance, "chance", "mark");
    mark(c.facts.and_then(|f| f.ceiling.as_ref()).map(|m| m.value), "ceiling", "mark");
    let values = || dots.iter().map(|d| d.ends.0).chain(marks.iter().map(|m| m.value));
    let lo = values().fold(1.0, f64::min);
    let hi = dots.iter().map(|d| d.ends.1).chain(marks.iter().map(|m| m.value)).fold(0.0, f64::max);
    let margin = (hi - lo) * 0.04;
    let range = ((lo - margin).max(lo.min(0.0)), (hi + margin).min(1.0));
    let (title, caption) = match c.quality() {
        Some("r2") => {
            ("Explained variance", "Percent of the variance explained, with the 95 % interval. Hollow: no network.")
        }
        _ => ("Accuracy", "Percent of test rows answered right, with the Wilson 95 % interval. Hollow: no network."),
    };
    Some(Chart::draw(title, caption, |width| plot(&dots, &marks, range, width, title)))
}

/// Difference to the reference in points, paired interval; far ones are drawn at the edge.
pub(crate) fn changes(c: &Comparison) -> Option<Chart> {
    let mut dots: Vec<Dot> = networks(c)
        .filter_map(|r| {
            let change = r.change.as_ref()?;
            let label = number::points(change.points);
            Some(Dot { name: Name::of(r), value: change.points, ends: (change.lo, change.hi), class: class(r), label })
        })
        .collect();
    dots.sort_by(|a, b| b.value.total_cmp(&a.value));
    let reference = c.reference()?.name();
    let base = c.reference()?.quality()?;
    let focus = c.focus().unwrap_or(0.0) - base;
    let near = |d: &&Dot| d.value >= focus - 1e-9;
    let widths = dots.iter().filter(near).map(|d| d.ends.0);
    let lo = widths.fold(0.0, f64::min).min(-0.002);
    let hi = dots.iter().filter(near).map(|d| d.ends.1).fold(0.0, f64::max).max(0.002);
    if dots.is_empty() {
        return None;
    }
    let margin = (hi - lo) * 0.05;
    let marks = [Mark { value: 0.0, label: short(reference), class: "zero" }];
    let title = format!("Change against {reference}");
    let caption = "Percentage points on the same rows, with the 95 % interval of the paired difference. An arrow points to a \
                   value outside the plot.";
    Some(Chart::draw(&title, caption, |width| plot(&dots, &marks, (lo - margin, hi + margin), width, &title)))
}

fn plot(dots: &[Dot], marks: &[Mark], range: (f64, f64), width: f64, label: &str) -> String {
    let (left, right) = sides(dots.iter().map(|d| (d.name.short.as_str(), d.label.as_str())), width);
    let (top, bottom) = (22.0, 22.0 + dots.len() as f64 * ROW);
    let axis = Axis::linear(range, (left, right));
    let mut svg = Svg::new(width, bottom + 22.0, label);
    let ticks = axis.ticks(if width > 400.0 { 6 } else { 4 });
    let decimals = Axis::decimals(&ticks, 100.0);
    for tick in &ticks {
        let x = axis.at(*tick);
        svg.line("grid", (x, top), (x, bottom));
        svg.text("tick", "middle", (x, bottom + 16.0), &number::fixed(tick * 100.0, decimals));
    }
    for mark in marks {
        let x = axis.at(mark.value);
        svg.line(mark.class, (x, top - 4.0), (x, bottom));
        let half = text_width(&mark.label, 11.0) / 2.0;
        svg.text("note", "middle", (x.clamp(half, width - half), top - 9.0), &mark.label);
    }
    for (i, dot) in dots.iter().enumerate() {
        let y = top + (i as f64 + 0.5) * ROW;
        svg.name("name", "end", (left - 10.0, y + 4.5), &dot.name, &dot.name.short);
        draw_dot(&mut svg, dot, &axis, (left, right), y);
        svg.text("value", "end", (width - 1.0, y + 4.5), &dot.label);
    }
    svg.finish()
}

/// The dot with its interval, or an arrow at the edge behind which it lies.
fn draw_dot(svg: &mut Svg, dot: &Dot, axis: &Axis, (left, right): (f64, f64), y: f64) {
    let end = |value: f64| number::fixed(value * 100.0, 2);
    svg.begin(&format!("{}: {}, {} to {}", dot.name.whole, dot.label, end(dot.ends.0), end(dot.ends.1)));
    let clip = |v: f64| axis.at(v).clamp(left, right);
    let x = axis.at(dot.value);
    if x < left - 0.5 || x > right + 0.5 {
        let edge = if x < left { left + 1.0 } else { right - 1.0 };
        let inner = if x < left { edge + 8.0 } else { edge - 8.0 };
        let tip = [(inner, y - 5.0), (edge, y), (inner, y + 5.0)];
        svg.path(&format!("arrow {}", dot.class), &tip);
    } else {
        svg.line(&format!("span {}", dot.class), (clip(dot.ends.0), y), (clip(dot.ends.1), y));
        svg.dot(&format!("dot {}", dot.class), (x, y), 4.5);
    }
    svg.end();
}
