//! The report, its text and its tables set in characters of one width.

use super::checks::{CheckResult, Outcome};
use super::document::{Block, Cell, Document, Fact, Table};

/// The whole report in lines of `width` characters, without plots.
pub(super) fn render(document: &Document, width: usize) -> Vec<String> {
    let mut out = ruled(&document.title, '=');
    blocks(&document.lead, width, &mut out);
    for section in &document.sections {
        out.extend(ruled(&section.title, '-'));
        blocks(&section.blocks, width, &mut out);
    }
    out
}

/// A title with a line below it.
fn ruled(title: &str, rule: char) -> Vec<String> {
    vec![title.into(), rule.to_string().repeat(title.chars().count()), String::new()]
}

fn blocks(list: &[Block], width: usize, out: &mut Vec<String>) {
    for block in list {
        match block {
            Block::Facts(facts) => facts_of(facts, width, out),
            Block::Paragraph(text) => out.extend(wrapped(text, width)),
            Block::Callout(_, text) => out.extend(hung("! ", text, width)),
            Block::Headline(findings) => {
                out.extend(findings.iter().flat_map(|finding| wrapped(&finding.to_string(), width)));
            }
            Block::Findings(findings) => {
                out.extend(findings.iter().flat_map(|finding| hung("- ", &finding.to_string(), width)));
            }
            Block::Choices(choices) => paged(&choices.table, width, out),
            Block::Table(table) => paged(table, width, out),
            Block::Charts(_) => continue,
            Block::Details(summary, inner) => {
                out.extend([format!("{summary}:"), String::new()]);
                blocks(inner, width, out);
                continue;
            }
            Block::Checks(results) => out.extend(results.iter().flat_map(|result| check(result, width))),
        }
        out.push(String::new());
    }
}

fn facts_of(facts: &[Fact], width: usize, out: &mut Vec<String>) {
    let labels = facts.iter().map(|fact| fact.label.chars().count()).max().unwrap_or(0);
    out.extend(facts.iter().flat_map(|fact| hung(&format!("{:labels$}  ", fact.label), &fact.value, width)));
}

/// A check that did not pass with its lines, one that did in a line.
fn check(result: &CheckResult, width: usize) -> Vec<String> {
    let (state, _) = result.outcome.state();
    let start = format!("{:>3}  {state:14} {}", result.id, result.name);
    let told = match &result.outcome {
        Outcome::Notice(lines) | Outcome::Fail(lines) => lines.as_slice(),
        _ => &[],
    };
    std::iter::once(start).chain(told.iter().flat_map(|line| hung("     ", line, width))).collect()
}

/// Text behind a first word, its further lines below one another.
fn hung(first: &str, text: &str, width: usize) -> Vec<String> {
    let indent = first.chars().count();
    let lines = wrapped(text, width.saturating_sub(indent).max(20)).into_iter().enumerate();
    lines.map(|(i, line)| format!("{}{line}", if i == 0 { first.to_string() } else { " ".repeat(indent) })).collect()
}

/// A table with its caption and remark; where it is wider than `width`, its columns stand below each other, the first one before each.
fn paged(table: &Table, width: usize, out: &mut Vec<String>) {
    if !table.caption.is_empty() {
        out.extend([table.caption.clone(), String::new()]);
    }
    let widths: Vec<usize> = columns(table, true).iter().map(|column| longest(column)).collect();
    let mut at = 1;
    while at < widths.len() || at == 1 {
        let mut used = widths.first().copied().unwrap_or(0);
        let fits = widths[at.min(widths.len())..].iter().take_while(|w| {
            used += *w + GAP;
            used <= width
        });
        let end = (at + fits.count().max(1)).min(widths.len());
        let keep = |i: usize| i == 0 || (at..end).contains(&i);
        let head = table.head.iter().enumerate().filter(|(i, _)| keep(*i)).map(|(_, head)| head.clone()).collect();
        let cells =
            |row: &Vec<Cell>| row.iter().enumerate().filter(|(i, _)| keep(*i)).map(|(_, c)| c.clone()).collect();
        let part = Table { head, rows: table.rows.iter().map(cells).collect(), ..Table::default() };
        if at > 1 {
            out.push(String::new());
        }
        out.extend(aligned(&part, usize::MAX, &[]));
        at = end.max(at + 1);
    }
    if !table.foot.is_empty() {
        out.push(String::new());
        out.extend(wrapped(&table.foot, width));
    }
}

/// Text in lines of `width` characters at most, where its words allow.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.into()),
        }
    }
    lines
}

