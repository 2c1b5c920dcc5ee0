//! Every crate but this one could be published: a page, words to find it by, versions of the crates below.

use crate::metadata::Package;
use crate::source::Tree;

/// What the manifest of such a crate holds, and what that is for.
const FIELDS: &[(&str, &str)] = &[
    ("description = \"", "a sentence"),
    ("readme = \"README.md\"", "its page"),
    ("keywords = [\"", "words to find it by"),
    ("categories = [\"", "where it is listed"),
    ("license.workspace = true", "the licence"),
    ("rust-version.workspace = true", "the oldest compiler"),
];
/// How a crate shows its page.
const PAGE: &str = "#![doc = include_str!(\"../README.md\")]";

/// Checks manifests, pages and roots.
pub fn check(tree: &Tree, packages: &[Package]) -> Result<String, Vec<String>> {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    let has = |path: &str, text: &str| tree.get(path).is_some_and(|file| file.contains(text));
    for package in packages {
        let folder = &package.folder;
        let manifest = format!("{folder}/Cargo.toml");
        if has(&manifest, "publish = false") {
            continue;
        }
        seen += 1;
        let lacks = FIELDS.iter().filter(|(field, _)| !has(&manifest, field));
        wrong.extend(lacks.map(|(field, what)| format!("{manifest}: no `{field}` ({what})")));
        if !has(&format!("{folder}/README.md"), "```rust") {
            wrong.push(format!("{folder}/README.md: shows no program"));
        }
        if !has(&format!("{folder}/src/lib.rs"), PAGE) {
            wrong.push(format!("{folder}/src/lib.rs: no `{PAGE}`"));
        }
        let dependency = format!("{} = {{ path = ", package.name);
        let root = tree.get("Cargo.toml").unwrap_or_default();
        if root.lines().any(|line| line.starts_with(&dependency) && !line.contains("version = ")) {
            wrong.push(format!("Cargo.toml: `{}` without a version", package.name));
        }
    }
    match wrong.is_empty() {
        true => Ok(format!("{seen} crates have a page, a description, keywords and categories")),
        false => Err(wrong),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "description = \"x\"\nreadme = \"README.md\"\nkeywords = [\"x\"]\ncategories = [\"x\"]\n\
                            license.workspace = true\nrust-version.workspace = true\n";

    fn verdict(manifest: &str, page: &str, root: &str, workspace: &str) -> Result<String, Vec<String>> {
        let package = Package { name: "c".into(), folder: "crates/c".into(), roots: vec![], dependencies: vec![] };
        let files = [
            ("crates/c/Cargo.toml", manifest),
            ("crates/c/README.md", page),
            ("crates/c/src/lib.rs", root),
            ("Cargo.toml", workspace),
        ];
        check(&Tree::of(&files), &[package])
    }

    #[test]
    fn what_is_missing_is_named() {
        let (page, workspace) = ("```rust\n```", "c = { path = \"crates/c\", version = \"0.1.0\" }");
        assert!(verdict(MANIFEST, page, PAGE, workspace).is_ok());
        assert!(verdict("publish = false", "", "", "").is_ok());
        for (field, _) in FIELDS {
            let wrong = verdict(&MANIFEST.replace(field, ""), page, PAGE, workspace).expect_err(field);
            assert!(wrong.len() == 1 && wrong[0].contains(field), "{wrong:?}");
        }
        assert!(verdict(MANIFEST, "words", PAGE, workspace).is_err());
        assert!(verdict(MANIFEST, page, "//! About.", workspace).is_err());
        assert!(verdict(MANIFEST, page, PAGE, "c = { path = \"crates/c\" }").is_err());
    }
}
