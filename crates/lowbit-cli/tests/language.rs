//! Language models as a user meets them: train on text, resume, quantize, score; and what is refused.

mod common;

use common::{NETWORK, good, lowbit, refused, run};
use lowbit_base::testing::data;
use std::fs;
use std::path::Path;
use std::process::Stdio;

/// A network small enough for a test.
fn describe(at: &Path, steps: u64, head: &str) {
    let text = format!(
        r#"
kind = "language"
name = "tiny"
texts = ["lines.txt"]
documents = "lines"
replace = [["<br />", "\n"]]
held_out = 0.2
context = 32
recipe = "bitnet"
[model]
{NETWORK}causal = true
head = {head}
[train]
steps = {steps}
batch_size = 8
learning_rate = 1e-2
warmup_steps = 5
qat = {{}}
seed = 3
save_every = 7
evaluate_every = {steps}
"#
    );
    fs::write(at.join("tiny.toml"), text).unwrap();
}

const HEAD: &str = "{ lm = { tied = false } }";

/// A text that repeats, one sentence a line.
fn lines(count: usize) -> String {
    "The cat sat on the mats.<br />So it goes.\n".repeat(count)
}

fn measure(printed: &str, name: &str) -> f64 {
    let results: serde_json::Value = serde_json::from_str(printed).unwrap();
    results["records"][0]["measures"][name]["value"].as_f64().unwrap()
}

#[test]
fn a_model_learns_a_text_that_repeats_and_its_packed_form_knows_it_too() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    describe(at, 200, HEAD);
    fs::write(at.join("lines.txt"), lines(200)).unwrap();
    let output = run(at, &["train", "tiny.toml", "--data", ".", "--out", "masters", "--threads", "2"]);
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && printed.contains("step 200: 0."), "{printed}");
    good(at, &["quantize", "masters", "--recipe", "bitnet", "--out", "packed"]);
    let told_of_packed = good(at, &["eval", "packed", "--task", "tiny.toml", "--data", ".", "--json"]);
    let printed = &told_of_packed;
    let bits = measure(printed, "bits_per_byte");
    assert!(bits < 0.3, "{bits}");
    assert!((measure(printed, "perplexity").log2() - bits).abs() < 1e-9);
    assert!((measure(printed, "compression_ratio") * bits - 8.0).abs() < 1e-9);
    assert!(measure(printed, "next_byte_accuracy") > 0.9);
    // The masters are that very network, unless they are asked for.
    let score = |args: &[&str]| {
        let printed = good(at, &[&["eval", "--task", "tiny.toml", "--data", ".", "--json"], args].concat());
        (measure(&printed, "bits_per_byte"), printed.contains("\"recipe\": \"f32\""))
    };
    assert_eq!(score(&["masters"]), (bits, false));
    assert_eq!(score(&["-m", "masters"]), (bits, false));
    let (masters, named) = score(&["masters", "--recipe", "f32"]);
    assert!(masters != bits && named, "{masters}");
    let output = run(at, &["eval", "masters", "--recipe", "f32", "--task", "tiny.toml", "--data", "."]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("trained for `bitnet`"), "{output:?}");
    good(at, &["quantize", "masters", "--out", "default"]);
    let weights = |name: &str| fs::read(at.join(name).join("model.safetensors")).unwrap();
    assert!(weights("default") == weights("packed"), "quantize takes the recipe the model was trained for");
    good(at, &["convert", "masters", "converted"]);
    assert!(weights("converted") == weights("packed"), "and so does convert");
    for recipe in [&[][..], &["--recipe", "f32"]] {
        let printed = good(at, &[&["inspect", "masters", "--json"], recipe].concat());
        let name = if recipe.is_empty() { "bitnet" } else { "f32" };
        assert!(printed.contains(&format!("\"recipe\": \"{name}\"")), "{printed}");
    }
    refused(at, &["convert", "masters", "x.gguf"], 2, &["embed", "--table", "f32"]);
    let printed = good(at, &["convert", "masters", "x.gguf", "--table", "f32"]);
    assert!(printed.contains("I2_S") && !printed.contains("rounded"), "{printed}");
    let results: serde_json::Value = serde_json::from_str(&told_of_packed).unwrap();
    let note = results["records"][0]["detail"]["note"].as_str().unwrap();
    assert!(note.contains("windows of 32 that move on by 16"), "{note}");

    // Text of another kind costs it more than plain bytes would.
    fs::write(at.join("other.txt"), "0123456789".repeat(40)).unwrap();
    let printed = good(at, &["eval", "packed", "--text", "other.txt", "--json"]);
    assert!(measure(&printed, "bits_per_byte") > 8.0);
    fs::write(at.join("own.txt"), "The cat sat on the mats.").unwrap();
    let printed = good(at, &["eval", "packed", "--text", "own.txt", "--json"]);
    assert!(measure(&printed, "bits_per_byte") < 1.0);
    // Beside a reference: itself, and the masters in another recipe.
    let beside = good(at, &["eval", "packed", "--text", "own.txt", "--reference", "packed", "--json"]);
    let of_itself = ["kl_divergence", "kl_divergence_max", "same_top", "rms_probability_difference"];
    assert_eq!(of_itself.map(|name| measure(&beside, name)), [0.0, 0.0, 1.0, 0.0]);
    let masters = ["eval", "masters", "--recipe", "f32", "--text", "own.txt", "--reference", "packed", "--json"];
    let beside = good(at, &masters);
    assert!(measure(&beside, "kl_divergence") > 0.0, "{beside}");
    // The same bytes, compressed or cut by --limit, score the same.
    let packed = zstd_frame(&fs::read(at.join("own.txt")).unwrap());
    fs::write(at.join("own.txt.zst"), packed).unwrap();
    let whole = measure(&printed, "bits_per_byte");
    let again = measure(&good(at, &["eval", "packed", "--text", "own.txt.zst", "--json"]), "bits_per_byte");
    assert_eq!(whole, again);
    fs::write(at.join("long.txt"), "The cat sat on the mats. And then it rained.").unwrap();
    let cut = measure(&good(at, &["eval", "packed", "--text", "long.txt", "--limit", "24", "--json"]), "bits_per_byte");
    assert_eq!(whole, cut);
}

