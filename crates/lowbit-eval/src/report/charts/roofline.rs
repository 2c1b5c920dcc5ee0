//! Roofline plot (doi 10.1145/1498765.1498785): operations per byte against operations per second, both logarithmic, under
//! the memory bandwidth and the peaks of the machine. A file of its own, readable on light and dark pages.

use super::{Axis, Svg, text_width};
use std::collections::BTreeMap;

/// One case.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// What the legend tells apart; series with the same first word (up to `_`) share a colour.
    pub series: String,
    /// Shown when a pointer rests on the mark.
    pub title: String,
    /// Operations per byte.
    pub intensity: f64,
    /// 10^9 operations per second.
    pub rate: f64,
}

/// One machine: an instruction set with a number of threads.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// Its name.
    pub title: String,
    /// Memory bandwidth, GB/s.
    pub memory_gbps: f64,
    /// Name of each peak, 10^9 operations per second.
    pub peaks: Vec<(String, f64)>,
    /// The cases; one whose numbers are not positive is left out.
    pub marks: Vec<Mark>,
}

/// The plot.
#[derive(Clone, Debug, PartialEq)]
pub struct Roofline {
    /// Title above all.
    pub title: String,
    /// What a reader should know, in one line below the title.
    pub note: String,
    /// The machines, below one another on the same axes.
    pub panels: Vec<Panel>,
}

