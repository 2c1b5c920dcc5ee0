//! What a `tokenizer.json` must satisfy before the tokenizer crate sees it: small, dense, unique vocabularies; lengths
//! that can be allocated.

use super::MAX_VOCABULARY;
use crate::container::show;
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::collections::HashMap;
use std::fmt;

/// Checks a file; tells whether its model says to be byte-pair encoding.
///
/// # Errors
/// A sentence naming field, value and limit.
pub(super) fn check(json: &str) -> Result<bool, String> {
    let file: File = serde_json::from_str(json).map_err(|e| format!("not a tokenizer.json: {e}"))?;
    for (field, length) in [("truncation.max_length", file.truncation.and_then(|t| t.max_length))]
        .into_iter()
        .chain([("padding.strategy.Fixed", file.padding.and_then(|p| p.fixed()))])
    {
        if let Some(length) = length.filter(|n| *n > MAX_VOCABULARY as u64) {
            return Err(format!("`{field}` is {length}, more than {MAX_VOCABULARY}"));
        }
    }
    let mut ids = file.model.vocab.0;
    for (i, token) in file.added_tokens.into_iter().enumerate() {
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
    Ok(file.model.kind.as_deref() == Some("BPE"))
}

#[derive(serde::Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Added>,
    truncation: Option<Truncation>,
    padding: Option<Padding>,
    model: Model,
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
    strategy: Option<serde_json::Value>,
}

impl Padding {
    fn fixed(self) -> Option<u64> {
        self.strategy?.get("Fixed")?.as_u64()
    }
}

#[derive(serde::Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
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
