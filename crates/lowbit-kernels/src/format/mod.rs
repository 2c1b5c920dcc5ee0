//! Formats: how one matrix of weights is stored, and the kernels that multiply with it.
//!
//! A weight matrix is `[rows, cols]` = `[output features, input features]`, and a product is `y = x * W^T`. Every format
//! stores panels of 16 rows; inside a panel, one 64-byte unit holds the same few columns of all 16 rows, so that one unit
//! times broadcast activations yields 16 outputs in the lanes of one vector: no horizontal sums, one stream of memory, the
//! same bytes for one token and for many. Rows are padded to whole panels, columns to whole units
//! (base 3 has blocks of five panels: see there).

use crate::simd::LANES;
use crate::{Bytes, Cpu, Error, Rows};
use std::fmt::Debug;
use std::ops::Range;

mod base3;
mod codec;
mod few;
mod float;
mod integer;
mod llm_int8;
mod nf4;
mod round;
mod scan;
mod stack;
mod tiles;
mod widened;

use base3::Base3;
use codec::{Byte, Crumbs, Nibbles};
use integer::{Integer, Share};
use round::Rule;

pub use round::Magnitude;

/// How far ahead of its loads a product of one token asks for lines, in bytes.
const AHEAD: usize = 8192;

/// One stored part of a packed matrix, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// `codes`, `scales`, ...; the name of the tensor on disk is `<parameter>.<part>`.
    pub name: &'static str,
    /// Size in bytes.
    pub bytes: usize,
}

/// What a quantizer may know beyond the weights.
#[derive(Clone, Debug, Default)]
pub struct QuantizeOptions {
    /// Input features whose activations hold outliers (`llm_int8` keeps their weights in 16 bit).
    pub outlier_columns: Vec<u32>,
    /// Of all weights of a matrix, where rows of it are quantized by themselves in a format that
    /// [shares](Format::shares_scale) a scale.
    pub whole: Option<Magnitude>,
}

impl QuantizeOptions {
    /// That of the whole matrix, which these weights are unless more is known.
    fn magnitude(&self, weights: &[f32]) -> Magnitude {
        self.whole.unwrap_or_else(|| Magnitude::of(weights))
    }
}

/// A weight matrix `[rows, cols]` in some format.
#[derive(Clone, Debug)]
pub struct Packed {
    /// How the parts are to be read.
    pub format: &'static dyn Format,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// Bytes of each part, in the order of [`Format::parts`].
    pub parts: Vec<Bytes>,
}

impl Packed {
    /// A matrix from stored parts.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a part has the wrong size or holds codes outside the format.
    pub fn from_parts(format: &'static dyn Format, rows: usize, cols: usize, parts: Vec<Bytes>) -> Result<Self, Error> {
        let expected = format.parts(rows, cols, &parts);
        if expected.len() != parts.len() {
            return Err(Error::Corrupt(format!(
                "{} has {} parts, found {}",
                format.name(),
                expected.len(),
                parts.len()
            )));
        }
        for (want, have) in expected.iter().zip(&parts) {
            if want.bytes != have.len() {
                let (name, shape) = (format.name(), format!("[{rows}, {cols}]"));
                let text = format!(
                    "part `{}` of a {name} matrix {shape} has {} bytes, not {}",
                    want.name,
                    have.len(),
                    want.bytes
                );
                return Err(Error::Corrupt(text));
            }
        }
        let packed = Packed { format, rows, cols, parts };
        format.validate(&packed)?;
        Ok(packed)
    }

    /// `y[t, r] = sum_c x[t, c] * W[r, c]`, `y` being `[tokens, rows]`.
    ///
    /// # Panics
    /// When `x` or `y` do not fit the shape.
    pub fn matmul(&self, cpu: &Cpu, x: Rows, y: &mut [f32]) {
        let tokens = match x {
            Rows::F32(x) | Rows::Both(x, _) => x.len() / self.cols.max(1),
            Rows::Int8(x) => x.tokens,
            Rows::Bf16(x) => x.x.tokens(),
        };
        assert_eq!(y.len(), tokens * self.rows, "output is [tokens, rows]");
        if let Rows::F32(x) = x {
            assert_eq!(x.len(), tokens * self.cols, "activations are [tokens, cols]");
        }
        if tokens > 0 && self.rows > 0 {
            self.format.matmul(cpu, self, x, y);
        }
    }

