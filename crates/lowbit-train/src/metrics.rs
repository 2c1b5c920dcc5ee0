//! `metrics.jsonl`: one line per update.

use crate::Error;
use lowbit_base::file;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Largest file, bytes.
const MAX_BYTES: u64 = 1 << 30;

/// What one update did.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// Updates done, this one included.
    pub step: u64,
    /// Mean loss per target in nats, before the update.
    pub loss: f64,
    /// What the teacher adds to the loss, before the update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distillation: Option<f64>,
    /// Learning rate of the update.
    pub lr: f32,
    /// Global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Tokens of the batch per second of the step.
    pub tokens_per_second: f64,
    /// Seconds spent in steps since the run began.
    pub seconds: f64,
}

/// The open file.
pub(crate) struct Metrics {
    path: PathBuf,
    file: File,
}

impl Metrics {
    /// Opens the file of a run that has done `step` updates; lines beyond them are dropped.
    pub(crate) fn open(run: &Path, step: u64) -> Result<Self, Error> {
        let path = run.join("metrics.jsonl");
        let text = if path.exists() { file::read(&path, MAX_BYTES)? } else { Vec::new() };
        // A torn last line may end anywhere.
        let text = String::from_utf8_lossy(&text);
        let belongs = |line: &&str| serde_json::from_str::<StepMetrics>(line).is_ok_and(|m| m.step <= step);
        let kept: String = text.lines().filter(belongs).flat_map(|line| [line, "\n"]).collect();
        if kept != text {
            file::replace(&path, kept.as_bytes())?;
        }
        let file = file::append(&path)?;
        Ok(Metrics { path, file })
    }

    pub(crate) fn append(&mut self, metrics: &StepMetrics) -> Result<(), Error> {
        let mut line = serde_json::to_string(metrics).expect("numbers can be written");
        line.push('\n');
        self.file.write_all(line.as_bytes()).map_err(|e| Error::io(&self.path, &e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_resumed_step_and_torn_lines_are_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let line = |step| StepMetrics {
            step,
            loss: 1.0,
            distillation: None,
            lr: 0.1,
            grad_norm: 2.0,
            tokens_per_second: 3.0,
            seconds: 4.0,
        };
        let mut metrics = Metrics::open(dir.path(), 0).unwrap();
        for step in 1..=5 {
            metrics.append(&line(step)).unwrap();
        }
        metrics.file.write_all(b"{\"step\": 6, \"lo").unwrap();
        let mut metrics = Metrics::open(dir.path(), 3).unwrap();
        metrics.append(&line(4)).unwrap();
        let text = std::fs::read_to_string(dir.path().join("metrics.jsonl")).unwrap();
        let read: Vec<StepMetrics> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(read, [1, 2, 3, 4].map(line));
    }
}
