//! The model a command works on: the one place where a path, `-m` and a recipe become a checkpoint.

use super::Machine;
use crate::failure::Failure;
use lowbit_kernels::Cpu;
use lowbit_kernels::ops::CacheKind;
use lowbit_model::{Checkpoint, Recipe, recipe};
use std::path::{Path, PathBuf};

/// Which model.
#[derive(Debug, clap::Args)]
pub struct ModelPath {
    /// A directory, a GGUF or safetensors file, or an `org/name` of the Hub's cache.
    model: Option<PathBuf>,
    /// The same as MODEL.
    #[arg(id = "named_model", short = 'm', long = "model", value_name = "MODEL", conflicts_with = "model")]
    named: Option<PathBuf>,
}

impl ModelPath {
    /// The path, however it was given.
    pub fn get(&self) -> Option<&Path> {
        self.model.as_deref().or(self.named.as_deref())
    }

    /// The path.
    ///
    /// # Errors
    /// When none was given.
    pub fn path(&self) -> Result<&Path, Failure> {
        self.get().ok_or_else(|| Failure::usage("which model? Give MODEL (or -m MODEL): a directory or a file"))
    }
}

/// Under which recipe.
#[derive(Debug, clap::Args)]
pub struct ModelRecipe {
    /// Recipe of the network, e.g. `f32` for the masters, `stored+act=f32` for the matrices as they are stored and products of floats
    /// [default: the one it is stored under or was trained for]; `lowbit inspect MODEL --recipes` lists them.
    #[arg(long)]
    recipe: Option<String>,
}

impl ModelRecipe {
    /// The recipe asked for.
    ///
    /// # Errors
    /// When there is none of this name; lists them.
    pub fn get(&self) -> Result<Option<&'static Recipe>, Failure> {
        Ok(self.recipe.as_deref().map(recipe::find).transpose()?)
    }
}

/// Opens a model under a recipe, else under its own, on the threads of a CPU; says what was ignored.
///
/// # Errors
/// When the model is malformed or missing.
pub fn open(machine: &Machine, path: &Path, recipe: Option<&'static Recipe>, cpu: &Cpu) -> Result<Checkpoint, Failure> {
    let checkpoint = Checkpoint::open(path)?.on(cpu).under(recipe);
    machine.terminal.notes(checkpoint.notices());
    machine.terminal.notes(checkpoint.departure(checkpoint.recipe())?);
    Ok(checkpoint)
}

/// As [`open`], and compares the weights with their checksums, where the file holds any.
///
/// # Errors
/// As [`open`], and when the data of a tensor changed; names it.
pub fn open_verified(
    machine: &Machine,
    path: &Path,
    recipe: Option<&'static Recipe>,
    cpu: &Cpu,
) -> Result<Checkpoint, Failure> {
    let checkpoint = open(machine, path, recipe, cpu)?;
    checkpoint.verify()?;
    Ok(checkpoint)
}

/// How keys and values are stored, by the names that a flag was given, of which several must agree.
///
/// # Errors
/// When they do not.
pub fn cache(flag: &str, names: &[String]) -> Result<CacheKind, Failure> {
    if names.iter().any(|name| *name != names[0]) {
        return Err(Failure::usage(format!("keys and values are stored alike: give {flag} once")));
    }
    let found = CacheKind::ALL.into_iter().find(|(known, _)| names.iter().any(|name| name == known));
    Ok(found.map_or_else(CacheKind::default, |(_, kind)| kind))
}

/// The last part of a model's path, its name in records.
pub fn name_of(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.into());
    whole.file_name().map_or("model".into(), |name| name.to_string_lossy().into_owned())
}
