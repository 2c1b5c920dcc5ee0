//! `lowbit merge`

use super::Machine;
use crate::failure::Failure;
use lowbit::comparison;
use lowbit_eval::predict;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Beside the flags.
const EXAMPLES: &str = "\
Examples:
  lowbit merge answers.csv               # of `lowbit predict MODEL FILE -o answers.csv --shard 1/2` and `--shard 2/2`
  lowbit merge runs/1 runs/2 -o runs/all # of `lowbit compare SUITE -o runs/1 --shard 1/2` and `-o runs/2 --shard 2/2`";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Merge {
    /// What the runs of `predict --shard` were given as --out, or the directories of those of `compare --shard`.
    #[arg(required = true, value_name = "OUT")]
    parts: Vec<PathBuf>,
    /// Of comparisons: the directory that all parts go to. `lowbit compare` with the same --out then writes the report.
    #[arg(short, long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
}

impl Merge {
    /// Runs the command.
    pub fn run(self, machine: &Machine) -> Result<(), Failure> {
        match (&self.out, &self.parts[..]) {
            (Some(out), parts) => comparisons(machine, parts, out),
            (None, [out]) if !out.is_dir() => answers(machine, out),
            (None, _) => {
                let text = "directories of comparisons are put together in one of their own: give it with --out";
                Err(Failure::usage(text))
            }
        }
    }
}

fn answers(machine: &Machine, out: &Path) -> Result<(), Failure> {
    let merged = predict::merge(out)?;
    if machine.json {
        return machine.terminal.json_object(json!({"shards": merged.shards, "rows": merged.rows}));
    }
    machine.terminal.line(format!("{}: {} rows of {} shards", out.display(), merged.rows, merged.shards));
    Ok(())
}

fn comparisons(machine: &Machine, parts: &[PathBuf], out: &Path) -> Result<(), Failure> {
    let merged = comparison::merge(parts, out)?;
    if machine.json {
        return machine.terminal.json_object(json!({"variants": merged.variants, "studies": merged.studies}));
    }
    let (variants, studies) = (merged.variants, merged.studies);
    machine.terminal.line(format!("{}: {variants} variants, {studies} studies", out.display()));
    machine.terminal.line(format!("The report: lowbit compare SUITE --out {}", out.display()));
    Ok(())
}
