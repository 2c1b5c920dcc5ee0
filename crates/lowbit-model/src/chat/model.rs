//! A loaded language model and how chats reach it: the choice of its template, the tokens that end its turns, its context.

use super::prompt::Spelled;
use super::{CallSyntax, Message, Template, plain};
use crate::arch::OutputKind;
use crate::generate::{Draft, Request, Sampling};
use crate::{Checkpoint, Error, Model, Param, Tokenizer};
use lowbit_kernels::Cpu;
use lowbit_kernels::ops::CacheKind;
use serde_json::Value;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// Longest context when none is asked for, tokens.
const CONTEXT: usize = 4096;
/// Tokens that end a turn, whether or not the configuration of a model says so.
const TURN_ENDS: &[&str] = &["<|eot_id|>", "<|im_end|>", "<|end_of_turn|>", "<end_of_turn>", "<|end|>", "<|eom_id|>"];

/// How what is said becomes tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PromptFormat {
    /// By the model's chat template; without one the last message is continued.
    #[default]
    Chat,
    /// The last message is continued.
    Text,
    /// The last message is continued, and names of control tokens in it are these tokens.
    TextWithControls,
}

/// How an answer is made.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswerOptions {
    /// Tokens at most; all that the context has room for, if none are given.
    pub max_tokens: Option<usize>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Texts that end it.
    pub stop: Vec<String>,
    /// How tokens are guessed ahead.
    pub draft: Option<Draft>,
    /// The functions that the model may call, as its template is told of them ([`Template::render_with_tools`]).
    pub tools: Vec<Value>,
}

impl Default for AnswerOptions {
    /// Drawn as [`Sampling::chat`] says, until the model ends it or the context is full.
    fn default() -> Self {
        let (stop, tools) = Default::default();
        AnswerOptions { max_tokens: None, sampling: Sampling::chat(), stop, draft: None, tools }
    }
}

/// Why a chat got no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChatError {
    /// The prompt leaves no room for an answer.
    ContextFull {
        /// Tokens of the prompt; where its length alone says that it is too long, the fewest it can have.
        prompt: usize,
        /// Tokens of prompt and answer together.
        context: usize,
        /// Tokens that the model was trained for.
        trained: usize,
    },
    /// Any other reason.
    Other(Error),
}

impl fmt::Display for ChatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChatError::Other(error) => error.fmt(f),
            ChatError::ContextFull { prompt, context, trained } => {
                write!(
                    f,
                    "the context of {context} tokens is full: this takes at least {prompt}; say less, or begin anew"
                )?;
                if trained > context { write!(f, ", or take a context of up to {trained}") } else { Ok(()) }
            }
        }
    }
}

impl std::error::Error for ChatError {}

impl From<Error> for ChatError {
    fn from(error: Error) -> Self {
        ChatError::Other(error)
    }
}

impl From<ChatError> for Error {
    /// A full context is a fault of the request.
    fn from(error: ChatError) -> Self {
        match error {
            ChatError::Other(error) => error,
            full @ ChatError::ContextFull { .. } => Error::usage(full.to_string()),
        }
    }
}

/// A loaded language model that can chat; clones share its weights.
#[derive(Clone)]
pub struct ChatModel {
    network: Arc<Model<Param>>,
    tokenizer: Arc<Tokenizer>,
    template: Option<Template>,
    /// That of chats with functions, where it is another.
    tool_template: Option<Template>,
    /// How calls are written; known once it was asked.
    calls: Arc<OnceLock<Option<CallSyntax>>>,
    format: PromptFormat,
    stop_tokens: Vec<u32>,
    trained: usize,
}

impl ChatModel {
    /// Loads network and tokenizer of a checkpoint, and its chat template where the format of prompts takes one.
    ///
    /// # Errors
    /// When the model is a classifier or malformed, or its template is wrong.
    pub fn load(checkpoint: &Checkpoint, format: PromptFormat) -> Result<Self, Error> {
        refuse_classifier(checkpoint)?;
        let (tokenizer, network) = lowbit_base::both(|| checkpoint.tokenizer(), || checkpoint.model());
        Self::of(checkpoint, Arc::new(network?), Arc::new(tokenizer?), format)
    }

    /// The same network of a checkpoint with another format of prompts.
    ///
    /// # Errors
    /// When the chat template is wrong.
    pub fn taking(&self, checkpoint: &Checkpoint, format: PromptFormat) -> Result<Self, Error> {
        Self::of(checkpoint, self.network.clone(), self.tokenizer.clone(), format)
    }

    fn of(
        checkpoint: &Checkpoint,
        network: Arc<Model<Param>>,
        tokenizer: Arc<Tokenizer>,
        format: PromptFormat,
    ) -> Result<Self, Error> {
        let model_config = checkpoint.model_config();
        let made = |source: &Option<String>| {
            let source = source.as_deref().filter(|_| format == PromptFormat::Chat);
            source.map(|source| template(source, checkpoint, &tokenizer)).transpose()
        };
        let (template, tool_template) = (made(&model_config.chat_template)?, made(&model_config.tool_template)?);
        let stop_tokens = stop_tokens(checkpoint, &tokenizer);
        let (calls, trained) = (Arc::default(), model_config.max_length);
        Ok(ChatModel { network, tokenizer, template, tool_template, calls, format, stop_tokens, trained })
    }

