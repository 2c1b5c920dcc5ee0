//! Reading: the file is mapped, the header checked in full before any tensor is handed out.

use super::header::{Header, MAX_HEADER};
use super::{Dtype, show};
use crate::Error;
use lowbit_base::memory::Footprint;
use lowbit_kernels::{Bytes, Pool};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that are unpacked before memory is compared again.
const UNPACKED: u64 = 256 << 20;

/// One tensor of a file.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Type of its elements.
    pub dtype: Dtype,
    /// Dimensions, at most 8, none of them 0; empty for a scalar.
    pub shape: Vec<usize>,
    range: Range<usize>,
}

/// A mapped safetensors file.
#[derive(Clone, Debug)]
pub struct Tensors {
    path: PathBuf,
    bytes: Bytes,
    metadata: BTreeMap<String, String>,
    entries: BTreeMap<String, Entry>,
    /// Names by position in the data.
    order: Vec<String>,
}

impl Tensors {
    /// Maps a file and checks its header.
    ///
    /// # Errors
    /// [`Kind::Input`](crate::Kind) naming file, tensor or field, value and limit; [`Kind::Io`](crate::Kind) when it
    /// cannot be read.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::parse(path, super::map(path)?)
    }

    /// Unpacks a file compressed with zstd into memory; it must fit there.
    ///
    /// # Errors
    /// As [`Tensors::open`], and when it is damaged or larger than the memory there is.
    pub fn unpack(path: &Path) -> Result<Self, Error> {
        let damaged = |e: std::io::Error| Error::input(path, format!("is damaged zstd: {e}; fetch the file again"));
        let packed = super::map(path)?;
        let mut stream = zstd::stream::read::Decoder::new(&packed[..]).map_err(damaged)?;
        let mut out = Vec::new();
        // Sizes in a file are not believed: memory is compared as it fills.
        loop {
            let before = out.len();
            (&mut stream).take(UNPACKED).read_to_end(&mut out).map_err(damaged)?;
            if out.len() == before {
                return Self::parse(path, Bytes::new(out));
            }
            Footprint::new("unpack it to a file, which is mapped").and("unpacked weights", out.len() as u64).check()?;
        }
    }

    /// Reads a file that is already in memory; `path` is what errors name.
    ///
    /// # Errors
    /// As [`Tensors::open`].
    pub fn parse(path: &Path, bytes: Bytes) -> Result<Self, Error> {
        if let Some(text) = super::foreign::instead_of_tensors(path, &bytes) {
            return Err(Error::input(path, text));
        }
        if bytes.len() < 8 {
            let text = format!("truncated header: {} of 8 bytes; fetch or write the file again", bytes.len());
            return Err(Error::input(path, text));
        }
        let len = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
        let most = MAX_HEADER.min(bytes.len() - 8);
        let len = usize::try_from(len).ok().filter(|&n| n <= most).ok_or_else(|| {
            let text = format!("header_len is {len}, more than the {most} bytes allowed in a file of {}", bytes.len());
            Error::input(path, format!("{text}; the file is truncated, damaged or not safetensors"))
        })?;
        let data = 8 + len;
        let header = Header::parse(&bytes[8..data], bytes.len() - data).map_err(|e| Error::input(path, e))?;
        let order = header.fields.iter().map(|f| f.name.clone()).collect();
        let entry = |shape, dtype, range| Entry { dtype, shape, range };
        let fields = header.fields.into_iter();
        let entries = fields.map(|f| (f.name, entry(f.shape, f.dtype, data + f.start..data + f.end))).collect();
        Ok(Tensors { path: path.into(), bytes, metadata: header.metadata, entries, order })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size of the file in bytes.
    pub fn file_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The pairs of `__metadata__`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Names of the tensors in the order of their data.
    pub fn names(&self) -> &[String] {
        &self.order
    }

    /// Type and shape of a tensor.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// The data of a tensor; copies nothing.
    pub fn bytes(&self, name: &str) -> Option<Bytes> {
        let entry = self.entries.get(name)?;
        self.bytes.slice(entry.range.clone())
    }

    /// The elements of an F32, BF16, F16 or F64 tensor as f32.
    ///
    /// # Errors
    /// When there is no such tensor, it has another type, or an element is NaN or infinite; names tensor and index.
    pub fn floats(&self, name: &str) -> Result<Vec<f32>, Error> {
        let rows = self.entry(name).and_then(|entry| entry.shape.first().copied()).unwrap_or(1);
        self.row_floats(name, 0..rows)
    }

    /// [`Tensors::floats`] of some rows, the outermost dimension of the shape.
    ///
    /// # Errors
    /// As [`Tensors::floats`].
    ///
    /// # Panics
    /// When the tensor has fewer rows.
    pub fn row_floats(&self, name: &str, rows: Range<usize>) -> Result<Vec<f32>, Error> {
        let at = |text: String| Error::input(&self.path, format!("tensor `{}` {text}", show(name)));
        let entry = self.entry(name).ok_or_else(|| at("is missing".into()))?;
        let width: usize = entry.shape.iter().skip(1).product();
        let row = width * entry.dtype.size();
        let data = &self.bytes[entry.range.clone()][rows.start * row..rows.end * row];
        let pairs = || data.as_chunks::<2>().0.iter();
        let values: Vec<f32> = match entry.dtype {
            Dtype::F32 => data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Dtype::BF16 => pairs().map(|b| f32::from_bits((u16::from_le_bytes(*b) as u32) << 16)).collect(),
            Dtype::F16 => pairs().map(|b| widen_f16(u16::from_le_bytes(*b))).collect(),
            Dtype::F64 => {
                let wide = || data.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b));
                let beyond = wide().position(|v| v.is_finite() && !(v as f32).is_finite());
                if let Some((i, v)) = beyond.and_then(|i| Some((i, wide().nth(i)?))) {
                    let index = rows.start * width + i;
                    return Err(at(format!("holds {v:e} at index {index}, beyond the range of F32")));
                }
                wide().map(|v| v as f32).collect()
            }
            other => {
                let text = format!("has dtype {}; plain weights are F32, BF16, F16 or F64", other.name());
                return Err(at(text));
            }
        };
        match super::not_finite(&values) {
            Some(i) => {
                let index = rows.start * width + i;
                Err(at(format!("holds {} at index {index}; repair the checkpoint", values[i])))
            }
            None => Ok(values),
        }
    }

    /// SHA-256 of the whole file, in hexadecimal.
    pub fn sha256(&self) -> String {
        hex(&self.bytes)
    }

    /// Compares every tensor with the checksums [`Writer`](super::Writer) stored, on the threads of a pool: `false` when the
    /// file has none.
    ///
    /// # Errors
    /// Names the first tensor whose data changed.
    pub fn verify(&self, pool: &Pool) -> Result<bool, Error> {
        let Some(sums) = self.metadata.get(super::write::CHECKSUMS) else {
            return Ok(false);
        };
        let sums: Vec<&str> = sums.split(' ').filter(|s| !s.is_empty()).collect();
        if sums.len() != self.order.len() {
            let text = format!("metadata `{}` has {} sums", super::write::CHECKSUMS, sums.len());
            return Err(Error::input(&self.path, format!("{text} for {} tensors", self.order.len())));
        }
        let first = AtomicUsize::new(usize::MAX);
        pool.run(sums.len(), &|i| {
            let data = self.bytes(&self.order[i]).expect("one of the file");
            if hex(&data) != sums[i] {
                first.fetch_min(i, Ordering::Relaxed);
            }
            // What is needed is read again; large files need not be in memory as a whole.
            data.release();
        });
        match self.order.get(first.into_inner()) {
            None => Ok(true),
            Some(name) => {
                let text = format!("tensor `{}`: its checksum differs, so its data is damaged", show(name));
                Err(Error::input(&self.path, format!("{text}; fetch or write the file again")))
            }
        }
    }
}

/// SHA-256 in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    lowbit_base::hex(Sha256::digest(bytes))
}

/// IEEE 754 half precision to f32, exact.
fn widen_f16(bits: u16) -> f32 {
    let (sign, exponent, fraction) = ((bits as u32 & 0x8000) << 16, (bits >> 10) & 31, bits as u32 & 0x3ff);
    let magnitude = match exponent {
        0 => fraction as f32 * 2f32.powi(-24),
        31 => f32::from_bits(0x7f80_0000 | fraction << 13),
        e => f32::from_bits((e as u32 + 112) << 23 | fraction << 13),
    };
    f32::from_bits(magnitude.to_bits() | sign)
}

#[cfg(test)]
mod tests {
    use super::widen_f16;

    #[test]
    fn half_precision_is_exact() {
        let cases = [(0x3c00, 1.0), (0xc000, -2.0), (0x0001, 2f32.powi(-24)), (0x7bff, 65504.0), (0x8000, -0.0)];
        for (bits, value) in cases {
            assert_eq!(widen_f16(bits).to_bits(), f32::to_bits(value), "{bits:#x}");
        }
        assert!(widen_f16(0x7c00).is_infinite() && widen_f16(0x7e00).is_nan());
    }
}
