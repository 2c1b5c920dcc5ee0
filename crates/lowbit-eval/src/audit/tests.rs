//! Every check finds a fault made for it; the five studies raise what is wrong with them; honest reports raise nothing.

use super::reading::Syntax;
use super::*;
use crate::report::checks::tests::fixture;
use lowbit_base::testing::{Need, skipped};

mod honest;
mod made;
mod studies;

/// Findings of a text, with facts.
fn found(text: &str, facts: &str) -> Vec<Finding> {
    let facts: Facts = toml::from_str(facts).expect("facts");
    of_text(text, Syntax::Markdown, facts).expect("a report").findings
}

fn told(findings: &[Finding]) -> String {
    let one = |f: &Finding| format!("{} {} {:?}: {}", f.check, f.severity.word(), f.lines, f.text);
    findings.iter().map(one).collect::<Vec<_>>().join("\n")
}
