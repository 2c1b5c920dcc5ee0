//! Hub directories against transformers; `tools/golden/llm.py` makes the vectors.

use lowbit_base::testing::data;
use lowbit_kernels::{Cpu, Isa};
use lowbit_model::checkpoint::{Options, ledger, quantize};
use lowbit_model::container::{Dtype, Planned, Tensors, Writer};
use lowbit_model::exec::Batch;
use lowbit_model::recipe::{self, ActivationPrecision};
use lowbit_model::source::Role;
use lowbit_model::{Checkpoint, CpuExec, Model, Param, Recipe, Session};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest difference of a logit, relative to the largest magnitude.
const TOLERANCE: f32 = 1e-4;
const CASES: &[&str] = &["bitnet", "bitnet_untied", "llama", "llama3"];
const PACKED: &[&str] = &["bitnet_autobitlinear", "bitnet_bitlinear"];

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/hub").join(case)
}

fn tensors(case: &str) -> Tensors {
    Tensors::open(&golden(case).join("expected.safetensors")).expect("part of the repository")
}

fn prompt(expected: &Tensors) -> Vec<u32> {
    let bytes = expected.bytes("prompt").expect("there");
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn open(directory: &Path) -> Checkpoint {
    Checkpoint::open(directory).unwrap_or_else(|e| panic!("{e}"))
}

fn cpus() -> impl Iterator<Item = Cpu> {
    Isa::available().into_iter().map(|isa| Cpu::new(Some(isa.name()), Some(2)).unwrap())
}

/// The recipe of transformers: nothing but the body is quantized.
fn as_trained() -> &'static Recipe {
    let base = recipe::find("f32").unwrap();
    Box::leak(Box::new(Recipe { body: "ternary", activations: ActivationPrecision::Int8, ..*base }))
}

