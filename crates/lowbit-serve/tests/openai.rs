//! What applications ask: chats, completions, streams, log-probabilities, tokens, names, counters.

mod common;

use common::{END, TRAINED, chat, plain, said, with};
use serde_json::{Value, json};

#[test]
fn a_chat_is_answered_whole_and_in_pieces() {
    let server = plain();
    let asked = chat("Hello", 30);
    let whole = server.post("/v1/chat/completions", &asked).json();
    assert_eq!((&whole["object"], &whole["model"]), (&json!("chat.completion"), &json!("tiny")));
    assert!(
        whole["id"].as_str().expect("a text").starts_with("chatcmpl-") && whole["created"].as_u64() > Some(1 << 30)
    );
    let choice = &whole["choices"][0];
    assert_eq!((&choice["finish_reason"], &choice["message"]["role"]), (&json!("length"), &json!("assistant")));
    let prompt = "<user>Hello<assistant>".len();
    let usage = &whole["usage"];
    assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&json!(prompt), &json!(30)));
    assert_eq!(usage["total_tokens"], json!(prompt + 30));
    let streamed =
        with(asked.clone(), json!({"stream": true, "stream_options": {"include_usage": true}, "model": "gpt-test"}));
    let events = server.post("/v1/chat/completions", &streamed).events();
    assert_eq!(events[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let text: String = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, said(&whole));
    let [.., last, tokens] = &events[..] else { panic!("{events:?}") };
    assert_eq!((&last["choices"][0]["finish_reason"], &last["choices"][0]["delta"]), (&json!("length"), &json!({})));
    assert_eq!((&tokens["choices"], &tokens["usage"]["total_tokens"]), (&json!([]), &usage["total_tokens"]));
    assert!(events.iter().all(|event| event["id"] == events[0]["id"] && event["object"] == "chat.completion.chunk"));
    // Without that wish no piece tells the tokens.
    let events = server.post("/v1/chat/completions", &with(asked, json!({"stream": true}))).events();
    assert!(events.iter().all(|event| event.get("usage").is_none() && event["choices"] != json!([])));
}

#[test]
fn several_answers_differ_and_each_comes_again_by_its_seed() {
    let server = plain();
    let asked = with(chat("Hi", 20), json!({"n": 3, "temperature": 1.5, "top_p": 1, "top_k": 0, "min_p": 0}));
    let answer = server.post("/v1/chat/completions", &asked).json();
    let texts = |answer: &Value| -> Vec<String> {
        let choices = answer["choices"].as_array().expect("choices");
        choices
            .iter()
            .enumerate()
            .map(|(i, choice)| {
                assert_eq!(choice["index"], json!(i));
                choice["message"]["content"].as_str().expect("a text").to_owned()
            })
            .collect()
    };
    let found = texts(&answer);
    assert!(found.len() == 3 && found[0] != found[1] && found[1] != found[2], "{found:?}");
    assert_eq!(answer["usage"]["completion_tokens"], json!(60));
    assert_eq!(texts(&server.post("/v1/chat/completions", &asked).json()), found);
    let events = server.post("/v1/chat/completions", &with(asked, json!({"stream": true}))).events();
    for (i, expected) in found.iter().enumerate() {
        let of = events.iter().filter(|event| event["choices"][0]["index"] == json!(i));
        let text: String = of.filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(&text, expected);
    }
}

#[test]
fn answers_end_where_a_stop_says() {
    let server = plain();
    let asked = with(chat("Hello", 40), json!({"logit_bias": {"65": 100}, "temperature": 0}));
    assert_eq!(said(&server.post("/v1/chat/completions", &asked).json()), "A".repeat(40));
    let bias = json!({"logit_bias": {"65": 100}, "frequency_penalty": 2, "temperature": 0});
    let free = said(&server.post("/v1/chat/completions", &with(chat("Hello", 60), bias.clone())).json());
    assert!(free.starts_with(&"A".repeat(40)), "{free}");
    let ended = server.post("/v1/chat/completions", &with(asked, json!({"stop": ["never", "AAA"]}))).json();
    assert_eq!((said(&ended).as_str(), &ended["choices"][0]["finish_reason"]), ("", &json!("stop")));
    let end = with(chat("Hello", 40), json!({"logit_bias": {END.to_string(): 100}, "temperature": 0}));
    let ended = server.post("/v1/chat/completions", &end).json();
    assert_eq!((said(&ended).as_str(), &ended["choices"][0]["finish_reason"]), ("", &json!("stop")));
    assert_eq!(ended["usage"]["completion_tokens"], json!(0));
}

