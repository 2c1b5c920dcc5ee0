//! Text that must not be there.

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
}
