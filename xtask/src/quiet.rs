//! Only programs print, end the process or handle signals; libraries return values, and errors to match.

use crate::metadata::Package;
use crate::source::{Kind, Tree, before_tests, line_of, only};

/// What a library does not do.
const LOUD: &[&str] = &[
    "print!(",
    "println!(",
    "eprint!(",
    "eprintln!(",
    "dbg!(",
    "process::exit(",
    "process::abort(",
    "signal_hook::",
    "stdout()",
    "stderr()",
];
/// The root of a program, the modules that only it has, and what a program alone installs.
const PROGRAM: &[&str] =
    &["crates/lowbit-cli/src/main.rs", "crates/lowbit-cli/src/handler.rs", "crates/lowbit-kernels/src/fatal.rs"];
/// Tells why a test could not run.
const TESTING: &str = "crates/lowbit-base/src/testing.rs";

/// Checks the sources of all members but this one, tests and examples aside.
pub fn check(tree: &Tree, packages: &[Package]) -> Result<String, Vec<String>> {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    let sources: Vec<String> =
        packages.iter().filter(|p| p.name != "xtask").map(|package| format!("{}/src/", package.folder)).collect();
    let apart = |path: &str| {
        !sources.iter().any(|folder| path.starts_with(folder))
            || path == TESTING
            || PROGRAM.contains(&path)
            || ["/tests/", "/tests.rs"].iter().any(|part| path.contains(part))
    };
    for file in tree.all("rs").filter(|file| !apart(&file.path)) {
        seen += 1;
        let code = only(Kind::Code, before_tests(&file.text));
        for (at, word) in LOUD.iter().flat_map(|word| code.match_indices(word)) {
            // The end of a longer name is another word.
            let is_whole = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            if is_whole {
                let line = line_of(&file.text, at);
                let rule = "a library does not print, end the process or handle signals";
                wrong.push(format!("{}:{line}: `{word}`; {rule}", file.path));
            }
        }
    }
    match wrong.is_empty() {
        true => Ok(format!("none of {seen} files of libraries prints, ends the process or handles signals")),
        false => Err(wrong),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(path: &str, text: &str) -> Result<String, Vec<String>> {
        let package = Package {
            name: "lowbit-cli".into(),
            folder: "crates/lowbit-cli".into(),
            roots: vec!["crates/lowbit-cli/src/lib.rs".into()],
            dependencies: vec![],
        };
        check(&Tree::of(&[(path, text)]), &[package])
    }

    #[test]
    fn loud_libraries_are_found() {
        for bad in [
            "fn f() { println!(\"x\"); }",
            "fn f() { eprint!(\"x\"); }",
            "fn f() { std::process::exit(1) }",
            "use signal_hook::flag;",
            "fn f() { std::io::stdout().lock(); }",
        ] {
            let wrong = verdict("crates/lowbit-cli/src/a.rs", bad).expect_err(bad);
            assert!(wrong.len() == 1 && wrong[0].starts_with("crates/lowbit-cli/src/a.rs:1: `"), "{wrong:?}");
        }
    }

    #[test]
    fn programs_tests_and_words_are_fine() {
        let print = "fn f() { println!(\"x\"); }";
        for path in ["crates/lowbit-cli/src/main.rs", "crates/lowbit-cli/tests/a.rs", "crates/lowbit-cli/examples/a.rs"]
        {
            assert!(verdict(path, print).is_ok(), "{path}");
        }
        for good in [
            "// println!(1)",
            "const X: &str = \"println!(1)\";",
            "fn f() { fingerprint!(1); use_stderr(); }",
            "fn f() {}\n#[cfg(test)]\nmod tests { fn f() { println!(\"x\"); } }",
        ] {
            assert!(verdict("crates/lowbit-cli/src/a.rs", good).is_ok(), "{good}");
        }
    }
}
