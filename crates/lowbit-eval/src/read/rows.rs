//! Rows, their fingerprint, and the sink that readers fill.

use super::{Column, First, Input, Projection, Table, Target, Visitor, abridged};
use crate::error::Error;
use crate::record::PartRows;
use lowbit_base::hex;
use lowbit_model::Inputs;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// What is right, one for each row.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// A class, from 0.
    Classes(Vec<u16>),
    /// A number.
    Values(Vec<f64>),
    /// The token that follows each token of the input, in so many rows.
    NextToken(usize),
    /// A text.
    Texts(Vec<String>),
}

impl Default for Targets {
    fn default() -> Self {
        Targets::Classes(Vec::new())
    }
}

impl Targets {
    /// Number of rows.
    pub fn len(&self) -> usize {
        match self {
            Targets::Classes(classes) => classes.len(),
            Targets::Values(values) => values.len(),
            Targets::NextToken(rows) => *rows,
            Targets::Texts(texts) => texts.len(),
        }
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds targets; empty ones take the kind of those.
    fn append(&mut self, others: Targets) {
        match (self, others) {
            (Targets::Classes(classes), Targets::Classes(more)) => classes.extend(more),
            (Targets::Values(values), Targets::Values(more)) => values.extend(more),
            (Targets::NextToken(rows), Targets::NextToken(more)) => *rows += more,
            (Targets::Texts(texts), Targets::Texts(more)) => texts.extend(more),
            (own, others) if own.is_empty() => *own = others,
            _ => unreachable!("the parts of a task have targets of one kind"),
        }
    }

    fn truncate(&mut self, n: usize) {
        match self {
            Targets::Classes(classes) => classes.truncate(n),
            Targets::Values(values) => values.truncate(n),
            Targets::NextToken(rows) => *rows = n.min(*rows),
            Targets::Texts(texts) => texts.truncate(n),
        }
    }

    /// What stands for the target of a row in a fingerprint.
    fn bytes(&self, row: usize) -> Vec<u8> {
        match self {
            Targets::Classes(classes) => classes[row].to_le_bytes().into(),
            Targets::Values(values) => values[row].to_le_bytes().into(),
            Targets::NextToken(_) => Vec::new(),
            Targets::Texts(texts) => sized(texts[row].as_bytes()),
        }
    }

    fn select(&self, rows: &[usize]) -> Targets {
        match self {
            Targets::Classes(classes) => Targets::Classes(rows.iter().map(|row| classes[*row]).collect()),
            Targets::Values(values) => Targets::Values(rows.iter().map(|row| values[*row]).collect()),
            Targets::NextToken(_) => Targets::NextToken(rows.len()),
            Targets::Texts(texts) => Targets::Texts(rows.iter().map(|row| texts[*row].clone()).collect()),
        }
    }
}

/// Rows with what is right; as many inputs as targets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// What is asked about.
    pub inputs: Inputs,
    /// What is right.
    pub targets: Targets,
    /// Texts of which one is to be chosen, `[rows, choices]`; no row where all rows have the same.
    pub choices: Vec<Vec<String>>,
    /// Parts that are scored apart, in the order of the rows; none where the task names none.
    pub parts: Vec<PartRows>,
}

impl Rows {
    /// Texts with their classes.
    pub fn of_texts(texts: Vec<String>, labels: Vec<u16>) -> Self {
        Rows { inputs: Inputs::Texts(texts), targets: Targets::Classes(labels), ..Rows::default() }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.inputs.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// The texts; none where the rows are numbers.
    pub fn texts(&self) -> &[String] {
        self.inputs.texts()
    }

    /// The classes; none where the targets are no classes.
    pub fn labels(&self) -> &[u16] {
        if let Targets::Classes(classes) = &self.targets { classes } else { &[] }
    }

    /// The values; none where the targets are no values.
    pub fn values(&self) -> &[f64] {
        if let Targets::Values(values) = &self.targets { values } else { &[] }
    }

    /// SHA-256, in hex, over all rows in order: bytes of the input (u64, little-endian, how many; then UTF-8, or f32 each), those
    /// of each choice likewise, and the target (the class as u16, the value as f64, a text like the input, or nothing where the
    /// input holds it).
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        for row in 0..self.len() {
            hash.update(sized(&self.bytes(row)));
            self.choices.get(row).into_iter().flatten().for_each(|choice| hash.update(sized(choice.as_bytes())));
            hash.update(self.targets.bytes(row));
        }
        hex(hash.finalize())
    }

