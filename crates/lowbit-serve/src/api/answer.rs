//! What answers of chats and completions share.

use crate::app::App;
use crate::refusal::Refusal;
use crate::worker::{Replies, Reply};
use lowbit_model::generate::{Finish, Outcome};
use serde::Serialize;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use utoipa::ToSchema;

/// What tells answers of one kind and version of the server from others.
pub(crate) const FINGERPRINT: &str = concat!("lowbit-", env!("CARGO_PKG_VERSION"));

/// Tokens of a request.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(crate) struct Usage {
    /// Of the prompts.
    pub prompt_tokens: usize,
    /// Of the answers.
    pub completion_tokens: usize,
    /// Of both.
    pub total_tokens: usize,
    /// More about the prompts.
    pub prompt_tokens_details: PromptDetails,
}

/// More about the tokens of prompts.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(crate) struct PromptDetails {
    /// Tokens whose keys and values were kept from an earlier request.
    pub cached_tokens: usize,
}

impl Usage {
    /// Of prompts with so many tokens together.
    pub fn of(prompt_tokens: usize) -> Self {
        Usage { prompt_tokens, total_tokens: prompt_tokens, ..Usage::default() }
    }

    /// Adds an answer.
    pub fn add(&mut self, outcome: &Outcome) {
        self.completion_tokens += outcome.tokens.len();
        self.total_tokens += outcome.tokens.len();
        self.prompt_tokens_details.cached_tokens += outcome.stats.cached_tokens;
    }
}

/// Name, time and model of an answer.
#[derive(Clone)]
pub(crate) struct Heading {
    pub app: Arc<App>,
    pub id: String,
    pub created: u64,
}

impl Heading {
    /// That of an answer that begins now.
    pub fn new(app: &Arc<App>, prefix: &str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Heading { app: app.clone(), id: app.id(prefix), created: now.as_secs() }
    }

    /// The name of the model.
    pub fn model(&self) -> &str {
        &self.app.served.names[0]
    }
}

/// Waits until the engine took a request.
///
/// # Errors
/// When it refuses.
pub(crate) async fn begun(replies: &mut Replies) -> Result<(), Refusal> {
    match replies.recv().await {
        Some((_, Reply::End(outcome))) => match *outcome {
            Err(error) => Err(error.into()),
            Ok(_) => Err(Refusal::internal()),
        },
        Some(_) => Ok(()),
        None => Err(Refusal::stopping()),
    }
}

/// Why an answer ended, in the words of OpenAI.
pub(crate) fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Length => "length",
        Finish::Stop | Finish::Cancelled => "stop",
    }
}
