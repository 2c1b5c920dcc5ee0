//! `lowbit eval`

use super::Machine;
use crate::failure::Failure;
use crate::{host, measure, output};
use lowbit_eval::task;
use std::path::PathBuf;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Eval {
    /// Model directory.
    model: PathBuf,
    /// Name of a task, or path of its TOML file.
    #[arg(long, visible_alias = "tasks")]
    task: String,
    /// Directory of the data sets [default: ../shared/data].
    #[arg(long, env = "LOWBIT_DATA")]
    data: Option<PathBuf>,
    /// Only the first rows of the test split; the interval tells what that costs.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Also measure latency, throughput, load time and memory.
    #[arg(long)]
    speed: bool,
}

impl Eval {
    /// Runs the command.
    pub fn run(self, machine: &Machine) -> Result<(), Failure> {
        let task = task::find(&self.task)?;
        let cpu = machine.cpu()?;
        let mut test = task.load(self.data.as_deref())?.test;
        if let Some(limit) = self.limit {
            test.truncate(limit as usize);
        }
        let name = self.model.file_name().map_or("model".into(), |n| n.to_string_lossy().into_owned());
        let mut record = measure::quality(&task, &test, &name, &self.model, &cpu)?;
        if self.speed {
            measure::speeds(&test, &mut [(&self.model, &mut record)], &cpu)?;
        }
        if machine.json {
            return output::json(&output::results(host::facts(&cpu), vec![record]));
        }
        output::line(format!("{} on {} ({} rows, recipe {})", name, task.id(), test.len(), record.recipe));
        measure::print(&record);
        Ok(())
    }
}
