//! Plots as inline SVG: own code, no fonts, no scripts, the same bytes every time.
//!
//! Each plot is drawn twice, for a wide and for a narrow screen; the page shows the one that fits.

mod bars;
mod curves;
mod divergence;
mod dots;
mod roofline;
mod scatter;

pub use roofline::{Mark, Panel, Roofline};

use super::compare::{Comparison, VariantRow};
use super::notes::explain;
use std::fmt::Write;

/// A plot.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Chart {
    /// Title above the plot.
    pub(crate) title: String,
    /// How to read it.
    pub(crate) caption: String,
    /// For screens of at least [`WIDE`] pixels.
    pub(crate) wide: String,
    /// For phones.
    pub(crate) narrow: String,
}

/// Width of the larger drawing, pixels.
const WIDE: f64 = 540.0;
/// Width of the smaller one.
const NARROW: f64 = 340.0;

impl Chart {
    fn draw(title: &str, caption: &str, draw: impl Fn(f64) -> String) -> Self {
        Chart { title: title.into(), caption: caption.into(), wide: draw(WIDE), narrow: draw(NARROW) }
    }
}

/// Variants that a plot shows.
const DRAWN: usize = 40;

/// The variants that plots show.
fn drawn<'c, 'a>(c: &'c Comparison<'a>) -> impl Iterator<Item = &'c VariantRow<'a>> {
    c.rows.iter().take(DRAWN)
}

/// The networks among the rows.
fn networks<'c, 'a>(c: &'c Comparison<'a>) -> impl Iterator<Item = &'c VariantRow<'a>> {
    c.networks().take(DRAWN)
}

/// Every plot the records of a task have material for.
pub(crate) fn all(c: &Comparison) -> Vec<Chart> {
    let mut charts: Vec<Chart> = [
        dots::accuracy(c),
        dots::changes(c),
        scatter::pareto(c),
        divergence::curve(c),
        bars::latency(c),
        bars::ledger(c),
        curves::loss(c),
        curves::held_out(c),
    ]
    .into_iter()
    .flatten()
    .collect();
    if c.rows.len() > DRAWN {
        charts.iter_mut().for_each(|chart| chart.caption.push_str(&format!(" The first {DRAWN} variants are drawn.")));
    }
    charts
}

/// The name of a variant in a plot.
pub(super) struct Name {
    /// What is drawn: the name, cut to [`NAME`] characters.
    pub(super) short: String,
    /// The name.
    pub(super) whole: String,
    /// Text shown while a pointer rests on the mark: the whole name of the variant and its meaning.
    pub(super) title: String,
}

impl Name {
    pub(super) fn of(row: &VariantRow) -> Self {
        Name { short: short(row.name()), whole: row.name().into(), title: format!("{}: {}", row.name(), explain(row)) }
    }
}

/// Characters of the widest text set in `size` pixels, as pixels.
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    text.chars().count() as f64 * size * 0.56
}

/// Characters of a variant's name that a plot shows.
const NAME: usize = 16;

/// A name that leaves room for the plot.
pub(super) fn short(name: &str) -> String {
    if name.chars().count() <= NAME {
        return name.into();
    }
    name.chars().take(NAME - 1).chain(['\u{2026}']).collect()
}

/// Where a plot begins and ends whose rows have a name before them and a value behind.
pub(super) fn sides<'a>(rows: impl Iterator<Item = (&'a str, &'a str)>, width: f64) -> (f64, f64) {
    let (mut names, mut values) = (0.0f64, 0.0f64);
    for (name, value) in rows {
        names = names.max(text_width(name, 13.0));
        values = values.max(text_width(value, 13.0));
    }
    (names + 10.0, width - values - 12.0)
}

/// An SVG being written.
pub(super) struct Svg {
    out: String,
}

/// A coordinate with one decimal, without a trailing zero.
pub(super) fn px(value: f64) -> String {
    let text = format!("{value:.1}");
    let text = text.strip_suffix(".0").unwrap_or(&text);
    if text == "-0" { "0".into() } else { text.into() }
}

/// Text that may stand between tags or in a quoted attribute.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

impl Svg {
    /// An empty drawing of that size in pixels with a name for screen readers.
    pub(super) fn new(width: f64, height: f64, label: &str) -> Self {
        let (w, h) = (px(width), px(height));
        Svg { out: format!("<svg viewBox=\"0 0 {w} {h}\" role=\"img\" aria-label=\"{}\">", escape(label)) }
    }

