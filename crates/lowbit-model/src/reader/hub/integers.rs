//! Matrices of the Hub that are integers with scales of groups, `w = scale * (q - zero)`: GPTQ (arXiv 2210.17323), AWQ
//! (arXiv 2306.00978) and the layout `pack-quantized` of compressed-tensors. Values are the exact products.

use super::packing::{Packing, Words, stored_shape};
use super::shards::Shards;
use crate::Error;
use crate::arch::family::keys::Keys;
use crate::checkpoint::CONFIG_FILE;
use crate::container::{Dtype, show};
use crate::source::ParamSpec;
use half::f16;
use lowbit_kernels::Bytes;
use lowbit_kernels::format::{self, Grouped, SpanScales};
use serde_json::{Map, Value};
use std::ops::Range;
use std::path::Path;

/// How the matrices of a directory are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scheme {
    method: Method,
    bits: usize,
    /// Input features that share a scale; `None` where all of an output feature do.
    group: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    /// Zero points are stored less one in the first version of the layout.
    Gptq {
        less_one: bool,
    },
    Awq,
    Compressed {
        symmetric: bool,
    },
}

/// Formats of codes about a middle that means 0, by their bits.
const FORMATS: [&str; 3] = ["q4_0", "q5_0", "q8_0"];
/// Names of `quant_method` that [`Scheme::read`] takes.
pub(super) const METHODS: [&str; 3] = ["gptq", "awq", "compressed-tensors"];
/// Files beside `config.json` in which older programs tell how they packed, and their `quant_method`.
pub(super) const FILES: [(&str, &str); 2] = [("quantize_config.json", "gptq"), ("quant_config.json", "awq")];

fn wrong(text: impl std::fmt::Display) -> Error {
    Error::config("quantization_config", text)
}

/// Sees that a text is one of those known, where it is there.
fn one_of(keys: &Keys, key: &str, known: &[&str]) -> Result<Option<String>, Error> {
    let value: Option<String> = keys.get(key)?;
    match value.as_deref() {
        Some(other) if !known.contains(&other.to_lowercase().as_str()) => {
            let text = format!("has `{key}` `{}`; supported: {}", show(other), known.join(", "));
            Err(wrong(format!("{text}. Fetch the unquantized model and quantize it here")))
        }
        _ => Ok(value.map(|value| value.to_lowercase())),
    }
}

/// Sees that a key with an effect says nothing.
fn idle(keys: &Keys, key: &str) -> Result<(), Error> {
    let nothing = |value: &Value| match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    match keys.value(key) {
        Some(value) if !nothing(value) => {
            Err(wrong(format!("has `{key}`, which is not supported; fetch the unquantized model")))
        }
        _ => Ok(()),
    }
}

impl Scheme {
    /// The scheme of a `quantization_config` whose `quant_method` is one of [`METHODS`].
    ///
    /// # Errors
    /// Names the key that is missing or not supported, and its value.
    pub fn read(method: &str, keys: &Keys) -> Result<Self, Error> {
        match method {
            "compressed-tensors" => Self::compressed(keys),
            "awq" => {
                one_of(keys, "version", &["gemm"])?;
                Self::of(Method::Awq, keys, ["w_bit", "q_group_size"], &[4])
            }
            _ => {
                idle(keys, "is_marlin_format")?;
                one_of(keys, "pack_dtype", &["int32"])?;
                let layouts = ["gptq", "gptq_v2"];
                let first = one_of(keys, "format", &layouts)?;
                let layout = one_of(keys, "checkpoint_format", &layouts)?.or(first);
                let less_one = layout.as_deref() != Some("gptq_v2");
                Self::of(Method::Gptq { less_one }, keys, ["bits", "group_size"], &[2, 3, 4, 8])
            }
        }
    }

