//! The Hessian of a matrix product's squared error, and its factorization.
//!
//! Rounding a row `w` of weights to `q` changes outputs by `(w - q) H (w - q)^T`, `H` being the mean of `x x^T` over the inputs
//! `x`. With `H = U D U^T`, `U` unit upper triangular, that is the sum over columns `t` of `D[t] (v[t] - q[t])^2`, where
//! `v[t] = w[t] + sum over s < t of (w[s] - q[s]) U[s][t]`: columns are rounded one after another, each after it has been corrected
//! for the errors of those before. GPTQ (arXiv 2210.17323) finds the same corrections in the Cholesky factor of the inverse of `H`; they are
//! equal (arXiv 2307.13304, theorem 6), and here nothing is inverted.

use lowbit_kernels::{Cpu, Mat, gemm};

/// Columns of a block of `H` or of its factor.
const BLOCK: usize = 64;
/// Columns of `H` that one product yields.
const STRIP: usize = 256;
/// Tokens of a product: bounds the memory of its packed operand.
pub(super) const TOKENS: usize = 4096;
/// Added to the diagonal of `H`, as a share of its mean.
const DAMPING: f64 = 0.01;
/// Damping is multiplied by this until the factorization succeeds.
const MORE_DAMPING: f64 = 10.0;
/// With so much damping the diagonal outweighs everything else.
const MOST_DAMPING: f64 = 1e6;

/// Mean of `x x^T` over tokens: `[cols, cols]`, of which the lower triangle is meant.
pub(super) struct Hessian {
    cols: usize,
    /// Tokens of the mean.
    tokens: usize,
    values: Vec<f32>,
    /// Inputs of the next product, `[tokens, cols]`.
    inputs: Vec<f32>,
}

/// Mean over tokens of `a^T b`, `[a's width, b's width]`.
pub(super) struct Cross {
    rows: usize,
    cols: usize,
    tokens: usize,
    values: Vec<f32>,
    /// The next product's factors, `[tokens, rows]` and `[tokens, cols]`.
    inputs: [Vec<f32>; 2],
}

/// `H = U D U^T` in the order in which columns are rounded.
pub(super) struct Factor {
    /// The column that is rounded at each step, `[cols]`.
    pub order: Vec<usize>,
    /// `U`, `[cols, cols]` by step, 0 below the diagonal.
    pub upper: Vec<f32>,
    /// `D`, by column: what a squared error of the rounding of a column costs once later ones make up for it.
    pub costs: Vec<f32>,
    /// What was added to the diagonal of `H`.
    pub damping: f32,
}

/// In which order columns are rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// As they stand.
    #[cfg_attr(not(test), expect(dead_code, reason = "the codes of the paper are in this order too"))]
    Columns,
    /// By descending mean square of their inputs.
    Activations,
}

/// The length of each token of inputs `[tokens, cols]`.
pub(super) fn norms(x: &[f32], cols: usize) -> impl Iterator<Item = f64> {
    let square = |row: &[f32]| row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>();
    x.chunks_exact(cols).map(move |row| square(row).sqrt())
}

/// The factor of each token of such lengths, `[tokens]`, by which no token is larger than the median of those that are not 0: outputs for a few tokens with
/// massive activations (arXiv 2402.17762) count no more than those of others.
pub(super) fn evened(norms: &[f64]) -> Vec<f32> {
    let mut sorted: Vec<f64> = norms.iter().copied().filter(|norm| *norm > 0.0).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let median = sorted.get(sorted.len() / 2).copied().unwrap_or(0.0);
    norms.iter().map(|norm| if *norm > median { (median / norm) as f32 } else { 1.0 }).collect()
}

/// Inputs `[tokens, cols]` times the factor of each token.
pub(super) fn weighted(x: &[f32], cols: usize, factors: &[f32]) -> impl Iterator<Item = f32> {
    x.chunks_exact(cols).zip(factors).flat_map(|(row, factor)| row.iter().map(move |v| v * factor))
}

/// How many tokens a product of so many rows still takes.
fn room(inputs: &[f32], cols: usize) -> usize {
    TOKENS - inputs.len() / cols
}

impl Cross {
    /// Of nothing yet, over so many tokens in all.
    pub fn new(rows: usize, cols: usize, tokens: usize) -> Self {
        Cross { rows, cols, tokens, values: vec![0.0; rows * cols], inputs: [Vec::new(), Vec::new()] }
    }

