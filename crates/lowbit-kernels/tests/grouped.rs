//! Formats of codes in groups: scales that are given or searched for, packed without rounding.

use lowbit_kernels::format::{Grouped, SpanScales};
use lowbit_kernels::{Error, FORMATS, Format, Packed, QuantizeOptions};

fn values(n: usize, mut seed: u64) -> Vec<f32> {
    let mut uniform = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..n).map(|_| uniform() + uniform() + uniform() + uniform()).collect()
}

fn formats() -> impl Iterator<Item = &'static dyn Grouped> {
    FORMATS.iter().filter_map(|format| format.grouped())
}

/// Scales of the spans and codes of a matrix, by the functions that callers with codes of their own use.
fn chosen(
    format: &'static dyn Grouped,
    w: &[f32],
    cols: usize,
    importance: Option<&[f32]>,
) -> (Vec<SpanScales>, Vec<u8>) {
    let (mut scales, mut codes) = (Vec::new(), Vec::new());
    for row in w.chunks(cols) {
        let factor = format.factor(row);
        for (i, w) in row.chunks(format.span()).enumerate() {
            let small: Vec<f32> = w.iter().map(|w| w / factor).collect();
            let importance = importance.map(|all| &all[i * format.span()..][..w.len()]);
            let span = format.choose(&small, importance).times(factor);
            codes.extend(w.iter().enumerate().map(|(i, w)| span.nearest(i / format.columns(), *w, format.most())));
            scales.push(span);
        }
    }
    (scales, codes)
}

fn quantize(format: &'static dyn Format, w: &[f32], cols: usize, importance: Option<&[f32]>) -> Packed {
    let options = QuantizeOptions { importance: importance.map(<[f32]>::to_vec), ..Default::default() };
    format.quantize(w, w.len() / cols, cols, &options).expect("finite weights")
}

/// Sum of the squared errors, each times the importance of its column.
fn error(w: &[f32], packed: &Packed, importance: &[f32]) -> f64 {
    let back = packed.dequantize();
    let squares = w.iter().zip(&back).map(|(w, back)| f64::from(w - back).powi(2));
    squares.zip(importance.iter().cycle()).map(|(square, a)| square * f64::from(*a)).sum()
}

#[test]
fn packed_codes_and_scales_are_what_quantizing_gives() {
    for format in formats() {
        for (rows, cols) in [(1, 1), (3, 40), (17, 576), (33, 257)] {
            let mut w = values(rows * cols, 7);
            w[..cols].iter_mut().for_each(|w| *w *= 1e9);
            let importance: Vec<f32> = values(cols, 3).iter().map(|a| a * a).collect();
            for importance in [None, Some(&importance[..])] {
                let (scales, codes) = chosen(format, &w, cols, importance);
                let packed = format.pack(rows, cols, &codes, &scales).expect("scales of the format");
                let made = quantize(packed.format(), &w, cols, importance);
                let same = packed.parts().iter().zip(made.parts()).all(|(a, b)| a[..] == b[..]);
                assert!(same, "{} [{rows}, {cols}]", format.name());
                // They come back, but of formats that do not give them.
                let spans = cols.div_ceil(format.span());
                for (row, codes) in codes.chunks(cols).enumerate() {
                    let Some((found, back)) = format.unpack(&packed, row) else {
                        assert!(["int4", "int2"].contains(&format.name()), "{}", format.name());
                        continue;
                    };
                    let groups =
                        |spans: &[SpanScales]| spans.iter().map(|s| (s.factor, s.groups.clone())).collect::<Vec<_>>();
                    assert!(found == codes, "{} [{rows}, {cols}] row {row}", format.name());
                    assert_eq!(groups(&back), groups(&scales[row * spans..][..spans]), "{}", format.name());
                }
                // What groups say is what the definition gives.
                let back = packed.dequantize();
                for (row, back) in back.chunks(cols).enumerate() {
                    for (col, back) in back.iter().enumerate() {
                        let span = &scales[row * cols.div_ceil(format.span()) + col / format.span()];
                        let (scale, offset) = span.groups[col % format.span() / format.columns()];
                        let want = f64::from(codes[row * cols + col]) * f64::from(scale) + f64::from(offset);
                        assert!(
                            (f64::from(*back) - want).abs() <= want.abs() * 1e-6,
                            "{} {back} {want}",
                            format.name()
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn importance_lowers_the_error_that_it_weights() {
    let (rows, cols) = (20, 576);
    let w = values(rows * cols, 5);
    let importance: Vec<f32> = (0..cols).map(|i| if i % 16 == 3 { 50.0 } else { 1.0 }).collect();
    for format in formats() {
        let find = |importance| quantize(format, &w, cols, importance);
        let (even, uneven) = (find(None), find(Some(&importance[..])));
        let (before, after) = (error(&w, &even, &importance), error(&w, &uneven, &importance));
        println!("{}: {before:.4} {after:.4}", format.name());
        assert!(after < before * 0.97, "{}: {after}, not below {before}", format.name());
    }
}

#[test]
fn codes_scales_and_importances_that_are_none_are_refused() {
    for format in formats() {
        let (rows, cols) = (2, 300);
        let w = values(rows * cols, 5);
        let (scales, codes) = chosen(format, &w, cols, None);
        let refused = |codes: &[u8], scales: &[SpanScales]| match format.pack(rows, cols, codes, scales) {
            Err(Error::Corrupt(text)) => text,
            other => panic!("{}: {other:?}", format.name()),
        };
        if format.most() < 255 {
            let mut bad = codes.clone();
            bad[cols + 7] = format.most() + 1;
            let text = refused(&bad, &scales);
            assert!(text.contains("row 1, column 7") && text.contains(format.name()), "{text}");
        }
        let mut bad = scales.clone();
        bad[0].scale = half::f16::INFINITY;
        assert!(refused(&codes, &bad).contains("scale 0"), "{}", format.name());
        let mut bad = scales.clone();
        bad[1].factor = 2.0;
        assert!(refused(&codes, &bad).contains("row 0"), "{}", format.name());
        for bad in [vec![1.0; 299], vec![f32::NAN; 300], vec![-1.0; 300]] {
            let options = QuantizeOptions { importance: Some(bad), ..Default::default() };
            let made = format.quantize(&w, rows, cols, &options).map(|_| ()).expect_err("bad importance");
            assert!(made.to_string().contains("importance of"), "{made}");
        }
    }
}