    /// The product of one token `x`, `[cols]`, of whose outputs `y`, `[rows]`, only the `k` largest are wanted: they and
    /// all that equal the last of them are as [`Packed::matmul`] of [`Rows::F32`] makes them, others too, or minus infinity.
    /// Returns how many bytes of weights were read.
    ///
    /// # Panics
    /// When `x` or `y` do not fit the shape.
    pub fn largest(&self, cpu: &Cpu, x: &[f32], k: usize, y: &mut [f32]) -> u64 {
        assert_eq!((x.len(), y.len()), (self.cols, self.rows), "one token, all outputs");
        let found = if self.rows > 0 { self.format.largest(cpu, self, x, k, y) } else { None };
        found.unwrap_or_else(|| {
            self.matmul(cpu, Rows::F32(x), y);
            self.product_bytes() as u64
        })
    }

    /// Bytes that a product reads.
    pub fn product_bytes(&self) -> usize {
        self.format.product_bytes(self)
    }

    /// All weights as f32, `[rows, cols]`.
    pub fn dequantize(&self) -> Vec<f32> {
        self.dequantize_rows(0..self.rows)
    }

    /// The weights of some rows as f32, `[rows, cols]`.
    ///
    /// # Panics
    /// When there are fewer rows.
    pub fn dequantize_rows(&self, rows: Range<usize>) -> Vec<f32> {
        let mut out = vec![0.0; rows.len() * self.cols];
        for (row, out) in rows.zip(out.chunks_exact_mut(self.cols.max(1))) {
            self.format.dequantize_row(self, row, out);
        }
        out
    }

    /// Bytes of all parts.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|p| p.len()).sum()
    }
}

/// How one matrix is stored. [`Format::dequantize_row`] is the definition; kernels are tested against it.
pub trait Format: Debug + Send + Sync {
    /// The name in recipes, records and on disk.
    fn name(&self) -> &'static str;
    /// Name and size of each stored part for a shape; `found` are the parts at hand where a size is not fixed by the
    /// shape (the outlier columns of `llm_int8`), empty when none are.
    fn parts(&self, rows: usize, cols: usize, found: &[Bytes]) -> Vec<Part>;
    /// Stores `weights`, `[rows, cols]`.
    ///
    /// # Errors
    /// [`Error::NonFinite`] when a weight is NaN or infinite.
    fn quantize(&self, weights: &[f32], rows: usize, cols: usize, options: &QuantizeOptions) -> Result<Packed, Error>;
    /// Stores weights known to be -scale, 0 and scale, given as `codes` 0, 1 and 2, `[rows, cols]`, without rounding; `None`
    /// where the format is not ternary.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a code is 3 or the scale is NaN or infinite.
    ///
    /// # Panics
    /// When the codes do not fit the shape.
    fn pack_ternary(&self, _codes: &[u8], _scale: f32, _rows: usize, _cols: usize) -> Option<Result<Packed, Error>> {
        None
    }
    /// Whether all rows share a scale, so that [`QuantizeOptions::whole`] is needed to quantize some of them.
    fn shares_scale(&self) -> bool {
        false
    }
    /// Rows that are stored together: ranges that are to be stacked begin at a multiple of it.
    fn block(&self) -> usize {
        LANES
    }
    /// Whether parts tell the same weights twice, so that no part may be replaced alone.
    fn is_redundant(&self) -> bool {
        false
    }
    /// Bytes that a product of all outputs reads.
    fn product_bytes(&self, packed: &Packed) -> usize {
        packed.bytes()
    }
    /// [`Packed::largest`], where there is a faster way than the product of all outputs.
    fn largest(&self, _cpu: &Cpu, _packed: &Packed, _x: &[f32], _k: usize, _y: &mut [f32]) -> Option<u64> {
        None
    }
    /// Writes one row as f32, `[cols]`.
    fn dequantize_row(&self, packed: &Packed, row: usize, out: &mut [f32]);
    /// The product of [`Packed::matmul`], whose checks have been made.
    fn matmul(&self, cpu: &Cpu, packed: &Packed, x: Rows, y: &mut [f32]);
    /// Whether a product of so many tokens rounds f32 activations to bf16; callers may then give [`Rows::Bf16`], once for
    /// several products.
    fn takes_bf16(&self, _cpu: &Cpu, _tokens: usize) -> bool {
        false
    }
    /// Whether a product of f32 activations begins by quantizing all of them to 8 bits; callers may then give
    /// [`Rows::Both`], quantized once for several products.
    fn takes_int8(&self, _packed: &Packed) -> bool {
        false
    }
    /// Refuses codes and scales the format does not have.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming part and index.
    fn validate(&self, packed: &Packed) -> Result<(), Error>;
}

