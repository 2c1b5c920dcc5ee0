//! A task is data: where the rows are, what their columns mean, what is asked and how it is scored.

use crate::error::{Error, Kind};
use crate::metrics::{self, Confusion};
use crate::quickstart;
use crate::read::{self, Column, Format, Input, Limits, Rows, Table, Target, Targets};
use crate::record::{Detail, Measure, SplitFacts, TaskFacts};
use lowbit_base::name::check_part;
use lowbit_base::{alternatives, file};
use lowbit_model::InputColumns;
use serde::Deserialize;
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Every built-in task, as TOML; the name is in the text.
pub static TASKS: &[&str] = &[
    include_str!("../tasks/ag_news.toml"),
    include_str!("../tasks/california_housing.toml"),
    include_str!("../tasks/mnist.toml"),
    include_str!("../tasks/quickstart.toml"),
    include_str!("../tasks/sst2.toml"),
];

/// Seed of the hash that chooses held-out rows.
const HOLD_OUT_SEED: u64 = 1;
/// Classes up to which a record holds the matrix of confusions; its answers tell the same.
const MATRIX: usize = 100;
/// Stands between the texts of a pair.
const SEPARATOR: &str = " [SEP] ";
/// Bytes of what does, at most.
const SEPARATOR_BYTES: usize = 64;
/// Sentences of generated data behind the estimate of the ceiling.
const CEILING_ROWS: usize = 100_000;

/// What a model is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// One of a fixed list of classes for each row.
    Classify,
    /// A number for each row.
    Regress,
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
    /// Drop training rows whose input is in the test split.
    #[serde(default, alias = "exclude_test_text_from_train")]
    pub exclude_test_from_train: bool,
    /// Without test files: the share of the training rows that is held out for the test, chosen by a hash of each input.
    pub hold_out: Option<f64>,
    /// Names of metrics, see [`metrics::of_classes`] and [`metrics::of_values`]; empty for all.
    #[serde(default)]
    pub metrics: Vec<String>,
    /// Rows come from this generator instead of files.
    pub generator: Option<Generator>,
    /// Where the training rows may be: the first layout with an existing file counts.
    #[serde(default)]
    pub train: Vec<Layout>,
    /// Where the test rows may be, likewise.
    #[serde(default)]
    pub test: Vec<Layout>,
    /// The directory of the file it was parsed from, where rows that are not among the data sets may lie.
    #[serde(skip)]
    pub home: Option<PathBuf>,
}

/// A source of generated rows.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generator {
    /// Which grammar.
    pub name: GeneratorName,
    /// Seed of the rows.
    pub seed: u64,
    /// Number of training rows.
    pub train_rows: usize,
    /// Number of test rows.
    pub test_rows: usize,
}

/// The generators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GeneratorName {
    /// The grammar of [`crate::quickstart`].
    Quickstart,
}

/// Files that share one layout, and the meaning of their columns (see [`Table`]).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Candidates, relative to the data directory; the first that exists is read.
    pub paths: Vec<PathBuf>,
    /// Files of labels beside files of images, likewise.
    #[serde(default)]
    pub label_paths: Vec<PathBuf>,
    /// See [`Table::format`].
    pub format: Option<Format>,
    /// See [`Table::header`].
    #[serde(default)]
    pub header: bool,
    /// See [`Table::delimiter`].
    pub delimiter: Option<char>,
    /// See [`Table::quoting`].
    pub quoting: Option<bool>,
    /// Columns that make the text, joined with one space.
    #[serde(default)]
    pub text: Vec<Column>,
    /// Two columns that make a pair of texts, instead of one text.
    #[serde(default)]
    pub pair: Vec<Column>,
    /// What stands between the texts of a pair; ` [SEP] ` when absent.
    pub separator: Option<String>,
    /// Columns that hold a number each, instead of a text.
    #[serde(default)]
    pub features: Vec<Column>,
    /// Column of the class.
    pub label: Option<Column>,
    /// What the file calls each class; `"0"`, `"1"`, ... in class order when absent.
    pub labels: Option<Vec<String>>,
    /// Column of the number that is asked for.
    pub value: Option<Column>,
}

