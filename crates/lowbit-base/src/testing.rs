//! What tests of all crates share: data that may be missing, and how a test says that it could not run.
//!
//! Each skipped test is one line on stderr, and one in the file that `LOWBIT_SKIPPED` names, if it does. `LOWBIT_REQUIRE` lists
//! with commas what may not be missing: a test that is skipped for want of it fails.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

/// What a test may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Instruction sets of this architecture that this CPU has not.
    Isas,
    /// Files of the data directory.
    Data,
    /// Rights on this machine.
    Rights,
    /// Something that the environment names.
    Environment,
}

impl Need {
    /// Every need with its name in `LOWBIT_REQUIRE`.
    const ALL: [(&'static str, Need); 4] =
        [("isas", Need::Isas), ("data", Need::Data), ("rights", Need::Rights), ("environment", Need::Environment)];

    fn name(self) -> &'static str {
        Need::ALL.iter().find(|(_, need)| *need == self).expect("the list has every need").0
    }
}

/// Says that a test, or a part of one, was skipped.
///
/// # Panics
/// When `LOWBIT_REQUIRE` demands what is missing, or something unknown.
pub fn skipped(need: Need, why: &str) {
    let required = std::env::var("LOWBIT_REQUIRE").unwrap_or_default();
    if let Err(message) = verdict(&required, need, why) {
        panic!("{message}");
    }
    let test = std::thread::current().name().unwrap_or("a test").to_string();
    let line = format!("skipped ({}): {test}: {why}\n", need.name());
    // Not by a macro, whose text of a test that passes is kept back.
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("LOWBIT_SKIPPED") {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
}

/// Whether a test may be skipped.
fn verdict(required: &str, need: Need, why: &str) -> Result<(), String> {
    for name in required.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        if Need::ALL.iter().all(|(known, _)| *known != name) {
            let known = Need::ALL.map(|(name, _)| name).join(", ");
            return Err(format!("LOWBIT_REQUIRE names `{name}`; known: {known}"));
        }
        if name == need.name() {
            return Err(format!("LOWBIT_REQUIRE names `{name}`, but {why}"));
        }
    }
    Ok(())
}

/// A file or folder of the data directory: `LOWBIT_DATA`, else `shared/data` beside the workspace. Where it is missing, the test
/// is [`skipped`].
pub fn data(name: &str) -> Option<PathBuf> {
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data"));
    let directory = std::env::var_os("LOWBIT_DATA").filter(|path| !path.is_empty()).map_or_else(beside, PathBuf::from);
    let path = directory.join(name);
    if !path.exists() {
        skipped(Need::Data, &format!("there is no `{name}` in {}", directory.display()));
    }
    path.exists().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_required_may_not_be_missing() {
        assert_eq!(verdict("", Need::Data, "none"), Ok(()));
        assert_eq!(verdict("isas", Need::Data, "none"), Ok(()));
        let refused = verdict("isas, data", Need::Data, "there is no `x`").unwrap_err();
        assert_eq!(refused, "LOWBIT_REQUIRE names `data`, but there is no `x`");
        assert!(verdict("dta", Need::Data, "none").unwrap_err().contains("`dta`; known: isas, data"));
    }
}
