//! `lowbit run` as a user meets it, on a tiny random model.

mod common;
#[path = "common/language.rs"]
mod language;

use common::{lowbit, refused, run};
use language::{CHAT, LM, model};
use lowbit::model::chat::{Message, Role};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

fn chatty() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    model(directory.path(), Some(CHAT), LM);
    directory
}

fn plain() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    model(directory.path(), None, LM);
    directory
}

/// Runs with text on stdin.
fn piped(directory: &Path, args: &[&str], input: &str) -> Output {
    let mut command = lowbit();
    command.current_dir(directory).args(args).env("XDG_STATE_HOME", directory);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("written");
    child.wait_with_output().expect("ends")
}

/// Runs with text on stdin and demands success: stdout and stderr.
fn printed(directory: &Path, args: &[&str], input: &str) -> (String, String) {
    let output = piped(directory, args, input);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {} {errors}", output.status);
    (String::from_utf8(output.stdout).expect("UTF-8"), errors)
}

fn json(directory: &Path, args: &[&str]) -> Value {
    let all = [&["run", "m", "--json"], args].concat();
    let (out, errors) = printed(directory, &all, "");
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out} {errors}"))
}

#[test]
fn one_shot() {
    let at = plain();
    let (out, errors) = printed(at.path(), &["run", "m", "-p", "Hello", "-n", "20", "--seed", "1"], "");
    assert!(!out.trim().is_empty() && out.ends_with('\n'), "{out:?}");
    assert!(out.chars().all(|c| !c.is_control() || c == '\n' || c == '\t'), "{out:?}");
    assert!(errors.contains("no chat template: the model continues the text"), "{errors}");
    for word in ["prompt 5 tokens", "tokens/s", "first token after"] {
        assert!(errors.lines().last().unwrap_or_default().contains(word), "{errors}");
    }
    let (_, errors) = printed(at.path(), &["run", "m", "-p", "Hello", "-n", "2", "--no-chat"], "");
    assert!(!errors.contains("template"), "{errors}");
}

#[test]
fn prompts_from_everywhere() {
    let at = chatty();
    fs::write(at.path().join("p.txt"), "Hello\n").expect("written");
    let common = ["run", "m", "-n", "12", "--temp", "0"];
    let answer = |args: &[&str], input: &str| printed(at.path(), &[&common[..], args].concat(), input).0;
    let wanted = answer(&["-p", "Hello"], "");
    assert_eq!(answer(&[], "Hello\n"), wanted);
    assert_eq!(answer(&["-p", "-"], "Hello"), wanted);
    assert_eq!(answer(&["-f", "-"], "Hello\r\n"), wanted);
    assert_eq!(answer(&["-f", "p.txt"], ""), wanted);
    assert_eq!(answer(&["--prompt", "Read", "--file", "p.txt"], ""), answer(&["-p", "Read\n\nHello"], ""));
    assert_ne!(answer(&["-p", "Bonjour"], ""), wanted);
}

#[test]
fn one_object() {
    let at = chatty();
    let object = json(at.path(), &["-p", "Hi", "-n", "9", "--seed", "5", "--stop", "\u{fffe}"]);
    assert_eq!(object["schema_version"], 1);
    assert_eq!((&object["command"][0], &object["command"][1]), (&"lowbit".into(), &"run".into()));
    assert!(object["host"]["isa"].is_string());
    assert_eq!((object["finish_reason"].as_str(), object["seed"].as_u64()), (Some("length"), Some(5)));
    assert!(!object["text"].as_str().expect("a text").is_empty());
    let usage = &object["usage"];
    // <user>Hi<assistant>
    assert_eq!((usage["prompt_tokens"].as_u64(), usage["completion_tokens"].as_u64()), (Some(19), Some(9)));
    let record = &object["records"][0];
    assert_eq!(
        (record["task"].as_str(), record["model"].as_str(), record["recipe"].as_str()),
        (Some("run"), Some("m"), Some("f32"))
    );
    for name in
        ["ttft_seconds", "decode_tokens_per_second", "prefill_tokens_per_second", "load_seconds", "peak_rss_bytes"]
    {
        let measure = &record["measures"][name];
        assert!(measure["value"].as_f64().is_some_and(|v| v > 0.0), "{name}: {measure}");
        assert_eq!(measure["how"], "measured");
    }
}

