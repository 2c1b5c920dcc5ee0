//! `POST /v1/responses`: chats as OpenAI's newer interface asks for them. Nothing is stored.

use super::answer::Heading;
use super::chat::ChatRole;
use super::talk::{self, Content, Talk};
use super::tools::{self, Choice, Offered};
use crate::app::App;
use crate::body;
use crate::calls::{CallParser, Called, Calls, Piece};
use crate::grammar::Form;
use crate::parameters::{Asked, core_request, whole};
use crate::refusal::{ErrorBody, Refusal};
use crate::stream::{self, Events, Sink};
use crate::worker::Reply;
use axum::extract::{Request, State};
use axum::response::Response;
use lowbit_model::chat::{Message, Role};
use lowbit_model::generate::{Finish, Outcome};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;
use utoipa::ToSchema;

core_request! {
    /// A chat to answer.
    struct ResponsesRequest {
        /// What is said.
        pub input: Input,
        /// Instructions to the model, before what is said.
        #[serde(default)]
        pub instructions: Option<String>,
        /// Tokens of the answer at most; all that the context has room for by default.
        #[serde(default)]
        #[schema(minimum = 1)]
        pub max_output_tokens: Option<i64>,
        /// What the answer must look like: `{"format": {"type": "json_schema", "schema": ..}}`, `json_object`, `regex` (with `regex`), or
        /// `text`.
        #[serde(default)]
        #[schema(value_type = Option<Object>)]
        pub text: Option<Value>,
        /// Functions that the model may call, where its template takes such: `{"type": "function", "name", "description", "parameters"}`.
        #[serde(default)]
        #[schema(value_type = Option<Vec<Object>>)]
        pub tools: Option<Vec<Value>>,
        /// `auto`, `none`, `required`, or a function that must be called, `{"type": "function", "name": ..}`.
        #[serde(default)]
        #[schema(value_type = Option<Object>)]
        pub tool_choice: Option<Value>,
        /// Whether an answer may call several functions, as it may where nothing is said.
        #[serde(default)]
        pub parallel_tool_calls: Option<bool>,
        /// Not supported: nothing is stored. Null is.
        #[serde(default)]
        pub previous_response_id: Option<String>,
        /// Only `disabled`.
        #[serde(default)]
        pub truncation: Option<String>,
        /// Only false.
        #[serde(default)]
        pub background: Option<bool>,
        /// Taken for compatibility: nothing is stored.
        #[serde(default, rename = "store")]
        pub _store: Option<bool>,
        /// Taken for compatibility.
        #[serde(default, rename = "reasoning")]
        #[schema(value_type = Option<Object>)]
        pub _reasoning: Option<Value>,
        /// Taken for compatibility.
        #[serde(default, rename = "include")]
        #[schema(value_type = Option<Vec<String>>)]
        pub _include: Option<Value>,
        /// Taken for compatibility.
        #[serde(default, rename = "user")]
        pub _user: Option<String>,
    }
}

/// What is said: a text, or turns.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a text, or a list of messages with `role` and `content`")]
pub(crate) enum Input {
    /// A text.
    Text(String),
    /// Turns.
    Items(Vec<Item>),
}

/// A turn, a call of a function, or its result.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct Item {
    /// `message`, or left out; `function_call`; `function_call_output`.
    #[serde(default)]
    pub r#type: Option<String>,
    /// Of a message who speaks.
    #[serde(default)]
    pub role: Option<ChatRole>,
    /// Of a message what is said.
    #[serde(default)]
    pub content: Option<Content>,
    /// Of a call its name, which the result repeats.
    #[serde(default)]
    pub call_id: Option<String>,
    /// Of a call the function.
    #[serde(default)]
    pub name: Option<String>,
    /// Of a call what it was called with, the text of a JSON object.
    #[serde(default)]
    pub arguments: Option<String>,
    /// Of a result the result.
    #[serde(default)]
    pub output: Option<Content>,
}

