//! Scoring a language model on text: bits per byte and what goes with them.

use crate::faithfulness::Faithfulness;
use crate::metrics;
use crate::question::{Reference, Subject};
use crate::read::{self, Limits, Rows};
use crate::record::{Detail, How, Measure, Record};
use crate::task::Task;
use crate::{Error, error::Kind};
use crate::{facts, meter, stats};
use bytes::Calibration;
use lowbit_base::memory::Footprint;
use lowbit_model::language::{self, Prediction, Scorer};
use lowbit_model::{Checkpoint, Inputs, Tokenizer};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::f64::consts::LN_2;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

mod bytes;
pub mod coders;
mod pace;

pub(crate) use pace::continued;
pub use pace::latencies;

/// Names of the measures of a text; those from the sixth on are of models whose tokens are bytes.
pub static METRICS: &[&str] = &[
    "bits_per_byte",
    "perplexity",
    "compression_ratio",
    "nats_per_token",
    "text_bytes_per_token",
    "next_byte_accuracy",
    "target_probability",
    "calibration_error",
    "continuation_nats/16",
    "continuation_nats/64",
    "continuation_nats/256",
    "continuation_accuracy/16",
    "continuation_accuracy/64",
    "continuation_accuracy/256",
];

/// Bytes of a text at most.
const MAX_BYTES: u64 = 1 << 30;
/// Longest window that is chosen without being asked for, tokens.
const MAX_WINDOW: usize = 1024;
/// Predictions whose mean is one observation of an interval.
const BLOCK: usize = 256;

/// Settings of the question `likelihood`: the windows a text is cut into.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Likelihood {
    /// Tokens of a window; a model that was trained for fewer has windows of its own length.
    pub context: usize,
    /// Tokens by which a window moves on; in proportion where windows are shorter.
    pub stride: usize,
}

impl Likelihood {
    /// Refuses windows without a meaning.
    pub(crate) fn check(&self) -> Result<(), String> {
        let Likelihood { context, stride } = self;
        match (1..=*context).contains(stride) && *context <= 1 << 20 {
            true => Ok(()),
            false => Err(format!(
                "[likelihood] has windows of {context} tokens that move on by {stride}: `context` is at most {}, `stride` in 1..=`context`",
                1 << 20
            )),
        }
    }

    /// The windows for a model trained for `trained` tokens.
    fn cut(&self, trained: usize) -> Cut {
        let context = self.context.min(trained);
        Cut { context: Some(context), stride: Some((self.stride * context).div_ceil(self.context)) }
    }
}

/// Texts as tokens. The first token of each is given, all others are predicted.
pub struct Text {
    /// What they are called in a record.
    name: String,
    texts: Vec<Vec<u32>>,
    /// Bytes of the texts that the predicted tokens stand for.
    bytes: u64,
    /// Bytes of a limit that would have cut a character.
    spared: usize,
    /// Texts without a token to predict.
    empty: usize,
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
        let content = read::bytes(path, &Limits { bytes: MAX_BYTES, ..Limits::default() })?;
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        match Text::of(name, [&content[..]], limit, checkpoint) {
            Ok(text) if text.texts.is_empty() => Err(Error::input(path, "is too short: there is no token to predict")),
            text => text.map_err(|e| e.in_file(path)),
        }
    }

    /// Contents, each a text of its own after the token that begins a text, under the rules of [`Text::read`].
    ///
    /// # Errors
    /// When one is not UTF-8 where the tokenizer needs that; where there are several, names its index.
    pub fn of<'a>(
        name: String,
        contents: impl IntoIterator<Item = &'a [u8]>,
        limit: Option<usize>,
        checkpoint: &Checkpoint,
    ) -> Result<Self, Error> {
        let tokenizer = checkpoint.tokenizer()?;
        let takes_bytes = takes_bytes(&tokenizer);
        let begin = begin(checkpoint, &tokenizer);
        let mut hash = Sha256::new();
        let mut all = Text { name, texts: Vec::new(), bytes: 0, spared: 0, empty: 0, sha256: String::new() };
        for (at, whole) in contents.into_iter().enumerate() {
            let mut content = &whole[..limit.map_or(whole.len(), |limit| limit.min(whole.len()))];
            if content.len() < whole.len() && !takes_bytes {
                let end = character_end(content);
                all.spared += content.len() - end;
                content = &content[..end];
            }
            let need = content.len() as u64 * if takes_bytes { 4 } else { 2 };
            Footprint::new("score a part of it with --limit").and("tokens of the text", need).check()?;
            let mut tokens = encode(content, &tokenizer).map_err(|e| if at == 0 { e } else { in_text(e, at) })?;
            if let Some(begin) = begin.filter(|begin| tokens.first() != Some(begin)) {
                tokens.insert(0, begin);
            }
            if tokens.len() < 2 {
                all.empty += 1;
                continue;
            }
            all.bytes += content.len() as u64;
            hash.update(content);
            all.texts.push(tokens);
        }
        all.sha256 = lowbit_base::hex(hash.finalize());
        Ok(all)
    }

    /// A text that is tokens already: bytes, and the tokens between texts, which are predicted too.
    pub fn of_tokens(name: String, tokens: Vec<u32>) -> Self {
        let content: Vec<u8> = tokens.iter().filter_map(|token| u8::try_from(*token).ok()).collect();
        let sha256 = lowbit_base::hex(Sha256::digest(&content));
        Text { name, texts: vec![tokens], bytes: content.len() as u64, spared: 0, empty: 0, sha256 }
    }

    /// Bytes that are predicted.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Each text as tokens, the one before it included.
    pub(crate) fn texts(&self) -> &[Vec<u32>] {
        &self.texts
    }

    /// Tokens, given ones included.
    fn tokens(&self) -> usize {
        self.texts.iter().map(Vec::len).sum()
    }

    /// The tokens that are predicted.
    fn predicted(&self) -> impl Iterator<Item = u32> {
        self.texts.iter().flat_map(|tokens| &tokens[1..]).copied()
    }
}

