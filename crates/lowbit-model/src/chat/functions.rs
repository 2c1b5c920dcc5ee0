//! What the Hub's templates call beside Jinja's own: `raise_exception`, `strftime_now`, Python's `tojson`, methods of Python's
//! strings and lists. Whatever can make much of little is measured before it runs.

use super::guard::MAX_VALUE;
use minijinja::value::{Kwargs, Rest};
use minijinja::{Environment, Error, ErrorKind, State, Value, filters};

/// Adds functions, filters and methods.
pub(super) fn add(env: &mut Environment<'_>) {
    for name in ["batch", "slice", "format", "pprint", "urlencode"] {
        env.remove_filter(name);
    }
    env.remove_global("debug");
    env.add_function("raise_exception", |text: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, text))
    });
    env.add_function("strftime_now", |format: &str| -> Result<String, Error> {
        bounded(format.len().saturating_mul(9))?;
        Ok(date(format))
    });
    env.add_test("iterable", |value: Value| !value.is_none() && value.try_iter().is_ok());
    env.add_filter("tojson", tojson);
    let replace = Value::from_function(filters::replace);
    env.add_filter("replace", move |state: &mut State, args: Rest<Value>| {
        bounded(replaced(args.first(), args.get(1), args.get(2)))?;
        replace.call(state, &args)
    });
    let join = Value::from_function(filters::join);
    env.add_filter("join", move |state: &mut State, args: Rest<Value>, kwargs: Kwargs| {
        let joiner: Option<Value> = kwargs.peek("d").ok();
        bounded(joined(args.first(), args.get(1).or(joiner.as_ref())))?;
        join.call(state, &with(&args, kwargs))
    });
    let indent = Value::from_function(filters::indent);
    env.add_filter("indent", move |state: &mut State, args: Rest<Value>, kwargs: Kwargs| {
        let width: Option<Value> = kwargs.peek("width").ok();
        bounded(indented(args.first(), args.get(1).or(width.as_ref())))?;
        indent.call(state, &with(&args, kwargs))
    });
    env.set_unknown_method_callback(|state, value, method, args| {
        match method {
            "replace" => bounded(replaced(Some(value), args.first(), args.get(1)))?,
            "join" => bounded(joined(args.first(), Some(value)))?,
            "format" => bounded(formatted(value.as_str().unwrap_or_default()))?,
            _ => {}
        }
        minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
    });
}

/// Refuses what would become larger than a value may be.
pub(super) fn bounded(bytes: usize) -> Result<(), Error> {
    if bytes <= MAX_VALUE {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidOperation, format!("size: a value would exceed {MAX_VALUE} bytes")))
}

fn length(value: Option<&Value>) -> usize {
    value.and_then(|v| v.as_str()).map_or(0, str::len)
}

/// Length of a text after replacing, at most.
fn replaced(text: Option<&Value>, from: Option<&Value>, to: Option<&Value>) -> usize {
    let text = text.and_then(Value::as_str).unwrap_or_default();
    let from = from.and_then(Value::as_str).unwrap_or_default();
    let matches = if from.is_empty() { text.len() + 1 } else { text.matches(from).count() };
    text.len().saturating_add(matches.saturating_mul(length(to)))
}

/// Length of what a joiner adds, at most.
fn joined(items: Option<&Value>, joiner: Option<&Value>) -> usize {
    let items = items.and_then(|v| v.try_iter().ok()).map_or(0, Iterator::count);
    items.saturating_mul(length(joiner))
}

/// Length of a text after indenting, at most.
fn indented(text: Option<&Value>, width: Option<&Value>) -> usize {
    let text = text.and_then(Value::as_str).unwrap_or_default();
    let width = width.map_or(4, |w| w.as_usize().unwrap_or(0));
    text.len().saturating_add((text.matches('\n').count() + 1).saturating_mul(width))
}

/// Arguments as they were given.
fn with(args: &[Value], kwargs: Kwargs) -> Vec<Value> {
    args.iter().cloned().chain([kwargs.into()]).collect()
}