/// Main text and the remark below it, in one line.
fn whole(cell: &Cell) -> String {
    match cell.note.is_empty() {
        true => cell.text.clone(),
        false => format!("{} ({})", cell.text, cell.note),
    }
}

/// Columns of a table as text, head first, with or without remarks.
fn columns(table: &Table, with_notes: bool) -> Vec<Vec<String>> {
    let text = |cell: &Cell| if with_notes { whole(cell) } else { cell.text.clone() };
    let column = |i: usize| {
        let cells = table.rows.iter().map(|row| row.get(i).map_or(String::new(), text));
        std::iter::once(table.head[i].clone()).chain(cells).collect()
    };
    (0..table.head.len()).map(column).collect()
}

fn longest(column: &[String]) -> usize {
    column.iter().map(|text| text.chars().count()).max().unwrap_or(0)
}

/// Characters between columns.
const GAP: usize = 2;

/// The table in columns of equal width, numbers flush right. Where it is wider than `width`, remarks are left out, then the `spared`
/// columns one after another, the first one first.
pub(super) fn aligned(table: &Table, width: usize, spared: &[&str]) -> Vec<String> {
    let mut table = table.clone();
    let wide = |table: &Table, with_notes| {
        columns(table, with_notes).iter().map(|c| longest(c) + GAP).sum::<usize>().saturating_sub(GAP)
    };
    let with_notes = wide(&table, true) <= width;
    let mut spared = spared.iter();
    while wide(&table, with_notes) > width {
        let Some(at) = spared.find_map(|name| table.head.iter().position(|head| head == name)) else { break };
        table.head.remove(at);
        table.rows.iter_mut().filter(|row| at < row.len()).for_each(|row| _ = row.remove(at));
    }
    let columns = columns(&table, with_notes);
    let numbers: Vec<bool> = (0..columns.len()).map(|i| table.rows.iter().any(|row| row[i].number)).collect();
    let line = |row: usize| {
        let cells = columns.iter().zip(&numbers).map(|(column, number)| {
            let (text, width) = (&column[row], longest(column));
            if *number { format!("{text:>width$}") } else { format!("{text:width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_string()
    };
    (0..=table.rows.len()).map(line).collect()
}

/// The table in columns of equal width, a remark in a line of its own below its cell.
pub(super) fn stacked(table: &Table) -> Vec<String> {
    let mut flat = Table { head: table.head.clone(), ..Table::default() };
    for row in &table.rows {
        let part = |text: fn(&Cell) -> &String| row.iter().map(|cell| Cell::words(text(cell).clone())).collect();
        flat.rows.push(part(|cell| &cell.text));
        if row.iter().any(|cell| !cell.note.is_empty()) {
            flat.rows.push(part(|cell| &cell.note));
        }
    }
    aligned(&flat, usize::MAX, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let row = |name: &str, value: &str, word: &str| {
            vec![Cell::words(name), Cell::number(Some(value.into())).with_note("1 to 2"), Cell::words(word)]
        };
        let head = ["Variant", "Value", "Word"].map(String::from).into();
        Table { head, rows: vec![row("f32", "10.5", "low"), row("ternary", "9", "high")], ..Table::default() }
    }

    #[test]
    fn a_table_gives_up_remarks_then_columns() {
        let lines = |width| aligned(&table(), width, &["Word"]);
        assert_eq!(lines(80)[1], "f32      10.5 (1 to 2)  low");
        assert_eq!(lines(22), ["Variant  Value  Word", "f32       10.5  low", "ternary      9  high"]);
        assert_eq!(lines(15)[2], "ternary      9");
        assert_eq!(stacked(&table())[2], "         1 to 2");
    }

    #[test]
    fn a_wide_table_stands_in_parts() {
        let mut out = Vec::new();
        paged(&Table { caption: "Title".into(), foot: "A remark.".into(), ..table() }, 24, &mut out);
        assert_eq!(out[..3], ["Title", "", "Variant          Value"]);
        assert_eq!(out[5..8], ["", "Variant  Word", "f32      low"]);
        assert_eq!(out.last().unwrap(), "A remark.");
        assert_eq!(hung("- ", "one two three four five six", 22), ["- one two three four", "  five six"]);
    }

    #[test]
    fn text_is_wrapped_at_words() {
        assert_eq!(wrapped("a bc def", 4), ["a bc", "def"]);
        assert_eq!(wrapped("unbreakable a", 4), ["unbreakable", "a"]);
        assert!(wrapped("", 4).is_empty());
    }
}