    /// The same as a file of its own, with its style sheet.
    pub(super) fn alone(width: f64, height: f64, label: &str, style: &str) -> Self {
        let (w, h, label) = (px(width), px(height), escape(label));
        let out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\" role=\"img\" \
             aria-label=\"{label}\"><style>{}</style><rect class=\"paper\" width=\"100%\" height=\"100%\"/>",
            escape(style)
        );
        Svg { out }
    }

    /// Begins a group with a text that a pointer resting on it shows.
    pub(super) fn begin(&mut self, title: &str) {
        let _ = write!(self.out, "<g><title>{}</title>", escape(title));
    }

    /// Ends the group.
    pub(super) fn end(&mut self) {
        self.out.push_str("</g>");
    }

    /// A line; `class` says how it looks.
    pub(super) fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        let (x1, y1, x2, y2) = (px(x1), px(y1), px(x2), px(y2));
        let _ = write!(self.out, "<line class=\"{class}\" x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\"/>");
    }

    /// A dot.
    pub(super) fn dot(&mut self, class: &str, (x, y): (f64, f64), r: f64) {
        let _ = write!(self.out, "<circle class=\"{class}\" cx=\"{}\" cy=\"{}\" r=\"{}\"/>", px(x), px(y), px(r));
    }

    /// A bar from `x` on, `width` pixels for `value`; the value is kept in the drawing, so that it can be checked.
    pub(super) fn bar(&mut self, class: &str, (x, y): (f64, f64), (width, height): (f64, f64), value: f64) {
        let (x, y, h) = (px(x), px(y), px(height));
        let _ = write!(
            self.out,
            "<rect class=\"bar {class}\" x=\"{x}\" y=\"{y}\" width=\"{width:.3}\" height=\"{h}\" data-value=\"{value}\"/>"
        );
    }

    /// A connected line through points.
    pub(super) fn path(&mut self, class: &str, points: &[(f64, f64)]) {
        let list: Vec<String> = points.iter().map(|(x, y)| format!("{},{}", px(*x), px(*y))).collect();
        let _ = write!(self.out, "<polyline class=\"{class}\" points=\"{}\"/>", list.join(" "));
    }

    /// Text with its anchor (`start`, `middle`, `end`) at the point.
    pub(super) fn text(&mut self, class: &str, anchor: &str, (x, y): (f64, f64), text: &str) {
        let (x, y, text) = (px(x), px(y), escape(text));
        let _ = write!(self.out, "<text class=\"{class}\" text-anchor=\"{anchor}\" x=\"{x}\" y=\"{y}\">{text}</text>");
    }

    /// The name of a variant, which explains itself under a pointer.
    pub(super) fn name(&mut self, class: &str, anchor: &str, (x, y): (f64, f64), name: &Name, text: &str) {
        let (x, y, text, title) = (px(x), px(y), escape(text), escape(&name.title));
        let _ = write!(
            self.out,
            "<text class=\"{class}\" text-anchor=\"{anchor}\" x=\"{x}\" y=\"{y}\"><title>{title}</title>{text}</text>"
        );
    }

    /// The finished drawing.
    pub(super) fn finish(mut self) -> String {
        self.out.push_str("</svg>");
        self.out
    }
}

/// A mapping from values to pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    lo: f64,
    hi: f64,
    from: f64,
    to: f64,
    log: bool,
}

impl Axis {
    /// Values `lo..hi` onto pixels `from..to`.
    pub(super) fn linear((lo, hi): (f64, f64), (from, to): (f64, f64)) -> Self {
        // A drawing of such values is refused later; until then it must be finite.
        let (lo, hi) = if lo.is_finite() && hi.is_finite() { (lo, hi) } else { (0.0, 1.0) };
        let hi = if hi > lo { hi } else { lo + 1.0 };
        Axis { lo, hi, from, to, log: false }
    }

    /// The same on a logarithmic scale; both ends positive.
    pub(super) fn log((lo, hi): (f64, f64), (from, to): (f64, f64)) -> Self {
        Axis { log: true, ..Axis::linear((lo.log10(), hi.log10()), (from, to)) }
    }

    /// Pixel of a value, not clipped.
    pub(super) fn at(&self, value: f64) -> f64 {
        let v = if self.log { value.log10() } else { value };
        self.from + (v - self.lo) / (self.hi - self.lo) * (self.to - self.from)
    }

    /// Round values inside the axis, about `n` of them.
    pub(super) fn ticks(&self, n: usize) -> Vec<f64> {
        if self.log {
            return self.log_ticks(n);
        }
        let raw = (self.hi - self.lo) / n.max(1) as f64;
        let power = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= raw * 0.999).unwrap_or(raw);
        let first = (self.lo / step - 1e-9).ceil() as i64;
        let last = (self.hi / step + 1e-9).floor() as i64;
        (first..=last).map(|i| i as f64 * step).collect()
    }

    fn log_ticks(&self, n: usize) -> Vec<f64> {
        let decades = self.lo.floor() as i32..=self.hi.ceil() as i32;
        let steps: &[f64] = if self.hi - self.lo > n as f64 / 2.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let all = decades.flat_map(|d| steps.iter().map(move |s| s * 10f64.powi(d)));
        all.filter(|v| (self.lo - 1e-9..=self.hi + 1e-9).contains(&v.log10())).collect()
    }

    /// Decimals that tell `ticks` apart when multiplied by `scale`.
    pub(super) fn decimals(ticks: &[f64], scale: f64) -> usize {
        let step = ticks.windows(2).map(|w| (w[1] - w[0]).abs() * scale).fold(f64::INFINITY, f64::min);
        if step.is_finite() && step > 0.0 { (-(step * 1.001).log10().floor()).clamp(0.0, 6.0) as usize } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let axis = Axis::linear((0.902, 0.979), (0.0, 100.0));
        let ticks = axis.ticks(4);
        assert_eq!(ticks.iter().map(|t| format!("{t:.2}")).collect::<Vec<_>>(), ["0.92", "0.94", "0.96"]);
        assert_eq!(Axis::decimals(&ticks, 100.0), 0);
        assert!((axis.at(0.902), axis.at(0.979)) == (0.0, 100.0));
        let log = Axis::log((3e5, 6e6), (0.0, 100.0)).ticks(4);
        assert_eq!(
            log.iter().map(|t| format!("{t:.0}")).collect::<Vec<_>>(),
            ["500000", "1000000", "2000000", "5000000"]
        );
    }

    #[test]
    fn pixels_have_no_negative_zero() {
        assert_eq!((px(-0.01), px(3.0), px(2.75)), ("0".into(), "3".into(), "2.8".into()));
        assert_eq!(escape("<a b=\"c\">&'"), "&lt;a b=&quot;c&quot;&gt;&amp;&#39;");
    }
}
