//! What a comparison starts from where nobody wrote a suite: a task from the columns of a file, and a suite for any task.

use lowbit_base::{Error, file, name};
use lowbit_eval::infer::{self, Inferred};
use lowbit_eval::quickstart;
use lowbit_eval::read::Source;
use lowbit_model::{Checkpoint, Column};
use std::path::{Path, PathBuf};

mod images;

pub use images::of_images;

/// The file of the suite.
pub const SUITE: &str = "suite.toml";
/// The file of the task.
pub const TASK: &str = "task.toml";
/// The file of the example rows.
const ROWS: &str = "rows.csv";

/// Rows of the example, and their seed.
const EXAMPLE: usize = 2000;
const SEED: u64 = 1;

/// Share of the rows that is the test of a comparison of a model.
const TEST: f64 = 0.1;
/// Longest text of such a comparison, tokens, unless the model's is shorter.
const LENGTH: usize = 256;

/// Rows from which on a batch of texts is larger.
const MANY: usize = 20_000;

/// What the default network of a suite reads, and is trained for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Texts, as classes: a small encoder over a tokenizer trained on the rows.
    Texts,
    /// Rows of numbers or pixels, as classes: a multilayer perceptron.
    Classes,
    /// Rows of numbers, as values: the same without dropout.
    Values,
    /// Images, as classes: a small network of convolutions.
    Images,
    /// Texts, by a published network that is trained further.
    Pretrained,
    /// Rows of any kind, by a published network as it is.
    AsIs,
}

impl Network {
    /// The table of a suite: network and settings.
    fn template(self) -> &'static str {
        match self {
            Network::Texts => include_str!("../templates/network_texts.toml"),
            Network::Classes | Network::Values => include_str!("../templates/network_numbers.toml"),
            Network::Images => include_str!("../templates/network_images.toml"),
            Network::Pretrained => include_str!("../templates/network_pretrained.toml"),
            Network::AsIs => include_str!("../templates/network_as_is.toml"),
        }
    }

    /// Rows of a batch, and updates: few passes over many rows, many over few.
    fn updates(self, rows: usize) -> (usize, usize) {
        let batch = if matches!(self, Network::Texts | Network::Pretrained) && rows < MANY { 32 } else { 64 };
        let (passes, least, most) = match self {
            Network::Texts => (5, 600, 4000),
            Network::Classes | Network::Images => (15, 600, 4000),
            Network::Values => (30, 600, 8000),
            Network::Pretrained | Network::AsIs => (3, 60, 6000),
        };
        (batch, (rows * passes / batch).clamp(least, most))
    }
}

/// The text of a suite for a task (its name, or the path of its file) with so many training rows.
pub fn suite(name: &str, task: &str, network: Network, rows: usize) -> String {
    suite_from(name, task, network, rows, &Beside::default())
}

/// What a suite names beside its task.
#[derive(Default)]
struct Beside {
    /// The path of a published network, and its longest text.
    model: String,
    length: usize,
    /// Height, width and colours of images.
    image: [usize; 3],
}

/// A suite with what stands beside the task.
fn suite_from(name: &str, task: &str, network: Network, rows: usize, beside: &Beside) -> String {
    let (batch, steps) = network.updates(rows);
    let passes = (steps * batch) as f64 / rows.max(1) as f64;
    let settings = filled(
        network.template(),
        &[
            ("rows", &rows.to_string()),
            ("batch", &batch.to_string()),
            ("steps", &steps.to_string()),
            ("passes", &format!("{passes:.1}")),
            ("warmup", &(steps / 20).to_string()),
            ("dropout", if network == Network::Values { "0.0" } else { "0.1" }),
            ("model", &basic(&beside.model)),
            ("length", &beside.length.to_string()),
            ("image", &format!("{:?}", beside.image)),
        ],
    );
    let (baseline, ternary) = match network {
        Network::AsIs => ("the model as it is", ""),
        _ => ("trained in full precision", include_str!("../templates/ternary.toml")),
    };
    let fields = [
        ("name", name),
        ("task", &basic(task)),
        ("network", settings.trim_end()),
        ("baseline", baseline),
        ("ternary", ternary),
    ];
    filled(include_str!("../templates/suite.toml"), &fields)
}

