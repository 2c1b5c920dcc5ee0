//! What to choose under which constraint: the first table of a report, of variants that no other dominates.

use super::bits::BITS;
use super::compare::{Comparison, Standing, VariantRow, Verdict, measured};
use super::document::{Cell, Choices, Table};
use super::findings;
use super::query::What;
use super::sentence::{ClaimKind, Sentence};
use super::studies::capital;
use super::tables;

/// A size that is always asked about, bytes.
const SMALL: u64 = 1_000_000;
/// Round sizes that are asked about where they lie between those of the variants.
const SIZES: [u64; 5] = [100_000, 10_000_000, 100_000_000, 1_000_000_000, 10_000_000_000];

/// A need, and the variant that meets it.
struct Choice<'c, 'a> {
    need: Need,
    title: Sentence,
    pick: Option<&'c VariantRow<'a>>,
}

/// Needs, in the order in which they are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    NoLoss,
    Within,
    Fastest,
    Size(u64),
    Smallest,
}

impl Need {
    /// In a few words: the head of a column, or shorter, as one of several in a cell.
    fn words(self, c: &Comparison, is_head: bool) -> String {
        let fact = |what: What| c.fact(what).map_or(String::new(), |figure| figure.text);
        let (start, words) = match self {
            Need::NoLoss => ("", "no loss".to_string()),
            Need::Within if c.quality().is_some() => ("within ", format!("{} point", fact(What::Threshold))),
            Need::Within => ("within ", format!("{} %", fact(What::Threshold))),
            Need::Fastest => ("", "fastest".into()),
            Need::Size(bytes) => ("at most ", fact(What::Size(bytes))),
            Need::Smallest => ("", "fewest bytes".into()),
        };
        if is_head { capital(&format!("{start}{words}")) } else { words }
    }
}

/// Networks that work, keep what was asked for, and are dominated by none.
fn candidates<'c, 'a>(c: &'c Comparison<'a>) -> Vec<&'c VariantRow<'a>> {
    let asked = c.facts.is_some_and(|facts| facts.constraints.is_some());
    let of = if asked { c.within() } else { c.networks().collect() };
    let works =
        |row: &&VariantRow| !matches!(row.verdict, Verdict::Fails | Verdict::Void) && row.dominated_by.is_none();
    of.into_iter().filter(works).collect()
}

/// Quality to be high: the measure that variants are compared by, or few bits.
fn merit(row: &VariantRow) -> Option<f64> {
    row.quality().or_else(|| row.value(BITS).map(|bits| -bits))
}

/// The candidate of the highest merit with so many bytes at most; the smaller of two that are equal.
pub(super) fn highest<'c, 'a>(c: &'c Comparison<'a>, most: u64) -> Option<&'c VariantRow<'a>> {
    let key = |row: &VariantRow| Some((merit(row)?, -measured(row.record, "weight_bytes")?));
    let fits = |row: &&VariantRow| measured(row.record, "weight_bytes").is_some_and(|bytes| bytes <= most as f64);
    let all = candidates(c).into_iter().filter(|row| fits(row) && merit(row).is_some());
    all.max_by(|a, b| key(a).partial_cmp(&key(b)).unwrap_or(std::cmp::Ordering::Equal))
}

/// Whether no candidate is shown to be faster.
pub(super) fn is_quickest(c: &Comparison, row: &VariantRow) -> bool {
    let all = candidates(c);
    let none_faster = || all.iter().all(|other| c.is_faster(other.name(), row.name()) == Some(false));
    all.iter().any(|other| other.name() == row.name()) && none_faster()
}

/// Of the candidates that none is shown to be faster than, the one of the highest merit.
fn quickest<'c, 'a>(c: &'c Comparison<'a>) -> Option<&'c VariantRow<'a>> {
    let all = candidates(c).into_iter().filter(|row| is_quickest(c, row));
    all.max_by(|a, b| merit(a).partial_cmp(&merit(b)).unwrap_or(std::cmp::Ordering::Equal))
}

/// The sizes that are asked about.
fn sizes(c: &Comparison) -> Vec<u64> {
    let bytes = || c.networks().filter_map(|row| measured(row.record, "weight_bytes"));
    let (least, most) = (bytes().fold(f64::INFINITY, f64::min), bytes().fold(0.0, f64::max));
    let mut sizes: Vec<u64> = SIZES.into_iter().filter(|size| (least..most).contains(&(*size as f64))).collect();
    sizes.extend((most > 0.0).then_some(SMALL));
    sizes.sort_unstable();
    sizes
}

