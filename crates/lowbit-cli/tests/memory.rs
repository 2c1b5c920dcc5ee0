//! Work that does not fit into memory is refused with exit code 4 and one sentence; a file cut short in use ends it with 5.
#![cfg(target_os = "linux")]

mod common;

use common::{NETWORK, lowbit};
use lowbit_base::testing::{self, skipped};
use lowbit_model::parameter_list::ParameterList;
use lowbit_model::synthetic::Synthetic;
use lowbit_model::{Config, ModelConfig, Tokenizer, checkpoint, recipe};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs the program with so much address space, KiB.
fn limited(directory: &Path, kibibytes: u64, args: &[&str]) -> Output {
    let program = lowbit();
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("ulimit -v {kibibytes}; exec \"$0\" \"$@\"")).arg(program.get_program()).args(args);
    for variable in ["LOWBIT_DATA", "LOWBIT_ISA", "LOWBIT_THREADS"] {
        shell.env_remove(variable);
    }
    shell.current_dir(directory).output().expect("a shell")
}

/// Demands exit code 4 and one sentence with these words.
fn refused(output: &Output, words: &[&str]) {
    let printed = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{printed}");
    let errors: Vec<&str> = printed.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{printed}");
    for word in words {
        assert!(errors[0].contains(word), "`{word}` is not in: {printed}");
    }
}

#[test]
fn doctor_tells_what_is_available_and_which_limit_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = limited(directory.path(), 3_000_000, &["doctor", "--threads", "1"]);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("available (the limit of address space, ulimit -v)"), "{printed}");
    let output = limited(directory.path(), 3_000_000, &["doctor", "--threads", "1", "--json"]);
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let bytes = object["memory"]["available_bytes"].as_u64().expect("known");
    assert!((1 << 30..3_000_000 << 10).contains(&bytes), "{bytes}");
}

#[test]
fn a_model_with_its_sequences_is_refused_in_parts() {
    let directory = tempfile::tempdir().expect("a directory");
    let bench = ["bench", "--threads", "1", "--synthetic", "bitnet-2b", "-p", "131072", "-n", "0"];
    let output = limited(directory.path(), 2_000_000, &bench);
    refused(&output, &["weights 852 MB", "keys and values ", "activations ", "ulimit -v", "take fewer tokens"]);
    // The model inside the program, with the context it was trained for.
    let output = limited(directory.path(), 200_000, &["run", "--threads", "1", "-p", "Hello", "-n", "1"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Runs the program, from a place that everybody may read, as a user whose processes are as many as there may be.
fn without_threads(directory: &Path, args: &[&str]) -> std::io::Result<Output> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65_534;
    let program = directory.join("lowbit");
    std::fs::copy(lowbit().get_program(), &program)?;
    std::fs::set_permissions(directory, PermissionsExt::from_mode(0o777))?;
    let mut shell = Command::new("bash");
    shell.args(["-c", "ulimit -u 1 && exec \"$0\" \"$@\""]).arg(program).args(args).current_dir(directory);
    shell.env("HOME", directory).env_remove("XDG_CACHE_HOME").env_remove("LOWBIT_THREADS");
    // The limit does not bind the system's own user.
    if std::fs::metadata(directory)?.uid() == 0 {
        shell.uid(NOBODY).gid(NOBODY);
    }
    shell.output()
}

#[test]
fn threads_that_cannot_be_started_are_done_without() {
    let directory = tempfile::tempdir().expect("a directory");
    let train = ["train", "quickstart", "--steps", "2", "--threads", "4", "--out"];
    let output = match without_threads(directory.path(), &[&train[..], &["alone"]].concat()) {
        Ok(output) => output,
        Err(e) => return skipped(testing::Need::Rights, &format!("no bash as another user: {e}")),
    };
    let printed = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{printed}");
    assert!(printed.contains("1 of 4 threads: ") && printed.contains("no thread to listen for signals"), "{printed}");
    common::good(directory.path(), &[&train[..], &["together"]].concat());
    let weights = |name: &str| std::fs::read(directory.path().join(name).join("model.safetensors")).expect("written");
    assert!(weights("alone") == weights("together"));
}

#[test]
fn absurd_training_is_refused_before_it_starts() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("book.txt"), "All work and no play. ".repeat(200)).expect("written");
    let describe = |hidden: usize, batch: usize| {
        let network = NETWORK.replace("hidden_size = 32", &format!("hidden_size = {hidden}"));
        let text = format!(
            "kind = \"language\"\nname = \"absurd\"\ntexts = []\ndocuments = \"files\"\nheld_out = 0.1\n\
             context = 64\nrecipe = \"bitnet\"\n[model]\n{network}causal = true\nhead = {{ lm = {{ tied = true }} }}\n\
             [train]\nsteps = 1\nbatch_size = {batch}\nlearning_rate = 1e-3\n"
        );
        std::fs::write(directory.path().join("absurd.toml"), text).expect("written");
    };
    let train = ["train", "absurd.toml", "--text", "book.txt", "--out", "model", "--threads", "1"];
    for (hidden, batch) in [(100_000_000, 1), (32, 1 << 20)] {
        describe(hidden, batch);
        let output = limited(directory.path(), 16_000_000, &train);
        refused(&output, &["weights, gradients and moments ", "activations ", "take a smaller network"]);
        assert!(!directory.path().join("model").exists(), "nothing is begun");
    }
    describe(32, 2);
    let output = limited(directory.path(), 16_000_000, &train);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn shapes_of_kernels_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let bench = ["bench", "kernels", "--threads", "1", "--shape", "16384x16384", "--rounds", "1"];
    refused(&limited(directory.path(), 2_000_000, &bench), &["weights ", "take smaller shapes"]);
}

