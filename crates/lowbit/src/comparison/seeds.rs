//! Further trainings of every network, each from another seed.

use super::Comparison;
use crate::suite::Variant;
use lowbit_base::Error;
use lowbit_eval::record::{Record, SeedRun};

/// The directory of a variant in that of its comparison, by the training it comes from: the first, or one of those from other seeds.
pub(super) fn home(round: u64, name: &str) -> String {
    match round {
        0 => format!("variants/{name}"),
        round => format!("seeds/{}/{name}", round + 1),
    }
}

impl Comparison<'_> {
    /// Every variant of a training from other seeds.
    pub(super) fn again(&mut self, records: &mut [Record]) -> Result<(), Error> {
        for (variant, record) in self.suite.variant.iter().zip(records) {
            if self.network(variant).suite.is_trained() {
                self.progress.note(&format!("{}, training {}", variant.name, self.round + 1));
                record.detail.seeds.push(SeedRun::of(self.seed(variant)?, self.variant(variant)?));
            }
        }
        Ok(())
    }

    /// The seed that the weights of a variant come from, in this round.
    fn seed(&self, variant: &Variant) -> Result<u64, Error> {
        let trained = match &variant.from {
            Some(parent) => self.suite.variant(parent)?,
            None => variant,
        };
        Ok(self.network(variant).suite.train_config(trained)?.seed + self.round)
    }
}
