//! Directories as transformers writes them: `config.json` with a `model_type`, plain or sharded safetensors, and the
//! packed ternary matrices of its `bitnet` quantization.
//!
//! A matrix of a BitNet that holds nothing but -s, 0 and s, packed or plain, becomes `ternary` with that very `s`. Other
//! values are masters, quantized as in training: the scale is the mean magnitude (arXiv 2402.17764).

mod chat;
mod config;
mod integers;
mod keep;
mod packing;
mod sentence;
mod shards;

use super::{CheckpointReader, PackTernary, ReadRows, Stored, Values, ternary};
use crate::arch::family::HEAD;
use crate::checkpoint::CONFIG_FILE;
use crate::container::Dtype;
use crate::parameter_list::ParameterList;
use crate::source::{ParamSpec, Role};
use crate::tokenizer::Settings;
use crate::{Error, ModelConfig, Recipe, Tokenizer, recipe};
use config::{Quantization, ScaleUse};
use integers::Scheme;
use lowbit_kernels::{Bytes, Format, Packed, Pool};
use shards::Shards;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Rows that share a byte of a packed matrix.
const ROWS_PER_BYTE: usize = 4;
/// The table of tokens.
const EMBEDDING: &str = "model.embed_tokens.weight";

/// An opened directory; the weights are mapped.
struct Hub {
    directory: PathBuf,
    shards: Shards,
    model_config: ModelConfig,
    recipe: &'static Recipe,
    /// Whether the body is ternary.
    bitnet: bool,
    /// What the scale of a packed matrix means; `None` where nothing may be packed.
    scale: Option<ScaleUse>,
    /// How matrices that are integers with scales of groups are packed.
    integers: Option<Scheme>,
    /// Of the tokenizer.
    settings: Settings,
    /// The file of the chat template.
    template: PathBuf,
    notices: Vec<String>,
}

/// Whether a directory (or the one of a safetensors file) has a `config.json` of transformers.
pub(super) fn has(path: &Path) -> bool {
    config::is_foreign(&directory_of(path).join(CONFIG_FILE))
}

/// Opens a directory, or the one of a safetensors file.
pub(super) fn open(path: &Path) -> Result<Box<dyn CheckpointReader>, Error> {
    let directory = directory_of(path);
    let mut shards = Shards::open(&directory)?;
    let read = config::read(&directory, &mut shards)?;
    let (mut model_config, mut notices) = (read.model_config, read.notices);
    super::validate(&model_config.config, &directory.join(CONFIG_FILE))?;
    let integers = match read.quantization {
        Quantization::Integers(scheme) => Some(scheme),
        _ => None,
    };
    let recipe = match read.quantization {
        Quantization::Bitnet(_) => "bitnet_bf16",
        Quantization::None if shards.all(Dtype::BF16) => "bf16",
        Quantization::None | Quantization::Integers(_) => "f32",
    };
    if model_config.config.is_tied() {
        shards.substitute(EMBEDDING, HEAD);
    }
    let recipe = recipe::find(recipe)?;
    if integers.is_none() && recipe.is_lossless() && shards.any(Dtype::F16) {
        notices.push(format!("{}: F16 weights take 4 bytes each in memory", shards.path().display()));
    }
    if shards.any(Dtype::F64) {
        notices.push(format!("{}: F64 weights are rounded to F32", shards.path().display()));
    }
    let (bitnet, scale) = match read.quantization {
        Quantization::Bitnet(scale) => (true, scale),
        Quantization::None | Quantization::Integers(_) => (false, None),
    };
    model_config.trained_for = bitnet.then(|| "bitnet".to_string());
    let mut hub = Hub {
        directory,
        shards,
        model_config,
        recipe,
        bitnet,
        scale,
        integers,
        settings: read.settings,
        template: read.template,
        notices,
    };
    if let Some(scheme) = integers {
        hub.keep_integers(scheme)?;
    }
    if read.quantization == Quantization::Bitnet(None) && hub.holds_masters()? {
        let config = hub.directory.join(CONFIG_FILE);
        let text =
            "`quantization_config` is missing; weights are rounded to ternary, as networks of this model_type are";
        hub.notices.push(format!("{}: {text} trained (`--recipe f32` keeps them)", config.display()));
    }
    Ok(Box::new(hub))
}

