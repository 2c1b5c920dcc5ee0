//! Generating text: a prompt in, tokens and text out, with the work on a common begin of prompts done once.

use crate::cpu::PIECE;
use crate::{Error, Model, Param, Session, Tokenizer};
use lowbit_kernels::Cpu;
use lowbit_kernels::ops::CacheKind;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

mod lookup;
mod sampler;
mod store;
mod stream;

pub use sampler::Sampling;

use lookup::Lookup;
use sampler::Sampler;
use stream::Stream;

/// Tokens of the pass that is compared with passes of one token before guesses are trusted.
const PROBE: usize = 3;

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

/// Answers one request after the other with one context; a begin that a prompt shares with the text before is not processed
/// again.
pub struct Generator {
    model: Arc<Model<Param>>,
    tokenizer: Arc<Tokenizer>,
    cpu: Cpu,
    kind: CacheKind,
    session: Session,
    /// The tokens in the session.
    fed: Vec<u32>,
    /// Whether passes of several tokens give the bits of passes of one; known once it was asked.
    exact: Option<bool>,
}

/// An answer that is being made.
struct Answer<'a> {
    request: &'a Request,
    tokenizer: &'a Tokenizer,
    tokens: Vec<u32>,
    stream: Stream,
    on_text: &'a mut dyn FnMut(&str) -> ControlFlow<()>,
}

impl Answer<'_> {
    /// Takes the next token; why the answer ends with it, if it does.
    fn take(&mut self, token: u32) -> Option<Finish> {
        if self.request.stop_tokens.contains(&token) {
            return Some(self.end(Finish::Stop));
        }
        self.tokens.push(token);
        let (text, stopped) = self.stream.push(self.tokenizer.token_bytes(token).unwrap_or_default());
        let go_on = (self.on_text)(text).is_continue();
        match (go_on, stopped) {
            (_, true) => Some(Finish::Stop),
            (false, _) => Some(Finish::Cancelled),
            _ if self.tokens.len() >= self.request.max_tokens => Some(self.end(Finish::Length)),
            _ => None,
        }
    }

    /// Releases what was held back.
    fn end(&mut self, finish: Finish) -> Finish {
        let rest = self.stream.finish();
        if !rest.is_empty() && (self.on_text)(rest).is_break() {
            return Finish::Cancelled;
        }
        finish
    }
}

impl Generator {
    /// A generator with an empty context of `context` tokens; keys and values are stored as [`CacheKind::default`].
    pub fn new(model: Arc<Model<Param>>, tokenizer: Arc<Tokenizer>, cpu: Cpu, context: usize) -> Self {
        Self::with_cache(model, tokenizer, cpu, context, CacheKind::default())
    }

    /// The same with keys and values stored as `kind`.
    pub fn with_cache(
        model: Arc<Model<Param>>,
        tokenizer: Arc<Tokenizer>,
        cpu: Cpu,
        context: usize,
        kind: CacheKind,
    ) -> Self {
        let session = Session::with_cache(model.clone(), cpu.clone(), context, kind);
        Generator { model, tokenizer, cpu, kind, session, fed: Vec::new(), exact: None }
    }

    /// Most tokens of prompt and answer together.
    pub fn context(&self) -> usize {
        self.session.context()
    }

