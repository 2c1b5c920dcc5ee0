//! A network in training: an architecture and its parameters.

use crate::Error;
use crate::backward::Again;
use crate::config::Precision;
use crate::params::{ParamId, Params};
use crate::qat::Qat;
use crate::replay::Replay;
use crate::tape::{Pass, Tape, Tensor};
use lowbit_kernels::Cpu;
use lowbit_model::exec::Batch;
use lowbit_model::{Config, Model};

/// An architecture with its parameters on a [`Tape`].
pub struct Network {
    model: Model<ParamId>,
    /// The interpreter and the parameters.
    pub tape: Tape,
}

impl Network {
    /// A network with freshly drawn parameters.
    ///
    /// # Errors
    /// When the configuration contradicts itself.
    pub fn new(cpu: &Cpu, config: &Config, seed: u64, qat: Option<Qat>) -> Result<Self, Error> {
        let (model, params) = Params::initialise(config, seed)?;
        Ok(Network { model, tape: Tape::new(cpu, params, qat) })
    }

    /// A network of these parameters.
    pub(crate) fn of(model: Model<ParamId>, tape: Tape) -> Self {
        Network { model, tape }
    }

    /// The parameters.
    pub fn params(&self) -> &Params {
        &self.tape.params
    }

    /// Logits `[tokens, vocabulary]`, or `[sequences, classes]` for a classifier.
    pub fn forward(&mut self, batch: &Batch, pass: Pass) -> Tensor {
        self.tape.begin(batch, pass);
        self.model.forward(&mut self.tape)
    }

    /// Whether blocks keep their input alone in a forward pass for training and run again in [`Network::backward`], which
    /// takes less memory, more time, and gives the same bits.
    pub fn set_checkpointing(&mut self, on: bool) {
        self.tape.checkpointing = on;
    }

    /// What matrix products of training round their operands to.
    pub fn set_precision(&mut self, precision: Precision) {
        self.tape.precision = precision.kernel();
    }

    /// Runs the recorded operations backwards, as [`Tape::backward`], and blocks that kept their input alone once more.
    pub fn backward(&mut self) {
        self.tape.replaying = true;
        while let Some(Again { index, input, dy }) = self.tape.backward_to_block() {
            let mut replay = Replay::new(&mut self.tape, index, input);
            self.model.forward(&mut replay);
            let output = replay.output();
            self.tape.accumulate(output.slot(), dy);
        }
        self.tape.replaying = false;
    }

    /// Logits without dropout, row-major, with their width.
    pub fn logits(&mut self, batch: &Batch) -> (Vec<f32>, usize) {
        let logits = self.forward(batch, Pass::Evaluate);
        (self.tape.read(&logits), logits.width())
    }
}
