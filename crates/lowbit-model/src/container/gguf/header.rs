//! The header of a GGUF file, read with limits; nothing is allocated from a length that was not checked.

use super::super::header::check_name;
use super::super::show;
use super::types::{self, Type};
use super::{ALIGN, ALIGN_KEY, MAGIC};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// Longest header, bytes.
const MAX_HEADER: usize = 64 << 20;
const MAX_TENSORS: u64 = 262_144;
const MAX_PAIRS: u64 = 65_536;
const MAX_STRING: u64 = 16 << 20;
const MAX_KEY: u64 = 512;
const MAX_DIMS: u32 = 4;
const MAX_ELEMENTS: u64 = 1 << 40;

/// A value of the metadata; integers and floats of all widths are one each.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any integer.
    Int(i128),
    /// Any float.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A text.
    Text(String),
    /// A list, which stays in the file.
    Array(Array),
}

/// A list of the metadata: where it lies in the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Number of elements.
    pub len: usize,
    pub(super) kind: u32,
    pub(super) range: Range<usize>,
}

/// Kinds of values by their number: the size in bytes, 0 where it varies.
const KINDS: [usize; 13] = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8];
const BOOL: u32 = 7;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// One tensor of the header; the range is one of the file.
pub(super) struct Entry {
    pub name: String,
    pub kind: &'static Type,
    /// Outermost first.
    pub shape: Vec<usize>,
    pub range: Range<usize>,
}

/// A header that obeys every limit: names unique, data inside the file and without overlap.
pub(super) struct Header {
    pub version: u32,
    pub metadata: BTreeMap<String, Value>,
    /// In the order of the header.
    pub entries: Vec<Entry>,
}

impl Header {
    /// # Errors
    /// A sentence naming key or tensor, value and limit.
    pub fn parse(file: &[u8]) -> Result<Header, String> {
        if file.len() < 24 {
            return Err(format!("truncated header: {} of 24 bytes; fetch or write the file again", file.len()));
        }
        let mut c = Cursor { bytes: &file[..file.len().min(MAX_HEADER)], at: 4 };
        if file[..4] != MAGIC {
            return Err("is not a GGUF file: it does not begin with `GGUF`".into());
        }
        let version = c.u32()?;
        match version {
            2 | 3 => {}
            _ if matches!(version.swap_bytes(), 1..=9) => {
                return Err("is a big-endian GGUF file; this program reads little-endian ones".into());
            }
            _ => return Err(format!("has GGUF version {version}; this program reads 2 and 3")),
        }
        let (tensors, pairs) = (c.u64()?, c.u64()?);
        for (what, count, most) in [("n_tensors", tensors, MAX_TENSORS), ("n_kv", pairs, MAX_PAIRS)] {
            if count > most {
                return Err(format!("`{what}` is {count}, more than {most}"));
            }
        }
        let metadata = metadata(&mut c, pairs)?;
        let align = alignment(&metadata)?;
        let mut raw = Vec::new();
        let mut seen = HashMap::new();
        for i in 0..tensors {
            let tensor = RawTensor::read(&mut c).map_err(|text| format!("tensor {i}: {text}"))?;
            if let Some(first) = seen.insert(tensor.name.clone(), i) {
                return Err(format!("tensor `{}` occurs twice, as entries {first} and {i}", show(&tensor.name)));
            }
            raw.push(tensor);
        }
        let data = c.at.next_multiple_of(align);
        let spans = spans(&raw, file.len().saturating_sub(data) as u64);
        let place = Place { data, align, file: file.len() };
        let entries =
            raw.into_iter().zip(spans).map(|(t, span)| t.check(&place, span)).collect::<Result<Vec<_>, _>>()?;
        overlaps(&entries)?;
        Ok(Header { version, metadata, entries })
    }
}

