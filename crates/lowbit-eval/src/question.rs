//! The questions a task may ask: which networks answer each, by which measures, and how a model is scored on it.

use crate::language::{self, Cut};
use crate::read::Rows;
use crate::record::Record;
use crate::task::{self, Task};
use crate::{Error, choose, classify, generate, metrics};
use lowbit_kernels::Cpu;
use lowbit_model::arch::OutputKind;
use lowbit_model::{Checkpoint, Inputs};
use serde::Deserialize;
use std::path::Path;

/// What a model is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// One of a fixed list of classes for each row.
    Classify,
    /// A number for each row.
    Regress,
    /// The probability of each token of a text, given those before it.
    Likelihood,
    /// Which of several texts is the likeliest after a prompt.
    Choose,
    /// A text after a prompt.
    Generate,
}

/// What is known of a question beside its name.
#[derive(Debug)]
pub struct Spec {
    /// Which one.
    pub question: Question,
    /// Its name in task files.
    pub name: &'static str,
    /// What it asks for, with its article.
    pub asks: &'static str,
    /// Whether networks are trained for it, on rows of the task; a language model answers the others as it is.
    pub is_trained: bool,
    /// Whether a network with such an output answers it.
    pub is_answered_by: fn(OutputKind) -> bool,
    /// Whether its answers are probabilities, which are compared with those of a reference.
    pub is_compared: bool,
    /// Names of its metrics, all of which count where a task names none.
    pub metrics: fn() -> Vec<&'static str>,
    score: fn(&Task, &Rows, &Subject) -> Result<Record, Error>,
}

/// Every question.
pub static QUESTIONS: &[Spec] = &[
    Spec {
        question: Question::Classify,
        name: "classify",
        asks: "a class",
        is_trained: true,
        is_answered_by: |output| matches!(output, OutputKind::Classes(_)),
        is_compared: true,
        metrics: || metrics::CLASS_METRICS.iter().map(|(name, _)| *name).collect(),
        score: classify::score,
    },
    Spec {
        question: Question::Regress,
        name: "regress",
        asks: "a value",
        is_trained: true,
        is_answered_by: |output| output == OutputKind::Value,
        is_compared: false,
        metrics: || metrics::VALUE_METRICS.iter().map(|(name, _)| *name).collect(),
        score: classify::score,
    },
    Spec {
        question: Question::Likelihood,
        name: "likelihood",
        asks: "the likelihood of a text",
        is_trained: false,
        is_answered_by: |output| output == OutputKind::Tokens,
        is_compared: true,
        metrics: || language::METRICS.to_vec(),
        score: language::score_task,
    },
    Spec {
        question: Question::Choose,
        name: "choose",
        asks: "the likeliest of several texts",
        is_trained: false,
        is_answered_by: |output| output == OutputKind::Tokens,
        is_compared: false,
        metrics: || choose::METRICS.to_vec(),
        score: choose::score,
    },
    Spec {
        question: Question::Generate,
        name: "generate",
        asks: "a text",
        is_trained: false,
        is_answered_by: |output| output == OutputKind::Tokens,
        is_compared: false,
        metrics: || generate::METRICS.to_vec(),
        score: generate::score,
    },
];

impl Question {
    /// What is known of it.
    pub fn spec(self) -> &'static Spec {
        QUESTIONS.iter().find(|spec| spec.question == self).expect("a test looks for every question")
    }
}

/// A model that the answers of another are compared with.
#[derive(Clone, Copy)]
pub struct Reference<'a> {
    /// Its name in records.
    pub name: &'a str,
    /// The model.
    pub checkpoint: &'a Checkpoint,
}

/// A model to be scored, and how.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// Its name in records.
    pub name: &'a str,
    /// The model.
    pub checkpoint: &'a Checkpoint,
    /// Where it runs.
    pub cpu: &'a Cpu,
    /// Windows over a text, where they differ from those of the task.
    pub cut: Cut,
    /// Bytes of a file at most, where the input is one.
    pub limit: Option<usize>,
    /// The model that its answers are compared with.
    pub reference: Option<Reference<'a>>,
    /// Whether a language model is timed on the text, too.
    pub speed: bool,
}

