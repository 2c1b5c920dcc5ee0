//! A task is data: where the rows are, what their columns mean, what is asked and how it is scored.

mod check;
mod directory;
mod generator;
mod layout;

pub use crate::question::Question;
pub use directory::data_dir;
pub use generator::{Generator, GeneratorName};
pub use layout::Layout;

use crate::choose::{self, Choose};
use crate::error::{Error, Kind};
use crate::generate::{self, Generate};
use crate::language::Likelihood;
use crate::metrics::{self, Confusion};
use crate::read::{self, Limits, Rows, Targets, Template};
use crate::record::{Detail, Measure, SplitFacts, TaskFacts};
use layout::{candidates, present};
use lowbit_base::{alternatives, file};
use lowbit_model::InputColumns;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Every built-in task, as TOML; the name is in the text.
pub static TASKS: &[&str] = &[
    include_str!("../tasks/ag_news.toml"),
    include_str!("../tasks/ag_news_zero_shot.toml"),
    include_str!("../tasks/boston_housing.toml"),
    include_str!("../tasks/california_housing.toml"),
    include_str!("../tasks/cifar10.toml"),
    include_str!("../tasks/cifar10_lossless.toml"),
    include_str!("../tasks/enwik8.toml"),
    include_str!("../tasks/enwik9.toml"),
    include_str!("../tasks/fashion_mnist.toml"),
    include_str!("../tasks/imdb.toml"),
    include_str!("../tasks/mnist.toml"),
    include_str!("../tasks/quickstart.toml"),
    include_str!("../tasks/sst2.toml"),
    include_str!("../tasks/sst2_generate.toml"),
    include_str!("../tasks/sst2_zero_shot.toml"),
    include_str!("../tasks/text8.toml"),
    include_str!("../tasks/tiny_shakespeare.toml"),
    include_str!("../tasks/wikitext103.toml"),
    include_str!("../tasks/wikitext2.toml"),
    include_str!("../tasks/xnli.toml"),
];

/// Seed of the hash that chooses held-out rows.
const HOLD_OUT_SEED: u64 = 1;
/// Classes up to which a record holds the matrix of confusions; its answers tell the same.
const MATRIX: usize = 100;
/// Stands between the texts of a pair.
const SEPARATOR: &str = " [SEP] ";

/// The parts of a data set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Split {
    /// What networks are trained on.
    Train,
    /// What settings are chosen by.
    Valid,
    /// What is scored.
    #[default]
    Test,
}

/// Every split, by its name.
static SPLITS: &[(&str, Split)] = &[("train", Split::Train), ("valid", Split::Valid), ("test", Split::Test)];

impl FromStr for Split {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let known = SPLITS.iter().find(|(known, _)| *known == name);
        known.map(|(_, split)| *split).ok_or_else(|| {
            Error::usage(format!("unknown split `{name}`{}", alternatives(name, SPLITS.iter().map(|(name, _)| *name))))
        })
    }
}

