//! Writing: the header first, then tensor after tensor, into a file that replaces the target in the end.

use super::types::Type;
use super::{ALIGN, MAGIC};
use crate::Error;
use lowbit_base::file::Replacement;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A value to write into the metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Field {
    /// A count or an id.
    U32(u32),
    /// A number.
    F32(f32),
    /// A truth value.
    Bool(bool),
    /// A text.
    Text(String),
    /// A list of texts.
    Texts(Vec<String>),
    /// A list of numbers.
    Floats(Vec<f32>),
    /// A list of whole numbers.
    Ints(Vec<i32>),
}

/// A tensor to come.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Its name.
    pub name: String,
    /// How its elements are stored.
    pub kind: &'static Type,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
}

impl Planned {
    /// Bytes in the file.
    ///
    /// # Errors
    /// A sentence naming the tensor, when its rows are no whole number of blocks.
    pub fn size(&self) -> Result<u64, String> {
        let count = self.shape.iter().product::<usize>() as u64;
        let cols = self.shape.last().map_or(1, |n| *n as u64);
        self.kind.size(cols, count).map_err(|text| format!("tensor `{}`: {text}", self.name))
    }
}

/// Streams tensors into a file that appears under its name only when it is complete. The same metadata and values give the
/// same bytes.
#[derive(Debug)]
pub struct GgufWriter {
    path: PathBuf,
    file: Replacement,
    plan: Vec<Planned>,
    next: usize,
    /// Elements of the next tensor that are written.
    written: usize,
}

impl GgufWriter {
    /// Opens the temporary file and writes the header.
    ///
    /// # Errors
    /// When a tensor's rows do not fill the blocks of its type, or the file cannot be created.
    pub fn create(path: &Path, metadata: &[(String, Field)], plan: Vec<Planned>) -> Result<Self, Error> {
        let header = header(metadata, &plan).map_err(|text| Error::input(path, text))?;
        let mut file = Replacement::create(path)?;
        file.write_all(&header).map_err(|e| Error::io(path, &e))?;
        Ok(GgufWriter { path: path.into(), file, plan, next: 0, written: 0 })
    }

    /// Appends the next tensor of the plan; `false` when its values had to be rounded.
    ///
    /// # Errors
    /// When the type of the plan cannot hold the values, or writing fails.
    ///
    /// # Panics
    /// When the values do not fit the shape, or all tensors are written.
    pub fn tensor(&mut self, values: &[f32]) -> Result<bool, Error> {
        let planned = &self.plan[self.next];
        assert_eq!(values.len(), planned.shape.iter().product::<usize>(), "values of `{}` fit the plan", planned.name);
        self.rows(values)
    }

    /// Appends whole rows of the next tensor of the plan, whose type has no tail; the last of them end the tensor.
    ///
    /// # Errors
    /// As [`GgufWriter::tensor`].
    ///
    /// # Panics
    /// When the values are more than the tensor has left, or all tensors are written.
    pub fn rows(&mut self, values: &[f32]) -> Result<bool, Error> {
        let planned = &self.plan[self.next];
        let mut bytes = Vec::new();
        planned.kind.encode(values, &mut bytes).map_err(|text| self.fault(&text))?;
        let exact = planned.kind.means(&bytes, values);
        self.blocks(values.len(), bytes)?;
        Ok(exact)
    }

    /// Appends the bytes of so many elements, whole rows of the next tensor of the plan.
    ///
    /// # Errors
    /// When writing fails.
    ///
    /// # Panics
    /// As [`GgufWriter::rows`].
    pub fn blocks(&mut self, elements: usize, mut bytes: Vec<u8>) -> Result<(), Error> {
        let planned = &self.plan[self.next];
        let (count, end) = (planned.shape.iter().product::<usize>(), self.written + elements);
        assert!(end == count || end < count && planned.kind.tail == 0, "values of `{}` fit the plan", planned.name);
        self.written = end;
        if end == count {
            let size = planned.size().map_err(|text| Error::input(&self.path, text))?;
            bytes.resize(bytes.len() + (size.next_multiple_of(ALIGN as u64) - size) as usize, 0);
            (self.next, self.written) = (self.next + 1, 0);
        }
        self.file.write_all(&bytes).map_err(|e| Error::io(&self.path, &e))
    }

    /// What is wrong with values of the next tensor.
    pub fn fault(&self, text: &str) -> Error {
        let from = if self.written > 0 { format!(", counted from element {}", self.written) } else { String::new() };
        Error::input(&self.path, format!("tensor `{}` {text}{from}", self.plan[self.next].name))
    }

    /// Flushes to the disk and renames the file to its name.
    ///
    /// # Errors
    /// When writing fails; the target is then as it was.
    ///
    /// # Panics
    /// When a tensor of the plan is missing.
    pub fn finish(self) -> Result<(), Error> {
        assert_eq!(self.next, self.plan.len(), "every tensor of the plan is written");
        self.file.commit()
    }
}

fn header(metadata: &[(String, Field)], plan: &[Planned]) -> Result<Vec<u8>, String> {
    let mut out = MAGIC.to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((plan.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, field) in metadata {
        text(&mut out, key);
        value(&mut out, field);
    }
    let mut offset = 0u64;
    for tensor in plan {
        text(&mut out, &tensor.name);
        out.extend((tensor.shape.len() as u32).to_le_bytes());
        out.extend(tensor.shape.iter().rev().flat_map(|n| (*n as u64).to_le_bytes()));
        out.extend(tensor.kind.number.to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset = (offset + tensor.size()?).next_multiple_of(ALIGN as u64);
    }
    out.resize(out.len().next_multiple_of(ALIGN), 0);
    Ok(out)
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn value(out: &mut Vec<u8>, field: &Field) {
    let list = |out: &mut Vec<u8>, kind: u32, len: usize| {
        out.extend(9u32.to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend((len as u64).to_le_bytes());
    };
    let kind = |out: &mut Vec<u8>, kind: u32| out.extend(kind.to_le_bytes());
    match field {
        Field::U32(n) => {
            kind(out, 4);
            out.extend(n.to_le_bytes());
        }
        Field::F32(x) => {
            kind(out, 6);
            out.extend(x.to_le_bytes());
        }
        Field::Bool(b) => {
            kind(out, 7);
            out.push(u8::from(*b));
        }
        Field::Text(content) => {
            kind(out, 8);
            text(out, content);
        }
        Field::Texts(texts) => {
            list(out, 8, texts.len());
            texts.iter().for_each(|content| text(out, content));
        }
        Field::Floats(numbers) => {
            list(out, 6, numbers.len());
            out.extend(numbers.iter().flat_map(|x| x.to_le_bytes()));
        }
        Field::Ints(numbers) => {
            list(out, 5, numbers.len());
            out.extend(numbers.iter().flat_map(|n| n.to_le_bytes()));
        }
    }
}
