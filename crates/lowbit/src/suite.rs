//! A suite: a task, a network, and variants that are trained or made from one another.

use crate::start;
use lowbit_base::name::check_part;
use lowbit_base::{Error, file};
use lowbit_eval::baseline::BASELINES;
use lowbit_eval::bench::shapes::ShapeRecipes;
use lowbit_eval::read::{Rows, Source};
use lowbit_eval::task::{self, Question, Splits, Task};
use lowbit_kernels::Cpu;
use lowbit_model::arch::OutputKind;
use lowbit_model::calibrate::Method;
use lowbit_model::input::Scaling;
use lowbit_model::parameter_list::ParameterList;
use lowbit_model::{Checkpoint, Config, Encoder, Inputs, ModelConfig, Recipe, Tokenizer, recipe, synthetic};
use lowbit_train::TrainConfig;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

mod chosen;
mod fault;
mod group;
mod network;

pub use chosen::{is_of_rows, of_rows};
pub use group::{Group, group, groups};
pub use network::NetworkSpec;

/// The built-in suites.
pub static SUITES: &[&str] = &[
    include_str!("../suites/quickstart.toml"),
    include_str!("../suites/ag_news.toml"),
    include_str!("../suites/bitlab_boston.toml"),
    include_str!("../suites/bitlab_california.toml"),
    include_str!("../suites/bitlab_cifar10.toml"),
    include_str!("../suites/bitlab_fashion.toml"),
    include_str!("../suites/bitlab_lenet.toml"),
    include_str!("../suites/bitlab_mnist.toml"),
    include_str!("../suites/california_housing.toml"),
    include_str!("../suites/mnist.toml"),
    include_str!("../suites/mnist_lenet.toml"),
    include_str!("../suites/fashion_mnist.toml"),
    include_str!("../suites/imdb.toml"),
    include_str!("../suites/gpt2-agnews.toml"),
    include_str!("../suites/sst2-models.toml"),
    include_str!("../suites/xnli-models.toml"),
];

/// The built-in groups of suites.
static GROUPS: &[&str] = &[
    include_str!("../suites/bitlab.toml"),
    include_str!("../suites/bitnet-laptop.toml"),
    include_str!("../suites/sst2-xnli.toml"),
];

/// The suites and groups that redo a published study, in the order in which `compare all` runs them.
pub static STUDIES: &[&str] = &["bitnet-laptop", "gpt2-agnews", "sst2-xnli", "enwik8", "bitlab"];

/// Minutes that a comparison takes on two cores with AVX-512, about.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Minutes {
    /// Of the whole comparison.
    pub full: f64,
    /// Of a quick one.
    pub quick: Option<f64>,
}

/// Names the model that training begins from as a teacher.
pub const PRETRAINED: &str = "pretrained";

/// Variants of a suite at most: each is a directory with a model.
const MOST: usize = 1000;

/// How texts become tokens.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum TokenizerSpec {
    /// One token per byte.
    Bytes,
    /// Byte-level byte-pair encoding, trained on the training rows.
    Bpe {
        /// Entries of the vocabulary at most.
        vocab_size: usize,
        /// Whether texts are lowercased first.
        #[serde(default)]
        lowercase: bool,
    },
}

/// One variant.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// Name in the report and of its directory.
    pub name: String,
    /// The recipe its weights are stored under.
    pub recipe: String,
    /// The trained variant whose weights it takes; trained itself when absent.
    pub from: Option<String>,
    /// Its network, of those of the suite; that of the suite itself if absent.
    pub network: Option<String>,
    /// The network that it learns from, as `distill` of its settings says: a trained variant before it, or `pretrained`, the model that
    /// training begins from.
    pub teacher: Option<String>,
    /// The trained variant before it whose weights its training begins from, in place of those of the network.
    pub init: Option<String>,
    /// How its weights are rounded with training rows of the task at hand, one of [`METHODS`](lowbit_model::calibrate::METHODS).
    pub method: Option<String>,
    /// Tokens of the training rows that the method reads (rows, where a network reads numbers) [default: 32768].
    pub calibration_tokens: Option<usize>,
    /// Dimensions of the network that differ from the suite's.
    #[serde(default)]
    pub model: toml::Table,
    /// Training settings that differ from the suite's.
    #[serde(default)]
    pub train: toml::Table,
    /// Known to fail; the report says so.
    #[serde(default)]
    pub expected_to_fail: bool,
    /// One line for the reader.
    pub note: Option<String>,
}

