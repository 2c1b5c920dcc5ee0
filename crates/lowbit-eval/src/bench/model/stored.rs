//! What is measured: a stored model, or one of a known shape made in memory.

use super::Plan;
use crate::error::Error;
use lowbit_base::memory::Footprint;
use lowbit_kernels::{Cpu, limits};
use lowbit_model::arch::OutputKind;
use lowbit_model::checkpoint;
use lowbit_model::input::Scaling;
use lowbit_model::parameter_list::ParameterList;
use lowbit_model::source::Role;
use lowbit_model::synthetic::{self, ModelShape, Synthetic};
use lowbit_model::{Checkpoint, Config, Model, ModelConfig, Param, Recipe, Tokenizer, recipe};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Seed of the weights of synthetic models.
const SEED: u64 = 1;
/// Longest sequence of a synthetic model that is written, tokens.
const CONTEXT: usize = 4096;

/// What takes less memory.
const REMEDY: &str = "take fewer tokens or threads, --cache-type int8, or a recipe with fewer bits";

/// What measuring the limits of the machine is called.
const LIMITS: &str = "measuring the limits";

/// A model to measure.
pub struct BenchModel {
    /// Its name in the table.
    pub name: String,
    /// Name of its recipe.
    pub recipe: &'static str,
    /// Number of parameters.
    pub params: u64,
    /// Entries of its token table.
    pub vocabulary: usize,
    /// Numbers of a row that it reads; 0 where it reads tokens.
    pub features: usize,
    /// What it gives.
    pub output: OutputKind,
    /// Longest sequence, if its positions have an end.
    pub positions: Option<usize>,
    /// Seconds until its weights were there.
    pub load_seconds: f64,
    /// The network.
    pub model: Arc<Model<Param>>,
}

impl BenchModel {
    /// Loads the model that `open` gives.
    ///
    /// # Errors
    /// When it is malformed, cannot be had under its recipe, or does not fit into memory with the sequences of
    /// a plan for each number of threads.
    pub fn load<E: From<Error>>(
        name: String,
        open: impl FnOnce() -> Result<Checkpoint, E>,
        plan: &Plan,
        cpus: &[Cpu],
    ) -> Result<Self, E> {
        let start = Instant::now();
        let checkpoint = open()?;
        let (config, recipe) = (&checkpoint.model_config().config, checkpoint.recipe());
        let need = checkpoint.need(REMEDY)?;
        let need = checkpoint.parameters().with_sequences(need, plan.cache, plan.tokens() * cpus.len());
        need.and(LIMITS, limits::BYTES as u64).check()?;
        Ok(Self::new(name, recipe, config, checkpoint.model()?, start)?)
    }

    /// Makes a random model of a shape, under the recipe such models usually run under if none is given.
    ///
    /// # Errors
    /// When there is no such shape, or it does not fit into memory, as for [`BenchModel::load`].
    pub fn synthetic(name: &str, recipe: Option<&'static Recipe>, plan: &Plan, cpus: &[Cpu]) -> Result<Self, Error> {
        let start = Instant::now();
        let (shape, recipe) = shape(name, recipe)?;
        let parameters = ParameterList::new(&shape.config())?;
        let need = Footprint::new(REMEDY).and("weights", parameters.bytes(recipe)?);
        let need = parameters.with_sequences(need, plan.cache, plan.tokens() * cpus.len());
        need.and(LIMITS, limits::BYTES as u64).check()?;
        let model = synthetic::model(&shape.config(), recipe, SEED)?;
        Self::new(format!("{name} (synthetic)"), recipe, &shape.config(), model, start)
    }

    fn new(name: String, recipe: &Recipe, config: &Config, model: Model<Param>, start: Instant) -> Result<Self, Error> {
        let load_seconds = start.elapsed().as_secs_f64();
        let parameters = ParameterList::new(config)?;
        let table = parameters.params().iter().find(|p| p.role == Role::Embedding);
        Ok(BenchModel {
            name,
            recipe: recipe.name,
            params: parameters.count(),
            vocabulary: table.map_or(1, |table| table.rows),
            features: config.features(),
            output: config.output(),
            positions: parameters.positions(),
            load_seconds,
            model: Arc::new(model),
        })
    }
}

/// Writes the model that [`BenchModel::synthetic`] makes, with a tokenizer of bytes where it reads tokens.
///
/// # Errors
/// When there is no such shape or writing fails.
pub fn save_synthetic(name: &str, recipe: Option<&'static Recipe>, directory: &Path) -> Result<(), Error> {
    let (shape, recipe) = shape(name, recipe)?;
    let config = shape.config();
    let (tokenizer, model_config) = match config.features() {
        0 => (Some(Tokenizer::bytes()), ModelConfig::new(config, CONTEXT)),
        features => {
            let scaling = Some((0..features).map(|_| (0.0, 1.0)).collect::<Scaling>());
            (None, ModelConfig { input_scaling: scaling, ..ModelConfig::new(config, 1) })
        }
    };
    let mut source = Synthetic::new(recipe, SEED);
    checkpoint::save(directory, &model_config, tokenizer.as_ref(), recipe, &mut source)
}

fn shape(name: &str, recipe: Option<&'static Recipe>) -> Result<(&'static ModelShape, &'static Recipe), Error> {
    let shape = synthetic::find(name)?;
    Ok((shape, recipe.map_or_else(|| recipe::find(shape.recipe), Ok)?))
}
