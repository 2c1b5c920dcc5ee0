//! What the studies behind built-in suites report, and what others published, as records beside those that are measured.

use lowbit_base::Error;
use lowbit_eval::published;
use lowbit_eval::record::Record;
use std::path::Path;

/// Quoted figures by the name of a suite or group.
static PUBLISHED: &[(&str, &str)] = &[
    ("bitlab", include_str!("../suites/published/bitlab.toml")),
    ("bitnet-laptop", include_str!("../suites/published/bitnet-laptop.toml")),
    ("enwik8", include_str!("../suites/published/enwik8.toml")),
    ("gpt2-agnews", include_str!("../suites/published/gpt2-agnews.toml")),
    ("sst2-xnli", include_str!("../suites/published/sst2-xnli.toml")),
];

/// The quoted figures that stand beside a suite or group of a name; none beside most.
///
/// # Errors
/// When a built-in description is wrong.
pub fn records(suite: &str) -> Result<Vec<Record>, Error> {
    let found = PUBLISHED.iter().find(|(name, _)| *name == suite);
    found.map_or(Ok(Vec::new()), |(name, text)| published::records(text, Path::new(&format!("published/{name}.toml"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::texts;
    use crate::suite::{self, STUDIES};
    use lowbit_eval::study;

    /// Every study has its figures, and what they are held against is there to be measured.
    #[test]
    fn figures_are_held_against_what_a_suite_measures() {
        assert_eq!(PUBLISHED.len(), STUDIES.len());
        let texts: Vec<(String, Vec<String>)> = texts::all()
            .unwrap()
            .into_iter()
            .map(|suite| (suite.task, suite.variant.into_iter().map(|variant| variant.name).collect()))
            .collect();
        let suites = suite::all()
            .unwrap()
            .into_iter()
            .map(|suite| (suite.task.clone(), suite.variant.iter().map(|variant| variant.name.clone()).collect()));
        let known: Vec<(String, Vec<String>)> = texts.into_iter().chain(suites).collect();
        for name in STUDIES {
            let records = records(name).unwrap();
            assert!(records.len() > 5, "{name}");
            for here in records.iter().filter_map(|record| record.detail.counterpart.as_ref()) {
                if let Some(study) = here.task.strip_prefix("bench/") {
                    study::find(study).unwrap();
                    continue;
                }
                for model in [Some(&here.model), here.against.as_ref()].into_iter().flatten() {
                    let is_there = known.iter().any(|(task, variants)| *task == here.task && variants.contains(model));
                    assert!(is_there, "{name}: {} {model}", here.task);
                }
            }
        }
        assert!(super::records("quickstart").unwrap().is_empty());
    }
}
