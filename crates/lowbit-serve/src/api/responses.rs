//! `POST /v1/responses`: chats as OpenAI's newer interface asks for them. Nothing is stored.

use super::answer::Heading;
use super::chat::ChatRole;
use super::talk::{Content, Talk};
use crate::app::App;
use crate::body;
use crate::parameters::{Asked, whole};
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

/// A chat to answer.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResponsesRequest {
    /// What is said.
    pub input: Input,
    /// The model's name; there is one model, so that it may be left out.
    #[serde(default)]
    pub model: Option<String>,
    /// Instructions to the model, before what is said.
    #[serde(default)]
    pub instructions: Option<String>,
    /// Tokens of the answer at most; all that the context has room for by default.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub max_output_tokens: Option<i64>,
    /// Randomness of the answer.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 2)]
    pub temperature: Option<f64>,
    /// Draw from the fewest tokens that have this much probability together.
    #[serde(default)]
    #[schema(exclusive_minimum = 0, maximum = 1)]
    pub top_p: Option<f64>,
    /// Send the answer as it comes.
    #[serde(default)]
    pub stream: Option<bool>,
    /// Only `{"format": {"type": "text"}}`.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub text: Option<Value>,
    /// Not supported; an empty list is.
    #[serde(default)]
    #[schema(value_type = Option<Vec<Object>>)]
    pub tools: Option<Vec<Value>>,
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
    #[serde(default, rename = "tool_choice")]
    #[schema(value_type = Option<Object>)]
    pub _tool_choice: Option<Value>,
    /// Taken for compatibility.
    #[serde(default, rename = "parallel_tool_calls")]
    pub _parallel_tool_calls: Option<bool>,
    /// Taken for compatibility.
    #[serde(default, rename = "metadata")]
    #[schema(value_type = Option<Object>)]
    pub _metadata: Option<Value>,
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

/// What is said: a text, or turns.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a text, or a list of messages with `role` and `content`")]
pub(crate) enum Input {
    /// A text.
    Text(String),
    /// Turns.
    Items(Vec<Item>),
}

/// A turn.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct Item {
    /// `message`, or left out.
    #[serde(default)]
    pub r#type: Option<String>,
    /// Who speaks.
    pub role: ChatRole,
    /// What is said.
    pub content: Content,
}

impl ResponsesRequest {
    fn talk(&self, app: &App) -> Result<Talk, Refusal> {
        self.check_unsupported()?;
        let max_tokens = whole("max_output_tokens", self.max_output_tokens, 1..=app.served.context as i64)?;
        let asked = Asked { temperature: self.temperature, top_p: self.top_p, ..Asked::default() };
        let instructions = self.instructions.iter().map(|text| Ok(Message::new(Role::System, text)));
        let said: Vec<Result<Message, Refusal>> = match &self.input {
            Input::Text(text) => vec![Ok(Message::new(Role::User, text))],
            Input::Items(items) => items.iter().enumerate().map(|(i, item)| item.said(i)).collect(),
        };
        if said.is_empty() {
            return Err(Refusal::field("input", "input is empty; say something"));
        }
        let messages = instructions.chain(said).collect::<Result<_, _>>()?;
        Ok(Talk {
            messages,
            drawing: asked.check(app)?,
            top: None,
            max_tokens: max_tokens.map(|most| most as usize),
            form: None,
        })
    }

