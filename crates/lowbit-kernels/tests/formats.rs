//! Every format x instruction set x awkward shape against `dequantize` in f64.

use lowbit_kernels::format::{ActivationType, Holds};
use lowbit_kernels::{Cpu, Error, FORMATS, Format, Isa, Packed, QuantizeOptions, format};
use std::fs;
use std::path::Path;

mod support;
use support::{Kind, bits, error, kinds, oracle, packed, values};

const COLS: [usize; 7] = [1, 3, 63, 64, 65, 257, 700];
const ROWS: [usize; 5] = [1, 2, 7, 33, 150];
const TOKENS: [usize; 6] = [0, 1, 2, 5, 15, 31];

/// Relative to the bound of an output; where activations become bf16, each has a relative error of 2^-8 at most.
fn tolerance(format: &dyn Format, cpu: &Cpu, tokens: usize) -> f64 {
    match format.spec().activations {
        ActivationType::Float if format.takes_bf16(cpu, tokens) => 8e-3, // weights may become bf16 too
        ActivationType::Mixed => 1.01 / 254.0,                           // half a step of the activations
        _ => 3e-6,
    }
}

/// The formats whose products with 8-bit activations are exact in integers.
fn integers() -> impl Iterator<Item = &'static dyn Format> {
    FORMATS.iter().copied().filter(|format| format.spec().activations == ActivationType::Int8)
}

/// Faults of the products of a matrix with so many tokens, of every kind, on every instruction set.
fn faults(p: &Packed, w: &[f32], tokens: usize) -> Vec<String> {
    let (format, rows, cols) = (p.format(), p.rows(), p.cols());
    let cpus: Vec<Cpu> = Isa::available().iter().map(|isa| Cpu::new(Some(isa.name()), Some(2)).unwrap()).collect();
    let x = values(tokens * cols, 3);
    let mut failures = Vec::new();
    for kind in kinds() {
        // Codes and steps of activations are the same everywhere.
        let want = oracle(w, cols, &kind.of(&cpus[0], &x, cols).activations().floats());
        let mut first = None;
        for cpu in &cpus {
            let what = format!("{} {} {kind:?} [{rows}, {cols}] x {tokens}", format.name(), cpu.isa.name());
            let y = kind.of(cpu, &x, cols).times(cpu, p);
            let (found, at) = error(&y, &want);
            if found > tolerance(format, cpu, tokens) {
                failures.push(format!("{what}: output {at} is {}, not {}: {found:e}", y[at], want[at].0));
            }
            let exact = kind != Kind::F32 && format.spec().activations == ActivationType::Int8;
            if exact && *first.get_or_insert_with(|| bits(&y)) != bits(&y) {
                failures.push(format!("{what}: other bits"));
            }
        }
    }
    failures
}

#[test]
fn every_format_isa_and_shape_agrees_with_its_dequantized_weights() {
    let mut failures = Vec::new();
    for format in FORMATS {
        for rows in ROWS {
            for cols in COLS {
                let p = packed(*format, rows, cols);
                let w = p.dequantize();
                failures.extend(TOKENS.into_iter().flat_map(|tokens| faults(&p, &w, tokens)));
            }
        }
    }
    println!("instruction sets: {:?}", Isa::available());
    assert!(failures.is_empty(), "{} failures, first: {:#?}", failures.len(), &failures[..failures.len().min(12)]);
}

