//! Numbers as people write them: a value or a range, its unit, and how finely it is rounded.

/// What a number counts or measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dimension {
    /// No unit.
    Plain,
    /// Percent, kept in percent.
    Percent,
    /// Percentage points.
    Points,
    /// A factor.
    Times,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// Watts.
    Watts,
    /// Joules.
    Joules,
    /// Tokens or samples per second.
    Rate,
    /// Bytes per second.
    Bandwidth,
    /// Dollars.
    Dollars,
    /// Things counted with K, M, B or T: parameters.
    Count,
    /// Bits.
    Bits,
    /// Rows times columns, as their product.
    Shape,
    /// So many of so many, as a fraction.
    Score,
}

/// A unit: how it is written, what it measures, and how many base units it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Unit {
    pub(crate) name: &'static str,
    pub(crate) dimension: Dimension,
    pub(crate) factor: f64,
}

const KIB: f64 = 1024.0;

macro_rules! units {
    ($($name:literal $dimension:ident $factor:expr;)+) => {
        &[$(Unit { name: $name, dimension: Dimension::$dimension, factor: $factor }),+]
    };
}

/// Every unit that is recognised.
const UNITS: &[Unit] = units! {
    "%" Percent 1.0; "percent" Percent 1.0;
    "points" Points 1.0; "percentage points" Points 1.0; "pp" Points 1.0; "pts" Points 1.0;
    "x" Times 1.0; "X" Times 1.0; "\u{d7}" Times 1.0; "times" Times 1.0; "-fold" Times 1.0;
    "bytes" Bytes 1.0; "kB" Bytes 1e3; "KB" Bytes 1e3; "MB" Bytes 1e6; "GB" Bytes 1e9; "TB" Bytes 1e12;
    "KiB" Bytes KIB; "MiB" Bytes KIB * KIB; "GiB" Bytes KIB * KIB * KIB; "TiB" Bytes KIB * KIB * KIB * KIB;
    "ns" Seconds 1e-9; "us" Seconds 1e-6; "\u{b5}s" Seconds 1e-6; "\u{3bc}s" Seconds 1e-6; "ms" Seconds 1e-3;
    "s" Seconds 1.0; "sec" Seconds 1.0; "secs" Seconds 1.0; "seconds" Seconds 1.0;
    "min" Seconds 60.0; "minutes" Seconds 60.0; "h" Seconds 3600.0; "hours" Seconds 3600.0;
    "mW" Watts 1e-3; "W" Watts 1.0; "kW" Watts 1e3; "MW" Watts 1e6; "watts" Watts 1.0;
    "mJ" Joules 1e-3; "J" Joules 1.0; "kJ" Joules 1e3; "Wh" Joules 3600.0; "kWh" Joules 3.6e6;
    "J/token" Joules 1.0; "mJ/token" Joules 1e-3;
    "tok/s" Rate 1.0; "t/s" Rate 1.0; "tokens/s" Rate 1.0; "tokens/sec" Rate 1.0; "tokens/second" Rate 1.0;
    "tokens per second" Rate 1.0; "samples/s" Rate 1.0; "samples/sec" Rate 1.0; "samples/second" Rate 1.0; "/s" Rate 1.0;
    "MB/s" Bandwidth 1e6; "GB/s" Bandwidth 1e9; "TB/s" Bandwidth 1e12;
    "bit" Bits 1.0; "bits" Bits 1.0; "-bit" Bits 1.0; "K" Count 1e3; "k" Count 1e3; "M" Count 1e6; "B" Count 1e9; "T" Count 1e12;
};

/// Units that are bytes or counts depending on whether a space stands before them.
const ATTACHED: &[&str] = &["K", "k", "M", "B", "T"];
/// `700 B`, with the space.
const BYTE: Unit = Unit { name: "B", dimension: Dimension::Bytes, factor: 1.0 };

/// The unit of exactly this name, as it stands in the parentheses of a column's title.
pub(crate) fn unit(name: &str) -> Option<Unit> {
    let found = UNITS.iter().find(|u| u.name == name).copied();
    found.filter(|u| !ATTACHED.contains(&u.name)).or((name == "B").then_some(BYTE))
}

