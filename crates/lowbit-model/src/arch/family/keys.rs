//! Keys of a `config.json`.

use crate::Error;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Largest size in a configuration: products of two stay far from overflow.
const MAX_NUMBER: usize = 1 << 31;

/// The object of a `config.json`, or one inside it.
#[derive(Clone, Copy)]
pub(crate) struct Keys<'a>(pub &'a Map<String, Value>);

impl Keys<'_> {
    /// A value, if it is there and not null.
    ///
    /// # Errors
    /// When it has another type; names the key.
    pub fn get<T: for<'de> Deserialize<'de>>(&self, key: &str) -> Result<Option<T>, Error> {
        let value = self.0.get(key).filter(|value| !value.is_null());
        value.map(|value| T::deserialize(value).map_err(|e| Error::config(key, e))).transpose()
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

    /// A token id, or a list of them.
    ///
    /// # Errors
    /// When it is neither; names the key.
    pub fn ids(&self, key: &str) -> Result<Vec<u32>, Error> {
        match self.0.get(key) {
            Some(Value::Array(_)) => Ok(self.get(key)?.unwrap_or_default()),
            _ => Ok(self.get(key)?.into_iter().collect()),
        }
    }
}
