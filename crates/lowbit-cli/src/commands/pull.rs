//! `lowbit pull`

use super::Machine;
use crate::failure::Failure;
use crate::progress::Count;
use lowbit_base::memory::bytes;
use lowbit_hub::{Hub, Selection};

/// Beside the flags.
const EXAMPLES: &str = "\
Examples:
  lowbit pull sentence-transformers/all-MiniLM-L6-v2      # then: lowbit compare sentence-transformers/all-MiniLM-L6-v2 --data reviews.csv
  lowbit pull org/name-GGUF --file name.Q4_K_M.gguf
  HF_ENDPOINT=https://mirror.example HF_TOKEN=... lowbit pull org/name --revision v1";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Pull {
    /// The model, as `org/name`.
    model: String,
    /// Branch, tag or commit.
    #[arg(long, default_value = "main")]
    revision: String,
    /// A file of the repository, instead of what lowbit reads of the model; several times for several.
    #[arg(long, value_name = "NAME")]
    file: Vec<String>,
}

impl Pull {
    /// Runs the command.
    pub fn run(self, machine: &Machine) -> Result<(), Failure> {
        machine.signals.defer();
        let hub = Hub::from_env()?.until(machine.signals.stop().clone());
        let (selection, mut count) = (Selection { files: self.file.clone() }, Count::new(&machine.terminal, "MB"));
        let fetched = hub.pull(&self.model, &self.revision, &selection, &mut count)?;
        if machine.json {
            return machine.terminal.json(&fetched);
        }
        let (n, all) = (fetched.files.len(), fetched.files.iter().map(|file| file.bytes).sum());
        let (place, new) = (fetched.directory.display(), bytes(fetched.fetched_bytes));
        machine.terminal.line(format!("{place}: {n} files, {}, of which {new} fetched now", bytes(all)));
        match self.file.iter().find(|name| name.ends_with(".gguf")) {
            Some(name) => machine.terminal.line(format!("next: lowbit run {}", fetched.directory.join(name).display())),
            None => machine.terminal.line(format!("next: lowbit inspect {}", self.model)),
        }
        Ok(())
    }
}
