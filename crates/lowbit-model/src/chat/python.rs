//! Values as Python writes them: `str`, `repr` and `json.dumps`.

use super::guard::{Result, refuse};
use super::shades::Shades;
use minijinja::Value;
use minijinja::value::{Kwargs, ValueKind};

/// Python's `str(value)`: what Jinja writes. What is undefined is nothing.
pub(super) fn text(value: &Value, shades: &Shades) -> Result<String> {
    match value.kind() {
        ValueKind::String => Ok(value.as_str().unwrap_or_default().to_string()),
        ValueKind::Undefined => Ok(String::new()),
        _ => repr(value, shades),
    }
}

/// Python's `repr(value)`.
pub(super) fn repr(value: &Value, shades: &Shades) -> Result<String> {
    let mut out = String::new();
    write_repr(value, shades, &mut out)?;
    Ok(out)
}

fn write_repr(value: &Value, shades: &Shades, out: &mut String) -> Result<()> {
    match value.kind() {
        ValueKind::None => out.push_str("None"),
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => out.push_str(&number(value)),
        ValueKind::String => write_quoted(value.as_str().unwrap_or_default(), shades, out),
        ValueKind::Seq | ValueKind::Iterable => {
            let tuple = value.is_tuple();
            out.push(if tuple { '(' } else { '[' });
            let mut count = 0;
            for item in value.try_iter()? {
                out.push_str(if count > 0 { ", " } else { "" });
                write_repr(&item, shades, out)?;
                count += 1;
            }
            out.push_str(if tuple && count == 1 {
                ",)"
            } else if tuple {
                ")"
            } else {
                "]"
            });
        }
        ValueKind::Map => {
            out.push('{');
            for (i, key) in value.try_iter()?.enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                write_repr(&key, shades, out)?;
                out.push_str(": ");
                write_repr(&value.get_item(&key)?, shades, out)?;
            }
            out.push('}');
        }
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

fn write_quoted(text: &str, shades: &Shades, out: &mut String) {
    let plain = shades.plain(text);
    let quote = if plain.contains('\'') && !plain.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for raw in text.chars() {
        let c = shades.reveal(raw);
        let escape = match c {
            '\\' => "\\\\".to_string(),
            '\n' => "\\n".into(),
            '\r' => "\\r".into(),
            '\t' => "\\t".into(),
            c if c == quote => format!("\\{c}"),
            c if !is_printable(c) => match c as u32 {
                code @ 0..=0xff => format!("\\x{code:02x}"),
                code @ 0x100..=0xffff => format!("\\u{code:04x}"),
                code => format!("\\U{code:08x}"),
            },
            _ => {
                out.push(raw);
                continue;
            }
        };
        out.extend(escape.chars().map(|c| shades.like(c, raw)));
    }
    out.push(quote);
}

/// Python's `str.isprintable` of a character, but for what is not assigned.
pub(super) fn is_printable(c: char) -> bool {
    let format = matches!(c, '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e000}'..='\u{f8ff}' | '\u{e0001}'..='\u{e007f}' | '\u{f0000}'..);
    !(c.is_control() || format || c.is_whitespace() && c != ' ')
}

/// A number as Python writes it: of a float the fewest digits that mean it.
pub(super) fn number(value: &Value) -> String {
    match f64::try_from(value.clone()) {
        Ok(number) if !value.is_integer() => float(number),
        _ => value.to_string(),
    }
}

pub(super) fn float(number: f64) -> String {
    if !number.is_finite() {
        return if number.is_nan() {
            "nan".into()
        } else if number > 0.0 {
            "inf".into()
        } else {
            "-inf".into()
        };
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>().unwrap_or(0) {
        exponent @ -4..16 => {
            let text = format!("{number}");
            if exponent >= 0 && !text.contains('.') { format!("{text}.0") } else { text }
        }
        exponent => format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()),
    }
}

/// Python's `json.dumps(value, ensure_ascii=False)` with its options.
pub(super) fn json(value: &Value, options: &Kwargs, shades: &Shades) -> Result<String> {
    let indent: Option<Value> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let indent = indent.filter(|indent| !indent.is_none()).map(|indent| match indent.as_str() {
        Some(text) => text.chars().take(16).collect(),
        None => " ".repeat(indent.as_usize().unwrap_or(0).min(16)),
    });
    let (item, key) = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => return Err(refuse("tojson: `separators` is not a pair of texts")),
        None => (if indent.is_some() { "," } else { ", " }.into(), ": ".into()),
    };
    let (ascii, sorted): (Option<bool>, Option<bool>) = (options.get("ensure_ascii")?, options.get("sort_keys")?);
    options.assert_all_used()?;
    let json = Json { indent, item, key, ascii: ascii == Some(true), sorted: sorted == Some(true), shades };
    let mut out = String::new();
    json.write(value, 0, &mut out)?;
    Ok(out)
}