#[test]
fn log_probabilities_of_chats() {
    let server = plain();
    let asked = with(chat("Hello", 12), json!({"logprobs": true, "top_logprobs": 4}));
    let answer = server.post("/v1/chat/completions", &asked).json();
    let content = answer["choices"][0]["logprobs"]["content"].as_array().expect("a list").clone();
    assert_eq!(content.len(), 12);
    let mut bytes = Vec::new();
    for token in &content {
        let top = token["top_logprobs"].as_array().expect("a list");
        let values: Vec<f64> = top.iter().map(|t| t["logprob"].as_f64().expect("a number")).collect();
        assert!(values.len() == 4 && values.is_sorted_by(|a, b| a >= b), "{values:?}");
        assert!(token["logprob"].as_f64() <= Some(values[0]) && values[0] <= 0.0);
        bytes.extend(token["bytes"].as_array().expect("bytes").iter().map(|b| b.as_u64().expect("a byte") as u8));
    }
    assert_eq!(String::from_utf8_lossy(&bytes), said(&answer));
    let events = server.post("/v1/chat/completions", &with(asked, json!({"stream": true}))).events();
    let pieces = events.iter().filter_map(|event| event["choices"][0]["logprobs"]["content"].as_array());
    assert_eq!(pieces.flatten().cloned().collect::<Vec<_>>(), content);
    let none = server.post("/v1/chat/completions", &chat("Hello", 2)).json();
    assert_eq!(none["choices"][0]["logprobs"], Value::Null);
}

#[test]
fn completions_echo_their_prompt_with_log_probabilities() {
    let server = plain();
    let base = json!({"prompt": "héllo", "max_tokens": 3, "temperature": 0, "logit_bias": {END.to_string(): -100}});
    let asked = with(base.clone(), json!({"echo": true, "logprobs": 2}));
    let answer = server.post("/v1/completions", &asked).json();
    let choice = &answer["choices"][0];
    let (text, told) = (choice["text"].as_str().expect("a text"), &choice["logprobs"]);
    assert!(text.starts_with("héllo"), "{text}");
    let list = |name: &str| told[name].as_array().expect("a list").clone();
    let bytes = "héllo".len();
    for name in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(list(name).len(), bytes + 3, "{name}");
    }
    assert_eq!((&told["token_logprobs"][0], &told["top_logprobs"][0]), (&Value::Null, &Value::Null));
    assert_eq!(list("text_offset")[..bytes], [0, 1, 2, 2, 3, 4].map(|n| json!(n)));
    for i in 1..bytes + 3 {
        let own = told["token_logprobs"][i].as_f64().expect("a number");
        let top = told["top_logprobs"][i].as_object().expect("a map");
        let most = top.values().filter_map(Value::as_f64).fold(f64::NEG_INFINITY, f64::max);
        assert!((1..=3).contains(&top.len()) && own <= most && own < 0.0, "{i}: {own} {top:?}");
        assert!(i < bytes || own == most, "the answer is greedy");
    }
    assert_eq!(list("content").len(), bytes + 2, "of all but the first token");
    // The prompt alone; streamed; by its tokens; without echo.
    let alone = server.post("/v1/completions", &with(asked.clone(), json!({"max_tokens": 0}))).json();
    assert_eq!(alone["choices"][0]["text"], json!("héllo"));
    assert_eq!(alone["choices"][0]["logprobs"]["token_logprobs"], json!(list("token_logprobs")[..bytes]));
    assert_eq!(alone["usage"]["completion_tokens"], json!(0));
    let events = server.post("/v1/completions", &with(asked.clone(), json!({"stream": true}))).events();
    let streamed: String = events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
    assert_eq!(streamed, text);
    for name in ["tokens", "token_logprobs", "text_offset"] {
        let pieces = events.iter().filter_map(|event| event["choices"][0]["logprobs"][name].as_array());
        assert_eq!(pieces.flatten().cloned().collect::<Vec<_>>(), list(name), "{name}");
    }
    let tokens: Vec<u8> = "héllo".into();
    let by_tokens = server.post("/v1/completions", &with(asked, json!({"prompt": tokens}))).json();
    assert_eq!(by_tokens["choices"], answer["choices"]);
    let plain = server.post("/v1/completions", &base).json();
    assert_eq!(
        (plain["choices"][0]["text"].as_str(), &plain["choices"][0]["logprobs"]),
        (text.strip_prefix("héllo"), &Value::Null)
    );
}

