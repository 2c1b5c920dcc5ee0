//! `POST /v1/messages`: chats as Anthropic's clients ask for them.

use super::answer::Heading;
use super::talk::{self, Content, Part, Talk, stopped_by};
use super::tools::{Choice, Offered};
use crate::app::App;
use crate::body;
use crate::calls::{CallParser, Calls, Piece};
use crate::parameters::{Asked, OneOrMany, core_request, whole};
use crate::refusal::{ErrorBody, Refusal};
use crate::stream::{self, Events, Sink};
use crate::worker::Reply;
use axum::extract::{Request, State};
use axum::response::Response;
use lowbit_model::chat::{Message, Role, ToolCall};
use lowbit_model::generate::{Finish, Outcome};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Instant;
use utoipa::ToSchema;

core_request! {
    /// A chat to answer.
    struct MessagesRequest {
        /// What was said so far.
        #[schema(min_items = 1)]
        pub messages: Vec<Turn>,
        /// Tokens of the answer at most.
        #[schema(minimum = 1)]
        pub max_tokens: i64,
        /// Instructions to the model.
        #[serde(default)]
        pub system: Option<Content>,
        /// Draw from this many tokens.
        #[serde(default)]
        #[schema(minimum = -1, maximum = 1_000_000)]
        pub top_k: Option<i64>,
        /// Texts that end the answer; at most 4 of 64 bytes.
        #[serde(default)]
        pub stop_sequences: Option<Vec<String>>,
        /// Functions that the model may call, where its template takes such: `{"name", "description", "input_schema"}`.
        #[serde(default)]
        #[schema(value_type = Option<Vec<Object>>)]
        pub tools: Option<Vec<Value>>,
        /// `{"type": "auto"}`, `any`, `none`, or `tool` with a `name`.
        #[serde(default)]
        #[schema(value_type = Option<Object>)]
        pub tool_choice: Option<Value>,
        /// Only `{"type": "disabled"}`.
        #[serde(default)]
        #[schema(value_type = Option<Object>)]
        pub thinking: Option<Value>,
    }
}

/// A turn of a chat.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Turn {
    /// Who speaks.
    pub role: TurnRole,
    /// What is said.
    pub content: TurnContent,
}

/// What is said in a turn: a text, or blocks.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a text, or a list of blocks like {\"type\": \"text\", \"text\": \"..\"}")]
pub(crate) enum TurnContent {
    /// A text.
    Text(String),
    /// Blocks.
    Blocks(Vec<TurnBlock>),
}

/// A block of a turn.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct TurnBlock {
    /// `text`, `tool_use` (of the model) or `tool_result` (of the person).
    pub r#type: String,
    /// Of `text` the text.
    #[serde(default)]
    pub text: Option<String>,
    /// Of `tool_use` its name, which the result repeats.
    #[serde(default)]
    pub id: Option<String>,
    /// Of `tool_use` the function.
    #[serde(default)]
    pub name: Option<String>,
    /// Of `tool_use` what it was called with.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub input: Option<Map<String, Value>>,
    /// Of `tool_result` the call that it answers.
    #[serde(default)]
    pub tool_use_id: Option<String>,
    /// Of `tool_result` the result.
    #[serde(default)]
    pub content: Option<Content>,
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
    /// `end_turn`, `max_tokens`, `stop_sequence` or `tool_use`.
    stop_reason: Option<&'static str>,
    stop_sequence: Option<&'a str>,
    usage: Counts,
}

/// A block of the answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Block {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// A call of a function.
    ToolUse {
        /// Its name, which the result repeats.
        id: String,
        /// The function.
        name: String,
        /// What it is called with.
        #[schema(value_type = Object)]
        input: Map<String, Value>,
    },
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
        let said = self.messages.iter().enumerate().map(|(i, turn)| turn.said(&format!("messages[{i}].content")));
        let said = said.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().map(Ok);
        let messages = system.into_iter().chain(said).collect::<Result<_, Refusal>>()?;
        let (choice, single) = Choice::anthropic(self.tool_choice.as_ref())?;
        Ok(Talk {
            messages: talk::named(messages),
            drawing,
            top: None,
            max_tokens: max_tokens.map(|most| most as usize),
            form: None,
            tools: Offered::messages(self.tools.as_deref(), choice, single)?,
        })
    }
}

