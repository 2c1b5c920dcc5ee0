//! Text that must not be there, and links that lead nowhere.

use crate::source::{File, Kind, Tree, line_of, only};

/// What Rust files must not hold, where, and why.
static BANNED: &[(&str, Kind, &str)] = &[
    ("todo!", Kind::Code, "is not done"),
    ("unimplemented!", Kind::Code, "is not done"),
    ("dbg!", Kind::Code, "prints for its author"),
    ("#[ignore", Kind::Code, "is a test that does not run"),
    ("```ignore", Kind::Comment, "is an example that is not compiled"),
    ("FIXME", Kind::Comment, "is not done"),
    ("TODO", Kind::Comment, "is not done"),
];

/// Folders of one machine.
const PLACES: &[&str] = &["/home/", "/root/", "/tmp/", "/Users/", "/mnt/", "/work/"];

/// Checks all Rust and Markdown files.
pub fn check(tree: &Tree) -> Result<String, Vec<String>> {
    let mut wrong: Vec<String> = tree.all("rs").flat_map(banned).collect();
    wrong.extend(tree.all("md").flat_map(places));
    wrong.extend(tree.all("md").flat_map(|f| dead_links(tree, f)));
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let (rust, pages) = (tree.all("rs").count(), tree.all("md").count());
    Ok(format!("{rust} Rust files and {pages} pages hold nothing they should not"))
}

fn banned(file: &File) -> Vec<String> {
    let mut wrong = Vec::new();
    for (pattern, kind, why) in BANNED {
        let text = only(*kind, &file.text);
        for (at, _) in text.match_indices(pattern) {
            let line = line_of(&text, at);
            wrong.push(format!("{}:{line}: `{pattern}` {why}", file.path));
        }
    }
    wrong
}

/// Absolute paths that exist on one machine.
fn places(file: &File) -> Vec<String> {
    let inside_a_path = |c: char| c.is_alphanumeric() || "._-/~}".contains(c);
    let found = PLACES.iter().flat_map(|p| file.text.match_indices(p));
    found
        .filter(|(at, _)| !file.text[..*at].ends_with(inside_a_path))
        .map(|(at, place)| {
            let line = line_of(&file.text, at);
            format!("{}:{line}: `{place}` is a path of one machine", file.path)
        })
        .collect()
}

/// Links to Markdown, Rust and TOML files that are not there.
fn dead_links(tree: &Tree, file: &File) -> Vec<String> {
    let mut wrong = Vec::new();
    for (at, _) in file.text.match_indices("](") {
        let target = file.text[at + 2..].split([')', '\n']).next().unwrap_or("");
        let target = target.split('#').next().unwrap_or("");
        let known = [".md", ".rs", ".toml"].iter().any(|e| target.ends_with(e));
        if known && !target.contains("://") && tree.get(&resolve(file.folder(), target)).is_none() {
            let line = line_of(&file.text, at);
            wrong.push(format!("{}:{line}: the link to {target} leads nowhere", file.path));
        }
    }
    wrong
}

/// A link's target as a path of the workspace.
fn resolve(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|p| !p.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(path: &str, text: &str) -> Vec<String> {
        check(&Tree::of(&[(path, text)])).err().unwrap_or_default()
    }

    #[test]
    fn every_banned_pattern_is_found_where_it_counts() {
        for (pattern, kind, _) in BANNED {
            let (here, there) = match kind {
                Kind::Comment => (format!("\n// {pattern}"), format!("\nf(\"{pattern}\")")),
                _ => (format!("\n{pattern}"), format!("\n// {pattern}\nf(\"{pattern}\")")),
            };
            let found = complaints("a.rs", &here);
            assert_eq!(found.len(), 1, "{pattern}: {found:?}");
            assert!(found[0].starts_with("a.rs:2: "), "{found:?}");
            assert_eq!(complaints("a.rs", &there), Vec::<String>::new(), "{pattern}");
        }
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        for place in PLACES {
            let found = complaints("a.md", &format!("text\nsee `{place}x`"));
            assert_eq!(found.len(), 1, "{place}: {found:?}");
            assert!(found[0].starts_with("a.md:2: "), "{found:?}");
            assert!(complaints("a.md", &format!("see some{place}x")).is_empty());
        }
    }

    #[test]
    fn links_lead_somewhere() {
        let page = ("docs/a.md", "[up](../README.md#top), [beside](b.md), [out](https://x.org/c.md)");
        let all = [page, ("README.md", "[down](docs/a.md)"), ("docs/b.md", "")];
        assert!(check(&Tree::of(&all)).is_ok());
        let wrong = check(&Tree::of(&all[..2])).unwrap_err();
        assert_eq!(wrong, ["docs/a.md:1: the link to b.md leads nowhere"]);
    }
}