    /// The bytes of an input.
    fn bytes(&self, row: usize) -> Cow<'_, [u8]> {
        match &self.inputs {
            Inputs::Texts(texts) | Inputs::Pairs { texts, .. } => Cow::Borrowed(texts[row].as_bytes()),
            Inputs::Bytes(contents) => Cow::Borrowed(&contents[row]),
            features => Cow::Owned(features.features(row).iter().flat_map(|v| v.to_le_bytes()).collect()),
        }
    }

    /// What makes two inputs the same: a text with runs of white space taken as one space, or the hash of all numbers or bytes.
    fn key(&self, row: usize) -> Vec<u8> {
        match &self.inputs {
            Inputs::Texts(texts) | Inputs::Pairs { texts, .. } => squeeze(&texts[row]).into_bytes(),
            Inputs::Features { .. } | Inputs::Bytes(_) => Sha256::digest(self.bytes(row)).to_vec(),
        }
    }

    /// Rows of each class. `classes` exceeds every label.
    pub fn counts(&self, classes: usize) -> Vec<u64> {
        let mut counts = vec![0; classes];
        self.labels().iter().for_each(|&label| counts[usize::from(label)] += 1);
        counts
    }

    /// Drops the rows whose input also occurs in `other`, whatever their targets; returns how many. Texts are compared with
    /// runs of white space taken as one space.
    pub fn drop_inputs_of(&mut self, other: &Rows) -> u64 {
        let known: HashSet<Vec<u8>> = (0..other.len()).map(|row| other.key(row)).collect();
        let before = self.len();
        *self = self.kept(|row| !known.contains(&self.key(row)));
        (before - self.len()) as u64
    }

    /// Splits off about `fraction` of the rows: the two parts `(rest, held_out)`. A row's side depends on its input and `seed`
    /// alone, so equal inputs stay together and no order matters. Refuses a fraction outside 0..1.
    pub fn hold_out(&self, fraction: f64, seed: u64) -> Result<(Rows, Rows), Error> {
        if !(0.0..1.0).contains(&fraction) {
            return Err(Error::usage(format!("held-out fraction {fraction} must be at least 0 and below 1")));
        }
        let held = |row: usize| {
            let digest = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(self.key(row)).finalize();
            let bits = digest.iter().take(8).fold(0, |bits, &byte| bits << 8 | u64::from(byte));
            ((bits >> 11) as f64) < fraction * (1u64 << 53) as f64
        };
        Ok((self.kept(|row| !held(row)), self.kept(held)))
    }

    /// Adds the rows of another part.
    pub fn append(&mut self, name: &str, part: Rows) {
        self.parts.push(PartRows { name: name.into(), rows: part.len() });
        self.inputs.append(part.inputs);
        self.choices.extend(part.choices);
        self.targets.append(part.targets);
    }

    /// Keeps the first `n` rows; of rows in parts the first of each part, as many of every one.
    pub fn truncate(&mut self, n: usize) {
        if self.parts.len() > 1 && n < self.len() {
            let (each, mut rows, mut begin) = ((n / self.parts.len()).max(1), Vec::new(), 0);
            for part in &mut self.parts {
                let end = begin + part.rows;
                part.rows = each.min(part.rows);
                rows.extend(begin..begin + part.rows);
                begin = end;
            }
            let (inputs, targets) = (self.inputs.select(&rows), self.targets.select(&rows));
            (self.inputs, self.targets) = (inputs, targets);
            return;
        }
        self.inputs.truncate(n);
        self.targets.truncate(n);
        self.choices.truncate(n);
    }

    fn kept(&self, keeps: impl Fn(usize) -> bool) -> Rows {
        let rows: Vec<usize> = (0..self.len()).filter(|row| keeps(*row)).collect();
        let choices = rows.iter().filter_map(|row| self.choices.get(*row)).cloned().collect();
        let mut parts = self.parts.clone();
        let mut begin = 0;
        for part in &mut parts {
            let end = begin + part.rows;
            part.rows = rows.iter().filter(|row| (begin..end).contains(*row)).count();
            begin = end;
        }
        Rows { inputs: self.inputs.select(&rows), targets: self.targets.select(&rows), choices, parts }
    }
}

