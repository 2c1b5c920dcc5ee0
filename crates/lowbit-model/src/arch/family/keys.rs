//! Keys of a `config.json`: which were read, and what is to be said about them.

use crate::Error;
use crate::container::show;
use crate::exec::Activation;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// Largest size in a configuration: products of two stay far from overflow.
const MAX_NUMBER: usize = 1 << 31;
/// Numbers that Python writes into JSON, though JSON has none of them.
pub(crate) const NOT_FINITE: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

/// transformers' names of the functions.
const FUNCTIONS: &[(&str, Activation)] = &[
    ("relu", Activation::Relu),
    ("relu2", Activation::Relu2),
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("gelu", Activation::GeluErf),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("tanh", Activation::Tanh),
];

/// The object of a `config.json`, or one inside it. A key counts as read when it was asked for.
pub(crate) struct Keys<'a> {
    map: &'a Map<String, Value>,
    read: RefCell<BTreeSet<String>>,
    notices: RefCell<Vec<String>>,
}

impl<'a> Keys<'a> {
    /// The keys of an object, none of them read.
    pub fn new(map: &'a Map<String, Value>) -> Self {
        Keys { map, read: RefCell::default(), notices: RefCell::default() }
    }

    /// A value as it stands, if it is there and not null.
    pub fn value(&self, key: &str) -> Option<&'a Value> {
        self.read.borrow_mut().insert(key.into());
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// Whether a key is there, be it null.
    pub fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// A value, if it is there and not null.
    ///
    /// # Errors
    /// When it has another type; names the key.
    pub fn get<T: for<'de> Deserialize<'de>>(&self, key: &str) -> Result<Option<T>, Error> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        T::deserialize(value).map(Some).map_err(|e| match value.as_str() {
            Some(text) if NOT_FINITE.contains(&text) => Error::config(key, format!("is {text}; it must be finite")),
            _ => Error::config(key, e),
        })
    }

    /// An object, if it is there and neither null nor empty.
    ///
    /// # Errors
    /// When it is no object; names the key.
    pub fn object(&self, key: &str) -> Result<Option<&'a Map<String, Value>>, Error> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok((!map.is_empty()).then_some(map)),
            Some(_) => Err(Error::config(key, "is not an object")),
        }
    }

    /// A size, if it is there and not null.
    ///
    /// # Errors
    /// When it is no whole number, or too large; names the key.
    pub fn size(&self, key: &str) -> Result<Option<usize>, Error> {
        match self.get::<u64>(key)? {
            Some(n) if n > MAX_NUMBER as u64 => Err(Error::config(key, format!("is {n}, more than {MAX_NUMBER}"))),
            given => Ok(given.map(|n| n as usize)),
        }
    }

    /// A size that must be there.
    ///
    /// # Errors
    /// As [`Keys::size`], and when it is missing.
    pub fn need(&self, key: &str) -> Result<usize, Error> {
        self.size(key)?.ok_or_else(|| Error::config(key, "is missing"))
    }

    /// An elementwise function by transformers' name, if it is there and not null.
    ///
    /// # Errors
    /// When it is unknown; lists those that are known.
    pub fn function(&self, key: &str) -> Result<Option<Activation>, Error> {
        let Some(name) = self.get::<String>(key)? else {
            return Ok(None);
        };
        FUNCTIONS.iter().find(|(known, _)| *known == name).map(|(_, f)| Some(*f)).ok_or_else(|| {
            let known: Vec<_> = FUNCTIONS.iter().map(|(name, _)| *name).collect();
            Error::config(key, format!("is `{}`; supported: {}", show(&name), known.join(", ")))
        })
    }

    /// A token id, or a list of them.
    ///
    /// # Errors
    /// When it is neither; names the key.
    pub fn ids(&self, key: &str) -> Result<Vec<u32>, Error> {
        match self.value(key) {
            Some(Value::Array(_)) => Ok(self.get(key)?.unwrap_or_default()),
            _ => Ok(self.get(key)?.into_iter().collect()),
        }
    }

    /// Keys that nobody asked for, with their values; null ones are left out.
    pub fn unread(&self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let unread = self.map.iter().filter(|(key, value)| !value.is_null() && !self.read.borrow().contains(*key));
        unread.map(|(key, value)| (key.as_str(), value))
    }

    /// Says something about the file.
    pub fn notice(&self, text: impl Into<String>) {
        self.notices.borrow_mut().push(text.into());
    }

    /// What was said.
    pub fn notices(self) -> Vec<String> {
        self.notices.into_inner()
    }
}

/// A value as it may be printed.
pub(crate) fn print(value: &Value) -> String {
    match value {
        Value::String(text) if NOT_FINITE.contains(&text.as_str()) => text.clone(),
        value => show(&value.to_string()),
    }
}
