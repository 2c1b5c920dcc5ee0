//! `lowbit merge`

use super::Machine;
use crate::failure::Failure;
use lowbit_eval::predict;
use std::path::PathBuf;

/// Beside the flags.
const EXAMPLES: &str = "\
Examples:
  lowbit predict models/sst2 reviews.parquet -o answers.csv --shard 1/2    # answers.csv.1-of-2
  lowbit predict models/sst2 reviews.parquet -o answers.csv --shard 2/2
  lowbit merge answers.csv                                                 # as one run had written it";

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
