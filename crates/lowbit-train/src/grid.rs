//! A matrix in a format of integers in groups, in training: its codes are real numbers that are rounded in the forward pass, the backward
//! pass goes straight through, and scale and offset of each group follow their own gradients (LSQ: arXiv 1902.08153; EfficientQAT:
//! arXiv 2407.11062). Every pass has the weights that are stored.
//!
//! A weight is `w = q s + o`, `q = round(clamp(c, 0, most))`. With `g` the gradient of the loss by `w`, that by `c` is `g s`, whose size AdamW
//! does not see; by `s` it is the sum of `g q`, and by `o` the sum of `g`.

use lowbit_kernels::format::{Grouped, SpanScales};
use lowbit_kernels::simd::LANES;
use lowbit_kernels::{Cpu, Error, Op, Packed, Simd};
use lowbit_model::calibrate::Reach;

/// Numbers of a group: scale and offset that are wished, their first moments, and their second.
const NUMBERS: usize = 6;
/// How far from its code a number begins, as a share of how far the weight before rounding is.
const INSIDE: f32 = 0.5;
/// The learning rate of scales and offsets over that of codes: each moves a whole group.
const SCALES: f32 = 0.2;
/// How far beyond the codes a number may go.
const BEYOND: f32 = 0.49;
/// Values per task.
const CHUNK: usize = 16_384;

/// What the codes of a matrix mean.
#[derive(Debug)]
pub(crate) struct Grid {
    grouped: &'static dyn Grouped,
    reach: Reach,
    cols: usize,
    /// Power of two of each row.
    factors: Vec<f32>,
    /// `[rows, groups, NUMBERS]`
    wished: Vec<f32>,
}

/// How scales follow gradients: AdamW without decay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Adam {
    pub rate: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub epsilon: f32,
    /// Number of the update, from 1.
    pub step: u64,
}

impl Grid {
    /// The grid of a matrix, and its codes as real numbers, `[rows, cols]`: half way to the weights before rounding, `[rows, cols]`, where the
    /// code is the nearest, and the code itself where another was better for the outputs. `None` where the format does not give its
    /// codes back.
    pub fn of(packed: &Packed, weights: &[f32]) -> Option<(Grid, Vec<f32>)> {
        let grouped = packed.format().grouped()?;
        let (rows, cols, columns) = (packed.rows(), packed.cols(), grouped.columns());
        let (mut latents, mut factors) = (Vec::with_capacity(weights.len()), Vec::with_capacity(rows));
        let (mut spans, mut wished) = (Vec::new(), Vec::new());
        for (row, weights) in weights.chunks_exact(cols).enumerate() {
            let (codes, scales) = grouped.unpack(packed, row)?;
            factors.push(scales.first().map_or(1.0, |span| span.factor));
            let groups = scales.iter().flat_map(|span| &span.groups);
            let parts = codes.chunks(columns).zip(weights.chunks(columns));
            for ((scale, offset), (codes, weights)) in groups.zip(parts) {
                wished.extend([*scale, *offset, 0.0, 0.0, 0.0, 0.0]);
                for (code, weight) in codes.iter().zip(weights) {
                    let code = f32::from(*code);
                    let away = if *scale == 0.0 { 0.0 } else { (weight - offset) / scale - code };
                    latents.push(if away.abs() <= 0.5 { code + INSIDE * away } else { code });
                }
            }
            spans.extend(scales);
        }
        Some((Grid { grouped, reach: Reach::of(&spans), cols, factors, wished }, latents))
    }

    fn groups(&self) -> usize {
        self.cols.div_ceil(self.grouped.columns())
    }

    fn most(&self) -> f32 {
        f32::from(self.grouped.most())
    }

    fn grain(&self) -> usize {
        (CHUNK / self.cols).max(1)
    }

    /// The scales of a row as they are stored.
    fn spans(&self, row: usize) -> Vec<SpanScales> {
        let numbers = self.groups() * NUMBERS;
        let wished: Vec<(f32, f32)> =
            self.wished[row * numbers..][..numbers].chunks_exact(NUMBERS).map(|group| (group[0], group[1])).collect();
        let spans = wished.chunks(self.grouped.span() / self.grouped.columns());
        spans.map(|wished| self.reach.nearest(self.grouped, self.factors[row], wished)).collect()
    }

    /// The weights of codes, `[rows, cols]`, which are held within reach of the format.
    pub fn round(&self, cpu: &Cpu, latents: &mut [f32], out: &mut [f32]) {
        let (cols, columns) = (self.cols, self.grouped.columns());
        cpu.pool.for_rows(self.factors.len(), self.grain(), [(latents, cols), (out, cols)], |rows, [latents, out]| {
            let parts = latents.chunks_exact_mut(cols).zip(out.chunks_exact_mut(cols));
            for (row, (latents, out)) in rows.zip(parts) {
                let spans = self.spans(row);
                let groups = spans.iter().flat_map(|span| &span.groups);
                let parts = latents.chunks_mut(columns).zip(out.chunks_mut(columns));
                for (meaning, (latents, out)) in groups.zip(parts) {
                    cpu.isa.run(Round { latents, meaning: *meaning, most: self.most(), out });
                }
            }
        });
    }

