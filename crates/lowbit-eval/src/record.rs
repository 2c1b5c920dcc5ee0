//! The record: the only input of a report, and the contract of `--json`.
//!
//! A number never travels alone: [`Measure`] is value, unit, n, spread and how it was obtained. What was not measured is
//! absent from [`Record::measures`], never zero.

use lowbit_base::memory::bytes;
use lowbit_base::text::duration;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the JSON layout of [`Results`].
pub const SCHEMA_VERSION: u32 = 1;
/// Characters of the column of names, at least.
const COLUMN: usize = 24;
/// Classes whose measures are printed one by one.
const CLASSES: usize = 8;

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// Read from an instrument, the file system or a count, in this run.
    Measured,
    /// Computed by a formula from other values.
    Estimated,
    /// Quoted from a publication.
    Published,
}

/// One value with its unit (SI unit or `fraction`), number of observations, and interval or range.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// The value, in `unit`.
    pub value: f64,
    /// `seconds`, `bytes`, `joules`, `watts`, `fraction`, `per_second`, `bits`, `nats`, `count`.
    pub unit: String,
    /// Number of observations behind the value.
    pub n: u64,
    /// Lower end: of the 95 % interval for accuracies, the minimum for times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lo: Option<f64>,
    /// Upper end, like `lo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hi: Option<f64>,
    /// Measured, estimated or published.
    pub how: How,
}

impl Measure {
    /// A measured value without a range.
    pub fn measured(value: f64, unit: &str, n: u64) -> Self {
        Measure { value, unit: unit.into(), n, lo: None, hi: None, how: How::Measured }
    }

    /// The value as a person reads it, with the interval of a measure of quality.
    fn in_words(&self) -> String {
        let digits = if self.value != 0.0 && self.value < 1e-3 { 4 } else { 2 };
        let value = match self.unit.as_str() {
            "fraction" => format!("{:.digits$} %", self.value * 100.0),
            "bytes" => bytes(self.value as u64),
            "seconds" => duration(self.value),
            "per_second" => format!("{:.1} /s", self.value),
            unit => format!("{} {unit}", short(self.value)),
        };
        match (self.lo, self.hi, self.unit.as_str()) {
            (Some(lo), Some(hi), "fraction") => {
                format!("{value} ({:.digits$} .. {:.digits$} %)", lo * 100.0, hi * 100.0)
            }
            (Some(lo), Some(hi), "bits" | "nats" | "count" | "ratio") => {
                format!("{value} ({} .. {})", short(lo), short(hi))
            }
            _ => value,
        }
    }

    /// The same value with a range or interval.
    pub fn between(mut self, lo: f64, hi: f64) -> Self {
        self.lo = Some(lo);
        self.hi = Some(hi);
        self
    }
}

/// Four decimals, or as many significant digits where those would be zeros.
fn short(value: f64) -> String {
    if value != 0.0 && value.abs() < 1e-3 { format!("{value:.3e}") } else { format!("{value:.4}") }
}

/// Bytes of one stored tensor: the rows of the memory ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TensorBytes {
    /// Name of the parameter.
    pub name: String,
    /// `embedding`, `body`, `head`, `norm`, `bias` or `statistics`.
    pub role: String,
    /// Name of the format it is stored in.
    pub format: String,
    /// Output features (rows).
    pub rows: u64,
    /// Input features (columns).
    pub cols: u64,
    /// Bytes per stored part (`codes`, `scales`, ...), as they lie in the file.
    pub parts: BTreeMap<String, u64>,
    /// Bytes among the parts that fill up rows and columns and hold no weight.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub padding: u64,
    /// Share of stored weights that are exactly zero after dequantization.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zero_fraction: Option<f64>,
    /// Number of distinct values over one scale group, where that is at most 256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub levels: Option<u64>,
}

impl TensorBytes {
    /// Sum of all parts, in bytes.
    pub fn bytes(&self) -> u64 {
        self.parts.values().sum()
    }

