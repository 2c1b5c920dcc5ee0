//! Rotation of what a matrix multiplies: `W x = (W R) (R x)` for a symmetric orthogonal `R`. Where large values of a few inputs
//! spread over all, weights and inputs round with less error (arXiv 2404.00456).

use lowbit_kernels::{Isa, Op, Products, Simd};

/// How the inputs of products with the matrices of a body are rotated, and the columns of these matrices with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rotation {
    /// Not at all.
    #[default]
    None,
    /// By a normalized Hadamard matrix for each block of columns; a block is as long as the largest power of two that divides the
    /// columns.
    Hadamard,
}

impl Rotation {
    /// Every one.
    pub const ALL: [Rotation; 2] = [Rotation::None, Rotation::Hadamard];

    /// The name in spellings of recipes.
    pub fn name(self) -> &'static str {
        match self {
            Rotation::None => "none",
            Rotation::Hadamard => "hadamard",
        }
    }
}

/// Columns that are rotated together.
fn block(cols: usize) -> usize {
    1 << cols.trailing_zeros()
}

/// Rotates each row of `[rows, cols]` by normalized Hadamard matrices. Twice gives the same again, but for rounding. The results
/// have the same bits on every instruction set.
pub(crate) fn hadamard(isa: Isa, values: &mut [f32], cols: usize) {
    isa.run(Hadamard { values, block: block(cols) });
}

/// The mean of each block of columns in all its columns: what the mean squares of inputs become, as far as they are known.
pub(crate) fn spread(importance: &mut [f32]) {
    let block = block(importance.len());
    for values in importance.chunks_exact_mut(block) {
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / block as f64;
        values.fill(mean as f32);
    }
}

struct Hadamard<'a> {
    values: &'a mut [f32],
    block: usize,
}

impl Op for Hadamard<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    /// Butterflies of sums and differences, each pair rounded once: no order of summation to choose.
    #[inline(always)]
    fn eval<S: Simd>(self, _: S) {
        let factor = 1.0 / (self.block as f32).sqrt();
        for block in self.values.chunks_exact_mut(self.block) {
            let mut half = 1;
            while half < self.block {
                for pair in block.chunks_exact_mut(2 * half) {
                    let (low, high) = pair.split_at_mut(half);
                    for (low, high) in low.iter_mut().zip(high) {
                        (*low, *high) = (*low + *high, *low - *high);
                    }
                }
                half *= 2;
            }
            block.iter_mut().for_each(|value| *value *= factor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotations_are_those_of_scipy_and_their_own_inverse() {
        let isas: Vec<Isa> = Isa::available();
        // scipy.linalg.hadamard(4) @ [1, 2, 3, 5] / 2, and of the next four; 12 columns are three blocks of four.
        let mut values = vec![1.0, 2.0, 3.0, 5.0, 0.0, -1.0, 4.0, 1.0, 2.0, 2.0, 2.0, 2.0];
        hadamard(isas[0], &mut values, 12);
        assert_eq!(values, [5.5, -1.5, -2.5, 0.5, 2.0, 2.0, -3.0, -1.0, 4.0, 0.0, 0.0, 0.0]);
        let original: Vec<f32> = (0..2 * 576).map(|i| ((i * 37 % 101) as f32 - 50.0) / 7.0).collect();
        let mut rotated = original.clone();
        hadamard(isas[0], &mut rotated, 576);
        for isa in &isas {
            let mut again = original.clone();
            hadamard(*isa, &mut again, 576);
            assert_eq!(again, rotated, "{}", isa.name());
        }
        let squares = |values: &[f32]| values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
        assert!((squares(&rotated) / squares(&original) - 1.0).abs() < 1e-6);
        hadamard(isas[0], &mut rotated, 576);
        assert!(rotated.iter().zip(&original).all(|(a, b)| (a - b).abs() < 1e-5));
        let mut importance = vec![1.0, 3.0, 5.0, 7.0, 8.0, 0.0];
        spread(&mut importance);
        assert_eq!(importance, [2.0, 2.0, 6.0, 6.0, 4.0, 4.0]);
    }
}
