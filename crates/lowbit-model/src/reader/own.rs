//! The project's own layout: a directory of `config.json`, `model.safetensors` and `tokenizer.json`, or one file that holds all.

use super::{CheckpointReader, ReadRows, Stored, Values};
use crate::checkpoint::{
    CONFIG_FILE, CONFIG_KEY, FORMATS_KEY, PackedEntry, RECIPE_KEY, TOKENIZER_FILE, TOKENIZER_KEY, VERSION, VERSION_KEY,
    WEIGHTS_FILE, part_name,
};
use crate::container::{Tensors, show};
use crate::parameter_list::ParameterList;
use crate::source::ParamSpec;
use crate::{Error, Kind, ModelConfig, Recipe, Tokenizer, recipe};
use lowbit_kernels::{Bytes, Format, Packed, Pool};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// An opened directory; the weights are mapped.
pub(super) struct Own {
    directory: PathBuf,
    tensors: Tensors,
    model_config: ModelConfig,
    recipe: &'static Recipe,
    formats: BTreeMap<String, PackedEntry>,
    notices: Vec<String>,
    /// The file of the tokenizer, where it lies in memory.
    tokenizer: Option<&'static [u8]>,
    /// What errors call the configuration.
    config: &'static str,
    /// Whether the weights are as torch writes them: matrices of images `[out, channels, positions]`, and counters beside statistics.
    torch: bool,
}

/// What torch has beside the parameters: how many batches the statistics are of.
const COUNTERS: &str = ".num_batches_tracked";
/// The beginning of a name, and what some call it in files of torch.
const ALIASES: &[(&str, &str)] = &[("fc.", "linear.")];

/// Opens a directory, or the weights file inside one.
pub(super) fn open(path: &Path) -> Result<Box<dyn CheckpointReader>, Error> {
    let (directory, weights) = locate(path)?;
    lowbit_base::file::settle(&directory);
    let tensors = Tensors::open(&weights)?;
    let model_config = ModelConfig::load(&directory.join(CONFIG_FILE))?;
    Ok(Box::new(Own::new(directory, tensors, model_config, None)?))
}

/// Whether a path is a file with a configuration of its own.
pub(super) fn is_whole(path: &Path) -> bool {
    path.is_file() && Tensors::open(path).is_ok_and(|tensors| tensors.metadata().contains_key(CONFIG_KEY))
}

/// Opens such a file.
pub(super) fn open_whole(path: &Path) -> Result<Box<dyn CheckpointReader>, Error> {
    let tensors = Tensors::open(path)?;
    let config = tensors.metadata().get(CONFIG_KEY).map_or("", String::as_str);
    let config = ModelConfig::parse(path, config.as_bytes())?;
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let own = Own::new(directory.into(), tensors, config, None)?;
    Ok(Box::new(Own { config: CONFIG_KEY, ..own }))
}

