//! Requests answered together: each has a sequence in a slot of a language model, and joins and leaves between steps.
//!
//! A step is one forward pass: the next token of every answer under way (with guesses of the tokens behind it, where a request
//! asked for them), and a piece of a prompt. A request gets the bits it would get alone.

use crate::generate::{Logprob, Outcome, Request};
use crate::{Error, Sequences, Tokenizer};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

mod answer;
mod model;

pub use model::{LanguageModel, Logits, Piece, is_exact};

use answer::Answer;
pub(crate) use model::unknown_token;

/// Names a request of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(u64);

/// How requests share a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Requests answered at a time; others wait, first come, first served.
    pub sequences: usize,
    /// Ended sequences whose keys and values are kept, so that a prompt with the same begin goes on from there.
    pub keep: usize,
    /// Bytes that these may take; the one used longest ago goes first.
    pub keep_bytes: usize,
    /// Tokens of prompts in a step in which answers go on: fewer let answers wait less.
    pub chunk: usize,
    /// What passes of several sequences do where a model's formats round them differently from passes of one.
    pub passes: Passes,
}

/// Which sequences share a forward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Passes {
    /// All, if each then has the bits it has alone; otherwise each has a pass of its own.
    #[default]
    Exact,
    /// All.
    Together,
}

impl Default for Settings {
    /// One request at a time, whose sequence is kept.
    fn default() -> Self {
        Settings { sequences: 1, keep: 1, keep_bytes: usize::MAX, chunk: 64, passes: Passes::Exact }
    }
}

/// What a step brought.
#[derive(Clone, Debug)]
pub enum Event {
    /// A piece of a prompt was processed, and more of it is left, or its tokens were to be scored.
    Prompt {
        /// Whose.
        id: Id,
        /// Tokens of the prompt that are processed.
        done: usize,
        /// Tokens of the prompt.
        of: usize,
        /// What the model gave to the tokens of this piece but the first of the prompt, where that was asked for.
        logprobs: Vec<Logprob>,
    },
    /// A token came, or text that was held back is released.
    Text {
        /// Whose.
        id: Id,
        /// Whole characters, often none.
        text: String,
        /// Tokens of the answer so far.
        tokens: usize,
        /// What the model gave to the token that came, where that was asked for.
        logprob: Option<Logprob>,
    },
    /// The answer ended; the request is closed.
    End {
        /// Whose.
        id: Id,
        /// The answer, or why there is none.
        outcome: Result<Outcome, Error>,
    },
}

/// Fewest tokens of a begin that are worth a copy, or to wait for.
const SHARED: usize = 32;

/// A request that waits for its turn.
struct Waiting {
    id: Id,
    request: Request,
    since: Instant,
}

/// Answers requests with one language model.
pub struct Engine<M = Sequences> {
    model: M,
    tokenizer: Arc<Tokenizer>,
    settings: Settings,
    waiting: VecDeque<Waiting>,
    answers: Vec<Answer>,
    /// Slots of ended sequences that are kept, the last one at the end.
    kept: Vec<usize>,
    next: u64,
    /// Whether passes of several tokens give the bits of passes of one; known once it was asked.
    exact: Option<bool>,
}

