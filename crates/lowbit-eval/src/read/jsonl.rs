//! JSON lines.

use super::rows::Sink;
use super::source::Lines;
use super::{Column, Limits, Table, abridged};
use crate::error::Error;
use serde_json::{Map, Value};

pub(super) fn read(table: &Table, limits: &Limits, sink: &mut Sink<'_>) -> Result<(), Error> {
    let name = |column: &Column| match column {
        Column::Name(name) => Ok(name.clone()),
        Column::Index(index) => Err(Error::usage(format!("column {index}: JSON lines have names, not positions"))),
    };
    let text: Vec<String> = table.columns.iter().map(name).collect::<Result<_, _>>()?;
    let label = name(&table.target_column)?;
    let mut lines = Lines::open(&table.path, limits)?;
    while let Some(line) = lines.next(0)? {
        if line.trim().is_empty() {
            continue;
        }
        let fail = |message: String| Error::input(&table.path, message).on_line(lines.line);
        let object: Map<String, Value> =
            serde_json::from_str(&line).map_err(|cause| fail(format!("not one JSON object a line: {cause}")))?;
        let parts: Vec<String> = text
            .iter()
            .map(|field| plain(&object, field, table.is_numeric()))
            .collect::<Result<_, _>>()
            .map_err(fail)?;
        let label = plain(&object, &label, false).map_err(fail)?;
        sink.push(Some(lines.line), &parts, &label)?;
    }
    Ok(())
}

/// A field as text: strings as they are, numbers and truth values as written.
fn plain(object: &Map<String, Value>, field: &str, optional: bool) -> Result<String, String> {
    match object.get(field) {
        Some(Value::Null) if optional => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(value.to_string()),
        Some(Value::Null) => Err(format!("field `{field}` is null: fill it or drop the row")),
        Some(Value::Array(_)) => Err(format!("field `{field}` is an array, not a text or a number")),
        Some(Value::Object(_)) => Err(format!("field `{field}` is an object, not a text or a number")),
        None => Err(format!("no field `{field}`: the object has {}", abridged(object.keys().map(String::as_str)))),
    }
}
