//! Functions of a vector, and moves between vectors, built from the operations of [`Simd`].

use crate::simd::{LANES, Simd};

/// How much of a slice the 16 elements at `i` are.
pub(super) trait Extent: Copy {
    /// The 16 elements at `i`, missing ones being `fill`.
    fn get<S: Simd>(self, s: S, x: &[f32], i: usize, fill: f32) -> S::F;
    /// Stores 16 elements at `i`, or as many as there are.
    fn put<S: Simd>(self, s: S, y: &mut [f32], i: usize, v: S::F);
}

/// All 16 elements are there.
#[derive(Clone, Copy)]
pub(super) struct Whole;

/// Some elements may be missing. Slow, and its calls push vectors out of registers: keep it out of loops.
#[derive(Clone, Copy)]
pub(super) struct Partial;

impl Extent for Whole {
    #[inline(always)]
    fn get<S: Simd>(self, s: S, x: &[f32], i: usize, _: f32) -> S::F {
        let x = &x[i..][..LANES];
        // SAFETY: the slice holds 16 f32.
        unsafe { s.load(x.as_ptr()) }
    }
    #[inline(always)]
    fn put<S: Simd>(self, s: S, y: &mut [f32], i: usize, v: S::F) {
        let y = &mut y[i..][..LANES];
        // SAFETY: the slice holds 16 f32.
        unsafe { s.store(y.as_mut_ptr(), v) }
    }
}

impl Extent for Partial {
    #[inline(always)]
    fn get<S: Simd>(self, s: S, x: &[f32], i: usize, fill: f32) -> S::F {
        s.load_part(&x[i..], fill)
    }
    #[inline(always)]
    fn put<S: Simd>(self, s: S, y: &mut [f32], i: usize, v: S::F) {
        s.store_part(&mut y[i..], v)
    }
}

/// Runs the body with `$i` at every 16th element below `$len` and `$w` the [`Extent`] of the 16.
macro_rules! vectors {
    ($len:expr, |$i:ident, $w:ident| $body:block) => {
        let (len, mut at) = ($len, 0);
        while at + LANES <= len {
            let ($i, $w) = (at, Whole);
            $body
            at += LANES;
        }
        if at < len {
            let ($i, $w) = (at, Partial);
            $body
        }
    };
}
pub(super) use vectors;

/// As `vectors!`, with a counter `$j` that cycles through 0, 1, 2, 3 (0 behind the last whole cycle) for four independent
/// accumulators, which hide the latency of dependent additions.
macro_rules! in_fours {
    ($len:expr, |$i:ident, $j:ident, $w:ident| $body:block) => {
        let (len, mut at) = ($len, 0);
        while at + 4 * LANES <= len {
            in_fours!(@ $i = at, $j = 0, $w = Whole, $body);
            in_fours!(@ $i = at + LANES, $j = 1, $w = Whole, $body);
            in_fours!(@ $i = at + 2 * LANES, $j = 2, $w = Whole, $body);
            in_fours!(@ $i = at + 3 * LANES, $j = 3, $w = Whole, $body);
            at += 4 * LANES;
        }
        while at + LANES <= len {
            in_fours!(@ $i = at, $j = 0, $w = Whole, $body);
            at += LANES;
        }
        if at < len {
            in_fours!(@ $i = at, $j = 0, $w = Partial, $body);
        }
    };
    (@ $i:ident = $at:expr, $j:ident = $chain:expr, $w:ident = $extent:expr, $body:block) => {{
        let ($i, $j, $w) = ($at, $chain, $extent);
        $body
    }};
}
pub(super) use in_fours;

/// Lane 0.
#[inline(always)]
pub(super) fn first<S: Simd>(s: S, v: S::F) -> f32 {
    let mut lanes = [0.0; LANES];
    // SAFETY: the array holds 16 f32.
    unsafe { s.store(lanes.as_mut_ptr(), v) };
    lanes[0]
}

/// The sum of all lanes of four vectors, in each lane: [`Simd::sum`] of their sum by pairs.
#[inline(always)]
pub(super) fn sum4<S: Simd>(s: S, v: [S::F; 4]) -> S::F {
    let mut sum = s.add(s.add(v[0], v[1]), s.add(v[2], v[3]));
    let mut width = LANES / 2;
    while width > 0 {
        sum = s.add(sum, s.lookup(sum, s.xor(ramp(s), s.splat_i(width as i32))));
        width /= 2;
    }
    sum
}

/// The largest lane of four vectors, in each lane.
#[inline(always)]
pub(super) fn max4<S: Simd>(s: S, v: [S::F; 4]) -> S::F {
    let mut top = s.max(s.max(v[0], v[1]), s.max(v[2], v[3]));
    let mut width = LANES / 2;
    while width > 0 {
        top = s.max(top, s.lookup(top, s.xor(ramp(s), s.splat_i(width as i32))));
        width /= 2;
    }
    top
}

