//! Training data and their order.

use crate::random::{hash, permutation};
use lowbit_model::exec::Batch;

/// What is right for the rows of a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum BatchTargets {
    /// Classes or next tokens: one per sequence for a classifier, one per token for a language model (`u32::MAX` where there
    /// is none).
    Classes(Vec<u32>),
    /// Values, one per sequence.
    Values(Vec<f32>),
}

impl Default for BatchTargets {
    fn default() -> Self {
        BatchTargets::Classes(Vec::new())
    }
}

impl BatchTargets {
    /// An empty list of classes to fill; the memory of an earlier one is kept.
    pub fn classes(&mut self) -> &mut Vec<u32> {
        if let BatchTargets::Values(_) = self {
            *self = BatchTargets::Classes(Vec::new());
        }
        let BatchTargets::Classes(classes) = self else { unreachable!("just made") };
        classes.clear();
        classes
    }

    /// An empty list of values to fill; the memory of an earlier one is kept.
    pub fn values(&mut self) -> &mut Vec<f32> {
        if let BatchTargets::Classes(_) = self {
            *self = BatchTargets::Values(Vec::new());
        }
        let BatchTargets::Values(values) = self else { unreachable!("just made") };
        values.clear();
        values
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            BatchTargets::Classes(classes) => classes.len(),
            BatchTargets::Values(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many count in the loss.
    pub(crate) fn counted(&self) -> usize {
        match self {
            BatchTargets::Classes(classes) => classes.iter().filter(|class| **class != u32::MAX).count(),
            BatchTargets::Values(values) => values.len(),
        }
    }
}

/// Examples that can be asked for by row.
pub trait Data {
    /// Number of examples.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens of all examples, for an estimate of memory; `None` where they are not counted.
    fn tokens(&self) -> Option<u64> {
        None
    }

    /// Fills a batch with one sequence per row, and its targets. Both arrive with the content of an earlier batch.
    fn fill(&self, rows: &[usize], batch: &mut Batch, targets: &mut BatchTargets);

    /// A hash of all examples: a run is only resumed on the same data.
    fn fingerprint(&self) -> String;
}

/// Rows in the order of training: a new permutation for each pass over the data.
pub(crate) struct Order {
    seed: u64,
    len: usize,
    epoch: Option<usize>,
    rows: Vec<usize>,
}

impl Order {
    pub(crate) fn new(seed: u64, len: usize) -> Self {
        Order { seed, len, epoch: None, rows: Vec::new() }
    }

    /// The rows at positions `start..start + count`.
    pub(crate) fn rows(&mut self, start: usize, count: usize, out: &mut Vec<usize>) {
        out.clear();
        for position in start..start + count {
            let epoch = position / self.len;
            if self.epoch != Some(epoch) {
                self.rows = permutation(self.len, hash(&[self.seed, ORDER, epoch as u64]));
                self.epoch = Some(epoch);
            }
            out.push(self.rows[position % self.len]);
        }
    }
}

/// Sets the seeds of the order apart from other seeds of the run.
const ORDER: u64 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_epoch_holds_each_row_once_in_its_own_order() {
        let (mut order, mut rows) = (Order::new(3, 7), Vec::new());
        order.rows(0, 14, &mut rows);
        let (first, second) = rows.split_at(7);
        assert_ne!(first, second);
        for epoch in [first, second] {
            let mut sorted = epoch.to_vec();
            sorted.sort();
            assert_eq!(sorted, [0, 1, 2, 3, 4, 5, 6]);
        }
        let mut late = Vec::new();
        Order::new(3, 7).rows(5, 4, &mut late);
        assert_eq!(late, rows[5..9]);
    }
}
