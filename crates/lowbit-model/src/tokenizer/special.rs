//! The special tokens of a GGUF file, as llama.cpp takes them: by keys of the metadata, and by names.

use super::MAX_VOCABULARY;
use super::spm::Use;
use crate::Error;
use crate::container::gguf::{Gguf, Value};

const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const BOS: &str = "tokenizer.ggml.bos_token_id";
/// Keys of tokens that end a text, the first the most, each with the names that stand in for a missing key.
const ENDS: &[(&str, &[&str])] = &[
    ("tokenizer.ggml.eos_token_id", &[]),
    ("tokenizer.ggml.eot_token_id", &[]),
    ("tokenizer.ggml.eom_token_id", &[]),
    ("tokenizer.ggml.fim_pad_token_id", &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"]),
    ("tokenizer.ggml.fim_rep_token_id", &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"]),
    ("tokenizer.ggml.fim_sep_token_id", &["<|file_sep|>", "<|plamo:file_separator|>"]),
];
/// Names of tokens that end a text whatever the metadata says.
const END_NAMES: &[&str] = &[
    "</s>",
    "<eos>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "[e~[",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<turn|>",
    "<|tool_response>",
    "<end_of_utterance>",
    "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
];
/// Keys of the tokens around a gap to fill, each with the names of control tokens that stand in for a missing key.
const GAP: &[(&str, &[&str])] = &[
    (
        "tokenizer.ggml.fim_pre_token_id",
        &["<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<PRE>", "\u{2581}<PRE>", "<|code_prefix|>", "<|prefix|>"],
    ),
    (
        "tokenizer.ggml.fim_suf_token_id",
        &["<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<SUF>", "\u{2581}<SUF>", "<|code_suffix|>", "<|suffix|>"],
    ),
    (
        "tokenizer.ggml.fim_mid_token_id",
        &["<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<MID>", "\u{2581}<MID>", "<|code_middle|>", "<|middle|>"],
    ),
];
/// Names of control tokens that a reader sees.
const SHOWN: &[&str] = &["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];
/// A name that ends no text where all names of one of these lists do, and what it is for then.
const UNLESS: &[(&str, &[&[&str]], Use)] = &[
    (
        "<|end|>",
        &[
            &["<|return|>", "<|call|>"],
            &["<|return|>", "<|calls|>"],
            &["<|flush|>", "<|call|>"],
            &["<|flush|>", "<|calls|>"],
        ],
        Use::User,
    ),
    ("</s>", &[&["<|tool_response>"]], Use::Normal),
];

/// The tokens of a file and what they are for.
pub(crate) struct Special {
    /// Spelling of each token.
    pub tokens: Vec<String>,
    /// What each token is for.
    pub uses: Vec<Use>,
    /// The token that begins a text.
    pub bos: Option<u32>,
    /// The token that ends a text, by its own key.
    pub eos: Option<u32>,
    /// All tokens that end a text: [`Special::eos`] first, then by id.
    pub ends: Vec<u32>,
    /// Keys that name no token.
    pub notices: Vec<String>,
}

impl Special {
    /// The special tokens of a file; `None` when it holds no vocabulary.
    ///
    /// # Errors
    /// Names file, key and value.
    pub fn read(file: &Gguf) -> Result<Option<Special>, Error> {
        let Some(mut tokens) = file.texts(TOKENS, MAX_VOCABULARY)? else {
            return Ok(None);
        };
        for (i, token) in tokens.iter_mut().enumerate().filter(|(_, token)| token.is_empty()) {
            *token = format!("[EMPTY_{i}]");
        }
        let mut special = Special {
            uses: uses(file, tokens.len())?,
            tokens,
            bos: None,
            eos: None,
            ends: Vec::new(),
            notices: Vec::new(),
        };
        // The ids of sentencepiece's own trainer.
        let own = |special: &Special, id: u32| {
            let control = special.uses.get(id as usize) == Some(&Use::Control);
            (file.text("tokenizer.ggml.model").is_ok_and(|model| model == Some("llama")) && control).then_some(id)
        };
        special.bos = special.keyed(file, BOS)?.or(own(&special, 1));
        special.find_ends(file)?;
        if special.eos.is_none() {
            special.eos = own(&special, 2);
            special.ends.extend(special.eos);
        }
        special.settle();
        Ok(Some(special))
    }

    /// The token of a key, if it is one.
    fn keyed(&mut self, file: &Gguf, key: &str) -> Result<Option<u32>, Error> {
        match file.metadata().get(key) {
            Some(Value::Int(id)) => match usize::try_from(*id).ok().filter(|id| *id < self.tokens.len()) {
                Some(id) => Ok(Some(id as u32)),
                None => {
                    let text = format!(
                        "metadata `{key}` is {id}, but the vocabulary has {} tokens; it is ignored",
                        self.tokens.len()
                    );
                    self.notices.push(format!("{}: {text}", file.path().display()));
                    Ok(None)
                }
            },
            _ => file.count(key).map(|_| None),
        }
    }

    fn find_ends(&mut self, file: &Gguf) -> Result<(), Error> {
        for (key, names) in ENDS {
            let id = self.keyed(file, key)?;
            if *key == ENDS[0].0 {
                self.eos = id;
            }
            self.ends.extend(id);
            if id.is_none() {
                let named = self.named(names);
                self.ends.extend(named);
            }
        }
        for (key, names) in GAP {
            if self.keyed(file, key)?.is_none() {
                self.named(names);
            }
        }
        let named = self.named(END_NAMES);
        self.ends.extend(named);
        Ok(())
    }

    /// Makes the tokens of these names control tokens.
    fn named(&mut self, names: &[&str]) -> Vec<u32> {
        let found = self.tokens.iter().zip(&mut self.uses).enumerate();
        let mut found: Vec<_> = found.filter(|(_, (token, _))| names.contains(&token.as_str())).collect();
        found.iter_mut().for_each(|(_, (_, usage))| **usage = Use::Control);
        found.into_iter().map(|(id, _)| id as u32).collect()
    }

    /// Drops what is no end after all, and orders the ends.
    fn settle(&mut self) {
        let ends = |name: &str| self.ends.iter().any(|id| self.tokens[*id as usize] == name);
        let all = |lists: &[&[&str]]| lists.iter().any(|list| list.iter().all(|name| ends(name)));
        let dropped: Vec<_> = UNLESS.iter().filter(|(name, lists, _)| ends(name) && all(lists)).collect();
        for (token, usage) in self.tokens.iter().zip(&mut self.uses) {
            if SHOWN.contains(&token.as_str()) {
                *usage = Use::User;
            } else if let Some((.., then)) = dropped.iter().find(|(name, ..)| name == token) {
                *usage = *then;
            }
        }
        self.ends.retain(|id| !dropped.iter().any(|(name, ..)| *name == self.tokens[*id as usize]));
        self.ends.sort_unstable_by_key(|id| (Some(*id) != self.eos, *id));
        self.ends.dedup();
    }
}

/// The keys of the token that begins a text and of those that end one. A token that ends a text by its name, which `name` tells,
/// needs no key, and has one only where that is left over.
///
/// # Errors
/// [`Kind::Usage`](crate::Kind) when there are more ends than keys.
pub(crate) fn keys(
    bos: Option<u32>,
    ends: &[u32],
    name: impl Fn(u32) -> Option<String>,
) -> Result<Vec<(&'static str, u32)>, Error> {
    let mut keys: Vec<_> = bos.into_iter().map(|id| (BOS, id)).collect();
    let mut free = ENDS.iter().map(|(key, _)| *key);
    let (eos, others) = ends.split_at(ends.len().min(1));
    keys.extend(eos.iter().copied().zip(&mut free).map(|(id, key)| (key, id)));
    let (named, unnamed): (Vec<u32>, Vec<u32>) =
        others.iter().partition(|id| name(**id).is_some_and(|name| END_NAMES.contains(&name.as_str())));
    if unnamed.len() >= ENDS.len() {
        return Err(Error::usage(format!("GGUF has no place for {} tokens that end a text", ends.len())));
    }
    keys.extend(unnamed.into_iter().zip(&mut free).map(|(id, key)| (key, id)));
    // The other keys have a purpose of their own.
    let free = free.filter(|key| [ENDS[1].0, ENDS[2].0].contains(key));
    keys.extend(named.into_iter().zip(free).map(|(id, key)| (key, id)));
    Ok(keys)
}

/// What each of `count` tokens is for by `tokenizer.ggml.token_type`; a type without a meaning is that of normal text.
fn uses(file: &Gguf, count: usize) -> Result<Vec<Use>, Error> {
    let Some(mut types) = file.numbers(TYPES, MAX_VOCABULARY)? else {
        return Ok(vec![Use::Normal; count]);
    };
    if types.len() < count {
        let text = format!("metadata `{TYPES}` has {} types for {count} tokens", types.len());
        return Err(Error::input(file.path(), text));
    }
    types.truncate(count);
    Ok(types.into_iter().map(|number| Use::of(number as i64).unwrap_or(Use::Normal)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::gguf::{Field, GgufWriter};
    use crate::tokenizer::bpe::spell;
    use serde_json::Value as Json;

    fn numbers<T: serde::de::DeserializeOwned>(value: &Json) -> T {
        serde_json::from_value(value.clone()).expect("golden")
    }

    /// A case of `tools/golden/special_tokens.py`, written as a file.
    fn read(case: &Json, path: &std::path::Path) -> Special {
        let mut tokens: Vec<String> = (0..=255).map(|byte| spell(&[byte])).collect();
        tokens.sort_unstable();
        tokens.extend(numbers::<Vec<String>>(&case["tokens"]));
        let types = [vec![1; 256], numbers(&case["types"])].concat();
        let mut fields = vec![(TOKENS.to_string(), Field::Texts(tokens)), (TYPES.to_string(), Field::Ints(types))];
        let keys = case["keys"].as_object().expect("keys");
        fields.extend(keys.iter().map(|(key, id)| (format!("tokenizer.ggml.{key}"), Field::U32(numbers(id)))));
        GgufWriter::create(path, &fields, Vec::new()).expect("created").finish().expect("written");
        Special::read(&Gguf::open(path).expect("valid")).expect("valid").expect("a vocabulary")
    }

    #[test]
    fn ends_and_control_tokens_are_those_of_llama_cpp() {
        let golden: Json =
            serde_json::from_str(include_str!("../../tests/golden/special_tokens.json")).expect("golden");
        let directory = tempfile::tempdir().expect("a directory");
        for case in golden.as_array().expect("cases") {
            let mut special = read(case, &directory.path().join("x.gguf"));
            let controls: Vec<u32> =
                (0..).zip(&special.uses).filter(|(_, u)| **u == Use::Control).map(|(id, _)| id).collect();
            assert_eq!(controls, numbers::<Vec<u32>>(&case["controls"]), "{case}");
            assert_eq!(special.eos, Some(numbers(&case["keys"]["eos_token_id"])), "{case}");
            assert_eq!(special.ends.first().copied(), special.eos, "{case}");
            special.ends.sort_unstable();
            assert_eq!(special.ends, numbers::<Vec<u32>>(&case["ends"]), "{case}");
        }
    }

    /// Where no key hides what a name says.
    #[test]
    fn what_is_written_ends_the_same_texts() {
        let golden: Json =
            serde_json::from_str(include_str!("../../tests/golden/special_tokens.json")).expect("golden");
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("x.gguf");
        for case in golden.as_array().expect("cases").iter().filter(|case| case["tokens"][0] != "<fim_pad>") {
            let special = read(case, &path);
            let name = |id: u32| special.tokens.get(id as usize).cloned();
            let keys = keys(None, &special.ends, name).expect("enough keys").into_iter();
            let short = |key: &str| key.strip_prefix("tokenizer.ggml.").expect("a key").to_string();
            let mut case = case.clone();
            case["keys"] = keys.map(|(key, id)| (short(key), Json::from(id))).collect();
            assert_eq!(read(&case, &path).ends, special.ends, "{case}");
        }
    }

    #[test]
    fn ends_without_a_key_are_refused() {
        let ends: Vec<u32> = (0..7).collect();
        assert_eq!(keys(Some(9), &ends[..6], |_| None).expect("enough keys").len(), 7);
        assert!(keys(None, &ends, |_| None).expect_err("too many").to_string().contains("no place for 7 tokens"));
        let named = keys(None, &ends, |id| (id > 5).then(|| "</s>".to_string())).expect("one needs no key");
        assert_eq!(named.len(), 6);
    }
}
