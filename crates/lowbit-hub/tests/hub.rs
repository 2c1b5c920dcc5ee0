//! The client against a server of its own that speaks as the Hub does: redirects, ETags, cut downloads, refusals.

use lowbit_hub::{Hub, Kind, Selection};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

/// A request as the server saw it: its line, and its headers in lower case.
#[derive(Clone, Debug)]
struct Request {
    line: String,
    headers: HashMap<String, String>,
}

impl Request {
    fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }

    fn is_head(&self) -> bool {
        self.line.starts_with("HEAD ")
    }

    /// The first byte asked for.
    fn from(&self) -> usize {
        let range = self.headers.get("range").and_then(|range| range.strip_prefix("bytes="));
        range.and_then(|range| range.trim_end_matches('-').parse().ok()).unwrap_or(0)
    }
}

/// An answer: status line, headers, content, and how much of it is sent before the connection ends.
struct Answer {
    status: &'static str,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    sent: usize,
}

impl Answer {
    fn new(status: &'static str, headers: &[(&str, &str)], body: &[u8]) -> Self {
        let headers = headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Answer { status, headers, body: body.to_vec(), sent: usize::MAX }
    }
}

type Log = Arc<Mutex<Vec<Request>>>;

/// Serves until the test ends; returns its address and what it was asked.
fn serve(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> (String, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (log, answer) = (Log::default(), Arc::new(answer));
    let seen = log.clone();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (answer, seen) = (answer.clone(), seen.clone());
            thread::spawn(move || connection(stream, &*answer, &seen));
        }
    });
    (address, log)
}

fn connection(mut stream: TcpStream, answer: &dyn Fn(&Request) -> Answer, log: &Log) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let (mut line, mut headers) = (String::new(), HashMap::new());
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header).unwrap_or(0) == 0 || header.trim().is_empty() {
                break;
            }
            let (name, value) = header.trim().split_once(':').unwrap();
            headers.insert(name.to_lowercase(), value.trim().to_string());
        }
        let request = Request { line: line.trim().into(), headers };
        log.lock().unwrap().push(request.clone());
        let Answer { status, headers, body, sent } = answer(&request);
        let mut head = format!("HTTP/1.1 {status}\r\n");
        headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        let _ = stream.write_all(format!("{head}\r\n").as_bytes());
        if request.is_head() {
            continue;
        }
        let _ = stream.write_all(&body[..body.len().min(sent)]);
        if sent < body.len() {
            return;
        }
    }
}

fn hash(bytes: &[u8]) -> String {
    lowbit_base::hex(Sha256::digest(bytes))
}

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const CONFIG: &[u8] = b"{\"model_type\": \"bert\"}";

fn weights() -> Vec<u8> {
    (0..3_000_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect()
}

fn listing(files: &[&str]) -> Vec<u8> {
    let files: Vec<String> = files.iter().map(|name| format!("{{\"rfilename\": \"{name}\"}}")).collect();
    format!("{{\"sha\": \"{COMMIT}\", \"siblings\": [{}]}}", files.join(", ")).into_bytes()
}

/// A hub with a small file of its own, and a large one that lies on another server.
fn hub_of(store: String, listed: &'static [&'static str]) -> impl Fn(&Request) -> Answer + Send + Sync {
    move |request: &Request| match request.path() {
        "/api/models/org/name/revision/main" => Answer::new("200 OK", &[], &listing(listed)),
        path if path.ends_with("/config.json") => Answer::new("200 OK", &[("etag", "\"a1b2c3\"")], CONFIG),
        path if path.ends_with("/model.safetensors") => {
            let weights = weights();
            let (etag, size) = (format!("\"{}\"", hash(&weights)), weights.len().to_string());
            let to = format!("{store}/blob");
            Answer::new("302 Found", &[("location", &to), ("x-linked-etag", &etag), ("x-linked-size", &size)], b"")
        }
        _ => Answer::new("404 Not Found", &[], b""),
    }
}

fn store(request: &Request) -> Answer {
    let weights = weights();
    match request.from() {
        0 => Answer::new("200 OK", &[], &weights),
        from => Answer::new("206 Partial Content", &[], &weights[from..]),
    }
}

fn hub(endpoint: &str, cache: &Path, more: &[(&str, &str)]) -> Hub {
    let mut variables: HashMap<String, OsString> = more.iter().map(|(k, v)| (k.to_string(), v.into())).collect();
    variables.insert("HF_ENDPOINT".into(), endpoint.into());
    variables.insert("HF_HUB_CACHE".into(), cache.into());
    Hub::of(&|name| variables.get(name).cloned()).unwrap()
}

fn all() -> Selection {
    Selection::default()
}

