//! Tests walk the lists of the workspace: no test holds a copy of a list, which would miss what is added to the list later.
//! A table of expected values, an array of tuples, may name the members, and then has to name all.

use crate::formats;
use crate::lists::{List, Named, members};
use crate::source::{File, Kind, Tree, before_tests, line_of, only};

/// A copy names at least so many members ..
const FEWEST: usize = 4;
/// .. and at least this part of all: three of four.
const PART: (usize, usize) = (3, 4);

/// Names that belong together, and the file that lists them.
struct Names {
    list: String,
    names: Vec<String>,
}

/// Checks the arrays in the code of all tests.
pub fn check(tree: &Tree, lists: &[List]) -> Result<String, Vec<String>> {
    let known = known(tree, lists);
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for file in tree.all("rs").filter(|file| file.path.starts_with("crates/")) {
        for array in arrays(file) {
            seen += 1;
            let Some(copied) = known.iter().find(|known| copies(known, &array.words)) else { continue };
            let (path, line, list) = (&file.path, line_of(&file.text, array.at), &copied.list);
            let lacking = copied.names.iter().find(|name| !array.words.contains(name));
            match (array.is_table, lacking) {
                (true, None) => {}
                (true, Some(name)) => wrong.push(format!("{path}:{line}: a table over {list} without {name}")),
                (false, _) => wrong.push(format!("{path}:{line}: copies the list of {list}; walk that list")),
            }
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    Ok(format!("none of {seen} arrays in tests copies one of {} lists", known.len()))
}

/// The members of every list of code and data by their stems, and the names of all formats.
fn known(tree: &Tree, lists: &[List]) -> Vec<Names> {
    let of_list = |list: &List| Names {
        list: list.list.into(),
        names: members(tree, list).map(|file| plain(file.stem())).collect(),
    };
    let lists = lists.iter().filter(|list| !matches!(list.named, Named::Linked));
    let mut known: Vec<Names> = lists.map(of_list).collect();
    let names = formats::names(tree).iter().map(|name| plain(name)).collect();
    known.push(Names { list: "formats".into(), names });
    known.retain(|known| known.names.len() >= FEWEST);
    known
}

fn copies(known: &Names, words: &[String]) -> bool {
    let named = known.names.iter().filter(|name| words.contains(name)).count();
    named >= FEWEST && named * PART.1 >= known.names.len() * PART.0
}

/// An array in a test.
struct Array {
    /// Where it begins.
    at: usize,
    /// Whether it holds tuples.
    is_table: bool,
    /// The words in it, of code and of strings, but not those of arrays inside it.
    words: Vec<String>,
}

/// Arrays in the tests of a file.
fn arrays(file: &File) -> Vec<Array> {
    let is_test = file.path.contains("/tests/") || file.path.ends_with("/tests.rs");
    let first = if is_test { 0 } else { before_tests(&file.text).len() };
    let mut code = only(Kind::Code, &file.text).into_bytes();
    let mut strings = only(Kind::Literal, &file.text).into_bytes();
    let (mut open, mut found) = (Vec::new(), Vec::new());
    for at in first..code.len() {
        match code[at] {
            b'[' => open.push(at),
            b']' => {
                let Some(start) = open.pop() else { continue };
                let inside = start + 1..at;
                let words = |text: &[u8]| split(&String::from_utf8_lossy(text)).map(plain).collect::<Vec<_>>();
                let words = [words(&code[inside.clone()]), words(&strings[inside.clone()])].concat();
                let is_table = code[inside.clone()].trim_ascii_start().starts_with(b"(");
                found.push(Array { at: start, is_table, words });
                code[inside.clone()].fill(b' ');
                strings[inside].fill(b' ');
            }
            _ => {}
        }
    }
    found
}

fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// A name without case and underscores: `Avx512Vnni` is `avx512_vnni`.
fn plain(name: &str) -> String {
    name.chars().filter(|&c| c != '_').flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lists::Named;

    const LIST: List =
        List { folder: "crates/a/src/arch", extension: "rs", list: "crates/a/src/arch/mod.rs", named: Named::Module };

    fn verdict(path: &str, text: &str) -> Result<String, Vec<String>> {
        let mut files: Vec<(String, &str)> =
            ["mlp", "decoder", "cnn", "long_one"].map(|stem| (format!("crates/a/src/arch/{stem}.rs"), "")).into();
        files.push((path.into(), text));
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (&**path, *text)).collect();
        check(&Tree::of(&files), &[LIST])
    }

    #[test]
    fn copies_in_tests_are_found() {
        for bad in [
            "fn f() { for name in [\"mlp\", \"decoder\", \"cnn\", \"long_one\"] {} }",
            "const ALL: [Arch; 4] = [Arch::Mlp, Arch::Decoder, Arch::Cnn, Arch::LongOne];",
        ] {
            let wrong = verdict("crates/a/tests/x.rs", bad).expect_err(bad);
            assert!(wrong[0].starts_with("crates/a/tests/x.rs:1: copies the list of crates/a/src/arch/mod.rs"));
            assert!(verdict("crates/a/src/x.rs", &format!("#[cfg(test)]\nmod tests {{ {bad} }}")).is_err());
        }
    }

    #[test]
    fn tables_of_values_name_all_members() {
        let all = "const ALL: &[(&str, u8)] = &[(\"mlp\", 1), (\"decoder\", 2), (\"cnn\", 3), (\"long_one\", 4)];";
        assert!(verdict("crates/a/tests/x.rs", all).is_ok());
        // One member more, and the table lacks it.
        let files = ["mlp", "decoder", "cnn", "long_one", "rnn"].map(|stem| format!("crates/a/src/arch/{stem}.rs"));
        let files: Vec<_> = files.iter().map(|path| (&**path, "")).chain([("crates/a/tests/x.rs", all)]).collect();
        let wrong = check(&Tree::of(&files), &[LIST]).unwrap_err();
        assert!(wrong[0].ends_with("without rnn"), "{wrong:?}");
    }

    #[test]
    fn code_and_parts_of_a_list_are_fine() {
        let all = "static ALL: [&str; 4] = [\"mlp\", \"decoder\", \"cnn\", \"long_one\"];";
        assert!(verdict("crates/a/src/x.rs", all).is_ok());
        let inner = "const X: [&[&str]; 2] = [&[\"mlp\", \"decoder\"], &[\"cnn\", \"long_one\"]];";
        assert!(verdict("crates/a/tests/x.rs", inner).is_ok());
        let some = "fn f() { for name in [\"mlp\", \"cnn\"] {} } // [mlp, decoder, cnn, long_one]";
        assert!(verdict("crates/a/tests/x.rs", some).is_ok());
    }
}
