//! Calls read in the forms in which models write them.

use super::python::{self, Fault};
use super::{Called, Calls, is_text};
use lowbit_model::chat::{CallForm, Marks};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

/// What calls there are at the begin of a text.
pub(super) enum Read {
    /// Calls, and the bytes they take.
    Calls(Vec<Called>, usize),
    /// It goes on.
    More,
    /// Something else.
    Other,
}

impl Calls {
    /// The calls that a text behind a mark begins with; `ends` where no text follows.
    pub(super) fn read(&self, text: &str, ends: bool) -> Read {
        let space = text.len() - text.trim_start().len();
        let read = match &self.form {
            CallForm::Object(key) => self.object(&text[space..], key),
            CallForm::Named(middle) => self.named(&text[space..], middle),
            CallForm::Marked(marks) => self.marked(&text[space..], marks, ends),
            CallForm::Python => self.python(&text[space..]),
        };
        match read {
            Read::Calls(calls, used) => Read::Calls(calls, space + used),
            other => other,
        }
    }

    /// The same where no mark tells that calls follow: they may be JSON or Python whatever the template shows.
    pub(super) fn read_unmarked(&self, text: &str, ends: bool) -> Read {
        match self.read(text, ends) {
            Read::Other if text.starts_with('[') => self.python(text),
            read => read,
        }
    }

    /// JSON objects, one or a list of them.
    fn object(&self, text: &str, key: &str) -> Read {
        match value(text) {
            Err(more) => more,
            Ok((Value::Array(items), used)) if !items.is_empty() => {
                let calls = items.into_iter().map(|item| self.of_object(item, key)).collect::<Option<_>>();
                calls.map_or(Read::Other, |calls| Read::Calls(calls, used))
            }
            Ok((value, used)) => self.of_object(value, key).map_or(Read::Other, |call| Read::Calls(vec![call], used)),
        }
    }

    fn of_object(&self, value: Value, key: &str) -> Option<Called> {
        let Value::Object(mut object) = value else { return None };
        let name = object.get("name")?.as_str()?.to_owned();
        let keys = [key, "arguments", "parameters"];
        let arguments = match keys.iter().find_map(|key| object.remove(*key)) {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(arguments)) => arguments,
            Some(Value::String(text)) => serde_json::from_str(&text).ok()?,
            Some(_) => return None,
        };
        self.function(&name).map(|_| (name, arguments))
    }

    /// A name, and behind it an object of the arguments.
    fn named(&self, text: &str, middle: &str) -> Read {
        let (name, rest) = text.split_at(named(text));
        let Some(at) = rest.find('{') else {
            let short = rest.len() <= middle.len() + SLACK;
            let may_be = if rest.is_empty() { self.begins(name) } else { self.function(name).is_some() && short };
            return if may_be { Read::More } else { Read::Other };
        };
        if at > middle.len() + SLACK || self.function(name).is_none() {
            return Read::Other;
        }
        match value(&rest[at..]) {
            Ok((Value::Object(arguments), used)) => {
                Read::Calls(vec![(name.to_owned(), arguments)], name.len() + at + used)
            }
            Ok(_) => Read::Other,
            Err(read) => read,
        }
    }

    /// A name, and arguments between marks up to what ends the call.
    fn marked(&self, text: &str, marks: &Marks, ends: bool) -> Read {
        let (name, mut rest) = text.split_at(named(text));
        let Some(function) = self.function(name) else {
            return if rest.is_empty() && self.begins(name) { Read::More } else { Read::Other };
        };
        let mut arguments = Map::new();
        match skipped(rest, &marks.head) {
            Err(More) => return Read::More,
            Ok(behind) => rest = behind.unwrap_or(rest),
        }
        loop {
            match skipped(rest, &marks.key) {
                Err(More) if !ends => return Read::More,
                Err(More) | Ok(None) => break,
                Ok(Some(behind)) => rest = behind,
            }
            let mark = marks.value.trim();
            let Some((key, behind)) = rest.split_once(mark) else { return Read::More };
            let behind = behind.strip_prefix(&marks.value[marks.value.trim_end().len()..]).unwrap_or(behind);
            let Some((value, behind)) = behind.split_once(marks.end.trim()) else { return Read::More };
            let space = &marks.end[..marks.end.len() - marks.end.trim_start().len()];
            let value = value.strip_suffix(space).unwrap_or(value);
            let schema = &function.parameters["properties"][key.trim()];
            arguments.insert(key.trim().to_owned(), plain(value, schema));
            rest = behind;
        }
        // What ends the call tells that no argument follows.
        let end = self.end.split_whitespace().next().unwrap_or_default();
        match skipped(rest, end) {
            Err(More) if !ends => Read::More,
            Ok(None) => Read::Other,
            Err(More) | Ok(Some(_)) => {
                Read::Calls(vec![(name.to_owned(), arguments)], text.len() - rest.trim_start().len())
            }
        }
    }

    /// Calls of Python, one, or several in a list or in lines.
    fn python(&self, text: &str) -> Read {
        match python::calls(text, |name| self.function(name).is_some(), |name| self.begins(name)) {
            Ok((calls, used)) => Read::Calls(calls, used),
            Err(Fault::Open) => Read::More,
            Err(Fault::Other) => Read::Other,
        }
    }
}

