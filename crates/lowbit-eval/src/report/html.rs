//! The report as one HTML file: no script, no font, no image, nothing fetched.

use super::charts::{Chart, escape};
use super::checks::{CheckResult, Outcome};
use super::document::{Block, Card, Cell, Document, Fact, Section, Table};
use super::json;
use super::sentence::{Finding, Part, Sentence, Tone};
use crate::record::Results;
use std::fmt::Write;

/// Style of the page.
const STYLE: &str = include_str!("style.css");
/// Before the embedded records.
const RECORDS_OPEN: &str = "<script type=\"application/json\" id=\"records\">";
/// After them.
const RECORDS_CLOSE: &str = "</script>";

/// The whole file.
pub(crate) fn render(document: &Document, results: &Results) -> String {
    let mut out = String::new();
    let title = escape(&document.title);
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta name=\"generator\" content=\"lowbit {}\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n",
        escape(&results.tool.version)
    );
    let _ = write!(out, "<header class=\"top\">\n<p class=\"kicker\">lowbit report</p>\n<h1>{title}</h1>\n");
    blocks(&document.lead, &mut out);
    out.push_str("</header>\n<nav aria-label=\"Sections\"><ul>\n");
    for section in &document.sections {
        let _ = writeln!(out, "<li><a href=\"#{}\">{}</a></li>", escape(&section.id), escape(&section.title));
    }
    out.push_str("</ul></nav>\n<main>\n");
    document.sections.iter().for_each(|s| render_section(s, &mut out));
    let _ = write!(
        out,
        "</main>\n<footer><p>Every number of this page comes from the records embedded in it. To check that: \
         <code>lowbit report --verify</code> on the directory of this file.</p></footer>\n\
         {RECORDS_OPEN}{}{RECORDS_CLOSE}\n</body>\n</html>\n",
        json::embedded(results)
    );
    out
}

/// The records a page holds, as JSON text.
pub(crate) fn records(html: &str) -> Option<&str> {
    let start = html.find(RECORDS_OPEN)? + RECORDS_OPEN.len();
    Some(&html[start..start + html[start..].find(RECORDS_CLOSE)?])
}

fn render_section(section: &Section, out: &mut String) {
    let id = escape(&section.id);
    let _ = writeln!(out, "<section id=\"{id}\" aria-labelledby=\"{id}-title\">");
    let _ = writeln!(out, "<h2 id=\"{id}-title\">{}</h2>", escape(&section.title));
    blocks(&section.blocks, out);
    out.push_str("</section>\n");
}

fn blocks(list: &[Block], out: &mut String) {
    let folded = |i: usize| matches!(list.get(i), Some(Block::Details(..)));
    for (i, block) in list.iter().enumerate() {
        // Several foldings in a row stand side by side.
        let (before, after) = (i > 0 && folded(i - 1), folded(i + 1));
        if folded(i) && !before && after {
            out.push_str("<div class=\"folds\">\n");
        }
        match block {
            Block::Facts(facts) => facts_list(facts, out),
            Block::Paragraph(text) => {
                let _ = writeln!(out, "<p class=\"lead\">{}</p>", escape(text));
            }
            Block::Callout(tone, text) => {
                let _ = writeln!(out, "<p class=\"callout {}\" role=\"note\">{}</p>", class(*tone), escape(text));
            }
            Block::Cards(cards) => {
                out.push_str("<div class=\"cards\">\n");
                cards.iter().for_each(|c| card(c, out));
                out.push_str("</div>\n");
            }
            Block::Findings(findings) => {
                out.push_str("<ul class=\"findings\">\n");
                findings.iter().for_each(|f| finding(f, out));
                out.push_str("</ul>\n");
            }
            Block::Table(t) => table(t, out),
            Block::Charts(charts) => {
                out.push_str("<div class=\"charts\">\n");
                charts.iter().for_each(|c| chart(c, out));
                out.push_str("</div>\n");
            }
            Block::Details(summary, inner) => {
                let _ = writeln!(out, "<details><summary>{}</summary>", escape(summary));
                blocks(inner, out);
                out.push_str("</details>\n");
            }
            Block::Checks(results) => checks(results, out),
        }
        if folded(i) && before && !after {
            out.push_str("</div>\n");
        }
    }
}

fn class(tone: Tone) -> &'static str {
    match tone {
        Tone::Good => "good",
        Tone::Bad => "bad",
        Tone::Warn => "warn",
        Tone::Neutral => "neutral",
    }
}

fn facts_list(facts: &[Fact], out: &mut String) {
    out.push_str("<dl class=\"facts\">\n");
    for fact in facts {
        let (label, value) = (escape(&fact.label), escape(&fact.value));
        let _ = match fact.code {
            true => writeln!(out, "<div class=\"whole\"><dt>{label}</dt><dd><code>{value}</code></dd></div>"),
            false => writeln!(out, "<div><dt>{label}</dt><dd>{value}</dd></div>"),
        };
    }
    out.push_str("</dl>\n");
}