struct Json<'a> {
    indent: Option<String>,
    item: String,
    key: String,
    ascii: bool,
    sorted: bool,
    shades: &'a Shades,
}

impl Json<'_> {
    fn write(&self, value: &Value, depth: usize, out: &mut String) -> Result<()> {
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&number(value).replace("inf", "Infinity").replace("nan", "NaN")),
            ValueKind::String => self.text(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.list(&items, ['[', ']'], depth, out, |item, out| self.write(item, depth + 1, out))?;
            }
            ValueKind::Map => {
                let mut keys: Vec<(String, Value)> = Vec::new();
                for key in value.try_iter()? {
                    keys.push((self.name(&key)?, key));
                }
                if self.sorted {
                    keys.sort_by_cached_key(|(name, _)| self.shades.plain(name).into_owned());
                }
                self.list(&keys, ['{', '}'], depth, out, |(name, key), out| {
                    self.text(name, out);
                    out.push_str(&self.key);
                    self.write(&value.get_item(key)?, depth + 1, out)
                })?;
            }
            kind => return Err(refuse(format!("tojson: {kind} is no JSON"))),
        }
        Ok(())
    }

    fn name(&self, key: &Value) -> Result<String> {
        Ok(match key.kind() {
            ValueKind::String => key.as_str().unwrap_or_default().to_string(),
            ValueKind::None => "null".into(),
            ValueKind::Bool => key.is_true().to_string(),
            ValueKind::Number => number(key),
            kind => return Err(refuse(format!("tojson: {kind} is no key"))),
        })
    }

    fn text(&self, text: &str, out: &mut String) {
        out.push('"');
        for raw in text.chars() {
            let c = self.shades.reveal(raw);
            let escape = match c {
                '"' => "\\\"".to_string(),
                '\\' => "\\\\".into(),
                '\n' => "\\n".into(),
                '\r' => "\\r".into(),
                '\t' => "\\t".into(),
                '\u{8}' => "\\b".into(),
                '\u{c}' => "\\f".into(),
                c if c < ' ' || self.ascii && !c.is_ascii() => {
                    c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
                }
                _ => {
                    out.push(raw);
                    continue;
                }
            };
            out.extend(escape.chars().map(|c| self.shades.like(c, raw)));
        }
        out.push('"');
    }

    fn list<T>(
        &self,
        items: &[T],
        brackets: [char; 2],
        depth: usize,
        out: &mut String,
        write: impl Fn(&T, &mut String) -> Result<()>,
    ) -> Result<()> {
        let line = |depth: usize, out: &mut String| {
            if let Some(indent) = &self.indent {
                out.push('\n');
                (0..depth).for_each(|_| out.push_str(indent));
            }
        };
        out.push(brackets[0]);
        for (i, item) in items.iter().enumerate() {
            out.push_str(if i > 0 { &self.item } else { "" });
            line(depth + 1, out);
            write(item, out)?;
        }
        if !items.is_empty() {
            line(depth, out);
        }
        out.push(brackets[1]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::float;

    #[test]
    fn floats_are_those_of_python() {
        for (number, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.5, "1.5"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.234e22, "1.234e+22"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (1e100, "1e+100"),
            (0.1, "0.1"),
            (f64::NAN, "nan"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(float(number), expected);
        }
    }
}