    /// Bits and group of a method, whose older names are `names`.
    fn of(method: Method, keys: &Keys, names: [&str; 2], widths: &[usize]) -> Result<Self, Error> {
        let either = |name: &str, older: &str| match keys.get::<i64>(name)? {
            None => keys.get(older),
            found => Ok(found),
        };
        let bits = either("bits", names[0])?.ok_or_else(|| wrong("lacks `bits`"))?;
        let group = either("group_size", names[1])?.unwrap_or(-1);
        Self::sized(method, bits, Some(group), widths)
    }

    fn sized(method: Method, bits: i64, group: Option<i64>, widths: &[usize]) -> Result<Self, Error> {
        let known: Vec<String> = widths.iter().map(usize::to_string).collect();
        let bits = widths.iter().find(|width| **width as i64 == bits);
        let bits = *bits.ok_or_else(|| wrong(format!("asks for a width of bits other than {}", known.join(", "))))?;
        match group {
            None | Some(-1) => Ok(Scheme { method, bits, group: None }),
            Some(group @ 1..=0x4000_0000) => Ok(Scheme { method, bits, group: Some(group as usize) }),
            Some(other) => {
                Err(wrong(format!("has `group_size` {other}; a group has at least one column, -1 means all")))
            }
        }
    }

    fn compressed(keys: &Keys) -> Result<Self, Error> {
        one_of(keys, "format", &["pack-quantized"])?;
        ["kv_cache_scheme", "sparsity_config", "transform_config"].iter().try_for_each(|key| idle(keys, key))?;
        let groups = keys.object("config_groups")?.ok_or_else(|| wrong("lacks `config_groups`"))?;
        let mut found = None;
        for (name, group) in groups {
            let group = group.as_object().ok_or_else(|| wrong(format!("`{}` is not an object", show(name))))?;
            let scheme = Self::compressed_group(group)?;
            if *found.get_or_insert(scheme) != scheme {
                return Err(wrong("has `config_groups` that differ; one layout for all matrices is supported"));
            }
        }
        found.ok_or_else(|| wrong("lacks `config_groups`"))
    }

    fn compressed_group(group: &Map<String, Value>) -> Result<Self, Error> {
        let keys = Keys::new(group);
        ["input_activations", "output_activations"].iter().try_for_each(|key| idle(&keys, key))?;
        one_of(&keys, "format", &["pack-quantized"])?;
        let weights = keys.object("weights")?.ok_or_else(|| wrong("lacks `weights` in `config_groups`"))?;
        let keys = Keys::new(weights);
        one_of(&keys, "type", &["int"])?;
        let strategy = one_of(&keys, "strategy", &["group", "channel"])?;
        let symmetric = keys.get("symmetric")?.unwrap_or(true);
        let bits = keys.get("num_bits")?.ok_or_else(|| wrong("lacks `num_bits`"))?;
        let group = if strategy.as_deref() == Some("channel") { None } else { keys.get("group_size")? };
        Self::sized(Method::Compressed { symmetric }, bits, group, &[2, 4, 8])
    }

    /// Names of the tensors of a matrix: codes, scales, zero points, group of each input feature, shape.
    fn names(&self, spec: &ParamSpec) -> [String; 5] {
        self.names_of(spec.name.strip_suffix("weight").unwrap_or(&spec.name))
    }

    fn names_of(&self, stem: &str) -> [String; 5] {
        let ends = match self.method {
            Method::Gptq { .. } | Method::Awq => ["qweight", "scales", "qzeros", "g_idx", "weight_shape"],
            Method::Compressed { .. } => {
                ["weight_packed", "weight_scale", "weight_zero_point", "weight_g_idx", "weight_shape"]
            }
        };
        ends.map(|end| format!("{stem}{end}"))
    }

    /// Whether a matrix is packed so.
    pub fn has(&self, shards: &Shards, spec: &ParamSpec) -> bool {
        spec.name.strip_suffix("weight").is_some_and(|stem| self.is_packed(shards, stem))
    }