/// A zstd frame that stores bytes as they are (RFC 8878): magic, a one-byte length, one raw block.
fn zstd_frame(content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap();
    let header = ((u32::from(length) << 3) | 1).to_le_bytes();
    [&[0x28, 0xb5, 0x2f, 0xfd, 0x20, length][..], &header[..3], content].concat()
}

#[test]
fn an_interrupted_training_ends_with_the_same_bits() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    describe(at, 60, HEAD);
    fs::write(at.join("lines.txt"), lines(100)).unwrap();
    let train = |out: &str, threads: &str| {
        let mut command = lowbit();
        command.current_dir(at).args(["train", "tiny.toml", "--data", ".", "--out", out, "--threads", threads]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    assert!(train("whole", "2").status().unwrap().success());
    let mut stops = 0;
    for i in 0..40 {
        let mut child = train("parts", ["1", "2"][i % 2]).spawn().unwrap();
        let wanted = 5 + 11 * i;
        let steps = || fs::read_to_string(at.join("parts/metrics.jsonl")).map_or(0, |text| text.lines().count());
        while child.try_wait().unwrap().is_none() && steps() < wanted {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let _ = child.kill();
        if child.wait().unwrap().success() {
            break;
        }
        stops += 1;
    }
    assert!(stops > 0, "the first part ended before it could be killed");
    let weights = |out: &str| fs::read(at.join(out).join("model.safetensors")).unwrap();
    assert!(weights("whole") == weights("parts"));
}

/// Runs a command line as a shell does.
fn shell(at: &Path, line: &str) -> std::process::Output {
    let program = Path::new(env!("CARGO_BIN_EXE_lowbit")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = std::process::Command::new("sh");
    command.current_dir(at).env("PATH", path).args(["-c", line]).stdin(Stdio::null());
    command.output().unwrap()
}

#[test]
fn training_ends_with_the_score_that_eval_gives_and_commands_that_run() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    fs::write(at.join("my text.txt"), lines(600)).unwrap();
    let output = run(at, &["train", "--text", "my text.txt", "--out", "a model", "--steps", "3"]);
    let printed = String::from_utf8(output.stdout).unwrap();
    let notes = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && notes.contains("`warmup_steps` is 0 instead of 50"), "{notes}");
    let line = printed.lines().find(|line| line.starts_with("held-out text: ")).unwrap_or_else(|| panic!("{printed}"));
    assert!(line.ends_with(" under recipe bitnet"), "{line}");
    let bits = line.split(' ').nth(2).unwrap();
    let next: Vec<&str> = printed.lines().skip_while(|line| *line != "next:").skip(1).map(str::trim).collect();
    let verbs: Vec<&str> = next.iter().map(|line| line.split(' ').nth(1).unwrap()).collect();
    assert_eq!(verbs, ["eval", "run", "quantize"], "{printed}");
    for line in &next {
        let output = shell(at, line);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let scored = String::from_utf8(shell(at, &format!("{} --json", next[0])).stdout).unwrap();
    assert_eq!(format!("{:.4}", measure(&scored, "bits_per_byte")), bits);
    // A resumed run says the same, also for programs.
    let again = good(at, &["train", "--text", "my text.txt", "--out", "a model", "--steps", "3", "--json"]);
    assert_eq!(measure(&again, "bits_per_byte"), measure(&scored, "bits_per_byte"));
    // A warm-up that was asked for is not shortened.
    let args = ["train", "--text", "my text.txt", "--out", "x", "--steps", "3", "--warmup-steps", "4"];
    refused(at, &args, 2, &["`warmup_steps` is 4", "the number of steps, 3"]);
}

#[test]
fn what_is_held_out_changes_no_weight() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    describe(at, 8, HEAD);
    let weights = |text: &str, out: &str| {
        fs::write(at.join("lines.txt"), text).unwrap();
        good(at, &["train", "tiny.toml", "--data", ".", "--out", out]);
        fs::read(at.join(out).join("model.safetensors")).unwrap()
    };
    let text = lines(100);
    let last = text.trim_end().rfind('\n').unwrap() + 1;
    let marked = |from: usize| format!("{}{}", &text[..from], text[from..].replace("cat", "dog"));
    let whole = weights(&text, "a");
    // The last line is held out, the first is not.
    assert!(whole == weights(&marked(last), "b"));
    assert!(whole != weights(&text.replacen("cat", "dog", 1), "c"));
}

#[test]
fn wrong_texts_and_descriptions_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    describe(at, 5, HEAD);
    fs::write(at.join("empty.txt"), "").unwrap();
    fs::write(at.join("short.txt"), "short\n").unwrap();
    fs::write(at.join("lines.txt"), lines(50)).unwrap();
    let train = |args: &[&str], code: i32, words: &[&str]| {
        refused(at, &[&["train", "--out", "out", "--data", "."], args].concat(), code, words);
    };
    train(&["--text", "nowhere.txt"], 5, &["nowhere.txt", "no such file"]);
    train(&["--text", "empty.txt"], 3, &["empty.txt", "is empty"]);
    train(&["--text", "short.txt"], 3, &["short.txt: ", "tokens", "256", "context"]);
    train(&["--text", "."], 3, &["directory"]);
    train(&["text"], 2, &["--text FILE"]);
    train(&["ag_news", "--text", "lines.txt"], 2, &["ag_news", "no language model"]);
    train(&["tiny.toml", "--text", "lines.txt", "--learning-rate", "0"], 2, &["learning_rate"]);
    for (from, to, words) in [
        ("held_out = 0.2", "held_out = 1.0", ["held_out", "1"]),
        ("context = 32", "context = 0", ["context", "0"]),
        ("recipe = \"bitnet\"", "recipe = \"bitnt\"", ["recipe", "bitnet"]),
        ("documents = \"lines\"", "documents = \"pages\"", ["wrong.toml:5: ", "pages"]),
        ("[[\"<br />\"", "[[\"\"", ["replace", "empty"]),
        ("hidden_size = 32", "hidden_width = 32", ["model", "hidden"]),
        (HEAD, "{ classify = { classes = 2, pooling = \"mean\" } }", ["head", "language model"]),
    ] {
        let text = fs::read_to_string(at.join("tiny.toml")).unwrap();
        fs::write(at.join("wrong.toml"), text.replacen(from, to, 1)).unwrap();
        train(&["wrong.toml"], 3, &words);
    }
    assert!(!at.join("out").exists(), "a refused request leaves nothing");

    good(at, &["train", "tiny.toml", "--data", ".", "--out", "model"]);
    let score =
        |args: &[&str], code: i32, words: &[&str]| refused(at, &[&["eval", "model"], args].concat(), code, words);
    score(&["--text", "nowhere.txt"], 5, &["nowhere.txt"]);
    score(&["--text", "empty.txt"], 3, &["empty.txt", "is empty"]);
    score(&["--text", "lines.txt", "--stride", "33"], 2, &["stride 33", "32"]);
    score(&["--text", "lines.txt", "--context", "0"], 2, &["stride", "0"]);
    score(&["--text", "lines.txt", "--context", "33"], 2, &["33", "trained for 32"]);
    score(&["--task", "quickstart"], 2, &["language model"]);
}

/// The bits per byte that the card of the shipped model states, on the first part of the last 5 % of enwik8.
#[test]
fn the_shipped_model_scores_what_its_card_says() {
    let root = &Path::new(env!("CARGO_MANIFEST_DIR")).join("../lowbit");
    let Some(text) = data("enwik8_prefix/enwik8.prefix.zst") else { return };
    let data = text.parent().and_then(Path::parent).expect("a folder of data sets");
    let model = root.join("models/default");
    let args = ["eval", model.to_str().unwrap(), "--task", "enwik8", "--limit", "50000", "--json"];
    let printed = good(root, &[&args[..], &["--data", data.to_str().unwrap()]].concat());
    let bits = measure(&printed, "bits_per_byte");
    assert!((bits - 1.5467).abs() < 0.0005, "{bits}");
    let card = fs::read_to_string(model.join("MODEL_CARD.md")).unwrap();
    assert!(card.contains("1.5467"), "the card states another figure");
}
