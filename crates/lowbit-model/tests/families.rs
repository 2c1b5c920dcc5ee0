//! Published networks of every family against transformers; `tools/golden/families.py` makes the vectors.

mod common;

use common::{Home, Stored, distance};
use lowbit_kernels::{Cpu, Isa};
use lowbit_model::arch::{FAMILIES, OutputKind};
use lowbit_model::checkpoint::Options;
use lowbit_model::container::{Dtype, Tensors};
use lowbit_model::exec::Batch;
use lowbit_model::{Checkpoint, CpuExec, Session, recipe};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest difference of a logit, relative to the largest magnitude.
const TOLERANCE: f32 = 1e-4;

fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/families").join(file)
}

fn cases() -> Vec<Value> {
    serde_json::from_slice(&std::fs::read(golden("cases.json")).unwrap()).unwrap()
}

fn expected() -> Tensors {
    Tensors::open(&golden("expected.safetensors")).unwrap()
}

/// A directory of a case, as transformers had it.
fn home(case: &Value) -> Home {
    let mut tensors = common::stored(&golden(&format!("{}.safetensors", case["weights"].as_str().unwrap())));
    for name in case["without"].as_array().unwrap() {
        tensors.remove(name.as_str().unwrap()).unwrap();
    }
    Home::of(case["config"].clone(), tensors)
}

fn case(name: &str) -> Home {
    home(cases().iter().find(|case| case["name"] == name).unwrap_or_else(|| panic!("no case {name}")))
}