#[test]
fn energy_is_measured_where_there_is_a_meter() {
    let at = chatty();
    let absent = json(at.path(), &["-p", "Hi", "-n", "3", "--seed", "1"]);
    let package = at.path().join("cap/intel-rapl:0");
    fs::create_dir_all(&package).expect("made");
    for (name, text) in [("name", "package-0"), ("energy_uj", "5"), ("max_energy_range_uj", "1000")] {
        fs::write(package.join(name), text).expect("written");
    }
    let run = |cap: &Path| {
        let mut command = lowbit();
        command.current_dir(at.path()).env("LOWBIT_POWERCAP", cap).stdin(Stdio::null());
        let output =
            command.args(["run", "m", "-p", "Hi", "-n", "3", "--seed", "1", "--json"]).output().expect("starts");
        serde_json::from_slice::<Value>(&output.stdout).expect("JSON")
    };
    let measures = |object: &Value| object["records"][0]["measures"].clone();
    assert_eq!(measures(&run(&at.path().join("cap")))["energy_joules"]["value"], 0.0);
    assert!(measures(&run(at.path()))["energy_joules"].is_null());
    assert!(measures(&absent)["ttft_seconds"].is_object());
}

#[test]
fn a_seed_repeats_an_answer() {
    let at = chatty();
    let text = |args: &[&str]| json(at.path(), &[&["-p", "Hi", "-n", "24"], args].concat())["text"].clone();
    let once = text(&["--seed", "3", "--temp", "1.5"]);
    assert_eq!(text(&["--seed", "3", "--temp", "1.5"]), once);
    assert_eq!(text(&["--seed", "3", "--temp", "1.5", "--threads", "1", "--isa", "scalar"]), once);
    assert_ne!(text(&["--seed", "4", "--temp", "1.5"]), once);
    assert_eq!(text(&["--seed", "1", "--temp", "0"]), text(&["--seed", "2", "--temp", "0"]));
    let greedy = ["--temp", "0", "--recipe", "int8"];
    assert_eq!(text(&[&greedy[..], &["--draft", "ngram"]].concat()), text(&greedy));
}

#[test]
fn stop_strings_end_the_answer() {
    let at = chatty();
    let args = ["-p", "Hi", "-n", "40", "--seed", "3"];
    let whole = json(at.path(), &args)["text"].as_str().expect("a text").to_string();
    let middle: Vec<char> = whole.chars().collect();
    let stop: String = middle[middle.len() / 2..].iter().take(2).collect();
    let stopped = json(at.path(), &[&args[..], &["--stop", "\u{fffe}", "--stop", &stop]].concat());
    assert_eq!(stopped["finish_reason"], "stop");
    assert_eq!(stopped["text"].as_str(), whole.split(&stop).next());
}

#[test]
fn a_prompt_cache_is_kept_between_runs() {
    let at = chatty();
    let args = ["-p", "What was said before is known.", "-n", "4", "--temp", "0", "--prompt-cache", "cache"];
    let first = json(at.path(), &args);
    let second = json(at.path(), &args);
    assert_eq!(first["usage"]["cached_tokens"], 0);
    assert!(second["usage"]["cached_tokens"].as_u64() > Some(20), "{}", second["usage"]);
    assert_eq!(first["text"], second["text"]);
    fs::write(at.path().join("cache"), "no cache").expect("written");
    let all = [&["run", "m"][..], &args].concat();
    refused(at.path(), &all, 3, &["cache"]);
}