/// Length that widths in a format string ask for, at most; a width that is itself an argument is refused.
fn formatted(format: &str) -> usize {
    let (mut bytes, mut number, mut depth) = (0_usize, 0_usize, 0);
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

/// `strftime` for 26 July 2024, a Friday, at midnight.
fn date(format: &str) -> String {
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut directive = chars.next();
        let unpadded = directive == Some('-');
        if unpadded {
            directive = chars.next();
        }
        let text = match directive {
            Some('Y') => "2024",
            Some('y') => "24",
            Some('m') => "07",
            Some('d' | 'e') => "26",
            Some('B') => "July",
            Some('b' | 'h') => "Jul",
            Some('A') => "Friday",
            Some('a') => "Fri",
            Some('j') => "208",
            Some('H' | 'M' | 'S') => "00",
            Some('I') => "12",
            Some('p') => "AM",
            Some('F') => "2024-07-26",
            Some('T') => "00:00:00",
            Some('%') => "%",
            _ => "",
        };
        let trimmed = text.trim_start_matches('0');
        out.push_str(if unpadded && text.starts_with('0') && !trimmed.is_empty() { trimmed } else { text });
    }
    out
}

/// Python's `json.dumps(x, ensure_ascii=False)` with its options `indent` and `sort_keys`.
fn tojson(value: Value, kwargs: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    let sorted: Option<bool> = kwargs.get("sort_keys")?;
    let _: (Option<bool>, Option<Value>) = (kwargs.get("ensure_ascii")?, kwargs.get("separators")?);
    kwargs.assert_all_used()?;
    let json =
        serde_json::to_value(&value).map_err(|e| Error::new(ErrorKind::InvalidOperation, format!("tojson: {e}")))?;
    let mut out = String::new();
    let style = Style { indent: indent.map(|n| n.min(16)), sorted: sorted.unwrap_or(false) };
    style.write(&json, 0, &mut out);
    Ok(out)
}

struct Style {
    indent: Option<usize>,
    sorted: bool,
}

impl Style {
    fn write(&self, value: &serde_json::Value, depth: usize, out: &mut String) {
        use serde_json::Value as Json;
        match value {
            Json::Array(items) => self.list(items.iter(), ['[', ']'], depth, out, |item, out| {
                self.write(item, depth + 1, out);
            }),
            Json::Object(map) => {
                let mut pairs: Vec<_> = map.iter().collect();
                if self.sorted {
                    pairs.sort_by_key(|(key, _)| *key);
                }
                self.list(pairs.into_iter(), ['{', '}'], depth, out, |(key, item), out| {
                    out.push_str(&Json::from(key.as_str()).to_string());
                    out.push_str(": ");
                    self.write(item, depth + 1, out);
                });
            }
            plain => out.push_str(&plain.to_string()),
        }
    }

    fn list<T>(
        &self,
        items: impl ExactSizeIterator<Item = T>,
        brackets: [char; 2],
        depth: usize,
        out: &mut String,
        mut write: impl FnMut(T, &mut String),
    ) {
        let empty = items.len() == 0;
        let line = |depth: usize, out: &mut String| {
            if let Some(width) = self.indent {
                out.push('\n');
                out.extend(std::iter::repeat_n(' ', width * depth));
            }
        };
        out.push(brackets[0]);
        for (i, item) in items.enumerate() {
            match (i, self.indent) {
                (0, _) => {}
                (_, Some(_)) => out.push(','),
                (_, None) => out.push_str(", "),
            }
            line(depth + 1, out);
            write(item, out);
        }
        if !empty {
            line(depth, out);
        }
        out.push(brackets[1]);
    }
}

/// The source without the tags `generation` and `endgeneration`, which mark answers for training: a condition that always
/// holds takes their place, so that lines and whitespace stay.
pub(super) fn without_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start + 2);
        out.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(end);
        match tag.trim_matches(['-', '+', ' ', '\n', '\t']) {
            "generation" => out.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => out.push_str(&tag.replace("endgeneration", "endif")),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::{date, formatted, without_tags};

    #[test]
    fn one_day() {
        assert_eq!(date("%d %b %Y"), "26 Jul 2024");
        assert_eq!(date("%-d.%-m.%y %H:%M %% %q%"), "26.7.24 00:00 % ");
    }

    #[test]
    fn widths_are_seen() {
        assert!(formatted("{:>1000000000}") >= 1_000_000_000);
        assert_eq!(formatted("{:{}}"), usize::MAX);
        assert!(formatted("{} and {:.2f}") < 10);
        assert!(formatted("{{}} {}") < 10);
    }

    #[test]
    fn tags_for_training() {
        let source = "a{%- generation -%}b{%-endgeneration%}c{% if generation %}d{% endif %}{%";
        assert_eq!(without_tags(source), "a{%- if true -%}b{%-endif%}c{% if generation %}d{% endif %}{%");
        for source in ["{%}", "{%%}", "{% %}%}{%", "{%}\u{fffd}%}"] {
            assert_eq!(without_tags(source), source);
        }
    }
}
