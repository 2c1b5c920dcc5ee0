//! `POST /v1/chat/completions`

use super::answer::{FINGERPRINT, Heading, Usage, reason};
use super::talk::{self, Begun, Content, Talk};
use super::tools::{self, CallSaid, Choice, Offered};
use crate::app::App;
use crate::body;
use crate::calls::{CallParser, Piece};
use crate::grammar::Form;
use crate::parameters::{TOP_LOGPROBS, request, whole};
use crate::refusal::{ErrorBody, Refusal};
use crate::stream::{self, Events, Sink};
use crate::tokens::TokenLogprob;
use crate::worker::Reply;
use axum::extract::{Request, State};
use axum::response::Response;
use lowbit_model::chat::{Message, Role};
use lowbit_model::generate::Outcome;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;
use std::time::Instant;
use utoipa::ToSchema;

request! {
    /// A chat to answer.
    struct ChatRequest {
        /// What was said so far, the last turn last.
        #[schema(min_items = 1)]
        pub messages: Vec<ChatMessage>,
        /// Tokens of the answer at most; all that the context has room for by default.
        #[serde(default)]
        #[schema(minimum = 1)]
        pub max_tokens: Option<i64>,
        /// The same under its newer name.
        #[serde(default)]
        #[schema(minimum = 1)]
        pub max_completion_tokens: Option<i64>,
        /// Tell the log-probability of each token.
        #[serde(default)]
        pub logprobs: Option<bool>,
        /// Tell so many of the most likely tokens beside each.
        #[serde(default)]
        #[schema(minimum = 0, maximum = 20)]
        pub top_logprobs: Option<i64>,
        /// What the answer must look like: `{"type": "json_schema", "json_schema": {"schema": ..}}`, `json_object`, `regex` (with
        /// `regex`), or `text`.
        #[serde(default)]
        #[schema(value_type = Option<Object>)]
        pub response_format: Option<Value>,
        /// Functions that the model may call, where its template takes such: `{"type": "function", "function": {"name", "description",
        /// "parameters"}}`, the parameters being a JSON schema.
        #[serde(default)]
        #[schema(value_type = Option<Vec<Object>>)]
        pub tools: Option<Vec<Value>>,
        /// `auto`, `none`, `required`, or a function that must be called, `{"type": "function", "function": {"name"}}`.
        #[serde(default)]
        #[schema(value_type = Option<Object>)]
        pub tool_choice: Option<Value>,
        /// Whether an answer may call several functions, as it may where nothing is said.
        #[serde(default)]
        pub parallel_tool_calls: Option<bool>,
        /// Taken for compatibility.
        #[serde(default, rename = "store")]
        pub _store: Option<bool>,
    }
}

/// Who speaks.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ChatRole {
    /// Instructions to the model.
    System,
    /// The same under its newer name.
    Developer,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// A function that the model called.
    Tool,
}

/// A turn of a chat.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChatMessage {
    /// Who speaks.
    pub role: ChatRole,
    /// What is said.
    #[serde(default)]
    pub content: Option<Content>,
    /// Of a turn of `tool` the function; else taken for compatibility.
    #[serde(default)]
    pub name: Option<String>,
    /// Of a turn of `tool` the call that it answers.
    #[serde(default)]
    pub tool_call_id: Option<String>,
    /// As in answers; taken for compatibility.
    #[serde(default, rename = "refusal")]
    pub _refusal: Option<String>,
    /// The functions that the model called.
    #[serde(default)]
    pub tool_calls: Option<Vec<EarlierCall>>,
    /// Not supported; null is.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub function_call: Option<Value>,
    /// Not supported; null is.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub audio: Option<Value>,
    /// Taken for compatibility.
    #[serde(default, rename = "annotations")]
    #[schema(value_type = Option<Vec<Object>>)]
    pub _annotations: Option<Value>,
}