#[test]
fn a_model_lies_in_the_cache_as_the_client_has_it() {
    let (other, seen_there) = serve(store);
    let (endpoint, seen) =
        serve(hub_of(other, &["config.json", "model.safetensors", "README.md", "pytorch_model.bin", ".gitattributes"]));
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&endpoint, cache.path(), &[("HF_TOKEN", "hf_secret")]);
    let fetched = hub.pull("org/name", "main", &all(), &mut ()).unwrap();
    let home = cache.path().join("models--org--name");
    assert_eq!((&fetched.directory, fetched.commit.as_str()), (&home.join("snapshots").join(COMMIT), COMMIT));
    assert_eq!(fetched.fetched_bytes, (weights().len() + CONFIG.len()) as u64);
    assert_eq!(
        fetched.files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(),
        ["config.json", "model.safetensors"]
    );
    assert!(std::fs::read(fetched.directory.join("model.safetensors")).unwrap() == weights());
    assert!(std::fs::read(home.join("blobs/a1b2c3")).unwrap() == CONFIG);
    assert_eq!(std::fs::read_link(fetched.directory.join("config.json")).unwrap(), Path::new("../../blobs/a1b2c3"));
    assert_eq!(std::fs::read_to_string(home.join("refs/main")).unwrap(), COMMIT);
    // The token goes to the endpoint, and to nobody else.
    let sent = |log: &Log| log.lock().unwrap().iter().filter(|r| r.headers.contains_key("authorization")).count();
    assert_eq!((sent(&seen), sent(&seen_there)), (seen.lock().unwrap().len(), 0));
    // What is there is not fetched again.
    let again = hub.pull("org/name", "main", &all(), &mut ()).unwrap();
    assert_eq!((again.fetched_bytes, seen_there.lock().unwrap().len()), (0, 1));
}

#[test]
fn a_cut_download_goes_on_where_it_was() {
    for honours_ranges in [true, false] {
        let cuts = Arc::new(Mutex::new(vec![1_000_000usize, 700_000]));
        let (other, seen) = serve(move |request| {
            let mut answer = store(request);
            if !honours_ranges {
                answer = Answer::new("200 OK", &[], &weights());
            }
            answer.sent = cuts.lock().unwrap().pop().unwrap_or(usize::MAX);
            answer
        });
        let (endpoint, _) = serve(hub_of(other, &["config.json", "model.safetensors"]));
        let cache = tempfile::tempdir().unwrap();
        let hub = hub(&endpoint, cache.path(), &[]);
        for at in [700_000, if honours_ranges { 1_700_000 } else { 1_000_000 }] {
            let error = hub.pull("org/name", "main", &all(), &mut ()).expect_err("cut");
            let line = error.to_string();
            assert!(error.kind == Kind::Io && line.contains("of 3000000 bytes; the same command goes on"), "{line}");
            let part = cache.path().join("models--org--name/blobs").join(format!("{}.incomplete", hash(&weights())));
            assert_eq!(part.metadata().unwrap().len(), at, "{line}");
            assert!(!cache.path().join("models--org--name/refs/main").exists());
        }
        let fetched = hub.pull("org/name", "main", &all(), &mut ()).unwrap();
        assert!(std::fs::read(fetched.directory.join("model.safetensors")).unwrap() == weights());
        let ranges: Vec<usize> = seen.lock().unwrap().iter().map(Request::from).collect();
        assert_eq!(ranges, [0, 700_000, if honours_ranges { 1_700_000 } else { 1_000_000 }]);
    }
}

#[test]
fn a_content_that_is_not_the_promised_one_is_removed() {
    for change in [|w: &mut Vec<u8>| w[5] ^= 1, |w: &mut Vec<u8>| w.push(0)] {
        let (other, _) = serve(move |_| {
            let mut weights = weights();
            change(&mut weights);
            Answer::new("200 OK", &[], &weights)
        });
        let (endpoint, _) = serve(hub_of(other, &["config.json", "model.safetensors"]));
        let cache = tempfile::tempdir().unwrap();
        let error =
            hub(&endpoint, cache.path(), &[]).pull("org/name", "main", &all(), &mut ()).expect_err("another content");
        assert_eq!(error.kind, Kind::Input);
        assert!(
            error.to_string().contains("as the Hub promised") || error.to_string().contains("the Hub promised 3000000"),
            "{error}"
        );
        let blobs = std::fs::read_dir(cache.path().join("models--org--name/blobs")).unwrap();
        let names: Vec<String> = blobs.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        assert!(names.iter().all(|name| !name.contains(&hash(&weights()))), "{names:?}");
    }
}

