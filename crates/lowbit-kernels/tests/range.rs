//! Numbers that are not finite, or leave the range of what stores them: they are kept, or refused by name, never lost.

use lowbit_kernels::format::{ActivationType, Holds, Scales, find};
use lowbit_kernels::{BLOCK_SIZES, Bytes, Cpu, Error, FORMATS, Format, Isa, Packed, QuantizeOptions};

mod support;
use support::{Kind, bits, int8, kinds, values};

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

/// Checks that a value that is not finite spoils the outputs of its token alone, whatever the activations are.
fn check_poison(p: &Packed, bad: f32, tokens: usize) {
    let (format, rows, cols) = (p.format(), p.rows(), p.cols());
    let (mut x, token) = (values(tokens * cols, 3), tokens / 2);
    x[token * cols + 7] = bad;
    for kind in kinds() {
        let mut first = None;
        for isa in Isa::available() {
            let what = format!("{} {} {kind:?} {bad}, {tokens} tokens", format.name(), isa.name());
            let cpu = Cpu::new(Some(isa.name()), Some(2)).unwrap();
            if let Kind::Int8(block) = kind {
                let q = int8(&cpu, &x, cols, block);
                assert!(q.scale()[token].is_nan() && q.codes(token).all(|code| code == 0), "{what}");
            }
            let y = kind.of(&cpu, &x, cols).times(&cpu, p);
            for (i, y) in y.chunks_exact(rows).enumerate() {
                // 0 times infinity, or a sum of infinities, is NaN; a weight of 0 alone may hide neither.
                assert!(y.iter().all(|y| y.is_finite() != (i == token)), "{what}, token {i}: {y:?}");
            }
            if kind != Kind::F32 && format.spec().activations == ActivationType::Int8 {
                assert!(*first.get_or_insert_with(|| bits(&y)) == bits(&y), "{what}");
            }
        }
    }
}

#[test]
fn activations_that_are_not_finite_poison_their_token_on_every_instruction_set() {
    let (rows, cols) = (40, 130);
    for format in FORMATS {
        let p = quantize(*format, &values(rows * cols, 7), cols);
        for bad in [f32::NAN, -f32::NAN, f32::from_bits(0x7fff_ffff), f32::INFINITY, f32::NEG_INFINITY] {
            [1, 5].into_iter().for_each(|tokens| check_poison(&p, bad, tokens));
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
            for (kind, tokens) in kinds().flat_map(|kind| [(kind, 1), (kind, 2)]) {
                let y = kind.of(&cpu, &x[..tokens * cols], cols).times(&cpu, &p);
                let close = y.iter().all(|y| (f64::from(*y) / want - 1.0).abs() < 1e-2);
                assert!(close, "{} {} {kind:?} {tokens}: {y:?}", format.name(), isa.name());
            }
        }
    }
}

/// Checks the codes and steps of the blocks of tokens of so many columns.
fn check_blocks(cpu: &Cpu, cols: usize, size: usize) {
    // Blocks of many magnitudes, one of zeros among them.
    let magnitude = |i: usize| [1.0, 1e-3, 0.0, 300.0, 1e-20][i / size % 5];
    let x: Vec<f32> = values(3 * cols, 3).iter().enumerate().map(|(i, x)| x * magnitude(i % cols)).collect();
    let q = int8(cpu, &x, cols, Some(size));
    let back = q.dequantize();
    for (token, (x, back)) in x.chunks(cols).zip(back.chunks(cols)).enumerate() {
        let codes: Vec<i8> = q.codes(token).collect();
        for ((x, back), codes) in x.chunks(size).zip(back.chunks(size)).zip(codes.chunks(size)) {
            // A block is quantized as a token that is no longer than it.
            let alone = int8(cpu, x, x.len(), None);
            assert!(alone.codes(0).eq(codes.iter().copied()), "{cols} in {size} on {}", cpu.isa.name());
            let step = x.iter().fold(0.0, |top: f64, x| top.max(f64::from(x.abs()))) / 127.0;
            for ((x, back), code) in x.iter().zip(back).zip(codes) {
                let want = f64::from(*code) * step;
                assert!((f64::from(*back) - want).abs() <= want.abs() * 1e-6, "{back} {want}");
                assert!((f64::from(*back) - f64::from(*x)).abs() <= step * 0.5001, "{back} {x}");
            }
        }
    }
}

#[test]
fn blocks_of_activations_have_steps_of_their_own() {
    for isa in Isa::available() {
        let cpu = Cpu::new(Some(isa.name()), Some(1)).unwrap();
        for size in BLOCK_SIZES {
            [1, 31, 32, 33, 64, 100, 127, 200, 513, 1700].into_iter().for_each(|cols| check_blocks(&cpu, cols, size));
        }
    }
}

#[test]
#[should_panic(expected = "not of 48")]
fn blocks_of_other_sizes_are_refused() {
    int8(&Cpu::new(None, Some(1)).unwrap(), &[1.0; 96], 96, Some(48));
}

#[test]
fn small_activations_keep_their_steps() {
    let (cols, x) = (200, values(200, 3));
    for isa in Isa::available() {
        let cpu = Cpu::new(Some(isa.name()), Some(1)).unwrap();
        let codes = |factor: f32| {
            let x: Vec<f32> = x.iter().map(|x| x * factor).collect();
            let codes: Vec<i8> = int8(&cpu, &x, cols, None).codes(0).collect();
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

/// Checks that products lie near those of the dequantized weights, in relation to each term.
fn check_products(cpu: &Cpu, p: &Packed, kind: Kind, tokens: usize) {
    let (rows, cols, back) = (p.rows(), p.cols(), p.dequantize());
    let x = values(tokens * cols, 9);
    let given = kind.of(cpu, &x, cols);
    let seen = given.activations().floats();
    for (i, y) in given.times(cpu, p).iter().enumerate() {
        let (token, row) = (i / rows, i % rows);
        let pairs = || back[row * cols..][..cols].iter().zip(&seen[token * cols..][..cols]);
        let want: f64 = pairs().map(|(a, b)| *a as f64 * *b as f64).sum();
        let size: f64 = pairs().map(|(a, b)| (*a as f64 * *b as f64).abs()).sum();
        let name = p.format().name();
        assert!((*y as f64 - want).abs() <= 2e-2 * size, "{name} {kind:?}, row {row}: {y} {want}");
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
            for (kind, tokens) in kinds().flat_map(|kind| [(kind, 1), (kind, 3)]) {
                check_products(&cpu, &p, kind, tokens);
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