    /// Adds tokens, `[tokens, rows]` and `[tokens, cols]`, both times the factor of the token.
    pub fn add(&mut self, cpu: &Cpu, (mut a, mut b): (&[f32], &[f32]), mut factors: &[f32]) {
        while !factors.is_empty() {
            let some = room(&self.inputs[1], self.cols).min(factors.len());
            let squares: Vec<f32> =
                factors[..some].iter().map(|factor| factor * factor / self.tokens.max(1) as f32).collect();
            self.inputs[0].extend(weighted(&a[..some * self.rows], self.rows, &squares));
            self.inputs[1].extend_from_slice(&b[..some * self.cols]);
            (a, b, factors) = (&a[some * self.rows..], &b[some * self.cols..], &factors[some..]);
            if room(&self.inputs[1], self.cols) == 0 {
                self.multiply(cpu);
            }
        }
    }

    fn multiply(&mut self, cpu: &Cpu) {
        let (rows, cols, [a, b]) = (self.rows, self.cols, &self.inputs);
        gemm(cpu, rows, cols, b.len() / cols, Mat::new(a, rows).t(), Mat::new(b, cols), true, &mut self.values);
        self.inputs.iter_mut().for_each(Vec::clear);
    }

    /// The mean, once all tokens are there.
    pub fn end(mut self, cpu: &Cpu) -> Vec<f32> {
        if !self.inputs[1].is_empty() {
            self.multiply(cpu);
        }
        self.values
    }
}

impl Hessian {
    /// Of inputs `[tokens, cols]`, each times its factor.
    #[cfg(test)]
    pub fn new(cpu: &Cpu, x: &[f32], cols: usize, factors: &[f32]) -> Self {
        let mut hessian = Hessian::over(cols, factors.len());
        hessian.add(cpu, x, factors);
        hessian.end(cpu)
    }

    /// Of nothing yet, over so many tokens in all.
    pub fn over(cols: usize, tokens: usize) -> Self {
        Hessian { cols, tokens, values: vec![0.0; cols * cols], inputs: Vec::with_capacity(TOKENS.min(tokens) * cols) }
    }

    /// Adds inputs `[tokens, cols]`, each times its factor.
    pub fn add(&mut self, cpu: &Cpu, mut x: &[f32], mut factors: &[f32]) {
        while !factors.is_empty() {
            let some = room(&self.inputs, self.cols).min(factors.len());
            self.inputs.extend(weighted(&x[..some * self.cols], self.cols, factors));
            (x, factors) = (&x[some * self.cols..], &factors[some..]);
            if room(&self.inputs, self.cols) == 0 {
                self.multiply(cpu);
            }
        }
    }

    fn multiply(&mut self, cpu: &Cpu) {
        let Hessian { cols, tokens, values, inputs } = self;
        let cols = *cols;
        for first in (0..cols).step_by(STRIP) {
            let (width, rows) = (STRIP.min(cols - first), cols - first);
            let mut strip = vec![0.0; rows * width];
            let x = Mat { data: inputs.get(first..).unwrap_or_default(), row_stride: cols, col_stride: 1 };
            gemm(cpu, rows, width, inputs.len() / cols, x.t(), x, false, &mut strip);
            for (row, strip) in values[first * cols..].chunks_exact_mut(cols).zip(strip.chunks_exact(width)) {
                let place = row[first..first + width].iter_mut();
                place.zip(strip).for_each(|(to, sum)| *to += sum / (*tokens).max(1) as f32);
            }
        }
        inputs.clear();
    }

    /// The mean, once all tokens are there.
    pub fn end(mut self, cpu: &Cpu) -> Self {
        if !self.inputs.is_empty() {
            self.multiply(cpu);
        }
        self.inputs = Vec::new();
        self
    }

    /// Mean square of each input, `[cols]`.
    pub fn diagonal(&self) -> Vec<f32> {
        self.values.iter().step_by(self.cols + 1).copied().collect()
    }

    fn at(&self, i: usize, j: usize) -> f32 {
        self.values[i.max(j) * self.cols + i.min(j)]
    }

