//! Running the program as a user would.
#![allow(dead_code)] // each test file uses a part

use std::path::Path;
use std::process::{Command, Output};

/// The program.
pub fn lowbit() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lowbit"));
    for variable in ["LOWBIT_DATA", "LOWBIT_ISA", "LOWBIT_SEEDS", "LOWBIT_THREADS"] {
        command.env_remove(variable);
    }
    command
}

/// Runs it in a directory.
pub fn run(directory: &Path, args: &[&str]) -> Output {
    lowbit().current_dir(directory).args(args).output().expect("the program starts")
}

/// Runs it and demands success.
pub fn good(directory: &Path, args: &[&str]) -> String {
    let output = run(directory, args);
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {} {printed}", output.status);
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Demands one line on stderr with these words, and an exit code.
pub fn refused(directory: &Path, args: &[&str], code: i32, words: &[&str]) {
    let output = run(directory, args);
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    let last = printed.lines().last().unwrap_or_default();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {printed}");
    assert!(!printed.contains("panicked"), "{args:?}: {printed}");
    let errors = printed.lines().filter(|line| line.starts_with("error: ")).count();
    assert_eq!(errors, 1, "{args:?}: {printed}");
    for word in words {
        assert!(last.contains(word), "{args:?}: `{word}` is not in: {last}");
    }
}

/// A network small enough for a test, as the TOML of suites and language models has it.
pub const NETWORK: &str = r#"architecture = "decoder"
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 1
head_dim = 16
intermediate_size = 48
hidden_act = "relu2"
rope_theta = 10000.0
rms_norm_eps = 1e-5
sub_norm = true
"#;

/// A suite small enough for a test: two trained variants and a few made from the first.
pub fn small_suite(directory: &Path, steps: u64, save_every: u64) {
    let text = format!(
        r#"
name = "small"
task = "quickstart"
baseline = "f32"
max_length = 32
tokenizer = {{ kind = "bpe", vocab_size = 400, lowercase = true }}
[model]
{NETWORK}causal = false
bigram_buckets = 256
dropout = 0.1
head = {{ classify = {{ pooling = "mean" }} }}
[train]
steps = {steps}
batch_size = 16
learning_rate = 3e-3
warmup_steps = 5
token_dropout = 0.1
seed = 7
save_every = {save_every}
[[variant]]
name = "f32"
recipe = "f32"
[[variant]]
name = "int8"
recipe = "int8"
from = "f32"
[[variant]]
name = "llm_int8"
recipe = "llm_int8"
from = "f32"
[[variant]]
name = "nf4"
recipe = "nf4"
from = "f32"
[[variant]]
name = "ternary_ptq"
recipe = "ternary"
from = "f32"
expected_to_fail = true
[[variant]]
name = "ternary_qat"
recipe = "bitnet"
train = {{ qat = {{}} }}
"#
    );
    std::fs::write(directory.join("small.toml"), text).expect("writable");
}
