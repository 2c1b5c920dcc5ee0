//! The files of the workspace, and Rust text split into code, comments and literals.

use std::fs;
use std::io;
use std::path::Path;

/// Folders that hold files of the project; files beside them are read too.
const FOLDERS: &[&str] = &["crates", "docs", "tools", "xtask"];
/// Extensions of the files that are read.
const EXTENSIONS: &[&str] = &["rs", "md", "toml"];

/// One text file.
pub struct File {
    /// Relative to the workspace, with `/`.
    pub path: String,
    /// Its content.
    pub text: String,
}

impl File {
    /// The folder it lies in, without a trailing `/`; empty for the workspace itself.
    pub fn folder(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    /// The name without folder and extension.
    pub fn stem(&self) -> &str {
        let name = self.path.rsplit_once('/').map_or(&*self.path, |(_, name)| name);
        name.rsplit_once('.').map_or(name, |(stem, _)| stem)
    }

    /// Whether the name ends in this extension.
    pub fn is(&self, extension: &str) -> bool {
        self.path.rsplit_once('.').is_some_and(|(_, e)| e == extension)
    }
}

/// All Rust, Markdown and TOML files, sorted by path.
pub struct Tree {
    /// The files.
    pub files: Vec<File>,
}

impl Tree {
    /// Reads the files of a workspace; symbolic links and hidden names are left out.
    pub fn read(root: &Path) -> io::Result<Tree> {
        let mut files = Vec::new();
        collect(root, "", &mut files)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Tree { files })
    }

    /// The content of a file.
    pub fn get(&self, path: &str) -> Option<&str> {
        self.files.iter().find(|f| f.path == path).map(|f| &*f.text)
    }

    /// All files with an extension.
    pub fn all<'a>(&'a self, extension: &'a str) -> impl Iterator<Item = &'a File> {
        self.files.iter().filter(move |f| f.is(extension))
    }

    #[cfg(test)]
    pub fn of(files: &[(&str, &str)]) -> Tree {
        let file = |&(path, text): &(&str, &str)| File { path: path.into(), text: text.into() };
        Tree { files: files.iter().map(file).collect() }
    }
}

fn collect(root: &Path, folder: &str, files: &mut Vec<File>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        if name.starts_with('.') {
            continue;
        }
        if kind.is_dir() && (!folder.is_empty() || FOLDERS.contains(&&*name)) {
            collect(root, &path, files)?;
        }
        let known = |e: &&str| name.ends_with(&format!(".{e}"));
        if kind.is_file() && EXTENSIONS.iter().any(known) {
            let bytes = fs::read(root.join(&path))?;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            files.push(File { path, text });
        }
    }
    Ok(())
}

/// What a piece of Rust text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Neither of the others.
    Code,
    /// A comment of any form.
    Comment,
    /// A string or character literal.
    Literal,
}

/// The text with everything of another kind replaced by spaces; lines and byte positions stay as they are.
pub fn only(kind: Kind, text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let (found, length) = piece(text, at);
        let part = &text[at..at + length];
        if found == kind {
            out.push_str(part);
        } else {
            out.extend(part.bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }));
        }
        at += length;
    }
    out
}

/// The text before its tests.
pub fn before_tests(text: &str) -> &str {
    text.find("#[cfg(test)]\nmod ").map_or(text, |at| &text[..at])
}

/// Where strings begin, and what they hold.
pub fn literals(text: &str) -> Vec<(usize, &str)> {
    let only = only(Kind::Literal, text);
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(start) = only[at..].find('"').map(|n| at + n) {
        let Some(end) = only[start + 1..].find('"').map(|n| start + 1 + n) else { break };
        found.push((start, &text[start + 1..end]));
        at = end + 1;
    }
    found
}

