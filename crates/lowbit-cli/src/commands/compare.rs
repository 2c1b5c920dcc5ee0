//! `lowbit compare`

use super::list::{self, List};
use super::{Machine, probe, suite};
use crate::failure::Failure;
use crate::progress::Bar;
use crate::terminal::tool;
use lowbit::comparison::{self, Program};
use lowbit_base::file;
use lowbit_eval::report;
use std::path::PathBuf;

/// Beside the flags.
const EXAMPLES: &str = "\
Examples:
  lowbit compare                                   # the suite `quickstart`: needs no data, minutes
  lowbit compare ag_news --data ../shared/data     # real data
  lowbit compare sst2                              # any task, with default networks
  lowbit compare --list
  lowbit compare my-suite.toml --out runs/mine     # a suite of your own; the same command resumes it";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Compare {
    /// Name of a suite or a task, or path of the TOML file of one; a task alone is compared by a suite of default networks.
    #[arg(default_value = "quickstart")]
    suite: String,
    /// Directory of the data sets [default: ../shared/data].
    #[arg(long, env = "LOWBIT_DATA")]
    data: Option<PathBuf>,
    /// Directory of the comparison [default: runs/<suite>-<UTC time>, or an unfinished one].
    #[arg(short, long)]
    out: Option<PathBuf>,
    /// List suites, tasks and recipes, and end.
    #[arg(long)]
    list: bool,
    /// Print the whole report instead of its summary.
    #[arg(long)]
    full: bool,
}

/// Bytes of a report in Markdown at most.
const MOST: u64 = 1 << 30;
/// Lines of the summary.
const LINES: usize = 25;

impl Compare {
    /// Runs the command.
    pub fn run(self, machine: &Machine) -> Result<(), Failure> {
        if self.list {
            return list::print(machine, &[List::Suites, List::Tasks, List::Recipes]);
        }
        let suite = suite::find(machine, &self.suite, self.data.as_deref())?;
        let cpu = machine.cpu()?;
        machine.signals.defer();
        let program = Program { tool: tool(), command: machine.terminal.command(), probe: &probe::start };
        let (data, out) = (self.data.as_deref(), self.out.as_deref());
        let (out, results) = comparison::run(&suite, data, out, &cpu, &program, &mut Bar::new(&machine.terminal))?;
        if machine.json {
            return machine.terminal.json(&results);
        }
        if self.full {
            let whole = out.join("report.md");
            machine.terminal.line(file::read_text(&whole, MOST)?);
        } else {
            machine.terminal.lines(report::summary(&results, LINES - 2));
            machine.terminal.line("");
        }
        machine.terminal.line(format!("The report: {}", out.join("report.html").display()));
        Ok(())
    }
}
