//! Scoring a language model on text: bits per byte and what goes with them.

use crate::failure::{Code, Failure};
use crate::language::Language;
use crate::measure;
use lowbit_eval::read::{self, Limits};
use lowbit_eval::record::{How, Measure, Record};
use lowbit_eval::stats;
use lowbit_kernels::Cpu;
use lowbit_model::language::{Prediction, Scorer};
use lowbit_model::{Checkpoint, Tokenizer};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::f64::consts::LN_2;
use std::path::Path;
use std::sync::Arc;

/// Bytes of a text at most.
const MAX_BYTES: u64 = 1 << 30;
/// Longest window that is chosen without being asked for, tokens.
const MAX_WINDOW: usize = 1024;
/// Predictions whose mean is one observation of an interval.
const BLOCK: usize = 256;

/// A text as tokens. The first is given, all others are predicted.
pub struct Text {
    /// What it is called in a record.
    name: String,
    tokens: Vec<u32>,
    /// Bytes of the text that the predicted tokens stand for.
    bytes: u64,
    sha256: String,
}

/// How a text is cut: tokens of a window, and by how many it moves on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cut {
    /// Tokens of a window; the model's own length, at most 1,024, when absent.
    pub context: Option<usize>,
    /// Half a window when absent.
    pub stride: Option<usize>,
}

impl Text {
    /// A file, plain or compressed, after the token that begins a text; at most the first `limit` bytes.
    ///
    /// # Errors
    /// When the file is missing, empty or damaged, or not UTF-8 where the tokenizer needs that.
    pub fn read(path: &Path, limit: Option<usize>, checkpoint: &Checkpoint) -> Result<Self, Failure> {
        let tokenizer = checkpoint.tokenizer()?;
        let mut content = read::bytes(path, &Limits { bytes: MAX_BYTES, ..Limits::default() })?;
        content.truncate(limit.unwrap_or(usize::MAX));
        let mut tokens = encode(&content, &tokenizer).map_err(|message| Failure::input(path, message))?;
        let begin = checkpoint.card().bos_token_id.or(tokenizer.end());
        if let Some(begin) = begin.filter(|begin| tokens.first() != Some(begin)) {
            tokens.insert(0, begin);
        }
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        Ok(Text { name, tokens, bytes: content.len() as u64, sha256: sha256(&content) })
    }

    /// The held-out part of a language model's texts; the tokens between texts are predicted too.
    ///
    /// # Errors
    /// When a text cannot be read, nothing is held out, or the model has another tokenizer.
    pub fn held_out(
        language: &Language,
        data: Option<&Path>,
        limit: Option<usize>,
        checkpoint: &Checkpoint,
    ) -> Result<Self, Failure> {
        let tokenizer = Tokenizer::bytes();
        if checkpoint.tokenizer()?.vocab_size() != tokenizer.vocab_size() {
            let message = format!("the task {} scores models of bytes, and this one has other tokens", language.name);
            return Err(Failure::usage(format!(
                "{}: {message}; score it with --text FILE",
                checkpoint.directory().display()
            )));
        }
        let mut tokens = language.texts(data, &tokenizer)?.held_out;
        tokens.truncate(limit.unwrap_or(usize::MAX).saturating_add(1));
        let content: Vec<u8> = tokens.iter().filter_map(|token| u8::try_from(*token).ok()).collect();
        if content.is_empty() {
            return Err(Failure::usage(format!("the task {} holds no text out: raise `held_out`", language.name)));
        }
        let (name, bytes) = (format!("{} (held-out)", language.name), content.len() as u64);
        Ok(Text { name, tokens, bytes, sha256: sha256(&content) })
    }
}

/// Tokens of a text; bytes that are not UTF-8 pass where every byte is a token.
fn encode(content: &[u8], tokenizer: &Tokenizer) -> Result<Vec<u32>, String> {
    if (0..=255u8).all(|byte| tokenizer.token_bytes(byte.into()) == Some(&[byte])) {
        return Ok(content.iter().map(|byte| u32::from(*byte)).collect());
    }
    let text = std::str::from_utf8(content)
        .map_err(|e| format!("byte {} is not UTF-8, which this model's tokenizer needs", e.valid_up_to()))?;
    tokenizer.encode(text, usize::MAX).map_err(|e| e.to_string())
}