/// Figures carry their origin as a tooltip.
fn sentence(sentence: &Sentence) -> String {
    let mut out = String::new();
    for part in &sentence.parts {
        let text = escape(&part.to_string());
        let _ = match part {
            Part::Text(_) => write!(out, "{text}"),
            Part::Name(_) => write!(out, "<code>{text}</code>"),
            Part::Figure(figure) => {
                let mark = figure.mark.map(|m| format!(", {m}")).unwrap_or_default();
                write!(out, "<span class=\"fig\" title=\"{}{mark}\">{text}</span>", escape(&figure.origin()))
            }
            Part::Claim(_) => write!(out, "<b>{text}</b>"),
        };
    }
    out
}

fn card(card: &Card, out: &mut String) {
    let _ = writeln!(out, "<article class=\"card {}\">", class(card.tone));
    let _ = writeln!(out, "<p class=\"card-title\">{}</p>", sentence(&card.title));
    let _ = writeln!(out, "<h3>{}</h3>\n<ul>", escape(&card.name));
    for line in &card.lines {
        let _ = writeln!(out, "<li>{}</li>", sentence(line));
    }
    out.push_str("</ul>\n</article>\n");
}

fn finding(finding: &Finding, out: &mut String) {
    let _ = writeln!(out, "<li class=\"{}\">{}</li>", class(finding.tone), sentence(&finding.sentence));
}

fn table(table: &Table, out: &mut String) {
    out.push_str("<figure class=\"table\">\n");
    if !table.caption.is_empty() {
        let _ = writeln!(out, "<h3>{}</h3>", escape(&table.caption));
    }
    let numeric = |i: usize| table.rows.iter().any(|r| r.get(i).is_some_and(|c| c.number));
    let label = if table.caption.is_empty() { "Table" } else { &table.caption };
    let _ = write!(
        out,
        "<div class=\"scroll\" role=\"region\" aria-label=\"{}\" tabindex=\"0\"><table>\n<thead><tr>",
        escape(label)
    );
    for (i, head) in table.head.iter().enumerate() {
        let number = if numeric(i) { " class=\"num\"" } else { "" };
        let _ = write!(out, "<th scope=\"col\"{number}>{}</th>", escape(head));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in &table.rows {
        out.push_str("<tr>");
        for (i, cell) in row.iter().enumerate() {
            cell_into(cell, i == 0, numeric(i), out);
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
    if !table.foot.is_empty() {
        let _ = writeln!(out, "<figcaption>{}</figcaption>", escape(&table.foot));
    }
    out.push_str("</figure>\n");
}

fn cell_into(cell: &Cell, heading: bool, number: bool, out: &mut String) {
    let mut classes: Vec<&str> = Vec::new();
    if number {
        classes.push("num");
    }
    if cell.missing || cell.quiet {
        classes.push("quiet");
    }
    if cell.heat.is_some() {
        classes.push("heat");
    }
    let class_text = if classes.is_empty() { String::new() } else { format!(" class=\"{}\"", classes.join(" ")) };
    let heat = cell.heat.map(|h| format!(" style=\"--heat:{h:.2}\"")).unwrap_or_default();
    let text = escape(&cell.text);
    let text = match cell.tone {
        Some(tone) => format!("<span class=\"tag {}\">{text}</span>", class(tone)),
        None => text,
    };
    let note = match cell.note.is_empty() {
        true => String::new(),
        false => format!("<small>{}</small>", escape(&cell.note)),
    };
    let _ = match heading {
        true => write!(out, "<th scope=\"row\">{text}{note}</th>"),
        false => write!(out, "<td{class_text}{heat}>{text}{note}</td>"),
    };
}

fn chart(chart: &Chart, out: &mut String) {
    let (title, caption) = (escape(&chart.title), escape(&chart.caption));
    let _ = writeln!(
        out,
        "<figure class=\"chart\">\n<h3>{title}</h3>\n<div class=\"wide\">{}</div>\n<div class=\"narrow\">{}</div>\n\
         <figcaption>{caption}</figcaption>\n</figure>",
        chart.wide, chart.narrow
    );
}

fn checks(results: &[CheckResult], out: &mut String) {
    out.push_str("<ol class=\"checks\">\n");
    for result in results {
        let (class, word, lines): (&str, &str, &[String]) = match &result.outcome {
            Outcome::Pass => ("good", "pass", &[]),
            Outcome::Notice(lines) => ("warn", "notice", lines),
            Outcome::Fail(lines) => ("bad", "fail", lines),
            Outcome::NotApplicable(why) => ("neutral", "not applicable", std::slice::from_ref(why)),
        };
        let _ = write!(
            out,
            "<li value=\"{}\"><span class=\"tag {class}\">{word}</span> {}",
            result.id,
            escape(result.name)
        );
        for line in lines {
            let _ = write!(out, "<small>{}</small>", escape(line));
        }
        out.push_str("</li>\n");
    }
    out.push_str("</ol>\n");
}
