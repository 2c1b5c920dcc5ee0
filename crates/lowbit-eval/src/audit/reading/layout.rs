//! Headings, places of tables, and sentences.

use super::{Cell, Raw, Section, Sentence, Table};
use crate::audit::figure::figures;

/// The headings with what is above each.
pub(super) fn sections(raw: &Raw) -> Vec<Section> {
    let mut out: Vec<Section> = Vec::new();
    for (line, level) in &raw.headings {
        let parent = out.iter().rposition(|above| above.level < *level);
        let title = raw.plain.get(line - 1).cloned().unwrap_or_default();
        out.push(Section { line: *line, level: *level, title: title.trim().into(), parent });
    }
    out
}

/// Place of the last heading at or before a line.
pub(super) fn section_at(sections: &[Section], line: usize) -> Option<usize> {
    sections.iter().rposition(|s| s.line <= line)
}

/// Headings from the outermost to this one, as one text.
pub(super) fn path(sections: &[Section], section: Option<usize>) -> String {
    let mut titles = Vec::new();
    let mut at = section;
    while let Some(i) = at {
        titles.push(sections[i].title.as_str());
        at = sections[i].parent;
    }
    titles.reverse();
    titles.join(" / ")
}

/// A table with the headings above it.
pub(super) fn place(mut table: Table, sections: &[Section]) -> Table {
    table.section = section_at(sections, table.line);
    let above = path(sections, table.section);
    table.title = if table.title.is_empty() { above } else { format!("{above} / {}", table.title) };
    table
}

/// Titles of columns whose cells say what to do.
const ADVICE: &[&str] = &["recommendation", "verdict", "use case", "conclusion"];

/// Sentences of the text, and of cells with advice.
pub(super) fn sentences(raw: &Raw, sections: &[Section], tables: &[Table]) -> Vec<Sentence> {
    let mut out = Vec::new();
    let heading = |line: usize| raw.headings.iter().any(|(at, _)| *at == line);
    for (i, text) in raw.plain.iter().enumerate().filter(|(i, text)| !text.trim().is_empty() && !heading(i + 1)) {
        if raw.code.get(i) == Some(&true) {
            continue;
        }
        for part in split(text) {
            out.push(sentence(part, i + 1, section_at(sections, i + 1), None));
        }
    }
    for table in tables {
        for (i, column) in table.columns.iter().enumerate() {
            let title = column.title.to_lowercase();
            if !ADVICE.iter().any(|word| title.contains(word)) {
                continue;
            }
            for row in &table.rows {
                let Some(Cell { text, line, .. }) = row.cell(i) else { continue };
                out.push(sentence(text, *line, table.section, Some(row.name.clone())));
            }
        }
    }
    out.sort_by_key(|s| s.line);
    out
}

fn sentence(text: &str, line: usize, section: Option<usize>, row: Option<String>) -> Sentence {
    let text = text.trim().to_string();
    Sentence { line, lower: text.to_lowercase(), figures: figures(&text), text, section, row }
}

/// Parts of a paragraph that end with a point before a capital letter.
fn split(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut from = 0;
    for (at, _) in text.match_indices(". ") {
        let next = text[at + 2..].chars().next();
        let word = text[from..at].rsplit(' ').next().unwrap_or_default();
        // "Avg. Drop" and "1. Executive" go on.
        let ends = next.is_some_and(char::is_uppercase) && word.chars().count() > 3;
        if ends {
            out.push(&text[from..=at]);
            from = at + 2;
        }
    }
    out.push(&text[from..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_are_split_at_sentences() {
        assert_eq!(split("One is here. Two follows."), ["One is here.", "Two follows."]);
        assert_eq!(split("The Avg. Drop is 2.5 points"), ["The Avg. Drop is 2.5 points"]);
    }
}
