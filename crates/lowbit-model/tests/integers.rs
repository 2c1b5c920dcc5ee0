//! Checkpoints of the Hub whose matrices are integers with scales of groups (GPTQ, AWQ, compressed-tensors);
//! `tools/golden/integers.py` makes the vectors.

mod common;

use common::{Home, Stored, cpu, distance, refusal, stored};
use lowbit_model::checkpoint::Options;
use lowbit_model::container::Dtype;
use lowbit_model::exec::Batch;
use lowbit_model::{Checkpoint, CpuExec, recipe};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Largest difference of a logit, relative to the largest magnitude.
const TOLERANCE: f32 = 1e-5;

fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/integers").join(file)
}

/// Type, shape and bytes.
type Tensor = (Dtype, Vec<usize>, Vec<u8>);

/// A directory, its prompt and logits, and the SHA-256 of the values of its matrices.
struct Case {
    home: Home,
    prompt: Vec<u32>,
    logits: Vec<f32>,
    sums: serde_json::Map<String, Value>,
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap()))
}

fn case(name: &str) -> Case {
    let cases: Value = serde_json::from_slice(&std::fs::read(golden("cases.json")).unwrap()).unwrap();
    let all = stored(&golden("tensors.safetensors"));
    let of_case = |(key, tensor): (&String, &Tensor)| {
        Some((key.strip_prefix(name)?.strip_prefix('/')?.to_string(), tensor.clone()))
    };
    let mut tensors: Stored = all.iter().filter_map(of_case).collect();
    let (_, _, prompt) = tensors.remove("prompt").unwrap();
    let (_, _, logits) = tensors.remove("logits").unwrap();
    let home = Home::of(cases[name]["config"].clone(), tensors);
    home.write();
    Case {
        home,
        prompt: words(&prompt).collect(),
        logits: words(&logits).map(f32::from_bits).collect(),
        sums: cases[name]["sha256"].as_object().unwrap().clone(),
    }
}

fn names() -> Vec<String> {
    let cases: Value = serde_json::from_slice(&std::fs::read(golden("cases.json")).unwrap()).unwrap();
    cases.as_object().unwrap().keys().cloned().collect()
}

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path).unwrap_or_else(|e| panic!("{e}"))
}

fn sum(values: &[f32]) -> String {
    lowbit_base::hex(Sha256::digest(values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()))
}

#[test]
fn values_are_those_of_the_definition() {
    for name in names() {
        let case = case(&name);
        let checkpoint = open(case.home.path());
        let mut found = 0;
        for spec in checkpoint.parameters().params() {
            let Some(want) = case.sums.get(&spec.name) else { continue };
            assert_eq!(sum(&checkpoint.master(spec).unwrap()), want.as_str().unwrap(), "{name}, {}", spec.name);
            assert!(checkpoint.has(&spec.name));
            found += 1;
        }
        assert_eq!((found, case.sums.len()), (7, 7), "{name}");
    }
}

#[test]
fn logits_are_those_of_transformers() {
    for name in names() {
        let case = case(&name);
        let model = open(case.home.path()).model_as(recipe::find("f32").unwrap(), &Options::new()).unwrap();
        let logits = CpuExec::new(cpu()).forward(&model, &Batch::new([&case.prompt[..]])).unwrap().to_vec();
        let off = distance(&logits, &case.logits);
        assert!(off < TOLERANCE, "{name}: {off}");
    }
}

