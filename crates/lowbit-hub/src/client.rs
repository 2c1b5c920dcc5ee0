//! Requests to the Hub: its API, redirects, what it says of a file.

use crate::{Error, Kind};
use lowbit_base::{Stop, file};
use serde::Deserialize;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;
use ureq::http::{HeaderMap, Response};
use ureq::{Agent, Body};

/// Where the Hub is.
const ENDPOINT: &str = "https://huggingface.co";
/// Redirects that are followed.
const REDIRECTS: usize = 10;
/// Largest answer of the API, bytes.
const ANSWER: u64 = 16 << 20;
/// Largest file of a token, bytes.
const TOKEN: u64 = 4096;
/// Time to connect, and between two arrivals of data.
const CONNECT: Duration = Duration::from_secs(20);
const IDLE: Duration = Duration::from_secs(60);

/// The Hub, or a server that speaks as it does.
pub struct Hub {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
    /// Whether nothing may be asked of the network.
    pub(crate) offline: bool,
    /// The cache of the Hub's client.
    pub(crate) cache: PathBuf,
    /// Ends a download.
    pub(crate) stop: Stop,
}

/// What the Hub says of a revision of a model.
#[derive(Debug, Deserialize)]
pub(crate) struct Revision {
    /// The commit.
    pub sha: String,
    /// Its files.
    #[serde(default)]
    pub siblings: Vec<Sibling>,
}

/// A file of a revision.
#[derive(Debug, Deserialize)]
pub(crate) struct Sibling {
    /// Its path in the repository.
    pub rfilename: String,
}

/// What the Hub says of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Names its content: the SHA-256 of a large file, the hash that git has of a small one.
    pub etag: String,
    /// Bytes.
    pub size: u64,
}

impl Hub {
    /// The Hub that the variables of its own client name.
    ///
    /// # Errors
    /// When no directory for the cache is known, or the token cannot be read.
    pub fn from_env() -> Result<Self, Error> {
        Self::of(&|name| std::env::var_os(name))
    }

