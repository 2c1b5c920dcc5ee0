//! One weight matrix in a low-bit format.

use super::{Error, cpu};
use lowbit_kernels::{Cpu, Packed, QuantizeOptions, format};
use lowbit_model::cpu::ProductInputs;
use lowbit_model::recipe::{ActivationPrecision, ProductFormat};

/// A weight matrix `[rows, cols]` in a low-bit format, how its products round activations, and the CPU they run on.
#[derive(Clone, Debug)]
pub struct Matrix {
    packed: Packed,
    activations: ActivationPrecision,
    cpu: Cpu,
}

/// Stores weights `[rows, cols]`, row-major, in a format: `nf4`, `int4`, `ternary`, .. ([`FORMATS`](crate::kernels::FORMATS)).
///
/// Products round activations as networks stored in the format do: to 8 bits per token or block for formats of integers, which is
/// what makes them fast. `FORMAT+act=ACTIVATIONS` has them rounded otherwise: `f32` (not at all), `int8` (a scale per token),
/// `int8_block`, `int8_block64`, `int8_block128` (a scale per 32, 64, 128 inputs).
///
/// ```
/// let w = lowbit::quantize("int8+act=f32", &[1.0, 0.5, -2.0, 0.0, 1.0, 4.0], 2, 3)?;
/// let y = w.matmul(&[1.0, 1.0, 1.0])?;
/// assert!((y[0] - -0.5).abs() < 0.1 && (y[1] - 5.0).abs() < 0.1);
/// # Ok::<(), lowbit::Error>(())
/// ```
///
/// # Errors
/// [`Error::UnknownName`] with the nearest format, [`Error::Request`] when there are not `rows * cols` weights,
/// [`Error::NotFinite`] naming row and column, [`Error::Input`] when the format cannot hold a weight.
pub fn quantize(format: &str, weights: &[f32], rows: usize, cols: usize) -> Result<Matrix, Error> {
    format::find(format.split('+').next().unwrap_or_default())?;
    let ProductFormat { format, activations } = ProductFormat::parse(format)?;
    if rows.checked_mul(cols) != Some(weights.len()) || cols == 0 {
        let text = format!("a matrix [{rows}, {cols}] cannot be made of {} weights", weights.len());
        return Err(Error::Request(format!(
            "{text}; give rows * cols of them, row after row, and at least one column"
        )));
    }
    let packed = format.quantize(weights, rows, cols, &QuantizeOptions::default())?;
    Ok(Matrix { packed, activations, cpu: cpu()? })
}

impl Matrix {
    /// The same, whose products run on a CPU of the caller's choice.
    pub fn on(self, cpu: Cpu) -> Self {
        Matrix { cpu, ..self }
    }

    /// `y[t, r] = sum_c x[t, c] * W[r, c]` of activations `x`, `[tokens, cols]`; `y` is `[tokens, rows]`.
    ///
    /// # Errors
    /// [`Error::Request`] when `x` is no whole number of tokens.
    pub fn matmul(&self, x: &[f32]) -> Result<Vec<f32>, Error> {
        let (rows, cols) = (self.rows(), self.cols());
        if !x.len().is_multiple_of(cols) {
            let text = format!("{} activations are no whole number of tokens of {cols}", x.len());
            return Err(Error::Request(format!("{text}, the columns of the matrix; give [tokens, {cols}]")));
        }
        let mut y = vec![0.0; x.len() / cols * rows]; // [tokens, rows]
        ProductInputs::default().matmul(&self.cpu, x, (&self.packed, self.activations), &mut y);
        Ok(y)
    }

    /// Output features.
    pub fn rows(&self) -> usize {
        self.packed.rows()
    }

    /// Input features.
    pub fn cols(&self) -> usize {
        self.packed.cols()
    }

    /// Name of the format.
    pub fn format(&self) -> &'static str {
        self.packed.format().name()
    }

    /// How its products round activations.
    pub fn activations(&self) -> ActivationPrecision {
        self.activations
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        self.packed.bytes()
    }

    /// The weights as f32, `[rows, cols]`.
    pub fn dequantize(&self) -> Vec<f32> {
        self.packed.dequantize()
    }

    /// The matrix as the kernels have it.
    pub fn packed(&self) -> &Packed {
        &self.packed
    }
}