impl ResponsesRequest {
    fn talk(&self, app: &App) -> Result<Talk, Refusal> {
        self.check_unsupported()?;
        let max_tokens = whole("max_output_tokens", self.max_output_tokens, 1..=app.served.context as i64)?;
        let asked = Asked { temperature: self.temperature, top_p: self.top_p, ..Asked::default() };
        let mut messages: Vec<Message> =
            self.instructions.iter().map(|text| Message::new(Role::System, text)).collect();
        match &self.input {
            Input::Text(text) => messages.push(Message::new(Role::User, text)),
            Input::Items(items) if items.is_empty() => {
                return Err(Refusal::field("input", "input is empty; say something"));
            }
            Input::Items(items) => {
                items.iter().enumerate().try_for_each(|(i, item)| item.add(&format!("input[{i}]"), &mut messages))?;
            }
        }
        let format = self.text.as_ref().and_then(|text| text.get("format"));
        let form = format.map(|format| Form::of(format, "text.format")).transpose()?.flatten();
        let choice = Choice::openai(self.tool_choice.as_ref())?;
        Ok(Talk {
            messages: talk::named(messages),
            drawing: asked.check(app)?,
            top: None,
            max_tokens: max_tokens.map(|most| most as usize),
            form: form.map(|form| (form, "text.format")),
            tools: Offered::responses(self.tools.as_deref(), choice, self.parallel_tool_calls == Some(false))?,
        })
    }

    /// Refuses what this server has not.
    fn check_unsupported(&self) -> Result<(), Refusal> {
        let rules = [
            ("previous_response_id", self.previous_response_id.is_some(), "nothing is stored here: it is not"),
            ("truncation", self.truncation.as_ref().is_some_and(|how| how != "disabled"), "only `disabled` is"),
            ("background", self.background == Some(true), "answers in the background are not"),
        ];
        match rules.into_iter().find(|(_, wrong, _)| *wrong) {
            Some((name, _, what)) => Err(Refusal::field(name, format!("{name}: {what} supported"))),
            None => Ok(()),
        }
    }
}

impl Item {
    /// Adds what it is to the messages; `place` is its field.
    fn add(&self, place: &str, messages: &mut Vec<Message>) -> Result<(), Refusal> {
        let missing =
            |name: &str| Refusal::field(format!("{place}.{name}"), format!("an item of its type needs its {name}"));
        match self.r#type.as_deref().unwrap_or("message") {
            "message" => {
                let role = self.role.filter(|role| !matches!(role, ChatRole::Tool)).ok_or_else(|| missing("role"))?;
                let content = self.content.as_ref().ok_or_else(|| missing("content"))?;
                messages.push(Message::new(role.role(), content.text(&format!("{place}.content"))?));
            }
            "function_call" => {
                let id = self.call_id.as_deref().ok_or_else(|| missing("call_id"))?;
                let name = self.name.as_deref().ok_or_else(|| missing("name"))?;
                let arguments = self.arguments.as_deref().unwrap_or_default();
                let call = tools::earlier(&format!("{place}.arguments"), id, name, arguments)?;
                // Calls belong to what the model said before them.
                match messages.last_mut().filter(|last| last.role == Role::Assistant) {
                    Some(last) => last.tool_calls.push(call),
                    None => {
                        messages.push(Message { tool_calls: vec![call], ..Message::new(Role::Assistant, "") });
                    }
                }
            }
            "function_call_output" => {
                let id = self.call_id.clone().ok_or_else(|| missing("call_id"))?;
                let output = self.output.as_ref().ok_or_else(|| missing("output"))?;
                let output = output.text(&format!("{place}.output"))?;
                messages.push(Message { tool_call_id: Some(id), ..Message::new(Role::Tool, output) });
            }
            // What a model thought is no part of what it is asked.
            "reasoning" => {}
            _ => {
                let text = "items are of the type `message`, `function_call` or `function_call_output`";
                return Err(Refusal::field(format!("{place}.type"), text));
            }
        }
        Ok(())
    }
}

