//! Calls as Python writes them: `[name(key="text", other=[1, 2.5, True, None, {"a": 'b'}])]`.

use super::Called;
use serde_json::{Map, Number, Value};

/// Lists in lists at most.
const DEEPEST: usize = 64;

/// Why a text is no call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It goes on.
    Open,
    /// Something else stands there.
    Other,
}

/// A text as it is read.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

/// The calls that a text begins with, one, or a list of them, and the bytes they take. Names are those of `is_known`; `begins` tells whether a
/// name may become one.
pub(super) fn calls(
    text: &str,
    is_known: impl Fn(&str) -> bool,
    begins: impl Fn(&str) -> bool,
) -> Result<(Vec<Called>, usize), Fault> {
    let mut reader = Reader { text, at: 0 };
    let (listed, mut found) = (reader.takes('['), Vec::new());
    loop {
        let name = reader.name();
        match reader.rest().chars().next() {
            None if begins(name) => return Err(Fault::Open),
            Some('(') if is_known(name) => {}
            _ => return Err(Fault::Other),
        }
        found.push((name.to_owned(), reader.arguments()?));
        if !listed {
            return Ok((found, reader.at));
        }
        let more = reader.takes(',');
        if reader.takes(']') {
            return Ok((found, reader.at));
        }
        if !more {
            return Err(reader.fault());
        }
    }
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Skips white space.
    fn skip(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// The same, and a letter behind it where it is this one.
    fn takes(&mut self, letter: char) -> bool {
        self.skip();
        let is = self.rest().starts_with(letter);
        self.at += if is { letter.len_utf8() } else { 0 };
        is
    }

    /// The same of a letter that must come.
    fn needs(&mut self, letter: char) -> Result<(), Fault> {
        match self.takes(letter) {
            true => Ok(()),
            false => Err(self.fault()),
        }
    }

    fn fault(&self) -> Fault {
        if self.rest().is_empty() { Fault::Open } else { Fault::Other }
    }

    fn name(&mut self) -> &'a str {
        self.skip();
        let rest = self.rest();
        let length = rest.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    /// Arguments by their names, in parentheses.
    fn arguments(&mut self) -> Result<Map<String, Value>, Fault> {
        let mut arguments = Map::new();
        self.needs('(')?;
        while !self.takes(')') {
            let key = self.name().to_owned();
            self.needs('=')?;
            if key.is_empty() {
                return Err(Fault::Other);
            }
            arguments.insert(key, self.value(DEEPEST)?);
            if !self.takes(',') {
                self.needs(')')?;
                break;
            }
        }
        Ok(arguments)
    }

    fn value(&mut self, depth: usize) -> Result<Value, Fault> {
        let depth = depth.checked_sub(1).ok_or(Fault::Other)?;
        if self.takes('[') {
            return self.items(']', depth);
        }
        if self.takes('(') {
            return self.items(')', depth);
        }
        if self.takes('{') {
            return self.object(depth);
        }
        match self.rest().chars().next() {
            None => Err(Fault::Open),
            Some(quote @ ('"' | '\'')) => self.text(quote).map(Value::String),
            Some(_) => self.word(),
        }
    }

    fn items(&mut self, end: char, depth: usize) -> Result<Value, Fault> {
        let mut items = Vec::new();
        while !self.takes(end) {
            items.push(self.value(depth)?);
            if !self.takes(',') {
                self.needs(end)?;
                break;
            }
        }
        Ok(Value::Array(items))
    }

    fn object(&mut self, depth: usize) -> Result<Value, Fault> {
        let mut object = Map::new();
        while !self.takes('}') {
            let key = match self.value(depth)? {
                Value::String(key) => key,
                other @ (Value::Number(_) | Value::Bool(_) | Value::Null) => other.to_string(),
                Value::Array(_) | Value::Object(_) => return Err(Fault::Other),
            };
            self.needs(':')?;
            object.insert(key, self.value(depth)?);
            if !self.takes(',') {
                self.needs('}')?;
                break;
            }
        }
        Ok(Value::Object(object))
    }

    /// A text in quotes, with the escapes that Python and JSON share.
    fn text(&mut self, quote: char) -> Result<String, Fault> {
        let (mut out, mut letters) = (String::new(), self.rest().char_indices().skip(1));
        while let Some((at, letter)) = letters.next() {
            match letter {
                '\\' => {
                    let (_, escaped) = letters.next().ok_or(Fault::Open)?;
                    match escaped {
                        'n' => out.push('\n'),
                        't' => out.push('\t'),
                        'r' => out.push('\r'),
                        'u' => {
                            let digits: String = letters.by_ref().take(4).map(|(_, digit)| digit).collect();
                            let code = u32::from_str_radix(&digits, 16);
                            let code = code.map_err(|_| if digits.len() < 4 { Fault::Open } else { Fault::Other })?;
                            out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                        }
                        '\\' | '\'' | '"' | '/' => out.push(escaped),
                        // As Python has it: an unknown escape is two letters.
                        other => out.extend(['\\', other]),
                    }
                }
                letter if letter == quote => {
                    self.at += at + quote.len_utf8();
                    return Ok(out);
                }
                letter => out.push(letter),
            }
        }
        Err(Fault::Open)
    }

    /// A number, or a word of Python or JSON.
    fn word(&mut self) -> Result<Value, Fault> {
        let rest = self.rest();
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_');
        let length = rest.find(|c| !is_part(c)).ok_or(Fault::Open)?;
        let word = &rest[..length];
        let value = match word {
            "True" | "true" => Value::Bool(true),
            "False" | "false" => Value::Bool(false),
            "None" | "null" => Value::Null,
            _ => {
                let whole = word.parse::<i64>().ok().map(Number::from);
                let number = whole.or_else(|| word.parse().ok().and_then(Number::from_f64));
                number.map(Value::Number).ok_or(Fault::Other)?
            }
        };
        self.at += length;
        Ok(value)
    }
}
