//! Formats against bitsandbytes, transformers and PyTorch, activation functions against PyTorch; the vectors are made by
//! `tools/golden/formats.py`, `tools/golden/grouped.py` and `tools/golden/activations.py`.

use half::{bf16, f16};
use lowbit_kernels::format::find;
use lowbit_kernels::ops::{self, Function};
use lowbit_kernels::{Activations, Cpu, Int8Activations, Isa, Packed, QuantizeOptions};
use safetensors::{Dtype, SafeTensors};

struct Golden(Vec<u8>);

impl Golden {
    fn open() -> Self {
        Self::file("formats")
    }

    fn file(name: &str) -> Self {
        let path = format!("{}/tests/golden/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
        Golden(std::fs::read(path).expect("the golden vectors are part of the repository"))
    }

    /// Any tensor as f32, with its shape; every integer in the file is exact in f32.
    fn get(&self, name: &str) -> (Vec<f32>, Vec<usize>) {
        let file = SafeTensors::deserialize(&self.0).expect("a safetensors file");
        let view = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let bytes = view.data();
        let values = match view.dtype() {
            Dtype::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
            Dtype::I32 => bytes.chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap()) as f32).collect(),
            Dtype::F16 => bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            Dtype::BF16 => bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            Dtype::I8 => bytes.iter().map(|&b| b as i8 as f32).collect(),
            Dtype::U8 => bytes.iter().map(|&b| b as f32).collect(),
            other => panic!("{name}: {other:?}"),
        };
        (values, view.shape().to_vec())
    }

    fn values(&self, name: &str) -> Vec<f32> {
        self.get(name).0
    }

    /// The matrix of a name in a format.
    fn quantize(&self, matrix: &str, format: &str, outliers: &[f32]) -> Packed {
        let (w, shape) = self.get(&format!("{matrix}.w"));
        let options =
            QuantizeOptions { outlier_columns: outliers.iter().map(|&c| c as u32).collect(), ..Default::default() };
        find(format).unwrap().quantize(&w, shape[0], shape[1], &options).unwrap()
    }

    /// `level * scale` of NF4 codes in blocks of 64; the high nibble is the first code.
    fn nf4(&self, codes: &str, scales: &str) -> Vec<f32> {
        let (levels, codes, scales) = (self.values("nf4.levels"), self.values(codes), self.values(scales));
        let codes = codes.iter().flat_map(|&b| [b as usize >> 4, b as usize & 15]);
        codes.enumerate().map(|(i, code)| levels[code] * scales[i / 64]).collect()
    }
}

const MATRICES: [&str; 2] = ["a", "b"];

fn nmse(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let error: f64 = got.iter().zip(want).map(|(a, b)| (*a as f64 - *b as f64).powi(2)).sum();
    error / want.iter().map(|b| (*b as f64).powi(2)).sum::<f64>()
}

/// Every element within `relative` of its reference: below half a step of any format here, so codes are equal too.
fn assert_close(got: &[f32], want: &[f32], relative: f32, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= relative * want.abs(), "{what} at {i}: {got}, not {want}");
    }
}

/// The product of every instruction set with f32 or int8 activations.
fn products(packed: &Packed, x: &[f32], int8: bool) -> Vec<(Isa, Vec<f32>)> {
    let run = |isa: Isa| {
        let cpu = Cpu::new(Some(isa.name()), Some(1)).unwrap();
        let mut y = vec![0.0; x.len() / packed.cols() * packed.rows()];
        let mut rows = Int8Activations::default();
        rows.quantize(&cpu, x, packed.cols());
        packed.matmul(&cpu, if int8 { Activations::Int8(&rows) } else { Activations::F32(x) }, &mut y);
        (isa, y)
    };
    Isa::available().into_iter().map(run).collect()
}

fn assert_products(packed: &Packed, x: &[f32], int8: bool, want: &[f32], limit: f64, what: &str) {
    for (isa, y) in products(packed, x, int8) {
        let error = nmse(&y, want);
        assert!(error <= limit, "{what} on {}: NMSE {error:.1e} above {limit:.1e}", isa.name());
    }
}

