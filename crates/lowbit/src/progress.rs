//! What long work tells on the way.

use lowbit_train::StepMetrics;

/// Listens to training and comparisons; the program shows a bar, `()` nothing.
pub trait Progress {
    /// A remark for a person: what begins, what was dropped, what came out.
    fn note(&mut self, _text: &str) {}

    /// An update of a network called `name`; `steps` is the number of updates of the whole training.
    fn step(&mut self, _name: &str, _metrics: &StepMetrics, _steps: u64) {}

    /// A training has ended.
    fn trained(&mut self) {}
}

impl Progress for () {}
