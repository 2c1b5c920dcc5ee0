//! JSON: an object a line, an array of objects, or an object with such an array among its members (`{"data": [..]}`). Which one
//! it is shows at the beginning of the file; all are read row by row.

use super::source::{Head, Lines, decode_error};
use super::{Column, First, Limits, Projection, Source, Visitor, abridged};
use crate::error::Error;
use serde::Deserialize as _;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess};
use serde_json::{Map, Value};
use std::cell::Cell;
use std::fmt;
use std::io::{self, BufReader, Read};
use std::rc::Rc;

/// Bytes of a file that tell how it is laid out.
const SAMPLE: u64 = 1 << 20;

type Object = Map<String, Value>;

pub(super) fn read(source: &Source, limits: &Limits, visitor: &mut dyn Visitor) -> Result<(), Error> {
    let head = Head::open(source, limits, SAMPLE)?;
    let rows = ObjectRows { source, visitor, projection: None };
    match layout(head.sample()) {
        Layout::Lines => lines(Lines::new(source, head, limits), rows),
        Layout::Array => document(head, limits, rows, false),
        Layout::Member => document(head, limits, rows, true),
    }
}

/// How rows are laid out.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Layout {
    Lines,
    Array,
    Member,
}

/// What the beginning of a file shows.
fn layout(sample: &[u8]) -> Layout {
    let sample = sample.strip_prefix("\u{feff}".as_bytes()).unwrap_or(sample).trim_ascii_start();
    if sample.starts_with(b"[") {
        return Layout::Array;
    }
    let end = sample.iter().position(|byte| *byte == b'\n');
    let (line, rest) = sample.split_at(end.unwrap_or(sample.len()));
    let is_rows = |value: &Value| value.as_array().and_then(|array| array.first()).is_some_and(Value::is_object);
    match serde_json::from_slice::<Object>(line) {
        Ok(object) if rest.trim_ascii().is_empty() && object.values().filter(|value| is_rows(value)).count() == 1 => {
            Layout::Member
        }
        Err(cause) if cause.is_eof() && !sample.is_empty() && (end.is_some() || begins_rows(line)) => Layout::Member,
        _ => Layout::Lines,
    }
}

/// Whether a member of an object whose end is not in sight is an array of objects.
fn begins_rows(object: &[u8]) -> bool {
    let (mut depth, mut quoted, mut escaped, mut last) = (0, false, false, b' ');
    for &byte in object {
        if quoted {
            (quoted, escaped) = (escaped || byte != b'"', byte == b'\\' && !escaped);
            continue;
        }
        match byte {
            b'"' => quoted = true,
            b'{' if depth == 2 && last == b'[' => return true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        if !byte.is_ascii_whitespace() {
            last = byte;
        }
    }
    false
}

/// Shows objects to a visitor.
struct ObjectRows<'a> {
    source: &'a Source,
    visitor: &'a mut dyn Visitor,
    /// Names of the projected columns, and whether each may be missing.
    projection: Option<(Vec<String>, bool)>,
}

impl ObjectRows<'_> {
    fn row(&mut self, object: &Object, line: u64) -> Result<(), Error> {
        let (columns, optional) = match &self.projection {
            Some(projection) => projection,
            None => self.projection.insert(begin(object, self.visitor)?),
        };
        let value = |name: &String| match object.get(name) {
            Some(value) => Ok(value.clone()),
            None if *optional => Ok(Value::Null),
            None => {
                let known = abridged(object.keys().map(String::as_str));
                let message = format!("no field `{name}`: the object has {known}");
                Err(Error::input(self.source.name(), message).on_line(line))
            }
        };
        let values = columns.iter().map(value).collect::<Result<_, _>>()?;
        self.visitor.row(Some(line), values)
    }
}

/// Names of the projected columns, and whether each may be missing.
fn begin(object: &Object, visitor: &mut dyn Visitor) -> Result<(Vec<String>, bool), Error> {
    let first = First { fields: object.keys().cloned().collect(), is_line: false };
    let Projection { columns, optional, .. } = visitor.begin(&first)?;
    let name = |column: Column| match column {
        Column::Name(name) => Ok(name),
        Column::Index(index) => Err(Error::usage(format!("column {index}: JSON objects have names, not positions"))),
    };
    Ok((columns.into_iter().map(name).collect::<Result<_, _>>()?, optional))
}

fn lines(mut lines: Lines, mut rows: ObjectRows) -> Result<(), Error> {
    while let Some(line) = lines.next(0)? {
        if line.trim().is_empty() {
            continue;
        }
        let object = serde_json::from_str(&line).map_err(|cause| {
            let message = format!("not one JSON object a line: {cause}");
            Error::input(rows.source.name(), message).on_line(lines.line)
        })?;
        rows.row(&object, lines.line)?;
    }
    Ok(())
}