/// Kind and length of the piece that begins at `at`: a whole comment or literal, or one word or character of code.
fn piece(text: &str, at: usize) -> (Kind, usize) {
    let rest = &text[at..];
    if rest.starts_with("//") {
        return (Kind::Comment, rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return (Kind::Comment, block_comment(rest));
    }
    let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    let (prefix, tail) = rest.split_at(word);
    let raw = matches!(prefix, "r" | "br" | "cr");
    let hashes = tail.len() - tail.trim_start_matches('#').len();
    if raw && tail[hashes..].starts_with('"') {
        let close = format!("\"{}", "#".repeat(hashes));
        let body = &tail[hashes + 1..];
        let length = body.find(&close).map_or(body.len(), |n| n + close.len());
        return (Kind::Literal, word + hashes + 1 + length);
    }
    if matches!(prefix, "" | "b" | "c") && tail.starts_with('"') {
        return (Kind::Literal, word + quoted(tail, '"'));
    }
    if matches!(prefix, "" | "b") && is_character(tail) {
        return (Kind::Literal, word + quoted(tail, '\''));
    }
    let one = rest.chars().next().map_or(1, char::len_utf8);
    (Kind::Code, word.max(one))
}

/// Length of a block comment, which may hold others.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < text.len() {
        let step = match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => {
                depth += 1;
                2
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        at += step;
        if depth == 0 {
            break;
        }
    }
    at
}

/// Length of a literal that ends at the first `quote` no backslash stands before.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Whether `'` begins a character rather than a lifetime.
fn is_character(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next() == Some('\'')
        && match chars.next() {
            Some('\\') => true,
            Some(_) => chars.next() == Some('\''),
            None => false,
        }
}

/// The line of a byte position, from 1.
pub fn line_of(text: &str, at: usize) -> usize {
    1 + text[..at].matches('\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r###"fn f<'a>(x: &'a str) -> char { // a "comment" of fn
    /* outer /* inner " */ still */ let s = "in \" // text"; let r = r#"raw " fn"#;
    let b = b"bytes"; let c = '"'; let d = '\''; let é = 'é'; 'x'
}"###;

    #[test]
    fn code_comments_and_literals_are_told_apart() {
        let code = only(Kind::Code, SAMPLE);
        let comments = only(Kind::Comment, SAMPLE);
        let literals = only(Kind::Literal, SAMPLE);
        for out in [&code, &comments, &literals] {
            assert_eq!(out.lines().count(), SAMPLE.lines().count());
            assert_eq!(out.len(), SAMPLE.len());
        }
        assert!(code.contains("<'a>(x: &'a str)") && code.trim_end().ends_with('}'));
        for word in ["comment", "inner", "still", "text", "raw", "bytes", "\""] {
            assert!(!code.contains(word), "{word} in {code}");
        }
        assert!(comments.contains(r#"// a "comment" of fn"#) && comments.contains("still */"));
        assert!(!comments.contains("text") && !comments.contains("let"));
        assert!(literals.contains(r#""in \" // text""#) && literals.contains(r##"r#"raw " fn"#"##));
        assert!(literals.contains(r#"'"'"#) && literals.contains(r"'\''") && literals.contains("'é'"));
        assert!(!literals.contains("comment"));
    }

    #[test]
    fn unfinished_pieces_end_with_the_text() {
        for text in ["\"open", "/* open", "r#\"open\"", "'", "// open", "b'"] {
            assert_eq!(only(Kind::Code, text).len(), text.len(), "{text}");
        }
    }

    #[test]
    fn names_are_taken_apart() {
        let tree = Tree::of(&[("crates/a/src/lib.rs", "x"), ("README.md", "y")]);
        let file = &tree.files[0];
        assert_eq!((file.folder(), file.stem()), ("crates/a/src", "lib"));
        assert_eq!((tree.files[1].folder(), tree.files[1].stem()), ("", "README"));
        assert!(file.is("rs") && !file.is("s"));
        assert_eq!(tree.get("README.md"), Some("y"));
        assert_eq!(tree.all("md").count(), 1);
        assert_eq!(line_of("a\nb\nc", 4), 3);
    }
}
