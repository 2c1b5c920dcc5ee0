//! Each way of each table, forced on awkward shapes on each instruction set that can take it, against `dequantize` in f64 and,
//! where a table promises the same bits, against the other ways.

use lowbit_kernels::format::{ActivationType, ways};
use lowbit_kernels::{Activations, Cpu, Format, Int8Activations, Isa, Packed, QuantizeOptions, Ways};

const TOKENS: [usize; 7] = [1, 2, 3, 5, 16, 33, 70];
const SHAPES: [(usize, usize); 7] = [(1, 1), (7, 63), (33, 64), (33, 65), (150, 257), (161, 130), (16, 1700)];

fn values(n: usize, mut seed: u64) -> Vec<f32> {
    let mut uniform = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..n).map(|_| uniform() + uniform()).collect()
}

fn packed(format: &'static dyn Format, rows: usize, cols: usize) -> Packed {
    let options =
        QuantizeOptions { outlier_columns: if cols > 64 { vec![5, 64] } else { vec![] }, ..Default::default() };
    format.quantize(&values(rows * cols, 7), rows, cols, &options).expect("finite weights")
}

/// Largest error of an output over `max|x| * sum|w|`.
fn error(w: &[f32], cols: usize, x: &[f32], y: &[f32]) -> f64 {
    let mut worst = 0.0f64;
    let rows = w.len() / cols;
    for (x, y) in x.chunks_exact(cols).zip(y.chunks_exact(rows)) {
        let top = x.iter().fold(0.0f32, |m, v| m.max(v.abs())) as f64;
        for (w, y) in w.chunks_exact(cols).zip(y) {
            let want: f64 = w.iter().zip(x).map(|(a, b)| *a as f64 * *b as f64).sum();
            let size = top * w.iter().map(|v| v.abs() as f64).sum::<f64>() + 1e-6;
            let error = (*y as f64 - want).abs() / size;
            worst = if error.is_nan() { f64::INFINITY } else { worst.max(error) };
        }
    }
    worst
}

#[test]
fn every_way_computes_every_shape_it_can() {
    let mut taken = std::collections::BTreeSet::new();
    for (format, way) in ways::all() {
        let (spec, prefer) = (format.spec(), Ways::parse(way.name, "this test").expect("a way"));
        for (rows, cols) in SHAPES {
            let p = packed(format, rows, cols);
            let w = p.dequantize();
            for tokens in TOKENS {
                let x = values(tokens * cols, 3);
                let mut first: Option<Vec<u32>> = None;
                for isa in Isa::available().into_iter().filter(|isa| way.can(*isa, tokens)) {
                    let cpu = Cpu::new(Some(isa.name()), Some(2)).unwrap().preferring(prefer.clone());
                    let (mut q, mut y) = (Int8Activations::default(), vec![f32::NAN; tokens * rows]);
                    match way.activations {
                        "int8_block" => q.quantize_blocks(&cpu, &x, cols),
                        _ => q.quantize(&cpu, &x, cols),
                    }
                    let int8 = way.activations != "f32" && spec.activations == ActivationType::Int8;
                    p.matmul(&cpu, if int8 { Activations::Int8(&q) } else { Activations::F32(&x) }, &mut y);
                    let seen = if int8 { q.dequantize() } else { x.clone() };
                    let most = match spec.activations {
                        ActivationType::Mixed => 1.01 / 254.0,
                        _ if way.name == "bf16_pairs" => 8e-3,
                        _ => 3e-6,
                    };
                    let found = error(&w, cols, &seen, &y);
                    let what = format!("{} {} {} [{rows}, {cols}] x {tokens}", spec.name, way.name, isa.name());
                    assert!(found <= most, "{what}: error {found:e}");
                    let bits: Vec<u32> = y.iter().map(|y| y.to_bits()).collect();
                    // The product of bf16 pairs is the instruction's own.
                    let same = first.get_or_insert_with(|| bits.clone());
                    assert!(way.name == "bf16_pairs" || *same == bits, "{what}: other bits");
                    if spec.activations == ActivationType::Int8 {
                        // Any way has the bits of the one that is taken.
                        let plain = Cpu::with(isa, cpu.pool.clone());
                        let mut z = vec![f32::NAN; y.len()];
                        p.matmul(&plain, if int8 { Activations::Int8(&q) } else { Activations::F32(&x) }, &mut z);
                        assert!(
                            y.iter().zip(&z).all(|(a, b)| a.to_bits() == b.to_bits()),
                            "{what}: not the bits of others"
                        );
                    }
                    taken.insert((spec.name, way.name));
                }
            }
        }
    }
    for (format, way) in ways::all() {
        let reached = taken.contains(&(format.name(), way.name));
        println!(
            "{:20} {:16} {:6} {:?}{}",
            format.name(),
            way.name,
            way.activations,
            way.needs,
            if reached { "" } else { ": not here" }
        );
        let possible = Isa::available().iter().any(|isa| TOKENS.iter().any(|tokens| way.can(*isa, *tokens)));
        assert_eq!(reached, possible, "{} {}", format.name(), way.name);
    }
}

#[test]
fn unknown_ways_are_refused_by_name() {
    for bad in ["int8_gemw", "int8_gemv@", "int8_gemv@0", "int8_gemv@x", "@3"] {
        let error = Ways::parse(&format!("int8_gemv, {bad}"), "LOWBIT_WAYS").unwrap_err().to_string();
        assert!(error.contains(&format!("`{bad}`")) && error.contains("bf16_pairs, block_gemv"), "{error}");
    }
    let ways = Ways::parse(" float_panels@16,,bf16_pairs", "LOWBIT_WAYS").unwrap();
    assert_eq!(ways.preferred(16).collect::<Vec<_>>(), ["float_panels", "bf16_pairs"]);
    assert_eq!(ways.preferred(15).collect::<Vec<_>>(), ["bf16_pairs"]);
    assert_eq!((ways.to_string().as_str(), ways.why()), ("float_panels@16,bf16_pairs", "LOWBIT_WAYS"));
    for none in ["", "default", " , default"] {
        let ways = Ways::parse(none, "").unwrap();
        assert_eq!((ways.preferred(9).count(), ways.to_string().as_str()), (0, "default"));
    }
}
