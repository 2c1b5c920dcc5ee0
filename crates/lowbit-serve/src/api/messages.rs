//! `POST /v1/messages`: chats as Anthropic's clients ask for them.

use super::answer::Heading;
use super::talk::{Content, Talk, stopped_by};
use crate::app::App;
use crate::body;
use crate::parameters::{Asked, OneOrMany, whole};
use crate::refusal::{ErrorBody, Refusal};
use crate::stream::{self, Events, Sink};
use crate::worker::Reply;
use axum::extract::{Request, State};
use axum::response::Response;
use lowbit_model::chat::{Message, Role};
use lowbit_model::generate::{Finish, Outcome};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;
use utoipa::ToSchema;

/// A chat to answer.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MessagesRequest {
    /// What was said so far.
    #[schema(min_items = 1)]
    pub messages: Vec<Turn>,
    /// Tokens of the answer at most.
    #[schema(minimum = 1)]
    pub max_tokens: i64,
    /// The model's name; there is one model, so that it may be left out.
    #[serde(default)]
    pub model: Option<String>,
    /// Instructions to the model.
    #[serde(default)]
    pub system: Option<Content>,
    /// Randomness of the answer.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 2)]
    pub temperature: Option<f64>,
    /// Draw from the fewest tokens that have this much probability together.
    #[serde(default)]
    #[schema(exclusive_minimum = 0, maximum = 1)]
    pub top_p: Option<f64>,
    /// Draw from this many tokens.
    #[serde(default)]
    #[schema(minimum = -1, maximum = 1_000_000)]
    pub top_k: Option<i64>,
    /// Texts that end the answer; at most 4 of 64 bytes.
    #[serde(default)]
    pub stop_sequences: Option<Vec<String>>,
    /// Send the answer as it comes.
    #[serde(default)]
    pub stream: Option<bool>,
    /// Not supported; an empty list is.
    #[serde(default)]
    #[schema(value_type = Option<Vec<Object>>)]
    pub tools: Option<Vec<Value>>,
    /// Taken for compatibility.
    #[serde(default, rename = "tool_choice")]
    #[schema(value_type = Option<Object>)]
    pub _tool_choice: Option<Value>,
    /// Taken for compatibility.
    #[serde(default, rename = "metadata")]
    #[schema(value_type = Option<Object>)]
    pub _metadata: Option<Value>,
    /// Taken for compatibility.
    #[serde(default, rename = "service_tier")]
    pub _service_tier: Option<String>,
    /// Only `{"type": "disabled"}`.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub thinking: Option<Value>,
}

/// A turn of a chat.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Turn {
    /// Who speaks.
    pub role: TurnRole,
    /// What is said.
    pub content: Content,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TurnRole {
    /// The person.
    User,
    /// The model.
    Assistant,
}

/// The answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessagesAnswer<'a> {
    id: &'a str,
    r#type: &'static str,
    role: &'static str,
    model: &'a str,
    content: Vec<Block>,
    /// `end_turn`, `max_tokens` or `stop_sequence`.
    stop_reason: Option<&'static str>,
    stop_sequence: Option<&'a str>,
    usage: Counts,
}

/// A block of the answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Block {
    r#type: &'static str,
    text: String,
}

/// Tokens of a request.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(crate) struct Counts {
    input_tokens: usize,
    output_tokens: usize,
    cache_read_input_tokens: usize,
}

impl MessagesRequest {
    fn talk(&self, app: &App) -> Result<Talk, Refusal> {
        if self.messages.is_empty() {
            return Err(Refusal::field("messages", "messages is empty; say something"));
        }
        if self.tools.as_ref().is_some_and(|tools| !tools.is_empty()) {
            return Err(Refusal::field("tools", "tools are not supported; leave them out"));
        }
        if self.thinking.as_ref().is_some_and(|thinking| thinking["type"] != "disabled") {
            return Err(Refusal::field("thinking", "thinking is not supported; leave it out"));
        }
        let max_tokens = whole("max_tokens", Some(self.max_tokens), 1..=app.served.context as i64)?;
        let asked = Asked {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            stop: self.stop_sequences.clone().map(OneOrMany::Many),
            ..Asked::default()
        };
        let drawing = asked.check(app).map_err(|refusal| match refusal.detail.param.as_deref() {
            Some("stop") => refusal.of("stop_sequences"),
            _ => refusal,
        })?;
        let system = self.system.as_ref().map(|content| content.text("system")).transpose()?;
        let system = system.filter(|text| !text.is_empty()).map(|text| Ok(Message::new(Role::System, text)));
        let said = self.messages.iter().enumerate().map(|(i, turn)| {
            let role = match turn.role {
                TurnRole::User => Role::User,
                TurnRole::Assistant => Role::Assistant,
            };
            Ok(Message::new(role, turn.content.text(&format!("messages[{i}].content"))?))
        });
        let messages = system.into_iter().chain(said).collect::<Result<_, Refusal>>()?;
        Ok(Talk { messages, drawing, top: None, max_tokens: max_tokens.map(|most| most as usize), form: None })
    }
}