/// A task and a suite for rows of one's own, or for an example.
pub struct Start {
    name: String,
    /// Where the rows are, as the task has it.
    path: String,
    header: bool,
    text: Vec<Column>,
    label: Column,
    /// Names of the classes; none where rows have values.
    pub classes: Vec<String>,
    /// How many rows there are.
    pub rows: usize,
    /// One sentence about the choices.
    pub about: String,
    /// Whether two columns of text are a pair, instead of one text.
    pair: bool,
    /// Share of the rows that is the test.
    held: f64,
    /// Rows that are written too.
    example: Option<String>,
}

impl Start {
    /// From a file of rows, for descriptions in a directory.
    ///
    /// # Errors
    /// When the file cannot be read, or does not tell which columns are text and class; lists them.
    pub fn of(data: &Path, directory: &Path, text: &[Column], label: Option<&Column>) -> Result<Self, Error> {
        let source = Source { path: Some(data.into()), ..Source::default() };
        let Inferred { text, label, classes, rows, header } = infer::infer(&source, text, label)?;
        let path = place(data, directory).map_err(|e| Error::io(data, &e))?;
        let columns = text.iter().map(Column::to_string).collect::<Vec<_>>().join(", ");
        let asked = match classes.is_empty() {
            true => format!("value {label} (numbers)"),
            false => format!("class {label} ({})", sample(&classes)),
        };
        let about = format!("{}: {rows} rows, text {columns}, {asked}", data.display());
        let name = named(data);
        let path = path.display().to_string();
        Ok(Start { name, path, header, text, label, classes, rows, about, pair: false, held: 0.2, example: None })
    }

    /// With rows of the generated task.
    ///
    /// # Errors
    /// None that is known.
    pub fn example() -> Result<Self, Error> {
        let rows = quickstart::generate(SEED, EXAMPLE);
        let mut content = String::from("text,label\n");
        for (text, label) in rows.texts().iter().zip(rows.labels()) {
            content.push_str(&format!(
                "\"{}\",{}\n",
                text.replace('"', "\"\""),
                quickstart::CLASSES[usize::from(*label)]
            ));
        }
        let column = |name: &str| Column::Name(name.into());
        Ok(Start {
            name: "example".into(),
            path: ROWS.into(),
            header: true,
            text: vec![column("text")],
            label: column("label"),
            classes: quickstart::CLASSES.map(String::from).to_vec(),
            rows: EXAMPLE,
            about: format!("{EXAMPLE} example rows: put your own in {ROWS}, and their columns and classes in {TASK}"),
            pair: false,
            held: 0.2,
            example: Some(content),
        })
    }

