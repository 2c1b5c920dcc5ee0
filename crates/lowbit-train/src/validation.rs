//! Examples beside those that are trained on, by which the weights of a run are chosen.

use crate::Error;
use crate::data::{BatchTargets, Data};
use crate::network::Network;
use crate::tape::Pass;
use crate::trainer::check_targets;
use lowbit_model::exec::Batch;
use lowbit_model::predict;
use serde::{Deserialize, Serialize};

/// How weights did on validation examples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Mean loss: nats per target, or the squared error of scaled values.
    pub loss: f64,
    /// Share of targets that are the most likely class; none for values.
    pub accuracy: Option<f64>,
    /// Targets that count.
    pub count: u64,
}

impl Validation {
    /// Answers of a network to all examples.
    ///
    /// # Errors
    /// When the examples do not fit the network.
    pub(crate) fn of(network: &mut Network, examples: &dyn Data, batch_size: usize) -> Result<Self, Error> {
        let (mut loss, mut right, mut count, mut classes) = (0.0, 0u64, 0u64, true);
        let (mut batch, mut targets) = (Batch::default(), BatchTargets::default());
        let rows: Vec<usize> = (0..examples.len()).collect();
        for rows in rows.chunks(batch_size) {
            examples.fill(rows, &mut batch, &mut targets);
            let output = network.forward(&batch, Pass::Evaluate);
            check_targets(&targets, output.rows(), output.width())?;
            loss += network.tape.loss(&output, &targets, 0.0, 0.0);
            count += targets.counted() as u64;
            match &targets {
                BatchTargets::Classes(targets) => {
                    let values = network.tape.read(&output);
                    let best = values.chunks_exact(output.width()).map(predict::best);
                    right += best.zip(targets).filter(|(best, target)| *best == **target as usize).count() as u64;
                }
                BatchTargets::Values(_) => classes = false,
            }
        }
        let share = |n: f64| n / count.max(1) as f64;
        Ok(Validation { loss: share(loss), accuracy: classes.then(|| share(right as f64)), count })
    }

    /// Whether these weights did better than others: by accuracy, then by loss.
    pub(crate) fn beats(&self, other: &Validation) -> bool {
        let key = |v: &Validation| (v.accuracy.unwrap_or(0.0), -v.loss);
        key(self) > key(other)
    }
}
