//! GGUF files of llama.cpp and bitnet.cpp.
//!
//! A ternary matrix (TQ1_0, TQ2_0, I2_S, or floats that are all -s, 0 or s in a BitNet) with one scale becomes `ternary` with
//! that very scale, table and head BF16. Everything else is handed out as the floats its type means; the recipe is then
//! `bf16` where the body is BF16, else `f32`. A notice says what is kept wider or narrower than it is stored.

mod known;

use super::{CheckpointReader, PackTernary, ReadRows, Stored, Values, ternary};
use crate::arch::decoder::gguf::{self as keys, Arch};
use crate::arch::decoder::gguf_rope;
use crate::container::gguf::{Gguf, MAGIC, Tensor};
use crate::model_config::ChatSettings;
use crate::parameter_list::ParameterList;
use crate::source::{ParamSpec, Role};
use crate::tokenizer::{Special, variables_of_gguf};
use crate::{Error, ModelConfig, Recipe, Tokenizer, recipe};
use lowbit_kernels::{Format, Packed, Pool};
use std::collections::BTreeSet;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// An opened file; the weights are mapped.
struct File {
    file: Gguf,
    arch: &'static Arch,
    model_config: ModelConfig,
    recipe: &'static Recipe,
    notices: Vec<String>,
}

/// Whether a path is a GGUF file, or a directory that holds one and nothing else that is a model.
pub(super) fn has(path: &Path) -> bool {
    let is = |path: &Path| {
        let mut magic = [0; 4];
        let read = lowbit_base::file::open(path).is_ok_and(|mut file| file.read_exact(&mut magic).is_ok());
        read && magic == MAGIC || path.extension().is_some_and(|e| e == "gguf")
    };
    if path.is_dir() { only_file(path).is_some() } else { is(path) }
}

/// The one GGUF file of a directory without other weights.
fn only_file(directory: &Path) -> Option<PathBuf> {
    let files: Vec<PathBuf> = std::fs::read_dir(directory).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let with =
        |extension: &str| files.iter().filter(|f| f.extension().is_some_and(|e| e == extension)).collect::<Vec<_>>();
    match with("gguf")[..] {
        [file] if with("safetensors").is_empty() => Some(file.clone()),
        _ => None,
    }
}

/// Opens a file, or the one in a directory.
pub(super) fn open(path: &Path) -> Result<Box<dyn CheckpointReader>, Error> {
    let file = Gguf::open(&only_file(path).filter(|_| path.is_dir()).unwrap_or_else(|| path.into()))?;
    let mut notices = known::survey(&file)?;
    let (arch, config) = keys::config(&file)?;
    super::validate(&config, file.path())?;
    let mut model_config = ModelConfig::new(config, keys::context(&file, arch)?);
    if let Some(special) = Special::read(&file)? {
        model_config.chat = ChatSettings { tokens: variables_of_gguf(&file, &special)?, begins: true };
        (model_config.bos_token_id, model_config.eos_token_ids) = (special.bos, special.ends);
        notices.extend(special.notices);
    }
    model_config.chat_template = file.text("tokenizer.chat_template")?.map(String::from);
    let mut reader = File { file, arch, model_config, recipe: recipe::find("f32")?, notices };
    reader.choose()?;
    Ok(Box::new(reader))
}