    /// The same of the matrix whose name is `<stem>weight`.
    pub fn is_packed(&self, shards: &Shards, stem: &str) -> bool {
        shards.entry(&self.names_of(stem)[0]).is_some()
    }

    /// Gives up the memory of the codes of a matrix; see [`Bytes::release`].
    pub fn release(&self, shards: &Shards, spec: &ParamSpec) {
        shards.bytes(&self.names(spec)[0]).iter().for_each(Bytes::release);
    }

    /// The tensors that a packed matrix has; sees that they have their shapes.
    ///
    /// # Errors
    /// Names the tensor that is missing or has another shape or type.
    pub fn check(&self, shards: &Shards, spec: &ParamSpec) -> Result<Vec<String>, Error> {
        let [codes, scales, zeros, index, shape] = self.names(spec);
        let groups = self.groups(spec.cols);
        let see = |name: &str, dtypes: &[Dtype], shape: &[usize]| self.see(shards, spec, name, dtypes, shape);
        let [of_codes, of_zeros] = self.packings();
        see(&codes, &[Dtype::I32, Dtype::U32], &stored_shape(of_codes, self.bits, self.code_shape(spec)))?;
        let floats = [Dtype::F16, Dtype::BF16, Dtype::F32];
        let mut names = vec![codes, scales];
        match self.method {
            Method::Compressed { symmetric } => {
                see(&names[1], &floats, &[spec.rows, groups])?;
                if !symmetric {
                    let stored = stored_shape(of_zeros, self.bits, [spec.rows, groups]);
                    see(&zeros, &[Dtype::I32, Dtype::U32], &stored)?;
                    names.push(zeros);
                }
                self.check_shape_tensor(shards, spec, &shape)?;
                names.push(shape);
            }
            _ => {
                see(&names[1], &floats, &[groups, spec.rows])?;
                see(&zeros, &[Dtype::I32, Dtype::U32], &stored_shape(of_zeros, self.bits, [groups, spec.rows]))?;
                names.push(zeros);
            }
        }
        if shards.entry(&index).is_some() {
            see(&index, &[Dtype::I32, Dtype::U32], &[spec.cols])?;
            names.push(index);
        }
        Ok(names)
    }

    fn see(
        &self,
        shards: &Shards,
        spec: &ParamSpec,
        name: &str,
        dtypes: &[Dtype],
        shape: &[usize],
    ) -> Result<(), Error> {
        let Some((file, entry)) = shards.entry(name) else {
            let text = format!("tensor `{name}` is missing, but `{}` is packed", spec.name);
            return Err(Error::input(shards.path(), format!("{text}; fetch the model again")));
        };
        if dtypes.contains(&entry.dtype) && entry.shape == shape {
            return Ok(());
        }
        let (types, found) = (dtypes.iter().map(|d| d.name()).collect::<Vec<_>>().join(" or "), entry.dtype.name());
        let text =
            format!("tensor `{name}` is {found} {:?}, but {CONFIG_FILE} asks for {types} {shape:?}", entry.shape);
        let group = self.group.map_or("one group per row".into(), |group| format!("groups of {group}"));
        let text = format!("{text}, [{}, {}] in {} bits and {group}", spec.rows, spec.cols, self.bits);
        Err(Error::input(file, text))
    }

    /// Sees that a tensor of a shape tells that of the matrix.
    fn check_shape_tensor(&self, shards: &Shards, spec: &ParamSpec, name: &str) -> Result<(), Error> {
        self.see(shards, spec, name, &[Dtype::I64, Dtype::I32], &[2])?;
        let (file, entry) = shards.entry(name).expect("just seen");
        let bytes = shards.bytes(name).expect("just seen");
        let told: Vec<i64> = bytes
            .chunks_exact(entry.dtype.size())
            .map(|b| match b.try_into() {
                Ok(wide) => i64::from_le_bytes(wide),
                Err(_) => i64::from(i32::from_le_bytes(b.try_into().expect("four bytes"))),
            })
            .collect();
        match told == [spec.rows as i64, spec.cols as i64] {
            true => Ok(()),
            false => {
                let text = format!("tensor `{name}` says {told:?}, but {CONFIG_FILE} asks for");
                Err(Error::input(file, format!("{text} [{}, {}]", spec.rows, spec.cols)))
            }
        }
    }

