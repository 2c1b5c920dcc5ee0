//! Damaged and hostile Hub directories: each is refused with one line that names file, field or tensor, and value.

mod common;

use common::{Home, Stored};
use lowbit_model::checkpoint::Options;
use lowbit_model::container::Dtype;
use lowbit_model::{Checkpoint, recipe};
use serde_json::{Value, json};
use std::path::Path;

const PACKED: &str = "model.layers.0.mlp.up_proj.weight";
const INDEX: &str = "model.safetensors.index.json";

/// The golden directory of a case, its configuration and tensors free to change.
fn home(case: &str) -> Home {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/hub").join(case);
    let config = serde_json::from_slice(&std::fs::read(golden.join("config.json")).unwrap()).unwrap();
    Home::of(config, common::stored(&golden.join("model.safetensors")))
}

/// Writes the tensors in two shards, with an index changed at will.
fn write_shards(home: &Home, change: impl Fn(&mut Value)) {
    std::fs::write(home.path().join("config.json"), home.config.to_string()).unwrap();
    let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let half = home.tensors.len() / 2;
    let parts: [Stored; 2] = [0, half].map(|at| {
        let count = if at == 0 { half } else { home.tensors.len() - half };
        home.tensors.iter().skip(at).take(count).map(|(k, v)| (k.clone(), v.clone())).collect()
    });
    let mut map = serde_json::Map::new();
    for (name, part) in names.iter().zip(&parts) {
        common::write_tensors(&home.path().join(name), part);
        map.extend(part.keys().map(|tensor| (tensor.clone(), json!(name))));
    }
    let mut index = json!({"weight_map": map});
    change(&mut index);
    std::fs::write(home.path().join(INDEX), index.to_string()).unwrap();
}

/// Opens and loads what was written, which is refused with these words.
fn assert_refused(home: &Home, what: &str, words: &[&str]) {
    let load = |c: Checkpoint| {
        c.model()?;
        c.model_as(recipe::find("f32")?, &Options::new())
    };
    let error = Checkpoint::open(home.path()).and_then(load).map(|_| ()).expect_err(what);
    assert!(error.path.is_some(), "{what}: {error}");
    common::refusal(what, &error, words);
}

fn bf16(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes()).collect()
}

