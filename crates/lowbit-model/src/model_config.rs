//! `config.json`: everything about a model but its weights.

mod fault;

use crate::arch::family::keys::NOT_FINITE;
use crate::arch::{ARCHITECTURES, FORMER_NAMES, OutputKind};
use crate::container::{read_small, show};
use crate::input::Scaling;
use crate::{Config, Error, InputColumns, Rounding};
use lowbit_base::{alternatives, file};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

/// Keys of the Hub that name code to load; they are never followed.
const CODE_KEYS: &[&str] = &["auto_map", "_attn_implementation_internal", "trust_remote_code", "custom_pipelines"];
/// Largest `config.json`, bytes.
pub(crate) const MAX_BYTES: u64 = 1 << 20;
/// Largest number in a configuration: products of two stay far from overflow.
const MAX_NUMBER: u64 = 1 << 31;

/// Everything about a model but its weights: the content of `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The architecture and its dimensions.
    pub config: Config,
    /// Names of the classes, in the order of the logits; empty for language models.
    pub labels: Vec<String>,
    /// Longest sequence, tokens; longer texts are cut.
    pub max_length: usize,
    /// The columns of the training rows, where they came from a table.
    pub input: Option<InputColumns>,
    /// How the numbers of a row are scaled before the network reads them; absent where it reads tokens.
    pub input_scaling: Option<Scaling>,
    /// How the value it answers with was scaled, one column; absent where it answers with logits.
    pub target_scaling: Option<Scaling>,
    /// Name of the recipe the weights were trained under, if it was not full precision.
    pub trained_for: Option<String>,
    /// The rule by which body matrices were trained to be ternary, if it is not that of the formats.
    pub rounding: Option<Rounding>,
    /// The token that begins every text, if the model was trained with one.
    pub bos_token_id: Option<u32>,
    /// Tokens that end an answer; empty when none is known.
    pub eos_token_ids: Vec<u32>,
    /// Template that makes one text of the turns of a chat.
    pub chat_template: Option<String>,
    /// The one for chats with functions, where it is another.
    pub tool_template: Option<String>,
    /// What the template needs beside its source.
    pub chat: ChatSettings,
}

/// What a chat template needs beside its source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChatSettings {
    /// Spellings of tokens by the variables that stand for them: `bos_token`, `eos_token`, and so on.
    pub tokens: BTreeMap<String, String>,
    /// Whether the token that begins every text goes before a chat whose template writes none, as llama.cpp has it.
    pub begins: bool,
}

impl<const N: usize> From<[(&str, &str); N]> for ChatSettings {
    /// Variables and the spellings of their tokens.
    fn from(tokens: [(&str, &str); N]) -> Self {
        let tokens = tokens.into_iter().map(|(name, token)| (name.into(), token.into())).collect();
        ChatSettings { tokens, ..ChatSettings::default() }
    }
}

impl ModelConfig {
    /// A model configuration without classes, recipe, token ids and template.
    pub fn new(config: Config, max_length: usize) -> Self {
        ModelConfig {
            config,
            labels: Vec::new(),
            max_length,
            input: None,
            input_scaling: None,
            target_scaling: None,
            trained_for: None,
            rounding: None,
            bos_token_id: None,
            eos_token_ids: Vec::new(),
            chat_template: None,
            tool_template: None,
            chat: ChatSettings::default(),
        }
    }

    /// Reads a `config.json`; also returns notices about keys that were ignored.
    ///
    /// # Errors
    /// Names file and field; an unknown architecture lists the known ones.
    pub fn load(path: &Path) -> Result<(ModelConfig, Vec<String>), Error> {
        ModelConfig::parse(path, &read_small(path, MAX_BYTES)?)
    }

    /// Reads the content of such a file; `path` is what errors name.
    ///
    /// # Errors
    /// As [`ModelConfig::load`].
    pub fn parse(path: &Path, text: &[u8]) -> Result<(ModelConfig, Vec<String>), Error> {
        let (map, notices) = parse_map(path, text)?;
        let model_config = ModelConfig::from_map(map).map_err(|e| e.in_file(path))?;
        Ok((model_config, notices))
    }

