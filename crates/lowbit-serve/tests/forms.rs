//! Answers of a stated form, by a model that knows nothing of it.

mod common;

use common::{chat, plain, said, with};
use serde_json::{Value, json};
use std::thread;

fn asked(format: Value, seed: u64) -> Value {
    let base = with(chat("Hello", 400), json!({"logit_bias": {}, "temperature": 1, "seed": seed}));
    with(base, json!({"response_format": format}))
}

#[test]
fn answers_are_json_of_the_schema() {
    let server = plain();
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["name", "age", "tags"],
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1, "maxItems": 3},
        },
    });
    let format = json!({"type": "json_schema", "json_schema": {"name": "person", "strict": true, "schema": schema}});
    let ask = |seed| {
        let answer = server.post("/v1/chat/completions", &asked(format.clone(), seed)).json();
        assert_eq!(answer["choices"][0]["finish_reason"], json!("stop"), "{answer}");
        let text = said(&answer);
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        let object = value.as_object().expect("an object");
        assert_eq!(object.len(), 3, "{text}");
        assert!(value["name"].as_str().is_some_and(|name| name.chars().count() <= 12), "{text}");
        assert!(value["age"].as_u64().is_some_and(|age| age <= 150), "{text}");
        let tags = value["tags"].as_array().expect("a list");
        assert!((1..=3).contains(&tags.len()) && tags.iter().all(|tag| tag == "a" || tag == "b"), "{text}");
        text
    };
    let alone: Vec<String> = (0..8).map(ask).collect();
    let together: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|seed| scope.spawn(move || ask(seed))).collect();
        threads.into_iter().map(|thread| thread.join().expect("answered")).collect()
    });
    assert_eq!(together, alone, "whoever else is answered");
    assert!(alone.iter().any(|text| *text != alone[0]));
}

#[test]
fn answers_match_a_regular_expression_and_are_cut_by_their_length_alone() {
    let server = plain();
    for seed in 0..6 {
        let format = json!({"type": "regex", "regex": "(yes|no), [0-9]{3}!"});
        let text = said(&server.post("/v1/chat/completions", &asked(format, seed)).json());
        let rest = text.strip_prefix("yes, ").or(text.strip_prefix("no, ")).unwrap_or_else(|| panic!("{text}"));
        assert!(rest.len() == 4 && rest.ends_with('!') && rest[..3].bytes().all(|b| b.is_ascii_digit()), "{text}");
    }
    let object = said(
        &server
            .post("/v1/chat/completions", &with(asked(json!({"type": "json_object"}), 1), json!({"max_tokens": 5})))
            .json(),
    );
    assert!(object.starts_with('{'), "{object}");
    let text = said(&server.post("/v1/chat/completions", &asked(json!({"type": "text"}), 1)).json());
    assert_eq!(
        text,
        said(&server.post("/v1/chat/completions", &with(asked(json!({}), 1), json!({"response_format": null}))).json())
    );
}
