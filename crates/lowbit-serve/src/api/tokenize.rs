//! `POST /tokenize` and `POST /detokenize`

use crate::app::App;
use crate::body;
use crate::refusal::{ErrorBody, Refusal};
use axum::extract::{Request, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// A text to encode, under one of two names.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenizeRequest {
    /// The text, as llama-server takes it: without the tokens around every text, unless `add_special` is true.
    #[serde(default)]
    pub content: Option<String>,
    /// The text, as vLLM takes it: with the tokens around every text, unless `add_special_tokens` is false.
    #[serde(default)]
    pub prompt: Option<String>,
    /// Add the tokens that the model wants around every text.
    #[serde(default)]
    pub add_special: Option<bool>,
    /// The same.
    #[serde(default)]
    pub add_special_tokens: Option<bool>,
    /// The model's name.
    #[serde(default)]
    pub model: Option<String>,
}

/// The tokens of a text.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Tokens {
    tokens: Vec<u32>,
    count: usize,
    /// Tokens of prompt and answer together.
    max_model_len: usize,
}

/// Tokens to decode.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DetokenizeRequest {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// The model's name.
    #[serde(default)]
    pub model: Option<String>,
}

/// The text of tokens, under the names of llama-server and vLLM.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Text {
    content: String,
    prompt: String,
}

/// What lm-eval asks of a tokenizer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenizerInfo<'a> {
    tokenizer_class: &'static str,
    /// The token that begins every text.
    bos_token: Option<&'a str>,
    /// The token that ends an answer.
    eos_token: Option<&'a str>,
}

/// Names the tokens that begin and end texts, as vLLM does.
#[utoipa::path(
    get, path = "/tokenizer_info", tag = "tokens", security(("key" = []), ()),
    responses((status = 200, description = "The names", body = TokenizerInfo), (status = 401, body = ErrorBody))
)]
pub(crate) async fn info(State(app): State<Arc<App>>) -> Response {
    let served = &app.served;
    let name = |id: Option<u32>| served.controls.get(&id?).map(String::as_str);
    let end = served.writer().ok().and_then(|language| language.chat.stop_tokens().first().copied());
    let eos_token = name(end.or_else(|| served.tokenizer.end()));
    super::json(&TokenizerInfo { tokenizer_class: "lowbit", bos_token: name(served.tokenizer.bos()), eos_token })
}

/// Encodes a text; names of control tokens in it are text, but a `prompt` that is nothing but such a name is that token.
#[utoipa::path(
    post, path = "/tokenize", tag = "tokens", request_body = TokenizeRequest, security(("key" = []), ()),
    responses((status = 200, description = "The tokens", body = Tokens), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 408, body = ErrorBody), (status = 413, body = ErrorBody))
)]
pub(crate) async fn tokenize(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let asked: TokenizeRequest = body::json(&app, request).await?;
    app.check_model(asked.model.as_deref())?;
    let (text, default) = match (asked.content, asked.prompt) {
        (Some(text), None) => (text, false),
        (None, Some(text)) => (text, true),
        _ => return Err(Refusal::field("content", "give the text as `content` or as `prompt`")),
    };
    let around = asked.add_special.or(asked.add_special_tokens).unwrap_or(default);
    let tokens = app
        .apart(move |app| {
            let tokenizer = &app.served.tokenizer;
            let control = app.served.controls.iter().find(|(_, name)| default && **name == text);
            Ok(match around {
                false if control.is_some() => control.map(|(id, _)| *id).into_iter().collect(),
                true => tokenizer.encode(&text, usize::MAX)?,
                false => tokenizer.encode_parts(&[(&text, false)])?,
            })
        })
        .await?;
    let count = tokens.len();
    Ok(super::json(&Tokens { tokens, count, max_model_len: app.served.context }))
}

/// Decodes tokens; control tokens have no text.
#[utoipa::path(
    post, path = "/detokenize", tag = "tokens", request_body = DetokenizeRequest, security(("key" = []), ()),
    responses((status = 200, description = "The text", body = Text), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 408, body = ErrorBody), (status = 413, body = ErrorBody))
)]
pub(crate) async fn detokenize(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let asked: DetokenizeRequest = body::json(&app, request).await?;
    app.check_model(asked.model.as_deref())?;
    let vocabulary = app.served.vocabulary();
    if let Some((i, token)) = asked.tokens.iter().enumerate().find(|(_, token)| **token as usize >= vocabulary) {
        let text = format!("tokens[{i}] is {token}; tokens of this model are the numbers 0 to {}", vocabulary - 1);
        return Err(Refusal::field("tokens", text));
    }
    let content = app.apart(move |app| Ok(app.served.tokenizer.decode(&asked.tokens)?)).await?;
    Ok(super::json(&Text { prompt: content.clone(), content }))
}