/// One answer per row.
#[derive(Clone, Debug, PartialEq)]
pub enum Answers {
    /// Classes.
    Classes(Vec<u16>),
    /// Numbers.
    Values(Vec<f64>),
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

/// The directory of the data sets: `explicit` (`--data`), else `LOWBIT_DATA`, else `../shared/data`.
pub fn data_dir(explicit: Option<&Path>) -> Result<PathBuf, Error> {
    choose_dir(explicit, std::env::var_os("LOWBIT_DATA").as_deref(), Path::new("../shared/data"))
}

/// Whether somebody said where the data sets are.
fn is_named(explicit: Option<&Path>) -> bool {
    explicit.is_some() || std::env::var_os("LOWBIT_DATA").is_some_and(|value| !value.is_empty())
}

fn choose_dir(explicit: Option<&Path>, variable: Option<&OsStr>, fallback: &Path) -> Result<PathBuf, Error> {
    let variable = variable.filter(|value| !value.is_empty()).map(Path::new);
    for (origin, dir) in [("--data", explicit), ("LOWBIT_DATA", variable)] {
        match dir {
            Some(dir) if dir.is_dir() => return Ok(dir.into()),
            Some(dir) => {
                return Err(Error::usage(format!(
                    "{origin} is {}, which is not a directory: name the one that holds the data sets",
                    dir.display()
                )));
            }
            None => {}
        }
    }
    if fallback.is_dir() {
        return Ok(fallback.into());
    }
    Err(Error::usage("no data directory: pass --data DIR or set LOWBIT_DATA (the task `quickstart` needs neither)"))
}

impl Task {
    /// Parses and checks a description; `path` is where it came from, for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Task, Error> {
        let task: Task = toml::from_str(text).map_err(|cause| {
            let line = cause.span().map(|span| 1 + text[..span.start].matches('\n').count() as u64);
            Error::input(path, cause.message().replace('\n', " ")).on_line(line)
        })?;
        task.check().map_err(|message| Error::input(path, message))?;
        Ok(task)
    }

    /// `name@version`.
    pub fn id(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }

    /// Whether the rows are images.
    pub fn has_images(&self) -> bool {
        self.train.iter().any(|layout| !layout.label_paths.is_empty())
    }

    fn check(&self) -> Result<(), String> {
        check_part(&self.name).map_err(|e| format!("`name`: {e}"))?;
        self.check_question()?;
        if self.version == 0 {
            return Err("version 0: versions count from 1".into());
        }
        match &self.generator {
            Some(generator) => self.check_generator(generator),
            None => {
                self.check_layouts("train", &self.train)?;
                match self.hold_out {
                    None => self.check_layouts("test", &self.test),
                    Some(_) if !self.test.is_empty() => Err("a task has either [[test]] files or `hold_out`".into()),
                    Some(share) if share > 0.0 && share < 1.0 => Ok(()),
                    Some(share) => Err(format!("hold_out is {share}: choose a share between 0 and 1")),
                }
            }
        }
    }

    fn check_question(&self) -> Result<(), String> {
        match self.question {
            Question::Classify if !(2..=1 << 15).contains(&self.classes.len()) => {
                return Err(format!("{} classes: a task needs 2 to 32768", self.classes.len()));
            }
            Question::Regress if !self.classes.is_empty() => {
                return Err("`classes` are for the question `classify`".into());
            }
            _ => {}
        }
        let mut seen = HashSet::new();
        for class in &self.classes {
            if class.is_empty() || !seen.insert(class) {
                return Err(format!("class {class:?} is empty or listed twice"));
            }
        }
        metrics::check_names(&self.metrics, self.question).map_err(|error| error.message)
    }

    fn check_generator(&self, generator: &Generator) -> Result<(), String> {
        if !self.train.is_empty() || !self.test.is_empty() {
            return Err("a task has either a generator or train and test files, not both".into());
        }
        if self.classes != quickstart::CLASSES {
            return Err(format!("classes of the generator are {}", quickstart::CLASSES.join(", ")));
        }
        for (field, rows) in [("train_rows", generator.train_rows), ("test_rows", generator.test_rows)] {
            if !(1..=10_000_000).contains(&rows) {
                return Err(format!("generator.{field} is {rows}: choose 1 to 10000000"));
            }
        }
        Ok(())
    }

