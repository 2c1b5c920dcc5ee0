//! Why a request gets no answer, in the shape of OpenAI's errors.

use axum::http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use lowbit_base::{Error, Kind};
use lowbit_model::chat::ChatError;
use serde::Serialize;
use utoipa::ToSchema;

/// What is sent in place of an answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    pub error: ErrorDetail,
}

/// Why there is no answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ErrorDetail {
    /// The sentence: what is wrong, and what is allowed.
    pub message: String,
    /// Kind of error.
    pub r#type: &'static str,
    /// The field that is to blame, if one is.
    pub param: Option<String>,
    /// Short name of the error.
    pub code: Option<&'static str>,
}

/// A status and why.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub status: StatusCode,
    pub detail: ErrorDetail,
}

/// The kind of errors that a client can mend.
const INVALID: &str = "invalid_request_error";

impl Refusal {
    fn new(status: StatusCode, kind: &'static str, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Refusal { status, detail: ErrorDetail { message: message.into(), r#type: kind, param: None, code } }
    }

    /// The request is wrong, no field in particular.
    pub fn bad(message: impl Into<String>) -> Self {
        Refusal::new(StatusCode::BAD_REQUEST, INVALID, None, message)
    }

    /// A field of the request is wrong.
    pub fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        Refusal::bad(message).of(param)
    }

    /// The same with the field that is to blame.
    pub fn of(mut self, param: impl Into<String>) -> Self {
        self.detail.param = Some(param.into());
        self
    }

    /// The prompt leaves no room for an answer.
    pub fn too_long(param: &str, message: impl Into<String>) -> Self {
        let code = Some("context_length_exceeded");
        Refusal::new(StatusCode::BAD_REQUEST, INVALID, code, message).of(param)
    }

    /// There is no such model.
    pub fn model() -> Self {
        let message = "there is no such model here; `GET /v1/models` lists what is served";
        Refusal::new(StatusCode::BAD_REQUEST, INVALID, Some("model_not_found"), message).of("model")
    }

    /// No key, or the wrong one.
    pub fn key() -> Self {
        let message = "this server wants an API key: `Authorization: Bearer KEY`";
        Refusal::new(StatusCode::UNAUTHORIZED, INVALID, Some("invalid_api_key"), message)
    }

    /// The request comes from where none may.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Refusal::new(StatusCode::FORBIDDEN, INVALID, Some("forbidden"), message)
    }

    /// There is no such route.
    pub fn route() -> Self {
        let message = "there is no such route; `GET /openapi.json` describes those there are";
        Refusal::new(StatusCode::NOT_FOUND, INVALID, Some("not_found"), message)
    }

    /// The route takes other methods.
    pub fn method() -> Self {
        let message = "this route takes another method; `GET /openapi.json` describes it";
        Refusal::new(StatusCode::METHOD_NOT_ALLOWED, INVALID, Some("method_not_allowed"), message)
    }

    /// The body did not come in time.
    pub fn slow() -> Self {
        Refusal::new(StatusCode::REQUEST_TIMEOUT, INVALID, Some("timeout"), "the body of the request came too slowly")
    }

    /// The body is too large.
    pub fn large(limit: usize) -> Self {
        let message = format!("the body of the request is larger than {limit} bytes");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID, Some("body_too_large"), message)
    }

    /// There are too many requests.
    pub fn busy(waiting: usize) -> Self {
        let message = format!("{waiting} answers are under way or wait, as many as may; try again later");
        Refusal::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", Some("queue_full"), message)
    }

    /// The server ends.
    pub fn stopping() -> Self {
        let message = "the server is shutting down; try again later";
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", Some("shutting_down"), message)
    }

    /// A fault of the server.
    pub fn internal() -> Self {
        let message = "a fault of the server; its operator may report it";
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", Some("internal_error"), message)
    }

    /// The JSON of the error.
    pub fn body(&self) -> String {
        let body = ErrorBody { error: self.detail.clone() };
        serde_json::to_string(&body).unwrap_or_else(|_| r#"{"error":{"message":"a fault of the server"}}"#.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.body()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self.status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            // What is left of the body is not read.
            StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}

impl From<Error> for Refusal {
    /// Faults of the request are told, without the files they name; all others are the server's own.
    fn from(error: Error) -> Self {
        match error.kind {
            Kind::Usage | Kind::Input => Refusal::bad(error.message),
            Kind::Interrupted => Refusal::stopping(),
            Kind::Memory => {
                let message = "there is not enough memory for this request now; try again later, or say less";
                Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", Some("out_of_memory"), message)
            }
            _ => Refusal::internal(),
        }
    }
}

impl From<ChatError> for Refusal {
    fn from(error: ChatError) -> Self {
        match error {
            ChatError::Other(error) => Refusal::from(error),
            ChatError::ContextFull { prompt, context, .. } => too_long("messages", prompt, context),
        }
    }
}

/// A prompt that has no room for an answer.
pub(crate) fn too_long(param: &str, prompt: usize, context: usize) -> Refusal {
    let text = format!("the context of this model is {context} tokens, for prompt and answer together");
    Refusal::too_long(param, format!("{text}, and `{param}` has at least {prompt}; shorten it"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn errors_name_no_path() {
        for kind in [Kind::Usage, Kind::Input, Kind::Io, Kind::Internal, Kind::Memory, Kind::Numeric] {
            let error = Error::new(kind, "the sentence").in_file(Path::new("/home/somebody/model"));
            assert!(!Refusal::from(error).body().contains("somebody"), "{kind:?}");
        }
        let told = Refusal::from(Error::usage("temperature is 9")).of("temperature").body();
        let expected = r#"{"error":{"message":"temperature is 9","type":"invalid_request_error","param":"temperature","code":null}}"#;
        assert_eq!(told, expected);
    }
}
