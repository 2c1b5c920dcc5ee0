//! Convolution, batch normalization and pooling of images on a tape, with their gradients.

use crate::arena::Buffer;
use crate::backward::Record;
use crate::params::ParamId;
use crate::tape::{Pass, Tape, Tensor};
use lowbit_kernels::ops;
use lowbit_kernels::{Mat, Pool, gemm_in};
use lowbit_model::exec::{BatchNorm, Window, WindowPooling};
use lowbit_model::window::{affine, apply_affine};
use std::ops::Range;
use std::rc::Rc;

/// Values that one task sums up, about.
const TASK: usize = 1 << 14;

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
    /// Mean of each column and one by its standard deviation.
    statistics: Vec<[f64; 2]>,
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

/// Windows as a convolution multiplies them.
struct Windows {
    gathered: Buffer,
    quantized: Option<Buffer>,
}

impl Windows {
    fn new(tape: &Tape, window: &Window, all: usize, int8: bool) -> Self {
        let len = window.at_once().min(all) * window.columns();
        Windows { gathered: tape.arena.take(len), quantized: int8.then(|| tape.arena.take(len)) }
    }

    /// Some windows of images, `[windows, columns]`.
    fn read(&mut self, tape: &Tape, window: &Window, images: &[f32], range: Range<usize>) -> &[f32] {
        let len = range.len() * window.columns();
        let gathered = &mut self.gathered[..len];
        window.gather(&tape.cpu.pool, images, range, gathered);
        match &mut self.quantized {
            Some(quantized) => {
                ops::fake_quantize_rows(&tape.cpu, gathered, window.columns(), &mut quantized[..len]);
                &quantized[..len]
            }
            None => gathered,
        }
    }
}

/// Ranges of at most so many of all.
fn ranges(all: usize, at_once: usize) -> impl Iterator<Item = Range<usize>> {
    (0..all).step_by(at_once).map(move |first| first..(first + at_once).min(all))
}

/// Sums over rows of what `add` adds of some rows to `[columns]`, in an order that does not depend on the threads.
fn sums(pool: &Pool, rows: usize, columns: usize, add: impl Fn(Range<usize>, &mut [[f64; 2]]) + Sync) -> Vec<[f64; 2]> {
    let grain = TASK / columns + 1;
    let mut parts = vec![[0.0; 2]; rows.div_ceil(grain) * columns];
    pool.for_rows(rows.div_ceil(grain), 1, [(&mut parts, columns)], |range, [part]| {
        add(range.start * grain..(range.end * grain).min(rows), part);
    });
    let mut all = vec![[0.0; 2]; columns];
    for part in parts.chunks_exact(columns) {
        all.iter_mut().zip(part).for_each(|(all, part)| (0..2).for_each(|i| all[i] += part[i]));
    }
    all
}

impl Tape {
    pub(crate) fn convolve(&mut self, x: &Tensor, weight: ParamId, bias: Option<ParamId>, window: &Window) -> Tensor {
        let images = self.value(x);
        let (quantized, int8) = self.quantization(weight);
        let spec = &self.params.get(weight).spec;
        let (out, columns) = (spec.rows, spec.cols);
        assert_eq!(window.columns(), columns, "values of a window of `{}`", spec.name);
        let all = window.images(images.len()) * window.pixels();
        let mut y = self.arena.take(all * out);
        let mut windows = Windows::new(self, window, all, int8);
        let precision = self.precision_of(quantized);
        let effective = self.params.effective(&self.cpu, weight, self.qat).into_owned();
        for range in ranges(all, window.at_once()) {
            let y = &mut y[range.start * out..range.end * out];
            let (rows, read) = (range.len(), windows.read(self, window, &images, range));
            let w = Mat::new(&effective, columns).t();
            gemm_in(&self.cpu, precision, rows, out, columns, Mat::new(read, columns), w, false, y);
        }
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
        let all = dy.len() / out;
        let mut dx = self.open_sum(*x, images.len());
        let mut windows = Windows::new(self, window, all, *int8);
        let mut dwindows = self.arena.take(window.at_once().min(all) * columns);
        let effective = self.params.effective(&self.cpu, *weight, self.qat).into_owned();
        let precision = self.precision;
        for range in ranges(all, window.at_once()) {
            let (rows, dy) = (range.len(), &dy[range.start * out..range.end * out]);
            if is_trained {
                let read = windows.read(self, window, images, range.clone());
                let (dw, holds) = self.gradients_of_params.slot(*weight, out * columns);
                let (dy, read) = (Mat::new(dy, out).t(), Mat::new(read, columns));
                gemm_in(&self.cpu, precision, out, columns, rows, dy, read, holds, dw);
            }
            let (dy, w, into) = (Mat::new(dy, out), Mat::new(&effective, columns), &mut dwindows[..rows * columns]);
            gemm_in(&self.cpu, precision, rows, columns, out, dy, w, false, into);
            window.scatter(&self.cpu.pool, into, range, &mut dx);
        }
        self.close(*x, dx);
    }