    /// Moves scales and offsets by the gradient of the weights, `[rows, cols]`, that these codes gave, and makes it one of the codes, but for
    /// the size of the scale.
    pub fn learn(&mut self, cpu: &Cpu, latents: &[f32], gradient: &mut [f32], adam: Adam) {
        let (cols, columns, most) = (self.cols, self.grouped.columns(), self.most());
        let (numbers, grain, zero) = (self.groups() * NUMBERS, self.grain(), self.grouped.zero().map(f32::from));
        let (rows, adam) = (self.factors.len(), Adam { rate: adam.rate * SCALES, ..adam });
        cpu.pool.for_rows(rows, grain, [(&mut self.wished, numbers), (gradient, cols)], |range, [wished, gradient]| {
            let latents = &latents[range.start * cols..range.end * cols];
            let rows = latents.chunks_exact(cols).zip(gradient.chunks_exact_mut(cols));
            for (wished, (latents, gradient)) in wished.chunks_exact_mut(numbers).zip(rows) {
                let parts = latents.chunks(columns).zip(gradient.chunks_mut(columns));
                for (group, (latents, gradient)) in wished.chunks_exact_mut(NUMBERS).zip(parts) {
                    let (by_codes, by_ones) = cpu.isa.run(Sums { latents, gradient: &*gradient, most });
                    let [scale, offset, m_scale, m_offset, v_scale, v_offset] = group else { unreachable!() };
                    let size = scale.abs();
                    if *scale < 0.0 {
                        gradient.iter_mut().for_each(|g| *g = -*g);
                    }
                    // The middle of the codes moves about as far by the one as by the other.
                    let by = adam.step(by_codes - zero.unwrap_or(0.0) * by_ones, m_scale, v_scale);
                    *scale -= by * size * 2.0 / most;
                    let by = adam.step(by_ones, m_offset, v_offset);
                    *offset = zero.map_or(*offset - by * size, |zero| -zero * *scale);
                }
            }
        });
    }

    /// The matrix as it is stored: what it means are the weights of [`Grid::round`], bit by bit.
    ///
    /// # Errors
    /// When scales are not finite.
    pub fn pack(&self, latents: &[f32]) -> Result<Packed, Error> {
        let most = self.most();
        let codes: Vec<u8> = latents.iter().map(|c| c.clamp(0.0, most).round_ties_even() as u8).collect();
        let scales: Vec<SpanScales> = (0..self.factors.len()).flat_map(|row| self.spans(row)).collect();
        self.grouped.pack(self.factors.len(), self.cols, &codes, &scales)
    }
}

impl Adam {
    /// By how much to go, over the size of the number.
    fn step(self, gradient: f32, first: &mut f32, second: &mut f32) -> f32 {
        *first += (gradient - *first) * (1.0 - self.beta1);
        *second += (gradient * gradient - *second) * (1.0 - self.beta2);
        let whole = |beta: f32| 1.0 - beta.powi(self.step as i32);
        let root = (*second / whole(self.beta2)).sqrt();
        self.rate * (*first / whole(self.beta1)) / (root + self.epsilon)
    }
}

/// The weights of a group.
struct Round<'a> {
    latents: &'a mut [f32],
    meaning: (f32, f32),
    most: f32,
    out: &'a mut [f32],
}

impl Op for Round<'_> {
    type Out = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let (scale, offset) = (s.splat(self.meaning.0), s.splat(self.meaning.1));
        let (low, high) = (s.splat(-BEYOND), s.splat(self.most + BEYOND));
        for (latents, out) in self.latents.chunks_mut(LANES).zip(self.out.chunks_mut(LANES)) {
            let held = s.min(s.max(s.load_part(latents, 0.0), low), high);
            s.store_part(latents, held);
            s.store_part(out, s.fma(s.to_f(s.round_i(held)), scale, offset));
        }
    }
}

/// Sums of the gradient times the codes, and of the gradient.
struct Sums<'a> {
    latents: &'a [f32],
    gradient: &'a [f32],
    most: f32,
}

