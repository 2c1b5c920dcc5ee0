//! From a chat to tokens: added tokens come from the template alone, never from what was said.

use super::{Given, Message, Template, plain};
use crate::{Error, Tokenizer};
use serde_json::Value;
use std::borrow::Cow;

/// The tokens of a chat up to where the model answers. Without a template they are those of the last thing said, to be
/// continued. What spells an added token in a turn, special or not, is text, and so is what a turn and the template spell
/// together.
///
/// # Errors
/// When the template refuses the chat, or the tokenizer a text.
pub fn tokens(tokenizer: &Tokenizer, template: Option<&Template>, messages: &[Message]) -> Result<Vec<u32>, Error> {
    Spelled::chat(template, messages, &[])?.tokens(tokenizer)
}

/// The tokens of a text to continue in which names of added tokens are these tokens, as llama.cpp reads the prompt of a
/// completion.
///
/// # Errors
/// When the tokenizer refuses the text.
pub fn raw_tokens(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, Error> {
    Spelled::raw(text).tokens(tokenizer)
}

/// A prompt before it is encoded.
pub(super) enum Spelled<'a> {
    /// A text that is encoded with what the tokenizer puts around each.
    Text(&'a str),
    /// Parts, and whether names of added tokens in them are these tokens.
    Parts {
        parts: Vec<(Cow<'a, str>, bool)>,
        /// Whether the token that begins every text comes first.
        begins: bool,
    },
}

impl<'a> Spelled<'a> {
    /// A chat up to where the model answers, as in [`tokens`]; it may call these functions.
    ///
    /// # Errors
    /// When the template refuses the chat.
    pub fn chat(template: Option<&Template>, messages: &'a [Message], tools: &[Value]) -> Result<Self, Error> {
        let Some(template) = template else { return Ok(Spelled::Text(plain(messages))) };
        let parts = template.parts(Given { messages, tools, answer: true })?;
        let parts = parts.into_iter().map(|(text, written)| (Cow::Owned(text), written)).collect();
        Ok(Spelled::Parts { parts, begins: template.settings.begins })
    }

    /// A text to continue, as in [`raw_tokens`].
    pub fn raw(text: &'a str) -> Self {
        Spelled::Parts { parts: vec![(Cow::Borrowed(text), true)], begins: true }
    }

    /// Tokens that this has at least, known without encoding it.
    pub fn fewest_tokens(&self, tokenizer: &Tokenizer) -> usize {
        match self {
            Spelled::Text(text) => tokenizer.fewest_tokens([*text]),
            Spelled::Parts { parts, .. } => tokenizer.fewest_tokens(parts.iter().map(|(text, _)| &**text)),
        }
    }

    /// # Errors
    /// When the tokenizer refuses a text.
    pub fn tokens(&self, tokenizer: &Tokenizer) -> Result<Vec<u32>, Error> {
        let (parts, begins) = match self {
            Spelled::Text(text) => return tokenizer.encode(text, usize::MAX),
            Spelled::Parts { parts, begins } => (parts, *begins),
        };
        let parts: Vec<(&str, bool)> = parts.iter().map(|(text, written)| (&**text, *written)).collect();
        let mut ids = tokenizer.encode_parts(&parts)?;
        if let Some(bos) = tokenizer.bos().filter(|bos| begins && ids.first() != Some(bos)) {
            ids.insert(0, bos);
        }
        Ok(ids)
    }
}