fn sha256(content: &[u8]) -> String {
    lowbit_base::hex(Sha256::digest(content))
}

/// Scores a model on a text; the record says how the text was cut.
///
/// # Errors
/// When the model is no language model or its predictions are not finite.
pub fn score(text: &Text, name: &str, checkpoint: &Checkpoint, cut: Cut, cpu: &Cpu) -> Result<Record, Failure> {
    let context = cut.context.unwrap_or(checkpoint.card().max_length.min(MAX_WINDOW));
    let stride = cut.stride.unwrap_or(context.div_ceil(2));
    let model = Arc::new(checkpoint.model()?);
    let predictions = Scorer::new(model, cpu.clone(), context, stride)?.score(&text.tokens)?;
    if let Some(at) = predictions.iter().position(|p| !p.nats.is_finite()) {
        let message = format!("{}: the logits before token {} of {} are not finite", name, at + 1, text.name);
        return Err(Failure { code: Code::Numeric, message });
    }
    let mut record = Record {
        task: text.name.clone(),
        model: name.into(),
        recipe: checkpoint.recipe().name.into(),
        params: 0,
        measures: measures(text, &predictions, &checkpoint.tokenizer()?),
        detail: Default::default(),
    };
    record.detail.note = Some(format!(
        "{} bytes (SHA-256 {}) as {} tokens in windows of {context} that move on by {stride}; each token is predicted once, \
         beyond the first window with at least {} tokens before it",
        text.bytes,
        text.sha256,
        text.tokens.len(),
        context - stride,
    ));
    measure::describe(&mut record, checkpoint)?;
    Ok(record)
}

/// Measures of predictions, one for each token but the first. Perplexity is per byte for models of bytes, else per token.
fn measures(text: &Text, predictions: &[Prediction], tokenizer: &Tokenizer) -> BTreeMap<String, Measure> {
    let bytes = text.bytes as f64;
    let nats: f64 = predictions.iter().map(|p| p.nats).sum();
    let bits = nats / LN_2 / bytes;
    let blocks: Vec<f64> = predictions.chunks_exact(BLOCK).map(block_bits).collect();
    let per_byte = predictions.len() as f64 / bytes;
    let mut measure = Measure::measured(bits, "bits", text.bytes);
    if let Some((center, low, high)) = stats::mean_interval(&blocks) {
        measure = measure.between(bits - (center - low) * per_byte, bits + (high - center) * per_byte);
    }
    let predicted = || predictions.iter().zip(&text.tokens[1..]).filter(|(_, token)| !tokenizer.is_control(**token));
    let of_bytes = predicted().count() as u64 == text.bytes;
    let unit = if of_bytes { bytes } else { predictions.len() as f64 };
    let mut all = BTreeMap::from([
        ("bits_per_byte".to_string(), measure),
        ("perplexity".to_string(), Measure::measured((nats / unit).exp(), "count", unit as u64)),
        (
            "compression_ratio".to_string(),
            Measure { how: How::Estimated, ..Measure::measured(8.0 / bits, "ratio", text.bytes) },
        ),
    ]);
    if of_bytes {
        let right = predicted().filter(|(p, _)| p.top).count() as u64;
        let (low, high) = stats::wilson(right, text.bytes);
        let accuracy = Measure::measured(right as f64 / bytes, "fraction", text.bytes).between(low, high);
        let probability = predicted().map(|(p, _)| (-p.nats).exp()).sum::<f64>() / bytes;
        all.insert("next_byte_accuracy".into(), accuracy);
        all.insert("target_probability".into(), Measure::measured(probability, "fraction", text.bytes));
    }
    all
}

/// Mean bits of a block of predictions.
fn block_bits(block: &[Prediction]) -> f64 {
    block.iter().map(|p| p.nats).sum::<f64>() / LN_2 / block.len() as f64
}
