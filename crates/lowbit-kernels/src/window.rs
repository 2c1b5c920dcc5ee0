//! Windows that slide over images: the shape of convolution and pooling, and the copies between images and windows.
//!
//! An image is `[height, width, channels]`, so that the inputs of a window lie in a few stretches, one a row of the kernel. A product
//! takes windows as the rows of a matrix that is never stored (implicit im2col): each task copies those it multiplies.

use crate::Pool;
use crate::simd::LANES;
use std::ops::Range;

/// Values that one task copies, about.
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
    #[inline(always)]
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
    pub fn stretches(&self, pixel: usize) -> impl Iterator<Item = (usize, usize, usize)> + use<> {
        let Window { input: [height, width], channels, kernel, stride, padding } = *self;
        let columns = self.output()[1];
        let (top, (to, from, len)) = (pixel / columns * stride[0], self.stretch(pixel % columns));
        (0..kernel[0]).filter_map(move |row| {
            let y = (top + row).checked_sub(padding[0]).filter(|y| *y < height)?;
            Some((row * kernel[1] * channels + to, y * width * channels + from, len))
        })
    }

    /// Windows over the gradient of a convolution of `out` channels whose products with its weights, positions backwards, are the gradient
    /// of the images; none where windows pass over pixels.
    pub fn reversed(&self, out: usize) -> Option<Window> {
        let padding = [0, 1].map(|i| (self.kernel[i] - 1).checked_sub(self.padding[i]));
        let ([Some(down), Some(across)], [1, 1]) = (padding, self.stride) else { return None };
        Some(Window { input: self.output(), channels: out, padding: [down, across], ..*self })
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
}

/// Windows of images as the rows of a matrix `[windows, columns]` that is not stored.
#[derive(Clone, Copy, Debug)]
pub struct Windows<'a> {
    window: Window,
    images: &'a [f32],
    /// The first of them, counted over all images.
    first: usize,
    count: usize,
}

impl<'a> Windows<'a> {
    /// All windows of images, `[images, height, width, channels]`.
    ///
    /// # Panics
    /// When they are not whole images.
    pub fn new(window: Window, images: &'a [f32]) -> Self {
        Windows { window, images, first: 0, count: window.images(images.len()) * window.pixels() }
    }

