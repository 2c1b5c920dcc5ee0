use crate::{ROWS, WIDTHS, assert_close, assert_same_everywhere, cpu, f64s, gradient, noise};
use lowbit_kernels::ops::{self, Function};

fn oracle(f: Function, x: f64) -> f64 {
    match f {
        Function::Relu => x.max(0.0),
        Function::Relu2 => x.max(0.0).powi(2),
        Function::Silu => x / (1.0 + (-x).exp()),
        Function::GeluErf => x * normal(x),
        Function::GeluTanh => {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            0.5 * x * (1.0 + u.tanh())
        }
        Function::Tanh => x.tanh(),
    }
}

/// The cumulative standard normal distribution: its series near 0, its continued fraction in the tail.
fn normal(x: f64) -> f64 {
    let density = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    if x.abs() < 3.0 {
        let terms = std::iter::successors(Some((x, 3.0)), |(term, odd)| Some((term * x * x / odd, odd + 2.0)));
        let sum: f64 = terms.take(100).map(|(term, _)| term).sum();
        return 0.5 + density * sum;
    }
    let tail = density / (1..200).rev().fold(x.abs(), |fraction, k| x.abs() + k as f64 / fraction);
    if x < 0.0 { tail } else { 1.0 - tail }
}

fn slope(f: Function, x: f64) -> f64 {
    gradient(&[x], |x| oracle(f, x[0]))[0]
}

/// Values over several magnitudes, none within the step of a central difference around 0.
fn inputs(len: usize, seed: u64) -> Vec<f32> {
    let scale = noise(len, seed + 1000);
    noise(len, seed).iter().zip(scale).map(|(x, s)| (x + 1e-3 * x.signum()) * 10f32.powf(1.5 * s)).collect()
}

#[test]
fn activations_match() {
    let cpu = cpu();
    for &f in Function::ALL {
        for len in ROWS.iter().flat_map(|rows| WIDTHS.map(|width| rows * width)) {
            let (x, dy, start) = (inputs(len, 1), noise(len, 2), noise(len, 3));
            let (mut y, mut dx) = (vec![f32::NAN; len], start.clone());
            ops::activate(&cpu, f, &x, &mut y);
            ops::activate_backward(&cpu, f, &x, &dy, &mut dx);
            let want: Vec<f64> = x.iter().map(|&x| oracle(f, x as f64)).collect();
            let terms = x.iter().zip(&dy).zip(&start);
            let slopes: Vec<f64> =
                terms.map(|((&x, &dy), &start)| start as f64 + slope(f, x as f64) * dy as f64).collect();
            assert_close(&y, &want, 1e-6, &format!("{f:?}"));
            assert_close(&dx, &slopes, 3e-6, &format!("slope of {f:?}"));
        }
    }
}

#[test]
fn activations_saturate() {
    let x = [-1e30f32, -1e5, -200.0, -90.0, 0.0, 90.0, 200.0, 1e5];
    for &f in Function::ALL {
        let (mut y, mut dx) = (x, [0.0; 8]);
        ops::activate(&cpu(), f, &x, &mut y);
        ops::activate_backward(&cpu(), f, &x, &[1.0; 8], &mut dx);
        for i in 0..8 {
            let want = oracle(f, x[i] as f64);
            assert!((y[i] as f64 - want).abs() <= 1e-6 * (1.0 + want.abs()), "{f:?} of {}: {}", x[i], y[i]);
        }
        let right = |x: f32| match f {
            Function::Relu2 => 2.0 * x,
            Function::Tanh => 0.0,
            _ => 1.0,
        };
        assert_eq!(dx[..4], [0.0; 4], "{f:?}");
        assert_eq!(dx[5..], [right(90.0), right(200.0), right(1e5)], "{f:?}");
        let middle = match f {
            Function::Relu | Function::Relu2 => 0.0,
            Function::Silu | Function::GeluErf | Function::GeluTanh => 0.5,
            Function::Tanh => 1.0,
        };
        assert_eq!(dx[4], middle, "{f:?}");
        let mut nan = [0.0];
        ops::activate(&cpu(), f, &[f32::NAN], &mut nan);
        assert!(nan[0].is_nan(), "{f:?} keeps NaN");
    }
}

