//! Windows that slide over images: the shapes of convolution and pooling, and the copies between images and windows.
//!
//! An image is `[height, width, channels]`, so that the inputs of a window lie in a few stretches, one a row of the kernel. Windows are
//! gathered some at a time (implicit im2col): products in any format multiply them as they multiply tokens.

use lowbit_kernels::Pool;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Values that one task copies or compares, about.
const TASK: usize = 1 << 14;
/// Values of the windows that are gathered at a time.
const GATHERED: usize = 1 << 18;

/// A window of `[height, width]` that slides over images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Height and width of an image.
    pub input: [usize; 2],
    /// Channels of an image.
    pub channels: usize,
    /// Height and width of the window.
    pub kernel: [usize; 2],
    /// Pixels it moves by, down and to the right.
    pub stride: [usize; 2],
    /// Pixels beyond each edge of the image, above and beside: zeros in a convolution, nothing in a maximum.
    pub padding: [usize; 2],
}

/// What pooling takes of a window, channel by channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowPooling {
    /// The largest value.
    Max,
    /// The sum by the size of the window; beyond the edges are zeros, as in torch.
    Mean,
}

impl Window {
    /// A window as high as wide, with the same stride and padding both ways.
    pub fn square(input: [usize; 2], channels: usize, kernel: usize, stride: usize, padding: usize) -> Self {
        Window { input, channels, kernel: [kernel; 2], stride: [stride; 2], padding: [padding; 2] }
    }

    /// The window that is the image: a linear layer over all of its pixels, or global pooling.
    pub fn whole(input: [usize; 2], channels: usize) -> Self {
        Window { input, channels, kernel: input, stride: [1; 2], padding: [0; 2] }
    }

    /// Why no such window slides over such an image, if it is so.
    ///
    /// # Errors
    /// Names sizes and remedy.
    pub fn check(&self) -> Result<(), String> {
        let Window { input, channels, kernel, stride, padding } = *self;
        let sizes = input.into_iter().chain(kernel).chain(stride).chain([channels]);
        if sizes.clone().any(|size| size == 0) {
            return Err(format!(
                "image {input:?} of {channels} channels, window {kernel:?}, stride {stride:?}: all must be at least 1"
            ));
        }
        if sizes.chain(padding).any(|size| size > 1 << 20) {
            return Err(format!("image {input:?}, window {kernel:?}, padding {padding:?}: at most {} each", 1 << 20));
        }
        if (0..2).any(|i| kernel[i] > input[i] + 2 * padding[i]) {
            return Err(format!("window {kernel:?} is larger than the image {input:?} with padding {padding:?}"));
        }
        if (0..2).any(|i| 2 * padding[i] > kernel[i]) {
            return Err(format!("padding {padding:?} is more than half of the window {kernel:?}"));
        }
        Ok(())
    }

    /// Height and width of what it makes of an image.
    pub fn output(&self) -> [usize; 2] {
        std::array::from_fn(|i| (self.input[i] + 2 * self.padding[i] - self.kernel[i]) / self.stride[i] + 1)
    }

    /// Windows of an image.
    pub fn pixels(&self) -> usize {
        self.output().iter().product()
    }

