//! Products of windows of images have the bits of products of the same windows, stored.

use lowbit_kernels::{
    Activations, Cpu, FORMATS, Int8Activations, Isa, Mat, Precision, QuantizeOptions, Window, Windows, format, gemm_in,
};

/// Shapes of windows: channels of one panel, of less and of more, cut by panels and chunks.
fn shapes() -> Vec<Window> {
    let window =
        |input, channels, kernel: [usize; 2], stride, padding| Window { input, channels, kernel, stride, padding };
    vec![
        window([6, 5], 3, [3, 3], [1, 1], [1, 1]),
        window([7, 9], 16, [3, 3], [2, 2], [1, 1]),
        window([5, 6], 40, [3, 2], [1, 2], [1, 0]),
        window([6, 6], 96, [5, 5], [1, 1], [2, 2]),
        window([4, 4], 33, [1, 1], [1, 1], [0, 0]),
        window([4, 4], 5, [4, 4], [1, 1], [0, 0]),
    ]
}

fn values(n: usize, seed: u32) -> Vec<f32> {
    let unit = |i: u32| (i.wrapping_mul(2654435761).wrapping_add(seed) >> 8) as f32 / 8388608.0 - 1.0;
    (0..n as u32).map(|i| unit(i + seed * 7919)).collect()
}

#[test]
fn products_of_windows_have_the_bits_of_stored_ones() {
    for window in shapes() {
        let x = values(3 * window.values(), 1);
        let all = Windows::new(window, &x);
        let some = all.range(all.len() / 5..all.len());
        let (stored, rows, columns, out) = (some.gather(), some.len(), some.columns(), 21);
        let (w, dy) = (values(out * columns, 2), values(rows * out, 3));
        for (isa, precision) in
            Isa::available().into_iter().flat_map(|isa| [(isa, Precision::F32), (isa, Precision::Bf16)])
        {
            for threads in [1, 3] {
                let cpu = Cpu::new(Some(isa.name()), Some(threads)).expect("available");
                let (mut found, mut expected) = (values(rows * out, 4), values(rows * out, 4));
                let weights = Mat::new(&w, columns).t();
                gemm_in(&cpu, precision, rows, out, columns, some, weights, true, &mut found);
                gemm_in(&cpu, precision, rows, out, columns, Mat::new(&stored, columns), weights, true, &mut expected);
                assert_eq!(found, expected, "{window:?} {} {precision:?}, left", isa.name());
                let (mut found, mut expected) = (vec![0.0; out * columns], vec![0.0; out * columns]);
                let dy = Mat::new(&dy, out).t();
                gemm_in(&cpu, precision, out, columns, rows, dy, some, false, &mut found);
                gemm_in(&cpu, precision, out, columns, rows, dy, Mat::new(&stored, columns), false, &mut expected);
                assert_eq!(found, expected, "{window:?} {} {precision:?}, right", isa.name());
            }
        }
    }
}

#[test]
fn every_format_multiplies_windows_as_it_multiplies_rows() {
    for window in shapes() {
        let x = values(2 * window.values(), 1);
        let windows = Windows::new(window, &x);
        let (stored, columns, out) = (windows.gather(), windows.columns(), 19);
        let w = values(out * columns, 2);
        let cpu = Cpu::new(None, Some(2)).expect("a CPU");
        for block in [None, Some(32), Some(128)] {
            let (mut found, mut expected) = (Int8Activations::default(), Int8Activations::default());
            found.quantize_windows(&cpu, &windows, block);
            match block {
                None => expected.quantize(&cpu, &stored, columns),
                Some(block) => expected.quantize_blocks(&cpu, &stored, columns, block),
            }
            assert_eq!(found.dequantize(), expected.dequantize(), "{window:?} {block:?}");
        }
        for name in FORMATS.iter().map(|format| format.name()) {
            let format = format::find(name).expect("a format");
            let Ok(packed) = format.quantize(&w, out, columns, &QuantizeOptions::default()) else { continue };
            let (mut found, mut expected) = (vec![0.0; windows.len() * out], vec![0.0; windows.len() * out]);
            packed.matmul(&cpu, Activations::Windows(windows), &mut found);
            packed.matmul(&cpu, Activations::F32(&stored), &mut expected);
            assert_eq!(found, expected, "{window:?} {name}");
        }
    }
}

/// The gradient of images by products of windows over the gradient of the outputs, and by the definition.
#[test]
fn reversed_windows_give_the_gradient_of_images() {
    let cpu = Cpu::new(None, Some(2)).expect("a CPU");
    for window in shapes() {
        let out = 7;
        let Some(reversed) = window.reversed(out) else {
            assert_ne!(window.stride, [1, 1]);
            continue;
        };
        let (columns, channels, positions) = (window.columns(), window.channels, window.positions());
        let (w, dy) = (values(out * columns, 2), values(2 * window.pixels() * out, 3));
        let turned: Vec<f32> = (0..positions * out * channels)
            .map(|at| {
                let (position, o, channel) = (positions - 1 - at / channels / out, at / channels % out, at % channels);
                w[(o * positions + position) * channels + channel]
            })
            .collect();
        let windows = Windows::new(reversed, &dy);
        assert_eq!(reversed.output(), window.input);
        let mut dx = vec![0.0; 2 * window.values()];
        let turned = Mat::new(&turned, channels);
        gemm_in(&cpu, Precision::F32, windows.len(), channels, windows.columns(), windows, turned, false, &mut dx);
        let mut dwindows = vec![0.0; 2 * window.pixels() * columns];
        let rows = 2 * window.pixels();
        let (left, right) = (Mat::new(&dy, out), Mat::new(&w, columns));
        gemm_in(&cpu, Precision::F32, rows, columns, out, left, right, false, &mut dwindows);
        let mut expected = vec![0.0; dx.len()];
        window.scatter(&cpu.pool, &dwindows, 0..rows, &mut expected);
        for (found, expected) in dx.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-4, "{window:?}: {found} for {expected}");
        }
    }
}
