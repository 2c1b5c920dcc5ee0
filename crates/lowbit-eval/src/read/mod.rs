//! Rows with or without what is right from CSV, TSV, JSON lines, Parquet, IDX and text files, optionally compressed, and from folders of
//! images.
//!
//! Every refusal names the file, the line (the row in Parquet), the value, and what would be right.

mod budget;
mod cifar;
mod delimited;
mod idx;
pub mod images;
mod json;
mod parquet;
mod rows;
mod share;
mod source;
mod template;
mod text;

pub use budget::{Budget, Exceeded};
pub use lowbit_model::Column;
pub(crate) use rows::{Admitted, plain};
pub use rows::{Rows, Targets, overlap};
pub use share::Share;
pub use template::Template;
pub use text::bytes;

use crate::error::Error;
use rows::Sink;
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// How a file is laid out inside its compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Comma-separated, quoted with `"` (RFC 4180); another delimiter is found.
    Csv,
    /// Tab-separated, not quoted; another delimiter is found.
    Tsv,
    /// JSON objects: one a line, or in an array.
    Jsonl,
    /// Apache Parquet, flat columns.
    Parquet,
    /// Arrays of bytes as MNIST has them: images in one file, their labels in another.
    Idx,
    /// Images of 32 x 32 pixels as CIFAR-10 has them in its binary version, in a file or in the parts of a directory; never told by a name.
    Cifar,
    /// PNG and JPEG files: a folder per class, or files whose class is asked for.
    Images,
    /// Plain text: one column, `text`, and a row a line.
    Text,
}

/// Every format with the file name extensions that stand for it.
pub static FORMATS: &[(Format, &[&str])] = &[
    (Format::Csv, &["csv"]),
    (Format::Tsv, &["tsv"]),
    (Format::Jsonl, &["jsonl", "ndjson", "json"]),
    (Format::Parquet, &["parquet"]),
    (Format::Idx, &["idx3-ubyte"]),
    (Format::Cifar, &[]),
    (Format::Images, images::ENDINGS),
    (Format::Text, &["txt"]),
];

/// The formats of tables by name.
pub static TABLES: &[(&str, Format)] = &[
    ("csv", Format::Csv),
    ("tsv", Format::Tsv),
    ("jsonl", Format::Jsonl),
    ("parquet", Format::Parquet),
    ("text", Format::Text),
];

/// Where records are and how they are laid out, whatever their columns mean.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The file; standard input when absent.
    pub path: Option<PathBuf>,
    /// Layout; by extension (before one of `.gz`, `.zst`, `.xz`) when absent.
    pub format: Option<Format>,
    /// What separates the fields of a delimited file; by default a comma or a tab, or what the beginning of the file shows.
    pub delimiter: Option<char>,
    /// Fields of a delimited file may be quoted; by default they are, but where tabs separate them.
    pub quoting: Option<bool>,
}

impl Source {
    /// What messages call it.
    pub fn name(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new("standard input"))
    }

    /// Its layout.
    ///
    /// # Errors
    /// When neither the name nor the caller tells.
    pub fn format(&self) -> Result<Format, Error> {
        self.format.map_or_else(|| format_of(self.name()), Ok)
    }
}

/// What is known of the columns before the first row.
#[derive(Clone, Debug)]
pub struct First {
    /// Names in an object or a schema, or the fields of the first line of a delimited file.
    pub fields: Vec<String>,
    /// Whether the fields are the first line of a delimited file, a header or a row.
    pub is_line: bool,
}

/// Which columns are read.
#[derive(Clone, Debug)]
pub struct Projection {
    /// The columns, in the order of the values of a row.
    pub columns: Vec<Column>,
    /// Whether the first line of a delimited file names the columns.
    pub header: bool,
    /// Whether a field that an object lacks is null, instead of a fault.
    pub optional: bool,
}

/// Takes the records of a source.
pub trait Visitor {
    /// Chooses columns.
    ///
    /// # Errors
    /// An error ends the reading; so it does for rows.
    fn begin(&mut self, first: &First) -> Result<Projection, Error>;

    /// Takes the values of the projected columns of a record. `line` is where it begins (`None`: the format has no lines).
    ///
    /// # Errors
    /// See [`Visitor::begin`].
    fn row(&mut self, line: Option<u64>, values: Vec<Value>) -> Result<(), Error>;

    /// Takes what was assumed of the source, one sentence.
    fn note(&mut self, _text: String) {}
}

