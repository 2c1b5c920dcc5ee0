//! Checkpoints: a model directory is `config.json`, `model.safetensors` and `tokenizer.json`.
//!
//! A matrix is stored either as a plain `F32`, `BF16` or `F16` tensor `[rows, cols]` under its own name (masters, from
//! which training continues and every recipe is made), or packed: each part of its format as a `U8` tensor
//! `<name>.<part>`, its format and shape in the metadata `lowbit.formats`. Vectors are always plain.

use crate::card::Card;
use crate::container::{Tensors, show};
use crate::listing::Listing;
use crate::recipe::Activations;
use crate::source::{ParamSpec, Role, Source};
use crate::{Error, Model, Param, Recipe, Tokenizer, recipe};
use lowbit_kernels::{Bytes, Packed, QuantizeOptions};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

mod ledger;
mod save;

pub use ledger::{Row, ledger};
pub use save::{quantize, save_masters};

/// Metadata pair: version of this layout.
const VERSION_KEY: &str = "lowbit.format";
const VERSION: &str = "1";
/// Metadata pair: name of the recipe.
const RECIPE_KEY: &str = "lowbit.recipe";
/// Metadata pair: JSON object from matrix to [`Stored`].
const FORMATS_KEY: &str = "lowbit.formats";

/// File names of a model directory.
pub const CONFIG_FILE: &str = "config.json";
/// The weights.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// The tokenizer.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// How a packed matrix is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: String,
    rows: usize,
    cols: usize,
}

/// What [`QuantizeOptions`] each matrix gets, by its name; the others get the default.
pub type Options = BTreeMap<String, QuantizeOptions>;

/// An opened model directory; the weights are mapped, nothing is copied before it is asked for.
pub struct Checkpoint {
    directory: PathBuf,
    tensors: Tensors,
    card: Card,
    recipe: &'static Recipe,
    formats: BTreeMap<String, Stored>,
    listing: Listing,
    notices: Vec<String>,
}

