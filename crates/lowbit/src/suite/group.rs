//! Groups of suites and studies.

use super::{GROUPS, Minutes};
use lowbit_base::Error;
use lowbit_eval::task;
use serde::Deserialize;
use std::path::Path;

/// Suites that are compared one after another, and studies of layers and networks that are measured, in one report.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Short name.
    pub name: String,
    /// One sentence for the reader.
    pub about: String,
    /// Title of its report, where it is of no task.
    pub title: Option<String>,
    /// Minutes that it takes.
    pub minutes: Option<Minutes>,
    /// What a quick run reduces, a few words.
    pub reduced: String,
    /// Names of built-in suites.
    pub suites: Vec<String>,
    /// Names of studies ([`STUDIES`](lowbit_eval::study::STUDIES)).
    #[serde(default)]
    pub benches: Vec<String>,
    /// Whether suites take the settings of their `[quick]`, and studies fewer samples.
    #[serde(skip)]
    pub quick: bool,
}

impl Group {
    /// What a quick run reduces, in words.
    pub(crate) fn scope(&self) -> Option<String> {
        self.quick.then(|| self.reduced.clone())
    }
}

/// The built-in groups, parsed.
///
/// # Errors
/// When one of them is wrong.
pub fn groups() -> Result<Vec<Group>, Error> {
    GROUPS.iter().map(|text| task::described(text, Path::new("built-in group"))).collect()
}

/// The built-in group of a name, if it is one.
///
/// # Errors
/// When one of them is wrong.
pub fn group(name: &str) -> Result<Option<Group>, Error> {
    Ok(groups()?.into_iter().find(|group| group.name == name))
}
