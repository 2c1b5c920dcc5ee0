//! `POST /v1/embeddings` and `POST /v1/classify`

use super::answer::Heading;
use crate::app::App;
use crate::body;
use crate::refusal::{ErrorBody, Refusal};
use crate::served::{Network, unfit};
use axum::extract::{Request, State};
use axum::response::Response;
use lowbit_model::arch::OutputKind;
use lowbit_model::predict::{best, softmax, to_unit};
use lowbit_model::text;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use utoipa::ToSchema;

/// Texts of a request at most.
const MOST: usize = 2048;

/// The texts, or their tokens.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a text, a list of texts, a list of tokens, or a list of lists of tokens")]
pub(crate) enum Input {
    /// A text.
    Text(String),
    /// Tokens.
    Tokens(Vec<u32>),
    /// Several texts.
    Texts(Vec<String>),
    /// Tokens of several.
    Several(Vec<Vec<u32>>),
}

/// How vectors are written.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encoding {
    /// A list of numbers.
    #[default]
    Float,
    /// The bytes of the numbers, 32-bit floats in little-endian order, in base64.
    Base64,
}

/// Texts whose vectors are wanted.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbeddingRequest {
    /// The texts, or their tokens.
    pub input: Input,
    /// The model's name; there is one model, so that it may be left out.
    #[serde(default)]
    pub model: Option<String>,
    /// How vectors are written.
    #[serde(default)]
    pub encoding_format: Option<Encoding>,
    /// As many as the vectors of the model have.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub dimensions: Option<i64>,
    /// Cut texts that the model does not see whole, which are refused otherwise.
    #[serde(default)]
    pub truncate: Option<bool>,
    /// Taken for compatibility.
    #[serde(default, rename = "user")]
    pub _user: Option<String>,
}

/// Texts to classify.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClassifyRequest {
    /// The texts, or their tokens.
    pub input: Input,
    /// The model's name; there is one model, so that it may be left out.
    #[serde(default)]
    pub model: Option<String>,
    /// Cut texts that the model does not see whole, which are refused otherwise.
    #[serde(default)]
    pub truncate: Option<bool>,
}

/// The vectors of texts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Embeddings<'a> {
    object: &'static str,
    data: Vec<Embedding>,
    model: &'a str,
    usage: RowUsage,
}

/// The vector of a text.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Embedding {
    object: &'static str,
    index: usize,
    /// A list of numbers, or base64.
    #[schema(value_type = Vec<f32>)]
    embedding: Value,
}

/// The classes of texts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Classes<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    /// Names of the classes, in the order of `probs`; none where the model answers with a value.
    labels: &'a [String],
    data: Vec<Class>,
    usage: RowUsage,
}

/// The class of a text, or its value.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Class {
    index: usize,
    /// The most likely class.
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    /// Probability of each class.
    #[serde(skip_serializing_if = "Option::is_none")]
    probs: Option<Vec<f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_classes: Option<usize>,
    /// The value, in units of the data.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<f64>,
}

/// Tokens of a request.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RowUsage {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// Gives the vectors of texts.
#[utoipa::path(
    post, path = "/v1/embeddings", tag = "OpenAI", request_body = EmbeddingRequest, security(("key" = []), ()),
    responses((status = 200, description = "The vectors", body = Embeddings), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 408, body = ErrorBody), (status = 413, body = ErrorBody), (status = 429, body = ErrorBody), (status = 503, body = ErrorBody))
)]
pub(crate) async fn embed(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let asked: EmbeddingRequest = body::json(&app, request).await?;
    app.check_model(asked.model.as_deref())?;
    let output = match &app.served.network {
        Network::Rows(rows) => rows.output,
        Network::Language(_) => OutputKind::Tokens,
    };
    let OutputKind::Embedding { width, normalize } = output else {
        return Err(unfit(output, "gives no vectors"));
    };
    if asked.dimensions.is_some_and(|dimensions| dimensions != width as i64) {
        let text = format!("vectors of this model have {width} dimensions; leave `dimensions` out");
        return Err(Refusal::field("dimensions", text));
    }
    let (mut vectors, usage) = answer(&app, asked.input, asked.truncate).await?;
    let format = asked.encoding_format.unwrap_or_default();
    let write = |(index, vector): (usize, &mut [f32])| {
        if normalize {
            to_unit(vector);
        }
        let embedding = match format {
            Encoding::Float => json!(vector),
            Encoding::Base64 => json!(base64(vector.iter().flat_map(|v| v.to_le_bytes()))),
        };
        Embedding { object: "embedding", index, embedding }
    };
    let data = vectors.chunks_exact_mut(width).enumerate().map(write).collect();
    Ok(super::json(&Embeddings { object: "list", data, model: &app.served.names[0], usage }))
}

