//! Scoring a classifier on the test rows of a task.

use crate::Error;
use crate::facts;
use crate::meter::{EnergyMeter, Rapl};
use crate::read::Rows;
use crate::record::{Measure, Record};
use crate::task::{Answers, Task};
use lowbit_kernels::Cpu;
use lowbit_model::text::Classifier;
use lowbit_model::{Checkpoint, Tokenizer};

/// Most likely class of each row of logits.
fn answers(logits: &[f32], classes: usize) -> Vec<u16> {
    logits.chunks_exact(classes).map(|row| best(row) as u16).collect()
}

/// The most likely class by its logits; of equal ones the first.
pub(crate) fn best(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a))).unwrap_or(0)
}

/// The record of answers to all test rows: quality, and nothing about speed.
///
/// # Errors
/// When the answers do not fit the task.
pub fn scored(task: &Task, test: &Rows, model: &str, recipe: &str, given: Answers) -> Result<Record, Error> {
    let (measures, detail) = task.score(test, given)?;
    Ok(Record { task: task.id(), model: model.into(), recipe: recipe.into(), params: 0, measures, detail })
}

/// Rows whose text has more than `most` tokens; what is beyond does not reach a network.
///
/// # Errors
/// When the tokenizer cannot encode a text.
pub fn longer(rows: &Rows, tokenizer: &Tokenizer, most: usize) -> Result<u64, Error> {
    let mut longer = 0;
    for text in rows.texts() {
        longer += u64::from(is_longer(tokenizer, text, most)?);
    }
    Ok(longer)
}

/// Whether a text has more than `most` tokens.
pub(crate) fn is_longer(tokenizer: &Tokenizer, text: &str, most: usize) -> Result<bool, Error> {
    Ok(tokenizer.encode(text, most.saturating_add(1))?.len() > most)
}

/// What a reader must know of the rows before trusting measures of them: texts that were cut, classes without rows.
///
/// # Errors
/// When the tokenizer cannot encode a text.
pub fn notices(task: &Task, test: &Rows, checkpoint: &Checkpoint) -> Result<Vec<String>, Error> {
    let (most, all) = (checkpoint.card().max_length, test.len());
    let cut = longer(test, &checkpoint.tokenizer()?, most)?;
    let absent = test.counts(task.classes.len()).into_iter().filter(|rows| *rows == 0).count();
    let classes = task.classes.len();
    let told = [
        (cut > 0, format!("{cut} of {all} texts are longer than the {most} tokens the model sees, and were cut")),
        (
            absent > 0,
            format!("{absent} of {classes} classes have no rows; macro values are over the classes that occur"),
        ),
    ];
    Ok(told.into_iter().filter(|(said, _)| *said).map(|(_, text)| text).collect())
}

/// Quality and stored bytes of a model on the test rows of a task.
///
/// # Errors
/// When the model has other classes than the task, or its logits are not finite.
pub fn quality(task: &Task, test: &Rows, name: &str, checkpoint: &Checkpoint, cpu: &Cpu) -> Result<Record, Error> {
    let directory = checkpoint.directory();
    let logits = 4 * test.len() as u64 * task.classes.len() as u64;
    let need = checkpoint.need("score fewer rows with --limit, or take a recipe with fewer bits")?;
    Classifier::with_pass(need, checkpoint).and("logits of all rows", logits).check()?;
    let mut classifier = Classifier::of(checkpoint, cpu.clone())?;
    if classifier.labels() != task.classes {
        let (have, want) = (classifier.labels().join(", "), task.classes.join(", "));
        let message = format!("the model's labels are [{have}], the task's classes [{want}]");
        return Err(Error::input(directory, message));
    }
    let energy = Rapl::open(&Rapl::root());
    let mut meter = energy.as_ref().and_then(EnergyMeter::start);
    let logits = classifier.logits(test.texts())?;
    let joules = meter.as_mut().and_then(EnergyMeter::joules);
    if let Some(bad) = logits.iter().position(|v| !v.is_finite()) {
        let message = format!("the logits of test row {} are not finite", bad / task.classes.len());
        return Err(Error::numeric(message).in_file(directory));
    }
    let given = Answers::Classes(answers(&logits, task.classes.len()));
    let mut record = scored(task, test, name, checkpoint.recipe().name, given)?;
    facts::describe(&mut record, checkpoint)?;
    if let Some(joules) = joules {
        let each = joules / test.len().max(1) as f64;
        record.measures.insert("energy_joules".into(), Measure::measured(each, "joules", test.len() as u64));
    }
    Ok(record)
}
