//! What each token of a vocabulary stands for: its bytes in a text, and the names of control tokens.

use super::bytes::letter;
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// The space of sentencepiece and Metaspace.
pub(super) const SPACE: char = '\u{2581}';

/// The bytes of every token, and which of them are control tokens.
#[derive(Default)]
pub(super) struct Pieces {
    data: Vec<u8>,
    /// End of each token's bytes.
    ends: Vec<u32>,
    control: Vec<bool>,
    /// Names of the control tokens, by id.
    names: Vec<(String, u32)>,
}

impl Pieces {
    /// Appends the next token.
    pub fn push(&mut self, bytes: &[u8]) {
        self.data.extend_from_slice(bytes);
        self.ends.push(self.data.len() as u32);
        self.control.push(false);
    }

    /// Appends a control token, which stands for no text.
    pub fn push_control(&mut self, name: &str) {
        let id = self.ends.len() as u32;
        self.push(&[]);
        self.control[id as usize] = true;
        if !name.is_empty() {
            self.names.push((name.into(), id));
        }
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of a token; none for a control token.
    pub fn get(&self, id: u32) -> Option<&[u8]> {
        let id = id as usize;
        let end = *self.ends.get(id)? as usize;
        let start = if id == 0 { 0 } else { self.ends[id - 1] as usize };
        Some(&self.data[start..end])
    }

    /// The bytes of each token.
    fn all(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len() as u32).filter_map(|id| self.get(id))
    }

    /// Bytes of the longest token.
    pub fn longest(&self) -> usize {
        self.all().map(<[u8]>::len).max().unwrap_or(0)
    }

    /// Whether every byte is a token.
    pub fn has_bytes(&self) -> bool {
        let single: HashSet<u8> = self.all().filter(|bytes| bytes.len() == 1).map(|bytes| bytes[0]).collect();
        single.len() == 256
    }

    pub fn is_control(&self, id: u32) -> bool {
        self.control.get(id as usize).is_some_and(|control| *control)
    }

    /// Names and ids of the control tokens, by id.
    pub fn controls(&self) -> Vec<(&str, u32)> {
        self.names.iter().map(|(name, id)| (name.as_str(), *id)).collect()
    }

    /// The pieces of a tokenizer of the Hub's library, read by its own decoder.
    pub fn of_hub(hub: &tokenizers::Tokenizer) -> Self {
        let decoder = hub.get_decoder().and_then(|d| serde_json::to_value(d).ok()).unwrap_or_default();
        let spelling = Spelling::of(&decoder);
        let added = hub.get_added_tokens_decoder();
        let mut pieces = Pieces::default();
        for id in 0..hub.get_vocab_size(true) as u32 {
            match (added.get(&id), hub.id_to_token(id)) {
                (Some(token), _) if token.special => pieces.push_control(&token.content),
                (Some(token), _) => pieces.push(token.content.as_bytes()),
                (None, Some(token)) => pieces.push(&spelling.bytes(&token)),
                (None, None) => pieces.push(&[]),
            }
        }
        pieces
    }
}

/// How the vocabulary of a tokenizer of the Hub spells bytes.
enum Spelling {
    /// A letter per byte (GPT-2).
    Letters(HashMap<char, u8>),
    /// A mark for a space, and perhaps `<0xAB>` for a byte.
    Marks {
        mark: char,
        bytes: bool,
    },
    /// A prefix for what continues a word.
    Continued(String),
    /// A suffix for what ends a word.
    Ended(String),
    Plain,
}

impl Spelling {
    fn of(decoder: &Value) -> Self {
        let steps = match decoder["decoders"].as_array() {
            Some(steps) => steps.clone(),
            None => vec![decoder.clone()],
        };
        let find = |kind: &str| steps.iter().find(|step| step["type"] == kind);
        let text = |value: &Value, default: &str| value.as_str().unwrap_or(default).to_string();
        let bytes = find("ByteFallback").is_some();
        if find("ByteLevel").is_some() {
            Spelling::Letters(letters())
        } else if let Some(step) = find("Metaspace") {
            Spelling::Marks { mark: text(&step["replacement"], "").chars().next().unwrap_or(SPACE), bytes }
        } else if bytes || find("Replace").is_some() {
            Spelling::Marks { mark: SPACE, bytes }
        } else if let Some(step) = find("WordPiece") {
            Spelling::Continued(text(&step["prefix"], "##"))
        } else if let Some(step) = find("BPEDecoder") {
            Spelling::Ended(text(&step["suffix"], "</w>"))
        } else {
            Spelling::Plain
        }
    }

    fn bytes(&self, token: &str) -> Vec<u8> {
        match self {
            Spelling::Letters(letters) => unspell(letters, token),
            Spelling::Marks { mark, bytes } => match byte_token(token).filter(|_| *bytes) {
                Some(byte) => vec![byte],
                None => token.replace(*mark, " ").into_bytes(),
            },
            Spelling::Continued(prefix) => match token.strip_prefix(prefix.as_str()) {
                Some(rest) => rest.as_bytes().to_vec(),
                None => format!(" {token}").into_bytes(),
            },
            Spelling::Ended(suffix) => token.replace(suffix.as_str(), " ").into_bytes(),
            Spelling::Plain => token.as_bytes().to_vec(),
        }
    }
}

/// The byte of each letter of GPT-2's alphabet.
pub(super) fn letters() -> HashMap<char, u8> {
    (0..=255u8).map(|byte| (letter(byte), byte)).collect()
}

/// The bytes of a token spelled in GPT-2's letters; other letters stand for themselves.
pub(super) fn unspell(letters: &HashMap<char, u8>, token: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(token.len());
    for c in token.chars() {
        match letters.get(&c) {
            Some(byte) => out.push(*byte),
            None => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out
}

/// The byte of a token `<0xAB>`.
pub(super) fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}
