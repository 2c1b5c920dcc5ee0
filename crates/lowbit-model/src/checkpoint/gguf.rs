//! Writing GGUF files that llama.cpp and bitnet.cpp read.

use super::{Checkpoint, blocks};
use crate::arch::decoder::gguf as keys;
use crate::arch::family::GgufHeader;
use crate::container::gguf::{Field, GgufWriter, Planned, Type, find};
use crate::parameter_list::bytes_of;
use crate::reader::{Stored, Values};
use crate::rotation;
use crate::source::{ParamSpec, Role};
use crate::tokenizer::{special_keys, variable_fields};
use crate::{Error, Kind};
use lowbit_kernels::Isa;
use std::collections::BTreeMap;
use std::path::Path;

/// Types of the tensors of a GGUF file. Vectors are always F32.
#[derive(Clone, Copy, Debug)]
pub struct GgufTypes {
    /// Matrices of the body; `None` for the types they are stored in.
    pub body: Option<&'static Type>,
    /// Table and head; `None` for the types they are stored in, else the narrower of F16 and BF16 that holds their values exactly.
    pub table: Option<&'static Type>,
}

/// What was written in one type or format.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Written {
    /// Name of the type or format.
    pub name: &'static str,
    /// Names of the tensors of this type.
    pub tensors: Vec<String>,
    /// Bytes of their data.
    pub bytes: u64,
    /// How many of them had to be rounded, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rounded: Option<usize>,
    /// The type they are in the place of, whose blocks their rows do not fill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<&'static str>,
}

/// `general.file_type` of the type of the body.
const FILE_TYPES: &[(&str, u32)] = &[
    ("F32", 0),
    ("F16", 1),
    ("Q4_0", 2),
    ("Q4_1", 3),
    ("Q8_0", 7),
    ("Q5_0", 8),
    ("Q5_1", 9),
    ("Q2_K", 10),
    ("Q3_K", 11),
    ("Q4_K", 14),
    ("Q5_K", 16),
    ("Q6_K", 18),
    ("BF16", 32),
    ("TQ1_0", 36),
    ("TQ2_0", 37),
    ("I2_S", 40),
];

/// Where the values of a tensor come from; the scale is that of the signs before it.
enum TensorSource<'a> {
    Param(&'a ParamSpec),
    Signs(&'a ParamSpec),
    Scale,
    Constant(Vec<f32>),
}

/// Writes a language model as a GGUF file. A ternary type takes ternary matrices only, and keeps them exactly: TQ1_0 and TQ2_0
/// hold the signs, and the scale is a tensor `.scale` beside them.
///
/// # Errors
/// When no architecture of llama.cpp computes the network, a type cannot hold a matrix, or writing fails; no output file is
/// left.
pub fn save_gguf(checkpoint: &Checkpoint, path: &Path, types: GgufTypes) -> Result<Vec<Written>, Error> {
    let model_config = checkpoint.model_config();
    let GgufHeader { arch, fields: mut metadata, tensors } = model_config.config.gguf(model_config.max_length)?;
    let body = types.body.map_or_else(|| most_stored(checkpoint), Ok)?;
    let file_type = FILE_TYPES.iter().find(|(name, _)| *name == body.name);
    let (_, file_type) = file_type.ok_or_else(|| unwritten(body))?;
    metadata.push(("general.file_type".into(), Field::U32(*file_type)));
    metadata.push(("general.quantization_version".into(), Field::U32(2)));
    metadata.extend(vocabulary(checkpoint)?);
    let mut plan: Vec<(Planned, TensorSource)> = Vec::new();
    let mut narrow = BTreeMap::new();
    for spec in checkpoint.parameters().params() {
        let name = keys::tensor_name(&spec.name).ok_or_else(|| no_name(spec))?;
        let f32 = || find("f32").expect("a type");
        let mut matrix = |name: String, asked: &'static Type| {
            let kind = asked.for_rows(spec.cols);
            if kind.name != asked.name {
                narrow.insert(name.clone(), asked.name);
            }
            Planned { name, kind, shape: vec![spec.rows, spec.cols] }
        };
        match spec.role {
            role if role.is_vector() => {
                plan.push((Planned { name, kind: f32(), shape: vec![spec.cols] }, TensorSource::Param(spec)));
            }
            Role::Body if body.is_ternary() && body.tail == 0 => {
                let scale = Planned { name: keys::scale_name(&name), kind: f32(), shape: vec![1] };
                plan.push((matrix(name, body), TensorSource::Signs(spec)));
                plan.push((scale, TensorSource::Scale));
            }
            role => {
                let asked = if role == Role::Body { types.body } else { types.table };
                let kind = asked.map_or_else(|| kept_or_narrowest(checkpoint, spec), Ok)?;
                plan.push((matrix(name, kind), TensorSource::Param(spec)));
            }
        }
    }
    for (name, values) in tensors {
        let planned = Planned { name: name.into(), kind: find("f32").expect("a type"), shape: vec![values.len()] };
        plan.push((planned, TensorSource::Constant(values)));
    }
    write(checkpoint, path, arch.paired, &metadata, plan, &narrow)
}

