//! `lowbit report`

use super::Machine;
use crate::failure::{Code, Failure};
use lowbit_eval::report;
use serde_json::json;
use std::path::PathBuf;

/// Beside the flags.
const EXAMPLES: &str = "\
Examples:
  lowbit report runs/quickstart-20260101T000000Z
  lowbit report runs/quickstart-20260101T000000Z --verify";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Report {
    /// Directory of a comparison, or its results.json.
    directory: PathBuf,
    /// Check the report that is there instead of rendering it; a failed check exits with 7.
    #[arg(long)]
    verify: bool,
    /// Where a rendered report goes [default: the directory].
    #[arg(short, long)]
    out: Option<PathBuf>,
}

impl Report {
    /// Runs the command.
    pub fn run(self, machine: &Machine) -> Result<(), Failure> {
        if self.verify { self.verify(machine) } else { self.render(machine) }
    }

    fn render(self, machine: &Machine) -> Result<(), Failure> {
        let mut results = report::read(&self.directory)?;
        let home = match self.directory.is_dir() {
            true => self.directory.clone(),
            false => self.directory.parent().map(PathBuf::from).unwrap_or_default(),
        };
        let out = self.out.unwrap_or_else(|| home.clone());
        if std::fs::canonicalize(&out).ok() != std::fs::canonicalize(&home).ok() {
            // The files are beside the other results.json.
            results.files.clear();
        }
        report::write(&out, &results)?;
        match machine.json {
            true => machine.terminal.json(&results),
            false => {
                machine.terminal.line(format!("The report: {}", out.join("report.html").display()));
                Ok(())
            }
        }
    }

    fn verify(self, machine: &Machine) -> Result<(), Failure> {
        const MEANING: &str =
            "These checks show that the report agrees with itself and with the files beside it, not who made them.";
        let results = report::verify(&self.directory)?;
        let failed = results.iter().filter(|r| r.failed()).count();
        if machine.json {
            let rows: Vec<_> = results
                .iter()
                .map(|r| {
                    let (state, lines) = r.outcome.state();
                    json!({"id": r.id, "name": r.name, "outcome": state, "lines": lines})
                })
                .collect();
            machine.terminal.json_object(json!({"checks": rows, "meaning": MEANING}))?;
        } else {
            for r in &results {
                let (state, lines) = r.outcome.state();
                machine.terminal.line(format!("{:>3}  {state:14} {}", r.id, r.name));
                lines.iter().for_each(|line| machine.terminal.line(format!("       {line}")));
            }
            machine.terminal.line(MEANING);
        }
        match failed {
            0 => Ok(()),
            n => {
                let message = format!("{}: {n} of {} checks failed", self.directory.display(), results.len());
                Err(Failure { code: Code::Check, message })
            }
        }
    }
}
