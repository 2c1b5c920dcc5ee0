//! What a model is made of, as its record says: parameters, stored bytes, hash, activations.

use crate::Error;
use crate::record::{Detail, Measure, Record, TensorBytes};
use lowbit_model::Checkpoint;
use lowbit_model::checkpoint::{LedgerRow, ledger};
use lowbit_model::source::Role;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

/// Adds what a model is made of: parameters, stored bytes, hash of its files, activations.
///
/// # Errors
/// When the model's file cannot be read.
pub fn describe(record: &mut Record, checkpoint: &Checkpoint) -> Result<(), Error> {
    record.params = checkpoint.parameters().count();
    let files = checkpoint.files();
    record.detail.model_sha256 = if files.is_empty() { None } else { Some(sha256_of(&files)?) };
    record.detail.activations = Some(activations(checkpoint));
    record.detail.tensors = ledger(checkpoint)?.into_iter().map(tensor_bytes).collect();
    let bytes: u64 = record.detail.tensors.iter().map(TensorBytes::bytes).sum();
    record.measures.insert("weight_bytes".into(), Measure::measured(bytes as f64, "bytes", 1));
    Ok(())
}

/// How the products of the body get their inputs; where layers differ, all ways, as in `f32, int8`.
fn activations(checkpoint: &Checkpoint) -> String {
    let (recipe, params) = (checkpoint.recipe(), checkpoint.parameters().params());
    let body = params.iter().filter(|spec| spec.role == Role::Body);
    let names: BTreeSet<&str> = body.map(|spec| recipe.activations_of(spec).name()).collect();
    match names.is_empty() {
        true => recipe.activations.name().into(),
        false => names.into_iter().collect::<Vec<_>>().join(", "),
    }
}

/// A model that was made from another and stored.
pub struct Stored<'a> {
    /// The file with its weights.
    pub weights: &'a Path,
    /// Its recipe, or the type of its body.
    pub kind: &'a str,
    /// How it was made: `quantized`, `converted`.
    pub made: &'a str,
    /// The path of the other model.
    pub parent: &'a Path,
}

impl Stored<'_> {
    /// The record: parameters as those of the model it was made from, bytes on disk, hash.
    ///
    /// # Errors
    /// When the file with the weights cannot be read.
    pub fn record(&self, path: &Path, from: &Checkpoint) -> Result<Record, Error> {
        let size = std::fs::metadata(self.weights).map_err(|e| Error::io(self.weights, &e))?.len();
        Ok(Record {
            task: String::new(),
            model: path.display().to_string(),
            recipe: self.kind.into(),
            params: from.parameters().count(),
            measures: BTreeMap::from([("weight_bytes".into(), Measure::measured(size as f64, "bytes", 1))]),
            detail: Detail {
                made: self.made.into(),
                parent: Some(self.parent.display().to_string()),
                model_sha256: Some(sha256(self.weights)?),
                ..Detail::default()
            },
        })
    }
}

fn tensor_bytes(row: LedgerRow) -> TensorBytes {
    let role = serde_json::to_value(row.role).ok().and_then(|v| v.as_str().map(String::from)).unwrap_or_default();
    TensorBytes {
        name: row.name,
        role,
        format: row.format,
        rows: row.rows as u64,
        cols: row.cols as u64,
        parts: row.parts.into_iter().map(|(name, bytes)| (name, bytes as u64)).collect(),
        padding: row.padding as u64,
        zero_fraction: Some(row.zero_fraction),
        levels: row.levels.map(|n| n as u64),
    }
}

/// SHA-256 of a content, in hexadecimal.
pub fn hash(content: &[u8]) -> String {
    lowbit_base::hex(Sha256::digest(content))
}

/// SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// When it cannot be read.
pub fn sha256(path: &Path) -> Result<String, Error> {
    sha256_of(&[path])
}

/// SHA-256 of files one after the other, in hexadecimal.
fn sha256_of(paths: &[&Path]) -> Result<String, Error> {
    let mut hash = Sha256::new();
    for path in paths {
        let mut file = lowbit_base::file::open(path)?;
        std::io::copy(&mut file, &mut HashWriter(&mut hash)).map_err(|e| Error::io(path, &e))?;
    }
    Ok(lowbit_base::hex(hash.finalize()))
}

struct HashWriter<'a>(&'a mut Sha256);

impl Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
