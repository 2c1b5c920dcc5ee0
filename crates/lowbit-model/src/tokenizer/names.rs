//! Added tokens: entries of a vocabulary that are found in a text by their names, before its model sees the rest.
//!
//! What was said must not become such a token. So the finder knows which bytes of a text were said, and passes over every name
//! that touches one of them. The exceptions are names that are ordinary text: a single character, or nothing but spaces.

use super::pieces::SPACE;
use std::collections::HashMap;

/// An added token; the switches are those of the Hub's library.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Name {
    pub text: String,
    pub id: u32,
    /// Found only where no letter or digit is beside it.
    pub single_word: bool,
    /// Takes the white space before it.
    pub lstrip: bool,
    /// Takes the white space after it.
    pub rstrip: bool,
}

impl Name {
    /// A name without switches.
    pub fn plain(text: &str, id: u32) -> Self {
        Name { text: text.into(), id, ..Name::default() }
    }
}

/// Whether a name is ordinary text: a single character, or nothing but spaces.
pub(super) fn is_text(name: &str) -> bool {
    name.chars().nth(1).is_none() || name.chars().all(|c| c.is_whitespace() || c == SPACE)
}

/// The bytes of a text that were said, in ranges that ascend; all others were written by a template.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    ranges: Vec<(usize, usize)>,
}

impl Said {
    /// A text of so many bytes, all of them said.
    pub fn all(len: usize) -> Self {
        Said { ranges: vec![(0, len)] }
    }

    /// The text of parts; those marked `false` were said.
    pub fn of(parts: &[(&str, bool)]) -> (String, Self) {
        let (mut text, mut ranges) = (String::new(), Vec::new());
        for (part, written) in parts {
            let start = text.len();
            text.push_str(part);
            if !written && !part.is_empty() {
                ranges.push((start, text.len()));
            }
        }
        (text, Said { ranges })
    }

    /// Whether any byte of a range was said.
    pub fn touches(&self, start: usize, end: usize) -> bool {
        let next = self.ranges.partition_point(|(_, until)| *until <= start);
        self.ranges.get(next).is_some_and(|(from, _)| *from < end)
    }
}

/// Where a name is in a text, with the white space it takes, and its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub start: usize,
    pub end: usize,
    pub id: u32,
}

/// Added tokens by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    list: Vec<Name>,
    by_text: HashMap<Vec<u8>, usize>,
    /// Lengths of the names that begin with a byte, the longest first.
    lengths: HashMap<u8, Vec<usize>>,
}

impl Names {
    /// Bytes of the longest name.
    pub fn longest(&self) -> usize {
        self.list.iter().map(|name| name.text.len()).max().unwrap_or(0)
    }

    /// Whether any of them takes white space beside it.
    pub fn strip(&self) -> bool {
        self.list.iter().any(|name| name.lstrip || name.rstrip)
    }

    /// The last of equal names counts.
    pub fn new(list: Vec<Name>) -> Self {
        let list: Vec<Name> = list.into_iter().filter(|name| !name.text.is_empty()).collect();
        let (mut by_text, mut lengths) = (HashMap::new(), HashMap::<u8, Vec<usize>>::new());
        for (i, name) in list.iter().enumerate() {
            by_text.insert(name.text.clone().into_bytes(), i);
            lengths.entry(name.text.as_bytes()[0]).or_default().push(name.text.len());
        }
        for lengths in lengths.values_mut() {
            lengths.sort_unstable_by(|a, b| b.cmp(a));
            lengths.dedup();
        }
        Names { list, by_text, lengths }
    }

    /// The token of a name.
    pub fn id(&self, text: &str) -> Option<u32> {
        self.by_text.get(text.as_bytes()).map(|i| self.list[*i].id)
    }

