//! The small files of a Hub directory: `config.json` in transformers' terms, token ids, and the chat template.

use super::EMBEDDING;
use super::integers::{self, Scheme};
use super::shards::Shards;
use crate::arch::OutputKind;
use crate::arch::family::{self, Family, HEAD, Network, Published, keys::Keys};
use crate::checkpoint::CONFIG_FILE;
use crate::container::show;
use crate::input::Scaling;
use crate::model_config::read_map;
use crate::tokenizer::Settings;
use crate::{Error, ModelConfig};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Keys that tell a `config.json` of transformers, of which the project's own has none.
const HUB_KEYS: &[&str] = &[
    "model_type",
    "architectures",
    "transformers_version",
    "dtype",
    "torch_dtype",
    "max_position_embeddings",
    "tie_word_embeddings",
    "rope_parameters",
];

/// How products of the body are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quantization {
    /// As the weights are stored.
    None,
    /// As stored, where matrices may be packed as integers with scales of groups.
    Integers(Scheme),
    /// As in BitNet b1.58; with the meaning of the scales of packed matrices, where they have one.
    Bitnet(Option<ScaleUse>),
}

/// What `weight_scale` is to the codes of its matrix; see `linear_class` in transformers' `integrations/bitnet.py`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScaleUse {
    /// `bitlinear`: outputs are divided by it.
    Divides,
    /// `autobitlinear`: outputs are multiplied with it.
    Multiplies,
}

/// What the small files say.
pub(super) struct Read {
    pub model_config: ModelConfig,
    pub quantization: Quantization,
    /// Of the tokenizer.
    pub settings: Settings,
    /// The file of the chat template.
    pub template: PathBuf,
    pub notices: Vec<String>,
}

/// Whether a `config.json` is one of transformers.
pub(super) fn is_foreign(path: &Path) -> bool {
    let has = |map: &Map<String, Value>| HUB_KEYS.iter().any(|key| map.contains_key(*key));
    read_map(path).is_ok_and(|(map, _)| has(&map) && !map.contains_key("architecture"))
}

/// Reads the small files of a directory, and gives its tensors the names that this project has.
///
/// # Errors
/// Names file and field; what would change results and is not supported is refused by its name.
pub(super) fn read(directory: &Path, shards: &mut Shards) -> Result<Read, Error> {
    let path = directory.join(CONFIG_FILE);
    let at = |e: Error| Error { path: Some(path.clone()), ..e };
    let (map, mut notices) = read_map(&path)?;
    let keys = Keys::new(&map);
    let family = family::of_hub(&keys).map_err(at)?;
    shards.rename(family.names);
    let stores = |end: &str| shards.names().any(|name| name.ends_with(end));
    let network = Published { keys, stores: &stores, same_head: &|| shards.equal(EMBEDDING, HEAD) };
    let Network { mut config, context, labels } = (family.hub)(&network).map_err(at)?;
    let keys = network.keys;
    super::sentence::read(directory, &mut config)?;
    let quantization = match quantization(&keys, family).map_err(at)? {
        Quantization::None => beside(directory)?.map_or(Quantization::None, Quantization::Integers),
        said => said,
    };
    if context == 0 {
        return Err(at(Error::config("max_position_embeddings", "is 0; it must be at least 1")));
    }
    let mut model_config = ModelConfig::new(config, context);
    model_config.labels = labels;
    // A value of a published network stands for itself.
    let itself = || Scaling { mean: vec![0.0], deviation: vec![1.0] };
    model_config.target_scaling = (model_config.config.output() == OutputKind::Value).then(itself);
    model_config.bos_token_id = keys.ids("bos_token_id").map_err(at)?.first().copied();
    model_config.eos_token_ids = keys.ids("eos_token_id").map_err(at)?;
    let vocabulary = keys.size("vocab_size").map_err(at)?.unwrap_or_default();
    family::known::settle(&keys, family.model_type).map_err(at)?;
    notices.extend(keys.notices().into_iter().map(|text| format!("{}: {text}", path.display())));
    let settings = Settings::read(directory)?;
    let template = super::chat::read(directory, &settings, &mut model_config)?;
    notices.extend(settings.notices.iter().cloned());
    let generation = directory.join("generation_config.json");
    let mut ends = map.contains_key("eos_token_id");
    if generation.exists() {
        let (map, _) = read_map(&generation)?;
        let more = Keys::new(&map).ids("eos_token_id").map_err(|e| Error { path: Some(generation), ..e })?;
        ends |= !more.is_empty();
        model_config.eos_token_ids.extend(more);
        model_config.eos_token_ids.sort_unstable();
        model_config.eos_token_ids.dedup();
    }
    let begins = map.contains_key("bos_token_id");
    default_ids(&mut model_config, (family, vocabulary), [begins, ends], &settings);
    Ok(Read { model_config, quantization, settings, template, notices })
}

