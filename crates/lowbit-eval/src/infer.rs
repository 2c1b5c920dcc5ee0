//! Columns and classes of a table that nobody described.

use crate::Error;
use crate::read::{self, Column, First, Limits, Projection, Source, Visitor, abridged};
use serde_json::Value;
use std::collections::HashMap;

/// Names that a column of classes usually has.
const LABELS: &[&str] =
    &["label", "labels", "class", "category", "target", "sentiment", "topic", "intent", "kind", "y"];
/// Distinct values of a column that are counted.
const DISTINCT: usize = 1000;
/// Distinct values of a column of classes without a usual name.
const CLASSES: usize = 50;
/// Characters of a class at most.
const LONGEST: usize = 100;

/// What the columns of a table are.
#[derive(Clone, Debug, PartialEq)]
pub struct Inferred {
    /// The columns of the text.
    pub text: Vec<Column>,
    /// The column of the class, or of the value.
    pub label: Column,
    /// The classes: numbers by value, then names by spelling; none where the column holds values.
    pub classes: Vec<String>,
    /// Rows of the table.
    pub rows: usize,
    /// Whether the first line names the columns.
    pub header: bool,
}

/// What the values of a column are like.
#[derive(Clone, Debug, Default)]
struct Profile {
    name: String,
    /// The value of the first record.
    first: String,
    /// Distinct values and how often each occurs, up to [`DISTINCT`].
    values: HashMap<String, usize>,
    /// There are more.
    many: bool,
    characters: usize,
    numbers: usize,
}

impl Profile {
    fn add(&mut self, value: &str) {
        self.characters += value.chars().count();
        self.numbers += usize::from(is_number(value));
        if self.values.len() < DISTINCT || self.values.contains_key(value) {
            *self.values.entry(value.into()).or_insert(0) += 1;
        } else {
            self.many = true;
        }
    }

    fn has_usual_name(&self) -> bool {
        LABELS.contains(&self.name.to_lowercase().as_str())
    }

    /// Whether all are numbers, more different ones than classes usually are.
    fn may_be_value(&self, rows: usize) -> bool {
        rows > 0 && self.numbers == rows && (self.many || self.values.len() > CLASSES)
    }

    /// Whether the values may be classes: several, each of a few characters, and fewer than half of the rows.
    fn may_be_class(&self, rows: usize) -> bool {
        let short = self.values.keys().all(|value| !value.is_empty() && value.chars().count() <= LONGEST);
        !self.many && short && self.values.len() >= 2 && self.values.len() * 2 <= rows
    }
}

fn is_number(value: &str) -> bool {
    value.trim().parse::<f64>().is_ok()
}

/// Reads all rows of a source.
#[derive(Default)]
struct Reader {
    columns: Vec<Profile>,
    is_line: bool,
    rows: usize,
}

impl Visitor for Reader {
    fn begin(&mut self, first: &First) -> Result<Projection, Error> {
        self.is_line = first.is_line;
        let name = |name: &String| Profile { name: name.clone(), ..Profile::default() };
        self.columns = first.fields.iter().map(name).collect();
        let by_place =
            |(at, name): (usize, &String)| if first.is_line { Column::Index(at) } else { Column::Name(name.clone()) };
        let columns = first.fields.iter().enumerate().map(by_place).collect();
        Ok(Projection { columns, header: false, optional: true })
    }

    fn row(&mut self, _: Option<u64>, values: Vec<Value>) -> Result<(), Error> {
        for (column, value) in self.columns.iter_mut().zip(values) {
            let value = match value {
                Value::String(text) => text,
                Value::Null => String::new(),
                other => other.to_string(),
            };
            match self.rows == 0 && self.is_line {
                true => column.first = value,
                false => column.add(value.trim()),
            }
        }
        self.rows += 1;
        Ok(())
    }
}

impl Reader {
    /// Decides whether the first line was a header, and counts it as a row when it was none.
    fn settle(&mut self) -> bool {
        if !self.is_line {
            return false;
        }
        let distinct = |column: &Profile| self.columns.iter().filter(|other| other.first == column.first).count() == 1;
        let names = |column: &Profile| {
            let first = column.first.trim();
            !first.is_empty() && !is_number(first) && !column.values.contains_key(first)
        };
        let header = self.columns.iter().all(|column| names(column) && distinct(column));
        for (at, column) in self.columns.iter_mut().enumerate() {
            let first = std::mem::take(&mut column.first);
            if header {
                column.name = first;
            } else {
                column.name = at.to_string();
                column.add(first.trim());
            }
        }
        self.rows -= usize::from(header);
        header
    }

