//! Comparisons, whose reports are Python objects.

use crate::error::exception;
use crate::progress::Told;
use crate::work::{self, json};
use lowbit::base::Kind;
use lowbit::comparison::{self, Program, Share, TARIFF};
use lowbit::eval::record::{Constraints, Tool};
use lowbit::eval::{report, speed};
use lowbit::kernels::Cpu;
use lowbit::model::{Checkpoint, Column, Inputs};
use lowbit::{Error, Fault, Stop};
use pyo3::prelude::*;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines of the summary of a report, and characters of a line.
const SUMMARY: (usize, usize) = (22, 120);

/// What is compared, and where.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Asked {
    /// A suite, a group of suites or a task; with rows a model.
    name: Option<String>,
    /// A file of rows, a folder of images by class, or the directory of the data sets.
    rows: Option<PathBuf>,
    /// Columns of the text.
    text: Vec<Place>,
    /// Column of the class.
    label: Option<Place>,
    /// Directory of the data sets.
    data: Option<PathBuf>,
    /// Directory of the comparison.
    out: Option<PathBuf>,
    /// Limits of the choice.
    max_size: Option<f64>,
    max_latency: Option<f64>,
    max_loss: Option<f64>,
    threads: Option<usize>,
    /// Whether suites take their shorter settings.
    quick: bool,
    /// Trainings of every network, each from another seed.
    seeds: u64,
    /// Program and arguments of a fresh process that calls `probe`.
    probe: Vec<String>,
    /// The command that the report names.
    command: Vec<String>,
}

/// A column, by position or by name.
#[derive(FromPyObject)]
enum Place {
    Index(usize),
    Name(String),
}

impl From<Place> for Column {
    fn from(place: Place) -> Self {
        match place {
            Place::Index(index) => Column::Index(index),
            Place::Name(name) => Column::Name(name),
        }
    }
}

/// Makes, scores and times all variants: the directory of the report, its summary, and the variant it recommends.
#[pyfunction]
pub fn compare(
    py: Python<'_>,
    asked: Asked,
    progress: Option<Py<PyAny>>,
) -> PyResult<(PathBuf, Vec<String>, Option<String>)> {
    let stop = Stop::default();
    let mut told = Told::new(progress, stop.clone());
    let result = work::run(py, &stop, || asked.run(&stop, &mut told));
    told.result(result)
}

impl Asked {
    fn run(self, stop: &Stop, told: &mut Told) -> Result<(PathBuf, Vec<String>, Option<String>), Error> {
        let cpu = cpu(self.threads, stop)?;
        let asked = Constraints { weight_bytes: self.max_size, latency_p50: self.max_latency, loss: self.max_loss };
        let probe = self.probe;
        let program = Program {
            tool: Tool { version: env!("CARGO_PKG_VERSION").into(), commit: "unknown".into() },
            command: self.command,
            constraints: (asked != Constraints::default()).then_some(asked),
            tariff: TARIFF,
            share: Share::default(),
            seeds: self.seeds.max(1),
            probe: &|checkpoint, cpu| Ok(started(&probe, checkpoint, cpu)),
            bench: &|_, _| Err(io::Error::other("needs the program: run `lowbit compare`")),
        };
        let is_of_rows = |rows: &&PathBuf| !rows.is_dir() || lowbit::suite::is_of_rows(None, rows);
        let rows = self.rows.as_ref().filter(is_of_rows);
        let data = if rows.is_some() { &self.data } else { self.rows.as_ref().map_or(&self.data, |_| &self.rows) };
        let (data, out) = (data.as_deref(), self.out.as_deref());
        let name = self.name.as_deref();
        let (out, results) = match rows {
            Some(rows) => {
                let text: Vec<Column> = self.text.into_iter().map(Column::from).collect();
                let label = self.label.map(Column::from);
                let suite = lowbit::suite::of_rows(name.map(Path::new), rows, &text, label.as_ref())?;
                suite.notice.iter().for_each(|notice| lowbit::Progress::note(told, notice));
                comparison::run(&suite, None, out, &cpu, &program, told)?
            }
            None => {
                let asked = comparison::Asked::find(name.unwrap_or("quickstart"), self.quick, data)?;
                asked.notice().into_iter().for_each(|notice| lowbit::Progress::note(told, notice));
                asked.run(data, out, &cpu, &program, told)?
            }
        };
        Ok((out, report::summary(&results, SUMMARY.0, SUMMARY.1), report::recommended(&results)))
    }
}

/// The CPU of long work that a stop ends.
///
/// # Errors
/// When there is no such number of threads.
pub fn cpu(threads: Option<usize>, stop: &Stop) -> Result<Cpu, Error> {
    let cpu = match threads {
        Some(threads) => Cpu::new(None, Some(threads))?,
        None => lowbit::cpu()?,
    };
    Ok(cpu.until(stop.clone()))
}

/// A fresh process that calls [`probe`].
fn started(probe: &[String], checkpoint: &Checkpoint, cpu: &Cpu) -> Command {
    let mut words = probe.iter();
    let mut command = Command::new(words.next().map_or("python", String::as_str));
    command.args(words).arg(checkpoint.directory()).arg(checkpoint.recipe().name);
    command.args([cpu.isa.name(), &cpu.pool.threads().to_string()]);
    command
}

/// What `compare` runs in a fresh process: opens a model, answers inputs (JSON), and tells time and memory as JSON.
#[pyfunction]
pub fn probe(
    py: Python<'_>,
    path: PathBuf,
    recipe: &str,
    isa: &str,
    threads: usize,
    inputs: &[u8],
) -> PyResult<String> {
    let measure = || -> Result<String, Error> {
        let inputs: Inputs =
            serde_json::from_slice(inputs).map_err(|e| Fault::new(Kind::Input, format!("inputs of the probe: {e}")))?;
        let recipe = lowbit::model::recipe::find(recipe)?;
        let open = || Ok(Checkpoint::open(&path)?.under(Some(recipe)));
        json(&speed::probe(open, &inputs, &Cpu::new(Some(isa), Some(threads))?)?)
    };
    py.detach(measure).map_err(|error| exception(py, &error))
}
