//! `lowbit report`

use super::Machine;
use super::compare::{LINES, Limits, show};
use crate::failure::{Code, Failure};
use crate::terminal::tool;
use lowbit_eval::report;
use serde_json::json;
use std::path::PathBuf;

/// Beside the flags.
const EXAMPLES: &str = "\
Examples:
  lowbit report runs/quickstart-20260101T000000Z
  lowbit report runs/quickstart-20260101T000000Z --full | less   # all tables, set for the terminal
  lowbit report runs/quickstart-20260101T000000Z --max-size 1MB --max-loss 0.5   # what to choose under these limits
  lowbit report runs/quickstart-20260101T000000Z --verify
  lowbit report laptop/results.json server/results.json --out runs/machines   # one table by machine";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Report {
    /// Directory of a comparison, or its results.json. Several, also what `bench kernels --json` wrote, become one report with a table by
    /// machine.
    #[arg(required = true, value_name = "DIRECTORY")]
    records: Vec<PathBuf>,
    /// Check the report that is there instead of rendering it; a failed check exits with 7.
    #[arg(long)]
    verify: bool,
    /// Where a rendered report goes [default: the directory].
    #[arg(short, long)]
    out: Option<PathBuf>,
    #[command(flatten)]
    limits: Limits,
    /// Print the whole report, set for the terminal, instead of what to choose.
    #[arg(long, conflicts_with = "verify")]
    full: bool,
}

impl Report {
    /// Runs the command.
    pub fn run(self, machine: &Machine) -> Result<(), Failure> {
        if self.limits.constraints().is_some() && (self.verify || self.records.len() > 1) {
            return Err(Failure::usage(
                "limits are for rendering one comparison: leave --max-size, --max-latency and --max-loss out",
            ));
        }
        match (self.records.len(), self.verify) {
            (1, true) => self.verify(machine),
            (1, false) => self.render(machine),
            (_, true) => Err(Failure::usage("--verify checks one report: name one directory")),
            (_, false) => self.merge(machine),
        }
    }

    /// One report of several machines.
    fn merge(&self, machine: &Machine) -> Result<(), Failure> {
        let Some(out) = &self.out else {
            return Err(Failure::usage(
                "several records become a report of their own: say where it goes with --out DIR",
            ));
        };
        let results = report::merge(&self.records, tool(), machine.terminal.command())?;
        report::write(out, &results)?;
        match machine.json {
            true => machine.terminal.json(&results),
            false => {
                if self.full {
                    show(machine, &results, true, LINES);
                }
                let page = out.join("report.html");
                machine.terminal.line(format!("{} machines: {}", results.machines.len(), page.display()));
                Ok(())
            }
        }
    }

    fn render(self, machine: &Machine) -> Result<(), Failure> {
        let directory = &self.records[0];
        let mut results = report::read(directory)?;
        if let Some(asked) = self.limits.constraints() {
            results.tasks.iter_mut().for_each(|task| task.constraints = Some(asked));
        }
        let home = match directory.is_dir() {
            true => directory.clone(),
            false => directory.parent().map(PathBuf::from).unwrap_or_default(),
        };
        let out = self.out.clone().unwrap_or_else(|| home.clone());
        if std::fs::canonicalize(&out).ok() != std::fs::canonicalize(&home).ok() {
            // The files are beside the other results.json.
            results.files.clear();
        }
        report::write(&out, &results)?;
        match machine.json {
            true => machine.terminal.json(&results),
            false => {
                show(machine, &results, self.full, LINES);
                machine.terminal.line(format!("The report: {}", out.join("report.html").display()));
                Ok(())
            }
        }
    }

    fn verify(self, machine: &Machine) -> Result<(), Failure> {
        const MEANING: &str =
            "These checks show that the report agrees with itself and with the files beside it, not who made them.";
        let directory = &self.records[0];
        let results = report::verify(directory)?;
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
                let message = format!("{}: {n} of {} checks failed", directory.display(), results.len());
                Err(Failure { code: Code::Check, message })
            }
        }
    }
}
