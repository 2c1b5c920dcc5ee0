//! What reaches stdout and stderr, and what happens when they fail.

mod common;

use common::{good, lowbit, small_suite};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Output, Stdio};

fn trained(at: &Path) {
    small_suite(at, 3, 0);
    good(at, &["train", "small.toml", "--out", "model"]);
}

/// Runs the program with one of its streams on a device that is always full.
#[cfg(target_os = "linux")]
fn full(at: &Path, args: &[&str], stdout: bool) -> Output {
    let device = || Stdio::from(File::options().write(true).open("/dev/full").expect("a device"));
    let mut command = lowbit();
    command.current_dir(at).args(args).stdin(Stdio::null());
    match stdout {
        true => command.stdout(device()).stderr(Stdio::piped()),
        false => command.stdout(Stdio::piped()).stderr(device()),
    };
    command.spawn().and_then(|child| child.wait_with_output()).expect("the program starts")
}

#[test]
#[cfg(target_os = "linux")]
fn a_stream_that_is_full_is_an_io_failure() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    trained(at);
    fs::write(at.join("model/text"), "some text").unwrap();
    for args in [
        &["--help"][..],
        &["--version"],
        &["help", "run"],
        &["run", "--help"],
        &["completions", "bash"],
        &["inspect", "model"],
        &["inspect", "model", "--json"],
        &["eval", "model", "--task", "quickstart", "--limit", "5"],
        &["quantize", "model", "--recipe", "int8", "--out", "int8"],
        &["run", "-p", "The", "-n", "3"],
        &["run", "-p", "The", "-n", "3", "--json"],
    ] {
        let output = full(at, args, true);
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(5), "{args:?}: {printed}");
        let last = printed.lines().last().unwrap_or_default();
        assert!(last.starts_with("error: standard output: No space left"), "{args:?}: {printed}");
    }
    // Remarks that nobody can read are a failure, too; a refusal keeps its own code.
    for (args, code) in
        [(&["train", "small.toml", "--out", "new"][..], 5), (&["inspect", "nowhere"], 5), (&["--nope"], 2)]
    {
        let output = full(at, args, false);
        assert_eq!(output.status.code(), Some(code), "{args:?}");
    }
}

#[test]
#[cfg(unix)]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    trained(at);
    for args in [
        &["--help"][..],
        &["completions", "zsh"],
        &["inspect", "model", "--json"],
        &["run", "-p", "The", "-n", "30", "--seed", "1"],
    ] {
        let mut command = lowbit();
        command.current_dir(at).args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && !printed.contains("error"), "{args:?}: {printed}");
    }
}

#[test]
#[cfg(unix)]
fn no_name_or_path_is_a_command_to_a_terminal() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    trained(at);
    let strange = "a\u{1b}[2J\u{9b}31mb";
    let path = |end: &str| format!("{strange}{end}");
    fs::rename(at.join("small.toml"), at.join(path(".toml"))).unwrap();
    fs::create_dir(at.join(strange)).unwrap();
    let (suite, out) = (path(".toml"), path("-out"));
    for args in [
        &["inspect", strange][..],
        &["inspect", "model", strange],
        &["run", strange, "-p", "x"],
        &["bench", strange],
        &[strange],
        &["--isa", strange, "doctor"],
        &["--threads", strange, "doctor"],
        &["compare", strange],
        &["compare", &out],
        &["train", &suite, "--variant", strange, "--out", "x"],
        &["train", "--text", strange, "--out", "x"],
        &["train", &suite, "--out", &out, "--steps", "2"],
        &["quantize", &out, "--recipe", "int8", "--out", &path("-int8")],
        &["quantize", &out, "--recipe", strange, "--out", "x"],
        &["eval", &out, "--task", "quickstart", "--limit", "5"],
        &["eval", &out, "--task", "quickstart", "--limit", "5", "--json"],
        &["eval", &out, "--task", strange],
        &["convert", "model", &path(".gguf")],
        &["report", strange],
    ] {
        let output = lowbit().current_dir(at).env("LOWBIT_DATA", strange).args(args).output().unwrap();
        for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
            let text = String::from_utf8_lossy(bytes);
            let raw = text.chars().find(|c| c.is_control() && !"\n\t".contains(*c));
            assert!(raw.is_none(), "{args:?}: {name} has {raw:?}: {}", text.escape_debug());
        }
        if args.contains(&"--json") {
            serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap();
        }
    }
}