/// Number of rows of `rows` whose input also occurs in `other`, compared as in [`Rows::drop_inputs_of`].
pub fn overlap(rows: &Rows, other: &Rows) -> u64 {
    let known: HashSet<Vec<u8>> = (0..other.len()).map(|row| other.key(row)).collect();
    (0..rows.len()).filter(|row| known.contains(&rows.key(*row))).count() as u64
}

/// Bytes after how many they are.
fn sized(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes(), bytes].concat()
}

fn squeeze(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Collects the rows of one table.
pub(super) struct Sink<'a> {
    table: &'a Table,
    /// What the input is made of.
    columns: Vec<Column>,
    classes: HashMap<&'a str, u16>,
    rows: Rows,
    notes: Vec<String>,
}

/// What a column may hold.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Admitted {
    /// A text, an integer or a truth value.
    Word,
    /// Any number too.
    Number,
    /// That, or nothing.
    Optional,
}

/// A value as text.
pub(crate) fn plain(value: Value, column: &Column, admitted: Admitted) -> Result<String, String> {
    let found = match value {
        Value::String(text) => return Ok(text),
        Value::Bool(value) => return Ok(value.to_string()),
        Value::Number(number) if admitted != Admitted::Word || !number.is_f64() => return Ok(number.to_string()),
        Value::Null if admitted == Admitted::Optional => return Ok(String::new()),
        Value::Null => return Err(format!("column {column} is null: fill it or drop the row")),
        Value::Number(number) => number.to_string(),
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "an object".into(),
    };
    Err(format!("column {column} holds {found}, not a text, an integer or a truth value"))
}

fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

impl Visitor for Sink<'_> {
    fn begin(&mut self, _: &First) -> Result<Projection, Error> {
        let target = (self.table.target != Target::NextToken).then_some(&self.table.target_column);
        let columns = self.columns.iter().chain(target).cloned().collect();
        Ok(Projection { columns, header: self.table.header, optional: false })
    }

    /// Adds a row: the values of its input, and its target.
    fn row(&mut self, line: Option<u64>, mut values: Vec<Value>) -> Result<(), Error> {
        let row = self.rows.targets.len();
        let place = if line.is_none() { format!("row {row}: ") } else { String::new() };
        let fail = |message: String| Error::input(&self.table.path, format!("{place}{message}")).on_line(line);
        let input = self.table.admitted();
        let target = match self.table.target {
            Target::NextToken => Ok(String::new()),
            _ => plain(values.pop().unwrap_or_default(), &self.table.target_column, self.of_target()),
        };
        let fields = values.into_iter().zip(&self.columns).map(|(value, column)| plain(value, column, input));
        let fields: Vec<String> = fields.collect::<Result<_, _>>().map_err(fail)?;
        self.target(&target.map_err(fail)?).map_err(fail)?;
        self.input(fields).map_err(fail)
    }

    fn note(&mut self, text: String) {
        self.notes.push(text);
    }
}

impl<'a> Sink<'a> {
    pub(super) fn new(table: &'a Table) -> Result<Self, Error> {
        let mut classes = HashMap::new();
        let targets = match &table.target {
            Target::Value => Targets::Values(Vec::new()),
            Target::NextToken => Targets::NextToken(0),
            Target::Text => Targets::Texts(Vec::new()),
            Target::Class { labels } => {
                if !(2..=1 << 15).contains(&labels.len()) {
                    return Err(Error::usage(format!("{} label values: a table needs 2 to 32768", labels.len())));
                }
                for (class, name) in labels.iter().enumerate() {
                    if classes.insert(name.as_str(), class as u16).is_some() {
                        return Err(Error::usage(format!("label value {name:?} stands for two classes")));
                    }
                }
                Targets::Classes(Vec::new())
            }
        };
        let columns = table.input_columns();
        if columns.is_empty() && !matches!(table.input, Input::Image | Input::ImageFile(_) | Input::Bytes(_)) {
            return Err(Error::usage("no column of the input: name at least one"));
        }
        let inputs = match table.input {
            Input::Text | Input::Pair | Input::Prompt(_) => Inputs::default(),
            Input::Features | Input::Image | Input::ImageFile(_) => {
                Inputs::Features { width: table.columns.len(), values: Vec::new() }
            }
            Input::Bytes(_) => Inputs::Bytes(Vec::new()),
        };
        let rows = Rows { inputs, targets, ..Rows::default() };
        Ok(Sink { table, columns, classes, rows, notes: Vec::new() })
    }

