//! The model inside the program, for `lowbit run` without a model.

use super::lines::directory;
use crate::failure::Failure;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Name and content of each file of the model.
const FILES: &[(&str, &[u8])] = &[
    ("config.json", include_bytes!("../../models/default/config.json")),
    ("model.safetensors", include_bytes!("../../models/default/model.safetensors")),
    ("tokenizer.json", include_bytes!("../../models/default/tokenizer.json")),
];

/// The directory of the model that this program carries; its files are unpacked when first asked for.
///
/// # Errors
/// When it carries none, or the files cannot be written.
pub fn default_model() -> Result<PathBuf, Failure> {
    if FILES.is_empty() {
        return Err(Failure::usage("no model is shipped with this program; name one: lowbit run MODEL"));
    }
    let cache = directory("XDG_CACHE_HOME").or_else(|| Some(directory("HOME")?.join(".cache")));
    let cache = cache.or_else(|| directory("LOCALAPPDATA")).unwrap_or_else(std::env::temp_dir);
    unpack(FILES, &cache.join("lowbit"))
}

/// Writes files into a directory of `cache` named after their content; files that are there already stay.
fn unpack(files: &[(&str, &[u8])], cache: &Path) -> Result<PathBuf, Failure> {
    let mut hash = Sha256::new();
    for (name, bytes) in files {
        hash.update(name.as_bytes());
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    }
    let hash = lowbit_base::hex(&hash.finalize()[..8]);
    let directory = cache.join(format!("default-{hash}"));
    std::fs::create_dir_all(&directory).map_err(|e| Failure::io(&directory, &e))?;
    for (name, bytes) in files {
        let path = directory.join(name);
        if std::fs::read(&path).is_ok_and(|found| found == *bytes) {
            continue;
        }
        lowbit_base::file::replace(&path, bytes)?;
    }
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::unpack;

    #[test]
    fn files_are_unpacked_once_and_repaired() {
        let cache = tempfile::tempdir().expect("a directory");
        let files: &[(&str, &[u8])] = &[("a", b"one"), ("b", b"two")];
        let directory = unpack(files, cache.path()).expect("unpacked");
        let written = |name: &str| std::fs::metadata(directory.join(name)).and_then(|m| m.modified()).expect("a file");
        let before = written("a");
        std::fs::write(directory.join("b"), "tw").expect("damaged");
        assert_eq!(unpack(files, cache.path()).expect("unpacked again"), directory);
        assert_eq!((written("a"), std::fs::read(directory.join("b")).expect("read")), (before, b"two".to_vec()));
        assert_ne!(unpack(&files[..1], cache.path()).expect("another model"), directory);
    }
}