    /// Both triangles, `[cols, cols]`, with something added to the diagonal.
    pub fn damped(mut self, by: f32) -> Vec<f32> {
        let n = self.cols;
        for i in 0..n {
            self.values[i * n + i] += by;
            for j in 0..i {
                self.values[j * n + i] = self.values[i * n + j];
            }
        }
        self.values
    }

    /// Its factorization after damping; none when it is not finite.
    pub fn factor(&self, cpu: &Cpu, order: Order) -> Option<Factor> {
        let (n, diagonal) = (self.cols, self.diagonal());
        if self.values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let mut by_step: Vec<usize> = (0..n).collect();
        if order == Order::Activations {
            by_step.sort_by(|a, b| diagonal[*b].total_cmp(&diagonal[*a]).then(a.cmp(b)));
        }
        let mean = diagonal.iter().map(|v| f64::from(*v)).sum::<f64>() / n as f64;
        // Inputs that are all 0: rounding to nearest.
        let mean = if mean > 0.0 { mean } else { 1.0 };
        let mut damping = DAMPING;
        while damping <= MOST_DAMPING {
            // The Cholesky factor of H with its rows and columns from last step to first: it is U with its columns scaled, likewise.
            let mut lower = vec![0.0; n * n];
            for (i, row) in lower.chunks_exact_mut(n).enumerate() {
                for (j, place) in row[..=i].iter_mut().enumerate() {
                    *place = self.at(by_step[n - 1 - i], by_step[n - 1 - j]);
                }
                row[i] = (f64::from(row[i]) + damping * mean) as f32;
            }
            if cholesky(cpu, &mut lower, n) {
                return Some(Factor::of(lower, by_step, (damping * mean) as f32));
            }
            damping *= MORE_DAMPING;
        }
        None
    }
}

impl Factor {
    /// From a Cholesky factor whose rows and columns go from last step to first.
    fn of(lower: Vec<f32>, order: Vec<usize>, damping: f32) -> Self {
        let n = order.len();
        // Its rows and columns by step.
        let mut upper = lower;
        upper.reverse();
        let diagonal: Vec<f32> = upper.iter().step_by(n + 1).copied().collect();
        let mut costs = vec![0.0; n];
        for (step, row) in upper.chunks_exact_mut(n).enumerate() {
            costs[order[step]] = diagonal[step] * diagonal[step];
            let (before, from) = row.split_at_mut(step);
            before.fill(0.0);
            from.iter_mut().zip(&diagonal[step..]).for_each(|(value, scale)| *value /= scale);
        }
        Factor { order, upper, costs, damping }
    }

    /// Multiplies rows, `[rows, cols]`, by the inverse of the damped `H`.
    pub fn solve(&self, cpu: &Cpu, values: &mut [f32]) {
        let n = self.cols();
        let rows = values.len() / n;
        let upper = |row: usize, col: usize| Mat::new(&self.upper[row * n + col..], n);
        let mut by_step: Vec<f32> =
            values.chunks_exact(n).flat_map(|row| self.order.iter().map(|col| row[*col])).collect();
        let mut taken = Vec::new();
        let blocks: Vec<_> = (0..n).step_by(BLOCK).map(|first| first..(first + BLOCK).min(n)).collect();
        // Times the inverses of `U^T`, from the last step to the first, and of `D`.
        for block in blocks.iter().rev() {
            let (first, width, later) = (block.start, block.len(), n - block.end);
            taken.resize(rows * width, 0.0);
            if later > 0 {
                let solved = Mat::new(&by_step[block.end..], n);
                gemm(cpu, rows, width, later, solved, upper(first, block.end).t(), false, &mut taken);
            }
            for (row, taken) in by_step.chunks_exact_mut(n).zip(taken.chunks_exact(width)) {
                for (step, taken) in block.clone().zip(taken).rev() {
                    let upper = &self.upper[step * n..][step + 1..block.end];
                    let inside: f32 = row[step + 1..block.end].iter().zip(upper).map(|(v, u)| v * u).sum();
                    row[step] -= taken + inside;
                }
            }
            taken.fill(0.0);
        }
        for row in by_step.chunks_exact_mut(n) {
            row.iter_mut().zip(&self.order).for_each(|(value, col)| *value /= self.costs[*col]);
        }
        // Times that of `U`, from the first step to the last.
        for block in &blocks {
            let (first, width) = (block.start, block.len());
            taken.resize(rows * width, 0.0);
            if first > 0 {
                gemm(cpu, rows, width, first, Mat::new(&by_step, n), upper(0, first), false, &mut taken);
            }
            for (row, taken) in by_step.chunks_exact_mut(n).zip(taken.chunks_exact(width)) {
                row[block.clone()].iter_mut().zip(taken).for_each(|(value, taken)| *value -= taken);
                for step in block.clone() {
                    let (done, later) = row.split_at_mut(step + 1);
                    let upper = &self.upper[step * n..][step + 1..block.end];
                    later.iter_mut().zip(upper).for_each(|(value, u)| *value -= done[step] * u);
                }
            }
            taken.fill(0.0);
        }
        for (row, by_step) in values.chunks_exact_mut(n).zip(by_step.chunks_exact(n)) {
            self.order.iter().zip(by_step).for_each(|(col, value)| row[*col] = *value);
        }
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.order.len()
    }
}