    /// The names in a text, leftmost, then longest; none that is `barred` from a range of bytes.
    pub fn find(&self, text: &str, barred: impl Fn(usize, usize) -> bool) -> Vec<Found> {
        let (bytes, mut at, mut taken, mut found) = (text.as_bytes(), 0, 0, Vec::new());
        while at < bytes.len() && !self.list.is_empty() {
            let fits = |length: &usize| {
                let name = &self.list[*self.by_text.get(bytes.get(at..at + length)?)?];
                (is_text(&name.text) || !barred(at, at + length)).then_some(name)
            };
            let Some(name) = self.lengths.get(&bytes[at]).and_then(|lengths| lengths.iter().find_map(fits)) else {
                at += 1;
                continue;
            };
            let (before, after) = (&text[..at], &text[at + name.text.len()..]);
            at += name.text.len();
            if name.single_word && (before.ends_with(is_word) || after.starts_with(is_word)) {
                continue;
            }
            let start = if name.lstrip { before.trim_end().len() } else { before.len() };
            let stripped = if name.rstrip { after.len() - after.trim_start().len() } else { 0 };
            found.push(Found { start: start.max(taken), end: at + stripped, id: name.id });
            at += stripped;
            taken = at;
        }
        found
    }
}

/// Letters, digits and what else joins words (`\w`).
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '\u{200c}' | '\u{200d}' | '\u{203f}' | '\u{2040}' | '\u{ff3f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: &Names, parts: &[(&str, bool)]) -> Vec<(usize, usize, u32)> {
        let (text, said) = Said::of(parts);
        names.find(&text, |from, to| said.touches(from, to)).into_iter().map(|f| (f.start, f.end, f.id)).collect()
    }

    #[test]
    fn the_longest_name_that_nobody_said_is_found() {
        let names = Names::new(vec![
            Name::plain("<a>", 0),
            Name::plain("<a>b", 1),
            Name::plain("aa", 2),
            Name::plain("  ", 3),
            Name::plain("!", 4),
        ]);
        assert_eq!(found(&names, &[("x<a>b<a>", true)]), [(1, 5, 1), (5, 8, 0)]);
        assert_eq!(found(&names, &[("<a>", true), ("b", false)]), [(0, 3, 0)]);
        assert_eq!(found(&names, &[("<a", false), (">", true)]), []);
        assert_eq!(found(&names, &[("<", true), ("a", false), (">", true)]), []);
        assert_eq!(found(&names, &[("<a>  !aa", false)]), [(3, 5, 3), (5, 6, 4)]);
        // A name that someone began does not hide the template's own.
        assert_eq!(found(&names, &[("a", false), ("aa", true)]), [(1, 3, 2)]);
        assert_eq!(found(&names, &[("é<a", true), (">", true), ("é", false)]), [(2, 5, 0)]);
        assert_eq!((names.id("<a>b"), names.id("b")), (Some(1), None));
    }

    #[test]
    fn switches() {
        let name =
            |text: &str, id, single_word, lstrip, rstrip| Name { text: text.into(), id, single_word, lstrip, rstrip };
        let names = Names::new(vec![
            name("[L]", 0, false, true, false),
            name("[R]", 1, false, false, true),
            name("word", 2, true, false, false),
        ]);
        assert_eq!(found(&names, &[("a \t[L] b [R]\u{3000} [L]", true)]), [(1, 6, 0), (9, 16, 1), (16, 19, 0)]);
        assert_eq!(found(&names, &[("word words (word) sword", true)]), [(0, 4, 2), (12, 16, 2)]);
    }

    #[test]
    fn ranges() {
        let (text, said) = Said::of(&[("ab", true), ("cd", false), ("", false), ("e", true), ("f", false)]);
        assert_eq!(text, "abcdef");
        let touched: Vec<bool> = (0..6).map(|at| said.touches(at, at + 1)).collect();
        assert_eq!(touched, [false, false, true, true, false, true]);
        assert!(said.touches(0, 3) && !said.touches(0, 2) && !said.touches(4, 5) && !said.touches(6, 9));
    }
}
