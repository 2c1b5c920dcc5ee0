//! Findings about language models: who needs the fewest bits at equal bytes, and what compressors without a network need.

use super::compare::{Comparison, VariantRow};
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

fn at_equal_bytes(c: &Comparison, ternary: &VariantRow) -> Option<Finding> {
    let bits = |row: &VariantRow| row.value(BITS).unwrap_or(f64::INFINITY);
    let rows = as_large(c, ternary);
    let best = rows.iter().min_by(|a, b| bits(a).total_cmp(&bits(b))).filter(|_| rows.len() > 1)?;
    let other = rows.iter().filter(|row| row.name() != best.name()).min_by(|a, b| bits(a).total_cmp(&bits(b)))?;
    let against = if best.name() == ternary.name() { other.name() } else { ternary.name() };
    let tone = if best.name() == ternary.name() { Tone::Good } else { Tone::Warn };
    let sentence = Sentence::default()
        .text("Of the networks with the bytes of ")
        .name(ternary.name())
        .text(", ")
        .name(best.name())
        .text(" needs ")
        .claim_against(ClaimKind::FewestBits, best.name(), ternary.name())
        .text(": ")
        .asked(c, best.name(), What::Measure(BITS.into()))?
        .text(" against ")
        .asked(c, against, What::Measure(BITS.into()))?
        .text(" of ")
        .name(against)
        .text(".");
    Some(Finding { task: c.task.into(), tone, sentence, recommends: None })
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
