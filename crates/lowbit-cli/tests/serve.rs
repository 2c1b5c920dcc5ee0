//! The server as a program: where it listens, when it refuses to start, and how it ends.

mod common;

use common::{lowbit, refused};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server on a free port.
struct Serving {
    child: Child,
    address: String,
}

impl Serving {
    fn begin(mut command: Command) -> Self {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("a line");
        let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address");
        Serving { address: address.into(), child }
    }

    fn ask(&self, request: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.write_all(request.as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }

    fn health(&self) -> std::io::Result<String> {
        self.ask("GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    }

    fn terminate(&self) {
        Command::new("kill").arg(self.child.id().to_string()).status().expect("sent");
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn post(body: &str) -> String {
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length:";
    format!("{head} {}\r\n\r\n{body}", body.len())
}

#[test]
fn the_model_inside_the_program_answers_and_sigterm_ends_it() {
    let mut command = lowbit();
    command.args(["serve", "--port", "0", "--alias", "reviews"]);
    let mut serving = Serving::begin(command);
    let answer = serving.ask(&post(r#"{"model": "reviews", "prompt": "this film is", "max_tokens": 8, "seed": 1}"#));
    let answer = answer.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"model\":\"lowbit\""), "{answer}");
    serving.terminate();
    assert_eq!(serving.child.wait().expect("ended").code(), Some(0));
    assert!(serving.health().is_err());
}

#[test]
fn it_refuses_to_start_where_it_should() {
    let directory = tempfile::tempdir().expect("a directory");
    let home = directory.path();
    refused(home, &["serve", "--host", "0.0.0.0", "--port", "0"], 2, &["--api-key"]);
    refused(home, &["serve", "--api-key", "short"], 2, &["8 to 1024"]);
    refused(home, &["serve", "--port", "0", "-c", "1000000"], 2, &["--context is 1000000"]);
    refused(home, &["serve", "nothing", "--port", "0"], 5, &["nothing"]);
    let taken = TcpListener::bind("127.0.0.1:0").expect("listens");
    let port = taken.local_addr().expect("an address").port().to_string();
    refused(home, &["serve", "--port", &port], 5, &[&port, "--port"]);
    std::fs::write(home.join("key"), "a key\n").expect("written");
    refused(home, &["serve", "--port", "0", "--api-key-file", "key"], 2, &["no spaces"]);
}

#[test]
fn without_files_it_refuses_and_recovers() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64; exec \"$0\" serve --port 0 --threads 1", env!("CARGO_BIN_EXE_lowbit")]);
    let serving = Serving::begin(command);
    let held: Vec<_> = (0..200).filter_map(|_| TcpStream::connect(&serving.address).ok()).collect();
    let start = Instant::now();
    while !serving.health().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
        assert!(start.elapsed() < Duration::from_secs(60), "{} connections hold it up", held.len());
    }
    drop(held);
    assert!(serving.health().expect("an answer").starts_with("HTTP/1.1 200"));
}
