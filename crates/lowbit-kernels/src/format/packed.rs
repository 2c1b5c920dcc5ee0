//! One weight matrix in some format.

use super::{Format, Magnitude};
use crate::{Activations, Bytes, Cpu, Error};
use std::ops::Range;

/// Facts for a quantizer that the weights alone do not hold: outlier columns, and the magnitude of the whole matrix.
#[derive(Clone, Debug, Default)]
pub struct QuantizeOptions {
    /// Input features whose activations hold outliers (`llm_int8` keeps their weights in 16 bit).
    pub outlier_columns: Vec<u32>,
    /// Magnitude of the whole matrix, for quantizing some of its rows in a format with one scale per tensor
    /// ([`Spec::shares_scale`](super::Spec::shares_scale)).
    pub whole: Option<Magnitude>,
    /// How much the squared error of each column counts in formats that search for their scales
    /// ([`Grouped`](super::Grouped)), `[cols]`: the mean square of each input of the product, say.
    pub importance: Option<Vec<f32>>,
}

impl QuantizeOptions {
    /// Magnitude of the whole matrix; that of `weights` where none is given.
    pub(super) fn magnitude(&self, weights: &[f32]) -> Magnitude {
        self.whole.unwrap_or_else(|| Magnitude::of(weights))
    }

    /// [`QuantizeOptions::importance`] of a matrix of so many columns.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when there is not one for each column, or one is negative or not finite.
    pub(super) fn importance(&self, cols: usize) -> Result<Option<&[f32]>, Error> {
        let Some(all) = &self.importance else { return Ok(None) };
        if all.len() != cols {
            return Err(Error::Corrupt(format!("importance of {} columns for a matrix of {cols}", all.len())));
        }
        match super::first(all, |a| !(a.is_finite() && a >= 0.0)) {
            Some(at) => {
                Err(Error::Corrupt(format!("importance of column {at} is {}, not a finite number >= 0", all[at])))
            }
            None => Ok(Some(all)),
        }
    }
}

/// A weight matrix `[rows, cols]` in some format.
#[derive(Clone, Debug)]
pub struct Packed {
    pub(super) format: &'static dyn Format,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) parts: Vec<Bytes>,
}

impl Packed {
    /// How the parts are to be read.
    pub fn format(&self) -> &'static dyn Format {
        self.format
    }

    /// Output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes of each part, in the order of [`Format::parts`].
    pub fn parts(&self) -> &[Bytes] {
        &self.parts
    }

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
    pub fn matmul(&self, cpu: &Cpu, x: Activations, y: &mut [f32]) {
        let tokens = x.tokens(self.cols).expect("activations are [tokens, cols]");
        assert_eq!(Some(y.len()), tokens.checked_mul(self.rows), "output is [tokens, rows]");
        match self.cols {
            0 => y.fill(0.0),
            _ if y.is_empty() => {}
            _ => self.format.matmul(cpu, self, x, y),
        }
    }

    /// Top-k GEMV: the product of one token `x`, `[cols]`, whose `k` largest outputs (and outputs equal to the `k`-th) in `y`,
    /// `[rows]`, are exactly those of [`Packed::matmul`] with [`Activations::F32`]; every other output is exact or minus infinity.
    /// Returns the bytes of weights that were read.
    ///
    /// # Panics
    /// When `x` or `y` do not fit the shape.
    pub fn largest(&self, cpu: &Cpu, x: &[f32], k: usize, y: &mut [f32]) -> u64 {
        assert_eq!((x.len(), y.len()), (self.cols, self.rows), "one token, all outputs");
        let found = if self.rows > 0 { self.format.largest(cpu, self, x, k, y) } else { None };
        found.unwrap_or_else(|| {
            self.matmul(cpu, Activations::F32(x), y);
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
        let mut out = vec![0.0; rows.len().checked_mul(self.cols).expect("rows that exist fit into memory")];
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
