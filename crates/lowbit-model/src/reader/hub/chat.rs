//! The chat template of a Hub directory, and the tokens it writes by name.

use crate::container::read_small;
use crate::model_config::{ChatSettings, MAX_BYTES};
use crate::tokenizer::Settings;
use crate::{Error, ModelConfig};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The file of a template alone.
const TEMPLATE: &str = "chat_template.jinja";
/// The file that processors of several media have.
const OF_PROCESSOR: &str = "chat_template.json";

/// Reads the template into a model configuration: `chat_template.jinja`, else the one in `tokenizer_config.json`, else `chat_template.json`. The
/// file it is in.
///
/// # Errors
/// Names file and key.
pub(super) fn read(directory: &Path, settings: &Settings, model_config: &mut ModelConfig) -> Result<PathBuf, Error> {
    let (alone, of_processor) = (directory.join(TEMPLATE), directory.join(OF_PROCESSOR));
    let (source, file) = if alone.exists() {
        let text = String::from_utf8(read_small(&alone, MAX_BYTES)?);
        let invalid = |e: std::string::FromUtf8Error| {
            Error::input(&alone, format!("is not UTF-8 at byte {}", e.utf8_error().valid_up_to()))
        };
        (Some(text.map_err(invalid)?), alone)
    } else if settings.template.is_some() || !of_processor.exists() {
        (settings.template.clone(), directory.join(crate::tokenizer::SETTINGS_FILE))
    } else {
        let value: Value = serde_json::from_slice(&read_small(&of_processor, MAX_BYTES)?)
            .map_err(|e| Error::input(&of_processor, format!("not JSON: {e}")))?;
        (value["chat_template"].as_str().map(String::from), of_processor)
    };
    model_config.chat_template = source;
    model_config.chat = ChatSettings { tokens: settings.variables.clone(), begins: false };
    Ok(file)
}
