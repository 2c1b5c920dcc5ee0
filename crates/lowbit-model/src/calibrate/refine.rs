//! Codes and scales learned from what a matrix reads: those that GPTQ found, improved in turns.
//!
//! The error of outputs is `tr((W - Q) H (W - Q)^T)`, a quadratic function of every code and every scale, so that each step has a closed
//! form and none needs a gradient's step size. Codes go one after another to the level that is best while all others stay
//! (coordinate descent, as of QuantEase, arXiv 2309.01885, and CDQuant, arXiv 2406.17542); scale and offset of a group follow by least squares
//! under `H`, and are taken as they are stored where the error falls. So the error never grows.

use super::gptq::{Codes, Grid};
use lowbit_kernels::{Cpu, Mat, gemm};
use std::ops::Range;
use std::sync::Mutex;

/// Columns whose codes change before the others hear of it.
const BLOCK: usize = 64;
/// Rows of a task.
const ROWS: usize = 48;
/// How often scales and codes follow from each other.
const ROUNDS: usize = 4;

/// Improves codes and scales of weights, `[rows, cols]`, under a Hessian, `[cols, cols]`.
pub(super) fn refine<G: Grid>(cpu: &Cpu, grid: &G, hessian: &[f32], weights: &[f32], found: &mut Codes<G::Scales>) {
    let cols = hessian.len().isqrt();
    let spans = cols.div_ceil(grid.span());
    let parts = found.codes.chunks_mut(ROWS * cols).zip(found.scales.chunks_mut(ROWS * spans));
    let tasks: Vec<_> = weights.chunks(ROWS * cols).zip(parts).map(Mutex::new).collect();
    cpu.pool.run(tasks.len(), &|task| {
        let mut task = tasks[task].lock().expect("no task panics with a lock");
        let (weights, (codes, scales)) = &mut *task;
        Rows::new(cpu, grid, hessian, weights, (codes, scales)).run();
    });
}

/// Some rows of a matrix.
struct Rows<'a, G: Grid> {
    cpu: &'a Cpu,
    grid: &'a G,
    /// `[cols, cols]`
    hessian: &'a [f32],
    cols: usize,
    /// `[rows, cols]`
    codes: &'a mut [u8],
    /// `[rows, spans]`
    scales: &'a mut [G::Scales],
    /// Weights less what their codes mean, times `H`: `[rows, cols]`.
    gradient: Vec<f32>,
}

impl<'a, G: Grid> Rows<'a, G> {
    fn new(
        cpu: &'a Cpu,
        grid: &'a G,
        hessian: &'a [f32],
        weights: &[f32],
        (codes, scales): (&'a mut [u8], &'a mut [G::Scales]),
    ) -> Self {
        let cols = hessian.len().isqrt();
        let mut rows = Rows { cpu, grid, hessian, cols, codes, scales, gradient: vec![0.0; weights.len()] };
        let mut errors = weights.to_vec();
        for (at, error) in errors.iter_mut().enumerate() {
            let (scale, offset) = rows.meaning(at / cols, at % cols);
            *error -= f32::from(rows.codes[at]).mul_add(scale, offset);
        }
        rows.moved(0..cols, &errors);
        rows
    }

    fn run(mut self) {
        for _ in 0..ROUNDS {
            self.fit_scales();
            for first in (0..self.cols).step_by(BLOCK) {
                self.descend(first..(first + BLOCK).min(self.cols));
            }
        }
        self.fit_scales();
    }

    fn rows(&self) -> usize {
        self.codes.len() / self.cols
    }

    /// Where the scales of a column of a row are: the span, and the group in it.
    fn place(&self, row: usize, col: usize) -> (usize, usize) {
        let span = self.grid.span();
        (row * self.cols.div_ceil(span) + col / span, col % span / self.grid.columns())
    }

    /// Scale and offset of a column of a row.
    fn meaning(&self, row: usize, col: usize) -> (f32, f32) {
        let (span, group) = self.place(row, col);
        G::groups(&self.scales[span])[group]
    }

    /// Enters by how much the errors of some columns grew, `[rows, columns]`.
    fn moved(&mut self, columns: Range<usize>, by: &[f32]) {
        let (rows, cols) = (self.rows(), self.cols);
        let (by, hessian) = (Mat::new(by, columns.len()), Mat::new(&self.hessian[columns.start * cols..], cols));
        gemm(self.cpu, rows, cols, columns.len(), by, hessian, true, &mut self.gradient);
    }

