//! Findings about language models: who needs the fewest bits at equal bytes, and what compressors without a network need.

use super::compare::{Comparison, VariantRow};
use super::noise;
use super::query::What;
use super::sentence::{ClaimKind, Finding, Sentence, Tone};

/// What language models are compared by.
pub(crate) const BITS: &str = "bits_per_byte";
/// How far the bytes of two networks may be apart that are said to be as large as one another.
const EQUAL: f64 = 0.05;
/// Values of a ternary weight.
const TERNARY: u64 = 3;

/// A network that was trained to be ternary.
fn is_ternary(row: &VariantRow) -> bool {
    let mut body = row.record.detail.tensors.iter().filter(|tensor| tensor.role == "body").peekable();
    row.record.detail.made == "trained" && body.peek().is_some() && body.all(|t| t.levels.is_some_and(|n| n <= TERNARY))
}

/// The networks whose weights take as many bytes as those of one, itself included.
pub(crate) fn as_large<'c, 'a>(c: &'c Comparison<'a>, as_this: &VariantRow) -> Vec<&'c VariantRow<'a>> {
    let size = |row: &VariantRow| row.value("weight_bytes");
    let apart = |row: &VariantRow| Some((size(row)? / size(as_this)? - 1.0).abs());
    c.networks().filter(|row| apart(row).is_some_and(|apart| apart <= EQUAL) && row.value(BITS).is_some()).collect()
}

/// Each network that was trained ternary beside the others of its bytes, and the best compressor without a network.
pub(crate) fn findings(c: &Comparison) -> Vec<Finding> {
    let ternary = c.networks().filter(|row| is_ternary(row)).filter_map(|row| at_equal_bytes(c, row));
    ternary.chain(compressors(c)).collect()
}

/// Whether a network needs fewer bits than every other with the bytes of one, beyond noise after correction for their number.
pub(crate) fn is_least(c: &Comparison, row: &VariantRow, as_this: &VariantRow) -> bool {
    let group = as_large(c, as_this);
    let others = group.iter().filter(|other| other.name() != row.name());
    let changes: Option<Vec<_>> = others.map(|other| c.bits_between(other.name(), row.name())).collect();
    let Some(mut changes) = changes.filter(|changes| changes.len() + 1 == group.len()) else { return false };
    noise::correct(changes.iter_mut().map(|change| (change.p, &mut change.corrected)).collect());
    changes.iter().all(|change| change.bits < 0.0 && change.distinguishable())
}

fn at_equal_bytes(c: &Comparison, ternary: &VariantRow) -> Option<Finding> {
    let bits = |row: &VariantRow| row.value(BITS).unwrap_or(f64::INFINITY);
    let rows = as_large(c, ternary);
    let best = rows.iter().min_by(|a, b| bits(a).total_cmp(&bits(b))).filter(|_| rows.len() > 1)?;
    let other = rows.iter().filter(|row| row.name() != best.name()).min_by(|a, b| bits(a).total_cmp(&bits(b)))?;
    let against = if best.name() == ternary.name() { other.name() } else { ternary.name() };
    let start = Sentence::default().text("Of the networks with the bytes of ").name(ternary.name()).text(", ");
    let start = start.name(best.name()).text(" needs ");
    let figures = |start: Sentence| {
        let sentence = start.asked(c, best.name(), What::Measure(BITS.into()))?.text(" against ");
        Some(sentence.asked(c, against, What::Measure(BITS.into()))?.text(" of ").name(against))
    };
    let (tone, sentence) = match is_least(c, best, ternary) {
        true => {
            let tone = if best.name() == ternary.name() { Tone::Good } else { Tone::Warn };
            let start = start.claim_against(ClaimKind::FewestBits, best.name(), ternary.name()).text(": ");
            (tone, figures(start)?)
        }
        false => {
            c.bits_between(against, best.name()).filter(|change| !change.distinguishable())?;
            let start = figures(start)?.text(" bits per byte: ");
            (Tone::Neutral, start.claim_against(ClaimKind::OpenBits, best.name(), against))
        }
    };
    Some(Finding { task: c.task.into(), tone, sentence: sentence.text("."), recommends: None })
}

fn compressors(c: &Comparison) -> Option<Finding> {
    let bits = |row: &&VariantRow| row.value(BITS).unwrap_or(f64::INFINITY);
    let plain = c.rows.iter().filter(|row| !row.network()).min_by(|a, b| bits(a).total_cmp(&bits(b)))?;
    let reference = c.reference()?;
    let what = || What::Measure(BITS.into());
    let sentence = Sentence::default()
        .name(plain.name())
        .text(", without a network, needs ")
        .asked(c, plain.name(), what())?
        .text(" bits per byte, ")
        .name(reference.name())
        .text(" ")
        .asked(c, reference.name(), what())?
        .text("; its own weights are not counted.");
    Some(Finding { task: c.task.into(), tone: Tone::Neutral, sentence, recommends: None })
}