    /// The Hub by these variables.
    ///
    /// # Errors
    /// As [`Hub::from_env`].
    pub fn of(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        let text = |name: &str| variable(name).and_then(|v| v.into_string().ok()).filter(|v| !v.trim().is_empty());
        let cache = lowbit_model::hub_cache(variable)
            .ok_or_else(|| Error::usage("no directory for the Hub's cache: set HF_HOME or HOME"))?;
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.into()).trim_end_matches('/').to_string();
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            return Err(Error::usage(format!("HF_ENDPOINT is `{endpoint}`; it must begin with https:// or http://")));
        }
        let beside = cache.parent().map(|home| home.join("token")).filter(|path| path.is_file());
        let token = match text("HF_TOKEN") {
            Some(token) => Some(token.trim().to_string()),
            None => match beside {
                Some(path) => Some(file::read_text(&path, TOKEN)?.trim().to_string()),
                None => None,
            },
        };
        let offline =
            text("HF_HUB_OFFLINE").is_some_and(|v| !["0", "false", "no", "off"].contains(&&*v.to_lowercase()));
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(IDLE))
            .user_agent(concat!("lowbit/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Hub { agent: config.into(), endpoint, token, offline, cache, stop: Stop::default() })
    }

    /// The same, whose downloads end when a stop is asked for.
    pub fn until(self, stop: Stop) -> Self {
        Hub { stop, ..self }
    }

    /// A revision of a model.
    ///
    /// # Errors
    /// When the Hub cannot be reached, or has no such model; says what a token would do.
    pub(crate) fn revision(&self, id: &str, revision: &str) -> Result<Revision, Error> {
        let url = format!("{}/api/models/{id}/revision/{}", self.endpoint, escaped(revision));
        let mut response = self.get(&url, None, id)?;
        let text = response.body_mut().with_config().limit(ANSWER).read_to_string();
        let text = text.map_err(|e| unreachable_hub(&url, &e))?;
        let found: Revision = serde_json::from_str(&text)
            .map_err(|e| Error::new(Kind::Input, format!("{url}: not an answer of the Hub: {e}")))?;
        match found.sha.len() >= 7 && found.sha.chars().all(|c| c.is_ascii_hexdigit()) {
            true => Ok(found),
            false => Err(Error::new(Kind::Input, format!("{url}: names no commit"))),
        }
    }

    /// The address of a file.
    pub(crate) fn address(&self, id: &str, commit: &str, name: &str) -> String {
        let name: Vec<String> = name.split('/').map(escaped).collect();
        format!("{}/{id}/resolve/{commit}/{}", self.endpoint, name.join("/"))
    }

    /// What the Hub says of a file; where it lies elsewhere, its own words count.
    ///
    /// # Errors
    /// When the Hub cannot be reached or says nothing of size or content.
    pub(crate) fn facts(&self, url: &str, id: &str) -> Result<Facts, Error> {
        let mut at = url.to_string();
        for _ in 0..REDIRECTS {
            let response = self.ask(self.agent.head(&at).header("Accept-Encoding", "identity"), &at)?;
            let moved = location(&response).filter(|to| to.starts_with('/') || self.is_own(to));
            if let Some(to) = moved {
                at = self.absolute(&to);
                continue;
            }
            if !response.status().is_redirection() {
                self.refuse(&response, &at, id)?;
            }
            let headers = response.headers();
            let etag = text(headers, "x-linked-etag").or_else(|| text(headers, "etag"));
            let size = text(headers, "x-linked-size").or_else(|| text(headers, "content-length"));
            let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_string());
            let plain = |etag: &String| !etag.is_empty() && etag.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
            return match (etag.filter(plain), size.and_then(|size| size.parse().ok())) {
                (Some(etag), Some(size)) => Ok(Facts { etag, size }),
                _ => Err(Error::new(Kind::Input, format!("{url}: the Hub says neither what it holds nor how much"))),
            };
        }
        Err(Error::new(Kind::Io, format!("{url}: more than {REDIRECTS} redirects")))
    }

    /// The content of a file from a byte on.
    ///
    /// # Errors
    /// When the Hub cannot be reached or refuses.
    pub(crate) fn content(&self, url: &str, from: u64, id: &str) -> Result<Response<Body>, Error> {
        self.get(url, (from > 0).then(|| format!("bytes={from}-")), id)
    }

    /// A request whose redirects are followed; the token goes to the endpoint alone.
    fn get(&self, url: &str, range: Option<String>, id: &str) -> Result<Response<Body>, Error> {
        let mut at = url.to_string();
        for _ in 0..REDIRECTS {
            let mut request = self.agent.get(&at).header("Accept-Encoding", "identity");
            if let Some(range) = &range {
                request = request.header("Range", range);
            }
            let response = self.ask(request, &at)?;
            match location(&response) {
                Some(to) => at = self.absolute(&to),
                None => {
                    self.refuse(&response, &at, id)?;
                    return Ok(response);
                }
            }
        }
        Err(Error::new(Kind::Io, format!("{url}: more than {REDIRECTS} redirects")))
    }

    fn ask(
        &self,
        request: ureq::RequestBuilder<ureq::typestate::WithoutBody>,
        url: &str,
    ) -> Result<Response<Body>, Error> {
        self.stop.check()?;
        let token = self.token.as_ref().filter(|_| self.is_own(url));
        let request = match token {
            Some(token) => request.header("Authorization", format!("Bearer {token}")),
            None => request,
        };
        request.call().map_err(|e| unreachable_hub(url, &e))
    }

    /// Whether an address is one of the endpoint.
    fn is_own(&self, url: &str) -> bool {
        url.strip_prefix(&self.endpoint).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    fn absolute(&self, location: &str) -> String {
        if !location.starts_with('/') {
            return location.into();
        }
        // The root of the endpoint's host, which may have a path of its own.
        let host = self.endpoint.match_indices('/').nth(2).map_or(&self.endpoint[..], |(at, _)| &self.endpoint[..at]);
        format!("{host}{location}")
    }

    /// Why an answer is refused, if it is.
    fn refuse(&self, response: &Response<Body>, url: &str, id: &str) -> Result<(), Error> {
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let said = text(response.headers(), "x-error-message").map_or(String::new(), |text| {
            let plain: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
            format!(": {plain}")
        });
        let token =
            if self.token.is_some() { "the token has no access to it" } else { "set HF_TOKEN to a token with access" };
        let text = match status.as_u16() {
            401 | 403 => {
                format!("{id}: the Hub answers {status}: no such model, or it is private or gated, and {token}{said}")
            }
            404 => format!("{id}: the Hub knows no such model, revision or file ({url}){said}"),
            429 => format!("{id}: the Hub answers {status}: too many requests; wait, or set HF_TOKEN"),
            _ => format!("{url}: the Hub answers {status}{said}"),
        };
        Err(Error::new(Kind::Io, text))
    }
}

fn unreachable_hub(url: &str, cause: &ureq::Error) -> Error {
    Error::new(Kind::Io, format!("{url}: {cause}; the same command goes on where it was"))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Where a redirect leads.
fn location(response: &Response<Body>) -> Option<String> {
    text(response.headers(), "location").filter(|_| response.status().is_redirection()).map(String::from)
}

/// A part of a path as an address has it.
fn escaped(part: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    part.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