/// A function that the model called in an earlier turn.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct EarlierCall {
    /// Its name, which the turn with its result repeats.
    #[serde(default)]
    pub id: String,
    /// The function.
    pub function: EarlierFunction,
}

/// The function of a call.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct EarlierFunction {
    /// Its name.
    pub name: String,
    /// JSON.
    #[serde(default)]
    pub arguments: String,
}

/// The answer to a chat.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatCompletion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'static str,
    choices: Vec<ChatChoice>,
    usage: Usage,
}

/// One of the answers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatChoice {
    index: usize,
    message: Said,
    logprobs: Option<ChatLogprobs>,
    finish_reason: &'static str,
}

/// What the model said.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Said {
    role: &'static str,
    /// Null where the answer is calls alone.
    content: Option<String>,
    refusal: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallSaid>,
}

/// What the model gave to the tokens of an answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatLogprobs {
    content: Vec<TokenLogprob>,
    refusal: Option<Vec<TokenLogprob>>,
}

/// A piece of a streamed answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatChunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'static str,
    choices: Vec<ChunkChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<&'a Usage>,
}

/// What a piece adds to an answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChunkChoice {
    index: usize,
    delta: Delta,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
}

/// What is new.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallSaid>,
}

impl ChatRequest {
    /// The turns.
    fn said(&self) -> Result<Vec<Message>, Refusal> {
        if self.messages.is_empty() {
            return Err(Refusal::field("messages", "messages is empty; say something"));
        }
        let said = self.messages.iter().enumerate().map(|(i, message)| message.said(i));
        Ok(talk::named(said.collect::<Result<_, _>>()?))
    }

    /// The functions that are offered.
    fn offered(&self) -> Result<Option<Offered>, Refusal> {
        let choice = Choice::openai(self.tool_choice.as_ref())?;
        Offered::chats(self.tools.as_deref(), choice, self.parallel_tool_calls == Some(false))
    }

    /// Tokens of the answer at most.
    fn most(&self, context: usize) -> Result<Option<usize>, Refusal> {
        let range = 1..=context as i64;
        let new = whole("max_completion_tokens", self.max_completion_tokens, range.clone())?;
        let old = whole("max_tokens", self.max_tokens, range)?;
        Ok(new.or(old).map(|most| most as usize))
    }

    /// How many of the most likely tokens are told, if any are.
    fn top(&self) -> Result<Option<usize>, Refusal> {
        let top = whole("top_logprobs", self.top_logprobs, 0..=TOP_LOGPROBS)?;
        match (self.logprobs.unwrap_or(false), top) {
            (false, Some(top)) if top > 0 => {
                Err(Refusal::field("top_logprobs", "top_logprobs goes with `logprobs`: true"))
            }
            (false, _) => Ok(None),
            (true, top) => Ok(Some(top.unwrap_or(0) as usize)),
        }
    }
}

impl ChatRole {
    /// The same of the library.
    pub fn role(self) -> Role {
        match self {
            ChatRole::System | ChatRole::Developer => Role::System,
            ChatRole::User => Role::User,
            ChatRole::Assistant => Role::Assistant,
            ChatRole::Tool => Role::Tool,
        }
    }
}