fn directory_of(path: &Path) -> PathBuf {
    match path.extension().is_some_and(|e| e == "safetensors") && !path.is_dir() {
        true => path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).into(),
        false => path.into(),
    }
}

/// Name of the tensor with the scale of a packed matrix.
fn scale_name(spec: &ParamSpec) -> String {
    format!("{}_scale", spec.name)
}

/// Tensors that older exports hold beside the parameters: constants, and the copy of a table that is tied.
fn ignorable(name: &str, model_config: &ModelConfig) -> bool {
    name.ends_with(".rotary_emb.inv_freq")
        || model_config.config.is_tied() && name == HEAD
        || model_config.config.classes().is_none() && name.starts_with("pooler.")
}

impl CheckpointReader for Hub {
    fn path(&self) -> &Path {
        self.shards.path()
    }

    fn files(&self) -> Vec<&Path> {
        self.shards.files().collect()
    }

    fn model_config(&self) -> &ModelConfig {
        &self.model_config
    }

    fn recipe(&self) -> &'static Recipe {
        self.recipe
    }

    fn check(&self, parameters: &ParameterList) -> Result<(), Error> {
        let (mut expected, fields) = (BTreeSet::new(), super::fields(&self.model_config.config));
        for spec in parameters.params() {
            if let Some(scheme) = self.integers_of(spec) {
                expected.extend(scheme.check(&self.shards, spec)?);
                continue;
            }
            let Some((file, entry)) = self.shards.entry(&spec.name) else {
                return Err(super::missing(self.path(), spec, CONFIG_FILE));
            };
            expected.insert(spec.name.clone());
            let has_scale = self.shards.entry(&scale_name(spec)).is_some();
            if has_scale && self.scale.is_some() {
                expected.insert(scale_name(spec));
            }
            if entry.dtype == Dtype::U8 {
                self.check_packed(file, spec, &entry.shape, has_scale)?;
                continue;
            }
            let named = ParamSpec { name: self.shards.stored_name(&spec.name).into(), ..spec.clone() };
            super::check_shape(file, &named, &entry.shape, CONFIG_FILE, &fields)?;
        }
        let unknown = |name: &&str| !expected.contains(*name) && !ignorable(name, &self.model_config);
        for name in self.shards.names().filter(unknown) {
            if !self.is_empty_bias(name)? {
                return Err(self.surplus(name));
            }
        }
        Ok(())
    }

    fn has(&self, name: &str) -> bool {
        let packed = name.strip_suffix("weight").filter(|_| self.integers.is_some());
        self.shards.entry(name).is_some() || packed.is_some_and(|stem| self.has_packed(stem))
    }

    fn tensor<'a>(&'a self, spec: &'a ParamSpec) -> Result<Stored<'a>, Error> {
        if let Some(scheme) = self.integers_of(spec) {
            return self.integer_values(scheme, spec).map(Stored::Values);
        }
        let apart = self.has_plain_rows(spec)?;
        let read_rows: ReadRows = Box::new(|rows| self.shards.row_floats(&spec.name, rows));
        let pack: PackTernary = Box::new(|format, pool| self.pack_ternary(spec, format, pool));
        Ok(Stored::Values(Values {
            read_rows: Some(read_rows).filter(|_| apart),
            pack_ternary: Some(pack).filter(|_| self.bitnet && spec.role == Role::Body),
            release: Box::new(|| self.shards.bytes(&spec.name).iter().for_each(Bytes::release)),
            ..Values::new(|| self.floats(spec))
        }))
    }

    fn tokenizer(&self) -> Result<Tokenizer, Error> {
        Tokenizer::of_directory(&self.directory, &self.settings)
    }

    fn template_file(&self) -> Option<&Path> {
        Some(&self.template)
    }

    fn notices(&self) -> &[String] {
        &self.notices
    }
}

