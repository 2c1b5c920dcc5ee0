//! Which columns of a table are the input, and which are copied.

use super::Options;
use crate::Error;
use crate::read::{Admitted, Column, First, Source, plain};
use lowbit_model::{InputColumns, Inputs};
use serde_json::Value;

/// What is known beside the table.
pub(super) struct Choice<'a> {
    /// The columns the model was trained on.
    pub(super) trained_on: Option<&'a InputColumns>,
    pub(super) options: &'a Options,
    /// How many numbers the model reads of a row; none where it reads a text.
    pub(super) numbers: Option<usize>,
}

/// The columns of a table, and which of them are read.
pub(super) struct TableColumns {
    /// Names, or positions in a table without a header.
    names: Vec<String>,
    /// Places in the table of the values of a row.
    read: Vec<usize>,
    /// Places in a row of what makes the input; none before they are chosen.
    pub(super) text: Vec<usize>,
    /// What stands between the texts of several columns.
    separator: Option<String>,
    /// Whether the input is numbers.
    is_numeric: bool,
    /// Whether the first line names the columns.
    pub(super) header: bool,
    /// Whether there could be a header.
    is_line: bool,
    /// Whether the columns of the input are copied.
    keep: bool,
}

impl Choice<'_> {
    /// The columns to read, by their names or the first line; the text may remain open until rows are seen.
    pub(super) fn table(&self, first: &First, source: &Source) -> Result<TableColumns, Error> {
        let fields = &first.fields;
        let place = |column: &Column| match column {
            Column::Index(index) => Some(*index).filter(|index| *index < fields.len()),
            Column::Name(name) => fields.iter().position(|field| field == name),
        };
        let places = |columns: &[Column]| columns.iter().map(place).collect::<Option<Vec<usize>>>();
        let is_trained = |table: &&InputColumns| !table.columns.is_empty() && places(&table.columns).is_some();
        // Positions mean the same in a table of the same kind alone.
        let same = |table: &&InputColumns| first.is_line || table.has_names();
        let trained = self.trained_on.filter(is_trained).filter(same);
        let without = trained.is_some_and(|table| !table.header && !table.has_names());
        let header = first.is_line && self.options.header.unwrap_or(!(without && self.options.text.is_empty()));
        let names = match first.is_line && !header {
            true => (0..fields.len()).map(|at| at.to_string()).collect(),
            false => fields.clone(),
        };
        let trained = trained.filter(|table| header || !first.is_line || !table.has_names());
        let text = match (&self.options.text[..], trained) {
            ([], Some(table)) => places(&table.columns).unwrap_or_default(),
            ([], None) if fields.len() == 1 => vec![0],
            ([], None) => Vec::new(),
            (asked, _) => places(asked).ok_or_else(|| unknown(asked, &names, source))?,
        };
        if let Some(width) = self.numbers.filter(|width| *width != text.len()) {
            let (name, names) = (source.name().display(), listed(&names));
            let message = format!("the model reads {width} numbers of a row: name their columns with --columns A,B,..");
            return Err(Error::usage(format!("{name}: {message}; the table has {names}")));
        }
        let separator = trained.filter(|_| self.options.text.is_empty()).and_then(|table| table.separator.clone());
        let read: Vec<usize> = match self.options.keep || text.is_empty() {
            true => (0..names.len()).collect(),
            false => text.clone(),
        };
        let text = text.iter().filter_map(|at| read.iter().position(|place| place == at)).collect();
        Ok(TableColumns {
            names,
            read,
            text,
            separator,
            is_numeric: self.numbers.is_some(),
            header,
            is_line: first.is_line,
            keep: self.options.keep,
        })
    }
}

fn unknown(asked: &[Column], names: &[String], source: &Source) -> Error {
    let asked: Vec<String> = asked.iter().map(|column| column.to_string()).collect();
    Error::usage(format!("--text {}: {} has {}", asked.join(","), source.name().display(), listed(names)))
}

fn listed(names: &[String]) -> String {
    crate::read::abridged(names.iter().map(String::as_str))
}

