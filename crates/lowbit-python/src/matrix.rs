//! Weight matrices in low-bit formats.

use crate::array::{floats, floats_out};
use crate::error::{exception, request};
use lowbit::Matrix;
use lowbit::kernels::FORMATS;
use pyo3::prelude::*;

/// A weight matrix `[rows, cols]` in a low-bit format.
#[pyclass(frozen, module = "lowbit")]
pub struct Packed(Matrix);

/// Stores weights `[rows, cols]` in a format of `formats()`; with `+act=f32` its products do not round activations.
#[pyfunction]
pub fn quantize(py: Python<'_>, format: &str, weights: &Bound<'_, PyAny>) -> PyResult<Packed> {
    let weights = floats(weights, "weights", &[2])?;
    let packed = py.detach(|| lowbit::quantize(format, &weights.values, weights.rows, weights.cols));
    packed.map(Packed).map_err(|error| exception(py, &error))
}

/// Names of all formats that store a matrix.
#[pyfunction]
pub fn formats() -> Vec<&'static str> {
    FORMATS.iter().map(|format| format.name()).collect()
}

#[pymethods]
impl Packed {
    /// Name of the format.
    #[getter]
    fn format(&self) -> &'static str {
        self.0.format()
    }

    /// How products round activations: `f32` (not at all), `int8`, `int8_block`, ..
    #[getter]
    fn activations(&self) -> &'static str {
        self.0.activations().name()
    }

    /// Output and input features.
    #[getter]
    fn shape(&self) -> (usize, usize) {
        (self.0.rows(), self.0.cols())
    }

    /// Bytes of the packed weights, scales and padding included.
    #[getter]
    fn nbytes(&self) -> usize {
        self.0.bytes()
    }

    /// The weights as f32, `[rows, cols]`.
    fn dequantize<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let weights = py.detach(|| self.0.dequantize());
        floats_out(py, &weights, &[self.0.rows(), self.0.cols()])
    }

    /// `x @ W.T`: of `[cols]` `[rows]`, of `[tokens, cols]` `[tokens, rows]`.
    fn matmul<'py>(&self, py: Python<'py>, x: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let x = floats(x, "x", &[1, 2])?;
        let (rows, cols) = self.shape();
        if x.cols != cols {
            let found = if x.is_row { format!("[{}]", x.cols) } else { format!("[{}, {}]", x.rows, x.cols) };
            let text = format!("x is {found}, and the matrix is [{rows}, {cols}]: give [tokens, {cols}]");
            return Err(request(py, text));
        }
        let y = py.detach(|| self.0.matmul(&x.values)).map_err(|error| exception(py, &error))?;
        let shape = [x.rows, rows];
        floats_out(py, &y, if x.is_row { &shape[1..] } else { &shape })
    }

    fn __repr__(&self) -> String {
        let (rows, cols) = self.shape();
        let bits = 8.0 * self.0.bytes() as f64 / (rows * cols).max(1) as f64;
        format!("Packed({}, [{rows}, {cols}], {} bytes, {bits:.2} bits per weight)", self.0.format(), self.0.bytes())
    }
}
