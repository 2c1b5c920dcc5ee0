//! Numbers that are not finite, or leave the range of what stores them: they are kept, or refused by name, never lost.

use lowbit_kernels::format::{ActivationType, Holds, Scales, find};
use lowbit_kernels::{
    Activations, BLOCK, Bytes, Cpu, Error, FORMATS, Format, Int8Activations, Isa, Packed, QuantizeOptions,
};

fn values(n: usize, mut seed: u64) -> Vec<f32> {
    let mut uniform = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..n).map(|_| uniform() + uniform() + uniform()).collect()
}

fn quantize(format: &'static dyn Format, w: &[f32], cols: usize) -> Packed {
    let options = QuantizeOptions { outlier_columns: vec![3, 70], ..Default::default() };
    format.quantize(w, w.len() / cols, cols, &options).unwrap_or_else(|e| panic!("{}: {e}", format.name()))
}

/// Root of the mean of the squared errors of each row, over that of the row.
fn errors(w: &[f32], back: &[f32], cols: usize) -> Vec<f64> {
    let power = |w: &mut dyn Iterator<Item = f64>| w.map(|v| v * v).sum::<f64>().sqrt();
    let rows = w.chunks_exact(cols).zip(back.chunks_exact(cols));
    let relative = |(w, back): (&[f32], &[f32])| {
        power(&mut w.iter().zip(back).map(|(a, b)| *a as f64 - *b as f64)) / power(&mut w.iter().map(|v| *v as f64))
    };
    rows.map(relative).collect()
}

