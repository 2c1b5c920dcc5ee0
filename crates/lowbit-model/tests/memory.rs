//! Texts whose tokens take more memory than there is, in processes of their own.
#![cfg(target_os = "linux")]

use lowbit_base::Kind;
use lowbit_model::Tokenizer;
use std::path::Path;
use std::process::Command;

/// Whether this process is the one with a gigabyte of address space; else it runs the test of this name in such a process.
fn is_limited(test: &str) -> bool {
    const VARIABLE: &str = "LOWBIT_TEST_MEMORY";
    if std::env::var_os(VARIABLE).is_some() {
        return true;
    }
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -v 1000000; exec \"$0\" --exact \"$1\" --nocapture"]);
    shell.arg(std::env::current_exe().expect("a program")).arg(test);
    let output = shell.env(VARIABLE, "1").output().expect("a shell");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    false
}

fn words() -> String {
    "all work and no play makes a dull day ".repeat(20)
}

/// Demands that the memory for the tokens of a text is refused, with these words.
fn refused(tokenizer: &Tokenizer, text: &str, words: &str) {
    let error = tokenizer.encode(text, usize::MAX).map(|ids| ids.len()).expect_err(words);
    assert_eq!(error.kind, Kind::Memory, "{error}");
    assert!(error.message.contains(words) && error.message.contains("ulimit -v"), "{error}");
}

#[test]
fn a_text_that_can_be_cut_nowhere_is_refused_by_its_size() {
    if !is_limited("a_text_that_can_be_cut_nowhere_is_refused_by_its_size") {
        return;
    }
    let tokenizer = Tokenizer::train_bpe([words().as_str()], 300, false).expect("trained");
    // 8 MB each: 1.6 GB for the library as a whole, and little in pieces.
    let tokens = tokenizer.encode(&words().repeat(10_000), usize::MAX).expect("in pieces");
    assert!(tokens.len() > 100_000);
    refused(&tokenizer, &"\u{5b57}".repeat(2_600_000), "a text that can be cut nowhere");
}

#[test]
fn a_word_of_sentencepiece_is_refused_by_its_size() {
    if !is_limited("a_word_of_sentencepiece_is_refused_by_its_size") {
        return;
    }
    for file in ["spm_bytes.model", "spm_unknown.model"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
        let tokenizer = Tokenizer::load(&path).expect("valid");
        let tokens = tokenizer.encode(&words().repeat(10_000), usize::MAX).expect("word by word");
        assert!(tokens.len() > 100_000, "{file}");
        // What the estimate lets pass does not run out of memory.
        for word in ["ababab", "\u{5b57}"] {
            let text = word.repeat(2_500_000 / word.len());
            tokenizer.encode(&text, usize::MAX).expect("760 MB");
            refused(&tokenizer, &text.repeat(5), "tokens of a long text");
        }
    }
}
