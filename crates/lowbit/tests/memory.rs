//! Work that does not fit into memory is refused with exit code 4 and one sentence.
#![cfg(target_os = "linux")]

mod common;

use common::lowbit;
use std::path::Path;
use std::process::{Command, Output};

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
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{told}");
    let errors: Vec<&str> = told.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{told}");
    for word in words {
        assert!(errors[0].contains(word), "`{word}` is not in: {told}");
    }
}

#[test]
fn doctor_tells_what_is_available_and_which_limit_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = limited(directory.path(), 3_000_000, &["doctor", "--threads", "1"]);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("available (the limit of address space, ulimit -v)"), "{told}");
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
