//! Prose made of parts: fixed words, names, figures from queries, and claims that carry their own predicate.

use super::choices;
use super::compare::{Comparison, Standing, VariantRow, Verdict, measured};
use super::noise::Pace;
use super::query::{Figure, What};
use std::fmt;

/// A word of comparison together with the condition under which it may be printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClaimKind {
    /// Accuracy shown to be higher than the reference's.
    Higher,
    /// Accuracy shown to be lower.
    Lower,
    /// No accuracy difference shown.
    NotDistinguishable,
    /// Accuracy not shown to be lower.
    NoLoss,
    /// Fewer weight bytes.
    Smaller,
    /// More weight bytes.
    Larger,
    /// As many weight bytes.
    SameSize,
    /// Lower median latency, beyond noise.
    Faster,
    /// Higher median latency, beyond noise.
    Slower,
    /// No speed difference shown.
    SameSpeed,
    /// Fewest weight bytes among networks close to the reference.
    SmallestWithin,
    /// Lowest median latency among them.
    FastestWithin,
    /// Both of these.
    LeastWithin,
    /// Fewest weight bytes among networks whose accuracy is not distinguishable from the reference's or higher.
    SmallestEqual,
    /// Fewest weight bytes among all networks that do not fail.
    Smallest,
    /// Lowest median latency among them.
    Fastest,
    /// Lost more than half of the reference's margin over chance.
    Fails,
    /// Some variant is at least as good in all and better in one.
    Dominated,
    /// No network that is smaller is close to the reference.
    NoneClose,
    /// Less accurate than a baseline that is no network.
    BelowBaseline,
    /// The reference is not shown to be above chance, or far below a baseline that is no network.
    NothingLearnt,
    /// A baseline that is no network is more accurate than every network.
    AboveAll,
    /// A baseline that is no network is shown to be more accurate than the reference.
    AboveReference,
    /// Networks are undecided, and none is shown to keep the accuracy.
    TooFewRows,
    /// Fewest weight bytes among the networks that keep every limit asked for.
    Chosen,
    /// No network keeps every limit asked for.
    NoneWithin,
    /// Fewest bits per byte among the networks with as many bytes as another, each difference beyond noise.
    FewestBits,
    /// As many bytes as another network, and no difference of bits per byte shown.
    OpenBits,
    /// No network that works is shown to be faster.
    Quickest,
    /// The highest measured quality among the networks that work, are dominated by none and have so many bytes at most.
    HighestWithin(u64),
    /// No such network.
    NoneOfSize(u64),
    /// More bits per byte than the reference.
    MoreBits,
    /// Fewer.
    FewerBits,
}

/// A claim about a variant.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Claim {
    /// Which condition.
    pub(crate) kind: ClaimKind,
    /// Variant it is about.
    pub(crate) subject: String,
    /// Variant it is compared with, where that is not the reference.
    pub(crate) other: Option<String>,
}

impl ClaimKind {
    /// The words printed.
    pub(crate) fn words(self) -> &'static str {
        match self {
            ClaimKind::Higher => "more accurate",
            ClaimKind::Lower => "less accurate",
            ClaimKind::NotDistinguishable => "not distinguishable",
            ClaimKind::NoLoss => "no loss shown",
            ClaimKind::Smaller => "smaller",
            ClaimKind::Larger => "larger",
            ClaimKind::SameSize => "the same size",
            ClaimKind::Faster => "faster",
            ClaimKind::Slower => "slower",
            ClaimKind::SameSpeed => "the same speed within noise",
            ClaimKind::SmallestWithin | ClaimKind::SmallestEqual | ClaimKind::Smallest => "Smallest",
            ClaimKind::LeastWithin => "Smallest and of lowest median latency",
            ClaimKind::FastestWithin | ClaimKind::Fastest => "Lowest median latency",
            ClaimKind::Fails => "fails",
            ClaimKind::Dominated => "dominated",
            ClaimKind::NoneClose => "No smaller variant",
            ClaimKind::BelowBaseline => "below",
            ClaimKind::NothingLearnt => "learnt nothing that shows",
            ClaimKind::AboveAll => "more accurate than every network here",
            ClaimKind::AboveReference => "more accurate than the reference",
            ClaimKind::TooFewRows => "Too few test rows",
            ClaimKind::Chosen => "Smallest",
            ClaimKind::NoneWithin => "No variant",
            ClaimKind::FewestBits => "the fewest bits per byte",
            ClaimKind::OpenBits => "no difference shown",
            ClaimKind::Quickest => "Fastest",
            ClaimKind::HighestWithin(_) | ClaimKind::NoneOfSize(_) => "At most",
            ClaimKind::MoreBits => "more bits per byte",
            ClaimKind::FewerBits => "fewer bits per byte",
        }
    }
}

