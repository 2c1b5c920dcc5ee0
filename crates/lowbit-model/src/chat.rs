//! Chats as text: the template of a model makes one text of the turns, and the text becomes tokens.
//!
//! A template comes with the model file, so it is not trusted: it sees no file, and steps, work, depth and output are limited
//! (`guard`). Neither is the text of a turn: what spells a special token in it is text (`prompt`).

use crate::container::show;
use crate::model_config::ChatSettings;
use crate::{Error, Kind};
use clock::Clock;
use lowbit_base::memory::Footprint;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shades::Shades;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod clock;
mod conversation;
mod functions;
mod guard;
mod model;
mod prompt;
mod python;
mod rewrite;
mod session;
mod shades;
mod slice;
mod source;
mod syntax;
mod text;
mod tools;

pub use conversation::Conversation;
pub use model::{AnswerOptions, ChatError, ChatModel, PromptFormat, context};
pub use prompt::{raw_tokens, tokens};
pub use session::ChatSession;
pub use syntax::{CallForm, CallSyntax, Marks};
pub use tools::ToolCall;

/// Longest template, bytes.
const MAX_SOURCE: usize = 64 << 10;
/// Most bytes a template may write beyond twice the turns' own.
const MAX_OUTPUT: usize = 1 << 20;
/// Address space of the thread that parses a template; nesting of 64 KiB of source fits.
const STACK: usize = 256 << 20;
/// Bytes of turns from which on memory is seen to before they go through a template.
const LONG: u64 = 1 << 20;
/// Bytes of memory per byte of the turns: stand-ins of four bytes, the text of them, and its parts.
const TAKEN: u64 = 16;

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
    /// A function that the model called.
    Tool,
}

impl Role {
    /// Its name in templates and files.
    pub fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
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
    /// Functions that the model calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// Of the result of a function: the name of the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// Of the result of a function: the function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Message {
    /// A turn.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Message { role, content: content.into(), tool_calls: Vec::new(), tool_call_id: None, name: None }
    }

    /// All texts that were said.
    fn texts<'a>(&'a self, out: &mut Vec<&'a str>) {
        out.push(&self.content);
        out.extend(self.tool_call_id.as_deref());
        out.extend(self.name.as_deref());
        for call in &self.tool_calls {
            out.extend([call.id.as_str(), &call.name]);
            for (key, value) in &call.arguments {
                out.push(key);
                tools::texts(value, out);
            }
        }
    }
}

/// What a template makes a text of.
#[derive(Clone, Copy)]
struct Given<'a> {
    messages: &'a [Message],
    /// The functions that the model may call, as `{"type": "function", "function": {"name", "description", "parameters"}}`.
    tools: &'a [Value],
    /// Whether the text ends where the model begins to answer.
    answer: bool,
}

impl Given<'_> {
    /// All texts that were said.
    fn texts(&self) -> Vec<&str> {
        let mut out = Vec::new();
        self.messages.iter().for_each(|message| message.texts(&mut out));
        self.tools.iter().for_each(|tool| tools::texts(tool, &mut out));
        out
    }

    /// Turns, functions and calls of them.
    fn parts(&self) -> usize {
        let calls = self.messages.iter().map(|message| message.tool_calls.len()).sum::<usize>();
        self.messages.len() + self.tools.len() + calls
    }
}

/// A template that makes one text of the turns of a chat (the Hub's `chat_template`, in Jinja).
#[derive(Clone)]
pub struct Template {
    source: String,
    settings: ChatSettings,
    clock: Clock,
    file: Option<PathBuf>,
}

impl Template {
    /// Takes a template and what it needs.
    ///
    /// # Errors
    /// [`Kind::Input`] naming the line, when it is no Jinja template or longer than 64 KiB.
    pub fn new(source: &str, settings: &ChatSettings) -> Result<Self, Error> {
        Self::of_file(source, settings, None)
    }

