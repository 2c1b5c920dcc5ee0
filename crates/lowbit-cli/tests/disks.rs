//! Disks that fail, and kills, at each operation on files of each writer: an earlier result is as it was or the new one is
//! complete, and nothing temporary stays. A shim that the dynamic linker loads lets the operations fail.
#![cfg(target_os = "linux")]

mod common;

use common::{NETWORK, good, lowbit, run, small_suite};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A command that writes, after another has written to the same place.
struct Writer {
    before: &'static [&'static str],
    args: &'static [&'static str],
    stdin: &'static str,
    /// What it writes: a file or a directory.
    result: &'static str,
    /// Files of a directory that do not say whether it is complete.
    aside: &'static [&'static str],
}

const fn writer(before: &'static [&'static str], args: &'static [&'static str], result: &'static str) -> Writer {
    Writer { before, args, stdin: "", result, aside: &[] }
}

/// Every command that writes files.
static WRITERS: &[Writer] = &[
    writer(&["quantize", "m", "-r", "int8", "-o", "q"], &["quantize", "m", "-r", "nf4", "-o", "q"], "q"),
    writer(&["convert", "m", "c", "--type", "bf16"], &["convert", "m", "c", "--type", "int8"], "c"),
    writer(
        &["convert", "l", "l.gguf", "--type", "f32", "--table", "f32"],
        &["convert", "l", "l.gguf", "--type", "f16", "--table", "f16"],
        "l.gguf",
    ),
    Writer {
        aside: &["checkpoints", "metrics.jsonl"],
        ..writer(&[], &["train", "small.toml", "--steps", "2", "--save-steps", "1", "-o", "t"], "t")
    },
    writer(&["report", "r"], &["report", "r", "-o", "s"], "s"),
    writer(
        &["predict", "m", "text.txt", "-o", "o.csv"],
        &["predict", "m", "text.txt", "--top", "1", "-o", "o.csv"],
        "o.csv",
    ),
    writer(&["predict", "m", "text.txt", "--top", "1", "-o", "w.csv"], &["merge", "w.csv"], "w.csv"),
    writer(&[], &["init", "i"], "i"),
    writer(
        &["run", "l", "-p", "ab", "-n", "2", "--temp", "0", "--prompt-cache", "p"],
        &["run", "l", "-p", "abcdef", "-n", "2", "--temp", "0", "--prompt-cache", "p"],
        "p",
    ),
    Writer {
        stdin: "ab\n/save talk.json\n",
        ..writer(&[], &["run", "l", "-i", "-n", "2", "--seed", "1"], "talk.json")
    },
];

/// Files below a path, by their place; one file is the empty place.
fn content(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut open = vec![path.to_path_buf()];
    while let Some(next) = open.pop() {
        match fs::read_dir(&next) {
            Ok(entries) => open.extend(entries.map(|e| e.expect("an entry").path())),
            Err(_) => {
                if let Ok(bytes) = fs::read(&next) {
                    all.insert(next.strip_prefix(path).expect("below").into(), bytes);
                }
            }
        }
    }
    all
}

impl Writer {
    /// What it wrote, as far as it tells whether it is complete.
    fn wrote(&self, at: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut all = content(&at.join(self.result));
        all.retain(|path, _| !self.aside.iter().any(|aside| path.starts_with(aside)));
        all
    }

    fn run(&self, at: &Path, fault: Option<(&Path, &str)>) -> Output {
        let mut command = lowbit();
        command.current_dir(at).args(["--threads", "1"]).args(self.args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some((shim, fault)) = fault {
            command.env("LD_PRELOAD", shim).env("LOWBIT_TEST_FAULT", fault);
            command.env("LOWBIT_TEST_ROOT", at).env("LOWBIT_TEST_HIT", hit(at));
        }
        let mut child = command.spawn().expect("the program starts");
        // A program that has ended reads nothing.
        let _ = child.stdin.take().expect("a pipe").write_all(self.stdin.as_bytes());
        child.wait_with_output().expect("an end")
    }
}

/// The file that tells that the fault happened; beside the directory, so that it is no operation below it.
fn hit(at: &Path) -> PathBuf {
    at.with_added_extension("hit")
}

/// Names of what is left of files that were being written.
fn leftovers(at: &Path) -> Vec<PathBuf> {
    let temporary = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with(".lowbit") || name.ends_with(".tmp") || name.ends_with(".partial")
    };
    content(at).into_keys().filter(temporary).collect()
}

/// The shim, where there is a compiler for it.
fn shim(home: &Path) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/disks/shim.c");
    let shim = home.join("shim.so");
    let made = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&shim).arg(&source).arg("-ldl").status();
    match made {
        Ok(status) => {
            assert!(status.success(), "the shim compiles");
            Some(shim)
        }
        Err(_) => {
            println!("skipped: no C compiler");
            None
        }
    }
}

