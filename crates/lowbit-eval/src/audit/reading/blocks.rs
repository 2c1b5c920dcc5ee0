//! Titles with keys and values below them: each title is a row, each key a column.

use super::{Cell, Column, Raw, Row, Section, Table, layout};
use crate::audit::figure::figures;
use crate::audit::quantity::{self, Quantity};

/// Words of a key at most.
const KEY: usize = 6;
/// Words before a number in parentheses that may name it.
const PHRASE: usize = 5;

/// Keys and values under one title.
#[derive(Default)]
struct Block {
    title: String,
    part: String,
    line: usize,
    /// Key, its group, and the value.
    cells: Vec<(String, String, Cell)>,
}

/// Every block, those with common keys as one table.
pub(super) fn read(raw: &Raw, sections: &[Section]) -> Vec<Table> {
    let mut tables: Vec<Vec<Block>> = Vec::new();
    for block in all(raw).into_iter().filter(|b| !b.cells.is_empty()) {
        let keys = |blocks: &[Block]| -> Vec<String> {
            blocks.iter().flat_map(|b| &b.cells).map(|(key, ..)| key.to_lowercase()).collect()
        };
        let fits = |blocks: &Vec<Block>| {
            let theirs = keys(blocks);
            let common = block.cells.iter().filter(|(key, ..)| theirs.contains(&key.to_lowercase())).count();
            common >= 2 || common == block.cells.len()
        };
        match tables.iter_mut().find(|blocks| fits(blocks)) {
            Some(blocks) => blocks.push(block),
            None => tables.push(vec![block]),
        }
    }
    tables.into_iter().map(|blocks| table(blocks, sections)).collect()
}

fn table(blocks: Vec<Block>, sections: &[Section]) -> Table {
    let mut columns = vec![Column::new("", "")];
    for (key, group, _) in blocks.iter().flat_map(|b| &b.cells) {
        if !columns.iter().any(|c| c.title.eq_ignore_ascii_case(key)) {
            columns.push(Column::new(key, group));
        }
    }
    let line = blocks.first().map_or(1, |b| b.line);
    let rows = blocks.into_iter().map(|block| {
        let cell = |column: &Column| {
            let found = block.cells.iter().find(|(key, ..)| column.title.eq_ignore_ascii_case(key));
            found.map(|(.., cell)| cell.clone())
        };
        let cells = columns.iter().map(cell).collect();
        Row { name: block.title.clone(), part: block.part.clone(), line: block.line, cells }
    });
    let rows = rows.collect();
    let section = layout::section_at(sections, line);
    // The title of the first block is the name of a row, not of the table.
    let above = section.and_then(|s| sections[s].parent).or(section);
    Table { section: above, title: layout::path(sections, above), line, columns, rows }
}

fn all(raw: &Raw) -> Vec<Block> {
    let mut out = vec![Block::default()];
    let mut group = String::new();
    for (i, text) in raw.plain.iter().enumerate() {
        let (line, indent) = (i + 1, text.len() - text.trim_start().len());
        if raw.headings.iter().any(|(at, _)| *at == line) {
            out.push(Block { title: title(text), line, ..Block::default() });
            group.clear();
            continue;
        }
        let item = item(text);
        if let Some(head) = item.strip_suffix(':').filter(|head| !head.contains(": ")) {
            match (enumerated(head), indent) {
                (Some(part), _) => {
                    let title = out.last().map(|b| b.title.clone()).unwrap_or_default();
                    out.push(Block { title, part, line, ..Block::default() });
                    group.clear();
                }
                (None, 0) => {
                    out.push(Block { title: title(head), line, ..Block::default() });
                    group.clear();
                }
                (None, _) => group = head.into(),
            }
            continue;
        }
        let Some(block) = out.last_mut() else { continue };
        let found = match pair(item) {
            Some((key, value)) => vec![(key.to_string(), Cell::new(value, line))],
            None => inline(item, line),
        };
        for (key, cell) in found {
            if !block.cells.iter().any(|(known, ..)| known.eq_ignore_ascii_case(&key)) {
                block.cells.push((key, group.clone(), cell));
            }
        }
    }
    out
}

/// A line without the mark of a list or the branch of a tree.
fn item(text: &str) -> &str {
    let mark = |c: char| c.is_whitespace() || "\u{251c}\u{2514}\u{2502}\u{2500}\u{2022}-\u{2013}\u{2705}".contains(c);
    text.trim_start_matches(mark).trim_end()
}