#[test]
fn activations_that_are_not_finite_poison_their_token_on_every_instruction_set() {
    let (rows, cols, tokens) = (40, 130, 5);
    for format in FORMATS {
        let p = quantize(*format, &values(rows * cols, 7), cols);
        for bad in [f32::NAN, -f32::NAN, f32::from_bits(0x7fff_ffff), f32::INFINITY, f32::NEG_INFINITY] {
            for tokens in [1, tokens] {
                let (mut x, token) = (values(tokens * cols, 3), tokens / 2);
                x[token * cols + 7] = bad;
                let mut first: [Option<Vec<u32>>; 3] = Default::default();
                for isa in Isa::available() {
                    let cpu = Cpu::new(Some(isa.name()), Some(2)).unwrap();
                    let (mut q, mut y) = (Int8Activations::default(), vec![0.0; tokens * rows]);
                    let mut blocks = Int8Activations::default();
                    q.quantize(&cpu, &x, cols);
                    blocks.quantize_blocks(&cpu, &x, cols);
                    for q in [&q, &blocks] {
                        assert!(q.scale()[token].is_nan() && q.codes(token).all(|code| code == 0));
                    }
                    for (at, input) in [Activations::Int8(&q), Activations::F32(&x), Activations::Int8(&blocks)]
                        .into_iter()
                        .enumerate()
                    {
                        p.matmul(&cpu, input, &mut y);
                        for (i, y) in y.chunks_exact(rows).enumerate() {
                            let what = format!("{} {} {bad} token {i} of {tokens}", format.name(), isa.name());
                            match i == token {
                                // 0 times infinity, or a sum of infinities, is NaN; a weight of 0 alone may hide neither.
                                true => assert!(y.iter().all(|y| !y.is_finite()), "{what}: {y:?}"),
                                false => assert!(y.iter().all(|y| y.is_finite()), "{what}"),
                            }
                        }
                        if matches!(input, Activations::Int8(_)) && format.spec().activations == ActivationType::Int8 {
                            let bits: Vec<u32> = y.iter().map(|y| y.to_bits()).collect();
                            assert!(
                                *first[at].get_or_insert_with(|| bits.clone()) == bits,
                                "{} {}",
                                format.name(),
                                isa.name()
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn sums_beyond_32_bits_are_exact() {
    // 127 * 127 * columns is more than 2^31.
    let (rows, cols) = (2, 140_000);
    for format in FORMATS.iter().filter(|format| format.spec().activations != ActivationType::Float) {
        let p = format.quantize(&vec![1.0; rows * cols], rows, cols, &QuantizeOptions::default()).expect("finite");
        let want: f64 = p.dequantize_rows(0..1).iter().map(|w| f64::from(*w)).sum();
        let x = vec![1.0; 2 * cols];
        for isa in Isa::available() {
            let cpu = Cpu::new(Some(isa.name()), Some(2)).unwrap();
            for tokens in [1, 2] {
                let (mut q, mut y) = (Int8Activations::default(), vec![0.0; tokens * rows]);
                q.quantize(&cpu, &x[..tokens * cols], cols);
                let inputs = [Activations::Int8(&q), Activations::F32(&x[..tokens * cols])];
                for input in inputs {
                    p.matmul(&cpu, input, &mut y);
                    let close = y.iter().all(|y| (f64::from(*y) / want - 1.0).abs() < 1e-2);
                    assert!(close, "{} {} {tokens}: {y:?}", format.name(), isa.name());
                }
            }
        }
    }
}

#[test]
fn blocks_of_activations_have_steps_of_their_own() {
    for cols in [1, 31, 32, 33, 64, 100, 200] {
        // Blocks of many magnitudes, one of zeros among them.
        let size = |i: usize| [1.0, 1e-3, 0.0, 300.0, 1e-20][i / BLOCK % 5];
        let x: Vec<f32> = values(3 * cols, 3).iter().enumerate().map(|(i, x)| x * size(i % cols)).collect();
        for isa in Isa::available() {
            let cpu = Cpu::new(Some(isa.name()), Some(1)).unwrap();
            let (mut q, mut alone) = (Int8Activations::default(), Int8Activations::default());
            q.quantize_blocks(&cpu, &x, cols);
            let back = q.dequantize();
            for (token, (x, back)) in x.chunks(cols).zip(back.chunks(cols)).enumerate() {
                let codes: Vec<i8> = q.codes(token).collect();
                for ((x, back), codes) in x.chunks(BLOCK).zip(back.chunks(BLOCK)).zip(codes.chunks(BLOCK)) {
                    // A block is quantized as a token that is no longer than it.
                    alone.quantize(&cpu, x, x.len());
                    assert!(alone.codes(0).eq(codes.iter().copied()), "{cols} on {}", isa.name());
                    let step = x.iter().fold(0.0, |top: f64, x| top.max(f64::from(x.abs()))) / 127.0;
                    for ((x, back), code) in x.iter().zip(back).zip(codes) {
                        let want = f64::from(*code) * step;
                        assert!((f64::from(*back) - want).abs() <= want.abs() * 1e-6, "{back} {want}");
                        assert!((f64::from(*back) - f64::from(*x)).abs() <= step * 0.5001, "{back} {x}");
                    }
                }
            }
        }
    }
}

#[test]
fn small_activations_keep_their_steps() {
    let (cols, x) = (200, values(200, 3));
    for isa in Isa::available() {
        let cpu = Cpu::new(Some(isa.name()), Some(1)).unwrap();
        let codes = |factor: f32| {
            let (mut q, x) = (Int8Activations::default(), x.iter().map(|x| x * factor).collect::<Vec<_>>());
            q.quantize(&cpu, &x, cols);
            let codes: Vec<i8> = q.codes(0).collect();
            codes
        };
        let largest = |factor| codes(factor).into_iter().map(i8::unsigned_abs).max();
        for factor in [1.0, 1e-7, 1e-20, 1e-34, 1e30] {
            assert_eq!(largest(factor), Some(127), "{factor} on {}", isa.name());
        }
        assert_eq!(codes(2f32.powi(-60)), codes(1.0), "{}", isa.name());
        assert!(codes(0.0).iter().all(|code| *code == 0));
    }
}

#[test]
fn weights_of_any_size_lose_no_more_than_others() {
    let (rows, cols) = (34, 200);
    let w = values(rows * cols, 5);
    for format in FORMATS {
        let plain = errors(&w, &quantize(*format, &w, cols).dequantize(), cols);
        // Each factor for all rows; then, where rows have scales of their own, other factors for some of them.
        let by_row = format.spec().scales != Scales::Tensor && format.name() != "nf4_dq";
        let mixed = |row: usize| if by_row { [1.0, 1e6, 1e-7, 1e12, 1e-30][row % 5] } else { 1.0 };
        let uniform = [1e6, 3e6, 1e-7, 1e-12, 1e15, 1e-30, 1e-35].map(|factor| vec![factor; rows]);
        for factors in uniform.into_iter().chain([(0..rows).map(mixed).collect()]) {
            let scaled: Vec<f32> = w.iter().enumerate().map(|(i, w)| w * factors[i / cols]).collect();
            let p = quantize(*format, &scaled, cols);
            for (row, (error, plain)) in errors(&scaled, &p.dequantize(), cols).into_iter().zip(&plain).enumerate() {
                let factor = factors[row];
                assert!(
                    error <= plain * 1.25 + 1e-4,
                    "{} x {factor:e}, row {row}: {error}, not {plain}",
                    format.name()
                );
            }
            // Products follow.
            let cpu = Cpu::new(None, Some(2)).unwrap();
            for tokens in [1, 3] {
                let (x, mut y) = (values(tokens * cols, 9), vec![0.0; tokens * rows]);
                let mut q = Int8Activations::default();
                q.quantize(&cpu, &x, cols);
                let mut blocks = Int8Activations::default();
                blocks.quantize_blocks(&cpu, &x, cols);
                for input in [Activations::F32(&x), Activations::Int8(&q), Activations::Int8(&blocks)] {
                    p.matmul(&cpu, input, &mut y);
                    let (seen, back) = (input.floats(), p.dequantize());
                    for (i, y) in y.iter().enumerate() {
                        let (token, row) = (i / rows, i % rows);
                        let pairs = || back[row * cols..][..cols].iter().zip(&seen[token * cols..][..cols]);
                        let want: f64 = pairs().map(|(a, b)| *a as f64 * *b as f64).sum();
                        let size: f64 = pairs().map(|(a, b)| (*a as f64 * *b as f64).abs()).sum();
                        assert!(
                            (*y as f64 - want).abs() <= 2e-2 * size,
                            "{} x {:e}: {y} {want}",
                            format.name(),
                            factors[row]
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn weights_that_bf16_cannot_hold_are_refused_by_name() {
    let mut w = values(3 * 65, 1);
    w[65 + 7] = f32::MAX;
    for format in FORMATS {
        match format.quantize(&w, 3, 65, &QuantizeOptions::default()) {
            Err(e) => {
                assert!(matches!(e, Error::Range { row: 1, col: 7, .. }), "{}: {e}", format.name());
                assert!(e.to_string().contains("row 1, column 7 is beyond the range"), "{e}");
            }
            Ok(p) => assert!(p.dequantize().iter().all(|w| w.is_finite()), "{}", format.name()),
        }
    }
    assert!(find("bf16").unwrap().quantize(&w, 3, 65, &QuantizeOptions::default()).is_err());
    let floats = Packed::quantize(
        find("nf4").unwrap(),
        [3, 65],
        &Default::default(),
        &lowbit_kernels::Pool::new(1),
        |rows| Ok(w[rows.start * 65..rows.end * 65].into()),
        |e| e,
    );
    assert!(matches!(floats, Err(Error::Range { row: 1, col: 7, format: "nf4" })));
}

#[test]
fn scales_that_are_none_are_refused_in_every_format() {
    let (rows, cols) = (40, 130);
    // Rows of very different sizes have factors.
    let w: Vec<f32> =
        values(rows * cols, 7).iter().enumerate().map(|(i, w)| w * if i / cols % 2 == 0 { 1e6 } else { 1.0 }).collect();
    for format in FORMATS {
        let p = quantize(*format, &w, cols);
        let parts = format.parts(rows, cols, p.parts());
        for (at, part) in parts.iter().enumerate() {
            let (scales, bytes) = (part.holds == Holds::Scales, p.parts()[at].len());
            // One byte for each maximum of `nf4_dq`: any is one.
            if !scales || bytes == 0 || format.name() == "nf4_dq" && part.name == "absmax" {
                continue;
            }
            let halves = matches!(format.spec().scales, Scales::Group(_)) && part.name == "scales";
            let any = format.grouped().is_some_and(|grouped| grouped.any_scale());
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.0, 0.0] {
                if any && bad.is_finite() {
                    continue;
                }
                let mut stored = p.parts()[at].to_vec();
                match halves {
                    true => stored[..2].copy_from_slice(&half::f16::from_f32(bad).to_le_bytes()),
                    // Both, where a minimum and a step belong together.
                    false => stored.chunks_exact_mut(4).take(2).for_each(|b| b.copy_from_slice(&bad.to_le_bytes())),
                }
                let mut all = p.parts().to_vec();
                all[at] = Bytes::new(stored);
                let refused = Packed::from_parts(*format, rows, cols, all).map(|_| ());
                let what = format!("{} `{}` {bad}", format.name(), part.name);
                let text = refused.expect_err(&what).to_string();
                let named = ["scale", "range", "bounds"].iter().any(|name| text.contains(name));
                assert!(text.contains(" 0 ") && named, "{what}: {text}");
            }
        }
        // Factors of rows end the scales of groups and the weights of outliers.
        let place = parts
            .iter()
            .position(|part| ["scales", "outlier_weights"].contains(&part.name))
            .filter(|_| format.grouped().is_some() || format.spec().outliers);
        let place = place.map(|at| if format.spec().outliers { 3 } else { at });
        for bad in [f32::NAN, f32::INFINITY, -1.0, 0.0] {
            let Some(at) = place else { continue };
            let mut stored = p.parts()[at].to_vec();
            let end = stored.len();
            stored[end - 4..].copy_from_slice(&bad.to_le_bytes());
            let mut all = p.parts().to_vec();
            all[at] = Bytes::new(stored);
            let text = Packed::from_parts(*format, rows, cols, all).map(|_| ()).expect_err("a bad factor").to_string();
            assert!(text.contains("panel 2") && text.contains("factor 15"), "{}: {text}", format.name());
        }
        // Weights that are 0 need no scale.
        let zeros = quantize(*format, &vec![0.0; rows * cols], cols);
        let zero = zeros.dequantize().iter().all(|w| *w == 0.0);
        assert!(zero, "{}", format.name());
    }
}