    /// Continues a prompt. `on_text` gets the text as it comes, in whole characters, after each token and each piece of the
    /// prompt, then often an empty one; with `Break` the answer ends.
    ///
    /// # Errors
    /// When the prompt is empty or does not fit the context together with the answer, a token is outside the vocabulary, a
    /// value of the request has no meaning, guesses would change the answer, or the model is no causal language model.
    pub fn generate(
        &mut self,
        request: &Request,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Outcome, Error> {
        let start = Instant::now();
        self.check(request)?;
        let mut stats = Stats { prompt_tokens: request.prompt.len(), ..Stats::default() };
        let same = self.fed.iter().zip(&request.prompt).take_while(|(a, b)| a == b).count();
        stats.cached_tokens = same.min(request.prompt.len() - 1);
        self.keep(stats.cached_tokens);
        let (stream, tokenizer) = (Stream::new(request.stop.clone()), self.tokenizer.clone());
        let mut answer = Answer { request, tokenizer: &tokenizer, tokens: Vec::new(), stream, on_text };
        let mut sampler = Sampler::new(request.sampling.clone());
        sampler.observe(&request.prompt);
        self.session.want(sampler.wanted());
        let first = self.read_prompt(&mut answer, &mut sampler)?;
        stats.prompt_seconds = start.elapsed().as_secs_f64();
        stats.ttft_seconds = stats.prompt_seconds;
        let finish = match first {
            None => Finish::Cancelled,
            Some(first) => {
                let finish = self.decode(first, &mut answer, &mut sampler, &mut stats);
                self.keep(self.fed.len());
                stats.decode_seconds = start.elapsed().as_secs_f64() - stats.ttft_seconds;
                finish?
            }
        };
        stats.decoded_tokens = answer.tokens.len().saturating_sub(1);
        Ok(Outcome { tokens: answer.tokens, text: answer.stream.into_text(), finish, stats })
    }

    /// Processes what of the prompt is new; the first token of the answer, or `None` when nobody waits for it any more.
    fn read_prompt(&mut self, answer: &mut Answer, sampler: &mut Sampler) -> Result<Option<u32>, Error> {
        let new = &answer.request.prompt[self.fed.len()..];
        let pieces = new.len().div_ceil(PIECE);
        for (i, piece) in new.chunks(PIECE).enumerate() {
            let logits = self.session.feed(piece)?;
            self.fed.extend_from_slice(piece);
            if i + 1 == pieces {
                return sampler.pick(logits).map(Some);
            }
            if (answer.on_text)("").is_break() {
                break;
            }
        }
        Ok(None)
    }

    /// Makes the answer from its first token on.
    fn decode(
        &mut self,
        first: u32,
        answer: &mut Answer,
        sampler: &mut Sampler,
        stats: &mut Stats,
    ) -> Result<Finish, Error> {
        let (mut next, mut lookup, mut pass) = (first, Lookup::new(), Vec::new());
        let mut text = if answer.request.draft.is_some() { answer.request.prompt.clone() } else { Vec::new() };
        loop {
            if let Some(finish) = answer.take(next) {
                return Ok(finish);
            }
            pass.clear();
            if answer.request.draft.is_some() {
                text.push(next);
                // The last token of the answer is not worth a guess: it is drawn in any case.
                lookup.guess(&text, answer.request.max_tokens - answer.tokens.len() - 1, &mut pass);
            }
            pass.insert(0, next);
            sampler.observe(&[next]);
            let logits = self.session.feed_all(&pass)?;
            self.fed.push(next);
            let (guesses, mut rows) = (&pass[1..], logits.chunks_exact(logits.len() / pass.len()));
            let mut right = 0;
            let finish = loop {
                next = sampler.pick(rows.next().expect("a row for each token of the pass"))?;
                if guesses.get(right) != Some(&next) {
                    break None;
                }
                right += 1;
                self.fed.push(next);
                if let Some(finish) = answer.take(next) {
                    break Some(finish);
                }
                text.push(next);
                sampler.observe(&[next]);
            };
            self.session.truncate(self.fed.len());
            if !guesses.is_empty() {
                lookup.learn(right);
            }
            (stats.drafted, stats.accepted) = (stats.drafted + guesses.len(), stats.accepted + right);
            if let Some(finish) = finish {
                return Ok(finish);
            }
        }
    }

    /// Keeps the first tokens of the context.
    fn keep(&mut self, tokens: usize) {
        self.fed.truncate(tokens);
        self.session.truncate(tokens);
    }

    fn check(&mut self, request: &Request) -> Result<(), Error> {
        request.sampling.check()?;
        let (prompt, more, context) = (request.prompt.len(), request.max_tokens, self.context());
        if prompt == 0 {
            return Err(Error::usage("the prompt is empty; give at least one token"));
        }
        if more == 0 {
            return Err(Error::usage("an answer of 0 tokens; ask for at least 1"));
        }
        if request.stop.iter().any(String::is_empty) {
            return Err(Error::usage("a stop text is empty; it would end every answer"));
        }
        if more > context || prompt > context - more {
            let text =
                format!("a prompt of {prompt} tokens and an answer of {more} exceed the context of {context} tokens");
            return Err(Error::usage(format!("{text}; shorten them or raise the context")));
        }
        if request.draft.is_some() && !self.is_exact()? {
            let text = "guesses would change the answer: products of several tokens are rounded differently from products of \
                        one in this model's formats";
            return Err(Error::usage(format!("{text}; use an integer recipe, or no draft")));
        }
        Ok(())
    }

    /// Whether passes of several tokens give the bits of passes of one.
    fn is_exact(&mut self) -> Result<bool, Error> {
        if let Some(exact) = self.exact {
            return Ok(exact);
        }
        let session = || Session::with_cache(self.model.clone(), self.cpu.clone(), PROBE, self.kind);
        let tokens = [0; PROBE];
        let (mut all, mut one) = (session(), session());
        let together = all.feed_all(&tokens)?;
        let mut exact = true;
        for (token, row) in tokens.iter().zip(together.chunks_exact(together.len() / PROBE)) {
            let alone = one.feed(std::slice::from_ref(token))?;
            exact &= alone.iter().zip(row).all(|(a, b)| a.to_bits() == b.to_bits());
        }
        self.exact = Some(exact);
        Ok(exact)
    }
}