/// The token before every text, which is given: that of the model, else the one that separates texts.
pub(crate) fn begin(checkpoint: &Checkpoint, tokenizer: &Tokenizer) -> Option<u32> {
    checkpoint.model_config().bos_token_id.or(tokenizer.end())
}

fn in_text(error: Error, at: usize) -> Error {
    Error { message: format!("text {at}: {}", error.message), ..error }
}

/// Whether the tokens of a text are its bytes: each byte is a token, and no token stands for several.
pub(crate) fn takes_bytes(tokenizer: &Tokenizer) -> bool {
    let is_byte = |byte: u8| tokenizer.token_bytes(byte.into()) == Some(&[byte]);
    let is_single = |id: u32| tokenizer.is_control(id) || tokenizer.token_bytes(id).is_none_or(|bytes| bytes.len() < 2);
    (0..=255).all(is_byte) && (256..tokenizer.vocab_size() as u32).all(is_single)
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

/// The rows of a task, or the content of its files, as texts.
///
/// # Errors
/// As [`Text::of`], and when there is no token to predict.
pub fn text_of(task: &Task, rows: &Rows, subject: &Subject) -> Result<Text, Error> {
    let contents: Vec<&[u8]> = match &rows.inputs {
        Inputs::Bytes(contents) => contents.iter().map(Vec::as_slice).collect(),
        inputs => inputs.texts().iter().map(String::as_bytes).collect(),
    };
    let text = Text::of(task.id(), contents, subject.limit, subject.checkpoint)?;
    match text.texts.is_empty() {
        true => Err(Error::usage(format!("task {}: there is no token to predict", task.name))),
        false => Ok(text),
    }
}

/// The record of a language model on rows of text or the content of files.
///
/// # Errors
/// As [`text_of`] and [`score`].
pub(crate) fn score_task(task: &Task, rows: &Rows, subject: &Subject) -> Result<Record, Error> {
    let text = text_of(task, rows, subject)?;
    let settings = task.likelihood.as_ref().map(|settings| settings.cut(trained(subject).0));
    let mut cut = subject.cut;
    if let Some(of_task) = settings.filter(|_| cut.context.is_none()) {
        cut = Cut { stride: cut.stride.or(of_task.stride), ..of_task };
    }
    let mut record = score(&text, &Subject { cut, ..*subject })?;
    record.measures.retain(|name, _| !METRICS.contains(&&name[..]) || metrics::asked(&task.metrics, name));
    if text.empty > 0 {
        let (empty, all) = (text.empty, rows.len());
        record.detail.notices.push(format!("{empty} of {all} texts are empty, and were left out"));
    }
    Ok(record)
}

/// The longest window that a model and its reference were both trained for, and the one of them that sets it.
fn trained<'a>(subject: &Subject<'a>) -> (usize, &'a str) {
    let own = (subject.checkpoint.model_config().max_length, subject.name);
    let theirs = subject.reference.map(|r| (r.checkpoint.model_config().max_length, r.name));
    theirs.filter(|theirs| theirs.0 < own.0).unwrap_or(own)
}

