//! Provenance of characters: what was said goes through a template in stand-ins, one for each character, so that the text that
//! comes out tells what was said from what the template wrote.
//!
//! A stand-in is a character of Unicode's private planes that neither the chat nor the template has. White space has none, so
//! that trimming works as ever. What compares or changes characters (`text`, `functions`) looks through the stand-ins.

use minijinja::Value;
use minijinja::value::{Tuple, ValueKind};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// Planes 15 and 16, without the last two of each, which are no characters.
fn stand_ins() -> impl Iterator<Item = char> {
    (0xf_0000..=0xf_fffd).chain(0x10_0000..=0x10_fffd).filter_map(char::from_u32)
}

/// Stand-ins of the characters that were said.
#[derive(Debug, Default)]
pub(super) struct Shades {
    stand_in: HashMap<char, char>,
    plain: HashMap<char, char>,
}

impl Shades {
    /// Stand-ins for all characters of texts that were said, in either case, and for those that escaping writes; none of them
    /// occurs there or in the texts of the template.
    pub fn of<'a>(said: impl Iterator<Item = &'a str>, written: impl Iterator<Item = &'a str>) -> Self {
        let mut used: HashSet<char> = ('!'..='~').collect();
        said.for_each(|text| used.extend(text.chars()));
        let cases: Vec<char> = used.iter().flat_map(|c| c.to_lowercase().chain(c.to_uppercase())).collect();
        used.extend(cases);
        let mut characters: Vec<char> = used.iter().copied().filter(|c| !c.is_whitespace()).collect();
        characters.sort_unstable();
        written.for_each(|text| used.extend(text.chars()));
        let free = stand_ins().filter(|c| !used.contains(c));
        let stand_in: HashMap<char, char> = characters.into_iter().zip(free).collect();
        let plain = stand_in.iter().map(|(c, shade)| (*shade, *c)).collect();
        Shades { stand_in, plain }
    }

    /// A text of stand-ins.
    pub fn shaded(&self, text: &str) -> String {
        text.chars().map(|c| self.shade(c)).collect()
    }

    /// Bytes of a text of stand-ins.
    pub fn bytes(&self, text: &str) -> usize {
        text.chars().map(|c| self.shade(c).len_utf8()).sum()
    }

    /// A value of JSON with its texts in stand-ins; keys that are plain names stay, for templates ask for them.
    pub fn shaded_value(&self, value: &serde_json::Value) -> Value {
        match value {
            serde_json::Value::Null => ().into(),
            serde_json::Value::Bool(truth) => (*truth).into(),
            serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => number.into(),
                (None, Some(number)) => number.into(),
                (None, None) => number.as_f64().unwrap_or_default().into(),
            },
            serde_json::Value::String(text) => self.shaded(text).into(),
            serde_json::Value::Array(items) => items.iter().map(|item| self.shaded_value(item)).collect(),
            serde_json::Value::Object(object) => {
                Value::from_pairs(object.iter().map(|(key, value)| self.shaded_pair(key, value)))
            }
        }
    }

    /// A key and its value, as in [`Shades::shaded_value`].
    pub fn shaded_pair(&self, key: &str, value: &serde_json::Value) -> (String, Value) {
        let is_name = key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '$' | '.'));
        (if is_name { key.to_owned() } else { self.shaded(key) }, self.shaded_value(value))
    }

    /// The stand-in of a character; itself for white space.
    pub fn shade(&self, c: char) -> char {
        self.stand_in.get(&c).copied().unwrap_or(c)
    }

    /// The character that a stand-in stands for; itself for all others.
    pub fn reveal(&self, c: char) -> char {
        self.plain.get(&c).copied().unwrap_or(c)
    }

    /// Whether a character is a stand-in.
    pub fn is_shade(&self, c: char) -> bool {
        self.plain.contains_key(&c)
    }

    /// A character in place of another, said if that was.
    pub fn like(&self, c: char, old: char) -> char {
        if self.is_shade(old) { self.shade(c) } else { c }
    }

    /// A text without stand-ins.
    pub fn plain<'a>(&self, text: &'a str) -> Cow<'a, str> {
        // The private planes take four bytes that begin so.
        match text.bytes().any(|b| b >= 0xf3) {
            true => text.chars().map(|c| self.reveal(c)).collect::<String>().into(),
            false => text.into(),
        }
    }

    /// A value without stand-ins; what is no text, list or map stays.
    pub fn plain_value(&self, value: &Value) -> Value {
        match value.kind() {
            ValueKind::String => match self.plain(value.as_str().unwrap_or_default()) {
                Cow::Borrowed(_) => value.clone(),
                Cow::Owned(text) => text.into(),
            },
            ValueKind::Seq => {
                let Ok(items) = value.try_iter() else { return value.clone() };
                let items: Vec<Value> = items.map(|item| self.plain_value(&item)).collect();
                if value.is_tuple() { Tuple::from(items).into() } else { items.into() }
            }
            ValueKind::Map => {
                let Ok(keys) = value.try_iter() else { return value.clone() };
                let pair =
                    |key: Value| (self.plain_value(&key), value.get_item(&key).map_or(key, |v| self.plain_value(&v)));
                Value::from_pairs(keys.map(pair))
            }
            _ => value.clone(),
        }
    }

    /// A text without stand-ins in parts; `true` marks those that the template wrote. White space goes with what is before it.
    pub fn parts(&self, text: &str) -> Vec<(String, bool)> {
        let mut parts: Vec<(String, bool)> = Vec::new();
        for c in text.chars() {
            let written = !self.is_shade(c);
            match parts.last_mut() {
                Some((part, kind)) if *kind == written || c.is_whitespace() => part.push(self.reveal(c)),
                _ => parts.push((self.reveal(c).into(), written)),
            }
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_told_from_what_was_written() {
        let said = "<a> \u{f0000}\u{f0001} Größe\n";
        let shades = Shades::of([said].into_iter(), ["<a>\u{f0002}"].into_iter());
        let shaded = shades.shaded(said);
        assert_eq!(shaded.chars().count(), said.chars().count());
        assert!(shaded.chars().all(|c| c.is_whitespace() || shades.is_shade(c)));
        assert!(!"\u{f0000}\u{f0001}\u{f0002}".chars().any(|c| shades.is_shade(c)));
        assert_eq!(shades.plain(&shaded), said);
        let text = format!("<a>{shaded}<a>\u{f0002}");
        let parts = shades.parts(&text);
        let expected = [("<a>", true), (said, false), ("<a>\u{f0002}", true)];
        assert_eq!(parts, expected.map(|(text, written)| (text.to_string(), written)));
        // Either case has a stand-in, so that what is changed stays said.
        assert!(['G', 'g', 'Ö', 'ö', 'S', '"', '\\', 'u'].iter().all(|c| shades.is_shade(shades.shade(*c))));
        assert_eq!((shades.like('x', shades.shade('y')), shades.like('x', 'y')), (shades.shade('x'), 'x'));
    }

    #[test]
    fn values_are_looked_through() {
        let shades = Shades::of(["ab"].into_iter(), [].into_iter());
        let a = shades.shaded("ab");
        let value =
            Value::from_pairs([(Value::from(a.as_str()), Value::from(vec![Value::from(a.as_str()), Value::from(1)]))]);
        assert_eq!(
            shades.plain_value(&value).to_string(),
            Value::from_pairs([("ab", Value::from(vec![Value::from("ab"), Value::from(1)]))]).to_string()
        );
    }
}
