//! Answers as server-sent events.

use crate::refusal::Refusal;
use crate::worker::{Replies, Reply};
use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame};
use lowbit_model::generate::Outcome;
use serde::Serialize;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// How often a comment keeps the connection alive while nothing else comes.
const ALIVE: Duration = Duration::from_secs(10);

/// Makes the events of an answer.
pub(crate) trait Events: Send + Unpin + 'static {
    /// Before the first token.
    fn begin(&mut self, out: &mut Sink);
    /// For what comes of a choice.
    fn reply(&mut self, choice: usize, reply: Reply, out: &mut Sink) -> Result<(), Refusal>;
    /// After the last choice ended.
    fn end(&mut self, out: &mut Sink);
    /// In place of all that would follow.
    fn fail(&mut self, refusal: &Refusal, out: &mut Sink) {
        out.raw(&refusal.body());
    }
}

/// The text of events.
#[derive(Default)]
pub(crate) struct Sink(String);

impl Sink {
    /// Adds an event.
    pub fn data(&mut self, value: &impl Serialize) {
        let json = serde_json::to_string(value).unwrap_or_default();
        self.raw(&json);
    }

    /// Adds an event with a name.
    pub fn event(&mut self, name: &str, value: &impl Serialize) {
        self.0.push_str("event: ");
        self.0.push_str(name);
        self.0.push('\n');
        self.data(value);
    }

    /// Adds an event of a line of text.
    pub fn raw(&mut self, text: &str) {
        self.0.push_str("data: ");
        self.0.push_str(text);
        self.0.push_str("\n\n");
    }
}

/// The response that streams an answer of so many choices.
pub(crate) fn response(replies: Replies, choices: usize, mut events: impl Events) -> Response {
    let mut sink = Sink::default();
    events.begin(&mut sink);
    let mut alive = interval(ALIVE);
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    alive.reset();
    let body = Stream { replies, events, sink, alive, left: choices };
    let mut response = Response::new(Body::new(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies such as nginx hold streams back otherwise.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

struct Stream<E> {
    replies: Replies,
    events: E,
    sink: Sink,
    alive: Interval,
    /// Choices that did not end.
    left: usize,
}

impl<E: Events> Stream<E> {
    /// Takes a reply; none where the thread of the model is gone.
    fn take(&mut self, reply: Option<(usize, Reply)>) {
        let taken = match reply {
            None => Err(Refusal::stopping()),
            Some((choice, reply)) => {
                let ends = matches!(reply, Reply::End(_));
                self.left -= usize::from(ends);
                self.events.reply(choice, reply, &mut self.sink)
            }
        };
        match taken {
            Ok(()) if self.left == 0 => self.events.end(&mut self.sink),
            Ok(()) => {}
            Err(refusal) => {
                self.left = 0;
                self.events.fail(&refusal, &mut self.sink);
            }
        }
    }
}

impl<E: Events> HttpBody for Stream<E> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        while this.left > 0 {
            match this.replies.poll_recv(context) {
                Poll::Ready(reply) => this.take(reply),
                Poll::Pending => break,
            }
        }
        let text = std::mem::take(&mut this.sink.0);
        if !text.is_empty() {
            this.alive.reset();
            return Poll::Ready(Some(Ok(Frame::data(text.into()))));
        }
        if this.left == 0 {
            return Poll::Ready(None);
        }
        this.alive.poll_tick(context).map(|_| Some(Ok(Frame::data(Bytes::from_static(b": keep-alive\n\n")))))
    }
}

/// All replies but text, which is collected by choice.
///
/// # Errors
/// When a choice ends with one.
pub(crate) async fn collect<T>(
    mut replies: Replies,
    choices: usize,
    mut take: impl FnMut(usize, Reply) -> Result<Option<T>, Refusal>,
) -> Result<Vec<T>, Refusal> {
    let mut all: Vec<Option<T>> = (0..choices).map(|_| None).collect();
    let mut left = choices;
    while left > 0 {
        let (choice, reply) = replies.recv().await.ok_or_else(Refusal::stopping)?;
        left -= usize::from(matches!(reply, Reply::End(_)));
        if let Some(done) = take(choice, reply)? {
            all[choice] = Some(done);
        }
    }
    all.into_iter().map(|one| one.ok_or_else(Refusal::internal)).collect()
}

/// The outcome of the only choice.
///
/// # Errors
/// When it ends with one.
pub(crate) async fn outcome(replies: Replies) -> Result<Outcome, Refusal> {
    let take = |_, reply| match reply {
        Reply::End(outcome) => Ok(Some((*outcome)?)),
        _ => Ok(None),
    };
    collect(replies, 1, take).await?.pop().ok_or_else(Refusal::internal)
}