impl File {
    /// Chooses the recipe, and notes what it costs.
    fn choose(&mut self) -> Result<(), Error> {
        let body: Vec<&Tensor> = self.file.tensors().iter().filter(|t| is_body(&t.name)).collect();
        let ternary = !body.is_empty() && body.iter().all(|t| t.kind.is_ternary());
        let several = body.iter().find(|t| {
            let several = t.kind.is_ternary() && self.file.one_scale(t).is_none();
            self.file.release(t);
            several
        });
        let several = several.map(|t| t.name.clone());
        let name = match several {
            Some(tensor) => {
                let text = format!("tensor `{tensor}` has several scales; ternary matrices are kept as floats");
                self.notices.push(format!("{}: {text}", self.file.path().display()));
                "f32"
            }
            None if ternary || self.arch.sub_norm => "bitnet_bf16",
            None if body.iter().all(|t| t.kind.name == "BF16") => "bf16",
            None => "f32",
        };
        self.recipe = recipe::find(name)?;
        let (exact, ternary) = (self.recipe.is_lossless(), self.recipe.is_ternary());
        let outer = |t: &&Tensor| exact || ["token_embd.weight", keys::OUTPUT].contains(&t.name.as_str());
        let kept = if exact { "F32" } else { "BF16" };
        let kinds: BTreeSet<&str> = self.file.tensors().iter().filter(outer).map(|t| t.kind.name).collect();
        let kinds: Vec<&str> = kinds.into_iter().filter(|kind| *kind != kept).collect();
        if !kinds.is_empty() {
            let what = if exact { "weights are" } else { "table and head are" };
            let text = format!("{} {what} kept as {kept} in memory; name a recipe for another form", kinds.join(", "));
            self.notices.push(format!("{}: {text}", self.file.path().display()));
        }
        if self.arch.tied && self.file.tensor(keys::OUTPUT).is_some() {
            let text =
                format!("tensor `{}` is ignored: the head of architecture {} is tied", keys::OUTPUT, self.arch.name);
            self.notices.push(format!("{}: {text}", self.file.path().display()));
        }
        self.model_config.trained_for = ternary.then(|| "bitnet".to_string());
        Ok(())
    }

    fn tensor_of(&self, spec: &ParamSpec) -> Result<&Tensor, Error> {
        let tensor = keys::tensor_name(&spec.name).and_then(|name| self.file.tensor(&name));
        tensor.ok_or_else(|| super::missing(self.path(), spec, "the metadata"))
    }

    /// Whether a parameter is a bias without tensor: llama.cpp adds each bias that is there.
    fn is_absent_bias(&self, spec: &ParamSpec) -> bool {
        let stored = keys::tensor_name(&spec.name).is_some_and(|name| self.file.tensor(&name).is_some());
        spec.role == Role::Bias && !stored
    }

    /// What the stored values of a matrix are multiplied with.
    fn scale(&self, tensor: &Tensor) -> Result<f32, Error> {
        let Some(scale) = self.file.tensor(&keys::scale_name(&tensor.name)) else {
            return Ok(1.0);
        };
        match self.file.floats(scale)?[..] {
            [value] => Ok(value),
            _ => {
                let text = format!("tensor `{}` has {} elements; a scale is one", scale.name, scale.len());
                Err(Error::input(self.path(), text))
            }
        }
    }

    /// Whether the rows of a matrix are in another order than this project has.
    fn is_paired(&self, spec: &ParamSpec) -> bool {
        self.arch.paired && self.model_config.config.rotated_heads(&spec.name).is_some()
    }

    /// A ternary matrix whose rows can be read one by one, made on all threads.
    fn stack(
        &self,
        spec: &ParamSpec,
        tensor: &Tensor,
        format: &'static dyn Format,
        pool: &Pool,
    ) -> Result<Option<Packed>, Error> {
        let Some(scale) = self.file.one_scale(tensor) else {
            return Ok(None);
        };
        if self.is_paired(spec) || !tensor.has_whole_rows() {
            return Ok(None);
        }
        self.file.check_scale(tensor)?;
        let scale = scale * self.scale(tensor)?;
        let at = |e| Error::input(self.path(), format!("tensor `{}`: {e}", tensor.name));
        let pack = |rows: Range<usize>| {
            let codes = self.file.row_codes(tensor, rows.clone())?.expect("rows are whole blocks");
            ternary::pack_codes(&codes, scale, rows.len(), spec.cols, format).map_err(at)
        };
        Packed::from_row_ranges(format, spec.rows, spec.cols, pool, pack).map(Some)
    }

    fn floats(&self, spec: &ParamSpec, tensor: &Tensor) -> Result<Vec<f32>, Error> {
        let mut values = self.in_order(spec, self.file.floats(tensor)?);
        let scale = self.scale(tensor)?;
        if scale != 1.0 {
            values.iter_mut().for_each(|v| *v *= scale);
        }
        Ok(values)
    }

