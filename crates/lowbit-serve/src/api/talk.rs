//! A chat that was understood, whichever way it was asked: how its answers are begun, and what is said in parts.

use super::answer::begun;
use super::tools::Offered;
use crate::app::App;
use crate::calls::{CallParser, Called, Calls, Piece};
use crate::grammar::Form;
use crate::parameters::Drawing;
use crate::refusal::Refusal;
use crate::worker::Replies;
use lowbit_model::chat::{AnswerOptions, Message};
use lowbit_model::generate::{Outcome, Request};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use utoipa::ToSchema;

/// What is said: a text, or parts that are joined by line breaks.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a text, or a list of parts like {\"type\": \"text\", \"text\": \"..\"}")]
pub(crate) enum Content {
    /// A text.
    Text(String),
    /// Parts of it.
    Parts(Vec<Part>),
}

/// A part of what is said.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct Part {
    /// `text`; in responses also `input_text` and `output_text`.
    pub r#type: String,
    /// The text.
    #[serde(default)]
    pub text: Option<String>,
}

impl Content {
    /// The text.
    ///
    /// # Errors
    /// When a part is no text; names it, `place` being the field of all.
    pub fn text(&self, place: &str) -> Result<String, Refusal> {
        match self {
            Content::Text(text) => Ok(text.clone()),
            Content::Parts(parts) => {
                let texts = parts.iter().enumerate().map(|(i, part)| part.said(&format!("{place}[{i}]")));
                Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
            }
        }
    }
}

impl Part {
    /// The text.
    ///
    /// # Errors
    /// When it is no text; `place` is its field.
    pub fn said(&self, place: &str) -> Result<String, Refusal> {
        match (&*self.r#type, &self.text) {
            ("text" | "input_text" | "output_text", Some(text)) => Ok(text.clone()),
            ("text" | "input_text" | "output_text", None) => {
                Err(Refusal::field(format!("{place}.text"), "a part needs its text"))
            }
            _ => {
                let text = "this model reads text alone; parts must be of type `text`";
                Err(Refusal::field(format!("{place}.type"), text))
            }
        }
    }
}

/// The turns with the functions of results by the calls that they answer, where nobody names them.
pub(crate) fn named(mut messages: Vec<Message>) -> Vec<Message> {
    let calls = messages.iter().flat_map(|message| message.tool_calls.iter().map(|call| (&call.id, &call.name)));
    let names: BTreeMap<String, String> = calls.map(|(id, name)| (id.clone(), name.clone())).collect();
    for message in messages.iter_mut().filter(|message| message.name.is_none()) {
        message.name = message.tool_call_id.as_ref().and_then(|id| names.get(id).cloned());
    }
    messages
}

/// A chat whose answer is wanted.
pub(crate) struct Talk {
    pub messages: Vec<Message>,
    pub drawing: Drawing,
    /// How many of the most likely tokens are told, if any are.
    pub top: Option<usize>,
    /// Tokens of each answer at most.
    pub max_tokens: Option<usize>,
    /// What the answers must look like, and the field that says so.
    pub form: Option<(Form, &'static str)>,
    /// Functions that the answers may call.
    pub tools: Option<Offered>,
}

/// Answers that have begun.
pub(crate) struct Begun {
    pub replies: Replies,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// How calls of functions are found in the answers, where they may hold such.
    pub calls: Option<Arc<Calls>>,
}

impl Begun {
    /// What finds the calls of as many answers.
    pub fn parsers(&self, choices: usize) -> Option<Vec<CallParser>> {
        self.calls.as_ref().map(|calls| (0..choices).map(|_| CallParser::new(calls.clone())).collect())
    }
}

/// The text of an answer and its calls of functions.
pub(crate) fn split(calls: Option<&Arc<Calls>>, text: String) -> (String, Vec<Called>) {
    let Some(calls) = calls else { return (text, Vec::new()) };
    let (mut text_of, mut called) = (String::new(), Vec::new());
    for piece in CallParser::all(calls.clone(), &text) {
        match piece {
            Piece::Text(text) => text_of.push_str(&text),
            Piece::Call(name, arguments) => called.push((name, arguments)),
        }
    }
    (text_of, called)
}

impl Talk {
    /// Begins the answers to a request that came at `since`.
    ///
    /// # Errors
    /// When the queue is full, the template refuses the chat or its functions, or it is too long for the context.
    pub async fn begin(self, app: &Arc<App>, since: Instant) -> Result<Begun, Refusal> {
        let (worker, choices) = (app.worker()?, self.drawing.choices);
        if let (Some(_), Some((_, place))) = (&self.tools, &self.form) {
            let text = "an answer that may call functions has no form; leave tools or the form out";
            return Err(Refusal::field(*place, text));
        }
        let places = app.admit(choices, "n")?;
        let (drawing, top) = (self.drawing, self.top);
        let options = AnswerOptions {
            max_tokens: self.max_tokens,
            stop: drawing.stop.clone(),
            draft: app.served.writer()?.draft,
            sampling: drawing.sampling(0),
            tools: self.tools.as_ref().map_or_else(Vec::new, |tools| tools.definitions.clone()),
        };
        let (messages, form, tools, context) = (self.messages, self.form, self.tools, app.served.context);
        let work = move |app: &App| {
            let form = form.map(|(form, place)| app.guided(&form, place)).transpose()?;
            let offer = tools.map(|tools| tools.offer(app)).transpose()?;
            let mut request = app.served.writer()?.chat.request(&messages, &options, context)?;
            request.guide = form;
            let calls = offer.map(|offer| {
                request.guide = request.guide.take().or(offer.guide);
                request.shown = offer.shown;
                offer.calls
            });
            Ok((request, calls))
        };
        let (prompt, calls) = app.apart(work).await?;
        let of = |choice| Request { sampling: drawing.sampling(choice), logprobs: top, ..prompt.clone() };
        let mut replies = worker.submit((0..choices).map(of).collect(), places, since);
        begun(&mut replies).await?;
        Ok(Begun { replies, prompt: prompt.prompt.len(), calls })
    }
}

/// The text that ended an answer, if one of these did.
pub(crate) fn stopped_by<'a>(app: &App, outcome: &Outcome, stops: &'a [String]) -> Option<&'a str> {
    let bytes: Vec<u8> = outcome.tokens.iter().flat_map(|token| app.served.token_bytes(*token)).copied().collect();
    let text = String::from_utf8_lossy(&bytes);
    let found = stops.iter().filter_map(|stop| Some((text.find(stop.as_str())?, stop.as_str())));
    found.min().map(|(_, stop)| stop)
}
