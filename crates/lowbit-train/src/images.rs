//! Convolution, batch normalization and pooling of images on a tape, with their gradients.

use crate::arena::Buffer;
use crate::backward::Record;
use crate::params::ParamId;
use crate::tape::{Pass, Tape, Tensor};
use lowbit_kernels::ops;
use lowbit_kernels::{Cpu, Mat, Operand, Windows, gemm_in};
use lowbit_model::exec::{BatchNorm, Window, WindowPooling};
use lowbit_model::window::affine;
use std::ops::Range;
use std::rc::Rc;

/// What the backward pass of a convolution needs: the images, whose windows are gathered anew.
pub(crate) struct Conv {
    images: Rc<Buffer>,
    weight: ParamId,
    bias: Option<ParamId>,
    window: Window,
    /// Whether windows are quantized to 8 bits.
    int8: bool,
    x: usize,
}

/// What the backward pass of a batch normalization needs.
pub(crate) struct Normalized {
    value: Rc<Buffer>,
    weight: ParamId,
    bias: ParamId,
    /// Mean of each column.
    mean: Vec<f32>,
    /// One by the standard deviation of each.
    scale: Vec<f64>,
    /// Whether they are those of the batch, and depend on it.
    of_batch: bool,
    x: usize,
}

/// What the backward pass of pooling windows needs.
pub(crate) struct Pooled {
    how: WindowPooling,
    window: Window,
    value: Rc<Buffer>,
    x: usize,
}

/// Windows as a convolution multiplies them: those that are quantized are stored some at a time.
struct Rounded(Option<[Buffer; 2]>);

impl Rounded {
    fn new(tape: &Tape, window: &Window, all: usize, int8: bool) -> Self {
        let len = window.at_once().min(all) * window.columns();
        Rounded(int8.then(|| [tape.arena.take(len), tape.arena.take(len)]))
    }

    /// Ranges of windows that are read at a time: all where none are stored.
    fn ranges(&self, window: &Window, all: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        ranges(all, if self.0.is_some() { window.at_once() } else { all.max(1) })
    }

    /// Some windows of images, `[windows, columns]`.
    fn read<'a>(&'a mut self, cpu: &Cpu, windows: Windows<'a>) -> Operand<'a> {
        let Some([gathered, quantized]) = &mut self.0 else { return windows.into() };
        let columns = windows.columns();
        let len = windows.len() * columns;
        windows.gather_into(&cpu.pool, &mut gathered[..len]);
        ops::fake_quantize_rows(cpu, &gathered[..len], columns, &mut quantized[..len]);
        Mat::new(&quantized[..len], columns).into()
    }
}

/// Ranges of at most so many of all.
fn ranges(all: usize, at_once: usize) -> impl Iterator<Item = Range<usize>> {
    (0..all).step_by(at_once).map(move |first| first..(first + at_once).min(all))
}

impl Tape {
    pub(crate) fn convolve(&mut self, x: &Tensor, weight: ParamId, bias: Option<ParamId>, window: &Window) -> Tensor {
        let images = self.value(x);
        let (quantized, int8) = self.quantization(weight);
        let spec = &self.params.get(weight).spec;
        let (out, columns) = (spec.rows, spec.cols);
        assert_eq!(window.columns(), columns, "values of a window of `{}`", spec.name);
        let windows = Windows::new(*window, &images);
        let all = windows.len();
        let mut y = self.arena.take(all * out);
        let (precision, mut rounded) = (self.precision_of(quantized), Rounded::new(self, window, all, int8));
        let effective = self.params.effective(&self.cpu, weight, self.qat);
        for range in rounded.ranges(window, all) {
            let y = &mut y[range.start * out..range.end * out];
            let (rows, read) = (range.len(), rounded.read(&self.cpu, windows.range(range)));
            let w = Mat::new(&effective, columns).t();
            gemm_in(&self.cpu, precision, rows, out, columns, read, w, false, y);
        }
        drop(effective);
        if let Some(bias) = bias {
            ops::add_bias(&self.cpu, &mut y, &self.params.get(bias).values());
        }
        let output = self.tensor(all, out, y);
        let (window, x) = (*window, x.slot());
        self.record(|| Record::Conv { of: Conv { images, weight, bias, window, int8, x }, y: output.slot() });
        output
    }

