//! Many clients, slow clients, clients that leave, and the end of the server.

mod common;

use common::{Running, chat, plain, post, said, settings, start, with};
use lowbit_serve::{EngineOptions, Limits, Settings};
use serde_json::{Value, json};
use std::thread;
use std::time::{Duration, Instant};

fn limited(limits: Limits, parallel: usize) -> Running {
    start(Settings { limits, ..settings() }, EngineOptions { parallel, ..EngineOptions::default() })
}

/// Requests that differ in everything: greedy, drawn, long prompts, stops.
fn requests() -> Vec<Value> {
    (0..16)
        .map(|i| {
            let text = format!("request {i} {}", "and more words ".repeat(i * 5 % 37));
            let temperature = if i % 3 == 0 { 0.0 } else { 0.9 };
            let penalty = if i % 4 == 1 { 1.2 } else { 1.0 };
            let more = json!({"seed": i, "temperature": temperature, "repetition_penalty": penalty});
            with(chat(&text, 10 + 7 * i), more)
        })
        .collect()
}

#[test]
fn an_answer_does_not_depend_on_who_else_is_served() {
    let server = limited(Limits::default(), 5);
    let alone: Vec<String> =
        requests().iter().map(|asked| said(&server.post("/v1/chat/completions", asked).json())).collect();
    for stream in [false, true] {
        let together: Vec<String> = thread::scope(|scope| {
            let ask = |asked: Value| {
                let asked = with(asked, json!({"stream": stream}));
                let answer = server.post("/v1/chat/completions", &asked);
                match stream {
                    true => {
                        answer.events().iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str()).collect()
                    }
                    false => said(&answer.json()),
                }
            };
            let threads: Vec<_> = requests().into_iter().map(|asked| scope.spawn(move || ask(asked))).collect();
            threads.into_iter().map(|thread| thread.join().expect("answered")).collect()
        });
        assert_eq!(together, alone);
    }
}

#[test]
fn a_full_queue_refuses_and_what_is_accepted_is_right() {
    let server = limited(Limits { queue: 3, ..Limits::default() }, 2);
    let asked = chat("the same for all", 60);
    let expected = said(&server.post("/v1/chat/completions", &asked).json());
    let answers: Vec<_> = thread::scope(|scope| {
        let ask = || server.post("/v1/chat/completions", &asked);
        let threads: Vec<_> = (0..60).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().expect("answered")).collect()
    });
    let mut accepted = 0;
    for answer in &answers {
        if answer.status == 200 {
            assert_eq!(said(&answer.json()), expected);
            accepted += 1;
        } else {
            assert_eq!((answer.status, answer.header("retry-after")), (429, Some("1")), "{answer:?}");
            assert_eq!(answer.error()["code"], json!("queue_full"));
        }
    }
    assert!((5..60).contains(&accepted), "{accepted} of 60");
    // Every place is free again.
    server.wait("lowbit_sequences_running", 0);
    assert_eq!(server.post("/v1/chat/completions", &with(asked.clone(), json!({"n": 5}))).status, 200);
    let many = server.post("/v1/chat/completions", &with(asked, json!({"n": 6})));
    assert_eq!((many.status, &many.error()["param"]), (400, &json!("n")));
}

#[test]
fn a_client_that_leaves_ends_its_answer() {
    let server = limited(Limits { queue: 8, ..Limits::default() }, 4);
    let long = chat("a long answer", 4000);
    for round in 0..20 {
        let stream = round % 2 == 0;
        let mut client = server.connect();
        client.write(post("/v1/chat/completions", &with(long.clone(), json!({"stream": stream, "n": 2})).to_string()));
        if stream {
            assert_eq!(client.head().expect("a head").status, 200);
            (0..3).for_each(|_| drop(client.chunk().expect("a piece")));
        } else {
            server.wait("lowbit_sequences_running", 2);
        }
        drop(client);
        server.wait("lowbit_sequences_running", 0);
    }
    let text = server.get("/metrics").text();
    assert!(text.contains("lowbit_sequences_completed_total{reason=\"cancelled\"} 40\n"), "{text}");
    assert!(text.contains("http_requests_in_flight 1\n"), "{text}");
    // Far fewer tokens than were asked for.
    let line = text.lines().find_map(|line| line.strip_prefix("lowbit_tokens_processed_total{kind=\"generated\"} "));
    let generated: u64 = line.expect("counted").parse().expect("a number");
    assert!(generated < 40 * 2000, "{generated}");
}

