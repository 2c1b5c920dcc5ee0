//! Python's methods of strings by name.

use super::{Text, formatted, is_space, join, list, named, times, tuple};
use crate::chat::functions::bounded;
use crate::chat::guard::{Result, refuse};
use crate::chat::python;
use crate::chat::shades::Shades;
use minijinja::Value;
use minijinja::formatting::FormatStyle;
use minijinja::value::{Kwargs, from_args};

/// Calls a method of a string; `None` when Python's strings have none of this name.
///
/// # Errors
/// When an argument is wrong or the result too large.
pub(in crate::chat) fn method(raw: &str, name: &str, args: &[Value], shades: &Shades) -> Result<Option<Value>> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
