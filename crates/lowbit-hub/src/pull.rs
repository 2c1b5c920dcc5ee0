//! A model into the cache of the Hub's client: blobs by content, snapshots of links by commit, a reference by revision.

use crate::client::{Facts, Hub, Revision};
use crate::{Error, Kind};
use lowbit_base::file::{self, Lock};
use lowbit_base::name::check_part;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Bytes that arrive before the observer hears of them.
const CHUNK: usize = 1 << 20;
/// Most files of a model.
const MAX_FILES: usize = 4096;
/// Ends of the names of files beside weights that lowbit reads.
const SMALL: &[&str] = &[
    "config.json",
    "generation_config.json",
    "modules.json",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/tool_use.jinja",
    "1_Pooling/config.json",
];

/// Which files of a model.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Names of files in the repository; what lowbit reads of the model where none is given.
    pub files: Vec<String>,
}

/// Hears of a download.
pub trait Observer {
    /// So many megabytes (1e6 bytes) have arrived in all.
    fn arrived(&mut self, _megabytes: u64) {}
}

/// Hears nothing.
impl Observer for () {}

/// A model that is in the cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fetched {
    /// The directory of the snapshot.
    pub directory: PathBuf,
    /// Its commit.
    pub commit: String,
    /// Its files.
    pub files: Vec<FetchedFile>,
    /// Bytes that this call fetched.
    pub fetched_bytes: u64,
}

/// A file of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FetchedFile {
    /// Its path in the repository.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

impl Hub {
    /// Fetches a revision of `org/name`, or what is missing of it.
    ///
    /// # Errors
    /// A name or revision that is none, a model that is not there or needs a token, a content that is not what the Hub
    /// promised, a disk that is full; what arrived is kept and the same call goes on.
    pub fn pull(
        &self,
        id: &str,
        revision: &str,
        selection: &Selection,
        observer: &mut dyn Observer,
    ) -> Result<Fetched, Error> {
        let parts: Vec<&str> = id.split('/').collect();
        if parts.len() != 2 || parts.iter().any(|part| check_part(part).is_err()) {
            return Err(Error::usage(format!("`{id}` is no model of the Hub; it is written org/name")));
        }
        if revision.is_empty()
            || revision.contains("..")
            || revision.chars().any(|c| c.is_control() || c.is_whitespace())
        {
            return Err(Error::usage(format!("`{revision}` is no revision: a branch, a tag or a commit")));
        }
        let home = self.cache.join(format!("models--{}", id.replace('/', "--")));
        if self.offline {
            return offline(&home, id, revision, selection);
        }
        let found = self.revision(id, revision)?;
        let names = chosen(&found, id, selection)?;
        for directory in ["blobs", "refs", "snapshots"] {
            file::make(&home.join(directory))?;
        }
        let _lock = Lock::acquire(&home.join("blobs"))?;
        let snapshot = home.join("snapshots").join(&found.sha);
        let (mut files, mut fetched) = (Vec::new(), 0);
        for name in &names {
            let url = self.address(id, &found.sha, name);
            let facts = self.facts(&url, id)?;
            let blob = home.join("blobs").join(&facts.etag);
            if !blob.metadata().is_ok_and(|meta| meta.len() == facts.size) {
                fetched += self.fetch(&url, (id, name), &facts, &blob, &mut |bytes| {
                    observer.arrived((fetched + bytes) / 1_000_000)
                })?;
            }
            link(&blob, &snapshot.join(name), name)?;
            files.push(FetchedFile { name: name.clone(), bytes: facts.size });
        }
        let reference = home.join("refs").join(revision);
        if revision != found.sha && check_part(revision).is_ok() {
            file::replace(&reference, found.sha.as_bytes())?;
        }
        Ok(Fetched { directory: snapshot, commit: found.sha, files, fetched_bytes: fetched })
    }

    /// Fetches the content of a file, from where an earlier download ended; returns the bytes that arrived.
    fn fetch(
        &self,
        url: &str,
        (id, name): (&str, &str),
        facts: &Facts,
        blob: &Path,
        arrives: &mut dyn FnMut(u64),
    ) -> Result<u64, Error> {
        let part = blob.with_file_name(format!("{}.incomplete", facts.etag));
        let io = |e: std::io::Error| Error::io(&part, &e);
        if part.symlink_metadata().is_ok_and(|meta| !meta.is_file()) {
            return Err(Error::input(&part, "is no regular file; remove it"));
        }
        let mut have = part.metadata().map_or(0, |meta| meta.len());
        if have > facts.size {
            fs::remove_file(&part).map_err(io)?;
            have = 0;
        }
        let mut arrived = 0;
        if have < facts.size || have == 0 {
            let mut response = self.content(url, have, id)?;
            // A server that begins anew sends 200 in place of 206.
            if have > 0 && response.status().as_u16() != 206 {
                have = 0;
            }
            let mut out = OpenOptions::new().create(true).append(true).open(&part).map_err(io)?;
            out.set_len(have).map_err(io)?;
            let mut body = response.body_mut().as_reader();
            let mut buffer = vec![0; CHUNK];
            let mut at = have;
            loop {
                self.stop.check()?;
                let n = body.read(&mut buffer).map_err(|e| cut(url, at, facts.size, &e.to_string()))?;
                if n == 0 {
                    break;
                }
                out.write_all(&buffer[..n]).map_err(io)?;
                (at, arrived) = (at + n as u64, arrived + n as u64);
                if at > facts.size {
                    break;
                }
                arrives(arrived);
            }
            out.sync_all().map_err(io)?;
            if at < facts.size {
                return Err(cut(url, at, facts.size, "the connection ended"));
            }
        }
        if let Err(error) = check(&part, facts, name) {
            let _ = fs::remove_file(&part);
            return Err(error);
        }
        fs::rename(&part, blob).map_err(io)?;
        Ok(arrived)
    }
}

