//! Rows with what is right from CSV, TSV, JSON lines, Parquet and IDX files, optionally compressed.
//!
//! Every refusal names the file, the line (the row in Parquet), the value, and what would be right.

mod delimited;
mod idx;
mod jsonl;
mod parquet;
mod rows;
mod source;
mod text;

pub use rows::{Rows, Targets, overlap};
pub use text::bytes;

use crate::error::Error;
use rows::Sink;
use serde::Deserialize;
use std::fmt;
use std::path::{Path, PathBuf};

/// How a file is laid out inside its compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Comma-separated, quoted with `"` (RFC 4180).
    Csv,
    /// Tab-separated, not quoted.
    Tsv,
    /// One JSON object a line.
    Jsonl,
    /// Apache Parquet, flat columns.
    Parquet,
    /// Arrays of bytes as MNIST has them: images in one file, their labels in another.
    Idx,
}

/// Every format with the file name extensions that stand for it.
pub static FORMATS: &[(Format, &[&str])] = &[
    (Format::Csv, &["csv"]),
    (Format::Tsv, &["tsv"]),
    (Format::Jsonl, &["jsonl", "ndjson", "json"]),
    (Format::Parquet, &["parquet"]),
    (Format::Idx, &["idx3-ubyte"]),
];

/// One column of a table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Column {
    /// Position, from 0.
    Index(usize),
    /// Name in the header, the object or the schema.
    Name(String),
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Column::Index(index) => write!(f, "{index}"),
            Column::Name(name) => write!(f, "`{name}`"),
        }
    }
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
    /// Fields of a delimited file may be quoted; by default they are in CSV and not in TSV.
    pub quoting: Option<bool>,
    /// What the input is made of.
    pub input: Input,
    /// Columns of the input: texts are joined with one space. None for images.
    pub columns: Vec<Column>,
    /// What is right.
    pub target: Target,
    /// Column of the target.
    pub target_column: Column,
    /// The file of the targets, where they are not a column ([`Format::Idx`]).
    pub labels: Option<PathBuf>,
}

/// What an input is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Words.
    Text,
    /// A number from each column; an empty field is unknown.
    Features,
    /// Pixels, 0 to 1.
    Image,
}

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
}

/// Bounds on what one file may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes after decompression.
    pub bytes: u64,
    /// Bytes of one line, or of one quoted record over several lines.
    pub line: u64,
    /// Rows.
    pub rows: u64,
}

impl Default for Limits {
    /// 2 GiB, 16 MiB a line, 16,777,216 rows.
    fn default() -> Self {
        Limits { bytes: 2 << 30, line: 16 << 20, rows: 1 << 24 }
    }
}

impl Table {
    /// Whether fields of the input are numbers, which may be missing.
    fn is_numeric(&self) -> bool {
        self.input != Input::Text
    }
}

/// Reads a whole table. A file that has no rows is refused.
pub fn read(table: &Table, limits: &Limits) -> Result<Rows, Error> {
    read_rows(table, limits).map_err(|error| Error { message: one_line(&error.message), ..error })
}

/// Control characters, which a message may quote from the file, escaped.
fn one_line(message: &str) -> String {
    let escaped = |c: char| {
        if c.is_control() { c.escape_default().collect() } else { c.to_string() }
    };
    message.chars().map(escaped).collect()
}

/// The first names of a list, quoted and cut to 40 characters each, and how many more there are.
fn abridged<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 20;
    let more = names.len().saturating_sub(SHOWN);
    let shown = names.take(SHOWN).map(|name| format!("{:?}", name.chars().take(40).collect::<String>()));
    let shown = shown.collect::<Vec<_>>().join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

fn read_rows(table: &Table, limits: &Limits) -> Result<Rows, Error> {
    let mut sink = Sink::new(table, limits)?;
    let format = match table.format {
        Some(format) => format,
        None => format_of(&table.path)?,
    };
    match format {
        Format::Csv => delimited::read(table, ',', table.quoting.unwrap_or(true), limits, &mut sink)?,
        Format::Tsv => delimited::read(table, '\t', table.quoting.unwrap_or(false), limits, &mut sink)?,
        Format::Jsonl => jsonl::read(table, limits, &mut sink)?,
        Format::Parquet => parquet::read(table, limits, &mut sink)?,
        Format::Idx => idx::read(table, limits, &mut sink)?,
    }
    sink.finish()
}

/// Layout by extension, below the extension of a compression.
fn format_of(path: &Path) -> Result<Format, Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let plain = source::COMPRESSIONS.iter().find_map(|c| name.strip_suffix(c.extension)).unwrap_or(&name);
    let extension = plain.rsplit_once('.').map_or("", |(_, extension)| extension);
    let found = FORMATS.iter().find(|(_, extensions)| extensions.contains(&extension));
    found.map(|(format, _)| *format).ok_or_else(|| {
        let known: Vec<_> = FORMATS.iter().flat_map(|(_, extensions)| *extensions).map(|e| format!(".{e}")).collect();
        let message = format!("cannot tell the format by the name: expected {}, or set `format`", known.join(", "));
        Error::input(path, message)
    })
}
