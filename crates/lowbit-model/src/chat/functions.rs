//! What templates call: the filters, tests and functions of Jinja as transformers sets them up, and the methods of Python's
//! strings, lists and dicts. Whatever can make much of little is measured before it runs, and whatever compares or changes
//! characters looks through the stand-ins of what was said.

use super::clock::Clock;
use super::guard::{MAX_VALUE, Result};
use super::python;
use super::shades::Shades;
use super::text;
use filters::argument;
use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value, tests};
use objects::{Cycler, Joiner};
use std::sync::Arc;

mod filters;
mod methods;
mod objects;

/// Filters of the engine that Jinja has not, or that make much of little and are made anew here.
const REMOVED: &[&str] = &["batch", "slice", "format", "pprint", "urlencode", "bool", "lines", "split", "chain", "zip"];

/// Adds functions, filters, tests and methods.
pub(super) fn add(env: &mut Environment<'_>, shades: &Arc<Shades>, clock: Clock) {
    for name in REMOVED {
        env.remove_filter(name);
    }
    env.remove_global("debug");
    env.add_function("raise_exception", |text: String| -> Result<Value> {
        Err(Error::new(ErrorKind::InvalidOperation, text))
    });
    env.add_function("strftime_now", move |format: &str| -> Result<String> {
        bounded(format.len().saturating_mul(25))?;
        Ok(clock.written(format))
    });
    env.add_function("cycler", |items: Rest<Value>| Cycler::over(items.0));
    env.add_function("joiner", |joiner: Option<Value>, named: Kwargs| -> Result<Value> {
        let joiner = argument(joiner.as_slice(), &named, 0, "sep")?.unwrap_or_else(|| ", ".into());
        named.assert_all_used()?;
        Ok(Joiner::over(joiner))
    });
    env.add_function("dict", dict);
    filters::add(env, shades);
    add_tests(env, shades);
    let shades = shades.clone();
    env.set_unknown_method_callback(move |_, value, method, args| methods::call(value, method, args, &shades));
}

/// Refuses what would become larger than a value may be.
pub(super) fn bounded(bytes: usize) -> Result<()> {
    if bytes <= MAX_VALUE {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidOperation, format!("size: a value would exceed {MAX_VALUE} bytes")))
}

fn add_tests(env: &mut Environment<'_>, shades: &Arc<Shades>) {
    let compared: [(&[&'static str], Value); 7] = [
        (&["eq", "equalto", "=="], Value::from_function(tests::is_eq)),
        (&["ne", "!="], Value::from_function(tests::is_ne)),
        (&["lt", "lessthan", "<"], Value::from_function(tests::is_lt)),
        (&["le", "<="], Value::from_function(tests::is_le)),
        (&["gt", "greaterthan", ">"], Value::from_function(tests::is_gt)),
        (&["ge", ">="], Value::from_function(tests::is_ge)),
        (&["in"], Value::from_function(tests::is_in)),
    ];
    for (names, test) in compared {
        for name in names {
            let (test, shades) = (test.clone(), shades.clone());
            env.add_test(*name, move |state: &mut State, args: Rest<Value>| -> Result<bool> {
                let args: Vec<Value> = args.iter().map(|value| shades.plain_value(value)).collect();
                Ok(test.call(state, &args)?.is_true())
            });
        }
    }
    for (name, is) in [("lower", "islower"), ("upper", "isupper")] {
        let shades = shades.clone();
        env.add_test(name, move |value: Value| -> Result<bool> {
            let text = python::text(&value, &shades)?;
            Ok(text::method(&text, is, &[], &shades)?.is_some_and(|answer| answer.is_true()))
        });
    }
    let sequence = |value: &Value| matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map);
    env.add_test("sequence", move |value: Value| sequence(&value) || value.is_undefined());
    env.add_test("iterable", |value: Value| {
        matches!(value.kind(), ValueKind::String) || !value.is_none() && value.try_iter().is_ok()
    });
    env.add_test("number", |value: Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool));
    env.add_test("callable", |value: Value| value.kind() == ValueKind::Plain);
}

/// Python's `dict(pairs, name=value)`.
fn dict(pairs: Option<Value>, named: Kwargs) -> Result<Value> {
    let mut all: Vec<(Value, Value)> = Vec::new();
    if let Some(pairs) = pairs {
        for item in pairs.try_iter()? {
            all.push(match pairs.kind() {
                ValueKind::Map => (item.clone(), pairs.get_item(&item)?),
                _ => (item.get_item_by_index(0)?, item.get_item_by_index(1)?),
            });
        }
    }
    let names: Vec<String> = named.args().map(String::from).collect();
    for name in names {
        let value = named.get::<Value>(&name)?;
        all.push((name.into(), value));
    }
    Ok(Value::from_pairs(all))
}
