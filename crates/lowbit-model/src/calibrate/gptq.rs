//! GPTQ (arXiv 2210.17323): the weights of a matrix are rounded column by column, and each column is first corrected for what the
//! rounding of earlier ones did to the outputs.
//!
//! A task takes some rows. Corrections by columns of earlier blocks are one matrix product a block (lazy updates); inside a block a column
//! corrects those after it at once.

use super::hessian::{Factor, Order};
use lowbit_kernels::{Cpu, Mat, gemm};
use std::sync::Mutex;

/// Columns of a block.
const BLOCK: usize = 128;
/// Rows of a task.
const ROWS: usize = 48;

/// Codes of a format and what they mean.
pub(super) trait Grid: Sync {
    /// Stored scales of a span.
    type Scales: Send;
    /// Columns whose scales are chosen at once.
    fn span(&self) -> usize;
    /// Columns that share a scale and an offset; divides the span.
    fn columns(&self) -> usize;
    /// The largest code.
    fn most(&self) -> u8;
    /// Scales for the weights of a span of a row, whose errors cost so much.
    fn choose(&self, row: usize, weights: &[f32], costs: &[f32]) -> Self::Scales;
    /// Scale and offset of each group of a span: a code means `code * scale + offset`.
    fn groups(scales: &Self::Scales) -> &[(f32, f32)];
    /// The code that means 0 in every group, where offsets follow from scales.
    fn zero(&self) -> Option<f32> {
        None
    }
    /// Scales of a span that are nearest to a scale and an offset wished for one of its groups; `None` where they cannot change.
    fn near(&self, _scales: &Self::Scales, _group: usize, _wished: (f32, f32)) -> Option<Self::Scales> {
        None
    }
}

/// Codes, `[rows, cols]`, and scales of spans, `[rows, ceil(cols / span)]`.
pub(super) struct Codes<S> {
    pub codes: Vec<u8>,
    pub scales: Vec<S>,
}

/// Rounds weights, `[rows, cols]`.
pub(super) fn gptq<G: Grid>(cpu: &Cpu, grid: &G, weights: &[f32], factor: &Factor, order: Order) -> Codes<G::Scales> {
    let cols = factor.cols();
    let tasks: Vec<_> = weights.chunks(ROWS * cols).map(|_| Mutex::new(None)).collect();
    cpu.pool.run(tasks.len(), &|task| {
        let first = task * ROWS;
        let weights = &weights[first * cols..][..(ROWS * cols).min(weights.len() - first * cols)];
        let rows = Rows { cpu, grid, factor, order, first, weights, cols };
        *tasks[task].lock().expect("no task panics with a lock") = Some(rows.round());
    });
    let mut all = Codes { codes: Vec::with_capacity(weights.len()), scales: Vec::new() };
    for task in tasks {
        let part = task.into_inner().expect("no task panics with a lock").expect("every task ran");
        all.codes.extend(part.codes);
        all.scales.extend(part.scales);
    }
    all
}

/// Some rows of a matrix.
struct Rows<'a, G> {
    cpu: &'a Cpu,
    grid: &'a G,
    factor: &'a Factor,
    order: Order,
    /// The first of them.
    first: usize,
    /// `[rows, cols]`
    weights: &'a [f32],
    cols: usize,
}