/// A directory with a classifier `m`, a language model `l` and a report `r`.
fn home(at: &Path) {
    fs::create_dir(at).expect("made");
    small_suite(at, 2, 0);
    good(at, &["train", "small.toml", "-o", "m"]);
    let text = format!(
        r#"
kind = "language"
name = "tiny"
texts = []
documents = "files"
held_out = 0.0
context = 64
recipe = "f32"
[model]
{NETWORK}causal = true
head = {{ lm = {{ tied = true }} }}
[train]
steps = 1
batch_size = 2
learning_rate = 1e-3
"#
    );
    fs::write(at.join("tiny.toml"), text).expect("written");
    fs::write(at.join("text"), "abcdefgh ".repeat(100)).expect("written");
    fs::write(at.join("text.txt"), "a payment\na refund\n").expect("written");
    good(at, &["predict", "m", "text.txt", "-o", "w.csv", "--shard", "1/1"]);
    good(at, &["train", "tiny.toml", "--text", "text", "-o", "l"]);
    let suite = fs::read_to_string(at.join("small.toml")).expect("written");
    let [first, second] = ["name = \"llm_int8\"", "[[variant]]"];
    let cut = suite[..suite.find(first).expect("there")].rfind(second).expect("there");
    fs::write(at.join("two.toml"), &suite[..cut]).expect("written");
    good(at, &["compare", "two.toml", "-o", "r"]);
}

fn copy(from: &Path, to: &Path) {
    for (path, bytes) in content(from) {
        let path = to.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, bytes).expect("written");
    }
}

#[test]
fn each_failure_and_kill_leaves_the_earlier_or_the_new_result() {
    let root = tempfile::tempdir().expect("a directory");
    let Some(shim) = shim(root.path()) else { return };
    let template = root.path().join("template");
    home(&template);
    for (i, writer) in WRITERS.iter().enumerate() {
        let first = root.path().join(format!("{i}"));
        copy(&template, &first);
        if !writer.before.is_empty() {
            good(&first, writer.before);
        }
        let old = writer.wrote(&first);
        let ready = root.path().join(format!("{i}-ready"));
        copy(&first, &ready);
        let output = writer.run(&first, None);
        assert!(output.status.success(), "{:?}: {}", writer.args, String::from_utf8_lossy(&output.stderr));
        let new = writer.wrote(&first);
        assert_ne!(old, new, "{:?} writes", writer.args);
        for kind in ["once", "full", "kill"] {
            let faults = (0..)
                .take_while(|n| attempt(writer, (&ready, &root.path().join("now")), &shim, (kind, *n), [&old, &new]));
            let count = faults.count();
            assert!(count >= 5, "{:?}: only {count} operations can fail", writer.args);
        }
    }
}

/// Runs a writer with a fault; false when the fault did not happen any more.
fn attempt(
    writer: &Writer,
    (ready, at): (&Path, &Path),
    shim: &Path,
    (kind, n): (&str, usize),
    [old, new]: [&BTreeMap<PathBuf, Vec<u8>>; 2],
) -> bool {
    let fault = format!("{kind}:{n}");
    let _ = fs::remove_dir_all(at);
    let _ = fs::remove_file(hit(at));
    copy(ready, at);
    let output = writer.run(at, Some((shim, &fault)));
    let printed = format!("{:?} {fault}: {} {}", writer.args, output.status, String::from_utf8_lossy(&output.stderr));
    if !hit(at).exists() {
        assert!(output.status.success(), "{printed}");
        return false;
    }
    if kind == "kill" {
        // The next reader or writer settles what was between two names.
        let again = writer.run(at, None);
        assert!(again.status.success(), "{printed}, then {}", String::from_utf8_lossy(&again.stderr));
        assert!(writer.wrote(at) == *new, "{printed}");
    } else {
        assert!(!printed.contains("panicked"), "{printed}");
        assert!(matches!(output.status.code(), Some(0 | 5)), "{printed}");
        let wrote = writer.wrote(at);
        assert!(wrote == *old || wrote == *new, "{printed}: {:?}", wrote.keys());
        // A chat goes on after a file that could not be written, and says so.
        assert!(!output.status.success() || wrote == *new || printed.contains("\nerror: "), "{printed}");
    }
    assert_eq!(leftovers(at), Vec::<PathBuf>::new(), "{printed}");
    true
}

/// A comparison does hundreds of operations in seconds; so many are left out between two that fail.
const STRIDE: usize = 61;

