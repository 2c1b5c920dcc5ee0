//! Calibration text: what a network reads while the effect of fewer bits is measured.

use crate::Error;
use crate::language::Text;
use crate::read::{self, Limits};
use lowbit_model::arch::OutputKind;
use lowbit_model::exec::Batch;
use lowbit_model::{Checkpoint, Encoder, Inputs};
use std::path::Path;

/// Tokens that are read for a search where nobody says how many.
pub const TOKENS: usize = 2048;
/// The same for quantization with calibration: 64 windows of 512.
pub const QUANTIZE_TOKENS: usize = 1 << 15;
/// Longest window of a text, tokens.
const WINDOW: usize = 512;
/// Tokens of a pass, about.
const PASS: usize = 1024;
/// Bytes of a text that give a token, more than enough.
const TOKEN_BYTES: usize = 64;

/// The lines of a plain text that are not empty, as rows.
///
/// # Errors
/// When it cannot be read, or is not UTF-8.
pub fn lines(path: &Path) -> Result<Inputs, Error> {
    let content = read::bytes(path, &Limits::default())?;
    let text = String::from_utf8(content)
        .map_err(|e| Error::input(path, format!("byte {} is not UTF-8", e.utf8_error().valid_up_to())))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(Inputs::Texts(lines.map(String::from).collect()))
}

/// Sequences in passes, up to a number of tokens.
pub struct Calibration {
    pub(super) batches: Vec<Batch>,
    /// Tokens in all; rows, where a network reads numbers.
    pub tokens: usize,
}

impl Calibration {
    /// A plain text: windows of it for a language model, its lines that are not empty for a network that answers rows.
    ///
    /// # Errors
    /// When it cannot be read, or holds nothing to calibrate with.
    pub fn of_text(path: &Path, checkpoint: &Checkpoint, tokens: usize) -> Result<Self, Error> {
        if checkpoint.model_config().config.output() == OutputKind::Tokens {
            let text = Text::read(path, Some(tokens.saturating_mul(TOKEN_BYTES)), checkpoint)?;
            return Self::of_tokens(&text, checkpoint, tokens);
        }
        Self::of_rows(&lines(path)?, checkpoint, tokens).map_err(|e| e.in_file(path))
    }

    /// Rows of a task.
    ///
    /// # Errors
    /// When there are none, or they are of another kind than the network reads.
    pub fn of_inputs(inputs: &Inputs, checkpoint: &Checkpoint, tokens: usize) -> Result<Self, Error> {
        if checkpoint.model_config().config.output() != OutputKind::Tokens {
            return Self::of_rows(inputs, checkpoint, tokens);
        }
        let contents: Vec<&[u8]> = match inputs {
            Inputs::Bytes(contents) => contents.iter().map(Vec::as_slice).take(tokens).collect(),
            inputs => inputs.texts().iter().map(String::as_bytes).take(tokens).collect(),
        };
        let text = Text::of("rows".into(), contents, Some(tokens.saturating_mul(TOKEN_BYTES)), checkpoint)?;
        Self::of_tokens(&text, checkpoint, tokens)
    }

    fn of_tokens(text: &Text, checkpoint: &Checkpoint, tokens: usize) -> Result<Self, Error> {
        let window = checkpoint.model_config().max_length.clamp(1, WINDOW);
        let mut all = Calibration { batches: vec![Batch::default()], tokens: 0 };
        for piece in text.texts().iter().flat_map(|tokens| tokens.chunks(window)) {
            let room = tokens - all.tokens;
            if room == 0 {
                break;
            }
            all.batch().push(&piece[..piece.len().min(room)]);
            all.tokens += piece.len().min(room);
        }
        all.checked()
    }

    fn of_rows(inputs: &Inputs, checkpoint: &Checkpoint, tokens: usize) -> Result<Self, Error> {
        let encoder = Encoder::of(checkpoint)?;
        let mut all = Calibration { batches: vec![Batch::default()], tokens: 0 };
        for row in 0..inputs.len().min(tokens) {
            if all.tokens >= tokens {
                break;
            }
            if inputs.texts().get(row).is_none_or(|text| !text.is_empty()) {
                let batch = all.batch();
                let before = batch.tokens.len();
                encoder.push(inputs, row, batch)?;
                all.tokens += (all.batches.last().map_or(0, |batch| batch.tokens.len()) - before).max(1);
            }
        }
        all.checked()
    }

    /// The passes.
    pub fn batches(&self) -> &[Batch] {
        &self.batches
    }

    /// All sequences in one pass.
    pub fn joined(&self) -> Batch {
        Batch::joined(&self.batches)
    }

    /// The batch that has room for another sequence.
    fn batch(&mut self) -> &mut Batch {
        if self.batches.last().is_none_or(|batch| batch.tokens.len().max(batch.sequences()) >= PASS) {
            self.batches.push(Batch::default());
        }
        self.batches.last_mut().expect("just pushed")
    }

    fn checked(self) -> Result<Self, Error> {
        match self.tokens {
            0 => Err(Error::usage("the calibration text has no token")),
            _ => Ok(self),
        }
    }

    /// Rows of logits that a network answers with.
    pub(super) fn rows(&self, output: OutputKind) -> usize {
        let of = |batch: &Batch| if output == OutputKind::Tokens { batch.tokens.len() } else { batch.sequences() };
        self.batches.iter().map(of).sum()
    }

    /// Tokens of the largest pass.
    pub(super) fn widest(&self) -> usize {
        self.batches.iter().map(|batch| batch.tokens.len().max(1)).max().unwrap_or(1)
    }
}