#[test]
fn configurations_that_cannot_be_followed_name_the_field() {
    let cases: Vec<(&str, Value, Vec<&str>)> = vec![
        ("model_type", json!("lama"), vec!["`model_type` is `lama`", "did you mean `llama`", "bert, bitnet, "]),
        ("model_type", json!(7), vec!["`model_type`"]),
        ("model_type", Value::Null, vec!["`model_type` is missing", "supported: bert, bitnet"]),
        ("attention_bias", json!(true), vec!["q_proj.bias", "missing"]),
        ("mlp_bias", json!(true), vec!["gate_proj.bias", "missing"]),
        ("hidden_act", json!("swish7"), vec!["`hidden_act` is `swish7`", "silu"]),
        ("hidden_act", json!("\u{1b}[31m"), vec!["`hidden_act`"]),
        ("rope_scaling", json!({"type": "mrope"}), vec!["`rope_scaling` is of type `mrope`", "yarn, longrope, llama3"]),
        ("rope_scaling", json!({"type": "yarn"}), vec!["yarn", "no `factor`"]),
        ("rope_scaling", json!({"type": "linear"}), vec!["linear", "no `factor`"]),
        ("rope_scaling", json!({"type": "linear", "factor": -2}), vec!["`rope_scaling` holds -2"]),
        ("rope_scaling", json!({"type": "linear", "factor": "4"}), vec!["`rope_scaling.factor`"]),
        (
            "rope_scaling",
            json!({"type": "longrope", "short_factor": [1], "long_factor": [1, 2, 3, 4]}),
            vec!["1 numbers in `short_factor`", "pairs"],
        ),
        ("rope_scaling", json!({"partial_rotary_factor": 0.5}), vec!["`rope_scaling.partial_rotary_factor` is 0.5"]),
        ("rope_scaling", json!("linear"), vec!["`rope_scaling` is not an object"]),
        ("rope_scaling", json!({"rope_type": "llama3", "factor": 8.0}), vec!["no `low_freq_factor`"]),
        (
            "rope_parameters",
            json!({"rope_type": "llama3", "factor": 0.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192}),
            vec!["`rope_scaling` holds 0; it needs positive numbers"],
        ),
        ("rope_theta", json!(-1.0), vec!["`rope_theta` is -1"]),
        ("partial_rotary_factor", json!(0.5), vec!["`partial_rotary_factor` is 0.5"]),
        ("hidden_size", Value::Null, vec!["`hidden_size` is missing"]),
        ("hidden_size", json!(1u64 << 40), vec!["`hidden_size` is 1099511627776, more than"]),
        ("hidden_size", json!(-1), vec!["`hidden_size`", "-1"]),
        ("num_attention_heads", json!(0), vec!["`num_attention_heads` is 0"]),
        ("num_key_value_heads", json!(3), vec!["`num_key_value_heads` is 3"]),
        ("num_hidden_layers", json!(1u64 << 30), vec!["`num_hidden_layers` is 1073741824"]),
        ("head_dim", json!(7), vec!["`head_dim` is 7"]),
        ("vocab_size", json!(100), vec!["embed_tokens", "[61, 32]", "[100, 32]", "`vocab_size` = 100"]),
        ("num_hidden_layers", json!(3), vec!["model.layers.2.", "missing", "config.json asks"]),
        ("num_hidden_layers", json!(1), vec!["model.layers.1.", "does not ask"]),
        ("max_position_embeddings", json!(0), vec!["`max_position_embeddings` is 0"]),
        ("eos_token_id", json!("</s>"), vec!["`eos_token_id`"]),
        ("eos_token_id", json!([-1]), vec!["`eos_token_id`", "-1"]),
        ("quantization_config", json!({"quant_method": "hqq"}), vec!["`quant_method` `hqq`", "unquantized"]),
        ("quantization_config", json!(1), vec!["`quantization_config`"]),
        (
            "quantization_config",
            json!({"quant_method": "bitnet", "linear_class": "other"}),
            vec!["`linear_class` `other`", "autobitlinear"],
        ),
        ("quantization_config", json!({"quant_method": "bitnet", "use_rms_norm": true}), vec!["`use_rms_norm`"]),
        (
            "quantization_config",
            json!({"quant_method": "bitnet", "modules_to_not_convert": ["lm_head", "model.layers.0.mlp.up_proj"]}),
            vec!["`model.layers.0.mlp.up_proj`", "modules_to_not_convert"],
        ),
    ];
    let mut home = home("llama");
    let good = home.config.clone();
    for (field, value, words) in cases {
        home.config = good.clone();
        home.config[field] = value;
        home.write();
        assert_refused(&home, field, &words);
    }
}

#[test]
fn harmless_keys_are_accepted() {
    let mut home = home("llama");
    home.config["auto_map"] = json!({"AutoModel": "evil--repo.Model"});
    home.config["some_future_key"] = json!([1, 2]);
    home.config["rope_scaling"] = Value::Null;
    home.config["bos_token_id"] = Value::Null;
    home.write();
    let checkpoint = Checkpoint::open(home.path()).unwrap();
    assert_eq!((checkpoint.model_config().max_length, checkpoint.model_config().bos_token_id), (256, None));
    let notices = checkpoint.notices().join(" ");
    assert!(notices.contains("`auto_map`") && notices.contains("`some_future_key`"), "{notices}");
}

