//! `config.json`: everything about a model but its weights.

use crate::arch::ARCHITECTURES;
use crate::container::{show, write_atomic};
use crate::{Config, Error, nearest};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Keys of the Hub that name code to load; they are never followed.
const CODE_KEYS: &[&str] = &["auto_map", "_attn_implementation_internal", "trust_remote_code", "custom_pipelines"];
/// Largest `config.json`, bytes.
const MAX_BYTES: u64 = 1 << 20;
/// Largest number in a configuration: products of two stay far from overflow.
const MAX_NUMBER: u64 = 1 << 31;

/// Everything about a model but its weights: the content of `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct Card {
    /// The architecture and its dimensions.
    pub config: Config,
    /// Names of the classes, in the order of the logits; empty for language models.
    pub labels: Vec<String>,
    /// Longest sequence, tokens; longer texts are cut.
    pub max_length: usize,
    /// Name of the recipe the weights were trained under, if it was not full precision.
    pub trained_for: Option<String>,
}

impl Card {
    /// Reads a `config.json`; also returns notices about keys that were ignored.
    ///
    /// # Errors
    /// Names file and field; an unknown architecture lists the known ones.
    pub fn load(path: &Path) -> Result<(Card, Vec<String>), Error> {
        let at = |e: Error| Error { path: Some(path.into()), ..e };
        let meta = std::fs::metadata(path).map_err(|e| Error::io(path, &e))?;
        if !meta.is_file() || meta.len() > MAX_BYTES {
            let text = format!("is not a regular file of at most {MAX_BYTES} bytes");
            return Err(Error::input(path, text));
        }
        let text = std::fs::read(path).map_err(|e| Error::io(path, &e))?;
        let mut map: Map<String, Value> = serde_json::from_slice(&text)
            .map_err(|e| Error::input(path, format!("not a JSON object of a model: {e}")))?;
        let ignored = CODE_KEYS.iter().filter(|key| map.remove(**key).is_some());
        let notices = ignored.map(|key| format!("{}: `{key}` names code to load; ignored", path.display())).collect();
        Ok((Card::from_map(map).map_err(at)?, notices))
    }

    /// Writes `config.json`, atomically.
    ///
    /// # Errors
    /// When writing fails.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let mut value = serde_json::to_value(&self.config).expect("a configuration is plain data");
        let map = value.as_object_mut().expect("a configuration is an object");
        map.insert("labels".into(), json!(self.labels));
        map.insert("max_length".into(), json!(self.max_length));
        if let Some(recipe) = &self.trained_for {
            map.insert("trained_for".into(), json!(recipe));
        }
        write_atomic(path, format!("{value:#}\n").as_bytes())
    }

    fn from_map(mut map: Map<String, Value>) -> Result<Card, Error> {
        let labels: Vec<String> = take(&mut map, "labels")?.unwrap_or_default();
        let max_length = take(&mut map, "max_length")?.unwrap_or(512);
        let trained_for: Option<String> = take(&mut map, "trained_for")?;
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
            Some(Some(name)) if ARCHITECTURES.contains(&name) => {}
            Some(other) => {
                let name = other.unwrap_or("not a string");
                let hint = nearest(name, ARCHITECTURES).map_or(String::new(), |n| format!("; did you mean `{n}`?"));
                let text = format!("is `{}`, which is unknown{hint} supported: {known}", show(name));
                return Err(Error::config("architecture", text));
            }
        }
        let config = Config::deserialize(Value::Object(map)).map_err(|e| Error::config("architecture", e))?;
        if let Some(classes) = config.classes().filter(|n| !labels.is_empty() && labels.len() != *n) {
            return Err(Error::config("labels", format!("has {} names for {classes} classes", labels.len())));
        }
        Ok(Card { config, labels, max_length, trained_for })
    }
}

fn take<T: for<'de> Deserialize<'de>>(map: &mut Map<String, Value>, field: &str) -> Result<Option<T>, Error> {
    map.remove(field).map(|v| T::deserialize(v).map_err(|e| Error::config(field, e))).transpose()
}
