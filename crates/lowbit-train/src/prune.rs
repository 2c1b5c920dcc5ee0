//! Magnitude pruning of body matrices: unstructured, at once or by the schedule of arXiv 1710.01878, or two of four neighbours.
//!
//! A weight of a body matrix that is 0 stays 0, so that the weights themselves are the masks, also of a run that is resumed.

use crate::Error;
use crate::config::out_of_range;
use crate::optim::OptimizerState;
use crate::params::Param;
use crate::tape::Tape;
use lowbit_model::source::Role;
use serde::{Deserialize, Serialize};

/// Inputs that share a pattern.
const GROUP: usize = 4;
/// Weights of a group that stay.
const KEPT: usize = 2;
/// Prunings of a schedule that names no frequency.
const STEPS: u64 = 100;
/// Values that a thread takes together.
const GRAIN: usize = 1 << 16;

/// Which weights of every four inputs stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pattern {
    /// The two of largest magnitude.
    #[serde(rename = "2:4")]
    TwoOfFour,
}

/// Pruning of the body matrices by magnitude; `sparsity` or `pattern` must be given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Prune {
    /// Share of the weights of each matrix that becomes 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sparsity: Option<f32>,
    /// Weights of neighbouring inputs that stay, in place of a share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<Pattern>,
    /// The update before which pruning begins, counted from 0.
    pub begin_step: u64,
    /// The update before which the share is reached, which rises as `sparsity * (1 - (1 - t)^3)`; that of the begin if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_step: Option<u64>,
    /// Updates from one pruning to the next on the way; a hundredth of them if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency: Option<u64>,
}

/// What is pruned before an update.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Due {
    /// This share of each matrix.
    Share(f64),
    /// By the pattern.
    Pattern,
}

impl Prune {
    /// Sees that all is in range and fits a run of so many updates.
    pub(crate) fn validate(&self, steps: u64) -> Result<(), Error> {
        match (self.sparsity, self.pattern) {
            (None, None) => return Err(out_of_range("prune.sparsity", "missing", "given (or `pattern`)")),
            (Some(_), Some(_)) => {
                return Err(out_of_range("prune.pattern", "given beside `sparsity`", "one of the two"));
            }
            (Some(share), None) if !(share > 0.0 && share < 1.0) => {
                return Err(out_of_range("prune.sparsity", share, "above 0 and below 1"));
            }
            (None, Some(_)) if self.end_step.is_some() => {
                return Err(out_of_range(
                    "prune.end_step",
                    "given beside `pattern`",
                    "absent: a pattern has no share that rises",
                ));
            }
            _ => {}
        }
        if self.frequency == Some(0) {
            return Err(out_of_range("prune.frequency", 0, "at least 1"));
        }
        if self.begin_step > self.end() {
            return Err(out_of_range(
                "prune.end_step",
                self.end(),
                &format!("at least `begin_step`, {}", self.begin_step),
            ));
        }
        if self.end() >= steps {
            let field = if self.end_step.is_some() { "prune.end_step" } else { "prune.begin_step" };
            return Err(out_of_range(field, self.end(), &format!("below the number of steps, {steps}")));
        }
        Ok(())
    }

    fn end(&self) -> u64 {
        self.end_step.unwrap_or(self.begin_step)
    }

    /// Whether weights after so many updates are as sparse as was asked for.
    pub(crate) fn is_done(&self, steps: u64) -> bool {
        steps > self.end()
    }

    /// What is pruned before an update, counted from 0.
    fn due(&self, step: u64) -> Option<Due> {
        let (begin, end) = (self.begin_step, self.end());
        let frequency = self.frequency.unwrap_or(((end - begin) / STEPS).max(1));
        let is_due = step == end || (begin..end).contains(&step) && (step - begin).is_multiple_of(frequency);
        let Some(sparsity) = self.sparsity.filter(|_| is_due) else { return is_due.then_some(Due::Pattern) };
        let left = if step == end { 0.0 } else { 1.0 - (step - begin) as f64 / (end - begin) as f64 };
        Some(Due::Share(f64::from(sparsity) * (1.0 - left.powi(3))))
    }