/// Every need that the records of a task can answer.
fn choices<'c, 'a>(c: &'c Comparison<'a>) -> Vec<Choice<'c, 'a>> {
    let Some(reference) = c.reference().filter(|_| c.standing != Some(Standing::NothingLearnt)) else {
        return Vec::new();
    };
    let mut out = Vec::new();
    let mut push = |need, title, pick| out.push(Choice { need, title, pick });
    let inside = candidates(c);
    let asked = c.facts.is_some_and(|facts| facts.constraints.is_some());
    let keeps = |row: &&VariantRow| !asked || c.within().iter().any(|other| other.name() == row.name());
    let kept = |row: &&VariantRow| inside.iter().any(|other| other.name() == row.name());
    let compared = c.networks().any(|row| row.change.is_some() || row.bits.is_some());
    let smallest = |rows: Vec<&'c VariantRow<'a>>| findings::least(rows, "weight_bytes").filter(kept);
    if compared {
        match smallest(c.equals()) {
            Some(row) => {
                let title = Sentence::default().claim(ClaimKind::SmallestEqual, row.name()).text(" with ");
                push(Need::NoLoss, title.claim(ClaimKind::NoLoss, row.name()), Some(row));
            }
            // The reference loses nothing against itself, even where others dominate it.
            None => push(Need::NoLoss, Sentence::default().text("No loss"), keeps(&reference).then_some(reference)),
        }
        if let Some(row) = smallest(c.close()).filter(|_| findings::threshold_says_something(c)) {
            let title = findings::pick_title(c, ClaimKind::SmallestWithin, row).unwrap_or_default();
            push(Need::Within, title, Some(row));
        }
    }
    if let Some(row) = quickest(c) {
        push(Need::Fastest, Sentence::default().claim(ClaimKind::Quickest, row.name()), Some(row));
    }
    for size in sizes(c) {
        let Some(limit) = c.fact(What::Size(size)) else { continue };
        let pick = highest(c, size);
        let claim = match pick {
            Some(row) => Sentence::default().claim(ClaimKind::HighestWithin(size), row.name()),
            None => Sentence::default().claim(ClaimKind::NoneOfSize(size), reference.name()),
        };
        push(Need::Size(size), claim.text(" ").figure(limit), pick);
    }
    if let Some(row) = findings::least(inside.clone(), "weight_bytes") {
        push(Need::Smallest, Sentence::default().text("Fewest bytes"), Some(row));
    }
    out.sort_by_key(|choice| choice.need);
    out
}

/// The variants to choose, and for what in a few words.
pub(super) fn of(c: &Comparison) -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> = Vec::new();
    for choice in choices(c).into_iter().filter(|choice| choice.need != Need::Smallest) {
        let Some(row) = choice.pick else { continue };
        let words = choice.need.words(c, false);
        match out.iter_mut().find(|(name, _)| name == row.name()) {
            Some((_, all)) => all.push_str(&format!(", {words}")),
            None => out.push((row.name().into(), words)),
        }
    }
    out
}

/// What the figures of a choice are about.
const FOOT: &str = "Only variants that work and that no other dominates. Fastest: none is shown to be faster; among those, and \
                    under a size, the one with the highest measured quality.";

/// A title inside a line: with a small first letter.
fn inner(title: &str) -> String {
    let mut chars = title.chars();
    chars.next().map_or(String::new(), |first| first.to_lowercase().chain(chars).collect())
}

/// The table of one task: a line per variant to choose, and one for needs that none meets.
fn of_task(c: &Comparison) -> Option<Choices> {
    let all = choices(c);
    let columns = tables::of_choice(c);
    let mut head = vec!["Variant".to_string(), "Choose it for".into()];
    head.extend(columns.iter().map(|(title, _)| title.clone()));
    let mut picks: Vec<Option<&VariantRow>> = Vec::new();
    for choice in &all {
        if picks.iter().all(|pick| pick.map(|row| row.name()) != choice.pick.map(|row| row.name())) {
            picks.push(choice.pick);
        }
    }
    let line = |pick: &Option<&VariantRow>| {
        let met = all.iter().filter(|choice| choice.pick.map(|row| row.name()) == pick.map(|row| row.name()));
        let needs: Vec<String> = met.map(|choice| inner(&choice.title.to_string())).collect();
        let needs = Cell::words(capital(&needs.join("; ")));
        let Some(row) = pick else {
            let empty = columns.iter().map(|_| Cell::default());
            return [Cell::words("no variant"), needs].into_iter().chain(empty).collect();
        };
        let cells = columns.iter().map(|(_, cell)| cell(row));
        [Cell::words(row.name()), needs].into_iter().chain(cells).collect()
    };
    let rows: Vec<Vec<Cell>> = picks.iter().map(line).collect();
    let sentences = all.iter().map(|choice| (c.task.to_string(), choice.title.clone())).collect();
    let table = Table { caption: "What to choose".into(), head, rows, foot: FOOT.into() };
    (!table.rows.is_empty()).then_some(Choices { sentences, table })
}

/// One table of several tasks: a line per task, a column per need.
fn of_tasks(tasks: &[Comparison]) -> Option<Choices> {
    let all: Vec<(&Comparison, Vec<Choice>)> = tasks.iter().map(|c| (c, choices(c))).collect();
    let needs = [Need::NoLoss, Need::Within, Need::Fastest, Need::Size(SMALL)];
    let head = std::iter::once("Task".to_string()).chain(needs.iter().map(|need| need.words(&tasks[0], true)));
    let line = |(c, choices): &(&Comparison, Vec<Choice>)| {
        let cell = |need: &Need| match choices.iter().find(|choice| choice.need == *need) {
            None => Cell::words("none shown"),
            Some(Choice { pick: None, .. }) => Cell::words("no variant"),
            Some(Choice { pick: Some(row), .. }) => Cell::words(row.name()).with_note(tables::in_short(c, row)),
        };
        std::iter::once(Cell::words(c.task)).chain(needs.iter().map(cell)).collect()
    };
    let rows: Vec<Vec<Cell>> = all.iter().map(line).collect();
    let titles = |(c, choices): &(&Comparison, Vec<Choice>)| {
        choices.iter().map(|choice| (c.task.to_string(), choice.title.clone())).collect::<Vec<_>>()
    };
    let sentences: Vec<(String, Sentence)> = all.iter().flat_map(titles).collect();
    let table = Table { caption: "What to choose".into(), head: head.collect(), rows, foot: FOOT.into() };
    (!sentences.is_empty()).then_some(Choices { sentences, table })
}

/// What to choose, of all tasks.
pub(super) fn table(tasks: &[Comparison]) -> Option<Choices> {
    match tasks {
        [c] => of_task(c),
        [] => None,
        several => of_tasks(several),
    }
}
