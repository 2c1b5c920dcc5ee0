//! When training has diverged. The loss is measured against that of guessing (`ln(classes)`, or 1 for scaled values), or the
//! first loss of the run if that is larger. A run has diverged
//!
//! * when [`PATIENCE`] updates in a row (in a run of fewer than 40, a quarter of them) have a loss above [`LIMIT`] times
//!   that, or
//! * when the last [`PATIENCE`] updates of the whole run have a mean loss above [`END_LIMIT`] times that.
//!
//! No state is saved while updates are above the limit, so that what is kept is from before.

use std::collections::VecDeque;

/// Updates in a row that make a divergence.
const PATIENCE: usize = 10;
/// Times the loss of guessing that an update may have.
const LIMIT: f64 = 4.0;
/// Times the loss of guessing that the last updates may have in the mean.
const END_LIMIT: f64 = 1.5;

/// Watches the losses of a run.
pub(crate) struct Divergence {
    /// Loss of the first update of the run, nats per target, once it is known.
    pub(crate) first_loss: Option<f64>,
    /// Updates in a row above the limit that end the run.
    patience: usize,
    above: usize,
    recent: VecDeque<f64>,
}

impl Divergence {
    /// A watch over a run of `steps` updates, whose first loss is known when it is resumed.
    pub(crate) fn new(steps: u64, first_loss: Option<f64>) -> Self {
        let patience = PATIENCE.min(steps.div_ceil(4).max(2) as usize);
        Divergence { first_loss, patience, above: 0, recent: VecDeque::new() }
    }

    /// Whether the last update was above the limit.
    pub(crate) fn is_suspected(&self) -> bool {
        self.above > 0
    }

    /// Takes the loss of an update and that of guessing; the rule in words, if the run has diverged. `last` says that no
    /// update follows.
    pub(crate) fn see(&mut self, loss: f64, guessing: f64, last: bool) -> Option<String> {
        let reference = guessing.max(*self.first_loss.get_or_insert(loss));
        self.above = if loss > LIMIT * reference { self.above + 1 } else { 0 };
        self.recent.push_back(loss);
        if self.recent.len() > PATIENCE {
            self.recent.pop_front();
        }
        let (count, mean) = (self.recent.len(), self.recent.iter().sum::<f64>() / self.recent.len() as f64);
        let base = format!("(guessing {guessing:.3}, the first update {:.3})", self.first_loss.unwrap_or(loss));
        if self.above >= self.patience {
            return Some(format!(
                "{} updates in a row had more than {LIMIT} times the loss to begin with {base}",
                self.above
            ));
        }
        let ended = last && count == PATIENCE && mean > END_LIMIT * reference;
        ended.then(|| {
            format!(
                "the last {count} updates had a mean loss of {mean:.4}, {END_LIMIT} times that to begin with {base}"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The update after which a run ends, if it does.
    fn end(losses: &[f64], steps: usize, classes: usize) -> Option<usize> {
        let mut watch = Divergence::new(steps as u64, None);
        let mut seen = losses.iter().enumerate();
        seen.find_map(|(i, loss)| watch.see(*loss, (classes as f64).ln(), i + 1 == steps).map(|_| i + 1))
    }

    #[test]
    fn a_run_ends_when_its_loss_stays_high() {
        let guess = 4f64.ln();
        let high = |count| vec![4.1 * guess; count];
        let good = |count| vec![guess; count];
        assert_eq!(end(&[good(5), high(50)].concat(), 100, 4), Some(15));
        assert_eq!(end(&[good(5), high(9), good(1), high(9), good(76)].concat(), 100, 4), None, "spikes pass");
        assert_eq!(end(&[good(2), high(3)].concat(), 5, 4), Some(4), "short runs have less patience");
        assert_eq!(end(&good(3), 3, 4), None);
        // Above the end's limit, not above the other.
        assert_eq!(end(&[good(90), vec![2.0 * guess; 10]].concat(), 100, 4), Some(100));
        assert_eq!(end(&[good(90), vec![1.4 * guess; 10]].concat(), 100, 4), None);
        // A network that begins far from a guess is measured by its own beginning.
        assert_eq!(end(&[20.0; 100], 100, 2), None);
        assert_eq!(end(&[vec![20.0], vec![81.0; 99]].concat(), 100, 2), Some(11));
    }

    #[test]
    fn a_resumed_run_keeps_its_reference() {
        let mut watch = Divergence::new(100, Some(1.0));
        assert!((0..9).all(|_| watch.see(1e8, 4f64.ln(), false).is_none()) && watch.is_suspected());
        let told = watch.see(1e8, 4f64.ln(), false).unwrap();
        assert!(told.contains("10 updates in a row") && told.contains("guessing 1.386"), "{told}");
    }
}