/// One value over the whole file: an array of rows, or an object that has one as a member.
fn document(head: Head, limits: &Limits, rows: ObjectRows, is_member: bool) -> Result<(), Error> {
    let name = rows.source.name();
    let at = Rc::new(Position { line: Cell::new(1), left: Cell::new(limits.line), most: limits.line });
    let reader = Followed { reader: BufReader::new(head.without_mark()), at: at.clone() };
    let mut json = serde_json::Deserializer::from_reader(reader);
    let mut state = State { rows, at, failed: None, found: None };
    let read = match is_member {
        false => json.deserialize_seq(RowArray(&mut state)),
        true => json.deserialize_map(Members(&mut state)),
    };
    let read = read.and_then(|()| json.end());
    match (state.failed, read) {
        (Some(failed), _) => Err(failed),
        (None, Ok(())) => Ok(()),
        (None, Err(cause)) => {
            let line = cause.line() as u64;
            let message = format!("not JSON: {cause}");
            let error = Error::input(name, message).on_line(line.max(1));
            match cause.is_io() {
                true => Err(decode_error(name, Some(state.at.line.get()), &io::Error::from(cause))),
                false => Err(error),
            }
        }
    }
}

/// What is being read of a document.
struct State<'a> {
    rows: ObjectRows<'a>,
    at: Rc<Position>,
    /// Why reading ended, where the parser has no word for it.
    failed: Option<Error>,
    /// The member that holds the rows.
    found: Option<String>,
}

impl State<'_> {
    fn fail<T, E: de::Error>(&mut self, error: Error) -> Result<T, E> {
        self.failed.get_or_insert(error);
        Err(E::custom("ended"))
    }

    fn refuse<T, E: de::Error>(&mut self, message: String) -> Result<T, E> {
        let error = Error::input(self.rows.source.name(), message).on_line(self.at.line.get());
        self.fail(error)
    }
}

/// Where a parser is in a file, and how long its row may still become.
struct Position {
    line: Cell<u64>,
    left: Cell<u64>,
    most: u64,
}

impl Position {
    /// A row ends or begins.
    fn renew(&self) {
        self.left.set(self.most);
    }
}

/// Follows the position in the file; the parser takes byte after byte.
struct Followed<R> {
    reader: R,
    at: Rc<Position>,
}

impl<R: Read> Read for Followed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buffer)?;
        let Position { line, left, most } = &*self.at;
        line.set(line.get() + buffer[..n].iter().filter(|byte| **byte == b'\n').count() as u64);
        match left.get().checked_sub(n as u64) {
            Some(rest) => left.set(rest),
            None => return Err(io::Error::other(TooLong(*most))),
        }
        Ok(n)
    }
}

/// A row that is longer than the limit.
#[derive(Debug)]
struct TooLong(u64);

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "more than {} bytes without the end of a row", self.0)
    }
}

impl std::error::Error for TooLong {}

/// An array of rows.
struct RowArray<'s, 'a>(&'s mut State<'a>);

impl<'de> de::Visitor<'de> for RowArray<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        while array.next_element_seed(RowObject(&mut *self.0))?.is_some() {}
        Ok(())
    }
}

/// A row.
struct RowObject<'s, 'a>(&'s mut State<'a>);

impl<'de> DeserializeSeed<'de> for RowObject<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.0.at.renew();
        let line = self.0.at.line.get();
        let object = Object::deserialize(deserializer)?;
        self.0.rows.row(&object, line).or_else(|error| self.0.fail(error))
    }
}

/// The members of an object, one of which holds the rows.
struct Members<'s, 'a>(&'s mut State<'a>);

impl<'de> de::Visitor<'de> for Members<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(name) = members.next_key::<String>()? {
            self.0.at.renew();
            members.next_value_seed(Member { state: &mut *self.0, name })?;
        }
        match &self.0.found {
            Some(_) => Ok(()),
            None => self.0.refuse("an object without an array of objects: give JSON lines, or an array".into()),
        }
    }
}

/// One member: rows where it is an array of objects, else passed over.
struct Member<'s, 'a> {
    state: &'s mut State<'a>,
    name: String,
}

impl<'de> DeserializeSeed<'de> for Member<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> de::Visitor<'de> for Member<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        let line = self.state.at.line.get();
        let Some(first) = array.next_element::<Value>()? else { return Ok(()) };
        let Value::Object(first) = first else {
            while array.next_element::<IgnoredAny>()?.is_some() {
                self.state.at.renew();
            }
            return Ok(());
        };
        if let Some(earlier) = &self.state.found {
            let message = format!("two arrays of rows, `{earlier}` and `{}`: give each a file of its own", self.name);
            return self.state.refuse(message);
        }
        self.state.found = Some(self.name);
        self.state.rows.row(&first, line).or_else(|error| self.state.fail(error))?;
        RowArray(self.state).visit_seq(array)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            self.state.at.renew();
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_tells_the_layout() {
        for (text, expected) in [
            ("{\"a\": 1}\n{\"a\": 2}\n", Layout::Lines),
            ("{\"a\": [{\"b\": 1}]}\n{\"a\": []}\n", Layout::Lines),
            ("\u{feff}\n [\n{\"a\": 1}]", Layout::Array),
            ("{\"version\": 1, \"data\": [{\"a\": 1}]}", Layout::Member),
            ("{\n  \"data\": [\n    {\"a\": 1}\n  ]\n}", Layout::Member),
            ("{\"note\": \"x [{\\\" \", \"data\": [{\"a\": 1", Layout::Member),
            ("{\"text\": \"long [{\\\" \", \"b\": {\"c\": [{", Layout::Lines),
            ("{\"a\": 1,,}", Layout::Lines),
            ("", Layout::Lines),
        ] {
            assert_eq!(layout(text.as_bytes()), expected, "{text}");
        }
    }
}