/// Takes the ids of the family for the tokens that begin and end a text where neither a configuration tells them, which
/// `told` says, nor the tokenizer names them, and the vocabulary has them.
fn default_ids(
    model_config: &mut ModelConfig,
    (family, vocabulary): (&Family, usize),
    told: [bool; 2],
    settings: &Settings,
) {
    let missing = |at: usize, name: &str| !told[at] && !settings.variables.contains_key(name);
    let known = |id: &u32| (*id as usize) < vocabulary;
    let [bos, eos] = family.ids.map(|id| id.filter(known));
    if missing(0, "bos_token") {
        model_config.bos_token_id = bos;
    }
    if missing(1, "eos_token") {
        model_config.eos_token_ids.extend(eos);
    }
}

/// What an older program says in a file beside `config.json` of how it packed matrices.
fn beside(directory: &Path) -> Result<Option<Scheme>, Error> {
    for (name, method) in integers::FILES {
        let path = directory.join(name);
        if path.exists() {
            let (map, _) = read_map(&path)?;
            return Scheme::read(method, &Keys::new(&map)).map(Some).map_err(|e| e.in_file(&path));
        }
    }
    Ok(None)
}

fn quantization(keys: &Keys, family: &Family) -> Result<Quantization, Error> {
    let field = "quantization_config";
    let Some(inner) = keys.object(field)? else {
        return Ok(if family.ternary { Quantization::Bitnet(None) } else { Quantization::None });
    };
    let inner = Keys::new(inner);
    let method: String = inner.get("quant_method")?.unwrap_or_default();
    if integers::METHODS.contains(&method.as_str()) {
        return Scheme::read(&method, &inner).map(Quantization::Integers);
    }
    if method != "bitnet" {
        let known = integers::METHODS.join(", ");
        let text = format!("has `quant_method` `{}`; supported: bitnet, {known}", show(&method));
        return Err(Error::config(field, format!("{text}. Fetch the unquantized model and quantize it here")));
    }
    if inner.get("use_rms_norm")?.unwrap_or(false) {
        return Err(Error::config(field, "has `use_rms_norm`; norms inside linear layers are not supported"));
    }
    let kept: Vec<String> = inner.get("modules_to_not_convert")?.unwrap_or_default();
    let outside = |name: &str| ["lm_head", "embed", "norm"].iter().any(|part| name.contains(part));
    if let Some(name) = kept.iter().find(|name| !outside(name)) {
        let text = format!("has `{}` in `modules_to_not_convert`; all of the body must be ternary", show(name));
        return Err(Error::config(field, text));
    }
    let class: Option<String> = inner.get("linear_class")?;
    match class.as_deref() {
        None | Some("bitlinear") => Ok(Quantization::Bitnet(Some(ScaleUse::Divides))),
        Some("autobitlinear") => Ok(Quantization::Bitnet(Some(ScaleUse::Multiplies))),
        Some(other) => {
            let text = format!("has `linear_class` `{}`; supported: bitlinear, autobitlinear", show(other));
            Err(Error::config(field, text))
        }
    }
}