#[test]
fn nf4_is_that_of_bitsandbytes() {
    let golden = Golden::open();
    for m in MATRICES {
        let at = |part: &str| golden.values(&format!("{m}.{part}"));
        let nf4 = |scales: &str| golden.nf4(&format!("{m}.nf4.codes"), &format!("{m}.nf4.{scales}"));
        let packed = golden.quantize(m, "nf4", &[]);
        assert_close(&packed.dequantize(), &nf4("absmax"), 1e-7, m);
        for (isa, y) in products(&packed, &at("x"), false) {
            // Several tokens are multiplied as bf16 pairs where the CPU has such an instruction.
            let limit = if isa == Isa::Avx512Bf16 { 1e-5 } else { 1e-10 };
            let error = nmse(&y, &at("nf4.y"));
            assert!(error <= limit, "{m} on {}: NMSE {error:.1e} above {limit:.1e}", isa.name());
        }
    }
    let packed = golden.quantize("b", "nf4", &[]);
    assert_close(&packed.dequantize(), &golden.values("b.nf4.dequantized"), 1e-7, "dequantized");
}

#[test]
fn nf4_rounds_midpoints_like_bitsandbytes() {
    let golden = Golden::open();
    let packed = golden.quantize("nf4_ties", "nf4", &[]);
    let want = golden.nf4("nf4_ties.codes", "nf4_ties.absmax");
    assert_close(&packed.dequantize(), &want, 1e-6, "ties");
}

/// Ours quantizes the maxima linearly, bitsandbytes with its dynamic map: both stay near the unquantized maxima.
#[test]
fn double_quantization_is_as_close_as_that_of_bitsandbytes() {
    let golden = Golden::open();
    for m in MATRICES {
        let nf4 = |scales: &str| golden.nf4(&format!("{m}.nf4.codes"), &format!("{m}.nf4.{scales}"));
        let plain = nf4("absmax");
        let theirs = nmse(&nf4("nested"), &plain);
        let ours = nmse(&golden.quantize(m, "nf4_dq", &[]).dequantize(), &plain);
        assert!(ours <= 1e-4 && ours <= 2.0 * theirs, "{m}: NMSE {ours:.1e}, bitsandbytes {theirs:.1e}");
    }
}

#[test]
fn int8_channel_is_the_vector_wise_int8_of_bitsandbytes() {
    let golden = Golden::open();
    for m in MATRICES {
        let at = |part: &str| golden.values(&format!("{m}.{part}"));
        let packed = golden.quantize(m, "int8_channel", &[]);
        let codes = at("int8.codes");
        let scales: Vec<f32> = at("int8.absmax").iter().map(|top| top / 127.0).collect();
        let want: Vec<f32> = codes.iter().enumerate().map(|(i, code)| code * scales[i / packed.cols()]).collect();
        assert_close(&packed.dequantize(), &want, 1e-6, m);
        assert_products(&packed, &at("x"), true, &at("int8.y"), 1e-6, m);
    }
    let packed = golden.quantize("int8_ties", "int8_channel", &[]);
    let (codes, tops) = (golden.values("int8_ties.codes"), golden.values("int8_ties.absmax"));
    let want: Vec<f32> = codes.iter().enumerate().map(|(i, code)| code * tops[i / 64] / 127.0).collect();
    assert_close(&packed.dequantize(), &want, 1e-6, "ties");
}

#[test]
fn int8_activations_are_those_of_bitsandbytes_and_of_bitnet() {
    let golden = Golden::open();
    for isa in Isa::available() {
        let cpu = Cpu::new(Some(isa.name()), Some(1)).unwrap();
        for m in MATRICES {
            let (x, shape) = golden.get(&format!("{m}.x"));
            let mut rows = Int8Activations::default();
            rows.quantize(&cpu, &x, shape[1]);
            let codes: Vec<f32> = (0..rows.tokens()).flat_map(|t| rows.codes(t)).map(|q| q as f32).collect();
            assert_eq!(codes, golden.values(&format!("{m}.int8.x_codes")), "{m} on {}", isa.name());
            assert_eq!(codes, golden.values(&format!("{m}.ternary.x_codes")), "{m} on {}", isa.name());
            assert_close(rows.scale(), &golden.values(&format!("{m}.ternary.x_scale")), 1e-6, m);
        }
    }
}

