//! Writing GGUF files that llama.cpp and bitnet.cpp read.

use super::Checkpoint;
use crate::container::gguf::{Field, GgufWriter, Planned, Type, find};
use crate::origin::gguf::keys::{self, Arch};
use crate::origin::ternary::holds_ternary;
use crate::source::{ParamSpec, Role};
use crate::{Config, Error, Kind};
use std::collections::BTreeMap;
use std::path::Path;

/// Types of the tensors of a GGUF file. Vectors are always F32.
#[derive(Clone, Copy, Debug)]
pub struct GgufTypes {
    /// Matrices of the body.
    pub body: &'static Type,
    /// Table and head; `None` for the narrower of F16 and BF16 that holds their values exactly.
    pub table: Option<&'static Type>,
}

/// What was written in one type.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Written {
    /// Name of the type.
    pub name: &'static str,
    /// Tensors of this type.
    pub tensors: usize,
    /// Bytes of their data.
    pub bytes: u64,
    /// How many of them had to be rounded.
    pub rounded: usize,
}

/// `general.file_type` of the type of the body.
const FILE_TYPES: &[(&str, u32)] =
    &[("F32", 0), ("F16", 1), ("Q8_0", 7), ("BF16", 32), ("TQ1_0", 36), ("TQ2_0", 37), ("I2_S", 40)];