/// Refuses a reference whose tokens are others.
fn check_vocabulary(name: &str, own: &Tokenizer, reference: &Reference) -> Result<(), Error> {
    let theirs = reference.checkpoint.tokenizer()?;
    let fail = |what: String| {
        let message = format!("{} {what} {name}: their probabilities cannot be compared", reference.name);
        Err(Error::usage(format!("{message}; name a reference with the same vocabulary")))
    };
    let (n, m) = (own.vocab_size(), theirs.vocab_size());
    if n != m {
        return fail(format!("has {m} tokens, not the {n} of"));
    }
    let is_other =
        |id: &u32| own.token_bytes(*id) != theirs.token_bytes(*id) || own.is_control(*id) != theirs.is_control(*id);
    match (0..n as u32).find(is_other) {
        Some(id) => fail(format!("has another token {id} than")),
        None => Ok(()),
    }
}

/// Compares what scoring takes with the memory there is.
fn check_memory(text: &Text, subject: &Subject, context: usize) -> Result<(), Error> {
    let need =
        subject.checkpoint.need("take a smaller --context, a --limit of the text, or a recipe with fewer bits")?;
    let mut need = Scorer::with_pass(need, subject.checkpoint.parameters(), context);
    need = need.and("predictions", (text.tokens() * size_of::<Prediction>()) as u64);
    if let Some(Reference { checkpoint, .. }) = subject.reference {
        let theirs = Scorer::with_pass(checkpoint.need("")?, checkpoint.parameters(), context).bytes();
        need = need.and("the reference", theirs).and("differences", (text.tokens() * Faithfulness::BYTES) as u64);
    }
    need.check()
}

/// Scores a model on a text, beside its reference in the same windows; the record says how the text was cut.
///
/// # Errors
/// When the model is no language model, its predictions are not finite, or its reference has another vocabulary.
pub fn score(text: &Text, subject: &Subject) -> Result<Record, Error> {
    let Subject { name, checkpoint, cpu, cut, reference, .. } = *subject;
    let (trained, shortest) = trained(subject);
    let context = cut.context.unwrap_or(trained.min(MAX_WINDOW));
    if context > trained {
        let text = format!("windows of {context} tokens are asked for, but the model was trained for {trained}");
        return Err(Error::usage(format!("{shortest}: {text}: beyond that its predictions mean nothing")));
    }
    let stride = cut.stride.unwrap_or(context.div_ceil(2));
    let tokenizer = checkpoint.tokenizer()?;
    reference.map_or(Ok(()), |reference| check_vocabulary(name, &tokenizer, &reference))?;
    check_memory(text, subject, context)?;
    let scorer = |model| Scorer::new(model, cpu.clone(), context, stride);
    let mut beside = reference.map(|reference| scorer(Arc::new(reference.checkpoint.model()?))).transpose()?;
    let model = Arc::new(checkpoint.model()?);
    let texts: Vec<&[u32]> = text.texts.iter().map(Vec::as_slice).collect();
    let (mut predictions, mut faithfulness) = (Vec::with_capacity(text.tokens()), Faithfulness::default());
    let (is_of_bytes, mut calibration) = (takes_bytes(&tokenizer), Calibration::default());
    let start = Instant::now();
    scorer(model.clone())?.each(&texts, beside.as_mut(), &mut |own, theirs, token| {
        let prediction = language::predict(own, token as usize);
        if is_of_bytes && !tokenizer.is_control(token) {
            calibration.add(own, token as usize, &prediction);
        }
        predictions.push(prediction);
        theirs.into_iter().for_each(|theirs| faithfulness.add(theirs, own, token as usize));
    })?;
    let seconds = start.elapsed().as_secs_f64();
    if let Some(at) = predictions.iter().position(|p| !p.nats.is_finite()) {
        let message = format!("{}: the logits before token {} of {} are not finite", name, at + 1, text.name);
        return Err(Error::numeric(message));
    }
    let mut record = Record {
        task: text.name.clone(),
        model: name.into(),
        recipe: checkpoint.recipe().name.into(),
        params: 0,
        measures: measures(text, &predictions, &tokenizer),
        detail: if is_of_bytes { raw(text, &predictions) } else { Detail::default() },
    };
    if is_of_bytes {
        let counts = text.texts.iter().map(|tokens| tokens.len() - 1);
        record.measures.extend(calibration.measure().map(|measure| ("calibration_error".into(), measure)));
        record.measures.extend(bytes::runs(&predictions, counts));
        record.measures.extend(bytes::continued(&text.texts, (checkpoint, &model), cpu, context)?);
    }
    if subject.speed {
        let rate = Measure::measured(text.bytes as f64 / seconds.max(1e-9), "per_second", text.bytes);
        record.measures.insert("scoring_throughput".into(), rate);
        latencies(text, &[checkpoint], std::slice::from_mut(&mut record), cpu)?;
        let peak = meter::peak_rss_bytes().map(|bytes| Measure::measured(bytes as f64, "bytes", 1));
        record.measures.extend(peak.map(|peak| ("peak_rss_bytes".into(), peak)));
    }
    if let Some(reference) = reference {
        faithfulness.check()?;
        record.measures.extend(faithfulness.measures(BLOCK));
        record.detail.reference = Some(reference.name.into());
    }
    record.detail.note = Some(describe(text, context, stride));
    facts::describe(&mut record, checkpoint)?;
    Ok(record)
}

