//! Checkpoints: models on disk, of any layout. The project's own is a directory of `config.json`, `model.safetensors` and
//! `tokenizer.json`, or one safetensors file whose metadata has the other two.
//!
//! A matrix is stored either as a plain `F32`, `BF16` or `F16` tensor `[rows, cols]` under its own name (masters, from
//! which training continues and every recipe is made), or packed: each part of its format as a `U8` tensor
//! `<name>.<part>`, its format and shape in the metadata `lowbit.formats`. Vectors are always plain.

use crate::model_config::ModelConfig;
use crate::parameter_list::ParameterList;
use crate::reader::{self, CheckpointReader, Integers, ReadRows, Stored, Values, ternary};
use crate::recipe;
use crate::rotation;
use crate::source::{ParamSpec, Role, Source};
use crate::{Error, Model, Param, Recipe, Rounding, Tokenizer};
use lowbit_base::Stop;
use lowbit_base::memory::Footprint;
use lowbit_kernels::{Cpu, Format, Isa, Packed, Pool, QuantizeOptions, Threads};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

mod blocks;
mod convert;
mod gguf;
mod ledger;
mod save;

pub use convert::{Converted, Target, convert};
pub use gguf::{GgufTypes, Written, save_gguf};
pub use ledger::{LedgerRow, ledger};
pub use save::{quantize, save, save_masters, save_quantized};

/// Metadata pair: version of this layout.
pub(crate) const VERSION_KEY: &str = "lowbit.format";
pub(crate) const VERSION: &str = "1";
/// Metadata pair: name of the recipe.
pub(crate) const RECIPE_KEY: &str = "lowbit.recipe";
/// Metadata pair: JSON object from matrix to [`PackedEntry`].
pub(crate) const FORMATS_KEY: &str = "lowbit.formats";

/// Metadata pair of a file that is a whole model: the content of `config.json`.
pub(crate) const CONFIG_KEY: &str = "lowbit.config";
/// Metadata pair of such a file: the content of `tokenizer.json`, where texts are read.
pub(crate) const TOKENIZER_KEY: &str = "lowbit.tokenizer";
/// The ending of such a file.
const PACKED_FILE: &str = "safetensors";

/// Whether a path is that of a file that is, or becomes, a whole model: its name ends in `.safetensors`.
fn is_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(PACKED_FILE)) && !path.is_dir()
}

/// The file of the weights of a model that was written to a path.
pub fn weights_of(path: &Path) -> PathBuf {
    if is_file(path) { path.into() } else { path.join(WEIGHTS_FILE) }
}

/// File names of a model directory.
pub const CONFIG_FILE: &str = "config.json";
/// The weights.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// The tokenizer.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// Ranges of rows that are read before their part of a mapped file is given up.
const RELEASE: usize = 64;

/// What takes less memory.
const FEWER_BITS: &str = "take a recipe with fewer bits";

/// How a packed matrix is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PackedEntry {
    pub format: String,
    pub rows: usize,
    pub cols: usize,
    /// Version of the layout of the format's bytes.
    #[serde(default = "first_layout", skip_serializing_if = "is_first_layout")]
    pub layout: u32,
}

const fn first_layout() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
fn is_first_layout(layout: &u32) -> bool {
    *layout == first_layout()
}

impl PackedEntry {
    /// The format.
    ///
    /// # Errors
    /// A sentence when it, or the layout of its bytes, is not known.
    pub fn format(&self) -> Result<&'static dyn Format, String> {
        let format = lowbit_kernels::format::find(&self.format).map_err(|e| e.to_string())?;
        let known = format.spec().layout;
        if self.layout != known {
            let (name, found) = (format.name(), self.layout);
            return Err(format!(
                "layout {found} of format `{name}` is not known, this program has {known}; quantize the model again, or \
                 take the program that wrote it"
            ));
        }
        Ok(format)
    }
}

/// What [`QuantizeOptions`] each matrix gets, by its name; the others get the default.
pub type Options = BTreeMap<String, QuantizeOptions>;
/// Reads rows of a parameter, and gives up the memory of a mapped file.
pub(crate) type MasterRows<'a> = (ReadRows<'a>, Box<dyn Fn() + Sync + 'a>);

/// An opened model; the weights are mapped, nothing is copied before it is asked for.
pub struct Checkpoint {
    path: PathBuf,
    directory: PathBuf,
    reader: Box<dyn CheckpointReader>,
    parameters: ParameterList,
    pool: OnceLock<Arc<Pool>>,
    stop: Stop,
    /// The recipe that was asked for in place of the model's own.
    asked: Option<&'static Recipe>,
}