/// Tokens at the begin of both.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl<M: LanguageModel> Engine<M> {
    /// An engine without requests.
    pub fn new(model: M, tokenizer: Arc<Tokenizer>, settings: Settings) -> Self {
        let (waiting, answers, kept) = (VecDeque::new(), Vec::new(), Vec::new());
        Engine { model, tokenizer, settings, waiting, answers, kept, next: 0, exact: None }
    }

    /// The model.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// The model, to give it sequences to [`keep`](Engine::keep).
    pub fn model_mut(&mut self) -> &mut M {
        &mut self.model
    }

    /// Requests that are answered or wait.
    pub fn requests(&self) -> usize {
        self.waiting.len() + self.answers.len()
    }

    /// Slots of ended sequences that are kept, the last one at the end.
    pub fn kept(&self) -> &[usize] {
        &self.kept
    }

    /// Keeps a sequence of the model as if a request had ended with it.
    pub fn keep(&mut self, slot: usize) {
        self.kept.push(slot);
        let bytes = |engine: &Self| engine.kept.iter().map(|slot| engine.model.bytes(*slot)).sum::<usize>();
        while self.kept.len() > self.settings.keep || !self.kept.is_empty() && bytes(self) > self.settings.keep_bytes {
            self.model.close(self.kept.remove(0));
        }
    }

    /// Takes a request; its answer comes with the next steps.
    ///
    /// # Errors
    /// When the prompt is empty or does not fit the context together with the answer, a token is outside the vocabulary, a
    /// value of the request has no meaning, or guesses would change the answer.
    pub fn open(&mut self, request: Request) -> Result<Id, Error> {
        request.check(self.model.context())?;
        let vocabulary = self.model.vocabulary();
        if let Some(token) = request.prompt.iter().find(|token| **token as usize >= vocabulary) {
            return Err(unknown_token(*token, vocabulary));
        }
        if request.draft.is_some() && !self.is_exact()? {
            let text = "guesses would change the answer: products of several tokens are rounded differently from products of \
                        one in this model's formats";
            return Err(Error::usage(format!("{text}; use an integer recipe, or no draft")));
        }
        let id = Id(self.next);
        self.next += 1;
        self.waiting.push_back(Waiting { id, request, since: Instant::now() });
        Ok(id)
    }

    /// Ends a request before its answer is complete; none, when there is no such request (any more).
    pub fn close(&mut self, id: Id) -> Option<Outcome> {
        if let Some(at) = self.waiting.iter().position(|waiting| waiting.id == id) {
            let Waiting { id, request, since } = self.waiting.remove(at)?;
            return Some(Answer::new(id, request, (0, 0), since).cancelled());
        }
        let at = self.answers.iter().position(|answer| answer.id == id)?;
        let answer = self.answers.remove(at);
        self.keep(answer.slot);
        Some(answer.cancelled())
    }

    /// Makes one step for all requests: at most one forward pass, or one for each where they cannot share it.
    pub fn step(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        self.admit();
        let apart = self.answers.len() > 1 && !self.is_joint();
        self.plan(apart);
        match apart {
            true => (0..self.answers.len()).for_each(|i| self.pass(i..i + 1, &mut events)),
            false => self.pass(0..self.answers.len(), &mut events),
        }
        self.retire(&mut events);
        events
    }

    /// Gives waiting requests a sequence, as long as there is room.
    fn admit(&mut self) {
        while self.answers.len() < self.settings.sequences.max(1) {
            let next = self.waiting.iter().position(|waiting| !self.is_coming(&waiting.request));
            let Some(Waiting { id, request, since }) = next.and_then(|at| self.waiting.remove(at)) else { return };
            // A prompt that is scored needs the logits of all its tokens.
            let shared = if request.echo { 1 } else { request.prompt.len() };
            let place = self.place(&request.prompt[..shared]);
            self.answers.push(Answer::new(id, request, place, since));
        }
    }

    /// Whether another request is about to process much of the begin of a prompt: once it did, the begin is copied.
    fn is_coming(&self, request: &Request) -> bool {
        let ahead = |answer: &Answer| {
            let shared = common(answer.prompt(), &request.prompt);
            !answer.is_decoding() && shared >= answer.held + SHARED
        };
        self.shares() && !request.echo && self.answers.iter().any(ahead)
    }

    /// Whether sequences that end are kept beside as many as are under way, so that there is room for copies.
    fn shares(&self) -> bool {
        self.settings.keep > self.settings.sequences
    }

    /// A copy of the longest begin of a prompt that any sequence holds, if it is longer than what a kept one, of which little
    /// would be lost, offers by itself.
    fn copied(&mut self, prompt: &[u32]) -> Option<(usize, usize)> {
        let slots = self.kept.iter().copied().chain(self.answers.iter().map(|answer| answer.slot));
        let (shared, slot) = slots.map(|slot| (common(self.model.tokens(slot), prompt), slot)).max()?;
        let shared = shared.min(prompt.len() - 1);
        let lost = self.model.tokens(slot).len() - shared;
        let at = self.kept.iter().position(|kept| *kept == slot);
        if shared < SHARED || at.is_some() && lost < SHARED {
            return None;
        }
        let copy = self.model.fork(slot, shared)?;
        if let Some(at) = at {
            let used = self.kept.remove(at);
            self.kept.push(used);
        }
        Some((copy, shared))
    }

    /// A slot for a prompt, and how many of its tokens are there.
    fn place(&mut self, prompt: &[u32]) -> (usize, usize) {
        if let Some(copied) = if self.shares() { self.copied(prompt) } else { None } {
            return copied;
        }
        let shared = |slot: usize| common(self.model.tokens(slot), prompt);
        let best = self.kept.iter().enumerate().map(|(i, slot)| (shared(*slot), i)).max();
        let full = self.answers.len() + self.kept.len() >= self.settings.sequences.max(self.settings.keep);
        // Where there is room, a sequence of which most would be lost is left to a later prompt.
        let worth = |(common, i): &(usize, usize)| *common > 0 && 2 * common >= self.model.tokens(self.kept[*i]).len();
        match best.filter(|best| full || worth(best)) {
            Some((common, i)) => {
                let (slot, cached) = (self.kept.remove(i), common.min(prompt.len() - 1));
                self.model.truncate(slot, cached);
                (slot, cached)
            }
            None => (self.model.open(), 0),
        }
    }

    /// Decides which tokens each sequence is fed; where sequences have passes of their own, prompts are cut as they are alone.
    fn plan(&mut self, apart: bool) {
        let decoding = self.answers.iter().any(Answer::is_decoding);
        let mut room = if decoding && !apart { self.settings.chunk.max(1) } else { crate::cpu::PREFILL_CHUNK };
        for answer in &mut self.answers {
            let prompt = !answer.is_decoding();
            let fed = answer.plan(room);
            if prompt {
                room = if apart { 0 } else { room - fed };
            }
        }
    }

    /// Feeds some answers what was planned.
    fn pass(&mut self, which: std::ops::Range<usize>, events: &mut Vec<Event>) {
        let answers = &mut self.answers[which];
        let pieces: Vec<Piece> = answers.iter().filter_map(Answer::piece).collect();
        let rows: usize = pieces.iter().map(Piece::rows).sum();
        let largest = match (&pieces[..], rows) {
            ([], _) => return,
            ([piece], 1) => answers.iter().find(|a| a.slot == piece.slot).and_then(Answer::largest),
            _ => None,
        };
        match self.model.pass(&pieces, largest) {
            Ok(logits) => {
                let width = logits.len() / rows.max(1);
                let mut logits = logits.chunks_exact(width.max(1));
                for answer in answers.iter_mut().filter(|answer| answer.piece().is_some()) {
                    answer.take(&mut logits, &self.tokenizer, events);
                }
            }
            Err(error) => answers.iter_mut().for_each(|answer| answer.fail(error.clone())),
        }
    }

    /// Cuts sequences to what is right of them, and ends answers that are complete.
    fn retire(&mut self, events: &mut Vec<Event>) {
        let mut i = 0;
        while let Some(answer) = self.answers.get(i) {
            self.model.truncate(answer.slot, answer.held);
            if !answer.is_complete() {
                i += 1;
                continue;
            }
            let answer = self.answers.remove(i);
            self.keep(answer.slot);
            events.push(Event::End { id: answer.id, outcome: answer.outcome() });
        }
    }

    /// Whether sequences share passes.
    fn is_joint(&mut self) -> bool {
        // Where asking fails, the pass will tell why.
        self.settings.passes == Passes::Together || self.is_exact().unwrap_or(true)
    }

    /// Whether passes of several tokens give the bits of passes of one.
    ///
    /// # Errors
    /// When the model cannot continue a text.
    pub fn is_exact(&mut self) -> Result<bool, Error> {
        if let Some(exact) = self.exact {
            return Ok(exact);
        }
        let exact = model::is_exact(&mut self.model);
        self.exact = exact.as_ref().ok().copied();
        exact
    }
}