    /// Takes the best code of each column in turn.
    fn descend(&mut self, columns: Range<usize>) {
        let (width, most) = (columns.len(), f32::from(self.grid.most()));
        let mut moves = vec![0.0; self.rows() * width];
        for (row, moves) in moves.chunks_exact_mut(width).enumerate() {
            let at = row * self.cols;
            let mut gradient = [0.0; BLOCK];
            gradient[..width].copy_from_slice(&self.gradient[at..][columns.clone()]);
            for col in columns.clone() {
                let (scale, offset) = self.meaning(row, col);
                let curvature = &self.hessian[col * self.cols..][columns.clone()];
                let own = curvature[col - columns.start];
                if scale == 0.0 || own <= 0.0 {
                    continue;
                }
                let code = f32::from(self.codes[at + col]);
                let best = (code + gradient[col - columns.start] / (own * scale)).round_ties_even().clamp(0.0, most);
                if best == code {
                    continue;
                }
                let by = code.mul_add(scale, offset) - best.mul_add(scale, offset);
                gradient.iter_mut().zip(curvature).for_each(|(gradient, h)| *gradient += by * h);
                (self.codes[at + col], moves[col - columns.start]) = (best as u8, by);
            }
        }
        self.moved(columns, &moves);
    }

    /// Takes the best scale and offset of each group in turn.
    fn fit_scales(&mut self) {
        for first in (0..self.cols).step_by(self.grid.columns()) {
            self.fit_group(first..(first + self.grid.columns()).min(self.cols));
        }
    }

    fn fit_group(&mut self, columns: Range<usize>) {
        let (rows, cols, width) = (self.rows(), self.cols, columns.len());
        let of_rows = |row: usize| row * cols + columns.start..row * cols + columns.end;
        let codes: Vec<f32> =
            (0..rows).flat_map(|row| self.codes[of_rows(row)].iter().copied().map(f32::from)).collect();
        let hessian = &self.hessian[columns.start * cols + columns.start..];
        let mut products = vec![0.0; rows * width];
        gemm(self.cpu, rows, width, width, Mat::new(&codes, width), Mat::new(hessian, cols), false, &mut products);
        let ones: f64 = (0..width).flat_map(|row| &hessian[row * cols..][..width]).map(|h| f64::from(*h)).sum();
        let mut moves = vec![0.0; rows * width];
        let mut any = false;
        for row in 0..rows {
            let (codes, gradient) = (&codes[row * width..][..width], &self.gradient[of_rows(row)]);
            let dot = |a: &[f32]| a.iter().zip(codes).map(|(a, code)| f64::from(*a) * f64::from(*code)).sum::<f64>();
            let sum = |a: &[f32]| a.iter().map(|a| f64::from(*a)).sum::<f64>();
            let products = &products[row * width..][..width];
            let line = Line {
                codes: dot(products),
                both: sum(products),
                ones,
                by_codes: dot(gradient),
                by_ones: sum(gradient),
            };
            let (span, group) = self.place(row, columns.start);
            let Some(better) = self.better(&self.scales[span], group, &line) else { continue };
            let ((scale, offset), (new_scale, new_offset)) =
                (G::groups(&self.scales[span])[group], G::groups(&better)[group]);
            for (by, code) in moves[row * width..].iter_mut().zip(codes) {
                *by = code.mul_add(scale, offset) - code.mul_add(new_scale, new_offset);
            }
            (self.scales[span], any) = (better, true);
        }
        if any {
            self.moved(columns, &moves);
        }
    }

    /// Scales of a span whose group has less error; none where there are none.
    fn better(&self, scales: &G::Scales, group: usize, line: &Line) -> Option<G::Scales> {
        let (scale, offset) = G::groups(scales)[group];
        if scale == 0.0 {
            return None;
        }
        let zero = self.grid.zero().map(f64::from);
        let offset_for = |to: f32| match zero {
            Some(zero) => -zero * f64::from(to),
            None => f64::from(offset) + line.second(f64::from(to) - f64::from(scale)),
        };
        let first = f64::from(scale) + line.first(zero)?;
        // Once the scale is as it can be stored, the offset follows.
        let near = self.grid.near(scales, group, (first as f32, offset_for(first as f32) as f32))?;
        let stored = G::groups(&near)[group].0;
        let found = self.grid.near(&near, group, (stored, offset_for(stored) as f32))?;
        let (new_scale, new_offset) = G::groups(&found)[group];
        let [a, b] = [f64::from(new_scale) - f64::from(scale), f64::from(new_offset) - f64::from(offset)];
        (new_scale * scale > 0.0 && line.change(a, b) < 0.0).then_some(found)
    }
}