    /// A suite for rows of one's own and a published model, or default networks, with the task in it; what is said of the choices.
    ///
    /// # Errors
    /// As [`Start::of`], and when the model cannot be opened or reads no text.
    pub fn with_model(
        model: Option<&Path>,
        data: &Path,
        text: &[Column],
        label: Option<&Column>,
    ) -> Result<(String, String, Vec<String>), Error> {
        // Descriptions lie where the comparison does, which is not known yet.
        let mut start = Start::of(data, Path::new("."), text, label)?;
        start.path = std::path::absolute(data).map_err(|e| Error::io(data, &e))?.display().to_string();
        (start.held, start.pair) = (TEST, model.is_some() && start.text.len() == 2);
        let rows = (start.rows as f64 * (1.0 - TEST)) as usize;
        let mut said = vec![start.about.clone()];
        said.push(format!(
            "{:.0} % of the rows are the test, chosen by a hash of each text: equal texts stay together",
            100.0 * TEST
        ));
        let Some(model) = model else {
            said.push("no model is named: small networks are trained on the rows".into());
            return Ok((suite(&start.name, TASK, Network::Texts, rows), start.task(), said));
        };
        let checkpoint = Checkpoint::open(model)?;
        let model_config = checkpoint.model_config();
        let same =
            |a: &[String], b: &[String]| !a.is_empty() && a.len() == b.len() && a.iter().all(|name| b.contains(name));
        let network = match same(&model_config.labels, &start.classes) {
            true => {
                start.classes.clone_from(&model_config.labels);
                said.push(format!("{} knows these classes: it is compared as it is", model.display()));
                Network::AsIs
            }
            false => {
                let text = "gets a new head and is trained further; 11 % of the other rows choose the best weights";
                said.push(format!("{} {text}", model.display()));
                Network::Pretrained
            }
        };
        if start.pair {
            said.push("two columns of text are a pair".into());
        }
        let path = std::path::absolute(model).ok().filter(|path| path.exists());
        let shown = path.unwrap_or_else(|| model.into()).display().to_string();
        let beside = Beside { model: shown, length: model_config.max_length.min(LENGTH), ..Beside::default() };
        let name = start.name.clone();
        Ok((suite_from(&name, TASK, network, rows, &beside), start.task(), said))
    }

    /// Names and contents of the files.
    fn files(&self) -> Vec<(&'static str, String)> {
        // A fifth of the rows is held out.
        let suite = suite(&self.name, TASK, Network::Texts, self.rows - self.rows / 5);
        let rows = self.example.iter().map(|rows| (ROWS, rows.clone()));
        [(TASK, self.task()), (SUITE, suite)].into_iter().chain(rows).collect()
    }

    /// Writes all files into a directory, or leaves those that are there as they were; returns their names. What an earlier call
    /// wrote stays.
    ///
    /// # Errors
    /// When a file with other content is there, or writing fails.
    pub fn write(&self, directory: &Path) -> Result<Vec<&'static str>, Error> {
        let (files, mut missing) = (self.files(), Vec::new());
        for (name, content) in &files {
            let path = directory.join(name);
            let same = || file::read(&path, content.len() as u64).is_ok_and(|found| found == content.as_bytes());
            match path.symlink_metadata().is_ok() {
                false => missing.push((path, content)),
                true if same() => {}
                true => {
                    let message = format!("{}: exists already: remove it, or name another directory", path.display());
                    return Err(Error::usage(message));
                }
            }
        }
        file::make(directory)?;
        for (i, (path, content)) in missing.iter().enumerate() {
            if let Err(error) = file::replace(path, content.as_bytes()) {
                missing[..=i].iter().for_each(|(path, _)| drop(std::fs::remove_file(path)));
                return Err(error);
            }
        }
        Ok(files.into_iter().map(|(name, _)| name).collect())
    }

    fn task(&self) -> String {
        let column = |column: &Column| match column {
            Column::Index(index) => index.to_string(),
            Column::Name(name) => format!("\"{}\"", basic(name)),
        };
        let list = |all: Vec<String>| format!("[{}]", all.join(", "));
        let text = |text: &String| format!("\"{}\"", basic(text));
        let classes = list(self.classes.iter().map(text).collect());
        let about = match &self.example {
            Some(_) => "Kind of a ledger entry, from generated sentences.".to_string(),
            None if self.classes.is_empty() => format!("Value of a row of {}.", self.path),
            None => format!("Class of a row of {}.", self.path),
        };
        let label = column(&self.label);
        let (question, metrics, target) = match self.classes.is_empty() {
            true => ("question = \"regress\"".to_string(), "mse, mae, r2", format!("value = {label}")),
            false => {
                let named = "# what the file calls each class, in the order of `classes`";
                let target = format!("label = {label}\nlabels = {classes}  {named}");
                let question = format!("question = \"classify\"\nclasses = {classes}");
                (question, "accuracy, f1_macro, precision_macro, recall_macro, f1", target)
            }
        };
        let columns = list(self.text.iter().map(column).collect());
        let text_columns = match self.pair {
            true => format!("pair = {columns}  # two columns by name or position from 0"),
            false => format!("text = {columns}  # columns by name or position from 0, joined with a space"),
        };
        filled(
            include_str!("../templates/task.toml"),
            &[
                ("name", &self.name),
                ("about", &basic(&about)),
                ("question", &question),
                ("metrics", metrics),
                ("target", &target),
                ("path", &text(&self.path)),
                ("header", &self.header.to_string()),
                ("held", &self.held.to_string()),
                ("text", &text_columns),
            ],
        )
    }
}

