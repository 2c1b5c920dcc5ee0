//! One request under way.

use super::{Event, Id, Logits, Piece};
use crate::generate::{Finish, Guide, Logprob, Lookup, Outcome, Request, Sampler, Stats, Stream};
use crate::{Error, Tokenizer};
use std::slice::ChunksExact;
use std::time::Instant;

/// Tokens of a prompt in a pass that gives the logits of each.
const SCORED: usize = 128;

/// An answer that is being made.
pub(super) struct Answer {
    pub id: Id,
    /// The slot of its sequence.
    pub slot: usize,
    /// Tokens of the sequence that are right: those of the prompt and of the answer that were fed.
    pub held: usize,
    request: Request,
    sampler: Sampler,
    guide: Option<Box<dyn Guide>>,
    /// Logits as the guide leaves them.
    barred: Vec<f32>,
    stream: Stream,
    tokens: Vec<u32>,
    logprobs: Vec<Logprob>,
    /// The last token, which is to be fed; none while the prompt is read.
    next: Option<u32>,
    /// What the next pass feeds: a piece of the prompt, or the last token and guesses of those behind it.
    pass: Vec<u32>,
    logits: Logits,
    lookup: Lookup,
    /// Prompt and answer, where tokens are guessed.
    text: Vec<u32>,
    finish: Option<Result<Finish, Error>>,
    stats: Stats,
    /// When the request came, was begun, and had its first token.
    since: Instant,
    begun: Instant,
    first: Option<Instant>,
}

impl Answer {
    /// A request in a slot that holds the first `cached` tokens of its prompt; it came at `since`.
    pub fn new(id: Id, request: Request, (slot, cached): (usize, usize), since: Instant) -> Self {
        let mut sampler = Sampler::new(request.sampling.clone());
        sampler.observe(&request.prompt);
        let guide = request.guide.as_ref().map(|guided| guided.begin()).transpose();
        let (guide, fault) = guide.map_or_else(|error| (None, Some(Err(error))), |guide| (guide, None));
        Answer {
            id,
            slot,
            held: cached,
            sampler,
            guide,
            barred: Vec::new(),
            stream: Stream::new(request.stop.clone()),
            tokens: Vec::new(),
            logprobs: Vec::new(),
            next: None,
            pass: Vec::new(),
            logits: Logits::None,
            lookup: Lookup::new(),
            text: if request.draft.is_some() { request.prompt.clone() } else { Vec::new() },
            finish: fault,
            stats: Stats { prompt_tokens: request.prompt.len(), cached_tokens: cached, ..Stats::default() },
            since,
            begun: Instant::now(),
            first: None,
            request,
        }
    }

    /// Whether the prompt has been read.
    pub fn is_decoding(&self) -> bool {
        self.next.is_some()
    }

    /// The tokens to continue.
    pub fn prompt(&self) -> &[u32] {
        &self.request.prompt
    }

    /// Whether it ended.
    pub fn is_complete(&self) -> bool {
        self.finish.is_some()
    }

    /// How many of the largest logits decide, if not all.
    pub fn largest(&self) -> Option<usize> {
        let all = self.request.logprobs.is_some() || self.request.echo || self.guide.is_some();
        self.sampler.largest().filter(|_| !all)
    }

    /// Decides what the next pass feeds, of a prompt at most `room` tokens; returns how many tokens.
    pub fn plan(&mut self, room: usize) -> usize {
        self.pass.clear();
        if self.is_complete() {
            return 0;
        }
        match self.next {
            Some(next) => {
                if self.request.draft.is_some() {
                    self.text.push(next);
                    // The last token of the answer is not worth a guess: it is drawn in any case.
                    let room = self.request.max_tokens - self.tokens.len() - 1;
                    self.lookup.guess(&self.text, room, &mut self.pass);
                }
                self.pass.insert(0, next);
                self.sampler.observe(&[next]);
                self.logits = Logits::All;
            }
            None => {
                let rest = &self.request.prompt[self.held..];
                let room = if self.request.echo { room.min(SCORED) } else { room };
                self.pass.extend_from_slice(&rest[..rest.len().min(room)]);
                self.logits = match self.pass.len() == rest.len() {
                    _ if self.request.echo => Logits::All,
                    true => Logits::Last,
                    false => Logits::None,
                };
            }
        }
        self.pass.len()
    }