/// Every format.
pub static FORMATS: &[&dyn Format] = &[
    &float::F32,
    &float::BF16,
    &scan::Bf16Scan,
    &Integer { name: "int8", codec: Byte, zero: 128, share: Share::Tensor, rule: Rule::Absmax },
    &Integer { name: "int8_channel", codec: Byte, zero: 128, share: Share::Row, rule: Rule::Absmax },
    &llm_int8::LlmInt8,
    &nf4::Nf4 { double: false },
    &nf4::Nf4 { double: true },
    &Integer { name: "int4", codec: Nibbles, zero: 0, share: Share::Group, rule: Rule::MinMax { max: 15 } },
    &Integer { name: "int2", codec: Crumbs::<false>, zero: 0, share: Share::Group, rule: Rule::MinMax { max: 3 } },
    &Integer { name: "ternary", codec: Crumbs::<true>, zero: 1, share: Share::Tensor, rule: Rule::Absmean },
    &Integer { name: "ternary_channel", codec: Crumbs::<true>, zero: 1, share: Share::Row, rule: Rule::Absmean },
    &Base3 { name: "ternary_b3", share: Share::Tensor },
    &Base3 { name: "ternary_b3_channel", share: Share::Row },
];

/// Bytes that a task of a product of one token reads at least: they outweigh handing it out.
const TASK: usize = 1 << 15;
/// Tasks of such a product at most, roughly. With many, no thread waits long for the last task of another.
const TASKS: usize = 256;

/// How many of `count` blocks of `bytes` bytes a task of a product of one token reads.
fn stream_grain(bytes: usize, count: usize) -> usize {
    (TASK / bytes.max(1) + 1).max(count.div_ceil(TASKS))
}

/// Refuses NaN and infinity, naming the first.
fn check_finite(weights: &[f32], cols: usize) -> Result<(), Error> {
    match first(weights, |w| !w.is_finite()) {
        Some(at) => Err(Error::NonFinite { row: at / cols, col: at % cols }),
        None => Ok(()),
    }
}

/// The first element that is bad. Good ones are passed many at a time.
fn first<T: Copy>(all: &[T], bad: impl Fn(T) -> bool) -> Option<usize> {
    const MANY: usize = 1024;
    let chunk = all.chunks(MANY).position(|chunk| chunk.iter().fold(false, |any, v| any | bad(*v)))?;
    all[chunk * MANY..].iter().position(|v| bad(*v)).map(|at| chunk * MANY + at)
}

/// Refuses scales that are NaN or infinite, naming the first.
fn check_scales(format: &str, mut scales: impl Iterator<Item = f32>) -> Result<(), Error> {
    match scales.position(|s| !s.is_finite()) {
        Some(at) => Err(Error::Corrupt(format!("{format}: scale {at} is not a finite number"))),
        None => Ok(()),
    }
}

/// Little-endian f32 values.
fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes")))
}

/// The format of a name.
///
/// # Errors
/// [`Error::UnknownFormat`].
pub fn find(name: &str) -> Result<&'static dyn Format, Error> {
    let found = FORMATS.iter().find(|f| f.name() == name);
    found.copied().ok_or_else(|| Error::UnknownFormat(name.into()))
}
