//! The report as one HTML file: no font, no image, nothing fetched. Without its script it says the same; the script sorts tables and
//! tells where a number comes from.

use super::charts::{Chart, escape};
use super::checks::{CheckResult, Outcome};
use super::document::{Block, Cell, Document, Fact, Section, Table};
use super::json;
use super::query::{Figure, What};
use super::sentence::{Sentence, SentencePart, Tone};
use crate::record::Results;
use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Write};

/// Style of the page.
const STYLE: &str = include_str!("style.css");
/// Script of the page.
const SCRIPT: &str = include_str!("page.js");
/// Before the embedded records.
const RECORDS_OPEN: &str = "<script type=\"application/json\" id=\"records\">";
/// After them.
const RECORDS_CLOSE: &str = "</script>";

/// The whole file.
pub(crate) fn render(document: &Document, results: &Results) -> String {
    let mut records = HashMap::new();
    for (i, record) in results.records.iter().enumerate() {
        records.entry((record.task.as_str(), record.model.as_str())).or_insert(i);
    }
    let mut page = Page { out: String::new(), glossary: &document.glossary, records };
    let title = escape(&document.title);
    page.line(format_args!("<header class=\"top\">\n<p class=\"kicker\">lowbit report</p>\n<h1>{title}</h1>"));
    page.blocks(&document.lead);
    page.line(format_args!("</header>\n<nav aria-label=\"Sections\"><ul>"));
    for section in &document.sections {
        page.line(format_args!("<li><a href=\"#{}\">{}</a></li>", escape(&section.id), escape(&section.title)));
    }
    page.line(format_args!("</ul></nav>\n<main>"));
    document.sections.iter().for_each(|s| page.section(s));
    page.line(format_args!(
        "</main>\n<footer><p>Every number of this page comes from the records embedded in it. <code>lowbit report --verify</code> \
         on the directory of this file checks that all of it agrees; who made it, that cannot tell.</p></footer>\n\
         {RECORDS_OPEN}{}{RECORDS_CLOSE}\n<script>\n{SCRIPT}</script>",
        json::embedded(results)
    ));
    shell(&document.title, &results.tool.version, "", &page.out)
}

/// A whole file around the body of a page: its title, the version that wrote it, and styles beside those of reports.
pub(crate) fn shell(title: &str, version: &str, style: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n\
         <meta name=\"generator\" content=\"lowbit {}\">\n<title>{}</title>\n<style>\n{STYLE}{style}</style>\n</head>\n<body>\n\
         {body}</body>\n</html>\n",
        escape(version),
        escape(title)
    )
}

/// The records a page holds, as JSON text.
pub(crate) fn records(html: &str) -> Option<&str> {
    let start = html.find(RECORDS_OPEN)? + RECORDS_OPEN.len();
    Some(&html[start..start + html[start..].find(RECORDS_CLOSE)?])
}

/// A page being written.
struct Page<'a> {
    out: String,
    /// What the names of variants stand for.
    glossary: &'a BTreeMap<String, String>,
    /// Places of the records, by task and variant.
    records: HashMap<(&'a str, &'a str), usize>,
}

