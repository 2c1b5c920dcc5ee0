//! Python's methods of strings. They look through the stand-ins of what was said (`shades`): a text is searched as it reads,
//! and cut as it is.

use super::functions::bounded;
use super::guard::{Result, refuse};
use super::python;
use super::shades::Shades;
use minijinja::Value;
use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Kwargs, Tuple, ValueKind, from_args};
use std::borrow::Cow;
use std::ops::Range;

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

/// Calls a method of a string; `None` when Python's strings have none of this name.
///
/// # Errors
/// When an argument is wrong or the result too large.
pub(super) fn method(raw: &str, name: &str, args: &[Value], shades: &Shades) -> Result<Option<Value>> {
    let text = Text::new(raw, shades);
    let found = [parts, search, cases, kinds, layout].iter().find_map(|family| family(&text, name, args).transpose());
    found.transpose()
}

/// Methods that cut.
fn parts(text: &Text<'_>, name: &str, args: &[Value]) -> Result<Option<Value>> {
    Ok(Some(match name {
        "strip" | "lstrip" | "rstrip" => {
            let (set,): (Option<&str>,) = from_args(args)?;
            text.stripped(set, name != "rstrip", name != "lstrip").into()
        }
        "split" | "rsplit" => {
            let (separator, most, named): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
            let separator = separator.or(named.get("sep")?).filter(|separator| !separator.is_none());
            let most = most.or(named.get("maxsplit")?);
            named.assert_all_used()?;
            let separator =
                separator.as_ref().map(|s| s.as_str().ok_or_else(|| refuse("the separator is no text"))).transpose()?;
            list(text.split(separator, times(most), name == "rsplit")?)
        }
        "splitlines" => {
            let (keep, named): (Option<bool>, Kwargs) = from_args(args)?;
            let keep = keep.or(named.get("keepends")?).unwrap_or(false);
            named.assert_all_used()?;
            list(text.lines(keep))
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            tuple(text.partition(separator, name == "rpartition")?)
        }
        "removeprefix" | "removesuffix" => {
            let (part,): (&str,) = from_args(args)?;
            let part = text.shades.plain(part);
            let rest = match name {
                "removeprefix" => {
                    text.plain().strip_prefix(&*part).map(|rest| text.plain().len() - rest.len()..text.plain().len())
                }
                _ => text.plain().strip_suffix(&*part).map(|rest| 0..rest.len()),
            };
            rest.map_or(text.raw, |range| text.part(range)).into()
        }
        "replace" => {
            let (old, new, count): (&str, &str, Option<i64>) = from_args(args)?;
            text.replaced(old, new, times(count))?.into()
        }
        _ => return Ok(None),
    }))
}