    /// Prunes what is to be pruned before an update, counted from 0.
    ///
    /// # Errors
    /// Usage: a matrix has rows that are not whole groups of a pattern.
    pub(crate) fn before(&self, tape: &mut Tape, step: u64) -> Result<(), Error> {
        let Some(due) = self.due(step) else { return Ok(()) };
        for param in tape.params.iter_mut().filter(|param| is_pruned(param)) {
            let (cols, name) = (param.spec.cols, param.spec.name.clone());
            let Some(values) = param.trained_mut() else { continue };
            match due {
                Due::Share(share) => smallest(values, share),
                Due::Pattern if cols.is_multiple_of(GROUP) => two_of_four(values),
                Due::Pattern => {
                    let text = format!("`{name}` has {cols} inputs, which is no multiple of {GROUP}");
                    return Err(Error::usage(format!("train: `prune.pattern` 2:4: {text}: use `sparsity`")));
                }
            }
            param.changed();
        }
        Ok(())
    }
}

/// Makes the gradients and first moments of weights that are 0 zero, so that an update leaves them.
pub(crate) fn hold(tape: &mut Tape, optimizer: &mut OptimizerState) {
    let Tape { params, gradients_of_params: gradients, cpu, .. } = tape;
    for (id, moments) in params.ids().zip(optimizer.iter_mut()) {
        let param = params.get(id);
        let (Some(values), Some(gradient)) = (param.trained().filter(|_| is_pruned(param)), gradients.get_mut(id))
        else {
            continue;
        };
        for sums in [gradient, &mut moments.first[..]].into_iter().filter(|sums| !sums.is_empty()) {
            cpu.pool.for_rows(values.len(), GRAIN, [(sums, 1)], |range, [sums]| {
                sums.iter_mut().zip(&values[range]).filter(|(_, w)| **w == 0.0).for_each(|(sum, _)| *sum = 0.0);
            });
        }
    }
}

/// Whether pruning is for a parameter.
fn is_pruned(param: &Param) -> bool {
    param.spec.role == Role::Body
}

/// Sets the share of smallest magnitude to 0; of equal ones the first.
fn smallest(values: &mut [f32], share: f64) {
    let count = (share * values.len() as f64).round() as usize;
    if count == 0 {
        return;
    }
    let magnitude = |(i, w): (usize, &f32)| (w.abs().to_bits(), i);
    let mut order: Vec<(u32, usize)> = values.iter().enumerate().map(magnitude).collect();
    order.select_nth_unstable(count - 1);
    order[..count].iter().for_each(|(_, i)| values[*i] = 0.0);
}

/// Keeps the two of largest magnitude of every four; of equal ones the first.
fn two_of_four(values: &mut [f32]) {
    for group in values.as_chunks_mut::<GROUP>().0 {
        let mut order: [usize; GROUP] = std::array::from_fn(|i| i);
        order.sort_by_key(|i| (std::cmp::Reverse(group[*i].abs().to_bits()), *i));
        order[KEPT..].iter().for_each(|i| group[*i] = 0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_rise_by_the_cubic_schedule_and_end_at_theirs() {
        let prune = Prune { sparsity: Some(0.8), begin_step: 10, end_step: Some(50), ..Prune::default() };
        let prune = Prune { frequency: Some(10), ..prune };
        let found: Vec<(u64, Due)> = (0..60).filter_map(|step| Some((step, prune.due(step)?))).collect();
        // `s_f + (s_i - s_f) (1 - t)^3` with `s_i = 0`.
        let expected = [(10, 0.0), (20, 0.4625), (30, 0.7), (40, 0.7875), (50, 0.8)];
        assert_eq!(found.len(), expected.len());
        for ((step, due), (at, share)) in found.into_iter().zip(expected) {
            let Due::Share(found) = due else { panic!("{due:?}") };
            assert!(step == at && (found - share).abs() < 1e-6, "step {step}: {found}");
        }
        let at_once = Prune { sparsity: Some(0.5), ..Prune::default() };
        assert_eq!((at_once.due(0), at_once.due(1)), (Some(Due::Share(0.5)), None));
        assert_eq!(Prune { pattern: Some(Pattern::TwoOfFour), ..Prune::default() }.due(0), Some(Due::Pattern));
    }

    #[test]
    fn the_smallest_go_and_the_first_of_equals() {
        let mut values = [0.5, -0.1, 0.2, -0.2, 3.0];
        smallest(&mut values, 0.4);
        assert_eq!(values, [0.5, 0.0, 0.0, -0.2, 3.0]);
        let mut values = [0.5, -0.1, 0.2, -3.0, 1.0, 1.0, -1.0, 1.0];
        two_of_four(&mut values);
        assert_eq!(values, [0.5, 0.0, 0.0, -3.0, 1.0, 1.0, 0.0, 0.0]);
    }
}
