//! Readers of checkpoints: one file per layout of model files, listed in [`READERS`].

pub use cache::root as hub_cache;

use crate::parameter_list::ParameterList;
use crate::source::ParamSpec;
use crate::{Config, Error, ModelConfig, Recipe, Tokenizer};
use lowbit_kernels::format::{Grouped, SpanScales};
use lowbit_kernels::{Format, Packed, Pool};
use std::ops::Range;
use std::path::Path;

pub(crate) mod absent;
mod cache;
pub(crate) mod gguf;
mod hub;
mod own;
pub(crate) mod ternary;
mod torch;

/// An opened checkpoint: one implementation per layout of files.
pub trait CheckpointReader: Send + Sync {
    /// The file that errors about its content name.
    fn path(&self) -> &Path;
    /// The files that hold the weights; none where they lie in memory.
    fn files(&self) -> Vec<&Path> {
        vec![self.path()]
    }
    /// Configuration, token ids and chat template, in this project's terms.
    fn model_config(&self) -> &ModelConfig;
    /// The recipe of the network as it is stored, or as it was trained.
    fn recipe(&self) -> &'static Recipe;
    /// Sees that every tensor is there with its shape, and no other.
    ///
    /// # Errors
    /// Names file, tensor, the shape found and the fields that ask for another.
    fn check(&self, parameters: &ParameterList) -> Result<(), Error>;
    /// Whether a parameter is stored, be it one that the configuration does not ask for.
    fn has(&self, name: &str) -> bool;
    /// How a parameter is stored; its numbers are read when they are asked for.
    ///
    /// # Errors
    /// When it is missing or its data is corrupt; names tensor, part and index.
    fn tensor<'a>(&'a self, spec: &'a ParamSpec) -> Result<Stored<'a>, Error>;
    /// Whether the matrices of [`CheckpointReader::recipe`] are used as they lie in the mapped file, without a copy.
    fn is_mapped(&self) -> bool {
        false
    }
    /// Compares the weights with checksums that lie beside them: `false` when there are none.
    ///
    /// # Errors
    /// Names the tensor whose data changed.
    fn verify(&self, _pool: &Pool) -> Result<bool, Error> {
        Ok(false)
    }
    /// The tokenizer beside the weights or among them.
    ///
    /// # Errors
    /// When it is missing or wrong.
    fn tokenizer(&self) -> Result<Tokenizer, Error>;
    /// The file of the chat template, where it has one of its own.
    fn template_file(&self) -> Option<&Path> {
        None
    }
    /// One line for each thing that was ignored.
    fn notices(&self) -> &[String];
}

/// How a checkpoint stores a parameter.
pub enum Stored<'a> {
    /// A matrix in one of the project's formats.
    Packed(Packed),
    /// Numbers.
    Values(Values<'a>),
}

/// Reads some rows of a matrix, `[rows, cols]`.
pub type ReadRows<'a> = Box<dyn Fn(Range<usize>) -> Result<Vec<f32>, Error> + Sync + 'a>;
/// Packs a matrix into a ternary format on the threads of a pool; none, when its numbers are not -s, 0 and s.
pub type PackTernary<'a> = Box<dyn Fn(&'static dyn Format, &Pool) -> Result<Option<Packed>, Error> + 'a>;
/// Reads the codes of some rows of a matrix, `[rows, cols]`, and the scales of their spans, `[rows, spans]`.
pub type ReadIntegers<'a> = Box<dyn Fn(Range<usize>) -> Result<(Vec<u8>, Vec<SpanScales>), Error> + Sync + 'a>;

/// A matrix that is stored as codes with scales of groups, and the format of this project that holds them as they are.
pub struct Integers<'a> {
    /// The name of the tensor in its file.
    pub tensor: &'a str,
    /// The format.
    pub format: &'static dyn Grouped,
    /// Reads some rows.
    pub read: ReadIntegers<'a>,
}

/// The numbers of a parameter, `[rows, cols]`. Reading them fails when they are corrupt, or hold NaN or infinity.
pub struct Values<'a> {
    /// Reads all of them.
    pub read: Box<dyn Fn() -> Result<Vec<f32>, Error> + 'a>,
    /// Reads some rows, where they can be read apart from the others.
    pub read_rows: Option<ReadRows<'a>>,
    /// Packs them without loss, where they may be ternary.
    pub pack_ternary: Option<PackTernary<'a>>,
    /// The integers they are stored as, where a format holds these.
    pub integers: Option<Integers<'a>>,
    /// Gives up the memory of their data in a mapped file, after it was read in another form.
    pub release: Box<dyn Fn() + Sync + 'a>,
}