fn metadata(c: &mut Cursor, pairs: u64) -> Result<BTreeMap<String, Value>, String> {
    let mut metadata = BTreeMap::new();
    for i in 0..pairs {
        let key = c.text(MAX_KEY).map_err(|text| format!("metadata key {i}: {text}"))?;
        check_name(key).map_err(|text| format!("metadata key {i}: {text}"))?;
        let value = c.value().map_err(|text| format!("metadata `{}`: {text}", show(key)))?;
        if metadata.insert(key.to_string(), value).is_some() {
            return Err(format!("metadata `{}` occurs twice", show(key)));
        }
    }
    Ok(metadata)
}

fn alignment(metadata: &BTreeMap<String, Value>) -> Result<usize, String> {
    match metadata.get(ALIGN_KEY) {
        None => Ok(ALIGN),
        Some(Value::Int(n @ 8..=65_536)) if n.count_ones() == 1 => Ok(*n as usize),
        Some(Value::Int(n)) => Err(format!("metadata `{ALIGN_KEY}` is {n}; it must be a power of two in 8..=65536")),
        Some(_) => Err(format!("metadata `{ALIGN_KEY}` is not a whole number")),
    }
}

fn overlaps(entries: &[Entry]) -> Result<(), String> {
    let mut order: Vec<&Entry> = entries.iter().collect();
    order.sort_by_key(|e| (e.range.start, e.range.end));
    match order.windows(2).find(|pair| pair[1].range.start < pair[0].range.end) {
        None => Ok(()),
        Some(pair) => {
            let (a, b) = (show(&pair[0].name), show(&pair[1].name));
            let (at, end) = (pair[1].range.start, pair[0].range.end);
            Err(format!("tensor `{b}`: its data at byte {at} overlaps that of `{a}`, which ends at {end}"))
        }
    }
}

/// Bytes from the start of each tensor to that of the next one, or to the end of the data.
fn spans(tensors: &[RawTensor], data: u64) -> Vec<u64> {
    let mut starts: Vec<u64> = tensors.iter().map(|t| t.offset).chain([data]).collect();
    starts.sort_unstable();
    let next = |offset: u64| starts.get(starts.partition_point(|start| *start <= offset)).copied();
    tensors.iter().map(|t| next(t.offset).unwrap_or(data).saturating_sub(t.offset)).collect()
}

/// Where the data of a file begins, how tensors are aligned, and where the file ends.
struct Place {
    data: usize,
    align: usize,
    file: usize,
}

struct RawTensor {
    name: String,
    dims: Vec<u64>,
    kind: u32,
    offset: u64,
}

impl RawTensor {
    fn read(c: &mut Cursor) -> Result<Self, String> {
        let name = c.text(MAX_KEY)?.to_string();
        check_name(&name)?;
        let at = |text: String| format!("`{}`: {text}", show(&name));
        let count = c.u32()?;
        if count > MAX_DIMS {
            return Err(at(format!("has {count} dimensions, more than {MAX_DIMS}")));
        }
        let dims = (0..count).map(|_| c.u64()).collect::<Result<Vec<_>, _>>()?;
        let (kind, offset) = (c.u32()?, c.u64()?);
        Ok(RawTensor { name, dims, kind, offset })
    }

    /// `span` is the number of bytes up to the next tensor.
    fn check(self, place: &Place, span: u64) -> Result<Entry, String> {
        let Place { data, align, file } = *place;
        let at = |text: String| format!("tensor `{}`: {text}", show(&self.name));
        let dims = &self.dims;
        let count = dims.iter().try_fold(1u64, |n, &d| n.checked_mul(d).filter(|&n| n <= MAX_ELEMENTS && n > 0));
        let count = count.ok_or_else(|| at(format!("dimensions {dims:?}; a tensor has 1 to 2^40 elements")))?;
        // A scalar has no dimensions.
        let cols = dims.first().copied().unwrap_or(1);
        let padded = |bytes: u64| bytes.next_multiple_of(align as u64);
        let fills =
            |kind: &Type| kind.size(cols, count).is_ok_and(|bytes| bytes <= span && padded(bytes) == padded(span));
        let kind = types::of(self.kind, fills).map_err(&at)?;
        let bytes = kind.size(cols, count).map_err(&at)?;
        if !self.offset.is_multiple_of(align as u64) {
            return Err(at(format!("offset {} is not a multiple of the alignment {align}", self.offset)));
        }
        let start = self.offset.checked_add(data as u64);
        let end = start.and_then(|start| start.checked_add(bytes)).filter(|end| *end <= file as u64);
        let (Some(start), Some(end)) = (start, end) else {
            let text = format!("its {bytes} bytes of {} at offset {} of the data", kind.name, self.offset);
            let text = format!("{text} (which begins at byte {data}) end past the file of {file} bytes");
            return Err(at(format!("{text}; it is truncated or damaged: fetch or write it again")));
        };
        let shape = dims.iter().rev().map(|d| *d as usize).collect();
        Ok(Entry { kind, shape, range: start as usize..end as usize, name: self.name })
    }
}

