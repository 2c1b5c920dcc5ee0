//! CSV and TSV, and tables with other delimiters.

use super::source::{Head, Lines, SAMPLE};
use super::{Column, First, Limits, Projection, Source, Visitor, abridged};
use crate::error::Error;
use serde_json::Value;

pub(super) fn read(source: &Source, usual: char, limits: &Limits, visitor: &mut dyn Visitor) -> Result<(), Error> {
    let head = Head::open(source, limits, SAMPLE)?;
    let delimiter = source.delimiter.unwrap_or_else(|| sniffed(source, usual, head.sample(), visitor));
    let quoting = quoting(source, delimiter);
    let mut records = Records { source, lines: Lines::new(source, head, limits), delimiter, quoting };
    let Some((mut line, mut fields)) = records.next()? else {
        return Ok(());
    };
    let width = fields.len();
    let first = First { fields, is_line: true };
    let Projection { columns, header: has_header, .. } = visitor.begin(&first)?;
    fields = first.fields;
    let header = if has_header { std::mem::take(&mut fields) } else { Vec::new() };
    let place = |column: &Column| place(source, column, line, &header, width);
    let places: Vec<usize> = columns.iter().map(place).collect::<Result<_, _>>()?;
    if has_header {
        match records.next()? {
            Some(first) => (line, fields) = first,
            None => return Ok(()),
        }
    }
    loop {
        if fields.len() != width {
            let message = format!("{} columns where the first line has {width}: check the separators", fields.len());
            return Err(Error::input(source.name(), message).on_line(line));
        }
        visitor.row(Some(line), places.iter().map(|&column| Value::String(fields[column].clone())).collect())?;
        match records.next()? {
            Some(next) => (line, fields) = next,
            None => return Ok(()),
        }
    }
}

/// Whether fields may be quoted.
fn quoting(source: &Source, delimiter: char) -> bool {
    source.quoting.unwrap_or(delimiter != '\t')
}

/// Characters that separate fields.
const DELIMITERS: [char; 4] = [',', ';', '\t', '|'];
/// Records that tell the delimiter.
const SNIFFED: usize = 100;

/// The delimiter of a file: the usual one where it cuts every record of the sample into as many fields, at least two; else the one that
/// does so and makes most of them, of which the visitor gets a note; the usual one when there is none.
fn sniffed(source: &Source, usual: char, sample: &[u8], visitor: &mut dyn Visitor) -> char {
    let whole = (sample.len() as u64) < SAMPLE;
    let fields = |delimiter: char| width(sample, whole, delimiter, quoting(source, delimiter));
    if fields(usual).is_some() {
        return usual;
    }
    let others = DELIMITERS.iter().filter_map(|delimiter| Some((fields(*delimiter)?, *delimiter)));
    // The first among equals.
    let Some((fields, found)) = others.reduce(|best, other| if other.0 > best.0 { other } else { best }) else {
        return usual;
    };
    let name = source.name().display();
    visitor
        .note(format!("{name}: fields are taken to be separated by {found:?}, which cuts each record into {fields}"));
    found
}

/// Fields of every record of a sample, when all have as many and more than one, and there is more than one record.
fn width(sample: &[u8], whole: bool, delimiter: char, quoting: bool) -> Option<usize> {
    // Bytes that are not UTF-8 are reported with their line when they are read.
    let text = String::from_utf8_lossy(sample);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let (mut splitter, mut width, mut records) = (Splitter::new(delimiter), None, 0);
    let mut lines = text.split('\n').peekable();
    while let Some(line) = lines.next() {
        if records == SNIFFED || (lines.peek().is_none() && !whole) {
            break;
        }
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() && splitter.is_new() {
            continue;
        }
        let fields = match quoting {
            false => line.split(delimiter).count(),
            true => match splitter.feed(line) {
                Progress::Complete => std::mem::replace(&mut splitter, Splitter::new(delimiter)).fields.len(),
                Progress::Open => continue,
                Progress::Stray(_) => return None,
            },
        };
        if *width.get_or_insert(fields) != fields {
            return None;
        }
        records += 1;
    }
    width.filter(|width| *width > 1 && records > 1)
}