fn cut(url: &str, at: u64, of: u64, cause: &str) -> Error {
    let text = format!("{url}: {cause} after {at} of {of} bytes; the same command goes on there");
    Error::new(Kind::Io, text)
}

/// Sees that a file is what the Hub promised: its size, and its SHA-256 where that is its name.
fn check(part: &Path, facts: &Facts, name: &str) -> Result<(), Error> {
    let mut file = File::open(part).map_err(|e| Error::io(part, &e))?;
    let size = file.metadata().map_err(|e| Error::io(part, &e))?.len();
    let wrong = |text: String| Error::new(Kind::Input, format!("{name}: {text}; it was removed: fetch it again"));
    if size != facts.size {
        return Err(wrong(format!("{size} bytes arrived where the Hub promised {}", facts.size)));
    }
    let is_sha256 = facts.etag.len() == 64 && facts.etag.chars().all(|c| c.is_ascii_hexdigit());
    if !is_sha256 {
        return Ok(());
    }
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; CHUNK]);
    loop {
        match file.read(&mut buffer).map_err(|e| Error::io(part, &e))? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    let found = lowbit_base::hex(hash.finalize());
    match found.eq_ignore_ascii_case(&facts.etag) {
        true => Ok(()),
        false => Err(wrong(format!("its SHA-256 is {found}, not {} as the Hub promised", facts.etag))),
    }
}

/// Names of the files to fetch.
fn chosen(found: &Revision, id: &str, selection: &Selection) -> Result<Vec<String>, Error> {
    let all: Vec<&str> = found.siblings.iter().map(|file| file.rfilename.as_str()).collect();
    let ggufs = || all.iter().filter(|name| name.ends_with(".gguf")).copied().collect::<Vec<_>>();
    let names: Vec<String> = match selection.files.is_empty() {
        false => {
            for asked in &selection.files {
                if !all.contains(&asked.as_str()) {
                    let known = lowbit_base::alternatives(asked, all.iter().copied());
                    return Err(Error::usage(format!("{id} has no file `{asked}`{known}")));
                }
            }
            selection.files.clone()
        }
        true => {
            let weights = |name: &str| name.ends_with(".safetensors") && !name.contains('/');
            if !all.iter().any(|name| weights(name)) {
                let text = match ggufs() {
                    files if files.is_empty() => {
                        "it has no safetensors, which lowbit reads; another model of the same network may".into()
                    }
                    files => format!("it holds GGUF files: choose with --file, one of {}", files.join(", ")),
                };
                return Err(Error::usage(format!("{id}: {text}")));
            }
            // One file for all weights stands beside shards in some repositories.
            let sharded = |name: &str| name.contains("-of-");
            let whole = all.contains(&"model.safetensors");
            let takes = |name: &&&str| SMALL.contains(name) || weights(name) && (!whole || !sharded(name));
            all.iter().filter(takes).map(|name| name.to_string()).collect()
        }
    };
    for name in &names {
        if name.split('/').any(|part| check_part(part).is_err()) {
            let name: String = name.chars().filter(|c| !c.is_control()).take(100).collect();
            return Err(Error::new(
                Kind::Input,
                format!("{id}: the Hub lists a file `{name}`, which is no plain path"),
            ));
        }
    }
    match names.len() <= MAX_FILES {
        true => Ok(names),
        false => Err(Error::usage(format!("{id}: {} files, more than {MAX_FILES}", names.len()))),
    }
}

/// What of a model is in the cache already.
fn offline(home: &Path, id: &str, revision: &str, selection: &Selection) -> Result<Fetched, Error> {
    let absent = |what: &str| {
        let text = format!("{id}: {what}, and HF_HUB_OFFLINE forbids to fetch it: unset the variable");
        Error::new(Kind::Io, text)
    };
    let reference = home.join("refs").join(revision);
    let commit = match check_part(revision).is_ok() && reference.is_file() {
        true => file::read_text(&reference, 256)?.trim().to_string(),
        false => revision.to_string(),
    };
    let snapshot = home.join("snapshots").join(&commit);
    if check_part(&commit).is_err() || !snapshot.is_dir() {
        return Err(absent("is not in the cache"));
    }
    for name in &selection.files {
        if !snapshot.join(name).exists() {
            return Err(absent(&format!("`{name}` is not in the cache")));
        }
    }
    Ok(Fetched { directory: snapshot, commit, files: Vec::new(), fetched_bytes: 0 })
}

/// Lets a file of a snapshot be a blob: a relative link as the Hub's client makes it, or a copy where there are no links.
fn link(blob: &Path, at: &Path, name: &str) -> Result<(), Error> {
    let directory = at.parent().expect("a file of a snapshot");
    file::make(directory)?;
    let up = "../".repeat(2 + name.matches('/').count());
    let target = PathBuf::from(format!("{up}blobs/{}", blob.file_name().unwrap_or_default().to_string_lossy()));
    if fs::read_link(at).is_ok_and(|found| found == target) {
        return Ok(());
    }
    let io = |e: std::io::Error| Error::io(at, &e);
    if at.symlink_metadata().is_ok() {
        fs::remove_file(at).map_err(io)?;
    }
    #[cfg(unix)]
    return std::os::unix::fs::symlink(&target, at).map_err(io);
    #[cfg(not(unix))]
    return fs::copy(blob, at).map(|_| ()).map_err(io);
}
