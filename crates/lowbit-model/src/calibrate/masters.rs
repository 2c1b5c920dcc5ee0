//! Full-precision parameters as they are quantized: those of a checkpoint, with scales of their rows and columns folded in.

use crate::Error;
use crate::checkpoint::Checkpoint;
use crate::source::ParamSpec;
use lowbit_kernels::{Format, Packed, Pool, QuantizeOptions};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

/// Factors of the rows and of the columns of one parameter.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Fold {
    /// `[rows]`; empty for none.
    pub rows: Vec<f32>,
    /// `[cols]`; empty for none.
    pub cols: Vec<f32>,
}

/// Where full-precision parameters come from.
pub(super) struct Masters<'a> {
    pub checkpoint: &'a Checkpoint,
    pub folds: BTreeMap<String, Fold>,
}

/// The values of a parameter of a checkpoint, `[rows, cols]`, with factors folded in.
pub(super) fn read(
    checkpoint: &Checkpoint,
    folds: &BTreeMap<String, Fold>,
    spec: &ParamSpec,
) -> Result<Vec<f32>, Error> {
    let mut values = checkpoint.master(spec)?;
    if let Some(fold) = folds.get(&spec.name) {
        fold.apply(&mut values, spec.cols);
    }
    Ok(values)
}

impl Masters<'_> {
    /// The values of a parameter, `[rows, cols]`.
    ///
    /// # Errors
    /// As [`Checkpoint::master`].
    pub fn read(&self, spec: &ParamSpec) -> Result<Vec<f32>, Error> {
        read(self.checkpoint, &self.folds, spec)
    }

    /// Values of a matrix, rounded to nearest in a format.
    ///
    /// # Errors
    /// As [`Format::quantize`], naming the tensor.
    pub fn pack(
        &self,
        spec: &ParamSpec,
        values: &[f32],
        format: &'static dyn Format,
        options: &QuantizeOptions,
        pool: &Pool,
    ) -> Result<Packed, Error> {
        let read = |rows: Range<usize>| Ok(Cow::Borrowed(&values[rows.start * spec.cols..rows.end * spec.cols]));
        let fault = |e| self.checkpoint.fault(spec, &e);
        Packed::quantize(format, [spec.rows, spec.cols], options, pool, read, fault)
    }
}

impl Fold {
    /// Multiplies values, `[rows, cols]`.
    pub fn apply(&self, values: &mut [f32], cols: usize) {
        for (row, values) in values.chunks_exact_mut(cols).enumerate() {
            let of_row = self.rows.get(row).copied().unwrap_or(1.0);
            for (col, value) in values.iter_mut().enumerate() {
                *value *= of_row * self.cols.get(col).copied().unwrap_or(1.0);
            }
        }
    }
}
