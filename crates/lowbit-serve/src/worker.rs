//! The thread that owns the model: requests come and go between the steps of its engine.

use crate::metrics::Metrics;
use lowbit_base::{Error, Kind, panics};
use lowbit_model::Sequences;
use lowbit_model::engine::{Engine, Event, Id};
use lowbit_model::generate::{Logprob, Outcome, Request};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What comes of a request, in this order but for pieces of text, of which there are many.
#[derive(Debug)]
pub(crate) enum Reply {
    /// It is accepted.
    Begun,
    /// What the model gave to tokens of the prompt.
    Prompt(Vec<Logprob>),
    /// Text, often none, and what the model gave to its token.
    Text(String, Option<Logprob>),
    /// The answer, or why there is none.
    End(Box<Result<Outcome, Error>>),
}

/// Replies, each with the number of the choice it belongs to.
pub(crate) type Replies = UnboundedReceiver<(usize, Reply)>;

/// A request on its way to the thread.
struct Job {
    choice: usize,
    request: Request,
    replies: UnboundedSender<(usize, Reply)>,
    /// Its place in the queue, free again when the answer ends.
    place: OwnedSemaphorePermit,
    since: Instant,
}

/// A request that the engine has.
struct Open {
    choice: usize,
    replies: UnboundedSender<(usize, Reply)>,
    _place: OwnedSemaphorePermit,
    /// Tokens so far, and when the last one came; at first when the request did.
    tokens: usize,
    last: Instant,
}

/// The way to the thread.
pub(crate) struct Worker {
    jobs: Mutex<Option<Sender<Job>>>,
    abort: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Makes an engine: the first one, and another when a fault of the program ended it.
pub(crate) type MakeEngine = Arc<dyn Fn() -> Engine<Sequences> + Send + Sync>;

impl Worker {
    /// Starts the thread, whose engine answers `capacity` requests at a time.
    ///
    /// # Errors
    /// When the operating system starts no thread.
    pub fn start(make: MakeEngine, capacity: usize, metrics: Arc<Metrics>) -> Result<Self, Error> {
        let (send, receive) = channel();
        let abort = Arc::new(AtomicBool::new(false));
        let mut thread = Thread {
            engine: make(),
            make,
            capacity,
            open: BTreeMap::new(),
            jobs: receive,
            abort: abort.clone(),
            metrics,
        };
        let spawned = std::thread::Builder::new().name("model".into()).spawn(move || thread.run());
        let thread =
            spawned.map_err(|e| Error::new(Kind::Io, format!("the thread of the model cannot be started: {e}")))?;
        Ok(Worker { jobs: Mutex::new(Some(send)), abort, thread: Mutex::new(Some(thread)) })
    }

    /// Hands requests over, as choices 0, 1, 2 and so on; `places` are as many. When the receiver is dropped, they end.
    pub fn submit(&self, requests: Vec<Request>, mut places: OwnedSemaphorePermit, since: Instant) -> Replies {
        let (replies, receiver) = unbounded_channel();
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        for (choice, request) in requests.into_iter().enumerate() {
            let place = places.split(1);
            if let (Some(place), Some(jobs)) = (place, &*jobs) {
                let replies = replies.clone();
                // Where the thread is gone, the receiver sees its end.
                drop(jobs.send(Job { choice, request, replies, place, since }));
            }
        }
        receiver
    }

    /// Ends all answers with an error, from the next step on.
    pub fn abort(&self) {
        self.abort.store(true, Ordering::Relaxed);
    }

    /// Takes no more requests, and waits for the thread to end.
    pub fn end(&self) {
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            drop(thread.join());
        }
    }
}

/// What the thread has.
struct Thread {
    engine: Engine<Sequences>,
    make: MakeEngine,
    capacity: usize,
    open: BTreeMap<Id, Open>,
    jobs: Receiver<Job>,
    abort: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
}