#[test]
fn slow_clients_hold_up_nobody_and_are_dropped() {
    let limits = Limits { connections: 12, header_time: Duration::from_secs(2), ..Limits::default() };
    let server = limited(limits, 2);
    let mut slow: Vec<_> = (0..100)
        .map(|_| {
            let mut client = server.connect();
            client.try_write("GET /health HTT");
            client
        })
        .collect();
    let start = Instant::now();
    for _ in 0..5 {
        assert_eq!(server.get("/health").status, 200);
    }
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    // One that has the place to itself ends by time, and so does one that says nothing after its answer.
    let start = Instant::now();
    let mut idle = server.connect();
    assert_eq!(idle.send("GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").status, 200);
    assert!(idle.is_ended() && start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert!(slow.iter_mut().all(|client| client.is_ended() || !client.try_write("x")));
}

#[test]
fn slow_bodies_are_refused() {
    let limits = Limits { body_time: Duration::from_secs(1), ..Limits::default() };
    let server = limited(limits, 2);
    let mut client = server.connect();
    client.write("POST /tokenize HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{");
    let answer = client.answer().expect("an answer");
    assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
    answer.error();
    assert!(client.is_ended());
    // A body that is cut is no request.
    let mut cut = server.connect();
    cut.write("POST /tokenize HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{");
    drop(cut);
    server.wait("http_requests_in_flight", 1);
}

#[test]
fn a_server_that_stops_completes_what_it_began() {
    let mut server = plain();
    let mut client = server.connect();
    client.write(post("/v1/chat/completions", &with(chat("x", 300), json!({"stream": true})).to_string()));
    assert_eq!(client.head().expect("a head").status, 200);
    client.chunk().expect("a piece");
    let mut idle = server.connect();
    idle.send("GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n");
    server.stop.set();
    let mut text = String::new();
    while let Some(chunk) = client.chunk() {
        text += &String::from_utf8(chunk).expect("UTF-8");
    }
    assert!(text.ends_with("data: [DONE]\n\n") && text.contains("\"finish_reason\":\"length\""), "{text}");
    assert!(idle.is_ended());
    server.end().expect("a clean end");
}

#[test]
fn a_server_that_must_stop_says_so_in_its_streams() {
    let mut server = limited(Limits { drain_time: Duration::from_millis(200), ..Limits::default() }, 8);
    let mut clients: Vec<_> = (0..16)
        .map(|_| {
            let mut client = server.connect();
            client.write(post("/v1/chat/completions", &with(chat("x", 4000), json!({"stream": true})).to_string()));
            client
        })
        .collect();
    for client in &mut clients {
        assert_eq!(client.head().expect("a head").status, 200);
    }
    let start = Instant::now();
    server.end().expect("a clean end");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    for client in &mut clients {
        let mut last = Vec::new();
        while let Some(chunk) = client.chunk() {
            last = chunk;
        }
        let text = String::from_utf8(last).expect("UTF-8");
        assert!(text.contains("\"code\":\"shutting_down\"") && text.ends_with("\n\n"), "{text}");
    }
}

#[test]
fn a_client_that_reads_nothing_is_dropped() {
    let limits = Limits { write_time: Duration::from_millis(500), ..Limits::default() };
    let server = limited(limits, 4);
    let asked = with(chat("x", 4000), json!({"stream": true, "logprobs": true, "top_logprobs": 20, "n": 4}));
    let mut client = server.connect();
    client.write(post("/v1/chat/completions", &asked.to_string()));
    // Some megabytes fill the buffers of the system; then nothing is taken any more.
    server.wait("lowbit_sequences_running", 4);
    server.wait("lowbit_sequences_running", 0);
    server.wait("http_requests_in_flight", 1);
    assert_eq!(server.get("/health").status, 200);
}