const WIDTH: f64 = 960.0;
const PANEL: f64 = 430.0;
const TOP: f64 = 52.0;
/// Where the legend begins.
const LEGEND: f64 = WIDTH - 170.0;
/// Room for the names of peaks before it.
const PEAKS: f64 = 120.0;
const STYLE: &str = include_str!("roofline.css");
/// Colours and outlines that the style sheet has.
const COLOURS: usize = 10;
/// Corners of outlines, as parts of a mark's radius; none for a circle.
const OUTLINES: [&[(f64, f64)]; 4] = [
    &[],
    &[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    &[(0.0, -1.25), (1.15, 0.85), (-1.15, 0.85)],
    &[(0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)],
];

/// Colour and outline.
type Look = (usize, usize);

impl Roofline {
    /// The drawing.
    pub fn svg(&self) -> String {
        let looks = self.looks();
        let (x, y) = self.ranges();
        let height = TOP + self.panels.len() as f64 * PANEL;
        let mut svg = Svg::alone(WIDTH, height, &self.title, STYLE);
        svg.text("title", "start", (16.0, 24.0), &self.title);
        svg.text("note", "start", (16.0, 42.0), &self.note);
        for (i, panel) in self.panels.iter().enumerate() {
            let top = TOP + i as f64 * PANEL;
            let area = Area { left: 66.0, right: LEGEND - PEAKS, top: top + 30.0, bottom: top + PANEL - 52.0 };
            let axes = (Axis::log(x, (area.left, area.right)), Axis::log(y, (area.bottom, area.top)));
            svg.text("name", "start", (area.left, top + 18.0), &panel.title);
            draw(&mut svg, panel, &area, &axes, x, &looks);
        }
        for (i, (series, look)) in looks.iter().enumerate() {
            let y = TOP + 40.0 + i as f64 * 20.0;
            outline(&mut svg, *look, (LEGEND + 8.0, y));
            svg.text("note", "start", (LEGEND + 20.0, y + 4.0), series);
        }
        svg.finish()
    }

    fn marks(&self) -> impl Iterator<Item = &Mark> {
        self.panels.iter().flat_map(|p| &p.marks)
    }

    /// The look of every series, in the order they come.
    fn looks(&self) -> Vec<(&str, Look)> {
        let mut families: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        let mut looks: Vec<(&str, Look)> = Vec::new();
        for mark in self.marks() {
            if looks.iter().any(|(series, _)| *series == mark.series) {
                continue;
            }
            let family = mark.series.split('_').next().unwrap_or_default();
            let next = families.len() % COLOURS;
            let (colour, members) = families.entry(family).or_insert((next, 0));
            looks.push((&mark.series, (*colour, *members % OUTLINES.len())));
            *members += 1;
        }
        looks
    }

    /// Ranges of both axes, shared by all panels.
    fn ranges(&self) -> ((f64, f64), (f64, f64)) {
        let range = |values: &mut dyn Iterator<Item = f64>| {
            let values = values.filter(|v| v.is_finite() && *v > 0.0);
            values.fold((f64::INFINITY, 0.0f64), |(lo, hi), v| (lo.min(v), hi.max(v)))
        };
        let peaks = || self.panels.iter().flat_map(|p| p.peaks.iter().map(|(_, peak)| *peak));
        let ridges = self.panels.iter().flat_map(|p| p.peaks.iter().map(|(_, peak)| peak / p.memory_gbps));
        let (lo, hi) = range(&mut self.marks().map(|m| m.intensity).chain(ridges));
        let x = (lo / 1.6, hi * 1.6);
        let roofs = self.panels.iter().map(|p| p.memory_gbps * x.0);
        let (lo, hi) = range(&mut self.marks().map(|m| m.rate).chain(peaks()).chain(roofs));
        (x, (lo / 1.5, hi * 1.6))
    }
}

struct Area {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

fn draw(
    svg: &mut Svg,
    panel: &Panel,
    area: &Area,
    (x_axis, y_axis): &(Axis, Axis),
    x: (f64, f64),
    looks: &[(&str, Look)],
) {
    for tick in y_axis.ticks(5) {
        let y = y_axis.at(tick);
        svg.line("grid", (area.left, y), (area.right, y));
        svg.text("tick", "end", (area.left - 8.0, y + 4.0), &plain(tick));
    }
    for tick in x_axis.ticks(5) {
        let x = x_axis.at(tick);
        svg.line("grid", (x, area.top), (x, area.bottom));
        svg.text("tick", "middle", (x, area.bottom + 17.0), &plain(tick));
    }
    let middle = (area.left + area.right) / 2.0;
    svg.text("axis", "middle", (middle, area.bottom + 38.0), "operations per byte of packed weights");
    svg.text("axis", "end", (area.right, area.top - 12.0), "10\u{2079} operations per second (GOP/s)");
    roofs(svg, panel, area, (x_axis, y_axis), x);
    let good = |m: &&Mark| [m.intensity, m.rate].into_iter().all(|v| v.is_finite() && v > 0.0);
    for mark in panel.marks.iter().filter(good) {
        let look = looks.iter().find(|(series, _)| *series == mark.series).map_or((0, 0), |(_, look)| *look);
        svg.begin(&format!("{}; {} GOP/s", mark.title, plain(mark.rate)));
        outline(svg, look, (x_axis.at(mark.intensity), y_axis.at(mark.rate)));
        svg.end();
    }
}

/// The memory bandwidth as a slope up to the highest peak, and every peak from there on.
fn roofs(svg: &mut Svg, panel: &Panel, area: &Area, (x_axis, y_axis): (&Axis, &Axis), x: (f64, f64)) {
    let mut peaks: Vec<_> = panel.peaks.iter().filter(|(_, peak)| peak.is_finite() && *peak > 0.0).collect();
    peaks.sort_by(|a, b| b.1.total_cmp(&a.1));
    let bandwidth = panel.memory_gbps;
    if let Some((_, highest)) = peaks.first() {
        let ridge = highest / bandwidth;
        let from = (x_axis.at(x.0), y_axis.at(bandwidth * x.0));
        let to = (x_axis.at(ridge), y_axis.at(*highest));
        svg.path("roof", &[from, to]);
        let at = (from.0 + (to.0 - from.0) * 0.33, from.1 + (to.1 - from.1) * 0.33);
        let text = format!("memory {} GB/s", plain(bandwidth));
        let left = (at.0 - 10.0).max(area.left + text_width(&text, 11.0) + 8.0);
        svg.text("note", "end", (left, at.1 - 4.0), &text);
    }
    let mut above = f64::NEG_INFINITY;
    for (name, peak) in peaks {
        let (from, y) = (x_axis.at(peak / bandwidth), y_axis.at(*peak));
        svg.line("roof", (from, y), (area.right, y));
        let place = (y + 4.0).max(above + 13.0);
        svg.text("note", "start", (area.right + 6.0, place), &format!("{name} {} GOP/s", plain(*peak)));
        above = place;
    }
}

/// The outline of a series at a place.
fn outline(svg: &mut Svg, (colour, shape): Look, (x, y): (f64, f64)) {
    const RADIUS: f64 = 4.6;
    let class = format!("mark f{colour}");
    match OUTLINES[shape] {
        [] => svg.dot(&class, (x, y), RADIUS),
        corners => {
            let first = corners.first();
            let points: Vec<_> =
                corners.iter().chain(first).map(|(dx, dy)| (x + dx * RADIUS, y + dy * RADIUS)).collect();
            svg.path(&class, &points);
        }
    }
}

/// Three digits at least.
fn plain(value: f64) -> String {
    match value {
        v if v >= 99.5 => super::super::number::count(v.round()),
        v if v >= 9.95 => format!("{v:.0}"),
        v if v >= 0.995 => format!("{}", (v * 10.0).round() / 10.0),
        v => format!("{}", (v * 1000.0).round() / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot() -> Roofline {
        let mark = |series: &str, intensity, rate| Mark {
            series: series.into(),
            title: format!("{series} <{intensity}>"),
            intensity,
            rate,
        };
        let panel = |title: &str, scale: f64| Panel {
            title: title.into(),
            memory_gbps: 40.0 * scale,
            peaks: vec![("f32".into(), 290.0 * scale), ("int8".into(), 1150.0 * scale)],
            marks: vec![
                mark("f32", 0.5, 15.0 * scale),
                mark("ternary", 8.0, 250.0 * scale),
                mark("ternary_b3", 10.0, 260.0 * scale),
                mark("ternary", 4096.0, 900.0 * scale),
                mark("broken", f64::NAN, 1.0),
            ],
        };
        Roofline {
            title: "Kernels on A & B".into(),
            note: "A note.".into(),
            panels: vec![panel("avx2, 1 threads", 1.0), panel("avx2, 2 threads", 2.0)],
        }
    }

    #[test]
    fn every_case_has_a_mark_inside_the_drawing() {
        let svg = plot().svg();
        for title in
            ["f32 &lt;0.5&gt;; 15 GOP/s", "ternary &lt;4096&gt;; 900 GOP/s", "ternary &lt;4096&gt;; 1,800 GOP/s"]
        {
            assert!(svg.contains(&format!("<title>{title}</title>")), "{title} is not in {svg}");
        }
        assert_eq!(svg.matches("<g>").count(), 8, "those with numbers");
        for roof in ["memory 40 GB/s", "memory 80 GB/s", "int8 2,300 GOP/s", "f32 290 GOP/s"] {
            assert!(svg.contains(roof), "{roof} is not in {svg}");
        }
        assert!(svg.contains("Kernels on A &amp; B") && !svg.contains("NaN"));
        let height = TOP + 2.0 * PANEL;
        for part in svg.split("cy=\"").skip(1) {
            let y: f64 = part.split('"').next().unwrap().parse().unwrap();
            assert!((0.0..height).contains(&y), "{y}");
        }
    }

    #[test]
    fn families_share_a_colour_and_differ_in_outline() {
        let plot = plot();
        assert_eq!(plot.looks(), [("f32", (0, 0)), ("ternary", (1, 0)), ("ternary_b3", (1, 1)), ("broken", (2, 0))]);
        assert!((0..COLOURS).all(|i| STYLE.contains(&format!(".f{i} "))));
    }

    #[test]
    fn numbers_are_short() {
        let texts: Vec<_> = [0.5, 0.025, 1.0, 8.25, 42.4, 577.3, 2307.9].into_iter().map(plain).collect();
        assert_eq!(texts, ["0.5", "0.025", "1", "8.3", "42", "577", "2,308"]);
    }
}