impl Claim {
    /// Whether the records support the claim.
    pub(crate) fn holds(&self, comparison: &Comparison) -> bool {
        self.evaluate(comparison).unwrap_or(false)
    }

    fn evaluate(&self, c: &Comparison) -> Option<bool> {
        let row = c.row(&self.subject)?;
        let size = |r: &VariantRow| r.value("weight_bytes");
        let bytes_ratio = || Some(size(row)? / size(c.reference()?)?);
        let pace = |pace: Pace| Some(row.speed?.1 == pace);
        let least = |rows: Vec<&VariantRow>, name: &str| {
            let mine = measured(row.record, name)?;
            let inside = rows.iter().any(|r| r.name() == row.name());
            Some(inside && rows.iter().all(|r| measured(r.record, name).is_none_or(|v| v >= mine)))
        };
        let working = || c.networks().filter(|r| !matches!(r.verdict, Verdict::Fails)).collect::<Vec<_>>();
        let change = row.change.as_ref();
        match self.kind {
            ClaimKind::Higher => Some(change?.distinguishable() && change?.points > 0.0),
            ClaimKind::Lower => Some(change?.distinguishable() && change?.points < 0.0),
            ClaimKind::NotDistinguishable => match change {
                Some(change) => Some(!change.distinguishable()),
                None => Some(!row.bits?.distinguishable()),
            },
            ClaimKind::MoreBits => Some(row.bits?.distinguishable() && row.bits?.bits > 0.0),
            ClaimKind::FewerBits => Some(row.bits?.distinguishable() && row.bits?.bits < 0.0),
            ClaimKind::NoLoss => Some(matches!(row.verdict, Verdict::Same | Verdict::Higher)),
            ClaimKind::Smaller => Some(bytes_ratio()? < 1.0),
            ClaimKind::Larger => Some(bytes_ratio()? > 1.0),
            ClaimKind::SameSize => Some(bytes_ratio()? == 1.0),
            ClaimKind::Faster => pace(Pace::Faster),
            ClaimKind::Slower => pace(Pace::Slower),
            ClaimKind::SameSpeed => pace(Pace::Same),
            ClaimKind::SmallestWithin => least(c.close(), "weight_bytes"),
            ClaimKind::FastestWithin => least(c.close(), "latency_p50"),
            ClaimKind::LeastWithin => Some(least(c.close(), "weight_bytes")? && least(c.close(), "latency_p50")?),
            ClaimKind::SmallestEqual => least(c.equals(), "weight_bytes"),
            ClaimKind::Smallest => least(working(), "weight_bytes"),
            ClaimKind::Fastest => least(working(), "latency_p50"),
            ClaimKind::Fails => Some(row.verdict == Verdict::Fails),
            ClaimKind::Dominated => Some(row.dominated_by.is_some() && c.dominates(self.other.as_deref()?, row.name())),
            ClaimKind::NoneClose => {
                let whole = size(row)?;
                Some(c.close().iter().all(|r| size(r).is_none_or(|s| s >= whole)))
            }
            ClaimKind::BelowBaseline => {
                let other = c.row(self.other.as_deref()?)?;
                Some(!other.network() && row.quality()? < other.quality()?)
            }
            ClaimKind::NothingLearnt => Some(is_reference(c, row) && c.standing? == Standing::NothingLearnt),
            ClaimKind::AboveReference => Some(!row.network() && c.standing? != Standing::Sound),
            ClaimKind::AboveAll => {
                let mine = row.quality().filter(|_| !row.network())?;
                Some(c.networks().all(|r| r.quality().is_some_and(|theirs| theirs < mine)))
            }
            ClaimKind::Chosen => least(c.within(), "weight_bytes"),
            ClaimKind::NoneWithin => Some(c.facts?.constraints.is_some() && c.within().is_empty()),
            ClaimKind::Quickest => Some(choices::is_quickest(c, row)),
            ClaimKind::HighestWithin(most) => Some(choices::highest(c, most)?.name() == row.name()),
            ClaimKind::NoneOfSize(most) => Some(choices::highest(c, most).is_none()),
            ClaimKind::FewestBits => Some(super::bits::is_least(c, row, c.row(self.other.as_deref()?)?)),
            ClaimKind::OpenBits => Some(!c.bits_between(self.other.as_deref()?, row.name())?.distinguishable()),
            ClaimKind::TooFewRows => Some(is_reference(c, row) && c.too_few_rows().is_some()),
        }
    }
}