impl Turn {
    /// The messages that it is: results of functions come first, each as one.
    fn said(&self, place: &str) -> Result<Vec<Message>, Refusal> {
        let (role, is_model) = match self.role {
            TurnRole::User => (Role::User, false),
            TurnRole::Assistant => (Role::Assistant, true),
        };
        let blocks = match &self.content {
            TurnContent::Text(text) => return Ok(vec![Message::new(role, text)]),
            TurnContent::Blocks(blocks) => blocks,
        };
        let (mut texts, mut calls, mut said) = (Vec::new(), Vec::new(), Vec::new());
        for (i, block) in blocks.iter().enumerate() {
            let place = format!("{place}[{i}]");
            match (&*block.r#type, is_model) {
                ("tool_use", true) => calls.push(block.call(&place)?),
                ("tool_result", false) => {
                    let content = block.content.as_ref().map(|content| content.text(&format!("{place}.content")));
                    let content = content.transpose()?.unwrap_or_default();
                    said.push(Message { tool_call_id: block.tool_use_id.clone(), ..Message::new(Role::Tool, content) });
                }
                (kind, _) => {
                    let part = Part { r#type: kind.to_owned(), text: block.text.clone() };
                    texts.push(part.said(&place)?);
                }
            }
        }
        if said.is_empty() || !texts.is_empty() {
            said.push(Message { tool_calls: calls, ..Message::new(role, texts.join("\n")) });
        }
        Ok(said)
    }
}

impl TurnBlock {
    /// The call of a function that it is.
    fn call(&self, place: &str) -> Result<ToolCall, Refusal> {
        let needed = |value: &Option<String>, name: &str| {
            value.clone().ok_or_else(|| Refusal::field(format!("{place}.{name}"), format!("a call needs its {name}")))
        };
        let (id, name) = (needed(&self.id, "id")?, needed(&self.name, "name")?);
        Ok(ToolCall { id, name, arguments: self.input.clone().unwrap_or_default() })
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
    let begun = talk.begin(&app, since).await?;
    let counts = Counts { input_tokens: begun.prompt, ..Counts::default() };
    let parser = begun.parsers(1).and_then(|mut parsers| parsers.pop());
    let heading = Heading::new(&app, "msg");
    let telling = Telling { heading, counts, stops, calls: begun.calls, parser, blocks: 0, is_text: false };
    if asked.stream.unwrap_or(false) {
        return Ok(stream::response(begun.replies, 1, telling));
    }
    let outcome = stream::outcome(begun.replies).await?;
    Ok(super::json(&telling.answer(Some(&outcome))))
}

/// What is told of an answer.
struct Telling {
    heading: Heading,
    counts: Counts,
    stops: Vec<String>,
    /// How calls of functions are found, and what finds them in pieces.
    calls: Option<Arc<Calls>>,
    parser: Option<CallParser>,
    /// Blocks that were begun, and whether the last one is text and goes on.
    blocks: usize,
    is_text: bool,
}

impl Telling {
    /// Why it ended.
    fn ending(&self, outcome: &Outcome, calls: usize) -> (&'static str, Option<&str>) {
        match (outcome.finish, stopped_by(&self.heading.app, outcome, &self.stops)) {
            _ if calls > 0 => ("tool_use", None),
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
        let (text, called) =
            outcome.map_or_else(Default::default, |o| talk::split(self.calls.as_ref(), o.text.clone()));
        let ending = outcome.map(|outcome| self.ending(outcome, called.len()));
        let has_text = outcome.is_some() && (called.is_empty() || !text.is_empty());
        let call = |(name, input)| Block::ToolUse { id: self.heading.app.call_id(), name, input };
        let content =
            has_text.then_some(Block::Text { text }).into_iter().chain(called.into_iter().map(call)).collect();
        MessagesAnswer {
            id: &self.heading.id,
            r#type: "message",
            role: "assistant",
            model: self.heading.model(),
            content,
            stop_reason: ending.map(|(reason, _)| reason),
            stop_sequence: ending.and_then(|(_, stop)| stop),
            usage: outcome.map_or_else(|| self.counts.clone(), |outcome| self.counted(outcome)),
        }
    }
}

impl Telling {
    fn start(&mut self, block: &Value, out: &mut Sink) {
        let start = json!({"type": "content_block_start", "index": self.blocks, "content_block": block});
        out.event("content_block_start", &start);
        self.blocks += 1;
    }

    fn delta(&self, delta: &Value, out: &mut Sink) {
        let index = self.blocks.saturating_sub(1);
        out.event("content_block_delta", &json!({"type": "content_block_delta", "index": index, "delta": delta}));
    }

    fn stop(&self, out: &mut Sink) {
        let index = self.blocks.saturating_sub(1);
        out.event("content_block_stop", &json!({"type": "content_block_stop", "index": index}));
    }

    fn text_block(&mut self, out: &mut Sink) {
        if !self.is_text {
            self.start(&json!({"type": "text", "text": ""}), out);
            self.is_text = true;
        }
    }

    /// Ends a block of text that goes on.
    fn end_text(&mut self, out: &mut Sink) {
        if std::mem::take(&mut self.is_text) {
            self.stop(out);
        }
    }

    fn piece(&mut self, piece: Piece, out: &mut Sink) {
        match piece {
            Piece::Text(text) => {
                self.text_block(out);
                self.delta(&json!({"type": "text_delta", "text": text}), out);
            }
            Piece::Call(name, arguments) => {
                self.end_text(out);
                let id = self.heading.app.call_id();
                self.start(&json!({"type": "tool_use", "id": id, "name": name, "input": {}}), out);
                let arguments = json!(arguments).to_string();
                self.delta(&json!({"type": "input_json_delta", "partial_json": arguments}), out);
                self.stop(out);
            }
        }
    }
}

impl Events for Telling {
    fn begin(&mut self, out: &mut Sink) {
        out.event("message_start", &json!({"type": "message_start", "message": self.answer(None)}));
        if self.parser.is_none() {
            self.text_block(out);
        }
    }

    fn reply(&mut self, _: usize, reply: Reply, out: &mut Sink) -> Result<(), Refusal> {
        match reply {
            Reply::Text(text, _) if !text.is_empty() => match self.parser.as_mut().map(|parser| parser.push(&text)) {
                None => self.piece(Piece::Text(text), out),
                Some(pieces) => pieces.into_iter().for_each(|piece| self.piece(piece, out)),
            },
            Reply::End(outcome) => {
                let outcome = (*outcome)?;
                let rest = self.parser.as_mut().map(CallParser::finish).unwrap_or_default();
                rest.into_iter().for_each(|piece| self.piece(piece, out));
                if self.blocks == 0 {
                    self.text_block(out);
                }
                self.end_text(out);
                let calls = self.parser.as_ref().map_or(0, CallParser::found);
                let (stop_reason, stop_sequence) = self.ending(&outcome, calls);
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
