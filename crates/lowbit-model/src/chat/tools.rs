//! Functions that a model may call, as its template is told of them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A call of a function, as a turn of the model holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Its name, which the turn with its result repeats.
    pub id: String,
    /// The function.
    pub name: String,
    /// The values it is called with, by their names.
    pub arguments: Map<String, Value>,
}

/// All texts of a value: those of keys that are no plain names, and all others.
pub(super) fn texts<'a>(value: &'a Value, out: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => out.push(text),
        Value::Array(items) => items.iter().for_each(|item| texts(item, out)),
        Value::Object(object) => {
            for (key, value) in object {
                out.push(key);
                texts(value, out);
            }
        }
        _ => {}
    }
}
