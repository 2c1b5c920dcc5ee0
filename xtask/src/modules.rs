//! Modules and files agree: no file under `src` that nothing compiles, no module without a file, on any target.

use crate::lists::{declared, has_module};
use crate::source::{File, Kind, Tree, only};

/// Names of files that are not modules of another file in their folder.
const ROOTS: &[&str] = &["lib", "main", "mod"];

/// Checks every Rust file under a `src` folder.
pub fn check(tree: &Tree) -> Result<String, Vec<String>> {
    let files: Vec<&File> = tree.all("rs").filter(|f| f.path.contains("/src/")).collect();
    let mut wrong = Vec::new();
    for file in &files {
        wrong.extend(orphan(&files, file));
        wrong.extend(absent(&files, file));
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    Ok(format!("{} files, each a module of another or a root", files.len()))
}

/// The folder in which a file's modules lie.
fn home(file: &File) -> String {
    match ROOTS.contains(&file.stem()) {
        true => file.folder().to_owned(),
        false => format!("{}/{}", file.folder(), file.stem()),
    }
}

/// A complaint when no file declares this one.
fn orphan(files: &[&File], file: &File) -> Option<String> {
    let is_mod = file.stem() == "mod";
    if file.stem() == "lib" || file.stem() == "main" || file.folder().ends_with("/src/bin") {
        return None;
    }
    let (home_of_parent, name) = match is_mod {
        true => file.folder().rsplit_once('/')?,
        false => (file.folder(), file.stem()),
    };
    let declares = |parent: &File| has_module(&only(Kind::Code, &parent.text), name);
    let found = files.iter().any(|parent| home(parent) == home_of_parent && declares(parent));
    (!found).then(|| format!("{} is compiled by nothing: no `mod {name};`", file.path))
}

/// Complaints about modules that a file declares and nobody wrote.
fn absent(files: &[&File], file: &File) -> Vec<String> {
    let code = only(Kind::Code, &file.text);
    let elsewhere = |name: &str| {
        let at = code.find(&format!("mod {name};")).unwrap_or(0);
        let before = code[..at].trim_end();
        let before = before.strip_suffix("pub(crate)").unwrap_or(before).trim_end().rsplit_once('\n');
        before.is_some_and(|(_, line)| line.trim_start().starts_with("#[path"))
    };
    let exists = |name: &str| {
        let stem = format!("{}/{name}", home(file));
        let paths = [format!("{stem}.rs"), format!("{stem}/mod.rs")];
        files.iter().any(|f| paths.contains(&f.path))
    };
    declared(&code)
        .filter(|name| !exists(name) && !elsewhere(name))
        .map(|name| format!("{} declares `mod {name};`, which has no file", file.path))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(files: &[(&str, &str)]) -> String {
        match check(&Tree::of(files)) {
            Ok(summary) => summary,
            Err(wrong) => wrong.join("\n"),
        }
    }

    #[test]
    fn modules_and_files_agree() {
        let fine = [
            (
                "c/src/lib.rs",
                "mod a;\npub mod b;\n#[path = \"../t/x.rs\"]\nmod x;\n#[path = \"../t/y.rs\"]\npub(crate) mod y;",
            ),
            ("c/src/a.rs", "each! { inner::Inner; }"),
            ("c/src/a/inner.rs", ""),
            ("c/src/b/mod.rs", "mod leaf;\nmod tests { }"),
            ("c/src/b/leaf.rs", ""),
            ("c/src/bin/tool.rs", ""),
            ("c/tests/t.rs", "mod common;"),
        ];
        assert_eq!(verdict(&fine), "6 files, each a module of another or a root");
    }

    #[test]
    fn a_file_nothing_compiles_is_found() {
        let lib = ("c/src/lib.rs", "// mod a;");
        assert!(verdict(&[lib, ("c/src/a.rs", "")]).contains("a.rs is compiled by nothing"));
        assert!(verdict(&[lib, ("c/src/a/mod.rs", "")]).contains("no `mod a;`"));
        let deep = [("c/src/lib.rs", "mod a;"), ("c/src/a.rs", ""), ("c/src/a/b.rs", "")];
        assert!(verdict(&deep).contains("a/b.rs is compiled by nothing"));
    }

    #[test]
    fn a_module_without_a_file_is_found_on_any_target() {
        let lib = ("c/src/lib.rs", "#[cfg(target_arch = \"other\")]\nmod gone;");
        assert_eq!(verdict(&[lib]), "c/src/lib.rs declares `mod gone;`, which has no file");
    }
}