/// The type of GGUF that has the integers a matrix is stored in, if there is one and no other recipe is asked for.
pub(super) fn stored_type(checkpoint: &Checkpoint, spec: &ParamSpec) -> Result<Option<&'static Type>, Error> {
    if checkpoint.asked.is_some() {
        return Ok(None);
    }
    Ok(match checkpoint.reader.tensor(spec)? {
        Stored::Values(Values { integers: Some(integers), .. }) => find(integers.format.name()),
        Stored::Packed(packed) => blocks::kind_of(checkpoint, spec, &packed),
        Stored::Values(_) => None,
    })
}

/// The type that most weights of the body are stored in.
fn most_stored(checkpoint: &Checkpoint) -> Result<&'static Type, Error> {
    let mut weights: BTreeMap<&str, (usize, &'static Type)> = BTreeMap::new();
    for spec in checkpoint.parameters().params().iter().filter(|spec| spec.role == Role::Body) {
        let kind = kept_or_narrowest(checkpoint, spec)?;
        weights.entry(kind.name).or_insert((0, kind)).0 += spec.rows * spec.cols;
    }
    Ok(weights
        .into_values()
        .max_by_key(|(count, _)| *count)
        .map_or_else(|| find("f32").expect("a type"), |(_, kind)| kind))
}

/// The type that a matrix is stored in, else the narrower of F16 and BF16 that holds it exactly; F32 for the body.
fn kept_or_narrowest(checkpoint: &Checkpoint, spec: &ParamSpec) -> Result<&'static Type, Error> {
    match (stored_type(checkpoint, spec)?, spec.role) {
        (Some(kind), _) => Ok(kind),
        (None, Role::Body) => Ok(narrowest(checkpoint, spec).unwrap_or_else(|_| find("f32").expect("a type"))),
        (None, _) => narrowest(checkpoint, spec),
    }
}

fn write(
    checkpoint: &Checkpoint,
    path: &Path,
    paired: bool,
    metadata: &[(String, Field)],
    plan: Vec<(Planned, TensorSource)>,
    narrow: &BTreeMap<String, &'static str>,
) -> Result<Vec<Written>, Error> {
    let rows_apart = |spec: &ParamSpec| Ok::<_, Error>(!checkpoint.reads_whole(spec)?);
    let taken = |spec: &ParamSpec| match spec.role != Role::Body && rows_apart(spec)? {
        true => Ok(0),
        // As it is stored, its values, and a copy in another order.
        false => Ok(bytes_of(spec, checkpoint.recipe())?.saturating_add(2 * Checkpoint::master_bytes(spec))),
    };
    checkpoint.need_of_largest(taken)?.check()?;
    let mut writer = GgufWriter::create(path, metadata, plan.iter().map(|(planned, _)| planned.clone()).collect())?;
    let mut totals: BTreeMap<(&str, Option<&str>), Written> = BTreeMap::new();
    let mut scale = 1.0;
    for (planned, part) in &plan {
        let mut exact = true;
        match part {
            TensorSource::Constant(values) => exact = writer.tensor(values)?,
            TensorSource::Scale => exact = writer.tensor(&[scale])?,
            TensorSource::Param(spec) => exact = put(checkpoint, &mut writer, planned, spec, paired)?,
            TensorSource::Signs(spec) => scale = put_signs(checkpoint, &mut writer, planned, spec, paired)?,
        }
        let (name, instead_of) = (planned.kind.name, narrow.get(&planned.name).copied());
        let total = totals.entry((name, instead_of)).or_insert(Written { name, instead_of, ..Written::default() });
        total.tensors.push(planned.name.clone());
        total.bytes += planned.size().map_err(Error::usage)?;
        *total.rounded.get_or_insert(0) += usize::from(!exact);
    }
    writer.finish()?;
    Ok(totals.into_values().collect())
}