#[test]
fn masters_run_under_a_recipe() {
    let at = chatty();
    let object = json(at.path(), &["-p", "Hi", "-n", "3", "--recipe", "bitnet"]);
    assert_eq!(object["records"][0]["recipe"], "bitnet");
}

#[test]
fn wrong_arguments() {
    let at = chatty();
    let wrong =
        |args: &[&str], code: i32, words: &[&str]| refused(at.path(), &[&["run", "m"], args].concat(), code, words);
    for (flag, value) in [
        ("--temp", "-1"),
        ("--temp", "2.5"),
        ("--temp", "NaN"),
        ("--top-p", "0"),
        ("--top-p", "1.1"),
        ("--min-p", "1"),
        ("--min-p", "-0.1"),
        ("--repeat-penalty", "0"),
        ("--repeat-penalty", "inf"),
    ] {
        wrong(&["-p", "x", flag, value], 2, &[flag, value, "must lie in"]);
    }
    wrong(&["-p", "x", "-n", "0"], 2, &["--max-tokens is 0"]);
    wrong(&["-p", "x", "--stop", ""], 2, &["--stop is empty"]);
    wrong(&["-p", ""], 2, &["the prompt is empty"]);
    wrong(&["-p", "x", "--context", "161"], 2, &["--context is 161", "trained for 160"]);
    wrong(&["-p", "x", "--recipe", "bitnett"], 2, &["bitnett"]);
    wrong(&["-p", "x", "--system", "s", "--no-chat"], 2, &["--no-chat"]);
    wrong(&["-i", "--json"], 2, &["--json is for one answer"]);
    wrong(&["-f", "absent.txt"], 5, &["absent.txt"]);
    wrong(&["-f", "m"], 3, &["m: is a directory, not a regular file"]);
    let long = "x".repeat(200);
    wrong(&["-p", &long], 2, &["the context of 160 tokens is full", "217", "say less"]);
    wrong(&["-p", &long, "-c", "100"], 2, &["--context up to 160"]);
    for args in [&["run", "m", "-p", "x", "--draft", "oracle"][..], &["run", "m", "--seed", "-2"]] {
        assert_eq!(run(at.path(), args).status.code(), Some(2), "{args:?}");
    }
    refused(at.path(), &["run", "absent", "-p", "x"], 5, &["absent"]);
    fs::write(at.path().join("latin"), [b'a', 0xff]).expect("written");
    wrong(&["-f", "latin"], 3, &["latin: is not UTF-8 at byte 1"]);
}

#[test]
fn flags_of_llama_cpp() {
    let at = chatty();
    let common = ["-p", "Hi", "--temp", "0"];
    let text = |args: &[&str]| json(at.path(), &[&common, args].concat())["text"].clone();
    let all = text(&["-n", "-1"]);
    assert_eq!(text(&["-n", "-2", "-c", "0", "--top-k", "-1", "-s", "-1", "-t", "-1"]), all);
    assert_eq!(text(&["--repeat-last-n", "0", "--repeat-penalty", "5"]), all);
    assert_ne!(text(&["--repeat-last-n", "-1", "--repeat-penalty", "5"]), all);
    assert_eq!(text(&["-sys", "a\\nb", "-e"]), text(&["--system", "a\nb"]));
    fs::write(at.path().join("system"), "a\nb\n").expect("written");
    assert_eq!(text(&["-sysf", "system"]), text(&["--system", "a\nb"]));
    let (out, _) = printed(at.path(), &["run", "-m", "m", "-p", "Hi", "--temp", "0", "-n", "-1"], "");
    assert!(all.as_str().is_some_and(|all| out.trim_end().chars().count() >= all.trim_end().chars().count() / 2));
    let (out, errors) = printed(at.path(), &["run", "m", "-cnv", "-p", "one", "-n", "4", "-s", "1"], "/save c.json\n");
    assert!(!out.is_empty() && errors.contains("2 messages in c.json"), "{errors}");
    refused(at.path(), &["run", "m", "-ngl", "99", "-p", "x"], 2, &["-ngl", "leave it out"]);
    // Without a template an answer has 256 tokens at most, unless more are asked for.
    let at = plain();
    let completion = |args: &[&str]| json(at.path(), &[&["-p", "Hi", "--temp", "0"], args].concat())["usage"].clone();
    let (few, all) = (completion(&["-n", "7"]), completion(&["-n", "-1"]));
    assert_eq!(few["completion_tokens"], 7);
    assert!(all["completion_tokens"].as_u64() > Some(7), "{all}");
}

