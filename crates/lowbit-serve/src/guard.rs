//! What every request passes: its number, the checks of where it comes from and of the key, and the counters.

use crate::api::page;
use crate::app::App;
use crate::refusal::Refusal;
use crate::seats::Seat;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{self, AUTHORIZATION, HOST, HeaderName, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Instant;

/// The number of a request, of the client's choice or the server's own.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Most bytes of a client's own number.
const LONGEST_ID: usize = 128;
/// The route that needs no key beside the files of the page: probes bring none.
const OPEN: &str = "/health";

/// Lets a request through, or refuses it.
pub(crate) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    // Stays where the client is gone before there is an answer.
    let gone = StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST);
    let mut watch = Watch {
        method: request.method().as_str().to_owned(),
        route,
        status: gone,
        since: Instant::now(),
        seat: request.extensions().get::<Arc<Seat>>().cloned(),
        app: app.clone(),
    };
    app.metrics.in_flight.fetch_add(1, Ordering::Relaxed);
    let id = request.headers().get(REQUEST_ID).filter(|id| is_plain(id)).cloned();
    let id = id.or_else(|| HeaderValue::try_from(app.id("req")).ok());
    let mut response = match check(&app, &request, &watch.route) {
        Err(refusal) => refusal.into_response(),
        Ok(Some(origin)) => {
            let preflight = request.method() == Method::OPTIONS;
            let mut response = if preflight { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
            allow(&origin, preflight, response.headers_mut());
            response
        }
        Ok(None) => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.extend(id.map(|id| (REQUEST_ID, id)));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    watch.status = response.status();
    response.map(|body| Body::new(Watched { body, _watch: watch }))
}

/// The origin of a web page that may read the answer, if one asks.
///
/// # Errors
/// When the request comes from where none may, or without the key.
fn check(app: &App, request: &Request, route: &str) -> Result<Option<HeaderValue>, Refusal> {
    let headers = request.headers();
    let host = host(headers, request.version())?;
    if host.is_some_and(|host| !is_known(host, &app.settings.host, &app.settings.hosts)) {
        return Err(Refusal::forbidden("this server does not answer to the name in `Host`; --allow-host names more"));
    }
    let origin = origin(headers, host, &app.settings.origins)?;
    let preflight = origin.is_some() && request.method() == Method::OPTIONS;
    if let Some(key) = app.settings.key.as_ref().filter(|_| route != OPEN && !page::is_file(route) && !preflight) {
        let shown = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
        let (scheme, shown) = shown.split_at_checked(7).unwrap_or_default();
        let bearer = key.is(shown) && scheme.eq_ignore_ascii_case(b"Bearer ");
        // As Anthropic's clients show it.
        if !bearer && !headers.get("x-api-key").is_some_and(|shown| key.is(shown.as_bytes())) {
            return Err(Refusal::key());
        }
    }
    Ok(origin)
}

/// The header `Host`, which only an old client may leave out.
fn host(headers: &HeaderMap, version: Version) -> Result<Option<&str>, Refusal> {
    let mut all = headers.get_all(HOST).iter();
    match (all.next(), all.next()) {
        (None, _) if version == Version::HTTP_10 => Ok(None),
        (Some(host), None) => {
            host.to_str().map(Some).map_err(|_| Refusal::bad("the header `Host` is not printable ASCII"))
        }
        _ => Err(Refusal::bad("a request has one header `Host`")),
    }
}

/// Whether a request may name the server so: a name that others choose could lead a browser here (DNS rebinding), an IP address
/// cannot.
fn is_known(host: &str, own: &str, more: &[String]) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let named = |known: &str| known.eq_ignore_ascii_case(name);
    named("localhost") || named(own) || name.parse::<IpAddr>().is_ok() || more.iter().any(|m| m == "*" || named(m))
}

/// The origin of a page that may use the server; none where no page asks, or one of this server.
fn origin(headers: &HeaderMap, host: Option<&str>, allowed: &[String]) -> Result<Option<HeaderValue>, Refusal> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(None) };
    let text = origin.to_str().unwrap_or_default();
    let own = ["http://", "https://"].iter().any(|scheme| text.strip_prefix(scheme).is_some_and(|at| Some(at) == host));
    match own {
        true => Ok(None),
        false if allowed.iter().any(|known| known == "*" || known == text) => Ok(Some(origin.clone())),
        false => Err(Refusal::forbidden("web pages of this origin may not use this server; --allow-origin names some")),
    }
}

/// Tells the browser that a page may read the answer.
fn allow(origin: &HeaderValue, preflight: bool, headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("x-request-id"));
    if preflight {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
        let taken = HeaderValue::from_static("authorization, content-type, x-api-key, x-request-id");
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, taken);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    }
}

fn is_plain(id: &HeaderValue) -> bool {
    (1..=LONGEST_ID).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

/// A request under way; counted when it ends, however it does.
struct Watch {
    method: String,
    route: String,
    status: StatusCode,
    since: Instant,
    seat: Option<Arc<Seat>>,
    app: Arc<App>,
}

/// The body of an answer, and what is to be counted when it ends.
struct Watched {
    body: Body,
    _watch: Watch,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        HttpBody::size_hint(&self.body)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let metrics = &self.app.metrics;
        metrics.in_flight.fetch_sub(1, Ordering::Relaxed);
        metrics.request(&self.method, &self.route, self.status.as_u16(), self.since.elapsed());
        if let Some(seat) = &self.seat {
            seat.release();
        }
    }
}
