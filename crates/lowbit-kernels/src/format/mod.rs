//! Formats: how one matrix of weights is stored, and the kernels that multiply with it.
//!
//! A weight matrix is `[rows, cols]` = `[output features, input features]`, and a product is `y = x * W^T`. Every format
//! stores panels of 16 rows; inside a panel, one 64-byte unit holds the same few columns of all 16 rows, so that one unit
//! times broadcast activations yields 16 outputs in the lanes of one vector: no horizontal sums, one stream of memory, the
//! same bytes for one token and for many. Rows are padded to whole panels, columns to whole units
//! (base 3 has blocks of five panels: see there).

use crate::{Activations, Bytes, Cpu, Error};
use std::fmt::Debug;

mod base3;
mod codec;
mod factors;
mod float;
mod gemv;
mod grouped;
mod int4;
mod int8;
mod integer;
mod llm_int8;
mod nf4;
mod packed;
mod quantizer;
mod registers;
mod registers_f32;
mod row_ranges;
mod scan;
mod sparse;
mod spec;
mod ternary;
mod ternary_g128;
mod tiles;
mod view;
pub mod ways;

pub use grouped::{Grouped, SpanScales};
pub use packed::{Packed, QuantizeOptions};
pub use quantizer::Magnitude;
pub(crate) use quantizer::{SMALLEST, power_of_two};
pub use spec::{ActivationType, Holds, Scales, Spec, StoredPart};
use ways::Way;

/// Every format.
pub static FORMATS: &[&dyn Format] = &[
    &float::F32,
    &float::BF16,
    &scan::Bf16Scan,
    &int8::INT8,
    &int8::INT8_CHANNEL,
    &sparse::INT8_2OF4,
    &llm_int8::LlmInt8,
    &nf4::NF4,
    &nf4::NF4_DQ,
    &int4::INT4,
    &int4::INT2,
    &grouped::Q4_0,
    &grouped::Q4_1,
    &grouped::Q5_0,
    &grouped::Q5_1,
    &grouped::Q8_0,
    &grouped::Q2_K,
    &grouped::Q3_K,
    &grouped::Q4_K,
    &grouped::Q5_K,
    &grouped::Q6_K,
    &grouped::INT2_G64,
    &grouped::INT2_G128,
    &grouped::INT3_G32,
    &grouped::INT3_G64,
    &grouped::INT3_G128,
    &grouped::INT4_G32,
    &grouped::INT4_G64,
    &grouped::INT4_G128,
    &ternary::TERNARY,
    &ternary::TERNARY_CHANNEL,
    &ternary_g128::TERNARY_G128,
    &base3::TERNARY_B3,
    &base3::TERNARY_B3_CHANNEL,
];

/// A product of sizes; `usize::MAX`, which no buffer is long, where it is larger.
fn size(factors: &[usize]) -> usize {
    factors.iter().fold(1, |product: usize, factor| product.saturating_mul(*factor))
}

/// How far ahead of its loads a product of one token asks for lines, in bytes.
const AHEAD: usize = 8192;