/// `mask ? a : b`, each lane of `mask` being all ones or all zeros.
#[inline(always)]
pub(super) fn select<S: Simd>(s: S, mask: S::I, a: S::F, b: S::F) -> S::F {
    s.as_f(s.or(s.and(mask, s.as_i(a)), s.and(not(s, mask), s.as_i(b))))
}

/// Bitwise complement.
#[inline(always)]
pub(super) fn not<S: Simd>(s: S, a: S::I) -> S::I {
    s.xor(a, s.splat_i(-1))
}

/// All ones in the lanes where `a > 0`.
#[inline(always)]
pub(super) fn positive<S: Simd>(s: S, a: S::F) -> S::I {
    let bits = s.as_i(a);
    s.and(s.sar::<31>(s.sub_i(s.splat_i(0), bits)), not(s, s.sar::<31>(bits)))
}

/// `i` in lane `i`.
#[inline(always)]
pub(super) fn ramp<S: Simd>(s: S) -> S::I {
    const RAMP: [i32; LANES] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    // SAFETY: the array holds 64 bytes.
    unsafe { s.load_i(RAMP.as_ptr().cast()) }
}

/// The value of a polynomial, constant term first.
#[inline(always)]
pub(super) fn polynomial<S: Simd, const N: usize>(s: S, x: S::F, terms: [f32; N]) -> S::F {
    let mut sum = s.splat(terms[N - 1]);
    for i in (0..N - 1).rev() {
        sum = s.fma(sum, x, s.splat(terms[i]));
    }
    sum
}

/// `value * 2^n` for `-127 <= n <= 128`: 0 at -127, infinity at 128.
#[inline(always)]
fn scale<S: Simd>(s: S, value: S::F, n: S::I) -> S::F {
    s.mul(value, s.as_f(s.shl::<23>(s.add_i(n, s.splat_i(127)))))
}

/// `2^x`, relative error below 2e-7; 0 below -126.5, infinity from 127.5.
#[inline(always)]
pub(super) fn exp2<S: Simd>(s: S, x: S::F) -> S::F {
    const TERMS: [f32; 7] =
        [1.0, std::f32::consts::LN_2, 0.24022646, 0.055503283, 0.00961849, 0.0013400064, 0.00015345696];
    // The second operand is the result when one is NaN.
    let x = s.min(s.splat(128.0), s.max(s.splat(-127.0), x));
    let n = s.round_i(x);
    scale(s, polynomial(s, s.sub(x, s.to_f(n)), TERMS), n)
}

/// `e^x`, relative error below 2e-7; 0 below -87.68, infinity from 88.38.
#[inline(always)]
pub(super) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    const TERMS: [f32; 7] = [1.0, 1.0, 0.4999999, 0.1666642, 0.041668233, 0.008374899, 0.0013836742];
    let x = s.min(s.splat(88.5), s.max(s.splat(-88.0), x));
    let n = s.round_i(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let f = s.to_f(n);
    let r = s.fma(f, s.splat(2.1219444e-4), s.fma(f, s.splat(-0.693_359_4), x));
    scale(s, polynomial(s, r, TERMS), n)
}

/// `1 / (1 + e^-x)`, relative error below 4e-7; 0 below -88.37.
#[inline(always)]
pub(super) fn sigmoid<S: Simd>(s: S, x: S::F) -> S::F {
    let one = s.splat(1.0);
    s.div(one, s.add(one, exp(s, s.sub(s.splat(0.0), x))))
}

/// Natural logarithm of a positive normal number, absolute error below 1e-7 + 1e-7 * |ln x| (terms of Cephes `logf`).
#[inline(always)]
pub(super) fn ln<S: Simd>(s: S, x: S::F) -> S::F {
    const TERMS: [f32; 9] = [
        0.333_333_3,
        -0.25,
        0.200_007_15,
        -0.166_680_58,
        0.142_493_23,
        -0.124_201_4,
        0.116_769_99,
        -0.115_146_1,
        0.070_376_836,
    ];
    let half = s.as_i(s.splat(std::f32::consts::FRAC_1_SQRT_2));
    let bits = s.sub_i(s.as_i(x), half);
    let n = s.to_f(s.sar::<23>(bits));
    let m = s.as_f(s.add_i(s.and(bits, s.splat_i(0x007f_ffff)), half));
    let f = s.sub(m, s.splat(1.0));
    let square = s.mul(f, f);
    let tail = s.fma(n, s.splat(-2.1219444e-4), s.mul(s.mul(f, square), polynomial(s, f, TERMS)));
    s.fma(n, s.splat(0.693_359_4), s.add(f, s.fma(square, s.splat(-0.5), tail)))
}

