//! A tokenizer of the Hub's library, driven step by step: added tokens, normalizer, pre-tokenizer, model.
//!
//! The library finds added tokens wherever a text spells them. Here they are found by [`Names`], which knows what was said, and
//! all else is the library's own work. A model that makes an added token of ordinary text (Unigram has `</s>` among its
//! pieces) is made anew without that piece when it first does so.
//!
//! Its memory is 200 bytes per byte of text, so that long texts are encoded in pieces. A text is cut before a space or a line
//! end, and only where the text around the cut has the same tokens as its two sides.

use super::names::{Found, Name, Names, Said, is_text};
use crate::Error;
use lowbit_base::memory::Footprint;
use lowbit_base::panics::caught;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::OnceLock;
use tokenizers::normalizer::Range;
use tokenizers::{
    Model, ModelWrapper, NormalizedString, Normalizer, NormalizerWrapper, OffsetReferential, OffsetType,
    PostProcessorWrapper, PreTokenizedString, PreTokenizer, Token,
};

/// Bytes of a piece, about.
const PART_BYTES: usize = 64 << 10;
/// Bytes on each side of a cut whose tokens are compared.
const AROUND: usize = 512;
/// Cuts that are tried in a piece.
const TRIES: usize = 32;
/// Bytes of memory that the library takes for a byte of text.
const TAKEN: u64 = 200;
/// Most tokens around a text.
const MAX_AROUND: usize = 64;
/// No character of any text: part of the name of what must not be found.
const NOWHERE: char = '\u{fdd0}';
/// What is said where the library panics.
pub(super) const FAILS: &str = "a step of its file cannot be carried out; fetch the file again";
/// A character that no vocabulary has.
const UNKNOWN: &str = "\u{10fffd}";

type Result<T, E = tokenizers::Error> = std::result::Result<T, E>;

/// A tokenizer of the Hub's library.
pub(super) struct Hub {
    pub library: tokenizers::Tokenizer,
    /// Added tokens found in the text, and those found in the normalized text.
    pub names: [Names; 2],
    /// How many times shorter the steps make a text at most; absent where they may leave out any part of it.
    pub shrinks: Option<usize>,
    /// The normalizer of a text that goes on, where it differs.
    inner: Option<NormalizerWrapper>,
    /// Added tokens that no text becomes.
    barred: HashSet<u32>,
    /// The model without them.
    without: OnceLock<Option<Box<ModelWrapper>>>,
    /// Tokens before and after every text.
    pub around: [Vec<u32>; 2],
    /// How two texts become one sequence, where the file says so.
    pub pair: Option<Vec<PairPart>>,
}

/// A part of a sequence made of two texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PairPart {
    /// Which text, or tokens between.
    pub content: PairContent,
    /// Segment of its tokens.
    pub segment: u32,
}

/// What a part of such a sequence is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PairContent {
    /// The first or the second text.
    Text(usize),
    /// Tokens.
    Tokens(Vec<u32>),
}

/// Where in the whole text a part of it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// At its start.
    Start,
    /// After an added token.
    After,
    /// Where it was cut.
    Cut,
}

/// A part of a text between added tokens.
#[derive(Clone, Copy)]
struct TextPart<'a> {
    text: &'a str,
    /// Where it begins in the whole text.
    offset: usize,
    place: Place,
    said: &'a Said,
}

impl<'a> TextPart<'a> {
    fn split(self, at: usize) -> (Self, Self) {
        let (left, right) = self.text.split_at(at);
        (TextPart { text: left, ..self }, TextPart { text: right, offset: self.offset + at, place: Place::Cut, ..self })
    }
}

