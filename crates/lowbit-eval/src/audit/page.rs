//! The report with the findings in its margin, as one page without a script or a request.

use super::{Audit, Finding, lines};
use crate::checks::Severity;
use crate::report::page::{escape, shell};
use std::fmt::Write;

/// What this page needs beside the style of reports.
const STYLE: &str = "\
.audit { border: 1px solid var(--line); border-radius: .6rem; background: var(--card); overflow: hidden; }
.audit div { display: grid; grid-template-columns: 3.2rem minmax(0, 1fr) minmax(0, 24rem); border-top: 1px solid transparent; }
.audit div.bad { background: color-mix(in srgb, var(--bad-bg) 45%, transparent); }
.audit div.warn { background: color-mix(in srgb, var(--warn-bg) 45%, transparent); }
.audit a { color: var(--muted); text-decoration: none; text-align: right; padding: .1rem .7rem .1rem 0; font-size: .8rem; user-select: none; }
.audit code { white-space: pre-wrap; padding: .1rem .6rem; border-left: 1px solid var(--line); font-size: .82rem; }
.audit aside { padding: .1rem .8rem .4rem; font-size: .82rem; }
.audit aside p { margin: .15rem 0 .35rem; max-width: none; }
@media (max-width: 60rem) { .audit div { grid-template-columns: 3.2rem minmax(0, 1fr); } .audit aside { grid-column: 2; } }
@media print { .audit div { break-inside: avoid; } }
";

fn class(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "bad",
        Severity::Warning => "warn",
        Severity::Notice => "neutral",
    }
}

/// The whole page.
pub(super) fn render(audit: &Audit) -> String {
    let name = audit.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let of = |severity| audit.count(severity);
    let mut body = String::new();
    // Writing to memory cannot fail.
    let _ = writeln!(body, "<header class=\"top\">\n<p class=\"kicker\">lowbit audit</p>\n<h1>{}</h1>", escape(&name));
    let (tone, words) = match (of(Severity::Error), audit.findings.len()) {
        (_, 0) => ("good", "Nothing in this report contradicts itself.".to_string()),
        (errors, all) => {
            let tone = if errors > 0 { "bad" } else { "warn" };
            let (warnings, notices) = (of(Severity::Warning), of(Severity::Notice));
            (tone, format!("{all} findings: {errors} errors, {warnings} warnings, {notices} notices."))
        }
    };
    let _ = writeln!(body, "<p class=\"headline {tone}\" role=\"note\">{words}</p>\n</header>\n<main>");
    summary(audit, &mut body);
    let _ = writeln!(
        body,
        "<section id=\"report\" aria-labelledby=\"report-title\"><h2 id=\"report-title\">The report</h2>\n<div class=\"audit\">"
    );
    for (i, text) in audit.lines.iter().enumerate() {
        line(audit, i + 1, text, &mut body);
    }
    let _ = writeln!(
        body,
        "</div></section>\n</main>\n<footer><p>Each finding is computed from what the report itself prints, and from the facts beside it; the left column \
         holds its lines.</p></footer>"
    );
    shell(&format!("audit of {name}"), env!("CARGO_PKG_VERSION"), STYLE, &body)
}

fn summary(audit: &Audit, body: &mut String) {
    if audit.findings.is_empty() {
        return;
    }
    let _ = writeln!(
        body,
        "<section id=\"findings\" aria-labelledby=\"findings-title\"><h2 id=\"findings-title\">Findings</h2>\n<ol class=\"findings\">"
    );
    for f in &audit.findings {
        let at = f.lines.first().copied().unwrap_or(1);
        let tag = tag(f);
        let _ = writeln!(
            body,
            "<li class=\"{}\"><a href=\"#L{at}\">line {}</a> {tag} {}</li>",
            class(f.severity),
            lines(&f.lines),
            escape(&f.text)
        );
    }
    body.push_str("</ol></section>\n");
}

fn tag(f: &Finding) -> String {
    let (class, word) = (class(f.severity), f.severity.word());
    format!("<span class=\"tag {class}\">{word}</span> <b>{} {}</b>:", f.check, escape(f.name))
}

/// A line of the report; a finding stands at its first line, the others of its lines are coloured.
fn line(audit: &Audit, number: usize, text: &str, body: &mut String) {
    let here: Vec<&Finding> = audit.findings.iter().filter(|f| f.lines.contains(&number)).collect();
    let worst = here.iter().map(|f| f.severity).max();
    let open = worst.map_or(String::new(), |severity| format!(" class=\"{}\"", class(severity)));
    let _ =
        write!(body, "<div id=\"L{number}\"{open}><a href=\"#L{number}\">{number}</a><code>{}</code>", escape(text));
    let first: Vec<&&Finding> = here.iter().filter(|f| f.lines.first() == Some(&number)).collect();
    if !first.is_empty() {
        body.push_str("<aside>");
        for f in first {
            let _ = write!(body, "<p>{} {}</p>", tag(f), escape(&f.text));
        }
        body.push_str("</aside>");
    }
    body.push_str("</div>\n");
}
