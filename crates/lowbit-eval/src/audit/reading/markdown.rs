//! Markdown and plain text: tables of the parser, everything else by lines, so that each finding has its line.

use super::{Cell, Column, Raw, Row, Table};
use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// Reads a text.
pub(super) fn read(text: &str) -> Raw {
    let starts: Vec<usize> = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let line = |byte: usize| starts.partition_point(|start| *start <= byte);
    let lines: Vec<&str> = text.lines().collect();
    let mut raw = Raw { plain: lines.iter().map(|l| plain(l)).collect(), ..Raw::default() };
    raw.code = vec![false; lines.len()];
    let mut grid = Grid::default();
    for (event, range) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
        match event {
            Event::Start(Tag::Table(_)) => {
                grid = Grid { table: Table { line: line(range.start), ..Table::default() }, ..Grid::default() };
                grid.inside = true;
                for covered in line(range.start)..=line(range.end.saturating_sub(1)) {
                    blank(&mut raw, covered);
                }
            }
            Event::End(TagEnd::Table) => {
                grid.inside = false;
                raw.tables.push(std::mem::take(&mut grid.table));
            }
            Event::Start(Tag::CodeBlock(kind)) => {
                let last = line(range.end.saturating_sub(1));
                let fenced = matches!(kind, CodeBlockKind::Fenced(_));
                for covered in line(range.start)..=last {
                    // Indented text of a plain report is no code.
                    if let Some(code) = raw.code.get_mut(covered - 1) {
                        *code = fenced;
                    }
                }
            }
            Event::Start(Tag::Heading { level, .. }) => raw.headings.push((line(range.start), rank(level))),
            event if grid.inside => grid.take(&event, line(range.start)),
            _ => {}
        }
    }
    underlined(&mut raw, &lines);
    raw
}

fn rank(level: HeadingLevel) -> usize {
    level as usize
}

fn blank(raw: &mut Raw, line: usize) {
    if let Some(text) = raw.plain.get_mut(line - 1) {
        text.clear();
    }
}

/// A table being read.
#[derive(Default)]
struct Grid {
    inside: bool,
    table: Table,
    head: bool,
    text: String,
    row: Vec<Option<Cell>>,
}

impl Grid {
    fn take(&mut self, event: &Event, line: usize) {
        match event {
            Event::Start(Tag::TableHead) => self.head = true,
            Event::Start(Tag::TableCell) => self.text.clear(),
            Event::Text(text) | Event::Code(text) => self.text.push_str(text),
            Event::SoftBreak | Event::HardBreak => self.text.push(' '),
            Event::End(TagEnd::TableCell) if self.head => self.table.columns.push(Column::new(&self.text, "")),
            Event::End(TagEnd::TableCell) => self.row.push(Some(Cell::new(&self.text, line))),
            Event::End(TagEnd::TableHead) => self.head = false,
            Event::End(TagEnd::TableRow) => {
                let cells = std::mem::take(&mut self.row);
                let name = cells.first().and_then(|c| c.as_ref()).map(|c| c.text.clone()).unwrap_or_default();
                self.table.rows.push(Row { name, part: String::new(), line, cells });
            }
            _ => {}
        }
    }
}

/// Titles with a rule below, as plain reports have them; rules are no text.
fn underlined(raw: &mut Raw, lines: &[&str]) {
    let rule = |text: &str| {
        let text = text.trim();
        let first = text.chars().next().filter(|c| "=-\u{2500}\u{2550}~*_".contains(*c))?;
        (text.chars().count() >= 4 && text.chars().all(|c| c == first)).then_some(first)
    };
    for i in 0..lines.len() {
        let Some(kind) = rule(lines[i]) else { continue };
        raw.plain[i].clear();
        let Some(above) = i.checked_sub(1).filter(|above| !raw.plain[*above].trim().is_empty()) else { continue };
        if rule(lines[above]).is_some() || raw.code[above] {
            continue;
        }
        let level = if "=\u{2550}".contains(kind) { 2 } else { 3 };
        // The parser takes a whole paragraph above a rule for its heading.
        let apart = |line: usize| raw.plain[line - 1..=above].iter().any(|text| text.trim().is_empty());
        raw.headings.retain(|(line, _)| *line > above + 1 || apart(*line));
        raw.headings.push((above + 1, level));
    }
    raw.headings.retain(|(line, _)| raw.plain.get(line - 1).is_some_and(|text| !text.trim().is_empty()));
    raw.headings.sort_unstable();
}

/// A line without the marks of headings, emphasis and code.
fn plain(line: &str) -> String {
    let indent = line.len() - line.trim_start().len();
    let (space, rest) = line.split_at(indent);
    let rest = rest.strip_prefix('>').unwrap_or(rest);
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    let rest = if hashes > 0 && rest[hashes..].starts_with(' ') { &rest[hashes + 1..] } else { rest };
    let mut out = String::from(space);
    let mut chars = rest.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if chars.peek().is_some_and(char::is_ascii_punctuation) => out.extend(chars.next()),
            '*' if chars.peek() == Some(&' ') && out.trim().is_empty() => out.push('\u{2022}'),
            '*' | '`' => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_headings_and_lines_are_found() {
        let raw =
            read("# Title\n\ntext **bold**\n\n## Part\n\n| a | b (ms) |\n|---|---|\n| x | 1\\|2 |\n| `y` | 3 |\n");
        assert_eq!(raw.headings, [(1, 1), (5, 2)]);
        assert_eq!(raw.plain[2], "text bold");
        let table = &raw.tables[0];
        assert_eq!((table.line, table.rows[1].line, table.rows[1].name.as_str()), (7, 10, "y"));
        assert_eq!(table.rows[0].cells[1].as_ref().unwrap().text, "1|2");
        assert_eq!(table.columns[1].unit.unwrap().name, "ms");
        assert!(raw.plain[6..10].iter().all(String::is_empty));
    }

    #[test]
    fn plain_reports_have_titles_with_rules() {
        let raw = read(
            "\n======\nREPORT\nof something\n======\n\n1. PART\n======\n\nBaseline (FP32):\n\u{2500}\u{2500}\u{2500}\u{2500}\n\n  \u{2022} Accuracy:   94.62%\n",
        );
        let titles: Vec<(usize, &str)> = raw.headings.iter().map(|(l, _)| (*l, raw.plain[l - 1].as_str())).collect();
        assert_eq!(titles, [(4, "of something"), (7, "1. PART"), (10, "Baseline (FP32):")]);
    }
}
