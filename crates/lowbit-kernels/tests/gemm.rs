//! Products of matrices in every precision, against sums in f64 of the operands as they are rounded.

use half::bf16;
use lowbit_kernels::{Cpu, Isa, Mat, Precision, gemm_in};

const SHAPES: [[usize; 3]; 8] =
    [[1, 1, 1], [3, 17, 5], [16, 16, 2], [5, 33, 64], [29, 31, 513], [64, 48, 1027], [1, 100, 300], [130, 15, 33]];

/// Values of many magnitudes.
fn values(n: usize, seed: u32) -> Vec<f32> {
    let unit = |i: u32| (i.wrapping_mul(2654435761).wrapping_add(seed) >> 8) as f32 / 8388608.0 - 1.0;
    (0..n as u32).map(|i| unit(i + seed * 7919) * 4f32.powi((i % 7) as i32 - 3)).collect()
}

fn rounded(precision: Precision, x: f32) -> f64 {
    match precision {
        Precision::F32 => x.into(),
        Precision::Bf16 => bf16::from_f32(x).into(),
    }
}

/// The matrix `[rows, cols]` stored as it is, transposed, or with gaps between elements.
fn stored(x: &[f32], [rows, cols]: [usize; 2], how: usize) -> (Vec<f32>, [usize; 2]) {
    let at = |i: usize, j: usize| x[i * cols + j];
    match how {
        0 => (x.to_vec(), [cols, 1]),
        1 => ((0..cols).flat_map(|j| (0..rows).map(move |i| at(i, j))).collect(), [1, rows]),
        _ => {
            let row = |i: usize| (0..cols).flat_map(move |j| [at(i, j), f32::NAN]);
            ((0..rows).flat_map(row).collect(), [2 * cols, 2])
        }
    }
}

fn product(cpu: &Cpu, precision: Precision, shape: [usize; 3], how: [usize; 2], accumulate: bool) -> Vec<f32> {
    let [m, n, k] = shape;
    let (a, [row_stride, col_stride]) = stored(&values(m * k, 1), [m, k], how[0]);
    let a = Mat { data: &a, row_stride, col_stride };
    let (b, [row_stride, col_stride]) = stored(&values(k * n, 2), [k, n], how[1]);
    let b = Mat { data: &b, row_stride, col_stride };
    let mut c = values(m * n, 3);
    gemm_in(cpu, precision, m, n, k, a, b, accumulate, &mut c);
    c
}

#[test]
fn products_are_those_of_the_rounded_operands() {
    for precision in [Precision::F32, Precision::Bf16] {
        for shape @ [m, n, k] in SHAPES {
            let (a, b, old) = (values(m * k, 1), values(k * n, 2), values(m * n, 3));
            let term =
                |i: usize, j: usize, l: usize| rounded(precision, a[i * k + l]) * rounded(precision, b[l * n + j]);
            for isa in Isa::available() {
                let cpu = Cpu::new(Some(isa.name()), Some(1)).expect("available");
                for (how, accumulate) in (0..9).flat_map(|i| [([i / 3, i % 3], false), ([i / 3, i % 3], true)]) {
                    let c = product(&cpu, precision, shape, how, accumulate);
                    for (at, c) in c.iter().enumerate() {
                        let start = if accumulate { f64::from(old[at]) } else { 0.0 };
                        let terms = || (0..k).map(|l| term(at / n, at % n, l));
                        let (sum, size) =
                            (start + terms().sum::<f64>(), start.abs() + terms().map(f64::abs).sum::<f64>());
                        let bound = (k + 1) as f64 * size * f64::from(f32::EPSILON) / 2.0;
                        let error = (f64::from(*c) - sum).abs();
                        let name = isa.name();
                        assert!(error <= bound, "{precision:?} {shape:?} {how:?} {name}: {c} for {sum}, bound {bound}");
                    }
                }
            }
        }
    }
}

#[test]
fn bits_depend_on_neither_layout_nor_threads_nor_instruction_sets_of_f32_products() {
    let cpu = |isa: &str, threads| Cpu::new(Some(isa), Some(threads)).expect("available");
    for precision in [Precision::F32, Precision::Bf16] {
        for shape in [[29, 31, 513], [130, 150, 70], [300, 64, 64], [1, 700, 900]] {
            let scalar = product(&cpu("scalar", 1), precision, shape, [0, 0], false);
            for isa in Isa::available() {
                let one = product(&cpu(isa.name(), 1), precision, shape, [0, 0], false);
                let pairs = precision == Precision::Bf16 && isa.name() == "avx512-bf16";
                assert!(pairs || one == scalar, "{precision:?} {shape:?} {}", isa.name());
                for how in [[0, 1], [1, 0], [2, 2]] {
                    let other = product(&cpu(isa.name(), 3), precision, shape, how, false);
                    assert!(other == one, "{precision:?} {shape:?} {how:?} {}", isa.name());
                }
            }
        }
    }
}

#[test]
fn values_that_are_not_finite_stay_so() {
    for isa in Isa::available() {
        let cpu = Cpu::new(Some(isa.name()), Some(1)).expect("available");
        for (bad, expected) in [(f32::NAN, f32::NAN), (f32::INFINITY, f32::INFINITY), (f32::MAX, f32::INFINITY)] {
            // An odd k: what pads the last pair must not meet infinity.
            let (mut a, b, mut c) = ([1.0f32; 6], [1.0f32; 6], [0.0f32; 4]);
            a[2] = bad;
            gemm_in(&cpu, Precision::Bf16, 2, 2, 3, Mat::new(&a, 3), Mat::new(&b, 2), false, &mut c);
            assert!(
                c[..2].iter().all(|c| c.to_bits() == expected.to_bits() || c.is_nan() && expected.is_nan()),
                "{c:?}"
            );
            assert_eq!(c[2..], [3.0; 2]);
        }
    }
}
