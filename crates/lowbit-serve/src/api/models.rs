//! `GET /v1/models`

use crate::app::App;
use crate::refusal::{ErrorBody, Refusal};
use axum::extract::{Path, State};
use axum::response::Response;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// The models that are served.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelList<'a> {
    object: &'static str,
    data: Vec<ModelCard<'a>>,
}

/// A model.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelCard<'a> {
    /// Its name in requests.
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    /// Tokens of prompt and answer together.
    max_model_len: usize,
    /// Whether turns of a chat reach the model as such; else the last message is continued.
    has_chat_template: bool,
}

impl App {
    fn card<'a>(&'a self, id: &'a str) -> ModelCard<'a> {
        let (object, owned_by) = ("model", "lowbit");
        let (max_model_len, has_chat_template) = (self.served.context, self.served.has_template());
        ModelCard { id, object, created: self.created, owned_by, max_model_len, has_chat_template }
    }
}

/// Lists the names of the model.
#[utoipa::path(
    get, path = "/v1/models", tag = "OpenAI", security(("key" = []), ()),
    responses((status = 200, description = "The names", body = ModelList), (status = 401, body = ErrorBody))
)]
pub(crate) async fn list(State(app): State<Arc<App>>) -> Response {
    let data = app.served.names.iter().map(|name| app.card(name)).collect();
    super::json(&ModelList { object: "list", data })
}

/// Shows the model by one of its names.
#[utoipa::path(
    get, path = "/v1/models/{model}", tag = "OpenAI", security(("key" = []), ()),
    params(("model" = String, Path, description = "A name of the model")),
    responses((status = 200, description = "The model", body = ModelCard), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody))
)]
pub(crate) async fn show(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Response, Refusal> {
    app.check_model(Some(&name))?;
    Ok(super::json(&app.card(&name)))
}