fn argmax(row: &[f32]) -> usize {
    (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap()
}

fn distance(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let top = want.iter().fold(0f32, |m, v| m.max(v.abs()));
    got.iter().zip(want).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / top
}

/// Prefill and decoding yield the same logits, on every instruction set.
fn assert_logits(model: Model<Param>, prompt: &[u32], want: &[f32], what: &str) {
    let model = Arc::new(model);
    let width = want.len() / prompt.len();
    for cpu in cpus() {
        let name = cpu.isa.name();
        let found = CpuExec::new(cpu.clone()).forward(&model, &Batch::new([prompt])).unwrap().to_vec();
        assert!(distance(&found, want) < TOLERANCE, "{what}, prefill on {name}: {}", distance(&found, want));
        let mut session = Session::new(model.clone(), cpu, prompt.len());
        let decoded: Vec<f32> = prompt.iter().flat_map(|t| session.feed(&[*t]).unwrap().to_vec()).collect();
        assert!(distance(&decoded, want) < TOLERANCE, "{what}, decode on {name}: {}", distance(&decoded, want));
        for (row, (found, want)) in found.chunks_exact(width).zip(want.chunks_exact(width)).enumerate() {
            assert_eq!(argmax(found), argmax(want), "{what}, row {row} on {name}");
        }
    }
}

#[test]
fn logits_are_those_of_transformers() {
    for case in CASES {
        let (checkpoint, expected) = (open(&golden(case)), tensors(case));
        let model = checkpoint.model_as(recipe::find("f32").unwrap(), &Options::new()).unwrap();
        assert_logits(model, &prompt(&expected), &expected.floats("logits").unwrap(), case);
    }
}

#[test]
fn rotary_scaling_counts() {
    let (home, expected) = (copy("llama3"), tensors("llama3"));
    let path = home.path().join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["rope_parameters"]["rope_type"] = "default".into();
    std::fs::write(&path, config.to_string()).unwrap();
    let model = open(home.path()).model_as(recipe::find("f32").unwrap(), &Options::new()).unwrap();
    let mut exec = CpuExec::new(Cpu::new(None, Some(2)).unwrap());
    let found = exec.forward(&model, &Batch::new([&prompt(&expected)[..]])).unwrap().to_vec();
    assert!(distance(&found, &expected.floats("logits").unwrap()) > 100.0 * TOLERANCE);
}

#[test]
fn quantized_logits_are_those_of_transformers() {
    for case in CASES.iter().chain(PACKED).filter(|case| case.starts_with("bitnet")) {
        let (checkpoint, expected) = (open(&golden(case)), tensors(case));
        assert_eq!(
            (checkpoint.recipe().name, checkpoint.model_config().trained_for.as_deref()),
            ("bitnet_bf16", Some("bitnet"))
        );
        let model = checkpoint.model_as(as_trained(), &Options::new()).unwrap();
        assert_logits(model, &prompt(&expected), &expected.floats("logits_int8").unwrap(), case);
    }
}

/// Ten thousand positions; `draw` of the script that made the vectors.
#[test]
fn quantized_answers_are_those_of_transformers() {
    for case in PACKED {
        let (checkpoint, expected) = (open(&golden(case)), tensors(case));
        let want = expected.bytes("argmax").unwrap();
        let mut state = 7u64;
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % 61) as u32
        };
        let tokens: Vec<u32> = (0..want.len()).map(|_| draw()).collect();
        assert_eq!(tokens.len(), 10_000);
        let perplexity = expected.floats("nll").unwrap()[0].exp();
        for (recipe, least) in [(as_trained(), 0.999), (checkpoint.recipe(), 0.99)] {
            let model = checkpoint.model_as(recipe, &Options::new()).unwrap();
            let mut exec = CpuExec::new(Cpu::new(None, Some(2)).unwrap());
            let logits = exec.forward(&model, &Batch::new(tokens.chunks(250))).unwrap();
            let (width, logits) = (logits.width(), logits.to_vec());
            let rows: Vec<&[f32]> = logits.chunks_exact(width).collect();
            let equal = rows.iter().zip(want.iter()).filter(|(row, want)| argmax(row) == **want as usize).count();
            let share = equal as f64 / want.len() as f64;
            let pairs = (0..tokens.len()).filter(|at| at % 250 < 249);
            let nats: f64 = pairs.map(|at| nats(rows[at], tokens[at + 1])).sum::<f64>() / (40.0 * 249.0);
            println!(
                "{case}, {}: {:.4} of the answers, perplexity {:.4}, not {perplexity:.4}",
                recipe.body,
                share,
                nats.exp()
            );
            assert!(share >= least, "{case}: {share}");
            if recipe.embedding == "f32" {
                assert!((nats.exp() as f32 / perplexity - 1.0).abs() < 5e-4, "{case}: {} {perplexity}", nats.exp());
            }
        }
    }
}

/// Minus the natural logarithm of a token's probability.
fn nats(logits: &[f32], token: u32) -> f64 {
    let top = logits.iter().fold(f32::MIN, |m, v| m.max(*v)) as f64;
    let sum: f64 = logits.iter().map(|v| (*v as f64 - top).exp()).sum();
    sum.ln() + top - logits[token as usize] as f64
}

#[test]
fn configurations_are_read_in_full() {
    let model_config = |case| open(&golden(case)).model_config().clone();
    let config = |case| serde_json::to_value(model_config(case).config).unwrap();
    let bitnet = model_config("bitnet");
    assert_eq!((bitnet.max_length, bitnet.bos_token_id, &bitnet.eos_token_ids[..]), (256, Some(1), &[2, 3][..]));
    assert_eq!((&config("bitnet")["head_dim"], &config("llama")["head_dim"]), (&8.into(), &6.into()));
    assert_eq!((&config("bitnet")["sub_norm"], &config("llama")["sub_norm"]), (&true.into(), &false.into()));
    assert_eq!(config("llama3")["rope_scaling"]["original_max_position_embeddings"], 16.0);
    assert_eq!(open(&golden("llama")).recipe().name, "bf16");
    assert_eq!(model_config("llama").trained_for, None);
}

