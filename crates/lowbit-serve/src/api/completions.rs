//! `POST /v1/completions`

use super::answer::{FINGERPRINT, Heading, Usage, begun, reason};
use crate::app::App;
use crate::body;
use crate::grammar::Form;
use crate::parameters::{Drawing, TOP_LOGPROBS, request, whole};
use crate::refusal::{ErrorBody, Refusal, too_long};
use crate::stream::{self, Events, Sink};
use crate::tokens::Legacy;
use crate::worker::{Replies, Reply};
use axum::extract::{Request, State};
use axum::response::Response;
use lowbit_model::chat::{AnswerOptions, ChatError, Message, Role};
use lowbit_model::generate::{self, Logprob, Outcome};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;
use std::time::Instant;
use utoipa::ToSchema;

/// Tokens of an answer where no number is asked for, as at OpenAI.
const TOKENS: usize = 16;

request! {
    /// Texts to continue.
    struct CompletionRequest {
        /// The texts, or their tokens.
        pub prompt: Prompt,
        /// Tokens of each answer at most; 0, with `echo`, for the prompt alone.
        #[serde(default)]
        #[schema(minimum = 0)]
        pub max_tokens: Option<i64>,
        /// The same under its newer name.
        #[serde(default)]
        #[schema(minimum = 0)]
        pub max_completion_tokens: Option<i64>,
        /// What the answers must look like: `{"type": "json_schema", "json_schema": {"schema": ..}}`, `json_object`, `regex` (with
        /// `regex`), or `text`.
        #[serde(default)]
        #[schema(value_type = Option<Object>)]
        pub response_format: Option<Value>,
        /// Go on where the model would end an answer, up to `max_tokens`, as benchmarks want it.
        #[serde(default)]
        pub ignore_eos: Option<bool>,
        /// Tell the log-probability of each token, and so many of the most likely ones.
        #[serde(default)]
        #[schema(minimum = 0, maximum = 20)]
        pub logprobs: Option<i64>,
        /// Give the prompt back before the answer, with the log-probabilities of its tokens where these are asked for.
        #[serde(default)]
        pub echo: Option<bool>,
        /// As many as `n`.
        #[serde(default)]
        pub best_of: Option<i64>,
        /// Not supported; null or an empty text is.
        #[serde(default)]
        pub suffix: Option<String>,
    }
}

/// What is continued.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a text, a list of texts, a list of tokens, or a list of lists of tokens")]
pub(crate) enum Prompt {
    /// A text.
    Text(String),
    /// Tokens.
    Tokens(Vec<u32>),
    /// Several texts.
    Texts(Vec<String>),
    /// Tokens of several.
    Several(Vec<Vec<u32>>),
}

/// One prompt.
#[derive(Clone)]
enum One {
    Text(String),
    Tokens(Vec<u32>),
}

/// The answers to prompts, whole or a piece of them.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Completion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'static str,
    choices: Vec<CompletionChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<&'a Usage>,
}

/// The answer to a prompt; those to the first prompt come first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CompletionChoice {
    index: usize,
    text: String,
    /// `tokens`, `token_logprobs`, `top_logprobs` and `text_offset` (characters from the begin of `text`), and `content` as in chats.
    #[schema(value_type = Option<Object>)]
    logprobs: Option<Value>,
    finish_reason: Option<&'static str>,
}

/// A request that was understood.
struct Plan {
    drawing: Drawing,
    max_tokens: usize,
    top: Option<usize>,
    echo: bool,
    form: Option<Form>,
    /// Whether nothing but its length and its stops ends an answer.
    endless: bool,
}