impl Thread {
    /// Until nobody can send requests any more.
    fn run(&mut self) {
        loop {
            if self.open.is_empty() {
                let Ok(job) = self.jobs.recv() else { return };
                self.enter(job);
            }
            while let Ok(job) = self.jobs.try_recv() {
                self.enter(job);
            }
            if self.abort.load(Ordering::Relaxed) {
                self.fail(&Error::new(Kind::Interrupted, "the server is shutting down"));
            }
            self.leave();
            if !self.open.is_empty() {
                self.step();
            }
            self.count();
        }
    }

    /// Gives a request to the engine.
    fn enter(&mut self, job: Job) {
        let Job { choice, request, replies, place, since } = job;
        let prompt = request.prompt.len() as u64;
        match self.engine.open(request) {
            Ok(id) => {
                self.metrics.prompt_tokens.fetch_add(prompt, Ordering::Relaxed);
                drop(replies.send((choice, Reply::Begun)));
                self.open.insert(id, Open { choice, replies, _place: place, tokens: 0, last: since });
            }
            Err(error) => {
                self.metrics.completed("error");
                drop(replies.send((choice, Reply::End(Box::new(Err(error))))));
            }
        }
    }

    /// Ends requests whose client is gone.
    fn leave(&mut self) {
        let gone: Vec<Id> = self.open.iter().filter(|(_, open)| open.replies.is_closed()).map(|(id, _)| *id).collect();
        for id in gone {
            self.open.remove(&id);
            self.engine.close(id);
            self.metrics.completed("cancelled");
        }
    }

    /// One step of the engine; a fault of the program in it ends all requests, and the next ones get another engine.
    fn step(&mut self) {
        let engine = &mut self.engine;
        match panics::caught(|| engine.step()) {
            Some(events) => events.into_iter().for_each(|event| self.deliver(event)),
            None => {
                self.fail(&Error::new(Kind::Internal, "a fault of the program"));
                self.engine = (self.make)();
            }
        }
    }

    fn deliver(&mut self, event: Event) {
        let (id, reply) = match event {
            Event::Prompt { logprobs, .. } if logprobs.is_empty() => return,
            Event::Prompt { id, logprobs, .. } => (id, Reply::Prompt(logprobs)),
            Event::Text { id, text, tokens, logprob } => {
                self.note(id, tokens);
                (id, Reply::Text(text, logprob))
            }
            Event::End { id, outcome } => {
                let cached = outcome.as_ref().map_or(0, |outcome| outcome.stats.cached_tokens);
                self.metrics.cached_tokens.fetch_add(cached as u64, Ordering::Relaxed);
                self.metrics.completed(outcome.as_ref().map_or("error", |outcome| outcome.finish.name()));
                if let Some(open) = self.open.remove(&id) {
                    drop(open.replies.send((open.choice, Reply::End(Box::new(outcome)))));
                }
                return;
            }
        };
        if let Some(open) = self.open.get(&id) {
            drop(open.replies.send((open.choice, reply)));
        }
    }

    /// Counts a token of a request that has so many.
    fn note(&mut self, id: Id, tokens: usize) {
        let Some(open) = self.open.get_mut(&id).filter(|open| open.tokens < tokens) else { return };
        let now = Instant::now();
        self.metrics.token(open.tokens == 0, now - open.last);
        (open.tokens, open.last) = (tokens, now);
    }

    /// Ends all requests with an error.
    fn fail(&mut self, error: &Error) {
        for (id, open) in std::mem::take(&mut self.open) {
            self.engine.close(id);
            self.metrics.completed("error");
            drop(open.replies.send((open.choice, Reply::End(Box::new(Err(error.clone()))))));
        }
    }

    fn count(&self) {
        let (open, capacity) = (self.open.len(), self.capacity);
        self.metrics.running.store(open.min(capacity) as u64, Ordering::Relaxed);
        self.metrics.waiting.store(open.saturating_sub(capacity) as u64, Ordering::Relaxed);
        self.metrics.cache_bytes.store(self.engine.model().cache_allocated() as u64, Ordering::Relaxed);
    }
}
