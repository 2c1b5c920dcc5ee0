//! What tests of products share: matrices, and activations of every kind.
#![allow(dead_code)] // each binary takes a part of it

use lowbit_kernels::{Activations, BLOCK_SIZES, Cpu, Format, Int8Activations, Packed, QuantizeOptions};

/// Kinds of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    F32,
    /// int8 with a scale per token, or per block of so many columns.
    Int8(Option<usize>),
}

/// Every kind.
pub fn kinds() -> impl Iterator<Item = Kind> {
    let blocks = BLOCK_SIZES.into_iter().map(|block| Kind::Int8(Some(block)));
    [Kind::F32, Kind::Int8(None)].into_iter().chain(blocks)
}

/// Activations of a kind.
pub struct Given<'a> {
    x: &'a [f32],
    int8: Option<Int8Activations>,
}

impl Kind {
    /// Activations `x`, `[tokens, cols]`, as this kind.
    pub fn of<'a>(self, cpu: &Cpu, x: &'a [f32], cols: usize) -> Given<'a> {
        let int8 = match self {
            Kind::F32 => None,
            Kind::Int8(block) => Some(int8(cpu, x, cols, block)),
        };
        Given { x, int8 }
    }
}

/// Activations with a scale per token, or per block of so many columns.
pub fn int8(cpu: &Cpu, x: &[f32], cols: usize, block: Option<usize>) -> Int8Activations {
    let mut q = Int8Activations::default();
    match block {
        None => q.quantize(cpu, x, cols),
        Some(block) => q.quantize_blocks(cpu, x, cols, block),
    }
    q
}

impl Given<'_> {
    /// What a product takes.
    pub fn activations(&self) -> Activations<'_> {
        self.int8.as_ref().map_or(Activations::F32(self.x), Activations::Int8)
    }

    /// The outputs of a product, `[tokens, rows]`.
    pub fn times(&self, cpu: &Cpu, p: &Packed) -> Vec<f32> {
        let mut y = vec![f32::NAN; self.x.len() / p.cols() * p.rows()];
        p.matmul(cpu, self.activations(), &mut y);
        y
    }
}

/// Reproducible values, roughly normal, by the sum of four uniform ones.
pub fn values(n: usize, mut seed: u64) -> Vec<f32> {
    let mut uniform = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..n).map(|_| uniform() + uniform() + uniform() + uniform()).collect()
}

/// A matrix in a format, with outliers where it knows such.
pub fn packed(format: &'static dyn Format, rows: usize, cols: usize) -> Packed {
    let options =
        QuantizeOptions { outlier_columns: if cols > 64 { vec![5, 64] } else { vec![] }, ..Default::default() };
    format.quantize(&values(rows * cols, 7), rows, cols, &options).expect("finite weights")
}

/// `x * W^T` in f64, and `max|x| * sum|w|`, which bounds the rounding error, of each output.
pub fn oracle(w: &[f32], cols: usize, x: &[f32]) -> Vec<(f64, f64)> {
    let mut out = Vec::new();
    for x in x.chunks_exact(cols) {
        let top = x.iter().fold(0.0f32, |m, v| m.max(v.abs())) as f64;
        for w in w.chunks_exact(cols) {
            let sum = w.iter().zip(x).map(|(a, b)| *a as f64 * *b as f64).sum();
            out.push((sum, top * w.iter().map(|v| v.abs() as f64).sum::<f64>()));
        }
    }
    out
}

/// Largest error of an output, as a fraction of its bound, and where.
pub fn error(y: &[f32], oracle: &[(f64, f64)]) -> (f64, usize) {
    let errors = y.iter().zip(oracle).map(|(y, (want, size))| (*y as f64 - want).abs() / (size + 1e-6));
    errors.enumerate().fold((0.0, 0), |worst, (at, error)| match error.is_nan() {
        true => (f64::INFINITY, at),
        false if error > worst.0 => (error, at),
        false => worst,
    })
}

/// The bits of outputs.
pub fn bits(y: &[f32]) -> Vec<u32> {
    y.iter().map(|y| y.to_bits()).collect()
}
