//! One `model.safetensors`, or the shards an index names.

use crate::Error;
use crate::arch::family::{HEAD, TABLE};
use crate::checkpoint::WEIGHTS_FILE;
use crate::container::{Dtype, Entry, Tensors, show};
use lowbit_base::name::check_part;
use lowbit_kernels::Bytes;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Which shard holds which tensor.
const INDEX_FILE: &str = "model.safetensors.index.json";
/// Largest index, bytes.
const MAX_INDEX: u64 = 64 << 20;
/// Most shards.
const MAX_SHARDS: usize = 4096;

/// The mapped weights of a directory.
pub(super) struct Shards {
    /// The index, or the only file.
    path: PathBuf,
    files: Vec<Tensors>,
    /// File of each tensor, and its name there, by the name that this project has.
    places: BTreeMap<String, (usize, String)>,
}

/// What the name of a tensor of every layered network ends in; the prefix before it stands before all others of the body.
const ANCHORS: [&str; 2] = ["layers.0.input_layernorm.weight", TABLE];
/// The prefix that transformers gives to the body of a language model.
const BODY: &str = "model.";

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Shards {
    /// Maps the weights of a directory and checks their headers.
    ///
    /// # Errors
    /// When there are none, one is missing or damaged, or the index contradicts them; names the file.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let (single, index) = (directory.join(WEIGHTS_FILE), directory.join(INDEX_FILE));
        if single.exists() || !index.exists() {
            if !single.exists() {
                return Err(crate::reader::absent::weights(directory, WEIGHTS_FILE));
            }
            let file = Tensors::open(&single)?;
            let places = file.names().iter().map(|name| (name.clone(), 0)).collect();
            return Ok(Shards { path: single, files: vec![file], places: renamed(places) });
        }
        let map = read_index(&index)?;
        let mut names: Vec<&String> = map.values().collect::<BTreeSet<_>>().into_iter().collect();
        names.sort();
        if names.is_empty() || names.len() > MAX_SHARDS {
            let text = format!("`weight_map` names {} files; 1 to {MAX_SHARDS} are allowed", names.len());
            return Err(Error::input(&index, text));
        }
        let mut files = Vec::with_capacity(names.len());
        let mut places = BTreeMap::new();
        for name in &names {
            let file = open_shard(directory, &index, name)?;
            for tensor in file.names() {
                if let Some(first) = places.insert(tensor.clone(), files.len()) {
                    let (first, tensor) = (show(names[first]), show(tensor));
                    let text = format!("`{first}` and `{}` both hold tensor `{tensor}`", show(name));
                    return Err(Error::input(&index, format!("{text}; fetch the model again")));
                }
            }
            files.push(file);
        }
        for (tensor, shard) in &map {
            if places.get(tensor).is_none_or(|&at| names[at] != shard) {
                let text = format!("`weight_map` has tensor `{}` in `{}`, which lacks it", show(tensor), show(shard));
                return Err(Error::input(&index, format!("{text}; fetch the model again")));
            }
        }
        Ok(Shards { path: index, files, places: renamed(places) })
    }

    /// The index, or the only file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files that hold tensors.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(Tensors::path)
    }

    /// Names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// The name of a tensor in its file.
    pub fn stored_name<'a>(&'a self, name: &'a str) -> &'a str {
        self.places.get(name).map_or(name, |(_, stored)| stored)
    }

    /// Lets one tensor stand for another that is not stored.
    pub fn substitute(&mut self, absent: &str, stored: &str) {
        if let (false, Some(place)) = (self.places.contains_key(absent), self.places.remove(stored)) {
            self.places.insert(absent.into(), place);
        }
    }

    /// Whether two tensors have the same shape and values.
    ///
    /// # Errors
    /// As [`Tensors::floats`].
    pub fn equal(&self, a: &str, b: &str) -> Result<bool, Error> {
        let (Some((_, of_a)), Some((_, of_b))) = (self.entry(a), self.entry(b)) else {
            return Ok(false);
        };
        if of_a.shape != of_b.shape || of_a.shape.is_empty() {
            return Ok(false);
        }
        if of_a.dtype == of_b.dtype {
            return Ok(self.bytes(a).as_deref() == self.bytes(b).as_deref());
        }
        for row in 0..of_a.shape[0] {
            if self.row_floats(a, row..row + 1)? != self.row_floats(b, row..row + 1)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The file that holds a tensor, else the index.
    pub fn file_of(&self, name: &str) -> &Path {
        self.holder(name).map_or(&self.path, |(file, _)| file.path())
    }

    /// File, type and shape of a tensor.
    pub fn entry(&self, name: &str) -> Option<(&Path, &Entry)> {
        let (file, stored) = self.holder(name)?;
        Some((file.path(), file.entry(stored)?))
    }

    /// The data of a tensor; copies nothing.
    pub fn bytes(&self, name: &str) -> Option<Bytes> {
        let (file, stored) = self.holder(name)?;
        file.bytes(stored)
    }

    /// The elements of a tensor of floats.
    ///
    /// # Errors
    /// As [`Tensors::floats`].
    pub fn floats(&self, name: &str) -> Result<Vec<f32>, Error> {
        let (file, stored) = self.holder(name).unwrap_or((&self.files[0], name));
        file.floats(stored)
    }

    /// [`Shards::floats`] of some rows.
    ///
    /// # Errors
    /// As [`Tensors::floats`].
    pub fn row_floats(&self, name: &str, rows: Range<usize>) -> Result<Vec<f32>, Error> {
        let (file, stored) = self.holder(name).unwrap_or((&self.files[0], name));
        file.row_floats(stored, rows)
    }

    /// Whether some tensor has a type.
    pub fn any(&self, dtype: Dtype) -> bool {
        self.matrices().any(|d| d == dtype)
    }

    /// Whether all matrices have a type.
    pub fn all(&self, dtype: Dtype) -> bool {
        self.matrices().all(|d| d == dtype)
    }

    fn matrices(&self) -> impl Iterator<Item = Dtype> {
        let entries = self.files.iter().flat_map(|f| f.names().iter().filter_map(|name| f.entry(name)));
        entries.filter(|entry| entry.shape.len() > 1).map(|entry| entry.dtype)
    }

    fn holder(&self, name: &str) -> Option<(&Tensors, &str)> {
        self.places.get(name).map(|(at, stored)| (&self.files[*at], stored.as_str()))
    }
}

/// The tensors under the names that transformers gives them in a language model: a body that is stored without prefix, or
/// under another one (`language_model.model.`), gets `model.`, and the one output matrix none.
fn renamed(places: BTreeMap<String, usize>) -> BTreeMap<String, (usize, String)> {
    let one = |end: &str| {
        let mut found =
            places.keys().filter_map(|name| name.strip_suffix(end)).filter(|p| p.is_empty() || p.ends_with('.'));
        found.next().filter(|_| found.next().is_none()).map(String::from)
    };
    let body = ANCHORS.into_iter().find_map(one).unwrap_or_else(|| BODY.into());
    let head = one(HEAD).map(|prefix| prefix + HEAD);
    let name = |stored: &str| match stored.strip_prefix(&body) {
        _ if head.as_deref() == Some(stored) => HEAD.to_string(),
        Some(rest) => format!("{BODY}{rest}"),
        None => stored.to_string(),
    };
    let apart: BTreeSet<String> = places.keys().map(|stored| name(stored)).collect();
    let keep = apart.len() < places.len();
    places.into_iter().map(|(stored, at)| (if keep { stored.clone() } else { name(&stored) }, (at, stored))).collect()
}

fn read_index(path: &Path) -> Result<BTreeMap<String, String>, Error> {
    let text = crate::container::read_small(path, MAX_INDEX)?;
    let index: Result<Index, _> = serde_json::from_slice(&text);
    Ok(index.map_err(|e| Error::input(path, format!("not an index of shards: {e}")))?.weight_map)
}

/// Opens a shard, which lies in the directory itself.
fn open_shard(directory: &Path, index: &Path, name: &str) -> Result<Tensors, Error> {
    if !name.ends_with(".safetensors") || check_part(name).is_err() {
        let text = format!("`weight_map` names `{}`, which is no safetensors file of this directory", show(name));
        return Err(Error::input(index, text));
    }
    let path = directory.join(name);
    if let Some(error) = crate::reader::absent::dangling(&path) {
        return Err(error);
    }
    if !path.exists() {
        let text = "is missing, but model.safetensors.index.json names it; fetch the rest of the model";
        return Err(Error::input(&path, text));
    }
    Tensors::open(&path)
}