impl Page<'_> {
    fn line(&mut self, text: fmt::Arguments) {
        // Writing to memory cannot fail.
        let _ = writeln!(self.out, "{text}");
    }

    fn section(&mut self, section: &Section) {
        let id = escape(&section.id);
        self.line(format_args!("<section id=\"{id}\" aria-labelledby=\"{id}-title\">"));
        self.line(format_args!("<h2 id=\"{id}-title\">{}</h2>", escape(&section.title)));
        self.blocks(&section.blocks);
        self.line(format_args!("</section>"));
    }

    fn blocks(&mut self, list: &[Block]) {
        let folded = |i: usize| matches!(list.get(i), Some(Block::Details(..)));
        for (i, block) in list.iter().enumerate() {
            // Several foldings in a row stand side by side.
            let (before, after) = (i > 0 && folded(i - 1), folded(i + 1));
            if folded(i) && !before && after {
                self.line(format_args!("<div class=\"folds\">"));
            }
            self.block(block);
            if folded(i) && before && !after {
                self.line(format_args!("</div>"));
            }
        }
    }

    fn block(&mut self, block: &Block) {
        match block {
            Block::Facts(facts) => self.facts(facts),
            Block::Paragraph(text) => self.line(format_args!("<p class=\"lead\">{}</p>", escape(text))),
            Block::Callout(tone, text) => {
                let (class, text) = (class(*tone), escape(text));
                self.line(format_args!("<p class=\"callout {class}\" role=\"note\">{text}</p>"));
            }
            Block::Headline(findings) => {
                for finding in findings {
                    let (class, text) = (class(finding.tone), self.sentence(&finding.task, &finding.sentence));
                    self.line(format_args!("<p class=\"headline {class}\" role=\"note\">{text}</p>"));
                }
            }
            Block::Choices(choices) => self.table(&choices.table),
            Block::Findings(findings) => {
                self.line(format_args!("<ul class=\"findings\">"));
                for finding in findings {
                    let (class, text) = (class(finding.tone), self.sentence(&finding.task, &finding.sentence));
                    self.line(format_args!("<li class=\"{class}\">{text}</li>"));
                }
                self.line(format_args!("</ul>"));
            }
            Block::Table(t) => self.table(t),
            Block::Charts(charts) => {
                self.line(format_args!("<div class=\"charts\">"));
                charts.iter().for_each(|c| self.chart(c));
                self.line(format_args!("</div>"));
            }
            Block::Details(summary, inner) => {
                self.line(format_args!("<details><summary>{}</summary>", escape(summary)));
                self.blocks(inner);
                self.line(format_args!("</details>"));
            }
            Block::Checks(results) => self.checks(results),
        }
    }

    fn facts(&mut self, facts: &[Fact]) {
        self.line(format_args!("<dl class=\"facts\">"));
        for fact in facts {
            let (label, value) = (escape(&fact.label), escape(&fact.value));
            match fact.code {
                true => {
                    self.line(format_args!("<div class=\"whole\"><dt>{label}</dt><dd><code>{value}</code></dd></div>"))
                }
                false => self.line(format_args!("<div><dt>{label}</dt><dd>{value}</dd></div>")),
            }
        }
        self.line(format_args!("</dl>"));
    }

    /// ` title="..."` with what a name stands for; nothing where it is no variant's.
    fn meaning(&self, name: &str) -> String {
        self.glossary.get(name).map_or(String::new(), |about| format!(" title=\"{}\"", escape(about)))
    }

    /// ` title=".." data-r=".." data-m=".."`: where a figure comes from, in words, the place of its record, and its measure.
    fn origin(&self, task: &str, figure: &Figure) -> String {
        let mark = figure.mark.map(|m| format!(", {m}")).unwrap_or_default();
        let title = format!(" title=\"{}{mark}\"", escape(&figure.origin()));
        let Some(record) = self.records.get(&(task, figure.subject.as_str())) else { return title };
        let measure = match &figure.what {
            What::Measure(name) => format!(" data-m=\"{}\"", escape(name)),
            _ => String::new(),
        };
        format!("{title} data-r=\"{record}\"{measure}")
    }

    /// Figures carry their origin as a tooltip, names what they stand for.
    fn sentence(&self, task: &str, sentence: &Sentence) -> String {
        let mut out = String::new();
        for part in &sentence.parts {
            let text = escape(&part.to_string());
            let _ = match part {
                SentencePart::Text(_) => write!(out, "{text}"),
                SentencePart::Name(name) => write!(out, "<code{}>{text}</code>", self.meaning(name)),
                SentencePart::Figure(figure) => {
                    write!(out, "<span class=\"fig\"{}>{text}</span>", self.origin(task, figure))
                }
                SentencePart::Claim(_) => write!(out, "<b>{text}</b>"),
            };
        }
        out
    }

    fn table(&mut self, table: &Table) {
        self.line(format_args!("<figure class=\"table\">"));
        if !table.caption.is_empty() {
            self.line(format_args!("<h3>{}</h3>", escape(&table.caption)));
        }
        let numeric = |i: usize| table.rows.iter().any(|r| r.get(i).is_some_and(|c| c.number));
        let numeric: Vec<bool> = (0..table.head.len()).map(numeric).collect();
        let label = escape(if table.caption.is_empty() { "Table" } else { &table.caption });
        let open = "<div class=\"scroll\" role=\"region\"";
        self.line(format_args!("{open} aria-label=\"{label}\" tabindex=\"0\"><table>\n<thead><tr>"));
        for (head, number) in table.head.iter().zip(&numeric) {
            let number = if *number { " class=\"num\"" } else { "" };
            self.line(format_args!("<th scope=\"col\"{number}>{}</th>", escape(head)));
        }
        self.line(format_args!("</tr></thead>\n<tbody>"));
        for row in &table.rows {
            self.out.push_str("<tr>");
            for (i, cell) in row.iter().enumerate() {
                self.cell(cell, i == 0, numeric.get(i) == Some(&true));
            }
            self.line(format_args!("</tr>"));
        }
        self.line(format_args!("</tbody></table></div>"));
        if !table.foot.is_empty() {
            self.line(format_args!("<figcaption>{}</figcaption>", escape(&table.foot)));
        }
        self.line(format_args!("</figure>"));
    }

    fn cell(&mut self, cell: &Cell, heading: bool, number: bool) {
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
        let origin = cell.source.as_ref().map_or(String::new(), |source| {
            format!(" data-v=\"{}\"{}", source.figure.value, self.origin(&source.task, &source.figure))
        });
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
            true => write!(self.out, "<th scope=\"row\"{}>{text}{note}</th>", self.meaning(&cell.text)),
            false => write!(self.out, "<td{class_text}{heat}{origin}>{text}{note}</td>"),
        };
    }

    fn chart(&mut self, chart: &Chart) {
        let (title, caption) = (escape(&chart.title), escape(&chart.caption));
        self.line(format_args!(
            "<figure class=\"chart\">\n<h3>{title}</h3>\n<div class=\"wide\">{}</div>\n<div class=\"narrow\">{}</div>\n\
             <figcaption>{caption}</figcaption>\n</figure>",
            chart.wide, chart.narrow
        ));
    }

    fn checks(&mut self, results: &[CheckResult]) {
        self.line(format_args!("<ol class=\"checks\">"));
        for result in results {
            let (class, word, lines): (&str, &str, &[String]) = match &result.outcome {
                Outcome::Pass => ("good", "pass", &[]),
                Outcome::Notice(lines) => ("warn", "notice", lines),
                Outcome::Fail(lines) => ("bad", "fail", lines),
                Outcome::NotApplicable(why) => ("neutral", "not applicable", std::slice::from_ref(why)),
            };
            let (id, name) = (result.id, escape(result.name));
            let _ = write!(self.out, "<li value=\"{id}\"><span class=\"tag {class}\">{word}</span> {name}");
            for line in lines {
                let _ = write!(self.out, "<small>{}</small>", escape(line));
            }
            self.line(format_args!("</li>"));
        }
        self.line(format_args!("</ol>"));
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
