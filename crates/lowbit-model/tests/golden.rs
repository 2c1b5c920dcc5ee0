//! The CPU interpreter against transformers' BitNetForCausalLM; the vectors are made by `tools/golden/bitnet_hf.py`.

use lowbit_kernels::format::find;
use lowbit_kernels::{Cpu, Isa, QuantizeOptions};
use lowbit_model::exec::Batch;
use lowbit_model::recipe::ActivationPrecision;
use lowbit_model::source::{ParamSpec, Source};
use lowbit_model::{Config, CpuExec, Error, Model, Param, Session};
use safetensors::{Dtype, SafeTensors};
use std::sync::Arc;

/// Largest difference of a logit, relative to the largest magnitude.
const TOLERANCE: f32 = 1e-5;

struct Golden(Vec<u8>);

impl Golden {
    fn open() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/bitnet_hf.safetensors");
        Golden(std::fs::read(path).expect("the golden vectors are part of the repository"))
    }

    fn file(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).unwrap()
    }

    fn config(&self) -> Config {
        let (_, header) = SafeTensors::read_metadata(&self.0).unwrap();
        let metadata = header.metadata().as_ref().expect("metadata");
        let case: serde_json::Value = serde_json::from_str(&metadata["case"]).unwrap();
        serde_json::from_value(case["config"].clone()).unwrap()
    }

    /// A float tensor; bf16 is the upper half of an f32.
    fn floats(&self, name: &str) -> Vec<f32> {
        let file = self.file();
        let view = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let wide = |b: &[u8]| f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16);
        match view.dtype() {
            Dtype::F32 => view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
            Dtype::BF16 => view.data().chunks_exact(2).map(wide).collect(),
            other => panic!("{name}: {other:?}"),
        }
    }

    fn prompt(&self) -> Vec<u32> {
        let file = self.file();
        let view = file.tensor("prompt").unwrap();
        assert_eq!(view.dtype(), Dtype::I32);
        view.data().chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    /// The network with every matrix in one format, and the number of parameters it asked for.
    fn model(&self, format: &'static str) -> Model<Param> {
        let mut parameters = Parameters { golden: self, format, count: 0 };
        let model = Model::build(&self.config(), &mut parameters).unwrap();
        assert_eq!(parameters.count + 2, self.file().len(), "every tensor but prompt and logits is a parameter");
        model
    }
}

struct Parameters<'a> {
    golden: &'a Golden,
    format: &'static str,
    count: usize,
}

impl Source<Param> for Parameters<'_> {
    fn param(&mut self, spec: &ParamSpec) -> Result<Param, Error> {
        self.count += 1;
        let values = self.golden.floats(&spec.name);
        if spec.role.is_vector() {
            return Ok(Param::Vector(values));
        }
        let packed = find(self.format).unwrap().quantize(&values, spec.rows, spec.cols, &QuantizeOptions::default());
        Ok(Param::Matrix {
            name: spec.name.as_str().into(),
            role: spec.role,
            packed: packed.unwrap(),
            activations: ActivationPrecision::F32,
            rotated: false,
        })
    }
}

fn argmax(row: &[f32]) -> usize {
    (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap()
}

/// Every logit within the tolerance and the same most likely token in each row.
fn assert_logits(got: &[f32], expected: &[f32], width: usize, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let top = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    for (row, (got, expected)) in got.chunks_exact(width).zip(expected.chunks_exact(width)).enumerate() {
        for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
            assert!((got - expected).abs() <= TOLERANCE * top, "{what}: row {row}, logit {i}: {got}, not {expected}");
        }
        assert_eq!(argmax(got), argmax(expected), "{what}: row {row}");
    }
}

#[test]
fn prefill_yields_the_logits_of_transformers() {
    let golden = Golden::open();
    let (prompt, logits) = (golden.prompt(), golden.floats("logits"));
    // The stored parameters are exact in bf16.
    for format in ["f32", "bf16"] {
        let model = golden.model(format);
        for isa in Isa::available() {
            if format == "bf16" && isa == Isa::Avx512Bf16 {
                continue; // activations are rounded to bf16 there
            }
            let mut exec = CpuExec::new(Cpu::new(Some(isa.name()), Some(2)).unwrap());
            let batch = Batch::new([&prompt[..], &prompt[..5]]);
            let found = exec.forward(&model, &batch).unwrap();
            let width = found.width();
            let expected = [&logits[..], &logits[..5 * width]].concat();
            assert_logits(&found.to_vec(), &expected, width, &format!("{format} on {}", isa.name()));
        }
    }
}

#[test]
fn decoding_token_by_token_yields_the_same() {
    let golden = Golden::open();
    let (prompt, logits) = (golden.prompt(), golden.floats("logits"));
    let width = logits.len() / prompt.len();
    let model = Arc::new(golden.model("f32"));
    for isa in Isa::available() {
        let cpu = Cpu::new(Some(isa.name()), Some(2)).unwrap();
        let mut session = Session::new(model.clone(), cpu, prompt.len());
        for (i, expected) in logits.chunks_exact(width).enumerate() {
            let found = session.feed(&prompt[i..i + 1]).unwrap();
            assert_logits(found, expected, width, &format!("token {i} on {}", isa.name()));
        }
    }
}
