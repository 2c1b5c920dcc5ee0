//! Training of suites and of language models.

use crate::compare::cpu;
use crate::progress::Told;
use crate::work::{self, json};
use lowbit::language::Given;
use lowbit::train::{Alone, TrainConfig};
use lowbit::training::OfSuite;
use lowbit::{Error, Fault, Stop, language, suite};
use pyo3::prelude::*;
use std::path::PathBuf;

/// What is trained, and where it goes.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Asked {
    /// A suite or a language model.
    name: String,
    variant: String,
    out: PathBuf,
    data: Option<PathBuf>,
    teacher: Option<PathBuf>,
    init: Option<PathBuf>,
    /// Files of text, in place of those of the language model.
    text: Vec<PathBuf>,
    /// Fields of the training configuration that differ, as JSON.
    settings: String,
    threads: Option<usize>,
}

/// Trains into a directory, or resumes: the record as JSON.
#[pyfunction]
pub fn train(py: Python<'_>, asked: Asked, progress: Option<Py<PyAny>>) -> PyResult<String> {
    let stop = Stop::default();
    let mut told = Told::new(progress, stop.clone());
    let result = work::run(py, &stop, || asked.run(&stop, &mut told));
    told.result(result)
}

impl Asked {
    fn run(self, stop: &Stop, told: &mut Told) -> Result<String, Error> {
        let (cpu, data) = (cpu(self.threads, stop)?, self.data.as_deref());
        if let Some(mut language) = language::find(&self.name)? {
            if !self.text.is_empty() {
                let whole = |path: &PathBuf| std::path::absolute(path).map_err(|e| Fault::io(path, &e));
                language.texts = self.text.iter().map(whole).collect::<Result<_, _>>()?;
            }
            let config = changed(&language.train_config()?, &self.settings)?;
            return json(&language.train(&config, Given::data(data), &self.out, &cpu, told)?.1);
        }
        let whole = suite::find(&self.name, data)?.resolved(data)?;
        let variant = whole.trained(&self.variant)?;
        let config = changed(&whole.of(variant).train_config(variant)?, &self.settings)?;
        let (teacher, init) = (self.teacher.as_deref(), self.init.as_deref());
        let job =
            OfSuite { suite: &whole, variant, config: &config, data, teacher, init, strict: false, ranks: &Alone };
        json(&job.train(&self.out, &cpu, told)?.0)
    }
}

/// A configuration with some fields of its own.
///
/// # Errors
/// A field that there is not, or of another kind.
pub fn changed(config: &TrainConfig, settings: &str) -> Result<TrainConfig, Error> {
    let wrong = |e: serde_json::Error| Error::Request(format!("train: {e}"));
    let mut all = serde_json::to_value(config).map_err(wrong)?;
    let own: serde_json::Map<String, serde_json::Value> = serde_json::from_str(settings).map_err(wrong)?;
    // The length of a run is said in one of two ways.
    if own.contains_key("steps") || own.contains_key("epochs") {
        all["steps"].take();
        all["epochs"].take();
    }
    own.into_iter().for_each(|(field, value)| all[field] = value);
    serde_json::from_value(all).map_err(wrong)
}
