//! Bad input: one line, the right exit code, nothing lost.

mod common;

use common::{good, lowbit, refused, run, small_suite};
use lowbit_base::testing::{Need, skipped};
use std::fs;
use std::path::Path;
use std::process::Stdio;

fn trained(directory: &Path) {
    small_suite(directory, 6, 0);
    good(directory, &["train", "small.toml", "--out", "model"]);
}

#[test]
fn unknown_names_are_refused_with_the_nearest_one() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    trained(at);
    refused(at, &["compare", "quikstart"], 2, &["quikstart", "did you mean `quickstart`", "ag_news"]);
    refused(at, &["train", "small.toml", "--variant", "nobody", "--out", "x"], 2, &["nobody", "ternary_qat"]);
    refused(at, &["train", "small.toml", "--variant", "int8", "--out", "x"], 2, &["made from `f32`", "quantize"]);
    refused(at, &["eval", "model", "--task", "agnews"], 2, &["agnews", "ag_news", "quickstart"]);
    refused(at, &["quantize", "model", "--recipe", "nf5", "--out", "x"], 2, &["nf5", "did you mean `nf4`", "llm_int8"]);
    refused(at, &["doctor", "--isa", "sse9"], 2, &["sse9", "scalar"]);
    let lacking = if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" };
    refused(at, &["doctor", "--isa", lacking], 2, &["lacks", lacking, "available: scalar"]);
    refused(at, &["train", "small.toml", "--out", "y", "--learning-rate", "-1"], 2, &["learning_rate", "-1"]);
    refused(at, &["train", "small.toml", "--out", "y", "--steps", "0"], 2, &["steps", "0"]);
    assert!(!at.join("x").exists() && !at.join("y").exists(), "a refused request leaves nothing");
}

#[test]
fn broken_data_are_named_by_file_and_line() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    trained(at);
    fs::create_dir(at.join("data")).unwrap();
    let task = r#"
name = "mine"
version = 1
about = "A test."
question = "classify"
classes = ["delivery", "return", "payment", "refund"]
[[train]]
paths = ["train.csv"]
text = [1]
label = 0
labels = ["1", "2", "3", "4"]
[[test]]
paths = ["FILE"]
text = [1]
label = 0
labels = ["1", "2", "3", "4"]
"#;
    fs::write(at.join("data/train.csv"), "1,a b\n2,c d\n3,e f\n4,g h\n").unwrap();
    let packed = {
        let mut encoder = zstd_bytes(&"1,some text\n2,more text\n".repeat(2000));
        encoder.truncate(encoder.len() / 2);
        encoder
    };
    fs::write(at.join("data/cut.csv.zst"), packed).unwrap();
    fs::write(at.join("data/empty.csv"), "").unwrap();
    fs::write(at.join("data/label.csv"), "1,fine\n9,wrong\n").unwrap();
    fs::write(at.join("data/quote.csv"), "1,\"open\n2,x\n").unwrap();
    for (file, code, words) in [
        ("empty.csv", 3, vec!["empty.csv"]),
        ("label.csv", 3, vec!["label.csv:2", "9"]),
        ("quote.csv", 3, vec!["quote.csv"]),
        ("cut.csv.zst", 3, vec!["cut.csv.zst"]),
    ] {
        fs::write(at.join("mine.toml"), task.replace("FILE", file)).unwrap();
        refused(at, &["eval", "model", "--task", "mine.toml", "--data", "data"], code, &words);
    }
    fs::write(at.join("mine.toml"), task.replace("FILE", "absent.csv")).unwrap();
    let output = run(at, &["eval", "model", "--task", "mine.toml", "--data", "data"]);
    assert!(matches!(output.status.code(), Some(3 | 5)), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("absent.csv"));
    refused(at, &["eval", "model", "--task", "mine.toml", "--data", "nowhere"], 2, &["nowhere", "--data"]);
    refused(at, &["compare", "ag_news", "--data", "data"], 5, &["ag_news/train.csv", "--data"]);
}

/// A page on which the Parquet crate panics.
#[test]
fn a_panic_of_another_crate_is_one_line_about_the_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let good = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lowbit-eval/tests/data/snappy.parquet");
    let mut bytes = fs::read(good).expect("there");
    bytes[87] = 119;
    fs::write(directory.path().join("rows.parquet"), bytes).expect("written");
    let output = lowbit()
        .current_dir(directory.path())
        .args(["init", "mine", "--data", "rows.parquet"])
        .env("RUST_BACKTRACE", "full")
        .output()
        .expect("started");
    let printed = String::from_utf8_lossy(&output.stderr);
    let sentence = "error: rows.parquet: not a readable Parquet file (its pages are damaged): fetch it again\n";
    assert_eq!((output.status.code(), printed.as_ref()), (Some(3), sentence));
}

