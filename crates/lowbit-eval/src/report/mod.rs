//! Records in, report out: HTML, Markdown, CSV and JSON that cannot contradict each other.
//!
//! `compare` derives what follows from the records of a task, `noise` what is beyond noise; `query` is the only way from there to a printed number;
//! `findings`, `tables` and `charts` ask it and build a `document`, which `html` and `markdown` print; `checks` look at
//! records and document. [`verify`] does all of it again and compares files byte by byte.

mod assembly;
mod bits;
mod charts;
pub(crate) mod checks;
mod choices;
mod compare;
mod document;
mod findings;
mod html;
mod index;
mod json;
mod machines;
mod markdown;
pub(crate) mod measures;
mod noise;
mod notes;
mod number;
mod published;
mod query;
mod seeds;
mod sentence;
mod studies;
mod summary;
mod table_csv;
mod tables;
mod terminal;
mod verify;

pub use crate::checks::{CHECKS, Check};
pub use charts::{Mark, Panel, Roofline};
pub use checks::{CheckResult, Outcome};
pub(crate) use compare::is_low_bit;
pub use index::{Entry, INDEX, index};
pub use machines::merge;
pub use sentence::{Finding, Tone};
pub use summary::{recommended, summary};
pub use verify::hashes;

use crate::Error;
use crate::record::{Results, SCHEMA_VERSION};
use document::{Block, Document};

/// What pages of other modules are made with.
pub(crate) mod page {
    pub(crate) use super::charts::escape;
    pub(crate) use super::html::shell;
}
use lowbit_base::file::{self, Set};
use std::path::Path;

/// Name of the file with the records.
pub const RESULTS: &str = "results.json";
/// Largest such file, bytes.
const MAX_BYTES: u64 = 1 << 30;
/// Problems that a refusal tells; `verify` tells all.
const TOLD: usize = 6;

/// One file of a report: its name and how its content follows from the records.
struct Output {
    name: &'static str,
    render: fn(&Document, &Results) -> String,
}

/// The files beside [`RESULTS`].
static OUTPUTS: &[Output] = &[
    Output { name: "report.html", render: html::render },
    Output { name: "report.md", render: |document, _| markdown::render(document) },
    Output { name: "results.csv", render: |_, results| table_csv::render(results) },
];

/// Writes `results.json`, `report.html`, `report.md` and `results.csv` into `dir` (made if missing), all together. Returns the
/// findings.
///
/// # Errors
/// Of kind [`Check`](crate::error::Kind::Check) where a check fails, naming check, variant, quantity and arithmetic: then the records
/// alone are written, and the other files stay as they were.
pub fn write(dir: &Path, results: &Results) -> Result<Vec<Finding>, Error> {
    let mut set = Set::open(dir)?;
    set.write(RESULTS, json::pretty(results).as_bytes())?;
    let document = Document::new(results);
    let failed: Vec<&CheckResult> = outcomes(&document).iter().filter(|r| r.failed()).collect();
    for output in OUTPUTS.iter().filter(|_| failed.is_empty()) {
        set.write(output.name, (output.render)(&document, results).as_bytes())?;
    }
    set.commit()?;
    match failed.is_empty() {
        true => Ok(document.findings().cloned().collect()),
        false => Err(Error::check(refusal(&failed)).in_file(dir)),
    }
}

/// Why no report is written: the first problems of the failed checks, and how many there are.
fn refusal(failed: &[&CheckResult]) -> String {
    let of = |r: &&CheckResult| match &r.outcome {
        Outcome::Fail(lines) => lines.iter().map(|line| format!("check {} ({}): {line}", r.id, r.name)).collect(),
        _ => Vec::new(),
    };
    let lines: Vec<String> = failed.iter().flat_map(of).collect();
    let told = lines.iter().take(TOLD).cloned().collect::<Vec<_>>().join("; ");
    let more = match lines.len().saturating_sub(TOLD) {
        0 => String::new(),
        n => format!("; {n} more problems"),
    };
    format!("no report is written, the records are in {RESULTS}: {told}{more}; `lowbit report --verify` tells all")
}

/// Reads the records of a report from its directory or from the file itself.
pub fn read(path: &Path) -> Result<Results, Error> {
    let path = if path.is_dir() { path.join(RESULTS) } else { path.to_path_buf() };
    let text = file::read(&path, MAX_BYTES)?;
    let results: Results = serde_json::from_slice(&text).map_err(|e| {
        let line = u64::try_from(e.line()).ok().filter(|l| *l > 0);
        Error::input(&path, format!("not the records of a report: {e}; make them again with lowbit compare"))
            .on_line(line)
    })?;
    if results.schema_version != SCHEMA_VERSION {
        let version = results.schema_version;
        let message =
            format!("schema_version is {version}, this program reads {SCHEMA_VERSION}: use the lowbit that wrote it");
        return Err(Error::input(&path, message));
    }
    Ok(results)
}

/// The whole report for a terminal, in lines of about `width` characters; tables that are wider stand in parts, plots are left out.
pub fn text(results: &Results, width: usize) -> Vec<String> {
    terminal::render(&Document::new(results), width)
}

/// Runs every check on records.
pub fn check(results: &Results) -> Vec<CheckResult> {
    outcomes(&Document::new(results)).to_vec()
}

/// Reads the records of a directory (or of the file in it) again, runs every check on them, and compares each file of the
/// report with what the records give, and each file of the comparison with its hash. A report is consistent when no result
/// has [`CheckResult::failed`]; who made it, no check can tell.
pub fn verify(path: &Path) -> Result<Vec<CheckResult>, Error> {
    let results = read(path)?;
    let dir = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    let document = Document::new(&results);
    let mut out = outcomes(&document).to_vec();
    out.push(verify::beside(dir, &results));
    out.push(verify::embedded(dir, &results));
    for output in OUTPUTS {
        out.push(verify::file(dir, output.name, &(output.render)(&document, &results), &results));
    }
    Ok(out)
}

/// The outcomes a document prints.
fn outcomes(document: &Document) -> &[CheckResult] {
    let blocks = document.sections.iter().flat_map(|s| &s.blocks);
    blocks.filter_map(|b| if let Block::Checks(list) = b { Some(list.as_slice()) } else { None }).next().unwrap_or(&[])
}

impl From<&CheckResult> for Error {
    /// The error of a failed check.
    fn from(result: &CheckResult) -> Self {
        Error::check(result.to_string())
    }
}
