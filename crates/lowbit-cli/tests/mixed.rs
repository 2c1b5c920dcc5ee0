//! `quantize --target-bits` and `--target-size` as a user meets them: the mix fits, is stored and read back; and what is refused.

mod common;

use common::{good, lowbit, refused};
use lowbit_model::checkpoint::save_masters;
use lowbit_model::parameter_list::ParameterList;
use lowbit_model::source::Role;
use lowbit_model::{Config, ModelConfig, Tokenizer};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Masters of four layers, the later the more spread.
fn masters(directory: &Path, head: &str) {
    let config: Config = serde_json::from_str(&format!(
        r#"{{"architecture": "decoder", "vocab_size": 258, "hidden_size": 64, "num_hidden_layers": 4,
            "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 16, "intermediate_size": 128,
            "hidden_act": "silu", "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "sub_norm": false, "causal": true,
            "head": {head}}}"#
    ))
    .unwrap();
    let parameters = ParameterList::new(&config).unwrap();
    let mut random = lowbit_base::SplitMix64::new(5);
    let mut noise = || (random.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
    let spread = |layer: usize| 0.05 * (1 + 2 * layer) as f32;
    let values: Vec<Vec<f32>> = parameters
        .params()
        .iter()
        .map(|p| match p.role {
            Role::Norm => vec![1.0; p.cols],
            _ => (0..p.rows * p.cols).map(|_| noise() * p.place().map_or(0.3, |(layer, _)| spread(layer))).collect(),
        })
        .collect();
    let params = parameters.params().iter().zip(values.iter().map(Vec::as_slice));
    save_masters(directory, &ModelConfig::new(config, 64), Some(&Tokenizer::bytes()), params).unwrap();
}

const LM: &str = r#"{"lm": {"tied": false}}"#;
const CLASSES: &str = r#"{"classify": {"classes": 3, "pooling": "mean", "bias": true}}"#;

fn text(at: &Path) {
    let lines: String = (0..80).map(|i| format!("{i} bottles stand on the wall, and {} fall.\n", i % 7)).collect();
    fs::write(at.join("text.txt"), lines).unwrap();
}

fn json(at: &Path, args: &[&str]) -> Value {
    serde_json::from_str(&good(at, &[args, &["--json", "--threads", "2"]].concat())).unwrap()
}

/// Checks what a search wrote against what it said, and gives the number of recipes with layers among those it tried.
fn check(at: &Path, out: &str, found: &Value, bits: f64) -> usize {
    let records = found["records"].as_array().unwrap();
    let value = |record: &Value, name: &str| record["measures"][name]["value"].as_f64().unwrap();
    let taken = &records[0];
    assert!(value(taken, "bits_per_weight") <= bits, "{taken}");
    for other in &records[1..] {
        let fits = value(other, "bits_per_weight") <= bits;
        assert!(!fits || value(other, "kl_divergence") >= value(taken, "kl_divergence"), "{other}");
    }
    // The bits are those of what is stored.
    let stored = json(at, &["inspect", out]);
    assert_eq!(stored["recipe"], taken["recipe"]);
    let (mut weights, mut bytes) = (0.0, 0.0);
    for tensor in stored["tensors"].as_array().unwrap().iter().filter(|t| t["role"] == "body") {
        weights += tensor["rows"].as_f64().unwrap() * tensor["cols"].as_f64().unwrap();
        bytes += tensor["parts"].as_object().unwrap().values().filter_map(Value::as_f64).sum::<f64>();
    }
    assert!((8.0 * bytes / weights - value(taken, "bits_per_weight")).abs() < 1e-9, "{bytes} {weights}");
    records.iter().filter(|r| r["recipe"].as_str().unwrap().contains("layers.")).count()
}