    /// A matrix in a ternary format, if its values are -s, 0 and s.
    fn pack_ternary(
        &self,
        spec: &ParamSpec,
        tensor: &Tensor,
        format: &'static dyn Format,
        pool: &Pool,
    ) -> Result<Option<Packed>, Error> {
        if let Some(packed) = self.stack(spec, tensor, format, pool)? {
            return Ok(Some(packed));
        }
        let (signs, scale) = match self.file.ternary(tensor)? {
            Some(ternary) => {
                let signs = self.in_order(spec, ternary.signs);
                (signs.into_iter().map(f32::from).collect(), ternary.scale * self.scale(tensor)?)
            }
            None => {
                let values = self.floats(spec, tensor)?;
                match ternary::scale_of(&values) {
                    Some(scale) => (values, scale),
                    None => return Ok(None),
                }
            }
        };
        let packed = ternary::pack(signs, scale, spec.rows, spec.cols, format);
        packed.map(Some).map_err(|e| Error::input(self.path(), format!("tensor `{}`: {e}", tensor.name)))
    }

    /// Values in the order of rows that this project has.
    fn in_order<T: Copy>(&self, spec: &ParamSpec, values: Vec<T>) -> Vec<T> {
        match self.model_config.config.rotated_heads(&spec.name).filter(|_| self.arch.paired) {
            Some(heads) => keys::unpair(&values, heads, keys::row_width(spec), false),
            None => values,
        }
    }
}

/// Whether a tensor is a matrix of a layer.
fn is_body(name: &str) -> bool {
    name.starts_with("blk.") && name.ends_with(".weight") && !name.ends_with("_norm.weight")
}

impl CheckpointReader for File {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn model_config(&self) -> &ModelConfig {
        &self.model_config
    }

    fn recipe(&self) -> &'static Recipe {
        self.recipe
    }

    fn check(&self, parameters: &ParameterList) -> Result<(), Error> {
        let (mut expected, fields) = (BTreeSet::new(), super::fields(&self.model_config.config));
        for spec in parameters.params().iter().filter(|spec| !self.is_absent_bias(spec)) {
            let tensor = self.tensor_of(spec)?;
            super::check_shape(self.path(), spec, &tensor.shape, "the metadata", &fields)?;
            let scale = keys::scale_name(&tensor.name);
            // Scales of quantized activations, which llama.cpp does not heed here.
            expected.extend([tensor.name.clone(), scale.replace(".scale", ".input_scale"), scale]);
        }
        if self.arch.divided {
            expected.extend([gguf_rope::FREQS, gguf_rope::SHORT, gguf_rope::LONG].map(String::from));
        }
        if self.arch.tied {
            expected.insert(keys::OUTPUT.into());
        }
        match self.file.tensors().iter().find(|t| !expected.contains(&t.name)) {
            None => Ok(()),
            Some(tensor) => Err(super::surplus(self.path(), &tensor.name, "the metadata")),
        }
    }

    fn has(&self, name: &str) -> bool {
        keys::tensor_name(name).is_some_and(|name| self.file.tensor(&name).is_some())
    }

    fn tensor<'a>(&'a self, spec: &'a ParamSpec) -> Result<Stored<'a>, Error> {
        if self.is_absent_bias(spec) {
            return Ok(Stored::Values(Values::new(|| Ok(vec![0.0; spec.cols]))));
        }
        let tensor = self.tensor_of(spec)?;
        let apart = tensor.has_whole_rows() && !self.is_paired(spec) && self.scale(tensor)? == 1.0;
        let read_rows: ReadRows = Box::new(|rows| {
            let values = self.file.row_floats(tensor, rows)?;
            Ok(values.expect("rows are whole blocks"))
        });
        let pack: PackTernary = Box::new(|format, pool| self.pack_ternary(spec, tensor, format, pool));
        Ok(Stored::Values(Values {
            read_rows: Some(read_rows).filter(|_| apart),
            pack_ternary: Some(pack).filter(|_| self.model_config.trained_for.is_some() && spec.role == Role::Body),
            release: Box::new(|| self.file.release(tensor)),
            ..Values::new(|| self.floats(spec, tensor))
        }))
    }

    fn tokenizer(&self) -> Result<Tokenizer, Error> {
        Tokenizer::from_gguf(&self.file)
    }

    fn notices(&self) -> &[String] {
        &self.notices
    }
}
