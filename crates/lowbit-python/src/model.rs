//! Models of every kind and layout.

use crate::answer::Answer;
use crate::array::{Examples, array, doubles_out, examples, floats_out, targets};
use crate::error::exception;
use crate::work::{self, json};
use lowbit::eval::question::{self, Subject};
use lowbit::eval::task;
use lowbit::kernels::Cpu;
use lowbit::model::arch::OutputKind;
use lowbit::model::recipe::RECIPES;
use lowbit::{Ask, Error, Stop};
use pyo3::prelude::*;
use std::path::PathBuf;

/// A model: opened at once, its network loaded when it is first asked something.
#[pyclass(frozen, module = "lowbit")]
pub struct Model {
    model: lowbit::Model,
    settings: Settings,
    stop: Stop,
}

/// What a model was opened with, so that it can be opened again elsewhere.
#[derive(Clone)]
struct Settings {
    path: PathBuf,
    recipe: Option<String>,
    context: Option<usize>,
    threads: Option<usize>,
}

/// What a classifier says of examples.
#[pyclass(frozen, get_all, module = "lowbit")]
pub struct Classification {
    /// The most probable class of each example, by name.
    labels: Vec<String>,
    /// Its number, `[examples]`.
    classes: Py<PyAny>,
    /// The probabilities of all classes, `[examples, classes]`.
    probabilities: Py<PyAny>,
    /// Names of the classes, in the order of the probabilities.
    names: Vec<String>,
}

#[pymethods]
impl Classification {
    fn __len__(&self) -> usize {
        self.labels.len()
    }

    fn __repr__(&self) -> String {
        format!("Classification({} examples, {} classes)", self.labels.len(), self.names.len())
    }
}

/// Names of the recipes, which can be put together: `ternary+head=int8`.
#[pyfunction]
pub fn recipes() -> Vec<&'static str> {
    RECIPES.iter().map(|recipe| recipe.name).collect()
}

impl Settings {
    fn open(self) -> Result<Model, Error> {
        let stop = Stop::default();
        let model = lowbit::Model::open(&self.path)?;
        let model = match &self.recipe {
            Some(recipe) => model.recipe(recipe)?,
            None => model,
        };
        let model = match self.threads {
            Some(threads) => model.on(Cpu::new(None, Some(threads))?),
            None => model,
        };
        let model = model.until(stop.clone());
        let model = match self.context {
            Some(context) => model.context(context),
            None => model,
        };
        Ok(Model { model, settings: self, stop })
    }

    fn model(self, py: Python<'_>) -> PyResult<Model> {
        py.detach(|| self.open()).map_err(|error| exception(py, &error))
    }
}

/// How a question is to be answered.
struct Wish {
    system: Option<String>,
    max_tokens: Option<usize>,
    temperature: Option<f32>,
    seed: u64,
    stop: Vec<String>,
}

impl Wish {
    fn of(self, mut ask: Ask<'_>) -> Ask<'_> {
        if let Some(system) = self.system {
            ask = ask.system(system);
        }
        if let Some(tokens) = self.max_tokens {
            ask = ask.max_tokens(tokens);
        }
        if let Some(temperature) = self.temperature {
            ask = ask.temperature(temperature);
        }
        self.stop.into_iter().fold(ask.seed(self.seed), Ask::stop_text)
    }
}

impl Model {
    fn work<T: Send>(&self, py: Python<'_>, work: impl FnOnce() -> Result<T, Error> + Send) -> PyResult<T> {
        work::run(py, &self.stop, work)
    }

    fn ask(&self, py: Python<'_>, wish: Wish, ask: Ask<'_>) -> PyResult<Answer> {
        let ask = wish.of(ask);
        Ok(Answer::new(self.work(py, || ask.stream())?, self.stop.clone()))
    }
}

#[pymethods]
impl Model {
    /// Opens a directory of this project or of the Hub, a GGUF or safetensors file, an `org/name` in the Hub's cache, or `SHIPPED`.
    #[staticmethod]
    #[pyo3(signature = (path, *, recipe=None, context=None, threads=None))]
    fn open(
        py: Python<'_>,
        path: PathBuf,
        recipe: Option<String>,
        context: Option<usize>,
        threads: Option<usize>,
    ) -> PyResult<Model> {
        Settings { path, recipe, context, threads }.model(py)
    }

    /// The same model under another recipe, made from its masters when it is loaded.
    fn recipe(&self, py: Python<'_>, spelling: String) -> PyResult<Model> {
        Settings { recipe: Some(spelling), ..self.settings.clone() }.model(py)
    }

    /// Path as it was given.
    #[getter]
    fn path(&self) -> String {
        self.settings.path.display().to_string()
    }

    /// What the model answers with: `text`, `classes`, `value` or `vectors`.
    #[getter]
    fn kind(&self) -> &'static str {
        match self.model.checkpoint().model_config().config.output() {
            OutputKind::Tokens => "text",
            OutputKind::Classes(_) => "classes",
            OutputKind::Value => "value",
            OutputKind::Embedding { .. } => "vectors",
        }
    }