/// Classifies texts.
#[utoipa::path(
    post, path = "/v1/classify", tag = "texts", request_body = ClassifyRequest, security(("key" = []), ()),
    responses((status = 200, description = "The classes", body = Classes), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 408, body = ErrorBody), (status = 413, body = ErrorBody), (status = 429, body = ErrorBody), (status = 503, body = ErrorBody))
)]
pub(crate) async fn classify(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let asked: ClassifyRequest = body::json(&app, request).await?;
    app.check_model(asked.model.as_deref())?;
    let rows = match &app.served.network {
        Network::Rows(rows) if !matches!(rows.output, OutputKind::Embedding { .. }) => rows,
        Network::Rows(rows) => return Err(unfit(rows.output, "has no classes")),
        Network::Language(_) => return Err(unfit(OutputKind::Tokens, "has no classes")),
    };
    let (outputs, usage) = answer(&app, asked.input, asked.truncate).await?;
    let data = match rows.output {
        OutputKind::Classes(classes) => {
            let class = |(index, logits): (usize, &[f32])| Class {
                index,
                label: rows.labels.get(best(logits)).cloned(),
                probs: Some(softmax(logits)),
                num_classes: Some(classes),
                value: None,
            };
            outputs.chunks_exact(classes.max(1)).enumerate().map(class).collect()
        }
        _ => {
            let value = |(index, value)| Class { index, value: Some(rows.restored(value)), ..Class::default() };
            outputs.into_iter().enumerate().map(value).collect()
        }
    };
    let heading = Heading::new(&app, "classify");
    let (id, created, model) = (heading.id.as_str(), heading.created, heading.model());
    Ok(super::json(&Classes { id, object: "list", created, model, labels: &rows.labels, data, usage }))
}

/// What the network answers to texts, `[rows, width]`, and how many tokens they have.
async fn answer(app: &Arc<App>, input: Input, truncate: Option<bool>) -> Result<(Vec<f32>, RowUsage), Refusal> {
    let place = app.admit(1, "input")?;
    let rows = app.apart(move |app| rows(app, input, truncate.unwrap_or(false))).await?;
    let prompt_tokens = rows.iter().map(Vec::len).sum();
    let receiver = app.rows()?.submit(rows, place);
    let outputs = receiver.await.map_err(|_| Refusal::stopping())??;
    Ok((outputs, RowUsage { prompt_tokens, total_tokens: prompt_tokens }))
}

/// The tokens of each text.
fn rows(app: &App, input: Input, truncate: bool) -> Result<Vec<Vec<u32>>, Refusal> {
    let (most, vocabulary) = (app.served.context, app.served.vocabulary());
    let room = if truncate { most } else { most + 1 };
    let texts = |texts: Vec<String>| -> Result<Vec<Vec<u32>>, Refusal> {
        let tokens = |text: String| text::tokens(&app.served.tokenizer, &text, room);
        Ok(texts.into_iter().map(tokens).collect::<Result<_, _>>()?)
    };
    let mut rows = match input {
        Input::Text(text) => texts(vec![text])?,
        Input::Texts(all) if all.len() <= MOST => texts(all)?,
        Input::Texts(all) => return Err(many(all.len())),
        Input::Tokens(tokens) => vec![tokens],
        Input::Several(all) => all,
    };
    if rows.len() > MOST {
        return Err(many(rows.len()));
    }
    if rows.is_empty() || rows.iter().any(Vec::is_empty) {
        return Err(Refusal::field("input", "input is empty, or one of it; give a text"));
    }
    if truncate {
        rows.iter_mut().for_each(|row| row.truncate(most));
    }
    for (i, row) in rows.iter().enumerate() {
        if row.len() > most {
            let text = format!(
                "the model sees {most} tokens of a text, and input[{i}] has more; shorten it, or set `truncate`"
            );
            return Err(Refusal::too_long(&format!("input[{i}]"), text));
        }
        if let Some(token) = row.iter().find(|token| **token as usize >= vocabulary) {
            let text =
                format!("input[{i}] holds token {token}; tokens of this model are the numbers 0 to {}", vocabulary - 1);
            return Err(Refusal::field("input", text));
        }
    }
    Ok(rows)
}

fn many(texts: usize) -> Refusal {
    Refusal::field("input", format!("input has {texts} texts; at most {MOST} are taken"))
}

/// RFC 4648, with padding.
fn base64(bytes: impl Iterator<Item = u8>) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = bytes.collect();
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let whole = group.iter().fold(0u32, |whole, byte| whole << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for i in 0..4 {
            let letter = LETTERS[(whole >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= group.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_as_rfc_4648() {
        let cases =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (text, expected) in cases {
            assert_eq!(base64(text.bytes()), expected);
        }
    }
}
