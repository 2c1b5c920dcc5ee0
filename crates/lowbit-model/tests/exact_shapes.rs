//! GPT-2 small and DistilBERT in their published shapes against transformers; `tools/golden/exact_shapes.py` makes the vectors.

mod common;

use common::{Home, Stored, distance};
use lowbit_kernels::Cpu;
use lowbit_model::checkpoint::Options;
use lowbit_model::container::{Dtype, Tensors};
use lowbit_model::exec::Batch;
use lowbit_model::{Checkpoint, CpuExec, recipe};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Positions of a language model that are compared, and how far apart the entries of the vocabulary are.
const POSITIONS: [usize; 4] = [0, 1, 63, 127];
const STRIDE: usize = 97;

fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/exact_shapes").join(file)
}

/// The weights of the script, bfloat16: odd multiples of 2^-13, or 1 to 2 for weights of norms.
fn weights(name: &str, shape: &[usize]) -> Vec<u8> {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let is_norm = shape.len() == 1 && name.ends_with("weight");
    let value = |at: u64| {
        let mut x = seed.wrapping_add(at.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let byte = ((x ^ (x >> 31)) >> 56) as u8;
        let value = if is_norm { (128 + byte / 2) as f32 / 128.0 } else { (2.0 * byte as f32 - 255.0) / 8192.0 };
        ((value.to_bits() >> 16) as u16).to_le_bytes()
    };
    (0..shape.iter().product::<usize>() as u64).flat_map(value).collect()
}

/// What a network of the list answers to the tokens.
fn answers(case: &Value, tokens: &[u32]) -> Vec<f32> {
    let mut tensors = Stored::new();
    for (name, shape) in case["tensors"].as_object().unwrap() {
        let shape: Vec<usize> = serde_json::from_value(shape.clone()).unwrap();
        tensors.insert(name.clone(), (Dtype::BF16, shape.clone(), weights(name, &shape)));
    }
    let home = Home::of(case["config"].clone(), tensors);
    home.write();
    let checkpoint = Checkpoint::open(home.path()).unwrap_or_else(|e| panic!("{e}"));
    let model = checkpoint.model_as(recipe::find("f32").unwrap(), &Options::new()).unwrap_or_else(|e| panic!("{e}"));
    let cpu = Cpu::new(None, Some(2)).unwrap();
    CpuExec::new(cpu).forward(&model, &Batch::new([tokens])).unwrap().to_vec()
}

#[test]
fn published_shapes_answer_as_transformers_does() {
    let cases: Value = serde_json::from_slice(&std::fs::read(golden("cases.json")).unwrap()).unwrap();
    let expected = Tensors::open(&golden("expected.safetensors")).unwrap();
    let bytes = expected.bytes("tokens").unwrap();
    let tokens: Vec<u32> = bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect();
    for (name, case) in cases.as_object().unwrap() {
        let (got, want) = (answers(case, &tokens), expected.floats(name).unwrap());
        let got: Vec<f32> = match got.len() == want.len() {
            true => got,
            false => {
                let vocabulary = got.len() / tokens.len();
                let row = |p: &usize| got[p * vocabulary..][..vocabulary].iter().step_by(STRIDE).copied();
                POSITIONS.iter().flat_map(row).collect()
            }
        };
        let found = distance(&got, &want);
        assert!(found < 1e-4, "{name}: {found}");
    }
}
