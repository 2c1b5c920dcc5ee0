//! The filters of Jinja.

use super::bounded;
use crate::chat::guard::{Result, refuse};
use crate::chat::python;
use crate::chat::shades::Shades;
use crate::chat::text::{self, Text};
use minijinja::formatting::FormatStyle;
use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Value};
use std::sync::Arc;

/// Adds all filters.
pub(super) fn add(env: &mut Environment<'_>, shades: &Arc<Shades>) {
    text_filters(env, shades);
    layout_filters(env, shades);
    number_filters(env, shades);
    list_filters(env, shades);
    cutting_filters(env);
}

/// A filter of a value's text; of an argument beside it or named.
fn on_text(
    env: &mut Environment<'_>,
    shades: &Arc<Shades>,
    name: &'static str,
    filter: fn(&Text<'_>, &[Value], &Kwargs) -> Result<Value>,
) {
    let shades = shades.clone();
    env.add_filter(name, move |value: Value, args: Rest<Value>, named: Kwargs| -> Result<Value> {
        let text = python::text(&value, &shades)?;
        let result = filter(&Text::new(&text, &shades), &args, &named)?;
        named.assert_all_used()?;
        Ok(result)
    });
}

/// An argument by its place or name.
pub(super) fn argument(args: &[Value], named: &Kwargs, at: usize, name: &str) -> Result<Option<Value>> {
    let given = if named.has(name) { Some(named.get::<Value>(name)?) } else { None };
    Ok(args.get(at).cloned().or(given))
}

fn flag(args: &[Value], named: &Kwargs, at: usize, name: &str) -> Result<bool> {
    Ok(argument(args, named, at, name)?.is_some_and(|value| value.is_true()))
}

fn count(args: &[Value], named: &Kwargs, at: usize, name: &str, default: usize) -> Result<usize> {
    match argument(args, named, at, name)? {
        None => Ok(default),
        Some(value) => value.as_usize().ok_or_else(|| refuse(format!("`{name}` is not a number from 0 on"))),
    }
}

fn string(value: Option<&Value>) -> Option<&str> {
    value.and_then(Value::as_str)
}

fn text_filters(env: &mut Environment<'_>, shades: &Arc<Shades>) {
    on_text(env, shades, "upper", |text, _, _| Ok(text.upper().into()));
    on_text(env, shades, "lower", |text, _, _| Ok(text.lower().into()));
    on_text(env, shades, "capitalize", |text, _, _| Ok(text.capitalized().into()));
    // Words begin after spaces, hyphens and brackets, as Jinja has it.
    on_text(env, shades, "title", |text, _, _| {
        Ok(text.titled(|before| !text::is_space(before) && !"-({[<".contains(before)).into())
    });
    on_text(env, shades, "trim", |text, args, named| {
        let set = argument(args, named, 0, "chars")?;
        Ok(text.stripped(string(set.as_ref()), true, true).into())
    });
    on_text(env, shades, "replace", |text, args, named| {
        let (old, new) = (argument(args, named, 0, "old")?, argument(args, named, 1, "new")?);
        let most = argument(args, named, 2, "count")?.and_then(|count| count.as_usize()).unwrap_or(usize::MAX);
        let (old, new) = (old.unwrap_or_default().to_string(), new.unwrap_or_default().to_string());
        Ok(text.replaced(&old, &new, most)?.into())
    });
    for name in ["escape", "e", "forceescape"] {
        on_text(env, shades, name, |text, _, _| {
            let escaped = |c: char| match c {
                '&' => "&amp;".chars().collect(),
                '<' => "&lt;".chars().collect(),
                '>' => "&gt;".chars().collect(),
                '"' => "&#34;".chars().collect(),
                '\'' => "&#39;".chars().collect(),
                _ => vec![c],
            };
            Ok(text.changed(|_, c| escaped(c)).into())
        });
    }
    on_text(env, shades, "string", |text, _, _| Ok(text.chars(0..usize::MAX).into()));
    on_text(env, shades, "striptags", |text, _, _| Ok(without_tags_of_html(text)?.into()));
    on_text(env, shades, "wordcount", |text, _, _| {
        let inside = |c: char| c.is_alphanumeric() || c == '_';
        Ok(text.plain().split(|c| !inside(c)).filter(|word| !word.is_empty()).count().into())
    });
    let own = shades.clone();
    env.add_filter("format", move |format: &str, args: Rest<Value>, named: Kwargs| -> Result<String> {
        let any = named.args().next().is_some();
        let named: Option<Value> = any.then(|| named.into());
        text::formatted(FormatStyle::Printf, format, &args.iter().cloned().chain(named).collect::<Vec<_>>(), &own)
    });
    let own = shades.clone();
    env.add_filter("tojson", move |value: Value, named: Kwargs| python::json(&value, &named, &own));
    let own = shades.clone();
    env.add_filter("pprint", move |value: Value| python::repr(&value, &own));
    let own = shades.clone();
    env.add_filter("urlencode", move |value: Value| url(&value, &own));
    let own = shades.clone();
    env.add_filter("safe", move |value: Value| python::text(&value, &own));
}

/// Tags and comments gone, entities read, spaces one each.
fn without_tags_of_html(text: &Text<'_>) -> Result<String> {
    let (mut out, mut rest) = (String::new(), text.plain());
    while let Some(start) = rest.find('<') {
        let end = match rest[start..].starts_with("<!--") {
            true => rest[start..].find("-->").map(|at| at + 3),
            false => rest[start..].find('>').map(|at| at + 1),
        };
        let Some(end) = end else { break };
        out.push_str(&rest[..start]);
        rest = &rest[start + end..];
    }
    out.push_str(rest);
    for (entity, c) in [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#34;", "\""), ("&#39;", "'"), ("&amp;", "&")]
    {
        out = out.replace(entity, c);
    }
    let words: Vec<&str> = out.split(text::is_space).filter(|word| !word.is_empty()).collect();
    Ok(text.said(&words.join(" ")))
}

/// A text, or the pairs of a map or list, as URLs have them.
fn url(value: &Value, shades: &Shades) -> Result<String> {
    let quoted = |value: &Value, safe: &str, space: &str| -> Result<String> {
        let raw = python::text(value, shades)?;
        let text = Text::new(&raw, shades);
        bounded(text.plain().len().saturating_mul(3))?;
        let mut out = String::new();
        for byte in text.plain().bytes() {
            match byte as char {
                ' ' if space == "+" => out.push('+'),
                c if c.is_ascii_alphanumeric() || "_.-~".contains(c) || safe.contains(c) => out.push(c),
                _ => out.push_str(&format!("%{byte:02X}")),
            }
        }
        Ok(text.said(&out))
    };
    let pairs: Vec<(Value, Value)> = match value.kind() {
        ValueKind::Map => {
            let keys: Vec<Value> = value.try_iter()?.collect();
            keys.into_iter().map(|key| value.get_item(&key).map(|value| (key, value))).collect::<Result<_>>()?
        }
        ValueKind::Seq => value
            .try_iter()?
            .map(|pair| Ok((pair.get_item_by_index(0)?, pair.get_item_by_index(1)?)))
            .collect::<Result<_>>()?,
        _ => return quoted(value, "/", ""),
    };
    let one = |(key, value): &(Value, Value)| Ok(format!("{}={}", quoted(key, "", "+")?, quoted(value, "", "+")?));
    Ok(pairs.iter().map(one).collect::<Result<Vec<_>>>()?.join("&"))
}

fn layout_filters(env: &mut Environment<'_>, shades: &Arc<Shades>) {
    on_text(env, shades, "center", |text, args, named| {
        Ok(text.padded(count(args, named, 0, "width", 80)? as i64, None, true, true)?.into())
    });
    on_text(env, shades, "indent", |text, args, named| {
        let width = argument(args, named, 0, "width")?.unwrap_or_else(|| 4.into());
        let (first, blank) = (flag(args, named, 1, "first")?, flag(args, named, 2, "blank")?);
        let space = match width.as_str() {
            Some(text) => text.to_string(),
            None => {
                let width = width.as_usize().unwrap_or(0);
                bounded(width)?;
                " ".repeat(width)
            }
        };
        let lines = text.lines(false);
        // The text ends a line of its own, as Jinja has it.
        let open = if text.ends_line() { Some("") } else { None };
        bounded((lines.len() + 1).saturating_mul(space.len()).saturating_add(text.plain().len().saturating_mul(4)))?;
        let mut out = if first { space.clone() } else { String::new() };
        for (i, line) in lines.into_iter().chain(open).enumerate() {
            if i > 0 {
                out.push('\n');
                out.push_str(if blank || !line.is_empty() { &space } else { "" });
            }
            out.push_str(line);
        }
        Ok(out.into())
    });
    on_text(env, shades, "truncate", |text, args, named| {
        let length = count(args, named, 0, "length", 255)?;
        let kill = flag(args, named, 1, "killwords")?;
        let end = argument(args, named, 2, "end")?.map_or_else(|| "...".to_string(), |end| end.to_string());
        let leeway = count(args, named, 3, "leeway", 5)?;
        let kept = text.chars(0..length.saturating_sub(end.chars().count()));
        Ok(match text.len() <= length.saturating_add(leeway) {
            true => text.chars(0..usize::MAX).into(),
            false if kill => format!("{kept}{end}").into(),
            false => format!("{}{end}", kept.rsplit_once(' ').map_or(kept, |(head, _)| head)).into(),
        })
    });
    on_text(env, shades, "wordwrap", |text, args, named| {
        let width = count(args, named, 0, "width", 79)?.max(1);
        let long = argument(args, named, 1, "break_long_words")?.is_none_or(|value| value.is_true());
        let joiner = argument(args, named, 2, "wrapstring")?.map_or_else(|| "\n".to_string(), |text| text.to_string());
        let hyphens = argument(args, named, 3, "break_on_hyphens")?.is_none_or(|value| value.is_true());
        bounded(text.plain().len().saturating_mul(4 + joiner.len()))?;
        let lines = text.lines(false).into_iter().map(|line| text.wrapped(line, width, long, hyphens).join(&joiner));
        Ok(lines.collect::<Vec<_>>().join(&joiner).into())
    });
}

fn number_filters(env: &mut Environment<'_>, shades: &Arc<Shades>) {
    let own = shades.clone();
    env.add_filter("int", move |value: Value, args: Rest<Value>, named: Kwargs| -> Result<Value> {
        let default = argument(&args, &named, 0, "default")?.unwrap_or_else(|| 0.into());
        let base = count(&args, &named, 1, "base", 10)?;
        named.assert_all_used()?;
        Ok(integer(&own.plain_value(&value), base).unwrap_or(default))
    });
    let own = shades.clone();
    env.add_filter("float", move |value: Value, args: Rest<Value>, named: Kwargs| -> Result<Value> {
        let default = argument(&args, &named, 0, "default")?.unwrap_or_else(|| 0.0.into());
        named.assert_all_used()?;
        let value = own.plain_value(&value);
        let number = match value.as_str() {
            Some(text) => text.trim().parse::<f64>().ok(),
            None if value.kind() == ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
            None => f64::try_from(value).ok(),
        };
        Ok(number.map_or(default, Value::from))
    });
    env.add_filter("round", |value: Value, args: Rest<Value>, named: Kwargs| -> Result<Value> {
        let precision = count(&args, &named, 0, "precision", 0)?.min(300);
        let method = argument(&args, &named, 1, "method")?.map_or_else(|| "common".to_string(), |m| m.to_string());
        named.assert_all_used()?;
        let number = f64::try_from(value.clone()).map_err(|_| refuse(format!("{} cannot be rounded", value.kind())))?;
        let scale = 10f64.powi(precision as i32);
        match method.as_str() {
            "common" if value.is_integer() => Ok(value),
            // The nearest decimal; halves go to the even one, as in Python.
            "common" => Ok(format!("{number:.precision$}").parse::<f64>().unwrap_or(number).into()),
            "ceil" => Ok(((number * scale).ceil() / scale).into()),
            "floor" => Ok(((number * scale).floor() / scale).into()),
            other => Err(refuse(format!("round: `{other}` is neither common nor ceil nor floor"))),
        }
    });
    env.add_filter("filesizeformat", |value: Value, args: Rest<Value>, named: Kwargs| -> Result<String> {
        let binary = flag(&args, &named, 0, "binary")?;
        named.assert_all_used()?;
        let bytes = f64::try_from(value).map_err(|_| refuse("filesizeformat: not a number"))?;
        let (base, units) = match binary {
            true => (1024.0, ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"]),
            false => (1000.0, ["kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"]),
        };
        if bytes < base {
            return Ok(if bytes == 1.0 { "1 Byte".into() } else { format!("{} Bytes", bytes.trunc()) });
        }
        let steps = (1..).zip(units);
        let fits = steps.clone().find(|(power, _)| bytes < base.powi(power + 1)).or_else(|| steps.last());
        Ok(fits.map_or_else(String::new, |(power, unit)| format!("{:.1} {unit}", bytes / base.powi(power))))
    });
}

/// Python's `int(value, base)` as Jinja calls it.
fn integer(value: &Value, base: usize) -> Option<Value> {
    if value.kind() == ValueKind::Bool {
        return Some(i64::from(value.is_true()).into());
    }
    let Some(text) = value.as_str() else {
        return if value.is_integer() { Some(value.clone()) } else { whole(f64::try_from(value.clone()).ok()?) };
    };
    let text = text.trim().replace('_', "");
    let (sign, digits) = text.strip_prefix('-').map_or((1, text.trim_start_matches('+')), |rest| (-1, rest));
    let lower = digits.to_ascii_lowercase();
    let prefixes = [(16, "0x"), (8, "0o"), (2, "0b")];
    let prefix = prefixes.iter().find(|(kind, prefix)| (base == 0 || base == *kind) && lower.starts_with(prefix));
    let (base, digits) = match prefix {
        Some((kind, prefix)) => (*kind, &lower[prefix.len()..]),
        None => (if base == 0 { 10 } else { base }, lower.as_str()),
    };
    let parsed = (2..=36).contains(&base).then(|| i128::from_str_radix(digits, base as u32).ok()).flatten();
    let parsed = parsed.filter(|_| !digits.starts_with(['+', '-'])).map(|n| Value::from(n * sign));
    // What is no whole number may be another.
    parsed.or_else(|| whole(text.parse().ok()?))
}

fn whole(number: f64) -> Option<Value> {
    (number.is_finite() && number.abs() < 1e30).then(|| Value::from(number.trunc() as i128))
}

fn list_filters(env: &mut Environment<'_>, shades: &Arc<Shades>) {
    let own = shades.clone();
    env.add_filter("join", move |value: Value, args: Rest<Value>, named: Kwargs| -> Result<String> {
        let joiner =
            argument(&args, &named, 0, "d")?.map_or(Ok(String::new()), |joiner| python::text(&joiner, &own))?;
        let path = argument(&args, &named, 1, "attribute")?.map(|path| path.to_string());
        named.assert_all_used()?;
        let items: Vec<Value> = characters(&value)?;
        let items =
            items.into_iter().map(|item| path.as_deref().map_or(Ok(item.clone()), |path| attribute(&item, path)));
        text::join(items.collect::<Result<Vec<_>>>()?.into_iter(), &joiner, &own)
    });
    for name in ["length", "count"] {
        env.add_filter(name, |value: Value| -> Result<usize> {
            match value.as_str() {
                Some(text) => Ok(text.chars().count()),
                None if value.is_undefined() => Ok(0),
                None => value.len().ok_or_else(|| refuse(format!("{} has no length", value.kind()))),
            }
        });
    }
    for name in ["default", "d"] {
        env.add_filter(name, |value: Value, args: Rest<Value>, named: Kwargs| -> Result<Value> {
            let default = argument(&args, &named, 0, "default_value")?.unwrap_or_else(|| "".into());
            let empty = flag(&args, &named, 1, "boolean")? && !value.is_true();
            named.assert_all_used()?;
            Ok(if value.is_undefined() || empty { default } else { value })
        });
    }
    // What a name is an attribute of, not what has it as a key.
    env.add_filter("attr", |value: Value, name: &str| -> Result<Value> {
        if value.kind() == ValueKind::Plain { value.get_attr(name) } else { Ok(Value::UNDEFINED) }
    });
    env.add_filter("list", |value: Value| -> Result<Value> { Ok(characters(&value)?.into()) });
}

/// Filters that cut a list into lists.
fn cutting_filters(env: &mut Environment<'_>) {
    env.add_filter("batch", |value: Value, args: Rest<Value>, named: Kwargs| -> Result<Value> {
        let size = count(&args, &named, 0, "linecount", 0)?;
        let fill = argument(&args, &named, 1, "fill_with")?.filter(|fill| !fill.is_none());
        named.assert_all_used()?;
        let items = characters(&value)?;
        if size == 0 {
            return Err(refuse("batch: a number of items from 1 on is needed"));
        }
        bounded(if fill.is_some() { size } else { 0 })?;
        let pad = |chunk: &[Value]| -> Value {
            let missing = fill.iter().cycle().take(fill.as_ref().map_or(0, |_| size - chunk.len())).cloned();
            chunk.iter().cloned().chain(missing).collect()
        };
        Ok(items.chunks(size).map(pad).collect())
    });
    env.add_filter("slice", |value: Value, args: Rest<Value>, named: Kwargs| -> Result<Value> {
        let slices = count(&args, &named, 0, "slices", 0)?;
        let fill = argument(&args, &named, 1, "fill_with")?.filter(|fill| !fill.is_none());
        named.assert_all_used()?;
        let items = characters(&value)?;
        if slices == 0 {
            return Err(refuse("slice: a number of slices from 1 on is needed"));
        }
        bounded(slices)?;
        let (each, more) = (items.len() / slices, items.len() % slices);
        let mut at = 0;
        let part = |i: usize| -> Value {
            let size = each + usize::from(i < more);
            let part = &items[at..at + size];
            at += size;
            let fill = fill.iter().filter(|_| more > 0 && i >= more).cloned();
            part.iter().cloned().chain(fill).collect()
        };
        Ok((0..slices).map(part).collect())
    });
}

/// The items of a list, the keys of a map, or the characters of a text.
fn characters(value: &Value) -> Result<Vec<Value>> {
    match value.as_str() {
        Some(text) => Ok(text.chars().map(|c| Value::from(c.to_string())).collect()),
        None if value.is_undefined() => Ok(Vec::new()),
        None => Ok(value.try_iter()?.collect()),
    }
}

/// An attribute of an attribute: names and places between dots.
fn attribute(value: &Value, path: &str) -> Result<Value> {
    path.split('.').try_fold(value.clone(), |value, name| match name.parse::<usize>() {
        Ok(place) => value.get_item_by_index(place),
        Err(_) => value.get_attr(name),
    })
}
