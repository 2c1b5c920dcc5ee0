//! One number of an honest report changed, anywhere in its files: `verify` finds out.

use super::fixture;
use lowbit_eval::report;
use std::fs;

/// Edits that are tried.
const EDITS: usize = 200;
/// The files of a report.
const FILES: [&str; 4] = ["results.json", "report.html", "report.md", "results.csv"];

/// A small deterministic generator.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// First and last byte of the number around a digit.
fn number(text: &str, at: usize) -> std::ops::Range<usize> {
    let part = |c: u8| c.is_ascii_digit() || matches!(c, b'.' | b'-' | b'+' | b'e' | b'E');
    let bytes = text.as_bytes();
    let start = (0..at).rev().take_while(|i| part(bytes[*i])).last().unwrap_or(at);
    let end = (at..bytes.len()).take_while(|i| part(bytes[*i])).last().unwrap_or(at);
    start..end + 1
}

/// The text with one digit of one number changed to another, so that its value is another; what was changed to what.
fn edited(text: &str, dice: &mut Dice) -> (String, String) {
    let digits: Vec<usize> = text.bytes().enumerate().filter(|(_, c)| c.is_ascii_digit()).map(|(i, _)| i).collect();
    loop {
        let at = digits[dice.below(digits.len())];
        let old = text.as_bytes()[at];
        let new = b'0' + dice.below(10) as u8;
        let mut bytes = text.as_bytes().to_vec();
        bytes[at] = new;
        let made = String::from_utf8(bytes).expect("a digit for a digit");
        let (from, to) = (&text[number(text, at)], &made[number(&made, at)]);
        let same = match (from.parse::<f64>(), to.parse::<f64>()) {
            (Ok(a), Ok(b)) => a == b,
            _ => old == new,
        };
        if !same {
            return (made.clone(), format!("{from} to {to}"));
        }
    }
}

#[test]
fn two_hundred_changed_numbers_are_found() {
    let (mut dice, mut missed) = (Dice(5), Vec::new());
    for (make, edits) in
        [(fixture::clean as fn() -> _, EDITS / 2), (fixture::language, EDITS / 4), (fixture::numbers, EDITS / 4)]
    {
        let mut results = make();
        // Few variants, so that the text is short and every number of it has its turn.
        results.records.retain(|r| !["bf16", "int8_channel", "llm_int8", "nf4_dq", "int2"].contains(&r.model.as_str()));
        let dir = tempfile::tempdir().expect("a directory");
        report::write(dir.path(), &results).expect("a report");
        let before = report::verify(dir.path()).expect("checks");
        assert!(before.iter().all(|check| !check.failed()), "{before:?}");
        for _ in 0..edits {
            let name = FILES[dice.below(FILES.len())];
            let path = dir.path().join(name);
            let honest = fs::read_to_string(&path).expect("a file");
            let (text, change) = edited(&honest, &mut dice);
            fs::write(&path, text).expect("a file");
            let found = report::verify(dir.path()).map_or(true, |checks| checks.iter().any(|check| check.failed()));
            if !found {
                missed.push(format!("{name}: {change}"));
            }
            fs::write(&path, honest).expect("a file");
        }
    }
    assert!(missed.is_empty(), "{} of {EDITS} edits are missed: {}", missed.len(), missed.join(", "));
}
