//! Scoring a classifier on the test rows of a task.

use crate::Error;
use crate::facts;
use crate::meter::{EnergyMeter, Rapl};
use crate::read::Rows;
use crate::record::{Detail, Measure, Record};
use crate::task::Task;
use lowbit_kernels::Cpu;
use lowbit_model::Checkpoint;
use lowbit_model::text::Classifier;

/// Classes up to which a record holds the matrix of confusions; its answers tell the same.
const MATRIX: usize = 100;

/// Most likely class of each row of logits.
fn answers(logits: &[f32], classes: usize) -> Vec<u16> {
    let best = |row: &[f32]| (0..classes).max_by(|&a, &b| row[a].total_cmp(&row[b]).then(b.cmp(&a))).unwrap_or(0);
    logits.chunks_exact(classes).map(|row| best(row) as u16).collect()
}

/// The record of answers to all test rows: quality, confusion, and nothing about speed.
///
/// # Errors
/// When the answers do not fit the task.
pub fn scored(task: &Task, test: &Rows, model: &str, recipe: &str, given: Vec<u16>) -> Result<Record, Error> {
    let (confusion, measures) = task.score(test, &given)?;
    let detail = Detail {
        classes: task.classes.clone(),
        confusion: if confusion.classes() <= MATRIX { confusion.matrix() } else { Vec::new() },
        answers: given,
        truths: test.labels.clone(),
        ..Detail::default()
    };
    Ok(Record { task: task.id(), model: model.into(), recipe: recipe.into(), params: 0, measures, detail })
}

/// Quality and stored bytes of a model on the test rows of a task.
///
/// # Errors
/// When the model has other classes than the task, or its logits are not finite.
pub fn quality(task: &Task, test: &Rows, name: &str, checkpoint: &Checkpoint, cpu: &Cpu) -> Result<Record, Error> {
    let directory = checkpoint.directory();
    let mut classifier = Classifier::of(checkpoint, cpu.clone())?;
    if classifier.labels() != task.classes {
        let (have, want) = (classifier.labels().join(", "), task.classes.join(", "));
        let message = format!("the model's labels are [{have}], the task's classes [{want}]");
        return Err(Error::input(directory, message));
    }
    let energy = Rapl::open(&Rapl::root());
    let mut meter = energy.as_ref().and_then(EnergyMeter::start);
    let logits = classifier.logits(&test.texts)?;
    let joules = meter.as_mut().and_then(EnergyMeter::joules);
    if let Some(bad) = logits.iter().position(|v| !v.is_finite()) {
        let message = format!("the logits of test row {} are not finite", bad / task.classes.len());
        return Err(Error::numeric(message).in_file(directory));
    }
    let mut record = scored(task, test, name, checkpoint.recipe().name, answers(&logits, task.classes.len()))?;
    facts::describe(&mut record, checkpoint)?;
    if let Some(joules) = joules {
        let each = joules / test.len().max(1) as f64;
        record.measures.insert("energy_joules".into(), Measure::measured(each, "joules", test.len() as u64));
    }
    Ok(record)
}
