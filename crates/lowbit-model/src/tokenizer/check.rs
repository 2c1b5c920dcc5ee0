//! What a `tokenizer.json` must satisfy before the tokenizer crate sees it: small, dense, unique vocabularies; lengths
//! that can be allocated; steps that cannot make a text much longer.

use super::MAX_VOCABULARY;
use crate::container::show;
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// How many times longer the steps of a file may make a text.
const MAX_GROWTH: u64 = 64;
/// Longest text among the settings of a step, bytes.
const MAX_TEXT: usize = 4096;
/// Most steps of a list.
const MAX_STEPS: usize = 64;
/// Longest word that WordPiece takes apart, characters: it takes the square of it.
const MAX_WORD: u64 = 1000;

/// What a file says beside its vocabulary.
#[derive(Debug, PartialEq)]
pub(super) struct Checked {
    /// Whether its model says to be byte-pair encoding.
    pub bpe: bool,
    /// One line for each part that is ignored.
    pub notices: Vec<String>,
}

/// Checks a file.
///
/// # Errors
/// A sentence naming field, value and limit.
pub(super) fn check(json: &str) -> Result<Checked, String> {
    let file: File = serde_json::from_str(json).map_err(|e| format!("not a tokenizer.json: {e}"))?;
    let mut notices = lengths(&file)?;
    for (field, step) in
        [("normalizer", &file.normalizer), ("pre_tokenizer", &file.pre_tokenizer), ("decoder", &file.decoder)]
    {
        check_step(field, step)?;
        let growth = growth(step);
        if growth > MAX_GROWTH {
            return Err(format!("`{field}` can make a text {growth} times longer, more than {MAX_GROWTH}"));
        }
    }
    if file.model.dropout.is_some_and(|p| p != 0.0) {
        notices.push("`model.dropout` is for training; ignored".into());
    }
    if let Some(length) = file.model.max_input_chars_per_word.filter(|n| *n > MAX_WORD) {
        return Err(format!("`model.max_input_chars_per_word` is {length}, more than {MAX_WORD}"));
    }
    for (field, text) in [
        ("continuing_subword_prefix", &file.model.continuing_subword_prefix),
        ("end_of_word_suffix", &file.model.end_of_word_suffix),
    ] {
        if let Some(length) = text.as_ref().map(String::len).filter(|n| *n > MAX_TEXT) {
            return Err(format!("`model.{field}` has {length} bytes, more than {MAX_TEXT}"));
        }
    }
    if let Some(key) = file.others.keys().next() {
        return Err(format!("`{}` is unknown in a tokenizer.json", show(key)));
    }
    let bpe = file.model.kind.as_deref() == Some("BPE");
    vocabulary(file.model.vocab.0, file.added_tokens)?;
    Ok(Checked { bpe, notices })
}

/// Refuses lengths that cannot be allocated; that length is the model's matter is told.
fn lengths(file: &File) -> Result<Vec<String>, String> {
    let cut = file.truncation.as_ref().map(|t| ("truncation", "truncation.max_length", t.max_length));
    let fill = file.padding.as_ref().map(|p| ("padding", "padding.strategy.Fixed", p.fixed()));
    let mut notices = Vec::new();
    for (name, field, length) in cut.into_iter().chain(fill) {
        if let Some(length) = length.filter(|n| *n > MAX_VOCABULARY as u64) {
            return Err(format!("`{field}` is {length}, more than {MAX_VOCABULARY}"));
        }
        notices.push(format!("`{name}` is ignored: the model's own length counts"));
    }
    Ok(notices)
}

/// Refuses settings of steps that are too large, whatever they mean.
fn check_step(field: &str, step: &Value) -> Result<(), String> {
    match step {
        Value::String(text) if text.len() > MAX_TEXT => {
            Err(format!("`{field}` holds a text of {} bytes, more than {MAX_TEXT}", text.len()))
        }
        Value::Array(list) if list.len() > MAX_STEPS => {
            Err(format!("`{field}` holds a list of {}, more than {MAX_STEPS}", list.len()))
        }
        Value::Array(list) => list.iter().try_for_each(|step| check_step(field, step)),
        Value::Object(map) if map.get("length") == Some(&0.into()) => {
            Err(format!("`{field}` cuts a text into parts of `length` 0; it must be at least 1"))
        }
        Value::Object(map) => map.iter().try_for_each(|(key, value)| match key.as_str() {
            "precompiled_charsmap" => check_charsmap(value),
            _ => check_step(field, value),
        }),
        _ => Ok(()),
    }
}