/// How one matrix is stored. [`Format::dequantize_row`] is the definition; kernels are tested against it.
pub trait Format: Debug + Send + Sync {
    /// Its properties.
    fn spec(&self) -> &Spec;
    /// The name in recipes, records and on disk.
    fn name(&self) -> &'static str {
        self.spec().name
    }
    /// Name and size of each stored part for a shape; `found` are the parts at hand where a size is not fixed by the
    /// shape (the outlier columns of `llm_int8`), empty when none are.
    fn parts(&self, rows: usize, cols: usize, found: &[Bytes]) -> Vec<StoredPart>;
    /// Stores `weights`, `[rows, cols]`.
    ///
    /// # Errors
    /// [`Error::NonFinite`] when a weight is NaN or infinite, [`Error::Range`] when the format cannot hold it,
    /// [`Error::Corrupt`] when there are no columns.
    ///
    /// # Panics
    /// When the weights do not fit the shape.
    fn quantize(
        &'static self,
        weights: &[f32],
        rows: usize,
        cols: usize,
        options: &QuantizeOptions,
    ) -> Result<Packed, Error> {
        self.quantize_rows(weights, rows, cols, options).map(|packed| self.settle(packed))
    }
    /// [`Format::quantize`] of some rows of a matrix: parts that depend on the weights are there whether they are needed or
    /// not, so that those of other rows can follow.
    ///
    /// # Errors
    /// As [`Format::quantize`].
    fn quantize_rows(
        &'static self,
        weights: &[f32],
        rows: usize,
        cols: usize,
        options: &QuantizeOptions,
    ) -> Result<Packed, Error>;
    /// A matrix without the parts that it turns out not to need.
    fn settle(&self, packed: Packed) -> Packed {
        packed
    }
    /// Packs ternary weights without rounding: `codes` 0, 1 and 2, `[rows, cols]`, stand for -scale, 0 and scale. `None` where
    /// the format is not ternary.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a code is 3 or the scale is no positive number (or 0 where all weights are 0).
    ///
    /// # Panics
    /// When the codes do not fit the shape.
    fn pack_ternary(
        &'static self,
        _codes: &[u8],
        _scale: f32,
        _rows: usize,
        _cols: usize,
    ) -> Option<Result<Packed, Error>> {
        None
    }
    /// The scale that all rows of a ternary matrix have.
    fn ternary_scale(&self, _packed: &Packed) -> Option<f32> {
        None
    }
    /// The format as one of codes in groups with scale and offset; `None` where it is none.
    fn grouped(&'static self) -> Option<&'static dyn Grouped> {
        None
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
    /// The ways its products can be computed, those of 8-bit activations first; a product takes the last that can and pays.
    fn ways(&self) -> Vec<Way>;
    /// The product of [`Packed::matmul`], whose checks have been made.
    fn matmul(&self, cpu: &Cpu, packed: &Packed, x: Activations, y: &mut [f32]);
    /// Whether a product of so many tokens rounds f32 activations to bf16; callers may then give [`Activations::Bf16`], once for
    /// several products.
    fn takes_bf16(&self, _cpu: &Cpu, _tokens: usize) -> bool {
        false
    }
    /// Whether a product copies the values of [`Activations::Windows`] as it multiplies them; others gather them all first.
    fn takes_windows(&self) -> bool {
        false
    }
    /// Whether a product of f32 activations begins by quantizing all of them to 8 bits; callers may then give
    /// [`Activations::Both`], quantized once for several products.
    fn takes_int8(&self, _packed: &Packed) -> bool {
        false
    }
    /// Refuses codes and scales the format does not have.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming part and index.
    fn validate(&self, packed: &Packed) -> Result<(), Error>;
}

/// Bytes that a task of a product of one token reads at least: they outweigh handing it out.
const TASK: usize = 1 << 15;
/// Tasks of such a product at most, roughly. With many, no thread waits long for the last task of another.
const TASKS: usize = 256;

/// How many of `count` blocks of `bytes` bytes a task of a product of one token reads.
fn stream_grain(bytes: usize, count: usize) -> usize {
    (TASK / bytes.max(1) + 1).max(count.div_ceil(TASKS))
}

/// Refuses NaN and infinity, naming the first, and matrices without columns.
///
/// # Panics
/// When the weights are not `[rows, cols]`.
fn check_finite(weights: &[f32], rows: usize, cols: usize) -> Result<(), Error> {
    assert_eq!(Some(weights.len()), rows.checked_mul(cols), "weights are [rows, cols]");
    if cols == 0 {
        return Err(Error::Corrupt(format!("a matrix [{rows}, 0] has no columns")));
    }
    match first(weights, |w| !w.is_finite()) {
        Some(at) => Err(Error::NonFinite { row: at / cols, col: at % cols }),
        None => Ok(()),
    }
}

/// Refuses weights so large that a rounded scale times the largest code may be larger than the largest number, naming the first;
/// `reach` is how far codes may go beyond the weights.
fn check_scalable(weights: &[f32], cols: usize, format: &'static str, reach: f32) -> Result<(), Error> {
    match first(weights, |w| w.abs() > f32::MAX / reach) {
        Some(at) => Err(Error::Range { row: at / cols, col: at % cols, format }),
        None => Ok(()),
    }
}

/// The first element that is bad. Good ones are passed many at a time.
fn first<T: Copy>(all: &[T], bad: impl Fn(T) -> bool) -> Option<usize> {
    const MANY: usize = 1024;
    let chunk = all.chunks(MANY).position(|chunk| chunk.iter().fold(false, |any, v| any | bad(*v)))?;
    all[chunk * MANY..].iter().position(|v| bad(*v)).map(|at| chunk * MANY + at)
}

/// How far rounding alone takes codes beyond the weights, and a search for scales.
const ROUNDED: f32 = 1.02;
const SEARCHED: f32 = 4.0;

/// Refuses scales that are NaN, infinite or negative, naming the first.
fn check_scales(format: &str, what: &str, mut scales: impl Iterator<Item = f32>) -> Result<(), Error> {
    match scales.position(|scale| !(scale.is_finite() && scale >= 0.0)) {
        Some(at) => Err(Error::Corrupt(format!("{format}: {what} {at} is not a positive finite number"))),
        None => Ok(()),
    }
}

/// Refuses factors that are not positive and finite, naming the first.
fn check_factors(format: &str, what: &str, mut factors: impl Iterator<Item = f32>) -> Result<(), Error> {
    match factors.position(|factor| !(factor.is_finite() && factor > 0.0)) {
        Some(at) => Err(Error::Corrupt(format!("{format}: {what} {at} is not a positive finite number"))),
        None => Ok(()),
    }
}

/// Says that a scale of 0 makes weights vanish.
fn vain_scale(format: &str, at: usize) -> Error {
    Error::Corrupt(format!("{format}: scale {at} is 0, but its codes are not"))
}

/// The scale that all of some f32 scales are.
fn one_scale(scales: &[u8]) -> Option<f32> {
    let (first, rest) = scales.as_chunks::<4>().0.split_first()?;
    rest.iter().all(|other| other == first).then(|| f32::from_le_bytes(*first))
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