/// One number of a text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figure {
    /// As printed, with its unit.
    pub(crate) text: String,
    /// Value, or low end of a range, in base units.
    pub(crate) lo: f64,
    /// Value, or high end of a range, in base units.
    pub(crate) hi: f64,
    /// Half a unit of the last printed digit, in base units.
    pub(crate) half: f64,
    /// What it measures.
    pub(crate) dimension: Dimension,
    /// Name of the unit as printed; empty for none.
    pub(crate) unit: &'static str,
    /// Printed digits without leading zeros.
    pub(crate) digits: usize,
    /// Digits after the point.
    pub(crate) decimals: usize,
    /// At least so much: `>5` or `5+`.
    pub(crate) open_above: bool,
    /// At most so much: `<5`.
    pub(crate) open_below: bool,
    /// A sign is printed.
    pub(crate) signed: bool,
    /// First byte in the text.
    pub(crate) start: usize,
    /// Byte after the last.
    pub(crate) end: usize,
}

impl Figure {
    /// The middle of a range, or the value.
    pub(crate) fn value(&self) -> f64 {
        0.5 * (self.lo + self.hi)
    }

    /// A range with two different ends.
    pub(crate) fn is_range(&self) -> bool {
        self.hi > self.lo
    }

    /// Everything that rounds to what is printed.
    pub(crate) fn interval(&self) -> (f64, f64) {
        (self.lo - self.half, self.hi + self.half)
    }

    /// A plain number takes the unit of its column.
    pub(crate) fn with(mut self, unit: Option<Unit>) -> Self {
        if let Some(unit) = unit.filter(|_| self.dimension == Dimension::Plain) {
            (self.lo, self.hi) = (self.lo * unit.factor, self.hi * unit.factor);
            self.half *= unit.factor;
            (self.dimension, self.unit) = (unit.dimension, unit.name);
            self.text = format!("{} {}", self.text, unit.name);
        }
        self
    }
}

/// Digits of one number in a text.
struct Numeral {
    value: f64,
    decimals: usize,
    digits: usize,
    /// Index of the character after it.
    next: usize,
}

/// A text by characters, with the byte of each.
struct Text<'a> {
    text: &'a str,
    chars: Vec<(usize, char)>,
}

impl Text<'_> {
    fn at(&self, i: usize) -> Option<char> {
        self.chars.get(i).map(|c| c.1)
    }

    fn byte(&self, i: usize) -> usize {
        self.chars.get(i).map_or(self.text.len(), |c| c.0)
    }

    fn digit(&self, i: usize) -> bool {
        self.at(i).is_some_and(|c| c.is_ascii_digit())
    }

    fn before(&self, i: usize) -> Option<char> {
        i.checked_sub(1).and_then(|i| self.at(i))
    }

    /// The number that starts here; none where it is a version or a date.
    fn numeral(&self, start: usize) -> Option<Numeral> {
        let (mut i, mut digits) = (start, String::new());
        while self.digit(i) {
            digits.push(self.at(i)?);
            i += 1;
            let group = self.at(i) == Some(',') && (1..4).all(|k| self.digit(i + k)) && !self.digit(i + 4);
            i += usize::from(group);
        }
        let mut decimals = 0;
        if self.at(i) == Some('.') && self.digit(i + 1) {
            digits.push('.');
            i += 1;
            while self.digit(i) {
                digits.push(self.at(i)?);
                (i, decimals) = (i + 1, decimals + 1);
            }
            if self.at(i) == Some('.') && self.digit(i + 1) {
                return None;
            }
        }
        let significant = digits.chars().filter(char::is_ascii_digit).skip_while(|c| *c == '0').count();
        let sign = |i: usize| matches!(self.at(i), Some('-' | '\u{2212}' | '+'));
        if matches!(self.at(i), Some('e' | 'E')) && (self.digit(i + 1) || (sign(i + 1) && self.digit(i + 2))) {
            let negative = matches!(self.at(i + 1), Some('-' | '\u{2212}'));
            i += 1 + usize::from(sign(i + 1));
            let from = i;
            while self.digit(i) {
                i += 1;
            }
            let exponent: i32 = self.text.get(self.byte(from)..self.byte(i))?.parse().ok()?;
            let exponent = if negative { -exponent } else { exponent };
            let value = digits.parse::<f64>().ok()? * 10f64.powi(exponent);
            let decimals = usize::try_from(decimals as i32 - exponent).unwrap_or(0);
            return Some(Numeral { value, decimals, digits: significant, next: i });
        }
        Some(Numeral { value: digits.parse().ok()?, decimals, digits: significant, next: i })
    }

    /// The second number of a range, after a dash or `to`.
    fn second(&self, i: usize) -> Option<Numeral> {
        if matches!(self.at(i), Some('-' | '\u{2013}' | '\u{2014}')) && self.digit(i + 1) {
            return self.numeral(i + 1);
        }
        let to = [' ', 't', 'o', ' '].iter().enumerate().all(|(k, c)| self.at(i + k) == Some(*c));
        let negative = matches!(self.at(i + 4), Some('\u{2212}' | '-' | '+'));
        let from = i + 4 + usize::from(negative);
        let minus = negative && self.at(i + 4) != Some('+');
        let found = (to && self.digit(from)).then(|| self.numeral(from)).flatten()?;
        Some(Numeral { value: if minus { -found.value } else { found.value }, ..found })
    }

    /// The longest unit here, also behind one space, and the index after it.
    fn unit(&self, i: usize) -> Option<(Unit, usize)> {
        let spaced = matches!(self.at(i), Some(' ' | '\u{a0}' | '\u{202f}'));
        let from = i + usize::from(spaced);
        let rest = &self.text[self.byte(from)..];
        let fits = |name: &str| {
            let end = rest.strip_prefix(name)?;
            let next = end.chars().next();
            let joined = next.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '/');
            (!joined || name == "%").then(|| name.chars().count())
        };
        let all = UNITS.iter().filter(|u| !spaced || !ATTACHED.contains(&u.name)).chain(spaced.then_some(&BYTE));
        let found = all.filter_map(|u| Some((*u, fits(u.name)?))).max_by_key(|(_, n)| *n);
        found.map(|(u, n)| (u, from + n))
    }
}

