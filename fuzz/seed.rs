//! A valid file to begin from, for targets whose files only the program can write.

use std::path::Path;

/// Copies a file into the folder that `LOWBIT_FUZZ_SEEDS` names, if it does: the corpus of the target.
pub fn keep(file: &Path) {
    if let Some(folder) = std::env::var_os("LOWBIT_FUZZ_SEEDS") {
        std::fs::copy(file, Path::new(&folder).join("valid")).expect("a folder for seeds");
    }
}