impl Checkpoint {
    /// Opens a model directory, or the weights file inside one, and checks that every tensor the configuration asks for
    /// is there with its shape, and no other.
    ///
    /// # Errors
    /// [`Kind::Input`](crate::Kind) naming file, tensor or field, value and remedy; [`Kind::Io`](crate::Kind) when a file
    /// cannot be read.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let (directory, weights) = locate(path)?;
        let tensors = Tensors::open(&weights)?;
        let config_path = directory.join(CONFIG_FILE);
        let (card, notices) = Card::load(&config_path)?;
        let listing = Listing::new(&card.config).map_err(|e| Error { path: Some(config_path), ..e })?;
        let at = |text: String| Error::input(&weights, text);
        let metadata = tensors.metadata();
        if let Some(version) = metadata.get(VERSION_KEY).filter(|v| *v != VERSION) {
            let text = format!("metadata `{VERSION_KEY}` is `{}`; this program reads {VERSION}", show(version));
            return Err(at(text));
        }
        let recipe = metadata.get(RECIPE_KEY).map_or("f32", |name| name.as_str());
        let recipe = recipe::find(recipe).map_err(|e| at(format!("metadata `{RECIPE_KEY}`: {e}")))?;
        let formats = metadata.get(FORMATS_KEY).map_or(Ok(BTreeMap::new()), |json| serde_json::from_str(json));
        let formats = formats.map_err(|e| at(format!("metadata `{FORMATS_KEY}`: {e}")))?;
        let checkpoint = Checkpoint { directory, tensors, card, recipe, formats, listing, notices };
        checkpoint.check_tensors()?;
        Ok(checkpoint)
    }

    /// The directory it lies in.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The content of `config.json`.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// The recipe the weights are stored under; `f32` for masters.
    pub fn recipe(&self) -> &'static Recipe {
        self.recipe
    }

    /// Names, shapes and roles of the parameters.
    pub fn listing(&self) -> &Listing {
        &self.listing
    }

    /// The weights file.
    pub fn tensors(&self) -> &Tensors {
        &self.tensors
    }

    /// One line for each key of `config.json` that was ignored.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// The tokenizer of the directory.
    ///
    /// # Errors
    /// When it is missing or wrong, or has more entries than a table of the model.
    pub fn tokenizer(&self) -> Result<Tokenizer, Error> {
        let path = self.directory.join(TOKENIZER_FILE);
        let tokenizer = Tokenizer::load(&path)?;
        let table = self.listing.params().iter().find(|p| p.role == Role::Embedding);
        match table.filter(|table| tokenizer.vocab_size() > table.rows) {
            None => Ok(tokenizer),
            Some(table) => {
                let (has, name, rows) = (tokenizer.vocab_size(), &table.name, table.rows);
                let text = format!("has {has} entries, but tensor `{name}` has {rows} rows");
                Err(Error::input(&path, format!("{text}; the two are not of one model")))
            }
        }
    }

    /// Loads the network as it is stored.
    ///
    /// # Errors
    /// When the data of a tensor is corrupt; names tensor, part and index.
    pub fn model(&self) -> Result<Model<Param>, Error> {
        let mut source = self;
        Model::build(&self.card.config, &mut source)
    }

    /// Makes the network of a recipe from masters, in memory.
    ///
    /// # Errors
    /// When a matrix is stored packed, or a weight is NaN or infinite; names tensor and index.
    pub fn model_as(&self, recipe: &'static Recipe, options: &Options) -> Result<Model<Param>, Error> {
        Model::build(&self.card.config, &mut Quantizing { checkpoint: self, recipe, options })
    }

    /// The f32 values of a parameter, `[rows, cols]`.
    ///
    /// # Errors
    /// When it is stored packed, or a value is NaN or infinite; names tensor and index.
    pub fn master(&self, spec: &ParamSpec) -> Result<Vec<f32>, Error> {
        if let Some(stored) = self.formats.get(&spec.name) {
            let text = format!("tensor `{}` is stored as {} (recipe {})", spec.name, stored.format, self.recipe.name);
            let text = format!("{text}; training and quantizing start from a checkpoint with f32 masters");
            return Err(Error::input(self.tensors.path(), text));
        }
        let values = self.tensors.floats(&spec.name)?;
        self.check_shape(spec, &self.tensors.entry(&spec.name).expect("just read").shape)?;
        Ok(values)
    }

    /// A matrix as it is stored; a plain tensor becomes the format `f32`.
    ///
    /// # Errors
    /// When its data is corrupt; names tensor, part and index.
    pub fn packed(&self, spec: &ParamSpec) -> Result<Packed, Error> {
        match self.formats.get(&spec.name) {
            Some(stored) => self.unpack(&spec.name, stored),
            None => self.quantized(spec, recipe::find("f32")?, &Options::new()),
        }
    }

    fn unpack(&self, name: &str, stored: &Stored) -> Result<Packed, Error> {
        let at = |text: String| Error::input(self.tensors.path(), format!("tensor `{name}`: {text}"));
        let format = lowbit_kernels::format::find(&stored.format).map_err(|e| at(e.to_string()))?;
        let parts = format.parts(stored.rows, stored.cols, &[]);
        let bytes = parts.iter().map(|part| match self.tensors.bytes(&part_name(name, part.name)) {
            Some(bytes) => Ok(bytes),
            None if part.bytes == 0 => Ok(Bytes::new([])),
            None => Err(at(format!("part `{}` of {} is missing", part.name, stored.format))),
        });
        let bytes = bytes.collect::<Result<_, _>>()?;
        Packed::from_parts(format, stored.rows, stored.cols, bytes).map_err(|e| at(e.to_string()))
    }

    /// Masters stored in the format a recipe has for them.
    fn quantized(&self, spec: &ParamSpec, recipe: &Recipe, options: &Options) -> Result<Packed, Error> {
        let format = recipe.format(spec.role)?.expect("matrices have a format");
        let default = QuantizeOptions::default();
        let options = options.get(&spec.name).unwrap_or(&default);
        let weights = self.master(spec)?;
        let packed = format.quantize(&weights, spec.rows, spec.cols, options);
        packed.map_err(|e| Error::input(self.tensors.path(), format!("tensor `{}`: {e}", spec.name)))
    }

    fn param_of(
        &self,
        spec: &ParamSpec,
        recipe: &Recipe,
        packed: impl FnOnce() -> Result<Packed, Error>,
    ) -> Result<Param, Error> {
        match spec.role {
            Role::Norm | Role::Bias => Ok(Param::Vector(self.master(spec)?)),
            role => Ok(Param::Matrix {
                name: spec.name.as_str().into(),
                role,
                packed: packed()?,
                int8_activations: recipe.activations(role) == Activations::Int8,
            }),
        }
    }

    /// Every tensor that is asked for is there with its shape, and nothing else is.
    fn check_tensors(&self) -> Result<(), Error> {
        let at = |text: String| Error::input(self.tensors.path(), text);
        let mut expected = BTreeSet::new();
        for spec in self.listing.params() {
            let vector = matches!(spec.role, Role::Norm | Role::Bias);
            match self.formats.get(&spec.name).filter(|_| !vector) {
                Some(stored) => {
                    self.check_shape(spec, &[stored.rows, stored.cols])?;
                    let format = lowbit_kernels::format::find(&stored.format);
                    let format = format.map_err(|e| at(format!("tensor `{}`: {e}", spec.name)))?;
                    let parts = format.parts(stored.rows, stored.cols, &[]);
                    expected.extend(parts.iter().map(|part| part_name(&spec.name, part.name)));
                }
                None => {
                    let Some(entry) = self.tensors.entry(&spec.name) else {
                        let shape = format!("[{}, {}]", spec.rows, spec.cols);
                        let text = format!("tensor `{}` {shape} is missing, but {CONFIG_FILE} asks for it", spec.name);
                        return Err(at(format!("{text}; the two are not of one model")));
                    };
                    self.check_shape(spec, &entry.shape)?;
                    expected.insert(spec.name.clone());
                }
            }
        }
        let known = |name: &&String| !expected.contains(*name);
        let packed = self.formats.keys().filter(|name| !self.listing.params().iter().any(|p| p.name == **name));
        match self.tensors.names().iter().find(known).or(packed.into_iter().next()) {
            None => Ok(()),
            Some(name) => {
                let text = format!("tensor `{}` is in the file, but {CONFIG_FILE} does not ask for it", show(name));
                Err(at(format!("{text}; the two are not of one model")))
            }
        }
    }

    /// Compares a stored shape with the configuration; the message names the fields that ask for another.
    fn check_shape(&self, spec: &ParamSpec, shape: &[usize]) -> Result<(), Error> {
        let vector = matches!(spec.role, Role::Norm | Role::Bias);
        let expected = if vector { vec![spec.cols] } else { vec![spec.rows, spec.cols] };
        if shape == expected {
            return Ok(());
        }
        let config = serde_json::to_value(&self.card.config).expect("a configuration is plain data");
        let numbers = config.as_object().into_iter().flatten().filter_map(|(k, v)| Some((k, v.as_u64()? as usize)));
        let odd = |n: usize| expected.contains(&n) && !shape.contains(&n);
        let fields: Vec<_> = numbers.filter(|(_, n)| odd(*n)).map(|(k, n)| format!("`{k}` = {n}")).collect();
        let fields = if fields.is_empty() { String::new() } else { format!(" ({})", fields.join(", ")) };
        let text = format!("tensor `{}` is {shape:?}, but {CONFIG_FILE} asks for {expected:?}{fields}", spec.name);
        Err(Error::input(self.tensors.path(), format!("{text}; the two are not of one model")))
    }
}

