//! A client of OpenAI-compatible servers: plain HTTP/1.1, one connection per request, events as they come.

use crate::Error;
use lowbit_base::Kind;
use serde_json::Value;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// Time to connect.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest line of a header, bytes.
const LINE: u64 = 64 << 10;
/// Largest body that is read whole, bytes.
const BODY: u64 = 64 << 20;

/// Where a server is, and how it is asked.
#[derive(Clone, Debug)]
pub struct Client {
    /// `http://HOST:PORT` and what comes before `/v1`.
    url: String,
    /// Name or address, with the port.
    authority: String,
    prefix: String,
    key: Option<String>,
    timeout: Duration,
}

/// Why a request got no answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Refused {
    /// The server answers with another status than 200, and this text.
    Status(u16, String),
    /// The connection fails.
    Connection(String),
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refused::Status(status, text) => write!(f, "status {status}: {text}"),
            Refused::Connection(text) => f.write_str(text),
        }
    }
}

impl Client {
    /// By the URL of a server, with or without `/v1`; a request may take so long between two bytes.
    ///
    /// # Errors
    /// When it is no URL of plain HTTP.
    pub fn new(url: &str, key: Option<String>, timeout: Duration) -> Result<Self, Error> {
        let bad = |why: &str| Error::usage(format!("{url}: {why}; give a URL like http://127.0.0.1:8080"));
        let rest = match url.split_once("://") {
            None => url,
            Some(("http", rest)) => rest,
            Some(("https", _)) => return Err(bad("TLS is not spoken here")),
            Some(_) => return Err(bad("is no URL of a server")),
        };
        let (authority, path) = rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
        let odd = |c: char| c.is_control() || c.is_whitespace() || c == '@';
        if authority.is_empty() || rest.contains(odd) || key.as_ref().is_some_and(|key| key.contains(char::is_control))
        {
            return Err(bad("is no URL of a server"));
        }
        let path = path.trim_end_matches('/');
        let prefix = path.strip_suffix("v1").unwrap_or(path).trim_end_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("/{prefix}") };
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let authority = if has_port { authority.to_owned() } else { format!("{authority}:80") };
        Ok(Client { url: format!("http://{authority}{prefix}"), authority, prefix, key, timeout })
    }

    /// The URL without `/v1`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The name of the first model that is served.
    ///
    /// # Errors
    /// When the server does not answer, or is another kind of server.
    pub fn model(&self) -> Result<String, Error> {
        let url = &self.url;
        let io = |text: String| Error::new(Kind::Io, text);
        let text = self.send("GET", "/v1/models", "").and_then(Answer::text).map_err(|refused| match refused {
            Refused::Connection(text) => {
                io(format!("{url}: no server answers ({text}); start one with `lowbit serve MODEL`"))
            }
            Refused::Status(401 | 403, _) => Error::usage(format!("{url}: the server wants a key: set LOWBIT_API_KEY")),
            refused => io(format!("{url}: /v1/models gives {refused}; it must be an OpenAI-compatible server")),
        })?;
        let models: Value = serde_json::from_str(&text).unwrap_or_default();
        let name = models["data"][0]["id"].as_str().map(str::to_owned);
        name.ok_or_else(|| io(format!("{url}: /v1/models names no model; it must be an OpenAI-compatible server")))
    }

    /// Asks for a completion and hands over each of its events.
    pub(super) fn events(&self, body: &Value, mut take: impl FnMut(&Value)) -> Result<(), Refused> {
        let answer = self.send("POST", "/v1/completions", &body.to_string())?;
        let mut is_done = false;
        for line in BufReader::new(answer.body).lines() {
            let line = line.map_err(failed)?;
            let Some(data) = line.strip_prefix("data:").map(str::trim) else { continue };
            if data == "[DONE]" {
                is_done = true;
                break;
            }
            let event: Value =
                serde_json::from_str(data).map_err(|e| Refused::Connection(format!("an event is no JSON: {e}")))?;
            if let Some(message) = event["error"]["message"].as_str() {
                return Err(Refused::Status(200, message.to_owned()));
            }
            take(&event);
        }
        match is_done {
            true => Ok(()),
            false => Err(Refused::Connection("the answer ends before it is complete".into())),
        }
    }

    /// Sends a request and reads the head of the answer.
    fn send(&self, method: &str, path: &str, body: &str) -> Result<Answer, Refused> {
        let mut stream = self.connect().map_err(failed)?;
        let key = self.key.as_ref().map_or_else(String::new, |key| format!("authorization: Bearer {key}\r\n"));
        let content = match body.is_empty() {
            true => String::new(),
            false => format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len()),
        };
        let (prefix, host) = (&self.prefix, &self.authority);
        let head =
            format!("{method} {prefix}{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{key}{content}\r\n");
        stream.write_all((head + body).as_bytes()).map_err(failed)?;
        let answer = Answer::read(stream).map_err(failed)?;
        match answer.status {
            200 => Ok(answer),
            status => {
                let text = answer.text().unwrap_or_default();
                let told: Value = serde_json::from_str(&text).unwrap_or_default();
                let message = told["error"]["message"].as_str().unwrap_or(&text);
                Err(Refused::Status(status, message.chars().take(300).collect()))
            }
        }
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in self.authority.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(self.timeout))?;
                    stream.set_write_timeout(Some(self.timeout))?;
                    return Ok(stream);
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

/// A failure of a connection, in words without numbers of the system.
fn failed(error: io::Error) -> Refused {
    let text = match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "nothing comes in time".to_owned(),
        _ => {
            let text = error.to_string();
            text.split(" (os error").next().unwrap_or_default().to_owned()
        }
    };
    Refused::Connection(text)
}

/// An answer whose head is read.
struct Answer {
    status: u16,
    body: Body,
}

