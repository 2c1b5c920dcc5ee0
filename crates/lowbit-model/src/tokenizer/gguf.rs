//! The vocabulary of a GGUF file, read and written.

use super::special::Special;
use super::spm::{Space, Use};
use super::{MAX_VOCABULARY, Tokenizer, Vocabulary};
use crate::Error;
use crate::container::gguf::{Field, Gguf};
use std::collections::BTreeMap;

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
const PREFIX: &str = "tokenizer.ggml.add_space_prefix";
const SQUEEZE: &str = "tokenizer.ggml.remove_extra_whitespaces";

/// Variables of chat templates, and the keys of their tokens beside those of begin and end.
const VARIABLES: [(&str, &str); 5] = [
    ("unk_token", "tokenizer.ggml.unknown_token_id"),
    // The format spells it so.
    ("sep_token", "tokenizer.ggml.seperator_token_id"),
    ("pad_token", "tokenizer.ggml.padding_token_id"),
    ("cls_token", "tokenizer.ggml.cls_token_id"),
    ("mask_token", "tokenizer.ggml.mask_token_id"),
];

/// Spellings of the tokens of a GGUF file by the variables of chat templates that stand for them.
///
/// # Errors
/// Names file, key and value.
pub(crate) fn variables(file: &Gguf, special: &Special) -> Result<BTreeMap<String, String>, Error> {
    let mut ids = vec![("bos_token", special.bos), ("eos_token", special.eos)];
    for (name, key) in VARIABLES {
        ids.push((name, file.count(key)?.and_then(|id| u32::try_from(id).ok())));
    }
    let spelled = |id: Option<u32>| special.tokens.get(id? as usize).cloned();
    Ok(ids.into_iter().filter_map(|(name, id)| Some((name.to_string(), spelled(id)?))).collect())
}

/// The metadata of a GGUF file from which [`variables`] reads these tokens; those outside of the vocabulary have none.
pub(crate) fn variable_fields(tokens: &BTreeMap<String, String>, tokenizer: &Tokenizer) -> Vec<(String, Field)> {
    let field = |(name, key): (&str, &str)| Some((key.into(), Field::U32(tokenizer.id(tokens.get(name)?)?)));
    VARIABLES.into_iter().filter_map(field).collect()
}

impl Tokenizer {
    /// The tokenizer of a GGUF file: sentencepiece (`llama`) or byte-level BPE (`gpt2`).
    ///
    /// # Errors
    /// Names file, key or token, and value.
    pub fn from_gguf(file: &Gguf) -> Result<Self, Error> {
        let at = |text: String| Error::input(file.path(), text);
        let missing = |key: &str| at(format!("holds no vocabulary: metadata `{key}` is missing"));
        let model = file.text(MODEL)?.ok_or_else(|| missing(MODEL))?;
        let pre = file.text(PRE)?.unwrap_or("");
        let Special { tokens, uses, bos, eos, .. } = Special::read(file)?.ok_or_else(|| missing(TOKENS))?;
        let mut scores = file.numbers(SCORES, MAX_VOCABULARY)?.unwrap_or_else(|| vec![0.0; tokens.len()]);
        scores.truncate(tokens.len());
        let merges = file.texts(MERGES, 8 * MAX_VOCABULARY)?.unwrap_or_default();
        let pair = |(i, merge): (usize, String)| {
            // The first letter is never the separator.
            let middle = merge.char_indices().skip(1).find(|(_, c)| *c == ' ').map(|(at, _)| at);
            let middle = middle.ok_or_else(|| at(format!("metadata `{MERGES}`: merge {i} is not a pair")))?;
            Ok((merge[..middle].to_string(), merge[middle + 1..].to_string()))
        };
        let merges = merges.into_iter().enumerate().map(pair).collect::<Result<_, Error>>()?;
        let vocabulary = Vocabulary {
            uses,
            scores: scores.into_iter().map(|score| score as f32).collect(),
            merges,
            bos,
            eos,
            add_bos: file.flag(ADD_BOS)?.unwrap_or_else(|| Tokenizer::adds_bos(model, pre)),
            add_eos: file.flag(ADD_EOS)?.unwrap_or(false),
            added: Vec::new(),
            space: if file.flag(PREFIX)?.unwrap_or(model == "llama") { Space::Each } else { Space::None },
            squeeze: file.flag(SQUEEZE)?.unwrap_or(false),
            tokens,
        };
        Tokenizer::from_vocabulary(model, pre, vocabulary).map_err(at)
    }

    /// The metadata of a GGUF file that holds this tokenizer for a table of `rows` vectors; vectors without a token get
    /// names of their own.
    ///
    /// # Errors
    /// When GGUF has no place for a part of it.
    pub fn gguf_fields(&self, rows: usize) -> Result<Vec<(String, Field)>, Error> {
        let (model, pre, mut v) = self.vocabulary()?;
        for i in v.tokens.len()..rows {
            v.tokens.push(format!("[PAD{i}]"));
            v.uses.push(Use::Unused);
            if model == "llama" {
                v.scores.push(-1000.0);
            }
        }
        let mut fields = vec![
            (MODEL, Field::Text(model.into())),
            (PRE, Field::Text(pre.into())),
            (TOKENS, Field::Texts(v.tokens)),
            (TYPES, Field::Ints(v.uses.iter().map(|usage| usage.number()).collect())),
            (ADD_BOS, Field::Bool(v.add_bos)),
            (ADD_EOS, Field::Bool(v.add_eos)),
        ];
        fields.extend(v.add_eos.then_some((ADD_EOS, Field::Bool(true))));
        if model == "llama" {
            let spaces = [(PREFIX, Field::Bool(v.space != Space::None)), (SQUEEZE, Field::Bool(v.squeeze))];
            fields.extend([(SCORES, Field::Floats(v.scores))].into_iter().chain(spaces));
        } else {
            let merges = v.merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
            fields.push((MERGES, Field::Texts(merges)));
        }
        let ids = [(BOS, v.bos), (EOS, v.eos)];
        fields.extend(ids.into_iter().filter_map(|(key, id)| Some((key, Field::U32(id?)))));
        Ok(fields.into_iter().map(|(key, field)| (key.to_string(), field)).collect())
    }
}