impl TableColumns {
    /// The columns to read.
    pub(super) fn columns(&self) -> Vec<Column> {
        let by_position =
            |at: &usize| if self.is_line { Column::Index(*at) } else { Column::Name(self.names[*at].clone()) };
        self.read.iter().map(by_position).collect()
    }

    /// Names of the columns that are copied.
    pub(super) fn kept(&self) -> impl Iterator<Item = &str> {
        self.read.iter().filter(|_| self.keep).map(|at| self.names[*at].as_str())
    }

    /// Chooses the only column of text by its values, where the choice is open: one that holds more than numbers, truth
    /// values and names of classes.
    pub(super) fn choose<'a>(
        &mut self,
        rows: impl Iterator<Item = &'a [Value]> + Clone,
        labels: &[String],
        source: &Source,
    ) -> Result<(), Error> {
        if !self.text.is_empty() {
            return Ok(());
        }
        let is_text = |value: &Value| match value {
            Value::String(text) => {
                let text = text.trim();
                !text.is_empty() && text.parse::<f64>().is_err() && !labels.iter().any(|label| label == text)
            }
            _ => false,
        };
        let texts: Vec<usize> =
            (0..self.read.len()).filter(|at| rows.clone().any(|row| row.get(*at).is_some_and(is_text))).collect();
        match texts[..] {
            [only] => self.text = vec![only],
            _ => {
                let found = if texts.is_empty() { "no column holds text" } else { "several columns hold text" };
                let message = format!("{found}: name it with --text COLUMN; the table has {}", listed(&self.names));
                return Err(Error::input(source.name(), message));
            }
        }
        Ok(())
    }

    /// What was chosen, in words.
    pub(super) fn remark(&self, trained_on: Option<&InputColumns>) -> String {
        let names: Vec<String> = self.text.iter().map(|at| format!("`{}`", self.names[self.read[*at]])).collect();
        let columns = if names.len() == 1 { "column" } else { "columns" };
        let header = match (self.is_line, self.header) {
            (false, _) => "",
            (true, true) => ", the first line names the columns (--no-header: it is a row)",
            (true, false) if trained_on.is_some_and(|table| !table.header) => {
                ", the first line is a row as in the training data (--header: it names the columns)"
            }
            (true, false) => ", the first line is a row",
        };
        let what = if self.is_numeric { "numbers" } else { "text" };
        format!("{what}: {columns} {}{header}", names.join(", "))
    }

    /// The numbers of a row; what is null or empty is unknown.
    ///
    /// # Errors
    /// When a column holds something else; names it.
    pub(super) fn numbers_of(&self, values: &[Value]) -> Result<Vec<f32>, String> {
        let number = |at: &usize| {
            let column = Column::Name(self.names[self.read[*at]].clone());
            let text = plain(values.get(*at).cloned().unwrap_or_default(), &column, Admitted::Optional)?;
            match text.trim() {
                "" => Ok(f32::NAN),
                text => text.parse().ok().filter(|v: &f32| v.is_finite()).ok_or_else(|| {
                    format!("{:?} in column {column} is no number", text.chars().take(40).collect::<String>())
                }),
            }
        };
        self.text.iter().map(number).collect()
    }

    /// Adds the text of a row: its columns joined, or the pair that the model was trained on; what is null counts as empty.
    ///
    /// # Errors
    /// When a column holds a list or an object; names it.
    pub(super) fn text_of(&self, values: &[Value], inputs: &mut Inputs) -> Result<(), String> {
        let part = |at: &usize| {
            let column = Column::Name(self.names[self.read[*at]].clone());
            plain(values.get(*at).cloned().unwrap_or_default(), &column, Admitted::Optional)
        };
        let parts: Vec<String> = self.text.iter().map(part).collect::<Result<_, _>>()?;
        match (&parts[..], &self.separator, inputs) {
            ([first, second], Some(separator), inputs) => inputs.push_pair([first, second], separator),
            (parts, separator, Inputs::Texts(texts)) => texts.push(parts.join(separator.as_deref().unwrap_or(" "))),
            _ => unreachable!("all rows are of one kind"),
        }
        Ok(())
    }
}
