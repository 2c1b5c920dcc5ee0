//! Rows, their fingerprint, and the sink that readers fill.

use super::{Limits, Table, abridged};
use crate::error::Error;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// Labelled texts; both vectors have one entry per row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// The texts.
    pub texts: Vec<String>,
    /// The class of each text, from 0.
    pub labels: Vec<u16>,
}

impl Rows {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// SHA-256, in hex, over all rows in order: length of the text (u64, little-endian), its bytes, and the label (u16).
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        for (text, label) in self.texts.iter().zip(&self.labels) {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
            hash.update(label.to_le_bytes());
        }
        lowbit_base::hex(hash.finalize())
    }

    /// Rows of each class. `classes` exceeds every label.
    pub fn counts(&self, classes: usize) -> Vec<u64> {
        let mut counts = vec![0; classes];
        self.labels.iter().for_each(|&label| counts[usize::from(label)] += 1);
        counts
    }

    /// Drops the rows whose text also occurs in `other`, whatever their labels; returns how many. Texts are compared with
    /// runs of white space taken as one space.
    pub fn drop_texts_of(&mut self, other: &Rows) -> u64 {
        let known: HashSet<String> = other.texts.iter().map(|text| squeeze(text)).collect();
        let before = self.len();
        self.keep(|text, _| !known.contains(&squeeze(text)));
        (before - self.len()) as u64
    }

    /// Splits off about `fraction` of the rows for validation: the two parts `(rest, held_out)`. A row's side depends on its
    /// text and `seed` alone, so equal texts stay together and no order matters. Refuses a fraction outside 0..1.
    pub fn hold_out(&self, fraction: f64, seed: u64) -> Result<(Rows, Rows), Error> {
        if !(0.0..1.0).contains(&fraction) {
            return Err(Error::usage(format!("held-out fraction {fraction} must be at least 0 and below 1")));
        }
        let held = |text: &str| {
            let digest = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(squeeze(text)).finalize();
            let bits = digest.iter().take(8).fold(0, |bits, &byte| bits << 8 | u64::from(byte));
            ((bits >> 11) as f64) < fraction * (1u64 << 53) as f64
        };
        let (mut rest, mut out) = (self.clone(), self.clone());
        rest.keep(|text, _| !held(text));
        out.keep(|text, _| held(text));
        Ok((rest, out))
    }

    /// Keeps the first `n` rows.
    pub fn truncate(&mut self, n: usize) {
        self.texts.truncate(n);
        self.labels.truncate(n);
    }

    fn keep(&mut self, wanted: impl Fn(&str, u16) -> bool) {
        let rows = std::mem::take(self);
        let kept = rows.texts.into_iter().zip(rows.labels).filter(|(text, label)| wanted(text, *label));
        (self.texts, self.labels) = kept.unzip();
    }
}

/// Number of rows of `rows` whose text also occurs in `other`, white space taken as in [`Rows::drop_texts_of`].
pub fn overlap(rows: &Rows, other: &Rows) -> u64 {
    let known: HashSet<String> = other.texts.iter().map(|text| squeeze(text)).collect();
    rows.texts.iter().filter(|text| known.contains(&squeeze(text))).count() as u64
}

fn squeeze(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Collects the rows of one table.
pub(super) struct Sink<'a> {
    path: &'a Path,
    column: String,
    classes: HashMap<&'a str, u16>,
    names: &'a [String],
    limits: &'a Limits,
    rows: Rows,
}

impl<'a> Sink<'a> {
    pub(super) fn new(table: &'a Table, limits: &'a Limits) -> Result<Self, Error> {
        let count = table.labels.len();
        if !(2..=1 << 15).contains(&count) {
            return Err(Error::usage(format!("{count} label values: a table needs 2 to 32768")));
        }
        if table.text.is_empty() {
            return Err(Error::usage("no text column: name at least one"));
        }
        let mut classes = HashMap::new();
        for (class, name) in table.labels.iter().enumerate() {
            if classes.insert(name.as_str(), class as u16).is_some() {
                return Err(Error::usage(format!("label value {name:?} stands for two classes")));
            }
        }
        let column = table.label.to_string();
        Ok(Sink { path: &table.path, column, classes, names: &table.labels, limits, rows: Rows::default() })
    }

