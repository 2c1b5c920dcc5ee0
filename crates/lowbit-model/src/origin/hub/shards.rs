//! One `model.safetensors`, or the shards an index names.

use crate::Error;
use crate::checkpoint::WEIGHTS_FILE;
use crate::container::{Dtype, Entry, Tensors, show};
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
    /// File of each tensor.
    places: BTreeMap<String, usize>,
}

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
                return Err(crate::origin::no_weights(directory, WEIGHTS_FILE));
            }
            let file = Tensors::open(&single)?;
            let places = file.names().iter().map(|name| (name.clone(), 0)).collect();
            return Ok(Shards { path: single, files: vec![file], places });
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
        Ok(Shards { path: index, files, places })
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

    /// The file that holds a tensor, else the index.
    pub fn file_of(&self, name: &str) -> &Path {
        self.holder(name).map_or(&self.path, Tensors::path)
    }

    /// File, type and shape of a tensor.
    pub fn entry(&self, name: &str) -> Option<(&Path, &Entry)> {
        let file = self.holder(name)?;
        Some((file.path(), file.entry(name)?))
    }

    /// The data of a tensor; copies nothing.
    pub fn bytes(&self, name: &str) -> Option<Bytes> {
        self.holder(name)?.bytes(name)
    }

    /// The elements of an F32, BF16 or F16 tensor.
    ///
    /// # Errors
    /// As [`Tensors::floats`].
    pub fn floats(&self, name: &str) -> Result<Vec<f32>, Error> {
        self.holder(name).unwrap_or(&self.files[0]).floats(name)
    }

    /// [`Shards::floats`] of some rows.
    ///
    /// # Errors
    /// As [`Tensors::floats`].
    pub fn row_floats(&self, name: &str, rows: Range<usize>) -> Result<Vec<f32>, Error> {
        self.holder(name).unwrap_or(&self.files[0]).row_floats(name, rows)
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

    fn holder(&self, name: &str) -> Option<&Tensors> {
        self.places.get(name).map(|&at| &self.files[at])
    }
}

fn read_index(path: &Path) -> Result<BTreeMap<String, String>, Error> {
    let text = super::config::read_small(path, MAX_INDEX)?;
    let index: Result<Index, _> = serde_json::from_slice(&text);
    Ok(index.map_err(|e| Error::input(path, format!("not an index of shards: {e}")))?.weight_map)
}

/// Opens a shard, which lies in the directory itself.
fn open_shard(directory: &Path, index: &Path, name: &str) -> Result<Tensors, Error> {
    let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !name.ends_with(".safetensors") || name.starts_with('.') || !name.chars().all(known) || name.len() > 255 {
        let text = format!("`weight_map` names `{}`, which is no safetensors file of this directory", show(name));
        return Err(Error::input(index, text));
    }
    let path = directory.join(name);
    if !path.exists() {
        let text = "is missing, but model.safetensors.index.json names it; fetch the rest of the model";
        return Err(Error::input(&path, text));
    }
    Tensors::open(&path)
}
