use crate::{ROWS, WIDTHS, assert_close, assert_same_everywhere, cpu, dot, f64s, gradient, noise};
use lowbit_kernels::{Cpu, Int8Activations, Isa, ops};

const EPS: f32 = 1e-5;

/// Root-mean-square or layer normalization of all rows.
fn oracle(layer: bool, x: &[f64], weight: &[f64], bias: Option<&[f64]>) -> Vec<f64> {
    let width = weight.len();
    let rows = x.chunks_exact(width).flat_map(|x| {
        let mean = if layer { x.iter().sum::<f64>() / width as f64 } else { 0.0 };
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
        let scale = 1.0 / (variance + EPS as f64).sqrt();
        (0..width).map(move |i| (x[i] - mean) * scale * weight[i] + bias.map_or(0.0, |bias| bias[i]))
    });
    rows.collect()
}

fn shapes() -> impl Iterator<Item = (usize, usize)> {
    ROWS.iter().flat_map(|&rows| WIDTHS.map(|width| (rows, width)))
}

#[test]
fn norms_match() {
    let cpu = cpu();
    for (rows, width) in shapes() {
        let (x, weight, bias) = (noise(rows * width, 1), noise(width, 2), noise(width, 3));
        let shifted: Vec<f32> = x.iter().map(|x| x + 3.0).collect();
        let mut y = vec![f32::NAN; x.len()];
        ops::rms_norm(&cpu, &x, &weight, EPS, &mut y);
        assert_close(&y, &oracle(false, &f64s(&x), &f64s(&weight), None), 2e-6, "rms");
        for bias in [None, Some(&bias[..])] {
            ops::layer_norm(&cpu, &shifted, &weight, bias, EPS, &mut y);
            let want = oracle(true, &f64s(&shifted), &f64s(&weight), bias.map(f64s).as_deref());
            assert_close(&y, &want, 1e-5, &format!("layer {rows} x {width}"));
        }
    }
}

#[test]
fn norm_gradients_match() {
    let cpu = cpu();
    for (rows, width) in shapes().filter(|&(rows, width)| rows * width < 300) {
        let (x, weight, bias, dy) = (noise(rows * width, 1), noise(width, 2), noise(width, 3), noise(rows * width, 4));
        let (x64, weight64, bias64, dy64) = (f64s(&x), f64s(&weight), f64s(&bias), f64s(&dy));
        for layer in [false, true] {
            let (mut dx, mut dweight, mut dbias) = (noise(x.len(), 5), noise(width, 6), noise(width, 7));
            let plus = |start: &[f32], more: Vec<f64>| -> Vec<f64> {
                start.iter().zip(more).map(|(&start, more)| start as f64 + more).collect()
            };
            let loss = |x: &[f64], weight: &[f64], bias: &[f64]| dot(&oracle(layer, x, weight, Some(bias)), &dy64);
            let want_x = plus(&dx, gradient(&x64, |x| loss(x, &weight64, &bias64)));
            let want_weight = plus(&dweight, gradient(&weight64, |weight| loss(&x64, weight, &bias64)));
            let want_bias = plus(&dbias, gradient(&bias64, |bias| loss(&x64, &weight64, bias)));
            if layer {
                let mut without = [dx.clone(), dweight.clone()];
                let [dx2, dweight2] = &mut without;
                ops::layer_norm_backward(&cpu, &x, &weight, EPS, &dy, dx2, dweight2, None);
                ops::layer_norm_backward(&cpu, &x, &weight, EPS, &dy, &mut dx, &mut dweight, Some(&mut dbias));
                assert_close(&without[0], &f64s(&dx), 1e-6, "dx without a bias");
                assert_close(&without[1], &f64s(&dweight), 1e-6, "dweight without a bias");
                assert_close(&dbias, &want_bias, 1e-5, "dbias");
            } else {
                ops::rms_norm_backward(&cpu, &x, &weight, EPS, &dy, &mut dx, &mut dweight);
            }
            // A row of one element has a variance of 0 and slopes of up to 1 / sqrt(eps).
            let tolerance = if width == 1 { 1e-3 } else { 2e-5 };
            let what = format!("layer {layer}, {rows} x {width}");
            assert_close(&dx, &want_x, tolerance, &format!("dx, {what}"));
            assert_close(&dweight, &want_weight, 1e-5, &format!("dweight, {what}"));
        }
    }
}

#[test]
fn fake_quantization_is_what_int8_rows_keep() {
    let cpu = cpu();
    for (rows, width) in shapes() {
        let mut x = noise(rows * width, 1);
        x.iter_mut().take(width).for_each(|x| *x *= 1e-7);
        let mut y = vec![f32::NAN; x.len()];
        ops::fake_quantize_rows(&cpu, &x, width, &mut y);
        let mut kept = Int8Activations::default();
        kept.quantize(&cpu, &x, width);
        assert_eq!(y, kept.dequantize(), "{rows} x {width}");
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact(width)) {
            let step = x.iter().fold(0.0f32, |top, x| top.max(x.abs())) as f64 / 127.0;
            assert!(x.iter().zip(y).all(|(&x, &y)| (x as f64 - y as f64).abs() <= 0.5001 * step));
        }
    }
}

#[test]
fn a_row_with_a_value_that_is_not_finite_is_lost_as_a_whole() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for width in [1, 17, 64, 130] {
            for at in [0, width - 1] {
                let mut x = noise(3 * width, 1);
                x[width + at] = bad;
                for isa in Isa::available() {
                    let cpu = Cpu::with(isa, cpu().pool);
                    let mut y = vec![0.0; x.len()];
                    ops::fake_quantize_rows(&cpu, &x, width, &mut y);
                    let lost: Vec<bool> = y.iter().map(|y| y.is_nan()).collect();
                    let wanted: Vec<bool> = (0..3 * width).map(|i| i / width == 1).collect();
                    assert_eq!(lost, wanted, "{bad} on {}", isa.name());
                }
            }
        }
    }
}

#[test]
fn same_bits_everywhere() {
    for (rows, width) in [(7, 65), (700, 65), (3, 257)] {
        let (x, weight, dy) = (noise(rows * width, 1), noise(width, 2), noise(rows * width, 3));
        assert_same_everywhere("norm", |cpu| {
            let mut buffers = [(); 5].map(|()| vec![0.5f32; x.len()]);
            let [a, b, c, dx, dz] = &mut buffers;
            let mut sums = [(); 3].map(|()| vec![0.5f32; width]);
            let [dw, du, db] = &mut sums;
            ops::rms_norm(cpu, &x, &weight, EPS, a);
            ops::layer_norm(cpu, &x, &weight, Some(&weight), EPS, b);
            ops::fake_quantize_rows(cpu, &x, width, c);
            ops::rms_norm_backward(cpu, &x, &weight, EPS, &dy, dx, dw);
            ops::layer_norm_backward(cpu, &x, &weight, EPS, &dy, dz, du, Some(db));
            buffers.into_iter().chain(sums).collect()
        });
    }
}