    fn groups(&self, cols: usize) -> usize {
        self.group.map_or(1, |group| cols.div_ceil(group))
    }

    /// How codes and zero points are packed.
    fn packings(&self) -> [Packing; 2] {
        match self.method {
            Method::Gptq { .. } => [Packing::Down, Packing::Across],
            Method::Awq => [Packing::Awq, Packing::Awq],
            Method::Compressed { .. } => [Packing::Across, Packing::Down],
        }
    }

    /// Whether input features come first.
    fn inputs_first(&self) -> bool {
        !matches!(self.method, Method::Compressed { .. })
    }

    fn code_shape(&self, spec: &ParamSpec) -> [usize; 2] {
        if self.inputs_first() { [spec.cols, spec.rows] } else { [spec.rows, spec.cols] }
    }

    /// A packed matrix, whose tensors were checked.
    ///
    /// # Errors
    /// When a scale is NaN or infinite, or an input feature names a group that is not there; names tensor and index.
    pub fn matrix(&self, shards: &Shards, spec: &ParamSpec) -> Result<Matrix, Error> {
        let [codes, scales, zeros, index, _] = self.names(spec);
        let (rows, groups, [of_codes, of_zeros]) = (spec.rows, self.groups(spec.cols), self.packings());
        let at = |row: usize, group: usize| if self.inputs_first() { group * rows + row } else { row * groups + group };
        let places = || (0..rows).flat_map(move |row| (0..groups).map(move |group| (row, group)));
        let stored = shards.floats(&scales)?;
        let mid = 1 << (self.bits - 1);
        let zeros = match shards.bytes(&zeros).filter(|_| self.method != Method::Compressed { symmetric: true }) {
            None => vec![mid; rows * groups],
            Some(bytes) => {
                let shape = if self.inputs_first() { [groups, rows] } else { [rows, groups] };
                let words = Words { bytes, packing: of_zeros, bits: self.bits, shape };
                let (add, mask) = (u16::from(self.method == Method::Gptq { less_one: true }), (1 << self.bits) - 1);
                let zero = |(row, group)| {
                    let stored = if self.inputs_first() { words.get(group, row) } else { words.get(row, group) };
                    (u16::from(stored) + add) & mask
                };
                places().map(zero).collect()
            }
        };
        let bytes = shards.bytes(&codes).expect("checked");
        let words = Words { bytes, packing: of_codes, bits: self.bits, shape: self.code_shape(spec) };
        let index = self.index(shards.bytes(&index), &index, shards.file_of(&index), spec.cols)?;
        Ok(Matrix {
            cols: spec.cols,
            inputs_first: self.inputs_first(),
            group: self.group.unwrap_or(spec.cols),
            scales: places().map(|(row, group)| stored[at(row, group)]).collect(),
            zeros,
            words,
            index,
            groups,
        })
    }

    /// The group of each input feature, where groups are not neighbours.
    fn index(&self, bytes: Option<Bytes>, name: &str, file: &Path, cols: usize) -> Result<Option<Vec<usize>>, Error> {
        let Some(bytes) = bytes else { return Ok(None) };
        let (groups, group) = (self.groups(cols), self.group.unwrap_or(cols));
        let index: Vec<usize> = bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b) as usize).collect();
        if let Some(at) = index.iter().position(|g| *g >= groups) {
            let text = format!("tensor `{name}` names group {} at index {at}, but there are {groups}", index[at]);
            return Err(Error::input(file, format!("{text}; fetch the file again")));
        }
        Ok(Some(index).filter(|index| index.iter().enumerate().any(|(column, g)| *g != column / group)))
    }
}

