//! Writing checkpoints: masters after training, and packed matrices under a recipe, tensor by tensor.

use super::{
    CONFIG_FILE, CONFIG_KEY, Checkpoint, FORMATS_KEY, Options, PackedEntry, Quantizing, RECIPE_KEY, TOKENIZER_KEY,
    VERSION, VERSION_KEY, WEIGHTS_FILE, is_file, part_name,
};
use crate::container::{Dtype, Planned, Writer};
use crate::model_config::ModelConfig;
use crate::parameter_list::{ParameterList, bytes_of};
use crate::source::{ParamSpec, Source};
use crate::{Error, Kind, Param, Recipe, Tokenizer};
use lowbit_base::file::{self, NewFile, Set};
use std::collections::BTreeMap;
use std::io::{Seek, Write};
use std::path::Path;

/// Writes a model directory with f32 masters. Its files replace earlier ones together, the weights last.
///
/// # Errors
/// When another process writes there, or writing fails; an earlier checkpoint is then as it was.
///
/// # Panics
/// When values do not fit their specification.
pub fn save_masters<'a>(
    directory: &Path,
    model_config: &ModelConfig,
    tokenizer: Option<&Tokenizer>,
    params: impl IntoIterator<Item = (&'a ParamSpec, &'a [f32])>,
) -> Result<(), Error> {
    let params: Vec<_> = params.into_iter().collect();
    let plan: Vec<_> = params.iter().map(|(spec, _)| plain(spec)).collect();
    let (set, mut writer) = begin(directory, metadata("f32", None), &plan)?;
    for ((spec, values), plan) in params.iter().zip(&plan) {
        writer.floats(&spec.name, &plan.shape, values)?;
    }
    end(set, writer, model_config, tokenizer)
}

/// Quantizes masters under a recipe into another directory, or a file as [`save`] has it, one tensor in memory at a time.
///
/// # Errors
/// When the checkpoint holds no masters, a weight is NaN or infinite, another process writes there, or writing fails; what was
/// there is then as it was.
pub fn quantize(checkpoint: &Checkpoint, recipe: &'static Recipe, options: &Options, path: &Path) -> Result<(), Error> {
    check_output(checkpoint, path)?;
    recipe.check(checkpoint.parameters().params())?;
    let taken = |spec: &ParamSpec| {
        let whole = recipe.format_of(spec)?.is_some() && checkpoint.reads_whole(spec)?;
        Ok(bytes_of(spec, recipe)?.saturating_add(if whole { Checkpoint::master_bytes(spec) } else { 0 }))
    };
    checkpoint.need_of_largest(taken)?.check()?;
    let mut source = Quantizing { checkpoint, recipe, options };
    save_quantized(checkpoint, recipe, &mut source, path)
}

/// Refuses to write over the model that is read.
fn check_output(checkpoint: &Checkpoint, path: &Path) -> Result<(), Error> {
    let same = |a: &Path, b: &Path| matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
    match same(checkpoint.directory(), path) || checkpoint.files().into_iter().any(|file| same(file, path)) {
        true => Err(Error::usage(format!("{}: the output would replace its own masters", path.display()))),
        false => Ok(()),
    }
}

/// Writes a model, as [`save`], under a recipe with the configuration and tokenizer of a checkpoint, and every parameter from a source.
///
/// # Errors
/// When the output would replace the checkpoint, and as [`save`].
pub fn save_quantized(
    checkpoint: &Checkpoint,
    recipe: &'static Recipe,
    source: &mut dyn Source<Param>,
    path: &Path,
) -> Result<(), Error> {
    check_output(checkpoint, path)?;
    let tokenizer = match checkpoint.reader.tokenizer() {
        Ok(tokenizer) => Some(tokenizer),
        // Absent where texts are not needed.
        Err(e) if e.kind == Kind::Io => None,
        Err(e) => return Err(e),
    };
    save(path, checkpoint.model_config(), tokenizer.as_ref(), recipe, source)
}

