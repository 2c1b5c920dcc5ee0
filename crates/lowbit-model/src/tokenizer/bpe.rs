//! Byte-level BPE from a list of tokens and merges, as GGUF files and tiktoken files hold them.

use super::bytes::letter;
use super::spm::Use;
use super::{MAX_VOCABULARY, Vocabulary};
use crate::container::show;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use tokenizers::decoders::DecoderWrapper;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::{AddedToken, Tokenizer};

/// How a text is split before pairs are merged.
pub(super) struct Pre {
    /// Names in `tokenizer.ggml.pre`; the first is the one to write.
    pub names: &'static [&'static str],
    /// Applied one after the other, each to what the ones before left.
    pub patterns: &'static [&'static str],
    /// Whether what is a token as a whole is taken without merging.
    pub whole: bool,
    /// Whether a text begins with the first token when the file does not say.
    pub add_bos: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
    r"|\s+(?!\S)|\s+"
);

/// Every way of splitting.
pub(super) static PRES: &[Pre] = &[
    Pre { names: &["gpt-2"], patterns: &[GPT2], whole: false, add_bos: false },
    Pre { names: &["llama-bpe", "llama3", "llama-v3"], patterns: &[LLAMA3], whole: true, add_bos: true },
    Pre {
        names: &["default", ""],
        patterns: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
        whole: false,
        add_bos: false,
    },
];

/// The way of splitting of a name.
///
/// # Errors
/// A sentence listing the known ones.
pub(super) fn pre(name: &str) -> Result<&'static Pre, String> {
    let known: Vec<_> = PRES.iter().map(|pre| pre.names[0]).collect();
    let found = PRES.iter().find(|pre| pre.names.contains(&name));
    found.ok_or_else(|| {
        format!("`tokenizer.ggml.pre` is `{}`, which is unknown; known: {}", show(name), known.join(", "))
    })
}

/// The tokenizer of a vocabulary whose normal tokens are spelled in GPT-2's letters.
///
/// # Errors
/// A sentence naming token or merge.
pub(super) fn build(v: &Vocabulary, pre: &Pre) -> Result<Tokenizer, String> {
    let n = v.tokens.len();
    if n == 0 || n > MAX_VOCABULARY || v.uses.len() != n {
        let text = format!("the vocabulary has {n} tokens and {} types", v.uses.len());
        return Err(format!("{text}; it must have as many of each, 1 to {MAX_VOCABULARY}"));
    }
    let added = |usage: &Use| matches!(usage, Use::Control | Use::Unknown | Use::User);
    // What ends the list is added behind the model, where no merge reaches it.
    let inner = v.uses.iter().rposition(|usage| !added(usage)).map_or(0, |last| last + 1);
    let mut seen = HashMap::with_capacity(n);
    for (id, token) in v.tokens.iter().enumerate() {
        if let Some(first) = seen.insert(token.as_str(), id) {
            return Err(format!("tokens {first} and {id} are both `{}`", show(token)));
        }
    }
    let mut merges = Vec::with_capacity(v.merges.len());
    let mut union = String::new();
    for (i, (left, right)) in v.merges.iter().enumerate() {
        union.clear();
        union.extend([left.as_str(), right.as_str()]);
        let within = |token: &str| seen.get(token).is_some_and(|id| *id < inner);
        if let Some(token) = [left, right, &union].into_iter().find(|token| !within(token)) {
            return Err(format!("merge {i} needs token `{}`, which the vocabulary lacks", show(token)));
        }
        merges.push((left.clone(), right.clone()));
    }
    let vocab: Vocab = v.tokens[..inner].iter().enumerate().map(|(id, token)| (token.clone(), id as u32)).collect();
    let model = BPE::builder().vocab_and_merges(vocab, merges).ignore_merges(pre.whole).build();
    let mut hub = Tokenizer::new(model.map_err(|e| e.to_string())?);
    let mut tokens = Vec::new();
    for (token, usage) in v.tokens.iter().zip(&v.uses).filter(|(_, usage)| added(usage)) {
        if token.is_empty() {
            return Err("a control token has an empty name".into());
        }
        tokens.push(AddedToken::from(token.as_str(), *usage != Use::User).normalized(false));
    }
    hub.add_tokens(tokens).map_err(|e| e.to_string())?;
    let misplaced = v.tokens.iter().enumerate().find(|(id, token)| hub.token_to_id(token) != Some(*id as u32));
    if let Some((id, token)) = misplaced {
        return Err(format!("token {id} `{}` cannot keep its place in the vocabulary", show(token)));
    }
    dress(&mut hub, v, pre).map_err(|e| e.to_string())?;
    Ok(hub)
}