/// Where the values of a tensor come from; the scale is that of the signs before it.
enum Part<'a> {
    Param(&'a ParamSpec),
    Signs(&'a ParamSpec),
    Scale,
    Rope(Vec<f32>),
}

/// Writes a language model as a GGUF file. A ternary type takes ternary matrices only, and keeps them exactly: TQ1_0 and TQ2_0
/// hold the signs, and the scale is a tensor `.scale` beside them.
///
/// # Errors
/// When no architecture of llama.cpp computes the network, a type cannot hold a matrix, or writing fails; no output file is
/// left.
pub fn save_gguf(checkpoint: &Checkpoint, path: &Path, types: GgufTypes) -> Result<Vec<Written>, Error> {
    let Config::BitNet(config) = &checkpoint.card().config else {
        return Err(Error::usage("GGUF: llama.cpp has no such network; only decoders can be written"));
    };
    let card = checkpoint.card();
    let (arch, mut metadata) = keys::metadata(config, card.max_length)?;
    let file_type = FILE_TYPES.iter().find(|(name, _)| *name == types.body.name);
    let (_, file_type) = file_type.ok_or_else(|| unwritten(types.body))?;
    metadata.push(("general.file_type".into(), Field::U32(*file_type)));
    metadata.push(("general.quantization_version".into(), Field::U32(2)));
    metadata.extend(vocabulary(checkpoint, config.vocab_size)?);
    let mut plan: Vec<(Planned, Part)> = Vec::new();
    for spec in checkpoint.listing().params() {
        let name = keys::tensor_name(&spec.name).ok_or_else(|| no_name(spec))?;
        let f32 = || find("f32").expect("a type");
        let matrix = |name: String, kind| Planned { name, kind, shape: vec![spec.rows, spec.cols] };
        match spec.role {
            Role::Norm | Role::Bias => {
                plan.push((Planned { name, kind: f32(), shape: vec![spec.cols] }, Part::Param(spec)));
            }
            Role::Body if types.body.is_ternary() && types.body.tail == 0 => {
                let scale = Planned { name: keys::scale_name(&name), kind: f32(), shape: vec![1] };
                plan.push((matrix(name, types.body), Part::Signs(spec)));
                plan.push((scale, Part::Scale));
            }
            Role::Body => plan.push((matrix(name, types.body), Part::Param(spec))),
            Role::Embedding | Role::Head => {
                let kind = types.table.map_or_else(|| narrowest(checkpoint, spec), Ok)?;
                plan.push((matrix(name, kind), Part::Param(spec)));
            }
        }
    }
    if let Some(scaling) = &config.rope_scaling {
        let divisors = keys::rope_divisors(scaling, config.rope_theta, config.head_dim);
        let planned =
            Planned { name: keys::ROPE_FREQS.into(), kind: find("f32").expect("a type"), shape: vec![divisors.len()] };
        plan.push((planned, Part::Rope(divisors)));
    }
    write(checkpoint, path, arch, &metadata, plan)
}

fn write(
    checkpoint: &Checkpoint,
    path: &Path,
    arch: &Arch,
    metadata: &[(String, Field)],
    plan: Vec<(Planned, Part)>,
) -> Result<Vec<Written>, Error> {
    let Config::BitNet(config) = &checkpoint.card().config else { unreachable!("checked by the caller") };
    let mut writer = GgufWriter::create(path, metadata, plan.iter().map(|(planned, _)| planned.clone()).collect())?;
    let mut totals: BTreeMap<&str, Written> = BTreeMap::new();
    let mut scale = 1.0;
    for (planned, part) in &plan {
        let values = match part {
            Part::Rope(divisors) => divisors.clone(),
            Part::Scale => vec![scale],
            Part::Param(spec) | Part::Signs(spec) => {
                let mut values = values(checkpoint, spec)?;
                if let Some(heads) = keys::rotated_heads(&spec.name, config).filter(|_| arch.paired) {
                    values = keys::unpair(&values, heads, spec.cols, true);
                }
                if matches!(part, Part::Signs(_)) {
                    scale = crate::origin::ternary::scale_of(&values).ok_or_else(|| not_ternary(spec, planned.kind))?;
                    let sign = |v: &mut f32| *v = if *v == 0.0 { 0.0 } else { v.signum() };
                    values.iter_mut().for_each(sign);
                }
                values
            }
        };
        let exact = writer.tensor(&values)?;
        let total =
            totals.entry(planned.kind.name).or_insert(Written { name: planned.kind.name, ..Written::default() });
        total.tensors += 1;
        total.bytes += planned.size().map_err(Error::usage)?;
        total.rounded += usize::from(!exact);
    }
    writer.finish()?;
    Ok(totals.into_values().collect())
}

/// The values of a parameter as the network computes with them.
fn values(checkpoint: &Checkpoint, spec: &ParamSpec) -> Result<Vec<f32>, Error> {
    if matches!(spec.role, Role::Norm | Role::Bias) {
        return checkpoint.master(spec);
    }
    let format = checkpoint.recipe().format(spec.role)?.expect("matrices have a format");
    if spec.role == Role::Body && holds_ternary(format) {
        return Ok(checkpoint.packed(spec)?.dequantize());
    }
    match checkpoint.origin.packed(spec, format, checkpoint.pool()?)? {
        Some(packed) => Ok(packed.dequantize()),
        None => checkpoint.master(spec),
    }
}

/// The narrower of F16 and BF16 that holds a table exactly.
fn narrowest(checkpoint: &Checkpoint, spec: &ParamSpec) -> Result<&'static Type, Error> {
    let values = values(checkpoint, spec)?;
    for name in ["f16", "bf16"] {
        let kind = find(name).expect("a type");
        if kind.holds(&values) {
            return Ok(kind);
        }
    }
    let text = format!("tensor `{}`: neither F16 nor BF16 holds its values exactly", spec.name);
    Err(Error::usage(format!("{text}; name a type for table and head: f32 keeps them, f16, bf16 or q8_0 rounds")))
}

/// The metadata of the tokenizer and of the card.
fn vocabulary(checkpoint: &Checkpoint, rows: usize) -> Result<Vec<(String, Field)>, Error> {
    let card = checkpoint.card();
    let tokenizer = checkpoint.tokenizer().map_err(|e| match e.kind {
        Kind::Io => Error { message: format!("{}; a GGUF file holds the tokenizer", e.message), ..e },
        _ => e,
    })?;
    let mut fields = tokenizer.gguf_fields(rows)?;
    let ids = card.bos_token_id.map(|id| ("bos", id)).into_iter();
    for (key, id) in ids.chain(["eos", "eot", "eom"].into_iter().zip(card.eos_token_ids.iter().copied())) {
        let key = format!("tokenizer.ggml.{key}_token_id");
        fields.retain(|(other, _)| *other != key);
        fields.push((key, Field::U32(id)));
    }
    if let Some(template) = &card.chat_template {
        fields.push(("tokenizer.chat_template".into(), Field::Text(template.clone())));
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
    Error::usage(format!("{text}; quantize the model under the recipe bitnet first, or name a float type"))
}