/// Writes a model under a recipe, taking every parameter from a source, one tensor in memory at a time: a directory, or, where the
/// name ends in `.safetensors`, one file with configuration and tokenizer in its metadata.
///
/// # Errors
/// When the configuration contradicts itself, the source lacks a parameter, another process writes there, a file cannot hold the
/// tokenizer, or writing fails; what was there is then as it was.
pub fn save(
    path: &Path,
    model_config: &ModelConfig,
    tokenizer: Option<&Tokenizer>,
    recipe: &'static Recipe,
    source: &mut dyn Source<Param>,
) -> Result<(), Error> {
    let parameters = ParameterList::new(&model_config.config)?;
    recipe.check(parameters.params())?;
    let (mut plan, mut formats) = (Vec::new(), BTreeMap::new());
    for spec in parameters.params() {
        let Some(format) = recipe.format_of(spec)? else {
            plan.push(plain(spec));
            continue;
        };
        let (name, layout) = (format.name().to_string(), format.spec().layout);
        let stored = PackedEntry { format: name, rows: spec.rows, cols: spec.cols, layout };
        formats.insert(spec.name.clone(), stored);
        for part in format.parts(spec.rows, spec.cols, &[]) {
            plan.push(Planned { name: part_name(&spec.name, part.name), dtype: Dtype::U8, shape: vec![part.bytes] });
        }
    }
    let mut metadata = metadata(recipe.name, Some(&formats));
    if is_file(path) {
        metadata.insert(CONFIG_KEY.into(), model_config.to_json());
        let text = tokenizer.map(|tokenizer| tokenizer.text().map_err(|e| e.in_file(path))).transpose()?;
        metadata.extend(text.map(|text| (TOKENIZER_KEY.to_string(), text)));
        file::make(path.parent().unwrap_or(Path::new("")))?;
        let mut writer = Writer::create(path, metadata, &plan)?;
        write(&mut writer, &parameters, source)?;
        return writer.finish();
    }
    let (set, mut writer) = begin(path, metadata, &plan)?;
    write(&mut writer, &parameters, source)?;
    end(set, writer, model_config, tokenizer)
}

/// Writes every parameter.
fn write<S: Write + Seek>(
    writer: &mut Writer<S>,
    parameters: &ParameterList,
    source: &mut dyn Source<Param>,
) -> Result<(), Error> {
    for spec in parameters.params() {
        match source.param(spec)? {
            Param::Vector(values) => writer.floats(&spec.name, &[spec.cols], &values)?,
            Param::Matrix { packed, .. } => {
                let parts = packed.format().parts(spec.rows, spec.cols, packed.parts());
                // A part may be empty (no outlier columns); a tensor may not.
                for (part, bytes) in parts.iter().zip(packed.parts()).filter(|(_, bytes)| !bytes.is_empty()) {
                    writer.tensor(&part_name(&spec.name, part.name), Dtype::U8, &[bytes.len()], bytes)?;
                }
            }
        }
    }
    Ok(())
}

/// Makes and locks the directory and opens the weights.
fn begin(
    directory: &Path,
    metadata: BTreeMap<String, String>,
    plan: &[Planned],
) -> Result<(Set, Writer<NewFile>), Error> {
    let set = Set::open(directory)?;
    let weights = set.part(WEIGHTS_FILE)?;
    Ok((set, Writer::over(weights, &directory.join(WEIGHTS_FILE), metadata, plan)?))
}

/// Writes the small files, and puts all in their places.
fn end(
    mut set: Set,
    weights: Writer<NewFile>,
    model_config: &ModelConfig,
    tokenizer: Option<&Tokenizer>,
) -> Result<(), Error> {
    let weights = weights.seal()?;
    set.write(CONFIG_FILE, model_config.to_json().as_bytes())?;
    if let Some(tokenizer) = tokenizer {
        tokenizer.save_in(&mut set)?;
    }
    set.add(weights)?;
    set.commit()
}

fn metadata(recipe: &str, formats: Option<&BTreeMap<String, PackedEntry>>) -> BTreeMap<String, String> {
    let mut pairs = BTreeMap::from([(VERSION_KEY.into(), VERSION.into()), (RECIPE_KEY.into(), recipe.into())]);
    if let Some(formats) = formats {
        pairs.insert(FORMATS_KEY.into(), serde_json::to_string(formats).expect("plain data"));
    }
    pairs
}

fn plain(spec: &ParamSpec) -> Planned {
    let vector = spec.role.is_vector();
    let shape = if vector { vec![spec.cols] } else { vec![spec.rows, spec.cols] };
    Planned { name: spec.name.clone(), dtype: Dtype::F32, shape }
}