/// A task with its data description.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Short name, unique among the built-in tasks.
    pub name: String,
    /// Raised whenever rows, labels or metrics change meaning.
    pub version: u32,
    /// One sentence for the reader of a report.
    pub about: String,
    /// What is asked.
    pub question: Question,
    /// Class names in label order; none where a number is asked for.
    #[serde(default)]
    pub classes: Vec<String>,
    /// Parts of the test that are scored apart too: each stands for `{part}` in the paths of the test. The first is of the kind
    /// that is trained on.
    #[serde(default)]
    pub parts: Vec<String>,
    /// Longest texts, in tokens of the network's own tokenizer, of the ranges of length whose rows are scored and timed apart,
    /// ascending; texts beyond the last are a range of their own.
    #[serde(default)]
    pub lengths: Vec<u32>,
    /// Drop training rows whose input is in the test split.
    #[serde(default, alias = "exclude_test_text_from_train")]
    pub exclude_test_from_train: bool,
    /// Without test files: the share of the training rows that is held out for the test, chosen by a hash of each input.
    pub hold_out: Option<f64>,
    /// Names of metrics, of those of its question; empty for all.
    #[serde(default)]
    pub metrics: Vec<String>,
    /// Rows come from this generator instead of files.
    pub generator: Option<Generator>,
    /// Where the training rows may be: the first layout with an existing file counts.
    #[serde(default)]
    pub train: Vec<Layout>,
    /// Where the validation rows may be, likewise.
    #[serde(default)]
    pub valid: Vec<Layout>,
    /// Where the test rows may be, likewise.
    #[serde(default)]
    pub test: Vec<Layout>,
    /// Settings of the question `likelihood`.
    pub likelihood: Option<Likelihood>,
    /// Settings of the question `choose`.
    pub choose: Option<Choose>,
    /// Settings of the question `generate`.
    pub generate: Option<Generate>,
    /// The directory of the file it was parsed from, where rows that are not among the data sets may lie.
    #[serde(skip)]
    pub home: Option<PathBuf>,
}

/// One answer per row.
#[derive(Clone, Debug, PartialEq)]
pub enum Answers {
    /// Classes.
    Classes(Vec<u16>),
    /// Numbers.
    Values(Vec<f64>),
    /// Log-likelihoods, in nats, `[rows, choices]`.
    Choices(Vec<Vec<f64>>),
    /// Texts as they were written.
    Texts(Vec<String>),
}

impl Answers {
    /// What they are, and how many.
    fn describe(&self) -> (&'static str, usize) {
        match self {
            Answers::Classes(classes) => ("classes", classes.len()),
            Answers::Values(values) => ("values", values.len()),
            Answers::Choices(rows) => ("log-likelihoods", rows.len()),
            Answers::Texts(texts) => ("texts", texts.len()),
        }
    }
}

/// The rows of a task.
#[derive(Clone, Debug)]
pub struct Splits {
    /// Training rows.
    pub train: Rows,
    /// Test rows.
    pub test: Rows,
    /// Training rows dropped because their text is in the test split.
    pub excluded: u64,
    /// What was assumed of the files, a sentence each.
    pub notes: Vec<String>,
    /// The columns of the input in the training files; none where the rows come from no table.
    pub columns: Option<InputColumns>,
    /// Facts for the report; `baseline` and what depends on a tokenizer are for the caller to fill.
    pub facts: TaskFacts,
}

/// The built-in tasks, parsed, in the order of [`TASKS`].
pub fn all() -> Vec<Task> {
    TASKS.iter().map(|text| Task::parse(text, Path::new("built-in task")).expect("a test parses every task")).collect()
}

/// A built-in task by name, or the task described by a TOML file. An unknown name is refused with the list of names.
pub fn find(name_or_path: &str) -> Result<Task, Error> {
    let tasks = all();
    if let Some(task) = tasks.iter().find(|task| task.name == name_or_path) {
        return Ok(task.clone());
    }
    let path = Path::new(name_or_path);
    if path.extension() == Some(OsStr::new("toml")) {
        let text = file::read_text(path, file::DESCRIPTION)?;
        let home = path.parent().map(PathBuf::from);
        return Ok(Task { home, ..Task::parse(&text, path)? });
    }
    let known = alternatives(name_or_path, tasks.iter().map(|task| task.name.as_str()));
    Err(Error::usage(format!("unknown task `{name_or_path}`{known}; or name a .toml file")))
}

/// What a TOML file describes: a task, a suite, a language model.
///
/// # Errors
/// Names file, line and field.
pub fn described<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, Error> {
    toml::from_str(text).map_err(|cause| {
        let line = cause.span().map(|span| 1 + text[..span.start].matches('\n').count() as u64);
        Error::input(path, cause.message().replace('\n', " ")).on_line(line)
    })
}