    /// Adds a row. `line` is where the row begins (`None`: the format has no lines, and the row number is named instead).
    pub(super) fn push(&mut self, line: Option<u64>, text: String, label: &str) -> Result<(), Error> {
        let row = if line.is_none() { format!("row {}: ", self.rows.len()) } else { String::new() };
        let Some(&class) = self.classes.get(label.trim()) else {
            let shown: String = label.chars().take(40).collect();
            let known = abridged(self.names.iter().map(String::as_str));
            let message = format!("{row}label {shown:?} in column {} is none of {known}", self.column);
            return Err(Error::input(self.path, message).on_line(line));
        };
        if self.rows.len() as u64 >= self.limits.rows {
            let message = format!("{row}more than {} rows, the limit for one table", self.limits.rows);
            return Err(Error::input(self.path, message).on_line(line));
        }
        self.rows.texts.push(text);
        self.rows.labels.push(class);
        Ok(())
    }

    /// Rows so far.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn finish(self) -> Result<Rows, Error> {
        if self.rows.is_empty() {
            return Err(Error::input(self.path, "no rows: the file is empty or holds only a header"));
        }
        Ok(self.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(texts: &[&str]) -> Rows {
        Rows { texts: texts.iter().map(|t| t.to_string()).collect(), labels: (0..texts.len() as u16).collect() }
    }

    #[test]
    fn fingerprint_as_hashlib() {
        // h = hashlib.sha256()
        // for t, l in [("a", 0), ("", 1), ("grün", 2)]: b = t.encode(); h.update(struct.pack("<Q", len(b)) + b + struct.pack("<H", l))
        let expected = "b99e0f1fb6bc78c3ad7cb9137b85c633cec32af5cbfd7f9600ec3d81bed10e9f";
        assert_eq!(rows(&["a", "", "grün"]).sha256(), expected);
        assert_ne!(rows(&["a", "g", "rün"]).sha256(), rows(&["ag", "", "rün"]).sha256());
        assert_ne!(rows(&["a", "b"]).sha256(), rows(&["b", "a"]).sha256());
    }

    #[test]
    fn overlap_ignores_white_space_and_labels() {
        let mut train = rows(&["a  b", "c", "d e ", "c"]);
        let test = rows(&["x", "d  e", "c", "ab"]);
        assert_eq!(overlap(&train, &test), 3);
        assert_eq!(train.drop_texts_of(&test), 3);
        assert_eq!(train, Rows { texts: vec!["a  b".into()], labels: vec![0] });
        assert_eq!(overlap(&train, &test), 0);
    }

    #[test]
    fn hold_out_is_a_partition() {
        let texts: Vec<String> = (0..4000).map(|i| format!("text {}", i % 3000)).collect();
        let all = Rows { labels: texts.iter().map(|_| 0).collect(), texts };
        let (rest, held) = all.hold_out(0.25, 7).unwrap();
        assert_eq!(rest.len() + held.len(), all.len());
        assert_eq!(rest.labels.len(), rest.len());
        // 3,000 distinct texts: standard deviation 24.
        assert!(held.len().abs_diff(1000) < 150, "{}", held.len());
        assert_eq!(overlap(&rest, &held), 0);
        assert_eq!(all.hold_out(0.25, 7).unwrap().1, held);
        assert_ne!(all.hold_out(0.25, 8).unwrap().1, held);
        assert!(all.hold_out(0.0, 7).unwrap().1.is_empty());
        for wrong in [1.0, -0.1, f64::NAN] {
            assert!(all.hold_out(wrong, 7).unwrap_err().to_string().starts_with("held-out fraction"));
        }
    }
}
