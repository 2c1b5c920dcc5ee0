//! Formats are told apart by what they state of themselves: no code compares their names but their own files, recipes and
//! tests.

use crate::source::{Tree, before_tests, line_of, literals};

/// Where formats state their properties.
const FORMATS: &str = "crates/lowbit-kernels/src/format/";
/// Where their names may be compared: recipes are made of them.
const RECIPES: &str = "crates/lowbit-model/src/recipe";
/// What stands before the name of a format.
const NAMED: &[&str] = &["floats(", "integers(", "spec(", "Spec { name: ", "halves(", "bytes(", "signed("];
/// Methods that compare a text with their argument.
const COMPARING: &[&str] = &["starts_with(", "ends_with(", "contains(", "strip_prefix(", "eq("];

/// Checks all code but tests and examples.
pub fn check(tree: &Tree) -> Result<String, Vec<String>> {
    let names = names(tree);
    if names.is_empty() {
        return Err(vec![format!("{FORMATS} names no format")]);
    }
    let (mut wrong, mut seen) = (Vec::new(), 0);
    let apart = |path: &str| {
        !path.starts_with("crates/")
            || path.starts_with(FORMATS)
            || path.starts_with(RECIPES)
            || ["/tests/", "/tests.rs", "/examples/"].iter().any(|part| path.contains(part))
    };
    for file in tree.all("rs").filter(|file| !apart(&file.path)) {
        seen += 1;
        for (at, name) in compared(before_tests(&file.text), &names) {
            let line = line_of(&file.text, at);
            wrong.push(format!("{}:{line}: compares with \"{name}\"; ask the format's `spec()`", file.path));
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    Ok(format!("none of {seen} files compares one of {} names", names.len()))
}

/// The names that the files of formats give.
pub fn names(tree: &Tree) -> Vec<String> {
    let mut names = Vec::new();
    for file in tree.all("rs").filter(|file| file.path.starts_with(FORMATS)) {
        for (at, literal) in literals(before_tests(&file.text)) {
            if NAMED.iter().any(|call| file.text[..at].ends_with(call)) {
                names.push(literal.to_string());
            }
        }
    }
    names.sort();
    names.dedup();
    names
}

/// Names in comparisons, and where they stand.
fn compared<'a>(text: &'a str, names: &[String]) -> Vec<(usize, &'a str)> {
    let is_compared = |&(at, literal): &(usize, &str)| {
        let (before, after) = (text[..at].trim_end(), text[at + literal.len() + 2..].trim_start());
        let operator = ["==", "!="].iter().any(|op| before.ends_with(op) || after.starts_with(op));
        // A pattern: of a match, or of several.
        let pattern = after.starts_with("=>") || after.starts_with("| \"") || before.ends_with("\" |");
        let method = COMPARING.iter().any(|method| before.ends_with(method));
        let part = |name: &String| name == literal || method && literal.len() > 2 && name.contains(literal);
        (operator || pattern || method) && names.iter().any(part)
    };
    literals(text).into_iter().filter(is_compared).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: (&str, &str) = (
        "crates/lowbit-kernels/src/format/int4.rs",
        "const A: Spec = Spec::integers(\"int4\", 4.0);\nconst B: Spec = Spec { name: \"nf4_dq\", ..A };\n\
         static C: Spec = spec(\"ternary\", 1.6);\nconst D: Part = Part { name: \"codes\" };",
    );

    fn verdict(path: &str, text: &str) -> Result<String, Vec<String>> {
        check(&Tree::of(&[FORMAT, (path, text)]))
    }

    #[test]
    fn names_are_those_that_formats_give() {
        assert_eq!(names(&Tree::of(&[FORMAT])), ["int4", "nf4_dq", "ternary"]);
        assert!(check(&Tree::of(&[("crates/a/src/lib.rs", "")])).is_err());
    }

    #[test]
    fn comparisons_with_a_name_are_found() {
        for bad in [
            "fn f(n: &str) -> bool { n == \"int4\" }",
            "fn f(n: &str) -> bool { \"int4\" != n }",
            "fn f(n: &str) -> bool { matches!(n, \"f32\" | \"int4\") }",
            "fn f(n: &str) -> bool { match n {\n \"int4\" => true,\n _ => false } }",
            "fn f(n: &str) -> bool { n.starts_with(\"tern\") }",
        ] {
            let wrong = verdict("crates/a/src/lib.rs", bad).expect_err(bad);
            assert!(wrong[0].starts_with("crates/a/src/lib.rs:") && wrong[0].contains("`spec()`"), "{wrong:?}");
        }
    }

    #[test]
    fn other_uses_of_a_name_are_fine() {
        for good in [
            "fn f() { find(\"int4\"); } // n == \"int4\"",
            "const X: [&str; 2] = [\"int4\", \"nf4_dq\"];",
            "fn f(n: &str) -> bool { n == \"other\" || n.starts_with(\"x\") }",
            "#[cfg(test)]\nmod tests {\n fn f(n: &str) -> bool { n == \"int4\" } }",
        ] {
            assert!(verdict("crates/a/src/lib.rs", good).is_ok(), "{good}");
        }
        let compare = "fn f(n: &str) -> bool { n == \"int4\" }";
        for path in
            ["crates/a/tests/x.rs", "crates/lowbit-model/src/recipe.rs", "crates/lowbit-kernels/src/format/x.rs"]
        {
            assert!(verdict(path, compare).is_ok(), "{path}");
        }
    }
}