impl Op for Sums<'_> {
    type Out = (f32, f32);

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) -> (f32, f32) {
        let (low, high) = (s.splat(0.0), s.splat(self.most));
        let (mut by_codes, mut by_ones) = (s.splat(0.0), s.splat(0.0));
        for (latents, gradient) in self.latents.chunks(LANES).zip(self.gradient.chunks(LANES)) {
            let codes = s.to_f(s.round_i(s.min(s.max(s.load_part(latents, 0.0), low), high)));
            let gradient = s.load_part(gradient, 0.0);
            by_codes = s.fma(gradient, codes, by_codes);
            by_ones = s.fma(gradient, s.splat(1.0), by_ones);
        }
        (s.sum(by_codes), s.sum(by_ones))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowbit_kernels::{FORMATS, QuantizeOptions};

    const ROWS: usize = 5;
    const COLS: usize = 300;

    fn numbers(seed: u64, count: usize) -> Vec<f32> {
        let mut random = lowbit_base::SplitMix64::new(seed);
        (0..count).map(|_| random.unit() as f32 - 0.4).collect()
    }

    const ADAM: Adam = Adam { rate: 0.1, beta1: 0.9, beta2: 0.95, epsilon: 1e-20, step: 1 };

    /// Grids of the formats that give their codes back, over weights among which a row is far too large for f16 and one is 0.
    fn grids() -> Vec<(&'static str, Grid, Vec<f32>, Packed)> {
        let mut weights = numbers(3, ROWS * COLS);
        weights[COLS..2 * COLS].iter_mut().for_each(|w| *w *= 1e6);
        weights[2 * COLS..3 * COLS].fill(0.0);
        let made = FORMATS.iter().filter_map(|format| {
            format.grouped()?;
            let packed = format.quantize(&weights, ROWS, COLS, &QuantizeOptions::default()).expect("packs");
            Grid::of(&packed, &weights).map(|(grid, latents)| (format.name(), grid, latents, packed))
        });
        made.collect()
    }

    #[test]
    fn what_training_sees_is_what_is_stored() {
        let cpu = Cpu::new(None, Some(2)).expect("a CPU");
        let all = grids();
        assert!(all.len() > 12, "{}", all.len());
        for (name, mut grid, mut latents, packed) in all {
            let mut seen = vec![0.0; latents.len()];
            grid.round(&cpu, &mut latents, &mut seen);
            let off = |a: &[f32], b: &[f32]| {
                let square = |v: f32| f64::from(v) * f64::from(v);
                let error: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
                error / b.iter().map(|v| square(*v)).sum::<f64>()
            };
            assert!(off(&seen, &packed.dequantize()) < 1e-4, "{name}: begins as it was packed");
            for seed in 0..3 {
                let mut gradient = numbers(seed + 20, latents.len());
                grid.learn(&cpu, &latents, &mut gradient, ADAM);
                latents.iter_mut().zip(&gradient).for_each(|(c, g)| *c -= g);
            }
            grid.round(&cpu, &mut latents, &mut seen);
            let stored = grid.pack(&latents).expect("finite");
            let wrong = stored.dequantize().iter().zip(&seen).position(|(a, b)| a.to_bits() != b.to_bits() && a != b);
            assert_eq!(wrong, None, "{name}");
            assert!(seen != packed.dequantize(), "{name}: it moved");
            stored.format().validate(&stored).expect("valid");
        }
    }

    #[test]
    fn gradients_of_scales_and_offsets_are_those_of_the_weights() {
        let cpu = Cpu::new(None, Some(1)).expect("a CPU");
        for (name, mut grid, latents, _) in grids() {
            let gradient = numbers(7, latents.len());
            let (columns, most, zero) = (grid.grouped.columns(), grid.most(), grid.grouped.zero());
            // Finite differences of `sum(gradient * weight)` by the scale and the offset of a group.
            let of = |row: usize, group: usize, scale: f64, offset: f64| -> f64 {
                let from = row * COLS + group * columns;
                let to = (from + columns).min((row + 1) * COLS);
                let codes = latents[from..to].iter().map(|c| f64::from(c.clamp(0.0, most).round_ties_even()));
                let offset = zero.map_or(offset, |zero| -f64::from(zero) * scale);
                codes.zip(&gradient[from..to]).map(|(code, g)| f64::from(*g) * (code * scale + offset)).sum()
            };
            let before = grid.wished.clone();
            let mut by_codes = gradient.clone();
            grid.learn(&cpu, &latents, &mut by_codes, ADAM);
            for (row, col) in (0..ROWS).flat_map(|row| (0..COLS).map(move |col| (row, col))) {
                let scale = before[(row * grid.groups() + col / columns) * NUMBERS];
                let want = if scale < 0.0 { -gradient[row * COLS + col] } else { gradient[row * COLS + col] };
                assert_eq!(by_codes[row * COLS + col], want, "{name}: {row}, {col}");
            }
            for (at, (group, before)) in grid.wished.chunks_exact(NUMBERS).zip(before.chunks_exact(NUMBERS)).enumerate()
            {
                let (row, g) = (at / grid.groups(), at % grid.groups());
                let by_scale = of(row, g, 1.5, 0.0) - of(row, g, 0.5, 0.0);
                let near = |got: f32, want: f64| (f64::from(got) - want).abs() < 1e-4 * (1.0 + want.abs());
                assert!(near(group[2] / (1.0 - ADAM.beta1), by_scale), "{name}: {at}: {} {by_scale}", group[2]);
                // The first update of AdamW goes by the learning rate against the gradient.
                let moved = f64::from(before[0].abs() * SCALES * ADAM.rate * 2.0 / most) * by_scale.signum();
                let tolerance = 1e-4 * moved.abs() + 1e-6 * f64::from(before[0].abs());
                assert!((f64::from(before[0] - group[0]) - moved).abs() <= tolerance, "{name}: scale {at}");
                if zero.is_none() {
                    let by_offset = of(row, g, 1.0, 1.0) - of(row, g, 1.0, 0.0);
                    assert!(near(group[3] / (1.0 - ADAM.beta1), by_offset), "{name}: {at}: {} {by_offset}", group[3]);
                }
            }
        }
    }
}
