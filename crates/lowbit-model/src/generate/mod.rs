//! Generating text: a prompt in, tokens and text out, with the work on a common begin of prompts done once.

use crate::engine::{Engine, Event, Id, LanguageModel, Settings};
use crate::{Error, Model, Param, Sequences, Tokenizer};
use lowbit_kernels::Cpu;
use lowbit_kernels::ops::CacheKind;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

mod guide;
mod logprobs;
mod lookup;
mod request;
mod sampler;
mod store;
mod stream;

pub use guide::{Guide, Guided};
pub use logprobs::Logprob;
pub use request::{Draft, Finish, Outcome, Request, Stats};
pub use sampler::Sampling;

pub(crate) use lookup::Lookup;
pub(crate) use sampler::Sampler;
pub(crate) use stream::Stream;

/// Answers one request after the other with one context; a begin that a prompt shares with the text before is not processed
/// again.
pub struct Generator {
    engine: Engine<Sequences>,
    current: Option<Current>,
}

/// The answer under way.
struct Current {
    id: Id,
    /// What the last step brought and nobody took yet.
    events: VecDeque<Event>,
    /// Text that was taken, and the tokens it comes from.
    received: String,
    tokens: usize,
}

/// What [`Generator::advance`] brings.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// Text in whole characters, after each token and each piece of the prompt; often none.
    Text(String),
    /// The answer is complete.
    Done(Outcome),
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
        let sequences = Sequences::new(model, cpu, context, kind);
        Generator { engine: Engine::new(sequences, tokenizer, Settings::default()), current: None }
    }

    /// Most tokens of prompt and answer together.
    pub fn context(&self) -> usize {
        self.engine.model().context()
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
        self.begin(request.clone())?;
        loop {
            match self.advance()? {
                Progress::Done(outcome) => return Ok(outcome),
                Progress::Text(text) if on_text(&text).is_break() => return self.cancel(),
                Progress::Text(_) => {}
            }
        }
    }

    /// Begins to continue a prompt, in place of the answer under way; [`Generator::advance`] brings the answer.
    ///
    /// # Errors
    /// As [`Generator::generate`].
    pub fn begin(&mut self, request: Request) -> Result<(), Error> {
        if let Some(current) = self.current.take() {
            self.engine.close(current.id);
        }
        let id = self.engine.open(request)?;
        self.current = Some(Current { id, events: VecDeque::new(), received: String::new(), tokens: 0 });
        Ok(())
    }

    /// The next piece of the answer under way.
    ///
    /// # Errors
    /// When none is under way, or it fails, which ends it.
    pub fn advance(&mut self) -> Result<Progress, Error> {
        let current = self.current.as_mut().ok_or_else(no_answer)?;
        while current.events.is_empty() {
            current.events.extend(self.engine.step());
        }
        let (text, tokens) = match current.events.pop_front().expect("not empty") {
            Event::Prompt { .. } => (String::new(), 0),
            Event::Text { text, tokens, .. } => (text, tokens),
            Event::End { outcome, .. } => {
                self.current = None;
                return outcome.map(Progress::Done);
            }
        };
        current.received.push_str(&text);
        current.tokens = tokens;
        Ok(Progress::Text(text))
    }

    /// Ends the answer under way; it has the text that was received.
    ///
    /// # Errors
    /// When none is under way, or it failed.
    pub fn cancel(&mut self) -> Result<Outcome, Error> {
        let Current { id, mut events, received, tokens } = self.current.take().ok_or_else(no_answer)?;
        let outcome = match events.pop_back() {
            Some(Event::End { outcome, .. }) => outcome?,
            _ => self.engine.close(id).expect("an answer that has not ended is open"),
        };
        Ok(cut(outcome, received, tokens))
    }
}

fn no_answer() -> Error {
    Error::usage("no answer is under way; begin one")
}

/// An answer whose receiver wanted no more after some text and tokens.
fn cut(mut outcome: Outcome, text: String, tokens: usize) -> Outcome {
    outcome.tokens.truncate(tokens);
    outcome.logprobs.truncate(tokens);
    outcome.stats.decoded_tokens = tokens.saturating_sub(1);
    Outcome { text, finish: Finish::Cancelled, ..outcome }
}