impl ChatMessage {
    fn said(&self, i: usize) -> Result<Message, Refusal> {
        let missing = |name: &str| Refusal::field(format!("messages[{i}].{name}"), format!("{name} is not supported"));
        if self.function_call.is_some() {
            return Err(missing("function_call"));
        }
        if self.audio.is_some() {
            return Err(missing("audio"));
        }
        let calls = self.tool_calls.as_deref().unwrap_or_default();
        let (is_model, is_result) = (matches!(self.role, ChatRole::Assistant), matches!(self.role, ChatRole::Tool));
        if !calls.is_empty() && !is_model {
            return Err(Refusal::field(
                format!("messages[{i}].tool_calls"),
                "only turns of `assistant` have tool_calls",
            ));
        }
        let place = format!("messages[{i}].content");
        let content = match &self.content {
            None if calls.is_empty() => return Err(Refusal::field(place, "a message needs its content")),
            None => String::new(),
            Some(content) => content.text(&place)?,
        };
        let called = |(k, call): (usize, &EarlierCall)| {
            let place = format!("messages[{i}].tool_calls[{k}].function.arguments");
            tools::earlier(&place, &call.id, &call.function.name, &call.function.arguments)
        };
        let tool_calls = calls.iter().enumerate().map(called).collect::<Result<_, _>>()?;
        let of_result = |value: &Option<String>| value.clone().filter(|_| is_result);
        let (tool_call_id, name) = (of_result(&self.tool_call_id), of_result(&self.name));
        Ok(Message { tool_calls, tool_call_id, name, ..Message::new(self.role.role(), content) })
    }
}

/// Answers a chat.
#[utoipa::path(
    post, path = "/v1/chat/completions", tag = "OpenAI", request_body = ChatRequest, security(("key" = []), ()),
    responses(
        (status = 200, description = "The answer; with `stream` events of ChatChunk, then [DONE]", content(
            (ChatCompletion = "application/json"), (String = "text/event-stream"))),
        (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 408, body = ErrorBody), (status = 413, body = ErrorBody), (status = 429, body = ErrorBody),
        (status = 503, body = ErrorBody),
    )
)]
pub(crate) async fn create(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let since = Instant::now();
    let asked: ChatRequest = body::json(&app, request).await?;
    app.check_model(asked.model.as_deref())?;
    app.worker()?;
    let (streams, tells) = asked.streams()?;
    let (drawing, top, messages) = (asked.drawing(&app)?, asked.top()?, asked.said()?);
    let (max_tokens, choices) = (asked.most(app.served.context)?, drawing.choices);
    let form = asked.response_format.as_ref().map(|format| Form::of(format, "response_format")).transpose()?.flatten();
    let (form, tools) = (form.map(|form| (form, "response_format")), asked.offered()?);
    let begun = Talk { messages, drawing, top, max_tokens, form, tools }.begin(&app, since).await?;
    let usage = Usage::of(begun.prompt);
    let heading = Heading::new(&app, "chatcmpl");
    if streams {
        let parsers = begun.parsers(choices);
        let chunks = Chunks { heading, usage, tells, parsers, pending: vec![Vec::new(); choices] };
        return Ok(stream::response(begun.replies, choices, chunks));
    }
    whole_answer(heading, usage, choices, begun).await
}

/// The answer in one piece.
async fn whole_answer(heading: Heading, mut usage: Usage, choices: usize, begun: Begun) -> Result<Response, Refusal> {
    let served = &heading.app.served;
    let take = |index, reply| {
        let Reply::End(outcome) = reply else { return Ok(None) };
        let Outcome { text, logprobs, finish, .. } = (*outcome).inspect(|outcome| usage.add(outcome))?;
        let content: Vec<TokenLogprob> = logprobs.iter().map(|logprob| served.told(logprob)).collect();
        let logprobs = (!content.is_empty()).then_some(ChatLogprobs { content, refusal: None });
        let (text, called) = talk::split(begun.calls.as_ref(), text);
        let finish_reason = if called.is_empty() { reason(finish) } else { "tool_calls" };
        let content = Some(text).filter(|text| called.is_empty() || !text.is_empty());
        let whole = |(name, arguments)| CallSaid::whole(heading.app.call_id(), name, &arguments);
        let tool_calls = called.into_iter().map(whole).collect();
        let message = Said { role: "assistant", content, refusal: None, tool_calls };
        Ok(Some(ChatChoice { index, message, logprobs, finish_reason }))
    };
    let choices = stream::collect(begun.replies, choices, take).await?;
    Ok(super::json(&ChatCompletion {
        id: &heading.id,
        object: "chat.completion",
        created: heading.created,
        model: heading.model(),
        system_fingerprint: FINGERPRINT,
        choices,
        usage,
    }))
}

