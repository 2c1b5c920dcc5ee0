//! `lowbit merge`

use super::Machine;
use crate::failure::Failure;
use lowbit_eval::predict;
use std::path::PathBuf;

/// Beside the flags.
const EXAMPLES: &str = "\
Examples:
  lowbit merge answers.csv      # of `lowbit predict MODEL FILE -o answers.csv --shard 1/2` and `--shard 2/2`";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Merge {
    /// What the runs of `predict --shard` were given as --out.
    out: PathBuf,
}

impl Merge {
    /// Runs the command.
    pub fn run(self, machine: &Machine) -> Result<(), Failure> {
        let merged = predict::merge(&self.out)?;
        if machine.json {
            return machine.terminal.json_object(serde_json::json!({"shards": merged.shards, "rows": merged.rows}));
        }
        machine.terminal.line(format!("{}: {} rows of {} shards", self.out.display(), merged.rows, merged.shards));
        Ok(())
    }
}
