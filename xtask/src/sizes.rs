//! Sizes, reported and never failing: where to look for a seam.

use crate::floors::OUTSIDE;
use crate::lists::braces;
use crate::metadata::Package;
use crate::source::{Kind, Tree, before_tests, line_of, only};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Lines of a file that is already large.
const FILE: usize = 600;
/// Lines of a function that is already large.
const FUNCTION: usize = 60;

/// One function of a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    name: String,
    line: usize,
    lines: usize,
}

/// Lines per crate and floor, large files, large functions.
pub fn report(tree: &Tree, packages: &[Package], floors: &[(&str, u8)]) -> String {
    let mut out = String::new();
    let mut totals = [0; 3];
    let mut sums: BTreeMap<u8, [usize; 3]> = BTreeMap::new();
    for package in packages {
        let counts = count(tree, &package.folder);
        let _ = writeln!(out, "{:>14} {}", package.name, words(counts));
        let floor = floors.iter().find(|(name, floor)| *name == package.name && *floor != OUTSIDE);
        let sum = floor.map(|(_, floor)| sums.entry(*floor).or_default());
        totals.iter_mut().zip(counts).for_each(|(t, c)| *t += c);
        sum.into_iter().flatten().zip(counts).for_each(|(t, c)| *t += c);
    }
    for (floor, sum) in &sums {
        let _ = writeln!(out, "{:>14} {}", format!("floor {floor}"), words(*sum));
    }
    let _ = writeln!(out, "{:>14} {}", "all", words(totals));
    for file in tree.all("rs") {
        let lines = file.text.lines().count();
        if lines > FILE {
            let _ = writeln!(out, "large file: {}, {lines} lines", file.path);
        }
    }
    for file in tree.all("rs") {
        for f in functions(&file.text).iter().filter(|f| f.lines > FUNCTION) {
            let _ = writeln!(out, "large function: {} {}:{}, {} lines", f.name, file.path, f.line, f.lines);
        }
    }
    out
}

fn words([files, source, tests]: [usize; 3]) -> String {
    format!("{files:>4} files {source:>6} lines of source {tests:>6} of tests and examples")
}

/// Rust files of a folder, their lines under `src` before their tests, and all other lines.
fn count(tree: &Tree, folder: &str) -> [usize; 3] {
    let (folder, source) = (format!("{folder}/"), format!("{folder}/src/"));
    let mut counts = [0; 3];
    for file in tree.all("rs").filter(|f| f.path.starts_with(&folder)) {
        counts[0] += 1;
        let all = file.text.lines().count();
        let code = if file.path.starts_with(&source) { before_tests(&file.text).lines().count() } else { 0 };
        counts[1] += code;
        counts[2] += all - code;
    }
    counts
}

/// The functions of a Rust text that have a body.
fn functions(text: &str) -> Vec<Function> {
    let code = only(Kind::Code, text);
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let rest = &code[at + 3..];
        let name = rest.split(|c| !word(c)).next().unwrap_or("");
        if name.is_empty() || code[..at].ends_with(word) {
            continue;
        }
        let Some(start) = body(rest) else { continue };
        let Some(length) = braces(&rest[start..]) else { continue };
        let line = line_of(&code, at);
        let lines = rest[..start + length].matches('\n').count() + 1;
        let name = name.to_owned();
        found.push(Function { name, line, lines });
    }
    found
}

/// Where the body of a function begins whose signature this is; none for a declaration.
fn body(signature: &str) -> Option<usize> {
    let mut depth = 0usize;
    for (at, byte) in signature.bytes().enumerate() {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            b'{' if depth == 0 => return Some(at),
            b';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_measured_from_name_to_closing_brace() {
        let text = "trait T {\n    fn declared(x: [f32; 4]);\n    fn given(&self) -> [u8; 2] {\n        f(\"}\")\n    }\n}\n\
                    type P = fn(u8) -> u8;\n// fn comment() {}\nfn one() {}\n";
        let found = functions(text);
        let told: Vec<_> = found.iter().map(|f| (&*f.name, f.line, f.lines)).collect();
        assert_eq!(told, [("given", 3, 3), ("one", 9, 1)]);
    }

    #[test]
    fn what_is_large_is_told_and_the_rest_counted() {
        let long = format!("fn long() {{\n{}}}\n", "    f();\n".repeat(FUNCTION));
        let fine = format!("fn fine() {{\n{}}}\n", "    f();\n".repeat(FUNCTION - 2));
        let big = "//\n".repeat(FILE + 1);
        let files = [("c/src/a.rs", &*long), ("c/src/b.rs", &*fine), ("c/tests/big.rs", &*big)];
        let package = Package { name: "c".into(), folder: "c".into(), roots: vec![], dependencies: vec![] };
        let out = report(&Tree::of(&files), &[package], &[("c", 2)]);
        let lines: Vec<String> = out.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let (source, tests) = (FUNCTION * 2 + 2, FILE + 1);
        assert_eq!(lines[0], format!("c 3 files {source} lines of source {tests} of tests and examples"));
        assert_eq!(lines[1], format!("floor 2 3 files {source} lines of source {tests} of tests and examples"));
        assert_eq!(lines[3], format!("large file: c/tests/big.rs, {tests} lines"));
        assert_eq!(lines[4], format!("large function: long c/src/a.rs:1, {} lines", FUNCTION + 2));
        assert_eq!(lines.len(), 5);
    }
}
