//! `lowbit probe`: what `compare` runs in a fresh process.

use super::Machine;
use crate::failure::{Code, Failure};
use crate::{measure, output};
use std::path::PathBuf;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Probe {
    /// Model directory.
    model: PathBuf,
}

impl Probe {
    /// Runs the command.
    pub fn run(self, machine: &Machine) -> Result<(), Failure> {
        let wrong = |e: serde_json::Error| Failure { code: Code::Input, message: format!("standard input: {e}") };
        let texts: Vec<String> = serde_json::from_reader(std::io::stdin().lock()).map_err(wrong)?;
        output::json(&measure::probe(&self.model, &texts, &machine.cpu()?)?)
    }
}
