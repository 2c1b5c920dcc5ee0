//! Models that answer each text: classes, values, vectors.

mod common;

use common::{Running, TRAINED, checkpoint, settings, start_with, with};
use lowbit_kernels::Cpu;
use lowbit_model::arch::Head;
use lowbit_model::exec::Pooling;
use lowbit_model::predict::softmax;
use lowbit_model::{Inputs, Predictor};
use lowbit_serve::{EngineOptions, Limits, Settings};
use serde_json::{Value, json};

fn head(classes: usize) -> Head {
    Head::Classify { classes, pooling: Pooling::Mean, bias: true }
}

const EMBED: Head = Head::Embed { pooling: Pooling::Mean, normalize: true };

fn serve(head: Head) -> Running {
    start_with(head, settings(), EngineOptions::default())
}

fn texts() -> Vec<String> {
    (0..150).map(|i| format!("text {i} {}", "with more words ".repeat(i * 7 % 23))).collect()
}

/// What the library answers.
fn expected(head: Head, texts: Vec<String>) -> (Predictor, Vec<f32>) {
    let (_directory, checkpoint) = checkpoint(head);
    let mut predictor = Predictor::of(&checkpoint, Cpu::new(None, Some(1)).expect("a CPU")).expect("a classifier");
    let rows = 0..texts.len();
    let outputs = predictor.outputs(&Inputs::Texts(texts), rows).expect("outputs");
    (predictor, outputs)
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number")).collect()
}

#[test]
fn texts_are_classified_as_the_library_does() {
    let server = serve(head(3));
    let (_, logits) = expected(head(3), texts());
    let answer = server.post("/v1/classify", &json!({"input": texts(), "model": "tiny"})).json();
    assert_eq!(answer["labels"], json!(["class 0", "class 1", "class 2"]));
    let rows = answer["data"].as_array().expect("a list");
    assert_eq!(rows.len(), 150);
    for (i, (row, logits)) in rows.iter().zip(logits.chunks_exact(3)).enumerate() {
        assert_eq!((&row["index"], &row["num_classes"]), (&json!(i), &json!(3)));
        assert_eq!(floats(&row["probs"]), softmax(logits));
        let best = lowbit_model::predict::best(logits);
        assert_eq!(row["label"], json!(format!("class {best}")));
    }
    let count: usize = texts().iter().map(String::len).sum();
    assert_eq!(answer["usage"], json!({"prompt_tokens": count, "total_tokens": count}));
    // One text, its tokens, and both among others.
    let one = server.post("/v1/classify", &json!({"input": "text 3 "})).json();
    let tokens = server.post("/v1/classify", &json!({"input": b"text 3 "})).json();
    assert_eq!(one["data"], tokens["data"]);
    assert!(floats(&one["data"][0]["probs"]) != floats(&rows[3]["probs"]), "row 3 has more words");
}

#[test]
fn vectors_and_values_are_those_of_the_library() {
    let server = serve(EMBED);
    let (mut predictor, _) = expected(EMBED, texts());
    let vectors = predictor.embeddings(&Inputs::Texts(texts())).expect("vectors");
    let width = vectors.len() / 150;
    let answer = server.post("/v1/embeddings", &json!({"input": texts()})).json();
    for (i, (row, vector)) in
        answer["data"].as_array().expect("a list").iter().zip(vectors.chunks_exact(width)).enumerate()
    {
        let found: Vec<f32> = floats(&row["embedding"]).into_iter().map(|v| v as f32).collect();
        assert_eq!((&row["index"], &found[..]), (&json!(i), vector));
        let length: f32 = found.iter().map(|v| v * v).sum();
        assert!((length - 1.0).abs() < 1e-5);
    }
    let coded = server
        .post("/v1/embeddings", &json!({"input": ["text 0 "], "encoding_format": "base64", "dimensions": width}))
        .json();
    let text = coded["data"][0]["embedding"].as_str().expect("a text");
    assert_eq!(text.len(), (4 * width).div_ceil(3) * 4);
    let value = serve(head(1));
    let (predictor, scaled) = expected(head(1), texts());
    let answer = value.post("/v1/classify", &json!({"input": texts()})).json();
    let found: Vec<f64> =
        answer["data"].as_array().expect("a list").iter().map(|row| row["value"].as_f64().expect("a number")).collect();
    let expected = predictor.values(&scaled);
    assert!(
        found.len() == 150 && found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5),
        "{found:?} {expected:?}"
    );
    assert!(expected.iter().any(|value| *value > 2.0), "values are scaled: {expected:?}");
}