impl<'a> Values<'a> {
    /// Numbers that are read as a whole.
    pub(crate) fn new(read: impl Fn() -> Result<Vec<f32>, Error> + 'a) -> Self {
        Values { read: Box::new(read), read_rows: None, pack_ternary: None, integers: None, release: Box::new(|| ()) }
    }
}

/// A layout of model files.
pub struct FileLayout {
    /// Its name.
    pub name: &'static str,
    /// Whether a path has this layout, at a glance.
    pub has: fn(&Path) -> bool,
    /// Opens it; only the headers of the weights are read.
    pub open: fn(&Path) -> Result<Box<dyn CheckpointReader>, Error>,
}

/// Every layout, in the order they are tried; the last takes what no other has.
pub static READERS: &[FileLayout] = &[
    FileLayout { name: "gguf", has: gguf::has, open: gguf::open },
    FileLayout { name: "lowbit file", has: own::is_whole, open: own::open_whole },
    FileLayout { name: "hub", has: hub::has, open: hub::open },
    FileLayout { name: "torch", has: torch::has, open: torch::open },
    FileLayout { name: "lowbit", has: |_| true, open: own::open },
];

/// Opens the model at a path, or of an `org/name` that the Hub's own client has downloaded.
///
/// # Errors
/// [`Kind::Input`](crate::Kind) naming file, tensor or field, value and remedy; [`Kind::Io`](crate::Kind) when a file
/// cannot be read.
pub fn open(path: &Path) -> Result<Box<dyn CheckpointReader>, Error> {
    let path = &cache::resolve(path)?;
    if let Some(error) = absent::dangling(path) {
        return Err(error);
    }
    let layout = READERS.iter().find(|layout| (layout.has)(path)).expect("the last layout takes every path");
    (layout.open)(path)
}

/// Opens the files of the project's own layout that lie in memory; `name` is what errors call their directory.
///
/// # Errors
/// As [`open`].
pub fn embedded(name: &Path, files: &[(&str, &'static [u8])]) -> Result<Box<dyn CheckpointReader>, Error> {
    own::embedded(name, files)
}

/// Sees that a configuration does not contradict itself; `path` is its file.
fn validate(config: &Config, path: &Path) -> Result<(), Error> {
    ParameterList::new(config).map(|_| ()).map_err(|e| Error { path: Some(path.into()), ..e })
}

/// The numbers of a configuration by name.
fn fields(config: &Config) -> Vec<(String, usize)> {
    let config = serde_json::to_value(config).expect("a configuration is plain data");
    let numbers = config.as_object().into_iter().flatten();
    numbers.filter_map(|(name, value)| Some((name.clone(), value.as_u64()? as usize))).collect()
}

/// The shape a parameter has in a file.
fn stored_shape(spec: &ParamSpec) -> Vec<usize> {
    match spec.role.is_vector() {
        true => vec![spec.cols],
        false => vec![spec.rows, spec.cols],
    }
}

/// Why a file and a configuration are refused: `config` asks for a tensor the file lacks.
fn missing(path: &Path, spec: &ParamSpec, config: &str) -> Error {
    let text = format!("tensor `{}` [{}, {}] is missing, but {config} asks for it", spec.name, spec.rows, spec.cols);
    Error::input(path, format!("{text}; the two are not of one model"))
}

/// Why a file and a configuration are refused: the file has a tensor that `config` does not ask for.
fn surplus(path: &Path, name: &str, config: &str) -> Error {
    let name = crate::container::show(name);
    let text = format!("tensor `{name}` is in the file, but {config} does not ask for it");
    Error::input(path, format!("{text}; the two are not of one model"))
}

/// Compares a stored shape with what `config` asks for; the message names the `fields` that ask for another.
fn check_shape(
    path: &Path,
    spec: &ParamSpec,
    shape: &[usize],
    config: &str,
    fields: &[(String, usize)],
) -> Result<(), Error> {
    let expected = stored_shape(spec);
    if shape == expected {
        return Ok(());
    }
    let odd = |n: usize| expected.contains(&n) && !shape.contains(&n);
    let fields: Vec<_> = fields.iter().filter(|(_, n)| odd(*n)).map(|(k, n)| format!("`{k}` = {n}")).collect();
    let fields = if fields.is_empty() { String::new() } else { format!(" ({})", fields.join(", ")) };
    let text = format!("tensor `{}` is {shape:?}, but {config} asks for {expected:?}{fields}", spec.name);
    Err(Error::input(path, format!("{text}; the two are not of one model")))
}
