//! The records as JSON: pretty with lists of numbers on one line, and escaped for a script element.

use crate::record::Results;
use serde_json::Value;

/// The content of `results.json`.
pub(crate) fn pretty(results: &Results) -> String {
    let mut out = String::new();
    write(&serde_json::to_value(results).unwrap_or(Value::Null), 0, &mut out);
    out.push('\n');
    out
}

/// One line that may stand inside a script element: no `<`, `>` or `&`.
pub(crate) fn embedded(results: &Results) -> String {
    let text = serde_json::to_string(results).unwrap_or_default();
    text.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e")
}

/// A value that holds lists or objects gets a line per item; any other stays on one line.
fn write(value: &Value, depth: usize, out: &mut String) {
    let nested = |v: &Value| v.is_array() || v.is_object();
    let (open, close, items): (char, char, Vec<(Option<&String>, &Value)>) = match value {
        Value::Array(items) if items.iter().any(nested) => ('[', ']', items.iter().map(|v| (None, v)).collect()),
        Value::Object(fields) if fields.values().any(nested) => {
            ('{', '}', fields.iter().map(|(k, v)| (Some(k), v)).collect())
        }
        _ => return out.push_str(&value.to_string()),
    };
    out.push(open);
    for (i, (key, item)) in items.iter().enumerate() {
        out.push_str(if i == 0 { "\n" } else { ",\n" });
        out.push_str(&"  ".repeat(depth + 1));
        if let Some(key) = key {
            out.push_str(&Value::String(key.to_string()).to_string());
            out.push_str(": ");
        }
        write(item, depth + 1, out);
    }
    out.push('\n');
    out.push_str(&"  ".repeat(depth));
    out.push(close);
}
