//! Unsafe code stays on floor 1 and at the border to C, and every crate takes the lints of the workspace.

use crate::metadata::Package;
use crate::source::{Kind, Tree, only};

/// The only crates with unsafe code.
const UNSAFE: &[&str] = &["lowbit-kernels", "lowbit-c"];

/// Checks the root files and the manifest of every member.
pub fn check(tree: &Tree, packages: &[Package]) -> Result<String, Vec<String>> {
    let (mut wrong, mut roots) = (Vec::new(), 0);
    for package in packages {
        let manifest = format!("{}/Cargo.toml", package.folder);
        if !tree.get(&manifest).is_some_and(takes_lints) {
            wrong.push(format!("{manifest}: no `[lints] workspace = true`"));
        }
        for root in package.roots.iter().filter(|_| !UNSAFE.contains(&package.name.as_str())) {
            roots += 1;
            if !tree.get(root).is_some_and(forbids_unsafe) {
                wrong.push(format!("{root}: no `#![forbid(unsafe_code)]`"));
            }
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    Ok(format!("{roots} crate roots forbid unsafe code; only {} may hold it", UNSAFE.join(" and ")))
}

fn forbids_unsafe(text: &str) -> bool {
    let code = only(Kind::Code, text);
    code.lines().any(|l| l.starts_with("#![forbid(") && l.contains("unsafe_code"))
}

fn takes_lints(manifest: &str) -> bool {
    let mut section = "";
    manifest.lines().map(str::trim).any(|line| {
        if line.starts_with('[') {
            section = line;
        }
        section == "[lints]" && line.replace(' ', "") == "workspace=true"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(name: &str, root: &str, manifest: &str) -> Result<String, Vec<String>> {
        let package =
            Package { name: name.into(), folder: "c".into(), roots: vec!["c/src/lib.rs".into()], dependencies: vec![] };
        let tree = Tree::of(&[("c/src/lib.rs", root), ("c/Cargo.toml", manifest)]);
        check(&tree, &[package])
    }

    const LINTS: &str = "[package]\nname = \"c\"\n\n[lints]\nworkspace = true\n";
    const FORBID: &str = "//! About.\n#![forbid(unsafe_code)]\n";

    #[test]
    fn every_root_but_one_forbids_unsafe_code() {
        assert!(verdict("c", FORBID, LINTS).is_ok());
        assert!(verdict(UNSAFE[1], "", LINTS).is_ok());
        for root in ["", "// #![forbid(unsafe_code)]", "#![deny(unsafe_code)]"] {
            let wrong = verdict("c", root, LINTS).unwrap_err();
            assert_eq!(wrong, ["c/src/lib.rs: no `#![forbid(unsafe_code)]`"], "{root}");
        }
    }

    #[test]
    fn every_crate_takes_the_lints() {
        for manifest in ["", "[dependencies.x]\nworkspace = true\n[lints]\n"] {
            let wrong = verdict(UNSAFE[0], "", manifest).unwrap_err();
            assert_eq!(wrong, ["c/Cargo.toml: no `[lints] workspace = true`"], "{manifest}");
        }
    }
}