impl Hub {
    /// `has_bytes` tells whether every byte is a token.
    ///
    /// # Errors
    /// A sentence naming the part that cannot be used.
    pub fn new(mut library: tokenizers::Tokenizer, has_bytes: bool) -> Result<Self, String> {
        // Length is the model's matter.
        library.with_padding(None).with_truncation(None).map_err(|e| e.to_string())?;
        let around = around(library.get_post_processor())?;
        let pair = pair(library.get_post_processor())?;
        let unknown = library.get_model().tokenize(UNKNOWN).unwrap_or_default();
        let unknown: HashSet<u32> = unknown.iter().map(|token| token.id).collect();
        let (mut names, mut barred) = ([Vec::new(), Vec::new()], HashSet::new());
        for (id, token) in library.get_added_tokens_decoder() {
            let content = &token.content;
            if !is_text(content) && !unknown.contains(&id) {
                barred.insert(id);
            }
            let text = if token.normalized { normalized(library.get_normalizer(), content) } else { content.clone() };
            let (single_word, lstrip, rstrip) = (token.single_word, token.lstrip, token.rstrip);
            names[usize::from(token.normalized)].push(Name { text, id, single_word, lstrip, rstrip });
        }
        let inner = library.get_normalizer().and_then(without_prepend);
        let names = names.map(Names::new);
        let shrinks = if has_bytes { shrinks(&library) } else { None };
        Ok(Hub { library, names, shrinks, inner, barred, without: OnceLock::new(), around, pair })
    }

    /// Appends the tokens of a text until there are `limit` or a few more.
    ///
    /// # Errors
    /// When a pattern of the file cannot be applied to the text.
    pub fn encode(&self, text: &str, said: &Said, limit: usize, ids: &mut Vec<u32>) -> Result<(), Error> {
        let fault = |cause: &str| Error::usage(format!("the tokenizer cannot encode this text: {cause}"));
        let found = self.names[0].find(text, |from, to| said.touches(from, to));
        let end = Found { start: text.len(), end: text.len(), id: 0 };
        let mut at = 0;
        for (i, next) in found.iter().chain([&end]).enumerate() {
            let place = if at == 0 { Place::Start } else { Place::After };
            let part = TextPart { text: &text[at..next.start], offset: at, place, said };
            let tokens = caught(|| self.part(part, limit.saturating_sub(ids.len())));
            let tokens =
                tokens.ok_or_else(|| Error::data(format!("the tokenizer cannot encode this text: {FAILS}")))?;
            ids.extend(tokens.map_err(|e| match e.downcast::<Error>() {
                Ok(own) => *own,
                Err(e) => fault(&e.to_string()),
            })?);
            if i < found.len() {
                ids.push(next.id);
            }
            if ids.len() >= limit {
                break;
            }
            at = next.end;
        }
        Ok(())
    }

