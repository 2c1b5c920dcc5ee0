//! Elementwise operations: activations, sums, products, gates, and the driver they share.

use super::GRAIN;
use super::math::{Extent, Partial, Whole, exp, polynomial, positive, select, sigmoid, vectors};
use crate::simd::{LANES, Simd};
use crate::{Cpu, Op, Products};

/// A function of `N` inputs and the old values of `M` outputs that yields the new values of the outputs.
pub(super) trait Elementwise<const N: usize, const M: usize>: Copy + Sync {
    /// The outputs of 16 elements.
    fn at<S: Simd>(self, s: S, x: [S::F; N], y: [S::F; M]) -> [S::F; M];
}

/// Applies `e` to all elements, in one pass over memory.
pub(super) fn apply<E, const N: usize, const M: usize>(cpu: &Cpu, e: E, x: [&[f32]; N], y: [&mut [f32]; M])
where
    E: Elementwise<N, M>,
{
    let len = y[0].len();
    assert!(x.iter().all(|x| x.len() == len), "inputs are as long as outputs");
    let isa = cpu.isa;
    cpu.pool.for_rows(len, GRAIN, y.map(|y| (y, 1)), |range, y| {
        let x = x.map(|x| &x[range.clone()]);
        isa.run(Apply { e, x, y })
    });
}

struct Apply<'a, E, const N: usize, const M: usize> {
    e: E,
    x: [&'a [f32]; N],
    y: [&'a mut [f32]; M],
}

impl<E: Elementwise<N, M>, const N: usize, const M: usize> Op for Apply<'_, E, N, M> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Apply { e, x, y } = self;
        let len = y[0].len();
        let zero = s.splat(0.0);
        vectors!(len, |i, w| {
            let (mut a, mut b) = ([zero; N], [zero; M]);
            for j in 0..N {
                a[j] = w.get(s, &x[j][..len], i, 0.0);
            }
            for j in 0..M {
                b[j] = w.get(s, &y[j][..len], i, 0.0);
            }
            let b = e.at(s, a, b);
            for j in 0..M {
                w.put(s, &mut y[j][..len], i, b[j]);
            }
        });
    }
}

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// `max(x, 0)`
    Relu,
    /// `max(x, 0)^2` (arXiv 2109.08668).
    Relu2,
    /// `x / (1 + exp(-x))` (arXiv 1702.03118).
    Silu,
    /// `x * Phi(x)`, `Phi` being the cumulative standard normal distribution (arXiv 1606.08415).
    GeluErf,
    /// Its approximation `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`.
    GeluTanh,
    /// `tanh(x)`
    Tanh,
}

impl Function {
    /// Every function.
    pub const ALL: &[Function] =
        &[Function::Relu, Function::Relu2, Function::Silu, Function::GeluErf, Function::GeluTanh, Function::Tanh];
}

/// The text of a [`Function`].
trait Curve: Copy + Sync {
    /// Value and slope.
    fn at<S: Simd>(self, s: S, x: S::F) -> (S::F, S::F);
}

#[derive(Clone, Copy)]
struct Relu;
#[derive(Clone, Copy)]
struct Relu2;
#[derive(Clone, Copy)]
struct Silu;
#[derive(Clone, Copy)]
struct GeluErf;
#[derive(Clone, Copy)]
struct GeluTanh;
#[derive(Clone, Copy)]
struct Tanh;

/// Evaluates `$body` with `$curve` bound to the text of `$function`.
macro_rules! with_curve {
    ($function:expr, $curve:ident => $body:expr) => {
        match $function {
            Function::Relu => with_curve!(@ $curve = Relu => $body),
            Function::Relu2 => with_curve!(@ $curve = Relu2 => $body),
            Function::Silu => with_curve!(@ $curve = Silu => $body),
            Function::GeluErf => with_curve!(@ $curve = GeluErf => $body),
            Function::GeluTanh => with_curve!(@ $curve = GeluTanh => $body),
            Function::Tanh => with_curve!(@ $curve = Tanh => $body),
        }
    };
    (@ $curve:ident = $name:ident => $body:expr) => {{
        let $curve = $name;
        $body
    }};
}

impl Curve for Relu {
    #[inline(always)]
    fn at<S: Simd>(self, s: S, x: S::F) -> (S::F, S::F) {
        let zero = s.splat(0.0);
        (s.max(zero, x), select(s, positive(s, x), s.splat(1.0), zero))
    }
}