    /// Bytes that hold weights and their scales: all but the padding.
    pub fn used(&self) -> u64 {
        self.bytes().saturating_sub(self.padding)
    }
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Rows of one part of a test, which are scored apart too: those of a language.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRows {
    /// Its name.
    pub name: String,
    /// How many rows it has.
    pub rows: usize,
}

/// The length of every test row, and the ranges of length that are scored and timed apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenLengths {
    /// Longest text of each range but the last, in tokens, ascending.
    pub bounds: Vec<u32>,
    /// Tokens of every test row, in order, before any is cut; those beyond the last bound are counted as one more than it.
    pub tokens: Vec<u32>,
}

impl TokenLengths {
    /// The ranges that have rows, the shortest first: a name such as `129-512` or `2049+`, and the rows.
    pub fn ranges(&self) -> Vec<(String, Vec<usize>)> {
        let first = std::iter::once(0).chain(self.bounds.iter().copied());
        let last = self.bounds.iter().copied().map(Some).chain([None]);
        let range = |(below, last): (u32, Option<u32>)| {
            let inside = |tokens: u32| tokens > below && last.is_none_or(|last| tokens <= last);
            // Nothing is shorter than one token, but a row without text.
            let inside = |tokens: u32| inside(tokens.max(1));
            let rows: Vec<usize> = (0..self.tokens.len()).filter(|row| inside(self.tokens[*row])).collect();
            let name = last.map_or_else(|| format!("{}+", below + 1), |last| format!("{}-{last}", below + 1));
            (name, rows)
        };
        first.zip(last).map(range).filter(|(_, rows)| !rows.is_empty()).collect()
    }
}

/// One point of a training curve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Optimizer step.
    pub step: u64,
    /// Training loss, nats per example or token.
    pub loss: f64,
    /// Loss or accuracy on held-out rows where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out_accuracy: Option<f64>,
}

/// A variant made again from a training with another seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeedRun {
    /// Seed of the training.
    pub seed: u64,
    /// Measures of quality, on the same test rows.
    pub measures: BTreeMap<String, Measure>,
    /// SHA-256 of the model file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_sha256: Option<String>,
}

/// Measures that are kept of a variant made again.
const OF_SEEDS: [&str; 6] = ["accuracy", "f1_macro", "r2", "mse", "mae", "bits_per_byte"];

impl SeedRun {
    /// What is kept of a record.
    pub fn of(seed: u64, record: Record) -> Self {
        let kept = |name: &String| OF_SEEDS.contains(&name.as_str());
        let measures = record.measures.into_iter().filter(|(name, _)| kept(name)).collect();
        SeedRun { seed, measures, model_sha256: record.detail.model_sha256 }
    }
}

/// Where a record of a study stands in its table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The row.
    pub row: String,
    /// What is compared in it.
    pub side: String,
}

/// Where what was measured of a quoted figure stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counterpart {
    /// The task, with or without its version.
    pub task: String,
    /// The variant.
    pub model: String,
    /// The variant that it is held against, where the figure is of both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<String>,
    /// What the figure is of the measure.
    #[serde(default)]
    pub form: Form,
}

/// What a quoted figure is of a measure of one or two records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// The measure.
    #[default]
    Value,
    /// The share by which it is below that of the other record.
    Saved,
    /// That of the other record divided by it.
    Times,
    /// It minus that of the other record, a fraction.
    Points,
}

