//! Tokens and what the model gave to them, as clients read them.

use crate::served::Served;
use lowbit_model::generate::Logprob;
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

/// A token with its log-probability.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct TokenLogprob {
    /// The text; where its bytes are no text by themselves, with U+FFFD.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The bytes of the text.
    pub bytes: Vec<u8>,
    /// The most likely tokens at this place.
    pub top_logprobs: Vec<TopLogprob>,
}

/// A likely token.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct TopLogprob {
    /// The text.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The bytes of the text.
    pub bytes: Vec<u8>,
}

impl Served {
    /// The bytes that a token stands for, of control tokens their name.
    pub(crate) fn token_bytes(&self, token: u32) -> &[u8] {
        match self.controls.get(&token) {
            Some(name) => name.as_bytes(),
            None => self.tokenizer.token_bytes(token).unwrap_or_default(),
        }
    }

    fn token_text(&self, token: u32) -> String {
        String::from_utf8_lossy(self.token_bytes(token)).into_owned()
    }

    /// As `logprobs.content` has it.
    pub(crate) fn told(&self, logprob: &Logprob) -> TokenLogprob {
        let top = |(token, logprob): &(u32, f32)| TopLogprob {
            token: self.token_text(*token),
            logprob: finite(*logprob),
            bytes: self.token_bytes(*token).to_vec(),
        };
        TokenLogprob {
            token: self.token_text(logprob.token),
            logprob: finite(logprob.logprob),
            bytes: self.token_bytes(logprob.token).to_vec(),
            top_logprobs: logprob.top.iter().map(top).collect(),
        }
    }
}

/// JSON has no infinity; OpenAI writes -9999 for what cannot come.
fn finite(logprob: f32) -> f32 {
    logprob.max(-9999.0)
}

/// Log-probabilities of a completion, in the legacy form and in that of chats.
pub(crate) struct Legacy<'a> {
    served: &'a Served,
    tokens: Vec<Value>,
    logprobs: Vec<Value>,
    top: Vec<Value>,
    offsets: Vec<Value>,
    content: Vec<Value>,
}

impl<'a> Legacy<'a> {
    /// Nothing yet.
    pub fn new(served: &'a Served) -> Self {
        let (tokens, logprobs, top, offsets, content) = Default::default();
        Legacy { served, tokens, logprobs, top, offsets, content }
    }

    /// A token without a log-probability: the first of a prompt.
    pub fn first(&mut self, token: u32, offset: &mut usize) {
        self.place(token, offset);
        self.logprobs.push(Value::Null);
        self.top.push(Value::Null);
    }

    /// A token and what the model gave to it.
    pub fn push(&mut self, logprob: &Logprob, offset: &mut usize) {
        self.place(logprob.token, offset);
        self.logprobs.push(json!(finite(logprob.logprob)));
        // The token itself is among the most likely ones, or comes after them; of two with one text the likelier stays.
        let all = logprob.top.iter().copied().chain([(logprob.token, logprob.logprob)]);
        let mut top = Map::new();
        for (token, logprob) in all {
            top.entry(self.served.token_text(token)).or_insert_with(|| json!(finite(logprob)));
        }
        self.top.push(Value::Object(top));
        self.content.push(json!(self.served.told(logprob)));
    }

    fn place(&mut self, token: u32, offset: &mut usize) {
        let bytes = self.served.token_bytes(token);
        self.tokens.push(json!(String::from_utf8_lossy(bytes)));
        self.offsets.push(json!(*offset));
        // Characters are counted at their first bytes.
        *offset += bytes.iter().filter(|byte| **byte & 0xc0 != 0x80).count();
    }

    /// The object of the answer.
    pub fn object(self) -> Value {
        json!({
            "tokens": self.tokens,
            "token_logprobs": self.logprobs,
            "top_logprobs": self.top,
            "text_offset": self.offsets,
            "content": self.content,
        })
    }
}