    /// The tokens of a part, piece by piece.
    fn part(&self, mut part: TextPart<'_>, limit: usize) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        while part.text.len() > PART_BYTES && ids.len() < limit {
            let Some(at) = self.cut(part)? else { break };
            let (piece, rest) = part.split(at);
            ids.extend(self.piece(piece)?);
            part = rest;
        }
        if ids.len() < limit {
            let taken = (part.text.len() as u64).saturating_mul(TAKEN);
            if part.text.len() > 2 * PART_BYTES {
                let need = Footprint::new("put white space into it, or give it in parts");
                need.and("tokens of a text that can be cut nowhere", taken).check()?;
            }
            ids.extend(self.piece(part)?);
        }
        Ok(ids)
    }

    /// Where a part can be cut without a change of its tokens.
    fn cut(&self, part: TextPart<'_>) -> Result<Option<usize>> {
        let bytes = part.text.as_bytes();
        let free = |at: &usize| matches!(bytes[*at], b' ' | b'\n') && !bytes[*at - 1].is_ascii_whitespace();
        let boundary = |at: usize| (at..).find(|at| part.text.is_char_boundary(*at)).unwrap_or(bytes.len());
        let nearest = (PART_BYTES / 2..PART_BYTES).rev().filter(free).take(TRIES);
        for at in nearest.chain((PART_BYTES..bytes.len()).filter(free).take(TRIES)) {
            let around = part
                .split(boundary(at - AROUND))
                .1
                .split(boundary((at + AROUND).min(bytes.len())) - boundary(at - AROUND))
                .0;
            let (left, right) = around.split(at - boundary(at - AROUND));
            let apart = [self.piece(left)?, self.piece(right)?].concat();
            if apart == self.piece(around)? {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// The tokens of a piece.
    fn piece(&self, piece: TextPart<'_>) -> Result<Vec<u32>> {
        if piece.text.is_empty() {
            return Ok(Vec::new());
        }
        // A text that does not begin with its first byte is one that begins later.
        let shift = usize::from(piece.place != Place::Start);
        let mut text = match shift {
            0 => NormalizedString::from(piece.text),
            _ => NormalizedString::from(format!(" {}", piece.text)).slice(Range::Original(1..)).ok_or("no slice")?,
        };
        let inner = self.inner.as_ref().filter(|_| piece.place == Place::Cut);
        if let Some(normalizer) = inner.or(self.library.get_normalizer()) {
            normalizer.normalize(&mut text)?;
        }
        let mut text = PreTokenizedString::from(text);
        text.split(|_, text| {
            let start = piece.offset + text.offsets_original().0 - shift;
            let barred = |from, to| match text.convert_offsets(Range::Normalized(from..to)) {
                Some(range) => piece.said.touches(start + range.start, start + range.end),
                None => true,
            };
            splits(&text, &self.names[1].find(text.get(), barred))
        })?;
        if let Some(steps) = self.library.get_pre_tokenizer() {
            steps.pre_tokenize(&mut text)?;
        }
        text.tokenize(|word| self.word(word.get()))?;
        let splits = text.get_splits(OffsetReferential::Normalized, OffsetType::None);
        Ok(splits.into_iter().flat_map(|(_, _, tokens)| tokens.iter().flatten().map(|token| token.id)).collect())
    }

    /// The model's tokens of a word; none of them is an added token.
    fn word(&self, word: &str) -> Result<Vec<Token>> {
        let tokens = self.library.get_model().tokenize(word)?;
        if !tokens.iter().any(|token| self.barred.contains(&token.id)) {
            return Ok(tokens);
        }
        let without = self.without.get_or_init(|| without(self.library.get_model(), &self.barred).map(Box::new));
        let mut tokens = without.as_ref().ok_or("the model makes an added token of this text")?.tokenize(word)?;
        tokens.retain(|token| !self.barred.contains(&token.id));
        Ok(tokens)
    }
}

/// A text in parts: those that are added tokens, and those between.
fn splits(text: &NormalizedString, found: &[Found]) -> Result<Vec<(NormalizedString, Option<Vec<Token>>)>> {
    let slice = |from, to| text.slice(Range::Normalized(from..to)).ok_or("no slice");
    let (mut out, mut at) = (Vec::new(), 0);
    for name in found {
        out.push((slice(at, name.start)?, None));
        let part = slice(name.start, name.end)?;
        let token = Token::new(name.id, part.get().into(), (0, name.end - name.start));
        out.push((part, Some(vec![token])));
        at = name.end;
    }
    out.push((slice(at, text.get().len())?, None));
    Ok(out)
}

/// A name as the normalizer writes it.
fn normalized(normalizer: Option<&NormalizerWrapper>, name: &str) -> String {
    let mut text = NormalizedString::from(name);
    let done = normalizer.is_none_or(|normalizer| normalizer.normalize(&mut text).is_ok());
    if done { text.get().to_string() } else { name.to_string() }
}

/// A normalizer that puts something before a text, without that step.
pub(super) fn without_prepend(normalizer: &NormalizerWrapper) -> Option<NormalizerWrapper> {
    fn strip(step: &mut Value) -> bool {
        let is = |step: &Value| step["type"] == "Prepend";
        let Some(steps) = step["normalizers"].as_array_mut() else { return false };
        let before = steps.len();
        steps.retain(|step| !is(step));
        let inside: Vec<bool> = steps.iter_mut().map(strip).collect();
        before > steps.len() || inside.contains(&true)
    }
    let mut value = json!({"type": "Sequence", "normalizers": [serde_json::to_value(normalizer).ok()?]});
    strip(&mut value).then(|| serde_json::from_value(value).ok()).flatten()
}

/// How many times shorter the steps before a byte-pair encoding with all bytes make a text, where that has a bound.
fn shrinks(library: &tokenizers::Tokenizer) -> Option<usize> {
    let ModelWrapper::BPE(model) = library.get_model() else { return None };
    if model.continuing_subword_prefix.is_some() || model.end_of_word_suffix.is_some() {
        return None;
    }
    let normalizer = serde_json::to_value(library.get_normalizer()).ok()?;
    let steps = serde_json::to_value(library.get_pre_tokenizer()).ok()?;
    let spelled = steps["type"] == "ByteLevel"
        || steps["pretokenizers"].as_array().is_some_and(|steps| steps.iter().any(|step| step["type"] == "ByteLevel"));
    Some(shrinks_by(&normalizer)? * shrinks_by(&steps)?).filter(|_| spelled || model.byte_fallback)
}

/// The same of a normalizer or pre-tokenizer.
fn shrinks_by(step: &Value) -> Option<usize> {
    if let Some(steps) = ["normalizers", "pretokenizers"].iter().find_map(|key| step[*key].as_array()) {
        return steps.iter().try_fold(1usize, |all, step| Some(all.saturating_mul(shrinks_by(step)?)));
    }
    match step["type"].as_str() {
        None if step.is_null() => Some(1),
        // A character is replaced by one of a third of its bytes, and what is composed has three times the bytes of its composition,
        // at most (Unicode Standard Annex 15).
        Some("NFC") => Some(9),
        Some("Prepend" | "ByteLevel" | "Digits" | "Metaspace") => Some(1),
        Some("Split") => (step["behavior"] != "Removed").then_some(1),
        Some("Replace") => {
            let (from, to) = (step["pattern"]["String"].as_str()?, step["content"].as_str()?);
            (!from.is_empty() && to.len() >= from.len()).then_some(1)
        }
        _ => None,
    }
}

/// The tokens that a post-processor puts before and after a text.
pub(super) fn around(processor: Option<&PostProcessorWrapper>) -> Result<[Vec<u32>; 2], String> {
    let value = processor.map(serde_json::to_value).transpose().map_err(|e| e.to_string())?.unwrap_or_default();
    let mut around = [Vec::new(), Vec::new()];
    let steps = value["processors"].as_array().cloned().unwrap_or_else(|| vec![value]);
    for step in &steps {
        let id = |pair: &Value| pair[1].as_u64().map(|id| vec![id as u32]).ok_or("`post_processor` has no id");
        let [before, after] = match step["type"].as_str() {
            Some("TemplateProcessing") => template(step)?,
            Some("BertProcessing" | "RobertaProcessing") => [id(&step["cls"])?, id(&step["sep"])?],
            _ => continue,
        };
        around[0].splice(..0, before);
        around[1].extend(after);
    }
    match around.iter().map(Vec::len).max() {
        Some(count) if count > MAX_AROUND => {
            Err(format!("`post_processor` puts {count} tokens around every text, more than {MAX_AROUND}"))
        }
        _ => Ok(around),
    }
}

/// How a post-processor makes one sequence of two texts.
fn pair(processor: Option<&PostProcessorWrapper>) -> Result<Option<Vec<PairPart>>, String> {
    let value = processor.map(serde_json::to_value).transpose().map_err(|e| e.to_string())?.unwrap_or_default();
    let steps = value["processors"].as_array().cloned().unwrap_or_else(|| vec![value]);
    let text = |index, segment| PairPart { content: PairContent::Text(index), segment };
    for step in &steps {
        let token = |key: &str, count, segment| -> Result<PairPart, String> {
            let id = step[key][1].as_u64().ok_or("`post_processor` has no id")?;
            Ok(PairPart { content: PairContent::Tokens(vec![id as u32; count]), segment })
        };
        return Ok(Some(match step["type"].as_str() {
            Some("TemplateProcessing") => pair_template(step)?,
            Some("BertProcessing") => {
                vec![token("cls", 1, 0)?, text(0, 0), token("sep", 1, 0)?, text(1, 1), token("sep", 1, 1)?]
            }
            Some("RobertaProcessing") => {
                vec![token("cls", 1, 0)?, text(0, 0), token("sep", 2, 0)?, text(1, 0), token("sep", 1, 0)?]
            }
            _ => continue,
        }));
    }
    Ok(None)
}

/// The parts of a template of two texts.
fn pair_template(step: &Value) -> Result<Vec<PairPart>, String> {
    let mut parts = Vec::new();
    for piece in step["pair"].as_array().into_iter().flatten() {
        let (value, is_text) = match piece.get("Sequence") {
            Some(value) => (value, true),
            None => (&piece["SpecialToken"], false),
        };
        let segment = value["type_id"].as_u64().unwrap_or(0) as u32;
        let content = match (is_text, value["id"].as_str().unwrap_or_default()) {
            (true, "A") => PairContent::Text(0),
            (true, _) => PairContent::Text(1),
            (false, name) => {
                let ids = step["special_tokens"][name]["ids"].as_array().into_iter().flatten();
                PairContent::Tokens(ids.filter_map(|id| Some(id.as_u64()? as u32)).collect())
            }
        };
        parts.push(PairPart { content, segment });
    }
    let texts: Vec<_> = parts.iter().filter(|part| matches!(part.content, PairContent::Text(_))).collect();
    let tokens = |part: &PairPart| if let PairContent::Tokens(ids) = &part.content { ids.len() } else { 0 };
    match (texts.len(), parts.iter().map(tokens).sum::<usize>()) {
        (2, count) if count <= 2 * MAX_AROUND => Ok(parts),
        (2, count) => Err(format!("`post_processor.pair` puts {count} tokens around two texts")),
        _ => Err("`post_processor.pair` does not hold each of two texts once".into()),
    }
}

/// What the template of a single text has before and after it.
fn template(step: &Value) -> Result<[Vec<u32>; 2], String> {
    let (mut around, mut side) = ([Vec::new(), Vec::new()], 0);
    for piece in step["single"].as_array().into_iter().flatten() {
        if piece.get("Sequence").is_some() {
            if side == 1 {
                return Err("`post_processor.single` repeats the text".into());
            }
            side = 1;
            continue;
        }
        let name = piece["SpecialToken"]["id"].as_str().unwrap_or_default();
        let ids = step["special_tokens"][name]["ids"].as_array().into_iter().flatten();
        around[side].extend(ids.filter_map(|id| Some(id.as_u64()? as u32)));
    }
    if side == 0 {
        return Err("`post_processor.single` leaves out the text".into());
    }
    Ok(around)
}

/// A model whose vocabulary has names that no text spells in place of some tokens.
fn without(model: &ModelWrapper, barred: &HashSet<u32>) -> Option<ModelWrapper> {
    let mut value = serde_json::to_value(model).ok()?;
    let gone = |id: u64| u32::try_from(id).is_ok_and(|id| barred.contains(&id));
    let nowhere = |id: u64| format!("{NOWHERE}{id}{NOWHERE}");
    let mut names = HashSet::new();
    match &mut value["vocab"] {
        Value::Array(pieces) => {
            for (id, piece) in pieces.iter_mut().enumerate().filter(|(id, _)| gone(*id as u64)) {
                piece[0] = nowhere(id as u64).into();
            }
        }
        Value::Object(ids) => {
            let old = std::mem::take(ids);
            for (name, id) in old {
                match id.as_u64().filter(|id| gone(*id)) {
                    Some(number) => {
                        ids.insert(nowhere(number), id);
                        names.insert(name);
                    }
                    None => {
                        ids.insert(name, id);
                    }
                }
            }
        }
        _ => return None,
    }
    if let Some(merges) = value["merges"].as_array_mut() {
        merges.retain(|merge| {
            let pair = merge.as_str().and_then(|text| text.split_once(' '));
            let pair = pair.or_else(|| merge[0].as_str().zip(merge[1].as_str()));
            pair.is_some_and(|(a, b)| ![a, b, &[a, b].concat()].iter().any(|part| names.contains(*part)))
        });
    }
    serde_json::from_value(value).ok()
}

#[cfg(test)]
mod tests;