    /// Writes `config.json`, atomically.
    ///
    /// # Errors
    /// When writing fails.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        file::replace(path, self.to_json().as_bytes())
    }

    /// The content of `config.json`.
    pub fn to_json(&self) -> String {
        let mut value = serde_json::to_value(&self.config).expect("a configuration is plain data");
        let map = value.as_object_mut().expect("a configuration is an object");
        map.insert("labels".into(), json!(self.labels));
        map.insert("max_length".into(), json!(self.max_length));
        if let Some(input) = &self.input {
            map.insert("input".into(), json!(input));
        }
        // What is the same for every pixel is written once.
        let channels = self.config.image().map(|[_, _, channels]| channels);
        let input = self.input_scaling.as_ref().map(|scaling| channels.map_or(scaling.clone(), |n| scaling.once(n)));
        for (key, scaling) in [("input_scaling", &input), ("target_scaling", &self.target_scaling)] {
            if let Some(scaling) = scaling {
                map.insert(key.into(), json!(scaling));
            }
        }
        if let Some(recipe) = &self.trained_for {
            map.insert("trained_for".into(), json!(recipe));
        }
        if let Some(rounding) = &self.rounding {
            map.insert("rounding".into(), json!(rounding));
        }
        if let Some(id) = self.bos_token_id {
            map.insert("bos_token_id".into(), json!(id));
        }
        if !self.eos_token_ids.is_empty() {
            map.insert("eos_token_ids".into(), json!(self.eos_token_ids));
        }
        for (key, template) in [("chat_template", &self.chat_template), ("tool_template", &self.tool_template)] {
            map.extend(template.as_ref().map(|template| (key.to_owned(), json!(template))));
        }
        if self.chat.begins || !self.chat.tokens.is_empty() {
            map.insert("chat".into(), json!(self.chat));
        }
        format!("{value:#}\n")
    }

    fn from_map(mut map: Map<String, Value>) -> Result<ModelConfig, Error> {
        let labels: Vec<String> = take(&mut map, "labels")?.unwrap_or_default();
        let max_length = take(&mut map, "max_length")?.unwrap_or(512);
        let input = take(&mut map, "input")?;
        let input_scaling: Option<Scaling> = take(&mut map, "input_scaling")?;
        let target_scaling: Option<Scaling> = take(&mut map, "target_scaling")?;
        let trained_for: Option<String> = take(&mut map, "trained_for")?;
        let rounding = take(&mut map, "rounding")?;
        let bos_token_id = take(&mut map, "bos_token_id")?;
        let eos_token_ids = take(&mut map, "eos_token_ids")?.unwrap_or_default();
        let chat_template = take(&mut map, "chat_template")?;
        let tool_template = take(&mut map, "tool_template")?;
        let chat = take(&mut map, "chat")?.unwrap_or_default();
        if max_length == 0 {
            return Err(Error::config("max_length", "is 0; it must be at least 1"));
        }
        if let Some(name) = &trained_for {
            crate::recipe::find(name).map_err(|e| Error::config("trained_for", e))?;
        }
        for (field, value) in &map {
            if let Some(n) = value.as_f64().filter(|n| n.abs() > MAX_NUMBER as f64) {
                return Err(Error::config(&show(field), format!("is {n}, more than {MAX_NUMBER}")));
            }
        }
        let known = ARCHITECTURES.join(", ");
        match map.get("architecture").map(|v| v.as_str()) {
            None => {
                return Err(Error::config("architecture", format!("is missing; one of: {known}")));
            }
            Some(Some(name)) if ARCHITECTURES.contains(&name) || FORMER_NAMES.contains(&name) => {}
            Some(other) => {
                let name = other.unwrap_or("not a string");
                let known = alternatives(name, ARCHITECTURES.iter().copied());
                return Err(Error::config("architecture", format!("is `{}`, which is unknown{known}", show(name))));
            }
        }
        let config = fault::config(map)?;
        let of_image = |scaling: &Scaling| config.image().is_some_and(|image| scaling.width() == image[2]);
        let input_scaling = input_scaling.map(|scaling| match of_image(&scaling) {
            true => scaling.repeated(config.features()),
            false => scaling,
        });
        if let Some(classes) = config.classes().filter(|n| !labels.is_empty() && labels.len() != *n) {
            return Err(Error::config("labels", format!("has {} names for {classes} classes", labels.len())));
        }
        let values = usize::from(config.output() == OutputKind::Value);
        check_scaling("input_scaling", input_scaling.as_ref(), config.features())?;
        check_scaling("target_scaling", target_scaling.as_ref(), values)?;
        Ok(ModelConfig {
            config,
            labels,
            max_length,
            input,
            input_scaling,
            target_scaling,
            trained_for,
            rounding,
            bos_token_id,
            eos_token_ids,
            chat_template,
            tool_template,
            chat,
        })
    }
}