/// What a record holds beyond its measures: the raw material of tables, plots and checks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Detail {
    /// How the variant was made: `trained`, `quantized`, `random` weights, or `baseline` (no neural network).
    #[serde(default)]
    pub made: String,
    /// Its place in the table of a study, where it belongs to no task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// What is needed to have a measure that is absent, by its name; by no name for all that are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub needs: BTreeMap<String, String>,
    /// What a kilowatt-hour costs, as somebody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tariff: Option<f64>,
    /// What was measured here of a figure that is quoted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counterpart: Option<Counterpart>,
    /// Name of the variant whose weights were quantized.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// How its weights were rounded with a calibration text; absent where they were rounded to nearest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Name of the model whose answers the measures of faithfulness compare with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// This variant is known to fail (post-training ternary); the report says so.
    #[serde(default)]
    pub expected_to_fail: bool,
    /// Class names in label order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// `confusion[truth][answer]`, counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub confusion: Vec<Vec<u64>>,
    /// The answer to every test row, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<u16>,
    /// The true class of every test row, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub truths: Vec<u16>,
    /// The parts of the test rows, in order, where the task names them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PartRows>,
    /// How long the test rows are, where the task asks for measures by length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lengths: Option<TokenLengths>,
    /// The number predicted for every test row, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub predicted: Vec<f64>,
    /// The right number of every test row, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expected: Vec<f64>,
    /// Raw samples behind a measure, by the measure's name, in its unit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub samples: BTreeMap<String, Vec<f64>>,
    /// Memory ledger, one row per stored tensor.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tensors: Vec<TensorBytes>,
    /// Training curve.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curve: Vec<CurvePoint>,
    /// SHA-256 of the model file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_sha256: Option<String>,
    /// Seed of the training or of the generated data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// The same variant made again from trainings with other seeds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seeds: Vec<SeedRun>,
    /// How activations enter the matrix products of the body: `f32`, `int8`, or `f32, int8` where its layers differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activations: Option<String>,
    /// One line of explanation for a reader, where the maker of the record has something to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// What the variant's name stands for, for a reader who never saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// What a reader must know before trusting the measures of this record, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
}

/// One run: a model under a recipe on a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// `name@version` of the task.
    pub task: String,
    /// Name of the variant.
    pub model: String,
    /// Name of the recipe.
    pub recipe: String,
    /// Number of parameters (0 for a baseline that is no network).
    pub params: u64,
    /// Measures by name; names as in the design's contract.
    pub measures: BTreeMap<String, Measure>,
    /// Raw material.
    #[serde(default)]
    pub detail: Detail,
}

impl Record {
    /// Rows that were answered, as far as it keeps the answers; 0 where it keeps none.
    pub fn rows(&self) -> usize {
        let detail = &self.detail;
        let texts = detail.samples.get("exact_match").map_or(0, Vec::len);
        detail.truths.len().max(detail.expected.len()).max(texts)
    }

    /// A line per measure for a person; of many classes just how many there are.
    pub fn lines(&self) -> Vec<String> {
        let is_class = |name: &str| name.starts_with("f1/");
        let classes = self.measures.keys().filter(|name| is_class(name)).count();
        let shown = |name: &str| classes <= CLASSES || !is_class(name);
        let measures = self.measures.iter().filter(|(name, _)| shown(name));
        let width = measures.clone().map(|(name, _)| name.len()).fold(COLUMN, usize::max);
        let mut lines: Vec<String> =
            measures.map(|(name, measure)| format!("{name:width$} {}", measure.in_words())).collect();
        if classes > CLASSES {
            lines.push(format!("{:width$} {classes} classes, in --json", "f1/.."));
        }
        lines.extend(self.ends_of_parts().map(|ends| format!("{:width$} {ends}", "highest and lowest part")));
        lines
    }

    /// The parts of the test with the highest and the lowest accuracy, where there are parts.
    fn ends_of_parts(&self) -> Option<String> {
        let accuracy =
            |part: &PartRows| Some((part.name.clone(), self.measures.get(&format!("accuracy/{}", part.name))?.value));
        let parts: Vec<(String, f64)> = self.detail.parts.iter().filter_map(accuracy).collect();
        let (highest, most) = parts.iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
        let (lowest, least) = parts.iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
        Some(format!("{highest} {:.2} %, {lowest} {:.2} %", most * 100.0, least * 100.0))
    }
}

/// The machine's limits as measured in the same run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory read bandwidth, GB/s (10^9), all threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_gbps: Option<f64>,
    /// f32 fused multiply-add peak, GFLOP/s, all threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub f32_gflops: Option<f64>,
    /// Peak of dot products of bf16 pairs, GFLOP/s, all threads; absent where no instruction does them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bf16_gflops: Option<f64>,
    /// 8-bit integer dot peak, GOP/s, all threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub int8_gops: Option<f64>,
}

