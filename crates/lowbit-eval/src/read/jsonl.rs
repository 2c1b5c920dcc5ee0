//! JSON lines.

use super::source::Lines;
use super::{Column, First, Limits, Source, Visitor, Wanted, abridged};
use crate::error::Error;
use serde_json::{Map, Value};

pub(super) fn read(source: &Source, limits: &Limits, visitor: &mut dyn Visitor) -> Result<(), Error> {
    let mut lines = Lines::open(source, limits)?;
    let mut wanted: Option<(Vec<String>, bool)> = None;
    while let Some(line) = lines.next(0)? {
        if line.trim().is_empty() {
            continue;
        }
        let fail = |message: String| Error::input(source.name(), message).on_line(lines.line);
        let object: Map<String, Value> =
            serde_json::from_str(&line).map_err(|cause| fail(format!("not one JSON object a line: {cause}")))?;
        let (columns, optional) = match &wanted {
            Some(wanted) => wanted,
            None => wanted.insert(begin(&object, visitor)?),
        };
        let value = |name: &String| match object.get(name) {
            Some(value) => Ok(value.clone()),
            None if *optional => Ok(Value::Null),
            None => {
                let known = abridged(object.keys().map(String::as_str));
                Err(fail(format!("no field `{name}`: the object has {known}")))
            }
        };
        visitor.row(Some(lines.line), columns.iter().map(value).collect::<Result<_, _>>()?)?;
    }
    Ok(())
}

/// Names of the wanted columns, and whether each may be missing.
fn begin(object: &Map<String, Value>, visitor: &mut dyn Visitor) -> Result<(Vec<String>, bool), Error> {
    let first = First { fields: object.keys().cloned().collect(), is_line: false };
    let Wanted { columns, optional, .. } = visitor.begin(&first)?;
    let name = |column: Column| match column {
        Column::Name(name) => Ok(name),
        Column::Index(index) => Err(Error::usage(format!("column {index}: JSON lines have names, not positions"))),
    };
    Ok((columns.into_iter().map(name).collect::<Result<_, _>>()?, optional))
}
