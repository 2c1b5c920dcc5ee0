//! Figures that others published, as records: quoted with their source and setting, beside what was measured here of the same quantity.

use crate::record::{Counterpart, Detail, Form, How, Measure, Place, Record};
use crate::report::measures;
use crate::{Error, task};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Before the title of a table, the task of its records.
pub(crate) const PREFIX: &str = "published/";
/// Before the name of a measure that is quoted.
pub(crate) const REPORTED: &str = "reported/";

/// Tables of quoted figures.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tables {
    table: Vec<Quoted>,
}

/// Figures of one publication, or of several in the same words.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Quoted {
    title: String,
    /// The publication; a figure may name another.
    source: String,
    /// What a reader must know, below the table.
    about: String,
    figure: Vec<Figure>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Figure {
    /// What it is of.
    what: String,
    /// Name of the measure.
    measure: String,
    /// Unit of the value, one of those of records.
    unit: String,
    /// The value, or its ends.
    value: Value,
    /// On what machine, data or setting.
    setting: String,
    source: Option<String>,
    /// What was measured here.
    here: Option<Counterpart>,
    /// What would have to be there to measure it.
    needs: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum Value {
    One(f64),
    Range([f64; 2]),
}

/// The records of a description of quoted figures.
///
/// # Errors
/// When it is wrong; names file, line and field, or the figure.
pub fn records(text: &str, path: &Path) -> Result<Vec<Record>, Error> {
    let tables: Tables = task::described(text, path)?;
    let of = |table: &Quoted| table.figure.iter().map(|figure| figure.record(table)).collect::<Result<Vec<_>, _>>();
    let all =
        tables.table.iter().map(of).collect::<Result<Vec<_>, _>>().map_err(|message| Error::input(path, message))?;
    Ok(all.into_iter().flatten().collect())
}

impl Figure {
    fn record(&self, table: &Quoted) -> Result<Record, String> {
        let fault = |text: &str| Err(format!("figure `{}` of `{}`: {text}", self.what, table.title));
        if !measures::UNITS.contains(&self.unit.as_str()) {
            return fault(&format!("`unit` is `{}`, not {}", self.unit, measures::UNITS.join(", ")));
        }
        let measure = |value| Measure { how: How::Published, ..Measure::measured(value, &self.unit, 1) };
        let measure = match self.value {
            Value::One(value) => measure(value),
            Value::Range([lo, hi]) if lo < hi => measure(f64::midpoint(lo, hi)).between(lo, hi),
            Value::Range(_) => return fault("the first end of `value` must be below the second"),
        };
        if self.here.as_ref().is_some_and(|here| (here.form == Form::Value) != here.against.is_none()) {
            return fault("`against` and a `form` of two records belong together");
        }
        Ok(Record {
            task: format!("{PREFIX}{}", table.title),
            model: self.what.clone(),
            recipe: String::new(),
            params: 0,
            measures: BTreeMap::from([(format!("{REPORTED}{}", self.measure), measure)]),
            detail: Detail {
                made: "published".into(),
                place: Some(Place { row: self.what.clone(), side: self.setting.clone() }),
                counterpart: self.here.clone(),
                needs: self.needs.iter().map(|needs| (String::new(), needs.clone())).collect(),
                note: Some(self.source.clone().unwrap_or_else(|| table.source.clone())),
                about: Some(table.about.clone()),
                ..Detail::default()
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        [[table]]
        title = "Reported"
        source = "A page"
        about = "Read, not run."
        [[table.figure]]
        what = "A network"
        measure = "latency_p50"
        unit = "seconds"
        value = [0.1, 0.3]
        setting = "a laptop"
        here = { task = "mnist", model = "ternary", against = "f32", form = "times" }
    "#;

    #[test]
    fn figures_become_records_that_name_their_source() {
        let record = records(GOOD, Path::new("x.toml")).unwrap().remove(0);
        let measure = &record.measures["reported/latency_p50"];
        assert_eq!((measure.lo, measure.hi, measure.how), (Some(0.1), Some(0.3), How::Published));
        assert_eq!(record.detail.note.as_deref(), Some("A page"));
        for (from, to, word) in [
            ("\"seconds\"", "\"furlongs\"", "furlongs"),
            ("[0.1, 0.3]", "[0.3, 0.1]", "first end"),
            (", against = \"f32\"", "", "belong together"),
            ("setting =", "settings =", "settings"),
        ] {
            let refused = records(&GOOD.replace(from, to), Path::new("x.toml")).unwrap_err().to_string();
            assert!(refused.contains("x.toml") && refused.contains(word), "{refused}");
        }
    }
}
