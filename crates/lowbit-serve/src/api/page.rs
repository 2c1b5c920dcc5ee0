//! The page for chats in a browser: three files, which ask nobody but this server.

use crate::app::App;
use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::sync::Arc;

/// Path, type and content of each file.
const FILES: &[(&str, &str, &str)] = &[
    ("/", "text/html; charset=utf-8", include_str!("../page/page.html")),
    ("/page.css", "text/css; charset=utf-8", include_str!("../page/page.css")),
    ("/page.js", "text/javascript; charset=utf-8", include_str!("../page/page.js")),
];
/// What the page may load: its own files, and this server's answers.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// Whether a path is one of the files, which need no key: they tell nothing of the model.
pub(crate) fn is_file(path: &str) -> bool {
    FILES.iter().any(|(known, ..)| *known == path)
}

/// Adds the files.
pub(super) fn add(router: Router<Arc<App>>) -> Router<Arc<App>> {
    FILES.iter().fold(router, |router, (path, kind, text)| router.route(path, get(|| async { file(kind, text) })))
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let mut response = text.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

#[cfg(test)]
mod tests {
    use super::FILES;

    #[test]
    fn the_page_asks_nobody_else() {
        for (path, _, text) in FILES {
            assert!(!text.contains("//"), "{path} names a host");
            assert!(!text.contains("innerHTML") && !text.contains("<script>"), "{path} makes code of text");
        }
    }
}