/// Answers a chat, as Anthropic's clients ask for it.
#[utoipa::path(
    post, path = "/v1/messages", tag = "others", request_body = MessagesRequest, security(("key" = []), ()),
    responses(
        (status = 200, description = "The answer; with `stream` events as Anthropic's", content(
            (MessagesAnswer = "application/json"), (String = "text/event-stream"))),
        (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 408, body = ErrorBody), (status = 413, body = ErrorBody), (status = 429, body = ErrorBody),
        (status = 503, body = ErrorBody),
    )
)]
pub(crate) async fn create(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let since = Instant::now();
    let asked: MessagesRequest = body::json(&app, request).await?;
    app.check_model(asked.model.as_deref())?;
    app.worker()?;
    let talk = asked.talk(&app)?;
    let stops = talk.drawing.stop.clone();
    let (replies, input_tokens) = talk.begin(&app, since).await?;
    let telling =
        Telling { heading: Heading::new(&app, "msg"), counts: Counts { input_tokens, ..Counts::default() }, stops };
    if asked.stream.unwrap_or(false) {
        return Ok(stream::response(replies, 1, telling));
    }
    let outcome = stream::outcome(replies).await?;
    Ok(super::json(&telling.answer(Some(&outcome))))
}

/// What is told of an answer.
struct Telling {
    heading: Heading,
    counts: Counts,
    stops: Vec<String>,
}

impl Telling {
    /// Why it ended.
    fn ending(&self, outcome: &Outcome) -> (&'static str, Option<&str>) {
        match (outcome.finish, stopped_by(&self.heading.app, outcome, &self.stops)) {
            (Finish::Length, _) => ("max_tokens", None),
            (_, Some(stop)) => ("stop_sequence", Some(stop)),
            (_, None) => ("end_turn", None),
        }
    }

    fn counted(&self, outcome: &Outcome) -> Counts {
        let (output_tokens, cache_read_input_tokens) = (outcome.tokens.len(), outcome.stats.cached_tokens);
        Counts { output_tokens, cache_read_input_tokens, ..self.counts.clone() }
    }

    /// The answer, or how it begins.
    fn answer(&self, outcome: Option<&Outcome>) -> MessagesAnswer<'_> {
        let ending = outcome.map(|outcome| self.ending(outcome));
        MessagesAnswer {
            id: &self.heading.id,
            r#type: "message",
            role: "assistant",
            model: self.heading.model(),
            content: outcome.map(|outcome| Block { r#type: "text", text: outcome.text.clone() }).into_iter().collect(),
            stop_reason: ending.map(|(reason, _)| reason),
            stop_sequence: ending.and_then(|(_, stop)| stop),
            usage: outcome.map_or_else(|| self.counts.clone(), |outcome| self.counted(outcome)),
        }
    }
}

impl Events for Telling {
    fn begin(&mut self, out: &mut Sink) {
        out.event("message_start", &json!({"type": "message_start", "message": self.answer(None)}));
        let block = json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}});
        out.event("content_block_start", &block);
    }

    fn reply(&mut self, _: usize, reply: Reply, out: &mut Sink) -> Result<(), Refusal> {
        match reply {
            Reply::Text(text, _) if !text.is_empty() => {
                let delta = json!({"type": "text_delta", "text": text});
                out.event("content_block_delta", &json!({"type": "content_block_delta", "index": 0, "delta": delta}));
            }
            Reply::End(outcome) => {
                let outcome = (*outcome)?;
                let (stop_reason, stop_sequence) = self.ending(&outcome);
                out.event("content_block_stop", &json!({"type": "content_block_stop", "index": 0}));
                let delta = json!({"stop_reason": stop_reason, "stop_sequence": stop_sequence});
                let usage = self.counted(&outcome);
                out.event("message_delta", &json!({"type": "message_delta", "delta": delta, "usage": usage}));
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Sink) {
        out.event("message_stop", &json!({"type": "message_stop"}));
    }

    fn fail(&mut self, refusal: &Refusal, out: &mut Sink) {
        let error = json!({"type": refusal.detail.r#type, "message": refusal.detail.message});
        out.event("error", &json!({"type": "error", "error": error}));
    }
}
