//! The same chats as clients of `/v1/responses` and `/v1/messages` ask for them, and the page.

mod common;

use common::{Answer, Running, plain, said, settings, start};
use lowbit_serve::{EngineOptions, Key, Settings};
use serde_json::{Value, json};

/// Greedy draws, so that the answers of all dialects are the same.
fn greedy() -> Running {
    let mut options = EngineOptions::default();
    options.sampling.temperature = 0.0;
    start(settings(), options)
}

/// Names and values of the events of a stream.
fn events(answer: &Answer) -> Vec<(String, Value)> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = answer.text();
    let event = |event: &str| {
        let (name, data) = event.split_once('\n').expect("two lines");
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON");
        let name = name.strip_prefix("event: ").expect("a name").to_owned();
        assert_eq!(data["type"], json!(name));
        (name, data)
    };
    text.split("\n\n").filter(|event| !event.is_empty()).map(event).collect()
}

fn names(events: &[(String, Value)]) -> Vec<&str> {
    let mut names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    names.dedup();
    names
}

#[test]
fn messages_as_anthropic_has_them() {
    let server = greedy();
    let turns = json!([{"role": "user", "content": "Hello"}]);
    let chat = json!({"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "Hello"}], "max_tokens": 24});
    let expected = said(&server.post("/v1/chat/completions", &chat).json());
    let asked =
        json!({"model": "tiny", "system": [{"type": "text", "text": "be brief"}], "messages": turns, "max_tokens": 24});
    let whole = server.post("/v1/messages", &asked).json();
    assert_eq!(whole["content"], json!([{"type": "text", "text": expected}]));
    assert_eq!(
        (&whole["type"], &whole["role"], &whole["stop_reason"]),
        (&json!("message"), &json!("assistant"), &json!("max_tokens"))
    );
    assert_eq!(whole["usage"]["input_tokens"], json!("<system>be brief<user>Hello<assistant>".len()));
    assert_eq!(whole["usage"]["output_tokens"], json!(24));
    let streamed = events(&server.post("/v1/messages", &common::with(asked.clone(), json!({"stream": true}))));
    let order = [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    assert_eq!(names(&streamed), order);
    let text: String = streamed.iter().filter_map(|(_, event)| event["delta"]["text"].as_str()).collect();
    assert_eq!(text, expected);
    let last = &streamed[streamed.len() - 2].1;
    assert_eq!((&last["delta"]["stop_reason"], &last["usage"]["output_tokens"]), (&json!("max_tokens"), &json!(24)));
    // A text that ends the answer is named.
    let stop: String = expected.chars().skip(3).take(2).collect();
    let ended =
        server.post("/v1/messages", &common::with(asked.clone(), json!({"stop_sequences": ["never", stop]}))).json();
    assert_eq!((&ended["stop_reason"], &ended["stop_sequence"]), (&json!("stop_sequence"), &json!(stop)));
    for (more, param) in [
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": [{"role": "system", "content": "x"}]}), "messages[0].role"),
        (json!({"messages": [{"role": "user", "content": [{"type": "image"}]}]}), "messages[0].content[0].type"),
        (json!({"stop_sequences": ["a", "b", "c", "d", "e"]}), "stop_sequences"),
        (json!({"tools": [{"name": "f"}]}), "tools"),
        (json!({"thinking": {"type": "enabled"}}), "thinking"),
        (json!({"temperature": 3}), "temperature"),
        (json!({"top_n": 3}), "top_n"),
    ] {
        let refused = server.post("/v1/messages", &common::with(asked.clone(), more));
        assert_eq!((refused.status, refused.error()["param"].as_str()), (400, Some(param)));
    }
}

#[test]
fn responses_as_openai_has_them() {
    let server = greedy();
    let chat = json!({"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "Hello"}], "max_tokens": 24});
    let expected = said(&server.post("/v1/chat/completions", &chat).json());
    let asked = json!({"model": "tiny", "instructions": "be brief", "input": "Hello", "max_output_tokens": 24});
    let whole = server.post("/v1/responses", &asked).json();
    let text = |response: &Value| response["output"][0]["content"][0]["text"].as_str().expect("a text").to_owned();
    assert_eq!(text(&whole), expected);
    assert_eq!((&whole["object"], &whole["status"]), (&json!("response"), &json!("incomplete")));
    assert_eq!(whole["incomplete_details"], json!({"reason": "max_output_tokens"}));
    assert_eq!(whole["usage"]["output_tokens"], json!(24));
    let items = json!([{"role": "developer", "content": "be brief"}, {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]}]);
    let by_items = server.post("/v1/responses", &json!({"input": items, "max_output_tokens": 24})).json();
    assert_eq!(text(&by_items), expected);
    let streamed = events(&server.post("/v1/responses", &common::with(asked.clone(), json!({"stream": true}))));
    let order = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ];
    assert_eq!(names(&streamed), order);
    assert!(streamed.iter().enumerate().all(|(i, (_, event))| event["sequence_number"] == json!(i)));
    let deltas: String = streamed.iter().filter_map(|(_, event)| event["delta"].as_str()).collect();
    assert_eq!((deltas, text(&streamed.last().expect("events").1["response"])), (expected.clone(), expected));
    for (more, param) in [
        (json!({"input": []}), "input"),
        (json!({"input": [{"type": "function_call_output", "output": "x"}]}), "input[0].call_id"),
        (json!({"input": [{"type": "image_generation_call"}]}), "input[0].type"),
        (json!({"max_output_tokens": 0}), "max_output_tokens"),
        (json!({"previous_response_id": "resp_1"}), "previous_response_id"),
        (json!({"background": true}), "background"),
        (json!({"text": {"format": {"type": "yaml"}}}), "text.format.type"),
        (json!({"tools": [{"type": "web_search"}]}), "tools[0].type"),
        (json!({"tools": [{"type": "function", "name": "f"}]}), "tools"),
        (json!({"truncation": "auto"}), "truncation"),
        (json!({"n_discard": -1}), "n_discard"),
    ] {
        let refused = server.post("/v1/responses", &common::with(asked.clone(), more));
        assert_eq!((refused.status, refused.error()["param"].as_str()), (400, Some(param)));
    }
}

#[test]
fn the_key_may_be_shown_as_anthropic_does() {
    let key = "sk-0123456789abcdef";
    let server = start(Settings { key: Some(Key::new(key).expect("a key")), ..settings() }, EngineOptions::default());
    let ask = |header: &str| {
        server.connect().send(&format!("GET /v1/models HTTP/1.1\r\nhost: localhost\r\n{header}\r\n\r\n")).status
    };
    assert_eq!([ask("x-api-key: sk-0123456789abcdef"), ask("x-api-key: sk-0123456789abcdeX")], [200, 401]);
}

#[test]
fn the_page_comes_with_a_policy_that_lets_it_ask_this_server_alone() {
    let server = plain();
    for (path, kind) in [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")] {
        let answer = server.get(path);
        assert_eq!(answer.status, 200);
        assert!(answer.header("content-type").is_some_and(|found| found.starts_with(kind)), "{answer:?}");
        assert!(answer.header("content-security-policy").is_some_and(|policy| policy.contains("default-src 'none'")));
    }
}

#[test]
fn guesses_change_no_answer() {
    let (plain, mut options) = (greedy(), EngineOptions::default());
    options.sampling.temperature = 0.0;
    options.draft = Some(lowbit_model::generate::Draft::Ngram);
    let guessing = start(settings(), options);
    let asked = json!({"prompt": "abcabcabcabcabc", "max_tokens": 200});
    let text = |server: &Running| server.post("/v1/completions", &asked).json()["choices"][0]["text"].clone();
    assert_eq!(text(&guessing), text(&plain));
}
