//! The report from its records: which sections it has, and what stands in them.

use super::compare::{Comparison, comparisons};
use super::document::{Block, Document, Section, Table};
use super::sentence::{Finding, Tone};
use super::{charts, checks, choices, findings, machines, notes, published, studies, tables};
use crate::record::Results;

impl Document {
    /// Everything but the outcomes of the checks.
    pub(crate) fn body(results: &Results, tasks: &[Comparison]) -> Self {
        let lead = lead(tasks);
        let place =
            |(index, c): (usize, &Comparison)| task_sections(c, &Place { index, of: tasks.len(), task: c.task });
        let mut sections: Vec<Section> = tasks.iter().enumerate().flat_map(place).collect();
        sections.extend(studies::section(results));
        sections.extend(published::section(results));
        sections.extend(machines::sections(results));
        let mut setup: Vec<Block> = tasks.iter().map(|c| Block::Facts(notes::task(c))).collect();
        setup.push(Block::Facts(notes::machine(results)));
        sections.push(Section { id: "setup".into(), title: "Setup".into(), blocks: setup });
        sections.push(Section { id: "method".into(), title: "Method".into(), blocks: notes::method(results, tasks) });
        let glossary = tasks.iter().flat_map(|c| &c.rows).map(|r| (r.name().to_string(), notes::explain(r))).collect();
        Document { title: notes::title(results, tasks), lead, sections, glossary }
    }

    /// The report with the outcomes of its checks.
    pub(crate) fn new(results: &Results) -> Self {
        let tasks = comparisons(results);
        let mut document = Document::body(results, &tasks);
        let outcomes = checks::run_all(&checks::Case { results, tasks: &tasks, document: &document });
        document.sections.push(Section {
            id: "checks".into(),
            title: "Checks".into(),
            blocks: vec![Block::Paragraph(checks::summary(&outcomes)), Block::Checks(outcomes)],
        });
        document
    }
}

/// What a reader sees first: the answer, what to choose, and what to keep in mind. Of several tasks the table comes first, and what each
/// is about is folded away.
fn lead(tasks: &[Comparison]) -> Vec<Block> {
    let choices = choices::table(tasks).map(Block::Choices);
    let warned =
        |c: &Comparison| notes::warnings(c).into_iter().map(|w| Block::Callout(Tone::Warn, w)).collect::<Vec<_>>();
    let headline = |c: &Comparison, bad: bool| {
        let found = findings::headline(c).into_iter().filter(|finding| bad || finding.tone != Tone::Bad);
        Some(found.collect::<Vec<_>>()).filter(|found| !found.is_empty()).map(Block::Headline)
    };
    match tasks {
        [c] => {
            let mut lead: Vec<Block> = notes::networks(c).map(Block::Paragraph).into_iter().collect();
            lead.extend(notes::about(c, false));
            lead.extend(headline(c, true));
            lead.extend(choices);
            lead.extend(warned(c));
            lead
        }
        several => {
            let told = |c: &Comparison| {
                let about = notes::networks(c).map(Block::Paragraph).into_iter().chain(notes::about(c, true));
                about.chain(headline(c, false)).chain(warned(c)).collect::<Vec<_>>()
            };
            let told: Vec<Block> = several.iter().flat_map(told).collect();
            let bad: Vec<Finding> = several.iter().flat_map(findings::faults).collect();
            let bad = (!bad.is_empty()).then_some(Block::Headline(bad));
            let folded = (!told.is_empty()).then(|| Block::Details("Task by task".into(), told));
            bad.into_iter().chain(choices).chain(folded).collect()
        }
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
        place.section(
            "quality",
            "Quality",
            blocks(
                [
                    vec![tables::quality(c), tables::over_seeds(c), tables::parts(c), tables::lengths(c)],
                    tables::faithfulness(c),
                    vec![tables::classes(c)],
                ]
                .concat(),
            ),
        ),
        place.section("confusion", "Confusions", tables::confusions(c)),
        place.section("size", "Size", blocks(vec![tables::size(c), tables::formats(c)])),
        place.section(
            "speed",
            "Speed and cost",
            blocks(vec![tables::speed(c), tables::cost(c), tables::ledger(c), tables::others(c)]),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}
