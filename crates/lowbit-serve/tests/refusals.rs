//! Requests that get no answer: wrong values, wrong places, wrong keys, wrong HTTP.

mod common;

use common::{Running, chat, plain, post, settings, start, with};
use lowbit_base::Kind;
use lowbit_serve::{EngineOptions, Key, Limits, Server, Settings};
use serde_json::{Value, json};
use std::net::TcpListener;

/// Status, field and a word of a refusal.
fn refused(server: &Running, path: &str, body: &str, status: u16, param: Option<&str>, word: &str) {
    let shown: String = body.chars().take(200).collect();
    let answer = server.post_text(path, body);
    assert_eq!(answer.status, status, "{shown}: {}", answer.text());
    let error = answer.error();
    assert_eq!(error["param"].as_str(), param, "{shown}: {error}");
    assert!(error["message"].as_str().expect("a text").contains(word), "{shown}: {error}");
}

#[test]
fn wrong_values_are_named() {
    let server = plain();
    let chats = "/v1/chat/completions";
    let many: Vec<String> = (0..10_000).map(|i| i.to_string()).collect();
    for (more, param, word) in [
        (json!({"n": 0}), "n", "n is 0; it must lie in 1..=8"),
        (json!({"n": 1_000_000_000}), "n", "in 1..=8"),
        (json!({"n": 1.5}), "n", "floating point"),
        (json!({"max_tokens": -1}), "max_tokens", "max_tokens is -1; it must lie in 1..=4096"),
        (json!({"max_tokens": 9_223_372_036_854_775_808u64}), "max_tokens", "invalid value"),
        (json!({"max_completion_tokens": 4097}), "max_completion_tokens", "in 1..=4096"),
        (json!({"temperature": "hot"}), "temperature", "invalid type: string"),
        (json!({"temperature": 2.01}), "temperature", "temperature is 2.01; it must lie in 0..=2"),
        (json!({"temperature": -0.5}), "temperature", "in 0..=2"),
        (json!({"top_p": 0}), "top_p", "it must be more"),
        (json!({"top_p": 1.1}), "top_p", "in 0..=1"),
        (json!({"top_k": -2}), "top_k", "in -1..=1000000"),
        (json!({"top_n": -2}), "top_n", "unknown field"),
        (json!({"n_discard": -7}), "n_discard", "unknown field"),
        (json!({"chat_template_kwargs": {"x": 1}}), "chat_template_kwargs", "unknown field"),
        (json!({"min_p": 2}), "min_p", "in 0..=1"),
        (json!({"repetition_penalty": 0}), "repetition_penalty", "in 0.1..=10"),
        (json!({"presence_penalty": 3}), "presence_penalty", "in -2..=2"),
        (json!({"frequency_penalty": -3}), "frequency_penalty", "in -2..=2"),
        (json!({"seed": 1.5}), "seed", "floating point"),
        (json!({"seed": "x"}), "seed", "invalid type"),
        (json!({"stop": many}), "stop", "at most 4"),
        (json!({"stop": [""]}), "stop", "1 to 64"),
        (json!({"stop": "x".repeat(65)}), "stop", "has 65 bytes"),
        (json!({"stop": 3}), "stop", "stop"),
        (json!({"logit_bias": {"-1": 1}}), "logit_bias", "names token `-1`"),
        (json!({"logit_bias": {"258": 1}}), "logit_bias", "0 to 257"),
        (json!({"logit_bias": {"1": 101}}), "logit_bias", "in -100..=100"),
        (json!({"logit_bias": {"1": 1, "01": 1}}), "logit_bias", "twice"),
        (
            json!({"logit_bias": many.iter().map(|i| (i.clone(), json!(0))).collect::<serde_json::Map<_, _>>()}),
            "logit_bias",
            "at most 1024",
        ),
        (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs", "in 0..=20"),
        (json!({"top_logprobs": 2}), "top_logprobs", "goes with `logprobs`"),
        (json!({"stream_options": {"include_usage": true}}), "stream_options", "`stream`"),
        (json!({"stream": "yes"}), "stream", "invalid type"),
        (json!({"messages": []}), "messages", "is empty"),
        (json!({"messages": "hello"}), "messages", "invalid type"),
        (json!({"messages": [{"role": "wizard", "content": "x"}]}), "messages[0].role", "unknown variant `wizard`"),
        (json!({"messages": [{"role": "user"}]}), "messages[0].content", "needs its content"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
            "messages[0].content[0].type",
            "text alone",
        ),
        (json!({"messages": [{"role": "user", "content": "x".repeat(9000)}]}), "messages", "4096 tokens"),
        (
            json!({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"pattern": "(a+)+$"}}}]}),
            "tools",
            "takes no tools",
        ),
        (json!({"response_format": {"type": "json_schema"}}), "response_format.json_schema", "needs an object"),
        (json!({"response_format": {"type": "yaml"}}), "response_format.type", "`regex`"),
        (json!({"response_format": {"type": "regex", "regex": "(a"}}), "response_format", "cannot be followed"),
        (
            json!({"response_format": {"type": "json_schema", "schema": {"type": "wizard"}}}),
            "response_format",
            "cannot be followed",
        ),
        (
            json!({"response_format": {"type": "json_schema", "schema": {"$ref": "https://example.org/x"}}}),
            "response_format",
            "cannot be followed",
        ),
        (json!({"model": "../../x"}), "model", "no such model"),
        (json!({"model": "/etc/passwd"}), "model", "no such model"),
        (json!({"model": "https://example.org/model.gguf"}), "model", "no such model"),
        (json!({"model": "sha256:../"}), "model", "no such model"),
    ] {
        refused(&server, chats, &with(chat("x", 4), more).to_string(), 400, Some(param), word);
    }
    // Nothing of all this began an answer.
    assert_eq!((server.metric("lowbit_sequences_running"), server.metric("http_requests_in_flight")), (0, 1));
    server.post(chats, &chat("x", 4)).json();
}