impl Task {
    /// Parses and checks a description; `path` is where it came from, for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Task, Error> {
        let task: Task = described(text, path)?;
        task.check().map_err(|message| Error::input(path, message))?;
        Ok(task)
    }

    /// `name@version`.
    pub fn id(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }

    /// Whether the rows are images.
    pub fn has_images(&self) -> bool {
        self.train.iter().any(Layout::has_images)
    }

    /// What makes the text that a language model continues; none where it reads the rows as they are.
    fn prompt(&self) -> Option<&Template> {
        let of_generate = || self.generate.as_ref().map(|settings| &settings.prompt);
        self.choose.as_ref().map(|settings| &settings.prompt).or_else(of_generate)
    }

    /// Where the rows of a split may be.
    fn layouts(&self, split: Split) -> &[Layout] {
        match split {
            Split::Train => &self.train,
            Split::Valid => &self.valid,
            Split::Test => &self.test,
        }
    }

    /// The rows of a split to score a model on, and what was assumed of their files, a sentence each. `data_dir` is as in
    /// [`Task::load`].
    ///
    /// # Errors
    /// As [`Task::load`], and when a network that is trained for the task is asked about other rows than those of the test.
    pub fn rows(&self, split: Split, data_dir: Option<&Path>) -> Result<(Rows, Vec<String>), Error> {
        let name = |split: Split| SPLITS.iter().find(|(_, known)| *known == split).map_or("", |(name, _)| name);
        if self.question.spec().is_trained {
            if split != Split::Test {
                let message = format!("task {}: `{}` rows are no test of a trained network", self.name, name(split));
                return Err(Error::usage(format!("{message}: score the test split")));
            }
            return self.load(data_dir).map(|splits| (splits.test, splits.notes));
        }
        let layouts = self.layouts(split);
        if layouts.is_empty() {
            let described = SPLITS.iter().filter(|(_, split)| !self.layouts(*split).is_empty());
            let described: Vec<&str> = described.map(|(name, _)| *name).collect();
            let message = format!("task {}: no [[{}]] files are described", self.name, name(split));
            return Err(Error::usage(format!("{message}, only {}", described.join(", "))));
        }
        let mut notes = Vec::new();
        Ok((self.read(data_dir, layouts, &mut notes)?, notes))
    }

    /// Refuses a task that no network is trained for.
    ///
    /// # Errors
    /// Of kind usage; names the command that scores a model on it.
    pub fn check_trained(&self) -> Result<(), Error> {
        let (spec, name) = (self.question.spec(), &self.name);
        if spec.is_trained {
            return Ok(());
        }
        let remedy = format!("score a language model with `lowbit eval MODEL --task {name}`");
        Err(Error::usage(format!("task {name} asks for {}, which no network is trained for here: {remedy}", spec.asks)))
    }

    /// Reads or generates the rows. `data_dir` is as in [`data_dir`], and not needed by a generated task.
    ///
    /// # Errors
    /// When files are missing or wrong, a split is empty, or no network is trained for the task.
    pub fn load(&self, data_dir: Option<&Path>) -> Result<Splits, Error> {
        self.check_trained()?;
        let mut notes = Vec::new();
        let (mut train, test, ceiling) = match (&self.generator, self.hold_out) {
            (Some(generator), _) => generator.rows(),
            (None, Some(share)) => {
                let all = self.read(data_dir, &self.train, &mut notes)?;
                let (train, test) = all.hold_out(share, HOLD_OUT_SEED)?;
                (train, test, None)
            }
            (None, None) => {
                let train = self.read(data_dir, &self.train, &mut notes)?;
                (train, self.read_parts(data_dir, &mut notes)?, None)
            }
        };
        let excluded = if self.exclude_test_from_train { train.drop_inputs_of(&test) } else { 0 };
        if let Some(generator) = &self.generator {
            train.truncate(generator.train_rows);
        }
        if train.is_empty() {
            let message = format!("task {}: no training row is left that is not in the test split", self.name);
            return Err(Error::usage(message));
        }
        if test.is_empty() {
            return Err(Error::usage(format!("task {}: no test row is held out; raise `hold_out`", self.name)));
        }
        if self.question == Question::Classify {
            self.check_classes(&train)?;
        }
        let facts = TaskFacts {
            constraints: None,
            unit: None,
            task: self.id(),
            about: self.about.clone(),
            networks: Vec::new(),
            train_rows: train.len() as u64,
            test_rows: test.len() as u64,
            train_sha256: train.sha256(),
            test_sha256: test.sha256(),
            overlap_rows: read::overlap(&test, &train),
            train: self.split_facts(&train),
            test: self.split_facts(&test),
            max_length: None,
            ceiling,
            baseline: String::new(),
        };
        Ok(Splits { train, test, excluded, notes, columns: self.columns(data_dir), facts })
    }

    fn split_facts(&self, rows: &Rows) -> SplitFacts {
        let empty = rows.texts().iter().filter(|text| text.trim().is_empty()).count() as u64;
        SplitFacts { empty, truncated: None, classes: rows.counts(self.classes.len()) }
    }

    /// The columns of the input in the training files that are there; none where the rows come from no table.
    fn columns(&self, data_dir: Option<&Path>) -> Option<InputColumns> {
        present(&self.directory(data_dir, &self.train).ok()?, &self.train)?.0.input_columns()
    }

    /// Where the files are: in the directory of the data sets, or beside the description; whole paths need neither.
    fn directory(&self, data_dir: Option<&Path>, layouts: &[Layout]) -> Result<PathBuf, Error> {
        if candidates(layouts).all(|(_, path)| path.is_absolute()) {
            return Ok(PathBuf::from("."));
        }
        let beside = self.home.clone().filter(|home| present(home, layouts).is_some());
        match (directory::data_dir(data_dir), beside) {
            (Ok(dir), Some(home)) if present(&dir, layouts).is_none() => Ok(home),
            (Err(_), Some(home)) if !directory::is_named(data_dir) => Ok(home),
            (dir, _) => dir,
        }
    }

    /// The rows of the test, part after part.
    fn read_parts(&self, data_dir: Option<&Path>, notes: &mut Vec<String>) -> Result<Rows, Error> {
        if self.parts.is_empty() {
            return self.read(data_dir, &self.test, notes);
        }
        let mut all = Rows::default();
        for part in &self.parts {
            let layouts: Vec<Layout> = self.test.iter().map(|layout| layout.of_part(part)).collect();
            all.append(part, self.read(data_dir, &layouts, notes)?);
        }
        Ok(all)
    }

    /// What of its rows is not there, in words; nothing where all is, or no file is needed.
    pub fn missing(&self, data_dir: Option<&Path>) -> Option<String> {
        if self.generator.is_some() {
            return None;
        }
        let parts = self.parts.iter().map(|part| self.test.iter().map(|layout| layout.of_part(part)).collect());
        let test = if self.parts.is_empty() { vec![self.test.clone()] } else { parts.collect() };
        let needed: Vec<Vec<Layout>> = std::iter::once(self.train.clone()).chain(test).collect();
        needed.iter().filter(|layouts| !layouts.is_empty()).find_map(|layouts| {
            let dir = self.directory(data_dir, layouts);
            let is_there = dir.is_ok_and(|dir| present(&dir, layouts).is_some());
            let first = candidates(layouts).next().map_or(String::new(), |(_, path)| path.display().to_string());
            (!is_there).then(|| format!("{first} in the directory of the data sets (--data DIR)"))
        })
    }

    fn read(&self, data_dir: Option<&Path>, layouts: &[Layout], notes: &mut Vec<String>) -> Result<Rows, Error> {
        let dir = &self.directory(data_dir, layouts)?;
        let Some((layout, path)) = present(dir, layouts) else {
            let names: Vec<_> = candidates(layouts).map(|(_, path)| path.display().to_string()).collect();
            let message = format!(
                "the task {} needs one of {} in this directory: add it, or pass another --data DIR",
                self.name,
                names.join(", ")
            );
            return Err(Error::new(Kind::Io, message).in_file(dir));
        };
        let table = layout.table(dir, path, self);
        let (rows, assumed) = read::read_with_notes(&table, &Limits::default())?;
        notes.extend(layout.note.iter().cloned().chain(assumed));
        Ok(rows)
    }

    fn check_classes(&self, train: &Rows) -> Result<(), Error> {
        let counts = train.counts(self.classes.len());
        let present: Vec<_> = self.classes.iter().zip(counts).filter(|(_, count)| *count > 0).collect();
        match present.as_slice() {
            [(only, count)] => Err(Error::data(format!(
                "task {}: all {count} training rows are of class {only}: at least two classes are needed",
                self.name
            ))),
            _ => Ok(()),
        }
    }

    /// The measures of one answer per test row, and what a record keeps of the answers.
    ///
    /// # Errors
    /// When the answers are not of the question, or not one for each row.
    pub fn score(&self, test: &Rows, answers: Answers) -> Result<(BTreeMap<String, Measure>, Detail), Error> {
        let (noun, n) = answers.describe();
        match (answers, &test.targets) {
            (Answers::Classes(answers), Targets::Classes(truths)) if self.question == Question::Classify => {
                let confusion = Confusion::new(self.classes.len(), truths, &answers)?;
                let mut measures = metrics::of_classes(&confusion, &self.classes, &self.metrics)?;
                if metrics::asked(&self.metrics, "accuracy") {
                    measures.extend(metrics::of_parts(&test.parts, truths, &answers));
                }
                let parts = test.parts.clone();
                Ok((measures, Detail { parts, ..detail(&self.classes, answers, truths)? }))
            }
            (Answers::Values(predicted), Targets::Values(expected)) => {
                let measures = metrics::of_values(expected, &predicted, &self.metrics)?;
                let expected = expected.clone();
                Ok((measures, Detail { predicted, expected, ..Detail::default() }))
            }
            (Answers::Choices(log_likelihoods), Targets::Classes(truths)) if n == truths.len() => {
                let answers = choose::chosen(self, test, &log_likelihoods);
                let mut measures = choose::measures(truths, &answers);
                measures.retain(|name, _| metrics::asked(&self.metrics, name));
                let [answers, _] = answers;
                // Choices that each row has for itself are named by their position.
                let positions =
                    || (0..log_likelihoods.iter().map(Vec::len).max().unwrap_or(0)).map(|at| at.to_string());
                let classes = if self.classes.is_empty() { positions().collect() } else { self.classes.clone() };
                Ok((measures, detail(&classes, answers, truths)?))
            }
            (Answers::Texts(texts), targets) if self.question == Question::Generate && n == targets.len() => {
                let matches = generate::matches(self, targets, &texts);
                let measures = BTreeMap::from([("exact_match".into(), generate::exact_match(&matches))]);
                let samples = matches.iter().map(|matches| f64::from(u8::from(*matches))).collect();
                let samples = BTreeMap::from([("exact_match".into(), samples)]);
                Ok((measures, Detail { samples, ..Detail::default() }))
            }
            _ => Err(Error::usage(format!(
                "{}: {n} {noun} answered to {} rows, {} asked for",
                self.name,
                test.len(),
                self.question.spec().asks
            ))),
        }
    }
}

/// What a record keeps of classes that were answered.
fn detail(classes: &[String], answers: Vec<u16>, truths: &[u16]) -> Result<Detail, Error> {
    let confusion = Confusion::new(classes.len(), truths, &answers)?;
    let confusion = if classes.len() <= MATRIX { confusion.matrix() } else { Vec::new() };
    Ok(Detail { classes: classes.to_vec(), confusion, answers, truths: truths.to_vec(), ..Detail::default() })
}