impl<G: Grid> Rows<'_, G> {
    fn round(&self) -> Codes<G::Scales> {
        let (cols, span) = (self.cols, self.grid.span());
        let (rows, spans) = (self.weights.len() / cols, cols.div_ceil(span));
        // By steps of the factor.
        let mut errors = vec![0.0f32; rows * cols];
        let mut codes = vec![0u8; rows * cols];
        let mut scales: Vec<Vec<G::Scales>> = (0..rows).map(|_| Vec::with_capacity(spans)).collect();
        // Scales are chosen ahead unless columns are reached in their order, span by span.
        let ahead = self.order == Order::Activations || span >= cols;
        if ahead {
            for ((row, weights), scales) in self.weights.chunks_exact(cols).enumerate().zip(&mut scales) {
                let spans = weights.chunks(span).zip(self.factor.costs.chunks(span));
                scales.extend(spans.map(|(weights, costs)| self.grid.choose(self.first + row, weights, costs)));
            }
        }
        let width = if ahead { BLOCK } else { BLOCK.div_ceil(span) * span };
        let mut corrections = vec![0.0f32; rows * width];
        for start in (0..cols).step_by(width) {
            let block = start..(start + width).min(cols);
            let corrections = &mut corrections[..rows * block.len()];
            corrections.fill(0.0);
            if start > 0 {
                let (errors, upper) = (Mat::new(&errors, cols), Mat::new(&self.factor.upper[start..], cols));
                gemm(self.cpu, rows, block.len(), start, errors, upper, false, corrections);
            }
            for (row, corrections) in corrections.chunks_exact_mut(block.len()).enumerate() {
                let at = row * cols..(row + 1) * cols;
                let (errors, codes) = (&mut errors[at.clone()], &mut codes[at.clone()]);
                self.round_block(row, &self.weights[at], block.clone(), corrections, &mut scales[row], (errors, codes));
            }
        }
        Codes { codes, scales: scales.into_iter().flatten().collect() }
    }

    /// The weights from column `first` on that make the smallest error with what was rounded before, while nothing of them is rounded:
    /// `corrections` tell what each of them is to be corrected by once those before it are rounded.
    fn corrected(&self, weights: &[f32], first: usize, corrections: &[f32]) -> Vec<f32> {
        let mut moves = corrections[..weights.len()].to_vec();
        for i in 0..moves.len() {
            let upper = &self.factor.upper[(first + i) * self.cols + first..][..moves.len()];
            let (done, later) = moves.split_at_mut(i + 1);
            later.iter_mut().zip(&upper[i + 1..]).for_each(|(later, u)| *later -= done[i] * u);
        }
        weights.iter().zip(moves).map(|(w, by)| w + by).collect()
    }

    /// Rounds the columns of some steps of a row, and tells their errors and codes.
    fn round_block(
        &self,
        row: usize,
        weights: &[f32],
        block: std::ops::Range<usize>,
        corrections: &mut [f32],
        scales: &mut Vec<G::Scales>,
        (errors, codes): (&mut [f32], &mut [u8]),
    ) {
        let (span, columns, most) = (self.grid.span(), self.grid.columns(), f32::from(self.grid.most()));
        for step in block.clone() {
            let col = self.factor.order[step];
            if scales.len() <= col / span {
                // Steps are columns here.
                let end = (col + span).min(self.cols);
                let corrected = self.corrected(&weights[col..end], col, &corrections[step - block.start..]);
                scales.push(self.grid.choose(self.first + row, &corrected, &self.factor.costs[col..end]));
            }
            let (scale, offset) = G::groups(&scales[col / span])[col % span / columns];
            let code = match scale == 0.0 {
                true => self.grid.zero().unwrap_or(0.0),
                false => {
                    let wanted = weights[col] + corrections[step - block.start];
                    ((wanted - offset) / scale).round_ties_even().clamp(0.0, most)
                }
            };
            let error = weights[col] - code.mul_add(scale, offset);
            (errors[step], codes[col]) = (error, code as u8);
            let later = &self.factor.upper[step * self.cols..][step + 1..block.end];
            let corrections = &mut corrections[step + 1 - block.start..];
            corrections.iter_mut().zip(later).for_each(|(sum, u)| *sum += error * u);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::hessian::Hessian;
    use super::super::refine::refine;
    use super::*;

    /// Scales from minimum to maximum of 64 columns, as the reference has them.
    struct MinMax(u8);

    impl Grid for MinMax {
        type Scales = [(f32, f32); 1];

        fn span(&self) -> usize {
            64
        }

        fn columns(&self) -> usize {
            64
        }

        fn most(&self) -> u8 {
            self.0
        }

        fn choose(&self, _: usize, weights: &[f32], _: &[f32]) -> Self::Scales {
            let low = weights.iter().copied().fold(f32::INFINITY, f32::min);
            let high = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            [(((f64::from(high) - f64::from(low)) / f64::from(self.0)) as f32, low)]
        }

        fn groups(scales: &Self::Scales) -> &[(f32, f32)] {
            scales
        }
    }

    /// Whole numbers from -8 to 7, as `tools/golden/gptq.py` makes them.
    fn numbers(mut state: u32, count: usize) -> Vec<f32> {
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 28) as f32 - 8.0
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn codes_are_those_of_the_paper() {
        const ROWS: usize = 5;
        const COLS: usize = 200;
        const TOKENS: usize = 512;
        const FACTORS: usize = 24;
        let (factors, mixing, noise) =
            (numbers(1, TOKENS * FACTORS), numbers(2, FACTORS * COLS), numbers(3, TOKENS * COLS));
        let input = |at: usize| {
            let (token, col) = (at / COLS, at % COLS);
            let mixed: f32 = (0..FACTORS).map(|k| factors[token * FACTORS + k] * mixing[k * COLS + col]).sum();
            (mixed + 8.0 * noise[at]) / 64.0 * [1.0, 4.0][usize::from(col == 11)] * [1.0, 0.0][usize::from(col == 70)]
        };
        let inputs: Vec<f32> = (0..TOKENS * COLS).map(input).collect();
        let (large, small) = (numbers(4, ROWS * COLS), numbers(5, ROWS * COLS));
        let weights: Vec<f32> = large.iter().zip(small).map(|(large, small)| large / 8.0 + small / 256.0).collect();
        let cases: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/golden/gptq.json")).expect("a list");
        for threads in [1, 3] {
            let cpu = Cpu::new(None, Some(threads)).expect("a CPU");
            let hessian = Hessian::new(&cpu, &inputs, COLS, &[1.0; TOKENS]);
            for case in cases.as_array().expect("a list") {
                let most = case["most"].as_u64().expect("a code") as u8;
                let order = if case["by_activation"] == true { Order::Activations } else { Order::Columns };
                let check = |found: &[u8], name: &str| {
                    let want: Vec<Vec<u8>> = serde_json::from_value(case[name].clone()).expect("codes");
                    let wrong = found.iter().zip(want.concat()).position(|(found, want)| *found != want);
                    assert_eq!(wrong, None, "{name} up to {most}, {order:?} on {threads} threads");
                };
                let factor = hessian.factor(&cpu, order).expect("finite");
                let mut found = gptq(&cpu, &MinMax(most), &weights, &factor, order);
                check(&found.codes, "codes");
                let damped = Hessian::new(&cpu, &inputs, COLS, &[1.0; TOKENS]).damped(factor.damping);
                refine(&cpu, &MinMax(most), &damped, &weights, &mut found);
                check(&found.codes, "descended");
            }
        }
    }
}
