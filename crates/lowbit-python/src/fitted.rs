//! Networks from layers, trained on arrays.

use crate::array::{floats, targets};
use crate::compare::cpu;
use crate::error::exception;
use crate::progress::Told;
use crate::train::changed;
use crate::work;
use lowbit::layers::Layer;
use lowbit::train::Qat;
use lowbit::{Error, Sequential, Stop};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::path::PathBuf;

/// A trained network: f32 masters in a directory of its own, which goes with it.
#[pyclass(frozen, module = "lowbit")]
pub struct Fitted(lowbit::Fitted);

/// A network, and how it is trained.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Asked {
    /// Layers, as JSON.
    layers: String,
    /// Height, width and channels of rows that are images.
    image: Option<[usize; 3]>,
    /// Names of the classes.
    labels: Vec<String>,
    /// Whether targets are values.
    values: bool,
    /// What low-bit layers are trained to be, as JSON.
    quantization: String,
    /// Fields of the training configuration that differ, as JSON.
    settings: String,
    threads: Option<usize>,
}

/// Trains a network on rows `x`, `[rows, features]`, and what is right for each.
#[pyfunction]
pub fn fit(
    py: Python<'_>,
    asked: Asked,
    x: &Bound<'_, PyAny>,
    y: &Bound<'_, PyAny>,
    progress: Option<Py<PyAny>>,
) -> PyResult<Fitted> {
    let x = floats(x, "x", &[2])?;
    let y = targets(y, &asked.labels, asked.values)?;
    let network = asked.network(x.cols).map_err(|error| exception(py, &error))?;
    let stop = Stop::default();
    let mut told = Told::new(progress, stop.clone());
    let result = work::run(py, &stop, || {
        let cpu = cpu(asked.threads, &stop)?;
        network.fit_on(x.each(), y, &cpu, &mut told)
    });
    told.result(result).map(Fitted)
}

impl Asked {
    fn network(&self, features: usize) -> Result<Sequential, Error> {
        let wrong = |what: &'static str| move |e: serde_json::Error| Error::Request(format!("{what}: {e}"));
        let layers: Vec<Layer> = serde_json::from_str(&self.layers).map_err(wrong("layers"))?;
        let qat: Qat = serde_json::from_str(&self.quantization).map_err(wrong("quantization"))?;
        let network = match self.image {
            Some([height, width, channels]) => Sequential::images(height, width, channels),
            None => Sequential::rows(features),
        };
        let network = layers.into_iter().fold(network, Sequential::layer).labels(&self.labels).quantization(qat);
        let settings = changed(network.settings(), &self.settings)?;
        Ok(network.training(settings))
    }
}

#[pymethods]
impl Fitted {
    /// The directory of the masters, as long as this lives.
    #[getter]
    fn path(&self) -> String {
        self.0.directory().display().to_string()
    }

    /// What the training did.
    #[getter]
    fn outcome<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (dict, outcome) = (PyDict::new(py), self.0.outcome());
        dict.set_item("steps", outcome.step)?;
        dict.set_item("loss", outcome.loss)?;
        dict.set_item("seconds", outcome.seconds)?;
        dict.set_item("parameters", outcome.parameters)?;
        Ok(dict)
    }

    /// Stores the network with packed weights in a directory, as it was trained or under another recipe.
    fn deploy(&self, py: Python<'_>, path: PathBuf, recipe: Option<String>) -> PyResult<()> {
        let done = py.detach(|| match recipe {
            Some(recipe) => self.0.deploy_as(&recipe, path),
            None => self.0.deploy(path),
        });
        done.map(drop).map_err(|error| exception(py, &error))
    }

    /// Stores the masters in a directory.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        py.detach(|| self.0.save(path)).map_err(|error| exception(py, &error))
    }
}
