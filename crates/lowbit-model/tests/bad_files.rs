//! Damaged and hostile model files: each is refused with one line that names file, field and value.

mod common;

use common::*;
use lowbit_kernels::Pool;
use lowbit_model::checkpoint::{Options, quantize};
use lowbit_model::container::Tensors;
use lowbit_model::{Checkpoint, Kind, ModelConfig, Tokenizer, recipe};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// A safetensors file of a header and zeros.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + data, 0);
    file
}

fn f32s(name: &str, shape: &str, start: u64, end: u64) -> String {
    format!(r#""{name}":{{"dtype":"F32","shape":{shape},"data_offsets":[{start},{end}]}}"#)
}

fn with_len(len: u64, rest: &[u8]) -> Vec<u8> {
    [&len.to_le_bytes(), rest].concat()
}

/// Name, content, and what the message must hold.
fn bad_containers() -> Vec<(&'static str, Vec<u8>, Vec<&'static str>)> {
    let one = |entry: String, data| file(&format!("{{{entry}}}"), data);
    let two = |a: String, b: String, data| file(&format!("{{{a},{b}}}"), data);
    let long = "n".repeat(1 << 20);
    let many: Vec<_> = (0..1_000_000).map(|i| f32s(&i.to_string(), "[1]", 0, 0)).collect();
    let deep = format!("{{\"a\":{}", "[".repeat(100_000));
    vec![
        ("M1 empty", vec![], vec!["truncated header: 0 of 8 bytes"]),
        ("M1 one byte", vec![1], vec!["1 of 8"]),
        ("M1 seven bytes", vec![0; 7], vec!["7 of 8"]),
        ("M1 eight bytes", vec![0; 8], vec!["header", "EOF"]),
        ("M1 magic", b"GGUF".to_vec(), vec!["is a GGUF file"]),
        ("GGUF", [b"GGUF\x03\0\0\0".as_slice(), &[0; 16]].concat(), vec!["GGUF", "convert"]),
        ("M2 2^63", with_len(1 << 63, b"{}"), vec!["header_len is 9223372036854775808", "2 bytes"]),
        ("M2 limit", with_len(100_000_001, &[b' '; 64]), vec!["header_len is 100000001"]),
        ("M2 past the end", with_len(3, b"{}"), vec!["header_len is 3"]),
        ("M3 UTF-8", with_len(4, b"{\"\xff\""), vec!["not UTF-8 at byte 10"]),
        ("M3 JSON", with_len(4, b"nope"), vec!["header", "damaged"]),
        ("M3 list", with_len(2, b"[]"), vec!["an object of tensors"]),
        ("M3 deep", file(&deep, 0), vec!["tensor `a`"]),
        ("M4 twice", two(f32s("x", "[1]", 0, 4), f32s("x", "[1]", 0, 4), 4), vec!["`x` occurs twice", "1 and 2"]),
        ("M4 twice, other", two(f32s("x", "[2]", 0, 8), f32s("x", "[1]", 0, 4), 4), vec!["`x` occurs twice"]),
        ("M4 field twice", file(r#"{"x":{"dtype":"F32","dtype":"F32"}}"#, 0), vec!["`x`", "duplicate field `dtype`"]),
        ("M4 metadata twice", file(r#"{"__metadata__":{"a":"1","a":"2"}}"#, 0), vec!["metadata `a` occurs twice"]),
        ("M5 overlap", two(f32s("x", "[2]", 0, 8), f32s("y", "[1]", 4, 8), 8), vec!["`y`", "offset 4 overlaps", "8"]),
        ("M5 hole", two(f32s("x", "[1]", 0, 4), f32s("y", "[1]", 8, 12), 12), vec!["`y`", "offset 8 leaves a hole"]),
        ("M5 trailing", one(f32s("x", "[1]", 0, 4), 5), vec!["4 bytes", "has 5"]),
        ("M5 reversed", one(f32s("x", "[1]", 4, 0), 4), vec!["`x`", "data_offsets", "[4, 0]"]),
        (
            "M5 negative",
            file(r#"{"x":{"dtype":"U8","shape":[1],"data_offsets":[-1,0]}}"#, 1),
            vec!["`x`", "invalid value: integer `-1`"],
        ),
        (
            "M5 float",
            file(r#"{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1.0]}}"#, 1),
            vec!["`x`", "floating point `1.0`"],
        ),
        ("M6 overflow", one(f32s("x", "[4611686018427387904,8]", 0, 0), 0), vec!["`x`", "F32", "2^40"]),
        ("M6 size", one(f32s("x", "[3]", 0, 8), 8), vec!["`x`", "[3] of F32 takes 12 bytes", "[0, 8]"]),
        (
            "M6 dtype",
            file(r#"{"x":{"dtype":"F7","shape":[1],"data_offsets":[0,1]}}"#, 1),
            vec!["`x`", "unknown dtype `F7`", "BF16"],
        ),
        ("dimension 0", one(f32s("x", "[0,5]", 0, 0), 0), vec!["`x`", "dimension of 0"]),
        ("nine dimensions", one(f32s("x", "[1,1,1,1,1,1,1,1,1]", 0, 4), 4), vec!["`x`", "at most 8 dimensions"]),
        ("unknown field", file(r#"{"x":{"dtype":"U8","extra":1}}"#, 0), vec!["`x`", "unknown field `extra`"]),
        ("M7 many", file(&format!("{{{}}}", many.join(",")), 0), vec!["tensor count exceeds 262144"]),
        ("M8 NUL", one(f32s("a\\u0000", "[1]", 0, 4), 4), vec!["`a\\0`", "control character"]),
        ("M8 ESC", one(f32s("\\u001b[31m", "[1]", 0, 4), 4), vec!["`\\u{1b}[31m`", "control character"]),
        ("M8 ESC in a field", file(r#"{"x":{"\u001b[31m":1}}"#, 0), vec!["`x`", "unknown field `\\u{1b}[31m`"]),
        ("M8 path", one(f32s("../../etc/passwd", "[1]", 0, 4), 4), vec!["looks like a path"]),
        ("M8 long", one(f32s(&long, "[1]", 0, 4), 4), vec!["1048576 bytes, more than 512"]),
        ("M14 1 TiB", one(f32s("x", "[274877906944]", 0, 1 << 40), 0), vec!["1099511627776 bytes", "has 0"]),
        ("M19 zip", b"PK\x03\x04archive/data.pkl".to_vec(), vec!["pickle is executable code", "convert"]),
        ("M19 pickle", b"\x80\x02}q\x00X\x05\x00\x00\x00weight".to_vec(), vec!["is a pickle", "convert"]),
        ("M19 NumPy", b"\x93NUMPY\x01\x00v\x00{'descr': '|O'".to_vec(), vec!["pickle"]),
    ]
}

#[test]
fn bad_containers_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("model.safetensors");
    for (name, content, words) in bad_containers() {
        std::fs::write(&path, content).expect("written");
        let start = Instant::now();
        let error = Tensors::open(&path).expect_err(name);
        assert!(start.elapsed() < Duration::from_secs(4), "{name}: {:?}", start.elapsed());
        refused_file(name, &path, &error, &words);
    }
}

/// M19 and M21.
#[test]
fn what_is_no_file_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("x.safetensors");
    assert_eq!(Tensors::open(&path).expect_err("absent").kind, Kind::Io);
    std::fs::create_dir(&path).expect("made");
    assert!(Tensors::open(&path).expect_err("directory").to_string().contains("not a regular file"));
    #[cfg(unix)]
    {
        assert!(Tensors::open(Path::new("/dev/zero")).expect_err("device").to_string().contains("not a regular file"));
        let link = directory.path().join("loop");
        std::os::unix::fs::symlink(&link, &link).expect("made");
        assert_eq!(Tensors::open(&link).expect_err("loop").kind, Kind::Io);
        let fifo = directory.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        if made.is_ok_and(|status| status.success()) {
            assert!(Tensors::open(&fifo).expect_err("pipe").to_string().contains("not a regular file"));
        }
    }
    let pickle = directory.path().join("pytorch_model.bin");
    std::fs::write(&pickle, b"\x80\x02}q\x00.").expect("written");
    let error = Checkpoint::open(directory.path()).err().expect("no weights").to_string();
    assert!(error.contains("pytorch_model.bin") && error.contains("convert it to safetensors"), "{error}");
}

#[test]
fn a_tensor_without_dimensions_is_a_scalar() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("x.safetensors");
    std::fs::write(&path, file(&format!("{{{}}}", f32s("x", "[]", 0, 4)), 4)).expect("written");
    assert_eq!(Tensors::open(&path).expect("valid").floats("x").expect("one value"), [0.0]);
}

/// A model directory, quantized to a recipe, and the path of its weights.
fn packed(directory: &Path, name: &str) -> std::path::PathBuf {
    write(directory, &configs()[0]);
    let masters = Checkpoint::open(directory).expect("valid");
    let out = directory.join(name);
    quantize(&masters, recipe::find(name).expect("listed"), &Options::new(), &out).expect("written");
    out
}

fn refused(directory: &Path) -> String {
    let error = Checkpoint::open(directory).and_then(|c| c.model().map(|_| ()));
    let error = error.expect_err("refused");
    assert!(error.path.is_some(), "{error}");
    refusal("a model", &error, &[""])
}

/// M16.
#[test]
fn a_config_that_disagrees_names_both_sides() {
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), &configs()[0]);
    let path = directory.path().join("config.json");
    let good: Value = serde_json::from_slice(&std::fs::read(&path).expect("readable")).expect("JSON");
    let cases: Vec<(&str, Value, Vec<&str>)> = vec![
        ("vocab_size", json!(300), vec!["`model.embed_tokens.weight` is [258, 48]", "[300, 48]", "`vocab_size` = 300"]),
        ("intermediate_size", json!(96), vec!["mlp.gate_proj", "[80, 48]", "`intermediate_size` = 96"]),
        ("num_hidden_layers", json!(3), vec!["model.layers.2.", "missing", "config.json asks"]),
        ("num_hidden_layers", json!(1), vec!["model.layers.1.", "does not ask"]),
        ("num_hidden_layers", json!(0), vec!["`num_hidden_layers` is 0"]),
        ("num_hidden_layers", json!(1u64 << 30), vec!["`num_hidden_layers` is 1073741824, more than"]),
        ("num_attention_heads", json!(0), vec!["`num_attention_heads` is 0"]),
        ("num_key_value_heads", json!(3), vec!["`num_key_value_heads` is 3", "num_attention_heads 4"]),
        ("vocab_size", json!(0), vec!["`vocab_size` is 0"]),
        ("vocab_size", json!(1u64 << 60), vec!["`vocab_size`", "more than 2147483648"]),
        ("vocab_size", json!(-1), vec!["`vocab_size` is -1, expected a whole number"]),
        ("head_dim", json!(11), vec!["`head_dim` is 11"]),
        ("rope_theta", json!(0.0), vec!["`rope_theta` is 0"]),
        ("dropout", json!(1.5), vec!["`dropout` is 1.5"]),
        ("sub_norm", json!(false), vec!["attn_sub_norm", "does not ask"]),
        ("hidden_act", json!("swish1"), vec!["`hidden_act` is \"swish1\", expected one of `relu`"]),
        ("max_length", json!(0), vec!["`max_length` is 0"]),
        ("labels", json!([1]), vec!["`labels`"]),
        ("trained_for", json!("bitnett"), vec!["`trained_for`", "did you mean `bitnet`"]),
        ("surprise", json!(1), vec!["`surprise` is no field"]),
        ("architecture", json!("decorder"), vec!["`decorder`", "unknown", "did you mean `decoder`", "mlp"]),
        ("architecture", json!(7), vec!["unknown", "decoder, encoder, gpt, mlp"]),
        ("architecture", Value::Null, vec!["unknown"]),
    ];
    for (field, value, words) in cases {
        let mut config = good.clone();
        config[field] = value;
        std::fs::write(&path, config.to_string()).expect("written");
        let line = refused(directory.path());
        for word in words {
            assert!(line.contains(word), "{field}: `{word}` in: {line}");
        }
    }
    write(directory.path(), &configs()[2]);
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).expect("readable")).expect("JSON");
    config["labels"] = json!(["one", "two"]);
    std::fs::write(&path, config.to_string()).expect("written");
    assert!(refused(directory.path()).contains("`labels` has 2 names for 3 classes"));
    for text in ["", "[]", "{", "null", &"[".repeat(100_000)] {
        std::fs::write(&path, text).expect("written");
        assert!(refused(directory.path()).contains("not a JSON object"));
    }
    std::fs::remove_file(&path).expect("removed");
    let error = Checkpoint::open(directory.path()).err().expect("refused");
    assert!(error.to_string().contains("config.json"), "{error}");
}

/// M22.
#[test]
fn keys_that_name_code_are_ignored_with_a_notice() {
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), &configs()[0]);
    let path = directory.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).expect("readable")).expect("JSON");
    config["auto_map"] = json!({"AutoModel": "evil--repo.Model"});
    config["trust_remote_code"] = json!(true);
    config["_attn_implementation_internal"] = json!("evil/kernel");
    std::fs::write(&path, config.to_string()).expect("written");
    let checkpoint = Checkpoint::open(directory.path()).expect("valid without them");
    assert_eq!(checkpoint.notices().len(), 3);
    assert!(checkpoint.notices()[0].contains("`auto_map`"));
    checkpoint.model_config().save(&path).expect("written");
    assert!(ModelConfig::load(&path).expect("valid").1.is_empty());
}

/// Changes one byte of the data, counted from a tensor's start.
fn damage(directory: &Path, tensor: &str, at: usize, change: impl Fn(u8) -> u8) {
    let path = directory.join("model.safetensors");
    let mut file = std::fs::read(&path).expect("readable");
    let tensors = Tensors::open(&path).expect("valid");
    let data = tensors.bytes(tensor).expect("there");
    let start = file.windows(data.len()).rposition(|w| w == &data[..]).expect("its bytes");
    file[start + at] = change(file[start + at]);
    std::fs::write(&path, file).expect("written");
}

/// M17 and M18.
#[test]
fn truncated_and_damaged_data_is_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = packed(directory.path(), "int8");
    damage(&out, "model.layers.0.mlp.up_proj.weight.codes", 5, |b| b ^ 1);
    let weights = Tensors::open(&out.join("model.safetensors")).expect("the header is fine");
    let error = weights.verify(&Pool::new(1)).expect_err("one bit");
    assert!(error.to_string().contains("`model.layers.0.mlp.up_proj.weight.codes`: its checksum differs"), "{error}");
    let path = out.join("model.safetensors");
    let file = std::fs::read(&path).expect("readable");
    std::fs::write(&path, &file[..file.len() - 1]).expect("written");
    assert!(refused(&out).contains("truncated"));
}

