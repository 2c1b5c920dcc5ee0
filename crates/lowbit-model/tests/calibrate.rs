//! Quantization with calibration: importance matrices, and rounding by what the network reads.

mod common;

use common::*;
use lowbit_model::arch::decoder;
use lowbit_model::calibrate::{METHODS, Method, Origin, observe, quantize, read_imatrix, save_imatrix};
use lowbit_model::checkpoint::{self, Options};
use lowbit_model::exec::Batch;
use lowbit_model::{Checkpoint, Config, CpuExec, Error, recipe};
use std::path::{Path, PathBuf};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/imatrix.gguf")
}

fn opened(directory: &Path, config: &Config) -> Checkpoint {
    write(directory, config);
    Checkpoint::open(directory).expect("valid")
}

/// Sequences that repeat themselves, so that inputs depend on each other.
fn text(seed: u64, sequences: usize) -> Batch {
    let mut noise = Noise(seed);
    let mut token = || ((noise.next() + 1.0) * 12.0) as u32 + 97;
    let sequences: Vec<Vec<u32>> = (0..sequences).map(|_| (0..20).map(|_| token()).collect()).collect();
    Batch::new(sequences.iter().map(|tokens| &tokens[..]))
}

/// Squared difference of the answers of a directory from those of the masters, as a share of their squares.
fn difference(directory: &Path, masters: &Checkpoint, batch: &Batch) -> f64 {
    let mut exec = CpuExec::new(cpu());
    let full = masters.model_as(recipe::find("f32").expect("listed"), &Options::new()).expect("loads");
    let want = exec.forward(&full, batch).expect("runs").to_vec();
    let model = Checkpoint::open(directory).expect("valid").model().expect("loads");
    let found = exec.forward(&model, batch).expect("runs").to_vec();
    let square = |v: f32| f64::from(v) * f64::from(v);
    want.iter().zip(&found).map(|(a, b)| square(a - b)).sum::<f64>() / want.iter().map(|v| square(*v)).sum::<f64>()
}

/// Whether a method rounds column by column where a format allows it.
fn by_columns(method: &Method) -> bool {
    ["gptq", "learned"].iter().any(|name| method.name.contains(name))
}

#[test]
fn gptq_is_closer_to_full_precision_than_rounding_to_nearest() {
    // Logarithms of the ratio of the differences, by method: chance decides a single small network.
    let mut gains = vec![Vec::new(); METHODS.len()];
    for config in configs() {
        let home = tempfile::tempdir().expect("a directory");
        let masters = opened(&home.path().join("m"), &config);
        for name in
            ["int4+act=f32+head_act=f32", "int2+act=f32+head=int4+embed=int4+head_act=f32", "ternary_channel+act=f32"]
        {
            let recipe = recipe::find(name).expect("spelled");
            let out = home.path().join("plain");
            checkpoint::quantize(&masters, recipe, &Options::new(), &out).expect("quantizes");
            let plain = difference(&out, &masters, &text(2, 40));
            for (method, gains) in METHODS.iter().zip(&mut gains) {
                let out = home.path().join(method.name);
                let mut seen = 0;
                let mut progress = |done, all| {
                    seen += 1;
                    assert!(done == seen && done <= all);
                };
                let (mut made, rounded) =
                    quantize(&masters, recipe, method, &text(1, 60), &cpu(), &mut progress).expect("quantizes");
                assert_eq!(rounded.len(), masters.parameters().matrices(), "{config:?}");
                checkpoint::save_quantized(&masters, recipe, &mut made, &out).expect("written");
                let found = difference(&out, &masters, &text(2, 40));
                gains.push((found / plain).ln());
                if by_columns(method) {
                    assert!(rounded.iter().any(|one| one.gptq), "{rounded:?}");
                }
            }
        }
    }
    for (method, gains) in METHODS.iter().zip(gains) {
        let mean = (gains.iter().sum::<f64>() / gains.len() as f64).exp();
        let most = if by_columns(method) { 0.75 } else { 1.0 };
        assert!(mean < most, "{}: {mean} times the difference of rounding without calibration", method.name);
    }
}

#[test]
fn threads_do_not_change_what_is_written() {
    let config = configs()[1].clone();
    let home = tempfile::tempdir().expect("a directory");
    let masters = opened(&home.path().join("m"), &config);
    let recipe = recipe::find("int2").expect("listed");
    for method in METHODS {
        let files = [1, 3].map(|threads| {
            let cpu = lowbit_kernels::Cpu::new(None, Some(threads)).expect("a CPU");
            let (mut made, _) = quantize(&masters, recipe, method, &text(1, 9), &cpu, &mut |_, _| {}).expect("runs");
            let out = home.path().join(threads.to_string());
            checkpoint::save_quantized(&masters, recipe, &mut made, &out).expect("written");
            stored(&out.join("model.safetensors"))
        });
        assert!(files[0] == files[1], "{}", method.name);
    }
}

