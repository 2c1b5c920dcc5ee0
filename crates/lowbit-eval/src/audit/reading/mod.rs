//! A report as its reader sees it: tables with known columns, blocks of keys and values, sentences under headings.

mod blocks;
mod delimited;
mod html;
mod layout;
mod markdown;
pub(crate) mod names;

use super::facts::Facts;
use super::figure::{Dimension, Figure, Unit, figures, unit};
use super::quantity::{self, Quantity};
use crate::Error;
use names::Names;
use std::path::Path;

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Syntax {
    /// Markdown, and plain text with its tables and lists.
    Markdown,
    /// HTML.
    Html,
    /// Rows of fields, and what is between them.
    Delimited(u8),
}

impl Syntax {
    /// By the name of the file, else by its first characters.
    pub(crate) fn of(path: &Path, text: &str) -> Self {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_lowercase();
        match extension.as_str() {
            "csv" => Syntax::Delimited(b','),
            "tsv" => Syntax::Delimited(b'\t'),
            "html" | "htm" | "xhtml" => Syntax::Html,
            "md" | "markdown" | "txt" | "text" | "rst" => Syntax::Markdown,
            _ if text.trim_start().starts_with("<!") || text.trim_start().starts_with("<html") => Syntax::Html,
            _ => Syntax::Markdown,
        }
    }
}

/// A cell of a table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    pub(crate) text: String,
    /// Line of the file, from 1.
    pub(crate) line: usize,
    pub(crate) figures: Vec<Figure>,
}

impl Cell {
    pub(crate) fn new(text: &str, line: usize) -> Self {
        Cell { text: text.trim().into(), line, figures: figures(text) }
    }

    /// The first number.
    pub(crate) fn figure(&self) -> Option<&Figure> {
        self.figures.first()
    }
}

/// A column of a table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Column {
    pub(crate) title: String,
    /// Words above the title: the heading of a group of columns.
    pub(crate) group: String,
    pub(crate) unit: Option<Unit>,
    pub(crate) quantity: Option<Quantity>,
    /// What most of its numbers measure.
    pub(crate) dimension: Option<Dimension>,
}

impl Column {
    pub(crate) fn new(title: &str, group: &str) -> Self {
        Column { title: title.trim().into(), group: group.into(), unit: unit_of(title), ..Column::default() }
    }
}

/// The unit in the parentheses of a title, or at its end.
fn unit_of(title: &str) -> Option<Unit> {
    let inside = title.rfind('(').and_then(|at| title[at + 1..].split(')').next());
    inside.and_then(|text| unit(text.trim())).or_else(|| {
        let last = title.split([' ', ',']).next_back()?;
        (last != title && last.len() > 1).then(|| unit(last)).flatten()
    })
}

/// A row of a table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// The data set or part that it is about, where that is not its name.
    pub(crate) part: String,
    pub(crate) line: usize,
    /// As many as there are columns.
    pub(crate) cells: Vec<Option<Cell>>,
}

impl Row {
    pub(crate) fn cell(&self, column: usize) -> Option<&Cell> {
        self.cells.get(column)?.as_ref()
    }

    pub(crate) fn figure(&self, column: usize) -> Option<&Figure> {
        self.cell(column)?.figure()
    }

    /// The line of a cell, or of the row.
    pub(crate) fn line_of(&self, column: usize) -> usize {
        self.cell(column).map_or(self.line, |cell| cell.line)
    }

    /// Number of parameters that its name or a cell tells, with the figure.
    pub(crate) fn parameters(&self) -> Option<(f64, String)> {
        let counts = |f: &&Figure| matches!(f.dimension, Dimension::Count | Dimension::Shape) && f.value() > 0.0;
        let name = figures(&self.name);
        let cells = self.cells.iter().flatten().flat_map(|c| &c.figures);
        let found = name.iter().chain(cells).find(counts)?;
        Some((found.value(), found.text.clone()))
    }
}

/// A table, or blocks of equal keys under several titles.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    /// Place in [`Reading::sections`].
    pub(crate) section: Option<usize>,
    /// Headings above it, the nearest last, and its caption.
    pub(crate) title: String,
    pub(crate) line: usize,
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<Row>,
}

impl Table {
    /// Columns of a quantity.
    pub(crate) fn of(&self, quantity: Quantity) -> Vec<usize> {
        (0..self.columns.len()).filter(|i| self.columns[*i].quantity == Some(quantity)).collect()
    }

    /// Numbers take the units of their columns, and columns their quantities.
    fn understood(mut self) -> Self {
        for i in 0..self.columns.len() {
            let unit = self.columns[i].unit;
            for cell in self.rows.iter_mut().filter_map(|row| row.cells.get_mut(i)?.as_mut()) {
                cell.figures = std::mem::take(&mut cell.figures).into_iter().map(|f| f.with(unit)).collect();
            }
            let all: Vec<Dimension> = self.rows.iter().filter_map(|row| Some(row.figure(i)?.dimension)).collect();
            let most = all.iter().copied().max_by_key(|d| all.iter().filter(|other| *other == d).count());
            let column = &mut self.columns[i];
            column.dimension = most;
            let heading = format!("{} {}", self.title, column.group);
            column.quantity = quantity::of_column(&column.title, most, &heading);
        }
        self
    }