/// A zstd frame of raw blocks, so that the test needs no compressor.
fn zstd_bytes(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa0];
    out.extend((bytes.len() as u32).to_le_bytes());
    let blocks: Vec<&[u8]> = bytes.chunks(1000).collect();
    for (i, block) in blocks.iter().enumerate() {
        let header = (block.len() as u32) << 3 | u32::from(i + 1 == blocks.len());
        out.extend(&header.to_le_bytes()[..3]);
        out.extend(*block);
    }
    out
}

#[test]
fn broken_models_are_refused_and_the_good_one_survives() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    trained(at);
    let weights = fs::read(at.join("model/model.safetensors")).unwrap();
    let copy = |name: &str, bytes: &[u8]| {
        fs::create_dir_all(at.join(name)).unwrap();
        for file in ["config.json", "tokenizer.json"] {
            fs::copy(at.join("model").join(file), at.join(name).join(file)).unwrap();
        }
        fs::write(at.join(name).join("model.safetensors"), bytes).unwrap();
    };
    copy("pickle", b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01K\x01u.");
    refused(at, &["inspect", "pickle"], 3, &["pickle", "safetensors"]);
    let mut header = weights.clone();
    header[8..16].fill(b'!');
    copy("header", &header);
    refused(at, &["inspect", "header"], 3, &["model.safetensors"]);
    let mut long = weights.clone();
    long[..8].copy_from_slice(&(1u64 << 62).to_le_bytes());
    copy("long", &long);
    refused(at, &["inspect", "long"], 3, &["model.safetensors", "header"]);
    copy("cut", &weights[..weights.len() - 5]);
    refused(at, &["inspect", "cut"], 3, &["model.safetensors"]);
    copy("shape", &weights);
    let config = fs::read_to_string(at.join("shape/config.json")).unwrap();
    fs::write(at.join("shape/config.json"), config.replace("\"hidden_size\": 32", "\"hidden_size\": 64")).unwrap();
    refused(at, &["eval", "shape", "--task", "quickstart"], 3, &["32", "64"]);
    refused(at, &["inspect", "nowhere"], 5, &["nowhere"]);
    good(at, &["quantize", "model", "--recipe", "int8", "--out", "small"]);
    let before = fs::read(at.join("small/model.safetensors")).unwrap();
    refused(at, &["quantize", "cut", "--recipe", "nf4", "--out", "small"], 3, &["cut"]);
    assert_eq!(fs::read(at.join("small/model.safetensors")).unwrap(), before, "an earlier result survives");
    refused(at, &["quantize", "small", "--recipe", "nf4", "--out", "again"], 3, &["small"]);
    refused(at, &["report", "nowhere"], 5, &["nowhere"]);
}

/// M21.
#[test]
#[cfg(unix)]
fn what_is_no_file_is_refused_at_once() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    fs::create_dir(at.join("empty")).unwrap();
    std::os::unix::fs::symlink("loop", at.join("loop")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(at.join("pipe.gguf")).status().unwrap().success());
    for command in [&["run", "-p", "x"][..], &["bench"], &["inspect"]] {
        for (path, code) in [("/dev/zero", 3), ("/dev/random", 3), ("empty", 3), ("pipe.gguf", 3), ("loop", 5)] {
            let start = std::time::Instant::now();
            refused(at, &[command, &[path]].concat(), code, &[path]);
            assert!(start.elapsed().as_secs() < 5, "{command:?} {path}");
        }
    }
}

#[test]
fn a_reader_that_stops_early_is_no_failure() {
    let home = tempfile::tempdir().unwrap();
    trained(home.path());
    let mut child = lowbit()
        .current_dir(home.path())
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_io_failure_and_the_last_checkpoint_stays() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    small_suite(at, 3000, 1);
    fs::create_dir(at.join("tiny")).unwrap();
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=640k", "tmpfs"])
        .arg(at.join("tiny"))
        .stderr(Stdio::null())
        .status();
    if !mount.is_ok_and(|s| s.success()) {
        return skipped(Need::Rights, "there is no right to mount a small file system");
    }
    let output = run(at, &["train", "small.toml", "--out", "tiny/run"]);
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    let _ = std::process::Command::new("umount").arg(at.join("tiny")).status();
    assert_eq!(output.status.code(), Some(5), "{printed}");
    assert!(printed.lines().last().unwrap_or_default().starts_with("error: "), "{printed}");
}
