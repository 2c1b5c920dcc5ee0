//! `GET /health` and `GET /metrics`

use crate::app::App;
use crate::refusal::{ErrorBody, Refusal};
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Tells that the server answers; while it shuts down, that it does not.
#[utoipa::path(
    get, path = "/health", tag = "server",
    responses((status = 200, description = "It answers", body = Object), (status = 503, body = ErrorBody))
)]
pub(crate) async fn health(State(app): State<Arc<App>>) -> Result<Response, Refusal> {
    match app.stopping.load(Ordering::Relaxed) {
        true => Err(Refusal::stopping()),
        false => Ok(super::json(&json!({"status": "ok"}))),
    }
}

/// Tells the counters, for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "server", security(("key" = []), ()),
    responses((status = 200, description = "The counters", body = String, content_type = "text/plain"), (status = 401, body = ErrorBody))
)]
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let mut response = app.metrics.text().into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    response
}