impl CompletionRequest {
    fn plan(&self, app: &App) -> Result<Plan, Refusal> {
        let drawing = self.drawing(app)?;
        let echo = self.echo.unwrap_or(false);
        let least = if echo { 0 } else { 1 };
        let range = least..=app.served.context as i64;
        let new = whole("max_completion_tokens", self.max_completion_tokens, range.clone())?;
        let max_tokens = new.or(whole("max_tokens", self.max_tokens, range)?);
        let format = self.response_format.as_ref();
        let form = format.map(|format| Form::of(format, "response_format")).transpose()?.flatten();
        let endless = self.ignore_eos.unwrap_or(false);
        if endless && form.is_some() {
            return Err(Refusal::field("ignore_eos", "an answer of a form ends with it; leave ignore_eos out"));
        }
        let top = whole("logprobs", self.logprobs, 0..=TOP_LOGPROBS)?.map(|top| top as usize);
        if self.best_of.is_some_and(|best| best != drawing.choices as i64) {
            return Err(Refusal::field("best_of", "best_of must be as many as `n`"));
        }
        if self.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
            return Err(Refusal::field("suffix", "suffix is not supported; leave it out"));
        }
        let max_tokens = max_tokens.map_or(TOKENS, |most| most as usize);
        Ok(Plan { drawing, max_tokens, top, echo, form, endless })
    }

    fn prompts(self) -> Result<Vec<One>, Refusal> {
        let all: Vec<One> = match self.prompt {
            Prompt::Text(text) => vec![One::Text(text)],
            Prompt::Tokens(tokens) => vec![One::Tokens(tokens)],
            Prompt::Texts(texts) => texts.into_iter().map(One::Text).collect(),
            Prompt::Several(all) => all.into_iter().map(One::Tokens).collect(),
        };
        match all.is_empty() {
            true => Err(Refusal::field("prompt", "prompt is empty; give a text")),
            false => Ok(all),
        }
    }
}

impl Plan {
    /// What the engine is asked for a prompt.
    fn request(&self, app: &App, prompt: One) -> Result<generate::Request, Refusal> {
        let (context, max_tokens) = (app.served.context, self.max_tokens.max(1));
        let request = match prompt {
            One::Text(text) => {
                let options = AnswerOptions {
                    max_tokens: Some(max_tokens),
                    stop: self.drawing.stop.clone(),
                    draft: app.served.writer()?.draft,
                    sampling: self.drawing.sampling(0),
                    ..AnswerOptions::default()
                };
                let message = [Message::new(Role::User, text)];
                app.served.writer()?.text.request(&message, &options, context).map_err(|error| match error {
                    ChatError::ContextFull { prompt, context, .. } => too_long("prompt", prompt, context),
                    ChatError::Other(error) => Refusal::from(error).of("prompt"),
                })?
            }
            One::Tokens(prompt) => {
                let vocabulary = app.served.vocabulary();
                if let Some(token) = prompt.iter().find(|token| **token as usize >= vocabulary) {
                    let text = format!(
                        "prompt holds token {token}; tokens of this model are the numbers 0 to {}",
                        vocabulary - 1
                    );
                    return Err(Refusal::field("prompt", text));
                }
                let room = context.saturating_sub(prompt.len());
                if room == 0 {
                    return Err(too_long("prompt", prompt.len(), context));
                }
                generate::Request {
                    prompt,
                    max_tokens: max_tokens.min(room),
                    stop: self.drawing.stop.clone(),
                    stop_tokens: app.served.writer()?.text.stop_tokens().to_vec(),
                    draft: app.served.writer()?.draft,
                    ..generate::Request::default()
                }
            }
        };
        if request.prompt.is_empty() {
            return Err(Refusal::field("prompt", "prompt is empty; give a text"));
        }
        let mut request = generate::Request { logprobs: self.top, echo: self.echo && self.top.is_some(), ..request };
        if self.endless {
            request.stop_tokens.clear();
        }
        Ok(request)
    }

    /// What the engine is asked for prompts.
    fn requests(&self, app: &App, prompts: Vec<One>) -> Result<Vec<generate::Request>, Refusal> {
        let guide = self.form.as_ref().map(|form| app.guided(form, "response_format")).transpose()?;
        let of = |prompt| Ok(generate::Request { guide: guide.clone(), ..self.request(app, prompt)? });
        prompts.into_iter().map(of).collect()
    }
}