/// Heads of a parameter whose rows a file has in pairs.
fn paired_heads(checkpoint: &Checkpoint, spec: &ParamSpec, paired: bool) -> Option<usize> {
    checkpoint.model_config().config.rotated_heads(&spec.name).filter(|_| paired)
}

/// Values in the order of rows of a file.
fn in_order(values: Vec<f32>, spec: &ParamSpec, heads: Option<usize>) -> Vec<f32> {
    match heads {
        Some(heads) => keys::unpair(&values, heads, keys::row_width(spec), true),
        None => values,
    }
}

/// Writes the values of a parameter, and tells whether none had to be rounded.
fn put(
    checkpoint: &Checkpoint,
    writer: &mut GgufWriter,
    planned: &Planned,
    spec: &ParamSpec,
    paired: bool,
) -> Result<bool, Error> {
    let heads = paired_heads(checkpoint, spec, paired);
    if blocks::copy(checkpoint, writer, spec, planned.kind, heads)? {
        return Ok(true);
    }
    let mut exact = true;
    each(checkpoint, spec, heads.is_none() && planned.kind.tail == 0, |values| {
        let values = in_order(values, spec, heads);
        exact &= match planned.kind.is_searched() {
            true => blocks::search(checkpoint, writer, planned.kind, &values, spec.cols)?,
            false => writer.rows(&values)?,
        };
        Ok(())
    })?;
    Ok(exact)
}

/// Writes the signs of a ternary matrix, and gives their scale.
fn put_signs(
    checkpoint: &Checkpoint,
    writer: &mut GgufWriter,
    planned: &Planned,
    spec: &ParamSpec,
    paired: bool,
) -> Result<f32, Error> {
    let mut scale = 1.0;
    each(checkpoint, spec, false, |values| {
        let mut values = in_order(values, spec, paired_heads(checkpoint, spec, paired));
        let found = crate::reader::ternary::scale_of(&values);
        scale = found.ok_or_else(|| not_ternary(spec, planned.kind))?;
        values.iter_mut().for_each(|v| *v = if *v == 0.0 { 0.0 } else { v.signum() });
        writer.rows(&values).map(|_| ())
    })?;
    Ok(scale)
}

/// Elements that are read at once, where rows can be read apart.
pub(super) const AT_ONCE: usize = 1 << 20;

