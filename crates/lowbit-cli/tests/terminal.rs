//! Commands without a process: their terminal is made of buffers.

use lowbit_cli::arguments;
use lowbit_cli::failure::{Code, Failure};
use lowbit_cli::signals::Signals;
use lowbit_cli::terminal::{Input, Sink, Terminal};
use std::io::Write;
use std::sync::{Arc, Mutex};

/// Bytes that a test reads while a sink writes them.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no panic").clone()).expect("UTF-8")
    }
}

/// Runs a command line over an input; its outcome, results and remarks.
fn command(line: &str, input: &str) -> (Result<(), Failure>, String, String) {
    let (results, remarks) = (Shared::default(), Shared::default());
    let words = line.split(' ').map(Into::into).collect();
    let terminal = Terminal::new(words, Input::text(input), Sink::to(results.clone()), Sink::to(remarks.clone()));
    let outcome = arguments::parse(&terminal).and_then(|cli| match cli {
        Some(cli) => cli.run(Signals::default(), &terminal),
        None => Ok(()),
    });
    (outcome.and_then(|()| terminal.finish()), results.text(), remarks.text())
}

#[test]
fn results_and_remarks_go_where_the_terminal_says() {
    let (outcome, results, remarks) = command("lowbit compare --list --json", "");
    outcome.expect("listed");
    let object: serde_json::Value = serde_json::from_str(&results).expect("one object");
    assert_eq!(object["command"], serde_json::json!(["lowbit", "compare", "--list", "--json"]));
    assert!(object["suites"].as_array().is_some_and(|suites| !suites.is_empty()) && remarks.is_empty(), "{remarks}");

    let (outcome, results, remarks) = command("lowbit compare --nonsense", "");
    let failure = outcome.expect_err("no such flag");
    assert!(failure.code == Code::Usage && results.is_empty() && remarks.contains("--nonsense"), "{remarks}");
    let (outcome, results, _) = command("lowbit --version", "");
    assert!(outcome.is_ok() && results.starts_with("lowbit "), "{results}");
}

#[test]
fn a_chat_reads_lines_and_a_prompt_all() {
    let (outcome, results, remarks) =
        command("lowbit run -i -n 4 --seed 3 -t 1", "This film\n/stats\n/nonsense\n/exit\n");
    outcome.expect("answered");
    assert!(!results.trim().is_empty() && remarks.contains("answer 4 tokens"), "{results} {remarks}");
    assert!(remarks.contains("error: `/nonsense` is no command"), "{remarks}");
    let (outcome, piped, _) = command("lowbit run -n 4 --seed 3 -t 1", "This film\n");
    outcome.expect("answered");
    let (outcome, given, _) = command("lowbit run -n 4 --seed 3 -t 1 -f -", "This film\n");
    outcome.expect("answered");
    assert!(!piped.trim().is_empty() && piped == given, "{piped} {given}");
    let (outcome, ..) = command("lowbit run -p - -t 1", "");
    assert!(outcome.expect_err("nothing to answer").message.contains("the prompt is empty"));
}
