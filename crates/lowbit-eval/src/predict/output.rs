//! What is written for each row, as CSV or JSON lines.

use super::Options;
use super::answerer::Remarks;
use super::columns::TableColumns;
use super::generate::Written;
use crate::Error;
use lowbit_model::arch::OutputKind;
use lowbit_model::predict::{best, softmax};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value, json};
use std::collections::HashSet;

/// Layout of predictions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    /// Comma-separated with a header (RFC 4180).
    #[default]
    Csv,
    /// One JSON object a line.
    Jsonl,
}

/// Every layout by name.
pub static OUTPUTS: &[(&str, Output)] = &[("csv", Output::Csv), ("jsonl", Output::Jsonl)];

/// Column of the predicted class.
const PREDICTION: &str = "prediction";
/// Column of its probability; with a class behind it that of the class.
const PROBABILITY: &str = "probability";
/// Column of the vector of a text.
const EMBEDDING: &str = "embedding";
/// Column of what a language model wrote, and of why it ended.
const GENERATION: &str = "generation";
const FINISH: &str = "finish";
/// Column of what is particular about a row.
const REMARK: &str = "remark";

/// The lines of one batch.
pub(super) struct Writer<'a> {
    options: &'a Options,
    kind: OutputKind,
    /// Column of the answer.
    answer: &'static str,
    labels: &'a [String],
    kept: Vec<&'a str>,
    csv: csv::Writer<Vec<u8>>,
    json: String,
}