fn config(vocabulary: usize, hidden: usize) -> Config {
    with_head(vocabulary, hidden, r#"{"lm": {"tied": true}}"#)
}

fn with_head(vocabulary: usize, hidden: usize, head: &str) -> Config {
    serde_json::from_str(&format!(
        r#"{{"architecture": "decoder", "vocab_size": {vocabulary}, "hidden_size": {hidden}, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "intermediate_size": 512,
            "hidden_act": "silu", "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "sub_norm": false, "causal": true,
            "head": {head}}}"#
    ))
    .expect("a configuration")
}

/// Masters that are all 0, and take no room on the disk.
fn sparse(directory: &Path, config: &Config) {
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for spec in ParameterList::new(config).expect("valid").params() {
        let shape = if spec.rows == 1 { vec![spec.cols] } else { vec![spec.rows, spec.cols] };
        let start = end;
        end += 4 * spec.rows * spec.cols;
        header.insert(
            spec.name.clone(),
            serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]}),
        );
    }
    let mut header = serde_json::to_vec(&header).expect("JSON");
    header.resize(header.len().next_multiple_of(8), b' ');
    std::fs::create_dir_all(directory).expect("made");
    let mut file = std::fs::File::create(directory.join("model.safetensors")).expect("created");
    file.write_all(&(header.len() as u64).to_le_bytes()).and_then(|()| file.write_all(&header)).expect("written");
    file.set_len((8 + header.len() + end) as u64).expect("as long");
    std::fs::write(directory.join("config.json"), ModelConfig::new(config.clone(), 64).to_json()).expect("written");
    Tokenizer::bytes().save(&directory.join("tokenizer.json")).expect("written");
}

#[test]
fn tensors_that_do_not_fit_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("text"), "All work and no play.").expect("written");
    // A table of 2 GB, mapped, of which 512 MB are made.
    sparse(&directory.path().join("model"), &config(2_000_000, 256));
    let at = |kibibytes, args: &[&str]| limited(directory.path(), kibibytes, &[args, &["--threads", "1"]].concat());
    let quantize = ["quantize", "model", "--recipe", "int8", "--out", "packed"];
    refused(&at(2_400_000, &quantize), &["tensor `", "its largest tensor must fit"]);
    assert!(!directory.path().join("packed").exists(), "nothing is begun");
    refused(&at(2_400_000, &["convert", "model", "packed", "--type", "int8"]), &["tensor `"]);
    refused(&at(2_400_000, &["inspect", "model"]), &["tensor `"]);
    refused(&at(2_400_000, &["eval", "model", "--text", "text", "--recipe", "int8"]), &["weights 5", "available are"]);
    refused(&at(2_400_000, &["run", "model", "-p", "x", "--recipe", "int8"]), &["weights 5", "keys and values"]);
    refused(&at(2_400_000, &["bench", "model", "--recipe", "int8"]), &["weights 5", "keys and values"]);
    refused(&at(1_500_000, &quantize), &["model.safetensors: ", "cannot be mapped", "ulimit -v"]);
}

#[test]
fn a_gguf_file_that_does_not_fit_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    // Six matrices of 410 MB, mapped, of which one is made at a time.
    sparse(&directory.path().join("model"), &config(258, 200_000));
    for table in ["f32", "f16"] {
        let convert = ["convert", "model", "model.gguf", "--type", "f16", "--table", table, "--threads", "1"];
        let output = limited(directory.path(), 3_900_000, &convert);
        refused(&output, &["tensor `model.layers.", "its largest tensor must fit", "ulimit -v"]);
        assert!(!directory.path().join("model.gguf").exists(), "nothing is begun");
    }
}

