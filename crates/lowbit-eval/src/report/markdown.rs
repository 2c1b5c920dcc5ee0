//! The report as Markdown: the same tables and sentences, without plots.

use super::checks::{CheckResult, Outcome};
use super::document::{Block, Cell, Document, Table};
use super::sentence::{Sentence, SentencePart};
use std::fmt::Write;

/// The whole file.
pub(crate) fn render(document: &Document) -> String {
    let mut out = format!("# {}\n\n", escape(&document.title));
    blocks(&document.lead, &mut out);
    for section in &document.sections {
        let _ = write!(out, "## {}\n\n", escape(&section.title));
        blocks(&section.blocks, &mut out);
    }
    let end = out.trim_end().len();
    out.truncate(end);
    out.push('\n');
    out
}

fn blocks(list: &[Block], out: &mut String) {
    for block in list {
        match block {
            Block::Facts(facts) => {
                for fact in facts {
                    let value = if fact.code { code(&fact.value) } else { escape(&fact.value) };
                    let _ = writeln!(out, "- {}: {value}", escape(&fact.label));
                }
                out.push('\n');
            }
            Block::Paragraph(text) => {
                let _ = write!(out, "{}\n\n", escape(text));
            }
            Block::Callout(_, text) => {
                let _ = write!(out, "> **{}**\n\n", escape(text));
            }
            Block::Headline(findings) => {
                for finding in findings {
                    let _ = write!(out, "{}\n\n", sentence(&finding.sentence));
                }
            }
            Block::Choices(choices) => table(&choices.table, out),
            Block::Findings(findings) => {
                for finding in findings {
                    let _ = writeln!(out, "- {}", sentence(&finding.sentence));
                }
                out.push('\n');
            }
            Block::Table(t) => table(t, out),
            Block::Charts(charts) => {
                let titles: Vec<String> = charts.iter().map(|c| escape(&c.title)).collect();
                let _ = write!(out, "In report.html: {}.\n\n", titles.join("; "));
            }
            Block::Details(summary, inner) => {
                let _ = write!(out, "<details><summary>{}</summary>\n\n", escape(summary));
                blocks(inner, out);
                out.push_str("</details>\n\n");
            }
            Block::Checks(results) => checks(results, out),
        }
    }
}

/// Text in which no character has a meaning for Markdown.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    let mut inside = false;
    while let Some(c) = rest.next() {
        let joined = inside && rest.peek().is_some_and(|n| n.is_alphanumeric());
        inside = c.is_alphanumeric();
        match c {
            '\n' | '\r' => out.push(' '),
            '_' if joined => out.push(c),
            '\\' | '|' | '*' | '_' | '`' | '[' | ']' | '<' | '>' | '#' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

/// A name or command as code, or escaped where it holds a back-tick or a bar.
fn code(text: &str) -> String {
    if text.contains(['`', '|', '\n']) || text.is_empty() { escape(text) } else { format!("`{text}`") }
}

fn sentence(sentence: &Sentence) -> String {
    let part = |p: &SentencePart| match p {
        SentencePart::Name(name) => code(name),
        SentencePart::Claim(_) => format!("**{}**", escape(&p.to_string())),
        _ => escape(&p.to_string()),
    };
    sentence.parts.iter().map(part).collect()
}

fn table(table: &Table, out: &mut String) {
    if !table.caption.is_empty() {
        let _ = write!(out, "### {}\n\n", escape(&table.caption));
    }
    let heads: Vec<String> = table.head.iter().map(|h| escape(h)).collect();
    let _ = writeln!(out, "| {} |", heads.join(" | "));
    let numeric = |i: usize| table.rows.iter().any(|r| r.get(i).is_some_and(|c| c.number));
    let rule: Vec<&str> = (0..heads.len()).map(|i| if numeric(i) { "---:" } else { "---" }).collect();
    let _ = writeln!(out, "| {} |", rule.join(" | "));
    for row in &table.rows {
        let cells: Vec<String> = row.iter().map(cell).collect();
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
    out.push('\n');
    if !table.foot.is_empty() {
        let _ = write!(out, "{}\n\n", escape(&table.foot));
    }
}

fn cell(cell: &Cell) -> String {
    match cell.note.is_empty() {
        true => escape(&cell.text),
        false => format!("{} ({})", escape(&cell.text), escape(&cell.note)),
    }
}

fn checks(results: &[CheckResult], out: &mut String) {
    out.push_str("| No. | Check | Outcome |\n| ---: | --- | --- |\n");
    for result in results {
        let outcome = match &result.outcome {
            Outcome::Fail(_) => format!("**{}**", escape(&result.outcome.to_string())),
            _ => escape(&result.outcome.to_string()),
        };
        let _ = writeln!(out, "| {} | {} | {outcome} |", result.id, escape(result.name));
    }
    out.push('\n');
}
