//! What a stranger's files, numbers and places do to the program: the right exit code and one line.

mod common;

use common::{good, lowbit, refused, small_suite};
use lowbit::model::checkpoint::save_masters;
use lowbit::model::parameter_list::ParameterList;
use lowbit::model::recipe::RECIPES;
use lowbit::model::source::Role;
use lowbit::model::{Config, ModelConfig, Tokenizer};
use lowbit_base::testing::{Need, skipped};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// A language model over bytes in `m` whose norms multiply by `gain`.
fn model(directory: &Path, gain: f32) {
    let config: Config = serde_json::from_str(
        r#"{"architecture": "decoder", "vocab_size": 258, "hidden_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 48,
            "hidden_act": "silu", "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "sub_norm": false, "causal": true,
            "head": {"lm": {"tied": false}}}"#,
    )
    .expect("a configuration");
    let parameters = ParameterList::new(&config).expect("parameters");
    let values = |role: Role, n: usize| -> Vec<f32> {
        (0..n).map(|i| if role == Role::Norm { gain } else { ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0 }).collect()
    };
    let weights: Vec<Vec<f32>> = parameters.params().iter().map(|p| values(p.role, p.rows * p.cols)).collect();
    let params = parameters.params().iter().zip(&weights).map(|(spec, values)| (spec, &values[..]));
    let model_config = ModelConfig::new(config, 64);
    save_masters(&directory.join("m"), &model_config, Some(&Tokenizer::bytes()), params).expect("written");
}

#[test]
fn numbers_that_overflow_end_with_6_under_every_recipe() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    fs::write(at.join("text"), "All work and no play.").expect("written");
    for recipe in RECIPES.iter().map(|recipe| recipe.name) {
        let of = |args: &[&'static str]| [args, &["--recipe", recipe, "--threads", "1"]].concat();
        model(at, 1.0);
        good(at, &of(&["eval", "m", "--text", "text"]));
        model(at, 3e38);
        refused(at, &of(&["run", "m", "-p", "All work", "-n", "2"]), 6, &["not finite"]);
        refused(at, &of(&["eval", "m", "--text", "text"]), 6, &["not finite"]);
    }
}

#[test]
fn a_text_too_short_names_its_file() {
    let directory = tempfile::tempdir().expect("a directory");
    model(directory.path(), 1.0);
    fs::write(directory.path().join("nothing.txt"), "").expect("written");
    refused(directory.path(), &["eval", "m", "--text", "nothing.txt"], 3, &["nothing.txt"]);
}

#[cfg(unix)]
#[test]
fn the_shipped_model_needs_no_place_to_write() {
    let directory = tempfile::tempdir().expect("a directory");
    for home in [None, Some("/dev/null/home"), Some("")] {
        let mut command = lowbit();
        command.current_dir(directory.path()).args(["run", "-p", "A film", "-n", "2", "--threads", "1"]);
        for variable in ["HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "TMPDIR"] {
            match home {
                Some(home) => command.env(variable, home),
                None => command.env_remove(variable),
            };
        }
        let output = command.output().expect("started");
        assert!(output.status.success(), "{home:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(fs::read_dir(directory.path()).expect("there").count(), 0, "nothing is left beside");
    }
}

#[test]
fn a_strict_training_refuses_rows_of_the_test() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    let rows = "text,label\ngood film,0\nbad film,1\nfine play,0\npoor play,1\n";
    fs::write(at.join("train.csv"), rows).expect("written");
    fs::write(at.join("test.csv"), "text,label\ngood film,0\nother film,1\n").expect("written");
    let task = r#"name = "own"
version = 1
about = "Films."
question = "classify"
classes = ["yes", "no"]
[[train]]
paths = ["train.csv"]
header = true
text = ["text"]
label = "label"
[[test]]
paths = ["test.csv"]
header = true
text = ["text"]
label = "label"
"#;
    fs::write(at.join("own.toml"), task).expect("written");
    small_suite(at, 2, 0);
    let suite = fs::read_to_string(at.join("small.toml")).expect("written");
    fs::write(at.join("small.toml"), suite.replace("task = \"quickstart\"", "task = \"own.toml\"")).expect("written");
    let train = ["train", "small.toml", "--data", ".", "--out", "model"];
    let strict = [&train[..], &["--strict"]].concat();
    refused(at, &strict, 3, &["task own: 1 of 2 test rows are among the training rows", "exclude_test_from_train"]);
    assert!(!at.join("model").exists(), "nothing is begun");
    fs::write(at.join("own.toml"), format!("exclude_test_from_train = true\n{task}")).expect("written");
    good(at, &strict);
    refused(at, &["train", "text", "--strict", "--out", "language"], 2, &["--strict has no use there"]);
}

#[test]
fn a_suite_of_thousands_is_refused_in_time() {
    let directory = tempfile::tempdir().expect("a directory");
    small_suite(directory.path(), 2, 0);
    let path = directory.path().join("small.toml");
    let mut suite = fs::read_to_string(&path).expect("written");
    let variant = |i: usize| format!("[[variant]]\nname = \"v{i}\"\nrecipe = \"nf4\"\nfrom = \"f32\"\n");
    suite.extend((0..18_000).map(variant));
    fs::write(&path, &suite).expect("written");
    let start = Instant::now();
    refused(
        directory.path(),
        &["compare", "small.toml", "--out", "out"],
        3,
        &["small.toml", "18006 variants: a suite has 1000 at most"],
    );
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

/// Seconds of CPU time that a training with so many threads takes on one CPU.
#[cfg(target_os = "linux")]
fn cpu_seconds(directory: &Path, threads: &str) -> f64 {
    let first = "$(taskset -cp $$ | sed 's/.*: //; s/[-,].*//')";
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("taskset -c \"{first}\" \"$0\" \"$@\" && times")).arg(lowbit().get_program());
    shell.args(["train", "small.toml", "--threads", threads, "--out", threads]).current_dir(directory);
    let output = shell.output().expect("a shell");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // The last line: user and system time of the children, as `0m1.25s 0m0.03s`.
    let printed = String::from_utf8(output.stdout).expect("UTF-8");
    let seconds = |time: &str| {
        let (minutes, seconds) = time.strip_suffix('s').and_then(|time| time.split_once('m')).expect("a time");
        60.0 * minutes.parse::<f64>().expect("minutes") + seconds.parse::<f64>().expect("seconds")
    };
    printed.lines().last().expect("times").split_whitespace().map(seconds).sum()
}

#[cfg(target_os = "linux")]
#[test]
fn many_threads_on_one_cpu_cost_little() {
    if !Command::new("taskset").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return skipped(Need::Environment, "no taskset");
    }
    let directory = tempfile::tempdir().expect("a directory");
    small_suite(directory.path(), 40, 0);
    let [one, many] = ["1", "64"].map(|threads| cpu_seconds(directory.path(), threads));
    assert!(many < 3.0 * one + 1.0, "64 threads take {many} s of CPU time, one takes {one} s");
    let weights = |threads: &str| fs::read(directory.path().join(threads).join("model.safetensors")).expect("written");
    assert!(weights("1") == weights("64"));
}