    fn of_target(&self) -> Admitted {
        if matches!(self.table.target, Target::Value | Target::Text) { Admitted::Number } else { Admitted::Word }
    }

    fn target(&mut self, target: &str) -> Result<(), String> {
        let column = &self.table.target_column;
        match (&mut self.rows.targets, &self.table.target) {
            (Targets::Classes(classes), Target::Class { labels }) => match self.classes.get(target.trim()) {
                Some(class) => classes.push(*class),
                None => {
                    let known = abridged(labels.iter().map(String::as_str));
                    return Err(format!("label {:?} in column {column} is none of {known}", shown(target)));
                }
            },
            (Targets::Values(values), _) => match target.trim().parse::<f64>() {
                Ok(value) if value.is_finite() => values.push(value),
                _ => return Err(format!("value {:?} in column {column} is no number", shown(target))),
            },
            (Targets::NextToken(rows), _) => *rows += 1,
            (Targets::Texts(texts), _) => texts.push(target.into()),
            (Targets::Classes(_), _) => unreachable!("made for the target of the table"),
        }
        Ok(())
    }

    fn input(&mut self, fields: Vec<String>) -> Result<(), String> {
        if let (Input::Pair, [first, second]) = (&self.table.input, &fields[..]) {
            self.rows.inputs.push_pair([first, second], &self.table.separator);
            return Ok(());
        }
        match &mut self.rows.inputs {
            Inputs::Texts(texts) => match &self.table.input {
                Input::Prompt(prompt) => {
                    let text = fields[..self.table.columns.len()].join(" ");
                    let at = |column: &Column| self.columns.iter().position(|c| c == column).expect("it is read");
                    let value = |field: &Column| if self.table.is_text(field) { &text } else { &fields[at(field)][..] };
                    texts.push(prompt.template.render(value));
                    if !prompt.choices.is_empty() {
                        self.rows
                            .choices
                            .push(prompt.choices.iter().map(|column| fields[at(column)].clone()).collect());
                    }
                }
                _ => texts.push(fields.join(" ")),
            },
            Inputs::Bytes(_) | Inputs::Pairs { .. } => unreachable!("filled otherwise"),
            Inputs::Features { values, .. } => {
                for (field, column) in fields.iter().zip(&self.table.columns) {
                    let field = field.trim();
                    let number = || field.parse().ok().filter(|v: &f32| v.is_finite());
                    let value = if field.is_empty() { Some(f32::NAN) } else { number() };
                    values.push(value.ok_or_else(|| format!("{:?} in column {column} is no number", shown(field)))?);
                }
            }
        }
        Ok(())
    }

    /// Takes rows of pixels, `[rows, width]`, 0 to 255, with their classes.
    pub(super) fn images(&mut self, width: usize, pixels: &[u8], classes: Vec<u16>) {
        let values = pixels.iter().map(|pixel| f32::from(*pixel) / 255.0).collect();
        let (inputs, targets) = (Inputs::Features { width, values }, Targets::Classes(classes));
        self.rows = Rows { inputs, targets, ..Rows::default() };
    }

    /// Takes the content of a file as its only row.
    pub(super) fn content(&mut self, content: Vec<u8>) {
        let (inputs, targets) = (Inputs::Bytes(vec![content]), Targets::NextToken(1));
        self.rows = Rows { inputs, targets, ..Rows::default() };
    }

    pub(super) fn finish(self) -> Result<(Rows, Vec<String>), Error> {
        if self.rows.is_empty() {
            let message = "no rows: the file is empty or holds only a header";
            return Err(Error::input(&self.table.path, message));
        }
        Ok((self.rows, self.notes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(texts: &[&str]) -> Rows {
        Rows::of_texts(texts.iter().map(|t| t.to_string()).collect(), (0..texts.len() as u16).collect())
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
        assert_eq!(train.drop_inputs_of(&test), 3);
        assert_eq!(train, Rows::of_texts(vec!["a  b".into()], vec![0]));
        assert_eq!(overlap(&train, &test), 0);
    }

    #[test]
    fn hold_out_is_a_partition() {
        let texts: Vec<String> = (0..4000).map(|i| format!("text {}", i % 3000)).collect();
        let labels = texts.iter().map(|_| 0).collect();
        let all = Rows::of_texts(texts, labels);
        let (rest, held) = all.hold_out(0.25, 7).unwrap();
        assert_eq!(rest.len() + held.len(), all.len());
        assert_eq!(rest.targets.len(), rest.len());
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
