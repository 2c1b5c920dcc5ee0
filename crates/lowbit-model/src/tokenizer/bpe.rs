//! Byte-level BPE from a list of tokens and merges, as GGUF files and tiktoken files hold them.

use super::bytes::letter;
use super::names::Name;
use super::pre::{self, Pre};
use super::settings::post_processor;
use super::spm::Use;
use super::{MAX_VOCABULARY, Vocabulary};
use crate::container::show;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use tokenizers::decoders::DecoderWrapper;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::{AddedToken, Tokenizer};

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
    let added = |usage: &Use| matches!(usage, Use::Control | Use::Unknown | Use::User | Use::Added);
    let mut seen = HashMap::with_capacity(n);
    for (id, token) in v.tokens.iter().enumerate() {
        if let Some(first) = seen.insert(token.as_str(), id) {
            return Err(format!("tokens {first} and {id} are both `{}`", show(token)));
        }
    }
    // What ends the list and no merge makes is added behind the model.
    let mut inner = v.uses.iter().rposition(|usage| !added(usage)).map_or(0, |last| last + 1);
    let mut union = String::new();
    for (i, (left, right)) in v.merges.iter().enumerate() {
        union.clear();
        union.extend([left.as_str(), right.as_str()]);
        for token in [left, right, &union] {
            let lacks = || format!("merge {i} needs token `{}`, which the vocabulary lacks", show(token));
            inner = inner.max(seen.get(token.as_str()).ok_or_else(lacks)? + 1);
        }
    }
    let vocab: Vocab = v.tokens[..inner].iter().enumerate().map(|(id, token)| (token.clone(), id as u32)).collect();
    let model = BPE::builder().vocab_and_merges(vocab, v.merges.clone()).ignore_merges(pre.whole).build();
    let mut hub = Tokenizer::new(model.map_err(|e| e.to_string())?);
    let mut tokens = Vec::new();
    let switches: HashMap<u32, &Name> = v.added.iter().map(|name| (name.id, name)).collect();
    for ((token, usage), id) in v.tokens.iter().zip(&v.uses).zip(0..).filter(|((_, usage), _)| added(usage)) {
        if token.is_empty() {
            return Err("a control token has an empty name".into());
        }
        let plain = AddedToken::from(token.as_str(), !matches!(usage, Use::User | Use::Added)).normalized(false);
        tokens.push(match switches.get(&id) {
            Some(name) => plain.single_word(name.single_word).lstrip(name.lstrip).rstrip(name.rstrip),
            None => plain,
        });
    }
    hub.add_tokens(tokens).map_err(|e| e.to_string())?;
    let misplaced = v.tokens.iter().enumerate().find(|(id, token)| hub.token_to_id(token) != Some(*id as u32));
    if let Some((id, token)) = misplaced {
        return Err(format!("token {id} `{}` cannot keep its place in the vocabulary", show(token)));
    }
    dress(&mut hub, v, pre).map_err(|e| e.to_string())?;
    Ok(hub)
}

/// Adds what surrounds the model: splitting, decoding, the first and the last token.
fn dress(hub: &mut Tokenizer, v: &Vocabulary, pre: &Pre) -> Result<(), serde_json::Error> {
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let mut steps = pre::steps(pre);
    steps.push(level.clone());
    let steps = json!({"type": "Sequence", "pretokenizers": steps});
    hub.with_pre_tokenizer(Some(serde_json::from_value::<PreTokenizerWrapper>(steps)?));
    hub.with_decoder(Some(serde_json::from_value::<DecoderWrapper>(level)?));
    let named = |id: Option<u32>, on: bool| id.filter(|_| on).map(|id| (v.tokens[id as usize].as_str(), id));
    let (bos, eos) = (named(v.bos, v.add_bos), named(v.eos, v.add_eos));
    if bos.is_some() || eos.is_some() {
        hub.with_post_processor(Some(post_processor(bos, eos)?));
    }
    Ok(())
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
    let mergeless = model["merges"].as_array().is_none_or(Vec::is_empty).then(|| &pre::PRES[0]);
    let pre = pre::of(&file["pre_tokenizer"], model["ignore_merges"] == true).or(mergeless);
    let pre = pre.ok_or("GGUF has no name for the pre-tokenizer of this `tokenizer.json`")?;
    let pairs = model["vocab"].as_object().into_iter().flatten().filter_map(|(k, v)| Some((k.as_str(), v.as_u64()?)));
    let mut all: HashMap<u64, (&str, Use)> = pairs.map(|(token, id)| (id, (token, Use::Normal))).collect();
    for token in file["added_tokens"].as_array().into_iter().flatten() {
        let usage = if token["special"] == true { Use::Control } else { Use::User };
        all.insert(token["id"].as_u64().unwrap_or(0), (token["content"].as_str().unwrap_or(""), usage));
    }
    let [first, last] = around(&file["post_processor"])?;
    let mut v = Vocabulary {
        bos: first,
        add_bos: first.is_some(),
        eos: last,
        add_eos: last.is_some(),
        ..Vocabulary::default()
    };
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

/// The tokens that a post-processor of the Hub puts before and after a text.
///
/// # Errors
/// A sentence when there are several, or another kind of step.
fn around(step: &Value) -> Result<[Option<u32>; 2], String> {
    let steps = step["processors"].as_array().cloned().unwrap_or_else(|| vec![step.clone()]);
    let mut found = [Vec::new(), Vec::new()];
    for step in steps {
        match step["type"].as_str() {
            None | Some("ByteLevel") => {}
            Some("TemplateProcessing") => {
                let mut after = 0;
                for part in step["single"].as_array().into_iter().flatten() {
                    match part["SpecialToken"]["id"].as_str() {
                        None => after = 1,
                        Some(name) => found[after]
                            .extend(step["special_tokens"][name]["ids"].as_array().cloned().unwrap_or_default()),
                    }
                }
            }
            Some(kind) => return Err(format!("GGUF has no place for the post-processor {}", show(kind))),
        }
    }
    if let Some(ids) = found.iter().find(|ids| ids.len() > 1) {
        return Err(format!("GGUF has no place for {} tokens at an end of a text", ids.len()));
    }
    Ok(found.map(|ids| ids.first().and_then(Value::as_u64).map(|id| id as u32)))
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