/// A comparison as data.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// Short name.
    pub name: String,
    /// Name of a task or path of its TOML file.
    pub task: String,
    /// The variant all others are compared with.
    pub baseline: String,
    /// Longest text, tokens; 0 for that of the model that training begins from.
    #[serde(default)]
    pub max_length: usize,
    /// How texts become tokens; absent where rows are numbers.
    pub tokenizer: Option<TokenizerSpec>,
    /// Model that training begins from: a path, in the directory of the suite or of the data sets if it is there, or an `org/name`
    /// that is in the Hub's cache. Its own answers are compared where the suite has no `[train]`.
    pub pretrained: Option<String>,
    /// Share of the training rows by which the best weights of a run are chosen.
    pub validation: Option<f64>,
    /// Dimensions of the network; vocabulary or features come from the rows, classes from the task. What differs from the model
    /// that training begins from.
    #[serde(default)]
    pub model: toml::Table,
    /// Training settings.
    #[serde(default)]
    pub train: toml::Table,
    /// Minutes that it takes.
    pub minutes: Option<Minutes>,
    /// Training settings of a quick run, over those of the suite and of its variants.
    #[serde(default)]
    pub quick: toml::Table,
    /// Test rows of a quick run; all of them if absent.
    pub quick_rows: Option<usize>,
    /// Whether this is one.
    #[serde(default)]
    pub is_quick: bool,
    /// Networks beside this one, by name.
    #[serde(default)]
    pub network: BTreeMap<String, NetworkSpec>,
    /// Published shapes whose speed and memory are measured with random weights, where that is asked for.
    #[serde(default)]
    pub shape: Vec<ShapeRecipes>,
    /// The variants, in the order of the report.
    #[serde(alias = "contender")]
    pub variant: Vec<Variant>,
    /// The text it was parsed from.
    #[serde(skip)]
    pub text: String,
    /// The directory of its file, where a task that is not found otherwise may lie.
    #[serde(skip)]
    pub home: Option<PathBuf>,
    /// What was chosen where nobody wrote the suite, a line each, for a person.
    #[serde(skip)]
    pub notice: Option<String>,
    /// The description of the task where it is in no file yet.
    #[serde(skip)]
    pub task_text: Option<String>,
}

/// The built-in suites, parsed.
///
/// # Errors
/// When one of them is wrong.
pub fn all() -> Result<Vec<Suite>, Error> {
    SUITES.iter().map(|text| parse(text, Path::new("built-in suite"))).collect()
}

/// The built-in suite of a name.
///
/// # Errors
/// When there is none.
pub fn named(name: &str) -> Result<Suite, Error> {
    let found = all()?.into_iter().find(|suite| suite.name == name);
    found.ok_or_else(|| Error::usage(format!("unknown suite `{name}`")))
}

/// The built-in suite of a name, or the one a TOML file describes; for a task a suite of default networks, sized by its rows
/// in the directory of the data sets.
///
/// # Errors
/// An unknown name lists suites and tasks, with the nearest; a wrong file names line and field; of a file of rows, how to
/// describe them.
pub fn find(name_or_path: &str, data: Option<&Path>) -> Result<Suite, Error> {
    let suites = all()?;
    let mut names: Vec<String> =
        suites.iter().map(|s| s.name.clone()).chain(groups()?.into_iter().map(|g| g.name)).collect();
    if let Some(suite) = suites.into_iter().find(|s| s.name == name_or_path) {
        return Ok(suite);
    }
    let path = Path::new(name_or_path);
    if path.extension().is_some_and(|e| e == "toml") {
        let text = file::read_text(path, file::DESCRIPTION)?;
        let is_task = toml::from_str::<toml::Table>(&text).is_ok_and(|table| table.contains_key("question"));
        if !is_task {
            let suite = parse(&text, path)?;
            return Ok(Suite { home: path.parent().map(PathBuf::from), ..suite });
        }
    } else if !task::all().iter().any(|task| task.name == name_or_path) {
        if path.is_file() && (Source { path: Some(path.into()), ..Source::default() }).format().is_ok() {
            return Err(chosen::undescribed(path));
        }
        names.extend(
            task::all().into_iter().map(|task| task.name).filter(|task| !names.contains(task)).collect::<Vec<_>>(),
        );
        let known = lowbit_base::alternatives(name_or_path, &names);
        return Err(Error::usage(format!("unknown suite or task `{name_or_path}`{known}; or name a .toml file")));
    }
    chosen::default(&task::find(name_or_path)?, name_or_path, data)
}

