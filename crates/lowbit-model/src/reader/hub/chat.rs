//! The chat template of a Hub directory, and the tokens it writes by name.

use crate::container::read_small;
use crate::model_config::{ChatSettings, MAX_BYTES};
use crate::tokenizer::{Settings, Templates};
use crate::{Error, ModelConfig};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The file of a template alone.
const TEMPLATE: &str = "chat_template.jinja";
/// The file of that for chats with functions.
const TOOL_USE: &str = "additional_chat_templates/tool_use.jinja";
/// The file that processors of several media have.
const OF_PROCESSOR: &str = "chat_template.json";

/// Reads the templates into a model configuration: `chat_template.jinja`, else the one in `tokenizer_config.json`, else `chat_template.json`; for
/// chats with functions the one named `tool_use` at the same place, or in `additional_chat_templates`. The file of the first.
///
/// # Errors
/// Names file and key.
pub(super) fn read(directory: &Path, settings: &Settings, model_config: &mut ModelConfig) -> Result<PathBuf, Error> {
    let text = |path: &Path| {
        let text = String::from_utf8(read_small(path, MAX_BYTES)?);
        text.map_err(|e| Error::input(path, format!("is not UTF-8 at byte {}", e.utf8_error().valid_up_to())))
    };
    let [alone, of_processor, tool_use] = [TEMPLATE, OF_PROCESSOR, TOOL_USE].map(|name| directory.join(name));
    let (mut templates, file) = if alone.exists() {
        (Templates { plain: Some(text(&alone)?), tool_use: None }, alone)
    } else if settings.templates.plain.is_some() || !of_processor.exists() {
        (settings.templates.clone(), directory.join(crate::tokenizer::SETTINGS_FILE))
    } else {
        let value: Value = serde_json::from_slice(&read_small(&of_processor, MAX_BYTES)?)
            .map_err(|e| Error::input(&of_processor, format!("not JSON: {e}")))?;
        (Templates::of(&value["chat_template"]), of_processor)
    };
    if tool_use.exists() {
        templates.tool_use = Some(text(&tool_use)?);
    }
    (model_config.chat_template, model_config.tool_template) = (templates.plain, templates.tool_use);
    model_config.chat = ChatSettings { tokens: settings.variables.clone(), begins: false };
    Ok(file)
}
