//! A chat, turn by turn: the messages so far, and a loop over the engine that answers them.

use super::model::{AnswerOptions, ChatError, ChatModel};
use super::{Message, Role};
use crate::Error;
use crate::generate::{Finish, Generator, Outcome, Progress, Sampling};
use lowbit_kernels::Cpu;
use lowbit_kernels::ops::CacheKind;
use std::ops::ControlFlow;
use std::path::Path;

/// A person, a model, and what they said.
pub struct ChatSession {
    model: ChatModel,
    generator: Generator,
    options: AnswerOptions,
    messages: Vec<Message>,
    turn: u64,
    /// Whether the last message waits for its answer.
    is_answering: bool,
}

impl ChatSession {
    /// A chat in which nothing was said yet.
    pub(super) fn new(model: ChatModel, cpu: Cpu, context: usize, cache: CacheKind, options: AnswerOptions) -> Self {
        let (network, tokenizer) = (model.network().clone(), model.tokenizer().clone());
        let generator = Generator::with_cache(network, tokenizer, cpu, context, cache);
        ChatSession { model, generator, options, messages: Vec::new(), turn: 0, is_answering: false }
    }

    /// The model.
    pub fn model(&self) -> &ChatModel {
        &self.model
    }

    /// Tokens of prompt and answer together.
    pub fn context(&self) -> usize {
        self.generator.context()
    }

    /// How answers are made.
    pub fn options(&self) -> &AnswerOptions {
        &self.options
    }

    /// How the next answers are made.
    pub fn options_mut(&mut self) -> &mut AnswerOptions {
        &mut self.options
    }

    /// What was said so far.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Goes on with another chat; an answer under way is dropped.
    pub fn resume(&mut self, messages: Vec<Message>) {
        self.is_answering = false;
        self.messages = messages;
    }

    /// Sets the system message, or removes it, from the next turn on.
    pub fn instruct(&mut self, text: Option<String>) {
        self.messages.retain(|m| m.role != Role::System);
        if let Some(text) = text {
            self.messages.insert(0, Message::new(Role::System, text));
        }
    }

    /// Forgets the turns but the system message; an answer under way is dropped.
    pub fn reset(&mut self) {
        self.is_answering = false;
        self.messages.retain(|m| m.role == Role::System);
    }

    /// Says something and returns the answer, whose text `on_text` gets as it comes, in whole characters; with `Break` it ends.
    /// Both become part of the chat, unless there is no text.
    ///
    /// # Errors
    /// When the template refuses the chat, the context is full, or the model cannot answer; the chat is then as before.
    pub fn say(
        &mut self,
        text: impl Into<String>,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Outcome, ChatError> {
        self.begin(text)?;
        loop {
            match self.advance()? {
                Progress::Done(outcome) => return Ok(outcome),
                Progress::Text(text) if on_text(&text).is_break() => return Ok(self.cancel()?),
                Progress::Text(_) => {}
            }
        }
    }

    /// Says something; [`ChatSession::advance`] brings the answer. Each turn of a chat has draws of its own.
    ///
    /// # Errors
    /// As [`ChatSession::say`].
    pub fn begin(&mut self, text: impl Into<String>) -> Result<(), ChatError> {
        if self.is_answering {
            self.cancel()?;
        }
        let sampling = &self.options.sampling;
        let sampling = Sampling { seed: sampling.seed.wrapping_add(self.turn), ..sampling.clone() };
        let options = AnswerOptions { sampling, ..self.options.clone() };
        self.turn += 1;
        self.messages.push(Message::new(Role::User, text));
        let request = self.model.request(&self.messages, &options, self.context());
        let begun = request.and_then(|request| Ok(self.generator.begin(request)?));
        self.is_answering = begun.is_ok();
        begun.inspect_err(|_| drop(self.messages.pop()))
    }

    /// The next piece of the answer under way; when it is complete, it becomes part of the chat.
    ///
    /// # Errors
    /// When none is under way, or it fails; the chat is then as before the turn.
    pub fn advance(&mut self) -> Result<Progress, Error> {
        let progress = self.generator.advance();
        match &progress {
            Ok(Progress::Text(_)) => {}
            Ok(Progress::Done(outcome)) => self.close(Some(outcome)),
            Err(_) => self.close(None),
        }
        progress
    }

    /// Ends the answer under way, which becomes part of the chat as far as it was received.
    ///
    /// # Errors
    /// When none is under way, or it failed.
    pub fn cancel(&mut self) -> Result<Outcome, Error> {
        let outcome = self.generator.cancel();
        self.close(outcome.as_ref().ok());
        outcome
    }

    /// Ends a turn.
    fn close(&mut self, outcome: Option<&Outcome>) {
        if !std::mem::take(&mut self.is_answering) {
            return;
        }
        match outcome.filter(|outcome| !outcome.text.is_empty()) {
            Some(outcome) => self.messages.push(Message::new(Role::Assistant, &*outcome.text)),
            None => drop(self.messages.pop()),
        }
    }

    /// Whether the last answer ended because the context is full.
    pub fn is_full(&self, outcome: &Outcome) -> bool {
        outcome.finish == Finish::Length && outcome.stats.prompt_tokens + outcome.tokens.len() >= self.context()
    }

    /// Reads a processed prompt, so that one with the same begin goes on from there.
    ///
    /// # Errors
    /// As [`Generator::load_prompt`].
    pub fn load_prompt(&mut self, path: &Path) -> Result<usize, Error> {
        self.generator.load_prompt(path)
    }

    /// Writes the processed prompt, atomically.
    ///
    /// # Errors
    /// As [`Generator::save_prompt`].
    pub fn save_prompt(&self, path: &Path) -> Result<(), Error> {
        self.generator.save_prompt(path)
    }
}
