//! A chat that was understood, whichever way it was asked: how its answers are begun, and what is said in parts.

use super::answer::begun;
use crate::app::App;
use crate::grammar::Form;
use crate::parameters::Drawing;
use crate::refusal::Refusal;
use crate::worker::Replies;
use lowbit_model::chat::{AnswerOptions, Message};
use lowbit_model::generate::{Outcome, Request};
use serde::Deserialize;
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
    fn said(&self, place: &str) -> Result<String, Refusal> {
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

/// A chat whose answer is wanted.
pub(crate) struct Talk {
    pub messages: Vec<Message>,
    pub drawing: Drawing,
    /// How many of the most likely tokens are told, if any are.
    pub top: Option<usize>,
    /// Tokens of each answer at most.
    pub max_tokens: Option<usize>,
    /// What the answers must look like.
    pub form: Option<Form>,
}

impl Talk {
    /// Begins the answers to a request that came at `since`; returns the tokens of the prompt too.
    ///
    /// # Errors
    /// When the queue is full, the template refuses the chat, or it is too long for the context.
    pub async fn begin(self, app: &Arc<App>, since: Instant) -> Result<(Replies, usize), Refusal> {
        let (worker, choices) = (app.worker()?, self.drawing.choices);
        let places = app.admit(choices, "n")?;
        let (drawing, top) = (self.drawing, self.top);
        let options = AnswerOptions {
            max_tokens: self.max_tokens,
            stop: drawing.stop.clone(),
            draft: app.served.writer()?.draft,
            sampling: drawing.sampling(0),
        };
        let (messages, form, context) = (self.messages, self.form, app.served.context);
        let work = move |app: &App| {
            let guide = form.map(|form| app.guided(&form)).transpose()?;
            let request = app.served.writer()?.chat.request(&messages, &options, context)?;
            Ok(Request { guide, ..request })
        };
        let prompt = app.apart(work).await?;
        let of = |choice| Request { sampling: drawing.sampling(choice), logprobs: top, ..prompt.clone() };
        let mut replies = worker.submit((0..choices).map(of).collect(), places, since);
        begun(&mut replies).await?;
        Ok((replies, prompt.prompt.len()))
    }
}

/// The text that ended an answer, if one of these did.
pub(crate) fn stopped_by<'a>(app: &App, outcome: &Outcome, stops: &'a [String]) -> Option<&'a str> {
    let bytes: Vec<u8> = outcome.tokens.iter().flat_map(|token| app.served.token_bytes(*token)).copied().collect();
    let text = String::from_utf8_lossy(&bytes);
    let found = stops.iter().filter_map(|stop| Some((text.find(stop.as_str())?, stop.as_str())));
    found.min().map(|(_, stop)| stop)
}