    /// `dW = dy^T windows`, and `dy W` added to the pixels of the windows, straight through any quantization.
    pub(crate) fn reverse_conv(&mut self, of: &Conv, dy: &[f32]) {
        let Conv { images, weight, bias, window, int8, x } = of;
        if let Some(bias) = bias {
            self.reverse_bias(*bias, dy);
        }
        let param = self.params.get(*weight);
        let (out, columns, is_trained) = (param.spec.rows, param.spec.cols, param.trained().is_some());
        let (all, precision) = (dy.len() / out, self.precision);
        if is_trained {
            let mut rounded = Rounded::new(self, window, all, *int8);
            for range in rounded.ranges(window, all) {
                let dy = Mat::new(&dy[range.start * out..range.end * out], out).t();
                let (rows, read) = (range.len(), rounded.read(&self.cpu, Windows::new(*window, images).range(range)));
                let (dw, holds) = self.gradients_of_params.slot(*weight, out * columns);
                gemm_in(&self.cpu, precision, out, columns, rows, dy, read, holds, dw);
            }
        }
        if self.is_read(*x) {
            match window.reversed(out) {
                Some(reversed) => self.reverse_windows(&reversed, *weight, dy, *x),
                None => self.scatter_windows(window, *weight, dy, (*x, images.len())),
            }
        }
    }

    /// The gradient of images by that of the products of their windows: products of windows over it.
    fn reverse_windows(&mut self, reversed: &Window, weight: ParamId, dy: &[f32], x: usize) {
        let (out, positions) = (reversed.channels, reversed.positions());
        let weights = self.params.effective(&self.cpu, weight, self.qat);
        let channels = weights.len() / out / positions;
        // [out, positions, channels] as [positions backwards, out, channels].
        let mut turned = self.arena.take(weights.len());
        for (at, turned) in turned.chunks_exact_mut(channels).enumerate() {
            let (position, out) = (positions - 1 - at / out, at % out);
            turned.copy_from_slice(&weights[(out * positions + position) * channels..][..channels]);
        }
        drop(weights);
        let windows = Windows::new(*reversed, dy);
        let (pixels, columns) = (windows.len(), windows.columns());
        let (mut dx, holds) = self.open(x, pixels * channels);
        let turned = Mat::new(&turned, channels);
        gemm_in(&self.cpu, self.precision, pixels, channels, columns, windows, turned, holds, &mut dx);
        self.close(x, dx);
    }

    /// The same of windows that pass over pixels: the gradient of each value of each window, added to its pixel.
    fn scatter_windows(&mut self, window: &Window, weight: ParamId, dy: &[f32], (x, len): (usize, usize)) {
        let mut dx = self.open_sum(x, len);
        let weights = self.params.effective(&self.cpu, weight, self.qat);
        let columns = window.columns();
        let out = weights.len() / columns;
        let all = dy.len() / out;
        let mut dwindows = self.arena.take(window.at_once().min(all) * columns);
        for range in ranges(all, window.at_once()) {
            let (rows, dy) = (range.len(), Mat::new(&dy[range.start * out..range.end * out], out));
            let into = &mut dwindows[..rows * columns];
            gemm_in(&self.cpu, self.precision, rows, columns, out, dy, Mat::new(&weights, columns), false, into);
            window.scatter(&self.cpu.pool, into, range, &mut dx);
        }
        drop(weights);
        self.close(x, dx);
    }

