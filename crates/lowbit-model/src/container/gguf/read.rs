//! Reading: the file is mapped, the header checked in full before any tensor is handed out.

use super::super::show;
use super::header::{Array, Cursor, Entry, Header, Value};
use super::types::{Ternary, Type};
use crate::Error;
use lowbit_kernels::Bytes;
use lowbit_kernels::format::SpanScales;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// One tensor of a file.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// How its elements are stored.
    pub kind: &'static Type,
    /// Dimensions, up to 4, outermost first; a scalar has none.
    pub shape: Vec<usize>,
    range: Range<usize>,
}

impl Tensor {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no elements; never true of a tensor of a file.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether each row, of the outermost dimension, is a whole number of blocks.
    pub fn has_whole_rows(&self) -> bool {
        let width: usize = self.shape.iter().skip(1).product();
        width.is_multiple_of(self.kind.block)
    }

    /// Bytes in the file.
    pub fn bytes(&self) -> usize {
        self.range.len()
    }
}

/// A mapped GGUF file.
#[derive(Clone, Debug)]
pub struct Gguf {
    path: PathBuf,
    bytes: Bytes,
    version: u32,
    metadata: BTreeMap<String, Value>,
    tensors: Vec<Tensor>,
    by_name: HashMap<String, usize>,
}