    /// A column as a task names it.
    fn column(&self, at: usize, header: bool) -> Column {
        if self.is_line && !header { Column::Index(at) } else { Column::Name(self.columns[at].name.clone()) }
    }

    fn place(&self, column: &Column) -> Option<usize> {
        match column {
            Column::Index(at) => Some(*at).filter(|at| *at < self.columns.len()),
            Column::Name(name) => self.columns.iter().position(|column| column.name == *name),
        }
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|column| column.name.as_str()).collect();
        abridged(names.into_iter())
    }

    /// The column of classes: of a usual name, else the only one whose values may be classes; else the one of numbers of a usual
    /// name.
    fn label(&self, text: &[usize]) -> Option<usize> {
        let free = |at: &usize| !text.contains(at) && self.columns[*at].may_be_class(self.rows);
        let candidates: Vec<usize> = (0..self.columns.len()).filter(free).collect();
        let usual = candidates.iter().find(|at| self.columns[**at].has_usual_name());
        let few: Vec<&usize> = candidates.iter().filter(|at| self.columns[**at].values.len() <= CLASSES).collect();
        let value = |at: &usize| {
            let column = &self.columns[*at];
            !text.contains(at) && column.has_usual_name() && column.may_be_value(self.rows)
        };
        match (usual, &few[..]) {
            (Some(at), _) => Some(*at),
            (None, [only]) => Some(**only),
            _ => (0..self.columns.len()).find(value),
        }
    }

    /// The column with the longest texts that is no number.
    fn text(&self, label: usize) -> Option<usize> {
        let is_text = |at: &usize| *at != label && self.columns[*at].numbers * 2 < self.rows;
        (0..self.columns.len()).filter(is_text).max_by_key(|at| (self.columns[*at].characters, usize::MAX - at))
    }
}

/// Finds the columns of text and class of a source, where they are not given, and the classes.
///
/// # Errors
/// When the source cannot be read, a column is not there, or the choice is open; names the file and its columns.
pub fn infer(source: &Source, text: &[Column], label: Option<&Column>) -> Result<Inferred, Error> {
    let mut reader = Reader::default();
    read::visit(source, &Limits::default(), &mut reader)?;
    let header = reader.settle();
    let fail = |message: String| Error::input(source.name(), format!("{message}; the table has {}", reader.names()));
    if reader.rows == 0 {
        return Err(Error::input(source.name(), "no rows: it is empty or holds only a header"));
    }
    let place = |flag: &str, column: &Column| {
        reader.place(column).ok_or_else(|| fail(format!("no column {column}, which {flag} names")))
    };
    let given: Vec<usize> = text.iter().map(|column| place("--text", column)).collect::<Result<_, _>>()?;
    let label = match label {
        Some(column) => place("--label", column)?,
        None => reader
            .label(&given)
            .ok_or_else(|| fail("which column holds the class? Name it with --label COLUMN".into()))?,
    };
    let text = match given.is_empty() {
        false => given,
        true => {
            vec![reader.text(label).ok_or_else(|| fail("no column holds text: name it with --text COLUMN".into()))?]
        }
    };
    let column = &reader.columns[label];
    if column.may_be_value(reader.rows) {
        return Ok(Inferred {
            text: text.iter().map(|at| reader.column(*at, header)).collect(),
            label: reader.column(label, header),
            classes: Vec::new(),
            rows: reader.rows,
            header,
        });
    }
    if column.many || column.values.len() < 2 || column.values.contains_key("") {
        let found = match (column.many, column.values.len()) {
            (true, _) => format!("more than {DISTINCT} values"),
            (false, n) if n < 2 => "one value".into(),
            _ => "empty fields".into(),
        };
        return Err(fail(format!(
            "column {} has {found}, which makes no classes: name another with --label",
            column.name
        )));
    }
    let mut classes: Vec<String> = column.values.keys().cloned().collect();
    let number = |class: &String| class.parse::<f64>().unwrap_or(f64::INFINITY);
    classes.sort_by(|a, b| number(a).total_cmp(&number(b)).then(a.cmp(b)));
    Ok(Inferred {
        text: text.iter().map(|at| reader.column(*at, header)).collect(),
        label: reader.column(label, header),
        classes,
        rows: reader.rows,
        header,
    })
}
