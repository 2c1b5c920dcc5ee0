//! Normalization of rows, and their quantization to int8 steps.

use super::math::{Extent, Partial, Whole, first, in_fours, max4, sum4, vectors};
use super::reduce::sum_chunks;
use super::row_grain;
use crate::activations::absmax;
use crate::pool::SharedMut;
use crate::simd::{LANES, Simd};
use crate::{Cpu, Op, Products, scratch};

/// Which normalization, as constants: whether the mean is subtracted.
const RMS: bool = false;
const LAYER: bool = true;

/// The mean of a row (0 unless `CENTER`), in each lane.
#[inline(always)]
fn center_of<S: Simd, const CENTER: bool>(s: S, x: &[f32]) -> S::F {
    let mut sums = [s.splat(0.0); 4];
    if CENTER {
        in_fours!(x.len(), |i, j, w| {
            sums[j] = s.add(sums[j], w.get(s, x, i, 0.0));
        });
    }
    s.div(sum4(s, sums), s.splat(x.len() as f32))
}

/// `1 / sqrt(squares / count + eps)`
#[inline(always)]
fn inverse_root<S: Simd>(s: S, squares: S::F, count: usize, eps: f32) -> S::F {
    let variance = s.div(squares, s.splat(count as f32));
    s.div(s.splat(1.0), s.sqrt(s.add(variance, s.splat(eps))))
}

struct Normalize<'a, const CENTER: bool> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    eps: f32,
    y: &'a mut [f32],
}

impl<const CENTER: bool> Op for Normalize<'_, CENTER> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let width = self.weight.len();
        let (weight, bias) = (&self.weight[..width], self.bias.map(|bias| &bias[..width]));
        for (x, y) in self.x.chunks_exact(width).zip(self.y.chunks_exact_mut(width)) {
            let center = center_of::<S, CENTER>(s, x);
            let (edge, mut squares) = (first(s, center), [s.splat(0.0); 4]);
            in_fours!(width, |i, j, w| {
                let d = s.sub(w.get(s, x, i, edge), center);
                squares[j] = s.fma(d, d, squares[j]);
            });
            let scale = inverse_root(s, sum4(s, squares), width, self.eps);
            vectors!(width, |i, w| {
                let normal = s.mul(s.sub(w.get(s, x, i, 0.0), center), scale);
                let weight = w.get(s, weight, i, 0.0);
                let v = match bias {
                    Some(bias) => s.fma(normal, weight, w.get(s, bias, i, 0.0)),
                    None => s.mul(normal, weight),
                };
                w.put(s, y, i, v);
            });
        }
    }
}

fn normalize<const CENTER: bool>(cpu: &Cpu, x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32, y: &mut [f32]) {
    let (width, isa) = (weight.len(), cpu.isa);
    assert!(width > 0 && x.len() == y.len(), "y is as long as x, and rows are not empty");
    assert!(bias.is_none_or(|bias| bias.len() == width), "bias is as long as weight");
    cpu.pool.for_rows(x.len() / width, row_grain(width), [(y, width)], |rows, [y]| {
        let x = &x[rows.start * width..rows.end * width];
        isa.run(Normalize::<CENTER> { x, weight, bias, eps, y });
    });
}

/// `y = x / sqrt(mean(x^2) + eps) * weight` for each row of `x`, `[rows, weight.len()]` (arXiv 1910.07467).
pub fn rms_norm(cpu: &Cpu, x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
    normalize::<RMS>(cpu, x, weight, None, eps, y)
}

/// `y = (x - mean) / sqrt(variance + eps) * weight + bias` for each row of `x`, `[rows, weight.len()]`
/// (arXiv 1607.06450).
pub fn layer_norm(cpu: &Cpu, x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32, y: &mut [f32]) {
    normalize::<LAYER>(cpu, x, weight, bias, eps, y)
}

/// Gradients of some rows; `dweight` and `dbias` are partial sums.
struct NormalizeBackward<'a, const CENTER: bool> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    dy: &'a [f32],
    dx: &'a mut [f32],
    dweight: &'a mut [f32],
    dbias: Option<&'a mut [f32]>,
}

impl<const CENTER: bool> Op for NormalizeBackward<'_, CENTER> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    /// With `n = (x - mean) * scale` and `g = dy * weight`: `dx = scale * (g - mean(g) - n * mean(g * n))`, without the
    /// means of `x` and `g` unless `CENTER`.
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let width = self.weight.len();
        let (weight, dweight) = (self.weight, &mut self.dweight[..width]);
        let mut dbias = self.dbias.map(|dbias| &mut dbias[..width]);
        let rows = self.x.chunks_exact(width).zip(self.dy.chunks_exact(width));
        for ((x, dy), dx) in rows.zip(self.dx.chunks_exact_mut(width)) {
            let center = center_of::<S, CENTER>(s, x);
            let (edge, zero) = (first(s, center), s.splat(0.0));
            let (mut squares, mut sums, mut along) = ([zero; 4], [zero; 4], [zero; 4]);
            in_fours!(width, |i, j, w| {
                let d = s.sub(w.get(s, x, i, edge), center);
                let g = s.mul(w.get(s, dy, i, 0.0), w.get(s, weight, i, 0.0));
                squares[j] = s.fma(d, d, squares[j]);
                along[j] = s.fma(g, d, along[j]);
                if CENTER {
                    sums[j] = s.add(sums[j], g);
                }
            });
            let scale = inverse_root(s, sum4(s, squares), width, self.eps);
            let count = s.splat(width as f32);
            let along = s.div(s.mul(sum4(s, along), scale), count);
            let mean = if CENTER { s.div(sum4(s, sums), count) } else { zero };
            vectors!(width, |i, w| {
                let dy = w.get(s, dy, i, 0.0);
                let normal = s.mul(s.sub(w.get(s, x, i, 0.0), center), scale);
                let g = s.sub(s.mul(dy, w.get(s, weight, i, 0.0)), s.fma(normal, along, mean));
                w.put(s, dx, i, s.fma(g, scale, w.get(s, dx, i, 0.0)));
                w.put(s, dweight, i, s.fma(dy, normal, w.get(s, dweight, i, 0.0)));
                if let Some(dbias) = &mut dbias {
                    w.put(s, dbias, i, s.add(dy, w.get(s, dbias, i, 0.0)));
                }
            });
        }
    }
}