/// One file and the meaning of its columns.
#[derive(Clone, Debug)]
pub struct Table {
    /// The file.
    pub path: PathBuf,
    /// Layout; by extension (after one of `.gz`, `.zst`, `.xz`) when absent.
    pub format: Option<Format>,
    /// The first line of a delimited file names the columns.
    pub header: bool,
    /// What separates the fields of a delimited file; by default a comma or a tab, or what the beginning of the file shows.
    pub delimiter: Option<char>,
    /// Fields of a delimited file may be quoted; by default they are, but where tabs separate them.
    pub quoting: Option<bool>,
    /// What the input is made of.
    pub input: Input,
    /// Columns of the input: texts are joined with one space, the two of a pair with the separator. None for images.
    pub columns: Vec<Column>,
    /// What stands between the two texts of a pair.
    pub separator: String,
    /// What is right.
    pub target: Target,
    /// Column of the target.
    pub target_column: Column,
    /// The file of the targets, where they are not a column ([`Format::Idx`]).
    pub labels: Option<PathBuf>,
}

/// What an input is made of.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Words.
    Text,
    /// Two texts, of which the second is held against the first.
    Pair,
    /// A number from each column; an empty field is unknown.
    Features,
    /// Pixels, 0 to 1.
    Image,
    /// The same of image files, scaled.
    ImageFile(images::ImageSize),
    /// A whole file, or a share of it.
    Bytes(Share),
    /// A text that a template makes of columns.
    Prompt(Prompt),
}

/// What makes the prompt of a row, and what may follow it.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// The prompt. Its field `text` stands for the columns of the input, joined, where there are any.
    pub template: Template,
    /// Columns of the texts of which one is to be chosen; none where every row has the same.
    pub choices: Vec<Column>,
}

/// The field of a prompt that stands for the columns of the input.
pub(crate) const TEXT: &str = "text";

/// What is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One of a fixed list.
    Class {
        /// What the file calls each class, in class order (`["1", "2"]`: the label `1` is class 0).
        labels: Vec<String>,
    },
    /// A number.
    Value,
    /// The token that follows each token of the input itself.
    NextToken,
    /// A text.
    Text,
}

/// Bounds on what one file may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of content, and of the rows that are made of it.
    pub bytes: u64,
    /// Bytes of one line, or of one quoted record over several lines.
    pub line: u64,
    /// Rows.
    pub rows: u64,
}

impl Format {
    /// Whether its rows are images.
    pub fn holds_images(self) -> bool {
        matches!(self, Format::Idx | Format::Cifar)
    }
}

impl Default for Limits {
    /// 2 GiB, 16 MiB a line, 16,777,216 rows.
    fn default() -> Self {
        Limits { bytes: 2 << 30, line: 16 << 20, rows: 1 << 24 }
    }
}

impl Table {
    fn source(&self) -> Source {
        Source { path: Some(self.path.clone()), format: self.format, delimiter: self.delimiter, quoting: self.quoting }
    }

    /// Values that fields of the input may have: numbers may be missing.
    fn admitted(&self) -> Admitted {
        match self.input {
            Input::Features | Input::Image | Input::ImageFile(_) => Admitted::Optional,
            Input::Prompt(_) => Admitted::Number,
            Input::Text | Input::Pair | Input::Bytes(_) => Admitted::Word,
        }
    }

    /// The columns of which the input is made, those of a prompt once each.
    fn input_columns(&self) -> Vec<Column> {
        let mut columns = self.columns.clone();
        if let Input::Prompt(prompt) = &self.input {
            for column in prompt.template.fields().chain(&prompt.choices) {
                if !self.is_text(column) && !columns.contains(column) {
                    columns.push(column.clone());
                }
            }
        }
        columns
    }

    /// Whether a field of a prompt stands for the columns of the input.
    fn is_text(&self, field: &Column) -> bool {
        !self.columns.is_empty() && *field == Column::Name(TEXT.into())
    }
}

/// Reads a whole table. A file that has no rows is refused.
///
/// # Errors
/// Names file, line (row in Parquet), value and remedy.
pub fn read(table: &Table, limits: &Limits) -> Result<Rows, Error> {
    read_with_notes(table, limits).map(|(rows, _)| rows)
}

/// [`read`], and what was assumed of the file, a sentence each.
///
/// # Errors
/// As [`read`].
pub fn read_with_notes(table: &Table, limits: &Limits) -> Result<(Rows, Vec<String>), Error> {
    let read = || {
        let mut sink = Sink::new(table)?;
        if let Input::Bytes(share) = table.input {
            sink.content(share.of(text::bytes(&table.path, limits)?));
            return sink.finish();
        }
        if let Input::ImageFile(size) = table.input {
            images::read(table, size, limits, &mut sink)?;
            return sink.finish();
        }
        match table.source().format()? {
            Format::Idx => idx::read(table, limits, &mut sink)?,
            Format::Cifar => cifar::read(table, limits, &mut sink)?,
            _ => records(&table.source(), limits, &mut sink)?,
        }
        sink.finish()
    };
    read().map_err(printable)
}

