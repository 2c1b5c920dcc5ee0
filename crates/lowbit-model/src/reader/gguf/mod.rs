//! GGUF files of llama.cpp and bitnet.cpp.
//!
//! A ternary matrix (TQ1_0, TQ2_0, I2_S, or floats that are all -s, 0 or s in a BitNet) with one scale becomes `ternary` with
//! that very scale, table and head BF16. A matrix of integers with scales (Q4_0 .. Q6_K) becomes one of the format of that name,
//! code by code. Everything else is handed out as the floats its type means. The recipe says which; where there are floats alone
//! it is `bf16` where the body is BF16, else `f32`. A notice says what is kept wider or narrower than it is stored.

mod known;

use super::{CheckpointReader, Integers, PackTernary, ReadRows, Stored, Values, ternary};
use crate::arch::decoder::gguf::{self as keys, Arch};
use crate::arch::decoder::gguf_rope;
use crate::container::gguf::{Gguf, MAGIC, Tensor};
use crate::model_config::ChatSettings;
use crate::parameter_list::ParameterList;
use crate::source::{ParamSpec, Role};
use crate::tokenizer::{Special, variables_of_gguf};
use crate::{Error, ModelConfig, Recipe, Tokenizer, recipe};
use lowbit_kernels::format::{self, Grouped};
use lowbit_kernels::{Format, Packed, Pool};
use std::collections::{BTreeMap, BTreeSet};
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
    model_config.tool_template = file.text("tokenizer.chat_template.tool_use")?.map(String::from);
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
        let base = recipe::find(name)?;
        let (ternary, kept) = (base.is_ternary(), self.keeping(base)?);
        self.recipe = kept.unwrap_or(base);
        self.note_wider(ternary, kept.is_some())?;
        if self.arch.tied && self.file.tensor(keys::OUTPUT).is_some() {
            let text =
                format!("tensor `{}` is ignored: the head of architecture {} is tied", keys::OUTPUT, self.arch.name);
            self.notices.push(format!("{}: {text}", self.file.path().display()));
        }
        self.model_config.trained_for = ternary.then(|| "bitnet".to_string());
        Ok(())
    }

    /// The recipe that keeps matrices of integers as they are stored, if there are any.
    fn keeping(&self, base: &'static Recipe) -> Result<Option<&'static Recipe>, Error> {
        let parameters = ParameterList::new(&self.model_config.config)?;
        let stored = |spec: &ParamSpec| self.tensor_of(spec).ok();
        let format = |spec: &ParamSpec| Ok::<_, Error>(stored(spec).map(|t| self.format(t)).transpose()?.flatten());
        let matrices = parameters.params().iter().filter(|spec| !spec.role.is_vector());
        let mut formats: BTreeMap<&str, &'static dyn Format> = BTreeMap::new();
        for spec in matrices {
            if let Some(format) = format(spec)?.filter(|_| !base.is_ternary() || spec.role != Role::Body) {
                formats.insert(&spec.name, format);
            }
        }
        if formats.is_empty() {
            return Ok(None);
        }
        if base.is_ternary() {
            let of =
                |role: Role| parameters.params().iter().find(|p| p.role == role).and_then(|p| formats.get(&*p.name));
            let part = |name: &str, role: Role| of(role).map_or(String::new(), |f| format!("+{name}={}", f.name()));
            let text = format!("{}{}{}", base.name, part("embed", Role::Embedding), part("head", Role::Head));
            return recipe::find(&format!("{text}+head_act={}", base.head_activations.name())).map(Some);
        }
        let [float, half] = ["f32", "bf16"].map(|name| format::find(name).expect("a format"));
        recipe::of_formats(parameters.params(), |spec| {
            let wide = |t: &Tensor| if t.kind.name == "BF16" { half } else { float };
            formats.get(&*spec.name).copied().unwrap_or_else(|| stored(spec).map_or(float, wide))
        })
    }

    /// The format that holds a matrix as it is stored, where that is integers.
    fn format(&self, tensor: &Tensor) -> Result<Option<&'static dyn Grouped>, Error> {
        let Some(format) = tensor.kind.format().filter(|_| tensor.shape.len() == 2 && tensor.has_whole_rows()) else {
            return Ok(None);
        };
        Ok((self.scale(tensor)? == 1.0).then_some(format))
    }

    /// Notes what takes more memory than it is stored in; of a ternary network, of table and head.
    fn note_wider(&mut self, ternary: bool, kept: bool) -> Result<(), Error> {
        let outer = |t: &Tensor| !ternary || ["token_embd.weight", keys::OUTPUT].contains(&t.name.as_str());
        let form = if ternary { "BF16" } else { "F32" };
        let mut kinds = BTreeSet::new();
        for tensor in self.file.tensors().iter().filter(|t| outer(t)) {
            let name = tensor.kind.name;
            if name != form && !(kept && (name == "BF16" || self.format(tensor)?.is_some())) {
                kinds.insert(name);
            }
        }
        if !kinds.is_empty() {
            let what = if ternary { "table and head are" } else { "weights are" };
            let kinds = kinds.into_iter().collect::<Vec<_>>().join(", ");
            let text = format!("{kinds} {what} kept as {form} in memory; name a recipe for another form");
            self.notices.push(format!("{}: {text}", self.file.path().display()));
        }
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

    /// The integers of a matrix, where a format holds them.
    fn integers<'a>(&'a self, spec: &'a ParamSpec, tensor: &'a Tensor) -> Result<Option<Integers<'a>>, Error> {
        let Some(format) = self.format(tensor)? else { return Ok(None) };
        if !self.is_paired(spec) {
            let read = Box::new(|rows| Ok(self.file.row_integers(tensor, rows)));
            return Ok(Some(Integers { tensor: &tensor.name, format, read }));
        }
        let order = self.in_order_of(spec, 1, (0..spec.rows).collect());
        let read = move |rows: Range<usize>| {
            let (mut codes, mut scales) = (Vec::new(), Vec::new());
            for row in &order[rows] {
                let (of_row, spans) = self.file.row_integers(tensor, *row..row + 1);
                codes.extend(of_row);
                scales.extend(spans);
            }
            Ok((codes, scales))
        };
        Ok(Some(Integers { tensor: &tensor.name, format, read: Box::new(read) }))
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
        self.in_order_of(spec, keys::row_width(spec), values)
    }

    /// The same of rows of so many values.
    fn in_order_of<T: Copy>(&self, spec: &ParamSpec, width: usize, values: Vec<T>) -> Vec<T> {
        match self.model_config.config.rotated_heads(&spec.name).filter(|_| self.arch.paired) {
            Some(heads) => keys::unpair(&values, heads, width, false),
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
            integers: self.integers(spec, tensor)?,
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