    /// What the next pass feeds, if anything.
    pub fn piece(&self) -> Option<Piece<'_>> {
        let piece = Piece { slot: self.slot, tokens: &self.pass, logits: self.logits };
        (!self.pass.is_empty()).then_some(piece)
    }

    /// Takes the logits of the pass, row by row.
    pub fn take(&mut self, logits: &mut ChunksExact<f32>, tokenizer: &Tokenizer, events: &mut Vec<Event>) {
        let mut rows = logits.by_ref().take(self.piece().map_or(0, |piece| piece.rows()));
        let taken = match self.is_decoding() {
            true => self.verify(&mut rows, tokenizer, events),
            false => self.read(&mut rows, tokenizer, events),
        };
        // Rows behind a wrong guess belong to no token.
        rows.for_each(drop);
        if let Err(error) = taken {
            self.fail(error);
        }
    }

    /// Ends with an error.
    pub fn fail(&mut self, error: Error) {
        self.finish.get_or_insert(Err(error));
    }

    /// After a piece of the prompt; behind the last one comes the first token.
    fn read<'a>(
        &mut self,
        rows: &mut impl Iterator<Item = &'a [f32]>,
        tokenizer: &Tokenizer,
        events: &mut Vec<Event>,
    ) -> Result<(), Error> {
        let (begin, of) = (self.held, self.request.prompt.len());
        self.held += self.pass.len();
        let mut logprobs = Vec::new();
        if self.request.echo {
            let top = self.request.logprobs.unwrap_or(0);
            let scored = &self.request.prompt[begin + 1..of.min(self.held + 1)];
            logprobs.extend(scored.iter().zip(&mut *rows).map(|(token, row)| Logprob::of(row, *token, top)));
        }
        let row = if self.held == of { rows.next() } else { None };
        if row.is_none() || !logprobs.is_empty() {
            events.push(Event::Prompt { id: self.id, done: self.held, of, logprobs });
        }
        let Some(row) = row else { return Ok(()) };
        let first = self.pick(row)?;
        let now = Instant::now();
        self.stats.prompt_seconds = (now - self.begun).as_secs_f64();
        self.stats.ttft_seconds = (now - self.since).as_secs_f64();
        self.first = Some(now);
        self.accept(first, row, tokenizer, events);
        Ok(())
    }

    /// After the last token and guesses: takes the guesses that are right, and the token behind them.
    fn verify<'a>(
        &mut self,
        rows: &mut impl Iterator<Item = &'a [f32]>,
        tokenizer: &Tokenizer,
        events: &mut Vec<Event>,
    ) -> Result<(), Error> {
        let (guesses, mut right) = (self.pass.len() - 1, 0);
        self.held += 1;
        for row in rows {
            let next = self.pick(row)?;
            let guessed = self.pass.get(1 + right) == Some(&next);
            self.held += usize::from(guessed);
            right += usize::from(guessed);
            self.accept(next, row, tokenizer, events);
            if !guessed || self.is_complete() {
                break;
            }
            self.text.push(next);
            self.sampler.observe(&[next]);
        }
        if guesses > 0 {
            self.lookup.learn(right);
        }
        self.stats.drafted += guesses;
        self.stats.accepted += right;
        Ok(())
    }

    /// The next token by its logits, of those that the guide lets through.
    fn pick(&mut self, row: &[f32]) -> Result<u32, Error> {
        let Some(guide) = &mut self.guide else { return self.sampler.pick(row) };
        self.barred.clear();
        self.barred.extend_from_slice(row);
        guide.bar(&mut self.barred)?;
        let token = self.sampler.pick(&self.barred)?;
        guide.follow(token)?;
        Ok(token)
    }

    /// Takes the next token, which was picked by a row of logits; ends with it where it is the last.
    fn accept(&mut self, token: u32, row: &[f32], tokenizer: &Tokenizer, events: &mut Vec<Event>) {
        self.next = Some(token);
        if self.request.stop_tokens.contains(&token) {
            return self.end(Finish::Stop, events);
        }
        self.tokens.push(token);
        self.sampler.count(token);
        let logprob = self.request.logprobs.map(|top| Logprob::of(row, token, top));
        self.logprobs.extend(logprob.clone());
        let shown = self.request.shown.iter().find(|(shown, _)| *shown == token);
        let bytes = shown.map_or_else(|| tokenizer.token_bytes(token).unwrap_or_default(), |(_, name)| name.as_bytes());
        let (text, stopped) = self.stream.push(bytes);
        events.push(Event::Text { id: self.id, text: text.into(), tokens: self.tokens.len(), logprob });
        if stopped {
            self.finish = Some(Ok(Finish::Stop));
        } else if self.tokens.len() >= self.request.max_tokens {
            self.end(Finish::Length, events);
        }
    }

    /// Releases what was held back.
    fn end(&mut self, finish: Finish, events: &mut Vec<Event>) {
        let text = self.stream.finish();
        if !text.is_empty() {
            events.push(Event::Text { id: self.id, text: text.into(), tokens: self.tokens.len(), logprob: None });
        }
        self.finish = Some(Ok(finish));
    }

    /// What there is of an answer that nobody waits for any more.
    pub fn cancelled(mut self) -> Outcome {
        self.finish = None;
        self.into_outcome(Finish::Cancelled)
    }

    /// The complete answer, or why there is none.
    pub fn outcome(mut self) -> Result<Outcome, Error> {
        let finish = self.finish.take().unwrap_or(Ok(Finish::Cancelled))?;
        Ok(self.into_outcome(finish))
    }

    fn into_outcome(mut self, finish: Finish) -> Outcome {
        self.stats.decode_seconds = self.first.map_or(0.0, |first| first.elapsed().as_secs_f64());
        self.stats.decoded_tokens = self.tokens.len().saturating_sub(1);
        let (tokens, logprobs, text) = (self.tokens, self.logprobs, self.stream.into_text());
        Outcome { tokens, text, logprobs, finish, stats: self.stats }
    }
}