#[test]
fn packed_matrices_that_lie_are_refused() {
    let scale = format!("{PACKED}_scale");
    type Change = Box<dyn Fn(&mut Home, &str)>;
    let set = |name: &'static str, dtype, shape: &'static [usize], bytes: Vec<u8>| -> Change {
        Box::new(move |home, scale| {
            let name = if name == "scale" { scale } else { name };
            home.tensors.insert(name.into(), (dtype, shape.into(), bytes.clone()));
        })
    };
    let cases: Vec<(&str, Change, Vec<&str>)> = vec![
        ("rows", set(PACKED, Dtype::U8, &[11, 32], vec![0; 352]), vec![PACKED, "[11, 32]", "[48, 32]", "four rows"]),
        ("unpacked shape", set(PACKED, Dtype::U8, &[48, 32], vec![0; 1536]), vec![PACKED, "[48, 32]", "[48 / 4, 32]"]),
        (
            "code 3",
            set(PACKED, Dtype::U8, &[12, 32], [vec![0; 5], vec![0x30; 379]].concat()),
            vec![PACKED, "code 3 in byte 5", "0x30"],
        ),
        ("scale 0", set("scale", Dtype::BF16, &[1], bf16(&[0.0])), vec![&scale, "is 0", "positive"]),
        ("scale -1", set("scale", Dtype::BF16, &[1], bf16(&[-1.0])), vec![&scale, "is -1", "positive"]),
        ("scale NaN", set("scale", Dtype::BF16, &[1], bf16(&[f32::NAN])), vec![&scale, "NaN"]),
        ("two scales", set("scale", Dtype::BF16, &[2], bf16(&[1.0, 1.0])), vec![&scale, "2 elements"]),
        ("integer scale", set("scale", Dtype::I32, &[1], vec![1; 4]), vec![&scale, "I32"]),
        (
            "a packed table",
            set("model.embed_tokens.weight", Dtype::U8, &[16, 32], vec![0; 512]),
            vec!["model.embed_tokens.weight", "packed"],
        ),
        ("integers", set(PACKED, Dtype::I8, &[48, 32], vec![0; 1536]), vec![PACKED, "I8"]),
        (
            "not ternary",
            set(PACKED, Dtype::BF16, &[48, 32], bf16(&[1.0, 0.5].repeat(768))),
            vec![PACKED, "not ternary"],
        ),
        ("no scale", Box::new(|home, scale| drop(home.tensors.remove(scale))), vec![PACKED, &scale, "missing"]),
        (
            "no method",
            Box::new(|home, _| home.config["quantization_config"] = Value::Null),
            vec!["`quant_method` bitnet"],
        ),
    ];
    for class in ["bitnet_bitlinear", "bitnet_autobitlinear"] {
        for (what, change, words) in &cases {
            let mut home = home(class);
            change(&mut home, &scale);
            home.write();
            assert_refused(&home, what, words);
        }
    }
}

#[test]
fn shards_that_contradict_their_index_are_refused() {
    type Change = fn(&mut Value);
    let cases: Vec<(&str, Change, Vec<&str>)> = vec![
        ("path", |i| i["weight_map"]["x"] = json!("../../etc/passwd"), vec![INDEX, "`../../etc/passwd`"]),
        ("path of tensors", |i| i["weight_map"]["x"] = json!("../m.safetensors"), vec![INDEX, "`../m.safetensors`"]),
        ("absolute", |i| i["weight_map"]["x"] = json!("/etc/m.safetensors"), vec!["`/etc/m.safetensors`"]),
        ("backslash", |i| i["weight_map"]["x"] = json!("..\\m.safetensors"), vec!["m.safetensors`"]),
        ("pickle", |i| i["weight_map"]["x"] = json!("pytorch_model.bin"), vec!["`pytorch_model.bin`"]),
        ("escape", |i| i["weight_map"]["x"] = json!("\u{1b}[31m.safetensors"), vec![INDEX]),
        (
            "absent",
            |i| i["weight_map"]["x"] = json!("model-3.safetensors"),
            vec!["model-3.safetensors: is missing", INDEX],
        ),
        (
            "elsewhere",
            |i| i["weight_map"]["model.norm.weight"] = json!("model-00001-of-00002.safetensors"),
            vec!["`model.norm.weight`", "model-00001-of-00002", "lacks it"],
        ),
        ("nowhere", |i| i["weight_map"]["x"] = json!("model-00001-of-00002.safetensors"), vec!["`x`", "lacks it"]),
        ("empty", |i| i["weight_map"] = json!({}), vec![INDEX, "names 0 files"]),
        ("no map", |i| *i = json!({}), vec![INDEX, "weight_map"]),
        ("numbers", |i| i["weight_map"]["x"] = json!(1), vec![INDEX]),
    ];
    for (what, change, words) in cases {
        let home = home("llama");
        write_shards(&home, change);
        assert_refused(&home, what, &words);
    }
    let home = home("llama");
    write_shards(&home, |_| {});
    assert!(Checkpoint::open(home.path()).is_ok());
    let second = home.path().join("model-00002-of-00002.safetensors");
    let whole = std::fs::read(&second).unwrap();
    std::fs::write(&second, &whole[..whole.len() - 1]).unwrap();
    assert_refused(&home, "cut short", &["model-00002-of-00002.safetensors", "truncated"]);
    std::fs::copy(home.path().join("model-00001-of-00002.safetensors"), &second).unwrap();
    assert_refused(&home, "the same twice", &[INDEX, "both hold tensor"]);
    std::fs::remove_file(&second).unwrap();
    assert_refused(&home, "one missing", &["model-00002-of-00002.safetensors: is missing", INDEX]);
}