impl Hub {
    fn floats(&self, spec: &ParamSpec) -> Result<Vec<f32>, Error> {
        let (file, entry) =
            self.shards.entry(&spec.name).ok_or_else(|| super::missing(self.path(), spec, CONFIG_FILE))?;
        let mut values = match entry.dtype {
            Dtype::U8 => {
                let bytes = self.shards.bytes(&spec.name).expect("a tensor that was found has data");
                codes(file, spec, &bytes, 0..spec.rows)?.into_iter().map(|code| code as f32 - 1.0).collect()
            }
            _ => self.shards.floats(&spec.name)?,
        };
        if let Some(scale) = self.scale_of(spec)? {
            values.iter_mut().for_each(|v| *v *= scale);
        }
        Ok(values)
    }

    /// Whether the values of a parameter are stored as they are.
    fn has_plain_rows(&self, spec: &ParamSpec) -> Result<bool, Error> {
        let plain = self.shards.entry(&spec.name).is_some_and(|(_, entry)| entry.dtype != Dtype::U8);
        Ok(plain && self.shards.is_whole(&spec.name) && self.scale_of(spec)?.is_none())
    }

    /// A matrix in a ternary format, if its values are -s, 0 and s.
    fn pack_ternary(
        &self,
        spec: &ParamSpec,
        format: &'static dyn Format,
        pool: &Pool,
    ) -> Result<Option<Packed>, Error> {
        let at = |e: lowbit_kernels::Error| Error::input(self.path(), format!("tensor `{}`: {e}", spec.name));
        if let Some((file, _)) = self.shards.entry(&spec.name).filter(|(_, entry)| entry.dtype == Dtype::U8) {
            let scale = self.scale_of(spec)?.unwrap_or(1.0);
            let bytes = self.shards.bytes(&spec.name).expect("a tensor that was found has data");
            let pack = |rows: Range<usize>| {
                let codes = codes(file, spec, &bytes, rows.clone())?;
                ternary::pack_codes(&codes, scale, rows.len(), spec.cols, format).map_err(at)
            };
            return Packed::from_row_ranges(format, spec.rows, spec.cols, pool, pack).map(Some);
        }
        let master = self.is_master(spec)?;
        let weights = if master { Vec::new() } else { self.floats(spec)? };
        let Some(scale) = ternary::scale_of(&weights).filter(|_| !master) else {
            return match self.shards.entry(&scale_name(spec)).filter(|_| self.scale.is_some()) {
                None => Ok(None),
                Some((file, _)) => {
                    let text = format!("tensor `{}` has a scale `{}` but is not ternary", spec.name, scale_name(spec));
                    Err(Error::input(file, text))
                }
            };
        };
        ternary::pack(weights, scale, spec.rows, spec.cols, format).map(Some).map_err(at)
    }

    /// Whether the body is not ternary yet, as its first row tells.
    fn holds_masters(&self) -> Result<bool, Error> {
        let parameters = ParameterList::new(&self.model_config.config)?;
        let stored = |spec: &&ParamSpec| spec.role == Role::Body && self.shards.entry(&spec.name).is_some();
        match parameters.params().iter().find(stored) {
            Some(spec) => self.is_master(spec),
            None => Ok(false),
        }
    }

    /// Whether the first row of a matrix is not ternary.
    fn is_master(&self, spec: &ParamSpec) -> Result<bool, Error> {
        if !self.has_plain_rows(spec)? {
            return Ok(false);
        }
        let row = self.shards.row_floats(&spec.name, 0..spec.rows.min(1))?;
        Ok(ternary::scale_of(&row).is_none())
    }