/// Calls `f` with the values of a parameter as the network computes with them: some rows at a time where that is possible and
/// `apart` allows it, in their order.
fn each(
    checkpoint: &Checkpoint,
    spec: &ParamSpec,
    apart: bool,
    mut f: impl FnMut(Vec<f32>) -> Result<(), Error>,
) -> Result<(), Error> {
    if spec.role.is_vector() {
        return f(checkpoint.master(spec)?);
    }
    let format = checkpoint.recipe().format_of(spec)?.expect("matrices have a format");
    let stored = match checkpoint.asked.is_some() || spec.role == Role::Body && format.spec().is_ternary() {
        true => Stored::Packed(checkpoint.packed(spec)?),
        false => checkpoint.reader.tensor(spec)?,
    };
    let step = if apart { (AT_ONCE / spec.cols).max(1) } else { spec.rows };
    let mut pieces = (0..spec.rows).step_by(step).map(|start| start..(start + step).min(spec.rows));
    let mut give = |values: Result<Vec<f32>, Error>| {
        checkpoint.stop.check()?;
        f(values?)
    };
    let isa = Isa::choose(None).map_err(|e| checkpoint.fault(spec, &e))?;
    let values = match stored {
        Stored::Packed(packed) => {
            return pieces.try_for_each(|rows| {
                let mut values = packed.dequantize_rows(rows);
                if checkpoint.recipe().rotates(spec) {
                    rotation::hadamard(isa, &mut values, spec.cols);
                }
                give(Ok(values))
            });
        }
        Stored::Values(values) => values,
    };
    match values.read_rows.as_ref().filter(|_| apart) {
        Some(read) => pieces.try_for_each(|rows| give(read(rows)))?,
        None => give((values.read)())?,
    }
    (values.release)();
    Ok(())
}

/// The narrower of F16 and BF16 that holds a table exactly.
fn narrowest(checkpoint: &Checkpoint, spec: &ParamSpec) -> Result<&'static Type, Error> {
    let mut kinds = ["f16", "bf16"].map(|name| find(name).expect("a type")).to_vec();
    each(checkpoint, spec, true, |values| {
        kinds.retain(|kind| kind.holds(&values));
        Ok(())
    })?;
    if let Some(kind) = kinds.first() {
        return Ok(kind);
    }
    let text = format!("tensor `{}`: neither F16 nor BF16 holds its values exactly", spec.name);
    Err(Error::usage(format!(
        "{text}; name a type for table and head with --table: f32 keeps them, f16, bf16 or q8_0 rounds"
    )))
}

/// The metadata of the tokenizer and of the model configuration.
fn vocabulary(checkpoint: &Checkpoint) -> Result<Vec<(String, Field)>, Error> {
    let model_config = checkpoint.model_config();
    let tokenizer = checkpoint.tokenizer().map_err(|e| match e.kind {
        Kind::Io => Error { message: format!("{}; a GGUF file holds the tokenizer", e.message), ..e },
        _ => e,
    })?;
    let table = checkpoint.parameters().params().iter().find(|p| p.role == Role::Embedding);
    let rows = table.map_or(0, |table| table.rows);
    if tokenizer.vocab_size() > rows {
        let text = format!("GGUF: the tokenizer has {} entries, but the table of tokens", tokenizer.vocab_size());
        return Err(Error::usage(format!("{text} {rows} rows; llama.cpp refuses such files")));
    }
    let mut fields = tokenizer.gguf_fields(rows)?;
    for (key, id) in special_keys(model_config.bos_token_id, &model_config.eos_token_ids, |id| tokenizer.name(id))? {
        fields.retain(|(other, _)| other != key);
        fields.push((key.into(), Field::U32(id)));
    }
    for (key, field) in variable_fields(&model_config.chat.tokens, &tokenizer) {
        fields.retain(|(other, _)| *other != key);
        fields.push((key, field));
    }
    let templates = [("", &model_config.chat_template), (".tool_use", &model_config.tool_template)];
    for (name, template) in templates {
        let field = template.as_ref().map(|template| Field::Text(template.clone()));
        fields.extend(field.map(|field| (format!("tokenizer.chat_template{name}"), field)));
    }
    Ok(fields)
}

fn unwritten(kind: &Type) -> Error {
    Error::usage(format!("type {} is read, but not written", kind.name))
}

fn no_name(spec: &ParamSpec) -> Error {
    Error::usage(format!("GGUF: tensor `{}` has no name in llama.cpp", spec.name))
}

fn not_ternary(spec: &ParamSpec, kind: &Type) -> Error {
    let text = format!("tensor `{}` is not ternary with one scale, which {} needs", spec.name, kind.name);
    Error::usage(format!("{text}; quantize the model under the recipe bitnet first, or name a float type with --type"))
}