    fn check_layouts(&self, split: &str, layouts: &[Layout]) -> Result<(), String> {
        if layouts.is_empty() {
            return Err(format!("no [[{split}]] table and no [generator]: say where the rows are"));
        }
        for layout in layouts {
            let images = !layout.label_paths.is_empty();
            let inputs = [&layout.text, &layout.pair, &layout.features].map(|columns| !columns.is_empty());
            let inputs = inputs.into_iter().chain([images]).filter(|given| *given).count();
            if layout.paths.is_empty() || inputs == 0 {
                return Err(format!(
                    "[[{split}]] needs at least one of `paths` and one `text`, `pair` or `features` column"
                ));
            }
            if inputs > 1 {
                return Err(format!(
                    "[[{split}]] has several kinds of input: `text`, `pair`, `features` or `label_paths`"
                ));
            }
            if layout.pair.len() == 1 || layout.pair.len() > 2 {
                return Err(format!("[[{split}]] `pair` has {} columns: a pair has 2", layout.pair.len()));
            }
            if layout
                .separator
                .as_ref()
                .is_some_and(|separator| separator.len() > SEPARATOR_BYTES || layout.pair.is_empty())
            {
                return Err(format!(
                    "[[{split}]] `separator` stands between the texts of a `pair`, {SEPARATOR_BYTES} bytes at most"
                ));
            }
            match (self.question, &layout.label, &layout.value) {
                (Question::Classify, Some(_), None) => {}
                (Question::Classify, None, None) if images => {}
                (Question::Regress, None, Some(_)) if layout.labels.is_none() && !images => {}
                (Question::Classify, ..) => return Err(format!("[[{split}]] needs a `label` column and no `value`")),
                (Question::Regress, ..) => return Err(format!("[[{split}]] needs a `value` column and no `label`")),
            }
            if let Some(delimiter) = layout.delimiter.filter(|c| c.is_alphanumeric() || "\"\r\n".contains(*c)) {
                return Err(format!("[[{split}]] delimiter {delimiter:?} cannot separate fields: give e.g. \";\""));
            }
            if let Some(labels) = layout.labels.as_ref().filter(|labels| labels.len() != self.classes.len()) {
                return Err(format!("[[{split}]] has {} labels for {} classes", labels.len(), self.classes.len()));
            }
        }
        Ok(())
    }

    /// Reads or generates the rows. `data_dir` is as in [`data_dir`], and not needed by a generated task.
    pub fn load(&self, data_dir: Option<&Path>) -> Result<Splits, Error> {
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
                (train, self.read(data_dir, &self.test, &mut notes)?, None)
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
            task: self.id(),
            about: self.about.clone(),
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
        let (layout, _) = present(&self.directory(data_dir, &self.train).ok()?, &self.train)?;
        let columns = [&layout.text, &layout.pair, &layout.features].into_iter().find(|columns| !columns.is_empty())?;
        let separator = (!layout.pair.is_empty()).then(|| layout.separator.clone().unwrap_or_else(|| SEPARATOR.into()));
        let columns = InputColumns { columns: columns.clone(), header: layout.header, separator };
        Some(columns).filter(|columns| !columns.columns.is_empty())
    }

    /// Where the files are: in the directory of the data sets, or beside the description.
    fn directory(&self, data_dir: Option<&Path>, layouts: &[Layout]) -> Result<PathBuf, Error> {
        let beside = self.home.clone().filter(|home| present(home, layouts).is_some());
        match (self::data_dir(data_dir), beside) {
            (Ok(dir), Some(home)) if present(&dir, layouts).is_none() => Ok(home),
            (Err(_), Some(home)) if !is_named(data_dir) => Ok(home),
            (dir, _) => dir,
        }
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
        let (rows, said) = read::read_with_notes(&self.table(dir, layout, path), &Limits::default())?;
        notes.extend(said);
        Ok(rows)
    }