/// Bytes between name and arguments beyond those of the template.
const SLACK: usize = 40;

/// The text may go on as a mark.
struct More;

/// What stands behind a mark and the white space before it; none where another text stands there.
fn skipped<'a>(text: &'a str, mark: &str) -> Result<Option<&'a str>, More> {
    let (text, mark) = (text.trim_start(), mark.trim());
    match text.strip_prefix(mark) {
        Some(behind) => Ok(Some(behind)),
        None if mark.starts_with(text) => Err(More),
        None => Ok(None),
    }
}

/// Bytes of the name of a function at the begin of a text.
fn named(text: &str) -> usize {
    text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))).unwrap_or(text.len())
}

/// The value that a text between marks stands for: the text where the schema says so, else JSON or a word of Python, else the text.
fn plain(text: &str, schema: &Value) -> Value {
    let word = match text.trim() {
        "True" => Some(Value::Bool(true)),
        "False" => Some(Value::Bool(false)),
        "None" => Some(Value::Null),
        text => value(text).ok().filter(|(_, used)| *used == text.len()).map(|(value, _)| value),
    };
    word.filter(|_| !is_text(schema)).unwrap_or_else(|| Value::String(text.to_owned()))
}

/// The JSON value at the begin of a text, and its bytes.
fn value(text: &str) -> Result<(Value, usize), Read> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    // A number whose rest has not come is none yet.
    let is_cut = text.ends_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E'));
    match values.next() {
        Some(Ok(value)) => Ok((value, values.byte_offset())),
        Some(Err(error)) if !error.is_eof() => {
            bounded(text).map_err(|error| if error.is_eof() || is_cut { Read::More } else { Read::Other })
        }
        _ => Err(Read::More),
    }
}

/// The first value of a text whose numbers may exceed those of 64 bits, and its bytes: such become 1e308.
fn bounded(text: &str) -> Result<(Value, usize), serde_json::Error> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    values.next().transpose()?;
    let used = values.byte_offset();
    let (mut out, mut rest, mut in_text) = (String::new(), &text[..used], false);
    while let Some(c) = rest.chars().next() {
        let taken = match c {
            '\\' if in_text => rest.char_indices().nth(2).map_or(rest.len(), |(at, _)| at),
            '-' | '0'..='9' if !in_text => {
                let ends = |c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E');
                rest.find(ends).unwrap_or(rest.len())
            }
            c => c.len_utf8(),
        };
        in_text ^= c == '"';
        let (piece, behind) = rest.split_at(taken);
        match piece.parse::<f64>().is_ok_and(f64::is_infinite) && !in_text {
            true => out += if c == '-' { "-1e308" } else { "1e308" },
            false => out += piece,
        }
        rest = behind;
    }
    Ok((serde_json::from_str(&out)?, used))
}
