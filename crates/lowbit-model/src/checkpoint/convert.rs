//! Converting a model between layouts: what is written where nobody names a type keeps the weights exactly.

use super::gguf::stored_type;
use super::{Checkpoint, GgufTypes, Options, Written, quantize, save_gguf, weights_of};
use crate::container::gguf::{TYPES, Type, find};
use crate::parameter_list::bytes_of;
use crate::source::Role;
use crate::{Error, Recipe, recipe};
use lowbit_base::memory::Footprint;
use std::path::{Path, PathBuf};

/// The layout a conversion writes.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// A GGUF file.
    Gguf {
        /// Type of the body; `None` for those that keep it exactly.
        body: Option<&'static Type>,
        /// Type of table and head; `None` for the narrower of F16 and BF16 that holds their values exactly.
        table: Option<&'static Type>,
    },
    /// A directory of this project, or a file of it.
    Directory {
        /// Its recipe; `None` for the one the model is stored under, if that keeps the weights exactly.
        recipe: Option<&'static Recipe>,
    },
}

/// What a conversion wrote.
#[derive(Clone, Debug)]
pub struct Converted {
    /// The file with the weights.
    pub weights: PathBuf,
    /// Type of the body, or name of the recipe.
    pub kind: String,
    /// What is stored in each type or format.
    pub written: Vec<Written>,
}

impl Target {
    /// The layout of a path: a GGUF file by its extension, else a directory, or a file that ends in `.safetensors`; `kind` names the type of the body or the recipe,
    /// `table` the type of table and head.
    ///
    /// # Errors
    /// When there is no such type or recipe, or a directory is given a type for the table.
    pub fn of(path: &Path, kind: Option<&str>, table: Option<&str>) -> Result<Self, Error> {
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) {
            let of = |name: Option<&str>| name.map(gguf_type).transpose();
            return Ok(Target::Gguf { body: of(kind)?, table: of(table)? });
        }
        match table {
            Some(_) => {
                Err(Error::usage("--table is for GGUF files; in a directory the recipe tells the type of the table"))
            }
            None => Ok(Target::Directory { recipe: kind.map(recipe::find).transpose()? }),
        }
    }
}

/// Writes a model in another layout.
///
/// # Errors
/// When no type is named and none keeps the weights exactly, a type cannot hold a matrix, the output would replace the input, or
/// writing fails; no output is left then.
pub fn convert(model: &Checkpoint, path: &Path, target: Target) -> Result<Converted, Error> {
    if matches!((model.path().canonicalize(), path.canonicalize()), (Ok(a), Ok(b)) if a == b) {
        return Err(Error::usage(format!("{}: the output would replace the input", path.display())));
    }
    match target {
        Target::Gguf { body, table } => {
            let body = if body.is_none() { exact_type(model)? } else { body };
            let written = save_gguf(model, path, GgufTypes { body, table })?;
            let kind = body.map_or(recipe::STORED, |body| body.name).into();
            Ok(Converted { weights: path.into(), kind, written })
        }
        Target::Directory { recipe } => {
            let recipe = recipe.map_or_else(|| exact_recipe(model), |asked| Ok(model.resolve(asked)))?;
            quantize(model, recipe, &Options::default(), path)?;
            Ok(Converted { weights: weights_of(path), kind: recipe.name.into(), written: formats(model, recipe)? })
        }
    }
}

/// The type of a name, if it is written.
fn gguf_type(name: &str) -> Result<&'static Type, Error> {
    find(name).filter(|kind| kind.is_written()).ok_or_else(|| {
        let known: Vec<_> = TYPES.iter().filter(|t| t.is_written()).map(|t| t.name.to_lowercase()).collect();
        Error::usage(format!("`{name}` is no type that is written to GGUF files; known: {}", known.join(", ")))
    })
}

/// The GGUF type that keeps a ternary body exactly, in the program that computes such a network; none, where matrices are stored in
/// types of GGUF.
fn exact_type(model: &Checkpoint) -> Result<Option<&'static Type>, Error> {
    if model.recipe().is_ternary() {
        return gguf_type(model.model_config().config.gguf_ternary_type()?).map(Some);
    }
    for spec in model.parameters().params().iter().filter(|spec| spec.role == Role::Body) {
        if stored_type(model, spec)?.is_some() {
            return Ok(None);
        }
    }
    let text =
        "name a type with --type: f32 and bf16 keep such weights exactly, f16, q8_0, q6_k, q4_k and others round";
    Err(Error::usage(text))
}

/// The recipe the model is stored under, if table and head keep their values in it.
fn exact_recipe(model: &Checkpoint) -> Result<&'static Recipe, Error> {
    let recipe = model.recipe();
    // Masters under the recipe they were trained for are that network.
    if model.model_config().trained_for.as_deref() == Some(recipe.name) {
        return Ok(recipe);
    }
    // What is stored packed is copied.
    if model.asked.is_none() && model.reader.is_mapped() {
        return Ok(recipe);
    }
    for spec in model.parameters().params().iter().filter(|p| matches!(p.role, Role::Embedding | Role::Head)) {
        let values = 8 * spec.rows as u64 * spec.cols as u64;
        Footprint::new("name the recipe with --type")
            .and(format!("values of tensor `{}`", spec.name), values)
            .check()?;
        if model.packed(spec)?.dequantize() != model.master(spec)? {
            let text = format!("tensor `{}` would be rounded to {} under the recipe", spec.name, recipe.embedding);
            let text = format!("{text} {}; name it with --type to accept that, or f32 to keep all", recipe.name);
            return Err(Error::usage(text));
        }
    }
    Ok(recipe)
}

/// Formats of the parameters under a recipe.
fn formats(model: &Checkpoint, recipe: &Recipe) -> Result<Vec<Written>, Error> {
    let mut all: Vec<Written> = Vec::new();
    for spec in model.parameters().params() {
        let name = recipe.format_of(spec)?.map_or("f32 (vectors)", |format| format.name());
        let bytes = bytes_of(spec, recipe)?;
        match all.iter_mut().find(|written| written.name == name) {
            Some(written) => {
                written.tensors.push(spec.name.clone());
                written.bytes += bytes;
            }
            None => all.push(Written { name, tensors: vec![spec.name.clone()], bytes, ..Written::default() }),
        }
    }
    Ok(all)
}