#[test]
fn one_token_equals_the_same_token_in_a_batch_for_integer_formats_and_f32() {
    let (rows, cols, tokens) = (150, 330, 35);
    let cpu = Cpu::new(None, Some(2)).unwrap();
    let x = values(tokens * cols, 11);
    for format in integers().chain(FORMATS.iter().copied().filter(|format| format.spec().lossless)) {
        let p = packed(format, rows, cols);
        for kind in kinds() {
            let all = kind.of(&cpu, &x, cols).times(&cpu, &p);
            for several in [1, 3, 7] {
                for (x, all) in x.chunks(several * cols).zip(all.chunks(several * rows)) {
                    let y = kind.of(&cpu, x, cols).times(&cpu, &p);
                    assert_eq!(y, all, "{} of {kind:?}, {several} of {tokens}", format.name());
                }
            }
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let (rows, cols) = (300, 400);
    for tokens in [1, 40] {
        let x = values(tokens * cols, 5);
        for format in FORMATS {
            let p = packed(*format, rows, cols);
            let run = |threads| {
                let cpu = Cpu::new(None, Some(threads)).unwrap();
                kinds().map(|kind| kind.of(&cpu, &x, cols).times(&cpu, &p)).collect::<Vec<_>>()
            };
            let one = run(1);
            assert!(run(2) == one && run(3) == one, "{} with {tokens} tokens", format.name());
        }
    }
}

/// Rows of the tables of bits per weight on the pages of formats: cells of format, codes, scales, and all.
fn stated() -> Vec<[String; 4]> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/formats");
    let mut rows = Vec::new();
    for page in fs::read_dir(folder).expect("pages of formats") {
        let page = fs::read_to_string(page.expect("a page").path()).expect("text");
        let (_, table) = page.split_once("| format | codes | scales | bits per weight |\n").expect("bits per weight");
        for row in table.lines().skip(1).take_while(|line| line.starts_with('|')) {
            let cells: Vec<String> = row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
            rows.push(cells.try_into().expect("four cells"));
        }
    }
    rows
}

#[test]
fn stored_sizes_are_what_the_pages_of_the_formats_say() {
    // Whole panels, blocks of panels, groups and super-blocks of every format.
    let side = 5120;
    let rows = stated();
    assert_eq!(rows.len(), FORMATS.len(), "a row for each format");
    // The end of `(16 + 16) / 64 = 0.5`; nothing is 0.
    let number =
        |cell: &str| cell.rsplit(' ').next().filter(|text| !text.is_empty()).map_or(0.0, |text| text.parse().unwrap());
    for format in FORMATS {
        let row = rows.iter().find(|row| row[0] == format!("`{}`", format.name()));
        let row = row.unwrap_or_else(|| panic!("no page has a row of {}", format.name()));
        let bits = |codes: bool| {
            let parts = format.parts(side, side, &[]);
            let bytes = parts.iter().filter(|part| (part.holds == Holds::Codes) == codes).map(|part| part.bytes);
            bytes.sum::<usize>() as f64 * 8.0 / (side * side) as f64
        };
        for (cell, is) in row[1..].iter().zip([bits(true), bits(false), bits(true) + bits(false)]) {
            let said: f64 = number(cell);
            assert!((said - is).abs() < 5e-5, "{}: a page says {cell} bits, and it is {is}", format.name());
        }
    }
}

#[test]
fn invalid_codes_scales_sizes_and_names_are_refused() {
    let corrupt = |name: &str, part: usize, at: usize, value: u8| {
        let p = packed(format::find(name).unwrap(), 16, 128);
        let mut bytes = p.parts()[part].to_vec();
        bytes[at] = value;
        let mut parts = p.parts().to_vec();
        parts[part] = lowbit_kernels::Bytes::new(bytes);
        Packed::from_parts(p.format(), 16, 128, parts).map(|_| ()).unwrap_err().to_string()
    };
    assert!(corrupt("ternary", 0, 9, 0b0000_0011).contains("byte 9"));
    assert!(corrupt("ternary_b3", 0, 17, 1).contains("byte 17"));
    assert!(corrupt("int8_2of4", 0, 40 + 32, 0x37).contains("of quad 1 of panel 0 are not two of four"));
    assert!(corrupt("bf16_scan", 3, 7, 0x80).contains("value 1 of `bounds` is -"));
    assert!(corrupt("q4_k", 1, 64 + 5, 64).contains("scale of group 0 of super-block 5 is 64, not 0 to 63"));
    assert!(corrupt("q4_k", 1, 64 + 16 + 5, 64).contains("offset of group 0 of super-block 5 is 64"));
    assert!(corrupt("q3_k", 1, 32 + 16, 32).contains("scale of group 1 of super-block 0 is 32, not -32 to 31"));
    assert!(corrupt("int4_g64", 1, 32 + 3, 0x7c).contains("offset 1 is "));
    let p = packed(format::find("int8").unwrap(), 16, 128);
    let scale = lowbit_kernels::Bytes::from_f32(&[f32::NAN]);
    let refused = Packed::from_parts(p.format(), 16, 128, vec![p.parts()[0].clone(), scale]).unwrap_err();
    assert!(refused.to_string().contains("scale 0"), "{refused}");
    let refused = Packed::from_parts(p.format(), 32, 128, p.parts().to_vec()).unwrap_err();
    assert!(refused.to_string().contains("codes"), "{refused}");
    for format in FORMATS {
        let mut w = values(3 * 65, 1);
        w[65 + 7] = f32::NAN;
        let refused = format.quantize(&w, 3, 65, &QuantizeOptions::default()).unwrap_err();
        assert_eq!(refused, lowbit_kernels::Error::NonFinite { row: 1, col: 7 }, "{}", format.name());
        assert_eq!(format::find(format.name()).unwrap().name(), format.name());
    }
    let unknown = format::find("nf5").unwrap_err().to_string();
    assert!(unknown.contains("`nf4`") && unknown.contains("ternary_b3"), "{unknown}");
    let lacking = Isa::choose(Some("sse9")).unwrap_err().to_string();
    assert!(lacking.contains("sse9") && lacking.contains("scalar"), "{lacking}");
}

#[test]
fn pruning_keeps_the_two_largest_of_four() {
    let (rows, cols) = (37, 99);
    let w = values(rows * cols, 4);
    let made = |name: &str| {
        let format = format::find(name).unwrap();
        format.quantize(&w, rows, cols, &QuantizeOptions::default()).unwrap().dequantize()
    };
    let (back, dense) = (made("int8_2of4"), made("int8_channel"));
    for ((w, back), dense) in w.chunks(cols).zip(back.chunks(cols)).zip(dense.chunks(cols)) {
        for ((w, back), dense) in w.chunks(4).zip(back.chunks(4)).zip(dense.chunks(4)) {
            let kept: Vec<usize> = (0..w.len()).filter(|i| back[*i] != 0.0).collect();
            let least = kept.iter().map(|i| w[*i].abs()).fold(f32::INFINITY, f32::min);
            let pruned = (0..w.len()).filter(|i| !kept.contains(i));
            assert!(kept.len() <= 2 && kept.iter().all(|i| back[*i] == dense[*i]), "{w:?} {back:?}");
            assert!(kept.len() < 2 || pruned.clone().all(|i| w[i].abs() <= least), "{w:?} {back:?}");
        }
    }
}

#[test]
fn quantization_errors_stay_within_the_bound_of_each_format() {
    let (rows, cols) = (64, 512);
    let w = values(rows * cols, 21);
    let power: f64 = w.iter().map(|v| (*v as f64).powi(2)).sum();
    for (name, bound) in [
        ("f32", 0.0),
        ("bf16", 2e-3),
        ("bf16_scan", 2e-3),
        ("int8", 1e-2),
        ("int8_channel", 9e-3),
        ("int8_2of4", 0.46),
        ("llm_int8", 9e-3),
        ("nf4", 0.1),
        ("nf4_dq", 0.1),
        ("int4", 0.09),
        ("int2", 0.42),
        ("q4_0", 0.085),
        ("q4_1", 0.08),
        ("q5_0", 0.042),
        ("q5_1", 0.04),
        ("q8_0", 6e-3),
        ("q2_k", 0.35),
        ("q3_k", 0.17),
        ("q4_k", 0.08),
        ("q5_k", 0.04),
        ("q6_k", 0.02),
        ("int2_g64", 0.42),
        ("int2_g128", 0.45),
        ("int3_g32", 0.17),
        ("int3_g64", 0.19),
        ("int3_g128", 0.21),
        ("int4_g32", 0.08),
        ("int4_g64", 0.09),
        ("int4_g128", 0.1),
        ("ternary", 0.55),
        ("ternary_channel", 0.55),
        ("ternary_g128", 0.55),
        ("ternary_b3", 0.55),
        ("ternary_b3_channel", 0.55),
    ] {
        let back =
            format::find(name).unwrap().quantize(&w, rows, cols, &QuantizeOptions::default()).unwrap().dequantize();
        let error: f64 = w.iter().zip(&back).map(|(a, b)| (*a as f64 - *b as f64).powi(2)).sum();
        let relative = (error / power).sqrt();
        println!("{name}: relative rms error {relative:.5}");
        assert!(relative <= bound, "{name}: {relative} > {bound}");
    }
}

#[test]
fn matrices_made_in_ranges_are_those_made_at_once() {
    let pool = lowbit_kernels::Pool::new(2);
    let options = QuantizeOptions { outlier_columns: vec![3], ..Default::default() };
    for format in FORMATS {
        for (rows, cols) in [(1, 5), (17, 64), (1000, 333), (16 * 700, 20)] {
            let weights = values(rows * cols, 5);
            let whole = format.quantize(&weights, rows, cols, &options).expect("finite");
            let read = |rows: std::ops::Range<usize>| Ok(weights[rows.start * cols..rows.end * cols].into());
            let made = Packed::quantize(*format, [rows, cols], &options, &pool, read, |e| e).expect("finite");
            let same = whole.parts().iter().zip(made.parts()).all(|(a, b)| a[..] == b[..]);
            assert!(same && whole.parts().len() == made.parts().len(), "{} [{rows}, {cols}]", format.name());
        }
        let mut weights = values(1000 * 333, 5);
        weights[700 * 333 + 5] = f32::NAN;
        let read = |rows: std::ops::Range<usize>| Ok(weights[rows.start * 333..rows.end * 333].into());
        let error = Packed::quantize(*format, [1000, 333], &options, &pool, read, |e| e).expect_err("NaN");
        assert!(matches!(error, Error::NonFinite { row: 700, col: 5 }), "{}: {error}", format.name());
    }
    let codes: Vec<u8> = (0..1000 * 333_usize).map(|i| (i * i % 7 % 3) as u8).collect();
    for format in FORMATS {
        let pack = |range: std::ops::Range<usize>| {
            let part = &codes[range.start * 333..range.end * 333];
            format.pack_ternary(part, 0.5, range.len(), 333).expect("a ternary format")
        };
        if format.spec().is_ternary() {
            let made = Packed::from_row_ranges(*format, 1000, 333, &pool, pack).expect("valid");
            assert_eq!(made.dequantize(), pack(0..1000).expect("valid").dequantize(), "{}", format.name());
        }
    }
    let fail = |range: std::ops::Range<usize>| match range.start {
        0 => FORMATS[0].quantize(&vec![0.0; range.len() * 333], range.len(), 333, &QuantizeOptions::default()),
        at => Err(Error::NonFinite { row: at, col: 0 }),
    };
    let error = Packed::from_row_ranges(FORMATS[0], 1000, 333, &pool, fail).expect_err("the second range fails");
    assert!(matches!(error, Error::NonFinite { col: 0, .. }), "{error}");
}
