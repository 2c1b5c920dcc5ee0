//! The thread of a model that answers each text: requests take turns, some rows at a time.

use crate::metrics::Metrics;
use lowbit_base::{Error, Kind, panics};
use lowbit_model::Predictor;
use lowbit_model::exec::Batch;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// Tokens of one forward pass, about.
const TOKENS: usize = 4096;
/// Rows of one forward pass, at most.
const ROWS: usize = 64;

/// A request on its way.
struct Job {
    /// Tokens of each row.
    rows: Vec<Vec<u32>>,
    /// Rows that are answered, and the outputs.
    done: usize,
    outputs: Vec<f32>,
    reply: oneshot::Sender<Result<Vec<f32>, Error>>,
    _place: OwnedSemaphorePermit,
}

/// The way to the thread.
pub(crate) struct RowWorker {
    jobs: Mutex<Option<Sender<Job>>>,
    abort: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl RowWorker {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the operating system starts none.
    pub fn start(predictor: Predictor, metrics: Arc<Metrics>) -> Result<Self, Error> {
        let (send, jobs) = channel();
        let abort = Arc::new(AtomicBool::new(false));
        let mut thread = Thread { predictor, jobs, queue: VecDeque::new(), abort: abort.clone(), metrics };
        let spawned = std::thread::Builder::new().name("model".into()).spawn(move || thread.run());
        let thread =
            spawned.map_err(|e| Error::new(Kind::Io, format!("the thread of the model cannot be started: {e}")))?;
        Ok(RowWorker { jobs: Mutex::new(Some(send)), abort, thread: Mutex::new(Some(thread)) })
    }

    /// Hands rows of tokens over; the answer has the outputs of all, `[rows, width]`. When the receiver is dropped, the work ends.
    pub fn submit(
        &self,
        rows: Vec<Vec<u32>>,
        place: OwnedSemaphorePermit,
    ) -> oneshot::Receiver<Result<Vec<f32>, Error>> {
        let (reply, receiver) = oneshot::channel();
        if let Some(jobs) = &*self.jobs.lock().unwrap_or_else(PoisonError::into_inner) {
            // Where the thread is gone, the receiver sees its end.
            drop(jobs.send(Job { rows, done: 0, outputs: Vec::new(), reply, _place: place }));
        }
        receiver
    }

    /// Ends all answers with an error, from the next pass on.
    pub fn abort(&self) {
        self.abort.store(true, Ordering::Relaxed);
    }

    /// Takes no more requests, and waits for the thread to end.
    pub fn end(&self) {
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            drop(thread.join());
        }
    }
}

/// What the thread has.
struct Thread {
    predictor: Predictor,
    jobs: Receiver<Job>,
    queue: VecDeque<Job>,
    abort: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
}

impl Thread {
    /// Until nobody can send requests any more.
    fn run(&mut self) {
        loop {
            if self.queue.is_empty() {
                let Ok(job) = self.jobs.recv() else { return };
                self.queue.push_back(job);
            }
            self.queue.extend(self.jobs.try_iter());
            self.queue.retain(|job| !job.reply.is_closed());
            if let Some(job) = self.queue.pop_front() {
                self.advance(job);
            }
            self.metrics.running.store(u64::from(!self.queue.is_empty()), Ordering::Relaxed);
            self.metrics.waiting.store(self.queue.len().saturating_sub(1) as u64, Ordering::Relaxed);
        }
    }

    /// Answers some rows of a request, which then waits for its next turn, or is answered.
    fn advance(&mut self, mut job: Job) {
        if self.abort.load(Ordering::Relaxed) {
            drop(job.reply.send(Err(Error::new(Kind::Interrupted, "the server is shutting down"))));
            return;
        }
        let mut batch = Batch::default();
        let end = job.rows.len().min(job.done + ROWS);
        while job.done < end && batch.tokens.len() < TOKENS {
            batch.push(&job.rows[job.done]);
            job.done += 1;
        }
        let tokens = batch.tokens.len() as u64;
        let predictor = &mut self.predictor;
        let outcome = panics::caught(|| predictor.outputs_of_batch(&batch)).unwrap_or_else(|| {
            self.predictor = self.predictor.fresh();
            Err(Error::new(Kind::Internal, "a fault of the program"))
        });
        match outcome {
            Err(error) => {
                self.metrics.completed("error");
                drop(job.reply.send(Err(error)));
            }
            Ok(outputs) => {
                self.metrics.prompt_tokens.fetch_add(tokens, Ordering::Relaxed);
                job.outputs.extend(outputs);
                if job.done < job.rows.len() {
                    self.queue.push_back(job);
                } else {
                    self.metrics.completed("stop");
                    drop(job.reply.send(Ok(job.outputs)));
                }
            }
        }
    }
}