/// Continues texts.
#[utoipa::path(
    post, path = "/v1/completions", tag = "OpenAI", request_body = CompletionRequest, security(("key" = []), ()),
    responses(
        (status = 200, description = "The answers; with `stream` events of the same, then [DONE]", content(
            (Completion = "application/json"), (String = "text/event-stream"))),
        (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 408, body = ErrorBody), (status = 413, body = ErrorBody), (status = 429, body = ErrorBody),
        (status = 503, body = ErrorBody),
    )
)]
pub(crate) async fn create(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let since = Instant::now();
    let asked: CompletionRequest = body::json(&app, request).await?;
    app.check_model(asked.model.as_deref())?;
    let worker = app.worker()?;
    let (plan, (streams, tells)) = (asked.plan(&app)?, asked.streams()?);
    let prompts = asked.prompts()?;
    let each = plan.drawing.choices;
    let choices = prompts.len().saturating_mul(each);
    let places = app.admit(choices, "prompt")?;
    let (plan, requests) = app.apart(move |app| plan.requests(app, prompts).map(|requests| (plan, requests))).await?;
    let usage = Usage::of(requests.iter().map(|request| request.prompt.len()).sum());
    let texts = Texts::new(Heading::new(&app, "cmpl"), &plan, &requests);
    let of = |choice: usize| generate::Request {
        sampling: plan.drawing.sampling(choice % each),
        ..requests[choice / each].clone()
    };
    let mut replies = worker.submit((0..choices).map(of).collect(), places, since);
    begun(&mut replies).await?;
    if streams {
        return Ok(stream::response(replies, choices, Chunks { texts, usage, tells }));
    }
    whole_answer(texts, usage, choices, replies).await
}

/// The answers in one piece.
async fn whole_answer(
    mut texts: Texts,
    mut usage: Usage,
    choices: usize,
    replies: Replies,
) -> Result<Response, Refusal> {
    let mut scored: Vec<Vec<Logprob>> = vec![Vec::new(); choices];
    let take = |index: usize, reply| match reply {
        Reply::Prompt(logprobs) => {
            scored[index].extend(logprobs);
            Ok(None)
        }
        Reply::End(outcome) => {
            let outcome = texts.kept(*outcome)?;
            usage.add(&outcome);
            let prompt = std::mem::take(&mut scored[index]);
            let Outcome { text, logprobs, finish, .. } = outcome;
            let logprobs = texts.logprobs(index, Some(&prompt), &logprobs);
            let text = texts.begin(index) + &text;
            Ok(Some(CompletionChoice { index, text, logprobs, finish_reason: Some(reason(finish)) }))
        }
        Reply::Begun | Reply::Text(..) => Ok(None),
    };
    let choices = stream::collect(replies, choices, take).await?;
    Ok(super::json(&texts.completion(choices, Some(&usage))))
}

/// What is told of each choice.
struct Texts {
    heading: Heading,
    /// Of each choice, the tokens and the text of the prompt.
    prompts: Vec<(Vec<u32>, String)>,
    each: usize,
    /// Characters told of each choice.
    offsets: Vec<usize>,
    echo: bool,
    tells_logprobs: bool,
    /// Whether the answer is left out.
    prompt_only: bool,
}

impl Texts {
    fn new(heading: Heading, plan: &Plan, requests: &[generate::Request]) -> Self {
        let served = &heading.app.served;
        let text = |request: &generate::Request| {
            let bytes: Vec<u8> = request
                .prompt
                .iter()
                .flat_map(|token| served.tokenizer.token_bytes(*token).unwrap_or_default())
                .copied()
                .collect();
            let text = if plan.echo { String::from_utf8_lossy(&bytes).into_owned() } else { String::new() };
            (request.prompt.clone(), text)
        };
        let (prompts, each): (Vec<_>, usize) = (requests.iter().map(text).collect(), plan.drawing.choices);
        let offsets = vec![0; prompts.len() * each];
        let (echo, tells_logprobs, prompt_only) = (plan.echo, plan.top.is_some(), plan.max_tokens == 0);
        Texts { heading, prompts, each, offsets, echo, tells_logprobs, prompt_only }
    }