/// Every number of a text that stands for a quantity: not those inside names, versions or dates.
pub(crate) fn figures(line: &str) -> Vec<Figure> {
    let text = Text { text: line, chars: line.char_indices().collect() };
    let (mut out, mut i) = (Vec::new(), 0);
    while i < text.chars.len() {
        if !text.digit(i) {
            i += 1;
            continue;
        }
        let before = text.before(i);
        let joins = |c: char| c.is_alphanumeric() || c == '_';
        let dash = matches!(before, Some('-' | '\u{2013}' | '\u{2011}' | '.'));
        let named = before.is_some_and(joins) || (dash && i > 1 && text.before(i - 1).is_some_and(joins));
        let found = if named { None } else { figure(&text, i) };
        match found {
            Some((figure, next)) => {
                out.push(figure);
                i = next.max(i + 1);
            }
            None => {
                while text.at(i).is_some_and(|c| joins(c) || c == '.' || (c == '-' && text.digit(i + 1))) {
                    i += 1;
                }
            }
        }
    }
    out
}

/// The signs before a number.
struct Marks {
    /// Where they begin.
    from: usize,
    sign: f64,
    open_above: bool,
    open_below: bool,
    signed: bool,
    dollars: bool,
}

impl Marks {
    fn before(text: &Text, start: usize) -> Self {
        let mut marks =
            Marks { from: start, sign: 1.0, open_above: false, open_below: false, signed: false, dollars: false };
        while let Some(c) = text.before(marks.from) {
            match c {
                '-' | '\u{2212}' => (marks.sign, marks.signed) = (-1.0, true),
                '+' => marks.signed = true,
                '<' | '\u{2264}' => marks.open_below = true,
                '>' | '\u{2265}' => marks.open_above = true,
                '~' | '\u{2248}' => {}
                '$' => marks.dollars = true,
                _ => break,
            }
            marks.from -= 1;
        }
        marks
    }
}

/// The figure that starts with this digit, and the index after it.
fn figure(text: &Text, start: usize) -> Option<(Figure, usize)> {
    let first = text.numeral(start)?;
    let mut at = first.next;
    let Marks { from, mut sign, mut open_above, open_below, signed, dollars } = Marks::before(text, start);
    let (mut lo, mut hi, mut decimals, mut digits) = (first.value, first.value, first.decimals, first.digits);
    let mut dimension = None;
    let shape = matches!(text.at(at), Some('\u{d7}' | 'x')) && text.digit(at + 1);
    if shape || (text.at(at) == Some('/') && text.digit(at + 1)) {
        let second = text.numeral(at + 1)?;
        let value = if shape { first.value * second.value } else { first.value / second.value };
        (lo, hi, at) = (value, value, second.next);
        dimension = Some(if shape { Dimension::Shape } else { Dimension::Score });
    } else if let Some(second) = text.second(at) {
        if text.second(second.next).is_some() {
            return None;
        }
        (lo, hi, at) = (sign * first.value, second.value, second.next);
        (sign, decimals) = (1.0, decimals.max(second.decimals));
        digits = digits.max(second.digits);
    }
    let unit = text.unit(at).filter(|_| dimension.is_none());
    let (mut unit, end) = unit.map_or((None, at), |(unit, end)| (Some(unit), end));
    if dollars {
        (unit, dimension) = (unit.filter(|u| u.dimension == Dimension::Count), Some(Dimension::Dollars));
    }
    let end = end + usize::from(text.at(end) == Some('+') && !text.digit(end + 1));
    open_above |= text.before(end) == Some('+');
    let factor = unit.map_or(1.0, |u| u.factor);
    let half = if matches!(dimension, Some(Dimension::Shape | Dimension::Score)) { 0.0 } else { half_of(decimals) };
    let (lo, hi) = (sign * lo * factor, sign * hi * factor);
    let figure = Figure {
        text: text.text[text.byte(from)..text.byte(end)].trim().to_string(),
        lo: lo.min(hi),
        hi: lo.max(hi),
        half: half * factor,
        dimension: dimension.unwrap_or(unit.map_or(Dimension::Plain, |u| u.dimension)),
        unit: unit.map_or("", |u| u.name),
        digits,
        decimals,
        open_above,
        open_below,
        signed,
        start: text.byte(from),
        end: text.byte(end),
    };
    Some((figure, end))
}