impl Checkpoint {
    /// Opens a model of any layout of [`READERS`](reader::READERS), or the weights file inside one, and checks that every
    /// tensor the configuration asks for is there with its shape, and no other.
    ///
    /// # Errors
    /// [`Kind::Input`](crate::Kind) naming file, tensor or field, value and remedy; [`Kind::Io`](crate::Kind) when a file
    /// cannot be read.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::of(path, reader::open(path)?)
    }

    /// Opens the files of a directory of the project's own layout that lie in memory; `name` is what errors call it.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn embedded(name: &str, files: &[(&str, &'static [u8])]) -> Result<Self, Error> {
        let name = Path::new(name);
        Self::of(name, reader::embedded(name, files)?)
    }

    fn of(path: &Path, reader: Box<dyn CheckpointReader>) -> Result<Self, Error> {
        let parent = reader.path().parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let directory = parent.to_path_buf();
        let parameters = ParameterList::new(&reader.model_config().config)?;
        reader.check(&parameters)?;
        let (path, pool) = (path.to_path_buf(), OnceLock::new());
        Ok(Checkpoint { path, directory, reader, parameters, pool, stop: Stop::default(), asked: None })
    }

    /// The same, whose matrices are made on the threads of a CPU, until its work is to end.
    pub fn on(self, cpu: &Cpu) -> Self {
        Checkpoint { pool: OnceLock::from(cpu.pool.clone()), stop: cpu.stop.clone(), ..self }
    }

    /// The same model under another recipe than its own, if one is given: its network is then made from masters, but for what is
    /// stored in the formats of the recipe already.
    pub fn under(self, recipe: Option<&'static Recipe>) -> Self {
        let recipe = recipe.map(|asked| self.resolve(asked));
        Checkpoint { asked: recipe.filter(|r| r.name != self.reader.recipe().name), ..self }
    }

    /// The recipe that is asked for: where it is [`STORED`](recipe::STORED), perhaps with parts, the model's own with these parts.
    pub fn resolve(&self, asked: &'static Recipe) -> &'static Recipe {
        recipe::resolve(self.reader.recipe(), asked)
    }

    /// The threads given, else as many as [`Threads::choose`] says.
    fn pool(&self) -> Result<&Pool, Error> {
        if self.pool.get().is_none() {
            let threads = Threads::choose(None).map_err(|e| Error::usage(e.to_string()))?;
            let _ = self.pool.set(Arc::new(Pool::new(threads.count)));
        }
        Ok(self.pool.get().expect("just set"))
    }

    /// Compares the weights with the checksums that lie beside them: `false` when there are none, as in the files of other
    /// programs.
    ///
    /// # Errors
    /// Names the tensor whose data changed.
    pub fn verify(&self) -> Result<bool, Error> {
        self.reader.verify(self.pool()?)
    }

    /// The recipe that masters were trained for; of those trained in full precision [`recipe::DEFAULT`].
    ///
    /// # Errors
    /// When it is unknown.
    pub fn trained_for(&self) -> Result<&'static Recipe, Error> {
        recipe::find(self.model_config().trained_for.as_deref().unwrap_or(recipe::DEFAULT))
    }

    /// The recipe that keeps matrices of integers as they are stored; where there are none, the one that masters were trained for.
    ///
    /// # Errors
    /// As [`Checkpoint::trained_for`].
    pub fn kept_or_trained_for(&self) -> Result<&'static Recipe, Error> {
        let mut matrices = self.parameters.params().iter().filter(|s| !s.role.is_vector());
        let kept = matrices.any(|spec| {
            let stored = self.reader.tensor(spec);
            stored.is_ok_and(|stored| matches!(stored, Stored::Values(Values { integers: Some(_), .. })))
        });
        if kept { Ok(self.reader.recipe()) } else { self.trained_for() }
    }

    /// The path it was opened by, which errors about the whole model name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory it lies in.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The files that hold the weights; none of a model that lies in memory.
    pub fn files(&self) -> Vec<&Path> {
        self.reader.files()
    }

    /// Everything about the model but its weights.
    pub fn model_config(&self) -> &ModelConfig {
        self.reader.model_config()
    }

    /// The recipe of the network: the one asked for, else the one the weights are stored under, else, for masters, the one
    /// they were trained for; `f32` for masters trained in full precision.
    pub fn recipe(&self) -> &'static Recipe {
        self.asked.unwrap_or(self.reader.recipe())
    }

    /// What to say when a recipe makes another network than the one these weights were trained to become; `None` when it
    /// does not.
    ///
    /// # Errors
    /// When the kernels lack a format.
    pub fn departure(&self, recipe: &Recipe) -> Result<Option<String>, Error> {
        let Some(trained) = &self.model_config().trained_for else { return Ok(None) };
        let [trained, asked] = [crate::recipe::find(trained)?, recipe];
        if (trained.body, trained.layers) == (asked.body, asked.layers) || trained.is_ternary() && asked.is_ternary() {
            return Ok(None);
        }
        let (place, trained, asked) = (self.directory.display(), trained.name, asked.name);
        let text =
            format!("{place}: trained for `{trained}`; under `{asked}` it is another network, and usually a worse one");
        Ok(Some(text))
    }

    /// Names, shapes and roles of the parameters.
    pub fn parameters(&self) -> &ParameterList {
        &self.parameters
    }

    /// Memory that the network of [`Checkpoint::recipe`] takes: its weights, as pages of the mapped file where they are used as
    /// they lie there. `remedy` tells what takes less.
    ///
    /// # Errors
    /// When the kernels lack a format.
    pub fn need(&self, remedy: &str) -> Result<Footprint, Error> {
        let (need, weights) = (Footprint::new(remedy), self.parameters.bytes(self.recipe())?);
        Ok(match self.asked.is_none() && self.reader.is_mapped() {
            true => need.and_mapped("weights", weights),
            false => need.and("weights", weights),
        })
    }

    /// Memory that work on one parameter after another takes: the most that `bytes` tells for one.
    fn need_of_largest(&self, bytes: impl Fn(&ParamSpec) -> Result<u64, Error>) -> Result<Footprint, Error> {
        let mut largest = ("", 0);
        for spec in self.parameters.params() {
            let taken = bytes(spec)?;
            if taken >= largest.1 {
                largest = (&spec.name, taken);
            }
        }
        let remedy = "its largest tensor must fit; take a machine with more";
        Ok(Footprint::new(remedy).and(format!("tensor `{}`", largest.0), largest.1))
    }

    /// Whether the numbers of a parameter cannot be read some rows at a time.
    fn reads_whole(&self, spec: &ParamSpec) -> Result<bool, Error> {
        Ok(match self.reader.tensor(spec)? {
            Stored::Values(values) => values.read_rows.is_none(),
            Stored::Packed(_) => true,
        })
    }

    /// Bytes of a parameter as f32.
    fn master_bytes(spec: &ParamSpec) -> u64 {
        4 * spec.rows as u64 * spec.cols as u64
    }

    /// The file of the chat template, where it has one of its own.
    pub fn template_file(&self) -> Option<&Path> {
        self.reader.template_file()
    }

    /// One line for each key of the configuration that was ignored.
    pub fn notices(&self) -> &[String] {
        self.reader.notices()
    }

    /// The tokenizer of the model. It may have more entries than the table of tokens: those fail when they are used.
    ///
    /// # Errors
    /// When it is missing or wrong.
    pub fn tokenizer(&self) -> Result<Tokenizer, Error> {
        self.reader.tokenizer()
    }

    /// Loads the network of [`Checkpoint::recipe`].
    ///
    /// # Errors
    /// When the data of a tensor is corrupt, or a matrix is stored packed where the recipe asked for needs masters; names
    /// tensor, part and index.
    pub fn model(&self) -> Result<Model<Param>, Error> {
        self.need(FEWER_BITS)?.check()?;
        let mut source = self;
        Model::build(&self.model_config().config, &mut source)
    }

    /// Makes the network of a recipe from masters, in memory.
    ///
    /// # Errors
    /// When a matrix is stored packed, or a weight is NaN or infinite; names tensor and index.
    pub fn model_as(&self, recipe: &'static Recipe, options: &Options) -> Result<Model<Param>, Error> {
        Footprint::new(FEWER_BITS).and("weights", self.parameters.bytes(recipe)?).check()?;
        Model::build(&self.model_config().config, &mut Quantizing { checkpoint: self, recipe, options })
    }

    /// Whether a parameter is stored, be it one that the configuration does not ask for (a pooler under another head).
    pub fn has(&self, name: &str) -> bool {
        self.reader.has(name)
    }

    /// The f32 values of a parameter, `[rows, cols]`.
    ///
    /// # Errors
    /// When it is stored packed, or a value is NaN or infinite; names tensor and index.
    pub fn master(&self, spec: &ParamSpec) -> Result<Vec<f32>, Error> {
        self.stop.check()?;
        match self.reader.tensor(spec)? {
            Stored::Values(values) => (values.read)(),
            Stored::Packed(packed) if self.is_exact(spec, &packed) => Ok(packed.dequantize()),
            Stored::Packed(packed) => Err(self.no_master(spec, &packed)),
        }
    }

    /// Reads rows of what [`Checkpoint::master`] reads as a whole, and gives up the memory of a mapped file; none where rows cannot be read
    /// apart from the others.
    ///
    /// # Errors
    /// When the work is to end, or the tensor is missing.
    pub(crate) fn master_rows<'a>(&'a self, spec: &'a ParamSpec) -> Result<Option<MasterRows<'a>>, Error> {
        self.stop.check()?;
        match self.reader.tensor(spec)? {
            Stored::Values(Values { read_rows, release, .. }) => Ok(read_rows.map(|read| (read, release))),
            Stored::Packed(_) => Ok(None),
        }
    }

    /// Whether a matrix that is stored packed is still what it was before packing.
    fn is_exact(&self, spec: &ParamSpec, packed: &Packed) -> bool {
        packed.format().spec().lossless && !self.reader.recipe().rotates(spec)
    }

    /// Why a matrix that is stored packed is refused where its values before packing are asked for.
    fn no_master(&self, spec: &ParamSpec, packed: &Packed) -> Error {
        let (format, recipe) = (packed.format().name(), self.reader.recipe().name);
        let text = format!("tensor `{}` is stored as {format} (recipe {recipe})", spec.name);
        let text = format!("{text}; training and quantizing start from a checkpoint with f32 masters");
        Error::input(self.reader.path(), text)
    }

    /// A matrix in the format of [`Checkpoint::recipe`].
    ///
    /// # Errors
    /// When its data is corrupt (names tensor, part and index), or the work is to end.
    pub fn packed(&self, spec: &ParamSpec) -> Result<Packed, Error> {
        self.stop.check()?;
        if let Some(recipe) = self.asked {
            return self.quantized(spec, recipe, &Options::new());
        }
        let format = self.recipe().format_of(spec)?.expect("matrices have a format");
        match self.reader.tensor(spec)? {
            Stored::Packed(packed) => Ok(packed),
            Stored::Values(values) => self.pack(spec, &values, format, self.recipe().rotates(spec), &Options::new()),
        }
    }

    /// A matrix in the format a recipe has for it: what is ternary stays so, the rest is made from masters.
    fn quantized(&self, spec: &ParamSpec, recipe: &Recipe, options: &Options) -> Result<Packed, Error> {
        self.stop.check()?;
        let format = recipe.format_of(spec)?.expect("matrices have a format");
        let packed = match self.reader.tensor(spec)? {
            Stored::Packed(packed) => packed,
            Stored::Values(values) => return self.pack(spec, &values, format, recipe.rotates(spec), options),
        };
        let kept = match format.spec().is_ternary() {
            true => ternary::recode(&packed, format, self.pool()?).map_err(|e| self.fault(spec, &e))?,
            false => Some(packed.clone()).filter(|packed| packed.format().name() == format.name()),
        };
        let same = self.reader.recipe().rotates(spec) == recipe.rotates(spec);
        let kept = kept.filter(|_| same);
        match kept {
            Some(kept) => Ok(kept),
            None if self.is_exact(spec, &packed) => {
                let read_rows: ReadRows<'_> = Box::new(|rows| Ok(packed.dequantize_rows(rows)));
                let values = Values { read_rows: Some(read_rows), ..Values::new(|| Ok(packed.dequantize())) };
                self.pack(spec, &values, format, recipe.rotates(spec), options)
            }
            None => Err(self.no_master(spec, &packed)),
        }
    }

    /// Numbers in a format, their columns rotated or not: without rounding where they are stored as its codes, else by rounding.
    fn pack(
        &self,
        spec: &ParamSpec,
        values: &Values<'_>,
        format: &'static dyn Format,
        rotated: bool,
        options: &Options,
    ) -> Result<Packed, Error> {
        let kept = match values.pack_ternary.as_ref().filter(|_| format.spec().is_ternary()) {
            _ if rotated => None,
            Some(pack) => pack(format, self.pool()?)?,
            None => match self.rounding(spec, format) {
                Some(rounding) => {
                    let packed = rounding.pack(&(values.read)()?, spec.rows, spec.cols, format);
                    packed.map_err(|e| self.fault(spec, &e))?
                }
                None => self.pack_integers(spec, values, format)?,
            },
        };
        let packed = match kept {
            Some(packed) => packed,
            None => self.round(spec, values, format, rotated, options)?,
        };
        (values.release)();
        Ok(packed)
    }

    /// The rule of its own by which a matrix was trained to be ternary.
    fn rounding(&self, spec: &ParamSpec, format: &'static dyn Format) -> Option<Rounding> {
        let is_ternary = spec.role == Role::Body && format.spec().is_ternary();
        self.model_config().rounding.filter(|_| is_ternary)
    }

    /// Integers in the format that holds them as they are, if it is this one.
    fn pack_integers(
        &self,
        spec: &ParamSpec,
        values: &Values<'_>,
        format: &'static dyn Format,
    ) -> Result<Option<Packed>, Error> {
        let Some(Integers { tensor, format: kept, read }) = &values.integers else { return Ok(None) };
        if kept.name() != format.name() {
            return Ok(None);
        }
        let pack = |rows: Range<usize>| {
            self.stop.check()?;
            let (codes, scales) = read(rows.clone())?;
            let fault = |e| Error::input(self.reader.path(), format!("tensor `{tensor}`: {e}"));
            kept.pack(rows.len(), spec.cols, &codes, &scales).map_err(fault)
        };
        let packed = Packed::from_row_ranges(format, spec.rows, spec.cols, self.pool()?, pack)?;
        Ok(Some(format.settle(packed)))
    }

    fn round(
        &self,
        spec: &ParamSpec,
        values: &Values<'_>,
        format: &'static dyn Format,
        rotated: bool,
        options: &Options,
    ) -> Result<Packed, Error> {
        let mut options = options.get(&spec.name).cloned().unwrap_or_default();
        options.importance.iter_mut().filter(|_| rotated).for_each(|importance| rotation::spread(importance));
        let (shape, pool, options) = ([spec.rows, spec.cols], self.pool()?, &options);
        let isa = Isa::choose(None).map_err(|e| self.fault(spec, &e))?;
        let turned = |mut weights: Vec<f32>| {
            if rotated {
                rotation::hadamard(isa, &mut weights, spec.cols);
            }
            weights
        };
        let fault = |e| self.fault(spec, &e);
        let (Some(read_rows), release) = (&values.read_rows, &values.release) else {
            self.stop.check()?;
            let all = turned((values.read)()?);
            let read = |rows: Range<usize>| {
                self.stop.check()?;
                Ok(Cow::Borrowed(&all[rows.start * spec.cols..rows.end * spec.cols]))
            };
            return Packed::quantize(format, shape, options, pool, read, fault);
        };
        let read = |rows: Range<usize>| {
            self.stop.check()?;
            let weights = turned(read_rows(rows.clone())?);
            // Both forms of a large table are never in memory as a whole.
            if rows.start / rows.len().max(1) % RELEASE == RELEASE - 1 {
                release();
            }
            Ok(Cow::Owned(weights))
        };
        Packed::quantize(format, shape, options, pool, read, fault)
    }

    pub(crate) fn fault(&self, spec: &ParamSpec, cause: &lowbit_kernels::Error) -> Error {
        Error::input(self.reader.path(), format!("tensor `{}`: {cause}", spec.name))
    }

    fn param_of(
        &self,
        spec: &ParamSpec,
        recipe: &Recipe,
        packed: impl FnOnce() -> Result<Packed, Error>,
    ) -> Result<Param, Error> {
        match spec.role {
            role if role.is_vector() => Ok(Param::Vector(self.master(spec)?)),
            role => Ok(Param::Matrix {
                name: spec.name.as_str().into(),
                role,
                packed: packed()?,
                activations: recipe.activations_of(spec),
                rotated: recipe.rotates(spec),
            }),
        }
    }
}

impl Source<Param> for &Checkpoint {
    fn param(&mut self, spec: &ParamSpec) -> Result<Param, Error> {
        self.param_of(spec, self.recipe(), || self.packed(spec))
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

/// Name of the tensor that holds a part of a packed matrix.
pub(crate) fn part_name(matrix: &str, part: &str) -> String {
    format!("{matrix}.{part}")
}

#[cfg(test)]
mod tests {
    use super::PackedEntry;

    #[test]
    fn layouts_are_told_where_they_are_not_the_first() {
        let read = |text: &str| serde_json::from_str::<PackedEntry>(text).expect("an object");
        let first = read(r#"{"format": "int4", "rows": 2, "cols": 3}"#);
        assert_eq!((first.layout, first.format().expect("known").name()), (1, "int4"));
        assert!(!serde_json::to_string(&first).expect("plain data").contains("layout"));
        let later = read(r#"{"format": "int4", "rows": 2, "cols": 3, "layout": 2}"#);
        let refused = later.format().expect_err("unknown");
        assert!(
            refused.starts_with("layout 2 of format `int4` is not known, this program has 1; quantize"),
            "{refused}"
        );
        assert!(serde_json::to_string(&later).expect("plain data").contains("\"layout\":2"));
    }
}