/// Methods that search.
fn search(text: &Text<'_>, name: &str, args: &[Value]) -> Result<Option<Value>> {
    Ok(Some(match name {
        "find" | "rfind" | "index" | "rindex" => {
            let (what, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
            match text.find(what, text.window(start, end), name.starts_with('r')) {
                Some(at) => at.into(),
                None if name.ends_with("index") => return Err(refuse("substring not found")),
                None => (-1).into(),
            }
        }
        "count" => {
            let (what, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
            let what = text.shades.plain(what);
            let window = text.window(start, end);
            window.map_or(0, |window| text.plain[window].matches(&*what).count()).into()
        }
        "startswith" | "endswith" => {
            let (what, start, end): (&Value, Option<i64>, Option<i64>) = from_args(args)?;
            let all: Vec<Value> = if what.as_str().is_some() { vec![what.clone()] } else { what.try_iter()?.collect() };
            let Some(window) = text.window(start, end) else { return Ok(Some(false.into())) };
            let part = &text.plain[window];
            let mut any = false;
            for what in &all {
                let what = what.as_str().ok_or_else(|| refuse(format!("{name} takes a text or a tuple of texts")))?;
                let what = text.shades.plain(what);
                any |= if name == "startswith" { part.starts_with(&*what) } else { part.ends_with(&*what) };
            }
            any.into()
        }
        _ => return Ok(None),
    }))
}

/// Methods that change characters.
fn cases(text: &Text<'_>, name: &str, args: &[Value]) -> Result<Option<Value>> {
    let changed = match name {
        "upper" => text.upper(),
        "lower" => text.lower(),
        "capitalize" => text.capitalized(),
        "title" => text.titled(char::is_alphabetic),
        "swapcase" => {
            text.changed(|_, c| if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() })
        }
        "casefold" => text.changed(|_, c| match c {
            'ß' | 'ẞ' => vec!['s', 's'],
            'ς' => vec!['σ'],
            _ => c.to_lowercase().collect(),
        }),
        _ => return Ok(None),
    };
    let () = from_args(args)?;
    Ok(Some(changed.into()))
}

/// Methods that ask what characters there are.
fn kinds(text: &Text<'_>, name: &str, args: &[Value]) -> Result<Option<Value>> {
    let plain = text.plain();
    let all = |is: fn(char) -> bool| !plain.is_empty() && plain.chars().all(is);
    let is_decimal = |c: char| c.is_ascii_digit() || c.is_numeric() && !c.is_ascii() && is_digit_elsewhere(c);
    let answer = match name {
        "isalpha" => all(char::is_alphabetic),
        "isalnum" => all(char::is_alphanumeric),
        "isascii" => plain.is_ascii(),
        "isdecimal" => !plain.is_empty() && plain.chars().all(is_decimal),
        "isdigit" => !plain.is_empty() && plain.chars().all(|c| is_decimal(c) || is_raised_digit(c)),
        "isnumeric" => all(char::is_numeric),
        "isspace" => all(is_space),
        "isprintable" => plain.chars().all(python::is_printable),
        "islower" => plain.chars().any(char::is_lowercase) && !plain.chars().any(char::is_uppercase),
        "isupper" => plain.chars().any(char::is_uppercase) && !plain.chars().any(char::is_lowercase),
        "isidentifier" => {
            plain.starts_with(|c: char| c.is_alphabetic() || c == '_')
                && plain.chars().all(|c| c.is_alphanumeric() || c == '_')
        }
        "istitle" => {
            let mut before = false;
            let fits = plain.chars().all(|c| {
                let fits = if c.is_uppercase() { !before } else { !c.is_lowercase() || before };
                before = c.is_uppercase() || c.is_lowercase();
                fits
            });
            fits && plain.chars().any(char::is_uppercase)
        }
        _ => return Ok(None),
    };
    let () = from_args(args)?;
    Ok(Some(answer.into()))
}

/// Decimal digits of other scripts: their blocks of ten begin where Unicode puts a zero.
fn is_digit_elsewhere(c: char) -> bool {
    const ZEROS: &[u32] = &[
        0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50, 0xed0, 0xf20,
        0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0,
        0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10,
    ];
    ZEROS.iter().any(|zero| (*zero..zero + 10).contains(&(c as u32)))
}

/// Digits above and below the line, and in circles.
fn is_raised_digit(c: char) -> bool {
    matches!(c, '²' | '³' | '¹' | '\u{2070}' | '\u{2074}'..='\u{2079}' | '\u{2080}'..='\u{2089}' | '\u{2460}'..='\u{2468}')
}

/// Methods that lay out.
fn layout(text: &Text<'_>, name: &str, args: &[Value]) -> Result<Option<Value>> {
    Ok(Some(match name {
        "center" | "ljust" | "rjust" => {
            let (width, fill): (i64, Option<&str>) = from_args(args)?;
            text.padded(width, fill, name != "ljust", name != "rjust")?.into()
        }
        "zfill" => {
            let (width,): (i64,) = from_args(args)?;
            let sign = usize::from(text.plain().starts_with(['+', '-']));
            let (sign, rest) = (text.part(0..sign), text.part(sign..text.plain().len()));
            let rest = Text::new(rest, text.shades).padded(width - sign.len() as i64, Some("0"), true, false)?;
            format!("{sign}{rest}").into()
        }
        "expandtabs" => {
            let (size, named): (Option<usize>, Kwargs) = from_args(args)?;
            let size = size.or(named.get("tabsize")?).unwrap_or(8);
            named.assert_all_used()?;
            bounded(text.raw.matches('\t').count().saturating_mul(size))?;
            let (mut out, mut column) = (String::new(), 0);
            for c in text.raw.chars() {
                match c {
                    '\t' if size > 0 => {
                        let pad = size - column % size;
                        out.extend(std::iter::repeat_n(' ', pad));
                        column += pad;
                    }
                    '\t' => {}
                    _ => {
                        out.push(c);
                        column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
                    }
                }
            }
            out.into()
        }
        "join" => {
            let (values,): (&Value,) = from_args(args)?;
            join(values.try_iter()?, text.raw, text.shades)?.into()
        }
        "format" => formatted(FormatStyle::StrFormat, text.raw, args, text.shades)?.into(),
        "format_map" => {
            let (values,): (&Value,) = from_args(args)?;
            formatted(FormatStyle::StrFormat, text.raw, &[named(values)?], text.shades)?.into()
        }
        _ => return Ok(None),
    }))
}

/// Values as texts with a text between them.
pub(super) fn join(values: impl Iterator<Item = Value>, joiner: &str, shades: &Shades) -> Result<String> {
    let mut out = String::new();
    for (i, value) in values.enumerate() {
        let text = python::text(&value, shades)?;
        bounded(out.len().saturating_add(text.len() + joiner.len()))?;
        out.push_str(if i > 0 { joiner } else { "" });
        out.push_str(&text);
    }
    Ok(out)
}

/// A format string with its values.
pub(super) fn formatted(style: FormatStyle, raw: &str, args: &[Value], shades: &Shades) -> Result<String> {
    bounded(widths(raw))?;
    let shown = |value: &Value| match value.kind() {
        ValueKind::None | ValueKind::Bool => python::text(value, shades).map(Value::from),
        _ => Ok(value.clone()),
    };
    let mut args = args.to_vec();
    let raw = match style {
        FormatStyle::Printf => without_repr(raw, &mut args, shades)?,
        FormatStyle::StrFormat => raw.to_string(),
    };
    let args = args.iter().map(shown).collect::<Result<Vec<_>>>()?;
    format(style, &raw, &args)
}

/// A dict as the named values of a call.
pub(super) fn named(values: &Value) -> Result<Value> {
    let keys: Vec<Value> = values.try_iter()?.collect();
    let pairs = keys.into_iter().map(|key| Ok((key.to_string(), values.get_item(&key)?)));
    Ok(pairs.collect::<Result<Vec<(String, Value)>>>()?.into_iter().collect::<Kwargs>().into())
}

/// A printf format with `%s` in place of `%r`, whose values are written so.
fn without_repr(raw: &str, args: &mut [Value], shades: &Shades) -> Result<String> {
    let (mut out, mut at, mut fields) = (String::with_capacity(raw.len()), 0, 0);
    while let Some(start) = raw[at..].find('%') {
        let spec = &raw[at + start + 1..];
        let Some((length, c)) = spec.char_indices().find(|(_, c)| c.is_alphabetic() || *c == '%') else { break };
        out.push_str(&raw[at..at + start + 1 + length]);
        if let Some(value) = args.get_mut(fields).filter(|_| c == 'r') {
            *value = python::repr(value, shades)?.into();
        }
        out.push(if c == 'r' { 's' } else { c });
        fields += usize::from(c != '%');
        at += start + 1 + length + c.len_utf8();
    }
    out.push_str(&raw[at..]);
    Ok(out)
}

/// Length that widths in a format string ask for, at most; a width that is itself an argument is refused.
pub(super) fn widths(format: &str) -> usize {
    let (mut bytes, mut number, mut depth) = (0_usize, 0_usize, 0);
    if format.contains('%')
        && format.split('%').skip(1).any(|field| field.trim_start_matches(['-', '+', ' ', '#', '0']).starts_with('*'))
    {
        return usize::MAX;
    }
    for c in format.replace("{{", "").replace("}}", "").chars() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if depth > 1 {
            return usize::MAX;
        }
        number = c.to_digit(10).map_or(0, |digit| number.saturating_mul(10).saturating_add(digit as usize));
        bytes = bytes.saturating_add(number);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_seen() {
        assert!(widths("{:>1000000000}") >= 1_000_000_000);
        assert_eq!(widths("{:{}}"), usize::MAX);
        assert_eq!(widths("%*d"), usize::MAX);
        assert!(widths("{} and {:.2f}") < 10);
        assert!(widths("{{}} {}") < 10);
        assert!(widths("%-5s %05d") < 20);
    }

    /// What was said is cut where it reads so, whatever characters it has.
    #[test]
    fn said_texts_are_cut_where_they_read_so() {
        let pieces = ["a", "é", "你", "\u{1f600}", " ", "\n", "<", "b"];
        let mut state = 11u64;
        for _ in 0..300 {
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) as usize
            };
            let said: String = (0..next() % 12).map(|_| pieces[next() % pieces.len()]).collect();
            let shades = Shades::of([said.as_str()].into_iter(), [].into_iter());
            let shaded = shades.shaded(&said);
            let separator = pieces[next() % pieces.len()];
            let calls: [(&str, Vec<Value>); 12] = [
                ("split", vec![separator.into()]),
                ("split", vec![]),
                ("rsplit", vec![separator.into(), 1.into()]),
                ("rsplit", vec![().into(), 1.into()]),
                ("partition", vec![separator.into()]),
                ("strip", vec![separator.into()]),
                ("replace", vec![separator.into(), "--".into()]),
                ("splitlines", vec![true.into()]),
                ("find", vec![separator.into()]),
                ("upper", vec![]),
                ("removesuffix", vec![separator.into()]),
                ("center", vec![9.into()]),
            ];
            for (name, args) in calls {
                let plain = method(&said, name, &args, &Shades::default()).expect("a result").expect("a method");
                let through = method(&shaded, name, &args, &shades).expect("a result").expect("a method");
                assert_eq!(shades.plain_value(&through), plain, "{name} of {said:?}");
            }
        }
    }
}
