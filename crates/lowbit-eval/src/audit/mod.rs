//! Reports of others: what contradicts itself in them, with the arithmetic.
//!
//! `reading` makes tables, blocks and sentences of a file, `figure` its numbers, `quantity` what they measure; `facts` is what the text does
//! not say. The checks are those of [`CHECKS`] that can be asked of printed text; `page` shows the report with
//! the findings in the margin.

pub(crate) mod checks;
mod facts;
mod figure;
mod page;
mod quantity;
mod reading;

use crate::Error;
use crate::checks::{CHECKS, Check, Severity};
use facts::Facts;
use lowbit_base::file;
pub(crate) use reading::Reading;
use reading::Syntax;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Largest report, bytes.
const MOST: u64 = 64 << 20;

/// Something that is wrong, or worth a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Number of the check in [`CHECKS`].
    pub check: u32,
    /// What the check demands.
    pub name: &'static str,
    /// How wrong it is.
    pub severity: Severity,
    /// Lines of the file, from 1, ascending.
    pub lines: Vec<usize>,
    /// What is wrong, with the arithmetic.
    pub text: String,
}

/// What a check finds.
pub(crate) struct Findings {
    check: u32,
    name: &'static str,
    out: Vec<Finding>,
}

impl Findings {
    fn push(&mut self, severity: Severity, lines: impl IntoIterator<Item = usize>, text: String) {
        let mut lines: Vec<usize> = lines.into_iter().filter(|line| *line > 0).collect();
        lines.sort_unstable();
        lines.dedup();
        let finding = Finding { check: self.check, name: self.name, severity, lines, text };
        if !self.out.contains(&finding) {
            self.out.push(finding);
        }
    }

    /// Arithmetic that fails.
    pub(crate) fn error(&mut self, lines: impl IntoIterator<Item = usize>, text: String) {
        self.push(Severity::Error, lines, text);
    }

    /// What nothing supports.
    pub(crate) fn warn(&mut self, lines: impl IntoIterator<Item = usize>, text: String) {
        self.push(Severity::Warning, lines, text);
    }

    /// Worth a look.
    pub(crate) fn notice(&mut self, lines: impl IntoIterator<Item = usize>, text: String) {
        self.push(Severity::Notice, lines, text);
    }
}

/// A report and what was found in it.
#[derive(Debug)]
pub struct Audit {
    /// The file that was read.
    pub path: PathBuf,
    /// Findings in the order of their first lines.
    pub findings: Vec<Finding>,
    lines: Vec<String>,
    tables: usize,
    figures: usize,
}

/// Reads a report and runs every check on it. A file of facts (`*.toml`) stands for the report that it names, which is looked for
/// beside it and in `seeds`; `facts` replaces the file `FILE.audit.toml` beside the report.
///
/// # Errors
/// When the report or the facts cannot be read.
pub fn audit(path: &Path, facts: Option<&Path>, seeds: &[PathBuf]) -> Result<Audit, Error> {
    let is_facts = path.extension().is_some_and(|e| e == "toml");
    let (report, known) = match (is_facts, facts) {
        (true, Some(_)) => {
            return Err(Error::usage("a file of facts names its report: give the report, or no --facts"));
        }
        (true, None) => {
            let known = Facts::read(path)?;
            (named(path, &known, seeds)?, known)
        }
        (false, Some(facts)) => (path.to_path_buf(), Facts::read(facts)?),
        (false, None) => {
            let beside = Facts::beside(path).map(|facts| Facts::read(&facts)).transpose()?;
            (path.to_path_buf(), beside.unwrap_or_default())
        }
    };
    let text = file::read_text(&report, MOST)?;
    let mut made = of_text(&text, Syntax::of(&report, &text), known).map_err(|e| e.in_file(&report))?;
    made.path = report;
    Ok(made)
}