/// Answers a chat, as OpenAI's newer interface asks for it.
#[utoipa::path(
    post, path = "/v1/responses", tag = "others", request_body = ResponsesRequest, security(("key" = []), ()),
    responses(
        (status = 200, description = "The response; with `stream` events as OpenAI's", content(
            (Object = "application/json"), (String = "text/event-stream"))),
        (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 408, body = ErrorBody), (status = 413, body = ErrorBody), (status = 429, body = ErrorBody),
        (status = 503, body = ErrorBody),
    )
)]
pub(crate) async fn create(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let since = Instant::now();
    let asked: ResponsesRequest = body::json(&app, request).await?;
    app.check_model(asked.model.as_deref())?;
    app.worker()?;
    let talk = asked.talk(&app)?;
    let begun = talk.begin(&app, since).await?;
    let (heading, item) = (Heading::new(&app, "resp"), app.id("msg"));
    let streams = asked.stream.unwrap_or(false);
    let parser = begun.parsers(1).and_then(|mut parsers| parsers.pop());
    let (prompt, calls) = (begun.prompt, begun.calls);
    let telling = Telling {
        heading,
        item,
        asked,
        prompt,
        calls,
        number: 0,
        text: None,
        parser,
        items: Vec::new(),
        outcome: None,
    };
    if streams {
        return Ok(stream::response(begun.replies, 1, telling));
    }
    let outcome = stream::outcome(begun.replies).await?;
    Ok(super::json(&telling.whole(&outcome)))
}

/// What is told of an answer.
struct Telling {
    heading: Heading,
    /// Name of the message.
    item: String,
    asked: ResponsesRequest,
    /// Tokens of the prompt.
    prompt: usize,
    /// How calls of functions are found, and what finds them in pieces.
    calls: Option<Arc<Calls>>,
    parser: Option<CallParser>,
    /// Number of the next event.
    number: usize,
    /// The text of a message that goes on.
    text: Option<String>,
    /// Messages and calls that are complete.
    items: Vec<Value>,
    outcome: Option<Outcome>,
}

impl Telling {
    fn status(outcome: &Outcome) -> &'static str {
        if outcome.finish == Finish::Length { "incomplete" } else { "completed" }
    }

    fn part(text: &str) -> Value {
        json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
    }

    fn message(&self, status: &str, content: &[Value]) -> Value {
        json!({"type": "message", "id": self.item, "status": status, "role": "assistant", "content": content})
    }

    /// A call; one that only begins has no arguments.
    fn call(&self, (id, call_id): (&str, &str), name: &str, arguments: Option<&str>) -> Value {
        let status = if arguments.is_some() { "completed" } else { "in_progress" };
        json!({
            "type": "function_call", "id": id, "call_id": call_id, "name": name, "arguments": arguments.unwrap_or_default(),
            "status": status,
        })
    }

    /// The response to an answer in one piece.
    fn whole(&self, outcome: &Outcome) -> Value {
        let (text, called) = talk::split(self.calls.as_ref(), outcome.text.clone());
        let has_text = called.is_empty() || !text.is_empty();
        let message = has_text.then(|| self.message(Self::status(outcome), &[Self::part(&text)]));
        let app = &self.heading.app;
        let call = |(name, arguments): Called| {
            let arguments = json!(arguments).to_string();
            self.call((&app.id("fc"), &app.call_id()), &name, Some(&arguments))
        };
        let items: Vec<Value> = message.into_iter().chain(called.into_iter().map(call)).collect();
        self.response(Some(outcome), &items)
    }

    /// The response, or how it begins.
    fn response(&self, outcome: Option<&Outcome>, output: &[Value]) -> Value {
        let cut = outcome.is_some_and(|outcome| outcome.finish == Finish::Length);
        let usage = outcome.map(|outcome| {
            let (input, output) = (self.prompt, outcome.tokens.len());
            json!({
                "input_tokens": input, "input_tokens_details": {"cached_tokens": outcome.stats.cached_tokens},
                "output_tokens": output, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": input + output,
            })
        });
        let asked = &self.asked;
        let text = asked.text.clone().unwrap_or_else(|| json!({"format": {"type": "text"}}));
        json!({
            "id": self.heading.id, "object": "response", "created_at": self.heading.created,
            "status": outcome.map_or("in_progress", Self::status), "error": null,
            "incomplete_details": cut.then(|| json!({"reason": "max_output_tokens"})),
            "instructions": asked.instructions, "max_output_tokens": asked.max_output_tokens,
            "model": self.heading.model(), "output": output, "parallel_tool_calls": asked.parallel_tool_calls.unwrap_or(true),
            "previous_response_id": null, "reasoning": {"effort": null, "summary": null}, "store": false,
            "temperature": asked.temperature, "text": text, "tool_choice": asked.tool_choice.clone().unwrap_or_else(|| "auto".into()),
            "tools": asked.tools.clone().unwrap_or_default(), "top_p": asked.top_p,
            "truncation": "disabled", "usage": usage, "user": null, "metadata": {},
        })
    }

    fn event(&mut self, name: &str, mut fields: Value, out: &mut Sink) {
        fields["type"] = json!(name);
        fields["sequence_number"] = json!(self.number);
        self.number += 1;
        out.event(name, &fields);
    }

    /// An event about the text of the message.
    fn about(&mut self, name: &str, key: &str, value: Value, out: &mut Sink) {
        let place = self.items.len();
        let mut fields = json!({"item_id": self.item, "output_index": place, "content_index": 0, "logprobs": []});
        fields[key] = value;
        self.event(name, fields, out);
    }

    /// Begins a message, if none goes on.
    fn open(&mut self, out: &mut Sink) {
        if self.text.is_none() {
            if !self.items.is_empty() {
                self.item = self.heading.app.id("msg");
            }
            let item = self.message("in_progress", &[]);
            self.event("response.output_item.added", json!({"output_index": self.items.len(), "item": item}), out);
            self.about("response.content_part.added", "part", Self::part(""), out);
            self.text = Some(String::new());
        }
    }

    /// Ends the message that goes on.
    fn close(&mut self, status: &str, out: &mut Sink) {
        let Some(text) = self.text.take() else { return };
        self.about("response.output_text.done", "text", json!(text), out);
        self.about("response.content_part.done", "part", Self::part(&text), out);
        let item = self.message(status, &[Self::part(&text)]);
        self.event("response.output_item.done", json!({"output_index": self.items.len(), "item": item}), out);
        self.items.push(item);
    }

    fn piece(&mut self, piece: Piece, out: &mut Sink) {
        match piece {
            Piece::Text(text) => {
                self.open(out);
                self.text.get_or_insert_default().push_str(&text);
                self.about("response.output_text.delta", "delta", json!(text), out);
            }
            Piece::Call(name, arguments) => {
                self.close("completed", out);
                let (id, call_id) = (self.heading.app.id("fc"), self.heading.app.call_id());
                let (place, arguments) = (self.items.len(), json!(arguments).to_string());
                let begun = self.call((&id, &call_id), &name, None);
                self.event("response.output_item.added", json!({"output_index": place, "item": begun}), out);
                let delta = json!({"item_id": id, "output_index": place, "delta": arguments});
                self.event("response.function_call_arguments.delta", delta, out);
                let done = json!({"item_id": id, "output_index": place, "name": name, "arguments": arguments});
                self.event("response.function_call_arguments.done", done, out);
                let item = self.call((&id, &call_id), &name, Some(&arguments));
                self.event("response.output_item.done", json!({"output_index": place, "item": item}), out);
                self.items.push(item);
            }
        }
    }
}