/// Half a unit of the last of so many decimals.
pub(crate) fn half_of(decimals: usize) -> f64 {
    0.5 * 10f64.powi(-i32::try_from(decimals).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str) -> Figure {
        let found = figures(text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        found.into_iter().next().unwrap()
    }

    #[test]
    fn values_ranges_and_units_are_read() {
        let read = |text: &str| {
            let f = only(text);
            (f.lo, f.hi, f.dimension)
        };
        assert_eq!(read("95.0%"), (95.0, 95.0, Dimension::Percent));
        assert_eq!(read("91.80 %"), (91.8, 91.8, Dimension::Percent));
        assert_eq!(read("1.25x"), (1.25, 1.25, Dimension::Times));
        assert_eq!(read("16-28 tokens/sec"), (16.0, 28.0, Dimension::Rate));
        assert_eq!(read("700,000+"), (7e5, 7e5, Dimension::Plain));
        assert_eq!(read("~1.7T"), (1.7e12, 1.7e12, Dimension::Count));
        assert_eq!(read("3.2TB+"), (3.2e12, 3.2e12, Dimension::Bytes));
        assert_eq!(read("700 B"), (700.0, 700.0, Dimension::Bytes));
        assert_eq!(read("100K"), (1e5, 1e5, Dimension::Count));
        assert_eq!(read("$1-15"), (1.0, 15.0, Dimension::Dollars));
        assert_eq!(read("100\u{d7}100"), (1e4, 1e4, Dimension::Shape));
        assert_eq!(read("1-bit"), (1.0, 1.0, Dimension::Bits));
        assert_eq!(read("0.5s"), (0.5, 0.5, Dimension::Seconds));
        assert_eq!(read("2.54e\u{2212}4"), (2.54e-4, 2.54e-4, Dimension::Plain));
        assert_eq!(read("(91.16 to 92.40)"), (91.16, 92.40, Dimension::Plain));
        assert_eq!(read("\u{2212}0.3 points"), (-0.3, -0.3, Dimension::Points));
    }

    #[test]
    fn half_a_last_digit_is_known() {
        assert!((only("2.8 GB").half - 5e7).abs() < 1.0);
        assert!((only("29.39 ms").half - 5e-6).abs() < 1e-12);
        assert!((only("25x").half - 0.5).abs() < 1e-12);
        assert!(only("<0.5%").open_below && only("200+").open_above && only(">90%").open_above);
    }

    #[test]
    fn names_versions_and_dates_are_no_quantities() {
        for text in ["SST-2", "GPT-4o", "b1.58", "H100", "INT8", "PyTorch 1.12.0", "2025-11-20", "per_tensor_8", "NF4"]
        {
            assert!(figures(text).is_empty(), "{text}: {:?}", figures(text));
        }
        assert_eq!(figures("94.54% (\u{394} -0.08%)").iter().map(|f| f.lo).collect::<Vec<_>>(), [94.54, -0.08]);
        assert_eq!(figures("2\u{d7}RTX 4090").len(), 2);
    }

    #[test]
    fn a_column_gives_its_unit_to_plain_numbers() {
        let f = only("45.23").with(unit("min"));
        assert!((f.lo - 2713.8).abs() < 1e-9 && f.dimension == Dimension::Seconds);
        assert_eq!(only("5 W").with(unit("min")).dimension, Dimension::Watts);
        assert!(unit("M").is_none() && unit("B").is_some());
    }
}
