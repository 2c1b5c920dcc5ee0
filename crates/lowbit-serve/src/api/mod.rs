//! The routes: each is described where it is answered, and the router and the OpenAPI document follow from one list.

mod answer;
mod chat;
mod completions;
mod messages;
mod models;
pub(crate) mod page;
mod responses;
mod rows;
mod status;
mod talk;
mod tokenize;
mod tools;

use crate::app::App;
use crate::guard;
use crate::refusal::{ErrorBody, Refusal};
use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use std::sync::Arc;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};

macro_rules! routes {
    ($($method:ident $path:literal => $handler:path, $doc:path;)+) => {
        /// Path and handler of every route.
        fn routes() -> Vec<(&'static str, MethodRouter<Arc<App>>)> {
            vec![$(($path, $method($handler)),)+]
        }

        /// The OpenAPI document.
        #[derive(OpenApi)]
        #[openapi(
            paths($($doc),+),
            components(schemas(ErrorBody, chat::ChatChunk, completions::Completion)),
            info(title = "lowbit serve", description = "An OpenAI-compatible server for low-bit language models."),
        )]
        struct Document;
    };
}

routes! {
    post "/v1/chat/completions" => chat::create, chat::create;
    post "/v1/completions" => completions::create, completions::create;
    post "/v1/responses" => responses::create, responses::create;
    post "/v1/messages" => messages::create, messages::create;
    post "/v1/embeddings" => rows::embed, rows::embed;
    post "/v1/classify" => rows::classify, rows::classify;
    get "/v1/models" => models::list, models::list;
    get "/v1/models/{*model}" => models::show, models::show;
    get "/tokenizer_info" => tokenize::info, tokenize::info;
    post "/tokenize" => tokenize::tokenize, tokenize::tokenize;
    post "/detokenize" => tokenize::detokenize, tokenize::detokenize;
    get "/health" => status::health, status::health;
    get "/metrics" => status::metrics, status::metrics;
    get "/openapi.json" => document, document;
}

/// All routes behind what every request passes.
pub(crate) fn router(app: Arc<App>) -> Router {
    let router = page::add(Router::new());
    let router = routes().into_iter().fold(router, |router, (path, handler)| router.route(path, handler));
    router
        .fallback(|| async { Refusal::route() })
        .method_not_allowed_fallback(|| async { Refusal::method() })
        .layer(axum::middleware::from_fn_with_state(app.clone(), guard::guard))
        .with_state(app)
}

/// The description of all routes, OpenAPI 3.1.
#[utoipa::path(
    get, path = "/openapi.json", tag = "server",
    responses((status = 200, description = "The document", content_type = "application/json"), (status = 401, body = ErrorBody))
)]
async fn document() -> Response {
    json_text(specification())
}

/// The text of the document.
fn specification() -> String {
    let mut document = Document::openapi();
    let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    let components = document.components.get_or_insert_default();
    components.security_schemes.insert("key".into(), bearer.into());
    document.info.version = env!("CARGO_PKG_VERSION").into();
    serde_json::to_string(&document).unwrap_or_default()
}

/// A response that is JSON already.
fn json_text(text: String) -> Response {
    let mut response = text.into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A response of a value.
fn json(value: &impl serde::Serialize) -> Response {
    serde_json::to_string(value).map_or_else(|_| Refusal::internal().into_response(), json_text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn the_document_describes_every_route_and_no_other() {
        let document: Value = serde_json::from_str(&specification()).expect("JSON");
        let described = document["paths"].as_object().expect("paths");
        let mut paths: Vec<String> = routes().iter().map(|(path, _)| path.replace("{*", "{")).collect();
        paths.sort_unstable();
        let mut found: Vec<String> = described.keys().cloned().collect();
        found.sort_unstable();
        assert_eq!(found, paths);
        for (path, item) in described {
            for (method, operation) in item.as_object().expect("methods") {
                assert!(operation["responses"].as_object().is_some_and(|all| !all.is_empty()), "{method} {path}");
                assert!(operation["summary"].is_string(), "{method} {path}");
            }
        }
    }
}