fn ids(name: &str) -> Vec<u32> {
    expected().bytes(name).unwrap().chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn prompt() -> Vec<u32> {
    ids("prompt")
}

/// Sequences of several lengths; the first is the prompt of networks that give one answer per sequence.
fn sequences() -> Batch {
    let (ids, mut at) = (ids("sequences"), 0);
    let mut batch = Batch::default();
    for length in self::ids("lengths") {
        batch.push(&ids[at..at + length as usize]);
        at += length as usize;
    }
    batch
}

/// Logits of the prompt in one pass, on an instruction set.
fn logits(checkpoint: &Checkpoint, isa: Option<Isa>) -> Vec<f32> {
    answers(checkpoint, isa, &Batch::new([&prompt()[..]]))
}

/// What a network answers to a batch, on an instruction set.
fn answers(checkpoint: &Checkpoint, isa: Option<Isa>, batch: &Batch) -> Vec<f32> {
    let model = checkpoint.model_as(recipe::find("f32").unwrap(), &Options::new()).unwrap_or_else(|e| panic!("{e}"));
    let cpu = Cpu::new(isa.map(|isa| isa.name()), Some(2)).unwrap();
    CpuExec::new(cpu).forward(&model, batch).unwrap().to_vec()
}

#[test]
fn logits_are_those_of_transformers() {
    let (expected, prompt) = (expected(), prompt());
    for case in cases() {
        let name = case["name"].as_str().unwrap();
        let home = home(&case);
        home.write();
        let checkpoint = Checkpoint::open(home.path()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let want = expected.floats(name).unwrap();
        if checkpoint.model_config().config.output() != OutputKind::Tokens {
            one_answer_per_sequence(name, &checkpoint, &expected);
            continue;
        }
        for isa in Isa::available() {
            let found = distance(&logits(&checkpoint, Some(isa)), &want);
            assert!(found < TOLERANCE, "{name} on {}: {found}", isa.name());
        }
        let model = Arc::new(checkpoint.model_as(recipe::find("f32").unwrap(), &Options::new()).unwrap());
        let mut session = Session::new(model, Cpu::new(None, Some(2)).unwrap(), prompt.len());
        let decoded: Vec<f32> = prompt.iter().flat_map(|t| session.feed(&[*t]).unwrap().to_vec()).collect();
        assert!(distance(&decoded, &want) < TOLERANCE, "{name}, decoded: {}", distance(&decoded, &want));
    }
}

/// A sequence alone and among others, which transformers pads.
fn one_answer_per_sequence(name: &str, checkpoint: &Checkpoint, expected: &Tensors) {
    let (alone, together) = (expected.floats(name).unwrap(), expected.floats(&format!("{name}.batch")).unwrap());
    let sequences = sequences();
    let first = Batch::new([&sequences.tokens[..sequences.cu_seqlens[1]]]);
    for isa in Isa::available() {
        let found = distance(&answers(checkpoint, Some(isa), &first), &alone);
        assert!(found < TOLERANCE, "{name} on {}: {found}", isa.name());
        let found = distance(&answers(checkpoint, Some(isa), &sequences), &together);
        assert!(found < TOLERANCE, "{name}, several sequences, on {}: {found}", isa.name());
    }
    let labels = &checkpoint.model_config().labels;
    assert_eq!(checkpoint.model_config().config.classes().unwrap_or(0), labels.len(), "{name}");
    assert!(labels.is_empty() || labels.iter().map(String::as_str).eq(["no", "perhaps", "yes"]), "{labels:?}");
}

#[test]
fn every_family_has_vectors() {
    let cases = cases();
    for family in FAMILIES {
        assert!(cases.iter().any(|case| case["config"]["model_type"] == family.model_type), "{}", family.model_type);
    }
}

/// Each of the keys that a case sets counts: without it the logits are others.
#[test]
fn keys_count() {
    let expected = expected();
    let cases = [
        ("linear", "rope_scaling"),
        ("linear_new", "rope_parameters"),
        ("dynamic", "rope_scaling"),
        ("yarn_outer_original", "original_max_position_embeddings"),
        ("llama3", "rope_scaling"),
        ("longrope_long", "max_position_embeddings"),
        ("tied", "tie_word_embeddings"),
        ("mistral_window", "sliding_window"),
        ("qwen2_window", "use_sliding_window"),
        ("qwen2_layer_types", "layer_types"),
        ("gelu", "hidden_act"),
        ("qwen3_tied", "tie_word_embeddings"),
        ("qwen3_bias", "attention_bias"),
    ];
    for (name, key) in cases {
        let mut home = case(name);
        home.config[key] = Value::Null;
        home.write();
        let found = match Checkpoint::open(home.path()) {
            Ok(checkpoint) => distance(&logits(&checkpoint, None), &expected.floats(name).unwrap()),
            Err(_) => 1.0,
        };
        assert!(found > 10.0 * TOLERANCE, "{name} without {key}: {found}");
    }
}

#[test]
fn prefixes_are_those_of_the_body() {
    let want = expected().floats("yarn").unwrap();
    type Renaming = (&'static str, fn(&str) -> String);
    let renamings: [Renaming; 5] = [
        ("none", |name| name.trim_start_matches("model.").into()),
        ("language model", |name| format!("language_model.{name}")),
        ("text model", |name| match name.strip_prefix("model.") {
            Some(rest) => format!("model.language_model.{rest}"),
            None => name.into(),
        }),
        ("adapter", |name| format!("base_model.model.{name}")),
        ("wrapped body", |name| if name.starts_with("model.") { format!("module.{name}") } else { name.into() }),
    ];
    for (what, rename) in renamings {
        let mut home = case("yarn");
        home.tensors = home.tensors.into_iter().map(|(name, tensor)| (rename(&name), tensor)).collect();
        home.write();
        let found =
            distance(&logits(&Checkpoint::open(home.path()).unwrap_or_else(|e| panic!("{what}: {e}")), None), &want);
        assert!(found < TOLERANCE, "{what}: {found}");
    }
    let mut home = case("yarn");
    let norm = home.tensors["model.norm.weight"].clone();
    home.tensors.insert("norm.weight".into(), norm);
    home.write();
    let error = Checkpoint::open(home.path()).err().expect("one tensor too many");
    common::refusal("two prefixes", &error, &["`norm.weight`", "does not ask for it"]);
}

fn f64s(tensors: &mut Stored, change: impl Fn(f64) -> f64) {
    for (dtype, _, bytes) in tensors.values_mut() {
        assert_eq!(*dtype, Dtype::BF16);
        let wide = |b: &[u8]| f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16) as f64;
        *bytes = bytes.chunks_exact(2).flat_map(|b| change(wide(b)).to_le_bytes()).collect();
        *dtype = Dtype::F64;
    }
}

#[test]
fn weights_of_64_bits_are_read() {
    let mut home = case("yarn");
    f64s(&mut home.tensors, |v| v);
    home.write();
    let checkpoint = Checkpoint::open(home.path()).unwrap();
    assert!(checkpoint.notices().iter().any(|n| n.contains("F64")), "{:?}", checkpoint.notices());
    assert!(distance(&logits(&checkpoint, None), &expected().floats("yarn").unwrap()) < TOLERANCE);
    let mut home = case("yarn");
    f64s(&mut home.tensors, |v| v * 1e300);
    home.write();
    let checkpoint = Checkpoint::open(home.path()).unwrap();
    let error = checkpoint.model_as(recipe::find("f32").unwrap(), &Options::new()).err().expect("too large");
    common::refusal("too large", &error, &["beyond the range of F32"]);
}

#[test]
fn settings_that_do_nothing_are_as_absent() {
    let want = expected().floats("whole_heads").unwrap();
    let idle = [
        ("rope_scaling", json!({"rope_type": "linear", "factor": 1.0})),
        ("rope_scaling", json!({"type": "default"})),
        ("rope_scaling", json!({"rope_type": "default", "type": "default", "rope_theta": 1e4})),
        ("rope_scaling", json!({"type": "yarn", "factor": 1.0})),
        ("rope_scaling", json!({"rope_type": "longrope", "short_factor": [1, 1, 1, 1], "long_factor": [1, 1, 1, 1]})),
        ("rope_scaling", json!({"rope_type": "dynamic", "factor": 4.0})),
        ("rope_parameters", json!({"full_attention": {"rope_type": "default", "rope_theta": 1e4}})),
        ("rope_parameters", json!({})),
        ("layer_types", json!(["full_attention", "full_attention"])),
        ("layer_types", json!([])),
        ("sliding_window", json!(256)),
        ("use_sliding_window", json!(false)),
        ("max_window_layers", json!(1)),
        ("embedding_multiplier", json!(1.0)),
        ("logit_scale", json!(1)),
        ("residual_multiplier", json!(1.0)),
        ("attn_logit_softcapping", json!(0.0)),
        ("final_logit_softcapping", Value::Null),
        ("clip_qkv", Value::Null),
        ("qk_layernorm", json!(false)),
        ("num_experts", json!(0)),
        ("no_rope_layers", json!([1, 1])),
        ("no_rope_layers", json!([])),
        ("attention_multiplier", Value::Null),
        ("quantization_config", Value::Null),
        ("initializer_range", json!("NaN")),
        ("pretraining_tp", json!(2)),
        ("torch_dtype", json!("float64")),
    ];
    for (key, value) in idle {
        let mut home = case("whole_heads");
        home.config[key] = value.clone();
        home.write();
        let checkpoint = Checkpoint::open(home.path()).unwrap_or_else(|e| panic!("{key} {value}: {e}"));
        assert!(checkpoint.notices().is_empty(), "{key} {value}: {:?}", checkpoint.notices());
        assert!(distance(&logits(&checkpoint, None), &want) < TOLERANCE, "{key} {value}");
    }
}

#[test]
fn numbers_of_python_are_read_where_they_do_not_count() {
    let home = case("whole_heads");
    home.write();
    let path = home.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen('{', r#"{"initializer_range": NaN, "z": [-Infinity, "NaN"], "#, 1)).unwrap();
    let checkpoint = Checkpoint::open(home.path()).unwrap();
    assert!(distance(&logits(&checkpoint, None), &expected().floats("whole_heads").unwrap()) < TOLERANCE);
    for (key, number) in [("rms_norm_eps", "NaN"), ("rope_theta", "Infinity"), ("head_dim", "-Infinity")] {
        std::fs::write(&path, text.replacen('{', &format!(r#"{{"{key}": {number}, "#), 1)).unwrap();
        let mut value: Value = serde_json::from_str(&text).unwrap();
        value.as_object_mut().unwrap().remove(key);
        std::fs::write(&path, value.to_string().replacen('{', &format!(r#"{{"{key}": {number}, "#), 1)).unwrap();
        let error = Checkpoint::open(home.path()).err().expect(key);
        common::refusal(key, &error, &[&format!("`{key}` is {number}; it must be finite")]);
    }
}

/// Every key that changes logits in some network of transformers is obeyed or refused by name, with its value.
#[test]
fn keys_with_an_effect_are_not_passed_over() {
    let refused = [
        ("attention_multiplier", json!(0.015625), "0.015625"),
        ("logit_scale", json!(0.0625), "0.0625"),
        ("logits_scaling", json!(8), "8"),
        ("residual_multiplier", json!(0.22), "0.22"),
        ("embedding_multiplier", json!(12.0), "12.0"),
        ("attn_logit_softcapping", json!(50.0), "50.0"),
        ("final_logit_softcapping", json!(30.0), "30.0"),
        ("clip_qkv", json!(8), "8"),
        ("qk_layernorm", json!(true), "true"),
        ("use_qk_norm", json!(true), "true"),
        ("no_rope_layers", json!([1, 0]), "[1,0]"),
        ("num_experts", json!(8), "8"),
        ("num_local_experts", json!(8), "8"),
        ("layer_types", json!(["sliding_attention", "full_attention"]), "layer_types"),
        ("sliding_window", json!(4), "4"),
        ("query_pre_attn_scalar", json!(144), "144"),
        ("use_bidirectional_attention", json!(true), "true"),
        ("is_causal", json!(false), "false"),
        ("scale_emb", json!(12), "12"),
        ("scale_depth", json!(1.4), "1.4"),
        ("position_embedding_type", json!("alibi"), "alibi"),
        ("hidden_activation", json!("gelu_pytorch_tanh"), "gelu_pytorch_tanh"),
        ("partial_rotary_factor", json!(0.5), "0.5"),
        ("weight_bits", json!(1), "1"),
        ("quantization", json!({"bits": 4}), "bits"),
        ("rms_norm_eps", json!("NaN"), "NaN"),
    ];
    for (key, value, shown) in refused {
        let mut home = case("whole_heads");
        home.config[key] = value.clone();
        home.write();
        let error = Checkpoint::open(home.path()).err().unwrap_or_else(|| panic!("{key} is passed over"));
        common::refusal(key, &error, &[&format!("`{key}`"), shown]);
    }
    let mut home = case("whole_heads");
    home.config["a_key_of_tomorrow"] = json!(3);
    home.config["dtype"] = json!("bfloat16");
    home.config["torch_dtype"] = json!("float16");
    home.write();
    let notices = Checkpoint::open(home.path()).unwrap().notices().join(" ");
    assert!(notices.contains("`a_key_of_tomorrow`") && notices.contains("bfloat16"), "{notices}");
}

/// The keys that transformers' own configurations of a family have are all known.
#[test]
fn keys_of_transformers_are_known() {
    let keys: Value = serde_json::from_slice(&std::fs::read(golden("keys.json")).unwrap()).unwrap();
    for family in FAMILIES {
        let defaults = keys[family.model_type].as_object().unwrap_or_else(|| panic!("{}", family.model_type));
        let named = cases().into_iter().find(|case| case["config"]["model_type"] == family.model_type).unwrap();
        let mut home = home(&named);
        for (key, value) in defaults {
            if home.config.get(key).is_none() && key != "head_dim" {
                home.config[key] = value.clone();
            }
        }
        for key in ["layer_types", "rope_theta"] {
            home.config[key] = Value::Null;
        }
        home.write();
        let opened = Checkpoint::open(home.path()).unwrap_or_else(|e| panic!("{}: {e}", family.model_type));
        let printed = opened.notices().iter().filter(|text| !text.contains("`quantization_config` is missing"));
        assert_eq!(printed.count(), 0, "{}: {:?}", family.model_type, opened.notices());
    }
    // No key of a causal network of transformers is passed over without a word.
    let neutral: Vec<&str> = keys["neutral"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect();
    for key in keys["all"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()) {
        let mut home = case("whole_heads");
        // Settings of windows and of a scaling that are not there.
        let idle = ["max_window_layers", "original_max_position_embeddings"].contains(&key);
        if idle || neutral.contains(&key) || home.config.get(key).is_some() {
            continue;
        }
        home.config[key] = json!(3);
        home.write();
        let printed = match Checkpoint::open(home.path()) {
            Ok(checkpoint) => checkpoint.notices().join(" "),
            Err(error) => error.to_string(),
        };
        assert!(printed.contains(&format!("`{key}`")), "{key} is passed over: {printed}");
    }
}

#[test]
fn spellings_that_contradict_each_other_are_refused() {
    let scaled = |factor: f64| json!({"rope_type": "linear", "factor": factor});
    let cases = [
        (json!({"rope_theta": 1e4, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}), "500000", "10000"),
        (
            json!({"rope_theta": null, "rope_scaling": scaled(4.0),
                "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}),
            "500000",
            "10000",
        ),
        (json!({"rope_scaling": scaled(2.0), "rope_parameters": scaled(4.0)}), "rope_scaling", "rope_parameters"),
        (
            json!({"rope_scaling": {"rope_type": "default"}, "rope_parameters": scaled(4.0)}),
            "rope_scaling",
            "rope_parameters",
        ),
        (json!({"rope_scaling": {"rope_type": "linear", "type": "dynamic", "factor": 2.0}}), "linear", "dynamic"),
        (
            json!({"original_max_position_embeddings": 64,
                "rope_scaling": {"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32}}),
            "64",
            "32",
        ),
        (
            json!({"rope_parameters": {"full_attention": {"rope_theta": 1e4}, "sliding_attention": {"rope_theta": 1e6}}}),
            "full_attention",
            "sliding_attention",
        ),
    ];
    for (keys, one, other) in cases {
        let mut home = case("whole_heads");
        for (key, value) in keys.as_object().unwrap() {
            home.config[key] = value.clone();
        }
        home.write();
        let error = Checkpoint::open(home.path()).err().unwrap_or_else(|| panic!("{keys} is accepted"));
        common::refusal(&keys.to_string(), &error, &[one, other]);
    }
}

#[test]
fn heads_are_tied_by_what_is_said_and_stored() {
    let open = |change: &dyn Fn(&mut Home)| {
        let mut home = case("tied_though_head");
        change(&mut home);
        home.write();
        let opened = Checkpoint::open(home.path());
        (home, opened)
    };
    let (_home, opened) = open(&|_| {});
    let notices = opened.unwrap().notices().join(" ");
    assert!(notices.contains("`tie_word_embeddings` is true, but another output matrix"), "{notices}");
    let (_home, opened) = open(&|home| {
        let table = home.tensors["model.embed_tokens.weight"].clone();
        home.tensors.insert("lm_head.weight".into(), table);
    });
    let checkpoint = opened.unwrap();
    assert!(checkpoint.model_config().config.is_tied() && checkpoint.notices().is_empty());
    for value in [json!(false), Value::Null] {
        let (_home, opened) = open(&|home| {
            home.config["tie_word_embeddings"] = value.clone();
            home.tensors.remove("lm_head.weight").unwrap();
        });
        let error = opened.err().expect("no head");
        let words = ["`tie_word_embeddings` is", "`lm_head.weight`", "set it to true"];
        common::refusal("no head", &error, &words);
    }
}

#[test]
fn biases_that_are_not_asked_for_are_named() {
    for (tensor, key) in [("self_attn.q_proj", "attention_bias"), ("mlp.up_proj", "mlp_bias")] {
        let mut home = case("whole_heads");
        let bias = (Dtype::F32, vec![32], vec![0; 128]);
        home.tensors.insert(format!("model.layers.0.{tensor}.bias"), bias);
        home.write();
        let error = Checkpoint::open(home.path()).err().expect("a bias too many");
        common::refusal(tensor, &error, &[&format!("{tensor}.bias"), &format!("set `{key}` to true")]);
    }
    let mut home = case("bias");
    home.tensors.remove("model.layers.1.mlp.down_proj.bias").unwrap();
    home.write();
    let error = Checkpoint::open(home.path()).err().expect("a bias too few");
    common::refusal("missing", &error, &["model.layers.1.mlp.down_proj.bias", "is missing"]);
}

#[test]
fn what_is_made_ternary_unasked_is_said() {
    let notices = |change: &dyn Fn(&mut Home)| {
        let mut home = case("bitnet_bias");
        change(&mut home);
        home.write();
        Checkpoint::open(home.path()).unwrap_or_else(|e| panic!("{e}")).notices().join(" ")
    };
    for empty in [Value::Null, json!({})] {
        let printed = notices(&|home| home.config["quantization_config"] = empty.clone());
        assert!(printed.contains("`quantization_config` is missing") && printed.contains("--recipe f32"), "{printed}");
    }
    let printed = notices(&|home| home.config["quantization_config"] = json!({"quant_method": "bitnet"}));
    assert_eq!(printed, "");
}

#[test]
fn networks_of_other_tasks_are_named() {
    let mut home = case("whole_heads");
    let head = home.tensors.remove("lm_head.weight").unwrap();
    home.tensors.insert("score.weight".into(), head);
    home.config["architectures"] = json!(["LlamaForSequenceClassification"]);
    home.write();
    let error = Checkpoint::open(home.path()).err().expect("32 classes of 2");
    common::refusal("a classifier", &error, &["`score.weight`", "asks for [2, 32]"]);
    home.config["problem_type"] = json!("multi_label_classification");
    home.write();
    let error = Checkpoint::open(home.path()).err().expect("several classes per text");
    common::refusal("a classifier", &error, &["`problem_type` is multi_label_classification"]);
    let mut home = case("bitnet_bias");
    home.tensors.remove("model.layers.0.mlp.ffn_sub_norm.weight").unwrap();
    home.write();
    let error = Checkpoint::open(home.path()).err().expect("a norm too few");
    common::refusal("a norm", &error, &["model.layers.0.mlp.ffn_sub_norm.weight", "is missing"]);
}
