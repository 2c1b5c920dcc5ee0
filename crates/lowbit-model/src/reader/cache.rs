//! The cache of the Hub's own client: where `org/name` lies when it has been downloaded.

use crate::container::show;
use crate::{Error, Kind};
use lowbit_base::name::check_part;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Longest content of a reference file, bytes: a hash and a line break.
const MAX_REFERENCE: u64 = 256;

/// The directory of a model: the path itself where something lies there, else, when it reads `org/name`, the snapshot of
/// that model in the Hub's cache.
///
/// # Errors
/// When the model is not in the cache (with the command that downloads it), or the cache is damaged.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, Error> {
    let Some(id) = hub_id(path).filter(|_| !path.exists()) else {
        return Ok(path.into());
    };
    snapshot(&id, root(&|name| std::env::var_os(name)))
}

/// The `org/name` a path spells: two parts of letters, digits, `-`, `_` and `.`, none beginning with a dot.
fn hub_id(path: &Path) -> Option<String> {
    let text = path.to_str()?;
    let (org, name) = text.split_once('/')?;
    let plain = |part: &str| part.len() <= 96 && check_part(part).is_ok();
    (plain(org) && plain(name)).then(|| text.to_string())
}

/// The cache of the Hub's client, by the variables it reads; `None` where none of them tells a directory.
pub fn root(variable: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let get = |name| variable(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = || get("XDG_CACHE_HOME").or_else(|| Some(get("HOME").or_else(|| get("USERPROFILE"))?.join(".cache")));
    get("HF_HUB_CACHE")
        .or_else(|| get("HUGGINGFACE_HUB_CACHE"))
        .or_else(|| Some(get("HF_HOME")?.join("hub")))
        .or_else(|| Some(home()?.join("huggingface").join("hub")))
}

/// The directory of a model in a cache.
fn snapshot(id: &str, root: Option<PathBuf>) -> Result<PathBuf, Error> {
    let absent = |place: String| {
        let text = format!("{id}: no such file, and not in the Hub's cache{place}; fetch it with `lowbit pull {id}`");
        Error::new(Kind::Io, text)
    };
    let root = root.ok_or_else(|| absent(String::new()))?;
    let home = root.join(format!("models--{}", id.replace('/', "--")));
    let reference = home.join("refs").join("main");
    if !reference.exists() {
        return Err(absent(format!(" {}", root.display())));
    }
    let hash = lowbit_base::file::read(&reference, MAX_REFERENCE)?;
    let hash = String::from_utf8_lossy(&hash).trim().to_string();
    if hash.is_empty() || !hash.chars().all(|c| c.is_ascii_hexdigit()) {
        let text = format!("holds `{}`, which is no commit; download the model again", show(&hash));
        return Err(Error::input(&reference, format!("{text} with `lowbit pull {id}`")));
    }
    let directory = home.join("snapshots").join(hash);
    match directory.is_dir() {
        true => Ok(directory),
        false => Err(absent(format!(" {} (its snapshot is gone)", root.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_two_plain_parts() {
        for id in ["microsoft/bitnet-b1.58-2B-4T", "a/b", "x_1/y.z"] {
            assert_eq!(hub_id(Path::new(id)).as_deref(), Some(id));
        }
        for path in ["a", "a/b/c", "../b", "./b", "a/..", "/a", "a/", "~/b", "a/b c", "a\\b/c"] {
            assert_eq!(hub_id(Path::new(path)), None, "{path}");
        }
    }

    #[test]
    fn the_variables_of_the_client_are_read_in_its_order() {
        let all = [
            ("HF_HUB_CACHE", "a"),
            ("HUGGINGFACE_HUB_CACHE", "b"),
            ("HF_HOME", "c"),
            ("XDG_CACHE_HOME", "d"),
            ("HOME", "e"),
        ];
        let expected = ["a", "b", "c/hub", "d/huggingface/hub", "e/.cache/huggingface/hub"];
        for (skip, expected) in expected.iter().enumerate() {
            let set = |name: &str| all[skip..].iter().find(|(key, _)| *key == name).map(|(_, v)| OsString::from(v));
            assert_eq!(root(&set), Some(PathBuf::from(expected)));
        }
        assert_eq!(root(&|_| None), None);
    }

    #[test]
    fn a_snapshot_is_found_by_its_reference() {
        let cache = tempfile::tempdir().unwrap();
        let find = || snapshot("org/name", Some(cache.path().into()));
        let line = find().expect_err("empty").to_string();
        assert!(line.contains("org/name") && line.contains("`lowbit pull org/name`"), "{line}");
        let home = cache.path().join("models--org--name");
        let (refs, directory) = (home.join("refs"), home.join("snapshots").join("0a1b"));
        std::fs::create_dir_all(&refs).unwrap();
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(refs.join("main"), "0a1b\n").unwrap();
        assert_eq!(find().unwrap(), directory);
        std::fs::write(refs.join("main"), "0a1c").unwrap();
        assert!(find().expect_err("gone").to_string().contains("its snapshot is gone"));
        for bad in ["../../../etc", "", &"0".repeat(300)] {
            std::fs::write(refs.join("main"), bad).unwrap();
            let error = find().expect_err("no commit");
            assert!(error.path.is_some() && !error.to_string().contains('\n'), "{error}");
        }
    }
}