#[test]
fn what_is_typed_may_begin_with_any_character() {
    let at = plain();
    let (out, _) = printed(at.path(), &["run", "m", "-i", "-n", "3"], "你好\né\n\u{1f600} x\n/é\n");
    assert!(!out.is_empty());
}

#[test]
fn empty_variables_are_unset() {
    let at = plain();
    let output = lowbit()
        .current_dir(at.path())
        .args(["run", "m", "-p", "x", "-n", "1"])
        .envs(["LOWBIT_THREADS", "LOWBIT_ISA", "LOWBIT_DATA"].map(|name| (name, "")))
        .stdin(Stdio::null())
        .output()
        .expect("starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn names_of_control_tokens_in_a_prompt_are_text_unless_asked_for() {
    let at = plain();
    let tokens = |args: &[&str]| {
        let args = [&["-p", "a<|end|>b", "-n", "1", "--temp", "0"], args].concat();
        json(at.path(), &args)["usage"]["prompt_tokens"].as_u64()
    };
    assert_eq!((tokens(&[]), tokens(&["--no-chat"])), (Some(9), Some(9)));
    assert_eq!(tokens(&["--no-chat", "--parse-special"]), Some(3));
}

#[test]
fn wrong_models() {
    let at = tempfile::tempdir().expect("a directory");
    model(at.path(), None, r#"{"classify": {"classes": 3, "pooling": "mean"}}"#);
    refused(at.path(), &["run", "m", "-p", "x"], 3, &["is a classifier"]);
    model(at.path(), None, LM);
    refused(at.path(), &["run", "m", "-p", "x", "--system", "s"], 2, &["--system needs a model with a chat template"]);
    model(at.path(), Some("{{ messages"), LM);
    refused(at.path(), &["run", "m", "-p", "x"], 3, &["m: chat template line 1"]);
    model(at.path(), Some("\n{{ raise_exception('no \u{1b}[2J') }}"), LM);
    refused(at.path(), &["run", "m", "-p", "x"], 3, &["chat template line 2: no \\u{1b}[2J"]);
    model(at.path(), Some("{% for i in range(99999) %}{% for i in range(99999) %}{% endfor %}{% endfor %}"), LM);
    refused(at.path(), &["run", "m", "-p", "x"], 3, &["fuel"]);
}

#[test]
fn a_chat_through_a_pipe() {
    let at = chatty();
    let script = "\n/help\n/nonsense\n/stats\nfirst\n/save one.json\n\"\"\"\nsecond\nline\n\"\"\"\n/system Be brief.\n/save two.json\n\
        /reset\n/save three.json\n/load two.json\nthird\n/save four.json\n/save\n/load absent\n/stats\n/exit\nnever\n";
    let (out, errors) = printed(at.path(), &["run", "m", "-i", "-n", "6", "--seed", "1"], script);
    for word in
        ["/system [TEXT]", "`/nonsense` is no command", "no answer yet", "/save needs a FILE", "absent: ", "tokens/s"]
    {
        assert!(errors.contains(word), "`{word}` is not in {errors}");
    }
    let load = |name: &str| -> Vec<Message> {
        let file: Value = serde_json::from_slice(&fs::read(at.path().join(name)).expect("saved")).expect("JSON");
        assert_eq!(file["model"], "m");
        serde_json::from_value(file["messages"].clone()).expect("messages")
    };
    let (one, two, three, four) = (load("one.json"), load("two.json"), load("three.json"), load("four.json"));
    let roles = |messages: &[Message]| messages.iter().map(|m| m.role).collect::<Vec<_>>();
    assert_eq!(roles(&one), [Role::User, Role::Assistant]);
    assert_eq!(roles(&two), [Role::System, Role::User, Role::Assistant, Role::User, Role::Assistant]);
    assert_eq!((two[0].content.as_str(), two[3].content.as_str()), ("Be brief.", "second\nline"));
    assert_eq!((&two[1..3], &four[..5], &three[..]), (&one[..], &two[..], &two[..1]));
    assert_eq!(four.len(), 7);
    assert_eq!(four[5], Message::new(Role::User, "third"));
    assert!(!out.contains("never") && !out.contains("/help"), "{out}");
    // Raw answers are in the file, what can be shown is on stdout.
    let shown: Vec<&str> = [&one[1], &two[4], &four[6]].iter().map(|m| m.content.as_str()).collect();
    assert!(
        shown.iter().all(|text| text.split(|c: char| c.is_control()).all(|part| out.contains(part))),
        "{shown:?} {out:?}"
    );
}

#[test]
fn only_the_new_part_of_a_chat_is_processed() {
    let at = chatty();
    let (_, errors) =
        printed(at.path(), &["run", "m", "-i", "-n", "4", "--seed", "1"], "one and more\n/stats\ntwo\n/stats\n");
    let known = errors.lines().find_map(|line| line.split_once(" known").and_then(|(head, _)| head.rsplit('(').next()));
    let known: usize = known.unwrap_or_else(|| panic!("{errors}")).parse().expect("a number");
    // At least <user>one and more<assistant>
    assert!(known >= 29, "{errors}");
}

#[test]
fn a_full_context_is_told() {
    let at = chatty();
    let long = "x".repeat(150);
    let script = format!("hello\n{long}\n/save a.json\n/reset\nhello\n");
    let (_, errors) = printed(at.path(), &["run", "m", "-i", "-n", "3", "--seed", "1"], &script);
    let full = errors.lines().filter(|line| line.starts_with("error: the context of 160 tokens is full")).count();
    assert_eq!(full, 1, "{errors}");
    let saved = fs::read_to_string(at.path().join("a.json")).expect("saved");
    assert!(!saved.contains(&long) && saved.contains("hello"), "{saved}");
    // An answer may end by itself, but not with every seed.
    let ends = |seed: &&str| {
        let (_, errors) = printed(at.path(), &["run", "m", "-i", "-c", "60", "--seed", seed], "hello\n");
        errors.contains("the context is full: /reset")
    };
    assert!(["1", "2", "3", "4", "5"].iter().any(ends));
}

#[test]
fn without_a_template_texts_are_continued() {
    let at = plain();
    let (out, errors) = printed(at.path(), &["run", "m", "-i", "-n", "5", "--temp", "0"], "abc\n/system x\nabc\n");
    assert!(errors.contains("no chat template"), "{errors}");
    assert!(errors.contains("error: a system message needs a model with a chat template"), "{errors}");
    let single = printed(at.path(), &["run", "m", "-p", "abc", "-n", "5", "--temp", "0"], "").0;
    assert_eq!(out, single.repeat(2));
}

#[test]
#[cfg(unix)]
fn ctrl_c_stops_the_answer() {
    let at = plain();
    let mut command = lowbit();
    command.current_dir(at.path()).args(["run", "m", "-i", "-n", "100000", "--seed", "1"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    // Nothing is being said: the first Ctrl-C has nothing to stop and the program goes on.
    stdin.write_all(b"one\n").expect("written");
    let mut first = [0u8; 1];
    std::io::Read::read_exact(child.stdout.as_mut().expect("a pipe"), &mut first).expect("an answer begins");
    let killed =
        std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(killed.success());
    stdin.write_all(b"/stats\n/exit\n").expect("written");
    let output = child.wait_with_output().expect("ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