/// A position in the bytes of the header.
pub(super) struct Cursor<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, n: u64) -> Result<&'a [u8], String> {
        let left = self.bytes.len() - self.at;
        let Some(n) = usize::try_from(n).ok().filter(|n| *n <= left) else {
            return Err(format!("asks for {n} bytes at byte {}, but the header has {left} more at most", self.at));
        };
        let taken = &self.bytes[self.at..self.at + n];
        self.at += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.take(N as u64)?.try_into().expect("as many as were taken"))
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    /// A string of at most `most` bytes.
    pub fn text(&mut self, most: u64) -> Result<&'a str, String> {
        let len = self.u64()?;
        if len > most {
            return Err(format!("a string has {len} bytes, more than {most}"));
        }
        let at = self.at;
        std::str::from_utf8(self.take(len)?).map_err(|e| format!("not UTF-8 at byte {}", at + e.valid_up_to()))
    }

    fn value(&mut self) -> Result<Value, String> {
        match self.u32()? {
            ARRAY => self.list().map(Value::Array),
            kind => self.scalar(kind),
        }
    }

    /// A value of a kind that is no list.
    pub fn scalar(&mut self, kind: u32) -> Result<Value, String> {
        Ok(match kind {
            0 => Value::Int(self.array::<1>()?[0].into()),
            1 => Value::Int(i8::from_le_bytes(self.array()?).into()),
            2 => Value::Int(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Int(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Int(self.u32()?.into()),
            5 => Value::Int(i32::from_le_bytes(self.array()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            BOOL => match self.array::<1>()?[0] {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                other => return Err(format!("a bool is {other}; it must be 0 or 1")),
            },
            STRING => Value::Text(self.text(MAX_STRING)?.to_string()),
            10 => Value::Int(self.u64()?.into()),
            11 => Value::Int(i64::from_le_bytes(self.array()?).into()),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            other => return Err(format!("unknown type {other}")),
        })
    }

    /// Walks over a list without keeping it.
    fn list(&mut self) -> Result<Array, String> {
        let (kind, len) = (self.u32()?, self.u64()?);
        let start = self.at;
        match KINDS.get(kind as usize) {
            None => return Err(format!("a list of unknown type {kind}")),
            Some(_) if kind == ARRAY => return Err("a list of lists; such files are refused".into()),
            Some(0) => {
                let left = (self.bytes.len() - self.at) as u64;
                if len > left / 8 {
                    return Err(format!("a list of {len} strings in {left} bytes"));
                }
                for i in 0..len {
                    self.text(MAX_STRING).map_err(|text| format!("element {i}: {text}"))?;
                }
            }
            Some(size) => {
                let bytes = len.checked_mul(*size as u64).ok_or_else(|| format!("a list of {len} elements"))?;
                let values = self.take(bytes)?;
                if let Some(i) = values.iter().position(|b| kind == BOOL && *b > 1) {
                    return Err(format!("element {i}: a bool is {}; it must be 0 or 1", values[i]));
                }
            }
        }
        Ok(Array { len: len as usize, kind, range: start..self.at })
    }
}
