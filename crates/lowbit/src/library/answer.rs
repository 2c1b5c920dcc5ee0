//! One question and its answer, piece by piece.

use super::{Error, Model};
use lowbit_base::Stop;
use lowbit_model::chat::{AnswerOptions, ChatSession, PromptFormat};
use lowbit_model::generate::{Outcome, Progress, Sampling};

/// A question on its way to a model, and how it is to be answered.
#[must_use = "nothing is asked before `stream` or `text`"]
pub struct Ask<'a> {
    model: &'a Model,
    format: PromptFormat,
    text: String,
    system: Option<String>,
    options: AnswerOptions,
}

impl<'a> Ask<'a> {
    pub(super) fn new(model: &'a Model, format: PromptFormat, text: String) -> Self {
        Ask { model, format, text, system: None, options: AnswerOptions::default() }
    }

    /// Instructs the model first; only a chat template has a place for it.
    pub fn system(self, text: impl Into<String>) -> Self {
        Ask { system: Some(text.into()), ..self }
    }

    /// An answer of so many tokens at most [default: until the model ends it or the context is full].
    pub fn max_tokens(mut self, tokens: usize) -> Self {
        self.options.max_tokens = Some(tokens);
        self
    }

    /// Randomness of the answer; 0 takes the most likely token [default: 0.8].
    pub fn temperature(mut self, temperature: f32) -> Self {
        self.options.sampling.temperature = temperature;
        self
    }

    /// Seed of the draws: the same question with the same seed has the same answer [default: 0].
    pub fn seed(mut self, seed: u64) -> Self {
        self.options.sampling.seed = seed;
        self
    }

    /// How tokens are drawn, in all detail [default: [`Sampling::chat`]].
    pub fn sampling(mut self, sampling: Sampling) -> Self {
        self.options.sampling = sampling;
        self
    }

    /// Ends the answer before this text.
    pub fn stop_text(mut self, text: impl Into<String>) -> Self {
        self.options.stop.push(text.into());
        self
    }

    /// The answer as it comes. The network is loaded now, if it was not before.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the model is no language model or a system message has no place; [`Error::Memory`] when
    /// it does not fit; [`Error::Input`] when its data are corrupt; [`Error::ContextFull`] when the question leaves no room;
    /// [`Error::Request`] when a setting is out of range.
    pub fn stream(self) -> Result<Answer, Error> {
        let mut session = self.model.session_of(self.format, self.options)?;
        if self.system.is_some() && !session.model().has_template() {
            return Err(Error::Unsupported("a system message needs a model with a chat template".into()));
        }
        session.instruct(self.system);
        session.begin(self.text)?;
        Ok(Answer { session, stop: self.model.stop().clone(), outcome: None, has_ended: false })
    }

    /// The whole text of the answer.
    ///
    /// # Errors
    /// As [`Ask::stream`], and what fails on the way.
    pub fn text(self) -> Result<String, Error> {
        self.stream()?.collect()
    }
}

/// An answer as it comes: pieces of text in whole characters. Dropping it ends it.
pub struct Answer {
    session: ChatSession,
    stop: Stop,
    outcome: Option<Outcome>,
    has_ended: bool,
}

impl Answer {
    /// The complete answer once there is one: text, tokens, why it ended, times. After a stop it has what was received.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// The chat, to go on with: this question and, once it is complete, its answer.
    pub fn into_session(self) -> ChatSession {
        self.session
    }

    fn step(&mut self) -> Result<Option<String>, Error> {
        loop {
            if self.stop.is_set() {
                self.outcome = Some(self.session.cancel()?);
                return Err(Error::Stopped);
            }
            match self.session.advance()? {
                Progress::Text(text) if text.is_empty() => {}
                Progress::Text(text) => return Ok(Some(text)),
                Progress::Done(outcome) => {
                    self.outcome = Some(outcome);
                    return Ok(None);
                }
            }
        }
    }
}

impl Iterator for Answer {
    type Item = Result<String, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_ended {
            return None;
        }
        let step = self.step().transpose();
        self.has_ended = !matches!(step, Some(Ok(_)));
        step
    }
}