    /// Name of the recipe of its weights.
    #[getter]
    fn recipe_name(&self) -> &'static str {
        self.model.checkpoint().recipe().name
    }

    /// Number of weights.
    #[getter]
    fn parameters(&self) -> u64 {
        self.model.checkpoint().parameters().count()
    }

    /// Bytes of the weights in memory.
    #[getter]
    fn nbytes(&self, py: Python<'_>) -> PyResult<u64> {
        let checkpoint = self.model.checkpoint();
        checkpoint.parameters().bytes(checkpoint.recipe()).map_err(|fault| exception(py, &fault.into()))
    }

    /// Numbers of a row that the network reads; none of one that reads texts.
    #[getter]
    fn features(&self) -> Option<usize> {
        self.model.features()
    }

    /// Names of the classes; none of a model without.
    #[getter]
    fn names(&self) -> Vec<String> {
        let config = self.model.checkpoint().model_config();
        match config.config.output() {
            OutputKind::Classes(classes) if config.labels.is_empty() => (0..classes).map(|c| c.to_string()).collect(),
            OutputKind::Classes(_) => config.labels.clone(),
            _ => Vec::new(),
        }
    }

    /// Asks something as a person would, through the model's chat template: the answer, piece by piece.
    #[expect(clippy::too_many_arguments, reason = "keywords of a Python method")]
    #[pyo3(signature = (text, *, system=None, max_tokens=None, temperature=None, seed=0, stop=vec![]))]
    fn chat(
        &self,
        py: Python<'_>,
        text: String,
        system: Option<String>,
        max_tokens: Option<usize>,
        temperature: Option<f32>,
        seed: u64,
        stop: Vec<String>,
    ) -> PyResult<Answer> {
        self.ask(py, Wish { system, max_tokens, temperature, seed, stop }, self.model.chat(text))
    }

    /// Continues a text as it is, piece by piece.
    #[pyo3(signature = (prompt, *, max_tokens=None, temperature=None, seed=0, stop=vec![]))]
    fn generate(
        &self,
        py: Python<'_>,
        prompt: String,
        max_tokens: Option<usize>,
        temperature: Option<f32>,
        seed: u64,
        stop: Vec<String>,
    ) -> PyResult<Answer> {
        let wish = Wish { system: None, max_tokens, temperature, seed, stop };
        self.ask(py, wish, self.model.generate(prompt))
    }

    /// The most probable class of each example: texts, or rows of numbers.
    #[pyo3(name = "classify")]
    fn classes(&self, py: Python<'_>, examples: &Bound<'_, PyAny>) -> PyResult<Classification> {
        let all = match self::examples(examples)? {
            Examples::Texts(texts) => self.work(py, || self.model.classify_all(texts))?,
            Examples::Rows(rows) => self.work(py, || self.model.classify_all(rows.each()))?,
        };
        let names = self.names();
        let (count, width) = (all.len(), names.len());
        let classes = all.iter().map(|answer| (answer.class as i64).to_ne_bytes());
        let probabilities: Vec<f64> = all.iter().flat_map(|answer| answer.probabilities.iter().copied()).collect();
        Ok(Classification {
            classes: array(py, classes, "int64", &[count])?.unbind(),
            probabilities: doubles_out(py, &probabilities, &[count, width])?.unbind(),
            labels: all.into_iter().map(|answer| answer.label).collect(),
            names,
        })
    }

    /// The value that a regression predicts for each example, in units of its data, `[examples]`.
    fn predict<'py>(&self, py: Python<'py>, examples: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let values = match self::examples(examples)? {
            Examples::Texts(texts) => self.work(py, || self.model.predict_all(texts))?,
            Examples::Rows(rows) => self.work(py, || self.model.predict_all(rows.each()))?,
        };
        doubles_out(py, &values, &[values.len()])
    }

    /// How right the model is about examples: accuracy of a classifier, coefficient of determination of a regression.
    fn score(&self, py: Python<'_>, examples: &Bound<'_, PyAny>, targets: &Bound<'_, PyAny>) -> PyResult<f64> {
        let targets = self::targets(targets, &self.names(), self.kind() == "value")?;
        match self::examples(examples)? {
            Examples::Texts(texts) => self.work(py, || self.model.score(texts, targets)),
            Examples::Rows(rows) => self.work(py, || self.model.score(rows.each(), targets)),
        }
    }

    /// The vector of each text by an embedding model, `[texts, width]`.
    fn embed<'py>(&self, py: Python<'py>, texts: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let vectors = match examples(texts)? {
            Examples::Texts(texts) => self.work(py, || self.model.embed_all(texts))?,
            Examples::Rows(rows) => self.work(py, || self.model.embed_all(rows.each()))?,
        };
        let width = match self.model.checkpoint().model_config().config.output() {
            OutputKind::Embedding { width, .. } => width,
            _ => 0,
        };
        let count = vectors.len();
        floats_out(py, &vectors.concat(), &[count, width])
    }

    /// Scores the model on a task, by name or TOML file: its record.
    #[pyo3(signature = (task, *, data=None, split="test", limit=None))]
    fn evaluate<'py>(
        &self,
        py: Python<'py>,
        task: &str,
        data: Option<PathBuf>,
        split: &str,
        limit: Option<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let name = self.settings.path.file_name().map_or_else(|| self.path(), |name| name.to_string_lossy().into());
        let record = self.work(py, || {
            let (task, split) = (task::find(task)?, split.parse()?);
            let subject = Subject::new(&name, self.model.checkpoint(), self.model.cpu());
            json(&question::score_split(&task, split, data.as_deref(), limit, &subject)?.0)
        })?;
        py.import("json")?.call_method1("loads", (record,))
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let Settings { recipe, context, threads, .. } = self.settings.clone();
        // Another process may be in another directory; a name of the Hub is none.
        let path = self.settings.path.canonicalize().unwrap_or_else(|_| self.settings.path.clone());
        let arguments = (path, recipe, context, threads).into_pyobject(py)?.into_any();
        Ok((py.import("lowbit._pickle")?.getattr("open")?, arguments))
    }

    fn __repr__(&self) -> String {
        format!("Model({:?}, {}, recipe {})", self.path(), self.kind(), self.recipe_name())
    }
}
