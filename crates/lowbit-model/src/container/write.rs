//! Writing: tensors are streamed, each with its checksum; the header comes last, into room that was kept for it.

use super::Dtype;
use crate::Error;
use lowbit_base::file::Replacement;
use lowbit_base::hex;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The metadata pair that holds one SHA-256 per tensor, in the order of the data, separated by spaces.
pub(super) const CHECKSUMS: &str = "lowbit.sha256";
/// Alignment of the data in the file, bytes.
const ALIGN: usize = 64;

/// A tensor to come: what its header entry will look like.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Its name.
    pub name: String,
    /// Type of its elements.
    pub dtype: Dtype,
    /// Dimensions.
    pub shape: Vec<usize>,
}

/// Streams tensors into a file. Over a [`Replacement`], which appears under its name only when it is complete.
#[derive(Debug)]
pub struct Writer<S: Write + Seek = Replacement> {
    path: PathBuf,
    sink: S,
    metadata: BTreeMap<String, String>,
    capacity: usize,
    tensors: Vec<Planned>,
    sums: Vec<String>,
}

impl Writer {
    /// Opens a file that will replace what is at the path, and keeps room for a header with these tensors (sizes may still
    /// change a little).
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create(path: &Path, metadata: BTreeMap<String, String>, plan: &[Planned]) -> Result<Self, Error> {
        Writer::over(Replacement::create(path)?, path, metadata, plan)
    }

    /// Writes the header, flushes to the disk, and renames the file to its name.
    ///
    /// # Errors
    /// When writing fails; the target is then as it was.
    pub fn finish(self) -> Result<(), Error> {
        self.seal()?.commit()
    }
}

impl<S: Write + Seek> Writer<S> {
    /// As [`Writer::create`], into an empty sink; `path` is what errors name.
    ///
    /// # Errors
    /// When writing fails.
    pub fn over(mut sink: S, path: &Path, metadata: BTreeMap<String, String>, plan: &[Planned]) -> Result<Self, Error> {
        let sums = vec!["0".repeat(64); plan.len()];
        let capacity = (header(&metadata, plan, &sums).len() + 8 * plan.len() + 8).next_multiple_of(ALIGN) - 8;
        sink.write_all(&vec![b' '; capacity + 8]).map_err(|e| Error::io(path, &e))?;
        let (tensors, sums) = (Vec::with_capacity(plan.len()), Vec::with_capacity(plan.len()));
        Ok(Writer { path: path.into(), sink, metadata, capacity, tensors, sums })
    }

    /// Appends a tensor given as its bytes.
    ///
    /// # Errors
    /// When writing fails.
    ///
    /// # Panics
    /// When the bytes do not fit type and shape.
    pub fn tensor(&mut self, name: &str, dtype: Dtype, shape: &[usize], data: &[u8]) -> Result<(), Error> {
        self.stream(name, dtype, shape, std::iter::once(data))
    }

    /// Appends an F32 tensor.
    ///
    /// # Errors
    /// When writing fails.
    ///
    /// # Panics
    /// When the values do not fit the shape.
    pub fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) -> Result<(), Error> {
        let parts = values.chunks(4096).map(|part| part.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
        self.stream(name, Dtype::F32, shape, parts)
    }

    fn stream<B: AsRef<[u8]>>(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        parts: impl Iterator<Item = B>,
    ) -> Result<(), Error> {
        let (mut sum, mut len) = (Sha256::new(), 0);
        for part in parts {
            sum.update(part.as_ref());
            len += part.as_ref().len();
            self.sink.write_all(part.as_ref()).map_err(|e| Error::io(&self.path, &e))?;
        }
        assert_eq!(len, shape.iter().product::<usize>() * dtype.size(), "bytes of `{name}` fit {shape:?}");
        self.tensors.push(Planned { name: name.into(), dtype, shape: shape.into() });
        self.sums.push(hex(sum.finalize()));
        Ok(())
    }

    /// Writes the header; the sink then holds the whole file.
    ///
    /// # Errors
    /// When writing fails.
    pub fn seal(mut self) -> Result<S, Error> {
        let mut json = header(&self.metadata, &self.tensors, &self.sums);
        assert!(json.len() <= self.capacity, "the header fits the room that was planned for it");
        json.extend(std::iter::repeat_n(' ', self.capacity - json.len()));
        let mut write = || -> std::io::Result<()> {
            self.sink.seek(SeekFrom::Start(0))?;
            self.sink.write_all(&(self.capacity as u64).to_le_bytes())?;
            self.sink.write_all(json.as_bytes())
        };
        write().map_err(|e| Error::io(&self.path, &e))?;
        Ok(self.sink)
    }
}

fn header(metadata: &BTreeMap<String, String>, tensors: &[Planned], sums: &[String]) -> String {
    let mut pairs: Map<String, Value> = metadata.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
    pairs.insert(CHECKSUMS.into(), json!(sums.join(" ")));
    let mut all = Map::from_iter([("__metadata__".to_string(), Value::Object(pairs))]);
    let mut start = 0;
    for t in tensors {
        let end = start + t.shape.iter().product::<usize>() * t.dtype.size();
        all.insert(t.name.clone(), json!({"dtype": t.dtype.name(), "shape": t.shape, "data_offsets": [start, end]}));
        start = end;
    }
    Value::Object(all).to_string()
}