    /// The network.
    pub fn network(&self) -> &Arc<Model<Param>> {
        &self.network
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// Whether turns of a chat reach the model as such; else the last message is continued.
    pub fn has_template(&self) -> bool {
        self.template.is_some()
    }

    /// How the model writes calls of functions; none where its template tells it of none ([`Template::call_syntax`]).
    pub fn call_syntax(&self) -> Option<&CallSyntax> {
        self.calls.get_or_init(|| self.template_of(true).and_then(Template::call_syntax)).as_ref()
    }

    /// Tokens that the model was trained for.
    pub fn trained(&self) -> usize {
        self.trained
    }

    /// Tokens that end an answer.
    pub fn stop_tokens(&self) -> &[u32] {
        &self.stop_tokens
    }

    /// The tokens of a chat up to where the model answers.
    ///
    /// # Errors
    /// When the template refuses the chat, or the tokenizer a text.
    pub fn prompt(&self, messages: &[Message]) -> Result<Vec<u32>, Error> {
        self.spelled(messages, &[])?.tokens(&self.tokenizer)
    }

    /// The template of a chat with functions, or of one without.
    fn template_of(&self, tools: bool) -> Option<&Template> {
        self.tool_template.as_ref().filter(|_| tools).or(self.template.as_ref())
    }

    fn spelled<'a>(&self, messages: &'a [Message], tools: &[Value]) -> Result<Spelled<'a>, Error> {
        match self.format {
            PromptFormat::TextWithControls => Ok(Spelled::raw(plain(messages))),
            _ => Spelled::chat(self.template_of(!tools.is_empty()), messages, tools),
        }
    }

    /// What an engine whose sequences have `context` tokens is asked for a chat.
    ///
    /// # Errors
    /// As [`ChatModel::prompt`], and when the context is full.
    pub fn request(&self, messages: &[Message], options: &AnswerOptions, context: usize) -> Result<Request, ChatError> {
        let full = |prompt| ChatError::ContextFull { prompt, context, trained: self.trained };
        let spelled = self.spelled(messages, &options.tools)?;
        let fewest = spelled.fewest_tokens(&self.tokenizer);
        if fewest >= context {
            return Err(full(fewest));
        }
        let prompt = spelled.tokens(&self.tokenizer)?;
        if prompt.len() >= context {
            return Err(full(prompt.len()));
        }
        let room = context - prompt.len();
        Ok(Request {
            max_tokens: options.max_tokens.unwrap_or(room).min(room),
            prompt,
            sampling: options.sampling.clone(),
            stop: options.stop.clone(),
            stop_tokens: self.stop_tokens.clone(),
            draft: options.draft,
            ..Request::default()
        })
    }

    /// A chat in which nothing was said yet, whose prompts and answers have `context` tokens together.
    pub fn session(&self, cpu: Cpu, context: usize, cache: CacheKind, options: AnswerOptions) -> super::ChatSession {
        super::ChatSession::new(self.clone(), cpu, context, cache, options)
    }
}

/// Tokens of prompt and answer together: those asked for (0 for all that the model was trained for), else as many as it was
/// trained for, at most 4096.
///
/// # Errors
/// When they are more than the model was trained for, or it is a classifier.
pub fn context(checkpoint: &Checkpoint, asked: Option<usize>) -> Result<usize, Error> {
    refuse_classifier(checkpoint)?;
    let trained = checkpoint.model_config().max_length;
    match asked {
        None => Ok(trained.min(CONTEXT)),
        Some(0) => Ok(trained),
        Some(context) if context <= trained => Ok(context),
        Some(context) => {
            Err(Error::usage(format!("context is {context}, but the model was trained for {trained} tokens")))
        }
    }
}

fn refuse_classifier(checkpoint: &Checkpoint) -> Result<(), Error> {
    match checkpoint.model_config().config.output() {
        OutputKind::Tokens => Ok(()),
        other => {
            let message = format!("is {}; only a language model answers", other.noun());
            Err(Error::input(checkpoint.path(), message))
        }
    }
}

fn template(source: &str, checkpoint: &Checkpoint, tokenizer: &Tokenizer) -> Result<Template, Error> {
    let model_config = checkpoint.model_config();
    let mut settings = model_config.chat.clone();
    // Where nothing names the tokens, their ids do.
    if settings.tokens.is_empty() {
        let controls = tokenizer.controls();
        let name = |id: Option<u32>| controls.iter().find(|(_, known)| Some(*known) == id).map(|(name, _)| *name);
        let (bos, eos) =
            (model_config.bos_token_id.or_else(|| tokenizer.bos()), model_config.eos_token_ids.first().copied());
        let known = [("bos_token", name(bos)), ("eos_token", name(eos))].into_iter();
        settings.tokens = known.filter_map(|(variable, name)| Some((variable.into(), name?.into()))).collect();
    }
    let file = checkpoint.template_file().unwrap_or(checkpoint.path());
    Template::of_file(source, &settings, Some(file))
}

/// Tokens that end an answer.
fn stop_tokens(checkpoint: &Checkpoint, tokenizer: &Tokenizer) -> Vec<u32> {
    let model_config = checkpoint.model_config();
    let mut ids = model_config.eos_token_ids.clone();
    let named = || model_config.chat.tokens.get("eos_token").and_then(|name| tokenizer.id(name));
    if ids.is_empty() {
        ids.extend(named().or_else(|| tokenizer.end()));
    }
    let named = tokenizer.controls().into_iter().filter(|(name, _)| TURN_ENDS.contains(name));
    ids.extend(named.map(|(_, id)| id));
    ids.sort_unstable();
    ids.dedup();
    ids
}