impl Curve for Relu2 {
    #[inline(always)]
    fn at<S: Simd>(self, s: S, x: S::F) -> (S::F, S::F) {
        let r = s.max(s.splat(0.0), x);
        (s.mul(r, r), s.add(r, r))
    }
}

impl Curve for Silu {
    #[inline(always)]
    fn at<S: Simd>(self, s: S, x: S::F) -> (S::F, S::F) {
        let p = sigmoid(s, x);
        let y = s.mul(x, p);
        (y, s.fma(y, s.sub(s.splat(1.0), p), p))
    }
}

impl Curve for GeluErf {
    /// The tail of the normal distribution is its density times a polynomial in `1 / (1 + p|x|)`, as in Abramowitz and
    /// Stegun 26.2.17; the terms are fitted for a relative error of 7e-8 up to `|x| = 14`.
    #[inline(always)]
    fn at<S: Simd>(self, s: S, x: S::F) -> (S::F, S::F) {
        const TERMS: [f32; 9] = [
            0.139_621_38,
            0.139_862_42,
            0.119_829_05,
            0.105_522_56,
            -0.023_143_139,
            0.159_221_08,
            -0.255_754_14,
            0.143_990_49,
            -0.029_149_689,
        ];
        const DENSITY: f32 = 0.398_942_3; // 1 / sqrt(2 pi)
        let one = s.splat(1.0);
        let t = s.div(one, s.fma(s.abs(x), s.splat(0.35), one));
        // Beyond 20 the density is 0; the limit keeps 0 * infinity out.
        let square = s.min(s.splat(400.0), s.mul(x, x));
        let decay = exp(s, s.mul(square, s.splat(-0.5)));
        let tail = s.mul(s.mul(decay, t), polynomial(s, t, TERMS));
        let phi = select(s, positive(s, x), s.sub(one, tail), tail);
        (s.mul(x, phi), s.fma(x, s.mul(decay, s.splat(DENSITY)), phi))
    }
}

impl Curve for GeluTanh {
    /// With `u` the argument of tanh, `(1 + tanh(u)) / 2 = sigmoid(2u)`.
    #[inline(always)]
    fn at<S: Simd>(self, s: S, x: S::F) -> (S::F, S::F) {
        const TWICE: f32 = 1.595_769_2; // 2 sqrt(2 / pi)
        // Beyond 100 the sigmoid is 0 or 1; the limit keeps 0 * infinity out.
        let square = s.min(s.splat(1e4), s.mul(x, x));
        let one = s.splat(1.0);
        let u = s.mul(s.mul(x, s.splat(TWICE)), s.fma(square, s.splat(0.044715), one));
        let slope_of_u = s.mul(s.splat(TWICE), s.fma(square, s.splat(3.0 * 0.044715), one));
        let p = sigmoid(s, u);
        let y = s.mul(x, p);
        (y, s.fma(s.mul(y, s.sub(one, p)), slope_of_u, p))
    }
}

impl Curve for Tanh {
    /// `2 sigmoid(2x) - 1`; near 0, where that cancels, the odd polynomial of Cephes' `tanhf`.
    #[inline(always)]
    fn at<S: Simd>(self, s: S, x: S::F) -> (S::F, S::F) {
        const TERMS: [f32; 5] = [-0.333_332_8, 0.133_314_42, -0.053_739_716, 0.020_639_088, -0.005_704_989];
        let one = s.splat(1.0);
        let far = s.fma(sigmoid(s, s.add(x, x)), s.splat(2.0), s.splat(-1.0));
        let square = s.mul(x, x);
        let near = s.fma(s.mul(x, square), polynomial(s, square, TERMS), x);
        let y = select(s, positive(s, s.sub(s.splat(0.625), s.abs(x))), near, far);
        (y, s.fma(s.mul(y, s.splat(-1.0)), y, one))
    }
}

/// Declares elementwise kernels: `name(fields)[inputs -> outputs] |s, x, y| result`.
macro_rules! kernels {
    ($($name:ident $(<$generic:ident>)? ($($field:ty)?) [$n:literal -> $m:literal] |$this:ident, $s:ident, $x:ident, $y:ident| $body:expr;)*) => {$(
        #[derive(Clone, Copy)]
        struct $name $(<$generic>)? ($($field)?);
        impl $(<$generic: Curve>)? Elementwise<$n, $m> for $name $(<$generic>)? {
            #[inline(always)]
            fn at<S: Simd>(self, $s: S, $x: [S::F; $n], $y: [S::F; $m]) -> [S::F; $m] {
                let $this = self;
                $body
            }
        }
    )*};
}