/// M18.
#[test]
fn weights_that_are_not_finite_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("out");
    write(directory.path(), &configs()[0]);
    let name = "model.layers.1.self_attn.k_proj.weight";
    damage(directory.path(), name, 4 * 7 + 3, |_| 0x7f);
    damage(directory.path(), name, 4 * 7 + 2, |_| 0xc0);
    let masters = Checkpoint::open(directory.path()).expect("the header is fine");
    for recipe in ["f32", "bitnet", "nf4"] {
        let error = quantize(&masters, recipe::find(recipe).expect("listed"), &Options::new(), &out);
        let line = error.expect_err("not finite").to_string();
        assert!(line.contains(name) && line.contains("NaN at index 7"), "{line}");
        assert!(!out.join("model.safetensors").exists() && !out.join("model.safetensors.tmp").exists());
    }
}

#[test]
fn packed_metadata_that_lies_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = packed(directory.path(), "int8");
    let path = out.join("model.safetensors");
    let good = std::fs::read(&path).expect("readable");
    // Replacements of equal length keep the offsets valid.
    let cases: Vec<(&str, &str, Vec<&str>)> = vec![
        (r#""lowbit.format":"1""#, r#""lowbit.format":"9""#, vec!["`lowbit.format` is `9`", "reads 1"]),
        (r#""lowbit.recipe":"int8""#, r#""lowbit.recipe":"int9""#, vec!["lowbit.recipe", "unknown recipe `int9`"]),
        (r#"\"format\":\"int8\""#, r#"\"format\":\"int7\""#, vec!["unknown format `int7`"]),
        (r#"\"rows\":258"#, r#"\"rows\":259"#, vec!["is [259, 48]", "asks for [258, 48]"]),
        (r#"\"cols\":48"#, r#"\"cols\":49"#, vec!["49]", "asks for", "48]"]),
        (r#"\"cols\":48"#, r#"\"cals\":48"#, vec!["lowbit.formats", "unknown field `cals`"]),
        ("lm_head.weight.codes", "lm_head.weight.cades", vec!["`lm_head.weight.cades`", "does not ask"]),
    ];
    for (from, to, words) in cases {
        let mut file = good.clone();
        let at = file.windows(from.len()).position(|w| w == from.as_bytes()).expect(from);
        file[at..at + to.len()].copy_from_slice(to.as_bytes());
        std::fs::write(&path, file).expect("written");
        let line = refused(&out);
        for word in words {
            assert!(line.contains(word), "{from}: `{word}` in: {line}");
        }
    }
}

#[test]
fn entries_of_a_tokenizer_beyond_the_table_fail_when_they_are_used() {
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), &configs()[0]);
    let texts = ["some words and more words, and some more words still"; 3];
    let larger = Tokenizer::train_bpe(texts, 280, false).expect("trains");
    assert!(larger.vocab_size() > 258);
    larger.save(&directory.path().join("tokenizer.json")).expect("written");
    let checkpoint = Checkpoint::open(directory.path()).expect("weights are fine");
    let tokenizer = checkpoint.tokenizer().expect("more entries than rows");
    let mut exec = lowbit_model::CpuExec::new(cpu());
    let model = checkpoint.model().expect("valid");
    let mut run = |ids: &[u32]| exec.forward(&model, &lowbit_model::exec::Batch::new([ids]));
    run(&tokenizer.encode("xyz", 10).expect("encodes")).expect("all within the table");
    let error = run(&[259]).expect_err("beyond the table").to_string();
    assert!(error.contains("token 259 is outside the table of 258 entries"), "{error}");
}
