//! `lowbit decompress`

use super::Machine;
use super::compress::{ENDING, Work, watch};
use crate::failure::Failure;
use crate::progress::Count;
use lowbit_base::file::replace;
use lowbit_base::memory::bytes;
use lowbit_base::text::duration;
use lowbit_eval::compress::Compressor;
use std::time::Instant;

/// Beside the flags.
const EXAMPLES: &str = "\
Examples:
  lowbit decompress reviews.txt.lowbit               # writes reviews.txt
  lowbit decompress enwik8.lowbit --model models/bytes --out again";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Decompress {
    #[command(flatten)]
    job: Work,
}

impl Decompress {
    /// Runs the command.
    pub fn run(self, machine: &Machine) -> Result<(), Failure> {
        let job = &self.job;
        let out = job.out(|file| {
            let whole = file.extension().is_some_and(|extension| extension == ENDING);
            whole.then(|| file.with_extension("").into_os_string())
        })?;
        let (file, cpu, checkpoint) = job.open(machine)?;
        let mut compressor = Compressor::new(&checkpoint, &cpu)?;
        let (start, mut progress) = (Instant::now(), Count::new(&machine.terminal, "bytes"));
        let restored = compressor.decompress(&file, &mut watch(&cpu, &mut progress));
        progress.end();
        let restored = restored.map_err(|e| e.in_file(job.file()))?;
        let seconds = start.elapsed().as_secs_f64();
        replace(&out, &restored)?;
        if machine.json {
            return machine.terminal.json_object(serde_json::json!({"bytes": restored.len(), "seconds": seconds}));
        }
        let rate = bytes((restored.len() as f64 / seconds.max(1e-9)) as u64);
        let (count, time) = (restored.len(), duration(seconds));
        machine.terminal.line(format!("{}: {count} bytes in {time}, {rate}/s", out.display()));
        Ok(())
    }
}
