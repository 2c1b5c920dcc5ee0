//! The JSON header of a safetensors file, read with limits.

use super::show;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;

/// Longest header, bytes.
pub(super) const MAX_HEADER: usize = 64 << 20;
const MAX_TENSORS: usize = 262_144;
const MAX_PAIRS: usize = 65_536;
const MAX_NAME: usize = 512;
const MAX_STRING: usize = 16 << 20;
const MAX_DIMS: usize = 8;
const MAX_ELEMENTS: u64 = 1 << 40;

macro_rules! dtypes {
    ($($name:ident = $size:literal),*) => {
        /// Type of the elements of a stored tensor.
        #[allow(non_camel_case_types, missing_docs)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Dtype { $($name),* }

        impl Dtype {
            /// The type of a name, if it is known.
            pub fn find(name: &str) -> Option<Dtype> {
                match name { $(stringify!($name) => Some(Dtype::$name),)* _ => None }
            }

            /// Size of an element in bytes.
            pub fn size(self) -> usize {
                match self { $(Dtype::$name => $size),* }
            }

            /// The name in the header.
            pub fn name(self) -> &'static str {
                match self { $(Dtype::$name => stringify!($name)),* }
            }

            fn all() -> String {
                [$(stringify!($name)),*].join(", ")
            }
        }
    };
}

dtypes! {
    BOOL = 1, U8 = 1, I8 = 1, F8_E5M2 = 1, F8_E4M3 = 1, F8_E8M0 = 1, U16 = 2, I16 = 2, F16 = 2, BF16 = 2, U32 = 4,
    I32 = 4, F32 = 4, U64 = 8, I64 = 8, F64 = 8, C64 = 8
}

/// One tensor of the header; offsets are relative to the data.
pub(super) struct Field {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub start: usize,
    pub end: usize,
}

/// A header that obeys every limit: names unique, shapes match sizes, data without holes or overlaps.
pub(super) struct Header {
    pub metadata: BTreeMap<String, String>,
    pub fields: Vec<Field>,
}

impl Header {
    /// Reads a header whose data has `data_len` bytes.
    ///
    /// # Errors
    /// A sentence naming field, value and limit.
    pub fn parse(json: &[u8], data_len: usize) -> Result<Header, String> {
        let text = std::str::from_utf8(json)
            .map_err(|e| format!("header is not UTF-8 at byte {}; the file is damaged", 8 + e.valid_up_to()))?;
        let raw: RawHeader =
            serde_json::from_str(text).map_err(|e| format!("header: {e}; the file is damaged or not safetensors"))?;
        let mut fields = Vec::with_capacity(raw.entries.len());
        for (name, (_, entry)) in raw.entries {
            fields.push(entry.check(name)?);
        }
        fields.sort_by_key(|f| (f.start, f.end));
        let mut end = 0;
        for f in &fields {
            if f.start != end {
                let what = if f.start < end { "overlaps" } else { "leaves a hole after" };
                let (name, start) = (show(&f.name), f.start);
                return Err(format!("tensor `{name}`: offset {start} {what} the data before it, which ends at {end}"));
            }
            end = f.end;
        }
        if end != data_len {
            let last = fields.last().map_or("none".into(), |f| show(&f.name));
            let text =
                format!("the header describes {end} bytes of data (last tensor `{last}`), the file has {data_len}");
            return Err(format!("{text}; it is truncated or damaged: fetch or write it again"));
        }
        Ok(Header { metadata: raw.metadata, fields })
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry {
    dtype: String,
    shape: HeaderShape,
    data_offsets: [u64; 2],
}

impl RawEntry {
    fn check(self, name: String) -> Result<Field, String> {
        let at = |text: String| Err(format!("tensor `{}`: {text}", show(&name)));
        check_name(&name)?;
        let Some(dtype) = Dtype::find(&self.dtype) else {
            return at(format!("unknown dtype `{}`; known: {}", show(&self.dtype), Dtype::all()));
        };
        let [start, end] = self.data_offsets;
        let shape = self.shape.0;
        if shape.contains(&0) {
            return at(format!("shape {shape:?} holds a dimension of 0"));
        }
        let count = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d).filter(|&n| n <= MAX_ELEMENTS));
        let Some(count) = count else {
            return at(format!("shape {shape:?} of {} has more than 2^40 elements", dtype.name()));
        };
        let bytes = count * dtype.size() as u64;
        if start.checked_add(bytes) != Some(end) {
            let text = format!("shape {shape:?} of {} takes {bytes} bytes, but data_offsets are", dtype.name());
            return at(format!("{text} [{start}, {end}]"));
        }
        let narrow = |n: u64| usize::try_from(n).map_err(|_| format!("offset {n} is too large for this machine"));
        let shape = shape.into_iter().map(narrow).collect::<Result<_, _>>()?;
        Ok(Field { dtype, shape, start: narrow(start)?, end: narrow(end)?, name })
    }
}