#[test]
fn formats_hold_codes_and_scales_as_they_are() {
    for name in names() {
        let case = case(&name);
        let checkpoint = open(case.home.path());
        let (body, notice) = match name.as_str() {
            "gptq_act_order" => (
                "f32",
                Some("7 tensors are kept as floats, 4 bytes per weight: columns are in the order of activations"),
            ),
            "gptq_8" | "compressed_8" => ("q8_0", None),
            "gptq_asymmetric" | "gptq_v2" | "awq" | "compressed_asymmetric" => ("q5_0", None),
            _ => ("q4_0", None),
        };
        assert_eq!(checkpoint.recipe().body, body, "{name}");
        let notices = checkpoint.notices().join("\n");
        assert_eq!(notices.contains("kept as floats"), notice.is_some(), "{name}: {notices}");
        assert!(notice.is_none_or(|notice| notices.contains(notice)), "{name}: {notices}");
        for spec in checkpoint.parameters().params().iter().filter(|spec| case.sums.contains_key(&spec.name)) {
            let packed = checkpoint.packed(spec).unwrap();
            assert_eq!(packed.format().name(), body, "{name}, {}", spec.name);
            assert_eq!(sum(&packed.dequantize()), case.sums[&spec.name].as_str().unwrap(), "{name}, {}", spec.name);
        }
        let exact = checkpoint.under(Some(recipe::find("stored+act=f32").unwrap())).model().unwrap();
        let logits = CpuExec::new(cpu()).forward(&exact, &Batch::new([&case.prompt[..]])).unwrap().to_vec();
        assert!(distance(&logits, &case.logits) < TOLERANCE, "{name}: {}", distance(&logits, &case.logits));
    }
}

/// Groups of fewer columns than those of the formats, and scales that f16 does not hold.
#[test]
fn what_no_format_holds_is_kept_as_floats() {
    let mut case = case("compressed");
    for (name, (dtype, _, bytes)) in &mut case.home.tensors {
        if name.ends_with("up_proj.weight_scale") {
            assert_eq!(*dtype, Dtype::BF16);
            bytes[..2].copy_from_slice(&[1, 0x20]);
        }
    }
    case.home.write();
    let checkpoint = open(case.home.path());
    let notices = checkpoint.notices().join("\n");
    assert!(notices.contains("`model.layers.0.mlp.up_proj.weight` is kept as floats"), "{notices}");
    assert!(notices.contains("scales leave the range of F16"), "{notices}");
    assert_eq!(checkpoint.recipe().name, "q4_0+embed=f32+head=f32+layers.0.up_proj=f32");
    let spec = checkpoint.parameters().params().iter().find(|spec| spec.name.contains("up_proj")).unwrap();
    assert_eq!(checkpoint.packed(spec).unwrap().dequantize(), checkpoint.master(spec).unwrap());
}

#[test]
fn older_programs_tell_in_a_file_of_their_own() {
    for (name, file, [bits, group]) in [
        ("gptq_asymmetric", "quantize_config.json", ["bits", "group_size"]),
        ("awq", "quant_config.json", ["w_bit", "q_group_size"]),
    ] {
        let mut case = case(name);
        case.home.config.as_object_mut().unwrap().remove("quantization_config");
        case.home.write();
        std::fs::write(case.home.path().join(file), json!({bits: 4, group: 32}).to_string()).unwrap();
        let checkpoint = open(case.home.path());
        let spec = checkpoint.parameters().params().iter().find(|spec| case.sums.contains_key(&spec.name)).unwrap();
        assert_eq!(sum(&checkpoint.master(spec).unwrap()), case.sums[&spec.name].as_str().unwrap(), "{name}");
        std::fs::write(case.home.path().join(file), json!({bits: 5, group: 32}).to_string()).unwrap();
        refusal(name, &Checkpoint::open(case.home.path()).err().unwrap(), &[file, "width of bits"]);
    }
}