fn parse(text: &str, path: &Path) -> Result<Suite, Error> {
    let mut suite: Suite = task::described(text, path)?;
    suite.text = text.into();
    suite.check().map_err(|message| Error::input(path, message))?;
    Ok(suite)
}

impl Suite {
    /// The same as a quick run, by the settings of its `[quick]`.
    ///
    /// # Errors
    /// When it has none.
    pub fn quickly(self) -> Result<Suite, Error> {
        if self.quick.is_empty() {
            return Err(Error::usage(format!("suite {} has no [quick] settings: leave --quick out", self.name)));
        }
        Ok(Suite { text: format!("is_quick = true\n{}", self.text), is_quick: true, ..self })
    }

    /// What a quick run reduces, in words.
    pub(crate) fn scope(&self) -> Option<String> {
        let settings: Vec<String> = self.quick.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let rows = self.quick_rows.map(|rows| format!("{rows} test rows"));
        let parts: Vec<String> = settings.into_iter().chain(rows).collect();
        self.is_quick.then(|| parts.join(", "))
    }

    fn check(&self) -> Result<(), String> {
        check_part(&self.name).map_err(|e| format!("`name`: {e}"))?;
        if let Some(share) = self.validation.filter(|share| !(*share > 0.0 && *share < 0.9)) {
            return Err(format!("`validation` is {share}; it must be above 0 and below 0.9"));
        }
        if self.variant.len() > MOST {
            return Err(format!("{} variants: a suite has {MOST} at most; split it", self.variant.len()));
        }
        let mut trained = HashMap::new();
        for variant in &self.variant {
            let name = &variant.name;
            check_part(name).map_err(|e| format!("variant {e}"))?;
            if trained.contains_key(name) {
                return Err(format!("variant `{name}` stands twice"));
            }
            if BASELINES.iter().any(|(baseline, ..)| baseline == name) {
                return Err(format!("variant `{name}` has the name of a baseline, which is compared too: rename it"));
            }
            recipe::find(&variant.recipe).map_err(|e| format!("variant `{name}`: {e}"))?;
            if let Some(from) = &variant.from
                && trained.get(from) != Some(&true)
            {
                return Err(format!("variant `{name}`: `from` names `{from}`, which is no trained variant before it"));
            }
            if variant.from.is_some() && !variant.model.is_empty() {
                return Err(format!(
                    "variant `{name}`: `model` is for variants that are trained, and this one has `from`"
                ));
            }
            if let Some(fault) = self.variant_fault(variant, &trained) {
                return Err(format!("variant `{name}`: {fault}"));
            }
            trained.insert(name, variant.from.is_none());
        }
        for shape in &self.shape {
            synthetic::find(&shape.name).map_err(|e| format!("shape: {e}"))?;
            let wrong = shape.recipes.iter().find_map(|name| recipe::find(name).err());
            wrong.map_or(Ok(()), |e| Err(format!("shape `{}`: {e}", shape.name)))?;
        }
        if let Some(fault) = self.network_fault() {
            return Err(fault);
        }
        match self.variant.iter().any(|c| c.name == self.baseline) {
            true => Ok(()),
            false => Err(format!("`baseline` is `{}`, which is no variant", self.baseline)),
        }
    }

    /// What is wrong with the suite's own network, if anything is.
    fn own_fault(&self) -> Option<String> {
        if self.pretrained.is_none() && (self.model.is_empty() || self.train.is_empty()) {
            return Some("needs [model] and [train], or `pretrained`".into());
        }
        let both = self.pretrained.is_some() && self.tokenizer.is_some();
        both.then(|| "has `pretrained`, whose tokenizer is taken: leave `tokenizer` out".into())
    }

    /// A variant by name.
    ///
    /// # Errors
    /// When there is none; lists them.
    pub fn variant(&self, name: &str) -> Result<&Variant, Error> {
        self.variant.iter().find(|c| c.name == name).ok_or_else(|| {
            let names: Vec<_> = self.variant.iter().map(|c| c.name.as_str()).collect();
            Error::usage(format!("unknown variant `{name}`; suite {} has {}", self.name, names.join(", ")))
        })
    }