/// The object in a JSON file, and a notice about each key that names code, which is left out.
///
/// # Errors
/// When the file is not regular, too large, or holds something else.
pub(crate) fn read_map(path: &Path) -> Result<(Map<String, Value>, Vec<String>), Error> {
    parse_map(path, &read_small(path, MAX_BYTES)?)
}

fn parse_map(path: &Path, text: &[u8]) -> Result<(Map<String, Value>, Vec<String>), Error> {
    let mut map: Map<String, Value> = serde_json::from_slice(&quoted(text))
        .map_err(|e| Error::input(path, format!("not a JSON object of a model: {e}")))?;
    let ignored = CODE_KEYS.iter().filter(|key| map.remove(**key).is_some());
    let notices = ignored.map(|key| format!("{}: `{key}` names code to load; ignored", path.display())).collect();
    Ok((map, notices))
}

/// JSON as Python writes it, with NaN and infinities (of which JSON has none) as strings.
fn quoted(text: &[u8]) -> Cow<'_, [u8]> {
    let mut out = Vec::new();
    let (mut done, mut at, mut inside) = (0, 0, false);
    while at < text.len() {
        let word = NOT_FINITE.iter().find(|word| !inside && text[at..].starts_with(word.as_bytes()));
        match (text[at], word) {
            (_, Some(word)) => {
                out.extend([&text[done..at], b"\"", word.as_bytes(), b"\""].concat());
                at += word.len();
                done = at;
                continue;
            }
            (b'"', _) => inside = !inside,
            (b'\\', _) if inside => at += 1,
            _ => {}
        }
        at += 1;
    }
    if done == 0 {
        return Cow::Borrowed(text);
    }
    out.extend(&text[done..]);
    Cow::Owned(out)
}

/// A scaling must be sound, and be there for as many numbers as the network has.
fn check_scaling(field: &str, scaling: Option<&Scaling>, width: usize) -> Result<(), Error> {
    match scaling {
        None if width == 0 => Ok(()),
        None => Err(Error::config(field, format!("is missing; the network has {width} numbers of that kind"))),
        Some(scaling) if !scaling.is_sound() => Err(Error::config(
            field,
            "must hold as many means as deviations, all finite, and no deviation of 0 or less",
        )),
        Some(scaling) if scaling.width() != width => {
            Err(Error::config(field, format!("is of {} numbers; the network has {width}", scaling.width())))
        }
        Some(_) => Ok(()),
    }
}

fn take<T: for<'de> Deserialize<'de>>(map: &mut Map<String, Value>, field: &str) -> Result<Option<T>, Error> {
    map.remove(field).map(|value| fault::field(field, value)).transpose()
}

#[cfg(test)]
mod tests {
    use super::quoted;
    use serde_json::{Value, json};

    #[test]
    fn numbers_of_python_are_read() {
        let text = br#"{"a": NaN, "b": [-Infinity, Infinity, -1], "NaN": "NaN, \\", "c": "\"NaN", "d": {"e":NaN}}"#;
        let value: Value = serde_json::from_slice(&quoted(text)).expect("JSON");
        let expected =
            json!({"a": "NaN", "b": ["-Infinity", "Infinity", -1], "NaN": "NaN, \\", "c": "\"NaN", "d": {"e": "NaN"}});
        assert_eq!(value, expected);
        for text in ["NaN", "{\"a\": nan}", "\"", "\"\\", "{}", ""] {
            quoted(text.as_bytes());
        }
        assert!(serde_json::from_slice::<Value>(&quoted(b"{\"a\": xNaN}")).is_err());
    }
}