#[test]
fn a_mix_fits_its_target_and_beats_the_uniform_recipes_that_fit() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    text(at);
    for head in [LM, CLASSES] {
        masters(&at.join("m"), head);
        let asked = ["quantize", "m", "--calibrate", "text.txt", "--calibration-tokens", "256", "-o", "out"];
        let found = json(at, &[&asked[..], &["--target-bits", "5.5"]].concat());
        assert_eq!(check(at, "out", &found, 5.5), 1, "a mix was tried: {found}");
        assert!(found["records"][0]["recipe"].as_str().unwrap().contains("layers."), "and is better: {found}");
        let again = json(at, &[&asked[..], &["--target-bits", "5.5"]].concat());
        assert_eq!(found["records"], again["records"], "the same every time");
        // The same search, and then the method.
        let learned = json(at, &[&asked[..], &["--target-bits", "5.5", "--method", "learned"]].concat());
        assert!(check(at, "out", &learned, 5.5) <= 1);
        assert!(learned["records"][0]["measures"]["output_error"]["value"].as_f64().unwrap() > 0.0, "{learned}");
        if head == LM {
            good(at, &["run", "out", "-p", "a", "-n", "2"]);
        }
    }
    let small = fs::metadata(at.join("out/model.safetensors")).unwrap().len();
    let target = format!("{}B", small + 4096);
    let sized =
        ["quantize", "m", "--calibrate", "text.txt", "--calibration-tokens", "64", "--per", "matrix", "-o", "sized"];
    let said = good(at, &[&sized[..], &["--target-size", &target, "--formats", "int8_channel,nf4,int2"]].concat());
    assert!(fs::metadata(at.join("sized/model.safetensors")).unwrap().len() <= small + 4096, "{said}");
    assert!(said.contains("  taken") && said.contains("KL, nats"), "{said}");
    assert!(said.contains("most sensitive, alone in `int2`: embed+head ("), "{said}");
    assert!(good(at, &["quantize", "m", "-o", "plain"]).starts_with("int8_weight_only: "));
    // Outlier features come from a text, too.
    let outliers = ["quantize", "m", "--recipe", "llm_int8", "--calibrate", "text.txt", "-o", "outliers"];
    assert!(good(at, &outliers).starts_with("llm_int8: "));
}

#[test]
fn what_cannot_be_mixed_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    text(at);
    masters(&at.join("m"), LM);
    let refused = |args: &[&str], code: i32, words: &[&str]| {
        refused(at, &[&["quantize", "m", "-o", "out"], args].concat(), code, words);
        assert!(!at.join("out").exists(), "{args:?}");
    };
    let text = ["--calibrate", "text.txt"];
    let with = |args: &[&'static str]| [&text[..], args].concat();
    refused(&with(&["--target-bits", "1.5"]), 2, &["the target is too small", "int2", "bits or more"]);
    refused(&with(&["--target-size", "9kB"]), 2, &["the target is too small", "kB or more"]);
    refused(
        &with(&["--target-bits", "4", "--formats", "int8_channel,int5"]),
        2,
        &["--formats", "int5", "did you mean"],
    );
    refused(&["--target-bits", "4", "--calibrate", "nowhere"], 2, &["nowhere"]);
    fs::write(at.join("empty.txt"), "").unwrap();
    refused(&["--target-bits", "4", "--calibrate", "empty.txt"], 3, &["empty.txt"]);
    fs::write(at.join("rows.csv"), "a,b\n1,2\n").unwrap();
    refused(&["--target-bits", "4", "--calibrate", "rows.csv"], 2, &["rows.csv", "is no suite"]);
    refused(&["--recipe", "nf4+layers.2-4=f32"], 2, &["`layers.2-4=f32`", "the model has 4 layers, 0 to 3"]);
    for wrong in [
        &["--target-bits", "4"][..],
        &with(&["--target-bits", "4", "--recipe", "int4"]),
        &with(&["--target-bits", "0"]),
        &with(&["--target-size", "60"]),
    ] {
        let status = lowbit().current_dir(at).args(["quantize", "m", "-o", "out"]).args(wrong).output().unwrap().status;
        assert_eq!(status.code(), Some(2), "{wrong:?}");
    }
}

