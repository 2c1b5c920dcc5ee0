//! Free answers: what a language model writes after a prompt, token by the most probable token, is compared with the right text.

use crate::question::Subject;
use crate::read::{Rows, Targets, Template};
use crate::record::{Measure, Record};
use crate::stats::wilson;
use crate::task::{Answers, Task};
use crate::{Error, classify, facts, language};
use lowbit_kernels::ops::CacheKind;
use lowbit_model::Checkpoint;
use lowbit_model::chat::{ChatModel, PromptFormat};
use lowbit_model::generate::{Generator, Request};
use serde::Deserialize;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Names of the measures of answers.
pub static METRICS: &[&str] = &["exact_match"];

/// Tokens of an answer at most.
const MAX_TOKENS: usize = 1 << 16;

/// What to do where memory is short.
const REMEDY: &str = "score fewer rows with --limit, or take a recipe with fewer bits";

/// Settings of the question `generate`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generate {
    /// The text that is continued, made of the columns of a row.
    pub prompt: Template,
    /// Tokens of an answer at most.
    pub max_tokens: usize,
    /// Texts that end an answer; they and what follows are not part of it.
    #[serde(default)]
    pub stop: Vec<String>,
    /// What is done, in this order, to the answer and to the right text before they are compared.
    #[serde(default)]
    pub normalize: Vec<Normalization>,
}

/// A difference between texts that does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalization {
    /// White space at both ends.
    Trim,
    /// Upper and lower case.
    Lowercase,
    /// ASCII punctuation, anywhere.
    Punctuation,
}

impl Normalization {
    fn apply(self, text: &str) -> String {
        match self {
            Normalization::Trim => text.trim().into(),
            Normalization::Lowercase => text.to_lowercase(),
            Normalization::Punctuation => text.chars().filter(|c| !c.is_ascii_punctuation()).collect(),
        }
    }
}

impl Generate {
    /// Refuses settings without a meaning.
    pub(crate) fn check(&self) -> Result<(), String> {
        if !(1..=MAX_TOKENS).contains(&self.max_tokens) {
            return Err(format!("[generate] `max_tokens` is {}; it must lie in 1..={MAX_TOKENS}", self.max_tokens));
        }
        match self.stop.iter().any(String::is_empty) {
            true => Err("[generate] `stop` holds an empty text, which would end every answer".into()),
            false => Ok(()),
        }
    }

    /// A text without the differences that do not count.
    fn normalized(&self, text: &str) -> String {
        self.normalize.iter().fold(text.into(), |text, normalization| normalization.apply(&text))
    }
}

/// The prompts of rows as tokens, and how many were cut at their beginning to leave room for an answer.
fn prompts(
    rows: &Rows,
    settings: &Generate,
    checkpoint: &Checkpoint,
    model: &ChatModel,
) -> Result<(Vec<Vec<u32>>, usize), Error> {
    let (tokenizer, most) = (model.tokenizer(), checkpoint.model_config().max_length);
    let room = most.checked_sub(settings.max_tokens).filter(|room| *room > 0).ok_or_else(|| {
        let answer = settings.max_tokens;
        let message =
            format!("answers of {answer} tokens leave no room for a prompt: the model was trained for {most}");
        Error::usage(message).in_file(checkpoint.directory())
    })?;
    let (begin, mut cut) = (language::begin(checkpoint, tokenizer), 0);
    let mut prompt = |text: &String| {
        let mut tokens = Vec::from_iter(begin);
        tokens.extend(tokenizer.encode_parts(&[(text, false)])?);
        let over = tokens.len().saturating_sub(room);
        cut += usize::from(over > 0);
        tokens.drain(..over);
        match tokens.is_empty() {
            true => Err(Error::usage("the prompt is empty, and the model has no token that begins a text")),
            false => Ok(tokens),
        }
    };
    let prompts = rows.texts().iter().map(&mut prompt).collect::<Result<_, _>>()?;
    Ok((prompts, cut))
}