/// `AutoConfig.for_model(name)` of transformers 5.24, `bos_token_id` and `eos_token_id`: llama and mistral 1 and 2, qwen2 and qwen3
/// none, bitnet 128000 and 128001.
#[test]
fn ids_that_no_file_tells_are_those_of_the_family() {
    let home = copy("llama");
    let path = home.path().join("config.json");
    let whole: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let ids = |change: &dyn Fn(&mut serde_json::Map<String, serde_json::Value>)| {
        let mut config = whole.as_object().unwrap().clone();
        config.shift_remove("bos_token_id");
        config.shift_remove("eos_token_id");
        change(&mut config);
        std::fs::write(&path, serde_json::to_string(&config).unwrap()).unwrap();
        let model_config = open(home.path()).model_config().clone();
        (model_config.bos_token_id, model_config.eos_token_ids)
    };
    assert_eq!(ids(&|_| ()), (Some(1), vec![2]));
    assert_eq!(ids(&|config| drop(config.insert("model_type".into(), "mistral".into()))), (Some(1), vec![2]));
    let null = |config: &mut serde_json::Map<String, serde_json::Value>| {
        config.insert("bos_token_id".into(), serde_json::Value::Null);
        config.insert("eos_token_id".into(), serde_json::Value::Null);
    };
    assert_eq!(ids(&null), (None, vec![]), "null is said");
    let write = |name: &str, text: &str| std::fs::write(home.path().join(name), text).unwrap();
    write("generation_config.json", r#"{"eos_token_id": 9}"#);
    assert_eq!(ids(&|_| ()), (Some(1), vec![9]));
    write("tokenizer_config.json", r#"{"bos_token": "<s>", "eos_token": "</s>"}"#);
    std::fs::remove_file(home.path().join("generation_config.json")).unwrap();
    assert_eq!(ids(&|_| ()), (None, vec![]), "the tokenizer names them");
}

#[test]
fn chat_templates_and_ends_are_found() {
    let home = copy("llama");
    let model_config = || open(home.path()).model_config().clone();
    let write = |name: &str, text: &str| std::fs::write(home.path().join(name), text).unwrap();
    assert_eq!(model_config().chat_template, None);
    write("generation_config.json", r#"{"eos_token_id": [9, 2]}"#);
    assert_eq!(model_config().eos_token_ids, [2, 3, 9]);
    write("tokenizer_config.json", r#"{"chat_template": "one"}"#);
    assert_eq!(model_config().chat_template.as_deref(), Some("one"));
    // As transformers chooses of several: the one named `tool_use` where there are functions, else the one named `default`.
    let both = || (model_config().chat_template, model_config().tool_template);
    let expected = |plain: &str, tool_use: Option<&str>| (Some(plain.to_owned()), tool_use.map(String::from));
    let several = r#"{"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]}"#;
    write("tokenizer_config.json", several);
    assert_eq!(both(), expected("d", Some("t")));
    // Files count in place of the list.
    write("chat_template.jinja", "of its own");
    assert_eq!(both(), expected("of its own", None));
    std::fs::create_dir(home.path().join("additional_chat_templates")).unwrap();
    write("additional_chat_templates/tool_use.jinja", "of tools");
    assert_eq!(both(), expected("of its own", Some("of tools")));
    std::fs::remove_file(home.path().join("chat_template.jinja")).unwrap();
    write("tokenizer_config.json", r#"{"chat_template": [{"name": "a", "template": "first"}]}"#);
    assert_eq!(both(), expected("first", Some("of tools")));
}

fn copy(case: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(golden(case).join(file), home.path().join(file)).unwrap();
    }
    home
}

/// Splits `model.safetensors` in two, every other tensor in the second, under an index.
fn shard(home: &Path) {
    let path = home.join("model.safetensors");
    let whole = Tensors::open(&path).unwrap();
    let mut map = BTreeMap::new();
    for part in 0..2 {
        let file = format!("model-{:05}-of-00002.safetensors", part + 1);
        let names: Vec<_> = whole.names().iter().skip(part).step_by(2).collect();
        let planned = |name: &&String| {
            let entry = whole.entry(name).unwrap();
            Planned { name: name.to_string(), dtype: entry.dtype, shape: entry.shape.clone() }
        };
        let plan: Vec<_> = names.iter().map(planned).collect();
        let mut writer = Writer::create(&home.join(&file), BTreeMap::new(), &plan).unwrap();
        for (name, plan) in names.iter().zip(&plan) {
            writer.tensor(name, plan.dtype, &plan.shape, &whole.bytes(name).unwrap()).unwrap();
            map.insert(name.to_string(), file.clone());
        }
        writer.finish().unwrap();
    }
    std::fs::remove_file(&path).unwrap();
    let index = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": map});
    std::fs::write(home.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

#[test]
fn shards_are_one_model() {
    for case in ["llama", "bitnet_autobitlinear"] {
        let home = copy(case);
        shard(home.path());
        let (whole, shards) = (open(&golden(case)), open(home.path()));
        for spec in whole.parameters().params() {
            assert_eq!(whole.master(spec).unwrap(), shards.master(spec).unwrap(), "{}", spec.name);
        }
        let one = open(&home.path().join("model-00001-of-00002.safetensors"));
        assert_eq!(one.directory(), home.path());
    }
}

#[test]
fn a_copy_in_the_projects_own_layout_is_the_same_model() {
    let tokens: Vec<u32> = (0..20).collect();
    for case in PACKED.iter().chain(&["llama3", "bitnet"]) {
        let hub = open(&golden(case));
        let home = tempfile::tempdir().unwrap();
        let run = |model| {
            let mut exec = CpuExec::new(Cpu::new(None, Some(2)).unwrap());
            exec.forward(&model, &Batch::new([&tokens[..]])).unwrap().to_vec()
        };
        let recipes = [hub.recipe().name, "bitnet_b3", "bitnet_channel", "bitnet"];
        for recipe in recipes.iter().filter(|name| **name == hub.recipe().name || PACKED.contains(case)) {
            let (recipe, out) = (recipe::find(recipe).unwrap(), home.path().join(recipe));
            quantize(&hub, recipe, &Options::new(), &out).unwrap();
            let own = open(&out);
            assert_eq!(own.model_config(), hub.model_config());
            let found = run(own.model().unwrap());
            assert_eq!(found, run(hub.model_as(recipe, &Options::new()).unwrap()), "{case}, {}", recipe.name);
            if recipe == hub.recipe() {
                assert_eq!(found, run(hub.model().unwrap()), "{case}");
            }
            for spec in hub.parameters().params().iter().filter(|p| p.role == Role::Body && PACKED.contains(case)) {
                assert_eq!(own.packed(spec).unwrap().dequantize(), hub.master(spec).unwrap(), "{}", spec.name);
            }
        }
        let rows = ledger(&hub).unwrap();
        assert_eq!(rows.len(), hub.parameters().params().len());
    }
}

#[test]
fn a_tied_head_that_is_stored_again_is_ignored() {
    let home = copy("bitnet");
    let path = home.path().join("model.safetensors");
    let whole = Tensors::open(&path).unwrap();
    let mut plan: Vec<_> = whole
        .names()
        .iter()
        .map(|name| (name.clone(), whole.entry(name).unwrap().clone(), whole.bytes(name).unwrap()))
        .collect();
    let (_, entry, bytes) = plan.iter().find(|(name, ..)| name == "model.embed_tokens.weight").unwrap().clone();
    plan.push(("lm_head.weight".into(), entry, bytes));
    let planned: Vec<_> = plan
        .iter()
        .map(|(name, e, _)| Planned { name: name.clone(), dtype: e.dtype, shape: e.shape.clone() })
        .collect();
    let out = home.path().join("again.safetensors");
    let mut writer = Writer::create(&out, BTreeMap::new(), &planned).unwrap();
    for (name, entry, bytes) in &plan {
        assert_eq!(entry.dtype, Dtype::BF16);
        writer.tensor(name, entry.dtype, &entry.shape, bytes).unwrap();
    }
    writer.finish().unwrap();
    std::fs::rename(out, path).unwrap();
    open(home.path()).model().unwrap();
}

/// A model that others trained. Reference: 1.5727 nats per token with float activations (transformers), 1.5723 with int8
/// ones, on ten windows of at most 256 tokens.
#[test]
fn a_real_ternary_model_scores_as_it_should() {
    let (Some(weights), Some(text)) =
        (data("weights/bitnet-tinystories-3m"), data("tinystories_sample/tinystories.txt.zst"))
    else {
        return;
    };
    let checkpoint = open(&weights);
    assert!(checkpoint.notices().is_empty(), "{:?}", checkpoint.notices());
    let windows = windows(&checkpoint, &text);
    let cases = [(recipe::find("f32").unwrap(), 1.573), (checkpoint.recipe(), 1.572)];
    for (recipe, want) in cases {
        let model = checkpoint.model_as(recipe, &Options::new()).unwrap();
        let mut first = None;
        for cpu in cpus().collect::<Vec<_>>().into_iter().rev() {
            let isa = cpu.isa;
            let mut exec = CpuExec::new(cpu);
            // Without vectors the whole text takes a minute; one window tells whether the others' figure holds.
            let few = isa == Isa::Scalar && first.is_some();
            let windows = if few { &windows[..1] } else { &windows[..] };
            let score = |window: &Vec<u32>| {
                let logits = exec.forward(&model, &Batch::new([&window[..]])).unwrap();
                let (width, logits) = (logits.width(), logits.to_vec());
                let rows = logits.chunks_exact(width).zip(&window[1..]);
                rows.map(|(row, token)| nats(row, *token)).sum::<f64>() / (window.len() - 1) as f64
            };
            // All windows have as many tokens.
            let means: Vec<f64> = windows.iter().map(score).collect();
            let mean = means.iter().sum::<f64>() / means.len() as f64;
            println!("{} weights, {:?} activations, {}: {mean:.5}", recipe.body, recipe.activations, isa.name());
            assert!((means[0] - *first.get_or_insert(means[0])).abs() < 1e-3, "{}: {}", isa.name(), means[0]);
            assert!(few || (mean - want).abs() <= 0.001, "{} on {}: {mean}", recipe.body, isa.name());
        }
    }
}

/// The first 700 characters at offsets 0, 6000, .. 54000 as tokens, the first of them that which begins a text.
fn windows(checkpoint: &Checkpoint, text: &Path) -> Vec<Vec<u32>> {
    let tokenizer = checkpoint.tokenizer().unwrap();
    let text = zstd::decode_all(std::fs::File::open(text).unwrap()).unwrap();
    let text: Vec<char> = String::from_utf8(text).unwrap().chars().collect();
    let (bos, space) = (checkpoint.model_config().bos_token_id.unwrap(), tokenizer.id("▁").unwrap());
    let mut hash = Sha256::new();
    let window = |start: usize| {
        let text: String = text[start..start + 700].iter().collect();
        let mut ids = tokenizer.encode(&text, 1024).unwrap();
        ids.retain(|id| *id != bos);
        // The reference keeps the space that a window begins with.
        if text.starts_with(' ') && ids[0] != space {
            ids.insert(0, space);
        }
        ids.insert(0, bos);
        ids.truncate(256);
        ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
        ids
    };
    let windows = (0..=54_000).step_by(6000).map(window).collect();
    let hash: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hash, "96f65c94c32420a019aecc204561617b747c281204bab26206561e0ffcfffa6b", "tokens of sentencepiece");
    windows
}