#[test]
fn refusals_say_what_helps() {
    for (status, header, token, words) in [
        ("401 Unauthorized", "Invalid username or password.", "", ["private or gated", "set HF_TOKEN"]),
        ("403 Forbidden", "Access to model is restricted", "hf_x", ["the token has no access", "restricted"]),
        ("404 Not Found", "", "", ["knows no such model", "org/name"]),
        ("429 Too Many Requests", "", "", ["too many requests", "wait"]),
        ("500 Internal Server Error", "", "", ["the Hub answers 500", "api/models"]),
    ] {
        let (endpoint, _) = serve(move |_| Answer::new(status, &[("x-error-message", header)], b""));
        let cache = tempfile::tempdir().unwrap();
        let error = hub(&endpoint, cache.path(), &[("HF_TOKEN", token)])
            .pull("org/name", "main", &all(), &mut ())
            .expect_err(status);
        assert!(words.iter().all(|word| error.to_string().contains(word)), "{status}: {error}");
        assert!(!error.to_string().contains("hf_x") && error.kind == Kind::Io);
    }
    let cache = tempfile::tempdir().unwrap();
    let gone = hub("http://127.0.0.1:9", cache.path(), &[])
        .pull("org/name", "main", &all(), &mut ())
        .expect_err("nobody there");
    assert!(gone.to_string().contains("127.0.0.1:9") && gone.kind == Kind::Io, "{gone}");
    for (id, revision) in
        [("name", "main"), ("a/b/c", "main"), ("../x", "main"), ("org/name", "a b"), ("org/name", "../..")]
    {
        let error = hub("http://127.0.0.1:9", cache.path(), &[]).pull(id, revision, &all(), &mut ()).expect_err(id);
        assert_eq!(error.kind, Kind::Usage, "{error}");
    }
}

#[test]
fn names_of_files_are_plain() {
    let cases: [(&'static [&'static str], &[&str], &str); 4] = [
        (&["../../evil", "config.json", "model.safetensors"], &["../../evil"], "no plain path"),
        (&["a.gguf", "b.Q4.gguf", "README.md"], &[], "--file, one of a.gguf, b.Q4.gguf"),
        (&["pytorch_model.bin", "config.json"], &[], "no safetensors"),
        (&["config.json", "model.safetensors"], &["confg.json"], "did you mean `config.json`"),
    ];
    for (listed, asked, words) in cases {
        let (endpoint, _) = serve(hub_of(String::new(), listed));
        let cache = tempfile::tempdir().unwrap();
        let selection = Selection { files: asked.iter().map(|name| name.to_string()).collect() };
        let error = hub(&endpoint, cache.path(), &[]).pull("org/name", "main", &selection, &mut ()).expect_err(words);
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn without_a_network_the_cache_answers() {
    let (other, _) = serve(store);
    let (endpoint, seen) = serve(hub_of(other, &["config.json", "model.safetensors"]));
    let cache = tempfile::tempdir().unwrap();
    let offline = hub(&endpoint, cache.path(), &[("HF_HUB_OFFLINE", "1")]);
    let error = offline.pull("org/name", "main", &all(), &mut ()).expect_err("not there");
    assert!(error.to_string().contains("HF_HUB_OFFLINE") && seen.lock().unwrap().is_empty(), "{error}");
    let online =
        hub(&endpoint, cache.path(), &[("HF_HUB_OFFLINE", "0")]).pull("org/name", "main", &all(), &mut ()).unwrap();
    let asked = seen.lock().unwrap().len();
    assert_eq!(offline.pull("org/name", "main", &all(), &mut ()).unwrap().directory, online.directory);
    assert_eq!(offline.pull("org/name", COMMIT, &all(), &mut ()).unwrap().directory, online.directory);
    assert_eq!(seen.lock().unwrap().len(), asked);
}

#[test]
fn a_model_that_was_renamed_is_followed() {
    let (endpoint, seen) = serve(|request| match request.path() {
        "/api/models/org/old/revision/main" => {
            Answer::new("307 Temporary Redirect", &[("location", "/api/models/org/name/revision/main")], b"")
        }
        "/api/models/org/name/revision/main" => {
            Answer::new("200 OK", &[], &listing(&["config.json", "model.safetensors"]))
        }
        path if path.starts_with("/org/old/") => {
            Answer::new("307 Temporary Redirect", &[("location", &path.replace("/old/", "/name/"))], b"")
        }
        path => Answer::new("200 OK", &[("etag", &format!("\"{}\"", path.len()))], CONFIG),
    });
    let cache = tempfile::tempdir().unwrap();
    let fetched = hub(&endpoint, cache.path(), &[("HF_TOKEN", "t")]).pull("org/old", "main", &all(), &mut ()).unwrap();
    assert!(std::fs::read(fetched.directory.join("model.safetensors")).unwrap() == CONFIG);
    assert!(seen.lock().unwrap().iter().all(|request| request.headers.contains_key("authorization")));
    // A server that sends its clients in circles.
    let (endpoint, _) = serve(|request| Answer::new("302 Found", &[("location", request.path())], b""));
    let error = hub(&endpoint, cache.path(), &[]).pull("org/name", "main", &all(), &mut ()).expect_err("a circle");
    assert!(error.to_string().contains("more than 10 redirects"), "{error}");
}

#[test]
fn the_token_is_in_a_file_beside_the_cache() {
    let (endpoint, seen) = serve(|_| Answer::new("404 Not Found", &[], b""));
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("token"), "hf_of_file\n").unwrap();
    let variables: HashMap<&str, OsString> = [("HF_ENDPOINT", endpoint.into()), ("HF_HOME", home.path().into())].into();
    let hub = Hub::of(&|name| variables.get(name).cloned()).unwrap();
    hub.pull("org/name", "main", &all(), &mut ()).expect_err("404");
    assert_eq!(seen.lock().unwrap()[0].headers["authorization"], "Bearer hf_of_file");
}