    /// Pixels of a window.
    pub fn positions(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Values of a window: `[kernel height, kernel width, channels]`.
    pub fn columns(&self) -> usize {
        self.positions() * self.channels
    }

    /// Values of an image.
    pub fn values(&self) -> usize {
        self.input[0] * self.input[1] * self.channels
    }

    /// Images of so many values together.
    ///
    /// # Panics
    /// When they are not whole images.
    pub fn images(&self, values: usize) -> usize {
        assert!(values.is_multiple_of(self.values()), "{values} values in images of {}", self.values());
        values / self.values()
    }

    /// Whether windows lie in images one after another: nothing is to be gathered.
    pub fn is_plain(&self) -> bool {
        let is_pixel = self.kernel == [1; 2] && self.stride == [1; 2];
        self.padding == [0; 2] && (is_pixel || self.kernel == self.input)
    }

    /// Windows that are gathered at a time.
    pub fn at_once(&self) -> usize {
        (GATHERED / self.columns()).max(1)
    }

    /// The part of a row of a window inside of its image, by the number of the window in a row of windows: where its values begin in
    /// the row of the window and in that of the image, and how many there are.
    fn stretch(&self, across: usize) -> (usize, usize, usize) {
        let Window { input: [_, width], channels, kernel, padding, .. } = *self;
        let left = across * self.stride[1];
        let from = padding[1].saturating_sub(left);
        let to = kernel[1].min((width + padding[1]).saturating_sub(left));
        match from < to {
            true => (from * channels, (left + from - padding[1]) * channels, (to - from) * channels),
            false => (0, 0, 0),
        }
    }

    /// The rows of a window inside of its image: where the values of each begin in the window and in the image, and how many there
    /// are.
    fn stretches(&self, pixel: usize) -> impl Iterator<Item = (usize, usize, usize)> + use<> {
        let Window { input: [height, width], channels, kernel, stride, padding } = *self;
        let columns = self.output()[1];
        let (top, (to, from, len)) = (pixel / columns * stride[0], self.stretch(pixel % columns));
        (0..kernel[0]).filter_map(move |row| {
            let y = (top + row).checked_sub(padding[0]).filter(|y| *y < height)?;
            Some((row * kernel[1] * channels + to, y * width * channels + from, len))
        })
    }

    /// Copies some windows, counted over all images, of images `x`: `[windows, columns]`.
    pub fn gather(&self, pool: &Pool, x: &[f32], windows: Range<usize>, out: &mut [f32]) {
        let (pixels, columns) = (self.pixels(), self.columns());
        pool.for_rows(windows.len(), TASK / columns + 1, [(out, columns)], |range, [out]| {
            for (i, out) in range.zip(out.chunks_exact_mut(columns)) {
                let window = windows.start + i;
                let image = &x[window / pixels * self.values()..][..self.values()];
                if self.padding != [0; 2] {
                    out.fill(0.0);
                }
                for (to, from, len) in self.stretches(window % pixels) {
                    out[to..to + len].copy_from_slice(&image[from..from + len]);
                }
            }
        });
    }

    /// Adds some windows, counted over all images, to the images they were copied from.
    pub fn scatter(&self, pool: &Pool, from: &[f32], windows: Range<usize>, dx: &mut [f32]) {
        let Window { input: [height, width], channels, stride, padding, .. } = *self;
        let ([down, across], pixels, columns) = (self.output(), self.pixels(), self.columns());
        let images = windows.start / pixels..windows.end.div_ceil(pixels);
        let (line, dx) = (width * channels, &mut dx[images.start * self.values()..images.end * self.values()]);
        // A task owns rows of images, and takes from each window that touches them.
        pool.for_rows(images.len() * height, TASK / line + 1, [(dx, line)], |range, [dx]| {
            for (row, dx) in range.zip(dx.chunks_exact_mut(line)) {
                let (image, y) = (images.start + row / height, row % height);
                for place in 0..self.kernel[0] {
                    let top = (y + padding[0]).checked_sub(place).filter(|top| top.is_multiple_of(stride[0]));
                    let Some(top) = top.map(|top| top / stride[0]).filter(|top| *top < down) else { continue };
                    let first = image * pixels + top * across;
                    for window in first.max(windows.start)..(first + across).min(windows.end) {
                        let (at, to, len) = self.stretch(window - first);
                        let at = (window - windows.start) * columns + place * self.kernel[1] * channels + at;
                        dx[to..to + len].iter_mut().zip(&from[at..at + len]).for_each(|(sum, v)| *sum += v);
                    }
                }
            }
        });
    }

    /// Pools images `x`: `[images * pixels, channels]`.
    pub fn pool(&self, pool: &Pool, how: WindowPooling, x: &[f32], y: &mut [f32]) {
        let (pixels, channels) = (self.pixels(), self.channels);
        let factor = 1.0 / self.positions() as f32;
        pool.for_rows(self.images(x.len()) * pixels, TASK / self.columns() + 1, [(y, channels)], |range, [y]| {
            for (window, y) in range.zip(y.chunks_exact_mut(channels)) {
                let image = &x[window / pixels * self.values()..][..self.values()];
                let found = self
                    .stretches(window % pixels)
                    .flat_map(|(_, from, len)| image[from..from + len].chunks_exact(channels));
                match how {
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

    /// Adds the gradient of [`Window::pool`] of images `x` by them, `dy` being that of its output: the first of several largest values
    /// has all of it.
    pub fn pool_backward(&self, pool: &Pool, how: WindowPooling, x: &[f32], dy: &[f32], dx: &mut [f32]) {
        let (pixels, channels, values) = (self.pixels(), self.channels, self.values());
        let factor = 1.0 / self.positions() as f32;
        pool.for_rows(self.images(x.len()), TASK / values + 1, [(dx, values)], |range, [dx]| {
            let mut largest = vec![(0, 0.0); channels];
            for (image, dx) in range.zip(dx.chunks_exact_mut(values)) {
                let x = &x[image * values..][..values];
                for (pixel, dy) in dy[image * pixels * channels..].chunks_exact(channels).take(pixels).enumerate() {
                    let places =
                        || self.stretches(pixel).flat_map(|(_, from, len)| (from..from + len).step_by(channels));
                    match how {
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
pub fn affine([weight, bias, mean, variance]: [&[f32]; 4], eps: f32) -> Vec<[f32; 2]> {
    let all = weight.iter().zip(bias).zip(mean.iter().zip(variance));
    all.map(|((weight, bias), (mean, variance))| {
        let factor = f64::from(*weight) / (f64::from(*variance) + f64::from(eps)).sqrt();
        [factor as f32, (f64::from(*bias) - f64::from(*mean) * factor) as f32]
    })
    .collect()
}

/// Writes `x * factor + summand`, `[rows, channels]`.
pub fn apply_affine(pool: &Pool, affine: &[[f32; 2]], x: &[f32], y: &mut [f32]) {
    let width = affine.len();
    pool.for_rows(x.len() / width, TASK / width + 1, [(y, width)], |range, [y]| {
        let rows = x[range.start * width..range.end * width].chunks_exact(width);
        for (x, y) in rows.zip(y.chunks_exact_mut(width)) {
            for ((y, x), [factor, summand]) in y.iter_mut().zip(x).zip(affine) {
                *y = x * factor + summand;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Window> {
        let mut all = Vec::new();
        for input in [[1, 1], [5, 7], [8, 6]] {
            for (kernel, padding) in [([1, 1], [0, 0]), ([3, 3], [1, 1]), ([2, 3], [0, 1]), ([5, 5], [2, 2])] {
                for stride in [[1, 1], [2, 2], [2, 1]] {
                    all.push(Window { input, channels: 3, kernel, stride, padding });
                }
            }
            all.push(Window::whole(input, 3));
        }
        all.retain(|window| window.check().is_ok());
        // Windows beyond the edges, as zeros around channels have them.
        all.push(Window { input: [4, 3], channels: 2, kernel: [1, 1], stride: [1, 1], padding: [0, 2] });
        all
    }

    /// The value of an image under a place of a window, by the definition; none beyond the edges.
    fn under(window: &Window, x: &[f32], w: usize, place: usize, c: usize) -> Option<f32> {
        let (image, pixel) = (w / window.pixels(), w % window.pixels());
        let across = window.output()[1];
        let y = (pixel / across * window.stride[0] + place / window.kernel[1]).checked_sub(window.padding[0])?;
        let at = (pixel % across * window.stride[1] + place % window.kernel[1]).checked_sub(window.padding[1])?;
        (y < window.input[0] && at < window.input[1])
            .then(|| x[((image * window.input[0] + y) * window.input[1] + at) * window.channels + c])
    }

    #[test]
    fn windows_are_those_of_the_definition_and_their_gradients_add_up() {
        let pool = Pool::new(3);
        for window in all() {
            let (images, columns) = (2, window.columns());
            let x: Vec<f32> = (0..images * window.values()).map(|i| ((i * 37 + 11) % 101) as f32 - 50.0).collect();
            let count = images * window.pixels();
            let mut found = vec![f32::NAN; count * columns];
            window.gather(&pool, &x, 0..count, &mut found);
            let mut summed = vec![0.0; x.len()];
            let mut max = vec![0.0; count * window.channels];
            let mut mean = max.clone();
            window.pool(&pool, WindowPooling::Max, &x, &mut max);
            window.pool(&pool, WindowPooling::Mean, &x, &mut mean);
            for w in 0..count {
                for c in 0..window.channels {
                    let places = || (0..window.positions()).map(|place| under(&window, &x, w, place, c));
                    for (place, expected) in places().enumerate() {
                        assert_eq!(
                            found[w * columns + place * window.channels + c],
                            expected.unwrap_or(0.0),
                            "{window:?}"
                        );
                    }
                    let largest = places().flatten().fold(f32::NEG_INFINITY, f32::max);
                    assert_eq!(max[w * window.channels + c], largest, "{window:?}");
                    let sum: f32 = places().flatten().sum();
                    let error = mean[w * window.channels + c] - sum / window.positions() as f32;
                    assert!(error.abs() < 1e-4, "{window:?}");
                }
            }
            // Any cut of the windows gives the same: <gather(x), g> = <x, scatter(g)>.
            let g: Vec<f32> = (0..found.len()).map(|i| ((i * 13 + 5) % 17) as f32 - 8.0).collect();
            for range in [0..count / 3, count / 3..count] {
                let mut part = vec![f32::NAN; range.len() * columns];
                window.gather(&pool, &x, range.clone(), &mut part);
                assert_eq!(part, found[range.start * columns..range.end * columns]);
                window.scatter(&pool, &g[range.start * columns..range.end * columns], range, &mut summed);
            }
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
            assert_eq!(dot(&found, &g), dot(&x, &summed), "{window:?}");
        }
    }

    #[test]
    fn windows_that_do_not_fit_are_refused() {
        for (window, word) in [
            (Window::square([4, 4], 1, 5, 1, 0), "larger than the image"),
            (Window::square([4, 4], 1, 3, 0, 0), "at least 1"),
            (Window::square([4, 4], 0, 3, 1, 0), "at least 1"),
            (Window::square([4, 4], 1, 3, 1, 2), "more than half"),
            (Window::square([1 << 21, 4], 1, 3, 1, 1), "at most"),
        ] {
            let text = window.check().expect_err("refused");
            assert!(text.contains(word), "{window:?}: {text}");
        }
    }
}
