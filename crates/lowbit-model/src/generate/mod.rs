//! Generating text: a prompt in, tokens and text out, with the work on a common begin of prompts done once.

use crate::engine::{Engine, Event, LanguageModel, Settings};
use crate::{Error, Model, Param, Sequences, Tokenizer};
use lowbit_kernels::Cpu;
use lowbit_kernels::ops::CacheKind;
use std::ops::ControlFlow;
use std::sync::Arc;

mod lookup;
mod request;
mod sampler;
mod store;
mod stream;

pub use request::{Draft, Finish, Outcome, Request, Stats};
pub use sampler::Sampling;

pub(crate) use lookup::Lookup;
pub(crate) use sampler::Sampler;
pub(crate) use stream::Stream;

/// Answers one request after the other with one context; a begin that a prompt shares with the text before is not processed
/// again.
pub struct Generator {
    engine: Engine<Sequences>,
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
        Generator { engine: Engine::new(sequences, tokenizer, Settings::default()) }
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
        let id = self.engine.open(request.clone())?;
        // The text that was received, and the tokens it comes from, where the receiver wants no more.
        let (mut received, mut broke) = (String::new(), None);
        loop {
            for event in self.engine.step() {
                let (text, tokens) = match event {
                    Event::Prompt { .. } => (String::new(), 0),
                    Event::Text { text, tokens, .. } => (text, tokens),
                    Event::End { outcome, .. } => {
                        let outcome = outcome?;
                        return Ok(broke.map_or(outcome.clone(), |tokens| cut(outcome, received, tokens)));
                    }
                };
                if broke.is_none() {
                    received.push_str(&text);
                    broke = on_text(&text).is_break().then_some(tokens);
                }
            }
            if let Some(tokens) = broke {
                let outcome = self.engine.close(id).expect("an answer that has not ended is open");
                return Ok(cut(outcome, received, tokens));
            }
        }
    }
}

/// An answer whose receiver wanted no more after some text and tokens.
fn cut(mut outcome: Outcome, text: String, tokens: usize) -> Outcome {
    outcome.tokens.truncate(tokens);
    outcome.stats.decoded_tokens = tokens.saturating_sub(1);
    Outcome { text, finish: Finish::Cancelled, ..outcome }
}
