//! Thousands of seeded mutations of valid files: each is read or refused with one line, never a panic.

mod common;

use common::{Home, Stored, TIED, decoder, stored};
use lowbit_kernels::Pool;
use lowbit_model::calibrate::read_imatrix;
use lowbit_model::checkpoint::{CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE};
use lowbit_model::container::Tensors;
use lowbit_model::parameter_list::ParameterList;
use lowbit_model::{Checkpoint, Config, Error, Tokenizer};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Changes a few bytes of a file: bits, special bytes, numbers, an end cut off, a part repeated.
struct Mutator(u64);

impl Mutator {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    fn mutate(&mut self, seed: &[u8]) -> Vec<u8> {
        let mut file = seed.to_vec();
        for _ in 0..1 + self.below(4) {
            let at = self.below(file.len());
            match self.below(6) {
                0 => file[at] ^= 1 << self.below(8),
                1 => file[at] = b"\0\x01\x7f\x80\xff\"[]{}:,09-.e\\"[self.below(18)],
                2 => file.truncate(at.max(1)),
                3 => {
                    let end = (at + 8).min(file.len());
                    let value = [0, 1, u64::MAX, 1 << 63, 1 << 40, 0xffff_ffff][self.below(6)].to_le_bytes();
                    file[at..end].copy_from_slice(&value[..end - at]);
                }
                4 => {
                    let number = ["-1", "18446744073709551616", "1e999", "4294967295", "null"][self.below(5)];
                    file.splice(at..at, number.bytes());
                }
                _ => {
                    let part = file[at..(at + 24).min(file.len())].to_vec();
                    let to = self.below(file.len());
                    file.splice(to..to, part);
                }
            }
        }
        file
    }
}

/// Runs `read` on mutations of each seed; counts files read and files refused.
fn run(path: &Path, seeds: &[Vec<u8>], rounds: usize, read: impl Fn(&Path) -> Result<(), Error>) -> (usize, usize) {
    let mut mutator = Mutator(0x9e37_79b9_7f4a_7c15);
    let (mut good, mut bad) = (0, 0);
    for round in 0..rounds {
        std::fs::write(path, mutator.mutate(&seeds[round % seeds.len()])).expect("written");
        match read(path) {
            Ok(()) => good += 1,
            Err(error) => {
                bad += 1;
                common::refusal("a mutation", &error, &[""]);
            }
        }
    }
    (good, bad)
}

fn golden(name: &str) -> Vec<u8> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    std::fs::read(path).expect("part of the repository")
}

#[test]
fn safetensors() {
    let directory = tempfile::tempdir().expect("a directory");
    let header = json!({"__metadata__": {"k": "v"}, "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]}});
    let header = header.to_string();
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[1; 32]].concat();
    let read = |path: &Path| {
        let tensors = Tensors::open(path)?;
        for name in tensors.names() {
            let _ = (tensors.floats(name), tensors.bytes(name).expect("it has data"));
        }
        tensors.verify(&Pool::new(1)).map(|_| ())
    };
    let (good, bad) = run(&directory.path().join("x.safetensors"), &[file], 4000, read);
    assert!(good > 100 && bad > 1000, "{good} read, {bad} refused");
}

#[test]
fn importance_matrices() {
    let directory = tempfile::tempdir().expect("a directory");
    let parameters = ParameterList::new(&Config::Decoder(decoder(TIED))).expect("parameters");
    let read = |path: &Path| {
        let observed = read_imatrix(path, &parameters)?;
        for (name, stats) in observed.iter() {
            assert!(stats.sum_squares().iter().all(|sum| sum.is_finite() && *sum >= 0.0), "{name}");
        }
        Ok(())
    };
    let (good, bad) = run(&directory.path().join("x.gguf"), &[golden("imatrix.gguf")], 4000, read);
    assert!(good > 100 && bad > 1000, "{good} read, {bad} refused");
}

/// Directories of GPTQ, AWQ and compressed-tensors: what is read means the same as floats and packed.
#[test]
fn integers_of_the_hub() {
    let cases: Value = serde_json::from_slice(&golden("integers/cases.json")).expect("JSON");
    let all = stored(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/integers/tensors.safetensors"));
    for name in ["gptq_3", "gptq_act_order", "awq", "compressed_asymmetric"] {
        let of_case = |(key, tensor): (&String, _)| {
            let key = key.strip_prefix(name)?.strip_prefix('/')?;
            (!["prompt", "logits"].contains(&key)).then(|| (key.to_string(), Clone::clone(tensor)))
        };
        let home = Home::of(cases[name]["config"].clone(), all.iter().filter_map(of_case).collect::<Stored>());
        let read = |_: &Path| {
            let checkpoint = Checkpoint::open(home.path())?;
            for spec in checkpoint.parameters().params().iter().filter(|spec| !spec.role.is_vector()) {
                let (master, packed) = (checkpoint.master(spec)?, checkpoint.packed(spec)?.dequantize());
                let same = master.iter().zip(&packed).all(|(a, b)| a == b || a.is_nan() && b.is_nan());
                assert!(same && master.len() == packed.len(), "{name}, {}", spec.name);
            }
            Ok(())
        };
        for file in [CONFIG_FILE, WEIGHTS_FILE] {
            home.write();
            let path = home.path().join(file);
            let seed = std::fs::read(&path).expect("written");
            let (good, bad) = run(&path, &[seed], 600, read);
            assert!(good > 20 && bad > 100, "{name}, {file}: {good} read, {bad} refused");
        }
    }
}

#[test]
fn vocabularies() {
    let directory = tempfile::tempdir().expect("a directory");
    let trained = Tokenizer::train_bpe(["low lower lowest bits of weights"; 9], 280, true).expect("trains");
    let path = directory.path().join(TOKENIZER_FILE);
    trained.save(&path).expect("written");
    let json = std::fs::read(&path).expect("readable");
    let lines: Vec<u8> = (0..=255u8).flat_map(|b| format!("{} {b}\n", base64(&[b])).into_bytes()).collect();
    let read = |path: &Path| {
        let tokenizer = Tokenizer::load(path)?;
        let text = "The lowest \u{1f600} bits\0 <s><|end|>  of  w\u{e9}ights\n";
        if let Ok(ids) = tokenizer.encode_parts(&[(text, true), (text, false)]) {
            let _ = tokenizer.decode(&ids);
            ids.iter().for_each(|id| assert!(tokenizer.token_bytes(*id).is_some(), "{id} is in the vocabulary"));
        }
        Ok(())
    };
    let spm = [golden("spm_bytes.model"), golden("spm_unknown.model")];
    for (name, seeds, rounds) in [("spm", &spm[..], 4000), ("tiktoken", &[lines], 1000), ("json", &[json], 1000)] {
        // Panics of the tokenizer library are caught, but printed.
        let (good, bad) = run(&path, seeds, rounds, read);
        assert!(good + bad == rounds && good > 0 && bad > 50, "{name}: {good} read, {bad} refused");
    }
}

/// One byte in base 64.
fn base64(byte: &[u8; 1]) -> String {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |i: u8| char::from(digits[usize::from(i)]);
    format!("{}{}==", digit(byte[0] >> 2), digit((byte[0] & 3) << 4))
}
