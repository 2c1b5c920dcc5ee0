//! The body of a request: read within limits, and made a value whose wrong field is named.

use crate::app::App;
use crate::refusal::Refusal;
use crate::seats::Seat;
use crate::settings::Limits;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::CONTENT_LENGTH;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long a body may be slower than its least rate.
const START: Duration = Duration::from_secs(5);

/// The value that the JSON of a request is.
///
/// # Errors
/// When it is too large, too slow, no JSON, or not of this type; names the field.
pub(crate) async fn json<T: DeserializeOwned>(app: &App, request: Request) -> Result<T, Refusal> {
    let limits = &app.settings.limits;
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > limits.body_bytes as u64) {
        return Err(Refusal::large(limits.body_bytes));
    }
    let (parts, body) = request.into_parts();
    let bytes = read(body, limits).await?;
    if let Some(seat) = parts.extensions.get::<Arc<Seat>>() {
        seat.take();
    }
    parse(&bytes)
}

async fn read(mut body: Body, limits: &Limits) -> Result<Vec<u8>, Refusal> {
    let (start, mut bytes) = (Instant::now(), Vec::new());
    loop {
        let earned = START + Duration::from_secs_f64(bytes.len() as f64 / limits.body_rate.max(1) as f64);
        let frame = timeout_at(start + earned.min(limits.body_time), body.frame()).await;
        match frame.map_err(|_| Refusal::slow())? {
            None => return Ok(bytes),
            Some(Err(_)) => return Err(Refusal::bad("the body of the request is cut or malformed")),
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap_or_default();
                if data.len() > limits.body_bytes - bytes.len() {
                    return Err(Refusal::large(limits.body_bytes));
                }
                bytes.extend_from_slice(&data);
            }
        }
    }
}

/// The value of JSON.
///
/// # Errors
/// Naming the field.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    let start = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if start != Some(&b'{') {
        return Err(Refusal::bad("the body of the request must be a JSON object"));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let (path, text) = (error.path().to_string(), error.inner().to_string());
        // serde_json tells where, which helps where no field is named.
        let place = text.rfind(" at line ").unwrap_or(text.len());
        match Some(path).filter(|path| path != ".").or_else(|| named(&text).map(str::to_owned)) {
            Some(path) if text[..place].contains(&format!("`{path}`")) => Refusal::field(path, &text[..place]),
            Some(path) => Refusal::field(path.clone(), format!("{path}: {}", &text[..place])),
            None => Refusal::bad(format!("the body of the request is not valid: {text}")),
        }
    })?;
    json.end().map_err(|_| Refusal::bad("there is text after the JSON object of the request"))?;
    Ok(value)
}

/// The field that a message of serde is about.
fn named(text: &str) -> Option<&str> {
    ["unknown field `", "missing field `", "duplicate field `"]
        .iter()
        .find_map(|begin| text.strip_prefix(begin)?.split_once('`'))
        .map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[serde(rename = "x")]
        _x: u32,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[serde(rename = "items")]
        _items: Vec<Inner>,
        #[serde(rename = "n")]
        _n: Option<i64>,
    }

    #[test]
    fn the_wrong_field_is_named() {
        parse::<Outer>(br#" {"items": [{"x": 1}], "n": null} "#).expect("right");
        let deep = [b"{\"items\":".to_vec(), vec![b'['; 100_000]].concat();
        for (text, param, words) in [
            (&br#"{"items": [{"x": 1}, {"x": -1}]}"#[..], Some("items[1].x"), "invalid value: integer `-1`"),
            (br#"{"items": [{"x": 1, "y": 2}]}"#, Some("items[0].y"), "unknown field `y`"),
            (br#"{"n": 1}"#, Some("items"), "missing field `items`"),
            (br#"{"items": [], "items": []}"#, Some("items"), "duplicate field `items`"),
            (br#"{"items": [], "n": 1e9}"#, Some("n"), "floating point"),
            (br#"{"items": [], "n": 9223372036854775808}"#, Some("n"), "n: invalid value"),
            (br#"{"items": [], "n": NaN}"#, Some("n"), "n: expected value"),
            (br#"{"items": [], "m": {}}"#, Some("m"), "unknown field `m`"),
            (br#"[1]"#, None, "must be a JSON object"),
            (b"", None, "must be a JSON object"),
            (br#"{"items": []} x"#, None, "text after"),
            (br#"{"items": ["#, None, "EOF"),
            (&deep, Some("items[0][0]"), "invalid type: sequence"),
            (b"{\"items\": [], \"\xff\": 1}", None, ""),
        ] {
            let refused = parse::<Outer>(text).expect_err(words).detail;
            assert!(refused.message.contains(words), "{refused:?}");
            if param.is_some() {
                assert_eq!(refused.param.as_deref(), param, "{refused:?}");
            }
        }
    }
}