/// Shows all records of a source to a visitor.
///
/// # Errors
/// Names file, line (row in Parquet) and value; those of the visitor.
pub fn visit(source: &Source, limits: &Limits, visitor: &mut dyn Visitor) -> Result<(), Error> {
    records(source, limits, visitor).map_err(printable)
}

fn records(source: &Source, limits: &Limits, visitor: &mut dyn Visitor) -> Result<(), Error> {
    let budget = match &source.path {
        Some(path) => Budget::of_file(path, limits.bytes),
        None => Budget::of_stream(limits.bytes),
    };
    if source.format()? == Format::Images {
        return images::visit(source, visitor);
    }
    let visitor = &mut Counted { visitor, name: source.name(), budget, limits, rows: 0 };
    match source.format()? {
        Format::Csv => delimited::read(source, ',', limits, visitor),
        Format::Tsv => delimited::read(source, '\t', limits, visitor),
        Format::Jsonl => json::read(source, limits, visitor),
        Format::Parquet => parquet::read(source, limits, visitor),
        Format::Text => text::read(source, limits, visitor),
        Format::Idx | Format::Cifar | Format::Images => {
            Err(Error::input(source.name(), "holds images, no table of columns"))
        }
    }
}

/// Bytes that a row takes beside its values, and a value beside its text.
const ROW: u64 = 48;
const VALUE: u64 = 4;

/// Times that a column may be read: as input and as target.
const TIMES: u32 = 2;

/// Counts what a visitor is shown.
struct Counted<'a> {
    visitor: &'a mut dyn Visitor,
    name: &'a Path,
    budget: Budget,
    limits: &'a Limits,
    rows: u64,
}

impl Visitor for Counted<'_> {
    fn begin(&mut self, first: &First) -> Result<Projection, Error> {
        let projection = self.visitor.begin(first)?;
        let mut times = HashMap::new();
        for column in &projection.columns {
            let times = times.entry(column).or_insert(0);
            *times += 1;
            if *times > TIMES {
                return Err(Error::usage(format!("column {column} is named {times} times: name it once")));
            }
        }
        Ok(projection)
    }

    fn row(&mut self, line: Option<u64>, values: Vec<Value>) -> Result<(), Error> {
        let text = |value: &Value| value.as_str().map_or(0, |text| text.len() as u64);
        let bytes = values.iter().map(|value| VALUE + text(value)).sum::<u64>();
        let taken = self.budget.take(ROW + bytes).map_err(Error::from);
        self.rows += 1;
        let taken = taken.and_then(|()| match self.rows > self.limits.rows {
            true => Err(Error::memory(format!("more than {} rows, the limit for one table", self.limits.rows))),
            false => Ok(()),
        });
        taken.map_err(|error| error.in_file(self.name).on_line(line))?;
        self.visitor.row(line, values)
    }

    fn note(&mut self, text: String) {
        self.visitor.note(one_line(&text));
    }
}

fn printable(error: Error) -> Error {
    Error { message: one_line(&error.message), ..error }
}

/// Control characters, which a message may quote from the file, escaped.
fn one_line(message: &str) -> String {
    let escaped = |c: char| {
        if c.is_control() { c.escape_default().collect() } else { c.to_string() }
    };
    message.chars().map(escaped).collect()
}

/// The first names of a list, quoted and cut to 40 characters each, and how many more there are.
pub(crate) fn abridged<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 20;
    let more = names.len().saturating_sub(SHOWN);
    let shown = names.take(SHOWN).map(|name| format!("{:?}", name.chars().take(40).collect::<String>()));
    let shown = shown.collect::<Vec<_>>().join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

/// Layout by extension, below the extension of a compression.
fn format_of(path: &Path) -> Result<Format, Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let plain = source::COMPRESSIONS.iter().find_map(|c| name.strip_suffix(c.extension)).unwrap_or(&name);
    let extension = plain.rsplit_once('.').map_or("", |(_, extension)| extension);
    let found = FORMATS.iter().find(|(_, extensions)| extensions.contains(&extension));
    let found = found.map(|(format, _)| *format).or(path.is_dir().then_some(Format::Images));
    found.ok_or_else(|| {
        let known: Vec<_> = FORMATS.iter().flat_map(|(_, extensions)| *extensions).map(|e| format!(".{e}")).collect();
        let message = format!("cannot tell the format by the name: expected {}, or set `format`", known.join(", "));
        Error::input(path, message)
    })
}
