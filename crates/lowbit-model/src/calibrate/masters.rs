//! Full-precision parameters as they are quantized: those of a checkpoint, with scales of their rows and columns folded in.

use crate::checkpoint::Checkpoint;
use crate::reader::ReadRows;
use crate::source::ParamSpec;
use crate::{Error, rotation};
use lowbit_kernels::{Format, Isa, Packed, Pool, QuantizeOptions};
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

/// The values of a matrix, some rows at a time where a file has them apart.
pub(super) enum Rows<'a> {
    /// All of them, `[rows, cols]`.
    Whole(Cow<'a, [f32]>, usize),
    /// Read when they are asked for; the second gives up the memory of a mapped file.
    Apart(ReadRows<'a>, Box<dyn Fn() + Sync + 'a>),
}

impl Rows<'_> {
    /// Some rows, `[rows, cols]`.
    ///
    /// # Errors
    /// As [`Checkpoint::master`].
    pub fn get(&self, rows: Range<usize>) -> Result<Cow<'_, [f32]>, Error> {
        match self {
            Rows::Whole(values, cols) => Ok(Cow::Borrowed(&values[rows.start * cols..rows.end * cols])),
            Rows::Apart(read, _) => read(rows).map(Cow::Owned),
        }
    }

    /// Gives up the memory of a mapped file, until rows are read again.
    pub fn release(&self) {
        if let Rows::Apart(_, release) = self {
            release();
        }
    }
}

/// The values of a parameter of a checkpoint, `[rows, cols]`, with factors folded in.
pub(super) fn read(
    checkpoint: &Checkpoint,
    folds: &BTreeMap<String, Fold>,
    spec: &ParamSpec,
) -> Result<Vec<f32>, Error> {
    let mut values = checkpoint.master(spec)?;
    if let Some(fold) = folds.get(&spec.name) {
        fold.apply(&mut values, spec.cols, 0);
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

    /// The rows of a matrix, each rotated on an instruction set if one is given.
    ///
    /// # Errors
    /// As [`Checkpoint::master`].
    pub fn rows<'a>(&'a self, spec: &'a ParamSpec, rotate: Option<Isa>) -> Result<Rows<'a>, Error> {
        let turn = move |values: &mut Vec<f32>| {
            if let Some(isa) = rotate {
                rotation::hadamard(isa, values, spec.cols);
            }
        };
        let Some((read, release)) = self.checkpoint.master_rows(spec)? else {
            let mut values = self.read(spec)?;
            turn(&mut values);
            return Ok(Rows::Whole(values.into(), spec.cols));
        };
        let fold = self.folds.get(&spec.name);
        let read = move |rows: Range<usize>| {
            let first = rows.start;
            let mut values = read(rows)?;
            fold.iter().for_each(|fold| fold.apply(&mut values, spec.cols, first));
            turn(&mut values);
            Ok(values)
        };
        Ok(Rows::Apart(Box::new(read), release))
    }

    /// Values of a matrix, rounded to nearest in a format.
    ///
    /// # Errors
    /// As [`Format::quantize`], naming the tensor.
    pub fn pack(
        &self,
        spec: &ParamSpec,
        values: &Rows,
        format: &'static dyn Format,
        options: &QuantizeOptions,
        pool: &Pool,
    ) -> Result<Packed, Error> {
        let fault = |e| self.checkpoint.fault(spec, &e);
        Packed::quantize(format, [spec.rows, spec.cols], options, pool, |rows| values.get(rows), fault)
    }
}

impl Fold {
    /// Multiplies values of rows from `first` on, `[rows, cols]`.
    pub fn apply(&self, values: &mut [f32], cols: usize, first: usize) {
        for (row, values) in values.chunks_exact_mut(cols).enumerate() {
            let of_row = self.rows.get(first + row).copied().unwrap_or(1.0);
            for (col, value) in values.iter_mut().enumerate() {
                *value *= of_row * self.cols.get(col).copied().unwrap_or(1.0);
            }
        }
    }
}