    /// Some of them.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn range(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.count, "windows {range:?} of {}", self.count);
        Windows { first: self.first + range.start, count: range.len(), ..self }
    }

    /// Number of windows.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Values of a window.
    pub fn columns(&self) -> usize {
        self.window.columns()
    }

    /// The windows as values that lie one after another, where they do.
    pub fn stored(&self) -> Option<&'a [f32]> {
        let columns = self.columns();
        self.window.is_plain().then(|| &self.images[self.first * columns..][..self.count * columns])
    }

    /// All values, `[windows, columns]`.
    pub fn gather(&self) -> Vec<f32> {
        let mut all = vec![0.0; self.count * self.columns()];
        self.gather_rows(0..self.count, &mut all);
        all
    }

    /// Writes all values, `[windows, columns]`.
    ///
    /// # Panics
    /// When there is not room for them alone.
    pub fn gather_into(&self, pool: &Pool, out: &mut [f32]) {
        let columns = self.columns();
        pool.for_rows(self.count, TASK / columns + 1, [(out, columns)], |rows, [out]| self.gather_rows(rows, out));
    }

    fn gather_rows(&self, rows: Range<usize>, out: &mut [f32]) {
        let columns = self.columns();
        rows.zip(out.chunks_exact_mut(columns)).for_each(|(row, out)| self.copy(row, 0..columns, out));
    }

    /// Values of a row of a window.
    pub(crate) fn line(&self) -> usize {
        self.window.kernel[1] * self.window.channels
    }

    /// Copies some columns of a window.
    #[inline(always)]
    pub(crate) fn copy(&self, row: usize, columns: Range<usize>, out: &mut [f32]) {
        self.copy_rows(row..row + 1, columns, out.len().max(1), out);
    }

    /// Copies some columns of some windows, `stride` numbers apart.
    #[inline(always)]
    pub(crate) fn copy_rows(&self, rows: Range<usize>, columns: Range<usize>, stride: usize, out: &mut [f32]) {
        let ([down, across], line) = (self.window.output(), self.line());
        let first = self.first + rows.start;
        let (mut image, mut y, mut x) = (first / (down * across), first / across % down, first % across);
        let place = columns.start / line;
        for out in out.chunks_mut(stride).take(rows.len()) {
            let values = &self.images[image * self.window.values()..][..self.window.values()];
            let (mut start, mut place) = (columns.start, place);
            let mut out = &mut out[..columns.len()];
            while start < columns.end {
                let end = columns.end.min((place + 1) * line);
                let (part, rest) = out.split_at_mut(end - start);
                self.copy_line(values, [y, x], place, start - place * line, part);
                (out, start, place) = (rest, end, place + 1);
            }
            x += 1;
            if x == across {
                (x, y) = (0, y + 1);
            }
            if y == down {
                (y, image) = (0, image + 1);
            }
        }
    }

    /// Copies values of a row of a window from `start` on.
    #[inline(always)]
    fn copy_line(&self, image: &[f32], [y, x]: [usize; 2], place: usize, start: usize, out: &mut [f32]) {
        let Window { input: [height, width], channels, stride, padding, .. } = self.window;
        let y = (y * stride[0] + place).wrapping_sub(padding[0]);
        let (to, from, len) = self.window.stretch(x);
        // The values inside of the image.
        let (begin, end) = (to.max(start), (to + len).min(start + out.len()));
        if y >= height || begin >= end {
            return out.fill(0.0);
        }
        let values = &image[y * width * channels + from + begin - to..][..end - begin];
        out[..begin - start].fill(0.0);
        out[end - start..].fill(0.0);
        let (vectors, rest) = out[begin - start..end - start].as_chunks_mut::<LANES>();
        let (from, last) = values.as_chunks::<LANES>();
        vectors.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        rest.copy_from_slice(last);
    }

    /// Whether some columns are channels of one pixel of a window.
    #[inline(always)]
    pub(crate) fn is_one_pixel(&self, columns: &Range<usize>) -> bool {
        columns.start % self.window.channels + columns.len() <= self.window.channels
    }

    /// Calls `each(row, values)` for some columns of all windows in order; there are none where they lie beyond the edges.
    ///
    /// # Panics
    /// When the columns are not channels of one pixel of a window.
    #[inline(always)]
    pub(crate) fn for_columns(&self, columns: Range<usize>, mut each: impl FnMut(usize, &'a [f32])) {
        let Window { input: [height, width], channels, kernel, stride, padding } = self.window;
        let [down, across] = self.window.output();
        assert!(self.is_one_pixel(&columns), "columns {columns:?} of one pixel of {channels} channels");
        let (place, channel) = (columns.start / channels, columns.start % channels);
        let (below, beside) = (place / kernel[1], place % kernel[1]);
        // Windows of a row of them that have the pixel inside of the image.
        let begin = padding[1].saturating_sub(beside).div_ceil(stride[1]).min(across);
        let end = (width + padding[1]).saturating_sub(beside).div_ceil(stride[1]).min(across).max(begin);
        let mut row = 0;
        while row < self.count {
            let (line, left) = ((self.first + row) / across, (self.first + row) % across);
            let y = (line % down * stride[0] + below).checked_sub(padding[0]).filter(|y| *y < height);
            let right = across.min(left + self.count - row);
            let inside = if y.is_some() { begin.clamp(left, right)..end.clamp(left, right) } else { left..left };
            let at = |x: usize| ((line / down * height + y.unwrap_or(0)) * width + x) * channels + channel;
            (left..inside.start).for_each(|i| each(row + i - left, &[]));
            if !inside.is_empty() {
                let first = at(inside.start * stride[1] + beside - padding[1]);
                let values = self.images[first..].chunks(stride[1] * channels);
                for (i, values) in inside.clone().zip(values) {
                    each(row + i - left, &values[..columns.len()]);
                }
            }
            (inside.end..right).for_each(|i| each(row + i - left, &[]));
            row += right - left;
        }
    }
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
            Windows::new(window, &x).gather_into(&pool, &mut found);
            for (at, found) in found.iter().enumerate() {
                let (w, column) = (at / columns, at % columns);
                let expected = under(&window, &x, w, column / window.channels, column % window.channels);
                assert_eq!(*found, expected.unwrap_or(0.0), "{window:?}");
            }
            // Any cut of the windows gives the same: <gather(x), g> = <x, scatter(g)>.
            let g: Vec<f32> = (0..found.len()).map(|i| ((i * 13 + 5) % 17) as f32 - 8.0).collect();
            let mut summed = vec![0.0; x.len()];
            for range in [0..count / 3, count / 3..count] {
                let values = range.start * columns..range.end * columns;
                assert_eq!(Windows::new(window, &x).range(range.clone()).gather(), found[values.clone()]);
                window.scatter(&pool, &g[values], range, &mut summed);
            }
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
            assert_eq!(dot(&found, &g), dot(&x, &summed), "{window:?}");
        }
    }

    #[test]
    fn parts_of_windows_are_those_of_whole_ones() {
        for window in all() {
            let x: Vec<f32> = (0..3 * window.values()).map(|i| i as f32 + 1.0).collect();
            let (all, columns, channels) = (Windows::new(window, &x), window.columns(), window.channels);
            let (first, whole) = (all.len() / 4, all.gather());
            let some = all.range(first..all.len() - first / 2);
            for range in (0..columns).flat_map(|start| (start..=columns).map(move |end| start..end)) {
                for row in 0..some.len() {
                    let mut part = vec![f32::NAN; range.len()];
                    some.copy(row, range.clone(), &mut part);
                    assert_eq!(part, whole[(first + row) * columns..][range.clone()], "{window:?} {range:?}");
                }
                if !range.is_empty() && range.start / channels == (range.end - 1) / channels {
                    let mut rows = 0;
                    some.for_columns(range.clone(), |row, values| {
                        let expected = &whole[(first + row) * columns..][range.clone()];
                        let values = if values.is_empty() { &vec![0.0; range.len()] } else { values };
                        assert_eq!((row, values), (rows, expected), "{window:?} {range:?}");
                        rows += 1;
                    });
                    assert_eq!(rows, some.len());
                }
            }
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
