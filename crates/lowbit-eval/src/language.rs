//! Scoring a language model on text: bits per byte and what goes with them.

use crate::read::{self, Limits};
use crate::record::{How, Measure, Record};
use crate::{Error, error::Kind};
use crate::{facts, stats};
use lowbit_base::memory::Footprint;
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
    /// Bytes of a limit that would have cut a character.
    spared: usize,
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
    /// A file, plain or compressed, after the token that begins a text; at most the first `limit` bytes, and no part of a
    /// character where the tokenizer needs characters.
    ///
    /// # Errors
    /// When the file is missing, empty or damaged, or not UTF-8 where the tokenizer needs that.
    pub fn read(path: &Path, limit: Option<usize>, checkpoint: &Checkpoint) -> Result<Self, Error> {
        let tokenizer = checkpoint.tokenizer()?;
        let mut content = read::bytes(path, &Limits { bytes: MAX_BYTES, ..Limits::default() })?;
        let whole = content.len();
        content.truncate(limit.unwrap_or(usize::MAX));
        let asked = content.len();
        if asked < whole && !takes_bytes(&tokenizer) {
            content.truncate(character_end(&content));
        }
        let tokens = content.len() as u64 * if takes_bytes(&tokenizer) { 4 } else { 2 };
        Footprint::new("score a part of it with --limit BYTES")
            .and("tokens of the text", tokens)
            .check()
            .map_err(|e| e.in_file(path))?;
        let mut tokens = encode(&content, &tokenizer).map_err(|e| e.in_file(path))?;
        let begin = checkpoint.model_config().bos_token_id.or(tokenizer.end());
        if let Some(begin) = begin.filter(|begin| tokens.first() != Some(begin)) {
            tokens.insert(0, begin);
        }
        if tokens.len() < 2 {
            return Err(Error::input(path, "is too short: there is no token to predict"));
        }
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let spared = asked - content.len();
        Ok(Text { name, tokens, bytes: content.len() as u64, spared, sha256: sha256(&content) })
    }

    /// A text that is tokens already: bytes, and the tokens between texts, which are predicted too.
    pub fn of_tokens(name: String, tokens: Vec<u32>) -> Self {
        let content: Vec<u8> = tokens.iter().filter_map(|token| u8::try_from(*token).ok()).collect();
        Text { name, tokens, bytes: content.len() as u64, spared: 0, sha256: sha256(&content) }
    }

    /// Bytes that are predicted.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Whether every byte is a token.
fn takes_bytes(tokenizer: &Tokenizer) -> bool {
    (0..=255u8).all(|byte| tokenizer.token_bytes(byte.into()) == Some(&[byte]))
}

/// Length of bytes without the character that their end cuts.
fn character_end(content: &[u8]) -> usize {
    let last = content.iter().rposition(|byte| byte & 0xc0 != 0x80);
    let Some(last) = last.filter(|last| content.len() - last < 4) else { return content.len() };
    match std::str::from_utf8(&content[last..]) {
        Err(e) if e.error_len().is_none() => last,
        _ => content.len(),
    }
}

/// Tokens of a text; bytes that are not UTF-8 pass where every byte is a token.
fn encode(content: &[u8], tokenizer: &Tokenizer) -> Result<Vec<u32>, Error> {
    if takes_bytes(tokenizer) {
        return Ok(content.iter().map(|byte| u32::from(*byte)).collect());
    }
    let text = std::str::from_utf8(content).map_err(|e| {
        let line = 1 + content[..e.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() as u64;
        Error::data(format!("byte {} is not UTF-8, which this model's tokenizer needs", e.valid_up_to())).on_line(line)
    })?;
    tokenizer
        .encode(text, usize::MAX)
        .map_err(|e| Error { kind: if e.kind == Kind::Memory { e.kind } else { Kind::Input }, ..e })
}

fn sha256(content: &[u8]) -> String {
    lowbit_base::hex(Sha256::digest(content))
}

/// Scores a model on a text; the record says how the text was cut.
///
/// # Errors
/// When the model is no language model or its predictions are not finite.
pub fn score(text: &Text, name: &str, checkpoint: &Checkpoint, cut: Cut, cpu: &Cpu) -> Result<Record, Error> {
    let context = cut.context.unwrap_or(checkpoint.model_config().max_length.min(MAX_WINDOW));
    let trained = checkpoint.model_config().max_length;
    if context > trained {
        let text = format!("windows of {context} tokens are asked for, but the model was trained for {trained}");
        return Err(Error::usage(format!("{name}: {text}: beyond that its predictions mean nothing")));
    }
    let stride = cut.stride.unwrap_or(context.div_ceil(2));
    let need = checkpoint.need("take a smaller --context, a --limit of the text, or a recipe with fewer bits")?;
    let need = Scorer::with_pass(need, checkpoint.parameters(), context);
    need.and("predictions", (text.tokens.len() * size_of::<Prediction>()) as u64).check()?;
    let model = Arc::new(checkpoint.model()?);
    let predictions = Scorer::new(model, cpu.clone(), context, stride)?.score(&text.tokens)?;
    if let Some(at) = predictions.iter().position(|p| !p.nats.is_finite()) {
        let message = format!("{}: the logits before token {} of {} are not finite", name, at + 1, text.name);
        return Err(Error::numeric(message));
    }
    let mut record = Record {
        task: text.name.clone(),
        model: name.into(),
        recipe: checkpoint.recipe().name.into(),
        params: 0,
        measures: measures(text, &predictions, &checkpoint.tokenizer()?),
        detail: Default::default(),
    };
    let spared = match text.spared {
        0 => String::new(),
        n => format!(", {n} less than asked for so that no character is cut"),
    };
    record.detail.note = Some(format!(
        "{} bytes{spared} (SHA-256 {}) as {} tokens in windows of {context} that move on by {stride}; each token is predicted once, \
         beyond the first window with at least {} tokens before it",
        text.bytes,
        text.sha256,
        text.tokens.len(),
        context - stride,
    ));
    facts::describe(&mut record, checkpoint)?;
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

#[cfg(test)]
mod tests {
    use super::character_end;

    #[test]
    fn a_cut_leaves_whole_characters() {
        let text = "naïve 日本 🙂.";
        for cut in 0..=text.len() {
            let end = character_end(&text.as_bytes()[..cut]);
            let whole = (0..=cut).rev().find(|at| text.is_char_boundary(*at)).unwrap();
            assert_eq!(end, whole, "{cut}");
        }
        // What is no UTF-8 stays for the tokenizer to refuse.
        assert_eq!(character_end(b"ab\x80\x80\x80\x80"), 6);
        assert_eq!(character_end(b"ab\xff"), 3);
    }
}