/// The answer to each row as the model writes it, and how many prompts were cut at their beginning to leave room for it.
///
/// # Errors
/// When the task does not ask to generate, memory is short, or the logits are not finite.
pub fn answers(task: &Task, rows: &Rows, subject: &Subject) -> Result<(Vec<String>, usize), Error> {
    let checkpoint = subject.checkpoint;
    let settings =
        task.generate.as_ref().ok_or_else(|| Error::usage(format!("task {} has no [generate]", task.name)))?;
    checkpoint.need(REMEDY)?.check()?;
    let model = ChatModel::load(checkpoint, PromptFormat::Text)?;
    let (prompts, cut) = prompts(rows, settings, checkpoint, &model)?;
    let context = prompts.iter().map(Vec::len).max().unwrap_or(0) + settings.max_tokens;
    checkpoint.parameters().with_sequences(checkpoint.need(REMEDY)?, CacheKind::F32, context).check()?;
    let (network, tokenizer) = (Arc::clone(model.network()), Arc::clone(model.tokenizer()));
    let mut generator = Generator::with_cache(network, tokenizer, subject.cpu.clone(), context, CacheKind::F32);
    let mut answer = |(row, prompt): (usize, Vec<u32>)| {
        subject.cpu.stop.check()?;
        let request = Request {
            prompt,
            max_tokens: settings.max_tokens,
            stop: settings.stop.clone(),
            stop_tokens: model.stop_tokens().to_vec(),
            ..Request::default()
        };
        let outcome = generator.generate(&request, &mut |_| ControlFlow::Continue(()));
        outcome.map(|outcome| outcome.text).map_err(|e| Error { message: format!("row {row}: {}", e.message), ..e })
    };
    let answers = prompts.into_iter().enumerate().map(&mut answer).collect::<Result<_, _>>()?;
    Ok((answers, cut))
}

/// The record of a language model on rows that ask for a text.
///
/// # Errors
/// As [`answers`].
pub(crate) fn score(task: &Task, rows: &Rows, subject: &Subject) -> Result<Record, Error> {
    let checkpoint = subject.checkpoint;
    let (answers, cut) = answers(task, rows, subject)?;
    let mut record = classify::scored(task, rows, subject.name, checkpoint.recipe().name, Answers::Texts(answers))?;
    if cut > 0 {
        let all = rows.len();
        let text = format!("{cut} of {all} prompts leave no room for an answer");
        record.detail.notices.push(format!("{text}, and were cut at their beginning"));
    }
    facts::describe(&mut record, checkpoint)?;
    Ok(record)
}

/// Whether each answer is the right text after normalization.
pub(crate) fn matches(task: &Task, targets: &Targets, answers: &[String]) -> Vec<bool> {
    let right = |row: usize| match targets {
        Targets::Texts(texts) => &texts[row],
        Targets::Classes(classes) => &task.classes[usize::from(classes[row])],
        _ => unreachable!("a task that asks to generate reads texts or classes"),
    };
    let normalized =
        |text: &str| task.generate.as_ref().map_or_else(|| text.into(), |settings| settings.normalized(text));
    answers.iter().enumerate().map(|(row, answer)| normalized(answer) == normalized(right(row))).collect()
}

/// The share of answers that match, with its Wilson 95 % interval.
pub(crate) fn exact_match(matches: &[bool]) -> Measure {
    let (right, n) = (matches.iter().filter(|matches| **matches).count() as u64, matches.len() as u64);
    let (lo, hi) = wilson(right, n);
    Measure::measured(right as f64 / n as f64, "fraction", n).between(lo, hi)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalization_in_its_order() {
        let settings = |normalize: &str| -> Generate {
            toml::from_str(&format!("prompt = \"{{x}}\"\nmax_tokens = 1\nnormalize = [{normalize}]")).expect("settings")
        };
        for (normalize, text, expected) in [
            ("", " Yes. ", " Yes. "),
            ("\"trim\"", " Yes. \n", "Yes."),
            ("\"lowercase\"", "ÄB c", "äb c"),
            ("\"punctuation\"", " it's - so! ", " its  so "),
            ("\"punctuation\", \"trim\", \"lowercase\"", " Yes !", "yes"),
            ("\"trim\", \"punctuation\"", " Yes !", "Yes "),
        ] {
            assert_eq!(settings(normalize).normalized(text), expected, "{normalize}");
        }
    }
}
