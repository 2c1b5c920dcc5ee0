//! Pooling over windows of images, and batch normalization.

use lowbit_kernels::{Pool, Window};
use serde::{Deserialize, Serialize};

/// Values that one task compares, about.
const TASK: usize = 1 << 14;

/// What pooling takes of a window, channel by channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowPooling {
    /// The largest value.
    Max,
    /// The sum by the size of the window; beyond the edges are zeros, as in torch.
    Mean,
}

impl WindowPooling {
    /// Pools the windows of images `x`: `[images * pixels, channels]`.
    pub fn pool(self, pool: &Pool, window: &Window, x: &[f32], y: &mut [f32]) {
        let (pixels, channels) = (window.pixels(), window.channels);
        let factor = 1.0 / window.positions() as f32;
        pool.for_rows(window.images(x.len()) * pixels, TASK / window.columns() + 1, [(y, channels)], |range, [y]| {
            for (row, y) in range.zip(y.chunks_exact_mut(channels)) {
                let image = &x[row / pixels * window.values()..][..window.values()];
                let found = window
                    .stretches(row % pixels)
                    .flat_map(|(_, from, len)| image[from..from + len].chunks_exact(channels));
                match self {
                    WindowPooling::Max => {
                        y.fill(f32::NEG_INFINITY);
                        // NaN is kept, as in torch.
                        found.for_each(|x| {
                            y.iter_mut().zip(x).for_each(|(y, x)| *y = if *x > *y || x.is_nan() { *x } else { *y })
                        });
                    }
                    WindowPooling::Mean => {
                        y.fill(0.0);
                        found.for_each(|x| y.iter_mut().zip(x).for_each(|(y, x)| *y += x));
                        y.iter_mut().for_each(|y| *y *= factor);
                    }
                }
            }
        });
    }

    /// Adds the gradient of [`WindowPooling::pool`] of images `x` by them, `dy` being that of its output: the first of several largest
    /// values has all of it.
    pub fn backward(self, pool: &Pool, window: &Window, x: &[f32], dy: &[f32], dx: &mut [f32]) {
        let (pixels, channels, values) = (window.pixels(), window.channels, window.values());
        let factor = 1.0 / window.positions() as f32;
        pool.for_rows(window.images(x.len()), TASK / values + 1, [(dx, values)], |range, [dx]| {
            let mut largest = vec![(0, 0.0); channels];
            for (image, dx) in range.zip(dx.chunks_exact_mut(values)) {
                let x = &x[image * values..][..values];
                for (pixel, dy) in dy[image * pixels * channels..].chunks_exact(channels).take(pixels).enumerate() {
                    let places =
                        || window.stretches(pixel).flat_map(|(_, from, len)| (from..from + len).step_by(channels));
                    match self {
                        WindowPooling::Max => {
                            largest.fill((usize::MAX, f32::NEG_INFINITY));
                            for at in places() {
                                for (c, largest) in largest.iter_mut().enumerate() {
                                    if x[at + c] > largest.1 || largest.0 == usize::MAX || x[at + c].is_nan() {
                                        *largest = (at + c, x[at + c]);
                                    }
                                }
                            }
                            largest.iter().zip(dy).for_each(|((at, _), dy)| dx[*at] += dy);
                        }
                        WindowPooling::Mean => {
                            for at in places() {
                                dx[at..at + channels].iter_mut().zip(dy).for_each(|(dx, dy)| *dx += dy * factor);
                            }
                        }
                    }
                }
            }
        });
    }
}

/// Batch normalization of each channel (arXiv 1502.03167) with its parameters of type `P`, vectors of a number per channel.
#[derive(Clone, Debug)]
pub struct BatchNorm<P> {
    /// Factor.
    pub weight: P,
    /// Summand.
    pub bias: P,
    /// Running mean, of which training makes [`Role::Statistics`](crate::source::Role).
    pub mean: P,
    /// Running variance, likewise.
    pub variance: P,
    /// Added to the variance.
    pub eps: f32,
    /// Share of a batch in the running mean and variance.
    pub momentum: f32,
}

impl<P> BatchNorm<P> {
    /// Its parameters: weight, bias, mean, variance.
    pub fn params(&self) -> [&P; 4] {
        [&self.weight, &self.bias, &self.mean, &self.variance]
    }
}

/// What normalization by known statistics comes to: a factor and a summand of each channel.
pub fn affine([weight, bias, mean, variance]: [&[f32]; 4], eps: f32) -> [Vec<f32>; 2] {
    let all = weight.iter().zip(bias).zip(mean.iter().zip(variance));
    all.map(|((weight, bias), (mean, variance))| {
        let factor = f64::from(*weight) / (f64::from(*variance) + f64::from(eps)).sqrt();
        (factor as f32, (f64::from(*bias) - f64::from(*mean) * factor) as f32)
    })
    .collect::<(Vec<f32>, Vec<f32>)>()
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pooling_is_that_of_the_definition() {
        let pool = Pool::new(3);
        let windows = [([1, 1], [0, 0]), ([3, 3], [1, 1]), ([2, 3], [0, 1])];
        for (input, (kernel, padding)) in [[5, 7], [8, 6]].into_iter().flat_map(|input| windows.map(|w| (input, w))) {
            let window = Window { input, channels: 3, kernel, stride: [2, 1], padding };
            let x: Vec<f32> = (0..2 * window.values()).map(|i| ((i * 37 + 11) % 101) as f32 - 50.0).collect();
            let count = window.images(x.len()) * window.pixels();
            let mut max = vec![0.0; count * window.channels];
            let mut mean = max.clone();
            WindowPooling::Max.pool(&pool, &window, &x, &mut max);
            WindowPooling::Mean.pool(&pool, &window, &x, &mut mean);
            for (at, (max, mean)) in max.iter().zip(&mean).enumerate() {
                let (w, c) = (at / window.channels, at % window.channels);
                let image = &x[w / window.pixels() * window.values()..];
                let places = || {
                    let all = window.stretches(w % window.pixels());
                    all.flat_map(|(_, from, len)| image[from..from + len].iter().skip(c).step_by(window.channels))
                };
                assert_eq!(*max, places().copied().fold(f32::NEG_INFINITY, f32::max), "{window:?}");
                let sum: f32 = places().sum();
                assert!((mean - sum / window.positions() as f32).abs() < 1e-4, "{window:?}");
            }
        }
    }
}
