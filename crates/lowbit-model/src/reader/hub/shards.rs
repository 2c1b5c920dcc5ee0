//! One `model.safetensors`, or the shards an index names.

use crate::Error;
use crate::arch::family::names::{Names, View};
use crate::arch::family::{CLASSIFIER, HEAD, TABLE};
use crate::checkpoint::WEIGHTS_FILE;
use crate::container::{Dtype, Entry, Tensors, show};
use lowbit_base::name::check_part;
use lowbit_kernels::Bytes;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The same weights compressed with zstd.
const COMPRESSED: &str = "model.safetensors.zst";
/// The matrix of a classifier in transformers' decoders.
const SCORE: &str = "score.weight";
/// Rows that are turned at a time.
const TURNED: usize = 64;
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
    /// Where each tensor lies, by the name that this project has.
    places: BTreeMap<String, Place>,
}

/// Where a tensor lies.
#[derive(Clone)]
struct Place {
    /// Its file.
    file: usize,
    /// Its name there.
    stored: String,
    /// How it lies in the stored one.
    view: View,
}

impl Place {
    /// A stored tensor as it is.
    fn whole(file: usize, stored: &str) -> Self {
        Place { file, stored: stored.into(), view: View::WHOLE }
    }
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
            let file = match (single.exists(), directory.join(COMPRESSED)) {
                (true, _) => Tensors::open(&single)?,
                (false, compressed) if compressed.exists() => Tensors::unpack(&compressed)?,
                _ => return Err(crate::reader::absent::weights(directory, WEIGHTS_FILE)),
            };
            let places = file.names().iter().map(|name| (name.clone(), Place::whole(0, name))).collect();
            return Ok(Shards { path: file.path().into(), files: vec![file], places });
        }
        let map = read_index(&index)?;
        let mut names: Vec<&String> = map.values().collect::<BTreeSet<_>>().into_iter().collect();
        names.sort();
        if names.is_empty() || names.len() > MAX_SHARDS {
            let text = format!("`weight_map` names {} files; 1 to {MAX_SHARDS} are allowed", names.len());
            return Err(Error::input(&index, text));
        }
        let mut files = Vec::with_capacity(names.len());
        let mut places: BTreeMap<String, Place> = BTreeMap::new();
        for name in &names {
            let file = open_shard(directory, &index, name)?;
            for tensor in file.names() {
                if let Some(first) = places.insert(tensor.clone(), Place::whole(files.len(), tensor)) {
                    let (first, tensor) = (show(names[first.file]), show(tensor));
                    let text = format!("`{first}` and `{}` both hold tensor `{tensor}`", show(name));
                    return Err(Error::input(&index, format!("{text}; fetch the model again")));
                }
            }
            files.push(file);
        }
        for (tensor, shard) in &map {
            if places.get(tensor).is_none_or(|place| names[place.file] != shard) {
                let text = format!("`weight_map` has tensor `{}` in `{}`, which lacks it", show(tensor), show(shard));
                return Err(Error::input(&index, format!("{text}; fetch the model again")));
            }
        }
        Ok(Shards { path: index, files, places })
    }

    /// Gives every tensor the name that this project has for it; `names` are those of the family, where it has its own.
    pub fn rename(&mut self, names: Option<&Names>) {
        let places = std::mem::take(&mut self.places);
        self.places = match names {
            None => renamed(places),
            Some(names) => {
                let known = |(stored, place): (String, Place)| match names.params(&stored) {
                    params if params.is_empty() => vec![(stored, place)],
                    params => params.into_iter().map(|(name, view)| (name, Place { view, ..place.clone() })).collect(),
                };
                places.into_iter().filter(|(stored, _)| !names.is_constant(stored)).flat_map(known).collect()
            }
        };
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
        self.places.get(name).map_or(name, |place| &place.stored)
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
        self.holder(name).map_or(&self.path, |(_, file)| file.path())
    }

    /// File, type and shape of a tensor.
    pub fn entry(&self, name: &str) -> Option<(&Path, Cow<'_, Entry>)> {
        let (place, file) = self.holder(name)?;
        let stored = file.entry(&place.stored)?;
        let View { transposed, part: (_, of) } = place.view;
        let mut entry = Cow::Borrowed(stored);
        if place.view != View::WHOLE {
            let shape = &mut entry.to_mut().shape;
            if transposed && shape.len() == 2 {
                shape.swap(0, 1);
            }
            // What cannot be divided keeps a shape that no configuration asks for.
            if let Some(rows) = shape.first_mut().filter(|rows| rows.is_multiple_of(of)) {
                *rows /= of;
            }
        }
        Some((file.path(), entry))
    }

    /// Whether a tensor is stored as it is.
    pub fn is_whole(&self, name: &str) -> bool {
        self.places.get(name).is_none_or(|place| place.view == View::WHOLE)
    }

    /// The data of a tensor; copies nothing.
    pub fn bytes(&self, name: &str) -> Option<Bytes> {
        let (place, file) = self.holder(name)?;
        file.bytes(&place.stored)
    }

    /// The elements of a tensor of floats.
    ///
    /// # Errors
    /// As [`Tensors::floats`].
    pub fn floats(&self, name: &str) -> Result<Vec<f32>, Error> {
        let Some((Place { stored, view, .. }, file)) = self.holder(name) else { return self.files[0].floats(name) };
        let shape = file.entry(stored).map(|entry| &entry.shape[..]).unwrap_or_default();
        let (part, of) = view.part;
        match (view.transposed, shape) {
            (true, &[inputs, outputs]) => {
                turned(file, stored, [inputs, outputs], part * (outputs / of)..(part + 1) * (outputs / of))
            }
            (_, [outputs, ..]) => file.row_floats(stored, part * (outputs / of)..(part + 1) * (outputs / of)),
            _ => file.floats(stored),
        }
    }

    /// [`Shards::floats`] of some rows of a tensor that is stored as it is.
    ///
    /// # Errors
    /// As [`Tensors::floats`].
    pub fn row_floats(&self, name: &str, rows: Range<usize>) -> Result<Vec<f32>, Error> {
        match self.holder(name) {
            Some((place, file)) => file.row_floats(&place.stored, rows),
            None => self.files[0].row_floats(name, rows),
        }
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

    fn holder(&self, name: &str) -> Option<(&Place, &Tensors)> {
        self.places.get(name).map(|place| (place, &self.files[place.file]))
    }
}

