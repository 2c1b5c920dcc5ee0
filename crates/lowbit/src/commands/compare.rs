//! `lowbit compare`

use super::Machine;
use crate::failure::Failure;
use crate::training::Interrupt;
use crate::{comparison, output, suite};
use std::path::PathBuf;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Compare {
    /// Name of a suite, or path of its TOML file.
    #[arg(default_value = "quickstart")]
    suite: String,
    /// Directory of the data sets [default: ../shared/data].
    #[arg(long, env = "LOWBIT_DATA")]
    data: Option<PathBuf>,
    /// Directory of the comparison [default: runs/<suite>-<UTC time>, or an unfinished one].
    #[arg(short, long)]
    out: Option<PathBuf>,
}

impl Compare {
    /// Runs the command.
    pub fn run(self, machine: &Machine) -> Result<(), Failure> {
        let suite = suite::find(&self.suite)?;
        let cpu = machine.cpu()?;
        let interrupt = Interrupt::listen()?;
        let (out, results) = comparison::run(&suite, self.data.as_deref(), self.out.as_deref(), &cpu, &interrupt)?;
        if machine.json {
            return output::json(&results);
        }
        let summary = out.join("report.md");
        output::line(std::fs::read_to_string(&summary).map_err(|e| Failure::io(&summary, &e))?);
        output::line(format!("The report: {}", out.join("report.html").display()));
        Ok(())
    }
}