/// The answer in pieces.
struct Chunks {
    heading: Heading,
    usage: Usage,
    /// Whether the last piece tells the tokens.
    tells: bool,
    /// What finds calls of functions, for each choice.
    parsers: Option<Vec<CallParser>>,
    /// What the model gave to tokens of each choice that are not told yet.
    pending: Vec<Vec<TokenLogprob>>,
}

impl Chunks {
    fn chunk(&self, choices: Vec<ChunkChoice>, usage: Option<&Usage>, out: &mut Sink) {
        let Heading { id, created, .. } = &self.heading;
        out.data(&ChatChunk {
            id,
            object: "chat.completion.chunk",
            created: *created,
            model: self.heading.model(),
            system_fingerprint: FINGERPRINT,
            choices,
            usage,
        });
    }
}

impl Chunks {
    /// A piece of a choice, with what the model gave to the tokens up to here.
    fn piece(&mut self, index: usize, delta: Delta, finish_reason: Option<&'static str>, out: &mut Sink) {
        let content = std::mem::take(&mut self.pending[index]);
        let logprobs = (!content.is_empty()).then_some(ChatLogprobs { content, refusal: None });
        self.chunk(vec![ChunkChoice { index, delta, logprobs, finish_reason }], None, out);
    }

    /// What an answer holds.
    fn pieces(&mut self, index: usize, pieces: Vec<Piece>, out: &mut Sink) {
        let called = |piece: &Piece| matches!(piece, Piece::Call(..));
        let found = self.parsers.as_ref().map_or(0, |parsers| parsers[index].found());
        let first = found - pieces.iter().filter(|piece| called(piece)).count();
        let mut number = first..;
        for piece in pieces {
            match piece {
                Piece::Text(text) => self.piece(index, Delta { content: Some(text), ..Delta::default() }, None, out),
                Piece::Call(name, arguments) => {
                    let call = CallSaid::whole(self.heading.app.call_id(), name, &arguments);
                    for call in call.pieces(number.next().unwrap_or(0)) {
                        self.piece(index, Delta { tool_calls: vec![call], ..Delta::default() }, None, out);
                    }
                }
            }
        }
    }
}

impl Events for Chunks {
    fn begin(&mut self, out: &mut Sink) {
        for index in 0..self.pending.len() {
            // Where calls may follow, the content may be none.
            let content = self.parsers.is_none().then(String::new);
            self.piece(index, Delta { role: Some("assistant"), content, ..Delta::default() }, None, out);
        }
    }

    fn reply(&mut self, index: usize, reply: Reply, out: &mut Sink) -> Result<(), Refusal> {
        match reply {
            Reply::Begun | Reply::Prompt(_) => {}
            Reply::Text(text, None) if text.is_empty() => {}
            Reply::Text(text, logprob) => {
                self.pending[index].extend(logprob.map(|logprob| self.heading.app.served.told(&logprob)));
                match self.parsers.as_mut().map(|parsers| parsers[index].push(&text)) {
                    None => self.piece(index, Delta { content: Some(text), ..Delta::default() }, None, out),
                    Some(pieces) => self.pieces(index, pieces, out),
                }
            }
            Reply::End(outcome) => {
                let outcome = (*outcome)?;
                self.usage.add(&outcome);
                let rest = self.parsers.as_mut().map(|parsers| parsers[index].finish());
                self.pieces(index, rest.unwrap_or_default(), out);
                let called = self.parsers.as_ref().is_some_and(|parsers| parsers[index].found() > 0);
                let finish_reason = if called { "tool_calls" } else { reason(outcome.finish) };
                self.piece(index, Delta::default(), Some(finish_reason), out);
            }
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Sink) {
        if self.tells {
            self.chunk(Vec::new(), Some(&self.usage), out);
        }
        out.raw("[DONE]");
    }
}