/// Some columns of a matrix `[inputs, outputs]` as rows, `[columns, inputs]`.
fn turned(
    file: &Tensors,
    stored: &str,
    [inputs, outputs]: [usize; 2],
    columns: Range<usize>,
) -> Result<Vec<f32>, Error> {
    let mut out = vec![0.0; columns.len() * inputs];
    for first in (0..inputs).step_by(TURNED) {
        let rows = first..(first + TURNED).min(inputs);
        let block = file.row_floats(stored, rows.clone())?;
        for (column, out) in columns.clone().zip(out.chunks_exact_mut(inputs)) {
            let values = block.iter().skip(column).step_by(outputs);
            out[rows.clone()].iter_mut().zip(values).for_each(|(out, value)| *out = *value);
        }
    }
    Ok(out)
}

/// The tensors under the names that transformers gives them in a language model: a body that is stored without prefix, or
/// under another one (`language_model.model.`), gets `model.`, and the one output matrix none.
fn renamed(places: BTreeMap<String, Place>) -> BTreeMap<String, Place> {
    let one = |end: &str| {
        let mut found =
            places.keys().filter_map(|name| name.strip_suffix(end)).filter(|p| p.is_empty() || p.ends_with('.'));
        found.next().filter(|_| found.next().is_none()).map(String::from)
    };
    let body = ANCHORS.into_iter().find_map(one).unwrap_or_else(|| BODY.into());
    let head = one(HEAD).map(|prefix| prefix + HEAD);
    let score = one(SCORE).map(|prefix| prefix + SCORE);
    let name = |stored: &str| match stored.strip_prefix(&body) {
        _ if head.as_deref() == Some(stored) => HEAD.to_string(),
        _ if score.as_deref() == Some(stored) => CLASSIFIER.to_string(),
        Some(rest) => format!("{BODY}{rest}"),
        None => stored.to_string(),
    };
    let apart: BTreeSet<String> = places.keys().map(|stored| name(stored)).collect();
    let keep = apart.len() < places.len();
    places.into_iter().map(|(stored, at)| (if keep { stored } else { name(&stored) }, at)).collect()
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