/// The body of an answer, by whatever says where it ends.
enum Body {
    Chunks { stream: BufReader<TcpStream>, left: u64, ended: bool },
    Rest(io::Take<BufReader<TcpStream>>),
}

impl Answer {
    fn read(stream: TcpStream) -> io::Result<Self> {
        let mut stream = BufReader::new(stream);
        let first = line(&mut stream)?;
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
        let Some(status) = status.filter(|_| first.starts_with("HTTP/1.")) else {
            return Err(io::Error::other("the answer is no HTTP"));
        };
        let (mut length, mut is_chunked) = (u64::MAX, false);
        loop {
            let line = line(&mut stream)?;
            let Some((name, value)) = line.split_once(':') else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => {
                    length = value.trim().parse().map_err(|_| io::Error::other("the answer is no HTTP"))?
                }
                "transfer-encoding" => is_chunked = value.trim().eq_ignore_ascii_case("chunked"),
                _ => {}
            }
        }
        let body = match is_chunked {
            true => Body::Chunks { stream, left: 0, ended: false },
            false => Body::Rest(stream.take(length)),
        };
        Ok(Answer { status, body })
    }

    fn text(self) -> Result<String, Refused> {
        let mut bytes = Vec::new();
        self.body.take(BODY).read_to_end(&mut bytes).map_err(failed)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// A line without its end.
fn line(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut bytes = Vec::new();
    stream.by_ref().take(LINE).read_until(b'\n', &mut bytes)?;
    if bytes.last() != Some(&b'\n') {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server ends the connection"));
    }
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (stream, left, ended) = match self {
            Body::Rest(rest) => return rest.read(buffer),
            Body::Chunks { stream, left, ended } => (stream, left, ended),
        };
        if *left == 0 && !*ended {
            let size = line(stream)?;
            // The end of the chunk before.
            let size = if size.is_empty() { line(stream)? } else { size };
            let digits = size.split(';').next().unwrap_or_default().trim();
            *left = u64::from_str_radix(digits, 16).map_err(|_| io::Error::other("a chunk has no length"))?;
            *ended = *left == 0;
        }
        if *ended {
            return Ok(0);
        }
        let most = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
        let read = stream.read(&mut buffer[..most])?;
        if read == 0 && most > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server ends the connection"));
        }
        *left -= read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    #[test]
    fn urls_of_servers() {
        let client = |url: &str| Client::new(url, None, CONNECT).map(|c| (c.url, c.authority));
        for (url, expected) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://127.0.0.1:8080/v1/", "http://127.0.0.1:8080"),
            ("localhost:9", "http://localhost:9"),
            ("http://a/api/v1", "http://a:80/api"),
            ("http://[::1]:8", "http://[::1]:8"),
        ] {
            assert_eq!(client(url).expect(url).0, expected);
        }
        for url in ["https://a", "ftp://a", "http://", "", "http://a b", "http://a\r\nx: y", "http://user@a"] {
            assert_eq!(client(url).expect_err(url).kind, Kind::Usage, "{url}");
        }
    }

    /// A server that says the same to every connection.
    fn saying(text: &'static str) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let mut reader = BufReader::new(stream.try_clone().expect("a copy"));
                let mut length = 0;
                loop {
                    let mut head = String::new();
                    reader.read_line(&mut head).expect("a line");
                    length =
                        head.strip_prefix("content-length: ").map_or(length, |n| n.trim().parse().expect("a number"));
                    if head.trim().is_empty() {
                        break;
                    }
                }
                reader.read_exact(&mut vec![0; length]).expect("a body");
                stream.write_all(text.as_bytes()).expect("written");
            }
        });
        Client::new(&format!("http://{address}"), None, Duration::from_secs(5)).expect("a client")
    }

    #[test]
    fn events_come_from_chunks_that_are_cut_anywhere() {
        let client = saying(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\ndata:\r\n1d\r\n {\"a\": 1}\n\n: alive\n\ndata: {\"a\r\n8;x=y\r\n\": 2}\n\nd\r\nc\r\nata: [DONE]\n\r\n0\r\n\r\n",
        );
        let mut seen = Vec::new();
        client.events(&serde_json::json!({}), |event| seen.push(event["a"].clone())).expect("events");
        assert_eq!(seen, [1, 2]);
        let cut = saying("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\ndata:\r\n1e\r\n {");
        assert_eq!(cut.events(&Value::Null, |_| {}), Err(Refused::Connection("the server ends the connection".into())));
        let undone = saying("HTTP/1.1 200 OK\r\n\r\ndata: {}\n\n");
        assert!(
            matches!(undone.events(&Value::Null, |_| {}), Err(Refused::Connection(text)) if text.contains("complete"))
        );
    }

    #[test]
    fn other_servers_are_told_in_one_line() {
        let busy =
            saying("HTTP/1.1 429 Too Many\r\ncontent-length: 36\r\n\r\n{\"error\": {\"message\": \"queue full\"}}");
        let refused = busy.events(&Value::Null, |_| {}).expect_err("refused");
        assert!(matches!(refused, Refused::Status(429, _)), "{refused}");
        for (text, kind, words) in [
            ("HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n", Kind::Usage, "LOWBIT_API_KEY"),
            ("HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n", Kind::Io, "status 404"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", Kind::Io, "names no model"),
            ("SSH-2.0-x\r\n", Kind::Io, "no HTTP"),
            ("", Kind::Io, "ends the connection"),
        ] {
            let error = saying(text).model().expect_err(words);
            assert!(error.kind == kind && error.message.contains(words), "{error}");
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        let error =
            Client::new(&format!("http://{address}"), None, CONNECT).expect("a client").model().expect_err("refused");
        assert!(error.message.contains("no server answers (Connection refused)"), "{error}");
    }
}