#[test]
fn gates_match() {
    let cpu = cpu();
    for &f in Function::ALL {
        for len in [0, 1, 17, 130] {
            let (g, u, dy) = (inputs(len, 4), noise(len, 5), noise(len, 6));
            let (mut y, mut dg, mut du) = (vec![f32::NAN; len], noise(len, 7), noise(len, 8));
            let (dg_start, du_start) = (f64s(&dg), f64s(&du));
            ops::gate(&cpu, f, &g, &u, &mut y);
            ops::gate_backward(&cpu, f, &g, &u, &dy, &mut dg, &mut du);
            let (g, u, dy) = (f64s(&g), f64s(&u), f64s(&dy));
            let want = |of: &dyn Fn(usize) -> f64| (0..len).map(of).collect::<Vec<f64>>();
            assert_close(&y, &want(&|i| oracle(f, g[i]) * u[i]), 1e-6, "gate");
            assert_close(&dg, &want(&|i| dg_start[i] + slope(f, g[i]) * u[i] * dy[i]), 3e-6, "dgate");
            assert_close(&du, &want(&|i| du_start[i] + oracle(f, g[i]) * dy[i]), 1e-6, "dup");
        }
    }
}

#[test]
fn sums_and_products_match() {
    let cpu = cpu();
    for len in ROWS.iter().flat_map(|rows| WIDTHS.map(|width| rows * width)) {
        let (a, b, dy) = (noise(len, 1), noise(len, 2), noise(len, 3));
        let (mut sum, mut product) = (vec![f32::NAN; len], vec![f32::NAN; len]);
        let (mut assigned, mut da, mut db) = (a.clone(), a.clone(), b.clone());
        ops::add(&cpu, &a, &b, &mut sum);
        ops::mul(&cpu, &a, &b, &mut product);
        ops::add_assign(&cpu, &mut assigned, &b);
        ops::mul_backward(&cpu, &a, &b, &dy, &mut da, &mut db);
        assert_eq!(sum, assigned);
        for i in 0..len {
            assert_eq!((sum[i], product[i]), (a[i] + b[i], a[i] * b[i]));
            assert_eq!((da[i], db[i]), (b[i].mul_add(dy[i], a[i]), a[i].mul_add(dy[i], b[i])));
        }
    }
}

#[test]
fn biases_are_added_and_summed() {
    let cpu = cpu();
    for (rows, width) in ROWS.iter().flat_map(|&rows| WIDTHS.map(|width| (rows, width))).chain([(3000, 17)]) {
        let (x, bias) = (noise(rows * width, 1), noise(width, 2));
        let (mut y, mut dbias) = (x.clone(), bias.clone());
        ops::add_bias(&cpu, &mut y, &bias);
        ops::sum_rows(&cpu, &x, &mut dbias);
        assert!((0..x.len()).all(|i| y[i] == x[i] + bias[i % width]));
        let mut want = f64s(&bias);
        x.iter().enumerate().for_each(|(i, &x)| want[i % width] += x as f64);
        assert_close(&dbias, &want, 2e-5, &format!("{rows} rows of {width}"));
    }
}

#[test]
fn whole_sums() {
    let cpu = cpu();
    for len in [0, 1, 15, 16, 63, 1023, 1024, 1025, 65_536, 200_001] {
        let mut x = noise(len, 9);
        let want: f64 = f64s(&x).iter().map(|x| x * x).sum();
        assert!((ops::sum_squares(&cpu, &x) - want).abs() <= 1e-6 * want, "{len}");
        assert!(ops::all_finite(&cpu, &x));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, len / 2, len.wrapping_sub(1)].into_iter().filter(|&at| at < len) {
                let old = std::mem::replace(&mut x[at], bad);
                assert!(!ops::all_finite(&cpu, &x), "{bad} at {at} of {len}");
                x[at] = old;
            }
        }
    }
}

#[test]
fn same_bits_everywhere() {
    for len in [65, 50_003] {
        let (a, b, dy) = (inputs(len, 1), noise(len, 2), noise(len, 3));
        assert_same_everywhere("elementwise", |cpu| {
            let mut out = vec![];
            for &f in Function::ALL {
                let mut buffers = [(); 5].map(|()| vec![0.5f32; len]);
                let [y, z, dx, dg, du] = &mut buffers;
                ops::activate(cpu, f, &a, y);
                ops::gate(cpu, f, &a, &b, z);
                ops::activate_backward(cpu, f, &a, &dy, dx);
                ops::gate_backward(cpu, f, &a, &b, &dy, dg, du);
                out.extend(buffers);
            }
            let (mut da, mut db, mut sums) = (vec![0.5; len], vec![0.5; len], vec![0.5; len % 64]);
            ops::mul_backward(cpu, &a, &b, &dy, &mut da, &mut db);
            ops::sum_rows(cpu, &a[..len / (len % 64) * (len % 64)], &mut sums);
            ops::add_bias(cpu, &mut da[..len / (len % 64) * (len % 64)], &b[..len % 64]);
            let total = ops::sum_squares(cpu, &a).to_bits();
            out.extend([da, db, sums, vec![f32::from_bits(total as u32), f32::from_bits((total >> 32) as u32)]]);
            out
        });
    }
}