    /// Refuses what this server has not.
    fn check_unsupported(&self) -> Result<(), Refusal> {
        let format = self.text.as_ref().and_then(|text| text.get("format"));
        let rules = [
            ("text", format.is_some_and(|format| format["type"] != "text"), "only the format {\"type\": \"text\"} is"),
            ("tools", self.tools.as_ref().is_some_and(|tools| !tools.is_empty()), "tools are not"),
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
    fn said(&self, i: usize) -> Result<Message, Refusal> {
        if self.r#type.as_ref().is_some_and(|kind| kind != "message") {
            return Err(Refusal::field(format!("input[{i}].type"), "only items of type `message` are supported"));
        }
        let role = self.role.role();
        Ok(Message::new(role, self.content.text(&format!("input[{i}].content"))?))
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
    let (replies, prompt) = talk.begin(&app, since).await?;
    let (heading, item) = (Heading::new(&app, "resp"), app.id("msg"));
    let streams = asked.stream.unwrap_or(false);
    let telling = Telling { heading, item, asked, prompt, number: 0, text: String::new(), outcome: None };
    if streams {
        return Ok(stream::response(replies, 1, telling));
    }
    let outcome = stream::outcome(replies).await?;
    Ok(super::json(&telling.response(Some(&outcome))))
}

/// What is told of an answer.
struct Telling {
    heading: Heading,
    /// Name of the message.
    item: String,
    asked: ResponsesRequest,
    /// Tokens of the prompt.
    prompt: usize,
    /// Number of the next event.
    number: usize,
    text: String,
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

    /// The response, or how it begins.
    fn response(&self, outcome: Option<&Outcome>) -> Value {
        let output: Vec<Value> =
            outcome.iter().map(|o| self.message(Self::status(o), &[Self::part(&o.text)])).collect();
        let cut = outcome.is_some_and(|outcome| outcome.finish == Finish::Length);
        let usage = outcome.map(|outcome| {
            let (input, output) = (self.prompt, outcome.tokens.len());
            json!({
                "input_tokens": input, "input_tokens_details": {"cached_tokens": outcome.stats.cached_tokens},
                "output_tokens": output, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": input + output,
            })
        });
        json!({
            "id": self.heading.id, "object": "response", "created_at": self.heading.created,
            "status": outcome.map_or("in_progress", Self::status), "error": null,
            "incomplete_details": cut.then(|| json!({"reason": "max_output_tokens"})),
            "instructions": self.asked.instructions, "max_output_tokens": self.asked.max_output_tokens,
            "model": self.heading.model(), "output": output, "parallel_tool_calls": true, "previous_response_id": null,
            "reasoning": {"effort": null, "summary": null}, "store": false, "temperature": self.asked.temperature,
            "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "top_p": self.asked.top_p,
            "truncation": "disabled", "usage": usage, "user": null, "metadata": {},
        })
    }

    fn event(&mut self, name: &str, mut fields: Value, out: &mut Sink) {
        fields["type"] = json!(name);
        fields["sequence_number"] = json!(self.number);
        self.number += 1;
        out.event(name, &fields);
    }

    /// An event about the text.
    fn about(&mut self, name: &str, key: &str, value: Value, out: &mut Sink) {
        let mut fields = json!({"item_id": self.item, "output_index": 0, "content_index": 0, "logprobs": []});
        fields[key] = value;
        self.event(name, fields, out);
    }
}

impl Events for Telling {
    fn begin(&mut self, out: &mut Sink) {
        let response = self.response(None);
        self.event("response.created", json!({"response": response}), out);
        self.event("response.in_progress", json!({"response": response}), out);
        let item = self.message("in_progress", &[]);
        self.event("response.output_item.added", json!({"output_index": 0, "item": item}), out);
        self.about("response.content_part.added", "part", Self::part(""), out);
    }

    fn reply(&mut self, _: usize, reply: Reply, out: &mut Sink) -> Result<(), Refusal> {
        match reply {
            Reply::Text(text, _) if !text.is_empty() => {
                self.text.push_str(&text);
                self.about("response.output_text.delta", "delta", json!(text), out);
            }
            Reply::End(outcome) => self.outcome = Some((*outcome)?),
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Sink) {
        let Some(outcome) = self.outcome.take() else { return };
        let (status, text) = (Self::status(&outcome), std::mem::take(&mut self.text));
        self.about("response.output_text.done", "text", json!(text), out);
        self.about("response.content_part.done", "part", Self::part(&text), out);
        let item = self.message(status, &[Self::part(&text)]);
        self.event("response.output_item.done", json!({"output_index": 0, "item": item}), out);
        let (name, response) = (format!("response.{status}"), self.response(Some(&outcome)));
        self.event(&name, json!({"response": response}), out);
    }

    fn fail(&mut self, refusal: &Refusal, out: &mut Sink) {
        let mut response = self.response(None);
        response["status"] = json!("failed");
        response["error"] = json!({"code": "server_error", "message": refusal.detail.message});
        self.event("response.failed", json!({"response": response}), out);
    }
}