/// The machine a run was made on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// CPU model name.
    pub cpu: String,
    /// Cores visible to the process.
    pub cores: u64,
    /// Threads used.
    pub threads: u64,
    /// Instruction set chosen.
    pub isa: String,
    /// Memory, bytes.
    pub ram_bytes: u64,
    /// Ways of computing products that were preferred, where the machine or the user has a choice.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ways: String,
    /// Measured limits.
    #[serde(default)]
    pub limits: Limits,
}

/// The program that made a record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    /// Version of lowbit.
    pub version: String,
    /// Git commit, or `unknown`.
    pub commit: String,
}

/// The object that `--json` prints and `results.json` holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Program and version.
    pub tool: Tool,
    /// Command line.
    pub command: Vec<String>,
    /// Machine.
    pub host: Host,
    /// What the report is of, where that is no task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What is reduced in a quick run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Facts about the task that hold for all records.
    #[serde(default)]
    pub tasks: Vec<TaskFacts>,
    /// The runs.
    pub records: Vec<Record>,
    /// Several machines and what each measured, where records were put together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<MachineRecords>,
    /// The files of the comparison as they were when the records were made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileHash>,
}

/// What one machine measured, beside others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MachineRecords {
    /// Where its records came from: the last two parts of their path.
    pub name: String,
    /// The machine.
    pub host: Host,
    /// The program that made its records.
    pub tool: Tool,
    /// Its command line.
    pub command: Vec<String>,
    /// Its records, times alone.
    pub records: Vec<Record>,
}

/// A file beside the records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileHash {
    /// Path relative to the directory of the records, with `/` between its parts.
    pub path: String,
    /// Its size, bytes.
    pub bytes: u64,
    /// SHA-256 of its content, in hexadecimal.
    pub sha256: String,
}

/// What a report must know of a task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskFacts {
    /// `name@version`.
    pub task: String,
    /// One sentence for the reader.
    pub about: String,
    /// What each network is and which variants have it, where there are several; a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<String>,
    /// What its rows are where they are no rows: `bytes` of a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Rows trained on.
    pub train_rows: u64,
    /// Rows in the test split.
    pub test_rows: u64,
    /// SHA-256 of the training rows and of the test rows.
    pub train_sha256: String,
    /// See `train_sha256`.
    pub test_sha256: String,
    /// Test rows that also occur in the training split.
    pub overlap_rows: u64,
    /// What is known of the training rows.
    #[serde(default)]
    pub train: SplitFacts,
    /// What is known of the test rows.
    #[serde(default)]
    pub test: SplitFacts,
    /// Longest sequence that reaches a network, tokens; what is beyond is cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u64>,
    /// Accuracy of the Bayes-optimal classifier, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<Measure>,
    /// The record all paired differences are taken against.
    pub baseline: String,
    /// What a variant must keep to be chosen, where somebody said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraints: Option<Constraints>,
}

/// What a variant must keep to be chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constraints {
    /// Weights, bytes at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_bytes: Option<f64>,
    /// Median latency, seconds at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_p50: Option<f64>,
    /// Measured loss against the baseline, a fraction at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
}

/// What a report must know of the rows of one split.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SplitFacts {
    /// Rows without any text.
    #[serde(default)]
    pub empty: u64,
    /// Rows longer than [`TaskFacts::max_length`], where that was counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<u64>,
    /// Rows of each class, in label order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_length_hold_each_row_once() {
        let ranges = |tokens: &[u32]| TokenLengths { bounds: vec![2, 4], tokens: tokens.to_vec() }.ranges();
        let named = |name: &str, rows: &[usize]| (name.to_string(), rows.to_vec());
        let expected = [named("1-2", &[0, 2, 3]), named("3-4", &[1, 5]), named("5+", &[4])];
        assert_eq!(ranges(&[2, 3, 1, 0, 5, 4]), expected);
        assert_eq!(ranges(&[4, 4]), [named("3-4", &[0, 1])]);
    }
}