fn is_reference(c: &Comparison, row: &VariantRow) -> bool {
    c.reference().is_some_and(|r| r.name() == row.name())
}

/// A piece of a sentence.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SentencePart {
    /// Fixed words, without digits and without words of comparison.
    Text(&'static str),
    /// Name of a variant or task.
    Name(String),
    /// A number.
    Figure(Figure),
    /// A word of comparison.
    Claim(Claim),
}

/// A sentence whose numbers and comparisons all come from records.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sentence {
    /// In order.
    pub(crate) parts: Vec<SentencePart>,
}

impl Sentence {
    /// Fixed words.
    pub(crate) fn text(mut self, words: &'static str) -> Self {
        self.parts.push(SentencePart::Text(words));
        self
    }

    /// A name.
    pub(crate) fn name(mut self, name: &str) -> Self {
        self.parts.push(SentencePart::Name(name.into()));
        self
    }

    /// A figure.
    pub(crate) fn figure(mut self, figure: Figure) -> Self {
        self.parts.push(SentencePart::Figure(figure));
        self
    }

    /// A comparison with the reference.
    pub(crate) fn claim(self, kind: ClaimKind, subject: &str) -> Self {
        self.push_claim(kind, subject, None)
    }

    /// A comparison with another variant.
    pub(crate) fn claim_against(self, kind: ClaimKind, subject: &str, other: &str) -> Self {
        self.push_claim(kind, subject, Some(other.into()))
    }

    fn push_claim(mut self, kind: ClaimKind, subject: &str, other: Option<String>) -> Self {
        self.parts.push(SentencePart::Claim(Claim { kind, subject: subject.into(), other }));
        self
    }

    /// The parts of another sentence, after this one.
    pub(crate) fn then(mut self, other: Sentence) -> Self {
        self.parts.extend(other.parts);
        self
    }

    /// A figure with a fixed unit or word behind it.
    pub(crate) fn asked(self, c: &Comparison, name: &str, what: What) -> Option<Self> {
        Some(self.figure(c.ask(name, what)?))
    }
}

impl fmt::Display for SentencePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SentencePart::Text(words) => f.write_str(words),
            SentencePart::Name(name) => f.write_str(name),
            SentencePart::Figure(figure) => f.write_str(&figure.text),
            SentencePart::Claim(claim) => f.write_str(claim.kind.words()),
        }
    }
}

impl fmt::Display for Sentence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| part.fmt(f))
    }
}

/// How a finding is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Something gained or kept.
    Good,
    /// Something lost.
    Bad,
    /// Something to keep in mind.
    Warn,
    /// Neither.
    Neutral,
}

/// One sentence of the report about the records of one task.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Task it is about.
    pub task: String,
    /// Whether it is good or bad news.
    pub tone: Tone,
    pub(crate) sentence: Sentence,
    pub(crate) recommends: Option<String>,
}

impl Finding {
    /// Name of the variant the sentence recommends, if it recommends one.
    pub fn recommends(&self) -> Option<&str> {
        self.recommends.as_deref()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sentence.fmt(f)
    }
}