/// Sine and cosine of `angle + rest`, `|angle| < 1e5` and `rest` small; absolute error below 2e-7.
#[inline(always)]
pub(super) fn sin_cos<S: Simd>(s: S, angle: S::F, rest: S::F) -> (S::F, S::F) {
    const SIN: [f32; 4] = [1.0, -0.166_666_55, 0.008_332_161, -0.000_195_152_96];
    const COS: [f32; 5] = [1.0, -0.5, 0.041_666_646, -0.001_388_731_6, 2.443_315_7e-5];
    // pi / 2 in three parts.
    let n = s.round_i(s.mul(angle, s.splat(std::f32::consts::FRAC_2_PI)));
    let f = s.to_f(n);
    let r = s.fma(f, s.splat(-1.570_796_4), angle);
    let r = s.fma(f, s.splat(4.371_139e-8), r);
    let r = s.add(s.fma(f, s.splat(1.715_12e-15), r), rest);
    let square = s.mul(r, r);
    let (sin, cos) = (s.mul(r, polynomial(s, square, SIN)), polynomial(s, square, COS));
    let odd = s.sub_i(s.splat_i(0), s.and(n, s.splat_i(1)));
    let sin_sign = s.shl::<30>(s.and(n, s.splat_i(2)));
    let cos_sign = s.shl::<30>(s.and(s.add_i(n, s.splat_i(1)), s.splat_i(2)));
    let (a, b) = (select(s, odd, cos, sin), select(s, odd, sin, cos));
    (s.as_f(s.xor(s.as_i(a), sin_sign)), s.as_f(s.xor(s.as_i(b), cos_sign)))
}

/// For each width 8, 4, 2, 1: the lanes with that bit of their number clear, and each lane's partner across that bit.
struct Exchange<S: Simd> {
    clear: S::I,
    partner: S::I,
}

#[inline(always)]
fn exchange<S: Simd>(s: S, width: usize) -> Exchange<S> {
    let lane = ramp(s);
    let bit = s.and(lane, s.splat_i(width as i32));
    Exchange { clear: s.sar::<31>(s.sub_i(bit, s.splat_i(1))), partner: s.xor(lane, s.splat_i(width as i32)) }
}

/// Lane `i` of the result is the sum of the lanes of vector `i`, by the tree of [`Simd::sum`].
#[inline(always)]
pub(super) fn sums<S: Simd>(s: S, mut v: [S::F; LANES]) -> S::F {
    let mut width = LANES / 2;
    while width > 0 {
        let e = exchange(s, width);
        for i in 0..width {
            let (a, b) = (v[i], v[i + width]);
            let kept = select(s, e.clear, a, b);
            v[i] = s.add(kept, s.lookup(select(s, e.clear, b, a), e.partner));
        }
        width /= 2;
    }
    v[0]
}

/// The sum of vectors by the tree of [`Simd::sum`]: of their lane `i` in lane `i`.
#[inline(always)]
pub(super) fn tree<S: Simd>(s: S, mut v: [S::F; LANES]) -> S::F {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            v[i] = s.add(v[i], v[i + width]);
        }
        width /= 2;
    }
    v[0]
}

