//! The report as a tree that knows neither HTML nor Markdown: both are printed from it, so they cannot differ.

use super::charts::Chart;
use super::compare::{Comparison, comparisons};
use super::sentence::{Finding, Sentence, Tone};
use super::{charts, checks, findings, notes, tables};
use crate::record::Results;
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

/// A box with a few figures at the top of the report.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Card {
    /// What makes this variant worth a card.
    pub(crate) title: Sentence,
    /// Name of the variant.
    pub(crate) name: String,
    /// Colour.
    pub(crate) tone: Tone,
    /// Its figures.
    pub(crate) lines: Vec<Sentence>,
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
    /// Boxes.
    Cards(Vec<Card>),
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
    /// Everything but the outcomes of the checks.
    pub(crate) fn body(results: &Results, tasks: &[Comparison]) -> Self {
        let mut lead: Vec<Block> = Vec::new();
        let mut sections = Vec::new();
        for (i, c) in tasks.iter().enumerate() {
            let place = Place { index: i, of: tasks.len(), task: c.task };
            lead.extend(notes::about(c, place.of > 1));
            let headline = findings::headline(c);
            lead.extend((!headline.is_empty()).then_some(Block::Headline(headline)));
            lead.extend(notes::warnings(c).into_iter().map(|w| Block::Callout(Tone::Warn, w)));
            lead.push(Block::Cards(findings::cards(c)));
            sections.extend(task_sections(c, &place));
        }
        let mut setup: Vec<Block> = tasks.iter().map(|c| Block::Facts(notes::task(c))).collect();
        setup.push(Block::Facts(notes::machine(results)));
        sections.push(Section { id: "setup".into(), title: "Setup".into(), blocks: setup });
        sections.push(Section { id: "method".into(), title: "Method".into(), blocks: notes::method(results, tasks) });
        let glossary = tasks.iter().flat_map(|c| &c.rows).map(|r| (r.name().to_string(), notes::explain(r))).collect();
        Document { title: notes::title(tasks), lead, sections, glossary }
    }

    /// The report with the outcomes of its checks.
    pub(crate) fn new(results: &Results) -> Self {
        let tasks = comparisons(results);
        let mut document = Document::body(results, &tasks);
        let outcomes = checks::run_all(&checks::Case { results, tasks: &tasks, document: &document });
        document.lead.splice(..0, checks::banner(&outcomes));
        document.sections.push(Section {
            id: "checks".into(),
            title: "Checks".into(),
            blocks: vec![Block::Paragraph(checks::summary(&outcomes)), Block::Checks(outcomes)],
        });
        document
    }

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
        self.blocks().into_iter().filter_map(|b| if let Block::Table(t) = b { Some(t) } else { None })
    }
}

/// Which of several tasks a section belongs to.
struct Place<'a> {
    index: usize,
    of: usize,
    task: &'a str,
}

impl Place<'_> {
    fn section(&self, id: &str, title: &str, blocks: Vec<Block>) -> Option<Section> {
        let (id, title) = match self.of {
            1 => (id.to_string(), title.to_string()),
            _ => (format!("{id}-{}", self.index + 1), format!("{title}: {}", self.task)),
        };
        (!blocks.is_empty()).then_some(Section { id, title, blocks })
    }
}

fn task_sections(c: &Comparison, place: &Place) -> Vec<Section> {
    let found = findings::findings(c);
    let (short, each): (Vec<Finding>, Vec<Finding>) = found.into_iter().partition(|f| !notes::is_variant_line(c, f));
    let mut gain = vec![Block::Table(tables::overview(c))];
    let names = Block::Table(notes::names(c));
    gain.push(Block::Details("What the names mean".into(), vec![names]));
    gain.push(Block::Findings(short));
    if !each.is_empty() {
        gain.push(Block::Details("Variant by variant".into(), vec![Block::Findings(each)]));
    }
    let blocks = |tables: Vec<Option<Table>>| tables.into_iter().flatten().map(Block::Table).collect::<Vec<_>>();
    let plots = charts::all(c);
    let plots = if plots.is_empty() { Vec::new() } else { vec![Block::Charts(plots)] };
    [
        place.section("findings", "What you gain and lose", gain),
        place.section("plots", "Plots", plots),
        place.section("quality", "Quality", blocks(vec![tables::quality(c), tables::classes(c)])),
        place.section("confusion", "Confusions", tables::confusions(c)),
        place.section("size", "Size", blocks(vec![tables::size(c), tables::formats(c)])),
        place.section("speed", "Speed and cost", blocks(vec![tables::speed(c), tables::cost(c), tables::others(c)])),
    ]
    .into_iter()
    .flatten()
    .collect()
}