/// The error of a row as a function of the change of scale and offset of one group: sums over its codes and its columns.
struct Line {
    /// `c H c^T`
    codes: f64,
    /// `c H 1^T`
    both: f64,
    /// `1 H 1^T`
    ones: f64,
    /// Gradient times codes.
    by_codes: f64,
    /// Gradient times ones.
    by_ones: f64,
}

impl Line {
    /// The best change of the scale, with the code that means 0 where there is one; none where it is not determined.
    fn first(&self, zero: Option<f64>) -> Option<f64> {
        if let Some(zero) = zero {
            let curvature = self.codes - 2.0 * zero * self.both + zero * zero * self.ones;
            return (curvature > 1e-9 * self.codes).then(|| (self.by_codes - zero * self.by_ones) / curvature);
        }
        let area = self.codes * self.ones - self.both * self.both;
        let sure = area > 1e-6 * self.codes * self.ones;
        sure.then(|| (self.by_codes * self.ones - self.by_ones * self.both) / area)
    }

    /// The best change of the offset for a change of the scale.
    fn second(&self, scale: f64) -> f64 {
        (self.by_ones - scale * self.both) / self.ones
    }

    /// By how much the error changes.
    fn change(&self, scale: f64, offset: f64) -> f64 {
        let linear = scale * self.by_codes + offset * self.by_ones;
        scale * scale * self.codes + 2.0 * scale * offset * self.both + offset * offset * self.ones - 2.0 * linear
    }
}

#[cfg(test)]
mod tests {
    use super::super::hessian::{Hessian, Order};
    use super::super::levels::{self, Known};
    use super::super::masters::Rows;
    use super::*;
    use crate::Error;
    use lowbit_base::SplitMix64;
    use lowbit_kernels::format::{FORMATS, Scales};

    #[test]
    fn learned_codes_lose_less_in_every_format() {
        const TOKENS: usize = 400;
        const COLS: usize = 300;
        let mut random = SplitMix64::new(11);
        let mut numbers = |count: usize| (0..count).map(|_| random.unit() as f32 - 0.5).collect::<Vec<f32>>();
        let (factors, mixing, mut inputs) = (numbers(TOKENS * 20), numbers(20 * COLS), numbers(TOKENS * COLS));
        let cpu = Cpu::new(None, Some(2)).expect("a CPU");
        gemm(&cpu, TOKENS, COLS, 20, Mat::new(&factors, 20), Mat::new(&mixing, COLS), true, &mut inputs);
        let mut weights = numbers(50 * COLS);
        // A row beyond what f16 holds, and one of zeros.
        weights[COLS..2 * COLS].iter_mut().for_each(|w| *w *= 1e6);
        weights[2 * COLS..3 * COLS].fill(0.0);
        let factor =
            Hessian::new(&cpu, &inputs, COLS, &[1.0; TOKENS]).factor(&cpu, Order::Activations).expect("finite");
        let damped = Hessian::new(&cpu, &inputs, COLS, &[1.0; TOKENS]).damped(factor.damping);
        let mut tried = 0;
        for format in FORMATS.iter().copied().filter(|format| levels::takes(*format)) {
            let errors = [None, Some(&damped[..])].map(|hessian| {
                let known = Known { factor: &factor, hessian };
                let rows = Rows::Whole((&weights).into(), COLS);
                let fault = |e: lowbit_kernels::Error| Error::usage(e.to_string());
                let packed = levels::round(format, &cpu, (&rows, 50), &known, &fault).expect("codes").expect("packs");
                let mut errors = packed.dequantize();
                errors.iter_mut().zip(&weights).for_each(|(rounded, w)| *rounded -= w);
                let mut products = vec![0.0; errors.len()];
                gemm(&cpu, 50, COLS, COLS, Mat::new(&errors, COLS), Mat::new(&damped, COLS), false, &mut products);
                let dot = |(a, b): (&[f32], &[f32])| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
                errors.chunks_exact(COLS).zip(products.chunks_exact(COLS)).map(dot).collect::<Vec<f64>>()
            });
            let [before, after] = &errors;
            for (row, (before, after)) in before.iter().zip(after).enumerate() {
                assert!(after <= &(before * 1.001), "{}, row {row}: {after} after {before}", format.name());
            }
            let share = |errors: &[f64]| errors[0] + errors[3..].iter().sum::<f64>();
            // One scale for all rows is that of the largest.
            if format.spec().bits < 3.5 && format.spec().scales != Scales::Tensor {
                let share = share(after) / share(before);
                assert!(share < 0.97, "{}: {share} of the error of GPTQ", format.name());
            }
            tried += 1;
        }
        assert!(tried > 10);
    }
}