/// Old programs store a bias of zeros beside every packed matrix.
#[test]
fn biases_of_zeros_are_none() {
    let mut case = case("gptq");
    let bias = "model.layers.0.self_attn.q_proj.bias".to_string();
    case.home.tensors.insert(bias.clone(), (Dtype::F16, vec![64], vec![0; 128]));
    case.home.write();
    open(case.home.path());
    case.home.tensors.get_mut(&bias).unwrap().2[1] = 0x3c;
    case.home.write();
    refusal("a bias", &Checkpoint::open(case.home.path()).err().unwrap(), &["q_proj.bias", "attention_bias"]);
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let refused = |name: &str, key: &str, value: Value, words: &[&str]| {
        let mut case = case(name);
        case.home.config["quantization_config"][key] = value;
        case.home.write();
        refusal(&format!("{name}, {key}"), &Checkpoint::open(case.home.path()).err().expect("refused"), words);
    };
    refused("gptq", "bits", json!(5), &["config.json", "width of bits", "2, 3, 4, 8"]);
    refused("gptq", "bits", Value::Null, &["lacks `bits`"]);
    refused("gptq", "bits", json!("4"), &["bits"]);
    refused("gptq", "group_size", json!(0), &["`group_size` 0"]);
    refused("gptq", "group_size", json!(64), &["q_proj.scales` is F16 [2, 64]", "[1, 64]", "groups of 64"]);
    refused("gptq", "bits", json!(8), &["qweight", "8 bits"]);
    refused("gptq", "checkpoint_format", json!("marlin"), &["`checkpoint_format` `marlin`", "gptq_v2"]);
    refused("gptq", "is_marlin_format", json!(true), &["is_marlin_format"]);
    refused("gptq", "pack_dtype", json!("int64"), &["pack_dtype", "int32"]);
    refused("gptq", "quant_method", json!("hqq"), &["`quant_method` `hqq`", "gptq", "awq", "unquantized"]);
    refused("awq", "version", json!("gemv"), &["`version` `gemv`", "gemm"]);
    refused("awq", "bits", json!(8), &["width of bits"]);
    refused("compressed", "format", json!("int-quantized"), &["`format` `int-quantized`", "pack-quantized"]);
    refused("compressed", "kv_cache_scheme", json!({"num_bits": 8}), &["kv_cache_scheme"]);
    refused("compressed", "transform_config", json!({"config_groups": {"R1": {}}}), &["transform_config"]);
    refused("compressed", "config_groups", json!({}), &["config_groups"]);
    let group = |key: &str, value: Value, words: &[&str]| {
        let mut group = case("compressed").home.config["quantization_config"]["config_groups"]["group_0"].clone();
        match key {
            "input_activations" => group[key] = value,
            _ => group["weights"][key] = value,
        }
        refused("compressed", "config_groups", json!({"group_0": group}), words);
    };
    group("type", json!("float"), &["`type` `float`"]);
    group("strategy", json!("tensor"), &["`strategy` `tensor`"]);
    group("num_bits", json!(3), &["width of bits"]);
    group("input_activations", json!({"num_bits": 8}), &["input_activations"]);
    group("symmetric", json!(false), &["weight_zero_point", "missing"]);
}

#[test]
fn damage_is_named_by_tensor() {
    let damaged = |name: &str, tensor: &str, damage: &dyn Fn(&mut Tensor), words: &[&str]| {
        let mut case = case(name);
        damage(case.home.tensors.get_mut(&format!("model.layers.0.{tensor}")).expect(tensor));
        case.home.write();
        let error = Checkpoint::open(case.home.path()).and_then(|checkpoint| {
            let specs = checkpoint.parameters().params();
            specs.iter().try_for_each(|spec| checkpoint.master(spec).map(|_| ()))
        });
        refusal(tensor, &error.expect_err("damaged"), words);
    };
    damaged("gptq", "mlp.up_proj.g_idx", &|t| t.2[0] = 9, &["up_proj.g_idx", "group 9 at index 0", "there are 2"]);
    damaged("gptq", "mlp.up_proj.scales", &|t| t.2[1] = 0x7e, &["up_proj.scales", "NaN"]);
    damaged("gptq", "mlp.up_proj.qzeros", &|t| t.1.swap(0, 1), &["up_proj.qzeros", "I32"]);
    damaged("gptq", "mlp.up_proj.qweight", &|t| t.0 = Dtype::F32, &["up_proj.qweight` is F32", "I32"]);
    damaged(
        "compressed",
        "mlp.up_proj.weight_shape",
        &|t| t.2[0] = 1,
        &["up_proj.weight_shape", "[1, 64]", "[96, 64]"],
    );
    let mut case = case("awq");
    case.home.tensors.remove("model.layers.0.mlp.up_proj.scales");
    case.home.write();
    refusal("scales", &Checkpoint::open(case.home.path()).err().unwrap(), &["up_proj.scales", "missing"]);
}