/// Adds what surrounds the model: splitting, decoding, the first token.
fn dress(hub: &mut Tokenizer, v: &Vocabulary, pre: &Pre) -> Result<(), serde_json::Error> {
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let mut steps: Vec<Value> = pre.patterns.iter().map(|pattern| split(pattern)).collect();
    steps.push(level.clone());
    let steps = json!({"type": "Sequence", "pretokenizers": steps});
    hub.with_pre_tokenizer(Some(serde_json::from_value::<PreTokenizerWrapper>(steps)?));
    hub.with_decoder(Some(serde_json::from_value::<DecoderWrapper>(level)?));
    if let Some(bos) = v.bos.filter(|_| v.add_bos) {
        let name = &v.tokens[bos as usize];
        let (first, a) =
            (json!({"SpecialToken": {"id": name, "type_id": 0}}), json!({"Sequence": {"id": "A", "type_id": 0}}));
        let b = json!({"Sequence": {"id": "B", "type_id": 1}});
        let template = json!({"type": "TemplateProcessing", "single": [first, a], "pair": [first, a, b],
            "special_tokens": {name: {"id": name, "ids": [bos], "tokens": [name]}}});
        hub.with_post_processor(Some(serde_json::from_value::<PostProcessorWrapper>(template)?));
    }
    Ok(())
}

fn split(pattern: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false})
}

/// Bytes spelled in GPT-2's letters.
pub(super) fn spell(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| letter(*byte)).collect()
}

/// The vocabulary and way of splitting of a `tokenizer.json`, if GGUF can hold it.
///
/// # Errors
/// A sentence naming the part that GGUF has no place for.
pub(super) fn vocabulary_of(file: &Value) -> Result<(Vocabulary, &'static Pre), String> {
    let model = &file["model"];
    let level = |step: &Value| step["type"] == "ByteLevel";
    if model["type"] != "BPE" || !level(&file["decoder"]) {
        return Err("GGUF holds sentencepiece and byte-level BPE; this `tokenizer.json` is neither".into());
    }
    if !file["normalizer"].is_null() {
        return Err(format!("GGUF has no place for the normalizer {}", show(&file["normalizer"].to_string())));
    }
    // Without merges it does not matter where a text is split.
    let mergeless = model["merges"].as_array().is_none_or(Vec::is_empty).then(|| &PRES[0]);
    let pre = pre_of(&file["pre_tokenizer"]).or(mergeless);
    let pre = pre.ok_or("GGUF has no name for the pre-tokenizer of this `tokenizer.json`")?;
    let pairs = model["vocab"].as_object().into_iter().flatten().filter_map(|(k, v)| Some((k.as_str(), v.as_u64()?)));
    let mut all: HashMap<u64, (&str, Use)> = pairs.map(|(token, id)| (id, (token, Use::Normal))).collect();
    for token in file["added_tokens"].as_array().into_iter().flatten() {
        let usage = if token["special"] == true { Use::Control } else { Use::User };
        all.insert(token["id"].as_u64().unwrap_or(0), (token["content"].as_str().unwrap_or(""), usage));
    }
    let mut v = Vocabulary::default();
    for id in 0..all.len() as u64 {
        let (token, usage) = all.get(&id).ok_or_else(|| format!("the vocabulary has no token {id}"))?;
        v.tokens.push((*token).into());
        v.uses.push(*usage);
    }
    for merge in model["merges"].as_array().into_iter().flatten() {
        let pair = match merge {
            Value::String(text) => text.split_once(' '),
            pair => pair[0].as_str().zip(pair[1].as_str()),
        };
        let (left, right) = pair.ok_or("a merge is not a pair of tokens")?;
        v.merges.push((left.into(), right.into()));
    }
    Ok((v, pre))
}

/// The known way of splitting that a pre-tokenizer of the Hub is.
fn pre_of(step: &Value) -> Option<&'static Pre> {
    let steps = step["pretokenizers"].as_array().cloned().unwrap_or_else(|| vec![step.clone()]);
    let (last, splits) = steps.split_last().filter(|(last, _)| last["type"] == "ByteLevel")?;
    if last["add_prefix_space"] == true || splits.iter().any(|s| s["type"] != "Split" || s["behavior"] != "Isolated") {
        return None;
    }
    let mut patterns: Vec<&str> = splits.iter().filter_map(|s| s["pattern"]["Regex"].as_str()).collect();
    // Without a pattern of its own the step splits as GPT-2 does.
    if last["use_regex"] != false {
        patterns.push(GPT2);
    }
    PRES.iter().find(|pre| pre.patterns == patterns)
}

/// Every pair of tokens whose union is a token, in the order of the unions, then of the parts.
pub(super) fn merges_of(tokens: &[Vec<u8>]) -> Vec<(String, String)> {
    let ranks: HashMap<&[u8], usize> =
        tokens.iter().enumerate().map(|(rank, token)| (token.as_slice(), rank)).collect();
    let mut merges = Vec::with_capacity(2 * tokens.len());
    for token in tokens {
        let parts = (1..token.len()).map(|middle| token.split_at(middle));
        let mut parts: Vec<_> = parts.filter_map(|(l, r)| Some((*ranks.get(l)?, *ranks.get(r)?))).collect();
        parts.sort_unstable();
        merges.extend(parts.into_iter().map(|(l, r)| (spell(&tokens[l]), spell(&tokens[r]))));
    }
    merges
}

/// Whether all bytes are tokens, so that every text can be encoded.
pub(super) fn covers_bytes(v: &Vocabulary) -> bool {
    let tokens: HashSet<&str> = v.tokens.iter().map(String::as_str).collect();
    (0..=255u8).all(|byte| tokens.contains(spell(&[byte]).as_str()))
}