/// Printable, short, and no path.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let fault = if name.is_empty() {
        "is empty".into()
    } else if name.len() > MAX_NAME {
        format!("has {} bytes, more than {MAX_NAME}", name.len())
    } else if name.chars().any(char::is_control) {
        "holds a control character".into()
    } else if name.starts_with('/') || name.split(['/', '\\']).any(|part| part == "..") {
        "looks like a path".into()
    } else {
        return Ok(());
    };
    Err(format!("name `{}` {fault}; such files are refused", show(name)))
}

struct HeaderShape(Vec<u64>);

impl<'de> Deserialize<'de> for HeaderShape {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = HeaderShape;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                write!(f, "a shape of at most {MAX_DIMS} dimensions")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<HeaderShape, A::Error> {
                let mut shape = Vec::new();
                while let Some(dim) = seq.next_element()? {
                    if shape.len() == MAX_DIMS {
                        return Err(de::Error::invalid_length(MAX_DIMS + 1, &self));
                    }
                    shape.push(dim);
                }
                Ok(HeaderShape(shape))
            }
        }
        d.deserialize_seq(V)
    }
}

struct RawHeader {
    metadata: BTreeMap<String, String>,
    /// Position in the header and content.
    entries: BTreeMap<String, (usize, RawEntry)>,
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = RawHeader;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut metadata = None;
                let mut entries: BTreeMap<String, (usize, RawEntry)> = BTreeMap::new();
                for position in 1.. {
                    let Some(name) = map.next_key::<String>()? else {
                        break;
                    };
                    let at = |e: A::Error| de::Error::custom(format!("tensor `{}`: {e}", show(&name)));
                    if name == "__metadata__" {
                        let pairs = map.next_value::<Metadata>().map_err(at)?;
                        if metadata.replace(pairs.0).is_some() {
                            return Err(de::Error::custom("`__metadata__` occurs twice"));
                        }
                        continue;
                    }
                    if entries.len() == MAX_TENSORS {
                        return Err(de::Error::custom(format!("tensor count exceeds {MAX_TENSORS}")));
                    }
                    let entry = map.next_value::<RawEntry>().map_err(at)?;
                    if let Some((first, _)) = entries.get(&name) {
                        let text = format!("tensor `{}` occurs twice, as entries {first} and {position}", show(&name));
                        return Err(de::Error::custom(text));
                    }
                    entries.insert(name, (position, entry));
                }
                Ok(RawHeader { metadata: metadata.unwrap_or_default(), entries })
            }
        }
        d.deserialize_map(V)
    }
}

struct Metadata(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Metadata;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of strings")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
                let mut pairs = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, String>()? {
                    if pairs.len() == MAX_PAIRS || key.len() > MAX_NAME || value.len() > MAX_STRING {
                        let text = format!("metadata `{}` exceeds the limit on pairs, name or length", show(&key));
                        return Err(de::Error::custom(text));
                    }
                    if pairs.insert(key.clone(), value).is_some() {
                        return Err(de::Error::custom(format!("metadata `{}` occurs twice", show(&key))));
                    }
                }
                Ok(Metadata(pairs))
            }
        }
        d.deserialize_map(V)
    }
}