#[test]
fn importance_matrices_are_those_of_llama_cpp() {
    let config = Config::Decoder(decoder(TIED));
    let home = tempfile::tempdir().expect("a directory");
    let masters = opened(&home.path().join("m"), &config);
    let parameters = masters.parameters();
    let read = read_imatrix(&golden(), parameters).expect("valid");
    assert_eq!(read.iter().count(), 14, "the table is not in it");
    let down = read.get("model.layers.1.mlp.down_proj.weight").expect("there");
    assert_eq!((down.tokens(), down.mean_squares()[79]), (512, 1.0 + 6.0 + 79.0 / 4.0));
    let importance = read.importance();
    let of = importance["model.layers.0.self_attn.k_proj.weight"].importance.as_ref().expect("there");
    assert_eq!(of[..3], [1.0, 1.25, 1.5]);

    let model = masters.model_as(recipe::find("f32").expect("listed"), &Options::new()).expect("loads");
    let observed = observe(&model, cpu(), [&text(1, 3), &text(2, 2)]).expect("runs");
    let (file, origin) =
        (home.path().join("own.gguf"), Origin { datasets: vec!["a".into()], chunks: 5, chunk_size: 20 });
    save_imatrix(&file, parameters, &observed, &origin).expect("written");
    let back = read_imatrix(&file, parameters).expect("valid");
    assert_eq!(back.iter().count(), parameters.matrices());
    for (name, stats) in observed.iter() {
        let back = back.get(name).expect("written");
        assert_eq!(back.tokens(), 100);
        assert!(distance(&back.mean_squares(), &stats.mean_squares()) < 1e-6, "{name}");
    }
}

#[test]
fn importance_matrices_of_other_networks_are_refused() {
    let home = tempfile::tempdir().expect("a directory");
    let refused = |file: &Path, config: &Config, words: &[&str]| {
        let masters = opened(&home.path().join("m"), config);
        let error = read_imatrix(file, masters.parameters()).expect_err("refused");
        refused_file("imatrix", file, &error, words);
    };
    let wide = decoder::Config { hidden_size: 64, ..decoder(TIED) };
    let words = ["`blk.0.attn_q.weight.in_sum2` has 48 elements", "64 input features", "take the importance matrix"];
    refused(&golden(), &Config::Decoder(wide), &words);
    refused(&golden(), &configs()[5], &["holds none of the matrices of the model, such as", "layers.0"]);
    let small = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/small.gguf");
    refused(&small, &configs()[0], &["no importance matrix", "--save-imatrix"]);
    let mut bytes = std::fs::read(golden()).expect("there");
    let sum = 512f32 * (80.0 / 4.0 - 0.25 + 7.0);
    let at = bytes.windows(4).rposition(|four| four == sum.to_le_bytes()).expect("the last sum");
    bytes[at..at + 4].copy_from_slice(&(-1f32).to_le_bytes());
    let broken = home.path().join("broken.gguf");
    std::fs::write(&broken, bytes).expect("written");
    refused(
        &broken,
        &Config::Decoder(decoder(TIED)),
        &["`blk.1.ffn_down.weight.in_sum2`, element 79 is -1, which is no sum"],
    );
}

#[test]
fn what_cannot_be_calibrated_is_refused() {
    let home = tempfile::tempdir().expect("a directory");
    let masters = opened(&home.path().join("m"), &configs()[0]);
    let gptq = Method::find("gptq").expect("listed");
    let run = |masters: &Checkpoint, batch: &Batch| -> Result<(), Error> {
        quantize(masters, recipe::find("int4")?, gptq, batch, &cpu(), &mut |_, _| {}).map(|_| ())
    };
    run(&masters, &text(1, 2)).expect("runs");
    assert!(run(&masters, &Batch::new([&[9999u32][..]])).expect_err("no such token").to_string().contains("9999"));
    let out = home.path().join("packed");
    checkpoint::quantize(&masters, recipe::find("int4").expect("listed"), &Options::new(), &out).expect("quantizes");
    let packed = Checkpoint::open(&out).expect("valid");
    let error = run(&packed, &text(1, 2)).expect_err("no masters").to_string();
    assert!(error.contains("stored as int") && error.contains("start from a checkpoint with f32 masters"), "{error}");
    assert!(Method::find("gpt").expect_err("unknown").to_string().contains("did you mean `gptq`"));
}