#[test]
fn llm_int8_is_that_of_bitsandbytes_and_of_the_paper() {
    let golden = Golden::open();
    for m in MATRICES {
        let at = |part: &str| golden.values(&format!("{m}.{part}"));
        let unknown = golden.quantize(m, "llm_int8", &[]);
        assert_products(&unknown, &at("x"), false, &at("llm_int8.y_single"), 1e-8, &format!("{m}, single rows"));
        // Each token keeps its own outliers; bitsandbytes exempts their columns for all tokens of the batch.
        assert_products(&unknown, &at("x"), false, &at("llm_int8.y"), 2e-6, &format!("{m}, batch"));
        let known = golden.quantize(m, "llm_int8", &at("outliers"));
        assert_products(&known, &at("x"), false, &at("llm_int8.y_wide"), 1e-10, &format!("{m}, known columns"));
    }
}

#[test]
fn ternary_is_that_of_transformers() {
    let golden = Golden::open();
    for format in ["ternary", "ternary_b3"] {
        for m in MATRICES {
            let at = |part: &str| golden.values(&format!("{m}.{part}"));
            let packed = golden.quantize(m, format, &[]);
            let scale = at("ternary.scale")[0];
            let want: Vec<f32> = at("ternary.codes").iter().map(|code| code * scale).collect();
            assert_close(&packed.dequantize(), &want, 1e-6, &format!("{format} {m}"));
            assert_products(&packed, &at("x"), true, &at("ternary.y"), 1e-10, &format!("{format} {m}"));
        }
    }
}

#[test]
fn bf16_rounds_like_pytorch() {
    let golden = Golden::open();
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let packed = golden.quantize("bf16", "bf16", &[]);
    assert_eq!(bits(&packed.dequantize()), bits(&golden.values("bf16.rounded")));
}

#[test]
fn activations_and_their_slopes_are_those_of_pytorch() {
    let golden = Golden::file("activations");
    let (x, cpu) = (golden.values("x"), Cpu::new(None, Some(1)).unwrap());
    for (f, name) in Function::ALL.iter().zip(["relu", "relu2", "silu", "gelu_erf", "gelu_tanh", "tanh"]) {
        let (mut y, mut slope) = (vec![f32::NAN; x.len()], vec![0.0; x.len()]);
        ops::activate(&cpu, *f, &x, &mut y);
        ops::activate_backward(&cpu, *f, &x, &vec![1.0; x.len()], &mut slope);
        for (got, part) in [(y, "y"), (slope, "slope")] {
            for ((got, want), x) in got.iter().zip(golden.values(&format!("{name}.{part}"))).zip(&x) {
                assert!((got - want).abs() <= 1e-6 * (1.0 + want.abs()), "{name}.{part} of {x}: {got}, not {want}");
            }
        }
    }
}

/// Codes and scales of llama.cpp mean here what they mean there, in every bit.
#[test]
fn blocks_of_llama_cpp_have_the_bits_that_gguf_py_reads() {
    let golden = Golden::file("grouped");
    for name in ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k"] {
        let format = find(name).unwrap().grouped().expect("a format of groups");
        let (w, shape) = golden.get(&format!("{name}.w"));
        let bytes = |part: &str| golden.values(&format!("{name}.{part}")).iter().map(|v| *v as u8).collect::<Vec<_>>();
        let halves = |part: &str| golden.values(&format!("{name}.{part}")).iter().map(|v| f16::from_f32(*v)).collect();
        let (codes, stored): (Vec<u8>, Vec<u8>) = (bytes("codes"), bytes("stored"));
        let (scales, offsets): (Vec<f16>, Vec<f16>) = (halves("scale"), halves("offset"));
        let pairs = stored.as_chunks::<2>().0;
        let per = pairs.len() / scales.len();
        let spans = scales.iter().zip(&offsets).enumerate();
        let spans: Vec<_> =
            spans.map(|(i, (scale, offset))| format.scales(*scale, *offset, &pairs[i * per..][..per])).collect();
        let packed = format.pack(shape[0], shape[1], &codes, &spans).expect("scales of the format");
        for (i, (found, want)) in packed.dequantize().iter().zip(&w).enumerate() {
            assert_eq!(found.to_bits(), want.to_bits(), "{name} at {i}: {found}, not {want}");
        }
        // As the spans say.
        let (scale, offset) = spans[0].groups[0];
        let first = f64::from(codes[0]) * f64::from(scale) + f64::from(offset);
        assert!((first - f64::from(w[0])).abs() <= 1e-6 * first.abs(), "{name}: {first} {}", w[0]);
    }
}
