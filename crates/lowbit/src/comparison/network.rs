//! A network of a comparison: how rows become what it reads, what training begins from, and the rows so encoded.

use crate::suite::{Suite, Variant};
use crate::training;
use lowbit_base::Error;
use lowbit_eval::read::Rows;
use lowbit_eval::task::{Splits, Task};
use lowbit_kernels::Cpu;
use lowbit_model::{Checkpoint, Encoder, ModelConfig};
use lowbit_train::{Labelled, TrainConfig};
use std::cell::OnceCell;
use std::path::Path;
use std::rc::Rc;

/// One network.
pub(super) struct Network {
    /// The suite with this network as its own.
    pub suite: Suite,
    /// How rows become what the network reads.
    pub encoder: Encoder,
    /// The model that training begins from.
    pub begin: Option<Rc<Checkpoint>>,
    /// Rows that are trained on, and those by which the best weights are chosen.
    rows: OnceCell<(Labelled, Option<Labelled>)>,
}

impl Network {
    /// The network of a variant.
    pub(super) fn of(
        suite: &Suite,
        variant: &Variant,
        task: &Task,
        train: &Rows,
        at: (Option<&Path>, &Cpu),
    ) -> Result<Self, Error> {
        let (suite, (data, cpu)) = (suite.of(variant), at);
        let begin = suite.begin(data, cpu)?.map(Rc::new);
        let encoder = suite.encoder(task, train, begin.as_deref())?;
        Ok(Network { suite, encoder, begin, rows: OnceCell::new() })
    }

    /// What a variant that is trained is, and how it is trained.
    pub(super) fn settings(
        &self,
        task: &Task,
        splits: &Splits,
        variant: &Variant,
    ) -> Result<(ModelConfig, TrainConfig), Error> {
        let begin = self.begin.as_deref();
        let model_config = self.suite.model_config(task, &self.encoder, &splits.train, variant, begin)?;
        let model_config = ModelConfig { input: splits.columns.clone(), ..model_config };
        Ok((model_config, self.suite.train_config(variant)?))
    }

    /// The rows for training, encoded once.
    pub(super) fn rows(&self, train: &Rows, config: &ModelConfig) -> Result<&(Labelled, Option<Labelled>), Error> {
        if let Some(rows) = self.rows.get() {
            return Ok(rows);
        }
        let rows = training::parts(&self.suite, train, &self.encoder, config)?;
        Ok(self.rows.get_or_init(|| rows))
    }
}
