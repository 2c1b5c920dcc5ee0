//! SIGINT and SIGTERM: exit code 130, and nothing half made.
#![cfg(unix)]

mod common;

use common::{good, lowbit, small_suite};
use lowbit_model::checkpoint::save_masters;
use lowbit_model::parameter_list::ParameterList;
use lowbit_model::{Config, ModelConfig, Tokenizer};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A language model of some 40 million parameters as masters, which takes seconds to quantize.
fn large_model(directory: &Path) {
    let config: Config = serde_json::from_str(
        r#"{"architecture": "bitnet", "vocab_size": 258, "hidden_size": 1024, "num_hidden_layers": 4,
            "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 64, "intermediate_size": 2048,
            "hidden_act": "relu2", "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "sub_norm": true, "causal": true,
            "head": {"lm": {"tied": false}}}"#,
    )
    .unwrap();
    let parameters = ParameterList::new(&config).unwrap();
    let values: Vec<Vec<f32>> = parameters
        .params()
        .iter()
        .map(|p| (0..p.rows * p.cols).map(|i| ((i * 7919) % 1013) as f32 / 1013.0 - 0.5).collect())
        .collect();
    let params = parameters.params().iter().zip(values.iter().map(Vec::as_slice));
    save_masters(directory, &ModelConfig::new(config, 256), Some(&Tokenizer::bytes()), params).unwrap();
}

fn spawn(at: &Path, args: &[&str]) -> Child {
    let mut command = lowbit();
    command.current_dir(at).args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the program starts")
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &child.id().to_string()]).status();
    assert!(sent.expect("kill").success());
}

/// Demands an end by the signal within seconds; what stderr said.
fn ended(mut child: Child, what: &str) -> String {
    let start = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None => assert!(start.elapsed() < Duration::from_secs(20), "{what} goes on"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut printed = String::new();
    child.stderr.take().unwrap().read_to_string(&mut printed).unwrap();
    assert_eq!(status.code(), Some(130), "{what}: {printed}");
    printed
}

/// Every file and folder below.
fn walk(directory: &Path) -> Vec<String> {
    let mut out = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        out.push(entry.path().display().to_string());
        if entry.path().is_dir() {
            out.extend(walk(&entry.path()));
        }
    }
    out.sort();
    out
}

#[test]
fn writers_stop_and_leave_nothing() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    large_model(&at.join("model"));
    good(at, &["quantize", "model", "--recipe", "int8", "--out", "earlier"]);
    let weights = |name: &str| fs::read(at.join(name).join("model.safetensors")).unwrap();
    let (before, earlier) = (walk(at), weights("earlier"));
    for (args, name) in [
        (&["quantize", "model", "--recipe", "nf4_dq", "--out", "new"][..], "TERM"),
        (&["quantize", "model", "--recipe", "nf4_dq", "--out", "earlier"], "INT"),
        (&["convert", "model", "new.gguf", "--type", "q8_0", "--table", "f32"], "TERM"),
        (&["convert", "model", "new", "--type", "nf4_dq"], "INT"),
    ] {
        let mut child = spawn(at, args);
        // It is at work when something new is there.
        while walk(at) == before && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        signal(&child, name);
        let printed = ended(child, &format!("{args:?}"));
        assert!(printed.contains("interrupted") && !printed.contains("panicked"), "{printed}");
        assert_eq!(walk(at), before, "{args:?}");
    }
    assert!(weights("earlier") == earlier, "the earlier model stays");
}

#[test]
fn eval_and_run_stop() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    large_model(&at.join("model"));
    fs::write(at.join("long.txt"), "All work and no play. ".repeat(100_000)).unwrap();
    let before = walk(at);
    for name in ["INT", "TERM"] {
        let child = spawn(at, &["eval", "model", "--text", "long.txt"]);
        std::thread::sleep(Duration::from_millis(1500));
        signal(&child, name);
        ended(child, "eval");
        // An answer ends between two tokens, and what came of it was printed.
        let mut child = spawn(at, &["run", "model", "-p", "All", "-n", "250", "--temp", "0"]);
        let mut first = [0];
        child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
        signal(&child, name);
        let printed = ended(child, "run");
        assert!(printed.contains("the answer is not complete"), "{printed}");
    }
    assert_eq!(walk(at), before);
}

#[test]
fn a_comparison_stops_while_it_measures_and_goes_on_later() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    small_suite(at, 20, 10);
    for name in ["INT", "TERM"] {
        let mut child = spawn(at, &["compare", "small.toml", "--out", "out"]);
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        while !lines.next().expect("a line more").unwrap().starts_with("timing all variants") {}
        child.stderr = None;
        std::thread::sleep(Duration::from_millis(100));
        signal(&child, name);
        let status = child.wait().unwrap();
        let printed: Vec<String> = lines.map_while(Result::ok).collect();
        assert_eq!(status.code(), Some(130), "{printed:?}");
        assert!(printed.iter().any(|line| line.contains("the same command resumes what is in out")), "{printed:?}");
        assert!(!at.join("out/results.json").exists());
    }
    let child = spawn(at, &["compare", "small.toml", "--out", "out"]);
    let output = child.wait_with_output().unwrap();
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(at.join("out/results.json").exists() && printed.contains("kept from before"), "{printed}");
    let left: Vec<String> =
        walk(at).into_iter().filter(|path| path.contains("tmp") && !path.contains("/.tmp")).collect();
    assert!(left.iter().all(|path| !path.ends_with(".tmp") && !path.ends_with(".partial")), "{left:?}");
}

/// Commands that leave nothing half made end at once, also those that wait.
#[test]
fn whatever_waits_ends_at_once() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    for args in [&["run", "-p", "-"][..], &["run", "-i"]] {
        for name in ["INT", "TERM"] {
            let mut command = lowbit();
            command.current_dir(at).args(args).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
            let child = command.spawn().unwrap();
            std::thread::sleep(Duration::from_millis(700));
            signal(&child, name);
            if args.contains(&"-i") && name == "INT" {
                // Ctrl-C stops answers; a second one, with none to stop, leaves.
                std::thread::sleep(Duration::from_millis(200));
                signal(&child, name);
            }
            ended(child, &format!("{args:?} {name}"));
        }
    }
}