/// Replaces the lower triangle of a symmetric matrix, `[n, n]`, by its Cholesky factor; `false` where it is not positive definite.
/// Blocks of columns one after another: what earlier ones take off is a product in f32, the rest is done in f64.
fn cholesky(cpu: &Cpu, a: &mut [f32], n: usize) -> bool {
    let mut taken = Vec::new();
    for first in (0..n).step_by(BLOCK) {
        let (width, below) = (BLOCK.min(n - first), n - first);
        if first > 0 {
            taken.resize(below * width, 0.0);
            let done = Mat { data: &a[first * n..], row_stride: n, col_stride: 1 };
            gemm(cpu, below, width, first, done, done.t(), false, &mut taken[..below * width]);
            for (row, taken) in a[first * n..].chunks_exact_mut(n).zip(taken.chunks_exact(width)) {
                row[first..first + width].iter_mut().zip(taken).for_each(|(value, taken)| *value -= taken);
            }
        }
        let (block, rest) = a[first * n..].split_at_mut(width * n);
        let Some(diagonal) = diagonal_block(block, n, first, width) else { return false };
        cpu.pool.for_rows(below - width, 16, [(rest, n)], |_, [rows]| {
            for row in rows.chunks_exact_mut(n) {
                let row = &mut row[first..first + width];
                let mut solved = [0.0f64; BLOCK];
                for j in 0..width {
                    let before: f64 = (0..j).map(|k| solved[k] * diagonal[j * width + k]).sum();
                    solved[j] = (f64::from(row[j]) - before) / diagonal[j * width + j];
                }
                row.iter_mut().zip(solved).for_each(|(value, solved)| *value = solved as f32);
            }
        });
    }
    true
}

