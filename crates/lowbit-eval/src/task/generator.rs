//! Generated rows.

use crate::quickstart;
use crate::read::Rows;
use crate::record::Measure;
use serde::Deserialize;

/// Sentences of generated data behind the estimate of the ceiling.
const CEILING_ROWS: usize = 100_000;

/// A source of generated rows.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generator {
    /// Which grammar.
    pub name: GeneratorName,
    /// Seed of the rows.
    pub seed: u64,
    /// Number of training rows.
    pub train_rows: usize,
    /// Number of test rows.
    pub test_rows: usize,
}

/// The generators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GeneratorName {
    /// The grammar of [`crate::quickstart`].
    Quickstart,
}

impl Generator {
    /// Training rows (a few to spare for those that will be dropped), test rows, and the ceiling. Each has its own sequence.
    pub(super) fn rows(&self) -> (Rows, Rows, Option<Measure>) {
        let stream = |number: u64| self.seed.wrapping_mul(3).wrapping_add(number).wrapping_mul(0xD134_2543_DE82_EF95);
        let train = quickstart::generate(stream(0), self.train_rows + self.train_rows / 100 + 10);
        let test = quickstart::generate(stream(1), self.test_rows);
        (train, test, Some(quickstart::ceiling(stream(2), CEILING_ROWS)))
    }
}
