//! Methods of values: those of strings, and Python's of lists and dicts.

use crate::chat::guard::{Result, refuse};
use crate::chat::shades::Shades;
use crate::chat::text;
use minijinja::value::{Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, Value};

/// Calls a method of a string, list or dict.
pub(super) fn call(value: &Value, name: &str, args: &[Value], shades: &Shades) -> Result<Value> {
    let unknown = || Error::from(ErrorKind::UnknownMethod);
    let fixed = |kind: &str, names: &[&str]| match names.contains(&name) {
        true => refuse(format!("`{name}` would change a {kind}; templates may not")),
        false => unknown(),
    };
    match value.kind() {
        ValueKind::String => text::method(value.as_str().unwrap_or_default(), name, args, shades)?.ok_or_else(unknown),
        ValueKind::Map => of_dict(value, name, args, shades)?
            .ok_or_else(|| fixed("dict", &["clear", "pop", "popitem", "setdefault", "update"])),
        ValueKind::Seq => of_list(value, name, args, shades)?
            .ok_or_else(|| fixed("list", &["append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"])),
        _ => Err(unknown()),
    }
}

fn of_list(value: &Value, name: &str, args: &[Value], shades: &Shades) -> Result<Option<Value>> {
    let equal = |what: &Value| {
        let what = shades.plain_value(what);
        move |item: &Value| shades.plain_value(item) == what
    };
    Ok(Some(match name {
        "index" => {
            let (what, start, end): (Value, Option<i64>, Option<i64>) = from_args(args)?;
            let items: Vec<Value> = value.try_iter()?.collect();
            let place =
                |at: i64| (if at < 0 { at + items.len() as i64 } else { at }).clamp(0, items.len() as i64) as usize;
            let (start, end) = (place(start.unwrap_or(0)), place(end.unwrap_or(i64::MAX)));
            let found = items.get(start..end).and_then(|part| part.iter().position(equal(&what)));
            let missing =
                || refuse(format!("{} is not in list", crate::container::show(&shades.plain_value(&what).to_string())));
            (start + found.ok_or_else(missing)?).into()
        }
        "count" => {
            let (what,): (Value,) = from_args(args)?;
            let equal = equal(&what);
            value.try_iter()?.filter(equal).count().into()
        }
        "copy" => {
            let () = from_args(args)?;
            value.clone()
        }
        _ => return Ok(None),
    }))
}

fn of_dict(value: &Value, name: &str, args: &[Value], shades: &Shades) -> Result<Option<Value>> {
    let keys = || -> Result<Vec<Value>> { Ok(value.try_iter()?.collect()) };
    Ok(Some(match name {
        "keys" => {
            let () = from_args(args)?;
            keys()?.into()
        }
        "values" => {
            let () = from_args(args)?;
            keys()?.iter().map(|key| value.get_item(key)).collect::<Result<Vec<_>>>()?.into()
        }
        "items" => {
            let () = from_args(args)?;
            let pair = |key: Value| Ok(Value::from(Tuple::from([key.clone(), value.get_item(&key)?])));
            keys()?.into_iter().map(pair).collect::<Result<Vec<_>>>()?.into()
        }
        "get" => {
            let (key, default): (Value, Option<Value>) = from_args(args)?;
            let found = [key.clone(), shades.plain_value(&key)]
                .iter()
                .find_map(|key| value.get_item(key).ok().filter(|found| !found.is_undefined()));
            found.or(default).unwrap_or_else(|| ().into())
        }
        "copy" => {
            let () = from_args(args)?;
            value.clone()
        }
        _ => return Ok(None),
    }))
}
