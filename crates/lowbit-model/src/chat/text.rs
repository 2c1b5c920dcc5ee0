//! Python's methods of strings. They look through the stand-ins of what was said (`shades`): a text is searched as it reads,
//! and cut as it is.

use super::functions::bounded;
use super::guard::{Result, refuse};
use super::shades::Shades;
use minijinja::Value;
use minijinja::value::Tuple;
use std::borrow::Cow;
use std::ops::Range;

mod format;
mod methods;

pub(super) use format::{formatted, join, named};
pub(super) use methods::method;

/// White space as Python has it.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// A text as it is and as it reads; both have the same number of characters.
pub(super) struct Text<'a> {
    raw: &'a str,
    plain: Cow<'a, str>,
    shades: &'a Shades,
}

impl<'a> Text<'a> {
    pub fn new(raw: &'a str, shades: &'a Shades) -> Self {
        Text { raw, plain: shades.plain(raw), shades }
    }

    /// The text as it reads.
    pub fn plain(&self) -> &str {
        &self.plain
    }

    /// The parts of the text as it is at bytes of the text as it reads; ranges ascend and do not overlap.
    fn cut(&self, ranges: &[Range<usize>]) -> Vec<&'a str> {
        if matches!(self.plain, Cow::Borrowed(_)) {
            return ranges.iter().map(|range| &self.raw[range.clone()]).collect();
        }
        let mut places = self.raw.char_indices().zip(self.plain.char_indices()).peekable();
        let mut place = |at: usize| {
            while places.next_if(|(_, (plain, _))| *plain < at).is_some() {}
            places.peek().map_or(self.raw.len(), |((raw, _), _)| *raw)
        };
        let mut out = Vec::with_capacity(ranges.len());
        for range in ranges {
            let start = place(range.start);
            out.push(&self.raw[start..place(range.end)]);
        }
        out
    }

    fn part(&self, range: Range<usize>) -> &'a str {
        self.cut(&[range])[0]
    }

    /// Number of characters.
    pub fn len(&self) -> usize {
        self.raw.chars().count()
    }

    /// The characters of a range, as many as there are.
    pub fn chars(&self, range: Range<usize>) -> &'a str {
        let byte = |at: usize| self.raw.char_indices().nth(at).map_or(self.raw.len(), |(byte, _)| byte);
        &self.raw[byte(range.start)..byte(range.end)]
    }

    /// Another text, said if any of this one was.
    pub fn said(&self, text: &str) -> String {
        if matches!(self.plain, Cow::Borrowed(_)) { text.to_string() } else { self.shades.shaded(text) }
    }

    /// Whether the text is empty or ends with the end of a line.
    pub fn ends_line(&self) -> bool {
        let ends = |text: &str| lines(text, false).last() != lines(text, true).last();
        self.plain.is_empty() || ends(&self.plain)
    }

    /// A line in lines of at most `width` characters, as Python's `textwrap` breaks it.
    pub fn wrapped(&self, line: &str, width: usize, break_words: bool, hyphens: bool) -> Vec<String> {
        let line = Text::new(line, self.shades);
        let (mut out, mut current, mut filled) = (Vec::new(), String::new(), 0);
        for chunk in line.chunks(hyphens) {
            let (mut chunk, space) = (chunk, chunk.chars().all(is_space));
            if space && filled == 0 && !out.is_empty() {
                continue;
            }
            loop {
                let length = chunk.chars().count();
                if filled + length <= width {
                    current.push_str(chunk);
                    filled += length;
                    break;
                }
                let mut ends = is_space as fn(char) -> bool;
                if length > width && break_words {
                    // A word that is broken where the line is full keeps the space before it.
                    if filled == width {
                        ends = |_| false;
                    }
                    let fits = chunk.char_indices().nth(width - filled).map_or(chunk.len(), |(at, _)| at);
                    current.push_str(&chunk[..fits]);
                    chunk = &chunk[fits..];
                } else if length > width && filled == 0 {
                    current.push_str(chunk);
                    chunk = "";
                }
                out.push(std::mem::take(&mut current).trim_end_matches(ends).to_string());
                filled = 0;
                if chunk.is_empty() || space {
                    break;
                }
            }
        }
        let last = current.trim_end_matches(is_space);
        if !last.is_empty() {
            out.push(last.to_string());
        }
        out
    }

    /// Words, and the spaces between them; a word may end after a hyphen between letters.
    fn chunks(&self, hyphens: bool) -> Vec<&'a str> {
        let plain = self.plain();
        let (mut ranges, mut start, mut before): (Vec<Range<usize>>, usize, Option<char>) = (Vec::new(), 0, None);
        let mut letters = 0;
        for (at, c) in plain.char_indices() {
            let turn = before.is_some_and(|before| is_space(before) != is_space(c));
            let hyphen = hyphens && before == Some('-') && letters >= 2 && c.is_alphabetic();
            if turn || hyphen {
                ranges.push(start..at);
                start = at;
            }
            letters = if c.is_alphabetic() {
                letters + 1
            } else if c == '-' {
                letters
            } else {
                0
            };
            before = Some(c);
        }
        ranges.push(start..plain.len());
        self.cut(&ranges)
    }

    /// Each character made anew; said if it was.
    pub fn changed(&self, mut change: impl FnMut(Option<char>, char) -> Vec<char>) -> String {
        let (mut out, mut before) = (String::with_capacity(self.raw.len()), None);
        for raw in self.raw.chars() {
            let c = self.shades.reveal(raw);
            out.extend(change(before, c).into_iter().map(|c| self.shades.like(c, raw)));
            before = Some(c);
        }
        out
    }

    pub fn upper(&self) -> String {
        self.changed(|_, c| c.to_uppercase().collect())
    }

    pub fn lower(&self) -> String {
        self.changed(|_, c| c.to_lowercase().collect())
    }

    pub fn capitalized(&self) -> String {
        self.changed(|before, c| if before.is_none() { c.to_uppercase().collect() } else { c.to_lowercase().collect() })
    }

    /// Every run of letters that begin so.
    pub fn titled(&self, inside: impl Fn(char) -> bool) -> String {
        self.changed(|before, c| match before.is_some_and(&inside) {
            true => c.to_lowercase().collect(),
            false => c.to_uppercase().collect(),
        })
    }

    /// Without the characters of `set`, or white space, at the ends that are asked for.
    pub fn stripped(&self, set: Option<&str>, left: bool, right: bool) -> &'a str {
        let set = set.map(|set| self.shades.plain(set));
        let inside = |c: char| set.as_ref().map_or(is_space(c), |set| set.contains(c));
        let plain = self.plain();
        let start = if left { plain.len() - plain.trim_start_matches(inside).len() } else { 0 };
        let end = if right { plain.trim_end_matches(inside).len() } else { plain.len() };
        self.part(start..end.max(start))
    }

    /// With up to `count` occurrences of `old` replaced.
    pub fn replaced(&self, old: &str, new: &str, count: usize) -> Result<String> {
        let old = self.shades.plain(old);
        let found: Vec<usize> = self.plain.match_indices(&*old).map(|(at, _)| at).take(count).collect();
        bounded(self.raw.len().saturating_add(found.len().saturating_mul(new.len())))?;
        let mut ranges = Vec::with_capacity(found.len() + 1);
        let mut start = 0;
        for at in found {
            ranges.push(start..at);
            start = at + old.len();
        }
        ranges.push(start..self.plain.len());
        Ok(self.cut(&ranges).join(new))
    }

    /// Split at white space, or at a text; at most `most` times, counted from the end if so.
    fn split(&self, separator: Option<&str>, most: usize, from_end: bool) -> Result<Vec<&'a str>> {
        let plain = self.plain();
        let ranges = match separator.map(|text| self.shades.plain(text)) {
            Some(text) if text.is_empty() => return Err(refuse("empty separator")),
            Some(text) => at_text(plain, &text, most, from_end),
            None if from_end => at_space_from_end(plain, most),
            None => at_space(plain, most),
        };
        Ok(self.cut(&ranges))
    }

    /// Lines, with or without what ends them.
    pub fn lines(&self, keep_ends: bool) -> Vec<&'a str> {
        self.cut(&lines(&self.plain, keep_ends))
    }

    /// What is before a text, the text, and what is after it.
    fn partition(&self, separator: &str, last: bool) -> Result<Vec<&'a str>> {
        let (plain, separator) = (self.plain(), self.shades.plain(separator));
        if separator.is_empty() {
            return Err(refuse("empty separator"));
        }
        let at = if last { plain.rfind(&*separator) } else { plain.find(&*separator) };
        Ok(match at {
            Some(at) => self.cut(&[0..at, at..at + separator.len(), at + separator.len()..plain.len()]),
            None if last => vec!["", "", self.raw],
            None => vec![self.raw, "", ""],
        })
    }

    /// Bytes of the characters `start..end`, as slices of Python count them.
    fn window(&self, start: Option<i64>, end: Option<i64>) -> Option<Range<usize>> {
        let count = self.plain.chars().count() as i64;
        let place = |at: i64| (if at < 0 { at + count } else { at }).max(0);
        let (start, end) = (place(start.unwrap_or(0)), place(end.unwrap_or(count)).min(count));
        if start > end {
            return None;
        }
        let byte = |at: i64| self.plain.char_indices().nth(at as usize).map_or(self.plain.len(), |(byte, _)| byte);
        Some(byte(start)..byte(end))
    }

    /// The character at which a text is found.
    fn find(&self, what: &str, window: Option<Range<usize>>, last: bool) -> Option<usize> {
        let (what, window) = (self.shades.plain(what), window?);
        let part = &self.plain[window.clone()];
        let at = if last { part.rfind(&*what) } else { part.find(&*what) }?;
        Some(self.plain[..window.start + at].chars().count())
    }

    /// Spaces, or another character, on both sides.
    pub fn padded(&self, width: i64, fill: Option<&str>, left: bool, right: bool) -> Result<String> {
        let fill = fill.map_or(Ok(' '), |fill| {
            let mut all = fill.chars();
            all.next().filter(|_| all.next().is_none()).ok_or_else(|| refuse("the fill character must be exactly one"))
        })?;
        let width = usize::try_from(width).unwrap_or(0);
        bounded(width.saturating_mul(fill.len_utf8()))?;
        let pad = width.saturating_sub(self.raw.chars().count());
        let before = match (left, right) {
            (true, true) => pad / 2 + (pad & width & 1),
            (true, false) => pad,
            _ => 0,
        };
        let fill = |n: usize| std::iter::repeat_n(fill, n).collect::<String>();
        Ok(format!("{}{}{}", fill(before), self.raw, fill(pad - before)))
    }
}