    pub(crate) fn normalize_batch(&mut self, x: &Tensor, norm: &BatchNorm<ParamId>) -> Tensor {
        let value = self.value(x);
        let (rows, width) = (x.rows(), x.width());
        let of_batch = self.pass() != Pass::Evaluate && self.params.get(norm.mean).trained().is_some();
        let [mean, variance] = match of_batch {
            true => ops::column_moments(&self.cpu, &value, width),
            false => [norm.mean, norm.variance].map(|id| self.params.get(id).values().into_owned()),
        };
        if of_batch && !self.replaying {
            self.move_statistics(norm, &mean, &variance, rows);
        }
        let [weight, bias] = [norm.weight, norm.bias].map(|id| self.params.get(id).values());
        let [factor, summand] = affine([&weight, &bias, &mean, &variance], norm.eps);
        let mut y = self.arena.take(value.len());
        ops::scale_columns(&self.cpu, &value, [&factor, &summand], &mut y);
        let output = self.tensor(rows, width, y);
        let scale = variance.iter().map(|variance| 1.0 / (f64::from(*variance) + f64::from(norm.eps)).sqrt()).collect();
        let BatchNorm { weight, bias, .. } = *norm;
        let of = Normalized { value, weight, bias, mean, scale, of_batch, x: x.slot() };
        self.record(|| Record::BatchNorm { of, y: output.slot() });
        output
    }

    /// Moves the running mean and variance towards those of a batch; the variance is that of the values a batch is drawn from, as in torch.
    fn move_statistics(&mut self, norm: &BatchNorm<ParamId>, mean: &[f32], variance: &[f32], rows: usize) {
        let unbiased = if rows > 1 { rows as f32 / (rows - 1) as f32 } else { 1.0 };
        for (id, now, factor) in [(norm.mean, mean, 1.0), (norm.variance, variance, unbiased)] {
            let Some(running) = self.params.get_mut(id).trained_mut() else { continue };
            for (running, now) in running.iter_mut().zip(now) {
                *running += norm.momentum * (now * factor - *running);
            }
        }
    }

    /// `dx = weight / deviation * (dy - mean(dy) - normalized * mean(dy * normalized))`, without the means where the statistics are
    /// not those of the batch.
    pub(crate) fn reverse_batch_norm(&mut self, of: &Normalized, dy: &[f32]) {
        let Normalized { value, weight, bias, mean, scale, of_batch, x } = of;
        let width = mean.len();
        let [sums, along] = ops::column_gradients(&self.cpu, value, mean, dy);
        let along: Vec<f64> = along.iter().zip(scale).map(|(along, scale)| f64::from(*along) * scale).collect();
        if self.params.get(*bias).trained().is_some() {
            let gradient = self.gradients_of_params.sum(*bias, width);
            gradient.iter_mut().zip(&sums).for_each(|(gradient, sum)| *gradient += sum);
        }
        if self.params.get(*weight).trained().is_some() {
            let gradient = self.gradients_of_params.sum(*weight, width);
            gradient.iter_mut().zip(&along).for_each(|(gradient, along)| *gradient += *along as f32);
        }
        let weights = self.params.get(*weight).values();
        let count = if *of_batch { (dy.len() / width) as f64 } else { f64::INFINITY };
        let mut factors = [0; 3].map(|_| Vec::with_capacity(width));
        for ((weight, scale), (sum, along)) in weights.iter().zip(scale).zip(sums.iter().zip(&along)) {
            let a = f64::from(*weight) * scale;
            let all = [a, -a * scale * along / count, f64::from(*sum) / count];
            factors.iter_mut().zip(all).for_each(|(factors, one)| factors.push(one as f32));
        }
        drop(weights);
        let [a, b, c] = &factors;
        let mut dx = self.open_sum(*x, dy.len());
        ops::mix_columns(&self.cpu, value, dy, [a, b, c, mean], &mut dx);
        self.close(*x, dx);
    }

    pub(crate) fn pool_images(&mut self, x: &Tensor, how: WindowPooling, window: &Window) -> Tensor {
        let value = self.value(x);
        let rows = window.images(value.len()) * window.pixels();
        let mut y = self.arena.take(rows * window.channels);
        how.pool(&self.cpu.pool, window, &value, &mut y);
        let output = self.tensor(rows, window.channels, y);
        let of = Pooled { how, window: *window, value, x: x.slot() };
        self.record(|| Record::PoolWindows { of, y: output.slot() });
        output
    }

    pub(crate) fn reverse_pool_windows(&mut self, of: &Pooled, dy: &[f32]) {
        let Pooled { how, window, value, x } = of;
        let mut dx = self.open_sum(*x, value.len());
        how.backward(&self.cpu.pool, window, value, dy, &mut dx);
        self.close(*x, dx);
    }
}
