//! Texts whose tokens take more memory than there is, in a process of its own.
#![cfg(target_os = "linux")]

use lowbit_base::Kind;
use lowbit_model::Tokenizer;
use std::process::Command;

#[test]
fn a_text_that_can_be_cut_nowhere_is_refused_by_its_size() {
    const VARIABLE: &str = "LOWBIT_TEST_MEMORY";
    if std::env::var_os(VARIABLE).is_none() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -v 1000000; exec \"$0\" --exact \"$1\" --nocapture"]);
        shell
            .arg(std::env::current_exe().expect("a program"))
            .arg("a_text_that_can_be_cut_nowhere_is_refused_by_its_size");
        let output = shell.env(VARIABLE, "1").output().expect("a shell");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let words = "all work and no play makes a dull day ".repeat(20);
    let tokenizer = Tokenizer::train_bpe([words.as_str()], 300, false).expect("trained");
    // 8 MB each: 1.6 GB for the library as a whole, and little in pieces.
    let tokens = tokenizer.encode(&words.repeat(10_000), usize::MAX).expect("in pieces");
    assert!(tokens.len() > 100_000);
    let error = tokenizer.encode(&"\u{5b57}".repeat(2_600_000), usize::MAX).map(|ids| ids.len()).expect_err("no cut");
    assert_eq!(error.kind, Kind::Memory, "{error}");
    assert!(error.message.contains("a text that can be cut nowhere") && error.message.contains("ulimit -v"), "{error}");
}