#[test]
fn a_comparison_that_fails_anywhere_is_resumed_to_the_same_models() {
    let root = tempfile::tempdir().expect("a directory");
    let Some(shim) = shim(root.path()) else { return };
    let (template, at) = (root.path().join("template"), root.path().join("now"));
    home(&template);
    let compare = writer(&[], &["compare", "two.toml", "-o", "z"], "z");
    let models = |at: &Path| {
        let mut all = content(&at.join("z/variants"));
        all.retain(|path, _| path.ends_with("model/model.safetensors"));
        all
    };
    let fresh = || {
        let _ = fs::remove_dir_all(&at);
        let _ = fs::remove_file(hit(&at));
        copy(&template, &at);
    };
    fresh();
    assert!(compare.run(&at, None).status.success());
    let want = models(&at);
    assert_eq!(want.len(), 2);
    for kind in ["once", "full", "kill"] {
        for n in (1..).step_by(STRIDE) {
            fresh();
            let output = compare.run(&at, Some((&shim, &format!("{kind}:{n}"))));
            let printed = format!("{kind}:{n}: {} {}", output.status, String::from_utf8_lossy(&output.stderr));
            if !hit(&at).exists() {
                assert!(output.status.success() && n > 2 * STRIDE, "{printed}");
                break;
            }
            if kind != "kill" {
                assert!(matches!(output.status.code(), Some(0 | 5)) && !printed.contains("panicked"), "{printed}");
                assert_eq!(leftovers(&at), Vec::<PathBuf>::new(), "{printed}");
            }
            let again = compare.run(&at, None);
            assert!(again.status.success(), "{printed}, then {}", String::from_utf8_lossy(&again.stderr));
            assert!(models(&at) == want && leftovers(&at).is_empty(), "{printed}");
            good(&at, &["report", "z", "--verify"]);
        }
    }
}

#[test]
fn planted_links_destroy_nothing() {
    let root = tempfile::tempdir().expect("a directory");
    let template = root.path().join("template");
    home(&template);
    for (i, writer) in WRITERS.iter().enumerate() {
        let at = root.path().join(format!("{i}"));
        copy(&template, &at);
        assert!(writer.run(&at, None).status.success());
        let written: Vec<PathBuf> = content(&at.join(writer.result)).into_keys().collect();
        for path in written {
            let _ = fs::remove_dir_all(&at);
            copy(&template, &at);
            let precious = root.path().join("precious");
            fs::write(&precious, "mine").expect("written");
            let target =
                if path.as_os_str().is_empty() { at.join(writer.result) } else { at.join(writer.result).join(&path) };
            fs::create_dir_all(target.parent().expect("a folder")).expect("made");
            let plain = target.with_added_extension("tmp");
            for link in [
                &target,
                &plain,
                &target.with_added_extension("partial"),
                &target.parent().expect("one").join(".lowbit.lock"),
            ] {
                let _ = fs::remove_file(link);
                symlink(&precious, link).expect("linked");
                writer.run(&at, None);
                assert_eq!(
                    fs::read_to_string(&precious).expect("there"),
                    "mine",
                    "{:?}: {}",
                    writer.args,
                    link.display()
                );
                fs::remove_file(link).unwrap_or_default();
            }
        }
    }
}

#[test]
fn two_writers_in_one_place_leave_one_whole_result() {
    let root = tempfile::tempdir().expect("a directory");
    let at = root.path().join("home");
    home(&at);
    let quantize = |recipe: &str| {
        let mut command = lowbit();
        command
            .current_dir(&at)
            .args(["quantize", "m", "-r", recipe, "-o", "q"])
            .stderr(Stdio::piped())
            .stdout(Stdio::null());
        command.spawn().expect("the program starts")
    };
    for _ in 0..5 {
        let both = ["int8", "nf4"].map(quantize).map(|child| child.wait_with_output().expect("an end"));
        assert!(both.iter().any(|output| output.status.success()));
        for output in both.iter().filter(|output| !output.status.success()) {
            let printed = String::from_utf8_lossy(&output.stderr).into_owned();
            // The other one may not have written its number yet.
            let is_told = printed.contains("locked by pid") || printed.contains("locked by another process");
            assert!(output.status.code() == Some(5) && is_told, "{printed}");
        }
        good(&at, &["inspect", "q"]);
        assert_eq!(leftovers(&at), Vec::<PathBuf>::new());
    }
}

#[test]
fn one_flipped_bit_is_found() {
    let root = tempfile::tempdir().expect("a directory");
    let at = root.path().join("home");
    home(&at);
    let weights = at.join("m/model.safetensors");
    let whole = fs::read(&weights).expect("there");
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().expect("eight bytes")) as usize;
    let commands: &[&[&str]] = &[
        &["inspect", "m"],
        &["quantize", "m", "-r", "int8", "-o", "x"],
        &["convert", "m", "y", "--type", "bf16"],
        &["eval", "m", "--task", "quickstart"],
    ];
    for place in [header + 2, header + (whole.len() - header) / 2, whole.len() - 3] {
        let mut bytes = whole.clone();
        bytes[place] ^= 1;
        fs::write(&weights, bytes).expect("written");
        for command in commands {
            common::refused(&at, command, 3, &["tensor `", "checksum differs"]);
        }
        assert!(!at.join("x").exists() && !at.join("y").exists(), "nothing half-made");
    }
    fs::write(&weights, whole).expect("written");
    let foreign = ["convert", "l", "l.gguf", "--type", "f32", "--table", "f32"];
    good(&at, &foreign);
    let printed = run(&at, &["inspect", "l.gguf"]);
    assert!(!String::from_utf8_lossy(&printed.stderr).contains("checksum"), "it is a property, no warning");
    assert!(String::from_utf8_lossy(&printed.stdout).contains("checksums: none in the file"));
    assert!(good(&at, commands[0]).contains("checksums: as the weights are"));
}
