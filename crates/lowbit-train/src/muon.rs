//! Muon: momentum whose update of a matrix has singular values near 1 (Jordan et al., "Muon: An optimizer for hidden layers in neural
//! networks", 2024), scaled to the root mean square of AdamW's updates (arXiv 2502.16982, equation 4).

use crate::config::TrainConfig;
use lowbit_kernels::{Cpu, Mat, gemm, ops};

/// Coefficients of an iteration `X = a X + (b A + c A A) X`, `A = X X^T`.
const QUINTIC: [f32; 3] = [3.4445, -4.7750, 2.0315];
/// Iterations.
const ITERATIONS: usize = 5;
/// Keeps the division by the norm finite.
const EPSILON: f32 = 1e-7;
/// Root mean square of an update of AdamW, about.
const ADAMW_RMS: f32 = 0.2;

/// How a matrix is updated.
pub(crate) struct Settings<'a> {
    /// Learning rate.
    pub(crate) rate: f32,
    /// Decoupled weight decay.
    pub(crate) weight_decay: f32,
    /// What gradients are multiplied with.
    pub(crate) factor: f32,
    pub(crate) config: &'a TrainConfig,
}

/// Applies a gradient to a matrix of so many columns: `M = mu M + g`, `W = (1 - lr decay) W - lr 0.2 sqrt(max(rows, cols)) O(g + mu M)`, `O` being
/// [`orthogonal`].
pub(crate) fn update(
    cpu: &Cpu,
    (values, cols): (&mut [f32], usize),
    gradient: &[f32],
    momentum: &mut [f32],
    Settings { rate, weight_decay, factor, config }: Settings,
) {
    let (rows, mu) = (values.len() / cols, config.momentum);
    let mut direction = vec![0.0; values.len()];
    for ((direction, momentum), gradient) in direction.iter_mut().zip(momentum).zip(gradient) {
        let gradient = gradient * factor;
        *momentum = mu * *momentum + gradient;
        *direction = gradient + mu * *momentum;
    }
    let direction = orthogonal(cpu, direction, rows, cols);
    let (kept, step) = (1.0 - rate * weight_decay, rate * ADAMW_RMS * (rows.max(cols) as f32).sqrt());
    values.iter_mut().zip(direction).for_each(|(value, direction)| *value = kept * *value - step * direction);
}

/// About `U V^T` of a matrix `U S V^T`, `[rows, cols]`, by Newton-Schulz iterations: the singular values become 0.7 to 1.2.
fn orthogonal(cpu: &Cpu, mut x: Vec<f32>, rows: usize, cols: usize) -> Vec<f32> {
    let norm = ops::sum_squares(cpu, &x).sqrt() as f32 + EPSILON;
    x.iter_mut().for_each(|v| *v /= norm);
    // The products with itself are those of the shorter side.
    let (short, long) = (rows.min(cols), rows.max(cols));
    let (mut a, mut b, mut y) = (vec![0.0; short * short], vec![0.0; short * short], vec![0.0; x.len()]);
    for _ in 0..ITERATIONS {
        let matrix = Mat::new(&x, cols);
        match rows <= cols {
            true => gemm(cpu, short, short, long, matrix, matrix.t(), false, &mut a),
            false => gemm(cpu, short, short, long, matrix.t(), matrix, false, &mut a),
        }
        let square = Mat::new(&a, short);
        gemm(cpu, short, short, short, square, square, false, &mut b);
        let [first, second, third] = QUINTIC;
        b.iter_mut().zip(&a).for_each(|(b, a)| *b = second * a + third * *b);
        let factor = Mat::new(&b, short);
        match rows <= cols {
            true => gemm(cpu, rows, cols, short, factor, matrix, false, &mut y),
            false => gemm(cpu, rows, cols, short, matrix, factor, false, &mut y),
        }
        y.iter_mut().zip(&x).for_each(|(y, x)| *y += first * x);
        std::mem::swap(&mut x, &mut y);
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn floats(value: &Value) -> Vec<f32> {
        serde_json::from_value(value.clone()).unwrap()
    }

    #[test]
    fn updates_are_those_of_the_reference() {
        let golden: Value = serde_json::from_str(include_str!("../tests/golden_muon.json")).unwrap();
        let number = |name: &str| golden[name].as_f64().unwrap() as f32;
        let config = TrainConfig { momentum: number("momentum"), ..TrainConfig::default() };
        let cpu = Cpu::new(None, Some(2)).unwrap();
        for case in golden["cases"].as_array().unwrap() {
            let (mut values, cols) = (floats(&case["start"]), case["cols"].as_u64().unwrap() as usize);
            let mut momentum = vec![0.0; values.len()];
            for (gradient, expected) in
                case["gradients"].as_array().unwrap().iter().zip(case["values"].as_array().unwrap())
            {
                // A factor of gradients, as clipping gives it.
                let gradient: Vec<f32> = floats(gradient).iter().map(|g| 4.0 * g).collect();
                let settings =
                    Settings { rate: number("rate"), weight_decay: number("decay"), factor: 0.25, config: &config };
                update(&cpu, (&mut values, cols), &gradient, &mut momentum, settings);
                for (value, expected) in values.iter().zip(floats(expected)) {
                    assert!((value - expected).abs() < 2e-5, "{} x {cols}: {value}, not {expected}", case["rows"]);
                }
            }
        }
    }
}
