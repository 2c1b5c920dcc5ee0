//! What is asked of a language model, and what it answers.

use super::{Guided, Logprob, Sampling};
use crate::Error;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// Tokens to continue, at least one.
    pub prompt: Vec<u32>,
    /// Tokens of the answer at most; together with the prompt they fit the context.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Texts that end the answer; they and what follows are not part of it.
    pub stop: Vec<String>,
    /// Tokens that end the answer; they are not part of it.
    pub stop_tokens: Vec<u32>,
    /// How tokens are guessed ahead, if they are. The answer is the same.
    pub draft: Option<Draft>,
    /// How many of the most likely tokens are told beside the log-probability of each token; none where none is wanted.
    pub logprobs: Option<usize>,
    /// Whether the same is told of each token of the prompt but its first, which is then processed from its begin.
    pub echo: bool,
    /// What the answer must look like, if not anything will do.
    pub guide: Option<Guided>,
    /// Control tokens that add their names to the text; all others add nothing.
    pub shown: Vec<(u32, String)>,
}

/// How tokens are guessed ahead; several are then checked in one pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draft {
    /// What followed the last time the text ended with the same tokens.
    Ngram,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The text; what is no UTF-8 is U+FFFD.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// What the model gave to each of them, where that was asked for; the token that ended the answer is not among them.
    pub logprobs: Vec<Logprob>,
    /// Why it ended.
    pub finish: Finish,
    /// What it took.
    pub stats: Stats,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// A stop text or token came.
    Stop,
    /// It has as many tokens as were asked for.
    Length,
    /// The receiver of the text wanted no more.
    Cancelled,
}

impl Finish {
    /// The word of records: `stop`, `length`, `cancelled`.
    pub fn name(self) -> &'static str {
        match self {
            Finish::Stop => "stop",
            Finish::Length => "length",
            Finish::Cancelled => "cancelled",
        }
    }
}

/// What an answer took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of them that were processed before.
    pub cached_tokens: usize,
    /// Seconds to process the others.
    pub prompt_seconds: f64,
    /// Seconds from the request to the first token.
    pub ttft_seconds: f64,
    /// Tokens after the first.
    pub decoded_tokens: usize,
    /// Seconds from the first token to the end.
    pub decode_seconds: f64,
    /// Tokens guessed.
    pub drafted: usize,
    /// Guesses that were right.
    pub accepted: usize,
}

impl Request {
    /// Refuses what has no meaning or does not fit a context.
    pub(crate) fn check(&self, context: usize) -> Result<(), Error> {
        self.sampling.check()?;
        let (prompt, more) = (self.prompt.len(), self.max_tokens);
        if prompt == 0 {
            return Err(Error::usage("the prompt is empty; give at least one token"));
        }
        if more == 0 {
            return Err(Error::usage("an answer of 0 tokens; ask for at least 1"));
        }
        if self.stop.iter().any(String::is_empty) {
            return Err(Error::usage("a stop text is empty; it would end every answer"));
        }
        if more > context || prompt > context - more {
            let text =
                format!("a prompt of {prompt} tokens and an answer of {more} exceed the context of {context} tokens");
            return Err(Error::usage(format!("{text}; shorten them or raise the context")));
        }
        Ok(())
    }
}