/// Gradients of all rows: `dx +=`, `sums += [dweight, dbias if there is room for it]`.
fn normalize_backward<const CENTER: bool>(
    cpu: &Cpu,
    [x, weight, dy]: [&[f32]; 3],
    eps: f32,
    dx: &mut [f32],
    sums: &mut [f32],
) {
    let (width, isa) = (weight.len(), cpu.isa);
    assert!(width > 0 && x.len() == dy.len() && x.len() == dx.len(), "dy and dx are as long as x, rows not empty");
    let dx = SharedMut::new(dx);
    sum_chunks(cpu, x.len() / width, width, sums, |rows, partial| {
        let span = rows.start * width..rows.end * width;
        let (dweight, dbias) = partial.split_at_mut(width);
        let dbias = (!dbias.is_empty()).then_some(dbias);
        // SAFETY: chunks have disjoint rows.
        let dx = unsafe { dx.slice(span.clone()) };
        isa.run(NormalizeBackward::<CENTER> { x: &x[span.clone()], weight, eps, dy: &dy[span], dx, dweight, dbias });
    });
}

/// The gradient of [`rms_norm`]: `dx +=`, `dweight +=`.
pub fn rms_norm_backward(
    cpu: &Cpu,
    x: &[f32],
    weight: &[f32],
    eps: f32,
    dy: &[f32],
    dx: &mut [f32],
    dweight: &mut [f32],
) {
    assert_eq!(dweight.len(), weight.len(), "dweight is as long as weight");
    normalize_backward::<RMS>(cpu, [x, weight, dy], eps, dx, dweight)
}

/// The gradient of [`layer_norm`]: `dx +=`, `dweight +=`, `dbias +=`.
#[allow(clippy::too_many_arguments)]
pub fn layer_norm_backward(
    cpu: &Cpu,
    x: &[f32],
    weight: &[f32],
    eps: f32,
    dy: &[f32],
    dx: &mut [f32],
    dweight: &mut [f32],
    dbias: Option<&mut [f32]>,
) {
    let width = weight.len();
    assert_eq!(dweight.len(), width, "dweight is as long as weight");
    let Some(dbias) = dbias else {
        return normalize_backward::<LAYER>(cpu, [x, weight, dy], eps, dx, dweight);
    };
    assert_eq!(dbias.len(), width, "dbias is as long as weight");
    let mut scratch = scratch::take(2 * width * size_of::<f32>());
    let sums = &mut scratch.floats()[..2 * width];
    sums.fill(0.0);
    normalize_backward::<LAYER>(cpu, [x, weight, dy], eps, dx, sums);
    super::add_assign(cpu, dweight, &sums[..width]);
    super::add_assign(cpu, dbias, &sums[width..]);
}

struct FakeQuantize<'a> {
    x: &'a [f32],
    cols: usize,
    y: &'a mut [f32],
}

impl Op for FakeQuantize<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for (x, y) in self.x.chunks_exact(self.cols).zip(self.y.chunks_exact_mut(self.cols)) {
            let zero = s.splat(0.0);
            let (mut tops, mut checks) = ([zero; 4], [zero; 4]);
            in_fours!(x.len(), |i, j, w| {
                let v = w.get(s, x, i, 0.0);
                tops[j] = s.max(s.abs(v), tops[j]);
                checks[j] = s.fma(v, zero, checks[j]);
            });
            if first(s, sum4(s, checks)).is_nan() {
                y.fill(f32::NAN);
                continue;
            }
            let top = s.splat(absmax(first(s, max4(s, tops))));
            let (factor, step) = (s.div(s.splat(127.0), top), s.div(top, s.splat(127.0)));
            vectors!(x.len(), |i, w| {
                let q = s.round_i(s.mul(w.get(s, x, i, 0.0), factor));
                w.put(s, y, i, s.mul(s.to_f(q), step));
            });
        }
    }
}

/// `y = round(x / step) * step`, `step = max|x| / 127` of each row of `x`, `[rows, cols]`: what [`Int8Activations`](crate::Int8Activations)
/// keeps of `x` (arXiv 2402.17764), NaN where a value of the row is not finite. Its straight-through gradient is the identity.
pub fn fake_quantize_rows(cpu: &Cpu, x: &[f32], cols: usize, y: &mut [f32]) {
    let isa = cpu.isa;
    assert!(cols > 0 && x.len() == y.len(), "y is as long as x, and rows are not empty");
    cpu.pool.for_rows(x.len() / cols, row_grain(cols), [(y, cols)], |rows, [y]| {
        isa.run(FakeQuantize { x: &x[rows.start * cols..rows.end * cols], cols, y });
    });
}
