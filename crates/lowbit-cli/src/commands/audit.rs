//! `lowbit audit`

use super::Machine;
use crate::failure::{Code, Failure};
use lowbit_base::file;
use lowbit_eval::audit::{self, Audit as Audited};
use lowbit_eval::checks::Severity;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Beside the flags.
const EXAMPLES: &str = "\
Examples:
  lowbit audit README.md
  lowbit audit paper.html results.csv --html findings/   # pages with the findings in the margin
  lowbit audit report.md --facts report.audit.toml       # with what the text does not say: rows of a test set, a source
  lowbit audit audits/*                                  # reports that files of facts name, found through LOWBIT_SEEDS
  lowbit audit --list";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Audit {
    /// Reports: Markdown, HTML, CSV or TSV, or plain text with tables; or files of facts (TOML) that name theirs. An error that is
    /// found exits with 7.
    #[arg(required_unless_present = "list", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// What the text of the report does not say [default: FILE.audit.toml beside it, if there is one].
    #[arg(long, value_name = "TOML")]
    facts: Option<PathBuf>,
    /// Directory of the reports that files of facts name [default: ../shared/reference/seeds].
    #[arg(long, env = "LOWBIT_SEEDS", value_name = "DIR")]
    seeds: Option<PathBuf>,
    /// Write the report with the findings in its margin to this page, of several reports to this directory.
    #[arg(long, value_name = "OUT")]
    html: Option<PathBuf>,
    /// List the checks: number, worst severity, who runs it, name, what it reads; and end.
    #[arg(long)]
    list: bool,
}

impl Audit {
    /// Runs the command.
    pub fn run(self, machine: &Machine) -> Result<(), Failure> {
        if self.list {
            return match machine.json {
                true => machine.terminal.json_object(audit::list_json()),
                false => {
                    machine.terminal.lines(audit::list());
                    Ok(())
                }
            };
        }
        if self.facts.is_some() && self.files.len() > 1 {
            return Err(Failure::usage("--facts is about one report: name one FILE"));
        }
        let mut made: Vec<Audited> = Vec::new();
        for path in &self.files {
            made.push(audit::audit(path, self.facts.as_deref(), &self.places(path))?);
        }
        self.pages(&made)?;
        match machine.json {
            true => {
                machine.terminal.json_object(json!({"reports": made.iter().map(Audited::json).collect::<Vec<_>>()}))?
            }
            false => made.iter().for_each(|a| machine.terminal.lines(a.in_words())),
        }
        let wrong: Vec<&Audited> = made.iter().filter(|a| a.count(Severity::Error) > 0).collect();
        match wrong.first() {
            None => Ok(()),
            Some(first) => {
                let errors: usize = wrong.iter().map(|a| a.count(Severity::Error)).sum();
                let others = if wrong.len() > 1 { format!(" and {} more", wrong.len() - 1) } else { String::new() };
                let message = format!("{}{others}: {errors} errors found", first.path.display());
                Err(Failure { code: Code::Check, message })
            }
        }
    }

    /// Where the report of a file of facts may lie.
    fn places(&self, facts: &Path) -> Vec<PathBuf> {
        const SEEDS: &str = "../shared/reference/seeds";
        let beside = facts.parent().map(|dir| dir.join("..").join(SEEDS));
        match &self.seeds {
            Some(seeds) => vec![seeds.clone()],
            None => std::iter::once(PathBuf::from(SEEDS)).chain(beside).collect(),
        }
    }

    fn pages(&self, made: &[Audited]) -> Result<(), Failure> {
        let Some(out) = &self.html else { return Ok(()) };
        if let [only] = made
            && !out.is_dir()
        {
            file::replace(out, only.page().as_bytes())?;
            return Ok(());
        }
        let mut set = file::Set::open(out)?;
        for audited in made {
            let name =
                audited.path.file_name().map_or_else(|| "report".into(), |name| name.to_string_lossy().into_owned());
            set.write(&format!("{name}.html"), audited.page().as_bytes())?;
        }
        set.commit()?;
        Ok(())
    }
}
