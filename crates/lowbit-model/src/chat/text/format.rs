//! Format strings, and texts put together.

use crate::chat::functions::bounded;
use crate::chat::guard::Result;
use crate::chat::python;
use crate::chat::shades::Shades;
use minijinja::Value;
use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Kwargs, ValueKind};

/// Values as texts with a text between them.
pub(in crate::chat) fn join(values: impl Iterator<Item = Value>, joiner: &str, shades: &Shades) -> Result<String> {
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
pub(in crate::chat) fn formatted(style: FormatStyle, raw: &str, args: &[Value], shades: &Shades) -> Result<String> {
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
pub(in crate::chat) fn named(values: &Value) -> Result<Value> {
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
}