/// Opens the files of a directory that lie in memory; `name` is what errors call it.
pub(super) fn embedded(name: &Path, files: &[(&str, &'static [u8])]) -> Result<Box<dyn CheckpointReader>, Error> {
    let file = |wanted: &str| {
        let found = files.iter().find(|(name, _)| *name == wanted).map(|(_, bytes)| *bytes);
        found.ok_or_else(|| Error::input(name, format!("holds no {wanted}")))
    };
    let tensors = Tensors::parse(&name.join(WEIGHTS_FILE), Bytes::new(file(WEIGHTS_FILE)?))?;
    let model_config = ModelConfig::parse(&name.join(CONFIG_FILE), file(CONFIG_FILE)?)?;
    Ok(Box::new(Own::new(name.into(), tensors, model_config, Some(file(TOKENIZER_FILE)?))?))
}

impl Own {
    /// Checks configuration and metadata; `tokenizer` is its file, where that lies in memory.
    pub(super) fn new(
        directory: PathBuf,
        tensors: Tensors,
        (model_config, notices): (ModelConfig, Vec<String>),
        tokenizer: Option<&'static [u8]>,
    ) -> Result<Self, Error> {
        super::validate(&model_config.config, &directory.join(CONFIG_FILE))?;
        let at = |text: String| Error::input(tensors.path(), text);
        let metadata = tensors.metadata();
        if let Some(version) = metadata.get(VERSION_KEY).filter(|v| *v != VERSION) {
            let text = format!("metadata `{VERSION_KEY}` is `{}`; this program reads {VERSION}", show(version));
            return Err(at(text));
        }
        let recipe = metadata.get(RECIPE_KEY).map_or("f32", |name| name.as_str());
        let recipe = recipe::find(recipe).map_err(|e| at(format!("metadata `{RECIPE_KEY}`: {e}")))?;
        let formats = metadata.get(FORMATS_KEY).map_or(Ok(BTreeMap::new()), |json| serde_json::from_str(json));
        let formats: BTreeMap<String, PackedEntry> =
            formats.map_err(|e| at(format!("metadata `{FORMATS_KEY}`: {e}")))?;
        // Masters are the network they were trained to become.
        let trained_for = model_config.trained_for.as_deref().filter(|_| formats.is_empty());
        let recipe = trained_for.map_or(Ok(recipe), recipe::find)?;
        let torch = !metadata.contains_key(VERSION_KEY);
        Ok(Own { directory, tensors, model_config, recipe, formats, notices, tokenizer, config: CONFIG_FILE, torch })
    }
}

impl CheckpointReader for Own {
    fn path(&self) -> &Path {
        self.tensors.path()
    }

    fn files(&self) -> Vec<&Path> {
        let is_in_memory = self.tokenizer.is_some();
        Some(self.tensors.path()).filter(|_| !is_in_memory).into_iter().collect()
    }

    fn model_config(&self) -> &ModelConfig {
        &self.model_config
    }

    fn recipe(&self) -> &'static Recipe {
        self.recipe
    }

    fn check(&self, parameters: &ParameterList) -> Result<(), Error> {
        let at = |text: String| Error::input(self.path(), text);
        self.recipe.check(parameters.params()).map_err(|e| at(format!("metadata `{RECIPE_KEY}`: {}", e.message)))?;
        let mut expected = BTreeSet::new();
        for spec in parameters.params() {
            let vector = spec.role.is_vector();
            match self.formats.get(&spec.name).filter(|_| !vector) {
                Some(stored) => {
                    self.check_shape(spec, &[stored.rows, stored.cols])?;
                    let format = stored.format().map_err(|e| at(format!("tensor `{}`: {e}", spec.name)))?;
                    self.check_format(spec, format)?;
                    let parts = format.parts(stored.rows, stored.cols, &[]);
                    expected.extend(parts.iter().map(|part| part_name(&spec.name, part.name)));
                }
                None => {
                    let stored = self.stored_name(&spec.name);
                    let entry = self.tensors.entry(&stored);
                    let entry = entry.ok_or_else(|| super::missing(self.path(), spec, self.config))?;
                    self.check_shape(spec, &self.shape(spec, &entry.shape))?;
                    expected.insert(stored.into_owned());
                }
            }
        }
        let counter = |name: &str| self.torch && name.ends_with(COUNTERS);
        let known = |name: &&String| !expected.contains(*name) && !counter(name);
        let packed = self.formats.keys().filter(|name| !parameters.params().iter().any(|p| p.name == **name));
        match self.tensors.names().iter().find(known).or(packed.into_iter().next()) {
            None => Ok(()),
            Some(name) => Err(super::surplus(self.path(), name, self.config)),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.formats.contains_key(name) || self.tensors.entry(&self.stored_name(name)).is_some()
    }

    fn tensor<'a>(&'a self, spec: &'a ParamSpec) -> Result<Stored<'a>, Error> {
        if let Some(entry) = self.formats.get(&spec.name) {
            return self.unpack(&spec.name, entry).map(Stored::Packed);
        }
        let turned = |values| if self.torch { spec.channels_last(values) } else { values };
        let read = move || {
            let stored = self.stored_name(&spec.name);
            let values = self.tensors.floats(&stored)?;
            self.check_shape(spec, &self.shape(spec, &self.tensors.entry(&stored).expect("just read").shape))?;
            Ok(turned(values))
        };
        let read_rows: ReadRows =
            Box::new(move |rows| self.tensors.row_floats(&self.stored_name(&spec.name), rows).map(turned));
        Ok(Stored::Values(Values { read_rows: Some(read_rows), ..Values::new(read) }))
    }

    fn is_mapped(&self) -> bool {
        !self.formats.is_empty()
    }

    fn verify(&self, pool: &Pool) -> Result<bool, Error> {
        self.tensors.verify(pool)
    }

    fn tokenizer(&self) -> Result<Tokenizer, Error> {
        if let Some(file) = self.tokenizer {
            return Tokenizer::read(&self.directory.join(TOKENIZER_FILE), file);
        }
        if self.config == CONFIG_KEY {
            let text = self.tensors.metadata().get(TOKENIZER_KEY).ok_or_else(|| {
                Error::new(Kind::Io, format!("metadata `{TOKENIZER_KEY}` is missing: the network reads no texts"))
            });
            return Tokenizer::read(self.path(), text.map_err(|e| e.in_file(self.path()))?.as_bytes());
        }
        Tokenizer::load(&Tokenizer::find(&self.directory).unwrap_or_else(|| self.directory.join(TOKENIZER_FILE)))
    }

    fn notices(&self) -> &[String] {
        &self.notices
    }
}

impl Own {
    /// The name of a tensor in the file.
    fn stored_name<'a>(&self, name: &'a str) -> Cow<'a, str> {
        let others = || ALIASES.iter().filter_map(|(own, other)| Some(format!("{other}{}", name.strip_prefix(own)?)));
        match self.torch && self.tensors.entry(name).is_none() {
            true => others().find(|other| self.tensors.entry(other).is_some()).map_or(name.into(), Cow::from),
            false => name.into(),
        }
    }

    /// The shape of a stored matrix of images, `[out, channels, height, width]`, as products see it; any other as it is.
    fn shape(&self, spec: &ParamSpec, stored: &[usize]) -> Vec<usize> {
        match stored {
            &[out, channels, height, width] if self.torch && height * width == spec.positions => {
                vec![out, channels * height * width]
            }
            other => other.to_vec(),
        }
    }

    fn unpack(&self, name: &str, stored: &PackedEntry) -> Result<Packed, Error> {
        let at = |text: String| Error::input(self.path(), format!("tensor `{name}`: {text}"));
        let format = stored.format().map_err(at)?;
        let parts = format.parts(stored.rows, stored.cols, &[]);
        let bytes = parts.iter().map(|part| match self.tensors.bytes(&part_name(name, part.name)) {
            Some(bytes) => Ok(bytes),
            None if part.bytes == 0 => Ok(Bytes::new([])),
            None => Err(at(format!("part `{}` of {} is missing", part.name, stored.format))),
        });
        let bytes = bytes.collect::<Result<_, _>>()?;
        Packed::from_parts(format, stored.rows, stored.cols, bytes).map_err(|e| at(e.to_string()))
    }

    /// Sees that a matrix is stored as the recipe says, which also tells how activations are treated.
    fn check_format(&self, spec: &ParamSpec, format: &'static dyn Format) -> Result<(), Error> {
        let expected = self.recipe.format_of(spec)?.map_or("f32", |format| format.name());
        if format.name() == expected {
            return Ok(());
        }
        let (name, recipe) = (&spec.name, self.recipe.name);
        let text = format!("tensor `{name}` is stored as {}, but its recipe {recipe} says {expected}", format.name());
        Err(Error::input(self.path(), format!("metadata `{RECIPE_KEY}`: {text}; write the model again")))
    }

    fn check_shape(&self, spec: &ParamSpec, shape: &[usize]) -> Result<(), Error> {
        super::check_shape(self.path(), spec, shape, self.config, &super::fields(&self.model_config.config))
    }
}

/// The directory and the weights file of a path.
pub(super) fn locate(path: &Path) -> Result<(PathBuf, PathBuf), Error> {
    let meta = std::fs::metadata(path).map_err(|e| Error::io(path, &e))?;
    if !meta.is_dir() {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        return Ok((parent.into(), path.into()));
    }
    let weights = path.join(WEIGHTS_FILE);
    if !weights.exists() {
        return Err(super::absent::weights(path, WEIGHTS_FILE));
    }
    Ok((path.into(), weights))
}