    /// Rows become columns where the first column holds quantities and the first line what is compared.
    fn upright(self) -> Self {
        let metric = |title: &str| quantity::of_column(title, None, "").is_some();
        let first = self.columns.first().map(|c| c.title.to_lowercase()).unwrap_or_default();
        let names = self.rows.iter().filter(|row| metric(&row.name)).count();
        let titles = self.columns.iter().skip(1).filter(|c| metric(&c.title) || c.unit.is_some()).count();
        let says = ["metric", "metrics", "measure", "quantity", "property"].contains(&first.as_str());
        if titles > 0 || names < 2 || !(says || names * 4 >= self.rows.len() * 3) || self.columns.len() < 2 {
            return self;
        }
        let columns = std::iter::once(Column::new("", "")).chain(self.rows.iter().map(|r| Column::new(&r.name, "")));
        let columns: Vec<Column> = columns.collect();
        let rows = self.columns.iter().enumerate().skip(1).map(|(i, column)| {
            let name = Cell::new(&column.title, self.line);
            let cells = std::iter::once(Some(name)).chain(self.rows.iter().map(|r| r.cell(i).cloned()));
            Row { name: column.title.clone(), part: String::new(), line: self.line, cells: cells.collect() }
        });
        Table { rows: rows.collect(), columns, ..self }
    }
}

/// A heading.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub(crate) line: usize,
    pub(crate) level: usize,
    pub(crate) title: String,
    /// Place of the heading above it.
    pub(crate) parent: Option<usize>,
}

/// A sentence, or the text of a list item or of a cell with advice.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sentence {
    pub(crate) line: usize,
    pub(crate) text: String,
    pub(crate) lower: String,
    pub(crate) section: Option<usize>,
    pub(crate) figures: Vec<Figure>,
    /// The row whose cell it is.
    pub(crate) row: Option<String>,
}

impl Sentence {
    pub(crate) fn has(&self, words: &[&str]) -> bool {
        words.iter().any(|word| contains_word(&self.lower, word))
    }
}

/// Whether a text holds words as whole words.
pub(crate) fn contains_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, found)| {
        let edge = |c: Option<char>| !c.is_some_and(char::is_alphanumeric);
        edge(text[..at].chars().next_back()) && edge(text[at + found.len()..].chars().next())
    })
}

/// A report that was read.
pub(crate) struct Reading {
    /// The lines of the file.
    pub(crate) lines: Vec<String>,
    /// The same as a reader sees them, without markup.
    pub(crate) plain: Vec<String>,
    pub(crate) sections: Vec<Section>,
    pub(crate) tables: Vec<Table>,
    pub(crate) sentences: Vec<Sentence>,
    pub(crate) names: Names,
    pub(crate) facts: Facts,
}

/// What a syntax gives before its parts are understood.
#[derive(Default)]
struct Raw {
    /// Lines without markup; those of tables and rules are empty.
    plain: Vec<String>,
    /// Lines inside a code block.
    code: Vec<bool>,
    /// Headings: line and level.
    headings: Vec<(usize, usize)>,
    tables: Vec<Table>,
}

impl Reading {
    /// Reads a report.
    ///
    /// # Errors
    /// When its rows of fields cannot be read.
    pub(crate) fn new(text: &str, syntax: Syntax, facts: Facts) -> Result<Self, Error> {
        let raw = match syntax {
            Syntax::Markdown => markdown::read(text),
            Syntax::Html => html::read(text),
            Syntax::Delimited(by) => delimited::read(text, by)?,
        };
        let lines: Vec<String> = text.lines().map(String::from).collect();
        let sections = layout::sections(&raw);
        let mut tables: Vec<Table> = raw.tables.iter().map(|table| layout::place(table.clone(), &sections)).collect();
        tables.extend(blocks::read(&raw, &sections));
        let tables: Vec<Table> = tables.into_iter().map(|table| table.upright().understood()).collect();
        let sentences = layout::sentences(&raw, &sections, &tables);
        let names = Names::of(&tables, &raw.plain, &facts);
        Ok(Reading { lines, plain: raw.plain, sections, tables, sentences, names, facts })
    }

    /// The sections from one outwards.
    pub(crate) fn path(&self, section: Option<usize>) -> Vec<usize> {
        let mut out = Vec::new();
        let mut at = section;
        while let Some(i) = at {
            out.push(i);
            at = self.sections[i].parent;
        }
        out
    }

    /// Tables of the innermost section around a place that has some of which `keep` holds; else all of them.
    pub(crate) fn near(&self, section: Option<usize>, keep: impl Fn(&Table) -> bool) -> Vec<&Table> {
        for around in self.path(section) {
            // The title of a document holds everything.
            let inside = |t: &&Table| self.path(t.section).contains(&around) && keep(t);
            let found: Vec<&Table> = self.tables.iter().filter(inside).collect();
            if !found.is_empty() && self.sections[around].level > 1 {
                return found;
            }
        }
        self.tables.iter().filter(|t| keep(t)).collect()
    }

    /// Whether one of several texts occurs anywhere, in lower case; a text of letters as a whole word.
    pub(crate) fn says(&self, words: &[&str]) -> bool {
        self.lines.iter().any(|line| {
            let line = line.to_lowercase();
            let word = |word: &str| word.chars().all(char::is_alphabetic);
            words.iter().any(|w| if word(w) { contains_word(&line, w) } else { line.contains(w) })
        })
    }
}