impl Events for Telling {
    fn begin(&mut self, out: &mut Sink) {
        let response = self.response(None, &[]);
        self.event("response.created", json!({"response": response}), out);
        self.event("response.in_progress", json!({"response": response}), out);
        if self.parser.is_none() {
            self.open(out);
        }
    }

    fn reply(&mut self, _: usize, reply: Reply, out: &mut Sink) -> Result<(), Refusal> {
        match reply {
            Reply::Text(text, _) if !text.is_empty() => match self.parser.as_mut().map(|parser| parser.push(&text)) {
                None => self.piece(Piece::Text(text), out),
                Some(pieces) => pieces.into_iter().for_each(|piece| self.piece(piece, out)),
            },
            Reply::End(outcome) => self.outcome = Some((*outcome)?),
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Sink) {
        let Some(outcome) = self.outcome.take() else { return };
        let rest = self.parser.as_mut().map(CallParser::finish).unwrap_or_default();
        rest.into_iter().for_each(|piece| self.piece(piece, out));
        if self.items.is_empty() {
            self.open(out);
        }
        let status = Self::status(&outcome);
        self.close(status, out);
        let (name, response) = (format!("response.{status}"), self.response(Some(&outcome), &self.items));
        self.event(&name, json!({"response": response}), out);
    }

    fn fail(&mut self, refusal: &Refusal, out: &mut Sink) {
        let mut response = self.response(None, &[]);
        response["status"] = json!("failed");
        response["error"] = json!({"code": "server_error", "message": refusal.detail.message});
        self.event("response.failed", json!({"response": response}), out);
    }
}