kernels! {
    Activate<C>(C)[1 -> 1] |this, s, x, _y| [this.0.at(s, x[0]).0];
    ActivateBackward<C>(C)[2 -> 1] |this, s, x, y| [s.fma(this.0.at(s, x[0]).1, x[1], y[0])];
    Add()[2 -> 1] |_this, s, x, _y| [s.add(x[0], x[1])];
    AddAssign()[1 -> 1] |_this, s, x, y| [s.add(y[0], x[0])];
    Mul()[2 -> 1] |_this, s, x, _y| [s.mul(x[0], x[1])];
    MulBackward()[3 -> 2] |_this, s, x, y| [s.fma(x[1], x[2], y[0]), s.fma(x[0], x[2], y[1])];
    Gate<C>(C)[2 -> 1] |this, s, x, _y| [s.mul(this.0.at(s, x[0]).0, x[1])];
    GateBackward<C>(C)[3 -> 2] |this, s, x, y| {
        let (value, slope) = this.0.at(s, x[0]);
        [s.fma(s.mul(slope, x[1]), x[2], y[0]), s.fma(value, x[2], y[1])]
    };
}

/// `y = f(x)`
pub fn activate(cpu: &Cpu, f: Function, x: &[f32], y: &mut [f32]) {
    with_curve!(f, curve => apply(cpu, Activate(curve), [x], [y]))
}

/// `dx += f'(x) * dy`
pub fn activate_backward(cpu: &Cpu, f: Function, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    with_curve!(f, curve => apply(cpu, ActivateBackward(curve), [x, dy], [dx]))
}

/// `y = a + b`
pub fn add(cpu: &Cpu, a: &[f32], b: &[f32], y: &mut [f32]) {
    apply(cpu, Add(), [a, b], [y])
}

/// `y += x`
pub fn add_assign(cpu: &Cpu, y: &mut [f32], x: &[f32]) {
    apply(cpu, AddAssign(), [x], [y])
}

/// `y = a * b`, elementwise.
pub fn mul(cpu: &Cpu, a: &[f32], b: &[f32], y: &mut [f32]) {
    apply(cpu, Mul(), [a, b], [y])
}

/// `da += b * dy`, `db += a * dy`, elementwise.
pub fn mul_backward(cpu: &Cpu, a: &[f32], b: &[f32], dy: &[f32], da: &mut [f32], db: &mut [f32]) {
    apply(cpu, MulBackward(), [a, b, dy], [da, db])
}

/// `y = f(gate) * up`, elementwise (arXiv 2002.05202).
pub fn gate(cpu: &Cpu, f: Function, gate: &[f32], up: &[f32], y: &mut [f32]) {
    with_curve!(f, curve => apply(cpu, Gate(curve), [gate, up], [y]))
}

/// `dgate += f'(gate) * up * dy`, `dup += f(gate) * dy`, elementwise.
pub fn gate_backward(cpu: &Cpu, f: Function, gate: &[f32], up: &[f32], dy: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
    with_curve!(f, curve => apply(cpu, GateBackward(curve), [gate, up, dy], [dgate, dup]))
}

/// `y += scale * x`
pub(super) struct AddScaled<'a> {
    pub x: &'a [f32],
    pub scale: f32,
    pub y: &'a mut [f32],
}

impl Op for AddScaled<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let scale = s.splat(self.scale);
        vectors!(self.x.len(), |i, w| {
            w.put(s, self.y, i, s.fma(w.get(s, self.x, i, 0.0), scale, w.get(s, self.y, i, 0.0)));
        });
    }
}

struct AddBias<'a> {
    y: &'a mut [f32],
    bias: &'a [f32],
}

impl Op for AddBias<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for row in self.y.chunks_exact_mut(self.bias.len()) {
            vectors!(row.len(), |i, w| {
                w.put(s, row, i, s.add(w.get(s, row, i, 0.0), w.get(s, self.bias, i, 0.0)));
            });
        }
    }
}

/// `y += bias` for each row of `y`, `[rows, bias.len()]`.
pub fn add_bias(cpu: &Cpu, y: &mut [f32], bias: &[f32]) {
    let width = bias.len();
    let rows = y.len() / width.max(1);
    let isa = cpu.isa;
    cpu.pool.for_rows(rows, super::row_grain(width), [(y, width)], |_, [y]| isa.run(AddBias { y, bias }));
}
