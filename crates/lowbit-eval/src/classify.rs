//! Scoring a model on the test rows of a task.

use crate::Error;
use crate::facts;
use crate::faithfulness::Faithfulness;
use crate::meter::{EnergyMeter, Rapl};
use crate::metrics;
use crate::question::{self, Reference, Subject};
use crate::read::Rows;
use crate::record::{Measure, Record, TokenLengths};
use crate::task::{Answers, Task};
use lowbit_kernels::Cpu;
use lowbit_model::arch::OutputKind;
use lowbit_model::predict::best;
use lowbit_model::{Checkpoint, Predictor, Tokenizer};

/// Most likely class of each row of logits.
fn answers(logits: &[f32], classes: usize) -> Vec<u16> {
    logits.chunks_exact(classes).map(|row| best(row) as u16).collect()
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
        longer += u64::from(tokenizer.encode(text, most.saturating_add(1))?.len() > most);
    }
    Ok(longer)
}

/// What a reader must know of the rows before trusting measures of them: texts that were cut, classes without rows.
///
/// # Errors
/// When the tokenizer cannot encode a text.
pub fn notices(task: &Task, test: &Rows, checkpoint: &Checkpoint) -> Result<Vec<String>, Error> {
    let (most, all) = (checkpoint.model_config().max_length, test.len());
    let cut = if test.texts().is_empty() { 0 } else { longer(test, &checkpoint.tokenizer()?, most)? };
    let absent = test.counts(task.classes.len()).into_iter().filter(|rows| *rows == 0).count();
    let classes = task.classes.len();
    let notices = [
        (cut > 0, format!("{cut} of {all} texts are longer than the {most} tokens the model sees, and were cut")),
        (
            absent > 0,
            format!("{absent} of {classes} classes have no rows; macro values are over the classes that occur"),
        ),
        (
            classes > 0 && checkpoint.model_config().labels.is_empty(),
            "the model names no classes: they are taken in the order of the task".into(),
        ),
    ];
    Ok(notices.into_iter().filter(|(applies, _)| *applies).map(|(_, text)| text).collect())
}

/// The record of a model on rows that ask for a class or a value, with its notices.
///
/// # Errors
/// As [`quality`].
pub(crate) fn score(task: &Task, rows: &Rows, subject: &Subject) -> Result<Record, Error> {
    let (mut record, outputs) = quality(task, rows, subject.name, subject.checkpoint, subject.cpu)?;
    record.detail.notices = notices(task, rows, subject.checkpoint)?;
    if let Some(Reference { name, checkpoint }) = subject.reference {
        let (_, theirs) = quality(task, rows, name, checkpoint, subject.cpu)?;
        Faithfulness::of_rows(&theirs, &outputs, rows.labels(), task.classes.len())?.describe(&mut record, name);
    }
    Ok(record)
}

/// Quality and stored bytes of a model on the test rows of a task, with what it answered: logits `[rows, classes]`, or scaled
/// values `[rows, 1]`.
///
/// # Errors
/// When the model has other classes than the task or answers another question, or its outputs are not finite.
pub fn quality(
    task: &Task,
    test: &Rows,
    name: &str,
    checkpoint: &Checkpoint,
    cpu: &Cpu,
) -> Result<(Record, Vec<f32>), Error> {
    question::check(task, checkpoint)?;
    let directory = checkpoint.directory();
    let outputs = 4 * test.len() as u64 * task.classes.len().max(1) as u64;
    let need = checkpoint.need("score fewer rows with --limit, or take a recipe with fewer bits")?;
    Predictor::with_pass(need, checkpoint).and("logits of all rows", outputs).check()?;
    let mut predictor = Predictor::of(checkpoint, cpu.clone())?;
    let named = !checkpoint.model_config().labels.is_empty();
    fits(task, &predictor, named).map_err(|message| Error::input(directory, message))?;
    let energy = Rapl::open(&Rapl::root());
    let mut meter = energy.as_ref().and_then(EnergyMeter::start);
    let outputs = predictor.outputs(&test.inputs, 0..test.len())?;
    let joules = meter.as_mut().and_then(EnergyMeter::joules);
    if let Some(bad) = outputs.iter().position(|v| !v.is_finite()) {
        let message = format!("the logits of test row {} are not finite", bad / task.classes.len().max(1));
        return Err(Error::numeric(message).in_file(directory));
    }
    let given = match predictor.output() {
        OutputKind::Value => Answers::Values(predictor.values(&outputs)),
        _ => Answers::Classes(answers(&outputs, task.classes.len())),
    };
    let mut record = scored(task, test, name, checkpoint.recipe().name, given)?;
    by_length(task, test, checkpoint, &mut record)?;
    facts::describe(&mut record, checkpoint)?;
    if let Some(joules) = joules {
        let each = joules / test.len().max(1) as f64;
        record.measures.insert("energy_joules".into(), Measure::measured(each, "joules", test.len() as u64));
    }
    Ok((record, outputs))
}

/// Adds the accuracy of each range of length, where the task names ranges.
fn by_length(task: &Task, test: &Rows, checkpoint: &Checkpoint, record: &mut Record) -> Result<(), Error> {
    let Some(most) = task.lengths.last().copied() else { return Ok(()) };
    let tokenizer = checkpoint.tokenizer()?;
    let length = |text: &String| Ok(tokenizer.encode(text, most as usize + 1)?.len() as u32);
    let tokens: Vec<u32> = test.texts().iter().map(length).collect::<Result<_, Error>>()?;
    let lengths = TokenLengths { bounds: task.lengths.clone(), tokens };
    record.measures.extend(metrics::of_lengths(&lengths, &record.detail.truths, &record.detail.answers));
    record.detail.lengths = Some(lengths);
    Ok(())
}

/// Whether a model has the classes of a task; one whose classes have no names, as many of them.
fn fits(task: &Task, predictor: &Predictor, named: bool) -> Result<(), String> {
    match predictor.output() {
        OutputKind::Classes(count) if !named && count == task.classes.len() => Ok(()),
        OutputKind::Classes(_) if predictor.labels() != task.classes => {
            let (labels, classes) = (predictor.labels().join(", "), task.classes.join(", "));
            Err(format!("the model's labels are [{labels}], the task's classes [{classes}]"))
        }
        _ => Ok(()),
    }
}