/// How a text was cut, for the reader of a record.
fn describe(text: &Text, context: usize, stride: usize) -> String {
    let spared = match text.spared {
        0 => String::new(),
        n => format!(", {n} less than asked for so that no character is cut"),
    };
    let texts = match text.texts.len() {
        1 => String::new(),
        n => format!(" in {n} texts"),
    };
    format!(
        "{} bytes{spared} (SHA-256 {}){texts} as {} tokens in windows of {context} that move on by {stride}; each token is \
         predicted once, beyond the first window with at least {} tokens before it",
        text.bytes,
        text.sha256,
        text.tokens(),
        context - stride,
    )
}

/// Measures of predictions, one for each token of a text but its first. Perplexity is per byte for models of bytes, else per
/// token.
fn measures(text: &Text, predictions: &[Prediction], tokenizer: &Tokenizer) -> BTreeMap<String, Measure> {
    let (bytes, tokens) = (text.bytes as f64, predictions.len() as f64);
    let nats: f64 = predictions.iter().map(|p| p.nats).sum();
    let bits = nats / LN_2 / bytes;
    let blocks: Vec<f64> = predictions.chunks_exact(BLOCK).map(block_bits).collect();
    let interval = stats::mean_interval(&blocks);
    // A measure that is `scale` times the mean bits of a token.
    let scaled = |measure: Measure, scale: f64| match interval {
        Some((center, low, high)) => {
            let value = measure.value;
            measure.between(value - (center - low) * scale, value + (high - center) * scale)
        }
        None => measure,
    };
    let predicted = || predictions.iter().zip(text.predicted()).filter(|(_, token)| !tokenizer.is_control(*token));
    let of_bytes = takes_bytes(tokenizer) && predicted().count() as u64 == text.bytes;
    let unit = if of_bytes { bytes } else { tokens };
    let perplexity = |nats: f64| (nats / unit).exp();
    let perplexity = match scaled(Measure::measured(nats, "nats", unit as u64), tokens * LN_2) {
        Measure { lo: Some(lo), hi: Some(hi), n, .. } => {
            Measure::measured(perplexity(nats), "count", n).between(perplexity(lo), perplexity(hi))
        }
        Measure { n, .. } => Measure::measured(perplexity(nats), "count", n),
    };
    let mut all = BTreeMap::from([
        ("bits_per_byte", scaled(Measure::measured(bits, "bits", text.bytes), tokens / bytes)),
        ("nats_per_token", scaled(Measure::measured(nats / tokens, "nats", predictions.len() as u64), LN_2)),
        ("text_bytes_per_token", Measure::measured(bytes / tokens, "ratio", predictions.len() as u64)),
        ("perplexity", perplexity),
        ("compression_ratio", Measure { how: How::Estimated, ..Measure::measured(8.0 / bits, "ratio", text.bytes) }),
    ]);
    if of_bytes {
        let right = predicted().filter(|(p, _)| p.top).count() as u64;
        let (low, high) = stats::wilson(right, text.bytes);
        let accuracy = Measure::measured(right as f64 / bytes, "fraction", text.bytes).between(low, high);
        let probability = predicted().map(|(p, _)| (-p.nats).exp()).sum::<f64>() / bytes;
        all.insert("next_byte_accuracy", accuracy);
        all.insert("target_probability", Measure::measured(probability, "fraction", text.bytes));
    }
    all.into_iter().map(|(name, measure)| (name.to_string(), measure)).collect()
}

/// The bits of stretches of a text whose every byte is predicted.
fn raw(text: &Text, predictions: &[Prediction]) -> Detail {
    let whole = predictions.len() as u64 == text.bytes;
    let samples = whole.then(|| ("bits_per_byte".to_string(), stretches(predictions)));
    Detail { samples: samples.into_iter().collect(), ..Detail::default() }
}

/// Stretches of a text at most whose bits are kept, by which two models are compared.
const STRETCHES: usize = 1000;

/// Mean bits of stretches of about one length, of a block at least, that lie end to end; to a millionth.
fn stretches(predictions: &[Prediction]) -> Vec<f64> {
    let (n, count) = (predictions.len(), predictions.len().div_ceil(BLOCK).min(STRETCHES));
    let stretch = |i: usize| block_bits(&predictions[i * n / count..(i + 1) * n / count]);
    (0..count).map(|i| (stretch(i) * 1e6).round() / 1e6).collect()
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
