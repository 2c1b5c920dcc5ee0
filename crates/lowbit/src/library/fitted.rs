//! A trained network, and what becomes of it.

use super::{Error, Model};
use crate::training::Trained;
use lowbit_base::file;
use lowbit_kernels::Cpu;
use lowbit_model::checkpoint::{self, CONFIG_FILE, Options, WEIGHTS_FILE};
use lowbit_model::recipe;
use lowbit_train::Outcome;
use std::path::Path;
use tempfile::TempDir;

/// Bytes of a model file at most.
const MOST: u64 = 1 << 40;

/// A network that [`Sequential::fit`](crate::Sequential::fit) trained: f32 masters in a directory of its own, which goes with it.
pub struct Fitted {
    home: TempDir,
    model: Model,
    outcome: Outcome,
    cpu: Cpu,
}

impl Fitted {
    /// What a training leaves in a directory.
    pub(super) fn of(train: impl FnOnce(&Path) -> Result<Trained, Error>, cpu: &Cpu) -> Result<Self, Error> {
        let failed = |e| lowbit_base::Error::io(&std::env::temp_dir(), &e);
        let home = tempfile::Builder::new().prefix("lowbit-").tempdir().map_err(failed)?;
        let outcome = train(home.path())?.outcome;
        let model = Model::open(home.path())?.on(cpu.clone());
        Ok(Fitted { home, model, outcome, cpu: cpu.clone() })
    }

    /// The network as it was trained: low-bit layers with low-bit weights, made from the masters.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The directory of the masters, as long as this lives.
    pub fn directory(&self) -> &Path {
        self.home.path()
    }

    /// What the training did: updates, last loss, seconds, number of weights.
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// Stores the network with packed weights, as it was trained, in a directory, and opens it.
    ///
    /// # Errors
    /// [`Error::Io`] when writing fails.
    pub fn deploy(&self, directory: impl AsRef<Path>) -> Result<Model, Error> {
        let recipe = self.model.checkpoint().recipe().name;
        self.deploy_as(recipe, directory)
    }

    /// The same under another recipe: `bitnet_b3` stores ternary weights in 1.6 bits, `int8` rounds masters to 8.
    ///
    /// # Errors
    /// [`Error::UnknownName`] with the nearest recipe; [`Error::Io`] when writing fails.
    pub fn deploy_as(&self, recipe: &str, directory: impl AsRef<Path>) -> Result<Model, Error> {
        let directory = directory.as_ref();
        let recipe = recipe::find(recipe).map_err(|fault| Error::recipe(recipe, fault))?;
        checkpoint::quantize(self.model.checkpoint(), recipe, &Options::default(), directory)?;
        Ok(Model::open(directory)?.on(self.cpu.clone()))
    }

    /// Stores the f32 masters in a directory, from which `lowbit quantize` makes every recipe.
    ///
    /// # Errors
    /// [`Error::Io`] when writing fails.
    pub fn save(&self, directory: impl AsRef<Path>) -> Result<(), Error> {
        let directory = directory.as_ref();
        file::make(directory)?;
        for name in [CONFIG_FILE, WEIGHTS_FILE] {
            file::replace(&directory.join(name), &file::read(&self.home.path().join(name), MOST)?)?;
        }
        Ok(())
    }
}