/// Factorizes a block on the diagonal, the columns from `first` on of its rows, and returns the factor, `[width, width]`.
fn diagonal_block(rows: &mut [f32], n: usize, first: usize, width: usize) -> Option<Vec<f64>> {
    let mut factor = vec![0.0f64; width * width];
    for i in 0..width {
        for j in 0..=i {
            let before: f64 = (0..j).map(|k| factor[i * width + k] * factor[j * width + k]).sum();
            let left = f64::from(rows[i * n + first + j]) - before;
            factor[i * width + j] = match i == j {
                true if left > 0.0 && left.is_finite() => left.sqrt(),
                true => return None,
                false => left / factor[j * width + j],
            };
            rows[i * n + first + j] = factor[i * width + j] as f32;
        }
    }
    Some(factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowbit_base::SplitMix64;

    #[test]
    fn the_factors_multiply_to_the_damped_hessian() {
        let cpu = Cpu::new(None, None).expect("a CPU");
        for cols in [1, 3, 64, 150] {
            let mut random = SplitMix64::new(7);
            let x: Vec<f32> =
                (0..cols * 97).map(|i| (random.unit() - 0.5) as f32 * if i % cols == 2 { 0.0 } else { 1.0 }).collect();
            let hessian = Hessian::new(&cpu, &x, cols, &vec![1.0; 97]);
            let mean_square = |c: usize, d: usize| -> f64 {
                let products = x.chunks_exact(cols).map(|row| f64::from(row[c]) * f64::from(row[d]));
                products.sum::<f64>() / 97.0
            };
            let mean = (0..cols).map(|c| mean_square(c, c)).sum::<f64>() / cols as f64;
            for order in [Order::Columns, Order::Activations] {
                let factor = hessian.factor(&cpu, order).expect("finite");
                let mut seen = factor.order.clone();
                seen.sort_unstable();
                assert_eq!(seen, (0..cols).collect::<Vec<_>>());
                if order == Order::Activations {
                    let ordered: Vec<f64> = factor.order.iter().map(|c| mean_square(*c, *c)).collect();
                    assert!(ordered.windows(2).all(|pair| pair[0] >= pair[1] - 1e-5));
                }
                let mut solved: Vec<f32> = (0..3 * cols).map(|_| random.unit() as f32).collect();
                let want = solved.clone();
                factor.solve(&cpu, &mut solved);
                let damped = Hessian::new(&cpu, &x, cols, &[1.0; 97]).damped(factor.damping);
                let mut back = vec![0.0; 3 * cols];
                gemm(&cpu, 3, cols, cols, Mat::new(&solved, cols), Mat::new(&damped, cols), false, &mut back);
                assert!(back.iter().zip(&want).all(|(back, want)| (back - want).abs() < 1e-3), "{cols} {order:?}");
                for s in 0..cols {
                    for t in 0..cols {
                        let product: f64 = (s.max(t)..cols)
                            .map(|k| {
                                let of = |r: usize| f64::from(factor.upper[r * cols + k]);
                                of(s) * of(t) * f64::from(factor.costs[factor.order[k]])
                            })
                            .sum();
                        let (c, d) = (factor.order[s], factor.order[t]);
                        let want = mean_square(c, d) + if c == d { 0.01 * mean } else { 0.0 };
                        assert!(
                            (product - want).abs() < 1e-4 * mean.max(1e-6),
                            "{cols} {order:?} [{s}, {t}]: {product} {want}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn tokens_of_massive_inputs_count_as_the_median_one() {
        let x = [3.0, 4.0, 0.0, 1.0, 600.0, 800.0];
        let factors = evened(&norms(&x, 2).collect::<Vec<_>>());
        assert_eq!(factors, [1.0, 1.0, 0.005]);
        assert_eq!(weighted(&x, 2, &factors).collect::<Vec<_>>(), [3.0, 4.0, 0.0, 1.0, 3.0, 4.0]);
        assert_eq!(evened(&[0.0; 2]), [1.0; 2]);
    }

    #[test]
    fn parts_of_any_length_make_the_bits_of_the_whole() {
        let cpu = Cpu::new(None, None).expect("a CPU");
        let (cols, tokens) = (5, TOKENS + 700);
        let mut random = SplitMix64::new(3);
        let x: Vec<f32> = (0..tokens * cols).map(|_| random.unit() as f32 - 0.5).collect();
        let factors: Vec<f32> = (0..tokens).map(|_| random.unit() as f32).collect();
        let whole = Hessian::new(&cpu, &x, cols, &factors).damped(0.0);
        let mut product = Cross::new(cols, cols, tokens);
        product.add(&cpu, (&x, &x), &factors);
        let product = product.end(&cpu);
        for part in [1, 333, TOKENS] {
            let (mut hessian, mut cross) = (Hessian::over(cols, tokens), Cross::new(cols, cols, tokens));
            for (x, factors) in x.chunks(part * cols).zip(factors.chunks(part)) {
                hessian.add(&cpu, x, factors);
                cross.add(&cpu, (x, x), factors);
            }
            assert_eq!(hessian.end(&cpu).damped(0.0), whole, "{part}");
            assert_eq!(cross.end(&cpu), product, "{part}");
        }
        let by_cross = product.iter().zip(&whole).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(by_cross && whole[0] > 0.01);
    }

    #[test]
    fn inputs_that_are_not_numbers_have_no_factor() {
        let cpu = Cpu::new(None, None).expect("a CPU");
        assert!(Hessian::new(&cpu, &[1.0, f32::NAN], 2, &[1.0]).factor(&cpu, Order::Columns).is_none());
        let dead = Hessian::new(&cpu, &[0.0; 8], 2, &[1.0; 4]).factor(&cpu, Order::Activations).expect("damped");
        assert_eq!((dead.order, dead.upper), (vec![0, 1], vec![1.0, 0.0, 0.0, 1.0]));
    }
}