/// SIGINT while layers are measured ends with 130, and nothing is written.
#[cfg(unix)]
#[test]
fn an_interrupt_ends_the_measurements() {
    use std::io::{BufRead, BufReader, Read};
    use std::process::{Command, Stdio};
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    fs::write(at.join("text.txt"), "So it goes, and goes.\n".repeat(20_000)).unwrap();
    masters(&at.join("m"), LM);
    let asked = ["quantize", "m", "-o", "out", "--calibrate", "text.txt", "--calibration-tokens", "100000"];
    let mut command = lowbit();
    command.current_dir(at).args(asked).args(["--target-bits", "5"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut remarks = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("measuring") {
        line.clear();
        assert!(remarks.read_line(&mut line).unwrap() > 0, "it says that it measures");
    }
    assert!(Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status().unwrap().success());
    let mut rest = String::new();
    remarks.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
    assert!(!at.join("out").exists(), "{rest}");
}

#[test]
fn codes_are_trained_after_rounding() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    text(at);
    for (head, recipe) in [(LM, "int2_g64+embed=int3_g64+head=int3_g64"), (CLASSES, "int2_g64")] {
        masters(&at.join("m"), head);
        let asked = ["quantize", "m", "--recipe", recipe, "--calibrate", "text.txt", "--calibration-tokens", "512"];
        let trained = ["--method", "trained", "--steps", "12", "--learning-rate", "0.03", "-o", "trained"];
        let said = good(at, &[&asked[..], &trained].concat());
        assert!(
            said.contains("trained: ") && said.contains("12 updates of ") && said.contains("held-out text"),
            "{said}"
        );
        good(at, &[&asked[..], &["--method", "learned", "-o", "learned"]].concat());
        let bytes = |directory: &str| fs::read(at.join(directory).join("model.safetensors")).unwrap();
        assert!(bytes("trained") != bytes("learned") && bytes("trained").len() == bytes("learned").len());
        let found = json(at, &[&asked[..], &trained].concat());
        assert!(found["records"][0]["measures"]["train_loss"]["value"].as_f64().unwrap() > 0.0, "{found}");
    }
}

#[test]
fn weights_are_rounded_by_what_is_read() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    text(at);
    for head in [LM, CLASSES] {
        masters(&at.join("m"), head);
        let asked = ["quantize", "m", "--recipe", "int2", "--calibrate", "text.txt", "--calibration-tokens", "512"];
        let mut errors = Vec::new();
        for method in ["rtn", "gptq", "awq", "awq+gptq"] {
            let found = json(at, &[&asked[..], &["--method", method, "-o", method]].concat());
            errors.push(found["records"][0]["measures"]["output_error"]["value"].as_f64().unwrap());
        }
        assert!(errors[1] < 0.8 * errors[0] && errors[3] < 0.8 * errors[2], "{errors:?}");
        let said = good(at, &[&asked[..], &["--save-imatrix", "seen.gguf", "-o", "gptq"]].concat());
        assert!(said.contains("gptq: ") && said.contains("by GPTQ, ") && said.contains("mean error"), "{said}");
        good(at, &["quantize", "m", "--recipe", "int2", "--imatrix", "seen.gguf", "-o", "imatrix"]);
        let bytes = |directory: &str| fs::read(at.join(directory).join("model.safetensors")).unwrap();
        good(at, &["quantize", "m", "--recipe", "int2", "-o", "plain"]);
        assert!(bytes("imatrix") != bytes("plain"), "importance changes scales");
    }
    let refused = |args: &[&str], code: i32, words: &[&str]| {
        let all = [&["quantize", "m", "--recipe", "int2", "-o", "out"], args].concat();
        common::refused(at, &all, code, words);
        assert!(!at.join("out").exists(), "{args:?}");
    };
    refused(&["--method", "gptq"], 2, &["--method gptq needs a text", "--calibrate FILE"]);
    refused(&["--method", "trained"], 2, &["--method trained needs a text"]);
    refused(&["--method", "trained", "--imatrix", "seen.gguf"], 2, &["an importance matrix is not enough"]);
    refused(&["--calibrate", "text.txt", "--steps", "3"], 2, &["--steps is for --method trained"]);
    for flag in ["--steps", "--learning-rate"] {
        refused(&["--calibrate", "text.txt", "--method", "gptq", flag, "1"], 2, &[flag, "trained, not gptq"]);
    }
    let rate = ["--calibrate", "text.txt", "--method", "trained", "--learning-rate", "2"];
    refused(&rate, 2, &["`learning_rate` is 2", "at most 1"]);
    refused(&["--method", "gptq", "--imatrix", "seen.gguf"], 2, &["an importance matrix is not enough"]);
    refused(&["--method", "gpt", "--calibrate", "text.txt"], 2, &[]);
    refused(&["--save-imatrix", "x.gguf"], 2, &[]);
    refused(&["--task", "ag_new"], 2, &["ag_new", "did you mean"]);
    refused(&["--imatrix", "text.txt"], 3, &["text.txt"]);
    refused(&["--imatrix", "nowhere.gguf"], 5, &["nowhere.gguf"]);
    common::refused(
        at,
        &["quantize", "m", "-o", "out", "--target-bits", "4", "--calibrate", "text.txt", "--save-imatrix", "x.gguf"],
        2,
        &["--save-imatrix needs --method", "--target-bits"],
    );
}