/// `a) On enwik8` is about `enwik8`.
fn enumerated(head: &str) -> Option<String> {
    let (mark, rest) = head.split_once([')', '.'])?;
    let is_mark = mark.chars().count() == 1 && mark.chars().all(|c| c.is_ascii_lowercase());
    let rest = rest.trim();
    is_mark.then(|| rest.strip_prefix("On ").or(rest.strip_prefix("on ")).unwrap_or(rest).to_string())
}

/// A title without its number and without a remark that holds quantities.
fn title(text: &str) -> String {
    let mut text = item(text).trim().trim_end_matches(':');
    if let Some((number, rest)) = text.split_once(". ")
        && number.chars().all(|c| c.is_ascii_digit())
    {
        text = rest;
    }
    match text.rfind('(') {
        Some(at) if !figures(&text[at..]).is_empty() => text[..at].trim().into(),
        _ => text.trim().into(),
    }
}

/// `Key: value` where the value holds a number or names a device.
fn pair(item: &str) -> Option<(&str, &str)> {
    let (key, value) = item.split_once(':')?;
    let (key, value) = (key.trim(), value.trim());
    let plain = !key.is_empty() && key.split_whitespace().count() <= KEY && !key.contains(['.', '?', '!', ';', ',']);
    let device = quantity::of_column(key, None, "") == Some(Quantity::Device);
    (plain && !value.is_empty() && (device || !figures(value).is_empty())).then_some((key, value))
}

/// Quantities that prose tells in the form `perplexity (13.89)`.
const TOLD: &[Quantity] = &[Quantity::Perplexity, Quantity::Entropy, Quantity::Compression, Quantity::Accuracy];

fn inline(item: &str, line: usize) -> Vec<(String, Cell)> {
    let mut out = Vec::new();
    for (at, _) in item.match_indices('(') {
        let inside = item[at + 1..].split(')').next().unwrap_or_default();
        let only = figures(inside).into_iter().next().filter(|f| f.start == 0 && f.end == inside.len());
        let words: Vec<&str> = item[..at].split_whitespace().collect();
        // The nearest words that name something.
        let named = (1..=PHRASE.min(words.len())).find_map(|n| {
            let phrase = words[words.len() - n..].join(" ").to_lowercase();
            quantity::of_column(&phrase, None, "").filter(|q| TOLD.contains(q))
        });
        if let (Some(_), Some(quantity)) = (only, named) {
            out.push((quantity.words().to_string(), Cell::new(inside, line)));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::{Syntax, markdown};
    use super::*;
    use crate::audit::facts::Facts;
    use crate::audit::reading::Reading;

    fn tables(text: &str) -> Vec<Table> {
        let raw = markdown::read(text);
        read(&raw, &layout::sections(&raw))
    }

    #[test]
    fn blocks_of_equal_keys_are_one_table() {
        let text = "Float (FP32):\n\u{2500}\u{2500}\u{2500}\u{2500}\n  Sizes:\n    \u{2022} Memory:  4.0 MB\n    \u{2022} Latency: 8 ms\n\nINT8 (bnb):\n\u{2500}\u{2500}\u{2500}\u{2500}\n  Sizes:\n    \u{2022} Memory:  1.0 MB\n    \u{2022} Latency: 9 ms\n";
        let found = tables(text);
        assert_eq!(found.len(), 1);
        let names: Vec<&str> = found[0].rows.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(names, ["Float (FP32)", "INT8 (bnb)"]);
        assert_eq!(found[0].rows[1].line_of(2), 11);
        assert_eq!(found[0].columns[1].group, "Sizes");
    }

    #[test]
    fn prose_and_parts_are_rows() {
        let text = "Model L (185M parameters):\na) On enwik8:\nGood perplexity (13.89) and BPC (0.47).\nb) On enwik9:\nWorse perplexity (17.40) and BPC (0.52) there.\n";
        let reading = Reading::new(text, Syntax::Markdown, Facts::default()).unwrap();
        let rows: Vec<(&str, &str, usize)> =
            reading.tables[0].rows.iter().map(|r| (r.name.as_str(), r.part.as_str(), r.line_of(1))).collect();
        assert_eq!(rows, [("Model L", "enwik8", 3), ("Model L", "enwik9", 5)]);
        assert_eq!(reading.tables[0].columns[2].quantity, Some(Quantity::Entropy));
    }
}
