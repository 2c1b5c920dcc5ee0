//! Arrays in and out: whatever NumPy reads, DLPack tensors included.

use lowbit::Targets;
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::PyByteArray;

/// Where arguments become arrays, and bytes results.
const ARRAYS: &str = "lowbit._arrays";

/// Numbers of one row `[cols]`, or of rows `[rows, cols]`, copied.
pub struct Floats {
    /// Row after row.
    pub values: Vec<f32>,
    /// 1 for one row.
    pub rows: usize,
    /// Numbers of a row.
    pub cols: usize,
    /// Whether it is one row, without a dimension for rows.
    pub is_row: bool,
}

impl Floats {
    fn of(array: &Bound<'_, PyAny>) -> PyResult<Self> {
        let buffer = PyBuffer::<f32>::get(array)?;
        let values = buffer.to_vec(array.py())?;
        let (rows, cols, is_row) = match *buffer.shape() {
            [cols] => (1, cols, true),
            [rows, cols] => (rows, cols, false),
            _ => unreachable!("Python has looked at the dimensions"),
        };
        Ok(Floats { values, rows, cols, is_row })
    }

    /// Row after row, as examples of a model.
    pub fn each(&self) -> impl Iterator<Item = &[f32]> {
        (0..self.rows).map(|row| &self.values[row * self.cols..][..self.cols])
    }
}

/// An argument as f32, of one of some numbers of dimensions.
///
/// # Errors
/// A request that names the argument.
pub fn floats(value: &Bound<'_, PyAny>, name: &str, dims: &[usize]) -> PyResult<Floats> {
    Floats::of(&value.py().import(ARRAYS)?.call_method1("floats", (value, name, dims.to_vec()))?)
}

/// Examples for a model.
pub enum Examples {
    /// Texts.
    Texts(Vec<String>),
    /// Rows of numbers.
    Rows(Floats),
}

/// An argument as texts or rows of numbers: one of them, or many.
///
/// # Errors
/// A request that says what can be given.
pub fn examples(value: &Bound<'_, PyAny>) -> PyResult<Examples> {
    let (texts, rows): (Option<Vec<String>>, Bound<'_, PyAny>) =
        value.py().import(ARRAYS)?.call_method1("examples", (value,))?.extract()?;
    match texts {
        Some(texts) => Ok(Examples::Texts(texts)),
        None => Ok(Examples::Rows(Floats::of(&rows)?)),
    }
}

/// What is right for examples: classes, by number or by name, or values.
///
/// # Errors
/// A request that says what can be given.
pub fn targets(value: &Bound<'_, PyAny>, names: &[String], are_values: bool) -> PyResult<Targets> {
    let arguments = (value, names.to_vec(), are_values);
    let (classes, values): (Option<Vec<usize>>, Option<Vec<f64>>) =
        value.py().import(ARRAYS)?.call_method1("targets", arguments)?.extract()?;
    Ok(classes.map(Targets::Classes).or(values.map(Targets::Values)).unwrap_or(Targets::Values(Vec::new())))
}

/// Values as a NumPy array of a type and shape.
pub fn array<'py, const N: usize>(
    py: Python<'py>,
    values: impl ExactSizeIterator<Item = [u8; N]>,
    dtype: &str,
    shape: &[usize],
) -> PyResult<Bound<'py, PyAny>> {
    let bytes = PyByteArray::new_with(py, N * values.len(), |bytes| {
        bytes.as_chunks_mut::<N>().0.iter_mut().zip(values).for_each(|(bytes, value)| *bytes = value);
        Ok(())
    })?;
    py.import(ARRAYS)?.call_method1("array", (bytes, dtype, shape.to_vec()))
}

/// f32 values as a NumPy array.
pub fn floats_out<'py>(py: Python<'py>, values: &[f32], shape: &[usize]) -> PyResult<Bound<'py, PyAny>> {
    array(py, values.iter().map(|value| value.to_ne_bytes()), "float32", shape)
}

/// f64 values as a NumPy array.
pub fn doubles_out<'py>(py: Python<'py>, values: &[f64], shape: &[usize]) -> PyResult<Bound<'py, PyAny>> {
    array(py, values.iter().map(|value| value.to_ne_bytes()), "float64", shape)
}