    /// The task.
    ///
    /// # Errors
    /// When there is no such task.
    pub fn task(&self) -> Result<Task, Error> {
        if let Some(text) = &self.task_text {
            return Task::parse(text, Path::new(start::TASK));
        }
        let beside = self.home.as_ref().map(|home| home.join(&self.task));
        match beside.filter(|path| !Path::new(&self.task).exists() && path.is_file()) {
            Some(path) => task::find(&path.to_string_lossy()),
            None => task::find(&self.task),
        }
    }

    /// A variant that is trained, by name.
    ///
    /// # Errors
    /// When there is none, or it is made from another, or nothing is trained; says what to do instead.
    pub fn trained(&self, name: &str) -> Result<&Variant, Error> {
        let variant = self.variant(name)?;
        if let Variant { recipe, from: Some(parent), .. } = variant {
            return Err(Error::usage(format!(
                "variant `{name}` is not trained but made from `{parent}`: train that and run `lowbit quantize --recipe {recipe}`"
            )));
        }
        if !self.of(variant).is_trained() {
            let text = "compares a model as it is, and trains nothing: run `lowbit quantize` on the model itself";
            return Err(Error::usage(format!("suite {}: {text}", self.name)));
        }
        Ok(variant)
    }

    /// Whether networks are trained: all but published ones that are compared as they are.
    pub fn is_trained(&self) -> bool {
        !self.train.is_empty()
    }

