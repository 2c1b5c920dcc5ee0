//! How a server listens, and what it allows.

use crate::key::Key;
use std::time::Duration;

/// How a server listens, and whom it answers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address or name to listen on.
    pub host: String,
    /// Port; 0 for any that is free.
    pub port: u16,
    /// What clients show in `Authorization: Bearer`; required when others than this machine can connect.
    pub key: Option<Key>,
    /// Names that the header `Host` may hold beside IP addresses, `localhost` and the name listened on; `*` for any.
    pub hosts: Vec<String>,
    /// Origins of web pages, such as `https://example.org`, whose scripts may use the server; none by default.
    pub origins: Vec<String>,
    /// What clients may take.
    pub limits: Limits,
}

impl Default for Settings {
    /// On this machine alone, port 8080.
    fn default() -> Self {
        let (hosts, origins) = (Vec::new(), Vec::new());
        Settings { host: "127.0.0.1".into(), port: 8080, key: None, hosts, origins, limits: Limits::default() }
    }
}

/// What clients may take of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time; the one that has waited longest for its request makes room for a new one.
    pub connections: usize,
    /// Answers that may wait for their turn; more are refused with status 429.
    pub queue: usize,
    /// Bytes of the header of a request.
    pub header_bytes: usize,
    /// Lines of the header of a request.
    pub headers: usize,
    /// Time for the header of a request, and that a connection may be idle.
    pub header_time: Duration,
    /// Bytes of the body of a request.
    pub body_bytes: usize,
    /// Time for the body of a request.
    pub body_time: Duration,
    /// Least bytes of a body in a second, after the first five.
    pub body_rate: usize,
    /// Time that a client may take no byte of an answer.
    pub write_time: Duration,
    /// Time for answers under way when the server is to stop.
    pub drain_time: Duration,
    /// Answers to one request (`n`).
    pub choices: usize,
}

impl Default for Limits {
    /// 256 connections, 64 waiting answers, headers of 16 KiB and 100 lines in 10 s, bodies of 4 MiB in 30 s, 30 s to drain, 8 answers.
    fn default() -> Self {
        Limits {
            connections: 256,
            queue: 64,
            header_bytes: 16 << 10,
            headers: 100,
            header_time: Duration::from_secs(10),
            body_bytes: 4 << 20,
            body_time: Duration::from_secs(30),
            body_rate: 512,
            write_time: Duration::from_secs(30),
            drain_time: Duration::from_secs(30),
            choices: 8,
        }
    }
}
