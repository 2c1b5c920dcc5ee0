//! `POST /v1/chat/completions`

use super::answer::{FINGERPRINT, Heading, Usage, reason};
use super::talk::{Content, Talk};
use crate::app::App;
use crate::body;
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
        /// Not supported; an empty list is.
        #[serde(default)]
        #[schema(value_type = Option<Vec<Object>>)]
        pub tools: Option<Vec<Value>>,
        /// Only `none` or `auto`.
        #[serde(default)]
        #[schema(value_type = Option<String>)]
        pub tool_choice: Option<Value>,
        /// Taken for compatibility.
        #[serde(default, rename = "parallel_tool_calls")]
        pub _parallel_tool_calls: Option<bool>,
        /// Taken for compatibility.
        #[serde(default, rename = "metadata")]
        #[schema(value_type = Option<Object>)]
        pub _metadata: Option<Value>,
        /// Taken for compatibility.
        #[serde(default, rename = "store")]
        pub _store: Option<bool>,
        /// Taken for compatibility.
        #[serde(default, rename = "service_tier")]
        pub _service_tier: Option<String>,
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
    /// Taken for compatibility.
    #[serde(default, rename = "name")]
    pub _name: Option<String>,
    /// As in answers; taken for compatibility.
    #[serde(default, rename = "refusal")]
    pub _refusal: Option<String>,
    /// Not supported; null or an empty list is.
    #[serde(default)]
    #[schema(value_type = Option<Vec<Object>>)]
    pub tool_calls: Option<Vec<Value>>,
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
    content: String,
    refusal: Option<String>,
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
}

impl ChatRequest {
    /// The turns.
    fn said(&self) -> Result<Vec<Message>, Refusal> {
        if self.messages.is_empty() {
            return Err(Refusal::field("messages", "messages is empty; say something"));
        }
        self.messages.iter().enumerate().map(|(i, message)| message.said(i)).collect()
    }

    /// Refuses what this server has not.
    fn check_unsupported(&self) -> Result<(), Refusal> {
        if self.tools.as_ref().is_some_and(|tools| !tools.is_empty()) {
            return Err(Refusal::field("tools", "tools are not supported; leave them out"));
        }
        match &self.tool_choice {
            Some(choice) if choice != "none" && choice != "auto" => {
                Err(Refusal::field("tool_choice", "tool_choice must be `none` or `auto`: there are no tools"))
            }
            _ => Ok(()),
        }
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
        }
    }
}

impl ChatMessage {
    fn said(&self, i: usize) -> Result<Message, Refusal> {
        let missing = |name: &str| Refusal::field(format!("messages[{i}].{name}"), format!("{name} is not supported"));
        if self.tool_calls.as_ref().is_some_and(|calls| !calls.is_empty()) {
            return Err(missing("tool_calls"));
        }
        if self.function_call.is_some() {
            return Err(missing("function_call"));
        }
        if self.audio.is_some() {
            return Err(missing("audio"));
        }
        let place = format!("messages[{i}].content");
        match &self.content {
            None => Err(Refusal::field(place, "a message needs its content")),
            Some(content) => Ok(Message { role: self.role.role(), content: content.text(&place)? }),
        }
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
    asked.check_unsupported()?;
    let (streams, tells) = asked.streams()?;
    let (drawing, top, messages) = (asked.drawing(&app)?, asked.top()?, asked.said()?);
    let (max_tokens, choices) = (asked.most(app.served.context)?, drawing.choices);
    let form = asked.response_format.as_ref().map(Form::of).transpose()?.flatten();
    let (replies, prompt) = Talk { messages, drawing, top, max_tokens, form }.begin(&app, since).await?;
    let usage = Usage::of(prompt);
    let heading = Heading::new(&app, "chatcmpl");
    if streams {
        return Ok(stream::response(replies, choices, Chunks { heading, usage, tells, choices }));
    }
    whole_answer(heading, usage, choices, replies).await
}

/// The answer in one piece.
async fn whole_answer(
    heading: Heading,
    mut usage: Usage,
    choices: usize,
    replies: crate::worker::Replies,
) -> Result<Response, Refusal> {
    let served = &heading.app.served;
    let take = |index, reply| {
        let Reply::End(outcome) = reply else { return Ok(None) };
        let Outcome { text, logprobs, finish, .. } = (*outcome).inspect(|outcome| usage.add(outcome))?;
        let content: Vec<TokenLogprob> = logprobs.iter().map(|logprob| served.told(logprob)).collect();
        let logprobs = (!content.is_empty()).then_some(ChatLogprobs { content, refusal: None });
        let message = Said { role: "assistant", content: text, refusal: None };
        Ok(Some(ChatChoice { index, message, logprobs, finish_reason: reason(finish) }))
    };
    let choices = stream::collect(replies, choices, take).await?;
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
    choices: usize,
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

impl Events for Chunks {
    fn begin(&mut self, out: &mut Sink) {
        for index in 0..self.choices {
            let delta = Delta { role: Some("assistant"), content: Some(String::new()) };
            self.chunk(vec![ChunkChoice { index, delta, logprobs: None, finish_reason: None }], None, out);
        }
    }

    fn reply(&mut self, index: usize, reply: Reply, out: &mut Sink) -> Result<(), Refusal> {
        match reply {
            Reply::Begun | Reply::Prompt(_) => {}
            Reply::Text(text, None) if text.is_empty() => {}
            Reply::Text(text, logprob) => {
                let content = logprob.map(|logprob| vec![self.heading.app.served.told(&logprob)]);
                let logprobs = content.map(|content| ChatLogprobs { content, refusal: None });
                let delta = Delta { role: None, content: Some(text) };
                self.chunk(vec![ChunkChoice { index, delta, logprobs, finish_reason: None }], None, out);
            }
            Reply::End(outcome) => {
                let outcome = (*outcome)?;
                self.usage.add(&outcome);
                let finish_reason = Some(reason(outcome.finish));
                let last = ChunkChoice { index, delta: Delta::default(), logprobs: None, finish_reason };
                self.chunk(vec![last], None, out);
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