    pub(crate) fn normalize_batch(&mut self, x: &Tensor, norm: &BatchNorm<ParamId>) -> Tensor {
        let value = self.value(x);
        let (rows, width) = (x.rows(), x.width());
        let of_batch = self.pass() != Pass::Evaluate && self.params.get(norm.mean).trained().is_some();
        let [mean, variance] = match of_batch {
            true => self.batch_statistics(&value, rows, width),
            false => [norm.mean, norm.variance].map(|id| self.params.get(id).values().into_owned()),
        };
        if of_batch && !self.replaying {
            self.move_statistics(norm, &mean, &variance, rows);
        }
        let [weight, bias] = [norm.weight, norm.bias].map(|id| self.params.get(id).values());
        let factors = affine([&weight, &bias, &mean, &variance], norm.eps);
        let mut y = self.arena.take(value.len());
        apply_affine(&self.cpu.pool, &factors, &value, &mut y);
        let output = self.tensor(rows, width, y);
        let one = |(mean, variance): (&f32, &f32)| {
            [f64::from(*mean), 1.0 / (f64::from(*variance) + f64::from(norm.eps)).sqrt()]
        };
        let statistics = mean.iter().zip(&variance).map(one).collect();
        let BatchNorm { weight, bias, .. } = *norm;
        let of = Normalized { value, weight, bias, statistics, of_batch, x: x.slot() };
        self.record(|| Record::BatchNorm { of, y: output.slot() });
        output
    }

    /// Mean and variance of each column.
    fn batch_statistics(&self, x: &[f32], rows: usize, width: usize) -> [Vec<f32>; 2] {
        let row = |range: Range<usize>| x[range.start * width..range.end * width].chunks_exact(width);
        let count = rows.max(1) as f64;
        let mean = sums(&self.cpu.pool, rows, width, |range, sums| {
            row(range).for_each(|x| sums.iter_mut().zip(x).for_each(|(sum, x)| sum[0] += f64::from(*x)));
        });
        let squares = sums(&self.cpu.pool, rows, width, |range, sums| {
            for x in row(range) {
                for ((sum, x), [total, _]) in sums.iter_mut().zip(x).zip(&mean) {
                    let apart = f64::from(*x) - total / count;
                    sum[0] += apart * apart;
                }
            }
        });
        [mean, squares].map(|all| all.iter().map(|[sum, _]| (sum / count) as f32).collect())
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
        let Normalized { value, weight, bias, statistics, of_batch, x } = of;
        let (value, width): (&[f32], _) = (value, statistics.len());
        let rows = dy.len() / width;
        let sums = sums(&self.cpu.pool, rows, width, |range, sums| {
            let values = range.start * width..range.end * width;
            for (x, dy) in value[values.clone()].chunks_exact(width).zip(dy[values].chunks_exact(width)) {
                for (((sum, x), dy), [mean, scale]) in sums.iter_mut().zip(x).zip(dy).zip(statistics) {
                    sum[0] += f64::from(*dy);
                    sum[1] += f64::from(*dy) * (f64::from(*x) - mean) * scale;
                }
            }
        });
        for (id, part) in [(*bias, 0), (*weight, 1)] {
            if self.params.get(id).trained().is_some() {
                let gradient = self.gradients_of_params.sum(id, width);
                gradient.iter_mut().zip(&sums).for_each(|(gradient, sum)| *gradient += sum[part] as f32);
            }
        }
        // dx = a dy + b x + c, column by column.
        let weights = self.params.get(*weight).values();
        let count = if *of_batch { rows as f64 } else { f64::INFINITY };
        let factors: Vec<[f32; 3]> = (weights.iter().zip(statistics).zip(&sums))
            .map(|((weight, [mean, scale]), [dy, along])| {
                let a = f64::from(*weight) * scale;
                let b = -a * scale * along / count;
                [a as f32, b as f32, (-a * dy / count - b * mean) as f32]
            })
            .collect();
        drop(weights);
        let mut dx = self.open_sum(*x, dy.len());
        self.cpu.pool.for_rows(rows, TASK / width + 1, [(&mut dx[..], width)], |range, [dx]| {
            let values = range.start * width..range.end * width;
            let all = value[values.clone()].chunks_exact(width).zip(dy[values].chunks_exact(width));
            for ((x, dy), dx) in all.zip(dx.chunks_exact_mut(width)) {
                for (((dx, x), dy), [a, b, c]) in dx.iter_mut().zip(x).zip(dy).zip(&factors) {
                    *dx += a * dy + (b * x + c);
                }
            }
        });
        self.close(*x, dx);
    }

    pub(crate) fn pool_images(&mut self, x: &Tensor, how: WindowPooling, window: &Window) -> Tensor {
        let value = self.value(x);
        let rows = window.images(value.len()) * window.pixels();
        let mut y = self.arena.take(rows * window.channels);
        window.pool(&self.cpu.pool, how, &value, &mut y);
        let output = self.tensor(rows, window.channels, y);
        let of = Pooled { how, window: *window, value, x: x.slot() };
        self.record(|| Record::PoolWindows { of, y: output.slot() });
        output
    }

    pub(crate) fn reverse_pool_windows(&mut self, of: &Pooled, dy: &[f32]) {
        let Pooled { how, window, value, x } = of;
        let mut dx = self.open_sum(*x, value.len());
        window.pool_backward(&self.cpu.pool, *how, value, dy, &mut dx);
        self.close(*x, dx);
    }
}