#[test]
fn small_files_that_are_damaged_are_named() {
    let home = home("llama");
    let cases: [(&str, &[u8]); 5] = [
        ("generation_config.json", b"[1]"),
        ("generation_config.json", br#"{"eos_token_id": "x"}"#),
        ("tokenizer_config.json", b"{"),
        ("chat_template.jinja", b"\xff"),
        ("chat_template.jinja", &[b' '; (1 << 20) + 1]),
    ];
    for (file, content) in cases {
        home.write();
        let path = home.path().join(file);
        std::fs::write(&path, content).unwrap();
        assert_refused(&home, file, &[file]);
        std::fs::remove_file(path).unwrap();
    }
    std::fs::remove_file(home.path().join("model.safetensors")).unwrap();
    assert_refused(&home, "no weights", &["no weights (model.safetensors)"]);
    std::fs::write(home.path().join("pytorch_model.bin"), b"\x80\x02").unwrap();
    assert_refused(&home, "a pickle", &["pytorch_model.bin", "convert it to safetensors"]);
    let absent = Checkpoint::open(Path::new("no-such-org/no-such-model")).err().expect("not in any cache");
    assert!(absent.to_string().contains("`lowbit pull no-such-org/no-such-model`"), "{absent}");
}

/// The line that opening a path is refused with.
fn line_of(what: &str, path: &Path, words: &[&str]) {
    let error = Checkpoint::open(path).and_then(|c| c.tokenizer().map(|_| ())).expect_err(what);
    let line = error.to_string();
    assert!(!line.contains(char::is_control) && line.len() < 400, "{what}: {line:?}");
    for word in words {
        assert!(line.contains(word), "{what}: `{word}` is not in: {line}");
    }
}

#[test]
fn places_without_a_model_are_told_apart() {
    type Make = fn(&Path);
    let cases: [(&str, Make, &[&str]); 19] = [
        ("empty", |_| {}, &["is empty"]),
        (
            "config alone",
            |at| put(at, "config.json", b"{\"model_type\": \"llama\"}"),
            &["no weights (model.safetensors)"],
        ),
        (
            "shards",
            |at| put(at, "model-00002-of-00003.safetensors", b""),
            &["00002-of-00003", "index.json", "fetch it"],
        ),
        ("a pickle in shards", |at| put(at, "pytorch_model-00001-of-00002.bin", b""), &["pickle", "convert"]),
        ("an adapter", |at| put(at, "adapter_model.safetensors", b""), &["adapter", "merge it"]),
        ("a pipeline", |at| put(at, "model_index.json", b"{}"), &["diffusers"]),
        ("mistral's own", |at| put(at, "consolidated.safetensors", b""), &["Mistral's own code"]),
        ("onnx", |at| put(at, "model.onnx", b""), &["`model.onnx`, an ONNX graph"]),
        ("keras", |at| put(at, "tf_model.h5", b""), &["`tf_model.h5`", "Keras"]),
        ("flax", |at| put(at, "flax_model.msgpack", b""), &["Flax"]),
        ("mlx", |at| put(at, "weights.npz", b""), &["NumPy"]),
        ("another name", |at| put(at, "weights.safetensors", b""), &["`weights.safetensors`; rename it"]),
        ("unfinished", |at| put(at, "a1b2.incomplete", b""), &["not finished"]),
        (
            "several",
            |at| ["a.gguf", "b.gguf"].iter().for_each(|name| put(at, name, b"")),
            &["several GGUF files", "`a.gguf`, `b.gguf`"],
        ),
        (
            "data",
            |at| ["a.parquet", "b.csv", "c.jsonl", "d.tsv"].iter().for_each(|name| put(at, name, b"")),
            &["holds data (`a.parquet`, `b.csv`, `c.jsonl` and 1 more), not a model"],
        ),
        ("a data set", |at| put(at, "dataset_infos.json", b"{}"), &["holds data, not a model"]),
        (
            "a level above",
            |at| {
                std::fs::create_dir(at.join("inner")).unwrap();
                put(&at.join("inner"), "config.json", b"{}");
            },
            &["one of its directories: `inner`"],
        ),
        ("notes", |at| put(at, "README.md", b"# Notes"), &["holds no model.safetensors"]),
        ("tokenizer alone", |at| put(at, "tokenizer.json", b"{}"), &["holds no model.safetensors"]),
    ];
    for (what, make, words) in cases {
        let place = tempfile::tempdir().unwrap();
        make(place.path());
        line_of(what, place.path(), words);
    }
    let cache = tempfile::tempdir().unwrap();
    let place = cache.path().join("models--org--name");
    std::fs::create_dir_all(place.join("snapshots")).unwrap();
    line_of("a cache", &place, &["name it `org/name`"]);
}

fn put(at: &Path, name: &str, content: &[u8]) {
    std::fs::write(at.join(name), content).unwrap();
}

#[test]
fn files_that_are_no_model_are_told_apart() {
    let place = tempfile::tempdir().unwrap();
    let cases: [(&str, &[u8], &[&str]); 8] = [
        ("m.onnx", b"\x08\x07\x12\x07pytorch", &["m.onnx: is an ONNX graph"]),
        ("README.md", b"# About\n", &["is a text, not a model", "org/name"]),
        ("m.bin", b"\x00\x00", &["pickle"]),
        ("m.pt", b"PK\x03\x04", &["zip archive", "pickle"]),
        ("m.zip", b"PK\x03\x04", &["zip archive"]),
        ("m.gguf", b"version https://git-lfs.github.com/spec/v1\n", &["git-lfs", "git lfs pull"]),
        ("train.csv", b"text,label\na,1\n", &["is a text, not a model"]),
        ("config.json", b"{}", &["name its directory"]),
    ];
    for (name, content, words) in cases {
        put(place.path(), name, content);
        line_of(name, &place.path().join(name), words);
    }
}

#[test]
fn pointers_of_git_lfs_are_named() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    for name in ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", INDEX] {
        let home = home("llama");
        home.write();
        if name == INDEX {
            std::fs::remove_file(home.path().join("model.safetensors")).unwrap();
        }
        put(home.path(), name, pointer);
        line_of(name, home.path(), &[name, "git-lfs", "git lfs pull", "hf download"]);
    }
}

#[cfg(unix)]
#[test]
fn links_of_an_interrupted_download_are_named() {
    use std::os::unix::fs::symlink;
    for name in ["model.safetensors", "tokenizer.json", "config.json"] {
        let home = home("llama");
        home.write();
        let _ = std::fs::remove_file(home.path().join(name));
        symlink("../../blobs/0a1b", home.path().join(name)).unwrap();
        line_of(name, home.path(), &[name, "`../../blobs/0a1b`", "interrupted", "fetch the model again"]);
    }
    let home = home("llama");
    write_shards(&home, |_| {});
    let shard = home.path().join("model-00002-of-00002.safetensors");
    std::fs::remove_file(&shard).unwrap();
    symlink("../../blobs/0a1b", &shard).unwrap();
    line_of("a shard", home.path(), &["model-00002-of-00002.safetensors", "`../../blobs/0a1b`", "interrupted"]);
    let place = tempfile::tempdir().unwrap();
    symlink("nowhere", place.path().join("m.gguf")).unwrap();
    line_of("a file", &place.path().join("m.gguf"), &["m.gguf", "`nowhere`"]);
    line_of("its directory", place.path(), &["m.gguf", "`nowhere`"]);
}