impl<'a> Writer<'a> {
    /// A writer for rows of a table; the first batch begins with the header.
    ///
    /// # Errors
    /// When a column that is copied has the name of one that is written.
    pub(super) fn new(
        options: &'a Options,
        table: &'a TableColumns,
        (kind, labels): (OutputKind, &'a [String]),
        begins: bool,
    ) -> Result<Self, Error> {
        let answer = match kind {
            OutputKind::Embedding { .. } => EMBEDDING,
            OutputKind::Tokens => GENERATION,
            OutputKind::Classes(_) | OutputKind::Value => PREDICTION,
        };
        let kept: Vec<&str> = table.kept().collect();
        let csv = csv::WriterBuilder::new().from_writer(Vec::new());
        let mut writer = Writer { options, kind, answer, labels, kept, csv, json: String::new() };
        if begins {
            writer.check()?;
            if options.output == Output::Csv {
                let header: Vec<String> =
                    writer.kept.iter().map(|name| name.to_string()).chain(writer.names()).collect();
                // Writing to memory cannot fail, here and below.
                let _ = writer.csv.write_record(&header);
            }
        }
        Ok(writer)
    }

    /// How many classes of a row are named.
    fn top(&self) -> usize {
        self.options.top.unwrap_or(1).clamp(1, self.labels.len())
    }

    /// Names of the columns that are written beside those of the input.
    fn names(&self) -> Vec<String> {
        if self.kind == OutputKind::Tokens {
            return vec![self.answer.into(), FINISH.into(), REMARK.into()];
        }
        if self.labels.is_empty() {
            return vec![self.answer.into(), REMARK.into()];
        }
        let mut names = vec![PREDICTION.to_string(), PROBABILITY.to_string()];
        match self.options.top {
            None => names.extend(self.labels.iter().map(|label| format!("{PROBABILITY}/{label}"))),
            Some(_) => {
                names.extend((2..=self.top()).flat_map(|n| [format!("{PREDICTION}/{n}"), format!("{PROBABILITY}/{n}")]))
            }
        }
        names.push(REMARK.into());
        names
    }

    fn check(&self) -> Result<(), Error> {
        let own: HashSet<String> = match self.options.output {
            Output::Csv => self.names().into_iter().collect(),
            Output::Jsonl => {
                [self.answer, FINISH, PROBABILITY, "probabilities", "top", REMARK].map(String::from).into()
            }
        };
        match self.kept.iter().find(|name| own.contains(**name)) {
            None => Ok(()),
            Some(name) => {
                let text =
                    format!("the input has a column `{name}`, as the output has: rename it, or leave out --keep");
                Err(Error::usage(text))
            }
        }
    }

    /// Whether answers are vectors.
    pub(super) fn is_vector(&self) -> bool {
        matches!(self.kind, OutputKind::Embedding { .. })
    }

    /// Adds a row by its values and logits; returns the class.
    pub(super) fn row(&mut self, values: &[Value], logits: &[f32], remarks: Remarks) -> usize {
        let probabilities: Vec<f32> = softmax(logits).into_iter().map(|p| p as f32).collect();
        let class = best(logits);
        let mut order: Vec<usize> = (0..logits.len()).collect();
        if self.options.top.is_some() {
            // As `best` has it: of equal ones the first.
            order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        }
        let remark = remarks.word("truncated");
        match self.options.output {
            Output::Csv => self.csv_row(values, class, (&order, &probabilities), remark),
            Output::Jsonl => self.json_row(values, class, (&order, &probabilities), remark),
        }
        class
    }

    /// Adds a row by its values and the value predicted; it is empty where all of its numbers are unknown.
    pub(super) fn value(&mut self, values: &[Value], predicted: f64, remarks: Remarks) {
        self.single(values, predicted.to_string(), json!(predicted), remarks.word("truncated"));
    }

    /// Adds a row by its values and the vector of its text; in CSV the vector is a JSON array.
    pub(super) fn vector(&mut self, values: &[Value], vector: &[f32], remarks: Remarks) {
        let vector: Value = vector.iter().copied().map(number).collect();
        self.single(values, vector.to_string(), vector, remarks.word("truncated"));
    }

    /// Adds a row by its values and what was written of it.
    pub(super) fn text(&mut self, values: &[Value], written: &Written, remarks: Remarks) {
        let remark = remarks.word("too long");
        match self.options.output {
            Output::Csv => {
                let mut fields = self.copied(values);
                fields.extend([written.text.clone(), written.finish.into(), remark.into()]);
                let _ = self.csv.write_record(&fields);
            }
            Output::Jsonl => {
                let mut object = self.object(values);
                object.insert(self.answer.into(), json!(written.text));
                object.insert(FINISH.into(), json!(written.finish));
                self.line(object, remark);
            }
        }
    }

    /// Adds a row with one answer, as CSV and JSON have it.
    fn single(&mut self, values: &[Value], text: String, answer: Value, remark: &str) {
        match self.options.output {
            Output::Csv => {
                let mut fields = self.copied(values);
                fields.extend([text, remark.into()]);
                let _ = self.csv.write_record(&fields);
            }
            Output::Jsonl => {
                let mut object = self.object(values);
                object.insert(self.answer.into(), answer);
                self.line(object, remark);
            }
        }
    }

    /// The columns of the input that are copied, as text.
    fn copied(&self, values: &[Value]) -> Vec<String> {
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        values.iter().take(self.kept.len()).map(text).collect()
    }

    /// The columns of the input that are copied.
    fn object(&self, values: &[Value]) -> Map<String, Value> {
        self.kept.iter().zip(values).map(|(name, value)| (name.to_string(), value.clone())).collect()
    }

    fn line(&mut self, mut object: Map<String, Value>, remark: &str) {
        if !remark.is_empty() {
            object.insert(REMARK.into(), json!(remark));
        }
        self.json.push_str(&Value::Object(object).to_string());
        self.json.push('\n');
    }

    fn csv_row(&mut self, values: &[Value], class: usize, (order, all): (&[usize], &[f32]), remark: &str) {
        let mut fields = self.copied(values);
        match self.options.top {
            None => {
                fields.extend([self.labels[class].clone(), all[class].to_string()]);
                fields.extend(all.iter().map(f32::to_string));
            }
            Some(_) => {
                let best = order.iter().take(self.top());
                fields.extend(best.flat_map(|&class| [self.labels[class].clone(), all[class].to_string()]));
            }
        }
        fields.push(remark.into());
        let _ = self.csv.write_record(&fields);
    }

    fn json_row(&mut self, values: &[Value], class: usize, (order, all): (&[usize], &[f32]), remark: &str) {
        let mut object = self.object(values);
        object.insert(PREDICTION.into(), json!(self.labels[class]));
        object.insert(PROBABILITY.into(), number(all[class]));
        match self.options.top {
            None => {
                let each = self.labels.iter().zip(all).map(|(label, value)| (label.clone(), number(*value)));
                object.insert("probabilities".into(), Value::Object(each.collect()));
            }
            Some(_) => {
                let best = order.iter().take(self.top());
                let best = best.map(|&class| json!({"label": self.labels[class], "probability": number(all[class])}));
                object.insert("top".into(), best.collect());
            }
        }
        self.line(object, remark);
    }

    /// The lines.
    pub(super) fn finish(self) -> String {
        match self.options.output {
            Output::Csv => String::from_utf8(self.csv.into_inner().unwrap_or_default()).unwrap_or_default(),
            Output::Jsonl => self.json,
        }
    }
}

impl Remarks {
    /// The word for it; `long` is that of a text that is longer than what the model sees.
    fn word(self, long: &'static str) -> &'static str {
        match (self.empty, self.truncated) {
            (true, _) => "empty",
            (_, true) => long,
            _ => "",
        }
    }
}

/// A number with the digits of its type.
fn number(value: f32) -> Value {
    value.to_string().parse::<Number>().map_or(Value::Null, Value::Number)
}