#[test]
fn calibration_that_does_not_fit_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let head = r#"{"classify": {"classes": 2, "pooling": "mean"}}"#;
    sparse(&directory.path().join("model"), &with_head(2_000_000, 256, head));
    let quantize = ["quantize", "model", "--recipe", "llm_int8", "--out", "packed", "--threads", "1"];
    let output = limited(directory.path(), 2_900_000, &[&quantize[..], &["--calibrate", "quickstart"]].concat());
    refused(&output, &["weights in f32 2.", "activations ", "quantize without calibration"]);
    assert!(!directory.path().join("packed").exists(), "nothing is begun");
}

#[test]
fn a_comparison_with_one_training_too_large_begins_none() {
    let directory = tempfile::tempdir().expect("a directory");
    common::small_suite(directory.path(), 2, 0);
    let path = directory.path().join("small.toml");
    let text = std::fs::read_to_string(&path).expect("written");
    let large = text.replace("train = { qat = {} }", "train = { qat = {}, batch_size = 1048576 }");
    assert_ne!(text, large);
    std::fs::write(&path, large).expect("written");
    let compare = ["compare", "small.toml", "--out", "out", "--threads", "1"];
    refused(
        &limited(directory.path(), 4_000_000, &compare),
        &["variant ternary_qat: needs ", "activations ", "batch_size"],
    );
    assert!(!directory.path().join("out/variants/f32/training").exists(), "the first of the suite is not begun either");
}

#[test]
fn a_prompt_of_60_megabytes_is_refused_by_its_length() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("words"), "all work and no play ".repeat(3_000_000)).expect("written");
    std::fs::write(at("letters"), "a".repeat(60_000_000)).expect("written");
    sparse(&at("model"), &config(400, 32));
    let words = "all work and no play makes a dull day ".repeat(20);
    let tokenizer = Tokenizer::train_bpe([words.as_str()], 300, false).expect("trained");
    tokenizer.save(&at("model").join("tokenizer.json")).expect("written");
    let template = "{% for m in messages %}{{ '<' + m.role + '>' + m.content }}{% endfor %}";
    sparse(&at("chats"), &config(400, 32));
    let config = std::fs::read_to_string(at("chats/config.json")).expect("written");
    let mut config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
    config["chat_template"] = template.into();
    std::fs::write(at("chats/config.json"), config.to_string()).expect("written");
    let chat = limited(directory.path(), 700_000, &["run", "chats", "-f", "letters", "--threads", "1"]);
    refused(&chat, &["text of the chat", "say less"]);
    for prompt in ["words", "letters"] {
        for model in [&["run", "model"][..], &["run"]] {
            let run = [model, &["-f", prompt, "-n", "1", "--threads", "1"]].concat();
            let output = limited(directory.path(), 1_500_000, &run);
            let printed = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{run:?}: {printed}");
            assert!(printed.contains("tokens is full: this takes at least "), "{run:?}: {printed}");
        }
    }
}

#[test]
fn a_model_cut_short_in_use_ends_a_chat_with_a_sentence() {
    let directory = tempfile::tempdir().expect("a directory");
    let model = directory.path().join("model");
    let (model_config, recipe) = (ModelConfig::new(config(258, 256), 64), recipe::find("int8").expect("a recipe"));
    checkpoint::save(&model, &model_config, Some(&Tokenizer::bytes()), recipe, &mut Synthetic::new(recipe, 1))
        .expect("written");
    let mut chat = lowbit();
    chat.args(["run", "model", "-cnv", "--threads", "1"]).current_dir(directory.path());
    let mut chat = chat.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("started");
    let mut printed = BufReader::new(chat.stderr.take().expect("piped")).lines();
    while !printed.next().expect("a greeting").expect("UTF-8").contains("/help lists commands") {}
    let weights = std::fs::File::options().write(true).open(model.join("model.safetensors")).expect("there");
    weights.set_len(4096).expect("cut");
    chat.stdin.take().expect("piped").write_all(b"Hello\n").expect("read");
    let rest: Vec<String> = printed.map(|line| line.expect("UTF-8")).collect();
    assert_eq!(chat.wait().expect("ended").code(), Some(5), "{rest:?}");
    let last = rest.last().expect("a sentence");
    assert!(last.starts_with("error: ") && last.contains("model.safetensors: cannot be read any more"), "{rest:?}");
}
