//! Variants made again from trainings with other seeds: what another training would give.

use super::bits::BITS;
use super::compare::{Comparison, VariantRow};
use crate::stats;

/// A quantity over seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OverSeeds {
    /// Trainings.
    Count,
    /// Mean of the quality.
    Mean,
    /// Lower end of its interval.
    MeanLow,
    /// Upper end.
    MeanHigh,
    /// Lowest of the trainings.
    Least,
    /// Highest.
    Most,
    /// Mean difference to the reference of the same seed.
    Change,
    /// Lower end of its interval.
    ChangeLow,
    /// Upper end.
    ChangeHigh,
}

/// What variants are compared by, over seeds.
pub(crate) fn measure(c: &Comparison) -> &'static str {
    c.quality().unwrap_or(BITS)
}

/// The quality of every training, that of the record first; nothing unless there are several.
fn values(row: &VariantRow, name: &str) -> Option<Vec<f64>> {
    let seeds = &row.record.detail.seeds;
    let others = seeds.iter().map(|run| run.measures.get(name).map(|m| m.value));
    let all: Option<Vec<f64>> = std::iter::once(row.value(name)).chain(others).collect();
    all.filter(|_| !seeds.is_empty())
}

/// Whether a variant was trained from several seeds.
pub(crate) fn any(c: &Comparison) -> bool {
    c.rows.iter().any(|row| values(row, measure(c)).is_some())
}

/// A quantity over the seeds of a variant; intervals are of Student's t over seeds.
pub(crate) fn value(c: &Comparison, row: &VariantRow, what: OverSeeds) -> Option<f64> {
    let own = values(row, measure(c))?;
    let over = stats::t_interval(&own)?;
    let change = || {
        let reference = c.reference().filter(|reference| reference.name() != row.name())?;
        let base = values(reference, measure(c)).filter(|base| base.len() == own.len())?;
        let differences: Vec<f64> = own.iter().zip(base).map(|(own, base)| own - base).collect();
        stats::t_interval(&differences)
    };
    match what {
        OverSeeds::Count => Some(own.len() as f64),
        OverSeeds::Mean => Some(over.0),
        OverSeeds::MeanLow => Some(over.1),
        OverSeeds::MeanHigh => Some(over.2),
        OverSeeds::Least => own.into_iter().reduce(f64::min),
        OverSeeds::Most => own.into_iter().reduce(f64::max),
        OverSeeds::Change => Some(change()?.0),
        OverSeeds::ChangeLow => Some(change()?.1),
        OverSeeds::ChangeHigh => Some(change()?.2),
    }
}