/// Refuses a map of sentencepiece that declares more than it holds.
fn check_charsmap(value: &Value) -> Result<(), String> {
    let text = value.as_str().unwrap_or_default();
    let head = text.get(..8).and_then(super::tiktoken::base64);
    let declared = head.and_then(|head| head.first_chunk::<4>().copied()).map_or(0, u32::from_le_bytes);
    let held = (text.len() / 4 * 3) as u64;
    if u64::from(declared) + 4 > held.max(4) {
        return Err(format!("`precompiled_charsmap` declares {declared} bytes, but holds at most {held}"));
    }
    Ok(())
}

/// How many times longer a step makes a text, at most.
fn growth(step: &Value) -> u64 {
    if let Some(steps) = ["normalizers", "pretokenizers", "decoders"].iter().find_map(|key| step[*key].as_array()) {
        return steps.iter().map(growth).fold(1, u64::saturating_mul);
    }
    match step["type"].as_str() {
        Some("Replace") => {
            let shortest = step["pattern"]["String"].as_str().map_or(1, str::len).max(1);
            step["content"].as_str().map_or(1, |content| content.len().div_ceil(shortest).max(1) as u64)
        }
        // A byte becomes a letter of two.
        Some("ByteLevel") => 2,
        _ => 1,
    }
}

/// Refuses ids that leave gaps, and entries that contradict each other.
fn vocabulary(mut ids: HashMap<String, u64>, added: Vec<Added>) -> Result<(), String> {
    for (i, token) in added.into_iter().enumerate() {
        if let Some(id) = ids.insert(token.content.clone(), token.id).filter(|id| *id != token.id) {
            let (token, other) = (show(&token.content), token.id);
            return Err(format!("`added_tokens[{i}]`: `{token}` has id {other}, but {id} in the vocabulary"));
        }
    }
    if ids.is_empty() || ids.len() > MAX_VOCABULARY {
        return Err(format!("the vocabulary has {} entries; it must have 1 to {MAX_VOCABULARY}", ids.len()));
    }
    let mut owners: Vec<Option<&str>> = vec![None; ids.len()];
    for (token, id) in &ids {
        let Some(owner) = usize::try_from(*id).ok().and_then(|id| owners.get_mut(id)) else {
            let text = format!("`model.vocab`: `{}` has id {id}, but ids must fill 0..{}", show(token), ids.len());
            return Err(format!("{text} without a gap"));
        };
        if let Some(first) = owner.replace(token) {
            let (a, b) = (first.min(token), first.max(token));
            return Err(format!("`model.vocab`: `{}` and `{}` both have id {id}", show(a), show(b)));
        }
    }
    Ok(())
}

#[derive(serde::Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Added>,
    truncation: Option<Truncation>,
    padding: Option<Padding>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    decoder: Value,
    #[serde(default, rename = "post_processor")]
    _post_processor: IgnoredAny,
    #[serde(default, rename = "version")]
    _version: IgnoredAny,
    model: Model,
    #[serde(flatten)]
    others: BTreeMap<String, IgnoredAny>,
}

#[derive(serde::Deserialize)]
struct Added {
    id: u64,
    content: String,
}

#[derive(serde::Deserialize)]
struct Truncation {
    max_length: Option<u64>,
}

#[derive(serde::Deserialize)]
struct Padding {
    strategy: Option<Value>,
}

impl Padding {
    fn fixed(&self) -> Option<u64> {
        self.strategy.as_ref()?.get("Fixed")?.as_u64()
    }
}

#[derive(serde::Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    dropout: Option<f64>,
    max_input_chars_per_word: Option<u64>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    vocab: Vocab,
}

/// Ids by token, from an object (BPE, WordPiece, WordLevel) or a list of pairs (Unigram).
struct Vocab(HashMap<String, u64>);

impl<'de> Deserialize<'de> for Vocab {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        fn add<E: de::Error>(ids: &mut HashMap<String, u64>, token: String, id: u64) -> Result<(), E> {
            if ids.len() == MAX_VOCABULARY {
                return Err(E::custom(format!("`model.vocab` has more than {MAX_VOCABULARY} entries")));
            }
            match ids.insert(token.clone(), id) {
                None => Ok(()),
                Some(_) => Err(E::custom(format!("`model.vocab`: `{}` occurs twice", show(&token)))),
            }
        }
        impl<'de> Visitor<'de> for V {
            type Value = Vocab;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a vocabulary: an object from token to id, or a list of pairs of token and score")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocab, A::Error> {
                let mut ids = HashMap::new();
                while let Some((token, id)) = map.next_entry()? {
                    add(&mut ids, token, id)?;
                }
                Ok(Vocab(ids))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vocab, A::Error> {
                let mut ids = HashMap::new();
                while let Some((token, IgnoredAny)) = seq.next_element()? {
                    let id = ids.len() as u64;
                    add(&mut ids, token, id)?;
                }
                Ok(Vocab(ids))
            }
        }
        d.deserialize_any(V)
    }
}