/// The 16 x 16 transpose.
#[inline(always)]
pub(super) fn transpose<S: Simd>(s: S, mut v: [S::F; LANES]) -> [S::F; LANES] {
    let mut width = LANES / 2;
    while width > 0 {
        let e = exchange(s, width);
        for i in 0..LANES {
            if i & width == 0 {
                let (a, b) = (v[i], v[i + width]);
                v[i] = select(s, e.clear, a, s.lookup(b, e.partner));
                v[i + width] = select(s, e.clear, s.lookup(a, e.partner), b);
            }
        }
        width /= 2;
    }
    v
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Isa, Op};

    /// Which function to apply to all elements.
    #[derive(Clone, Copy)]
    enum Tested {
        Exp2,
        Exp,
        Sigmoid,
        Ln,
        Sin,
        Cos,
    }

    struct Apply<'a>(Tested, &'a mut [f32]);

    impl Op for Apply<'_> {
        type Out = ();

        #[inline(always)]
        fn eval<S: Simd>(self, s: S) {
            for i in (0..self.1.len()).step_by(LANES) {
                let x = Partial.get(s, self.1, i, 0.5);
                let y = match self.0 {
                    Tested::Exp2 => exp2(s, x),
                    Tested::Exp => exp(s, x),
                    Tested::Sigmoid => sigmoid(s, x),
                    Tested::Ln => ln(s, x),
                    Tested::Sin => sin_cos(s, x, s.splat(0.0)).0,
                    Tested::Cos => sin_cos(s, x, s.splat(0.0)).1,
                };
                Partial.put(s, self.1, i, y);
            }
        }
    }

    fn apply(kind: Tested, x: &[f32]) -> Vec<f32> {
        let mut y = x.to_vec();
        Isa::choose(None).unwrap().run(Apply(kind, &mut y));
        y
    }

    /// Largest `|y - f(x)| / scale(x)` over evenly spaced `x`.
    fn worst(kind: Tested, (low, high): (f64, f64), f: impl Fn(f64) -> f64, scale: impl Fn(f64) -> f64) -> f64 {
        let x: Vec<f32> = (0..200_001).map(|i| (low + (high - low) * i as f64 / 200_000.0) as f32).collect();
        let errors = apply(kind, &x).into_iter().zip(&x).map(|(y, &x)| {
            let x = x as f64;
            (y as f64 - f(x)).abs() / scale(x)
        });
        errors.fold(0.0, f64::max)
    }

    #[test]
    fn errors_are_as_stated() {
        assert!(worst(Tested::Exp2, (-125.9, 127.4), f64::exp2, f64::exp2) < 2e-7);
        assert!(worst(Tested::Exp, (-87.3, 88.3), f64::exp, f64::exp) < 2e-7);
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        assert!(worst(Tested::Sigmoid, (-87.0, 100.0), sigmoid, sigmoid) < 4e-7);
        for range in [(1e-30, 1e-28), (0.4, 1.2), (0.99, 1.01), (1.0, 5e4), (1.0, 1e30)] {
            assert!(worst(Tested::Ln, range, f64::ln, |x| 1.0 + x.ln().abs()) < 1e-7, "{range:?}");
        }
        for range in [(-7.0, 7.0), (1e3, 1.001e3), (-65_536.0, 65_536.0)] {
            assert!(worst(Tested::Sin, range, f64::sin, |_| 1.0) < 2e-7, "{range:?}");
            assert!(worst(Tested::Cos, range, f64::cos, |_| 1.0) < 2e-7, "{range:?}");
        }
    }

    #[test]
    fn ends_of_the_range() {
        let wide = [f32::NEG_INFINITY, -1e30, -127.0, 127.6, 1e30, f32::INFINITY, 0.0];
        let (zero, inf) = (0.0, f32::INFINITY);
        assert_eq!(apply(Tested::Exp2, &wide), [zero, zero, zero, inf, inf, inf, 1.0]);
        assert_eq!(apply(Tested::Exp, &wide), [zero, zero, zero, inf, inf, inf, 1.0]);
        assert_eq!(apply(Tested::Sigmoid, &wide), [zero, zero, zero, 1.0, 1.0, 1.0, 0.5]);
        assert!([Tested::Exp2, Tested::Exp, Tested::Sigmoid].iter().all(|&kind| apply(kind, &[f32::NAN])[0].is_nan()));
    }

    struct Moves<'a>(&'a [f32], &'a mut [f32]);

    impl Op for Moves<'_> {
        type Out = ();

        /// Writes the transpose of 16 rows, then their sums, then the sums and maxima of their first four.
        #[inline(always)]
        fn eval<S: Simd>(self, s: S) {
            let mut rows = [s.splat(0.0); LANES];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = Whole.get(s, self.0, i * LANES, 0.0);
            }
            for (i, row) in transpose(s, rows).into_iter().enumerate() {
                Whole.put(s, self.1, i * LANES, row);
            }
            let four = [rows[0], rows[1], rows[2], rows[3]];
            let single = s.sum(s.add(s.add(rows[0], rows[1]), s.add(rows[2], rows[3])));
            for (i, row) in [sums(s, rows), sum4(s, four), s.splat(single), max4(s, four)].into_iter().enumerate() {
                Whole.put(s, self.1, (LANES + i) * LANES, row);
            }
        }
    }

    #[test]
    fn moves_and_trees() {
        let x: Vec<f32> = (0..256).map(|i| ((i * 7919) % 1009) as f32 / 77.0 - 5.0).collect();
        for isa in Isa::available() {
            let mut y = vec![0.0; 20 * LANES];
            isa.run(Moves(&x, &mut y));
            for i in 0..LANES {
                assert!((0..LANES).all(|j| y[i * LANES + j] == x[j * LANES + i]), "{isa:?}");
                let sum: f32 = x[i * LANES..][..LANES].iter().sum();
                assert!((y[256 + i] - sum).abs() < 1e-4, "{isa:?}");
                assert_eq!(y[272 + i], y[288 + i], "{isa:?}");
                assert_eq!(y[304 + i], x[..64].iter().copied().fold(f32::MIN, f32::max), "{isa:?}");
            }
        }
    }
}