#[test]
fn several_prompts_are_answered_in_their_order() {
    let server = plain();
    let base = json!({"max_tokens": 8, "seed": 3, "logit_bias": {END.to_string(): -100}, "n": 2});
    let both = with(base.clone(), json!({"prompt": ["first", "the second"]}));
    let answer = server.post("/v1/completions", &both).json();
    let text = |answer: &Value, i: usize| answer["choices"][i]["text"].as_str().expect("a text").to_owned();
    for (i, prompt) in ["first", "the second"].into_iter().enumerate() {
        let alone = server.post("/v1/completions", &with(base.clone(), json!({"prompt": prompt}))).json();
        assert_eq!([text(&answer, 2 * i), text(&answer, 2 * i + 1)], [text(&alone, 0), text(&alone, 1)]);
    }
    assert_eq!(answer["usage"]["prompt_tokens"], json!(15));
    let lists = with(base, json!({"prompt": [b"first", &b"the s"[..]], "echo": true}));
    let answer = server.post("/v1/completions", &lists).json();
    assert!(text(&answer, 0).starts_with("first") && text(&answer, 3).starts_with("the s"));
}

#[test]
fn tokens_names_health_and_counters() {
    let server = plain();
    assert_eq!(
        server.post("/tokenize", &json!({"content": "aé"})).json(),
        json!({"tokens": [97, 195, 169], "count": 3, "max_model_len": TRAINED})
    );
    assert_eq!(
        server.post("/tokenize", &json!({"prompt": "a", "add_special_tokens": false})).json()["count"],
        json!(1)
    );
    assert_eq!(server.get("/tokenizer_info").json()["eos_token"], json!("<|end|>"));
    let name = json!({"prompt": "<|end|>", "add_special_tokens": false});
    assert_eq!(server.post("/tokenize", &name).json()["tokens"], json!([END]));
    let text = server.post("/detokenize", &json!({"tokens": [97, 195, 169, END]})).json();
    assert_eq!(text, json!({"content": "aé", "prompt": "aé"}));
    let models = server.get("/v1/models").json();
    let names: Vec<&str> = models["data"].as_array().expect("a list").iter().filter_map(|m| m["id"].as_str()).collect();
    assert_eq!(names, ["tiny", "gpt-test"]);
    assert_eq!(server.get("/v1/models/tiny").json()["max_model_len"], json!(TRAINED));
    assert_eq!(server.get("/health").json(), json!({"status": "ok"}));
    assert_eq!(server.get("/openapi.json").json()["openapi"], json!("3.1.0"));
    server.post("/v1/chat/completions", &chat("Hello", 5)).json();
    // The same begin is not processed again.
    let again = server.post("/v1/chat/completions", &chat("Hello", 5)).json();
    let cached = again["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a number");
    assert!(cached > 10, "{again}");
    let metrics = server.get("/metrics").text();
    for line in [
        "http_requests_total{method=\"POST\",path=\"/v1/chat/completions\",model=\"tiny\",status=\"200\"} 2".to_owned(),
        "lowbit_sequences_completed_total{reason=\"length\"} 2".to_owned(),
        "lowbit_tokens_processed_total{kind=\"generated\"} 10".to_owned(),
        "lowbit_time_to_first_token_seconds_count 2".to_owned(),
        "lowbit_inter_token_latency_seconds_count 8".to_owned(),
        format!("lowbit_prompt_tokens_cached_total {cached}"),
        "lowbit_sequences_capacity 8".to_owned(),
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
}

#[test]
fn what_is_said_may_come_in_parts_and_the_template_may_refuse() {
    let server = plain();
    let parts = json!([{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]);
    let asked = with(
        chat("", 9),
        json!({"messages": [{"role": "developer", "content": "be brief"}, {"role": "user", "content": parts}]}),
    );
    let one = with(
        chat("", 9),
        json!({"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "Hel\nlo"}]}),
    );
    let answers = [asked, one].map(|asked| said(&server.post("/v1/chat/completions", &asked).json()));
    assert_eq!(answers[0], answers[1]);
    let two = json!({"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]});
    let refused = server.post("/v1/chat/completions", &two);
    assert_eq!(refused.status, 400);
    assert!(refused.error()["message"].as_str().is_some_and(|text| text.contains("the system message comes first")));
}