/// Index of a column among `width`, given the header or (without one) an empty slice.
fn place(source: &Source, column: &Column, line: u64, header: &[String], width: usize) -> Result<usize, Error> {
    let fail = |message: String| Err(Error::input(source.name(), message).on_line(line));
    match column {
        Column::Index(index) if *index < width => Ok(*index),
        Column::Index(index) => fail(format!("no column {index}: the line has {width}, counted from 0")),
        Column::Name(name) => match header.iter().position(|field| field == name) {
            Some(index) => Ok(index),
            None if header.is_empty() => {
                Err(Error::usage(format!("column `{name}` has a name, but the table is read with header = false")))
            }
            None => fail(format!("no column `{name}`: the header has {}", abridged(header.iter().map(String::as_str)))),
        },
    }
}

/// Splits lines into records.
struct Records<'a> {
    source: &'a Source,
    lines: Lines<'a>,
    delimiter: char,
    quoting: bool,
}

impl Records<'_> {
    /// The next record and the line it begins on; empty lines between records are passed over.
    fn next(&mut self) -> Result<Option<(u64, Vec<String>)>, Error> {
        let mut text = loop {
            match self.lines.next(0)? {
                None => return Ok(None),
                Some(text) if text.is_empty() => {}
                Some(text) => break text,
            }
        };
        let begin = self.lines.line;
        if !self.quoting {
            return Ok(Some((begin, text.split(self.delimiter).map(String::from).collect())));
        }
        let mut splitter = Splitter::new(self.delimiter);
        let mut used = 0;
        loop {
            match splitter.feed(&text) {
                Progress::Complete => return Ok(Some((begin, splitter.fields))),
                Progress::Stray(found) => {
                    let message = format!(
                        "{found:?} after the closing quote of column {}: double a quote inside a field",
                        splitter.fields.len()
                    );
                    return Err(Error::input(self.source.name(), message).on_line(self.lines.line));
                }
                Progress::Open => {}
            }
            used += text.len() as u64 + 1;
            text = self.lines.next(used).map_err(|error| self.unclosed(begin, error))?.ok_or_else(|| {
                let message = format!("quote of column {} is never closed", splitter.fields.len());
                Error::input(self.source.name(), message).on_line(begin)
            })?;
        }
    }

    /// A record over several lines is to blame on the line it begins on.
    fn unclosed(&self, begin: u64, error: Error) -> Error {
        let message = format!("{} (the record's quote opens on line {begin})", error.message);
        Error { message, ..error }
    }
}

enum State {
    Begin,
    Plain,
    Quoted,
    Closed,
}

enum Progress {
    /// The record ends with the line.
    Complete,
    /// A quote is open: the record goes on.
    Open,
    /// This character follows a closing quote.
    Stray(char),
}

/// State machine of RFC 4180; a quote inside an unquoted field is an ordinary character.
struct Splitter {
    delimiter: char,
    state: State,
    field: String,
    fields: Vec<String>,
}

impl Splitter {
    fn new(delimiter: char) -> Self {
        Splitter { delimiter, state: State::Begin, field: String::new(), fields: Vec::new() }
    }

    /// Whether no line of a record was fed.
    fn is_new(&self) -> bool {
        self.fields.is_empty() && self.field.is_empty() && matches!(self.state, State::Begin)
    }

    fn feed(&mut self, line: &str) -> Progress {
        for c in line.chars() {
            match self.state {
                State::Begin if c == '"' => self.state = State::Quoted,
                State::Begin | State::Plain | State::Closed if c == self.delimiter => self.end_field(),
                State::Begin | State::Plain => {
                    self.field.push(c);
                    self.state = State::Plain;
                }
                State::Quoted if c == '"' => self.state = State::Closed,
                State::Quoted => self.field.push(c),
                State::Closed if c == '"' => {
                    self.field.push(c);
                    self.state = State::Quoted;
                }
                State::Closed => return Progress::Stray(c),
            }
        }
        if matches!(self.state, State::Quoted) {
            self.field.push('\n');
            return Progress::Open;
        }
        self.end_field();
        Progress::Complete
    }

    fn end_field(&mut self) {
        self.fields.push(std::mem::take(&mut self.field));
        self.state = State::Begin;
    }
}