    fn table(&self, dir: &Path, layout: &Layout, path: &Path) -> Table {
        let mut labels = layout.label_paths.iter().map(|path| dir.join(path));
        let labels = labels.clone().find(|path| path.exists()).or_else(|| labels.next_back());
        let (input, columns) = match () {
            () if labels.is_some() => (Input::Image, Vec::new()),
            () if !layout.pair.is_empty() => (Input::Pair, layout.pair.clone()),
            () if layout.features.is_empty() => (Input::Text, layout.text.clone()),
            () => (Input::Features, layout.features.clone()),
        };
        let numbers = || (0..self.classes.len()).map(|class| class.to_string()).collect();
        let target = match self.question {
            Question::Classify => Target::Class { labels: layout.labels.clone().unwrap_or_else(numbers) },
            Question::Regress => Target::Value,
        };
        Table {
            path: dir.join(path),
            format: layout.format,
            header: layout.header,
            delimiter: layout.delimiter,
            quoting: layout.quoting,
            input,
            columns,
            separator: layout.separator.clone().unwrap_or_else(|| SEPARATOR.into()),
            target,
            target_column: layout.label.clone().or(layout.value.clone()).unwrap_or(Column::Index(0)),
            labels,
        }
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
    pub fn score(&self, test: &Rows, answers: Answers) -> Result<(BTreeMap<String, Measure>, Detail), Error> {
        match (answers, &test.targets) {
            (Answers::Classes(answers), Targets::Classes(truths)) => {
                let confusion = Confusion::new(self.classes.len(), truths, &answers)?;
                let measures = metrics::of_classes(&confusion, &self.classes, &self.metrics)?;
                let confusion = if confusion.classes() <= MATRIX { confusion.matrix() } else { Vec::new() };
                let (classes, truths) = (self.classes.clone(), truths.clone());
                Ok((measures, Detail { classes, confusion, answers, truths, ..Detail::default() }))
            }
            (Answers::Values(predicted), Targets::Values(expected)) => {
                let measures = metrics::of_values(expected, &predicted, &self.metrics)?;
                let expected = expected.clone();
                Ok((measures, Detail { predicted, expected, ..Detail::default() }))
            }
            (Answers::Classes(_), _) => Err(Error::usage(format!("{}: classes answered, values asked for", self.name))),
            (Answers::Values(_), _) => Err(Error::usage(format!("{}: values answered, classes asked for", self.name))),
        }
    }
}

/// Every layout with each of its files.
fn candidates(layouts: &[Layout]) -> impl Iterator<Item = (&Layout, &PathBuf)> {
    layouts.iter().flat_map(|layout| layout.paths.iter().map(move |path| (layout, path)))
}

/// The first layout with a file that exists in a directory.
fn present<'a>(dir: &Path, layouts: &'a [Layout]) -> Option<(&'a Layout, &'a PathBuf)> {
    candidates(layouts).find(|(_, path)| dir.join(path).exists())
}

impl Generator {
    /// Training rows (a few to spare for those that will be dropped), test rows, and the ceiling. Each has its own sequence.
    fn rows(&self) -> (Rows, Rows, Option<Measure>) {
        let stream = |number: u64| self.seed.wrapping_mul(3).wrapping_add(number).wrapping_mul(0xD134_2543_DE82_EF95);
        let train = quickstart::generate(stream(0), self.train_rows + self.train_rows / 100 + 10);
        let test = quickstart::generate(stream(1), self.test_rows);
        (train, test, Some(quickstart::ceiling(stream(2), CEILING_ROWS)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_directory_in_order_of_precedence() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let (first, second, third) = (make("a"), make("b"), make("c"));
        let absent = dir.path().join("absent");
        let os = |path: &PathBuf| path.clone().into_os_string();
        assert_eq!(choose_dir(Some(&first), Some(&os(&second)), &third).unwrap(), first);
        assert_eq!(choose_dir(None, Some(&os(&second)), &third).unwrap(), second);
        assert_eq!(choose_dir(None, Some(OsStr::new("")), &third).unwrap(), third);
        assert_eq!(choose_dir(None, None, &third).unwrap(), third);
        let message = |explicit, variable| choose_dir(explicit, variable, &absent).unwrap_err().to_string();
        assert!(message(Some(&*absent), None).starts_with("--data is "));
        assert!(message(None, Some(absent.as_os_str())).starts_with("LOWBIT_DATA is "));
        assert_eq!(
            message(None, None),
            "no data directory: pass --data DIR or set LOWBIT_DATA (the task `quickstart` needs neither)"
        );
    }
}