impl Source<Param> for &Checkpoint {
    fn param(&mut self, spec: &ParamSpec) -> Result<Param, Error> {
        self.param_of(spec, self.recipe, || self.packed(spec))
    }
}

/// Masters on their way into a recipe.
struct Quantizing<'a> {
    checkpoint: &'a Checkpoint,
    recipe: &'static Recipe,
    options: &'a Options,
}

impl Source<Param> for Quantizing<'_> {
    fn param(&mut self, spec: &ParamSpec) -> Result<Param, Error> {
        let packed = || self.checkpoint.quantized(spec, self.recipe, self.options);
        self.checkpoint.param_of(spec, self.recipe, packed)
    }
}

fn part_name(matrix: &str, part: &str) -> String {
    format!("{matrix}.{part}")
}

/// The directory and the weights file of a path.
fn locate(path: &Path) -> Result<(PathBuf, PathBuf), Error> {
    let meta = std::fs::metadata(path).map_err(|e| Error::io(path, &e))?;
    if !meta.is_dir() {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        return Ok((parent.into(), path.into()));
    }
    let weights = path.join(WEIGHTS_FILE);
    if !weights.exists() {
        let pickle =
            ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt"].iter().find(|f| path.join(f).exists());
        let text = match pickle {
            Some(file) => {
                format!("holds `{file}` but no {WEIGHTS_FILE}: pickle is executable code, convert it to safetensors")
            }
            None => format!("holds no {WEIGHTS_FILE}; name a model directory"),
        };
        return Err(Error::input(path, text));
    }
    Ok((path.into(), weights))
}