impl Gguf {
    /// Maps a file and checks its header.
    ///
    /// # Errors
    /// [`Kind::Input`](crate::Kind) naming file, key or tensor, value and limit; [`Kind::Io`](crate::Kind) when it cannot be
    /// read.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::parse(path, crate::container::map(path)?)
    }

    /// Reads a file that is already in memory; `path` is what errors name.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    pub fn parse(path: &Path, bytes: Bytes) -> Result<Self, Error> {
        if let Some(text) = super::super::foreign::pointer(&bytes) {
            return Err(Error::input(path, text));
        }
        let header = Header::parse(&bytes).map_err(|text| Error::input(path, text))?;
        let tensor = |Entry { name, kind, shape, range }| Tensor { name, kind, shape, range };
        let tensors: Vec<Tensor> = header.entries.into_iter().map(tensor).collect();
        let by_name = tensors.iter().enumerate().map(|(i, t)| (t.name.clone(), i)).collect();
        let (version, metadata) = (header.version, header.metadata);
        Ok(Gguf { path: path.into(), bytes, version, metadata, tensors, by_name })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size of the file in bytes.
    pub fn file_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The version of the format, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// All pairs of the metadata.
    pub fn metadata(&self) -> &BTreeMap<String, Value> {
        &self.metadata
    }

    /// All tensors, in the order of the header.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The tensor of a name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.by_name.get(name).map(|i| &self.tensors[*i])
    }

    fn wrong(&self, key: &str, expected: &str) -> Error {
        Error::input(&self.path, format!("metadata `{}` is not {expected}", show(key)))
    }

    /// A text of the metadata, if it is there.
    ///
    /// # Errors
    /// When it is no text.
    pub fn text(&self, key: &str) -> Result<Option<&str>, Error> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(key, "a text")),
        }
    }

    /// A number that counts something, if it is there.
    ///
    /// # Errors
    /// When it is no integer, negative, or 2^31 or more.
    pub fn count(&self, key: &str) -> Result<Option<usize>, Error> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Int(n @ 0..0x8000_0000)) => Ok(Some(*n as usize)),
            Some(Value::Int(n)) => {
                Err(Error::input(&self.path, format!("metadata `{}` is {n}; it must lie in 0..2^31", show(key))))
            }
            Some(_) => Err(self.wrong(key, "a whole number")),
        }
    }

    /// A number, if it is there.
    ///
    /// # Errors
    /// When it is no number.
    pub fn number(&self, key: &str) -> Result<Option<f32>, Error> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Float(x)) => Ok(Some(*x as f32)),
            Some(Value::Int(n)) => Ok(Some(*n as f32)),
            Some(_) => Err(self.wrong(key, "a number")),
        }
    }

    /// A truth value, if it is there.
    ///
    /// # Errors
    /// When it is none.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, Error> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    fn array(&self, key: &str) -> Result<Option<&Array>, Error> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Array(array)) => Ok(Some(array)),
            Some(_) => Err(self.wrong(key, "a list")),
        }
    }

    fn elements(&self, array: &Array) -> impl Iterator<Item = Value> {
        let mut cursor = Cursor { bytes: &self.bytes[array.range.clone()], at: 0 };
        let kind = array.kind;
        (0..array.len).map(move |_| cursor.scalar(kind).expect("checked on opening"))
    }

    /// The texts of a list, if it is there.
    ///
    /// # Errors
    /// When it is no list of texts, or has more than `most`.
    pub fn texts(&self, key: &str, most: usize) -> Result<Option<Vec<String>>, Error> {
        let Some(array) = self.array(key)? else {
            return Ok(None);
        };
        self.at_most(key, array, most)?;
        let text = |value| match value {
            Value::Text(text) => Ok(text),
            _ => Err(self.wrong(key, "a list of texts")),
        };
        self.elements(array).map(text).collect::<Result<_, _>>().map(Some)
    }

    /// The numbers of a list, if it is there.
    ///
    /// # Errors
    /// When it is no list of numbers, or has more than `most`.
    pub fn numbers(&self, key: &str, most: usize) -> Result<Option<Vec<f64>>, Error> {
        let Some(array) = self.array(key)? else {
            return Ok(None);
        };
        self.at_most(key, array, most)?;
        let number = |value| match value {
            Value::Float(x) => Ok(x),
            Value::Int(n) => Ok(n as f64),
            _ => Err(self.wrong(key, "a list of numbers")),
        };
        self.elements(array).map(number).collect::<Result<_, _>>().map(Some)
    }

    fn at_most(&self, key: &str, array: &Array, most: usize) -> Result<(), Error> {
        match array.len > most {
            true => Err(self.wrong(key, &format!("a list of at most {most} elements, but of {}", array.len))),
            false => Ok(()),
        }
    }

    fn at(&self, tensor: &Tensor, text: String) -> Error {
        Error::input(&self.path, format!("tensor `{}` ({}): {text}", show(&tensor.name), tensor.kind.name))
    }

    /// The stored bytes of a tensor.
    pub fn data(&self, tensor: &Tensor) -> &[u8] {
        &self.bytes[tensor.range.clone()]
    }

    /// The elements of a tensor, exactly what its type means.
    ///
    /// # Errors
    /// When an element is NaN or infinite, or a code is none of the type; names tensor and index.
    pub fn floats(&self, tensor: &Tensor) -> Result<Vec<f32>, Error> {
        self.floats_from(tensor, 0, tensor.len())
    }

    /// [`Gguf::floats`] of some rows, the outermost dimension of the shape; `None` where rows are no whole number of blocks.
    ///
    /// # Errors
    /// As [`Gguf::floats`].
    ///
    /// # Panics
    /// When the tensor has fewer rows.
    pub fn row_floats(&self, tensor: &Tensor, rows: Range<usize>) -> Result<Option<Vec<f32>>, Error> {
        let width: usize = tensor.shape.iter().skip(1).product();
        match tensor.has_whole_rows() {
            true => self.floats_from(tensor, rows.start * width, rows.len() * width).map(Some),
            false => Ok(None),
        }
    }

    /// Elements from `first` on, which begins a block.
    fn floats_from(&self, tensor: &Tensor, first: usize, count: usize) -> Result<Vec<f32>, Error> {
        let at = |text| self.at(tensor, text);
        let mut values = vec![0.0; count];
        tensor.kind.decode_from(self.data(tensor), first / tensor.kind.block, &mut values).map_err(at)?;
        match super::super::not_finite(&values) {
            Some(i) => {
                let text = format!("holds {} at index {}; fetch or convert the file again", values[i], first + i);
                Err(at(text))
            }
            None => Ok(values),
        }
    }

    /// The only scale of a ternary tensor, if all its blocks share one; quick, looks at no code.
    pub fn one_scale(&self, tensor: &Tensor) -> Option<f32> {
        tensor.kind.one_scale(self.data(tensor))
    }

    /// Gives up the memory of a tensor that is not needed soon; see [`Bytes::release`].
    pub fn release(&self, tensor: &Tensor) {
        self.bytes.slice(tensor.range.clone()).iter().for_each(Bytes::release);
    }

    /// The codes 0, 1, 2 of -1, 0, 1 of some rows of a ternary tensor, the outermost dimension of the shape; `None` where rows
    /// are no whole number of blocks.
    ///
    /// # Errors
    /// As [`Gguf::ternary`].
    ///
    /// # Panics
    /// When the type is not ternary, or the tensor has fewer rows.
    pub fn row_codes(&self, tensor: &Tensor, rows: Range<usize>) -> Result<Option<Vec<u8>>, Error> {
        let (kind, width) = (tensor.kind, tensor.shape.iter().skip(1).product::<usize>());
        if !tensor.has_whole_rows() {
            return Ok(None);
        }
        let mut codes = vec![0; rows.len() * width];
        let read = kind.codes_from(self.data(tensor), rows.start * width / kind.block, &mut codes);
        read.map_err(|text| self.at(tensor, text))?;
        Ok(Some(codes))
    }

    /// The codes of some rows, the outermost dimension of the shape, and the scales of their blocks.
    ///
    /// # Panics
    /// When the type has no [`Type::format`], rows are no whole number of blocks, or there are fewer.
    pub fn row_integers(&self, tensor: &Tensor, rows: Range<usize>) -> (Vec<u8>, Vec<SpanScales>) {
        let (kind, width) = (tensor.kind, tensor.shape.iter().skip(1).product::<usize>());
        assert!(tensor.has_whole_rows(), "rows are whole blocks");
        let mut codes = vec![0; rows.len() * width];
        let scales = kind.integers_from(self.data(tensor), rows.start * width / kind.block, &mut codes);
        (codes, scales)
    }

    /// Sees that the scale of a ternary tensor is not 0 where its codes are not.
    ///
    /// # Errors
    /// When it is.
    pub fn check_scale(&self, tensor: &Tensor) -> Result<(), Error> {
        tensor.kind.check_scale(self.data(tensor)).map_err(|text| self.at(tensor, text))
    }

    /// The codes -1, 0, 1 and the one scale of a ternary tensor; `None` when its type is not ternary, or its blocks have
    /// several scales.
    ///
    /// # Errors
    /// When a scale is NaN or infinite, or a code is none of the type; names tensor and index.
    pub fn ternary(&self, tensor: &Tensor) -> Result<Option<Ternary>, Error> {
        tensor.kind.ternary(self.data(tensor), tensor.len()).map_err(|text| self.at(tensor, text))
    }
}