    /// Why a tensor is refused that the configuration does not ask for.
    fn surplus(&self, name: &str) -> Error {
        let (file, stored) = (self.shards.file_of(name), self.shards.stored_name(name));
        let Some(layer) = name.strip_suffix(".bias") else {
            return super::surplus(file, stored, CONFIG_FILE);
        };
        let key = if layer.contains("mlp") { "mlp_bias" } else { "attention_bias" };
        let text = format!("tensor `{}` is a bias, but {CONFIG_FILE} asks for none", crate::container::show(stored));
        Error::input(file, format!("{text}; set `{key}` to true if this network is computed with it"))
    }

    /// A packed matrix belongs to the body of a BitNet, has a quarter of the rows, and a scale.
    fn check_packed(&self, file: &Path, spec: &ParamSpec, shape: &[usize], has_scale: bool) -> Result<(), Error> {
        let at = |text: String| Error::input(file, format!("tensor `{}` {text}", spec.name));
        if self.scale.is_none() || spec.role != Role::Body {
            let text = "is packed (U8), but config.json has no `quantization_config` for it with `quant_method` bitnet";
            return Err(at(text.into()));
        }
        let (rows, cols) = (spec.rows, spec.cols);
        if !rows.is_multiple_of(ROWS_PER_BYTE) || shape != [rows / ROWS_PER_BYTE, cols] {
            let text = format!("is packed (U8) {shape:?}, but config.json asks for [{rows}, {cols}]");
            return Err(at(format!("{text}, which takes [{rows} / {ROWS_PER_BYTE}, {cols}] at four rows per byte")));
        }
        match has_scale {
            true => Ok(()),
            false => Err(at(format!("is packed, but its scale `{}` is missing", scale_name(spec)))),
        }
    }

    /// What the stored values of a matrix are multiplied with, if it has a scale.
    fn scale_of(&self, spec: &ParamSpec) -> Result<Option<f32>, Error> {
        let name = scale_name(spec);
        let (Some(means), Some((file, _))) = (self.scale, self.shards.entry(&name)) else {
            return Ok(None);
        };
        let values = self.shards.floats(&name)?;
        let factor = |v: f32| if means == ScaleUse::Divides { 1.0 / v } else { v };
        match values[..] {
            [value] if value > 0.0 && factor(value).is_finite() => Ok(Some(factor(value))),
            [value] => Err(Error::input(file, format!("tensor `{name}` is {value}; a scale is positive"))),
            _ => Err(Error::input(file, format!("tensor `{name}` has {} elements; a scale is one", values.len()))),
        }
    }
}

/// The codes 0, 1 and 2 of some rows of a packed matrix, `[rows, cols]`: byte `[r, c]` holds rows `r`, `R + r`, `2R + r`
/// and `3R + r` of column `c` from its lowest bits up, `R` being a quarter of the rows.
fn codes(file: &Path, spec: &ParamSpec, bytes: &[u8], rows: Range<usize>) -> Result<Vec<u8>, Error> {
    let (quarter, cols) = (spec.rows / ROWS_PER_BYTE, spec.cols);
    let mut out = vec![0; rows.len() * cols];
    for (row, out) in rows.zip(out.chunks_exact_mut(cols)) {
        let (shift, at) = (2 * (row / quarter), row % quarter * cols);
        let bytes = &bytes[at..at + cols];
        out.iter_mut().zip(bytes).for_each(|(out, byte)| *out = byte >> shift & 3);
        if out.iter().fold(false, |any, code| any | (*code == 3)) {
            let i = out.iter().position(|code| *code == 3).expect("one is");
            let text = format!("tensor `{}` holds code 3 in byte {} ({:#04x})", spec.name, at + i, bytes[i]);
            return Err(Error::input(file, format!("{text}; ternary codes are 0, 1 and 2: fetch the file again")));
        }
    }
    Ok(out)
}
