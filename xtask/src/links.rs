//! Links between pages: files and headings that are there.

use crate::source::{File, Tree, line_of};
use std::collections::HashSet;

/// Complaints about the links of all Markdown files; `exists` tells of a path of the workspace whether it is there, and is asked of what
/// the tree does not hold.
pub fn dead(tree: &Tree, exists: &dyn Fn(&str) -> bool) -> Vec<String> {
    tree.all("md").flat_map(|file| dead_in(tree, exists, file)).collect()
}

fn dead_in(tree: &Tree, exists: &dyn Fn(&str) -> bool, file: &File) -> Vec<String> {
    let (mut wrong, text) = (Vec::new(), prose(&file.text));
    for (at, _) in text.match_indices("](") {
        let link = text[at + 2..].split([')', '\n']).next().unwrap_or("");
        if link.contains("://") || link.starts_with("mailto:") {
            continue;
        }
        let (target, anchor) = link.split_once('#').map_or((link, None), |(target, anchor)| (target, Some(anchor)));
        let path = if target.is_empty() { file.path.clone() } else { resolve(file.folder(), target) };
        let there = tree.get(&path).is_some() || exists(&path);
        let fault = match (there, anchor, tree.get(&path)) {
            (false, ..) => format!("the link to {target} leads nowhere"),
            (_, Some(anchor), Some(page)) if path.ends_with(".md") && !anchors(page).contains(anchor) => {
                format!("{path} has no heading for #{anchor}")
            }
            _ => continue,
        };
        wrong.push(format!("{}:{}: {fault}", file.path, line_of(&text, at)));
    }
    wrong
}

/// A link's target as a path of the workspace.
fn resolve(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|p| !p.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

/// The page with code, in blocks and in lines, replaced by spaces.
fn prose(page: &str) -> String {
    let (mut out, mut block, mut code) = (String::with_capacity(page.len()), false, false);
    for line in page.split_inclusive('\n') {
        let fence = line.trim_start().starts_with("```");
        block ^= fence;
        code &= !fence && !line.trim().is_empty();
        out.extend(line.chars().map(|c| match c {
            '\n' => c,
            '`' if !block && !fence => {
                code = !code;
                ' '
            }
            _ if block || fence || code => ' ',
            _ => c,
        }));
    }
    out
}

/// Names of the places of a page: headings as forges and mdBook name them, and `<a id="..">`.
fn anchors(page: &str) -> HashSet<String> {
    let (mut found, mut block) = (HashSet::new(), false);
    for line in page.lines() {
        block ^= line.trim_start().starts_with("```");
        if block {
            continue;
        }
        let ids = line.split("<a id=\"").skip(1).filter_map(|rest| rest.split('"').next());
        found.extend(ids.map(str::to_owned));
        let text = line.trim_start_matches('#');
        if text.len() < line.len() && text.starts_with(' ') {
            let name = slug(text.trim());
            let numbered = (1..).map(|n| format!("{name}-{n}"));
            let mut names = std::iter::once(name.clone()).chain(numbered);
            found.extend(names.find(|name| !found.contains(name)));
        }
    }
    found
}

/// The name of a heading: lower case, hyphens for spaces, no other marks.
fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(files: &[(&str, &str)]) -> Vec<String> {
        dead(&Tree::of(files), &|path| path == "docs/a.png")
    }

    #[test]
    fn links_lead_somewhere() {
        let page = ("docs/a.md", "[up](../README.md#top), [beside](b.md), [out](https://x.org/c.md), ![](a.png)");
        let all =
            [page, ("README.md", "# Top\n[down](docs/a.md)"), ("docs/b.md", "[here](#b-c), `[no](d.md)`\n## B: C\n")];
        assert_eq!(complaints(&all), Vec::<String>::new());
        assert_eq!(complaints(&all[..2]), ["docs/a.md:1: the link to b.md leads nowhere"]);
        let image = [("b.md", "\n![](b.png), [x](docs)")];
        assert_eq!(complaints(&image).len(), 2, "{:?}", complaints(&image));
    }

    #[test]
    fn headings_are_there() {
        let page = "# One `two`, three-four\n## Again\n## Again\n```\n# no\n```\n<a id=\"mark\"></a>\n";
        for anchor in ["one-two-three-four", "again", "again-1", "mark"] {
            let link = format!("[x](b.md#{anchor})");
            assert!(complaints(&[("a.md", &link), ("b.md", page)]).is_empty(), "{anchor}");
        }
        for anchor in ["no", "again-2", "One-two", ""] {
            let link = format!("[x](b.md#{anchor})");
            let found = complaints(&[("a.md", &link), ("b.md", page)]);
            assert_eq!(found, [format!("a.md:1: b.md has no heading for #{anchor}")]);
        }
    }
}