    /// The model that training begins from, if there is one.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn begin(&self, data: Option<&Path>, cpu: &Cpu) -> Result<Option<Checkpoint>, Error> {
        let Some(name) = &self.pretrained else { return Ok(None) };
        Ok(Some(Checkpoint::open(&self.place(name, data))?.on(cpu)))
    }

    /// How rows become what the network reads: by the tokenizer of the model that training begins from, by one trained on the
    /// training rows where that is asked for, or by the scaling of the training rows.
    ///
    /// # Errors
    /// When the vocabulary is too small or too large, or there is a tokenizer for numbers or none for texts.
    pub fn encoder(&self, task: &Task, train: &Rows, begin: Option<&Checkpoint>) -> Result<Encoder, Error> {
        if let Some(checkpoint) = begin {
            if let Some(scaling) = &checkpoint.model_config().input_scaling {
                return Ok(Encoder::Features(scaling.clone()));
            }
            let max_length = match self.max_length {
                0 => checkpoint.model_config().max_length,
                asked => asked.min(checkpoint.model_config().max_length),
            };
            return Ok(Encoder::Text { tokenizer: checkpoint.tokenizer()?, max_length });
        }
        let tokenizer = match (&self.tokenizer, &train.inputs) {
            (None, Inputs::Features { .. }) if task.has_images() => {
                return Ok(Encoder::Features(Scaling::shared(&train.inputs)));
            }
            (None, Inputs::Features { .. }) => return Ok(Encoder::Features(Scaling::of(&train.inputs))),
            (_, Inputs::Bytes(_)) => return Err(self.fault("trains on rows, and those of its task are whole files")),
            (None, Inputs::Texts(_) | Inputs::Pairs { .. }) => {
                return Err(self.fault("has no `tokenizer`, and the rows of its task are texts"));
            }
            (Some(_), Inputs::Features { .. }) => {
                return Err(self.fault("has a `tokenizer`, and the rows of its task are numbers: leave it out"));
            }
            (Some(TokenizerSpec::Bytes), _) => Tokenizer::bytes(),
            (
                Some(TokenizerSpec::Bpe { vocab_size, lowercase }),
                Inputs::Texts(texts) | Inputs::Pairs { texts, .. },
            ) => {
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                Tokenizer::train_bpe(texts, *vocab_size, *lowercase)?
            }
        };
        Ok(Encoder::Text { tokenizer, max_length: self.max_length.max(1) })
    }

    /// Everything about the network but its weights.
    ///
    /// # Errors
    /// When a dimension is missing or wrong.
    pub fn model_config(
        &self,
        task: &Task,
        encoder: &Encoder,
        train: &Rows,
        variant: &Variant,
        begin: Option<&Checkpoint>,
    ) -> Result<ModelConfig, Error> {
        let classes = if task.question == Question::Regress { 1 } else { task.classes.len() };
        let config = match begin {
            Some(checkpoint) => self.further(checkpoint, variant, classes)?,
            None => self.fresh(encoder, variant, classes)?,
        };
        let parameters = ParameterList::new(&config)?;
        for stored in self.variant.iter().filter(|v| [Some(&v.name), v.from.as_ref()].contains(&Some(&variant.name))) {
            let refused = |e| self.fault(&format!("variant `{}`: {e}", stored.name));
            stored.recipe()?.check(parameters.params()).map_err(refused)?;
        }
        let qat = self.train_config(variant)?.qat;
        if let Some(qat) = &qat {
            qat.check_recipe(variant.recipe()?).map_err(|e| self.fault(&format!("variant `{}`: {e}", variant.name)))?;
        }
        let max_length = match encoder {
            Encoder::Text { max_length, .. } => *max_length,
            Encoder::Features(_) => 1,
        };
        Ok(ModelConfig {
            labels: task.classes.clone(),
            input_scaling: match encoder {
                Encoder::Features(scaling) => Some(scaling.clone()),
                Encoder::Text { .. } => None,
            },
            target_scaling: (task.question == Question::Regress).then(|| Scaling::of_values(train.values())),
            trained_for: qat.is_some().then(|| variant.recipe.clone()),
            rounding: qat.and_then(|qat| qat.rounding()),
            ..ModelConfig::new(config, max_length)
        })
    }

    /// The network of the suite: vocabulary or features from the rows.
    fn fresh(&self, encoder: &Encoder, variant: &Variant, classes: usize) -> Result<Config, Error> {
        let mut table = self.model.clone();
        table.extend(variant.model.clone());
        let number = |n: usize| toml::Value::Integer(n as i64);
        match encoder {
            Encoder::Text { tokenizer, .. } => table.insert("vocab_size".into(), number(tokenizer.vocab_size())),
            Encoder::Features(scaling) => table.insert("features".into(), number(scaling.width())),
        };
        match table.get_mut("head").and_then(|h| h.get_mut("classify")).and_then(|c| c.as_table_mut()) {
            Some(head) => head.insert("classes".into(), number(classes)),
            None => table.insert("classes".into(), number(classes)),
        };
        table.try_into().map_err(|e| self.wrong("model", &e))
    }

    /// The network of a model with a head for the task, and the changes of the suite.
    fn further(&self, checkpoint: &Checkpoint, variant: &Variant, classes: usize) -> Result<Config, Error> {
        let model_config = checkpoint.model_config();
        let own =
            model_config.config.classes().unwrap_or(usize::from(model_config.config.output() == OutputKind::Value));
        let config = match own == classes {
            true => Some(model_config.config.clone()),
            false => model_config.config.classifier(classes),
        };
        let config = config.ok_or_else(|| self.fault("begins from a network of numbers, whose head is its own"))?;
        let mut table = toml::Table::try_from(&config).map_err(|e| Error::data(format!("suite {}: {e}", self.name)))?;
        table.extend(self.model.clone());
        table.extend(variant.model.clone());
        table.try_into().map_err(|e| self.wrong("model", &e))
    }

    /// Training settings of a variant.
    ///
    /// # Errors
    /// When a field is unknown or of the wrong type.
    pub fn train_config(&self, variant: &Variant) -> Result<TrainConfig, Error> {
        let mut table = self.train.clone();
        table.extend(variant.train.clone());
        if self.is_quick {
            table.extend(self.quick.clone());
        }
        let mut config: TrainConfig = table.try_into().map_err(|e| self.wrong("train", &e))?;
        if variant.teacher.is_some() {
            config.distill.get_or_insert_default();
        }
        Ok(config)
    }

    fn fault(&self, message: &str) -> Error {
        Error::data(format!("suite {} {message}", self.name))
    }

    fn wrong(&self, section: &str, e: &toml::de::Error) -> Error {
        Error::data(format!("suite {}: [{section}] {}", self.name, e.message()))
    }
}

impl Variant {
    /// Its recipe.
    pub fn recipe(&self) -> Result<&'static Recipe, Error> {
        recipe::find(&self.recipe)
    }

    /// How its weights are rounded, where that is not to nearest.
    pub fn method(&self) -> Result<Option<&'static Method>, Error> {
        self.method.as_deref().map(Method::find).transpose()
    }
}

/// The task of a suite and its rows; what was dropped from them is in the notes.
///
/// # Errors
/// When files are missing or wrong.
pub fn load(suite: &Suite, data: Option<&Path>) -> Result<(Task, Splits), Error> {
    let task = suite.task()?;
    let mut splits = task.load(data)?;
    if let Some(rows) = suite.quick_rows.filter(|_| suite.is_quick) {
        splits.test.truncate(rows);
    }
    splits.facts.baseline = suite.baseline.clone();
    Ok((task, splits))
}

#[cfg(test)]
mod tests;