    /// The text before the answer.
    fn begin(&self, choice: usize) -> String {
        self.prompts[choice / self.each].1.clone()
    }

    /// An answer as far as it was asked for.
    fn kept(&self, outcome: Result<Outcome, lowbit_base::Error>) -> Result<Outcome, Refusal> {
        let mut outcome = outcome?;
        if self.prompt_only {
            (outcome.tokens, outcome.logprobs, outcome.text) = Default::default();
            outcome.finish = generate::Finish::Length;
        }
        Ok(outcome)
    }

    /// What the model gave to tokens of the prompt, if these come first, and of the answer.
    fn logprobs(&mut self, choice: usize, prompt: Option<&[Logprob]>, answer: &[Logprob]) -> Option<Value> {
        if !self.tells_logprobs {
            return None;
        }
        let (mut told, offset) = (Legacy::new(&self.heading.app.served), &mut self.offsets[choice]);
        if let Some(prompt) = prompt.filter(|_| self.echo) {
            told.first(self.prompts[choice / self.each].0[0], offset);
            prompt.iter().for_each(|logprob| told.push(logprob, offset));
        }
        answer.iter().for_each(|logprob| told.push(logprob, offset));
        Some(told.object())
    }

    fn completion<'a>(&'a self, choices: Vec<CompletionChoice>, usage: Option<&'a Usage>) -> Completion<'a> {
        Completion {
            id: &self.heading.id,
            object: "text_completion",
            created: self.heading.created,
            model: self.heading.model(),
            system_fingerprint: FINGERPRINT,
            choices,
            usage,
        }
    }
}

/// The answers in pieces.
struct Chunks {
    texts: Texts,
    usage: Usage,
    tells: bool,
}

impl Chunks {
    fn piece(&self, index: usize, text: String, logprobs: Option<Value>, out: &mut Sink) {
        let choice = CompletionChoice { index, text, logprobs, finish_reason: None };
        out.data(&self.texts.completion(vec![choice], None));
    }
}

impl Events for Chunks {
    fn begin(&mut self, out: &mut Sink) {
        // With log-probabilities the prompt comes with them.
        for index in (0..self.texts.offsets.len()).filter(|_| self.texts.echo && !self.texts.tells_logprobs) {
            self.piece(index, self.texts.begin(index), None, out);
        }
    }

    fn reply(&mut self, index: usize, reply: Reply, out: &mut Sink) -> Result<(), Refusal> {
        match reply {
            Reply::Begun => {}
            Reply::Prompt(logprobs) => {
                let is_first = self.texts.offsets[index] == 0;
                let text = if is_first { self.texts.begin(index) } else { String::new() };
                let told = match is_first {
                    true => self.texts.logprobs(index, Some(&logprobs), &[]),
                    false => self.texts.logprobs(index, None, &logprobs),
                };
                self.piece(index, text, told, out);
            }
            Reply::Text(text, None) if text.is_empty() => {}
            Reply::Text(..) if self.texts.prompt_only => {}
            Reply::Text(text, logprob) => {
                let told = logprob.and_then(|logprob| self.texts.logprobs(index, None, &[logprob]));
                self.piece(index, text, told, out);
            }
            Reply::End(outcome) => {
                let outcome = self.texts.kept(*outcome)?;
                self.usage.add(&outcome);
                let finish_reason = Some(reason(outcome.finish));
                let last = CompletionChoice { index, text: String::new(), logprobs: None, finish_reason };
                out.data(&self.texts.completion(vec![last], None));
            }
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Sink) {
        if self.tells {
            out.data(&self.texts.completion(Vec::new(), Some(&self.usage)));
        }
        out.raw("[DONE]");
    }
}
