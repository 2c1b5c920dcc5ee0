//! Which field of a configuration is wrong, and how.
//!
//! The type of an architecture is chosen by a tag, behind which serde forgets where it was: the field is found by leaving
//! fields out.

use super::Config;
use crate::Error;
use crate::container::show;
use lowbit_base::{alternatives, escaped};
use serde::Deserialize;
use serde_json::{Map, Value};

/// The configuration in an object.
///
/// # Errors
/// Names the field, by its path, and its value.
pub(super) fn config(map: Map<String, Value>) -> Result<Config, Error> {
    let read = |map: &Map<String, Value>| Config::deserialize(Value::Object(map.clone()));
    read(&map).map_err(|cause| {
        let cause = cause.to_string();
        let differs =
            |fields: &Map<String, Value>| read(fields).map_or_else(|e| e.to_string(), |_| String::new()) != cause;
        match culprit(&map, &differs) {
            Some((path, value)) if !is_about_names(&cause) => of_value(&path, &value, &cause),
            _ => of_names(&cause),
        }
    })
}

/// One field of an object.
///
/// # Errors
/// Names the field and its value.
pub(super) fn field<T: for<'de> Deserialize<'de>>(field: &str, value: Value) -> Result<T, Error> {
    T::deserialize(&value).map_err(|cause: serde_json::Error| of_value(field, &value, &cause.to_string()))
}

/// Whether a cause already names the field.
fn is_about_names(cause: &str) -> bool {
    cause.starts_with("missing field") || cause.starts_with("unknown field")
}

/// The innermost field without which the cause is another one, and its value.
fn culprit(map: &Map<String, Value>, differs: &dyn Fn(&Map<String, Value>) -> bool) -> Option<(String, Value)> {
    let without = |name: &str| {
        let mut fields = map.clone();
        fields.shift_remove(name);
        fields
    };
    let (name, value) = map.iter().find(|(name, _)| name.as_str() != "architecture" && differs(&without(name)))?;
    let inner = value.as_object().and_then(|object| {
        let within = |fields: &Map<String, Value>| {
            let mut all = map.clone();
            all.insert(name.clone(), Value::Object(fields.clone()));
            differs(&all)
        };
        culprit(object, &within)
    });
    match inner {
        Some((path, value)) => Some((format!("{name}.{path}"), value)),
        None => Some((name.clone(), value.clone())),
    }
}

/// A value of the wrong type, or outside of a list.
fn of_value(field: &str, value: &Value, cause: &str) -> Error {
    let expected = cause.split_once("expected ").map(|(_, expected)| match expected.split(" at line").next() {
        Some("usize" | "u64" | "u32") => "a whole number",
        Some(float) if ["f32", "f64"].contains(&float) => "a number",
        Some("a boolean") => "true or false",
        Some(other) => other,
        None => expected,
    });
    let told = expected.map_or_else(|| cause.to_string(), |expected| format!("expected {expected}"));
    let value: String = value.to_string().chars().take(60).collect();
    Error::config(&show(field), format!("is {}, {told}", escaped(&value)))
}

/// A field that is missing, or that there is none of.
fn of_names(cause: &str) -> Error {
    let mut names = cause.split('`').skip(1).step_by(2);
    match names.next() {
        Some(name) if cause.starts_with("missing field") => Error::config(&show(name), "is missing"),
        Some(name) if cause.starts_with("unknown field") => {
            Error::config(&show(name), format!("is no field of this architecture{}", alternatives(name, names)))
        }
        _ => Error::config("architecture", cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_field_that_is_wrong_is_named_with_its_value() {
        let good = json!({
            "architecture": "decoder", "vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
            "num_key_value_heads": 1, "head_dim": 8, "intermediate_size": 8, "hidden_act": "relu2", "rope_theta": 1e4,
            "rms_norm_eps": 1e-5, "sub_norm": true, "causal": false, "head": {"classify": {"classes": 2, "pooling": "mean"}},
        });
        let told = |change: &dyn Fn(&mut Map<String, Value>)| {
            let mut map = good.as_object().expect("an object").clone();
            change(&mut map);
            config(map).expect_err("wrong").message
        };
        assert!(config(good.as_object().expect("an object").clone()).is_ok());
        for (field, value, want) in [
            ("hidden_size", json!("8"), "config: `hidden_size` is \"8\", expected a whole number"),
            ("hidden_size", json!(-3), "config: `hidden_size` is -3, expected a whole number"),
            ("hidden_size", json!(1.5), "config: `hidden_size` is 1.5, expected a whole number"),
            ("rope_theta", json!("x"), "config: `rope_theta` is \"x\", expected a number"),
            ("causal", json!(1), "config: `causal` is 1, expected true or false"),
            ("hidden_act", json!("rel"), "config: `hidden_act` is \"rel\", expected one of `relu`, `relu2`"),
            (
                "head",
                json!({"classify": {"classes": 2, "pooling": "men"}}),
                "config: `head.classify.pooling` is \"men\", expected one of `mean`",
            ),
            (
                "head",
                json!({"classify": {"classes": null, "pooling": "mean"}}),
                "config: `head.classify.classes` is null, expected a whole number",
            ),
            (
                "hidden_sizes",
                json!(8),
                "config: `hidden_sizes` is no field of this architecture; did you mean `hidden_size`?",
            ),
        ] {
            let message = told(&|map| drop(map.insert(field.into(), value.clone())));
            assert!(message.starts_with(want), "{message}");
        }
        assert_eq!(told(&|map| drop(map.remove("hidden_size"))), "config: `hidden_size` is missing");
    }
}
