//! The report as a tree that knows neither HTML nor Markdown: both are printed from it, so they cannot differ.

use super::charts::Chart;
use super::checks;
use super::query::Figure;
use super::sentence::{Finding, Sentence, Tone};
use std::collections::BTreeMap;

/// Printed where a value is unknown.
pub(crate) const MISSING: &str = "not measured";

/// One cell of a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Cell {
    /// Main text.
    pub(crate) text: String,
    /// Smaller second line: interval, unit, mark.
    pub(crate) note: String,
    /// Colour.
    pub(crate) tone: Option<Tone>,
    /// The value is unknown and `text` says so.
    pub(crate) missing: bool,
    /// Words in place of a number that does not apply, set small.
    pub(crate) quiet: bool,
    /// A number, set flush right.
    pub(crate) number: bool,
    /// 0..1 for the shade of a heat map.
    pub(crate) heat: Option<f64>,
    /// The query it answers.
    pub(crate) source: Option<Source>,
}

/// Where a printed number comes from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Source {
    /// Task of the record.
    pub(crate) task: String,
    /// What was asked of it.
    pub(crate) figure: Figure,
}

impl Cell {
    /// Words.
    pub(crate) fn words(text: impl Into<String>) -> Self {
        Cell { text: text.into(), ..Cell::default() }
    }

    /// A printed number, or [`MISSING`].
    pub(crate) fn number(text: Option<String>) -> Self {
        let missing = text.is_none();
        Cell { text: text.unwrap_or_else(|| MISSING.into()), missing, number: true, ..Cell::default() }
    }

    /// [`MISSING`], and what is needed to have it.
    pub(crate) fn needs(what: &str) -> Self {
        Cell { text: format!("{MISSING}: needs {what}"), ..Cell::number(None) }
    }

    /// Words in the place of a number that does not apply.
    pub(crate) fn instead(text: impl Into<String>) -> Self {
        Cell { quiet: true, number: true, ..Cell::words(text) }
    }

    /// The same with a second line.
    pub(crate) fn with_note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

/// A table: the first cell of each row is its heading.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Table {
    /// Title, empty for none.
    pub(crate) caption: String,
    /// Column titles.
    pub(crate) head: Vec<String>,
    /// Rows.
    pub(crate) rows: Vec<Vec<Cell>>,
    /// Remark below.
    pub(crate) foot: String,
}

/// What to choose: the table, and the sentences of its lines with their tasks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Choices {
    /// What the records must bear out.
    pub(crate) sentences: Vec<(String, Sentence)>,
    /// As printed.
    pub(crate) table: Table,
}

/// A label and its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fact {
    /// Label.
    pub(crate) label: String,
    /// Value.
    pub(crate) value: String,
    /// Set as code.
    pub(crate) code: bool,
}

impl Fact {
    /// A label with plain words.
    pub(crate) fn new(label: &str, value: impl Into<String>) -> Self {
        Fact { label: label.into(), value: value.into(), code: false }
    }
}

/// A piece of a section.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Block {
    /// Labels and values.
    Facts(Vec<Fact>),
    /// Words without claims.
    Paragraph(String),
    /// Something to keep in mind.
    Callout(Tone, String),
    /// What a reader must know first.
    Headline(Vec<Finding>),
    /// What to choose.
    Choices(Choices),
    /// Sentences.
    Findings(Vec<Finding>),
    /// A table.
    Table(Table),
    /// Plots side by side.
    Charts(Vec<Chart>),
    /// Folded away.
    Details(String, Vec<Block>),
    /// Outcomes of checks.
    Checks(Vec<checks::CheckResult>),
}

/// A titled part of the report.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Section {
    /// Anchor.
    pub(crate) id: String,
    /// Title.
    pub(crate) title: String,
    /// Content.
    pub(crate) blocks: Vec<Block>,
}

/// The whole report.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Document {
    /// Title.
    pub(crate) title: String,
    /// Under the title, before the first section.
    pub(crate) lead: Vec<Block>,
    /// Sections.
    pub(crate) sections: Vec<Section>,
    /// What the name of each variant stands for.
    pub(crate) glossary: BTreeMap<String, String>,
}

impl Document {
    /// Every block, also those inside others.
    pub(crate) fn blocks(&self) -> Vec<&Block> {
        fn walk<'a>(blocks: &'a [Block], out: &mut Vec<&'a Block>) {
            for block in blocks {
                out.push(block);
                if let Block::Details(_, inner) = block {
                    walk(inner, out);
                }
            }
        }
        let mut out = Vec::new();
        walk(&self.lead, &mut out);
        self.sections.iter().for_each(|s| walk(&s.blocks, &mut out));
        out
    }

    /// Every finding.
    pub(crate) fn findings(&self) -> impl Iterator<Item = &Finding> {
        let of = |b| match b {
            &Block::Findings(ref list) | &Block::Headline(ref list) => Some(list),
            _ => None,
        };
        self.blocks().into_iter().filter_map(of).flatten()
    }

    /// Every table.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &Table> {
        let of = |block| match block {
            &Block::Table(ref table) | &Block::Choices(Choices { ref table, .. }) => Some(table),
            _ => None,
        };
        self.blocks().into_iter().filter_map(of)
    }
}