/// A template with its fields, in one pass: what is filled in is not looked at again.
fn filled(template: &str, fields: &[(&str, &str)]) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        let field = rest[open + 1..].split_once('}').and_then(|(name, after)| {
            let found = fields.iter().find(|(field, _)| *field == name);
            found.map(|(_, value)| (*value, after))
        });
        out.push_str(&rest[..open]);
        match field {
            Some((value, after)) => {
                out.push_str(value);
                rest = after;
            }
            None => {
                out.push('{');
                rest = &rest[open + 1..];
            }
        }
    }
    out + rest
}

/// A text as a basic string of TOML has it between its quotes.
fn basic(text: &str) -> String {
    let escaped = |c: char| match c {
        '"' | '\\' => format!("\\{c}"),
        c if c.is_control() => format!("\\U{:08x}", u32::from(c)),
        c => c.to_string(),
    };
    text.chars().map(escaped).collect()
}

/// A word as a shell takes it: in single quotes where it needs them.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.into(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// A name from that of a file.
fn named(path: &Path) -> String {
    let stem = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = stem.split('.').find(|part| !part.is_empty()).unwrap_or_default();
    let plain: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    let plain: String = plain.chars().take(40).collect();
    if name::check_part(&plain).is_ok() { plain } else { "rows".into() }
}

/// A file as a description in a directory names it: relative when it lies there.
fn place(file: &Path, directory: &Path) -> std::io::Result<PathBuf> {
    let (file, directory) = (std::path::absolute(file)?, std::path::absolute(directory)?);
    Ok(file.strip_prefix(&directory).map_or(file.clone(), PathBuf::from))
}

/// The first names of a list.
fn sample(names: &[String]) -> String {
    const SHOWN: usize = 6;
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_comes_back_from_a_basic_string() {
        for text in ["plain", "a \"b\" 'c'", "C:\\rows\\new", "line\nend\t\u{7f}\u{1}", "{name} grün"] {
            let table: toml::Table = toml::from_str(&format!("x = \"{}\"", basic(text))).expect(text);
            assert_eq!(table["x"].as_str(), Some(text));
        }
        assert_eq!(filled("{a}{b} {c} {", &[("a", "{b}"), ("b", "2")]), "{b}2 {c} {");
    }

    #[test]
    fn a_suite_is_sized_by_its_rows() {
        for (network, rows, steps) in [
            (Network::Texts, 40, 600),
            (Network::Texts, 10_000, 1562),
            (Network::Texts, 67_000, 4000),
            (Network::Texts, 10_000_000, 4000),
            (Network::Classes, 100, 600),
            (Network::Classes, 12_000, 2812),
            (Network::Values, 16_512, 7740),
        ] {
            let table: toml::Table = toml::from_str(&suite("x", "a \"b\".toml", network, rows)).expect("a suite");
            assert_eq!(table["train"]["steps"].as_integer(), Some(steps), "{rows}");
            assert_eq!(table["task"].as_str(), Some("a \"b\".toml"));
            assert_eq!(table.contains_key("tokenizer"), network == Network::Texts);
        }
    }

    #[test]
    fn words_for_a_shell() {
        for (word, expected) in
            [("models/a-b_1.2", "models/a-b_1.2"), ("", "''"), ("a b", "'a b'"), ("it's", r"'it'\''s'")]
        {
            assert_eq!(quoted(word), expected);
        }
    }
}
