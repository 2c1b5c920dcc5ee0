//! Every file of a folder that has a list is in the list.

use crate::source::{File, Kind, Tree, only};

/// How a list names a file.
pub enum Named {
    /// As `stem::` inside the call of this macro.
    In(&'static str),
    /// As a module, or by `stem::` anywhere in the code.
    Module,
    /// By `include_str!` with the path relative to the list.
    Included,
    /// By a link in Markdown with the path relative to the list.
    Linked,
}

/// A folder whose files of one extension one file lists.
pub struct List {
    /// The folder; folders inside it are not looked into.
    pub folder: &'static str,
    /// Extension of the listed files.
    pub extension: &'static str,
    /// The file that holds the list.
    pub list: &'static str,
    /// How it names them.
    pub named: Named,
}

/// Every list: folder, extension, file that holds the list, how it names the files.
pub static LISTS: &[List] = &[
    list("crates/lowbit-kernels/src/simd", "rs", "crates/lowbit-kernels/src/simd/mod.rs", Named::Module),
    list("crates/lowbit-kernels/src/format", "rs", "crates/lowbit-kernels/src/format/mod.rs", Named::Module),
    list("crates/lowbit-model/src/arch", "rs", "crates/lowbit-model/src/arch/mod.rs", Named::In("architectures")),
    list("crates/lowbit-model/src/arch/family", "rs", "crates/lowbit-model/src/arch/family/mod.rs", Named::Module),
    list("crates/lowbit-eval/tasks", "toml", "crates/lowbit-eval/src/task.rs", Named::Included),
    list("crates/lowbit-eval/src/report/checks", "rs", "crates/lowbit-eval/src/checks.rs", Named::In("checks")),
    list("crates/lowbit-eval/src/audit/checks", "rs", "crates/lowbit-eval/src/checks.rs", Named::In("checks")),
    list("crates/lowbit/suites", "toml", "crates/lowbit/src/suite.rs", Named::Included),
    list("crates/lowbit/suites/texts", "toml", "crates/lowbit/src/comparison/texts.rs", Named::Included),
    list("crates/lowbit/suites/published", "toml", "crates/lowbit/src/published.rs", Named::Included),
    list("crates/lowbit/suites/language", "toml", "crates/lowbit/src/language.rs", Named::Included),
    list("crates/lowbit-cli/src/commands", "rs", "crates/lowbit-cli/src/commands/mod.rs", Named::Module),
    list("docs", "md", "docs/SUMMARY.md", Named::Linked),
    list("docs/formats", "md", "docs/SUMMARY.md", Named::Linked),
    list("docs/studies", "md", "docs/SUMMARY.md", Named::Linked),
];

const fn list(folder: &'static str, extension: &'static str, list: &'static str, named: Named) -> List {
    List { folder, extension, list, named }
}

/// Checks every list; a list or a folder that is not there is wrong, too.
pub fn check(tree: &Tree, lists: &[List]) -> Result<String, Vec<String>> {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for list in lists {
        let Some(text) = tree.get(list.list) else {
            wrong.push(format!("{} is not there, but LISTS names it", list.list));
            continue;
        };
        let files: Vec<&File> = members(tree, list).collect();
        if files.is_empty() {
            let (folder, extension) = (list.folder, list.extension);
            wrong.push(format!("{folder} holds no .{extension} file, but LISTS names it"));
        }
        seen += files.len();
        for file in files.iter().filter(|f| !names(list, text, f)) {
            wrong.push(format!("{} is not in the list of {}", file.path, list.list));
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    Ok(format!("{} lists name all of their {seen} files", lists.len()))
}

/// The files that a list has to name.
pub fn members<'a>(tree: &'a Tree, list: &'a List) -> impl Iterator<Item = &'a File> {
    let all = tree.all(list.extension);
    all.filter(|f| f.folder() == list.folder && f.stem() != "mod" && f.path != list.list)
}

fn names(list: &List, text: &str, file: &File) -> bool {
    let from = list.list.rsplit_once('/').map_or("", |(folder, _)| folder);
    let path = relative(from, &file.path);
    match list.named {
        Named::In(name) => call(text, name).is_some_and(|body| has_path(&body, file.stem())),
        Named::Module => has_module(&only(Kind::Code, text), file.stem()),
        Named::Included => {
            let (code, wanted) = (only(Kind::Code, text), format!("include_str!(\"{path}\")"));
            let mut found = text.match_indices(&wanted);
            found.any(|(at, _)| code[at..].starts_with("include_str!"))
        }
        Named::Linked => text.contains(&format!("]({path})")),
    }
}

/// Whether code declares a module, or gives it to a macro as `name::`.
pub fn has_module(code: &str, name: &str) -> bool {
    declared(code).any(|m| m == name) || has_path(code, name)
}

/// Names of the modules that are declared with a file of their own.
pub fn declared(code: &str) -> impl Iterator<Item = &str> {
    code.lines().filter_map(|line| {
        let line = line.trim();
        let line = match line.strip_prefix("pub") {
            Some(rest) if rest.starts_with('(') => rest.split_once(')')?.1.trim_start(),
            Some(rest) => rest.trim_start(),
            None => line,
        };
        line.strip_prefix("mod ")?.strip_suffix(';').map(str::trim)
    })
}

/// Whether code holds `name::` as a whole word.
fn has_path(code: &str, name: &str) -> bool {
    let wanted = format!("{name}::");
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(&wanted).any(|(at, _)| !code[..at].ends_with(inside))
}

/// The code between the braces of the first call of a macro.
fn call(text: &str, name: &str) -> Option<String> {
    let code = only(Kind::Code, text);
    let at = code.find(&format!("{name}! {{"))?;
    let body = &code[at..];
    let length = braces(body)?;
    Some(body[..length].to_owned())
}

/// Length up to the brace that closes the first one.
pub fn braces(code: &str) -> Option<usize> {
    let mut depth = 0usize;
    for (at, byte) in code.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return Some(at + 1),
            b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// A path relative to a folder.
pub fn relative(from: &str, path: &str) -> String {
    let from: Vec<&str> = from.split('/').filter(|p| !p.is_empty()).collect();
    let path: Vec<&str> = path.split('/').collect();
    let same = from.iter().zip(&path).take_while(|(a, b)| a == b).count();
    let up = from[same..].iter().map(|_| "..");
    up.chain(path[same..].iter().copied()).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The complaints about one list, or its summary.
    fn verdict(list: List, files: &[(&str, &str)]) -> String {
        match check(&Tree::of(files), &[list]) {
            Ok(summary) => summary,
            Err(wrong) => wrong.join("\n"),
        }
    }

    /// A list of the folder `a/x`.
    const fn listed(extension: &'static str, file: &'static str, named: Named) -> List {
        list("a/x", extension, file, named)
    }

    #[test]
    fn a_macro_names_its_files() {
        let text = "macro_rules! parts { ($m:ident) => {} }\nparts! {\n    1 \"one\" one::run;\n}\nuse two::x;";
        let files = [("a/x/mod.rs", text), ("a/x/one.rs", ""), ("a/x/tests/t.rs", "")];
        let new = || listed("rs", "a/x/mod.rs", Named::In("parts"));
        assert_eq!(verdict(new(), &files), "1 lists name all of their 1 files");
        let more = [files[0], files[1], ("a/x/two.rs", "")];
        assert_eq!(verdict(new(), &more), "a/x/two.rs is not in the list of a/x/mod.rs");
        let part_of_a_word = [("a/x/mod.rs", "parts! { someone::run; }"), files[1]];
        assert!(verdict(new(), &part_of_a_word).contains("one.rs is not in"));
    }

    #[test]
    fn a_module_is_declared_or_used() {
        let new = || listed("rs", "a/x/mod.rs", Named::Module);
        let text = "mod one;\npub(crate) mod two;\n// mod three;\nmod four { }\nfive::run();";
        let files = |name| [("a/x/mod.rs", text), (name, "")];
        for name in ["a/x/one.rs", "a/x/two.rs", "a/x/five.rs"] {
            assert!(verdict(new(), &files(name)).contains("all of their 1"), "{name}");
        }
        for name in ["a/x/three.rs", "a/x/four.rs"] {
            assert!(verdict(new(), &files(name)).contains("is not in the list"), "{name}");
        }
    }

    #[test]
    fn included_files_are_named_by_path_in_code() {
        let new = || listed("toml", "a/src/list.rs", Named::Included);
        let one = ("a/x/one.toml", "");
        let text = ("a/src/list.rs", "&[include_str!(\"../x/one.toml\")]");
        assert!(verdict(new(), &[one, text]).contains("all of their 1"));
        let comment = ("a/src/list.rs", "// include_str!(\"../x/one.toml\")");
        assert!(verdict(new(), &[one, comment]).contains("one.toml is not in"));
        let other = ("a/src/list.rs", "&[include_str!(\"../y/one.toml\")]");
        assert!(verdict(new(), &[one, other]).contains("one.toml is not in"));
    }

    #[test]
    fn linked_files_are_named_by_path() {
        let new = || listed("md", "INDEX.md", Named::Linked);
        let page = ("a/x/page.md", "");
        assert!(verdict(new(), &[page, ("INDEX.md", "see [page](a/x/page.md)")]).contains("all"));
        assert!(verdict(new(), &[page, ("INDEX.md", "see a/x/page.md")]).contains("is not in"));
    }

    #[test]
    fn a_list_or_folder_that_is_not_there_is_wrong() {
        let new = || listed("rs", "a/x/mod.rs", Named::Module);
        assert_eq!(verdict(new(), &[("a/x/one.rs", "")]), "a/x/mod.rs is not there, but LISTS names it");
        assert!(verdict(new(), &[("a/x/mod.rs", "")]).contains("a/x holds no .rs file"));
    }

    #[test]
    fn paths_climb_as_far_as_they_must() {
        assert_eq!(relative("a/src", "a/tasks/t.toml"), "../tasks/t.toml");
        assert_eq!(relative("", "docs/a.md"), "docs/a.md");
        assert_eq!(relative("a/b", "a/b/c.rs"), "c.rs");
        assert_eq!(braces("f { { } } }"), Some(9));
        assert_eq!(braces("f { {"), None);
    }
}