#[test]
fn bodies_and_routes_that_mean_nothing_are_refused() {
    let server = plain();
    let chats = "/v1/chat/completions";
    let deep = format!("{{\"messages\": {}", "[".repeat(100_000));
    for (body, param) in [
        (r#"{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}"#, Some("temperature")),
        (r#"{"messages": [{"role": "user", "content": "x"}], "n": 1, "n": 2}"#, Some("n")),
        (r#"{"n": 1}"#, Some("messages")),
        ("", None),
        ("[]", None),
        ("{} {}", Some("messages")),
        (&deep[..], Some("messages[0][0]")),
    ] {
        refused(&server, chats, body, 400, param, "");
    }
    for (body, param, word) in [
        (json!({"prompt": []}), "prompt", "is empty"),
        (json!({"prompt": ""}), "prompt", ""),
        (json!({"prompt": {"x": 1}}), "prompt", "a text, a list of texts"),
        (json!({"prompt": [[]]}), "prompt", "is empty"),
        (json!({"prompt": [1, 2, 258]}), "prompt", "token 258"),
        (json!({"prompt": [1, -2]}), "prompt", ""),
        (json!({"prompt": vec!["x"; 73]}), "prompt", "73 answers"),
        (json!({"prompt": "x".repeat(5000)}), "prompt", "4096 tokens"),
        (json!({"prompt": vec![7; 4096]}), "prompt", "4096 tokens"),
        (json!({"prompt": "x", "max_tokens": 0}), "max_tokens", "in 1..=4096"),
        (json!({"prompt": "x", "logprobs": 21}), "logprobs", "in 0..=20"),
        (json!({"prompt": "x", "best_of": 2}), "best_of", "as many"),
        (json!({"prompt": "x", "suffix": "y"}), "suffix", "not supported"),
        (json!({}), "prompt", "missing field"),
    ] {
        refused(&server, "/v1/completions", &body.to_string(), 400, Some(param), word);
    }
    refused(&server, "/tokenize", "{}", 400, Some("content"), "give the text");
    refused(&server, "/tokenize", r#"{"content": "a", "prompt": "b"}"#, 400, Some("content"), "give the text");
    refused(&server, "/detokenize", r#"{"tokens": [258]}"#, 400, Some("tokens"), "tokens[0] is 258");
    refused(&server, "/detokenize", r#"{"tokens": [-1]}"#, 400, Some("tokens[0]"), "-1");
    refused(&server, "/v1/nothing", "{}", 404, None, "no such route");
    refused(&server, "/health", "{}", 405, None, "another method");
    assert_eq!(server.get("/v1/models/..%2f..%2fetc").status, 400);
    assert_eq!(server.get("/v1/chat/completions").status, 405);
}

#[test]
fn user_text_holds_no_special_tokens() {
    let server = plain();
    let told = |text: &str| server.post("/tokenize", &json!({"prompt": text})).json()["count"].as_u64();
    assert_eq!(told("<|end|><|pad|>\0"), Some("<|end|><|pad|>\0".len() as u64));
    let answer = server.post("/v1/chat/completions", &chat("<|end|>", 2)).json();
    assert_eq!(answer["usage"]["prompt_tokens"], json!("<user><|end|><assistant>".len()));
    let mut invalid = br#"{"prompt": "a"#.to_vec();
    invalid.extend([0xff, b'"', b'}']);
    let mut client = server.connect();
    client.write(format!("POST /tokenize HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", invalid.len()));
    client.write(&invalid);
    assert_eq!(client.answer().expect("an answer").status, 400);
}

#[test]
fn only_known_hosts_and_origins_are_answered() {
    let limits = Limits::default();
    let settings = Settings {
        hosts: vec!["models.example.org".into()],
        origins: vec!["https://app.example.org".into()],
        limits,
        ..settings()
    };
    let server = start(settings, EngineOptions::default());
    let ask = |lines: &str| server.connect().send(&format!("GET /v1/models HTTP/1.1\r\n{lines}\r\n\r\n"));
    for host in
        ["localhost", "LocalHost:8080", "127.0.0.1", "127.0.0.1:1", "[::1]:8080", "10.0.0.7", "models.example.org:443"]
    {
        assert_eq!(ask(&format!("Host: {host}")).status, 200, "{host}");
    }
    for host in ["evil.com", "evil.com:8080", "localhost.evil.com", "127.0.0.1.evil.com", "", "[evil]"] {
        let answer = ask(&format!("Host: {host}"));
        assert_eq!(answer.status, 403, "{host}");
        answer.error();
    }
    assert_eq!(ask("Host: localhost\r\nHost: evil.com").status, 400);
    assert_eq!(ask("x: y").status, 400);
    for origin in ["null", "http://evil.com", "http://localhost:1", "https://app.example.org.evil.com"] {
        let answer = ask(&format!("Host: localhost:8080\r\nOrigin: {origin}"));
        assert_eq!(answer.status, 403, "{origin}");
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    assert_eq!(
        ask("Host: localhost:8080\r\nOrigin: http://localhost:8080").header("access-control-allow-origin"),
        None
    );
    let allowed = ask("Host: localhost\r\nOrigin: https://app.example.org");
    assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (200, Some("https://app.example.org")));
    let preflight = "OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nOrigin: https://app.example.org\r\nAccess-Control-Request-Method: POST\r\n\r\n";
    let preflight = server.connect().send(preflight);
    assert_eq!((preflight.status, preflight.header("access-control-allow-methods")), (204, Some("GET, POST")));
}

#[test]
fn a_key_is_asked_for_everywhere_but_at_the_door() {
    let key = "sk-0123456789abcdef";
    let server = start(Settings { key: Some(Key::new(key).expect("a key")), ..settings() }, EngineOptions::default());
    let ask = |path: &str, authorization: &str| {
        server.connect().send(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{authorization}\r\n"))
    };
    for wrong in [
        "",
        "Authorization: Bearer \r\n",
        "Authorization: Bearer wrong\r\n",
        "Authorization: sk-0123456789abcdef\r\n",
        "Authorization: Basic sk-0123456789abcdef\r\n",
        "Authorization: Bearer sk-0123456789abcdeF\r\n",
        "Authorization: Bearer sk-0123456789abcdef0\r\n",
    ] {
        for path in ["/v1/models", "/metrics", "/openapi.json", "/v1/nothing"] {
            let answer = ask(path, wrong);
            assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")), "{path} {wrong}");
            assert_eq!(answer.error()["code"], json!("invalid_api_key"));
            assert!(!answer.text().contains("sk-"), "{}", answer.text());
        }
    }
    assert_eq!(ask("/v1/models", &format!("Authorization: Bearer {key}\r\n")).status, 200);
    assert_eq!(ask("/v1/models", &format!("authorization: bearer {key}\r\n")).status, 200);
    for path in ["/health", "/", "/page.css", "/page.js"] {
        assert_eq!(ask(path, "").status, 200, "{path}");
    }
}

#[test]
fn others_than_this_machine_need_a_key_and_a_port_is_free() {
    for host in ["0.0.0.0", "::"] {
        let error = Server::bind(Settings { host: host.into(), ..settings() }).err().expect("refused");
        assert_eq!(error.kind, Kind::Usage);
        assert!(error.message.contains("--api-key"), "{error}");
    }
    let taken = TcpListener::bind("127.0.0.1:0").expect("listens");
    let port = taken.local_addr().expect("an address").port();
    let error = Server::bind(Settings { port, ..settings() }).err().expect("refused");
    assert_eq!(error.kind, Kind::Io);
    assert!(error.message.contains(&port.to_string()), "{error}");
    assert_eq!(
        Server::bind(Settings { host: "no such host".into(), ..settings() }).err().expect("refused").kind,
        Kind::Usage
    );
}

#[test]
fn malformed_http_is_refused_and_the_server_stays_up() {
    let server = start(
        Settings { limits: Limits { body_bytes: 1 << 20, ..Limits::default() }, ..settings() },
        EngineOptions::default(),
    );
    let status = |bytes: &[u8]| {
        let mut client = server.connect();
        client.try_write(bytes);
        let answer = client.answer().map(|answer| answer.status);
        (answer, client.is_ended())
    };
    let big = "x".repeat(1 << 20);
    let lines: String = (0..10_000).map(|i| format!("x{i}: y\r\n")).collect();
    for (bytes, expected) in [
        (format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {big}\r\n\r\n"), Some(431)),
        (format!("GET / HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n"), Some(431)),
        (format!("GET /{big} HTTP/1.1\r\n\r\n"), None),
        ("GET /\r\n\r\n".into(), Some(400)),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03".into(), Some(400)),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), None),
        ("POST /tokenize HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n{}".into(), Some(400)),
        ("POST /tokenize HTTP/1.1\r\nhost: localhost\r\ncontent-length: -5\r\n\r\n{}".into(), Some(400)),
        ("POST /tokenize HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999999999999999\r\n\r\n{}".into(), Some(400)),
        ("POST /tokenize HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip\r\n\r\n{}".into(), Some(400)),
        // A request smuggled behind the one that a proxy may see: the connection ends after the first.
        ("POST /tokenize HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /health HTTP/1.1\r\nhost: localhost\r\n\r\n".into(), Some(400)),
        ("POST /tokenize HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\nGET /health HTTP/1.1\r\nhost: localhost\r\n\r\n".into(), Some(400)),
        ("POST /tokenize HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".into(), Some(400)),
        ("POST /tokenize HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1073741824\r\n\r\n{".into(), Some(413)),
    ] {
        let (found, ended) = status(bytes.as_bytes());
        let shown: String = bytes.chars().take(80).collect();
        assert!(ended && (expected.is_none() || found == expected), "{shown:?}: {found:?}, {ended}");
        assert!(found.is_none_or(|status| (400..500).contains(&status)), "{shown:?}: {found:?}");
    }
    // Chunks without an end.
    let mut client = server.connect();
    client.write("POST /tokenize HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n");
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let sent = (0..1000).take_while(|_| client.try_write(&chunk)).count();
    assert!(sent < 1000, "the server reads no body without an end");
    assert_eq!(server.get("/health").status, 200);
    // Requests sent ahead are answered one after the other.
    let mut client = server.connect();
    let one = post("/tokenize", r#"{"content": "ab"}"#);
    client.write(one.repeat(1000));
    for _ in 0..1000 {
        assert_eq!(client.answer().expect("an answer").json()["count"], json!(2));
    }
}

#[test]
fn numbers_of_requests_come_back() {
    let server = plain();
    let ask = |id: &str| server.connect().send(&format!("GET /health HTTP/1.1\r\nhost: localhost\r\n{id}\r\n"));
    assert_eq!(ask("x-request-id: abc-1\r\n").header("x-request-id"), Some("abc-1"));
    for own in ["".to_owned(), "x-request-id: a b\r\n".into(), format!("x-request-id: {}\r\n", "x".repeat(129))] {
        assert!(ask(&own).header("x-request-id").is_some_and(|id| id.starts_with("req-")), "{own}");
    }
    let refused = server.post("/v1/completions", &Value::Null);
    assert!(refused.status == 400 && refused.header("x-request-id").is_some());
}