/// The report that a file of facts names.
fn named(path: &Path, facts: &Facts, seeds: &[PathBuf]) -> Result<PathBuf, Error> {
    let missing = || Error::input(path, "names no report: add report = \"FILE\", or give the report with --facts");
    let name = facts.report.as_ref().ok_or_else(missing)?;
    let beside = path.parent().unwrap_or(Path::new("")).to_path_buf();
    let mut all = std::iter::once(&beside).chain(seeds).map(|dir| dir.join(name));
    let found = all.find(|path| path.is_file());
    let absent = || {
        let places: Vec<String> = seeds.iter().map(|dir| dir.display().to_string()).collect();
        let places = if places.is_empty() { String::new() } else { format!(", nor in {}", places.join(", ")) };
        Error::input(path, format!("report {name} is not beside it{places}: set LOWBIT_SEEDS to its directory"))
    };
    found.ok_or_else(absent)
}

fn of_text(text: &str, syntax: Syntax, facts: Facts) -> Result<Audit, Error> {
    let reading = Reading::new(text, syntax, facts)?;
    let findings = findings(&reading);
    let figures = reading.tables.iter().flat_map(|t| &t.rows).flat_map(|r| r.cells.iter().flatten());
    let figures = figures.map(|cell| cell.figures.len()).sum();
    let tables = reading.tables.len();
    Ok(Audit { path: PathBuf::new(), findings, lines: reading.lines, tables, figures })
}

/// Everything that the checks find, by line.
fn findings(reading: &Reading) -> Vec<Finding> {
    let mut out = Vec::new();
    for check in CHECKS {
        let mut found = Findings { check: check.id, name: check.name, out: Vec::new() };
        if let Some(run) = check.text {
            run(reading, &mut found);
        }
        checks::sources(reading, check.id, &mut found);
        out.extend(found.out);
    }
    out.sort_by_key(|f: &Finding| (f.lines.first().copied(), f.check));
    out
}

impl Audit {
    /// Findings of a severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|f| f.severity == severity).count()
    }

    /// Lines for a terminal.
    pub fn in_words(&self) -> Vec<String> {
        let mut out = Vec::new();
        for f in &self.findings {
            let lines = lines(&f.lines);
            out.push(format!("{}:{lines}: {} [{} {}]", self.path.display(), f.severity.word(), f.check, f.name));
            out.push(format!("    {}", f.text));
        }
        let of = |severity| self.count(severity);
        out.push(format!(
            "{}: {} errors, {} warnings, {} notices in {} tables and blocks with {} figures",
            self.path.display(),
            of(Severity::Error),
            of(Severity::Warning),
            of(Severity::Notice),
            self.tables,
            self.figures
        ));
        out
    }

    /// One JSON object.
    pub fn json(&self) -> Value {
        let finding = |f: &Finding| json!({"check": f.check, "name": f.name, "severity": f.severity.word(), "lines": f.lines, "text": f.text});
        let findings: Vec<Value> = self.findings.iter().map(finding).collect();
        json!({"file": self.path.display().to_string(), "tables": self.tables, "figures": self.figures, "findings": findings})
    }

    /// The report with the findings in the margin, as one page of HTML.
    pub fn page(&self) -> String {
        page::render(self)
    }
}

/// `11-14,20`.
fn lines(all: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for line in all {
        match runs.last_mut().filter(|(_, last)| last + 1 == *line) {
            Some(run) => run.1 = *line,
            None => runs.push((*line, *line)),
        }
    }
    let text = |(a, b): &(usize, usize)| if a == b { a.to_string() } else { format!("{a}-{b}") };
    runs.iter().map(text).collect::<Vec<_>>().join(",")
}

/// The list of checks, one line each.
pub fn list() -> Vec<String> {
    CHECKS
        .iter()
        .map(|c| {
            let of = match (c.is_of_records(), c.is_of_text()) {
                (true, true) => "verify, audit",
                (true, false) => "verify",
                _ => "audit",
            };
            format!("{:>3}  {:8} {:14} {}: reads {}", c.id, c.severity().word(), of, c.name, c.reads)
        })
        .collect()
}

/// The list of checks as JSON.
pub fn list_json() -> Value {
    let check = |c: &Check| {
        json!({"id": c.id, "name": c.name, "reads": c.reads, "severity": c.severity().word(),
            "verify": c.is_of_records(), "audit": c.is_of_text()})
    };
    json!({"checks": CHECKS.iter().map(check).collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests;