fn at_text(plain: &str, text: &str, most: usize, from_end: bool) -> Vec<Range<usize>> {
    let mut found: Vec<usize> = match from_end {
        true => plain.rmatch_indices(text).map(|(at, _)| at).take(most).collect(),
        false => plain.match_indices(text).map(|(at, _)| at).take(most).collect(),
    };
    found.sort_unstable();
    let (mut ranges, mut start) = (Vec::with_capacity(found.len() + 1), 0);
    for at in found {
        ranges.push(start..at);
        start = at + text.len();
    }
    ranges.push(start..plain.len());
    ranges
}

fn at_space(plain: &str, most: usize) -> Vec<Range<usize>> {
    let (mut ranges, mut at) = (Vec::new(), 0);
    loop {
        let rest = &plain[at..];
        let trimmed = rest.trim_start_matches(is_space);
        at += rest.len() - trimmed.len();
        if trimmed.is_empty() {
            return ranges;
        }
        if ranges.len() == most {
            ranges.push(at..plain.len());
            return ranges;
        }
        let end = at + trimmed.find(is_space).unwrap_or(trimmed.len());
        ranges.push(at..end);
        at = end;
    }
}

fn at_space_from_end(plain: &str, most: usize) -> Vec<Range<usize>> {
    let (mut ranges, mut end) = (Vec::new(), plain.len());
    loop {
        let trimmed = plain[..end].trim_end_matches(is_space);
        end = trimmed.len();
        if trimmed.is_empty() {
            break;
        }
        if ranges.len() == most {
            ranges.push(0..end);
            break;
        }
        let start = trimmed.char_indices().rev().find(|(_, c)| is_space(*c)).map_or(0, |(at, c)| at + c.len_utf8());
        ranges.push(start..end);
        end = start;
    }
    ranges.reverse();
    ranges
}

fn lines(plain: &str, keep_ends: bool) -> Vec<Range<usize>> {
    let is_end = |c: char| {
        matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    let (mut ranges, mut start) = (Vec::new(), 0);
    while let Some((at, c)) = plain[start..].char_indices().find(|(_, c)| is_end(*c)) {
        let mut end = start + at + c.len_utf8();
        if c == '\r' && plain[end..].starts_with('\n') {
            end += 1;
        }
        ranges.push(start..if keep_ends { end } else { start + at });
        start = end;
    }
    if start < plain.len() {
        ranges.push(start..plain.len());
    }
    ranges
}

/// A number of times; none or less than 0 is as often as there is.
fn times(count: Option<i64>) -> usize {
    count.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX)
}

fn list(parts: Vec<&str>) -> Value {
    parts.into_iter().map(Value::from).collect()
}

fn tuple(parts: Vec<&str>) -> Value {
    Tuple::from(parts.into_iter().map(Value::from).collect::<Vec<_>>()).into()
}