#[test]
fn models_say_what_they_are_not() {
    let (classifier, embedder, writer) = (serve(head(3)), serve(EMBED), common::plain());
    let refused = |server: &Running, path: &str, body: Value, param: &str, word: &str| {
        let answer = server.post(path, &body);
        let error = answer.error();
        assert_eq!((answer.status, error["param"].as_str()), (400, Some(param)), "{error}");
        assert!(error["message"].as_str().expect("a text").contains(word), "{error}");
    };
    let (chats, texts) = (common::chat("x", 3), json!({"input": "x"}));
    refused(&classifier, "/v1/chat/completions", chats, "model", "a classifier");
    refused(&classifier, "/v1/completions", json!({"prompt": "x"}), "model", "a classifier");
    refused(&classifier, "/v1/embeddings", texts.clone(), "model", "a classifier");
    refused(&embedder, "/v1/classify", texts.clone(), "model", "an embedding model");
    refused(&writer, "/v1/classify", texts.clone(), "model", "a language model");
    refused(&writer, "/v1/embeddings", texts.clone(), "model", "a language model");
    for (more, param, word) in [
        (json!({"input": []}), "input", "is empty"),
        (json!({"input": [[]]}), "input", "is empty"),
        (json!({"input": [300]}), "input", "token 300"),
        (json!({"input": vec!["x"; 2049]}), "input", "at most 2048"),
        (json!({"input": ["x", "y".repeat(TRAINED + 1)]}), "input[1]", "sees 4096 tokens"),
        (json!({"input": 3}), "input", "a text, a list of texts"),
        (json!({"input": "x", "encoding_format": "hex"}), "encoding_format", "unknown variant"),
        (json!({"input": "x", "dimensions": 7}), "dimensions", "48 dimensions"),
        (json!({"input": "x", "n": 7}), "n", "unknown field"),
        (json!({"input": "x", "model": "other"}), "model", "no such model"),
    ] {
        refused(&embedder, "/v1/embeddings", with(texts.clone(), more), param, word);
    }
    let cut = json!({"input": "y".repeat(TRAINED + 9), "truncate": true});
    assert_eq!(embedder.post("/v1/embeddings", &cut).json()["usage"]["total_tokens"], json!(TRAINED));
}

#[test]
fn clients_that_leave_end_their_work_and_the_queue_is_limited() {
    let limits = Limits { queue: 2, ..Limits::default() };
    let server = start_with(head(3), Settings { limits, ..settings() }, EngineOptions::default());
    let much = json!({"input": vec!["many words ".repeat(150); 2000]});
    let mut clients: Vec<_> = (0..3)
        .map(|_| {
            let mut client = server.connect();
            client.write(common::post("/v1/classify", &much.to_string()));
            client
        })
        .collect();
    server.wait("lowbit_sequences_waiting", 2);
    let mut refused = server.post("/v1/classify", &json!({"input": "x"}));
    assert_eq!(refused.status, 429, "{refused:?}");
    clients.clear();
    for _ in 0..200 {
        refused = server.post("/v1/classify", &json!({"input": "x"}));
        if refused.status == 200 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(refused.status, 200);
    server.wait("http_requests_in_flight", 1);
}