impl<'a> Subject<'a> {
    /// A model by itself, in windows of its own.
    pub fn new(name: &'a str, checkpoint: &'a Checkpoint, cpu: &'a Cpu) -> Self {
        Subject { name, checkpoint, cpu, cut: Cut::default(), limit: None, reference: None, speed: false }
    }
}

/// Refuses a model that cannot answer the question of a task; reads no data.
///
/// # Errors
/// Of kind usage; names the tasks that such a model can answer.
pub fn check(task: &Task, checkpoint: &Checkpoint) -> Result<(), Error> {
    let (spec, output) = (task.question.spec(), checkpoint.model_config().config.output());
    if (spec.is_answered_by)(output) {
        return Ok(());
    }
    let names = |fits: &dyn Fn(Question) -> bool| -> Vec<String> {
        task::all().into_iter().filter(|task| fits(task.question)).map(|task| task.name).collect()
    };
    let is_answered = |question: Question| (question.spec().is_answered_by)(output) && !question.spec().is_trained;
    let remedy = match (task.question, output) {
        (Question::Classify, OutputKind::Tokens) => {
            format!(
                "ask it to choose between texts, as {} do",
                names(&|question| question == Question::Choose).join(", ")
            )
        }
        (_, OutputKind::Tokens) => format!("ask it one of {}", names(&is_answered).join(", ")),
        _ if !spec.is_trained => "name a language model".into(),
        _ => format!("name a model trained for {}", spec.asks),
    };
    let (noun, asks) = (output.noun(), spec.asks);
    let message = format!("is {noun}, and the task {} asks for {asks}: {remedy}", task.name);
    Err(Error::usage(format!("{} {message}", checkpoint.directory().display())))
}

/// Refuses a task whose answers cannot be compared with those of a reference.
///
/// # Errors
/// Of kind usage; names the task.
pub fn check_compared(task: &Task) -> Result<(), Error> {
    let spec = task.question.spec();
    match spec.is_compared {
        true => Ok(()),
        false => {
            let (name, asks) = (&task.name, spec.asks);
            let message = "a reference is compared with by the probabilities of classes or of tokens, and the task";
            Err(Error::usage(format!("{message} {name} asks for {asks}")))
        }
    }
}

/// The record of a model on a split of a task, and the rows it was scored on: the first `limit` of them, or of a task of one
/// file its first `limit` bytes.
///
/// # Errors
/// When the rows cannot be read; as [`check`] and [`score`].
pub fn score_split(
    task: &Task,
    split: task::Split,
    data: Option<&Path>,
    limit: Option<usize>,
    subject: &Subject,
) -> Result<(Record, Rows), Error> {
    check(task, subject.checkpoint)?;
    let (mut rows, notes) = task.rows(split, data)?;
    let is_bytes = matches!(rows.inputs, Inputs::Bytes(_));
    if let Some(limit) = limit.filter(|_| !is_bytes) {
        rows.truncate(limit);
    }
    let subject = Subject { limit: limit.filter(|_| is_bytes), ..*subject };
    let mut record = score(task, &rows, &subject)?;
    record.detail.notices.extend(notes);
    Ok((record, rows))
}

/// The record of a model on rows of a task.
///
/// # Errors
/// When the model does not fit the task, memory is short, or its outputs are not finite.
pub fn score(task: &Task, rows: &Rows, subject: &Subject) -> Result<Record, Error> {
    check(task, subject.checkpoint)?;
    if let Some(reference) = &subject.reference {
        check_compared(task)?;
        check(task, reference.checkpoint)?;
    }
    (task.question.spec().score)(task, rows, subject)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_question_is_listed_under_its_name_in_task_files() {
        for spec in QUESTIONS {
            let parsed: Question = toml::Value::String(spec.name.into()).try_into().expect("a question");
            assert_eq!((parsed, parsed.spec().name), (spec.question, spec.name));
        }
        let unknown = toml::Value::String("x".into()).try_into::<Question>().expect_err("no question").to_string();
        let listed = unknown.matches('`').count() / 2 - 1;
        assert_eq!(listed, QUESTIONS.len(), "{unknown}");
    }
}
