//! Each way of each table, forced on awkward shapes on each instruction set that can take it, against `dequantize` in f64 and,
//! where a table promises the same bits, against the other ways.

use lowbit_kernels::format::ActivationType;
use lowbit_kernels::format::ways::{self, Way};
use lowbit_kernels::{BLOCK_SIZES, Cpu, Isa, Packed, Ways};

mod support;
use support::{Kind, bits, error, oracle, packed, values};

const TOKENS: [usize; 7] = [1, 2, 3, 5, 16, 33, 70];
const SHAPES: [(usize, usize); 7] = [(1, 1), (7, 63), (33, 64), (33, 65), (150, 257), (161, 130), (16, 1700)];

/// The kinds of activations that a way of a matrix is given.
fn kinds(way: &Way, p: &Packed) -> Vec<Kind> {
    match way.activations {
        _ if p.format().spec().activations != ActivationType::Int8 => vec![Kind::F32],
        "int8_block" => BLOCK_SIZES.map(|block| Kind::Int8(Some(block))).to_vec(),
        "int8" => vec![Kind::Int8(None)],
        _ => vec![Kind::F32],
    }
}

/// Checks one way of a matrix with so many tokens of a kind on every instruction set that can take it; tells whether there is one.
fn check(way: &Way, p: &Packed, w: &[f32], tokens: usize, kind: Kind) -> bool {
    let (spec, x) = (p.format().spec(), values(tokens * p.cols(), 3));
    let most = match spec.activations {
        ActivationType::Mixed => 1.01 / 254.0,
        _ if way.name == "bf16_pairs" => 8e-3,
        _ => 3e-6,
    };
    let prefer = Ways::parse(way.name, "this test").expect("a way");
    let (mut first, mut want) = (None, None);
    for isa in Isa::available().into_iter().filter(|isa| way.can(*isa, tokens)) {
        let what =
            format!("{} {} {} [{}, {}] x {tokens} {kind:?}", spec.name, way.name, isa.name(), p.rows(), p.cols());
        let cpu = Cpu::new(Some(isa.name()), Some(2)).unwrap().preferring(prefer.clone());
        let given = kind.of(&cpu, &x, p.cols());
        let y = given.times(&cpu, p);
        // Codes and steps of activations are the same everywhere.
        let want = want.get_or_insert_with(|| oracle(w, p.cols(), &given.activations().floats()));
        let (found, _) = error(&y, want);
        assert!(found <= most, "{what}: error {found:e}");
        // The product of bf16 pairs is the instruction's own.
        let same = *first.get_or_insert_with(|| bits(&y)) == bits(&y);
        assert!(same || way.name == "bf16_pairs", "{what}: other bits");
        if spec.activations == ActivationType::Int8 {
            // Any way has the bits of the one that is taken.
            let plain = Cpu::with(isa, cpu.pool.clone());
            assert!(bits(&y) == bits(&given.times(&plain, p)), "{what}: not the bits of others");
        }
    }
    first.is_some()
}

#[test]
fn every_way_computes_every_shape_it_can() {
    let mut taken = std::collections::BTreeSet::new();
    for (format, way) in ways::all() {
        for (rows, cols) in SHAPES {
            let p = packed(format, rows, cols);
            let w = p.dequantize();
            for tokens in TOKENS {
                for kind in kinds(&way, &p) {
                    if check(&way, &p, &w, tokens, kind) {
                        taken.insert((format.name(), way.name));
                    }
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