/// A packed matrix: its scales and zero points are unpacked, `[rows, groups]`, its codes are read as they are asked for.
pub(super) struct Matrix {
    cols: usize,
    groups: usize,
    /// Columns of a group, where groups are neighbours.
    group: usize,
    scales: Vec<f32>,
    zeros: Vec<u16>,
    words: Words<Bytes>,
    inputs_first: bool,
    /// The group of each column, where groups are not neighbours.
    index: Option<Vec<usize>>,
}

impl Matrix {
    /// The group of a column.
    fn group_of(&self, column: usize) -> usize {
        self.index.as_ref().map_or(column / self.group, |index| index[column])
    }

    /// The codes less their zero points of some rows, `[rows, cols]`.
    pub fn steps(&self, rows: Range<usize>) -> Vec<i16> {
        let mut out = Vec::with_capacity(rows.len() * self.cols);
        for row in rows {
            let zeros = &self.zeros[row * self.groups..][..self.groups];
            out.extend((0..self.cols).map(|column| {
                let code = if self.inputs_first { self.words.get(column, row) } else { self.words.get(row, column) };
                i16::from(code) - zeros[self.group_of(column)] as i16
            }));
        }
        out
    }

    /// The format that holds the matrix without rounding, or why there is none: that of the fewest bits whose codes reach all steps.
    pub fn format(&self) -> Result<&'static dyn Grouped, &'static str> {
        if self.index.is_some() {
            return Err("columns are in the order of activations");
        }
        if self.scales.iter().any(|scale| f16::from_f32(*scale).to_f32() != *scale) {
            return Err("scales leave the range of F16");
        }
        let zeros = self.zeros.iter().fold((u16::MAX, 0), |(low, high), zero| (low.min(*zero), high.max(*zero)));
        let (most, known) =
            ((1u16 << self.words.bits) - 1, FORMATS.iter().filter_map(|name| format::find(name).ok()?.grouped()));
        let reaches = |format: &&dyn Grouped| {
            let zero = u16::from(format.zero().unwrap_or_default());
            zeros.1 <= zero && most - zeros.0.min(most) + zero <= u16::from(format.most())
        };
        let mut wide = known.filter(reaches).peekable();
        if wide.peek().is_none() {
            return Err("zero points are far from the middle");
        }
        let divides = |format: &&dyn Grouped| self.groups == 1 || self.group.is_multiple_of(format.span());
        wide.find(divides).ok_or("groups are too small")
    }

    /// Codes and scales of some rows in the format that [`Matrix::format`] tells.
    pub fn integers(&self, rows: Range<usize>, format: &'static dyn Grouped) -> (Vec<u8>, Vec<SpanScales>) {
        let zero = i16::from(format.zero().unwrap_or_default());
        let codes = self.steps(rows.clone()).into_iter().map(|step| (step + zero) as u8).collect();
        let spans = rows.flat_map(|row| (0..self.cols).step_by(format.span()).map(move |column| (row, column)));
        let scale = |(row, column)| self.scales[row * self.groups + self.group_of(column)];
        (codes, spans.map(|span| format.scales(f16::from_f32(scale(span)), f16::ZERO, &[])).collect())
    }

    /// The values of some rows, `[rows, cols]`.
    pub fn values(&self, rows: Range<usize>) -> Vec<f32> {
        let steps = self.steps(rows.clone());
        let mut out = Vec::with_capacity(steps.len());
        for (row, steps) in rows.zip(steps.chunks_exact(self.cols)) {
            let scales = &self.scales[row * self.groups..][..self.groups];
            let scaled =
                steps.iter().enumerate().map(|(column, step)| f32::from(*step) * scales[self.group_of(column)]);
            out.extend(scaled);
        }
        out
    }
}
