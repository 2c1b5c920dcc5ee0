//! Chats as text: the template of a model makes one text of the turns, and the text becomes tokens.
//!
//! A template comes with the model file, so it is not trusted: it sees no file, and steps, work, depth and output are limited
//! (`guard`). Neither is the text of a turn: what spells a special token in it is text (`prompt`).

use crate::container::show;
use crate::{Error, Kind};
use serde::{Deserialize, Serialize};
use std::fmt;

mod functions;
mod guard;
mod prompt;
mod rewrite;
mod slice;

pub use prompt::{raw_tokens, tokens};

/// Longest template, bytes.
const MAX_SOURCE: usize = 64 << 10;
/// Most bytes a template may write beyond twice the turns' own.
const MAX_OUTPUT: usize = 1 << 20;
/// Address space of the thread that parses a template; nesting of 64 KiB of source fits.
const STACK: usize = 256 << 20;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions to the model.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// Its name in templates and files.
    pub fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        }
    }
}

/// One turn of a chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A turn.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Message { role, content: content.into() }
    }
}

/// A template that makes one text of the turns of a chat (the Hub's `chat_template`, in Jinja).
#[derive(Clone)]
pub struct Template {
    source: String,
    bos: String,
    eos: String,
}

impl Template {
    /// Takes a template and the spellings of the tokens that begin a text and end an answer (empty when there is none).
    ///
    /// # Errors
    /// [`Kind::Input`] naming the line, when it is no Jinja template or longer than 64 KiB.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self, Error> {
        if source.len() > MAX_SOURCE {
            return Err(fault(None, format!("size is {} bytes, more than {MAX_SOURCE}", source.len())));
        }
        let template = Template { source: functions::without_tags(source), bos: bos.into(), eos: eos.into() };
        on_large_stack(|| guard::check(&template.source))?;
        Ok(template)
    }

    /// The text of a chat; with `answer` it ends where the model begins to answer. Dates that a template asks for are
    /// always 26 July 2024, so that the same chat is the same text on every day.
    ///
    /// # Errors
    /// [`Kind::Input`] with the template's own complaint (such as a role it does not take) or the limit it ran into, and
    /// the line.
    pub fn render(&self, messages: &[Message], answer: bool) -> Result<String, Error> {
        on_large_stack(|| guard::render(&self.source, &self.bos, &self.eos, messages, answer))
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({} bytes)", self.source.len())
    }
}

/// The text of a chat for a model that knows no chat: the last thing said, to be continued.
pub fn plain(messages: &[Message]) -> &str {
    messages.last().map_or("", |m| &m.content)
}

/// Nested source takes stack to parse and to drop, more than a thread has by default.
fn on_large_stack<T: Send>(f: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, f);
        let thread = thread.map_err(|e| Error::usage(format!("a thread for the chat template: {e}")))?;
        thread.join().unwrap_or_else(|_| Err(fault(None, "cannot be rendered")))
    })
}

fn fault(line: Option<usize>, text: impl fmt::Display) -> Error {
    let line = line.map_or(String::new(), |n| format!(" line {n}"));
    Error::new(Kind::Input, format!("chat template{line}: {text}"))
}

/// What the engine complains about.
fn complaint(e: minijinja::Error) -> Error {
    let text = match e.kind() {
        minijinja::ErrorKind::OutOfFuel => "fuel is used up: it takes too many steps".to_string(),
        kind => e.detail().map_or(kind.to_string(), show),
    };
    fault(e.line(), text)
}