    /// The same of a file, which errors name.
    ///
    /// # Errors
    /// As [`Template::new`].
    pub fn of_file(source: &str, settings: &ChatSettings, file: Option<&Path>) -> Result<Self, Error> {
        let (settings, file) = (settings.clone(), file.map(PathBuf::from));
        let mut template = Template { source: String::new(), settings, clock: Clock::NOW, file };
        if source.len() > MAX_SOURCE {
            let text = format!("size is {} bytes, more than {MAX_SOURCE}", source.len());
            return Err(template.at(fault(None, text)));
        }
        template.source = source::prepared(source);
        on_large_stack(|| guard::check(&template.source)).map_err(|e| template.at(e))?;
        Ok(template)
    }

    /// An error that names the file.
    fn at(&self, error: Error) -> Error {
        Error { path: error.path.or_else(|| self.file.clone()), ..error }
    }

    /// The same on another day: `strftime_now` speaks of a moment in seconds since 1970 (UTC), not of now.
    pub fn on(mut self, seconds: i64) -> Self {
        self.clock = Clock::at(seconds);
        self
    }

    /// The text of a chat; with `answer` it ends where the model begins to answer.
    ///
    /// # Errors
    /// [`Kind::Input`] with the template's own complaint (such as a role it does not take) or the limit it ran into, and
    /// the line.
    pub fn render(&self, messages: &[Message], answer: bool) -> Result<String, Error> {
        self.text(Given { messages, tools: &[], answer })
    }

    /// The same of a chat in which the model may call functions, each told as
    /// `{"type": "function", "function": {"name", "description", "parameters"}}` (a JSON schema).
    ///
    /// # Errors
    /// As [`Template::render`].
    pub fn render_with_tools(&self, messages: &[Message], tools: &[Value], answer: bool) -> Result<String, Error> {
        self.text(Given { messages, tools, answer })
    }

    fn text(&self, given: Given<'_>) -> Result<String, Error> {
        Ok(self.parts(given)?.into_iter().map(|(text, _)| text).collect())
    }

    /// The text of a chat in parts; `true` marks those that the template wrote, all others were said.
    fn parts(&self, given: Given<'_>) -> Result<Vec<(String, bool)>, Error> {
        let texts = given.texts();
        let said = texts.iter().map(|text| text.len() as u64).sum::<u64>();
        if said > LONG {
            Footprint::new("say less").and("text of the chat", TAKEN * said).check()?;
        }
        let written = self.settings.tokens.values().chain([&self.source]).map(String::as_str);
        let shades = Arc::new(Shades::of(texts.into_iter(), written));
        let render = || {
            let text = guard::render(&self.source, &self.settings, given, &shades, self.clock);
            text.map_err(|e| complaint(&e, &shades))
        };
        let text = on_large_stack(render).map_err(|e| self.at(e))?;
        Ok(shades.parts(&text))
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
        let thread = thread.map_err(|e| {
            let need = Footprint::new("raise it").and("stack of the thread for the chat template", STACK as u64);
            let text = format!("a thread for the chat template cannot be started: {e}");
            need.check().err().unwrap_or_else(|| Error::new(Kind::Io, text))
        })?;
        thread.join().unwrap_or_else(|_| Err(fault(None, "cannot be rendered")))
    })
}

fn fault(line: Option<usize>, text: impl fmt::Display) -> Error {
    let line = line.map_or(String::new(), |n| format!(" line {n}"));
    Error::new(Kind::Input, format!("chat template{line}: {text}"))
}

/// What the engine complains about.
fn complaint(e: &minijinja::Error, shades: &Shades) -> Error {
    let text = match e.kind() {
        minijinja::ErrorKind::OutOfFuel => "fuel is used up: it takes too many steps".to_string(),
        kind => e.detail().map_or(kind.to_string(), |text| show(&shades.plain(text))),
    };
    fault(e.line(), text)
}
